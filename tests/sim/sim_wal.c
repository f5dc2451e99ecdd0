/* The real log on a simulated disk. The model in sim_node.c says what it must hold: everything that
 * was reported durable, and of what was under way the first writes or none. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_full.h"

enum {
    SIM_WAL_STEPS_MAX = 1000,
    SIM_WAL_CRASH_STEPS = 6, /* changes of files before a process dies at work */
};

static void on_durable(void *host, uint64_t sequence)
{
    struct sim_server *server = host;

    server->wal_durable = sequence;
}

static void on_failed(void *host, const char *message)
{
    struct sim_server *server = host;

    (void)message;
    server->wal_failed = true;
}

static void on_full(void *host, bool full)
{
    struct sim_server *server = host;

    server->wal_full = full;
}

static struct wal_options wal_options_of(struct sim *sim, size_t node)
{
    return (struct wal_options){.dir = "raft",
                                .segment_bytes = sim->parameters.segment_bytes,
                                .cache_bytes = sim->parameters.cache_bytes,
                                .host = &sim->full->servers[node],
                                .on_durable = on_durable,
                                .on_failed = on_failed,
                                .on_full = on_full,
                                .files = &sim->full->files[node].table,
                                .stepped = true,
                                .idle_ms = sim->parameters.election_ms / 4};
}

/* --- reading --- */

/* What was written as this entry. */
static struct raft_entry wal_expected(const struct sim *sim, size_t node, raft_index index)
{
    const struct sim_entry *entry = &sim->nodes[node].log.entries[index - 1];
    struct raft_entry expected = {.index = index, .term = entry->term, .type = entry->type};

    if (entry->type == RAFT_ENTRY_COMMAND) {
        expected.data = sim->full->commands[entry->value].bytes;
        expected.size = sim->full->commands[entry->value].size;
    } else if (entry->type == RAFT_ENTRY_CONFIGURATION) {
        expected.data = sim->configurations[entry->value].bytes;
        expected.size = sim->configurations[entry->value].size;
    }
    return expected;
}

/* A damaged entry is an error, never other bytes; the process stops then, here as soon as the step
 * is over, which goes on with what was written. */
struct raft_entry sim_wal_entry(struct sim *sim, size_t node, raft_index index)
{
    struct sim_server *server = &sim->full->servers[node];
    struct raft_entry entry;

    const int rc = wal_entry(server->wal, index, &entry);
    if (rc == WAL_ECORRUPT && sim->full->files[node].flipped) {
        sim_trace(sim, node, "damaged", "entry %" PRIu64 ": the process stops", index);
        sim->stats.flips_read += server->wal_failed ? 0 : 1;
        server->wal_failed = true;
        sim_schedule(sim, &(struct sim_event){.at_ms = sim->now_ms,
                                              .type = SIM_DISK,
                                              .node = node,
                                              .life = sim->nodes[node].life});
        return wal_expected(sim, node, index);
    }
    sim_require(sim, rc == WAL_OK, "server %zu: entry %" PRIu64 " cannot be read: %s", node + 1,
                index, wal_strerror(rc));
    return entry;
}

void sim_wal_verify(struct sim *sim, size_t node, raft_index index)
{
    const struct raft_entry entry = sim_wal_entry(sim, node, index);
    const struct raft_entry expected = wal_expected(sim, node, index);

    sim_require(sim,
                entry.index == index && entry.term == expected.term &&
                    entry.type == expected.type && entry.size == expected.size &&
                    (entry.size == 0 || memcmp(entry.data, expected.data, entry.size) == 0),
                "server %zu: entry %" PRIu64 " of the log is not what was written", node + 1,
                index);
}

/* --- opening --- */

static raft_term state_term_at(const struct raft_state *state, raft_index index)
{
    raft_term term = 0;

    for (size_t i = 0; i < state->run_count && state->runs[i].first <= index; i++) {
        term = state->runs[i].term;
    }
    return term;
}

static bool wal_is_model(const struct raft_state *state, const struct sim_disk *disk)
{
    if (state->term != disk->term || state->vote != disk->vote ||
        state->last_index != disk->log.count) {
        return false;
    }
    for (raft_index index = state->last_index; index > 0 && index >= state->first_index; index--) {
        if (state_term_at(state, index) != disk->log.entries[index - 1].term) {
            return false;
        }
    }
    return true;
}

