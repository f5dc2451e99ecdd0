#include "kv/store_internal.h"

enum {
    STORE_SCAN_FRESH,     /* the cursor is at a record that was not visited yet */
    STORE_SCAN_VISITED,   /* the cursor is at the last one that was */
    STORE_SCAN_EXHAUSTED, /* nothing is left in this level */
    STORE_SCAN_OVER,
};

enum { STORE_VISIT_COUNT = 256 }; /* records copied at a time */

static int store_cursor_open(struct store_txn *txn, size_t dbi_index, void **out)
{
    MDB_cursor *cursor = NULL;
    int rc;

    if (txn->cursors != NULL && txn->cursors->at[dbi_index] != NULL) {
        cursor = txn->cursors->at[dbi_index];
        txn->cursors->at[dbi_index] = NULL;
        rc = mdb_cursor_renew(txn->mdb_txn, cursor);
        if (rc != 0) {
            mdb_cursor_close(cursor);
        }
    } else {
        rc = mdb_cursor_open(txn->mdb_txn, txn->store->dbis[dbi_index], &cursor);
    }
    if (rc == 0) {
        *out = cursor;
    }
    return store_txn_error(txn, rc);
}

static void store_cursor_close(struct store_txn *txn, size_t dbi_index, void *cursor)
{
    if (cursor == NULL) {
        return;
    }
    if (txn->cursors != NULL && txn->cursors->at[dbi_index] == NULL) {
        txn->cursors->at[dbi_index] = cursor;
    } else {
        mdb_cursor_close(cursor);
    }
}

static size_t store_scan_depth(const struct store_scan *scan)
{
    return scan->folders.size / sizeof(uint64_t);
}

/* The level that the scan is in, or an outer one of those that it came through. */
static struct store_level store_scan_level(const struct store_scan *scan, size_t depth)
{
    uint64_t id;

    assert(depth <= store_scan_depth(scan));
    if (depth == 0) {
        return store_level_table(scan->txn->store, scan->table);
    }
    memcpy(&id, scan->folders.data + (depth - 1) * sizeof(id), sizeof(id));
    return store_level_folder(scan->txn->store, id);
}

static int store_scan_enter(struct store_scan *scan, struct slice piece, uint64_t id)
{
    assert(scan->key.size == store_scan_depth(scan) * STORE_KEY_INLINE_BYTES);
    assert(piece.size == STORE_KEY_INLINE_BYTES);
    buffer_append_slice(&scan->key, piece);
    buffer_append(&scan->folders, &id, sizeof(id));
    if (scan->key.failed || scan->folders.failed) {
        return STORE_ENOMEM;
    }
    return scan->cursor_long != NULL
               ? STORE_OK
               : store_cursor_open(scan->txn, STORE_FOLDERS, &scan->cursor_long);
}

/* Moves the innermost level's cursor to the first record at or after `piece`. */
static int store_scan_seek(struct store_scan *scan, struct slice piece, MDB_val *mdb_key,
                           MDB_val *mdb_value)
{
    const size_t depth = store_scan_depth(scan);
    const struct store_level level = store_scan_level(scan, depth);
    struct store_key key;
    struct slice found;

    *mdb_key = store_key_compose(&key, &level, piece);
    const int rc = mdb_cursor_get(depth == 0 ? scan->cursor : scan->cursor_long, mdb_key, mdb_value,
                                  MDB_SET_RANGE);
    if (rc == MDB_NOTFOUND || (rc == 0 && !store_key_split(&level, mdb_key, &found))) {
        scan->position = STORE_SCAN_EXHAUSTED;
        return STORE_OK;
    }
    scan->position = STORE_SCAN_FRESH;
    return store_txn_error(scan->txn, rc);
}

/* Goes into the folders that the prefix itself leads through; the scan never leaves them. */
static int store_scan_enter_prefix(struct store_scan *scan)
{
    struct slice rest = scan->prefix;

    while (rest.size >= STORE_KEY_INLINE_BYTES) {
        const struct store_level level = store_scan_level(scan, store_scan_depth(scan));
        struct store_level folder;
        int rc = store_level_enter(scan->txn, &level, store_piece(rest), &folder);
        if (rc == STORE_ENOTFOUND) {
            scan->position = STORE_SCAN_OVER;
            return STORE_OK;
        }
        if (rc == 0) {
            rc = store_scan_enter(scan, store_piece(rest), folder.id);
        }
        if (rc != 0) {
            return rc;
        }
        rest = store_rest(rest);
    }
    scan->floor = store_scan_depth(scan);
    return STORE_OK;
}

