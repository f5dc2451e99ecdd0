/* /v1/snapshot: the whole state out as an archive, and an archive in its place. Either lies in a
 * file without a name in data_dir, never in memory as a whole.
 *
 * Saving: a worker writes it from one read transaction while all goes on. Restoring: a worker
 * unpacks and checks it all; then its records go into the log piece by piece, one at a time, and
 * are put aside on every server; the last command puts them in the place of the state
 * (server/catalog/restore.h). Until then nothing has changed, whatever fails. A step whose outcome
 * is unknown, because a leader died, is repeated: each has the same effect twice. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/log.h"
#include "server/server.h"
#include "server/snapshot/archive.h"

#define SNAPSHOT_HTTP_LOG "agent.http.snapshot"

enum {
    SNAPSHOT_PIECE_BYTES = 1024 * 1024, /* of records in one command */
    SNAPSHOT_RETRY_MS = 500,
    SNAPSHOT_RETRIES_MAX = 60,           /* without one that succeeds */
    SNAPSHOT_STATE_BYTES_MAX_FACTOR = 2, /* a state as a file may be larger than in the store */
    SNAPSHOT_DISK_DIVISOR = 4, /* of the free space, HTTP_ARCHIVES_MAX times, for such files */
};
#define SNAPSHOT_STATE_BYTES_DEFAULT ((uint64_t)16 << 30)

enum snapshot_step {
    STEP_SAVE,
    STEP_OPEN, /* unpack and check */
    STEP_READ, /* the next records */
};

/* One request's work. The request is held until it is answered. */
struct http_snapshot {
    struct http_request *request;
    struct server *server;
    enum snapshot_step step;
    uv_work_t work;
    int rc;
    struct errmsg err;
    /* saving */
    struct replica_read read;
    struct replica_freshness freshness;
    struct raft_configuration configuration;
    struct snapshot_meta meta;
    struct buffer servers; /* JSON */
    bool saves;            /* is one of http->saves */
    int fd;                /* the archive; -1: none */
    uint64_t bytes;
    /* restoring */
    struct http_spool *spool; /* what the client sent */
    uint64_t state_bytes_max; /* unpacked */
    struct archive *archive;
    struct uuid id;
    enum command_restore_step proposed;
    struct buffer records;
    struct buffer command;
    uv_timer_t *timer;
    unsigned retries;
    char failure[ERRMSG_BYTES_MAX];
};

static void snapshot_work_done(uv_work_t *work, int status);

static void snapshot_on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

/* Gives back everything but the request. */
static void snapshot_free(struct http_snapshot *snapshot)
{
    if (snapshot->timer != NULL) {
        uv_close((uv_handle_t *)snapshot->timer, snapshot_on_timer_closed);
    }
    archive_free(snapshot->archive);
    http_close_file(snapshot->server->loop, snapshot->fd);
    buffer_deinit(&snapshot->servers);
    buffer_deinit(&snapshot->records);
    buffer_deinit(&snapshot->command);
    free(snapshot);
}

/* --- answers: each ends the work --- */

/* The work is over. True: the client waits for an answer. */
static bool snapshot_release(struct http_snapshot *snapshot)
{
    struct http_request *request = snapshot->request;

    if (snapshot->saves) {
        assert(request->conn->http->saves > 0);
        request->conn->http->saves--;
        snapshot->saves = false;
    }
    http_spool_free(snapshot->spool);
    snapshot->spool = NULL;
    return http_request_release(request);
}

static void snapshot_reply_error(struct http_snapshot *snapshot, const char *text)
{
    struct http_request *request = snapshot->request;
    struct http_conn *conn = request->conn;

    http_conn_enter(conn);
    if (snapshot_release(snapshot)) {
        http_reply_text(request, 500, slice_from_text(text));
    }
    http_conn_leave(conn);
    snapshot_free(snapshot);
}

