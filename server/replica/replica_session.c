/* Sessions' time: the leader's TTL timers, renewals wherever they arrive, and what is forgotten
 * with time (tombstones, lock-delays). */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

#define SESSION_LOG "agent.server.session"

/* --- what applying tells --- */

static void session_on_created(void *host, const struct session *session)
{
    struct replica *replica = host;

    if (replica->timers_term == replica->term && replica->role == RAFT_LEADER &&
        session->ttl_ms > 0 &&
        session_timers_reset(replica->timers, &session->id, session->ttl_ms,
                             replica_now_ms(replica)) != STORE_OK) {
        replica_fatal("out of memory");
    }
}

static void session_on_ended(void *host, const struct uuid *id, struct slice cause)
{
    struct replica *replica = host;
    char text[UUID_TEXT_BYTES + 1];

    session_timers_remove(replica->timers, id);
    uuid_format(id, text);
    log_write(LOG_INFO, SESSION_LOG, "session ended: id=%s cause=\"%.*s\"", text, (int)cause.size,
              cause.data);
}

const struct command_observer replica_observer_template = {.session_created = session_on_created,
                                                           .session_ended = session_on_ended};

/* A new leader cannot know when sessions were renewed last: all start in full. Called once the
 * state holds all that earlier terms committed. */
void replica_session_start_timers(struct replica *replica)
{
    const uint64_t now_ms = replica_now_ms(replica);
    struct session_scan scan;
    struct session session;
    struct store_txn txn;
    int rc = store_read_begin(replica->server->store, &txn);

    if (rc != STORE_OK) {
        return; /* timers_term is not set: tried again with the next turn. */
    }
    session_timers_clear(replica->timers);
    rc = session_scan_begin(&scan, &txn);
    if (rc == STORE_OK) {
        while ((rc = session_scan_next(&scan, &session)) == STORE_OK) {
            if (session.ttl_ms > 0 && session_timers_reset(replica->timers, &session.id,
                                                           session.ttl_ms, now_ms) != STORE_OK) {
                replica_fatal("out of memory");
            }
        }
        session_scan_end(&scan);
    }
    store_read_end(&txn);
    if (rc == STORE_ENOTFOUND) {
        replica->timers_term = replica->term;
        replica->sessions_held_ms = 0; /* They begin now. */
        log_write(LOG_DEBUG, SESSION_LOG, "timers started: count=%zu",
                  session_timers_count(replica->timers));
    }
}

/* --- expiry --- */

struct session_expiry {
    struct replica *replica;
    struct uuid id;
};

static void session_on_expiry_done(void *context, const char *failure,
                                   const struct command_result *result)
{
    struct session_expiry *expiry = context;
    struct replica *replica = expiry->replica;

    (void)result;
    /* On success the apply has removed the timer. */
    if (failure != NULL && replica->role == RAFT_LEADER && !replica->stopping) {
        (void)session_timers_retry(replica->timers, &expiry->id,
                                   replica_now_ms(replica) + REPLICA_STALL_RETRY_MS);
    }
    free(expiry);
}

/* While the store is full, or a worker has it, nothing is applied, and so no renewal can be
 * answered: those who would have renewed lose no time by it. */
static bool session_waits(const struct replica *replica)
{
    return replica->apply_stalled || replica->apply_held;
}

static bool session_hold(struct replica *replica, uint64_t now_ms)
{
    if (session_waits(replica)) {
        if (replica->sessions_held_ms == 0) {
            replica->sessions_held_ms = now_ms;
        }
        return true;
    }
    if (replica->sessions_held_ms != 0) {
        session_timers_extend(replica->timers, now_ms - replica->sessions_held_ms);
        replica->sessions_held_ms = 0;
    }
    return false;
}

/* `now_ms` is the turn's: if the process is stopped amid the turn, the next one sees the pause. */
void replica_session_expire(struct replica *replica, uint64_t now_ms)
{
    struct uuid id;

    if (replica->role != RAFT_LEADER || replica->timers_term != replica->term) {
        replica->sessions_held_ms = 0;
        return;
    }
    if (session_hold(replica, now_ms)) {
        return;
    }
    for (int i = 0; i < REPLICA_EXPIRIES_MAX; i++) {
        struct session_expiry *expiry;

        if (!session_timers_expire(replica->timers, now_ms, &id)) {
            return;
        }
        expiry = malloc(sizeof(*expiry));
        if (expiry == NULL) {
            replica_fatal("out of memory");
        }
        expiry->replica = replica;
        expiry->id = id;
        metrics_count(replica->server->metrics, METRIC_SESSION_TTL_INVALIDATE, 1);
        buffer_clear(&replica->command);
        command_encode_session_destroy(&replica->command, &id, SLICE_LITERAL("ttl expired"));
        if (replica->command.failed) {
            replica_fatal("out of memory");
        }
        replica_propose(replica, buffer_slice(&replica->command), session_on_expiry_done, expiry);
    }
}

