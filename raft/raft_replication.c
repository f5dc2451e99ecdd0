/* Replication: the leader's requests and what it knows of its followers, the follower's side, and
 * commitment. Dissertation 3.5, 3.6.2, 10.2. */

#include "raft/raft_internal.h"

#include <assert.h>
#include <string.h>

/* --- follower --- */

/* Whether our log has the entry that the request builds on. What is no longer in the log was
 * committed, so every leader has it. */
static bool raft_prev_matches(const struct raft *raft, const struct raft_message *message)
{
    if (message->prev_index + 1 < raft->log.first_index) {
        return true;
    }
    return message->prev_index <= raft->log.last_index &&
           raft_log_term_at(&raft->log, message->prev_index) == message->prev_term;
}

/* How many of the request's entries are in our log already. The entry before our first one is
 * known, too: who has another one there would bring entries of terms that fall. */
static size_t raft_entries_known(const struct raft *raft, const struct raft_event *event)
{
    size_t known = 0;

    while (known < event->entry_count) {
        const struct raft_entry *entry = &event->entries[known];
        if (entry->index > raft->log.last_index ||
            (entry->index + 1 >= raft->log.first_index &&
             raft_log_term_at(&raft->log, entry->index) != entry->term)) {
            break;
        }
        known++;
    }
    return known;
}

static int raft_entries_check(const struct raft_event *event)
{
    const struct raft_message *message = event->message;
    raft_term term = message->prev_term;
    struct raft_configuration configuration;

    if (event->entry_count != message->entry_count ||
        event->entry_count > RAFT_APPEND_ENTRIES_MAX ||
        (event->entry_count > 0 && event->entries == NULL)) {
        return RAFT_EINVAL;
    }
    for (size_t i = 0; i < event->entry_count; i++) {
        const struct raft_entry *entry = &event->entries[i];
        if (entry->index != message->prev_index + 1 + i || entry->term == 0 || entry->term < term ||
            entry->term > message->term) {
            return RAFT_EINVAL;
        }
        term = entry->term;
        if (entry->type != RAFT_ENTRY_NOOP && entry->type != RAFT_ENTRY_COMMAND &&
            entry->type != RAFT_ENTRY_CONFIGURATION) {
            return RAFT_EINVAL;
        }
        if (entry->type == RAFT_ENTRY_CONFIGURATION &&
            raft_configuration_decode(entry->data, entry->size, &configuration) != 0) {
            return RAFT_EINVAL;
        }
    }
    return RAFT_OK;
}

int raft_append_request_check(const struct raft *raft, const struct raft_event *event)
{
    const struct raft_message *message = event->message;

    if (message->term == 0 || message->prev_term > message->term ||
        (message->prev_index == 0) != (message->prev_term == 0) || raft_entries_check(event) != 0) {
        return RAFT_EINVAL;
    }
    if (message->term < raft->term) {
        return RAFT_OK; /* It is refused without a look at its entries. */
    }
    if (message->term == raft->term &&
        (raft->role == RAFT_LEADER || (raft->leader != 0 && raft->leader != message->from))) {
        return RAFT_EINVAL; /* A term has one leader. */
    }
    /* Every leader has what is committed, and a leader's log only grows. Who contradicts that is
     * none of ours. */
    raft_index certain_index = raft->commit_index;
    if (message->term == raft->term && raft->verified_index > certain_index) {
        certain_index = raft->verified_index;
    }
    if (!raft_prev_matches(raft, message)) {
        return message->prev_index <= certain_index ? RAFT_EINVAL : RAFT_OK;
    }
    const size_t known = raft_entries_known(raft, event);
    if (known == event->entry_count || event->entries[known].index > raft->log.last_index) {
        return RAFT_OK;
    }
    /* A conflict. Of two configurations at most the newer one is uncommitted (4.1). */
    const raft_index conflict_index = event->entries[known].index;
    if (conflict_index <= certain_index || conflict_index <= raft->configuration_before.index) {
        return RAFT_EINVAL;
    }
    return RAFT_OK;
}

