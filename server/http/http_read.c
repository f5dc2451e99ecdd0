/* Reads: how fresh the answer must be, and blocking queries.
 *
 * A read is answered from the local store once the replica says that it is fresh enough. With
 * ?index above the result's, the request parks in the watch table: it keeps its path and parameters
 * and gives everything else back. A wake-up is as fresh as the apply that caused it, so the store
 * is read without asking (in the request's turn: http_turn.c); the end of the wait proves nothing,
 * so the replica is asked again: a server that has lost its quorum meanwhile must not answer. */

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "kv/watch.h"
#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/server.h"

enum {
    WAIT_DEFAULT_MS = 5 * 60 * 1000,
    WAIT_MS_MAX = 10 * 60 * 1000, /* of a blocking query; a longer ?wait is cut */
    WAIT_JITTER_FRACTION = 16,    /* up to a sixteenth is added */
    BODY_KEEP_BYTES = 1024 * 1024,
};

#define NS_PER_MS 1000000
#define NS_PER_US 1000

/* --- parameters --- */

static bool parse_consistency(struct http_request *request)
{
    struct http_request_private *private = request->private;
    const struct slice max_stale = http_param_value(request, "max_stale");
    const bool consistent = http_has_param(request, "consistent");
    bool stale = http_has_param(request, "stale");

    if (max_stale.size > 0) {
        struct errmsg err;
        int64_t ns = 0;

        if (!duration_parse(max_stale, &ns, &err)) {
            struct buffer text = {0};

            buffer_append_text(&text, "Invalid max_stale value ");
            http_put_quoted(&text, max_stale);
            http_reply_text(request, 400, buffer_slice(&text));
            buffer_deinit(&text);
            return false;
        }
        stale = stale || ns > 0;
    }
    if (stale && consistent) {
        http_reply_error(request, 400,
                         "Cannot specify ?stale with ?consistent, conflicting semantics.");
        return false;
    }
    if (consistent && http_has_param(request, "cached")) {
        http_reply_error(request, 400,
                         "Cannot specify ?cached with ?consistent, conflicting semantics.");
        return false;
    }
    private->consistency = stale        ? REPLICA_STALE
                           : consistent ? REPLICA_CONSISTENT
                                        : REPLICA_DEFAULT;
    return true;
}

/* Go's Atoi, but for the value. */
static bool is_go_int(struct slice text)
{
    const bool negative = text.size > 0 && text.data[0] == '-';
    uint64_t number = 0;
    struct errmsg err;

    if (negative || (text.size > 0 && text.data[0] == '+')) {
        text.data++;
        text.size--;
    }
    return http_parse_u64(text, &number, &err) && number <= (uint64_t)INT64_MAX + negative;
}

/* One directive of Cache-Control. Nothing is cached here, but what Consul refuses is refused. */
static bool cache_directive_valid(struct slice directive)
{
    directive = http_trim(directive);
    const char *equals = directive.size == 0 ? NULL : memchr(directive.data, '=', directive.size);

    if (equals == NULL) {
        return true;
    }
    const struct slice name = {directive.data, (size_t)(equals - directive.data)};

    if (!slice_equal_nocase(name, SLICE_LITERAL("max-age")) &&
        !slice_equal_nocase(name, SLICE_LITERAL("stale-if-error"))) {
        return true;
    }
    return is_go_int(slice_from(equals + 1, directive.size - name.size - 1));
}

static bool parse_cache_control(struct http_request *request)
{
    struct slice rest = http_header(request, "Cache-Control");

    while (rest.size > 0) {
        const char *comma = memchr(rest.data, ',', rest.size);
        const size_t size = comma == NULL ? rest.size : (size_t)(comma - rest.data);
        const size_t skip = comma == NULL ? size : size + 1;

        if (!cache_directive_valid((struct slice){rest.data, size})) {
            http_reply_error(request, 400, "Invalid Cache-Control header.");
            return false;
        }
        rest.data += skip;
        rest.size -= skip;
    }
    return true;
}

