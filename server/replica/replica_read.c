/* Reads: each waits until the local store holds all that was committed when the read began
 * (ReadIndex, Raft dissertation 6.4). The leader answers at once while its lease holds; a follower
 * asks it for its commit index, one message for all reads that wait at that moment. */

#include <assert.h>
#include <string.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

#define READ_NO_SPACE                                                                              \
    "no space left for the state of this server: free disk space or raise limits.state_max_size"

bool replica_read_pending(const struct replica *replica)
{
    return replica->reads.first != NULL;
}

void replica_freshness(const struct replica *replica, struct replica_freshness *out)
{
    const uint64_t contact_ms = replica->role == RAFT_LEADER
                                    ? 0
                                    : raft_last_contact_ms(replica->raft, replica_now_ms(replica));

    out->known_leader = replica->leader != 0;
    out->last_contact_ms = contact_ms == UINT64_MAX ? 0 : contact_ms;
    if (replica->apply_failed) {
        /* What has been heard since then is not in the state. */
        const uint64_t failed_ms = replica_now_ms(replica) - replica->apply_failed_ms;

        out->last_contact_ms = failed_ms > out->last_contact_ms ? failed_ms : out->last_contact_ms;
    }
}

bool replica_has_state(const struct replica *replica)
{
    return replica->applied_index > 0 || !replica->apply_failed;
}

/* The read is in no list any more. */
static void read_finish(struct replica *replica, struct replica_read *read, const char *failure)
{
    struct replica_freshness freshness;

    read->state = READ_DONE;
    replica_freshness(replica, &freshness);
    if (read->consistency != REPLICA_STALE) {
        freshness.known_leader =
            true; /* It has just been heard: the answer is as fresh as its own. */
        freshness.last_contact_ms = 0;
    }
    read->done(read->context, failure, &freshness);
}

static uint64_t read_next_request(struct replica *replica)
{
    return ++replica->last_request;
}

/* Asks the core; the answer comes through replica_read_answered, perhaps before this returns. */
static bool read_ask_core(struct replica *replica, raft_id from, uint64_t request, bool quorum)
{
    const struct raft_event event = {.type = RAFT_EVENT_READ,
                                     .now_ms = replica_clock_ms(replica),
                                     .read_token = read_next_request(replica),
                                     .read_quorum = quorum};
    int rc;

    if (replica->token_count == REPLICA_TOKENS_MAX) {
        return false;
    }
    replica->tokens[replica->token_count++] = (struct replica_token){
        .token = event.read_token, .from = from, .request = from == 0 ? event.read_token : request};
    replica_step(replica, &event, &rc);
    if (rc != RAFT_OK) {
        replica->token_count--;
        return false;
    }
    return true;
}

/* --- local reads --- */

static void read_begin(struct replica *replica, struct replica_read *read,
                       enum replica_consistency consistency, replica_read_done done, void *context)
{
    read->done = done;
    read->context = context;
    read->consistency = consistency;
    read->deadline_ms = replica_now_ms(replica) + replica->server->config->rpc_hold_timeout_ms;
    read->index = 0;
    read->state = READ_QUEUED;
    REPLICA_LIST_APPEND(&replica->reads, read);
}

void replica_read(struct replica *replica, struct replica_read *read,
                  enum replica_consistency consistency, replica_read_done done, void *context)
{
    if (consistency == REPLICA_STALE) {
        read->consistency = consistency;
        read->done = done;
        read->context = context;
        read_finish(replica, read, replica_has_state(replica) ? NULL : READ_NO_SPACE);
        return;
    }
    if (consistency == REPLICA_DEFAULT && replica->role == RAFT_LEADER &&
        raft_lease_valid(replica->raft, replica_clock_ms(replica)) &&
        raft_term_at(replica->raft, replica->applied_index) == replica->term &&
        replica->applied_index == raft_commit_index(replica->raft)) {
        /* The lease holds, and the store has all that this leader committed. */
        read->consistency = consistency;
        read->done = done;
        read->context = context;
        read_finish(replica, read, NULL);
        return;
    }
    read_begin(replica, read, consistency, done, context);
    replica->reads_dirty = true;
    replica_wake(replica);
}

void replica_read_cancel(struct replica *replica, struct replica_read *read)
{
    if (read->state != READ_DONE) {
        REPLICA_LIST_REMOVE(&replica->reads, read);
        read->state = READ_DONE;
    }
}

/* Moves the reads that were asked about with `request`. */
static void read_answer_local(struct replica *replica, uint64_t request, bool ok, raft_index index)
{
    for (struct replica_read *read = replica->reads.first; read != NULL; read = read->next) {
        if (read->state != READ_SENT || read->index != request) {
            continue;
        }
        read->state = ok ? READ_WAITING : READ_QUEUED;
        read->index = ok ? index : 0;
    }
    replica->reads_dirty = true;
    if (!replica->in_turn) {
        replica_wake(replica);
    }
}

