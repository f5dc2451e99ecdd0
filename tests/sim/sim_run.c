/* One run: parameters from the seed, the queue of events, faults, clients, and progress at the end.
 */

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

enum { SIM_BUSY_INTERVAL_MS = 60 };

enum sim_fault {
    SIM_FAULT_HEAL,
    SIM_FAULT_PARTITION,
    SIM_FAULT_ASYMMETRIC,
    SIM_FAULT_LINKS,
    SIM_FAULT_CRASH,
    SIM_FAULT_POWER, /* all at once */
    SIM_FAULT_PAUSE,
    SIM_FAULT_SLOW_DISK,
    SIM_FAULT_RESET,  /* connections, under servers that live on */
    SIM_FAULT_DEPOSE, /* cuts a server off, and all learn of it at once; its clients go on */
    SIM_FAULT_TRANSFER,
    SIM_FAULT_COUNT,
};

static_assert(SIM_FAULT_COUNT == sizeof(((struct sim_parameters *)0)->fault_weights) /
                                     sizeof(((struct sim_parameters *)0)->fault_weights[0]),
              "every fault has its weight");

/* --- chance --- */

uint64_t sim_random(struct sim *sim)
{
    sim->random += 0x9E3779B97F4A7C15U;
    uint64_t mixed = sim->random;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
    return mixed ^ (mixed >> 31);
}

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
    return low + sim_random(sim) % (high - low + 1);
}

bool sim_chance(struct sim *sim, unsigned per_10000)
{
    return sim_random(sim) % 10000 < per_10000;
}

/* Any server, but more often one that leads: it has most to lose. */
static size_t sim_victim(struct sim *sim)
{
    const size_t node = sim_between(sim, 0, sim->parameters.node_count - 1);

    if (sim_chance(sim, 5000)) {
        /* The first one after a random server: there may be two, one of them deposed. */
        for (size_t i = 0; i < sim->parameters.node_count; i++) {
            const size_t other = (node + i) % sim->parameters.node_count;
            if (sim->nodes[other].raft != NULL && sim->nodes[other].role == RAFT_LEADER) {
                return other;
            }
        }
    }
    return node;
}

void *sim_grow(void *array, size_t *capacity, size_t needed, size_t item_bytes)
{
    if (needed <= *capacity) {
        return array;
    }
    *capacity = needed * 2 + 16;
    void *grown = realloc(array, *capacity * item_bytes);
    if (grown == NULL) {
        fputs("out of memory\n", stderr);
        exit(3);
    }
    return grown;
}

