/* Answers: status line, headers and body, composed in one buffer and handed to the connection in
 * one write. Header names are spelled as Go writes them. */

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/server.h"

#define NS_PER_US 1000U

static const char TEXT_PLAIN[] = "text/plain; charset=utf-8";
static const char APPLICATION_JSON[] = "application/json";

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "OK"},
        {301, "Moved Permanently"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {413, "Request Entity Too Large"},
        {414, "Request URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].status == status) {
            return texts[i].text;
        }
    }
    return "Unknown";
}

/* The Date header's line, made once a second. */
static const char *reply_date(struct http_server *http)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const time_t now = time(NULL);
    struct tm tm;

    if ((int64_t)now != http->date_s && gmtime_r(&now, &tm) != NULL) {
        http->date_s = (int64_t)now;
        /* Not strftime: names of days must not follow the locale. */
        (void)snprintf(http->date, sizeof(http->date), "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                       days + (size_t)tm.tm_wday * 3, tm.tm_mday % 100,
                       months + (size_t)tm.tm_mon * 3, (tm.tm_year + 1900) % 10000,
                       tm.tm_hour % 100, tm.tm_min % 100, tm.tm_sec % 100);
    }
    return http->date;
}

static void put_header(struct buffer *out, const char *name, const char *value)
{
    buffer_append_text(out, name);
    buffer_append(out, ": ", 2);
    buffer_append_text(out, value);
    buffer_append(out, "\r\n", 2);
}

static void put_meta(struct buffer *out, const struct http_meta *meta, const struct config *config)
{
    if (meta->effective != NULL) {
        put_header(out, "X-Consul-Effective-Consistency", meta->effective);
    }
    if (meta->index) {
        buffer_append_text(out, "X-Consul-Index: ");
        /* 0 would make clients ask again at once, for ever. */
        json_put_u64(out, meta->index_value > 0 ? meta->index_value : 1);
        buffer_append(out, "\r\n", 2);
    } else if (!meta->leader) {
        return;
    }
    buffer_append_text(out, meta->known_leader ? "X-Consul-Knownleader: true\r\n"
                                               : "X-Consul-Knownleader: false\r\n");
    buffer_append_text(out, "X-Consul-Lastcontact: ");
    json_put_u64(out, meta->last_contact_ms);
    buffer_append(out, "\r\n", 2);
    /* Later releases tell these; dashboards and clients look for them. */
    buffer_append_text(out, "X-Consul-Query-Backend: blocking-query\r\n"
                            "X-Consul-Default-Acl-Policy: ");
    buffer_append_text(out, config->acl_enabled ? "deny\r\n" : "allow\r\n");
}

/* Whether the connection ends with this answer. */
static bool reply_closes(const struct http_conn *conn)
{
    if (conn->close_after || !conn->keep_alive || conn->http->draining || http_conn_ends(conn)) {
        return true;
    }
    /* A large body that nobody wants is not read to its end. */
    return !conn->complete && conn->request.has_content_length &&
           conn->request.content_length > HTTP_DRAIN_BYTES_MAX;
}

static void put_status(struct buffer *out, const struct http_conn *conn, int status)
{
    buffer_append_text(out, conn->http_1_0 ? "HTTP/1.0 " : "HTTP/1.1 ");
    json_put_u64(out, (uint64_t)status);
    buffer_append_char(out, ' ');
    buffer_append_text(out, status_text(status));
    buffer_append(out, "\r\n", 2);
}

static void put_connection(struct buffer *out, struct http_conn *conn)
{
    conn->close_after = reply_closes(conn);
    if (conn->close_after) {
        buffer_append_text(out, "Connection: close\r\n");
    } else if (conn->http_1_0) {
        buffer_append_text(out, "Connection: keep-alive\r\n");
    }
    put_header(out, "Date", reply_date(conn->http));
}

static void put_end(struct buffer *out, struct http_conn *conn, size_t body_bytes)
{
    put_connection(out, conn);
    buffer_append_text(out, "Content-Length: ");
    json_put_u64(out, body_bytes);
    buffer_append(out, "\r\n\r\n", 4);
}

