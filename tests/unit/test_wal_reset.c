/* Snapshots and the log: a log that begins anew behind one, across crashes, and what a trimmed log
 * tells after a restart; and that looking into a log changes nothing. */

#include "wal_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "raft/wal_inspect.h"

static void reset(struct test_log *log, raft_index index, raft_term term)
{
    wal_snapshot_synced(log->wal, index, term);
    assert_int_equal(wal_reset(log->wal, ++log->sequence, index, term), WAL_OK);
}

static void check_new_beginning(const struct test_log *log, raft_index index, raft_term term)
{
    assert_int_equal(log->state.first_index, index + 1);
    assert_int_equal(log->state.prev_term, term);
    assert_null(log->state.configuration);
    assert_null(log->state.configuration_before);
}

/* Rows: how much log there is before, and where the snapshot is. */
static const struct {
    const char *name;
    raft_index last;  /* of the old log, all of term 3 */
    raft_index index; /* of the snapshot */
    size_t after;     /* entries appended behind it */
} cases[] = {
    {"empty log", 0, 500, 3},
    {"snapshot ahead of the log", 40, 500, 7},
    {"snapshot far ahead, nothing appended", 400, 100000, 0},
    {"snapshot inside of a log that contradicts it", 400, 200, 5},
    {"snapshot at the log's end", 40, 40, 1},
    {"as much after as before", 300, 1000, 300},
};

static void test_a_reset_log_goes_on_behind_the_snapshot(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct test_log log;
        print_message("  %s\n", cases[i].name);
        test_dir_remove(test_dir);
        test_log_init(&log);
        test_log_open_ok(&log);
        assert_int_equal(test_log_vote(&log, 9, 4), WAL_OK);
        for (raft_index first = 1; first <= cases[i].last; first += 20) {
            test_log_batch(&log, first, 20, 3);
        }
        reset(&log, cases[i].index, 8);
        assert_int_equal(wal_first_index(log.wal), cases[i].index + 1);
        assert_int_equal(wal_last_index(log.wal), cases[i].index);
        if (cases[i].after > 0) { /* Before the reset is durable. */
            assert_int_equal(test_log_write(&log, 0, cases[i].index + 1, cases[i].after, 9),
                             WAL_OK);
        }
        struct raft_entry entry;
        assert_int_equal(wal_entry(log.wal, cases[i].index, &entry), WAL_ENOTFOUND);
        test_log_check_range(&log, cases[i].index + 1, cases[i].index + cases[i].after, 9);
        test_log_wait(&log);
        for (int open = 0; open < 3; open++) {
            test_log_check_range(&log, cases[i].index + 1, cases[i].index + cases[i].after, 9);
            test_log_close(&log);
            test_log_open_ok(&log);
            check_new_beginning(&log, cases[i].index, 8);
            assert_int_equal(log.state.last_index, cases[i].index + cases[i].after);
            assert_int_equal(log.state.term, 9);
            assert_int_equal(log.state.vote, 4);
            assert_int_equal(log.state.run_count, cases[i].after > 0 ? 1 : 0);
        }
        test_log_close(&log);
    }
}

static void test_segments_before_a_reset_are_deleted(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    log.options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    test_log_open_ok(&log);
    for (raft_index first = 1; first <= 300; first += 10) {
        test_log_batch(&log, first, 10, 1);
    }
    assert_true(test_segment_count() > 3);
    reset(&log, 5000, 2);
    test_log_wait(&log);
    test_log_close(&log);
    assert_int_equal(test_segment_count(), 1);
    test_log_open_ok(&log);
    check_new_beginning(&log, 5000, 2);
    test_log_close(&log);
}

/* A crash may leave any number of the batch's bytes, and the old segments. Either the log of before
 * is there, whole, or the new one. */
