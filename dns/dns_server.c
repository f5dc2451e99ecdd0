/* The responder's life: sockets, threads, their turns, reload and stop. */

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "dns/dns_server_internal.h"

enum {
    LISTEN_BACKLOG = 256,
    SOCKET_BUFFER_BYTES = 4 << 20, /* room for bursts; the kernel may grant less */
    PORT_TRIES_MAX = 32,           /* for a free port that is free for UDP and TCP */
};

/* --- answering --- */

void dns_worker_count_answer(struct dns_worker *worker, const uint8_t *message)
{
    const unsigned rcode = message[3] & (DNS_RCODE_COUNT - 1u);

    dns_worker_count(worker, (enum dns_count)(DNS_COUNT_RCODES + rcode));
    if ((message[2] & (DNS_FLAG_TC >> 8)) != 0) {
        dns_worker_count(worker, DNS_COUNT_TRUNCATED);
    }
}

/* Answers from the store, or from nothing. */
static size_t worker_resolve(struct dns_worker *worker, const struct dns_asker *asker,
                             const void *query, size_t size, bool store, void *out,
                             size_t out_bytes)
{
    return dns_resolver_answer(
        worker->resolver, worker->zone, store && worker->txn_live ? &worker->txn : NULL, query,
        size, asker->conn != NULL, (uint64_t)time(NULL), &worker->random, out, out_bytes);
}

size_t dns_worker_answer(struct dns_worker *worker, const struct dns_asker *asker,
                         const void *query, size_t size, void *out, size_t out_bytes)
{
    const struct dns_resolver *resolver = worker->resolver;
    const uint64_t seed = worker->random;
    size_t answer_size =
        worker_resolve(worker, asker, query, size, !asker->unconfirmed, out, out_bytes);

    if (!worker->confirming) {
        dns_worker_count(worker, asker->conn == NULL ? DNS_COUNT_UDP : DNS_COUNT_TCP);
        if (resolver->from_store) {
            dns_worker_count(worker, resolver->subject.kind == DNS_SUBJECT_REVERSE
                                         ? DNS_COUNT_REVERSE
                                         : DNS_COUNT_DOMAIN);
        }
    }
    if (answer_size == 0) {
        dns_worker_count(worker, DNS_COUNT_SILENT);
        return 0;
    }
    if (resolver->from_store) {
        bool refused = asker->unconfirmed;

        if (dns_confirm_is_needed(worker)) {
            if (dns_confirm_begin(worker, asker, query, size)) {
                dns_worker_count(worker, DNS_COUNT_CONFIRMED);
                return 0;
            }
            refused = true;
            answer_size = worker_resolve(worker, asker, query, size, false, out, out_bytes);
        }
        if (refused) {
            dns_worker_count(worker, DNS_COUNT_UNCONFIRMED);
        } else if (worker->age_known && worker->age_ms > DNS_STALE_COUNTED_MS) {
            dns_worker_count(worker, DNS_COUNT_STALE);
        }
    }
    if ((resolver->forward || resolver->wanted_count > 0) &&
        dns_forward_begin(worker, asker, query, size, seed)) {
        return 0;
    }
    return answer_size;
}

static void worker_reset_txn(struct dns_worker *worker)
{
    if (worker->txn_live) {
        store_read_reset(&worker->txn);
        worker->txn_live = false;
    }
}

void dns_worker_renew(struct dns_worker *worker)
{
    worker_reset_txn(worker);
    if (atomic_load_explicit(&worker->server->absent, memory_order_relaxed)) {
        return;
    }
    if (!worker->txn_open) { /* Not had so far, for lack of a reader's slot or memory. */
        worker->txn_open = store_read_begin(worker->server->store, &worker->txn) == 0;
        worker->txn_live = worker->txn_open;
    } else {
        worker->txn_live = store_read_renew(&worker->txn) == 0;
    }
    if (worker->txn_live) {
        dns_cache_renew(worker->resolver->cache, &worker->txn);
    }
    const uint64_t fresh_ms = atomic_load_explicit(&worker->server->fresh_ms, memory_order_relaxed);

    worker->age_known = fresh_ms != 0;
    worker->age_ms = worker->now_ms > fresh_ms ? worker->now_ms - fresh_ms : 0;
}

