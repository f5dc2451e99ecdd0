#ifndef SERVER_REPLICA_REPLICA_INTERNAL_H
#define SERVER_REPLICA_REPLICA_INTERNAL_H

/* What the replica's files share. The replica works in turns: whatever arrives in one pass of the
 * loop (messages, proposals, reads, durable writes) is recorded or stepped through the core, and
 * one gathering point at the end of the pass (replica_turn) proposes, applies, answers and writes
 * to the peers. */

#include <assert.h>
#include <stdatomic.h>
#include <uv.h>

#include "raft/raft.h"
#include "raft/wal.h"
#include "server/gossip/membership.h"
#include "server/peers/message.h"
#include "server/peers/peers.h"
#include "server/replica.h"
#include "server/server.h"
#include "server/snapshot/snapshot.h"
#include "session/timers.h"

#define REPLICA_LOG "agent.server.raft"

enum {
    REPLICA_ELECTION_MS = 1000, /* times raft_multiplier, as in Consul */
    /* Short, because a voter that has lost its leader must wait for the lease to run out before it
     * helps to elect another one (raft_options.lease_guard_ms). */
    REPLICA_HEARTBEAT_MS = 50,
    REPLICA_LEASE_MS = 100,
    REPLICA_LOST_SPREAD_MS = 25, /* followers that lose the leader do not all stand at once */
    REPLICA_LINGER_MS = 200,     /* and then goes on answering for so long */
    REPLICA_HAND_OVER_MS = 1000, /* a leader that stops waits for so long for another one */
    REPLICA_LOG_CACHE_BYTES = 2 * 1024 * 1024, /* recent entries kept in memory for followers */
    REPLICA_APPEND_BYTES_MAX = 128 * 1024,
    REPLICA_INFLIGHT_MAX = 64, /* requests; with their bytes, what a stuck follower may cost */
    REPLICA_UNCOMMITTED_MAX = 64 * 1024,
    REPLICA_COMMAND_BYTES_MAX = 32 * 1024 * 1024,
    REPLICA_TURN_COMMANDS_MAX = 2048, /* proposed in one turn */
    REPLICA_TURN_COMMAND_BYTES_MAX = 4 * 1024 * 1024,
    REPLICA_TURN_APPLY_MAX = 2048, /* entries applied in one turn */
    REPLICA_TURN_APPLY_BYTES_MAX = 8 * 1024 * 1024,
    REPLICA_TURN_RECORDS_MAX = 4096, /* gone through in one turn; more of a command: a worker's */
    REPLICA_QUEUE_BYTES_MAX = 64 * 1024 * 1024,    /* writes waiting for a leader, all told */
    REPLICA_REMOTE_BYTES_MAX = 48 * 1024 * 1024,   /* forwarded commands waiting for the turn */
    REPLICA_PENDING_BYTES_MAX = 128 * 1024 * 1024, /* in the log, waiting for a slow disk */
    REPLICA_BATCH_MAX = 3 + MESSAGE_COMMANDS_MAX,  /* a leader's start, and a forwarded batch */
    REPLICA_COMMIT_MS = 30 * 1000, /* a write in a leader's log, waiting to be committed */
    REPLICA_RESEND_MS = 1000,      /* a read that the leader has not answered is asked again */
    REPLICA_SWEEP_MS = 100,        /* granularity of these limits */
    REPLICA_STALL_RETRY_MS = 1000, /* between tries to apply while that fails */
    REPLICA_SPACE_TELL_MS = 1000,  /* the others are told anew whether there is space here */
    REPLICA_WAKE_MS = 500,         /* the clock is looked at no less often, */
    REPLICA_PAUSE_MS = 1000,       /* so after such a gap the process must have been stopped */
    REPLICA_REAP_MS = 30 * 1000,   /* tombstones: granularity and life, as in Consul */
    REPLICA_TOMBSTONE_MS = 15 * 60 * 1000,
    REPLICA_REAP_MARKS = REPLICA_TOMBSTONE_MS / REPLICA_REAP_MS + 1,
    REPLICA_STATE_RESERVE_BYTES =
        32 * 1024 * 1024, /* kept free in the store's file for what frees space */
    REPLICA_DISK_RESERVE_BYTES = 64 * 1024 * 1024, /* and on its disk */
    REPLICA_UNCHECKED_BYTES = 4 * 1024 * 1024,     /* taken before both are looked at again */
    REPLICA_BUCKETS = 1024,
    REPLICA_SNAPSHOT_CHUNK_BYTES = 256 * 1024, /* of a snapshot on its way, one at a time */
    REPLICA_SNAPSHOT_ASK_MS = 2000,       /* an unanswered question for a chunk is asked again */
    REPLICA_SNAPSHOT_RETRY_MS = 5000,     /* after one could not be received */
    REPLICA_SNAPSHOT_TELL_MS = 60 * 1000, /* which is told again so often */
    REPLICA_EXPIRIES_MAX = 64,            /* session ends proposed in one turn */
    REPLICA_TOKENS_MAX = 4096,
    REPLICA_OPERATE_BYTES_MAX = 1024, /* of what an operator names */
    REPLICA_REQUESTS_MAX = 256,       /* of operators, at one time */
    REPLICA_AUTOPILOT_MS = 500,       /* between looks at the servers' health */
    REPLICA_DEAD_MS = 5 * 1000,       /* silence on every way, after which a server may be dead */
    REPLICA_WIPED_MS = 10 * 1000,     /* a voter's log is not in order for so long: see fresh */
    REPLICA_SLOW_SYNCS = 64,          /* of the log, whose mean is judged */
    REPLICA_SLOW_SYNC_MS = 50,        /* and is worth a warning */
    FRESH_CHOSEN_MAX = 8,             /* servers to begin a cluster with, one after the other */
    REPLICA_BAN_MS = 60 * 1000,       /* after an operator has taken a server out */
};

