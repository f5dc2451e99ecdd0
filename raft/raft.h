#ifndef RAFT_RAFT_H
#define RAFT_RAFT_H

/* The Raft core: leader election with pre-vote and check-quorum, log replication, commitment,
 * leader lease and ReadIndex, leadership transfer, membership changes and snapshots, after Ongaro's
 * dissertation. It is a pure step function: no I/O, no clock, no randomness but the seeded
 * generator in `struct raft_options`, no global state; the same inputs give the same outputs. It
 * holds terms and indexes, never payloads: entries live in the host's log (see wal.h), and the host
 * fills them into outgoing APPEND messages.
 *
 * The host's duties, each turn:
 *  1. call raft_step() with one event;
 *  2. hand the update's write (hard state, reset, truncation, entries: one unit, in that order) to
 * its log, and report RAFT_EVENT_PERSISTED with the write's sequence once it is durable. Writes
 * become durable in the order of their sequence;
 *  3. send the update's messages, at once. The core itself withholds whatever depends on a disk
 *     (votes, append acknowledgements) until it is told PERSISTED, so a host cannot send too early
 *     (dissertation 3.8). Messages may be lost, delayed, duplicated and reordered;
 *  4. apply entries up to update->apply_index, in order;
 *  5. deliver RAFT_EVENT_TICK no later than update->deadline_ms;
 *  6. read the clock anew for each event: the lease and what it rests on are compared with it. A
 *     clock that is late by more than lease_guard_ms - lease_ms, or that stands still while the
 *     machine sleeps, can make a deposed leader serve old state.
 *
 * Snapshots are the host's; the core only knows where the log begins:
 *  7. when a snapshot of the applied state at some index is durable (with the configuration that
 *     raft_configuration_at() gives for that index in it), call raft_compact() with that or a lower
 *     index, and only then trim the log;
 *  8. when update->snapshot_from is set, fetch that server's newest snapshot (its index must be
 *     update->snapshot_index or higher) by whatever transport, verify it and make it durable. The
 *     update repeats itself while it is needed: begin when nothing is being fetched, ignore it
 *     otherwise, and give up whenever that seems better. Then, in one turn of the loop: ask
 *     raft_snapshot_wanted(), replace the state by the snapshot's, and deliver
 *     RAFT_EVENT_SNAPSHOT_INSTALLED. Nothing is applied between the question and the event;
 *  9. after a start with a snapshot of index s and term t on disk: if the log's entry s (the one
 *     before its first counts) has term t, start with the log. If it ends before s or has another
 *     term there, reset it to begin behind s; term and vote stay, but a stored term below t becomes
 *     t, without a vote. If it begins behind s + 1, a newer snapshot is missing: do not start. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t raft_id; /* 0 is nobody */
typedef uint64_t raft_term;
typedef uint64_t raft_index; /* 0 is before the first entry */

enum {
    RAFT_SERVERS_MAX = 16,
    RAFT_SERVER_INFO_BYTES_MAX = 240, /* opaque to the core: node uuid, name, address */
    RAFT_CONFIGURATION_BYTES_MAX = 8 + RAFT_SERVERS_MAX * (16 + RAFT_SERVER_INFO_BYTES_MAX),
    RAFT_APPEND_ENTRIES_MAX = 4096, /* entries of one append request */
    RAFT_INFLIGHT_MAX = 1024,       /* upper limit of raft_options.inflight_max */
    RAFT_READS_MAX = 1024,          /* reads that wait at one time, before RAFT_EBUSY */
};

enum raft_error {
    RAFT_OK = 0,
    RAFT_ENOMEM = -1,
    RAFT_ENOTLEADER = -2, /* this server does not lead; nothing has changed */
    RAFT_EBUSY = -3,      /* too many uncommitted entries or waiting reads; nothing has changed */
    RAFT_EINVAL = -4,     /* malformed event (untrusted bytes); nothing has changed */
    RAFT_ETRANSFER = -5,  /* leadership is being handed over: retry soon; nothing has changed */
    RAFT_ECHANGE = -6, /* another change of configuration is not committed yet, or nothing of this
                        * term is: retry soon; nothing has changed */
    RAFT_ESTALE = -7,  /* the snapshot is not wanted any more; nothing has changed */
};

/* Returns a constant text for a raft_error. */
const char *raft_strerror(int code);

enum raft_entry_type {
    RAFT_ENTRY_NOOP = 1,
    RAFT_ENTRY_COMMAND = 2,
    RAFT_ENTRY_CONFIGURATION = 3,
};

