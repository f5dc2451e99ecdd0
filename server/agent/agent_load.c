/* What was there before: definitions of the configuration, and what clients had registered, kept on
 * disk. */

#include "server/agent/agent.h"

#include <string.h>
#include <time.h>

#include "server/agent/agent_internal.h"
#include "server/log.h"
#include "server/server.h"

enum { NS_PER_S = 1000 * 1000 * 1000 };

int agent_load_config(struct agent *agent, const struct config *config, struct errmsg *err)
{
    size_t i;
    json_t *item;
    struct errmsg cause;

    json_array_foreach(config->services, i, item)
    {
        struct agent_service_input input = {
            .agent = agent, .scripts = agent->scripts, .from_config = true, .err = &cause};
        if (agent_service_add(&input, item, AGENT_ORIGIN_FILE) != AGENT_OK) {
            return errmsg_set(
                err, AGENT_EINVAL, "service definition %zu (%.100s): %.300s", i + 1,
                input.spec.common.name.data == NULL ? "" : input.spec.common.name.data, cause.text);
        }
    }
    json_array_foreach(config->checks, i, item)
    {
        if (agent_check_add_json(agent, item, AGENT_ORIGIN_FILE, true, false, &cause) != AGENT_OK) {
            return errmsg_set(err, AGENT_EINVAL, "check definition %zu: %s", i + 1, cause.text);
        }
    }
    return AGENT_OK;
}

void agent_load_service(void *host, const json_t *document)
{
    struct agent *agent = host;
    struct errmsg err = {""};
    const json_t *json = json_object_get(document, "Service");
    struct agent_service_input input = {.agent = agent, .scripts = agent->scripts, .err = &err};
    const char *id = json_string_value(json_object_get(json, "ID"));

    if (id == NULL) {
        log_write(LOG_ERROR, "agent", "skipping a kept service: it has no ID");
        return;
    }
    if (agent_service_find(agent, slice_from_text(id)) != NULL) {
        agent_store_remove(agent->store, AGENT_STORE_SERVICES, slice_from_text(id));
        return; /* The configuration's definition wins. */
    }
    if (agent_service_add(&input, json, AGENT_ORIGIN_FILE) != AGENT_OK) {
        log_write(LOG_ERROR, "agent", "skipping the kept service %s: %s", id, err.text);
    }
}

void agent_load_check(void *host, const json_t *document)
{
    struct agent *agent = host;
    struct errmsg err = {""};
    const json_t *json = json_object_get(document, "Check");
    const char *id = json_string_value(json_object_get(json, "CheckID"));
    const char *type = json_string_value(json_object_get(document, "Type"));
    struct agent_check_definition spec;

    if (id == NULL) {
        log_write(LOG_ERROR, "agent", "skipping a kept check: it has no CheckID");
        return;
    }
    if (agent_check_find(agent, slice_from_text(id)) != NULL) {
        agent_store_remove(agent->store, AGENT_STORE_CHECKS, slice_from_text(id));
        return; /* The configuration's definition wins. */
    }
    int rc;
    if (type != NULL && strcmp(type, agent_check_type_text(AGENT_CHECK_MAINTENANCE)) == 0) {
        rc = agent_definition_read_check(json, AGENT_ORIGIN_FILE, &spec, &err);
        const struct agent_check_input input = {
            .json = json,
            .id = slice_from_text(id),
            .name = spec.name,
            .service_id = spec.service_id,
            .type = AGENT_CHECK_MAINTENANCE,
        };
        rc = rc == AGENT_OK ? agent_check_add(agent, &input, &err) : rc;
    } else {
        rc = agent_check_add_json(agent, json, AGENT_ORIGIN_FILE, false, false, &err);
    }
    if (rc != AGENT_OK) {
        log_write(LOG_ERROR, "agent", "skipping the kept check %s: %s", id, err.text);
        return;
    }
    struct agent_check *check = agent_check_find(agent, slice_from_text(id));
    /* Nothing is known of its health yet, whatever it was registered with (Consul's rule). */
    check->status = PROBE_CRITICAL;
}