uint64_t replica_session_next_ms(const struct replica *replica)
{
    const uint64_t due_ms = replica->role == RAFT_LEADER && replica->timers_term == replica->term &&
                                    !session_waits(replica)
                                ? session_timers_next_ms(replica->timers)
                                : UINT64_MAX;

    return replica->role == RAFT_LEADER && replica->reap_next_ms < due_ms ? replica->reap_next_ms
                                                                          : due_ms;
}

/* --- what is forgotten with time --- */

static void session_on_reap_done(void *context, const char *failure,
                                 const struct command_result *result)
{
    (void)context;
    (void)result;
    if (failure != NULL) {
        log_write(LOG_DEBUG, SESSION_LOG, "reaping failed, will be tried again: %s", failure);
    }
}

static bool session_nothing_to_reap(struct replica *replica)
{
    struct store_txn txn;
    uint64_t tombstones = 1;
    uint64_t delays = 1;
    uint64_t staged = 1;

    if (store_read_begin(replica->server->store, &txn) != STORE_OK) {
        return false;
    }
    if (store_table_count(&txn, STORE_TOMBSTONE, &tombstones) != STORE_OK ||
        store_table_count(&txn, STORE_LOCK_DELAY, &delays) != STORE_OK ||
        store_table_count(&txn, STORE_STAGED, &staged) != STORE_OK) {
        tombstones = 1;
    }
    store_read_end(&txn);
    return tombstones == 0 && delays == 0 && staged == 0;
}

/* Every 30 s the leader marks how far the log was; deletions older than a mark of 15 minutes ago
 * are forgotten. */
void replica_session_reap(struct replica *replica)
{
    const uint64_t now_ms = replica_now_ms(replica);
    raft_index index = 0;

    if (replica->role != RAFT_LEADER || now_ms < replica->reap_next_ms) {
        return;
    }
    replica->reap_next_ms = now_ms + REPLICA_REAP_MS;
    if (replica->reap_mark_count == REPLICA_REAP_MARKS) {
        index = replica->reap_marks[0].index;
        memmove(replica->reap_marks, replica->reap_marks + 1,
                (REPLICA_REAP_MARKS - 1) * sizeof(replica->reap_marks[0]));
        replica->reap_mark_count--;
    }
    replica->reap_marks[replica->reap_mark_count].at_ms = now_ms;
    replica->reap_marks[replica->reap_mark_count].index = replica->applied_index;
    replica->reap_mark_count++;
    if (session_nothing_to_reap(replica)) {
        return;
    }
    buffer_clear(&replica->command);
    command_encode_reap(&replica->command, index);
    if (!replica->command.failed) {
        replica_propose(replica, buffer_slice(&replica->command), session_on_reap_done, NULL);
    }
}

/* --- renewals on the leader --- */

/* Its time was over, and its end is on its way into the log: nobody can tell yet whether it comes
 * to that. Beside the store's errors. */
enum { SESSION_EENDING = -301 };

/* The state is up to date: does the session live, and then its timer starts again. An error says
 * neither: whoever renews would give up a session that lives. */
static int session_touch(struct replica *replica, const struct uuid *id, bool *found)
{
    struct session session;
    struct store_txn txn;
    int rc = store_read_begin(replica->server->store, &txn);

    if (rc != STORE_OK) {
        return rc;
    }
    rc = session_get(&txn, id, &session);
    *found = rc == STORE_OK;
    if (*found && session.ttl_ms > 0 && replica->timers_term == replica->term) {
        if (!session_timers_has(replica->timers, id)) {
            rc = SESSION_EENDING;
        } else if (session_timers_reset(replica->timers, id, session.ttl_ms,
                                        replica_now_ms(replica)) != STORE_OK) {
            replica_fatal("out of memory");
        }
    }
    store_read_end(&txn);
    return rc == STORE_ENOTFOUND ? STORE_OK : rc;
}

