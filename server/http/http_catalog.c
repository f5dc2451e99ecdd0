/* /v1/catalog/...: reading the catalog. Writing is in http_catalog_write.c. */

#include <stdlib.h>
#include <string.h>

#include "server/catalog/catalog.h"
#include "server/http/catalog_json.h"
#include "server/http/http_catalog.h"
#include "server/http/http_internal.h"
#include "server/http/listing.h"
#include "server/server.h"

enum {
    CATALOG_FLAGS = HTTP_READ_INDEX_HEADERS | HTTP_READ_EFFECTIVE | HTTP_READ_ERROR_HEADERS,
};

static const char *catalog_datacenter(const struct http_request *request)
{
    return request->server->config->datacenter;
}

static void catalog_datacenters(struct http_request *request)
{
    struct buffer body = {0};

    if (!http_parse_freshness(request)) {
        return;
    }
    if (http_has_param(request, "cached")) {
        http_read_cache_header(request);
    }
    buffer_append_char(&body, '[');
    json_put_string(&body, slice_from_text(catalog_datacenter(request)));
    buffer_append_char(&body, ']');
    http_reply_json(request, buffer_slice(&body));
    buffer_deinit(&body);
}

/* --- nodes --- */

static int catalog_run_nodes(struct http_request *request, struct store_txn *txn,
                             struct http_read_result *result)
{
    struct listing listing;
    struct catalog_scan scan;
    struct catalog_node node;

    int rc = catalog_index_nodes(txn, &result->index);
    if (rc == STORE_OK) {
        rc = catalog_nodes_begin(&scan, txn);
    }
    if (rc != STORE_OK) {
        return rc;
    }
    listing_begin(&listing, request, txn, &result->body);
    while ((rc = catalog_nodes_next(&scan, &node)) == STORE_OK) {
        if (!catalog_json_meta_matches(request, node.meta)) {
            continue;
        }
        listing_open(&listing);
        catalog_json_node(&result->body, &node, catalog_datacenter(request));
        listing_close(&listing, node.name);
    }
    catalog_scan_end(&scan);
    return listing_end(&listing, rc);
}

static void catalog_nodes(struct http_request *request)
{
    struct http_read_spec spec = {
        .flags = CATALOG_FLAGS, .watch_count = 1, .run = catalog_run_nodes};

    if (!http_check_common(request, CATALOG_FLAGS) ||
        !catalog_json_filter_begin(request, FILTER_NODE, true)) {
        return;
    }
    spec.watches[0].topic = STORE_TOPIC_NODE;
    spec.watches[0].key = SLICE_EMPTY;
    http_read_start(request, &spec);
}

/* --- one node and its services --- */

/* What both views of a node share: the services, as an object by id or as a list. */
static int catalog_put_node_services(struct http_request *request, struct store_txn *txn,
                                     struct buffer *out, struct slice name, bool as_list)
{
    struct catalog_scan scan;
    struct catalog_service service;

    int rc = catalog_services_begin(&scan, txn, name);
    if (rc != STORE_OK) {
        return rc;
    }
    buffer_append_char(out, as_list ? '[' : '{');
    const size_t list = out->size;
    while ((rc = catalog_services_next(&scan, &service)) == STORE_OK) {
        const size_t start = catalog_json_next(out);
        if (!as_list) {
            json_put_string(out, service.id);
            buffer_append_char(out, ':');
        }
        const size_t object = out->size;
        catalog_json_service(out, &service);
        catalog_json_filter_from(request, out, start, object);
    }
    catalog_scan_end(&scan);
    if (as_list && out->size == list && http_param_value(request, "filter").size == 0) {
        out->size--;
        buffer_append_text(out, "null"); /* Go's nil: what there was nothing to put into. */
    } else {
        buffer_append_char(out, as_list ? ']' : '}');
    }
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

static int catalog_run_node_view(struct http_request *request, struct store_txn *txn,
                                 struct http_read_result *result, bool as_list)
{
    struct catalog_node node;
    uint64_t nodes_index, services_index;

