/* Faults that are played in more than one move, because chance alone hardly ever plays them: a
 * leader is deposed while it believes to lead, and the network splits while the configuration
 * changes. What comes later has its chance from the first move, so that leaving the fault out
 * leaves out all of it. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

/* --- two leaders --- */

void sim_parameters_duel(struct sim *sim)
{
    struct sim_parameters *parameters = &sim->parameters;

    parameters->voter_count = 3;
    parameters->node_count = 3;
    parameters->first_count = 3;
    parameters->heartbeat_ms = parameters->election_ms / 4;
    parameters->latency_ms = sim_between(sim, 1, 2);
    parameters->disk_ms = sim_between(sim, 0, 2);
    parameters->lost_spread_ms = (uint32_t)sim_between(sim, 1, 3);
    parameters->fetch_ms = sim_between(sim, 1, 5);
    if (sim_chance(sim, 5000)) {
        parameters->lease_ms = (uint32_t)sim_between(sim, 10, 20);
        parameters->lease_guard_ms = parameters->lease_ms + 4;
    }
    parameters->drop = 0;
    parameters->propose_interval_ms = 2 * (uint64_t)parameters->election_ms;
    parameters->change_interval_ms = 0;
    parameters->split = 0;
    parameters->fault_interval_ms = 5 * (uint64_t)parameters->election_ms;
    memset(parameters->fault_weights, 0, sizeof(parameters->fault_weights));
    parameters->fault_weights[SIM_FAULT_HEAL] = 2;
    parameters->fault_weights[SIM_FAULT_DEPOSE] = 5;
}

/* What is on its way to the server takes much longer: late words of a world that has moved on. */
static void sim_stretch(struct sim *sim, size_t node)
{
    const uint64_t election_ms = sim->parameters.election_ms;
    const uint64_t longest_ms = sim_chance(sim, 5000) ? 3 * election_ms : election_ms / 4;
    const size_t count = sim->heap_count;
    struct sim_event *events = calloc(count + 1, sizeof(*events));

    sim_require(sim, events != NULL, "out of memory");
    for (size_t i = 0; i < count; i++) {
        events[i] = sim_queue_pop(sim);
    }
    for (size_t i = 0; i < count; i++) {
        if (events[i].type == SIM_MESSAGE && events[i].node == node) {
            events[i].at_ms += sim_between(sim, 1, longest_ms);
        }
        sim_schedule(sim, &events[i]);
    }
    free(events);
}

/* Somebody reads from it at all times, while others write elsewhere, little or much. */
static void sim_depose_clients(struct sim *sim, size_t node)
{
    const uint64_t end_ms = 3 * (uint64_t)sim->parameters.election_ms;
    const unsigned writes = sim_chance(sim, 5000) ? 10000 : 500;

    for (uint64_t ms = 1; ms < end_ms; ms += sim_between(sim, 1, 12)) {
        sim_schedule(sim, &(struct sim_event){
                              .at_ms = sim->now_ms + ms, .type = SIM_READ_ONCE, .node = node});
        if (sim_chance(sim, writes)) {
            sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + ms,
                                                  .type = SIM_PROPOSE_ONCE,
                                                  .node = node});
        }
    }
}

static void sim_depose_tell(struct sim *sim, size_t node)
{
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (i != node && sim_chance(sim, 9500) && sim_node_awake(sim, i)) {
            sim_lost(sim, i, sim->nodes[node].id);
        }
    }
}

/* The others forget what they have promised. Not `deaf`. */
static void sim_depose_restart(struct sim *sim, size_t node, size_t deaf)
{
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (i != node && i != deaf && sim_chance(sim, 8000)) {
            sim_node_crash(sim, i, false);
            sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + sim_between(sim, 1, 5),
                                                  .type = SIM_START,
                                                  .node = i});
            if (sim->full != NULL && sim_chance(sim, 5000)) {
                /* What it found there may not be on disk. */
                sim_schedule(sim,
                             &(struct sim_event){.at_ms = sim->now_ms + sim_between(sim, 6, 60),
                                                 .type = SIM_FALL,
                                                 .node = i,
                                                 .op = sim_random(sim)});
            }
        }
    }
}

