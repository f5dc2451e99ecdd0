#include "server/http/listing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"
#include "server/http/catalog_json.h"
#include "server/server.h"

/* Where an element lies, and how far its node is. */
struct listing_place {
    size_t object;
    size_t end;
    double distance;
};

void listing_begin(struct listing *listing, struct http_request *request, struct store_txn *txn,
                   struct buffer *out)
{
    struct slice near = http_param_value(request, "near");

    *listing = (struct listing){.request = request, .txn = txn, .out = out};
    if (slice_equal(near, SLICE_LITERAL("_agent"))) {
        near = slice_from_text(request->server->config->node_name);
    }
    listing->near = near.size > 0 && coordinate_get(txn, near, &listing->from) == STORE_OK;
    buffer_append_char(out, '[');
    listing->list = out->size;
}

void listing_open(struct listing *listing)
{
    listing->start = catalog_json_next(listing->out);
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
    struct listing_place place;

    catalog_json_filter_from(listing->request, listing->out, listing->start, listing->object);
    if (!listing->near || listing->out->failed || listing->out->size <= listing->object) {
        return;
    }
    place = (struct listing_place){.object = listing->object,
                                   .end = listing->out->size,
                                   .distance = listing_distance(listing, node)};
    buffer_append(&listing->places, &place, sizeof(place));
}

/* Nearest first; equally far ones in the order they came. */
static int listing_compare(const void *left, const void *right)
{
    const struct listing_place *a = left;
    const struct listing_place *b = right;

    if (a->distance < b->distance || a->distance > b->distance) {
        return a->distance < b->distance ? -1 : 1;
    }
    return (a->object > b->object) - (a->object < b->object);
}

static void listing_sort(struct listing *listing)
{
    const size_t count = listing->places.size / sizeof(struct listing_place);
    struct listing_place *places = calloc(count, sizeof(*places));
    struct buffer sorted = {0};

    if (places == NULL) {
        listing->out->failed = true;
        return;
    }
    memcpy(places, listing->places.data, listing->places.size);
    qsort(places, count, sizeof(*places), listing_compare);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            buffer_append_char(&sorted, ',');
        }
        buffer_append(&sorted, listing->out->data + places[i].object,
                      places[i].end - places[i].object);
    }
    listing->out->size = listing->list;
    buffer_append_slice(listing->out, buffer_slice(&sorted));
    listing->out->failed = listing->out->failed || sorted.failed;
    buffer_deinit(&sorted);
    free(places);
}

int listing_end(struct listing *listing, int rc)
{
    if (listing->places.failed) {
        listing->out->failed = true;
    } else if (listing->places.size > 0) {
        listing_sort(listing);
    }
    buffer_deinit(&listing->places);
    buffer_append_char(listing->out, ']');
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}
