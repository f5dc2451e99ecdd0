/* The leader's changes of the configuration, one at a time, on its own motion: members that joined
 * are added without a vote, those that left are taken out, autopilot gives votes and gives up the
 * dead. What operators ask for goes the same way. */

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

#define MEMBERSHIP_LOG "agent.leader"

enum {
    MEMBERSHIP_ELECTIONS = 3,
    MEMBERSHIP_REPEAT_MS = 60 * 1000, /* a complaint */
};

const struct member *replica_member(const struct replica *replica, raft_id id)
{
    const struct membership *membership = replica->server->membership;

    for (size_t i = 0; membership != NULL && i < membership_count(membership); i++) {
        const struct member *member = membership_at(membership, i);

        if (peers_id(&member->id) == id) {
            return member;
        }
    }
    return NULL;
}

/* --- proposing --- */

static int membership_propose(struct replica *replica, const struct raft_configuration *next,
                              raft_index *index)
{
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    const struct raft_entry entry = {.type = RAFT_ENTRY_CONFIGURATION,
                                     .data = bytes,
                                     .size = raft_configuration_encode(next, bytes)};
    const struct raft_event event = {.type = RAFT_EVENT_PROPOSE,
                                     .now_ms = replica_clock_ms(replica),
                                     .entries = &entry,
                                     .entry_count = 1};
    const raft_index expected = raft_last_index(replica->raft) + 1;
    int rc;

    replica_step(replica, &event, &rc);
    if (rc == RAFT_OK) {
        *index = expected;
    }
    return rc;
}

static struct raft_server *membership_find_server(struct raft_configuration *configuration,
                                                  raft_id id)
{
    for (size_t i = 0; i < configuration->count; i++) {
        if (configuration->servers[i].id == id) {
            return &configuration->servers[i];
        }
    }
    return NULL;
}

static size_t membership_voters(const struct raft_configuration *configuration)
{
    size_t voters = 0;

    for (size_t i = 0; i < configuration->count; i++) {
        voters += configuration->servers[i].voter ? 1 : 0;
    }
    return voters;
}

int replica_membership_remove(struct replica *replica, raft_id id, raft_index *index)
{
    struct raft_configuration next = *raft_configuration(replica->raft);
    struct raft_server *server = membership_find_server(&next, id);
    size_t behind;

    if (server == NULL || (server->voter && membership_voters(&next) == 1)) {
        return RAFT_EINVAL;
    }
    behind = next.count - (size_t)(server - next.servers) - 1;
    memmove(server, server + 1, behind * sizeof(*server));
    next.count--;
    memset(&next.servers[next.count], 0, sizeof(next.servers[next.count]));
    return membership_propose(replica, &next, index);
}

/* --- bans --- */

void replica_membership_ban(struct replica *replica, raft_id id, uint64_t now_ms)
{
    size_t slot = 0;

    for (size_t i = 0; i < RAFT_SERVERS_MAX; i++) {
        if (replica->removed[i].id == id) {
            slot = i;
            break;
        }
        if (replica->removed[i].until_ms < replica->removed[slot].until_ms) {
            slot = i;
        }
    }
    replica->removed[slot].id = id;
    replica->removed[slot].until_ms = now_ms + REPLICA_BAN_MS;
}

static bool membership_is_banned(const struct replica *replica, raft_id id, uint64_t now_ms)
{
    for (size_t i = 0; i < RAFT_SERVERS_MAX; i++) {
        if (replica->removed[i].id == id && now_ms < replica->removed[i].until_ms) {
            return true;
        }
    }
    return false;
}

/* --- what members ask for --- */

static void membership_log(const struct raft_server *server, const char *what)
{
    struct replica_server_info info;
    char id[UUID_TEXT_BYTES + 1];

    if (!replica_server_info(server, &info)) {
        memset(&info, 0, sizeof(info));
    }
    uuid_format(&info.node_id, id);
    log_write(LOG_INFO, MEMBERSHIP_LOG, "%s: name=%s id=%s address=%s", what, info.name, id,
              info.address);
}

