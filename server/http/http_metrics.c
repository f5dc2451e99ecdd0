/* Figures of the HTTP server: how long its endpoints take, and what its connections do; and
 * /v1/agent/metrics, which shows all figures. */

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/config.h"
#include "server/http/http_agent.h"
#include "server/server.h"
#include "server/server_metrics.h"

void http_agent_metrics(struct http_request *request)
{
    struct server *server = request->server;
    const struct slice format = http_param_value(request, "format");
    const bool prometheus = slice_equal(format, SLICE_LITERAL("prometheus"));
    struct buffer body = {0};

    if (prometheus && server->config->prometheus_retention_ns <= 0) {
        http_reply_error(request, 415,
                         "Prometheus is not enabled since its retention time is not positive");
        return;
    }
    server_metrics_read(server);
    if (prometheus) {
        metrics_put_prometheus(server->metrics, &body);
        http_reply(request, 200, "text/plain; version=0.0.4; charset=utf-8", buffer_slice(&body));
    } else {
        metrics_put_json(server->metrics, &body);
        http_reply_json(request, buffer_slice(&body));
    }
    buffer_deinit(&body);
}
