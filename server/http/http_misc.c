/* What answers the same to everybody: ACL endpoints while ACLs are off, profiling, and the parts of
 * Consul's API that have nothing behind them here (prepared queries). */

#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/server.h"

static void misc_acl_disabled(struct http_request *request)
{
    if (request->server->config->acl_enabled) {
        http_reply_error(request, 500, "Tokens, policies and roles are not supported");
        return;
    }
    http_reply_text(request, 401, SLICE_LITERAL("ACL support disabled"));
}

static int misc_run_empty(struct http_request *request, struct store_txn *txn,
                          struct http_read_result *result)
{
    (void)request;
    (void)txn;
    buffer_append_text(&result->body, "[]");
    return 0;
}

/* --- prepared queries: none can be made --- */

static void query_list_or_create(struct http_request *request)
{
    if (request->method == HTTP_METHOD_GET) {
        const struct http_read_spec spec = {.flags = HTTP_READ_INDEX_HEADERS |
                                                     HTTP_READ_ERROR_HEADERS | HTTP_READ_EFFECTIVE,
                                            .run = misc_run_empty};

        http_read_start(request, &spec);
        return;
    }
    json_t *root = http_body_json(request, "Request decode failed");

    if (root != NULL) {
        json_decref(root);
        http_reply_error(request, 500, "Prepared queries are not supported");
    }
}

static void query_one(struct http_request *request)
{
    if (http_parse_common(request)) {
        http_reply_text(request, 404, SLICE_LITERAL("Query not found"));
    }
}

/* --- what Consul has and this server deliberately has not --- */

static const struct {
    const char *path; /* a prefix where it ends in a slash */
    const char *feature;
} misc_missing[] = {
    {"/v1/connect/intentions", "Connect (intentions)"},
    {"/v1/connect/", "Connect"},
    {"/v1/config", "Connect (configuration entries)"},
    {"/v1/discovery-chain/", "Connect (discovery chains)"},
    {"/v1/catalog/gateway-services/", "Connect (gateways)"},
    {"/v1/exported-services", "Connect (exported services)"},
    {"/v1/imported-services", "Connect (imported services)"},
    {"/v1/peering", "Cluster peering"},
    {"/v1/internal/ui/", "The user interface"},
    {"/v1/internal/", "This internal endpoint"},
    {"/v1/operator/area", "WAN federation (network areas)"},
    {"/v1/operator/license", "Consul Enterprise's licence"},
    {"/v1/operator/segment", "Consul Enterprise's network segments"},
    {"/v1/namespace", "Consul Enterprise's namespaces"},
    {"/v1/partition", "Consul Enterprise's partitions"},
};

/* Says what is missing, so that nobody takes it for a wrong path. */
static void misc_not_supported(struct http_request *request)
{
    const char *feature = "This endpoint";

    for (size_t i = 0; i < sizeof(misc_missing) / sizeof(misc_missing[0]); i++) {
        if (slice_starts_with(request->path, slice_from_text(misc_missing[i].path))) {
            feature = misc_missing[i].feature;
            break;
        }
    }
    http_reply_error(request, 501, "%s: not supported by Proconsul, see docs/compatibility.md",
                     feature);
}

enum {
    GET = HTTP_METHOD_GET,
    PUT = HTTP_METHOD_PUT,
    POST = HTTP_METHOD_POST,
    ANY_ONE = HTTP_METHOD_GET | HTTP_METHOD_PUT | HTTP_METHOD_DELETE,
};

#define MISSING(path)                                                                              \
    {                                                                                              \
        (path), GET | PUT | POST | HTTP_METHOD_DELETE, "OPTIONS,GET,PUT,POST,DELETE",              \
            misc_not_supported                                                                     \
    }

const struct http_route http_routes_misc[] = {
    {"/v1/acl/bootstrap", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/create", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/update", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/destroy/", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/info/", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/clone/", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/list", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/login", POST, "OPTIONS,POST", misc_acl_disabled},
    {"/v1/acl/logout", POST, "OPTIONS,POST", misc_acl_disabled},
    {"/v1/acl/replication", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/policies", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/policy", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/policy/", ANY_ONE, "OPTIONS,GET,PUT,DELETE", misc_acl_disabled},
    {"/v1/acl/roles", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/role", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/role/name/", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/role/", ANY_ONE, "OPTIONS,GET,PUT,DELETE", misc_acl_disabled},
    {"/v1/acl/binding-rules", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/binding-rule", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/binding-rule/", ANY_ONE, "OPTIONS,GET,PUT,DELETE", misc_acl_disabled},
    {"/v1/acl/auth-methods", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/auth-method", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/auth-method/", ANY_ONE, "OPTIONS,GET,PUT,DELETE", misc_acl_disabled},
    {"/v1/acl/tokens", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/token", PUT, "OPTIONS,PUT", misc_acl_disabled},
    {"/v1/acl/token/self", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/acl/token/", ANY_ONE, "OPTIONS,GET,PUT,DELETE", misc_acl_disabled},
    {"/v1/acl/rules/translate", POST, "OPTIONS,POST", misc_acl_disabled},
    {"/v1/acl/rules/translate/", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/debug/pprof/", GET, "OPTIONS,GET", misc_acl_disabled},
    {"/v1/query", GET | POST, "OPTIONS,GET,POST", query_list_or_create},
    {"/v1/query/", ANY_ONE, "OPTIONS,GET,PUT,DELETE", query_one},
    MISSING("/v1/connect/ca/roots"),
    MISSING("/v1/connect/ca/configuration"),
    MISSING("/v1/connect/intentions"),
    MISSING("/v1/connect/intentions/"),
    MISSING("/v1/config"),
    MISSING("/v1/config/"),
    MISSING("/v1/discovery-chain/"),
    MISSING("/v1/catalog/gateway-services/"),
    MISSING("/v1/exported-services"),
    MISSING("/v1/imported-services"),
    MISSING("/v1/peering"),
    MISSING("/v1/peering/"),
    MISSING("/v1/peerings"),
    MISSING("/v1/internal/ui/"),
    MISSING("/v1/internal/service-virtual-ip"),
    MISSING("/v1/operator/area"),
    MISSING("/v1/operator/area/"),
    MISSING("/v1/operator/license"),
    MISSING("/v1/operator/segment"),
    MISSING("/v1/namespaces"),
    MISSING("/v1/namespace"),
    MISSING("/v1/namespace/"),
    MISSING("/v1/partitions"),
    MISSING("/v1/partition"),
    MISSING("/v1/partition/"),
    {NULL, 0, NULL, NULL},
};
