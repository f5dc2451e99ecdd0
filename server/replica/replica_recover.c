/* Recovery when a majority of the servers is lost for good: raft/peers.json in data_dir, in
 * Consul's format, names the servers that there are. At the next start it becomes the
 * configuration, as an entry behind all that is in the log, and the file is removed.
 *
 * Each of the servers that are left does that on its own. Their logs may end at different places;
 * the one whose log is ahead of the others', by the rule of elections, must win: so the entry's
 * term is counted from the log's last one, equally far in all of them. Far, because a term that a
 * lost server may have used must not come up again with another entry. And once: a server that
 * stopped before the file was removed finds its entry at the next start. Another one behind it
 * would put its log ahead of longer ones, and what only those hold would be lost. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { RECOVER_PATH_BYTES_MAX = 4096, RECOVER_FILE_BYTES_MAX = 64 * 1024 };

static const raft_term RECOVER_TERM_STEP = 1 << 20;

bool replica_recover_path(const struct replica *replica, char *out, size_t out_bytes)
{
    const char *dir = replica->server->config->data_dir;

    if (dir == NULL) {
        return false;
    }
    (void)snprintf(out, out_bytes, "%s/raft/peers.json", dir);
    return access(out, F_OK) == 0;
}

/* --- reading --- */

static int recover_fail(struct errmsg *err, const char *path, const char *what)
{
    return errmsg_set(err, STORE_ECORRUPT, "recovery failed to parse %.300s: %s", path, what);
}

/* The name that the server had so far: the same on all servers, unlike what they know of it now. */
static void recover_name(const struct raft_configuration *before, raft_id id, char *out,
                         size_t out_bytes)
{
    out[0] = 0;
    for (size_t i = 0; before != NULL && i < before->count; i++) {
        struct replica_server_info info;

        if (before->servers[i].id == id && replica_server_info(&before->servers[i], &info)) {
            (void)snprintf(out, out_bytes, "%s", info.name);
        }
    }
}

static int recover_add(const json_t *peer, const struct raft_configuration *before,
                       struct raft_configuration *out, const char *path, struct errmsg *err)
{
    const char *id = json_string_value(json_object_get(peer, "id"));
    const char *address = json_string_value(json_object_get(peer, "address"));
    const json_t *non_voter = json_object_get(peer, "non_voter");
    char name[LINK_NAME_BYTES_MAX];
    struct uuid uuid;

    if (id == NULL || !uuid_parse(slice_from_text(id), &uuid) || uuid_is_zero(&uuid)) {
        return recover_fail(err, path, "each peer needs the \"id\" of a server (its node-id file)");
    }
    if (address == NULL || strrchr(address, ':') == NULL ||
        strlen(address) >= sizeof(((struct replica_server_info *)NULL)->address)) {
        return recover_fail(err, path, "each peer needs an \"address\", IP:port");
    }
    if (non_voter != NULL && !json_is_boolean(non_voter)) {
        return recover_fail(err, path, "\"non_voter\" must be true or false");
    }
    for (size_t i = 0; i < out->count; i++) {
        struct replica_server_info info;

        if (out->servers[i].id == peers_id(&uuid) ||
            (replica_server_info(&out->servers[i], &info) && strcmp(info.address, address) == 0)) {
            return recover_fail(err, path, "two peers have the same id or address");
        }
    }
    recover_name(before, peers_id(&uuid), name, sizeof(name));
    replica_configuration_add(out, &uuid, name, address)->voter = !json_is_true(non_voter);
    return 0;
}

static int recover_read_peers(const json_t *root, const struct replica *replica,
                              const struct raft_configuration *before,
                              struct raft_configuration *out, const char *path, struct errmsg *err)
{
    bool voter = false;
    bool self = false;

    if (!json_is_array(root) || json_array_size(root) == 0 ||
        json_array_size(root) > RAFT_SERVERS_MAX) {
        return recover_fail(err, path, "it must be a list of 1 to 16 peers");
    }
    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < json_array_size(root); i++) {
        const int rc = recover_add(json_array_get(root, i), before, out, path, err);

        if (rc != 0) {
            return rc;
        }
    }
    for (size_t i = 0; i < out->count; i++) {
        voter = voter || out->servers[i].voter;
        self = self || out->servers[i].id == replica->id;
    }
    if (!voter || !self) {
        return recover_fail(err, path,
                            voter ? "this server's own id is not in it" : "it has no voter");
    }
    return 0;
}

static int recover_read(const struct replica *replica, const struct raft_configuration *before,
                        struct raft_configuration *out, const char *path, struct errmsg *err)
{
    char *text = malloc(RECOVER_FILE_BYTES_MAX);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = -1;
    json_error_t error;
    json_t *root;
    int rc;

