/* A cluster's id: how servers tell each other, when a cluster gets one, and that it outlives the
 * state. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "server/peers/hello.h"
#include "tests/unit/replica_fixture.h"

/* --- the hello --- */

static const struct link_identity speaker = {.id.bytes = {2},
                                             .name = "node2",
                                             .datacenter = "dc1",
                                             .address = "127.0.0.1",
                                             .serf_port = 8301,
                                             .server_port = 8300,
                                             .cluster_id.bytes = {7, 8}};

static void a_hello_carries_the_id_and_may_end_before_it(void **state)
{
    struct buffer hello = {0};
    struct link_identity heard;

    (void)state;
    hello_put(&hello, &speaker);
    assert_true(hello_get(buffer_slice(&hello), &heard));
    assert_true(heard.has_cluster_id);
    assert_true(uuid_equal(&heard.cluster_id, &speaker.cluster_id));
    assert_string_equal(heard.name, speaker.name);
    assert_int_equal(heard.server_port, speaker.server_port);
    /* As an older version sends it. */
    assert_true(hello_get(slice_from(hello.data, hello.size - UUID_BYTES), &heard));
    assert_false(heard.has_cluster_id);
    assert_true(uuid_is_zero(&heard.cluster_id));
    assert_false(hello_get(slice_from(hello.data, hello.size - UUID_BYTES - 1), &heard));
    buffer_append_char(&hello, 0); /* A newer one's. */
    assert_true(hello_get(buffer_slice(&hello), &heard));
    assert_true(uuid_equal(&heard.cluster_id, &speaker.cluster_id));
    buffer_deinit(&hello);
}

static void only_two_different_ids_do_not_fit(void **state)
{
    struct link_identity self = speaker;
    struct link_identity peer = speaker;
    char reason[512] = "";

    (void)state;
    assert_true(hello_fits(&self, &peer, reason, sizeof(reason)));
    memset(&self.cluster_id, 0, sizeof(self.cluster_id));
    assert_true(hello_fits(&self, &peer, reason, sizeof(reason)));
    assert_true(hello_fits(&peer, &self, reason, sizeof(reason)));
    assert_true(hello_fits(&self, &self, reason, sizeof(reason)));
    self.cluster_id.bytes[15] = 1;
    assert_false(hello_fits(&self, &peer, reason, sizeof(reason)));
    assert_non_null(strstr(reason, "07080000-0000-0000-0000-000000000000"));
    assert_non_null(strstr(reason, "00000000-0000-0000-0000-000000000001"));
    assert_non_null(strstr(reason, "empty its data_dir"));
    peer = self;
    (void)strcpy(peer.datacenter, "dc2");
    assert_false(hello_fits(&self, &peer, reason, sizeof(reason)));
}

/* --- servers --- */

static bool all_have_one_id(struct cluster *cluster)
{
    const struct uuid *id =
        &cluster->servers[leader_of(cluster) < 0 ? 0 : leader_of(cluster)].cluster_id;

    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
        if (cluster->servers[i].replica != NULL &&
            (uuid_is_zero(id) || !uuid_equal(&cluster->servers[i].cluster_id, id))) {
            return false;
        }
    }
    return true;
}

static void wipe_state(struct cluster *cluster, int which)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf %s/state", cluster->dirs[which]);
    assert_int_equal(system(command), 0);
}

/* As a machine crash does it: who starts knows its cluster, though nothing is applied yet. */
static void the_id_outlives_all_processes_and_the_state(void **state)
{
    struct cluster *cluster = cluster_new(3);
    struct uuid id;

    (void)state;
    cluster_wait(cluster, all_have_one_id);
    id = cluster->servers[0].cluster_id;
    cluster_stop_all(cluster);
    wipe_state(cluster, 1);
    for (int i = 0; i < 3; i++) {
        memset(&cluster->servers[i].cluster_id, 0, UUID_BYTES);
        cluster_start(cluster, i);
        assert_true(uuid_equal(&cluster->servers[i].cluster_id, &id));
    }
    (void)cluster_leader(cluster);
    cluster_put(cluster, 0, "k", "v");
    cluster_written(cluster);
    cluster_wait(cluster, all_stores_equal);

    /* A file that a crash cut short is made up for from the state. */
    cluster_stop(cluster, 2);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/raft/cluster-id", cluster->dirs[2]);
    assert_int_equal(truncate(path, 7), 0);
    cluster_start(cluster, 2);
    assert_true(uuid_equal(&cluster->servers[2].cluster_id, &id));
    cluster_stop(cluster, 2);
    wipe_state(cluster, 2);
    cluster_start(cluster, 2);
    assert_true(uuid_equal(&cluster->servers[2].cluster_id, &id));
    cluster_free(cluster);
}

static bool nobody_reaches_the_subject(struct cluster *cluster)
{
    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
        if (cluster->servers[i].replica != NULL &&
            peers_is_up(cluster->servers[i].replica->peers,
                        raft_id_of(cluster, cluster->subject))) {
            return false;
        }
    }
    return true;
}

