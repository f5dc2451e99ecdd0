/* Building: merged settings to a struct config, with defaults and checks. Messages are Consul's
 * where it has one. Strings of the result live in config->sources or are its own. Here: what has no
 * file of its own. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kv/kv.h"
#include "server/config_builder.h"
#include "server/metrics.h"

enum {
    CONFIG_RAFT_MULTIPLIER_MAX = 10,
    CONFIG_REQUEST_BURST_S = 10, /* of limits.request_limits: seconds of a rate, at once */
    CONFIG_KV_VALUE_BYTES_LIMIT = 32 * 1024 * 1024, /* of limits.kv_max_value_size */
    CONFIG_CHECK_OUTPUT_BYTES_LIMIT = 64 * 1024,    /* of check_output_max_size */
    CONFIG_BOOTSTRAP_EXPECT_MAX = 16,               /* as many as Raft takes */
};

/* --- role --- */

static void build_role(struct config_builder *builder)
{
    struct config *config = builder->config;

    config->server = builder_bool(builder, "server", builder->dev);
    config->bootstrap = builder_bool(builder, "bootstrap", builder->dev);
    const int64_t expect = builder_int(builder, "bootstrap_expect", 0, INT64_MIN, INT64_MAX);

    if (builder->dev) {
        config->bootstrap = true;
        return; /* a server alone, whatever bootstrap_expect says */
    }
    if (expect < 0) {
        builder_fail(builder,
                     "bootstrap_expect cannot be %" PRId64
                     ". Must be greater than or equal to zero",
                     expect);
    } else if (expect > 0 && !config->server) {
        builder_fail(builder, "'bootstrap_expect > 0' requires 'server = true'");
    } else if (config->bootstrap && !config->server) {
        builder_fail(builder, "'bootstrap = true' requires 'server = true'");
    } else if (expect > 0 && config->bootstrap) {
        builder_fail(builder,
                     "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive");
    } else if (expect > CONFIG_BOOTSTRAP_EXPECT_MAX) {
        builder_fail(builder, "bootstrap_expect cannot be %" PRId64 ". Must be at most %d", expect,
                     CONFIG_BOOTSTRAP_EXPECT_MAX);
    } else if (!config->server) {
        builder_fail(builder,
                     "'server = true' is required: Proconsul runs servers; Consul's client "
                     "agents are programs of their own");
    }
    config->bootstrap_expect =
        expect > 1 && expect <= CONFIG_BOOTSTRAP_EXPECT_MAX ? (uint32_t)expect : 0;
    config->bootstrap = config->bootstrap || expect == 1;
}

/* Everybody who reaches the HTTP port may then run programs here. */
static void build_script_warnings(const struct config_builder *builder)
{
    if (builder->config->script_checks && !builder->settings->quiet) {
        log_write(LOG_WARN, "agent",
                  "using enable-script-checks without ACLs is DANGEROUS: whoever reaches the HTTP "
                  "port can run programs here; use enable-local-script-checks instead");
    }
}

/* What Consul warns of, too. */
static void build_role_warnings(const struct config_builder *builder)
{
    const struct config *config = builder->config;

    if (builder->settings->quiet || builder->dev) {
        return;
    }
    if (config->bootstrap) {
        log_write(LOG_WARN, "agent", "bootstrap = true: do not enable unless necessary");
    }
    if (config->bootstrap_expect == 2) {
        log_write(LOG_WARN, "agent",
                  "bootstrap_expect = 2: A cluster with 2 servers will provide no failure "
                  "tolerance.");
    } else if (config->bootstrap_expect != 0 && config->bootstrap_expect % 2 == 0) {
        log_write(LOG_WARN, "agent",
                  "bootstrap_expect is even number: A cluster with an even number of servers does "
                  "not achieve optimum fault tolerance.");
    }
}

/* --- who may ask --- */

/* There are no rules for single tokens, so only what needs none is taken: nothing for anybody, all
 * for the one token. */
