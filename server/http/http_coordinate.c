/* /v1/coordinate/...: network coordinates. Updates are gathered and go into the log together every
 * few seconds, as in Consul: what is told often and matters little must not cost a write each. */

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/catalog/catalog.h"
#include "server/catalog/coordinate.h"
#include "server/config.h"
#include "server/http/catalog_json.h"
#include "server/http/http_internal.h"
#include "server/http/json_decode.h"
#include "server/http/listing.h"
#include "server/log.h"
#include "server/server.h"

#define COORDINATE_LOG "agent.server.coordinate"

enum {
    COORDINATE_PERIOD_MS = 5000,
    COORDINATE_PENDING_MAX =
        5 * COORDINATE_BATCH_MAX, /* in a period; more is dropped, as in Consul */
};

/* Updates of this period. */
struct http_coordinates {
    struct http_server *http;
    uv_timer_t timer;
    size_t count;
    struct {
        char *node;
        size_t node_bytes;
        struct coordinate coordinate; /* `node` borrows from above */
    } pending[COORDINATE_PENDING_MAX];
};

/* --- gathering --- */

static void coordinates_on_proposed(void *context, const char *failure,
                                    const struct command_result *result)
{
    (void)context;
    (void)result;
    if (failure != NULL) {
        log_write(LOG_WARN, COORDINATE_LOG, "coordinates were not stored: %s", failure);
    }
}

static void coordinates_flush(struct http_coordinates *coordinates)
{
    struct buffer batch = {0};
    struct buffer record = {0};
    struct buffer command = {0};
    size_t at = 0;

    while (at < coordinates->count) {
        buffer_clear(&batch);
        for (size_t i = 0; i < COORDINATE_BATCH_MAX && at < coordinates->count; i++, at++) {
            buffer_clear(&record);
            coordinate_encode(&record, &coordinates->pending[at].coordinate);
            buffer_put_string(&batch, buffer_slice(&record));
            free(coordinates->pending[at].node);
        }
        buffer_clear(&command);
        command_encode_coordinates(&command, buffer_slice(&batch));
        if (!command.failed && !batch.failed && !record.failed) {
            replica_propose(coordinates->http->server->replica, buffer_slice(&command),
                            coordinates_on_proposed, NULL);
        }
    }
    coordinates->count = 0;
    buffer_deinit(&batch);
    buffer_deinit(&record);
    buffer_deinit(&command);
}

static void coordinates_on_timer(uv_timer_t *timer)
{
    coordinates_flush(timer->data);
}

static void coordinates_on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void http_coordinates_free(struct http_coordinates *coordinates)
{
    if (coordinates == NULL) {
        return;
    }
    for (size_t i = 0; i < coordinates->count; i++) {
        free(coordinates->pending[i].node);
    }
    uv_close((uv_handle_t *)&coordinates->timer, coordinates_on_closed);
}

static struct http_coordinates *coordinates_of(struct http_server *http)
{
    struct http_coordinates *coordinates = http->coordinates;

    if (coordinates == NULL) {
        coordinates = calloc(1, sizeof(*coordinates));
        if (coordinates == NULL) {
            return NULL;
        }
        coordinates->http = http;
        (void)uv_timer_init(http->loop, &coordinates->timer);
        coordinates->timer.data = coordinates;
        http->coordinates = coordinates;
    }
    return coordinates;
}

/* The last one told of a node in a period counts. */
static bool coordinates_add(struct http_server *http, const struct coordinate *told)
{
    struct http_coordinates *coordinates = coordinates_of(http);
    size_t at = 0;

    if (coordinates == NULL) {
        return false;
    }
    while (at < coordinates->count &&
           !slice_equal_nocase(coordinates->pending[at].coordinate.node, told->node)) {
        at++;
    }
    if (at == COORDINATE_PENDING_MAX) {
        log_write(LOG_WARN, COORDINATE_LOG, "too many coordinates in one period, some are dropped");
        return true;
    }
    if (at == coordinates->count) {
        char *node = malloc(told->node.size + 1);

        if (node == NULL) {
            return false;
        }
        if (told->node.size > 0) {
            memcpy(node, told->node.data, told->node.size);
        }
        coordinates->pending[at].node = node;
        coordinates->pending[at].node_bytes = told->node.size;
        coordinates->count++;
    }
    coordinates->pending[at].coordinate = *told;
    coordinates->pending[at].coordinate.node =
        slice_from(coordinates->pending[at].node, coordinates->pending[at].node_bytes);
    if (!uv_is_active((uv_handle_t *)&coordinates->timer)) {
        (void)uv_timer_start(&coordinates->timer, coordinates_on_timer, COORDINATE_PERIOD_MS, 0);
    }
    return true;
}