void sim_trace(const struct sim *sim, size_t node, const char *word, const char *format, ...)
{
    if (!sim->verbose) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    printf("%8" PRIu64 "  %zu  %-10s ", sim->now_ms, node + 1, word);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

/* --- queue: a binary heap, equal times in the order in which they were scheduled --- */

static bool sim_event_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void sim_heap_swap(struct sim *sim, size_t a, size_t b)
{
    const struct sim_event event = sim->heap[a];

    sim->heap[a] = sim->heap[b];
    sim->heap[b] = event;
}

void sim_schedule(struct sim *sim, const struct sim_event *event)
{
    sim->heap = sim_grow(sim->heap, &sim->heap_capacity, sim->heap_count + 1, sizeof(*sim->heap));
    size_t at = sim->heap_count++;
    sim->heap[at] = *event;
    sim->heap[at].order = sim->next_order++;
    while (at > 0 && sim_event_before(&sim->heap[at], &sim->heap[(at - 1) / 2])) {
        sim_heap_swap(sim, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static struct sim_event sim_heap_pop(struct sim *sim)
{
    const struct sim_event first = sim->heap[0];

    sim->heap[0] = sim->heap[--sim->heap_count];
    size_t at = 0;
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < sim->heap_count; child++) {
            if (sim_event_before(&sim->heap[child], &sim->heap[least])) {
                least = child;
            }
        }
        if (least == at) {
            return first;
        }
        sim_heap_swap(sim, at, least);
        at = least;
    }
}

/* --- parameters --- */

static void sim_draw_parameters(struct sim *sim)
{
    struct sim_parameters *parameters = &sim->parameters;

    static const size_t voter_counts[] = {3, 3, 3, 5, 5, 4};
    parameters->voter_count = voter_counts[sim_between(sim, 0, 5)];
    parameters->node_count = parameters->voter_count + (sim_chance(sim, 2500) ? 1 : 0);
    parameters->first_count = parameters->node_count;
    parameters->bootstrap_all = sim_chance(sim, 5000);
    parameters->election_ms = (uint32_t)sim_between(sim, 100, 400);
    parameters->heartbeat_ms = parameters->election_ms / (uint32_t)sim_between(sim, 4, 10);
    parameters->lease_ms = parameters->election_ms * (uint32_t)sim_between(sim, 50, 90) / 100;
    if (sim_chance(sim, 5000)) {
        parameters->lease_ms = (uint32_t)sim_between(sim, 10, parameters->lease_ms);
    }
    parameters->lease_guard_ms =
        parameters->lease_ms + 4 + (uint32_t)sim_between(sim, 0, parameters->lease_ms / 4);
    parameters->lost_spread_ms = (uint32_t)sim_between(sim, 1, parameters->election_ms / 10);
    parameters->inflight_max = sim_between(sim, 1, 8);
    parameters->batch_max = sim_between(sim, 1, 16);
    parameters->uncommitted_max = sim_between(sim, 8, 64);
    parameters->latency_ms = sim_between(sim, 1, parameters->election_ms / 20);
    parameters->drop = (unsigned)(sim_chance(sim, 5000) ? sim_between(sim, 0, 2000) : 0);
    parameters->duplicate = (unsigned)(sim_chance(sim, 5000) ? sim_between(sim, 0, 1000) : 0);
    parameters->delay = (unsigned)(sim_chance(sim, 6000) ? sim_between(sim, 0, 1000) : 0);
    parameters->delay_ms = sim_between(sim, 10, 10 * (uint64_t)parameters->election_ms);
    parameters->disk_ms = sim_between(sim, 0, parameters->election_ms / 6);
    parameters->disk_slow_ms = sim_between(sim, 20, 4 * (uint64_t)parameters->election_ms);
    parameters->fault_interval_ms = sim_between(sim, 50, 5 * (uint64_t)parameters->election_ms);
    for (size_t i = 0; i < SIM_FAULT_COUNT; i++) {
        /* Not all faults in every run, so that each is also seen alone. */
        parameters->fault_weights[i] =
            (unsigned)(sim_chance(sim, 6500) ? sim_between(sim, 1, 10) : 0);
    }
    parameters->fault_weights[SIM_FAULT_POWER] /= 5;
    parameters->fault_weights[SIM_FAULT_HEAL] += 3;
    /* With few writes, a server that does not hear its leader keeps up with it, and may win. */
    parameters->propose_interval_ms =
        sim_chance(sim, 7000) ? sim_between(sim, 5, SIM_BUSY_INTERVAL_MS)
                              : sim_between(sim, 5, 4 * (uint64_t)parameters->election_ms);
    parameters->read_interval_ms = sim_between(sim, 5, SIM_BUSY_INTERVAL_MS);
    if (sim_chance(sim, 5000)) {
        parameters->change_interval_ms = sim_between(
            sim, 5, (sim_chance(sim, 5000) ? 4 : 1) * (uint64_t)parameters->election_ms);
    }
    if (sim_chance(sim, 6000)) {
        parameters->compact_interval_ms =
            sim_between(sim, 10, 4 * (uint64_t)parameters->election_ms);
    }
    parameters->fetch_ms = sim_between(sim, 1, parameters->election_ms);
    parameters->fault_phase_ms = sim_between(sim, 20, 80) * parameters->election_ms;
}

uint64_t sim_configuration_find(const struct sim *sim, const void *bytes, size_t size)
{
    uint64_t which = 0;

    while (which < sim->configuration_count &&
           (sim->configurations[which].size != size ||
            memcmp(sim->configurations[which].bytes, bytes, size) != 0)) {
        which++;
    }
    sim_require(sim, which < sim->configuration_count, "a configuration that nobody proposed");
    return which;
}

uint64_t sim_configuration_add(struct sim *sim, const struct raft_configuration *configuration)
{
    if (sim->configurations == NULL) {
        sim->configurations = calloc(SIM_CONFIGURATIONS_MAX, sizeof(*sim->configurations));
        sim_require(sim, sim->configurations != NULL, "out of memory");
    }
    sim_require(sim, sim->configuration_count < SIM_CONFIGURATIONS_MAX, "too many configurations");
    struct sim_configuration *added = &sim->configurations[sim->configuration_count];
    added->configuration = *configuration;
    added->size = raft_configuration_encode(configuration, added->bytes);
    sim->configuration_count++;
    return sim_configuration_find(sim, added->bytes, added->size);
}

static void sim_make_configuration(struct sim *sim)
{
    struct raft_configuration configuration;

    memset(&configuration, 0, sizeof(configuration));
    configuration.count = sim->parameters.node_count;
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        struct raft_server *server = &configuration.servers[i];
        server->id = i + 1;
        server->voter = i < sim->parameters.voter_count;
        server->info_size = 1;
        server->info[0] = (char)('a' + (int)i);
    }
    (void)sim_configuration_add(sim, &configuration);
}

/* --- faults --- */

static void sim_heal_network(struct sim *sim)
{
    memset(sim->blocked, 0, sizeof(sim->blocked));
}

static void sim_crash_and_restart(struct sim *sim, size_t node)
{
    /* Often back so soon that nobody notices, except that it has forgotten what it promised. */
    const uint64_t longest_ms = sim_chance(sim, 4000) ? sim->parameters.election_ms / 4
                                                      : 4 * (uint64_t)sim->parameters.election_ms;
    const uint64_t down_ms = sim_between(sim, 1, longest_ms);

    sim_node_crash(sim, node);
    sim_schedule(
        sim, &(struct sim_event){.at_ms = sim->now_ms + down_ms, .type = SIM_START, .node = node});
}

/* Single links in one direction: a server that one peer hears and another does not. */
static void sim_cut_links(struct sim *sim)
{
    const unsigned share = (unsigned)sim_between(sim, 1000, 5000);

    sim_heal_network(sim);
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

    sim_heal_network(sim);
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

static void sim_lost(struct sim *sim, size_t node, raft_id peer)
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

/* The hardest test of a lease: the leader is alive, but cut off from the others, whose connections
 * are reset; they elect another one, write there, and somebody reads from the first at all times.
 */
static void sim_depose(struct sim *sim, size_t node)
{
    sim_heal_network(sim);
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (i == node) {
            continue;
        }
        sim->blocked[node][i] = true;
        sim->blocked[i][node] = sim_chance(sim, 7000);
        if (sim_chance(sim, 9500) && sim_node_awake(sim, i)) {
            sim_lost(sim, i, sim->nodes[node].id);
        }
    }
    const uint64_t end_ms = 2 * (uint64_t)sim->parameters.election_ms;
    for (uint64_t ms = 1; ms < end_ms; ms += sim_between(sim, 1, 12)) {
        sim_schedule(sim, &(struct sim_event){
                              .at_ms = sim->now_ms + ms, .type = SIM_READ_ONCE, .node = node});
        sim_schedule(sim, &(struct sim_event){
                              .at_ms = sim->now_ms + ms, .type = SIM_PROPOSE_ONCE, .node = node});
    }
}

static void sim_transfer(struct sim *sim, size_t node)
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

static void sim_fault(struct sim *sim)
{
    struct sim_parameters *parameters = &sim->parameters;
    const size_t node = sim_victim(sim);
    struct sim_node *server = &sim->nodes[node];
    unsigned total = 0;

    for (size_t i = 0; i < SIM_FAULT_COUNT; i++) {
        total += parameters->fault_weights[i];
    }
    uint64_t choice = sim_between(sim, 0, total - 1);
    size_t fault = 0;
    while (choice >= parameters->fault_weights[fault]) {
        choice -= parameters->fault_weights[fault];
        fault++;
    }
    static const char *const names[] = {"heal",  "partition", "asymmetric", "links",
                                        "crash", "power",     "pause",      "disk",
                                        "reset", "depose",    "transfer"};
    sim_trace(sim, node, "fault", "%s", names[fault]);
    switch ((enum sim_fault)fault) {
    case SIM_FAULT_HEAL:
        sim_heal_network(sim);
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
    case SIM_FAULT_CRASH:
        sim_crash_and_restart(sim, node);
        break;
    case SIM_FAULT_POWER:
        for (size_t i = 0; i < parameters->node_count; i++) {
            sim_crash_and_restart(sim, i);
        }
        sim->stats.power_cuts++;
        break;
    case SIM_FAULT_PAUSE:
        if (sim_node_awake(sim, node)) {
            server->paused_until_ms =
                sim->now_ms + sim_between(sim, 1, 4 * (uint64_t)parameters->election_ms);
            sim->stats.pauses++;
        }
        break;
    case SIM_FAULT_SLOW_DISK:
        server->disk.slow = !server->disk.slow;
        sim->stats.slow_disks += server->disk.slow ? 1 : 0;
        break;
    case SIM_FAULT_RESET:
        sim_reset(sim, node);
        break;
    case SIM_FAULT_DEPOSE:
        sim_depose(sim, node);
        break;
    case SIM_FAULT_TRANSFER:
        sim_transfer(sim, node);
        break;
    case SIM_FAULT_COUNT:
        break;
    }
    sim_schedule(sim, &(struct sim_event){
                          .at_ms = sim->now_ms + sim_between(sim, 1, parameters->fault_interval_ms),
                          .type = SIM_FAULT});
}

/* --- changes of the configuration --- */

static size_t sim_voters(const struct raft_configuration *configuration)
{
    size_t voters = 0;

    for (size_t i = 0; i < configuration->count; i++) {
        voters += configuration->servers[i].voter ? 1 : 0;
    }
    return voters;
}

static void sim_change_remove(struct raft_configuration *configuration, size_t at)
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
    if (sim_voters(configuration) <= 2) {
        return false;
    }
    if (sim_chance(sim, 4000)) {
        server->voter = false;
    } else {
        sim_change_remove(configuration, at);
    }
    return true;
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
    sim_node_crash(sim, node);
    sim->nodes[node].retired = true;
    sim->stats.retired++;
}