static void build_acl(struct config_builder *builder)
{
    struct config *config = builder->config;
    const char *master = builder_text(builder, "acl.tokens.master", "");
    const char *token = builder_text(builder, "acl.tokens.initial_management", master);
    const char *anonymous = builder_text(builder, "acl.tokens.default", "");
    const char *of_dns = builder_text(builder, "acl.tokens.dns", anonymous);

    config->acl_enabled = builder_bool(builder, "acl.enabled", false);
    if (!config->acl_enabled) {
        return;
    }
    if (strcmp(builder_text(builder, "acl.default_policy", "allow"), "deny") != 0) {
        builder_fail(builder,
                     "acl.enabled needs acl.default_policy \"deny\": there are no rules for "
                     "single tokens");
    }
    if (token[0] == '\0') {
        builder_fail(builder, "acl.enabled needs acl.tokens.initial_management (or "
                              "acl.tokens.master): without it nobody could do anything");
    }
    config->acl_token = builder_copy(builder, token);
    config->acl_anonymous = strcmp(anonymous, token) == 0;
    config->dns.deny = strcmp(of_dns, token) != 0;
}

/* --- the rest --- */

static void build_log_level(struct config_builder *builder)
{
    const char *text = builder_text(builder, "log_level", builder->dev ? "debug" : "info");

    if (!log_level_parse(text, &builder->config->log_level)) {
        builder_fail(builder,
                     "Invalid log level: %.100s. Valid log levels are: [TRACE DEBUG INFO WARN ERR "
                     "ERROR]",
                     text);
    }
}

static void build_autopilot(struct config_builder *builder)
{
    struct autopilot_config *autopilot = &builder->config->autopilot;

    autopilot_config_init(autopilot);
    autopilot->cleanup_dead_servers =
        builder_bool(builder, "autopilot.cleanup_dead_servers", autopilot->cleanup_dead_servers);
    autopilot->last_contact_threshold_ns = builder_duration(
        builder, "autopilot.last_contact_threshold", autopilot->last_contact_threshold_ns);
    autopilot->max_trailing_logs =
        (uint64_t)builder_int(builder, "autopilot.max_trailing_logs",
                              (int64_t)autopilot->max_trailing_logs, 0, INT64_MAX);
    autopilot->min_quorum = (uint64_t)builder_int(builder, "autopilot.min_quorum", 0, 0, INT64_MAX);
    autopilot->server_stabilization_time_ns = builder_duration(
        builder, "autopilot.server_stabilization_time", autopilot->server_stabilization_time_ns);
}

/* A negative rate is none, as in Consul. */
static struct config_rate build_rate(const struct config_builder *builder, const char *path)
{
    const json_t *value = builder_get(builder, path);
    const double per_second = value == NULL ? -1 : json_number_value(value);

    /* A billion a second is none, either. */
    return (struct config_rate){.limited = per_second >= 0 && per_second < 1e9,
                                .per_second = per_second};
}

/* Seconds of its rate that a bucket of request_limits holds: Consul's. */
static void build_request_burst(struct config_rate *rate, bool used)
{
    const double burst = (double)CONFIG_REQUEST_BURST_S * rate->per_second;

    rate->limited = rate->limited && used;
    rate->burst = !rate->limited || burst < 1 ? 1
                  : burst > UINT32_MAX        ? UINT32_MAX
                                              : (uint32_t)burst;
}

static void build_rates(struct config_builder *builder)
{
    struct config *config = builder->config;
    const char *mode = builder_text(builder, "limits.request_limits.mode", "disabled");
    const bool disabled = strcmp(mode, "disabled") == 0 || mode[0] == '\0';

    config->rpc_rate = build_rate(builder, "limits.rpc_rate");
    const int64_t burst = builder_int(builder, "limits.rpc_max_burst", 1000, INT32_MIN, UINT32_MAX);
    config->rpc_rate.burst = burst < 0 ? 0 : (uint32_t)burst;
    config->request_limits_enforced = strcmp(mode, "enforcing") == 0;
    if (!disabled && !config->request_limits_enforced && strcmp(mode, "permissive") != 0) {
        builder_fail(
            builder,
            "limits.request_limits.mode: \"%s\" is none of disabled, permissive, enforcing", mode);
    }
    config->read_rate = build_rate(builder, "limits.request_limits.read_rate");
    config->write_rate = build_rate(builder, "limits.request_limits.write_rate");
    build_request_burst(&config->read_rate, !disabled);
    build_request_burst(&config->write_rate, !disabled);
}

