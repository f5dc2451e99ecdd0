/* From a request to its endpoint: the checks that Consul makes before a handler runs, in its order:
 * printable path, clean path, known path, query, blocked prefix, OPTIONS, method. */

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/server.h"

static const struct http_route *const route_tables[] = {
    http_routes_kv,      http_routes_session,  http_routes_status,   http_routes_agent,
    http_routes_catalog, http_routes_health,   http_routes_misc,     http_routes_txn,
    http_routes_event,   http_routes_operator, http_routes_snapshot, http_routes_coordinate,
};

/* Longest match; an exact path beats a prefix of the same length (there are none). */
const struct http_route *http_route_find(struct slice path)
{
    const struct http_route *best = NULL;
    size_t best_size = 0;

    /* Most requests; nothing else lies below it. */
    if (slice_starts_with(path, SLICE_LITERAL("/v1/kv/"))) {
        return &http_routes_kv[0];
    }
    for (size_t table = 0; table < sizeof(route_tables) / sizeof(route_tables[0]); table++) {
        for (const struct http_route *route = route_tables[table]; route->path != NULL; route++) {
            const struct slice pattern = slice_from_text(route->path);
            const bool prefix = pattern.data[pattern.size - 1] == '/';

            if (pattern.size > best_size &&
                (prefix ? slice_starts_with(path, pattern) : slice_equal(path, pattern))) {
                best = route;
                best_size = pattern.size;
            }
        }
    }
    return best;
}

/* The raw query of the current request, without its question mark; its data is NULL if there is
 * none. */
static struct slice raw_query(const struct http_conn *conn)
{
    const char *mark = conn->url.size == 0 ? NULL : memchr(conn->url.data, '?', conn->url.size);

    if (mark == NULL) {
        return (struct slice){NULL, 0};
    }
    return (struct slice){mark + 1, conn->url.size - (size_t)(mark - conn->url.data) - 1};
}

static void redirect_to(struct http_request *request, struct slice path)
{
    const struct slice query = raw_query(request->conn);
    struct buffer location = {0};

    http_path_escape(&location, path);
    if (query.data != NULL && query.size > 0) {
        buffer_append_char(&location, '?');
        buffer_append_slice(&location, query);
    }
    http_reply_redirect(request, buffer_slice(&location));
    buffer_deinit(&location);
}

static bool path_is_clean(struct slice path)
{
    if (path.size == 0 || path.data[0] != '/') {
        return false;
    }
    for (size_t i = 0; i + 1 < path.size; i++) {
        /* "//", "/." and "/.." are looked at in full; names that begin with a dot too. */
        if (path.data[i] == '/' && (path.data[i + 1] == '/' || path.data[i + 1] == '.')) {
            return false;
        }
    }
    return true;
}

/* Whether there is no endpoint of that very path, but one of it and a slash: clients that forgot
 * the slash are sent there, even where a shorter prefix would have taken them. */
static bool route_lacks_slash(struct slice path)
{
    bool found = false;

    for (size_t table = 0; table < sizeof(route_tables) / sizeof(route_tables[0]); table++) {
        for (const struct http_route *route = route_tables[table]; route->path != NULL; route++) {
            const struct slice pattern = slice_from_text(route->path);

            if (slice_equal(path, pattern)) {
                return false;
            }
            found = found || (pattern.size == path.size + 1 && pattern.data[path.size] == '/' &&
                              slice_starts_with(pattern, path));
        }
    }
    return found;
}

/* True when the path was not clean and the answer is a redirect. */
static bool route_redirect(struct http_request *request)
{
    struct buffer clean = {0};
    bool redirected = false;

    if (path_is_clean(request->path)) {
        return false;
    }
    http_path_clean(&clean, request->path);
    if (!slice_equal(buffer_slice(&clean), request->path)) {
        if (route_lacks_slash(buffer_slice(&clean))) {
            buffer_append_char(&clean, '/');
        }
        redirect_to(request, buffer_slice(&clean));
        redirected = true;
    }
    buffer_deinit(&clean);
    return redirected;
}

/* "/v1/kv" for "/v1/kv/". */
static bool route_redirect_slash(struct http_request *request)
{
    struct buffer path = {0};

    if (slice_starts_with(request->path, SLICE_LITERAL("/v1/kv/")) ||
        !route_lacks_slash(request->path)) {
        return false;
    }
    buffer_append_slice(&path, request->path);
    buffer_append_char(&path, '/');
    redirect_to(request, buffer_slice(&path));
    buffer_deinit(&path);
    return true;
}

/* --- Enterprise's partitions of the name space --- */

static bool namespace_is_asked(struct slice path)
{
    static const char *const prefixes[] = {
        "/v1/kv/",
        "/v1/session/",
        "/v1/catalog/services",
        "/v1/catalog/service/",
        "/v1/catalog/node/",
        "/v1/catalog/node-services/",
        "/v1/catalog/connect/",
        "/v1/health/",
        "/v1/agent/service",
        "/v1/agent/check",
        "/v1/agent/health/",
    };

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (slice_starts_with(path, slice_from_text(prefixes[i]))) {
            return true;
        }
    }
    return false;
}

