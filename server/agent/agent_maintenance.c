/* Maintenance of a service or of the node: a check that is critical until it is taken away. */

#include "server/agent/agent.h"

#include "server/agent/agent_internal.h"

static const char *const NO_REASON_SERVICE =
    "Maintenance mode is enabled for this service, but no reason was provided. This is a default "
    "message.";
static const char *const NO_REASON_NODE =
    "Maintenance mode is enabled for this node, but no reason was provided. This is a default "
    "message.";

static int agent_maintenance_enable(struct agent *agent, const char *check_id, const char *name,
                                    const char *service_id, struct slice reason,
                                    const char *no_reason, struct errmsg *err)
{
    if (agent_check_find(agent, slice_from_text(check_id)) != NULL) {
        return AGENT_OK; /* The first reason stays. */
    }
    const struct slice notes = reason.size > 0 ? reason : slice_from_text(no_reason);
    json_t *json = json_pack("{s:s%, s:s}", "Notes", notes.data, notes.size, "Status", "critical");
    if (json == NULL) {
        return agent_no_memory(err); /* Or the reason is no UTF-8. */
    }
    const struct agent_check_input input = {
        .json = json,
        .id = slice_from_text(check_id),
        .name = slice_from_text(name),
        .service_id = slice_from_text(service_id),
        .type = AGENT_CHECK_MAINTENANCE,
        .keep = true,
    };
    const int rc = agent_check_add(agent, &input, err);
    json_decref(json);
    return rc;
}

static int agent_maintenance_disable(struct agent *agent, const char *check_id)
{
    struct agent_check *check = agent_check_find(agent, slice_from_text(check_id));

    if (check != NULL) {
        agent_check_remove(agent, check);
    }
    return AGENT_OK;
}

int agent_service_maintenance(struct agent *agent, struct slice service_id, bool enable,
                              struct slice reason, struct errmsg *err)
{
    struct buffer id = {0};
    const struct agent_service *service = agent_service_find(agent, service_id);

    if (service == NULL) {
        return agent_refuse(err, AGENT_ENOTFOUND, "No service registered with ID", service_id, "");
    }
    buffer_append_text(&id, AGENT_SERVICE_MAINTENANCE_PREFIX);
    buffer_append_text(&id, service->id);
    buffer_append_char(&id, '\0');
    const int rc = id.failed ? agent_no_memory(err)
                   : enable  ? agent_maintenance_enable(agent, id.data, "Service Maintenance Mode",
                                                        service->id, reason, NO_REASON_SERVICE, err)
                             : agent_maintenance_disable(agent, id.data);
    buffer_deinit(&id);
    return rc;
}

int agent_node_maintenance(struct agent *agent, bool enable, struct slice reason,
                           struct errmsg *err)
{
    return enable
               ? agent_maintenance_enable(agent, AGENT_NODE_MAINTENANCE_ID, "Node Maintenance Mode",
                                          "", reason, NO_REASON_NODE, err)
               : agent_maintenance_disable(agent, AGENT_NODE_MAINTENANCE_ID);
}
