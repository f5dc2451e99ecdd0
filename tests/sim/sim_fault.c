/* What goes wrong, one at a time. */

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_full.h"

/* --- what is left out --- */

static bool sim_left_out(const struct sim *sim, size_t number)
{
    return number < sim->options.left_out_count && sim->options.left_out[number];
}

bool sim_fault_class_left_out(const struct sim *sim, enum sim_fault_class which)
{
    return sim_left_out(sim, (size_t)which);
}

bool sim_fault_enter(struct sim *sim, enum sim_stream stream, uint64_t *random)
{
    *random = sim->random;
    sim->random =
        sim->options.seed * 0xBF58476D1CE4E5B9U + ((uint64_t)stream + 1) * 0x94D049BB133111EBU;
    sim->random = sim_random(sim) + sim->stream_counts[stream]++;
    sim->random = sim_random(sim);
    sim_shrink_note(sim->fault_count + 1);
    return !sim_left_out(sim, sim->fault_count++);
}

void sim_fault_leave(struct sim *sim, uint64_t random)
{
    sim->random = random;
}

/* --- the network --- */

void sim_network_heal(struct sim *sim)
{
    memset(sim->blocked, 0, sizeof(sim->blocked));
}

void sim_crash_and_restart(struct sim *sim, size_t node, bool machine)
{
    /* Often back so soon that nobody notices, except that it has forgotten what it promised. */
    const uint64_t longest_ms = sim_chance(sim, 4000) ? sim->parameters.election_ms / 4
                                                      : 4 * (uint64_t)sim->parameters.election_ms;
    const uint64_t down_ms = sim_between(sim, 1, longest_ms);
    const bool unsynced = sim->full != NULL && !machine && sim->nodes[node].disk.write_count > 0;

    sim_node_crash(sim, node, machine);
    sim_schedule(
        sim, &(struct sim_event){.at_ms = sim->now_ms + down_ms, .type = SIM_START, .node = node});
    if (unsynced && !sim->healed && sim_chance(sim, 7000)) {
        /* What it found there may not be on disk: if the machine goes now, it shows. */
        sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + down_ms + 1,
                                              .type = SIM_FALL,
                                              .node = node,
                                              .op = sim_random(sim)});
    }
}

/* Single links in one direction: a server that one peer hears and another does not. */
static void sim_cut_links(struct sim *sim)
{
    const unsigned share = (unsigned)sim_between(sim, 1000, 5000);

    sim_network_heal(sim);
    for (size_t from = 0; from < sim->parameters.node_count; from++) {
        for (size_t to = 0; to < sim->parameters.node_count; to++) {
            sim->blocked[from][to] = from != to && sim_chance(sim, share);
        }
    }
    sim->stats.cut_links++;
}

/* Two groups that do not hear each other; or, asymmetric, only one of them does not hear. */
static void sim_partition(struct sim *sim, bool symmetric)
{
    bool left[SIM_NODES_MAX];

    sim_network_heal(sim);
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        left[i] = sim_chance(sim, 5000);
    }
    if (sim_chance(sim, 3000)) {
        const size_t alone = sim_victim(sim);
        for (size_t i = 0; i < sim->parameters.node_count; i++) {
            left[i] = i == alone;
        }
    }
    for (size_t from = 0; from < sim->parameters.node_count; from++) {
        for (size_t to = 0; to < sim->parameters.node_count; to++) {
            sim->blocked[from][to] = symmetric ? left[from] != left[to] : left[from] && !left[to];
        }
    }
    if (symmetric) {
        sim->stats.partitions_symmetric++;
    } else {
        sim->stats.partitions_asymmetric++;
    }
}

void sim_lost(struct sim *sim, size_t node, raft_id peer)
{
    if (sim->nodes[node].raft == NULL) {
        return;
    }
    sim_trace(sim, node, "lost", "connection to %" PRIu64, peer);
    struct raft_event event = {.type = RAFT_EVENT_PEER_LOST, .peer = peer};
    sim_node_step(sim, node, &event);
}

/* Of one link, or of all of a server's; one end may learn of it and not the other. */
static void sim_reset(struct sim *sim, size_t node)
{
    const bool all = sim_chance(sim, 5000);
    const size_t one = sim_between(sim, 0, sim->parameters.node_count - 1);

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (i == node || (!all && i != one)) {
            continue;
        }
        sim->stats.resets++;
        if (sim_chance(sim, 9000) && sim_node_awake(sim, i)) {
            sim_lost(sim, i, sim->nodes[node].id);
        }
        if (sim_chance(sim, 9000) && sim_node_awake(sim, node)) {
            sim_lost(sim, node, sim->nodes[i].id);
        }
    }
}

void sim_transfer(struct sim *sim, size_t node)
{
    if (!sim_node_awake(sim, node)) {
        return;
    }
    const raft_id target = sim_between(sim, 0, sim->parameters.node_count);
    sim_trace(sim, node, "transfer", "to %" PRIu64, target);
    struct raft_event event = {.type = RAFT_EVENT_TRANSFER, .peer = target};
    sim_node_step(sim, node, &event);
    sim->stats.transfers += raft_transfer_target(sim->nodes[node].raft) != 0 ? 1 : 0;
}

/* --- servers --- */

/* A log can only be damaged while another server's is not, and while enough others are there. */
static bool sim_may_damage(const struct sim *sim)
{
    size_t lost = 0;

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        lost += sim->nodes[i].retired || sim->full->files[i].flipped ? 1 : 0;
    }
    return lost == 0;
}

static void sim_flip(struct sim *sim, size_t node)
{
    if (!sim_may_damage(sim) || sim->nodes[node].raft == NULL) {
        return;
    }
    /* Sometimes it goes on, and may read what is damaged. */
    if (sim_chance(sim, 6000)) {
        sim_crash_and_restart(sim, node, sim_chance(sim, 5000));
    }
    if (sim_disk_flip(sim, node)) {
        sim->stats.flips++;
    }
}