/* Takes over a new configuration. Without memory the old one stays, and the next turn tries again.
 */
static void worker_follow_config(struct dns_worker *worker)
{
    struct dns_server *server = worker->server;
    const unsigned generation = atomic_load(&server->generation);

    if (generation == worker->zone_generation) {
        return;
    }
    pthread_mutex_lock(&server->lock);
    struct dns_zone *zone = dns_zone_new(&server->config->config);
    pthread_mutex_unlock(&server->lock);

    if (zone != NULL) {
        dns_zone_free(worker->zone);
        worker->zone = zone;
        worker->zone_generation = generation;
        dns_cache_flush(worker->resolver->cache);
        dns_forward_prepare(worker);
    }
}

/* --- turns --- */

static uint64_t clock_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* Cannot fail with this clock. */
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void worker_read_clock(struct dns_worker *worker)
{
    worker->now_ms = clock_now_ms();
}

/* Connections first and listeners last: to accept one, or to deliver a recursor's answer, may close
 * another, whose event would then point to nothing. */
static void worker_turn(struct dns_worker *worker, const struct epoll_event *events, int count)
{
    struct dns_source *sockets[DNS_EVENTS_MAX];
    size_t socket_count = 0;

    assert(count <= DNS_EVENTS_MAX);
    for (int i = 0; i < count; i++) {
        struct dns_source *source = events[i].data.ptr;

        assert(source->magic == DNS_SOURCE_MAGIC);
        if (source->kind == DNS_SOURCE_CONN) {
            dns_tcp_serve(worker, (struct dns_conn *)source, events[i].events);
        } else {
            sockets[socket_count++] = source;
        }
    }
    for (size_t i = 0; i < socket_count; i++) {
        if (sockets[i]->kind == DNS_SOURCE_UDP) {
            dns_udp_serve(worker, sockets[i]->fd);
        }
    }
    for (size_t i = 0; i < socket_count; i++) {
        if (sockets[i]->kind == DNS_SOURCE_NOTICE) {
            dns_confirm_serve(worker);
        }
    }
    for (size_t i = 0; i < socket_count; i++) {
        if (sockets[i]->kind == DNS_SOURCE_FORWARD) {
            dns_forward_serve(worker, sockets[i]);
        }
    }
    for (size_t i = 0; i < socket_count; i++) {
        if (sockets[i]->kind == DNS_SOURCE_LISTENER) {
            dns_tcp_accept(worker, sockets[i]->fd);
        }
    }
}

static void *worker_main(void *argument)
{
    struct dns_worker *worker = argument;
    struct epoll_event events[DNS_EVENTS_MAX];

    while (!atomic_load(&worker->server->stopping)) {
        worker_read_clock(worker);
        const int tcp_ms = dns_tcp_expire(worker);
        const int forward_ms = dns_forward_expire(worker);
        worker_reset_txn(worker); /* An idle thread pins no pages. */
        const int wait_ms =
            tcp_ms < 0 || (forward_ms >= 0 && forward_ms < tcp_ms) ? forward_ms : tcp_ms;
        const int count = epoll_wait(worker->epoll_fd, events, DNS_EVENTS_MAX, wait_ms);

        if (count < 0) {
            assert(errno == EINTR); /* The descriptors are ours. */
            continue;
        }
        worker_read_clock(worker);
        worker_follow_config(worker);
        worker_turn(worker, events, count);
    }
    worker_reset_txn(worker);
    if (worker->txn_open) { /* Here, because a reader's slot may belong to its thread. */
        store_read_end(&worker->txn);
    }
    return NULL;
}

