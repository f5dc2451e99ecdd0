#ifndef DNS_DNS_SERVER_INTERNAL_H
#define DNS_DNS_SERVER_INTERNAL_H

/* What the server's files share: a thread (worker) owns its sockets, its read transaction, its copy
 * of the configuration and all buffers; only the server's configuration and the wish to stop come
 * from outside. */

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "dns/dns_internal.h"

enum {
    DNS_BATCH_MAX = 64,             /* datagrams per recvmmsg, and per turn */
    DNS_UDP_QUERY_BYTES_MAX = 4096, /* a longer query is cut, and then refused as malformed */
    DNS_CONTROL_BYTES = 64,         /* local address of a datagram (IP_PKTINFO) */
    DNS_TCP_QUERY_BYTES_MAX = 4096, /* a longer query closes the connection */
    DNS_TCP_CONNS_MAX = 512,        /* per thread; the longest idle one makes room */
    DNS_TCP_CONNS_PER_CLIENT = 128, /* per thread and address */
    DNS_TCP_OUT_BYTES = 2 * (2 + DNS_MESSAGE_BYTES_MAX), /* gathered before a write */
    DNS_TCP_IDLE_MS = 10000, /* without a whole query read or an answer taken */
    DNS_TCP_ACCEPTS_PER_TURN = 64,
    DNS_EVENTS_MAX = 64,
};

enum dns_source_kind { DNS_SOURCE_WAKE, DNS_SOURCE_UDP, DNS_SOURCE_LISTENER, DNS_SOURCE_CONN };

/* What an epoll event points to; first member of whatever is waited for. */
struct dns_source {
    uint32_t magic;
    enum dns_source_kind kind;
    int fd;
};

enum { DNS_SOURCE_MAGIC = 0x444e5353 };

struct dns_conn {
    struct dns_source source;
    struct dns_conn *older, *newer; /* in order of last progress */
    struct in6_addr client;         /* IPv4 mapped */
    uint64_t progress_ms;
    size_t in_size;
    uint8_t *out; /* owned; what the client has not taken yet, NULL if nothing */
    size_t out_size, out_at;
    uint8_t in[2 + DNS_TCP_QUERY_BYTES_MAX];
};

struct dns_udp_batch {
    struct mmsghdr messages[DNS_BATCH_MAX];
    struct mmsghdr answers[DNS_BATCH_MAX];
    struct iovec in_vectors[DNS_BATCH_MAX];
    struct iovec out_vectors[DNS_BATCH_MAX];
    struct sockaddr_storage peers[DNS_BATCH_MAX];
    _Alignas(struct cmsghdr) uint8_t controls[DNS_BATCH_MAX][DNS_CONTROL_BYTES];
    uint8_t in[DNS_BATCH_MAX][DNS_UDP_QUERY_BYTES_MAX];
    uint8_t out[DNS_BATCH_MAX][DNS_UDP_BYTES_MAX];
};

struct dns_worker {
    struct dns_server *server;
    pthread_t thread;
    bool started;
    int epoll_fd;
    struct dns_source wake; /* the server's eventfd */
    struct dns_source udp[DNS_ADDRESSES_MAX];
    struct dns_source listeners[DNS_ADDRESSES_MAX];
    size_t socket_count;
    struct dns_zone *zone;
    unsigned zone_generation;
    struct dns_resolver *resolver;
    struct dns_udp_batch *batch;
    uint8_t *tcp_out; /* DNS_TCP_OUT_BYTES */
    struct store_txn txn;
    bool txn_open;
    bool txn_live;
    uint64_t random;
    uint64_t now_ms;
    struct dns_conn *oldest, *newest;
    size_t conn_count;
};

struct dns_server {
    struct store *store;
    uint16_t port;
    int wake_fd;
    atomic_bool stopping;
    /* `config` is read and replaced under the lock; the generation tells workers, without it, that
     * theirs is old. */
    pthread_mutex_t lock;
    struct dns_zone *config;
    atomic_uint generation;
    unsigned worker_count;
    struct dns_worker *workers;
};

/* Answers one query with what the store holds now. */
size_t dns_worker_answer(struct dns_worker *worker, const void *query, size_t size, bool tcp,
                         void *out, size_t out_bytes);
/* A fresh view of the store for the next answers. */
void dns_worker_renew(struct dns_worker *worker);

void dns_udp_prepare(struct dns_udp_batch *batch);
void dns_udp_serve(struct dns_worker *worker, int fd);

void dns_tcp_accept(struct dns_worker *worker, int listener);
void dns_tcp_serve(struct dns_worker *worker, struct dns_conn *conn, uint32_t events);
/* Closes connections that have been idle for too long; returns the milliseconds until the next may
 * be, -1 for never. */
int dns_tcp_expire(struct dns_worker *worker);
void dns_tcp_close_all(struct dns_worker *worker);

#endif
