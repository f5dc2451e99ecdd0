/* Questions that the recursors are asked: whole ones, passed on as they came, and those for names
 * that answers lead to. Who waits for them, which recursor is next, and within what bounds;
 * dns_upstream.c asks one recursor. */

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dns/dns_server_internal.h"

enum { CHASE_QUERY_BYTES_MAX = 12 + DNS_NAME_BYTES_MAX + 4 };

struct job;

/* One question to the recursors, in their order. */
struct forward {
    struct dns_upstream upstream; /* waits while this is in the list by deadline */
    enum dns_upstream_kind kind;
    struct job *job;
    struct forward *next_free;
    struct forward *sooner, *later; /* those under way, by deadline */
    uint64_t deadline_ms;
    size_t recursor_tries; /* how many were given up */
    uint8_t *answer;       /* owned; of a chase */
    size_t answer_size;
    size_t chase_size; /* 0: the job's own query is asked */
    uint8_t chase[CHASE_QUERY_BYTES_MAX];
};

/* A query that waits. */
struct job {
    struct job *next_free;
    bool busy;
    struct dns_client client;
    uint64_t seed;         /* the generator's state, so that the same answer is made again */
    size_t answer_limit;   /* bytes that the client takes */
    size_t recursor_first; /* who is asked first; then the next ones, round to the one before */
    size_t forward_count;
    size_t waiting_count;
    struct forward *forwards[DNS_CHASED_MAX];
    size_t size;
    uint8_t query[DNS_UDP_QUERY_BYTES_MAX];
};

/* What is compared for each new job, apart from the jobs, so that it is read at once. */
struct job_key {
    uint32_t question_hash;
    uint32_t client_hash;
    uint16_t id; /* sent to the recursor */
    bool busy;
};

struct dns_forwarder {
    size_t job_count; /* jobs that were ever used; behind them memory is untouched */
    size_t forward_count;
    struct job *free_jobs;
    struct forward *free_forwards[DNS_UPSTREAM_KINDS + 1]; /* by kind of their channels */
    size_t idle_channels;                                  /* of those that have one */
    struct forward *soonest, *latest;
    struct job_key keys[DNS_JOBS_MAX];
    struct job jobs[DNS_JOBS_MAX];
    struct forward forwards[DNS_FORWARDS_MAX];
};

static_assert(DNS_TCP_QUERY_BYTES_MAX <= DNS_UDP_QUERY_BYTES_MAX, "a job holds any query");

struct dns_forwarder *dns_forwarder_new(void)
{
    return calloc(1, sizeof(struct dns_forwarder));
}

void dns_forwarder_free(struct dns_forwarder *forwarder)
{
    if (forwarder != NULL) {
        for (size_t i = 0; i < forwarder->forward_count; i++) {
            dns_upstream_close(&forwarder->forwards[i].upstream);
        }
        free(forwarder);
    }
}

/* --- recursors that are ourselves --- */

static bool address_is_wildcard(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6) {
        struct sockaddr_in6 v6;

        memcpy(&v6, address, sizeof(v6));
        return IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr);
    }
    struct sockaddr_in v4;

    memcpy(&v4, address, sizeof(v4));
    return v4.sin_addr.s_addr == htonl(INADDR_ANY);
}

static uint16_t address_port(const struct sockaddr_storage *address)
{
    struct sockaddr_in v4; /* The port stands at the same place in both families. */

    memcpy(&v4, address, sizeof(v4));
    return v4.sin_port;
}

static bool address_hosts_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family == AF_INET6) {
        struct sockaddr_in6 a6, b6;

        memcpy(&a6, a, sizeof(a6));
        memcpy(&b6, b, sizeof(b6));
        return memcmp(&a6.sin6_addr, &b6.sin6_addr, sizeof(a6.sin6_addr)) == 0;
    }
    struct sockaddr_in a4, b4;

    memcpy(&a4, a, sizeof(a4));
    memcpy(&b4, b, sizeof(b4));
    return a4.sin_addr.s_addr == b4.sin_addr.s_addr;
}

/* Whether this machine has the address: only then a socket can be bound to it. */
static bool address_is_local(const struct dns_recursor *recursor)
{
    struct sockaddr_storage address = recursor->address;
    struct sockaddr_in v4;

    memcpy(&v4, &address, sizeof(v4));
    v4.sin_port = 0;
    memcpy(&address, &v4, sizeof(v4));
    const int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return false;
    }
    const bool local = bind(fd, (const struct sockaddr *)&address, recursor->address_size) == 0;

    (void)close(fd);
    return local;
}