/* --- sockets --- */

struct address {
    struct sockaddr_storage storage;
    socklen_t size;
    bool wildcard;
    bool v6_only; /* of the wildcard of IPv6: others do not take IPv4 anyway */
};

static bool address_parse(const char *text, uint16_t port, bool v6_only, struct address *out)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    memset(out, 0, sizeof(*out));
    out->v6_only = v6_only;
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        memcpy(&out->storage, &v4, sizeof(v4));
        out->size = sizeof(v4);
        out->wildcard = v4.sin_addr.s_addr == htonl(INADDR_ANY);
        return true;
    }
    if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
        memcpy(&out->storage, &v6, sizeof(v6));
        out->size = sizeof(v6);
        out->wildcard = IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr);
        return true;
    }
    return false;
}

static int socket_set_v6_only(int fd, const struct address *address)
{
    const int v6_only = address->v6_only;

    return setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only));
}

/* -1, with errno, on failure. */
static int socket_open(const struct address *address, int type)
{
    const int family = address->storage.ss_family;
    const int on = 1;
    const int buffer_bytes = SOCKET_BUFFER_BYTES;
    const int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    int rc = setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));

    if (rc == 0 && type == SOCK_STREAM) {
        rc = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (rc == 0 && family == AF_INET6) {
        rc = socket_set_v6_only(fd, address);
    }
    if (rc == 0 && type == SOCK_DGRAM && address->wildcard) {
        rc = family == AF_INET ? setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on))
                               : setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
    }
    if (type == SOCK_DGRAM) {
        /* Larger buffers are a help, not a need. */
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof(buffer_bytes));
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof(buffer_bytes));
    }
    if (rc == 0) {
        rc = bind(fd, (const struct sockaddr *)&address->storage, address->size);
    }
    if (rc == 0 && type == SOCK_STREAM) {
        rc = listen(fd, LISTEN_BACKLOG);
    }
    if (rc != 0) {
        const int error = errno;

        (void)close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static uint16_t socket_port(int fd)
{
    struct sockaddr_storage name = {0};
    socklen_t size = sizeof(name);
    struct sockaddr_in v4; /* The port stands at the same place in both families. */

    if (getsockname(fd, (struct sockaddr *)&name, &size) != 0) {
        return 0;
    }
    memcpy(&v4, &name, sizeof(v4));
    return ntohs(v4.sin_port);
}

static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port),
              "socket_port reads both families alike");

/* SO_REUSEPORT lets every program of this user share a port, and the kernel choose one that another
 * one has: of two servers each would silently take half of the questions. So the port is claimed
 * once without it. Returns the port, a free one where the address has 0; 0, with errno, on failure.
 */
