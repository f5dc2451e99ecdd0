/* Autopilot: what the leader sees of the other servers over time, and what follows from it: who has
 * been in order for long enough to get a vote, who is dead and may be given up. The rules are those
 * of Consul 1.8; a server counts as dead only when neither membership nor Raft hear of it, for
 * server_stabilization_time. */

#include <assert.h>
#include <string.h>
#include <time.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { AUTOPILOT_NS_PER_MS = 1000000 };

/* --- the configuration --- */

/* The cluster's, or what this server would have it begin with. False when the cluster has none. */
static bool autopilot_load(struct replica *replica)
{
    struct store_txn txn;
    int rc = store_read_begin(replica->server->store, &txn);

    if (rc != STORE_OK) {
        return true; /* The one known before stays. */
    }
    rc = autopilot_get(&txn, &replica->autopilot.config);
    store_read_end(&txn);
    if (rc != STORE_OK) {
        replica->autopilot.config = replica->server->config->autopilot;
    }
    return rc != STORE_ENOTFOUND;
}

void replica_autopilot_start(struct replica *replica, struct buffer *out)
{
    if (!autopilot_load(replica)) {
        command_encode_autopilot(out, AUTOPILOT_SET_INITIAL, 0, &replica->autopilot.config);
    }
}

/* --- watching --- */

static struct replica_watched *autopilot_find(struct replica *replica, raft_id id)
{
    for (size_t i = 0; i < replica->autopilot.count; i++) {
        if (replica->autopilot.servers[i].id == id) {
            return &replica->autopilot.servers[i];
        }
    }
    return NULL;
}

static void autopilot_progress(const struct replica *replica, raft_id id, uint64_t now_ms,
                               struct raft_progress *out)
{
    const bool known = raft_progress(replica->raft, id, now_ms, out);

    assert(known); /* It is asked of servers of the configuration only. */
    (void)known;
}

static bool autopilot_is_healthy(const struct replica *replica, const struct member *member,
                                 const struct raft_progress *progress)
{
    const struct autopilot_config *config = &replica->autopilot.config;
    const raft_index last = raft_last_index(replica->raft);

    return member != NULL && member->status == MEMBER_ALIVE &&
           progress->last_contact_ms != UINT64_MAX &&
           (int64_t)progress->last_contact_ms <=
               config->last_contact_threshold_ns / AUTOPILOT_NS_PER_MS &&
           raft_term_at(replica->raft, progress->match_index) == raft_last_term(replica->raft) &&
           (last <= config->max_trailing_logs ||
            progress->match_index >= last - config->max_trailing_logs);
}

static void autopilot_watch(struct replica *replica, struct replica_watched *watched, bool fresh,
                            uint64_t now_ms)
{
    const struct member *member = replica_member(replica, watched->id);
    struct raft_progress progress;
    bool healthy;
    bool alive;

    autopilot_progress(replica, watched->id, now_ms, &progress);
    healthy = autopilot_is_healthy(replica, member, &progress);
    if (fresh || healthy != watched->healthy) {
        watched->healthy = healthy;
        watched->stable_ms = now_ms;
        watched->stable_s = (int64_t)time(NULL);
    }
    alive = watched->id == replica->id || (member != NULL && member->status == MEMBER_ALIVE) ||
            progress.last_contact_ms <= REPLICA_DEAD_MS;
    if (alive) {
        watched->dead_ms = 0;
    } else if (watched->dead_ms == 0) {
        watched->dead_ms = now_ms;
    }
    if (member == NULL || !member->fresh) {
        /* One that others told of, and has not spoken here yet, has not said how its log is. */
        watched->settled = watched->settled || (member != NULL && member->heard_ms != 0);
        watched->fresh_ms = 0;
    } else if (watched->fresh_ms == 0) {
        watched->fresh_ms = now_ms;
    }
}

static void autopilot_watch_all(struct replica *replica, uint64_t now_ms)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);
    struct replica_watched servers[RAFT_SERVERS_MAX];

    for (size_t i = 0; i < configuration->count; i++) {
        const struct raft_server *server = &configuration->servers[i];
        const struct replica_watched *known = autopilot_find(replica, server->id);

        servers[i] = known != NULL ? *known : (struct replica_watched){.id = server->id};
        autopilot_watch(replica, &servers[i], known == NULL, now_ms);
    }
    replica->autopilot.count = configuration->count;
    memcpy(replica->autopilot.servers, servers, configuration->count * sizeof(servers[0]));
}

