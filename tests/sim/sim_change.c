/* Changes of the configuration, servers that die for good, and snapshots. */

#include <inttypes.h>
#include <string.h>

#include "tests/sim/sim.h"

size_t sim_voters(const struct raft_configuration *configuration)
{
    size_t voters = 0;

    for (size_t i = 0; i < configuration->count; i++) {
        voters += configuration->servers[i].voter ? 1 : 0;
    }
    return voters;
}

void sim_change_remove(struct raft_configuration *configuration, size_t at)
{
    configuration->count--;
    for (size_t i = at; i < configuration->count; i++) {
        configuration->servers[i] = configuration->servers[i + 1];
    }
}

/* A new server, empty, with an id of its own. */
static void sim_change_add(struct sim *sim, struct raft_configuration *configuration)
{
    const size_t node = sim->parameters.node_count++;

    sim_node_init(sim, node);
    sim_node_start(sim, node);
    struct raft_server *server = &configuration->servers[configuration->count++];
    memset(server, 0, sizeof(*server));
    server->id = sim->nodes[node].id;
    server->info_size = 1;
    server->info[0] = (char)('a' + (int)node);
}

/* Alters one server of the configuration, mostly as an operator would. False: nothing. */
static bool sim_change_draw(struct sim *sim, size_t leader,
                            struct raft_configuration *configuration)
{
    const size_t at = sim_between(sim, 0, configuration->count - 1);
    struct raft_server *server = &configuration->servers[at];
    struct raft_progress progress;

    for (size_t i = 0; i < configuration->count; i++) {
        if (sim->nodes[configuration->servers[i].id - 1].retired && sim_chance(sim, 8000) &&
            (!configuration->servers[i].voter || sim_voters(configuration) > 1)) {
            sim_change_remove(configuration, i);
            return true;
        }
    }
    if (!server->voter) {
        raft_progress(sim->nodes[leader].raft, server->id, 0, &progress);
        if (progress.match_index + 20 > sim->nodes[leader].log.count || sim_chance(sim, 1000)) {
            server->voter = true;
        } else if (sim_chance(sim, 2000)) {
            sim_change_remove(configuration, at);
        } else {
            return false;
        }
        return true;
    }
    if (sim->parameters.node_count < SIM_NODES_MAX && configuration->count < 6 &&
        sim_chance(sim, 4000)) {
        sim_change_add(sim, configuration);
        return true;
    }
    if (sim_voters(configuration) <= 1) {
        return false;
    }
    if (sim_chance(sim, 4000)) {
        server->voter = false;
    } else {
        sim_change_remove(configuration, at);
    }
    return true;
}

void sim_change_propose(struct sim *sim, size_t node,
                        const struct raft_configuration *configuration)
{
    const size_t count = raft_configuration(sim->nodes[node].raft)->count;

    if (sim->configuration_count == SIM_CONFIGURATIONS_MAX) {
        return;
    }
    const uint64_t which = sim_configuration_add(sim, configuration);
    const struct raft_entry entry = {.type = RAFT_ENTRY_CONFIGURATION,
                                     .data = sim->configurations[which].bytes,
                                     .size = sim->configurations[which].size};
    sim_trace(sim, node, "change", "%zu: %zu servers, %zu voters", sim->fault_count - 1,
              configuration->count, sim_voters(configuration));
    const size_t before = sim->nodes[node].log.count;
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE, .entries = &entry, .entry_count = 1};
    sim_node_step(sim, node, &event);
    if (sim->nodes[node].log.count > before) {
        sim->stats.changes++;
        sim->stats.removals += configuration->count < count ? 1 : 0;
    }
}

/* Sometimes a server dies for good: it is to be replaced by a new one. */
static void sim_change_retire(struct sim *sim, size_t node)
{
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (sim->nodes[i].retired) {
            return; /* One at a time. */
        }
    }
    sim_trace(sim, node, "retired", "for good if it is removed");
    sim_node_crash(sim, node, sim_chance(sim, 5000));
    sim->nodes[node].retired = true;
    sim->stats.retired++;
}

static void sim_change_now(struct sim *sim)
{
    const size_t node = sim_victim(sim);

    if (sim_chance(sim, 300)) {
        sim_change_retire(sim, node);
        return;
    }
    if (!sim_node_awake(sim, node) || sim->nodes[node].role != RAFT_LEADER ||
        sim->configuration_count == SIM_CONFIGURATIONS_MAX) {
        return;
    }
    struct raft_configuration configuration = *raft_configuration(sim->nodes[node].raft);
    if (!sim_change_draw(sim, node, &configuration)) {
        return;
    }
    sim_change_propose(sim, node, &configuration);
}

void sim_change(struct sim *sim)
{
    uint64_t random;

    if (sim->healed) {
        return;
    }
    const bool wanted = sim_fault_enter(sim, SIM_STREAM_CHANGE, &random);
    sim_schedule(sim,
                 &(struct sim_event){
                     .at_ms = sim->now_ms + sim_between(sim, 1, sim->parameters.change_interval_ms),
                     .type = SIM_CHANGE});
    if (wanted) {
        sim_change_now(sim);
    }
    sim_fault_leave(sim, random);
}

static void sim_compact_now(struct sim *sim)
{
    const size_t node = sim_victim(sim);
    const size_t source = sim_between(sim, 0, sim->parameters.node_count - 1);

    sim_trace(sim, node, "snapshot?", "%zu", sim->fault_count - 1);
    sim_node_compact(sim, node);
    if (sim_chance(sim, 1500) && sim->nodes[source].disk.snapshot_index > 0) {
        /* One that was asked for long ago. */
        sim_schedule(
            sim, &(struct sim_event){.at_ms = sim->now_ms + sim_between(sim, 0, 20),
                                     .type = SIM_FETCHED,
                                     .node = sim_between(sim, 0, sim->parameters.node_count - 1),
                                     .peer = sim->nodes[source].id,
                                     .index = sim->nodes[source].disk.snapshot_index,
                                     .duplicate = true});
    }
}

void sim_compact(struct sim *sim)
{
    uint64_t random;

    const bool wanted = sim_fault_enter(sim, SIM_STREAM_COMPACT, &random);
    sim_schedule(
        sim, &(struct sim_event){.at_ms = sim->now_ms +
                                          sim_between(sim, 1, sim->parameters.compact_interval_ms),
                                 .type = SIM_COMPACT});
    if (wanted) {
        sim_compact_now(sim);
    }
    sim_fault_leave(sim, random);
}
