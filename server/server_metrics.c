#include "server/server_metrics.h"

#include <dirent.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "server/monitor.h"

static size_t metrics_count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t count = 0;

    while (dir != NULL && readdir(dir) != NULL) {
        count++;
    }
    if (dir != NULL) {
        (void)closedir(dir); /* only read from */
    }
    return count > 2 ? count - 2 : 0;
}

static void metrics_read_runtime(struct metrics *metrics)
{
    const struct mallinfo2 heap = mallinfo2();
    struct rusage usage;
    size_t rss = 0;

    metrics_gauge(metrics, METRIC_RUNTIME_ALLOC_BYTES, (double)(heap.uordblks + heap.hblkhd));
    metrics_gauge(metrics, METRIC_RUNTIME_SYS_BYTES, (double)(heap.arena + heap.hblkhd));
    metrics_gauge(metrics, METRIC_RUNTIME_OPEN_FILES,
                  (double)metrics_count_entries("/proc/self/fd"));
    metrics_gauge(metrics, METRIC_RUNTIME_NUM_THREADS,
                  (double)metrics_count_entries("/proc/self/task"));
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

void server_metrics_read(struct server *server)
{
    metrics_read_runtime(server->metrics);
    metrics_read_members(server);
    replica_metrics(server->replica);
    http_server_metrics(server->http);
    metrics_gauge(server->metrics, METRIC_MONITOR_CLIENTS, (double)monitor_count(server->monitor));
}

void server_metrics_tick(struct server *server, uint64_t now_ms, uint64_t elapsed_ms)
{
    struct replica_freshness freshness;

    if (server->replica == NULL || server->http == NULL || server->stopping) {
        return; /* Starting, or stopping. */
    }
    replica_freshness(server->replica, &freshness);
    if (!freshness.known_leader) {
        metrics_count(server->metrics, METRIC_RAFT_TIME_WITHOUT_LEADER, elapsed_ms);
    }
    if (metrics_is_due(server->metrics, now_ms)) {
        server_metrics_read(server);
        metrics_turn(server->metrics, now_ms, (int64_t)time(NULL));
        http_metrics_turned(server->http);
    }
}
