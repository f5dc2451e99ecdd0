#ifndef RAFT_RAFT_INTERNAL_H
#define RAFT_RAFT_INTERNAL_H

/* What the files of the core share: its state, and one section of functions per file. Nothing
 * outside of raft/ includes this.
 *
 * A step has three parts. Its event is checked in full first, so that an error changes nothing.
 * Then the event is handled: handlers change the state and mark what became due. Last, raft_flush()
 * (in raft.c) sends everything that is due in one place; what waits for the disk stays marked until
 * a later step finds it durable. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft/raft.h"

enum {
    /* Writes told apart while they wait for the disk; more are merged with the newest one. */
    RAFT_WRITES_MAX = 256,
    /* Rounds of the leader whose start is remembered, at most one starts per millisecond and read.
     */
    RAFT_ROUNDS_MAX = 1024,
};

/* Far above what a cluster can reach, so that sums below never overflow whatever a message says.
 * Not above what recovery takes for possible (wal_recover.c). */
static const raft_term RAFT_TERM_MAX = UINT64_MAX / 4;
static const raft_index RAFT_INDEX_MAX = UINT64_MAX / 4;
static const uint64_t RAFT_NEVER_MS = UINT64_MAX;

/* --- raft_log.c: terms and indexes of the entries --- */

/* The log as runs of equal terms. Entries first_index..last_index; prev_term is the term of entry
 * first_index - 1. */
struct raft_log {
    raft_index first_index;
    raft_index last_index;
    raft_term prev_term;
    struct raft_term_run *runs;
    size_t run_count;
    size_t run_capacity;
};

/* Copies what recovery found. RAFT_EINVAL if it contradicts itself, RAFT_ENOMEM. */
int raft_log_init(struct raft_log *log, const struct raft_state *state);
void raft_log_deinit(struct raft_log *log);
/* Makes room for `count` more runs, so that raft_log_append cannot fail. RAFT_ENOMEM. */
int raft_log_reserve(struct raft_log *log, size_t count);
/* Appends one entry. `term` must not be below the last one's; needs a reserved run. */
void raft_log_append(struct raft_log *log, raft_term term);
/* Drops entries up to `index`, which is in the log; the last one's term is kept. */
void raft_log_compact(struct raft_log *log, raft_index index);
/* Drops all; begins anew behind `index`. */
void raft_log_reset(struct raft_log *log, raft_index index, raft_term term);
/* Drops entries at and after `from`. */
void raft_log_truncate(struct raft_log *log, raft_index from);
/* Term of an entry, also of first_index - 1; 0 for all others. */
raft_term raft_log_term_at(const struct raft_log *log, raft_index index);
raft_term raft_log_last_term(const struct raft_log *log);
/* The last index at or before `index` whose term is `term` or lower; at least first_index - 1. */
raft_index raft_log_skip_back(const struct raft_log *log, raft_index index, raft_term term);

/* --- the core's state --- */

/* A write that the host has been given and that may not be durable yet. */
struct raft_write {
    uint64_t sequence;
    raft_index end_index; /* last entry that it makes durable; 0: none, or all truncated since */
};

enum raft_peer_state {
    RAFT_PEER_PROBE = 1, /* where the logs part is not known: one request at a time */
    RAFT_PEER_REPLICATE, /* requests are sent ahead of their answers */
    RAFT_PEER_SNAPSHOT,  /* it needs what only the snapshot has; heartbeats go on */
};

/* What the leader knows of another server. */
struct raft_peer {
    raft_id id;
    bool voter;
    enum raft_peer_state state;
    raft_index match_index;       /* durable there and equal to our log up to here */
    raft_index next_index;        /* first entry of the next request */
    raft_index told_commit_index; /* commit index in the last request sent */
    bool probe_sent;              /* its entries are out; heartbeats repeat the probe, empty */
    bool sent;                    /* something was sent in this step */
    uint64_t snapshot_due_ms;     /* it is asked again to fetch the snapshot then */
    uint64_t acked_round;         /* 0: none in this term */
    uint64_t acked_sent_ms;       /* when that round was started here */
    uint64_t answered_ms;         /* when an answer last came in; RAFT_NEVER_MS: none yet */
    raft_index *inflight;         /* ring: last entries of unanswered requests; its memory stays
                                   * with the place among the peers, or moves in exchange */
    size_t inflight_first;
    size_t inflight_count;
};

