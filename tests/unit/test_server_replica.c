/* Five replicas in one process, on loopback addresses of their own, over real links, logs and
 * stores: that they form one cluster, that a write through any of them reaches all, and that they
 * go on when the leader goes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { SERVERS = 5, SERVERS_MAX = 6, WAIT_MS_MAX = 60000 };

struct cluster {
    uv_loop_t loop;
    struct server servers[SERVERS_MAX];
    struct config configs[SERVERS_MAX];
    char dir[64];
    char dirs[SERVERS_MAX][96];
    char names[SERVERS_MAX][32];
    char addresses[SERVERS_MAX][32];
    char joins[SERVERS_MAX][64];
    char *join_list[SERVERS_MAX];
    char datacenter[4];
};

static int free_port(const char *address)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t size = sizeof(name);

    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, address, &name.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &size), 0);
    (void)close(fd);
    return ntohs(name.sin_port);
}

static void on_member(void *host, const struct member *member)
{
    struct server *server = host;

    if (server->replica != NULL) {
        replica_members_changed(server->replica, member);
    }
}

static void cluster_start(struct cluster *cluster, int which)
{
    struct server *server = &cluster->servers[which];
    struct errmsg err = {{0}};

    if (replica_new(server, &server->replica, &err) != 0 ||
        membership_new(server, on_member, server, &server->membership, &err) != 0) {
        fail_msg("server %d: %s", which, err.text);
    }
    replica_members_changed(server->replica, NULL);
}

static void cluster_stop(struct cluster *cluster, int which)
{
    struct server *server = &cluster->servers[which];

    membership_free(server->membership);
    server->membership = NULL;
    replica_free(server->replica);
    server->replica = NULL;
}

static void stop_all(struct cluster *cluster)
{
    for (int i = 0; i < SERVERS_MAX; i++) {
        if (cluster->servers[i].replica != NULL) {
            cluster_stop(cluster, i);
        }
    }
}

static int64_t stabilization_ns = INT64_C(10000000000);

static void cluster_prepare(struct cluster *cluster, int i, int expect)
{
    struct config *config = &cluster->configs[i];
    struct server *server = &cluster->servers[i];

    (void)snprintf(cluster->dirs[i], sizeof(cluster->dirs[i]), "%s/%d", cluster->dir, i);
    (void)snprintf(cluster->names[i], sizeof(cluster->names[i]), "server-%d", i);
    (void)snprintf(cluster->addresses[i], sizeof(cluster->addresses[i]), "127.0.9.%d", i + 1);
    config->server = true;
    config->bootstrap_expect = (uint32_t)expect;
    config->datacenter = cluster->datacenter;
    config->node_name = cluster->names[i];
    config->data_dir = cluster->dirs[i];
    config->bind_addr = cluster->addresses[i];
    config->advertise_addr = cluster->addresses[i];
    config->serf_lan_port = free_port(cluster->addresses[i]);
    config->server_port = free_port(cluster->addresses[i]);
    config->raft_multiplier = 1;
    autopilot_config_init(&config->autopilot);
    config->autopilot.server_stabilization_time_ns = stabilization_ns;
    config->rpc_hold_timeout_ms = 7000;
    config->raft_snapshot_threshold = 500; /* several in each longer test */
    config->raft_snapshot_interval_ms = 100;
    config->raft_trailing_logs = 100;
    config->state_bytes_max = 1 << 30;
    config->retry_join = cluster->join_list;
    config->retry_join_count = (size_t)i + 1;
    (void)snprintf(cluster->joins[i], sizeof(cluster->joins[i]), "127.0.9.%d:%d", i + 1,
                   config->serf_lan_port);
    cluster->join_list[i] = cluster->joins[i];
    server->loop = &cluster->loop;
    server->config = config;
    server_random(server->node_id.bytes, UUID_BYTES);
    assert_int_equal(watch_table_new(&server->watches), 0);
}

/* `count` servers, of which `expect` form the cluster. */
static struct cluster *cluster_new_of(int count, int expect)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));

    assert_non_null(cluster);
    log_level_set(LOG_ERROR);
    assert_int_equal(uv_loop_init(&cluster->loop), 0);
    (void)snprintf(cluster->dir, sizeof(cluster->dir), "/tmp/proconsul-test-XXXXXX");
    assert_non_null(mkdtemp(cluster->dir));
    memcpy(cluster->datacenter, "dc1", 4);
    for (int i = 0; i < count; i++) {
        cluster_prepare(cluster, i, expect);
    }
    for (int i = 0; i < count; i++) {
        cluster->configs[i].retry_join_count = (size_t)count;
    }
    for (int i = 0; i < count; i++) {
        cluster_start(cluster, i);
    }
    return cluster;
}

/* One more server, that joins the others. */
static int cluster_grow(struct cluster *cluster)
{
    int which = 0;

    while (cluster->servers[which].config != NULL) {
        which++;
    }
    assert_true(which < SERVERS_MAX);
    cluster_prepare(cluster, which, (int)cluster->configs[0].bootstrap_expect);
    cluster_start(cluster, which);
    return which;
}

static struct cluster *cluster_new(int count)
{
    return cluster_new_of(count, count);
}

static void cluster_free(struct cluster *cluster)
{
    char command[128];

    for (int i = 0; i < SERVERS_MAX; i++) {
        if (cluster->servers[i].replica != NULL) {
            cluster_stop(cluster, i);
        }
        if (cluster->servers[i].watches != NULL) {
            watch_table_free(cluster->servers[i].watches);
        }
    }
    for (int i = 0; i < 1000 && uv_loop_close(&cluster->loop) != 0; i++) {
        (void)uv_run(&cluster->loop, UV_RUN_ONCE);
    }
    (void)snprintf(command, sizeof(command), "rm -rf %s", cluster->dir);
    assert_int_equal(system(command), 0);
    free(cluster);
}

static void on_guard(uv_timer_t *timer)
{
    (void)timer;
}

