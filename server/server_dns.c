#include "server/server_dns.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/server.h"
#include "server/server_recursors.h"

enum {
    SERVER_DNS_FRESH_MS = 100, /* how often the responder is told how old the store is */
    SERVER_DNS_METRICS_TURNS = 10,
};

/* What metrics.h has no number for: totals of dns_stats. */
static const struct {
    const char *name, *help;
    size_t offset;
} dns_metrics[] = {
    {"dns.udp_queries", "DNS queries over UDP", offsetof(struct dns_stats, udp_queries)},
    {"dns.tcp_queries", "DNS queries over TCP", offsetof(struct dns_stats, tcp_queries)},
    {"dns.noerror", "DNS answers NOERROR", offsetof(struct dns_stats, rcodes[0])},
    {"dns.formerr", "DNS answers FORMERR", offsetof(struct dns_stats, rcodes[1])},
    {"dns.servfail", "DNS answers SERVFAIL", offsetof(struct dns_stats, rcodes[2])},
    {"dns.nxdomain", "DNS answers NXDOMAIN", offsetof(struct dns_stats, rcodes[3])},
    {"dns.notimp", "DNS answers NOTIMP", offsetof(struct dns_stats, rcodes[4])},
    {"dns.refused", "DNS answers REFUSED", offsetof(struct dns_stats, rcodes[5])},
    {"dns.truncated", "DNS answers with TC", offsetof(struct dns_stats, truncated)},
    {"dns.confirmed", "DNS queries that waited for a confirmation of the state",
     offsetof(struct dns_stats, confirmed)},
    {"dns.unconfirmed", "DNS queries that failed for want of one",
     offsetof(struct dns_stats, unconfirmed)},
    {"dns.recursor_queries", "Questions to recursors", offsetof(struct dns_stats, forwarded)},
    {"dns.recursor_failures", "Questions that recursors failed or left unanswered",
     offsetof(struct dns_stats, forward_failures)},
    {"dns.recursor_refused", "DNS queries not forwarded for want of room, or as loops",
     offsetof(struct dns_stats, forward_refused)},
    {"dns.tcp_connections", "DNS connections accepted",
     offsetof(struct dns_stats, tcp_connections)},
    {"dns.tcp_refused", "DNS connections above a client's limit",
     offsetof(struct dns_stats, tcp_refused)},
    {"dns.tcp_dropped", "DNS connections closed as idle or to make room",
     offsetof(struct dns_stats, tcp_dropped)},
};

enum { DNS_METRICS = sizeof(dns_metrics) / sizeof(dns_metrics[0]) };

struct server_dns {
    struct server *server;
    uv_timer_t timer;
    uv_async_t async; /* a DNS thread wants the store confirmed */
    struct server_recursors *recursors;
    struct replica_read read; /* the confirmation under way */
    uint64_t reading;         /* up to which it confirms; 0: none is */
    unsigned turns;           /* of the timer */
    int metrics[DNS_METRICS];
    int open_metric;
    unsigned handles; /* open */
};

/* --- how old the store is --- */

static void dns_tell_fresh(struct server *server)
{
    const uint64_t now_ms = uv_hrtime() / 1000000; /* the monotonic clock, as DNS reads it */
    struct replica_freshness freshness;

    replica_freshness(server->replica, &freshness);
    /* Without a leader the time since the last one counts; 0 means that there never was one. */
    if (freshness.known_leader || freshness.last_contact_ms > 0) {
        dns_server_set_fresh(server->dns, now_ms - freshness.last_contact_ms);
    }
}

static uint64_t dns_total(const struct dns_stats *stats, size_t index)
{
    uint64_t total;

    memcpy(&total, (const char *)stats + dns_metrics[index].offset, sizeof(total));
    return total;
}

static void dns_tell_metrics(struct server_dns *owner)
{
    struct metrics *metrics = owner->server->metrics;
    struct dns_stats stats;

    dns_server_stats(owner->server->dns, &stats);
    metrics_count_total(metrics, METRIC_DNS_QUERIES, stats.udp_queries + stats.tcp_queries);
    metrics_count_total(metrics, METRIC_DNS_DOMAIN_QUERIES, stats.domain_queries);
    metrics_count_total(metrics, METRIC_DNS_PTR_QUERIES, stats.reverse_queries);
    metrics_count_total(metrics, METRIC_DNS_STALE_QUERIES, stats.stale);
    metrics_count_total(metrics, METRIC_DNS_DROPPED, stats.silent);
    if (stats.age_known) {
        metrics_gauge(metrics, METRIC_DNS_STALENESS, (double)stats.age_ms);
    }
    metrics_gauge(metrics, owner->open_metric, (double)stats.tcp_open);
    for (size_t i = 0; i < DNS_METRICS; i++) {
        metrics_count_total(metrics, owner->metrics[i], dns_total(&stats, i));
    }
}

static void dns_on_timer(uv_timer_t *timer)
{
    struct server_dns *owner = timer->data;

    dns_server_set_absent(owner->server->dns, !replica_has_state(owner->server->replica));
    dns_tell_fresh(owner->server);
    server_recursors_tick(owner->recursors, owner->server->dns);
    if (++owner->turns % SERVER_DNS_METRICS_TURNS == 0) {
        dns_tell_metrics(owner);
    }
}

/* --- confirmations --- */

