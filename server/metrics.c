#include "server/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/http/http.h"

enum {
    /* Quantiles are read off a histogram of four buckets an octave: 19% apart at most. */
    METRICS_BUCKETS_PER_OCTAVE = 4,
    METRICS_OCTAVE_MIN = -14, /* 2^-14 ms is 61 ns: below it, one bucket */
    METRICS_OCTAVE_MAX = 26,  /* 2^26 ms is 18 hours: above it, one bucket */
    METRICS_BUCKETS = (METRICS_OCTAVE_MAX - METRICS_OCTAVE_MIN) * METRICS_BUCKETS_PER_OCTAVE + 2,
};

/* What occurred in one stretch of time. */
struct metrics_sum {
    uint64_t count; /* events */
    double sum, squares, min, max;
};

/* One metric. The atomics are written by any thread, the rest by the loop. Relaxed throughout: the
 * fields of one event may fall into two intervals, which nobody can see. */
struct metrics_entry {
    enum metric_kind kind;
    const char *name;
    char *owned; /* the name of one that was added */
    const char *help;
    bool kept;              /* passes the filters */
    atomic_bool set;        /* a gauge that has a value */
    _Atomic uint64_t count; /* events of this interval */
    _Atomic double sum;     /* a gauge's value */
    _Atomic double squares;
    _Atomic double min, max;   /* valid while count > 0 */
    _Atomic uint32_t *buckets; /* samples: METRICS_BUCKETS; NULL for others */
    uint32_t *buckets_last;
    struct metrics_sum last;  /* the last complete interval */
    struct metrics_sum total; /* all complete intervals */
    uint64_t seen;            /* metrics_count_total */
};

struct metrics {
    struct metrics_entry *entries[METRICS_MAX]; /* the first `count` are set, and stay */
    atomic_int count;
    char *prefix;
    char *hostname; /* NULL: none */
    char **filters;
    size_t filter_count;
    bool filter_default;
    uint64_t interval_end_ms;
    int64_t interval_start_s; /* the current interval's, wall clock */
    int64_t last_start_s;     /* the last complete one's; 0: there is none yet */
};

