/* Transactions: the operations one by one, with Consul 1.8's texts for what fails. */

#include "server/catalog/txn.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

/* --- verbs --- */

static const struct {
    const char *text;
    enum txn_verb verb;
    bool kv_only;
    bool writes;
} txn_verbs[] = {
    {"set", TXN_SET, false, true},
    {"cas", TXN_CAS, false, true},
    {"get", TXN_GET, false, false},
    {"delete", TXN_DELETE, false, true},
    {"delete-cas", TXN_DELETE_CAS, false, true},
    {"lock", TXN_LOCK, true, true},
    {"unlock", TXN_UNLOCK, true, true},
    {"get-or-empty", TXN_GET_OR_EMPTY, true, false},
    {"get-tree", TXN_GET_TREE, true, false},
    {"check-index", TXN_CHECK_INDEX, true, false},
    {"check-session", TXN_CHECK_SESSION, true, false},
    {"check-not-exists", TXN_CHECK_NOT_EXISTS, true, false},
    {"delete-tree", TXN_DELETE_TREE, true, true},
};

enum { TXN_VERB_COUNT = sizeof(txn_verbs) / sizeof(txn_verbs[0]) };

enum txn_verb txn_verb_from(enum txn_kind kind, struct slice text)
{
    for (size_t i = 0; i < TXN_VERB_COUNT; i++) {
        if (slice_equal(text, slice_from_text(txn_verbs[i].text)) &&
            (kind == TXN_KV || !txn_verbs[i].kv_only)) {
            return txn_verbs[i].verb;
        }
    }
    return TXN_UNKNOWN;
}

bool txn_verb_writes(enum txn_kind kind, enum txn_verb verb)
{
    for (size_t i = 0; i < TXN_VERB_COUNT; i++) {
        if (txn_verbs[i].verb == verb) {
            return txn_verbs[i].writes;
        }
    }
    assert(verb == TXN_UNKNOWN);
    return kind != TXN_KV; /* As Consul sorts them. */
}

/* --- encoding --- */

/* A record behind its size. */
static void put_record(struct buffer *out, struct buffer *record)
{
    out->failed = out->failed || record->failed;
    buffer_put_string(out, buffer_slice(record));
    buffer_deinit(record);
}

static void put_node(struct buffer *out, const struct catalog_node *node)
{
    struct buffer record = {0};

    catalog_node_encode(&record, node);
    put_record(out, &record);
}

static void put_service(struct buffer *out, const struct catalog_service *service)
{
    struct buffer record = {0};

    catalog_service_encode(&record, service);
    put_record(out, &record);
}

static void put_check(struct buffer *out, const struct catalog_check *check)
{
    struct buffer record = {0};

    catalog_check_encode(&record, check);
    put_record(out, &record);
}

void txn_op_encode(struct buffer *out, const struct txn_op *op)
{
    buffer_put_u8(out, (uint8_t)op->kind);
    buffer_put_u8(out, (uint8_t)op->verb);
    buffer_put_string(out, op->verb_text);
    buffer_put_u64(out, op->index);
    switch (op->kind) {
    case TXN_KV:
        buffer_put_u64(out, op->flags);
        buffer_put_string(out, op->session);
        buffer_put_string(out, op->session_fault);
        buffer_put_string(out, op->key);
        buffer_put_string(out, op->value);
        break;
    case TXN_NODE:
        put_node(out, &op->node);
        break;
    case TXN_SERVICE:
        put_service(out, &op->service);
        break;
    case TXN_CHECK:
        put_check(out, &op->check);
        break;
    }
}

static bool op_decode_kind(struct reader *it, uint8_t kind, struct txn_op *op)
{
    switch (kind) {
    case TXN_KV:
        op->flags = reader_u64(it);
        op->session = reader_string(it);
        op->session_fault = reader_string(it);
        op->key = reader_string(it);
        op->value = reader_string(it);
        return !it->failed && op->session.size <= TXN_TEXT_BYTES_MAX &&
               op->session_fault.size <= TXN_TEXT_BYTES_MAX;
    case TXN_NODE:
        return catalog_node_decode(reader_string(it), &op->node) && !it->failed;
    case TXN_SERVICE:
        return catalog_service_decode(reader_string(it), &op->service) && !it->failed;
    case TXN_CHECK:
        return catalog_check_decode(reader_string(it), &op->check) && !it->failed;
    }
    return false;
}

