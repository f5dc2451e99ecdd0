/* Anti-entropy: what clients registered with this agent goes into the catalog through the log; what
 * the catalog has under our node and we don't know goes out of it. Changes go at once, a few
 * commands in flight; a full comparison runs about every minute and after every failure. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/command.h"
#include "server/http/catalog_json.h"
#include "server/log.h"
#include "server/server.h"

enum agent_proposal_kind { AGENT_PROPOSAL_NODE, AGENT_PROPOSAL_SERVICE, AGENT_PROPOSAL_CHECK };

/* An object as it was when it was sent. */
struct agent_proposal_object {
    char *id;
    uint64_t generation;
};

struct agent_proposal {
    struct agent *agent; /* NULL: it is gone */
    struct agent_proposal *next, *previous;
    enum agent_proposal_kind kind;
    struct agent_proposal_object subject;                            /* id NULL for the node */
    struct agent_proposal_object checks[AGENT_PROPOSAL_OBJECTS_MAX]; /* sent with a service */
    size_t check_count;
};

/* --- records --- */

static struct slice agent_node_name(const struct agent *agent)
{
    return slice_from_text(agent->server->config->node_name);
}

void agent_sync_node(const struct agent *agent, struct catalog_node *node, struct buffer *tagged,
                     struct buffer *meta)
{
    const struct config *config = agent->server->config;
    const char *address = config->advertise_addr;
    const bool v6 = strchr(address, ':') != NULL;
    const char *const names[] = {"lan", v6 ? "lan_ipv6" : "lan_ipv4", "wan",
                                 v6 ? "wan_ipv6" : "wan_ipv4"};
    /* Ours sorts among the operator's by its name, as JSON shows maps. */
    json_t *pairs = config->node_meta == NULL ? json_object() : json_deep_copy(config->node_meta);

    buffer_clear(tagged);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        strings_pack_add(tagged, slice_from_text(names[i]));
        strings_pack_add(tagged, slice_from_text(address));
    }
    (void)json_object_set_new(pairs, "consul-network-segment", json_string(""));
    *node = (struct catalog_node){
        .id = slice_from_text(agent->server->node_id_text),
        .name = agent_node_name(agent),
        .address = slice_from_text(address),
        .datacenter = slice_from_text(config->datacenter),
        .tagged_addresses = strings_from_packed(buffer_slice(tagged), 8),
        .meta = catalog_json_pack_map(meta, pairs),
    };
    json_decref(pairs);
}

static bool agent_strings_equal(struct strings a, struct strings b)
{
    return a.count == b.count && slice_equal(a.packed, b.packed);
}

static bool agent_node_equal(const struct catalog_node *ours, const struct catalog_node *theirs)
{
    return slice_equal(ours->id, theirs->id) && slice_equal(ours->address, theirs->address) &&
           agent_strings_equal(ours->tagged_addresses, theirs->tagged_addresses) &&
           agent_strings_equal(ours->meta, theirs->meta);
}

/* Whether two services say the same; indexes do not count. */
static bool agent_service_equal(const struct catalog_service *a, const struct catalog_service *b)
{
    return slice_equal(a->kind, b->kind) && slice_equal(a->id, b->id) &&
           slice_equal(a->name, b->name) && agent_strings_equal(a->tags, b->tags) &&
           agent_strings_equal(a->meta, b->meta) && slice_equal(a->address, b->address) &&
           agent_strings_equal(a->tagged_addresses, b->tagged_addresses) && a->port == b->port &&
           a->weight_passing == b->weight_passing && a->weight_warning == b->weight_warning &&
           a->enable_tag_override == b->enable_tag_override && slice_equal(a->extra, b->extra);
}

/* Name and tags of the service are the catalog's own to fill in. */
static bool agent_check_equal(const struct catalog_check *ours, const struct catalog_check *theirs,
                              bool with_output)
{
    return slice_equal(ours->name, theirs->name) && slice_equal(ours->status, theirs->status) &&
           slice_equal(ours->notes, theirs->notes) && slice_equal(ours->type, theirs->type) &&
           slice_equal(ours->service_id, theirs->service_id) &&
           (!with_output || slice_equal(ours->output, theirs->output));
}

/* --- the full comparison --- */

