/* What a server does with requests, as server/replica does it: a write goes into the leader's log
 * and is answered when this server applies it; a read waits until this server has applied what the
 * leader had committed when it was asked. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_full.h"

/* --- commands --- */

uint64_t sim_command_add(struct sim *sim, const struct buffer *bytes, uint64_t op)
{
    struct sim_full *full = sim->full;
    const uint64_t value = ++sim->next_value;

    sim_require(sim, !bytes->failed, "out of memory");
    sim_require(sim, command_valid(buffer_slice(bytes)), "a command that is none");
    full->commands = sim_grow(full->commands, &full->command_capacity, (size_t)value + 1,
                              sizeof(*full->commands));
    while (full->command_count <= value) {
        full->commands[full->command_count++] = (struct sim_command){0};
    }
    struct sim_command *command = &full->commands[value];
    command->size = sizeof(value) + bytes->size;
    command->bytes = malloc(command->size);
    sim_require(sim, command->bytes != NULL, "out of memory");
    memcpy(command->bytes, &value, sizeof(value));
    memcpy(command->bytes + sizeof(value), bytes->data, bytes->size);
    command->op = op;
    return value;
}

bool sim_server_propose(struct sim *sim, size_t node, uint64_t value)
{
    const struct sim_node *server = &sim->nodes[node];
    struct sim_command *command = &sim->full->commands[value];
    const size_t before = server->log.count;

    (void)command_stamp(command->bytes + sizeof(value), command->size - sizeof(value),
                        sim_clock_shows(&server->clock, sim->now_ms));
    command->proposed_ms = sim->now_ms;
    const struct raft_entry entry = {
        .type = RAFT_ENTRY_COMMAND, .data = command->bytes, .size = command->size};
    sim_trace(sim, node, "propose", "value %" PRIu64, value);
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE, .entries = &entry, .entry_count = 1};
    sim_node_step(sim, node, &event);
    for (size_t i = before; i < server->log.count; i++) {
        if (server->log.entries[i].value == value &&
            server->log.entries[i].type == RAFT_ENTRY_COMMAND) {
            return true;
        }
    }
    return false;
}

/* --- between servers: like messages, but never twice --- */

static void server_send(struct sim *sim, size_t from, raft_id to, struct sim_event *event)
{
    const struct sim_parameters *parameters = &sim->parameters;

    event->at_ms = sim->now_ms + sim_between(sim, 1, parameters->latency_ms);
    event->node = (size_t)to - 1;
    event->peer = sim->nodes[from].id;
    if (!sim->healed) {
        if (sim->blocked[from][to - 1] ||
            (sim_chance(sim, parameters->drop) && !sim_fault_class_left_out(sim, SIM_CLASS_DROP))) {
            return;
        }
        if (sim_chance(sim, parameters->delay) && !sim_fault_class_left_out(sim, SIM_CLASS_DELAY)) {
            event->at_ms += sim_between(sim, 1, parameters->delay_ms);
        }
    }
    sim_schedule(sim, event);
}

static bool server_hears(const struct sim *sim, const struct sim_event *event)
{
    return sim->nodes[event->node].raft != NULL && !sim->blocked[event->peer - 1][event->node];
}

/* --- answers --- */

static void server_answer_read(struct sim *sim, uint64_t op_number)
{
    struct sim_op *op = &sim->full->ops[op_number];
    struct sim_answer answer = {.ok = true};
    char key[16];

    sim_key(op->key, key);
    answer.found = sim_state_get(sim, op->node, key, &answer.value, &answer.index);
    sim_client_done(sim, op_number, SIM_OUTCOME_DONE, &answer);
}

static void server_answer(struct sim *sim, uint64_t op_number)
{
    const struct sim_op *op = &sim->full->ops[op_number];

    if (op->kind == SIM_OP_READ) {
        server_answer_read(sim, op_number);
        return;
    }
    const struct sim_answer answer = {.ok = op->found, .found = op->found, .index = op->wait_index};
    sim_client_done(sim, op_number, SIM_OUTCOME_DONE, &answer);
}

