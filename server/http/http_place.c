/* Places: few archives are taken in, made or sent at once, for each may be large. Who is slow keeps
 * its place as long as nobody else wants it. */

#include <assert.h>

#include "server/http/http_internal.h"
#include "server/log.h"

#define MS_PER_S 1000U

/* What of its archive has come, or gone; false: none of it is on its way, or it waits for us. */
static bool place_moved(const struct http_conn *conn, bool archives, uint64_t *bytes)
{
    if (archives) {
        *bytes = conn->body_bytes;
        return conn->spool != NULL && conn->state == HTTP_CONN_BODY &&
               !http_spool_busy(conn->spool);
    }
    if (conn->file == NULL || conn->state != HTTP_CONN_WRITE) {
        return false;
    }
    const uint64_t read = http_file_read_bytes(conn->file);
    const size_t left = uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp);

    *bytes = read > left ? read - left : 0; /* Its head is not counted. */
    return true;
}

bool http_place_reclaim(struct http_server *http, bool archives)
{
    for (struct http_conn *conn = http->conns; conn != NULL; conn = conn->next) {
        const uint64_t age_ms = uv_now(http->loop) - conn->place_ms;
        uint64_t bytes;

        if (!place_moved(conn, archives, &bytes) || age_ms < HTTP_PLACE_GRACE_MS ||
            bytes >= age_ms / MS_PER_S * HTTP_PLACE_RATE_BYTES) {
            continue;
        }
        log_write(LOG_WARN, "agent.http",
                  "closed a connection: %s too slowly a snapshot that others wait for",
                  archives ? "it sent" : "it took");
        http_conn_close(conn); /* Gives the place back. */
        return true;
    }
    return false;
}

bool http_save_admit(struct http_request *request)
{
    struct http_server *http = request->conn->http;

    if (http->saves == HTTP_SAVES_MAX && !http_place_reclaim(http, false)) {
        http_add_header(request, "Retry-After", "5");
        http_reply_error(request, 503, "%d snapshots are being saved, try again later",
                         HTTP_SAVES_MAX);
        return false;
    }
    http->saves++;
    return true;
}
