#include "session/session.h"

#include <assert.h>

/* Keys of an ended session, and lock-delays, are worked on in steps of so many, since writing ends
 * a scan. */
enum { SESSION_BATCH_COUNT = 256 };

#define SESSION_INDEX_NAME SLICE_LITERAL("sessions")
#define SESSION_NS_PER_MS UINT64_C(1000000)

/* --- records --- */

void session_encode(struct buffer *out, const struct session *session)
{
    buffer_append(out, session->id.bytes, UUID_BYTES);
    buffer_put_string(out, session->name);
    buffer_put_string(out, session->node);
    buffer_put_u64(out, session->lock_delay_ns);
    buffer_put_u8(out, (uint8_t)session->behavior);
    buffer_put_string(out, session->ttl);
    buffer_put_u64(out, session->ttl_ms);
    buffer_put_strings(out, session->node_checks);
    buffer_put_strings(out, session->service_checks);
    buffer_put_strings(out, session->checks);
    buffer_put_u64(out, session->create_index);
    buffer_put_u64(out, session->modify_index);
}

bool session_decode(struct slice bytes, struct session *out)
{
    struct reader reader = reader_from(bytes);
    struct session session = {0};

    const struct slice id = reader_bytes(&reader, UUID_BYTES);
    session.name = reader_string(&reader);
    session.node = reader_string(&reader);
    session.lock_delay_ns = reader_u64(&reader);
    const uint8_t behavior = reader_u8(&reader);
    session.ttl = reader_string(&reader);
    session.ttl_ms = reader_u64(&reader);
    session.node_checks = reader_strings(&reader);
    session.service_checks = reader_strings(&reader);
    session.checks = reader_strings(&reader);
    session.create_index = reader_u64(&reader);
    session.modify_index = reader_u64(&reader);
    if (!reader_done(&reader) || behavior > SESSION_DELETE ||
        session.service_checks.count % 2 != 0) {
        return false;
    }
    memcpy(session.id.bytes, id.data, UUID_BYTES);
    if (uuid_is_zero(&session.id)) {
        return false; /* In an entry that would read "not locked". */
    }
    session.behavior = (enum session_behavior)behavior;
    *out = session;
    return true;
}

static struct slice session_id_slice(const struct uuid *id)
{
    return slice_from((const char *)id->bytes, UUID_BYTES);
}

/* What the key of each session of a node begins with: its name in lower case and a NUL. */
static void session_node_prefix(struct buffer *out, struct slice node)
{
    for (size_t i = 0; i < node.size; i++) {
        buffer_append_char(out, slice_lower(node.data[i]));
    }
    buffer_append_char(out, '\0');
}

/* --- reading --- */

int session_get(struct store_txn *txn, const struct uuid *id, struct session *out)
{
    struct slice record;
    const int rc = store_get(txn, STORE_SESSION, session_id_slice(id), &record);

    if (rc != 0) {
        return rc;
    }
    return session_decode(record, out) ? STORE_OK : STORE_ECORRUPT;
}

int session_index(struct store_txn *txn, uint64_t *index)
{
    return store_index_get(txn, SESSION_INDEX_NAME, index);
}

int session_scan_begin(struct session_scan *scan, struct store_txn *txn)
{
    *scan = (struct session_scan){.by_node = false};
    return store_scan_begin(&scan->scan, txn, STORE_SESSION, SLICE_EMPTY);
}

int session_scan_begin_node(struct session_scan *scan, struct store_txn *txn, struct slice node)
{
    *scan = (struct session_scan){.by_node = true};
    session_node_prefix(&scan->prefix, node);
    if (scan->prefix.failed) {
        buffer_deinit(&scan->prefix);
        return STORE_ENOMEM;
    }
    const int rc =
        store_scan_begin(&scan->scan, txn, STORE_SESSION_NODE, buffer_slice(&scan->prefix));
    if (rc != 0) {
        buffer_deinit(&scan->prefix);
    }
    return rc;
}

