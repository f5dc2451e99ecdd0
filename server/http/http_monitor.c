/* /v1/agent/monitor: the log as it is written, as a chunked answer without end. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/http/http_agent.h"
#include "server/http/http_internal.h"
#include "server/monitor.h"
#include "server/server.h"

struct monitor_stream {
    struct monitor_client client; /* first: see monitor_stream_of */
    struct http_follow follow;
    bool json;
};

static struct monitor_stream *monitor_stream_of(struct monitor_client *client)
{
    static_assert(offsetof(struct monitor_stream, client) == 0, "the cast below");
    return (struct monitor_stream *)(void *)client;
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
        (void)http_follow_send(&stream->follow, buffer_slice(&json));
        buffer_deinit(&json);
    } else {
        (void)http_follow_send(&stream->follow, slice_from(line, log_format(line, event)));
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
    http_follow_forget(&stream->follow);
}

static void monitor_on_free(struct http_request *request)
{
    monitor_forget(request);
    free(request->state);
}

static void monitor_on_close(struct monitor_client *client)
{
    http_follow_end(&monitor_stream_of(client)->follow);
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
    stream->json = http_has_param(request, "logjson");
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
    (void)http_follow_begin(&stream->follow, request, NULL);
}
