/* Snapshots under bad conditions: crashes and failing system calls at every step, and pieces from
 * another server in any order and state. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "server/snapshot/inspect.h"
#include "snapshot_fixture.h"

static struct snapshot_fixture fixture;

/* The Nth system call and, as after a crash, all that follow it do nothing; or it alone fails. */
static struct {
    int countdown; /* 0: none */
    int error;
    bool dead; /* nothing more takes effect */
    bool crash;
    int short_write; /* of the call that is hit: so many bytes still arrive */
} fault;

static void fault_set(int countdown, int error, bool crash)
{
    fault.countdown = countdown;
    fault.error = error;
    fault.crash = crash;
    fault.dead = false;
    fault.short_write = countdown % 3 == 0 ? 7 : 0;
}

static bool fault_hit(void)
{
    if (fault.dead) {
        return true;
    }
    if (fault.countdown == 0 || --fault.countdown > 0) {
        return false;
    }
    fault.dead = fault.crash;
    return true;
}

static ssize_t fault_pwrite(void *host, int fd, const void *data, size_t size, uint64_t offset)
{
    const bool first = !fault.dead;
    if (fault_hit()) {
        if (first && fault.crash && fault.short_write > 0 && size > (size_t)fault.short_write) {
            (void)snapshot_ops_default.pwrite(host, fd, data, (size_t)fault.short_write, offset);
        }
        return -fault.error;
    }
    return snapshot_ops_default.pwrite(host, fd, data, size, offset);
}

static int fault_fsync(void *host, int fd)
{
    return fault_hit() ? -fault.error : snapshot_ops_default.fsync(host, fd);
}

static int fault_rename(void *host, int dir_fd, const char *from, const char *to)
{
    return fault_hit() ? -fault.error : snapshot_ops_default.rename(host, dir_fd, from, to);
}

static int fault_unlink(void *host, int dir_fd, const char *name)
{
    return fault_hit() ? -fault.error : snapshot_ops_default.unlink(host, dir_fd, name);
}

static struct snapshot_ops ops;

