/* /v1/catalog/register and /v1/catalog/deregister: reading the request, Consul's checks of it, and
 * the command. */

#include "server/http/http_catalog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/command.h"
#include "server/config.h"
#include "server/http/catalog_json.h"
#include "server/http/json_decode.h"
#include "server/http/service_json.h"
#include "server/server.h"

enum { CATALOG_CHECKS_MAX = 256 };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct register_request {
    struct slice datacenter;
    struct slice id;
    struct slice node;
    struct slice address;
    const json_t *tagged_addresses;
    const json_t *node_meta;
    const json_t *service;
    const json_t *check;
    const json_t *checks;
    bool skip_node_update;
};

/* Where Enterprise and peering keep things: here there is one place, and it may be named
 * (catalog_refuse_elsewhere). */
#define CATALOG_ELSEWHERE_FIELDS                                                                   \
    {"Namespace", JSON_FIELD_ANY, 0}, {"Partition", JSON_FIELD_ANY, 0},                            \
    {                                                                                              \
        "PeerName", JSON_FIELD_ANY, 0                                                              \
    }

#define REGISTER_FIELD(name, type, member)                                                         \
    {                                                                                              \
        (name), (type), offsetof(struct register_request, member)                                  \
    }
static const struct json_field register_fields[] = {
    REGISTER_FIELD("Datacenter", JSON_FIELD_STRING, datacenter),
    REGISTER_FIELD("ID", JSON_FIELD_STRING, id),
    REGISTER_FIELD("Node", JSON_FIELD_STRING, node),
    REGISTER_FIELD("Address", JSON_FIELD_STRING, address),
    REGISTER_FIELD("TaggedAddresses", JSON_FIELD_STRING_MAP, tagged_addresses),
    REGISTER_FIELD("NodeMeta", JSON_FIELD_STRING_MAP, node_meta),
    REGISTER_FIELD("Service", JSON_FIELD_OBJECT, service),
    REGISTER_FIELD("Check", JSON_FIELD_OBJECT, check),
    REGISTER_FIELD("Checks", JSON_FIELD_ARRAY, checks),
    REGISTER_FIELD("SkipNodeUpdate", JSON_FIELD_BOOL, skip_node_update),
    {"Token", JSON_FIELD_ANY, 0},
    {"Locality", JSON_FIELD_ANY, 0},
    CATALOG_ELSEWHERE_FIELDS,
};

struct service_request {
    struct service_json common;
    int64_t modify_index;
};

static const struct json_field service_fields[] = {
    SERVICE_JSON_FIELDS(struct service_request, common, "Service"),
    {"ModifyIndex", JSON_FIELD_INT, offsetof(struct service_request, modify_index)},
    {"CreateIndex", JSON_FIELD_ANY, 0},
    CATALOG_ELSEWHERE_FIELDS,
};

struct check_request {
    struct slice node;
    struct slice id;
    struct slice name;
    struct slice status;
    struct slice notes;
    struct slice output;
    struct slice service_id;
    struct slice service_name;
    const json_t *service_tags;
    struct slice type;
    const json_t *definition;
    int64_t modify_index;
};

#define CHECK_FIELD(name, type, member)                                                            \
    {                                                                                              \
        (name), (type), offsetof(struct check_request, member)                                     \
    }
