/* A server: it does what raft.h asks of a host, on a disk that may lose what is not synced. In the
 * full mode this disk is the model of what the real log must do. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_full.h"

bool sim_node_awake(const struct sim *sim, size_t node)
{
    return sim->nodes[node].raft != NULL && sim->nodes[node].paused_until_ms <= sim->now_ms;
}

/* --- log and disk --- */

static void sim_log_append(struct sim_log *log, const struct sim_entry *entry)
{
    log->entries = sim_grow(log->entries, &log->capacity, log->count + 1, sizeof(*log->entries));
    log->entries[log->count++] = *entry;
}

/* What a snapshot stands for: the committed entries. */
static void sim_log_restart(const struct sim *sim, struct sim_log *log, raft_index index)
{
    log->count = 0;
    for (raft_index i = 1; i <= index; i++) {
        sim_log_append(log, &sim->committed[i - 1].entry);
    }
}

static void sim_disk_apply(const struct sim *sim, struct sim_disk *disk,
                           const struct sim_write *write)
{
    if (write->hard_state_changed) {
        disk->term = write->term;
        disk->vote = write->vote;
    }
    if (write->reset_index != 0) {
        sim_log_restart(sim, &disk->log, write->reset_index);
        disk->first_index = write->reset_index + 1;
    }
    if (write->truncate_from != 0) {
        sim_require(sim, write->truncate_from <= disk->log.count, "truncation beyond the log");
        disk->log.count = write->truncate_from - 1;
    }
    if (write->entry_count > 0) {
        sim_require(sim, write->first_index == disk->log.count + 1, "hole in the log on disk");
    }
    for (size_t i = 0; i < write->entry_count; i++) {
        sim_log_append(&disk->log, &write->entries[i]);
    }
}

static void sim_disk_pop(struct sim_disk *disk)
{
    free(disk->writes[disk->write_first].entries);
    disk->write_first++;
    disk->write_count--;
    if (disk->write_count == 0) {
        disk->write_first = 0;
    }
}

static void sim_disk_queue(struct sim *sim, size_t node, const struct raft_update *update)
{
    struct sim_node *server = &sim->nodes[node];
    struct sim_disk *disk = &server->disk;
    const struct sim_parameters *parameters = &sim->parameters;

    disk->writes = sim_grow(disk->writes, &disk->write_capacity,
                            disk->write_first + disk->write_count + 1, sizeof(*disk->writes));
    struct sim_write *write = &disk->writes[disk->write_first + disk->write_count];
    *write = (struct sim_write){.sequence = update->sequence,
                                .hard_state_changed = update->hard_state_changed,
                                .term = update->term,
                                .vote = update->vote,
                                .reset_index = update->reset_index,
                                .truncate_from = update->truncate_from,
                                .entry_count = update->entry_count};
    uint64_t last_due_ms = sim->now_ms;
    if (disk->write_count > 0) {
        last_due_ms = write[-1].due_ms;
    }
    const uint64_t slowest_ms =
        disk->slow && !sim->healed ? parameters->disk_slow_ms : parameters->disk_ms;
    write->due_ms = sim->now_ms + sim_between(sim, 0, slowest_ms);
    if (write->due_ms < last_due_ms) {
        write->due_ms = last_due_ms; /* Durable in order. */
    }
    disk->write_count++;

    if (update->reset_index != 0) {
        sim->stats.resets_of_logs++;
        sim_require(sim, update->reset_index <= server->disk.snapshot_index,
                    "the log is dropped without a snapshot");
        sim_require(sim, update->reset_term == sim->committed[update->reset_index - 1].entry.term,
                    "the log begins behind a wrong term");
        sim_log_restart(sim, &server->log, update->reset_index);
    }
    if (update->truncate_from != 0) {
        sim->stats.truncations++;
        sim_require(sim, update->truncate_from <= server->log.count, "truncation of nothing");
        server->log.count = update->truncate_from - 1;
    }
    if (update->entry_count > 0) {
        write->first_index = update->entries[0].index;
        write->entries = calloc(update->entry_count, sizeof(*write->entries));
        sim_require(sim, write->entries != NULL, "out of memory");
    }
    for (size_t i = 0; i < update->entry_count; i++) {
        const struct raft_entry *entry = &update->entries[i];
        write->entries[i] = (struct sim_entry){.term = entry->term, .type = entry->type};
        if (entry->type == RAFT_ENTRY_COMMAND) {
            memcpy(&write->entries[i].value, entry->data, sizeof(write->entries[i].value));
        } else if (entry->type == RAFT_ENTRY_CONFIGURATION) {
            write->entries[i].value = sim_configuration_find(sim, entry->data, entry->size);
        }
        sim_require(sim, entry->index == server->log.count + 1, "hole in the log");
        sim_log_append(&server->log, &write->entries[i]);
        sim_check_append(sim, node, entry->index);
    }
    if (sim->full != NULL) {
        sim_wal_write(sim, node, update);
    }
    sim_schedule(sim,
                 &(struct sim_event){
                     .at_ms = write->due_ms, .type = SIM_DISK, .node = node, .life = server->life});
}

