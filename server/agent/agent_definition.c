#include "server/agent/agent_definition.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent.h"
#include "server/http/catalog_json.h"
#include "server/http/http.h"
#include "server/http/json_decode.h"
#include "server/metadata.h"

enum {
    AGENT_FIELDS_MAX = 64,
};

#define CHECK_FIELD(name, type, member)                                                            \
    {                                                                                              \
        (name), (type), offsetof(struct agent_check_definition, member)                            \
    }

/* Members that later versions of Consul know are taken without effect, so that newer clients can
 * register here; what would change the meaning of the check is refused elsewhere. */
static const struct json_field check_fields[] = {
    CHECK_FIELD("Name", JSON_FIELD_STRING, name),
    CHECK_FIELD("Notes", JSON_FIELD_STRING, notes),
    CHECK_FIELD("ServiceID", JSON_FIELD_STRING, service_id),
    CHECK_FIELD("Status", JSON_FIELD_STRING, status),
    CHECK_FIELD("HTTP", JSON_FIELD_STRING, http),
    CHECK_FIELD("Method", JSON_FIELD_STRING, method),
    CHECK_FIELD("Body", JSON_FIELD_STRING, body),
    CHECK_FIELD("TCP", JSON_FIELD_STRING, tcp),
    CHECK_FIELD("Header", JSON_FIELD_STRINGS_MAP, header),
    CHECK_FIELD("Interval", JSON_FIELD_DURATION, interval_ns),
    CHECK_FIELD("Timeout", JSON_FIELD_DURATION, timeout_ns),
    CHECK_FIELD("TTL", JSON_FIELD_DURATION, ttl_ns),
    CHECK_FIELD("DeregisterCriticalServiceAfter", JSON_FIELD_DURATION, deregister_ns),
    CHECK_FIELD("SuccessBeforePassing", JSON_FIELD_INT, success_before_passing),
    CHECK_FIELD("FailuresBeforeCritical", JSON_FIELD_INT, failures_before_critical),
    CHECK_FIELD("OutputMaxSize", JSON_FIELD_INT, output_bytes_max),
    CHECK_FIELD("Args", JSON_FIELD_STRINGS, args),
    CHECK_FIELD("ScriptArgs", JSON_FIELD_STRINGS, script_args),
    CHECK_FIELD("DockerContainerID", JSON_FIELD_STRING, docker),
    CHECK_FIELD("GRPC", JSON_FIELD_STRING, grpc),
    CHECK_FIELD("AliasNode", JSON_FIELD_STRING, alias_node),
    CHECK_FIELD("AliasService", JSON_FIELD_STRING, alias_service),
    CHECK_FIELD("TLSSkipVerify", JSON_FIELD_BOOL, tls_skip_verify),
    CHECK_FIELD("TLSServerName", JSON_FIELD_STRING, tls_server_name),
    /* Other spellings that Consul takes from clients; files may write any name so. */
    CHECK_FIELD("service_id", JSON_FIELD_STRING, service_id),
    CHECK_FIELD("script_args", JSON_FIELD_STRINGS, script_args),
    CHECK_FIELD("docker_container_id", JSON_FIELD_STRING, docker),
    CHECK_FIELD("tls_skip_verify", JSON_FIELD_BOOL, tls_skip_verify),
    CHECK_FIELD("tls_server_name", JSON_FIELD_STRING, tls_server_name),
    CHECK_FIELD("deregister_critical_service_after", JSON_FIELD_DURATION, deregister_ns),
    CHECK_FIELD("FailuresBeforeWarning", JSON_FIELD_INT, failures_before_warning),
    CHECK_FIELD("DisableRedirects", JSON_FIELD_BOOL, disable_redirects),
    CHECK_FIELD("UDP", JSON_FIELD_STRING, udp),
    CHECK_FIELD("H2PING", JSON_FIELD_STRING, h2ping),
    CHECK_FIELD("OSService", JSON_FIELD_STRING, os_service),
    {"GRPCUseTLS", JSON_FIELD_ANY, 0},
    {"H2PingUseTLS", JSON_FIELD_ANY, 0},
    {"Shell", JSON_FIELD_ANY, 0},
    {"Token", JSON_FIELD_ANY, 0},
};
/* Names that only a service's check may have. */
static const struct json_field service_check_fields[] = {
    CHECK_FIELD("CheckID", JSON_FIELD_STRING, id),
    {"ProxyHTTP", JSON_FIELD_ANY, 0},
    {"ProxyGRPC", JSON_FIELD_ANY, 0},
};

