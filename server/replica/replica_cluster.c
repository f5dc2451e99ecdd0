/* The cluster's id. A leader whose cluster has none gives it one, in its log, as soon as it is
 * connected to all servers of the configuration and none of them is of a version that would stop at
 * that entry. Whoever has applied it keeps it in a file, too: the state may be lost with the
 * machine, and what the log says counts only when somebody leads. What is applied once is never
 * another's, so the file is never wrong. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/catalog/cluster_id.h"
#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { CLUSTER_PATH_BYTES_MAX = 4096 };

/* --- the file --- */

static void cluster_path(const struct replica *replica, char *out)
{
    (void)snprintf(out, CLUSTER_PATH_BYTES_MAX, "%s/raft/cluster-id",
                   replica->server->config->data_dir);
}

/* Zero when there is none, or a crash came while it was written: then it is learned once more. */
static int cluster_read(const struct replica *replica, struct uuid *out, struct errmsg *err)
{
    char path[CLUSTER_PATH_BYTES_MAX];
    char text[UUID_TEXT_BYTES];
    ssize_t size;
    int fd;

    memset(out, 0, sizeof(*out));
    cluster_path(replica, path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? 0 : errmsg_set_errno(err, STORE_EIO, "cannot open %.300s", path);
    }
    size = read(fd, text, sizeof(text));
    (void)close(fd); /* Only read from. */
    if (size < 0) {
        return errmsg_set_errno(err, STORE_EIO, "cannot read %.300s", path);
    }
    if (!uuid_parse(slice_from(text, (size_t)size), out)) {
        memset(out, 0, sizeof(*out));
        log_write(LOG_WARN, REPLICA_LOG, "%s holds no id, it is written anew", path);
    }
    return 0;
}

static void cluster_write(const struct replica *replica, const char *id)
{
    char path[CLUSTER_PATH_BYTES_MAX];
    char dir[CLUSTER_PATH_BYTES_MAX];
    bool written;
    int fd;

    if (replica->server->config->data_dir == NULL) {
        return;
    }
    cluster_path(replica, path);
    (void)snprintf(dir, sizeof(dir), "%s/raft", replica->server->config->data_dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    written = fd >= 0 && write(fd, id, UUID_TEXT_BYTES) == UUID_TEXT_BYTES && fsync(fd) == 0;
    if (fd >= 0 && close(fd) != 0) {
        written = false;
    }
    if (!written || replica_sync_dir(dir) != 0) {
        /* It is in the state as well: the next start tries again. */
        log_write(LOG_WARN, REPLICA_LOG, "cannot write %s: %s", path, strerror(errno));
    }
}

/* --- learning it --- */

/* Takes it from the state, if it is there. */
static bool cluster_learn(struct replica *replica)
{
    struct server *server = replica->server;
    char text[UUID_TEXT_BYTES + 1];
    struct store_txn txn;
    int rc = store_read_begin(server->store, &txn);

    if (rc != STORE_OK) {
        return false; /* The next turn tries again. */
    }
    rc = cluster_id_get(&txn, &server->cluster_id);
    store_read_end(&txn);
    if (rc != STORE_OK) {
        return false;
    }
    uuid_format(&server->cluster_id, text);
    log_write(LOG_INFO, REPLICA_LOG, "the cluster's id is %s", text);
    cluster_write(replica, text);
    return true;
}

int replica_cluster_open(struct replica *replica, struct errmsg *err)
{
    int rc = 0;

    memset(&replica->server->cluster_id, 0, sizeof(replica->server->cluster_id));
    if (replica->server->config->data_dir != NULL) {
        rc = cluster_read(replica, &replica->server->cluster_id, err);
    }
    if (rc == 0 && uuid_is_zero(&replica->server->cluster_id)) {
        (void)cluster_learn(replica);
    }
    return rc;
}

/* --- giving it one --- */

static bool cluster_is_ready(const struct replica *replica)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);

    for (size_t i = 0; i < configuration->count; i++) {
        const raft_id id = configuration->servers[i].id;

        if (id != replica->id && !peers_knows_cluster_ids(replica->peers, id)) {
            return false;
        }
    }
    return true;
}

void replica_cluster_start(struct replica *replica, struct buffer *out)
{
    if (uuid_is_zero(&replica->server->cluster_id) && replica->cluster_term < replica->term &&
        cluster_is_ready(replica)) {
        const struct uuid id = server_random_uuid();

        command_encode_cluster_id(out, &id);
    }
}

static void cluster_on_proposed(void *context, const char *failure,
                                const struct command_result *result)
{
    struct replica *replica = context;

    (void)result; /* Whichever was first is in the state. */
    if (failure != NULL) {
        replica->cluster_term = 0; /* The next turn of a leader tries again. */
    }
}

void replica_cluster_turn(struct replica *replica)
{
    struct server *server = replica->server;

    if (!uuid_is_zero(&server->cluster_id)) {
        return;
    }
    if (cluster_learn(replica)) {
        peers_cluster_id(replica->peers, &server->cluster_id);
        if (server->membership != NULL) {
            membership_cluster_id(server->membership, &server->cluster_id);
        }
        return;
    }
    if (replica->role != RAFT_LEADER || replica->timers_term != replica->term) {
        return;
    }
    buffer_clear(&replica->command);
    replica_cluster_start(replica, &replica->command);
    if (replica->command.size > 0 && !replica->command.failed) {
        replica->cluster_term = replica->term;
        replica_propose(replica, buffer_slice(&replica->command), cluster_on_proposed, replica);
    }
}