/* False at the end, and, with it->failed, for bytes that are no operation. */
bool txn_op_next(struct reader *it, struct txn_op *op)
{
    if (it->failed || it->at == it->end) {
        return false;
    }
    *op = (struct txn_op){0};
    const uint8_t kind = reader_u8(it);
    const uint8_t verb = reader_u8(it);
    op->verb_text = reader_string(it);
    op->index = reader_u64(it);
    const uint8_t verb_max = kind == TXN_KV ? TXN_DELETE_TREE : TXN_UNKNOWN;
    if (it->failed || verb < TXN_SET || verb > verb_max ||
        op->verb_text.size > TXN_TEXT_BYTES_MAX || !op_decode_kind(it, kind, op)) {
        it->failed = true;
        return false;
    }
    op->kind = (enum txn_kind)kind;
    op->verb = (enum txn_verb)verb;
    return true;
}

bool txn_decode(struct slice ops, uint32_t *count)
{
    struct reader it = reader_from(ops);
    struct txn_op op;

    *count = 0;
    while (*count <= TXN_OPS_MAX && txn_op_next(&it, &op)) {
        (*count)++;
    }
    return reader_done(&it) && *count <= TXN_OPS_MAX;
}

/* --- answers --- */

/* A transaction being run. */
struct run {
    struct store_txn *txn;
    uint64_t index;
    struct session_stamp stamp;
    struct buffer *ended;
    struct buffer results;
    struct buffer errors;
    uint32_t op; /* position of the current operation */
    bool failed; /* an operation was refused */
};

/* A text, and a name in quotes behind it. */
struct part {
    const char *text;
    struct slice quoted; /* data NULL: none */
};

/* Refuses the current operation. */
static int refuse(struct run *run, const struct part *parts, size_t count)
{
    uint8_t written = 0;

    for (size_t i = 0; i < count; i++) {
        written = (uint8_t)(written + 1 + (parts[i].quoted.data != NULL));
    }
    buffer_put_u32(&run->errors, run->op);
    buffer_put_u8(&run->errors, written);
    for (size_t i = 0; i < count; i++) {
        buffer_put_u8(&run->errors, TXN_PART_PLAIN);
        buffer_put_string(&run->errors, slice_from_text(parts[i].text));
        if (parts[i].quoted.data != NULL) {
            buffer_put_u8(&run->errors, TXN_PART_QUOTED);
            buffer_put_string(&run->errors, parts[i].quoted);
        }
    }
    run->failed = true;
    return 0;
}

#define NO_NAME ((struct slice){NULL, 0})
#define REFUSE(run, ...)                                                                           \
    refuse((run), (const struct part[]){__VA_ARGS__},                                              \
           sizeof((const struct part[]){__VA_ARGS__}) / sizeof(struct part))

static int refuse_slice(struct run *run, struct slice text)
{
    buffer_put_u32(&run->errors, run->op);
    buffer_put_u8(&run->errors, 1);
    buffer_put_u8(&run->errors, TXN_PART_PLAIN);
    buffer_put_string(&run->errors, text);
    run->failed = true;
    return 0;
}

static int refuse_text(struct run *run, const char *text)
{
    return refuse_slice(run, slice_from_text(text));
}

bool txn_error_next(struct reader *it, uint32_t *op, uint8_t *part_count)
{
    if (it->failed || it->at == it->end) {
        return false;
    }
    *op = reader_u32(it);
    *part_count = reader_u8(it);
    return !it->failed;
}

bool txn_error_part(struct reader *it, enum txn_part *part, struct slice *text)
{
    *part = reader_u8(it) == TXN_PART_QUOTED ? TXN_PART_QUOTED : TXN_PART_PLAIN;
    *text = reader_string(it);
    return !it->failed;
}

static void result_entry(struct run *run, const struct kv_entry *entry, bool with_value)
{
    buffer_put_u8(&run->results, TXN_KV);
    buffer_put_u64(&run->results, entry->flags);
    buffer_put_u64(&run->results, entry->lock_index);
    buffer_put_u64(&run->results, entry->create_index);
    buffer_put_u64(&run->results, entry->modify_index);
    buffer_append(&run->results, entry->session.bytes, UUID_BYTES);
    buffer_put_string(&run->results, entry->key);
    buffer_put_string(&run->results, with_value ? entry->value : SLICE_EMPTY);
}

