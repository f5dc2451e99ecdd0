/* Connections: accepting, reading, framing, deadlines, closing. Everything on the loop.
 *
 * A head is collected as a whole, checked, and only then given to llhttp, so that the parser sees
 * nothing that our own stricter check has not passed, and the request's parts are slices of one
 * buffer. Buffers come from a small stock and go back to it when nothing is in them: an idle or
 * parked connection owns none. */

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

enum {
    HEAD_BYTES_MAX = HTTP_TARGET_BYTES_MAX + HTTP_HEADERS_BYTES_MAX,
    LISTEN_BACKLOG = 1024,
    DRAIN_POLL_MS = 10,
    /* Chunk headers and extensions may take this many times the largest body. */
    CHUNK_OVERHEAD_MAX = 8,
};

struct http_client {
    struct http_client *next;
    unsigned count;
    unsigned char address[16]; /* IPv4 in the first four bytes */
};

static void conn_advance(struct http_conn *conn);
static void conn_close(struct http_conn *conn);

/* --- buffers --- */

static void spare_give(struct http_server *http, struct buffer *buffer)
{
    if (buffer->capacity > 0 && buffer->capacity <= 2 * (size_t)HTTP_READ_BYTES &&
        http->spare_count < HTTP_SPARE_BUFFERS_MAX) {
        buffer_clear(buffer);
        http->spares[http->spare_count++] = *buffer;
        *buffer = (struct buffer){0};
        return;
    }
    buffer_deinit(buffer);
}

static void spare_take(struct http_server *http, struct buffer *buffer)
{
    if (buffer->capacity == 0 && http->spare_count > 0) {
        *buffer = http->spares[--http->spare_count];
    }
}

/* --- deadlines: a heap by key; an entry whose connection has got more time since is put back when
 * it comes up, so that the usual request moves nothing --- */

static void heap_place(struct http_server *http, size_t at, struct http_conn *conn)
{
    http->deadlines[at] = conn;
    conn->heap_at = at;
}

