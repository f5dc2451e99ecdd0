/* Running checks: when a probe is due, what its result means, TTLs, and the end of services that
 * are critical for too long. */

#include <assert.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/log.h"
#include "server/server.h"

enum { NS_PER_MS = 1000 * 1000 };

static uint64_t agent_ms_from_ns(int64_t ns)
{
    return ns <= 0 ? 0 : ((uint64_t)ns + NS_PER_MS - 1) / NS_PER_MS;
}

static void agent_check_on_due(uv_timer_t *timer);

static void agent_check_schedule(struct agent_check *check, uint64_t delay_ms)
{
    const int rc = uv_timer_start(&check->timer, agent_check_on_due, delay_ms, 0);

    assert(rc == 0); /* Fails for closing handles only. */
    (void)rc;
}

/* A threshold of a definition; what is not positive is none. */
static uint64_t agent_count(int64_t number)
{
    return number < 0 ? 0 : (uint64_t)number;
}

static uint64_t agent_check_interval_ms(const struct agent_check *check)
{
    const uint64_t interval_ms = agent_ms_from_ns(check->spec.interval_ns);

    return interval_ms < AGENT_CHECK_INTERVAL_MS_MIN ? AGENT_CHECK_INTERVAL_MS_MIN : interval_ms;
}

uint64_t agent_check_output_bytes_max(const struct agent_check *check)
{
    const uint64_t own = (uint64_t)check->spec.output_bytes_max;
    const uint64_t common = check->agent->output_bytes_max;

    return own > 0 && own < common ? own : common;
}

/* --- results --- */

void agent_check_kick_aliases(struct agent *agent)
{
    for (size_t i = 0; agent->alias_count > 0 && i < agent->check_count; i++) {
        struct agent_check *check = agent->checks[i];

        if (check->alias_runs && agent_alias_is_local(check)) {
            agent_check_schedule(check, 0);
        }
    }
}

static void agent_check_set(struct agent_check *check, enum probe_status status,
                            struct slice output)
{
    struct agent *agent = check->agent;
    const uint64_t now_ms = server_now_ms(agent->server);
    const bool same_status = check->status == status;

    if (agent->discard_output) {
        output = SLICE_EMPTY;
    }
    if (status != PROBE_CRITICAL) {
        check->critical_since_ms = 0;
    } else if (check->critical_since_ms == 0) {
        check->critical_since_ms = now_ms == 0 ? 1 : now_ms;
    }
    if (same_status && slice_equal(buffer_slice(&check->output), output)) {
        return;
    }
    buffer_clear(&check->output);
    buffer_append_slice(&check->output, output);
    check->status = status;
    agent_check_kick_aliases(agent);
    if (same_status && agent->check_update_interval_ms > 0) {
        /* Outputs such as response times change with every run: the cluster hears of them now and
         * then only, spread out as Consul does. */
        if (!check->output_deferred && check->sync == AGENT_SYNC_DONE) {
            check->output_deferred = true;
            check->output_due_ms = now_ms + agent->check_update_interval_ms / 2 +
                                   agent_random(agent->check_update_interval_ms);
            agent_sync_kick(agent);
        }
        return;
    }
    check->output_deferred = false;
    agent_check_touch(agent, check);
    agent_sync_kick(agent);
}

void agent_check_update(struct agent_check *check, enum probe_status status, struct slice output)
{
    if (status != check->status) {
        log_write(status == PROBE_CRITICAL ? LOG_WARN : LOG_INFO, "agent",
                  "Check is now %s: check=%s", probe_status_text(status), check->id);
    }
    agent_check_set(check, status, output);
}

/* A probe's result counts when enough of its kind came in a row (success_before_passing,
 * failures_before_critical). */
