#include "kv/kv.h"

#include <assert.h>

/* A record: flags, LockIndex, CreateIndex, ModifyIndex (u64 each), session, then the value. */
enum { KV_RECORD_HEAD_BYTES = 4 * sizeof(uint64_t) + UUID_BYTES };

/* Deletions of many keys go in steps of so many, since writing ends a scan. */
enum { KV_BATCH_COUNT = 256 };

#define KV_INDEX_NAME SLICE_LITERAL("kvs")
#define KV_TOMBSTONE_INDEX_NAME SLICE_LITERAL("tombstones")

static const struct uuid kv_no_session;

int kv_entry_decode(struct slice key, struct slice record, struct kv_entry *out)
{
    struct reader reader = reader_from(record);
    struct kv_entry entry = {.key = key};

    entry.flags = reader_u64(&reader);
    entry.lock_index = reader_u64(&reader);
    entry.create_index = reader_u64(&reader);
    entry.modify_index = reader_u64(&reader);
    const struct slice session = reader_bytes(&reader, UUID_BYTES);
    if (reader.failed || entry.create_index == 0 || entry.create_index > entry.modify_index) {
        return STORE_ECORRUPT;
    }
    memcpy(entry.session.bytes, session.data, UUID_BYTES);
    entry.value = slice_from(reader.at, (size_t)(reader.end - reader.at));
    *out = entry;
    return STORE_OK;
}

void kv_entry_encode(struct buffer *out, const struct kv_entry *entry)
{
    assert(entry->create_index > 0);
    assert(entry->create_index <= entry->modify_index);
    (void)buffer_reserve(out, KV_RECORD_HEAD_BYTES + entry->value.size);
    buffer_put_u64(out, entry->flags);
    buffer_put_u64(out, entry->lock_index);
    buffer_put_u64(out, entry->create_index);
    buffer_put_u64(out, entry->modify_index);
    buffer_append(out, entry->session.bytes, UUID_BYTES);
    buffer_append_slice(out, entry->value);
}

static int kv_entry_put(struct store_txn *txn, const struct kv_entry *entry)
{
    struct buffer record = {0};
    int rc = STORE_ENOMEM;

    kv_entry_encode(&record, entry);
    if (!record.failed) {
        rc = store_put(txn, STORE_KV, entry->key, buffer_slice(&record));
    }
    buffer_deinit(&record);
    return rc;
}

/* --- reading --- */

int kv_get(struct store_txn *txn, struct slice key, struct kv_entry *out)
{
    struct slice record;
    const int rc = store_get(txn, STORE_KV, key, &record);

    return rc != 0 ? rc : kv_entry_decode(key, record, out);
}

int kv_index(struct store_txn *txn, uint64_t *index)
{
    uint64_t changed;
    uint64_t deleted;

    int rc = store_index_get(txn, KV_INDEX_NAME, &changed);
    if (rc == 0) {
        rc = store_index_get(txn, KV_TOMBSTONE_INDEX_NAME, &deleted);
    }
    if (rc == 0) {
        *index = changed > deleted ? changed : deleted;
    }
    return rc;
}

int kv_scan_begin(struct kv_scan *scan, struct store_txn *txn, struct slice prefix)
{
    return store_scan_begin(&scan->scan, txn, STORE_KV, prefix);
}

int kv_scan_from(struct kv_scan *scan, struct store_txn *txn, struct slice prefix,
                 struct slice from)
{
    return store_scan_from(&scan->scan, txn, STORE_KV, prefix, from);
}

int kv_scan_next(struct kv_scan *scan, struct kv_entry *out)
{
    struct slice key;
    struct slice record;
    const int rc = store_scan_next(&scan->scan, &key, &record);

    return rc != 0 ? rc : kv_entry_decode(key, record, out);
}

void kv_scan_end(struct kv_scan *scan)
{
    store_scan_end(&scan->scan);
}

static int kv_tombstone_decode(struct slice record, uint64_t *index)
{
    struct reader reader = reader_from(record);
    const uint64_t decoded = reader_u64(&reader);

    if (!reader_done(&reader)) {
        return STORE_ECORRUPT;
    }
    *index = decoded;
    return STORE_OK;
}