static void sim_change(struct sim *sim)
{
    const size_t node = sim_victim(sim);

    if (sim->healed) {
        return;
    }
    sim_schedule(sim,
                 &(struct sim_event){
                     .at_ms = sim->now_ms + sim_between(sim, 1, sim->parameters.change_interval_ms),
                     .type = SIM_CHANGE});
    if (sim_chance(sim, 300)) {
        sim_change_retire(sim, node);
        return;
    }
    if (!sim_node_awake(sim, node) || sim->nodes[node].role != RAFT_LEADER ||
        sim->configuration_count == SIM_CONFIGURATIONS_MAX) {
        return;
    }
    struct raft_configuration configuration = *raft_configuration(sim->nodes[node].raft);
    const size_t count = configuration.count;
    if (!sim_change_draw(sim, node, &configuration)) {
        return;
    }
    const uint64_t which = sim_configuration_add(sim, &configuration);
    const struct raft_entry entry = {.type = RAFT_ENTRY_CONFIGURATION,
                                     .data = sim->configurations[which].bytes,
                                     .size = sim->configurations[which].size};
    sim_trace(sim, node, "change", "%zu servers, %zu voters", configuration.count,
              sim_voters(&configuration));
    const size_t before = sim->nodes[node].log.count;
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE, .entries = &entry, .entry_count = 1};
    sim_node_step(sim, node, &event);
    if (sim->nodes[node].log.count > before) {
        sim->stats.changes++;
        sim->stats.removals += configuration.count < count ? 1 : 0;
    }
}

