#ifndef TESTS_UNIT_REPLICA_FIXTURE_H
#define TESTS_UNIT_REPLICA_FIXTURE_H

/* Servers in one process, on one loop: replica and membership of each, over real links, logs and
 * stores, without agent, HTTP and DNS. Include after cmocka.h; such a program ignores SIGPIPE, as
 * the server does. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { CLUSTER_SERVERS_MAX = 6, CLUSTER_WAIT_MS_MAX = 120 * 1000 };

/* rpc_hold_timeout: longer than any election takes, also on a busy machine. */
enum { CLUSTER_HOLD_MS = 60 * 1000 };

/* How long a server that joins must be healthy before it gets a vote. */
enum { CLUSTER_STABLE_MS = 1000, CLUSTER_NEVER_STABLE_MS = 3600 * 1000 };

/* What is left at 0 is as usual: */
struct cluster_plan {
    int servers;
    int expect;               /* so many form the cluster; all of them */
    int stable_ms;            /* CLUSTER_STABLE_MS */
    uint32_t raft_multiplier; /* 1; more has leaders endure more of a busy machine */
};

struct cluster {
    uv_loop_t loop;
    uv_timer_t tick;                            /* so that no turn of the loop waits for long */
    struct server servers[CLUSTER_SERVERS_MAX]; /* replica NULL: it is stopped */
    struct config configs[CLUSTER_SERVERS_MAX];
    int held[CLUSTER_SERVERS_MAX][2]; /* sockets that hold their ports */
    struct cluster_plan plan;
    int open;                /* calls that have not been answered */
    int writes_failed;       /* and how the last one did: */
    char write_failure[128]; /* empty if its own result says so */
    int subject;             /* the server that a condition is about */

    char dir[64];
    char dirs[CLUSTER_SERVERS_MAX][96];
    char names[CLUSTER_SERVERS_MAX][32];
    char addresses[CLUSTER_SERVERS_MAX][32];
    char joins[CLUSTER_SERVERS_MAX][64];
    char *join_list[CLUSTER_SERVERS_MAX];
    char datacenter[4];
};

typedef bool cluster_condition(struct cluster *cluster);

/* --- servers --- */

/* A free port of the address, bound by a socket that never listens: a server can listen there as
 * often as it likes, and nobody else is given it. Returns the socket. */
static inline int cluster_hold_port(const char *address, uint16_t *port)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t size = sizeof(name);

    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, address, &name.sin_addr), 1);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &size), 0);
    *port = ntohs(name.sin_port);
    return fd;
}

static inline void cluster_release_ports(struct cluster *cluster, int which)
{
    for (int i = 0; i < 2; i++) {
        if (cluster->held[which][i] > 0) {
            (void)close(cluster->held[which][i]);
        }
        cluster->held[which][i] = 0;
    }
}

/* Gives a stopped server other ports than it had, if it had any. */
static inline void cluster_take_ports(struct cluster *cluster, int which)
{
    const char *address = cluster->addresses[which];
    uint16_t serf, server;
    const int held[2] = {cluster_hold_port(address, &serf), cluster_hold_port(address, &server)};

    cluster_release_ports(cluster, which);
    memcpy(cluster->held[which], held, sizeof(held));
    cluster->configs[which].serf_lan_port = serf;
    cluster->configs[which].server_port = server;
}

/* Gives a server its configuration. Its address follows from the process, so that nobody gossips
 * with another program's servers. */
static inline void cluster_prepare(struct cluster *cluster, int which)
{
    const unsigned pid = (unsigned)getpid();
    struct config *config = &cluster->configs[which];
    struct server *server = &cluster->servers[which];
    char address[sizeof(cluster->addresses[which])];

    (void)snprintf(cluster->dirs[which], sizeof(cluster->dirs[which]), "%s/%d", cluster->dir,
                   which);
    (void)snprintf(cluster->names[which], sizeof(cluster->names[which]), "server-%d", which);
    (void)snprintf(address, sizeof(address), "127.%u.%u.%d", 1 + pid / 256 % 250, pid % 256,
                   which + 1);
    memcpy(cluster->addresses[which], address, sizeof(address));
    cluster_take_ports(cluster, which);
    (void)snprintf(cluster->joins[which], sizeof(cluster->joins[which]), "%s:%d", address,
                   (int)config->serf_lan_port);
    cluster->join_list[which] = cluster->joins[which];
    config->server = true;
    config->bootstrap_expect = (uint32_t)cluster->plan.expect;
    config->datacenter = cluster->datacenter;
    config->node_name = cluster->names[which];
    config->data_dir = cluster->dirs[which];
    config->bind_addr = cluster->addresses[which];
    config->advertise_addr = cluster->addresses[which];
    config->raft_multiplier = cluster->plan.raft_multiplier;
    autopilot_config_init(&config->autopilot);
    config->autopilot.server_stabilization_time_ns = (int64_t)cluster->plan.stable_ms * 1000000;
    config->rpc_hold_timeout_ms = CLUSTER_HOLD_MS;
    config->raft_snapshot_threshold = 500; /* several in each longer test */
    config->raft_snapshot_interval_ms = 100;
    config->raft_trailing_logs = 100;
    config->state_bytes_max = 1 << 30;
    config->retry_join = cluster->join_list;
    config->retry_join_count = (size_t)which + 1;
    server->loop = &cluster->loop;
    server->config = config;
    server_random(server->node_id.bytes, UUID_BYTES);
    assert_int_equal(watch_table_new(&server->watches), 0);
}