static int setup(void **state)
{
    (void)state;
    ops = snapshot_ops_default;
    ops.pwrite = fault_pwrite;
    ops.fsync = fault_fsync;
    ops.dir_sync = fault_fsync;
    ops.rename = fault_rename;
    ops.unlink = fault_unlink;
    fault_set(0, 0, false);
    snapshot_fixture_init(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fault_set(0, 0, false);
    snapshot_fixture_deinit(&fixture);
    return 0;
}

static void reopen(const struct snapshot_ops *with)
{
    snapshot_dir_close(fixture.dir);
    snapshot_fixture_dir_open(&fixture, with);
}

static int take(struct snapshot_meta *meta)
{
    return snapshot_write(fixture.dir, fixture.store.store, &fixture.configuration, NULL, meta,
                          &fixture.err);
}

/* --- every step of writing --- */

static void every_step(int error, bool crash)
{
    struct snapshot_meta old;
    struct snapshot_meta found;
    struct snapshot_meta meta;
    int steps = 0;

    snapshot_fill(fixture.store.store, 1, 30, false, 1, 10);
    check_snapshot(&fixture, take(&old), SNAPSHOT_OK);
    snapshot_fill(fixture.store.store, 1, 30, false, 1, 11);
    check_snapshot(&fixture, take(&old), SNAPSHOT_OK);
    snapshot_fill(fixture.store.store, 2, 40, false, 2, 20);
    for (int rc = SNAPSHOT_EIO; rc != SNAPSHOT_OK || fault.countdown == 0;) {
        assert_true(++steps < 200);
        reopen(&ops);
        fault_set(steps, error, crash);
        rc = take(&meta);
        const bool untouched = fault.countdown > 0;
        const bool dead = fault.dead;
        fault_set(0, 0, false);
        reopen(NULL);
        check_snapshot(&fixture, snapshot_latest(fixture.dir, &found, &fixture.err), SNAPSHOT_OK);
        check_snapshot(&fixture, snapshot_verify(fixture.dir, &found, NULL, &fixture.err),
                       SNAPSHOT_OK);
        if (rc == SNAPSHOT_OK) {
            assert_int_equal(found.index, 20);
            assert_int_equal(found.checksum, meta.checksum);
        } else {
            assert_int_equal(rc, error == ENOSPC ? SNAPSHOT_EFULL : SNAPSHOT_EIO);
            assert_true(fixture.err.text[0] != '\0');
            /* The one of before, or, where only the folder's sync was missing, the new one. */
            assert_true(found.index == 11 || found.index == 20);
        }
        if (!crash && !dead && rc != SNAPSHOT_OK) {
            assert_int_equal(snapshot_files(fixture.path, ".new"), 0);
        }
        if (untouched) {
            assert_int_equal(rc, SNAPSHOT_OK);
            break;
        }
        /* The next one clears away what is left, and both older ones were not lost for nothing. */
        char name[SNAPSHOT_NAME_BYTES_MAX];
        if (found.index == 20) {
            snapshot_name(&found, SNAPSHOT_NAME_WHOLE, name);
            assert_int_equal(unlinkat(fixture.dir->fd, name, 0), 0);
            check_snapshot(&fixture, snapshot_latest(fixture.dir, &found, &fixture.err),
                           SNAPSHOT_OK);
        }
        assert_int_equal(found.index, 11);
    }
    assert_true(steps > 10);
    assert_int_equal(snapshot_files(fixture.path, ".new"), 0);
    assert_int_equal(snapshot_files(fixture.path, ".snapshot"), 2);
}

static void test_a_crash_at_any_step_leaves_a_sound_snapshot(void **state)
{
    (void)state;
    every_step(EIO, true);
}

static void test_a_failure_at_any_step_leaves_the_snapshot_of_before(void **state)
{
    (void)state;
    every_step(EIO, false);
}

static void test_a_full_disk_is_told_as_such(void **state)
{
    (void)state;
    every_step(ENOSPC, false);
}

/* --- receiving --- */

/* Another server's snapshot, as an offer and its bytes. */
static struct file_bytes offered(struct snapshot_meta *offer)
{
    snapshot_fill(fixture.store.store, 3, 60, false, 4, 90);
    check_snapshot(&fixture, take(offer), SNAPSHOT_OK);
    struct file_bytes bytes = snapshot_bytes(&fixture, offer);
    char name[SNAPSHOT_NAME_BYTES_MAX];
    snapshot_name(offer, SNAPSHOT_NAME_WHOLE, name);
    assert_int_equal(unlinkat(fixture.dir->fd, name, 0), 0);
    return bytes;
}

static struct snapshot_receive *begin(const struct snapshot_meta *offer)
{
    struct snapshot_receive *receive = NULL;
    check_snapshot(&fixture, snapshot_receive_begin(fixture.dir, offer, &receive, &fixture.err),
                   SNAPSHOT_OK);
    return receive;
}

static void feed(struct snapshot_receive *receive, const struct file_bytes *bytes, size_t to,
                 size_t step)
{
    size_t at = (size_t)snapshot_receive_offset(receive);
    while (at < to) {
        const size_t size = to - at < step ? to - at : step;
        check_snapshot(
            &fixture,
            snapshot_receive_chunk(receive, at, slice_from(bytes->data + at, size), &fixture.err),
            SNAPSHOT_OK);
        at += size;
        assert_int_equal(snapshot_receive_offset(receive), at);
    }
}

static void test_a_snapshot_in_pieces_arrives_whole_across_restarts(void **state)
{
    (void)state;
    struct snapshot_meta offer;
    struct snapshot_meta meta;
    struct file_bytes bytes = offered(&offer);
    const size_t stops[] = {0, 1, bytes.size / 3, bytes.size / 2, bytes.size - 1, bytes.size};

    for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++) {
        struct snapshot_receive *receive = begin(&offer);
        assert_int_equal(snapshot_receive_offset(receive), i == 0 ? 0 : stops[i - 1]);
        feed(receive, &bytes, stops[i], 1777);
        /* What is repeated changes nothing; what leaves a gap is refused, and so is what is too
         * much. */
        check_snapshot(&fixture,
                       snapshot_receive_chunk(receive, 0, slice_from("xx", stops[i] < 2 ? 0 : 2),
                                              &fixture.err),
                       SNAPSHOT_OK);
        check_snapshot(
            &fixture,
            snapshot_receive_chunk(receive, stops[i] + 1, slice_from("x", 1), &fixture.err),
            SNAPSHOT_EINVAL);
        check_snapshot(&fixture,
                       snapshot_receive_chunk(receive, stops[i],
                                              slice_from(bytes.data, bytes.size - stops[i] + 1),
                                              &fixture.err),
                       SNAPSHOT_EINVAL);
        assert_int_equal(snapshot_receive_complete(receive), stops[i] == bytes.size);
        if (stops[i] < bytes.size) {
            check_snapshot(&fixture, snapshot_receive_finish(receive, &meta, &fixture.err),
                           SNAPSHOT_EINVAL);
        }
        snapshot_receive_free(receive);
        assert_int_equal(snapshot_latest(fixture.dir, &meta, &fixture.err), SNAPSHOT_ENOTFOUND);
        reopen(NULL);
    }
    struct snapshot_receive *receive = begin(&offer);
    assert_true(snapshot_receive_complete(receive));
    check_snapshot(&fixture, snapshot_receive_finish(receive, &meta, &fixture.err), SNAPSHOT_OK);
    snapshot_receive_free(receive);
    assert_int_equal(meta.index, 90);
    assert_int_equal(meta.configuration.count, 2);
    check_snapshot(&fixture, snapshot_verify(fixture.dir, &meta, NULL, &fixture.err), SNAPSHOT_OK);
    assert_int_equal(snapshot_files(fixture.path, ".partial"), 0);
    free(bytes.data);
}

