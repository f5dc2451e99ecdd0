#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

/* The simulator: a cluster in one process, on a simulated network, simulated disks and virtual
 * time, driven by one seeded generator. Everything that happens follows from the seed. One run: a
 * phase of faults in which only safety is demanded, then the faults stop and the cluster must make
 * progress within a bound.
 *
 * Two modes. The core's: real Raft cores on a model of a disk; entries are numbers. The full one:
 * the model stays, as what must hold, and each server has a real log on simulated files, a real
 * store that the real state machine applies the log to, sessions with their timers, and clients
 * whose histories are judged at the end (sim_full.h).
 *
 * sim_main.c       arguments, summary
 * sim_shrink.c     the least faults with which a run still fails
 * sim_run.c        the run: what is dispatched to whom, progress at the end
 * sim_queue.c      chance, the queue of events, the trace
 * sim_parameters.c what a run is like
 * sim_fault.c      what goes wrong
 * sim_duel.c       what goes wrong in more than one move
 * sim_change.c     changes of the configuration, snapshots
 * sim_node.c       a server: host of a core, with the model of its disk
 * sim_clock.c      its clock
 * sim_network.c    messages on their way
 * sim_check.c      what must hold after every step
 * sim_linear.c     whether a history is linearizable */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "raft/raft.h"

enum {
    SIM_NODES_MAX = 12,
    SIM_CONFIGURATIONS_MAX = 1024, /* different ones of one run */
    SIM_READS_MAX = 1 << 14,       /* reads of one run that are remembered */
    SIM_STEPS_MAX = 1000000,       /* of one run: a hundred times the usual */
    SIM_BATCH_MAX = 4,             /* entries of one proposal */
    SIM_BUSY_INTERVAL_MS = 60,
    SIM_ENTRY_BYTES = 128, /* of a usual command */
};

enum sim_fault {
    SIM_FAULT_HEAL,
    SIM_FAULT_PARTITION,
    SIM_FAULT_ASYMMETRIC,
    SIM_FAULT_LINKS,
    SIM_FAULT_CRASH,
    SIM_FAULT_POWER, /* all at once */
    SIM_FAULT_PAUSE,
    SIM_FAULT_SLOW_DISK,
    SIM_FAULT_RESET,  /* connections, under servers that live on */
    SIM_FAULT_DEPOSE, /* cuts a server off, and others may learn of it; its clients go on */
    SIM_FAULT_TRANSFER,
    SIM_FAULT_CLOCK, /* it jumps, or runs at another rate from now on */
    /* With a real log and store: */
    SIM_FAULT_MACHINE, /* not the process alone: what was not synced is gone, and the store */
    SIM_FAULT_SYNC,    /* the next sync fails */
    SIM_FAULT_FLIP,    /* crash, and a bit in the log is not what it was */
    SIM_FAULT_SPACE,   /* there is none on the disk, for a while */
    SIM_FAULT_COUNT,
};

/* What a run can leave out, by number: first these classes, then single faults in the order in
 * which they come up. */
enum sim_fault_class {
    SIM_CLASS_DROP,
    SIM_CLASS_DUPLICATE,
    SIM_CLASS_DELAY,
    SIM_CLASS_DRIFT,
    SIM_CLASS_COUNT,
};

/* Each has its own chance, so that what is left out changes nothing in those that are not. */
enum sim_stream {
    SIM_STREAM_FAULT,
    SIM_STREAM_CHANGE,
    SIM_STREAM_COMPACT,
    SIM_STREAM_SPLIT,
    SIM_STREAM_COUNT,
};

struct sim_entry {
    raft_term term;
    enum raft_entry_type type;
    uint64_t value; /* unique for a command; which one for a configuration */
};

/* Entries from index 1 on. */
struct sim_log {
    struct sim_entry *entries;
    size_t count;
    size_t capacity;
};

/* One write of a core that is not durable yet. */
struct sim_write {
    uint64_t sequence;
    uint64_t due_ms;
    bool hard_state_changed;
    raft_term term;
    raft_id vote;
    raft_index reset_index;
    raft_index truncate_from;
    raft_index first_index;
    struct sim_entry *entries;
    size_t entry_count;
};

