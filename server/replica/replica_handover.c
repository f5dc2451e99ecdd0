/* Giving leadership away: to whom, and before an orderly stop. */

#include <assert.h>

#include "server/replica/replica_internal.h"

static int handover_step(struct replica *replica, const raft_id *avoid, size_t avoid_count)
{
    const struct raft_event event = {.type = RAFT_EVENT_TRANSFER,
                                     .now_ms = replica_clock_ms(replica),
                                     .avoid = avoid,
                                     .avoid_count = avoid_count};
    int rc;

    replica_step(replica, &event, &rc);
    return rc;
}

int replica_transfer(struct replica *replica, bool short_too)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);
    raft_id avoid[2 * RAFT_SERVERS_MAX];
    size_t fresh_count = 0;
    size_t count;
    int rc;

    for (size_t i = 0; i < configuration->count; i++) {
        const struct member *member = replica_member(replica, configuration->servers[i].id);

        if (member != NULL && member->fresh) {
            avoid[fresh_count++] = configuration->servers[i].id;
        }
    }
    count = fresh_count;
    for (size_t i = 0; i < configuration->count; i++) {
        if (replica_space_is_short(replica, configuration->servers[i].id)) {
            avoid[count++] = configuration->servers[i].id;
        }
    }
    rc = handover_step(replica, avoid, count);
    if (rc == RAFT_EINVAL && short_too && count > fresh_count) {
        rc = handover_step(replica, avoid, fresh_count);
    }
    return rc;
}

void replica_hand_over(struct replica *replica, void (*done)(void *context), void *context)
{
    assert(replica->hand_over_done == NULL);
    replica->hand_over_done = done;
    replica->hand_over_context = context;
    replica->hand_over_ms = replica_clock_ms(replica);
    if (replica->role == RAFT_LEADER && replica_transfer(replica, true) == RAFT_OK) {
        replica->handing_over = true;
        replica->hand_over_ms += REPLICA_HAND_OVER_MS;
    } /* Else there is nobody to hand over to. */
    replica_wake(replica);
}

void replica_hand_over_check(struct replica *replica, uint64_t now_ms)
{
    void (*done)(void *context) = replica->hand_over_done;

    if (done == NULL) {
        return;
    }
    if (replica->handing_over && replica->role != RAFT_LEADER && replica->leader != 0) {
        /* Others still ask this server until they hear of the new leader: they are told to ask that
         * one. */
        replica->handing_over = false;
        replica->hand_over_ms = now_ms + REPLICA_LINGER_MS;
    }
    if (now_ms < replica->hand_over_ms) {
        return;
    }
    replica->hand_over_done = NULL;
    done(replica->hand_over_context);
}
