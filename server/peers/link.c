#include "server/peers/link.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "kv/store.h"
#include "raft/crc32c.h"
#include "server/peers/hello.h"
#include "server/shed.h"

enum {
    LINK_MAGIC = 0x4c4e4b31,
    LINK_TYPE_HELLO = 1,
    LINK_TYPE_REFUSAL = 2,
    LINK_FRAME_HEADER_BYTES = 16,
    LINK_READ_BYTES = 64 * 1024,
    LINK_HELLO_BYTES_MAX = 1024,
    LINK_REFUSAL_BYTES_MAX = 512,         /* of its text */
    LINK_KEEP_BUFFER_BYTES = 1024 * 1024, /* larger ones are given back once they are empty */
    LINK_BACKLOG = 64,
};

enum link_state { LINK_IDLE, LINK_RESOLVING, LINK_CONNECTING, LINK_GREETING, LINK_UP };

struct link {
    unsigned magic;
    uv_loop_t *loop;
    const struct link_identity *self;
    const struct link_handlers *handlers;
    void *context;
    struct link_listener *listener; /* NULL: dialled */
    struct link *next, *previous;   /* in the listener's list */

    char host_name[256];
    char address[280];
    uint16_t port;

    enum link_state state;
    bool freed;       /* link_free was called: no more callbacks */
    bool socket_open; /* `socket` is initialised and not closed */
    bool socket_closing;
    bool failing;     /* link_fail is under way */
    int handles_open; /* uv handles and requests that still refer to this memory */
    uint32_t reconnect_ms;
    unsigned tries; /* which of a name's addresses is next */
    uv_tcp_t socket;
    uv_timer_t timer; /* hand-shake limit, or the next try */
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
    uv_write_t write;
    bool writing;
    bool protocol_byte_read;
    struct link_identity peer;
    struct buffer in;
    size_t in_at;          /* parsed up to here */
    struct buffer out;     /* queued */
    struct buffer sending; /* libuv's while `writing` */
};

struct link_listener {
    uv_tcp_t socket;
    uv_loop_t *loop;
    const struct link_identity *self;
    const struct link_handlers *handlers;
    struct shed *shed;
    struct link *links;
    size_t link_count;
};

static void link_try(struct link *link);
static void link_fail(struct link *link, const char *reason);

/* All links run on the loop's thread: the tables are made once. */
static uint32_t link_checksum(const void *data, size_t size)
{
    static struct crc32c tables;
    static bool ready;

    if (!ready) {
        crc32c_init(&tables);
        ready = true;
    }
    return crc32c_update(&tables, 0, data, size);
}

/* --- memory --- */

static struct link *link_from(void *data)
{
    struct link *link = data;

    assert(link->magic == LINK_MAGIC);
    return link;
}

static void link_unref(struct link *link)
{
    assert(link->handles_open > 0);
    link->handles_open--;
    if (link->handles_open > 0 || !link->freed) {
        return;
    }
    buffer_deinit(&link->in);
    buffer_deinit(&link->out);
    buffer_deinit(&link->sending);
    link->magic = 0;
    free(link);
}

static void link_on_handle_closed(uv_handle_t *handle)
{
    link_unref(link_from(handle->data));
}

static void link_on_socket_closed(uv_handle_t *handle)
{
    struct link *link = link_from(handle->data);

    link->socket_open = false;
    link->socket_closing = false;
    link_unref(link);
}

static struct link *link_new(uv_loop_t *loop, const struct link_identity *self,
                             const struct link_handlers *handlers)
{
    struct link *link = calloc(1, sizeof(*link));

    if (link == NULL) {
        return NULL;
    }
    link->magic = LINK_MAGIC;
    link->loop = loop;
    link->self = self;
    link->handlers = handlers;
    link->reconnect_ms = LINK_RECONNECT_MS_MIN;
    link->timer.data = link;
    uv_timer_init(loop, &link->timer);
    link->handles_open = 1;
    return link;
}

static void link_close_socket(struct link *link)
{
    if (link->socket_open && !link->socket_closing) {
        link->socket_closing = true;
        uv_close((uv_handle_t *)&link->socket, link_on_socket_closed);
    }
}

static void link_unlist(struct link *link)
{
    struct link_listener *listener = link->listener;

    if (listener == NULL) {
        return;
    }
    if (link->previous != NULL) {
        link->previous->next = link->next;
    } else {
        listener->links = link->next;
    }
    if (link->next != NULL) {
        link->next->previous = link->previous;
    }
    assert(listener->link_count > 0);
    listener->link_count--;
    link->listener = NULL;
}