struct sim_disk {
    raft_term term;
    raft_id vote;
    struct sim_log log;        /* what a crash leaves */
    raft_index first_index;    /* what is before was trimmed: kept here for the checks alone */
    raft_index snapshot_index; /* of the newest durable snapshot; 0: none */
    struct sim_write *writes;
    size_t write_first;
    size_t write_count; /* from write_first */
    size_t write_capacity;
    bool slow;
};

/* It shows `shown_ms` at `base_ms`, and goes on at its own rate. */
struct sim_clock {
    uint64_t base_ms;
    uint64_t shown_ms;
    int drift_permille;
    int drift_max_permille; /* either way */
    uint64_t jump_max_ms;
    uint64_t jumped_ms; /* when it did so last */
};

struct sim_node {
    raft_id id;
    struct raft *raft; /* NULL: down */
    uint64_t life;     /* rises with every start, so that events for an earlier one are known */
    bool started_once;
    uint64_t paused_until_ms; /* stopped like by SIGSTOP */
    struct sim_log log;       /* as its host sees it, durable or not */
    struct sim_disk disk;
    raft_index applied_index;
    raft_index commit_index;
    bool fetching; /* a snapshot, from another server */
    bool retired;  /* down until the faults stop, and for ever if it is removed before */
    enum raft_role role;
    raft_term term;
    raft_id vote;
    struct sim_clock clock;
    raft_id known_leader;
    bool damaged;             /* its log was found damaged: down until the damage is undone */
    uint64_t quorum_since_ms; /* by its own clock: leads since, by this configuration */
    uint64_t deadline_ms;     /* by its own clock */
    uint64_t wake_ms;         /* the same in the simulator's time */
};

struct sim_message {
    struct raft_message message;
    struct sim_entry *entries;
};

enum sim_event_type {
    SIM_MESSAGE = 1,
    SIM_DISK,
    SIM_PROPOSE,
    SIM_READ,
    SIM_PROPOSE_ONCE,
    SIM_READ_ONCE,
    SIM_FAULT,
    SIM_START,
    SIM_CHANGE,
    SIM_COMPACT,
    SIM_FETCHED, /* a snapshot up to `index` has arrived */
    SIM_LOST,    /* the server learns that its connection to `peer` is gone */
    /* Later moves of a fault, with their chance in `op`: */
    SIM_DEPOSE,  /* `node` is cut off; `peer` has not heard it for some time */
    SIM_REJOIN,  /* `node`, that was cut off, is heard again */
    SIM_ELECTED, /* `node`, lately */
    SIM_FALL,    /* the machine of `node` crashes, right after its process has */
    /* The full mode's: */
    SIM_CLIENT,       /* client `op` does something */
    SIM_REQUEST,      /* a client's request reaches its server */
    SIM_TIMEOUT,      /* the client gives up */
    SIM_REMOTE_WRITE, /* forwarded from `peer` */
    SIM_REMOTE_READ,
    SIM_REMOTE_ANSWER, /* up to which index to wait; 0: ask again */
    SIM_APPLY,
    SIM_SNAPSHOT, /* the one that was taken at `index` is on disk */
};

struct sim_event {
    uint64_t at_ms;
    uint64_t order; /* among events of the same time */
    enum sim_event_type type;
    size_t node;
    uint64_t life;
    raft_id peer;
    raft_index index;
    bool duplicate;
    uint64_t op;
    bool found;
    struct sim_message *message;
};

/* What an entry that anyone committed was, and in which term that happened first. */
struct sim_committed {
    struct sim_entry entry;
    raft_term committed_in;
};

/* One distinct (index, term) that was ever in a log; log matching says that it fixes the rest. */
struct sim_seen {
    raft_index index;
    raft_term term;
    raft_term prev_term;
    uint64_t value;
};

struct sim_read {
    bool open;
    uint64_t start_ms;
    raft_index committed; /* when it came in */
    size_t node;
    uint64_t op;   /* full mode: for which operation, */
    raft_id asker; /* and of whose client */
};