static_assert(REPLICA_LEASE_MS < REPLICA_ELECTION_MS,
              "a deposed leader must stop serving before another one can be elected");
static_assert(REPLICA_APPEND_BYTES_MAX * REPLICA_INFLIGHT_MAX <= (int)LINK_QUEUE_BYTES_MAX / 2,
              "what is in flight to a follower fits its link");
static_assert((int)REPLICA_TURN_COMMANDS_MAX <= (int)MESSAGE_COMMANDS_MAX,
              "a follower's turn is one message");
static_assert(REPLICA_REMOTE_BYTES_MAX + 64 * REPLICA_BATCH_MAX < (int)WAL_WRITE_BYTES_MAX,
              "whatever is forwarded fits one write of the log");
static_assert(REPLICA_TURN_COMMAND_BYTES_MAX + REPLICA_COMMAND_BYTES_MAX + 64 * REPLICA_BATCH_MAX <
                  REPLICA_REMOTE_BYTES_MAX,
              "a follower's turn is never too large for the leader");

/* A list with its ends; items link through next/previous. */
#define REPLICA_LIST(type)                                                                         \
    struct {                                                                                       \
        type *first;                                                                               \
        type *last;                                                                                \
    }

enum replica_proposal_state { PROPOSAL_QUEUED, PROPOSAL_SENT, PROPOSAL_LOGGED };

/* A write of a local client, from replica_propose to its answer. */
struct replica_proposal {
    struct replica_proposal *next, *previous;
    enum replica_proposal_state state;
    replica_propose_done done;
    void *context;
    uint64_t start_ms;
    uint64_t start_ns; /* by uv_hrtime, for the metrics */
    bool malformed;    /* not command_valid */
    bool batched;      /* SENT: together with others */
    bool alone;        /* the leader refused it together with others: now it is judged by itself */
    raft_id sent_to;   /* SENT: whom, */
    uint64_t request;  /* in which message, */
    uint32_t position; /* and where in it */
    uint64_t term;     /* LOGGED: where it stands */
    uint64_t index;
    struct command_result result;
    size_t command_size;
    char command[];
};

/* Where a read or renewal stands. `replica_read.state` holds one of these. */
enum replica_read_state {
    READ_DONE = 0,
    READ_QUEUED,  /* nobody was asked yet */
    READ_SENT,    /* index: the request that asks the leader */
    READ_WAITING, /* index: to be applied */
};

struct replica_renewal {
    struct replica_renewal *next, *previous;
    enum replica_read_state state;
    uint64_t start_ms;
    uint64_t start_ns; /* by uv_hrtime, for the metrics */
    uint64_t request;
    uint64_t sent_ms;
    uint64_t index;
    bool found;
    struct uuid id;
    replica_renew_done done;
    void *context;
};

