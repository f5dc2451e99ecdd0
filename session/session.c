#include "session/session.h"

#include <assert.h>

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

static int session_lock_delay_restart_each(struct store_txn *txn, struct slice key,
                                           struct slice record, void *context)
{
    const struct session_stamp *stamp = context;
    struct session_lock_delay delay;
    const int rc = session_lock_delay_decode(record, &delay);

    if (rc != 0 || !session_lock_delay_runs(&delay, *stamp)) {
        return rc;
    }
    return session_lock_delay_put(txn, *stamp, key, delay.duration_ns);
}

int session_lock_delay_restart(struct store_txn *txn, struct session_stamp stamp)
{
    return store_visit(txn, STORE_LOCK_DELAY, SLICE_EMPTY, session_lock_delay_restart_each, &stamp);
}

static int session_lock_delay_reap_each(struct store_txn *txn, struct slice key,
                                        struct slice record, void *context)
{
    const struct session_stamp *stamp = context;
    struct session_lock_delay delay;
    const int rc = session_lock_delay_decode(record, &delay);

    if (rc != 0 || session_lock_delay_runs(&delay, *stamp)) {
        return rc;
    }
    return store_delete(txn, STORE_LOCK_DELAY, key);
}

int session_lock_delay_reap(struct store_txn *txn, struct session_stamp stamp)
{
    return store_visit(txn, STORE_LOCK_DELAY, SLICE_EMPTY, session_lock_delay_reap_each, &stamp);
}

/* --- ending --- */

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

/* What happens to the keys of a session that ends. */
struct session_ending {
    uint64_t index;
    struct session_stamp stamp;
    const struct uuid *id;
    enum session_behavior behavior;
    uint64_t lock_delay_ns;
};

/* `record_key` is the session's id and the key that it holds. */
static int session_key_end(struct store_txn *txn, struct slice record_key, struct slice record,
                           void *context)
{
    const struct session_ending *ending = context;
    struct kv_entry entry;

    (void)record;                          /* The key says it all. */
    assert(record_key.size >= UUID_BYTES); /* The visit's prefix. */
    const struct slice key = slice_from(record_key.data + UUID_BYTES, record_key.size - UUID_BYTES);
    int rc = kv_get(txn, key, &entry);
    if (rc == STORE_ENOTFOUND || (rc == 0 && !uuid_equal(&entry.session, ending->id))) {
        return STORE_ECORRUPT; /* It was said to be held. */
    }
    if (rc != 0) {
        return rc;
    }
    rc = ending->behavior == SESSION_DELETE ? kv_delete(txn, ending->index, key)
                                            : kv_lock_clear(txn, ending->index, key);
    if (rc == 0 && ending->lock_delay_ns > 0) {
        rc = session_lock_delay_put(txn, ending->stamp, key, ending->lock_delay_ns);
    }
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
    struct session_ending ending = {
        .index = index,
        .stamp = stamp,
        .id = &ended,
        .behavior = session.behavior,
        .lock_delay_ns = session_lock_delay_effective_ns(&session),
    };

    rc = store_visit(txn, STORE_SESSION_KEY, session_id_slice(&ended), session_key_end, &ending);
    if (rc == 0) {
        rc = store_delete(txn, STORE_SESSION, session_id_slice(&ended));
    }
    if (rc == 0) {
        rc = session_node_change(txn, buffer_slice(&node), &ended, false);
    }
    buffer_deinit(&node);
    return rc != 0 ? rc : session_changed(txn, index);
}

/* Checks that turned critical or went, in order. */
struct session_losses {
    const struct slice *check_ids;
    size_t count;
};

static bool session_losses_find(const struct session_losses *lost, struct slice check_id,
                                uint32_t *place)
{
    size_t begin = 0;
    size_t end = lost->count;

    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;

        if (slice_compare_nocase(lost->check_ids[middle], check_id) < 0) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    *place = (uint32_t)begin;
    return begin < lost->count && slice_equal_nocase(lost->check_ids[begin], check_id);
}

/* `width`: strings to an entry, the first of which is the check's id. */
static bool session_losses_hit(const struct session_losses *lost, struct strings checks,
                               uint32_t width, uint32_t *place)
{
    struct reader it = strings_begin(checks);
    struct slice text;

    for (uint32_t i = 0; strings_next(&it, &text); i++) {
        if (i % width == 0 && session_losses_find(lost, text, place)) {
            return true;
        }
    }
    return false;
}

static bool session_depends_on(const struct session *session, const struct session_losses *lost,
                               uint32_t *place)
{
    enum { SERVICE_CHECK_WIDTH = 2 }; /* with its namespace */

    return session_losses_hit(lost, session->node_checks, 1, place) ||
           session_losses_hit(lost, session->checks, 1, place) ||
           session_losses_hit(lost, session->service_checks, SERVICE_CHECK_WIDTH, place);
}

/* Ends the node's sessions: those that name one of the checks, or all of them (`lost` NULL). */
static int session_invalidate_of_node(struct store_txn *txn, uint64_t index,
                                      struct session_stamp stamp, struct slice node,
                                      const struct session_losses *lost, struct buffer *ended)
{
    struct session_scan scan;
    struct session session;
    const size_t ended_before_bytes = ended->size;

    int rc = session_scan_begin_node(&scan, txn, node);
    if (rc != 0) {
        return rc;
    }
    while ((rc = session_scan_next(&scan, &session)) == 0) {
        uint32_t place = 0;

        if (lost == NULL || session_depends_on(&session, lost, &place)) {
            buffer_append(ended, session.id.bytes, UUID_BYTES);
            buffer_put_u32(ended, place);
        }
    }
    session_scan_end(&scan);
    if (rc != STORE_ENOTFOUND) {
        return rc;
    }
    if (ended->failed) {
        return STORE_ENOMEM;
    }
    for (size_t at = ended_before_bytes; at < ended->size; at += UUID_BYTES + sizeof(uint32_t)) {
        struct uuid id;

        memcpy(id.bytes, ended->data + at, UUID_BYTES);
        rc = session_invalidate(txn, index, stamp, &id);
        if (rc != 0) {
            return rc;
        }
    }
    return STORE_OK;
}

int session_invalidate_checks(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                              struct slice node, const struct slice *check_ids, size_t count,
                              struct buffer *ended)
{
    const struct session_losses lost = {.check_ids = check_ids, .count = count};

    return session_invalidate_of_node(txn, index, stamp, node, &lost, ended);
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
