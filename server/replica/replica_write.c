/* Writes: from replica_propose through the leader's log to the local apply that answers them. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

#define WRITE_NO_LEADER "No cluster leader"
#define WRITE_LOST "leadership lost while committing log"

static size_t write_bucket(raft_index index)
{
    return (size_t)(index % REPLICA_BUCKETS);
}

bool replica_write_pending(const struct replica *replica)
{
    return replica->queued.first != NULL || replica->sent.first != NULL ||
           replica->logged_count > 0;
}

/* --- taking proposals --- */

/* What it costs while it waits: many small ones count, too. */
static size_t write_bytes(const struct replica_proposal *proposal)
{
    return sizeof(*proposal) + proposal->command_size;
}

void replica_propose(struct replica *replica, struct slice command, replica_propose_done done,
                     void *context)
{
    struct replica_proposal *proposal;

    proposal = malloc(sizeof(*proposal) + command.size);
    if (proposal == NULL) {
        replica_fatal("out of memory");
    }
    proposal->done = done;
    proposal->context = context;
    proposal->state = PROPOSAL_QUEUED;
    proposal->start_ms = replica_now_ms(replica);
    proposal->start_ns = uv_hrtime();
    proposal->malformed = !command_valid(command);
    proposal->batched = false;
    proposal->alone = false;
    proposal->request = 0;
    proposal->position = 0;
    proposal->term = 0;
    proposal->index = 0;
    proposal->command_size = command.size;
    memcpy(proposal->command, command.data, command.size);
    REPLICA_LIST_APPEND(&replica->queued, proposal);
    replica->queued_bytes += write_bytes(proposal);
    replica_wake(replica);
}

/* The proposal is in no list any more. */
static void write_fail(struct replica_proposal *proposal, const char *failure)
{
    proposal->done(proposal->context, failure, NULL);
    free(proposal);
}

static void write_unqueue(struct replica *replica, struct replica_proposal *proposal)
{
    REPLICA_LIST_REMOVE(&replica->queued, proposal);
    assert(replica->queued_bytes >= write_bytes(proposal));
    replica->queued_bytes -= write_bytes(proposal);
}

static void write_requeue(struct replica *replica, struct replica_proposal *proposal)
{
    proposal->state = PROPOSAL_QUEUED;
    REPLICA_LIST_APPEND(&replica->queued, proposal);
    replica->queued_bytes += write_bytes(proposal);
}

static void write_logged(struct replica *replica, struct replica_proposal *proposal, uint64_t term,
                         uint64_t index)
{
    proposal->state = PROPOSAL_LOGGED;
    proposal->term = term;
    proposal->index = index;
    REPLICA_LIST_APPEND(&replica->logged[write_bucket(index)], proposal);
    replica->logged_count++;
}

/* --- refusals --- */

/* Why this server takes no such write; NULL if it does. */
static const char *write_refusal(struct replica *replica, struct slice command)
{
    if (command.size > REPLICA_COMMAND_BYTES_MAX) {
        return "the write is too large";
    }
    replica_space_check(replica, command.size);
    if (atomic_load(&replica->log_full)) {
        return "no space left on the Raft log's disk, or too many open files: writes are refused "
               "until that is over";
    }
    if (replica->disk.helpless) {
        return "the disk of the leader's Raft log does not answer and no other server can take "
               "over: check the disk of data_dir";
    }
    if ((replica->space.store_full || replica->apply_stalled) && command_grows(command)) {
        return "no space left for the state: free disk space or raise limits.state_max_size";
    }
    return NULL;
}

/* --- the leader --- */

/* Answers every command of a remote batch. */
static void write_answer_remote(struct replica *replica, const struct replica_remote_batch *batch,
                                enum message_status status, const char *error, uint64_t term,
                                uint64_t index)
{
    const struct message_answer answer = {.request = batch->request,
                                          .status = status,
                                          .error = slice_from_text(error),
                                          .term = term,
                                          .index = index};

    buffer_clear(&replica->scratch);
    message_put_answer(&replica->scratch, &answer);
    (void)peers_send(replica->peers, batch->from, MESSAGE_PROPOSED,
                     buffer_slice(&replica->scratch)); /* Lost: the asker times out. */
}

