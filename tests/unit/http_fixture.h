#ifndef TESTS_UNIT_HTTP_FIXTURE_H
#define TESTS_UNIT_HTTP_FIXTURE_H

/* The real HTTP server on a loop of the test's own, over a replica that is made of a store alone:
 * commands are applied one turn of the loop after they were proposed, reads are fresh at once,
 * unless a test says otherwise. Included by one program each: it defines the replica's functions.
 */

#include <arpa/inet.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "kv/watch.h"
#include "server/http/http_internal.h"
#include "server/server.h"
#include "session/timers.h"

struct fake_proposal {
    struct fake_proposal *next;
    struct buffer command;
    replica_propose_done done;
    replica_renew_done renew_done;
    replica_operate_done operate_done;
    struct uuid renew;
    void *context;
};

struct replica {
    struct server *server;
    uint64_t index;
    struct fake_proposal *first, **last;
    uv_timer_t turn;
    uv_timer_t expiry;
    struct session_timers *timers;
    const char *failure; /* all calls fail with it */
    struct replica_health health;
    bool health_is_garbled;
    bool hold; /* proposals and reads wait until fake_turn */
    struct replica_read *reads;
    unsigned withdrawn;
    struct store_txn txn;
    bool open; /* between fake_begin and fake_commit */
};

struct http_fixture {
    uv_loop_t loop;
    struct config config;
    struct server server;
    struct replica replica;
    char dir[64];
    uint16_t port;
};

/* The families that need an agent are left out. */
#ifndef HTTP_FIXTURE_AGENT /* A program that defines it brings its own. */
const struct http_route http_routes_agent[] = {{NULL, 0, NULL, NULL}};
#endif
#ifndef HTTP_FIXTURE_OPERATOR /* A program that defines it takes the real ones. */
const struct http_route http_routes_operator[] = {{NULL, 0, NULL, NULL}};
#endif
#ifndef HTTP_FIXTURE_CATALOG /* A program that defines it takes the real ones. */
const struct http_route http_routes_catalog[] = {{NULL, 0, NULL, NULL}};
const struct http_route http_routes_health[] = {{NULL, 0, NULL, NULL}};
#endif
const struct http_route http_routes_snapshot[] = {
    {"/v1/snapshot", HTTP_METHOD_GET | HTTP_METHOD_PUT, "OPTIONS,GET,PUT", http_snapshot},
    {NULL, 0, NULL, NULL},
};

void http_snapshot(struct http_request *request)
{
    http_reply_empty(request, 404);
}

void server_random(void *out, size_t size)
{
    const ssize_t got = getrandom(out, size, 0);

    assert(got == (ssize_t)size);
    (void)got;
}

struct uuid server_random_uuid(void)
{
    struct uuid id;

    server_random(&id, sizeof(id));
    return id;
}

uint64_t server_now_ms(const struct server *server)
{
    return uv_now(server->loop);
}

static void fake_arm_expiry(struct replica *replica);

static void fake_session_created(void *host, const struct session *session)
{
    struct replica *replica = host;

    (void)session_timers_reset(replica->timers, &session->id, session->ttl_ms,
                               uv_now(replica->server->loop));
    fake_arm_expiry(replica);
}

static void fake_session_ended(void *host, const struct uuid *id, struct slice cause)
{
    struct replica *replica = host;

    (void)cause;
    session_timers_remove(replica->timers, id);
}

/* What is applied until fake_commit is one batch, as of the replica: where there is much of it, its
 * transactions would cost more than all the rest of a test. */
static void fake_begin(struct replica *replica)
{
    const int rc = store_write_begin(replica->server->store, &replica->txn);

    assert(rc == 0);
    (void)rc;
    replica->open = true;
}

static void fake_commit(struct replica *replica)
{
    int rc = store_applied_set(&replica->txn, 1, replica->index);

    assert(rc == 0);
    rc = store_write_commit(&replica->txn);
    assert(rc == 0);
    (void)rc;
    replica->open = false;
    watch_table_wake(replica->server->watches, &replica->txn);
    store_changes_free(&replica->txn);
}