/* Runs the loop until the condition holds; fails the test after WAIT_MS_MAX. */
static void cluster_wait(struct cluster *cluster, bool (*condition)(struct cluster *cluster))
{
    const uint64_t start_ms = uv_hrtime() / 1000000;
    uv_timer_t guard;

    (void)uv_timer_init(&cluster->loop, &guard);
    (void)uv_timer_start(&guard, on_guard, 10, 10);
    while (!condition(cluster)) {
        (void)uv_run(&cluster->loop, UV_RUN_ONCE);
        if (uv_hrtime() / 1000000 - start_ms > WAIT_MS_MAX) {
            fail_msg("the condition was not reached in %d ms", WAIT_MS_MAX);
        }
    }
    uv_close((uv_handle_t *)&guard, NULL);
    (void)uv_run(&cluster->loop, UV_RUN_NOWAIT);
}

static int leader_of(struct cluster *cluster)
{
    for (int i = 0; i < SERVERS_MAX; i++) {
        if (cluster->servers[i].replica != NULL && replica_is_leader(cluster->servers[i].replica)) {
            return i;
        }
    }
    return -1;
}

static bool all_know_a_leader(struct cluster *cluster)
{
    for (int i = 0; i < SERVERS_MAX; i++) {
        struct replica_freshness freshness;

        if (cluster->servers[i].replica == NULL) {
            continue;
        }
        replica_freshness(cluster->servers[i].replica, &freshness);
        if (!freshness.known_leader) {
            return false;
        }
    }
    return leader_of(cluster) >= 0;
}

static int writes_done, writes_failed;

static bool all_writes_done(struct cluster *cluster)
{
    (void)cluster;
    return writes_done == 0;
}

static void on_written(void *context, const char *failure, const struct command_result *result)
{
    (void)context;
    writes_done--;
    if (failure != NULL || result->status != COMMAND_DONE || !result->ok) {
        writes_failed++;
    }
}

static void put(struct cluster *cluster, int which, const char *key, const char *value)
{
    struct buffer command = {0};

    command_encode_kv(&command, COMMAND_KV_SET, slice_from_text(key), slice_from_text(value), 0, 0,
                      NULL);
    writes_done++;
    replica_propose(cluster->servers[which].replica, buffer_slice(&command), on_written, NULL);
    buffer_deinit(&command);
}

static bool all_stores_equal(struct cluster *cluster)
{
    uint64_t first = 0;
    bool have = false;

    for (int i = 0; i < SERVERS_MAX; i++) {
        struct store_txn txn;
        uint64_t sum;

        if (cluster->servers[i].replica == NULL) {
            continue;
        }
        assert_int_equal(store_read_begin(cluster->servers[i].store, &txn), 0);
        assert_int_equal(store_checksum(&txn, &sum), 0);
        store_read_end(&txn);
        if (have && sum != first) {
            return false;
        }
        first = sum;
        have = true;
    }
    return true;
}

static const char *read_key;
static char read_value[64];
static int reads_open;

struct reading {
    struct replica_read read;
    struct server *server;
};

static void on_read(void *context, const char *failure, const struct replica_freshness *freshness)
{
    struct reading *reading = context;
    struct kv_entry entry;
    struct store_txn txn;

    (void)freshness;
    assert_null(failure);
    assert_int_equal(store_read_begin(reading->server->store, &txn), 0);
    assert_int_equal(kv_get(&txn, slice_from_text(read_key), &entry), 0);
    memcpy(read_value, entry.value.data, entry.value.size);
    read_value[entry.value.size] = 0;
    store_read_end(&txn);
    reads_open--;
}

static bool all_reads_done(struct cluster *cluster)
{
    (void)cluster;
    return reads_open == 0;
}