/* Takes a server out. True when a change is under way or in the way. */
static bool membership_take_out(struct replica *replica, const struct raft_server *server,
                                const char *why)
{
    const struct raft_server copy = *server; /* Of the configuration that is about to change. */
    raft_index index;
    const int rc = replica_membership_remove(replica, server->id, &index);

    if (rc == RAFT_OK) {
        membership_log(&copy, why);
    }
    return rc != RAFT_EINVAL;
}

/* Servers that left. This one goes on leading until it is asked to go. */
static bool membership_remove_left(struct replica *replica)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);

    for (size_t i = 0; i < configuration->count; i++) {
        const struct raft_server *server = &configuration->servers[i];
        const struct member *member = replica_member(replica, server->id);

        if (member != NULL && !member->self && member->status == MEMBER_LEFT &&
            membership_take_out(replica, server, "removing a server that left")) {
            return true;
        }
    }
    return false;
}

/* A server that has another name or address than the configuration says. */
static bool membership_update(struct replica *replica, const struct member *member,
                              const char *endpoint)
{
    struct raft_configuration next = *raft_configuration(replica->raft);
    struct raft_server *server = membership_find_server(&next, peers_id(&member->id));
    const struct raft_server before = *server;
    raft_index index;

    replica_server_set_info(server, &member->id, member->name, endpoint);
    if (server->info_size == before.info_size &&
        memcmp(server->info, before.info, before.info_size) == 0) {
        return false;
    }
    if (membership_propose(replica, &next, &index) == RAFT_OK) {
        membership_log(server, "a server has moved");
    }
    return true;
}

/* Another server has this address in the configuration: it was lost, and the new one stands in its
 * place. Unless it is still there, whatever the new one says of itself. */
static bool membership_remove_namesake(struct replica *replica, raft_id id, const char *endpoint)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);

    for (size_t i = 0; i < configuration->count; i++) {
        const struct raft_server *server = &configuration->servers[i];
        const struct member *member = replica_member(replica, server->id);
        struct replica_server_info info;

        if (server->id == id || server->id == replica->id || !replica_server_info(server, &info) ||
            strcmp(info.address, endpoint) != 0 ||
            (member != NULL && member->status == MEMBER_ALIVE)) {
            continue;
        }
        if (membership_take_out(replica, server, "removing a server with duplicate address")) {
            return true;
        }
    }
    return false;
}

/* Whether a server without a place here belongs to another cluster, or may: made by itself, because
 * it was started to bootstrap, or an old one whose data it has. The log of such a cluster began as
 * ours did, with the same indexes and terms, but not with the same entries: added here, it would
 * take its own for ours, and its state would never be the others' again. One that was taken out of
 * this cluster has no leader; a cluster of its own would have elected one in MEMBERSHIP_ELECTIONS.
 * Consul refuses only the second of two that bootstrap, and gives no such time. */
static bool membership_is_foreign(struct replica *replica, const struct member *member,
                                  uint64_t now_ms)
{
    const uint64_t elections_ms =
        MEMBERSHIP_ELECTIONS * REPLICA_ELECTION_MS * replica->server->config->raft_multiplier;

    if (member->heard_ms == 0) {
        return true; /* Others told of it; what it says of itself is to come. */
    }
    if (!member->led) {
        return !member->fresh && (now_ms - member->changed_ms < elections_ms ||
                                  now_ms - member->led_changed_ms < elections_ms);
    }
    if (now_ms == replica->foreign_ms || now_ms - replica->foreign_ms >= MEMBERSHIP_REPEAT_MS) {
        log_write(LOG_ERROR, MEMBERSHIP_LOG,
                  "a server has a leader of its own, not adding: it belongs to another cluster; to "
                  "have it here, stop it, empty its data_dir and start it without bootstrap mode: "
                  "name=%s address=%s",
                  member->name, member->address);
        replica->foreign_ms = now_ms; /* All of this turn are told of. */
    }
    return true;
}

