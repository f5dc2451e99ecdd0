/* The server: its stock of buffers, the deadlines of its connections, who its clients are,
 * accepting, draining. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "kv/store.h"
#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/log.h"
#include "server/server.h"
#include "server/shed.h"

enum {
    LISTEN_BACKLOG = 1024,
    DRAIN_POLL_MS = 10,
    HTTP_DESCRIPTORS_RESERVED_MAX = 1024, /* a quarter of all where there are fewer than 4096 */
};

/* --- buffers --- */

void http_spare_give(struct http_server *http, struct buffer *buffer)
{
    if (buffer->capacity > 0 && buffer->capacity <= 2 * (size_t)HTTP_READ_BYTES &&
        http->spare_count < HTTP_SPARE_BUFFERS_MAX) {
        buffer_clear(buffer);
        http->spares[http->spare_count++] = *buffer;
        *buffer = (struct buffer){0};
        return;
    }
    buffer_deinit(buffer);
}

void http_spare_take(struct http_server *http, struct buffer *buffer)
{
    if (buffer->capacity == 0 && http->spare_count > 0) {
        *buffer = http->spares[--http->spare_count];
    }
}

/* --- deadlines: a heap by key; an entry whose connection has got more time since is put back when
 * it comes up, so that the usual request moves nothing --- */

static void heap_place(struct http_server *http, size_t at, struct http_conn *conn)
{
    http->deadlines[at] = conn;
    conn->heap_at = at;
}