/* Refuses a request of an earlier term, or one that does not fit our log. */
static void raft_append_refuse(struct raft *raft, const struct raft_message *message)
{
    struct raft_message *answer = raft_message_add(raft, RAFT_APPEND_RESPONSE, message->from);

    answer->granted = false;
    if (message->term < raft->term) {
        /* Our term says it all. Not the round: the answer carries a later term than the request,
         * and the same server may lead that one, too, counting other rounds. */
        return;
    }
    answer->round = message->round;
    /* Our last entry whose term is not above prev_term's: between it and prev_index there is
     * nothing that we can have in common, so whole terms are skipped in one turn (3.5). */
    answer->match_index = message->prev_index;
    answer->hint_index = raft_log_skip_back(&raft->log, message->prev_index, message->prev_term);
    answer->hint_term = raft_log_term_at(&raft->log, answer->hint_index);
}

/* What may be acknowledged: durable, and equal to the leader's log. */
static raft_index raft_match_index(const struct raft *raft)
{
    return raft->verified_index < raft->durable_index ? raft->verified_index : raft->durable_index;
}

bool raft_leader_follow(struct raft *raft, const struct raft_message *message)
{
    if (message->term < raft->term) {
        raft_append_refuse(raft, message);
        return false;
    }
    raft_become_follower(raft, message->term, message->from);
    raft_leader_heard(raft);
    if (message->round > raft->leader_round) {
        raft->leader_round = message->round;
    }
    return true;
}

void raft_append_request(struct raft *raft, const struct raft_event *event)
{
    const struct raft_message *message = event->message;

    if (!raft_leader_follow(raft, message)) {
        return;
    }
    if (!raft_prev_matches(raft, message)) {
        raft_append_refuse(raft, message);
        return;
    }

    /* Only a conflict truncates: a late, short request says nothing about what comes after it. */
    const size_t known = raft_entries_known(raft, event);
    if (known < event->entry_count && event->entries[known].index <= raft->log.last_index) {
        raft_entries_truncate(raft, event->entries[known].index);
    }
    for (size_t i = known; i < event->entry_count; i++) {
        raft_entry_append(raft, &event->entries[i]);
    }

    const raft_index end_index = message->prev_index + event->entry_count;
    if (end_index > raft->verified_index) {
        raft->verified_index = end_index;
    }
    /* Not up to our last entry: what follows the verified ones may be another leader's. */
    const raft_index commit_index =
        message->commit_index < raft->verified_index ? message->commit_index : raft->verified_index;
    if (commit_index > raft->commit_index) {
        assert(commit_index <= raft->log.last_index);
        raft->commit_index = commit_index;
    }
    /* Entries are answered when they are durable, heartbeats at once. */
    if (event->entry_count == 0 || end_index <= raft->durable_index) {
        raft->ack_due = true;
    } else if (raft_match_index(raft) > raft->acked_index) {
        /* What is durable of the entries before them is not worth a message of its own. */
        raft->acked_index = raft_match_index(raft);
    }
}

void raft_acknowledge_flush(struct raft *raft)
{
    if (raft->role != RAFT_FOLLOWER || raft->leader == 0) {
        raft->ack_due = false;
        return;
    }
    const raft_index match_index = raft_match_index(raft);
    if (match_index <= raft->acked_index && !raft->ack_due) {
        return;
    }
    struct raft_message *answer = raft_message_add(raft, RAFT_APPEND_RESPONSE, raft->leader);
    answer->granted = true;
    answer->round = raft->leader_round;
    answer->match_index = match_index;
    raft->acked_index = match_index;
    raft->ack_due = false;
}

/* --- leader --- */

struct raft_peer *raft_peer_find(struct raft *raft, raft_id id)
{
    for (size_t i = 0; i < raft->peer_count; i++) {
        if (raft->peers[i].id == id) {
            return &raft->peers[i];
        }
    }
    return NULL;
}