struct sim_stats {
    uint64_t steps;
    uint64_t elections;
    uint64_t commits;
    uint64_t reads;
    uint64_t drops;
    uint64_t duplicates;
    uint64_t delays;
    uint64_t partitions_symmetric;
    uint64_t partitions_asymmetric;
    uint64_t cut_links;
    uint64_t crashes;
    uint64_t power_cuts;
    uint64_t lost_writes;
    uint64_t pauses;
    uint64_t slow_disks;
    uint64_t truncations;
    uint64_t resets;
    uint64_t transfers;
    uint64_t changes;
    uint64_t removals;
    uint64_t splits;
    uint64_t retired;
    uint64_t compactions;
    uint64_t installed;
    uint64_t stale_snapshots;
    uint64_t resets_of_logs;
    uint64_t clock_jumps;
    uint64_t clock_rates;
    uint64_t sim_ms;
    /* The full mode's. */
    uint64_t applied;
    uint64_t machine_crashes;
    uint64_t torn_tails;
    uint64_t sync_failures;
    uint64_t flips;
    uint64_t flips_refused;
    uint64_t flips_read;
    uint64_t full_disks;
    uint64_t full_leaders;
    uint64_t handed_over;
    uint64_t rebuilt;
    uint64_t snapshots_cut;     /* by a crash, while they were written or received */
    uint64_t snapshots_refused; /* received, and damaged by a crash in between */
    uint64_t operations;
    uint64_t unknown_outcomes;
    uint64_t locks;
    uint64_t lock_delays;
    uint64_t sessions;
    uint64_t expired;
    uint64_t linear_states;
    uint64_t undecided; /* histories that took too long to judge */
};

/* Drawn from the seed. Probabilities are per 10,000. */
struct sim_parameters {
    size_t voter_count;
    size_t node_count;  /* at first voters, and perhaps a server without a vote; grows */
    size_t first_count; /* servers of the first configuration */
    bool bootstrap_all;
    uint32_t election_ms;
    uint32_t heartbeat_ms;
    uint32_t lease_ms;
    uint32_t lease_guard_ms;
    uint32_t lost_spread_ms;
    size_t inflight_max;
    size_t batch_max;
    size_t uncommitted_max;
    uint64_t latency_ms;
    unsigned drop;
    unsigned duplicate;
    unsigned delay; /* of a message to take much longer */
    uint64_t delay_ms;
    uint64_t disk_ms;
    uint64_t disk_slow_ms;
    uint64_t fault_interval_ms;
    unsigned fault_weights[SIM_FAULT_COUNT];
    uint64_t propose_interval_ms;
    uint64_t read_interval_ms;
    uint64_t fault_phase_ms;
    unsigned split; /* of a new leader, to be asked for a change while the network splits */
    uint64_t change_interval_ms;  /* 0: the configuration stays */
    uint64_t compact_interval_ms; /* 0: logs stay whole */
    uint64_t fetch_ms;
    /* The full mode's. */
    size_t client_count;
    uint64_t think_ms;
    uint64_t timeout_ms;
    uint64_t ttl_ms;   /* shortest */
    uint64_t apply_ms; /* applying lags behind by up to this */
    size_t segment_bytes;
    size_t cache_bytes; /* of the log: little, so that followers and applying read from files */
};

struct sim_configuration {
    struct raft_configuration configuration;
    size_t size;
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
};

struct sim_options {
    uint64_t seed;
    bool verbose;
    bool full;
    bool duel;    /* the run is one */
    bool planted; /* fails when a server crashes, or in a duel is deposed, while the network
                   * is cut: to test the rest by */
    /* By number of the fault; NULL: nothing is left out. */
    const bool *left_out;
    size_t left_out_count;
};

enum { SIM_MODES_BYTES = 32 };
/* The arguments, each behind a space, that make the simulator run such seeds; written to `out`. */
const char *sim_modes(const struct sim_options *options, char *out);

struct sim_full;