void replica_autopilot_turn(struct replica *replica, uint64_t now_ms)
{
    if (replica->role != RAFT_LEADER || replica->timers_term != replica->term) {
        replica->autopilot.term = 0;
        return;
    }
    if (replica->autopilot.term != replica->term) {
        /* What an earlier leadership saw says nothing of now. */
        memset(&replica->autopilot, 0, sizeof(replica->autopilot));
        replica->autopilot.term = replica->term;
        replica->autopilot.since_ms = now_ms;
    }
    if (now_ms < replica->autopilot.next_ms) {
        return;
    }
    replica->autopilot.next_ms = now_ms + REPLICA_AUTOPILOT_MS;
    (void)autopilot_load(replica);
    autopilot_watch_all(replica, now_ms);
}

/* --- deciding --- */

static const struct raft_server *autopilot_server(const struct replica *replica, raft_id id)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);

    for (size_t i = 0; i < configuration->count; i++) {
        if (configuration->servers[i].id == id) {
            return &configuration->servers[i];
        }
    }
    return NULL; /* Taken out since it was watched. */
}

static bool autopilot_stable(const struct replica *replica, uint64_t since_ms, uint64_t now_ms)
{
    return (int64_t)(now_ms - since_ms) >=
           replica->autopilot.config.server_stabilization_time_ns / AUTOPILOT_NS_PER_MS;
}

raft_id replica_autopilot_promotion(const struct replica *replica, uint64_t now_ms)
{
    if (replica->autopilot.term != replica->term) {
        return 0;
    }
    for (size_t i = 0; i < replica->autopilot.count; i++) {
        const struct replica_watched *watched = &replica->autopilot.servers[i];
        const struct raft_server *server = autopilot_server(replica, watched->id);

        if (server != NULL && !server->voter && watched->healthy && watched->fresh_ms == 0 &&
            autopilot_stable(replica, watched->stable_ms, now_ms)) {
            return watched->id;
        }
    }
    return 0;
}

/* A server that lost its log and came back under its old id: its promises are forgotten, and what
 * it had acknowledged is thought to be there still. It is taken out, and joins as a new one. Only
 * if the others are a quorum without it. */
static bool autopilot_is_wiped(const struct replica *replica, const struct replica_watched *watched,
                               bool voter, uint64_t now_ms)
{
    size_t others = 0;
    size_t healthy = 0;

    if ((!voter && !watched->settled) || watched->fresh_ms == 0 ||
        now_ms - watched->fresh_ms < REPLICA_WIPED_MS || watched->id == replica->id) {
        return false;
    }
    for (size_t i = 0; i < replica->autopilot.count; i++) {
        const struct replica_watched *other = &replica->autopilot.servers[i];
        const struct raft_server *server = autopilot_server(replica, other->id);

        if (server != NULL && server->voter && other != watched) {
            others++;
            healthy += other->healthy ? 1 : 0;
        }
    }
    return healthy > others / 2;
}

/* Consul's canRemoveServers: a minority of the voters, and no fewer than min_quorum stay. */
static bool autopilot_may_give_up(const struct replica *replica)
{
    size_t voters = 0;
    size_t dead = 0;

    for (size_t i = 0; i < replica->autopilot.count; i++) {
        const struct replica_watched *watched = &replica->autopilot.servers[i];
        const struct raft_server *server = autopilot_server(replica, watched->id);

        if (server != NULL && server->voter) {
            voters++;
            dead += watched->dead_ms != 0 ? 1 : 0;
        }
    }
    return voters > 0 && dead <= (voters - 1) / 2 &&
           voters - dead >= replica->autopilot.config.min_quorum;
}

raft_id replica_autopilot_removal(const struct replica *replica, uint64_t now_ms)
{
    if (replica->autopilot.term != replica->term) {
        return 0;
    }
    for (size_t i = 0; i < replica->autopilot.count; i++) {
        const struct replica_watched *watched = &replica->autopilot.servers[i];
        const struct raft_server *server = autopilot_server(replica, watched->id);

        if (server == NULL) {
            continue;
        }
        if (autopilot_is_wiped(replica, watched, server->voter, now_ms)) {
            return watched->id;
        }
        if (watched->dead_ms != 0 && replica->autopilot.config.cleanup_dead_servers &&
            autopilot_stable(replica, watched->dead_ms, now_ms) &&
            (!server->voter || autopilot_may_give_up(replica))) {
            return watched->id;
        }
    }
    return 0;
}

