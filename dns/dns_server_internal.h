#ifndef DNS_DNS_SERVER_INTERNAL_H
#define DNS_DNS_SERVER_INTERNAL_H

/* What the server's files share: a thread (worker) owns its sockets, its read transaction, its copy
 * of the configuration and all buffers; only the server's configuration and the wish to stop come
 * from outside. */

#include <ares.h>
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
    DNS_JOBS_MAX = 512,            /* queries that wait for recursors, per thread */
    DNS_JOBS_PER_CLIENT_MAX = 256, /* of one address */
    DNS_JOBS_SAME_MAX = 64,        /* with the same question: a loop of forwarders ends there */
    DNS_FORWARDS_MAX = 1024,       /* questions to recursors under way, a socket each, per thread */
    DNS_CHANNELS_IDLE_MAX = 64,    /* channels of c-ares kept for the next ones, per thread */
    DNS_PARKED_MAX = 512,          /* queries that wait for the store to be confirmed, per thread */
    DNS_PARKED_PER_CLIENT_MAX = 256, /* of one address */
    DNS_FRAME_BYTES = 2,             /* a message's length, before it over TCP */
};

enum dns_source_kind {
    DNS_SOURCE_WAKE,
    DNS_SOURCE_NOTICE,
    DNS_SOURCE_UDP,
    DNS_SOURCE_LISTENER,
    DNS_SOURCE_CONN,
    DNS_SOURCE_FORWARD
};

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
    size_t waiting_count; /* queries of it that wait for recursors, or for the store */
    bool in_over;         /* the client sends no more; it is closed when it has its answers */
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

/* Whom an answer goes to, while the query is looked at. */
struct dns_asker {
    struct dns_conn *conn;       /* NULL: over UDP */
    int udp_fd;                  /* the socket that it came to */
    const struct msghdr *header; /* UDP: with the client's address, and ours */
    bool unconfirmed;            /* the store had to be confirmed, and could not be */
};

/* Whom an answer goes to later. */
struct dns_client {
    struct dns_conn *conn; /* NULL: over UDP */
    int udp_fd;
    struct sockaddr_storage peer;
    socklen_t peer_size;
    size_t control_size;
    _Alignas(struct cmsghdr) uint8_t control[DNS_CONTROL_BYTES];
};

/* What a thread counts; see dns_stats. */
enum dns_count {
    DNS_COUNT_UDP,
    DNS_COUNT_TCP,
    DNS_COUNT_DOMAIN,
    DNS_COUNT_REVERSE,
    DNS_COUNT_SILENT,
    DNS_COUNT_TRUNCATED,
    DNS_COUNT_STALE,
    DNS_COUNT_CONFIRMED,
    DNS_COUNT_UNCONFIRMED,
    DNS_COUNT_FORWARDED,
    DNS_COUNT_FORWARD_FAILURES,
    DNS_COUNT_FORWARD_REFUSED,
    DNS_COUNT_CONNECTIONS,
    DNS_COUNT_CONNECTIONS_REFUSED,
    DNS_COUNT_CONNECTIONS_DROPPED,
    DNS_COUNT_OPEN,
    DNS_COUNT_RCODES, /* the first of DNS_RCODE_COUNT */
    DNS_COUNTS = DNS_COUNT_RCODES + DNS_RCODE_COUNT,
};

struct dns_forwarder;
struct dns_confirmer;