void replica_on_propose(struct replica *replica, raft_id from, struct slice payload)
{
    struct replica_remote_batch batch = {.from = from};
    struct reader reader;
    const char *refusal = NULL;

    if (!message_get_propose(payload, &batch.request, &batch.count, &reader)) {
        log_write(LOG_WARN, REPLICA_LOG, "dropped a malformed proposal");
        return;
    }
    if (replica->role != RAFT_LEADER) {
        write_answer_remote(replica, &batch, MESSAGE_NOT_LEADER, "", 0, 0);
        return;
    }
    const struct reader commands = reader;

    for (uint32_t i = 0; i < batch.count && refusal == NULL; i++) {
        const struct slice command = reader_string(&reader);

        refusal = command_valid(command) ? write_refusal(replica, command)
                                         : "the leader does not know this kind of write";
    }
    batch.offset = replica->remote_bytes.size;
    batch.size = (size_t)(commands.end - commands.at);
    if (refusal == NULL && replica->remote_bytes.size + batch.size > REPLICA_REMOTE_BYTES_MAX) {
        refusal = REPLICA_BUSY;
    }
    if (refusal != NULL) {
        write_answer_remote(replica, &batch, MESSAGE_FAILED, refusal, 0, 0);
        return;
    }
    if (replica->remote_count == replica->remote_capacity) {
        const size_t capacity = replica->remote_capacity == 0 ? 16 : 2 * replica->remote_capacity;
        struct replica_remote_batch *grown =
            realloc(replica->remote, capacity * sizeof(*replica->remote));

        if (grown == NULL) {
            replica_fatal("out of memory");
        }
        replica->remote = grown;
        replica->remote_capacity = capacity;
    }
    buffer_append(&replica->remote_bytes, commands.at, batch.size);
    if (replica->remote_bytes.failed) {
        replica_fatal("out of memory");
    }
    replica->remote[replica->remote_count++] = batch;
}

/* Adds a command to the turn's batch, stamped with this leader's clock. */
static void write_batch_add(struct replica *replica, size_t *count, char *command, size_t size)
{
    const bool stamped = command_stamp(command, size, replica_now_ms(replica));

    assert(stamped); /* It was checked to be a command. */
    (void)stamped;
    replica->batch[(*count)++] =
        (struct raft_entry){.type = RAFT_ENTRY_COMMAND, .data = command, .size = size};
}

/* What one turn of the leader proposes. */
struct write_turn {
    size_t count;
    size_t bytes;
    size_t remote_at; /* position of the first forwarded command */
    size_t remote_taken;
    size_t local_at; /* and of the first local one */
    size_t local_taken;
};

/* The first settings of a new cluster go with the start of its first term, so that nobody reads
 * their absence and then compares with it. */
static void write_collect_start(struct replica *replica, struct write_turn *turn)
{
    size_t ends[3];
    size_t at = 0;

    buffer_clear(&replica->command);
    command_encode_leader_start(&replica->command);
    ends[0] = replica->command.size;
    replica_autopilot_start(replica, &replica->command);
    ends[1] = replica->command.size;
    replica_cluster_start(replica, &replica->command);
    ends[2] = replica->command.size;
    if (replica->command.failed) {
        replica_fatal("out of memory");
    }
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (ends[i] > at) {
            write_batch_add(replica, &turn->count, replica->command.data + at, ends[i] - at);
        }
        at = ends[i];
    }
}

/* A forwarded batch goes in as a whole, since it is answered as a whole; the first one however
 * large it is, if nothing but a term's start is before it. */
