#ifndef TESTS_SIM_SIM_FULL_H
#define TESTS_SIM_SIM_FULL_H

/* The full mode: what each server has beyond its core, the clients, and what is remembered to judge
 * them by.
 *
 * sim_disk.c    simulated files: what is not synced may be lost or torn, syncs fail, bits flip
 * sim_wal.c     the real log (raft/wal.h) on them, held against the model in sim_node.c
 * sim_state.c   the real state machine on a real store
 * sim_snapshot.c the real snapshots on simulated files
 * sim_session.c what a leader does for sessions: their timers, renewals, ends
 * sim_server.c  requests: writes go to the leader, reads wait until they may be answered
 * sim_client.c  clients: keys, locks, sessions
 * sim_filler.c  writes that no client waits for
 * sim_judge.c   locks, TTLs, and the histories at the end */

#include "kv/buffer.h"
#include "kv/store.h"
#include "kv/uuid.h"
#include "raft/wal.h"
#include "server/command.h"
#include "server/snapshot/snapshot_internal.h"
#include "session/timers.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_linear.h"

enum {
    SIM_CLIENTS_MAX = 8,
    SIM_KEYS = 3,
    SIM_LOCKS = 2,
    SIM_FILES_MAX = 256,  /* on one disk at one time, those included that only a crash would show */
    SIM_HANDLES_MAX = 32, /* open on one disk */
    SIM_NAMES_MAX = 256,  /* changes of a folder that are not synced */
    SIM_FILE_NAME_MAX = 40,
    SIM_APPLY_STEP = 8,        /* every server stops applying at these indexes, to be compared */
    SIM_TTL_LAST_MS = 1000000, /* of the session at the very end */
    SIM_LINEAR_STATES_MAX = 2000000,
};

/* --- the disk --- */

struct sim_extent {
    uint64_t offset;
    uint64_t bytes;
    bool zeros; /* nothing but */
};

struct sim_file {
    unsigned references; /* names, durable names, handles */
    uint8_t *bytes;      /* as reads see it */
    uint64_t size;
    uint8_t *synced; /* what a crash of the machine cannot take */
    uint64_t synced_size;
    uint64_t capacity;          /* of both */
    struct sim_extent *pending; /* written since; an allocation counts */
    size_t pending_count;
    size_t pending_capacity;
    uint64_t last_synced;   /* where the last write that was synced, and not of zeros, begins; */
    uint64_t synced_before; /* and the one before it, which is the last again if it is cut off */
};

struct sim_name {
    char name[SIM_FILE_NAME_MAX];
    struct sim_file *file;
};

/* A change of the folder that is not synced. `file` NULL: the name goes. */
struct sim_name_change {
    char name[SIM_FILE_NAME_MAX];
    struct sim_file *file;
    bool with_next; /* both or neither: a rename */
};

struct sim_folder {
    struct sim_name names[SIM_FILES_MAX];
    size_t count;
};

struct sim_files {
    struct sim *sim;
    struct wal_files table;
    struct snapshot_ops ops; /* the same disk, as snapshots see it */
    uint64_t random;         /* of the log's salts; of all that happens to snapshots */
    struct sim_folder folder;
    struct sim_folder durable;
    struct sim_name_change changes[SIM_NAMES_MAX];
    size_t change_count;
    struct sim_file *handles[SIM_HANDLES_MAX]; /* of files; the folder's and the lock's have none */
    bool handle_used[SIM_HANDLES_MAX];
    bool sync_fails; /* the next one */
    bool garbles;    /* what was not synced may be something else after a crash */
    bool frozen;     /* the process dies after `steps_left` more changes: then all fails */
    unsigned steps_left;
    uint64_t full_until_ms; /* no space before, while there are faults */
    bool full_for_good;
    bool flipped;
    struct sim_file *flip_file;
    uint64_t flip_offset;
    uint8_t flip_bit;
};

/* Empty files, with that chance. */
void sim_disk_init(struct sim *sim, struct sim_files *files, uint64_t random);
/* Of a zeroed one nothing is done. */
void sim_disk_deinit(struct sim_files *files);
/* All handles are closed. Without `machine` what was written stays; else only what was synced, and
 * some of the rest. */
