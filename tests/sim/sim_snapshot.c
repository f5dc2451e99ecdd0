/* Snapshots: the real files (server/snapshot) on simulated ones, of which a crash takes what was
 * not synced. The model is one number, the newest that was reported durable: that one, or a newer
 * one, must be there and whole at every start. What happens here has its own chance. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"
#include "tests/sim/sim_full.h"

enum {
    SIM_SNAPSHOT_CRASH_STEPS = 20, /* changes of files before a process dies that writes one */
    SIM_RECEIVE_CRASH_STEPS = 7,   /* and one that receives one */
    SIM_RECEIVE_PIECES = 4,
    SIM_RECEIVE_RENAMED = SIM_RECEIVE_PIECES + 2, /* pieces, sync, rename: the folder's sync not */
};

/* What the product would tell an operator. */
void log_write(enum log_level level, const char *module, const char *format, ...)
{
    (void)level;
    (void)module;
    (void)format;
}

/* --- chance --- */

static uint64_t chance_enter(struct sim *sim, size_t node)
{
    const uint64_t random = sim->random;

    sim->random = sim->full->snapshot_files[node].random;
    return random;
}

static void chance_leave(struct sim *sim, size_t node, uint64_t random)
{
    sim->full->snapshot_files[node].random = sim->random;
    sim->random = random;
}

/* --- what is known of them --- */

static struct sim_snapshot *snapshot_find(const struct sim *sim, raft_index index)
{
    struct sim_full *full = sim->full;

    for (size_t i = full->snapshot_count; i > 0; i--) {
        if (full->snapshots[i - 1].index == index) {
            return &full->snapshots[i - 1];
        }
    }
    return NULL;
}

const struct sim_snapshot *sim_snapshot_find(const struct sim *sim, raft_index index)
{
    const struct sim_snapshot *snapshot = snapshot_find(sim, index);

    sim_require(sim, snapshot != NULL, "a snapshot of entry %" PRIu64 " that nobody took", index);
    return snapshot;
}

/* Reads the file, for others to receive it. */
static void snapshot_read(struct sim *sim, size_t node, struct sim_snapshot *snapshot)
{
    struct snapshot_file file;
    struct errmsg err;
    size_t got = 0;

    int rc = snapshot_file_open(sim->full->servers[node].snapshots, &snapshot->meta, &file, &err);
    sim_require(sim, rc == SNAPSHOT_OK, "server %zu: %s", node + 1, err.text);
    char *bytes = buffer_reserve(&snapshot->image, (size_t)file.bytes);
    sim_require(sim, bytes != NULL, "out of memory");
    rc = snapshot_file_read(&file, 0, bytes, (size_t)file.bytes, &got, &err);
    sim_require(sim, rc == SNAPSHOT_OK && got == file.bytes, "server %zu: a snapshot is short",
                node + 1);
    snapshot->image.size = got;
    snapshot_file_close(&file);
}

/* A whole one is on this server's disk: equal to all others of that index. */
static void snapshot_seen(struct sim *sim, size_t node, const struct snapshot_meta *meta)
{
    struct sim_snapshot *snapshot = snapshot_find(sim, meta->index);

    sim_require(sim, snapshot != NULL && snapshot->term == meta->term,
                "server %zu: a snapshot that nobody took", node + 1);
    if (snapshot->image.size == 0) {
        snapshot->meta = *meta;
        snapshot_read(sim, node, snapshot);
    }
    sim_require(sim,
                meta->bytes == snapshot->meta.bytes && meta->checksum == snapshot->meta.checksum &&
                    meta->configuration.index == snapshot->configuration.index,
                "server %zu: another snapshot of entry %" PRIu64 " than others have", node + 1,
                meta->index);
}

/* --- life --- */

void sim_snapshot_close(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];

    snapshot_writer_free(server->snapshot_writer);
    server->snapshot_writer = NULL;
    snapshot_dir_close(server->snapshots);
    server->snapshots = NULL;
}