    result->status = 200;
    int rc = catalog_node_get(txn, request->rest, &node);
    if (rc == STORE_ENOTFOUND) {
        result->index = 0; /* Consul's: 1, whatever happened to other nodes. */
        buffer_append_text(&result->body, as_list ? "{\"Node\":null,\"Services\":null}" : "null");
        return STORE_OK;
    }
    if (rc != STORE_OK || (rc = catalog_index_nodes(txn, &nodes_index)) != STORE_OK ||
        (rc = catalog_index_services(txn, &services_index)) != STORE_OK) {
        return rc;
    }
    result->index = nodes_index > services_index ? nodes_index : services_index;
    buffer_append_text(&result->body, "{\"Node\":");
    catalog_json_node(&result->body, &node, catalog_datacenter(request));
    catalog_json_key(&result->body, "Services");
    rc = catalog_put_node_services(request, txn, &result->body, node.name, as_list);
    buffer_append_char(&result->body, '}');
    return rc;
}

static int catalog_run_node(struct http_request *request, struct store_txn *txn,
                            struct http_read_result *result)
{
    return catalog_run_node_view(request, txn, result, false);
}

static int catalog_run_node_services(struct http_request *request, struct store_txn *txn,
                                     struct http_read_result *result)
{
    return catalog_run_node_view(request, txn, result, true);
}

static void catalog_start_node(struct http_request *request,
                               int (*run)(struct http_request *request, struct store_txn *txn,
                                          struct http_read_result *result))
{
    struct http_read_spec spec = {.flags = CATALOG_FLAGS, .watch_count = 2, .run = run};

    if (!http_check_named(request, CATALOG_FLAGS, "Missing node name")) {
        return;
    }
    if (!catalog_json_filter_begin(request, FILTER_NODE_SERVICE, true)) {
        return;
    }
    spec.watches[0].topic = STORE_TOPIC_NODE;
    spec.watches[0].key = SLICE_EMPTY;
    spec.watches[1].topic = STORE_TOPIC_SERVICES;
    spec.watches[1].key = SLICE_EMPTY;
    http_read_start(request, &spec);
}

static void catalog_node(struct http_request *request)
{
    catalog_start_node(request, catalog_run_node);
}

static void catalog_node_services(struct http_request *request)
{
    catalog_start_node(request, catalog_run_node_services);
}

/* --- services --- */

/* Adds a service's tags, each once, to the set under its name. */
static bool catalog_collect_service(json_t *names, const struct catalog_service *service)
{
    json_t *tags = json_object_getn(names, service->name.data, service->name.size);

    if (tags == NULL) {
        tags = json_object();
        if (json_object_setn_new_nocheck(names, service->name.data, service->name.size, tags) !=
            0) {
            return false;
        }
    }
    struct reader it = strings_begin(service->tags);
    struct slice tag;
    while (strings_next(&it, &tag)) {
        if (json_object_setn_new_nocheck(tags, tag.data, tag.size, json_true()) != 0) {
            return false;
        }
    }
    return true;
}

static void catalog_put_service_names(struct buffer *out, const json_t *names)
{
    size_t name_count;
    const char **keys = catalog_json_sorted_keys(names, &name_count);

    buffer_append_char(out, '{');
    for (size_t i = 0; i < name_count; i++) {
        size_t tag_count;
        const char **tags = catalog_json_sorted_keys(json_object_get(names, keys[i]), &tag_count);
        if (i > 0) {
            buffer_append_char(out, ',');
        }
        json_put_string(out, slice_from_text(keys[i]));
        buffer_append_text(out, ":[");
        for (size_t t = 0; t < tag_count; t++) {
            if (t > 0) {
                buffer_append_char(out, ',');
            }
            json_put_string(out, slice_from_text(tags[t]));
        }
        buffer_append_char(out, ']');
        free(tags);
    }
    buffer_append_char(out, '}');
    free(keys);
}

/* Whether the filter takes the instance; its node counts too. */
static bool catalog_filter_takes(struct http_request *request, struct store_txn *txn,
                                 const struct catalog_service *service, struct buffer *scratch)
{
    struct catalog_node node;

    if (request->private->filter == NULL) {
        return true;
    }
    if (catalog_node_get(txn, service->node, &node) != STORE_OK) {
        return false;
    }
    buffer_clear(scratch);
    catalog_json_instance(scratch, &node, service, catalog_datacenter(request));
    catalog_json_filter_from(request, scratch, 0, 0);
    return scratch->size > 0;
}

static int catalog_run_services(struct http_request *request, struct store_txn *txn,
                                struct http_read_result *result)
{
    const bool by_meta = http_has_param(request, "node-meta");
    struct catalog_scan scan;
    struct catalog_service service;
    struct catalog_node node;
    struct buffer scratch = {0};
    json_t *names = json_object();
    bool collected = names != NULL;

