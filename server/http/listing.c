#include "server/http/listing.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "server/config.h"
#include "server/http/catalog_json.h"
#include "server/http/http_internal.h"
#include "server/server.h"

#define NS_PER_US 1000U

enum { LISTING_CLOCK_COUNT = 8 }; /* records between two looks at the clock */

/* --- orders: a heap, so that each step takes a short time --- */

struct listing_place {
    double distance;
    size_t text; /* offset in the texts */
    size_t size;
};

struct listing_order {
    bool complete;        /* all was read; now it is taken out */
    struct buffer places; /* struct listing_place each; the first is the least */
    struct buffer texts;
};

struct listing_order *listing_order_new(void)
{
    return calloc(1, sizeof(struct listing_order));
}

void listing_order_free(void *order)
{
    struct listing_order *freed = order;

    if (freed != NULL) {
        buffer_deinit(&freed->places);
        buffer_deinit(&freed->texts);
        free(freed);
    }
}

static struct listing_place place_get(const struct listing_order *order, size_t at)
{
    struct listing_place place;

    memcpy(&place, order->places.data + at * sizeof(place), sizeof(place));
    return place;
}

static void place_set(struct listing_order *order, size_t at, const struct listing_place *place)
{
    memcpy(order->places.data + at * sizeof(*place), place, sizeof(*place));
}

static struct slice place_text(const struct listing_order *order, const struct listing_place *place)
{
    return slice_from(order->texts.data + place->text, place->size);
}

/* Keys of one table never are equal, and their byte order is that of the scan. */
static bool place_before(const struct listing_order *order, const struct listing_place *a,
                         const struct listing_place *b)
{
    if (a->distance < b->distance || a->distance > b->distance) {
        return a->distance < b->distance;
    }
    return slice_compare(place_text(order, a), place_text(order, b)) < 0;
}

int listing_order_add(struct listing_order *order, double distance, struct slice text)
{
    const struct listing_place place = {
        .distance = distance, .text = order->texts.size, .size = text.size};
    size_t at = order->places.size / sizeof(place);

    buffer_append_slice(&order->texts, text);
    buffer_append(&order->places, &place, sizeof(place));
    if (order->texts.failed || order->places.failed ||
        order->texts.size + order->places.size > LISTING_ORDER_BYTES_MAX) {
        return STORE_ENOMEM;
    }
    while (at > 0) {
        const size_t above = (at - 1) / 2;
        const struct listing_place parent = place_get(order, above);

        if (!place_before(order, &place, &parent)) {
            break;
        }
        place_set(order, at, &parent);
        at = above;
    }
    place_set(order, at, &place);
    return STORE_OK;
}

bool listing_order_next(struct listing_order *order, struct slice *text)
{
    size_t count = order->places.size / sizeof(struct listing_place);
    size_t at = 0;

    if (count == 0) {
        return false;
    }
    const struct listing_place first = place_get(order, 0);
    const struct listing_place moved = place_get(order, --count);

    order->places.size -= sizeof(moved);
    *text = place_text(order, &first);
    for (size_t below = 1; below < count; below = 2 * at + 1) {
        struct listing_place child = place_get(order, below);

        if (below + 1 < count) {
            const struct listing_place other = place_get(order, below + 1);

            if (place_before(order, &other, &child)) {
                child = other;
                below++;
            }
        }
        if (!place_before(order, &child, &moved)) {
            break;
        }
        place_set(order, at, &child);
        at = below;
    }
    if (count > 0) {
        place_set(order, at, &moved);
    }
    return true;
}

/* --- elements --- */

void listing_open(struct listing *listing)
{
    listing->start = listing->out->size;
    buffer_append_char(listing->out, listing->piece->begun ? ',' : '[');
    listing->object = listing->out->size;
}

void listing_open_member(struct listing *listing, struct slice name)
{
    listing->start = listing->out->size;
    buffer_append_char(listing->out, listing->piece->begun ? ',' : '{');
    json_put_string(listing->out, name);
    buffer_append_char(listing->out, ':');
    listing->object = listing->out->size;
}

void listing_drop(struct listing *listing)
{
    listing->out->size = listing->start;
}

/* Without a coordinate: behind all that have one. */
static double listing_distance(const struct listing *listing, struct slice node)
{
    struct coordinate to;

    return coordinate_get(listing->txn, node, &to) == STORE_OK
               ? coordinate_distance(&listing->from, &to)
               : INFINITY;
}