void link_free(struct link *link)
{
    if (link == NULL || link->freed) {
        return;
    }
    assert(link->magic == LINK_MAGIC);
    link->freed = true;
    link_unlist(link);
    link_close_socket(link);
    if (link->state == LINK_RESOLVING) {
        (void)uv_cancel((uv_req_t *)&link->resolve); /* Its callback comes in any case. */
    }
    uv_close((uv_handle_t *)&link->timer, link_on_handle_closed);
}

/* --- frames out --- */

static void link_put_u32(char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (char)(value >> (8 * i));
    }
}

static bool link_queue(struct link *link, uint8_t type, struct slice payload)
{
    char *header;

    assert(payload.size <= LINK_FRAME_BYTES_MAX);
    if (link->out.size + link->sending.size > LINK_QUEUE_BYTES_MAX) {
        return false;
    }
    header = buffer_reserve(&link->out, LINK_FRAME_HEADER_BYTES + payload.size);
    if (header == NULL) {
        link->out.failed =
            false; /* The frame is lost as a whole; what was queued before is sound. */
        return false;
    }
    link_put_u32(header, (uint32_t)payload.size);
    header[4] = LINK_VERSION;
    header[5] = (char)type;
    header[6] = 0;
    header[7] = 0;
    link_put_u32(header + 8, link_checksum(payload.data, payload.size));
    link_put_u32(header + 12, link_checksum(header, 12));
    if (payload.size > 0) {
        memcpy(header + LINK_FRAME_HEADER_BYTES, payload.data, payload.size);
    }
    link->out.size += LINK_FRAME_HEADER_BYTES + payload.size;
    return true;
}

bool link_send(struct link *link, uint8_t type, struct slice payload)
{
    assert(type >= LINK_TYPE_FIRST);
    if (link->state != LINK_UP || link->freed) {
        return false;
    }
    return link_queue(link, type, payload);
}

static void link_trim_buffer(struct buffer *buffer)
{
    if (buffer->capacity > LINK_KEEP_BUFFER_BYTES) {
        buffer_deinit(buffer);
    } else {
        buffer_clear(buffer);
    }
}

static void link_on_written(uv_write_t *request, int status)
{
    struct link *link = link_from(request->data);

    link->writing = false;
    link_trim_buffer(&link->sending);
    if (!link->freed && status < 0 && status != UV_ECANCELED) {
        link_fail(link, uv_strerror(status));
    } else if (!link->freed && status == 0) {
        link_flush(link);
    }
    link_unref(link);
}

void link_flush(struct link *link)
{
    uv_buf_t part;
    int rc;

    if (link->freed || link->writing || link->out.size == 0 || link->state < LINK_GREETING) {
        return;
    }
    part = uv_buf_init(link->out.data, (unsigned)link->out.size);
    rc = uv_try_write((uv_stream_t *)&link->socket, &part, 1);
    if (rc >= 0 && (size_t)rc == link->out.size) {
        link_trim_buffer(&link->out);
        return;
    }
    if (rc < 0 && rc != UV_EAGAIN) {
        link_fail(link, uv_strerror(rc));
        return;
    }
    const size_t written = rc > 0 ? (size_t)rc : 0;
    const struct buffer spare = link->sending;

    link->sending = link->out;
    link->out = spare;
    part = uv_buf_init(link->sending.data + written, (unsigned)(link->sending.size - written));
    link->write.data = link;
    rc = uv_write(&link->write, (uv_stream_t *)&link->socket, &part, 1, link_on_written);
    if (rc < 0) {
        link_fail(link, uv_strerror(rc));
        return;
    }
    link->writing = true;
    link->handles_open++;
}

void link_endpoint(char *out, size_t out_bytes, const char *ip, uint16_t port)
{
    (void)snprintf(out, out_bytes, strchr(ip, ':') != NULL ? "[%s]:%u" : "%s:%u", ip, port);
}

/* --- hello --- */

static void link_send_hello(struct link *link)
{
    struct buffer hello = {0};

    hello_put(&hello, link->self);
    if (!hello.failed) {
        (void)link_queue(link, LINK_TYPE_HELLO,
                         buffer_slice(&hello)); /* Else the hand-shake times out. */
    }
    buffer_deinit(&hello);
    link_flush(link);
}