/* A renewal or read that another server asked of this one. */
struct replica_remote_renewal {
    struct replica_remote_renewal *next, *previous;
    struct replica *replica;
    struct replica_read read;
    raft_id from;
    uint64_t request;
    struct uuid id;
};

/* A question to the core, whose answer belongs to another server or to a batch of local reads. */
struct replica_token {
    uint64_t token;
    raft_id from; /* 0: local; then `request` is the token that the reads carry */
    uint64_t request;
};

enum replica_request_state {
    REQUEST_QUEUED,
    REQUEST_SENT,         /* to the leader */
    REQUEST_CHANGING,     /* here: the configuration at `index` of `term` is not committed yet */
    REQUEST_TRANSFERRING, /* here: leadership of `term` is being handed over */
};

/* Something that an operator asked for, here or through another server. */
struct replica_request {
    struct replica_request *next, *previous;
    enum replica_request_state state;
    enum replica_operation operation;
    raft_id from; /* 0: local, then `done` */
    uint64_t request;
    replica_operate_done done;
    void *context;
    uint64_t start_ms;
    raft_id sent_to;
    uint64_t term;
    uint64_t index;
    size_t argument_size;
    char argument[];
};

/* What the leader has seen of a server of the configuration over time. */
struct replica_watched {
    raft_id id;
    bool healthy;
    bool settled;       /* its log was once in order, see member.fresh */
    uint64_t stable_ms; /* since when it is healthy, or not; and by the clock on the wall */
    int64_t stable_s;
    uint64_t dead_ms;  /* since when nothing is heard of it; 0: it is there */
    uint64_t fresh_ms; /* since when its log is not in order; 0: it is */
};

/* replica_metrics.c */
struct replica;
void replica_metrics_role(struct replica *replica, enum raft_role role);
void replica_metrics_write(struct replica *replica, const struct replica_proposal *proposal);

/* Syncs since the mean was last taken. */
struct replica_slow_disk {
    uint64_t count;
    uint64_t sum_us;
    bool told;
};

/* A disk that has stopped answering. */
struct replica_disk {
    bool seen;    /* once; */
    bool stalled; /* and once more */
    /* Nobody takes over, and nothing was committed for a while: writes are refused. */
    bool helpless;
    raft_index commit_index; /* when it was first seen */
    uint64_t retry_ms;       /* when to ask others to take over again */
};

/* replica_space.c */
struct replica_space {
    uint64_t checked_ms;
    size_t unchecked_bytes; /* of writes since then */
    bool store_full;
    bool low;                            /* less than twice the reserve is left */
    bool told;                           /* to the others: that it is low or full here */
    uint64_t told_ms;                    /* when they were told last */
    raft_id short_ids[RAFT_SERVERS_MAX]; /* who has told so, and is connected */
    size_t short_count;
    uint64_t retry_ms; /* when to ask others to take over again */
    unsigned tries;
    bool alone_told; /* to the log, that nobody can */
};

/* Commands that another server forwarded, waiting for the turn. */
struct replica_remote_batch {
    raft_id from;
    uint64_t request;
    uint32_t count;
    size_t offset; /* of the commands in remote_bytes */
    size_t size;
};

struct replica {
    struct server *server;
    struct raft *raft;
    struct wal *wal;
    struct peers *peers;
    raft_id id;
    char memory_dir[64]; /* -dev: the store's folder, removed at the end; "" otherwise */
    bool started;
    bool expect_logged; /* that a member's bootstrap_expect differs */
    bool stopping;
    bool in_turn;
    bool fresh;                             /* replica_fresh.c: it does not vote yet */
    raft_term fresh_term;                   /* of the leader that it hears */
    raft_index fresh_index;                 /* what was committed when it first heard it */
    raft_id fresh_chosen[FRESH_CHOSEN_MAX]; /* to make a new cluster */
    size_t fresh_chosen_count;
    bool fresh_voted; /* for one of them, and has no entry yet: the file is kept */
    bool recovered;   /* replica_recover.c: the log has a new configuration */
    struct raft_configuration recovered_before; /* in force if that is taken back */