/* Applies one command, as the replica does with committed ones. */
static void fake_apply(struct replica *replica, struct buffer *command,
                       struct command_result *result)
{
    const struct command_observer observer = {
        .host = replica,
        .session_created = fake_session_created,
        .session_ended = fake_session_ended,
    };
    const bool batch = replica->open;

    if (!batch) {
        fake_begin(replica);
    }
    const bool stamped = command_stamp(command->data, command->size, uv_now(replica->server->loop));

    assert(stamped);
    (void)stamped;
    memset(result, 0, sizeof(*result));
    replica->index++;
    const int rc =
        command_apply(&replica->txn, 1, replica->index, buffer_slice(command), &observer, result);

    assert(rc == 0);
    (void)rc;
    if (!batch) {
        fake_commit(replica);
    }
}

static void fake_turn(uv_timer_t *timer)
{
    struct replica *replica = timer->data;
    struct fake_proposal *proposal = replica->first;

    replica->first = NULL;
    replica->last = &replica->first;
    while (proposal != NULL) {
        struct fake_proposal *next = proposal->next;
        struct command_result result;

        if (proposal->renew_done != NULL) {
            struct store_txn txn;
            struct session session;

            int rc = store_read_begin(replica->server->store, &txn);
            assert(rc == 0);
            rc = session_get(&txn, &proposal->renew, &session);
            if (rc == 0) {
                (void)session_timers_reset(replica->timers, &proposal->renew, session.ttl_ms,
                                           uv_now(replica->server->loop));
            }
            store_read_end(&txn);
            proposal->renew_done(proposal->context, replica->failure, rc == 0);
        } else if (proposal->operate_done != NULL) {
            proposal->operate_done(proposal->context, replica->failure, SLICE_EMPTY);
        } else if (replica->failure != NULL) {
            proposal->done(proposal->context, replica->failure, NULL);
        } else {
            fake_apply(replica, &proposal->command, &result);
            proposal->done(proposal->context, NULL, &result);
        }
        buffer_deinit(&proposal->command);
        free(proposal);
        proposal = next;
    }
}

static void fake_queue(struct replica *replica, struct fake_proposal *proposal)
{
    *replica->last = proposal;
    replica->last = &proposal->next;
    if (!replica->hold) {
        (void)uv_timer_start(&replica->turn, fake_turn, 0, 0);
    }
}

static void fake_expire(uv_timer_t *timer)
{
    struct replica *replica = timer->data;
    struct uuid id;

    while (session_timers_expire(replica->timers, uv_now(timer->loop), &id)) {
        struct buffer command = {0};
        struct command_result result;

        command_encode_session_destroy(&command, &id, SLICE_LITERAL("ttl expired"));
        fake_apply(replica, &command, &result);
        buffer_deinit(&command);
    }
    fake_arm_expiry(replica);
}

static void fake_arm_expiry(struct replica *replica)
{
    const uint64_t due = session_timers_next_ms(replica->timers);
    const uint64_t now = uv_now(replica->server->loop);

    if (due != UINT64_MAX) {
        (void)uv_timer_start(&replica->expiry, fake_expire, due > now ? due - now : 0, 0);
    }
}

void replica_propose(struct replica *replica, struct slice command, replica_propose_done done,
                     void *context)
{
    struct fake_proposal *proposal = calloc(1, sizeof(*proposal));

    assert(proposal != NULL);
    assert(command_valid(command));
    buffer_append_slice(&proposal->command, command);
    proposal->done = done;
    proposal->context = context;
    fake_queue(replica, proposal);
}

void replica_session_renew(struct replica *replica, const struct uuid *id, replica_renew_done done,
                           void *context)
{
    struct fake_proposal *proposal = calloc(1, sizeof(*proposal));

    assert(proposal != NULL);
    proposal->renew = *id;
    proposal->renew_done = done;
    proposal->context = context;
    fake_queue(replica, proposal);
}

