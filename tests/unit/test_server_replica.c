/* Servers that form one cluster: that a write through any of them reaches all, that they go on when
 * the leader goes, what a pause of the process may not do, and what one turn of the loop takes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>

#include "replica_fixture.h"

enum { SERVERS = 5 };

/* --- writes --- */

struct reading {
    struct replica_read read;
    struct cluster *cluster;
    struct server *server;
    const char *key;
    char value[64];
};

static void on_read(void *context, const char *failure, const struct replica_freshness *freshness)
{
    struct reading *reading = context;
    struct kv_entry entry;
    struct store_txn txn;

    (void)freshness;
    assert_null(failure);
    assert_int_equal(store_read_begin(reading->server->store, &txn), 0);
    assert_int_equal(kv_get(&txn, slice_from_text(reading->key), &entry), 0);
    assert_in_range(entry.value.size, 0, sizeof(reading->value) - 1);
    memcpy(reading->value, entry.value.data, entry.value.size);
    reading->value[entry.value.size] = 0;
    store_read_end(&txn);
    reading->cluster->open--;
}

static void check_value(struct cluster *cluster, int which, enum replica_consistency consistency,
                        const char *key, const char *value)
{
    struct reading reading = {.cluster = cluster, .server = &cluster->servers[which], .key = key};

    cluster->open++;
    replica_read(reading.server->replica, &reading.read, consistency, on_read, &reading);
    cluster_wait(cluster, all_is_answered);
    assert_string_equal(reading.value, value);
}