static void heap_up(struct http_server *http, size_t at)
{
    struct http_conn *conn = http->deadlines[at];

    while (at > 0 && http->deadlines[(at - 1) / 2]->heap_key_ms > conn->heap_key_ms) {
        heap_place(http, at, http->deadlines[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_place(http, at, conn);
}

static void heap_down(struct http_server *http, size_t at)
{
    struct http_conn *conn = http->deadlines[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= http->deadline_count) {
            break;
        }
        if (child + 1 < http->deadline_count &&
            http->deadlines[child + 1]->heap_key_ms < http->deadlines[child]->heap_key_ms) {
            child++;
        }
        if (http->deadlines[child]->heap_key_ms >= conn->heap_key_ms) {
            break;
        }
        heap_place(http, at, http->deadlines[child]);
        at = child;
    }
    heap_place(http, at, conn);
}

static void heap_remove(struct http_server *http, struct http_conn *conn)
{
    const size_t at = conn->heap_at;

    if (at == SIZE_MAX) {
        return;
    }
    assert(http->deadlines[at] == conn);
    conn->heap_at = SIZE_MAX;
    http->deadline_count--;
    if (at < http->deadline_count) {
        heap_place(http, at, http->deadlines[http->deadline_count]);
        heap_up(http, at);
        heap_down(http, http->deadlines[at]->heap_at);
    }
}

static void server_on_timer(uv_timer_t *timer);

static void server_arm_timer(struct http_server *http)
{
    if (http->deadline_count == 0 || http->freed) {
        return;
    }
    const uint64_t due = http->deadlines[0]->heap_key_ms;

    if (due < http->timer_due_ms) {
        const uint64_t now = uv_now(http->loop);

        http->timer_due_ms = due;
        (void)uv_timer_start(&http->timer, server_on_timer, due > now ? due - now : 0, 0);
    }
}

/* False when there is no memory for the entry: the caller closes the connection. */
static bool heap_set(struct http_server *http, struct http_conn *conn)
{
    if (conn->heap_at == SIZE_MAX) {
        if (http->deadline_count == http->deadline_capacity) {
            const size_t capacity = http->deadline_capacity == 0 ? 64 : http->deadline_capacity * 2;
            struct http_conn **grown =
                realloc(http->deadlines, capacity * sizeof(struct http_conn *));

            if (grown == NULL) {
                return false;
            }
            http->deadlines = grown;
            http->deadline_capacity = capacity;
        }
        conn->heap_key_ms = conn->deadline_ms;
        heap_place(http, http->deadline_count++, conn);
        heap_up(http, conn->heap_at);
    } else if (conn->deadline_ms < conn->heap_key_ms) {
        conn->heap_key_ms = conn->deadline_ms;
        heap_up(http, conn->heap_at);
    }
    server_arm_timer(http);
    return true;
}

/* `after_ms` from now; UINT64_MAX: none. */
void http_conn_set_deadline(struct http_conn *conn, uint64_t after_ms)
{
    if (conn->state == HTTP_CONN_CLOSED) {
        return;
    }
    if (after_ms == UINT64_MAX) {
        conn->deadline_ms = UINT64_MAX;
        return;
    }
    conn->deadline_ms = uv_now(conn->http->loop) + after_ms;
    if (!heap_set(conn->http, conn)) {
        conn_close(conn);
    }
}

static void conn_on_deadline(struct http_conn *conn)
{
    switch (conn->state) {
    case HTTP_CONN_HEAD:
    case HTTP_CONN_BODY:
    case HTTP_CONN_DRAIN:
    case HTTP_CONN_LINGER:
        conn_close(conn);
        break;
    case HTTP_CONN_BUSY:
        if (conn->private.phase == HTTP_PHASE_PARKED) {
            http_read_expire(&conn->request);
        }
        break;
    case HTTP_CONN_WRITE: {
        const size_t queued = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);

        if (queued < conn->write_queued) {
            conn->write_queued = queued;
            http_conn_set_deadline(conn, HTTP_WRITE_TIMEOUT_MS);
        } else {
            conn_close(conn); /* Took not a byte: memory is not kept for it any longer. */
        }
        break;
    }
    case HTTP_CONN_CLOSED:
        break;
    }
}

static void server_on_timer(uv_timer_t *timer)
{
    struct http_server *http = timer->data;
    const uint64_t now = uv_now(http->loop);

    http->timer_due_ms = UINT64_MAX;
    while (http->deadline_count > 0 && http->deadlines[0]->heap_key_ms <= now) {
        struct http_conn *conn = http->deadlines[0];

        heap_remove(http, conn);
        if (conn->deadline_ms == UINT64_MAX) {
            continue;
        }
        if (conn->deadline_ms > now) {
            (void)heap_set(http, conn); /* Cannot fail: its place was freed just now. */
            continue;
        }
        conn->deadline_ms = UINT64_MAX;
        conn_on_deadline(conn);
    }
    server_arm_timer(http);
}

/* --- clients --- */

static struct http_client *client_get(struct http_server *http, const struct sockaddr *address)
{
    unsigned char key[16] = {0};
    unsigned hash = 0;

    if (address->sa_family == AF_INET) {
        memcpy(key, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else if (address->sa_family == AF_INET6) {
        memcpy(key, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
    }
    for (size_t i = 0; i < sizeof(key); i++) {
        hash = hash * 31 + key[i];
    }
    struct http_client **bucket = &http->clients[hash % 256];

    for (struct http_client *client = *bucket; client != NULL; client = client->next) {
        if (memcmp(client->address, key, sizeof(key)) == 0) {
            client->count++;
            return client;
        }
    }
    struct http_client *client = calloc(1, sizeof(*client));

    if (client != NULL) {
        memcpy(client->address, key, sizeof(key));
        client->count = 1;
        client->next = *bucket;
        *bucket = client;
    }
    return client;
}

static void client_put(struct http_server *http, struct http_client *client)
{
    if (client == NULL || --client->count > 0) {
        return;
    }
    for (size_t i = 0; i < 256; i++) {
        for (struct http_client **at = &http->clients[i]; *at != NULL; at = &(*at)->next) {
            if (*at == client) {
                *at = client->next;
                free(client);
                return;
            }
        }
    }
}

/* --- life of the server's memory --- */

static void server_maybe_free(struct http_server *http)
{
    if (!http->freed || http->conn_count > 0 || http->handles > 0) {
        return;
    }
    for (size_t i = 0; i < http->spare_count; i++) {
        buffer_deinit(&http->spares[i]);
    }
    buffer_deinit(&http->out);
    buffer_deinit(&http->body);
    buffer_deinit(&http->command);
    buffer_deinit(&http->response_headers);
    http_events_free(http->events);
    free(http->deadlines);
    free(http);
}

/* --- life of a connection --- */

void http_request_finish(struct http_request *request)
{
    struct http_conn *conn = request->conn;

    if (request->on_free != NULL) {
        request->on_free(request);
    }
    filter_free(request->private->filter);
    request->private->filter = NULL;
    request->on_free = NULL;
    request->on_cancel = NULL;
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

static void conn_maybe_free(struct http_conn *conn)
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
    server_maybe_free(http);
}

static void conn_on_closed(uv_handle_t *handle)
{
    struct http_conn *conn = handle->data;

    assert(conn->magic == HTTP_CONN_MAGIC);
    conn->tcp_closed = true;
    conn_maybe_free(conn);
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
    if (phase == HTTP_PHASE_READ || phase == HTTP_PHASE_PARKED) {
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

static void conn_close(struct http_conn *conn)
{
    if (conn->state == HTTP_CONN_CLOSED) {
        return;
    }
    conn->state = HTTP_CONN_CLOSED;
    heap_remove(conn->http, conn);
    client_put(conn->http, conn->client);
    conn->client = NULL;
    conn_cancel_request(conn);
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
    conn_close(conn);
    conn->tcp_closed = true;
    conn_maybe_free(conn);
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
        conn_maybe_free(conn);
    }
    return false;
}

/* --- writing --- */

struct pending_write {
    uv_write_t write;
    struct http_conn *conn;
    struct buffer head;
    struct buffer body;
};

/* Half-closes, and reads on for a moment, so that the answer is not lost to a reset that unread
 * input would cause. */
static void conn_linger(struct http_conn *conn)
{
    uv_os_fd_t fd;

    conn->state = HTTP_CONN_LINGER;
    conn->raw_bytes = 0;
    spare_give(conn->http, &conn->in);
    spare_give(conn->http, &conn->ahead);
    if (conn->eof || conn->tcp.loop == NULL) {
        conn_close(conn);
        return;
    }
    if (uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0) {
        (void)shutdown(fd, SHUT_WR); /* Fails only when the peer has reset: the read tells. */
    }
    http_conn_set_deadline(conn, HTTP_LINGER_TIMEOUT_MS);
}

static void conn_on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer);
static void conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out);

static void conn_resume(struct http_conn *conn)
{
    if (conn->paused && conn->tcp.loop != NULL && conn->state != HTTP_CONN_CLOSED) {
        conn->paused = false;
        if (uv_read_start((uv_stream_t *)&conn->tcp, conn_on_alloc, conn_on_read) != 0) {
            conn_close(conn);
        }
    }
}

/* Puts what came ahead behind what is left of `in` after `cut` bytes. */
static void conn_shift(struct http_conn *conn, size_t cut)
{
    assert(cut <= conn->in.size);
    const size_t left = conn->in.size - cut;

    if (left > 0) {
        memmove(conn->in.data, conn->in.data + cut, left);
    }
    conn->in.size = left;
    if (left == 0) {
        spare_give(conn->http, &conn->in);
        conn->in = conn->ahead;
        conn->ahead = (struct buffer){0};
    } else if (conn->ahead.size > 0) {
        buffer_append_slice(&conn->in, buffer_slice(&conn->ahead));
        spare_give(conn->http, &conn->ahead);
    }
    if (conn->in.size == 0 && conn->in.capacity > 0) {
        spare_give(conn->http, &conn->in);
    }
}

/* The current request's bytes are dropped; the next one starts with what is left. */
static void conn_next(struct http_conn *conn)
{
    conn_shift(conn, conn->end);
    conn->scanned = 0;
    conn->head_bytes = 0;
    conn->body_bytes = 0;
    conn->raw_bytes = 0;
    conn->end = 0;
    conn->complete = false;
    conn->state = HTTP_CONN_HEAD;
    if (conn->in.failed || (conn->http->draining && conn->in.size == 0)) {
        conn_close(conn);
        return;
    }
    http_conn_set_deadline(conn, HTTP_IDLE_TIMEOUT_MS);
    conn_resume(conn);
}

void http_conn_answered(struct http_conn *conn)
{
    if (conn->state == HTTP_CONN_CLOSED) {
        return;
    }
    if (conn->close_after) {
        conn_linger(conn);
        conn_resume(conn);
    } else if (!conn->complete) {
        /* The body was not wanted. What is left of it is read and dropped. */
        conn_shift(conn, conn->head_bytes);
        conn->head_bytes = 0;
        conn->body_bytes = 0;
        conn->raw_bytes = 0;
        conn->state = HTTP_CONN_DRAIN;
        http_conn_set_deadline(conn, HTTP_BODY_TIMEOUT_MS);
        conn_resume(conn);
    } else {
        conn_next(conn);
    }
    if (conn->entered == 0) {
        conn_advance(conn);
    }
}

static void conn_on_written(uv_write_t *write, int status)
{
    struct pending_write *pending = write->data;
    struct http_conn *conn = pending->conn;

    buffer_deinit(&pending->head);
    buffer_deinit(&pending->body);
    free(pending);
    if (conn->state == HTTP_CONN_CLOSED) {
        return; /* The close callback comes after this one. */
    }
    if (status < 0) {
        conn_close(conn);
        return;
    }
    http_conn_answered(conn);
}

/* Queues what the socket did not take. */
static int conn_send_rest(struct http_conn *conn, struct slice head, struct buffer *body,
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
            free(pending);
            return UV_ENOMEM;
        }
        bufs[count++] = uv_buf_init(pending->head.data, (unsigned)pending->head.size);
        sent = 0;
    } else {
        sent -= head.size;
    }
    pending->body = *body;
    *body = (struct buffer){0};
    if (pending->body.size > sent) {
        bufs[count++] =
            uv_buf_init(pending->body.data + sent, (unsigned)(pending->body.size - sent));
    }
    conn->state = HTTP_CONN_WRITE;
    const int rc =
        uv_write(&pending->write, (uv_stream_t *)&conn->tcp, bufs, count, conn_on_written);

    if (rc != 0) {
        buffer_deinit(&pending->head);
        buffer_deinit(&pending->body);
        free(pending);
        return rc;
    }
    conn->write_queued = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);
    http_conn_set_deadline(conn, HTTP_WRITE_TIMEOUT_MS);
    return 0;
}