static void session_answer_remote(struct replica *replica,
                                  const struct replica_remote_renewal *remote,
                                  enum message_status status, bool found)
{
    const struct message_answer answer = {.request = remote->request,
                                          .status = status,
                                          .error = SLICE_EMPTY,
                                          .index = replica->applied_index,
                                          .found = found};

    buffer_clear(&replica->scratch);
    message_put_answer(&replica->scratch, &answer);
    (void)peers_send(replica->peers, remote->from, MESSAGE_RENEWED,
                     buffer_slice(&replica->scratch)); /* Lost: the asker asks again. */
}

static void session_on_remote_read(void *context, const char *failure,
                                   const struct replica_freshness *freshness)
{
    struct replica_remote_renewal *remote = context;
    struct replica *replica = remote->replica;
    bool found = false;

    (void)freshness;
    REPLICA_LIST_REMOVE(&replica->remote_renewals, remote);
    if (failure != NULL || replica->role != RAFT_LEADER ||
        session_touch(replica, &remote->id, &found) != STORE_OK) {
        session_answer_remote(replica, remote, MESSAGE_NOT_LEADER, false); /* It asks again. */
    } else {
        session_answer_remote(replica, remote, MESSAGE_OK, found);
    }
    free(remote);
}

void replica_on_renew(struct replica *replica, raft_id from, struct slice payload)
{
    struct replica_remote_renewal *remote = calloc(1, sizeof(*remote));

    if (remote == NULL) {
        return; /* The asker asks again. */
    }
    remote->replica = replica;
    remote->from = from;
    if (!message_get_renew(payload, &remote->request, &remote->id)) {
        log_write(LOG_WARN, SESSION_LOG, "dropped a malformed renewal");
        free(remote);
        return;
    }
    if (replica->role != RAFT_LEADER) {
        session_answer_remote(replica, remote, MESSAGE_NOT_LEADER, false);
        free(remote);
        return;
    }
    REPLICA_LIST_APPEND(&replica->remote_renewals, remote);
    /* A read's conditions are what a renewal needs: this server leads now, and has all that was
     * committed. */
    replica_read(replica, &remote->read, REPLICA_DEFAULT, session_on_remote_read, remote);
}

/* --- renewals of local clients --- */

bool replica_session_pending(const struct replica *replica)
{
    return replica->renewals.first != NULL;
}

void replica_session_renew(struct replica *replica, const struct uuid *id, replica_renew_done done,
                           void *context)
{
    struct replica_renewal *renewal = calloc(1, sizeof(*renewal));

    if (renewal == NULL) {
        replica_fatal("out of memory");
    }
    renewal->id = *id;
    renewal->done = done;
    renewal->context = context;
    renewal->start_ms = replica_now_ms(replica);
    renewal->start_ns = uv_hrtime();
    renewal->state = READ_QUEUED;
    REPLICA_LIST_APPEND(&replica->renewals, renewal);
    replica_wake(replica);
}

static void session_finish(struct replica *replica, struct replica_renewal *renewal,
                           const char *failure)
{
    REPLICA_LIST_REMOVE(&replica->renewals, renewal);
    metrics_time_ns(replica->server->metrics, METRIC_SESSION_RENEW,
                    uv_hrtime() - renewal->start_ns);
    renewal->done(renewal->context, failure, renewal->found);
    free(renewal);
}

void replica_on_renewed(struct replica *replica, struct slice payload)
{
    struct message_answer answer;

    if (!message_get_answer(payload, &answer)) {
        log_write(LOG_WARN, SESSION_LOG, "dropped a malformed answer");
        return;
    }
    for (struct replica_renewal *renewal = replica->renewals.first; renewal != NULL;
         renewal = renewal->next) {
        if (renewal->state == READ_SENT && renewal->request == answer.request) {
            if (answer.status == MESSAGE_OK) {
                renewal->state = READ_WAITING;
                renewal->found = answer.found;
                renewal->index = answer.index;
            } else {
                renewal->sent_ms = replica_now_ms(replica); /* Stays sent: the sweep asks again. */
            }
            return;
        }
    }
}

static void session_on_local_read(void *context, const char *failure,
                                  const struct replica_freshness *freshness)
{
    struct replica_remote_renewal *local = context;
    struct replica *replica = local->replica;

    (void)freshness;
    REPLICA_LIST_REMOVE(&replica->remote_renewals, local);
    for (struct replica_renewal *renewal = replica->renewals.first; renewal != NULL;
         renewal = renewal->next) {
        if (renewal->state != READ_SENT || renewal->request != local->request) {
            continue;
        }
        if (failure != NULL || replica->role != RAFT_LEADER ||
            session_touch(replica, &renewal->id, &renewal->found) != STORE_OK) {
            renewal->state = READ_QUEUED; /* The sweep's turn asks again. */
        } else {
            renewal->index = replica->applied_index;
            renewal->state = READ_WAITING;
            replica_wake(replica);
        }
        break;
    }
    free(local);
}