/* Finds out which of the writes under way are there. */
static void wal_match(struct sim *sim, size_t node, const struct raft_state *state)
{
    struct sim_disk *disk = &sim->nodes[node].disk;
    size_t kept = 0;

    while (!wal_is_model(state, disk)) {
        sim_require(sim, disk->write_count > 0,
                    "server %zu: the log has lost what it called durable: it has term %" PRIu64
                    " vote %" PRIu64 " last entry %" PRIu64,
                    node + 1, state->term, state->vote, state->last_index);
        sim_node_disk_first(sim, node, true);
        kept++;
    }
    sim_trace(sim, node, "log", "keeps %zu writes, loses %zu: term %" PRIu64 " last %" PRIu64, kept,
              disk->write_count, state->term, state->last_index);
    sim->stats.lost_writes += disk->write_count;
    while (disk->write_count > 0) {
        sim_node_disk_first(sim, node, false);
    }
}

/* It could not even begin: somebody starts it again later. */
static bool wal_lacks_space(struct sim *sim, size_t node)
{
    if (sim->full->files[node].full_until_ms <= sim->now_ms || sim->healed) {
        return false;
    }
    sim_schedule(sim, &(struct sim_event){.at_ms = sim->full->files[node].full_until_ms,
                                          .type = SIM_START,
                                          .node = node});
    return true;
}

/* False: it refuses, which only damage excuses, or a full disk. */
static bool wal_open_once(struct sim *sim, size_t node, struct raft_state *state)
{
    struct sim_server *server = &sim->full->servers[node];
    const struct wal_options options = wal_options_of(sim, node);
    char message[WAL_ERROR_BYTES_MAX];

    server->wal_failed = false;
    server->wal_full = false;
    server->hand_over_ms = 0;
    server->wal_durable = 0;
    server->wal_mark_ms = 0;
    const int rc = wal_open(&options, &server->wal, state, message);
    if (rc == WAL_OK) {
        sim->stats.torn_tails += wal_cut_bytes(server->wal) > 0 ? 1 : 0;
        return true;
    }
    sim_trace(sim, node, "refuses", "%s", message);
    server->wal = NULL;
    if (wal_lacks_space(sim, node)) {
        return false;
    }
    sim_require(sim, sim->full->files[node].flipped, "server %zu: the log does not open: %s",
                node + 1, message);
    sim->stats.flips_refused++;
    sim->nodes[node].damaged = true;
    sim->nodes[node].retired = true;
    return false;
}

/* As server/replica/replica_open.c does it. False: there is no space to. */
static bool wal_fit_snapshot(struct sim *sim, size_t node, struct raft_state *state)
{
    struct sim_server *server = &sim->full->servers[node];
    const raft_index index = sim->nodes[node].disk.snapshot_index;
    const raft_term term = index == 0 ? 0 : sim_snapshot_find(sim, index)->term;
    const struct wal_options options = wal_options_of(sim, node);
    char message[WAL_ERROR_BYTES_MAX];
    int rc;

    switch (wal_fit(state, index, term)) {
    case WAL_FITS:
        break;
    case WAL_FIT_RESET:
        wal_close(server->wal);
        server->wal = NULL;
        rc = wal_reset_closed(&options, index, term, message);
        if (rc != WAL_OK && wal_lacks_space(sim, node)) {
            return false;
        }
        sim_require(sim, rc == WAL_OK, "server %zu: %s", node + 1, message);
        if (!wal_open_once(sim, node, state)) {
            return false;
        }
        break;
    case WAL_FIT_NO_SNAPSHOT:
    case WAL_FIT_NO_LOG:
        sim_require(sim, false, "server %zu: log and snapshot do not fit", node + 1);
        break;
    }
    if (index > 0) {
        wal_snapshot_synced(server->wal, index, term);
    }
    return true;
}

/* What the log no longer says itself, its snapshot does. */
static void wal_complete_state(struct sim *sim, size_t node, struct raft_state *state)
{
    const raft_index index = sim->nodes[node].disk.snapshot_index;
    const struct sim_snapshot *newest = index == 0 ? NULL : sim_snapshot_find(sim, index);

    state->commit_index = sim->full->servers[node].applied;
    if (newest == NULL) {
        return;
    }
    if (state->configuration == NULL) {
        state->configuration = &newest->configuration;
    } else if (state->configuration_before == NULL &&
               newest->configuration.index < state->configuration->index) {
        state->configuration_before = &newest->configuration;
    }
}