    uv_async_t *durable_async;
    atomic_uint_least64_t durable_sequence; /* set by the log writer, read by the loop */
    atomic_bool log_full;
    struct wal_stats wal_seen;     /* what replica_metrics has told */
    struct replica_slow_disk slow; /* the log writer's */
    struct replica_disk disk;
    uv_check_t *check;
    uv_idle_t *idle; /* active while the next turn has work: keeps the loop from sleeping */
    uv_timer_t *timer;
    uint64_t seen_ms; /* the clock when it was last looked at; 0: never */
    /* What CLOCK_BOOTTIME was ahead of CLOCK_MONOTONIC at the start, and is more ahead now. */
    int64_t boottime_ahead_ns;
    uint64_t suspended_ms;

    void (*hand_over_done)(void *context); /* NULL: nobody waits for it */
    void *hand_over_context;
    bool handing_over;
    uint64_t hand_over_ms; /* when it is over, or given up */

    /* What the core last said. */
    raft_index apply_index;
    uint64_t raft_deadline_ms;
    enum raft_role role;
    raft_id leader;
    uint64_t term;
    bool news; /* role, leader or term changed, or the link to the leader broke */

    raft_index applied_index;
    uint64_t applied_term;
    bool apply_stalled;       /* until apply_retry_ms */
    bool apply_failed;        /* the last try found no space, */
    uint64_t apply_failed_ms; /* and the first one in a row, then */
    uint64_t apply_retry_ms;
    uint64_t log_unread_told_ms; /* when it may be told again that an entry cannot be read */
    uint64_t sessions_held_ms;   /* since when no session is ended, because of that; 0: they are */
    struct replica_space space;

    REPLICA_LIST(struct replica_proposal) queued;
    REPLICA_LIST(struct replica_proposal) sent;
    REPLICA_LIST(struct replica_proposal) logged[REPLICA_BUCKETS];
    REPLICA_LIST(struct replica_proposal) completed;
    size_t queued_bytes;
    uint64_t leader_changed_ms;
    size_t logged_count;

    struct replica_remote_batch *remote;
    size_t remote_count;
    size_t remote_capacity;
    struct buffer remote_bytes;
    bool local_first; /* who goes first into the log alternates */

    REPLICA_LIST(struct replica_read) reads;
    REPLICA_LIST(struct replica_renewal) renewals;
    REPLICA_LIST(struct replica_remote_renewal) remote_renewals;
    struct replica_token tokens[REPLICA_TOKENS_MAX];
    size_t token_count;
    uint64_t last_request;
    uint64_t last_sweep_ms;
    bool reads_dirty; /* queued reads, or reads that an apply may have satisfied */

    struct snapshot_dir *snapshots;              /* NULL with -dev */
    struct snapshot_meta newest;                 /* index 0: none */
    uint64_t snapshot_next_ms;                   /* when to look whether one is due */
    struct replica_snapshot_work *snapshot_work; /* what a worker does just now; NULL: nothing */
    bool apply_held; /* a worker writes the state: nothing else is applied */
    /* It is to replace the state when there is space, and nothing is applied till then; index 0:
     * none is. */
    struct snapshot_meta load_waits;
    unsigned store_holds;                /* replica_store_hold */
    struct replica_long_work *long_work; /* of a command that takes long; NULL: none */
    struct {
        raft_id from; /* 0: nothing is being fetched */
        raft_index index;
        struct snapshot_meta meta; /* of what is being received; index 0: no offer yet */
        struct snapshot_receive *receive;
        uint64_t asked_ms;
    } fetch;
    uint64_t fetch_retry_ms; /* nothing is fetched before, */
    uint64_t fetch_tell_ms;  /* and not told of before: there was no room for it */

    struct session_timers *timers;
    uint64_t timers_term; /* the term whose timers run; 0: none */
    bool
        start_pending; /* this server has just been elected: its LEADER_START is not proposed yet */

    struct {
        uint64_t at_ms;
        raft_index index;
    } reap_marks[REPLICA_REAP_MARKS];
    size_t reap_mark_count;
    uint64_t reap_next_ms;