static void agent_compare_service(struct agent *agent, const struct catalog_service *theirs)
{
    struct agent_service *service = agent_service_find_any(agent, theirs->id);

    if (service == NULL) {
        if (!slice_equal(theirs->id, SLICE_LITERAL(AGENT_CONSUL_SERVICE_ID))) {
            agent_service_note_foreign(agent, theirs->id);
        }
        return;
    }
    service->seen = true;
    if (service->in_flight) {
        return;
    }
    if (service->deleted) {
        service->sync = AGENT_SYNC_DIRTY;
        return;
    }
    /* Tags that someone changed in the catalog win, but not over ours that are on their way. */
    if (service->record.enable_tag_override && service->sync != AGENT_SYNC_DIRTY &&
        !agent_strings_equal(service->record.tags, theirs->tags)) {
        struct catalog_service changed = service->record;
        struct buffer encoded = {0};
        changed.tags = theirs->tags;
        catalog_service_encode(&encoded, &changed);
        if (encoded.failed) {
            buffer_deinit(&encoded);
            return;
        }
        agent_service_set_record(agent, service, &encoded);
    }
    if (agent_service_equal(&service->record, theirs)) {
        service->sync = AGENT_SYNC_DONE;
    } else {
        service->sync = AGENT_SYNC_DIRTY;
    }
}

static void agent_compare_check(struct agent *agent, const struct catalog_check *theirs)
{
    struct agent_check *check = agent_check_find_any(agent, theirs->id);
    struct catalog_check ours;

    if (check == NULL) {
        /* Those of services that go, go with them. */
        const struct agent_service *service = agent_service_find_any(agent, theirs->service_id);
        if (!slice_equal(theirs->id, SLICE_LITERAL(AGENT_SERF_CHECK_ID)) &&
            (theirs->service_id.size == 0 || (service != NULL && !service->deleted))) {
            agent_check_note_foreign(agent, theirs->id);
        }
        return;
    }
    check->seen = true;
    if (check->in_flight) {
        return;
    }
    if (check->deleted) {
        check->sync = AGENT_SYNC_DIRTY;
        return;
    }
    agent_check_record(agent, check, &ours);
    check->sync = agent_check_equal(&ours, theirs, !check->output_deferred) ? AGENT_SYNC_DONE
                                                                            : AGENT_SYNC_DIRTY;
}

/* What the catalog does not have: ours go there, what should go from there is gone. */
static void agent_compare_rest(struct agent *agent)
{
    for (size_t i = agent->service_count; i > 0; i--) {
        struct agent_service *service = agent->services[i - 1];
        if (!service->seen && !service->in_flight) {
            if (service->deleted) {
                agent_service_drop(agent, service);
            } else {
                service->sync = AGENT_SYNC_DIRTY;
            }
        }
    }
    for (size_t i = agent->check_count; i > 0; i--) {
        struct agent_check *check = agent->checks[i - 1];
        if (!check->seen && !check->in_flight) {
            if (check->deleted) {
                agent_check_drop(agent, check);
            } else {
                check->sync = AGENT_SYNC_DIRTY;
            }
        }
    }
}