static void a_write_through_any_server_is_read_through_every_other(void **state)
{
    struct cluster *cluster = cluster_new(SERVERS);

    (void)state;
    writes_done = writes_failed = 0;
    cluster_wait(cluster, all_know_a_leader);
    for (int writer = 0; writer < SERVERS; writer++) {
        char value[32];

        (void)snprintf(value, sizeof(value), "from-%d", writer);
        put(cluster, writer, "k", value);
        cluster_wait(cluster, all_writes_done);
        for (int reader = 0; reader < SERVERS; reader++) {
            for (int mode = 0; mode < 2; mode++) {
                struct reading reading = {.server = &cluster->servers[reader]};

                read_key = "k";
                reads_open = 1;
                replica_read(cluster->servers[reader].replica, &reading.read,
                             mode == 0 ? REPLICA_DEFAULT : REPLICA_CONSISTENT, on_read, &reading);
                cluster_wait(cluster, all_reads_done);
                assert_string_equal(read_value, value);
            }
        }
    }
    assert_int_equal(writes_failed, 0);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static void many_writes_through_all_servers_leave_equal_stores(void **state)
{
    struct cluster *cluster = cluster_new(SERVERS);

    (void)state;
    writes_done = writes_failed = 0;
    cluster_wait(cluster, all_know_a_leader);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 500; i++) {
            char key[32];

            (void)snprintf(key, sizeof(key), "key-%d", (round * 37 + i) % 1000);
            put(cluster, i % SERVERS, key, key);
        }
        cluster_wait(cluster, all_writes_done);
    }
    assert_int_equal(writes_failed, 0);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static void the_rest_goes_on_without_the_leader_and_it_catches_up(void **state)
{
    struct cluster *cluster = cluster_new(SERVERS);
    int leader;

    (void)state;
    writes_done = writes_failed = 0;
    cluster_wait(cluster, all_know_a_leader);
    put(cluster, 0, "before", "1");
    cluster_wait(cluster, all_writes_done);
    leader = leader_of(cluster);
    cluster_stop(cluster, leader);
    /* Held inside until there is a new leader, not failed. */
    put(cluster, (leader + 1) % SERVERS, "after", "2");
    cluster_wait(cluster, all_writes_done);
    assert_int_equal(writes_failed, 0);
    cluster_start(cluster, leader);
    cluster_wait(cluster, all_know_a_leader);
    put(cluster, leader, "returned", "3");
    cluster_wait(cluster, all_writes_done);
    assert_int_equal(writes_failed, 0);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static void a_restarted_cluster_has_what_it_acknowledged(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    writes_done = writes_failed = 0;
    cluster_wait(cluster, all_know_a_leader);
    for (int i = 0; i < 100; i++) {
        char key[32];

        (void)snprintf(key, sizeof(key), "key-%d", i);
        put(cluster, i % 3, key, key);
    }
    cluster_wait(cluster, all_writes_done);
    assert_int_equal(writes_failed, 0);
    for (int i = 0; i < 3; i++) {
        cluster_stop(cluster, i);
    }
    for (int i = 0; i < 3; i++) {
        cluster_start(cluster, i);
    }
    cluster_wait(cluster, all_know_a_leader);
    for (int i = 0; i < 3; i++) {
        struct reading reading = {.server = &cluster->servers[i]};

        read_key = "key-99";
        reads_open = 1;
        replica_read(cluster->servers[i].replica, &reading.read, REPLICA_CONSISTENT, on_read,
                     &reading);
        cluster_wait(cluster, all_reads_done);
        assert_string_equal(read_value, "key-99");
    }
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static const char *last_failure;

static void on_refused(void *context, const char *failure, const struct command_result *result)
{
    (void)context;
    (void)result;
    writes_done--;
    last_failure = failure;
}

static void without_a_quorum_a_write_fails_after_the_hold_time(void **state)
{
    struct cluster *cluster = cluster_new(3);
    struct buffer command = {0};
    int leader;

    (void)state;
    writes_done = writes_failed = 0;
    cluster_wait(cluster, all_know_a_leader);
    leader = leader_of(cluster);
    cluster_stop(cluster, leader);
    cluster_stop(cluster, (leader + 1) % 3);
    cluster->configs[(leader + 2) % 3].rpc_hold_timeout_ms = 2500;
    command_encode_kv(&command, COMMAND_KV_SET, SLICE_LITERAL("k"), SLICE_LITERAL("v"), 0, 0, NULL);
    writes_done = 1;
    last_failure = NULL;
    replica_propose(cluster->servers[(leader + 2) % 3].replica, buffer_slice(&command), on_refused,
                    NULL);
    buffer_deinit(&command);
    cluster_wait(cluster, all_writes_done);
    assert_non_null(last_failure);
    assert_string_equal(last_failure, "No cluster leader");
    cluster_free(cluster);
}

/* --- a process that was stopped --- */

static bool read_answered;

static void on_read_noted(void *context, const char *failure,
                          const struct replica_freshness *freshness)
{
    (void)context;
    (void)failure;
    (void)freshness;
    read_answered = true;
}

static bool lease_answers(struct cluster *cluster)
{
    struct replica *replica = cluster->servers[leader_of(cluster)].replica;
    struct replica_read read;

    read_answered = false;
    replica_read(replica, &read, REPLICA_DEFAULT, on_read_noted, NULL);
    replica_read_cancel(replica, &read);
    return read_answered;
}

/* Symptom: a leader that is stopped amid a pass of the loop and goes on when another one leads
 * judged its lease by the clock that libuv read before the stop. Rule: dissertation 6.4.1. */
static void a_stopped_leader_does_not_answer_by_the_lease_of_before(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    cluster_wait(cluster, lease_answers);
    (void)usleep((REPLICA_LEASE_MS + 200) * 1000); /* The loop does not see this time pass. */
    assert_false(lease_answers(cluster));
    cluster_wait(cluster, all_know_a_leader);
    cluster_wait(cluster, lease_answers);
    cluster_free(cluster);
}

static bool renewed, renewed_found;

static void on_renewed(void *context, const char *failure, bool found)
{
    (void)context;
    assert_null(failure);
    renewed = true;
    renewed_found = found;
}

static bool is_renewed(struct cluster *cluster)
{
    (void)cluster;
    return renewed;
}

static struct uuid create_session(struct cluster *cluster, int which, uint64_t ttl_ms)
{
    struct session session = {.name = SLICE_LITERAL("s"),
                              .node = SLICE_LITERAL("n"),
                              .ttl = SLICE_LITERAL("1s"),
                              .ttl_ms = ttl_ms};
    const struct catalog_registration registration = {
        .node = {.name = SLICE_LITERAL("n"), .address = SLICE_LITERAL("127.0.0.1")}};
    struct buffer command = {0};

    writes_done = 2;
    writes_failed = 0;
    command_encode_register(&command, &registration);
    replica_propose(cluster->servers[which].replica, buffer_slice(&command), on_written, NULL);
    buffer_clear(&command);
    server_random(&session.id, sizeof(session.id));
    command_encode_session_create(&command, &session);
    replica_propose(cluster->servers[which].replica, buffer_slice(&command), on_written, NULL);
    buffer_deinit(&command);
    cluster_wait(cluster, all_writes_done);
    assert_int_equal(writes_failed, 0);
    return session.id;
}

/* Symptom: a server without peers to step down for, stopped for as long as a session's timer still
 * ran, ended the session before it read the renewals that had been sent meanwhile. */
static void a_pause_of_the_server_ends_no_session(void **state)
{
    struct cluster *cluster = cluster_new(1);
    struct uuid id;

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    id = create_session(cluster, 0, 1000);
    (void)usleep(2500 * 1000); /* More than twice the TTL. */
    for (int pass = 0; pass < 20; pass++) {
        (void)uv_run(&cluster->loop, UV_RUN_NOWAIT); /* A renewal takes some, from the socket on. */
    }
    renewed = false;
    replica_session_renew(cluster->servers[0].replica, &id, on_renewed, NULL);
    cluster_wait(cluster, is_renewed);
    assert_true(renewed_found);
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
    cluster_wait(cluster, all_know_a_leader);
    id = create_session(cluster, 0, 1000);
    replica->apply_stalled = true;
    replica->apply_retry_ms = UINT64_MAX;
    for (int pass = 0; pass < 250; pass++) {
        (void)uv_run(&cluster->loop, UV_RUN_NOWAIT);
        (void)usleep(10000);
    }
    replica->apply_retry_ms = 0;
    replica_wake(replica);
    for (int pass = 0; pass < 20; pass++) {
        (void)uv_run(&cluster->loop, UV_RUN_NOWAIT);
    }
    renewed = false;
    replica_session_renew(replica, &id, on_renewed, NULL);
    cluster_wait(cluster, is_renewed);
    assert_true(renewed_found);
    cluster_free(cluster);
}

/* --- bounds of a turn --- */

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
    cluster_wait(cluster, all_know_a_leader);
    replica->start_pending = true; /* As in the first turn of a term. */
    writes_done = writes_failed = 0;
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
        put(cluster, 0, key, "");
        expected += counts[batch] + 1;
        buffer_deinit(&payload);
        buffer_deinit(&command);
    }
    cluster_wait(cluster, all_writes_done);
    while (replica->remote_count > 0 || replica->applied_index < raft_last_index(replica->raft)) {
        (void)uv_run(&cluster->loop, UV_RUN_ONCE);
    }
    assert_int_equal(writes_failed, 0);
    assert_int_equal(store_read_begin(cluster->servers[0].store, &txn), 0);
    assert_int_equal(store_table_count(&txn, STORE_KV, &keys), 0);
    store_read_end(&txn);
    assert_int_equal(keys, expected);
    cluster_free(cluster);
}

