/* Registering and deregistering services and checks, and what clients say of TTL checks. */

#include "server/agent/agent.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/log.h"
#include "server/server.h"

int agent_no_memory(struct errmsg *err)
{
    return errmsg_set(err, AGENT_EINTERNAL, "out of memory");
}

/* Keeps a check on disk. The wrapper has room for what is no part of the definition. */
static void agent_check_keep(struct agent *agent, const struct agent_check *check)
{
    if (agent->store == NULL || check->from_config) {
        return;
    }
    json_t *document = json_pack("{s:O, s:s}", "Check", check->definition, "Type",
                                 agent_check_type_text(check->type));
    if (document != NULL) {
        agent_store_put(agent->store, AGENT_STORE_CHECKS, slice_from_text(check->id), document);
    }
    json_decref(document);
}

static void agent_service_keep(struct agent *agent, const struct agent_service *service)
{
    if (agent->store == NULL || service->from_config) {
        return;
    }
    json_t *document = json_pack("{s:O}", "Service", service->definition);
    if (document != NULL) {
        agent_store_put(agent->store, AGENT_STORE_SERVICES, slice_from_text(service->id), document);
    }
    json_decref(document);
}

enum probe_status agent_status_from(struct slice text)
{
    return slice_equal(text, SLICE_LITERAL("passing"))   ? PROBE_PASSING
           : slice_equal(text, SLICE_LITERAL("warning")) ? PROBE_WARNING
                                                         : PROBE_CRITICAL;
}

/* The definition with its defaults written in. Returns owned. */
static json_t *agent_check_normalise(const struct agent_check_input *input)
{
    static const char *const own[] = {"ID", "CheckID", "Name", "ServiceID", NULL};
    json_t *definition = agent_definition_copy_without(input->json, own);

    if (definition == NULL ||
        json_object_set_new(definition, "CheckID", json_stringn(input->id.data, input->id.size)) !=
            0 ||
        json_object_set_new(definition, "Name", json_stringn(input->name.data, input->name.size)) !=
            0 ||
        json_object_set_new(definition, "ServiceID",
                            json_stringn(input->service_id.data, input->service_id.size)) != 0) {
        json_decref(definition);
        return NULL;
    }
    return definition;
}

/* Ids are kept as C strings. */
static bool agent_id_is_kept(struct slice id)
{
    return id.size <= AGENT_ID_BYTES_MAX &&
           (id.size == 0 || memchr(id.data, '\0', id.size) == NULL);
}

int agent_check_add(struct agent *agent, const struct agent_check_input *input, struct errmsg *err)
{
    struct agent_check_definition spec;
    bool found;

    if (input->id.size == 0 || !agent_id_is_kept(input->id)) {
        return errmsg_set(err, AGENT_EINTERNAL,
                          "CheckID missing, longer than %d bytes or with a NUL in it",
                          AGENT_ID_BYTES_MAX);
    }
    found = agent_check_find_any(agent, input->id) != NULL;
    if (!found && agent->check_count >= AGENT_CHECKS_MAX) {
        return errmsg_set(err, AGENT_EINTERNAL, "too many checks on this agent (limit: %d)",
                          AGENT_CHECKS_MAX);
    }
    json_t *definition = agent_check_normalise(input);
    if (definition == NULL ||
        agent_definition_read_check(definition, AGENT_ORIGIN_FILE, &spec, err) != AGENT_OK) {
        json_decref(definition);
        return agent_no_memory(err);
    }
    struct agent_check *check = agent_check_obtain(agent, input->id);
    if (check == NULL) {
        json_decref(definition);
        return agent_no_memory(err);
    }
    agent_check_stop(check);
    if (!found || check->deleted) {
        check->status = agent_status_from(spec.status);
        buffer_clear(&check->output);
        check->critical_since_ms = 0;
        check->sync = input->keep || input->from_config ? AGENT_SYNC_DIRTY : AGENT_SYNC_UNKNOWN;
    } else {
        check->sync = AGENT_SYNC_DIRTY;
    }
    json_decref(check->definition);
    check->definition = definition;
    check->spec = spec;
    check->type = input->type;
    check->from_config = input->from_config;
    check->stale = false;
    check->deleted = false;
    check->output_deferred = false;
    check->told = false;
    check->generation = ++agent->next_generation;
    agent_check_start(check);
    agent_check_kick_aliases(agent);
    if (input->keep) {
        agent_check_keep(agent, check);
    }
    agent_sync_kick(agent);
    return AGENT_OK;
}

