/* Clients: each does one thing at a time, through a server that it changes now and then. All read
 * and write keys; some also take locks with sessions, and renew these in time or lose interest. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "session/session.h"
#include "tests/sim/sim_full.h"

static const char node_name[] = "db";
static const char check_name[] = "alive";

void sim_key(size_t key, char out[16])
{
    (void)snprintf(out, 16, "key/%u", (unsigned)(key & 0xFF));
}

void sim_lock_key(size_t lock, char out[16])
{
    (void)snprintf(out, 16, "lock/%u", (unsigned)(lock & 0xFF));
}

static void client_wait(struct sim *sim, size_t client, uint64_t ms)
{
    sim_schedule(sim,
                 &(struct sim_event){.at_ms = sim->now_ms + ms, .type = SIM_CLIENT, .op = client});
}

void sim_client_init(struct sim *sim)
{
    for (size_t i = 0; i < sim->parameters.client_count; i++) {
        struct sim_client *client = &sim->full->clients[i];
        client->node = sim_between(sim, 0, sim->parameters.voter_count - 1);
        client->locker = i % 2 == 0;
        client_wait(sim, i, sim_between(sim, 1, 2 * (uint64_t)sim->parameters.election_ms));
    }
}

/* --- what is asked --- */

static void command_key(struct sim *sim, struct buffer *out, const struct sim_op *op,
                        uint64_t value)
{
    static const enum command_kv_verb verbs[] = {
        [SIM_OP_WRITE] = COMMAND_KV_SET,     [SIM_OP_CAS] = COMMAND_KV_CAS,
        [SIM_OP_DELETE] = COMMAND_KV_DELETE, [SIM_OP_DELETE_CAS] = COMMAND_KV_DELETE_CAS,
        [SIM_OP_LOCK] = COMMAND_KV_LOCK,     [SIM_OP_UNLOCK] = COMMAND_KV_UNLOCK};
    const bool lock = op->kind == SIM_OP_LOCK || op->kind == SIM_OP_UNLOCK;
    const struct uuid none = {{0}};
    char key[16];

    if (lock) {
        sim_lock_key(op->key, key);
    } else {
        sim_key(op->key, key);
    }
    command_encode_kv(out, verbs[op->kind], slice_from_text(key),
                      slice_from((const char *)&value, sizeof(value)), 0, op->expected,
                      lock ? &sim->full->sessions[op->session].id : &none);
}

static void command_create(struct sim *sim, struct buffer *out, const struct sim_op *op)
{
    const struct sim_session *made = &sim->full->sessions[op->session];
    struct buffer checks = {0};
    char ttl[32];

    (void)snprintf(ttl, sizeof(ttl), "%" PRIu64 "ms", made->ttl_ms);
    if (made->checked) {
        strings_pack_add(&checks, slice_from_text(check_name));
    }
    const struct session session = {
        .id = made->id,
        .name = SLICE_EMPTY,
        .node = slice_from_text(node_name),
        .lock_delay_ns = made->lock_delay_ms * 1000000,
        .behavior = op->session % 3 == 0 ? SESSION_DELETE : SESSION_RELEASE,
        .ttl = slice_from_text(ttl),
        .ttl_ms = made->ttl_ms,
        .node_checks = strings_from_packed(buffer_slice(&checks), made->checked ? 1 : 0),
        .service_checks = STRINGS_NULL,
        .checks = STRINGS_NULL,
    };
    command_encode_session_create(out, &session);
    buffer_deinit(&checks);
}