int kv_tombstone_index(struct store_txn *txn, struct slice prefix, struct buffer *from, size_t max,
                       uint64_t *index, bool *more)
{
    struct store_scan scan;
    struct slice key = SLICE_EMPTY;
    struct slice record;
    uint64_t highest = *index;
    size_t count = 0;

    int rc = store_scan_from(&scan, txn, STORE_TOMBSTONE, prefix, buffer_slice(from));
    if (rc != 0) {
        return rc;
    }
    while (count < max && (rc = store_scan_next(&scan, &key, &record)) == 0) {
        uint64_t deleted;

        rc = kv_tombstone_decode(record, &deleted);
        if (rc != 0) {
            break;
        }
        highest = deleted > highest ? deleted : highest;
        count++;
    }
    if (rc == 0) {
        buffer_clear(from);
        buffer_append_slice(from, key);
        buffer_append_char(from, '\0'); /* The next string in byte order. */
    }
    store_scan_end(&scan);
    if (from->failed) {
        return STORE_ENOMEM;
    }
    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    *more = rc == 0;
    *index = highest;
    return STORE_OK;
}

/* --- writing --- */

/* Adds or removes the record that says that `session` holds `key`. */
static int kv_holding_change(struct store_txn *txn, const struct uuid *session, struct slice key,
                             bool held)
{
    struct buffer name = {0};
    int rc = STORE_ENOMEM;

    buffer_append(&name, session->bytes, UUID_BYTES);
    buffer_append_slice(&name, key);
    if (!name.failed) {
        rc = held ? store_put(txn, STORE_SESSION_KEY, buffer_slice(&name), SLICE_EMPTY)
                  : store_delete(txn, STORE_SESSION_KEY, buffer_slice(&name));
    }
    buffer_deinit(&name);
    return !held && rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
}

static int kv_holder_change(struct store_txn *txn, struct slice key, const struct uuid *from,
                            const struct uuid *to)
{
    int rc = STORE_OK;

    if (uuid_equal(from, to)) {
        return STORE_OK;
    }
    if (!uuid_is_zero(from)) {
        rc = kv_holding_change(txn, from, key, false);
    }
    if (rc == 0 && !uuid_is_zero(to)) {
        rc = kv_holding_change(txn, to, key, true);
    }
    return rc;
}

/* What a write finds: the entry, or zeros when there is none. The slices of `previous` are valid
 * until the next write. */
static int kv_find(struct store_txn *txn, struct slice key, struct kv_entry *previous, bool *exists)
{
    const int rc = kv_get(txn, key, previous);

    if (rc == STORE_ENOTFOUND) {
        *previous = (struct kv_entry){.key = key, .value = SLICE_EMPTY};
        *exists = false;
        return STORE_OK;
    }
    *exists = rc == 0;
    return rc;
}

static bool kv_entry_same(const struct kv_entry *a, const struct kv_entry *b)
{
    return a->flags == b->flags && a->lock_index == b->lock_index &&
           uuid_equal(&a->session, &b->session) && slice_equal(a->value, b->value);
}

/* Stores `next` in the place of `previous`, unless they are the same: then nothing changes,
 * ModifyIndex included. `next` gets its indexes here; it may not borrow from the store. */
static int kv_replace(struct store_txn *txn, uint64_t index, const struct kv_entry *previous,
                      bool exists, struct kv_entry *next, bool *changed)
{
    const struct uuid holder = previous->session; /* Copied: the writes below end the borrowing. */

    assert(index > 0);
    if (exists && kv_entry_same(previous, next)) {
        *changed = false;
        return STORE_OK;
    }
    next->create_index = exists ? previous->create_index : index;
    next->modify_index = index;

    int rc = kv_entry_put(txn, next);
    if (rc == 0) {
        rc = kv_holder_change(txn, next->key, &holder, &next->session);
    }
    if (rc == 0) {
        rc = store_index_set(txn, KV_INDEX_NAME, index);
    }
    if (rc == 0) {
        store_note(txn, STORE_TOPIC_KV, next->key);
        *changed = true;
    }
    return rc;
}

/* A write that leaves the lock alone: Session stays, LockIndex falls to 0 (Consul keeps neither
 * more nor less). */
