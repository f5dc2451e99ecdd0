#include "server/catalog/restore.h"

#include <assert.h>
#include <string.h>

#include "kv/kv.h"
#include "server/catalog/catalog_internal.h"
#include "server/catalog/coordinate.h"

enum {
    RESTORE_BATCH_BYTES = 1024 * 1024, /* read, then written: no scan may run while its table is */
    RESTORE_KEY_BYTES_MAX = 64 * 1024,
    RESTORE_SERVICE_INDEX_PREFIX_BYTES = sizeof("service.") - 1,
};

/* In the order in which they are sent, checked and replaced: what others point to comes first. */
static const enum store_table restore_tables[] = {
    STORE_LOCK_DELAY, STORE_SESSION, STORE_KV,         STORE_NODE,
    STORE_SERVICE,    STORE_CHECK,   STORE_COORDINATE,
};
enum { RESTORE_TABLE_COUNT = sizeof(restore_tables) / sizeof(restore_tables[0]) };

bool restore_takes(enum store_table table)
{
    for (size_t i = 0; i < RESTORE_TABLE_COUNT; i++) {
        if (restore_tables[i] == table) {
            return true;
        }
    }
    return false;
}

/* --- single records --- */

static bool lock_delay_valid(struct slice value)
{
    struct reader reader = reader_from(value);

    (void)reader_u64(&reader);
    (void)reader_u64(&reader);
    (void)reader_u64(&reader);
    return reader_done(&reader);
}

static bool indexes_valid(uint64_t create_index, uint64_t modify_index)
{
    return create_index > 0 && create_index <= modify_index;
}

static bool session_valid(struct slice key, struct slice value)
{
    struct session session;

    return session_decode(value, &session) && key.size == UUID_BYTES &&
           memcmp(key.data, session.id.bytes, UUID_BYTES) == 0 && !uuid_is_zero(&session.id) &&
           catalog_name_valid(session.node) &&
           indexes_valid(session.create_index, session.modify_index);
}

static bool node_valid(struct slice key, struct slice value)
{
    struct catalog_node node;
    struct catalog_key own, id;

    return catalog_node_decode(value, &node) && catalog_key_begin(&own, node.name) &&
           slice_equal(key, catalog_key_slice(&own)) &&
           (node.id.size == 0 || catalog_key_begin(&id, node.id)) &&
           indexes_valid(node.create_index, node.modify_index);
}

static bool service_valid(struct slice key, struct slice value)
{
    struct catalog_service service;
    struct catalog_key own;

    return catalog_service_decode(value, &service) && catalog_key_begin(&own, service.node) &&
           catalog_key_add(&own, service.id) && slice_equal(key, catalog_key_slice(&own)) &&
           catalog_name_valid(service.name) &&
           indexes_valid(service.create_index, service.modify_index);
}

static bool check_valid(struct slice key, struct slice value)
{
    struct catalog_check check;
    struct catalog_key own;

    return catalog_check_decode(value, &check) && catalog_key_begin(&own, check.node) &&
           catalog_key_add(&own, check.id) && slice_equal(key, catalog_key_slice(&own)) &&
           (check.service_id.size == 0 || catalog_name_valid(check.service_id)) &&
           indexes_valid(check.create_index, check.modify_index);
}

static bool coordinate_record_valid(struct slice key, struct slice value)
{
    struct coordinate coordinate;
    struct catalog_key own;

    return coordinate_decode(value, &coordinate) && catalog_key_begin(&own, coordinate.node) &&
           slice_equal(key, catalog_key_slice(&own));
}

