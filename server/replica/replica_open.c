/* Opening a replica: the log, the snapshots and the state, and what becomes of them when they do
 * not agree. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"
#include "server/snapshot/archive.h"

static int open_make_dir(const char *path, struct errmsg *err)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return errmsg_set_errno(err, STORE_EIO, "cannot create %s", path);
    }
    return 0;
}

/* This boot's identity: a store that was used under another one may have lost pages with the
 * machine. */
static const char *open_boot_id(char *out, size_t out_bytes)
{
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t size;

    if (fd < 0) {
        return NULL;
    }
    size = read(fd, out, out_bytes - 1);
    (void)close(fd);
    if (size <= 0) {
        return NULL;
    }
    out[size] = 0;
    out[strcspn(out, "\n")] = 0;
    return out;
}

static int open_store(struct replica *replica, bool *wiped, struct errmsg *err)
{
    const struct config *config = replica->server->config;
    char path[4096];
    char boot_id[64];
    struct store_options options = {.bytes_max = config->state_bytes_max};

    if (config->data_dir == NULL) {
        const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";

        (void)snprintf(replica->memory_dir, sizeof(replica->memory_dir), "%s/proconsul-XXXXXX",
                       base);
        if (mkdtemp(replica->memory_dir) == NULL) {
            replica->memory_dir[0] = 0;
            return errmsg_set_errno(err, STORE_EIO, "cannot make a folder below %s", base);
        }
        options.dir = replica->memory_dir;
    } else {
        (void)snprintf(path, sizeof(path), "%s/state", config->data_dir);
        options.dir = path;
    }
    options.boot_id = open_boot_id(boot_id, sizeof(boot_id));
    return store_open(&options, &replica->server->store, wiped, err);
}

/* `path` has 4096 bytes, and must outlive the options. */
static struct wal_options open_log_options(struct replica *replica, char *path)
{
    const struct config *config = replica->server->config;
    struct wal_options options = {.cache_bytes = REPLICA_LOG_CACHE_BYTES,
                                  .host = replica,
                                  .on_durable = replica_on_durable,
                                  .on_failed = replica_on_log_failed,
                                  .on_full = replica_on_log_full,
                                  .on_synced = replica_on_log_synced};

    if (config->data_dir != NULL) {
        (void)snprintf(path, 4096, "%s/raft", config->data_dir);
        options.dir = path;
    }
    return options;
}

static int open_log(struct replica *replica, struct raft_state *state, struct errmsg *err)
{
    char path[4096];
    char message[WAL_ERROR_BYTES_MAX];
    const struct wal_options options = open_log_options(replica, path);

    if (wal_open(&options, &replica->wal, state, message) != WAL_OK) {
        return errmsg_set(err, STORE_EIO, "cannot open the Raft log: %s", message);
    }
    if (wal_cut_bytes(replica->wal) > 0) {
        log_write(LOG_INFO, REPLICA_LOG,
                  "cut off what was being written when this server stopped: bytes=%llu",
                  (unsigned long long)wal_cut_bytes(replica->wal));
    }
    return 0;
}

static int open_snapshots(struct replica *replica, struct errmsg *err)
{
    const struct config *config = replica->server->config;
    char path[4096];
    int rc;

    if (config->data_dir == NULL) {
        return 0;
    }
    archive_clean(config->data_dir);
    (void)snprintf(path, sizeof(path), "%s/snapshots", config->data_dir);
    rc = snapshot_dir_open(path, &replica->snapshots, err);
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_prune(replica->snapshots, SNAPSHOT_LIST_MAX, err); /* a crash's leftovers */
    }
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_latest(replica->snapshots, &replica->newest, err);
        if (rc == SNAPSHOT_ENOTFOUND) {
            memset(&replica->newest, 0, sizeof(replica->newest));
            return 0;
        }
    }
    return rc;
}

/* A crash came between installing a snapshot and the log's beginning anew behind it: that is made
 * up for. The log is opened again, so that the core finds it as if nothing had happened. */
static int open_reset_log(struct replica *replica, struct raft_state *state, struct errmsg *err)
{
    const struct snapshot_meta *newest = &replica->newest;
    char path[4096];
    char message[WAL_ERROR_BYTES_MAX];
    const struct wal_options options = open_log_options(replica, path);

    log_write(LOG_INFO, REPLICA_LOG, "the log begins anew behind the snapshot: index=%llu",
              (unsigned long long)newest->index);
    wal_close(replica->wal);
    replica->wal = NULL;
    if (wal_reset_closed(&options, newest->index, newest->term, message) != WAL_OK) {
        return errmsg_set(err, STORE_EIO, "cannot reset the Raft log: %s", message);
    }
    return open_log(replica, state, err);
}

/* Log and newest snapshot must be of one piece: else something was lost, and with it what this
 * server promised. */
