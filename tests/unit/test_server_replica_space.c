/* Whom a leader hands over to: not to who is short of space when it has none itself, not to who has
 * lost its log; and where nobody has space leadership stays where it is. And which writes a leader
 * without space takes from others. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>

#include "kv/kv.h"
#include "tests/unit/replica_fixture.h"

/* As the log says it when no segment can be made any more. */
static void fill(struct cluster *cluster, int which, bool full)
{
    atomic_store(&cluster->servers[which].replica->log_full, full);
}

/* The leader has heard that cluster->subject is short of space, or is not any more. */
static bool leader_counts_on_subject(struct cluster *cluster)
{
    const int leader = leader_of(cluster);

    return leader >= 0 && !replica_space_is_short(cluster->servers[leader].replica,
                                                  raft_id_of(cluster, cluster->subject));
}

static bool leader_does_not_count_on_subject(struct cluster *cluster)
{
    return leader_of(cluster) >= 0 && !leader_counts_on_subject(cluster);
}

static bool subject_leads(struct cluster *cluster)
{
    return leader_of(cluster) == cluster->subject && all_know_a_leader(cluster);
}

/* Those of three that are not the leader, the one with the lower number first. */
static void followers_of(struct cluster *cluster, int leader, int *first, int *second)
{
    *first = (leader + 1) % 3;
    *second = (leader + 2) % 3;
    if (raft_id_of(cluster, *first) > raft_id_of(cluster, *second)) {
        *first = (leader + 2) % 3;
        *second = (leader + 1) % 3;
    }
}

/* Writes a key. A busy machine may elect a server without space, which refuses until it has handed
 * over again. */
static void put_in_the_end(struct cluster *cluster, int which, const char *key)
{
    for (int round = 0; round < 600; round++) {
        cluster->writes_failed = 0;
        cluster_put(cluster, which, key, "1");
        cluster_wait(cluster, all_is_answered);
        if (cluster->writes_failed == 0) {
            return;
        }
        assert_non_null(strstr(cluster->write_failure, "no space left on the Raft log's disk"));
        cluster_run(cluster, 100);
    }
    fail_msg("no write was taken: %s", cluster->write_failure);
}

static void a_leader_without_space_hands_over_to_a_server_that_has_it(void **state)
{
    struct cluster *cluster = cluster_new(3);
    int first, second;

    (void)state;
    const int leader = cluster_leader(cluster);
    followers_of(cluster, leader, &first, &second);
    cluster_put(cluster, leader, "before", "1");
    cluster_written(cluster);
    fill(cluster, first, true);
    cluster->subject = first;
    cluster_wait(cluster, leader_does_not_count_on_subject);
    fill(cluster, leader, true);
    cluster->subject = second;
    cluster_wait(cluster, subject_leads);
    put_in_the_end(cluster, second, "after");

    /* The new one hears of both, and keeps to who has space again. */
    cluster->subject = leader;
    cluster_wait(cluster, leader_does_not_count_on_subject);
    fill(cluster, first, false);
    cluster->subject = first;
    cluster_wait(cluster, leader_counts_on_subject);
    fill(cluster, second, true);
    cluster_wait(cluster, subject_leads);
    cluster_free(cluster);
}

/* Of the server behind cluster->subject, whoever leads. */
static struct replica *neighbour_of_subject(struct cluster *cluster)
{
    return cluster->servers[(cluster->subject + 1) % 3].replica;
}

static bool neighbour_does_not_count_on_subject(struct cluster *cluster)
{
    return replica_space_is_short(neighbour_of_subject(cluster),
                                  raft_id_of(cluster, cluster->subject));
}

static bool neighbour_counts_on_subject(struct cluster *cluster)
{
    return !neighbour_does_not_count_on_subject(cluster);
}

/* The connection to who is short broke, but not the one from there: nothing tells it to speak. Or
 * its last word was lost. */
static void what_is_known_of_anothers_space_comes_right_again(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    (void)cluster_leader(cluster);
    fill(cluster, cluster->subject, true);
    cluster_wait(cluster, neighbour_does_not_count_on_subject);
    replica_space_forget(neighbour_of_subject(cluster), raft_id_of(cluster, cluster->subject));
    cluster_wait(cluster, neighbour_does_not_count_on_subject);

    cluster->subject = 1;
    replica_on_space(neighbour_of_subject(cluster), raft_id_of(cluster, cluster->subject),
                     SLICE_LITERAL("\1"));
    assert_true(neighbour_does_not_count_on_subject(cluster));
    cluster_wait(cluster, neighbour_counts_on_subject);
    cluster_free(cluster);
}

