/* Long listings: read, encoded and sent in pieces, each a bounded time of one turn of the loop, all
 * from one snapshot.
 *
 * A listing begins in memory. One that stays short is answered as any other; of a long one the rest
 * is looked through for its index, which stands before the body, and then it is sent as it is
 * encoded, each piece when the client has taken the one before. A snapshot keeps the database from
 * using its free pages again, so a slow client does not keep one for long: when it has been waited
 * for HTTP_STREAM_STALL_MS (less while others want one), the rest is copied, up to a bound, and the
 * snapshot is given back. Addresses share both: the next snapshot goes to the one that has fewest,
 * and when too much is copied in all, the one that has most of it loses a connection. */

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/store.h"
#include "server/http/http_internal.h"
#include "server/log.h"
#include "server/server.h"

static struct http_server *stream_server(const struct http_stream *stream)
{
    return stream->request->conn->http;
}

/* Those whose address is not known share one. */
static struct http_client *stream_client(const struct http_stream *stream)
{
    struct http_client *client = stream->request->conn->client;

    return client != NULL ? client : &stream_server(stream)->nobody;
}

/* What is kept for the next piece; an order of a long listing is large. */
static void http_piece_forget(struct http_piece *piece)
{
    buffer_deinit(&piece->last);
    buffer_deinit(&piece->name);
    if (piece->state != NULL) {
        piece->on_free(piece->state);
        piece->state = NULL;
    }
}

void http_piece_deinit(struct http_piece *piece)
{
    http_piece_forget(piece);
    *piece = (struct http_piece){0};
}

/* All is read, or nothing more will be: what was kept for reading on goes with the snapshot. */
static void stream_close_snapshot(struct http_stream *stream)
{
    struct http_server *http = stream_server(stream);

    http_piece_forget(&stream->piece);
    http_piece_forget(&stream->scout);
    if (stream->txn_open) {
        store_read_end(&stream->txn);
        stream->txn_open = false;
        http->stream_snapshots--;
        stream_client(stream)->stream_snapshots--;
        if (!TAILQ_EMPTY(&http->streams_queued)) {
            http_turn_start(http);
        }
    }
}

/* Ends it; the request is the handler's again. */
static void stream_free(struct http_stream *stream)
{
    struct http_server *http = stream_server(stream);

    stream_close_snapshot(stream);
    TAILQ_REMOVE(stream->state == HTTP_STREAM_QUEUED ? &http->streams_queued : &http->streams,
                 stream, entry);
    assert(http->stream_copied_bytes >= stream->copied_bytes);
    http->stream_copied_bytes -= stream->copied_bytes;
    stream_client(stream)->stream_copied_bytes -= stream->copied_bytes;
    http_piece_deinit(&stream->piece);
    http_piece_deinit(&stream->scout);
    buffer_deinit(&stream->body);
    buffer_deinit(&stream->packed);
    http_gzip_free(&http->gzip, stream->gzip);
    http_body_unref(stream->whole);
    stream->request->private->stream = NULL;
    free(stream);
}

/* The request is the stream's. */
static void stream_attach(struct http_stream *stream)
{
    struct http_request_private *private = stream->request->private;

    memset(&private->wait, 0, sizeof(private->wait)); /* Nothing is watched. */
    private->phase = HTTP_PHASE_STREAM;
    private->stream = stream;
}

void http_stream_start(struct http_request *request, const struct replica_freshness *freshness)
{
    struct http_server *http = request->conn->http;
    struct http_stream *stream = calloc(1, sizeof(*stream));

    assert(request->private->stream == NULL);
    if (stream == NULL) {
        http_reply_failure(request, request->private->spec.flags, store_strerror(STORE_ENOMEM));
        return;
    }
    stream->request = request;
    stream->freshness = *freshness;
    stream_attach(stream);
    TAILQ_INSERT_TAIL(&http->streams_queued, stream, entry);
    http_turn_start(http);
    http_turn_tick(http);
}

void http_stream_cancel(struct http_request *request)
{
    http_read_unwatch(request);
    stream_free(request->private->stream);
}

/* --- steps: each ends within a bounded time; after one that answers, the stream is gone --- */

static void stream_fail(struct http_stream *stream, int rc)
{
    struct http_request *request = stream->request;
    struct http_conn *conn = request->conn;

    if (stream->state == HTTP_STREAM_SEND) {
        log_write(LOG_ERROR, "agent.http", "cut a listing short: %s", store_strerror(rc));
        http_conn_close(conn); /* The client sees that the end is missing. */
        return;
    }
    http_read_unwatch(request);
    stream_free(stream);
    http_conn_enter(conn);
    request->private->phase = HTTP_PHASE_HANDLER;
    http_reply_failure(request, request->private->spec.flags, store_strerror(rc));
    http_conn_leave(conn);
}

