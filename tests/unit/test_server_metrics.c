/* The metrics registry: what is counted is told, per interval and in total, as Consul and
 * Prometheus write it, whoever counts. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "server/metrics.h"

static struct metrics *new_metrics(const char *hostname, const char *const *filters, size_t count)
{
    const struct metrics_options options = {.prefix = "consul",
                                            .hostname = hostname,
                                            .filter_default = true,
                                            .filters = filters,
                                            .filter_count = count};
    struct metrics *metrics = NULL;

    assert_int_equal(metrics_new(&options, 1000, &metrics), 0);
    return metrics;
}

static json_t *read_json(struct metrics *metrics)
{
    struct buffer out = {0};

    metrics_put_json(metrics, &out);
    assert_false(out.failed);
    json_t *json = json_loadb(out.data, out.size, 0, NULL);
    assert_non_null(json);
    buffer_deinit(&out);
    return json;
}

/* The member `name` of a list in the answer; NULL if it is not there. */
static const json_t *find(const json_t *json, const char *list, const char *name)
{
    size_t i;
    json_t *item;

    json_array_foreach(json_object_get(json, list), i, item)
    {
        if (strcmp(json_string_value(json_object_get(item, "Name")), name) == 0) {
            return item;
        }
    }
    return NULL;
}

static double number(const json_t *item, const char *member)
{
    assert_non_null(item);
    return json_number_value(json_object_get(item, member));
}

static void exposed(struct metrics *metrics, struct buffer *out)
{
    buffer_clear(out);
    metrics_put_prometheus(metrics, out);
    buffer_append_char(out, '\0');
    assert_false(out->failed);
}

static void the_first_interval_shows_what_is_there_and_later_ones_what_was(void **state)
{
    struct metrics *metrics = new_metrics(NULL, NULL, 0);

    (void)state;
    metrics_count(metrics, METRIC_RAFT_APPLY, 3);
    json_t *json = read_json(metrics);
    assert_true(number(find(json, "Counters", "consul.raft.apply"), "Sum") == 3);
    json_decref(json);

    metrics_turn(metrics, 1000 + METRICS_INTERVAL_MS - 1, 50); /* Too early. */
    metrics_turn(metrics, 1000 + METRICS_INTERVAL_MS, 60);
    metrics_count(metrics, METRIC_RAFT_APPLY, 5);
    json = read_json(metrics);
    assert_true(number(find(json, "Counters", "consul.raft.apply"), "Sum") == 3);
    json_decref(json);

    metrics_turn(metrics, 1000 + 2 * METRICS_INTERVAL_MS, 70);
    json = read_json(metrics);
    assert_true(number(find(json, "Counters", "consul.raft.apply"), "Sum") == 5);
    assert_true(number(find(json, "Counters", "consul.raft.apply"), "Rate") == 0.5);
    assert_string_equal(json_string_value(json_object_get(json, "Timestamp")),
                        "1970-01-01 00:01:00 +0000 UTC");
    json_decref(json);

    metrics_turn(metrics, 1000 + 3 * METRICS_INTERVAL_MS, 80);
    json = read_json(metrics);
    assert_null(find(json, "Counters", "consul.raft.apply")); /* Nothing occurred. */
    json_decref(json);
    metrics_free(metrics);
}

static void a_sample_has_consuls_statistics(void **state)
{
    static const double values[] = {2, 4, 4, 4, 5, 5, 7, 9};
    struct metrics *metrics = new_metrics(NULL, NULL, 0);

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        metrics_sample(metrics, METRIC_KVS_APPLY, values[i]);
    }
    json_t *json = read_json(metrics);
    const json_t *sample = find(json, "Samples", "consul.kvs.apply");
    assert_true(number(sample, "Count") == 8);
    assert_true(number(sample, "Sum") == 40);
    assert_true(number(sample, "Min") == 2);
    assert_true(number(sample, "Max") == 9);
    assert_true(number(sample, "Mean") == 5);
    /* The sample's deviation: the root of 32 / 7. */
    assert_true(fabs(number(sample, "Stddev") - sqrt(32.0 / 7)) < 1e-9);
    json_decref(json);
    metrics_free(metrics);
}