/* Whether questions of the family reach the socket, which is bound to `own`: to "::" also those of
 * IPv4, as a rule. */
static bool socket_takes_family(int fd, const struct sockaddr_storage *own, int family)
{
    int v6_only = 1;
    socklen_t size = sizeof(v6_only);

    if (own->ss_family == family) {
        return true;
    }
    return own->ss_family == AF_INET6 && address_is_wildcard(own) &&
           getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, &size) == 0 && v6_only == 0;
}

static bool recursor_is_own(const struct dns_worker *worker, const struct dns_recursor *recursor)
{
    for (size_t i = 0; i < worker->socket_count; i++) {
        const int fd = worker->udp[i].fd;
        struct sockaddr_storage own = {0};
        socklen_t size = sizeof(own);

        if (getsockname(fd, (struct sockaddr *)&own, &size) != 0 ||
            !socket_takes_family(fd, &own, recursor->address.ss_family) ||
            address_port(&own) != address_port(&recursor->address)) {
            continue;
        }
        if (address_is_wildcard(&own) ? address_is_local(recursor)
                                      : address_hosts_equal(&own, &recursor->address)) {
            return true;
        }
    }
    return false;
}

void dns_forward_prepare(struct dns_worker *worker)
{
    struct dns_zone *zone = worker->zone;

    for (size_t i = 0; i < zone->recursor_count; i++) {
        zone->recursors[i].own = recursor_is_own(worker, &zone->recursors[i]);
    }
}

/* --- attempts --- */

static void forward_unlink(struct dns_forwarder *forwarder, struct forward *forward)
{
    if (forward->sooner != NULL) {
        forward->sooner->later = forward->later;
    } else {
        forwarder->soonest = forward->later;
    }
    if (forward->later != NULL) {
        forward->later->sooner = forward->sooner;
    } else {
        forwarder->latest = forward->sooner;
    }
}

/* By deadline; all have the same time but across a reload, so this looks at one, as a rule. */
static void forward_link(struct dns_forwarder *forwarder, struct forward *forward)
{
    struct forward *sooner = forwarder->latest;

    forward->deadline_ms = dns_upstream_deadline_ms(&forward->upstream);
    while (sooner != NULL && sooner->deadline_ms > forward->deadline_ms) {
        sooner = sooner->sooner;
    }
    forward->sooner = sooner;
    forward->later = sooner != NULL ? sooner->later : forwarder->soonest;
    if (forward->later != NULL) {
        forward->later->sooner = forward;
    } else {
        forwarder->latest = forward;
    }
    if (sooner != NULL) {
        sooner->later = forward;
    } else {
        forwarder->soonest = forward;
    }
}

/* Ends what is under way; what was answered stays. */
static void forward_stop(struct dns_forwarder *forwarder, struct forward *forward)
{
    if (forward->upstream.state != DNS_UPSTREAM_IDLE) {
        forward_unlink(forwarder, forward);
        dns_upstream_stop(&forward->upstream);
    }
}

static bool forward_attempt(struct dns_worker *worker, struct forward *forward,
                            const struct dns_recursor *recursor)
{
    const bool chase = forward->chase_size > 0;

    return dns_upstream_ask(worker, &forward->upstream, forward->kind, recursor,
                            chase ? forward->chase : forward->job->query,
                            chase ? forward->chase_size : forward->job->size);
}

/* Asks the next recursor that can be asked; false if none is left. */
static bool forward_start(struct dns_worker *worker, struct forward *forward)
{
    const struct dns_zone *zone = worker->zone;
    struct dns_forwarder *forwarder = worker->forwarder;

    for (; forward->recursor_tries < zone->recursor_count; forward->recursor_tries++) {
        const size_t index = forward->job->recursor_first + forward->recursor_tries;
        const struct dns_recursor *recursor = &zone->recursors[index % zone->recursor_count];

        if (recursor->own) {
            continue;
        }
        dns_worker_count(worker, DNS_COUNT_FORWARDED);
        if (forward_attempt(worker, forward, recursor)) {
            forward_link(forwarder, forward);
            forwarder->keys[forward->job - forwarder->jobs].id = forward->upstream.id;
            return true;
        }
        dns_worker_count(worker, DNS_COUNT_FORWARD_FAILURES);
    }
    return false;
}

/* --- jobs --- */

static uint32_t hash_add(uint32_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < size; i++) { /* FNV-1a: only to count what is alike */
        hash = (hash ^ (uint8_t)slice_lower((char)bytes[i])) * 0x01000193u;
    }
    return hash;
}