void sim_node_disk_first(struct sim *sim, size_t node, bool durable)
{
    struct sim_disk *disk = &sim->nodes[node].disk;

    if (durable) {
        sim_disk_apply(sim, disk, &disk->writes[disk->write_first]);
    }
    sim_disk_pop(disk);
}

/* All writes that are due become durable; the core hears of the newest only, as with group commit.
 */
void sim_node_disk_done(struct sim *sim, size_t node)
{
    struct sim_disk *disk = &sim->nodes[node].disk;
    uint64_t sequence = 0;

    if (sim->full != NULL) {
        sim_wal_work(sim, node);
        return;
    }
    while (disk->write_count > 0 && disk->writes[disk->write_first].due_ms <= sim->now_ms) {
        sequence = disk->writes[disk->write_first].sequence;
        sim_disk_apply(sim, disk, &disk->writes[disk->write_first]);
        sim_disk_pop(disk);
    }
    if (sequence != 0) {
        sim_trace(sim, node, "durable", "write %" PRIu64, sequence);
        struct raft_event event = {.type = RAFT_EVENT_PERSISTED, .sequence = sequence};
        sim_node_step(sim, node, &event);
    }
}

/* When the faults stop, a slow disk finishes soon what it has. */
void sim_node_disk_hurry(struct sim *sim, size_t node)
{
    struct sim_disk *disk = &sim->nodes[node].disk;
    const uint64_t due_ms = sim->now_ms + sim->parameters.disk_ms;

    for (size_t i = 0; i < disk->write_count; i++) {
        struct sim_write *write = &disk->writes[disk->write_first + i];
        if (write->due_ms > due_ms) {
            write->due_ms = due_ms;
        }
    }
    sim_schedule(
        sim, &(struct sim_event){
                 .at_ms = due_ms, .type = SIM_DISK, .node = node, .life = sim->nodes[node].life});
}

/* --- life --- */

static raft_index sim_batch_end(void *host, raft_index first, raft_index last, size_t bytes_max)
{
    (void)host;
    const raft_index end = first + bytes_max - 1; /* In entries here. */
    return end < last ? end : last;
}

/* Begins to fetch a snapshot, as the update asks; may fail without a word. */
static void sim_node_fetch(struct sim *sim, size_t node, const struct raft_update *update)
{
    struct sim_node *server = &sim->nodes[node];
    const struct sim_node *source = &sim->nodes[update->snapshot_from - 1];

    sim_require(sim, source->disk.snapshot_index >= update->snapshot_index,
                "server %" PRIu64 " asks to fetch a snapshot that it does not have", source->id);
    if (server->fetching || sim->blocked[update->snapshot_from - 1][node]) {
        return;
    }
    struct sim_event event = {.at_ms = sim->now_ms + sim_between(sim, 1, sim->parameters.fetch_ms),
                              .type = SIM_FETCHED,
                              .node = node,
                              .life = server->life,
                              .peer = source->id,
                              .index = source->disk.snapshot_index};
    server->fetching = true;
    sim_schedule(sim, &event);
    if (sim_chance(sim, 1000)) {
        event.at_ms += sim_between(sim, 0, sim->parameters.delay_ms);
        event.duplicate = true;
        sim_schedule(sim, &event);
    }
}