static void write_collect_remote(struct replica *replica, struct write_turn *turn)
{
    turn->remote_at = turn->count;
    while (turn->remote_taken < replica->remote_count) {
        const struct replica_remote_batch *batch = &replica->remote[turn->remote_taken];
        struct reader reader;

        if (turn->bytes > 0 && (turn->count + batch->count > REPLICA_TURN_COMMANDS_MAX ||
                                turn->bytes + batch->size > REPLICA_TURN_COMMAND_BYTES_MAX)) {
            return;
        }
        assert(turn->count + batch->count <= REPLICA_BATCH_MAX);
        reader = reader_from(slice_from(replica->remote_bytes.data + batch->offset, batch->size));
        for (uint32_t i = 0; i < batch->count; i++) {
            const struct slice command = reader_string(&reader);
            const size_t offset = (size_t)(command.data - replica->remote_bytes.data);

            write_batch_add(replica, &turn->count, replica->remote_bytes.data + offset,
                            command.size);
        }
        assert(reader_done(&reader));
        turn->bytes += batch->size;
        turn->remote_taken++;
    }
}

static void write_collect_local(struct replica *replica, struct write_turn *turn)
{
    turn->local_at = turn->count;
    for (struct replica_proposal *proposal = replica->queued.first;
         proposal != NULL && turn->count < REPLICA_TURN_COMMANDS_MAX &&
         turn->bytes < REPLICA_TURN_COMMAND_BYTES_MAX;
         proposal = proposal->next) {
        write_batch_add(replica, &turn->count, proposal->command, proposal->command_size);
        turn->bytes += proposal->command_size;
        turn->local_taken++;
    }
}

/* The commands of the turn: first this term's start, then forwarded and local ones. Whoever came
 * second finds room in the next turn. */
static void write_collect(struct replica *replica, struct write_turn *turn)
{
    memset(turn, 0, sizeof(*turn));
    if (replica->start_pending) {
        write_collect_start(replica, turn);
    }
    if (replica->local_first) {
        write_collect_local(replica, turn);
        write_collect_remote(replica, turn);
    } else {
        write_collect_remote(replica, turn);
        write_collect_local(replica, turn);
    }
    replica->local_first = !replica->local_first;
}

static void write_remote_drop(struct replica *replica, size_t taken)
{
    if (taken == 0) {
        return;
    }
    assert(taken <= replica->remote_count);
    const size_t offset =
        taken < replica->remote_count ? replica->remote[taken].offset : replica->remote_bytes.size;

    replica->remote_bytes.size -= offset;
    if (replica->remote_bytes.size > 0) {
        memmove(replica->remote_bytes.data, replica->remote_bytes.data + offset,
                replica->remote_bytes.size);
    }
    replica->remote_count -= taken;
    memmove(replica->remote, replica->remote + taken,
            replica->remote_count * sizeof(*replica->remote));
    for (size_t i = 0; i < replica->remote_count; i++) {
        replica->remote[i].offset -= offset;
    }
}

/* Tells everyone where their commands stand: entries `first`, ... of `term`, in write_collect's
 * order. The answers travel on the links that the entries were just queued on, and thus before the
 * news that these are committed. */
static void write_accepted(struct replica *replica, const struct write_turn *turn, uint64_t term,
                           raft_index first)
{
    raft_index index = first + turn->remote_at;

    replica->start_pending = false;
    for (size_t i = 0; i < turn->remote_taken; i++) {
        write_answer_remote(replica, &replica->remote[i], MESSAGE_OK, "", term, index);
        index += replica->remote[i].count;
    }
    index = first + turn->local_at;
    for (size_t i = 0; i < turn->local_taken; i++) {
        struct replica_proposal *proposal = replica->queued.first;

        write_unqueue(replica, proposal);
        write_logged(replica, proposal, term, index++);
    }
}

/* Everything gathered becomes one proposal to the core. While the disk or the quorum is far behind
 * it stays where it is, within the bounds of the queues. */