/* A file may write any name with underscores. */
static bool agent_definition_decode(enum agent_origin origin, const json_t *json,
                                    const struct json_field *fields, size_t count, void *out,
                                    struct errmsg *err)
{
    return (origin == AGENT_ORIGIN_FILE ? json_decode_file : json_decode)(json, "", fields, count,
                                                                          out, err);
}

static const struct json_field service_fields[] = {
    SERVICE_JSON_FIELDS(struct agent_service_definition, common, "Name"),
    {"tagged_addresses", JSON_FIELD_OBJECT,
     offsetof(struct agent_service_definition, common.tagged_addresses)},
    {"enable_tag_override", JSON_FIELD_BOOL,
     offsetof(struct agent_service_definition, common.enable_tag_override)},
    {"Check", JSON_FIELD_OBJECT, offsetof(struct agent_service_definition, check)},
    {"Checks", JSON_FIELD_ARRAY, offsetof(struct agent_service_definition, checks)},
    {"Token", JSON_FIELD_ANY, 0},
    {"Namespace", JSON_FIELD_ANY, 0},
    {"Partition", JSON_FIELD_ANY, 0},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int agent_definition_decode_error(enum agent_origin origin, const struct errmsg *cause,
                                         struct errmsg *err)
{
    return errmsg_set(err, AGENT_EINVAL, "%s%s",
                      origin == AGENT_ORIGIN_FILE ? "" : "Request decode failed: ", cause->text);
}

int agent_definition_read_check(const json_t *json, enum agent_origin origin,
                                struct agent_check_definition *out, struct errmsg *err)
{
    struct json_field fields[AGENT_FIELDS_MAX];
    size_t count = COUNT(check_fields);
    const struct json_field as_id = CHECK_FIELD("ID", JSON_FIELD_STRING, id);
    struct errmsg cause;

    static_assert(COUNT(check_fields) + COUNT(service_check_fields) + 1 <= AGENT_FIELDS_MAX,
                  "the table has room for the others");
    memcpy(fields, check_fields, sizeof(check_fields));
    if (origin != AGENT_ORIGIN_API_SERVICE_CHECK) {
        fields[count++] = as_id;
    }
    if (origin != AGENT_ORIGIN_API_CHECK) {
        memcpy(fields + count, service_check_fields, sizeof(service_check_fields));
        count += COUNT(service_check_fields);
    }
    *out = (struct agent_check_definition){
        .id = SLICE_EMPTY,
        .name = SLICE_EMPTY,
        .notes = SLICE_EMPTY,
        .service_id = SLICE_EMPTY,
        .status = SLICE_EMPTY,
        .http = SLICE_EMPTY,
        .method = SLICE_EMPTY,
        .body = SLICE_EMPTY,
        .tcp = SLICE_EMPTY,
        .docker = SLICE_EMPTY,
        .grpc = SLICE_EMPTY,
        .alias_node = SLICE_EMPTY,
        .alias_service = SLICE_EMPTY,
        .tls_server_name = SLICE_EMPTY,
        .udp = SLICE_EMPTY,
        .h2ping = SLICE_EMPTY,
        .os_service = SLICE_EMPTY,
    };
    if (!agent_definition_decode(origin, json, fields, count, out, &cause)) {
        return agent_definition_decode_error(origin, &cause, err);
    }
    if (json_array_size(out->script_args) > 0) {
        out->args = out->script_args;
    }
    return AGENT_OK;
}

struct agent_definition_visit {
    enum agent_origin origin;
    struct errmsg *err;
};

static int agent_definition_decode_check(void *host, const json_t *check)
{
    const struct agent_definition_visit *visit = host;
    struct agent_check_definition definition;

    return agent_definition_read_check(check, visit->origin, &definition, visit->err);
}

int agent_definition_read_service(const json_t *json, enum agent_origin origin,
                                  struct agent_service_definition *out, struct errmsg *err)
{
    struct errmsg cause;
    struct agent_definition_visit visit = {
        .origin = origin == AGENT_ORIGIN_FILE ? AGENT_ORIGIN_FILE : AGENT_ORIGIN_API_SERVICE_CHECK,
        .err = err,
    };

    *out = (struct agent_service_definition){.common = SERVICE_JSON_EMPTY};
    if (!agent_definition_decode(origin, json, service_fields, COUNT(service_fields), out,
                                 &cause) ||
        !service_json_check(&out->common, &cause)) {
        return agent_definition_decode_error(origin, &cause, err);
    }
    return agent_definition_visit_checks(out, agent_definition_decode_check, &visit);
}

int agent_definition_visit_checks(const struct agent_service_definition *service,
                                  int (*visit)(void *host, const json_t *check), void *host)
{
    size_t i;
    json_t *item;

    if (service->check != NULL && json_object_size(service->check) > 0) {
        const int rc = visit(host, service->check);
        if (rc != 0) {
            return rc;
        }
    }
    json_array_foreach(service->checks, i, item)
    {
        const int rc = visit(host, item);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

bool agent_status_valid(struct slice status)
{
    return slice_equal(status, SLICE_LITERAL("passing")) ||
           slice_equal(status, SLICE_LITERAL("warning")) ||
           slice_equal(status, SLICE_LITERAL("critical"));
}

const char *agent_check_type_text(enum agent_check_type type)
{
    switch (type) {
    case AGENT_CHECK_NONE:
        return "";
    case AGENT_CHECK_TTL:
        return "ttl";
    case AGENT_CHECK_HTTP:
        return "http";
    case AGENT_CHECK_TCP:
        return "tcp";
    case AGENT_CHECK_SCRIPT:
        return "script";
    case AGENT_CHECK_ALIAS:
        return "alias";
    case AGENT_CHECK_MAINTENANCE:
        return "maintenance";
    }
    return "";
}

int agent_definition_check_type(const struct agent_check_definition *check,
                                enum agent_check_type *out, struct errmsg *err)
{
    const bool script = json_array_size(check->args) > 0;
    const bool alias = check->alias_node.size > 0 || check->alias_service.size > 0;
    const bool probed = script || check->http.size > 0 || check->tcp.size > 0 ||
                        check->grpc.size > 0 || check->udp.size > 0 || check->h2ping.size > 0 ||
                        check->os_service.size > 0;
    const char *problem = NULL;

    if (check->interval_ns > 0 && check->ttl_ns > 0) {
        problem = "Interval and TTL cannot both be specified";
    } else if (probed && check->interval_ns <= 0) {
        problem = "Interval must be > 0 for Script, HTTP, or TCP checks";
    } else if (probed && alias) {
        problem = "Interval cannot be set for Alias checks";
    } else if (alias && check->ttl_ns > 0) {
        problem = "TTL must be not be set for Alias checks";
    } else if (!probed && !alias && check->ttl_ns <= 0) {
        problem = "TTL must be > 0 for TTL checks";
    } else if (check->output_bytes_max < 0) {
        problem = "MaxOutputMaxSize must be positive";
    }
    if (problem != NULL) {
        return errmsg_set(err, AGENT_EINVAL, "Invalid check: %s", problem);
    }
    *out = check->ttl_ns > 0      ? AGENT_CHECK_TTL
           : check->http.size > 0 ? AGENT_CHECK_HTTP
           : check->tcp.size > 0  ? AGENT_CHECK_TCP
           : alias                ? AGENT_CHECK_ALIAS
           : script               ? AGENT_CHECK_SCRIPT
                                  : AGENT_CHECK_NONE;
    return AGENT_OK;
}

int agent_definition_refuse_kinds(const struct agent_check_definition *check,
                                  const struct agent_scripts *scripts, bool local,
                                  struct errmsg *err)
{
    const struct {
        bool asked;
        const char *name;
    } kinds[] = {
        {check->docker.size > 0, "Docker"},
        {check->grpc.size > 0, "gRPC"},
        {check->udp.size > 0, "UDP"},
        {check->h2ping.size > 0, "HTTP/2 ping"},
        {check->os_service.size > 0, "Operating system service"},
    };

    if (json_array_size(check->args) > 0 && !(local ? scripts->local : scripts->remote)) {
        return errmsg_set(err, AGENT_EINTERNAL, "%s",
                          local ? "Scripts are disabled on this agent; to enable, configure "
                                  "'enable_script_checks' or 'enable_local_script_checks' to true"
                                : "Scripts are disabled on this agent from remote calls; to "
                                  "enable, configure 'enable_script_checks' to true");
    }
    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (kinds[i].asked) {
            return errmsg_set(err, AGENT_EINTERNAL,
                              "%s checks are not part of Proconsul: use HTTP, TCP, TTL, script or "
                              "alias checks",
                              kinds[i].name);
        }
    }
    return AGENT_OK;
}

static const char *agent_definition_weights_problem(const struct service_json *service)
{
    const struct service_json_weights weights = service_json_weights(service);

    if (weights.passing < 1) {
        return "Passing must be greater than 0";
    }
    if (weights.warning < 0) {
        return "Warning must be greater or equal than 0";
    }
    if (weights.passing > SERVICE_WEIGHT_MAX || weights.warning > SERVICE_WEIGHT_MAX) {
        return "DNS Weight must be between 0 and 65535";
    }
    return NULL;
}

/* What only makes sense in a service mesh. */
static bool agent_definition_is_mesh(const struct agent_service_definition *service)
{
    static const char *const kinds[] = {"connect-proxy", "mesh-gateway", "terminating-gateway",
                                        "ingress-gateway", "api-gateway"};
    const json_t *sidecar = service->common.connect == NULL
                                ? NULL
                                : json_member(service->common.connect, "SidecarService");

    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (slice_equal(service->common.kind, slice_from_text(kinds[i]))) {
            return true;
        }
    }
    return sidecar != NULL && !json_is_null(sidecar);
}

int agent_definition_check_service(const struct agent_service_definition *service,
                                   struct errmsg *err)
{
    if (agent_definition_is_mesh(service)) {
        return errmsg_set(err, AGENT_EINVAL,
                          "Connect (service mesh) is not part of Proconsul: proxies, gateways and "
                          "sidecars cannot be registered");
    }
    if (service->common.name.size == 0) {
        return errmsg_set(err, AGENT_EINVAL, "Missing service name");
    }
    if (slice_equal(service->common.address, SLICE_LITERAL("0.0.0.0")) ||
        slice_equal(service->common.address, SLICE_LITERAL("::")) ||
        slice_equal(service->common.address, SLICE_LITERAL("[::]"))) {
        return errmsg_set(err, AGENT_EINVAL, "Invalid service address");
    }
    const char *problem = agent_definition_weights_problem(&service->common);
    if (problem != NULL) {
        return errmsg_set(err, AGENT_EINVAL, "Invalid Weights: %s", problem);
    }
    /* Consul takes any number here and then writes a port that no client can use. */
    if (!service_json_ports_in_range(&service->common)) {
        return errmsg_set(err, AGENT_EINVAL, "Invalid service port: must be between 0 and %d",
                          SERVICE_PORT_MAX);
    }
    struct errmsg cause;
    if (!metadata_check(service->common.meta, &cause)) {
        return errmsg_set(err, AGENT_EINVAL, "Invalid Service Meta: %s", cause.text);
    }
    return AGENT_OK;
}

json_t *agent_definition_copy_without(const json_t *json, const char *const *names)
{
    size_t count = 0;
    json_t *copy = json_object();
    const char **keys = catalog_json_sorted_keys(json, &count);

    for (size_t i = 0; copy != NULL && i < count; i++) {
        bool keep = true;
        for (const char *const *name = names; *name != NULL; name++) {
            keep = keep && !json_name_equal(keys[i], *name);
        }
        if (keep && json_object_set_new(copy, keys[i],
                                        json_deep_copy(json_object_get(json, keys[i]))) != 0) {
            json_decref(copy);
            copy = NULL;
        }
    }
    free(keys);
    return copy;
}

void agent_definition_encode_service(struct buffer *out,
                                     const struct agent_service_definition *service)
{
    struct buffer tags = {0};
    struct buffer meta = {0};
    struct buffer tagged = {0};
    const struct service_json_weights weights = service_json_weights(&service->common);
    char *extra = service_json_extra(&service->common);

    const struct catalog_service record = {
        .node = SLICE_EMPTY,
        .kind = service->common.kind,
        .id = service->common.id.size > 0 ? service->common.id : service->common.name,
        .name = service->common.name,
        .tags = catalog_json_pack_list(&tags, service->common.tags),
        .meta = catalog_json_pack_map(&meta, service->common.meta),
        .address = service->common.address,
        .tagged_addresses = service_json_pack_addresses(&tagged, &service->common, true),
        .port = (uint32_t)service_json_port(&service->common),
        .weight_passing = (uint32_t)weights.passing,
        .weight_warning = (uint32_t)weights.warning,
        .enable_tag_override = service->common.enable_tag_override,
        .extra = extra == NULL ? SLICE_EMPTY : slice_from_text(extra),
    };
    catalog_service_encode(out, &record);
    if (tags.failed || meta.failed || tagged.failed) {
        out->failed = true;
    }
    buffer_deinit(&tags);
    buffer_deinit(&meta);
    buffer_deinit(&tagged);
    free(extra);
}