void listing_close(struct listing *listing, struct slice node)
{
    struct buffer *out = listing->out;

    if (out->failed) {
        return;
    }
    if (listing->order == NULL || listing->ordering) { /* Else it has passed. */
        catalog_json_filter_from(listing->request, out, listing->start, listing->object);
    }
    if (out->size <= listing->object) {
        return;
    }
    if (listing->ordering) {
        assert(listing->order != NULL);
        out->size = listing->start;
        out->failed = listing_order_add(listing->order, listing_distance(listing, node),
                                        listing->scan.key) != STORE_OK;
        return;
    }
    listing->piece->begun = true;
}

/* --- pieces --- */

bool listing_full(struct listing *listing)
{
    listing->count++;
    if (listing->count >= LISTING_PIECE_COUNT_MAX ||
        listing->out->size - listing->began_bytes >= HTTP_PIECE_BYTES) {
        return true;
    }
    /* A record costs little, unless a filter's expressions are matched with a long text. */
    if (listing->count % LISTING_CLOCK_COUNT != 1 && listing->request->private->filter == NULL) {
        return false;
    }
    const uint64_t now_ns = uv_hrtime();

    if (listing->until_ns == 0) {
        listing->until_ns = now_ns + (uint64_t)LISTING_PIECE_US_MAX * NS_PER_US;
    }
    return now_ns >= listing->until_ns;
}

int listing_pause(struct http_piece *piece, struct slice key)
{
    buffer_clear(&piece->last);
    buffer_append_slice(&piece->last, key);
    buffer_append_char(&piece->last, '\0'); /* The next string in byte order. */
    return piece->last.failed ? STORE_ENOMEM : STORE_OK;
}

int listing_resume(struct http_piece *piece, struct catalog_scan *scan)
{
    return piece->last.size == 0 ? STORE_OK : catalog_scan_seek(scan, buffer_slice(&piece->last));
}

/* ?near's node may have no coordinate: then there is no order to give. */
static int listing_find_near(struct listing *listing)
{
    struct http_piece *piece = listing->piece;
    struct slice near = http_param_value(listing->request, "near");

    if (slice_equal(near, SLICE_LITERAL("_agent"))) {
        near = slice_from_text(listing->request->server->config->node_name);
    }
    if (near.size == 0 || coordinate_get(listing->txn, near, &listing->from) != STORE_OK) {
        return STORE_OK;
    }
    if (piece->state == NULL) {
        piece->state = listing_order_new();
        piece->on_free = listing_order_free;
    }
    listing->order = piece->state;
    listing->ordering = listing->order != NULL && !listing->order->complete;
    return listing->order == NULL ? STORE_ENOMEM : STORE_OK;
}

static int listing_begin(struct listing *listing, const struct listing_source *source)
{
    int rc = source->fixed ? STORE_OK : listing_find_near(listing);

    if (rc == STORE_OK) {
        rc = source->begin(listing->request, listing->txn, &listing->scan);
    }
    return rc;
}

static int listing_end(struct listing *listing, const struct listing_source *source)
{
    struct http_piece *piece = listing->piece;

    piece->done = true;
    if (piece->begun) {
        buffer_append_char(piece->out, source->by_name ? '}' : ']');
    } else if (source->null && http_param_value(listing->request, "filter").size == 0) {
        buffer_append_text(piece->out, "null"); /* Go's nil: nothing was there to list. */
    } else {
        buffer_append_text(piece->out, source->by_name ? "{}" : "[]");
    }
    return STORE_OK;
}

/* In the order of the scan, from where the piece before ended. */
static int listing_put_scanned(struct listing *listing, const struct listing_source *source)
{
    int rc = listing_resume(listing->piece, &listing->scan);

    while (rc == STORE_OK && (rc = source->put(listing)) == STORE_OK) {
        if (listing_full(listing)) {
            return listing_pause(listing->piece, listing->scan.key);
        }
    }
    if (rc == STORE_ENOTFOUND && listing->ordering) {
        listing->order->complete = true;
        return STORE_OK;
    }
    return rc == STORE_ENOTFOUND ? listing_end(listing, source) : rc;
}

/* In the order that was found. */
static int listing_put_ordered(struct listing *listing, const struct listing_source *source)
{
    struct slice key;

    while (listing_order_next(listing->order, &key)) {
        int rc = catalog_scan_seek(&listing->scan, key);

        if (rc == STORE_OK) {
            rc = source->put(listing);
        }
        if (rc != STORE_OK) {
            return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc; /* It was there: one snapshot. */
        }
        if (listing_full(listing)) {
            return STORE_OK;
        }
    }
    return listing_end(listing, source);
}