static inline void cluster_on_member(void *host, const struct member *member)
{
    struct server *server = host;

    if (server->replica != NULL) {
        replica_members_changed(server->replica, member);
    }
}

static inline void cluster_start(struct cluster *cluster, int which)
{
    struct server *server = &cluster->servers[which];
    struct errmsg err = {{0}};

    if (replica_new(server, &server->replica, &err) != 0 ||
        membership_new(server, cluster_on_member, server, &server->membership, &err) != 0) {
        fail_msg("server %d: %s", which, err.text);
    }
    replica_members_changed(server->replica, NULL);
}

static inline void cluster_stop(struct cluster *cluster, int which)
{
    struct server *server = &cluster->servers[which];

    membership_free(server->membership);
    server->membership = NULL;
    replica_free(server->replica);
    server->replica = NULL;
}

static inline void cluster_stop_all(struct cluster *cluster)
{
    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
        if (cluster->servers[i].replica != NULL) {
            cluster_stop(cluster, i);
        }
    }
}

/* Deletes what a stopped server has on its disk. */
static inline void cluster_wipe(struct cluster *cluster, int which)
{
    char command[128];

    assert_null(cluster->servers[which].replica);
    (void)snprintf(command, sizeof(command), "rm -rf %s", cluster->dirs[which]);
    assert_int_equal(system(command), 0);
}

static inline void cluster_on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static inline struct cluster *cluster_new_as(struct cluster_plan plan)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));

    assert_non_null(cluster);
    log_level_set(LOG_ERROR);
    assert_int_equal(uv_loop_init(&cluster->loop), 0);
    (void)uv_timer_init(&cluster->loop, &cluster->tick);
    (void)uv_timer_start(&cluster->tick, cluster_on_tick, 10, 10);
    cluster->plan = plan;
    cluster->plan.expect = plan.expect == 0 ? plan.servers : plan.expect;
    cluster->plan.stable_ms = plan.stable_ms == 0 ? CLUSTER_STABLE_MS : plan.stable_ms;
    cluster->plan.raft_multiplier = plan.raft_multiplier == 0 ? 1 : plan.raft_multiplier;
    (void)snprintf(cluster->dir, sizeof(cluster->dir), "/tmp/proconsul-test-XXXXXX");
    assert_non_null(mkdtemp(cluster->dir));
    memcpy(cluster->datacenter, "dc1", 4);
    for (int i = 0; i < plan.servers; i++) {
        cluster_prepare(cluster, i);
    }
    for (int i = 0; i < plan.servers; i++) {
        cluster->configs[i].retry_join_count = (size_t)plan.servers;
        cluster_start(cluster, i);
    }
    return cluster;
}

/* Starts one more server, which joins the others; returns which. */
static inline int cluster_grow(struct cluster *cluster)
{
    int which = 0;

    while (cluster->servers[which].config != NULL) {
        which++;
    }
    assert_true(which < CLUSTER_SERVERS_MAX);
    cluster_prepare(cluster, which);
    cluster_start(cluster, which);
    return which;
}

static inline void cluster_free(struct cluster *cluster)
{
    char command[128];

    cluster_stop_all(cluster);
    uv_close((uv_handle_t *)&cluster->tick, NULL);
    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
        cluster_release_ports(cluster, i);
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

/* --- time --- */

static inline void cluster_wait_named(struct cluster *cluster, cluster_condition *condition,
                                      const char *name)
{
    const uint64_t start_ms = uv_hrtime() / 1000000;

    while (!condition(cluster)) {
        (void)uv_run(&cluster->loop, UV_RUN_ONCE);
        if (uv_hrtime() / 1000000 - start_ms > CLUSTER_WAIT_MS_MAX) {
            fail_msg("%s was not reached in %d ms", name, CLUSTER_WAIT_MS_MAX);
        }
    }
}

/* Runs the loop until the condition holds, as it does on return; fails the test after
 * CLUSTER_WAIT_MS_MAX. */
#define cluster_wait(cluster, condition) cluster_wait_named(cluster, condition, #condition)

/* Runs the loop for a while, for what must not happen in it. */
static inline void cluster_run(struct cluster *cluster, uint64_t ms)
{
    const uint64_t start_ms = uv_hrtime() / 1000000;

    while (uv_hrtime() / 1000000 - start_ms < ms) {
        (void)uv_run(&cluster->loop, UV_RUN_ONCE);
    }
}

/* --- conditions --- */

/* The leader of the latest term, -1: none. One of an earlier term may not have heard of it yet. */
static inline int leader_of(struct cluster *cluster)
{
    int leader = -1;

    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
        const struct replica *replica = cluster->servers[i].replica;

        if (replica != NULL && replica_is_leader(replica) &&
            (leader < 0 || replica->term > cluster->servers[leader].replica->term)) {
            leader = i;
        }
    }
    return leader;
}

