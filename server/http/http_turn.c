/* What is done a bounded time per turn of the loop: answering those whom a change has woken, and
 * long listings. Ten thousand waiters on one key are answered over several turns, and between two
 * of them heartbeats, log and other clients have theirs. */

#include <assert.h>
#include <string.h>

#include "server/http/http_internal.h"

#define NS_PER_US 1000U

/* --- answers that several get --- */

static void shared_drop(struct http_shared *shared)
{
    http_body_unref(shared->body);
    shared->body = NULL;
    shared->kept = false;
    shared->is_long = false;
    buffer_clear(&shared->headers);
}

/* What the answer depends on, but for the index that is waited beyond and the time. */
static void shared_identity(struct buffer *out, const struct http_request *request)
{
    buffer_put_string(out, request->path);
    for (size_t i = 0; i < request->param_count; i++) {
        const struct http_param *param = &request->params[i];

        if (slice_equal(param->name, SLICE_LITERAL("index")) ||
            slice_equal(param->name, SLICE_LITERAL("wait"))) {
            continue;
        }
        buffer_put_string(out, param->name);
        buffer_put_u8(out, param->has_value);
        buffer_put_string(out, param->value);
    }
}

/* What the store has been applied up to; 0: cannot be told. */
static uint64_t shared_applied(struct http_server *http)
{
    uint64_t term;
    uint64_t index = 0;

    if (http_read_txn(http) != STORE_OK) {
        return 0;
    }
    if (store_applied_get(&http->txn, &term, &index) != STORE_OK) {
        index = 0;
    }
    store_read_reset(&http->txn);
    return index;
}

bool http_shared_find(struct http_request *request)
{
    struct http_server *http = request->conn->http;
    const struct http_shared *shared = &http->shared;
    struct buffer *identity = &http->command; /* Nobody encodes a command meanwhile. */

    if (!shared->kept || shared->run != request->private->spec.run ||
        shared->piece != request->private->spec.piece) {
        return false;
    }
    buffer_clear(identity);
    shared_identity(identity, request);
    if (identity->failed || !slice_equal(buffer_slice(identity), buffer_slice(&shared->identity)) ||
        shared->applied_index == 0 || shared_applied(http) != shared->applied_index) {
        return false;
    }
    /* Its own, such as X-Cache, and those of the answer. */
    request->private->headers.size = request->private->headers_before;
    buffer_append_slice(&request->private->headers, buffer_slice(&shared->headers));
    return true;
}

void http_shared_keep(struct http_request *request, const struct http_read_result *result,
                      struct http_body *body)
{
    struct http_shared *shared = &request->conn->http->shared;

    shared_drop(shared);
    buffer_clear(&shared->identity);
    shared_identity(&shared->identity, request);
    const struct buffer *headers = &request->private->headers;
    const size_t before = request->private->headers_before;

    if (headers->size > before) {
        buffer_append(&shared->headers, headers->data + before, headers->size - before);
    }
    if (shared->identity.failed || shared->headers.failed) {
        return;
    }
    shared->kept = true;
    shared->applied_index = shared_applied(request->conn->http);
    shared->run = request->private->spec.run;
    shared->piece = request->private->spec.piece;
    shared->result = *result;
    shared->result.body = (struct buffer){0};
    shared->body = body == NULL ? NULL : http_body_ref(body);
}

void http_shared_keep_long(struct http_request *request)
{
    const struct http_read_result none = {.status = 200};

    http_shared_keep(request, &none, NULL);
    request->conn->http->shared.is_long = true;
}

/* --- waking --- */

void http_wake_add(struct http_request *request)
{
    struct http_server *http = request->conn->http;

    request->private->phase = HTTP_PHASE_WOKEN;
    TAILQ_INSERT_TAIL(&http->woken, request->conn, private.wait.woken);
    http_turn_start(http);
}

void http_wake_remove(struct http_request *request)
{
    TAILQ_REMOVE(&request->conn->http->woken, request->conn, private.wait.woken);
}