bool http_parse_wait(struct http_request *request)
{
    struct http_request_private *private = request->private;
    const struct slice wait = http_param_value(request, "wait");
    const struct slice index = http_param_value(request, "index");
    struct errmsg err;
    int64_t ns = 0;

    if (wait.size > 0 && !duration_parse(wait, &ns, &err)) {
        http_reply_error(request, 400, "Invalid wait time");
        return false;
    }
    if (index.size > 0 && !http_parse_u64(index, &private->min_index, &err)) {
        http_reply_error(request, 400, "Invalid index");
        return false;
    }
    private->wait_ms = WAIT_DEFAULT_MS;
    if (ns > 0) {
        const int64_t ms = ns / NS_PER_MS + (ns % NS_PER_MS != 0);

        private->wait_ms = ms < WAIT_MS_MAX ? (uint64_t)ms : WAIT_MS_MAX;
    }
    return true;
}

bool http_parse_common(struct http_request *request)
{
    if (request->private->parsed) {
        return true;
    }
    if (!parse_consistency(request) || !parse_cache_control(request) || !http_parse_wait(request)) {
        return false;
    }
    request->private->parsed = true;
    return true;
}

bool http_check_datacenter(struct http_request *request, unsigned flags)
{
    struct slice datacenter = http_param_value(request, "dc");

    if (datacenter.size == 0) {
        datacenter = http_param_value(request, "datacenter"); /* as later releases call it */
    }

    if (datacenter.size == 0 ||
        slice_equal(datacenter, slice_from_text(request->server->config->datacenter))) {
        return true;
    }
    http_reply_failure(request, flags, "No path to datacenter");
    return false;
}

bool http_check_named(struct http_request *request, unsigned flags, const char *missing)
{
    if (!http_parse_common(request)) {
        return false;
    }
    if (request->rest.size == 0) {
        http_reply_error(request, 400, "%s", missing);
        return false;
    }
    return http_check_datacenter(request, flags);
}

bool http_parse_freshness(struct http_request *request)
{
    return parse_consistency(request) && parse_cache_control(request);
}

bool http_check_common(struct http_request *request, unsigned flags)
{
    return http_parse_common(request) && http_check_datacenter(request, flags);
}

/* --- running --- */

static void read_on_fresh(void *context, const char *failure,
                          const struct replica_freshness *freshness);

void http_read_unwatch(struct http_request *request)
{
    struct http_request_private *private = request->private;

    for (size_t i = 0; i < private->spec.watch_count; i++) {
        watch_remove(request->server->watches, &private->wait.watches[i].watch);
    }
}

static const char *read_effective(const struct http_request_private *private)
{
    if ((private->spec.flags & HTTP_READ_EFFECTIVE) == 0) {
        return NULL;
    }
    switch (private->consistency) {
    case REPLICA_DEFAULT:
        return "leader";
    case REPLICA_CONSISTENT:
        return "consistent";
    case REPLICA_STALE:
        return "stale";
    }
    return NULL;
}

struct http_meta http_read_meta(const struct http_request *request,
                                const struct http_read_result *result,
                                const struct replica_freshness *freshness)
{
    const struct http_request_private *private = request->private;

    if (result->error) {
        return (struct http_meta){.index = result->status == 500 &&
                                           (private->spec.flags & HTTP_READ_ERROR_HEADERS) != 0};
    }
    /* Consul adds them too late for such a 404, unless it is to compress it: its head waits. */
    const bool bare =
        result->status == 404 && !private->gzip && (private->spec.flags & HTTP_READ_BARE_404) != 0;

    return (struct http_meta){
        .index = (private->spec.flags & HTTP_READ_INDEX_HEADERS) != 0 && !bare,
        .index_value = result->index,
        .leader = (private->spec.flags & HTTP_READ_LEADER_HEADERS) != 0,
        .known_leader = freshness->known_leader,
        .last_contact_ms = freshness->last_contact_ms,
        .effective = read_effective(private),
    };
}

/* Makes of a result what is sent: no body with a 404, indented with ?pretty. */
static void read_finish(const struct http_request *request, struct http_read_result *result)
{
    if (result->error) {
        result->content_type = "text/plain; charset=utf-8";
    } else if (result->status == 404) {
        buffer_clear(&result->body);
        result->content_type = NULL;
    } else if (request->pretty && result->content_type != NULL &&
               strcmp(result->content_type, "application/json") == 0) {
        struct buffer pretty = {0};

        json_indent(&pretty, buffer_slice(&result->body));
        buffer_deinit(&result->body);
        result->body = pretty;
    }
}

