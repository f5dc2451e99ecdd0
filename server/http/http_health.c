/* /v1/health/...: checks and services with their checks, from the local store. */

#include <stdlib.h>
#include <string.h>

#include "server/catalog/catalog.h"
#include "server/http/catalog_json.h"
#include "server/http/http_internal.h"
#include "server/http/listing.h"
#include "server/server.h"

enum {
    HEALTH_FLAGS = HTTP_READ_INDEX_HEADERS | HTTP_READ_EFFECTIVE | HTTP_READ_ERROR_HEADERS,
};

/* What a handler keeps for its runs. */
struct health_request {
    struct buffer topic_key; /* the service's name in lower case */
    bool passing;
};

static void health_on_free(struct http_request *request)
{
    struct health_request *state = request->state;

    buffer_deinit(&state->topic_key);
    free(state);
}

/* Answers 500 and returns NULL without memory. */
static struct health_request *health_state(struct http_request *request)
{
    struct health_request *state = calloc(1, sizeof(*state));

    if (state == NULL) {
        http_reply_error(request, 500, "out of memory");
        return NULL;
    }
    request->state = state;
    request->on_free = health_on_free;
    for (size_t i = 0; i < request->rest.size; i++) {
        buffer_append_char(&state->topic_key, slice_lower(request->rest.data[i]));
    }
    return state;
}

/* --- lists of checks --- */

static bool health_check_has_state(const struct catalog_check *check, struct slice state)
{
    return slice_equal(state, SLICE_LITERAL("any")) || slice_equal(state, check->status);
}

static void health_node(struct http_request *request);

/* node-meta is a question about the check's node; not where that node is named anyway. */
static bool health_check_meta_matches(const struct http_request *request, struct store_txn *txn,
                                      const struct catalog_check *check)
{
    struct catalog_node node;

    if (!http_has_param(request, "node-meta") || request->private->route->handler == health_node) {
        return true;
    }
    return catalog_node_get(txn, check->node, &node) == STORE_OK &&
           catalog_json_meta_matches(request, node.meta);
}

/* Lists the checks of `node` (empty: of all) that `wanted` takes. */
static int health_run_checks(struct http_request *request, struct store_txn *txn,
                             struct http_read_result *result, struct slice node,
                             bool (*wanted)(const struct http_request *request,
                                            const struct catalog_check *check))
{
    struct listing listing;
    struct catalog_scan scan;
    struct catalog_check check;

    int rc = catalog_index_checks(txn, &result->index);
    if (rc == STORE_OK) {
        rc = catalog_checks_begin(&scan, txn, node);
    }
    if (rc != STORE_OK) {
        return rc;
    }
    listing_begin(&listing, request, txn, &result->body);
    while ((rc = catalog_checks_next(&scan, &check)) == STORE_OK) {
        if (wanted(request, &check) && health_check_meta_matches(request, txn, &check)) {
            listing_open(&listing);
            catalog_json_check(&result->body, &check);
            listing_close(&listing, check.node);
        }
    }
    catalog_scan_end(&scan);
    return listing_end(&listing, rc);
}

static bool health_wants_node(const struct http_request *request, const struct catalog_check *check)
{
    return slice_equal_nocase(check->node, request->rest);
}

static bool health_wants_state(const struct http_request *request,
                               const struct catalog_check *check)
{
    return health_check_has_state(check, request->rest);
}

static bool health_wants_service(const struct http_request *request,
                                 const struct catalog_check *check)
{
    return check->service_id.size > 0 && slice_equal_nocase(check->service_name, request->rest);
}

static int health_run_node(struct http_request *request, struct store_txn *txn,
                           struct http_read_result *result)
{
    return health_run_checks(request, txn, result, request->rest, health_wants_node);
}

static int health_run_state(struct http_request *request, struct store_txn *txn,
                            struct http_read_result *result)
{
    return health_run_checks(request, txn, result, SLICE_EMPTY, health_wants_state);
}

static int health_run_service_checks(struct http_request *request, struct store_txn *txn,
                                     struct http_read_result *result)
{
    return health_run_checks(request, txn, result, SLICE_EMPTY, health_wants_service);
}