static void command_check(struct sim *sim, struct buffer *out, bool critical)
{
    struct buffer encoded = {0};
    struct buffer checks = {0};
    const struct catalog_check check = {.id = slice_from_text(check_name),
                                        .name = slice_from_text(check_name),
                                        .status = critical ? SLICE_LITERAL("critical")
                                                           : SLICE_LITERAL("passing"),
                                        .notes = SLICE_EMPTY,
                                        .output = SLICE_EMPTY,
                                        .node = SLICE_EMPTY,
                                        .service_id = SLICE_EMPTY,
                                        .service_name = SLICE_EMPTY,
                                        .type = SLICE_EMPTY,
                                        .definition = SLICE_EMPTY};

    catalog_check_encode(&encoded, &check);
    buffer_put_string(&checks, buffer_slice(&encoded));
    struct catalog_registration registration = {
        .node = {.id = SLICE_EMPTY,
                 .name = slice_from_text(node_name),
                 .address = SLICE_LITERAL("127.0.0.1"),
                 .datacenter = SLICE_LITERAL("dc1")},
        .has_service = true,
        .service = {.node = SLICE_EMPTY,
                    .kind = SLICE_EMPTY,
                    .id = SLICE_LITERAL("pg"),
                    .name = SLICE_LITERAL("pg"),
                    .address = SLICE_EMPTY,
                    .extra = SLICE_EMPTY,
                    .port = (uint32_t)sim_between(sim, 5432, 5434),
                    .weight_passing = 1,
                    .weight_warning = 1},
        .check_count = 1,
        .checks = buffer_slice(&checks)};
    command_encode_register(out, &registration);
    buffer_deinit(&checks);
    buffer_deinit(&encoded);
}

/* The same cas, with another write that is done if it is. */
static void command_txn(struct buffer *out, const struct sim_op *op, uint64_t value)
{
    struct buffer ops = {0};
    char key[16];

    sim_key(op->key, key);
    struct txn_op each = {.kind = TXN_KV,
                          .verb = TXN_SET,
                          .verb_text = SLICE_EMPTY,
                          .key = SLICE_LITERAL("filler/txn"),
                          .value = slice_from((const char *)&value, sizeof(value)),
                          .session = SLICE_EMPTY,
                          .session_fault = SLICE_EMPTY};
    txn_op_encode(&ops, &each);
    each.verb = TXN_CAS;
    each.key = slice_from_text(key);
    each.index = op->expected;
    txn_op_encode(&ops, &each);
    command_encode_txn(out, buffer_slice(&ops));
    buffer_deinit(&ops);
}

static void op_command(struct sim *sim, uint64_t number)
{
    const uint64_t value = sim->next_value + 1; /* The one that it will have. */
    struct sim_op *op = &sim->full->ops[number];
    struct buffer bytes = {0};

    switch (op->kind) {
    case SIM_OP_READ:
    case SIM_OP_RENEW:
        return;
    case SIM_OP_WRITE:
    case SIM_OP_CAS:
    case SIM_OP_DELETE:
    case SIM_OP_DELETE_CAS:
    case SIM_OP_LOCK:
    case SIM_OP_UNLOCK:
        if (op->txn) {
            command_txn(&bytes, op, value);
        } else {
            command_key(sim, &bytes, op, value);
        }
        break;
    case SIM_OP_CREATE:
        command_create(sim, &bytes, op);
        break;
    case SIM_OP_DESTROY:
        command_encode_session_destroy(&bytes, &sim->full->sessions[op->session].id,
                                       SLICE_LITERAL("destroyed by client"));
        break;
    case SIM_OP_CHECK:
        op->critical = sim_chance(sim, 3000);
        command_check(sim, &bytes, op->critical);
        break;
    }
    sim->full->ops[number].value = sim_command_add(sim, &bytes, number);
    sim->full->commands[value].session = op->session;
    buffer_deinit(&bytes);
}

/* --- histories --- */

static void op_call(struct sim *sim, struct sim_op *op)
{
    static const enum sim_linear_kind kinds[] = {[SIM_OP_READ] = SIM_LINEAR_READ,
                                                 [SIM_OP_WRITE] = SIM_LINEAR_WRITE,
                                                 [SIM_OP_CAS] = SIM_LINEAR_CAS_INDEX,
                                                 [SIM_OP_DELETE] = SIM_LINEAR_DELETE,
                                                 [SIM_OP_DELETE_CAS] = SIM_LINEAR_DELETE_CAS};

    op->linear = SIZE_MAX;
    if (op->kind > SIM_OP_DELETE_CAS || (op->kind == SIM_OP_READ && op->mode == SIM_STALE)) {
        return;
    }
    const struct sim_linear_call call = {.kind = kinds[op->kind],
                                         .key = op->key,
                                         .client = op->client,
                                         .value = op->value,
                                         .expected = op->expected};
    op->linear = sim_linear_call(sim->full->history, &call);
    sim_require(sim, op->linear != SIZE_MAX, "out of memory");
}

