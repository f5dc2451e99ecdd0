/* The leader's part: servers' nodes, their "consul" service and their serfHealth check in line with
 * membership. Every server runs the timer; only the leader's does anything.
 *
 * A member that left in order keeps its node while TTL sessions of that node live: taking the node
 * out would end them before their TTL, and with them the locks of a database that still runs. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/command.h"
#include "server/log.h"
#include "server/server.h"
#include "session/session.h"

static const char ALIVE_OUTPUT[] = "Agent alive and reachable";
static const char FAILED_OUTPUT[] = "Agent not live or unreachable";

/* One server, and what the catalog should say of it. Borrows. */
struct agent_server {
    struct slice id;
    struct slice name;
    struct slice address;
    uint16_t server_port;
    bool self;
};

/* A command on its way. Outlives the agent: then agent is NULL. */
struct agent_servers_proposal {
    struct agent *agent;
    struct agent_servers_proposal *next;
    struct agent_servers_proposal **link; /* what points at this one */
};

static void agent_servers_on_done(void *context, const char *failure,
                                  const struct command_result *result)
{
    struct agent_servers_proposal *proposal = context;
    struct agent *agent = proposal->agent;

    if (agent == NULL) {
        free(proposal);
        return;
    }
    if (failure == NULL && result->status == COMMAND_REFUSED) {
        failure = result->error.text;
    }
    if (failure != NULL) {
        log_write(LOG_WARN, "agent.leader",
                  "failed to reconcile a member, will retry: error=\"%s\"", failure);
    }
    *proposal->link = proposal->next;
    if (proposal->next != NULL) {
        proposal->next->link = proposal->link;
    }
    free(proposal);
    assert(agent->servers_in_flight > 0);
    agent->servers_in_flight--;
    if (agent->servers_in_flight == 0 && agent->servers_again) {
        agent_members_changed(agent);
    }
}

static void agent_servers_propose(struct agent *agent, const struct buffer *command)
{
    struct agent_servers_proposal *proposal = calloc(1, sizeof(*proposal));

    if (proposal == NULL || command->failed) {
        free(proposal); /* No memory: the next turn of the timer tries again. */
        return;
    }
    proposal->agent = agent;
    proposal->next = agent->servers_proposals;
    proposal->link = &agent->servers_proposals;
    if (proposal->next != NULL) {
        proposal->next->link = &proposal->next;
    }
    agent->servers_proposals = proposal;
    agent->servers_in_flight++;
    replica_propose(agent->server->replica, buffer_slice(command), agent_servers_on_done, proposal);
}

void agent_servers_free(struct agent *agent)
{
    struct agent_servers_proposal *it = agent->servers_proposals;

    while (it != NULL) {
        it->agent = NULL; /* Its answer may still come; it frees itself then. */
        it = it->next;
    }
    agent->servers_proposals = NULL;
}

/* --- what the catalog should have --- */

/* The "consul" service as Consul 1.8 registers it (conformance: catalog-services-local). */
static struct catalog_service agent_servers_service(const struct agent_server *server,
                                                    struct buffer *meta)
{
    static const char *const pairs[] = {
        "non_voter",
        "false",
        "raft_version",
        "3",
        "serf_protocol_current",
        "2",
        "serf_protocol_max",
        "5",
        "serf_protocol_min",
        "1",
        "version",
        PROCONSUL_CONSUL_VERSION,
    };
    const uint32_t count = sizeof(pairs) / sizeof(pairs[0]);

    buffer_clear(meta);
    for (uint32_t i = 0; i < count; i++) {
        strings_pack_add(meta, slice_from_text(pairs[i]));
    }
    return (struct catalog_service){
        .node = server->name,
        .kind = SLICE_EMPTY,
        .id = SLICE_LITERAL(AGENT_CONSUL_SERVICE_ID),
        .name = SLICE_LITERAL(AGENT_CONSUL_SERVICE_ID),
        .tags = strings_from_packed(SLICE_EMPTY, 0),
        .meta = strings_from_packed(buffer_slice(meta), count),
        .address = SLICE_EMPTY,
        .tagged_addresses = STRINGS_NULL,
        .port = server->server_port,
        .weight_passing = 1,
        .weight_warning = 1,
        .extra = SLICE_EMPTY,
    };
}

