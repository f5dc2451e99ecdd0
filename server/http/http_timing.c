/* Figures of the HTTP server: how long its endpoints take, under Consul's names
 * (http.GET.v1_kv_), and what its connections do. */

#include <stdlib.h>
#include <string.h>

#include "server/http/http_internal.h"
#include "server/server.h"

/* A route and a method that were asked for, and their metric. */
struct http_timing {
    const struct http_route *route; /* NULL: free */
    enum http_method method;
    int metric;
};

/* Twice as many as there can be: what does not fit is not counted. */
enum { HTTP_TIMINGS_MAX = 1024 };

static const char *timing_method(enum http_method method)
{
    switch (method) {
    case HTTP_METHOD_GET:
        return "GET";
    case HTTP_METHOD_PUT:
        return "PUT";
    case HTTP_METHOD_POST:
        return "POST";
    case HTTP_METHOD_DELETE:
        return "DELETE";
    case HTTP_METHOD_HEAD:
        return "HEAD";
    case HTTP_METHOD_OPTIONS:
        return "OPTIONS";
    case HTTP_METHOD_OTHER:
        break;
    }
    return "OTHER";
}

static int timing_add(struct metrics *metrics, const struct http_request *request)
{
    char name[METRICS_NAME_BYTES_MAX];
    const int size = snprintf(name, sizeof(name), "http.%s.", timing_method(request->method));
    const char *path = request->private->route->path + 1; /* without its first slash */

    (void)snprintf(name + size, sizeof(name) - (size_t)size, "%s", path);
    for (char *at = name + size; *at != '\0'; at++) {
        *at = *at == '/' ? '_' : *at;
    }
    return metrics_add(metrics, METRIC_SAMPLE, name, "Milliseconds of requests of this endpoint");
}

static int timing_metric(const struct http_request *request)
{
    struct http_server *http = request->conn->http;
    const struct http_route *route = request->private->route;

    if (http->timings == NULL) {
        http->timings = calloc(HTTP_TIMINGS_MAX, sizeof(*http->timings));
    }
    size_t at =
        ((uintptr_t)route / sizeof(*route) * 8 + (size_t)request->method) % HTTP_TIMINGS_MAX;
    for (size_t i = 0; http->timings != NULL && i < HTTP_TIMINGS_MAX; i++) {
        struct http_timing *timing = &http->timings[at];

        if (timing->route == route && timing->method == request->method) {
            return timing->metric;
        }
        if (timing->route == NULL) {
            *timing = (struct http_timing){
                .route = route,
                .method = request->method,
                .metric = timing_add(request->server->metrics, request),
            };
            return timing->metric;
        }
        at = (at + 1) % HTTP_TIMINGS_MAX;
    }
    return -1;
}

void http_timing_begin(struct http_request *request)
{
    request->private->start_ns = request->server->metrics == NULL ? 0 : uv_hrtime();
}

void http_timing_end(struct http_request *request)
{
    if (request->private->start_ns != 0 && request->private->route != NULL) {
        metrics_time_ns(request->server->metrics, timing_metric(request),
                        uv_hrtime() - request->private->start_ns);
    }
    request->private->start_ns = 0;
}

void http_server_metrics(struct http_server *http)
{
    struct metrics *metrics = http->server->metrics;
    size_t parked = 0;

    for (const struct http_conn *conn = http->conns; conn != NULL; conn = conn->next) {
        parked += conn->private.phase == HTTP_PHASE_PARKED ? 1 : 0;
    }
    metrics_gauge(metrics, METRIC_HTTP_CONNECTIONS, (double)http->conn_count);
    metrics_gauge(metrics, METRIC_HTTP_PARKED, (double)parked);
    metrics_gauge(metrics, METRIC_RPC_QUERIES_BLOCKING, (double)parked);
}
