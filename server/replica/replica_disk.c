/* The disk beneath the log: how long its syncs take, and what a leader does whose disk has stopped
 * answering. Such a leader still hears its followers and holds its lease, and with their logs it
 * may even commit; but with one of three servers down besides nothing would be committed any more,
 * for as long as the disk hangs (hashicorp/consul#22064). */

#include <inttypes.h>
#include <string.h>

#include "server/log.h"
#include "server/metrics.h"
#include "server/replica/replica_internal.h"

static_assert(REPLICA_SLOW_SYNC_MS >= 10, "what is said to be slow is slow on any disk");

/* On the writer's thread, which alone uses `slow`. */
void replica_on_log_synced(void *host, uint64_t sync_us, size_t entries, size_t bytes)
{
    struct replica *replica = host;
    struct replica_slow_disk *slow = &replica->slow;

    (void)entries;
    (void)bytes;
    metrics_time_ns(replica->server->metrics, METRIC_WAL_FSYNC, sync_us * 1000);
    slow->count++;
    slow->sum_us += sync_us;
    if (slow->count < REPLICA_SLOW_SYNCS) {
        return;
    }
    const uint64_t mean_ms = slow->sum_us / slow->count / 1000;

    if ((mean_ms >= REPLICA_SLOW_SYNC_MS) != slow->told) {
        slow->told = !slow->told;
        log_write(slow->told ? LOG_WARN : LOG_INFO, REPLICA_LOG,
                  slow->told
                      ? "the disk of the Raft log is slow, and so is every write: mean of the last "
                        "%u syncs=%" PRIu64 "ms. Give data_dir a faster disk, or one of its own"
                      : "the disk of the Raft log is fast enough again: mean of the last %u "
                        "syncs=%" PRIu64 "ms",
                  (unsigned)REPLICA_SLOW_SYNCS, mean_ms);
    }
    slow->count = 0;
    slow->sum_us = 0;
}

/* Asks the best follower to take over; again when that came to nothing. */
static void disk_hand_over(struct replica *replica, uint64_t now_ms)
{
    struct replica_disk *disk = &replica->disk;

    if (now_ms < disk->retry_ms) {
        return;
    }
    disk->retry_ms = now_ms + REPLICA_ELECTION_MS * replica->server->config->raft_multiplier;
    log_write(LOG_WARN, REPLICA_LOG,
              replica_transfer(replica, true) == RAFT_OK
                  ? "handing leadership over, because of the disk"
                  : "no other server can take over now, writes wait for the disk");
}

/* A moment after a pause of the whole process everything looks old: only what is seen twice, a
 * sweep apart, counts. */
void replica_disk_turn(struct replica *replica, uint64_t now_ms)
{
    struct replica_disk *disk = &replica->disk;
    const uint64_t limit_ms = replica->server->config->disk_stall_timeout_ms;
    const uint64_t age_ms = wal_oldest_us(replica->wal) / 1000;

    if (limit_ms == 0 || age_ms < limit_ms || atomic_load(&replica->log_full)) {
        if (disk->stalled) {
            log_write(LOG_INFO, REPLICA_LOG, "the disk of the Raft log answers again");
        }
        memset(disk, 0, sizeof(*disk));
        return;
    }
    if (!disk->seen) {
        disk->seen = true;
        disk->commit_index = raft_commit_index(replica->raft);
        return;
    }
    if (!disk->stalled) {
        disk->stalled = true;
        log_write(LOG_ERROR, REPLICA_LOG,
                  "the disk of the Raft log has not answered for %" PRIu64 "ms", age_ms);
    }
    if (replica->role == RAFT_LEADER) {
        disk_hand_over(replica, now_ms);
    }
    disk->helpless = replica->role == RAFT_LEADER && age_ms >= 2 * limit_ms &&
                     raft_commit_index(replica->raft) == disk->commit_index;
}
