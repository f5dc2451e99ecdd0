#ifndef KV_STORE_INTERNAL_H
#define KV_STORE_INTERNAL_H

/* What the store's files share: store.c opens it and runs transactions, store_record.c reads and
 * writes single records, store_scan.c goes through many. */

#include <assert.h>
#include <lmdb.h>
#include <stdatomic.h>

#include "kv/store.h"

/* How records lie in LMDB.
 *
 * A short key is a record of its table: one byte STORE_KEY_TAG (so that LMDB's key is never empty),
 * then the key. A long key is cut into pieces of STORE_KEY_INLINE_BYTES. The first piece leads, as
 * a record of the table whose value is a folder's id (u64), to that folder; records in folders are
 * in the table `folders`, keyed by the folder's id (u64, big-endian) and the next piece, and lead
 * on, until less than a whole piece is left: that record has the value. So a full piece is always a
 * way on, anything shorter always a value, and LMDB's order of keys is byte order on every level.
 * A folder lives as long as there is something in it. */

enum {
    STORE_FOLDER_ID_BYTES = 8,
    STORE_LMDB_KEY_BYTES_MAX = STORE_FOLDER_ID_BYTES + STORE_KEY_INLINE_BYTES,
    STORE_DBI_COUNT = STORE_TABLE_COUNT + 1,
    STORE_FOLDERS = STORE_TABLE_COUNT, /* position of the folders' table among the dbis */
    STORE_KEY_TAG = 'k',
};

static_assert(STORE_LMDB_KEY_BYTES_MAX <= 511, "LMDB takes keys of at most 511 bytes");

struct store {
    MDB_env *env;
    MDB_dbi dbis[STORE_DBI_COUNT];
    int dir_fd; /* locked: one process at a time */
    char *dir;
    size_t limit_bytes;
    size_t page_bytes;
    bool suspect; /* an I/O error was seen: never mark this file clean */
    /* A write transaction is open. Atomic, so that the assertion on it holds between threads: the
     * loop's, and the one that loads a state. */
    atomic_bool write_active;
};

/* A read transaction's cursors between scans, so that scanning allocates nothing. */
struct store_cursors {
    MDB_cursor *at[STORE_DBI_COUNT];
};

/* A level of the key space: a table, or a folder of long keys. */
struct store_level {
    MDB_dbi dbi;
    bool folder;
    uint64_t id;
};

struct store_key {
    char bytes[STORE_LMDB_KEY_BYTES_MAX];
    size_t size;
};

/* Turns LMDB's code into ours; 0 only for 0. Keeps the transaction's first real failure: LMDB
 * itself only says MDB_BAD_TXN afterwards. */
int store_txn_error(struct store_txn *txn, int rc);
/* Pages that hold data, as `mdb_txn` sees them; LMDB counts them as it goes. */
uint64_t store_used_bytes(const struct store *store, MDB_txn *mdb_txn);

/* Writes the format's number into STORE_META; LMDB's code. */
int store_format_put(const struct store *store, MDB_txn *mdb_txn);
/* Puts a record whose key comes after all others of its table. */
int store_append(struct store_txn *txn, enum store_table table, struct slice key,
                 struct slice value);

struct store_level store_level_table(const struct store *store, enum store_table table);
struct store_level store_level_folder(const struct store *store, uint64_t id);
/* LMDB's key for a piece of at most STORE_KEY_INLINE_BYTES; valid as long as `key`. */
MDB_val store_key_compose(struct store_key *key, const struct store_level *level,
                          struct slice piece);
/* Whether LMDB's key belongs to the level; then *piece is what comes after its head. */
bool store_key_split(const struct store_level *level, const MDB_val *mdb_key, struct slice *piece);
/* A little-endian u64 that is the whole of a record. */
int store_number_decode(struct slice value, uint64_t *number);
/* The folder that a full piece leads to. */
int store_level_enter(struct store_txn *txn, const struct store_level *level, struct slice piece,
                      struct store_level *folder);

/* A key of STORE_KEY_INLINE_BYTES and more: its first full piece, and what comes after that. */
static inline struct slice store_piece(struct slice rest)
{
    return slice_from(rest.data, STORE_KEY_INLINE_BYTES);
}

static inline struct slice store_rest(struct slice rest)
{
    return slice_from(rest.data + STORE_KEY_INLINE_BYTES, rest.size - STORE_KEY_INLINE_BYTES);
}

#endif