/* Moves to the first key at or after the one whose rest, from the present level on, this is. */
static int store_scan_seek_rest(struct store_scan *scan, struct slice rest)
{
    MDB_val mdb_key;
    MDB_val mdb_value;
    int rc;

    while (rest.size >= STORE_KEY_INLINE_BYTES) {
        const struct store_level level = store_scan_level(scan, store_scan_depth(scan));
        const struct slice wanted = store_piece(rest);
        struct slice piece;
        uint64_t id;

        rc = store_scan_seek(scan, wanted, &mdb_key, &mdb_value);
        if (rc != 0 || scan->position == STORE_SCAN_EXHAUSTED ||
            !store_key_split(&level, &mdb_key, &piece) || !slice_equal(piece, wanted)) {
            return rc; /* Whatever it is at comes after the key as a whole. */
        }
        rc = store_number_decode(slice_from(mdb_value.mv_data, mdb_value.mv_size), &id);
        if (rc == 0) {
            rc = store_scan_enter(scan, wanted, id);
        }
        if (rc != 0) {
            return rc;
        }
        rest = store_rest(rest);
    }
    return store_scan_seek(scan, rest, &mdb_key, &mdb_value);
}

int store_scan_from(struct store_scan *scan, struct store_txn *txn, enum store_table table,
                    struct slice prefix, struct slice from)
{
    assert(txn->mdb_txn != NULL);
    assert(slice_starts_with(from, prefix));
    *scan = (struct store_scan){
        .txn = txn, .table = table, .prefix = prefix, .position = STORE_SCAN_FRESH};

    int rc = store_cursor_open(txn, table, &scan->cursor);
    if (rc == 0) {
        rc = store_scan_enter_prefix(scan);
    }
    if (rc == 0 && scan->position != STORE_SCAN_OVER) {
        const size_t entered_bytes = scan->floor * STORE_KEY_INLINE_BYTES;
        rc = store_scan_seek_rest(scan,
                                  slice_from(from.data + entered_bytes, from.size - entered_bytes));
    }
    if (rc != 0) {
        store_scan_end(scan);
    }
    return rc;
}

int store_scan_begin(struct store_scan *scan, struct store_txn *txn, enum store_table table,
                     struct slice prefix)
{
    return store_scan_from(scan, txn, table, prefix, prefix);
}

/* Leaves the innermost folder, for the record after the one that led to it. */
static int store_scan_leave(struct store_scan *scan)
{
    const size_t depth = store_scan_depth(scan);

    if (depth == scan->floor) {
        scan->position = STORE_SCAN_OVER;
        return STORE_ENOTFOUND;
    }
    scan->folders.size -= sizeof(uint64_t);
    scan->position = STORE_SCAN_VISITED;
    scan->key.size = (depth - 1) * STORE_KEY_INLINE_BYTES;
    if (depth == 1) {
        return STORE_OK; /* The table's own cursor never moved. */
    }

    /* The bytes cut off above are still there: the piece that leads to the folder. */
    const struct slice piece = slice_from(scan->key.data + scan->key.size, STORE_KEY_INLINE_BYTES);
    const struct store_level level = store_scan_level(scan, depth - 1);
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, &level, piece);
    MDB_val mdb_value;
    const int rc = mdb_cursor_get(scan->cursor_long, &mdb_key, &mdb_value, MDB_SET);

    return rc == MDB_NOTFOUND ? STORE_ECORRUPT : store_txn_error(scan->txn, rc);
}

/* Whether the piece is still below the prefix. Only in the floor's level can it be past it. */
static bool store_scan_within(const struct store_scan *scan, size_t depth, struct slice piece)
{
    const size_t entered_bytes = scan->floor * STORE_KEY_INLINE_BYTES;

    if (depth > scan->floor) {
        return true;
    }
    return slice_starts_with(
        piece, slice_from(scan->prefix.data + entered_bytes, scan->prefix.size - entered_bytes));
}

/* The next record of the innermost level, a leading one too. STORE_ENOTFOUND: no more in it. */
static int store_scan_step(struct store_scan *scan, size_t depth, struct slice *piece,
                           struct slice *value)
{
    const struct store_level level = store_scan_level(scan, depth);
    MDB_val mdb_key;
    MDB_val mdb_value;

    if (scan->position == STORE_SCAN_EXHAUSTED) {
        return STORE_ENOTFOUND;
    }
    const int rc =
        mdb_cursor_get(depth == 0 ? scan->cursor : scan->cursor_long, &mdb_key, &mdb_value,
                       scan->position == STORE_SCAN_FRESH ? MDB_GET_CURRENT : MDB_NEXT);
    if (rc != 0) {
        return store_txn_error(scan->txn, rc);
    }
    if (!store_key_split(&level, &mdb_key, piece) || !store_scan_within(scan, depth, *piece)) {
        return STORE_ENOTFOUND;
    }
    scan->position = STORE_SCAN_VISITED;
    *value = slice_from(mdb_value.mv_data, mdb_value.mv_size);
    return piece->size <= STORE_KEY_INLINE_BYTES ? STORE_OK : STORE_ECORRUPT;
}

