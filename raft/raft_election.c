/* Elections: time-outs, pre-vote, votes. Dissertation 3.4, 3.6.1, 4.2.3, 9.6. */

#include "raft/raft_internal.h"

#include <assert.h>
#include <string.h>

/* splitmix64: small, and any seed will do. */
static uint64_t raft_random(struct raft *raft)
{
    raft->random += 0x9E3779B97F4A7C15U;
    uint64_t mixed = raft->random;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
    return mixed ^ (mixed >> 31);
}

/* Whether the leader was lost so lately that its successor is still being elected. */
static bool raft_in_hurry(const struct raft *raft)
{
    return raft->leader_lost && raft->now_ms < raft->hurry_until_ms;
}

void raft_election_timer_start(struct raft *raft)
{
    const uint64_t shortest_ms = raft->options.election_ms;

    raft->election_timeout_ms = shortest_ms + raft_random(raft) % shortest_ms;
    raft->election_due_ms = raft->now_ms + raft->election_timeout_ms;
    if (raft_in_hurry(raft)) {
        /* Others may have been refusing because their guard ran for a little longer than ours, or
         * votes were split. Not for ever: on slow disks, no election can end so soon. */
        const uint64_t spread_ms = raft->options.lost_spread_ms;
        raft->election_due_ms = raft->now_ms + spread_ms + raft_random(raft) % spread_ms;
    }
}

/* A server that its newest configuration gives no vote stands all the same, without counting
 * itself, until that is committed: if nobody else has that entry, those who vote by the
 * configuration before cannot elect anyone without this server, whose log is ahead of theirs
 * (4.2.2). */
static bool raft_may_campaign(const struct raft *raft)
{
    const bool voter = raft_configuration_is_voter(&raft->configuration, raft->options.id);
    const bool was_voter =
        raft_configuration_is_voter(&raft->configuration_before, raft->options.id);

    return (voter || (was_voter && raft->configuration.index > raft->commit_index)) &&
           raft->term < RAFT_TERM_MAX;
}

/* Whether more than half of the voters have granted us theirs. */
static bool raft_votes_won(const struct raft *raft)
{
    size_t voters = 0;
    size_t granted = 0;

    for (size_t i = 0; i < raft->configuration.count; i++) {
        if (raft->configuration.servers[i].voter) {
            voters++;
            granted += raft->votes[i] ? 1 : 0;
        }
    }
    return granted > voters / 2;
}

static void raft_vote_count(struct raft *raft, raft_id from)
{
    for (size_t i = 0; i < raft->configuration.count; i++) {
        if (raft->configuration.servers[i].id == from) {
            raft->votes[i] = true;
        }
    }
}

static void raft_votes_ask(struct raft *raft, enum raft_message_type type, raft_term term)
{
    for (size_t i = 0; i < raft->configuration.count; i++) {
        const struct raft_server *server = &raft->configuration.servers[i];
        if (!server->voter || server->id == raft->options.id) {
            continue;
        }
        struct raft_message *message = raft_message_add(raft, type, server->id);
        message->term = term;
        message->last_index = raft->log.last_index;
        message->last_term = raft_log_last_term(&raft->log);
        message->transfer = raft->transfer_vote;
    }
}

static void raft_become_candidate(struct raft *raft)
{
    assert(raft_may_campaign(raft));

    raft_term_set(raft, raft->term + 1, raft->options.id);
    raft->role = RAFT_CANDIDATE;
    raft->leader = 0;
    memset(raft->votes, 0, sizeof(raft->votes));
    /* Not before our vote is durable: if we stopped now, we could come back without it and without
     * the newest entries, and collect the votes that were given for them. */
    raft->vote_requests_due = true;
    raft_election_timer_start(raft);
}

static void raft_become_pre_candidate(struct raft *raft)
{
    assert(raft->role != RAFT_LEADER);
    assert(raft_may_campaign(raft));

    raft->role = RAFT_PRE_CANDIDATE;
    raft->leader = 0;
    raft->vote_requests_due = false;
    raft->transfer_vote = false;
    memset(raft->votes, 0, sizeof(raft->votes));
    raft_election_timer_start(raft);
    raft_vote_count(raft, raft->options.id);
    if (raft_votes_won(raft)) {
        raft_become_candidate(raft);
    } else {
        raft_votes_ask(raft, RAFT_PRE_VOTE_REQUEST, raft->term + 1);
    }
}

