/* Connections: reading, writing, closing. Everything on the loop.
 *
 * Buffers come from a small stock and go back to it when nothing is in them: an idle or parked
 * connection owns none. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "kv/store.h"
#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/log.h"
#include "server/server.h"

/* --- life of a connection --- */

void http_request_finish(struct http_request *request)
{
    struct http_conn *conn = request->conn;

    http_timing_end(request);
    http_archive_release(conn);
    if (request->on_free != NULL) {
        request->on_free(request);
    }
    filter_free(request->private->filter);
    request->private->filter = NULL;
    request->on_free = NULL;
    request->on_cancel = NULL;
    request->sleeps = false;
    request->state = NULL;
    request->body = SLICE_EMPTY;
    request->params = NULL;
    request->param_count = 0;
    request->path = SLICE_EMPTY;
    request->rest = SLICE_EMPTY;
    if (conn->private.headers.capacity > 0) {
        buffer_deinit(&conn->private.headers);
    }
    if (conn->private.text_bytes > HTTP_TEXT_KEEP_BYTES) {
        free(conn->private.text);
        conn->private.text = NULL;
        conn->private.text_bytes = 0;
    }
    conn->private.phase = HTTP_PHASE_ANSWERED;
}

void http_conn_maybe_free(struct http_conn *conn)
{
    struct http_server *http = conn->http;

    if (!conn->tcp_closed || conn->private.phase != HTTP_PHASE_ANSWERED ||
        conn->private.holds > 0 || conn->entered > 0) {
        return;
    }
    assert(conn->heap_at == SIZE_MAX);
    if (conn->previous != NULL) {
        conn->previous->next = conn->next;
    } else {
        http->conns = conn->next;
    }
    if (conn->next != NULL) {
        conn->next->previous = conn->previous;
    }
    buffer_deinit(&conn->in);
    buffer_deinit(&conn->ahead);
    free(conn->private.text);
    conn->magic = 0;
    free(conn);
    http->conn_count--;
    http_server_maybe_free(http);
}

static void conn_on_closed(uv_handle_t *handle)
{
    struct http_conn *conn = handle->data;

    assert(conn->magic == HTTP_CONN_MAGIC);
    conn->tcp_closed = true;
    http_conn_maybe_free(conn);
}

/* The client is gone: whoever works on its request is told. */
static void conn_cancel_request(struct http_conn *conn)
{
    struct http_request *request = &conn->request;
    const enum http_phase phase = conn->private.phase;

    if (phase == HTTP_PHASE_ANSWERED) {
        return;
    }
    request->cancelled = true;
    if (phase == HTTP_PHASE_READ || phase == HTTP_PHASE_PARKED || phase == HTTP_PHASE_WOKEN ||
        phase == HTTP_PHASE_STREAM) {
        http_read_cancel(request);
    }
    const bool detached = phase != HTTP_PHASE_HANDLER || request->on_cancel != NULL;

    if (request->on_cancel != NULL) {
        request->on_cancel(request);
    }
    if (detached && conn->private.holds == 0) {
        http_request_finish(&conn->request);
    }
}

void http_conn_close(struct http_conn *conn)
{
    if (conn->state == HTTP_CONN_CLOSED) {
        return;
    }
    conn->state = HTTP_CONN_CLOSED;
    http_deadline_remove(conn->http, conn);
    conn_cancel_request(conn);
    http_client_put(conn->http, conn->client);
    conn->client = NULL;
    http_archive_release(conn);
    http_file_free(conn->file);
    conn->file = NULL;
    buffer_deinit(&conn->in);
    buffer_deinit(&conn->ahead);
    if (conn->tcp.loop == NULL) {
        return; /* Without a socket: http_conn_discard follows. */
    }
    uv_close((uv_handle_t *)&conn->tcp, conn_on_closed);
}

void http_conn_discard(struct http_conn *conn)
{
    assert(conn->tcp.loop == NULL);
    http_conn_close(conn);
    conn->tcp_closed = true;
    http_conn_maybe_free(conn);
}

struct http_conn *http_conn_new(struct http_server *http)
{
    struct http_conn *conn = calloc(1, sizeof(*conn));

