#ifndef SERVER_CATALOG_COORDINATE_H
#define SERVER_CATALOG_COORDINATE_H

/* Network coordinates of nodes (Vivaldi's, as Consul has them): where a node lies in a space in
 * which distances are round-trip times. They are told by whoever measures, kept in the replicated
 * state, and used to sort answers (`near`). Pure, as catalog.h. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "kv/store.h"
#include "server/catalog/catalog.h"

enum {
    COORDINATE_DIMENSIONS = 8,
    COORDINATE_BATCH_MAX = 128, /* updates that one command carries, as in Consul */
};

struct coordinate {
    struct slice node; /* as registered; borrowed */
    double vec[COORDINATE_DIMENSIONS];
    double error;
    double adjustment; /* seconds, as height and the vector's unit */
    double height;
};

/* Whether all of its numbers are finite. */
bool coordinate_valid(const struct coordinate *coordinate);
/* Estimated round-trip time in seconds. Source: Coordinate.DistanceTo of hashicorp/serf. */
double coordinate_distance(const struct coordinate *a, const struct coordinate *b);

void coordinate_encode(struct buffer *out, const struct coordinate *coordinate);
/* False when the bytes are none. `out` borrows from them. */
bool coordinate_decode(struct slice bytes, struct coordinate *out);

/* STORE_ENOTFOUND when the node has none. Names compare without case. */
int coordinate_get(struct store_txn *txn, struct slice node, struct coordinate *out);
/* Index of the table as a whole, 0 if it never changed. */
int coordinate_index(struct store_txn *txn, uint64_t *index);

/* All, in order of node, as the scans of catalog.h. */
int coordinates_begin(struct catalog_scan *scan, struct store_txn *txn);
int coordinates_next(struct catalog_scan *scan, struct coordinate *out);

/* A batch: records as coordinate_encode makes them, each with its size before it (u32). True when
 * the bytes are such a batch, of at most COORDINATE_BATCH_MAX. */
bool coordinates_valid(struct slice batch);
/* Stores a valid batch; nodes that are not registered are passed over, as in Consul. */
int coordinates_apply(struct store_txn *txn, uint64_t index, struct slice batch);
/* The node goes. A missing coordinate is no error. */
int coordinate_remove(struct store_txn *txn, uint64_t index, struct slice node);

#endif