/* --- PUT /v1/coordinate/update --- */

struct coordinate_update {
    struct slice datacenter;
    struct slice node;
    struct slice segment;
    const json_t *coord;
};

static const struct json_field update_fields[] = {
    {"Datacenter", JSON_FIELD_STRING, offsetof(struct coordinate_update, datacenter)},
    {"Node", JSON_FIELD_STRING, offsetof(struct coordinate_update, node)},
    {"Segment", JSON_FIELD_STRING, offsetof(struct coordinate_update, segment)},
    {"Coord", JSON_FIELD_OBJECT, offsetof(struct coordinate_update, coord)},
    {"Token", JSON_FIELD_ANY, 0},
};

static bool number_read(const json_t *value, const char *name, double *out, struct errmsg *err)
{
    if (json_is_number(value)) {
        *out = json_number_value(value);
        return true;
    }
    if (json_is_null(value)) {
        return true;
    }
    (void)errmsg_set(err, -1,
                     "json: cannot unmarshal %s into Go struct field Coordinate.Coord.%s of type "
                     "float64",
                     json_go_type(value), name);
    return false;
}

static bool vec_read(const json_t *value, struct coordinate *out, size_t *count, struct errmsg *err)
{
    if (json_is_null(value)) {
        *count = 0;
        return true;
    }
    if (!json_is_array(value)) {
        (void)errmsg_set(err, -1,
                         "json: cannot unmarshal %s into Go struct field Coordinate.Coord.Vec of "
                         "type []float64",
                         json_go_type(value));
        return false;
    }
    *count = json_array_size(value);
    for (size_t i = 0; i < *count; i++) {
        double number = 0;

        if (!number_read(json_array_get(value, i), "Vec", &number, err)) {
            return false;
        }
        if (i < COORDINATE_DIMENSIONS) {
            out->vec[i] = number;
        }
    }
    return true;
}

static bool coord_read(const json_t *object, struct coordinate *out, size_t *dimensions,
                       struct errmsg *err)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        bool read;

        if (strcasecmp(name, "Vec") == 0) {
            read = vec_read(value, out, dimensions, err);
        } else if (strcasecmp(name, "Error") == 0) {
            read = number_read(value, "Error", &out->error, err);
        } else if (strcasecmp(name, "Adjustment") == 0) {
            read = number_read(value, "Adjustment", &out->adjustment, err);
        } else if (strcasecmp(name, "Height") == 0) {
            read = number_read(value, "Height", &out->height, err);
        } else {
            (void)errmsg_set(err, -1, "json: unknown field \"%s\"", name);
            read = false;
        }
        if (!read) {
            return false;
        }
    }
    return true;
}

static void update_take(struct http_request *request, const json_t *root)
{
    struct coordinate_update update = {.segment = SLICE_EMPTY};
    struct coordinate coordinate = {.node = SLICE_EMPTY};
    size_t dimensions = 0;
    struct errmsg err;

    if (!json_decode(root, "structs.CoordinateUpdateRequest", update_fields,
                     sizeof(update_fields) / sizeof(update_fields[0]), &update, &err) ||
        (update.coord != NULL && !coord_read(update.coord, &coordinate, &dimensions, &err))) {
        http_reply_error(request, 400, "Request decode failed: %s", err.text);
        return;
    }
    if (!http_check_datacenter(request, 0)) {
        return;
    }
    if (update.coord == NULL) { /* Consul drops the connection. */
        http_reply_error(request, 400, "Request decode failed: missing Coord");
        return;
    }
    coordinate.node = update.node;
    if (!coordinate_valid(&coordinate)) {
        http_reply_error(request, 500, "invalid coordinate");
    } else if (dimensions != COORDINATE_DIMENSIONS) {
        http_reply_error(request, 500, "incompatible coordinate");
    } else if (coordinate.node.size > CATALOG_NAME_BYTES_MAX) {
        http_reply_empty(request, 200); /* No node has it, and it is not kept until that shows. */
    } else if (update.segment.size == 0 && !coordinates_add(request->conn->http, &coordinate)) {
        http_reply_error(request, 500, "out of memory");
    } else {
        http_reply_empty(request, 200); /* Other segments are Enterprise's: nobody is there. */
    }
}

static void coordinate_update(struct http_request *request)
{
    json_t *root = http_body_json(request, "Request decode failed");

    if (root != NULL) {
        update_take(request, root);
        json_decref(root);
    }
}

/* --- reading --- */