static int open_fit_log(struct replica *replica, struct raft_state *state, struct errmsg *err)
{
    const struct snapshot_meta *newest = &replica->newest;
    const char *dir = replica->server->config->data_dir;
    int rc = 0;

    switch (wal_fit(state, newest->index, newest->term)) {
    case WAL_FITS:
        break;
    case WAL_FIT_RESET:
        rc = open_reset_log(replica, state, err);
        break;
    case WAL_FIT_NO_SNAPSHOT:
        return errmsg_set(err, STORE_ECORRUPT,
                          "the Raft log begins at index %llu, but the newest snapshot in "
                          "%s/snapshots is of index %llu: a newer one is missing. Restore it",
                          (unsigned long long)state->first_index, dir,
                          (unsigned long long)newest->index);
    case WAL_FIT_NO_LOG:
        return errmsg_set(
            err, STORE_ECORRUPT,
            "there are snapshots, but the Raft log in %s/raft is missing. Restore it, "
            "or remove %s to rejoin as a new server",
            dir, dir);
    }
    if (rc == 0 && newest->index > 0) {
        wal_snapshot_synced(replica->wal, newest->index, newest->term);
    }
    return rc;
}

/* An operator has named the servers that are left: from now on these are the configuration. */
static int open_recover(struct replica *replica, struct raft_state *state, struct errmsg *err)
{
    char path[4096];
    int rc;

    if (!replica_recover_path(replica, path, sizeof(path))) {
        return 0;
    }
    rc = replica_recover_write(replica, state, err);
    if (rc != 0) {
        return rc;
    }
    wal_close(replica->wal); /* Waits until it is durable. */
    replica->wal = NULL;
    memset(state, 0, sizeof(*state));
    rc = open_log(replica, state, err);
    /* The core that begins now counts its writes from 1 again. */
    atomic_store(&replica->durable_sequence, 0);
    if (rc == 0) {
        rc = open_fit_log(replica, state, err);
    }
    if (rc == 0 &&
        (state->configuration == NULL || state->configuration->index != state->last_index)) {
        rc = errmsg_set(err, STORE_EIO, "the recovered configuration could not be stored");
    }
    return rc == 0 ? replica_recover_end(replica, err) : rc;
}

/* The server that is ahead takes back what this one has in excess, as far as its applied entries:
 * even a configuration that was never committed. What is in force then is the operator's. */
static void open_complete_recovered(struct replica *replica, struct raft_state *state)
{
    const raft_index certain = replica->applied_index > 0 ? replica->applied_index : 1;

    if (!replica->recovered || state->configuration_before == NULL ||
        state->configuration_before->index <= certain) {
        return;
    }
    replica->recovered_before = *state->configuration;
    replica->recovered_before.index = certain;
    state->configuration_before = &replica->recovered_before;
}

static int open_read_applied(struct replica *replica, struct errmsg *err)
{
    struct store_txn txn;
    int rc = store_read_begin(replica->server->store, &txn);

    if (rc == STORE_OK) {
        rc = store_applied_get(&txn, &replica->applied_term, &replica->applied_index);
        store_read_end(&txn);
    }
    return rc == STORE_OK ? 0
                          : errmsg_set(err, rc, "cannot read the state: %s", store_strerror(rc));
}

/* A state that is empty, or older than where the log begins, starts from the newest snapshot that
 * can be read. If that has no room, the server starts all the same, and waits for it as one that
 * runs does: who cannot start can show nobody what is missing, nor vote. */
static int open_load_snapshot(struct replica *replica, const struct raft_state *state,
                              struct errmsg *err)
{
    const uint64_t start_ms = replica_clock_ms(replica);
    struct snapshot_meta *list;
    size_t count = 0;
    int rc;

    if (replica->newest.index <= replica->applied_index ||
        (replica->applied_index > 0 && replica->applied_index + 1 >= state->first_index)) {
        return 0;
    }
    list = calloc(SNAPSHOT_LIST_MAX, sizeof(*list));
    if (list == NULL) {
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    rc = snapshot_list(replica->snapshots, list, SNAPSHOT_LIST_MAX, &count, err);
    for (size_t i = 0; i < count && list[i].index + 1 >= state->first_index; i++) {
        log_write(LOG_INFO, REPLICA_LOG, "the state is loaded from a snapshot: index=%llu",
                  (unsigned long long)list[i].index);
        rc = snapshot_load(replica->snapshots, &list[i], replica->server->store, NULL, err);
        if (rc == SNAPSHOT_OK) {
            replica->applied_index = list[i].index;
            replica->applied_term = list[i].term;
            break;
        }
        if (rc == SNAPSHOT_EFULL || rc == SNAPSHOT_ENOMEM) {
            (void)replica_clock_ms(replica); /* How long the try took counts. */
            replica_snapshot_wait(replica, &list[i], rc, err->text, start_ms);
            rc = SNAPSHOT_OK;
            break;
        }
        log_write(LOG_ERROR, REPLICA_LOG, "a snapshot cannot be loaded: %s", err->text);
        if (rc != SNAPSHOT_ECORRUPT) {
            break;
        }
    }
    free(list);
    return rc;
}

/* The state may only hold what the log holds too: else this server has lost part of its log, and
 * with it what it promised to other servers. */
static int open_check_log(const struct replica *replica, const struct raft_state *state,
                          struct errmsg *err)
{
    const char *dir = replica->server->config->data_dir;

