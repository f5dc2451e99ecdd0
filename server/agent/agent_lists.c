/* The services and checks of this agent, each kind in a list in order of id. */

#include "server/agent/agent.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/log.h"
#include "server/server.h"

static char *agent_copy_text(struct slice text)
{
    return strndup(text.size == 0 ? "" : text.data, text.size);
}

/* Where `id` is, or would be, in a list of `count` that `id_at` reads. */
static size_t agent_position(const struct agent *agent, size_t count,
                             const char *(*id_at)(const struct agent *agent, size_t position),
                             struct slice id, bool *found)
{
    size_t low = 0;
    size_t high = count;

    *found = false;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = slice_compare(slice_from_text(id_at(agent, middle)), id);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static const char *agent_service_id_at(const struct agent *agent, size_t position)
{
    return agent->services[position]->id;
}

static const char *agent_check_id_at(const struct agent *agent, size_t position)
{
    return agent->checks[position]->id;
}

static size_t agent_service_position(const struct agent *agent, struct slice id, bool *found)
{
    return agent_position(agent, agent->service_count, agent_service_id_at, id, found);
}

static size_t agent_check_position(const struct agent *agent, struct slice id, bool *found)
{
    return agent_position(agent, agent->check_count, agent_check_id_at, id, found);
}

struct agent_service *agent_service_find_any(const struct agent *agent, struct slice id)
{
    bool found;
    const size_t position = agent_service_position(agent, id, &found);

    return found ? agent->services[position] : NULL;
}

struct agent_check *agent_check_find_any(const struct agent *agent, struct slice id)
{
    bool found;
    const size_t position = agent_check_position(agent, id, &found);

    return found ? agent->checks[position] : NULL;
}

struct agent_service *agent_service_find(const struct agent *agent, struct slice id)
{
    struct agent_service *service = agent_service_find_any(agent, id);

    return service == NULL || service->deleted ? NULL : service;
}

struct agent_check *agent_check_find(const struct agent *agent, struct slice id)
{
    struct agent_check *check = agent_check_find_any(agent, id);

    return check == NULL || check->deleted ? NULL : check;
}

/* Room for one more pointer in a list; false without memory. */
static bool agent_list_grow(void **list, size_t count, size_t *capacity)
{
    if (count < *capacity) {
        return true;
    }
    const size_t wanted = *capacity == 0 ? 16 : 2 * *capacity;
    void *grown = realloc(*list, wanted * sizeof(void *));
    if (grown == NULL) {
        return false;
    }
    *list = grown;
    *capacity = wanted;
    return true;
}

static void agent_service_destroy(struct agent_service *service)
{
    buffer_deinit(&service->encoded);
    json_decref(service->definition);
    free(service->id);
    free(service);
}

struct agent_service *agent_service_obtain(struct agent *agent, struct slice id)
{
    bool found;
    const size_t position = agent_service_position(agent, id, &found);

    if (found) {
        return agent->services[position];
    }
    void *list = agent->services;
    if (!agent_list_grow(&list, agent->service_count, &agent->service_capacity)) {
        return NULL;
    }
    agent->services = list;
    struct agent_service *service = calloc(1, sizeof(*service));
    if (service == NULL || (service->id = agent_copy_text(id)) == NULL) {
        free(service);
        return NULL;
    }
    memmove(&agent->services[position + 1], &agent->services[position],
            (agent->service_count - position) * sizeof(agent->services[0]));
    agent->services[position] = service;
    agent->service_count++;
    return service;
}

void agent_service_drop(struct agent *agent, struct agent_service *service)
{
    bool found;
    const size_t position = agent_service_position(agent, slice_from_text(service->id), &found);

    assert(found);
    assert(agent->services[position] == service);
    agent->service_count--;
    memmove(&agent->services[position], &agent->services[position + 1],
            (agent->service_count - position) * sizeof(agent->services[0]));
    agent_service_destroy(service);
}

struct agent_check *agent_check_obtain(struct agent *agent, struct slice id)
{
    bool found;
    const size_t position = agent_check_position(agent, id, &found);

    if (found) {
        return agent->checks[position];
    }
    void *list = agent->checks;
    if (!agent_list_grow(&list, agent->check_count, &agent->check_capacity)) {
        return NULL;
    }
    agent->checks = list;
    struct agent_check *check = calloc(1, sizeof(*check));
    if (check == NULL || (check->id = agent_copy_text(id)) == NULL) {
        free(check);
        return NULL;
    }
    check->magic = AGENT_CHECK_MAGIC;
    check->agent = agent;
    check->status = PROBE_CRITICAL;
    const int rc = uv_timer_init(agent->server->loop, &check->timer);
    assert(rc == 0); /* Cannot fail. */
    (void)rc;
    check->timer.data = check;
    memmove(&agent->checks[position + 1], &agent->checks[position],
            (agent->check_count - position) * sizeof(agent->checks[0]));
    agent->checks[position] = check;
    agent->check_count++;
    return check;
}

static void agent_check_on_closed(uv_handle_t *handle)
{
    struct agent_check *check = handle->data;

    assert(check->magic == AGENT_CHECK_MAGIC);
    check->magic = 0;
    buffer_deinit(&check->output);
    json_decref(check->definition);
    free(check->id);
    free(check);
}

void agent_check_drop(struct agent *agent, struct agent_check *check)
{
    bool found;
    const size_t position = agent_check_position(agent, slice_from_text(check->id), &found);

    assert(found);
    assert(agent->checks[position] == check);
    agent->check_count--;
    memmove(&agent->checks[position], &agent->checks[position + 1],
            (agent->check_count - position) * sizeof(agent->checks[0]));
    agent_check_stop(check);
    uv_close((uv_handle_t *)&check->timer, agent_check_on_closed);
}
