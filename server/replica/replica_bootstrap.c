/* How a cluster begins, and who is dialled.
 *
 * With bootstrap_expect N, N servers without any Raft state find each other through membership. All
 * agree on the one with the lowest node id: each publishes whom it chooses, and the chosen one,
 * once all N choose it, writes the first configuration and stands for election. The others take it
 * over as followers, so that there is one first configuration even when more than N servers are
 * started, or some see others late. A server with state never bootstraps again. */

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

/* The info of a configuration's server: node id (16 bytes), size of the name (1 byte), name,
 * address. */
bool replica_server_info(const struct raft_server *server, struct replica_server_info *out)
{
    const char *info = server->info;
    size_t name_size;
    size_t address_size;

    memset(out, 0, sizeof(*out));
    if (server->info_size < UUID_BYTES + 1) {
        return false;
    }
    name_size = (uint8_t)info[UUID_BYTES];
    if (server->info_size < UUID_BYTES + 1 + name_size || name_size >= sizeof(out->name)) {
        return false;
    }
    address_size = (size_t)server->info_size - UUID_BYTES - 1 - name_size;
    if (address_size >= sizeof(out->address)) {
        return false;
    }
    memcpy(out->node_id.bytes, info, UUID_BYTES);
    memcpy(out->name, info + UUID_BYTES + 1, name_size);
    memcpy(out->address, info + UUID_BYTES + 1 + name_size, address_size);
    return true;
}

void replica_server_set_info(struct raft_server *server, const struct uuid *node_id,
                             const char *name, const char *endpoint)
{
    const size_t endpoint_size = strlen(endpoint);
    size_t name_size = strlen(name);

    assert(endpoint_size < sizeof(((struct replica_server_info *)NULL)->address));
    if (name_size > RAFT_SERVER_INFO_BYTES_MAX - UUID_BYTES - 1 - endpoint_size) {
        name_size =
            RAFT_SERVER_INFO_BYTES_MAX - UUID_BYTES - 1 - endpoint_size; /* For display only. */
    }
    memcpy(server->info, node_id->bytes, UUID_BYTES);
    server->info[UUID_BYTES] = (char)name_size;
    memcpy(server->info + UUID_BYTES + 1, name, name_size);
    memcpy(server->info + UUID_BYTES + 1 + name_size, endpoint, endpoint_size);
    server->info_size = (uint8_t)(UUID_BYTES + 1 + name_size + endpoint_size);
}

struct raft_server *replica_configuration_add(struct raft_configuration *configuration,
                                              const struct uuid *node_id, const char *name,
                                              const char *endpoint)
{
    const raft_id id = peers_id(node_id);
    size_t at = configuration->count;

    assert(configuration->count < RAFT_SERVERS_MAX);
    while (at > 0 && configuration->servers[at - 1].id > id) {
        configuration->servers[at] = configuration->servers[at - 1];
        at--;
    }
    memset(&configuration->servers[at], 0, sizeof(configuration->servers[at]));
    configuration->servers[at].id = id;
    configuration->servers[at].voter = true;
    replica_server_set_info(&configuration->servers[at], node_id, name, endpoint);
    configuration->count++;
    return &configuration->servers[at];
}

static void bootstrap_write(struct replica *replica, const struct raft_configuration *configuration)
{
    struct raft_update update;
    int rc;

    memset(&update, 0, sizeof(update));
    rc = raft_bootstrap(replica->raft, configuration, replica_now_ms(replica), &update);
    if (rc != RAFT_OK) {
        log_write(LOG_ERROR, REPLICA_LOG, "cannot bootstrap: %s", raft_strerror(rc));
        return;
    }
    log_write(LOG_INFO, REPLICA_LOG, "bootstrapping the cluster: servers=%zu",
              configuration->count);
    replica_fresh_end(replica); /* There is nothing that it could have forgotten. */
    replica_take(replica, &update);
    if (replica->server->membership != NULL) {
        membership_bootstrapped(replica->server->membership);
    }
}

static void bootstrap_alone(struct replica *replica)
{
    const struct config *config = replica->server->config;
    struct raft_configuration configuration;
    char endpoint[96];

    memset(&configuration, 0, sizeof(configuration));
    link_endpoint(endpoint, sizeof(endpoint), config->advertise_addr,
                  (uint16_t)config->server_port);
    (void)replica_configuration_add(&configuration, &replica->server->node_id, config->node_name,
                                    endpoint);
    bootstrap_write(replica, &configuration);
}

/* Collects the servers that may form the cluster, sorted by node id, at most `max`. False if one
 * that has state is there: then there is a cluster already, which this server must be added to. */
static bool bootstrap_candidates(struct replica *replica, uint32_t expect,
                                 const struct member **out, size_t max, size_t *count)
{
    const struct membership *membership = replica->server->membership;

    *count = 0;
    for (size_t i = 0; i < membership_count(membership); i++) {
        const struct member *member = membership_at(membership, i);
        size_t at = *count;

        if (member->status != MEMBER_ALIVE) {
            continue;
        }
        if (member->bootstrap || member->bootstrap_expect == 0) {
            return false;
        }
        if (member->bootstrap_expect != expect) {
            if (!replica->expect_logged) {
                log_write(LOG_ERROR, "agent.server",
                          "member expects another number of servers, no cluster is formed: "
                          "name=%s expects=%u here=%u",
                          member->name, member->bootstrap_expect, expect);
            }
            replica->expect_logged = true;
            return false;
        }
        if (*count == max) {
            continue;
        }
        while (at > 0 && memcmp(out[at - 1]->id.bytes, member->id.bytes, UUID_BYTES) > 0) {
            out[at] = out[at - 1];
            at--;
        }
        out[at] = member;
        (*count)++;
    }
    return true;
}