static void sim_compact(struct sim *sim)
{
    const size_t node = sim_victim(sim);
    const size_t source = sim_between(sim, 0, sim->parameters.node_count - 1);

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
    sim_schedule(
        sim, &(struct sim_event){.at_ms = sim->now_ms +
                                          sim_between(sim, 1, sim->parameters.compact_interval_ms),
                                 .type = SIM_COMPACT});
}

/* --- clients --- */

static void sim_propose_at(struct sim *sim, size_t node)
{
    uint64_t values[SIM_BATCH_MAX];
    struct raft_entry entries[SIM_BATCH_MAX];
    const size_t count = sim_between(sim, 1, SIM_BATCH_MAX);

    for (size_t i = 0; i < count; i++) {
        values[i] = ++sim->next_value;
        entries[i] = (struct raft_entry){
            .type = RAFT_ENTRY_COMMAND, .data = &values[i], .size = sizeof(values[i])};
    }
    if (sim_node_awake(sim, node)) {
        sim_trace(sim, node, "propose", "%zu entries, values up to %" PRIu64, count,
                  sim->next_value);
        struct raft_event event = {
            .type = RAFT_EVENT_PROPOSE, .entries = entries, .entry_count = count};
        sim_node_step(sim, node, &event);
    }
}

static void sim_propose(struct sim *sim)
{
    sim_schedule(
        sim, &(struct sim_event){.at_ms = sim->now_ms +
                                          sim_between(sim, 1, sim->parameters.propose_interval_ms),
                                 .type = SIM_PROPOSE});
    sim_propose_at(sim, sim_victim(sim));
}