bool txn_result_next(struct reader *it, struct txn_result *out)
{
    if (it->failed || it->at == it->end) {
        return false;
    }
    *out = (struct txn_result){0};
    const uint8_t kind = reader_u8(it);
    out->kind = (enum txn_kind)kind;
    switch (kind) {
    case TXN_KV: {
        out->entry.flags = reader_u64(it);
        out->entry.lock_index = reader_u64(it);
        out->entry.create_index = reader_u64(it);
        out->entry.modify_index = reader_u64(it);
        const struct slice session = reader_bytes(it, UUID_BYTES);
        out->entry.key = reader_string(it);
        out->entry.value = reader_string(it);
        if (it->failed) {
            return false;
        }
        memcpy(out->entry.session.bytes, session.data, UUID_BYTES);
        return true;
    }
    case TXN_NODE:
        return catalog_node_decode(reader_string(it), &out->node) && !it->failed;
    case TXN_SERVICE:
        return catalog_service_decode(reader_string(it), &out->service) && !it->failed;
    case TXN_CHECK:
        return catalog_check_decode(reader_string(it), &out->check) && !it->failed;
    }
    it->failed = true;
    return false;
}

/* --- keys --- */

/* What Consul looks at before it lets an operation into its log. */
static int check_kv(struct run *run, const struct txn_op *op)
{
    bool delayed = false;
    int rc = 0;

    if (op->key.size == 0 && op->verb != TXN_DELETE_TREE) {
        return refuse_text(run, "Must provide key");
    }
    if (op->verb == TXN_LOCK) {
        rc = session_lock_delay_get(run->txn, run->stamp, op->key, &delayed);
    }
    if (rc == 0 && delayed) {
        return REFUSE(run, {"failed to lock key ", op->key}, {" due to lock delay", NO_NAME});
    }
    return rc;
}

/* The entry as it is now, as a result; its value is left out after a write. */
static int kv_result(struct run *run, struct slice key, bool with_value)
{
    struct kv_entry entry;
    const int rc = kv_get(run->txn, key, &entry);

    if (rc == 0) {
        result_entry(run, &entry, with_value);
    }
    return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
}

static int kv_run_lock(struct run *run, const struct txn_op *op)
{
    struct errmsg err;
    struct uuid session;
    bool granted = false;
    bool delayed = false;

    if (op->session.size == 0) {
        return refuse_text(run, "missing session");
    }
    if (op->session_fault.size > 0) {
        return refuse_slice(run, op->session_fault);
    }
    if (!uuid_parse(op->session, &session)) {
        return REFUSE(run, {"invalid session ", op->session});
    }
    const int rc = session_lock(run->txn, run->index, run->stamp, op->key, op->value, op->flags,
                                &session, &granted, &delayed, &err);
    if (rc == SESSION_EUNKNOWN) {
        return refuse_text(run, err.text);
    }
    if (rc != 0) {
        return rc;
    }
    if (!granted) {
        return REFUSE(run, {"failed to lock key ", op->key},
                      {delayed ? " due to lock delay" : ", lock is already held", NO_NAME});
    }
    return kv_result(run, op->key, false);
}

static int kv_run_unlock(struct run *run, const struct txn_op *op)
{
    struct uuid session;
    bool released = false;
    int rc = 0;

    if (op->session.size == 0) {
        return refuse_text(run, "missing session");
    }
    if (uuid_parse(op->session, &session)) {
        rc = kv_unlock(run->txn, run->index, op->key, op->value, op->flags, &session, &released);
    }
    if (rc == 0 && !released) {
        return REFUSE(run, {"failed to unlock key ", op->key},
                      {", lock isn't held, or is held by another session", NO_NAME});
    }
    return rc != 0 ? rc : kv_result(run, op->key, false);
}

static int kv_run_get(struct run *run, const struct txn_op *op)
{
    struct kv_entry entry;
    const int rc = kv_get(run->txn, op->key, &entry);

    if (rc == STORE_ENOTFOUND && op->verb == TXN_GET_OR_EMPTY) {
        entry = (struct kv_entry){.key = op->key, .value = SLICE_EMPTY};
        result_entry(run, &entry, false);
        return 0;
    }
    if (rc == STORE_ENOTFOUND) {
        return REFUSE(run, {"key ", op->key}, {" doesn't exist", NO_NAME});
    }
    if (rc == 0) {
        result_entry(run, &entry, true);
    }
    return rc;
}

