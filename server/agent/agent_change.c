/* What services and checks are for the catalog and for clients, and their changes: each is told to
 * whom it concerns. */

#include <assert.h>

#include "server/agent/agent_internal.h"
#include "server/config.h"
#include "server/log.h"
#include "server/server.h"

/* --- records --- */

void agent_service_set_record(struct agent *agent, struct agent_service *service,
                              struct buffer *encoded)
{
    buffer_deinit(&service->encoded);
    service->encoded = *encoded;
    *encoded = (struct buffer){0};
    const bool decoded = catalog_service_decode(buffer_slice(&service->encoded), &service->record);
    assert(decoded); /* We encoded it. */
    (void)decoded;
    service->generation = ++agent->next_generation;
    agent_wake(agent, UINT64_MAX);
}

uint64_t agent_service_hash(const struct agent_service *service)
{
    uint64_t hash = 14695981039346656037ULL; /* FNV-1a */

    for (size_t i = 0; i < service->encoded.size; i++) {
        hash ^= (unsigned char)service->encoded.data[i];
        hash *= 1099511628211ULL;
    }
    return hash;
}

void agent_check_record(const struct agent *agent, const struct agent_check *check,
                        struct catalog_check *out)
{
    const struct agent_service *service = agent_service_find(agent, check->spec.service_id);

    *out = (struct catalog_check){
        .node = slice_from_text(agent->server->config->node_name),
        .id = slice_from_text(check->id),
        .name = check->spec.name,
        .status = slice_from_text(probe_status_text(check->status)),
        .notes = check->spec.notes,
        .output = buffer_slice(&check->output),
        .service_id = check->spec.service_id,
        .service_name = service == NULL ? SLICE_EMPTY : service->record.name,
        .service_tags = service == NULL ? STRINGS_NULL : service->record.tags,
        .type = slice_from_text(agent_check_type_text(check->type)),
        .definition = SLICE_EMPTY,
    };
}

/* --- changes --- */

static void agent_service_touch(struct agent *agent, struct agent_service *service)
{
    service->sync = AGENT_SYNC_DIRTY;
    service->generation = ++agent->next_generation;
}

void agent_check_touch(struct agent *agent, struct agent_check *check)
{
    check->sync = AGENT_SYNC_DIRTY;
    check->generation = ++agent->next_generation;
}

/* What is on disk of it goes. */
static void agent_check_forget(struct agent *agent, const struct agent_check *check)
{
    const struct slice id = slice_from_text(check->id);

    if (agent->store == NULL) {
        return;
    }
    if (!check->from_config) {
        agent_store_remove(agent->store, AGENT_STORE_CHECKS, id);
    }
    if (check->type == AGENT_CHECK_TTL) {
        agent_store_remove(agent->store, AGENT_STORE_STATES, id);
    }
}

void agent_check_remove(struct agent *agent, struct agent_check *check)
{
    agent_check_stop(check);
    agent_check_kick_aliases(agent);
    agent_check_forget(agent, check);
    check->deleted = true;
    agent_check_touch(agent, check);
    agent_sync_kick(agent);
}

void agent_service_remove(struct agent *agent, struct agent_service *service)
{
    const struct slice id = slice_from_text(service->id);

    /* The catalog takes a service's checks out with it, so ours need no word of their own. */
    for (size_t i = agent->check_count; i > 0; i--) {
        struct agent_check *check = agent->checks[i - 1];
        if (slice_equal(check->spec.service_id, id)) {
            if (!check->deleted) {
                agent_check_forget(agent, check);
            }
            agent_check_drop(agent, check);
        }
    }
    if (agent->store != NULL && !service->from_config) {
        agent_store_remove(agent->store, AGENT_STORE_SERVICES, id);
    }
    service->deleted = true;
    agent_service_touch(agent, service);
    agent_sync_kick(agent);
    agent_check_kick_aliases(agent);
    agent_wake(agent, UINT64_MAX);
}

void agent_service_note_foreign(struct agent *agent, struct slice id)
{
    struct agent_service *service = agent_service_obtain(agent, id);

    if (service == NULL) {
        return; /* No memory: the next comparison finds it again. */
    }
    log_write(LOG_INFO, "agent", "Deregistering unknown service of this node: service=%s",
              service->id);
    service->deleted = true;
    service->seen = true;
    agent_service_touch(agent, service);
}

void agent_check_note_foreign(struct agent *agent, struct slice id)
{
    struct agent_check *check = agent_check_obtain(agent, id);

    if (check == NULL) {
        return; /* No memory: the next comparison finds it again. */
    }
    log_write(LOG_INFO, "agent", "Deregistering unknown check of this node: check=%s", check->id);
    check->deleted = true;
    check->seen = true;
    agent_check_touch(agent, check);
}