    int rc = catalog_index_services(txn, &result->index);
    if (rc == STORE_OK && by_meta) {
        uint64_t nodes_index;
        rc = catalog_index_nodes(txn, &nodes_index);
        result->index = nodes_index > result->index ? nodes_index : result->index;
    }
    if (rc == STORE_OK) {
        rc = catalog_services_begin(&scan, txn, SLICE_EMPTY);
    }
    if (rc != STORE_OK) {
        json_decref(names);
        return rc;
    }
    while (collected && (rc = catalog_services_next(&scan, &service)) == STORE_OK) {
        if (by_meta && (catalog_node_get(txn, service.node, &node) != STORE_OK ||
                        !catalog_json_meta_matches(request, node.meta))) {
            continue;
        }
        if (catalog_filter_takes(request, txn, &service, &scratch)) {
            collected = catalog_collect_service(names, &service);
        }
    }
    catalog_scan_end(&scan);
    buffer_deinit(&scratch);
    catalog_put_service_names(&result->body, names);
    json_decref(names);
    result->status = 200;
    return !collected ? STORE_ENOMEM : rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

static void catalog_services(struct http_request *request)
{
    struct http_read_spec spec = {.flags = CATALOG_FLAGS | HTTP_READ_CACHEABLE,
                                  .watch_count = 1,
                                  .run = catalog_run_services};

    /* 1.8 ignores the filter here; later releases do not. */
    if (!http_check_common(request, CATALOG_FLAGS) ||
        !catalog_json_filter_begin(request, FILTER_INSTANCE, true)) {
        return;
    }
    spec.watches[0].topic = STORE_TOPIC_SERVICES;
    spec.watches[0].key = SLICE_EMPTY;
    if (http_has_param(request, "node-meta")) {
        spec.watches[1].topic = STORE_TOPIC_NODE;
        spec.watches[1].key = SLICE_EMPTY;
        spec.watch_count = 2;
    }
    http_read_start(request, &spec);
}

/* --- one service --- */

static void catalog_on_free(struct http_request *request)
{
    struct buffer *key = request->state;

    buffer_deinit(key);
    free(key);
}

static int catalog_run_service(struct http_request *request, struct store_txn *txn,
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
        listing_open(&listing);
        catalog_json_instance(&result->body, &node, &service, catalog_datacenter(request));
        listing_close(&listing, node.name);
    }
    catalog_scan_end(&scan);
    return listing_end(&listing, rc);
}

static void catalog_service(struct http_request *request)
{
    struct http_read_spec spec = {
        .flags = CATALOG_FLAGS | HTTP_READ_CACHEABLE, .watch_count = 1, .run = catalog_run_service};

    if (!http_check_named(request, CATALOG_FLAGS, "Missing service name")) {
        return;
    }
    if (!catalog_json_filter_begin(request, FILTER_INSTANCE, true)) {
        return;
    }
    struct buffer *key = calloc(1, sizeof(*key));
    if (key == NULL) {
        http_reply_error(request, 500, "out of memory");
        return;
    }
    request->state = key;
    request->on_free = catalog_on_free;
    for (size_t i = 0; i < request->rest.size; i++) {
        buffer_append_char(key, slice_lower(request->rest.data[i]));
    }
    spec.watches[0].topic = STORE_TOPIC_SERVICE;
    spec.watches[0].key = buffer_slice(key);
    http_read_start(request, &spec);
}

/* Connect-capable instances: there are none without Connect. */
static int catalog_run_connect(struct http_request *request, struct store_txn *txn,
                               struct http_read_result *result)
{
    (void)request;
    buffer_append_text(&result->body, "[]");
    result->status = 200;
    return catalog_index_services(txn, &result->index);
}

static void catalog_connect(struct http_request *request)
{
    struct http_read_spec spec = {
        .flags = CATALOG_FLAGS | HTTP_READ_CACHEABLE, .watch_count = 1, .run = catalog_run_connect};

    if (!http_check_named(request, CATALOG_FLAGS, "Missing service name")) {
        return;
    }
    if (!catalog_json_filter_begin(request, FILTER_INSTANCE, true)) {
        return;
    }
    spec.watches[0].topic = STORE_TOPIC_SERVICES;
    spec.watches[0].key = SLICE_EMPTY;
    http_read_start(request, &spec);
}

const struct http_route http_routes_catalog[] = {
    {"/v1/catalog/datacenters", HTTP_METHOD_GET, "OPTIONS,GET", catalog_datacenters},
    {"/v1/catalog/nodes", HTTP_METHOD_GET, "OPTIONS,GET", catalog_nodes},
    {"/v1/catalog/services", HTTP_METHOD_GET, "OPTIONS,GET", catalog_services},
    {"/v1/catalog/service/", HTTP_METHOD_GET, "OPTIONS,GET", catalog_service},
    {"/v1/catalog/connect/", HTTP_METHOD_GET, "OPTIONS,GET", catalog_connect},
    {"/v1/catalog/node/", HTTP_METHOD_GET, "OPTIONS,GET", catalog_node},
    {"/v1/catalog/node-services/", HTTP_METHOD_GET, "OPTIONS,GET", catalog_node_services},
    {"/v1/catalog/register", HTTP_METHOD_PUT, "OPTIONS,PUT", http_catalog_register},
    {"/v1/catalog/deregister", HTTP_METHOD_PUT, "OPTIONS,PUT", http_catalog_deregister},
    {NULL, 0, NULL, NULL},
};
