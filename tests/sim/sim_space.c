/* Servers whose disk is full: as server/replica/replica_space.c does it, such a leader takes no
 * writes and hands over to a server that has space; what the servers tell each other of that is
 * known at once here. At the end of some runs the leader's disk is full for good: then the others
 * must go on. */

#include <inttypes.h>

#include "tests/sim/sim_full.h"

void sim_space_turn(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    raft_id avoid[SIM_NODES_MAX];
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .avoid = avoid};

    if (!server->wal_full || sim->nodes[node].raft == NULL ||
        sim->nodes[node].role != RAFT_LEADER || sim->now_ms < server->hand_over_ms) {
        return;
    }
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (sim->full->servers[i].wal_full) {
            avoid[event.avoid_count++] = sim->nodes[i].id;
        }
    }
    server->hand_over_ms = sim->now_ms + sim->parameters.election_ms;
    sim_trace(sim, node, "full", "hands over");
    sim_node_step(sim, node, &event);
    sim->stats.handed_over += raft_transfer_target(sim->nodes[node].raft) != 0 ? 1 : 0;
}

/* Whether the others make up a quorum. */
static bool space_is_spare(const struct raft_configuration *configuration)
{
    size_t voters = 0;

    for (size_t i = 0; i < configuration->count; i++) {
        voters += configuration->servers[i].voter ? 1 : 0;
    }
    return voters >= 3;
}

/* What the log still has room for is not known from outside: until it says that it has none, or for
 * so long, nothing is demanded. */
static bool space_wait_until_full(struct sim *sim, size_t node)
{
    const uint64_t election_ms = sim->parameters.election_ms;
    const uint64_t until_ms = sim->now_ms + 40 * election_ms;

    while (!sim->full->servers[node].wal_full && sim->now_ms < until_ms &&
           sim_leader_now(sim) == node) {
        sim_advance(sim, sim->now_ms + election_ms / 2);
    }
    return sim->full->servers[node].wal_full;
}

void sim_space_demand(struct sim *sim)
{
    const uint64_t election_ms = sim->parameters.election_ms;
    const size_t node = sim_leader_now(sim);

    if (node == SIM_NODES_MAX || !space_is_spare(raft_configuration(sim->nodes[node].raft))) {
        return;
    }
    sim->full->files[node].full_for_good = true;
    sim_trace(sim, node, "full", "for good");
    if (space_wait_until_full(sim, node)) {
        const uint64_t bound_ms = sim->now_ms + 25 * election_ms;
        const uint64_t since = sim->next_value + 1;

        while (sim_leader_now(sim) == node || !sim_progressed(sim, since, node)) {
            sim_require(sim, sim->now_ms < bound_ms,
                        "no progress although only the disk of server %zu is full", node + 1);
            sim_advance(sim, sim->now_ms + election_ms / 2);
        }
        sim->stats.full_leaders++;
    }
    sim->full->files[node].full_for_good = false;
    sim_node_disk_hurry(sim, node);
}
