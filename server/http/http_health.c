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

static int health_checks_index(struct http_request *request, struct store_txn *txn, uint64_t *index)
{
    (void)request;
    return catalog_index_checks(txn, index);
}

static int health_node_scan(struct http_request *request, struct store_txn *txn,
                            struct catalog_scan *scan)
{
    return catalog_checks_begin(scan, txn, request->rest);
}

static int health_all_scan(struct http_request *request, struct store_txn *txn,
                           struct catalog_scan *scan)
{
    (void)request;
    return catalog_checks_begin(scan, txn, SLICE_EMPTY);
}

static int health_put_check(struct listing *listing,
                            bool (*wanted)(const struct http_request *request,
                                           const struct catalog_check *check))
{
    struct catalog_check check;
    const int rc = catalog_checks_next(&listing->scan, &check);

    if (rc == STORE_OK && wanted(listing->request, &check) &&
        health_check_meta_matches(listing->request, listing->txn, &check)) {
        listing_open(listing);
        catalog_json_check(listing->out, &check);
        listing_close(listing, check.node);
    }
    return rc;
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
    return slice_equal_nocase(check->service_name, request->rest); /* A node's may have one, too. */
}

static int health_put_of_node(struct listing *listing)
{
    return health_put_check(listing, health_wants_node);
}

static int health_put_of_state(struct listing *listing)
{
    return health_put_check(listing, health_wants_state);
}

static int health_put_of_service(struct listing *listing)
{
    return health_put_check(listing, health_wants_service);
}

static int health_piece_node(struct http_request *request, struct store_txn *txn,
                             struct http_piece *piece)
{
    static const struct listing_source source = {
        .index = health_checks_index, .begin = health_node_scan, .put = health_put_of_node};

    return listing_piece(request, txn, piece, &source);
}

static int health_piece_state(struct http_request *request, struct store_txn *txn,
                              struct http_piece *piece)
{
    static const struct listing_source source = {
        .index = health_checks_index, .begin = health_all_scan, .put = health_put_of_state};

    return listing_piece(request, txn, piece, &source);
}

static int health_piece_service_checks(struct http_request *request, struct store_txn *txn,
                                       struct http_piece *piece)
{
    static const struct listing_source source = {
        .index = health_checks_index, .begin = health_all_scan, .put = health_put_of_service};

    return listing_piece(request, txn, piece, &source);
}

static void health_start_checks(struct http_request *request, const char *missing,
                                int (*piece)(struct http_request *request, struct store_txn *txn,
                                             struct http_piece *piece))
{
    struct http_read_spec spec = {.flags = HEALTH_FLAGS, .piece = piece};

    if (!http_check_named(request, HEALTH_FLAGS, missing)) {
        return;
    }
    if (!catalog_json_filter_begin(request, FILTER_CHECK, true)) {
        return;
    }
    listing_watch(&spec, STORE_TOPIC_CHECK);
    if (http_has_param(request, "node-meta")) {
        listing_watch(&spec, STORE_TOPIC_NODE);
    }
    http_read_start(request, &spec);
}

static void health_node(struct http_request *request)
{
    health_start_checks(request, "Missing node name", health_piece_node);
}

static void health_state_checks(struct http_request *request)
{
    health_start_checks(request, "Missing check state", health_piece_state);
}

static void health_service_checks(struct http_request *request)
{
    health_start_checks(request, "Missing service name", health_piece_service_checks);
}

/* --- services with their checks --- */

/* By service, the node's own first; those of one service in order of id, as Consul lists them. */
static int health_compare_checks(const void *left, const void *right)
{
    const struct catalog_check *a = left;
    const struct catalog_check *b = right;
    const int by_service = slice_compare_nocase(a->service_id, b->service_id);

    return by_service != 0 ? by_service : slice_compare_nocase(a->id, b->id);
}

static const struct catalog_check *health_kept_checks(const struct listing *listing, size_t *count)
{
    *count = listing->scratch.size / sizeof(struct catalog_check);
    return (const struct catalog_check *)(const void *)listing->scratch.data;
}

/* Keeps the checks of the node in the scratch, sorted. Instances come by node, and one with
 * thousands of instances has thousands of checks: to look through them for each takes squares. */
