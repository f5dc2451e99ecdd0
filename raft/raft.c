/* The core's life, its step, and what all parts of it share: the stored state and the update. */

#include "raft/raft.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raft/raft_internal.h"

enum {
    RAFT_ENTRIES_INITIAL = 64,
    /* Messages of one step besides the requests that fill a peer's window: to each peer a heartbeat
     * and a request for its vote, and the answers. */
    RAFT_MESSAGES_BESIDES = 2 * RAFT_SERVERS_MAX + 8,
};

static_assert(RAFT_READS_MAX > 0, "a read can wait");
static_assert(RAFT_INFLIGHT_MAX > 0, "a request can be on its way");

const char *raft_strerror(int code)
{
    switch ((enum raft_error)code) {
    case RAFT_OK:
        return "success";
    case RAFT_ENOMEM:
        return "out of memory";
    case RAFT_ENOTLEADER:
        return "not the leader";
    case RAFT_EBUSY:
        return "too many requests are waiting";
    case RAFT_EINVAL:
        return "malformed or contradictory input";
    case RAFT_ETRANSFER:
        return "leadership is being handed over";
    case RAFT_ECHANGE:
        return "another change of the configuration is under way";
    case RAFT_ESTALE:
        return "the snapshot is not wanted any more";
    }
    return "unknown error";
}

/* --- life --- */

static void raft_options_assert(const struct raft_options *options)
{
    assert(options->id != 0);
    assert(options->heartbeat_ms > 0);
    assert(options->heartbeat_ms < options->election_ms);
    /* A deposed leader must stop serving before voters may elect another one. */
    assert(options->lease_ms < options->election_ms);
    assert(options->lease_guard_ms == 0 || options->lease_guard_ms > options->lease_ms);
    assert(options->inflight_max > 0);
    assert(options->inflight_max <= RAFT_INFLIGHT_MAX);
    assert(options->uncommitted_max > 0);
    assert(options->batch_end != NULL);
    (void)options;
}

static int raft_load(struct raft *raft, const struct raft_state *state)
{
    const int rc = raft_log_init(&raft->log, state);
    if (rc != 0) {
        return rc;
    }
    if (state->commit_index > raft->log.last_index) {
        return RAFT_EINVAL; /* The log has lost what was acknowledged. */
    }
    if (state->configuration != NULL) {
        if (!raft_configuration_valid(state->configuration)) {
            return RAFT_EINVAL;
        }
        raft->configuration = *state->configuration;
    }
    if (state->configuration_before != NULL) {
        if (!raft_configuration_valid(state->configuration_before)) {
            return RAFT_EINVAL;
        }
        raft->configuration_before = *state->configuration_before;
    }
    raft->term = state->term;
    raft->vote = state->vote;
    raft->durable_index = raft->log.last_index;
    raft->commit_index = state->commit_index;
    /* Only what is committed is ever compacted. */
    if (raft->commit_index + 1 < raft->log.first_index) {
        raft->commit_index = raft->log.first_index - 1;
    }
    return RAFT_OK;
}

static bool raft_is_only_voter(const struct raft *raft,
                               const struct raft_configuration *configuration)
{
    size_t voters = 0;

    for (size_t i = 0; i < configuration->count; i++) {
        voters += configuration->servers[i].voter ? 1 : 0;
    }
    return voters == 1 && raft_configuration_is_voter(configuration, raft->options.id);
}

/* A cluster of one has nobody to wait for, and nobody's lease to respect: but for the other one's
 * that takes itself out of two, and leads with a lease that rests on us until it knows that this is
 * committed. */
static bool raft_is_alone(const struct raft *raft)
{
    return raft_is_only_voter(raft, &raft->configuration) &&
           (raft->configuration.index <= raft->commit_index ||
            raft->configuration_before.count == 0 ||
            raft_is_only_voter(raft, &raft->configuration_before));
}

static void raft_first_election(struct raft *raft)
{
    raft_election_timer_start(raft);
    if (raft_is_alone(raft)) {
        raft->election_due_ms = raft->now_ms;
    }
}

int raft_new(const struct raft_options *options, const struct raft_state *state, uint64_t now_ms,
             struct raft **out)
{
    int rc = RAFT_ENOMEM;

