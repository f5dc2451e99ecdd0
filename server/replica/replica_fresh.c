/* A server whose log began empty must not vote before it has caught up: it may be one that has lost
 * its log and came back under its old id, and has then forgotten whom it voted for and which
 * entries it acknowledged. Others may have counted on both.
 *
 * So it hears, acknowledges and applies, but neither grants votes nor asks for them, until it has
 * an entry of the present leader's term that is committed, and all that was committed when it first
 * heard that leader: among it is whatever it can ever have acknowledged. A file in data_dir keeps
 * this across restarts. Votes for the first configuration of a new cluster are the exception: for
 * a server that it has itself chosen to make it (replica_bootstrap.c). It chooses while no member
 * has state, so a server that lost its log never chooses; the file remembers whom it chose, since
 * it may be started again between the choice and the vote, or between the vote and the first
 * entry. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { FRESH_PATH_BYTES_MAX = 4096 };

static const char fresh_text[] =
    "This server has not caught up with its cluster yet, and does not vote. Do not remove.\n";

/* It has given one whom it chose its vote: with the first entry it is no longer fresh. */
static const char fresh_voted_text[] = "voted\n";

enum {
    FRESH_FILE_BYTES_MAX = sizeof(fresh_text) + FRESH_CHOSEN_MAX * 17 + sizeof(fresh_voted_text)
};

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
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char text[FRESH_FILE_BYTES_MAX];
    int size = snprintf(text, sizeof(text), "%s", fresh_text);
    bool written;

    if (fd < 0) {
        return errmsg_set_errno(err, STORE_EIO, "cannot create %.300s", path);
    }
    for (size_t i = 0; i < replica->fresh_chosen_count; i++) {
        size += snprintf(text + size, sizeof(text) - (size_t)size, "%016" PRIx64 "\n",
                         replica->fresh_chosen[i]);
    }
    if (replica->fresh_voted) {
        size += snprintf(text + size, sizeof(text) - (size_t)size, "%s", fresh_voted_text);
    }
    assert((size_t)size < sizeof(text));
    written = write(fd, text, (size_t)size) == size && fsync(fd) == 0;
    if (close(fd) != 0 || !written || replica_sync_dir(replica->server->config->data_dir) != 0) {
        return errmsg_set_errno(err, STORE_EIO, "cannot write %.300s", path);
    }
    return 0;
}

/* Whom it chose before it was started again; what cannot be read was not chosen. */
static void fresh_read(struct replica *replica, const char *path)
{
    FILE *file = fopen(path, "re");
    char line[sizeof(fresh_text)];

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        const size_t digits = strspn(line, "0123456789abcdef");

        if (digits == 16 && line[digits] == '\n' &&
            replica->fresh_chosen_count < FRESH_CHOSEN_MAX) {
            replica->fresh_chosen[replica->fresh_chosen_count++] = strtoull(line, NULL, 16);
        }
        replica->fresh_voted = replica->fresh_voted || strcmp(line, fresh_voted_text) == 0;
    }
    if (file != NULL) {
        (void)fclose(file); /* Only read from. */
    }
}

static void fresh_remove(const struct replica *replica)
{
    char path[FRESH_PATH_BYTES_MAX];

    if (replica->server->config->data_dir == NULL) {
        return;
    }
    fresh_path(replica, path);
    if (unlink(path) != 0 && errno != ENOENT) {
        /* It will catch up once more after the next start: no harm. */
        log_write(LOG_WARN, REPLICA_LOG, "cannot remove %s: %s", path, strerror(errno));
    }
}

int replica_fresh_open(struct replica *replica, const struct raft_state *state, struct errmsg *err)
{
    char path[FRESH_PATH_BYTES_MAX];

    if (replica->server->config->data_dir == NULL) {
        return 0; /* In memory: a cluster of its own. */
    }
    fresh_path(replica, path);
    if (access(path, F_OK) == 0) {
        fresh_read(replica, path);
        if (replica->fresh_voted && state->last_index > 0) {
            replica->fresh_voted = false;
            fresh_remove(replica);
            return 0;
        }
        replica->fresh = true;
        if (!replica->fresh_voted) {
            return 0;
        }
        replica->fresh_voted = false; /* It is asked again. */
        return fresh_write(replica, path, err);
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
    if (replica->fresh) {
        replica->fresh = false;
        fresh_remove(replica);
    }
}

int replica_fresh_forget(const struct replica *replica, struct errmsg *err)
{
    char path[FRESH_PATH_BYTES_MAX];

    fresh_path(replica, path);
    if ((unlink(path) != 0 && errno != ENOENT) ||
        replica_sync_dir(replica->server->config->data_dir) != 0) {
        return errmsg_set_errno(err, STORE_EIO, "cannot remove %.300s", path);
    }
    return 0;
}

static bool fresh_has_chosen(const struct replica *replica, raft_id id)
{
    for (size_t i = 0; i < replica->fresh_chosen_count; i++) {
        if (replica->fresh_chosen[i] == id) {
            return true;
        }
    }
    return false;
}

void replica_fresh_chose(struct replica *replica, raft_id id)
{
    char path[FRESH_PATH_BYTES_MAX];
    struct errmsg err;

    if (!replica->fresh || fresh_has_chosen(replica, id)) {
        return;
    }
    if (replica->fresh_chosen_count == FRESH_CHOSEN_MAX) {
        replica->fresh_chosen_count--; /* The last one has not made a cluster either. */
    }
    replica->fresh_chosen[replica->fresh_chosen_count++] = id;
    fresh_path(replica, path);
    if (fresh_write(replica, path, &err) != 0) {
        log_write(LOG_WARN, REPLICA_LOG, "%s", err.text);
    }
}

/* Whether a server that was chosen asks for a vote on the first configuration. */
static bool fresh_is_beginning(const struct replica *replica, const struct raft_message *message)
{
    return raft_last_index(replica->raft) == 0 && message->last_index == 1 &&
           fresh_has_chosen(replica, message->from);
}

/* The file stays until there is an entry: were this server started again before, nobody would have
 * its vote, and if that happened to most of them, no leader could be elected any more. */
static void fresh_vote(struct replica *replica)
{
    char path[FRESH_PATH_BYTES_MAX];
    struct errmsg err;

    replica->fresh = false;
    replica->fresh_voted = true;
    fresh_path(replica, path);
    if (fresh_write(replica, path, &err) != 0) {
        log_write(LOG_WARN, REPLICA_LOG, "%s", err.text);
    }
}

bool replica_fresh_takes(struct replica *replica, const struct raft_message *message)
{
    if (!replica->fresh) {
        return true;
    }
    switch (message->type) {
    case RAFT_PRE_VOTE_REQUEST:
    case RAFT_VOTE_REQUEST:
        if (fresh_is_beginning(replica, message)) {
            fresh_vote(replica);
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
    if (replica->fresh_voted && replica->apply_index > 0) {
        replica->fresh_voted = false;
        fresh_remove(replica);
    }
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
