/* TCP: many queries on one connection, each behind its length (RFC 7766). A client that sends
 * slowly or takes its answers slowly costs its own connection: what it does not take is kept once,
 * and until it is gone nothing more is read from that client. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dns/dns_server_internal.h"

static void conn_unlink(struct dns_worker *worker, struct dns_conn *conn)
{
    if (conn->older != NULL) {
        conn->older->newer = conn->newer;
    } else {
        worker->oldest = conn->newer;
    }
    if (conn->newer != NULL) {
        conn->newer->older = conn->older;
    } else {
        worker->newest = conn->older;
    }
}

static void conn_link_newest(struct dns_worker *worker, struct dns_conn *conn)
{
    conn->progress_ms = worker->now_ms;
    conn->newer = NULL;
    conn->older = worker->newest;
    if (worker->newest != NULL) {
        worker->newest->newer = conn;
    } else {
        worker->oldest = conn;
    }
    worker->newest = conn;
}

static void conn_progress(struct dns_worker *worker, struct dns_conn *conn)
{
    conn_unlink(worker, conn);
    conn_link_newest(worker, conn);
}

static void count_open(struct dns_worker *worker)
{
    atomic_store_explicit(&worker->counts[DNS_COUNT_OPEN], worker->conn_count,
                          memory_order_relaxed);
}

static void conn_close(struct dns_worker *worker, struct dns_conn *conn)
{
    assert(conn->source.magic == DNS_SOURCE_MAGIC);
    assert(worker->conn_count > 0);
    if (conn->waiting_count > 0) {
        dns_forward_drop(worker, conn);
        dns_confirm_drop(worker, conn);
    }
    assert(conn->waiting_count == 0);
    conn_unlink(worker, conn);
    worker->conn_count--;
    count_open(worker);
    (void)close(conn->source.fd); /* Leaves epoll, too; there is nothing to do about errors. */
    conn->source.magic = 0;
    free(conn->out);
    free(conn);
}

static size_t client_conns(const struct dns_worker *worker, const struct in6_addr *client)
{
    size_t count = 0;

    for (const struct dns_conn *conn = worker->oldest; conn != NULL; conn = conn->newer) {
        count += memcmp(&conn->client, client, sizeof(*client)) == 0;
    }
    return count;
}

/* For being idle, or for want of room. */
static void conn_drop(struct dns_worker *worker, struct dns_conn *conn)
{
    dns_worker_count(worker, DNS_COUNT_CONNECTIONS_DROPPED);
    conn_close(worker, conn);
}

/* False when the connection is not wanted; the caller closes `fd` then. */
static bool conn_add(struct dns_worker *worker, int fd, const struct sockaddr_storage *peer)
{
    const struct in6_addr client = dns_client_address(peer);
    const int on = 1;

    if (client_conns(worker, &client) >= DNS_TCP_CONNS_PER_CLIENT) {
        return false;
    }
    if (worker->conn_count >= DNS_TCP_CONNS_MAX) {
        conn_drop(worker, worker->oldest);
    }
    struct dns_conn *conn = malloc(sizeof(*conn));

    if (conn == NULL) {
        return false;
    }
    conn->source = (struct dns_source){DNS_SOURCE_MAGIC, DNS_SOURCE_CONN, fd};
    conn->client = client;
    conn->waiting_count = 0;
    conn->in_over = false;
    conn->in_size = 0;
    conn->out = NULL;
    conn->out_size = conn->out_at = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &conn->source};

    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        free(conn);
        return false;
    }
    /* Only a matter of delay: answers are gathered before they are written. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    conn_link_newest(worker, conn);
    worker->conn_count++;
    count_open(worker);
    dns_worker_count(worker, DNS_COUNT_CONNECTIONS);
    return true;
}

int dns_spare_open(const struct dns_worker *worker)
{
    return fcntl(worker->wake.fd, F_DUPFD_CLOEXEC, 0);
}

/* Makes room when there is no descriptor for a client that waits: else the listener would spin for
 * ever. Without a connection to give up, the client is taken with the spare one, and let go. */