static uint16_t port_claim(const struct address *address)
{
    const int fd = socket(address->storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    uint16_t port = 0;

    if (fd < 0) {
        return 0;
    }
    if (address->storage.ss_family == AF_INET6) {
        (void)socket_set_v6_only(fd, address);
    }
    if (bind(fd, (const struct sockaddr *)&address->storage, address->size) == 0) {
        port = socket_port(fd);
    }
    const int error = errno;

    (void)close(fd);
    errno = error;
    return port;
}

/* "::" takes IPv4, too, unless addresses of IPv4 are named beside it. */
static bool options_have_v4(const struct dns_options *options)
{
    for (size_t i = 0; i < options->address_count; i++) {
        if (strchr(options->addresses[i], ':') == NULL) {
            return true;
        }
    }
    return false;
}

/* Opens both sockets of one address. With port 0 it takes one that is free for both, which becomes
 * the server's. Returns 0 or -1 with errno. */
static int worker_open_pair(struct dns_worker *worker, const struct dns_options *options,
                            size_t index)
{
    const char *text = options->addresses[index];
    struct dns_server *server = worker->server;
    const bool any_port = server->port == 0;
    const bool v6_only = options_have_v4(options);

    for (unsigned tries = 0; tries < PORT_TRIES_MAX; tries++) {
        struct address address;

        if (!address_parse(text, server->port, v6_only, &address)) {
            errno = EINVAL;
            return -1;
        }
        uint16_t port = server->port;

        if (worker == &server->workers[0]) {
            port = port_claim(&address);
            if (port == 0) {
                return -1;
            }
            (void)address_parse(text, port, v6_only, &address);
        }
        const int udp = socket_open(&address, SOCK_DGRAM);

        if (udp < 0) {
            return -1;
        }
        const int tcp = socket_open(&address, SOCK_STREAM);

        if (tcp >= 0) {
            server->port = port;
            worker->udp[index] = (struct dns_source){DNS_SOURCE_MAGIC, DNS_SOURCE_UDP, udp};
            worker->listeners[index] =
                (struct dns_source){DNS_SOURCE_MAGIC, DNS_SOURCE_LISTENER, tcp};
            return 0;
        }
        const int error = errno;

        (void)close(udp);
        errno = error;
        if (!any_port || error != EADDRINUSE) {
            return -1;
        }
    }
    return -1;
}

static int worker_watch(struct dns_worker *worker, struct dns_source *source)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};

    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, source->fd, &event);
}

/* --- life --- */

static void worker_deinit(struct dns_worker *worker)
{
    if (worker->forwarder != NULL) {
        dns_forward_drop_all(worker);
    }
    dns_tcp_close_all(worker);
    for (size_t i = 0; i < worker->socket_count; i++) {
        (void)close(worker->udp[i].fd);
        (void)close(worker->listeners[i].fd);
    }
    if (worker->notice.fd >= 0) {
        (void)close(worker->notice.fd);
    }
    if (worker->spare_fd >= 0) {
        (void)close(worker->spare_fd);
    }
    if (worker->epoll_fd >= 0) {
        (void)close(worker->epoll_fd);
    }
    dns_zone_free(worker->zone);
    if (worker->resolver != NULL) {
        dns_cache_free(worker->resolver->cache);
    }
    dns_resolver_free(worker->resolver);
    free(worker->batch);
    free(worker->tcp_out);
    dns_forwarder_free(worker->forwarder);
    dns_confirmer_free(worker->confirmer);
}

static int worker_init(struct dns_worker *worker, const struct dns_options *options,
                       struct errmsg *err)
{
    struct dns_server *server = worker->server;

