#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

/* The simulator: a cluster of real Raft cores in one process, on a simulated network, simulated
 * disks and virtual time, driven by one seeded generator. Everything that happens follows from the
 * seed. One run: a phase of faults in which only safety is demanded, then the faults stop and the
 * cluster must make progress within a bound.
 *
 * sim_main.c    arguments, summary
 * sim_run.c     the run: parameters, queue of events, faults, clients, progress
 * sim_node.c    a server: host of a core, with its disk and its clock
 * sim_network.c messages on their way
 * sim_check.c   what must hold after every step */

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
    int clock_drift_permille;
    uint64_t clock_offset_ms;
    uint64_t wake_ms; /* when its deadline is over, in the simulator's time */
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
    uint64_t retired;
    uint64_t compactions;
    uint64_t installed;
    uint64_t stale_snapshots;
    uint64_t resets_of_logs;
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
    unsigned fault_weights[11]; /* by enum sim_fault */
    uint64_t propose_interval_ms;
    uint64_t read_interval_ms;
    uint64_t fault_phase_ms;
    uint64_t change_interval_ms;  /* 0: the configuration stays */
    uint64_t compact_interval_ms; /* 0: logs stay whole */
    uint64_t fetch_ms;
};

struct sim_configuration {
    struct raft_configuration configuration;
    size_t size;
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
};

struct sim {
    uint64_t seed;
    bool verbose;
    uint64_t random;
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

/* Runs one seed and adds to `stats`. Does not return when an invariant is broken. */
void sim_run(uint64_t seed, bool verbose, struct sim_stats *stats);
uint64_t sim_random(struct sim *sim);
/* Uniform in [low, high]. */
uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high);
bool sim_chance(struct sim *sim, unsigned per_10000);
void sim_schedule(struct sim *sim, const struct sim_event *event);
/* Prints one line of the trace: time, server, word, text. */
void sim_trace(const struct sim *sim, size_t node, const char *word, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Remembers a configuration. Returns which one it is. */
uint64_t sim_configuration_add(struct sim *sim, const struct raft_configuration *configuration);
/* Which one these bytes are. */
uint64_t sim_configuration_find(const struct sim *sim, const void *bytes, size_t size);
void *sim_grow(void *array, size_t *capacity, size_t needed, size_t item_bytes);

/* --- sim_node.c --- */

void sim_node_init(struct sim *sim, size_t node);
void sim_node_deinit(struct sim *sim, size_t node);
void sim_node_start(struct sim *sim, size_t node);
/* Loses memory, and all but a random prefix of the writes under way. */
void sim_node_crash(struct sim *sim, size_t node);
void sim_node_step(struct sim *sim, size_t node, struct raft_event *event);
void sim_node_disk_done(struct sim *sim, size_t node);
void sim_node_disk_hurry(struct sim *sim, size_t node);
/* Takes a snapshot and lets the core and the disk forget some of what is in it. */
void sim_node_compact(struct sim *sim, size_t node);
void sim_node_fetched(struct sim *sim, const struct sim_event *event);
bool sim_node_is_voter(const struct sim *sim, size_t node);
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