bool restore_record_valid(enum store_table table, struct slice key, struct slice value)
{
    struct kv_entry entry;

    assert(restore_takes(table));
    switch (table) {
    case STORE_LOCK_DELAY:
        return key.size > 0 && key.size <= RESTORE_KEY_BYTES_MAX && lock_delay_valid(value);
    case STORE_SESSION:
        return session_valid(key, value);
    case STORE_KV:
        return key.size > 0 && key.size <= RESTORE_KEY_BYTES_MAX &&
               kv_entry_decode(key, value, &entry) == STORE_OK;
    case STORE_NODE:
        return node_valid(key, value);
    case STORE_SERVICE:
        return service_valid(key, value);
    case STORE_CHECK:
        return check_valid(key, value);
    case STORE_COORDINATE:
        return coordinate_record_valid(key, value);
    default:
        return false;
    }
}

/* --- pieces --- */

void restore_record_put(struct buffer *out, enum store_table table, struct slice key,
                        struct slice value)
{
    assert(restore_takes(table));
    buffer_put_u32(out, (uint32_t)key.size + 1);
    buffer_put_u8(out, (uint8_t)table);
    buffer_append_slice(out, key);
    buffer_put_string(out, value);
}

/* Takes a staged key apart. */
static bool staged_key_split(struct slice staged, enum store_table *table, struct slice *key)
{
    if (staged.size < 1) {
        return false;
    }
    *table = (enum store_table)(unsigned char)staged.data[0];
    *key = slice_from(staged.data + 1, staged.size - 1);
    return restore_takes(*table);
}

bool restore_records_valid(struct slice records)
{
    struct reader reader = reader_from(records);

    while (!reader_done(&reader)) {
        const struct slice staged = reader_string(&reader);
        const struct slice value = reader_string(&reader);
        enum store_table table;
        struct slice key;

        if (reader.failed || !staged_key_split(staged, &table, &key) ||
            !restore_record_valid(table, key, value)) {
            return false;
        }
    }
    return true;
}

static uint64_t hash_bytes(uint64_t hash, struct slice bytes)
{
    for (size_t i = 0; i < bytes.size; i++) {
        hash = (hash ^ (unsigned char)bytes.data[i]) * 0x100000001b3ULL; /* FNV-1a */
    }
    return hash;
}

void restore_sum_add(struct restore_sum *sum, enum store_table table, struct slice key,
                     struct slice value)
{
    const char head[1] = {(char)table};
    uint64_t hash = 0xcbf29ce484222325ULL;

    hash = hash_bytes(hash, slice_from(head, 1));
    hash = hash_bytes(hash, key);
    hash = (hash ^ key.size) * 0x100000001b3ULL; /* Where the key ends counts. */
    hash = hash_bytes(hash, value);
    sum->records++;
    sum->hash += hash; /* A sum: it does not depend on the order. */
}

/* --- what is put aside --- */

/* Under the empty key: whose records these are. */
struct restore_head {
    struct uuid id;
    struct session_stamp stamp; /* of its last command */
    bool done;
};

static int head_get(struct store_txn *txn, struct restore_head *out)
{
    struct slice record;
    const int rc = store_get(txn, STORE_STAGED, SLICE_EMPTY, &record);

    if (rc != 0) {
        return rc;
    }
    struct reader reader = reader_from(record);
    const struct slice id = reader_bytes(&reader, UUID_BYTES);

    out->stamp.term = reader_u64(&reader);
    out->stamp.now_ms = reader_u64(&reader);
    out->done = reader_u8(&reader) != 0;
    if (!reader_done(&reader)) {
        return STORE_ECORRUPT;
    }
    memcpy(out->id.bytes, id.data, UUID_BYTES);
    return STORE_OK;
}

static int head_put(struct store_txn *txn, const struct restore_head *head)
{
    struct buffer record = {0};

    buffer_append(&record, head->id.bytes, UUID_BYTES);
    buffer_put_u64(&record, head->stamp.term);
    buffer_put_u64(&record, head->stamp.now_ms);
    buffer_put_u8(&record, head->done ? 1 : 0);
    const int rc = record.failed ? STORE_ENOMEM
                                 : store_put(txn, STORE_STAGED, SLICE_EMPTY, buffer_slice(&record));

    buffer_deinit(&record);
    return rc;
}