    if (replica->applied_index <= state->last_index) {
        return 0;
    }
    return errmsg_set(
        err, STORE_ECORRUPT,
        "the Raft log ends at index %llu, but the state has applied index %llu: part of the log in "
        "%s/raft is missing. Restore it, or remove %s to rejoin as a new server",
        (unsigned long long)state->last_index, (unsigned long long)replica->applied_index, dir,
        dir);
}

/* What the log no longer says itself, its snapshot does. */
static void open_complete_state(const struct replica *replica, struct raft_state *state)
{
    const struct snapshot_meta *newest = &replica->newest;

    state->commit_index =
        replica->load_waits.index > 0 ? replica->load_waits.index : replica->applied_index;
    if (newest->index == 0) {
        return;
    }
    if (state->configuration == NULL) {
        state->configuration = &newest->configuration;
    } else if (state->configuration_before == NULL &&
               newest->configuration.index < state->configuration->index) {
        state->configuration_before = &newest->configuration;
    }
}

static int open_core(struct replica *replica, const struct raft_state *state, struct errmsg *err)
{
    const uint32_t multiplier = replica->server->config->raft_multiplier;
    struct raft_options options = {.id = replica->id,
                                   .election_ms = REPLICA_ELECTION_MS * multiplier,
                                   .heartbeat_ms = REPLICA_HEARTBEAT_MS * multiplier,
                                   .lease_ms = REPLICA_LEASE_MS * multiplier,
                                   .lost_spread_ms = REPLICA_LOST_SPREAD_MS * multiplier,
                                   .append_bytes_max = REPLICA_APPEND_BYTES_MAX,
                                   .inflight_max = REPLICA_INFLIGHT_MAX,
                                   .uncommitted_max = REPLICA_UNCOMMITTED_MAX,
                                   .batch_end = wal_batch_end,
                                   .host = replica->wal};
    int rc;

    server_random(&options.seed, sizeof(options.seed));
    uv_update_time(replica->server->loop);
    rc = raft_new(&options, state, replica_now_ms(replica), &replica->raft);
    if (rc != RAFT_OK) {
        return errmsg_set(err, STORE_ENOMEM, "cannot start Raft: %s", raft_strerror(rc));
    }
    replica->role = raft_role(replica->raft);
    replica->term = raft_term_now(replica->raft);
    replica->apply_index = replica->applied_index;
    replica->raft_deadline_ms = replica_now_ms(replica);
    return 0;
}

/* Opens everything below the core, and the core. On failure replica_free cleans up. */
int replica_open(struct replica *replica, struct errmsg *err)
{
    struct raft_state state;
    bool wiped = false;
    int rc = 0;

    memset(&state, 0, sizeof(state));
    if (replica->server->config->data_dir != NULL) {
        rc = open_make_dir(replica->server->config->data_dir, err);
    }
    if (rc == 0) {
        rc = open_log(replica, &state, err); /* Locks the folder: the rest comes after it. */
    }
    if (rc == 0) {
        rc = open_store(replica, &wiped, err);
    }
    if (rc == 0) {
        rc = open_snapshots(replica, err);
    }
    if (rc == 0 && replica->snapshots != NULL) {
        rc = open_fit_log(replica, &state, err);
    }
    if (rc == 0) {
        rc = open_recover(replica, &state, err);
    }
    if (rc == 0) {
        rc = open_read_applied(replica, err);
    }
    if (rc == 0) {
        rc = open_load_snapshot(replica, &state, err);
    }
    if (rc == 0) {
        rc = open_check_log(replica, &state, err);
    }
    if (rc == 0) {
        rc = replica_fresh_open(replica, &state, err);
    }
    if (rc == 0) {
        open_complete_state(replica, &state);
        open_complete_recovered(replica, &state);
        rc = open_core(replica, &state, err);
    }
    if (rc == 0) {
        rc = replica_cluster_open(replica, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (wiped && state.last_index > 0) {
        log_write(LOG_INFO, REPLICA_LOG, "the state is rebuilt: applied_index=%llu last_index=%llu",
                  (unsigned long long)replica->applied_index, (unsigned long long)state.last_index);
    }
    log_write(LOG_INFO, REPLICA_LOG,
              "log opened: first_index=%llu last_index=%llu term=%llu applied_index=%llu",
              (unsigned long long)state.first_index, (unsigned long long)state.last_index,
              (unsigned long long)state.term, (unsigned long long)replica->applied_index);
    return 0;
}