void http_conn_send(struct http_conn *conn, struct slice head, struct buffer *body)
{
    const size_t total = head.size + body->size;
    /* libuv's buffers want a plain pointer; it does not write through it. */
    union {
        const char *in;
        char *out;
    } unconst = {.in = head.data};
    uv_buf_t bufs[2] = {uv_buf_init(unconst.out, (unsigned)head.size),
                        uv_buf_init(body->data, (unsigned)body->size)};
    int rc;

    if (conn->state == HTTP_CONN_CLOSED) {
        conn_maybe_free(conn); /* It may have lived for this answer alone. */
        return;
    }
    if (conn->tcp.loop == NULL) {
        http_conn_answered(conn);
        return;
    }
    rc = uv_try_write((uv_stream_t *)&conn->tcp, bufs, body->size > 0 ? 2 : 1);
    if (rc == UV_EAGAIN) {
        rc = 0;
    }
    if (rc < 0) {
        conn_close(conn);
        return;
    }
    if ((size_t)rc == total) {
        http_conn_answered(conn);
    } else if (conn_send_rest(conn, head, body, (size_t)rc) != 0) {
        conn_close(conn);
    }
}

/* --- parsing --- */

static int parser_on_url(llhttp_t *parser, const char *at, size_t size)
{
    struct http_conn *conn = parser->data;

    conn->url = conn->url.size == 0 ? (struct slice){at, size}
                                    : (struct slice){conn->url.data, conn->url.size + size};
    return 0;
}