static void write_turn_leader(struct replica *replica)
{
    struct write_turn turn;
    struct raft_event event = {.type = RAFT_EVENT_PROPOSE, .now_ms = replica_now_ms(replica)};
    const raft_index first = raft_last_index(replica->raft) + 1;
    const uint64_t term = raft_term_now(replica->raft);
    int rc;

    if (wal_pending_bytes(replica->wal) > REPLICA_PENDING_BYTES_MAX) {
        return;
    }
    write_collect(replica, &turn);
    if (turn.count == 0) {
        return;
    }
    event.entries = replica->batch;
    event.entry_count = turn.count;
    replica_step(replica, &event, &rc); /* Borrows the commands for the call. */
    if (rc != RAFT_OK) {
        return; /* Too much is uncommitted, or leadership is handed over: it waits. */
    }
    metrics_count(replica->server->metrics, METRIC_RAFT_APPLY, turn.count);
    write_accepted(replica, &turn, term, first);
    write_remote_drop(replica, turn.remote_taken);
    if (replica->remote_count > 0 || replica->queued.first != NULL) {
        replica_wake(replica); /* The rest goes into the next turn. */
    }
}

/* --- followers --- */

/* Forwards the first `count` queued commands in one message. False: they stay queued, until the
 * link is up again or their time is over. */
static bool write_forward(struct replica *replica, uint32_t count)
{
    struct buffer *out = &replica->scratch;
    struct replica_proposal *proposal;

    replica->last_request++;
    buffer_clear(out);
    message_put_propose(out, replica->last_request, count);
    proposal = replica->queued.first;
    for (uint32_t i = 0; i < count; i++, proposal = proposal->next) {
        buffer_put_string(out, slice_from(proposal->command, proposal->command_size));
    }
    if (out->failed ||
        !peers_send(replica->peers, replica->leader, MESSAGE_PROPOSE, buffer_slice(out))) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        proposal = replica->queued.first;
        write_unqueue(replica, proposal);
        proposal->state = PROPOSAL_SENT;
        proposal->sent_to = replica->leader;
        proposal->request = replica->last_request;
        proposal->position = i;
        proposal->batched = count > 1;
        REPLICA_LIST_APPEND(&replica->sent, proposal);
    }
    return true;
}

/* As many commands as one turn may bring, in one message, but for those that the leader shall judge
 * by themselves. */
static void write_turn_follower(struct replica *replica)
{
    uint32_t taken = 0;
    size_t bytes = 0;
    bool room = true;

    while (room && replica->queued.first != NULL) {
        uint32_t count = 0;

        for (const struct replica_proposal *proposal = replica->queued.first;
             proposal != NULL && room && !(proposal->alone && count > 0);
             proposal = proposal->next) {
            bytes += proposal->command_size;
            taken++;
            count++;
            room = taken < REPLICA_TURN_COMMANDS_MAX && bytes < REPLICA_TURN_COMMAND_BYTES_MAX;
            if (proposal->alone) {
                break;
            }
        }
        if (!write_forward(replica, count)) {
            return;
        }
    }
}

/* The leader refuses a message as a whole. If only some of its commands deserve that (they need
 * space, where others free some), the others must not suffer for being sent along: each is asked
 * for once more, by itself. Not when the leader has too much to do already. */
static void write_refused(struct replica *replica, struct replica_proposal *proposal,
                          const char *failure)
{
    if (proposal->batched && strcmp(failure, REPLICA_BUSY) != 0) {
        proposal->alone = true;
        write_requeue(replica, proposal);
    } else {
        write_fail(proposal, failure);
    }
}

void replica_on_proposed(struct replica *replica, struct slice payload)
{
    struct message_answer answer;
    struct replica_proposal *next;
    char text[ERRMSG_BYTES_MAX];

    if (!message_get_answer(payload, &answer)) {
        log_write(LOG_WARN, REPLICA_LOG, "dropped a malformed answer");
        return;
    }
    (void)snprintf(text, sizeof(text), "%.*s",
                   answer.error.size < sizeof(text) ? (int)answer.error.size : ERRMSG_BYTES_MAX - 1,
                   answer.error.data);
    for (struct replica_proposal *proposal = replica->sent.first; proposal != NULL;
         proposal = next) {
        next = proposal->next;
        if (proposal->request != answer.request) {
            continue;
        }
        REPLICA_LIST_REMOVE(&replica->sent, proposal);
        switch (answer.status) {
        case MESSAGE_OK:
            if (answer.index + proposal->position <= replica->applied_index) {
                /* Applied before we knew that it was ours; the answer is gone. */
                write_fail(proposal, WRITE_LOST);
            } else {
                write_logged(replica, proposal, answer.term, answer.index + proposal->position);
            }
            break;
        case MESSAGE_NOT_LEADER:
            write_requeue(replica, proposal);
            break;
        case MESSAGE_FAILED:
            write_refused(replica, proposal, text);
            break;
        }
    }
}