static int kv_overwrite(struct store_txn *txn, uint64_t index, const struct kv_entry *previous,
                        bool exists, struct slice key, struct slice value, uint64_t flags,
                        bool *changed)
{
    struct kv_entry next = {
        .key = key, .value = value, .flags = flags, .session = previous->session};

    return kv_replace(txn, index, previous, exists, &next, changed);
}

int kv_set(struct store_txn *txn, uint64_t index, struct slice key, struct slice value,
           uint64_t flags, bool *changed)
{
    struct kv_entry previous;
    bool exists;
    const int rc = kv_find(txn, key, &previous, &exists);

    return rc != 0 ? rc : kv_overwrite(txn, index, &previous, exists, key, value, flags, changed);
}

int kv_cas(struct store_txn *txn, uint64_t index, struct slice key, struct slice value,
           uint64_t flags, uint64_t cas, bool *done)
{
    struct kv_entry previous;
    bool exists;
    bool changed;

    int rc = kv_find(txn, key, &previous, &exists);
    if (rc != 0) {
        return rc;
    }
    /* A missing entry's ModifyIndex reads 0, an existing one's never is. */
    if (previous.modify_index != cas) {
        *done = false;
        return STORE_OK;
    }
    rc = kv_overwrite(txn, index, &previous, exists, key, value, flags, &changed);
    if (rc == 0) {
        *done = true;
    }
    return rc;
}

int kv_lock(struct store_txn *txn, uint64_t index, struct slice key, struct slice value,
            uint64_t flags, const struct uuid *session, bool *granted)
{
    struct kv_entry previous;
    bool exists;
    bool changed;

    assert(!uuid_is_zero(session));
    int rc = kv_find(txn, key, &previous, &exists);
    if (rc != 0) {
        return rc;
    }
    const bool held = uuid_equal(&previous.session, session);
    if (!held && !uuid_is_zero(&previous.session)) {
        *granted = false;
        return STORE_OK;
    }
    struct kv_entry next = {.key = key, .value = value, .flags = flags, .session = *session};
    next.lock_index = held ? previous.lock_index : previous.lock_index + 1;
    rc = kv_replace(txn, index, &previous, exists, &next, &changed);
    if (rc == 0) {
        *granted = true;
    }
    return rc;
}

int kv_unlock(struct store_txn *txn, uint64_t index, struct slice key, struct slice value,
              uint64_t flags, const struct uuid *session, bool *released)
{
    struct kv_entry previous;
    bool exists;
    bool changed;

    int rc = kv_find(txn, key, &previous, &exists);
    if (rc != 0) {
        return rc;
    }
    if (uuid_is_zero(session) || !uuid_equal(&previous.session, session)) {
        *released = false;
        return STORE_OK;
    }
    struct kv_entry next = {
        .key = key, .value = value, .flags = flags, .lock_index = previous.lock_index};
    rc = kv_replace(txn, index, &previous, exists, &next, &changed);
    if (rc == 0) {
        *released = true;
    }
    return rc;
}

int kv_lock_clear(struct store_txn *txn, uint64_t index, struct slice key)
{
    struct kv_entry previous;
    struct buffer value = {0};
    bool changed;

    int rc = kv_get(txn, key, &previous);
    if (rc != 0) {
        return rc;
    }
    buffer_append_slice(&value, previous.value);
    if (value.failed) {
        return STORE_ENOMEM;
    }
    struct kv_entry next = previous;
    next.value = buffer_slice(&value);
    next.session = kv_no_session;
    rc = kv_replace(txn, index, &previous, true, &next, &changed);
    buffer_deinit(&value);
    return rc;
}

/* --- deleting --- */

/* Removes an entry that is there, and remembers that; kv_removed is next. `key` may not borrow from
 * the store. */
static int kv_remove_entry(struct store_txn *txn, uint64_t index, struct slice key,
                           const struct uuid *session)
{
    const struct uuid holder = *session;
    struct buffer record = {0};

    assert(index > 0);
    int rc = store_delete(txn, STORE_KV, key);
    if (rc == 0) {
        rc = kv_holder_change(txn, key, &holder, &kv_no_session);
    }
    buffer_put_u64(&record, index);
    if (rc == 0) {
        rc = record.failed ? STORE_ENOMEM
                           : store_put(txn, STORE_TOMBSTONE, key, buffer_slice(&record));
    }
    buffer_deinit(&record);
    if (rc == 0) {
        store_note(txn, STORE_TOPIC_KV, key);
    }
    return rc;
}

