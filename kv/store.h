#ifndef KV_STORE_H
#define KV_STORE_H

/* The replicated state on LMDB: one environment, one table per kind of record, and the applied
 * (term, index) in the same transactions as the data. Committed with MDB_NOSYNC: consistent after a
 * process crash, rebuilt from the log after a machine crash (store_open tells which).
 *
 * One writer at a time (the loop thread, or one that loads: store_load); readers in any thread,
 * each with its own store_txn. Slices read are borrowed from the map until the transaction ends (a
 * write transaction: until its next write, so what was read must be copied before it is written
 * back).
 *
 * Keys of any length are taken, the empty one too: LMDB's own limits (1 to 511 bytes) are hidden
 * here. A key of STORE_KEY_INLINE_BYTES and more is kept as a path: each full piece of that many
 * bytes leads to a folder record, its rest is a record in the last folder. Byte order is the order
 * of scans throughout, and a long key costs one look-up per piece, however many share a prefix.
 *
 * Space: puts that make the store grow are refused (STORE_EFULL) once `bytes_max` bytes are in use;
 * a reserve beyond that lets deletions, releases and bookkeeping through, so that a full store can
 * be emptied. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"

enum store_error {
    STORE_OK = 0,
    STORE_ENOMEM = -1,
    STORE_EIO = -2,
    STORE_EFULL = -3, /* map or disk full; abort the transaction: nothing has changed */
    STORE_ENOTFOUND = -4,
    STORE_ECORRUPT = -5, /* a record does not decode */
};
const char *store_strerror(int code);

enum { STORE_KEY_INLINE_BYTES = 480 };

/* Read transactions open at once: DNS threads, workers and the loop. */
enum { STORE_READERS_MAX = 256 };

/* Commands carry some of these numbers: new ones go to the end. */
enum store_table {
    STORE_META,       /* format, applied term and index, the store's own numbers: not replicated */
    STORE_INDEX,      /* name of a table or topic -> highest index; see store_index_* */
    STORE_KV,         /* key -> entry (kv.h) */
    STORE_TOMBSTONE,  /* deleted key -> index of its deletion */
    STORE_LOCK_DELAY, /* key -> until, duration (session.h) */
    STORE_SESSION,    /* uuid bytes -> session (session.h) */
    STORE_SESSION_NODE, /* lower-case node name, NUL, uuid bytes -> empty */
    STORE_SESSION_KEY,  /* uuid bytes, key held -> empty */
    STORE_NODE,         /* lower-case node name -> node (server/catalog/catalog.h) */
    STORE_NODE_ID,      /* node id text -> lower-case node name */
    STORE_SERVICE,      /* lower-case node name, NUL, service id -> service */
    STORE_SERVICE_NAME, /* lower-case service name, NUL, lower-case node name, NUL, service id ->
                           empty */
    STORE_CHECK,        /* lower-case node name, NUL, check id -> check */
    STORE_COORDINATE,   /* lower-case node name -> coordinate (server/catalog/coordinate.h) */
    STORE_STAGED,       /* what a restore has brought so far (server/catalog/restore.h) */
    STORE_SETTING,      /* name -> the cluster's settings (server/catalog/autopilot.h) and its id
                           (server/catalog/cluster_id.h) */
    STORE_TABLE_COUNT
};

/* What changed, for whoever waits (watch.h). */
enum store_topic {
    STORE_TOPIC_KV,         /* key: the entry's key */
    STORE_TOPIC_SESSION,    /* key empty: the table as a whole */
    STORE_TOPIC_NODE,       /* key empty: the table as a whole */
    STORE_TOPIC_SERVICE,    /* key: lower-case service name; also woken by its nodes' and checks'
                               changes */
    STORE_TOPIC_SERVICES,   /* key empty: the table as a whole */
    STORE_TOPIC_CHECK,      /* key empty: the table as a whole */
    STORE_TOPIC_COORDINATE, /* key empty: the table as a whole */
    STORE_TOPIC_COUNT
};

struct store;