static void bootstrap_expected(struct replica *replica, uint32_t expect)
{
    const struct member *candidates[MEMBERS_MAX];
    struct raft_configuration configuration;
    size_t count;

    (void)replica_clock_ms(replica); /* The loop's, too, by which members are heard. */
    const uint64_t now_ms = uv_now(replica->server->loop);

    if (!bootstrap_candidates(replica, expect, candidates, MEMBERS_MAX, &count) || count < expect) {
        return;
    }
    replica_fresh_chose(replica,
                        peers_id(&candidates[0]->id)); /* Before anybody can count on it. */
    membership_choose(replica->server->membership, &candidates[0]->id);
    if (!candidates[0]->self || expect > RAFT_SERVERS_MAX) {
        return;
    }
    memset(&configuration, 0, sizeof(configuration));
    for (uint32_t i = 0; i < expect; i++) {
        const struct member *member = candidates[i];
        char endpoint[96];

        if (!uuid_equal(&member->bootstrap_choice, &candidates[0]->id) ||
            (!member->self && now_ms - member->heard_ms > MEMBERSHIP_FAILED_MS)) {
            return; /* It has not seen all yet, or may have chosen another one meanwhile. */
        }
        link_endpoint(endpoint, sizeof(endpoint), member->address, member->server_port);
        (void)replica_configuration_add(&configuration, &member->id, member->name, endpoint);
    }
    bootstrap_write(replica, &configuration);
}

void replica_bootstrap_consider(struct replica *replica)
{
    const struct config *config = replica->server->config;

    if (raft_last_index(replica->raft) > 0 || raft_term_now(replica->raft) > 0) {
        if (replica->server->membership != NULL && raft_last_index(replica->raft) > 0) {
            membership_bootstrapped(replica->server->membership);
        }
        return;
    }
    if (config->bootstrap || config->dev || config->bootstrap_expect == 1) {
        bootstrap_alone(replica);
    } else if (config->bootstrap_expect > 1 && replica->server->membership != NULL) {
        bootstrap_expected(replica, config->bootstrap_expect);
    }
}

/* Whether there is something to say to a server: it has a place in the configuration, or may get
 * one. */
static bool bootstrap_is_wanted(const struct replica *replica, const struct uuid *node_id)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);
    const struct membership *membership = replica->server->membership;
    const struct member *member = membership == NULL ? NULL : membership_find(membership, node_id);

    for (size_t i = 0; i < configuration->count; i++) {
        if (configuration->servers[i].id == peers_id(node_id)) {
            return true;
        }
    }
    return member != NULL && member->status == MEMBER_ALIVE;
}

/* Drops the links to servers that were taken out, or that left. */
void replica_bootstrap_forget(struct replica *replica)
{
    raft_id dialled[PEERS_MAX];
    const size_t count = peers_list(replica->peers, dialled);
    const struct raft_configuration *configuration = raft_configuration(replica->raft);

    for (size_t i = 0; i < count; i++) {
        const struct member *member = replica_member(replica, dialled[i]);
        bool wanted =
            dialled[i] == replica->leader || (member != NULL && member->status == MEMBER_ALIVE);

        for (size_t at = 0; at < configuration->count; at++) {
            wanted = wanted || configuration->servers[at].id == dialled[i];
        }
        if (!wanted) {
            peers_forget(replica->peers, dialled[i]);
        }
    }
}

/* Dials the servers of the configuration, and members that are about to become some. */
void replica_bootstrap_dial(struct replica *replica)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);
    const struct membership *membership = replica->server->membership;
    struct errmsg err;

    for (size_t i = 0; i < configuration->count; i++) {
        const struct raft_server *server = &configuration->servers[i];
        struct replica_server_info info;

        if (server->id == replica->id || !replica_server_info(server, &info) ||
            (membership != NULL && membership_find(membership, &info.node_id) != NULL)) {
            continue; /* A member's present address is better than the configuration's. */
        }
        if (peers_set(replica->peers, server->id, info.address, &err) != 0) {
            log_write(LOG_ERROR, REPLICA_LOG, "cannot dial server: name=%s error=\"%s\"", info.name,
                      err.text);
        }
    }
    for (size_t i = 0; membership != NULL && i < membership_count(membership); i++) {
        const struct member *member = membership_at(membership, i);
        char address[96];

        if (member->self || member->server_port == 0 ||
            !bootstrap_is_wanted(replica, &member->id)) {
            continue;
        }
        link_endpoint(address, sizeof(address), member->address, member->server_port);
        if (peers_set(replica->peers, peers_id(&member->id), address, &err) != 0) {
            log_write(LOG_ERROR, REPLICA_LOG, "cannot dial server: name=%s error=\"%s\"",
                      member->name, err.text);
        }
    }
}

void replica_members_changed(struct replica *replica, const struct member *member)
{
    (void)member;
    replica_bootstrap_dial(replica);
    replica_bootstrap_consider(replica);
}