/* As server/replica/replica_open.c does it. */
void sim_snapshot_open(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    struct sim_disk *disk = &sim->nodes[node].disk;
    struct snapshot_meta newest = {0};
    struct errmsg err;

    int rc = snapshot_dir_open_with("snapshots", &sim->full->snapshot_files[node].ops,
                                    &server->snapshots, &err);
    sim_require(sim, rc == SNAPSHOT_OK, "server %zu: %s", node + 1, err.text);
    rc = snapshot_prune(server->snapshots, SNAPSHOT_LIST_MAX, &err);
    sim_require(sim, rc == SNAPSHOT_OK, "server %zu: %s", node + 1, err.text);
    rc = snapshot_latest(server->snapshots, &newest, &err);
    sim_require(sim, rc == SNAPSHOT_OK || rc == SNAPSHOT_ENOTFOUND, "server %zu: %s", node + 1,
                err.text);
    sim_require(sim, newest.index >= disk->snapshot_index,
                "server %zu: the snapshot of entry %" PRIu64 " is lost, the newest is of %" PRIu64,
                node + 1, disk->snapshot_index, newest.index);
    if (newest.index > 0) {
        rc = snapshot_verify(server->snapshots, &newest, NULL, &err);
        sim_require(sim, rc == SNAPSHOT_OK, "server %zu: a snapshot is not whole: %s", node + 1,
                    err.text);
        snapshot_seen(sim, node, &newest);
    }
    disk->snapshot_index = newest.index;
}

void sim_snapshot_crash(struct sim *sim, size_t node, bool machine)
{
    struct sim_server *server = &sim->full->servers[node];
    struct sim_files *files = &sim->full->snapshot_files[node];
    const uint64_t random = chance_enter(sim, node);
    struct snapshot_meta meta;
    struct errmsg err;

    if (server->snapshot_writer != NULL && sim_chance(sim, 7000)) {
        files->frozen = true;
        files->steps_left = (unsigned)sim_between(sim, 0, SIM_SNAPSHOT_CRASH_STEPS);
        (void)snapshot_writer_run(server->snapshot_writer, NULL, &meta, &err); /* Nobody hears. */
        sim->stats.snapshots_cut++;
    }
    sim_snapshot_close(sim, node);
    sim_disk_crash(sim, node, files, machine);
    chance_leave(sim, node, random);
}

/* --- taking --- */

bool sim_snapshot_begin(struct sim *sim, size_t node,
                        const struct raft_configuration *configuration)
{
    struct sim_full *full = sim->full;
    struct sim_server *server = &full->servers[node];
    struct errmsg err;

    if (server->snapshot_writer != NULL) {
        return false;
    }
    const int rc = snapshot_writer_begin(server->snapshots, server->store, configuration,
                                         &server->snapshot_writer, &err);
    sim_require(sim, rc == SNAPSHOT_OK, "server %zu: %s", node + 1, err.text);
    if (snapshot_find(sim, server->applied) == NULL) {
        full->snapshots = sim_grow(full->snapshots, &full->snapshot_capacity,
                                   full->snapshot_count + 1, sizeof(*full->snapshots));
        full->snapshots[full->snapshot_count++] =
            (struct sim_snapshot){.index = server->applied,
                                  .term = server->applied_term,
                                  .configuration = *configuration};
    }
    return true;
}

/* A disk may be full, or its sync fail. */
static void snapshot_excuse(struct sim *sim, size_t node, int rc, const struct errmsg *err)
{
    sim_require(sim, rc == SNAPSHOT_EFULL || rc == SNAPSHOT_EIO, "server %zu: %s", node + 1,
                err->text);
    sim_trace(sim, node, "snapshot", "%s", err->text);
}

bool sim_snapshot_write(struct sim *sim, size_t node)
{
    struct sim_server *server = &sim->full->servers[node];
    const uint64_t random = chance_enter(sim, node);
    struct snapshot_meta meta;
    struct errmsg err;

    const int rc = snapshot_writer_run(server->snapshot_writer, NULL, &meta, &err);
    chance_leave(sim, node, random);
    snapshot_writer_free(server->snapshot_writer);
    server->snapshot_writer = NULL;
    if (rc != SNAPSHOT_OK) {
        snapshot_excuse(sim, node, rc, &err);
        return false;
    }
    snapshot_seen(sim, node, &meta);
    return true;
}

