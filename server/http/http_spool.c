/* A body that is too large for memory: what has come of it goes into a file without a name, in
 * data_dir, while more is coming. A worker writes; the connection is read no further than it can
 * follow. When all is in the file the request goes to its handler. */

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/log.h"
#include "server/server.h"
#include "server/snapshot/archive.h"

enum {
    SPOOL_PIECE_BYTES = 128 * 1024, /* written in one go; with as many more it is not read */
    SPOOL_DISK_DIVISOR =
        4, /* of the free space, for each of HTTP_ARCHIVES_MAX: the log needs some */
};

struct http_spool {
    struct http_server *http;
    struct http_conn *conn; /* whose body it is; NULL: its handler's, or nobody's */
    const char *folder;
    uint64_t announced; /* bytes of the body; 0: not told */
    struct buffer coming;
    bool ended; /* nothing more comes */
    bool freed; /* as soon as it is not busy */
    bool busy;  /* the rest is the worker's */
    uv_work_t work;
    struct buffer writing;
    int fd;
    uint64_t bytes;     /* in the file */
    uint64_t bytes_max; /* that it may have */
    int rc;
    struct errmsg err;
};

const char *http_spool_folder(const struct server *server)
{
    return server->config->data_dir != NULL ? server->config->data_dir : "/tmp";
}

struct http_spool *http_spool_new(struct http_conn *conn)
{
    struct http_spool *spool = calloc(1, sizeof(*spool));

    if (spool != NULL) {
        spool->http = conn->http;
        spool->conn = conn;
        spool->folder = http_spool_folder(conn->http->server);
        spool->announced = conn->request.content_length;
        spool->fd = -1;
        conn->http->archives++;
    }
    return spool;
}

static void spool_on_closed(uv_fs_t *request)
{
    uv_fs_req_cleanup(request);
    free(request);
}

void http_close_file(uv_loop_t *loop, int fd)
{
    uv_fs_t *request;

    if (fd < 0) {
        return;
    }
    request = malloc(sizeof(*request));
    if (request == NULL || uv_fs_close(loop, request, fd, spool_on_closed) != 0) {
        free(request);
        (void)close(fd); /* Nothing in it is wanted. */
    }
}

void http_spool_free(struct http_spool *spool)
{
    if (spool == NULL) {
        return;
    }
    spool->conn = NULL;
    spool->freed = true;
    if (spool->busy) {
        return;
    }
    assert(spool->http->archives > 0);
    spool->http->archives--;
    http_close_file(spool->http->loop, spool->fd);
    buffer_deinit(&spool->coming);
    buffer_deinit(&spool->writing);
    free(spool);
}

struct http_spool *http_spool_take(struct http_conn *conn)
{
    struct http_spool *spool = conn->spool;

    assert(spool != NULL && !spool->busy && spool->ended);
    conn->spool = NULL;
    spool->conn = NULL;
    return spool;
}

int http_spool_fd(const struct http_spool *spool)
{
    return spool->fd;
}

void http_spool_shut(struct http_spool *spool)
{
    if (spool->fd >= 0) {
        (void)close(spool->fd); /* Only read from since it was written. */
        spool->fd = -1;
    }
}

bool http_spool_busy(const struct http_spool *spool)
{
    return spool->busy;
}

/* --- the worker's --- */

static int spool_open(struct http_spool *spool)
{
    struct statvfs disk;
    const int rc = archive_file_open(spool->folder, &spool->fd, &spool->err);

    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    spool->bytes_max = fstatvfs(spool->fd, &disk) == 0
                           ? (uint64_t)disk.f_bavail * disk.f_frsize / SPOOL_DISK_DIVISOR
                           : UINT64_MAX; /* Then writing tells. */
    return SNAPSHOT_OK;
}