static void sim_read_at(struct sim *sim, size_t node)
{
    const bool quorum = sim_chance(sim, 4000);

    /* Some are kept for the end, which demands that reads are served. */
    const uint64_t reads_max = sim->healed ? SIM_READS_MAX : SIM_READS_MAX * 7 / 8;
    if (!sim_node_awake(sim, node) || sim->read_count >= reads_max) {
        return;
    }
    const uint64_t token = sim->read_count++;
    sim_trace(sim, node, "read?", "token %" PRIu64 "%s", token, quorum ? " quorum" : "");
    sim->reads[token] = (struct sim_read){true, sim->now_ms, sim->committed_count};
    struct raft_event event = {.type = RAFT_EVENT_READ, .read_token = token, .read_quorum = quorum};
    sim_node_step(sim, node, &event);
}

static void sim_read(struct sim *sim)
{
    sim_schedule(sim,
                 &(struct sim_event){.at_ms = sim->now_ms +
                                              sim_between(sim, 1, sim->parameters.read_interval_ms),
                                     .type = SIM_READ});
    sim_read_at(sim, sim_victim(sim));
}

/* Wherever there is a leader but there. */
static void sim_propose_elsewhere(struct sim *sim, size_t node)
{
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        if (i != node && sim->nodes[i].role == RAFT_LEADER) {
            sim_propose_at(sim, i);
        }
    }
}

/* --- the run --- */

static void sim_dispatch(struct sim *sim, struct sim_event *event)
{
    struct sim_node *server = &sim->nodes[event->node];

    if ((event->type == SIM_MESSAGE || event->type == SIM_DISK || event->type == SIM_LOST ||
         event->type == SIM_FETCHED) &&
        server->raft != NULL && server->paused_until_ms > sim->now_ms) {
        /* It waits in the socket, or in the completion queue. */
        event->at_ms = server->paused_until_ms;
        sim_schedule(sim, event);
        return;
    }
    switch (event->type) {
    case SIM_MESSAGE:
        sim_deliver(sim, event);
        break;
    case SIM_DISK:
        if (server->raft != NULL && server->life == event->life) {
            sim_node_disk_done(sim, event->node);
        }
        break;
    case SIM_PROPOSE:
        sim_propose(sim);
        break;
    case SIM_READ:
        sim_read(sim);
        break;
    case SIM_PROPOSE_ONCE:
        sim_propose_elsewhere(sim, event->node);
        break;
    case SIM_READ_ONCE:
        sim_read_at(sim, event->node);
        break;
    case SIM_FAULT:
        if (!sim->healed) {
            sim_fault(sim);
        }
        break;
    case SIM_START:
        sim_node_start(sim, event->node);
        break;
    case SIM_CHANGE:
        sim_change(sim);
        break;
    case SIM_COMPACT:
        sim_compact(sim);
        break;
    case SIM_FETCHED:
        sim_node_fetched(sim, event);
        break;
    case SIM_LOST:
        sim_lost(sim, event->node, event->peer);
        break;
    }
}

/* The server whose deadline comes first, among those that run. */
static size_t sim_next_to_wake(const struct sim *sim, uint64_t *at_ms)
{
    size_t next = 0;

    *at_ms = UINT64_MAX;
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        const struct sim_node *server = &sim->nodes[i];
        uint64_t wake_ms = server->raft == NULL ? UINT64_MAX : server->wake_ms;
        if (wake_ms < server->paused_until_ms) {
            wake_ms = server->paused_until_ms;
        }
        if (server->raft != NULL && wake_ms < *at_ms) {
            *at_ms = wake_ms;
            next = i;
        }
    }
    return next;
}

