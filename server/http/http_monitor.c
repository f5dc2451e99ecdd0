/* /v1/agent/monitor: the log as it is written, as a chunked answer without end. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/http/http_agent.h"
#include "server/http/http_internal.h"
#include "server/monitor.h"
#include "server/server.h"

enum {
    MONITOR_UNREAD_BYTES_MAX = 256 * 1024, /* a client that leaves more unread is cut off */
};

struct monitor_stream {
    struct monitor_client client; /* first: see monitor_stream_of */
    struct http_request *request;
    bool json;
    bool chunked; /* else the answer ends with the connection */
};

static struct monitor_stream *monitor_stream_of(struct monitor_client *client)
{
    static_assert(offsetof(struct monitor_stream, client) == 0, "the cast below");
    return (struct monitor_stream *)(void *)client;
}

/* --- sending --- */

struct monitor_write {
    uv_write_t write;
    struct buffer bytes;
};

static void monitor_on_written(uv_write_t *write, int status)
{
    struct monitor_write *pending = write->data;

    (void)status; /* A client that is gone shows when the next line is written, or by its end. */
    buffer_deinit(&pending->bytes);
    free(pending);
}

/* Takes the bytes. A client that does not read is cut off; then false, and the stream is gone. */
static bool monitor_send(struct monitor_stream *stream, struct buffer *bytes)
{
    struct http_conn *conn = stream->request->conn;
    uv_stream_t *tcp = (uv_stream_t *)&conn->tcp;
    struct monitor_write *pending;

    if (conn->tcp.loop == NULL) { /* A connection without a socket, as in tests. */
        buffer_deinit(bytes);
        return true;
    }
    pending = calloc(1, sizeof(*pending));
    if (pending == NULL || bytes->failed ||
        uv_stream_get_write_queue_size(tcp) + bytes->size > MONITOR_UNREAD_BYTES_MAX) {
        free(pending);
        buffer_deinit(bytes);
        http_conn_close(conn);
        return false;
    }
    pending->write.data = pending;
    pending->bytes = *bytes;
    *bytes = (struct buffer){0};
    const uv_buf_t out = uv_buf_init(pending->bytes.data, (unsigned)pending->bytes.size);
    if (uv_write(&pending->write, tcp, &out, 1, monitor_on_written) != 0) {
        buffer_deinit(&pending->bytes);
        free(pending);
        http_conn_close(conn);
        return false;
    }
    return true;
}

static void monitor_send_line(struct monitor_stream *stream, struct slice line)
{
    struct buffer out = {0};

    if (stream->chunked) {
        buffer_printf(&out, "%zx\r\n", line.size);
    }
    buffer_append_slice(&out, line);
    if (stream->chunked) {
        buffer_append(&out, "\r\n", 2);
    }
    (void)monitor_send(stream, &out);
}

/* --- lines --- */

enum { MONITOR_PAIRS_MAX = 16 };

/* `key=value` behind an event's message. */
struct monitor_pair {
    struct slice key, value;
    bool quoted;
};

static bool monitor_is_key_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
}

/* Takes one pair, and the blank behind it. NULL: there is none. */
static const char *monitor_take_pair(const char *at, struct monitor_pair *out)
{
    const char *start = at;

    while (monitor_is_key_byte(*at)) {
        at++;
    }
    if (at == start || *at != '=') {
        return NULL;
    }
    out->key = slice_from(start, (size_t)(at - start));
    start = ++at;
    out->quoted = *at == '"';
    if (out->quoted) {
        start = ++at;
        while (*at != '\0' && !(*at == '"' && (at[1] == ' ' || at[1] == '\0'))) {
            at++;
        }
        if (*at == '\0') {
            return NULL;
        }
        out->value = slice_from(start, (size_t)(at - start));
        at++;
    } else {
        while (*at != '\0' && *at != ' ') {
            at++;
        }
        out->value = slice_from(start, (size_t)(at - start));
    }
    return *at == ' ' ? at + 1 : at;
}

