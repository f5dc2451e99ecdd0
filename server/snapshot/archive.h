#ifndef SERVER_SNAPSHOT_ARCHIVE_H
#define SERVER_SNAPSHOT_ARCHIVE_H

/* The state as operators save and restore it: a gzipped tar file with meta.json, state.bin and
 * SHA256SUMS, as Consul's are; but state.bin is in the format of docs/snapshots.md. All functions
 * but _free take as long as the state is large: for workers. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "server/catalog/restore.h"
#include "server/snapshot/snapshot.h"

enum {
    ARCHIVE_META_BYTES_MAX = 256 * 1024, /* of meta.json */
    ARCHIVE_SUMS_BYTES_MAX = 4 * 1024,   /* of SHA256SUMS */
};

/* A new file in `folder` that has no name: it is gone when it is closed, or with the process. `*fd`
 * is owned by the caller. SNAPSHOT_EFULL, SNAPSHOT_EIO. */
int archive_file_open(const char *folder, int *fd, struct errmsg *err);
/* Writes all of it. SNAPSHOT_EFULL: the text says where to make room. */
int archive_file_write(const char *folder, int fd, struct slice bytes, uint64_t offset,
                       struct errmsg *err);

/* Writes the state into a file that has no name: `*fd`, owned by the caller, positioned anywhere,
 * of `*bytes` bytes. `servers` is the configuration for people: a JSON array. `folder` is where the
 * file and what it is made from lie meanwhile. SNAPSHOT_EFULL: the text says where to make room. */
int archive_save(struct store *store, const struct raft_configuration *configuration,
                 struct slice servers, const char *folder, struct snapshot_meta *meta, int *fd,
                 uint64_t *bytes, struct errmsg *err);

/* Removes what a crash amid any of this has left in the folder. Nobody may be at work there. */
void archive_clean(const char *folder);

struct archive;
/* Unpacks and checks all of the file: sums, every byte of the state, every record. Untrusted.
 * Borrows `from` for the call, and reads it from its beginning, wherever it is positioned. Returns
 * owned. SNAPSHOT_ECORRUPT and SNAPSHOT_EFORMAT: not restorable, the text says why, as Consul's
 * does where it has one. SNAPSHOT_EFULL: as archive_save. */
int archive_open(int from, const char *folder, uint64_t state_bytes_max, struct archive **out,
                 struct errmsg *err);
/* What its records amount to. */
const struct restore_sum *archive_sum(const struct archive *archive);
/* meta.json as it is; valid as long as the archive. */
struct slice archive_description(const struct archive *archive);
/* What state.bin says of itself. */
const struct snapshot_meta *archive_meta(const struct archive *archive);
/* Appends the next records (restore_record_put), about `bytes_max` of them. SNAPSHOT_ENOTFOUND: all
 * were given out. */
int archive_next(struct archive *archive, struct buffer *out, size_t bytes_max, struct errmsg *err);
/* Instead of archive_next, for looking only: the next record of any table, as snapshot_reader_next
 * hands them out; borrowed until the next call. */
int archive_record(struct archive *archive, enum store_table *table, struct slice *key,
                   struct slice *value, struct errmsg *err);
/* Accepts NULL. */
void archive_free(struct archive *archive);

#endif