/* The head, if it is of this restore; RESTORE_EINVAL otherwise. */
static int head_expect(struct store_txn *txn, const struct uuid *id, struct restore_head *out,
                       struct errmsg *err)
{
    const int rc = head_get(txn, out);

    if (rc == STORE_ENOTFOUND) {
        return errmsg_set(err, RESTORE_EINVAL, "the restore took too long and was given up");
    }
    if (rc == 0 && !uuid_equal(&out->id, id)) {
        return errmsg_set(err, RESTORE_EINVAL, "another restore has begun meanwhile");
    }
    return rc;
}

int restore_begin(struct store_txn *txn, struct session_stamp stamp, const struct uuid *id)
{
    struct restore_head head;
    int rc = head_get(txn, &head);

    if (rc == 0 && uuid_equal(&head.id, id)) {
        return 0;
    }
    if (rc == 0 || rc == STORE_ENOTFOUND) {
        rc = store_table_clear(txn, STORE_STAGED);
    }
    head = (struct restore_head){.id = *id, .stamp = stamp};
    return rc != 0 ? rc : head_put(txn, &head);
}

int restore_add(struct store_txn *txn, struct session_stamp stamp, const struct uuid *id,
                struct slice records, struct errmsg *err)
{
    struct reader reader = reader_from(records);
    struct restore_head head = {.done = false};
    int rc = head_expect(txn, id, &head, err);

    if (rc != 0 || head.done) {
        return rc;
    }
    head.stamp = stamp;
    rc = head_put(txn, &head);
    while (rc == 0 && !reader_done(&reader)) {
        const struct slice staged = reader_string(&reader);
        const struct slice value = reader_string(&reader);

        assert(!reader.failed); /* restore_records_valid */
        rc = store_put(txn, STORE_STAGED, staged, value);
    }
    return rc;
}

int restore_abort(struct store_txn *txn, const struct uuid *id)
{
    struct restore_head head;
    const int rc = head_get(txn, &head);

    if (rc == STORE_ENOTFOUND || (rc == 0 && (head.done || !uuid_equal(&head.id, id)))) {
        return 0;
    }
    return rc != 0 ? rc : store_table_clear(txn, STORE_STAGED);
}

int restore_reap(struct store_txn *txn, struct session_stamp stamp)
{
    struct restore_head head;
    const int rc = head_get(txn, &head);

    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? 0 : rc;
    }
    if (head.stamp.term != stamp.term) {
        head.stamp = stamp; /* Another leader's clock: its time begins anew. */
        return head_put(txn, &head);
    }
    if (stamp.now_ms < head.stamp.now_ms || stamp.now_ms - head.stamp.now_ms < RESTORE_IDLE_MS) {
        return 0;
    }
    return store_table_clear(txn, STORE_STAGED);
}

/* --- walking a table that is written to meanwhile --- */

struct restore_walk {
    struct store_txn *txn;
    enum store_table table; /* that is walked */
    struct buffer prefix;
    struct buffer from; /* where to go on */
    struct buffer batch;
    struct reader it;
    bool last; /* no more batches */
};

static void walk_begin(struct restore_walk *walk, struct store_txn *txn, enum store_table table,
                       struct slice prefix)
{
    *walk = (struct restore_walk){.txn = txn, .table = table};
    buffer_append_slice(&walk->prefix, prefix);
    buffer_append_slice(&walk->from, prefix);
}

static void walk_end(struct restore_walk *walk)
{
    buffer_deinit(&walk->prefix);
    buffer_deinit(&walk->from);
    buffer_deinit(&walk->batch);
}

