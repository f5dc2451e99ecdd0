#ifndef RAFT_WAL_H
#define RAFT_WAL_H

/* The Raft log on disk: segment files with entries, term and vote as records of one log, written by
 * a thread of its own with group commit (whatever is queued while one sync runs is the next batch).
 * A window of recent entries is kept in memory; older ones are read back from their segments.
 *
 * All functions are called from one thread (the loop); only `on_durable`, `on_failed` and `on_full`
 * run on the writer's. A stepped log has no thread: its caller does the writer's work bit by bit
 * with wal_step, and with other files beneath it (wal_options.files) the whole log is a function of
 * what it is given. Layout of segments and records: docs/wal-format.md. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/raft.h"
#include "raft/wal_file.h"

enum wal_error {
    WAL_OK = 0,
    WAL_ENOMEM = -1,
    WAL_EIO = -2,       /* the system call's error is in the message */
    WAL_ECORRUPT = -3,  /* damage before the tail; message names file and offset */
    WAL_ELOCKED = -4,   /* another process has the directory open */
    WAL_EFORMAT = -5,   /* written by a newer version */
    WAL_ENOTFOUND = -6, /* index outside of the log */
    WAL_EINVAL = -7,    /* a write beyond WAL_WRITE_BYTES_MAX or with an entry type out of 1..255 */
    WAL_EAGAIN = -8,    /* no descriptor or no memory to read an old segment: try again later */
};
const char *wal_strerror(int code);

enum {
    WAL_ERROR_BYTES_MAX = 512,
    WAL_WRITE_BYTES_MAX = 64 * 1024 * 1024, /* one write on disk: 32 bytes an entry, and payloads */
    WAL_SEGMENT_BYTES_MIN = 8 * 1024,       /* smaller and larger options are brought into range */
    WAL_SEGMENT_BYTES_MAX = 1024 * 1024 * 1024,
};

struct wal_options {
    const char *dir;      /* created if missing; NULL: in memory only (-dev) */
    size_t segment_bytes; /* preallocated; 0: 64 MiB. Smaller in tests */
    size_t cache_bytes;   /* payload bytes of recent entries kept in memory; 0: 16 MiB */
    void *host;
    /* on_durable is required, on_failed and on_full may be NULL.
     * Writer thread: writes up to `sequence` are durable. Must only pass it on (e.g.
     * uv_async_send). */
    void (*on_durable)(void *host, uint64_t sequence);
    /* Writer thread: writing or syncing failed; the log takes nothing more. A failed sync is final
     * (the page cache cannot be trusted after one), so the host must stop the process. ENOSPC when
     * a segment is made is not final: the writer retries until there is space, calling
     * `on_full(host, true)` when it starts to and `on_full(host, false)` when it is over. It starts
     * to when the spare segment cannot be replaced, so what is left of the current one can still
     * take votes and terms. A message is valid for the call. */
    void (*on_failed)(void *host, const char *message);
    void (*on_full)(void *host, bool full);
    /* Writer thread, NULL or: a batch of so many entries and bytes was synced, which took that
     * long.
     */
    void (*on_synced)(void *host, uint64_t sync_us, size_t entries, size_t bytes);
    const struct wal_files *files; /* borrowed until wal_close; NULL: the real ones */
    bool stepped;                  /* no thread: see wal_step */
    uint32_t full_retry_ms;        /* between attempts while the disk is full; 0: 500 */
    uint32_t idle_ms;              /* silence before the last batch is marked as synced; 0: 100 */
};

struct wal;

/* Opens or creates; recovers: cuts off a torn tail (never acknowledged), refuses damage before it.
 * `*state` (term, vote, indexes, runs, configurations) is valid until wal_close, except that its
 * runs and configurations are only valid until the first wal_write; commit_index is 0. On failure
 * `message` (WAL_ERROR_BYTES_MAX bytes) says what failed, on what, and what to do. */
int wal_open(const struct wal_options *options, struct wal **out, struct raft_state *state,
             char *message);

/* What one turn of the core wants to be durable; mirrors struct raft_update. */
struct wal_write {
    uint64_t sequence; /* rises with every write */
    bool hard_state_changed;
    raft_term term;
    raft_id vote;
    /* != 0: drop the whole log first and begin anew behind this index, whose entry has this term;
     * then truncate_from is 0. See wal_reset. */
    raft_index reset_index;
    raft_term reset_term;
    raft_index truncate_from;
    const struct raft_entry *entries; /* borrowed for the call: payloads are copied */
    size_t entry_count;
};

/* Queues the write for the writer thread and makes its entries readable at once. Never waits for
 * the disk. Entries must follow the log's last one (or begin at `truncate_from`), and
 * `truncate_from` must not be below the first index: asserted, since the core answers for it.
 * WAL_ENOMEM, WAL_EINVAL: nothing was queued. After on_failed: WAL_EIO. */
int wal_write(struct wal *wal, const struct wal_write *write);

/* Reads one entry, from memory or from disk. `*out` (with its payload) is valid until the next call
 * of any wal function. WAL_ENOTFOUND, WAL_EIO, WAL_ECORRUPT; WAL_EAGAIN: not for an entry of the
 * segment that was read last, unless it is larger than all before. */