/* --- receiving --- */

/* Pieces up to `end`, from where it stands. */
static int receive_pieces(struct snapshot_receive *receive, const struct sim_snapshot *snapshot,
                          uint64_t end, struct errmsg *err)
{
    const uint64_t piece = snapshot->meta.bytes / SIM_RECEIVE_PIECES + 1;
    int rc = SNAPSHOT_OK;

    for (uint64_t at = snapshot_receive_offset(receive); at < end && rc == SNAPSHOT_OK;) {
        const uint64_t bytes = piece < end - at ? piece : end - at;
        rc = snapshot_receive_chunk(receive, at,
                                    slice_from(snapshot->image.data + at, (size_t)bytes), err);
        at += bytes;
    }
    return rc;
}

static bool receive_from(struct sim *sim, size_t node, const struct sim_snapshot *snapshot,
                         struct snapshot_receive *receive, enum sim_receive how)
{
    struct sim_files *files = &sim->full->snapshot_files[node];
    const uint64_t begin = snapshot_receive_offset(receive);
    uint64_t end = snapshot->meta.bytes;
    struct snapshot_meta meta;
    struct errmsg err;

    if (how == SIM_RECEIVE_PART) {
        end = sim_between(sim, begin, end);
    } else if (how == SIM_RECEIVE_CRASH) {
        files->frozen = true;
        files->steps_left = sim_chance(sim, 4000)
                                ? SIM_RECEIVE_RENAMED
                                : (unsigned)sim_between(sim, 0, SIM_RECEIVE_CRASH_STEPS);
    }
    int rc = receive_pieces(receive, snapshot, end, &err);
    if (rc == SNAPSHOT_OK && how != SIM_RECEIVE_PART) {
        rc = snapshot_receive_finish(receive, &meta, &err);
    }
    if (rc == SNAPSHOT_ECORRUPT || rc == SNAPSHOT_EFORMAT) {
        /* What was there from before a crash is not what was received. */
        sim_require(sim, begin > 0, "server %zu: %s", node + 1, err.text);
        sim->stats.snapshots_refused++;
        return false;
    }
    if (rc != SNAPSHOT_OK && how != SIM_RECEIVE_CRASH) {
        snapshot_excuse(sim, node, rc, &err);
    }
    if (rc != SNAPSHOT_OK || how != SIM_RECEIVE_WHOLE) {
        return false;
    }
    snapshot_seen(sim, node, &meta);
    return true;
}

bool sim_snapshot_receive(struct sim *sim, size_t node, raft_index index, enum sim_receive how)
{
    struct sim_server *server = &sim->full->servers[node];
    const struct sim_snapshot *snapshot = sim_snapshot_find(sim, index);
    struct snapshot_receive *receive;
    struct errmsg err;
    bool whole = false;

    if (server->snapshot_writer != NULL) {
        return false; /* It is asked for again. */
    }
    const uint64_t random = chance_enter(sim, node);
    const int rc = snapshot_receive_begin(server->snapshots, &snapshot->meta, &receive, &err);
    if (rc == SNAPSHOT_OK) {
        whole = receive_from(sim, node, snapshot, receive, how);
        snapshot_receive_free(receive);
    } else {
        snapshot_excuse(sim, node, rc, &err);
    }
    chance_leave(sim, node, random);
    return whole;
}

/* --- loading --- */

void sim_snapshot_load(struct sim *sim, size_t node, raft_index index)
{
    struct sim_server *server = &sim->full->servers[node];
    struct errmsg err;

    const int rc = snapshot_load(server->snapshots, &sim_snapshot_find(sim, index)->meta,
                                 server->store, NULL, &err);
    sim_require(sim, rc == SNAPSHOT_OK, "server %zu: %s", node + 1, err.text);
    sim_state_replaced(sim, node);
}