void raft_election_timeout(struct raft *raft)
{
    assert(raft->now_ms >= raft->election_due_ms);

    if (raft_may_campaign(raft)) {
        raft_become_pre_candidate(raft);
        return;
    }
    /* A server without a vote only notes that nobody leads it. */
    raft->role = RAFT_FOLLOWER;
    raft->leader = 0;
    raft->election_due_ms = RAFT_NEVER_MS;
}

void raft_become_follower(struct raft *raft, raft_term term, raft_id leader)
{
    assert(term >= raft->term);
    assert(leader != raft->options.id);

    if (raft->role == RAFT_LEADER) {
        raft_reads_fail(raft);
        raft->transfer_to = 0;
        raft_election_timer_start(raft);
    }
    if (term > raft->term) {
        raft_term_set(raft, term, 0);
    }
    raft->role = RAFT_FOLLOWER;
    raft->leader = leader;
    raft->vote_requests_due = false;
    raft->transfer_vote = false;
}

void raft_leader_heard(struct raft *raft)
{
    assert(raft->role == RAFT_FOLLOWER);
    assert(raft->leader != 0);

    raft->leader_lost = false;
    raft->contact_ms = raft->now_ms;
    raft->refuse_until_ms = raft->now_ms + raft->options.election_ms;
    raft->election_due_ms = raft->now_ms + raft->election_timeout_ms;
}

/* When the lease has certainly ended that the leader we heard last holds on our word.
 *
 * A reset connection does not prove that the leader is dead: it may be alive, serve reads from its
 * lease, and be heard by others. So a voter that has lost it may neither vote nor pre-vote for
 * another one at once, but after lease_guard_ms without a word from it it may:
 *  1. The leader's lease at some moment rests on a majority of servers, each of which has answered
 * a round that was started less than lease_ms before, on the leader's clock (raft_read.c).
 *  2. Whoever answers a round has received a request of it, no earlier than its start, and has set
 *     contact_ms then or later. A late answer (withheld for the disk) carries an older round, never
 *     a younger one than the newest received.
 *  3. A new leader is elected by a majority, so by one server at least that is in both. It voted
 *     after contact_ms + lease_guard_ms on its clock, so more than lease_guard_ms after the start
 * of the newest round that it had answered; having voted in a later term, it answers none of this
 *     leader again. lease_guard_ms exceeds lease_ms by what the two clocks may differ, thus when it
 *     voted the lease that counts on it was over, and with it the leader's (1).
 * Without the loss, election_ms takes the guard's place in (3): the same argument, more patience.
 * The loss never overrides a leader that a majority hears: those who have not lost it refuse
 * pre-votes for election_ms, and nobody raises its term without a majority of pre-votes. After a
 * restart nothing is known of what was promised, and election_ms stands (raft_new). */
static uint64_t raft_lease_guarded_until_ms(const struct raft *raft)
{
    assert(raft->contact_ms != RAFT_NEVER_MS);

    return raft->contact_ms + raft->options.lease_guard_ms;
}

/* Whether a leader may count on us not to elect another one now (4.2.3; what its lease rests on).
 */
static bool raft_refuses_elections(const struct raft *raft)
{
    uint64_t until_ms = raft->refuse_until_ms;

    if (raft->leader_lost && raft_lease_guarded_until_ms(raft) < until_ms) {
        until_ms = raft_lease_guarded_until_ms(raft);
    }
    return raft->role == RAFT_LEADER || raft->now_ms < until_ms;
}

void raft_leader_lost(struct raft *raft, raft_id peer)
{
    if (raft->role != RAFT_FOLLOWER || raft->leader == 0 || raft->leader != peer ||
        raft->leader_lost) {
        return;
    }
    raft->leader_lost = true;
    raft->hurry_until_ms = raft->now_ms + raft->options.election_ms;
    uint64_t due_ms = raft_lease_guarded_until_ms(raft);
    if (due_ms < raft->now_ms) {
        due_ms = raft->now_ms;
    }
    due_ms += raft_random(raft) % raft->options.lost_spread_ms;
    if (due_ms < raft->election_due_ms) {
        raft->election_due_ms = due_ms;
    }
}

/* The election restriction: whether the candidate's log has all that ours has (3.6.1). */
static bool raft_up_to_date(const struct raft *raft, const struct raft_message *message)
{
    const raft_term last_term = raft_log_last_term(&raft->log);

    if (message->last_term != last_term) {
        return message->last_term > last_term;
    }
    return message->last_index >= raft->log.last_index;
}