/* Its turn has come: takes a snapshot, and from here on notes what changes. */
static void stream_begin(struct http_stream *stream)
{
    struct http_request *request = stream->request;
    struct http_server *http = stream_server(stream);
    const int rc = store_read_begin(http->server->store, &stream->txn);

    if (rc != 0) {
        stream_fail(stream, rc);
        return;
    }
    stream->txn_open = true;
    http->stream_snapshots++;
    stream_client(stream)->stream_snapshots++;
    TAILQ_REMOVE(&http->streams_queued, stream, entry);
    TAILQ_INSERT_TAIL(&http->streams, stream, entry);
    stream->state = HTTP_STREAM_COLLECT;
    stream->piece.out = &stream->body;
    request->private->changed = false;
    if (http_read_blocks(request, 0) && !http_read_watch(request)) {
        request->private->timed_out = true; /* Without memory to wait, it is answered. */
    }
}

/* The index is known: true when the request goes on waiting; the stream is gone then. */
static bool stream_parks(struct http_stream *stream, uint64_t index)
{
    struct http_request *request = stream->request;
    struct http_conn *conn = request->conn;
    const struct replica_freshness freshness = stream->freshness;

    if (!http_read_blocks(request, index)) {
        http_read_unwatch(request);
        return false;
    }
    stream_free(stream);
    if (request->private->changed) {
        http_stream_start(request, &freshness);
        return true;
    }
    http_conn_enter(conn);
    http_read_park(request);
    http_conn_leave(conn);
    return true;
}

static void stream_answer_whole(struct http_stream *stream)
{
    struct http_request *request = stream->request;
    struct http_conn *conn = request->conn;
    const struct replica_freshness freshness = stream->freshness;
    struct http_read_result result = {
        .status = stream->piece.missing ? 404 : 200,
        .content_type = "application/json",
        .index = stream->piece.index,
        .body = stream->body,
    };

    if (stream_parks(stream, result.index)) {
        return;
    }
    stream->body = (struct buffer){0};
    stream_free(stream);
    http_conn_enter(conn);
    request->private->phase = HTTP_PHASE_HANDLER;
    http_read_reply(request, &result, &freshness);
    buffer_deinit(&result.body);
    http_conn_leave(conn);
}

/* Sends `bytes` as one chunk, behind what http->out has. */
static void stream_send_chunk(struct http_stream *stream, struct buffer *bytes)
{
    struct http_conn *conn = stream->request->conn;
    struct buffer *out = &conn->http->out;

    if (!conn->http_1_0) {
        buffer_printf(out, "%zx\r\n", bytes->size);
        buffer_append_text(bytes, stream->last ? "\r\n0\r\n\r\n" : "\r\n");
    }
    struct http_body *body = bytes->failed ? NULL : http_body_new(bytes);

    if (body == NULL || out->failed) {
        http_body_unref(body);
        http_conn_close(conn);
        return;
    }
    stream->waits = true;
    http_conn_send(conn, buffer_slice(out), body);
    http_body_unref(body);
}

/* Sends what is encoded. */
static void stream_send(struct http_stream *stream)
{
    stream->last = stream->piece.done;
    stream->sent_bytes += stream->body.size;
    stream_send_chunk(stream, &stream->body);
}

/* --- with gzip --- */

/* What is encoded, and not yet compressed. */
static struct slice stream_rest(const struct http_stream *stream)
{
    const struct buffer *from = stream->whole != NULL ? &stream->whole->bytes : &stream->body;

    assert(stream->taken <= from->size);
    return stream->taken == from->size
               ? SLICE_EMPTY
               : slice_from(from->data + stream->taken, from->size - stream->taken);
}

/* Compresses a piece of it, and sends what has come together. */
static void stream_pack(struct http_stream *stream)
{
    struct slice next = stream_rest(stream);
    const bool all = next.size <= HTTP_GZIP_PIECE_BYTES;

    if (!all) {
        next.size = HTTP_GZIP_PIECE_BYTES;
    }
    stream->last = all && stream->piece.done;
    if (!http_gzip_put(stream->gzip, next, stream->last, &stream->packed)) {
        http_conn_close(stream->request->conn);
        return;
    }
    stream->taken += next.size;
    stream->sent_bytes += next.size; /* How much of a listing is read, not how it is sent. */
    if (all && stream->whole == NULL) {
        buffer_deinit(&stream->body);
        stream->taken = 0;
    }
    if (stream->last) { /* Others may have it while the client is waited for. */
        http_gzip_free(&stream_server(stream)->gzip, stream->gzip);
        stream->gzip = NULL;
    }
    if (stream->last || stream->packed.size >= HTTP_COPY_BYTES_MAX) {
        buffer_clear(&stream_server(stream)->out);
        stream_send_chunk(stream, &stream->packed);
    }
}

