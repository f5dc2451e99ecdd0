#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

/* The composition: everything that one process is made of, and its life cycle. */

#include <stdbool.h>
#include <uv.h>

#include "dns/dns.h"
#include "kv/errmsg.h"
#include "kv/store.h"
#include "kv/uuid.h"
#include "kv/watch.h"
#include "server/agent/agent.h"
#include "server/config.h"
#include "server/events.h"
#include "server/gossip/membership.h"
#include "server/http/http.h"
#include "server/metrics.h"
#include "server/replica.h"

#define PROCONSUL_VERSION "0.1.0"
/* The Consul whose behaviour we answer with; clients branch on it. */
#define PROCONSUL_CONSUL_VERSION "1.8.7"

struct server {
    uv_loop_t *loop;
    struct config *config;
    struct uuid node_id;
    char node_id_text[UUID_TEXT_BYTES + 1];
    struct uuid cluster_id; /* from the replica; zero: none is known yet */
    struct store *store;    /* opened by the replica */
    struct watch_table *watches;
    struct replica *replica;
    struct membership *membership;
    struct agent *agent;
    struct http_server *http;
    struct dns_server *dns;       /* NULL: off */
    struct server_dns *dns_owner; /* what it needs on the loop */
    struct events *events;        /* the HTTP server's, for the replica; NULL: not there */
    struct metrics *metrics;      /* NULL in parts that are tested alone */
    struct monitor *monitor;      /* who follows the log; NULL: nobody has yet */
    uint64_t open_files_before;   /* the limit as it was found: what others get; 0: not known */
    bool stopping;
    bool leaving; /* this stop is for good: the others go on without this server */
};

/* Runs a server until SIGTERM or SIGINT; takes `config`; returns the exit status (Consul's: 0 when
 * it was told to leave, leave_on_terminate, else 1). */
int server_run(struct config *config);

/* Reads the configuration again, as for SIGHUP: services, checks, DNS, log level, limits, keys of
 * snapshots. On failure, which is logged, all stays as it was, but for DNS: if only that fails, it
 * goes on as before and the rest is taken over. */
int server_reload(struct server *server, struct errmsg *err);

/* Cryptographically good random bytes (getrandom). */
void server_random(void *out, size_t size);
/* A random (version 4 layout is not needed; Consul's are plain random) identifier. */
struct uuid server_random_uuid(void);
/* Monotonic milliseconds, the loop's cached clock. */
uint64_t server_now_ms(const struct server *server);

#endif