void http_read_reply(struct http_request *request, struct http_read_result *result,
                     const struct replica_freshness *freshness)
{
    read_finish(request, result);
    const struct http_meta meta = http_read_meta(request, result, freshness);

    http_reply_buffer(request, result->status, result->content_type, &meta, &result->body);
}

static void read_on_wake(struct watch *watch);

/* Registers what to wait for. In the same call as the run that found nothing new, so that no change
 * falls between. False: no memory. */
bool http_read_watch(struct http_request *request)
{
    struct http_request_private *private = request->private;
    struct watch_table *table = request->server->watches;

    memset(&private->wait, 0, sizeof(private->wait));
    for (size_t i = 0; i < private->spec.watch_count; i++) {
        struct http_watch *waiter = &private->wait.watches[i];
        int rc;

        waiter->request = request;
        waiter->watch.on_wake = read_on_wake;
        if (private->spec.watches[i].prefix) {
            rc = watch_add_prefix(table, &waiter->watch, private->spec.watches[i].topic,
                                  private->spec.watches[i].key);
        } else {
            rc = watch_add_key(table, &waiter->watch, private->spec.watches[i].topic,
                               private->spec.watches[i].key);
        }
        if (rc != 0) {
            http_read_unwatch(request);
            return false;
        }
    }
    return true;
}

void http_read_park(struct http_request *request)
{
    struct http_request_private *private = request->private;
    struct http_conn *conn = request->conn;

    private->phase = HTTP_PHASE_PARKED;
    if (conn->deadline_ms == UINT64_MAX) { /* Not when it went back to sleep. */
        const uint64_t jitter = private->wait_ms / WAIT_JITTER_FRACTION;

        http_conn_shrink(conn);
        http_conn_set_deadline(conn, private->wait_ms + http_random(conn->http) % (jitter + 1));
    }
}

bool http_read_blocks(const struct http_request *request, uint64_t index)
{
    const struct http_request_private *private = request->private;

    return private->min_index > 0 && (index > 0 ? index : 1) <= private->min_index &&
           !private->timed_out && !request->conn->http->draining && private->spec.watch_count > 0;
}

int http_read_txn(struct http_server *http)
{
    int rc;

    if (http->txn_open) {
        return store_read_renew(&http->txn);
    }
    rc = store_read_begin(http->server->store, &http->txn);
    http->txn_open = rc == 0;
    return rc;
}

/* Runs, or begins to. `*whole` false: the listing is long. What others wait for, too, may take
 * longer: it is encoded once for all of them. */
static int read_call(struct http_request *request, struct http_read_result *result, bool woken,
                     bool *whole)
{
    const struct http_read_spec *spec = &request->private->spec;
    struct http_server *http = request->conn->http;
    struct http_piece piece = {.out = &result->body};
    int rc;

    *whole = true;
    request->private->headers.size = request->private->headers_before; /* None of a run before. */
    if (spec->piece == NULL) {
        rc = spec->run(request, &http->txn, result);
        return rc;
    }
    const uint64_t until_ns = woken ? uv_hrtime() + (uint64_t)HTTP_WOKEN_US_MAX * NS_PER_US : 0;

    do {
        rc = spec->piece(request, &http->txn, &piece);
    } while (woken && rc == 0 && !piece.done && result->body.size <= HTTP_WHOLE_BYTES_MAX &&
             uv_hrtime() < until_ns);
    *whole = piece.done;
    result->status = piece.missing ? 404 : 200;
    result->index = piece.index;
    http_piece_deinit(&piece);
    return rc;
}

/* Answers, and keeps the answer for those who were woken with this one. */
static void read_reply_shared(struct http_request *request, struct http_read_result *result,
                              const struct replica_freshness *freshness)
{
    struct http_body *body = NULL;

    read_finish(request, result);
    const struct http_meta meta = http_read_meta(request, result, freshness);

    if (result->body.size > 0 && !result->body.failed) {
        body = http_body_new(&result->body);
    }
    if (body == NULL) {
        http_reply_buffer(request, result->status, result->content_type, &meta, &result->body);
        return;
    }
    http_shared_keep(request, result, body);
    http_reply_body(request, result->status, result->content_type, &meta, body);
    http_body_unref(body);
}