static void accept_without_room(struct dns_worker *worker, int listener)
{
    if (worker->oldest != NULL) {
        conn_drop(worker, worker->oldest);
        return;
    }
    if (worker->spare_fd >= 0) {
        (void)close(worker->spare_fd);
    }
    const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0) {
        dns_worker_count(worker, DNS_COUNT_CONNECTIONS_REFUSED);
        (void)close(fd);
    }
    worker->spare_fd = dns_spare_open(worker); /* Somebody may have been faster: then later. */
}

void dns_tcp_accept(struct dns_worker *worker, int listener)
{
    for (unsigned i = 0; i < DNS_TCP_ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t size = sizeof(peer);
        const int fd =
            accept4(listener, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                accept_without_room(worker, listener);
                continue;
            }
            return;
        }
        if (!conn_add(worker, fd, &peer)) {
            dns_worker_count(worker, DNS_COUNT_CONNECTIONS_REFUSED);
            (void)close(fd);
        }
    }
}

/* Waits for room to write if there is something to be written, else for queries, if any may come;
 * never for both. False on failure. */
static bool conn_wait(struct dns_worker *worker, struct dns_conn *conn)
{
    const uint32_t reading = conn->in_over ? 0 : EPOLLIN;
    struct epoll_event event = {.events = conn->out != NULL ? EPOLLOUT : reading,
                                .data.ptr = &conn->source};

    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_MOD, conn->source.fd, &event) == 0;
}

/* Writes as much as the client takes; returns the bytes, or -1 when it is gone. */
static ssize_t conn_send(struct dns_conn *conn, const uint8_t *data, size_t size)
{
    size_t at = 0;

    while (at < size) {
        const ssize_t rc = send(conn->source.fd, data + at, size - at, MSG_NOSIGNAL);

        if (rc > 0) {
            at += (size_t)rc;
        } else if (rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        } else if (rc == 0 || errno != EINTR) {
            return -1;
        }
    }
    return (ssize_t)at;
}

/* Writes answers, keeps what is not taken. False when the connection must be closed. */
static bool conn_write(struct dns_worker *worker, struct dns_conn *conn, const uint8_t *data,
                       size_t size)
{
    assert(conn->out == NULL);
    if (size == 0) {
        return true;
    }
    const ssize_t sent = conn_send(conn, data, size);

    if (sent < 0) {
        return false;
    }
    if ((size_t)sent == size) {
        return true;
    }
    conn->out_size = size - (size_t)sent;
    conn->out_at = 0;
    conn->out = malloc(conn->out_size);
    if (conn->out == NULL) {
        return false;
    }
    memcpy(conn->out, data + sent, conn->out_size);
    return conn_wait(worker, conn);
}

/* Answers the whole queries that have come. False when the connection must be closed. */
static bool conn_answer(struct dns_worker *worker, struct dns_conn *conn)
{
    size_t at = 0;
    size_t out_size = 0;
    bool good = true;

    while (good && conn->out == NULL && conn->in_size - at >= 2) {
        const size_t size = (size_t)((conn->in[at] << 8) | conn->in[at + 1]);
        uint8_t *out = worker->tcp_out + out_size;

        if (size > DNS_TCP_QUERY_BYTES_MAX) {
            good = false; /* One question never takes so much. */
            break;
        }
        if (conn->in_size - at - 2 < size) {
            break;
        }
        const size_t answer_size =
            dns_worker_answer(worker, &(struct dns_asker){.conn = conn}, conn->in + at + 2, size,
                              out + 2, DNS_MESSAGE_BYTES_MAX);

        at += 2 + size;
        if (answer_size == 0) {
            good = size >= DNS_HEADER_BYTES; /* What is no message ends the connection. */
            continue;
        }
        dns_worker_count_answer(worker, out + 2);
        out[0] = (uint8_t)(answer_size >> 8);
        out[1] = (uint8_t)answer_size;
        out_size += 2 + answer_size;
        if (DNS_TCP_OUT_BYTES - out_size < 2 + DNS_MESSAGE_BYTES_MAX) {
            good = conn_write(worker, conn, worker->tcp_out, out_size);
            out_size = 0;
        }
    }
    if (at > 0) {
        conn->in_size -= at;
        memmove(conn->in, conn->in + at, conn->in_size);
        conn_progress(worker, conn);
    }
    if (conn->out == NULL && !conn_write(worker, conn, worker->tcp_out, out_size)) {
        return false;
    }
    return good;
}