    raft_options_assert(options);
    struct raft *raft = calloc(1, sizeof(*raft));
    if (raft == NULL) {
        return RAFT_ENOMEM;
    }
    raft->options = *options;
    if (raft->options.lease_guard_ms == 0) {
        raft->options.lease_guard_ms = options->lease_ms + options->lease_ms / 10 + 2;
    }
    if (raft->options.lost_spread_ms == 0) {
        raft->options.lost_spread_ms = options->election_ms / 20 + 1;
    }
    raft->random = options->seed ^ (options->id * 0xD1342543DE82EF95U);
    raft->now_ms = now_ms;
    raft->role = RAFT_FOLLOWER;
    raft->contact_ms = RAFT_NEVER_MS;

    raft->entry_capacity = RAFT_ENTRIES_INITIAL;
    raft->entries = calloc(raft->entry_capacity, sizeof(*raft->entries));
    raft->message_capacity = RAFT_SERVERS_MAX * options->inflight_max + RAFT_MESSAGES_BESIDES;
    raft->messages = calloc(raft->message_capacity, sizeof(*raft->messages));
    raft->inflight_pool =
        calloc(RAFT_SERVERS_MAX * options->inflight_max, sizeof(*raft->inflight_pool));
    if (raft->entries == NULL || raft->messages == NULL || raft->inflight_pool == NULL) {
        goto fail;
    }
    for (size_t i = 0; i < RAFT_SERVERS_MAX; i++) {
        raft->peers[i].inflight = raft->inflight_pool + i * options->inflight_max;
    }
    rc = raft_load(raft, state);
    if (rc != 0) {
        goto fail;
    }
    raft->refuse_until_ms = now_ms + options->election_ms;
    raft_first_election(raft);
    *out = raft;
    return RAFT_OK;

fail:
    raft_free(raft);
    return rc;
}

void raft_free(struct raft *raft)
{
    if (raft == NULL) {
        return;
    }
    raft_log_deinit(&raft->log);
    free(raft->inflight_pool);
    free(raft->messages);
    free(raft->entries);
    free(raft);
}

/* --- the stored state --- */

void raft_term_set(struct raft *raft, raft_term term, raft_id vote)
{
    assert(term >= raft->term);
    assert(term > raft->term || raft->vote == 0);

    if (term > raft->term) {
        /* What was known of, or owed to, the leaders and candidates of the term before. */
        raft->vote_answer_to = 0;
        raft->verified_index = 0;
        raft->acked_index = 0;
        raft->leader_round = 0;
        raft->ack_due = false;
    }
    raft->term = term;
    raft->vote = vote;
    raft->hard_state_changed = true;
}

bool raft_hard_state_durable(const struct raft *raft)
{
    return !raft->hard_state_changed && raft->persisted_sequence >= raft->hard_state_sequence;
}

void raft_entry_append(struct raft *raft, const struct raft_entry *entry)
{
    assert(entry->index == raft->log.last_index + 1);
    assert(entry->term <= raft->term);
    assert(raft->entry_count < raft->entry_capacity);

    raft_log_append(&raft->log, entry->term);
    raft->entries[raft->entry_count++] = *entry;
    if (entry->type == RAFT_ENTRY_CONFIGURATION) {
        /* A configuration counts from when it is appended, not committed (4.1). */
        raft->configuration_before = raft->configuration;
        const int rc = raft_configuration_decode(entry->data, entry->size, &raft->configuration);
        assert(rc == 0); /* Checked with the event. */
        (void)rc;
        raft->configuration.index = entry->index;
        raft->configuration_changed = true;
    }
}

void raft_entries_truncate(struct raft *raft, raft_index from)
{
    assert(from > raft->commit_index);
    assert(from > raft->verified_index);
    assert(raft->role == RAFT_FOLLOWER);
    assert(raft->entry_count == 0);

    raft_log_truncate(&raft->log, from);
    raft->truncate_from = from;
    if (raft->configuration.index >= from) {
        assert(raft->configuration_before.index < from);
        raft->configuration = raft->configuration_before;
        raft->configuration_changed = true;
        memset(&raft->configuration_before, 0, sizeof(raft->configuration_before));
    }
    /* Writes still on their way may hold dropped entries, or equal indexes of a later term: neither
     * their end nor a second copy of the same entry must pass for what will be on disk after this
     * truncation. */
    if (raft->durable_index >= from) {
        raft->durable_index = from - 1;
    }
    for (size_t i = 0; i < raft->write_count; i++) {
        struct raft_write *write = &raft->writes[(raft->write_first + i) % RAFT_WRITES_MAX];
        if (write->end_index >= from) {
            write->end_index = from - 1;
        }
    }
}

