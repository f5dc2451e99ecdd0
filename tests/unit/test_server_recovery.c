/* Servers that lost what they had: one that was wiped has no vote until it has caught up, and what
 * an operator writes into peers.json is done once. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>

#include "replica_fixture.h"

/* --- wiped --- */

static bool subject_has_a_place(struct cluster *cluster)
{
    return place_of(cluster, cluster->subject, cluster->subject) != NULL;
}

static void a_wiped_server_does_not_make_a_cluster_of_its_own(void **state)
{
    struct cluster *cluster =
        cluster_new_as((struct cluster_plan){.servers = 3, .stable_ms = CLUSTER_NEVER_STABLE_MS});
    const int wiped = (cluster_leader(cluster) + 1) % 3;
    raft_id ids[RAFT_SERVERS_MAX];

    (void)state;
    cluster_stop(cluster, wiped);
    cluster_wipe(cluster, wiped);
    server_random(cluster->servers[wiped].node_id.bytes, UUID_BYTES); /* It was in that folder. */
    cluster_start(cluster, wiped);
    /* The others take it in as a server that has no say yet. */
    cluster->subject = wiped;
    cluster_wait(cluster, subject_has_a_place);
    cluster_run(cluster, 2500);
    assert_int_equal(voters_of(cluster, wiped, ids), 3);
    assert_false(has_vote(cluster, wiped));
    cluster_free(cluster);
}

static bool subject_is_not_fresh(struct cluster *cluster)
{
    return !cluster->servers[cluster->subject].replica->fresh;
}

/* Two of three acknowledged; one of them loses its log. It must not help the third, which lacks
 * what was acknowledged, to become leader. */
static void a_wiped_server_under_its_old_id_does_not_vote(void **state)
{
    struct cluster *cluster = cluster_new(3);
    const int leader = cluster_leader(cluster);
    const int behind = (leader + 1) % 3;
    const int wiped = (leader + 2) % 3;

    (void)state;
    cluster_fill(cluster);
    cluster_stop(cluster, behind);
    cluster_put(cluster, leader, "acknowledged", "1");
    cluster_written(cluster);
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
    (void)cluster_leader(cluster);
    cluster_wait(cluster, all_stores_equal);
    cluster->subject = wiped;
    cluster_wait(cluster, subject_is_not_fresh);
    cluster_free(cluster);
}

static bool subject_has_caught_up(struct cluster *cluster)
{
    return subject_is_not_fresh(cluster) && subject_votes(cluster);
}

/* Whichever leads then: the subject becomes a follower of it that has acknowledged all. Else that
 * leader would have nothing to be mistaken about, and would send all from the beginning. */
static bool subject_has_acknowledged(struct cluster *cluster)
{
    const int leader = leader_of(cluster);
    struct raft_progress progress;

    cluster->subject = (leader + 1) % 3;
    return leader >= 0 &&
           raft_progress(cluster->servers[leader].replica->raft,
                         peers_id(&cluster->servers[cluster->subject].node_id), 0, &progress) &&
           progress.match_index == raft_last_index(cluster->servers[leader].replica->raft);
}

/* The leader when the subject lost its log, and its term. */
static int wiped_under;
static raft_term wiped_term;

static bool subject_is_out_or_another_leads(struct cluster *cluster)
{
    const int leader = leader_of(cluster);

    return subject_is_out(cluster) ||
           (leader >= 0 &&
            (leader != wiped_under || cluster->servers[leader].replica->term != wiped_term));
}

/* The leader goes on thinking that it has what it once acknowledged, unless it is taken out. One
 * that is elected afterwards, which comes of a busy machine, thinks nothing of the kind. */
static void a_wiped_server_under_its_old_id_joins_as_a_new_one(void **state)
{
    struct cluster *cluster = cluster_new(3);

    (void)state;
    cluster_fill(cluster);
    cluster_wait(cluster, subject_has_acknowledged);
    wiped_under = leader_of(cluster);
    wiped_term = cluster->servers[wiped_under].replica->term;
    cluster_stop(cluster, cluster->subject);
    cluster_wipe(cluster, cluster->subject);
    cluster_start(cluster, cluster->subject);
    cluster_wait(cluster, subject_is_out_or_another_leads);
    cluster_wait(cluster, subject_has_caught_up);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

/* --- fresh --- */

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
    struct cluster *cluster = cluster_new_as((struct cluster_plan){.servers = 1, .expect = 3});

    (void)state;
    assert_true(cluster->servers[0].replica->fresh);
    replica_fresh_chose(cluster->servers[0].replica, 7);
    replica_fresh_chose(cluster->servers[0].replica, 8);
    /* Its log is empty still after the second start, so it takes the same again. */
    for (int start = 1; start <= 2; start++) {
        cluster_stop(cluster, 0);
        cluster_start(cluster, 0);
        assert_true(cluster->servers[0].replica->fresh);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            const struct raft_message message = {
                .type = cases[i].type, .from = cases[i].from, .last_index = cases[i].last_index};

            if (replica_fresh_takes(cluster->servers[0].replica, &message) != cases[i].takes) {
                fail_msg("start %d: %s", start, cases[i].name);
            }
        }
    }
    cluster_free(cluster);
}

static void catching_up_path(struct cluster *cluster, int which, char out[128])
{
    (void)snprintf(out, 128, "%s/catching-up", cluster->dirs[which]);
}

/* The file that says that a server does not vote. */
static void write_catching_up(struct cluster *cluster, int which, const char *text)
{
    char path[128];
    FILE *file;

    catching_up_path(cluster, which, path);
    file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* Nobody has that file. */
static bool all_have_caught_up(struct cluster *cluster)
{
    for (int i = 0; i < CLUSTER_SERVERS_MAX; i++) {
        char path[128];

        catching_up_path(cluster, i, path);
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
    cluster_wait(cluster, all_have_caught_up);
    cluster_stop_all(cluster);
    for (int i = 0; i < 3; i++) {
        write_catching_up(cluster, i, "This server has not caught up.\n0000000000000007\nvoted\n");
        cluster_start(cluster, i);
        assert_false(cluster->servers[i].replica->fresh);
    }
    assert_true(all_have_caught_up(cluster));
    (void)cluster_leader(cluster);
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
                      node_id_of(cluster, i), cluster->addresses[i],
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
    cluster_fill(cluster);
    cluster_stop_all(cluster);
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
    cluster_fill(cluster);
    cluster_stop_all(cluster);
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
    cluster_fill(cluster);
    cluster_stop_all(cluster);
    for (int i = 0; i < 2; i++) {
        write_catching_up(cluster, i, "");
        write_peers(cluster, i, 2);
    }
    cluster_start(cluster, 0);
    cluster_start(cluster, 1);
    (void)cluster_leader(cluster);
    cluster_wait(cluster, all_stores_equal);
    cluster_free(cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wiped_server_does_not_make_a_cluster_of_its_own),
        cmocka_unit_test(a_wiped_server_under_its_old_id_does_not_vote),
        cmocka_unit_test(a_wiped_server_under_its_old_id_joins_as_a_new_one),
        cmocka_unit_test(whom_a_server_chose_to_begin_with_has_its_vote_after_a_restart),
        cmocka_unit_test(who_voted_to_begin_with_goes_on_voting_once_it_has_an_entry),
        cmocka_unit_test(a_recovery_that_was_cut_short_is_not_made_twice),
        cmocka_unit_test(a_recovered_server_gives_up_a_configuration_that_only_it_has),
        cmocka_unit_test(whom_peers_json_names_votes_though_it_has_not_caught_up),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
