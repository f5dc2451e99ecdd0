/* Writes: a command into the log, and its outcome back to the client. */

#include <assert.h>
#include <string.h>

#include "server/http/http_internal.h"
#include "server/server.h"

static void write_answer(struct http_request *request, const struct command_result *result)
{
    http_reply_json(request, result->ok ? SLICE_LITERAL("true") : SLICE_LITERAL("false"));
}

/* Consul has no bound here; its clients, like all, try a 503 again, and Retry-After says when. */
static void write_busy(struct http_request *request)
{
    buffer_append_text(&request->private->headers, "Retry-After: 1\r\n");
    http_reply_text(request, 503, SLICE_LITERAL(REPLICA_BUSY));
}

static void write_on_done(void *context, const char *failure, const struct command_result *result)
{
    struct http_request *request = context;
    struct http_conn *conn = request->conn;

    http_conn_enter(conn);
    if (http_request_release(request)) {
        if (failure != NULL && strcmp(failure, REPLICA_BUSY) == 0) {
            write_busy(request);
        } else if (failure != NULL) {
            metrics_count(request->server->metrics, METRIC_RPC_REQUEST_ERROR, 1);
            http_reply_failure(request, 0, failure);
        } else if (result->status == COMMAND_REFUSED) {
            /* Unchanged: clients look at how it begins. */
            http_reply_failure(request, 0, result->error.text);
        } else {
            request->private->write_done(request, result);
        }
    }
    http_conn_leave(conn);
}

void http_write_start(struct http_request *request, struct slice command,
                      void (*done)(struct http_request *request,
                                   const struct command_result *result))
{
    metrics_count(request->server->metrics, METRIC_RPC_REQUEST, 1);
    metrics_count(request->server->metrics, METRIC_CLIENT_RPC, 1);
    request->private->write_done = done != NULL ? done : write_answer;
    http_request_hold(request);
    replica_propose(request->server->replica, command, write_on_done, request);
}