static void snapshot_reply_saved(struct http_snapshot *snapshot)
{
    const struct http_meta meta = {.index = true,
                                   .index_value = snapshot->meta.index,
                                   .known_leader = snapshot->freshness.known_leader,
                                   .last_contact_ms = snapshot->freshness.last_contact_ms};
    struct http_request *request = snapshot->request;
    struct http_conn *conn = request->conn;

    http_conn_enter(conn);
    if (snapshot_release(snapshot)) {
        http_reply_file(request, "application/x-gzip", &meta, snapshot->fd, snapshot->bytes);
        snapshot->fd = -1;
    }
    http_conn_leave(conn);
    snapshot_free(snapshot);
}

/* --- workers --- */

static void snapshot_save(struct http_snapshot *snapshot)
{
    snapshot->rc =
        archive_save(snapshot->server->store, &snapshot->configuration,
                     buffer_slice(&snapshot->servers), http_spool_folder(snapshot->server),
                     &snapshot->meta, &snapshot->fd, &snapshot->bytes, &snapshot->err);
    if (snapshot->rc == SNAPSHOT_OK && snapshot->bytes > HTTP_ANSWER_BYTES_MAX) {
        snapshot->rc = errmsg_set(&snapshot->err, SNAPSHOT_EINVAL,
                                  "the snapshot is larger than an answer can be");
    }
}

/* How large the unpacked state may be. A small archive can become a large file: it must not take
 * the space that the log lives from. */
static uint64_t restore_bytes_max(const struct http_snapshot *snapshot)
{
    const uint64_t configured = snapshot->server->config->state_bytes_max;
    const uint64_t limit = SNAPSHOT_STATE_BYTES_MAX_FACTOR *
                           (configured == 0 ? SNAPSHOT_STATE_BYTES_DEFAULT : configured);
    struct store_usage usage;

    store_usage(snapshot->server->store, &usage);
    return usage.disk_free_bytes / SNAPSHOT_DISK_DIVISOR < limit
               ? usage.disk_free_bytes / SNAPSHOT_DISK_DIVISOR
               : limit;
}

static void snapshot_on_work(uv_work_t *work)
{
    struct http_snapshot *snapshot = work->data;

    switch (snapshot->step) {
    case STEP_SAVE:
        snapshot_save(snapshot);
        break;
    case STEP_OPEN:
        snapshot->rc =
            archive_open(http_spool_fd(snapshot->spool), http_spool_folder(snapshot->server),
                         snapshot->state_bytes_max, &snapshot->archive, &snapshot->err);
        http_spool_shut(snapshot->spool);
        break;
    case STEP_READ:
        buffer_clear(&snapshot->records);
        snapshot->rc = archive_next(snapshot->archive, &snapshot->records, SNAPSHOT_PIECE_BYTES,
                                    &snapshot->err);
        break;
    }
}

static void snapshot_start(struct http_snapshot *snapshot, enum snapshot_step step)
{
    snapshot->step = step;
    snapshot->work.data = snapshot;
    replica_store_hold(snapshot->server->replica);
    if (uv_queue_work(snapshot->server->loop, &snapshot->work, snapshot_on_work,
                      snapshot_work_done) != 0) {
        replica_store_release(snapshot->server->replica);
        snapshot_reply_error(snapshot, "cannot start a worker");
    }
}

/* --- restoring --- */

static void restore_propose(struct http_snapshot *snapshot, enum command_restore_step step);

/* The server stops: what was begun is forgotten by the others after a while. */
static bool snapshot_stopping(const struct http_snapshot *snapshot)
{
    return snapshot->server->replica == NULL || snapshot->request->conn->http->draining;
}

static void restore_on_timer(uv_timer_t *timer)
{
    struct http_snapshot *snapshot = timer->data;

    if (snapshot_stopping(snapshot)) {
        snapshot_reply_error(snapshot, snapshot->failure);
        return;
    }
    restore_propose(snapshot, snapshot->proposed);
}

/* Nothing has changed but what was put aside; that goes too, if it can. */
static void restore_fail(struct http_snapshot *snapshot, const char *text)
{
    log_write(LOG_ERROR, SNAPSHOT_HTTP_LOG, "the snapshot was not restored: %s", text);
    (void)snprintf(snapshot->failure, sizeof(snapshot->failure), "%s", text);
    if (snapshot->proposed == COMMAND_RESTORE_ABORT || snapshot_stopping(snapshot)) {
        snapshot_reply_error(snapshot, snapshot->failure);
        return;
    }
    restore_propose(snapshot, COMMAND_RESTORE_ABORT);
}

