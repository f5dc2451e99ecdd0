/* One run: what is dispatched to whom, core clients, and progress at the end. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_full.h"

/* --- clients --- */

void sim_propose_at(struct sim *sim, size_t node)
{
    uint64_t values[SIM_BATCH_MAX];
    struct raft_entry entries[SIM_BATCH_MAX];
    const size_t count = sim_between(sim, 1, SIM_BATCH_MAX);

    if (sim->full != NULL) {
        sim_filler_propose(sim, node);
        return;
    }
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

void sim_read_at(struct sim *sim, size_t node)
{
    const bool quorum = sim_chance(sim, 4000);

    /* Some are kept for the end, which demands that reads are served. */
    const uint64_t reads_max = sim->healed ? SIM_READS_MAX : SIM_READS_MAX * 7 / 8;
    if (!sim_node_awake(sim, node) || sim->read_count >= reads_max) {
        return;
    }
    const uint64_t token = sim->read_count++;
    sim_trace(sim, node, "read?", "token %" PRIu64 "%s", token, quorum ? " quorum" : "");
    sim->reads[token] =
        (struct sim_read){.open = true, .start_ms = sim->now_ms, .committed = sim->committed_count};
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

/* What waits in the socket, or in the completion queue, of a server that is stopped. */
static bool sim_waits(const struct sim *sim, const struct sim_event *event)
{
    const struct sim_node *server = &sim->nodes[event->node];

    switch (event->type) {
    case SIM_MESSAGE:
    case SIM_DISK:
    case SIM_LOST:
    case SIM_FETCHED:
    case SIM_REQUEST:
    case SIM_REMOTE_WRITE:
    case SIM_REMOTE_READ:
    case SIM_REMOTE_ANSWER:
    case SIM_APPLY:
    case SIM_SNAPSHOT:
        return server->raft != NULL && server->paused_until_ms > sim->now_ms;
    default:
        return false;
    }
}

static void sim_dispatch_full(struct sim *sim, const struct sim_event *event)
{
    switch ((int)event->type) {
    case SIM_CLIENT:
        sim_client_next(sim, (size_t)event->op);
        break;
    case SIM_REQUEST:
        sim_server_request(sim, event->node, event->op);
        break;
    case SIM_TIMEOUT:
        sim_client_timeout(sim, event->op);
        break;
    case SIM_REMOTE_WRITE:
        sim_server_remote_write(sim, event);
        break;
    case SIM_REMOTE_READ:
        sim_server_remote_read(sim, event);
        break;
    case SIM_REMOTE_ANSWER:
        sim_server_remote_answer(sim, event);
        break;
    case SIM_SNAPSHOT:
        if (sim->nodes[event->node].raft != NULL && sim->nodes[event->node].life == event->life) {
            sim_node_snapshot_done(sim, event->node, event->index);
        }
        break;
    case SIM_APPLY:
        if (sim->nodes[event->node].raft != NULL && sim->nodes[event->node].life == event->life) {
            sim_state_apply(sim, event->node);
        }
        break;
    default:
        sim_require(sim, false, "an event of an unknown kind");
    }
}

static void sim_dispatch(struct sim *sim, struct sim_event *event)
{
    const struct sim_node *server = &sim->nodes[event->node];

    if (sim_waits(sim, event)) {
        event->at_ms = server->paused_until_ms;
        sim_schedule(sim, event);
        return;
    }
    switch ((int)event->type) {
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
    case SIM_DEPOSE:
    case SIM_REJOIN:
    case SIM_ELECTED:
    case SIM_FALL:
        sim_duel_dispatch(sim, event);
        break;
    default:
        sim_dispatch_full(sim, event);
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

void sim_advance(struct sim *sim, uint64_t until_ms)
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
            struct sim_event event = sim_queue_pop(sim);
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
    sim_network_heal(sim);
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        sim->nodes[i].paused_until_ms = 0;
        sim->nodes[i].retired = sim->nodes[i].retired && !sim_needed(sim, i);
        if (sim->full != NULL && !sim->nodes[i].retired) {
            sim_disk_unflip(sim, i, true); /* Somebody restores the file. */
            sim->full->files[i].sync_fails = false;
            sim->full->snapshot_files[i].sync_fails = false;
        }
        sim_node_start(sim, i);
        sim_node_disk_hurry(sim, i);
    }
}

size_t sim_leader_now(const struct sim *sim)
{
    size_t leader = SIM_NODES_MAX;

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        const struct sim_node *server = &sim->nodes[i];
        if (server->raft != NULL && server->role == RAFT_LEADER &&
            (leader == SIM_NODES_MAX || server->term > sim->nodes[leader].term)) {
            leader = i;
        }
    }
    return leader;
}

bool sim_progressed(const struct sim *sim, uint64_t since, size_t but)
{
    const size_t leader = sim_leader_now(sim);

    if (leader == SIM_NODES_MAX) {
        return false;
    }
    const struct raft_configuration *configuration = raft_configuration(sim->nodes[leader].raft);
    for (size_t s = 0; s < configuration->count; s++) {
        const size_t i = (size_t)configuration->servers[s].id - 1;
        const raft_index applied = sim->nodes[i].applied_index;
        bool fresh = i == but;
        for (raft_index index = applied; index > 0 && !fresh; index--) {
            fresh = sim->committed[index - 1].entry.type == RAFT_ENTRY_COMMAND &&
                    sim->committed[index - 1].entry.value >= since;
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

/* When the last message arrives that is on its way and tells of a term that nobody is in: a server
 * was in it, told of it by refusing a pre-vote, and crashed before it was durable. Whoever leads
 * then has to give way once more. */
static uint64_t sim_ghosts_until_ms(const struct sim *sim)
{
    const raft_term highest = sim_highest_term(sim);
    uint64_t until_ms = 0;

    for (size_t i = 0; i < sim->heap_count; i++) {
        const struct sim_event *event = &sim->heap[i];
        if (event->type == SIM_MESSAGE && event->message->message.term > highest &&
            event->at_ms > until_ms) {
            until_ms = event->at_ms;
        }
    }
    return until_ms;
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
    const uint64_t ghosts_ms = sim_ghosts_until_ms(sim);

    while (!sim_progressed(sim, sim->healed_value, SIM_NODES_MAX)) {
        sim_require(sim, sim->now_ms < bound_ms, "no progress although all faults have stopped");
        sim_advance(sim, sim->now_ms + election_ms / 2);
    }
    if (ghosts_ms > sim->now_ms) {
        sim_advance(sim, ghosts_ms + 5 * election_ms);
    }
    const raft_term term = sim_highest_term(sim);
    sim_advance(sim, sim->now_ms + 5 * election_ms);
    sim_require(sim, sim_highest_term(sim) == term, "a healthy leader is deposed");
}

/* Clients stop; whatever they left behind comes to its end. */
static void sim_demand_end(struct sim *sim)
{
    const struct sim_parameters *parameters = &sim->parameters;

    sim->full->quiet = true;
    for (size_t i = 0; i < parameters->client_count; i++) {
        sim_schedule(sim,
                     &(struct sim_event){.at_ms = sim->now_ms + 1, .type = SIM_CLIENT, .op = i});
    }
    /* Sessions live for twice a TTL, which is at most twice the shortest. */
    const uint64_t ttl_ms = 2 * 2 * parameters->ttl_ms;
    sim_advance(sim, sim->now_ms + 2 * parameters->timeout_ms + ttl_ms + ttl_ms / 8 +
                         10 * (uint64_t)parameters->election_ms);
    sim_judge_end(sim);
    for (size_t i = 0; i < parameters->client_count; i++) {
        sim->full->clients[i].session = 0; /* Of those that have ended. */
    }
    sim->full->locking = true;
    sim_advance(sim, sim->now_ms + 20 * (uint64_t)parameters->election_ms);
    sim_require(sim, sim->full->locked == SIM_LOCKS, "a lock that nobody holds is not granted");
}

static void sim_deinit(struct sim *sim)
{
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        sim_node_deinit(sim, i);
    }
    while (sim->heap_count > 0) {
        sim_message_free(sim_queue_pop(sim).message);
    }
    if (sim->full != NULL) {
        sim_full_free(sim);
    }
    free(sim->heap);
    free(sim->committed);
    free(sim->configurations);
    free(sim->leaders);
    free(sim->seen);
    free(sim);
}

/* All fields are counts. */
void sim_stats_add(struct sim_stats *total, const struct sim_stats *more)
{
    uint64_t *to = (uint64_t *)(void *)total;
    const uint64_t *from = (const uint64_t *)(const void *)more;

    for (size_t i = 0; i < sizeof(*total) / sizeof(*to); i++) {
        to[i] += from[i];
    }
}

static struct sim *sim_new(const struct sim_options *options)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    if (sim == NULL) {
        fputs("out of memory\n", stderr);
        exit(3);
    }
    sim->options = *options;
    sim->random = options->seed * 0xD1342543DE82EF95U;
    sim->fault_count = SIM_CLASS_COUNT;
    sim_parameters_draw(sim);
    sim_configuration_make(sim);
    if (options->full) {
        sim_full_new(sim);
    }
    return sim;
}

static void sim_begin(struct sim *sim)
{
    const uint64_t election_ms = sim->parameters.election_ms;

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        sim_node_init(sim, i);
        sim_node_start(sim, i);
    }
    sim_schedule(sim, &(struct sim_event){.at_ms = 1, .type = SIM_PROPOSE});
    sim_schedule(sim, &(struct sim_event){.at_ms = 1, .type = SIM_READ});
    sim_schedule(sim, &(struct sim_event){.at_ms = election_ms, .type = SIM_FAULT});
    if (sim->parameters.change_interval_ms > 0) {
        sim_schedule(sim, &(struct sim_event){.at_ms = election_ms, .type = SIM_CHANGE});
    }
    if (sim->parameters.compact_interval_ms > 0) {
        sim_schedule(sim, &(struct sim_event){.at_ms = election_ms, .type = SIM_COMPACT});
    }
    if (sim->full != NULL) {
        sim_client_init(sim);
    }
}

size_t sim_run(const struct sim_options *options, struct sim_stats *stats)
{
    struct sim *sim = sim_new(options);

    sim_begin(sim);
    sim_advance(sim, sim->parameters.fault_phase_ms);
    sim_heal(sim);
    sim_demand_progress(sim);
    if (sim->full != NULL && sim_chance(sim, 2000)) {
        sim_space_demand(sim);
        sim->healed_value = sim->next_value + 1;
        sim_demand_progress(sim);
    }
    if (sim->full != NULL) {
        sim_demand_end(sim);
    }
    const size_t faults = sim->fault_count;
    sim->stats.sim_ms = sim->now_ms;
    sim_stats_add(stats, &sim->stats);
    sim_deinit(sim);
    return faults;
}