static void health_start_checks(struct http_request *request, const char *missing,
                                int (*run)(struct http_request *request, struct store_txn *txn,
                                           struct http_read_result *result))
{
    struct http_read_spec spec = {.flags = HEALTH_FLAGS, .watch_count = 1, .run = run};

    if (!http_check_named(request, HEALTH_FLAGS, missing)) {
        return;
    }
    if (!catalog_json_filter_begin(request, FILTER_CHECK, true)) {
        return;
    }
    spec.watches[0].topic = STORE_TOPIC_CHECK;
    spec.watches[0].key = SLICE_EMPTY;
    if (http_has_param(request, "node-meta")) {
        spec.watches[1].topic = STORE_TOPIC_NODE;
        spec.watches[1].key = SLICE_EMPTY;
        spec.watch_count = 2;
    }
    http_read_start(request, &spec);
}

static void health_node(struct http_request *request)
{
    health_start_checks(request, "Missing node name", health_run_node);
}

static void health_state_checks(struct http_request *request)
{
    health_start_checks(request, "Missing check state", health_run_state);
}

static void health_service_checks(struct http_request *request)
{
    health_start_checks(request, "Missing service name", health_run_service_checks);
}

/* --- services with their checks --- */

/* The node's own checks first, then the service's; each in order of id (as Consul lists them). */
static int health_put_checks(struct store_txn *txn, struct buffer *out,
                             const struct catalog_service *service, struct slice node,
                             bool *all_passing)
{
    *all_passing = true;
    buffer_append_char(out, '[');
    for (int own = 1; own >= 0; own--) {
        struct catalog_scan scan;
        struct catalog_check check;
        int rc = catalog_checks_begin(&scan, txn, node);
        if (rc != STORE_OK) {
            return rc;
        }
        while ((rc = catalog_checks_next(&scan, &check)) == STORE_OK) {
            const bool wanted = own == 1 ? check.service_id.size == 0
                                         : slice_equal_nocase(check.service_id, service->id);
            if (wanted) {
                *all_passing = *all_passing && catalog_check_is_passing(&check);
                (void)catalog_json_next(out);
                catalog_json_check(out, &check);
            }
        }
        catalog_scan_end(&scan);
        if (rc != STORE_ENOTFOUND) {
            return rc;
        }
    }
    buffer_append_char(out, ']');
    return STORE_OK;
}

static int health_put_instance(struct listing *listing, const struct catalog_node *node,
                               const struct catalog_service *service)
{
    const struct health_request *state = listing->request->state;
    struct buffer *out = listing->out;
    bool all_passing;

    listing_open(listing);
    buffer_append_text(out, "{\"Node\":");
    catalog_json_node(out, node, listing->request->server->config->datacenter);
    catalog_json_key(out, "Service");
    catalog_json_service(out, service);
    catalog_json_key(out, "Checks");
    const int rc = health_put_checks(listing->txn, out, service, node->name, &all_passing);
    buffer_append_char(out, '}');
    if (rc == STORE_OK && state->passing && !all_passing) {
        listing_drop(listing); /* Any check that is not passing, of node or service. */
    } else if (rc == STORE_OK) {
        listing_close(listing, node->name);
    }
    return rc;
}

static int health_run_service(struct http_request *request, struct store_txn *txn,
                              struct http_read_result *result)
{
    struct listing listing;
    struct catalog_scan scan;
    struct catalog_service service;
    struct catalog_node node;

    int rc = catalog_index_service(txn, request->rest, &result->index);
    if (rc == STORE_OK) {
        rc = catalog_instances_begin(&scan, txn, request->rest);
    }
    if (rc != STORE_OK) {
        return rc;
    }
    listing_begin(&listing, request, txn, &result->body);
    while ((rc = catalog_instances_next(&scan, &service, &node)) == STORE_OK) {
        if (!catalog_json_tags_match(request, service.tags) ||
            !catalog_json_meta_matches(request, node.meta)) {
            continue;
        }
        rc = health_put_instance(&listing, &node, &service);
        if (rc != STORE_OK) {
            break;
        }
    }
    catalog_scan_end(&scan);
    return listing_end(&listing, rc);
}