struct sim {
    struct sim_options options;
    struct sim_full *full; /* NULL: the core's mode */
    uint64_t random;
    size_t fault_count; /* classes included */
    uint64_t stream_counts[SIM_STREAM_COUNT];
    uint64_t now_ms;
    uint64_t next_order;
    struct sim_parameters parameters;
    struct sim_configuration *configurations; /* entry->value tells which; 0 is the first one */
    size_t configuration_count;
    struct sim_node nodes[SIM_NODES_MAX];
    bool blocked[SIM_NODES_MAX][SIM_NODES_MAX]; /* [from][to] */

    struct sim_event *heap;
    size_t heap_count;
    size_t heap_capacity;

    bool healed;
    uint64_t next_value;
    uint64_t healed_value; /* values from here on were proposed after the faults stopped */
    bool read_after_heal;

    struct sim_committed *committed; /* by index - 1 */
    size_t committed_count;
    size_t committed_capacity;
    raft_id *leaders; /* by term */
    size_t leaders_capacity;
    struct sim_seen *seen; /* open hashing by (index, term) */
    size_t seen_count;
    size_t seen_capacity;
    struct sim_read reads[SIM_READS_MAX];
    uint64_t read_count;

    struct sim_stats stats;
};

/* --- sim_run.c --- */

/* Runs one seed and adds to `stats`. Returns how many faults there were, by number. Does not return
 * when an invariant is broken. */
size_t sim_run(const struct sim_options *options, struct sim_stats *stats);
/* Adds `more` to `total`, number by number. */
void sim_stats_add(struct sim_stats *total, const struct sim_stats *more);
/* Runs until then. */
void sim_advance(struct sim *sim, uint64_t until_ms);
/* The leader of the latest term; SIM_NODES_MAX: there is none. */
size_t sim_leader_now(const struct sim *sim);
/* Whether every server that is a member, but one, has applied a command whose value is `since` or
 * later; `but` SIM_NODES_MAX: every one. */
bool sim_progressed(const struct sim *sim, uint64_t since, size_t but);
void sim_propose_at(struct sim *sim, size_t node);
void sim_read_at(struct sim *sim, size_t node);

/* --- sim_shrink.c --- */

/* Runs again and again, each time with fewer faults, as long as the run fails in the same way.
 * Prints what is left. Returns the program's status. */
int sim_shrink(const struct sim_options *options);
/* What broke, and how many faults there were so far, for whoever runs this in a process of its own.
 */
void sim_shrink_failed(const char *what);
void sim_shrink_note(size_t fault_count);

/* --- sim_queue.c --- */