void raft_pre_vote_request(struct raft *raft, const struct raft_message *message)
{
    /* Whatever the answer, neither term nor vote changes here (9.6). */
    const bool granted = message->term > raft->term && !raft_refuses_elections(raft) &&
                         raft_up_to_date(raft, message);
    struct raft_message *answer = raft_message_add(raft, RAFT_PRE_VOTE_RESPONSE, message->from);

    answer->granted = granted;
    /* A refusal carries our term, so that a candidate of a lower one catches up, instead of asking
     * for the same term for ever. */
    answer->term = granted ? message->term : raft->term;
    if (granted && raft->role == RAFT_FOLLOWER && raft_in_hurry(raft)) {
        /* It was faster: let it try before we do. */
        const uint64_t due_ms = raft->now_ms + 2 * (uint64_t)raft->options.lost_spread_ms;
        if (raft->election_due_ms < due_ms) {
            raft->election_due_ms = due_ms;
        }
    }
}

void raft_pre_vote_response(struct raft *raft, const struct raft_message *message)
{
    if (!message->granted) {
        if (message->term > raft->term) {
            raft_become_follower(raft, message->term, 0);
        }
        return;
    }
    if (raft->role != RAFT_PRE_CANDIDATE || message->term != raft->term + 1) {
        return;
    }
    raft_vote_count(raft, message->from);
    if (raft_votes_won(raft)) {
        raft_become_candidate(raft);
    }
}

static void raft_vote_refuse(struct raft *raft, raft_id candidate)
{
    raft_message_add(raft, RAFT_VOTE_RESPONSE, candidate)->granted = false;
}

void raft_vote_request(struct raft *raft, const struct raft_message *message)
{
    if (message->term < raft->term) {
        raft_vote_refuse(raft, message->from);
        return;
    }
    if (message->term > raft->term) {
        if (raft_refuses_elections(raft) && !message->transfer) {
            /* Nor is the term taken over: that would depose the leader that we hear. */
            raft_vote_refuse(raft, message->from);
            return;
        }
        raft_become_follower(raft, message->term, 0);
    }
    const bool free = raft->vote == 0 || raft->vote == message->from;
    if (!free || raft->leader != 0 || !raft_up_to_date(raft, message)) {
        raft_vote_refuse(raft, message->from);
        return;
    }
    if (raft->vote == 0) {
        /* Whoever has not voted in its term is no candidate or leader of it. */
        assert(raft->role == RAFT_FOLLOWER || raft->role == RAFT_PRE_CANDIDATE);
        raft_become_follower(raft, raft->term, 0);
        raft_term_set(raft, raft->term, message->from);
        raft->election_due_ms = raft->now_ms + raft->election_timeout_ms;
    }
    raft->vote_answer_to = message->from;
}

void raft_vote_response(struct raft *raft, const struct raft_message *message)
{
    if (message->term > raft->term) {
        raft_become_follower(raft, message->term, 0);
        return;
    }
    if (raft->role != RAFT_CANDIDATE || message->term < raft->term || !message->granted ||
        raft->vote_requests_due) {
        return;
    }
    raft_vote_count(raft, message->from);
    if (raft_votes_won(raft)) {
        raft_become_leader(raft);
    }
}

void raft_timeout_now(struct raft *raft, const struct raft_message *message)
{
    /* Only from the leader that we follow, and not if it has said anything since: this one may be
     * late, and the transfer given up. Should it be accepted all the same, that costs an election:
     * a leader that has sent it holds no lease any more. */
    if (message->term != raft->term || raft->role != RAFT_FOLLOWER ||
        raft->leader != message->from || message->round < raft->leader_round ||
        !raft_may_campaign(raft)) {
        return;
    }
    /* No pre-vote: everyone hears the leader. */
    raft->transfer_vote = true;
    raft_become_candidate(raft);
}

void raft_election_flush(struct raft *raft)
{
    if (!raft_hard_state_durable(raft)) {
        return;
    }
    if (raft->vote_answer_to != 0) {
        assert(raft->vote == raft->vote_answer_to);
        raft_message_add(raft, RAFT_VOTE_RESPONSE, raft->vote_answer_to)->granted = true;
        raft->vote_answer_to = 0;
    }
    if (raft->vote_requests_due) {
        assert(raft->role == RAFT_CANDIDATE);
        assert(raft->vote == raft->options.id);
        raft->vote_requests_due = false;
        raft_vote_count(raft, raft->options.id);
        if (raft_votes_won(raft)) {
            raft_become_leader(raft);
        } else {
            raft_votes_ask(raft, RAFT_VOTE_REQUEST, raft->term);
        }
    }
}