    if (conn == NULL) {
        return NULL;
    }
    conn->magic = HTTP_CONN_MAGIC;
    conn->http = http;
    conn->state = HTTP_CONN_HEAD;
    conn->heap_at = SIZE_MAX;
    conn->deadline_ms = UINT64_MAX;
    conn->request.server = http->server;
    conn->request.conn = conn;
    conn->request.private = &conn->private;
    conn->private.phase = HTTP_PHASE_ANSWERED;
    conn->next = http->conns;
    if (http->conns != NULL) {
        http->conns->previous = conn;
    }
    http->conns = conn;
    http->conn_count++;
    return conn;
}

void http_request_hold(struct http_request *request)
{
    request->private->holds++;
    request->private->phase = HTTP_PHASE_HELD;
}

bool http_request_release(struct http_request *request)
{
    struct http_conn *conn = request->conn;

    assert(request->private->holds > 0);
    request->private->holds--;
    if (!request->cancelled) {
        if (request->private->holds == 0) {
            request->private->phase = HTTP_PHASE_HANDLER;
        }
        return true;
    }
    if (request->private->holds == 0) {
        http_request_finish(&conn->request);
        http_conn_maybe_free(conn);
    }
    return false;
}

/* --- writing --- */

struct pending_write {
    uv_write_t write;
    struct http_conn *conn;
    struct buffer head;
    struct http_body *body;
};

struct http_body *http_body_new(struct buffer *bytes)
{
    struct http_body *body = malloc(sizeof(*body));

    if (body != NULL) {
        *body = (struct http_body){.references = 1, .bytes = *bytes};
        *bytes = (struct buffer){0};
    }
    return body;
}

struct http_body *http_body_ref(struct http_body *body)
{
    assert(body->references > 0);
    body->references++;
    return body;
}

void http_body_unref(struct http_body *body)
{
    while (body != NULL) {
        struct http_body *packed = body->packed;

        assert(body->references > 0);
        body->references--;
        if (body->references > 0) {
            return;
        }
        buffer_deinit(&body->bytes);
        free(body);
        body = packed;
    }
}

/* Half-closes, and reads on for a moment, so that the answer is not lost to a reset that unread
 * input would cause. */
void http_conn_linger(struct http_conn *conn)
{
    uv_os_fd_t fd;

    conn->state = HTTP_CONN_LINGER;
    conn->raw_bytes = 0;
    http_spare_give(conn->http, &conn->in);
    http_spare_give(conn->http, &conn->ahead);
    if (conn->eof || conn->tcp.loop == NULL) {
        http_conn_close(conn);
        return;
    }
    if (uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0) {
        (void)shutdown(fd, SHUT_WR); /* Fails only when the peer has reset: the read tells. */
    }
    http_conn_set_deadline(conn, HTTP_LINGER_TIMEOUT_MS);
}

void http_conn_pause(struct http_conn *conn)
{
    if (conn->tcp.loop != NULL) {
        conn->paused = true;
        conn->deadline_ms = UINT64_MAX;
        (void)uv_read_stop((uv_stream_t *)&conn->tcp); /* Never fails. */
    }
}

void http_conn_resume(struct http_conn *conn)
{
    if (conn->paused && conn->tcp.loop != NULL && conn->state != HTTP_CONN_CLOSED) {
        conn->paused = false;
        if (uv_read_start((uv_stream_t *)&conn->tcp, http_conn_on_alloc, http_conn_on_read) != 0) {
            http_conn_close(conn);
        }
    }
}

/* Puts what came ahead behind what is left of `in` after `cut` bytes. */
void http_conn_shift(struct http_conn *conn, size_t cut)
{
    assert(cut <= conn->in.size);
    const size_t left = conn->in.size - cut;

    if (left > 0) {
        memmove(conn->in.data, conn->in.data + cut, left);
    }
    conn->in.size = left;
    if (left == 0) {
        http_spare_give(conn->http, &conn->in);
        conn->in = conn->ahead;
        conn->ahead = (struct buffer){0};
    } else if (conn->ahead.size > 0) {
        buffer_append_slice(&conn->in, buffer_slice(&conn->ahead));
        http_spare_give(conn->http, &conn->ahead);
    }
    if (conn->in.size == 0 && conn->in.capacity > 0) {
        http_spare_give(conn->http, &conn->in);
    }
}