/* The answer begins, with its head alone. */
static void stream_open_packed(struct http_stream *stream, int status, const char *content_type,
                               const struct http_meta *meta)
{
    struct http_request *request = stream->request;
    struct http_conn *conn = request->conn;
    struct buffer *out = &conn->http->out;

    http_add_header(request, "Content-Encoding", "gzip");
    http_reply_open(request, status, content_type, meta);
    if (out->failed || request->private->headers.failed) {
        http_conn_close(conn);
        return;
    }
    stream->waits = true;
    http_conn_send(conn, buffer_slice(out), NULL);
}

bool http_stream_pack(struct http_request *request, int status, const char *content_type,
                      const struct http_meta *meta, struct http_body *body)
{
    struct http_conn *conn = request->conn;
    struct http_server *http = conn->http;

    assert(request->private->phase == HTTP_PHASE_HANDLER);
    assert(request->private->stream == NULL);
    if (conn->no_body || conn->state == HTTP_CONN_CLOSED) {
        return false;
    }
    struct http_stream *stream = calloc(1, sizeof(*stream));
    struct http_gzip *gzip = stream == NULL ? NULL : http_gzip_new(&http->gzip);

    if (gzip == NULL) {
        free(stream);
        return false;
    }
    stream->request = request;
    stream->state = HTTP_STREAM_SEND;
    stream->piece.done = true;
    stream->whole = http_body_ref(body);
    stream->gzip = gzip;
    stream_attach(stream);
    request->on_cancel = NULL; /* Its handler has answered. */
    request->sleeps = false;
    TAILQ_INSERT_TAIL(&http->streams, stream, entry);
    stream_open_packed(stream, status, content_type, meta);
    return true;
}

/* The answer begins, with what is encoded of it. */
static void stream_open(struct http_stream *stream, uint64_t index)
{
    struct http_request *request = stream->request;

    if (stream_parks(stream, index)) {
        return;
    }
    const struct http_read_result result = {
        .status = 200, .content_type = "application/json", .index = index};
    const struct http_meta meta = http_read_meta(request, &result, &stream->freshness);

    stream->state = HTTP_STREAM_SEND;
    stream->piece.indexed = true; /* It is in the head. */
    if (request->private->gzip) {
        stream->gzip = http_gzip_new(&stream_server(stream)->gzip);
    }
    if (stream->gzip != NULL) {
        stream_open_packed(stream, 200, result.content_type, &meta);
    } else {
        http_reply_open(request, 200, result.content_type, &meta);
        stream_send(stream);
    }
}

static void stream_collect(struct http_stream *stream)
{
    struct http_request *request = stream->request;
    const size_t whole_max = request->pretty ? HTTP_PRETTY_BYTES_MAX : HTTP_WHOLE_BYTES_MAX;
    const int rc = request->private->spec.piece(request, &stream->txn, &stream->piece);

    if (rc != 0 || stream->body.failed) {
        stream_fail(stream, rc != 0 ? rc : STORE_ENOMEM);
    } else if (stream->piece.done) {
        stream_answer_whole(stream);
    } else if (stream->body.size > whole_max && stream->piece.indexed) {
        stream_open(stream, stream->piece.index);
    } else if (stream->body.size > whole_max) {
        stream->state = HTTP_STREAM_INDEX;
        stream->scout = (struct http_piece){
            .begun = true, .listed = stream->piece.listed, .index = stream->piece.index};
        buffer_append_slice(&stream->scout.last, buffer_slice(&stream->piece.last));
    }
}

static void stream_index(struct http_stream *stream)
{
    struct http_request *request = stream->request;
    const int rc = request->private->spec.piece(request, &stream->txn, &stream->scout);

    if (rc != 0) {
        stream_fail(stream, rc);
    } else if (stream->scout.done) {
        stream_open(stream, stream->scout.index);
    }
}

static void stream_give_up(struct http_stream *stream)
{
    log_write(LOG_WARN, "agent.http",
              "closed a connection: its client does not read the listing it asked for");
    http_conn_close(stream->request->conn);
}

/* Of the address for which most is copied, the one for which most is. */
static struct http_stream *stream_hoarder(struct http_server *http)
{
    struct http_stream *stream;
    struct http_stream *most = NULL;

