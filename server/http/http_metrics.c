/* /v1/agent/metrics: the registry as Consul's JSON or in Prometheus's text format, and the gauges
 * that are read off the server's parts when somebody asks. */

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "server/config.h"
#include "server/http/http_agent.h"
#include "server/metrics.h"
#include "server/monitor.h"
#include "server/server.h"

static void metrics_read_runtime(struct metrics *metrics)
{
    const struct mallinfo2 heap = mallinfo2();
    struct rusage usage;
    size_t rss = 0;

    metrics_gauge(metrics, METRIC_RUNTIME_ALLOC_BYTES, (double)(heap.uordblks + heap.hblkhd));
    metrics_gauge(metrics, METRIC_RUNTIME_SYS_BYTES, (double)(heap.arena + heap.hblkhd));
    if (uv_resident_set_memory(&rss) == 0) {
        metrics_gauge(metrics, METRIC_RUNTIME_RSS_BYTES, (double)rss);
    }
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        metrics_gauge(metrics, METRIC_RUNTIME_CPU_SECONDS,
                      (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                          (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    }
}

static void metrics_read_members(const struct server *server)
{
    size_t alive = 0, failed = 0;

    for (size_t i = 0; i < membership_count(server->membership); i++) {
        const enum member_status status = membership_at(server->membership, i)->status;

        alive += status == MEMBER_ALIVE ? 1 : 0;
        failed += status == MEMBER_FAILED ? 1 : 0;
    }
    metrics_gauge(server->metrics, METRIC_MEMBERS_ALIVE, (double)alive);
    metrics_gauge(server->metrics, METRIC_MEMBERS_FAILED, (double)failed);
}

static void metrics_read_replica(const struct server *server)
{
    struct replica_stats stats;
    struct replica_peer peers[1];
    struct replica_freshness freshness;

    replica_stats(server->replica, &stats);
    replica_freshness(server->replica, &freshness);
    metrics_gauge(server->metrics, METRIC_RAFT_APPLIED_INDEX, (double)stats.applied_index);
    metrics_gauge(server->metrics, METRIC_RAFT_COMMIT_INDEX, (double)stats.commit_index);
    metrics_gauge(server->metrics, METRIC_RAFT_LAST_INDEX, (double)stats.last_index);
    metrics_gauge(server->metrics, METRIC_RAFT_TERM, (double)stats.term);
    metrics_gauge(server->metrics, METRIC_RAFT_PEERS,
                  (double)replica_peers(server->replica, peers, 1));
    metrics_gauge(server->metrics, METRIC_WAL_BYTES, (double)stats.log_bytes);
    metrics_gauge(server->metrics, METRIC_WAL_FULL, stats.log_full ? 1 : 0);
    metrics_gauge(server->metrics, METRIC_WAL_FSYNC_MAX, (double)stats.log_sync_us_max / 1000);
    metrics_gauge(server->metrics, METRIC_WAL_PENDING_BYTES, (double)stats.log_pending_bytes);
    metrics_gauge(server->metrics, METRIC_DNS_STALENESS, (double)freshness.last_contact_ms);
}

void http_agent_metrics(struct http_request *request)
{
    const struct server *server = request->server;
    const struct slice format = http_param_value(request, "format");
    const bool prometheus = slice_equal(format, SLICE_LITERAL("prometheus"));
    struct buffer body = {0};

    if (prometheus && server->config->prometheus_retention_ns <= 0) {
        http_reply_error(request, 415,
                         "Prometheus is not enabled since its retention time is not positive");
        return;
    }
    metrics_turn(server->metrics, uv_hrtime() / 1000000, (int64_t)time(NULL));
    metrics_read_runtime(server->metrics);
    metrics_read_members(server);
    metrics_read_replica(server);
    metrics_gauge(server->metrics, METRIC_MONITOR_CLIENTS, (double)monitor_count(server->monitor));
    if (prometheus) {
        metrics_put_prometheus(server->metrics, &body);
        http_reply(request, 200, "text/plain; version=0.0.4; charset=utf-8", buffer_slice(&body));
    } else {
        metrics_put_json(server->metrics, &body);
        http_reply_json(request, buffer_slice(&body));
    }
    buffer_deinit(&body);
}