bool listing_is_waited_for(
    struct http_request *request, struct store_txn *txn, struct http_piece *piece,
    int (*index)(struct http_request *request, struct store_txn *txn, uint64_t *index), int *rc)
{
    assert(piece->out != NULL); /* The index is known: nobody reads on for it. */
    *rc = STORE_OK;
    if (piece->indexed) {
        return false;
    }
    piece->indexed = true;
    *rc = index(request, txn, &piece->index);
    piece->done = *rc == STORE_OK && http_read_blocks(request, piece->index);
    return *rc != STORE_OK || piece->done;
}

int listing_piece(struct http_request *request, struct store_txn *txn, struct http_piece *piece,
                  const struct listing_source *source)
{
    struct listing listing = {.request = request, .txn = txn, .piece = piece, .out = piece->out};
    int rc;

    if (listing_is_waited_for(request, txn, piece, source->index, &rc)) {
        return rc;
    }
    listing.began_bytes = piece->out->size;
    rc = listing_begin(&listing, source);
    if (rc != STORE_OK) {
        return rc;
    }
    if (listing.order == NULL || listing.ordering) {
        rc = listing_put_scanned(&listing, source);
    }
    if (rc == STORE_OK && listing.order != NULL && listing.order->complete) {
        listing.ordering = false;
        rc = listing_put_ordered(&listing, source);
    }
    catalog_scan_end(&listing.scan);
    buffer_deinit(&listing.scratch);
    return rc;
}

/* --- instances of one service --- */

/* The service's name in lower case: what its topic is called. */
static void listing_free_key(struct http_request *request)
{
    struct buffer *key = request->state;

    buffer_deinit(key);
    free(key);
}

int listing_instances_index(struct http_request *request, struct store_txn *txn, uint64_t *index)
{
    return catalog_index_service(txn, request->rest, index);
}

int listing_instances_begin(struct http_request *request, struct store_txn *txn,
                            struct catalog_scan *scan)
{
    return catalog_instances_begin(scan, txn, request->rest);
}

int listing_instance_next(struct listing *listing, struct catalog_service *service,
                          struct catalog_node *node, bool *wanted)
{
    const int rc = catalog_instances_next(&listing->scan, service, node);

    *wanted = rc == STORE_OK && catalog_json_tags_match(listing->request, service->tags) &&
              catalog_json_meta_matches(listing->request, node->meta);
    return rc;
}

void listing_start_service(struct http_request *request, unsigned flags,
                           int (*piece)(struct http_request *request, struct store_txn *txn,
                                        struct http_piece *piece))
{
    struct http_read_spec spec = {
        .flags = flags | HTTP_READ_CACHEABLE, .watch_count = 1, .piece = piece};
    struct buffer *key = calloc(1, sizeof(*key));

    if (key == NULL) {
        http_reply_error(request, 500, "out of memory");
        return;
    }
    request->state = key;
    request->on_free = listing_free_key;
    for (size_t i = 0; i < request->rest.size; i++) {
        buffer_append_char(key, slice_lower(request->rest.data[i]));
    }
    if (key->failed) {
        http_reply_error(request, 500, "out of memory");
        return;
    }
    spec.watches[0].topic = STORE_TOPIC_SERVICE;
    spec.watches[0].key = buffer_slice(key);
    http_read_start(request, &spec);
}

static int listing_run_indexed(struct http_request *request, struct store_txn *txn,
                               struct http_read_result *result)
{
    (void)request;
    buffer_append_text(&result->body, "[]");
    return catalog_index_service(txn, SLICE_EMPTY, &result->index); /* As of a name that is gone. */
}

static int listing_run_none(struct http_request *request, struct store_txn *txn,
                            struct http_read_result *result)
{
    (void)request;
    (void)txn;
    buffer_append_text(&result->body, "[]");
    return STORE_OK;
}

void listing_start_none(struct http_request *request, unsigned flags, bool indexed)
{
    struct http_read_spec spec = {.flags = flags | HTTP_READ_CACHEABLE,
                                  .run = indexed ? listing_run_indexed : listing_run_none};

    listing_watch(&spec, STORE_TOPIC_SERVICES);
    http_read_start(request, &spec);
}

void listing_watch(struct http_read_spec *spec, enum store_topic topic)
{
    assert(spec->watch_count < HTTP_WATCHES_MAX);
    spec->watches[spec->watch_count].topic = topic;
    spec->watches[spec->watch_count].key = SLICE_EMPTY;
    spec->watch_count++;
}