/* A server that is away may be of an older version, which stops at the entry. */
static void a_cluster_gets_its_id_when_all_its_servers_are_there(void **state)
{
    struct cluster *cluster = cluster_new_as((struct cluster_plan){.servers = 3});
    int away;

    (void)state;
    for (int i = 0; i < 3; i++) {
        cluster->servers[i].replica->cluster_term = UINT64_MAX;
    }
    away = (cluster_leader(cluster) + 1) % 3;
    cluster_stop(cluster, away);
    cluster->subject = away;
    cluster_wait(cluster, nobody_reaches_the_subject);
    (void)cluster_leader(cluster);
    for (int i = 0; i < 3; i++) {
        if (i != away) {
            cluster->servers[i].replica->cluster_term = 0;
            assert_true(uuid_is_zero(&cluster->servers[i].cluster_id));
        }
    }
    cluster_run(cluster, 1000); /* It is not to happen. */
    assert_true(uuid_is_zero(&cluster->servers[(away + 1) % 3].cluster_id));
    assert_true(uuid_is_zero(&cluster->servers[(away + 2) % 3].cluster_id));
    cluster_start(cluster, away);
    cluster_wait(cluster, all_have_one_id);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static bool subject_has_an_id(struct cluster *cluster)
{
    return !uuid_is_zero(&cluster->servers[cluster->subject].cluster_id);
}

static bool subject_knows_somebody(struct cluster *cluster)
{
    return membership_count(cluster->servers[cluster->subject].membership) > 1;
}

/* Symptom: the servers of a cluster that has no leader any more cannot be told by that, and one
 * that was started to join another cluster was added there with its own log. */
static void a_server_without_a_leader_does_not_get_into_another_cluster(void **state)
{
    struct cluster *cluster = cluster_new(3);
    const int subject = 3;

    (void)state;
    cluster_wait(cluster, all_have_one_id);
    cluster->plan.expect = 1;
    cluster->subject = subject;
    cluster_prepare(cluster, subject);
    cluster->configs[subject].retry_join_count = 0; /* A cluster of its own. */
    cluster_start(cluster, subject);
    cluster_wait(cluster, subject_has_an_id);
    cluster_stop(cluster, subject);
    cluster->configs[subject].bootstrap_expect = 0;
    cluster->configs[subject].retry_join_count = 3;
    wipe_state(cluster, subject);
    cluster_start(cluster, subject);
    cluster_run(cluster, 2000); /* It is not to happen. */
    assert_false(subject_knows_somebody(cluster));
    for (int i = 0; i < subject; i++) {
        assert_int_equal(membership_count(cluster->servers[i].membership), 3);
    }

    cluster_stop(cluster, subject);
    cluster_wipe(cluster, subject);
    cluster_start(cluster, subject);
    cluster_wait(cluster, subject_votes);
    cluster_wait(cluster, all_have_one_id);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

static bool subject_has_no_link(struct cluster *cluster)
{
    for (int i = 0; i < cluster->subject; i++) {
        if (peers_is_up(cluster->servers[i].replica->peers,
                        raft_id_of(cluster, cluster->subject)) ||
            peers_is_up(cluster->servers[cluster->subject].replica->peers,
                        raft_id_of(cluster, i))) {
            return false;
        }
    }
    return true;
}

static bool subject_has_all_links(struct cluster *cluster)
{
    for (int i = 0; i < cluster->subject; i++) {
        if (!peers_is_up(cluster->servers[i].replica->peers,
                         raft_id_of(cluster, cluster->subject)) ||
            !peers_is_up(cluster->servers[cluster->subject].replica->peers,
                         raft_id_of(cluster, i))) {
            return false;
        }
    }
    return true;
}

/* Two clusters that are connected before they have ids part when they get them. */
static void servers_that_learn_their_id_part(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_wait(cluster, all_have_one_id);
    cluster->plan.expect = 1;
    cluster->subject = cluster_grow(cluster);
    cluster->servers[cluster->subject].replica->cluster_term = UINT64_MAX;
    cluster_wait(cluster, subject_has_all_links);
    assert_false(subject_has_an_id(cluster));
    cluster->servers[cluster->subject].replica->cluster_term = 0;
    cluster_wait(cluster, subject_has_an_id);
    cluster_wait(cluster, subject_has_no_link);
    cluster_run(cluster, 1000); /* It stays so. */
    assert_true(subject_has_no_link(cluster));
    cluster_free(cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hello_carries_the_id_and_may_end_before_it),
        cmocka_unit_test(only_two_different_ids_do_not_fit),
        cmocka_unit_test(the_id_outlives_all_processes_and_the_state),
        cmocka_unit_test(a_cluster_gets_its_id_when_all_its_servers_are_there),
        cmocka_unit_test(a_server_without_a_leader_does_not_get_into_another_cluster),
        cmocka_unit_test(servers_that_learn_their_id_part),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
