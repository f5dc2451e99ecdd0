/* Commands that go through many records: a worker applies them, and what waits for them learns of
 * it as ever. Symptom: the deletion of a large tree, or the end of a session with many locks, held
 * the loops of all servers for seconds. Heartbeats were late, the leader was given up, and nobody
 * read or wrote until there was another one. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>

#include "replica_fixture.h"

enum { KEYS = REPLICA_TURN_RECORDS_MAX + 100 };

static const struct uuid session_id = {{1, 2, 3}};

/* A command at work on server 0: whether it went to a worker, and what came of it. */
struct work {
    struct watch watch; /* first: on_wake finds the rest behind it */
    bool held;
    bool done;
    bool ok;
    bool woken;
    size_t answer_bytes;
};

static void on_wake(struct watch *watch)
{
    ((struct work *)(void *)watch)->woken = true;
}

static void on_done(void *context, const char *failure, const struct command_result *result)
{
    struct work *work = context;

    assert_null(failure);
    work->done = true;
    work->ok = result->ok;
    work->answer_bytes = command_answer(result).size;
}

/* Has server 0 do it, while `key` is waited for. The loop is looked at after each of its turns: a
 * worker's end comes in a later one than its start. */
static void run(struct cluster *cluster, struct work *work, struct buffer *command, const char *key)
{
    struct server *server = &cluster->servers[0];

    *work = (struct work){.watch = {.on_wake = on_wake}};
    assert_int_equal(
        watch_add_key(server->watches, &work->watch, STORE_TOPIC_KV, slice_from_text(key)), 0);
    replica_propose(server->replica, buffer_slice(command), on_done, work);
    buffer_deinit(command);
    while (!work->done) {
        (void)uv_run(&cluster->loop, UV_RUN_ONCE);
        work->held = work->held || server->replica->apply_held;
    }
    watch_remove(server->watches, &work->watch);
}

static void fill(struct cluster *cluster, enum command_kv_verb verb)
{
    for (int i = 0; i < KEYS; i++) {
        struct buffer command = {0};
        char key[32];

        (void)snprintf(key, sizeof(key), "tree/%d", i);
        command_encode_kv(&command, verb, slice_from_text(key), SLICE_LITERAL("v"), 0, 0,
                          &session_id);
        cluster_propose(cluster, 0, &command);
        buffer_deinit(&command);
    }
    cluster_written(cluster);
}

static uint64_t count(struct cluster *cluster, enum store_table table)
{
    struct store_txn txn;
    uint64_t records;

    assert_int_equal(store_read_begin(cluster->servers[0].store, &txn), 0);
    assert_int_equal(store_table_count(&txn, table, &records), 0);
    store_read_end(&txn);
    return records;
}

static void create_session(struct cluster *cluster)
{
    const struct session session = {.id = session_id,
                                    .name = SLICE_LITERAL("s"),
                                    .node = SLICE_LITERAL("n"),
                                    .ttl = SLICE_LITERAL("3600s"),
                                    .ttl_ms = 3600 * 1000};
    const struct catalog_registration registration = {
        .node = {.name = SLICE_LITERAL("n"), .address = SLICE_LITERAL("127.0.0.1")}};
    struct buffer command = {0};

    command_encode_register(&command, &registration);
    cluster_propose(cluster, 0, &command);
    command_encode_session_create(&command, &session);
    cluster_propose(cluster, 0, &command);
    buffer_deinit(&command);
    cluster_written(cluster);
}

static void a_large_tree_is_deleted_beside_the_loop(void **state)
{
    struct cluster *cluster = cluster_new(1);
    struct buffer command = {0};
    struct work work;

    (void)state;
    fill(cluster, COMMAND_KV_SET);
    command_encode_kv(&command, COMMAND_KV_DELETE_PREFIX, SLICE_LITERAL("tree/"), SLICE_EMPTY, 0, 0,
                      NULL);
    run(cluster, &work, &command, "tree/77");
    assert_true(work.held);
    assert_true(work.ok);
    assert_true(work.woken);
    assert_int_equal(count(cluster, STORE_KV), 0);

    /* A small one is a matter of the turn. */
    cluster_put(cluster, 0, "tree/1", "v");
    cluster_written(cluster);
    command_encode_kv(&command, COMMAND_KV_DELETE_PREFIX, SLICE_LITERAL("tree/"), SLICE_EMPTY, 0, 0,
                      NULL);
    run(cluster, &work, &command, "tree/1");
    assert_false(work.held);
    assert_true(work.woken);
    cluster_free(cluster);
}

static void a_transaction_that_goes_through_a_large_tree_is_answered(void **state)
{
    const struct txn_op ops[] = {
        {.kind = TXN_KV,
         .verb = TXN_DELETE_TREE,
         .key = SLICE_LITERAL("tree/"),
         .value = SLICE_EMPTY},
        {.kind = TXN_KV, .verb = TXN_SET, .key = SLICE_LITERAL("other"), .value = SLICE_EMPTY},
        {.kind = TXN_KV, .verb = TXN_GET, .key = SLICE_LITERAL("tree/5"), .value = SLICE_EMPTY},
    };
    struct cluster *cluster = cluster_new(1);
    struct buffer encoded = {0};
    struct buffer command = {0};
    struct work work;

    (void)state;
    fill(cluster, COMMAND_KV_SET);
    for (size_t i = 0; i < 3; i++) {
        txn_op_encode(&encoded, &ops[i]);
    }
    command_encode_txn(&command, buffer_slice(&encoded));
    run(cluster, &work, &command, "tree/77");
    assert_true(work.held);
    assert_false(work.ok); /* The key that it gets is gone: all stays as it was. */
    assert_false(work.woken);
    assert_true(work.answer_bytes > 0);
    assert_int_equal(count(cluster, STORE_KV), KEYS);

    buffer_clear(&encoded);
    for (size_t i = 0; i < 2; i++) {
        txn_op_encode(&encoded, &ops[i]);
    }
    command_encode_txn(&command, buffer_slice(&encoded));
    run(cluster, &work, &command, "tree/77");
    assert_true(work.held);
    assert_true(work.ok);
    assert_true(work.woken);
    assert_true(work.answer_bytes > 0);
    assert_int_equal(count(cluster, STORE_KV), 1);
    buffer_deinit(&encoded);
    cluster_free(cluster);
}

static void a_session_with_many_locks_ends_beside_the_loop(void **state)
{
    struct cluster *cluster = cluster_new(1);
    struct replica *replica = cluster->servers[0].replica;
    struct buffer command = {0};
    struct work work;

    (void)state;
    create_session(cluster);
    fill(cluster, COMMAND_KV_LOCK);
    assert_int_equal(count(cluster, STORE_SESSION_KEY), KEYS);
    assert_true(session_timers_has(replica->timers, &session_id));
    command_encode_session_destroy(&command, &session_id, SLICE_LITERAL("test"));
    run(cluster, &work, &command, "tree/77");
    assert_true(work.held);
    assert_true(work.ok);
    assert_true(work.woken);
    assert_int_equal(count(cluster, STORE_SESSION), 0);
    assert_int_equal(count(cluster, STORE_SESSION_KEY), 0);
    assert_int_equal(count(cluster, STORE_KV), KEYS);
    assert_false(session_timers_has(replica->timers, &session_id));
    cluster_free(cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_tree_is_deleted_beside_the_loop),
        cmocka_unit_test(a_transaction_that_goes_through_a_large_tree_is_answered),
        cmocka_unit_test(a_session_with_many_locks_ends_beside_the_loop),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
