/* How operations and answers of transactions are written and read. */

#include "server/catalog/txn_internal.h"

#include <assert.h>

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

/* --- operations --- */

/* A record behind its size. */
static void txn_put_record(struct buffer *out, struct buffer *record)
{
    out->failed = out->failed || record->failed;
    buffer_put_string(out, buffer_slice(record));
    buffer_deinit(record);
}

static void txn_put_node(struct buffer *out, const struct catalog_node *node)
{
    struct buffer record = {0};

    catalog_node_encode(&record, node);
    txn_put_record(out, &record);
}

static void txn_put_service(struct buffer *out, const struct catalog_service *service)
{
    struct buffer record = {0};

    catalog_service_encode(&record, service);
    txn_put_record(out, &record);
}

void txn_put_check(struct buffer *out, const struct catalog_check *check)
{
    struct buffer record = {0};

    catalog_check_encode(&record, check);
    txn_put_record(out, &record);
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
        txn_put_node(out, &op->node);
        break;
    case TXN_SERVICE:
        txn_put_service(out, &op->service);
        break;
    case TXN_CHECK:
        txn_put_check(out, &op->check);
        break;
    }
}

static bool txn_op_decode_kind(struct reader *it, uint8_t kind, struct txn_op *op)
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
        op->verb_text.size > TXN_TEXT_BYTES_MAX || !txn_op_decode_kind(it, kind, op)) {
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

/* --- refusals --- */

int txn_refuse(struct txn_run_state *run, const struct txn_phrase *phrases, size_t count)
{
    uint8_t part_count = 0;

    for (size_t i = 0; i < count; i++) {
        part_count = (uint8_t)(part_count + 1 + (phrases[i].quoted.data != NULL));
    }
    buffer_put_u32(&run->errors, run->op);
    buffer_put_u8(&run->errors, part_count);
    for (size_t i = 0; i < count; i++) {
        buffer_put_u8(&run->errors, TXN_PART_PLAIN);
        buffer_put_string(&run->errors, slice_from_text(phrases[i].text));
        if (phrases[i].quoted.data != NULL) {
            buffer_put_u8(&run->errors, TXN_PART_QUOTED);
            buffer_put_string(&run->errors, phrases[i].quoted);
        }
    }
    run->failed = true;
    return 0;
}

int txn_refuse_slice(struct txn_run_state *run, struct slice text)
{
    buffer_put_u32(&run->errors, run->op);
    buffer_put_u8(&run->errors, 1);
    buffer_put_u8(&run->errors, TXN_PART_PLAIN);
    buffer_put_string(&run->errors, text);
    run->failed = true;
    return 0;
}

int txn_refuse_text(struct txn_run_state *run, const char *text)
{
    return txn_refuse_slice(run, slice_from_text(text));
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

/* --- results --- */

int txn_result_put_entry(struct txn_run_state *run, const struct kv_entry *entry, bool with_value)
{
    buffer_put_u8(&run->results, TXN_KV);
    buffer_put_u64(&run->results, entry->flags);
    buffer_put_u64(&run->results, entry->lock_index);
    buffer_put_u64(&run->results, entry->create_index);
    buffer_put_u64(&run->results, entry->modify_index);
    buffer_append(&run->results, entry->session.bytes, UUID_BYTES);
    buffer_put_string(&run->results, entry->key);
    buffer_put_string(&run->results, with_value ? entry->value : SLICE_EMPTY);
    return 0;
}

int txn_result_put_node(struct txn_run_state *run, const struct catalog_node *node)
{
    buffer_put_u8(&run->results, TXN_NODE);
    txn_put_node(&run->results, node);
    return 0;
}

int txn_result_put_service(struct txn_run_state *run, const struct catalog_service *service)
{
    buffer_put_u8(&run->results, TXN_SERVICE);
    txn_put_service(&run->results, service);
    return 0;
}

int txn_result_put_check(struct txn_run_state *run, const struct catalog_check *check)
{
    buffer_put_u8(&run->results, TXN_CHECK);
    txn_put_check(&run->results, check);
    return 0;
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