    /* What operators ask, and the leader's own motions. */
    REPLICA_LIST(struct replica_request) requests;
    struct {
        uint64_t term; /* the leadership that this is of; 0: none */
        uint64_t since_ms;
        uint64_t next_ms;
        struct autopilot_config config;
        size_t count;
        struct replica_watched servers[RAFT_SERVERS_MAX];
    } autopilot;
    struct {
        raft_id id;
        uint64_t until_ms;
    } removed[RAFT_SERVERS_MAX]; /* by operators: not added again until then */
    bool too_many_logged;        /* that a server found no place */
    uint64_t foreign_ms;         /* when it told last of servers of other clusters */
    uint64_t cluster_term;       /* up to it no id is proposed for the cluster any more */
    void (*left_done)(void *context);
    void *left_context;

    struct buffer scratch;      /* message being encoded */
    struct buffer command;      /* command being encoded */
    struct raft_entry *entries; /* MESSAGE_ENTRIES_MAX, for decoding */
    struct raft_entry *batch;   /* REPLICA_BATCH_MAX: commands of one turn */
};

/* replica.c */
void replica_wake(struct replica *replica);
void replica_take(struct replica *replica, const struct raft_update *update);
void replica_step(struct replica *replica, const struct raft_event *event, int *rc);
/* The time of this turn, or of the last event: cached. */
uint64_t replica_now_ms(const struct replica *replica);
/* The time as it is, for what must not be judged by a cached one: a lease, a vote, a pause. */
uint64_t replica_clock_ms(struct replica *replica);
_Noreturn void replica_fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The log writer's callbacks. */
void replica_on_durable(void *host, uint64_t sequence);
void replica_on_log_failed(void *host, const char *message);
void replica_on_log_full(void *host, bool full);
/* Reads an entry (valid until the next call on the log). False: there is no descriptor or memory
 * for it now, which was logged. Anything else that stands in the way ends the process. */
bool replica_log_entry(struct replica *replica, raft_index index, struct raft_entry *out);
void replica_on_log_synced(void *host, uint64_t sync_us, size_t entries, size_t bytes);

/* replica_open.c */
int replica_open(struct replica *replica, struct errmsg *err);

/* replica_handover.c */
/* Has the best of the other servers take over: not one whose log is lost, which could not stand for
 * election; nor one that is short of space, unless `short_too` and there is no other. RAFT_OK: it
 * is under way; RAFT_EINVAL: there is none; others as RAFT_EVENT_TRANSFER. */
int replica_transfer(struct replica *replica, bool short_too);
void replica_hand_over_check(struct replica *replica, uint64_t now_ms);

/* replica_space.c */
/* Looks once a second, or when so much was taken that it could use up the reserve before that. */
void replica_space_check(struct replica *replica, size_t bytes);
/* Whether that server has said that it is short of space. */
bool replica_space_is_short(const struct replica *replica, raft_id id);
void replica_space_forget(struct replica *replica, raft_id id);
void replica_space_peer_up(struct replica *replica, raft_id id);
void replica_on_space(struct replica *replica, raft_id from, struct slice payload);
void replica_space_turn(struct replica *replica, uint64_t now_ms);

/* replica_disk.c */
void replica_disk_turn(struct replica *replica, uint64_t now_ms);

/* replica_snapshot.c */
void replica_snapshot_turn(struct replica *replica, uint64_t now_ms);
void replica_snapshot_stop(struct replica *replica);
/* There is no room for a snapshot's state, as `why` says (`rc`: of snapshot_load, which was begun
 * at `start_ms`): what there is stays, and it is tried again until there is room. */
void replica_snapshot_wait(struct replica *replica, const struct snapshot_meta *meta, int rc,
                           const char *why, uint64_t start_ms);
void replica_snapshot_want(struct replica *replica, raft_id from, raft_index index);
void replica_on_snapshot_get(struct replica *replica, raft_id from, struct slice payload);
void replica_on_snapshot_chunk(struct replica *replica, raft_id from, struct slice payload);

/* replica_long.c */
/* Has a worker apply the next entry, by itself. If that cannot be read now, nothing is applied for
 * a while. */
void replica_long_start(struct replica *replica);

/* replica_apply.c */
/* What stands at `index` is for a newer version: to go on would be to have another state. */
_Noreturn void replica_apply_unknown(raft_index index, const struct command_result *result);
/* The store took nothing: it is tried again until there is space. */
void replica_apply_failed(struct replica *replica, int rc, uint64_t now_ms);
/* The same for a try to replace the whole state, which began at `start_ms`. It takes as long as the
 * state is large, so such tries are not made in a row. */