static void agent_check_judge(struct agent_check *check, enum probe_status status,
                              struct slice output)
{
    if (status == PROBE_CRITICAL) {
        check->successes = 0;
        check->failures++;
        if (check->failures < agent_count(check->spec.failures_before_critical)) {
            if (check->spec.failures_before_warning > 0 &&
                check->failures >= agent_count(check->spec.failures_before_warning)) {
                agent_check_update(check, PROBE_WARNING, output);
                return;
            }
            log_write(LOG_WARN, "agent",
                      "Check failed but has not reached failure threshold: check=%s", check->id);
            return;
        }
    } else {
        check->failures = 0;
        check->successes++;
        if (check->successes < agent_count(check->spec.success_before_passing)) {
            log_write(LOG_WARN, "agent",
                      "Check passed but has not reached success threshold: check=%s", check->id);
            return;
        }
    }
    agent_check_update(check, status, output);
}

/* --- probes --- */

static void agent_check_on_probed(void *context, enum probe_status status, struct slice output)
{
    struct agent_check *check = context;

    assert(check->magic == AGENT_CHECK_MAGIC);
    check->probe = NULL;
    agent_check_schedule(check, agent_check_interval_ms(check));
    agent_check_judge(check, status, output);
}

/* A redirect may lead to TLS, too; but only who asks for it waits for it. */
static bool agent_check_waits_for_tls(struct agent_check *check)
{
    const struct slice https = SLICE_LITERAL("https:");
    const struct slice url = check->spec.http;

    return check->type == AGENT_CHECK_HTTP && !agent_tls_prepare(check->agent) &&
           url.size > https.size && slice_equal_nocase(slice_from(url.data, https.size), https);
}

static void agent_check_probe(struct agent_check *check)
{
    const uint64_t timeout_ms = agent_ms_from_ns(check->spec.timeout_ns);
    const struct probe_spec spec = {
        .http = check->type == AGENT_CHECK_HTTP ? check->spec.http : SLICE_EMPTY,
        .tcp = check->type == AGENT_CHECK_TCP ? check->spec.tcp : SLICE_EMPTY,
        .method = check->spec.method,
        .body = check->spec.body,
        .header = check->spec.header,
        .timeout_ms = timeout_ms == 0 ? AGENT_CHECK_TIMEOUT_MS_DEFAULT : timeout_ms,
        .output_bytes_max = agent_check_output_bytes_max(check),
        .disable_redirects = check->spec.disable_redirects,
        .tls = check->agent->tls,
        .tls_skip_verify = check->spec.tls_skip_verify,
        .tls_server_name = check->spec.tls_server_name,
    };

    assert(check->probe == NULL);
    if (agent_check_waits_for_tls(check)) {
        agent_check_schedule(check, AGENT_TLS_MS);
        return;
    }
    check->probe = probe_start(check->agent->server->loop, &spec, agent_check_on_probed, check);
    if (check->probe == NULL) {
        agent_check_schedule(check, agent_check_interval_ms(check));
        agent_check_judge(check, PROBE_CRITICAL, SLICE_LITERAL("out of memory"));
    }
}

static void agent_check_on_report(void *context, enum probe_status status, struct slice output)
{
    struct agent_check *check = context;

    assert(check->magic == AGENT_CHECK_MAGIC);
    agent_check_judge(check, status, output);
}

static void agent_check_on_ended(void *context)
{
    struct agent_check *check = context;

    assert(check->magic == AGENT_CHECK_MAGIC);
    check->script = NULL;
    agent_check_schedule(check, agent_check_interval_ms(check));
}

static void agent_check_run(struct agent_check *check)
{
    const uint64_t timeout_ms = agent_ms_from_ns(check->spec.timeout_ns);
    const struct script_spec spec = {
        .args = check->spec.args,
        .timeout_ms = timeout_ms == 0 ? AGENT_SCRIPT_TIMEOUT_MS_DEFAULT : timeout_ms,
        .output_bytes_max = agent_check_output_bytes_max(check),
        .open_files = check->agent->server->open_files_before,
    };
    const struct script_handlers handlers = {
        .context = check, .report = agent_check_on_report, .ended = agent_check_on_ended};

    assert(check->script == NULL);
    check->script = script_start(check->agent->server->loop, &spec, &handlers);
    if (check->script == NULL) {
        agent_check_schedule(check, agent_check_interval_ms(check));
        agent_check_judge(check, PROBE_CRITICAL, SLICE_LITERAL("out of memory"));
    }
}