/* --- who belongs to the cluster --- */

/* Symptom: a server that came back at once with another address was alive all the time, so nobody
 * dialled the new address. */
static void a_server_that_returns_elsewhere_is_found(void **state)
{
    struct cluster *cluster = cluster_new(3);
    int moved;

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    moved = (leader_of(cluster) + 1) % 3;
    cluster_stop(cluster, moved);
    cluster->configs[moved].serf_lan_port = free_port(cluster->addresses[moved]);
    cluster->configs[moved].server_port = free_port(cluster->addresses[moved]);
    cluster_start(cluster, moved);
    cluster_wait(cluster, all_know_a_leader);
    writes_done = writes_failed = 0;
    put(cluster, moved, "k", "v");
    cluster_wait(cluster, all_writes_done);
    assert_int_equal(writes_failed, 0);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

/* The voters of the configuration that a server has. */
static size_t configured(struct cluster *cluster, int which, raft_id *ids)
{
    const struct raft_configuration *configuration =
        raft_configuration(cluster->servers[which].replica->raft);
    size_t count = 0;

    for (size_t i = 0; i < configuration->count; i++) {
        if (configuration->servers[i].voter) {
            ids[count++] = configuration->servers[i].id;
        }
    }
    return count;
}

/* Whether a server has a vote by its own configuration. */
static bool has_vote(struct cluster *cluster, int which)
{
    raft_id ids[RAFT_SERVERS_MAX];
    const size_t count = configured(cluster, which, ids);

    for (size_t i = 0; i < count; i++) {
        if (ids[i] == cluster->servers[which].replica->id) {
            return true;
        }
    }
    return false;
}

static bool all_expected_are_configured(struct cluster *cluster)
{
    int count = 0;

    for (int i = 0; i < SERVERS_MAX; i++) {
        count += cluster->servers[i].replica != NULL && has_vote(cluster, i);
    }
    return count >= (int)cluster->configs[0].bootstrap_expect;
}

static void one_server_too_many_does_not_make_a_second_cluster(void **state)
{
    struct cluster *cluster = cluster_new_of(6, 5);
    raft_id first[RAFT_SERVERS_MAX];
    size_t count = 0;

    (void)state;
    cluster_wait(cluster, all_expected_are_configured);
    for (int i = 0; i < 6; i++) {
        raft_id ids[RAFT_SERVERS_MAX];

        if (configured(cluster, i, ids) == 0) {
            continue; /* The one too many, until it is added. */
        }
        assert_int_equal(configured(cluster, i, ids), 5);
        if (count++ == 0) {
            memcpy(first, ids, sizeof(ids));
        }
        assert_memory_equal(first, ids, 5 * sizeof(ids[0]));
    }
    assert_true(count >= 5);
    cluster_free(cluster);
}

/* Two servers that count as one could vote twice; and when the second comes and goes, nobody holds
 * that for the end of the first. */
static void a_second_server_with_a_node_id_is_ignored(void **state)
{
    struct cluster *cluster = cluster_new_of(4, 3);
    int twin = 0;
    int first;
    struct uuid id;

    (void)state;
    cluster_wait(cluster, all_expected_are_configured);
    while (has_vote(cluster, twin)) {
        twin++; /* The one too many. */
    }
    first = (twin + 1) % 4;
    id = cluster->servers[first].node_id;
    cluster_stop(cluster, twin);
    cluster->servers[twin].node_id = id;
    cluster_start(cluster, twin);
    for (int pass = 0; pass < 300; pass++) {
        (void)uv_run(&cluster->loop, UV_RUN_NOWAIT);
        (void)usleep(10000);
        for (int i = 0; i < 4; i++) {
            const struct member *member = membership_find(cluster->servers[i].membership, &id);

            assert_non_null(member);
            assert_string_equal(member->address, cluster->addresses[i == twin ? twin : first]);
        }
    }
    for (int i = 0; i < 4; i++) {
        writes_done = writes_failed = 0;
        if (i != twin) {
            put(cluster, i, "k", "v");
            cluster_wait(cluster, all_writes_done);
            assert_int_equal(writes_failed, 0);
        }
    }
    cluster_free(cluster);
}

static void a_wiped_server_does_not_make_a_cluster_of_its_own(void **state)
{
    struct cluster *cluster = cluster_new(3);
    raft_id ids[RAFT_SERVERS_MAX];
    char text[128];
    int wiped;

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    wiped = (leader_of(cluster) + 1) % 3;
    cluster_stop(cluster, wiped);
    (void)snprintf(text, sizeof(text), "rm -rf %s", cluster->dirs[wiped]);
    assert_int_equal(system(text), 0);
    server_random(cluster->servers[wiped].node_id.bytes, UUID_BYTES); /* It was in that folder. */
    cluster_start(cluster, wiped);
    for (int pass = 0; pass < 300; pass++) {
        (void)uv_run(&cluster->loop, UV_RUN_NOWAIT);
        (void)usleep(10000);
    }
    /* The others have taken it in as a server that has no say yet. */
    assert_int_equal(configured(cluster, wiped, ids), 3);
    assert_false(has_vote(cluster, wiped));
    cluster_free(cluster);
}

/* --- membership --- */

static int joined; /* the server that a test waits for */

static const struct raft_server *place_of(struct cluster *cluster, int by, int which)
{
    const struct raft_configuration *configuration =
        raft_configuration(cluster->servers[by].replica->raft);

    for (size_t i = 0; i < configuration->count; i++) {
        if (configuration->servers[i].id == peers_id(&cluster->servers[which].node_id)) {
            return &configuration->servers[i];
        }
    }
    return NULL;
}

static bool the_joined_one_votes(struct cluster *cluster)
{
    const int leader = leader_of(cluster);
    const struct raft_server *place = leader < 0 ? NULL : place_of(cluster, leader, joined);

    return place != NULL && place->voter && has_vote(cluster, joined);
}

static bool the_joined_one_is_out(struct cluster *cluster)
{
    const int leader = leader_of(cluster);

    return leader >= 0 && place_of(cluster, leader, joined) == NULL;
}

/* Runs the loop for a while, for what must not happen in it. */
static void cluster_run(struct cluster *cluster, int ms)
{
    for (int pass = 0; pass < ms / 10; pass++) {
        (void)uv_run(&cluster->loop, UV_RUN_NOWAIT);
        (void)usleep(10000);
    }
}

static void cluster_wipe(struct cluster *cluster, int which)
{
    char text[128];

    (void)snprintf(text, sizeof(text), "rm -rf %s", cluster->dirs[which]);
    assert_int_equal(system(text), 0);
}

/* For those who come to a cluster with 100 entries. */
static void cluster_fill(struct cluster *cluster)
{
    writes_done = writes_failed = 0;
    for (int i = 0; i < 100; i++) {
        char key[32];

        (void)snprintf(key, sizeof(key), "fill-%d", i);
        put(cluster, leader_of(cluster), key, key);
    }
    cluster_wait(cluster, all_writes_done);
    assert_int_equal(writes_failed, 0);
}

static char operated_failure[256];
static struct replica_health operated_health;
static int operations_open;

static void on_operated(void *context, const char *failure, struct slice answer)
{
    (void)context;
    (void)snprintf(operated_failure, sizeof(operated_failure), "%s",
                   failure == NULL ? "" : failure);
    if (answer.size > 0) {
        assert_true(replica_health_decode(answer, &operated_health));
    }
    operations_open--;
}

static bool all_operations_done(struct cluster *cluster)
{
    (void)cluster;
    return operations_open == 0;
}

static const char *operate(struct cluster *cluster, int which, enum replica_operation operation,
                           const char *argument)
{
    operations_open = 1;
    replica_operate(cluster->servers[which].replica, operation, slice_from_text(argument),
                    on_operated, NULL);
    cluster_wait(cluster, all_operations_done);
    return operated_failure;
}

static const char *id_of(struct cluster *cluster, int which)
{
    static char text[UUID_TEXT_BYTES + 1];

    uuid_format(&cluster->servers[which].node_id, text);
    return text;
}

static void a_server_that_joins_gets_a_vote_once_it_is_stable(void **state)
{
    struct cluster *cluster;
    raft_id ids[RAFT_SERVERS_MAX];

    (void)state;
    stabilization_ns = INT64_C(1000000000);
    cluster = cluster_new(3);
    cluster_wait(cluster, all_know_a_leader);
    cluster_fill(cluster);
    joined = cluster_grow(cluster);
    cluster_wait(cluster, the_joined_one_votes);
    assert_int_equal(configured(cluster, leader_of(cluster), ids), 4);
    assert_string_equal(operate(cluster, joined, REPLICA_HEALTH, ""), "");
    assert_int_equal(operated_health.count, 4);
    cluster_wait(cluster, all_stores_equal);
    /* Autopilot's configuration is part of that state, from the first leader's own. */
    for (int i = 0; i < 4; i++) {
        struct autopilot_config config;
        struct store_txn txn;

        assert_int_equal(store_read_begin(cluster->servers[i].store, &txn), 0);
        assert_int_equal(autopilot_get(&txn, &config), 0);
        assert_int_equal(config.server_stabilization_time_ns,
                         cluster->configs[0].autopilot.server_stabilization_time_ns);
        store_read_end(&txn);
    }
    cluster_free(cluster);
}

/* Whether an operation failed by what may come in between on a machine that is busy. */
static bool lost_by_the_way(const char *failure)
{
    static const char *const texts[] = {"leadership transfer timeout",
                                        "leadership lost while committing log", "No cluster leader",
                                        "cannot transfer leadership to itself", NULL};

    for (size_t i = 0; texts[i] != NULL; i++) {
        if (strcmp(failure, texts[i]) == 0) {
            return true;
        }
    }
    return false;
}

enum { ROUNDS_MAX = 10 };

/* Asks `via` for it until the next server leads: a busy machine may elect a third one meanwhile. */
static void move_leadership(struct cluster *cluster, int via)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        const int target = (leader_of(cluster) + 1) % 3;
        char failure[sizeof(operated_failure)];

        (void)snprintf(failure, sizeof(failure), "%s",
                       operate(cluster, via, REPLICA_TRANSFER, id_of(cluster, target)));
        cluster_wait(cluster, all_know_a_leader);
        if (failure[0] == 0 && leader_of(cluster) == target) {
            return;
        }
        if (failure[0] != 0 && !lost_by_the_way(failure)) {
            fail_msg("%s", failure);
        }
    }
    fail_msg("leadership was not moved in %d rounds", ROUNDS_MAX);
}