/* Gives this step's changes, if there are any, a write of their own. Returns its sequence, or 0. */
static uint64_t raft_write_add(struct raft *raft)
{
    if (!raft->hard_state_changed && raft->entry_count == 0 && raft->reset_index == 0) {
        assert(raft->truncate_from == 0); /* Only a conflicting entry truncates. */
        return 0;
    }
    raft->sequence++;
    if (raft->hard_state_changed) {
        raft->hard_state_sequence = raft->sequence;
    }
    if (raft->entry_count > 0) {
        /* When there are too many to tell apart, the newest stands for more than one: its entries
         * count as durable a little later than they are. */
        if (raft->write_count < RAFT_WRITES_MAX) {
            raft->write_count++;
        }
        const size_t slot = (raft->write_first + raft->write_count - 1) % RAFT_WRITES_MAX;
        raft->writes[slot] = (struct raft_write){raft->sequence, raft->log.last_index};
    }
    return raft->sequence;
}

static void raft_persisted(struct raft *raft, uint64_t sequence)
{
    assert(sequence <= raft->sequence);

    if (sequence <= raft->persisted_sequence) {
        return;
    }
    raft->persisted_sequence = sequence;
    while (raft->write_count > 0 && raft->writes[raft->write_first].sequence <= sequence) {
        const raft_index end_index = raft->writes[raft->write_first].end_index;
        if (end_index > raft->durable_index) {
            raft->durable_index = end_index;
        }
        raft->write_first = (raft->write_first + 1) % RAFT_WRITES_MAX;
        raft->write_count--;
    }
    assert(raft->durable_index <= raft->log.last_index);
}

/* --- the step --- */

struct raft_message *raft_message_add(struct raft *raft, enum raft_message_type type, raft_id to)
{
    assert(to != 0);
    assert(to != raft->options.id);
    assert(raft->message_count < raft->message_capacity);

    struct raft_message *message = &raft->messages[raft->message_count++];
    *message =
        (struct raft_message){.type = type, .from = raft->options.id, .to = to, .term = raft->term};
    return message;
}

uint64_t raft_quorum_value(uint64_t *values, size_t count)
{
    assert(count > 0);
    assert(count <= RAFT_SERVERS_MAX);

    /* Sorted downwards, the one at count / 2 is reached by count / 2 + 1. */
    for (size_t i = 1; i < count; i++) {
        const uint64_t value = values[i];
        size_t at = i;
        while (at > 0 && values[at - 1] < value) {
            values[at] = values[at - 1];
            at--;
        }
        values[at] = value;
    }
    return values[count / 2];
}

static int raft_message_check(const struct raft *raft, const struct raft_event *event)
{
    const struct raft_message *message = event->message;

    if (message == NULL || message->from == 0 || message->from == raft->options.id ||
        message->to != raft->options.id || message->term > RAFT_TERM_MAX ||
        message->prev_index > RAFT_INDEX_MAX || message->last_index > RAFT_INDEX_MAX ||
        message->hint_index > RAFT_INDEX_MAX) {
        return RAFT_EINVAL;
    }
    switch (message->type) {
    case RAFT_PRE_VOTE_REQUEST:
    case RAFT_VOTE_REQUEST:
        /* No log has an entry of a term that has not begun. */
        return message->last_term < message->term ? RAFT_OK : RAFT_EINVAL;
    case RAFT_PRE_VOTE_RESPONSE:
    case RAFT_VOTE_RESPONSE:
        return RAFT_OK;
    case RAFT_APPEND_REQUEST:
        return raft_append_request_check(raft, event);
    case RAFT_APPEND_RESPONSE:
        return raft_append_response_check(raft, message);
    case RAFT_TIMEOUT_NOW:
        return RAFT_OK;
    case RAFT_SNAPSHOT_REQUEST:
        return raft_snapshot_request_check(raft, message);
    }
    return RAFT_EINVAL; /* The type, too, may come from a stranger. */
}

static int raft_propose_check_types(const struct raft_event *event)
{
    if (event->entry_count == 0 || event->entries == NULL) {
        return RAFT_EINVAL;
    }
    for (size_t i = 0; i < event->entry_count; i++) {
        const enum raft_entry_type type = event->entries[i].type;
        const bool alone = event->entry_count == 1;
        if (type != RAFT_ENTRY_COMMAND && type != RAFT_ENTRY_NOOP &&
            (type != RAFT_ENTRY_CONFIGURATION || !alone)) {
            return RAFT_EINVAL;
        }
    }
    return RAFT_OK;
}

