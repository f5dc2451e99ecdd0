#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

/* The metrics registry: counters, gauges and samples under Consul's names, kept per interval of ten
 * seconds as Consul's in-memory sink keeps them, and in total since the start for Prometheus. What
 * there is, and what it means, stands in one table in metrics.c and in docs/metrics.md.
 *
 * Counting takes no lock: metrics_count, metrics_gauge, metrics_sample and metrics_time are relaxed
 * atomics and may be called from any thread; an event may be told in the interval after its own.
 * All else belongs to the loop. All functions accept a NULL registry and do nothing then. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/buffer.h"

enum {
    METRICS_INTERVAL_MS = 10 * 1000, /* how long counters and samples are gathered */
    METRICS_MAX = 1024,              /* metrics of the table and those added at run time */
    METRICS_NAME_BYTES_MAX = 128,    /* of one metric's name */
    METRICS_FILTERS_MAX = 64,        /* entries of telemetry.prefix_filter */
};

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_SAMPLE };

/* Names without prefix and help texts of these: metrics_table in metrics.c, in this order. */
enum metric {
    METRIC_AUTOPILOT_HEALTHY,
    METRIC_AUTOPILOT_FAILURE_TOLERANCE,
    METRIC_CATALOG_REGISTER,
    METRIC_CATALOG_DEREGISTER,
    METRIC_CLIENT_RPC,
    METRIC_CLIENT_RPC_EXCEEDED,
    METRIC_DNS_QUERIES,
    METRIC_DNS_DOMAIN_QUERIES,
    METRIC_DNS_PTR_QUERIES,
    METRIC_DNS_STALE_QUERIES,
    METRIC_DNS_DROPPED,
    METRIC_DNS_STALENESS,
    METRIC_EVENT_FIRE,
    METRIC_HTTP_CONNECTIONS,
    METRIC_HTTP_PARKED,
    METRIC_KVS_APPLY,
    METRIC_LOOP_STALL,
    METRIC_LOOP_STALL_MAX,
    METRIC_MEMBERS_ALIVE,
    METRIC_MEMBERS_FAILED,
    METRIC_MONITOR_CLIENTS,
    METRIC_RAFT_APPLIED_INDEX,
    METRIC_RAFT_APPLY,
    METRIC_RAFT_COMMIT_INDEX,
    METRIC_RAFT_COMMIT_TIME,
    METRIC_RAFT_FSM_APPLY,
    METRIC_RAFT_FSM_BATCH,
    METRIC_RAFT_LAST_INDEX,
    METRIC_RAFT_LEADER_LAST_CONTACT,
    METRIC_RAFT_PEERS,
    METRIC_RAFT_SNAPSHOT_CREATE,
    METRIC_RAFT_SNAPSHOT_INSTALL,
    METRIC_RAFT_STATE_CANDIDATE,
    METRIC_RAFT_STATE_FOLLOWER,
    METRIC_RAFT_STATE_LEADER,
    METRIC_RAFT_TERM,
    METRIC_RAFT_TIME_WITHOUT_LEADER,
    METRIC_RPC_QUERIES_BLOCKING,
    METRIC_RPC_QUERY,
    METRIC_RPC_RATE_LIMIT_EXCEEDED,
    METRIC_RPC_REQUEST,
    METRIC_RPC_REQUEST_ERROR,
    METRIC_RUNTIME_ALLOC_BYTES,
    METRIC_RUNTIME_OPEN_FILES,
    METRIC_RUNTIME_RSS_BYTES,
    METRIC_RUNTIME_SYS_BYTES,
    METRIC_RUNTIME_CPU_SECONDS,
    METRIC_RUNTIME_NUM_THREADS,
    METRIC_SESSION_APPLY,
    METRIC_SESSION_RENEW,
    METRIC_SESSION_TTL_ACTIVE,
    METRIC_SESSION_TTL_INVALIDATE,
    METRIC_STATE_BYTES,
    METRIC_STATE_BYTES_MAX,
    METRIC_STATE_FULL,
    METRIC_STATE_SNAPSHOT_WAITING,
    METRIC_TXN_APPLY,
    METRIC_WAL_BYTES,
    METRIC_WAL_FULL,
    METRIC_WAL_FSYNC,
    METRIC_WAL_FSYNC_MAX,
    METRIC_WAL_PENDING_BYTES,
    METRICS_FIXED /* how many there are */
};

struct metrics;

/* telemetry.*; texts are borrowed for the call. */
struct metrics_options {
    const char *prefix;   /* telemetry.metrics_prefix, "consul" */
    const char *hostname; /* put before the names of gauges; NULL: not */
    bool filter_default;  /* telemetry.filter_default: what no filter names is kept */
    /* telemetry.prefix_filter: "+name" keeps, "-name" drops what begins so; the longest counts. */
    const char *const *filters;
    size_t filter_count;
};

/* `now_ms` is monotonic and begins the first interval. Returns 0 or -1 (no memory). */
int metrics_new(const struct metrics_options *options, uint64_t now_ms, struct metrics **out);
void metrics_free(struct metrics *metrics);

/* Adds a metric that the table does not have (one for each HTTP endpoint, say). Name without
 * prefix, copied. Returns its number for the functions below, or -1 (METRICS_MAX, no memory, name
 * too long), which they ignore. */
int metrics_add(struct metrics *metrics, enum metric_kind kind, const char *name, const char *help);

/* --- counting: any thread --- */

void metrics_count(struct metrics *metrics, int metric, uint64_t by);
void metrics_gauge(struct metrics *metrics, int metric, double value);
void metrics_sample(struct metrics *metrics, int metric, double value);
/* The same sample several times. */
void metrics_samples(struct metrics *metrics, int metric, double value, uint64_t count);
/* A sample in milliseconds, as Consul's timers. */
void metrics_time_ns(struct metrics *metrics, int metric, uint64_t ns);
/* A counter that another module keeps in total since the start: counts what came since the last
 * call. Loop only. */
void metrics_count_total(struct metrics *metrics, int metric, uint64_t total);

/* --- reading: loop --- */

/* Whether the interval's time is over. */
bool metrics_is_due(const struct metrics *metrics, uint64_t now_ms);
/* Closes the interval when its time is over; called by a timer. */
void metrics_turn(struct metrics *metrics, uint64_t now_ms, int64_t wall_s);

/* Consul's JSON of the last complete interval (the current one while it is the first). Gauges are
 * shown from the first time that they were set, counters and samples when they occurred. */
void metrics_put_json(struct metrics *metrics, struct buffer *out);
/* The text format of Prometheus 0.0.4: totals since the start; samples are summaries in
 * milliseconds whose quantiles are of the last ten to twenty seconds. */
void metrics_put_prometheus(struct metrics *metrics, struct buffer *out);

/* For tests: a counter's or sample's number of events since the start; a gauge's value. */
double metrics_value(struct metrics *metrics, int metric);

#endif