static void op_return(struct sim *sim, const struct sim_op *op, enum sim_outcome outcome,
                      const struct sim_answer *answer)
{
    if (op->linear == SIZE_MAX) {
        return;
    }
    if (outcome == SIM_OUTCOME_DONE) {
        const struct sim_linear_answer returned = {.found =
                                                       answer->found && op->kind == SIM_OP_READ,
                                                   .value = answer->value,
                                                   .index = answer->index,
                                                   .done = answer->ok};
        sim_linear_return(sim->full->history, op->linear, &returned);
    } else if (outcome == SIM_OUTCOME_FAILED || op->kind == SIM_OP_READ) {
        sim_linear_drop(sim->full->history, op->linear);
    }
}

/* Begins an operation. */
static void client_ask(struct sim *sim, size_t client, struct sim_op asked)
{
    struct sim_full *full = sim->full;
    struct sim_client *asking = &full->clients[client];

    if (full->op_count == 0) {
        full->op_count = 1; /* 0 is none. */
    }
    full->ops = sim_grow(full->ops, &full->op_capacity, full->op_count + 1, sizeof(*full->ops));
    const uint64_t number = full->op_count++;
    asked.open = true;
    asked.client = client;
    asked.node = asking->node;
    asked.life = sim->nodes[asking->node].life;
    asked.started_ms = sim->now_ms;
    full->ops[number] = asked;
    op_command(sim, number);
    op_call(sim, &full->ops[number]);
    asking->op = number;
    sim->stats.operations++;
    sim_trace(sim, asking->node, "client",
              "%zu asks %" PRIu64 ": kind %d key %zu session %zu value %" PRIu64, client, number,
              asked.kind, asked.key, asked.session, full->ops[number].value);
    sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + sim_between(sim, 0, 1),
                                          .type = SIM_REQUEST,
                                          .node = asking->node,
                                          .op = number});
    sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + sim->parameters.timeout_ms,
                                          .type = SIM_TIMEOUT,
                                          .op = number});
}

/* --- sessions and locks --- */

static void client_forget_session(struct sim_client *client)
{
    client->session = 0;
    memset(client->holds, 0, sizeof(client->holds));
}

static void client_create(struct sim *sim, size_t client)
{
    struct sim_full *full = sim->full;
    const struct sim_parameters *parameters = &sim->parameters;

    if (full->session_count == 0) {
        full->session_count = 1; /* 0 is none. */
    }
    full->sessions = sim_grow(full->sessions, &full->session_capacity, full->session_count + 1,
                              sizeof(*full->sessions));
    const uint64_t number = full->session_count++;
    struct sim_session *session = &full->sessions[number];
    *session = (struct sim_session){
        .ttl_ms = full->locking ? SIM_TTL_LAST_MS
                                : sim_between(sim, parameters->ttl_ms, 2 * parameters->ttl_ms),
        .lock_delay_ms =
            sim_chance(sim, 3000) ? 0 : sim_between(sim, 1, 6 * (uint64_t)parameters->election_ms),
        .checked = !full->locking && sim_chance(sim, 4000),
        .renewed_ms = sim->now_ms,
    };
    memset(session->id.bytes, 0x5A, sizeof(session->id.bytes));
    memcpy(session->id.bytes, &number, sizeof(number));
    client_ask(sim, client, (struct sim_op){.kind = SIM_OP_CREATE, .session = (size_t)number});
}

/* False: nothing to be done about locks just now. */
static bool client_lock(struct sim *sim, size_t client)
{
    struct sim_client *asking = &sim->full->clients[client];
    const size_t lock = sim_between(sim, 0, SIM_LOCKS - 1);

    if (asking->session == 0 && asking->refused && sim_chance(sim, 7000)) {
        client_ask(sim, client, (struct sim_op){.kind = SIM_OP_CHECK});
        return true;
    }
    if (asking->session == 0) {
        client_create(sim, client);
        return true;
    }
    if (sim_chance(sim, 200)) {
        client_forget_session(asking); /* As if its process had died: the TTL ends it. */
        return false;
    }
    if (sim->now_ms >= asking->renew_next_ms) {
        client_ask(
            sim, client,
            (struct sim_op){.kind = SIM_OP_RENEW, .mode = SIM_DEFAULT, .session = asking->session});
        return true;
    }
    if (sim_chance(sim, 500)) {
        const size_t session = asking->session;
        client_forget_session(asking);
        client_ask(sim, client, (struct sim_op){.kind = SIM_OP_DESTROY, .session = session});
        return true;
    }
    if (!sim_chance(sim, 6000)) {
        return false;
    }
    const enum sim_op_kind kind =
        asking->holds[lock] && sim_chance(sim, 5000) ? SIM_OP_UNLOCK : SIM_OP_LOCK;
    if (kind == SIM_OP_UNLOCK) {
        asking->holds[lock] = false; /* From now on, whatever comes of it. */
    }
    client_ask(sim, client, (struct sim_op){.kind = kind, .key = lock, .session = asking->session});
    return true;
}

