#ifndef SERVER_HTTP_LISTING_H
#define SERVER_HTTP_LISTING_H

/* A JSON array of catalog records: what the listings of catalog and health share. Elements that the
 * request's filter refuses are left out; with ?near they come in order of their node's distance. */

#include "server/catalog/coordinate.h"
#include "server/http/http.h"

struct listing {
    struct http_request *request;
    struct store_txn *txn;
    struct buffer *out;
    size_t start;  /* of the element being written, its comma included */
    size_t object; /* the element itself */
    size_t list;   /* where the first element begins */
    bool near;
    struct coordinate from; /* where ?near's node is */
    struct buffer places;   /* struct listing_place each */
};

/* Begins the array in `out`. Borrows all three until listing_end. ?near's node may have no
 * coordinate: then there is no order to give. */
void listing_begin(struct listing *listing, struct http_request *request, struct store_txn *txn,
                   struct buffer *out);
/* An element begins: append its object to `out`, then close it, or take it back. */
void listing_open(struct listing *listing);
void listing_close(struct listing *listing, struct slice node);
void listing_drop(struct listing *listing);
/* Ends the array, in any case. `rc` is how the scan ended: STORE_ENOTFOUND, its end, becomes
 * success. */
int listing_end(struct listing *listing, int rc);

#endif
