#ifndef DNS_DNS_H
#define DNS_DNS_H

/* The DNS responder: UDP and TCP in threads of its own, answering from the local store with
 * Consul's rules (conformance NOTES-dns-cli, sections 3 to 7). Each thread owns its sockets and its
 * read transaction; answering a query allocates nothing. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/errmsg.h"
#include "kv/store.h"

enum {
    DNS_SERVICE_TTLS_MAX = 64,
    DNS_ADDRESSES_MAX = 8,
    DNS_RECURSORS_MAX = 8,
    DNS_THREADS_MAX = 64
};

struct dns_service_ttl {
    const char *name; /* exact, or a prefix when it ends in '*' */
    uint32_t ttl_s;
};

/* Consul's dns_config and what else names depend on. Strings are borrowed and must outlive the
 * copy's use. */
struct dns_config {
    const char *domain;     /* "consul", lower case, no final dot; "": the root */
    const char *alt_domain; /* NULL or "": none */
    const char *datacenter;
    uint32_t node_ttl_s;
    struct dns_service_ttl service_ttls[DNS_SERVICE_TTLS_MAX];
    size_t service_ttl_count;
    uint32_t udp_answer_limit; /* 3 */
    uint32_t a_record_limit;   /* 0: none */
    bool enable_truncate;
    bool only_passing;
    bool disable_compression;
    bool node_meta_txt; /* enable_additional_node_meta_txt, true */
    struct {
        uint32_t refresh_s; /* 3600 */
        uint32_t retry_s;   /* 600 */
        uint32_t expire_s;  /* 86400 */
        uint32_t min_ttl_s; /* 0 */
    } soa;
    /* "ip", "ip:port", "[ip6]:port"; others are as if not there. */
    const char *recursors[DNS_RECURSORS_MAX];
    size_t recursor_count;
    uint32_t recursor_timeout_ms; /* 2000; for each recursor */
    bool recursor_random;         /* begin with any of them, not always with the first */
    bool advertise_ra;            /* RA in answers of ours also without recursors */
    bool confirm_always;          /* allow_stale false: see dns_options.confirm */
    bool stale_bounded;           /* by max_stale_ms: older, the store is confirmed first */
    uint64_t max_stale_ms;
    bool deny; /* nobody may read: no node and no service is there */
};

struct dns_options {
    struct store *store;
    const struct dns_config *config;          /* copied, strings too */
    const char *addresses[DNS_ADDRESSES_MAX]; /* IP texts to listen on */
    size_t address_count;
    uint16_t port;    /* 0: any free one, see dns_server_port */
    unsigned threads; /* 0: 1; at most DNS_THREADS_MAX */
    uint64_t seed;    /* of the shuffle's generator */
    /* Asks that the store be brought up to date with the cluster; called from the server's threads,
     * must not wait. Later, from any thread, dns_server_confirm. NULL: nobody can, so what needs it
     * is SERVFAIL. */
    void (*confirm)(void *context);
    void *context;
    uint64_t tcp_idle_ms; /* 0: DNS_TCP_IDLE_MS */
    bool absent;          /* see dns_server_set_absent */
};

struct dns_server;

enum dns_error {
    DNS_ENOMEM = -501,
    DNS_EIO = -502,     /* a socket or thread cannot be had; the errmsg tells which */
    DNS_ECONFIG = -503, /* a domain or the datacenter is no name, or the domain is too long */
};

/* Binds and starts its threads. On failure `err` names the address. The store must outlive the
 * server; it is only read, from the server's own threads. */
int dns_server_start(const struct dns_options *options, struct dns_server **out,
                     struct errmsg *err);
/* The port that it listens on, the same for all addresses, UDP and TCP. */
uint16_t dns_server_port(const struct dns_server *dns);
/* Takes effect with the next query; the configuration is copied. On failure (no memory, no domain)
 * the old one stays. */
int dns_server_reload(struct dns_server *dns, const struct dns_config *config);
/* Puts an address, of which a copy is kept, in the place of a recursor of the configuration, until
 * the next reload. From the thread that reloads. Errors: DNS_ENOMEM, and nothing has changed. */
int dns_server_set_recursor(struct dns_server *dns, size_t index, const char *address);
/* Stops the threads within a second, closes. Accepts NULL. */
void dns_server_stop(struct dns_server *dns);

/* --- how old the store is --- */

/* The store is as the cluster's was at `at_ms` (CLOCK_MONOTONIC, milliseconds); an earlier time
 * than one told before changes nothing. From any thread. */
void dns_server_set_fresh(struct dns_server *dns, uint64_t at_ms);
/* The store does not hold the cluster's state, not even an old one: questions that need it fail
 * (SERVFAIL) until it is told to be there again. From any thread. */
void dns_server_set_absent(struct dns_server *dns, bool absent);
/* What must be confirmed now: all up to the number returned. */
uint64_t dns_server_confirm_wanted(const struct dns_server *dns);
/* The store was brought up to date after dns_server_confirm_wanted had returned `wanted`, or, with
 * `good` false, could not be. From one thread only, any one. */
void dns_server_confirm(struct dns_server *dns, uint64_t wanted, bool good);

/* --- counters --- */

enum {
    DNS_RCODE_COUNT = 16,
    DNS_STALE_COUNTED_MS = 5000, /* Consul's: answers from an older store are counted as stale */
};

/* Since the start, over all threads; each number is right, together they may be of slightly
 * different moments. */
struct dns_stats {
    uint64_t udp_queries, tcp_queries;
    uint64_t domain_queries, reverse_queries; /* for names of ours, for addresses */
    uint64_t rcodes[DNS_RCODE_COUNT];         /* answers, those of recursors included */
    uint64_t silent;                          /* queries that deserve no answer */
    uint64_t truncated;                       /* answers with TC */
    uint64_t stale;            /* answers from a store older than DNS_STALE_COUNTED_MS */
    uint64_t confirmed;        /* queries that had the store confirmed first */
    uint64_t unconfirmed;      /* queries that failed because it could not be */
    uint64_t forwarded;        /* questions to recursors, attempts counted */
    uint64_t forward_failures; /* attempts that failed or took too long */
    uint64_t forward_refused;  /* queries refused for want of room, or as loops */
    uint64_t tcp_connections;  /* accepted */
    uint64_t tcp_refused;      /* closed at once: too many of one client */
    uint64_t tcp_dropped;      /* closed for being idle, or to make room */
    uint64_t tcp_open;         /* now */
    bool age_known;            /* false: never heard of the cluster since the start */
    uint64_t age_ms;           /* of the store, see dns_server_set_fresh */
};

void dns_server_stats(const struct dns_server *dns, struct dns_stats *out);

/* One question to one answer, for tests and fuzzing: parses `query` (as from UDP or TCP), writes
 * the answer to `out`; returns its size, 0 for silence. `random` drives the shuffle. */
size_t dns_answer(struct store_txn *txn, const struct dns_config *config, const void *query,
                  size_t query_size, bool tcp, uint64_t now_s, uint64_t *random, void *out,
                  size_t out_bytes);

#endif
