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

static int catalog_nodes_index(struct http_request *request, struct store_txn *txn, uint64_t *index)
{
    (void)request;
    return catalog_index_nodes(txn, index);
}

static int catalog_nodes_scan(struct http_request *request, struct store_txn *txn,
                              struct catalog_scan *scan)
{
    (void)request;
    return catalog_nodes_begin(scan, txn);
}

static int catalog_put_node(struct listing *listing)
{
    struct catalog_node node;
    const int rc = catalog_nodes_next(&listing->scan, &node);

    if (rc != STORE_OK || !catalog_json_meta_matches(listing->request, node.meta)) {
        return rc;
    }
    listing_open(listing);
    catalog_json_node(listing->out, &node, catalog_datacenter(listing->request));
    listing_close(listing, node.name);
    return STORE_OK;
}

static int catalog_piece_nodes(struct http_request *request, struct store_txn *txn,
                               struct http_piece *piece)
{
    static const struct listing_source source = {
        .index = catalog_nodes_index, .begin = catalog_nodes_scan, .put = catalog_put_node};

    return listing_piece(request, txn, piece, &source);
}

static void catalog_nodes(struct http_request *request)
{
    struct http_read_spec spec = {.flags = CATALOG_FLAGS, .piece = catalog_piece_nodes};

    if (!http_check_common(request, CATALOG_FLAGS) ||
        !catalog_json_filter_begin(request, FILTER_NODE, true)) {
        return;
    }
    listing_watch(&spec, STORE_TOPIC_NODE);
    http_read_start(request, &spec);
}

/* --- one node and its services --- */

/* Of all nodes and services, whichever changed last: both views of a node show both. */
static int catalog_node_index(struct http_request *request, struct store_txn *txn, uint64_t *index)
{
    uint64_t nodes_index;
    int rc = catalog_index_nodes(txn, &nodes_index);

    (void)request;
    if (rc == STORE_OK) {
        rc = catalog_index_services(txn, index);
    }
    if (rc == STORE_OK && nodes_index > *index) {
        *index = nodes_index;
    }
    return rc;
}

/* The request names the node, or the start of its id. */
static int catalog_node_scan(struct http_request *request, struct store_txn *txn,
                             struct catalog_scan *scan)
{
    struct catalog_node node;
    const int rc = catalog_node_find(txn, request->rest, &node);

    /* It was there when the first piece was read: one snapshot. */
    return rc == STORE_OK ? catalog_services_begin(scan, txn, node.name)
                          : (rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc);
}

static int catalog_put_service(struct listing *listing)
{
    struct catalog_service service;
    const int rc = catalog_services_next(&listing->scan, &service);

    if (rc == STORE_OK) {
        listing_open(listing);
        catalog_json_service(listing->out, &service);
        listing_close(listing, service.node);
    }
    return rc;
}

static int catalog_put_service_by_id(struct listing *listing)
{
    struct catalog_service service;
    const int rc = catalog_services_next(&listing->scan, &service);

    if (rc == STORE_OK) {
        listing_open_member(listing, service.id);
        catalog_json_service(listing->out, &service);
        listing_close(listing, service.node);
    }
    return rc;
}

/* A node and what `source` lists of it; `nothing` when there is no such node. */
static int catalog_piece_of_node(struct http_request *request, struct store_txn *txn,
                                 struct http_piece *piece, const struct listing_source *source,
                                 const char *nothing)
{
    struct catalog_node node;
    int rc;

    if (!piece->indexed) {
        rc = catalog_node_find(txn, request->rest, &node);
        if (rc == STORE_ENOTFOUND) {
            piece->indexed = true; /* 0: Consul's is 1, whatever happened to other nodes. */
            piece->done = true;
            buffer_append_text(piece->out, nothing);
            return STORE_OK;
        }
        if (rc != STORE_OK) {
            return rc;
        }
        buffer_append_text(piece->out, "{\"Node\":");
        catalog_json_node(piece->out, &node, catalog_datacenter(request));
        catalog_json_key(piece->out, "Services");
    }
    rc = listing_piece(request, txn, piece, source);
    if (rc == STORE_OK && piece->done) {
        buffer_append_char(piece->out, '}');
    }
    return rc;
}

static int catalog_piece_node(struct http_request *request, struct store_txn *txn,
                              struct http_piece *piece)
{
    static const struct listing_source source = {.index = catalog_node_index,
                                                 .begin = catalog_node_scan,
                                                 .put = catalog_put_service_by_id,
                                                 .by_name = true,
                                                 .fixed = true};

    return catalog_piece_of_node(request, txn, piece, &source, "null");
}