static void sim_node_update(struct sim *sim, size_t node, const struct raft_event *event,
                            const struct raft_update *update)
{
    struct sim_node *server = &sim->nodes[node];

    sim_check_update(sim, node, event, update);
    if (update->sequence != 0) {
        sim_disk_queue(sim, node, update);
    }
    for (size_t i = 0; i < update->message_count; i++) {
        sim_check_message(sim, node, &update->messages[i]);
        sim_send(sim, node, &update->messages[i]);
    }
    sim_check_step(sim, node, update);
    for (size_t i = 0; i < update->read_count; i++) {
        sim_check_read(sim, node, &update->reads[i]);
    }
    if (update->snapshot_from != 0) {
        sim_node_fetch(sim, node, update);
    }
    server->known_leader = update->leader;
    server->deadline_ms = update->deadline_ms;
    server->wake_ms = sim_clock_moment(&server->clock, server->deadline_ms);
    if (sim->full != NULL) {
        sim_state_apply_soon(sim, node);
        sim_session_turn(sim, node); /* Which may have it wake earlier. */
    }
}

void sim_node_init(struct sim *sim, size_t node)
{
    struct sim_node *server = &sim->nodes[node];

    server->id = node + 1;
    server->disk.first_index = 1;
    sim_clock_init(sim, node);
    if (sim->full != NULL) {
        sim_disk_init(sim, &sim->full->files[node], sim_random(sim));
        sim_disk_init(sim, &sim->full->snapshot_files[node],
                      ~sim->full->files[node].random); /* As good as any. */
        sim->full->snapshot_files[node].garbles = true;
        sim_state_wipe(sim, node);
    }
    server->wake_ms = UINT64_MAX;
}

void sim_node_deinit(struct sim *sim, size_t node)
{
    struct sim_node *server = &sim->nodes[node];

    raft_free(server->raft);
    while (server->disk.write_count > 0) {
        sim_disk_pop(&server->disk);
    }
    free(server->disk.writes);
    free(server->disk.log.entries);
    free(server->log.entries);
    if (sim->full != NULL) {
        sim_wal_close(sim, node);
        sim_snapshot_close(sim, node);
        sim_disk_deinit(&sim->full->files[node]);
        sim_disk_deinit(&sim->full->snapshot_files[node]);
    }
}

/* What a log finds when it is opened: runs of terms, and the configuration if it has one. */
static size_t sim_node_runs(const struct sim_disk *disk, struct raft_term_run *runs)
{
    const struct sim_log *log = &disk->log;
    size_t count = 0;

    for (size_t i = disk->first_index - 1; i < log->count; i++) {
        if (count == 0 || runs[count - 1].term != log->entries[i].term) {
            runs[count++] = (struct raft_term_run){i + 1, log->entries[i].term};
        }
    }
    return count;
}

static void sim_node_bootstrap(struct sim *sim, size_t node)
{
    struct raft_update update;

    const int rc = raft_bootstrap(sim->nodes[node].raft, &sim->configurations[0].configuration,
                                  sim_clock_shows(&sim->nodes[node].clock, sim->now_ms), &update);
    sim_require(sim, rc == 0, "bootstrap: %s", raft_strerror(rc));
    sim_node_update(sim, node, &(struct raft_event){.type = RAFT_EVENT_TICK}, &update);
}

bool sim_node_configuration(const struct sim *sim, const struct sim_log *log, raft_index index,
                            struct raft_configuration *out)
{
    while (index > 0 && log->entries[index - 1].type != RAFT_ENTRY_CONFIGURATION) {
        index--;
    }
    if (index == 0) {
        return false;
    }
    *out = sim->configurations[log->entries[index - 1].value].configuration;
    out->index = index;
    return true;
}