static const struct {
    enum metric_kind kind;
    const char *name;
    const char *help;
} metrics_table[METRICS_FIXED] = {
    [METRIC_AUTOPILOT_HEALTHY] = {METRIC_GAUGE, "autopilot.healthy",
                                  "1 when all servers are healthy, on the leader"},
    [METRIC_AUTOPILOT_FAILURE_TOLERANCE] = {METRIC_GAUGE, "autopilot.failure_tolerance",
                                            "Servers that may be lost without losing the quorum"},
    [METRIC_CATALOG_REGISTER] = {METRIC_SAMPLE, "catalog.register",
                                 "Milliseconds of catalog registrations through the log"},
    [METRIC_CATALOG_DEREGISTER] = {METRIC_SAMPLE, "catalog.deregister",
                                   "Milliseconds of catalog deregistrations through the log"},
    [METRIC_CLIENT_RPC] = {METRIC_COUNTER, "client.rpc",
                           "Reads and writes that this server's clients asked for"},
    [METRIC_DNS_QUERIES] = {METRIC_COUNTER, "dns.queries", "DNS queries received"},
    [METRIC_DNS_DOMAIN_QUERIES] = {METRIC_COUNTER, "dns.domain_queries",
                                   "DNS queries for names of the domain"},
    [METRIC_DNS_PTR_QUERIES] = {METRIC_COUNTER, "dns.ptr_queries", "DNS queries for addresses"},
    [METRIC_DNS_STALE_QUERIES] = {METRIC_COUNTER, "dns.stale_queries",
                                  "DNS queries answered from a state older than five seconds"},
    [METRIC_DNS_DROPPED] = {METRIC_COUNTER, "dns.dropped", "DNS queries that got no answer"},
    [METRIC_DNS_STALENESS] = {METRIC_GAUGE, "dns.staleness",
                              "Milliseconds by which DNS answers may be older than the cluster"},
    [METRIC_EVENT_FIRE] = {METRIC_COUNTER, "event.fire", "User events received"},
    [METRIC_HTTP_CONNECTIONS] = {METRIC_GAUGE, "http.connections", "Open HTTP connections"},
    [METRIC_HTTP_PARKED] = {METRIC_GAUGE, "http.parked", "Blocking queries that wait"},
    [METRIC_KVS_APPLY] = {METRIC_SAMPLE, "kvs.apply",
                          "Milliseconds of key-value writes through the log"},
    [METRIC_LOOP_STALL] = {METRIC_SAMPLE, "loop.stall",
                           "Milliseconds by which the event loop came late"},
    [METRIC_LOOP_STALL_MAX] = {METRIC_GAUGE, "loop.stall_max",
                               "Longest stall of the event loop since the start, milliseconds"},
    [METRIC_MEMBERS_ALIVE] = {METRIC_GAUGE, "members.alive", "Members seen alive"},
    [METRIC_MEMBERS_FAILED] = {METRIC_GAUGE, "members.failed", "Members seen failed"},
    [METRIC_MONITOR_CLIENTS] = {METRIC_GAUGE, "monitor.clients", "Clients that follow the log"},
    [METRIC_RAFT_APPLIED_INDEX] = {METRIC_GAUGE, "raft.applied_index", "Raft applied index"},
    [METRIC_RAFT_APPLY] = {METRIC_COUNTER, "raft.apply", "Commands given to Raft by this leader"},
    [METRIC_RAFT_COMMIT_INDEX] = {METRIC_GAUGE, "raft.commit_index", "Raft commit index"},
    [METRIC_RAFT_COMMIT_TIME] = {METRIC_SAMPLE, "raft.commitTime",
                                 "Milliseconds from proposal to application on the leader"},
    [METRIC_RAFT_FSM_APPLY] = {METRIC_SAMPLE, "raft.fsm.apply",
                               "Milliseconds to apply one batch of commands"},
    [METRIC_RAFT_FSM_BATCH] = {METRIC_SAMPLE, "raft.fsm.batch", "Commands in one applied batch"},
    [METRIC_RAFT_LAST_INDEX] = {METRIC_GAUGE, "raft.last_index", "Index of the last log entry"},
    [METRIC_RAFT_LEADER_LAST_CONTACT] = {METRIC_SAMPLE, "raft.leader.lastContact",
                                         "Milliseconds since the leader was heard from"},
    [METRIC_RAFT_PEERS] = {METRIC_GAUGE, "raft.peers", "Servers in the Raft configuration"},
    [METRIC_RAFT_SNAPSHOT_CREATE] = {METRIC_COUNTER, "raft.snapshot.create", "Snapshots taken"},
    [METRIC_RAFT_SNAPSHOT_INSTALL] = {METRIC_COUNTER, "raft.snapshot.install",
                                      "Snapshots installed from the leader"},
    [METRIC_RAFT_STATE_CANDIDATE] = {METRIC_COUNTER, "raft.state.candidate",
                                     "Times that this server became a candidate"},
    [METRIC_RAFT_STATE_FOLLOWER] = {METRIC_COUNTER, "raft.state.follower",
                                    "Times that this server became a follower"},
    [METRIC_RAFT_STATE_LEADER] = {METRIC_COUNTER, "raft.state.leader",
                                  "Times that this server became the leader"},
    [METRIC_RAFT_TERM] = {METRIC_GAUGE, "raft.term", "Raft term"},
    [METRIC_RAFT_TIME_WITHOUT_LEADER] = {METRIC_COUNTER, "raft.time_without_leader",
                                         "Milliseconds during which no leader was known"},
    [METRIC_CLIENT_RPC_EXCEEDED] = {METRIC_COUNTER, "client.rpc.exceeded",
                                    "Requests refused for limits.rpc_rate"},
    [METRIC_RPC_QUERIES_BLOCKING] = {METRIC_GAUGE, "rpc.queries_blocking",
                                     "Blocking queries that wait"},
    [METRIC_RPC_QUERY] = {METRIC_COUNTER, "rpc.query", "Reads"},
    [METRIC_RPC_RATE_LIMIT_EXCEEDED] = {METRIC_COUNTER, "rpc.rate_limit.exceeded",
                                        "Requests beyond limits.request_limits"},
    [METRIC_RPC_REQUEST] = {METRIC_COUNTER, "rpc.request", "Writes"},
    [METRIC_RPC_REQUEST_ERROR] = {METRIC_COUNTER, "rpc.request_error",
                                  "Reads and writes that failed (no leader, refused)"},
    [METRIC_RUNTIME_ALLOC_BYTES] = {METRIC_GAUGE, "runtime.alloc_bytes",
                                    "Bytes allocated on the heap"},
    [METRIC_RUNTIME_OPEN_FILES] = {METRIC_GAUGE, "runtime.open_files", "Open file descriptors"},
    [METRIC_RUNTIME_RSS_BYTES] = {METRIC_GAUGE, "runtime.rss_bytes", "Resident memory, bytes"},
    [METRIC_RUNTIME_SYS_BYTES] = {METRIC_GAUGE, "runtime.sys_bytes",
                                  "Bytes of heap obtained from the system"},
    [METRIC_RUNTIME_CPU_SECONDS] = {METRIC_GAUGE, "runtime.cpu_seconds",
                                    "Processor time used since the start, seconds"},
    [METRIC_RUNTIME_NUM_THREADS] = {METRIC_GAUGE, "runtime.num_threads", "Threads"},
    [METRIC_SESSION_APPLY] = {METRIC_SAMPLE, "session.apply",
                              "Milliseconds of session creations and destructions"},
    [METRIC_SESSION_RENEW] = {METRIC_SAMPLE, "session.renew", "Milliseconds of session renewals"},
    [METRIC_SESSION_TTL_ACTIVE] = {METRIC_GAUGE, "session_ttl.active",
                                   "Sessions whose TTL this leader watches"},
    [METRIC_SESSION_TTL_INVALIDATE] = {METRIC_COUNTER, "session_ttl.invalidate",
                                       "Sessions invalidated because their TTL ended"},
    [METRIC_STATE_BYTES] = {METRIC_GAUGE, "state.bytes", "Bytes used by the state on disk"},
    [METRIC_STATE_BYTES_MAX] = {METRIC_GAUGE, "state.bytes_max",
                                "Bytes that the state may use on disk"},
    [METRIC_STATE_FULL] = {METRIC_GAUGE, "state.full",
                           "1 while committed writes wait for space for the state"},
    [METRIC_STATE_SNAPSHOT_WAITING] =
        {METRIC_GAUGE, "state.snapshot_waiting",
         "Bytes of a snapshot that waits for space to become the state, 0: none"},
    [METRIC_TXN_APPLY] = {METRIC_SAMPLE, "txn.apply", "Milliseconds of transactions that write"},
    [METRIC_WAL_BYTES] = {METRIC_GAUGE, "wal.bytes", "Bytes of the log on disk"},
    [METRIC_WAL_FULL] = {METRIC_GAUGE, "wal.full", "1 while the disk of the log is full"},
    [METRIC_WAL_FSYNC] = {METRIC_SAMPLE, "wal.fsync", "Milliseconds of the syncs of the log"},
    [METRIC_WAL_FSYNC_MAX] = {METRIC_GAUGE, "wal.fsync_max",
                              "Longest sync of the log since the start, milliseconds"},
    [METRIC_WAL_PENDING_BYTES] = {METRIC_GAUGE, "wal.pending_bytes",
                                  "Bytes queued for the log and not yet durable"},
};