static void link_refused(struct link *link, const char *reason)
{
    if (link->handlers->on_refused != NULL) {
        link->handlers->on_refused(link->handlers->host, link, reason);
    }
    link_reject(link, reason);
}

/* Whether the other side is one of ours; if not, the link is refused. */
static bool link_check_peer(struct link *link)
{
    char reason[LINK_REFUSAL_BYTES_MAX + 1];

    if (hello_fits(link->self, &link->peer, reason, sizeof(reason))) {
        return true;
    }
    link_refused(link, reason);
    return false;
}

/* On a link that is up: the other side has learned of its cluster. */
static void link_on_hello_again(struct link *link, struct slice payload)
{
    struct link_identity peer;

    if (!hello_get(payload, &peer) || !uuid_equal(&peer.id, &link->peer.id)) {
        link_fail(link, "the other side sent a malformed hello");
        return;
    }
    link->peer.cluster_id = peer.cluster_id;
    (void)link_check_peer(link);
}

static void link_on_hello(struct link *link, struct slice payload)
{
    if (!hello_get(payload, &link->peer)) {
        link_fail(link, "the other side sent a malformed hello");
        return;
    }
    if (!link_check_peer(link)) {
        return;
    }
    if (link->listener != NULL) {
        link_send_hello(link);
        if (link->state != LINK_GREETING || link->freed) {
            return;
        }
    }
    (void)uv_timer_stop(&link->timer);
    link->state = LINK_UP;
    link->reconnect_ms = LINK_RECONNECT_MS_MIN;
    link->handlers->on_up(link->handlers->host, link, &link->peer);
}

/* --- frames in --- */

static uint32_t link_get_u32(const char *at)
{
    const uint8_t *bytes = (const uint8_t *)at;

    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static void link_on_refusal(struct link *link, struct slice payload)
{
    char reason[LINK_REFUSAL_BYTES_MAX + sizeof("refused: ")];

    (void)snprintf(reason, sizeof(reason), "refused: %.*s",
                   payload.size < LINK_REFUSAL_BYTES_MAX ? (int)payload.size
                                                         : LINK_REFUSAL_BYTES_MAX,
                   payload.data);
    link_refused(link, reason);
}

static void link_on_frame(struct link *link, uint8_t type, struct slice payload)
{
    if (type == LINK_TYPE_REFUSAL && link->listener == NULL) {
        link_on_refusal(link, payload);
    } else if (link->state == LINK_UP) {
        if (type >= LINK_TYPE_FIRST) {
            link->handlers->on_frame(link->handlers->host, link, type, payload);
        } else if (type == LINK_TYPE_HELLO) {
            link_on_hello_again(link, payload);
        }
    } else if (type == LINK_TYPE_HELLO) {
        link_on_hello(link, payload);
    } else {
        link_fail(link, "the other side did not begin with a hello");
    }
}

/* Takes one frame from `in`; false when there is none complete, or the link has failed. */
static bool link_parse_frame(struct link *link)
{
    const char *at = link->in.data + link->in_at;
    const size_t left = link->in.size - link->in_at;
    uint32_t size;

    if (left < LINK_FRAME_HEADER_BYTES) {
        return false;
    }
    size = link_get_u32(at);
    if (link_get_u32(at + 12) != link_checksum(at, 12) || (uint8_t)at[4] != LINK_VERSION ||
        size > (link->state == LINK_UP ? LINK_FRAME_BYTES_MAX : LINK_HELLO_BYTES_MAX)) {
        link_fail(link, "received a malformed frame");
        return false;
    }
    if (left - LINK_FRAME_HEADER_BYTES < size) {
        return false;
    }
    if (link_get_u32(at + 8) != link_checksum(at + LINK_FRAME_HEADER_BYTES, size)) {
        link_fail(link, "received a frame with a wrong checksum");
        return false;
    }
    link->in_at += LINK_FRAME_HEADER_BYTES + size;
    link_on_frame(link, (uint8_t)at[5], slice_from(at + LINK_FRAME_HEADER_BYTES, size));
    return link->state >= LINK_GREETING && !link->freed && !link->socket_closing;
}

static void link_parse(struct link *link)
{
    if (link->listener != NULL && !link->protocol_byte_read && link->in.size > 0) {
        if (link->in.data[0] != LINK_PROTOCOL_BYTE) {
            link_fail(link, "unknown protocol on the server port");
            return;
        }
        link->protocol_byte_read = true;
        link->in_at = 1;
    }
    while (link_parse_frame(link)) {
    }
    if (link->in_at > 0 && !link->socket_closing) {
        link->in.size -= link->in_at;
        memmove(link->in.data, link->in.data + link->in_at, link->in.size);
        link->in_at = 0;
        if (link->in.size == 0) {
            link_trim_buffer(&link->in);
        }
    }
}

static void link_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct link *link = link_from(handle->data);
    char *room = buffer_reserve(&link->in, LINK_READ_BYTES);

    (void)suggested;
    *out = uv_buf_init(room, room == NULL ? 0 : LINK_READ_BYTES);
}