/* Takes a follower out through the other one, and starts it again. False if the leader did not stay
 * the same until the one that is out had had time enough to disturb: a busy machine does that, and
 * a new leader knows nothing of what its predecessor was asked. */
static bool removed_in_peace(struct cluster *cluster)
{
    const int leader = leader_of(cluster);
    const uint64_t term = cluster->servers[leader].replica->term;
    char removed[UUID_TEXT_BYTES + 1];

    joined = (leader + 1) % 3;
    memcpy(removed, id_of(cluster, joined), sizeof(removed));
    cluster_stop(cluster, joined);
    if (operate(cluster, (leader + 2) % 3, REPLICA_REMOVE_ID, removed)[0] != 0) {
        if (!lost_by_the_way(operated_failure)) {
            fail_msg("%s", operated_failure);
        }
        return false;
    }
    cluster_start(cluster, joined);
    cluster_run(cluster, 2500);
    return leader_of(cluster) == leader && cluster->servers[leader].replica->term == term;
}

static void an_operator_removes_a_server_and_moves_leadership_through_any_server(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    for (int i = 0; i < 3; i++) {
        move_leadership(cluster, i);
    }
    assert_string_equal(operate(cluster, 0, REPLICA_TRANSFER, "x"),
                        "id \"x\" was not found in the Raft configuration");
    assert_string_equal(operate(cluster, 1, REPLICA_REMOVE_ADDRESS, "127.0.0.1:1"),
                        "address \"127.0.0.1:1\" was not found in the Raft configuration");
    /* The one that is out disturbs nobody, and is not taken back at once. */
    for (int round = 0; !removed_in_peace(cluster); round++) {
        assert_true(round < ROUNDS_MAX);
        cluster_free(cluster);
        cluster = cluster_new(3);
        cluster_wait(cluster, all_know_a_leader);
    }
    assert_true(the_joined_one_is_out(cluster));
    cluster_free(cluster);
}

