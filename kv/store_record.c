#include "kv/store_internal.h"

#include <stdlib.h>

/* What LMDB adds to a record: node header, pointer, alignment. */
enum { STORE_LMDB_RECORD_BYTES = 16 };

/* --- records --- */

struct store_level store_level_table(const struct store *store, enum store_table table)
{
    assert(table < STORE_TABLE_COUNT);
    return (struct store_level){.dbi = store->dbis[table]};
}

struct store_level store_level_folder(const struct store *store, uint64_t id)
{
    return (struct store_level){.dbi = store->dbis[STORE_FOLDERS], .folder = true, .id = id};
}

/* Bytes before the piece in LMDB's key. */
static size_t store_level_head_bytes(const struct store_level *level)
{
    return level->folder ? STORE_FOLDER_ID_BYTES : 1;
}

MDB_val store_key_compose(struct store_key *key, const struct store_level *level,
                          struct slice piece)
{
    const size_t head = store_level_head_bytes(level);

    assert(piece.size <= STORE_KEY_INLINE_BYTES);
    if (level->folder) {
        for (size_t i = 0; i < STORE_FOLDER_ID_BYTES; i++) {
            key->bytes[i] = (char)(level->id >> (8 * (STORE_FOLDER_ID_BYTES - 1 - i)));
        }
    } else {
        key->bytes[0] = STORE_KEY_TAG;
    }
    if (piece.size > 0) {
        memcpy(key->bytes + head, piece.data, piece.size);
    }
    key->size = head + piece.size;
    return (MDB_val){key->size, key->bytes};
}

bool store_key_split(const struct store_level *level, const MDB_val *mdb_key, struct slice *piece)
{
    struct store_key head;
    const MDB_val expected = store_key_compose(&head, level, SLICE_EMPTY);

    if (mdb_key->mv_size < expected.mv_size ||
        memcmp(mdb_key->mv_data, expected.mv_data, expected.mv_size) != 0) {
        return false;
    }
    *piece = slice_from((const char *)mdb_key->mv_data + expected.mv_size,
                        mdb_key->mv_size - expected.mv_size);
    return true;
}

int store_number_decode(struct slice value, uint64_t *number)
{
    struct reader reader = reader_from(value);
    const uint64_t decoded = reader_u64(&reader);

    if (!reader_done(&reader)) {
        return STORE_ECORRUPT;
    }
    *number = decoded;
    return STORE_OK;
}

static void store_number_encode(uint64_t number, char out[sizeof(uint64_t)])
{
    for (size_t i = 0; i < sizeof(number); i++) {
        out[i] = (char)(number >> (8 * i));
    }
}

static int store_level_get(struct store_txn *txn, const struct store_level *level,
                           struct slice piece, struct slice *value)
{
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, level, piece);
    MDB_val mdb_value;

    assert(txn->mdb_txn != NULL);
    const int rc = mdb_get(txn->mdb_txn, level->dbi, &mdb_key, &mdb_value);
    if (rc != 0) {
        return store_txn_error(txn, rc);
    }
    *value = slice_from(mdb_value.mv_data, mdb_value.mv_size);
    return STORE_OK;
}

static int store_level_put_flags(struct store_txn *txn, const struct store_level *level,
                                 struct slice piece, struct slice value, unsigned flags)
{
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, level, piece);
    MDB_val mdb_value = {value.size, (void *)(uintptr_t)value.data};

    return store_txn_error(txn, mdb_put(txn->mdb_txn, level->dbi, &mdb_key, &mdb_value, flags));
}

static int store_level_put(struct store_txn *txn, const struct store_level *level,
                           struct slice piece, struct slice value)
{
    return store_level_put_flags(txn, level, piece, value, 0);
}

static int store_level_delete(struct store_txn *txn, const struct store_level *level,
                              struct slice piece)
{
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, level, piece);

    return store_txn_error(txn, mdb_del(txn->mdb_txn, level->dbi, &mdb_key, NULL));
}

int store_level_enter(struct store_txn *txn, const struct store_level *level, struct slice piece,
                      struct store_level *folder)
{
    struct slice value = SLICE_EMPTY;
    uint64_t id;

    assert(piece.size == STORE_KEY_INLINE_BYTES);
    int rc = store_level_get(txn, level, piece, &value);
    if (rc == STORE_OK) {
        rc = store_number_decode(value, &id);
    }
    if (rc == STORE_OK) {
        *folder = store_level_folder(txn->store, id);
    }
    return rc;
}

