/* Answers without an end, which grow as something happens: the log (http_monitor.c), the metrics
 * (http_metrics.c). */

#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "server/http/http_internal.h"

enum {
    FOLLOW_UNREAD_BYTES_MAX = 256 * 1024, /* a client that leaves more unread is cut off */
};

struct follow_write {
    uv_write_t write;
    struct buffer bytes;
};

static void follow_on_written(uv_write_t *write, int status)
{
    struct follow_write *pending = write->data;

    (void)status; /* A client that is gone shows at the next write, or by its end. */
    buffer_deinit(&pending->bytes);
    free(pending);
}

/* Takes the bytes. */
static bool follow_write(struct http_follow *follow, struct buffer *bytes)
{
    struct http_conn *conn = follow->request->conn;
    uv_stream_t *tcp = (uv_stream_t *)&conn->tcp;
    struct follow_write *pending;

    if (conn->tcp.loop == NULL) { /* A connection without a socket, as in tests. */
        buffer_deinit(bytes);
        return true;
    }
    pending = calloc(1, sizeof(*pending));
    if (pending == NULL || bytes->failed ||
        uv_stream_get_write_queue_size(tcp) > FOLLOW_UNREAD_BYTES_MAX) {
        goto fail;
    }
    pending->write.data = pending;
    pending->bytes = *bytes;
    const uv_buf_t out = uv_buf_init(bytes->data, (unsigned)bytes->size);
    if (uv_write(&pending->write, tcp, &out, 1, follow_on_written) != 0) {
        goto fail;
    }
    *bytes = (struct buffer){0};
    return true;

fail:
    free(pending);
    buffer_deinit(bytes);
    http_conn_close(conn);
    return false;
}

static void follow_put_head(const struct http_follow *follow, const char *content_type,
                            struct buffer *out)
{
    const struct http_conn *conn = follow->request->conn;
    const time_t now = time(NULL);
    struct tm parts;
    char date[64] = "";

    if (gmtime_r(&now, &parts) != NULL) {
        (void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    }
    buffer_append_text(out, conn->http_1_0 ? "HTTP/1.0 200 OK\r\n" : "HTTP/1.1 200 OK\r\n");
    if (content_type != NULL) {
        buffer_printf(out, "Content-Type: %s\r\n", content_type);
    }
    buffer_append_text(out, "Vary: Accept-Encoding\r\n");
    buffer_append_slice(out, buffer_slice(&conn->http->response_headers));
    buffer_printf(out, "Date: %s\r\n%s\r\n\r\n", date,
                  follow->chunked ? "Transfer-Encoding: chunked" : "Connection: close");
}

bool http_follow_begin(struct http_follow *follow, struct http_request *request,
                       const char *content_type)
{
    struct buffer head = {0};

    assert(!follow->listed);
    follow->request = request;
    follow->chunked = !request->conn->http_1_0;
    follow->listed = true;
    TAILQ_INSERT_TAIL(&request->conn->http->follows, follow, entry);
    request->sleeps = true;
    request->conn->close_after = true;
    follow_put_head(follow, content_type, &head);
    return follow_write(follow, &head);
}

bool http_follow_send(struct http_follow *follow, struct slice bytes)
{
    struct buffer out = {0};

    if (bytes.size == 0) {
        return true; /* A chunk of no bytes would be the end. */
    }
    if (follow->chunked) {
        buffer_printf(&out, "%zx\r\n", bytes.size);
    }
    buffer_append_slice(&out, bytes);
    if (follow->chunked) {
        buffer_append(&out, "\r\n", 2);
    }
    return follow_write(follow, &out);
}

void http_follow_forget(struct http_follow *follow)
{
    if (follow->listed) {
        TAILQ_REMOVE(&follow->request->conn->http->follows, follow, entry);
        follow->listed = false;
    }
}

void http_follow_end_all(struct http_server *http)
{
    struct http_follow *next;

    for (struct http_follow *follow = TAILQ_FIRST(&http->follows); follow != NULL; follow = next) {
        next = TAILQ_NEXT(follow, entry);
        http_follow_end(follow);
    }
}

void http_follow_end(struct http_follow *follow)
{
    struct http_conn *conn = follow->request->conn;
    char end[] = "0\r\n\r\n";
    const uv_buf_t out = uv_buf_init(end, sizeof(end) - 1);

    if (follow->chunked && conn->tcp.loop != NULL) {
        (void)uv_try_write((uv_stream_t *)&conn->tcp, &out, 1); /* As far as it goes. */
    }
    http_conn_close(conn);
}