static struct job_key job_key(const struct dns_resolver *resolver, const struct dns_asker *asker)
{
    const struct dns_query *query = &resolver->query;
    struct job_key key = {.client_hash = dns_client_hash(asker), .busy = true};
    const uint8_t kind[] = {(uint8_t)(query->type >> 8), (uint8_t)query->type,
                            (uint8_t)(query->class >> 8), (uint8_t)query->class};

    key.question_hash = hash_add(0x811c9dc5u, query->name.wire, query->name.size);
    key.question_hash = hash_add(key.question_hash, kind, sizeof(kind));
    return key;
}

/* Whether there is room for one more of this kind, and it is not our own question come back. */
static bool job_is_welcome(const struct dns_forwarder *forwarder, const struct job_key *key,
                           uint16_t query_id)
{
    size_t of_client = 0;
    size_t same = 0;

    for (size_t i = 0; i < forwarder->job_count; i++) {
        const struct job_key *other = &forwarder->keys[i];

        if (!other->busy) {
            continue;
        }
        of_client += other->client_hash == key->client_hash;
        if (other->question_hash == key->question_hash) {
            same++;
            if (other->id == query_id) {
                return false;
            }
        }
    }
    return of_client < DNS_JOBS_PER_CLIENT_MAX && same < DNS_JOBS_SAME_MAX;
}

static struct job *job_take(struct dns_forwarder *forwarder)
{
    struct job *job = forwarder->free_jobs;

    if (job != NULL) {
        forwarder->free_jobs = job->next_free;
        return job;
    }
    return forwarder->job_count < DNS_JOBS_MAX ? &forwarder->jobs[forwarder->job_count++] : NULL;
}

static struct forward *forward_pop(struct dns_forwarder *forwarder, size_t kind)
{
    struct forward *forward = forwarder->free_forwards[kind];

    if (forward != NULL) {
        forwarder->free_forwards[kind] = forward->next_free;
        if (kind != DNS_UPSTREAM_KINDS) {
            forwarder->idle_channels--;
        }
    }
    return forward;
}

/* At best one that has a channel of this kind. NULL when there is no room. */
static struct forward *forward_take(struct dns_forwarder *forwarder, enum dns_upstream_kind kind)
{
    struct forward *forward = forward_pop(forwarder, kind);

    if (forward == NULL) {
        forward = forward_pop(forwarder, DNS_UPSTREAM_KINDS);
    }
    if (forward == NULL && forwarder->forward_count < DNS_FORWARDS_MAX) {
        forward = &forwarder->forwards[forwarder->forward_count++];
        dns_upstream_init(&forward->upstream);
    }
    for (size_t other = 0; forward == NULL && other < DNS_UPSTREAM_KINDS; other++) {
        forward = forward_pop(forwarder, other);
    }
    return forward;
}

static void forward_push(struct dns_forwarder *forwarder, struct forward *forward)
{
    const size_t kind = forward->upstream.kind;

    forwarder->idle_channels += kind != DNS_UPSTREAM_KINDS;
    forward->next_free = forwarder->free_forwards[kind];
    forwarder->free_forwards[kind] = forward;
}

/* Its channel is kept, if need be instead of one of another kind: one is in use, others may not be.
 */
static void forward_give_back(struct dns_forwarder *forwarder, struct forward *forward)
{
    forward_stop(forwarder, forward);
    free(forward->answer);
    forward->answer = NULL;
    forward->job = NULL;
    if (forward->upstream.kind != DNS_UPSTREAM_KINDS &&
        forwarder->idle_channels == DNS_CHANNELS_IDLE_MAX) {
        struct forward *other = NULL;

        for (size_t kind = 0; other == NULL && kind < DNS_UPSTREAM_KINDS; kind++) {
            other = kind != forward->upstream.kind ? forward_pop(forwarder, kind) : NULL;
        }
        dns_upstream_close(other != NULL ? &other->upstream : &forward->upstream);
        if (other != NULL) {
            forward_push(forwarder, other);
        }
    }
    forward_push(forwarder, forward);
}