static bool membership_add(struct replica *replica, const struct member *member,
                           const char *endpoint)
{
    struct raft_configuration next = *raft_configuration(replica->raft);
    struct raft_server *server;
    raft_index index;

    if (next.count == RAFT_SERVERS_MAX) {
        if (!replica->too_many_logged) {
            log_write(LOG_ERROR, MEMBERSHIP_LOG, "too many servers (limit %d), not adding: name=%s",
                      RAFT_SERVERS_MAX, member->name);
        }
        replica->too_many_logged = true;
        return false;
    }
    server = replica_configuration_add(&next, &member->id, member->name, endpoint);
    server->voter = false;
    if (membership_propose(replica, &next, &index) == RAFT_OK) {
        membership_log(server, "adding a server without a vote");
        replica->too_many_logged = false;
    }
    return true;
}

static bool membership_alive(struct replica *replica, const struct member *member, uint64_t now_ms)
{
    struct raft_configuration configuration = *raft_configuration(replica->raft);
    const raft_id id = peers_id(&member->id);
    char endpoint[96];

    link_endpoint(endpoint, sizeof(endpoint), member->address, member->server_port);
    if (membership_find_server(&configuration, id) != NULL) {
        return membership_update(replica, member, endpoint);
    }
    if (member->self || membership_is_banned(replica, id, now_ms) ||
        membership_is_foreign(replica, member, now_ms)) {
        return false;
    }
    return membership_remove_namesake(replica, id, endpoint) ||
           membership_add(replica, member, endpoint);
}

static bool membership_members(struct replica *replica, uint64_t now_ms)
{
    const struct membership *membership = replica->server->membership;

    for (size_t i = 0; i < membership_count(membership); i++) {
        const struct member *member = membership_at(membership, i);

        if (member->status == MEMBER_ALIVE && member->server_port != 0 &&
            membership_alive(replica, member, now_ms)) {
            return true;
        }
    }
    return false;
}

/* --- what autopilot asks for --- */

static bool membership_promote(struct replica *replica, uint64_t now_ms)
{
    struct raft_configuration next = *raft_configuration(replica->raft);
    const raft_id id = replica_autopilot_promotion(replica, now_ms);
    struct raft_server *server = membership_find_server(&next, id);
    raft_index index;

    if (server == NULL) {
        return false;
    }
    assert(!server->voter);
    server->voter = true;
    if (membership_propose(replica, &next, &index) == RAFT_OK) {
        membership_log(server, "promoting a server to voter");
    }
    return true;
}

static bool membership_prune(struct replica *replica, uint64_t now_ms)
{
    struct raft_configuration configuration = *raft_configuration(replica->raft);
    const raft_id id = replica_autopilot_removal(replica, now_ms);
    const struct raft_server *server = membership_find_server(&configuration, id);
    const struct member *member = replica_member(replica, id);

    if (server == NULL) {
        return false;
    }
    if (member != NULL && member->status == MEMBER_FAILED) {
        /* For all parts of all servers it has left from now on, as in Consul. */
        membership_log(server, "attempting removal of a failed server");
        membership_force_leave(replica->server->membership, &member->id);
        return true;
    }
    return membership_take_out(replica, server, "removing a server that is gone");
}

/* --- the turn --- */

/* Whether the core would take a change now. */
static bool membership_is_ready(const struct replica *replica)
{
    return replica->role == RAFT_LEADER && replica->timers_term == replica->term &&
           raft_transfer_target(replica->raft) == 0 &&
           raft_configuration(replica->raft)->index <= raft_commit_index(replica->raft);
}

void replica_membership_turn(struct replica *replica, uint64_t now_ms)
{
    replica_bootstrap_forget(replica);
    if (replica->server->membership != NULL) {
        membership_fresh(replica->server->membership, replica->fresh);
        membership_led(replica->server->membership, replica->leader != 0);
    }
    if (replica->server->membership == NULL || !membership_is_ready(replica)) {
        return;
    }
    /* One change at a time; those that make quorums smaller or sounder first. */
    if (membership_remove_left(replica) || membership_members(replica, now_ms) ||
        membership_promote(replica, now_ms)) {
        return;
    }
    (void)membership_prune(replica, now_ms);
}
