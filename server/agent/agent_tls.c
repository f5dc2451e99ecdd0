/* The authorities for HTTPS checks: reading them takes tens of milliseconds, so a worker does it,
 * once, when the first HTTP check runs. */

#include <assert.h>
#include <stdlib.h>

#include "server/agent/agent_internal.h"
#include "server/server.h"

struct agent_tls_work {
    uv_work_t work;
    struct agent *agent; /* NULL: it is gone */
    struct probe_tls_context *context;
};

static void agent_tls_on_work(uv_work_t *work)
{
    struct agent_tls_work *tls = work->data;

    tls->context = probe_tls_context_new();
}

static void agent_tls_on_done(uv_work_t *work, int status)
{
    struct agent_tls_work *tls = work->data;
    struct agent *agent = tls->agent;

    (void)status; /* It is never cancelled. */
    if (agent == NULL) {
        probe_tls_context_free(tls->context);
    } else {
        assert(agent->magic == AGENT_MAGIC);
        agent->tls = tls->context;
        agent->tls_work = NULL;
        agent->tls_ready = true;
    }
    free(tls);
}

bool agent_tls_prepare(struct agent *agent)
{
    if (agent->tls_ready || agent->tls_work != NULL) {
        return agent->tls_ready;
    }
    struct agent_tls_work *tls = calloc(1, sizeof(*tls));
    if (tls == NULL) {
        return false;
    }
    tls->agent = agent;
    tls->work.data = tls;
    const int rc =
        uv_queue_work(agent->server->loop, &tls->work, agent_tls_on_work, agent_tls_on_done);
    assert(rc == 0); /* Fails without a callback only. */
    (void)rc;
    agent->tls_work = tls;
    return false;
}

void agent_tls_free(struct agent *agent)
{
    if (agent->tls_work != NULL) {
        agent->tls_work->agent = NULL; /* The worker's result is thrown away. */
        agent->tls_work = NULL;
    }
}