int store_scan_next(struct store_scan *scan, struct slice *key, struct slice *value)
{
    if (scan->position == STORE_SCAN_OVER) {
        return STORE_ENOTFOUND;
    }
    for (;;) {
        const size_t depth = store_scan_depth(scan);
        struct slice piece = SLICE_EMPTY;
        struct slice found = SLICE_EMPTY;
        MDB_val mdb_key;
        MDB_val mdb_value;
        uint64_t id;

        scan->key.size = depth * STORE_KEY_INLINE_BYTES; /* Without the last one's rest. */
        int rc = store_scan_step(scan, depth, &piece, &found);
        if (rc == STORE_ENOTFOUND) {
            rc = store_scan_leave(scan);
        } else if (rc == 0 && piece.size == STORE_KEY_INLINE_BYTES) {
            rc = store_number_decode(found, &id);
            if (rc == 0) {
                rc = store_scan_enter(scan, piece, id);
            }
            if (rc == 0) {
                rc = store_scan_seek(scan, SLICE_EMPTY, &mdb_key, &mdb_value);
            }
        } else if (rc == 0) {
            if (depth > 0) {
                buffer_append_slice(&scan->key, piece);
                piece = buffer_slice(&scan->key);
            }
            if (scan->key.failed) {
                return STORE_ENOMEM;
            }
            *key = piece;
            *value = found;
            return STORE_OK;
        }
        if (rc != 0) {
            return rc;
        }
    }
}

void store_scan_end(struct store_scan *scan)
{
    if (scan->txn == NULL) {
        return;
    }
    store_cursor_close(scan->txn, scan->table, scan->cursor);
    store_cursor_close(scan->txn, STORE_FOLDERS, scan->cursor_long);
    buffer_deinit(&scan->key);
    buffer_deinit(&scan->folders);
    *scan = (struct store_scan){.position = STORE_SCAN_OVER};
}

/* --- visits --- */

/* Copies the next records, from the key in `from` on; leaves in `from` where to go on, *more false
 * at the end. */
static int store_visit_copy(struct store_txn *txn, enum store_table table, struct slice prefix,
                            struct buffer *from, struct buffer *batch, bool *more)
{
    struct store_scan scan;
    struct slice key = SLICE_EMPTY;
    struct slice value;
    size_t count = 0;

    buffer_clear(batch);
    int rc = store_scan_from(&scan, txn, table, prefix, buffer_slice(from));
    if (rc != 0) {
        return rc;
    }
    while (count < STORE_VISIT_COUNT && (rc = store_scan_next(&scan, &key, &value)) == 0) {
        buffer_put_string(batch, key);
        buffer_put_string(batch, value);
        count++;
    }
    *more = rc == 0;
    if (rc == 0) {
        /* The key that comes next: this one and a zero byte. */
        buffer_clear(from);
        buffer_append_slice(from, key);
        buffer_append_char(from, '\0');
    }
    store_scan_end(&scan);
    if (batch->failed || from->failed) {
        return STORE_ENOMEM;
    }
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

int store_visit(struct store_txn *txn, enum store_table table, struct slice prefix,
                store_visit_each visit, void *context)
{
    struct buffer from = {0};
    struct buffer batch = {0};
    bool more = true;
    int rc = STORE_OK;

    buffer_append_slice(&from, prefix);
    while (rc == 0 && more) {
        rc = store_visit_copy(txn, table, prefix, &from, &batch, &more);
        struct reader it = reader_from(buffer_slice(&batch));
        while (rc == 0 && it.at < it.end) {
            const struct slice key = reader_string(&it);
            const struct slice value = reader_string(&it);

            assert(!it.failed);
            rc = visit(txn, key, value, context);
        }
    }
    buffer_deinit(&from);
    buffer_deinit(&batch);
    return rc;
}

/* --- checksum --- */

static uint64_t store_checksum_word(uint64_t sum, uint64_t word)
{
    /* An odd multiplier spreads each word upwards, the shift brings it down again. */
    sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ sum >> 29;
}

static uint64_t store_checksum_slice(uint64_t sum, struct slice bytes)
{
    struct reader reader = reader_from(bytes);

    sum = store_checksum_word(sum, bytes.size);
    while (reader.end - reader.at >= (ptrdiff_t)sizeof(uint64_t)) {
        sum = store_checksum_word(sum, reader_u64(&reader));
    }
    uint64_t tail = 0;
    while (reader.at < reader.end) {
        tail = tail << 8 | reader_u8(&reader);
    }
    return store_checksum_word(sum, tail);
}

int store_checksum(struct store_txn *txn, uint64_t *checksum)
{
    uint64_t sum = 0;

    for (int table = STORE_META + 1; table < STORE_TABLE_COUNT; table++) {
        struct store_scan scan;
        struct slice key = SLICE_EMPTY;
        struct slice value = SLICE_EMPTY;

        int rc = store_scan_begin(&scan, txn, (enum store_table)table, SLICE_EMPTY);
        if (rc != 0) {
            return rc;
        }
        sum = store_checksum_word(sum, (uint64_t)table);
        while ((rc = store_scan_next(&scan, &key, &value)) == 0) {
            sum = store_checksum_slice(sum, key);
            sum = store_checksum_slice(sum, value);
        }
        store_scan_end(&scan);
        if (rc != STORE_ENOTFOUND) {
            return rc;
        }
    }
    *checksum = sum;
    return STORE_OK;
}