static int walk_batch(struct restore_walk *walk)
{
    struct store_scan scan;
    struct slice key = SLICE_EMPTY;
    struct slice value = SLICE_EMPTY;

    buffer_clear(&walk->batch);
    int rc = walk->prefix.failed || walk->from.failed
                 ? STORE_ENOMEM
                 : store_scan_from(&scan, walk->txn, walk->table, buffer_slice(&walk->prefix),
                                   buffer_slice(&walk->from));

    if (rc != 0) {
        return rc;
    }
    while (walk->batch.size < RESTORE_BATCH_BYTES &&
           (rc = store_scan_next(&scan, &key, &value)) == STORE_OK) {
        buffer_put_string(&walk->batch, key);
        buffer_put_string(&walk->batch, value);
        buffer_clear(&walk->from);
        buffer_append_slice(&walk->from, key);
        buffer_append_char(&walk->from, '\0'); /* The next key there can be. */
    }
    store_scan_end(&scan);
    walk->last = rc == STORE_ENOTFOUND;
    walk->it = reader_from(buffer_slice(&walk->batch));
    if (walk->batch.failed || walk->from.failed) {
        return STORE_ENOMEM;
    }
    return walk->last ? STORE_OK : rc;
}

/* The next record, copied: valid until the next call. STORE_ENOTFOUND at the end. */
static int walk_next(struct restore_walk *walk, struct slice *key, struct slice *value)
{
    if (walk->batch.data == NULL || reader_done(&walk->it)) {
        if (walk->last) {
            return STORE_ENOTFOUND;
        }
        const int rc = walk_batch(walk);
        if (rc != 0) {
            return rc;
        }
        if (reader_done(&walk->it)) {
            return STORE_ENOTFOUND;
        }
    }
    *key = reader_string(&walk->it);
    *value = reader_string(&walk->it);
    assert(!walk->it.failed);
    return STORE_OK;
}

/* --- checking --- */

/* Whether a record of that key was brought. */
static int staged_has(struct store_txn *txn, enum store_table table, struct slice key)
{
    struct buffer staged = {0};
    struct slice value;

    buffer_put_u8(&staged, (uint8_t)table);
    buffer_append_slice(&staged, key);
    const int rc =
        staged.failed ? STORE_ENOMEM : store_get(txn, STORE_STAGED, buffer_slice(&staged), &value);

    buffer_deinit(&staged);
    return rc;
}

static int staged_has_node(struct store_txn *txn, struct slice name)
{
    struct catalog_key key;

    return catalog_key_begin(&key, name) ? staged_has(txn, STORE_NODE, catalog_key_slice(&key))
                                         : STORE_ENOTFOUND;
}

/* Whether what the record points to was brought too; STORE_ENOTFOUND otherwise. */
static int record_fits(struct store_txn *txn, enum store_table table, struct slice key,
                       struct slice value)
{
    struct session session;
    struct kv_entry entry;
    struct catalog_service service;
    struct catalog_check check;
    struct catalog_key owner;

    switch (table) {
    case STORE_SESSION:
        return session_decode(value, &session) ? staged_has_node(txn, session.node)
                                               : STORE_ECORRUPT;
    case STORE_KV:
        if (kv_entry_decode(key, value, &entry) != STORE_OK) {
            return STORE_ECORRUPT;
        }
        return uuid_is_zero(&entry.session)
                   ? STORE_OK
                   : staged_has(txn, STORE_SESSION,
                                slice_from((const char *)entry.session.bytes, UUID_BYTES));
    case STORE_SERVICE:
        return catalog_service_decode(value, &service) ? staged_has_node(txn, service.node)
                                                       : STORE_ECORRUPT;
    case STORE_CHECK:
        if (!catalog_check_decode(value, &check)) {
            return STORE_ECORRUPT;
        }
        if (check.service_id.size == 0) {
            return staged_has_node(txn, check.node);
        }
        return catalog_key_begin(&owner, check.node) && catalog_key_add(&owner, check.service_id)
                   ? staged_has(txn, STORE_SERVICE, catalog_key_slice(&owner))
                   : STORE_ENOTFOUND;
    default:
        return STORE_OK;
    }
}

/* Two nodes of one id would share what is derived from it, and the second could not go without it.
 * Noted among what is put aside, where no piece can put it. */