/* Quorums of two configurations overlap if they differ in one server, and if nobody skips one: so
 * one change at a time, and none before an entry of this term is committed. Without the latter, two
 * leaders of different terms may each add to the same old configuration, and neither hears of the
 * other's (4.1 and its erratum of 2015). */
static int raft_change_check(const struct raft *raft, const struct raft_entry *entry)
{
    struct raft_configuration configuration;

    memset(&configuration, 0, sizeof(configuration));
    if (raft_configuration_decode(entry->data, entry->size, &configuration) != 0 ||
        raft_configuration_check_change(&raft->configuration, &configuration) != 0) {
        return RAFT_EINVAL;
    }
    if (raft->commit_index < raft->own_term_index ||
        raft->commit_index < raft->configuration.index) {
        return RAFT_ECHANGE;
    }
    return RAFT_OK;
}

static int raft_propose_check(const struct raft *raft, const struct raft_event *event)
{
    if (raft_propose_check_types(event) != 0) {
        return RAFT_EINVAL;
    }
    if (raft->role != RAFT_LEADER) {
        return RAFT_ENOTLEADER;
    }
    if (raft->transfer_to != 0) {
        return RAFT_ETRANSFER;
    }
    const raft_index uncommitted = raft->log.last_index - raft->commit_index;
    if (uncommitted >= raft->options.uncommitted_max ||
        event->entry_count > raft->options.uncommitted_max - uncommitted) {
        return RAFT_EBUSY;
    }
    if (event->entries[0].type == RAFT_ENTRY_CONFIGURATION) {
        return raft_change_check(raft, &event->entries[0]);
    }
    return RAFT_OK;
}

static int raft_event_check(const struct raft *raft, const struct raft_event *event)
{
    switch (event->type) {
    case RAFT_EVENT_TICK:
        return RAFT_OK;
    case RAFT_EVENT_MESSAGE:
        return raft_message_check(raft, event);
    case RAFT_EVENT_PERSISTED:
        return event->sequence <= raft->sequence ? RAFT_OK : RAFT_EINVAL;
    case RAFT_EVENT_PROPOSE:
        return raft_propose_check(raft, event);
    case RAFT_EVENT_READ:
        return raft->waiting_count < RAFT_READS_MAX ? RAFT_OK : RAFT_EBUSY;
    case RAFT_EVENT_PEER_LOST:
        return RAFT_OK;
    case RAFT_EVENT_TRANSFER:
        return raft_transfer_check(raft, event);
    case RAFT_EVENT_SNAPSHOT_INSTALLED:
        return raft_snapshot_installed_check(raft, &event->snapshot);
    }
    return RAFT_EINVAL;
}

/* Makes room for `count` entries, so that nothing fails later in the step. */
static int raft_reserve(struct raft *raft, size_t count)
{
    if (count > raft->entry_capacity) {
        struct raft_entry *entries = realloc(raft->entries, count * sizeof(*entries));
        if (entries == NULL) {
            return RAFT_ENOMEM;
        }
        raft->entries = entries;
        raft->entry_capacity = count;
    }
    return raft_log_reserve(&raft->log, count);
}

static void raft_propose(struct raft *raft, const struct raft_event *event)
{
    assert(raft->role == RAFT_LEADER);

    for (size_t i = 0; i < event->entry_count; i++) {
        struct raft_entry entry = event->entries[i];
        entry.index = raft->log.last_index + 1;
        entry.term = raft->term;
        raft_entry_append(raft, &entry);
    }
    if (raft->configuration_changed) {
        raft_peers_update(raft);
    }
}

static void raft_receive(struct raft *raft, const struct raft_event *event)
{
    const struct raft_message *message = event->message;

    switch (message->type) {
    case RAFT_PRE_VOTE_REQUEST:
        raft_pre_vote_request(raft, message);
        break;
    case RAFT_PRE_VOTE_RESPONSE:
        raft_pre_vote_response(raft, message);
        break;
    case RAFT_VOTE_REQUEST:
        raft_vote_request(raft, message);
        break;
    case RAFT_VOTE_RESPONSE:
        raft_vote_response(raft, message);
        break;
    case RAFT_APPEND_REQUEST:
        raft_append_request(raft, event);
        break;
    case RAFT_APPEND_RESPONSE:
        raft_append_response(raft, message);
        break;
    case RAFT_TIMEOUT_NOW:
        raft_timeout_now(raft, message);
        break;
    case RAFT_SNAPSHOT_REQUEST:
        raft_snapshot_request(raft, message);
        break;
    }
}