/* Gives the job a question; false when there is no room. */
static bool job_add_forward(struct dns_forwarder *forwarder, struct job *job,
                            const struct dns_wanted *wanted)
{
    const enum dns_upstream_kind kind = wanted != NULL             ? DNS_UPSTREAM_CHASE
                                        : job->client.conn != NULL ? DNS_UPSTREAM_TCP
                                                                   : DNS_UPSTREAM_UDP;
    struct forward *forward = forward_take(forwarder, kind);

    if (forward == NULL) {
        return false;
    }
    forward->job = job;
    forward->kind = kind;
    forward->recursor_tries = 0;
    forward->answer = NULL;
    forward->answer_size = 0;
    forward->chase_size = 0;
    if (wanted != NULL) {
        struct dns_writer writer = {.data = forward->chase, .limit = sizeof(forward->chase)};

        dns_writer_u16(&writer, 0);
        dns_writer_u16(&writer, DNS_FLAG_RD);
        dns_writer_u16(&writer, 1);
        for (size_t i = 0; i < 3; i++) {
            dns_writer_u16(&writer, 0);
        }
        dns_writer_bytes(&writer, wanted->wire, wanted->size);
        dns_writer_u16(&writer, DNS_A);
        dns_writer_u16(&writer, DNS_CLASS_IN);
        assert(!writer.failed);
        forward->chase_size = writer.size;
    }
    job->forwards[job->forward_count++] = forward;
    return true;
}

static void job_free(struct dns_forwarder *forwarder, struct job *job)
{
    assert(job->busy);
    for (size_t i = 0; i < job->forward_count; i++) {
        forward_give_back(forwarder, job->forwards[i]);
    }
    dns_client_drop(&job->client);
    job->busy = false;
    forwarder->keys[job - forwarder->jobs].busy = false;
    job->next_free = forwarder->free_jobs;
    forwarder->free_jobs = job;
}

bool dns_forward_begin(struct dns_worker *worker, const struct dns_asker *asker, const void *query,
                       size_t size, uint64_t seed)
{
    struct dns_forwarder *forwarder = worker->forwarder;
    struct dns_resolver *resolver = worker->resolver;
    const struct job_key key = job_key(resolver, asker);
    const uint16_t edns_size = resolver->query.edns ? resolver->query.edns_size : 0;

    if (worker->zone->recursor_count == 0) {
        return false;
    }
    const bool welcome =
        size <= DNS_UDP_QUERY_BYTES_MAX && job_is_welcome(forwarder, &key, resolver->query.id);
    struct job *job = welcome ? job_take(forwarder) : NULL;

    if (job == NULL) {
        dns_worker_count(worker, DNS_COUNT_FORWARD_REFUSED);
        return false;
    }
    job->busy = true;
    forwarder->keys[job - forwarder->jobs] = key;
    dns_client_keep(&job->client, asker);
    job->seed = seed;
    job->recursor_first = worker->zone->config.recursor_random
                              ? dns_random_below(resolver, worker->zone->recursor_count)
                              : 0;
    job->answer_limit = edns_size > DNS_UDP_BYTES_DEFAULT ? edns_size : DNS_UDP_BYTES_DEFAULT;
    job->size = size;
    memcpy(job->query, query, size);
    job->forward_count = 0;
    job->waiting_count = 0;
    bool room = true;

    if (resolver->forward) {
        room = job_add_forward(forwarder, job, NULL);
    }
    for (size_t i = 0; i < resolver->wanted_count && room; i++) {
        room = job_add_forward(forwarder, job, &resolver->wanted[i]);
    }
    for (size_t i = 0; i < job->forward_count; i++) {
        job->waiting_count += forward_start(worker, job->forwards[i]);
    }
    if (job->waiting_count == 0) {
        job_free(forwarder, job);
        return false;
    }
    return true;
}

/* --- answers --- */

/* Sends the `size` bytes behind the first DNS_FRAME_BYTES of the worker's TCP buffer; the job is
 * over. */
static void job_deliver(struct dns_worker *worker, struct job *job, size_t size)
{
    struct dns_client client = job->client;

    /* The job is free before its connection may be closed, which drops the jobs that it has. */
    job->client.conn = NULL;
    job_free(worker->forwarder, job);
    dns_client_send(worker, &client, size);
}