/* --- the turn --- */

/* Local writes that this server must refuse by itself. What is no command must not get into the
 * log: every server would stop at it. */
static void write_refuse_queued(struct replica *replica)
{
    struct replica_proposal *next;

    while (replica->queued_bytes > REPLICA_QUEUE_BYTES_MAX) {
        struct replica_proposal *proposal = replica->queued.last;

        write_unqueue(replica, proposal);
        write_fail(proposal, REPLICA_BUSY);
    }
    for (struct replica_proposal *proposal = replica->queued.first; proposal != NULL;
         proposal = next) {
        const char *refusal = "the write is malformed, or beyond a bound";

        next = proposal->next;
        if (!proposal->malformed) {
            refusal = write_refusal(replica, slice_from(proposal->command, proposal->command_size));
        }
        if (refusal != NULL) {
            write_unqueue(replica, proposal);
            write_fail(proposal, refusal);
        }
    }
}

void replica_write_turn(struct replica *replica)
{
    if (replica->queued.first != NULL) {
        write_refuse_queued(replica);
    }
    if (replica->role == RAFT_LEADER) {
        write_turn_leader(replica);
    } else if (replica->queued.first != NULL && replica->leader != 0 &&
               peers_is_up(replica->peers, replica->leader)) {
        write_turn_follower(replica);
    }
}

/* --- answers --- */

struct replica_proposal *replica_write_at(struct replica *replica, raft_index index)
{
    if (replica->logged_count == 0) {
        return NULL;
    }
    /* Two can wait for one index when terms changed: the entry's own is the one that counts. */
    const raft_term term = raft_term_at(replica->raft, index);

    for (struct replica_proposal *proposal = replica->logged[write_bucket(index)].first;
         proposal != NULL; proposal = proposal->next) {
        if (proposal->index == index && proposal->term == term) {
            return proposal;
        }
    }
    return NULL;
}

/* The entry at `index` is applied and durable: takes its proposals out for replica_write_complete.
 */
void replica_write_applied(struct replica *replica, raft_index index, uint64_t term)
{
    struct replica_proposal *next;

    for (struct replica_proposal *proposal = replica->logged[write_bucket(index)].first;
         proposal != NULL; proposal = next) {
        next = proposal->next;
        if (proposal->index != index) {
            continue;
        }
        REPLICA_LIST_REMOVE(&replica->logged[write_bucket(index)], proposal);
        replica->logged_count--;
        if (proposal->term != term) {
            proposal->term = 0; /* Another leader's entry stands there. */
        }
        REPLICA_LIST_APPEND(&replica->completed, proposal);
    }
}

/* A snapshot has taken the place of the entries up to `last`: what became of proposals there is not
 * known here. */
void replica_write_skipped(struct replica *replica, raft_index last)
{
    struct replica_proposal *next;

    for (size_t i = 0; i < REPLICA_BUCKETS && replica->logged_count > 0; i++) {
        for (struct replica_proposal *proposal = replica->logged[i].first; proposal != NULL;
             proposal = next) {
            next = proposal->next;
            if (proposal->index <= last) {
                REPLICA_LIST_REMOVE(&replica->logged[i], proposal);
                replica->logged_count--;
                write_fail(proposal, WRITE_LOST);
            }
        }
    }
}

void replica_write_complete(struct replica *replica)
{
    while (replica->completed.first != NULL) {
        struct replica_proposal *proposal;

        REPLICA_LIST_POP(&replica->completed, proposal);
        if (proposal->term == 0) {
            write_fail(proposal, WRITE_LOST);
            continue;
        }
        replica_metrics_write(replica, proposal);
        proposal->result.index = proposal->index;
        proposal->done(proposal->context, NULL, &proposal->result);
        free(proposal);
    }
}