static void agent_servers_register(struct agent *agent, const struct agent_server *server,
                                   bool alive)
{
    struct buffer meta = {0};
    struct buffer check_bytes = {0};
    struct buffer checks = {0};
    struct buffer command = {0};
    const struct catalog_check check = {
        .node = server->name,
        .id = SLICE_LITERAL(AGENT_SERF_CHECK_ID),
        .name = SLICE_LITERAL("Serf Health Status"),
        .status = alive ? SLICE_LITERAL("passing") : SLICE_LITERAL("critical"),
        .notes = SLICE_EMPTY,
        .output = alive ? SLICE_LITERAL(ALIVE_OUTPUT) : SLICE_LITERAL(FAILED_OUTPUT),
        .service_id = SLICE_EMPTY,
        .service_name = SLICE_EMPTY,
        .service_tags = STRINGS_NULL,
        .type = SLICE_EMPTY,
        .definition = SLICE_EMPTY,
    };

    catalog_check_encode(&check_bytes, &check);
    buffer_put_u32(&checks, (uint32_t)check_bytes.size);
    buffer_append_slice(&checks, buffer_slice(&check_bytes));
    const struct catalog_registration registration = {
        .node =
            {
                .id = server->id,
                .name = server->name,
                .address = server->address,
                .datacenter = slice_from_text(agent->server->config->datacenter),
                .tagged_addresses = STRINGS_NULL,
                .meta = STRINGS_NULL,
            },
        /* The server's own agent says the rest of its node: do not overwrite it. */
        .skip_node_update = true,
        .has_service = alive,
        .service = agent_servers_service(server, &meta),
        .check_count = 1,
        .checks = buffer_slice(&checks),
    };
    command_encode_register(&command, &registration);
    command.failed = command.failed || meta.failed || check_bytes.failed || checks.failed;
    log_write(LOG_INFO, "agent.leader", "member %.*s is %s, marking health %s",
              (int)server->name.size, server->name.data, alive ? "alive" : "failed",
              alive ? "passing" : "critical");
    agent_servers_propose(agent, &command);
    buffer_deinit(&command);
    buffer_deinit(&checks);
    buffer_deinit(&check_bytes);
    buffer_deinit(&meta);
}

static bool agent_servers_check_is(struct store_txn *txn, const struct agent_server *server,
                                   const char *status)
{
    struct catalog_check check;

    return catalog_check_get(txn, server->name, SLICE_LITERAL(AGENT_SERF_CHECK_ID), &check) ==
               STORE_OK &&
           slice_equal(check.status, slice_from_text(status));
}

static void agent_servers_alive(struct agent *agent, struct store_txn *txn,
                                const struct agent_server *server)
{
    struct catalog_node node;
    struct catalog_service service;

    /* Its own agent keeps the address up to date; a node that is not there yet begins here. */
    if (catalog_node_get(txn, server->name, &node) == STORE_OK &&
        catalog_service_get(txn, server->name, SLICE_LITERAL(AGENT_CONSUL_SERVICE_ID), &service) ==
            STORE_OK &&
        service.port == server->server_port && agent_servers_check_is(txn, server, "passing")) {
        return;
    }
    agent_servers_register(agent, server, true);
}

static void agent_servers_failed(struct agent *agent, struct store_txn *txn,
                                 const struct agent_server *server)
{
    struct catalog_node node;

    if (catalog_node_get(txn, server->name, &node) != STORE_OK ||
        agent_servers_check_is(txn, server, "critical")) {
        return; /* Consul does not register a node only to say that it failed. */
    }
    agent_servers_register(agent, server, false);
}

/* Whether a session with a TTL was created on this node and has not ended. */
static bool agent_servers_has_sessions(struct store_txn *txn, struct slice node)
{
    struct session_scan scan;
    struct session session;
    bool found = false;

    if (session_scan_begin_node(&scan, txn, node) != STORE_OK) {
        return true; /* The cautious answer. */
    }
    while (!found && session_scan_next(&scan, &session) == STORE_OK) {
        found = session.ttl_ms > 0;
    }
    session_scan_end(&scan);
    return found;
}

static void agent_servers_left(struct agent *agent, struct store_txn *txn,
                               const struct agent_server *server)
{
    struct catalog_node node;
    struct buffer command = {0};

    if (server->self || catalog_node_get(txn, server->name, &node) != STORE_OK ||
        agent_servers_has_sessions(txn, server->name)) {
        return;
    }
    log_write(LOG_INFO, "agent.leader", "member %.*s left, deregistering", (int)server->name.size,
              server->name.data);
    command_encode_deregister(&command, server->name, SLICE_EMPTY, SLICE_EMPTY);
    agent_servers_propose(agent, &command);
    buffer_deinit(&command);
}

/* --- looking at all of them --- */