static void agent_check_follow(struct agent_check *check)
{
    agent_alias_evaluate(check);
    if (!agent_alias_is_local(check)) {
        agent_check_schedule(check, AGENT_ALIAS_MS);
    }
}

static void agent_check_expire(struct agent_check *check)
{
    struct buffer output = {0};

    buffer_append_text(&output, "TTL expired");
    if (check->told && check->output.size > 0) {
        buffer_append_text(&output, " (last output before timeout follows): ");
        buffer_append_slice(&output, buffer_slice(&check->output));
    }
    log_write(LOG_WARN, "agent", "Check missed TTL, is now critical: check=%s", check->id);
    agent_check_set(check, PROBE_CRITICAL,
                    output.failed ? SLICE_LITERAL("TTL expired") : buffer_slice(&output));
    buffer_deinit(&output);
}

static void agent_check_on_due(uv_timer_t *timer)
{
    struct agent_check *check = timer->data;

    assert(check->magic == AGENT_CHECK_MAGIC);
    switch (check->type) {
    case AGENT_CHECK_TTL:
        agent_check_expire(check);
        break;
    case AGENT_CHECK_HTTP:
    case AGENT_CHECK_TCP:
        agent_check_probe(check);
        break;
    case AGENT_CHECK_SCRIPT:
        agent_check_run(check);
        break;
    case AGENT_CHECK_ALIAS:
        agent_check_follow(check);
        break;
    case AGENT_CHECK_NONE:
    case AGENT_CHECK_MAINTENANCE:
        break;
    }
}

void agent_check_start(struct agent_check *check)
{
    switch (check->type) {
    case AGENT_CHECK_TTL:
        agent_check_schedule(check, agent_ms_from_ns(check->spec.ttl_ns));
        break;
    case AGENT_CHECK_ALIAS:
        assert(!check->alias_runs);
        check->alias_runs = true;
        check->agent->alias_count++;
        agent_check_schedule(check, 0);
        break;
    case AGENT_CHECK_HTTP:
    case AGENT_CHECK_TCP:
    case AGENT_CHECK_SCRIPT:
        /* Somewhere within the interval, so that checks which were registered together do not run
         * together for ever. */
        agent_check_schedule(check, agent_random(agent_check_interval_ms(check)));
        break;
    case AGENT_CHECK_NONE:
    case AGENT_CHECK_MAINTENANCE:
        break;
    }
}

void agent_check_stop(struct agent_check *check)
{
    (void)uv_timer_stop(&check->timer);
    if (check->probe != NULL) {
        probe_cancel(check->probe);
        check->probe = NULL;
    }
    if (check->script != NULL) {
        script_cancel(check->script);
        check->script = NULL;
    }
    if (check->alias_runs) {
        check->alias_runs = false;
        check->agent->alias_count--;
    }
    check->successes = 0;
    check->failures = 0;
}

/* --- the end of services that stay critical --- */

static bool agent_check_overdue(const struct agent_check *check, uint64_t now_ms)
{
    uint64_t limit_ms = agent_ms_from_ns(check->spec.deregister_ns);

    if (limit_ms == 0 || check->deleted || check->spec.service_id.size == 0 ||
        check->critical_since_ms == 0) {
        return false;
    }
    limit_ms = limit_ms < AGENT_DEREGISTER_MS_MIN ? AGENT_DEREGISTER_MS_MIN : limit_ms;
    return now_ms - check->critical_since_ms > limit_ms;
}

void agent_reap(struct agent *agent)
{
    const uint64_t now_ms = server_now_ms(agent->server);
    size_t i = 0;

    while (i < agent->check_count) {
        const struct agent_check *check = agent->checks[i];
        struct agent_service *service = agent_check_overdue(check, now_ms)
                                            ? agent_service_find(agent, check->spec.service_id)
                                            : NULL;
        if (service == NULL) {
            i++;
            continue;
        }
        log_write(LOG_INFO, "agent",
                  "Deregistered service, its check has been critical for too long: service=%s "
                  "check=%s",
                  service->id, check->id);
        agent_service_remove(agent, service); /* Its checks go out of the list: begin again. */
        i = 0;
    }
}
