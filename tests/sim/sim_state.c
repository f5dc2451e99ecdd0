/* The replicated state of each server: the real state machine on a real store. The stores belong to
 * the process and are emptied for each run; their files have no names, so that nothing is left. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/kv.h"
#include "session/session.h"
#include "tests/sim/sim_full.h"

#define SIM_STORE_BYTES_MAX ((size_t)64 << 20)

/* --- the stores --- */

static struct store *stores[SIM_NODES_MAX];

static struct store *store_make(struct sim *sim)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "mark"};
    char dir[] = "/dev/shm/proconsul-sim-XXXXXX";
    char fallback[] = "/tmp/proconsul-sim-XXXXXX";
    char path[64];
    struct store *store;
    struct errmsg err;
    bool wiped;

    const char *made = mkdtemp(dir);
    if (made == NULL) {
        made = mkdtemp(fallback);
    }
    sim_require(sim, made != NULL, "no folder for the stores");
    const struct store_options options = {
        .dir = made, .bytes_max = SIM_STORE_BYTES_MAX, .boot_id = "sim"};
    const int rc = store_open(&options, &store, &wiped, &err);
    sim_require(sim, rc == STORE_OK, "no store: %s", err.text);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", made, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(made);
    return store;
}

static void state_require(struct sim *sim, size_t node, int rc, const char *what)
{
    sim_require(sim, rc == STORE_OK, "server %zu: %s: %s", node + 1, what, store_strerror(rc));
}

static void state_read_applied(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    struct store_txn txn;

    state_require(sim, node, store_read_begin(server->store, &txn), "read");
    state_require(sim, node, store_applied_get(&txn, &server->applied_term, &server->applied),
                  "read");
    store_read_end(&txn);
}

void sim_state_wipe(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    struct store_load load;

    if (stores[node] == NULL) {
        stores[node] = store_make(sim);
    }
    server->store = stores[node];
    server->store_life++;
    state_require(sim, node, store_load_begin(server->store, &load), "wipe");
    state_require(sim, node, store_load_commit(&load, 0, 0), "wipe");
    server->applied = 0;
    server->applied_term = 0;
}

void sim_state_replaced(struct sim *sim, size_t node)
{
    state_read_applied(sim, node);
    sim_judge_state(sim, node);
    sim_server_applied(sim, node);
}

/* As server/replica/replica_open.c does it. */
void sim_state_open(struct sim *sim, size_t node, const struct raft_state *state)
{
    struct sim_server *server = &sim->full->servers[node];
    const raft_index newest = sim->nodes[node].disk.snapshot_index;

    state_read_applied(sim, node);
    if (server->timers == NULL) {
        sim_require(sim, session_timers_new(&server->timers) == STORE_OK, "out of memory");
    }
    session_timers_clear(server->timers);
    server->timers_term = 0;
    server->led_term = 0;
    server->start_pending = false;
    server->seen_ms = 0;
    server->apply_scheduled = false;
    if (newest <= server->applied ||
        (server->applied > 0 && server->applied + 1 >= state->first_index)) {
        return;
    }
    sim_snapshot_load(sim, node, newest);
    sim->stats.rebuilt++;
}

/* --- applying --- */

struct observed {
    struct sim *sim;
    size_t node;
};

static void on_created(void *host, const struct session *session)
{
    const struct observed *observed = host;

    sim_session_created(observed->sim, observed->node, session);
}

static void on_ended(void *host, const struct uuid *id, struct slice cause)
{
    const struct observed *observed = host;

    (void)cause;
    sim_session_ended(observed->sim, observed->node, id);
}

static void state_apply_command(struct sim *sim, size_t node, struct store_txn *txn,
                                const struct raft_entry *entry)
{
    struct sim_full *full = sim->full;
    struct observed observed = {sim, node};
    const struct command_observer observer = {
        .host = &observed, .session_created = on_created, .session_ended = on_ended};
    struct command_result result;
    uint64_t value;

    sim_require(sim, entry->size > sizeof(value), "server %zu: a command of no bytes", node + 1);
    memcpy(&value, entry->data, sizeof(value));
    const struct slice bytes =
        slice_from((const char *)entry->data + sizeof(value), entry->size - sizeof(value));
    state_require(sim, node,
                  command_apply(txn, entry->term, entry->index, bytes, &observer, &result),
                  "apply");
    sim_judge_result(sim, node, entry->index, &result);
    if (entry->index > full->judged) {
        sim_judge_applied(sim, txn, entry->index, value, &result);
    }
    struct sim_command *command = &full->commands[value];
    struct sim_op *op = command->op == 0 ? NULL : &full->ops[command->op];
    if (op != NULL && op->node == node && op->life == sim->nodes[node].life) {
        /* Answered when the transaction is committed. */
        op->wait_index = entry->index;
        op->found = result.status == COMMAND_DONE && result.ok;
    }
}

