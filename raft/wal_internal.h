#ifndef RAFT_WAL_INTERNAL_H
#define RAFT_WAL_INTERNAL_H

/* What the files of the log share: the layout on disk (docs/wal-format.md), the segments' index,
 * the window of recent entries, and what the loop and the writer thread hand each other.
 *
 * Who owns what: `struct wal_shared` is used under its lock by both threads; `struct wal_window`
 * and what stands directly in `struct wal` belong to the loop; `struct wal_writer` belongs to the
 * writer thread from its start to its end, and to the loop before and after. */

#include <pthread.h>
#include <stdatomic.h>

#include "raft/crc32c.h"
#include "raft/wal.h"

/* --- layout --- */

enum {
    WAL_FORMAT_VERSION = 1,
    WAL_HEADER_BYTES = 96,
    WAL_FIRST_OFFSET = 4096, /* the header has a page of its own: appends never rewrite it */
    WAL_RECORD_BYTES = 32,
    WAL_ALIGN_BYTES = 8,
    WAL_NAME_BYTES_MAX = 32,
    WAL_SEGMENT_BYTES_DEFAULT = 64 * 1024 * 1024,
    WAL_CACHE_BYTES_DEFAULT = 16 * 1024 * 1024,
    WAL_BATCH_BYTES_MAX =
        8 * 1024 * 1024, /* of one batch of several writes; one alone may exceed */
    WAL_BATCH_WRITES_MAX = 512,
    WAL_FULL_RETRY_MS = 500,
    WAL_AHEAD_BYTES = 1024 * 1024, /* written as zeros before they are needed */
    WAL_ZERO_BYTES = 64 * 1024,    /* of them at once */
    WAL_IDLE_MS = 100,             /* of silence before the last batch is marked as synced */
};

enum wal_record_type {
    WAL_RECORD_ENTRY = 1,
    WAL_RECORD_HARD_STATE = 2, /* term; index holds the vote */
    WAL_RECORD_TRUNCATE = 3,   /* index: first one dropped; term: of the entry before it */
    WAL_RECORD_COMMIT = 4,     /* ends a batch; index: the log's last; term holds batch bytes */
    WAL_RECORD_SEAL = 5,       /* ends a segment, a batch by itself; index: id of the next one */
    WAL_RECORD_RESET = 6,      /* drops all entries; the log goes on behind index, term */
    WAL_RECORD_TYPE_LAST = WAL_RECORD_RESET,
};

struct wal_header {
    uint32_t version;
    uint32_t salt;       /* every CRC of the segment begins with it */
    uint64_t id;         /* rises by 1 */
    uint64_t bytes;      /* size of the file, preallocated */
    raft_index next;     /* the log's next index when the segment began */
    raft_term prev_term; /* of the entry before `next` */
    raft_term term;      /* the hard state when the segment began */
    raft_id vote;
    uint64_t prev_end; /* where the segment before ended, its seal not counted; 0: none */
};

struct wal_record {
    uint32_t size;  /* payload bytes */
    uint32_t batch; /* ordinal in the segment, from 1 */
    uint8_t type;
    uint8_t entry_type;
    uint64_t index;
    uint64_t term;
};

/* Little-endian numbers, written out so that the compiler makes one load or store of each. */
static inline void wal_put_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

static inline void wal_put_u64(uint8_t *at, uint64_t value)
{
    wal_put_u32(at, (uint32_t)value);
    wal_put_u32(at + 4, (uint32_t)(value >> 32));
}

static inline uint32_t wal_get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t wal_get_u64(const uint8_t *at)
{
    return (uint64_t)wal_get_u32(at) | (uint64_t)wal_get_u32(at + 4) << 32;
}

/* Bytes of a record on disk, padded. */
static inline uint64_t wal_record_span(uint32_t size)
{
    return WAL_RECORD_BYTES +
           (((uint64_t)size + WAL_ALIGN_BYTES - 1) & ~(uint64_t)(WAL_ALIGN_BYTES - 1));
}

void wal_header_encode(const struct crc32c *crc32c, const struct wal_header *header,
                       uint8_t out[WAL_HEADER_BYTES]);
/* Untrusted bytes. WAL_ECORRUPT, WAL_EFORMAT. */
int wal_header_decode(const struct crc32c *crc32c, const uint8_t *bytes, size_t size,
                      struct wal_header *out);

/* Writes all fields of the record's head but batch and checksum, which wal_record_seal adds when
 * the record's place is known. The loop does the one and the writer the other, on different bytes.
 */
void wal_record_encode(const struct wal_record *record, uint8_t out[WAL_RECORD_BYTES]);
void wal_record_seal(const struct crc32c *crc32c, uint32_t salt, uint32_t batch, uint8_t *bytes);
/* Reads the fields that wal_record_encode writes, without checking anything; batch is 0. */
static inline struct wal_record wal_record_head(const uint8_t bytes[WAL_RECORD_BYTES])
{
    return (struct wal_record){
        .size = wal_get_u32(bytes + 4),
        .type = bytes[12],
        .entry_type = bytes[13],
        .index = wal_get_u64(bytes + 16),
        .term = wal_get_u64(bytes + 24),
    };
}