/* --- life --- */

/* Consul's rule: the longest filter that the name begins with decides. */
static bool metrics_filter(const struct metrics *metrics, const char *name)
{
    char full[2 * METRICS_NAME_BYTES_MAX];
    bool kept = metrics->filter_default;
    size_t longest = 0;

    (void)snprintf(full, sizeof(full), "%s.%s", metrics->prefix, name);
    for (size_t i = 0; i < metrics->filter_count; i++) {
        const char *rule = metrics->filters[i];
        const struct slice prefix = slice_from_text(rule + 1);

        if (slice_starts_with(slice_from_text(full), prefix) && prefix.size >= longest) {
            kept = rule[0] == '+';
            longest = prefix.size;
        }
    }
    return kept;
}

static void metrics_entry_free(struct metrics_entry *entry)
{
    if (entry != NULL) {
        free(entry->owned);
        free(entry->buckets);
        free(entry->buckets_last);
        free(entry);
    }
}

/* `owned` is taken, also on failure; else the name is a constant. */
static int metrics_insert(struct metrics *metrics, enum metric_kind kind, const char *name,
                          char *owned, const char *help)
{
    const int number = atomic_load_explicit(&metrics->count, memory_order_relaxed);
    struct metrics_entry *entry = calloc(1, sizeof(*entry));

    if (entry == NULL || number == METRICS_MAX) {
        free(owned);
        free(entry);
        return -1;
    }
    entry->kind = kind;
    entry->name = name;
    entry->owned = owned;
    entry->help = help;
    entry->kept = metrics_filter(metrics, name);
    if (kind == METRIC_SAMPLE) {
        entry->buckets = calloc(METRICS_BUCKETS, sizeof(*entry->buckets));
        entry->buckets_last = calloc(METRICS_BUCKETS, sizeof(*entry->buckets_last));
        if (entry->buckets == NULL || entry->buckets_last == NULL) {
            metrics_entry_free(entry);
            return -1;
        }
    }
    metrics->entries[number] = entry;
    atomic_store_explicit(&metrics->count, number + 1, memory_order_release);
    return number;
}