/* An overlapping piece brings only what is new. */
static void test_overlapping_pieces_are_joined(void **state)
{
    (void)state;
    struct snapshot_meta offer;
    struct snapshot_meta meta;
    struct file_bytes bytes = offered(&offer);
    struct snapshot_receive *receive = begin(&offer);

    for (size_t at = 0; at < bytes.size; at += 1000) {
        const size_t size = bytes.size - at < 1500 ? bytes.size - at : 1500;
        check_snapshot(
            &fixture,
            snapshot_receive_chunk(receive, at, slice_from(bytes.data + at, size), &fixture.err),
            SNAPSHOT_OK);
    }
    check_snapshot(&fixture, snapshot_receive_finish(receive, &meta, &fixture.err), SNAPSHOT_OK);
    snapshot_receive_free(receive);
    free(bytes.data);
}

static void test_what_was_not_offered_replaces_nothing(void **state)
{
    (void)state;
    struct snapshot_meta offer;
    struct snapshot_meta meta;
    struct file_bytes bytes = offered(&offer);

    /* Rows: one bit of the content; then offers that the content does not fit. */
    for (int row = 0; row < 5; row++) {
        struct snapshot_meta claimed = offer;
        struct file_bytes sent = bytes;
        size_t bit_at = row == 0 ? bytes.size / 2 : bytes.size - 1;
        claimed.index += row == 2;
        claimed.term += row == 3;
        claimed.checksum ^= row == 4;
        if (row < 2) {
            sent.data[bit_at] = (char)(sent.data[bit_at] ^ 4);
        }
        struct snapshot_receive *receive = begin(&claimed);
        assert_int_equal(snapshot_receive_offset(receive), 0);
        feed(receive, &sent, sent.size, 4096);
        check_snapshot(&fixture, snapshot_receive_finish(receive, &meta, &fixture.err),
                       SNAPSHOT_ECORRUPT);
        snapshot_receive_free(receive);
        assert_int_equal(snapshot_files(fixture.path, ".partial"), 0);
        assert_int_equal(snapshot_latest(fixture.dir, &meta, &fixture.err), SNAPSHOT_ENOTFOUND);
        if (row < 2) {
            sent.data[bit_at] = (char)(sent.data[bit_at] ^ 4);
        }
    }
    free(bytes.data);
}