static bool leader_counts_on_nobody(struct cluster *cluster)
{
    const int leader = leader_of(cluster);

    return leader >= 0 && cluster->servers[leader].replica->space.short_count == 2;
}

/* So that whoever is elected knows that there is nobody to hand over to. */
static bool each_counts_on_nobody(struct cluster *cluster)
{
    for (int i = 0; i < 3; i++) {
        if (cluster->servers[i].replica->space.short_count != 2) {
            return false;
        }
    }
    return true;
}

static void where_nobody_has_space_the_leader_stays_and_takes_writes_when_it_has_some(void **state)
{
    struct cluster *cluster = cluster_new(3);
    unsigned tries[3];

    (void)state;
    const int leader = cluster_leader(cluster);
    for (int i = 0; i < 3; i++) {
        if (i != leader) {
            fill(cluster, i, true);
        }
    }
    cluster_wait(cluster, leader_counts_on_nobody);
    fill(cluster, leader, true);
    cluster_put(cluster, leader, "k", "1");
    cluster_wait(cluster, all_is_answered);
    assert_non_null(strstr(cluster->write_failure, "no space left on the Raft log's disk"));
    cluster_wait(cluster, each_counts_on_nobody);
    for (int i = 0; i < 3; i++) {
        tries[i] = cluster->servers[i].replica->space.tries;
    }
    cluster_run(cluster, 3000); /* Some times as long as it takes to ask again. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cluster->servers[i].replica->space.tries, tries[i]);
        fill(cluster, i, false);
    }
    cluster->writes_failed = 0;
    cluster_put(cluster, cluster_leader(cluster), "k", "2");
    cluster_written(cluster);
    cluster_free(cluster);
}

static bool subject_follows_a_full_leader(struct cluster *cluster)
{
    const int leader = leader_of(cluster);

    return leader >= 0 && leader != cluster->subject && all_know_a_leader(cluster) &&
           cluster->servers[leader].replica->space.store_full && all_stores_equal(cluster) &&
           place_of(cluster, cluster->subject, cluster->subject) != NULL;
}

/* Symptom: while the leader's state was full, a delete, or the end of a session, that reached a
 * follower together with a write that grows was refused with it. Cause: what is forwarded together
 * is refused as a whole. Rule: each command is judged by itself, as the leader judges those of its
 * own clients. */
static void a_full_leader_judges_what_is_forwarded_together_one_by_one(void **state)
{
    static const char key[] = "gone";
    struct cluster *cluster =
        cluster_new_as((struct cluster_plan){.servers = 1, .stable_ms = CLUSTER_NEVER_STABLE_MS});
    const struct uuid session = {.bytes = {1}};
    struct buffer command = {0};

    (void)state;
    cluster_put(cluster, cluster_leader(cluster), key, "1");
    cluster_written(cluster);
    cluster_stop(cluster, 0);
    cluster->configs[0].state_bytes_max = REPLICA_STATE_RESERVE_BYTES;
    cluster_start(cluster, 0);
    cluster->plan.expect = 3;                 /* The next one makes no cluster of its own. */
    cluster->subject = cluster_grow(cluster); /* Which has space, and no vote. */
    cluster_wait(cluster, subject_follows_a_full_leader);

    struct replica *follower = cluster->servers[cluster->subject].replica;
    const uint64_t asked = follower->last_request;

    cluster_put(cluster, cluster->subject, "more", "1");
    command_encode_kv(&command, COMMAND_KV_DELETE, slice_from_text(key), SLICE_EMPTY, 0, 0, NULL);
    cluster_propose(cluster, cluster->subject, &command);
    cluster_put(cluster, cluster->subject, "most", "1");
    command_encode_session_destroy(&command, &session, slice_from_text("test"));
    cluster_propose(cluster, cluster->subject, &command);
    buffer_deinit(&command);
    cluster_wait(cluster, all_is_answered);
    assert_true(follower->last_request >= asked + 1 + 4); /* Together, and then one by one. */
    assert_int_equal(cluster->writes_failed, 2);
    assert_non_null(strstr(cluster->write_failure, "no space left for the state"));
    struct store_txn txn;
    struct kv_entry entry;

    assert_int_equal(store_read_begin(cluster->servers[cluster->subject].store, &txn), STORE_OK);
    assert_int_equal(kv_get(&txn, slice_from_text(key), &entry), STORE_ENOTFOUND);
    store_read_end(&txn);
    cluster_free(cluster);
}

static bool leader_sees_that_subject_is_fresh(struct cluster *cluster)
{
    const int leader = leader_of(cluster);
    const struct member *member = leader < 0
                                      ? NULL
                                      : replica_member(cluster->servers[leader].replica,
                                                       raft_id_of(cluster, cluster->subject));

    return member != NULL && member->fresh;
}

static void on_handed_over(void *context)
{
    struct cluster *cluster = context;

    cluster->open--;
}

/* Its log was all there when the leader last heard of it, and is lost now: it would not stand. */
static void who_has_lost_its_log_is_not_handed_leadership(void **state)
{
    struct cluster *cluster =
        cluster_new_as((struct cluster_plan){.servers = 3, .raft_multiplier = 3});
    int first, second;

    (void)state;
    cluster_put(cluster, 0, "k", "1");
    cluster_written(cluster);
    cluster_wait(cluster, all_stores_equal);
    const int leader = cluster_leader(cluster);

    followers_of(cluster, leader, &first, &second);
    struct replica *fresh = cluster->servers[first].replica;

    fresh->fresh = true; /* And has not caught up with this leader yet. */
    fresh->fresh_term = fresh->term;
    fresh->fresh_index = UINT64_MAX;
    cluster->subject = first;
    cluster_wait(cluster, leader_sees_that_subject_is_fresh);
    cluster->subject = second;
    /* The first try may be given up: on a busy machine an election takes longer than it waits. */
    for (int round = 0; round < 600 && !subject_leads(cluster); round++) {
        assert_int_not_equal(leader_of(cluster), first);
        if (leader_of(cluster) == leader && cluster->open == 0) {
            cluster->open++;
            replica_hand_over(cluster->servers[leader].replica, on_handed_over, cluster);
        }
        cluster_run(cluster, 100);
    }
    assert_true(subject_leads(cluster));
    cluster_wait(cluster, all_is_answered);
    cluster_free(cluster);
}

static void count_failures(void *context, const struct log_event *event)
{
    atomic_int *count = context;

    if (strstr(event->text, "cannot receive a snapshot") != NULL) {
        (void)atomic_fetch_add(count, 1);
    }
}

/* Symptom: a follower without room for the leader's snapshot logged an error every second. */
static void a_snapshot_that_cannot_be_received_is_told_of_once(void **state)
{
    struct cluster *cluster = cluster_new(1);
    const struct message_snapshot piece = {.index = 9, .term = 1, .bytes = 1, .data = SLICE_EMPTY};
    struct buffer payload = {0};
    atomic_int count = 0;

    (void)state;
    struct replica *replica = cluster->servers[cluster_leader(cluster)].replica;
    message_put_snapshot(&payload, &piece);
    log_tap_set(count_failures, &count, LOG_ERROR);
    for (int i = 0; i < 3; i++) {
        replica_snapshot_want(replica, 7, 1);
        replica_on_snapshot_chunk(replica, 7, buffer_slice(&payload));
        assert_int_equal(replica->fetch.from, 0);
    }
    log_tap_set(NULL, NULL, LOG_ERROR);
    assert_int_equal(atomic_load(&count), 1);
    buffer_deinit(&payload);
    cluster_free(cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leader_without_space_hands_over_to_a_server_that_has_it),
        cmocka_unit_test(what_is_known_of_anothers_space_comes_right_again),
        cmocka_unit_test(where_nobody_has_space_the_leader_stays_and_takes_writes_when_it_has_some),
        cmocka_unit_test(a_full_leader_judges_what_is_forwarded_together_one_by_one),
        cmocka_unit_test(who_has_lost_its_log_is_not_handed_leadership),
        cmocka_unit_test(a_snapshot_that_cannot_be_received_is_told_of_once),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