/* Status line and headers, but for how the body ends. */
static void put_head(struct http_request *request, int status, const char *content_type,
                     const struct http_meta *meta)
{
    struct http_conn *conn = request->conn;
    struct http_server *http = conn->http;
    struct buffer *out = &http->out;

    buffer_clear(out);
    put_status(out, conn, status);
    if (content_type != NULL) {
        put_header(out, "Content-Type", content_type);
    }
    if (request->private->known) {
        buffer_append_text(out, "Vary: Accept-Encoding\r\n");
        buffer_append_slice(out, buffer_slice(&http->response_headers));
    }
    if (meta != NULL) {
        put_meta(out, meta, http->server->config);
    }
    if (request->private->headers.size > 0) {
        buffer_append_slice(out, buffer_slice(&request->private->headers));
    }
}

/* Composes and sends. The body is `text`, copied, or `large`, of which a reference is taken. */
static void reply_compose(struct http_request *request, int status, const char *content_type,
                          const struct http_meta *meta, struct slice text, struct http_body *large)
{
    struct http_conn *conn = request->conn;
    struct buffer *out = &conn->http->out;

    assert(request->private->phase == HTTP_PHASE_HANDLER);
    assert(large == NULL || text.size == 0);
    put_head(request, status, content_type, meta);
    put_end(out, conn, large != NULL ? large->bytes.size : text.size);
    if (!conn->no_body) {
        buffer_append_slice(out, text);
    }
    if (conn->no_body) {
        large = NULL;
    }
    if (out->failed || (large != NULL && large->bytes.failed) || request->private->headers.failed) {
        conn->close_after = true; /* No memory for the answer: the connection says so by closing. */
        buffer_clear(out);
        large = NULL;
    }
    http_request_finish(request);
    http_conn_send(conn, buffer_slice(out), large);
}

static void reply_compose_body(struct http_request *request, int status, const char *content_type,
                               const struct http_meta *meta, struct http_body *body)
{
    if (body->bytes.size <= HTTP_COPY_BYTES_MAX && !body->bytes.failed) {
        reply_compose(request, status, content_type, meta, buffer_slice(&body->bytes), NULL);
    } else {
        reply_compose(request, status, content_type, meta, SLICE_EMPTY, body);
    }
}

/* --- gzip --- */

/* As Consul: whatever the size and the status, on all answers that Vary with it. But not on a body
 * of no bytes, which is no gzip stream. */
static bool reply_gzips(const struct http_request *request, size_t body_bytes)
{
    return request->private->gzip && request->private->known && body_bytes > 0 &&
           !request->private->headers.failed;
}

/* Compresses a body in one go into http->packed. False: it is too large for that, or so much was
 * compressed in this turn of the loop that others must come first. */
static bool reply_pack(struct http_server *http, struct slice body)
{
    const uint64_t now_ms = uv_now(http->loop); /* Stands still during a turn. */

    if (http->gzip_turn_ms != now_ms) {
        http->gzip_turn_ms = now_ms;
        http->gzip_turn_ns = 0;
    }
    if (body.size > HTTP_GZIP_WHOLE_BYTES_MAX ||
        http->gzip_turn_ns >= (uint64_t)HTTP_TURN_US_MAX * NS_PER_US) {
        return false;
    }
    const uint64_t began_ns = uv_hrtime();

    buffer_clear(&http->packed);
    const bool packed = http_gzip_whole(&http->gzip, body, &http->packed);

    http->gzip_turn_ns += uv_hrtime() - began_ns;
    return packed;
}

/* Sends the body with gzip. False: nothing was done, it is to be sent as it is. `body` may be sent
 * to others, too: it is compressed once for all of them. */
static bool reply_send_packed(struct http_request *request, int status, const char *content_type,
                              const struct http_meta *meta, struct http_body *body)
{
    struct http_server *http = request->conn->http;

    if (body->packed == NULL && reply_pack(http, buffer_slice(&body->bytes))) {
        body->packed = http_body_new(&http->packed);
    }
    if (body->packed == NULL) {
        return http_stream_pack(request, status, content_type, meta, body);
    }
    http_add_header(request, "Content-Encoding", "gzip");
    reply_compose_body(request, status, content_type, meta, body->packed);
    return true;
}