/* The current request's bytes are dropped; the next one starts with what is left. */
void http_conn_next(struct http_conn *conn)
{
    http_conn_shift(conn, conn->end);
    conn->scanned = 0;
    conn->head_bytes = 0;
    conn->body_bytes = 0;
    conn->raw_bytes = 0;
    conn->end = 0;
    conn->complete = false;
    conn->state = HTTP_CONN_HEAD;
    if (conn->in.failed || (conn->http->draining && conn->in.size == 0)) {
        http_conn_close(conn);
        return;
    }
    http_conn_set_deadline(conn, HTTP_IDLE_TIMEOUT_MS);
    http_conn_resume(conn);
}

void http_conn_answered(struct http_conn *conn)
{
    if (conn->state == HTTP_CONN_CLOSED) {
        return;
    }
    http_file_free(conn->file);
    conn->file = NULL;
    if (conn->close_after) {
        http_conn_linger(conn);
        http_conn_resume(conn);
    } else if (!conn->complete) {
        /* The body was not wanted. What is left of it is read and dropped. */
        http_conn_shift(conn, conn->head_bytes);
        conn->head_bytes = 0;
        conn->body_bytes = 0;
        conn->raw_bytes = 0;
        conn->rate_bytes = 0;
        conn->state = HTTP_CONN_DRAIN;
        http_conn_set_deadline(conn, HTTP_BODY_TIMEOUT_MS);
        http_conn_resume(conn);
    } else {
        http_conn_next(conn);
    }
    if (conn->entered == 0) {
        http_conn_advance(conn);
    }
}

/* All was taken: the next piece of the answer, or the next request. */
static void conn_sent(struct http_conn *conn)
{
    if (conn->private.stream != NULL) {
        http_stream_sent(conn);
    } else if (conn->file != NULL) {
        http_file_sent(conn);
    } else {
        http_conn_answered(conn);
    }
}

static void pending_free(struct pending_write *pending)
{
    buffer_deinit(&pending->head);
    http_body_unref(pending->body);
    free(pending);
}

static void conn_on_written(uv_write_t *write, int status)
{
    struct pending_write *pending = write->data;
    struct http_conn *conn = pending->conn;

    pending_free(pending);
    if (conn->state == HTTP_CONN_CLOSED) {
        return; /* The close callback comes after this one. */
    }
    if (status < 0) {
        http_conn_close(conn);
        return;
    }
    conn_sent(conn);
}

/* Queues what the socket did not take. */
static int conn_send_rest(struct http_conn *conn, struct slice head, struct http_body *body,
                          size_t sent)
{
    struct pending_write *pending = calloc(1, sizeof(*pending));
    uv_buf_t bufs[2];
    unsigned count = 0;

    if (pending == NULL) {
        return UV_ENOMEM;
    }
    pending->write.data = pending;
    pending->conn = conn;
    if (sent < head.size) {
        buffer_append(&pending->head, head.data + sent, head.size - sent);
        if (pending->head.failed) {
            pending_free(pending);
            return UV_ENOMEM;
        }
        bufs[count++] = uv_buf_init(pending->head.data, (unsigned)pending->head.size);
        sent = 0;
    } else {
        sent -= head.size;
    }
    if (body != NULL && body->bytes.size > sent) {
        pending->body = http_body_ref(body);
        bufs[count++] = uv_buf_init(body->bytes.data + sent, (unsigned)(body->bytes.size - sent));
    }
    conn->state = HTTP_CONN_WRITE;
    const int rc =
        uv_write(&pending->write, (uv_stream_t *)&conn->tcp, bufs, count, conn_on_written);

    if (rc != 0) {
        pending_free(pending);
        return rc;
    }
    conn->write_queued = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);
    http_conn_set_deadline(conn, HTTP_WRITE_TIMEOUT_MS);
    return 0;
}