static int catalog_piece_node_services(struct http_request *request, struct store_txn *txn,
                                       struct http_piece *piece)
{
    static const struct listing_source source = {.index = catalog_node_index,
                                                 .begin = catalog_node_scan,
                                                 .put = catalog_put_service,
                                                 .null = true,
                                                 .fixed = true};

    return catalog_piece_of_node(request, txn, piece, &source, "{\"Node\":null,\"Services\":null}");
}

static void catalog_start_node(struct http_request *request,
                               int (*piece)(struct http_request *request, struct store_txn *txn,
                                            struct http_piece *piece))
{
    struct http_read_spec spec = {.flags = CATALOG_FLAGS, .piece = piece};

    if (!http_check_named(request, CATALOG_FLAGS, "Missing node name")) {
        return;
    }
    if (!catalog_json_filter_begin(request, FILTER_NODE_SERVICE, true)) {
        return;
    }
    listing_watch(&spec, STORE_TOPIC_NODE);
    listing_watch(&spec, STORE_TOPIC_SERVICES);
    http_read_start(request, &spec);
}

static void catalog_node(struct http_request *request)
{
    catalog_start_node(request, catalog_piece_node);
}

static void catalog_node_services(struct http_request *request)
{
    catalog_start_node(request, catalog_piece_node_services);
}

/* --- services --- */

/* The names of all services that were found, each with its tags, and the order they come in. */
struct catalog_names {
    json_t *tags; /* by name: an object whose members are the tags */
    struct listing_order *order;
    bool complete;
    size_t bytes; /* about */
};

enum { CATALOG_NAME_COST_BYTES = 256 }; /* what a name or a tag takes beside its text, about */

static void catalog_names_free(void *state)
{
    struct catalog_names *names = state;

    json_decref(names->tags);
    listing_order_free(names->order);
    free(names);
}

/* NULL without memory. */
static struct catalog_names *catalog_names_of(struct http_piece *piece)
{
    if (piece->state == NULL) {
        struct catalog_names *names = calloc(1, sizeof(*names));

        if (names == NULL) {
            return NULL;
        }
        names->tags = json_object();
        names->order = listing_order_new();
        piece->state = names;
        piece->on_free = catalog_names_free;
    }
    struct catalog_names *names = piece->state;

    return names->tags == NULL || names->order == NULL ? NULL : names;
}

/* Adds a service's tags, each once, to the set under its name. */
static int catalog_collect_service(struct catalog_names *names,
                                   const struct catalog_service *service)
{
    const struct slice name = service->name;
    json_t *tags = json_object_getn(names->tags, name.data, name.size);

    if (tags == NULL) {
        tags = json_object();
        if (json_object_setn_new_nocheck(names->tags, name.data, name.size, tags) != 0 ||
            listing_order_add(names->order, 0, name) != STORE_OK) {
            return STORE_ENOMEM;
        }
        names->bytes += CATALOG_NAME_COST_BYTES + name.size;
    }
    struct reader it = strings_begin(service->tags);
    struct slice tag;
    while (strings_next(&it, &tag)) {
        if (json_object_getn(tags, tag.data, tag.size) != NULL) {
            continue;
        }
        if (json_object_setn_new_nocheck(tags, tag.data, tag.size, json_true()) != 0) {
            return STORE_ENOMEM;
        }
        names->bytes += CATALOG_NAME_COST_BYTES + tag.size;
    }
    return names->bytes > LISTING_ORDER_BYTES_MAX ? STORE_ENOMEM : STORE_OK;
}

static int catalog_compare_tags(const void *left, const void *right)
{
    const struct slice *a = left;
    const struct slice *b = right;

    return slice_compare(*a, *b);
}

static void catalog_put_name(struct buffer *out, struct slice name, json_t *tags)
{
    struct slice *sorted = calloc(json_object_size(tags) + 1, sizeof(*sorted));
    size_t count = 0;

    if (sorted == NULL) {
        out->failed = true;
        return;
    }
    for (void *it = json_object_iter(tags); it != NULL; it = json_object_iter_next(tags, it)) {
        /* With its length: a tag may have a NUL. */
        sorted[count++] = slice_from(json_object_iter_key(it), json_object_iter_key_len(it));
    }
    qsort(sorted, count, sizeof(*sorted), catalog_compare_tags);
    json_put_string(out, name);
    buffer_append_text(out, ":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            buffer_append_char(out, ',');
        }
        json_put_string(out, sorted[i]);
    }
    buffer_append_char(out, ']');
    free(sorted);
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