static inline uint32_t wal_record_batch(const uint8_t bytes[WAL_RECORD_BYTES])
{
    return wal_get_u32(bytes + 8);
}

/* Untrusted bytes: true when a whole and valid record stands at `offset`. */
bool wal_record_decode(const struct crc32c *crc32c, uint32_t salt, const uint8_t *bytes,
                       uint64_t size, uint64_t offset, struct wal_record *out);

/* Writes a message of WAL_ERROR_BYTES_MAX bytes and returns `code`. */
int wal_error(char *message, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- segments and their index --- */

/* Where an entry's record is: 8 bytes an entry. */
struct wal_position {
    uint32_t offset_units; /* of WAL_ALIGN_BYTES, from the start of the file */
    uint32_t size;         /* of the payload */
};

/* Entries first..first+count-1 are read from this segment; it may hold more that were truncated.
 * With count 0, `first` is the index that would come next. */
struct wal_segment {
    uint64_t id;
    uint64_t bytes;
    uint32_t salt;
    raft_index first;
    size_t count;
    size_t capacity;
    struct wal_position *positions;
};

void wal_segment_name(uint64_t id, char out[WAL_NAME_BYTES_MAX]);
/* Inverse; false for other files. */
bool wal_segment_name_parse(const char *name, uint64_t *id);
struct wal_segment *wal_segment_new(const struct wal_header *header);
void wal_segment_free(struct wal_segment *segment);

struct wal_shared;
struct wal_segments {
    struct wal_segment **items; /* by id, without gaps; the last one is written to */
    size_t count;
    size_t capacity;
};
/* Takes `segment`. WAL_ENOMEM. */
int wal_segments_add(struct wal_segments *segments, struct wal_segment *segment);
void wal_segments_deinit(struct wal_segments *segments);
/* Drops the positions of entries at and after `from`. */
void wal_segments_truncate(struct wal_segments *segments, raft_index from);
/* Drops the positions of all entries; `next` is the next one's index. */
void wal_segments_reset(struct wal_segments *segments, raft_index next);
/* Takes the oldest `drop` segments off the list, to be deleted by the writer. Under the lock. */
void wal_segments_drop(struct wal_shared *shared, size_t drop);
/* The segment that holds the entry, or NULL. */
struct wal_segment *wal_segments_find(const struct wal_segments *segments, raft_index index);
/* Room for `more` further positions in the last segment. The old array comes back in `*old` (free
 * it after unlocking); the new one is prepared by wal_positions_grow without the lock. */
int wal_positions_grow(const struct wal_segment *segment, size_t more, struct wal_position **grown,
                       size_t *capacity);

/* Writes everything, whatever the system call makes of it; 0 or a negative errno. Changes `iov`. */
int wal_write_all(const struct wal_files *files, int file, struct iovec *iov, size_t count,
                  uint64_t offset);

/* --- one write on its way, and the window of recent entries --- */

/* The encoded records of one wal_write. Made by the loop; from queueing until `sequence` is
 * durable the writer may change the batch and checksum bytes of its records and nothing else.
 * Freed by the loop when it is durable and no slot of the window points into it. */
struct wal_chunk {
    struct wal_chunk *next;
    uint64_t sequence;
    uint64_t queued_us;
    size_t size;
    size_t slots; /* of the window that point here; the loop's */
    bool durable; /* the loop's view */
    uint8_t bytes[];
};

struct wal_chunk_list {
    struct wal_chunk *head;
    struct wal_chunk *tail;
};
void wal_chunk_list_push(struct wal_chunk_list *list, struct wal_chunk *chunk);
void wal_chunk_list_free(struct wal_chunk_list *list);

struct wal_slot {
    struct wal_chunk *chunk;
    uint32_t offset; /* of the record in chunk->bytes */
};

/* Entries first..first+count-1, in a ring of a power of two. */
struct wal_window {
    struct wal_slot *slots;
    size_t capacity;
    raft_index first;
    size_t count;
    size_t bytes; /* of the records in it */
};
int wal_window_reserve(struct wal_window *window, size_t more);
/* Room must be reserved. */
void wal_window_push(struct wal_window *window, raft_index index, struct wal_chunk *chunk,
                     uint32_t offset);
void wal_window_truncate(struct wal_window *window, raft_index from);
/* Drops the oldest entry, which must be durable or forgotten. */
void wal_window_pop(struct wal_window *window);
bool wal_window_find(const struct wal_window *window, raft_index index, struct raft_entry *out);
void wal_window_deinit(struct wal_window *window);

/* --- the whole --- */

struct wal_shared {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* the writer waits on it */
    /* Under the lock: */
    struct wal_chunk_list queue; /* to be written */
    struct wal_chunk_list done;  /* durable, for the loop to free */
    struct wal_segments segments;
    uint64_t trim_from; /* segments trim_from..trim_to-1 are to be deleted, oldest first */
    uint64_t trim_to;
    uint64_t current_us; /* when the oldest write of the current batch was queued; 0: no batch */
    struct wal_stats stats;
    bool stop;
    bool failed;
    /* Counters, read without the lock. */
    atomic_size_t pending_bytes;
    atomic_uint_fast64_t disk_bytes;
};

/* The writes of one batch on their way to the disk; the list is the writer's alone. */
struct wal_batch {
    struct wal_chunk_list chunks;
    size_t count;
    size_t bytes;
    uint64_t sequence;
    size_t entries; /* known when placed */
    bool roll;      /* needs a new segment first */
    bool placed;    /* its records have their ordinal and checksum */
};

/* What one turn of the writer came to. */
enum wal_turn {
    WAL_TURN_WORKED = 1,
    WAL_TURN_IDLE, /* nothing to do before wal_writer_due_us, or before the loop asks for more */
    WAL_TURN_OVER, /* stopped, or failed */
};

/* Where the log ends on disk. */
struct wal_writer {
    struct wal_segment *segment; /* the last one; its positions are changed under the lock */
    int fd;                      /* of it */
    uint64_t end;                /* offset of the next batch */
    uint64_t zeroed;             /* up to here the file was written to; 0: not known */
    uint32_t batch;              /* ordinal of the next batch */
    raft_index next;
    raft_term last_term;
    raft_term term;
    raft_id vote;
    int spare_fd; /* -1: none */
    uint64_t spare_bytes;
    struct wal_batch current; /* being written; stays while the disk is full */
    bool full;                /* the host was told so */
    bool stuck;               /* `current` waits for space, or for a descriptor */
    bool over;                /* the last turn was taken */
    uint64_t retry_at_us;     /* when a spare is tried for again; in the past: at once */
    bool mark_due;            /* the last batch is synced, but nothing on disk says so yet */
    uint64_t mark_at_us;      /* 0: not yet known */
    uint64_t sync_us;         /* how long the last sync of a batch took */
    char message[WAL_ERROR_BYTES_MAX];
};

/* Looks on while recovery reads; for wal_inspect.c. */
struct wal_observer {
    void *host;
    void (*on_segment)(void *host, const char *name, const struct wal_header *header);
    /* `bytes` is the record with its payload. Called once for each record of a whole batch, in
     * order, before it takes effect. */
    void (*on_record)(void *host, uint64_t segment_id, uint64_t offset,
                      const struct wal_record *record, const uint8_t *bytes);
};

struct wal {
    uint32_t magic;
    struct wal_options options; /* `dir` points to `dir_name` */
    const struct wal_files *files;
    char *dir_name;
    int dir_fd;
    int lock_fd;
    bool memory;
    bool read_only;                      /* nothing is changed: `files` only pretend to write */
    const struct wal_observer *observer; /* NULL: none */
    struct crc32c crc32c;                /* constant after opening */

    pthread_t thread;
    bool started; /* the thread, or the steps */
    struct wal_shared shared;
    struct wal_writer writer;

    /* The loop's. */
    struct wal_window window;
    raft_index first;
    raft_index last;
    raft_term prev_term;       /* of entry first - 1 */
    raft_index snapshot_index; /* of the newest snapshot known to be synced; 0: none */
    struct raft_term_run *runs;
    size_t run_count;
    size_t run_capacity;
    uint64_t sequence; /* of the last write */
    uint64_t cut_bytes;
    struct raft_configuration *configurations; /* two, for raft_state */
    int read_fd;                               /* of segment read_id; -1: none */
    uint64_t read_id;
    uint8_t *read_buffer;
    size_t read_capacity;
};

/* Runs of terms. wal_runs_reserve makes room for `more`. */
int wal_runs_reserve(struct wal *wal, size_t more);
void wal_runs_push(struct wal *wal, raft_index index, raft_term term);
void wal_runs_truncate(struct wal *wal, raft_index from);
/* Of an entry, or of the one before the first. */
raft_term wal_runs_term_at(const struct wal *wal, raft_index index);

/* Reads one record back from its segment into wal->read_buffer. */
int wal_read_disk(struct wal *wal, raft_index index, struct raft_entry *out, char *message);

/* A log without a folder, a thread or entries: what opening begins with. WAL_ENOMEM, and then there
 * is nothing to undo. wal_deinit undoes it, and what was opened since, but for the thread. */
int wal_init(struct wal *wal, const struct wal_options *options);
void wal_deinit(struct wal *wal);

/* Reads what is in the directory into `wal`, cuts the tail, leaves the writer ready to append. */
int wal_recover(struct wal *wal, raft_index *configuration_indexes, char *message);

/* The writer. `wal_writer_roll` closes the segment that is written to, if any, and makes a new
 * one with room for `bytes`; negative errno in `*error` when a system call failed. */
int wal_writer_spare(struct wal *wal, uint64_t bytes, char *message, int *error);
int wal_writer_roll(struct wal *wal, uint64_t bytes, char *message, int *error);
int wal_writer_seal(struct wal *wal, int fd, struct wal_segment *segment, uint64_t end,
                    uint32_t batch, char *message);
enum wal_turn wal_writer_turn(struct wal *wal);
uint64_t wal_writer_due_us(const struct wal *wal);
/* The thread: turns, and sleep between them. `arg` is the log. */
void *wal_writer_run(void *arg);

#endif