/* A read that waits for its round, or for the term's first commit. */
struct raft_waiting_read {
    uint64_t token;
    bool quorum;
    uint64_t round; /* a quorum must have acknowledged this one or a later one */
};

struct raft {
    struct raft_options options;
    uint64_t random;
    uint64_t now_ms;

    /* Stored state, as the newest write has it. */
    raft_term term;
    raft_id vote;
    struct raft_log log;
    struct raft_configuration configuration;
    struct raft_configuration configuration_before; /* back to this one if that is truncated */
    raft_index commit_index;

    /* What of it is durable. */
    raft_index durable_index;
    uint64_t sequence;            /* of the newest write */
    uint64_t persisted_sequence;  /* of the newest durable one */
    uint64_t hard_state_sequence; /* of the newest one with term and vote */
    struct raft_write writes[RAFT_WRITES_MAX];
    size_t write_first;
    size_t write_count;

    raft_id leader;
    enum raft_role role;

    /* Marks of what raft_flush() and the end of the step have to do. */
    bool vote_requests_due;  /* once our own vote is durable */
    bool ack_due;            /* an answer to this term's leader */
    bool broadcast_due;      /* every peer gets a message in this step */
    bool hard_state_changed; /* term and vote go into this step's write */

    /* Elections. */
    uint64_t election_timeout_ms;
    uint64_t election_due_ms;
    uint64_t refuse_until_ms;     /* a leader may hold a lease that counts on us until then */
    bool leader_lost;             /* the connection to whom we heard last is gone */
    uint64_t hurry_until_ms;      /* a lost leader's election is retried at short intervals */
    bool transfer_vote;           /* this candidacy is the leader's wish */
    raft_id vote_answer_to;       /* owed once the vote is durable; 0: nobody */
    bool votes[RAFT_SERVERS_MAX]; /* granted to us; by position in the configuration */

    /* Follower. */
    uint64_t contact_ms;       /* when the leader was last heard; RAFT_NEVER_MS: never */
    raft_index verified_index; /* equal to this term's leader's log up to here */
    raft_index acked_index;    /* no more than this need be acknowledged to it again */
    uint64_t leader_round;     /* newest seen from this term's leader */

    /* Leader. */
    struct raft_peer peers[RAFT_SERVERS_MAX];
    size_t peer_count;
    raft_index *inflight_pool;
    raft_index own_term_index; /* our no-op */
    uint64_t quorum_since_ms;  /* from then on, this configuration's quorum had time to answer */
    uint64_t heartbeat_due_ms;
    uint64_t round;
    uint64_t round_started_ms[RAFT_ROUNDS_MAX]; /* by round % RAFT_ROUNDS_MAX */
    uint64_t read_round;                        /* newest round started for a read */
    raft_id transfer_to;                        /* 0: leadership is not being handed over */
    uint64_t transfer_due_ms;                   /* given up then */
    uint64_t transfer_send_ms;                  /* TIMEOUT_NOW is sent again then */
    bool lease_given_up;                        /* for the rest of this term */
    struct raft_waiting_read waiting[RAFT_READS_MAX];
    size_t waiting_count;

    /* The step's results. */
    raft_index truncate_from;
    raft_index reset_index;
    bool configuration_changed;
    raft_id snapshot_from;
    raft_index snapshot_index;
    struct raft_entry *entries;
    size_t entry_count;
    size_t entry_capacity;
    struct raft_message *messages;
    size_t message_count;
    size_t message_capacity;
    struct raft_read reads[RAFT_READS_MAX];
    size_t read_count;
    uint8_t configuration_bytes[RAFT_CONFIGURATION_BYTES_MAX];
};

/* --- raft.c --- */

/* Adds a message from us at our term; the caller fills in the rest. */
struct raft_message *raft_message_add(struct raft *raft, enum raft_message_type type, raft_id to);
void raft_term_set(struct raft *raft, raft_term term, raft_id vote);
/* Whether term and vote as they are now are on disk. */
bool raft_hard_state_durable(const struct raft *raft);
/* Appends to the log and to this step's write; needs the room that raft_step reserves. */
void raft_entry_append(struct raft *raft, const struct raft_entry *entry);
/* Drops entries at and after `from`, above the commit index. */
void raft_entries_truncate(struct raft *raft, raft_index from);
/* The highest value that more than half of `values` reach. Reorders them. */
uint64_t raft_quorum_value(uint64_t *values, size_t count);