static void link_on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct link *link = link_from(stream->data);

    (void)buffer;
    if (link->freed || link->socket_closing) {
        return;
    }
    if (count < 0) {
        link_fail(link, count == UV_EOF ? "closed by the other side" : uv_strerror((int)count));
        return;
    }
    link->in.size += (size_t)count;
    link_parse(link);
}

/* --- life --- */

static void link_on_timer(uv_timer_t *timer)
{
    struct link *link = link_from(timer->data);

    if (link->freed) {
        return;
    }
    if (link->state == LINK_IDLE) {
        link_try(link);
    } else {
        link_fail(link, "timed out");
    }
}

/* Ends the present connection. A dialled link tries again later, an incoming one is freed. */
static void link_fail(struct link *link, const char *reason)
{
    const bool was_up = link->state == LINK_UP;

    if (link->failing || link->freed || link->state == LINK_IDLE) {
        return;
    }
    link->failing = true;
    link->state = LINK_IDLE;
    link_close_socket(link);
    buffer_clear(&link->out);
    if (was_up) {
        link->handlers->on_down(link->handlers->host, link, reason);
    } else if (link->listener == NULL && link->handlers->on_failed != NULL) {
        link->handlers->on_failed(link->handlers->host, link, reason);
    }
    link->failing = false;
    if (link->freed) {
        return;
    }
    if (link->listener != NULL) {
        link_free(link);
        return;
    }
    (void)uv_timer_start(&link->timer, link_on_timer, link->reconnect_ms, 0);
    link->reconnect_ms = link->reconnect_ms * 2 > LINK_RECONNECT_MS_MAX ? LINK_RECONNECT_MS_MAX
                                                                        : link->reconnect_ms * 2;
}

/* The connection stands: read, and let the dialler speak first. */
static void link_greet(struct link *link)
{
    int fd;
    int rc;

    link->state = LINK_GREETING;
    link->in_at = 0;
    link->protocol_byte_read = false;
    buffer_clear(&link->in);
    buffer_clear(&link->out);
    (void)uv_tcp_nodelay(&link->socket, 1);
    if (uv_fileno((uv_handle_t *)&link->socket, &fd) == 0) {
        const unsigned limit_ms = LINK_UNACKNOWLEDGED_MS;
        const int interval_s = LINK_KEEPALIVE_S;

        /* Without it a peer that lost its power is noticed by TCP after a quarter of an hour. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
        (void)uv_tcp_keepalive(&link->socket, 1, LINK_KEEPALIVE_S);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    }
    rc = uv_read_start((uv_stream_t *)&link->socket, link_on_alloc, link_on_read);
    if (rc < 0) {
        link_fail(link, uv_strerror(rc));
        return;
    }
    (void)uv_timer_start(&link->timer, link_on_timer, LINK_HANDSHAKE_MS, 0);
    if (link->listener == NULL) {
        buffer_append_char(&link->out, LINK_PROTOCOL_BYTE);
        link_send_hello(link);
    }
}

static void link_on_connect(uv_connect_t *request, int status)
{
    struct link *link = link_from(request->data);

    if (!link->freed && link->state == LINK_CONNECTING && !link->socket_closing) {
        if (status < 0) {
            link_fail(link, uv_strerror(status));
        } else {
            link_greet(link);
        }
    }
    link_unref(link);
}

static void link_connect(struct link *link, const struct sockaddr *address)
{
    int rc;

    /* The last socket may still be closing; its memory is needed, so try a little later. */
    if (link->socket_open) {
        link->state = LINK_CONNECTING;
        link_fail(link, "the last connection is still closing");
        return;
    }
    link->state = LINK_CONNECTING;
    rc = uv_tcp_init(link->loop, &link->socket);
    if (rc < 0) {
        link_fail(link, uv_strerror(rc));
        return;
    }
    link->socket.data = link;
    link->socket_open = true;
    link->handles_open++;
    link->connect.data = link;
    (void)uv_timer_start(&link->timer, link_on_timer, LINK_HANDSHAKE_MS, 0);
    rc = uv_tcp_connect(&link->connect, &link->socket, address, link_on_connect);
    if (rc < 0) {
        link_fail(link, uv_strerror(rc));
        return;
    }
    link->handles_open++;
}

/* Another one with each try: a name can have addresses on which nobody listens ("localhost"). */
static const struct addrinfo *link_choose_address(struct link *link, const struct addrinfo *found)
{
    const struct addrinfo *it = found;
    unsigned count = 0;

    for (; it != NULL; it = it->ai_next) {
        count++;
    }
    it = found;
    for (unsigned i = link->tries++ % count; i > 0; i--) {
        it = it->ai_next;
    }
    return it;
}

static void link_on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct link *link = link_from(request->data);

    if (!link->freed && link->state == LINK_RESOLVING) {
        if (status < 0 || found == NULL) {
            link_fail(link, status < 0 ? uv_strerror(status) : "name has no address");
        } else {
            link_connect(link, link_choose_address(link, found)->ai_addr);
        }
    }
    uv_freeaddrinfo(found);
    link_unref(link);
}