/* All of `at` as pairs, sorted by key; 0 if it is anything else. */
static size_t monitor_take_pairs(const char *at, struct monitor_pair pairs[MONITOR_PAIRS_MAX])
{
    size_t count = 0;

    while (at != NULL && *at != '\0') {
        struct monitor_pair pair;
        size_t place = count;

        at = monitor_take_pair(at, &pair);
        if (at == NULL || count == MONITOR_PAIRS_MAX) {
            return 0;
        }
        while (place > 0 && slice_compare(pairs[place - 1].key, pair.key) > 0) {
            pairs[place] = pairs[place - 1];
            place--;
        }
        if (place > 0 && slice_equal(pairs[place - 1].key, pair.key)) {
            return 0;
        }
        pairs[place] = pair;
        count++;
    }
    return count;
}

/* Whether it was a number when it was written. */
static bool monitor_is_number(const struct monitor_pair *pair)
{
    const struct slice value = pair->value;
    bool digits = value.size > 0 && value.size <= 18 && (value.size == 1 || value.data[0] != '0');

    for (size_t i = 0; digits && i < value.size; i++) {
        digits = value.data[i] >= '0' && value.data[i] <= '9';
    }
    return digits && !pair->quoted;
}

/* The pairs of "message: key=value key=\"value\"" become members of their own, as in Consul.
 * `*text` is cut to the message. */
static size_t monitor_split(struct slice *text, const char *whole,
                            struct monitor_pair pairs[MONITOR_PAIRS_MAX])
{
    *text = slice_from_text(whole);
    for (const char *at = strstr(whole, ": "); at != NULL; at = strstr(at + 2, ": ")) {
        const size_t count = monitor_take_pairs(at + 2, pairs);

        if (count > 0) {
            *text = slice_from(whole, (size_t)(at - whole));
            return count;
        }
    }
    return 0;
}

static void monitor_put_json(struct buffer *out, const struct log_event *event)
{
    struct monitor_pair pairs[MONITOR_PAIRS_MAX];
    struct slice text;
    const size_t count = monitor_split(&text, event->text, pairs);

    struct tm parts;
    char seconds[32] = "";
    char zone[8] = "";

    if (localtime_r(&event->when.tv_sec, &parts) != NULL) {
        (void)strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &parts);
        (void)strftime(zone, sizeof(zone), "%z", &parts);
    }
    buffer_printf(out, "{\"@level\":\"%s\",\"@message\":", log_level_name(event->level));
    json_put_string(out, text);
    buffer_append_text(out, ",\"@module\":");
    json_put_string(out, slice_from_text(event->module));
    /* Go's "Z07:00". */
    if (strcmp(zone, "+0000") == 0) {
        (void)snprintf(zone, sizeof(zone), "Z");
    } else if (strlen(zone) == 5) {
        memmove(zone + 4, zone + 3, 3);
        zone[3] = ':';
    }
    buffer_printf(out, ",\"@timestamp\":\"%s.%06ld%s\"", seconds, event->when.tv_nsec / 1000, zone);
    for (size_t i = 0; i < count; i++) {
        buffer_append_char(out, ',');
        json_put_string(out, pairs[i].key);
        buffer_append_char(out, ':');
        if (monitor_is_number(&pairs[i])) {
            buffer_append_slice(out, pairs[i].value);
        } else {
            json_put_string(out, pairs[i].value);
        }
    }
    buffer_append_text(out, "}\n");
}

static void monitor_on_event(struct monitor_client *client, const struct log_event *event)
{
    struct monitor_stream *stream = monitor_stream_of(client);
    char line[LOG_LINE_BYTES_MAX];

    if (stream->json) {
        struct buffer json = {0};

        monitor_put_json(&json, event);
        monitor_send_line(stream, buffer_slice(&json));
        buffer_deinit(&json);
    } else {
        monitor_send_line(stream, slice_from(line, log_format(line, event)));
    }
}

