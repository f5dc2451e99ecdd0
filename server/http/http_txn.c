/* PUT /v1/txn: reading the operations, and showing what became of them. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/catalog/txn.h"
#include "server/config.h"
#include "server/http/catalog_json.h"
#include "server/http/http_catalog.h"
#include "server/http/http_internal.h"
#include "server/http/json_decode.h"
#include "server/server.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { TXN_JSON_ERROR = -1 };

/* --- reading --- */

struct txn_kv_json {
    struct slice verb;
    struct slice key;
    struct slice value;
    struct slice session;
    int64_t flags;
    int64_t index;
};
static const struct json_field txn_kv_fields[] = {
    {"Verb", JSON_FIELD_STRING, offsetof(struct txn_kv_json, verb)},
    {"Key", JSON_FIELD_STRING, offsetof(struct txn_kv_json, key)},
    {"Value", JSON_FIELD_STRING, offsetof(struct txn_kv_json, value)},
    {"Flags", JSON_FIELD_INT, offsetof(struct txn_kv_json, flags)},
    {"Index", JSON_FIELD_INT, offsetof(struct txn_kv_json, index)},
    {"Session", JSON_FIELD_STRING, offsetof(struct txn_kv_json, session)},
    {"Namespace", JSON_FIELD_ANY, 0},
};

/* An operation on a node, service or check: a verb and a record. */
struct txn_record_json {
    struct slice verb;
    struct slice node;
    const json_t *record;
};
static const struct json_field txn_node_fields[] = {
    {"Verb", JSON_FIELD_STRING, offsetof(struct txn_record_json, verb)},
    {"Node", JSON_FIELD_OBJECT, offsetof(struct txn_record_json, record)},
};
static const struct json_field txn_service_fields[] = {
    {"Verb", JSON_FIELD_STRING, offsetof(struct txn_record_json, verb)},
    {"Node", JSON_FIELD_STRING, offsetof(struct txn_record_json, node)},
    {"Service", JSON_FIELD_OBJECT, offsetof(struct txn_record_json, record)},
};
static const struct json_field txn_check_fields[] = {
    {"Verb", JSON_FIELD_STRING, offsetof(struct txn_record_json, verb)},
    {"Check", JSON_FIELD_OBJECT, offsetof(struct txn_record_json, record)},
};

struct txn_node_json {
    struct slice id;
    struct slice name;
    struct slice address;
    struct slice datacenter;
    const json_t *tagged_addresses;
    const json_t *meta;
    int64_t modify_index;
};
static const struct json_field txn_node_record_fields[] = {
    {"ID", JSON_FIELD_STRING, offsetof(struct txn_node_json, id)},
    {"Node", JSON_FIELD_STRING, offsetof(struct txn_node_json, name)},
    {"Address", JSON_FIELD_STRING, offsetof(struct txn_node_json, address)},
    {"Datacenter", JSON_FIELD_STRING, offsetof(struct txn_node_json, datacenter)},
    {"TaggedAddresses", JSON_FIELD_STRING_MAP, offsetof(struct txn_node_json, tagged_addresses)},
    {"Meta", JSON_FIELD_STRING_MAP, offsetof(struct txn_node_json, meta)},
    {"ModifyIndex", JSON_FIELD_INT, offsetof(struct txn_node_json, modify_index)},
    {"CreateIndex", JSON_FIELD_ANY, 0},
};

struct txn_op_json {
    const json_t *kv;
    const json_t *node;
    const json_t *service;
    const json_t *check;
};
static const struct json_field txn_op_fields[] = {
    {"KV", JSON_FIELD_OBJECT, offsetof(struct txn_op_json, kv)},
    {"Node", JSON_FIELD_OBJECT, offsetof(struct txn_op_json, node)},
    {"Service", JSON_FIELD_OBJECT, offsetof(struct txn_op_json, service)},
    {"Check", JSON_FIELD_OBJECT, offsetof(struct txn_op_json, check)},
};

/* The request as it is being read. */
struct txn_read {
    const struct config *config;
    struct buffer ops;
    bool writes;
    struct errmsg err;
    struct buffer too_large; /* a value's refusal, with its key */
};

/* False: the text of the verb or session is longer than any that means something. */
static bool txn_text_fits(struct txn_read *read, const char *name, struct slice text)
{
    if (text.size <= TXN_TEXT_BYTES_MAX) {
        return true;
    }
    (void)errmsg_set(&read->err, TXN_JSON_ERROR, "%s is longer than %d bytes", name,
                     TXN_TEXT_BYTES_MAX);
    return false;
}

static void txn_put_op(struct txn_read *read, struct txn_op *op, struct slice verb)
{
    op->verb = txn_verb_from(op->kind, verb);
    op->verb_text = op->verb == TXN_UNKNOWN ? verb : SLICE_EMPTY;
    read->writes = read->writes || txn_verb_writes(op->kind, op->verb);
    txn_op_encode(&read->ops, op);
}