static int agent_compare_node(struct agent *agent, struct store_txn *txn)
{
    struct buffer tagged = {0};
    struct buffer meta = {0};
    struct catalog_node ours, theirs;

    const int rc = catalog_node_get(txn, agent_node_name(agent), &theirs);
    if (rc == STORE_OK) {
        agent_sync_node(agent, &ours, &tagged, &meta);
        if (!agent->node_in_flight) {
            agent->node_sync =
                agent_node_equal(&ours, &theirs) ? AGENT_SYNC_DONE : AGENT_SYNC_DIRTY;
        }
    } else if (rc == STORE_ENOTFOUND) {
        agent->node_sync = AGENT_SYNC_DIRTY;
    }
    buffer_deinit(&tagged);
    buffer_deinit(&meta);
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

static int agent_compare_lists(struct agent *agent, struct store_txn *txn)
{
    struct catalog_scan scan;
    struct catalog_service service;
    struct catalog_check check;

    int rc = catalog_services_begin(&scan, txn, agent_node_name(agent));
    if (rc != STORE_OK) {
        return rc;
    }
    while ((rc = catalog_services_next(&scan, &service)) == STORE_OK) {
        agent_compare_service(agent, &service);
    }
    catalog_scan_end(&scan);
    if (rc != STORE_ENOTFOUND) {
        return rc;
    }
    rc = catalog_checks_begin(&scan, txn, agent_node_name(agent));
    if (rc != STORE_OK) {
        return rc;
    }
    while ((rc = catalog_checks_next(&scan, &check)) == STORE_OK) {
        agent_compare_check(agent, &check);
    }
    catalog_scan_end(&scan);
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

static int agent_compare(struct agent *agent)
{
    struct store_txn txn;

    for (size_t i = 0; i < agent->service_count; i++) {
        agent->services[i]->seen = false;
    }
    for (size_t i = 0; i < agent->check_count; i++) {
        agent->checks[i]->seen = false;
    }
    int rc = store_read_begin(agent->server->store, &txn);
    if (rc != STORE_OK) {
        return rc;
    }
    rc = agent_compare_node(agent, &txn);
    if (rc == STORE_OK) {
        rc = agent_compare_lists(agent, &txn);
    }
    store_read_end(&txn);
    if (rc == STORE_OK) {
        agent_compare_rest(agent);
    }
    return rc;
}

/* --- sending --- */

static void agent_proposal_free(struct agent_proposal *proposal)
{
    free(proposal->subject.id);
    for (size_t i = 0; i < proposal->check_count; i++) {
        free(proposal->checks[i].id);
    }
    free(proposal);
}

/* Logs the failure; returns when to try again. */
static uint64_t agent_sync_back_off(struct agent *agent, const char *failure)
{
    const uint64_t now_ms = server_now_ms(agent->server);

    agent->backoff_ms = agent->backoff_ms == 0 ? AGENT_RETRY_MS_MIN : 2 * agent->backoff_ms;
    if (agent->backoff_ms > AGENT_RETRY_MS_MAX) {
        agent->backoff_ms = AGENT_RETRY_MS_MAX;
    }
    log_write(LOG_WARN, "agent", "Failed to sync with the catalog, will retry: error=\"%s\"",
              failure);
    return now_ms + agent->backoff_ms / 2 + agent_random(agent->backoff_ms);
}

/* Nothing is sent for a while. */
static void agent_sync_failed(struct agent *agent, const char *failure)
{
    agent->retry_at_ms = agent_sync_back_off(agent, failure);
}

/* What became of a proposal. */
enum agent_outcome {
    AGENT_OUTCOME_DONE,
    AGENT_OUTCOME_REFUSED, /* the catalog does not take it as it is */
    AGENT_OUTCOME_FAILED,  /* it was not heard, or nobody knows */
};

static void agent_proposal_settle_check(struct agent *agent,
                                        const struct agent_proposal_object *object,
                                        enum agent_outcome outcome)
{
    struct agent_check *check = agent_check_find_any(agent, slice_from_text(object->id));

    if (check == NULL) {
        return;
    }
    check->in_flight = false;
    if (outcome == AGENT_OUTCOME_FAILED || check->generation != object->generation) {
        return;
    }
    if (outcome == AGENT_OUTCOME_REFUSED) {
        check->sync =
            AGENT_SYNC_UNKNOWN; /* The others first; the next comparison sends it again. */
    } else if (check->deleted) {
        agent_check_drop(agent, check);
    } else {
        check->sync = AGENT_SYNC_DONE;
        log_write(LOG_DEBUG, "agent", "Synced check: check=%s", check->id);
    }
}

static void agent_proposal_settle_service(struct agent *agent,
                                          const struct agent_proposal_object *object,
                                          enum agent_outcome outcome)
{
    struct agent_service *service = agent_service_find_any(agent, slice_from_text(object->id));

    if (service == NULL) {
        return;
    }
    service->in_flight = false;
    if (outcome == AGENT_OUTCOME_FAILED || service->generation != object->generation) {
        return;
    }
    if (outcome == AGENT_OUTCOME_REFUSED) {
        service->sync = AGENT_SYNC_UNKNOWN; /* As for checks. */
    } else if (service->deleted) {
        agent_service_drop(agent, service);
    } else {
        service->sync = AGENT_SYNC_DONE;
        log_write(LOG_INFO, "agent", "Synced service: service=%s", service->id);
    }
}

static void agent_proposal_settle(struct agent *agent, const struct agent_proposal *proposal,
                                  enum agent_outcome outcome)
{
    switch (proposal->kind) {
    case AGENT_PROPOSAL_NODE:
        agent->node_in_flight = false;
        if (outcome == AGENT_OUTCOME_DONE) {
            agent->node_sync = AGENT_SYNC_DONE;
            log_write(LOG_INFO, "agent", "Synced node info");
        }
        break;
    case AGENT_PROPOSAL_SERVICE:
        agent_proposal_settle_service(agent, &proposal->subject, outcome);
        break;
    case AGENT_PROPOSAL_CHECK:
        agent_proposal_settle_check(agent, &proposal->subject, outcome);
        break;
    }
    for (size_t i = 0; i < proposal->check_count; i++) {
        agent_proposal_settle_check(agent, &proposal->checks[i], outcome);
    }
}

static void agent_proposal_on_done(void *context, const char *failure,
                                   const struct command_result *result)
{
    struct agent_proposal *proposal = context;
    struct agent *agent = proposal->agent;
    enum agent_outcome outcome = failure == NULL ? AGENT_OUTCOME_DONE : AGENT_OUTCOME_FAILED;

    if (agent == NULL) {
        agent_proposal_free(proposal);
        return;
    }
    if (failure == NULL && result->status == COMMAND_REFUSED) {
        failure = result->error.text;
        /* Everything hangs on the node: without it nothing else need be tried. */
        outcome =
            proposal->kind == AGENT_PROPOSAL_NODE ? AGENT_OUTCOME_FAILED : AGENT_OUTCOME_REFUSED;
    }
    proposal->next->previous = proposal->previous;
    proposal->previous->next = proposal->next;
    if (agent->proposals == proposal) {
        agent->proposals = proposal->next == proposal ? NULL : proposal->next;
    }
    assert(agent->proposals_in_flight > 0);
    agent->proposals_in_flight--;
    agent_proposal_settle(agent, proposal, outcome);
    agent_proposal_free(proposal);
    switch (outcome) {
    case AGENT_OUTCOME_DONE:
        agent->backoff_ms = 0;
        break;
    case AGENT_OUTCOME_REFUSED:
        /* The catalog may have changed under us. What it does not take holds nothing else up. */
        agent->full_due_ms = agent_sync_back_off(agent, failure);
        break;
    case AGENT_OUTCOME_FAILED:
        agent_sync_failed(agent, failure);
        agent->full_due_ms = agent->retry_at_ms;
        break;
    }
    agent_sync_kick(agent);
}

/* Takes the proposal; on failure it is freed, and what it was for stays dirty. */
static void agent_propose(struct agent *agent, struct agent_proposal *proposal,
                          const struct buffer *command)
{
    if (command->failed) {
        agent_proposal_settle(agent, proposal, AGENT_OUTCOME_FAILED);
        agent_proposal_free(proposal);
        agent_sync_failed(agent, "out of memory");
        return;
    }
    proposal->agent = agent;
    if (agent->proposals == NULL) {
        proposal->next = proposal->previous = proposal;
        agent->proposals = proposal;
    } else {
        proposal->next = agent->proposals;
        proposal->previous = agent->proposals->previous;
        proposal->previous->next = proposal;
        proposal->next->previous = proposal;
    }
    agent->proposals_in_flight++;
    replica_propose(agent->server->replica, buffer_slice(command), agent_proposal_on_done,
                    proposal);
}

static void agent_encode_checks(struct buffer *out, const struct catalog_check *check)
{
    struct buffer encoded = {0};

    catalog_check_encode(&encoded, check);
    buffer_put_u32(out, (uint32_t)encoded.size);
    buffer_append_slice(out, buffer_slice(&encoded));
    out->failed = out->failed || encoded.failed;
    buffer_deinit(&encoded);
}

/* Node, and a service and checks if any, as one command. The node's data is left alone unless it is
 * the node itself that is sent. */
static void agent_encode_register(const struct agent *agent, struct buffer *command,
                                  const struct catalog_service *service, uint32_t check_count,
                                  const struct buffer *checks)
{
    struct buffer tagged = {0};
    struct buffer meta = {0};
    struct catalog_registration registration = {
        .skip_node_update = service != NULL || check_count > 0,
        .has_service = service != NULL,
        .check_count = check_count,
        .checks = buffer_slice(checks),
    };

    agent_sync_node(agent, &registration.node, &tagged, &meta);
    if (service != NULL) {
        registration.service = *service;
        registration.service.node = registration.node.name;
    }
    command_encode_register(command, &registration);
    command->failed = command->failed || tagged.failed || meta.failed || checks->failed;
    buffer_deinit(&tagged);
    buffer_deinit(&meta);
}

static void agent_send_node(struct agent *agent)
{
    struct agent_proposal *proposal = calloc(1, sizeof(*proposal));
    struct buffer command = {0};
    const struct buffer none = {0};

    if (proposal == NULL) {
        agent_sync_failed(agent, "out of memory");
        return;
    }
    proposal->kind = AGENT_PROPOSAL_NODE;
    agent->node_in_flight = true;
    agent_encode_register(agent, &command, NULL, 0, &none);
    agent_propose(agent, proposal, &command);
    buffer_deinit(&command);
}

static bool agent_proposal_note(struct agent_proposal_object *object, const char *id,
                                uint64_t generation)
{
    object->id = strdup(id);
    object->generation = generation;
    return object->id != NULL;
}

/* The service with those of its checks that have changed too. */
static void agent_send_service(struct agent *agent, struct agent_service *service)
{
    struct agent_proposal *proposal = calloc(1, sizeof(*proposal));
    struct buffer command = {0};
    struct buffer checks = {0};

    if (proposal == NULL ||
        !agent_proposal_note(&proposal->subject, service->id, service->generation)) {
        free(proposal);
        agent_sync_failed(agent, "out of memory");
        return;
    }
    proposal->kind = AGENT_PROPOSAL_SERVICE;
    service->in_flight = true;
    if (service->deleted) {
        command_encode_deregister(&command, agent_node_name(agent), slice_from_text(service->id),
                                  SLICE_EMPTY);
    } else {
        for (size_t i = 0; i < agent->check_count; i++) {
            struct agent_check *check = agent->checks[i];
            struct catalog_check record;
            if (proposal->check_count == AGENT_PROPOSAL_OBJECTS_MAX || check->deleted ||
                check->in_flight || check->sync == AGENT_SYNC_DONE ||
                !slice_equal(check->spec.service_id, slice_from_text(service->id)) ||
                !agent_proposal_note(&proposal->checks[proposal->check_count], check->id,
                                     check->generation)) {
                continue;
            }
            proposal->check_count++;
            check->in_flight = true;
            check->output_deferred = false;
            agent_check_record(agent, check, &record);
            agent_encode_checks(&checks, &record);
        }
        agent_encode_register(agent, &command, &service->record, (uint32_t)proposal->check_count,
                              &checks);
    }
    agent_propose(agent, proposal, &command);
    buffer_deinit(&checks);
    buffer_deinit(&command);
}

static void agent_send_check(struct agent *agent, struct agent_check *check)
{
    struct agent_proposal *proposal = calloc(1, sizeof(*proposal));
    struct buffer command = {0};
    struct buffer checks = {0};
    struct catalog_check record;

    if (proposal == NULL ||
        !agent_proposal_note(&proposal->subject, check->id, check->generation)) {
        free(proposal);
        agent_sync_failed(agent, "out of memory");
        return;
    }
    proposal->kind = AGENT_PROPOSAL_CHECK;
    check->in_flight = true;
    if (check->deleted) {
        command_encode_deregister(&command, agent_node_name(agent), SLICE_EMPTY,
                                  slice_from_text(check->id));
    } else {
        check->output_deferred = false;
        agent_check_record(agent, check, &record);
        agent_encode_checks(&checks, &record);
        agent_encode_register(agent, &command, NULL, 1, &checks);
    }
    agent_propose(agent, proposal, &command);
    buffer_deinit(&checks);
    buffer_deinit(&command);
}

/* A check can go to the catalog when its service is there. */
static bool agent_check_may_go(const struct agent *agent, const struct agent_check *check)
{
    if (check->in_flight || check->sync != AGENT_SYNC_DIRTY) {
        return false;
    }
    if (check->deleted || check->spec.service_id.size == 0) {
        return true;
    }
    const struct agent_service *service = agent_service_find(agent, check->spec.service_id);
    return service != NULL && service->sync == AGENT_SYNC_DONE && !service->in_flight;
}

static void agent_send_changes(struct agent *agent)
{
    if (agent->node_sync != AGENT_SYNC_DONE) {
        if (!agent->node_in_flight) {
            agent_send_node(agent);
        }
        return; /* Everything else hangs on the node. */
    }
    for (size_t i = 0; i < agent->service_count && agent->proposals_in_flight < AGENT_PROPOSALS_MAX;
         i++) {
        if (!agent->services[i]->in_flight && agent->services[i]->sync == AGENT_SYNC_DIRTY) {
            agent_send_service(agent, agent->services[i]);
        }
    }
    for (size_t i = 0; i < agent->check_count && agent->proposals_in_flight < AGENT_PROPOSALS_MAX;
         i++) {
        if (agent_check_may_go(agent, agent->checks[i])) {
            agent_send_check(agent, agent->checks[i]);
        }
    }
}

/* --- when --- */

static void agent_sync_schedule(struct agent *agent, uint64_t due_ms)
{
    const uint64_t now_ms = server_now_ms(agent->server);

    (void)uv_timer_start(&agent->sync_timer, agent_sync_on_timer,
                         due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

void agent_sync_kick(struct agent *agent)
{
    if (!agent->closing) {
        agent_sync_schedule(agent, 0);
    }
}

static void agent_sync_on_read(void *context, const char *failure,
                               const struct replica_freshness *freshness)
{
    struct agent *agent = context;
    const uint64_t now_ms = server_now_ms(agent->server);

    (void)freshness;
    assert(agent->magic == AGENT_MAGIC);
    agent->reading = false;
    if (failure == NULL && agent_compare(agent) != STORE_OK) {
        failure = "the local store cannot be read";
    }
    if (failure != NULL) {
        agent_sync_failed(agent, failure);
        agent->full_due_ms = agent->retry_at_ms;
    } else {
        agent->compared = true;
        agent->full_due_ms = now_ms + AGENT_FULL_SYNC_MS - AGENT_FULL_SYNC_MS / 4 +
                             agent_random(AGENT_FULL_SYNC_MS / 2);
    }
    agent_sync_kick(agent);
}

/* Output-only changes whose time has come; returns when the next one is due. */
static uint64_t agent_sync_release_outputs(struct agent *agent, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;

    for (size_t i = 0; i < agent->check_count; i++) {
        struct agent_check *check = agent->checks[i];
        if (!check->output_deferred || check->deleted) {
            continue;
        }
        if (check->output_due_ms <= now_ms) {
            check->output_deferred = false;
            agent_check_touch(agent, check);
        } else if (check->output_due_ms < due_ms) {
            due_ms = check->output_due_ms;
        }
    }
    return due_ms;
}

void agent_sync_on_timer(uv_timer_t *timer)
{
    struct agent *agent = timer->data;
    const uint64_t now_ms = server_now_ms(agent->server);

    assert(agent->magic == AGENT_MAGIC);
    assert(!agent->closing);
    if (now_ms < agent->retry_at_ms) {
        agent_sync_schedule(agent, agent->retry_at_ms);
        return;
    }
    if (now_ms >= agent->full_due_ms && !agent->reading) {
        agent->reading = true;
        agent->full_due_ms = UINT64_MAX; /* Until the answer says when. */
        replica_read(agent->server->replica, &agent->read, REPLICA_DEFAULT, agent_sync_on_read,
                     agent);
    }
    uint64_t due_ms = agent_sync_release_outputs(agent, now_ms);
    if (agent->compared) {
        agent_send_changes(agent);
    }
    due_ms = agent->full_due_ms < due_ms ? agent->full_due_ms : due_ms;
    if (due_ms != UINT64_MAX && !uv_is_active((uv_handle_t *)timer)) {
        agent_sync_schedule(agent, due_ms);
    }
}

void agent_sync_free(struct agent *agent)
{
    if (agent->reading) {
        replica_read_cancel(agent->server->replica, &agent->read);
    }
    struct agent_proposal *it = agent->proposals;
    while (it != NULL && it->agent != NULL) {
        it->agent = NULL; /* Its answer may still come; it frees itself then. */
        it = it->next;
    }
    agent->proposals = NULL;
}