static int parser_on_headers_complete(llhttp_t *parser)
{
    parser->upgrade = 0; /* We never switch protocols: an Upgrade header is ignored. */
    return 0;
}

static int parser_on_body(llhttp_t *parser, const char *at, size_t size)
{
    struct http_conn *conn = parser->data;

    if (conn->state == HTTP_CONN_BODY) {
        /* Chunks are moved together in place: what is gathered never passes what was sent. */
        char *to = conn->in.data + conn->head_bytes + conn->body_bytes;

        assert(to <= at);
        memmove(to, at, size);
        conn->body_bytes += size;
    }
    return 0;
}

static int parser_on_message_complete(llhttp_t *parser)
{
    struct http_conn *conn = parser->data;

    conn->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t parser_settings = {
    .on_url = parser_on_url,
    .on_headers_complete = parser_on_headers_complete,
    .on_body = parser_on_body,
    .on_message_complete = parser_on_message_complete,
};

/* Copies the method. 0, or the reason to refuse the line. */
static const char *conn_take_method(struct http_conn *conn, size_t *size)
{
    const char *data = conn->in.data;
    size_t at = 0;

    while (at < conn->head_bytes && at < HTTP_METHOD_BYTES_MAX &&
           ((data[at] >= 'A' && data[at] <= 'Z') || (data[at] >= 'a' && data[at] <= 'z') ||
            data[at] == '-' || data[at] == '_')) {
        at++;
    }
    if (at == 0 || at + 1 >= conn->head_bytes || data[at] != ' ' || data[at + 1] == ' ') {
        return "400 Bad Request: malformed request line";
    }
    memcpy(conn->method, data, at);
    conn->method[at] = '\0';
    *size = at;
    return NULL;
}

static enum http_method method_from(const char *name)
{
    static const struct {
        const char *name;
        enum http_method method;
    } methods[] = {
        {"GET", HTTP_METHOD_GET},   {"PUT", HTTP_METHOD_PUT},
        {"POST", HTTP_METHOD_POST}, {"DELETE", HTTP_METHOD_DELETE},
        {"HEAD", HTTP_METHOD_HEAD}, {"OPTIONS", HTTP_METHOD_OPTIONS},
    };

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(name, methods[i].name) == 0) {
            return methods[i].method;
        }
    }
    return HTTP_METHOD_OTHER;
}

/* Feeds one line of the head with a CR LF of our own. */
static enum llhttp_errno conn_parse_line(struct http_conn *conn, const char *line, size_t size)
{
    enum llhttp_errno rc;

    if (size > 0 && line[size - 1] == '\r') {
        size--;
    }
    rc = size == 0 ? HPE_OK : llhttp_execute(&conn->parser, line, size);
    return rc == HPE_OK ? llhttp_execute(&conn->parser, "\r\n", 2) : rc;
}

/* Lines may end in a bare LF, which Go takes and llhttp takes only with a lenient flag. The flag
 * would let more pass than that, so the lines are shown to it as they should have been. */
static enum llhttp_errno conn_parse_lines(struct http_conn *conn, const char *at, const char *end)
{
    enum llhttp_errno rc = HPE_OK;

    while (at < end && rc == HPE_OK) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));

        assert(lf != NULL); /* A head ends with a line. */
        rc = conn_parse_line(conn, at, (size_t)(lf - at));
        at = lf + 1;
    }
    return at == end ? rc : HPE_INTERNAL; /* Complete before its end: two readings of one head. */
}

/* Runs llhttp over the head. The parser knows a fixed list of methods, Consul answers any with a
 * 405: it is shown GET in place of whatever stands there, which changes nothing for the rest. */
static bool conn_parse(struct http_conn *conn, size_t method_size, bool bare_lf)
{
    const char *at = conn->in.data + method_size;
    const char *end = conn->in.data + conn->head_bytes;
    enum llhttp_errno rc;

    llhttp_init(&conn->parser, HTTP_REQUEST, &parser_settings);
    conn->parser.data = conn;
    conn->url = SLICE_EMPTY;
    conn->complete = false;
    rc = llhttp_execute(&conn->parser, "GET", 3);
    if (rc != HPE_OK) {
        return false;
    }
    if (bare_lf) {
        rc = conn_parse_lines(conn, at, end);
        return conn->complete ? rc == HPE_PAUSED : rc == HPE_OK;
    }
    rc = llhttp_execute(&conn->parser, at, (size_t)(end - at));
    if (conn->complete) {
        return rc == HPE_PAUSED && llhttp_get_error_pos(&conn->parser) == end;
    }
    return rc == HPE_OK;
}