int wal_entry(struct wal *wal, raft_index index, struct raft_entry *out);

/* For raft_options.batch_end: `host` is the wal. */
raft_index wal_batch_end(void *host, raft_index first, raft_index last, size_t bytes_max);

raft_index wal_first_index(const struct wal *wal);
raft_index wal_last_index(const struct wal *wal);
/* Bytes queued and not yet durable, for back-pressure; and bytes on disk. */
size_t wal_pending_bytes(const struct wal *wal);
uint64_t wal_disk_bytes(const struct wal *wal);
/* How long the oldest write that is not yet durable has waited, in microseconds; 0: none does. A
 * disk that has stopped answering shows here, since nothing else comes from the writer then. */
uint64_t wal_oldest_us(const struct wal *wal);

/* What the writer has done since wal_open. In the histograms, [i] counts values below 2^i and not
 * below 2^(i-1); the last one takes what is larger, too. */
enum { WAL_HISTOGRAM_SIZE = 24 };
struct wal_stats {
    uint64_t batches; /* each synced once */
    uint64_t entries;
    uint64_t bytes;
    uint64_t sync_us; /* all syncs of batches together */
    uint64_t sync_us_max;
    uint64_t sync_us_histogram[WAL_HISTOGRAM_SIZE];
    uint64_t batch_entries_histogram[WAL_HISTOGRAM_SIZE];
};
/* Any thread. */
void wal_stats(const struct wal *wal, struct wal_stats *out);

/* Bytes of a torn batch that recovery cut off the tail; 0 after a clean stop. For the host's log.
 */
uint64_t wal_cut_bytes(const struct wal *wal);

/* Says that a snapshot of the state up to `index`, whose entry has `term`, is on disk: synced,
 * under its final name, the folder synced, too. Entries up to there are no longer needed after a
 * crash; wal_trim and wal_reset demand it. After wal_open the log knows of none: the host says it
 * again for the newest valid one. Older ones than said before change nothing. */
void wal_snapshot_synced(struct wal *wal, raft_index index, raft_term term);

/* Begins the log anew behind a snapshot that is ahead of it, or that contradicts it: all entries
 * are dropped, the next one is `index` + 1, term and vote stay. The snapshot must have been told to
 * wal_snapshot_synced: asserted. A write like any other: queued, durable in the order of
 * `sequence`, and after a crash either all of the old log is there or the new one. Old segments
 * are deleted when the reset is durable. Errors as wal_write. */
int wal_reset(struct wal *wal, uint64_t sequence, raft_index index, raft_term term);

/* How a log just opened and the newest snapshot on disk (index and term of its last entry; 0 and 0:
 * there is none) fit together. */
enum wal_fit {
    WAL_FITS = 1,        /* the log goes on from the snapshot, or holds what it is of */
    WAL_FIT_RESET,       /* it ends before the snapshot or contradicts it: wal_reset_closed */
    WAL_FIT_NO_SNAPSHOT, /* it begins behind the snapshot: a newer one is missing. Do not start */
    WAL_FIT_NO_LOG,      /* there is a snapshot, but the log, and with it the vote, is lost: this
                          * server must not vote under its old id */
};
enum wal_fit wal_fit(const struct raft_state *state, raft_index index, raft_term term);

/* wal_reset on a log that is not open, for a start: what a crash kept a server from doing after the
 * snapshot was durable. A stored term below `term` becomes `term`, without a vote. Of the options
 * `dir`, `segment_bytes`, `files` and `stepped` are used. Waits until it is durable. Errors as
 * wal_open. */
int wal_reset_closed(const struct wal_options *options, raft_index index, raft_term term,
                     char *message);

/* Forgets entries below `index` (they are in a synced snapshot, see wal_snapshot_synced: asserted;
 * or this log is in memory only and they are applied): whole segments are deleted, never the one
 * that holds `index` or later ones.
 * The files are deleted by the writer thread; a failure there ends in on_failed. An index beyond
 * the log's end counts as its end. WAL_ENOMEM, WAL_EIO after on_failed: nothing is forgotten. */
int wal_trim(struct wal *wal, raft_index index, char *message);

/* For a stepped log: does the next thing that the writer thread would do (delete what was trimmed,
 * make the spare segment, write and sync one batch, mark the last one as synced) and calls
 * on_durable, on_failed and on_full from here; they must not call the log. False: there is nothing
 * to do now, or on_failed was called; what waits for a time is due at wal_step_due_us of the files'
 * clock (UINT64_MAX: none does). */
bool wal_step(struct wal *wal);
uint64_t wal_step_due_us(const struct wal *wal);

/* For a stepped log: lets go of everything without writing anything, as a process does that is
 * killed. Accepts NULL. */
void wal_abandon(struct wal *wal);

/* Waits until everything queued is durable, stops the thread, closes. Accepts NULL. While the disk
 * is full it tries once more and then gives up what is queued (never reported durable), which
 * on_failed is told. */
void wal_close(struct wal *wal);

#endif