static void read_run(struct http_request *request, const struct replica_freshness *freshness,
                     bool woken)
{
    struct http_request_private *private = request->private;
    struct http_server *http = request->conn->http;
    struct http_read_result result = {
        .status = 200, .content_type = "application/json", .body = http->body};
    bool whole;
    int rc = http_read_txn(http);

    if (rc != 0) {
        http_reply_failure(request, private->spec.flags, store_strerror(rc));
        return;
    }
    http->body = (struct buffer){0};
    buffer_clear(&result.body);
    rc = read_call(request, &result, woken, &whole);
    store_read_reset(&http->txn);
    if (rc != 0) {
        http_reply_failure(request, private->spec.flags, store_strerror(rc));
    } else if (!whole) {
        if (woken) {
            http_shared_keep_long(request);
        }
        http_stream_start(request, freshness);
    } else if (!result.error && http_read_blocks(request, result.index)) {
        if (http_read_watch(request)) {
            http_read_park(request);
        } else { /* A listing that is waited for has not been read. */
            http_reply_failure(request, private->spec.flags, store_strerror(STORE_ENOMEM));
        }
    } else if (woken) {
        read_reply_shared(request, &result, freshness);
    } else {
        http_read_reply(request, &result, freshness);
    }
    if (http->body.capacity == 0 && result.body.capacity <= BODY_KEEP_BYTES) {
        http->body = result.body;
    } else {
        buffer_deinit(&result.body);
    }
}

/* Many listings that are asked for at once are begun over several turns of the loop, as those that
 * are woken at once: what is fresh enough now still is then. */
static bool read_put_off(struct http_request *request)
{
    struct http_server *http = request->conn->http;
    const uint64_t now_ms = uv_now(http->loop);

    if (request->private->spec.piece == NULL) {
        return false;
    }
    if (http->listing_turn_ms != now_ms) { /* Stands still during a turn. */
        http->listing_turn_ms = now_ms;
        http->listing_turn_ns = 0;
    }
    if (http->listing_turn_ns < (uint64_t)HTTP_TURN_US_MAX * NS_PER_US) {
        return false;
    }
    request->private->put_off = true;
    http_wake_add(request);
    return true;
}

static void read_run_timed(struct http_request *request, const struct replica_freshness *freshness)
{
    struct http_server *http = request->conn->http;
    const bool listing = request->private->spec.piece != NULL;
    const uint64_t began_ns = listing ? uv_hrtime() : 0;

    read_run(request, freshness, false); /* The request may be over. */
    if (listing) {
        http->listing_turn_ns += uv_hrtime() - began_ns;
    }
}

static void read_on_fresh(void *context, const char *failure,
                          const struct replica_freshness *freshness)
{
    struct http_request *request = context;
    struct http_conn *conn = request->conn;

    http_conn_enter(conn);
    assert(request->private->phase == HTTP_PHASE_READ);
    request->private->phase = HTTP_PHASE_HANDLER;
    if (failure != NULL) {
        metrics_count(request->server->metrics, METRIC_RPC_REQUEST_ERROR, 1);
        http_reply_failure(request, request->private->spec.flags, failure);
    } else if (!read_put_off(request)) {
        read_run_timed(request, freshness);
    }
    http_conn_leave(conn);
}

static void read_on_wake(struct watch *watch)
{
    struct http_watch *waiter = (struct http_watch *)(void *)watch;
    struct http_request *request = waiter->request;

    static_assert(offsetof(struct http_watch, watch) == 0, "the cast above");
    http_read_unwatch(request); /* The others of the same request. */
    if (request->private->phase == HTTP_PHASE_STREAM) {
        request->private->changed = true;
        return;
    }
    assert(request->private->phase == HTTP_PHASE_PARKED);
    http_wake_add(request);
}