static void agent_servers_look_at(struct agent *agent, struct store_txn *txn,
                                  const struct member *member)
{
    char id[UUID_TEXT_BYTES + 1];

    uuid_format(&member->id, id);
    const struct agent_server server = {
        .id = slice_from_text(id),
        .name = slice_from_text(member->name),
        .address = slice_from_text(member->address),
        .server_port = member->server_port,
        .self = member->self,
    };
    switch (member->status) {
    case MEMBER_ALIVE:
    case MEMBER_LEAVING:
        agent_servers_alive(agent, txn, &server);
        break;
    case MEMBER_LEFT:
        agent_servers_left(agent, txn, &server);
        break;
    case MEMBER_FAILED:
        agent_servers_failed(agent, txn, &server);
        break;
    }
}

/* Servers of the Raft configuration that this leader has never heard of: it was started while they
 * were down. After a while they count as failed, or the catalog would show them alive for ever. */
static void agent_servers_look_for_unseen(struct agent *agent, struct store_txn *txn)
{
    struct replica_peer peers[MEMBERS_MAX];
    size_t count = replica_peers(agent->server->replica, peers, MEMBERS_MAX);

    count = count > MEMBERS_MAX ? MEMBERS_MAX : count;
    for (size_t i = 0; i < count; i++) {
        struct uuid id;
        struct catalog_node node;
        if (!uuid_parse(slice_from_text(peers[i].id), &id) ||
            membership_find(agent->server->membership, &id) != NULL ||
            catalog_node_get_by_id(txn, slice_from_text(peers[i].id), &node) != STORE_OK) {
            continue;
        }
        const struct agent_server server = {
            .id = slice_from_text(peers[i].id),
            .name = node.name,
            .address = node.address,
        };
        agent_servers_failed(agent, txn, &server);
    }
}

static bool agent_servers_is_known(const struct agent *agent, struct slice id)
{
    struct replica_peer peers[MEMBERS_MAX];
    size_t count = replica_peers(agent->server->replica, peers, MEMBERS_MAX);
    struct uuid uuid;

    if (!uuid_parse(id, &uuid) || membership_find(agent->server->membership, &uuid) != NULL) {
        return true; /* Without an id it is none of ours. */
    }
    count = count > MEMBERS_MAX ? MEMBERS_MAX : count;
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(id, slice_from_text(peers[i].id))) {
            return true;
        }
    }
    return false;
}

/* Servers that were in the cluster once, and that neither membership nor Raft know any more: they
 * were given up, or replaced, while this server was down. */
static void agent_servers_look_for_gone(struct agent *agent, struct store_txn *txn)
{
    struct catalog_scan scan;
    struct catalog_service service;
    struct catalog_node node;
    struct catalog_check check;

    if (catalog_instances_begin(&scan, txn, SLICE_LITERAL(AGENT_CONSUL_SERVICE_ID)) != STORE_OK) {
        return; /* The timer comes again. */
    }
    while (catalog_instances_next(&scan, &service, &node) == STORE_OK) {
        const struct agent_server server = {.id = node.id, .name = node.name};

        if (catalog_check_get(txn, node.name, SLICE_LITERAL(AGENT_SERF_CHECK_ID), &check) ==
                STORE_OK &&
            !agent_servers_is_known(agent, node.id)) {
            agent_servers_left(agent, txn, &server);
        }
    }
    catalog_scan_end(&scan);
}

static void agent_servers_reconcile(struct agent *agent)
{
    struct server *server = agent->server;
    const uint64_t now_ms = server_now_ms(server);
    struct store_txn txn;

    if (server->replica == NULL || server->membership == NULL ||
        !replica_is_leader(server->replica)) {
        agent->leader_since_ms = 0;
        agent->servers_again = false;
        return;
    }
    if (agent->leader_since_ms == 0) {
        agent->leader_since_ms = now_ms == 0 ? 1 : now_ms;
    }
    if (agent->servers_in_flight > 0) {
        agent->servers_again = true; /* What is on its way changes what there is to do. */
        return;
    }
    agent->servers_again = false;
    if (store_read_begin(server->store, &txn) != STORE_OK) {
        return; /* The timer comes again. */
    }
    for (size_t i = 0; i < membership_count(server->membership); i++) {
        agent_servers_look_at(agent, &txn, membership_at(server->membership, i));
    }
    if (now_ms - agent->leader_since_ms >= AGENT_SERVERS_UNSEEN_MS) {
        agent_servers_look_for_unseen(agent, &txn);
        agent_servers_look_for_gone(agent, &txn);
    }
    store_read_end(&txn);
}

void agent_servers_on_timer(uv_timer_t *timer)
{
    struct agent *agent = timer->data;

    assert(agent->magic == AGENT_MAGIC);
    assert(!agent->closing);
    agent_servers_reconcile(agent);
}

void agent_members_changed(struct agent *agent)
{
    assert(agent->magic == AGENT_MAGIC);
    if (!agent->closing) {
        (void)uv_timer_start(&agent->servers_timer, agent_servers_on_timer, 0, AGENT_SERVERS_MS);
    }
}