/* The same with a short body, which is copied. */
static bool reply_send_packed_text(struct http_request *request, int status,
                                   const char *content_type, const struct http_meta *meta,
                                   struct slice text)
{
    struct http_server *http = request->conn->http;

    if (reply_pack(http, text)) {
        http_add_header(request, "Content-Encoding", "gzip");
        reply_compose(request, status, content_type, meta, buffer_slice(&http->packed), NULL);
        return true;
    }
    struct buffer copy = {0};

    buffer_append_slice(&copy, text);
    struct http_body *body = copy.failed ? NULL : http_body_new(&copy);
    const bool sent = body != NULL && http_stream_pack(request, status, content_type, meta, body);

    http_body_unref(body);
    buffer_deinit(&copy);
    return sent;
}

/* --- bodies --- */

static void reply_send_text(struct http_request *request, int status, const char *content_type,
                            const struct http_meta *meta, struct slice text)
{
    if (!reply_gzips(request, text.size) ||
        !reply_send_packed_text(request, status, content_type, meta, text)) {
        reply_compose(request, status, content_type, meta, text, NULL);
    }
}

void http_reply_body(struct http_request *request, int status, const char *content_type,
                     const struct http_meta *meta, struct http_body *body)
{
    if (body == NULL) {
        reply_compose(request, status, content_type, meta, SLICE_EMPTY, NULL);
    } else if (body->bytes.failed || !reply_gzips(request, body->bytes.size) ||
               !reply_send_packed(request, status, content_type, meta, body)) {
        reply_compose_body(request, status, content_type, meta, body);
    }
}

void http_reply_buffer(struct http_request *request, int status, const char *content_type,
                       const struct http_meta *meta, struct buffer *body)
{
    struct http_body *large;

    if (body->size <= HTTP_COPY_BYTES_MAX && !body->failed) {
        reply_send_text(request, status, content_type, meta, buffer_slice(body));
        return;
    }
    large = body->failed ? NULL : http_body_new(body);
    if (large == NULL) {
        buffer_clear(body);
        request->private->headers.failed = true; /* Sends nothing, and closes. */
    }
    http_reply_body(request, status, content_type, meta, large);
    http_body_unref(large);
}

void http_reply_open(struct http_request *request, int status, const char *content_type,
                     const struct http_meta *meta)
{
    struct http_conn *conn = request->conn;
    struct buffer *out = &conn->http->out;

    put_head(request, status, content_type, meta);
    if (conn->http_1_0) {
        conn->close_after = true;
    }
    put_connection(out, conn);
    buffer_append_text(out, conn->http_1_0 ? "\r\n" : "Transfer-Encoding: chunked\r\n\r\n");
}

void http_reply_file(struct http_request *request, const char *content_type,
                     const struct http_meta *meta, int fd, uint64_t bytes)
{
    struct http_conn *conn = request->conn;
    struct http_file *file = http_file_new(conn, fd, bytes);

    if (file == NULL) {
        http_close_file(conn->http->loop, fd);
        http_reply_error(request, 500, "out of memory");
        return;
    }
    put_head(request, 200, content_type, meta);
    put_end(&conn->http->out, conn, bytes);
    const bool failed = conn->http->out.failed || request->private->headers.failed;

    http_request_finish(request);
    if (failed || conn->state == HTTP_CONN_CLOSED) {
        http_file_free(file);
        http_conn_close(conn);
        return;
    }
    conn->file = file;
    conn->place_ms = uv_now(conn->http->loop);
    http_conn_send(conn, buffer_slice(&conn->http->out), NULL);
}

void http_reply(struct http_request *request, int status, const char *content_type,
                struct slice body)
{
    struct buffer copy = {0};

    if (body.size <= HTTP_COPY_BYTES_MAX) {
        reply_send_text(request, status, content_type, NULL, body);
        return;
    }
    buffer_append_slice(&copy, body);
    http_reply_buffer(request, status, content_type, NULL, &copy);
    buffer_deinit(&copy);
}