static void raft_peer_add(struct raft *raft, const struct raft_server *server)
{
    assert(raft->peer_count < RAFT_SERVERS_MAX);

    struct raft_peer *peer = &raft->peers[raft->peer_count];
    raft_index *const inflight = peer->inflight;
    *peer = (struct raft_peer){
        .id = server->id,
        .voter = server->voter,
        .state = RAFT_PEER_PROBE,
        .next_index = raft->log.last_index + 1,
        .answered_ms = RAFT_NEVER_MS,
        .inflight = inflight,
    };
    raft->peer_count++;
}

static void raft_peer_remove(struct raft *raft, size_t at)
{
    assert(at < raft->peer_count);

    raft->peer_count--;
    const struct raft_peer removed = raft->peers[at];
    raft->peers[at] = raft->peers[raft->peer_count];
    raft->peers[raft->peer_count].inflight = removed.inflight;
}

void raft_peers_update(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    for (size_t i = raft->peer_count; i-- > 0;) {
        if (raft_configuration_find(&raft->configuration, raft->peers[i].id) == NULL) {
            raft_peer_remove(raft, i);
        }
    }
    for (size_t i = 0; i < raft->configuration.count; i++) {
        const struct raft_server *server = &raft->configuration.servers[i];
        struct raft_peer *peer = raft_peer_find(raft, server->id);
        if (peer != NULL) {
            peer->voter = server->voter;
        } else if (server->id != raft->options.id) {
            raft_peer_add(raft, server);
        }
    }
    raft->quorum_since_ms = raft->now_ms;
}

void raft_become_leader(struct raft *raft)
{
    assert(raft->role == RAFT_CANDIDATE);
    assert(raft->vote == raft->options.id);
    assert(raft_hard_state_durable(raft));
    assert(raft->waiting_count == 0);

    raft->role = RAFT_LEADER;
    raft->leader = raft->options.id;
    raft->peer_count = 0;
    raft_peers_update(raft);
    raft->heartbeat_due_ms = raft->now_ms;
    raft->read_round = 0;
    raft->leader_lost = false;
    raft->transfer_vote = false;
    raft->lease_given_up = false;
    assert(raft->transfer_to == 0);
    /* Committing it commits all before it (3.6.2, 6.4). */
    const struct raft_entry noop = {
        .index = raft->log.last_index + 1, .term = raft->term, .type = RAFT_ENTRY_NOOP};
    raft_entry_append(raft, &noop);
    raft->own_term_index = noop.index;
}

static void raft_peer_inflight_free(struct raft *raft, struct raft_peer *peer)
{
    while (peer->inflight_count > 0 && peer->inflight[peer->inflight_first] <= peer->match_index) {
        peer->inflight_first = (peer->inflight_first + 1) % raft->options.inflight_max;
        peer->inflight_count--;
    }
}

static void raft_peer_inflight_add(struct raft *raft, struct raft_peer *peer, raft_index end_index)
{
    assert(peer->inflight_count < raft->options.inflight_max);

    const size_t slot = (peer->inflight_first + peer->inflight_count) % raft->options.inflight_max;
    peer->inflight[slot] = end_index;
    peer->inflight_count++;
}

/* Whether our log has what follows the peer's. */
static bool raft_peer_in_reach(const struct raft *raft, const struct raft_peer *peer)
{
    return peer->match_index + 1 >= raft->log.first_index;
}

static void raft_peer_probe_at(struct raft_peer *peer, raft_index next_index)
{
    peer->state = RAFT_PEER_PROBE;
    peer->next_index = next_index;
    peer->probe_sent = false;
    peer->inflight_count = 0;
}

void raft_peers_compacted(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    /* Perhaps its log reaches that far by now; if not, its refusal tells. */
    for (size_t i = 0; i < raft->peer_count; i++) {
        if (raft->peers[i].next_index < raft->log.first_index &&
            raft->peers[i].state != RAFT_PEER_SNAPSHOT) {
            raft_peer_probe_at(&raft->peers[i], raft->log.first_index);
        }
    }
}