static void sim_depose_cut(struct sim *sim, size_t node)
{
    /* It may be heard, and hear nothing; and what was on its way to it may come late. */
    const bool heard = sim_chance(sim, 3000);
    const bool stretched = sim_chance(sim, 4000);
    unsigned unheard = sim_chance(sim, 5000) ? 10000 : 7000;

    sim_network_heal(sim);
    if (sim_chance(sim, heard ? 6000 : 1000)) {
        sim_transfer(sim, node);
    }
    if (stretched) {
        sim_stretch(sim, node);
        unheard = sim_chance(sim, 7000) ? 0 : unheard;
    }
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (i != node) {
            sim->blocked[node][i] = !heard;
            sim->blocked[i][node] = heard || sim_chance(sim, unheard);
        }
    }
}

/* It is heard again while it has writes under way that are worth nothing. */
static void sim_rejoin_later(struct sim *sim, size_t node)
{
    const uint64_t election_ms = sim->parameters.election_ms;
    const uint64_t writes = sim_between(sim, 0, 12);

    sim->nodes[node].disk.slow = true;
    for (uint64_t i = 0; i < writes; i++) {
        sim_propose_at(sim, node);
    }
    sim_schedule(sim,
                 &(struct sim_event){.at_ms = sim->now_ms + sim_between(sim, 1, 3) * election_ms,
                                     .type = SIM_REJOIN,
                                     .node = node,
                                     .op = sim_random(sim)});
}

/* The hardest test of a lease: the leader is alive, but cut off from the others, who elect another
 * one, write there, and somebody reads from the first at all times. `deaf` has not heard it for
 * some time already. */
static void sim_depose_now(struct sim *sim, size_t node, size_t deaf)
{
    const bool restarted = sim_chance(sim, 3000);

    sim_depose_cut(sim, node);
    if (restarted) {
        sim_depose_restart(sim, node, deaf);
    }
    if (sim_chance(sim, restarted ? 9000 : 5000)) {
        sim_depose_tell(sim, node);
    }
    if (sim_chance(sim, 3000)) {
        sim_rejoin_later(sim, node);
    }
    sim_depose_clients(sim, node);
}

/* The others' logs have nothing for it any more. */
static void sim_rejoin(struct sim *sim, size_t node)
{
    const size_t source = sim_between(sim, 0, sim->parameters.node_count - 1);

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (i != node) {
            sim_node_compact(sim, i);
        }
    }
    sim_network_heal(sim);
    if (source != node && sim->nodes[source].disk.snapshot_index > 0 && sim_chance(sim, 5000)) {
        /* Asked for before, and it comes before anything else. */
        sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + sim_between(sim, 0, 3),
                                              .type = SIM_FETCHED,
                                              .node = node,
                                              .peer = sim->nodes[source].id,
                                              .index = sim->nodes[source].disk.snapshot_index,
                                              .duplicate = true});
    }
}

void sim_depose(struct sim *sim, size_t node)
{
    const uint64_t election_ms = sim->parameters.election_ms;
    const uint64_t guard_ms = sim->parameters.lease_guard_ms;
    size_t deaf = sim_between(sim, 0, sim->parameters.node_count - 1);
    uint64_t wait_ms = 0;

    switch (sim_between(sim, 0, 3)) {
    case 0:
        deaf = node;
        break;
    case 1: /* Answers of this moment are on their way. */
        sim_propose_at(sim, node);
        deaf = node;
        wait_ms = sim_between(sim, 1, 2 * sim->parameters.latency_ms);
        break;
    case 2: /* One has not heard it for as long as it owes it. */
        wait_ms = sim_between(sim, guard_ms, guard_ms + election_ms);
        break;
    default: /* One has not heard it for long, and stands for election again and again. */
        wait_ms = sim_between(sim, election_ms, 4 * election_ms);
        break;
    }
    sim_network_heal(sim);
    sim->blocked[node][deaf] = deaf != node;
    sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + wait_ms,
                                          .type = SIM_DEPOSE,
                                          .node = node,
                                          .peer = deaf + 1,
                                          .op = sim_random(sim)});
}