static const struct json_field check_fields[] = {
    CHECK_FIELD("Node", JSON_FIELD_STRING, node),
    CHECK_FIELD("CheckID", JSON_FIELD_STRING, id),
    CHECK_FIELD("Name", JSON_FIELD_STRING, name),
    CHECK_FIELD("Status", JSON_FIELD_STRING, status),
    CHECK_FIELD("Notes", JSON_FIELD_STRING, notes),
    CHECK_FIELD("Output", JSON_FIELD_STRING, output),
    CHECK_FIELD("ServiceID", JSON_FIELD_STRING, service_id),
    CHECK_FIELD("ServiceName", JSON_FIELD_STRING, service_name),
    CHECK_FIELD("ServiceTags", JSON_FIELD_STRINGS, service_tags),
    CHECK_FIELD("Type", JSON_FIELD_STRING, type),
    CHECK_FIELD("Definition", JSON_FIELD_OBJECT, definition),
    CHECK_FIELD("ModifyIndex", JSON_FIELD_INT, modify_index),
    {"CreateIndex", JSON_FIELD_ANY, 0},
    {"Interval", JSON_FIELD_ANY, 0}, /* These three are the agent's, and shown by it. */
    {"Timeout", JSON_FIELD_ANY, 0},
    {"ExposedPort", JSON_FIELD_ANY, 0},
    CATALOG_ELSEWHERE_FIELDS,
};

struct definition_request {
    struct slice http;
    bool tls_skip_verify;
    const json_t *header;
    struct slice method;
    struct slice body;
    struct slice tcp;
    int64_t interval_ns;
    int64_t timeout_ns;
    int64_t deregister_ns;
    int64_t other_interval_ns; /* these three: DEFINITION_NOT_GIVEN, or in place of those above */
    int64_t other_timeout_ns;
    int64_t other_deregister_ns;
    int64_t ttl_ns;
    int64_t output_bytes_max;
    const json_t *script_args;
    struct slice docker;
    struct slice shell;
    struct slice grpc;
    bool grpc_use_tls;
    struct slice alias_node;
    struct slice alias_service;
};

#define DEFINITION_NOT_GIVEN INT64_MIN

#define DEFINITION_FIELD(name, type, member)                                                       \
    {                                                                                              \
        (name), (type), offsetof(struct definition_request, member)                                \
    }
#define DEFINITION_COMMON_FIELDS                                                                   \
    DEFINITION_FIELD("HTTP", JSON_FIELD_STRING, http),                                             \
        DEFINITION_FIELD("TLSSkipVerify", JSON_FIELD_BOOL, tls_skip_verify),                       \
        DEFINITION_FIELD("Header", JSON_FIELD_STRINGS_MAP, header),                                \
        DEFINITION_FIELD("Method", JSON_FIELD_STRING, method),                                     \
        DEFINITION_FIELD("Body", JSON_FIELD_STRING, body),                                         \
        DEFINITION_FIELD("TCP", JSON_FIELD_STRING, tcp),                                           \
        DEFINITION_FIELD("Interval", JSON_FIELD_DURATION, interval_ns),                            \
        DEFINITION_FIELD("Timeout", JSON_FIELD_DURATION, timeout_ns),                              \
        DEFINITION_FIELD("DeregisterCriticalServiceAfter", JSON_FIELD_DURATION, deregister_ns)

static const struct json_field definition_fields[] = {
    DEFINITION_COMMON_FIELDS,
    DEFINITION_FIELD("TTL", JSON_FIELD_DURATION, ttl_ns),
    DEFINITION_FIELD("OutputMaxSize", JSON_FIELD_INT, output_bytes_max),
    DEFINITION_FIELD("ScriptArgs", JSON_FIELD_STRINGS, script_args),
    DEFINITION_FIELD("DockerContainerID", JSON_FIELD_STRING, docker),
    DEFINITION_FIELD("Shell", JSON_FIELD_STRING, shell),
    DEFINITION_FIELD("GRPC", JSON_FIELD_STRING, grpc),
    DEFINITION_FIELD("GRPCUseTLS", JSON_FIELD_BOOL, grpc_use_tls),
    DEFINITION_FIELD("AliasNode", JSON_FIELD_STRING, alias_node),
    DEFINITION_FIELD("AliasService", JSON_FIELD_STRING, alias_service),
    JSON_FIELD_OTHERS,
};

/* Transactions know fewer members. The durations' other names are those that answers to them have:
 * clients send them back. */