static void put_coordinate(struct buffer *out, const struct coordinate *coordinate)
{
    buffer_append_text(out, "{\"Node\":");
    json_put_string(out, coordinate->node);
    buffer_append_text(out, ",\"Segment\":\"\",\"Coord\":{\"Vec\":[");
    for (size_t i = 0; i < COORDINATE_DIMENSIONS; i++) {
        if (i > 0) {
            buffer_append_char(out, ',');
        }
        json_put_double(out, coordinate->vec[i]);
    }
    buffer_append_text(out, "],\"Error\":");
    json_put_double(out, coordinate->error);
    buffer_append_text(out, ",\"Adjustment\":");
    json_put_double(out, coordinate->adjustment);
    buffer_append_text(out, ",\"Height\":");
    json_put_double(out, coordinate->height);
    buffer_append_text(out, "}}");
}

/* ?segment: all are in the empty one. Without a value that is meant. */
static bool segment_wanted(const struct http_request *request)
{
    return http_param_value(request, "segment").size == 0;
}

static int coordinate_nodes_index(struct http_request *request, struct store_txn *txn,
                                  uint64_t *index)
{
    (void)request;
    return coordinate_index(txn, index);
}

static int coordinate_nodes_begin(struct http_request *request, struct store_txn *txn,
                                  struct catalog_scan *scan)
{
    (void)request;
    return coordinates_begin(scan, txn);
}

static int coordinate_nodes_put(struct listing *listing)
{
    struct coordinate coordinate;
    const int rc = coordinates_next(&listing->scan, &coordinate);

    if (rc == STORE_OK && segment_wanted(listing->request)) {
        listing_open(listing);
        put_coordinate(listing->out, &coordinate);
        listing_close(listing, coordinate.node);
    }
    return rc;
}

static int coordinate_piece_nodes(struct http_request *request, struct store_txn *txn,
                                  struct http_piece *piece)
{
    static const struct listing_source source = {.index = coordinate_nodes_index,
                                                 .begin = coordinate_nodes_begin,
                                                 .put = coordinate_nodes_put,
                                                 .fixed = true};

    return listing_piece(request, txn, piece, &source);
}

static int coordinate_run_node(struct http_request *request, struct store_txn *txn,
                               struct http_read_result *result)
{
    struct coordinate coordinate;
    int rc = coordinate_index(txn, &result->index);

    if (rc == STORE_OK) {
        rc = coordinate_get(txn, request->rest, &coordinate);
    }
    if (rc == STORE_ENOTFOUND || (rc == STORE_OK && !segment_wanted(request))) {
        result->status = 404;
        return STORE_OK;
    }
    if (rc == STORE_OK) {
        buffer_append_char(&result->body, '[');
        put_coordinate(&result->body, &coordinate);
        buffer_append_char(&result->body, ']');
    }
    return rc;
}

static void coordinate_read(struct http_request *request, struct http_read_spec spec)
{
    spec.flags = HTTP_READ_INDEX_HEADERS | HTTP_READ_ERROR_HEADERS | HTTP_READ_BARE_404;
    listing_watch(&spec, STORE_TOPIC_COORDINATE);
    http_read_start(request, &spec);
}

static void coordinate_nodes(struct http_request *request)
{
    coordinate_read(request, (struct http_read_spec){.piece = coordinate_piece_nodes});
}

static void coordinate_node(struct http_request *request)
{
    coordinate_read(request, (struct http_read_spec){.run = coordinate_run_node});
}

/* One datacenter, seen from itself: its servers are where the measuring starts. */
static void coordinate_datacenters(struct http_request *request)
{
    const struct config *config = request->server->config;
    const struct coordinate origin = {
        .node = slice_from_text(config->node_name), .error = 1.5, .height = 0.00001};
    struct buffer body = {0};

    buffer_append_text(&body, "[{\"Datacenter\":");
    json_put_string(&body, slice_from_text(config->datacenter));
    buffer_append_text(&body, ",\"AreaID\":\"wan\",\"Coordinates\":[");
    put_coordinate(&body, &origin);
    buffer_append_text(&body, "]}]");
    http_reply_json(request, buffer_slice(&body));
    buffer_deinit(&body);
}

const struct http_route http_routes_coordinate[] = {
    {"/v1/coordinate/datacenters", HTTP_METHOD_GET, "OPTIONS,GET", coordinate_datacenters},
    {"/v1/coordinate/nodes", HTTP_METHOD_GET, "OPTIONS,GET", coordinate_nodes},
    {"/v1/coordinate/node/", HTTP_METHOD_GET, "OPTIONS,GET", coordinate_node},
    {"/v1/coordinate/update", HTTP_METHOD_PUT, "OPTIONS,PUT", coordinate_update},
    {NULL, 0, NULL, NULL},
};