static void link_try(struct link *link)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    char port_text[8];
    int rc;

    assert(link->listener == NULL);
    assert(link->state == LINK_IDLE);
    if (uv_ip4_addr(link->host_name, link->port, &v4) == 0) {
        link_connect(link, (const struct sockaddr *)&v4);
        return;
    }
    if (uv_ip6_addr(link->host_name, link->port, &v6) == 0) {
        link_connect(link, (const struct sockaddr *)&v6);
        return;
    }
    (void)snprintf(port_text, sizeof(port_text), "%u", link->port);
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    link->state = LINK_RESOLVING;
    link->resolve.data = link;
    rc = uv_getaddrinfo(link->loop, &link->resolve, link_on_resolved, link->host_name, port_text,
                        &hints);
    if (rc < 0) {
        link_fail(link, uv_strerror(rc));
        return;
    }
    link->handles_open++;
}

/* "host", "host:port", "[v6]:port", or a bare IPv6 address. */
static bool link_split_address(const char *text, uint16_t default_port, char *host,
                               size_t host_bytes, uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    size_t size = strlen(text);
    unsigned long number = default_port;

    if (text[0] == '[') {
        const char *bracket = strchr(text, ']');

        if (bracket == NULL || (bracket[1] != 0 && bracket[1] != ':')) {
            return false;
        }
        colon = bracket[1] == ':' ? bracket + 1 : NULL;
        text++;
        size = (size_t)(bracket - text);
    } else if (colon != NULL && strchr(text, ':') != colon) {
        colon = NULL; /* several: a bare IPv6 address */
    } else if (colon != NULL) {
        size = (size_t)(colon - text);
    }
    if (colon != NULL) {
        char *end;

        number = strtoul(colon + 1, &end, 10);
        if (end == colon + 1 || *end != 0 || number == 0 || number > 65535) {
            return false;
        }
    }
    if (size == 0 || size >= host_bytes) {
        return false;
    }
    memcpy(host, text, size);
    host[size] = 0;
    *port = (uint16_t)number;
    return true;
}

int link_dial(uv_loop_t *loop, const char *address, uint16_t default_port,
              const struct link_identity *self, const struct link_handlers *handlers,
              struct link **out, struct errmsg *err)
{
    struct link *link = link_new(loop, self, handlers);

