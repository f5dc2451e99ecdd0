/* How many requests a second: limits.rpc_rate for all, limits.request_limits for reads and writes
 * each, as token buckets. Consul counts calls of its servers: so what the agent answers itself is
 * free, and the limits of later releases spare an operator's repairs as well. */

#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/log.h"
#include "server/server.h"

#define NS_PER_S 1e9

static bool bucket_take(struct http_bucket *bucket, const struct config_rate *rate)
{
    const uint64_t now_ns = uv_hrtime();
    const double burst = (double)rate->burst;

    if (!rate->limited) {
        bucket->at_ns = 0; /* Full, should there be a limit again. */
        return true;
    }
    if (bucket->at_ns == 0) {
        bucket->tokens = burst;
    } else {
        bucket->tokens += (double)(now_ns - bucket->at_ns) / NS_PER_S * rate->per_second;
    }
    bucket->at_ns = now_ns;
    if (bucket->tokens > burst) {
        bucket->tokens = burst;
    }
    if (bucket->tokens < 1) {
        return false;
    }
    bucket->tokens -= 1;
    return true;
}

static bool limit_spares(struct slice path)
{
    return slice_starts_with(path, SLICE_LITERAL("/v1/agent/")) ||
           slice_equal(path, SLICE_LITERAL("/v1/event/list"));
}

/* limits.request_limits. */
static bool limit_check_kind(struct http_request *request)
{
    struct http_server *http = request->conn->http;
    const struct server *server = request->server;
    const struct config *config = server->config;
    const bool reads = request->method == HTTP_METHOD_GET || request->method == HTTP_METHOD_HEAD;

    if (reads ? bucket_take(&http->read_bucket, &config->read_rate)
              : bucket_take(&http->write_bucket, &config->write_rate)) {
        return true;
    }
    metrics_count(server->metrics, METRIC_RPC_RATE_LIMIT_EXCEEDED, 1);
    log_write(LOG_DEBUG, "agent.server.rpc-rate-limit",
              "RPC exceeded allowed rate limit: limit_type=global/%s limit_enforced=%s",
              reads ? "read" : "write", config->request_limits_enforced ? "true" : "false");
    if (!config->request_limits_enforced) {
        return true;
    }
    if (!reads && replica_is_leader(server->replica)) {
        http_reply_error(request, 503,
                         "rate limit exceeded for operation that can only be performed by the "
                         "leader, try again later");
    } else {
        http_reply_error(request, 429,
                         "rate limit exceeded, try again later or against a different server");
    }
    return false;
}

bool http_limit_check(struct http_request *request)
{
    struct http_server *http = request->conn->http;

    if (limit_spares(request->path)) {
        return true;
    }
    if (!bucket_take(&http->rpc_bucket, &request->server->config->rpc_rate)) {
        metrics_count(request->server->metrics, METRIC_CLIENT_RPC_EXCEEDED, 1);
        http_reply_empty(request, 429);
        return false;
    }
    return slice_starts_with(request->path, SLICE_LITERAL("/v1/operator/")) ||
           limit_check_kind(request);
}