void http_conn_send(struct http_conn *conn, struct slice head, struct http_body *body)
{
    const size_t body_bytes = body == NULL ? 0 : body->bytes.size;
    const size_t total = head.size + body_bytes;
    /* libuv's buffers want a plain pointer; it does not write through it. */
    union {
        const char *in;
        char *out;
    } unconst = {.in = head.data};
    uv_buf_t bufs[2] = {uv_buf_init(unconst.out, (unsigned)head.size),
                        uv_buf_init(body == NULL ? NULL : body->bytes.data, (unsigned)body_bytes)};
    int rc;

    if (conn->state == HTTP_CONN_CLOSED) {
        http_conn_maybe_free(conn); /* It may have lived for this answer alone. */
        return;
    }
    if (conn->tcp.loop == NULL) {
        conn_sent(conn);
        return;
    }
    rc = uv_try_write((uv_stream_t *)&conn->tcp, bufs, body_bytes > 0 ? 2 : 1);
    if (rc == UV_EAGAIN) {
        rc = 0;
    }
    if (rc < 0) {
        http_conn_close(conn);
        return;
    }
    if ((size_t)rc == total) {
        conn_sent(conn);
    } else if (conn_send_rest(conn, head, body, (size_t)rc) != 0) {
        http_conn_close(conn);
    }
}

/* --- reading --- */

static struct buffer *conn_input(struct http_conn *conn)
{
    const bool busy = conn->state == HTTP_CONN_BUSY || conn->state == HTTP_CONN_WRITE;

    return busy ? &conn->ahead : &conn->in;
}

void http_conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct http_conn *conn = handle->data;
    struct buffer *input = conn_input(conn);

    (void)suggested;
    assert(conn->magic == HTTP_CONN_MAGIC);
    http_spare_take(conn->http, input);
    char *at = buffer_reserve(input, HTTP_READ_BYTES);

    *out = uv_buf_init(at, at == NULL ? 0 : HTTP_READ_BYTES); /* Empty: UV_ENOBUFS. */
}

/* `input` has grown. */
static void conn_on_input(struct http_conn *conn, size_t count)
{
    switch (conn->state) {
    case HTTP_CONN_LINGER:
        buffer_clear(&conn->in);
        conn->raw_bytes += count;
        if (conn->raw_bytes > HTTP_LINGER_BYTES_MAX) {
            http_conn_close(conn);
        }
        break;
    case HTTP_CONN_BUSY:
    case HTTP_CONN_WRITE:
        if (conn->ahead.size > HTTP_PIPELINE_BYTES_MAX && conn->tcp.loop != NULL) {
            conn->paused = true;
            (void)uv_read_stop((uv_stream_t *)&conn->tcp);
        }
        break;
    case HTTP_CONN_HEAD:
    case HTTP_CONN_BODY:
    case HTTP_CONN_DRAIN:
        http_conn_advance(conn);
        break;
    case HTTP_CONN_CLOSED:
        break;
    }
}

bool http_conn_sleeps(const struct http_conn *conn)
{
    const enum http_phase phase = conn->private.phase;

    return conn->state == HTTP_CONN_BUSY &&
           (phase == HTTP_PHASE_PARKED || (phase == HTTP_PHASE_WOKEN && !conn->private.put_off) ||
            (phase == HTTP_PHASE_HANDLER && conn->request.sleeps));
}

bool http_conn_ends(const struct http_conn *conn)
{
    const size_t request = conn->complete ? conn->end : conn->head_bytes;

    return conn->eof && conn->in.size <= request && conn->ahead.size == 0;
}

/* What was asked before is answered; then the connection ends. */
static void conn_on_eof(struct http_conn *conn)
{
    conn->eof = true;
    if (conn->state == HTTP_CONN_LINGER) {
        http_conn_close(conn);
    } else {
        http_conn_advance(conn);
    }
}

void http_conn_on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct http_conn *conn = stream->data;
    struct buffer *input = conn_input(conn);

    (void)buffer;
    assert(conn->magic == HTTP_CONN_MAGIC);
    if (count > 0) {
        input->size += (size_t)count;
        conn_on_input(conn, (size_t)count);
    } else if (count == UV_EOF) {
        conn_on_eof(conn);
    } else if (count < 0) {
        http_conn_close(conn);
    }
    if (conn->state == HTTP_CONN_CLOSED) {
        return;
    }
    if (conn->in.size == 0 && conn->in.capacity > 0) {
        http_spare_give(conn->http, &conn->in);
    }
    if (conn->ahead.size == 0 && conn->ahead.capacity > 0) {
        http_spare_give(conn->http, &conn->ahead);
    }
}

void http_conn_feed(struct http_conn *conn, struct slice bytes)
{
    buffer_append_slice(conn_input(conn), bytes);
    conn_on_input(conn, bytes.size);
}
