/* What clients may rely on: locks exclude each other, also for the lock-delay; sessions live at
 * least as long as they were promised to, and no longer than they may; all servers have the same
 * state at the same index; and the histories of all keys have an order that explains them. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kv/kv.h"
#include "session/session.h"
#include "tests/sim/sim_full.h"

/* Clocks run up to 6.7 % fast or slow, and jump by less than a sixteenth of an election time-out
 * in three of them. */
static uint64_t judge_at_least(const struct sim *sim, uint64_t ms)
{
    const uint64_t slack_ms = ms / 8 + sim->parameters.election_ms / 16 + 2;

    return ms > slack_ms ? ms - slack_ms : 0;
}

/* --- state machine safety --- */

static uint64_t *judge_cell(struct sim *sim, uint64_t **cells, size_t *capacity, raft_index index)
{
    const size_t before = *capacity;

    *cells = sim_grow(*cells, capacity, (size_t)index + 1, sizeof(**cells));
    sim_require(sim, *cells != NULL, "out of memory");
    if (*capacity > before) {
        memset(*cells + before, 0, (*capacity - before) * sizeof(**cells));
    }
    return &(*cells)[index];
}

void sim_judge_result(struct sim *sim, size_t node, raft_index index,
                      const struct command_result *result)
{
    uint64_t *known = judge_cell(sim, &sim->full->results, &sim->full->result_capacity, index);
    uint64_t hash = 1 + (uint64_t)result->status * 2 + (result->ok ? 1 : 0);

    for (const char *at = result->error.text; result->status == COMMAND_REFUSED && *at != '\0';
         at++) {
        hash = hash * 31 + (uint8_t)*at;
    }
    sim_require(sim, *known == 0 || *known == hash,
                "state machine safety: server %zu gives another answer to entry %" PRIu64, node + 1,
                index);
    *known = hash;
}

void sim_judge_state(struct sim *sim, size_t node)
{
    const struct sim_server *server = &sim->full->servers[node];
    uint64_t checksum = 0;
    struct store_txn txn;

    sim_require(sim, store_read_begin(server->store, &txn) == STORE_OK, "no read");
    sim_require(sim, store_checksum(&txn, &checksum) == STORE_OK, "no checksum");
    store_read_end(&txn);
    uint64_t *known =
        judge_cell(sim, &sim->full->checksums, &sim->full->checksum_capacity, server->applied);
    checksum = checksum == 0 ? 1 : checksum;
    sim_require(sim, *known == 0 || *known == checksum,
                "state machine safety: server %zu has another state at entry %" PRIu64, node + 1,
                server->applied);
    *known = checksum;
}

/* --- locks and sessions, as the log has them --- */

static size_t judge_holder(struct sim *sim, struct store_txn *txn, size_t lock)
{
    struct kv_entry entry;
    char key[16];

    sim_lock_key(lock, key);
    const int rc = kv_get(txn, slice_from_text(key), &entry);
    sim_require(sim, rc == STORE_OK || rc == STORE_ENOTFOUND, "a key cannot be read");
    return rc == STORE_OK && !uuid_is_zero(&entry.session) ? sim_session_of(&entry.session) : 0;
}

static void judge_lock(struct sim *sim, struct store_txn *txn, size_t at,
                       const struct sim_command *command)
{
    struct sim_full *full = sim->full;
    struct sim_lock *lock = &full->locks[at];
    const size_t holder = judge_holder(sim, txn, at);

    if (holder == lock->holder) {
        return;
    }
    sim_require(sim, holder == 0 || lock->holder == 0,
                "lock %zu goes from session %zu to session %zu", at, lock->holder, holder);
    if (holder != 0) {
        sim_require(sim, command->proposed_ms >= lock->free_ms,
                    "lock %zu is granted to session %zu in lock-delay: at %" PRIu64
                    " ms, not before %" PRIu64,
                    at, holder, command->proposed_ms, lock->free_ms);
        sim_require(sim, !full->sessions[holder].ended, "a session that has ended takes a lock");
    } else {
        const struct sim_op *op = command->op == 0 ? NULL : &full->ops[command->op];
        const bool released = op != NULL && op->kind == SIM_OP_UNLOCK;
        lock->free_ms = 0;
        if (!released && full->sessions[lock->holder].lock_delay_ms > 0) {
            lock->free_ms = command->proposed_ms +
                            judge_at_least(sim, full->sessions[lock->holder].lock_delay_ms);
            sim->stats.lock_delays++;
        }
    }
    lock->holder = holder;
}

static void judge_session_end(struct sim *sim, const struct sim_command *command)
{
    struct sim_session *session = &sim->full->sessions[command->session];

    if (command->by_ttl && !session->ended) {
        const uint64_t lived_ms = command->proposed_ms - command->renewed_ms;
        sim_require(sim, lived_ms >= judge_at_least(sim, 2 * session->ttl_ms),
                    "session %zu is ended %" PRIu64 " ms after its renewal, its TTL is %" PRIu64,
                    command->session, lived_ms, session->ttl_ms);
        sim->stats.expired++;
    }
    session->ended = true;
}