void replica_apply_replace_failed(struct replica *replica, int rc, uint64_t start_ms);
/* After a try that found it. */
void replica_apply_succeeded(struct replica *replica);
void replica_apply(struct replica *replica);
bool replica_apply_pending(const struct replica *replica);

/* replica_write.c */
void replica_write_turn(struct replica *replica);
void replica_write_sweep(struct replica *replica, uint64_t now_ms);
void replica_write_leader_changed(struct replica *replica);
void replica_write_peer_lost(struct replica *replica, raft_id id);
void replica_write_stop(struct replica *replica);
struct replica_proposal *replica_write_at(struct replica *replica, raft_index index);
void replica_write_applied(struct replica *replica, raft_index index, uint64_t term);
void replica_write_complete(struct replica *replica);
void replica_write_skipped(struct replica *replica, raft_index last);
void replica_on_propose(struct replica *replica, raft_id from, struct slice payload);
void replica_on_proposed(struct replica *replica, struct slice payload);
bool replica_write_pending(const struct replica *replica);

/* replica_read.c */
void replica_read_turn(struct replica *replica);
void replica_read_sweep(struct replica *replica, uint64_t now_ms);
void replica_read_leader_changed(struct replica *replica);
void replica_read_stop(struct replica *replica);
void replica_read_answered(struct replica *replica, const struct raft_read *read);
void replica_on_read(struct replica *replica, raft_id from, struct slice payload);
void replica_on_read_at(struct replica *replica, struct slice payload);
bool replica_read_pending(const struct replica *replica);

/* replica_session.c */
void replica_session_turn(struct replica *replica);
void replica_session_sweep(struct replica *replica, uint64_t now_ms);
void replica_session_leader_changed(struct replica *replica);
void replica_session_stop(struct replica *replica);
void replica_session_applied(struct replica *replica);
void replica_session_start_timers(struct replica *replica);
void replica_session_expire(struct replica *replica, uint64_t now_ms);
void replica_session_reap(struct replica *replica);
uint64_t replica_session_next_ms(const struct replica *replica);
void replica_on_renew(struct replica *replica, raft_id from, struct slice payload);
void replica_on_renewed(struct replica *replica, struct slice payload);
bool replica_session_pending(const struct replica *replica);
extern const struct command_observer replica_observer_template;

/* replica_bootstrap.c */
void replica_bootstrap_consider(struct replica *replica);
void replica_bootstrap_dial(struct replica *replica);
void replica_bootstrap_forget(struct replica *replica);
/* What a configuration says of one server, besides its number. */
struct replica_server_info {
    struct uuid node_id;
    char name[LINK_NAME_BYTES_MAX];
    char address[REPLICA_ADDRESS_BYTES]; /* "ip:port" */
};
bool replica_server_info(const struct raft_server *server, struct replica_server_info *out);

/* Puts a server into the configuration, as a voter; there must be room. */
struct raft_server *replica_configuration_add(struct raft_configuration *configuration,
                                              const struct uuid *node_id, const char *name,
                                              const char *endpoint);
void replica_server_set_info(struct raft_server *server, const struct uuid *node_id,
                             const char *name, const char *endpoint);

/* replica_membership.c */
/* The leader's motions: adds who joins, takes out who left, gives and takes votes. */
void replica_membership_turn(struct replica *replica, uint64_t now_ms);
/* Proposes the configuration without the server. RAFT_OK, with the entry's index; RAFT_EINVAL: no
 * voter would be left; others: see RAFT_EVENT_PROPOSE. */
int replica_membership_remove(struct replica *replica, raft_id id, raft_index *index);
/* It is not added again for a while. */
void replica_membership_ban(struct replica *replica, raft_id id, uint64_t now_ms);
/* The member behind a number; NULL if there is none. */
const struct member *replica_member(const struct replica *replica, raft_id id);

/* replica_cluster.c */
/* Finds server->cluster_id, which stays zero if this server does not know it yet. After the state
 * is there, and before anybody is spoken to. */