/* A renewal on the leader, whose state is up to date now. */
static void server_touch(struct sim *sim, size_t node, uint64_t op_number)
{
    struct sim_op *op = &sim->full->ops[op_number];
    struct sim_event event = {
        .type = SIM_REMOTE_ANSWER, .op = op_number, .index = sim->full->servers[node].applied};

    op->touch_node = 0;
    if (sim->nodes[node].role != RAFT_LEADER || sim_session_is_ending(sim, node, op_number)) {
        event.index = 0;
    } else {
        event.found = sim_session_touch(sim, node, op_number);
    }
    if (op->node != node) {
        server_send(sim, node, sim->nodes[op->node].id, &event);
    } else {
        event.node = node;
        sim_server_remote_answer(sim, &event);
    }
}

void sim_server_applied(struct sim *sim, size_t node)
{
    struct sim_full *full = sim->full;
    const raft_index applied = full->servers[node].applied;

    for (size_t i = 0; i < sim->parameters.client_count; i++) {
        const uint64_t number = full->clients[i].op;
        const struct sim_op *op = &full->ops[number];
        if (number == 0 || !op->open) {
            continue;
        }
        if (op->touch_node == node + 1 && op->touch_index <= applied) {
            server_touch(sim, node, number);
        }
        if (op->open && op->node == node && op->wait_index != 0 && op->wait_index <= applied) {
            server_answer(sim, number);
        }
    }
}

void sim_server_crashed(struct sim *sim, size_t node)
{
    struct sim_full *full = sim->full;

    for (size_t i = 0; i < sim->parameters.client_count; i++) {
        const uint64_t number = full->clients[i].op;
        struct sim_op *op = &full->ops[number];
        if (number == 0 || !op->open) {
            continue;
        }
        if (op->touch_node == node + 1) {
            op->touch_node = 0;
        }
        if (op->node == node) {
            sim_client_done(sim, number, SIM_OUTCOME_UNKNOWN, NULL);
        }
    }
}

/* --- reads --- */

static void server_ask_core(struct sim *sim, size_t node, uint64_t op_number)
{
    const bool quorum = sim->full->ops[op_number].mode == SIM_CONSISTENT;

    if (sim->read_count == SIM_READS_MAX) {
        sim_client_done(sim, op_number, SIM_OUTCOME_FAILED, NULL);
        return;
    }
    const uint64_t token = sim->read_count++;
    sim->reads[token] = (struct sim_read){
        .open = true, .start_ms = sim->now_ms, .committed = sim->committed_count, .op = op_number};
    struct raft_event event = {.type = RAFT_EVENT_READ, .read_token = token, .read_quorum = quorum};
    sim_node_step(sim, node, &event);
}

/* On the leader: at once within the lease, if the store has all that was committed. */
static bool server_fresh(const struct sim *sim, size_t node)
{
    const struct sim_node *server = &sim->nodes[node];
    const raft_index applied = sim->full->servers[node].applied;

    return server->role == RAFT_LEADER &&
           raft_lease_valid(server->raft, sim_clock_shows(&server->clock, sim->now_ms)) &&
           raft_term_at(server->raft, applied) == server->term &&
           applied == raft_commit_index(server->raft);
}

static void server_read_here(struct sim *sim, size_t node, uint64_t op_number)
{
    struct sim_op *op = &sim->full->ops[op_number];

    op->arrived_ms = sim->now_ms;
    if (op->mode == SIM_DEFAULT && server_fresh(sim, node)) {
        if (op->kind == SIM_OP_RENEW) {
            server_touch(sim, node, op_number);
        } else {
            server_answer_read(sim, op_number);
        }
        return;
    }
    server_ask_core(sim, node, op_number);
}