/* If the snapshot is ahead of the log, or the log contradicts it, the log begins behind it. */
void sim_node_recover(const struct sim *sim, struct sim_node *server)
{
    struct sim_disk *disk = &server->disk;
    const raft_index index = disk->snapshot_index;

    if (index == 0) {
        return;
    }
    const raft_term term = sim->committed[index - 1].entry.term;
    sim_require(sim, disk->first_index <= index + 1, "the log begins behind the snapshot");
    if (disk->log.count < index || disk->log.entries[index - 1].term != term) {
        sim_log_restart(sim, &disk->log, index);
        disk->first_index = index + 1;
    }
    if (disk->term < term) {
        disk->term = term;
        disk->vote = 0;
    }
    sim_log_restart(sim, &server->log, 0);
    for (size_t i = 0; i < disk->log.count; i++) {
        sim_log_append(&server->log, &disk->log.entries[i]);
    }
    if (server->applied_index < index) {
        server->applied_index = index;
    }
}

static bool sim_node_votes_in(const struct sim *sim, size_t node, raft_index index,
                              struct raft_configuration *configuration)
{
    if (!sim_node_configuration(sim, &sim->nodes[node].log, index, configuration)) {
        return false;
    }
    for (size_t i = 0; i < configuration->count; i++) {
        if (configuration->servers[i].id == sim->nodes[node].id) {
            return configuration->servers[i].voter;
        }
    }
    return false;
}

bool sim_node_may_campaign(const struct sim *sim, size_t node)
{
    const struct sim_node *server = &sim->nodes[node];
    struct raft_configuration newest = {0};
    struct raft_configuration before;

    return sim_node_votes_in(sim, node, server->log.count, &newest) ||
           (newest.index > raft_commit_index(server->raft) &&
            sim_node_votes_in(sim, node, newest.index - 1, &before));
}

/* What a log that is opened says, from the model of the disk. `runs` and the two configurations are
 * what the state points to. */
static void sim_node_model_state(struct sim *sim, size_t node, struct raft_state *state,
                                 struct raft_term_run *runs,
                                 struct raft_configuration configurations[2])
{
    const struct sim_node *server = &sim->nodes[node];
    const struct sim_log *log = &server->disk.log;

    *state = (struct raft_state){.term = server->disk.term, .vote = server->disk.vote};
    if (server->disk.term == 0 && log->count == 0) {
        return;
    }
    state->first_index = server->disk.first_index;
    if (state->first_index > 1) {
        state->prev_term = log->entries[state->first_index - 2].term;
    }
    state->last_index = log->count;
    state->runs = runs;
    state->run_count = sim_node_runs(&server->disk, runs);
    if (sim_node_configuration(sim, log, state->last_index, &configurations[0])) {
        state->configuration = &configurations[0];
        /* What the snapshot replaces is not in it. */
        if (configurations[0].index > server->disk.snapshot_index &&
            sim_node_configuration(sim, log, configurations[0].index - 1, &configurations[1])) {
            state->configuration_before = &configurations[1];
        }
    }
    /* The state may have survived the log's process, or be rebuilt from the beginning. */
    state->commit_index =
        sim_chance(sim, 5000) ? server->applied_index : server->disk.snapshot_index;
}

static void sim_node_new_core(struct sim *sim, size_t node, const struct raft_state *state)
{
    struct sim_node *server = &sim->nodes[node];
    const struct sim_parameters *parameters = &sim->parameters;
    struct raft_options options = {.id = server->id,
                                   .seed = sim_random(sim),
                                   .election_ms = parameters->election_ms,
                                   .heartbeat_ms = parameters->heartbeat_ms,
                                   .lease_ms = parameters->lease_ms,
                                   .lease_guard_ms = parameters->lease_guard_ms,
                                   .lost_spread_ms = parameters->lost_spread_ms,
                                   .append_bytes_max = parameters->batch_max,
                                   .inflight_max = parameters->inflight_max,
                                   .uncommitted_max = parameters->uncommitted_max,
                                   .batch_end = sim_batch_end};

    if (sim->full != NULL) {
        options.batch_end = wal_batch_end;
        options.host = sim->full->servers[node].wal;
        options.append_bytes_max = parameters->batch_max * SIM_ENTRY_BYTES;
    }
    const int rc =
        raft_new(&options, state, sim_clock_shows(&server->clock, sim->now_ms), &server->raft);
    sim_require(sim, rc == 0, "start: %s", raft_strerror(rc));
    server->life++;
    server->applied_index = state->commit_index;
    server->commit_index = state->commit_index;
    server->role = RAFT_FOLLOWER;
    server->known_leader = 0;
    server->term = state->term;
    server->vote = state->vote;
    server->deadline_ms = 0;
    server->wake_ms = sim->now_ms;
    sim_trace(sim, node, "start", "term %" PRIu64 " last %zu commit %" PRIu64, server->term,
              server->disk.log.count, server->commit_index);
}