struct store_options {
    const char *dir;     /* created if missing */
    size_t bytes_max;    /* the file grows by itself up to this and the reserve; 0: 16 GiB */
    const char *boot_id; /* identity of this boot of the machine; a store last used under another
                            one, and not closed in order, is wiped (the log rebuilds it). NULL:
                            never trust an unclean one */
};

/* Returns owned. `*wiped` tells that there was a state, that it was not trusted, and that the store
 * starts empty. Errors: STORE_EIO (also: another process has it open), STORE_ENOMEM, STORE_EFULL,
 * with the reason in `err`. */
int store_open(const struct store_options *options, struct store **out, bool *wiped,
               struct errmsg *err);
/* Syncs, marks the close as clean, frees. No transaction may be open. Accepts NULL. When the sync
 * fails, or any input or output did before, the mark says so: the next open wipes. */
void store_close(struct store *store);

/* Bytes in use, the limit, what the file occupies on the disk, and bytes free there. */
struct store_usage {
    uint64_t used_bytes;
    uint64_t limit_bytes;
    uint64_t file_bytes;
    uint64_t disk_free_bytes;
};
/* From any thread. */
void store_usage(struct store *store, struct store_usage *out);

struct store_txn {
    struct store *store;
    void *mdb_txn;
    bool write;
    struct buffer changes; /* write: topics and keys noted, in order; see store_changes_* */
    struct buffer scratch; /* the caller's, for composed keys; freed with the transaction */
    /* The store's. */
    int failure;                   /* what broke the transaction, 0: nothing yet */
    uint64_t used_bytes;           /* write: an upper estimate, for the limit */
    uint64_t topics_noted;         /* write: bits of the topics noted as a whole */
    size_t note_last_offset;       /* write: where in `changes` the last one begins */
    struct store_cursors *cursors; /* read: kept open for the next scan */
};

/* A read transaction sees the last committed state. Short: it pins pages. reset/renew keep its slot
 * between batches (reset ends the snapshot without freeing the txn). */
int store_read_begin(struct store *store, struct store_txn *txn);
void store_read_reset(struct store_txn *txn);
int store_read_renew(struct store_txn *txn);
void store_read_end(struct store_txn *txn);

int store_write_begin(struct store *store, struct store_txn *txn);
/* On failure nothing has changed, and the transaction is over too. After success the noted changes
 * stay readable until store_changes_free. */
int store_write_commit(struct store_txn *txn);
void store_write_abort(struct store_txn *txn);

/* A part of a write transaction that can be undone: writes, what they noted and the space that they
 * took are dropped by _rollback, and become part of the transaction by _commit. Not nested. Scans,
 * and slices read before, end with each of the three calls. A failure that breaks the transaction
 * (STORE_EFULL, STORE_EIO) breaks it after a rollback too. */
struct store_savepoint {
    void *mdb_parent;
    uint64_t used_bytes;
    uint64_t topics_noted;
    size_t changes_bytes;
    size_t note_last_offset;
};
int store_savepoint_begin(struct store_txn *txn, struct store_savepoint *savepoint);
/* On failure the transaction must be aborted. */
int store_savepoint_commit(struct store_txn *txn, struct store_savepoint *savepoint);
void store_savepoint_rollback(struct store_txn *txn, struct store_savepoint *savepoint);

/* STORE_ENOTFOUND when missing. */
int store_get(struct store_txn *txn, enum store_table table, struct slice key, struct slice *value);
/* Borrows key and value; the value must not be borrowed from this very transaction. */
int store_put(struct store_txn *txn, enum store_table table, struct slice key, struct slice value);
/* STORE_ENOTFOUND when missing. */
int store_delete(struct store_txn *txn, enum store_table table, struct slice key);
int store_table_count(struct store_txn *txn, enum store_table table, uint64_t *count);
/* Removes all records; quick, but for those with long keys. Notes nothing. */
int store_table_clear(struct store_txn *txn, enum store_table table);

/* All records whose key starts with `prefix`, in byte order. In a write transaction, any write to
 * the table ends the scan's validity: collect first, then write (or restart with store_scan_from).
 */
