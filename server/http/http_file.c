/* An answer whose body is a file: read piece by piece, by a worker, each when the client has taken
 * the one before. */

#include <assert.h>
#include <stdlib.h>

#include "server/http/http_internal.h"
#include "server/log.h"

enum { FILE_PIECE_BYTES = 128 * 1024 };

struct http_file {
    struct http_server *http;
    struct http_conn *conn; /* NULL: gone, while it was read */
    int fd;
    uint64_t bytes;
    uint64_t offset;        /* read so far */
    struct http_body *body; /* the piece that was read last */
    bool reading;
    uv_fs_t read;
};

struct http_file *http_file_new(struct http_conn *conn, int fd, uint64_t bytes)
{
    struct http_file *file = calloc(1, sizeof(*file));
    struct buffer piece = {0};

    if (file != NULL && buffer_reserve(&piece, FILE_PIECE_BYTES) != NULL) {
        file->body = http_body_new(&piece);
    }
    if (file == NULL || file->body == NULL) {
        buffer_deinit(&piece);
        free(file);
        return NULL;
    }
    file->http = conn->http;
    file->conn = conn;
    file->fd = fd;
    file->bytes = bytes;
    conn->http->saves++;
    return file;
}

void http_file_free(struct http_file *file)
{
    if (file == NULL) {
        return;
    }
    file->conn = NULL;
    if (file->reading) {
        return; /* It goes when that is done. */
    }
    assert(file->http->saves > 0);
    file->http->saves--;
    http_close_file(file->http->loop, file->fd);
    http_body_unref(file->body);
    free(file);
}

uint64_t http_file_read_bytes(const struct http_file *file)
{
    return file->offset;
}

static void file_on_read(uv_fs_t *read)
{
    struct http_file *file = read->data;
    struct http_server *http = file->http;
    struct http_conn *conn = file->conn;
    const ssize_t got = read->result;

    uv_fs_req_cleanup(read);
    file->reading = false;
    if (conn == NULL) {
        http_file_free(file);
    } else if (got <= 0) {
        log_write(LOG_ERROR, "agent.http", "cut a snapshot short, it cannot be read back: %s",
                  got == 0 ? "its file has ended" : uv_strerror((int)got));
        http_conn_close(conn); /* The client sees that the end is missing. */
    } else {
        file->offset += (uint64_t)got;
        file->body->bytes.size = (size_t)got;
        http_conn_enter(conn);
        http_conn_send(conn, SLICE_EMPTY, file->body);
        http_conn_leave(conn);
    }
    http->handles--;
    http_server_maybe_free(http);
}

/* The connection is free for the next piece; the last one may have been sent. */
void http_file_sent(struct http_conn *conn)
{
    struct http_file *file = conn->file;
    const uint64_t left = file->bytes - file->offset;

    conn->state = HTTP_CONN_BUSY;
    conn->deadline_ms = UINT64_MAX;
    if (left == 0) {
        http_conn_answered(conn);
        return;
    }
    const uv_buf_t buf = uv_buf_init(file->body->bytes.data,
                                     left < FILE_PIECE_BYTES ? (unsigned)left : FILE_PIECE_BYTES);

    file->reading = true;
    file->read.data = file;
    file->http->handles++; /* It outlives the connection, and the server waits for it. */
    const int rc = uv_fs_read(file->http->loop, &file->read, file->fd, &buf, 1,
                              (int64_t)file->offset, file_on_read);

    assert(rc == 0); /* Fails without a function only. */
    (void)rc;
}