static const struct json_field txn_definition_fields[] = {
    DEFINITION_COMMON_FIELDS,
    DEFINITION_FIELD("IntervalDuration", JSON_FIELD_DURATION, other_interval_ns),
    DEFINITION_FIELD("TimeoutDuration", JSON_FIELD_DURATION, other_timeout_ns),
    DEFINITION_FIELD("DeregisterCriticalServiceAfterDuration", JSON_FIELD_DURATION,
                     other_deregister_ns),
    JSON_FIELD_OTHERS,
};

/* Everything that the registration borrows. */
struct register_buffers {
    struct buffer tagged, node_meta;
    struct catalog_service_buffers service;
    struct buffer checks;
};

void http_catalog_service_deinit(struct catalog_service_buffers *buffers)
{
    buffer_deinit(&buffers->tags);
    buffer_deinit(&buffers->meta);
    buffer_deinit(&buffers->tagged);
    free(buffers->extra);
    buffers->extra = NULL;
}

static void register_buffers_deinit(struct register_buffers *buffers)
{
    buffer_deinit(&buffers->tagged);
    buffer_deinit(&buffers->node_meta);
    http_catalog_service_deinit(&buffers->service);
    buffer_deinit(&buffers->checks);
}

static void catalog_refuse_body(struct http_request *request, const struct errmsg *err)
{
    http_reply_error(request, 400, "Request decode failed: %s", err->text);
}

/* --- the service --- */

bool http_catalog_read_service(const json_t *json, const char *type_name,
                               struct catalog_service_buffers *buffers, struct catalog_service *out,
                               struct errmsg *err)
{
    struct service_request request = {.common = SERVICE_JSON_EMPTY};
    const struct service_json *service = &request.common;

    if (!json_decode(json, type_name, service_fields, COUNT(service_fields), &request, err) ||
        !service_json_check(service, err)) {
        return false;
    }
    /* Consul takes any number here and then answers with a port that no client can use. */
    if (!service_json_ports_in_range(service)) {
        (void)errmsg_set(err, -1, "Invalid service port: must be between 0 and %d",
                         SERVICE_PORT_MAX);
        return false;
    }
    const struct service_json_weights weights = service_json_weights(service);
    /* Consul stores any numbers; those that DNS could not say become the default. */
    const bool weights_ok = weights.passing >= 1 && weights.passing <= SERVICE_WEIGHT_MAX &&
                            weights.warning >= 0 && weights.warning <= SERVICE_WEIGHT_MAX;
    buffers->extra = service_json_extra(service);
    *out = (struct catalog_service){
        .node = SLICE_EMPTY,
        .kind = service->kind,
        .id = service->id.size > 0 ? service->id : service->name,
        .name = service->name,
        .tags = catalog_json_pack_list(&buffers->tags, service->tags),
        .meta = catalog_json_pack_map(&buffers->meta, service->meta),
        .address = service->address,
        .tagged_addresses = service_json_pack_addresses(&buffers->tagged, service, false),
        .port = (uint32_t)service_json_port(service),
        .weight_passing = weights_ok ? (uint32_t)weights.passing : 1,
        .weight_warning = weights_ok ? (uint32_t)weights.warning : 1,
        .enable_tag_override = service->enable_tag_override,
        .extra = buffers->extra == NULL ? SLICE_EMPTY : slice_from_text(buffers->extra),
        .modify_index = request.modify_index < 0 ? 0 : (uint64_t)request.modify_index,
    };
    return true;
}

/* --- checks --- */

static void catalog_put_definition_text(json_t *out, const char *name, struct slice text)
{
    if (text.size > 0) {
        (void)json_object_set_new(out, name, json_stringn(text.data, text.size));
    }
}

static void catalog_put_definition_duration(json_t *out, const char *name, int64_t ns)
{
    char text[64];

    if (ns != 0) {
        duration_format(ns, text, sizeof(text));
        (void)json_object_set_new(out, name, json_string(text));
    }
}