void agent_check_keep_state(const struct agent_check *check, struct slice output)
{
    struct agent_store *store = check->agent->store;
    const int64_t ttl_s = check->spec.ttl_ns / NS_PER_S;

    if (store == NULL || ttl_s <= 0) {
        return; /* A shorter time is over when the server is back. */
    }
    json_t *text = json_stringn(output.data == NULL ? "" : output.data, output.size);
    json_t *document = json_pack("{s:s, s:s, s:o, s:I}", "CheckID", check->id, "Status",
                                 probe_status_text(check->status), "Output",
                                 text == NULL ? json_string("") : text, /* It may be no UTF-8. */
                                 "Expires", (json_int_t)time(NULL) + (json_int_t)ttl_s);
    if (document != NULL) {
        agent_store_put(store, AGENT_STORE_STATES, slice_from_text(check->id), document);
    }
    json_decref(document);
}

void agent_load_state(void *host, const json_t *document)
{
    struct agent *agent = host;
    const char *id = json_string_value(json_object_get(document, "CheckID"));
    const char *status = json_string_value(json_object_get(document, "Status"));
    const char *output = json_string_value(json_object_get(document, "Output"));
    const json_int_t expires = json_integer_value(json_object_get(document, "Expires"));
    struct agent_check *check = id == NULL ? NULL : agent_check_find(agent, slice_from_text(id));

    if (id == NULL || status == NULL || output == NULL) {
        log_write(LOG_ERROR, "agent", "skipping the kept state of a check: it is not whole");
        return;
    }
    if (check == NULL || check->type != AGENT_CHECK_TTL || time(NULL) >= expires) {
        agent_store_remove(agent->store, AGENT_STORE_STATES, slice_from_text(id));
        return;
    }
    agent_check_update(check, agent_status_from(slice_from_text(status)), slice_from_text(output));
}

/* Refuses a configuration before anything of it is applied. */
static int agent_validate_config(struct agent *agent, const struct config *config,
                                 struct errmsg *err)
{
    size_t i;
    json_t *item;
    struct agent_check_definition check;
    enum agent_check_type type;
    const struct agent_scripts scripts = {.remote = config->script_checks,
                                          .local = config->local_script_checks};
    struct agent_service_input input = {
        .agent = agent, .scripts = scripts, .from_config = true, .err = err};
    int rc = AGENT_OK;

    json_array_foreach(config->services, i, item)
    {
        rc = agent_definition_read_service(item, AGENT_ORIGIN_FILE, &input.spec, err);
        rc = rc == AGENT_OK ? agent_definition_check_service(&input.spec, err) : rc;
        rc = rc == AGENT_OK
                 ? agent_definition_visit_checks(&input.spec, agent_service_validate_check, &input)
                 : rc;
        if (rc != AGENT_OK) {
            return rc;
        }
    }
    json_array_foreach(config->checks, i, item)
    {
        rc = agent_definition_read_check(item, AGENT_ORIGIN_FILE, &check, err);
        rc = rc == AGENT_OK ? agent_definition_check_type(&check, &type, err) : rc;
        rc = rc == AGENT_OK ? agent_definition_refuse_kinds(&check, &scripts, true, err) : rc;
        if (rc != AGENT_OK) {
            return rc;
        }
    }
    return rc;
}

/* What the configuration does not define any more is stale then. */
static int agent_apply_config(struct agent *agent, const struct config *config, struct errmsg *err)
{
    for (size_t i = 0; i < agent->service_count; i++) {
        agent->services[i]->stale = agent->services[i]->from_config;
    }
    for (size_t i = 0; i < agent->check_count; i++) {
        agent->checks[i]->stale = agent->checks[i]->from_config;
    }
    agent_set_config(agent, config);
    /* What is still defined is registered anew, and its checks keep their status that way. */
    return agent_load_config(agent, config, err);
}

int agent_reload(struct agent *agent, const struct config *config, struct errmsg *err)
{
    struct errmsg cause;
    int rc = agent_validate_config(agent, config, err);

    if (rc != AGENT_OK) {
        return rc;
    }
    rc = agent_apply_config(agent, config, err);
    if (rc != AGENT_OK && agent_apply_config(agent, agent->server->config, &cause) != AGENT_OK) {
        log_write(LOG_ERROR, "agent", "cannot go back to what was defined before: %s", cause.text);
        return rc; /* Nothing that may still be defined is removed. */
    }
    for (size_t i = agent->check_count; i > 0; i--) {
        struct agent_check *check = agent->checks[i - 1];
        if (check->stale && !check->deleted) {
            agent_check_remove(agent, check);
        }
    }
    for (size_t i = 0; i < agent->service_count; i++) {
        struct agent_service *service = agent->services[i];
        if (service->stale && !service->deleted) {
            agent_service_remove(agent, service);
        }
    }
    return rc;
}
