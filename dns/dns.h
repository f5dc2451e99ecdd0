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
    const char *domain;     /* "consul", lower case, no final dot */
    const char *alt_domain; /* NULL or "": none */
    const char *datacenter;
    const char *node_name;
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
    const char *recursors[DNS_RECURSORS_MAX]; /* "ip", "ip:port", "[ip6]:port" */
    size_t recursor_count;
    uint32_t recursor_timeout_ms; /* 2000; for each recursor */
    bool advertise_ra;            /* RA in answers of ours also without recursors */
};

struct dns_options {
    struct store *store;
    const struct dns_config *config;          /* copied, strings too */
    const char *addresses[DNS_ADDRESSES_MAX]; /* IP texts to listen on */
    size_t address_count;
    uint16_t port;    /* 0: any free one, see dns_server_port */
    unsigned threads; /* 0: 1; at most DNS_THREADS_MAX */
    uint64_t seed;    /* of the shuffle's generator */
};

struct dns_server;

enum dns_error {
    DNS_ENOMEM = -501,
    DNS_EIO = -502,     /* a socket or thread cannot be had; the errmsg tells which */
    DNS_ECONFIG = -503, /* domain or datacenter is no name */
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
/* Stops the threads within a second, closes. Accepts NULL. */
void dns_server_stop(struct dns_server *dns);

/* One question to one answer, for tests and fuzzing: parses `query` (as from UDP or TCP), writes
 * the answer to `out`; returns its size, 0 for silence. `random` drives the shuffle. */
size_t dns_answer(struct store_txn *txn, const struct dns_config *config, const void *query,
                  size_t query_size, bool tcp, uint64_t now_s, uint64_t *random, void *out,
                  size_t out_bytes);

#endif
