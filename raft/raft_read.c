/* Rounds, and what rests on them: the leader's lease, check-quorum and reads.
 *
 * Every append request carries the number of a round; the answer repeats it, whether or not the
 * logs match. A server that answers round r was led by us at some time after r was started, and a
 * majority of such answers proves that no other leader had been elected when r was started. So:
 *  - ReadIndex (dissertation 6.4): a read may be served once a quorum has acknowledged a round that
 *    was started after the read came in;
 *  - lease (6.4.1): voters refuse to elect another leader for election_ms after they heard from us,
 *    or, if they lost the connection, for lease_guard_ms (raft_election.c has the proof). Counted
 *    from the *start* of the round, not from the answer, that leaves us lease_ms, which is shorter
 *    by what clocks may drift. Only a transfer goes round that: whoever asks for one gives up its
 *    lease (raft_transfer.c);
 *  - check-quorum (6.2): no acknowledged round younger than election_ms means that others may lead.
 */

#include "raft/raft_internal.h"

#include <assert.h>

static void raft_round_start(struct raft *raft)
{
    raft->round++;
    raft->round_started_ms[raft->round % RAFT_ROUNDS_MAX] = raft->now_ms;
}

uint64_t raft_round_now(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    if (raft->round == 0 || raft->round_started_ms[raft->round % RAFT_ROUNDS_MAX] < raft->now_ms) {
        raft_round_start(raft);
    }
    return raft->round;
}

void raft_round_acknowledged(struct raft *raft, struct raft_peer *peer, uint64_t round)
{
    assert(raft->role == RAFT_LEADER);
    assert(round <= raft->round);

    /* Answers overtake each other. */
    if (round <= peer->acked_round) {
        return;
    }
    peer->acked_round = round;
    /* The start of a round that is long past is forgotten: it proves leadership to a read that
     * waits for it, but no lease. */
    if (raft->round - round < RAFT_ROUNDS_MAX) {
        const uint64_t started_ms = raft->round_started_ms[round % RAFT_ROUNDS_MAX];
        assert(started_ms >= peer->acked_sent_ms);
        assert(started_ms <= raft->now_ms);
        peer->acked_sent_ms = started_ms;
    }
}

/* The newest round that a quorum has acknowledged; 0: none. */
static uint64_t raft_round_quorum(const struct raft *raft)
{
    uint64_t rounds[RAFT_SERVERS_MAX];
    size_t count = 0;

    if (raft_configuration_is_voter(&raft->configuration, raft->options.id)) {
        rounds[count++] = raft->round;
    }
    for (size_t i = 0; i < raft->peer_count; i++) {
        if (raft->peers[i].voter) {
            rounds[count++] = raft->peers[i].acked_round;
        }
    }
    return raft_quorum_value(rounds, count);
}

/* When the newest round that a quorum has acknowledged was started, plus one; 0: none in this term.
 * A server that hears only itself counts as always acknowledged. */
static uint64_t raft_round_quorum_sent(const struct raft *raft, uint64_t now_ms, uint64_t none_ms)
{
    uint64_t sent[RAFT_SERVERS_MAX];
    size_t count = 0;

    if (raft_configuration_is_voter(&raft->configuration, raft->options.id)) {
        sent[count++] = now_ms + 1;
    }
    for (size_t i = 0; i < raft->peer_count; i++) {
        const struct raft_peer *peer = &raft->peers[i];
        if (peer->voter) {
            sent[count++] = peer->acked_round == 0 ? none_ms : peer->acked_sent_ms + 1;
        }
    }
    return raft_quorum_value(sent, count);
}

bool raft_lease_valid(const struct raft *raft, uint64_t now_ms)
{
    if (raft->role != RAFT_LEADER || raft->lease_given_up ||
        raft->commit_index < raft->own_term_index) {
        return false;
    }
    const uint64_t sent = raft_round_quorum_sent(raft, now_ms, 0);
    return sent != 0 && now_ms < sent - 1 + raft->options.lease_ms;
}

uint64_t raft_check_quorum_due_ms(const struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    /* A new leader, or a new quorum, has election_ms to be heard. */
    const uint64_t sent =
        raft_round_quorum_sent(raft, RAFT_NEVER_MS - 1, raft->quorum_since_ms + 1);
    if (sent == RAFT_NEVER_MS) {
        return RAFT_NEVER_MS;
    }
    assert(sent > 0);
    const uint64_t newest_ms = sent - 1 > raft->quorum_since_ms ? sent - 1 : raft->quorum_since_ms;
    return newest_ms + raft->options.election_ms;
}

static void raft_read_answer(struct raft *raft, uint64_t token, int status)
{
    assert(raft->read_count < RAFT_READS_MAX);

    raft->reads[raft->read_count++] = (struct raft_read){
        .token = token,
        .status = status,
        .index = status == RAFT_OK ? raft->commit_index : 0,
    };
}

void raft_read(struct raft *raft, uint64_t token, bool quorum)
{
    if (raft->role != RAFT_LEADER) {
        raft_read_answer(raft, token, RAFT_ENOTLEADER);
        return;
    }
    assert(raft->waiting_count < RAFT_READS_MAX);
    /* Not the current round, even if it is of this millisecond: its messages may be older than the
     * read, and then their answers prove nothing about it. */
    raft->waiting[raft->waiting_count++] =
        (struct raft_waiting_read){.token = token, .quorum = quorum, .round = raft->round + 1};
}

void raft_reads_release(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    /* Before an entry of our term is committed, our commit index may lag behind what an earlier
     * leader has acknowledged (dissertation 6.4). */
    if (raft->waiting_count == 0 || raft->commit_index < raft->own_term_index) {
        return;
    }
    const uint64_t round = raft_round_quorum(raft);
    const bool lease = raft_lease_valid(raft, raft->now_ms);
    size_t kept = 0;
    for (size_t i = 0; i < raft->waiting_count; i++) {
        const struct raft_waiting_read *read = &raft->waiting[i];
        if (read->round <= round || (lease && !read->quorum)) {
            raft_read_answer(raft, read->token, RAFT_OK);
        } else {
            raft->waiting[kept++] = *read;
        }
    }
    raft->waiting_count = kept;
}

void raft_reads_start_round(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    if (raft->waiting_count == 0 || raft->waiting[raft->waiting_count - 1].round <= raft->round) {
        return;
    }
    /* One round for reads at a time: those that come while it runs share the next. Should it be
     * lost, the next heartbeat's round serves all. */
    if (raft->read_round <= raft_round_quorum(raft) || raft->read_round < raft->waiting[0].round) {
        raft_round_start(raft);
        raft->read_round = raft->round;
        raft->broadcast_due = true;
    }
}

void raft_reads_fail(struct raft *raft)
{
    for (size_t i = 0; i < raft->waiting_count; i++) {
        raft_read_answer(raft, raft->waiting[i].token, RAFT_ENOTLEADER);
    }
    raft->waiting_count = 0;
}