static void raft_peer_granted(struct raft *raft, struct raft_peer *peer, raft_index match_index)
{
    if (match_index > peer->match_index) {
        peer->match_index = match_index;
    }
    if (!raft_peer_in_reach(raft, peer)) {
        return; /* An answer from before the log was compacted. */
    }
    if (peer->state != RAFT_PEER_REPLICATE) {
        peer->state = RAFT_PEER_REPLICATE;
        peer->next_index = peer->match_index + 1;
        peer->inflight_count = 0;
    }
    if (peer->next_index <= peer->match_index) {
        peer->next_index = peer->match_index + 1;
    }
    raft_peer_inflight_free(raft, peer);
    assert(peer->next_index <= raft->log.last_index + 1);
}

static void raft_peer_refused(struct raft *raft, struct raft_peer *peer,
                              const struct raft_message *message)
{
    const raft_index refused_index = message->match_index;

    if (peer->state == RAFT_PEER_SNAPSHOT) {
        return; /* Heartbeats do not match until it has installed one. */
    }
    /* Late answers: to what has matched since, or to another probe than the one that is out. */
    if (refused_index <= peer->match_index || refused_index >= peer->next_index ||
        (peer->state == RAFT_PEER_PROBE && refused_index + 1 != peer->next_index)) {
        return;
    }
    /* Our last entry whose term is not above the hint's: the counterpart of the follower's skip. */
    raft_index try_index = raft_log_skip_back(&raft->log, message->hint_index, message->hint_term);
    if (try_index >= refused_index) {
        try_index = refused_index - 1;
    }
    if (try_index < peer->match_index) {
        try_index = peer->match_index;
    }
    if (refused_index < raft->log.first_index) {
        /* It lacks the entry before our first one. */
        peer->state = RAFT_PEER_SNAPSHOT;
        peer->inflight_count = 0;
        peer->snapshot_due_ms = raft->now_ms;
        return;
    }
    if (try_index + 1 < raft->log.first_index) {
        try_index = raft->log.first_index - 1;
    }
    raft_peer_probe_at(peer, try_index + 1);
}

int raft_append_response_check(const struct raft *raft, const struct raft_message *message)
{
    if (raft->role != RAFT_LEADER || message->term != raft->term) {
        return RAFT_OK; /* Nothing but the term is used. */
    }
    if (message->round > raft->round || message->match_index > raft->log.last_index) {
        return RAFT_EINVAL; /* An answer to what we never sent. */
    }
    return RAFT_OK;
}

void raft_append_response(struct raft *raft, const struct raft_message *message)
{
    if (message->term > raft->term) {
        raft_become_follower(raft, message->term, 0);
        return;
    }
    if (raft->role != RAFT_LEADER || message->term < raft->term) {
        return;
    }
    struct raft_peer *peer = raft_peer_find(raft, message->from);
    if (peer == NULL) {
        return;
    }
    peer->answered_ms = raft->now_ms;
    raft_round_acknowledged(raft, peer, message->round);
    if (message->granted) {
        raft_peer_granted(raft, peer, message->match_index);
    } else {
        raft_peer_refused(raft, peer, message);
    }
}

void raft_commit_advance(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    raft_index matches[RAFT_SERVERS_MAX];
    size_t count = 0;
    if (raft_configuration_is_voter(&raft->configuration, raft->options.id)) {
        /* Like everyone, we count for what is on our disk (10.2). */
        matches[count++] = raft->durable_index;
    }
    for (size_t i = 0; i < raft->peer_count; i++) {
        if (raft->peers[i].voter) {
            matches[count++] = raft->peers[i].match_index;
        }
    }
    const raft_index index = raft_quorum_value(matches, count);
    /* An entry of an earlier term can still be replaced although a quorum has it (3.6.2). */
    if (index > raft->commit_index && raft_log_term_at(&raft->log, index) == raft->term) {
        assert(index <= raft->log.last_index);
        raft->commit_index = index;
    }
}

