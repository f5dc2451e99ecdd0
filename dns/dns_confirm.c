/* Queries that wait until the store has been brought up to date (allow_stale false, or older than
 * max_stale): the owner is asked once for all that wait, and each is answered anew after that. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dns/dns_server_internal.h"

struct parked {
    uint64_t ticket; /* what must be confirmed for it; 0: free */
    struct dns_client client;
    size_t size;
    uint8_t query[DNS_UDP_QUERY_BYTES_MAX];
};

/* A queue: tickets only grow, so what is confirmed is at its front. */
struct dns_confirmer {
    size_t first, count;
    uint32_t
        client_hashes[DNS_PARKED_MAX]; /* apart from the queries, so that they are read at once */
    struct parked parked[DNS_PARKED_MAX];
};

struct dns_confirmer *dns_confirmer_new(void)
{
    return calloc(1, sizeof(struct dns_confirmer)); /* untouched pages cost nothing */
}

void dns_confirmer_free(struct dns_confirmer *confirmer)
{
    free(confirmer);
}

bool dns_confirm_is_needed(const struct dns_worker *worker)
{
    const struct dns_config *config = &worker->zone->config;

    if (worker->confirming) { /* It has just been done. */
        return false;
    }
    return config->confirm_always ||
           (config->stale_bounded && (!worker->age_known || worker->age_ms > config->max_stale_ms));
}

static bool client_is_welcome(const struct dns_confirmer *confirmer, uint32_t hash)
{
    size_t of_client = 0;

    for (size_t i = 0; i < confirmer->count; i++) {
        const size_t index = (confirmer->first + i) % DNS_PARKED_MAX;

        of_client +=
            confirmer->client_hashes[index] == hash && confirmer->parked[index].ticket != 0;
    }
    return of_client < DNS_PARKED_PER_CLIENT_MAX;
}

bool dns_confirm_begin(struct dns_worker *worker, const struct dns_asker *asker, const void *query,
                       size_t size)
{
    struct dns_server *server = worker->server;
    struct dns_confirmer *confirmer = worker->confirmer;

    const uint32_t client_hash = dns_client_hash(asker);

    if (server->confirm == NULL || confirmer->count == DNS_PARKED_MAX ||
        size > DNS_UDP_QUERY_BYTES_MAX || !client_is_welcome(confirmer, client_hash)) {
        return false;
    }
    const size_t index = (confirmer->first + confirmer->count) % DNS_PARKED_MAX;
    struct parked *parked = &confirmer->parked[index];

    confirmer->count++;
    confirmer->client_hashes[index] = client_hash;
    dns_client_keep(&parked->client, asker);
    parked->size = size;
    memcpy(parked->query, query, size);
    /* Drawn before the owner is told: what it begins then is later than this query. */
    parked->ticket = atomic_fetch_add(&server->confirm_wanted, 1) + 1;
    server->confirm(server->context);
    return true;
}

/* Answers what was parked. It may be dropped meanwhile: then only its place is given back. */
static void parked_answer(struct dns_worker *worker, struct parked *parked, bool good)
{
    struct msghdr header = dns_client_header(&parked->client);
    const struct dns_asker asker = {.conn = parked->client.conn,
                                    .udp_fd = parked->client.udp_fd,
                                    .header = &header,
                                    .unconfirmed = !good};

    dns_worker_renew(worker);
    worker->confirming = true;
    const size_t size = dns_worker_answer(
        worker, &asker, parked->query, parked->size, worker->tcp_out + DNS_FRAME_BYTES,
        asker.conn != NULL ? DNS_MESSAGE_BYTES_MAX : DNS_UDP_BYTES_MAX);

    worker->confirming = false;
    if (size > 0) {
        dns_client_send(worker, &parked->client, size);
    } else { /* Recursors are asked now, and keep the client themselves. */
        dns_client_drop(&parked->client);
    }
}

void dns_confirm_serve(struct dns_worker *worker)
{
    struct dns_server *server = worker->server;
    struct dns_confirmer *confirmer = worker->confirmer;
    uint64_t wakes;

    /* Only the wake-up counts. Nothing to read: somebody was faster, and woke us for the rest. */
    (void)!read(worker->notice.fd, &wakes, sizeof(wakes));
    /* Good before done: what is done but not good has failed. */
    const uint64_t done = atomic_load(&server->confirm_done);
    const uint64_t good = atomic_load(&server->confirm_good);

    while (confirmer->count > 0) {
        struct parked *parked = &confirmer->parked[confirmer->first];

        if (parked->ticket > done) {
            break;
        }
        const bool dropped = parked->ticket == 0;
        const bool is_good = parked->ticket <= good;

        parked->ticket = 0;
        confirmer->first = (confirmer->first + 1) % DNS_PARKED_MAX;
        confirmer->count--;
        if (!dropped) {
            parked_answer(worker, parked, is_good);
        }
    }
}

void dns_confirm_drop(struct dns_worker *worker, const struct dns_conn *conn)
{
    struct dns_confirmer *confirmer = worker->confirmer;

    for (size_t i = 0; i < confirmer->count; i++) {
        struct parked *parked = &confirmer->parked[(confirmer->first + i) % DNS_PARKED_MAX];

        if (parked->ticket != 0 && parked->client.conn == conn) {
            dns_client_drop(&parked->client);
            parked->ticket = 0;
        }
    }
}

/* --- the owner's side --- */

uint64_t dns_server_confirm_wanted(const struct dns_server *dns)
{
    return atomic_load(&dns->confirm_wanted);
}

void dns_server_confirm(struct dns_server *dns, uint64_t wanted, bool good)
{
    const uint64_t one = 1;

    assert(wanted <= atomic_load(&dns->confirm_wanted));
    if (good) {
        atomic_store(&dns->confirm_good, wanted);
    }
    atomic_store(&dns->confirm_done, wanted);
    for (unsigned i = 0; i < dns->worker_count; i++) {
        /* A counter that is full has a wake-up in it already. */
        (void)!write(dns->workers[i].notice.fd, &one, sizeof(one));
    }
}

void dns_server_set_absent(struct dns_server *dns, bool absent)
{
    atomic_store(&dns->absent, absent);
}

void dns_server_set_fresh(struct dns_server *dns, uint64_t at_ms)
{
    uint64_t before = atomic_load(&dns->fresh_ms);

    while (at_ms > before && !atomic_compare_exchange_weak(&dns->fresh_ms, &before, at_ms)) {
        /* `before` was read again. */
    }
}