void replica_freshness(const struct replica *replica, struct replica_freshness *out)
{
    *out = (struct replica_freshness){.known_leader = replica->failure == NULL};
}

void replica_read(struct replica *replica, struct replica_read *read,
                  enum replica_consistency consistency, replica_read_done done, void *context)
{
    struct replica_freshness freshness;

    read->done = done;
    read->context = context;
    read->consistency = consistency;
    replica_freshness(replica, &freshness);
    if (replica->hold) {
        read->next = replica->reads;
        replica->reads = read;
        return;
    }
    done(context, consistency == REPLICA_STALE ? NULL : replica->failure, &freshness);
}

void replica_read_cancel(struct replica *replica, struct replica_read *read)
{
    for (struct replica_read **at = &replica->reads; *at != NULL; at = &(*at)->next) {
        if (*at == read) {
            *at = read->next;
            replica->withdrawn++;
            return;
        }
    }
}

bool replica_is_leader(const struct replica *replica)
{
    return replica->failure == NULL;
}

void replica_leader_address(const struct replica *replica, char *out, size_t out_bytes)
{
    (void)snprintf(out, out_bytes, "%s", replica->failure == NULL ? "127.0.0.1:8300" : "");
}

size_t replica_peers(const struct replica *replica, struct replica_peer *out, size_t out_max)
{
    (void)replica;
    if (out_max > 0) {
        memset(out, 0, sizeof(*out));
        strcpy(out->address, "127.0.0.1:8300");
    }
    return 1;
}

void replica_stats(const struct replica *replica, struct replica_stats *out)
{
    *out = (struct replica_stats){.term = 1, .applied_index = replica->index, .state = "Leader"};
}

#ifdef HTTP_FIXTURE_OPERATOR /* It asks for more: the answer to all is what the test says. */
static struct replica *fake_replica;

void replica_operate(struct replica *replica, enum replica_operation operation,
                     struct slice argument, replica_operate_done done, void *context)
{
    struct fake_proposal *proposal = calloc(1, sizeof(*proposal));

    assert(proposal != NULL);
    (void)operation;
    (void)argument;
    fake_replica = replica;
    proposal->operate_done = done;
    proposal->context = context;
    fake_queue(replica, proposal);
}

bool replica_health_decode(struct slice bytes, struct replica_health *out)
{
    (void)bytes;
    *out = fake_replica->health;
    return !fake_replica->health_is_garbled;
}

uint64_t replica_peers_index(const struct replica *replica)
{
    return replica->index;
}
#endif

/* The node that sessions are made on, with its serfHealth. */
static void fake_register_node(struct replica *replica)
{
    struct catalog_registration registration = {0};
    struct buffer checks = {0};
    struct buffer record = {0};
    struct buffer command = {0};
    struct command_result result;
    const struct catalog_check check = {
        .node = SLICE_LITERAL("node1"),
        .id = SLICE_LITERAL("serfHealth"),
        .name = SLICE_LITERAL("Serf Health Status"),
        .status = SLICE_LITERAL("passing"),
        .notes = SLICE_EMPTY,
        .output = SLICE_EMPTY,
        .service_id = SLICE_EMPTY,
        .service_name = SLICE_EMPTY,
        .service_tags = STRINGS_NULL,
        .type = SLICE_EMPTY,
        .definition = SLICE_EMPTY,
    };

    registration.node.id = SLICE_EMPTY;
    registration.node.name = SLICE_LITERAL("node1");
    registration.node.address = SLICE_LITERAL("127.0.0.1");
    registration.node.datacenter = SLICE_LITERAL("dc1");
    registration.node.tagged_addresses = STRINGS_NULL;
    registration.node.meta = STRINGS_NULL;
    catalog_check_encode(&record, &check);
    buffer_put_string(&checks, buffer_slice(&record));
    registration.check_count = 1;
    registration.checks = buffer_slice(&checks);
    command_encode_register(&command, &registration);
    fake_apply(replica, &command, &result);
    assert(result.status == COMMAND_DONE);
    buffer_deinit(&checks);
    buffer_deinit(&record);
    buffer_deinit(&command);
}