struct sim_event sim_queue_pop(struct sim *sim);
/* Any server, but more often one that leads: it has most to lose. */
size_t sim_victim(struct sim *sim);
uint64_t sim_random(struct sim *sim);
/* Uniform in [low, high]. */
uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high);
bool sim_chance(struct sim *sim, unsigned per_10000);
void sim_schedule(struct sim *sim, const struct sim_event *event);
/* Prints one line of the trace: time, server, word, text. */
void sim_trace(const struct sim *sim, size_t node, const char *word, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void *sim_grow(void *array, size_t *capacity, size_t needed, size_t item_bytes);

/* --- sim_parameters.c --- */

void sim_parameters_draw(struct sim *sim);
/* The first one. */
void sim_configuration_make(struct sim *sim);
/* Remembers a configuration. Returns which one it is. */
uint64_t sim_configuration_add(struct sim *sim, const struct raft_configuration *configuration);
/* Which one these bytes are. */
uint64_t sim_configuration_find(const struct sim *sim, const void *bytes, size_t size);

/* --- sim_fault.c --- */

/* One fault of a stream comes up: gives it its number and its chance. False: it is left out. In any
 * case sim_fault_leave(), with what is in `*random`. */
bool sim_fault_enter(struct sim *sim, enum sim_stream stream, uint64_t *random);
void sim_fault_leave(struct sim *sim, uint64_t random);
bool sim_fault_class_left_out(const struct sim *sim, enum sim_fault_class which);
void sim_fault(struct sim *sim);
void sim_crash_and_restart(struct sim *sim, size_t node, bool machine);
void sim_network_heal(struct sim *sim);
void sim_lost(struct sim *sim, size_t node, raft_id peer);

void sim_transfer(struct sim *sim, size_t node);

/* --- sim_duel.c --- */

/* Makes a run of it in which one of three servers is deposed again and again, and so fast that a
 * new leader may be there between two heartbeats of the old one. */
void sim_parameters_duel(struct sim *sim);
void sim_depose(struct sim *sim, size_t node);
/* A leader was elected. */
void sim_elected(struct sim *sim, size_t node);
/* SIM_DEPOSE, SIM_REJOIN, SIM_ELECTED and SIM_FALL. */
void sim_duel_dispatch(struct sim *sim, const struct sim_event *event);

/* --- sim_change.c --- */

void sim_change(struct sim *sim);
size_t sim_voters(const struct raft_configuration *configuration);
void sim_change_remove(struct raft_configuration *configuration, size_t at);
/* Asks the leader `node` for it. */
void sim_change_propose(struct sim *sim, size_t node,
                        const struct raft_configuration *configuration);
void sim_compact(struct sim *sim);

/* --- sim_clock.c --- */

void sim_clock_init(struct sim *sim, size_t node);
uint64_t sim_clock_shows(const struct sim_clock *clock, uint64_t at_ms);
/* The first moment at which the clock shows `shown_ms` or more. */
uint64_t sim_clock_moment(const struct sim_clock *clock, uint64_t shown_ms);
void sim_clock_disturb(struct sim *sim, size_t node);

/* --- sim_node.c --- */

void sim_node_init(struct sim *sim, size_t node);
void sim_node_deinit(struct sim *sim, size_t node);
void sim_node_start(struct sim *sim, size_t node);
/* Loses memory, and all but a random prefix of the writes under way. Full mode, `machine`: and the
 * store. */
void sim_node_crash(struct sim *sim, size_t node, bool machine);
void sim_node_step(struct sim *sim, size_t node, struct raft_event *event);
void sim_node_disk_done(struct sim *sim, size_t node);
/* The first write that is not durable yet becomes so in the model; or it is lost. */
void sim_node_disk_first(struct sim *sim, size_t node, bool durable);
void sim_node_disk_hurry(struct sim *sim, size_t node);
/* Takes a snapshot and lets the core and the disk forget some of what is in it. */
void sim_node_compact(struct sim *sim, size_t node);
/* The snapshot at `index` is on disk. */
void sim_node_snapshot_done(struct sim *sim, size_t node, raft_index index);
void sim_node_fetched(struct sim *sim, const struct sim_event *event);
/* The last configuration at or before `index`, with its index; false: none. */
bool sim_node_configuration(const struct sim *sim, const struct sim_log *log, raft_index index,
                            struct raft_configuration *out);
/* The log is what the disk has. */
void sim_node_reload(struct sim *sim, size_t node);
/* What it takes to go on behind the snapshot on disk. */
void sim_node_recover(const struct sim *sim, struct sim_node *server);
/* Whether its log gives it a vote, or takes it away by an entry that it does not know committed. */
bool sim_node_may_campaign(const struct sim *sim, size_t node);
bool sim_node_awake(const struct sim *sim, size_t node);

/* --- sim_network.c --- */

void sim_send(struct sim *sim, size_t node, const struct raft_message *message);
void sim_deliver(struct sim *sim, struct sim_event *event);
void sim_message_free(struct sim_message *message);

/* --- sim_check.c --- */

/* Ends the program with the seed and how to replay it unless `holds`. */
void sim_require(const struct sim *sim, bool holds, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Before the update of a step is carried out, and after. */
void sim_check_update(struct sim *sim, size_t node, const struct raft_event *event,
                      const struct raft_update *update);
void sim_check_step(struct sim *sim, size_t node, const struct raft_update *update);
void sim_check_append(struct sim *sim, size_t node, raft_index index);
void sim_check_message(struct sim *sim, size_t node, const struct raft_message *message);
void sim_check_read(struct sim *sim, size_t node, const struct raft_read *read);

#endif