    if (link == NULL) {
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    if (!link_split_address(address, default_port, link->host_name, sizeof(link->host_name),
                            &link->port)) {
        link_free(link);
        return errmsg_set(err, STORE_EIO, "'%s' is not an address (host or host:port)", address);
    }
    link_endpoint(link->address, sizeof(link->address), link->host_name, link->port);
    /* From the timer, so that no handler runs inside this call. */
    (void)uv_timer_start(&link->timer, link_on_timer, 0, 0);
    *out = link;
    return 0;
}

void link_reject(struct link *link, const char *reason)
{
    if (link->listener != NULL) {
        (void)link_queue(link, LINK_TYPE_REFUSAL, slice_from_text(reason));
        link_flush(link);
    }
    link->reconnect_ms = LINK_RECONNECT_MS_MAX;
    link_fail(link, reason);
}

void link_identity_changed(struct link *link)
{
    if (link->freed || link->state < LINK_GREETING ||
        (link->state == LINK_GREETING && link->listener != NULL)) {
        return; /* No hello was sent yet. */
    }
    link_send_hello(link); /* Before it may end, so that both sides can tell why. */
    if (link_is_up(link)) {
        (void)link_check_peer(link);
    }
}

bool link_is_up(const struct link *link)
{
    return link->state == LINK_UP && !link->freed;
}

const struct link_identity *link_peer(const struct link *link)
{
    return &link->peer;
}

const char *link_address(const struct link *link)
{
    return link->address;
}

void link_set_context(struct link *link, void *context)
{
    link->context = context;
}

void *link_context(const struct link *link)
{
    return link->context;
}

/* --- listening --- */

static void link_on_incoming(uv_stream_t *stream, int status)
{
    struct link_listener *listener = stream->data;
    struct link *link;

    if (status < 0) {
        return; /* libuv accepts again with the next connection. */
    }
    link = link_new(listener->loop, listener->self, listener->handlers);
    if (link == NULL) {
        shed_accept(listener->shed); /* It dials again. */
        return;
    }
    if (uv_tcp_init(listener->loop, &link->socket) < 0) {
        link_free(link);
        shed_accept(listener->shed);
        return;
    }
    link->socket.data = link;
    link->socket_open = true;
    link->handles_open++;
    link->listener = listener;
    link->next = listener->links;
    if (listener->links != NULL) {
        listener->links->previous = link;
    }
    listener->links = link;
    listener->link_count++;
    link->state = LINK_CONNECTING;
    if (uv_accept(stream, (uv_stream_t *)&link->socket) < 0 ||
        listener->link_count > LINK_INCOMING_MAX) {
        link_free(link);
        return;
    }
    struct sockaddr_storage peer;
    int size = sizeof(peer);

    if (uv_tcp_getpeername(&link->socket, (struct sockaddr *)&peer, &size) == 0) {
        (void)uv_ip_name((const struct sockaddr *)&peer, link->address, sizeof(link->address));
    }
    link_greet(link);
}

static void link_on_listener_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int link_listen(uv_loop_t *loop, const char *ip, uint16_t port, const struct link_identity *self,
                const struct link_handlers *handlers, struct link_listener **out,
                struct errmsg *err)
{
    struct link_listener *listener = calloc(1, sizeof(*listener));
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    const struct sockaddr *address = (const struct sockaddr *)&v4;
    int rc;

    if (listener == NULL) {
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    listener->loop = loop;
    listener->self = self;
    listener->handlers = handlers;
    rc = uv_ip4_addr(ip, port, &v4);
    if (rc < 0) {
        rc = uv_ip6_addr(ip, port, &v6);
        address = (const struct sockaddr *)&v6;
    }
    if (rc < 0) {
        free(listener);
        return errmsg_set(err, STORE_EIO, "'%s' is not an IP address to listen on", ip);
    }
    listener->shed = shed_new((uv_stream_t *)&listener->socket);
    if (listener->shed == NULL) {
        free(listener);
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    rc = uv_tcp_init(loop, &listener->socket);
    listener->socket.data = listener;
    if (rc < 0) {
        shed_free(listener->shed);
        free(listener);
        return errmsg_set(err, STORE_EIO, "cannot make a socket: %s", uv_strerror(rc));
    }
    rc = uv_tcp_bind(&listener->socket, address, 0);
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)&listener->socket, LINK_BACKLOG, link_on_incoming);
    }
    if (rc < 0) {
        shed_free(listener->shed);
        uv_close((uv_handle_t *)&listener->socket, link_on_listener_closed);
        return errmsg_set(err, STORE_EIO, "cannot listen on %s:%u: %s", ip, port, uv_strerror(rc));
    }
    *out = listener;
    return 0;
}

void link_listener_identity_changed(struct link_listener *listener)
{
    struct link *next;

    for (struct link *link = listener->links; link != NULL; link = next) {
        next = link->next; /* It may end, and then leaves the list. */
        link_identity_changed(link);
    }
}

void link_listener_free(struct link_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    while (listener->links != NULL) {
        link_free(listener->links);
    }
    shed_free(listener->shed);
    uv_close((uv_handle_t *)&listener->socket, link_on_listener_closed);
}