/* Something was removed at `index`. */
static int kv_removed(struct store_txn *txn, uint64_t index)
{
    const int rc = store_index_set(txn, KV_INDEX_NAME, index);

    return rc != 0 ? rc : store_index_set(txn, KV_TOMBSTONE_INDEX_NAME, index);
}

static int kv_remove(struct store_txn *txn, uint64_t index, struct slice key,
                     const struct uuid *session)
{
    const int rc = kv_remove_entry(txn, index, key, session);

    return rc != 0 ? rc : kv_removed(txn, index);
}

int kv_delete(struct store_txn *txn, uint64_t index, struct slice key)
{
    struct kv_entry previous;
    const int rc = kv_get(txn, key, &previous);

    if (rc == STORE_ENOTFOUND) {
        return STORE_OK;
    }
    return rc != 0 ? rc : kv_remove(txn, index, key, &previous.session);
}

int kv_delete_cas(struct store_txn *txn, uint64_t index, struct slice key, uint64_t cas, bool *done)
{
    struct kv_entry previous;
    bool exists;

    int rc = kv_find(txn, key, &previous, &exists);
    if (rc == 0 && exists) {
        if (previous.modify_index != cas) {
            *done = false;
            return STORE_OK;
        }
        rc = kv_remove(txn, index, key, &previous.session);
    }
    if (rc == 0) {
        *done = true;
    }
    return rc;
}

/* Collects up to KV_BATCH_COUNT keys below the prefix, and each one's session: bytes, then the key
 * as a string. */
static int kv_delete_prefix_collect(struct store_txn *txn, struct slice prefix,
                                    struct buffer *batch, size_t *count)
{
    struct kv_scan scan;
    struct kv_entry entry;

    buffer_clear(batch);
    *count = 0;
    int rc = kv_scan_begin(&scan, txn, prefix);
    if (rc != 0) {
        return rc;
    }
    while (*count < KV_BATCH_COUNT && (rc = kv_scan_next(&scan, &entry)) == 0) {
        buffer_append(batch, entry.session.bytes, UUID_BYTES);
        buffer_put_string(batch, entry.key);
        (*count)++;
    }
    kv_scan_end(&scan);
    if (batch->failed) {
        return STORE_ENOMEM;
    }
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

int kv_delete_prefix(struct store_txn *txn, uint64_t index, struct slice prefix)
{
    struct buffer batch = {0};
    bool removed = false;
    size_t count;
    int rc;

    do {
        rc = kv_delete_prefix_collect(txn, prefix, &batch, &count);
        struct reader it = reader_from(buffer_slice(&batch));
        for (size_t i = 0; rc == 0 && i < count; i++) {
            const struct slice bytes = reader_bytes(&it, UUID_BYTES);
            const struct slice key = reader_string(&it);
            struct uuid session;

            assert(!it.failed);
            memcpy(session.bytes, bytes.data, UUID_BYTES);
            rc = kv_remove_entry(txn, index, key, &session);
        }
        removed = removed || count > 0;
    } while (rc == 0 && count == KV_BATCH_COUNT);
    buffer_deinit(&batch);
    return rc == 0 && removed ? kv_removed(txn, index) : rc;
}

static int kv_tombstone_reap(struct store_txn *txn, struct slice key, struct slice record,
                             void *context)
{
    const uint64_t *index = context;
    uint64_t deleted;
    const int rc = kv_tombstone_decode(record, &deleted);

    if (rc != 0) {
        return rc;
    }
    return deleted <= *index ? store_delete(txn, STORE_TOMBSTONE, key) : STORE_OK;
}

int kv_tombstones_reap(struct store_txn *txn, uint64_t index)
{
    if (index == 0) {
        return STORE_OK; /* No deletion is that old. */
    }
    return store_visit(txn, STORE_TOMBSTONE, SLICE_EMPTY, kv_tombstone_reap, &index);
}