static int node_id_claim(struct store_txn *txn, struct slice key, struct slice value,
                         struct errmsg *err)
{
    struct catalog_node node;
    struct catalog_key id;
    struct buffer staged = {0};
    struct slice holder;

    if (!catalog_node_decode(value, &node)) {
        return STORE_ECORRUPT;
    }
    if (!catalog_key_begin(&id, node.id)) {
        return STORE_OK;
    }
    buffer_put_u8(&staged, STORE_NODE_ID);
    buffer_append_slice(&staged, catalog_key_slice(&id));
    int rc =
        staged.failed ? STORE_ENOMEM : store_get(txn, STORE_STAGED, buffer_slice(&staged), &holder);

    if (rc == STORE_ENOTFOUND) {
        rc = store_put(txn, STORE_STAGED, buffer_slice(&staged), key);
    } else if (rc == STORE_OK && !slice_equal(holder, key)) {
        rc = errmsg_set(err, RESTORE_EINVAL, "two nodes of the state have the same id");
    }
    buffer_deinit(&staged);
    return rc;
}

static int staged_check(struct store_txn *txn, const struct restore_sum *expected,
                        struct errmsg *err)
{
    struct restore_sum sum = {0};
    struct restore_walk walk;
    struct slice staged;
    struct slice value;
    int rc;

    walk_begin(&walk, txn, STORE_STAGED, SLICE_EMPTY);
    while ((rc = walk_next(&walk, &staged, &value)) == STORE_OK) {
        enum store_table table;
        struct slice key;

        if (staged.size == 0 || staged.data[0] == (char)STORE_NODE_ID) {
            continue; /* the head; an id that was claimed */
        }
        if (!staged_key_split(staged, &table, &key)) {
            rc = STORE_ECORRUPT;
            break;
        }
        restore_sum_add(&sum, table, key, value);
        rc = record_fits(txn, table, key, value);
        if (rc == STORE_ENOTFOUND) {
            rc = errmsg_set(err, RESTORE_EINVAL,
                            "the state refers to a node, service or session that it lacks");
        }
        if (rc == STORE_OK && table == STORE_NODE) {
            rc = node_id_claim(txn, key, value, err);
        }
        if (rc != STORE_OK) {
            break;
        }
    }
    walk_end(&walk);
    if (rc != STORE_ENOTFOUND) {
        return rc;
    }
    if (sum.records != expected->records || sum.hash != expected->hash) {
        return errmsg_set(err, RESTORE_EINVAL, "part of the state has not arrived");
    }
    return STORE_OK;
}

/* --- replacing --- */

static uint64_t at_most(uint64_t value, uint64_t limit)
{
    return value < limit ? value : limit;
}

/* The record as it is stored: what differs from what was there has changed now. False: no memory,
 * or no record. */
static bool record_adapt(enum store_table table, struct slice key, struct slice value,
                         uint64_t index, struct buffer *out)
{
    struct session session;
    struct kv_entry entry;
    struct catalog_node node;
    struct catalog_service service;
    struct catalog_check check;

    buffer_clear(out);
    switch (table) {
    case STORE_KV:
        if (kv_entry_decode(key, value, &entry) != STORE_OK) {
            return false;
        }
        entry.create_index = at_most(entry.create_index, index);
        entry.modify_index = index;
        kv_entry_encode(out, &entry);
        break;
    case STORE_SESSION:
        if (!session_decode(value, &session)) {
            return false;
        }
        session.create_index = at_most(session.create_index, index);
        session.modify_index = index;
        session_encode(out, &session);
        break;
    case STORE_NODE:
        if (!catalog_node_decode(value, &node)) {
            return false;
        }
        node.create_index = at_most(node.create_index, index);
        node.modify_index = index;
        catalog_node_encode(out, &node);
        break;
    case STORE_SERVICE:
        if (!catalog_service_decode(value, &service)) {
            return false;
        }
        service.create_index = at_most(service.create_index, index);
        service.modify_index = index;
        catalog_service_encode(out, &service);
        break;
    case STORE_CHECK:
        if (!catalog_check_decode(value, &check)) {
            return false;
        }
        check.create_index = at_most(check.create_index, index);
        check.modify_index = index;
        catalog_check_encode(out, &check);
        break;
    case STORE_LOCK_DELAY:
        if (!lock_delay_valid(value)) {
            return false;
        }
        buffer_put_u64(out, 0); /* Of no leader's term: it runs, and is restarted in full. */
        buffer_append_slice(out, slice_from(value.data + 8, value.size - 8));
        break;
    default:
        buffer_append_slice(out, value);
        break;
    }
    return !out->failed;
}