void sim_disk_crash(struct sim *sim, size_t node, struct sim_files *files, bool machine);
/* Turns one bit around, in what was synced before the last sync of its file. False: nothing was. */
bool sim_disk_flip(struct sim *sim, size_t node);
/* The damage is undone, or forgotten because nobody minds it. */
void sim_disk_unflip(struct sim *sim, size_t node, bool undo);

/* --- the log --- */

/* Opens the log and makes `state` of it. Holds it against the model, whose writes under way are
 * then done or lost. False: it refuses to start, as it may after damage. */
bool sim_wal_open(struct sim *sim, size_t node, struct raft_state *state);
void sim_wal_write(struct sim *sim, size_t node, const struct raft_update *update);
/* What the writer's thread would do. */
void sim_wal_work(struct sim *sim, size_t node);
void sim_wal_crash(struct sim *sim, size_t node, bool machine);
void sim_wal_trim(struct sim *sim, size_t node, raft_index index);
/* The payload of an entry, from the log: held against what was proposed. */
void sim_wal_verify(struct sim *sim, size_t node, raft_index index);
/* Reads an entry that must be there. */
struct raft_entry sim_wal_entry(struct sim *sim, size_t node, raft_index index);
void sim_wal_close(struct sim *sim, size_t node);

/* --- snapshots --- */

/* At a start, from the folder: the newest one must be whole, and no older than the model's. */
void sim_snapshot_open(struct sim *sim, size_t node);
void sim_snapshot_close(struct sim *sim, size_t node);
/* The process dies: a worker that writes one may come as far as anywhere. */
void sim_snapshot_crash(struct sim *sim, size_t node, bool machine);
/* Begins one of the applied state. False: one is being written. */
bool sim_snapshot_begin(struct sim *sim, size_t node,
                        const struct raft_configuration *configuration);
/* Writes it. False: that failed, as it may when the disk is full or a sync fails. */
bool sim_snapshot_write(struct sim *sim, size_t node);
enum sim_receive {
    SIM_RECEIVE_PART = 1, /* it breaks off */
    SIM_RECEIVE_WHOLE,
    SIM_RECEIVE_CRASH, /* the process dies before it is done; the caller lets it */
};
/* Receives one from another server. False: it is not there. */
bool sim_snapshot_receive(struct sim *sim, size_t node, raft_index index, enum sim_receive how);
const struct sim_snapshot *sim_snapshot_find(const struct sim *sim, raft_index index);
/* Replaces the store's content by it. */
void sim_snapshot_load(struct sim *sim, size_t node, raft_index index);

/* --- space --- */

/* Whether the disk has none. */
bool sim_disk_is_full(const struct sim_files *files);
/* A leader whose log has no space hands over. */
void sim_space_turn(struct sim *sim, size_t node);
/* Fills the leader's disk after all faults; the others must go on. */
void sim_space_demand(struct sim *sim);

/* --- servers --- */

struct sim_server {
    struct wal *wal;
    uint64_t wal_durable; /* the last sequence that the log reported */
    bool wal_failed;
    bool wal_full;         /* the log says that there is no space */
    uint64_t hand_over_ms; /* when to hand over again because of that */
    uint64_t wal_mark_ms;  /* when it is to be looked after, if nothing is written till then */
    struct snapshot_dir *snapshots;
    struct snapshot_writer *snapshot_writer; /* NULL: none is being written */
    struct store *store;                     /* the process's, used again in the next run */
    uint64_t store_life;                     /* rises when the store goes back to what it was */
    raft_index applied;
    raft_term applied_term;
    bool apply_scheduled;
    struct session_timers *timers;
    raft_term timers_term;
    bool start_pending;
    raft_term led_term;
    uint64_t seen_ms;
    bool in_turn;
};

/* A command in the log, by its value. */
struct sim_command {
    char *bytes; /* with the value before it, as in the log */
    size_t size;
    uint64_t op;          /* 0: none */
    uint64_t proposed_ms; /* 0: it never was */
    size_t session;       /* create and destroy: which; 0: none */
    bool by_ttl;          /* the end of a session, by its timer */
    uint64_t renewed_ms;  /* then: its last acknowledged renewal */
    bool applied;         /* by anyone */
};