int store_get(struct store_txn *txn, enum store_table table, struct slice key, struct slice *value)
{
    struct store_level level = store_level_table(txn->store, table);
    struct slice rest = key;

    while (rest.size >= STORE_KEY_INLINE_BYTES) {
        const int rc = store_level_enter(txn, &level, store_piece(rest), &level);
        if (rc != 0) {
            return rc;
        }
        rest = store_rest(rest);
    }
    return store_level_get(txn, &level, rest, value);
}

/* --- writing long keys --- */

/* A number of the store's own in STORE_META; 0 when missing. */
static int store_meta_number_get(struct store_txn *txn, struct slice name, uint64_t *number)
{
    const struct store_level meta = store_level_table(txn->store, STORE_META);
    struct slice value = SLICE_EMPTY;
    const int rc = store_level_get(txn, &meta, name, &value);

    if (rc == STORE_ENOTFOUND) {
        *number = 0;
        return STORE_OK;
    }
    return rc != 0 ? rc : store_number_decode(value, number);
}

static int store_meta_number_set(struct store_txn *txn, struct slice name, uint64_t number)
{
    const struct store_level meta = store_level_table(txn->store, STORE_META);
    char value[sizeof(number)];

    store_number_encode(number, value);
    return store_level_put(txn, &meta, name, slice_from(value, sizeof(value)));
}

/* Long keys of a table, less the records of the table itself that lead to folders: what LMDB's own
 * count lacks. Wraps around, as the sum does back. */
static struct slice store_surplus_name(enum store_table table, char out[2])
{
    out[0] = '#';
    out[1] = (char)('A' + (int)table);
    return slice_from(out, 2);
}

static int store_surplus_add(struct store_txn *txn, enum store_table table, int64_t change)
{
    char text[2];
    const struct slice name = store_surplus_name(table, text);
    uint64_t surplus;

    if (change == 0) {
        return STORE_OK;
    }
    const int rc = store_meta_number_get(txn, name, &surplus);
    return rc != 0 ? rc : store_meta_number_set(txn, name, surplus + (uint64_t)change);
}

/* Makes a new folder and lets the piece lead to it. */
static int store_folder_make(struct store_txn *txn, const struct store_level *level,
                             struct slice piece, struct store_level *folder)
{
    const struct slice name = SLICE_LITERAL("folder-id-last");
    char value[sizeof(uint64_t)];
    uint64_t id;

    int rc = store_meta_number_get(txn, name, &id);
    if (rc != 0) {
        return rc;
    }
    id++;
    rc = store_meta_number_set(txn, name, id);
    if (rc != 0) {
        return rc;
    }
    store_number_encode(id, value);
    rc = store_level_put(txn, level, piece, slice_from(value, sizeof(value)));
    if (rc == 0) {
        *folder = store_level_folder(txn->store, id);
    }
    return rc;
}

static int store_put_long(struct store_txn *txn, enum store_table table, struct slice key,
                          struct slice value)
{
    struct store_level level = store_level_table(txn->store, table);
    struct slice rest = key;
    struct slice previous;
    int64_t surplus = 0;
    int rc;

    while (rest.size >= STORE_KEY_INLINE_BYTES) {
        struct store_level folder;
        rc = store_level_enter(txn, &level, store_piece(rest), &folder);
        if (rc == STORE_ENOTFOUND) {
            rc = store_folder_make(txn, &level, store_piece(rest), &folder);
            surplus -= level.folder ? 0 : 1;
        }
        if (rc != 0) {
            return rc;
        }
        level = folder;
        rest = store_rest(rest);
    }
    rc = store_level_get(txn, &level, rest, &previous);
    if (rc == STORE_ENOTFOUND) {
        surplus++;
    } else if (rc != 0) {
        return rc;
    }
    rc = store_level_put(txn, &level, rest, value);
    return rc != 0 ? rc : store_surplus_add(txn, table, surplus);
}

static int store_folder_is_empty(struct store_txn *txn, const struct store_level *folder,
                                 bool *empty)
{
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, folder, SLICE_EMPTY);
    MDB_val mdb_value;
    MDB_cursor *cursor;
    struct slice piece;

    int rc = mdb_cursor_open(txn->mdb_txn, folder->dbi, &cursor);
    if (rc != 0) {
        return store_txn_error(txn, rc);
    }
    rc = mdb_cursor_get(cursor, &mdb_key, &mdb_value, MDB_SET_RANGE);
    if (rc == 0) {
        *empty = !store_key_split(folder, &mdb_key, &piece);
    } else if (rc == MDB_NOTFOUND) {
        *empty = true;
        rc = 0;
    }
    mdb_cursor_close(cursor);
    return store_txn_error(txn, rc);
}