static void test_impossible_offers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t index, term, bytes;
    } cases[] = {
        {"no index", 0, 1, 1000},        {"no term", 1, 0, 1000},
        {"too small for any", 1, 1, 60}, {"too large", 1, 1, SNAPSHOT_FILE_BYTES_MAX + 1},
        {"absurd", 1, 1, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct snapshot_meta offer = {
            .index = cases[i].index, .term = cases[i].term, .bytes = cases[i].bytes};
        struct snapshot_receive *receive = NULL;
        const int rc = snapshot_receive_begin(fixture.dir, &offer, &receive, &fixture.err);
        if (rc != SNAPSHOT_EINVAL) {
            fail_msg("%s: %s", cases[i].name, snapshot_strerror(rc));
        }
    }
    assert_int_equal(snapshot_files(fixture.path, ".partial"), 0);
}

static void test_another_offer_takes_the_room_of_the_last_one(void **state)
{
    (void)state;
    struct snapshot_meta offer;
    struct file_bytes bytes = offered(&offer);
    struct snapshot_receive *receive = begin(&offer);
    feed(receive, &bytes, bytes.size / 2, 1000);
    snapshot_receive_free(receive);
    offer.index++;
    receive = begin(&offer);
    assert_int_equal(snapshot_receive_offset(receive), 0);
    assert_int_equal(snapshot_files(fixture.path, ".partial"), 1);
    snapshot_receive_free(receive);
    check_snapshot(&fixture, snapshot_receive_forget(fixture.dir, &fixture.err), SNAPSHOT_OK);
    assert_int_equal(snapshot_files(fixture.path, ".partial"), 0);
    free(bytes.data);
}

static void test_a_crash_at_any_step_of_receiving_leaves_nothing_half(void **state)
{
    (void)state;
    struct snapshot_meta offer;
    struct snapshot_meta meta;
    struct snapshot_meta found;
    struct file_bytes bytes = offered(&offer);

    for (int steps = 1;; steps++) {
        assert_true(steps < 100);
        reopen(&ops);
        fault_set(steps, EIO, true);
        struct snapshot_receive *receive = NULL;
        int rc = snapshot_receive_begin(fixture.dir, &offer, &receive, &fixture.err);
        while (rc == SNAPSHOT_OK && !snapshot_receive_complete(receive)) {
            const size_t at = (size_t)snapshot_receive_offset(receive);
            const size_t size = bytes.size - at < 5000 ? bytes.size - at : 5000;
            rc = snapshot_receive_chunk(receive, at, slice_from(bytes.data + at, size),
                                        &fixture.err);
        }
        if (rc == SNAPSHOT_OK) {
            rc = snapshot_receive_finish(receive, &meta, &fixture.err);
        }
        snapshot_receive_free(receive);
        const bool untouched = !fault.dead;
        fault_set(0, 0, false);
        reopen(NULL);
        const int found_rc = snapshot_latest(fixture.dir, &found, &fixture.err);
        if (found_rc == SNAPSHOT_OK) {
            assert_int_equal(found.checksum, offer.checksum);
            check_snapshot(&fixture, snapshot_verify(fixture.dir, &found, NULL, &fixture.err),
                           SNAPSHOT_OK);
        }
        if (untouched) {
            assert_int_equal(rc, SNAPSHOT_OK);
            assert_int_equal(found_rc, SNAPSHOT_OK);
            break;
        }
        assert_int_equal(rc, SNAPSHOT_EIO);
        snapshot_path_remove(fixture.path);
    }
    free(bytes.data);
}

/* --- sending --- */

