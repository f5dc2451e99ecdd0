/* Alias checks: a check whose status is that of another service or node, here or in the catalog. */

#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/log.h"
#include "server/server.h"

/* What was found so far: the first critical check counts, else the last warning one. */
struct alias_verdict {
    enum probe_status status;
    struct buffer output;
};

/* True when nothing worse can come. An alias's output is left out: it quotes another one's, and two
 * that stand for each other would grow for ever. */
static bool alias_add(struct alias_verdict *verdict, struct slice name, struct slice type,
                      struct slice status, struct slice output)
{
    const bool alias = slice_equal(type, SLICE_LITERAL("alias"));
    const bool critical = slice_equal(status, SLICE_LITERAL("critical"));

    if (!critical && !slice_equal(status, SLICE_LITERAL("warning"))) {
        if (verdict->status == PROBE_PASSING) {
            buffer_clear(&verdict->output);
            buffer_append_text(&verdict->output, "All checks passing.");
        }
        return false;
    }
    verdict->status = critical ? PROBE_CRITICAL : PROBE_WARNING;
    buffer_clear(&verdict->output);
    buffer_append_text(&verdict->output, "Aliased check \"");
    buffer_append_slice(&verdict->output, name);
    buffer_append_text(&verdict->output, "\" failing: ");
    buffer_append_slice(&verdict->output, alias ? SLICE_EMPTY : output);
    return critical;
}

static void alias_add_missing(const struct agent_check *check, struct alias_verdict *verdict)
{
    verdict->status = PROBE_CRITICAL;
    buffer_append_text(&verdict->output, "Service ");
    buffer_append_slice(&verdict->output, check->spec.alias_service);
    buffer_append_text(&verdict->output, " could not be found on node ");
    buffer_append_slice(&verdict->output, check->spec.alias_node);
}

/* The node's checks and those of the service. Consul counts the node's alias checks, too; two of
 * them would then hold each other critical for ever. */
static bool alias_concerns(struct slice alias_service, struct slice service_id, struct slice type)
{
    return service_id.size == 0 ? !slice_equal(type, SLICE_LITERAL("alias"))
                                : slice_equal(service_id, alias_service);
}

static void alias_look_here(const struct agent_check *check, struct alias_verdict *verdict)
{
    const struct agent *agent = check->agent;
    const struct slice service_id = check->spec.alias_service;

    if (service_id.size > 0 && agent_service_find(agent, service_id) == NULL) {
        alias_add_missing(check, verdict);
        return;
    }
    for (size_t i = 0; i < agent->check_count; i++) {
        const struct agent_check *other = agent->checks[i];
        const struct slice type = slice_from_text(agent_check_type_text(other->type));
        const struct slice status = slice_from_text(probe_status_text(other->status));

        if (other != check && !other->deleted &&
            alias_concerns(service_id, other->spec.service_id, type) &&
            alias_add(verdict, other->spec.name, type, status, buffer_slice(&other->output))) {
            return;
        }
    }
}

/* From the local store: as old as this server's state may be. */
static int alias_look_up(const struct agent_check *check, struct store_txn *txn,
                         struct alias_verdict *verdict)
{
    struct catalog_service service;
    struct catalog_scan scan;
    struct catalog_check other;
    const struct slice node = check->spec.alias_node;
    const struct slice service_id = check->spec.alias_service;

    if (service_id.size > 0) {
        const int rc = catalog_service_get(txn, node, service_id, &service);
        if (rc == STORE_ENOTFOUND) {
            alias_add_missing(check, verdict);
            return STORE_OK;
        }
        if (rc != STORE_OK) {
            return rc;
        }
    }
    int rc = catalog_checks_begin(&scan, txn, node);
    if (rc != STORE_OK) {
        return rc;
    }
    while ((rc = catalog_checks_next(&scan, &other)) == STORE_OK) {
        if (alias_concerns(service_id, other.service_id, other.type) &&
            alias_add(verdict, other.name, other.type, other.status, other.output)) {
            break;
        }
    }
    catalog_scan_end(&scan);
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

bool agent_alias_is_local(const struct agent_check *check)
{
    return check->spec.alias_node.size == 0 ||
           slice_equal_nocase(check->spec.alias_node,
                              slice_from_text(check->agent->server->config->node_name));
}

void agent_alias_evaluate(struct agent_check *check)
{
    struct alias_verdict verdict = {.status = PROBE_PASSING};
    struct store_txn txn;
    int rc = STORE_OK;

    if (agent_alias_is_local(check)) {
        alias_look_here(check, &verdict);
    } else {
        rc = store_read_begin(check->agent->server->store, &txn);
        if (rc == STORE_OK) {
            rc = alias_look_up(check, &txn, &verdict);
            store_read_end(&txn);
        }
    }
    if (verdict.output.size == 0) {
        buffer_append_text(&verdict.output, "No checks found.");
    }
    if (rc == STORE_OK && !verdict.output.failed) {
        agent_check_update(check, verdict.status, buffer_slice(&verdict.output));
    } else {
        log_write(LOG_ERROR, "agent", "cannot judge an alias check: check=%s error=\"%s\"",
                  check->id, store_strerror(rc == STORE_OK ? STORE_ENOMEM : rc));
    }
    buffer_deinit(&verdict.output);
}
