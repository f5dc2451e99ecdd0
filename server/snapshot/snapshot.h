#ifndef SERVER_SNAPSHOT_SNAPSHOT_H
#define SERVER_SNAPSHOT_SNAPSHOT_H

/* Snapshots: the replicated state at one Raft index as one file, with which a log can be cut short,
 * a lagging server brought up to date, and a lost state rebuilt. The file is a logical dump: equal
 * states give equal bytes on every machine. Its layout: docs/snapshots.md.
 *
 * A file is there under its name only when all of it is on disk: written under another name,
 * synced, renamed, the folder synced. So whoever finds one may rely on it; and all that is read
 * back is checked again, because disks are not.
 *
 * Threads: a snapshot_dir may be used by several at once; everything else belongs to one at a time.
 * Functions that say "worker" take as long as the state is large and must not run on the loop. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/errmsg.h"
#include "kv/slice.h"
#include "kv/store.h"
#include "raft/raft.h"

enum snapshot_error {
    SNAPSHOT_OK = 0,
    SNAPSHOT_ENOMEM = -1,
    SNAPSHOT_EIO = -2,
    SNAPSHOT_EFULL = -3,     /* the disk (or the store's file) is full; nothing has changed */
    SNAPSHOT_ECORRUPT = -4,  /* damaged, or not what was promised; file and offset in the message */
    SNAPSHOT_EFORMAT = -5,   /* written by a newer version */
    SNAPSHOT_ENOTFOUND = -6, /* no such snapshot */
    SNAPSHOT_EINVAL = -7,    /* beyond a limit, or out of order */
    SNAPSHOT_ECANCELLED = -8,
};
const char *snapshot_strerror(int code);

enum {
    SNAPSHOT_KEPT = 2,      /* newest ones that stay; one could have been damaged since */
    SNAPSHOT_LIST_MAX = 16, /* newest ones that a listing tells of */
    SNAPSHOT_NAME_BYTES_MAX = 96,
    SNAPSHOT_CHUNK_BYTES_MAX = 1024 * 1024,       /* of one piece on its way to another server */
    SNAPSHOT_RECORD_BYTES_MAX = 64 * 1024 * 1024, /* key and value of one record */
};
#define SNAPSHOT_FILE_BYTES_MAX ((uint64_t)1 << 40)

/* What a snapshot is of, and which file it is: (index, term, bytes, checksum) name its content. */
struct snapshot_meta {
    raft_index index; /* the last entry applied to it */
    raft_term term;   /* that entry's */
    uint64_t bytes;   /* of the file */
    uint32_t checksum;
    struct raft_configuration configuration; /* as of `index`, with its own entry's index */
};

/* Between a worker and whoever waits for it. Zeroed to begin with. */
struct snapshot_task {
    uint64_t bytes_per_s_max;   /* 0: as fast as the disk takes it */
    atomic_uint_fast64_t bytes; /* done so far, for display */
    atomic_bool cancel;         /* ends the work soon, with SNAPSHOT_ECANCELLED */
};

/* --- the folder --- */

struct snapshot_dir;
/* Creates the folder if it is missing (its parent must exist). Returns owned. */
int snapshot_dir_open(const char *path, struct snapshot_dir **out, struct errmsg *err);
/* Nothing may be open in it. Accepts NULL. */
void snapshot_dir_close(struct snapshot_dir *dir);

/* The snapshots there are, newest (by term, then index) first, at most `out_max`; `*count` is how
 * many. Only beginning and end of each are looked at: quick. A damaged one, or one of a newer
 * version, is left where it is, told of in the server's log, and not listed. */
int snapshot_list(struct snapshot_dir *dir, struct snapshot_meta *out, size_t out_max,
                  size_t *count, struct errmsg *err);
/* The first of these. SNAPSHOT_ENOTFOUND. */
int snapshot_latest(struct snapshot_dir *dir, struct snapshot_meta *out, struct errmsg *err);
/* Removes all but the newest `keep` sound ones, and what a crash left of a write. Damaged ones
 * stay. Not while a snapshot is being written. */
int snapshot_prune(struct snapshot_dir *dir, size_t keep, struct errmsg *err);

/* --- writing --- */

struct snapshot_writer;
/* Begins a snapshot of the store as it is now: opens a read transaction, quick, for the loop.
 * `configuration` is the newest one at or before the applied index; copied. The store must outlive
 * the writer. Returns owned. SNAPSHOT_EINVAL: nothing was applied yet. */