static void build_limits(struct config_builder *builder)
{
    struct config *config = builder->config;

    config->raft_multiplier = (uint32_t)builder_int(builder, "performance.raft_multiplier", 1, 1,
                                                    CONFIG_RAFT_MULTIPLIER_MAX);
    config->rpc_hold_timeout_ms =
        builder_ms(builder, "performance.rpc_hold_timeout", 7 * CONFIG_SECOND_NS);
    /* The election time-out: so long others wait for a leader of which they hear nothing. */
    config->disk_stall_timeout_ms = builder_ms(builder, "performance.disk_stall_timeout",
                                               (int64_t)config->raft_multiplier * CONFIG_SECOND_NS);
    config->raft_snapshot_threshold =
        (uint64_t)builder_int(builder, "raft_snapshot_threshold", 16384, 1, INT64_MAX);
    config->raft_snapshot_interval_ms =
        builder_ms(builder, "raft_snapshot_interval", 30 * CONFIG_SECOND_NS);
    config->raft_trailing_logs =
        (uint64_t)builder_int(builder, "raft_trailing_logs", 10240, 1, INT64_MAX);
    config->session_ttl_min_ns =
        (uint64_t)builder_duration(builder, "session_ttl_min", 10 * CONFIG_SECOND_NS);
    config->kv_value_bytes_max =
        (uint64_t)builder_int(builder, "limits.kv_max_value_size", KV_VALUE_BYTES_MAX_DEFAULT, 1,
                              CONFIG_KV_VALUE_BYTES_LIMIT);
    config->txn_request_bytes_max =
        (uint64_t)builder_int(builder, "limits.txn_max_req_len", KV_VALUE_BYTES_MAX_DEFAULT, 1,
                              CONFIG_KV_VALUE_BYTES_LIMIT);
    if (config->txn_request_bytes_max < config->kv_value_bytes_max) {
        config->txn_request_bytes_max = config->kv_value_bytes_max; /* As Consul has it. */
    }
    const int64_t connections =
        builder_int(builder, "limits.http_max_conns_per_client", 200, INT32_MIN, UINT32_MAX);
    config->http_conns_per_client_max = connections <= 0 ? UINT32_MAX : (uint32_t)connections;
    config->state_bytes_max = (uint64_t)builder_int(builder, "limits.state_max_size",
                                                    INT64_C(16) << 30, 1 << 20, INT64_C(1) << 46);
    build_rates(builder);
    config->check_update_interval_ms =
        builder_ms(builder, "check_update_interval", 300 * CONFIG_SECOND_NS);
    config->check_output_bytes_max = (uint32_t)builder_int(builder, "check_output_max_size", 4096,
                                                           1, CONFIG_CHECK_OUTPUT_BYTES_LIMIT);
    config->http_unprintable = builder_bool(builder, "disable_http_unprintable_char_filter", false);
    config->discard_check_output = builder_bool(builder, "discard_check_output", false);
    config->script_checks = builder_bool(builder, "enable_script_checks", false);
    config->local_script_checks =
        config->script_checks || builder_bool(builder, "enable_local_script_checks", false);
}

/* Rules that are none are named and left out, as in Consul. */
static void build_metrics_filters(struct config_builder *builder)
{
    struct config *config = builder->config;
    size_t kept = 0;

    builder_strings(builder, "telemetry.prefix_filter", &config->metrics_filters,
                    &config->metrics_filter_count, METRICS_FILTERS_MAX);
    for (size_t i = 0; i < config->metrics_filter_count; i++) {
        char *rule = config->metrics_filters[i];

        if (rule[0] == '+' || rule[0] == '-') {
            config->metrics_filters[kept++] = rule;
            continue;
        }
        if (!builder->settings->quiet && rule[0] == '\0') {
            log_write(LOG_WARN, "agent", "Cannot have empty filter rule in prefix_filter");
        } else if (!builder->settings->quiet) {
            log_write(LOG_WARN, "agent", "Filter rule must begin with either '+' or '-': \"%s\"",
                      rule);
        }
        free(rule);
    }
    config->metrics_filter_count = kept;
}