static void txn_value_too_large(struct txn_read *read, struct slice key, size_t bytes)
{
    buffer_append_text(&read->too_large, "Value for key ");
    http_put_quoted(&read->too_large, key);
    buffer_printf(&read->too_large, " is too large (%zu > %llu bytes)", bytes,
                  (unsigned long long)read->config->kv_value_bytes_max);
}

static bool txn_number_fits(struct txn_read *read, const char *name, int64_t number)
{
    if (number >= 0) {
        return true;
    }
    (void)errmsg_set(&read->err, TXN_JSON_ERROR,
                     "json: cannot unmarshal number %lld into Go struct field KVTxnOp.KV.%s of "
                     "type uint64",
                     (long long)number, name);
    return false;
}

static bool txn_read_kv(struct txn_read *read, const json_t *json)
{
    struct txn_kv_json input = {
        .verb = SLICE_EMPTY, .key = SLICE_EMPTY, .value = SLICE_EMPTY, .session = SLICE_EMPTY};
    struct buffer value = {0};
    struct errmsg fault = {""};

    if (!json_decode(json, "api.KVTxnOp", txn_kv_fields, COUNT(txn_kv_fields), &input,
                     &read->err) ||
        !txn_number_fits(read, "Flags", input.flags) ||
        !txn_number_fits(read, "Index", input.index) || !txn_text_fits(read, "Verb", input.verb) ||
        !txn_text_fits(read, "Session", input.session)) {
        return false;
    }
    if (input.key.size > COMMAND_KEY_BYTES_MAX) {
        (void)errmsg_set(&read->err, TXN_JSON_ERROR, "Key is longer than %d bytes",
                         COMMAND_KEY_BYTES_MAX);
        return false;
    }
    if (!json_base64_decode(&value, input.value, &read->err)) {
        buffer_deinit(&value);
        return false;
    }
    if (value.size > read->config->kv_value_bytes_max && read->too_large.size == 0) {
        txn_value_too_large(read, input.key, value.size);
    }
    if (input.session.size > 0) {
        (void)http_session_id_check(input.session, &fault);
    }
    struct txn_op op = {.kind = TXN_KV,
                        .index = (uint64_t)input.index,
                        .key = input.key,
                        .value = buffer_slice(&value),
                        .flags = (uint64_t)input.flags,
                        .session = input.session,
                        .session_fault = slice_from_text(fault.text)};
    txn_put_op(read, &op, input.verb);
    read->ops.failed = read->ops.failed || value.failed;
    buffer_deinit(&value);
    return true;
}

static bool txn_read_node(struct txn_read *read, const json_t *json)
{
    struct txn_record_json input = {.verb = SLICE_EMPTY};
    struct txn_node_json node = {
        .id = SLICE_EMPTY, .name = SLICE_EMPTY, .address = SLICE_EMPTY, .datacenter = SLICE_EMPTY};
    struct buffer tagged = {0};
    struct buffer meta = {0};

    if (!json_decode(json, "api.NodeTxnOp", txn_node_fields, COUNT(txn_node_fields), &input,
                     &read->err) ||
        !txn_text_fits(read, "Verb", input.verb) ||
        (input.record != NULL && !json_decode(input.record, "api.Node", txn_node_record_fields,
                                              COUNT(txn_node_record_fields), &node, &read->err))) {
        return false;
    }
    struct txn_op op = {
        .kind = TXN_NODE,
        .index = node.modify_index < 0 ? 0 : (uint64_t)node.modify_index,
        .node = {.id = node.id,
                 .name = node.name,
                 .address = node.address,
                 .datacenter = node.datacenter.size > 0 ? node.datacenter
                                                        : slice_from_text(read->config->datacenter),
                 .tagged_addresses = catalog_json_pack_map(&tagged, node.tagged_addresses),
                 .meta = catalog_json_pack_map(&meta, node.meta)}};
    txn_put_op(read, &op, input.verb);
    read->ops.failed = read->ops.failed || tagged.failed || meta.failed;
    buffer_deinit(&tagged);
    buffer_deinit(&meta);
    return true;
}