static void a_write_through_any_server_is_read_through_every_other(void **state)
{
    struct cluster *cluster = cluster_new(SERVERS);

    (void)state;
    for (int writer = 0; writer < SERVERS; writer++) {
        char value[32];

        (void)snprintf(value, sizeof(value), "from-%d", writer);
        cluster_put(cluster, writer, "k", value);
        cluster_written(cluster);
        for (int reader = 0; reader < SERVERS; reader++) {
            check_value(cluster, reader, REPLICA_DEFAULT, "k", value);
            check_value(cluster, reader, REPLICA_CONSISTENT, "k", value);
        }
    }
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static void many_writes_through_all_servers_leave_equal_stores(void **state)
{
    struct cluster *cluster = cluster_new(SERVERS);

    (void)state;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 500; i++) {
            char key[32];

            (void)snprintf(key, sizeof(key), "key-%d", (round * 37 + i) % 1000);
            cluster_put(cluster, i % SERVERS, key, key);
        }
        cluster_written(cluster);
    }
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static void the_rest_goes_on_without_the_leader_and_it_catches_up(void **state)
{
    struct cluster *cluster = cluster_new(SERVERS);
    int leader;

    (void)state;
    cluster_put(cluster, 0, "before", "1");
    cluster_written(cluster);
    leader = cluster_leader(cluster);
    cluster_stop(cluster, leader);
    /* Held inside until there is a new leader, not failed. */
    cluster_put(cluster, (leader + 1) % SERVERS, "after", "2");
    cluster_written(cluster);
    cluster_start(cluster, leader);
    (void)cluster_leader(cluster);
    cluster_put(cluster, leader, "returned", "3");
    cluster_written(cluster);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static void a_restarted_cluster_has_what_it_acknowledged(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    for (int i = 0; i < 100; i++) {
        char key[32];

        (void)snprintf(key, sizeof(key), "key-%d", i);
        cluster_put(cluster, i % 3, key, key);
    }
    cluster_written(cluster);
    cluster_stop_all(cluster);
    for (int i = 0; i < 3; i++) {
        cluster_start(cluster, i);
    }
    (void)cluster_leader(cluster);
    for (int i = 0; i < 3; i++) {
        check_value(cluster, i, REPLICA_CONSISTENT, "key-99", "key-99");
    }
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static void without_a_quorum_a_write_fails_after_the_hold_time(void **state)
{
    struct cluster *cluster = cluster_new(3);
    const int leader = cluster_leader(cluster);
    const int alone = (leader + 2) % 3;

    (void)state;
    cluster_stop(cluster, leader);
    cluster_stop(cluster, (leader + 1) % 3);
    cluster->configs[alone].rpc_hold_timeout_ms = 1500;
    cluster_put(cluster, alone, "k", "v");
    cluster_wait(cluster, all_is_answered);
    assert_int_equal(cluster->writes_failed, 1);
    assert_string_equal(cluster->write_failure, "No cluster leader");
    cluster_free(cluster);
}

/* --- a process that was stopped --- */

static void on_read_noted(void *context, const char *failure,
                          const struct replica_freshness *freshness)
{
    bool *answered = context;

    (void)failure;
    (void)freshness;
    *answered = true;
}

/* Whether the leader answers a read at once. */
static bool lease_answers(struct cluster *cluster)
{
    struct replica *replica = cluster->servers[leader_of(cluster)].replica;
    struct replica_read read;
    bool answered = false;

    replica_read(replica, &read, REPLICA_DEFAULT, on_read_noted, &answered);
    replica_read_cancel(replica, &read);
    return answered;
}

static bool a_lease_answers(struct cluster *cluster)
{
    return leader_of(cluster) >= 0 && lease_answers(cluster);
}

/* Symptom: a leader that is stopped amid a pass of the loop and goes on when another one leads
 * judged its lease by the clock that libuv read before the stop. Rule: dissertation 6.4.1. */
static void a_stopped_leader_does_not_answer_by_the_lease_of_before(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_wait(cluster, a_lease_answers);
    (void)usleep((REPLICA_LEASE_MS + 200) * 1000); /* The loop does not see this time pass. */
    assert_false(lease_answers(cluster));
    cluster_wait(cluster, a_lease_answers);
    cluster_free(cluster);
}

struct renewal {
    struct cluster *cluster;
    bool found;
};

static void on_renewed(void *context, const char *failure, bool found)
{
    struct renewal *renewal = context;

    assert_null(failure);
    renewal->found = found;
    renewal->cluster->open--;
}

/* Whether the session lives, as server 0 says. */
static bool renew(struct cluster *cluster, const struct uuid *id)
{
    struct renewal renewal = {.cluster = cluster};

    cluster->open++;
    replica_session_renew(cluster->servers[0].replica, id, on_renewed, &renewal);
    cluster_wait(cluster, all_is_answered);
    return renewal.found;
}

/* A session with a TTL of a second. */
static struct uuid create_session(struct cluster *cluster)
{
    struct session session = {.name = SLICE_LITERAL("s"),
                              .node = SLICE_LITERAL("n"),
                              .ttl = SLICE_LITERAL("1s"),
                              .ttl_ms = 1000};
    const struct catalog_registration registration = {
        .node = {.name = SLICE_LITERAL("n"), .address = SLICE_LITERAL("127.0.0.1")}};
    struct buffer command = {0};

    command_encode_register(&command, &registration);
    cluster_propose(cluster, 0, &command);
    server_random(&session.id, sizeof(session.id));
    command_encode_session_create(&command, &session);
    cluster_propose(cluster, 0, &command);
    buffer_deinit(&command);
    cluster_written(cluster);
    return session.id;
}

/* Some turns of the loop, without waiting in them: a renewal takes some, from the socket on. */
static void turn(struct cluster *cluster)
{
    for (int pass = 0; pass < 20; pass++) {
        (void)uv_run(&cluster->loop, UV_RUN_NOWAIT);
    }
}

/* Symptom: a server without peers to step down for, stopped for as long as a session's timer still
 * ran, ended the session before it read the renewals that had been sent meanwhile. */
static void a_pause_of_the_server_ends_no_session(void **state)
{
    struct cluster *cluster = cluster_new(1);
    struct uuid id;

    (void)state;
    id = create_session(cluster);
    (void)usleep(2500 * 1000); /* More than twice the TTL. */
    turn(cluster);
    assert_true(renew(cluster, &id));
    cluster_free(cluster);
}

/* Symptom: renewals wait for the state to be up to date, which it is not while the store is full:
 * every session ended for a full disk, as soon as there was space. */
static void a_full_store_ends_no_session(void **state)
{
    struct cluster *cluster = cluster_new(1);
    struct replica *replica = cluster->servers[0].replica;
    struct uuid id;

    (void)state;
    id = create_session(cluster);
    replica->apply_stalled = true;
    replica->apply_retry_ms = UINT64_MAX;
    cluster_run(cluster, 2500);
    replica->apply_retry_ms = 0;
    replica_wake(replica);
    turn(cluster);
    assert_true(renew(cluster, &id));
    cluster_free(cluster);
}

/* Symptom: a session whose end was under way, because its time was over, was renewed: its holder
 * was told that it lived, and a moment later it did not. */
static void a_session_that_is_about_to_end_is_not_renewed(void **state)
{
    struct cluster *cluster = cluster_new(1);
    struct replica *replica = cluster->servers[0].replica;
    struct renewal renewal = {.cluster = cluster};
    struct uuid id;

    (void)state;
    id = create_session(cluster);
    session_timers_remove(replica->timers, &id); /* As it is taken out when it is due. */
    cluster->open++;
    replica_session_renew(replica, &id, on_renewed, &renewal);
    cluster_run(cluster, 500);
    assert_int_equal(cluster->open, 1);

    /* It did not come to that. */
    assert_int_equal(session_timers_retry(replica->timers, &id, UINT64_MAX), 0);
    cluster_wait(cluster, all_is_answered);
    assert_true(renewal.found);
    cluster_free(cluster);
}

/* --- bounds of a turn --- */

static bool server_0_has_applied_all(struct cluster *cluster)
{
    const struct replica *replica = cluster->servers[0].replica;

    return replica->remote_count == 0 && replica->applied_index == raft_last_index(replica->raft);
}

/* Symptom: of a forwarded batch that did not fit what was left of a turn, the rest was dropped, but
 * the whole was answered as logged. */
static void a_forwarded_batch_goes_into_the_log_as_a_whole(void **state)
{
    static const uint32_t counts[] = {REPLICA_TURN_COMMANDS_MAX, MESSAGE_COMMANDS_MAX, 1, 2000,
                                      100};
    struct cluster *cluster = cluster_new(1);
    struct replica *replica = cluster->servers[0].replica;
    uint64_t keys = 0;
    uint64_t expected = 0;
    struct store_txn txn;

    (void)state;
    replica->start_pending = true; /* As in the first turn of a term. */
    for (size_t batch = 0; batch < sizeof(counts) / sizeof(counts[0]); batch++) {
        struct buffer payload = {0};
        struct buffer command = {0};
        char key[32];

        message_put_propose(&payload, batch, counts[batch]);
        for (uint32_t i = 0; i < counts[batch]; i++) {
            (void)snprintf(key, sizeof(key), "remote-%zu-%u", batch, i);
            buffer_clear(&command);
            command_encode_kv(&command, COMMAND_KV_SET, slice_from_text(key), SLICE_EMPTY, 0, 0,
                              NULL);
            buffer_put_string(&payload, buffer_slice(&command));
        }
        replica_on_propose(replica, 1, buffer_slice(&payload));
        (void)snprintf(key, sizeof(key), "local-%zu", batch);
        cluster_put(cluster, 0, key, "");
        expected += counts[batch] + 1;
        buffer_deinit(&payload);
        buffer_deinit(&command);
    }
    cluster_written(cluster);
    cluster_wait(cluster, server_0_has_applied_all);
    assert_int_equal(store_read_begin(cluster->servers[0].store, &txn), 0);
    assert_int_equal(store_table_count(&txn, STORE_KV, &keys), 0);
    store_read_end(&txn);
    assert_int_equal(keys, expected);
    cluster_free(cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_through_any_server_is_read_through_every_other),
        cmocka_unit_test(many_writes_through_all_servers_leave_equal_stores),
        cmocka_unit_test(the_rest_goes_on_without_the_leader_and_it_catches_up),
        cmocka_unit_test(a_restarted_cluster_has_what_it_acknowledged),
        cmocka_unit_test(without_a_quorum_a_write_fails_after_the_hold_time),
        cmocka_unit_test(a_stopped_leader_does_not_answer_by_the_lease_of_before),
        cmocka_unit_test(a_pause_of_the_server_ends_no_session),
        cmocka_unit_test(a_full_store_ends_no_session),
        cmocka_unit_test(a_session_that_is_about_to_end_is_not_renewed),
        cmocka_unit_test(a_forwarded_batch_goes_into_the_log_as_a_whole),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