/* Makes our own answer, with all that the recursors have told. */
static void job_answer(struct dns_worker *worker, struct job *job)
{
    struct dns_resolver *resolver = worker->resolver;
    struct dns_chased chased[DNS_CHASED_MAX];
    uint64_t random = job->seed;

    for (size_t i = 0; i < job->forward_count; i++) {
        const struct forward *forward = job->forwards[i];

        chased[i] = (struct dns_chased){
            .name = forward->chase + DNS_HEADER_BYTES,
            .name_size = forward->chase_size == 0 ? 0 : forward->chase_size - DNS_HEADER_BYTES - 4,
            .answer = forward->answer,
            .answer_size = forward->answer_size};
    }
    dns_worker_renew(worker);
    resolver->chased = chased;
    resolver->chased_count = job->forward_count;
    const size_t size = dns_resolver_answer(
        resolver, worker->zone, worker->txn_live ? &worker->txn : NULL, job->query, job->size,
        job->client.conn != NULL, (uint64_t)time(NULL), &random, worker->tcp_out + DNS_FRAME_BYTES,
        job->client.conn != NULL ? DNS_MESSAGE_BYTES_MAX : DNS_UDP_BYTES_MAX);

    resolver->chased = NULL;
    resolver->chased_count = 0;
    assert(size > 0); /* The same query had an answer before. */
    job_deliver(worker, job, size);
}

static void job_end_wait(struct dns_worker *worker, struct job *job)
{
    assert(job->waiting_count > 0);
    job->waiting_count--;
    if (job->waiting_count == 0) {
        job_answer(worker, job);
    }
}

/* Passes the message in the worker's TCP buffer on; only the id is the client's, and what is larger
 * than the client takes is cut to the question. */
static void job_pass_on(struct dns_worker *worker, struct job *job, size_t size,
                        size_t question_end)
{
    uint8_t *message = worker->tcp_out + DNS_FRAME_BYTES;

    memcpy(message, job->query, 2);
    if (job->client.conn == NULL && size > job->answer_limit) {
        message[2] |= DNS_FLAG_TC >> 8;
        memset(message + 6, 0, 6); /* no records */
        size = question_end;
    }
    job_deliver(worker, job, size);
}

/* What has come of the attempt: waiting on, an answer in the worker's TCP buffer, or the next. */
static void forward_follow(struct dns_worker *worker, struct forward *forward,
                           enum dns_upstream_state state)
{
    struct dns_forwarder *forwarder = worker->forwarder;
    struct job *job = forward->job;
    const size_t size = forward->upstream.received;

    if (state == DNS_UPSTREAM_WAITING) { /* It may have more time now, for TCP. */
        forward_unlink(forwarder, forward);
        forward_link(forwarder, forward);
        return;
    }
    forward_stop(forwarder, forward);
    if (state == DNS_UPSTREAM_FAILED) {
        dns_worker_count(worker, DNS_COUNT_FORWARD_FAILURES);
        forward->recursor_tries++;
        if (!forward_start(worker, forward)) {
            job_end_wait(worker, job);
        }
        return;
    }
    if (forward->chase_size == 0) {
        job_pass_on(worker, job, size, forward->upstream.question_end);
        return;
    }
    forward->answer = malloc(size);
    if (forward->answer != NULL) { /* Else the name stays bare. */
        memcpy(forward->answer, worker->tcp_out + DNS_FRAME_BYTES, size);
        forward->answer_size = size;
    }
    job_end_wait(worker, job);
}

void dns_forward_serve(struct dns_worker *worker, struct dns_source *source)
{
    struct forward *forward = (struct forward *)source;

    /* It may be over since the event was taken, or ask something new: so only what the sockets say
     * counts, not the event. */
    if (forward->upstream.state == DNS_UPSTREAM_WAITING) {
        forward_follow(worker, forward, dns_upstream_serve(&forward->upstream));
    }
}

int dns_forward_expire(struct dns_worker *worker)
{
    struct dns_forwarder *forwarder = worker->forwarder;

    while (forwarder->soonest != NULL && forwarder->soonest->deadline_ms <= worker->now_ms) {
        struct forward *forward = forwarder->soonest;

        /* Whether it waits on or asks the next one, its deadline is later then. */
        forward_follow(worker, forward, dns_upstream_expire(&forward->upstream));
    }
    if (forwarder->soonest == NULL) {
        return -1;
    }
    return (int)(forwarder->soonest->deadline_ms - worker->now_ms);
}

void dns_forward_drop(struct dns_worker *worker, const struct dns_conn *conn)
{
    struct dns_forwarder *forwarder = worker->forwarder;

    for (size_t i = 0; i < forwarder->job_count; i++) {
        if (forwarder->jobs[i].busy && forwarder->jobs[i].client.conn == conn) {
            job_free(forwarder, &forwarder->jobs[i]);
        }
    }
}

void dns_forward_drop_all(struct dns_worker *worker)
{
    struct dns_forwarder *forwarder = worker->forwarder;

    for (size_t i = 0; i < forwarder->job_count; i++) {
        if (forwarder->jobs[i].busy) {
            job_free(forwarder, &forwarder->jobs[i]);
        }
    }
}
