#include "server/http/http_gzip.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "server/http/http_internal.h"

enum {
    GZIP_WINDOW_BITS = 15 + 16, /* 16: gzip's head and end, not zlib's */
    GZIP_MEMORY_LEVEL = 8,
    GZIP_ROOM_BYTES = 16 * 1024, /* output is made so much at a time */
};

struct http_gzip {
    z_stream stream;
};

/* --- who takes it --- */

/* Takes the part before the next `separator` off `rest`, without blanks around it. False: there was
 * none left. */
static bool next_part(struct slice *rest, char separator, struct slice *part)
{
    if (rest->data == NULL) {
        return false;
    }
    const char *end = rest->size == 0 ? NULL : memchr(rest->data, separator, rest->size);

    if (end == NULL) {
        *part = http_trim(*rest);
        *rest = (struct slice){NULL, 0};
    } else {
        const size_t size = (size_t)(end - rest->data);

        *part = http_trim((struct slice){rest->data, size});
        *rest = (struct slice){end + 1, rest->size - size - 1};
    }
    return true;
}

/* Digits with at most one point among them, not all of them zero. */
static bool weight_is_positive(struct slice text)
{
    bool point = false;
    bool positive = false;

    for (size_t i = 0; i < text.size; i++) {
        const char c = text.data[i];

        if (c == '.' && !point) {
            point = true;
        } else if (c < '0' || c > '9') {
            return false;
        }
        positive = positive || (c >= '1' && c <= '9');
    }
    return positive;
}

/* No parameter of the element says that it is not wanted. */
static bool is_wanted(struct slice parameters)
{
    struct slice parameter;

    while (next_part(&parameters, ';', &parameter)) {
        if (parameter.size >= 2 && slice_lower(parameter.data[0]) == 'q' &&
            parameter.data[1] == '=' &&
            !weight_is_positive((struct slice){parameter.data + 2, parameter.size - 2})) {
            return false;
        }
    }
    return true;
}

bool http_gzip_accepted(struct slice value)
{
    bool accepted = false;
    struct slice element;

    while (next_part(&value, ',', &element)) {
        struct slice coding = SLICE_EMPTY;

        (void)next_part(&element, ';', &coding); /* There is one, maybe empty. */
        if (slice_equal_nocase(coding, SLICE_LITERAL("gzip"))) {
            accepted = is_wanted(element);
        }
    }
    return accepted;
}

/* --- compressors --- */

/* The fastest level: an answer is compressed once and read once, and the loop has other things to
 * do. */
static struct http_gzip *gzip_new(void)
{
    struct http_gzip *gzip = calloc(1, sizeof(*gzip));

    if (gzip != NULL && deflateInit2(&gzip->stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW_BITS,
                                     GZIP_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(gzip);
        gzip = NULL;
    }
    return gzip;
}

static void gzip_free(struct http_gzip *gzip)
{
    if (gzip != NULL) {
        (void)deflateEnd(&gzip->stream); /* Says so when it was amid a stream. */
        free(gzip);
    }
}

bool http_gzip_put(struct http_gzip *gzip, struct slice in, bool end, struct buffer *out)
{
    z_stream *stream = &gzip->stream;
    /* zlib does not write through it, and may be built to say so or not. */
    union {
        const char *in;
        unsigned char *out;
    } unconst = {.in = in.data};

    assert(in.size <= UINT_MAX);
    stream->next_in = unconst.out;
    stream->avail_in = (unsigned)in.size;
    do {
        char *at = buffer_reserve(out, GZIP_ROOM_BYTES);

        if (at == NULL) {
            return false;
        }
        stream->next_out = (unsigned char *)at;
        stream->avail_out = GZIP_ROOM_BYTES;
        /* Cannot fail but for a broken stream; that there was nothing to do is no failure. */
        const int rc = deflate(stream, end ? Z_FINISH : Z_NO_FLUSH);

        assert(rc != Z_STREAM_ERROR);
        (void)rc;
        out->size += GZIP_ROOM_BYTES - stream->avail_out;
    } while (stream->avail_out == 0);
    assert(stream->avail_in == 0);
    return true;
}

bool http_gzip_whole(struct http_gzip_pool *pool, struct slice in, struct buffer *out)
{
    if (pool->whole == NULL) {
        pool->whole = gzip_new();
    } else {
        (void)deflateReset(&pool->whole->stream); /* Fails only for what is no stream. */
    }
    return pool->whole != NULL && http_gzip_put(pool->whole, in, true, out);
}

struct http_gzip *http_gzip_new(struct http_gzip_pool *pool)
{
    struct http_gzip *gzip = pool->count < HTTP_GZIP_MAX ? gzip_new() : NULL;

    if (gzip != NULL) {
        pool->count++;
    }
    return gzip;
}

void http_gzip_free(struct http_gzip_pool *pool, struct http_gzip *gzip)
{
    if (gzip != NULL) {
        assert(pool->count > 0);
        pool->count--;
        gzip_free(gzip);
    }
}

void http_gzip_pool_deinit(struct http_gzip_pool *pool)
{
    assert(pool->count == 0);
    gzip_free(pool->whole);
    pool->whole = NULL;
}