static void test_a_reset_cut_at_any_byte_leaves_the_old_log_or_the_new_one(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 10, 1);
    assert_int_equal(test_log_vote(&log, 2, 6), WAL_OK);
    test_log_wait(&log);
    struct test_bytes before = test_file_read(1);
    /* One batch: reset, and what follows it. */
    struct raft_entry one = {.index = 101, .term = 2, .type = RAFT_ENTRY_NOOP, .data = ""};
    wal_snapshot_synced(log.wal, 100, 2);
    const struct wal_write write = {.sequence = ++log.sequence,
                                    .reset_index = 100,
                                    .reset_term = 2,
                                    .entries = &one,
                                    .entry_count = 1};
    assert_int_equal(wal_write(log.wal, &write), WAL_OK);
    test_log_wait(&log);
    struct test_bytes after = test_file_read(1);
    test_log_close(&log);
    assert_int_equal(before.size, after.size);

    size_t first = 0;
    size_t end = after.size;
    while (first < after.size && before.data[first] == after.data[first]) {
        first++;
    }
    while (end > first && before.data[end - 1] == after.data[end - 1]) {
        end--;
    }
    assert_true(end > first);
    size_t old_logs = 0;
    for (size_t cut = first; cut <= end; cut++) {
        memcpy(before.data + first, after.data + first, cut - first);
        test_file_write(1, before.data, before.size);
        test_log_open_ok(&log);
        assert_int_equal(log.state.term, 2);
        assert_int_equal(log.state.vote, 6);
        if (log.state.first_index == 1) {
            assert_int_equal(log.state.last_index, 10);
            test_log_check_range(&log, 1, 10, 1);
            old_logs++;
        } else {
            check_new_beginning(&log, 100, 2);
            assert_int_equal(log.state.last_index, 101);
        }
        test_log_close(&log);
    }
    /* The record's checksum comes last to be whole: nearly all cuts leave the old log. */
    assert_true(old_logs > 32);
    assert_true(old_logs < end - first + 1);
    free(before.data);
    free(after.data);
}

/* Old segments that a crash kept from being deleted are read, dropped, and go with the next trim.
 */
static void test_old_segments_left_by_a_crash_do_no_harm(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    log.options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    test_log_open_ok(&log);
    for (raft_index first = 1; first <= 60; first += 10) {
        test_log_batch(&log, first, 10, 1);
    }
    struct test_image old = test_image_take();
    reset(&log, 700, 5);
    test_log_wait(&log);
    test_log_close(&log);
    struct test_bytes last = test_file_read(old.last_id);
    test_image_put(&old);
    test_file_write(old.last_id, last.data, last.size);

    test_log_open_ok(&log);
    check_new_beginning(&log, 700, 5);
    test_log_batch(&log, 701, 20, 5);
    assert_int_equal(test_log_trim(&log, 701), WAL_OK);
    test_log_check_range(&log, 701, 720, 5);
    test_log_close(&log);
    test_log_open_ok(&log);
    check_new_beginning(&log, 700, 5);
    assert_int_equal(log.state.last_index, 720);
    test_log_check_range(&log, 701, 720, 5);
    assert_true(test_segment_count() <= 2);
    test_log_close(&log);
    free(last.data);
    test_image_free(&old);
}