static void dns_confirm_next(struct server_dns *owner);

static void dns_on_read(void *context, const char *failure,
                        const struct replica_freshness *freshness)
{
    struct server_dns *owner = context;
    const uint64_t wanted = owner->reading;

    (void)freshness; /* A default read that succeeds is as fresh as can be. */
    owner->reading = 0;
    if (failure == NULL) {
        dns_server_set_fresh(owner->server->dns, uv_hrtime() / 1000000);
    }
    dns_server_confirm(owner->server->dns, wanted, failure == NULL);
    /* What came meanwhile: on the loop's next turn, as this may be called by replica_read. */
    if (dns_server_confirm_wanted(owner->server->dns) > wanted) {
        (void)uv_async_send(&owner->async); /* fails on closed handles only */
    }
}

static void dns_confirm_next(struct server_dns *owner)
{
    if (owner->reading == 0) {
        /* Before the read begins: it confirms what was asked for up to now. */
        owner->reading = dns_server_confirm_wanted(owner->server->dns);
        replica_read(owner->server->replica, &owner->read, REPLICA_DEFAULT, dns_on_read, owner);
    }
}

static void dns_on_async(uv_async_t *async)
{
    dns_confirm_next(async->data);
}

/* From a DNS thread. */
static void dns_confirm(void *context)
{
    struct server_dns *owner = context;

    (void)uv_async_send(&owner->async); /* fails on closed handles only */
}

/* --- life --- */

static int dns_open_handles(struct server_dns *owner, struct errmsg *err)
{
    uv_loop_t *loop = owner->server->loop;

    if (uv_async_init(loop, &owner->async, dns_on_async) != 0) {
        return errmsg_set(err, -1, "cannot start DNS: no event handle");
    }
    (void)uv_timer_init(loop, &owner->timer); /* cannot fail */
    owner->async.data = owner;
    owner->timer.data = owner;
    owner->handles = 2;
    uv_unref((uv_handle_t *)&owner->async);
    uv_unref((uv_handle_t *)&owner->timer);
    return 0;
}

static void dns_on_closed(uv_handle_t *handle)
{
    struct server_dns *owner = handle->data;

    assert(owner->handles > 0);
    owner->handles--;
    if (owner->handles == 0) {
        free(owner);
    }
}

int server_dns_start(struct server *server, struct errmsg *err)
{
    const struct config *config = server->config;
    const char *list = config->dns_address != NULL ? config->dns_address : config->client_addr;
    char words[DNS_ADDRESSES_MAX * 64];
    char *rest = words;
    struct dns_config dns = config->dns;
    struct dns_options options = {
        .store = server->store,
        .config = &dns,
        .port = (uint16_t)config->dns_port,
        .threads = config->dns_threads,
        .confirm = dns_confirm,
        .absent = server->replica != NULL && !replica_has_state(server->replica),
    };

    if (config->dns_port < 0) {
        return 0;
    }
    assert(server->store != NULL);
    assert(server->replica != NULL);
    struct server_dns *owner = calloc(1, sizeof(*owner));

    if (owner == NULL) {
        return errmsg_set(err, -1, "out of memory");
    }
    owner->server = server;
    owner->recursors = server_recursors_new(server->loop);
    if (owner->recursors == NULL) {
        free(owner);
        return errmsg_set(err, -1, "out of memory");
    }
    if (dns_open_handles(owner, err) != 0) {
        server_recursors_free(owner->recursors);
        free(owner);
        return -1;
    }
    server->dns_owner = owner;
    options.context = owner;
    (void)snprintf(words, sizeof(words), "%s", list);
    for (char *word = strtok_r(words, " \t\n", &rest); word != NULL;
         word = strtok_r(NULL, " \t\n", &rest)) {
        assert(options.address_count < DNS_ADDRESSES_MAX); /* config_load checked it */
        options.addresses[options.address_count++] = word;
    }
    server_recursors_take(owner->recursors, &dns);
    server_random(&options.seed, sizeof(options.seed));
    for (size_t i = 0; i < DNS_METRICS; i++) {
        owner->metrics[i] =
            metrics_add(server->metrics, METRIC_COUNTER, dns_metrics[i].name, dns_metrics[i].help);
    }
    owner->open_metric =
        metrics_add(server->metrics, METRIC_GAUGE, "dns.tcp_open", "Open DNS connections");
    const int rc = dns_server_start(&options, &server->dns, err);

    if (rc == 0) {
        (void)uv_timer_start(&owner->timer, dns_on_timer, 0, SERVER_DNS_FRESH_MS);
    }
    return rc;
}

int server_dns_reload(struct server *server, const struct dns_config *config)
{
    struct dns_config dns = *config;

    server_recursors_take(server->dns_owner->recursors, &dns);
    return dns_server_reload(server->dns, &dns);
}

void server_dns_stop(struct server *server)
{
    struct server_dns *owner = server->dns_owner;

    if (owner == NULL) {
        return;
    }
    if (owner->reading != 0) {
        replica_read_cancel(server->replica, &owner->read);
    }
    server_recursors_free(owner->recursors);
    dns_server_stop(server->dns);
    server->dns = NULL;
    server->dns_owner = NULL;
    uv_close((uv_handle_t *)&owner->timer, dns_on_closed);
    uv_close((uv_handle_t *)&owner->async, dns_on_closed);
}