void sim_server_read(struct sim *sim, size_t node, const struct sim_read *asked,
                     const struct raft_read *read)
{
    struct sim_op *op = &sim->full->ops[asked->op];
    struct sim_event event = {.type = SIM_REMOTE_ANSWER, .op = asked->op, .index = read->index};

    if (read->status != RAFT_OK) {
        event.index = 0;
    } else if (op->kind == SIM_OP_RENEW) {
        op->touch_node = node + 1;
        op->touch_index = read->index;
        if (sim->full->servers[node].applied >= op->touch_index) {
            server_touch(sim, node, asked->op);
        }
        return;
    }
    if (op->node != node) {
        server_send(sim, node, sim->nodes[op->node].id, &event);
        return;
    }
    event.node = node;
    sim_server_remote_answer(sim, &event);
}

void sim_server_remote_read(struct sim *sim, const struct sim_event *event)
{
    struct sim_event answer = {.type = SIM_REMOTE_ANSWER, .op = event->op};

    if (!server_hears(sim, event)) {
        return;
    }
    if (sim->nodes[event->node].role != RAFT_LEADER) {
        server_send(sim, event->node, event->peer, &answer);
        return;
    }
    struct sim_op *op = &sim->full->ops[event->op];
    op->arrived_ms = sim->now_ms;
    if (op->kind == SIM_OP_RENEW && server_fresh(sim, event->node)) {
        server_touch(sim, event->node, event->op);
    } else {
        server_ask_core(sim, event->node, event->op);
    }
}

void sim_server_remote_answer(struct sim *sim, const struct sim_event *event)
{
    struct sim_op *op = &sim->full->ops[event->op];

    if (!op->open || op->life != sim->nodes[event->node].life ||
        (event->peer != 0 && !server_hears(sim, event))) {
        return;
    }
    if (event->index == 0) {
        sim_client_done(sim, event->op, SIM_OUTCOME_FAILED, NULL);
        return;
    }
    op->wait_index = event->index;
    op->found = event->found;
    if (sim->full->servers[event->node].applied >= op->wait_index) {
        server_answer(sim, event->op);
    }
}

/* --- requests --- */

static bool server_leads(const struct sim *sim, size_t node)
{
    const struct sim_server *server = &sim->full->servers[node];

    return sim->nodes[node].role == RAFT_LEADER && !server->start_pending && !server->wal_full;
}

void sim_server_remote_write(struct sim *sim, const struct sim_event *event)
{
    const struct sim_op *op = &sim->full->ops[event->op];

    if (!server_hears(sim, event)) {
        return;
    }
    if (!server_leads(sim, event->node) || !sim_server_propose(sim, event->node, op->value)) {
        sim_client_done(sim, event->op, SIM_OUTCOME_FAILED, NULL);
    }
}

static void server_write(struct sim *sim, size_t node, uint64_t op_number)
{
    const struct sim_op *op = &sim->full->ops[op_number];

    if (!server_leads(sim, node) || !sim_server_propose(sim, node, op->value)) {
        sim_client_done(sim, op_number, SIM_OUTCOME_FAILED, NULL);
    }
}

void sim_server_request(struct sim *sim, size_t node, uint64_t op_number)
{
    const struct sim_op *op = &sim->full->ops[op_number];
    const struct sim_node *server = &sim->nodes[node];
    const bool read = op->kind == SIM_OP_READ || op->kind == SIM_OP_RENEW;

    if (server->raft == NULL || server->life != op->life) {
        sim_client_done(sim, op_number, SIM_OUTCOME_FAILED, NULL);
    } else if (op->kind == SIM_OP_READ && op->mode == SIM_STALE) {
        server_answer_read(sim, op_number);
    } else if (server->role == RAFT_LEADER) {
        if (read) {
            server_read_here(sim, node, op_number);
        } else {
            server_write(sim, node, op_number);
        }
    } else if (server->known_leader == 0 || server->known_leader == server->id) {
        sim_client_done(sim, op_number, SIM_OUTCOME_FAILED, NULL);
    } else {
        struct sim_event event = {.type = read ? SIM_REMOTE_READ : SIM_REMOTE_WRITE,
                                  .op = op_number};
        server_send(sim, node, server->known_leader, &event);
    }
}