static void conn_refuse(struct http_conn *conn, int status, const char *text)
{
    conn->state = HTTP_CONN_BUSY;
    conn->private.phase = HTTP_PHASE_ANSWERED;
    http_reply_refuse(conn, status, text);
}

/* Fills the request from a complete head. 0, or the status to refuse it with. */
static int conn_parse_head(struct http_conn *conn, struct http_head *head, const char **text)
{
    struct http_request *request = &conn->request;
    const char *line_end = memchr(conn->in.data, '\n', conn->head_bytes);
    size_t method_size = 0;
    int status;

    assert(line_end != NULL);
    const size_t line_size = (size_t)(line_end - conn->in.data) + 1;

    *text = conn_take_method(conn, &method_size);
    if (*text != NULL) {
        return 400;
    }
    if (line_size > HTTP_TARGET_BYTES_MAX + HTTP_METHOD_BYTES_MAX) {
        *text = "414 URI Too Long";
        return 414;
    }
    status = http_head_check((struct slice){conn->in.data, conn->head_bytes}, head, text);
    if (status != 0) {
        return status;
    }
    *text = "400 Bad Request";
    if (!conn_parse(conn, method_size, head->bare_lf) || conn->parser.http_major != 1 ||
        conn->parser.http_minor > 1) {
        return 400;
    }
    conn->http_1_0 = conn->parser.http_minor == 0;
    conn->keep_alive = llhttp_should_keep_alive(&conn->parser) != 0;
    if (!conn->http_1_0 && head->hosts != 1) {
        *text = head->hosts == 0 ? "400 Bad Request: missing required Host header"
                                 : "400 Bad Request: too many Host headers";
        return 400;
    }
    if (conn->http_1_0 && head->chunked) {
        return 400;
    }
    conn->expects_continue = head->has_expect && !conn->http_1_0;
    if (conn->expects_continue &&
        !slice_equal_nocase(head->expect, SLICE_LITERAL("100-continue"))) {
        *text = NULL;
        return 417;
    }
    request->method = method_from(conn->method);
    conn->no_body = request->method == HTTP_METHOD_HEAD;
    request->has_content_length = head->content_lengths > 0;
    request->content_length = head->content_length;
    request->chunked = head->chunked;
    return http_request_parse_target(request, conn->url);
}

static void conn_begin_request(struct http_conn *conn)
{
    struct http_request_private *private = &conn->private;

    private->phase = HTTP_PHASE_HANDLER;
    private->known = false;
    private->parsed = false;
    private->timed_out = false;
    private->min_index = 0;
    private->wait_ms = 0;
    conn->request.cancelled = false;
    conn->request.body = SLICE_EMPTY;
    conn->request.rest = SLICE_EMPTY;
    conn->close_after = false;
    conn->state = HTTP_CONN_BUSY;
    conn->deadline_ms = UINT64_MAX;
}

/* A whole head is there: refuses it, answers at once, starts to collect the body, or hands the
 * request on. */
static void conn_take_request(struct http_conn *conn)
{
    struct http_request *request = &conn->request;
    struct http_head head;
    const char *text = NULL;

    conn->private.bad_query = false;
    const int status = conn_parse_head(conn, &head, &text);

    if (status != 0) {
        conn_refuse(conn, status, text);
        return;
    }
    conn->end = conn->head_bytes;
    conn_begin_request(conn);
    if (!http_route_check(request)) {
        return;
    }
    /* A body on anything else is ignored, so it need not be waited for. */
    const bool wants_body =
        request->method == HTTP_METHOD_PUT || request->method == HTTP_METHOD_POST;

    if (conn->complete || !wants_body) {
        http_route_dispatch(request);
        return;
    }
    if (request->content_length > http_route_body_max(request)) {
        http_reply_too_large(request, request->content_length);
        return;
    }
    conn->state = HTTP_CONN_BODY;
    conn->private.phase = HTTP_PHASE_BODY;
    http_conn_set_deadline(conn, HTTP_BODY_TIMEOUT_MS);
    if (conn->expects_continue && conn->in.size == conn->head_bytes && conn->tcp.loop != NULL) {
        static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
        char copy[sizeof(interim)];

        memcpy(copy, interim, sizeof(interim));
        const uv_buf_t buf = uv_buf_init(copy, sizeof(interim) - 1);

        /* 25 bytes into an empty socket buffer. If that fails the client sends its body after its
         * own time-out, or goes. */
        (void)uv_try_write((uv_stream_t *)&conn->tcp, &buf, 1);
    }
}

/* Looks for the blank line. False: it has not come yet. */
static bool conn_find_head(struct http_conn *conn)
{
    const char *data = conn->in.data;
    size_t at = conn->scanned;

    while (at < conn->in.size) {
        const char *lf = memchr(data + at, '\n', conn->in.size - at);

        if (lf == NULL) {
            conn->scanned = conn->in.size;
            return false;
        }
        at = (size_t)(lf - data) + 1;
        if (at < conn->in.size && data[at] == '\n') {
            conn->head_bytes = at + 1;
            return true;
        }
        if (at + 1 < conn->in.size && data[at] == '\r' && data[at + 1] == '\n') {
            conn->head_bytes = at + 2;
            return true;
        }
        if (at == conn->in.size || (at + 1 == conn->in.size && data[at] == '\r')) {
            conn->scanned = at - 1; /* Look at this LF again when more has come. */
            return false;
        }
    }
    return false;
}