static void catalog_put_definition_int(json_t *out, const char *name, int64_t number)
{
    if (number != 0) {
        (void)json_object_set_new(out, name, json_integer(number));
    }
}

static void catalog_put_definition_flag(json_t *out, const char *name, bool flag)
{
    if (flag) {
        (void)json_object_set_new(out, name, json_true());
    }
}

static void catalog_put_definition_list(json_t *out, const char *name, const json_t *list)
{
    if (json_array_size(list) > 0 || json_object_size(list) > 0) {
        (void)json_object_set_new(out, name, json_deep_copy(list));
    }
}

/* As answers show it: empty members left out, in Consul's order. Returns owned. */
static json_t *catalog_definition_shown(const struct definition_request *definition)
{
    json_t *out = json_object();

    catalog_put_definition_duration(out, "Interval", definition->interval_ns);
    catalog_put_definition_int(out, "OutputMaxSize", definition->output_bytes_max);
    catalog_put_definition_duration(out, "Timeout", definition->timeout_ns);
    catalog_put_definition_duration(out, "DeregisterCriticalServiceAfter",
                                    definition->deregister_ns);
    catalog_put_definition_text(out, "HTTP", definition->http);
    catalog_put_definition_flag(out, "TLSSkipVerify", definition->tls_skip_verify);
    catalog_put_definition_list(out, "Header", definition->header);
    catalog_put_definition_text(out, "Method", definition->method);
    catalog_put_definition_text(out, "Body", definition->body);
    catalog_put_definition_text(out, "TCP", definition->tcp);
    catalog_put_definition_list(out, "ScriptArgs", definition->script_args);
    catalog_put_definition_text(out, "DockerContainerID", definition->docker);
    catalog_put_definition_text(out, "Shell", definition->shell);
    catalog_put_definition_text(out, "GRPC", definition->grpc);
    catalog_put_definition_flag(out, "GRPCUseTLS", definition->grpc_use_tls);
    catalog_put_definition_text(out, "AliasNode", definition->alias_node);
    catalog_put_definition_text(out, "AliasService", definition->alias_service);
    catalog_put_definition_int(out, "TTL", definition->ttl_ns);
    return out;
}

/* What type a check has that says none, from what it does; empty: that is not told. */
static struct slice catalog_definition_type(const struct definition_request *definition)
{
    const bool repeats = definition->interval_ns > 0;
    const bool script = json_array_size(definition->script_args) > 0;

    return definition->grpc.size > 0 && repeats               ? SLICE_LITERAL("grpc")
           : definition->http.size > 0 && repeats             ? SLICE_LITERAL("http")
           : definition->ttl_ns > 0                           ? SLICE_LITERAL("ttl")
           : definition->tcp.size > 0 && repeats              ? SLICE_LITERAL("tcp")
           : definition->alias_node.size > 0                  ? SLICE_LITERAL("alias")
           : definition->alias_service.size > 0               ? SLICE_LITERAL("alias")
           : definition->docker.size > 0 && script && repeats ? SLICE_LITERAL("docker")
           : script                                           ? SLICE_LITERAL("script")
                                                              : SLICE_EMPTY;
}

static void catalog_definition_prefer(int64_t *ns, int64_t other_ns)
{
    if (other_ns != DEFINITION_NOT_GIVEN) {
        *ns = other_ns;
    }
}

/* `*text` is owned by the caller. */
static bool catalog_read_definition(const json_t *json, bool in_txn, char **text,
                                    struct slice *type, struct errmsg *err)
{
    struct definition_request definition = {.http = SLICE_EMPTY,
                                            .method = SLICE_EMPTY,
                                            .body = SLICE_EMPTY,
                                            .tcp = SLICE_EMPTY,
                                            .docker = SLICE_EMPTY,
                                            .shell = SLICE_EMPTY,
                                            .grpc = SLICE_EMPTY,
                                            .alias_node = SLICE_EMPTY,
                                            .alias_service = SLICE_EMPTY,
                                            .other_interval_ns = DEFINITION_NOT_GIVEN,
                                            .other_timeout_ns = DEFINITION_NOT_GIVEN,
                                            .other_deregister_ns = DEFINITION_NOT_GIVEN};