static int spool_write(struct http_spool *spool)
{
    const uint64_t end = spool->bytes + spool->writing.size;
    int rc = spool->fd >= 0 ? SNAPSHOT_OK : spool_open(spool);

    if (rc == SNAPSHOT_OK && spool->writing.failed) {
        rc = errmsg_set(&spool->err, SNAPSHOT_ENOMEM, "out of memory");
    }
    if (rc == SNAPSHOT_OK && (end > spool->bytes_max || spool->announced > spool->bytes_max)) {
        rc = errmsg_set(&spool->err, SNAPSHOT_EFULL,
                        "no space left for the snapshot: free disk space in %s (it may take a "
                        "quarter of what is free, %" PRIu64 " bytes)",
                        spool->folder, spool->bytes_max);
    }
    if (rc == SNAPSHOT_OK) {
        rc = archive_file_write(spool->folder, spool->fd, buffer_slice(&spool->writing),
                                spool->bytes, &spool->err);
    }
    spool->bytes = end;
    return rc;
}

static void spool_on_work(uv_work_t *work)
{
    struct http_spool *spool = work->data;

    spool->rc = spool_write(spool);
}

/* --- the loop's --- */

static void spool_refuse(struct http_spool *spool)
{
    struct http_conn *conn = spool->conn;

    log_write(LOG_ERROR, "agent.http", "cannot take a snapshot in: %s", spool->err.text);
    http_conn_enter(conn);
    conn->state = HTTP_CONN_BUSY;
    conn->private.phase = HTTP_PHASE_HANDLER;
    conn->close_after = conn->close_after || !conn->complete;
    http_reply_text(&conn->request, 500, slice_from_text(spool->err.text));
    http_conn_leave(conn); /* The spool is gone. */
}

static void spool_start(struct http_spool *spool);

static void spool_on_written(uv_work_t *work, int status)
{
    struct http_spool *spool = work->data;
    struct http_server *http = spool->http;
    struct http_conn *conn = spool->conn;

    (void)status; /* Never cancelled. */
    spool->busy = false;
    buffer_clear(&spool->writing);
    if (conn == NULL) {
        assert(spool->freed);
        http_spool_free(spool);
    } else if (spool->rc != SNAPSHOT_OK) {
        spool_refuse(spool);
    } else if (spool->ended && spool->coming.size == 0) {
        conn->private.phase = HTTP_PHASE_HANDLER;
        http_route_dispatch(&conn->request);
    } else if (spool->ended) {
        spool_start(spool);
    } else {
        http_spool_step(conn);
        if (conn->paused) {
            http_conn_set_deadline(conn, HTTP_BODY_TIMEOUT_MS);
            http_conn_resume(conn);
        }
    }
    http->handles--;
    http_server_maybe_free(http);
}

static void spool_start(struct http_spool *spool)
{
    const struct buffer empty = spool->writing;

    assert(!spool->busy && empty.size == 0);
    spool->writing = spool->coming;
    spool->coming = empty;
    spool->work.data = spool;
    spool->busy = true;
    spool->http->handles++; /* It outlives the connection, and the server waits for it. */
    const int rc = uv_queue_work(spool->http->loop, &spool->work, spool_on_work, spool_on_written);

    assert(rc == 0); /* Fails without a function only. */
    (void)rc;
}

void http_spool_add(struct http_spool *spool, const char *data, size_t size)
{
    buffer_append(&spool->coming, data, size);
}

void http_spool_step(struct http_conn *conn)
{
    struct http_spool *spool = conn->spool;
    const bool full = spool->coming.size >= SPOOL_PIECE_BYTES || spool->coming.failed;

    if (full && spool->busy) {
        http_conn_pause(conn);
    } else if (full) {
        spool_start(spool);
    }
}

void http_spool_end(struct http_conn *conn)
{
    conn->spool->ended = true;
    conn->state = HTTP_CONN_BUSY;
    conn->private.phase = HTTP_PHASE_BODY;
    conn->deadline_ms = UINT64_MAX;
    if (!conn->spool->busy) {
        spool_start(conn->spool);
    }
}