    TAILQ_FOREACH(stream, &http->streams, entry)
    {
        const uint64_t bytes = stream_client(stream)->stream_copied_bytes;
        const uint64_t most_bytes = most == NULL ? 0 : stream_client(most)->stream_copied_bytes;

        if (bytes > most_bytes ||
            (most != NULL && bytes == most_bytes && stream->copied_bytes > most->copied_bytes)) {
            most = stream;
        }
    }
    assert(most != NULL && most->copied_bytes > 0);
    return most;
}

/* Encodes on while the client is waited for: its snapshot was open for too long. */
static void stream_copy(struct http_stream *stream)
{
    struct http_server *http = stream_server(stream);
    const size_t before = stream->body.size;
    const int rc =
        stream->request->private->spec.piece(stream->request, &stream->txn, &stream->piece);
    const size_t grown = stream->body.size - before;

    if (rc != 0 || stream->body.failed) {
        stream_fail(stream, rc != 0 ? rc : STORE_ENOMEM);
        return;
    }
    stream->copied_bytes += grown;
    http->stream_copied_bytes += grown;
    stream_client(stream)->stream_copied_bytes += grown;
    if (stream->piece.done) {
        stream_close_snapshot(stream);
    }
    if (stream->body.size > HTTP_STREAM_COPY_BYTES_MAX) {
        stream_give_up(stream);
    } else if (http->stream_copied_bytes > HTTP_STREAM_COPIES_BYTES_MAX) {
        stream_give_up(stream_hoarder(http));
    }
}

static void stream_go_on(struct http_stream *stream)
{
    struct http_request *request = stream->request;

    if (stream->last) {
        struct http_conn *conn = request->conn;

        stream_free(stream);
        http_request_finish(request);
        http_conn_answered(conn);
        return;
    }
    if (stream->gzip != NULL && (stream->piece.done || stream_rest(stream).size > 0)) {
        stream_pack(stream);
        return;
    }
    if (!stream->piece.done) {
        const int rc = request->private->spec.piece(request, &stream->txn, &stream->piece);

        if (rc != 0 || stream->body.failed) {
            stream_fail(stream, rc != 0 ? rc : STORE_ENOMEM);
            return;
        }
    }
    if (stream->piece.done) {
        stream_close_snapshot(stream);
    }
    if (stream->body.size == 0) {
        return; /* Nothing to list in all that was read; a chunk of no bytes would be the end. */
    }
    if (stream->gzip != NULL) {
        return; /* That is another step. */
    }
    buffer_clear(&stream_server(stream)->out);
    stream_send(stream);
}

struct http_stream *http_stream_next(struct http_server *http)
{
    struct http_stream *stream;
    struct http_stream *next = NULL;

    if (http->stream_snapshots >= HTTP_STREAMS_MAX) {
        return NULL;
    }
    TAILQ_FOREACH(stream, &http->streams_queued, entry)
    {
        const unsigned least = next == NULL ? UINT_MAX : stream_client(next)->stream_snapshots;

        if (least == 0) {
            break;
        }
        if (stream_client(stream)->stream_snapshots < least) {
            next = stream; /* Of one address, who has waited longest. */
        }
    }
    return next;
}

bool http_stream_can_step(const struct http_stream *stream)
{
    return !stream->waits || (stream->copies && !stream->piece.done);
}

void http_stream_step(struct http_stream *stream)
{
    switch (stream->state) {
    case HTTP_STREAM_QUEUED:
        stream_begin(stream);
        break;
    case HTTP_STREAM_COLLECT:
        stream_collect(stream);
        break;
    case HTTP_STREAM_INDEX:
        stream_index(stream);
        break;
    case HTTP_STREAM_SEND:
        if (stream->waits) {
            stream_copy(stream);
        } else {
            stream_go_on(stream);
        }
        break;
    }
}

void http_stream_sent(struct http_conn *conn)
{
    struct http_stream *stream = conn->private.stream;

    conn->state = HTTP_CONN_BUSY;
    conn->deadline_ms = UINT64_MAX;
    stream->waits = false;
    http_turn_start(conn->http);
}

void http_stream_tick(struct http_stream *stream)
{
    const struct http_server *http = stream_server(stream);
    const bool slow = stream->waits && stream->sent_bytes < HTTP_STREAM_RATE_BYTES;
    const bool wanted =
        http->stream_snapshots >= HTTP_STREAMS_MAX && !TAILQ_EMPTY(&http->streams_queued);

    stream->sent_bytes = 0;
    if (!slow || !stream->txn_open) {
        return;
    }
    stream->stalled_ms += HTTP_STREAM_TICK_MS;
    if (stream->stalled_ms >= (wanted ? HTTP_STREAM_WANTED_MS : HTTP_STREAM_STALL_MS) &&
        !stream->copies) {
        stream->copies = true;
        http_turn_start(stream_server(stream));
    }
}