    if (fd >= 0 && text != NULL) {
        size = read(fd, text, RECOVER_FILE_BYTES_MAX);
    }
    if (fd >= 0) {
        (void)close(fd); /* Only read from. */
    }
    if (size < 0) {
        free(text);
        return errmsg_set_errno(err, STORE_EIO, "cannot read %.300s", path);
    }
    root = json_loadb(text, (size_t)size, 0, &error);
    free(text);
    if (root == NULL) {
        return recover_fail(err, path, error.text);
    }
    rc = recover_read_peers(root, replica, before, out, path, err);
    json_decref(root);
    return rc;
}

/* --- writing --- */

/* Whether the log ends with the entry that this would write: it was stopped in between. */
static bool recover_is_written(const struct raft_state *state,
                               const struct raft_configuration *wanted)
{
    const struct raft_term_run *last;
    uint8_t found_bytes[RAFT_CONFIGURATION_BYTES_MAX];
    uint8_t wanted_bytes[RAFT_CONFIGURATION_BYTES_MAX];
    size_t size;

    if (state->configuration == NULL || state->configuration->index != state->last_index ||
        state->run_count == 0) {
        return false;
    }
    last = &state->runs[state->run_count - 1];
    if (last->first != state->last_index ||
        last->term !=
            RECOVER_TERM_STEP + (state->run_count > 1 ? last[-1].term : state->prev_term)) {
        return false; /* No recovery's, which is an entry of a term of its own, so far ahead. */
    }
    size = raft_configuration_encode(wanted, wanted_bytes);
    return raft_configuration_encode(state->configuration, found_bytes) == size &&
           memcmp(found_bytes, wanted_bytes, size) == 0;
}

int replica_recover_write(struct replica *replica, const struct raft_state *state,
                          struct errmsg *err)
{
    const raft_term last_term = state->last_index >= state->first_index && state->run_count > 0
                                    ? state->runs[state->run_count - 1].term
                                    : state->prev_term;
    struct raft_configuration configuration;
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    char path[RECOVER_PATH_BYTES_MAX];
    int rc;

    if (!replica_recover_path(replica, path, sizeof(path))) {
        return 0;
    }
    log_write(LOG_INFO, REPLICA_LOG, "found peers.json file, recovering Raft configuration...");
    if (state->last_index == 0) {
        return errmsg_set(err, STORE_ECORRUPT,
                          "refused to recover cluster with no initial state, this is probably an "
                          "operator error: remove %.300s",
                          path);
    }
    rc = recover_read(replica,
                      state->configuration != NULL ? state->configuration
                                                   : &replica->newest.configuration,
                      &configuration, path, err);
    if (rc != 0) {
        return rc;
    }
    replica->recovered = true;
    if (recover_is_written(state, &configuration)) {
        log_write(LOG_INFO, REPLICA_LOG, "the configuration of peers.json was written before");
        return 0;
    }
    const struct raft_entry entry = {.index = state->last_index + 1,
                                     .term = last_term + RECOVER_TERM_STEP,
                                     .type = RAFT_ENTRY_CONFIGURATION,
                                     .data = bytes,
                                     .size = raft_configuration_encode(&configuration, bytes)};
    const bool later = state->term >= entry.term;
    const struct wal_write write = {.sequence = 1,
                                    .hard_state_changed = true,
                                    .term = later ? state->term : entry.term,
                                    .vote = later ? state->vote : 0,
                                    .entries = &entry,
                                    .entry_count = 1};

    rc = wal_write(replica->wal, &write);
    if (rc != WAL_OK) {
        return errmsg_set(err, STORE_EIO, "cannot write the recovered configuration: %s",
                          wal_strerror(rc));
    }
    log_write(LOG_WARN, REPLICA_LOG, "forcing the configuration of peers.json: servers=%zu",
              configuration.count);
    return 0;
}

static int recover_sync_dir(const struct replica *replica)
{
    char path[RECOVER_PATH_BYTES_MAX];

    (void)snprintf(path, sizeof(path), "%s/raft", replica->server->config->data_dir);
    return replica_sync_dir(path);
}

int replica_recover_end(struct replica *replica, struct errmsg *err)
{
    char path[RECOVER_PATH_BYTES_MAX];
    int rc;

    if (!replica->recovered || !replica_recover_path(replica, path, sizeof(path))) {
        return 0;
    }
    /* The operator has said whose votes there are: nobody else may be left to catch up with. And
     * what this server may have promised in a log that it lost was in earlier terms. */
    rc = replica_fresh_forget(replica, err);
    if (rc != 0) {
        return rc;
    }
    /* Were it to come back with a power cut, it would undo what has changed since. */
    if (unlink(path) != 0 || recover_sync_dir(replica) != 0) {
        return errmsg_set_errno(err, STORE_EIO, "failed to delete %.300s, please delete it by hand",
                                path);
    }
    log_write(LOG_INFO, REPLICA_LOG, "deleted peers.json file after successful recovery");
    return 0;
}