bool sim_wal_open(struct sim *sim, size_t node, struct raft_state *state)
{
    struct sim_node *server = &sim->nodes[node];

    if (!wal_open_once(sim, node, state)) {
        return false;
    }
    sim_disk_unflip(sim, node, false);
    server->damaged = false;
    wal_match(sim, node, state);
    sim_snapshot_open(sim, node);
    if (!wal_fit_snapshot(sim, node, state)) {
        sim_snapshot_close(sim, node);
        return false;
    }
    sim_node_recover(sim, server);
    sim_node_reload(sim, node);
    sim_require(sim, wal_is_model(state, &server->disk),
                "server %zu: the log after a reset is not what it should be", node + 1);
    server->disk.first_index = state->first_index == 0 ? 1 : state->first_index;
    for (raft_index index = server->disk.first_index; index <= state->last_index; index++) {
        sim_wal_verify(sim, node, index);
    }
    sim_state_open(sim, node, state);
    sim_require(sim, sim->full->servers[node].applied <= state->last_index,
                "server %zu has applied what its log does not hold", node + 1);
    wal_complete_state(sim, node, state);
    return true;
}

/* --- writing --- */

void sim_wal_write(struct sim *sim, size_t node, const struct raft_update *update)
{
    struct sim_server *server = &sim->full->servers[node];
    const struct wal_write write = {.sequence = update->sequence,
                                    .hard_state_changed = update->hard_state_changed,
                                    .term = update->term,
                                    .vote = update->vote,
                                    .reset_index = update->reset_index,
                                    .reset_term = update->reset_term,
                                    .truncate_from = update->truncate_from,
                                    .entries = update->entries,
                                    .entry_count = update->entry_count};

    const int rc = wal_write(server->wal, &write);
    sim_require(sim, rc == WAL_OK, "server %zu: the log takes nothing: %s", node + 1,
                wal_strerror(rc));
}

/* The mark that follows a silence. */
static void wal_plan_mark(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    const uint64_t due_us = wal_step_due_us(server->wal);

    if (due_us == UINT64_MAX || server->wal_mark_ms > sim->now_ms) {
        return;
    }
    server->wal_mark_ms = due_us / 1000 + 1;
    sim_schedule(sim, &(struct sim_event){.at_ms = server->wal_mark_ms,
                                          .type = SIM_DISK,
                                          .node = node,
                                          .life = sim->nodes[node].life});
}

void sim_wal_work(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    struct sim_disk *disk = &sim->nodes[node].disk;
    unsigned steps = 0;
    bool news = false;

    while (!server->wal_failed && wal_step(server->wal)) {
        sim_require(sim, ++steps < SIM_WAL_STEPS_MAX, "server %zu: the log's writer is never done",
                    node + 1);
    }
    if (server->wal_failed) {
        sim_trace(sim, node, "sync", "fails: the process stops");
        sim_crash_and_restart(sim, node, false);
        return;
    }
    while (disk->write_count > 0 &&
           disk->writes[disk->write_first].sequence <= server->wal_durable) {
        sim_node_disk_first(sim, node, true);
        news = true;
    }
    wal_plan_mark(sim, node);
    if (news) {
        sim_trace(sim, node, "durable", "write %" PRIu64, server->wal_durable);
        struct raft_event event = {.type = RAFT_EVENT_PERSISTED, .sequence = server->wal_durable};
        sim_node_step(sim, node, &event);
    }
    sim_space_turn(sim, node);
}

/* --- the end --- */

void sim_wal_crash(struct sim *sim, size_t node, bool machine)
{
    struct sim_server *server = &sim->full->servers[node];
    struct sim_files *files = &sim->full->files[node];

    if (sim_chance(sim, 6000)) {
        /* The writer was at work, and comes as far as this. */
        files->frozen = true;
        files->steps_left = sim_chance(sim, 4000)
                                ? 1 /* Mostly a write, whose sync does not come. */
                                : (unsigned)sim_between(sim, 0, SIM_WAL_CRASH_STEPS);
        while (!server->wal_failed && wal_step(server->wal)) {
        }
    }
    wal_abandon(server->wal);
    server->wal = NULL;
    sim_disk_crash(sim, node, files, machine);
    sim_snapshot_crash(sim, node, machine);
    if (machine) {
        sim->stats.machine_crashes++;
        sim_state_wipe(sim, node);
    }
}

void sim_wal_trim(struct sim *sim, size_t node, raft_index index)
{
    char message[WAL_ERROR_BYTES_MAX];

    const int rc = wal_trim(sim->full->servers[node].wal, index, message);
    sim_require(sim, rc == WAL_OK, "server %zu: the log is not trimmed: %s", node + 1,
                wal_strerror(rc));
}

void sim_wal_close(struct sim *sim, size_t node)
{
    wal_abandon(sim->full->servers[node].wal);
    sim->full->servers[node].wal = NULL;
}