    *text = NULL;
    if (json == NULL) {
        return true;
    }
    if (!json_decode(json, "structs.HealthCheckDefinition",
                     in_txn ? txn_definition_fields : definition_fields,
                     in_txn ? COUNT(txn_definition_fields) : COUNT(definition_fields), &definition,
                     err)) {
        return false;
    }
    if (definition.output_bytes_max < 0) {
        (void)errmsg_set(err, -1,
                         "json: cannot unmarshal number %" PRId64 " into Go struct field "
                         "HealthCheckDefinition.OutputMaxSize of type uint",
                         definition.output_bytes_max);
        return false;
    }
    catalog_definition_prefer(&definition.interval_ns, definition.other_interval_ns);
    catalog_definition_prefer(&definition.timeout_ns, definition.other_timeout_ns);
    catalog_definition_prefer(&definition.deregister_ns, definition.other_deregister_ns);
    json_t *out = catalog_definition_shown(&definition);
    if (json_object_size(out) > 0) {
        *text = json_dumps(out, JSON_COMPACT);
    }
    json_decref(out);
    if (type->size == 0) {
        *type = catalog_definition_type(&definition);
    }
    return true;
}

bool http_catalog_read_check(const json_t *json, bool in_txn, struct slice node, struct buffer *out,
                             struct errmsg *err)
{
    const char *type_name = in_txn ? "api.HealthCheck" : "structs.HealthCheck";
    struct check_request check = {
        .node = SLICE_EMPTY,
        .id = SLICE_EMPTY,
        .name = SLICE_EMPTY,
        .status = SLICE_EMPTY,
        .notes = SLICE_EMPTY,
        .output = SLICE_EMPTY,
        .service_id = SLICE_EMPTY,
        .service_name = SLICE_EMPTY,
        .type = SLICE_EMPTY,
    };
    struct buffer tags = {0};
    struct buffer encoded = {0};
    char *definition;

    if (!json_decode(json, type_name, check_fields, COUNT(check_fields), &check, err) ||
        !catalog_read_definition(check.definition, in_txn, &definition, &check.type, err)) {
        return false;
    }
    const struct catalog_check record = {
        .node = check.node.size > 0 ? check.node : node,
        .id = check.id.size > 0 ? check.id : check.name,
        .name = check.name,
        .status = check.status.size > 0 ? check.status : SLICE_LITERAL("critical"),
        .notes = check.notes,
        .output = check.output,
        .service_id = check.service_id,
        .service_name = check.service_name,
        .service_tags = catalog_json_pack_list(&tags, check.service_tags),
        .type = check.type,
        .definition = definition == NULL ? SLICE_EMPTY : slice_from_text(definition),
        .modify_index = check.modify_index < 0 ? 0 : (uint64_t)check.modify_index,
    };
    catalog_check_encode(&encoded, &record);
    buffer_put_u32(out, (uint32_t)encoded.size);
    buffer_append_slice(out, buffer_slice(&encoded));
    out->failed = out->failed || encoded.failed || tags.failed;
    buffer_deinit(&encoded);
    buffer_deinit(&tags);
    free(definition);
    return true;
}

/* Checks, then Check, as Consul joins them. */
static bool catalog_read_checks(const struct register_request *input,
                                struct register_buffers *buffers, uint32_t *count,
                                struct errmsg *err)
{
    size_t i;
    json_t *item;