static void build_telemetry(struct config_builder *builder)
{
    struct config *config = builder->config;
    const char *prefix = builder_text(builder, "telemetry.metrics_prefix", "consul");

    config->metrics_prefix = builder_copy(builder, prefix);
    if (strlen(prefix) > METRICS_NAME_BYTES_MAX) {
        builder_fail(builder, "telemetry.metrics_prefix cannot be longer than %d bytes",
                     METRICS_NAME_BYTES_MAX);
    }
    config->metrics_filter_default = builder_bool(builder, "telemetry.filter_default", true);
    config->metrics_disable_hostname =
        builder_bool(builder, "telemetry.disable_hostname", builder->dev);
    config->prometheus_retention_ns =
        builder_duration(builder, "telemetry.prometheus_retention_time", 0);
    build_metrics_filters(builder);
}

/* What the server says of each answer by itself: said twice, with two values, an answer is
 * ambiguous or ends at the wrong place. */
static void build_response_headers(struct config_builder *builder)
{
    static const char *const own[] = {
        "Connection", "Content-Encoding", "Content-Length",    "Content-Type", "Date",
        "Keep-Alive", "Trailer",          "Transfer-Encoding", "Upgrade"};
    json_t *headers = builder_get(builder, "http_config.response_headers");
    const char *name;
    json_t *value;

    json_object_foreach(headers, name, value)
    {
        const struct slice text = slice_from_text(name);
        bool taken =
            text.size >= 9 && slice_equal_nocase(slice_from(name, 9), SLICE_LITERAL("X-Consul-"));

        for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
            taken = taken || slice_equal_nocase(text, slice_from_text(own[i]));
        }
        if (taken) {
            builder_fail(builder,
                         "http_config.response_headers: the server itself says %s; remove it",
                         name);
        }
    }
    builder->config->http_response_headers = json_incref(headers);
}

static void build_process(struct config_builder *builder)
{
    struct config *config = builder->config;
    const char *data_dir = builder_text(builder, "data_dir", "");
    const char *pid_file = builder_text(builder, "pid_file", "");

    if (builder->dev && data_dir[0] != '\0' && !builder->settings->quiet) {
        log_write(LOG_WARN, "agent", "data_dir has no effect with -dev: nothing is kept");
    } else if (data_dir[0] != '\0') {
        config->data_dir = builder_copy(builder, data_dir);
    }
    if (pid_file[0] != '\0') {
        config->pid_file = builder_copy(builder, pid_file);
    }
    config->leave_on_terminate = builder_bool(builder, "leave_on_terminate", false);
    config->skip_leave_on_interrupt = builder_bool(builder, "skip_leave_on_interrupt", true);
    builder_strings(builder, "http_config.block_endpoints", &config->http_blocked_prefixes,
                    &config->http_blocked_count, CONFIG_ADDRESSES_MAX);
    build_response_headers(builder);
}

int config_build(struct config_settings *settings, bool dev, struct config *config,
                 struct errmsg *err)
{
    struct config_builder builder = {
        .settings = settings, .config = config, .err = err, .dev = dev};

    config->dev = dev;
    /* First, as in Consul: who forgets everything is told of this. */
    if (!dev && builder_text(&builder, "data_dir", "")[0] == '\0') {
        builder_fail(&builder, "data_dir cannot be empty");
    }
    build_role(&builder);
    config_build_node(&builder);
    build_process(&builder);
    build_log_level(&builder);
    build_limits(&builder);
    build_autopilot(&builder);
    build_telemetry(&builder);
    config_build_network(&builder);
    config_build_dns(&builder);
    build_acl(&builder);
    if (builder.failed) {
        return -1;
    }
    build_role_warnings(&builder);
    build_script_warnings(&builder);
    config->services = json_incref(settings->services);
    config->checks = json_incref(settings->checks);
    return 0;
}