static void sim_sync_fails(struct sim *sim, size_t node)
{
    if (sim->nodes[node].raft != NULL) {
        sim->full->files[node].sync_fails = true;
        sim->full->snapshot_files[node].sync_fails = true;
        sim->stats.sync_failures++;
    }
}

static void sim_no_space(struct sim *sim, size_t node)
{
    sim->full->files[node].full_until_ms =
        sim->now_ms + sim_between(sim, 1, 6 * (uint64_t)sim->parameters.election_ms);
    sim->full->snapshot_files[node].full_until_ms = sim->full->files[node].full_until_ms;
    sim->stats.full_disks++;
}

static void sim_power_cut(struct sim *sim)
{
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        sim_crash_and_restart(sim, i, true);
    }
    sim->stats.power_cuts++;
}

static void sim_pause(struct sim *sim, size_t node)
{
    if (sim_node_awake(sim, node)) {
        sim->nodes[node].paused_until_ms =
            sim->now_ms + sim_between(sim, 1, 4 * (uint64_t)sim->parameters.election_ms);
        sim->stats.pauses++;
    }
}

static void sim_slow_disk(struct sim *sim, size_t node)
{
    struct sim_disk *disk = &sim->nodes[node].disk;

    disk->slow = !disk->slow;
    sim->stats.slow_disks += disk->slow ? 1 : 0;
}

static void sim_fault_of_network(struct sim *sim, size_t node, enum sim_fault fault)
{
    switch ((int)fault) {
    case SIM_FAULT_HEAL:
        sim_network_heal(sim);
        break;
    case SIM_FAULT_PARTITION:
        sim_partition(sim, true);
        break;
    case SIM_FAULT_ASYMMETRIC:
        sim_partition(sim, false);
        break;
    case SIM_FAULT_LINKS:
        sim_cut_links(sim);
        break;
    case SIM_FAULT_RESET:
        sim_reset(sim, node);
        break;
    case SIM_FAULT_DEPOSE:
        sim_depose(sim, node);
        break;
    default:
        assert(false);
    }
}

static void sim_fault_of_server(struct sim *sim, size_t node, enum sim_fault fault)
{
    switch ((int)fault) {
    case SIM_FAULT_CRASH:
        sim_crash_and_restart(sim, node, false);
        break;
    case SIM_FAULT_POWER:
        sim_power_cut(sim);
        break;
    case SIM_FAULT_PAUSE:
        sim_pause(sim, node);
        break;
    case SIM_FAULT_SLOW_DISK:
        sim_slow_disk(sim, node);
        break;
    case SIM_FAULT_TRANSFER:
        sim_transfer(sim, node);
        break;
    case SIM_FAULT_CLOCK:
        sim_clock_disturb(sim, node);
        break;
    case SIM_FAULT_MACHINE:
        sim_crash_and_restart(sim, node, true);
        break;
    case SIM_FAULT_SYNC:
        sim_sync_fails(sim, node);
        break;
    case SIM_FAULT_FLIP:
        sim_flip(sim, node);
        break;
    case SIM_FAULT_SPACE:
        sim_no_space(sim, node);
        break;
    default:
        assert(false);
    }
}

static void sim_fault_planted(const struct sim *sim, enum sim_fault fault)
{
    const enum sim_fault planted = sim->options.duel ? SIM_FAULT_DEPOSE : SIM_FAULT_CRASH;
    bool cut = false;

    for (size_t i = 0; i < SIM_NODES_MAX * SIM_NODES_MAX; i++) {
        cut = cut || sim->blocked[i / SIM_NODES_MAX][i % SIM_NODES_MAX];
    }
    sim_require(sim, !sim->options.planted || fault != planted || !cut,
                "a fault while the network is cut, as planted");
}

static enum sim_fault sim_fault_draw(struct sim *sim)
{
    const unsigned *weights = sim->parameters.fault_weights;
    unsigned total = 0;

    for (size_t i = 0; i < SIM_FAULT_COUNT; i++) {
        total += weights[i];
    }
    uint64_t choice = sim_between(sim, 0, total - 1);
    unsigned fault = 0;
    while (choice >= weights[fault]) {
        choice -= weights[fault];
        fault++;
    }
    return (enum sim_fault)fault;
}

void sim_fault(struct sim *sim)
{
    static const char *const names[] = {
        "heal",  "partition", "asymmetric", "links", "crash",   "power", "pause", "disk",
        "reset", "depose",    "transfer",   "clock", "machine", "sync",  "flip",  "space"};
    static_assert(sizeof(names) / sizeof(names[0]) == SIM_FAULT_COUNT, "every fault has its name");
    uint64_t random;

    const bool wanted = sim_fault_enter(sim, SIM_STREAM_FAULT, &random);
    sim_schedule(sim,
                 &(struct sim_event){
                     .at_ms = sim->now_ms + sim_between(sim, 1, sim->parameters.fault_interval_ms),
                     .type = SIM_FAULT});
    if (wanted) {
        const enum sim_fault fault = sim_fault_draw(sim);
        const size_t node = sim_victim(sim);
        sim_trace(sim, node, "fault", "%zu: %s", sim->fault_count - 1, names[fault]);
        if (fault <= SIM_FAULT_LINKS || fault == SIM_FAULT_RESET || fault == SIM_FAULT_DEPOSE) {
            sim_fault_of_network(sim, node, fault);
        } else {
            sim_fault_of_server(sim, node, fault);
        }
        sim_fault_planted(sim, fault);
    }
    sim_fault_leave(sim, random);
}