static int kv_run_get_tree(struct run *run, const struct txn_op *op)
{
    struct kv_scan scan;
    struct kv_entry entry;
    int rc = kv_scan_begin(&scan, run->txn, op->key);

    if (rc != 0) {
        return rc;
    }
    while ((rc = kv_scan_next(&scan, &entry)) == 0) {
        result_entry(run, &entry, true);
        if (run->results.size > TXN_ANSWER_BYTES_MAX) {
            break;
        }
    }
    kv_scan_end(&scan);
    if (rc == 0) {
        return refuse_text(run, "Result too large, ask for a longer prefix");
    }
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

static int kv_run_check_index(struct run *run, const struct txn_op *op)
{
    char numbers[64];
    struct kv_entry entry;
    const int rc = kv_get(run->txn, op->key, &entry);

    if (rc == STORE_ENOTFOUND) {
        return REFUSE(run, {"failed to check index, key ", op->key}, {" doesn't exist", NO_NAME});
    }
    if (rc != 0) {
        return rc;
    }
    if (entry.modify_index != op->index) {
        (void)snprintf(numbers, sizeof(numbers), ", current modify index %" PRIu64 " != %" PRIu64,
                       entry.modify_index, op->index);
        return REFUSE(run, {"failed index check for key ", op->key}, {numbers, NO_NAME});
    }
    result_entry(run, &entry, false);
    return 0;
}

static int kv_run_check_session(struct run *run, const struct txn_op *op)
{
    char holder[UUID_TEXT_BYTES + 1] = "";
    struct kv_entry entry;
    const int rc = kv_get(run->txn, op->key, &entry);

    if (rc == STORE_ENOTFOUND) {
        return REFUSE(run, {"failed to check session, key ", op->key}, {" doesn't exist", NO_NAME});
    }
    if (rc != 0) {
        return rc;
    }
    if (!uuid_is_zero(&entry.session)) {
        uuid_format(&entry.session, holder);
    }
    if (!slice_equal(slice_from_text(holder), op->session)) {
        return REFUSE(run, {"failed session check for key ", op->key},
                      {", current session ", slice_from_text(holder)}, {" != ", op->session});
    }
    result_entry(run, &entry, false);
    return 0;
}

static int kv_run_check_not_exists(struct run *run, const struct txn_op *op)
{
    struct kv_entry entry;
    const int rc = kv_get(run->txn, op->key, &entry);

    if (rc == 0) {
        return REFUSE(run, {"key ", op->key}, {" exists", NO_NAME});
    }
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

static int kv_run_set(struct run *run, const struct txn_op *op)
{
    bool done = true;
    bool changed;
    const int rc =
        op->verb == TXN_CAS
            ? kv_cas(run->txn, run->index, op->key, op->value, op->flags, op->index, &done)
            : kv_set(run->txn, run->index, op->key, op->value, op->flags, &changed);

    if (rc == 0 && !done) {
        return REFUSE(run, {"failed to set key ", op->key}, {", index is stale", NO_NAME});
    }
    return rc != 0 ? rc : kv_result(run, op->key, false);
}

static int kv_run_delete(struct run *run, const struct txn_op *op)
{
    bool done = true;
    int rc;

    if (op->verb == TXN_DELETE_CAS) {
        rc = kv_delete_cas(run->txn, run->index, op->key, op->index, &done);
    } else if (op->verb == TXN_DELETE_TREE) {
        rc = kv_delete_prefix(run->txn, run->index, op->key);
    } else {
        rc = kv_delete(run->txn, run->index, op->key);
    }
    if (rc == 0 && !done) {
        return REFUSE(run, {"failed to delete key ", op->key}, {", index is stale", NO_NAME});
    }
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

static int run_kv(struct run *run, const struct txn_op *op)
{
    switch (op->verb) {
    case TXN_SET:
    case TXN_CAS:
        return kv_run_set(run, op);
    case TXN_GET:
    case TXN_GET_OR_EMPTY:
        return kv_run_get(run, op);
    case TXN_GET_TREE:
        return kv_run_get_tree(run, op);
    case TXN_LOCK:
        return kv_run_lock(run, op);
    case TXN_UNLOCK:
        return kv_run_unlock(run, op);
    case TXN_CHECK_INDEX:
        return kv_run_check_index(run, op);
    case TXN_CHECK_SESSION:
        return kv_run_check_session(run, op);
    case TXN_CHECK_NOT_EXISTS:
        return kv_run_check_not_exists(run, op);
    case TXN_DELETE:
    case TXN_DELETE_CAS:
    case TXN_DELETE_TREE:
        return kv_run_delete(run, op);
    case TXN_UNKNOWN:
        break;
    }
    return REFUSE(run, {"unknown KV verb ", op->verb_text});
}

/* --- the catalog --- */

/* The text without what the catalog's own endpoint says in front of it. */
static const char *catalog_fault_text(const char *text)
{
    static const char *const prefixes[] = {
        "failed inserting node: ", "failed inserting service: ", "failed inserting check: "};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        const size_t size = strlen(prefixes[i]);
        if (strncmp(text, prefixes[i], size) == 0) {
            return text + size;
        }
    }
    return text;
}

/* *registered is false when it was refused. */
static int catalog_write(struct run *run, const struct catalog_registration *registration,
                         bool *registered)
{
    struct errmsg err = {""};
    const int rc =
        catalog_register(run->txn, run->index, run->stamp, registration, run->ended, &err);

    *registered = rc == 0;
    return rc == CATALOG_EINVAL ? refuse_text(run, catalog_fault_text(err.text)) : rc;
}

/* What an operation on a record that is (`found`) or is not there may do, by its verb and index. */
static bool index_matches(const struct txn_op *op, bool found, uint64_t modify_index)
{
    if (op->verb == TXN_CAS && op->index == 0) {
        return !found;
    }
    return found && op->index == modify_index;
}

static int check_node(struct run *run, const struct txn_op *op)
{
    struct uuid id;

    if (op->verb == TXN_GET) {
        return 0;
    }
    if (op->node.name.size == 0) {
        return refuse_text(run, "Must provide node");
    }
    if (op->node.id.size > 0 && op->node.id.size != UUID_TEXT_BYTES) {
        return refuse_text(run, "Bad node ID: uuid string is wrong length");
    }
    if (op->node.id.size > 0 && !uuid_parse(op->node.id, &id)) {
        return refuse_text(run, "Bad node ID: uuid is improperly formatted");
    }
    return 0;
}

static int node_find(struct run *run, const struct txn_op *op, struct catalog_node *node)
{
    if (op->verb == TXN_GET && op->node.id.size > 0) {
        return catalog_node_get_by_id(run->txn, op->node.id, node);
    }
    return catalog_node_get(run->txn, op->node.name, node);
}

static int node_result(struct run *run, const struct catalog_node *node)
{
    buffer_put_u8(&run->results, TXN_NODE);
    put_node(&run->results, node);
    return 0;
}

static int run_node(struct run *run, const struct txn_op *op)
{
    struct catalog_node node = {0};
    bool registered;
    int rc = node_find(run, op, &node);
    const bool found = rc == 0;

    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    switch (op->verb) {
    case TXN_GET:
        return found ? node_result(run, &node)
                     : REFUSE(run, {"node ", op->node.name}, {" doesn't exist", NO_NAME});
    case TXN_CAS:
    case TXN_SET: {
        if (op->verb == TXN_CAS && !index_matches(op, found, node.modify_index)) {
            return REFUSE(run, {"failed to set node ", op->node.name},
                          {", index is stale", NO_NAME});
        }
        const struct catalog_registration registration = {.node = op->node,
                                                          .address_optional = true};
        rc = catalog_write(run, &registration, &registered);
        if (rc == 0 && registered) {
            rc = catalog_node_get(run->txn, op->node.name, &node);
            return rc == 0 ? node_result(run, &node) : rc;
        }
        return rc;
    }
    case TXN_DELETE_CAS:
        if (!index_matches(op, found, node.modify_index)) {
            return REFUSE(run, {"failed to delete node ", op->node.name},
                          {", index is stale", NO_NAME});
        }
        break;
    case TXN_DELETE:
        break;
    default: /* The verbs of keys do not decode here. */
        return REFUSE(run, {"unknown Node verb ", op->verb_text});
    }
    return catalog_deregister(run->txn, run->index, run->stamp, op->node.name, SLICE_EMPTY,
                              SLICE_EMPTY, run->ended);
}

static int check_service(struct run *run, const struct txn_op *op)
{
    const struct slice address = op->service.address;

    if (op->verb == TXN_GET) {
        return 0;
    }
    if (op->service.id.size > 0 && op->service.name.size == 0) {
        return refuse_text(run, "Must provide service name with ID");
    }
    if (slice_equal(address, SLICE_LITERAL("0.0.0.0")) ||
        slice_equal(address, SLICE_LITERAL("::"))) {
        return refuse_text(run, "Invalid service address");
    }
    return 0;
}

static int service_result(struct run *run, const struct catalog_service *service)
{
    buffer_put_u8(&run->results, TXN_SERVICE);
    put_service(&run->results, service);
    return 0;
}

static int service_set(struct run *run, const struct txn_op *op, struct slice id)
{
    struct catalog_registration registration = {.node = {.name = op->service.node},
                                                .skip_node_update = true,
                                                .has_service = true,
                                                .service = op->service};
    struct catalog_service service;
    struct catalog_node node;
    bool registered;
    int rc = op->service.node.size == 0 ? STORE_ENOTFOUND
                                        : catalog_node_get(run->txn, op->service.node, &node);

    if (rc == STORE_ENOTFOUND) {
        return refuse_text(run, "Missing node registration");
    }
    if (rc != 0) {
        return rc;
    }
    registration.service.id = id;
    rc = catalog_write(run, &registration, &registered);
    if (rc != 0 || !registered) {
        return rc;
    }
    rc = catalog_service_get(run->txn, op->service.node, id, &service);
    return rc == 0 ? service_result(run, &service) : rc;
}

static int run_service(struct run *run, const struct txn_op *op)
{
    const struct slice name = op->service.node;
    const struct slice id =
        op->verb != TXN_GET && op->service.id.size == 0 ? op->service.name : op->service.id;
    struct catalog_service service = {0};
    const int rc = catalog_service_get(run->txn, name, id, &service);
    const bool found = rc == 0;

    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    switch (op->verb) {
    case TXN_GET:
        return found ? service_result(run, &service)
                     : REFUSE(run, {"service ", id}, {" on node ", name},
                              {" doesn't exist", NO_NAME});
    case TXN_CAS:
        if (!index_matches(op, found, service.modify_index)) {
            return REFUSE(run, {"failed to set service ", id}, {" on node ", name},
                          {", index is stale", NO_NAME});
        }
        return service_set(run, op, id);
    case TXN_SET:
        return service_set(run, op, id);
    case TXN_DELETE_CAS:
        if (!index_matches(op, found, service.modify_index)) {
            return REFUSE(run, {"failed to delete service ", id}, {" on node ", name},
                          {", index is stale", NO_NAME});
        }
        break;
    case TXN_DELETE:
        break;
    default: /* The verbs of keys do not decode here. */
        return REFUSE(run, {"unknown Service verb ", op->verb_text});
    }
    /* Without an id, a deregistration would mean the node. */
    return id.size == 0 || name.size == 0 ? 0
                                          : catalog_deregister(run->txn, run->index, run->stamp,
                                                               name, id, SLICE_EMPTY, run->ended);
}

static int check_result(struct run *run, const struct catalog_check *check)
{
    buffer_put_u8(&run->results, TXN_CHECK);
    put_check(&run->results, check);
    return 0;
}

/* Consul's words, which are not those of the catalog's endpoint. 0 also when refused: run->failed
 * and *fine tell. */
static int check_set_allowed(struct run *run, const struct txn_op *op, struct slice id, bool *fine)
{
    struct catalog_node node;
    struct catalog_service service;
    int rc = catalog_node_get(run->txn, op->check.node, &node);

    *fine = false;
    if (rc == STORE_ENOTFOUND) {
        return refuse_text(run, "Missing node registration");
    }
    if (rc == 0 && op->check.service_id.size > 0) {
        rc = catalog_service_get(run->txn, op->check.node, op->check.service_id, &service);
        if (rc == STORE_ENOTFOUND) {
            return refuse_text(run, "Missing service registration");
        }
    }
    if (rc == 0 && id.size == 0) {
        return refuse_text(run, "failed inserting check: object missing primary index");
    }
    *fine = rc == 0;
    return rc;
}

static int check_set(struct run *run, const struct txn_op *op, struct slice id)
{
    struct catalog_check check = op->check;
    struct buffer record = {0};
    bool registered = false;
    bool fine;
    int rc = check_set_allowed(run, op, id, &fine);

    if (rc != 0 || !fine) {
        return rc;
    }
    check.id = id;
    put_check(&record, &check);
    if (record.failed) {
        buffer_deinit(&record);
        return STORE_ENOMEM;
    }
    const struct catalog_registration registration = {.node = {.name = op->check.node},
                                                      .skip_node_update = true,
                                                      .check_count = 1,
                                                      .checks = buffer_slice(&record)};
    rc = catalog_write(run, &registration, &registered);
    buffer_deinit(&record);
    if (rc != 0 || !registered) {
        return rc;
    }
    rc = catalog_check_get(run->txn, op->check.node, id, &check);
    return rc == 0 ? check_result(run, &check) : rc;
}

static int run_check(struct run *run, const struct txn_op *op)
{
    const struct slice name = op->check.node;
    const struct slice id =
        op->verb != TXN_GET && op->check.id.size == 0 ? op->check.name : op->check.id;
    struct catalog_check check = {0};
    const int rc = catalog_check_get(run->txn, name, id, &check);
    const bool found = rc == 0;

    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    switch (op->verb) {
    case TXN_GET:
        return found
                   ? check_result(run, &check)
                   : REFUSE(run, {"check ", id}, {" on node ", name}, {" doesn't exist", NO_NAME});
    case TXN_CAS:
        if (!index_matches(op, found, check.modify_index)) {
            return REFUSE(run, {"failed to set check ", id}, {" on node ", name},
                          {", index is stale", NO_NAME});
        }
        return check_set(run, op, id);
    case TXN_SET:
        return check_set(run, op, id);
    case TXN_DELETE_CAS:
        if (!index_matches(op, found, check.modify_index)) {
            return REFUSE(run, {"failed to delete check ", id}, {" on node ", name},
                          {", index is stale", NO_NAME});
        }
        break;
    case TXN_DELETE:
        break;
    default: /* The verbs of keys do not decode here. */
        return REFUSE(run, {"unknown Check verb ", op->verb_text});
    }
    /* Without an id, a deregistration would mean the node. */
    return id.size == 0 || name.size == 0 ? 0
                                          : catalog_deregister(run->txn, run->index, run->stamp,
                                                               name, SLICE_EMPTY, id, run->ended);
}

/* --- all of them --- */

static int check_op(struct run *run, const struct txn_op *op)
{
    switch (op->kind) {
    case TXN_KV:
        return check_kv(run, op);
    case TXN_NODE:
        return check_node(run, op);
    case TXN_SERVICE:
        return check_service(run, op);
    case TXN_CHECK:
        break;
    }
    return 0;
}

static int run_op(struct run *run, const struct txn_op *op)
{
    switch (op->kind) {
    case TXN_KV:
        return run_kv(run, op);
    case TXN_NODE:
        return run_node(run, op);
    case TXN_SERVICE:
        return run_service(run, op);
    case TXN_CHECK:
        return run_check(run, op);
    }
    assert(false); /* Decoding lets no other kind through. */
    return STORE_ECORRUPT;
}

static int run_pass(struct run *run, struct slice ops,
                    int (*each)(struct run *run, const struct txn_op *op))
{
    struct reader it = reader_from(ops);
    struct txn_op op;

    for (run->op = 0; txn_op_next(&it, &op); run->op++) {
        assert(run->txn->write || !txn_verb_writes(op.kind, op.verb));
        const int rc = each(run, &op);
        if (rc != 0) {
            return rc;
        }
    }
    assert(reader_done(&it)); /* They were checked. */
    return 0;
}

int txn_run(struct store_txn *txn, uint64_t index, struct session_stamp stamp, struct slice ops,
            struct buffer *ended, struct buffer *answer, bool *ok)
{
    struct run run = {.txn = txn, .index = index, .stamp = stamp, .ended = ended};
    int rc = run_pass(&run, ops, check_op);

    if (rc == 0 && !run.failed) {
        rc = run_pass(&run, ops, run_op);
    }
    if (rc == 0 && (run.results.failed || run.errors.failed)) {
        rc = STORE_ENOMEM;
    }
    if (rc == 0) {
        *ok = !run.failed;
        buffer_put_u8(answer, run.failed ? 0 : 1);
        buffer_append_slice(answer, buffer_slice(run.failed ? &run.errors : &run.results));
    }
    buffer_deinit(&run.results);
    buffer_deinit(&run.errors);
    return rc;
}
