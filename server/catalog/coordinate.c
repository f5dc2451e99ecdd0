#include "server/catalog/coordinate.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "server/catalog/catalog_internal.h"

#define COORDINATE_INDEX_NAME SLICE_LITERAL("coordinates")

/* --- numbers --- */

bool coordinate_valid(const struct coordinate *coordinate)
{
    bool valid = isfinite(coordinate->error) && isfinite(coordinate->adjustment) &&
                 isfinite(coordinate->height);

    for (size_t i = 0; i < COORDINATE_DIMENSIONS; i++) {
        valid = valid && isfinite(coordinate->vec[i]);
    }
    return valid;
}

double coordinate_distance(const struct coordinate *a, const struct coordinate *b)
{
    double sum = 0;

    for (size_t i = 0; i < COORDINATE_DIMENSIONS; i++) {
        const double difference = a->vec[i] - b->vec[i];
        sum += difference * difference;
    }
    const double distance = sqrt(sum) + a->height + b->height;
    const double adjusted = distance + a->adjustment + b->adjustment;

    return adjusted > 0 ? adjusted : distance;
}

/* --- records --- */

static void put_double(struct buffer *out, double value)
{
    uint64_t bits;

    static_assert(sizeof(bits) == sizeof(value), "an IEEE double");
    memcpy(&bits, &value, sizeof(bits));
    buffer_put_u64(out, bits);
}

static double read_double(struct reader *reader)
{
    const uint64_t bits = reader_u64(reader);
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

void coordinate_encode(struct buffer *out, const struct coordinate *coordinate)
{
    for (size_t i = 0; i < COORDINATE_DIMENSIONS; i++) {
        put_double(out, coordinate->vec[i]);
    }
    put_double(out, coordinate->error);
    put_double(out, coordinate->adjustment);
    put_double(out, coordinate->height);
    buffer_put_string(out, coordinate->node);
}

bool coordinate_decode(struct slice bytes, struct coordinate *out)
{
    struct reader reader = reader_from(bytes);

    for (size_t i = 0; i < COORDINATE_DIMENSIONS; i++) {
        out->vec[i] = read_double(&reader);
    }
    out->error = read_double(&reader);
    out->adjustment = read_double(&reader);
    out->height = read_double(&reader);
    out->node = reader_string(&reader);
    return reader_done(&reader) && coordinate_valid(out);
}

/* --- reading --- */

int coordinate_get(struct store_txn *txn, struct slice node, struct coordinate *out)
{
    struct catalog_key key;
    struct slice record;

    if (!catalog_key_begin(&key, node)) {
        return STORE_ENOTFOUND;
    }
    const int rc = store_get(txn, STORE_COORDINATE, catalog_key_slice(&key), &record);

    if (rc != 0) {
        return rc;
    }
    return coordinate_decode(record, out) ? STORE_OK : STORE_ECORRUPT;
}

int coordinate_index(struct store_txn *txn, uint64_t *index)
{
    return store_index_get(txn, COORDINATE_INDEX_NAME, index);
}

int coordinates_begin(struct catalog_scan *scan, struct store_txn *txn)
{
    return catalog_scan_begin(scan, txn, STORE_COORDINATE, SLICE_EMPTY);
}

int coordinates_next(struct catalog_scan *scan, struct coordinate *out)
{
    struct slice key;
    struct slice record;
    const int rc = catalog_scan_next(scan, &key, &record);

    if (rc != 0) {
        return rc;
    }
    return coordinate_decode(record, out) ? STORE_OK : STORE_ECORRUPT;
}

/* --- writing --- */

static int coordinates_changed(struct store_txn *txn, uint64_t index)
{
    const int rc = store_index_set(txn, COORDINATE_INDEX_NAME, index);

    if (rc == 0) {
        store_note(txn, STORE_TOPIC_COORDINATE, SLICE_EMPTY);
    }
    return rc;
}

bool coordinates_valid(struct slice batch)
{
    struct reader reader = reader_from(batch);
    struct coordinate coordinate;

    for (size_t i = 0; i < COORDINATE_BATCH_MAX; i++) {
        if (reader_done(&reader)) {
            return true;
        }
        const struct slice record = reader_string(&reader);
        if (reader.failed || !coordinate_decode(record, &coordinate)) {
            return false;
        }
    }
    return reader_done(&reader);
}

int coordinates_apply(struct store_txn *txn, uint64_t index, struct slice batch)
{
    struct reader reader = reader_from(batch);
    bool changed = false;

    while (!reader_done(&reader)) {
        const struct slice record = reader_string(&reader);
        struct coordinate coordinate;
        struct catalog_node node;
        struct catalog_key key;
        const bool decoded = coordinate_decode(record, &coordinate);

        assert(decoded); /* coordinates_valid */
        int rc = catalog_node_get(txn, coordinate.node, &node);
        if (rc == STORE_ENOTFOUND) {
            continue; /* The node went meanwhile, or never was. */
        }
        if (rc == 0) {
            const bool valid = catalog_key_begin(&key, coordinate.node);
            assert(valid); /* It was found. */
            rc = store_put(txn, STORE_COORDINATE, catalog_key_slice(&key), record);
        }
        if (rc != 0) {
            return rc;
        }
        changed = true;
    }
    return changed ? coordinates_changed(txn, index) : 0;
}

int coordinate_remove(struct store_txn *txn, uint64_t index, struct slice node)
{
    struct catalog_key key;

    if (!catalog_key_begin(&key, node)) {
        return 0;
    }
    const int rc = store_delete(txn, STORE_COORDINATE, catalog_key_slice(&key));

    if (rc == STORE_ENOTFOUND) {
        return 0;
    }
    return rc != 0 ? rc : coordinates_changed(txn, index);
}