static void a_gauge_is_shown_from_when_it_was_set_and_keeps_its_value(void **state)
{
    struct metrics *metrics = new_metrics("host-1", NULL, 0);

    (void)state;
    json_t *json = read_json(metrics);
    assert_int_equal(json_array_size(json_object_get(json, "Gauges")), 0);
    json_decref(json);
    metrics_gauge(metrics, METRIC_RAFT_PEERS, 5);
    metrics_turn(metrics, 1000 + METRICS_INTERVAL_MS, 0);
    metrics_turn(metrics, 1000 + 2 * METRICS_INTERVAL_MS, 0);
    json = read_json(metrics);
    assert_true(number(find(json, "Gauges", "consul.host-1.raft.peers"), "Value") == 5);
    json_decref(json);
    struct buffer out = {0};
    exposed(metrics, &out);
    assert_non_null(strstr(out.data, "\nconsul_host_1_raft_peers 5\n"));
    assert_non_null(strstr(out.data, "# TYPE consul_host_1_raft_peers gauge\n"));
    buffer_deinit(&out);
    metrics_free(metrics);
}

static void prometheus_sees_totals_over_all_intervals(void **state)
{
    struct metrics *metrics = new_metrics(NULL, NULL, 0);
    struct buffer out = {0};

    (void)state;
    for (uint64_t i = 1; i <= 3; i++) {
        metrics_count(metrics, METRIC_RAFT_APPLY, 10);
        metrics_sample(metrics, METRIC_KVS_APPLY, (double)i);
        metrics_turn(metrics, 1000 + i * METRICS_INTERVAL_MS, 0);
    }
    metrics_count(metrics, METRIC_RAFT_APPLY, 2);
    exposed(metrics, &out);
    assert_non_null(strstr(out.data, "\nconsul_raft_apply 32\n"));
    assert_non_null(strstr(out.data, "\nconsul_kvs_apply_sum 6\n"));
    assert_non_null(strstr(out.data, "\nconsul_kvs_apply_count 3\n"));
    assert_non_null(strstr(out.data, "\nconsul_txn_apply{quantile=\"0.99\"} NaN\n"));
    buffer_deinit(&out);
    metrics_free(metrics);
}

/* Reads a quantile's value off the text. */
static double quantile(struct metrics *metrics, const char *line)
{
    struct buffer out = {0};

    exposed(metrics, &out);
    const char *at = strstr(out.data, line);
    assert_non_null(at);
    const double value = strtod(at + strlen(line), NULL);
    buffer_deinit(&out);
    return value;
}

static void quantiles_are_right_to_a_quarter_whatever_the_scale(void **state)
{
    static const double scales[] = {1e-3, 1, 1e2, 1e4};

    (void)state;
    for (size_t i = 0; i < sizeof(scales) / sizeof(scales[0]); i++) {
        struct metrics *metrics = new_metrics(NULL, NULL, 0);

        for (int j = 1; j <= 1000; j++) {
            metrics_sample(metrics, METRIC_KVS_APPLY, scales[i] * j);
        }
        const double half = quantile(metrics, "consul_kvs_apply{quantile=\"0.5\"} ") / scales[i];
        const double most = quantile(metrics, "consul_kvs_apply{quantile=\"0.99\"} ") / scales[i];
        assert_true(half >= 500 && half <= 500 * 1.2501);
        assert_true(most >= 990 && most <= 990 * 1.2501);
        metrics_free(metrics);
    }
}

static void values_out_of_all_scales_do_no_harm(void **state)
{
    static const double values[] = {0, -1, 1e300, 1e-300, 5e-324, INFINITY, -INFINITY, NAN};
    struct metrics *metrics = new_metrics(NULL, NULL, 0);
    struct buffer out = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        metrics_sample(metrics, METRIC_KVS_APPLY, values[i]);
        metrics_gauge(metrics, METRIC_RAFT_PEERS, values[i]);
        json_decref(read_json(metrics)); /* Stays JSON. */
        exposed(metrics, &out);
    }
    buffer_deinit(&out);
    metrics_free(metrics);
}

static void the_longest_filter_decides(void **state)
{
    static const char *const filters[] = {"-consul.raft", "+consul.raft.apply",
                                          "-consul.kvs.apply"};
    struct metrics *metrics = new_metrics(NULL, filters, 3);
    struct buffer out = {0};

    (void)state;
    exposed(metrics, &out);
    assert_non_null(strstr(out.data, "\nconsul_raft_apply 0\n"));
    assert_null(strstr(out.data, "consul_raft_state_leader"));
    assert_null(strstr(out.data, "consul_kvs_apply"));
    assert_non_null(strstr(out.data, "consul_txn_apply_count 0\n"));
    const int added = metrics_add(metrics, METRIC_COUNTER, "raft.other", "");
    metrics_count(metrics, added, 1);
    exposed(metrics, &out);
    assert_null(strstr(out.data, "raft_other"));
    buffer_deinit(&out);
    metrics_free(metrics);
}