static bool conn_step_head(struct http_conn *conn)
{
    size_t blank = 0;

    if (conn->head_bytes == 0 && conn->scanned == 0) {
        /* An empty line before a request is skipped (RFC 9112 2.2). */
        if (conn->in.size >= 2 && memcmp(conn->in.data, "\r\n", 2) == 0) {
            blank = 2;
        } else if (conn->in.size >= 1 && conn->in.data[0] == '\n') {
            blank = 1;
        }
        if (blank > 0) {
            conn_shift(conn, blank);
        }
    }
    if (conn->in.size == 0) {
        return false;
    }
    const bool first = conn->scanned == 0;

    if (conn_find_head(conn)) {
        conn_take_request(conn);
        return true;
    }
    if (conn->in.size > HEAD_BYTES_MAX) {
        conn_refuse(conn, 431, "431 Request Header Fields Too Large");
        return true;
    }
    if (first) {
        http_conn_set_deadline(conn, HTTP_HEADER_TIMEOUT_MS);
    }
    return false;
}

/* Feeds what has come of a body. True when it is complete or wrong: the state has changed. */
static bool conn_step_body(struct http_conn *conn)
{
    const bool drain = conn->state == HTTP_CONN_DRAIN;
    const size_t fed = conn->head_bytes + conn->body_bytes;
    const uint64_t limit = drain ? HTTP_DRAIN_BYTES_MAX : http_route_body_max(&conn->request);
    const size_t count = conn->in.size - fed;

    if (count == 0) {
        return false;
    }
    const enum llhttp_errno rc = llhttp_execute(&conn->parser, conn->in.data + fed, count);

    if (conn->complete) {
        conn->end = (size_t)(llhttp_get_error_pos(&conn->parser) - conn->in.data);
        assert(conn->end <= conn->in.size);
        assert(conn->end >= conn->head_bytes + conn->body_bytes);
    } else if (rc != HPE_OK) {
        conn->close_after = true;
        if (drain) {
            conn_linger(conn);
        } else {
            conn_refuse(conn, 400, "400 Bad Request: malformed body");
        }
        return true;
    }
    if (!drain && conn->body_bytes > limit) {
        conn->state = HTTP_CONN_BUSY;
        conn->private.phase = HTTP_PHASE_HANDLER;
        conn->close_after = true;
        http_reply_too_large(&conn->request, conn->body_bytes);
        return true;
    }
    if (!conn->complete) {
        conn->in.size = conn->head_bytes + conn->body_bytes; /* All was eaten. */
        conn->raw_bytes += count;
        if (conn->raw_bytes > limit * CHUNK_OVERHEAD_MAX + HTTP_READ_BYTES) {
            conn_close(conn);
            return false;
        }
        http_conn_set_deadline(conn, HTTP_BODY_TIMEOUT_MS);
        return false;
    }
    if (drain) {
        conn_next(conn);
        return true;
    }
    conn->request.body = (struct slice){conn->in.data + conn->head_bytes, conn->body_bytes};
    conn->state = HTTP_CONN_BUSY;
    conn->private.phase = HTTP_PHASE_HANDLER;
    conn->deadline_ms = UINT64_MAX;
    http_route_dispatch(&conn->request);
    return true;
}

static bool conn_step(struct http_conn *conn)
{
    switch (conn->state) {
    case HTTP_CONN_HEAD:
        return conn_step_head(conn);
    case HTTP_CONN_BODY:
    case HTTP_CONN_DRAIN:
        return conn_step_body(conn);
    case HTTP_CONN_BUSY:
    case HTTP_CONN_WRITE:
    case HTTP_CONN_LINGER:
    case HTTP_CONN_CLOSED:
        return false;
    }
    return false;
}

void http_conn_enter(struct http_conn *conn)
{
    conn->entered++;
}

void http_conn_leave(struct http_conn *conn)
{
    assert(conn->entered > 0);
    conn->entered--;
    if (conn->entered == 0) {
        conn_advance(conn);
        conn_maybe_free(conn);
    }
}

/* Takes requests off the input until one waits, or more input is needed. */
static void conn_advance(struct http_conn *conn)
{
    bool more = true;

    conn->entered++;
    while (more) {
        more = conn_step(conn);
    }
    conn->entered--;
    if (conn->eof &&
        (conn->state == HTTP_CONN_HEAD || conn->state == HTTP_CONN_BODY ||
         conn->state == HTTP_CONN_DRAIN ||
         (conn->state == HTTP_CONN_BUSY && conn->private.phase == HTTP_PHASE_PARKED))) {
        conn_close(conn); /* Nothing more comes to complete it, or nobody waits for it. */
    }
}

void http_conn_shrink(struct http_conn *conn)
{
    conn_shift(conn, conn->complete ? conn->end : conn->head_bytes);
    conn->request.body = SLICE_EMPTY;
    conn->head_bytes = 0;
    conn->body_bytes = 0;
    conn->end = 0;
}

/* --- reading --- */

static struct buffer *conn_input(struct http_conn *conn)
{
    const bool busy = conn->state == HTTP_CONN_BUSY || conn->state == HTTP_CONN_WRITE;