/* `data` is borrowed from whoever made the entry. */
struct raft_entry {
    raft_index index;
    raft_term term;
    enum raft_entry_type type;
    const void *data;
    size_t size;
};

struct raft_server {
    raft_id id;
    bool voter;
    uint8_t info_size;
    char info[RAFT_SERVER_INFO_BYTES_MAX];
};

/* The servers, sorted by id. `index` is the entry that holds it, 0 for none. */
struct raft_configuration {
    raft_index index;
    size_t count;
    struct raft_server servers[RAFT_SERVERS_MAX];
};

/* Writes the configuration's bytes (index excluded) to `out`, which has
 * RAFT_CONFIGURATION_BYTES_MAX bytes; returns the size. */
size_t raft_configuration_encode(const struct raft_configuration *configuration, void *out);
/* Reads untrusted bytes. RAFT_EINVAL if they are no configuration (unsorted, repeated or zero ids,
 * no voter, wrong size). */
int raft_configuration_decode(const void *data, size_t size, struct raft_configuration *out);

enum raft_role { RAFT_FOLLOWER = 1, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

enum raft_message_type {
    RAFT_PRE_VOTE_REQUEST = 1,
    RAFT_PRE_VOTE_RESPONSE,
    RAFT_VOTE_REQUEST,
    RAFT_VOTE_RESPONSE,
    RAFT_APPEND_REQUEST, /* also the heartbeat, when it carries no entries */
    RAFT_APPEND_RESPONSE,
    RAFT_TIMEOUT_NOW, /* the leader asks a follower that has all its entries to take over (3.10) */
    RAFT_SNAPSHOT_REQUEST, /* the leader asks a follower to fetch its snapshot: what comes next in
                            * the follower's log is in the leader's no more */
    RAFT_MESSAGE_TYPE_LAST = RAFT_SNAPSHOT_REQUEST,
};

/* One message. Flat, so that it is encoded field by field; fields that a type does not use are 0.
 */
struct raft_message {
    enum raft_message_type type;
    raft_id from;
    raft_id to;
    raft_term term;
    /* Vote requests: the candidate's last entry. */
    raft_index last_index;
    raft_term last_term;
    /* Vote requests: the leader itself has asked for this election, so that nobody need protect it.
     */
    bool transfer;
    /* Snapshot requests: prev_index and prev_term are the last entry that is only in the snapshot.
     * Append requests: the entry before the first one, the entries (first_index <= end_index; none
     * when entry_count is 0), and the leader's commit index. */
    raft_index prev_index;
    raft_term prev_term;
    raft_index commit_index;
    size_t entry_count; /* entries prev_index+1 .. prev_index+entry_count */
    /* Append and snapshot requests, append responses, TIMEOUT_NOW: which round of the leader this
     * is or answers; acknowledges leadership for the lease and ReadIndex even when the log does not
     * match. */
    uint64_t round;
    /* Responses: vote granted, or append matched. */
    bool granted;
    /* Append responses. match_index: when granted, all up to here is durable and equal to the
     * leader's log; else the prev_index that did not match. hint: when not granted, an entry (index
     * and term) of the follower at or before which the leader should try next. */
    raft_index match_index;
    raft_index hint_index;
    raft_term hint_term;
};

enum raft_event_type {
    RAFT_EVENT_TICK = 1, /* only the time has moved */
    RAFT_EVENT_MESSAGE, /* message, entries (APPEND_REQUEST), entry_count == message->entry_count */
    RAFT_EVENT_PERSISTED, /* sequence: this write and all before it are durable */
    /* entries: type, data, size are read; index and term are assigned and found in update->entries,
     * which holds nothing else. RAFT_ENOTLEADER, RAFT_EBUSY, RAFT_ETRANSFER.
     * A CONFIGURATION comes alone and differs from raft_configuration() in one server: added
     * without a vote, given or denied its vote, with other info, or removed (RAFT_EINVAL).
     * RAFT_ECHANGE. It counts from when it is appended; a leader that takes itself out leads until
     * it is committed, then steps down and asks the server with the longest log to take over. Give
     * a vote to a server only when its match_index (raft_progress) is near the end of the log, and
     * never reuse the id of a server whose disk was lost: its votes are forgotten. */
    RAFT_EVENT_PROPOSE,
    RAFT_EVENT_READ, /* read_token, read_quorum; elsewhere than on a leader the update answers it
                      * with RAFT_ENOTLEADER. RAFT_EBUSY */
    /* The connection to `peer` was reset, refused, or closed by it without a word: a sign, no
     * proof, that its process is gone. If it is the known leader, this server stands for election
     * as soon as lease_guard_ms allows, not only after election_ms. Anything heard from the leader
     * afterwards takes it back: deliver what was received on the connection first. Repeated and
     * mistaken ones do no harm. */
    RAFT_EVENT_PEER_LOST,
    /* Leader: hand leadership to `peer`, a voter; 0: to one that answers, needs no snapshot and is
     * not in `avoid`: whoever has the longest log, and among those was heard last. Until it is
     * over (update->role tells; see raft_transfer_target), at most election_ms, proposals are
     * answered with RAFT_ETRANSFER. RAFT_ENOTLEADER; RAFT_EINVAL: no such voter; RAFT_ETRANSFER:
     * one to another server is under way. */
    RAFT_EVENT_TRANSFER,
    /* snapshot: is durable and is this server's state now. The log begins behind it; what follows
     * in the log is kept if it fits. RAFT_ESTALE: not wanted, see raft_snapshot_wanted(), which
     * must be asked before; RAFT_EINVAL: no snapshot can be like that. */
    RAFT_EVENT_SNAPSHOT_INSTALLED,
};

/* What the core must know of a snapshot: the last entry in it, and the configuration as of that
 * entry. */
struct raft_snapshot {
    raft_index index;
    raft_term term;
    const struct raft_configuration *configuration;
};

/* What happens to the core. Borrowed for the call. */
struct raft_event {
    enum raft_event_type type;
    uint64_t now_ms; /* monotonic; never less than in the event before */
    const struct raft_message *message;
    const struct raft_entry *entries;
    size_t entry_count;
    uint64_t sequence;
    uint64_t read_token;
    bool read_quorum; /* confirm leadership with a quorum even while the lease holds */
    raft_id peer;
    const raft_id *avoid;
    size_t avoid_count;
    struct raft_snapshot snapshot;
};

/* An answer to RAFT_EVENT_READ: with status 0, state applied up to `index` may be served. */
struct raft_read {
    uint64_t token;
    int status; /* 0 or RAFT_ENOTLEADER */
    raft_index index;
};

/* What the host must do. Memory belongs to the core (or to the event, for entries' data) and is
 * valid until the next raft_step(). */
struct raft_update {
    /* The write: present when sequence != 0. */
    uint64_t sequence;
    bool hard_state_changed; /* term and vote must be stored with this write */
    raft_term term;
    raft_id vote;
    /* != 0: drop the whole log first and begin anew behind this index, whose entry has this term;
     * then truncate_from is 0. */
    raft_index reset_index;
    raft_term reset_term;
    raft_index truncate_from; /* != 0: drop entries at and after this index first */
    const struct raft_entry *entries;
    size_t entry_count;