/* A trim is for what a synced snapshot covers; the host's mistake must not cost entries. */
static void test_trimming_beyond_the_snapshot_stops_the_process(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct test_log log;
        (void)freopen("/dev/null", "w", stderr); /* The assertion's words are expected. */
        test_log_init(&log);
        (void)signal(SIGABRT, SIG_DFL);
        if (test_log_open(&log) != WAL_OK || test_log_write(&log, 0, 1, 50, 1) != WAL_OK) {
            _exit(1);
        }
        wal_snapshot_synced(log.wal, 20, 1);
        if (wal_trim(log.wal, 21, log.message) != WAL_OK) {
            _exit(2);
        }
        (void)wal_trim(log.wal, 22, log.message);
        _exit(3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static size_t configuration_bytes(uint8_t *out)
{
    const struct raft_configuration configuration = {
        .count = 1, .servers = {{.id = 7, .voter = true, .info_size = 0}}};
    return raft_configuration_encode(&configuration, out);
}

/* A configuration counts only as long as its entry is in the log. */
static void test_a_trimmed_configuration_is_not_reported(void **state)
{
    (void)state;
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    struct test_log log;
    test_log_init(&log);
    log.options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    test_log_open_ok(&log);
    struct raft_entry one = {.index = 1,
                             .term = 1,
                             .type = RAFT_ENTRY_CONFIGURATION,
                             .data = bytes,
                             .size = configuration_bytes(bytes)};
    struct wal_write write = {.sequence = ++log.sequence, .entries = &one, .entry_count = 1};
    assert_int_equal(wal_write(log.wal, &write), WAL_OK);
    for (raft_index first = 2; first <= 200; first += 10) {
        test_log_batch(&log, first, 10, 1 + first / 100);
    }
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_non_null(log.state.configuration);
    assert_int_equal(log.state.configuration->index, 1);
    assert_int_equal(test_log_trim(&log, 190), WAL_OK);
    const raft_index first = wal_first_index(log.wal);
    assert_true(first > 1);
    test_log_close(&log);
    test_log_open_ok(&log);
    check_new_beginning(&log, first - 1, 1 + (first - 1 - 2) / 10 * 10 / 100);
    test_log_close(&log);
}

/* --- at a start --- */

static void test_a_start_tells_whether_log_and_snapshot_fit(void **state)
{
    (void)state;
    static const struct raft_term_run runs[] = {{.first = 11, .term = 2}, {.first = 21, .term = 5}};
    static const struct {
        const char *name;
        raft_index first, last; /* runs as above, term 2 before */
        raft_term term;         /* the stored one */
        raft_index index;       /* the snapshot's */
        raft_term snapshot_term;
        enum wal_fit expected;
    } fits[] = {
        {"a new server", 1, 0, 0, 0, 0, WAL_FITS},
        {"no snapshot yet", 1, 30, 5, 0, 0, WAL_FITS},
        {"in the log", 11, 30, 5, 25, 5, WAL_FITS},
        {"in the log, contradicted", 11, 30, 6, 25, 6, WAL_FIT_RESET},
        {"right before the log", 11, 30, 5, 10, 2, WAL_FITS},
        {"right before the log, contradicted", 11, 30, 5, 10, 1, WAL_FIT_RESET},
        {"at the log's end", 11, 30, 5, 30, 5, WAL_FITS},
        {"ahead of the log", 11, 30, 5, 31, 5, WAL_FIT_RESET},
        {"ahead of an empty log", 1, 0, 5, 31, 5, WAL_FIT_RESET},
        {"an empty log behind it", 11, 10, 5, 10, 2, WAL_FITS},
        {"a newer one is missing", 11, 30, 5, 9, 2, WAL_FIT_NO_SNAPSHOT},
        {"none, but a trimmed log", 11, 30, 5, 0, 0, WAL_FIT_NO_SNAPSHOT},
        {"the log is lost", 1, 0, 0, 31, 5, WAL_FIT_NO_LOG},
    };
    for (size_t i = 0; i < sizeof(fits) / sizeof(fits[0]); i++) {
        const bool trimmed = fits[i].first > 1;
        const struct raft_state log = {.term = fits[i].term,
                                       .first_index = fits[i].first,
                                       .last_index = fits[i].last,
                                       .prev_term = trimmed ? 2 : 0,
                                       .runs = runs,
                                       .run_count = fits[i].last < 11 ? 0 : 2};
        const enum wal_fit fit = wal_fit(&log, fits[i].index, fits[i].snapshot_term);
        if (fit != fits[i].expected) {
            fail_msg("%s: %d, expected %d", fits[i].name, fit, fits[i].expected);
        }
    }
}

static void test_a_closed_log_is_reset_for_a_start(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    test_log_open_ok(&log);
    assert_int_equal(test_log_vote(&log, 3, 8), WAL_OK);
    test_log_batch(&log, 1, 30, 3);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(wal_fit(&log.state, 80, 3), WAL_FIT_RESET);
    test_log_close(&log);
    assert_int_equal(wal_reset_closed(&log.options, 80, 3, log.message), WAL_OK);
    test_log_open_ok(&log);
    check_new_beginning(&log, 80, 3);
    assert_int_equal(wal_fit(&log.state, 80, 3), WAL_FITS);
    assert_int_equal(log.state.term, 3);
    assert_int_equal(log.state.vote, 8); /* Not to be given twice. */
    assert_int_equal(wal_reset_closed(&log.options, 90, 3, log.message), WAL_ELOCKED);
    test_log_close(&log);
    assert_int_equal(wal_reset_closed(&log.options, 90, 7, log.message), WAL_OK);
    test_log_open_ok(&log);
    check_new_beginning(&log, 90, 7);
    assert_int_equal(log.state.term, 7);
    assert_int_equal(log.state.vote, 0);
    test_log_close(&log);
}

/* --- looking in --- */

static char *inspect(int expected_rc, char *message)
{
    const struct wal_inspect_options options = {.dir = test_dir, .records = true};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    int rc = wal_inspect(&options, out, message);
    (void)fclose(out);
    if (rc != expected_rc) {
        fail_msg("%s: %s\n%s", wal_strerror(rc), message, text);
    }
    return text;
}

static void test_inspecting_shows_every_record_and_changes_nothing(void **state)
{
    (void)state;
    char message[WAL_ERROR_BYTES_MAX];
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    struct test_log log;
    test_log_init(&log);
    test_log_open_ok(&log);
    free(inspect(WAL_OK, message)); /* In use, and empty. */
    assert_int_equal(test_log_vote(&log, 3, 7), WAL_OK);
    struct raft_entry one = {.index = 1,
                             .term = 3,
                             .type = RAFT_ENTRY_CONFIGURATION,
                             .data = bytes,
                             .size = configuration_bytes(bytes)};
    struct wal_write write = {.sequence = ++log.sequence, .entries = &one, .entry_count = 1};
    assert_int_equal(wal_write(log.wal, &write), WAL_OK);
    test_log_batch(&log, 2, 3, 3);
    assert_int_equal(test_log_write(&log, 4, 4, 1, 4), WAL_OK);
    reset(&log, 90, 4);
    test_log_batch(&log, 91, 2, 4);
    test_log_close(&log);

    struct test_image image = test_image_take();
    /* A torn tail: a server would cut it off. */
    image.files[image.last_id - image.first_id].data[TEST_SEGMENT_BYTES - 100] = 1;
    test_image_put(&image);
    char *text = inspect(WAL_OK, message);
    static const char *const words[] = {
        "hard-state term=3 vote=0000000000000007",
        "entry index=1 term=3 type=configuration",
        "server 0000000000000007 voter",
        "entry index=3 term=3 type=command",
        "truncate from=4 prev-term=3",
        "reset index=90 term=4",
        "mark last=92",
        "torn tail: ",
        "log is sound: segments=1 first=91 last=92 prev-term=4",
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strstr(text, words[i]) == NULL) {
            fail_msg("no \"%s\" in\n%s", words[i], text);
        }
    }
    free(text);
    struct test_image now = test_image_take();
    assert_int_equal(now.last_id, image.last_id);
    assert_memory_equal(now.files[0].data, image.files[0].data, image.files[0].size);
    test_image_free(&now);

    image.files[0].data[WAL_FIRST_OFFSET + 40] ^= 1;
    test_image_put(&image);
    free(inspect(WAL_ECORRUPT, message));
    assert_non_null(strstr(message, "0000000000000001.wal: offset 4"));
    now = test_image_take();
    assert_memory_equal(now.files[0].data, image.files[0].data, image.files[0].size);
    test_image_free(&now);
    test_image_free(&image);
    test_dir_remove(test_dir);
    free(inspect(WAL_ENOTFOUND, message));
    assert_int_equal(mkdir(test_dir, 0700), 0);
    free(inspect(WAL_ENOTFOUND, message));
    assert_int_equal(rmdir(test_dir), 0); /* Nothing was made in it. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        wal_unit_test(test_a_reset_log_goes_on_behind_the_snapshot, test_setup),
        wal_unit_test(test_segments_before_a_reset_are_deleted, test_setup),
        wal_unit_test(test_a_reset_cut_at_any_byte_leaves_the_old_log_or_the_new_one, test_setup),
        wal_unit_test(test_old_segments_left_by_a_crash_do_no_harm, test_setup),
        wal_unit_test(test_trimming_beyond_the_snapshot_stops_the_process, test_setup),
        wal_unit_test(test_a_trimmed_configuration_is_not_reported, test_setup),
        wal_unit_test(test_a_start_tells_whether_log_and_snapshot_fit, test_setup),
        wal_unit_test(test_a_closed_log_is_reset_for_a_start, test_setup),
        wal_unit_test(test_inspecting_shows_every_record_and_changes_nothing, test_setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