/* --- raft_configuration.c --- */

bool raft_configuration_valid(const struct raft_configuration *configuration);
const struct raft_server *raft_configuration_find(const struct raft_configuration *configuration,
                                                  raft_id id);
bool raft_configuration_is_voter(const struct raft_configuration *configuration, raft_id id);

/* RAFT_EINVAL unless `to` differs from `from` in one server, as raft.h says. */
int raft_configuration_check_change(const struct raft_configuration *from,
                                    const struct raft_configuration *to);

/* --- raft_snapshot.c --- */

/* RAFT_EINVAL for what no server of this cluster sends; changes nothing. */
int raft_snapshot_request_check(const struct raft *raft, const struct raft_message *message);
void raft_snapshot_request(struct raft *raft, const struct raft_message *message);
int raft_snapshot_installed_check(const struct raft *raft, const struct raft_snapshot *snapshot);
void raft_snapshot_installed(struct raft *raft, const struct raft_snapshot *snapshot);

/* --- raft_election.c --- */

void raft_election_timer_start(struct raft *raft);
void raft_election_timeout(struct raft *raft);
/* Follower of `leader` (0: not known) in `term`, which is ours or a later one. */
void raft_become_follower(struct raft *raft, raft_term term, raft_id leader);
/* A message of this term's leader arrived. */
void raft_leader_heard(struct raft *raft);
void raft_pre_vote_request(struct raft *raft, const struct raft_message *message);
void raft_pre_vote_response(struct raft *raft, const struct raft_message *message);
void raft_vote_request(struct raft *raft, const struct raft_message *message);
void raft_vote_response(struct raft *raft, const struct raft_message *message);
/* The connection to `peer` is gone. */
void raft_leader_lost(struct raft *raft, raft_id peer);
void raft_timeout_now(struct raft *raft, const struct raft_message *message);
/* Sends what waited for term and vote to be durable. */
void raft_election_flush(struct raft *raft);

/* --- raft_replication.c --- */

void raft_become_leader(struct raft *raft);
/* After a change of the leader's configuration. */
void raft_peers_update(struct raft *raft);
/* After the leader's log was compacted. */
void raft_peers_compacted(struct raft *raft);
/* For a request that only a leader sends: follows it. False for a leader of an earlier term, which
 * has been refused. */
bool raft_leader_follow(struct raft *raft, const struct raft_message *message);
/* RAFT_EINVAL for what no server of this cluster sends; changes nothing. */
int raft_append_request_check(const struct raft *raft, const struct raft_event *event);
void raft_append_request(struct raft *raft, const struct raft_event *event);
int raft_append_response_check(const struct raft *raft, const struct raft_message *message);
void raft_append_response(struct raft *raft, const struct raft_message *message);
void raft_acknowledge_flush(struct raft *raft);
void raft_commit_advance(struct raft *raft);
void raft_replication_flush(struct raft *raft);
struct raft_peer *raft_peer_find(struct raft *raft, raft_id id);

/* --- raft_transfer.c: handing leadership over --- */

int raft_transfer_check(const struct raft *raft, const struct raft_event *event);
void raft_transfer(struct raft *raft, const struct raft_event *event);
/* Gives up when its time is over. */
void raft_transfer_timer(struct raft *raft);
/* Steps down when the committed configuration gives this leader no vote. */
void raft_transfer_removed(struct raft *raft);
/* Asks the target to take over as soon as it has everything. */
void raft_transfer_flush(struct raft *raft);

/* --- raft_read.c: rounds, lease, check-quorum, reads --- */

/* The round for a message sent now: a new one for every millisecond. */
uint64_t raft_round_now(struct raft *raft);
void raft_round_acknowledged(struct raft *raft, struct raft_peer *peer, uint64_t round);
/* When a leader that hears nothing more must step down; RAFT_NEVER_MS if it is alone. */
uint64_t raft_check_quorum_due_ms(const struct raft *raft);
void raft_read(struct raft *raft, uint64_t token, bool quorum);
/* Answers the reads that can be answered. */
void raft_reads_release(struct raft *raft);
/* Starts a round for reads that no started round serves. */
void raft_reads_start_round(struct raft *raft);
/* Leadership is lost: answers all that wait with RAFT_ENOTLEADER. */
void raft_reads_fail(struct raft *raft);

#endif