static bool the_joined_one_is_dead(struct cluster *cluster)
{
    const int leader = leader_of(cluster);
    const struct replica *replica = leader < 0 ? NULL : cluster->servers[leader].replica;

    for (size_t i = 0; replica != NULL && i < replica->autopilot.count; i++) {
        if (replica->autopilot.servers[i].id == peers_id(&cluster->servers[joined].node_id)) {
            return replica->autopilot.servers[i].dead_ms != 0;
        }
    }
    return false;
}

static bool nobody_leads(struct cluster *cluster)
{
    return leader_of(cluster) < 0;
}

static void a_dead_server_is_given_up_while_min_quorum_allows(void **state)
{
    struct cluster *cluster;
    struct autopilot_config config;
    struct buffer command = {0};

    (void)state;
    stabilization_ns = INT64_C(1000000000);
    cluster = cluster_new_of(3, 3);
    cluster_wait(cluster, all_know_a_leader);
    autopilot_config_init(&config);
    config.server_stabilization_time_ns = stabilization_ns;
    config.min_quorum = 3;
    command_encode_autopilot(&command, AUTOPILOT_SET, 0, &config);
    writes_done = 1;
    writes_failed = 0;
    replica_propose(cluster->servers[0].replica, buffer_slice(&command), on_written, NULL);
    cluster_wait(cluster, all_writes_done);

    joined = (leader_of(cluster) + 1) % 3;
    cluster_stop(cluster, joined);
    cluster_wait(cluster, the_joined_one_is_dead);
    cluster_run(cluster, 2500);
    assert_false(the_joined_one_is_out(cluster));

    config.min_quorum = 2;
    buffer_clear(&command);
    command_encode_autopilot(&command, AUTOPILOT_SET, 0, &config);
    writes_done = 1;
    replica_propose(cluster->servers[leader_of(cluster)].replica, buffer_slice(&command),
                    on_written, NULL);
    cluster_wait(cluster, all_writes_done);
    assert_int_equal(writes_failed, 0);
    cluster_wait(cluster, the_joined_one_is_out);

    /* One of two is no minority: it keeps its place, or the other could decide alone. */
    joined = 3 - joined - leader_of(cluster);
    cluster_stop(cluster, joined);
    cluster_wait(cluster, nobody_leads);
    buffer_deinit(&command);
    cluster_free(cluster);
}

/* Symptom: one server of peers.json with a long name, and nobody heard how any of them were. */
static void a_server_with_the_longest_address_has_its_health_told(void **state)
{
    struct raft_configuration configuration = {.count = 0};
    struct replica_server_info info;
    struct replica_health health;
    struct buffer bytes = {0};
    char address[sizeof(info.address)];

    (void)state;
    memset(address, 'a', sizeof(address));
    memcpy(address + sizeof(address) - 6, ":8300", 6);
    assert_true(replica_server_info(
        replica_configuration_add(&configuration, &(struct uuid){{1}}, "n", address), &info));
    buffer_put_u8(&bytes, 1);
    buffer_put_u32(&bytes, 0);
    buffer_put_u32(&bytes, 1);
    buffer_append(&bytes, info.node_id.bytes, UUID_BYTES);
    buffer_put_string(&bytes, slice_from_text(info.name));
    buffer_put_string(&bytes, slice_from_text(info.address));
    for (int i = 0; i < 4; i++) {
        buffer_put_u8(&bytes, 1);
    }
    for (int i = 0; i < 4; i++) {
        buffer_put_u64(&bytes, 1);
    }
    assert_true(replica_health_decode(buffer_slice(&bytes), &health));
    assert_string_equal(health.servers[0].address, address);
    buffer_deinit(&bytes);
}

static void the_last_voter_stays(void **state)
{
    struct cluster *cluster = cluster_new(1);

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    assert_string_equal(operate(cluster, 0, REPLICA_REMOVE_ID, id_of(cluster, 0)),
                        "need at least one voter in configuration");
    cluster_free(cluster);
}

static bool the_joined_one_is_not_fresh(struct cluster *cluster)
{
    return !cluster->servers[joined].replica->fresh;
}

/* Two of three acknowledged; one of them loses its log. It must not help the third, which lacks
 * what was acknowledged, to become leader. */
static void a_wiped_server_under_its_old_id_does_not_vote(void **state)
{
    struct cluster *cluster = cluster_new(3);
    int leader, behind, wiped;

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    leader = leader_of(cluster);
    behind = (leader + 1) % 3;
    wiped = (leader + 2) % 3;
    cluster_fill(cluster);
    cluster_wait(cluster, all_stores_equal);
    cluster_stop(cluster, behind);
    writes_done = writes_failed = 0;
    put(cluster, leader, "acknowledged", "1");
    cluster_wait(cluster, all_writes_done);
    assert_int_equal(writes_failed, 0);
    cluster_stop(cluster, wiped);
    cluster_stop(cluster, leader);
    cluster_wipe(cluster, wiped);
    cluster_start(cluster, wiped);
    cluster_start(cluster, behind);
    cluster_run(cluster, 2500);
    assert_int_equal(leader_of(cluster), -1);
    /* Not after another start either. */
    cluster_stop(cluster, wiped);
    cluster_start(cluster, wiped);
    cluster_run(cluster, 2000);
    assert_int_equal(leader_of(cluster), -1);
    cluster_start(cluster, leader);
    cluster_wait(cluster, all_know_a_leader);
    cluster_wait(cluster, all_stores_equal);
    joined = wiped;
    cluster_wait(cluster, the_joined_one_is_not_fresh);
    cluster_free(cluster);
}