/* Only the default one is here; so is it for clients that always name it. False: refused. */
static bool route_check_namespace(struct http_request *request)
{
    static const struct {
        const char *name;
        const char *what;
    } params[] = {{"ns", "Namespaces"},
                  {"namespace", "Namespaces"},
                  {"partition", "Partitions"},
                  {"ap", "Partitions"}};

    if (!namespace_is_asked(request->path)) {
        return true;
    }
    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++) {
        const struct slice value = http_param_value(request, params[i].name);

        if (value.size > 0 && !slice_equal(value, SLICE_LITERAL("default"))) {
            http_reply_error(request, 400,
                             "Bad request: Invalid query parameter: \"%s\" - %s are a Consul "
                             "Enterprise feature",
                             params[i].name, params[i].what);
            return false;
        }
    }
    return true;
}

static bool route_is_blocked(const struct http_request *request)
{
    const struct config *config = request->server->config;

    for (size_t i = 0; i < config->http_blocked_count; i++) {
        if (slice_starts_with(request->path, slice_from_text(config->http_blocked_prefixes[i]))) {
            return true;
        }
    }
    return false;
}

bool http_route_check(struct http_request *request)
{
    if (request->method == HTTP_METHOD_OPTIONS && slice_equal(request->path, SLICE_LITERAL("*"))) {
        http_reply_empty(request, 200); /* The server as a whole: it is there. */
        return false;
    }
    if (!request->server->config->http_unprintable && !http_path_printable(request->path)) {
        http_reply_empty(request, 400);
        return false;
    }
    if (route_redirect(request)) {
        return false;
    }
    if (slice_equal(request->path, SLICE_LITERAL("/"))) {
        http_reply_text(request, 200, SLICE_LITERAL("Consul Agent"));
        return false;
    }
    const struct http_route *route = http_route_find(request->path);

    if (route_redirect_slash(request)) {
        return false;
    }
    if (route != NULL && request->private->bad_query) {
        request->private->known = true;
        http_reply_empty(request, 500);
        return false;
    }
    if (route_is_blocked(request)) {
        request->private->known = true;
        http_reply_text(request, 403, SLICE_LITERAL("Endpoint is blocked by agent configuration"));
        return false;
    }
    if (route == NULL) {
        http_reply_empty(request, 404);
        return false;
    }
    request->private->known = true;
    request->private->route = route;
    if (request->method == HTTP_METHOD_OPTIONS) {
        http_add_header(request, "Allow", route->allow);
        http_reply_empty(request, 200);
        return false;
    }
    if ((route->methods & (unsigned)request->method) == 0) {
        http_add_header(request, "Allow", route->allow);
        http_reply_error(request, 405, "method %s not allowed", request->conn->method);
        return false;
    }
    /* Whoever may not ask uses up nobody's share. */
    if (!http_acl_check(request) || !http_limit_check(request)) {
        return false;
    }
    const size_t size = strlen(route->path);

    assert(size <= request->path.size);
    request->rest = (struct slice){request->path.data + size, request->path.size - size};
    if (!route_check_namespace(request)) {
        return false;
    }
    /* KV looks before it reads: a value that will be refused need not be sent. */
    return route->handler != http_kv || http_kv_check(request);
}

void http_route_dispatch(struct http_request *request)
{
    struct http_conn *conn = request->conn;

    assert(request->private->phase == HTTP_PHASE_HANDLER);
    http_conn_enter(conn);
    http_timing_begin(request);
    request->private->route->handler(request);
    http_conn_leave(conn);
}

uint64_t http_route_body_max(const struct http_request *request)
{
    if (request->private->route->handler == http_txn) {
        return request->server->config->txn_request_bytes_max;
    }
    if (request->private->route->handler == http_snapshot) {
        return HTTP_SNAPSHOT_BYTES_MAX;
    }
    return request->private->route->handler == http_kv ? request->server->config->kv_value_bytes_max
                                                       : HTTP_BODY_BYTES_MAX;
}

bool http_archive_admit(struct http_request *request)
{
    struct http_conn *conn = request->conn;

    assert(conn->spool == NULL);
    if (request->private->route->handler != http_snapshot) {
        return true;
    }
    if (conn->http->archives == HTTP_ARCHIVES_MAX && !http_place_reclaim(conn->http, true)) {
        http_add_header(request, "Retry-After", "5");
        http_reply_error(request, 503, "%d snapshots are being restored, try again later",
                         HTTP_ARCHIVES_MAX);
        return false;
    }
    conn->spool = http_spool_new(conn);
    if (conn->spool == NULL) {
        http_reply_error(request, 500, "out of memory");
        return false;
    }
    conn->place_ms = uv_now(conn->http->loop);
    return true;
}

void http_archive_release(struct http_conn *conn)
{
    http_spool_free(conn->spool);
    conn->spool = NULL;
}

void http_reply_too_large(struct http_request *request, uint64_t bytes)
{
    const uint64_t limit = http_route_body_max(request);

    const bool txn = request->private->route->handler == http_txn;

    if (txn || request->private->route->handler == http_kv) {
        http_reply_error(request, 413,
                         "Request body(%" PRIu64 " bytes) too large, max size: %" PRIu64
                         " bytes. See https://www.consul.io/docs/agent/options.html#%s.",
                         bytes, limit, txn ? "txn_max_req_len" : "kv_max_value_size");
    } else {
        http_reply_error(request, 413,
                         "Request body(%" PRIu64 " bytes) too large, max size: %" PRIu64 " bytes.",
                         bytes, limit);
    }
}