static void heap_up(struct http_server *http, size_t at)
{
    struct http_conn *conn = http->deadlines[at];

    while (at > 0 && http->deadlines[(at - 1) / 2]->heap_key_ms > conn->heap_key_ms) {
        heap_place(http, at, http->deadlines[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_place(http, at, conn);
}

static void heap_down(struct http_server *http, size_t at)
{
    struct http_conn *conn = http->deadlines[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= http->deadline_count) {
            break;
        }
        if (child + 1 < http->deadline_count &&
            http->deadlines[child + 1]->heap_key_ms < http->deadlines[child]->heap_key_ms) {
            child++;
        }
        if (http->deadlines[child]->heap_key_ms >= conn->heap_key_ms) {
            break;
        }
        heap_place(http, at, http->deadlines[child]);
        at = child;
    }
    heap_place(http, at, conn);
}

void http_deadline_remove(struct http_server *http, struct http_conn *conn)
{
    const size_t at = conn->heap_at;

    if (at == SIZE_MAX) {
        return;
    }
    assert(http->deadlines[at] == conn);
    conn->heap_at = SIZE_MAX;
    http->deadline_count--;
    if (at < http->deadline_count) {
        heap_place(http, at, http->deadlines[http->deadline_count]);
        heap_up(http, at);
        heap_down(http, http->deadlines[at]->heap_at);
    }
}

static void server_on_timer(uv_timer_t *timer);

static void server_arm_timer(struct http_server *http)
{
    if (http->deadline_count == 0 || http->freed) {
        return;
    }
    const uint64_t due = http->deadlines[0]->heap_key_ms;

    if (due < http->timer_due_ms) {
        const uint64_t now = uv_now(http->loop);

        http->timer_due_ms = due;
        (void)uv_timer_start(&http->timer, server_on_timer, due > now ? due - now : 0, 0);
    }
}

/* False when there is no memory for the entry: the caller closes the connection. */
static bool heap_set(struct http_server *http, struct http_conn *conn)
{
    if (conn->heap_at == SIZE_MAX) {
        if (http->deadline_count == http->deadline_capacity) {
            const size_t capacity = http->deadline_capacity == 0 ? 64 : http->deadline_capacity * 2;
            struct http_conn **grown =
                realloc(http->deadlines, capacity * sizeof(struct http_conn *));

            if (grown == NULL) {
                return false;
            }
            http->deadlines = grown;
            http->deadline_capacity = capacity;
        }
        conn->heap_key_ms = conn->deadline_ms;
        heap_place(http, http->deadline_count++, conn);
        heap_up(http, conn->heap_at);
    } else if (conn->deadline_ms < conn->heap_key_ms) {
        conn->heap_key_ms = conn->deadline_ms;
        heap_up(http, conn->heap_at);
    }
    server_arm_timer(http);
    return true;
}

/* `after_ms` from now; UINT64_MAX: none. */
void http_conn_set_deadline(struct http_conn *conn, uint64_t after_ms)
{
    if (conn->state == HTTP_CONN_CLOSED) {
        return;
    }
    if (after_ms == UINT64_MAX) {
        conn->deadline_ms = UINT64_MAX;
        return;
    }
    conn->deadline_ms = uv_now(conn->http->loop) + after_ms;
    if (!heap_set(conn->http, conn)) {
        http_conn_close(conn);
    }
}

static void conn_on_deadline(struct http_conn *conn)
{
    switch (conn->state) {
    case HTTP_CONN_HEAD:
    case HTTP_CONN_BODY:
    case HTTP_CONN_DRAIN:
    case HTTP_CONN_LINGER:
        http_conn_close(conn);
        break;
    case HTTP_CONN_BUSY:
        if (conn->private.phase == HTTP_PHASE_PARKED) {
            http_read_expire(&conn->request);
        } else {
            conn->private.timed_out = true; /* Woken, or listing: it does not go back to sleep. */
        }
        break;
    case HTTP_CONN_WRITE: {
        const size_t queued = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);

        if (queued + HTTP_RATE_BYTES <= conn->write_queued) {
            conn->write_queued = queued;
            http_conn_set_deadline(conn, HTTP_WRITE_TIMEOUT_MS);
        } else {
            http_conn_close(conn); /* Took next to nothing: memory is not kept for it any longer. */
        }
        break;
    }
    case HTTP_CONN_CLOSED:
        break;
    }
}

static void server_on_timer(uv_timer_t *timer)
{
    struct http_server *http = timer->data;
    const uint64_t now = uv_now(http->loop);

    http->timer_due_ms = UINT64_MAX;
    while (http->deadline_count > 0 && http->deadlines[0]->heap_key_ms <= now) {
        struct http_conn *conn = http->deadlines[0];

        http_deadline_remove(http, conn);
        if (conn->deadline_ms == UINT64_MAX) {
            continue;
        }
        if (conn->deadline_ms > now) {
            (void)heap_set(http, conn); /* Cannot fail: its place was freed just now. */
            continue;
        }
        conn->deadline_ms = UINT64_MAX;
        conn_on_deadline(conn);
    }
    server_arm_timer(http);
}

/* --- clients --- */

/* Where the client with that address is, or would be. */
static struct http_client **client_bucket(struct http_server *http, const unsigned char key[16])
{
    const size_t bucket_count = sizeof(http->clients) / sizeof(http->clients[0]);
    unsigned hash = 0;

    for (size_t i = 0; i < 16; i++) {
        hash = hash * 31 + key[i];
    }
    return &http->clients[hash % bucket_count];
}

static struct http_client *client_get(struct http_server *http, const struct sockaddr *address)
{
    unsigned char key[16] = {0};

    if (address->sa_family == AF_INET) {
        memcpy(key, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else if (address->sa_family == AF_INET6) {
        memcpy(key, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
    }
    struct http_client **bucket = client_bucket(http, key);

    for (struct http_client *client = *bucket; client != NULL; client = client->next) {
        if (memcmp(client->address, key, sizeof(key)) == 0) {
            client->count++;
            return client;
        }
    }
    struct http_client *client = calloc(1, sizeof(*client));

    if (client != NULL) {
        memcpy(client->address, key, sizeof(key));
        client->count = 1;
        client->next = *bucket;
        *bucket = client;
    }
    return client;
}

void http_client_put(struct http_server *http, struct http_client *client)
{
    if (client == NULL || --client->count > 0) {
        return;
    }
    struct http_client **at = client_bucket(http, client->address);

    while (*at != client) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = client->next;
    free(client);
}

/* --- life of the server's memory --- */

void http_server_maybe_free(struct http_server *http)
{
    if (!http->freed || http->conn_count > 0 || http->handles > 0) {
        return;
    }
    for (size_t i = 0; i < http->spare_count; i++) {
        buffer_deinit(&http->spares[i]);
    }
    buffer_deinit(&http->out);
    buffer_deinit(&http->packed);
    http_gzip_pool_deinit(&http->gzip);
    buffer_deinit(&http->body);
    buffer_deinit(&http->command);
    buffer_deinit(&http->response_headers);
    buffer_deinit(&http->shared.identity);
    buffer_deinit(&http->shared.headers);
    events_free(http->events);
    free(http->timings);
    http_coordinates_free(http->coordinates);
    free(http->deadlines);
    free(http);
}

/* --- accepting --- */

/* Whether the connection has one of the descriptors that are kept for the log, the other servers
 * and DNS: HTTP clients alone must not use up all. The lowest free one is always the next. */
static bool conn_takes_reserve(const struct http_conn *conn)
{
    struct rlimit limit;
    uv_os_fd_t fd;

    if (uv_fileno((const uv_handle_t *)&conn->tcp, &fd) != 0 ||
        getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return false;
    }
    const rlim_t reserved = limit.rlim_cur / 4 < HTTP_DESCRIPTORS_RESERVED_MAX
                                ? limit.rlim_cur / 4
                                : HTTP_DESCRIPTORS_RESERVED_MAX;

    return (rlim_t)fd >= limit.rlim_cur - reserved;
}

/* One client address has too many connections: it is told, and closed. */
static void conn_turn_away(struct http_conn *conn)
{
    http_conn_refuse(conn, 429,
                     "Your IP is issuing too many concurrent connections, please rate limit your "
                     "calls\n");
}

static bool conn_limit_reached(struct http_conn *conn)
{
    const uint32_t limit = conn->http->server->config->http_conns_per_client_max;
    struct sockaddr_storage address;
    int size = sizeof(address);

    if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&address, &size) != 0) {
        return false;
    }
    conn->client = client_get(conn->http, (const struct sockaddr *)&address);
    return limit > 0 && conn->client != NULL && conn->client->count > limit;
}

static void server_on_connection(uv_stream_t *listener, int status)
{
    struct http_server *http = listener->data;

    if (status < 0) {
        /* Out of descriptors, as a rule. libuv has shed what waited, and goes on accepting when
         * there are some again. */
        log_write(LOG_WARN, "agent.http", "Cannot accept a connection: %s", uv_strerror(status));
        return;
    }
    struct http_conn *conn = http_conn_new(http);

    if (conn == NULL) {
        log_write(LOG_WARN, "agent.http", "Cannot accept a connection: out of memory");
        shed_accept(http->sheds[(uv_tcp_t *)listener - http->listeners]);
        return;
    }
    const int rc = uv_tcp_init(http->loop, &conn->tcp);

    assert(rc == 0); /* Without an address family it opens nothing. */
    (void)rc;
    conn->tcp.data = conn;
    if (uv_accept(listener, (uv_stream_t *)&conn->tcp) != 0) {
        http_conn_close(conn);
        return;
    }
    if (conn_takes_reserve(conn)) {
        log_write(LOG_WARN, "agent.http", "Cannot accept a connection: too many open files");
        http_conn_close(conn);
        return;
    }
    (void)uv_tcp_nodelay(&conn->tcp, 1); /* An optimisation: it may fail. */
    if (uv_read_start((uv_stream_t *)&conn->tcp, http_conn_on_alloc, http_conn_on_read) != 0) {
        http_conn_close(conn);
        return;
    }
    if (conn_limit_reached(conn)) {
        conn_turn_away(conn);
        return;
    }
    http_conn_set_deadline(conn, HTTP_IDLE_TIMEOUT_MS);
}

static int server_listen(struct http_server *http, const char *address, int port,
                         struct errmsg *err)
{
    struct sockaddr_storage storage;
    uv_tcp_t *listener = &http->listeners[http->listener_count];
    int rc;

    if (http->listener_count == HTTP_LISTENERS_MAX) {
        return errmsg_set(err, UV_EINVAL, "more than %d addresses for HTTP", HTTP_LISTENERS_MAX);
    }
    if (uv_ip4_addr(address, port, (struct sockaddr_in *)&storage) != 0 &&
        uv_ip6_addr(address, port, (struct sockaddr_in6 *)&storage) != 0) {
        return errmsg_set(err, UV_EINVAL, "HTTP address \"%s\" is no IP address", address);
    }
    struct shed *shed = shed_new((uv_stream_t *)listener);

    if (shed == NULL) {
        return errmsg_set(err, UV_ENOMEM, "no memory for the HTTP server");
    }
    rc = uv_tcp_init(http->loop, listener);
    if (rc != 0) {
        shed_free(shed);
        return errmsg_set(err, rc, "listen on %s: %s", address, uv_strerror(rc));
    }
    http->sheds[http->listener_count] = shed;
    http->listener_count++;
    http->handles++;
    listener->data = http;
    rc = uv_tcp_bind(listener, (const struct sockaddr *)&storage, 0);
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)listener, LISTEN_BACKLOG, server_on_connection);
    }
    if (rc != 0) {
        return errmsg_set(err, rc, "listen on %s port %d: %s", address, port, uv_strerror(rc));
    }
    return 0;
}