/* Else a new cluster whose servers are started again amid bootstrapping would have no leader. */
static void whom_a_server_chose_to_begin_with_has_its_vote_after_a_restart(void **state)
{
    static const struct {
        const char *name;
        raft_id from;
        raft_index last_index;
        enum raft_message_type type;
        bool takes;
    } cases[] = {
        {"another server", 9, 1, RAFT_VOTE_REQUEST, false},
        {"one with more than the first entry", 7, 2, RAFT_VOTE_REQUEST, false},
        {"a hand-over", 7, 1, RAFT_TIMEOUT_NOW, false},
        {"an append", 9, 5, RAFT_APPEND_REQUEST, true},
        {"the chosen one", 7, 1, RAFT_PRE_VOTE_REQUEST, true},
        {"after that, anybody", 9, 2, RAFT_VOTE_REQUEST, true},
    };
    struct cluster *cluster = cluster_new_of(1, 3);

    (void)state;
    assert_true(cluster->servers[0].replica->fresh);
    replica_fresh_chose(cluster->servers[0].replica, 7);
    replica_fresh_chose(cluster->servers[0].replica, 8);
    cluster_stop(cluster, 0);
    cluster_start(cluster, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct raft_message message = {
            .type = cases[i].type, .from = cases[i].from, .last_index = cases[i].last_index};

        if (replica_fresh_takes(cluster->servers[0].replica, &message) != cases[i].takes) {
            fail_msg("%s", cases[i].name);
        }
    }
    cluster_stop(cluster, 0);
    cluster_start(cluster, 0);
    /* Its log is empty still, so it is a fresh one again, and takes the same. */
    assert_true(cluster->servers[0].replica->fresh);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]) - 1; i++) {
        const struct raft_message message = {
            .type = cases[i].type, .from = cases[i].from, .last_index = cases[i].last_index};

        if (replica_fresh_takes(cluster->servers[0].replica, &message) != cases[i].takes) {
            fail_msg("again: %s", cases[i].name);
        }
    }
    cluster_free(cluster);
}

/* Nobody has the file that says that a server does not vote. */
static bool all_have_caught_up(struct cluster *cluster)
{
    for (int i = 0; i < SERVERS_MAX; i++) {
        char path[128];

        (void)snprintf(path, sizeof(path), "%s/catching-up", cluster->dirs[i]);
        if (cluster->servers[i].replica != NULL && access(path, F_OK) == 0) {
            return false;
        }
    }
    return true;
}

/* Else those who began the cluster would wait for a leader to catch up with, and none could come.
 */
static void who_voted_to_begin_with_goes_on_voting_once_it_has_an_entry(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    cluster_wait(cluster, all_have_caught_up);
    stop_all(cluster);
    for (int i = 0; i < 3; i++) {
        char path[128];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/catching-up", cluster->dirs[i]);
        file = fopen(path, "w");
        assert_non_null(file);
        (void)fprintf(file, "This server has not caught up.\n0000000000000007\nvoted\n");
        assert_int_equal(fclose(file), 0);
        cluster_start(cluster, i);
        assert_false(cluster->servers[i].replica->fresh);
    }
    assert_true(all_have_caught_up(cluster));
    cluster_wait(cluster, all_know_a_leader);
    cluster_free(cluster);
}

static bool the_joined_one_has_caught_up(struct cluster *cluster)
{
    return the_joined_one_is_not_fresh(cluster) && the_joined_one_votes(cluster);
}

/* Whichever leads then: `joined` is a follower of it that has acknowledged all. Else that leader
 * would have nothing to be mistaken about, and would send all from the beginning. */
static bool the_joined_one_has_acknowledged(struct cluster *cluster)
{
    const int leader = leader_of(cluster);
    struct raft_progress progress;

    joined = (leader + 1) % 3;
    return leader >= 0 &&
           raft_progress(cluster->servers[leader].replica->raft,
                         peers_id(&cluster->servers[joined].node_id), 0, &progress) &&
           progress.match_index == raft_last_index(cluster->servers[leader].replica->raft);
}

static int wiped_by; /* the leader when `joined` lost its log, */
static uint64_t wiped_term;

static bool the_joined_one_is_out_or_another_leads(struct cluster *cluster)
{
    return the_joined_one_is_out(cluster) ||
           (leader_of(cluster) >= 0 && (leader_of(cluster) != wiped_by ||
                                        cluster->servers[wiped_by].replica->term != wiped_term));
}

/* The leader goes on thinking that it has what it once acknowledged, unless it is taken out. One
 * that is elected afterwards, which comes of a busy machine, thinks nothing of the kind. */
static void a_wiped_server_under_its_old_id_joins_as_a_new_one(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    cluster_fill(cluster);
    cluster_wait(cluster, the_joined_one_has_acknowledged);
    wiped_by = leader_of(cluster);
    wiped_term = cluster->servers[wiped_by].replica->term;
    cluster_stop(cluster, joined);
    cluster_wipe(cluster, joined);
    cluster_start(cluster, joined);
    cluster_wait(cluster, the_joined_one_is_out_or_another_leads);
    cluster_wait(cluster, the_joined_one_has_caught_up);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

/* --- recovery by peers.json --- */

/* Names the servers 0 to count - 1 in the file of server `which`. */
static void write_peers(struct cluster *cluster, int which, int count)
{
    char path[128];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/raft/peers.json", cluster->dirs[which]);
    file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < count; i++) {
        (void)fprintf(file, "%s{\"id\": \"%s\", \"address\": \"%s:%d\"}", i == 0 ? "[" : ",",
                      id_of(cluster, i), cluster->addresses[i],
                      (int)cluster->configs[i].server_port);
    }
    (void)fprintf(file, "]");
    assert_int_equal(fclose(file), 0);
}

/* Symptom: a server that crashed before it had removed peers.json wrote its configuration again, in
 * a term far ahead of the others': with a log that was behind theirs it became their leader, and
 * what only they held was lost. */