static void raft_handle(struct raft *raft, const struct raft_event *event)
{
    switch (event->type) {
    case RAFT_EVENT_TICK:
        break;
    case RAFT_EVENT_MESSAGE:
        raft_receive(raft, event);
        break;
    case RAFT_EVENT_PERSISTED:
        raft_persisted(raft, event->sequence);
        break;
    case RAFT_EVENT_PROPOSE:
        raft_propose(raft, event);
        break;
    case RAFT_EVENT_READ:
        raft_read(raft, event->read_token, event->read_quorum);
        break;
    case RAFT_EVENT_PEER_LOST:
        raft_leader_lost(raft, event->peer);
        break;
    case RAFT_EVENT_TRANSFER:
        raft_transfer(raft, event);
        break;
    case RAFT_EVENT_SNAPSHOT_INSTALLED:
        raft_snapshot_installed(raft, &event->snapshot);
        break;
    }
}

/* After the event, so that a message that waited while this server was stopped counts before the
 * time that has passed does. */
static void raft_timers(struct raft *raft)
{
    if (raft->role == RAFT_LEADER) {
        if (raft->now_ms >= raft_check_quorum_due_ms(raft)) {
            raft_become_follower(raft, raft->term, 0);
        } else {
            raft_transfer_timer(raft);
        }
    } else if (raft->now_ms >= raft->election_due_ms) {
        raft_election_timeout(raft);
    }
}

static void raft_flush(struct raft *raft)
{
    raft_election_flush(raft);
    raft_acknowledge_flush(raft);
    if (raft->role == RAFT_LEADER) {
        raft_commit_advance(raft);
        raft_reads_release(raft);
        raft_reads_start_round(raft);
        raft_replication_flush(raft);
        raft_transfer_flush(raft);
        raft_reads_release(raft); /* A cluster of one has just acknowledged the round. */
        raft_transfer_removed(raft);
    }
}

static uint64_t raft_deadline_ms(const struct raft *raft)
{
    if (raft->role != RAFT_LEADER) {
        return raft->election_due_ms;
    }
    if (raft->peer_count == 0) {
        return RAFT_NEVER_MS;
    }
    const uint64_t check_ms = raft_check_quorum_due_ms(raft);
    uint64_t due_ms = check_ms < raft->heartbeat_due_ms ? check_ms : raft->heartbeat_due_ms;
    if (raft->transfer_to != 0 && raft->transfer_due_ms < due_ms) {
        due_ms = raft->transfer_due_ms;
    }
    return due_ms;
}

static void raft_step_begin(struct raft *raft, uint64_t now_ms)
{
    assert(now_ms >= raft->now_ms);

    raft->now_ms = now_ms;
    raft->hard_state_changed = false;
    raft->truncate_from = 0;
    raft->reset_index = 0;
    raft->configuration_changed = false;
    raft->snapshot_from = 0;
    raft->snapshot_index = 0;
    raft->entry_count = 0;
    raft->message_count = 0;
    raft->read_count = 0;
}

static void raft_step_end(struct raft *raft, struct raft_update *update)
{
    assert(raft->commit_index <= raft->log.last_index);
    assert(raft->commit_index + 1 >= raft->log.first_index);
    assert(raft->durable_index <= raft->log.last_index);
    assert(raft->reset_index == 0 || raft->truncate_from == 0);
    assert(raft->verified_index <= raft->log.last_index);
    assert(raft->role != RAFT_LEADER || raft->leader == raft->options.id);
    assert(raft->role == RAFT_FOLLOWER || raft->role == RAFT_LEADER || raft->leader == 0);
    assert(raft->role == RAFT_LEADER || raft->waiting_count == 0);
    assert(raft->role == RAFT_LEADER || raft->transfer_to == 0);
    assert(raft->role == RAFT_CANDIDATE || !raft->transfer_vote);

    *update = (struct raft_update){
        .sequence = raft_write_add(raft),
        .hard_state_changed = raft->hard_state_changed,
        .term = raft->term,
        .vote = raft->vote,
        .reset_index = raft->reset_index,
        .reset_term = raft->reset_index != 0 ? raft->log.prev_term : 0,
        .truncate_from = raft->truncate_from,
        .entries = raft->entries,
        .entry_count = raft->entry_count,
        .messages = raft->messages,
        .message_count = raft->message_count,
        .reads = raft->reads,
        .read_count = raft->read_count,
        .commit_index = raft->commit_index,
        .apply_index =
            raft->commit_index < raft->durable_index ? raft->commit_index : raft->durable_index,
        .role = raft->role,
        .leader = raft->leader,
        .configuration_changed = raft->configuration_changed,
        .snapshot_from = raft->snapshot_from,
        .snapshot_index = raft->snapshot_index,
        .deadline_ms = raft_deadline_ms(raft),
    };
}