    return busy ? &conn->ahead : &conn->in;
}

static void conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct http_conn *conn = handle->data;
    struct buffer *input = conn_input(conn);

    (void)suggested;
    assert(conn->magic == HTTP_CONN_MAGIC);
    spare_take(conn->http, input);
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
            conn_close(conn);
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
        conn_advance(conn);
        break;
    case HTTP_CONN_CLOSED:
        break;
    }
}

static void conn_on_eof(struct http_conn *conn)
{
    const enum http_phase phase = conn->private.phase;

    conn->eof = true;
    switch (conn->state) {
    case HTTP_CONN_BUSY:
        /* A client that half-closes after its request gets its answer; one whose blocking query
         * sleeps is taken to be gone. */
        if (phase == HTTP_PHASE_PARKED || phase == HTTP_PHASE_READ ||
            (phase == HTTP_PHASE_HANDLER && conn->request.on_cancel != NULL)) {
            conn_close(conn);
        }
        break;
    case HTTP_CONN_WRITE:
    case HTTP_CONN_CLOSED:
        break;
    case HTTP_CONN_HEAD:
    case HTTP_CONN_BODY:
    case HTTP_CONN_DRAIN:
    case HTTP_CONN_LINGER:
        conn_close(conn);
        break;
    }
}

static void conn_on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
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
        conn_close(conn);
    }
    if (conn->state == HTTP_CONN_CLOSED) {
        return;
    }
    if (conn->in.size == 0 && conn->in.capacity > 0) {
        spare_give(conn->http, &conn->in);
    }
    if (conn->ahead.size == 0 && conn->ahead.capacity > 0) {
        spare_give(conn->http, &conn->ahead);
    }
}

void http_conn_feed(struct http_conn *conn, struct slice bytes)
{
    buffer_append_slice(conn_input(conn), bytes);
    conn_on_input(conn, bytes.size);
}

/* --- accepting --- */

/* One client address has too many connections: it is told, and closed. */
static void conn_turn_away(struct http_conn *conn)
{
    conn_refuse(conn, 429,
                "Your IP is issuing too many concurrent connections, please rate limit your "
                "calls\n");
}

static bool conn_limit_reached(struct http_conn *conn)
{
    const uint32_t limit = conn->http->server->config->http_conns_per_client_max;
    struct sockaddr_storage address;
    int size = sizeof(address);

    if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&address, &size) != 0) {
        return false;
    }
    conn->client = client_get(conn->http, (const struct sockaddr *)&address);
    return limit > 0 && conn->client != NULL && conn->client->count > limit;
}

static void server_on_connection(uv_stream_t *listener, int status)
{
    struct http_server *http = listener->data;

    if (status < 0) {
        /* Out of descriptors, as a rule. libuv has shed what waited, and goes on accepting when
         * there are some again. */
        log_write(LOG_WARN, "agent.http", "Cannot accept a connection: %s", uv_strerror(status));
        return;
    }
    struct http_conn *conn = http_conn_new(http);

    if (conn == NULL) {
        return; /* Stays in libuv's hand until memory is there: its handle was not taken. */
    }
    if (uv_tcp_init(http->loop, &conn->tcp) != 0) {
        conn->tcp.loop = NULL;
        http_conn_discard(conn);
        return;
    }
    conn->tcp.data = conn;
    if (uv_accept(listener, (uv_stream_t *)&conn->tcp) != 0) {
        conn_close(conn);
        return;
    }
    (void)uv_tcp_nodelay(&conn->tcp, 1); /* An optimisation: it may fail. */
    if (uv_read_start((uv_stream_t *)&conn->tcp, conn_on_alloc, conn_on_read) != 0) {
        conn_close(conn);
        return;
    }
    if (conn_limit_reached(conn)) {
        conn_turn_away(conn);
        return;
    }
    http_conn_set_deadline(conn, HTTP_IDLE_TIMEOUT_MS);
}

static int server_listen(struct http_server *http, const char *address, int port,
                         struct errmsg *err)
{
    struct sockaddr_storage storage;
    uv_tcp_t *listener = &http->listeners[http->listener_count];
    int rc;

    if (http->listener_count == HTTP_LISTENERS_MAX) {
        return errmsg_set(err, UV_EINVAL, "more than %d addresses for HTTP", HTTP_LISTENERS_MAX);
    }
    if (uv_ip4_addr(address, port, (struct sockaddr_in *)&storage) != 0 &&
        uv_ip6_addr(address, port, (struct sockaddr_in6 *)&storage) != 0) {
        return errmsg_set(err, UV_EINVAL, "HTTP address \"%s\" is no IP address", address);
    }
    rc = uv_tcp_init(http->loop, listener);
    if (rc != 0) {
        return errmsg_set(err, rc, "listen on %s: %s", address, uv_strerror(rc));
    }
    http->listener_count++;
    http->handles++;
    listener->data = http;
    rc = uv_tcp_bind(listener, (const struct sockaddr *)&storage, 0);
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)listener, LISTEN_BACKLOG, server_on_connection);
    }
    if (rc != 0) {
        return errmsg_set(err, rc, "listen on %s port %d: %s", address, port, uv_strerror(rc));
    }
    return 0;
}

