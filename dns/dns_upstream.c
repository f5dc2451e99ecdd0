/* One question to one recursor, through c-ares: sockets, queues, frames of TCP, truncation and
 * time.
 *
 * Which code of an answer ends the search is our business (dns_forward.c), so a channel is given
 * one server, one try, and passes every code (ARES_FLAG_NOCHECKRESP). As releases before 1.20 keep
 * one UDP socket per server and channel, each question has a channel of its own while it waits,
 * hence a source port of its own (RFC 5452); an idle channel has no socket and is used again,
 * because one is 75 KB. Every option that c-ares would look up elsewhere is set, so that it reads
 * neither /etc/resolv.conf nor the environment.
 *
 * Our socket functions see each datagram first: what does not answer the question never reaches
 * c-ares, a failing code ends the attempt at once (c-ares would repeat a question that got FORMERR
 * without its last eleven bytes, taking them for EDNS), and the whole datagram is kept, of which
 * c-ares takes 4096 bytes.
 */

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "dns/dns_server_internal.h"

enum {
    RCODE_MASK = 0xf,
    SOCKETS_MAX = 2, /* of a channel: UDP, and TCP after truncation */
    /* Up to this questions stay on UDP, and so much of a datagram c-ares takes. */
    CHANNEL_UDP_BYTES = 4096,
    /* c-ares goes through every second since a channel was used last: an old one is made anew. */
    CHANNEL_IDLE_MS_MAX = 600000,
};

static_assert((int)DNS_UDP_QUERY_BYTES_MAX <= CHANNEL_UDP_BYTES,
              "no question leaves its transport");

/* --- answers --- */

enum match { MATCH_NOT, MATCH_FAILURE, MATCH_ANSWER };

/* Whether the message answers what was asked; then `question_end` is set. */
static enum match upstream_match(struct dns_upstream *upstream, const uint8_t *message, size_t size)
{
    const bool chase = upstream->kind == DNS_UPSTREAM_CHASE;
    struct dns_reader reader = dns_reader_from(message, size);
    struct dns_reader asked = dns_reader_from(upstream->question, upstream->question_size);
    struct dns_name_text name, asked_name;
    const uint16_t id = dns_reader_u16(&reader);
    const uint16_t flags = dns_reader_u16(&reader);
    const uint16_t question_count = dns_reader_u16(&reader);
    const unsigned rcode = flags & RCODE_MASK;
    const bool failure = !chase && rcode != DNS_NOERROR && rcode != DNS_NXDOMAIN;

    (void)dns_reader_bytes(&reader, 6);
    if (reader.failed || id != upstream->id || (flags & DNS_FLAG_QR) == 0) {
        return MATCH_NOT;
    }
    if (question_count != 1) { /* Old servers leave it out when they fail. */
        return question_count == 0 && failure ? MATCH_FAILURE : MATCH_NOT;
    }
    (void)dns_reader_bytes(&asked, DNS_HEADER_BYTES);
    dns_reader_name(&reader, &name);
    dns_reader_name(&asked, &asked_name);
    if (!slice_equal_nocase(slice_from((const char *)name.wire, name.size),
                            slice_from((const char *)asked_name.wire, asked_name.size))) {
        return MATCH_NOT;
    }
    const uint32_t kind = dns_reader_u32(&reader); /* type and class */

    if (reader.failed ||
        (!asked.failed && dns_reader_left(&asked) >= 4 && kind != dns_reader_u32(&asked))) {
        return MATCH_NOT;
    }
    upstream->question_end = (size_t)(reader.at - message);
    return failure ? MATCH_FAILURE : MATCH_ANSWER;
}

static uint8_t *upstream_message(const struct dns_upstream *upstream)
{
    return upstream->worker->tcp_out + DNS_FRAME_BYTES;
}

/* c-ares is done with the question; called from within it, so the channel must stay. */
static void upstream_on_end(void *context, int status, int timeouts, unsigned char *message,
                            int size)
{
    struct dns_upstream *upstream = context;

    (void)timeouts;
    if (upstream->state != DNS_UPSTREAM_WAITING) {
        return; /* We have ended it ourselves. */
    }
    upstream->state = DNS_UPSTREAM_FAILED;
    if (status != ARES_SUCCESS) {
        return;
    }
    if (upstream->received == 0) { /* It came over TCP. */
        assert(size > 0 && size <= DNS_MESSAGE_BYTES_MAX);
        if (upstream_match(upstream, message, (size_t)size) != MATCH_ANSWER) {
            return;
        }
        upstream->received = (size_t)size;
        memcpy(upstream_message(upstream), message, upstream->received);
    }
    upstream->state = DNS_UPSTREAM_ANSWERED;
}