    *count = 0;
    if (json_array_size(input->checks) >= CATALOG_CHECKS_MAX) {
        (void)errmsg_set(err, -1, "too many checks (limit: %d)", CATALOG_CHECKS_MAX - 1);
        return false;
    }
    json_array_foreach(input->checks, i, item)
    {
        if (json_is_null(item)) {
            continue;
        }
        if (!http_catalog_read_check(item, false, input->node, &buffers->checks, err)) {
            return false;
        }
        (*count)++;
    }
    if (input->check != NULL) {
        if (!http_catalog_read_check(input->check, false, input->node, &buffers->checks, err)) {
            return false;
        }
        (*count)++;
    }
    return true;
}

/* --- the request --- */

/* Consul's order: datacenter, node, address, id. True when it has answered. */
static bool catalog_refuse_node(struct http_request *request, const struct register_request *input)
{
    const struct slice datacenter = slice_from_text(request->server->config->datacenter);
    struct uuid id;

    if (input->datacenter.size > 0 && !slice_equal(input->datacenter, datacenter)) {
        http_reply_error(request, 500, "No path to datacenter");
    } else if (input->node.size == 0) {
        http_reply_error(request, 500, "Must provide node");
    } else if (input->id.size > 0 && input->id.size != UUID_TEXT_BYTES) {
        http_reply_error(request, 500, "Bad node ID: uuid string is wrong length");
    } else if (input->id.size > 0 && !uuid_parse(input->id, &id)) {
        http_reply_error(request, 500, "Bad node ID: uuid is improperly formatted");
    } else if (input->address.size == 0 && !input->skip_node_update) {
        http_reply_error(request, 500, "Must provide address if SkipNodeUpdate is not set");
    } else {
        return false;
    }
    return true;
}

static bool catalog_refuse_service(struct http_request *request,
                                   const struct catalog_service *service)
{
    if (service->id.size > 0 && service->name.size == 0) {
        http_reply_error(request, 500, "Must provide service name with ID");
    } else if (service->id.size == 0) {
        http_reply_error(request, 500,
                         "failed inserting service: failed inserting service: object missing "
                         "primary index");
    } else if (slice_equal(service->address, SLICE_LITERAL("0.0.0.0")) ||
               slice_equal(service->address, SLICE_LITERAL("::"))) {
        http_reply_error(request, 500, "Invalid service address");
    } else {
        return false;
    }
    return true;
}

static void catalog_register_propose(struct http_request *request,
                                     const struct catalog_registration *registration,
                                     const struct register_buffers *buffers)
{
    struct buffer command = {0};

    command_encode_register(&command, registration);
    if (command.failed || buffers->tagged.failed || buffers->node_meta.failed ||
        buffers->service.tags.failed || buffers->service.meta.failed ||
        buffers->service.tagged.failed || buffers->checks.failed) {
        http_reply_error(request, 500, "out of memory");
    } else {
        http_write_start(request, buffer_slice(&command), NULL);
    }
    buffer_deinit(&command);
}

static void catalog_register_json(struct http_request *request, const json_t *json,
                                  struct register_buffers *buffers)
{
    struct register_request input = {
        .datacenter = SLICE_EMPTY, .id = SLICE_EMPTY, .node = SLICE_EMPTY, .address = SLICE_EMPTY};
    struct catalog_registration registration = {0};
    struct errmsg err;

    if (!json_decode(json, "structs.RegisterRequest", register_fields, COUNT(register_fields),
                     &input, &err) ||
        (input.service != NULL &&
         !http_catalog_read_service(input.service, "structs.NodeService", &buffers->service,
                                    &registration.service, &err)) ||
        !catalog_read_checks(&input, buffers, &registration.check_count, &err)) {
        catalog_refuse_body(request, &err);
        return;
    }
    if (catalog_refuse_node(request, &input) ||
        (input.service != NULL && catalog_refuse_service(request, &registration.service))) {
        return;
    }
    registration.node = (struct catalog_node){
        .id = input.id,
        .name = input.node,
        .address = input.address,
        .datacenter = slice_from_text(request->server->config->datacenter),
        .tagged_addresses = catalog_json_pack_map(&buffers->tagged, input.tagged_addresses),
        .meta = catalog_json_pack_map(&buffers->node_meta, input.node_meta),
    };
    registration.skip_node_update = input.skip_node_update;
    registration.has_service = input.service != NULL;
    registration.service.node = input.node;
    registration.checks = buffer_slice(&buffers->checks);
    catalog_register_propose(request, &registration, buffers);
}