static bool conn_read(struct dns_worker *worker, struct dns_conn *conn)
{
    assert(conn->out == NULL);
    assert(conn->in_size < sizeof(conn->in));
    const ssize_t rc =
        recv(conn->source.fd, conn->in + conn->in_size, sizeof(conn->in) - conn->in_size, 0);

    if (rc < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    }
    if (rc == 0) { /* It may have closed only its half, to wait for what recursors say. */
        conn->in_over = true;
        return conn->waiting_count > 0 && conn_wait(worker, conn);
    }
    conn->in_size += (size_t)rc;
    dns_worker_renew(worker);
    return conn_answer(worker, conn);
}

static bool conn_flush(struct dns_worker *worker, struct dns_conn *conn)
{
    const ssize_t sent = conn_send(conn, conn->out + conn->out_at, conn->out_size - conn->out_at);

    if (sent < 0) {
        return false;
    }
    if (sent > 0) {
        conn_progress(worker, conn);
    }
    conn->out_at += (size_t)sent;
    if (conn->out_at < conn->out_size) {
        return true;
    }
    free(conn->out);
    conn->out = NULL;
    if (!conn_wait(worker, conn)) {
        return false;
    }
    dns_worker_renew(worker);
    return conn_answer(worker, conn) && /* Queries that had to wait for the room. */
           (!conn->in_over || conn->waiting_count > 0 || conn->out != NULL);
}

/* False when the connection must be closed. */
static bool conn_deliver(struct dns_worker *worker, struct dns_conn *conn, const uint8_t *framed,
                         size_t size)
{
    conn_progress(worker, conn);
    if (conn->out == NULL) {
        return conn_write(worker, conn, framed, size) &&
               (!conn->in_over || conn->waiting_count > 0 || conn->out != NULL);
    }
    if (conn->out_size - conn->out_at + size > DNS_TCP_OUT_BYTES) {
        return false; /* It asks and asks, and takes nothing. */
    }
    uint8_t *out = realloc(conn->out, conn->out_size + size);

    if (out == NULL) {
        return false;
    }
    memcpy(out + conn->out_size, framed, size);
    conn->out = out;
    conn->out_size += size;
    return true;
}

void dns_tcp_deliver(struct dns_worker *worker, struct dns_conn *conn, const uint8_t *framed,
                     size_t size)
{
    if (!conn_deliver(worker, conn, framed, size)) {
        conn_close(worker, conn);
    }
}

void dns_tcp_serve(struct dns_worker *worker, struct dns_conn *conn, uint32_t events)
{
    bool good = (events & EPOLLERR) == 0;

    if (good && conn->out != NULL) {
        good = conn_flush(worker, conn);
    } else if (good) {
        good = !conn->in_over && conn_read(worker, conn); /* Else only the end is told here. */
    }
    if (!good) {
        conn_close(worker, conn);
    }
}

int dns_tcp_expire(struct dns_worker *worker)
{
    while (worker->oldest != NULL &&
           worker->now_ms - worker->oldest->progress_ms >= worker->server->tcp_idle_ms) {
        struct dns_conn *conn = worker->oldest;

        assert(conn->older == NULL);
        if (conn->waiting_count > 0) {
            conn_progress(worker, conn); /* The wait is ours, and bounded. */
        } else {
            conn_drop(worker, conn);
        }
    }
    if (worker->oldest == NULL) {
        return -1;
    }
    return (int)(worker->server->tcp_idle_ms - (worker->now_ms - worker->oldest->progress_ms));
}

void dns_tcp_close_all(struct dns_worker *worker)
{
    while (worker->oldest != NULL) {
        assert(worker->oldest->older == NULL);
        conn_close(worker, worker->oldest);
    }
}