int replica_cluster_open(struct replica *replica, struct errmsg *err);
/* Appends to `out` the command that gives the cluster an id, if it has none and may get one now. */
void replica_cluster_start(struct replica *replica, struct buffer *out);
/* Learns the cluster's id, or gives it one. */
void replica_cluster_turn(struct replica *replica);

/* replica_autopilot.c */
/* Appends to `out` the command that stores the first autopilot settings, if the cluster has none.
 */
void replica_autopilot_start(struct replica *replica, struct buffer *out);
void replica_autopilot_turn(struct replica *replica, uint64_t now_ms);
/* Whom to give a vote, or whom to take out, if anybody; 0: nobody. */
raft_id replica_autopilot_promotion(const struct replica *replica, uint64_t now_ms);
raft_id replica_autopilot_removal(const struct replica *replica, uint64_t now_ms);
/* Appends what replica_health_decode reads. */
void replica_health_encode(struct replica *replica, struct buffer *out);

/* replica_fresh.c */
int replica_fresh_open(struct replica *replica, const struct raft_state *state, struct errmsg *err);
/* Whether a message may go to the core, or out to another server. */
bool replica_fresh_takes(struct replica *replica, const struct raft_message *message);
bool replica_fresh_sends(const struct replica *replica, const struct raft_message *message);
/* This server would have another one make the first configuration. */
void replica_fresh_chose(struct replica *replica, raft_id id);
/* The core has taken a message. */
void replica_fresh_heard(struct replica *replica, const struct raft_message *message);
/* Makes names in a folder durable; -1 with errno. */
int replica_sync_dir(const char *dir);
/* This server's votes count from now on. */
void replica_fresh_end(struct replica *replica);
/* Before replica_fresh_open, for a server whose log is not empty: its votes count, by what an
 * operator has decided. */
int replica_fresh_forget(const struct replica *replica, struct errmsg *err);

/* replica_recover.c */
/* Whether there is a raft/peers.json; its path into `out`. */
bool replica_recover_path(const struct replica *replica, char *out, size_t out_bytes);
/* If there is one, writes its configuration to the log, which must then be opened again. Not if it
 * ends with just that already. */
int replica_recover_write(struct replica *replica, const struct raft_state *state,
                          struct errmsg *err);
/* It is durable: removes the file. */
int replica_recover_end(struct replica *replica, struct errmsg *err);

/* replica_operator.c */
void replica_operator_turn(struct replica *replica, uint64_t now_ms);
void replica_operator_peer_lost(struct replica *replica, raft_id id);
void replica_operator_stop(struct replica *replica);
void replica_on_operate(struct replica *replica, raft_id from, struct slice payload);
void replica_on_operated(struct replica *replica, raft_id from, struct slice payload);

/* Lists. */
#define REPLICA_LIST_APPEND(list, item)                                                            \
    do {                                                                                           \
        (item)->next = NULL;                                                                       \
        (item)->previous = (list)->last;                                                           \
        if ((list)->last != NULL) {                                                                \
            (list)->last->next = (item);                                                           \
        } else {                                                                                   \
            (list)->first = (item);                                                                \
        }                                                                                          \
        (list)->last = (item);                                                                     \
    } while (0)

#define REPLICA_LIST_REMOVE(list, item)                                                            \
    do {                                                                                           \
        if ((item)->previous != NULL) {                                                            \
            (item)->previous->next = (item)->next;                                                 \
        } else {                                                                                   \
            (list)->first = (item)->next;                                                          \
        }                                                                                          \
        if ((item)->next != NULL) {                                                                \
            (item)->next->previous = (item)->previous;                                             \
        } else {                                                                                   \
            (list)->last = (item)->previous;                                                       \
        }                                                                                          \
        (item)->next = (item)->previous = NULL;                                                    \
    } while (0)

/* Takes the first item out; there must be one. */
#define REPLICA_LIST_POP(list, item)                                                               \
    do {                                                                                           \
        (item) = (list)->first;                                                                    \
        (list)->first = (item)->next;                                                              \
        if ((list)->first != NULL) {                                                               \
            (list)->first->previous = NULL;                                                        \
        } else {                                                                                   \
            (list)->last = NULL;                                                                   \
        }                                                                                          \
        (item)->next = (item)->previous = NULL;                                                    \
    } while (0)

#endif