static void test_an_open_snapshot_outlives_its_file(void **state)
{
    (void)state;
    struct snapshot_meta meta;
    struct snapshot_file file;
    char piece[100];
    size_t got;

    snapshot_fill(fixture.store.store, 3, 20, false, 4, 90);
    check_snapshot(&fixture, take(&meta), SNAPSHOT_OK);
    check_snapshot(&fixture, snapshot_file_open(fixture.dir, &meta, &file, &fixture.err),
                   SNAPSHOT_OK);
    for (uint64_t i = 0; i < 3; i++) {
        struct snapshot_meta newer;
        snapshot_fill(fixture.store.store, 3, 20, false, 4, 91 + i);
        check_snapshot(&fixture, take(&newer), SNAPSHOT_OK);
    }
    uint64_t sum = 0;
    do {
        check_snapshot(&fixture,
                       snapshot_file_read(&file, sum, piece, sizeof(piece), &got, &fixture.err),
                       SNAPSHOT_OK);
        sum += got;
    } while (got > 0);
    assert_int_equal(sum, meta.bytes);
    snapshot_file_close(&file);
    check_snapshot(&fixture, snapshot_file_open(fixture.dir, &meta, &file, &fixture.err),
                   SNAPSHOT_ENOTFOUND);
}

/* --- looking in --- */

static char *inspect(const char *name, bool records, int expected_rc)
{
    const struct snapshot_inspect_options options = {
        .dir = fixture.path, .name = name, .records = records};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    const int rc = snapshot_inspect(&options, out, &fixture.err);
    (void)fclose(out);
    check_snapshot(&fixture, rc, expected_rc);
    return text;
}

static void check_says(const char *text, const char *words)
{
    if (strstr(text, words) == NULL) {
        fail_msg("no \"%s\" in\n%s", words, text);
    }
}

static void test_inspecting_tells_sound_from_damaged(void **state)
{
    (void)state;
    struct snapshot_meta meta;
    free(inspect(NULL, false, SNAPSHOT_ENOTFOUND));
    snapshot_fill(fixture.store.store, 3, 5, false, 4, 90);
    check_snapshot(&fixture, take(&meta), SNAPSHOT_OK);
    char *text = inspect(NULL, true, SNAPSHOT_OK);
    check_says(text, "snapshot 4-90.snapshot index=90 term=4");
    check_says(text, "server 0000000000000003 voter\n");
    check_says(text, "server 0000000000000009 non-voter\n");
    check_says(text, "    kv \"00000002\" size=");
    check_says(text, "  table kv records=5 bytes=");
    check_says(text, "sound: every checksum fits");
    free(text);
    free(inspect("4-90.snapshot", false, SNAPSHOT_OK));
    free(inspect("../4-90.snapshot", false, SNAPSHOT_EINVAL));
    free(inspect("4-91.snapshot", false, SNAPSHOT_ENOTFOUND));

    struct file_bytes bytes = snapshot_bytes(&fixture, &meta);
    bytes.data[bytes.size / 2] ^= 1;
    snapshot_put_file(&fixture, &meta, bytes.data, bytes.size);
    snapshot_fill(fixture.store.store, 3, 5, false, 4, 91);
    check_snapshot(&fixture, take(&meta), SNAPSHOT_OK);
    text = inspect(NULL, false, SNAPSHOT_ECORRUPT);
    check_says(text, "NOT sound: ");
    check_says(text, "snapshot 4-91.snapshot");
    check_says(text, "sound: every checksum fits");
    free(text);
    free(bytes.data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_crash_at_any_step_leaves_a_sound_snapshot),
        TEST(test_a_failure_at_any_step_leaves_the_snapshot_of_before),
        TEST(test_a_full_disk_is_told_as_such),
        TEST(test_a_snapshot_in_pieces_arrives_whole_across_restarts),
        TEST(test_overlapping_pieces_are_joined),
        TEST(test_what_was_not_offered_replaces_nothing),
        TEST(test_impossible_offers_are_refused),
        TEST(test_another_offer_takes_the_room_of_the_last_one),
        TEST(test_a_crash_at_any_step_of_receiving_leaves_nothing_half),
        TEST(test_an_open_snapshot_outlives_its_file),
        TEST(test_inspecting_tells_sound_from_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