void http_read_woken(struct http_request *request)
{
    struct http_conn *conn = request->conn;
    struct replica_freshness freshness;

    http_conn_enter(conn);
    assert(request->private->phase == HTTP_PHASE_WOKEN);
    request->private->phase = HTTP_PHASE_HANDLER;
    request->private->put_off = false;
    replica_freshness(request->server->replica, &freshness);
    const struct http_shared *shared = &conn->http->shared;

    const bool found = http_shared_find(request);

    if (found && shared->is_long) {
        http_stream_start(request, &freshness);
    } else if (found &&
               !(!shared->result.error && http_read_blocks(request, shared->result.index))) {
        const struct http_meta meta = http_read_meta(request, &shared->result, &freshness);

        http_reply_body(request, shared->result.status, shared->result.content_type, &meta,
                        shared->body);
    } else {
        read_run(request, &freshness, true);
    }
    http_conn_leave(conn);
}

void http_read_expire(struct http_request *request)
{
    struct http_request_private *private = request->private;
    struct http_conn *conn = request->conn;
    struct replica_freshness freshness;

    http_conn_enter(conn);
    assert(private->phase == HTTP_PHASE_PARKED);
    http_read_unwatch(request);
    private->timed_out = true;
    if (conn->http->draining || private->consistency == REPLICA_STALE) {
        private->phase = HTTP_PHASE_HANDLER;
        replica_freshness(request->server->replica, &freshness);
        read_run(request, &freshness, false);
    } else {
        private->phase = HTTP_PHASE_READ;
        replica_read(request->server->replica, &private->wait.read, private->consistency,
                     read_on_fresh, request);
    }
    http_conn_leave(conn);
}

void http_read_cancel(struct http_request *request)
{
    struct http_request_private *private = request->private;

    switch (private->phase) {
    case HTTP_PHASE_READ:
        replica_read_cancel(request->server->replica, &private->wait.read);
        break;
    case HTTP_PHASE_PARKED:
        http_read_unwatch(request);
        break;
    case HTTP_PHASE_WOKEN:
        http_wake_remove(request);
        break;
    case HTTP_PHASE_STREAM:
        http_stream_cancel(request);
        break;
    case HTTP_PHASE_BODY:
    case HTTP_PHASE_HANDLER:
    case HTTP_PHASE_HELD:
    case HTTP_PHASE_ANSWERED:
        assert(false && "nothing of a read is under way");
        break;
    }
}

/* Nothing is cached: every answer is fresh. But clients (and their metrics) are told what Consul
 * would tell them: whether the same was asked before. */
void http_read_cache_header(struct http_request *request)
{
    const struct slice filter = http_param_value(request, "filter");
    struct http_server *http = request->conn->http;
    uint64_t hash = 0xcbf29ce484222325ULL; /* FNV-1a */

    for (size_t i = 0; i < request->path.size + filter.size; i++) {
        const char c =
            i < request->path.size ? request->path.data[i] : filter.data[i - request->path.size];
        hash = (hash ^ (unsigned char)c) * 0x100000001b3ULL;
    }
    uint64_t *slot = &http->cached[hash % HTTP_CACHED_MAX];
    http_add_header(request, "X-Cache", *slot == hash ? "HIT" : "MISS");
    if (*slot == hash) {
        http_add_header(request, "Age", "0");
    }
    *slot = hash;
}

void http_read_start(struct http_request *request, const struct http_read_spec *spec)
{
    struct http_request_private *private = request->private;

    assert(spec->watch_count <= HTTP_WATCHES_MAX);
    private->spec = *spec;
    if (!http_parse_common(request) || !http_check_datacenter(request, spec->flags)) {
        return;
    }
    if ((spec->flags & HTTP_READ_CACHEABLE) != 0 && http_has_param(request, "cached")) {
        http_read_cache_header(request);
    }
    private->headers_before = private->headers.size;
    metrics_count(request->server->metrics, METRIC_RPC_QUERY, 1);
    metrics_count(request->server->metrics, METRIC_CLIENT_RPC, 1);
    private->phase = HTTP_PHASE_READ;
    replica_read(request->server->replica, &private->wait.read, private->consistency, read_on_fresh,
                 request);
}