/* Whether a record wants to be in a place that is not there. */
static const char *catalog_elsewhere(const json_t *record)
{
    static const char *const names[] = {"Namespace", "Partition", "PeerName"};

    for (size_t i = 0; i < COUNT(names); i++) {
        const char *value = json_string_value(json_member(record, names[i]));

        if (value != NULL && value[0] != '\0' && (i == 2 || strcmp(value, "default") != 0)) {
            return names[i];
        }
    }
    return NULL;
}

/* True: it was, and has been refused. */
static bool catalog_refuse_elsewhere(struct http_request *request, const json_t *json)
{
    const json_t *checks = json_member(json, "Checks");
    const char *name = catalog_elsewhere(json);
    const json_t *check;
    size_t i;

    name = name != NULL ? name : catalog_elsewhere(json_member(json, "Service"));
    name = name != NULL ? name : catalog_elsewhere(json_member(json, "Check"));
    json_array_foreach(checks, i, check)
    {
        name = name != NULL ? name : catalog_elsewhere(check);
    }
    if (name == NULL) {
        return false;
    }
    http_reply_error(request, 400,
                     "Request decode failed: json: unknown field \"%s\" - Namespaces, partitions "
                     "and peers are Consul Enterprise's and Connect's features",
                     name);
    return true;
}

void http_catalog_register(struct http_request *request)
{
    struct register_buffers buffers = {0};
    json_t *json = http_body_json(request, "Request decode failed");

    if (json == NULL) {
        return;
    }
    if (!catalog_refuse_elsewhere(request, json)) {
        catalog_register_json(request, json, &buffers);
    }
    register_buffers_deinit(&buffers);
    json_decref(json);
}

struct deregister_request {
    struct slice datacenter;
    struct slice node;
    struct slice service_id;
    struct slice check_id;
};

static const struct json_field deregister_fields[] = {
    {"Datacenter", JSON_FIELD_STRING, offsetof(struct deregister_request, datacenter)},
    {"Node", JSON_FIELD_STRING, offsetof(struct deregister_request, node)},
    {"Address", JSON_FIELD_ANY, 0},
    {"ServiceID", JSON_FIELD_STRING, offsetof(struct deregister_request, service_id)},
    {"CheckID", JSON_FIELD_STRING, offsetof(struct deregister_request, check_id)},
    {"Token", JSON_FIELD_ANY, 0},
};

void http_catalog_deregister(struct http_request *request)
{
    struct deregister_request input = {SLICE_EMPTY, SLICE_EMPTY, SLICE_EMPTY, SLICE_EMPTY};
    const struct slice datacenter = slice_from_text(request->server->config->datacenter);
    struct buffer command = {0};
    struct errmsg err;
    json_t *json = http_body_json(request, "Request decode failed");

    if (json == NULL) {
        return;
    }
    if (!json_decode(json, "structs.DeregisterRequest", deregister_fields, COUNT(deregister_fields),
                     &input, &err)) {
        catalog_refuse_body(request, &err);
    } else if (input.datacenter.size > 0 && !slice_equal(input.datacenter, datacenter)) {
        http_reply_error(request, 500, "No path to datacenter");
    } else if (input.node.size == 0) {
        http_reply_error(request, 500, "Must provide node");
    } else {
        command_encode_deregister(&command, input.node, input.service_id, input.check_id);
        if (command.failed) {
            http_reply_error(request, 500, "out of memory");
        } else {
            http_write_start(request, buffer_slice(&command), NULL);
        }
    }
    buffer_deinit(&command);
    json_decref(json);
}