static int health_keep_checks(struct listing *listing, struct slice node)
{
    struct catalog_scan scan;
    struct catalog_check check;
    int rc;

    if (listing->scratch_of.size > 0 && slice_equal(listing->scratch_of, node)) {
        return STORE_OK;
    }
    listing->scratch_of = SLICE_EMPTY;
    buffer_clear(&listing->scratch);
    rc = catalog_checks_begin(&scan, listing->txn, node);
    if (rc != STORE_OK) {
        return rc;
    }
    while ((rc = catalog_checks_next(&scan, &check)) == STORE_OK) {
        buffer_append(&listing->scratch, &check, sizeof(check));
    }
    catalog_scan_end(&scan);
    if (rc != STORE_ENOTFOUND || listing->scratch.failed) {
        return listing->scratch.failed ? STORE_ENOMEM : rc;
    }
    if (listing->scratch.size > sizeof(check)) {
        qsort(listing->scratch.data, listing->scratch.size / sizeof(check), sizeof(check),
              health_compare_checks);
    }
    listing->scratch_of = node;
    return STORE_OK;
}

/* Where the checks of a service begin among the kept ones. */
static size_t health_find_checks(const struct listing *listing, struct slice service_id)
{
    size_t end;
    const struct catalog_check *checks = health_kept_checks(listing, &end);
    size_t begin = 0;

    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;

        if (slice_compare_nocase(checks[middle].service_id, service_id) < 0) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

/* The node's own checks first, then the service's. True: all of them pass. */
static bool health_put_checks(const struct listing *listing, struct slice service_id)
{
    const struct slice owners[] = {SLICE_EMPTY, service_id};
    struct buffer *out = listing->out;
    bool all_passing = true;
    size_t count;
    const struct catalog_check *checks = health_kept_checks(listing, &count);

    buffer_append_char(out, '[');
    for (size_t i = 0; i < sizeof(owners) / sizeof(owners[0]); i++) {
        for (size_t at = health_find_checks(listing, owners[i]);
             at < count && slice_equal_nocase(checks[at].service_id, owners[i]); at++) {
            all_passing = all_passing && catalog_check_is_passing(&checks[at]);
            (void)catalog_json_next(out);
            catalog_json_check(out, &checks[at]);
        }
    }
    buffer_append_char(out, ']');
    return all_passing;
}

static bool health_parse_passing(const struct http_request *request, bool *passing);

static int health_put_instance(struct listing *listing)
{
    struct buffer *out = listing->out;
    struct catalog_service service;
    struct catalog_node node;
    bool wanted;
    bool passing;
    int rc = listing_instance_next(listing, &service, &node, &wanted);

    if (rc != STORE_OK || !wanted) {
        return rc;
    }
    rc = health_keep_checks(listing, node.name);
    if (rc != STORE_OK) {
        return rc;
    }
    listing_open(listing);
    buffer_append_text(out, "{\"Node\":");
    catalog_json_node(out, &node, listing->request->server->config->datacenter);
    catalog_json_key(out, "Service");
    catalog_json_service(out, &service);
    catalog_json_key(out, "Checks");
    const bool all_passing = health_put_checks(listing, service.id);
    buffer_append_char(out, '}');
    if (!all_passing && health_parse_passing(listing->request, &passing) && passing) {
        listing_drop(listing); /* Any check that is not passing, of node or service. */
    } else {
        listing_close(listing, node.name);
    }
    return STORE_OK;
}

static int health_piece_service(struct http_request *request, struct store_txn *txn,
                                struct http_piece *piece)
{
    static const struct listing_source source = {.index = listing_instances_index,
                                                 .begin = listing_instances_begin,
                                                 .put = health_put_instance};

    return listing_piece(request, txn, piece, &source);
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

/* What all that lists services with their checks looks at first. False: answered. */
static bool health_check_service(struct http_request *request)
{
    bool passing;

    if (!http_check_named(request, HEALTH_FLAGS, "Missing service name") ||
        !catalog_json_filter_begin(request, FILTER_HEALTH, true)) {
        return false;
    }
    if (!health_parse_passing(request, &passing)) {
        http_reply_error(request, 400, "Invalid value for ?passing");
        return false;
    }
    return true;
}

static void health_service(struct http_request *request)
{
    if (health_check_service(request)) {
        listing_start_service(request, HEALTH_FLAGS, health_piece_service);
    }
}

/* Connect-capable instances and ingress gateways: there are none without Connect. */
static void health_connect(struct http_request *request)
{
    if (health_check_service(request)) {
        listing_start_none(request, HEALTH_FLAGS, true);
    }
}

static void health_ingress(struct http_request *request)
{
    if (health_check_service(request)) {
        listing_start_none(request, HEALTH_FLAGS, false);
    }
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
