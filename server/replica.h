#ifndef SERVER_REPLICA_H
#define SERVER_REPLICA_H

/* This server's replica of the state: the Raft core, its log, its peers, and the store that the log
 * is applied to, driven by the loop. Writes go in as commands, reads wait here until the local
 * store may answer them. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "kv/uuid.h"
#include "server/command.h"

struct server;
struct replica;

/* Creates the replica (opens log and store in data_dir) and starts it. */
int replica_new(struct server *server, struct replica **out, struct errmsg *err);
/* Before an orderly stop: a leader hands leadership to another server, so that nobody has to wait
 * for an election. `done` is called once, later, on the loop: when this server does not lead, or
 * gave up after a second. */
void replica_hand_over(struct replica *replica, void (*done)(void *context), void *context);
/* Stops: takes no more requests, fails those that wait, closes peers and log. The store stays
 * readable. */
void replica_stop(struct replica *replica);
/* replica_stop, if that was not called, and closes the store: nobody may have a transaction open.
 * NULL is accepted. */
void replica_free(struct replica *replica);

/* A member joined, failed, came back or left: dial it, and see whether a new cluster can be formed.
 */
struct member;
void replica_members_changed(struct replica *replica, const struct member *member);

/* Sends a user event (server/events.h) to all servers that are connected; `replica` is a struct
 * replica. */
void replica_spread_event(void *replica, struct slice bytes);

/* --- writes --- */

/* Called once, on the loop, never from inside replica_propose. `failure` is NULL and `result`
 * filled when the command was applied here; else `failure` is the text for a 500 ("No cluster
 * leader", ...) and the outcome is unknown or none. */
typedef void (*replica_propose_done)(void *context, const char *failure,
                                     const struct command_result *result);

/* A failure with this text means that a queue is full: nothing was done, and the same write may be
 * asked again a little later. */
#define REPLICA_BUSY "too many writes are waiting, try again"

/* Sends an encoded command into the log, through the leader wherever it is; waits inside up to
 * rpc_hold_timeout for a leader; REPLICA_BUSY at once when too much waits already. The command is
 * copied. The answer comes from this server's own
 * apply. */
void replica_propose(struct replica *replica, struct slice command, replica_propose_done done,
                     void *context);

/* --- reads --- */

enum replica_consistency { REPLICA_DEFAULT, REPLICA_CONSISTENT, REPLICA_STALE };

/* What a read may say of its freshness. */
struct replica_freshness {
    bool known_leader;
    /* How old the store may be: since the leader was heard, or since nothing that it said could be
     * applied for want of space. */
    uint64_t last_contact_ms;
};

/* `failure` NULL: the local store may be read now, in this call (it is as fresh as the mode
 * promises). */
typedef void (*replica_read_done)(void *context, const char *failure,
                                  const struct replica_freshness *freshness);

/* Embedded in the caller's request, so that a vanished client can withdraw it. */
struct replica_read {
    replica_read_done done;
    void *context;
    /* The replica's. */
    enum replica_consistency consistency;
    uint64_t deadline_ms;
    uint64_t sent_ms;
    uint64_t index;
    int state;
    struct replica_read *next, *previous;
};

/* Calls done at once when the store may be read right away (stale; the leader within its lease),
 * else later; holds the read up to rpc_hold_timeout while no leader is known. */
void replica_read(struct replica *replica, struct replica_read *read,
                  enum replica_consistency consistency, replica_read_done done, void *context);
/* The read is not wanted any more; done is not called. No effect on one that was answered. */
void replica_read_cancel(struct replica *replica, struct replica_read *read);

/* For blocking queries that wake later: freshness as of now. */
void replica_freshness(const struct replica *replica, struct replica_freshness *out);
/* False while the store is empty because there is no space to rebuild the state: nothing may be
 * concluded from what is not in it. */
bool replica_has_state(const struct replica *replica);

/* --- sessions --- */

/* Restarts a session's TTL timer on the leader. `failure` as above; `found` false when it has
 * ended. When found, the local store is up to date enough to show the session in this call. */