static bool txn_read_service(struct txn_read *read, const json_t *json)
{
    struct txn_record_json input = {.verb = SLICE_EMPTY, .node = SLICE_EMPTY};
    struct catalog_service_buffers buffers = {.extra = NULL};
    struct txn_op op = {.kind = TXN_SERVICE};
    json_t *none = json_object();
    bool ok = json_decode(json, "api.ServiceTxnOp", txn_service_fields, COUNT(txn_service_fields),
                          &input, &read->err) &&
              txn_text_fits(read, "Verb", input.verb) &&
              http_catalog_read_service(input.record != NULL ? input.record : none,
                                        "api.AgentService", &buffers, &op.service, &read->err);

    if (ok) {
        const json_t *id = json_member(input.record, "ID");

        /* Whether an id was given matters: a get looks for nothing else. */
        if (!json_is_string(id) || json_string_length(id) == 0) {
            op.service.id = SLICE_EMPTY;
        }
        op.service.node = input.node;
        op.index = op.service.modify_index;
        txn_put_op(read, &op, input.verb);
        read->ops.failed =
            read->ops.failed || buffers.tags.failed || buffers.meta.failed || buffers.tagged.failed;
    }
    http_catalog_service_deinit(&buffers);
    json_decref(none);
    return ok;
}

static bool txn_read_check(struct txn_read *read, const json_t *json)
{
    struct txn_record_json input = {.verb = SLICE_EMPTY};
    struct buffer record = {0};
    struct txn_op op = {.kind = TXN_CHECK};
    json_t *none = json_object();
    bool ok = json_decode(json, "api.CheckTxnOp", txn_check_fields, COUNT(txn_check_fields), &input,
                          &read->err) &&
              txn_text_fits(read, "Verb", input.verb) &&
              http_catalog_read_check(input.record != NULL ? input.record : none, true, SLICE_EMPTY,
                                      &record, &read->err);

    if (ok && !record.failed) {
        struct reader it = reader_from(buffer_slice(&record));
        const json_t *id = json_member(input.record, "CheckID");

        ok = catalog_check_decode(reader_string(&it), &op.check);
        assert(ok); /* It was just encoded. */
        if (!json_is_string(id) || json_string_length(id) == 0) {
            op.check.id = SLICE_EMPTY;
        }
        op.check.type = SLICE_EMPTY; /* Transactions leave it out. */
        op.index = op.check.modify_index;
        txn_put_op(read, &op, input.verb);
    }
    read->ops.failed = read->ops.failed || record.failed;
    buffer_deinit(&record);
    json_decref(none);
    return ok;
}

/* An operation without a known member is dropped, as Consul does. */
static bool txn_read_op(struct txn_read *read, const json_t *json)
{
    struct txn_op_json input = {0};

    if (!json_decode(json, "api.TxnOp", txn_op_fields, COUNT(txn_op_fields), &input, &read->err)) {
        return false;
    }
    if (input.kv != NULL) {
        return txn_read_kv(read, input.kv);
    }
    if (input.node != NULL) {
        return txn_read_node(read, input.node);
    }
    if (input.service != NULL) {
        return txn_read_service(read, input.service);
    }
    return input.check == NULL || txn_read_check(read, input.check);
}

/* False when it has answered. */
static bool txn_read_all(struct http_request *request, const json_t *list, struct txn_read *read)
{
    size_t i;
    json_t *item;

    if (!json_is_array(list) && !json_is_null(list)) {
        http_reply_error(request, 400,
                         "Failed to parse body: json: cannot unmarshal %s into Go value of type "
                         "api.TxnOps",
                         json_go_type(list));
        return false;
    }
    json_array_foreach(list, i, item)
    {
        if (json_is_null(item)) { /* Consul panics. */
            http_reply_error(request, 400, "Failed to parse body: operation %zu is null", i);
            return false;
        }
        if (!txn_read_op(read, item)) {
            http_reply_error(request, 400, "Failed to parse body: %s", read->err.text);
            return false;
        }
    }
    if (json_array_size(list) > TXN_OPS_MAX) {
        http_reply_error(request, 413, "Transaction contains too many operations (%zu > %d)",
                         json_array_size(list), TXN_OPS_MAX);
        return false;
    }
    if (read->too_large.size > 0) {
        http_reply_text(request, 413, buffer_slice(&read->too_large));
        return false;
    }
    if (read->ops.failed) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
        return false;
    }
    return true;
}

/* --- answering --- */

static void txn_put_results(struct buffer *out, struct reader *it, const char *datacenter)
{
    struct txn_result result;
    const char *separator = "[";

    while (txn_result_next(it, &result)) {
        buffer_append_text(out, separator);
        separator = ",";
        switch (result.kind) {
        case TXN_KV:
            buffer_append_text(out, "{\"KV\":");
            http_kv_put_entry(out, &result.entry);
            break;
        case TXN_NODE:
            buffer_append_text(out, "{\"Node\":");
            catalog_json_node(out, &result.node, datacenter);
            break;
        case TXN_SERVICE:
            buffer_append_text(out, "{\"Service\":");
            catalog_json_service_stored(out, &result.service);
            break;
        case TXN_CHECK:
            buffer_append_text(out, "{\"Check\":");
            catalog_json_check_stored(out, &result.check);
            break;
        }
        buffer_append_char(out, '}');
    }
    buffer_append_text(out, separator[0] == '[' ? "[]" : "]");
}

