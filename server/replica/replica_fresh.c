/* A server whose log began empty must not vote before it has caught up: it may be one that has lost
 * its log and came back under its old id, and has then forgotten whom it voted for and which
 * entries it acknowledged. Others may have counted on both.
 *
 * So it hears, acknowledges and applies, but neither grants votes nor asks for them, until it has
 * an entry of the present leader's term that is committed, and all that was committed when it first
 * heard that leader: among it is whatever it can ever have acknowledged. A file in data_dir keeps
 * this across restarts. Votes for the first configuration of a new cluster are the exception: for
 * the server that it has itself chosen to make it (replica_bootstrap.c), which no cluster with
 * state can be asking it to choose. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { FRESH_PATH_BYTES_MAX = 4096 };

static const char fresh_text[] =
    "This server has not caught up with its cluster yet, and does not vote. Do not remove.\n";

static void fresh_path(const struct replica *replica, char *out)
{
    (void)snprintf(out, FRESH_PATH_BYTES_MAX, "%s/catching-up", replica->server->config->data_dir);
}

int replica_sync_dir(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (fd < 0) {
        return -1;
    }
    rc = fsync(fd);
    (void)close(fd); /* Nothing was written through it. */
    return rc;
}

static int fresh_write(const struct replica *replica, const char *path, struct errmsg *err)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const ssize_t size = sizeof(fresh_text) - 1;
    bool written;

    if (fd < 0) {
        return errmsg_set_errno(err, STORE_EIO, "cannot create %.300s", path);
    }
    written = write(fd, fresh_text, (size_t)size) == size && fsync(fd) == 0;
    if (close(fd) != 0 || !written || replica_sync_dir(replica->server->config->data_dir) != 0) {
        return errmsg_set_errno(err, STORE_EIO, "cannot write %.300s", path);
    }
    return 0;
}

int replica_fresh_open(struct replica *replica, const struct raft_state *state, struct errmsg *err)
{
    char path[FRESH_PATH_BYTES_MAX];

    if (replica->server->config->data_dir == NULL) {
        return 0; /* In memory: a cluster of its own. */
    }
    fresh_path(replica, path);
    if (access(path, F_OK) == 0) {
        replica->fresh = true;
        return 0;
    }
    if (errno != ENOENT) {
        return errmsg_set_errno(err, STORE_EIO, "cannot look for %.300s", path);
    }
    if (state->last_index > 0) {
        return 0;
    }
    replica->fresh = true;
    return fresh_write(replica, path, err);
}

void replica_fresh_end(struct replica *replica)
{
    char path[FRESH_PATH_BYTES_MAX];

    if (!replica->fresh) {
        return;
    }
    replica->fresh = false;
    if (replica->server->config->data_dir == NULL) {
        return;
    }
    fresh_path(replica, path);
    if (unlink(path) != 0 && errno != ENOENT) {
        /* It will catch up once more after the next start: no harm. */
        log_write(LOG_WARN, REPLICA_LOG, "cannot remove %s: %s", path, strerror(errno));
    }
}

/* The server that this one has chosen to begin a new cluster with. */
static bool fresh_is_chosen(const struct replica *replica, const struct raft_message *message)
{
    const struct membership *membership = replica->server->membership;

    return membership != NULL && raft_last_index(replica->raft) == 0 && message->last_index == 1 &&
           peers_id(&membership_at(membership, 0)->bootstrap_choice) == message->from;
}

bool replica_fresh_takes(struct replica *replica, const struct raft_message *message)
{
    if (!replica->fresh) {
        return true;
    }
    switch (message->type) {
    case RAFT_PRE_VOTE_REQUEST:
    case RAFT_VOTE_REQUEST:
        if (fresh_is_chosen(replica, message)) {
            replica_fresh_end(replica);
            return true;
        }
        return false;
    case RAFT_TIMEOUT_NOW:
        return false;
    case RAFT_PRE_VOTE_RESPONSE:
    case RAFT_VOTE_RESPONSE:
    case RAFT_APPEND_REQUEST:
    case RAFT_APPEND_RESPONSE:
    case RAFT_SNAPSHOT_REQUEST:
        break;
    }
    return true;
}

bool replica_fresh_sends(const struct replica *replica, const struct raft_message *message)
{
    return !replica->fresh ||
           (message->type != RAFT_PRE_VOTE_REQUEST && message->type != RAFT_VOTE_REQUEST);
}

void replica_fresh_heard(struct replica *replica, const struct raft_message *message)
{
    if (!replica->fresh || message->type != RAFT_APPEND_REQUEST ||
        message->term != raft_term_now(replica->raft)) {
        return;
    }
    if (replica->fresh_term != message->term) {
        replica->fresh_term = message->term;
        replica->fresh_index = message->commit_index;
    }
    if (replica->apply_index >= replica->fresh_index &&
        raft_term_at(replica->raft, replica->apply_index) == replica->fresh_term) {
        log_write(LOG_INFO, REPLICA_LOG, "caught up with the cluster: index=%llu term=%llu",
                  (unsigned long long)replica->apply_index,
                  (unsigned long long)replica->fresh_term);
        replica_fresh_end(replica);
    }
}