/* Removes the last `levels` that nothing is left in, innermost first. `path` has the level above
 * each folder. */
static int store_folders_prune(struct store_txn *txn, const struct store_level *path, size_t depth,
                               struct slice key, int64_t *surplus)
{
    while (depth > 0) {
        bool empty = false;
        int rc = store_folder_is_empty(txn, &path[depth], &empty);
        if (rc != 0 || !empty) {
            return rc;
        }
        depth--;
        rc = store_level_delete(
            txn, &path[depth],
            slice_from(key.data + depth * STORE_KEY_INLINE_BYTES, STORE_KEY_INLINE_BYTES));
        if (rc != 0) {
            return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
        }
        if (depth == 0) {
            (*surplus)++;
        }
    }
    return STORE_OK;
}

static int store_delete_long(struct store_txn *txn, enum store_table table, struct slice key)
{
    const size_t depth = key.size / STORE_KEY_INLINE_BYTES;
    struct store_level *path = calloc(depth + 1, sizeof(*path));
    struct slice rest = key;
    int64_t surplus = -1;
    int rc = STORE_OK;

    if (path == NULL) {
        return STORE_ENOMEM;
    }
    path[0] = store_level_table(txn->store, table);
    for (size_t i = 0; rc == 0 && i < depth; i++) {
        rc = store_level_enter(txn, &path[i], store_piece(rest), &path[i + 1]);
        rest = store_rest(rest);
    }
    if (rc == 0) {
        rc = store_level_delete(txn, &path[depth], rest);
    }
    if (rc == 0) {
        rc = store_folders_prune(txn, path, depth, key, &surplus);
    }
    free(path);
    return rc != 0 ? rc : store_surplus_add(txn, table, surplus);
}

/* --- writing --- */

/* What must go through even when the store is full: without it nothing could be deleted. */
static bool store_table_is_bookkeeping(enum store_table table)
{
    return table == STORE_META || table == STORE_INDEX || table == STORE_TOMBSTONE ||
           table == STORE_LOCK_DELAY;
}

/* An upper estimate of the space that a new record takes. */
static uint64_t store_record_bytes(const struct store *store, struct slice key, struct slice value)
{
    uint64_t bytes = (uint64_t)key.size + value.size + STORE_LMDB_RECORD_BYTES;

    if (bytes > store->page_bytes / 4) {
        bytes += store->page_bytes; /* pages of its own */
    }
    return bytes;
}

/* Whether the put may be done. Past the limit only bookkeeping may grow. */
static int store_put_fits(struct store_txn *txn, enum store_table table, struct slice key,
                          struct slice value)
{
    const struct store *store = txn->store;
    const uint64_t record_bytes = store_record_bytes(store, key, value);
    struct slice previous;

    if (txn->used_bytes + record_bytes > store->limit_bytes) {
        /* The estimate counts replaced records twice: now that it matters, look. */
        txn->used_bytes = store_used_bytes(store, txn->mdb_txn);
    }
    if (txn->used_bytes + record_bytes > store->limit_bytes && !store_table_is_bookkeeping(table)) {
        const int rc = store_get(txn, table, key, &previous);
        if (rc != 0 || previous.size < value.size) {
            return rc == 0 || rc == STORE_ENOTFOUND ? STORE_EFULL : rc;
        }
    }
    txn->used_bytes += record_bytes;
    return STORE_OK;
}

int store_put(struct store_txn *txn, enum store_table table, struct slice key, struct slice value)
{
    assert(txn->write);
    assert(txn->mdb_txn != NULL);

    const int rc = store_put_fits(txn, table, key, value);
    if (rc != 0) {
        if (txn->failure == 0) {
            txn->failure = rc;
        }
        return rc;
    }
    if (key.size >= STORE_KEY_INLINE_BYTES) {
        return store_put_long(txn, table, key, value);
    }
    const struct store_level level = store_level_table(txn->store, table);
    return store_level_put(txn, &level, key, value);
}

