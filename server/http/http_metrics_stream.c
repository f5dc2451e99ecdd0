/* /v1/agent/metrics/stream: at the end of each interval its metrics, a line of JSON, as a chunked
 * answer without end (Consul 1.11 and later). */

#include <stdlib.h>

#include "server/http/http_agent.h"
#include "server/http/http_internal.h"
#include "server/server.h"

enum { METRICS_STREAMS_MAX = 64 };

static void stream_forget(struct http_request *request)
{
    http_follow_forget(request->state);
}

static void stream_on_free(struct http_request *request)
{
    stream_forget(request);
    free(request->state);
}

static size_t stream_count(const struct http_server *http)
{
    const struct http_follow *follow;
    size_t count = 0;

    TAILQ_FOREACH(follow, &http->follows, entry)
    {
        count += follow->metrics ? 1 : 0;
    }
    return count;
}

void http_agent_metrics_stream(struct http_request *request)
{
    const struct http_server *http = request->conn->http;
    struct http_follow *follow;

    if (http->draining || stream_count(http) >= METRICS_STREAMS_MAX) {
        http_reply_error(request, 503, "too many clients follow the metrics (limit: %d)",
                         METRICS_STREAMS_MAX);
        return;
    }
    follow = calloc(1, sizeof(*follow));
    if (follow == NULL) {
        http_reply_error(request, 500, "out of memory");
        return;
    }
    follow->metrics = true;
    request->state = follow;
    request->on_free = stream_on_free;
    request->on_cancel = stream_forget;
    (void)http_follow_begin(follow, request, "application/json");
}

void http_metrics_turned(struct http_server *http)
{
    struct buffer line = {0};
    struct http_follow *next;

    for (struct http_follow *follow = TAILQ_FIRST(&http->follows); follow != NULL; follow = next) {
        next = TAILQ_NEXT(follow, entry);
        if (!follow->metrics) {
            continue;
        }
        if (line.size == 0) {
            metrics_put_json(http->server->metrics, &line);
            buffer_append_char(&line, '\n');
        }
        if (!line.failed) {
            (void)http_follow_send(follow, buffer_slice(&line));
        }
    }
    buffer_deinit(&line);
}