/* Sends entries next_index..end_index, none if end_index is next_index - 1. */
static void raft_peer_send(struct raft *raft, struct raft_peer *peer, raft_index end_index)
{
    assert(peer->next_index >= raft->log.first_index);
    assert(end_index + 1 >= peer->next_index);
    assert(end_index <= raft->log.last_index);

    struct raft_message *message = raft_message_add(raft, RAFT_APPEND_REQUEST, peer->id);
    message->prev_index = peer->next_index - 1;
    message->prev_term = raft_log_term_at(&raft->log, message->prev_index);
    message->commit_index = raft->commit_index;
    message->entry_count = (size_t)(end_index + 1 - peer->next_index);
    message->round = raft_round_now(raft);
    peer->told_commit_index = raft->commit_index;
    peer->sent = true;
}

/* The last entry of the next batch for the peer. */
static raft_index raft_peer_batch_end(const struct raft *raft, const struct raft_peer *peer)
{
    const raft_index first = peer->next_index;
    raft_index last = raft->log.last_index;

    assert(first <= last);
    if (last - first >= RAFT_APPEND_ENTRIES_MAX) {
        last = first + RAFT_APPEND_ENTRIES_MAX - 1;
    }
    const raft_index end =
        raft->options.batch_end(raft->options.host, first, last, raft->options.append_bytes_max);
    assert(end >= first);
    assert(end <= last);
    return end;
}

static void raft_peer_replicate(struct raft *raft, struct raft_peer *peer)
{
    while (peer->next_index <= raft->log.last_index &&
           peer->inflight_count < raft->options.inflight_max) {
        const raft_index end_index = raft_peer_batch_end(raft, peer);
        raft_peer_send(raft, peer, end_index);
        raft_peer_inflight_add(raft, peer, end_index);
        peer->next_index = end_index + 1;
    }
}

static void raft_peer_probe(struct raft *raft, struct raft_peer *peer)
{
    if (peer->probe_sent) {
        return;
    }
    /* With entries, because most probes match. While there is no answer, heartbeats repeat it
     * without them: the peer may be down. */
    const raft_index end_index = peer->next_index <= raft->log.last_index
                                     ? raft_peer_batch_end(raft, peer)
                                     : raft->log.last_index;
    raft_peer_send(raft, peer, end_index);
    peer->probe_sent = true;
}

/* Asks it to fetch our snapshot; again now and then, since asking may be lost, and fetching fail.
 */
static void raft_peer_snapshot(struct raft *raft, struct raft_peer *peer)
{
    /* Heartbeats ask whether it has what lies before our first entry. */
    peer->next_index = raft->log.first_index;
    if (raft->now_ms < peer->snapshot_due_ms) {
        return;
    }
    struct raft_message *message = raft_message_add(raft, RAFT_SNAPSHOT_REQUEST, peer->id);
    message->prev_index = raft->log.first_index - 1;
    message->prev_term = raft->log.prev_term;
    message->round = raft_round_now(raft);
    peer->snapshot_due_ms = raft->now_ms + raft->options.election_ms;
}

void raft_replication_flush(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    if (raft->now_ms >= raft->heartbeat_due_ms) {
        raft->broadcast_due = true;
        raft->heartbeat_due_ms = raft->now_ms + raft->options.heartbeat_ms;
    }
    for (size_t i = 0; i < raft->peer_count; i++) {
        struct raft_peer *peer = &raft->peers[i];
        bool tell_commit = false;
        switch (peer->state) {
        case RAFT_PEER_PROBE:
            raft_peer_probe(raft, peer);
            break;
        case RAFT_PEER_REPLICATE:
            raft_peer_replicate(raft, peer);
            /* Now, not with the next heartbeat: clients of that server wait for it. */
            tell_commit = peer->told_commit_index < raft->commit_index;
            break;
        case RAFT_PEER_SNAPSHOT:
            raft_peer_snapshot(raft, peer);
            break;
        }
        if (!peer->sent && (raft->broadcast_due || tell_commit)) {
            raft_peer_send(raft, peer, peer->next_index - 1);
        }
        peer->sent = false;
    }
    raft->broadcast_due = false;
}