/* --- registering a service --- */

int agent_service_validate_check(void *host, const json_t *json)
{
    struct agent_service_input *input = host;
    struct agent_check_definition check;
    enum agent_check_type type;

    int rc = agent_definition_read_check(json, AGENT_ORIGIN_FILE, &check, input->err);
    if (rc == AGENT_OK) {
        rc = agent_definition_check_type(&check, &type, input->err);
    }
    if (rc == AGENT_OK && check.status.size > 0 && !agent_status_valid(check.status)) {
        rc = errmsg_set(input->err, AGENT_EINVAL,
                        "Status for checks must 'passing', 'warning', 'critical'");
    }
    if (rc == AGENT_OK) {
        rc = agent_definition_refuse_kinds(&check, &input->scripts, input->from_config, input->err);
    }
    input->check_total++;
    return rc;
}

/* "service:<id>" for a single check, "service:<id>:<n>" from 1 for several. */
static int agent_service_add_check(void *host, const json_t *json)
{
    struct agent_service_input *input = host;
    struct agent_check_definition check;
    enum agent_check_type type = AGENT_CHECK_NONE;
    struct buffer id = {0};
    struct buffer name = {0};

    int rc = agent_definition_read_check(json, AGENT_ORIGIN_FILE, &check, input->err);
    if (rc == AGENT_OK) {
        rc = agent_definition_check_type(&check, &type, input->err);
    }
    if (rc != AGENT_OK) {
        return rc;
    }
    input->check_position++;
    if (check.id.size > 0) {
        buffer_append_slice(&id, check.id);
    } else {
        buffer_append_text(&id, "service:");
        buffer_append_slice(&id, input->id);
        if (input->check_total > 1) {
            buffer_printf(&id, ":%zu", input->check_position);
        }
    }
    if (check.name.size > 0) {
        buffer_append_slice(&name, check.name);
    } else {
        buffer_append_text(&name, "Service '");
        buffer_append_slice(&name, input->spec.common.name);
        buffer_append_text(&name, "' check");
    }
    const struct agent_check_input add = {
        .json = json,
        .id = buffer_slice(&id),
        .name = buffer_slice(&name),
        .service_id = input->id,
        .type = type,
        .from_config = input->from_config,
        .keep = input->keep,
    };
    rc = id.failed || name.failed ? agent_no_memory(input->err)
                                  : agent_check_add(input->agent, &add, input->err);
    if (rc == AGENT_OK) {
        (void)json_array_append_new(input->check_ids, json_stringn(add.id.data, add.id.size));
    }
    buffer_deinit(&id);
    buffer_deinit(&name);
    return rc;
}

static bool agent_list_has(const json_t *list, const char *text)
{
    size_t i;
    json_t *item;

    json_array_foreach(list, i, item)
    {
        if (strcmp(json_string_value(item), text) == 0) {
            return true;
        }
    }
    return false;
}

/* ?replace-existing-checks: what the definition does not name goes, but for maintenance. */
static void agent_service_remove_other_checks(const struct agent_service_input *input)
{
    struct agent *agent = input->agent;

    for (size_t i = 0; i < agent->check_count; i++) {
        struct agent_check *check = agent->checks[i];
        if (!check->deleted && check->type != AGENT_CHECK_MAINTENANCE &&
            slice_equal(check->spec.service_id, input->id) &&
            !agent_list_has(input->check_ids, check->id)) {
            agent_check_remove(agent, check);
        }
    }
}