static void a_recovery_that_was_cut_short_is_not_made_twice(void **state)
{
    struct cluster *cluster = cluster_new(3);
    raft_index last;
    raft_term term;

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    cluster_fill(cluster);
    cluster_wait(cluster, all_stores_equal);
    stop_all(cluster);
    write_peers(cluster, 0, 2);
    cluster_start(cluster, 0);
    last = raft_last_index(cluster->servers[0].replica->raft);
    term = raft_last_term(cluster->servers[0].replica->raft);
    cluster_stop(cluster, 0);
    write_peers(cluster, 0, 2); /* As if it had not been removed. */
    cluster_start(cluster, 0);
    assert_int_equal(raft_last_index(cluster->servers[0].replica->raft), last);
    assert_int_equal(raft_last_term(cluster->servers[0].replica->raft), term);
    cluster_stop(cluster, 0);
    write_peers(cluster, 0, 1); /* The operator has thought better of it. */
    cluster_start(cluster, 0);
    assert_int_equal(raft_last_index(cluster->servers[0].replica->raft), last + 1);
    assert_true(raft_last_term(cluster->servers[0].replica->raft) > term);
    cluster_free(cluster);
}

/* Puts a configuration behind all that a server's log has, as if from a leader. */
static void log_append(struct replica *replica, const struct raft_configuration *configuration)
{
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    const struct raft_entry entry = {.index = raft_last_index(replica->raft) + 1,
                                     .term = raft_last_term(replica->raft),
                                     .type = RAFT_ENTRY_CONFIGURATION,
                                     .data = bytes,
                                     .size = raft_configuration_encode(configuration, bytes)};
    const struct wal_write write = {.sequence = 1 << 20, .entries = &entry, .entry_count = 1};

    assert_int_equal(wal_write(replica->wal, &write), WAL_OK);
}

/* Symptom: a server whose log held a change of the configuration that nobody else had, from a
 * leader that was lost, took no entry of the recovered cluster any more. */
static void a_recovered_server_gives_up_a_configuration_that_only_it_has(void **state)
{
    struct cluster *cluster = cluster_new(3);
    struct raft_configuration change;
    struct raft_entry noop = {.type = RAFT_ENTRY_NOOP};
    struct raft_message message = {.type = RAFT_APPEND_REQUEST, .entry_count = 1, .round = 1};
    struct raft_event event = {
        .type = RAFT_EVENT_MESSAGE, .message = &message, .entries = &noop, .entry_count = 1};
    struct replica *replica;
    int rc;

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    cluster_fill(cluster);
    cluster_wait(cluster, all_stores_equal);
    stop_all(cluster);
    cluster_start(cluster, 0);
    replica = cluster->servers[0].replica;
    message.prev_index = raft_last_index(replica->raft);
    message.prev_term = raft_last_term(replica->raft);
    change = *raft_configuration(replica->raft);
    change.servers[0].voter = !change.servers[0].voter;
    log_append(replica, &change);
    cluster_stop(cluster, 0);
    write_peers(cluster, 0, 2);
    cluster_start(cluster, 0);
    replica = cluster->servers[0].replica;
    assert_int_equal(raft_last_index(replica->raft), message.prev_index + 2);
    /* The other one leads: its log had entries of a later term. */
    message.from = peers_id(&cluster->servers[1].node_id);
    message.to = replica->id;
    message.term = raft_term_now(replica->raft) + 1;
    noop.index = message.prev_index + 1;
    noop.term = message.term;
    event.now_ms = replica_clock_ms(replica);
    replica_step(replica, &event, &rc);
    assert_int_equal(rc, RAFT_OK);
    assert_int_equal(raft_last_index(replica->raft), message.prev_index + 1);
    assert_int_equal(raft_configuration(replica->raft)->count, 2);
    cluster_free(cluster);
}

/* Symptom: those who were left when the rest was lost had not all caught up; nobody was there to
 * catch up with, so they never voted, whatever peers.json said. */
static void whom_peers_json_names_votes_though_it_has_not_caught_up(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_wait(cluster, all_know_a_leader);
    cluster_fill(cluster);
    cluster_wait(cluster, all_stores_equal);
    stop_all(cluster);
    for (int i = 0; i < 2; i++) {
        char path[128];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/catching-up", cluster->dirs[i]);
        file = fopen(path, "w");
        assert_non_null(file);
        assert_int_equal(fclose(file), 0);
        write_peers(cluster, i, 2);
    }
    cluster_start(cluster, 0);
    cluster_start(cluster, 1);
    cluster_wait(cluster, all_know_a_leader);
    cluster_wait(cluster, all_stores_equal);
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
        cmocka_unit_test(a_forwarded_batch_goes_into_the_log_as_a_whole),
        cmocka_unit_test(a_server_that_returns_elsewhere_is_found),
        cmocka_unit_test(one_server_too_many_does_not_make_a_second_cluster),
        cmocka_unit_test(a_second_server_with_a_node_id_is_ignored),
        cmocka_unit_test(a_wiped_server_does_not_make_a_cluster_of_its_own),
        cmocka_unit_test(a_server_that_joins_gets_a_vote_once_it_is_stable),
        cmocka_unit_test(an_operator_removes_a_server_and_moves_leadership_through_any_server),
        cmocka_unit_test(a_dead_server_is_given_up_while_min_quorum_allows),
        cmocka_unit_test(a_server_with_the_longest_address_has_its_health_told),
        cmocka_unit_test(the_last_voter_stays),
        cmocka_unit_test(a_wiped_server_under_its_old_id_does_not_vote),
        cmocka_unit_test(a_wiped_server_under_its_old_id_joins_as_a_new_one),
        cmocka_unit_test(whom_a_server_chose_to_begin_with_has_its_vote_after_a_restart),
        cmocka_unit_test(who_voted_to_begin_with_goes_on_voting_once_it_has_an_entry),
        cmocka_unit_test(a_recovery_that_was_cut_short_is_not_made_twice),
        cmocka_unit_test(a_recovered_server_gives_up_a_configuration_that_only_it_has),
        cmocka_unit_test(whom_peers_json_names_votes_though_it_has_not_caught_up),
    };

    /* As the program does: peers vanish amid a write. */
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