struct dns_worker {
    struct dns_server *server;
    pthread_t thread;
    bool started;
    int epoll_fd;
    struct dns_source wake;   /* the server's eventfd */
    struct dns_source notice; /* an eventfd of its own: something was confirmed */
    struct dns_source udp[DNS_ADDRESSES_MAX];
    struct dns_source listeners[DNS_ADDRESSES_MAX];
    size_t socket_count;
    int spare_fd; /* given up to let a client go for whom there is none; -1: gone */
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
    uint64_t age_ms; /* of the store, in this turn */
    bool age_known;
    bool confirming; /* what is answered now has had the store confirmed */
    struct dns_conn *oldest, *newest;
    size_t conn_count;
    struct dns_forwarder *forwarder;
    struct dns_confirmer *confirmer;
    /* Written by its thread alone, so that no addition needs to be atomic; read by any. */
    _Atomic uint64_t counts[DNS_COUNTS];
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
    void (*confirm)(void *context); /* dns_options'; these two never change */
    void *context;
    uint64_t tcp_idle_ms; /* nor does this */
    /* Tickets: drawn by waiting queries, then told by the owner as done, or as done well. */
    _Atomic uint64_t confirm_wanted, confirm_done, confirm_good;
    _Atomic uint64_t fresh_ms; /* the store's time, see dns_server_set_fresh; 0: not known */
    atomic_bool absent;        /* see dns_server_set_absent */
    unsigned worker_count;
    struct dns_worker *workers;
};

/* Answers one query with what the store holds now. Returns 0 for silence, which may be for now
 * only: what recursors are asked for is answered later. */
size_t dns_worker_answer(struct dns_worker *worker, const struct dns_asker *asker,
                         const void *query, size_t size, void *out, size_t out_bytes);
/* A fresh view of the store for the next answers. */
void dns_worker_renew(struct dns_worker *worker);
static inline void dns_worker_count(struct dns_worker *worker, enum dns_count which)
{
    _Atomic uint64_t *count = &worker->counts[which];

    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}
/* By its rcode and flags. */
void dns_worker_count_answer(struct dns_worker *worker, const uint8_t *message);

/* dns_client.c: an address, IPv4 mapped; of whoever asks, only to count what is alike. */
struct in6_addr dns_client_address(const struct sockaddr_storage *peer);
uint32_t dns_client_hash(const struct dns_asker *asker);
/* A client that waits. A connection counts what it waits for. */
void dns_client_keep(struct dns_client *client, const struct dns_asker *asker);
void dns_client_drop(struct dns_client *client);
/* As its query came; points into `client`. */
struct msghdr dns_client_header(struct dns_client *client);
/* Sends the `size` bytes behind the first DNS_FRAME_BYTES of the worker's TCP buffer, and drops the
 * client. May close its connection. */
void dns_client_send(struct dns_worker *worker, struct dns_client *client, size_t size);

/* dns_confirm.c: queries that wait for the store to be brought up to date. */
struct dns_confirmer *dns_confirmer_new(void); /* returns owned, or NULL */
void dns_confirmer_free(struct dns_confirmer *confirmer);
bool dns_confirm_is_needed(const struct dns_worker *worker);
/* Parks the query; false when it cannot wait. */
bool dns_confirm_begin(struct dns_worker *worker, const struct dns_asker *asker, const void *query,
                       size_t size);
/* Answers what has been confirmed, or could not be. */
void dns_confirm_serve(struct dns_worker *worker);
/* Forgets what a connection waits for. */
void dns_confirm_drop(struct dns_worker *worker, const struct dns_conn *conn);

void dns_udp_prepare(struct dns_udp_batch *batch);
void dns_udp_serve(struct dns_worker *worker, int fd);
/* Makes the answer to `query` leave from the address that the query came to. */
void dns_udp_reuse_control(struct msghdr *answer, struct msghdr *query);

void dns_tcp_accept(struct dns_worker *worker, int listener);
/* A descriptor that only takes a place; -1 when there is none. */
int dns_spare_open(const struct dns_worker *worker);
void dns_tcp_serve(struct dns_worker *worker, struct dns_conn *conn, uint32_t events);
/* Closes connections that have been idle for too long; returns the milliseconds until the next may
 * be, -1 for never. */
int dns_tcp_expire(struct dns_worker *worker);
void dns_tcp_close_all(struct dns_worker *worker);
/* A late answer, its length in front: `size` bytes with it. May close the connection. */
void dns_tcp_deliver(struct dns_worker *worker, struct dns_conn *conn, const uint8_t *framed,
                     size_t size);