int session_scan_next(struct session_scan *scan, struct session *out)
{
    struct slice key;
    struct slice record;
    struct uuid id;

    int rc;
    do {
        rc = store_scan_next(&scan->scan, &key, &record);
        if (rc != 0) {
            return rc;
        }
        if (!scan->by_node) {
            return session_decode(record, out) ? STORE_OK : STORE_ECORRUPT;
        }
        /* Longer: of a node whose name goes on after a NUL. */
    } while (key.size != scan->prefix.size + UUID_BYTES);
    memcpy(id.bytes, key.data + scan->prefix.size, UUID_BYTES);
    rc = session_get(scan->scan.txn, &id, out);
    return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
}

void session_scan_end(struct session_scan *scan)
{
    store_scan_end(&scan->scan);
    buffer_deinit(&scan->prefix);
}

/* --- creating --- */

static int session_check_verify(struct store_txn *txn, const struct session_catalog *catalog,
                                struct slice node, struct slice check_id, struct errmsg *err)
{
    bool critical = false;
    const int rc = catalog->check_get(txn, node, check_id, &critical);

    if (rc == STORE_ENOTFOUND) {
        return errmsg_set(err, SESSION_ECHECK, "Missing check '%.*s' registration",
                          (int)check_id.size, check_id.data);
    }
    if (rc == 0 && critical) {
        return errmsg_set(err, SESSION_ECHECK, "Check '%.*s' is in critical state",
                          (int)check_id.size, check_id.data);
    }
    return rc;
}

/* Each check named must be there and not critical. `stride` 2: pairs, of which the first counts. */
static int session_checks_verify(struct store_txn *txn, const struct session_catalog *catalog,
                                 struct slice node, struct strings checks, uint32_t stride,
                                 struct errmsg *err)
{
    struct reader it = strings_begin(checks);
    struct slice each;

