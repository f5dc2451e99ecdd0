/* The agent's life. */

#include "server/agent/agent.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/log.h"
#include "server/server.h"

uint64_t agent_random(uint64_t bound)
{
    uint64_t value;

    if (bound == 0) {
        return 0;
    }
    server_random(&value, sizeof(value));
    return value % bound;
}

static void agent_on_reap_timer(uv_timer_t *timer)
{
    agent_reap(timer->data);
}

static void agent_start_timer(struct agent *agent, uv_timer_t *timer, uv_timer_cb callback,
                              uint64_t first_ms, uint64_t repeat_ms)
{
    int rc = uv_timer_init(agent->server->loop, timer);
    assert(rc == 0); /* Cannot fail. */
    timer->data = agent;
    agent->handles_open++;
    rc = uv_timer_start(timer, callback, first_ms, repeat_ms);
    assert(rc == 0); /* Fails for closing handles only. */
    (void)rc;
}

void agent_set_config(struct agent *agent, const struct config *config)
{
    agent->check_update_interval_ms = config->check_update_interval_ms;
    agent->output_bytes_max = config->check_output_bytes_max > 0 ? config->check_output_bytes_max
                                                                 : PROBE_OUTPUT_BYTES_DEFAULT;
    agent->discard_output = config->discard_check_output;
    agent->scripts = (struct agent_scripts){.remote = config->script_checks,
                                            .local = config->local_script_checks};
}

int agent_new(struct server *server, struct agent **out, struct errmsg *err)
{
    struct agent *agent = calloc(1, sizeof(*agent));

    if (agent == NULL) {
        return errmsg_set(err, AGENT_EINTERNAL, "out of memory");
    }
    agent->magic = AGENT_MAGIC;
    agent->server = server;
    agent_set_config(agent, server->config);
    agent->waiters.next = agent->waiters.previous = &agent->waiters;
    agent->node_sync = AGENT_SYNC_UNKNOWN;
    agent->full_due_ms = server_now_ms(server);
    agent_start_timer(agent, &agent->sync_timer, agent_sync_on_timer, 0, 0);
    agent_start_timer(agent, &agent->reap_timer, agent_on_reap_timer, AGENT_REAP_MS, AGENT_REAP_MS);
    agent_start_timer(agent, &agent->servers_timer, agent_servers_on_timer, 0, AGENT_SERVERS_MS);
    agent_start_timer(agent, &agent->wait_timer, agent_on_wait_timer, 0, 0);
    (void)uv_timer_stop(&agent->wait_timer);

    int rc = agent_load_config(agent, server->config, err);
    if (rc == AGENT_OK && server->config->data_dir != NULL) {
        rc = agent_store_new(server->loop, server->config->data_dir, &agent->store, err);
    }
    if (rc == AGENT_OK && agent->store != NULL) {
        rc = agent_store_load(agent->store, AGENT_STORE_SERVICES, agent_load_service, agent, err);
    }
    if (rc == AGENT_OK && agent->store != NULL) {
        rc = agent_store_load(agent->store, AGENT_STORE_CHECKS, agent_load_check, agent, err);
    }
    if (rc == AGENT_OK && agent->store != NULL) {
        rc = agent_store_load(agent->store, AGENT_STORE_STATES, agent_load_state, agent, err);
    }
    if (rc != AGENT_OK) {
        agent_free(agent);
        return rc;
    }
    *out = agent;
    return AGENT_OK;
}

static void agent_on_closed(uv_handle_t *handle)
{
    struct agent *agent = handle->data;

    assert(agent->magic == AGENT_MAGIC);
    assert(agent->handles_open > 0);
    agent->handles_open--;
    if (agent->handles_open == 0) {
        agent->magic = 0;
        probe_tls_context_free(agent->tls);
        free(agent);
    }
}

void agent_free(struct agent *agent)
{
    if (agent == NULL) {
        return;
    }
    assert(agent->magic == AGENT_MAGIC);
    agent->closing = true;
    agent_wake(agent, UINT64_MAX);
    agent_tls_free(agent);
    agent_sync_free(agent);
    agent_servers_free(agent);
    while (agent->check_count > 0) {
        agent_check_drop(agent, agent->checks[agent->check_count - 1]);
    }
    while (agent->service_count > 0) {
        agent_service_drop(agent, agent->services[agent->service_count - 1]);
    }
    free(agent->checks);
    free(agent->services);
    agent_store_free(agent->store);
    uv_close((uv_handle_t *)&agent->sync_timer, agent_on_closed);
    uv_close((uv_handle_t *)&agent->reap_timer, agent_on_closed);
    uv_close((uv_handle_t *)&agent->servers_timer, agent_on_closed);
    uv_close((uv_handle_t *)&agent->wait_timer, agent_on_closed);
}