static void sim_advance(struct sim *sim, uint64_t until_ms)
{
    while (sim->heap_count > 0) {
        uint64_t wake_ms = 0;
        const size_t node = sim_next_to_wake(sim, &wake_ms);
        if (sim->heap[0].at_ms > until_ms && wake_ms > until_ms) {
            break;
        }
        if (wake_ms < sim->heap[0].at_ms) {
            sim->now_ms = wake_ms > sim->now_ms ? wake_ms : sim->now_ms;
            sim_trace(sim, node, "tick", "deadline");
            struct raft_event event = {.type = RAFT_EVENT_TICK};
            sim_node_step(sim, node, &event);
            sim_require(sim, sim->nodes[node].wake_ms > sim->now_ms,
                        "server %zu is due again at once", node + 1);
        } else {
            struct sim_event event = sim_heap_pop(sim);
            sim->now_ms = event.at_ms;
            sim_dispatch(sim, &event);
        }
    }
    sim->now_ms = until_ms;
}

/* Whether some server still counts on it. */
static bool sim_needed(const struct sim *sim, size_t node)
{
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        struct raft_configuration configuration = sim->configurations[0].configuration;
        for (size_t at = sim->nodes[i].disk.log.count; at > 0; at--) {
            const struct sim_entry *entry = &sim->nodes[i].disk.log.entries[at - 1];
            if (entry->type == RAFT_ENTRY_CONFIGURATION) {
                configuration = sim->configurations[entry->value].configuration;
                break;
            }
        }
        for (size_t s = 0; s < configuration.count && !sim->nodes[i].retired; s++) {
            if (configuration.servers[s].id == sim->nodes[node].id) {
                return true;
            }
        }
    }
    return false;
}

static void sim_heal(struct sim *sim)
{
    sim_trace(sim, 0, "healed", "all faults stop");
    sim->healed = true;
    if (sim->parameters.propose_interval_ms > SIM_BUSY_INTERVAL_MS) {
        sim->parameters.propose_interval_ms = SIM_BUSY_INTERVAL_MS;
    }
    sim->healed_value = sim->next_value + 1;
    sim_heal_network(sim);
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        sim->nodes[i].paused_until_ms = 0;
        sim->nodes[i].retired = sim->nodes[i].retired && !sim_needed(sim, i);
        sim_node_start(sim, i);
        sim_node_disk_hurry(sim, i);
    }
}

/* The configuration of the leader of the latest term; NULL: there is none. */
static const struct raft_configuration *sim_present_configuration(const struct sim *sim)
{
    const struct sim_node *leader = NULL;

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        const struct sim_node *server = &sim->nodes[i];
        if (server->raft != NULL && server->role == RAFT_LEADER &&
            (leader == NULL || server->term > leader->term)) {
            leader = server;
        }
    }
    return leader == NULL ? NULL : raft_configuration(leader->raft);
}

/* Whether every server that is a member has applied something that was proposed after the faults
 * stopped. */
static bool sim_progressed(const struct sim *sim)
{
    const struct raft_configuration *configuration = sim_present_configuration(sim);

    if (configuration == NULL) {
        return false;
    }
    for (size_t s = 0; s < configuration->count; s++) {
        const size_t i = (size_t)configuration->servers[s].id - 1;
        const raft_index applied = sim->nodes[i].applied_index;
        bool fresh = false;
        for (raft_index index = applied; index > 0 && !fresh; index--) {
            fresh = sim->committed[index - 1].entry.value >= sim->healed_value;
            if (applied - index > 64) {
                break;
            }
        }
        if (!fresh) {
            return false;
        }
    }
    return sim->read_after_heal;
}

static raft_term sim_highest_term(const struct sim *sim)
{
    raft_term highest = 0;

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        highest = sim->nodes[i].term > highest ? sim->nodes[i].term : highest;
    }
    return highest;
}

