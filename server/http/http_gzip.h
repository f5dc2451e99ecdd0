#ifndef SERVER_HTTP_HTTP_GZIP_H
#define SERVER_HTTP_HTTP_GZIP_H

/* Content-Encoding: gzip. Who takes it, and compressors: one that is kept for answers that are
 * compressed in one go, and a bounded number for those that are compressed piece by piece. Pure:
 * no sockets, no clock. */

#include <stdbool.h>

#include "kv/buffer.h"
#include "kv/slice.h"

/* Each compressor takes 264 KiB. */
enum {
    HTTP_GZIP_MAX = 32, /* answers compressed in pieces at one time; others go as they are */
    HTTP_GZIP_PIECE_BYTES = 64 * 1024,      /* compressed in one go: about a millisecond */
    HTTP_GZIP_WHOLE_BYTES_MAX = 128 * 1024, /* a larger answer is compressed in pieces */
};

struct http_gzip;

/* Zeroed to begin with. */
struct http_gzip_pool {
    struct http_gzip *whole; /* owned; NULL: not needed yet */
    unsigned count;          /* others that are in use */
};

/* Frees what is kept; none may be in use. */
void http_gzip_pool_deinit(struct http_gzip_pool *pool);

/* Whether Accept-Encoding with this value (of its first line: Consul reads no other) asks for gzip.
 * As Consul reads it: the last "gzip" counts, "*" and "x-gzip" do not. Where Consul takes a weight
 * of zero for consent ("Q=0", "q=0;x=1"), or reads numbers that RFC 9110 does not know ("1e-3"),
 * the answer is no: an answer as it is suits everyone. */
bool http_gzip_accepted(struct slice value);

/* Appends all of `in` as one gzip stream. False without memory: `out` is to be dropped. */
bool http_gzip_whole(struct http_gzip_pool *pool, struct slice in, struct buffer *out);

/* A compressor for an answer of several pieces. NULL: without memory, or HTTP_GZIP_MAX are in use.
 */
struct http_gzip *http_gzip_new(struct http_gzip_pool *pool);
/* Compresses on, appending what is ready; with `end` the rest of the stream. False without memory:
 * the stream cannot go on. */
bool http_gzip_put(struct http_gzip *gzip, struct slice in, bool end, struct buffer *out);
void http_gzip_free(struct http_gzip_pool *pool, struct http_gzip *gzip); /* NULL is accepted */

#endif