static void txn_put_errors(struct buffer *out, struct reader *it)
{
    struct buffer text = {0};
    const char *separator = "[";
    enum txn_part part;
    struct slice words;
    uint32_t op;
    uint8_t parts;

    while (txn_error_next(it, &op, &parts)) {
        buffer_clear(&text);
        for (uint8_t i = 0; i < parts && txn_error_part(it, &part, &words); i++) {
            if (part == TXN_PART_QUOTED) {
                http_put_quoted(&text, words);
            } else {
                buffer_append_slice(&text, words);
            }
        }
        buffer_printf(out, "%s{\"OpIndex\":%u,\"What\":", separator, (unsigned)op);
        separator = ",";
        json_put_string(out, buffer_slice(&text));
        buffer_append_char(out, '}');
    }
    buffer_append_char(out, ']');
    out->failed = out->failed || text.failed;
    buffer_deinit(&text);
}

/* The body without its end; returns the status. */
static int txn_put_answer(struct buffer *out, struct slice answer, const char *datacenter)
{
    struct reader it = reader_from(answer);
    const bool ok = reader_u8(&it) != 0;

    if (ok) {
        buffer_append_text(out, "{\"Results\":");
        txn_put_results(out, &it, datacenter);
        buffer_append_text(out, ",\"Errors\":null");
        return 200;
    }
    buffer_append_text(out, "{\"Results\":null,\"Errors\":");
    txn_put_errors(out, &it);
    return 409;
}

static void txn_on_applied(struct http_request *request, const struct command_result *result)
{
    const struct slice answer = command_answer(result);
    struct buffer body = {0};

    if (answer.size == 0) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
        return;
    }
    const int status = txn_put_answer(&body, answer, request->server->config->datacenter);
    buffer_append_char(&body, '}');
    if (request->pretty) {
        struct buffer pretty = {0};

        json_indent(&pretty, buffer_slice(&body));
        buffer_deinit(&body);
        body = pretty;
    }
    http_reply_buffer(request, status, "application/json", NULL, &body);
    buffer_deinit(&body);
}

/* --- read-only transactions --- */

static void txn_free_ops(struct http_request *request)
{
    struct buffer *ops = request->state;

    buffer_deinit(ops);
    free(ops);
    request->state = NULL;
}

static int txn_run_read(struct http_request *request, struct store_txn *txn,
                        struct http_read_result *result)
{
    const struct buffer *ops = request->state;
    const struct session_stamp never = {0};
    struct replica_freshness freshness;
    struct buffer answer = {0};
    struct buffer none = {0};
    bool ok;
    const int rc = txn_run(txn, 0, never, buffer_slice(ops), &none, &answer, &ok);

    if (rc == 0 && !answer.failed) {
        replica_freshness(request->server->replica, &freshness);
        result->status = txn_put_answer(&result->body, buffer_slice(&answer),
                                        request->server->config->datacenter);
        buffer_printf(&result->body,
                      ",\"Index\":0,\"LastContact\":%llu,\"KnownLeader\":%s,"
                      "\"ConsistencyLevel\":\"\"}",
                      (unsigned long long)freshness.last_contact_ms * 1000000,
                      freshness.known_leader ? "true" : "false");
    }
    buffer_deinit(&answer);
    buffer_deinit(&none);
    return rc;
}

static void txn_start_read(struct http_request *request, struct buffer *ops)
{
    const struct http_read_spec spec = {.flags = HTTP_READ_LEADER_HEADERS, .run = txn_run_read};
    struct buffer *kept = malloc(sizeof(*kept));

    if (kept == NULL) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
        return;
    }
    *kept = *ops;
    *ops = (struct buffer){0};
    request->state = kept;
    request->on_free = txn_free_ops;
    http_read_start(request, &spec);
}

static void txn_start_write(struct http_request *request, const struct buffer *ops)
{
    struct buffer command = {0};

    if (!http_check_datacenter(request, 0)) {
        return;
    }
    command_encode_txn(&command, buffer_slice(ops));
    if (command.failed) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
    } else {
        http_write_start(request, buffer_slice(&command), txn_on_applied);
    }
    buffer_deinit(&command);
}

void http_txn(struct http_request *request)
{
    struct txn_read read = {.config = request->server->config};
    json_t *list = http_body_json(request, "Failed to parse body");

    if (list == NULL) {
        return;
    }
    if (txn_read_all(request, list, &read)) {
        if (read.writes) {
            txn_start_write(request, &read.ops);
        } else {
            txn_start_read(request, &read.ops);
        }
    }
    buffer_deinit(&read.ops);
    buffer_deinit(&read.too_large);
    json_decref(list);
}

const struct http_route http_routes_txn[] = {
    {"/v1/txn", HTTP_METHOD_PUT, "OPTIONS,PUT", http_txn},
    {NULL, 0, NULL, NULL},
};