/* What can be found in other ways than by its key. */
static int record_derive(struct store_txn *txn, enum store_table table, struct slice key,
                         struct slice value, uint64_t index)
{
    struct kv_entry entry;
    struct session session;
    struct catalog_node node;
    struct catalog_service service;
    struct catalog_key first;
    struct buffer name = {0};
    int rc = STORE_OK;

    if (table == STORE_KV && kv_entry_decode(key, value, &entry) == STORE_OK &&
        !uuid_is_zero(&entry.session)) {
        buffer_append(&name, entry.session.bytes, UUID_BYTES);
        buffer_append_slice(&name, key);
        rc = store_put(txn, STORE_SESSION_KEY, buffer_slice(&name), SLICE_EMPTY);
    } else if (table == STORE_SESSION && session_decode(value, &session) &&
               catalog_key_begin(&first, session.node)) {
        buffer_append_slice(&name, catalog_key_slice(&first));
        buffer_append_char(&name, '\0');
        buffer_append_slice(&name, key);
        rc = store_put(txn, STORE_SESSION_NODE, buffer_slice(&name), SLICE_EMPTY);
    } else if (table == STORE_NODE && catalog_node_decode(value, &node) &&
               catalog_key_begin(&first, node.id)) {
        rc = store_put(txn, STORE_NODE_ID, catalog_key_slice(&first), key);
    } else if (table == STORE_SERVICE && catalog_service_decode(value, &service) &&
               catalog_key_begin(&first, service.name) && catalog_key_add(&first, service.node) &&
               catalog_key_add(&first, service.id)) {
        rc = store_put(txn, STORE_SERVICE_NAME, catalog_key_slice(&first), SLICE_EMPTY);
        if (rc == STORE_OK && catalog_index_key(&first, service.name)) {
            rc = store_index_set(txn, catalog_key_slice(&first), index);
        }
    }
    rc = name.failed ? STORE_ENOMEM : rc;
    buffer_deinit(&name);
    return rc;
}