static void http_fixture_open(struct http_fixture *fixture, int port)
{
    static char datacenter[] = "dc1";
    static char node_name[] = "node1";
    static char address[] = "127.0.0.1";
    struct errmsg err = {""};
    bool wiped;

    /* As the server does: a client may go at any time, and libuv writes to it once more. */
    (void)signal(SIGPIPE, SIG_IGN);
    memset(fixture, 0, sizeof(*fixture));
    strcpy(fixture->dir, "/tmp/proconsul-http-XXXXXX");
    const char *made = mkdtemp(fixture->dir);

    assert(made != NULL);
    (void)made;
    const struct store_options options = {.dir = fixture->dir, .bytes_max = 256U << 20};
    int rc = uv_loop_init(&fixture->loop);

    assert(rc == 0);
    rc = store_open(&options, &fixture->server.store, &wiped, &err);
    assert(rc == 0);
    rc = watch_table_new(&fixture->server.watches);
    assert(rc == 0);
    fixture->config = (struct config){
        .server = true,
        .datacenter = datacenter,
        .node_name = node_name,
        .client_addr = address,
        .http_port = port,
        .session_ttl_min_ns = 5000000000ULL,
        .kv_value_bytes_max = 512 * 1024,
        .txn_request_bytes_max = 512 * 1024,
        .http_conns_per_client_max = 200,
    };
    fixture->server.loop = &fixture->loop;
    fixture->server.config = &fixture->config;
    fixture->server.replica = &fixture->replica;
    fixture->replica.server = &fixture->server;
    fixture->replica.last = &fixture->replica.first;
    rc = session_timers_new(&fixture->replica.timers);
    assert(rc == 0);
    (void)uv_timer_init(&fixture->loop, &fixture->replica.turn);
    (void)uv_timer_init(&fixture->loop, &fixture->replica.expiry);
    fixture->replica.turn.data = &fixture->replica;
    fixture->replica.expiry.data = &fixture->replica;
    fake_register_node(&fixture->replica);
    rc = http_server_new(&fixture->server, &fixture->server.http, &err);
    if (rc != 0) {
        (void)fprintf(stderr, "%s\n", err.text);
    }
    assert(rc == 0);
    fixture->port = http_server_port(fixture->server.http);
}

static void http_fixture_close(struct http_fixture *fixture)
{
    char path[512];
    struct dirent *entry;

    http_server_free(fixture->server.http);
    fake_turn(&fixture->replica.turn); /* Proposals that are still held come back. */
    uv_close((uv_handle_t *)&fixture->replica.turn, NULL);
    uv_close((uv_handle_t *)&fixture->replica.expiry, NULL);
    (void)uv_run(&fixture->loop, UV_RUN_DEFAULT);
    const int rc = uv_loop_close(&fixture->loop);

    assert(rc == 0); /* Nothing was left open. */
    (void)rc;
    session_timers_free(fixture->replica.timers);
    assert(watch_table_count(fixture->server.watches) == 0);
    watch_table_free(fixture->server.watches);
    store_close(fixture->server.store);
    DIR *dir = opendir(fixture->dir);

    assert(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        (void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(dir);
    (void)rmdir(fixture->dir);
}

/* Writes a key as a client would, with an index of its own. */
static inline void http_fixture_put(struct http_fixture *fixture, const char *key,
                                    const char *value, size_t size)
{
    struct buffer command = {0};
    struct command_result result;

    command_encode_kv(&command, COMMAND_KV_SET, slice_from_text(key), slice_from(value, size), 0, 0,
                      NULL);
    fake_apply(&fixture->replica, &command, &result);
    assert(result.ok);
    buffer_deinit(&command);
}

#endif