static void restore_done(struct http_snapshot *snapshot)
{
    struct http_request *request = snapshot->request;
    struct http_conn *conn = request->conn;

    http_conn_enter(conn);
    if (snapshot_release(snapshot)) {
        http_reply_empty(request, 200);
    }
    http_conn_leave(conn);
    snapshot_free(snapshot);
}

static void restore_retry(struct http_snapshot *snapshot, const char *failure)
{
    snapshot->retries++;
    if (snapshot->proposed == COMMAND_RESTORE_ABORT || snapshot_stopping(snapshot) ||
        snapshot->retries > SNAPSHOT_RETRIES_MAX) {
        if (snapshot->proposed != COMMAND_RESTORE_ABORT) {
            (void)snprintf(snapshot->failure, sizeof(snapshot->failure), "%s", failure);
        }
        snapshot_reply_error(snapshot, snapshot->failure);
        return;
    }
    if (snapshot->timer == NULL) {
        snapshot->timer = calloc(1, sizeof(*snapshot->timer));
        if (snapshot->timer == NULL) {
            snapshot_reply_error(snapshot, "out of memory");
            return;
        }
        (void)uv_timer_init(snapshot->server->loop, snapshot->timer);
        snapshot->timer->data = snapshot;
    }
    (void)snprintf(snapshot->failure, sizeof(snapshot->failure), "%s", failure);
    (void)uv_timer_start(snapshot->timer, restore_on_timer, SNAPSHOT_RETRY_MS, 0);
}

static void restore_on_proposed(void *context, const char *failure,
                                const struct command_result *result)
{
    struct http_snapshot *snapshot = context;

    if (failure != NULL) {
        restore_retry(snapshot, failure);
        return;
    }
    snapshot->retries = 0;
    if (result->status == COMMAND_REFUSED) {
        restore_fail(snapshot, result->error.text);
        return;
    }
    switch (snapshot->proposed) {
    case COMMAND_RESTORE_BEGIN:
    case COMMAND_RESTORE_ADD:
        if (snapshot_stopping(snapshot)) {
            snapshot_reply_error(snapshot, "the server stops");
        } else {
            snapshot_start(snapshot, STEP_READ);
        }
        break;
    case COMMAND_RESTORE_FINISH:
        restore_done(snapshot);
        break;
    case COMMAND_RESTORE_ABORT:
        snapshot_reply_error(snapshot, snapshot->failure);
        break;
    }
}

static void restore_propose(struct http_snapshot *snapshot, enum command_restore_step step)
{
    const struct slice records =
        step == COMMAND_RESTORE_ADD ? buffer_slice(&snapshot->records) : SLICE_EMPTY;

    snapshot->proposed = step;
    buffer_clear(&snapshot->command);
    command_encode_restore(&snapshot->command, step, &snapshot->id, records,
                           step == COMMAND_RESTORE_FINISH ? archive_sum(snapshot->archive) : NULL);
    if (snapshot->command.failed) {
        snapshot_reply_error(snapshot, "out of memory");
        return;
    }
    replica_propose(snapshot->server->replica, buffer_slice(&snapshot->command),
                    restore_on_proposed, snapshot);
}

/* Whether the store can hold both: what is there, and what comes, twice for a moment. */
static bool restore_fits(const struct http_snapshot *snapshot)
{
    struct store_usage usage;
    const uint64_t bytes = 2 * archive_meta(snapshot->archive)->bytes;

    store_usage(snapshot->server->store, &usage);
    return usage.used_bytes + bytes <= usage.limit_bytes && bytes <= usage.disk_free_bytes;
}