/* One question for all queued reads of one kind. */
static void read_ask(struct replica *replica, bool quorum)
{
    uint64_t request = 0;
    bool asked;

    for (struct replica_read *read = replica->reads.first; read != NULL; read = read->next) {
        if (read->state == READ_QUEUED && (read->consistency == REPLICA_CONSISTENT) == quorum) {
            if (request == 0) {
                /* The core's answer may come during the question: the reads must carry its number
                 * before. */
                request = replica->last_request + 1;
            }
            read->state = READ_SENT;
            read->sent_ms = replica_now_ms(replica);
            read->index = request;
        }
    }
    if (request == 0) {
        return;
    }
    if (replica->role == RAFT_LEADER) {
        asked = read_ask_core(replica, 0, 0, quorum);
    } else {
        buffer_clear(&replica->scratch);
        message_put_read(&replica->scratch, read_next_request(replica), quorum);
        asked = peers_send(replica->peers, replica->leader, MESSAGE_READ,
                           buffer_slice(&replica->scratch));
    }
    if (!asked) {
        read_answer_local(replica, request, false, 0);
        replica->reads_dirty = false; /* Nobody can be asked now: the sweep tries again. */
    }
}

/* Answers the reads whose index is applied. Handlers may add and cancel reads meanwhile: a read
 * that is taken is out of the list first, and the search starts again. */
static void read_serve(struct replica *replica)
{
    bool served = true;

    while (served) {
        served = false;
        for (struct replica_read *read = replica->reads.first; read != NULL; read = read->next) {
            if (read->state == READ_WAITING && read->index <= replica->applied_index) {
                REPLICA_LIST_REMOVE(&replica->reads, read);
                read_finish(replica, read, NULL);
                served = true;
                break;
            }
        }
    }
}

void replica_read_turn(struct replica *replica)
{
    if (!replica->reads_dirty) {
        return;
    }
    replica->reads_dirty = false;
    if (replica->reads.first == NULL) {
        return;
    }
    if (replica->role == RAFT_LEADER ||
        (replica->leader != 0 && peers_is_up(replica->peers, replica->leader))) {
        read_ask(replica, false);
        read_ask(replica, true);
    }
    read_serve(replica);
}

/* --- answers --- */

/* The core's answer to read_ask_core. */
void replica_read_answered(struct replica *replica, const struct raft_read *answer)
{
    for (size_t i = 0; i < replica->token_count; i++) {
        const struct replica_token token = replica->tokens[i];
        struct message_answer reply = {.request = token.request,
                                       .status = answer->status == RAFT_OK ? MESSAGE_OK
                                                                           : MESSAGE_NOT_LEADER,
                                       .error = SLICE_EMPTY,
                                       .index = answer->index};

        if (token.token != answer->token) {
            continue;
        }
        replica->tokens[i] = replica->tokens[--replica->token_count];
        if (token.from == 0) {
            read_answer_local(replica, token.request, answer->status == RAFT_OK, answer->index);
            return;
        }
        buffer_clear(&replica->scratch);
        message_put_answer(&replica->scratch, &reply);
        (void)peers_send(replica->peers, token.from, MESSAGE_READ_AT,
                         buffer_slice(&replica->scratch)); /* Lost: the asker asks again. */
        return;
    }
    assert(false); /* The core answers each token once. */
}

void replica_on_read(struct replica *replica, raft_id from, struct slice payload)
{
    const struct message_answer refused = {.status = MESSAGE_NOT_LEADER, .error = SLICE_EMPTY};
    struct message_answer reply = refused;
    uint64_t request;
    bool quorum;

    if (!message_get_read(payload, &request, &quorum)) {
        log_write(LOG_WARN, REPLICA_LOG, "dropped a malformed read request");
        return;
    }
    if (replica->role == RAFT_LEADER && read_ask_core(replica, from, request, quorum)) {
        return;
    }
    reply.request = request;
    buffer_clear(&replica->scratch);
    message_put_answer(&replica->scratch, &reply);
    (void)peers_send(replica->peers, from, MESSAGE_READ_AT, buffer_slice(&replica->scratch));
}

void replica_on_read_at(struct replica *replica, struct slice payload)
{
    struct message_answer answer;

    if (!message_get_answer(payload, &answer)) {
        log_write(LOG_WARN, REPLICA_LOG, "dropped a malformed answer");
        return;
    }
    read_answer_local(replica, answer.request, answer.status == MESSAGE_OK, answer.index);
    if (answer.status != MESSAGE_OK) {
        replica->reads_dirty =
            false; /* Not again at once: it will say who leads, or the sweep tries. */
    }
}

/* --- time-outs and changes --- */

/* What was asked of the old leader is asked of the new one. */
void replica_read_leader_changed(struct replica *replica)
{
    for (struct replica_read *read = replica->reads.first; read != NULL; read = read->next) {
        if (read->state == READ_SENT) {
            read->state = READ_QUEUED;
            read->index = 0;
        }
    }
    replica->reads_dirty = true;
}

void replica_read_sweep(struct replica *replica, uint64_t now_ms)
{
    bool failed = true;

    while (failed) {
        failed = false;
        for (struct replica_read *read = replica->reads.first; read != NULL; read = read->next) {
            if (now_ms >= read->deadline_ms) {
                REPLICA_LIST_REMOVE(&replica->reads, read);
                read_finish(replica, read,
                            replica->apply_failed ? READ_NO_SPACE : "No cluster leader");
                failed = true;
                break;
            }
            if (read->state == READ_SENT && replica->role != RAFT_LEADER &&
                now_ms - read->sent_ms >= REPLICA_RESEND_MS) {
                read->state = READ_QUEUED; /* Its answer may be lost. */
            }
        }
    }
    if (replica->reads.first != NULL) {
        replica->reads_dirty = true;
        replica_wake(replica);
    }
}

void replica_read_stop(struct replica *replica)
{
    while (replica->reads.first != NULL) {
        struct replica_read *read;

        REPLICA_LIST_POP(&replica->reads, read);
        read_finish(replica, read, "the server is shutting down");
    }
}
