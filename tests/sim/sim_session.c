/* What a leader does for sessions, as server/replica/replica_session.c does it: the term's first
 * command, the timers of all sessions from when the state holds what earlier terms committed, the
 * end of those whose timer is over, and renewals. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "session/session.h"
#include "tests/sim/sim_full.h"

size_t sim_session_of(const struct uuid *id)
{
    uint64_t session;

    memcpy(&session, id->bytes, sizeof(session));
    return (size_t)session;
}

static uint64_t session_now(const struct sim *sim, size_t node)
{
    return sim_clock_shows(&sim->nodes[node].clock, sim->now_ms);
}

static bool session_timers_run(const struct sim *sim, size_t node)
{
    return sim->nodes[node].role == RAFT_LEADER &&
           sim->full->servers[node].timers_term == sim->nodes[node].term;
}

static void session_reset(struct sim *sim, size_t node, const struct uuid *id, uint64_t ttl_ms)
{
    sim_require(sim,
                session_timers_reset(sim->full->servers[node].timers, id, ttl_ms,
                                     session_now(sim, node)) == STORE_OK,
                "out of memory");
}

void sim_session_created(struct sim *sim, size_t node, const struct session *session)
{
    if (session_timers_run(sim, node) && session->ttl_ms > 0) {
        session_reset(sim, node, &session->id, session->ttl_ms);
    }
}

void sim_session_ended(struct sim *sim, size_t node, const struct uuid *id)
{
    session_timers_remove(sim->full->servers[node].timers, id);
}

static void session_start_timers(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    struct session_scan scan;
    struct session session;
    struct store_txn txn;

    session_timers_clear(server->timers);
    sim_require(sim, store_read_begin(server->store, &txn) == STORE_OK, "no read");
    sim_require(sim, session_scan_begin(&scan, &txn) == STORE_OK, "no scan");
    while (session_scan_next(&scan, &session) == STORE_OK) {
        if (session.ttl_ms > 0) {
            session_reset(sim, node, &session.id, session.ttl_ms);
        }
    }
    session_scan_end(&scan);
    store_read_end(&txn);
    server->timers_term = sim->nodes[node].term;
}

static bool session_propose_start(struct sim *sim, size_t node)
{
    struct buffer bytes = {0};

    command_encode_leader_start(&bytes);
    const uint64_t value = sim_command_add(sim, &bytes, 0);
    buffer_deinit(&bytes);
    return sim_server_propose(sim, node, value);
}

static void session_expire(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    const uint64_t now_ms = session_now(sim, node);
    struct uuid id;

    while (session_timers_run(sim, node) && session_timers_expire(server->timers, now_ms, &id)) {
        const size_t session = sim_session_of(&id);
        struct buffer bytes = {0};
        command_encode_session_destroy(&bytes, &id, SLICE_LITERAL("ttl expired"));
        const uint64_t value = sim_command_add(sim, &bytes, 0);
        buffer_deinit(&bytes);
        sim->full->commands[value].session = session;
        sim->full->commands[value].by_ttl = true;
        sim->full->commands[value].renewed_ms = sim->full->sessions[session].renewed_ms;
        if (!sim_server_propose(sim, node, value) &&
            session_timers_retry(server->timers, &id, now_ms + sim->parameters.election_ms) !=
                STORE_OK) {
            sim_require(sim, false, "out of memory");
        }
    }
}

static void session_lead(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    const uint64_t now_ms = session_now(sim, node);

    if (server->led_term != sim->nodes[node].term) {
        server->led_term = sim->nodes[node].term;
        server->start_pending = true;
    }
    /* After such a gap the process must have been stopped, and renewals wait in its sockets. */
    if (server->seen_ms != 0 && now_ms - server->seen_ms > sim->parameters.election_ms) {
        session_timers_extend(server->timers, now_ms - server->seen_ms);
    }
    server->seen_ms = now_ms;
    if (server->start_pending) {
        server->start_pending = !session_propose_start(sim, node);
    }
    if (sim->nodes[node].role == RAFT_LEADER && server->timers_term != sim->nodes[node].term &&
        raft_term_at(sim->nodes[node].raft, server->applied) == sim->nodes[node].term) {
        session_start_timers(sim, node);
    }
    session_expire(sim, node);
}

void sim_session_turn(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];

    if (server->in_turn || sim->nodes[node].raft == NULL) {
        return;
    }
    server->in_turn = true;
    if (sim->nodes[node].role == RAFT_LEADER) {
        session_lead(sim, node);
    }
    if (sim->nodes[node].role != RAFT_LEADER) {
        session_timers_clear(server->timers);
        server->timers_term = 0;
        server->led_term = 0;
        server->start_pending = false;
        server->seen_ms = 0;
    }
    server->in_turn = false;
    /* Timers may have changed, whatever was done. And the clock is looked at more often than what
     * counts as a pause: a leader that is alone has no heartbeats. */
    uint64_t due_ms = UINT64_MAX;
    if (session_timers_run(sim, node)) {
        const uint64_t look_ms = session_now(sim, node) + sim->parameters.election_ms / 2;
        due_ms = session_timers_next_ms(server->timers);
        due_ms = due_ms < look_ms ? due_ms : look_ms;
    }
    struct sim_node *host = &sim->nodes[node];
    host->wake_ms =
        sim_clock_moment(&host->clock, host->deadline_ms < due_ms ? host->deadline_ms : due_ms);
}

bool sim_session_is_ending(struct sim *sim, size_t node, uint64_t op_number)
{
    const struct sim_session *session = &sim->full->sessions[sim->full->ops[op_number].session];

    return session_timers_run(sim, node) &&
           sim_state_session(sim, node, sim->full->ops[op_number].session) && session->ttl_ms > 0 &&
           !session_timers_has(sim->full->servers[node].timers, &session->id);
}

bool sim_session_touch(struct sim *sim, size_t node, uint64_t op_number)
{
    struct sim_op *op = &sim->full->ops[op_number];
    struct sim_session *session = &sim->full->sessions[op->session];

    if (!sim_state_session(sim, node, op->session)) {
        return false;
    }
    if (session_timers_run(sim, node)) {
        session_reset(sim, node, &session->id, session->ttl_ms);
    }
    if (op->arrived_ms > session->renewed_ms) {
        session->renewed_ms = op->arrived_ms;
    }
    return true;
}