static void snapshot_work_done(uv_work_t *work, int status)
{
    struct http_snapshot *snapshot = work->data;
    struct replica *replica = snapshot->server->replica;

    (void)status;
    replica_store_release(replica);
    if (snapshot->rc == SNAPSHOT_ENOTFOUND && snapshot->step == STEP_READ) {
        restore_propose(snapshot, COMMAND_RESTORE_FINISH);
    } else if (snapshot->rc != SNAPSHOT_OK) {
        if (snapshot->step == STEP_READ) {
            restore_fail(snapshot, snapshot->err.text);
        } else {
            snapshot_reply_error(snapshot, snapshot->err.text);
        }
    } else if (snapshot_stopping(snapshot) && snapshot->step != STEP_SAVE) {
        snapshot_reply_error(snapshot, "the server stops");
    } else if (snapshot->step == STEP_SAVE) {
        snapshot_reply_saved(snapshot);
    } else if (snapshot->step == STEP_READ) {
        restore_propose(snapshot, COMMAND_RESTORE_ADD);
    } else if (!restore_fits(snapshot)) {
        snapshot_reply_error(snapshot, "there is no room for the snapshot's state beside the "
                                       "present one. Free disk space or raise "
                                       "limits.state_max_size");
    } else {
        log_write(LOG_INFO, SNAPSHOT_HTTP_LOG, "restoring a snapshot: index=%llu records=%llu",
                  (unsigned long long)archive_meta(snapshot->archive)->index,
                  (unsigned long long)archive_sum(snapshot->archive)->records);
        restore_propose(snapshot, COMMAND_RESTORE_BEGIN);
    }
}

/* --- requests --- */

static struct http_snapshot *snapshot_new(struct http_request *request)
{
    struct http_snapshot *snapshot = calloc(1, sizeof(*snapshot));

    if (snapshot == NULL) {
        http_reply_error(request, 500, "out of memory");
        return NULL;
    }
    snapshot->request = request;
    snapshot->server = request->server;
    snapshot->fd = -1;
    http_request_hold(request);
    return snapshot;
}

/* As hashicorp/raft writes a configuration. */
static void snapshot_put_servers(struct buffer *out, const struct replica *replica)
{
    struct replica_peer peers[RAFT_SERVERS_MAX];
    const size_t count = replica_peers(replica, peers, RAFT_SERVERS_MAX);

    buffer_append_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        buffer_printf(out, "%s{\"Suffrage\":%d,\"ID\":\"%s\",\"Address\":\"%s\"}", i > 0 ? "," : "",
                      peers[i].voter ? 0 : 1, peers[i].id, peers[i].address);
    }
    buffer_append_char(out, ']');
}

static void snapshot_on_fresh(void *context, const char *failure,
                              const struct replica_freshness *freshness)
{
    struct http_snapshot *snapshot = context;

    if (failure != NULL) {
        snapshot_reply_error(snapshot, failure);
        return;
    }
    if (!replica_configuration(snapshot->server->replica, &snapshot->configuration)) {
        snapshot_reply_error(snapshot, "the servers are being changed, try again");
        return;
    }
    snapshot->freshness = *freshness;
    snapshot_put_servers(&snapshot->servers, snapshot->server->replica);
    snapshot_start(snapshot, STEP_SAVE);
}

void http_snapshot(struct http_request *request)
{
    struct http_snapshot *snapshot;

    if (!http_check_datacenter(request, 0)) {
        return;
    }
    if (request->method == HTTP_METHOD_GET && !http_save_admit(request)) {
        return;
    }
    snapshot = snapshot_new(request);
    if (snapshot == NULL) {
        request->conn->http->saves -= request->method == HTTP_METHOD_GET;
        return;
    }
    if (request->method == HTTP_METHOD_GET) {
        snapshot->saves = true;
        replica_read(request->server->replica, &snapshot->read,
                     http_has_param(request, "stale") ? REPLICA_STALE : REPLICA_DEFAULT,
                     snapshot_on_fresh, snapshot);
        return;
    }
    snapshot->spool = http_spool_take(request->conn);
    snapshot->state_bytes_max = restore_bytes_max(snapshot);
    snapshot->id = server_random_uuid();
    snapshot_start(snapshot, STEP_OPEN);
}

const struct http_route http_routes_snapshot[] = {
    {"/v1/snapshot", HTTP_METHOD_GET | HTTP_METHOD_PUT, "OPTIONS,GET,PUT", http_snapshot},
    {NULL, 0, NULL, NULL},
};