/* How long the server that lacks most needs at worst, one batch at a time. */
static uint64_t sim_catch_up_ms(const struct sim *sim)
{
    const struct sim_parameters *parameters = &sim->parameters;
    raft_index least = sim->committed_count;

    for (size_t i = 0; i < parameters->node_count; i++) {
        if (sim->nodes[i].raft != NULL && sim->nodes[i].applied_index < least) {
            least = sim->nodes[i].applied_index;
        }
    }
    const uint64_t missing = sim->committed_count - least + 2 * parameters->uncommitted_max;
    const uint64_t turn_ms = 2 * parameters->latency_ms + 2 * parameters->disk_ms + 2;
    return (missing / parameters->batch_max + 1) * turn_ms;
}

/* A healed cluster serves within a bound, and then keeps its leader. */
static void sim_demand_progress(struct sim *sim)
{
    const uint64_t election_ms = sim->parameters.election_ms;
    const uint64_t bound_ms = sim->now_ms + 25 * election_ms + sim_catch_up_ms(sim);

    while (!sim_progressed(sim)) {
        sim_require(sim, sim->now_ms < bound_ms, "no progress although all faults have stopped");
        sim_advance(sim, sim->now_ms + election_ms / 2);
    }
    const raft_term term = sim_highest_term(sim);
    sim_advance(sim, sim->now_ms + 5 * election_ms);
    sim_require(sim, sim_highest_term(sim) == term, "a healthy leader is deposed");
}

static void sim_deinit(struct sim *sim)
{
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        sim_node_deinit(sim, i);
    }
    while (sim->heap_count > 0) {
        sim_message_free(sim_heap_pop(sim).message);
    }
    free(sim->heap);
    free(sim->committed);
    free(sim->configurations);
    free(sim->leaders);
    free(sim->seen);
    free(sim);
}

static void sim_stats_add(struct sim_stats *total, const struct sim_stats *stats)
{
    total->steps += stats->steps;
    total->elections += stats->elections;
    total->commits += stats->commits;
    total->reads += stats->reads;
    total->drops += stats->drops;
    total->duplicates += stats->duplicates;
    total->delays += stats->delays;
    total->partitions_symmetric += stats->partitions_symmetric;
    total->partitions_asymmetric += stats->partitions_asymmetric;
    total->cut_links += stats->cut_links;
    total->crashes += stats->crashes;
    total->power_cuts += stats->power_cuts;
    total->lost_writes += stats->lost_writes;
    total->pauses += stats->pauses;
    total->slow_disks += stats->slow_disks;
    total->truncations += stats->truncations;
    total->resets += stats->resets;
    total->transfers += stats->transfers;
    total->changes += stats->changes;
    total->removals += stats->removals;
    total->retired += stats->retired;
    total->compactions += stats->compactions;
    total->installed += stats->installed;
    total->stale_snapshots += stats->stale_snapshots;
    total->resets_of_logs += stats->resets_of_logs;
}

void sim_run(uint64_t seed, bool verbose, struct sim_stats *stats)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    if (sim == NULL) {
        fputs("out of memory\n", stderr);
        exit(3);
    }
    sim->seed = seed;
    sim->verbose = verbose;
    sim->random = seed * 0xD1342543DE82EF95U;
    sim_draw_parameters(sim);
    sim_make_configuration(sim);
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        sim_node_init(sim, i);
        sim_node_start(sim, i);
    }
    sim_schedule(sim, &(struct sim_event){.at_ms = 1, .type = SIM_PROPOSE});
    sim_schedule(sim, &(struct sim_event){.at_ms = 1, .type = SIM_READ});
    sim_schedule(sim, &(struct sim_event){.at_ms = sim->parameters.election_ms, .type = SIM_FAULT});
    if (sim->parameters.change_interval_ms > 0) {
        sim_schedule(sim,
                     &(struct sim_event){.at_ms = sim->parameters.election_ms, .type = SIM_CHANGE});
    }
    if (sim->parameters.compact_interval_ms > 0) {
        sim_schedule(
            sim, &(struct sim_event){.at_ms = sim->parameters.election_ms, .type = SIM_COMPACT});
    }
    sim_advance(sim, sim->parameters.fault_phase_ms);
    sim_heal(sim);
    sim_demand_progress(sim);
    sim_stats_add(stats, &sim->stats);
    sim_deinit(sim);
}