    worker->resolver = dns_resolver_new();
    if (worker->resolver != NULL) {
        worker->resolver->cache = dns_cache_new();
    }
    worker->batch = calloc(1, sizeof(*worker->batch));
    worker->tcp_out = malloc(DNS_TCP_OUT_BYTES);
    worker->forwarder = dns_forwarder_new();
    worker->confirmer = dns_confirmer_new();
    worker->zone = dns_zone_new(&server->config->config);
    if (worker->resolver == NULL || worker->resolver->cache == NULL || worker->batch == NULL ||
        worker->tcp_out == NULL || worker->forwarder == NULL || worker->confirmer == NULL ||
        worker->zone == NULL) {
        return errmsg_set(err, DNS_ENOMEM, "no memory for a DNS thread");
    }
    dns_udp_prepare(worker->batch);
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    worker->wake = (struct dns_source){DNS_SOURCE_MAGIC, DNS_SOURCE_WAKE, server->wake_fd};
    worker->notice = (struct dns_source){DNS_SOURCE_MAGIC, DNS_SOURCE_NOTICE,
                                         eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    worker->spare_fd = dns_spare_open(worker);
    if (worker->epoll_fd < 0 || worker->notice.fd < 0 || worker->spare_fd < 0 ||
        worker_watch(worker, &worker->wake) != 0 || worker_watch(worker, &worker->notice) != 0) {
        return errmsg_set_errno(err, DNS_EIO, "set up a DNS thread");
    }
    for (size_t i = 0; i < options->address_count; i++) {
        if (worker_open_pair(worker, options, i) != 0) {
            return errmsg_set_errno(err, DNS_EIO, "listen for DNS on %s, port %u",
                                    options->addresses[i], (unsigned)server->port);
        }
        worker->socket_count++;
        if (worker_watch(worker, &worker->udp[i]) != 0 ||
            worker_watch(worker, &worker->listeners[i]) != 0) {
            return errmsg_set_errno(err, DNS_EIO, "wait for DNS on %s", options->addresses[i]);
        }
    }
    dns_forward_prepare(worker);
    return 0;
}

static int server_start_threads(struct dns_server *server, struct errmsg *err)
{
    for (unsigned i = 0; i < server->worker_count; i++) {
        struct dns_worker *worker = &server->workers[i];
        const int rc = pthread_create(&worker->thread, NULL, worker_main, worker);

        if (rc != 0) {
            errno = rc;
            return errmsg_set_errno(err, DNS_EIO, "start a DNS thread");
        }
        worker->started = true;
    }
    return 0;
}

int dns_server_start(const struct dns_options *options, struct dns_server **out, struct errmsg *err)
{
    struct dns_server *server = calloc(1, sizeof(*server));
    int rc = 0;

    assert(options->store != NULL);
    assert(options->address_count <= DNS_ADDRESSES_MAX);
    assert(options->threads <= DNS_THREADS_MAX);
    if (server == NULL) {
        return errmsg_set(err, DNS_ENOMEM, "no memory for the DNS server");
    }
    rc = ares_library_init(ARES_LIB_INIT_ALL); /* It only counts, not for several threads. */
    assert(rc == ARES_SUCCESS);
    server->store = options->store;
    server->port = options->port;
    server->confirm = options->confirm;
    server->context = options->context;
    atomic_init(&server->absent, options->absent);
    server->tcp_idle_ms = options->tcp_idle_ms == 0 ? DNS_TCP_IDLE_MS : options->tcp_idle_ms;
    pthread_mutex_init(&server->lock, NULL);
    atomic_init(&server->stopping, false);
    atomic_init(&server->generation, 0);
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->config = dns_zone_new(options->config);
    if (server->wake_fd < 0) {
        rc = errmsg_set_errno(err, DNS_EIO, "set up the DNS server");
    } else if (server->config == NULL) {
        const struct dns_config *config = options->config;

        rc = errmsg_set(err, DNS_ECONFIG,
                        "domain \"%s\", alt_domain \"%s\" or datacenter \"%s\" is no name for DNS",
                        config->domain, config->alt_domain == NULL ? "" : config->alt_domain,
                        config->datacenter);
    }
    const unsigned threads = options->threads == 0 ? 1 : options->threads;

    server->workers = rc == 0 ? calloc(threads, sizeof(*server->workers)) : NULL;
    if (rc == 0 && server->workers == NULL) {
        rc = errmsg_set(err, DNS_ENOMEM, "no memory for the DNS threads");
    }
    for (unsigned i = 0; i < threads && rc == 0; i++) {
        assert(server->workers != NULL);
        struct dns_worker *worker = &server->workers[i];

        worker->server = server;
        worker->epoll_fd = -1;
        worker->notice.fd = -1;
        worker->spare_fd = -1;
        worker->random = options->seed + i * 0x9e3779b97f4a7c15u;
        server->worker_count = i + 1;
        rc = worker_init(worker, options, err);
    }
    if (rc == 0) {
        rc = server_start_threads(server, err);
    }
    if (rc != 0) {
        dns_server_stop(server);
        return rc;
    }
    *out = server;
    return 0;
}

uint16_t dns_server_port(const struct dns_server *dns)
{
    return dns->port;
}

int dns_server_reload(struct dns_server *dns, const struct dns_config *config)
{
    struct dns_zone *zone = dns_zone_new(config);

    if (zone == NULL) {
        return DNS_ECONFIG;
    }
    pthread_mutex_lock(&dns->lock);
    struct dns_zone *old = dns->config;

    dns->config = zone;
    atomic_fetch_add(&dns->generation, 1);
    pthread_mutex_unlock(&dns->lock);
    dns_zone_free(old);
    return 0;
}

int dns_server_set_recursor(struct dns_server *dns, size_t index, const char *address)
{
    /* Without the lock: only this thread changes it. */
    struct dns_config config = dns->config->config;

    assert(index < config.recursor_count);
    config.recursors[index] = address;
    return dns_server_reload(dns, &config) == 0 ? 0 : DNS_ENOMEM;
}

static uint64_t server_sum(const struct dns_server *dns, unsigned which)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < dns->worker_count; i++) {
        sum += atomic_load_explicit(&dns->workers[i].counts[which], memory_order_relaxed);
    }
    return sum;
}