/* One that any server has: equal states give equal files. */
struct sim_snapshot {
    raft_index index;
    raft_term term;
    struct raft_configuration configuration;
    struct snapshot_meta meta; /* of the file, once one was written; */
    struct buffer image;       /* and its bytes */
};

/* --- clients --- */

enum sim_op_kind {
    SIM_OP_READ = 1,
    SIM_OP_WRITE,
    SIM_OP_CAS,
    SIM_OP_DELETE,
    SIM_OP_DELETE_CAS,
    SIM_OP_CREATE,
    SIM_OP_RENEW,
    SIM_OP_DESTROY,
    SIM_OP_LOCK,
    SIM_OP_UNLOCK,
    SIM_OP_CHECK, /* registers the node's check, in a new state */
};

enum sim_mode { SIM_DEFAULT = 1, SIM_CONSISTENT, SIM_STALE };

struct sim_op {
    enum sim_op_kind kind;
    enum sim_mode mode; /* reads */
    bool open;          /* the client waits for it */
    bool unknown;       /* it has given up */
    size_t client;
    size_t node;   /* the server that was asked */
    uint64_t life; /* its life then */
    size_t key;
    uint64_t value;    /* of the command */
    uint64_t expected; /* cas */
    size_t session;
    size_t linear;
    uint64_t started_ms;
    uint64_t arrived_ms;   /* renewals: at the leader */
    raft_index wait_index; /* != 0: answered when this is applied */
    bool found;
    bool txn;      /* cas: within a transaction */
    bool critical; /* check: what it is said to be */
    size_t
        touch_node; /* renewals: 1 + the leader that waits to have applied touch_index; 0: none */
    raft_index touch_index;
};

struct sim_client {
    uint64_t op; /* 0: it does nothing just now */
    size_t node; /* its server */
    bool locker;
    size_t session;      /* 0: none */
    uint64_t renewed_ms; /* when the last acknowledged renewal was sent */
    uint64_t renew_next_ms;
    bool holds[SIM_LOCKS];
    bool refused; /* its last session: the node or its check must be registered first */
    uint64_t seen_index[SIM_KEYS]; /* ModifyIndex, for cas */
    raft_index seen_applied[SIM_NODES_MAX];
    uint64_t seen_life[SIM_NODES_MAX]; /* the store's */
};

struct sim_session {
    struct uuid id;
    uint64_t ttl_ms;
    uint64_t lock_delay_ms;
    bool checked;        /* depends on the node's check */
    uint64_t renewed_ms; /* arrival of the last acknowledged renewal at its leader; creation */
    bool created;
    bool ended;
};

/* A lock, as the committed log has it. */
struct sim_lock {
    size_t holder;    /* 0: none */
    uint64_t free_ms; /* not before this may it be granted */
};

struct sim_full {
    struct sim_files files[SIM_NODES_MAX];          /* of the log; */
    struct sim_files snapshot_files[SIM_NODES_MAX]; /* snapshots are in a folder of their own */
    struct sim_server servers[SIM_NODES_MAX];
    struct sim_command *commands;
    size_t command_count;
    size_t command_capacity;
    uint64_t *checksums; /* by index: of the state; 0: not known */
    size_t checksum_capacity;
    uint64_t *results; /* by index: of what applying gave; 0: not known */
    size_t result_capacity;
    struct sim_snapshot *snapshots;
    size_t snapshot_count;
    size_t snapshot_capacity;
    struct sim_op *ops; /* 0 is none */
    size_t op_count;
    size_t op_capacity;
    struct sim_client clients[SIM_CLIENTS_MAX];
    struct sim_session *sessions; /* 0 is none */
    size_t session_count;
    size_t session_capacity;
    struct sim_lock locks[SIM_LOCKS];
    struct sim_linear *history;
    raft_index judged; /* entries up to here were applied by anyone */
    bool quiet;        /* clients begin nothing new, */
    size_t looked;     /* but one reads all keys once more, */
    bool locking;      /* and, from here on, */
    size_t locked;     /* takes all locks */
};