static int agent_service_store(struct agent_service_input *input, const json_t *json)
{
    static const char *const own[] = {"ID", "Check", "Checks", NULL};
    struct agent *agent = input->agent;
    struct buffer encoded = {0};
    struct agent_service_definition spec = input->spec;
    json_t *definition = agent_definition_copy_without(json, own);

    spec.common.id = input->id;
    agent_definition_encode_service(&encoded, &spec);
    if (definition == NULL || encoded.failed ||
        json_object_set_new(definition, "ID", json_stringn(input->id.data, input->id.size)) != 0) {
        goto fail;
    }
    struct agent_service *service = agent_service_obtain(agent, input->id);
    if (service == NULL) {
        goto fail;
    }
    json_decref(service->definition);
    service->definition = definition;
    service->from_config = input->from_config;
    service->stale = false;
    service->deleted = false;
    /* What comes from our own disk may be older than the catalog: its tags may have been changed
     * there meanwhile (EnableTagOverride). */
    service->sync = input->keep || input->from_config ? AGENT_SYNC_DIRTY : AGENT_SYNC_UNKNOWN;
    agent_service_set_record(agent, service, &encoded);
    if (input->keep) {
        agent_service_keep(agent, service);
    }
    agent_sync_kick(agent);
    agent_check_kick_aliases(agent);
    return AGENT_OK;

fail:
    json_decref(definition);
    buffer_deinit(&encoded);
    return agent_no_memory(input->err);
}

int agent_service_add(struct agent_service_input *input, const json_t *json,
                      enum agent_origin origin)
{
    int rc = agent_definition_read_service(json, origin, &input->spec, input->err);
    if (rc == AGENT_OK) {
        rc = agent_definition_check_service(&input->spec, input->err);
    }
    if (rc == AGENT_OK) {
        rc = agent_definition_visit_checks(&input->spec, agent_service_validate_check, input);
    }
    if (rc != AGENT_OK) {
        return rc;
    }
    input->id = input->spec.common.id.size > 0 ? input->spec.common.id : input->spec.common.name;
    if (!agent_id_is_kept(input->id) || !agent_id_is_kept(input->spec.common.name)) {
        return errmsg_set(input->err, AGENT_EINVAL,
                          "service ID or name longer than %d bytes or with a NUL in it",
                          AGENT_ID_BYTES_MAX);
    }
    if (agent_service_find_any(input->agent, input->id) == NULL &&
        input->agent->service_count >= AGENT_SERVICES_MAX) {
        return errmsg_set(input->err, AGENT_EINTERNAL,
                          "too many services on this agent (limit: %d)", AGENT_SERVICES_MAX);
    }
    rc = agent_service_store(input, json);
    if (rc != AGENT_OK) {
        return rc;
    }
    input->check_ids = json_array();
    rc = agent_definition_visit_checks(&input->spec, agent_service_add_check, input);
    if (rc == AGENT_OK && input->replace_checks) {
        agent_service_remove_other_checks(input);
    }
    json_decref(input->check_ids);
    return rc;
}

int agent_service_register(struct agent *agent, const json_t *definition, struct errmsg *err)
{
    struct agent_service_input input = {
        .agent = agent, .scripts = agent->scripts, .keep = true, .err = err};

    return agent_service_add(&input, definition, AGENT_ORIGIN_API_SERVICE);
}

int agent_service_register_replacing(struct agent *agent, const json_t *definition,
                                     struct errmsg *err)
{
    struct agent_service_input input = {
        .agent = agent,
        .scripts = agent->scripts,
        .keep = true,
        .replace_checks = true,
        .err = err,
    };

    return agent_service_add(&input, definition, AGENT_ORIGIN_API_SERVICE);
}