int snapshot_writer_begin(struct snapshot_dir *dir, struct store *store,
                          const struct raft_configuration *configuration,
                          struct snapshot_writer **out, struct errmsg *err);
/* Worker. Writes it, makes it durable, and prunes the folder to SNAPSHOT_KEPT. One at a time per
 * folder. `task` may be NULL. On success `*meta` is filled, and the log may be told
 * (wal_snapshot_synced); on failure the folder has what it had before. A snapshot of the same term
 * and index that was there is replaced. */
int snapshot_writer_run(struct snapshot_writer *writer, struct snapshot_task *task,
                        struct snapshot_meta *meta, struct errmsg *err);
/* Ends the transaction. Accepts NULL. */
void snapshot_writer_free(struct snapshot_writer *writer);
/* All of the above in one call. Worker. */
int snapshot_write(struct snapshot_dir *dir, struct store *store,
                   const struct raft_configuration *configuration, struct snapshot_task *task,
                   struct snapshot_meta *meta, struct errmsg *err);

/* --- loading --- */

/* Worker. Checks the whole file, then replaces the store's content by it in one transaction (see
 * store_load): readers see the old state or the new one, and applied term and index are the
 * snapshot's. Nobody may write to the store meanwhile. `meta` names the snapshot. On failure the
 * store is as it was. */
int snapshot_load(struct snapshot_dir *dir, const struct snapshot_meta *meta, struct store *store,
                  struct snapshot_task *task, struct errmsg *err);
/* Worker. Checks every byte. */
int snapshot_verify(struct snapshot_dir *dir, const struct snapshot_meta *meta,
                    struct snapshot_task *task, struct errmsg *err);

/* --- sending --- */

/* An open snapshot; stays readable when the folder is pruned. */
struct snapshot_file {
    struct snapshot_dir *dir; /* borrowed */
    int fd;
    uint64_t bytes;
};
/* SNAPSHOT_ENOTFOUND: pruned since it was listed. */
int snapshot_file_open(struct snapshot_dir *dir, const struct snapshot_meta *meta,
                       struct snapshot_file *out, struct errmsg *err);
/* Reads up to `size` bytes at `offset`; `*got` is less only at the end of the file, 0 behind it.
 * May wait for the disk. */
int snapshot_file_read(const struct snapshot_file *file, uint64_t offset, void *out, size_t size,
                       size_t *got, struct errmsg *err);
void snapshot_file_close(struct snapshot_file *file);

/* --- receiving --- */

struct snapshot_receive;
/* Begins to receive what `offer` names (its configuration is not looked at: the file has its own),
 * or goes on with what is there of that very file from before, also from before a restart. Removes
 * what was received of others. Untrusted: SNAPSHOT_EINVAL beyond a limit. SNAPSHOT_EFULL: no room
 * for all of it. Returns owned. */
int snapshot_receive_begin(struct snapshot_dir *dir, const struct snapshot_meta *offer,
                           struct snapshot_receive **out, struct errmsg *err);
/* Where the next chunk has to begin. */
uint64_t snapshot_receive_offset(const struct snapshot_receive *receive);
bool snapshot_receive_complete(const struct snapshot_receive *receive);
/* Untrusted. What is there already is passed over; SNAPSHOT_EINVAL: a gap before the chunk, bytes
 * beyond the end, or too large a chunk; nothing has changed. Writes to the page cache. */
int snapshot_receive_chunk(struct snapshot_receive *receive, uint64_t offset, struct slice bytes,
                           struct errmsg *err);
/* Worker. Checks every byte against the file's own checksums and the offer, makes it durable under
 * its name, fills `*meta`. SNAPSHOT_ECORRUPT: it was not what was offered; what was received is
 * removed, and it has to begin anew. Free afterwards in any case. */
int snapshot_receive_finish(struct snapshot_receive *receive, struct snapshot_meta *meta,
                            struct errmsg *err);
/* Keeps what was received, for another try. Accepts NULL. */
void snapshot_receive_free(struct snapshot_receive *receive);
/* Removes all that was received and not finished: the server has caught up otherwise. */
int snapshot_receive_forget(struct snapshot_dir *dir, struct errmsg *err);

#endif