void sim_node_start(struct sim *sim, size_t node)
{
    struct sim_node *server = &sim->nodes[node];
    const struct sim_parameters *parameters = &sim->parameters;
    struct raft_configuration configurations[2];
    struct raft_state state;

    if (server->raft != NULL || server->retired) {
        return;
    }
    if (sim->full != NULL) {
        if (!sim_wal_open(sim, node, &state)) {
            return;
        }
        sim_node_new_core(sim, node, &state);
    } else {
        sim_node_recover(sim, server);
        struct raft_term_run *runs = calloc(server->disk.log.count + 1, sizeof(*runs));
        sim_require(sim, runs != NULL, "out of memory");
        sim_node_model_state(sim, node, &state, runs, configurations);
        sim_node_new_core(sim, node, &state);
        free(runs);
    }
    const bool bootstrapped = server->disk.term != 0 || server->disk.log.count != 0;
    if (!bootstrapped && (parameters->bootstrap_all ? node < parameters->voter_count : node == 0) &&
        node < parameters->first_count) {
        sim_node_bootstrap(sim, node);
    }
}

void sim_node_reload(struct sim *sim, size_t node)
{
    struct sim_node *server = &sim->nodes[node];

    sim_log_restart(sim, &server->log, 0);
    for (size_t i = 0; i < server->disk.log.count; i++) {
        sim_log_append(&server->log, &server->disk.log.entries[i]);
    }
}

/* Writes reach the disk in order: a crash leaves some first ones of those not yet synced. */
static void sim_node_crash_model(struct sim *sim, size_t node)
{
    struct sim_disk *disk = &sim->nodes[node].disk;
    const uint64_t kept = sim_between(sim, 0, disk->write_count);

    for (uint64_t i = 0; i < kept; i++) {
        sim_node_disk_first(sim, node, true);
    }
    sim->stats.lost_writes += disk->write_count;
    sim_trace(sim, node, "crash", "keeps %" PRIu64 " writes, loses %zu", kept, disk->write_count);
    while (disk->write_count > 0) {
        sim_node_disk_first(sim, node, false);
    }
    sim_node_reload(sim, node);
}

void sim_node_crash(struct sim *sim, size_t node, bool machine)
{
    struct sim_node *server = &sim->nodes[node];

    if (server->raft == NULL) {
        return;
    }
    if (sim->full != NULL) {
        /* What is left shows when the log is opened. */
        sim_trace(sim, node, "crash", "%s", machine ? "of the machine" : "of the process");
        sim_wal_crash(sim, node, machine);
        sim_server_crashed(sim, node);
    } else {
        sim_node_crash_model(sim, node);
    }
    raft_free(server->raft);
    server->raft = NULL;
    server->fetching = false;
    server->life++;
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        /* Its peers' connections are reset, unless the whole machine went. */
        if (i != node && sim_chance(sim, machine ? 1000 : 7000)) {
            sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + sim_between(sim, 0, 5),
                                                  .type = SIM_LOST,
                                                  .node = i,
                                                  .peer = server->id});
        }
    }
    server->paused_until_ms = 0;
    server->wake_ms = UINT64_MAX;
    sim->stats.crashes++;
}