/* --- two configurations --- */

void sim_elected(struct sim *sim, size_t node)
{
    uint64_t random;

    if (sim->parameters.split == 0 || sim->healed) {
        return;
    }
    const bool wanted = sim_fault_enter(sim, SIM_STREAM_SPLIT, &random);
    if (sim_chance(sim, sim->parameters.split) && wanted) {
        const uint64_t wait_ms =
            sim_chance(sim, 7000) ? 0 : sim_between(sim, 0, sim->parameters.election_ms);
        sim_trace(sim, node, "fault", "%zu: split", sim->fault_count - 1);
        sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + wait_ms,
                                              .type = SIM_ELECTED,
                                              .node = node,
                                              .op = sim_random(sim)});
    }
    sim_fault_leave(sim, random);
}

/* The leader keeps `count` of the configuration's servers, itself included; the rest falls where it
 * may. */
static void sim_split_off(struct sim *sim, size_t node,
                          const struct raft_configuration *configuration, size_t count)
{
    const size_t node_count = sim->parameters.node_count;
    bool left[SIM_NODES_MAX];

    for (size_t i = 0; i < node_count; i++) {
        left[i] = sim_chance(sim, 5000);
    }
    count--;
    for (size_t i = 0; i < configuration->count; i++) {
        const size_t other = (size_t)configuration->servers[i].id - 1;
        left[other] = other != node && count > 0 && sim_chance(sim, 5000);
        count -= left[other] ? 1 : 0;
    }
    left[node] = true;
    for (size_t from = 0; from < node_count; from++) {
        for (size_t to = 0; to < node_count; to++) {
            sim->blocked[from][to] = left[from] != left[to];
        }
    }
}

/* A leader has just been elected. It is asked to take a voter out, and is left with half of the
 * voters, or with none but itself: each side may then go by a configuration of its own. */
static void sim_split(struct sim *sim, size_t node)
{
    if (!sim_node_awake(sim, node) || sim->nodes[node].role != RAFT_LEADER) {
        return;
    }
    struct raft_configuration configuration = *raft_configuration(sim->nodes[node].raft);
    const size_t voters = sim_voters(&configuration);

    if (voters > 2) {
        size_t at = sim_between(sim, 0, configuration.count - 1);
        while (!configuration.servers[at].voter) {
            at = (at + 1) % configuration.count;
        }
        sim_change_remove(&configuration, at);
        sim_change_propose(sim, node, &configuration);
    }
    sim_split_off(sim, node, &configuration, sim_chance(sim, 5000) ? (voters + 1) / 2 : 1);
    sim_depose_tell(sim, node);
    if (sim_chance(sim, 4000)) {
        sim_rejoin_later(sim, node);
    }
    sim->stats.splits++;
}

void sim_duel_dispatch(struct sim *sim, const struct sim_event *event)
{
    const uint64_t random = sim->random;

    if (sim->healed) {
        return;
    }
    sim->random = event->op;
    switch ((int)event->type) {
    case SIM_DEPOSE:
        sim_depose_now(sim, event->node, (size_t)event->peer - 1);
        break;
    case SIM_REJOIN:
        sim_rejoin(sim, event->node);
        break;
    case SIM_ELECTED:
        sim_split(sim, event->node);
        break;
    case SIM_FALL:
        sim_crash_and_restart(sim, event->node, true);
        break;
    default:
        break;
    }
    sim_fault_leave(sim, random);
}
