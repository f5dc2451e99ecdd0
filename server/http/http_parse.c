/* Framing: from a connection's input to whole requests.
 *
 * A head is collected as a whole, checked, and only then given to llhttp, so that the parser sees
 * nothing that our own stricter check has not passed, and the request's parts are slices of one
 * buffer. */

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
    /* Chunk headers and extensions may take this many times the largest body. */
    CHUNK_OVERHEAD_MAX = 8,
};

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

    if (conn->spool != NULL) {
        http_spool_add(conn->spool, at, size);
        conn->body_bytes += size;
    } else if (conn->state == HTTP_CONN_BODY) {
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

void http_conn_refuse(struct http_conn *conn, int status, const char *text)
{
    conn->state = HTTP_CONN_BUSY;
    conn->private.phase = HTTP_PHASE_ANSWERED;
    http_archive_release(conn);
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
    conn->keep_alive = !head->close && (!conn->http_1_0 || head->keep_alive);
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
    if (conn->no_body && head->content_length > 0) {
        return 400; /* As Go: whoever is between might take that body for a request. */
    }
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
    private->changed = false;
    private->put_off = false;
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
        http_conn_refuse(conn, status, text);
        return;
    }
    conn->end = conn->head_bytes;
    conn_begin_request(conn);
    conn->private.gzip = head.gzip;
    if (!http_route_check(request)) {
        return;
    }
    /* A body on anything else is ignored, so it need not be waited for. */
    const bool wants_body =
        request->method == HTTP_METHOD_PUT || request->method == HTTP_METHOD_POST;

    if (wants_body && !http_archive_admit(request)) {
        return;
    }
    if (conn->complete && conn->spool != NULL) {
        http_spool_end(conn);
        return;
    }
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
    conn->rate_bytes = 0;
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
            http_conn_shift(conn, blank);
        }
    }
    if (conn->in.size == 0 || (conn->in.size == 1 && conn->in.data[0] == '\r')) {
        return false; /* Nothing yet, or the half of an empty line. */
    }
    const bool first = conn->scanned == 0;

    if (conn_find_head(conn)) {
        conn_take_request(conn);
        return true;
    }
    if (conn->in.size > HEAD_BYTES_MAX) {
        http_conn_refuse(conn, 431, "431 Request Header Fields Too Large");
        return true;
    }
    if (first) {
        http_conn_set_deadline(conn, HTTP_HEADER_TIMEOUT_MS);
    }
    return false;
}

/* Where the next byte of the body comes in `in`: behind the others, unless they are spooled. */
static size_t conn_body_at(const struct http_conn *conn)
{
    return conn->head_bytes + (conn->spool == NULL ? conn->body_bytes : 0);
}

/* All of it has come. */
static void conn_body_end(struct http_conn *conn)
{
    if (conn->spool != NULL) {
        http_spool_end(conn);
        return;
    }
    conn->request.body = (struct slice){conn->in.data + conn->head_bytes, conn->body_bytes};
    conn->state = HTTP_CONN_BUSY;
    conn->private.phase = HTTP_PHASE_HANDLER;
    conn->deadline_ms = UINT64_MAX;
    http_route_dispatch(&conn->request);
}

/* Some of it has come, `count` bytes as sent: all were eaten. */
static void conn_body_progress(struct http_conn *conn, size_t count)
{
    conn->rate_bytes += count;
    if (conn->rate_bytes >= HTTP_RATE_BYTES) {
        conn->rate_bytes = 0;
        http_conn_set_deadline(conn, HTTP_BODY_TIMEOUT_MS);
    }
    if (conn->spool != NULL) {
        http_spool_step(conn);
    }
}

/* Feeds what has come of a body. True when it is complete or wrong: the state has changed. */
static bool conn_step_body(struct http_conn *conn)
{
    const bool drain = conn->state == HTTP_CONN_DRAIN;
    const size_t fed = conn_body_at(conn);
    const uint64_t limit = drain ? HTTP_DRAIN_BYTES_MAX : http_route_body_max(&conn->request);
    const size_t count = conn->in.size - fed;

    if (count == 0) {
        return false;
    }
    const enum llhttp_errno rc = llhttp_execute(&conn->parser, conn->in.data + fed, count);

    if (conn->complete) {
        conn->end = (size_t)(llhttp_get_error_pos(&conn->parser) - conn->in.data);
        assert(conn->end <= conn->in.size);
        assert(conn->end >= conn_body_at(conn));
    } else if (rc != HPE_OK) {
        conn->close_after = true;
        if (drain) {
            http_conn_linger(conn);
        } else {
            http_conn_refuse(conn, 400, "400 Bad Request: malformed body");
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
        conn->in.size = conn_body_at(conn);
        conn->raw_bytes += count;
        if (conn->raw_bytes > limit * CHUNK_OVERHEAD_MAX + HTTP_READ_BYTES) {
            http_conn_close(conn);
            return false;
        }
        conn_body_progress(conn, count);
        return false;
    }
    if (drain) {
        http_conn_next(conn);
    } else {
        conn_body_end(conn);
    }
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
        http_conn_advance(conn);
        http_conn_maybe_free(conn);
    }
}

/* The client has closed its side, and all that it sent is looked at. */
static void conn_end_input(struct http_conn *conn)
{
    switch (conn->state) {
    case HTTP_CONN_HEAD:
        if (conn->in.size > 0) {
            http_conn_refuse(conn, 400, "400 Bad Request");
        } else {
            http_conn_close(conn);
        }
        break;
    case HTTP_CONN_BODY:
        http_conn_refuse(conn, 400, "400 Bad Request: unexpected end of the body");
        break;
    case HTTP_CONN_DRAIN:
        http_conn_close(conn);
        break;
    case HTTP_CONN_BUSY:
        if (http_conn_sleeps(conn)) {
            http_conn_close(conn); /* Who has gone altogether looks the same. */
        }
        break;
    case HTTP_CONN_WRITE:
    case HTTP_CONN_LINGER:
    case HTTP_CONN_CLOSED:
        break;
    }
}

/* Takes requests off the input until one waits, or more input is needed. */
void http_conn_advance(struct http_conn *conn)
{
    bool more = true;

    conn->entered++;
    while (more) {
        more = conn_step(conn);
    }
    conn->entered--;
    if (conn->eof) {
        conn_end_input(conn);
    }
}

void http_conn_shrink(struct http_conn *conn)
{
    http_conn_shift(conn, conn->complete ? conn->end : conn->head_bytes);
    conn->request.body = SLICE_EMPTY;
    conn->head_bytes = 0;
    conn->body_bytes = 0;
    conn->end = 0;
}