void sim_node_step(struct sim *sim, size_t node, struct raft_event *event)
{
    struct sim_node *server = &sim->nodes[node];
    struct raft_update update;

    sim_require(sim, sim->stats.steps < SIM_STEPS_MAX, "the servers keep each other busy for ever");
    event->now_ms = sim_clock_shows(&server->clock, sim->now_ms);
    const int rc = raft_step(server->raft, event, &update);
    sim->stats.steps++;
    if (rc != 0) {
        /* Only clients may be sent away; all else comes from cores that follow the rules. */
        const bool busy = (rc == RAFT_ENOTLEADER && event->type == RAFT_EVENT_PROPOSE) ||
                          (rc == RAFT_EBUSY &&
                           (event->type == RAFT_EVENT_PROPOSE || event->type == RAFT_EVENT_READ)) ||
                          (rc == RAFT_ETRANSFER && event->type == RAFT_EVENT_PROPOSE) ||
                          (rc == RAFT_ECHANGE && event->type == RAFT_EVENT_PROPOSE) ||
                          (rc == RAFT_ESTALE && event->type == RAFT_EVENT_SNAPSHOT_INSTALLED) ||
                          event->type == RAFT_EVENT_TRANSFER;
        sim_require(sim, busy, "server %" PRIu64 ": %s", server->id, raft_strerror(rc));
        return;
    }
    sim_node_update(sim, node, event, &update);
}

/* --- snapshots --- */

/* The configuration at `index`, as the core has it and as it must be; NULL: not known any more. */
static const struct raft_configuration *sim_node_configuration_at(struct sim *sim, size_t node,
                                                                  raft_index index)
{
    const struct sim_node *server = &sim->nodes[node];
    const struct raft_configuration *found = raft_configuration_at(server->raft, index);
    struct raft_configuration expected;

    sim_require(sim,
                found == NULL || (sim_node_configuration(sim, &server->log, index, &expected) &&
                                  expected.index == found->index),
                "server %zu: the configuration at %" PRIu64 " is another one", node + 1, index);
    return found;
}

void sim_node_compact(struct sim *sim, size_t node)
{
    struct sim_node *server = &sim->nodes[node];

    if (server->raft == NULL) {
        return;
    }
    const raft_index index =
        sim->full == NULL ? server->applied_index : sim->full->servers[node].applied;
    if (index <= server->disk.snapshot_index) {
        return;
    }
    const struct raft_configuration *configuration = sim_node_configuration_at(sim, node, index);
    if (configuration == NULL) {
        return;
    }
    if (sim->full == NULL) {
        sim_node_snapshot_done(sim, node, index);
        return;
    }
    /* A worker writes it, while all goes on. */
    if (!sim_snapshot_begin(sim, node, configuration)) {
        return;
    }
    sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms +
                                                   sim_between(sim, 0, sim->parameters.fetch_ms),
                                          .type = SIM_SNAPSHOT,
                                          .node = node,
                                          .life = server->life,
                                          .index = index});
}

void sim_node_snapshot_done(struct sim *sim, size_t node, raft_index index)
{
    struct sim_node *server = &sim->nodes[node];

    if (sim->full != NULL && !sim_snapshot_write(sim, node)) {
        return;
    }
    sim_require(sim, index > server->disk.snapshot_index, "two snapshots at a time");
    server->disk.snapshot_index = index;
    if (sim->full != NULL) {
        wal_snapshot_synced(sim->full->servers[node].wal, index,
                            sim_snapshot_find(sim, index)->term);
    }
    if (sim_chance(sim, 2000)) {
        return; /* The log is trimmed later. */
    }
    const raft_index from = raft_first_index(server->raft);
    const raft_index trimmed = sim_chance(sim, 5000) ? index : sim_between(sim, from - 1, index);
    sim_trace(sim, node, "compact", "snapshot %" PRIu64 " log from %" PRIu64, index, trimmed + 1);
    sim_require(sim, raft_compact(server->raft, trimmed) == RAFT_OK, "cannot compact");
    if (sim->full != NULL) {
        sim_wal_trim(sim, node, trimmed + 1);
    }
    if (server->disk.first_index < trimmed + 1) {
        server->disk.first_index = trimmed + 1;
    }
    sim->stats.compactions++;
}

