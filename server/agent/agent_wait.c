/* Who waits for a service's definition to change (/v1/agent/service/:id?hash). */

#include "server/agent/agent.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/log.h"
#include "server/server.h"

static void agent_wait_schedule(struct agent *agent)
{
    uint64_t due_ms = UINT64_MAX;
    const uint64_t now_ms = server_now_ms(agent->server);

    for (const struct agent_waiter *it = agent->waiters.next; it != &agent->waiters;
         it = it->next) {
        due_ms = it->deadline_ms < due_ms ? it->deadline_ms : due_ms;
    }
    if (due_ms == UINT64_MAX) {
        (void)uv_timer_stop(&agent->wait_timer);
    } else {
        (void)uv_timer_start(&agent->wait_timer, agent_on_wait_timer,
                             due_ms > now_ms ? due_ms - now_ms : 0, 0);
    }
}

void agent_wait_cancel(struct agent *agent, struct agent_waiter *waiter)
{
    (void)agent;
    if (waiter->waiting) {
        waiter->next->previous = waiter->previous;
        waiter->previous->next = waiter->next;
        waiter->waiting = false;
    }
}

void agent_wait(struct agent *agent, struct agent_waiter *waiter)
{
    assert(!waiter->waiting);
    if (agent->closing) {
        return; /* Its connection is going too. */
    }
    waiter->next = &agent->waiters;
    waiter->previous = agent->waiters.previous;
    agent->waiters.previous->next = waiter;
    agent->waiters.previous = waiter;
    waiter->waiting = true;
    agent_wait_schedule(agent);
}

void agent_wake(struct agent *agent, uint64_t now_ms)
{
    struct agent_waiter due;

    due.next = due.previous = &due;
    for (struct agent_waiter *it = agent->waiters.next, *next; it != &agent->waiters; it = next) {
        next = it->next;
        if (it->deadline_ms <= now_ms) {
            agent_wait_cancel(agent, it);
            it->next = &due;
            it->previous = due.previous;
            due.previous->next = it;
            due.previous = it;
            it->waiting = true; /* So that another one's answer may still cancel it. */
        }
    }
    while (due.next != &due) {
        struct agent_waiter *waiter = due.next;
        agent_wait_cancel(agent, waiter);
        waiter->on_wake(waiter);
    }
    agent_wait_schedule(agent);
}

void agent_on_wait_timer(uv_timer_t *timer)
{
    struct agent *agent = timer->data;

    agent_wake(agent, server_now_ms(agent->server));
}