static int server_listen_all(struct http_server *http, struct errmsg *err)
{
    const struct config *config = http->server->config;
    const char *at = config->http_address != NULL ? config->http_address : config->client_addr;

    if (config->http_port < 0) {
        return 0;
    }
    while (*at != '\0') {
        char address[64];
        const size_t blank = strspn(at, " \t");
        const size_t size = strcspn(at + blank, " \t");

        at += blank;
        if (size == 0) {
            break;
        }
        if (size >= sizeof(address)) {
            return errmsg_set(err, UV_EINVAL, "HTTP address \"%.80s\" is no IP address", at);
        }
        memcpy(address, at, size);
        address[size] = '\0';
        at += size;
        const int rc = server_listen(http, address, config->http_port, err);

        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* --- life of the server --- */

/* http_config.response_headers, as they go on the wire. */
static void server_response_headers(struct http_server *http)
{
    const char *name;
    json_t *value;

    json_object_foreach(http->server->config->http_response_headers, name, value)
    {
        const char *text = json_string_value(value);

        if (text != NULL && name[0] != '\0' && strpbrk(text, "\r\n") == NULL &&
            strpbrk(name, "\r\n: ") == NULL) {
            buffer_printf(&http->response_headers, "%s: %s\r\n", name, text);
        }
    }
}

uint64_t http_random(struct http_server *http)
{
    /* splitmix64: spreads wake-ups, guards nothing. */
    uint64_t z = (http->random += 0x9e3779b97f4a7c15ULL);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

int http_server_new(struct server *server, struct http_server **out, struct errmsg *err)
{
    struct http_server *http = calloc(1, sizeof(*http));

    if (http == NULL) {
        return errmsg_set(err, UV_ENOMEM, "no memory for the HTTP server");
    }
    http->server = server;
    http->loop = server->loop;
    http->timer_due_ms = UINT64_MAX;
    http->date_s = -1;
    server_random(&http->random, sizeof(http->random));
    server_response_headers(http);
    (void)uv_timer_init(http->loop, &http->timer); /* Never fails. */
    (void)uv_timer_init(http->loop, &http->drain_timer);
    http->timer.data = http;
    http->drain_timer.data = http;
    http->handles = 2;
    http_turn_init(http);
    const int rc = server_listen_all(http, err);

    if (rc != 0) {
        http_server_free(http);
        return rc;
    }
    *out = http;
    return 0;
}

uint16_t http_server_port(const struct http_server *http)
{
    struct sockaddr_storage address;
    int size = sizeof(address);

    if (http->listener_count == 0 ||
        uv_tcp_getsockname(&http->listeners[0], (struct sockaddr *)&address, &size) != 0) {
        return 0;
    }
    /* The port is at the same place for both families. */
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

static void server_on_handle_closed(uv_handle_t *handle)
{
    struct http_server *http = handle->data;

    http->handles--;
    http_server_maybe_free(http);
}

static void server_close_listeners(struct http_server *http)
{
    for (size_t i = 0; i < http->listener_count; i++) {
        shed_free(http->sheds[i]);
        http->sheds[i] = NULL;
        if (!uv_is_closing((uv_handle_t *)&http->listeners[i])) {
            uv_close((uv_handle_t *)&http->listeners[i], server_on_handle_closed);
        }
    }
}

static bool server_is_quiet(const struct http_server *http)
{
    for (const struct http_conn *conn = http->conns; conn != NULL; conn = conn->next) {
        if (conn->state != HTTP_CONN_LINGER && conn->state != HTTP_CONN_CLOSED) {
            return false;
        }
    }
    return true;
}

/* Requests that have not come whole would come to a server whose other parts are gone. */
static void server_close_incomplete(struct http_server *http)
{
    struct http_conn *next;

    for (struct http_conn *conn = http->conns; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == HTTP_CONN_HEAD || conn->state == HTTP_CONN_BODY ||
            conn->state == HTTP_CONN_DRAIN) {
            http_conn_close(conn);
        }
    }
}

static void server_on_drain_timer(uv_timer_t *timer)
{
    struct http_server *http = timer->data;

    if (!server_is_quiet(http) && uv_now(http->loop) < http->drain_deadline_ms) {
        return;
    }
    (void)uv_timer_stop(timer);
    server_close_incomplete(http);
    if (http->drain_done != NULL) {
        void (*done)(void *context) = http->drain_done;

        http->drain_done = NULL;
        done(http->drain_context);
    }
}

void http_server_drain(struct http_server *http, uint64_t timeout_ms, void (*done)(void *context),
                       void *context)
{
    struct http_conn *next;

    http->draining = true;
    http->drain_done = done;
    http->drain_context = context;
    http->drain_deadline_ms = uv_now(http->loop) + timeout_ms;
    server_close_listeners(http);
    http_follow_end_all(http);
    for (struct http_conn *conn = http->conns; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == HTTP_CONN_HEAD && conn->in.size == 0) {
            http_conn_close(conn);
        } else if (conn->state == HTTP_CONN_BUSY && conn->private.phase == HTTP_PHASE_PARKED) {
            http_read_expire(&conn->request);
        }
    }
    (void)uv_timer_start(&http->drain_timer, server_on_drain_timer, 0, DRAIN_POLL_MS);
}

void http_server_free(struct http_server *http)
{
    struct http_conn *next;

    if (http == NULL) {
        return;
    }
    http->freed = true;
    http->draining = true;
    server_close_listeners(http);
    for (struct http_conn *conn = http->conns; conn != NULL; conn = next) {
        next = conn->next;
        http_conn_close(conn);
    }
    if (http->txn_open) {
        store_read_end(&http->txn);
        http->txn_open = false;
    }
    http_turn_close(http, server_on_handle_closed);
    uv_close((uv_handle_t *)&http->timer, server_on_handle_closed);
    uv_close((uv_handle_t *)&http->drain_timer, server_on_handle_closed);
}