    const struct raft_message *messages;
    size_t message_count;

    const struct raft_read *reads;
    size_t read_count;

    raft_index commit_index; /* known committed by a quorum */
    raft_index apply_index;  /* min(commit_index, durable here): what may be applied */

    bool leadership_changed; /* role, term or known leader differ from before this step */
    enum raft_role role;
    raft_id leader; /* 0: none known */
    /* raft_configuration() differs from before this step: another one was appended, rolled back or
     * came with a snapshot. */
    bool configuration_changed;

    raft_id snapshot_from; /* != 0: fetch this server's snapshot, of snapshot_index or higher */
    raft_index snapshot_index;

    uint64_t deadline_ms;
};

struct raft_options {
    raft_id id;
    uint64_t seed;         /* of the election time-outs' generator */
    uint32_t election_ms;  /* T: time-outs are drawn from [T, 2T) */
    uint32_t heartbeat_ms; /* between heartbeats of an idle leader */
    uint32_t lease_ms;     /* how long a quorum's acknowledgement lets the leader serve reads */
    /* How long a voter that has lost the leader (RAFT_EVENT_PEER_LOST) still honours what it last
     * acknowledged: above lease_ms by what clocks of two servers may differ over that time. Most of
     * what a failover takes is spent waiting for it, so a short lease (one or two heartbeats) makes
     * for short failovers; a read beyond the lease costs one round, no more. 0: lease_ms + a tenth
     * of it + 2. The same in all servers. */
    uint32_t lease_guard_ms;
    /* Servers that lose the leader wait for up to this long, at random, before they stand for
     * election: some disk syncs. 0: election_ms / 20. */
    uint32_t lost_spread_ms;
    size_t append_bytes_max; /* payload of one append request */
    size_t inflight_max;     /* unacknowledged append requests to one follower */
    size_t uncommitted_max;  /* entries proposed and not committed, before RAFT_EBUSY */
    /* Index of the last entry of first..last whose payloads together fit `bytes_max`, at least
     * `first`. Asked of the host because the core holds no payloads; must depend on the log only.
     */
    raft_index (*batch_end)(void *host, raft_index first, raft_index last, size_t bytes_max);
    void *host;
};

/* A stretch of the log in which all entries have one term, from `first` up to the next run. */
struct raft_term_run {
    raft_index first;
    raft_term term;
};

/* What recovery found on disk; all zero for a new server. */
struct raft_state {
    raft_term term;
    raft_id vote;
    raft_index first_index; /* of the first entry still in the log; 1 when nothing was compacted */
    raft_index last_index;  /* first_index - 1 when the log is empty */
    const struct raft_term_run *runs; /* borrowed for raft_init */
    size_t run_count;
    raft_term prev_term;     /* term of entry first_index - 1 (0 for the beginning) */
    raft_index commit_index; /* known committed, e.g. applied to the state; 0 if unknown */
    /* The last one in the log, committed or not, and the one that it replaced; where the log has
     * none, the snapshot's. Both with their index. NULL: none. */
    const struct raft_configuration *configuration;
    const struct raft_configuration *configuration_before;
};

struct raft;

/* Returns owned; free with raft_free. `now_ms` starts the first election time-out; the first step
 * is due then, to learn the deadline. For election_ms from `now_ms` votes are refused: before it
 * stopped, this server may have promised as much to a leader that holds a lease. RAFT_ENOMEM;
 * RAFT_EINVAL if `state` contradicts itself (e.g. its log ends before what is known committed). */
int raft_new(const struct raft_options *options, const struct raft_state *state, uint64_t now_ms,
             struct raft **out);
void raft_free(struct raft *raft);

/* Makes the first configuration of a new cluster: entry 1 of term 1, returned in `update` as a
 * write like any other. Only for a server without any state; RAFT_EINVAL otherwise. */
int raft_bootstrap(struct raft *raft, const struct raft_configuration *configuration,
                   uint64_t now_ms, struct raft_update *update);

/* One turn of the core. Borrows `event` for the call; fills `update`, whose memory belongs to the
 * core and stays valid until the next step. Errors leave everything unchanged. */
int raft_step(struct raft *raft, const struct raft_event *event, struct raft_update *update);

/* Drops the core's knowledge of entries up to `index`, all of which are in a durable snapshot and
 * applied. Lower ones than before change nothing. RAFT_EINVAL: not committed and durable yet. */
int raft_compact(struct raft *raft, raft_index index);

/* Whether a snapshot whose last entry is `index` of `term` would be installed: it is ahead of what
 * is committed, does not contradict the leader that this server follows, and this server does not
 * lead. Else RAFT_EVENT_SNAPSHOT_INSTALLED would be answered with RAFT_ESTALE. */
bool raft_snapshot_wanted(const struct raft *raft, raft_index index, raft_term term);

/* Looking in. */
enum raft_role raft_role(const struct raft *raft);
raft_id raft_leader(const struct raft *raft); /* 0: unknown */
raft_term raft_term_now(const struct raft *raft);
raft_index raft_commit_index(const struct raft *raft);
raft_index raft_last_index(const struct raft *raft);
raft_term raft_last_term(const struct raft *raft);
raft_index raft_durable_index(const struct raft *raft);
/* 0: not in the log. The entry before the log's first one is known, too. */
raft_term raft_term_at(const struct raft *raft, raft_index index);
const struct raft_configuration *raft_configuration(const struct raft *raft);
/* The one that was in force at `index`, committed and not below the log's beginning; NULL if it is
 * not known any more (two have followed it): a snapshot is then best taken at a higher index. */
const struct raft_configuration *raft_configuration_at(const struct raft *raft, raft_index index);
raft_index raft_first_index(const struct raft *raft); /* of the log, as the core knows it */
/* Leader only: whether default reads may be served at `now_ms` without asking anyone. */
bool raft_lease_valid(const struct raft *raft, uint64_t now_ms);
/* Whom this leader is handing leadership to; 0: nobody. */
raft_id raft_transfer_target(const struct raft *raft);
/* Milliseconds since this server last heard from the leader; 0 on the leader, UINT64_MAX if never.
 */
uint64_t raft_last_contact_ms(const struct raft *raft, uint64_t now_ms);
/* Leader only: what is known of a follower. False when `id` is not in the configuration. */
struct raft_progress {
    raft_index match_index;
    uint64_t last_contact_ms; /* since its last answer; UINT64_MAX: none yet */
};
bool raft_progress(const struct raft *raft, raft_id id, uint64_t now_ms, struct raft_progress *out);

#endif