static int server_listen_all(struct http_server *http, struct errmsg *err)
{
    const struct config *config = http->server->config;
    const char *at = config->http_address != NULL ? config->http_address : config->client_addr;

    if (config->http_port < 0) {
        return 0;
    }
    while (*at != '\0') {
        char address[64];
        const size_t blank = strspn(at, " \t");
        const size_t size = strcspn(at + blank, " \t");

        at += blank;
        if (size == 0) {
            break;
        }
        if (size >= sizeof(address)) {
            return errmsg_set(err, UV_EINVAL, "HTTP address \"%.80s\" is no IP address", at);
        }
        memcpy(address, at, size);
        address[size] = '\0';
        at += size;
        const int rc = server_listen(http, address, config->http_port, err);

        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* --- life of the server --- */

/* http_config.response_headers, as they go on the wire. */
static void server_response_headers(struct http_server *http)
{
    const char *name;
    json_t *value;

    json_object_foreach(http->server->config->http_response_headers, name, value)
    {
        const char *text = json_string_value(value);

        if (text != NULL && strpbrk(text, "\r\n") == NULL && strpbrk(name, "\r\n: ") == NULL) {
            buffer_printf(&http->response_headers, "%s: %s\r\n", name, text);
        }
    }
}

uint64_t http_random(struct http_server *http)
{
    /* splitmix64: spreads wake-ups, guards nothing. */
    uint64_t z = (http->random += 0x9e3779b97f4a7c15ULL);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

int http_server_new(struct server *server, struct http_server **out, struct errmsg *err)
{
    struct http_server *http = calloc(1, sizeof(*http));

    if (http == NULL) {
        return errmsg_set(err, UV_ENOMEM, "no memory for the HTTP server");
    }
    http->server = server;
    http->loop = server->loop;
    http->timer_due_ms = UINT64_MAX;
    http->date_s = -1;
    server_random(&http->random, sizeof(http->random));
    server_response_headers(http);
    (void)uv_timer_init(http->loop, &http->timer); /* Never fails. */
    (void)uv_timer_init(http->loop, &http->drain_timer);
    http->timer.data = http;
    http->drain_timer.data = http;
    http->handles = 2;
    const int rc = server_listen_all(http, err);

    if (rc != 0) {
        http_server_free(http);
        return rc;
    }
    *out = http;
    return 0;
}

uint16_t http_server_port(const struct http_server *http)
{
    struct sockaddr_storage address;
    int size = sizeof(address);

    if (http->listener_count == 0 ||
        uv_tcp_getsockname(&http->listeners[0], (struct sockaddr *)&address, &size) != 0) {
        return 0;
    }
    /* The port is at the same place for both families. */
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

static void server_on_handle_closed(uv_handle_t *handle)
{
    struct http_server *http = handle->data;

    http->handles--;
    server_maybe_free(http);
}

static void server_close_listeners(struct http_server *http)
{
    for (size_t i = 0; i < http->listener_count; i++) {
        if (!uv_is_closing((uv_handle_t *)&http->listeners[i])) {
            uv_close((uv_handle_t *)&http->listeners[i], server_on_handle_closed);
        }
    }
}

static bool server_is_quiet(const struct http_server *http)
{
    for (const struct http_conn *conn = http->conns; conn != NULL; conn = conn->next) {
        if (conn->state != HTTP_CONN_LINGER && conn->state != HTTP_CONN_CLOSED) {
            return false;
        }
    }
    return true;
}

static void server_on_drain_timer(uv_timer_t *timer)
{
    struct http_server *http = timer->data;

    if (!server_is_quiet(http) && uv_now(http->loop) < http->drain_deadline_ms) {
        return;
    }
    (void)uv_timer_stop(timer);
    if (http->drain_done != NULL) {
        void (*done)(void *context) = http->drain_done;

        http->drain_done = NULL;
        done(http->drain_context);
    }
}

void http_server_drain(struct http_server *http, uint64_t timeout_ms, void (*done)(void *context),
                       void *context)
{
    struct http_conn *next;

    http->draining = true;
    http->drain_done = done;
    http->drain_context = context;
    http->drain_deadline_ms = uv_now(http->loop) + timeout_ms;
    server_close_listeners(http);
    for (struct http_conn *conn = http->conns; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == HTTP_CONN_HEAD && conn->in.size == 0) {
            conn_close(conn);
        } else if (conn->state == HTTP_CONN_BUSY && conn->private.phase == HTTP_PHASE_PARKED) {
            http_read_expire(&conn->request);
        }
    }
    (void)uv_timer_start(&http->drain_timer, server_on_drain_timer, 0, DRAIN_POLL_MS);
}

void http_server_free(struct http_server *http)
{
    struct http_conn *next;

    if (http == NULL) {
        return;
    }
    http->freed = true;
    http->draining = true;
    server_close_listeners(http);
    for (struct http_conn *conn = http->conns; conn != NULL; conn = next) {
        next = conn->next;
        conn_close(conn);
    }
    if (http->txn_open) {
        store_read_end(&http->txn);
        http->txn_open = false;
    }
    uv_close((uv_handle_t *)&http->timer, server_on_handle_closed);
    uv_close((uv_handle_t *)&http->drain_timer, server_on_handle_closed);
}