/* --- what comes next --- */

static void client_use_key(struct sim *sim, size_t client)
{
    struct sim_client *asking = &sim->full->clients[client];
    const size_t key = sim_between(sim, 0, SIM_KEYS - 1);
    struct sim_op op = {.kind = SIM_OP_READ, .mode = SIM_DEFAULT, .key = key};
    const uint64_t choice = sim_between(sim, 0, 99);

    if (choice < 25) {
        op.kind = SIM_OP_WRITE;
    } else if (choice < 40) {
        op.kind = SIM_OP_CAS;
        op.txn = sim_chance(sim, 3000);
        op.expected = asking->seen_index[key];
    } else if (choice < 44) {
        op.kind = SIM_OP_DELETE;
    } else if (choice < 48) {
        op.kind = SIM_OP_DELETE_CAS;
        op.expected = asking->seen_index[key];
        if (op.expected == 0) {
            op.kind = SIM_OP_DELETE;
        }
    } else if (choice < 53) {
        op.kind = SIM_OP_CHECK;
    } else if (choice < 68) {
        op.mode = SIM_CONSISTENT;
    } else if (choice < 78) {
        op.mode = SIM_STALE;
    }
    client_ask(sim, client, op);
}

static void client_follow_leader(struct sim *sim, struct sim_client *client)
{
    raft_term newest = 0;

    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        const struct sim_node *server = &sim->nodes[i];
        if (server->raft != NULL && server->role == RAFT_LEADER && server->term > newest) {
            newest = server->term;
            client->node = i; /* Others may not be members any more. */
        }
    }
}

/* At the end, one of them looks at everything; and when all sessions must have ended, takes every
 * lock. */
static void client_finish(struct sim *sim, size_t client)
{
    struct sim_full *full = sim->full;
    struct sim_client *asking = &full->clients[client];

    if (client != 0) {
        return;
    }
    client_follow_leader(sim, asking);
    if (full->looked < SIM_KEYS) {
        client_ask(
            sim, client,
            (struct sim_op){.kind = SIM_OP_READ, .mode = SIM_CONSISTENT, .key = full->looked});
    } else if (!full->locking) {
        client_wait(sim, client, sim->parameters.election_ms);
    } else if (full->locked < SIM_LOCKS && asking->session != 0) {
        client_ask(
            sim, client,
            (struct sim_op){.kind = SIM_OP_LOCK, .key = full->locked, .session = asking->session});
    } else if (full->locked < SIM_LOCKS && sim_chance(sim, 5000)) {
        client_create(sim, client);
    } else if (full->locked < SIM_LOCKS) {
        client_ask(sim, client, (struct sim_op){.kind = SIM_OP_CHECK});
    }
}

void sim_client_next(struct sim *sim, size_t client)
{
    struct sim_client *asking = &sim->full->clients[client];

    if (asking->op != 0) {
        return;
    }
    if (sim->nodes[asking->node].raft == NULL || sim_chance(sim, 300)) {
        asking->node = sim_between(sim, 0, sim->parameters.node_count - 1);
    }
    if (sim->nodes[asking->node].raft == NULL) {
        client_wait(sim, client, sim_between(sim, 1, sim->parameters.think_ms));
    } else if (sim->full->quiet) {
        client_finish(sim, client);
    } else if (!asking->locker || !sim_chance(sim, 6000) || !client_lock(sim, client)) {
        client_use_key(sim, client);
    }
}

/* --- answers --- */