typedef void (*replica_renew_done)(void *context, const char *failure, bool found);
void replica_session_renew(struct replica *replica, const struct uuid *id, replica_renew_done done,
                           void *context);

/* --- what operators ask of the leader --- */

enum replica_operation {
    REPLICA_HEALTH = 1,     /* answer: replica_health_decode */
    REPLICA_REMOVE_ID,      /* argument: a node id */
    REPLICA_REMOVE_ADDRESS, /* argument: "ip:port" */
    REPLICA_TRANSFER,       /* argument: a node id, or empty: whoever is best */
    REPLICA_OPERATION_LAST = REPLICA_TRANSFER,
};
/* Called once, on the loop, never from inside replica_operate. `failure` is NULL when it was done,
 * else the text for a 500. `answer` is borrowed for the call. */
typedef void (*replica_operate_done)(void *context, const char *failure, struct slice answer);
/* Has the leader do it, wherever it is; waits up to rpc_hold_timeout. The argument is copied. */
void replica_operate(struct replica *replica, enum replica_operation operation,
                     struct slice argument, replica_operate_done done, void *context);
/* Before a stop for good: has the leader take this server out of the configuration, so that quorums
 * get smaller, and tells the others. `done` is called once, later, whether or not that worked. */
void replica_leave(struct replica *replica, void (*done)(void *context), void *context);

enum { REPLICA_ADDRESS_BYTES = 96 }; /* of a server in the configuration, with its port */
/* What the leader knows of one server. */
struct replica_server_health {
    char id[UUID_TEXT_BYTES + 1];
    char name[128];
    char address[REPLICA_ADDRESS_BYTES]; /* "ip:port", or a name's, of peers.json */
    uint8_t status;                      /* enum member_status, 0: no member */
    bool leader, voter, healthy;
    uint64_t last_contact_ms; /* UINT64_MAX: none yet */
    uint64_t last_term, last_index;
    int64_t stable_s; /* Unix time since when it is healthy, or not */
};
enum { REPLICA_HEALTH_MAX = 16 };
struct replica_health {
    bool healthy;
    uint32_t failure_tolerance;
    size_t count;
    struct replica_server_health servers[REPLICA_HEALTH_MAX];
};
/* False for bytes that are none. */
bool replica_health_decode(struct slice bytes, struct replica_health *out);

/* --- workers of others --- */

/* While a worker reads the store, or counts on the replica to be there when it is done: stopping
 * waits for it. On the loop; each hold needs its release. */
void replica_store_hold(struct replica *replica);
void replica_store_release(struct replica *replica);
/* The servers as of what is applied here, copied. False while that is not known: they change. */
struct raft_configuration;
bool replica_configuration(const struct replica *replica, struct raft_configuration *out);

/* --- looking in --- */

bool replica_is_leader(const struct replica *replica);
/* "ip:port" of the leader's server port into `out`, "" when none is known. */
void replica_leader_address(const struct replica *replica, char *out, size_t out_bytes);
/* Visits the servers of the Raft configuration; returns how many there are. */
struct replica_peer {
    char id[UUID_TEXT_BYTES + 1];
    char name[128];
    char address[REPLICA_ADDRESS_BYTES];
    bool voter;
    bool leader;
};
size_t replica_peers(const struct replica *replica, struct replica_peer *out, size_t out_max);
struct replica_stats {
    uint64_t term, commit_index, applied_index, last_index;
    uint64_t log_bytes;         /* of the log on disk */
    uint64_t log_pending_bytes; /* queued for it, not yet durable */
    uint64_t log_sync_us_max;   /* longest sync of a batch since the start */
    bool log_full;              /* its disk */
    const char *state;          /* "Leader", "Follower", "Candidate" */
};
void replica_stats(const struct replica *replica, struct replica_stats *out);
/* Brings what the replica counts itself into the server's metrics. */
void replica_metrics(struct replica *replica);
/* The log entry that holds the configuration in force. */
uint64_t replica_peers_index(const struct replica *replica);

#endif