/* Collects until the piece is full, or all is there. */
static int catalog_collect_names(struct listing *listing, struct catalog_names *names)
{
    struct http_request *request = listing->request;
    const bool by_meta = http_has_param(request, "node-meta");
    struct catalog_service service;
    struct catalog_node node;
    int rc = listing_resume(listing->piece, &listing->scan);

    while (rc == STORE_OK && (rc = catalog_services_next(&listing->scan, &service)) == STORE_OK) {
        const bool meta_matches =
            !by_meta || (catalog_node_get(listing->txn, service.node, &node) == STORE_OK &&
                         catalog_json_meta_matches(request, node.meta));

        if (meta_matches &&
            catalog_filter_takes(request, listing->txn, &service, &listing->scratch)) {
            rc = catalog_collect_service(names, &service);
        }
        if (rc == STORE_OK && listing_full(listing)) {
            return listing_pause(listing->piece, listing->scan.key);
        }
    }
    names->complete = rc == STORE_ENOTFOUND;
    return names->complete ? STORE_OK : rc;
}

static void catalog_list_names(struct listing *listing, struct catalog_names *names)
{
    struct http_piece *piece = listing->piece;
    struct slice name;

    while (listing_order_next(names->order, &name)) {
        buffer_append_char(piece->out, piece->begun ? ',' : '{');
        piece->begun = true;
        catalog_put_name(piece->out, name, json_object_getn(names->tags, name.data, name.size));
        if (listing_full(listing)) {
            return;
        }
    }
    buffer_append_text(piece->out, piece->begun ? "}" : "{}");
    piece->done = true;
}

static int catalog_services_index(struct http_request *request, struct store_txn *txn,
                                  uint64_t *index)
{
    return http_has_param(request, "node-meta") ? catalog_node_index(request, txn, index)
                                                : catalog_index_services(txn, index);
}

static int catalog_piece_services(struct http_request *request, struct store_txn *txn,
                                  struct http_piece *piece)
{
    struct listing listing = {.request = request, .txn = txn, .piece = piece, .out = piece->out};
    struct catalog_names *names;
    int rc;

    if (listing_is_waited_for(request, txn, piece, catalog_services_index, &rc)) {
        return rc;
    }
    names = catalog_names_of(piece);
    if (names == NULL) {
        return STORE_ENOMEM;
    }
    listing.began_bytes = piece->out->size;
    if (names->complete) {
        catalog_list_names(&listing, names);
        return STORE_OK;
    }
    rc = catalog_services_begin(&listing.scan, txn, SLICE_EMPTY);
    if (rc == STORE_OK) {
        rc = catalog_collect_names(&listing, names);
        catalog_scan_end(&listing.scan);
    }
    buffer_deinit(&listing.scratch);
    if (rc == STORE_OK && names->complete) {
        catalog_list_names(&listing, names);
    }
    return rc;
}

static void catalog_services(struct http_request *request)
{
    struct http_read_spec spec = {.flags = CATALOG_FLAGS | HTTP_READ_CACHEABLE,
                                  .piece = catalog_piece_services};

    /* 1.8 ignores the filter here; later releases do not. */
    if (!http_check_common(request, CATALOG_FLAGS) ||
        !catalog_json_filter_begin(request, FILTER_INSTANCE, true)) {
        return;
    }
    listing_watch(&spec, STORE_TOPIC_SERVICES);
    if (http_has_param(request, "node-meta")) {
        listing_watch(&spec, STORE_TOPIC_NODE);
    }
    http_read_start(request, &spec);
}

/* --- one service --- */

static int catalog_put_instance(struct listing *listing)
{
    struct catalog_service service;
    struct catalog_node node;
    bool wanted;
    const int rc = listing_instance_next(listing, &service, &node, &wanted);

    if (rc == STORE_OK && wanted) {
        listing_open(listing);
        catalog_json_instance(listing->out, &node, &service, catalog_datacenter(listing->request));
        listing_close(listing, node.name);
    }
    return rc;
}

static int catalog_piece_service(struct http_request *request, struct store_txn *txn,
                                 struct http_piece *piece)
{
    static const struct listing_source source = {.index = listing_instances_index,
                                                 .begin = listing_instances_begin,
                                                 .put = catalog_put_instance};

    return listing_piece(request, txn, piece, &source);
}

static void catalog_service(struct http_request *request)
{
    if (http_check_named(request, CATALOG_FLAGS, "Missing service name") &&
        catalog_json_filter_begin(request, FILTER_INSTANCE, true)) {
        listing_start_service(request, CATALOG_FLAGS, catalog_piece_service);
    }
}

static void catalog_connect(struct http_request *request)
{
    if (http_check_named(request, CATALOG_FLAGS, "Missing service name") &&
        catalog_json_filter_begin(request, FILTER_INSTANCE, true)) {
        listing_start_none(request, CATALOG_FLAGS, true);
    }
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