static void wake_turn(struct http_server *http, uint64_t until_ns)
{
    do {
        struct http_conn *conn = TAILQ_FIRST(&http->woken);

        if (conn == NULL) {
            break;
        }
        http_wake_remove(&conn->request);
        http_read_woken(&conn->request);
    } while (uv_hrtime() < until_ns);
    if (TAILQ_EMPTY(&http->woken)) {
        shared_drop(&http->shared);
    }
}

/* --- streams --- */

static bool streams_can_step(const struct http_server *http)
{
    const struct http_stream *stream;

    TAILQ_FOREACH(stream, &http->streams, entry)
    {
        if (http_stream_can_step(stream)) {
            return true;
        }
    }
    return http->stream_snapshots < HTTP_STREAMS_MAX && !TAILQ_EMPTY(&http->streams_queued);
}

/* A step of each in turn that can do one, until the time is over. */
static void streams_turn(struct http_server *http, uint64_t until_ns)
{
    do {
        struct http_stream *stream = http_stream_next(http);

        if (stream != NULL) {
            http_stream_step(stream); /* Leaves the queue. */
            continue;
        }
        stream = TAILQ_FIRST(&http->streams);

        TAILQ_REMOVE(&http->streams, stream, entry); /* The next time begins with another one. */
        TAILQ_INSERT_TAIL(&http->streams, stream, entry);
        if (http_stream_can_step(stream)) {
            http_stream_step(stream);
        }
    } while (streams_can_step(http) && uv_hrtime() < until_ns);
}

/* --- the turn --- */

static void turn_on_idle(uv_idle_t *idle)
{
    struct http_server *http = idle->data;
    const uint64_t until_ns = uv_hrtime() + (uint64_t)HTTP_TURN_US_MAX * NS_PER_US;

    wake_turn(http, until_ns);
    if (streams_can_step(http)) {
        streams_turn(http, until_ns);
    }
    if (TAILQ_EMPTY(&http->woken) && !streams_can_step(http)) {
        (void)uv_idle_stop(idle);
    }
    if (TAILQ_EMPTY(&http->streams) && TAILQ_EMPTY(&http->streams_queued)) {
        (void)uv_timer_stop(&http->stream_timer);
    }
}

static void turn_on_tick(uv_timer_t *timer)
{
    struct http_server *http = timer->data;
    struct http_stream *stream;

    TAILQ_FOREACH(stream, &http->streams, entry)
    {
        http_stream_tick(stream);
    }
}

void http_turn_start(struct http_server *http)
{
    if (!uv_is_closing((uv_handle_t *)&http->idle)) {
        (void)uv_idle_start(&http->idle, turn_on_idle);
    }
}

void http_turn_tick(struct http_server *http)
{
    if (!uv_is_active((uv_handle_t *)&http->stream_timer)) {
        (void)uv_timer_start(&http->stream_timer, turn_on_tick, HTTP_STREAM_TICK_MS,
                             HTTP_STREAM_TICK_MS);
    }
}

void http_turn_init(struct http_server *http)
{
    TAILQ_INIT(&http->woken);
    TAILQ_INIT(&http->streams);
    TAILQ_INIT(&http->streams_queued);
    TAILQ_INIT(&http->follows);
    (void)uv_idle_init(http->loop, &http->idle); /* Neither can fail. */
    (void)uv_timer_init(http->loop, &http->stream_timer);
    http->idle.data = http;
    http->stream_timer.data = http;
    http->handles += 2;
}

void http_turn_close(struct http_server *http, uv_close_cb closed)
{
    assert(TAILQ_EMPTY(&http->woken));
    shared_drop(&http->shared);
    assert(TAILQ_EMPTY(&http->streams));
    assert(TAILQ_EMPTY(&http->streams_queued));
    uv_close((uv_handle_t *)&http->idle, closed);
    uv_close((uv_handle_t *)&http->stream_timer, closed);
}