static void monitor_on_dropped(struct monitor_client *client, uint64_t count)
{
    char text[96];
    struct log_event event = {.level = LOG_WARN, .module = "agent.http", .text = text};

    (void)snprintf(text, sizeof(text), "Dropped logs during monitor request: dropped_count=%llu",
                   (unsigned long long)count);
    (void)clock_gettime(CLOCK_REALTIME, &event.when);
    monitor_on_event(client, &event);
}

/* --- life --- */

static void monitor_forget(struct http_request *request)
{
    struct monitor_stream *stream = request->state;

    if (stream->client.added) {
        monitor_remove(request->server->monitor, &stream->client);
    }
}

static void monitor_on_free(struct http_request *request)
{
    monitor_forget(request);
    free(request->state);
}

static void monitor_on_close(struct monitor_client *client)
{
    struct monitor_stream *stream = monitor_stream_of(client);
    struct http_conn *conn = stream->request->conn;
    char end[] = "0\r\n\r\n";
    const uv_buf_t out = uv_buf_init(end, sizeof(end) - 1);

    if (stream->chunked && conn->tcp.loop != NULL) {
        (void)uv_try_write((uv_stream_t *)&conn->tcp, &out, 1); /* As far as it goes. */
    }
    http_conn_close(conn);
}

static void monitor_put_head(struct monitor_stream *stream, struct buffer *out)
{
    const struct http_conn *conn = stream->request->conn;
    const time_t now = time(NULL);
    struct tm parts;
    char date[64] = "";

    if (gmtime_r(&now, &parts) != NULL) {
        (void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    }
    buffer_append_text(out, conn->http_1_0 ? "HTTP/1.0 200 OK\r\n" : "HTTP/1.1 200 OK\r\n");
    buffer_append_text(out, "Vary: Accept-Encoding\r\n");
    buffer_append_slice(out, buffer_slice(&conn->http->response_headers));
    buffer_printf(out, "Date: %s\r\n%s\r\n\r\n", date,
                  stream->chunked ? "Transfer-Encoding: chunked" : "Connection: close");
}

/* False: answered. */
static bool monitor_parse_level(struct http_request *request, enum log_level *level)
{
    const struct slice text = http_param_value(request, "loglevel");
    char name[16];

    *level = LOG_INFO;
    if (text.size == 0) {
        return true;
    }
    (void)snprintf(name, sizeof(name), "%.*s", (int)text.size, text.data);
    if (text.size < sizeof(name) && log_level_parse(name, level)) {
        return true;
    }
    http_reply_error(request, 400, "Bad request: Unknown log level: %.*s", (int)text.size,
                     text.data);
    return false;
}

void http_agent_monitor(struct http_request *request)
{
    struct server *server = request->server;
    struct buffer head = {0};
    enum log_level level;

    if (!monitor_parse_level(request, &level)) {
        return;
    }
    struct monitor_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL ||
        (server->monitor == NULL && monitor_new(server->loop, &server->monitor) != 0)) {
        free(stream);
        http_reply_error(request, 500, "out of memory");
        return;
    }
    stream->request = request;
    stream->json = http_has_param(request, "logjson");
    stream->chunked = !request->conn->http_1_0;
    stream->client.level = level;
    stream->client.on_event = monitor_on_event;
    stream->client.on_dropped = monitor_on_dropped;
    stream->client.on_close = monitor_on_close;
    if (server->stopping || !monitor_add(server->monitor, &stream->client)) {
        free(stream);
        http_reply_error(request, 503, "too many clients follow the log (limit: %d)",
                         MONITOR_CLIENTS_MAX);
        return;
    }
    request->state = stream;
    request->on_free = monitor_on_free;
    request->on_cancel = monitor_forget;
    request->sleeps = true;
    request->conn->close_after = true;
    monitor_put_head(stream, &head);
    (void)monitor_send(stream, &head);
}