int store_append(struct store_txn *txn, enum store_table table, struct slice key,
                 struct slice value)
{
    assert(txn->write);
    assert(txn->mdb_txn != NULL);
    if (key.size >= STORE_KEY_INLINE_BYTES) {
        return store_put_long(txn, table, key, value);
    }
    /* Long keys' leading records lie between short ones, in the same order: this one comes last. */
    const struct store_level level = store_level_table(txn->store, table);
    return store_level_put_flags(txn, &level, key, value, MDB_APPEND);
}

int store_delete(struct store_txn *txn, enum store_table table, struct slice key)
{
    assert(txn->write);
    assert(txn->mdb_txn != NULL);
    if (key.size >= STORE_KEY_INLINE_BYTES) {
        return store_delete_long(txn, table, key);
    }
    const struct store_level level = store_level_table(txn->store, table);
    return store_level_delete(txn, &level, key);
}

int store_table_count(struct store_txn *txn, enum store_table table, uint64_t *count)
{
    const struct store_level level = store_level_table(txn->store, table);
    char text[2];
    MDB_stat stat;
    uint64_t surplus;

    int rc = store_txn_error(txn, mdb_stat(txn->mdb_txn, level.dbi, &stat));
    if (rc == 0) {
        rc = store_meta_number_get(txn, store_surplus_name(table, text), &surplus);
    }
    if (rc == 0) {
        *count = stat.ms_entries + surplus;
    }
    return rc;
}

/* Long keys lie in folders that all tables share, so these go one by one. They are few. */
static int store_table_clear_long(struct store_txn *txn, enum store_table table)
{
    struct buffer key = {0};
    int rc = STORE_OK;

    while (rc == STORE_OK) {
        struct store_scan scan;
        struct slice found_key = SLICE_EMPTY;
        struct slice value = SLICE_EMPTY;
        bool found = false;

        rc = store_scan_from(&scan, txn, table, SLICE_EMPTY, buffer_slice(&key));
        if (rc != STORE_OK) {
            break;
        }
        while (!found && (rc = store_scan_next(&scan, &found_key, &value)) == STORE_OK) {
            found = found_key.size >= STORE_KEY_INLINE_BYTES;
        }
        buffer_clear(&key);
        buffer_append_slice(&key, found ? found_key : SLICE_EMPTY);
        store_scan_end(&scan);
        if (rc == STORE_OK) {
            rc = key.failed ? STORE_ENOMEM : store_delete(txn, table, buffer_slice(&key));
        }
    }
    buffer_deinit(&key);
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

int store_table_clear(struct store_txn *txn, enum store_table table)
{
    assert(txn->write);
    assert(table > STORE_META && table < STORE_TABLE_COUNT);
    const int rc = store_table_clear_long(txn, table);

    return rc != STORE_OK
               ? rc
               : store_txn_error(txn, mdb_drop(txn->mdb_txn, txn->store->dbis[table], 0));
}

/* --- what is kept beside the tables --- */

int store_applied_get(struct store_txn *txn, uint64_t *term, uint64_t *index)
{
    struct slice value = SLICE_EMPTY;

    const int rc = store_get(txn, STORE_META, SLICE_LITERAL("applied"), &value);
    if (rc == STORE_ENOTFOUND) {
        *term = 0;
        *index = 0;
        return STORE_OK;
    }
    if (rc != 0) {
        return rc;
    }
    struct reader reader = reader_from(value);
    const uint64_t found_term = reader_u64(&reader);
    const uint64_t found_index = reader_u64(&reader);
    if (!reader_done(&reader)) {
        return STORE_ECORRUPT;
    }
    *term = found_term;
    *index = found_index;
    return STORE_OK;
}

int store_applied_set(struct store_txn *txn, uint64_t term, uint64_t index)
{
    char value[2 * sizeof(uint64_t)];

    store_number_encode(term, value);
    store_number_encode(index, value + sizeof(uint64_t));
    return store_put(txn, STORE_META, SLICE_LITERAL("applied"), slice_from(value, sizeof(value)));
}

int store_index_get(struct store_txn *txn, struct slice name, uint64_t *index)
{
    struct slice value = SLICE_EMPTY;
    const int rc = store_get(txn, STORE_INDEX, name, &value);

    if (rc == STORE_ENOTFOUND) {
        *index = 0;
        return STORE_OK;
    }
    return rc != 0 ? rc : store_number_decode(value, index);
}

int store_index_set(struct store_txn *txn, struct slice name, uint64_t index)
{
    char value[sizeof(index)];

    store_number_encode(index, value);
    return store_put(txn, STORE_INDEX, name, slice_from(value, sizeof(value)));
}