/* --- sockets, as c-ares wants them --- */

static ares_socket_t upstream_socket(int family, int type, int protocol, void *context)
{
    struct dns_upstream *upstream = context;
    const int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);

    if (type == SOCK_DGRAM) {
        upstream->udp_fd = fd;
    }
    return fd;
}

static int upstream_close_socket(ares_socket_t fd, void *context)
{
    struct dns_upstream *upstream = context;

    if (fd == upstream->udp_fd) { /* The next stream may have its number. */
        upstream->udp_fd = -1;
    }
    return close(fd); /* Leaves epoll, too. */
}

static int upstream_connect(ares_socket_t fd, const struct sockaddr *address, ares_socklen_t size,
                            void *context)
{
    (void)context;
    return connect(fd, address, size);
}

static ares_ssize_t upstream_send(ares_socket_t fd, const struct iovec *vectors, int count,
                                  void *context)
{
    struct iovec copies[1]; /* One question, one piece; what is left is sent when there is room. */
    const struct msghdr message = {.msg_iov = copies, .msg_iovlen = 1};

    (void)context;
    assert(count >= 1);
    copies[0] = vectors[0];
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static ares_ssize_t upstream_receive(ares_socket_t fd, void *data, size_t size, int flags,
                                     struct sockaddr *from, ares_socklen_t *from_size,
                                     void *context)
{
    struct dns_upstream *upstream = context;

    if (fd != upstream->udp_fd) {
        const ssize_t got = recv(fd, data, size, flags);

        upstream->more = got == (ssize_t)size;
        return got;
    }
    if (upstream->received > 0) { /* One in a turn, whatever the recursor sends. */
        errno = EAGAIN;
        return -1;
    }
    uint8_t *message = upstream_message(upstream);
    const ssize_t rc = recvfrom(fd, message, DNS_MESSAGE_BYTES_MAX, flags, from, from_size);

    if (rc < 0) {
        return -1;
    }
    switch (upstream_match(upstream, message, (size_t)rc)) {
    case MATCH_NOT: /* It may be somebody's guess: the wait goes on. */
        errno = EAGAIN;
        return -1;
    case MATCH_FAILURE:
        errno = ECONNREFUSED; /* c-ares gives the server up. */
        return -1;
    case MATCH_ANSWER:
        break;
    }
    upstream->received = (size_t)rc;
    memcpy(data, message, upstream->received < size ? upstream->received : size);
    return upstream->received < size ? rc : (ares_ssize_t)size;
}

static const struct ares_socket_functions socket_functions = {
    .asocket = upstream_socket,
    .aclose = upstream_close_socket,
    .aconnect = upstream_connect,
    .arecvfrom = upstream_receive,
    .asendv = upstream_send,
};

/* A stream is opened to be written to, of which c-ares tells a moment later; until it is written,
 * nothing is read. */
static void upstream_on_socket(void *context, ares_socket_t fd, int readable, int writable)
{
    struct dns_upstream *upstream = context;
    const bool added = fd != upstream->watched_fd;
    struct epoll_event event = {.data.ptr = &upstream->source};

    if (!readable && !writable) {
        upstream->watched_fd = -1;
        return;
    }
    event.events = writable || (added && fd != upstream->udp_fd) ? EPOLLOUT : EPOLLIN;
    if (!added && event.events == upstream->watched_events) {
        return;
    }
    upstream->watched_fd = fd;
    upstream->watched_events = event.events;
    if (epoll_ctl(upstream->worker->epoll_fd, added ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) !=
        0) {
        upstream->unwatched = true;
    }
}

/* --- channels --- */

static int channel_flags(enum dns_upstream_kind kind)
{
    const int flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP;

    switch (kind) {
    case DNS_UPSTREAM_UDP:
        /* Truncated answers are passed on. EDNS says only that more than 512 bytes are no
         * truncation; questions are sent as they are. */
        return flags | ARES_FLAG_IGNTC | ARES_FLAG_EDNS;
    case DNS_UPSTREAM_TCP:
        return flags | ARES_FLAG_USEVC;
    case DNS_UPSTREAM_CHASE:
    case DNS_UPSTREAM_KINDS:
        break;
    }
    return flags; /* UDP, then TCP */
}

/* Makes the upstream's channel one of this kind, if it is not. */
static bool channel_open(struct dns_upstream *upstream, enum dns_upstream_kind kind)
{
    char lookups[] = "b";
    const uint32_t timeout_ms = upstream->worker->zone->config.recursor_timeout_ms;
    struct ares_options options = {
        .flags = channel_flags(kind),
        .timeout = timeout_ms < INT_MAX ? (int)timeout_ms : INT_MAX,
        .tries = 1,
        .ndots = 1,
        .lookups = lookups,
        .ednspsz = CHANNEL_UDP_BYTES,
        .sock_state_cb = upstream_on_socket,
        .sock_state_cb_data = upstream,
    };
    const int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
                     ARES_OPT_SERVERS | ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS | ARES_OPT_SORTLIST |
                     ARES_OPT_NOROTATE | ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB;

    const uint64_t idle_ms = upstream->worker->now_ms - upstream->asked_ms;

    upstream->asked_ms = upstream->worker->now_ms;
    if (upstream->kind == kind && upstream->timeout_ms == timeout_ms &&
        idle_ms <= CHANNEL_IDLE_MS_MAX) {
        return true;
    }
    dns_upstream_close(upstream);
    if (ares_init_options(&upstream->channel, &options, mask) != ARES_SUCCESS) {
        return false;
    }
    ares_set_socket_functions(upstream->channel, &socket_functions, upstream);
    upstream->kind = kind;
    upstream->timeout_ms = timeout_ms;
    return true;
}

static bool channel_set_server(const struct dns_upstream *upstream,
                               const struct dns_recursor *recursor)
{
    struct ares_addr_port_node node = {.family = recursor->address.ss_family};

    if (node.family == AF_INET6) {
        struct sockaddr_in6 v6;

        memcpy(&v6, &recursor->address, sizeof(v6));
        memcpy(&node.addr.addr6, &v6.sin6_addr, sizeof(node.addr.addr6));
        node.udp_port = node.tcp_port = ntohs(v6.sin6_port);
    } else {
        struct sockaddr_in v4;

        memcpy(&v4, &recursor->address, sizeof(v4));
        node.addr.addr4 = v4.sin_addr;
        node.udp_port = node.tcp_port = ntohs(v4.sin_port);
    }
    return ares_set_servers_ports(upstream->channel, &node) == ARES_SUCCESS;
}

void dns_upstream_init(struct dns_upstream *upstream)
{
    *upstream = (struct dns_upstream){
        .source = {DNS_SOURCE_MAGIC, DNS_SOURCE_FORWARD, -1},
        .kind = DNS_UPSTREAM_KINDS,
        .udp_fd = -1,
        .watched_fd = -1,
    };
}

void dns_upstream_close(struct dns_upstream *upstream)
{
    dns_upstream_stop(upstream);
    if (upstream->kind != DNS_UPSTREAM_KINDS) {
        ares_destroy(upstream->channel);
        upstream->channel = NULL;
        upstream->kind = DNS_UPSTREAM_KINDS;
    }
}

/* --- attempts --- */

void dns_upstream_stop(struct dns_upstream *upstream)
{
    if (upstream->state == DNS_UPSTREAM_WAITING) {
        upstream->state = DNS_UPSTREAM_IDLE;
        ares_cancel(upstream->channel); /* Closes the sockets. */
    }
    upstream->state = DNS_UPSTREAM_IDLE;
    free(upstream->cut);
    upstream->cut = NULL;
}

/* An attempt whose socket nobody watches has failed. */
static void upstream_check_watch(struct dns_upstream *upstream)
{
    if (upstream->unwatched && upstream->state == DNS_UPSTREAM_WAITING) {
        upstream->state = DNS_UPSTREAM_FAILED;
        ares_cancel(upstream->channel);
    }
}

bool dns_upstream_ask(struct dns_worker *worker, struct dns_upstream *upstream,
                      enum dns_upstream_kind kind, const struct dns_recursor *recursor,
                      const uint8_t *question, size_t size)
{
    uint8_t message[DNS_UDP_QUERY_BYTES_MAX];

    assert(upstream->state == DNS_UPSTREAM_IDLE);
    assert(size >= DNS_HEADER_BYTES && size <= sizeof(message));
    upstream->worker = worker;
    upstream->question = question;
    upstream->question_size = size;
    upstream->received = 0;
    upstream->unwatched = false;
    if (!channel_open(upstream, kind) || !channel_set_server(upstream, recursor) ||
        getrandom(&upstream->id, sizeof(upstream->id), GRND_NONBLOCK) !=
            (ssize_t)sizeof(upstream->id)) {
        return false;
    }
    memcpy(message, question, size);
    message[0] = (uint8_t)(upstream->id >> 8);
    message[1] = (uint8_t)upstream->id;
    upstream->state = DNS_UPSTREAM_WAITING;
    ares_send(upstream->channel, message, (int)size, upstream_on_end, upstream);
    upstream_check_watch(upstream);
    if (upstream->state != DNS_UPSTREAM_WAITING) {
        upstream->state = DNS_UPSTREAM_IDLE;
        return false;
    }
    return true;
}

/* Keeps a cut answer for when TCP brings none. */
static void upstream_keep_cut(struct dns_upstream *upstream)
{
    free(upstream->cut);
    upstream->cut = malloc(upstream->received);
    upstream->cut_size = upstream->cut != NULL ? upstream->received : 0;
    if (upstream->cut != NULL) {
        memcpy(upstream->cut, upstream_message(upstream), upstream->cut_size);
    }
}

static void upstream_process(struct dns_upstream *upstream, ares_socket_t readable,
                             ares_socket_t writable)
{
    upstream->received = 0;
    upstream->more = false;
    ares_process_fd(upstream->channel, readable, writable);
    upstream_check_watch(upstream);
    if (upstream->state == DNS_UPSTREAM_WAITING && upstream->received > 0) {
        if (upstream->kind == DNS_UPSTREAM_CHASE) {
            upstream_keep_cut(upstream);
            return;
        }
        /* We take what c-ares does not: its question ends before its class, as the client's. */
        upstream->state = DNS_UPSTREAM_ANSWERED;
        ares_cancel(upstream->channel);
    }
    if (upstream->state == DNS_UPSTREAM_FAILED && upstream->cut != NULL) {
        upstream->received = upstream->cut_size;
        memcpy(upstream_message(upstream), upstream->cut, upstream->received);
        upstream->state = DNS_UPSTREAM_ANSWERED;
    }
}

enum dns_upstream_state dns_upstream_serve(struct dns_upstream *upstream)
{
    ares_socket_t sockets[SOCKETS_MAX];

    assert(upstream->state == DNS_UPSTREAM_WAITING);
    const int bits = ares_getsock(upstream->channel, sockets, SOCKETS_MAX);

    /* Whether they are ready is left to the sockets themselves: they do not block. */
    for (int i = 0; i < SOCKETS_MAX && upstream->state == DNS_UPSTREAM_WAITING; i++) {
        if (ARES_GETSOCK_WRITABLE(bits, i)) {
            upstream_process(upstream, ARES_SOCKET_BAD, sockets[i]);
        } else if (ARES_GETSOCK_READABLE(bits, i)) {
            upstream_process(upstream, sockets[i], ARES_SOCKET_BAD);
            if (upstream->more && upstream->state == DNS_UPSTREAM_WAITING) {
                upstream_process(upstream, sockets[i], ARES_SOCKET_BAD); /* behind the length */
            }
        }
    }
    return upstream->state;
}

enum dns_upstream_state dns_upstream_expire(struct dns_upstream *upstream)
{
    assert(upstream->state == DNS_UPSTREAM_WAITING);
    upstream_process(upstream, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    return upstream->state;
}

uint64_t dns_upstream_deadline_ms(const struct dns_upstream *upstream)
{
    struct timeval left = {0};

    assert(upstream->state == DNS_UPSTREAM_WAITING);
    (void)ares_timeout(upstream->channel, NULL, &left);
    return upstream->worker->now_ms + (uint64_t)left.tv_sec * 1000 + (uint64_t)left.tv_usec / 1000 +
           1; /* It is cut to whole milliseconds. */
}
