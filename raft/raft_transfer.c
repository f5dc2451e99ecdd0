/* Handing leadership over. Dissertation 3.10.
 *
 * The leader takes no more proposals, lets replication bring the target to the end of its log, and
 * asks it (TIMEOUT_NOW) to campaign at once: without pre-vote, and with a mark on its requests that
 * makes voters forget that they hear a leader. That mark goes round what the lease rests on, and
 * the request may arrive at any later time, also long after the transfer was given up. So a leader
 * that has asked holds no lease for the rest of its term: its reads confirm leadership by a round
 * each. Proposals are taken again when the transfer has failed. */

#include "raft/raft_internal.h"

#include <assert.h>

raft_id raft_transfer_target(const struct raft *raft)
{
    return raft->transfer_to;
}

static bool raft_transfer_possible(const struct raft *raft, const struct raft_peer *peer)
{
    return peer->voter && peer->answered_ms != RAFT_NEVER_MS &&
           raft->now_ms < peer->answered_ms + raft->options.election_ms;
}

static bool raft_transfer_better(const struct raft_peer *peer, const struct raft_peer *than)
{
    if (peer->match_index != than->match_index) {
        return peer->match_index > than->match_index;
    }
    /* While nothing is written, one that has just died lacks as little as the others. */
    return peer->answered_ms > than->answered_ms;
}

static bool raft_transfer_avoided(const struct raft_event *event, raft_id id)
{
    for (size_t i = 0; event != NULL && i < event->avoid_count; i++) {
        if (event->avoid[i] == id) {
            return true;
        }
    }
    return false;
}

/* The voter that lacks least, and among those the one that was heard last; NULL if none has
 * answered lately, or all of them need a snapshot first: that takes too long. `event` says whom to
 * avoid; NULL: nobody. */
static const struct raft_peer *raft_transfer_best(const struct raft *raft,
                                                  const struct raft_event *event)
{
    const struct raft_peer *best = NULL;

    for (size_t i = 0; i < raft->peer_count; i++) {
        const struct raft_peer *peer = &raft->peers[i];
        if (raft_transfer_possible(raft, peer) && peer->state != RAFT_PEER_SNAPSHOT &&
            !raft_transfer_avoided(event, peer->id) &&
            (best == NULL || raft_transfer_better(peer, best))) {
            best = peer;
        }
    }
    return best;
}

static const struct raft_peer *raft_transfer_choose(const struct raft *raft,
                                                    const struct raft_event *event)
{
    const raft_id target = event->peer;

    if (target == 0) {
        return raft_transfer_best(raft, event);
    }
    for (size_t i = 0; i < raft->peer_count; i++) {
        if (raft->peers[i].id == target && raft->peers[i].voter) {
            return &raft->peers[i];
        }
    }
    return NULL;
}

int raft_transfer_check(const struct raft *raft, const struct raft_event *event)
{
    const raft_id target = event->peer;

    if (raft->role != RAFT_LEADER) {
        return RAFT_ENOTLEADER;
    }
    if (raft->transfer_to != 0) {
        return target == 0 || target == raft->transfer_to ? RAFT_OK : RAFT_ETRANSFER;
    }
    return raft_transfer_choose(raft, event) != NULL ? RAFT_OK : RAFT_EINVAL;
}

void raft_transfer(struct raft *raft, const struct raft_event *event)
{
    assert(raft->role == RAFT_LEADER);

    if (raft->transfer_to != 0) {
        return; /* The same again does not get more time. */
    }
    /* Checked with the event. Time may have passed since, but not in favour of another answer. */
    const struct raft_peer *peer = raft_transfer_choose(raft, event);
    if (peer == NULL) {
        return;
    }
    raft->transfer_to = peer->id;
    raft->transfer_due_ms = raft->now_ms + raft->options.election_ms;
    raft->transfer_send_ms = raft->now_ms;
}

void raft_transfer_timer(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    if (raft->transfer_to != 0 && raft->now_ms >= raft->transfer_due_ms) {
        raft->transfer_to = 0;
    }
}

void raft_transfer_removed(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    if (raft->commit_index < raft->configuration.index ||
        raft_configuration_is_voter(&raft->configuration, raft->options.id)) {
        return;
    }
    /* This step's messages tell the others that the change is committed (4.2.2). One of them takes
     * over at once rather than after a time-out. */
    const struct raft_peer *peer = raft_transfer_best(raft, NULL);
    if (peer != NULL && peer->match_index == raft->log.last_index) {
        raft_message_add(raft, RAFT_TIMEOUT_NOW, peer->id)->round = raft_round_now(raft);
    }
    raft_become_follower(raft, raft->term, 0);
}

void raft_transfer_flush(struct raft *raft)
{
    assert(raft->role == RAFT_LEADER);

    if (raft->transfer_to == 0 || raft->now_ms < raft->transfer_send_ms) {
        return;
    }
    const struct raft_peer *peer = raft_peer_find(raft, raft->transfer_to);
    assert(peer != NULL); /* No change of configuration is taken meanwhile. */
    if (peer->match_index < raft->log.last_index) {
        return;
    }
    /* Again with every heartbeat: it may be lost, or be overtaken, which makes it void. */
    raft_message_add(raft, RAFT_TIMEOUT_NOW, peer->id)->round = raft_round_now(raft);
    raft->transfer_send_ms = raft->now_ms + raft->options.heartbeat_ms;
    raft->lease_given_up = true;
}