void dns_server_stats(const struct dns_server *dns, struct dns_stats *out)
{
    const uint64_t fresh_ms = atomic_load(&dns->fresh_ms);
    const uint64_t now_ms = clock_now_ms();

    *out = (struct dns_stats){
        .udp_queries = server_sum(dns, DNS_COUNT_UDP),
        .tcp_queries = server_sum(dns, DNS_COUNT_TCP),
        .domain_queries = server_sum(dns, DNS_COUNT_DOMAIN),
        .reverse_queries = server_sum(dns, DNS_COUNT_REVERSE),
        .silent = server_sum(dns, DNS_COUNT_SILENT),
        .truncated = server_sum(dns, DNS_COUNT_TRUNCATED),
        .stale = server_sum(dns, DNS_COUNT_STALE),
        .confirmed = server_sum(dns, DNS_COUNT_CONFIRMED),
        .unconfirmed = server_sum(dns, DNS_COUNT_UNCONFIRMED),
        .forwarded = server_sum(dns, DNS_COUNT_FORWARDED),
        .forward_failures = server_sum(dns, DNS_COUNT_FORWARD_FAILURES),
        .forward_refused = server_sum(dns, DNS_COUNT_FORWARD_REFUSED),
        .tcp_connections = server_sum(dns, DNS_COUNT_CONNECTIONS),
        .tcp_refused = server_sum(dns, DNS_COUNT_CONNECTIONS_REFUSED),
        .tcp_dropped = server_sum(dns, DNS_COUNT_CONNECTIONS_DROPPED),
        .tcp_open = server_sum(dns, DNS_COUNT_OPEN),
        .age_known = fresh_ms != 0,
        .age_ms = fresh_ms != 0 && now_ms > fresh_ms ? now_ms - fresh_ms : 0,
    };
    for (unsigned i = 0; i < DNS_RCODE_COUNT; i++) {
        out->rcodes[i] = server_sum(dns, DNS_COUNT_RCODES + i);
    }
}

void dns_server_stop(struct dns_server *dns)
{
    const uint64_t one = 1;

    if (dns == NULL) {
        return;
    }
    atomic_store(&dns->stopping, true);
    if (dns->wake_fd >= 0) {
        /* Nobody takes it off, so that it wakes every thread. It cannot fail: the count is 0. */
        const ssize_t rc = write(dns->wake_fd, &one, sizeof(one));

        assert(rc == (ssize_t)sizeof(one));
    }
    for (unsigned i = 0; i < dns->worker_count; i++) {
        if (dns->workers[i].started) {
            pthread_join(dns->workers[i].thread, NULL);
        }
    }
    for (unsigned i = 0; i < dns->worker_count; i++) {
        worker_deinit(&dns->workers[i]);
    }
    free(dns->workers);
    if (dns->wake_fd >= 0) {
        (void)close(dns->wake_fd);
    }
    ares_library_cleanup();
    dns_zone_free(dns->config);
    pthread_mutex_destroy(&dns->lock);
    free(dns);
}