/* One transaction; its end is where others end, too, now and then, so that they can be compared. */
static void state_apply_batch(struct sim *sim, size_t node, raft_index last)
{
    struct sim_server *server = &sim->full->servers[node];
    struct store_txn txn;

    state_require(sim, node, store_write_begin(server->store, &txn), "apply");
    for (raft_index index = server->applied + 1; index <= last; index++) {
        sim_wal_verify(sim, node, index);
        const struct raft_entry entry = sim_wal_entry(sim, node, index);
        sim_require(sim, entry.term == sim->committed[index - 1].entry.term,
                    "server %zu applies another entry %" PRIu64, node + 1, index);
        if (entry.type == RAFT_ENTRY_COMMAND) {
            state_apply_command(sim, node, &txn, &entry);
        }
        server->applied_term = entry.term;
        if (index > sim->full->judged) {
            sim->full->judged = index;
        }
    }
    state_require(sim, node, store_applied_set(&txn, server->applied_term, last), "apply");
    state_require(sim, node, store_write_commit(&txn), "commit");
    store_changes_free(&txn);
    sim->stats.applied += last - server->applied;
    server->applied = last;
    sim_judge_state(sim, node);
}

void sim_state_apply(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    const raft_index allowed = sim->nodes[node].applied_index;

    server->apply_scheduled = false;
    if (server->applied >= allowed) {
        return;
    }
    while (server->applied < allowed) {
        raft_index last = (server->applied / SIM_APPLY_STEP + 1) * SIM_APPLY_STEP;
        last = last < allowed ? last : allowed;
        state_apply_batch(sim, node, last);
    }
    sim_trace(sim, node, "applied", "up to %" PRIu64, server->applied);
    sim_server_applied(sim, node);
    sim_session_turn(sim, node);
}

void sim_state_apply_soon(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];

    if (server->applied >= sim->nodes[node].applied_index || server->apply_scheduled) {
        return;
    }
    const uint64_t lag_ms = sim_between(sim, 0, sim->parameters.apply_ms);
    server->apply_scheduled = true;
    sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + lag_ms,
                                          .type = SIM_APPLY,
                                          .node = node,
                                          .life = sim->nodes[node].life});
}

/* --- reading --- */

bool sim_state_get(struct sim *sim, size_t node, const char *key, uint64_t *value,
                   uint64_t *modify_index)
{
    struct kv_entry entry;
    struct store_txn txn;

    state_require(sim, node, store_read_begin(sim->full->servers[node].store, &txn), "read");
    const int rc = kv_get(&txn, slice_from_text(key), &entry);
    const bool found = rc == STORE_OK;
    sim_require(sim, found || rc == STORE_ENOTFOUND, "server %zu: read: %s", node + 1,
                store_strerror(rc));
    *value = 0;
    *modify_index = 0;
    if (found) {
        sim_require(sim, entry.value.size == sizeof(*value), "a value that nobody wrote");
        memcpy(value, entry.value.data, sizeof(*value));
        *modify_index = entry.modify_index;
    }
    store_read_end(&txn);
    return found;
}

bool sim_state_session(struct sim *sim, size_t node, size_t session)
{
    struct session found;
    struct store_txn txn;

    state_require(sim, node, store_read_begin(sim->full->servers[node].store, &txn), "read");
    const int rc = session_get(&txn, &sim->full->sessions[session].id, &found);
    sim_require(sim, rc == STORE_OK || rc == STORE_ENOTFOUND, "server %zu: read: %s", node + 1,
                store_strerror(rc));
    store_read_end(&txn);
    return rc == STORE_OK;
}