int agent_service_deregister(struct agent *agent, struct slice id, struct errmsg *err)
{
    if (id.size == 0) {
        return errmsg_set(err, AGENT_EINTERNAL, "ServiceID missing");
    }
    struct agent_service *service = agent_service_find(agent, id);
    if (service == NULL) {
        log_write(LOG_WARN, "agent",
                  "Failed to deregister service: error=\"Service does not exist\"");
        return AGENT_OK;
    }
    log_write(LOG_INFO, "agent", "Deregistered service: service=%s", service->id);
    agent_service_remove(agent, service);
    return AGENT_OK;
}

/* --- checks of their own --- */

/* Takes over a check's definition from a client, a file or our disk. */
int agent_check_add_json(struct agent *agent, const json_t *json, enum agent_origin origin,
                         bool from_config, bool keep, struct errmsg *err)
{
    struct agent_check_definition check;
    enum agent_check_type type;

    int rc = agent_definition_read_check(json, origin, &check, err);
    if (rc != AGENT_OK) {
        return rc;
    }
    if (check.name.size == 0) {
        return errmsg_set(err, AGENT_EINVAL, "Missing check name");
    }
    if (check.status.size > 0 && !agent_status_valid(check.status)) {
        return errmsg_set(err, AGENT_EINVAL, "Bad check status");
    }
    rc = agent_definition_check_type(&check, &type, err);
    if (rc == AGENT_OK) {
        rc = agent_definition_refuse_kinds(&check, &agent->scripts, from_config, err);
    }
    if (rc == AGENT_OK && check.service_id.size > 0 &&
        agent_service_find(agent, check.service_id) == NULL) {
        rc = agent_refuse(err, AGENT_EINTERNAL, "ServiceID", check.service_id, " does not exist");
    }
    if (rc != AGENT_OK) {
        return rc;
    }
    const struct agent_check_input input = {
        .json = json,
        .id = check.id.size > 0 ? check.id : check.name,
        .name = check.name,
        .service_id = check.service_id,
        .type = type,
        .from_config = from_config,
        .keep = keep,
    };
    return agent_check_add(agent, &input, err);
}

int agent_refuse(struct errmsg *err, int code, const char *before, struct slice name,
                 const char *after)
{
    struct buffer quoted = {0};

    http_put_quoted(&quoted, name);
    (void)errmsg_set(err, code, "%s %.*s%s", before, (int)quoted.size,
                     quoted.size == 0 ? "" : quoted.data, after);
    buffer_deinit(&quoted);
    return code;
}

int agent_check_register(struct agent *agent, const json_t *definition, struct errmsg *err)
{
    return agent_check_add_json(agent, definition, AGENT_ORIGIN_API_CHECK, false, true, err);
}

int agent_check_deregister(struct agent *agent, struct slice id, struct errmsg *err)
{
    if (id.size == 0) {
        return errmsg_set(err, AGENT_EINTERNAL, "CheckID missing");
    }
    struct agent_check *check = agent_check_find(agent, id);
    if (check != NULL) {
        log_write(LOG_INFO, "agent", "Deregistered check: check=%s", check->id);
        agent_check_remove(agent, check);
    }
    return AGENT_OK;
}

int agent_check_update_ttl(struct agent *agent, struct slice check_id, const char *status,
                           struct slice output, struct errmsg *err)
{
    struct agent_check *check = agent_check_find(agent, check_id);

    if (check == NULL || check->type != AGENT_CHECK_TTL) {
        return agent_refuse(err, AGENT_EINTERNAL, "CheckID", check_id,
                            " does not have associated TTL");
    }
    struct buffer text = {0};
    const size_t limit = (size_t)agent_check_output_bytes_max(check);
    buffer_append(&text, output.data, output.size > limit ? limit : output.size);
    if (output.size > limit) {
        buffer_printf(&text, " ... (captured %zu of %zu bytes)", limit, output.size);
    }
    check->told = true;
    agent_check_update(check, agent_status_from(slice_from_text(status)), buffer_slice(&text));
    agent_check_keep_state(check, buffer_slice(&text));
    buffer_deinit(&text);
    agent_check_start(check); /* The time to live begins again. */
    return AGENT_OK;
}
