/* What the replica tells the metrics registry: what it counts itself is read off here, when
 * somebody asks and before an interval ends. */

#include "server/replica/replica_internal.h"

/* The writer's histogram as samples: their number and sum are exact, how they are spread is so to a
 * factor of two. */
static void replica_metrics_wal(struct replica *replica, struct metrics *metrics)
{
    struct wal_stats *seen = &replica->wal_seen;
    struct wal_stats now;
    double weight = 0;

    wal_stats(replica->wal, &now);
    for (size_t i = 0; i < WAL_HISTOGRAM_SIZE; i++) {
        const uint64_t count = now.sync_us_histogram[i] - seen->sync_us_histogram[i];

        weight += (double)count * (double)(UINT64_C(1) << i);
    }
    const double scale = weight > 0 ? (double)(now.sync_us - seen->sync_us) / weight : 0;
    for (size_t i = 0; i < WAL_HISTOGRAM_SIZE; i++) {
        const uint64_t count = now.sync_us_histogram[i] - seen->sync_us_histogram[i];

        metrics_samples(metrics, METRIC_WAL_FSYNC, scale * (double)(UINT64_C(1) << i) / 1000,
                        count);
    }
    *seen = now;
    metrics_gauge(metrics, METRIC_WAL_FSYNC_MAX, (double)now.sync_us_max / 1000);
    metrics_gauge(metrics, METRIC_WAL_PENDING_BYTES, (double)wal_pending_bytes(replica->wal));
    metrics_gauge(metrics, METRIC_WAL_BYTES, (double)wal_disk_bytes(replica->wal));
    metrics_gauge(metrics, METRIC_WAL_FULL, atomic_load(&replica->log_full) ? 1 : 0);
}

static void replica_metrics_health(struct replica *replica, struct metrics *metrics)
{
    struct buffer bytes = {0};
    struct replica_health health;

    replica_health_encode(replica, &bytes);
    if (!bytes.failed && replica_health_decode(buffer_slice(&bytes), &health)) {
        metrics_gauge(metrics, METRIC_AUTOPILOT_HEALTHY, health.healthy ? 1 : 0);
        metrics_gauge(metrics, METRIC_AUTOPILOT_FAILURE_TOLERANCE, health.failure_tolerance);
    }
    buffer_deinit(&bytes);
}

void replica_metrics(struct replica *replica)
{
    struct metrics *metrics = replica->server->metrics;
    const uint64_t contact_ms = raft_last_contact_ms(replica->raft, replica_now_ms(replica));
    struct store_usage usage;

    metrics_gauge(metrics, METRIC_RAFT_APPLIED_INDEX, (double)replica->applied_index);
    metrics_gauge(metrics, METRIC_RAFT_COMMIT_INDEX, (double)raft_commit_index(replica->raft));
    metrics_gauge(metrics, METRIC_RAFT_LAST_INDEX, (double)raft_last_index(replica->raft));
    metrics_gauge(metrics, METRIC_RAFT_TERM, (double)raft_term_now(replica->raft));
    metrics_gauge(metrics, METRIC_RAFT_PEERS, (double)raft_configuration(replica->raft)->count);
    if (replica->role == RAFT_LEADER) {
        replica_metrics_health(replica, metrics);
    } else if (replica->leader != 0 && contact_ms != UINT64_MAX) {
        metrics_sample(metrics, METRIC_RAFT_LEADER_LAST_CONTACT, (double)contact_ms);
    }
    metrics_gauge(metrics, METRIC_SESSION_TTL_ACTIVE,
                  replica->role == RAFT_LEADER ? (double)session_timers_count(replica->timers) : 0);
    store_usage(replica->server->store, &usage);
    metrics_gauge(metrics, METRIC_STATE_BYTES, (double)usage.used_bytes);
    metrics_gauge(metrics, METRIC_STATE_BYTES_MAX, (double)usage.limit_bytes);
    metrics_gauge(metrics, METRIC_STATE_FULL, replica->apply_failed ? 1 : 0);
    metrics_gauge(metrics, METRIC_STATE_SNAPSHOT_WAITING, (double)replica->load_waits.bytes);
    replica_metrics_wal(replica, metrics);
}

/* Consul's counters of transitions. */
void replica_metrics_role(struct replica *replica, enum raft_role role)
{
    switch (role) {
    case RAFT_LEADER:
        metrics_count(replica->server->metrics, METRIC_RAFT_STATE_LEADER, 1);
        break;
    case RAFT_CANDIDATE:
        metrics_count(replica->server->metrics, METRIC_RAFT_STATE_CANDIDATE, 1);
        break;
    case RAFT_FOLLOWER:
        metrics_count(replica->server->metrics, METRIC_RAFT_STATE_FOLLOWER, 1);
        break;
    case RAFT_PRE_CANDIDATE: /* Consul has none. */
        break;
    }
}

/* A local client's write was applied: how long it took all in all. */
void replica_metrics_write(struct replica *replica, const struct replica_proposal *proposal)
{
    struct metrics *metrics = replica->server->metrics;
    const uint64_t ns = uv_hrtime() - proposal->start_ns;
    int metric;

    if (replica->role == RAFT_LEADER) {
        metrics_time_ns(metrics, METRIC_RAFT_COMMIT_TIME, ns);
    }
    switch (command_type_of(slice_from(proposal->command, proposal->command_size))) {
    case COMMAND_KV:
        metric = METRIC_KVS_APPLY;
        break;
    case COMMAND_SESSION_CREATE:
    case COMMAND_SESSION_DESTROY:
        metric = METRIC_SESSION_APPLY;
        break;
    case COMMAND_REGISTER:
        metric = METRIC_CATALOG_REGISTER;
        break;
    case COMMAND_DEREGISTER:
        metric = METRIC_CATALOG_DEREGISTER;
        break;
    case COMMAND_TXN:
        metric = METRIC_TXN_APPLY;
        break;
    default:
        return;
    }
    metrics_time_ns(metrics, metric, ns);
}