/* A critical check has ended all sessions that depend on it. */
static void judge_check(struct sim *sim, struct store_txn *txn)
{
    for (size_t i = 1; i < sim->full->session_count; i++) {
        const struct sim_session *session = &sim->full->sessions[i];
        struct session found;
        if (session->checked && session->created && !session->ended) {
            sim_require(sim, session_get(txn, &session->id, &found) == STORE_ENOTFOUND,
                        "session %zu lives on with a critical check", i);
        }
    }
}

void sim_judge_applied(struct sim *sim, struct store_txn *txn, raft_index index, uint64_t value,
                       const struct command_result *result)
{
    struct sim_full *full = sim->full;
    struct sim_command *command = &full->commands[value];
    const struct sim_op *op = command->op == 0 ? NULL : &full->ops[command->op];

    sim_require(sim, !command->applied, "entry %" PRIu64 " is applied twice", index);
    command->applied = true;
    for (size_t i = 0; i < SIM_LOCKS; i++) {
        judge_lock(sim, txn, i, command);
    }
    if (op != NULL && op->kind == SIM_OP_CHECK && op->critical && result->status == COMMAND_DONE) {
        judge_check(sim, txn);
    }
    if (command->session == 0) {
        return;
    }
    if (op != NULL && op->kind == SIM_OP_CREATE) {
        full->sessions[command->session].created = result->status == COMMAND_DONE;
        sim->stats.sessions++;
    } else if (command->by_ttl || (op != NULL && op->kind == SIM_OP_DESTROY)) {
        judge_session_end(sim, command);
    }
}

/* Whoever renewed in time holds what it was granted, as far as it can know: unless its session
 * hangs on a check, nobody else may be told the same. */
void sim_judge_granted(struct sim *sim, size_t client, size_t lock)
{
    const struct sim_full *full = sim->full;

    for (size_t i = 0; i < sim->parameters.client_count; i++) {
        const struct sim_client *other = &full->clients[i];
        if (i == client || !other->holds[lock] || other->session == 0) {
            continue;
        }
        const struct sim_session *session = &full->sessions[other->session];
        sim_require(sim, session->checked || sim->now_ms > other->renewed_ms + session->ttl_ms,
                    "lock %zu is held by clients %zu and %zu", lock, i, client);
    }
}

/* --- the end --- */

static size_t judge_leader(const struct sim *sim)
{
    size_t leader = SIM_NODES_MAX;

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        const struct sim_node *server = &sim->nodes[i];
        if (server->raft != NULL && server->role == RAFT_LEADER &&
            (leader == SIM_NODES_MAX || server->term > sim->nodes[leader].term)) {
            leader = i;
        }
    }
    sim_require(sim, leader < SIM_NODES_MAX, "no leader at the end");
    return leader;
}

static void judge_sessions(struct sim *sim, size_t leader)
{
    for (size_t i = 1; i < sim->full->session_count; i++) {
        sim_require(sim, !sim_state_session(sim, leader, i),
                    "session %zu has not ended, although nobody renews it", i);
    }
}

static void judge_members(struct sim *sim, size_t leader)
{
    const struct raft_configuration *configuration = raft_configuration(sim->nodes[leader].raft);
    const raft_index applied = sim->full->servers[leader].applied;

    for (size_t i = 0; i < configuration->count; i++) {
        const size_t node = (size_t)configuration->servers[i].id - 1;
        sim_require(sim, sim->full->servers[node].applied == applied,
                    "server %zu has applied up to %" PRIu64 ", the leader up to %" PRIu64, node + 1,
                    sim->full->servers[node].applied, applied);
    }
}

/* What never came into the state had no effect: the search need not try it. */
static void judge_drop(struct sim *sim)
{
    struct sim_full *full = sim->full;

    for (size_t i = 1; i < full->op_count; i++) {
        const struct sim_op *op = &full->ops[i];
        if (op->unknown && op->linear != SIZE_MAX && !full->commands[op->value].applied) {
            sim_linear_drop(full->history, op->linear);
        }
    }
}

static void judge_history(struct sim *sim)
{
    struct sim_full *full = sim->full;

    judge_drop(sim);
    const struct sim_linear_result result = sim_linear_check(full->history, SIM_LINEAR_STATES_MAX);
    sim->stats.linear_states += result.states;
    if (result.verdict == SIM_LINEAR_NO && sim->options.verbose) {
        sim_linear_print(full->history, result.key, stdout);
    }
    sim->stats.undecided += result.verdict == SIM_LINEAR_UNDECIDED ? 1 : 0;
    sim_require(sim, result.verdict != SIM_LINEAR_NO, "key %" PRIu64 " is not linearizable",
                result.key);
}

void sim_judge_end(struct sim *sim)
{
    const size_t leader = judge_leader(sim);

    sim_require(sim, sim->full->looked == SIM_KEYS, "reads are not answered at the end");
    judge_sessions(sim, leader);
    judge_members(sim, leader);
    judge_history(sim);
}