static inline bool all_know_a_leader(struct cluster *cluster)
{
    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
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

static inline bool all_stores_equal(struct cluster *cluster)
{
    uint64_t first = 0;
    bool have = false;

    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
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

static inline bool all_is_answered(struct cluster *cluster)
{
    return cluster->open == 0;
}

/* Waits until there is a leader; returns which server it is. */
static inline int cluster_leader(struct cluster *cluster)
{
    cluster_wait(cluster, all_know_a_leader);
    return leader_of(cluster);
}

/* `count` servers that form a cluster and have a leader. */
static inline struct cluster *cluster_new(int count)
{
    struct cluster *cluster = cluster_new_as((struct cluster_plan){.servers = count});

    (void)cluster_leader(cluster);
    return cluster;
}

/* --- writes --- */

struct cluster_write {
    struct cluster *cluster;
    int which;
    struct buffer command;
};

static inline void cluster_write_send(struct cluster_write *write);

/* A busy machine may elect another leader at any time, and then nobody knows what became of what
 * was under way to the last one: it is sent once more, as a client would. */
static inline void cluster_on_written(void *context, const char *failure,
                                      const struct command_result *result)
{
    struct cluster_write *write = context;
    struct cluster *cluster = write->cluster;

    if (failure != NULL && strcmp(failure, "leadership lost while committing log") == 0) {
        cluster_write_send(write);
        return;
    }
    cluster->open--;
    if (failure != NULL || result->status != COMMAND_DONE || !result->ok) {
        cluster->writes_failed++;
        (void)snprintf(cluster->write_failure, sizeof(cluster->write_failure), "%s",
                       failure == NULL ? "" : failure);
    }
    buffer_deinit(&write->command);
    free(write);
}

static inline void cluster_write_send(struct cluster_write *write)
{
    replica_propose(write->cluster->servers[write->which].replica, buffer_slice(&write->command),
                    cluster_on_written, write);
}

/* Sends a command through a server, and empties the buffer for the next one. It must be one that
 * may be done twice. */
static inline void cluster_propose(struct cluster *cluster, int which, struct buffer *command)
{
    struct cluster_write *write = calloc(1, sizeof(*write));

    assert_non_null(write);
    *write = (struct cluster_write){.cluster = cluster, .which = which, .command = *command};
    memset(command, 0, sizeof(*command));
    cluster->open++;
    cluster_write_send(write);
}

static inline void cluster_put(struct cluster *cluster, int which, const char *key,
                               const char *value)
{
    struct buffer command = {0};

    command_encode_kv(&command, COMMAND_KV_SET, slice_from_text(key), slice_from_text(value), 0, 0,
                      NULL);
    cluster_propose(cluster, which, &command);
    buffer_deinit(&command);
}

/* Waits for what was sent to be answered; nothing may have failed. */
static inline void cluster_written(struct cluster *cluster)
{
    cluster_wait(cluster, all_is_answered);
    if (cluster->writes_failed > 0) {
        fail_msg("%d writes failed, the last one: \"%s\"", cluster->writes_failed,
                 cluster->write_failure);
    }
}

/* Writes 100 keys and waits until all have them, for those who come later or lose them to have
 * something to catch up with. */
static inline void cluster_fill(struct cluster *cluster)
{
    const int leader = cluster_leader(cluster);

    for (int i = 0; i < 100; i++) {
        char key[32];

        (void)snprintf(key, sizeof(key), "fill-%d", i);
        cluster_put(cluster, leader, key, key);
    }
    cluster_written(cluster);
    cluster_wait(cluster, all_stores_equal);
}

/* --- configurations --- */

/* The place of server `which` in the configuration that server `by` has; NULL if it has none. */
static inline const struct raft_server *place_of(struct cluster *cluster, int by, int which)
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

/* The voters of the configuration that a server has. */
static inline size_t voters_of(struct cluster *cluster, int which, raft_id ids[RAFT_SERVERS_MAX])
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
static inline bool has_vote(struct cluster *cluster, int which)
{
    const struct raft_server *place = place_of(cluster, which, which);

    return place != NULL && place->voter;
}

/* By the leader's configuration and its own. */
static inline bool subject_votes(struct cluster *cluster)
{
    const int leader = leader_of(cluster);
    const struct raft_server *place =
        leader < 0 ? NULL : place_of(cluster, leader, cluster->subject);

    return place != NULL && place->voter && has_vote(cluster, cluster->subject);
}

static inline bool subject_is_out(struct cluster *cluster)
{
    const int leader = leader_of(cluster);

    return leader >= 0 && place_of(cluster, leader, cluster->subject) == NULL;
}

static inline raft_id raft_id_of(const struct cluster *cluster, int which)
{
    return peers_id(&cluster->servers[which].node_id);
}

/* The text is valid until the next call. */
static inline const char *node_id_of(struct cluster *cluster, int which)
{
    static char text[UUID_TEXT_BYTES + 1];

    uuid_format(&cluster->servers[which].node_id, text);
    return text;
}

#endif