/* --- time-outs and changes --- */

void replica_write_leader_changed(struct replica *replica)
{
    /* Forwarded commands that did not reach the log have not happened: their askers may try again.
     */
    if (replica->role != RAFT_LEADER) {
        for (size_t i = 0; i < replica->remote_count; i++) {
            write_answer_remote(replica, &replica->remote[i], MESSAGE_NOT_LEADER, "", 0, 0);
        }
        replica->remote_count = 0;
        buffer_clear(&replica->remote_bytes);
        replica->start_pending = false;
    }
    /* Ours that were under way to the old leader may or may not be in its log: it will say, if it
     * lives. */
    replica->leader_changed_ms = replica_now_ms(replica);
}

/* The link to or from `id` is gone, and with it what was under way to it, or its answers. */
void replica_write_peer_lost(struct replica *replica, raft_id id)
{
    struct replica_proposal *next;

    for (struct replica_proposal *proposal = replica->sent.first; proposal != NULL;
         proposal = next) {
        next = proposal->next;
        if (proposal->sent_to == id) {
            REPLICA_LIST_REMOVE(&replica->sent, proposal);
            write_fail(proposal, WRITE_LOST);
        }
    }
}

void replica_write_sweep(struct replica *replica, uint64_t now_ms)
{
    const uint64_t hold_ms = replica->server->config->rpc_hold_timeout_ms;
    struct replica_proposal *next;

    for (struct replica_proposal *proposal = replica->queued.first; proposal != NULL;
         proposal = next) {
        next = proposal->next;
        if (now_ms - proposal->start_ms >= hold_ms) {
            write_unqueue(replica, proposal);
            write_fail(proposal, replica->role == RAFT_LEADER ? REPLICA_BUSY : WRITE_NO_LEADER);
        }
    }
    for (struct replica_proposal *proposal = replica->sent.first; proposal != NULL;
         proposal = next) {
        next = proposal->next;
        if (now_ms - proposal->start_ms >= REPLICA_COMMIT_MS) {
            REPLICA_LIST_REMOVE(&replica->sent, proposal);
            write_fail(proposal, "timed out waiting for the leader; the outcome is unknown");
        } else if (proposal->sent_to != replica->leader &&
                   now_ms - replica->leader_changed_ms >= REPLICA_RESEND_MS) {
            REPLICA_LIST_REMOVE(&replica->sent, proposal);
            write_fail(proposal, WRITE_LOST);
        }
    }
    for (size_t i = 0; i < REPLICA_BUCKETS && replica->logged_count > 0; i++) {
        for (struct replica_proposal *proposal = replica->logged[i].first; proposal != NULL;
             proposal = next) {
            const uint64_t waited_ms = now_ms - proposal->start_ms;

            next = proposal->next;
            if (waited_ms < hold_ms || (replica->leader != 0 && waited_ms < REPLICA_COMMIT_MS)) {
                continue;
            }
            REPLICA_LIST_REMOVE(&replica->logged[i], proposal);
            replica->logged_count--;
            write_fail(proposal, replica->leader == 0
                                     ? WRITE_NO_LEADER
                                     : "timed out waiting for the commit; the outcome is unknown");
        }
    }
}

void replica_write_stop(struct replica *replica)
{
    static const char text[] = "the server is shutting down";

    while (replica->queued.first != NULL) {
        struct replica_proposal *proposal;

        REPLICA_LIST_POP(&replica->queued, proposal);
        replica->queued_bytes -= write_bytes(proposal);
        write_fail(proposal, text);
    }
    while (replica->sent.first != NULL) {
        struct replica_proposal *proposal;

        REPLICA_LIST_POP(&replica->sent, proposal);
        write_fail(proposal, text);
    }
    for (size_t i = 0; i < REPLICA_BUCKETS; i++) {
        while (replica->logged[i].first != NULL) {
            struct replica_proposal *proposal;

            REPLICA_LIST_POP(&replica->logged[i], proposal);
            replica->logged_count--;
            write_fail(proposal, text);
        }
    }
}