int raft_step(struct raft *raft, const struct raft_event *event, struct raft_update *update)
{
    int rc = raft_event_check(raft, event);
    if (rc != 0) {
        return rc;
    }
    /* One more for the no-op of a new leader. */
    rc = raft_reserve(raft, event->entry_count + 1);
    if (rc != 0) {
        return rc;
    }
    const enum raft_role role = raft->role;
    const raft_term term = raft->term;
    const raft_id leader = raft->leader;

    raft_step_begin(raft, event->now_ms);
    raft_handle(raft, event);
    raft_timers(raft);
    raft_flush(raft);
    raft_step_end(raft, update);
    update->leadership_changed = role != raft->role || term != raft->term || leader != raft->leader;
    return RAFT_OK;
}

int raft_bootstrap(struct raft *raft, const struct raft_configuration *configuration,
                   uint64_t now_ms, struct raft_update *update)
{
    if (raft->term != 0 || raft->log.last_index != 0 || raft->configuration.count != 0 ||
        !raft_configuration_valid(configuration) ||
        raft_configuration_find(configuration, raft->options.id) == NULL) {
        return RAFT_EINVAL;
    }
    const int rc = raft_reserve(raft, 1);
    if (rc != 0) {
        return rc;
    }
    raft_step_begin(raft, now_ms);
    raft_term_set(raft, 1, 0);
    const struct raft_entry entry = {
        .index = 1,
        .term = 1,
        .type = RAFT_ENTRY_CONFIGURATION,
        .data = raft->configuration_bytes,
        .size = raft_configuration_encode(configuration, raft->configuration_bytes),
    };
    raft_entry_append(raft, &entry);
    raft_first_election(raft);
    raft_step_end(raft, update);
    update->leadership_changed = true;
    return RAFT_OK;
}

/* --- looking in --- */

enum raft_role raft_role(const struct raft *raft)
{
    return raft->role;
}

raft_id raft_leader(const struct raft *raft)
{
    return raft->leader;
}

raft_term raft_term_now(const struct raft *raft)
{
    return raft->term;
}

raft_index raft_commit_index(const struct raft *raft)
{
    return raft->commit_index;
}

raft_index raft_last_index(const struct raft *raft)
{
    return raft->log.last_index;
}

raft_term raft_last_term(const struct raft *raft)
{
    return raft_log_last_term(&raft->log);
}

raft_index raft_durable_index(const struct raft *raft)
{
    return raft->durable_index;
}

raft_term raft_term_at(const struct raft *raft, raft_index index)
{
    return raft_log_term_at(&raft->log, index);
}

raft_index raft_first_index(const struct raft *raft)
{
    return raft->log.first_index;
}

const struct raft_configuration *raft_configuration(const struct raft *raft)
{
    return &raft->configuration;
}

uint64_t raft_last_contact_ms(const struct raft *raft, uint64_t now_ms)
{
    if (raft->role == RAFT_LEADER) {
        return 0;
    }
    if (raft->contact_ms == RAFT_NEVER_MS) {
        return UINT64_MAX;
    }
    return now_ms < raft->contact_ms ? 0 : now_ms - raft->contact_ms;
}

bool raft_progress(const struct raft *raft, raft_id id, uint64_t now_ms, struct raft_progress *out)
{
    if (raft_configuration_find(&raft->configuration, id) == NULL) {
        return false;
    }
    *out = (struct raft_progress){.match_index = 0, .last_contact_ms = UINT64_MAX};
    if (id == raft->options.id) {
        *out = (struct raft_progress){.match_index = raft->durable_index, .last_contact_ms = 0};
        return true;
    }
    for (size_t i = 0; i < raft->peer_count && raft->role == RAFT_LEADER; i++) {
        const struct raft_peer *peer = &raft->peers[i];
        if (peer->id == id) {
            out->match_index = peer->match_index;
            if (peer->answered_ms != RAFT_NEVER_MS && now_ms >= peer->answered_ms) {
                out->last_contact_ms = now_ms - peer->answered_ms;
            }
        }
    }
    return true;
}
