/* Space: what there is for the log and for the state, and what a leader does that has none.
 *
 * It refuses writes, and would do so for as long as its disk is full, although the others could go
 * on: so it hands leadership over to one that has space. Every server tells all others when its
 * space runs short. Short is less than twice the reserve at which a leader begins to refuse: where
 * all disks are alike nobody has more, the leader stays, and leadership does not go round. */

#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { SPACE_TRIES_MAX = 6 };

/* --- here --- */

static uint64_t space_of_log(const struct replica *replica)
{
    char path[4096];
    struct statvfs disk;

    if (replica->server->config->data_dir == NULL) {
        return UINT64_MAX;
    }
    (void)snprintf(path, sizeof(path), "%s/raft", replica->server->config->data_dir);
    /* What cannot be told stops nobody: the log itself says when it is full. */
    return statvfs(path, &disk) == 0 ? (uint64_t)disk.f_bavail * disk.f_frsize : UINT64_MAX;
}

void replica_space_check(struct replica *replica, size_t bytes)
{
    struct replica_space *space = &replica->space;
    const uint64_t now_ms = replica_now_ms(replica);
    struct store_usage usage;
    bool full;

    space->unchecked_bytes += bytes;
    if (now_ms - space->checked_ms < REPLICA_STALL_RETRY_MS &&
        space->unchecked_bytes < REPLICA_UNCHECKED_BYTES && space->checked_ms != 0) {
        return;
    }
    space->checked_ms = now_ms;
    space->unchecked_bytes = 0;
    store_usage(replica->server->store, &usage);
    full = usage.used_bytes + REPLICA_STATE_RESERVE_BYTES > usage.limit_bytes ||
           usage.disk_free_bytes < REPLICA_DISK_RESERVE_BYTES;
    space->low = usage.used_bytes + 2 * REPLICA_STATE_RESERVE_BYTES > usage.limit_bytes ||
                 usage.disk_free_bytes < 2 * REPLICA_DISK_RESERVE_BYTES ||
                 space_of_log(replica) < 2 * REPLICA_DISK_RESERVE_BYTES;
    if (full != space->store_full) {
        log_write(full ? LOG_ERROR : LOG_INFO, REPLICA_LOG,
                  full ? "the store is almost full, writes are refused: used=%llu limit=%llu "
                         "disk_free=%llu"
                       : "the store has space again: used=%llu limit=%llu disk_free=%llu",
                  (unsigned long long)usage.used_bytes, (unsigned long long)usage.limit_bytes,
                  (unsigned long long)usage.disk_free_bytes);
    }
    space->store_full = full;
}

static bool space_is_full(struct replica *replica)
{
    return replica->space.store_full || replica->apply_failed || atomic_load(&replica->log_full);
}

/* --- elsewhere --- */

bool replica_space_is_short(const struct replica *replica, raft_id id)
{
    for (size_t i = 0; i < replica->space.short_count; i++) {
        if (replica->space.short_ids[i] == id) {
            return true;
        }
    }
    return false;
}

void replica_space_forget(struct replica *replica, raft_id id)
{
    struct replica_space *space = &replica->space;

    for (size_t i = 0; i < space->short_count; i++) {
        if (space->short_ids[i] == id) {
            space->short_ids[i] = space->short_ids[--space->short_count];
            return;
        }
    }
}

void replica_on_space(struct replica *replica, raft_id from, struct slice payload)
{
    struct replica_space *space = &replica->space;

    if (payload.size != 1) {
        log_write(LOG_WARN, REPLICA_LOG, "dropped a malformed word about space");
        return;
    }
    replica_space_forget(replica, from);
    if (payload.data[0] != 0 && space->short_count < RAFT_SERVERS_MAX) {
        space->short_ids[space->short_count++] = from;
    }
}

static struct slice space_word(const struct replica *replica)
{
    return slice_from(replica->space.told ? "\1" : "\0", 1);
}

/* Who does not hear that it is short may count on it. */
void replica_space_peer_up(struct replica *replica, raft_id id)
{
    if (replica->space.told) {
        (void)peers_send(replica->peers, id, MESSAGE_SPACE, space_word(replica));
    }
}

/* --- the turn --- */

/* One that comes to nothing is tried again after ever longer, since no write is taken meanwhile. */
static void space_hand_over(struct replica *replica, uint64_t now_ms)
{
    struct replica_space *space = &replica->space;
    const uint64_t election_ms = REPLICA_ELECTION_MS * replica->server->config->raft_multiplier;

    if (now_ms < space->retry_ms) {
        return;
    }
    space->retry_ms = now_ms + election_ms;
    switch (replica_transfer(replica, false)) {
    case RAFT_OK:
        log_write(LOG_WARN, REPLICA_LOG,
                  "handing leadership over to a server that has space: there is none here");
        space->retry_ms = now_ms + (election_ms << space->tries);
        space->tries += space->tries < SPACE_TRIES_MAX ? 1 : 0;
        space->alone_told = false;
        break;
    case RAFT_EINVAL:
        if (!space->alone_told) {
            log_write(LOG_WARN, REPLICA_LOG,
                      "no other server has space and can take over: writes are refused until there "
                      "is space here");
        }
        space->alone_told = true;
        break;
    default:
        break; /* Somebody else's wish is under way. */
    }
}

void replica_space_turn(struct replica *replica, uint64_t now_ms)
{
    struct replica_space *space = &replica->space;
    bool runs_short;

    replica_space_check(replica, 0);
    runs_short = space->low || space_is_full(replica);
    /* Again and again: a word may be lost with a connection, or be forgotten with the one in the
     * other direction. */
    if (runs_short != space->told || now_ms - space->told_ms >= REPLICA_SPACE_TELL_MS) {
        space->told = runs_short;
        space->told_ms = now_ms;
        peers_send_all(replica->peers, MESSAGE_SPACE, space_word(replica));
    }
    if (!space_is_full(replica)) {
        space->tries = 0;
        space->alone_told = false;
    } else if (replica->role == RAFT_LEADER) {
        space_hand_over(replica, now_ms);
    }
}