/* On the leader a renewal waits for the same conditions as a read. */
static void session_ask_here(struct replica *replica, struct replica_renewal *renewal)
{
    struct replica_remote_renewal *local = calloc(1, sizeof(*local));

    if (local == NULL) {
        replica_fatal("out of memory");
    }
    local->replica = replica;
    local->request = ++replica->last_request;
    renewal->request = local->request;
    renewal->state = READ_SENT;
    REPLICA_LIST_APPEND(&replica->remote_renewals, local);
    replica_read(replica, &local->read, REPLICA_DEFAULT, session_on_local_read, local);
}

static void session_ask_leader(struct replica *replica, struct replica_renewal *renewal)
{
    if (replica->leader == 0 || !peers_is_up(replica->peers, replica->leader)) {
        return;
    }
    renewal->request = ++replica->last_request;
    buffer_clear(&replica->scratch);
    message_put_renew(&replica->scratch, renewal->request, &renewal->id);
    if (peers_send(replica->peers, replica->leader, MESSAGE_RENEW,
                   buffer_slice(&replica->scratch))) {
        renewal->state = READ_SENT;
        renewal->sent_ms = replica_now_ms(replica);
    }
}

void replica_session_turn(struct replica *replica)
{
    for (struct replica_renewal *renewal = replica->renewals.first; renewal != NULL;
         renewal = renewal->next) {
        if (renewal->state != READ_QUEUED) {
            continue;
        }
        if (replica->role == RAFT_LEADER) {
            session_ask_here(replica, renewal);
        } else {
            session_ask_leader(replica, renewal);
        }
    }
}

/* After applying: the first moments of a term, and renewals whose index is reached. */
void replica_session_applied(struct replica *replica)
{
    struct replica_renewal *next;

    if (replica->role == RAFT_LEADER && replica->timers_term != replica->term &&
        raft_term_at(replica->raft, replica->applied_index) == replica->term) {
        replica_session_start_timers(replica);
    }
    for (struct replica_renewal *renewal = replica->renewals.first; renewal != NULL;
         renewal = next) {
        next = renewal->next;
        if (renewal->state == READ_WAITING && renewal->index <= replica->applied_index) {
            session_finish(replica, renewal, NULL);
        }
    }
}

void replica_session_leader_changed(struct replica *replica)
{
    if (replica->role != RAFT_LEADER) {
        session_timers_clear(replica->timers);
        replica->timers_term = 0;
        replica->reap_mark_count = 0;
    }
    for (struct replica_renewal *renewal = replica->renewals.first; renewal != NULL;
         renewal = renewal->next) {
        if (renewal->state == READ_SENT) {
            renewal->state = READ_QUEUED; /* Renewing twice does no harm. */
        }
    }
}

void replica_session_sweep(struct replica *replica, uint64_t now_ms)
{
    const uint64_t hold_ms = replica->server->config->rpc_hold_timeout_ms;
    struct replica_renewal *next;

    for (struct replica_renewal *renewal = replica->renewals.first; renewal != NULL;
         renewal = next) {
        next = renewal->next;
        if (now_ms - renewal->start_ms >= hold_ms) {
            session_finish(replica, renewal, "No cluster leader");
        } else if (renewal->state == READ_SENT && replica->role != RAFT_LEADER &&
                   now_ms - renewal->sent_ms >= REPLICA_RESEND_MS) {
            renewal->state = READ_QUEUED;
        }
    }
    if (replica->renewals.first != NULL) {
        replica_wake(replica);
    }
}

void replica_session_stop(struct replica *replica)
{
    while (replica->renewals.first != NULL) {
        struct replica_renewal *renewal;

        REPLICA_LIST_POP(&replica->renewals, renewal);
        renewal->done(renewal->context, "the server is shutting down", false);
        free(renewal);
    }
    while (replica->remote_renewals.first != NULL) {
        struct replica_remote_renewal *remote;

        REPLICA_LIST_POP(&replica->remote_renewals, remote);
        free(remote); /* Its read was ended before. */
    }
}