/* A client of one server never sees its state go back, nor its own writes vanish from it. */
static void client_saw(struct sim *sim, struct sim_client *client, const struct sim_op *op)
{
    const struct sim_server *server = &sim->full->servers[op->node];

    if (client->seen_life[op->node] == server->store_life) {
        sim_require(sim, server->applied >= client->seen_applied[op->node],
                    "client %zu sees server %zu go back from entry %" PRIu64 " to %" PRIu64,
                    op->client, op->node + 1, client->seen_applied[op->node], server->applied);
    }
    client->seen_life[op->node] = server->store_life;
    client->seen_applied[op->node] = server->applied;
}

static void client_done_session(struct sim *sim, struct sim_client *client, const struct sim_op *op,
                                const struct sim_answer *answer)
{
    switch ((int)op->kind) {
    case SIM_OP_CREATE:
        client->refused = !answer->ok;
        if (answer->ok) {
            client->session = op->session;
            client->renewed_ms = op->started_ms;
        }
        break;
    case SIM_OP_RENEW:
        if (!answer->found) {
            client_forget_session(client);
            break;
        }
        client->renewed_ms = op->started_ms;
        break;
    case SIM_OP_LOCK:
        client->holds[op->key] = answer->ok;
        if (answer->ok) {
            sim->stats.locks++;
            sim_judge_granted(sim, op->client, op->key);
        }
        if (sim->full->locking && answer->ok && op->key == sim->full->locked) {
            sim->full->locked++;
        }
        return;
    default:
        return;
    }
    const uint64_t ttl_ms = sim->full->sessions[op->session].ttl_ms;
    client->renew_next_ms =
        client->renewed_ms + ttl_ms * (sim_chance(sim, 9000) ? 1 : 3) / 3; /* Or too late. */
}

static void client_done(struct sim *sim, struct sim_client *client, const struct sim_op *op,
                        const struct sim_answer *answer)
{
    client_saw(sim, client, op);
    if (op->kind == SIM_OP_READ) {
        client->seen_index[op->key] = answer->found ? answer->index : 0;
    } else if (op->kind == SIM_OP_WRITE || (op->kind == SIM_OP_CAS && answer->ok)) {
        client->seen_index[op->key] = answer->index;
    } else if (op->kind >= SIM_OP_CREATE) {
        client_done_session(sim, client, op, answer);
    }
    if (sim->full->quiet && op->kind == SIM_OP_READ && op->mode == SIM_CONSISTENT &&
        op->client == 0 && op->key == sim->full->looked) {
        sim->full->looked++;
    }
}

void sim_client_done(struct sim *sim, uint64_t number, enum sim_outcome outcome,
                     const struct sim_answer *answer)
{
    struct sim_op *op = &sim->full->ops[number];
    struct sim_client *client = &sim->full->clients[op->client];

    if (!op->open) {
        return;
    }
    op->open = false;
    client->op = 0;
    op_return(sim, op, outcome, answer);
    sim_trace(sim, op->node, "client",
              "%zu is told about %" PRIu64 ": %s %s found %d value %" PRIu64 " index %" PRIu64,
              op->client, number,
              outcome == SIM_OUTCOME_DONE     ? "done"
              : outcome == SIM_OUTCOME_FAILED ? "failed"
                                              : "unknown",
              answer != NULL && answer->ok ? "ok" : "", answer != NULL && answer->found,
              answer == NULL ? 0 : answer->value, answer == NULL ? 0 : answer->index);
    if (outcome != SIM_OUTCOME_DONE && sim_chance(sim, 3000)) {
        client->node = sim_between(sim, 0, sim->parameters.node_count - 1);
    }
    if (outcome == SIM_OUTCOME_DONE) {
        client_done(sim, client, op, answer);
    } else if (outcome == SIM_OUTCOME_UNKNOWN) {
        sim->stats.unknown_outcomes++;
        op->unknown = op->kind != SIM_OP_READ;
        if (op->kind == SIM_OP_LOCK || op->kind == SIM_OP_UNLOCK) {
            client_forget_session(client); /* It may be done at any later time. */
        }
    }
    /* Whoever is turned away does not knock again at once. */
    const uint64_t longer_ms =
        outcome == SIM_OUTCOME_FAILED ? (uint64_t)sim->parameters.election_ms / 4 : 0;
    client_wait(sim, op->client, sim_between(sim, 1, sim->parameters.think_ms + longer_ms));
}

void sim_client_timeout(struct sim *sim, uint64_t number)
{
    sim_client_done(sim, number, SIM_OUTCOME_UNKNOWN, NULL);
}