/* --- telling --- */

static void health_put_server(struct replica *replica, const struct raft_server *server,
                              struct buffer *out, uint64_t now_ms)
{
    const struct member *member = replica_member(replica, server->id);
    const struct replica_watched *watched = autopilot_find(replica, server->id);
    struct replica_server_info info;
    struct raft_progress progress;
    const bool self = server->id == replica->id;

    if (!replica_server_info(server, &info)) {
        memset(&info, 0, sizeof(info));
    }
    autopilot_progress(replica, server->id, now_ms, &progress);
    buffer_append(out, info.node_id.bytes, UUID_BYTES);
    buffer_put_string(out, slice_from_text(member != NULL ? member->name : info.name));
    buffer_put_string(out, slice_from_text(info.address));
    buffer_put_u8(out, member == NULL ? 0 : (uint8_t)member->status);
    buffer_put_u8(out, self);
    buffer_put_u8(out, server->voter);
    buffer_put_u8(out, watched != NULL && watched->healthy);
    buffer_put_u64(out, progress.last_contact_ms);
    buffer_put_u64(out, raft_term_at(replica->raft, progress.match_index));
    buffer_put_u64(out, progress.match_index);
    buffer_put_u64(out, watched == NULL ? 0 : (uint64_t)watched->stable_s);
}

void replica_health_encode(struct replica *replica, struct buffer *out)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);
    const uint64_t now_ms = replica_now_ms(replica);
    size_t voters = 0;
    size_t healthy_voters = 0;
    size_t healthy = 0;

    for (size_t i = 0; i < configuration->count; i++) {
        const struct replica_watched *watched =
            autopilot_find(replica, configuration->servers[i].id);
        const bool voter = configuration->servers[i].voter;

        if (watched != NULL && watched->healthy) {
            healthy++;
            healthy_voters += voter ? 1 : 0;
        }
        voters += voter ? 1 : 0;
    }
    const size_t quorum = voters / 2 + 1;

    buffer_put_u8(out, healthy == configuration->count);
    buffer_put_u32(out, healthy_voters > quorum ? (uint32_t)(healthy_voters - quorum) : 0);
    buffer_put_u32(out, (uint32_t)configuration->count);
    for (size_t i = 0; i < configuration->count; i++) {
        health_put_server(replica, &configuration->servers[i], out, now_ms);
    }
}

static void health_read_text(struct reader *reader, char *out, size_t out_bytes)
{
    const struct slice text = reader_string(reader);

    if (text.size >= out_bytes) {
        reader->failed = true;
        return;
    }
    if (text.size > 0) {
        memcpy(out, text.data, text.size);
    }
    out[text.size] = 0;
}

static_assert((int)REPLICA_HEALTH_MAX >= (int)RAFT_SERVERS_MAX, "every server finds room");

bool replica_health_decode(struct slice bytes, struct replica_health *out)
{
    struct reader reader = reader_from(bytes);
    uint32_t count;

    memset(out, 0, sizeof(*out));
    out->healthy = reader_u8(&reader) != 0;
    out->failure_tolerance = reader_u32(&reader);
    count = reader_u32(&reader);
    if (count > REPLICA_HEALTH_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < count && !reader.failed; i++) {
        struct replica_server_health *server = &out->servers[i];
        const struct slice id = reader_bytes(&reader, UUID_BYTES);
        struct uuid uuid = {{0}};

        if (id.size == UUID_BYTES) {
            memcpy(uuid.bytes, id.data, UUID_BYTES);
        }
        uuid_format(&uuid, server->id);
        health_read_text(&reader, server->name, sizeof(server->name));
        health_read_text(&reader, server->address, sizeof(server->address));
        server->status = reader_u8(&reader);
        server->leader = reader_u8(&reader) != 0;
        server->voter = reader_u8(&reader) != 0;
        server->healthy = reader_u8(&reader) != 0;
        server->last_contact_ms = reader_u64(&reader);
        server->last_term = reader_u64(&reader);
        server->last_index = reader_u64(&reader);
        server->stable_s = (int64_t)reader_u64(&reader);
    }
    out->count = count;
    return reader_done(&reader);
}
