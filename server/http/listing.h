#ifndef SERVER_HTTP_LISTING_H
#define SERVER_HTTP_LISTING_H

/* JSON arrays of catalog records, read in pieces of bounded time: what the listings of catalog and
 * health share. Elements that the request's filter refuses are left out. With ?near they come in
 * order of their node's distance: then everything is read twice, first for the distances, which
 * with the keys of the records are all that is kept, then one by one in that order. */

#include "server/catalog/catalog.h"
#include "server/catalog/coordinate.h"
#include "server/http/http.h"

enum {
    LISTING_PIECE_COUNT_MAX = 2048,            /* records that one piece looks at, */
    LISTING_PIECE_US_MAX = 1000,               /* and for how long, beside one record */
    LISTING_ORDER_BYTES_MAX = 64 * 1024 * 1024 /* of what stands for the records in an order */
};

struct listing_order;

struct listing {
    struct http_request *request;
    struct store_txn *txn;
    struct http_piece *piece;
    struct buffer *out; /* the piece's */
    struct catalog_scan scan;
    struct listing_order *order; /* the piece's; NULL: in the order of the scan */
    bool ordering;               /* reads for the order; nothing is listed */
    struct coordinate from;      /* where ?near's node is */
    size_t start;                /* of the element being written, its comma included */
    size_t object;               /* the element itself */
    /* How far the piece has come. */
    size_t began_bytes;
    size_t count;
    uint64_t until_ns;
    /* The source's, for the time of one piece. */
    struct buffer scratch;
    struct slice scratch_of;
};

/* What is listed. */
struct listing_source {
    int (*index)(struct http_request *request, struct store_txn *txn, uint64_t *index);
    int (*begin)(struct http_request *request, struct store_txn *txn, struct catalog_scan *scan);
    /* Reads the scan's next record and appends its element if it is wanted: listing_open, the
     * object, listing_close. STORE_ENOTFOUND at the end. */
    int (*put)(struct listing *listing);
    bool by_name; /* an object, not an array: listing_open_member */
    bool null;    /* "null" when it is empty and there is no filter */
    bool fixed;   /* ?near has no effect */
};

/* As http_read_spec.piece. A query that would block on the index reads nothing. */
int listing_piece(struct http_request *request, struct store_txn *txn, struct http_piece *piece,
                  const struct listing_source *source);

/* The same without a source: at the first piece finds the index. True: nothing is to be read, `*rc`
 * is what the piece returns. */
bool listing_is_waited_for(
    struct http_request *request, struct store_txn *txn, struct http_piece *piece,
    int (*index)(struct http_request *request, struct store_txn *txn, uint64_t *index), int *rc);

/* An element begins: append its object to listing->out, then close it, or take it back. `node`:
 * where it is, for ?near. */
void listing_open(struct listing *listing);
void listing_open_member(struct listing *listing, struct slice name);
void listing_close(struct listing *listing, struct slice node);
void listing_drop(struct listing *listing);

/* For pieces of another kind: whether this one has had its share, of time or of output. To be asked
 * after each record. */
bool listing_full(struct listing *listing);
/* Remembers that the piece ends behind `key`, and goes on there. STORE_ENOMEM without memory. */
int listing_pause(struct http_piece *piece, struct slice key);
int listing_resume(struct http_piece *piece, struct catalog_scan *scan);

/* --- instances of the service that request->rest names --- */

/* As listing_source has them. */
int listing_instances_index(struct http_request *request, struct store_txn *txn, uint64_t *index);
int listing_instances_begin(struct http_request *request, struct store_txn *txn,
                            struct catalog_scan *scan);
/* Reads the next one. `*wanted`: every `tag` and `node-meta` parameter matches. */
int listing_instance_next(struct listing *listing, struct catalog_service *service,
                          struct catalog_node *node, bool *wanted);
/* Starts the read of such a listing, after all checks. Takes request->state. */
void listing_start_service(struct http_request *request, unsigned flags,
                           int (*piece)(struct http_request *request, struct store_txn *txn,
                                        struct http_piece *piece));
/* The same of a kind of instances that there are none of. `indexed`: the answer has the index of
 * the services, else none. */
void listing_start_none(struct http_request *request, unsigned flags, bool indexed);
/* Adds what to wait for: any change of the topic. */
void listing_watch(struct http_read_spec *spec, enum store_topic topic);

/* Texts in an order: by distance, then by their bytes. NULL without memory. */
struct listing_order *listing_order_new(void);
void listing_order_free(void *order);
/* STORE_ENOMEM without memory, or beyond LISTING_ORDER_BYTES_MAX. */
int listing_order_add(struct listing_order *order, double distance, struct slice text);
/* Takes the first one out; borrowed until the next addition. False: there is none. */
bool listing_order_next(struct listing_order *order, struct slice *text);

#endif