static void sim_node_fall(struct sim *sim, size_t node, bool machine)
{
    sim_node_crash(sim, node, machine);
    sim_schedule(sim,
                 &(struct sim_event){.at_ms = sim->now_ms + 5, .type = SIM_START, .node = node});
}

/* The snapshot comes, or breaks off, or the server goes meanwhile. False: it is not there. */
static bool sim_node_receive(struct sim *sim, const struct sim_event *event)
{
    const bool breaks = !sim->healed && sim_chance(sim, 2000);

    if (sim->full == NULL) {
        return !breaks;
    }
    const bool falls = !sim->healed && sim_chance(sim, 1000);

    if (!breaks && !falls) {
        return sim_snapshot_receive(sim, event->node, event->index, SIM_RECEIVE_WHOLE);
    }
    const enum sim_receive how =
        breaks || sim_chance(sim, 5000) ? SIM_RECEIVE_PART : SIM_RECEIVE_CRASH;
    (void)sim_snapshot_receive(sim, event->node, event->index, how);
    if (falls) {
        /* And soon goes on with what it finds of it. */
        struct sim_event again = *event;
        const bool machine = sim_chance(sim, 5000);
        sim_node_fall(sim, event->node, machine);
        if (!machine) {
            sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms + 6,
                                                  .type = SIM_FALL,
                                                  .node = event->node,
                                                  .op = sim_random(sim)});
        }
        again.duplicate = true;
        again.at_ms = sim->now_ms + sim_between(sim, 6, 30);
        sim_schedule(sim, &again);
    }
    return false;
}

/* As server/replica/replica_snapshot.c: it is there, whether it is of use or not. */
static void sim_node_received(struct sim *sim, const struct sim_event *event)
{
    struct sim_disk *disk = &sim->nodes[event->node].disk;

    if (event->index <= disk->snapshot_index) {
        return;
    }
    disk->snapshot_index = event->index;
    if (sim->full != NULL) {
        wal_snapshot_synced(sim->full->servers[event->node].wal, event->index,
                            sim_snapshot_find(sim, event->index)->term);
    }
}

void sim_node_fetched(struct sim *sim, const struct sim_event *event)
{
    struct sim_node *server = &sim->nodes[event->node];

    if (server->raft == NULL || (server->life != event->life && !event->duplicate)) {
        return;
    }
    if (sim->full != NULL && server->disk.term == 0) {
        return; /* It has never heard of a leader that it could have asked. */
    }
    server->fetching = event->duplicate && server->fetching;
    if (!sim_node_receive(sim, event)) {
        return;
    }
    const bool wanted = raft_snapshot_wanted(server->raft, event->index,
                                             sim->committed[event->index - 1].entry.term);
    sim_trace(sim, event->node, "fetched", "snapshot %" PRIu64 " %s", event->index,
              wanted ? "wanted" : "stale");
    struct raft_configuration configuration;
    struct sim_log committed = {0};
    sim_log_restart(sim, &committed, event->index);
    sim_require(sim, sim_node_configuration(sim, &committed, event->index, &configuration),
                "a snapshot without a configuration");
    free(committed.entries);
    if (wanted || sim->full != NULL) {
        sim_node_received(sim, event);
    }
    if (wanted) {
        if (!sim->healed && sim_chance(sim, 500)) {
            sim_node_fall(sim, event->node, true); /* With the file there, and the log as it was. */
            return;
        }
        server->applied_index = event->index;
        if (sim->full != NULL) {
            sim_snapshot_load(sim, event->node, event->index);
        }
        sim->stats.installed++;
    } else {
        sim->stats.stale_snapshots++;
    }
    struct raft_event step = {.type = RAFT_EVENT_SNAPSHOT_INSTALLED,
                              .snapshot = {.index = event->index,
                                           .term = sim->committed[event->index - 1].entry.term,
                                           .configuration = &configuration}};
    sim_node_step(sim, event->node, &step);
}