void sim_full_new(struct sim *sim);
void sim_full_free(struct sim *sim);

/* --- sim_state.c --- */

/* Before the first start, or after the machine's crash: an empty one. */
void sim_state_wipe(struct sim *sim, size_t node);
/* At a start: from the newest snapshot, if the store needs it. */
void sim_state_open(struct sim *sim, size_t node, const struct raft_state *state);
/* Applies what may be applied, now or a little later. */
void sim_state_apply_soon(struct sim *sim, size_t node);
void sim_state_apply(struct sim *sim, size_t node);
/* The store's content was replaced. */
void sim_state_replaced(struct sim *sim, size_t node);
/* Reads a key. */
bool sim_state_get(struct sim *sim, size_t node, const char *key, uint64_t *value,
                   uint64_t *modify_index);
bool sim_state_session(struct sim *sim, size_t node, size_t session);

/* --- sim_session.c --- */

/* After each step of a core, and each apply. */
void sim_session_turn(struct sim *sim, size_t node);
void sim_session_created(struct sim *sim, size_t node, const struct session *session);
void sim_session_ended(struct sim *sim, size_t node, const struct uuid *id);
/* Its time was over, and its end is on its way into the log. */
bool sim_session_is_ending(struct sim *sim, size_t node, uint64_t op_number);
/* On the leader, when a read would be answered. False: there is none. */
bool sim_session_touch(struct sim *sim, size_t node, uint64_t op);
/* By the server's clock: when a timer is due. */
uint64_t sim_session_deadline(const struct sim *sim, size_t node);
size_t sim_session_of(const struct uuid *id);

/* --- sim_server.c --- */

uint64_t sim_command_add(struct sim *sim, const struct buffer *bytes, uint64_t op);
/* On the leader. False: it takes nothing. */
bool sim_server_propose(struct sim *sim, size_t node, uint64_t value);
void sim_server_request(struct sim *sim, size_t node, uint64_t op);
void sim_server_remote_write(struct sim *sim, const struct sim_event *event);
void sim_server_remote_read(struct sim *sim, const struct sim_event *event);
void sim_server_remote_answer(struct sim *sim, const struct sim_event *event);
/* The core has answered a read. */
void sim_server_read(struct sim *sim, size_t node, const struct sim_read *asked,
                     const struct raft_read *read);
/* Something was applied: who waited for that? */
void sim_server_applied(struct sim *sim, size_t node);
void sim_server_crashed(struct sim *sim, size_t node);

/* --- sim_client.c --- */

void sim_client_init(struct sim *sim);
void sim_client_next(struct sim *sim, size_t client);
void sim_client_timeout(struct sim *sim, uint64_t op);
/* `failed`: it had no effect, for sure. `unknown`: nobody can tell. */
enum sim_outcome { SIM_OUTCOME_DONE = 1, SIM_OUTCOME_FAILED, SIM_OUTCOME_UNKNOWN };
struct sim_answer {
    bool ok;
    bool found;
    uint64_t value;
    uint64_t index;
};
void sim_client_done(struct sim *sim, uint64_t op, enum sim_outcome outcome,
                     const struct sim_answer *answer);
/* The names of the keys. */
void sim_key(size_t key, char out[16]);
void sim_lock_key(size_t lock, char out[16]);

/* --- sim_filler.c --- */

void sim_filler_propose(struct sim *sim, size_t node);

/* --- sim_judge.c --- */

/* Anyone's first application of a command, inside its transaction. */
void sim_judge_applied(struct sim *sim, struct store_txn *txn, raft_index index, uint64_t value,
                       const struct command_result *result);
void sim_judge_result(struct sim *sim, size_t node, raft_index index,
                      const struct command_result *result);
void sim_judge_state(struct sim *sim, size_t node);
/* A client was told that it has the lock. */
void sim_judge_granted(struct sim *sim, size_t client, size_t lock);
/* The faults are over, and all clients are quiet for longer than any session lives: sessions have
 * ended, stores agree, histories make sense. */
void sim_judge_end(struct sim *sim);

#endif