void http_reply_json(struct http_request *request, struct slice json)
{
    struct buffer pretty = {0};

    if (!request->pretty) {
        http_reply(request, 200, APPLICATION_JSON, json);
        return;
    }
    json_indent(&pretty, json);
    http_reply_buffer(request, 200, APPLICATION_JSON, NULL, &pretty);
    buffer_deinit(&pretty);
}

void http_reply_text(struct http_request *request, int status, struct slice text)
{
    http_reply(request, status, TEXT_PLAIN, text);
}

void http_reply_error(struct http_request *request, int status, const char *format, ...)
{
    struct buffer text = {0};
    char fixed[1024];
    va_list args;

    va_start(args, format);
    const int size = vsnprintf(fixed, sizeof(fixed), format, args);
    va_end(args);
    if (size < 0) {
        fixed[0] = '\0';
    }
    if ((size_t)size < sizeof(fixed)) {
        buffer_append_text(&text, fixed);
    } else {
        char *to = buffer_reserve(&text, (size_t)size + 1);

        if (to != NULL) {
            va_start(args, format);
            (void)vsnprintf(to, (size_t)size + 1, format, args);
            va_end(args);
            text.size += (size_t)size;
        }
    }
    http_reply_buffer(request, status, TEXT_PLAIN, NULL, &text);
    buffer_deinit(&text);
}

void http_reply_empty(struct http_request *request, int status)
{
    struct buffer none = {0};

    http_reply_buffer(request, status, NULL, NULL, &none);
}

void http_reply_failure(struct http_request *request, unsigned flags, const char *text)
{
    const struct http_meta meta = {.index = true};
    struct buffer body = {0};

    buffer_append_text(&body, text);
    http_reply_buffer(request, 500, TEXT_PLAIN,
                      (flags & HTTP_READ_ERROR_HEADERS) != 0 ? &meta : NULL, &body);
    buffer_deinit(&body);
}

/* As Go's http.Redirect: text for GET and HEAD, nothing for other methods. */
void http_reply_redirect(struct http_request *request, struct slice location)
{
    struct buffer body = {0};
    struct buffer *headers = &request->private->headers;
    const bool page = request->method == HTTP_METHOD_GET || request->method == HTTP_METHOD_HEAD;

    buffer_append_text(headers, "Location: ");
    buffer_append_slice(headers, location);
    buffer_append(headers, "\r\n", 2);
    if (page) {
        buffer_append_text(&body, "<a href=\"");
        for (size_t i = 0; i < location.size; i++) {
            /* Go's htmlEscape; the path is percent-encoded, the query is as sent. */
            switch (location.data[i]) {
            case '&':
                buffer_append_text(&body, "&amp;");
                break;
            case '<':
                buffer_append_text(&body, "&lt;");
                break;
            case '>':
                buffer_append_text(&body, "&gt;");
                break;
            case '"':
                buffer_append_text(&body, "&#34;");
                break;
            case '\'':
                buffer_append_text(&body, "&#39;");
                break;
            default:
                buffer_append_char(&body, location.data[i]);
            }
        }
        buffer_append_text(&body, "\">Moved Permanently</a>.\n\n");
    }
    http_reply_buffer(request, 301, page ? "text/html; charset=utf-8" : NULL, NULL, &body);
    buffer_deinit(&body);
}

void http_reply_refuse(struct http_conn *conn, int status, const char *text)
{
    struct buffer *out = &conn->http->out;

    conn->close_after = true;
    conn->http_1_0 = false;
    buffer_clear(out);
    put_status(out, conn, status);
    if (text != NULL) {
        put_header(out, "Content-Type", TEXT_PLAIN);
    }
    put_end(out, conn, text == NULL ? 0 : strlen(text));
    if (text != NULL) {
        buffer_append_text(out, text);
    }
    http_request_finish(&conn->request);
    http_conn_send(conn, buffer_slice(out), NULL);
}

void http_add_header(struct http_request *request, const char *name, const char *value)
{
    struct buffer *headers = &request->private->headers;

    if (strpbrk(name, "\r\n: ") != NULL || strpbrk(value, "\r\n") != NULL) {
        return; /* Would be another header, or another answer. */
    }
    buffer_printf(headers, "%s: %s\r\n", name, value);
}