/* Puts what was brought for one table. */
static int table_put(struct store_txn *txn, enum store_table table, uint64_t index)
{
    const char prefix[1] = {(char)table};
    struct buffer adapted = {0};
    struct restore_walk walk;
    struct slice staged;
    struct slice value;
    int rc;

    walk_begin(&walk, txn, STORE_STAGED, slice_from(prefix, 1));
    while ((rc = walk_next(&walk, &staged, &value)) == STORE_OK) {
        const struct slice key = slice_from(staged.data + 1, staged.size - 1);
        struct slice previous;

        rc = store_get(txn, table, key, &previous);
        if (rc == STORE_ENOTFOUND || (rc == STORE_OK && !slice_equal(previous, value))) {
            rc = !record_adapt(table, key, value, index, &adapted)
                     ? STORE_ENOMEM
                     : store_put(txn, table, key, buffer_slice(&adapted));
        }
        if (rc == STORE_OK) {
            rc = record_derive(txn, table, key, value, index);
        }
        if (rc != STORE_OK) {
            break;
        }
    }
    walk_end(&walk);
    buffer_deinit(&adapted);
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

/* Removes what was not brought. */
static int table_prune(struct store_txn *txn, enum store_table table, uint64_t index)
{
    struct restore_walk walk;
    struct buffer number = {0};
    struct slice key;
    struct slice value;
    int rc;

    buffer_put_u64(&number, index);
    walk_begin(&walk, txn, table, SLICE_EMPTY);
    while ((rc = walk_next(&walk, &key, &value)) == STORE_OK) {
        rc = staged_has(txn, table, key);
        if (rc == STORE_ENOTFOUND) {
            rc = store_delete(txn, table, key);
            if (rc == STORE_OK && table == STORE_KV) {
                /* So that a listing's index does not go backwards by what it lost. */
                rc = number.failed ? STORE_ENOMEM
                                   : store_put(txn, STORE_TOMBSTONE, key, buffer_slice(&number));
            }
        }
        if (rc != STORE_OK) {
            break;
        }
    }
    walk_end(&walk);
    buffer_deinit(&number);
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

/* All tables have changed now; names that no service has any more are forgotten. */
static int indexes_settle(struct store_txn *txn, uint64_t index)
{
    static const char *const always[] = {
        "kvs",      "tombstones", "sessions",    "nodes",
        "services", "checks",     "coordinates", "service_last_extinction"};
    struct restore_walk walk;
    struct slice name;
    struct slice value;
    int rc = STORE_OK;

    for (size_t i = 0; rc == STORE_OK && i < sizeof(always) / sizeof(always[0]); i++) {
        rc = store_index_set(txn, slice_from_text(always[i]), index);
    }
    if (rc != STORE_OK) {
        return rc;
    }
    walk_begin(&walk, txn, STORE_INDEX, CATALOG_INDEX_SERVICE_PREFIX);
    while ((rc = walk_next(&walk, &name, &value)) == STORE_OK) {
        const struct slice service = slice_from(name.data + RESTORE_SERVICE_INDEX_PREFIX_BYTES,
                                                name.size - RESTORE_SERVICE_INDEX_PREFIX_BYTES);
        struct catalog_scan scan;
        struct catalog_service found;

        rc = catalog_instances_begin(&scan, txn, service);
        if (rc == STORE_OK) {
            rc = catalog_instances_next(&scan, &found, NULL);
            catalog_scan_end(&scan);
        }
        if (rc == STORE_ENOTFOUND) {
            rc = store_delete(txn, STORE_INDEX, name);
        }
        if (rc != STORE_OK) {
            break;
        }
    }
    walk_end(&walk);
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

static int state_replace(struct store_txn *txn, uint64_t index, struct session_stamp stamp)
{
    static const enum store_table derived[] = {STORE_SESSION_NODE, STORE_SESSION_KEY, STORE_NODE_ID,
                                               STORE_SERVICE_NAME};
    int rc = STORE_OK;

    for (size_t i = 0; rc == STORE_OK && i < sizeof(derived) / sizeof(derived[0]); i++) {
        rc = store_table_clear(txn, derived[i]);
    }
    for (size_t i = 0; rc == STORE_OK && i < RESTORE_TABLE_COUNT; i++) {
        rc = table_prune(txn, restore_tables[i], index);
        if (rc == STORE_OK) {
            rc = table_put(txn, restore_tables[i], index);
        }
    }
    if (rc == STORE_OK) {
        rc = indexes_settle(txn, index);
    }
    return rc != STORE_OK ? rc : session_lock_delay_restart(txn, stamp);
}

int restore_finish(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                   const struct uuid *id, const struct restore_sum *sum, struct errmsg *err)
{
    struct restore_head head = {.done = false};
    int rc = head_expect(txn, id, &head, err);

    if (rc != 0 || head.done) {
        return rc;
    }
    rc = staged_check(txn, sum, err);
    if (rc == 0) {
        rc = state_replace(txn, index, stamp);
    }
    if (rc == 0) {
        rc = store_table_clear(txn, STORE_STAGED);
    }
    head.stamp = stamp;
    head.done = true;
    return rc != 0 ? rc : head_put(txn, &head);
}