static int metrics_set_options(struct metrics *metrics, const struct metrics_options *options)
{
    metrics->prefix = strdup(options->prefix);
    metrics->hostname = options->hostname == NULL ? NULL : strdup(options->hostname);
    metrics->filter_default = options->filter_default;
    metrics->filters = calloc(options->filter_count + 1, sizeof(*metrics->filters));
    if (metrics->prefix == NULL || metrics->filters == NULL ||
        (options->hostname != NULL && metrics->hostname == NULL)) {
        return -1;
    }
    for (size_t i = 0; i < options->filter_count; i++) {
        assert(options->filters[i][0] == '+' || options->filters[i][0] == '-');
        metrics->filters[i] = strdup(options->filters[i]);
        if (metrics->filters[i] == NULL) {
            return -1;
        }
        metrics->filter_count++;
    }
    return 0;
}

int metrics_new(const struct metrics_options *options, uint64_t now_ms, struct metrics **out)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));

    if (metrics == NULL || metrics_set_options(metrics, options) != 0) {
        metrics_free(metrics);
        return -1;
    }
    metrics->interval_end_ms = now_ms + METRICS_INTERVAL_MS;
    metrics->interval_start_s = (int64_t)time(NULL);
    for (size_t i = 0; i < METRICS_FIXED; i++) {
        assert(metrics_table[i].name != NULL);
        if (metrics_insert(metrics, metrics_table[i].kind, metrics_table[i].name, NULL,
                           metrics_table[i].help) != (int)i) {
            metrics_free(metrics);
            return -1;
        }
    }
    *out = metrics;
    return 0;
}

void metrics_free(struct metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    for (int i = 0; i < atomic_load(&metrics->count); i++) {
        metrics_entry_free(metrics->entries[i]);
    }
    for (size_t i = 0; i < metrics->filter_count; i++) {
        free(metrics->filters[i]);
    }
    free(metrics->filters);
    free(metrics->prefix);
    free(metrics->hostname);
    free(metrics);
}