static void a_full_registry_and_none_at_all_count_nothing(void **state)
{
    char name[METRICS_NAME_BYTES_MAX + 2];
    struct metrics *metrics = new_metrics(NULL, NULL, 0);
    struct buffer out = {0};

    (void)state;
    for (int i = METRICS_FIXED; i < METRICS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "added.%d", i);
        assert_int_equal(metrics_add(metrics, METRIC_SAMPLE, name, "help"), i);
    }
    assert_int_equal(metrics_add(metrics, METRIC_SAMPLE, "one.more", "help"), -1);
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(metrics_add(metrics, METRIC_SAMPLE, name, "help"), -1);
    metrics_sample(metrics, -1, 1);
    metrics_sample(metrics, METRICS_MAX, 1);
    json_decref(read_json(metrics));
    exposed(metrics, &out);
    metrics_free(metrics);

    metrics_count(NULL, METRIC_RAFT_APPLY, 1);
    metrics_gauge(NULL, METRIC_RAFT_PEERS, 1);
    metrics_time_ns(NULL, METRIC_KVS_APPLY, 1);
    metrics_turn(NULL, 0, 0);
    assert_int_equal(metrics_add(NULL, METRIC_COUNTER, "x", ""), -1);
    assert_true(metrics_value(NULL, METRIC_RAFT_APPLY) == 0);
    json_decref(read_json(NULL));
    buffer_deinit(&out);
}

static void a_total_counts_what_came_since_the_last_time(void **state)
{
    struct metrics *metrics = new_metrics(NULL, NULL, 0);
    struct buffer out = {0};

    (void)state;
    metrics_count_total(metrics, METRIC_DNS_QUERIES, 7);
    metrics_count_total(metrics, METRIC_DNS_QUERIES, 7);
    metrics_count_total(metrics, METRIC_DNS_QUERIES, 9);
    exposed(metrics, &out);
    assert_non_null(strstr(out.data, "\nconsul_dns_queries 9\n"));
    buffer_deinit(&out);
    metrics_free(metrics);
}

enum { THREADS = 4, EVENTS = 20000 };

static void *count_away(void *context)
{
    for (int i = 0; i < EVENTS; i++) {
        metrics_count(context, METRIC_RAFT_APPLY, 1);
        metrics_sample(context, METRIC_KVS_APPLY, 1);
    }
    return NULL;
}

static void threads_that_count_at_once_lose_nothing_across_intervals(void **state)
{
    struct metrics *metrics = new_metrics(NULL, NULL, 0);
    struct buffer out = {0};
    pthread_t threads[THREADS];
    uint64_t now_ms = 1000;

    (void)state;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_away, metrics), 0);
    }
    for (int i = 0; i < 100; i++) {
        now_ms += METRICS_INTERVAL_MS;
        metrics_turn(metrics, now_ms, 0);
        exposed(metrics, &out);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_true(metrics_value(metrics, METRIC_KVS_APPLY) == THREADS * EVENTS);
    exposed(metrics, &out);
    char wanted[64];
    (void)snprintf(wanted, sizeof(wanted), "\nconsul_raft_apply %d\n", THREADS * EVENTS);
    assert_non_null(strstr(out.data, wanted));
    buffer_deinit(&out);
    metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_interval_shows_what_is_there_and_later_ones_what_was),
        cmocka_unit_test(a_sample_has_consuls_statistics),
        cmocka_unit_test(a_gauge_is_shown_from_when_it_was_set_and_keeps_its_value),
        cmocka_unit_test(prometheus_sees_totals_over_all_intervals),
        cmocka_unit_test(quantiles_are_right_to_a_quarter_whatever_the_scale),
        cmocka_unit_test(values_out_of_all_scales_do_no_harm),
        cmocka_unit_test(the_longest_filter_decides),
        cmocka_unit_test(a_full_registry_and_none_at_all_count_nothing),
        cmocka_unit_test(a_total_counts_what_came_since_the_last_time),
        cmocka_unit_test(threads_that_count_at_once_lose_nothing_across_intervals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