/* dns_upstream.c: one question to one recursor at a time, through c-ares. */
enum dns_upstream_kind {
    DNS_UPSTREAM_UDP, /* what is truncated is passed on */
    DNS_UPSTREAM_TCP,
    DNS_UPSTREAM_CHASE, /* UDP, then TCP if truncated; an answer of any code is one */
    DNS_UPSTREAM_KINDS
};

enum dns_upstream_state {
    DNS_UPSTREAM_IDLE,
    DNS_UPSTREAM_WAITING,
    DNS_UPSTREAM_ANSWERED,
    DNS_UPSTREAM_FAILED /* refused, failing code, time over, no socket or memory */
};

struct dns_upstream {
    struct dns_source source; /* of all its sockets; without a descriptor of its own */
    enum dns_upstream_state state;
    enum dns_upstream_kind kind; /* of the channel; DNS_UPSTREAM_KINDS: there is none */
    ares_channel channel;        /* owned */
    uint32_t timeout_ms;         /* likewise of the channel */
    uint64_t asked_ms;           /* when it was used last */
    struct dns_worker *worker;
    const uint8_t *question; /* borrowed while it waits */
    size_t question_size;
    uint16_t id; /* drawn for this attempt */
    int udp_fd;  /* -1: none is open */
    int watched_fd;
    uint32_t watched_events;
    bool unwatched;      /* epoll did not take a socket */
    bool more;           /* a stream gave all that was asked of it */
    size_t received;     /* bytes of the message in the worker's TCP buffer */
    size_t question_end; /* where its records begin */
    uint8_t *cut;        /* owned; a truncated answer, for when TCP fails */
    size_t cut_size;
};

void dns_upstream_init(struct dns_upstream *upstream);
/* Stops, and gives the channel up. */
void dns_upstream_close(struct dns_upstream *upstream);
/* Sends the message, which must stay, with a new id. False when this recursor cannot be asked. */
bool dns_upstream_ask(struct dns_worker *worker, struct dns_upstream *upstream,
                      enum dns_upstream_kind kind, const struct dns_recursor *recursor,
                      const uint8_t *question, size_t size);
/* Of a waiting one: looks at its sockets, or at the time. Returns the state then; once ANSWERED,
 * `received` bytes stand behind the first DNS_FRAME_BYTES of the worker's TCP buffer. */
enum dns_upstream_state dns_upstream_serve(struct dns_upstream *upstream);
enum dns_upstream_state dns_upstream_expire(struct dns_upstream *upstream);
/* When a waiting one must be expired; later than now. */
uint64_t dns_upstream_deadline_ms(const struct dns_upstream *upstream);
/* Makes it idle. The channel is kept. */
void dns_upstream_stop(struct dns_upstream *upstream);

/* dns_forward.c: questions to the recursors. */
struct dns_forwarder *dns_forwarder_new(void); /* returns owned, or NULL */
void dns_forwarder_free(struct dns_forwarder *forwarder);
/* Finds out which recursors are ourselves; after each change of the worker's zone. */
void dns_forward_prepare(struct dns_worker *worker);
/* Asks the recursors for what the resolver lacks of its last answer, which was to `query`; false
 * when nobody can be asked. */
bool dns_forward_begin(struct dns_worker *worker, const struct dns_asker *asker, const void *query,
                       size_t size, uint64_t seed);
void dns_forward_serve(struct dns_worker *worker, struct dns_source *source);
/* Gives up those whose time is over; returns the milliseconds until the next is, -1 for never. */
int dns_forward_expire(struct dns_worker *worker);
/* Forgets what a connection waits for. */
void dns_forward_drop(struct dns_worker *worker, const struct dns_conn *conn);
void dns_forward_drop_all(struct dns_worker *worker);

#endif