int metrics_add(struct metrics *metrics, enum metric_kind kind, const char *name, const char *help)
{
    if (metrics == NULL || strlen(name) > METRICS_NAME_BYTES_MAX) {
        return -1;
    }
    char *owned = strdup(name);

    return owned == NULL ? -1 : metrics_insert(metrics, kind, owned, owned, help);
}

/* --- counting --- */

static struct metrics_entry *metrics_entry(const struct metrics *metrics, int metric)
{
    if (metrics == NULL || metric < 0 ||
        metric >= atomic_load_explicit(&metrics->count, memory_order_acquire)) {
        return NULL;
    }
    return metrics->entries[metric];
}

static void metrics_add_double(_Atomic double *to, double value)
{
    double old = atomic_load_explicit(to, memory_order_relaxed);

    while (!atomic_compare_exchange_weak_explicit(to, &old, old + value, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
}

/* The first event of an interval sets both ends. */
static void metrics_widen(struct metrics_entry *entry, double value, bool first)
{
    double old = atomic_load_explicit(&entry->min, memory_order_relaxed);

    while ((first || value < old) &&
           !atomic_compare_exchange_weak_explicit(&entry->min, &old, value, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
    old = atomic_load_explicit(&entry->max, memory_order_relaxed);
    while ((first || value > old) &&
           !atomic_compare_exchange_weak_explicit(&entry->max, &old, value, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
}

static void metrics_event(struct metrics_entry *entry, double value, uint64_t count)
{
    const uint64_t before = atomic_fetch_add_explicit(&entry->count, count, memory_order_relaxed);

    metrics_add_double(&entry->sum, value * (double)count);
    metrics_add_double(&entry->squares, value * value * (double)count);
    metrics_widen(entry, value, before == 0);
}

void metrics_count(struct metrics *metrics, int metric, uint64_t by)
{
    struct metrics_entry *entry = metrics_entry(metrics, metric);

    if (entry != NULL) {
        assert(entry->kind == METRIC_COUNTER);
        metrics_event(entry, (double)by, 1);
    }
}

void metrics_gauge(struct metrics *metrics, int metric, double value)
{
    struct metrics_entry *entry = metrics_entry(metrics, metric);

    if (entry != NULL) {
        assert(entry->kind == METRIC_GAUGE);
        atomic_store_explicit(&entry->sum, value, memory_order_relaxed);
        atomic_store_explicit(&entry->set, true, memory_order_relaxed);
    }
}

/* Bucket 0 holds what is too small, the last one what is too large. */
static size_t metrics_bucket(double value)
{
    int exponent;

    if (!(value > 0)) {
        return 0;
    }
    if (isinf(value)) {
        return METRICS_BUCKETS - 1; /* frexp has no exponent for it */
    }
    const double fraction = frexp(value, &exponent); /* value = fraction * 2^exponent, >= 0.5 */
    const int octave = exponent - 1 - METRICS_OCTAVE_MIN;

    if (octave < 0) {
        return 0;
    }
    if (octave >= METRICS_OCTAVE_MAX - METRICS_OCTAVE_MIN) {
        return METRICS_BUCKETS - 1;
    }
    const int part = (int)((fraction - 0.5) * 2 * METRICS_BUCKETS_PER_OCTAVE);
    return 1 + (size_t)octave * METRICS_BUCKETS_PER_OCTAVE + (size_t)part;
}

/* Its upper end. */
static double metrics_bucket_value(size_t bucket)
{
    if (bucket == 0) {
        return ldexp(1, METRICS_OCTAVE_MIN);
    }
    const int octave = ((int)bucket - 1) / METRICS_BUCKETS_PER_OCTAVE;
    const int part = ((int)bucket - 1) % METRICS_BUCKETS_PER_OCTAVE;

    return ldexp(1 + (double)(part + 1) / METRICS_BUCKETS_PER_OCTAVE, octave + METRICS_OCTAVE_MIN);
}

void metrics_samples(struct metrics *metrics, int metric, double value, uint64_t count)
{
    struct metrics_entry *entry = metrics_entry(metrics, metric);

    if (entry != NULL && count > 0) {
        assert(entry->kind == METRIC_SAMPLE);
        metrics_event(entry, value, count);
        atomic_fetch_add_explicit(&entry->buckets[metrics_bucket(value)], (uint32_t)count,
                                  memory_order_relaxed);
    }
}

void metrics_sample(struct metrics *metrics, int metric, double value)
{
    metrics_samples(metrics, metric, value, 1);
}

void metrics_time_ns(struct metrics *metrics, int metric, uint64_t ns)
{
    metrics_sample(metrics, metric, (double)ns / 1e6);
}

void metrics_count_total(struct metrics *metrics, int metric, uint64_t total)
{
    struct metrics_entry *entry = metrics_entry(metrics, metric);

    if (entry != NULL && total > entry->seen) {
        metrics_count(metrics, metric, total - entry->seen);
        entry->seen = total;
    }
}

/* --- intervals --- */

static void metrics_sum_add(struct metrics_sum *to, const struct metrics_sum *sum)
{
    if (sum->count == 0) {
        return;
    }
    to->min = to->count == 0 || sum->min < to->min ? sum->min : to->min;
    to->max = to->count == 0 || sum->max > to->max ? sum->max : to->max;
    to->count += sum->count;
    to->sum += sum->sum;
    to->squares += sum->squares;
}

static struct metrics_sum metrics_current(struct metrics_entry *entry)
{
    return (struct metrics_sum){
        .count = atomic_load_explicit(&entry->count, memory_order_relaxed),
        .sum = atomic_load_explicit(&entry->sum, memory_order_relaxed),
        .squares = atomic_load_explicit(&entry->squares, memory_order_relaxed),
        .min = atomic_load_explicit(&entry->min, memory_order_relaxed),
        .max = atomic_load_explicit(&entry->max, memory_order_relaxed),
    };
}

static void metrics_entry_turn(struct metrics_entry *entry)
{
    if (entry->kind == METRIC_GAUGE) {
        return;
    }
    entry->last = (struct metrics_sum){
        .min = atomic_load_explicit(&entry->min, memory_order_relaxed),
        .max = atomic_load_explicit(&entry->max, memory_order_relaxed),
        .count = atomic_exchange_explicit(&entry->count, 0, memory_order_relaxed),
        .sum = atomic_exchange_explicit(&entry->sum, 0, memory_order_relaxed),
        .squares = atomic_exchange_explicit(&entry->squares, 0, memory_order_relaxed),
    };
    metrics_sum_add(&entry->total, &entry->last);
    for (size_t i = 0; entry->buckets != NULL && i < METRICS_BUCKETS; i++) {
        entry->buckets_last[i] =
            atomic_exchange_explicit(&entry->buckets[i], 0, memory_order_relaxed);
    }
}

bool metrics_is_due(const struct metrics *metrics, uint64_t now_ms)
{
    return metrics != NULL && now_ms >= metrics->interval_end_ms;
}

void metrics_turn(struct metrics *metrics, uint64_t now_ms, int64_t wall_s)
{
    if (!metrics_is_due(metrics, now_ms)) {
        return;
    }
    for (int i = 0; i < atomic_load(&metrics->count); i++) {
        metrics_entry_turn(metrics->entries[i]);
    }
    metrics->last_start_s = metrics->interval_start_s;
    metrics->interval_start_s = wall_s;
    metrics->interval_end_ms = now_ms + METRICS_INTERVAL_MS;
}

/* --- reading --- */

static int metrics_compare(const void *left, const void *right)
{
    const struct metrics_entry *const *a = left;
    const struct metrics_entry *const *b = right;

    return strcmp((*a)->name, (*b)->name);
}

/* Those that are kept, by name. Returns how many. */
static size_t metrics_sorted(struct metrics *metrics, struct metrics_entry *out[METRICS_MAX])
{
    size_t count = 0;

    for (int i = 0; i < atomic_load(&metrics->count); i++) {
        if (metrics->entries[i]->kept) {
            out[count++] = metrics->entries[i];
        }
    }
    qsort(out, count, sizeof(struct metrics_entry *), metrics_compare);
    return count;
}

/* What the JSON shows of it. */
static struct metrics_sum metrics_shown(const struct metrics *metrics, struct metrics_entry *entry)
{
    return metrics->last_start_s == 0 ? metrics_current(entry) : entry->last;
}

static void metrics_put_name(const struct metrics *metrics, const struct metrics_entry *entry,
                             struct buffer *out)
{
    struct buffer name = {0};

    buffer_append_text(&name, metrics->prefix);
    if (entry->kind == METRIC_GAUGE && metrics->hostname != NULL) {
        buffer_append_char(&name, '.');
        buffer_append_text(&name, metrics->hostname);
    }
    buffer_append_char(&name, '.');
    buffer_append_text(&name, entry->name);
    buffer_append_text(out, "{\"Name\":");
    json_put_string(out, buffer_slice(&name));
    buffer_deinit(&name);
}

/* JSON has no word for what is not a number. */
static void metrics_put_number(struct buffer *out, const char *name, double value)
{
    buffer_printf(out, ",\"%s\":%.17g", name, isfinite(value) ? value : 0);
}

static void metrics_put_sum(struct buffer *out, const struct metrics_sum *sum)
{
    const double count = (double)sum->count;
    const double mean = sum->sum / count;
    /* As go-metrics computes it: the sample's, not the population's. */
    const double variance =
        sum->count < 2 ? 0 : (count * sum->squares - sum->sum * sum->sum) / (count * (count - 1));

    buffer_printf(out, ",\"Count\":%" PRIu64, sum->count);
    metrics_put_number(out, "Rate", sum->sum / (METRICS_INTERVAL_MS / 1000.0));
    metrics_put_number(out, "Sum", sum->sum);
    metrics_put_number(out, "Min", sum->min);
    metrics_put_number(out, "Max", sum->max);
    metrics_put_number(out, "Mean", mean);
    metrics_put_number(out, "Stddev", variance > 0 ? sqrt(variance) : 0);
}

static void metrics_put_kind(const struct metrics *metrics, struct metrics_entry *const *entries,
                             size_t count, enum metric_kind kind, struct buffer *out)
{
    bool first = true;

    for (size_t i = 0; i < count; i++) {
        struct metrics_entry *entry = entries[i];
        const struct metrics_sum sum = metrics_shown(metrics, entry);

        if (entry->kind != kind ||
            (kind == METRIC_GAUGE ? !atomic_load_explicit(&entry->set, memory_order_relaxed)
                                  : sum.count == 0)) {
            continue;
        }
        if (!first) {
            buffer_append_char(out, ',');
        }
        first = false;
        metrics_put_name(metrics, entry, out);
        if (kind == METRIC_GAUGE) {
            metrics_put_number(out, "Value", metrics_current(entry).sum);
        } else {
            metrics_put_sum(out, &sum);
        }
        buffer_append_text(out, ",\"Labels\":{}}");
    }
}

void metrics_put_json(struct metrics *metrics, struct buffer *out)
{
    struct metrics_entry *entries[METRICS_MAX];
    const size_t count = metrics == NULL ? 0 : metrics_sorted(metrics, entries);
    char text[64] = "";
    struct tm when;

    if (metrics != NULL) {
        const time_t start = (time_t)(metrics->last_start_s == 0 ? metrics->interval_start_s
                                                                 : metrics->last_start_s);
        if (gmtime_r(&start, &when) == NULL ||
            strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S +0000 UTC", &when) == 0) {
            text[0] = '\0';
        }
    }
    buffer_printf(out, "{\"Timestamp\":\"%s\",\"Gauges\":[", text);
    metrics_put_kind(metrics, entries, count, METRIC_GAUGE, out);
    buffer_append_text(out, "],\"Points\":[],\"Counters\":[");
    metrics_put_kind(metrics, entries, count, METRIC_COUNTER, out);
    buffer_append_text(out, "],\"Samples\":[");
    metrics_put_kind(metrics, entries, count, METRIC_SAMPLE, out);
    buffer_append_text(out, "]}");
}

/* A name as Consul's Prometheus sink writes it: what is no letter, digit or underscore becomes an
 * underscore. */
static void metrics_put_flat(struct buffer *out, const char *text)
{
    for (; *text != '\0'; text++) {
        const bool plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
                           (*text >= '0' && *text <= '9');

        buffer_append_char(out, plain ? *text : '_');
    }
}

/* The value below which the share `q` of the samples of the last and the current interval lie. */
static double metrics_quantile(struct metrics_entry *entry, double q)
{
    uint64_t total = 0, seen = 0;

    for (size_t i = 0; i < METRICS_BUCKETS; i++) {
        total +=
            entry->buckets_last[i] + atomic_load_explicit(&entry->buckets[i], memory_order_relaxed);
    }
    for (size_t i = 0; i < METRICS_BUCKETS && total > 0; i++) {
        seen +=
            entry->buckets_last[i] + atomic_load_explicit(&entry->buckets[i], memory_order_relaxed);
        if ((double)seen >= q * (double)total) {
            return metrics_bucket_value(i);
        }
    }
    return NAN;
}

static void metrics_put_summary(struct buffer *out, const char *name, struct metrics_entry *entry,
                                const struct metrics_sum *sum)
{
    static const struct {
        double q;
        const char *text;
    } quantiles[] = {{0.5, "0.5"}, {0.9, "0.9"}, {0.99, "0.99"}};

    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        const double value = metrics_quantile(entry, quantiles[i].q);

        if (isnan(value)) {
            buffer_printf(out, "%s{quantile=\"%s\"} NaN\n", name, quantiles[i].text);
        } else {
            buffer_printf(out, "%s{quantile=\"%s\"} %.9g\n", name, quantiles[i].text, value);
        }
    }
    buffer_printf(out, "%s_sum %.17g\n%s_count %" PRIu64 "\n", name, sum->sum, name, sum->count);
}

static void metrics_put_exposed(const struct metrics *metrics, struct metrics_entry *entry,
                                struct buffer *out)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_SAMPLE] = "summary"};
    struct metrics_sum sum = metrics_current(entry);
    struct buffer name = {0};

    metrics_put_flat(&name, metrics->prefix);
    if (entry->kind == METRIC_GAUGE && metrics->hostname != NULL) {
        buffer_append_char(&name, '_');
        metrics_put_flat(&name, metrics->hostname);
    }
    buffer_append_char(&name, '_');
    metrics_put_flat(&name, entry->name);
    buffer_append_char(&name, '\0');
    if (!name.failed) {
        buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name.data, entry->help, name.data,
                      types[entry->kind]);
        if (entry->kind != METRIC_GAUGE) {
            metrics_sum_add(&sum, &entry->total);
        }
        if (entry->kind == METRIC_SAMPLE) {
            metrics_put_summary(out, name.data, entry, &sum);
        } else {
            buffer_printf(out, "%s %.17g\n", name.data, sum.sum);
        }
    }
    out->failed = out->failed || name.failed;
    buffer_deinit(&name);
}

void metrics_put_prometheus(struct metrics *metrics, struct buffer *out)
{
    struct metrics_entry *entries[METRICS_MAX];
    const size_t count = metrics == NULL ? 0 : metrics_sorted(metrics, entries);

    for (size_t i = 0; i < count; i++) {
        if (entries[i]->kind != METRIC_GAUGE ||
            atomic_load_explicit(&entries[i]->set, memory_order_relaxed)) {
            metrics_put_exposed(metrics, entries[i], out);
        }
    }
}

double metrics_value(struct metrics *metrics, int metric)
{
    struct metrics_entry *entry = metrics_entry(metrics, metric);

    if (entry == NULL) {
        return 0;
    }
    if (entry->kind == METRIC_GAUGE) {
        return metrics_current(entry).sum;
    }
    return (double)(metrics_current(entry).count + entry->total.count);
}