    for (uint32_t i = 0; strings_next(&it, &each); i++) {
        if (i % stride == 0) {
            const int rc = session_check_verify(txn, catalog, node, each, err);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return STORE_OK;
}

static int session_verify(struct store_txn *txn, const struct session_catalog *catalog,
                          const struct session *session, struct errmsg *err)
{
    struct session existing;

    int rc = session_get(txn, &session->id, &existing);
    if (rc != STORE_ENOTFOUND) {
        return rc != 0 ? rc : errmsg_set(err, SESSION_EEXIST, "Session id is taken");
    }
    rc = catalog->node_get(txn, session->node);
    if (rc == STORE_ENOTFOUND) {
        return errmsg_set(err, SESSION_ENODE, "Missing node registration");
    }
    /* Consul's order: of several faults the first is told. */
    if (rc == 0) {
        rc = session_checks_verify(txn, catalog, session->node, session->checks, 1, err);
    }
    if (rc == 0) {
        rc = session_checks_verify(txn, catalog, session->node, session->node_checks, 1, err);
    }
    if (rc == 0) {
        rc = session_checks_verify(txn, catalog, session->node, session->service_checks, 2, err);
    }
    return rc;
}

/* Adds or removes the record that finds a session by its node. */
static int session_node_change(struct store_txn *txn, struct slice node, const struct uuid *id,
                               bool present)
{
    struct buffer key = {0};
    int rc = STORE_ENOMEM;

    session_node_prefix(&key, node);
    buffer_append_slice(&key, session_id_slice(id));
    if (!key.failed) {
        rc = present ? store_put(txn, STORE_SESSION_NODE, buffer_slice(&key), SLICE_EMPTY)
                     : store_delete(txn, STORE_SESSION_NODE, buffer_slice(&key));
    }
    buffer_deinit(&key);
    return !present && rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
}

static int session_changed(struct store_txn *txn, uint64_t index)
{
    const int rc = store_index_set(txn, SESSION_INDEX_NAME, index);

    if (rc == 0) {
        store_note(txn, STORE_TOPIC_SESSION, SLICE_EMPTY);
    }
    return rc;
}

int session_create(struct store_txn *txn, const struct session_catalog *catalog, uint64_t index,
                   const struct session *session, struct errmsg *err)
{
    struct session created = *session;
    struct buffer record = {0};

    assert(index > 0);
    assert(!uuid_is_zero(&session->id));
    assert(session->service_checks.count % 2 == 0);
    int rc = session_verify(txn, catalog, session, err);
    if (rc != 0) {
        return rc;
    }
    created.create_index = index;
    created.modify_index = index;
    session_encode(&record, &created);
    rc = record.failed
             ? STORE_ENOMEM
             : store_put(txn, STORE_SESSION, session_id_slice(&created.id), buffer_slice(&record));
    buffer_deinit(&record);
    if (rc == 0) {
        rc = session_node_change(txn, created.node, &created.id, true);
    }
    return rc != 0 ? rc : session_changed(txn, index);
}

/* --- lock-delay --- */

/* A record of STORE_LOCK_DELAY. */
struct session_lock_delay {
    uint64_t term; /* whose leader's clock until_ms is of */
    uint64_t until_ms;
    uint64_t duration_ns;
};

static uint64_t session_lock_delay_until_ms(struct session_stamp stamp, uint64_t duration_ns)
{
    /* Rounded up: a delay is never shorter than asked for. */
    const uint64_t duration_ms =
        duration_ns / SESSION_NS_PER_MS + (duration_ns % SESSION_NS_PER_MS != 0 ? 1 : 0);

    return stamp.now_ms > UINT64_MAX - duration_ms ? UINT64_MAX : stamp.now_ms + duration_ms;
}

static int session_lock_delay_put(struct store_txn *txn, struct session_stamp stamp,
                                  struct slice key, uint64_t duration_ns)
{
    struct buffer record = {0};

    buffer_put_u64(&record, stamp.term);
    buffer_put_u64(&record, session_lock_delay_until_ms(stamp, duration_ns));
    buffer_put_u64(&record, duration_ns);
    const int rc =
        record.failed ? STORE_ENOMEM : store_put(txn, STORE_LOCK_DELAY, key, buffer_slice(&record));
    buffer_deinit(&record);
    return rc;
}

static int session_lock_delay_decode(struct slice record, struct session_lock_delay *out)
{
    struct reader reader = reader_from(record);
    struct session_lock_delay delay;

    delay.term = reader_u64(&reader);
    delay.until_ms = reader_u64(&reader);
    delay.duration_ns = reader_u64(&reader);
    if (!reader_done(&reader)) {
        return STORE_ECORRUPT;
    }
    *out = delay;
    return STORE_OK;
}

/* Clocks of different terms cannot be compared: such a delay has its whole time before it. */
static bool session_lock_delay_runs(const struct session_lock_delay *delay,
                                    struct session_stamp stamp)
{
    return delay->term != stamp.term || stamp.now_ms < delay->until_ms;
}

int session_lock_delay_get(struct store_txn *txn, struct session_stamp stamp, struct slice key,
                           bool *delayed)
{
    struct slice record;
    struct session_lock_delay delay;

    int rc = store_get(txn, STORE_LOCK_DELAY, key, &record);
    if (rc == STORE_ENOTFOUND) {
        *delayed = false;
        return STORE_OK;
    }
    if (rc == 0) {
        rc = session_lock_delay_decode(record, &delay);
    }
    if (rc == 0) {
        *delayed = session_lock_delay_runs(&delay, stamp);
    }
    return rc;
}

/* One step through all lock-delays: collects up to SESSION_BATCH_COUNT of those that run at the
 * stamp (`running`) or that do not, as key and duration, from the key in `from` on; leaves in
 * `from` where to go on, *more false at the end. */
static int session_lock_delay_collect(struct store_txn *txn, struct session_stamp stamp,
                                      bool running, struct buffer *from, struct buffer *batch,
                                      bool *more)
{
    struct store_scan scan;
    struct slice key;
    struct slice record;
    size_t count = 0;

    buffer_clear(batch);
    int rc = store_scan_from(&scan, txn, STORE_LOCK_DELAY, SLICE_EMPTY, buffer_slice(from));
    if (rc != 0) {
        return rc;
    }
    while (count < SESSION_BATCH_COUNT && (rc = store_scan_next(&scan, &key, &record)) == 0) {
        struct session_lock_delay delay;
        rc = session_lock_delay_decode(record, &delay);
        if (rc != 0) {
            break;
        }
        if (session_lock_delay_runs(&delay, stamp) == running) {
            buffer_put_string(batch, key);
            buffer_put_u64(batch, delay.duration_ns);
            count++;
        }
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

int session_lock_delay_restart(struct store_txn *txn, struct session_stamp stamp)
{
    struct buffer from = {0};
    struct buffer batch = {0};
    bool more = true;
    int rc = STORE_OK;

    while (rc == 0 && more) {
        rc = session_lock_delay_collect(txn, stamp, true, &from, &batch, &more);
        struct reader it = reader_from(buffer_slice(&batch));
        while (rc == 0 && it.at < it.end) {
            const struct slice key = reader_string(&it);
            rc = session_lock_delay_put(txn, stamp, key, reader_u64(&it));
        }
    }
    buffer_deinit(&from);
    buffer_deinit(&batch);
    return rc;
}

int session_lock_delay_reap(struct store_txn *txn, struct session_stamp stamp)
{
    struct buffer from = {0};
    struct buffer batch = {0};
    bool more = true;
    int rc = STORE_OK;

    while (rc == 0 && more) {
        rc = session_lock_delay_collect(txn, stamp, false, &from, &batch, &more);
        struct reader it = reader_from(buffer_slice(&batch));
        while (rc == 0 && it.at < it.end) {
            const struct slice key = reader_string(&it);
            (void)reader_u64(&it); /* Its duration does not matter any more. */
            rc = store_delete(txn, STORE_LOCK_DELAY, key);
        }
    }
    buffer_deinit(&from);
    buffer_deinit(&batch);
    return rc;
}

/* --- ending --- */

/* Collects up to SESSION_BATCH_COUNT of the keys that a session holds, as strings. */
static int session_keys_collect(struct store_txn *txn, const struct uuid *id, struct buffer *batch,
                                size_t *count)
{
    struct store_scan scan;
    struct slice key;
    struct slice value;

    buffer_clear(batch);
    *count = 0;
    int rc = store_scan_begin(&scan, txn, STORE_SESSION_KEY, session_id_slice(id));
    if (rc != 0) {
        return rc;
    }
    while (*count < SESSION_BATCH_COUNT && (rc = store_scan_next(&scan, &key, &value)) == 0) {
        assert(key.size >= UUID_BYTES); /* The scan's prefix. */
        buffer_put_string(batch, slice_from(key.data + UUID_BYTES, key.size - UUID_BYTES));
        (*count)++;
    }
    store_scan_end(&scan);
    if (batch->failed) {
        return STORE_ENOMEM;
    }
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

/* How long the keys of a session are kept from others. Consul looks at the sign, so what is
 * negative there is none, and cuts what is too long. */
static uint64_t session_lock_delay_effective_ns(const struct session *session)
{
    if (session->lock_delay_ns > INT64_MAX) {
        return 0;
    }
    return session->lock_delay_ns < SESSION_LOCK_DELAY_NS_MAX ? session->lock_delay_ns
                                                              : SESSION_LOCK_DELAY_NS_MAX;
}

static int session_key_end(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                           const struct uuid *id, enum session_behavior behavior,
                           uint64_t lock_delay_ns, struct slice key)
{
    struct kv_entry entry;

    int rc = kv_get(txn, key, &entry);
    if (rc == STORE_ENOTFOUND || (rc == 0 && !uuid_equal(&entry.session, id))) {
        return STORE_ECORRUPT; /* It was said to be held. */
    }
    if (rc != 0) {
        return rc;
    }
    rc = behavior == SESSION_DELETE ? kv_delete(txn, index, key) : kv_lock_clear(txn, index, key);
    if (rc == 0 && lock_delay_ns > 0) {
        rc = session_lock_delay_put(txn, stamp, key, lock_delay_ns);
    }
    return rc;
}

static int session_keys_end(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                            const struct uuid *id, enum session_behavior behavior,
                            uint64_t lock_delay_ns)
{
    struct buffer batch = {0};
    size_t count;
    int rc;

    do {
        rc = session_keys_collect(txn, id, &batch, &count);
        struct reader it = reader_from(buffer_slice(&batch));
        for (size_t i = 0; rc == 0 && i < count; i++) {
            rc =
                session_key_end(txn, index, stamp, id, behavior, lock_delay_ns, reader_string(&it));
        }
    } while (rc == 0 && count == SESSION_BATCH_COUNT);
    buffer_deinit(&batch);
    return rc;
}

int session_invalidate(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                       const struct uuid *id)
{
    const struct uuid ended = *id; /* The caller's may lie in what is deleted here. */
    struct buffer node = {0};
    struct session session;

    assert(index > 0);
    int rc = session_get(txn, &ended, &session);
    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? STORE_OK : rc;
    }
    buffer_append_slice(&node, session.node); /* The first write ends the borrowing. */
    if (node.failed) {
        return STORE_ENOMEM;
    }
    const enum session_behavior behavior = session.behavior;
    const uint64_t lock_delay_ns = session_lock_delay_effective_ns(&session);

    rc = session_keys_end(txn, index, stamp, &ended, behavior, lock_delay_ns);
    if (rc == 0) {
        rc = store_delete(txn, STORE_SESSION, session_id_slice(&ended));
    }
    if (rc == 0) {
        rc = session_node_change(txn, buffer_slice(&node), &ended, false);
    }
    buffer_deinit(&node);
    return rc != 0 ? rc : session_changed(txn, index);
}

static bool session_service_checks_contain(struct strings pairs, struct slice check_id)
{
    struct reader it = strings_begin(pairs);
    struct slice id;
    struct slice namespace;

    while (strings_next(&it, &id) && strings_next(&it, &namespace)) {
        if (slice_equal_nocase(id, check_id)) {
            return true;
        }
    }
    return false;
}

static bool session_depends_on(const struct session *session, struct slice check_id)
{
    return strings_contain_nocase(session->node_checks, check_id) ||
           strings_contain_nocase(session->checks, check_id) ||
           session_service_checks_contain(session->service_checks, check_id);
}

/* Ends the node's sessions: those that name the check, or all of them (`check_id` NULL). */
static int session_invalidate_of_node(struct store_txn *txn, uint64_t index,
                                      struct session_stamp stamp, struct slice node,
                                      const struct slice *check_id, struct buffer *ended)
{
    struct session_scan scan;
    struct session session;
    const size_t ended_before_bytes = ended->size;

    int rc = session_scan_begin_node(&scan, txn, node);
    if (rc != 0) {
        return rc;
    }
    while ((rc = session_scan_next(&scan, &session)) == 0) {
        if (check_id == NULL || session_depends_on(&session, *check_id)) {
            buffer_append(ended, session.id.bytes, UUID_BYTES);
        }
    }
    session_scan_end(&scan);
    if (rc != STORE_ENOTFOUND) {
        return rc;
    }
    if (ended->failed) {
        return STORE_ENOMEM;
    }
    for (size_t at = ended_before_bytes; at < ended->size; at += UUID_BYTES) {
        struct uuid id;

        memcpy(id.bytes, ended->data + at, UUID_BYTES);
        rc = session_invalidate(txn, index, stamp, &id);
        if (rc != 0) {
            return rc;
        }
    }
    return STORE_OK;
}

int session_invalidate_check(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                             struct slice node, struct slice check_id, struct buffer *ended)
{
    return session_invalidate_of_node(txn, index, stamp, node, &check_id, ended);
}

int session_invalidate_node(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                            struct slice node, struct buffer *ended)
{
    return session_invalidate_of_node(txn, index, stamp, node, NULL, ended);
}

/* --- locking --- */

int session_lock(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                 struct slice key, struct slice value, uint64_t flags, const struct uuid *id,
                 bool *granted, bool *delayed, struct errmsg *err)
{
    struct session session;
    char text[UUID_TEXT_BYTES + 1];
    bool delay_runs;

    /* Before the session: during the delay even an unknown one is told no more than "no". */
    int rc = session_lock_delay_get(txn, stamp, key, &delay_runs);
    if (rc != 0) {
        return rc;
    }
    if (delay_runs) {
        *granted = false;
        *delayed = true;
        return STORE_OK;
    }
    rc = session_get(txn, id, &session);
    if (rc == STORE_ENOTFOUND) {
        uuid_format(id, text);
        return errmsg_set(err, SESSION_EUNKNOWN, "invalid session \"%s\"", text);
    }
    if (rc == 0) {
        rc = kv_lock(txn, index, key, value, flags, id, granted);
    }
    if (rc == 0) {
        *delayed = false;
    }
    return rc;
}