/* ?passing, ?passing= and ?passing=<Go's bool>. */
static bool health_parse_passing(const struct http_request *request, bool *passing)
{
    static const struct {
        const char *text;
        bool value;
    } words[] = {
        {"", true},       {"1", true},      {"t", true},      {"T", true},  {"true", true},
        {"TRUE", true},   {"True", true},   {"0", false},     {"f", false}, {"F", false},
        {"false", false}, {"FALSE", false}, {"False", false},
    };
    const struct http_param *param = http_param(request, "passing");

    *passing = false;
    if (param == NULL) {
        return true;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (slice_equal(param->value, slice_from_text(words[i].text))) {
            *passing = words[i].value;
            return true;
        }
    }
    return false;
}

static void health_service(struct http_request *request)
{
    struct http_read_spec spec = {
        .flags = HEALTH_FLAGS | HTTP_READ_CACHEABLE, .watch_count = 1, .run = health_run_service};

    if (!http_check_named(request, HEALTH_FLAGS, "Missing service name")) {
        return;
    }
    struct health_request *state = health_state(request);
    if (state == NULL) {
        return;
    }
    if (!catalog_json_filter_begin(request, FILTER_HEALTH, true)) {
        return;
    }
    if (!health_parse_passing(request, &state->passing)) {
        http_reply_error(request, 400, "Invalid value for ?passing");
        return;
    }
    spec.watches[0].topic = STORE_TOPIC_SERVICE;
    spec.watches[0].key = buffer_slice(&state->topic_key);
    http_read_start(request, &spec);
}

/* Connect-capable instances and ingress gateways: there are none without Connect. */
static int health_run_connect(struct http_request *request, struct store_txn *txn,
                              struct http_read_result *result)
{
    (void)request;
    buffer_append_text(&result->body, "[]");
    result->status = 200;
    return catalog_index_services(txn, &result->index);
}

static int health_run_ingress(struct http_request *request, struct store_txn *txn,
                              struct http_read_result *result)
{
    (void)request;
    (void)txn;
    buffer_append_text(&result->body, "[]");
    result->status = 200;
    result->index = 0;
    return STORE_OK;
}

static void health_start_empty(struct http_request *request,
                               int (*run)(struct http_request *request, struct store_txn *txn,
                                          struct http_read_result *result))
{
    struct http_read_spec spec = {
        .flags = HEALTH_FLAGS | HTTP_READ_CACHEABLE, .watch_count = 1, .run = run};
    bool passing;

    if (!http_check_named(request, HEALTH_FLAGS, "Missing service name")) {
        return;
    }
    if (!catalog_json_filter_begin(request, FILTER_HEALTH, true)) {
        return;
    }
    if (!health_parse_passing(request, &passing)) {
        http_reply_error(request, 400, "Invalid value for ?passing");
        return;
    }
    spec.watches[0].topic = STORE_TOPIC_SERVICES;
    spec.watches[0].key = SLICE_EMPTY;
    http_read_start(request, &spec);
}

static void health_connect(struct http_request *request)
{
    health_start_empty(request, health_run_connect);
}

static void health_ingress(struct http_request *request)
{
    health_start_empty(request, health_run_ingress);
}

const struct http_route http_routes_health[] = {
    {"/v1/health/node/", HTTP_METHOD_GET, "OPTIONS,GET", health_node},
    {"/v1/health/checks/", HTTP_METHOD_GET, "OPTIONS,GET", health_service_checks},
    {"/v1/health/state/", HTTP_METHOD_GET, "OPTIONS,GET", health_state_checks},
    {"/v1/health/service/", HTTP_METHOD_GET, "OPTIONS,GET", health_service},
    {"/v1/health/connect/", HTTP_METHOD_GET, "OPTIONS,GET", health_connect},
    {"/v1/health/ingress/", HTTP_METHOD_GET, "OPTIONS,GET", health_ingress},
    {NULL, 0, NULL, NULL},
};
