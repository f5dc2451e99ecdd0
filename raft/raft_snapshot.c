/* Snapshots: the log's beginning moves, and followers that need what is gone fetch the state
 * instead. Dissertation 5.1 to 5.3. The file and its way to the follower are the host's.
 *
 * A follower in state SNAPSHOT is told again and again to fetch, and gets heartbeats all the time,
 * which it cannot match: the first that it does match, because it has installed some snapshot or
 * because late entries have closed the gap, ends the state. So nothing that is lost, late or given
 * up can leave it there. */

#include "raft/raft_internal.h"

#include <assert.h>
#include <string.h>

int raft_compact(struct raft *raft, raft_index index)
{
    if (index > raft->commit_index || index > raft->durable_index) {
        return RAFT_EINVAL;
    }
    if (index < raft->log.first_index) {
        return RAFT_OK;
    }
    raft_log_compact(&raft->log, index);
    if (raft->role == RAFT_LEADER) {
        raft_peers_compacted(raft);
    }
    return RAFT_OK;
}

bool raft_snapshot_wanted(const struct raft *raft, raft_index index, raft_term term)
{
    if (index <= raft->commit_index || raft->role == RAFT_LEADER ||
        term < raft_log_term_at(&raft->log, raft->commit_index)) {
        return false;
    }
    /* Entries of our own may contradict it, and go; those that we have from the leader that we
     * follow stay. If it is the leader that is wrong, because there is a later one already, that
     * one will ask us to fetch again. */
    return term > raft->term || index > raft->verified_index ||
           raft_log_term_at(&raft->log, index) == term;
}

/* --- a follower is asked to fetch --- */

/* Whether everything up to the snapshot is in our log already. */
static bool raft_snapshot_known(const struct raft *raft, raft_index index, raft_term term)
{
    return index <= raft->commit_index ||
           (index <= raft->log.last_index && raft_log_term_at(&raft->log, index) == term);
}

int raft_snapshot_request_check(const struct raft *raft, const struct raft_message *message)
{
    if (message->entry_count != 0 || message->prev_index == 0 || message->prev_term == 0 ||
        message->prev_term > message->term) {
        return RAFT_EINVAL;
    }
    if (message->term < raft->term) {
        return RAFT_OK;
    }
    if (message->term == raft->term &&
        (raft->role == RAFT_LEADER || (raft->leader != 0 && raft->leader != message->from))) {
        return RAFT_EINVAL; /* A term has one leader. */
    }
    /* What is committed is the same everywhere. */
    if (message->prev_index <= raft->commit_index &&
        message->prev_index + 1 >= raft->log.first_index &&
        raft_log_term_at(&raft->log, message->prev_index) != message->prev_term) {
        return RAFT_EINVAL;
    }
    return RAFT_OK;
}

void raft_snapshot_request(struct raft *raft, const struct raft_message *message)
{
    if (!raft_leader_follow(raft, message)) {
        return;
    }
    if (raft_snapshot_known(raft, message->prev_index, message->prev_term)) {
        /* A late request, or entries came after all. */
        if (message->prev_index > raft->verified_index) {
            raft->verified_index = message->prev_index;
        }
        raft->ack_due = true;
        return;
    }
    if (!raft_hard_state_durable(raft)) {
        return; /* A snapshot without a term beside it is what a lost log looks like. Asked again.
                 */
    }
    raft->snapshot_from = message->from;
    raft->snapshot_index = message->prev_index;
}

/* --- it has fetched --- */

int raft_snapshot_installed_check(const struct raft *raft, const struct raft_snapshot *snapshot)
{
    if (snapshot->index == 0 || snapshot->index > RAFT_INDEX_MAX || snapshot->term == 0 ||
        snapshot->term > RAFT_TERM_MAX || snapshot->configuration == NULL ||
        !raft_configuration_valid(snapshot->configuration) ||
        snapshot->configuration->index > snapshot->index) {
        return RAFT_EINVAL;
    }
    return raft_snapshot_wanted(raft, snapshot->index, snapshot->term) ? RAFT_OK : RAFT_ESTALE;
}

/* The log goes on behind the snapshot: only what is in both is dropped (and not even written: the
 * host trims its log when it likes). A configuration behind the snapshot stays in force, and what
 * it would be rolled back to is the snapshot's, if that is the one before. */
static void raft_snapshot_keep_suffix(struct raft *raft, const struct raft_snapshot *snapshot)
{
    raft_log_compact(&raft->log, snapshot->index);
    if (raft->configuration.index <= snapshot->index) {
        raft->configuration = *snapshot->configuration;
        memset(&raft->configuration_before, 0, sizeof(raft->configuration_before));
    } else if (raft->configuration_before.index <= snapshot->index) {
        raft->configuration_before = *snapshot->configuration;
    }
    if (raft->durable_index < snapshot->index) {
        raft->durable_index = snapshot->index;
    }
}

/* The log ends before the snapshot, or has another entry there: nothing of it stays. Nor does an
 * uncommitted configuration in it, whatever its index: quorums of it and of the cluster's might be
 * disjoint. */
static void raft_snapshot_reset(struct raft *raft, const struct raft_snapshot *snapshot)
{
    raft_log_reset(&raft->log, snapshot->index, snapshot->term);
    raft->reset_index = snapshot->index;
    raft->configuration = *snapshot->configuration;
    memset(&raft->configuration_before, 0, sizeof(raft->configuration_before));
    raft->durable_index = snapshot->index;
    /* Writes under way hold entries of the log that is gone. */
    for (size_t i = 0; i < raft->write_count; i++) {
        raft->writes[(raft->write_first + i) % RAFT_WRITES_MAX].end_index = 0;
    }
}

void raft_snapshot_installed(struct raft *raft, const struct raft_snapshot *snapshot)
{
    assert(raft->role != RAFT_LEADER);
    assert(snapshot->index > raft->commit_index);

    /* A candidate has asked for votes with the log that it had. Who has not heard a leader for long
     * and had no vote waits for nothing any more, and may have one now. */
    if (raft->role != RAFT_FOLLOWER || raft->election_due_ms == RAFT_NEVER_MS) {
        raft_become_follower(raft, raft->term, 0);
        raft_election_timer_start(raft);
    }
    if (snapshot->term > raft->term) {
        raft_become_follower(raft, snapshot->term, 0);
    }
    if (raft_snapshot_known(raft, snapshot->index, snapshot->term)) {
        raft_snapshot_keep_suffix(raft, snapshot);
    } else {
        raft_snapshot_reset(raft, snapshot);
    }
    raft->configuration_changed = true;
    raft->commit_index = snapshot->index;
    if (raft->verified_index < snapshot->index) {
        raft->verified_index = snapshot->index; /* Committed, so every leader has it. */
    }
    raft->ack_due = true;
    assert(raft->configuration_before.count == 0 ||
           raft->configuration_before.index < raft->configuration.index);
}