struct store_scan {
    struct store_txn *txn;
    enum store_table table;
    void *cursor;
    struct slice prefix; /* borrowed until store_scan_end */
    /* The store's. */
    struct buffer key;     /* holds a long key while it is visited */
    struct buffer folders; /* ids (u64) of the folders that the scan is in, outermost first */
    size_t floor;          /* the scan is over when it would leave this many folders */
    void *cursor_long;     /* moves in the folders; NULL: not needed so far */
    int position;
};
int store_scan_begin(struct store_scan *scan, struct store_txn *txn, enum store_table table,
                     struct slice prefix);
/* As store_scan_begin, but starting at the first key >= `from` (which starts with `prefix`;
 * borrowed for the call). */
int store_scan_from(struct store_scan *scan, struct store_txn *txn, enum store_table table,
                    struct slice prefix, struct slice from);
/* STORE_ENOTFOUND at the end. */
int store_scan_next(struct store_scan *scan, struct slice *key, struct slice *value);
void store_scan_end(struct store_scan *scan);

/* Calls `visit` with every record whose key starts with `prefix`, in byte order, until it returns
 * other than 0, which is passed on. It may write to the table, too: keys and values are copied
 * before they are visited, some hundreds at a time, so this is for tables whose values are small.
 * Records that it writes behind the one it visits may be visited or not. */
typedef int (*store_visit_each)(struct store_txn *txn, struct slice key, struct slice value,
                                void *context);
int store_visit(struct store_txn *txn, enum store_table table, struct slice prefix,
                store_visit_each visit, void *context);

/* What the log has been applied up to; part of every write transaction. */
int store_applied_get(struct store_txn *txn, uint64_t *term, uint64_t *index);
int store_applied_set(struct store_txn *txn, uint64_t term, uint64_t index);

/* Highest Raft index at which `name` (a table's or topic's) changed; 0 if never. */
int store_index_get(struct store_txn *txn, struct slice name, uint64_t *index);
int store_index_set(struct store_txn *txn, struct slice name, uint64_t index);

/* Notes (write transactions only) that a waiter on (topic, key) has something new to see. */
void store_note(struct store_txn *txn, enum store_topic topic, struct slice key);
/* Visits what was noted, in order, after commit. */
struct reader store_changes_begin(const struct store_txn *txn);
bool store_changes_next(struct reader *it, enum store_topic *topic, struct slice *key);
void store_changes_free(struct store_txn *txn);

/* Replacing the whole state by another one, which comes record by record: one write transaction,
 * so that every reader sees the old state or the new one, and a crash leaves the old one or
 * (unsynced, as after any commit) the new one. Readers keep the old state until they renew or end;
 * its pages are in use until then, so the file may grow to both states' size: bytes_max is not
 * applied, only the disk's space is. Begin, puts and commit are of one thread, any one, as long as
 * nobody else writes meanwhile: asserted. Memory: LMDB keeps what was written and not yet
 * committed, at most 512 MiB of it. */
struct store_load {
    struct store_txn txn;
    /* The store's. */
    enum store_table table; /* of the last record */
    struct buffer key;      /* the last record's */
    bool any;               /* there was one */
};
/* STORE_ENOMEM, STORE_EIO, STORE_EFULL. */
int store_load_begin(struct store *store, struct store_load *load);
/* Tables but STORE_META, in their order, keys in byte order, each once: STORE_ECORRUPT otherwise.
 * Borrows key and value. On any failure the load can only be aborted. */
int store_load_put(struct store_load *load, enum store_table table, struct slice key,
                   struct slice value);
/* The state is now what was put, applied up to (term, index). Ends the load in any case; on failure
 * nothing has changed. */
int store_load_commit(struct store_load *load, uint64_t term, uint64_t index);
void store_load_abort(struct store_load *load);

/* A checksum over all tables but STORE_META's bookkeeping, in key order: equal states give equal
 * sums, on every server. For tests and operators. */
int store_checksum(struct store_txn *txn, uint64_t *checksum);

#endif
