/* A log without a thread: its caller decides when the disk works, owns the clock and the random
 * numbers, and so gets the same bytes for the same calls. */

#include "wal_fixture.h"

/* The clock, the random numbers and the disk of these tests. */
static struct {
    uint64_t now_us;
    uint8_t random;
    bool full;
    int sync_error;
    unsigned syncs;
    size_t written;   /* by the last write */
    uint64_t sync_us; /* that a sync takes */
    bool dirty[1024]; /* by file: written and not synced */
    unsigned dir_syncs;
    bool named_early; /* a segment got its name while something else was not synced */
    uint64_t told_us; /* by on_synced, */
    size_t told_entries;
} world;

static uint64_t world_now_us(void *host)
{
    (void)host;
    return world.now_us;
}

static int world_random(void *host, void *out, size_t bytes)
{
    (void)host;
    memset(out, ++world.random, bytes);
    return 0;
}

static int world_allocate(void *host, int file, uint64_t bytes)
{
    return world.full ? -ENOSPC : wal_files_default.allocate(host, file, bytes);
}

static ssize_t world_pwritev(void *host, int file, const struct iovec *iov, int count,
                             uint64_t offset)
{
    world.written = 0;
    for (int i = 0; i < count; i++) {
        world.written += iov[i].iov_len;
    }
    assert_in_range(file, 0, 1023);
    world.dirty[file] = true;
    return wal_files_default.pwritev(host, file, iov, count, offset);
}

static int world_rename(void *host, int folder, const char *from, const char *to)
{
    for (size_t i = 0; i < sizeof(world.dirty) / sizeof(world.dirty[0]); i++) {
        world.named_early = world.named_early || world.dirty[i];
    }
    return wal_files_default.rename(host, folder, from, to);
}

static int world_dir_sync(void *host, int folder)
{
    (void)host;
    (void)folder;
    world.dir_syncs++;
    return 0;
}

static int world_fdatasync(void *host, int file)
{
    (void)host;
    world.dirty[file] = world.sync_error != 0 && world.dirty[file];
    world.syncs++;
    world.now_us += world.sync_us;
    return -world.sync_error;
}

static int setup(void **state)
{
    (void)test_setup(state);
    memset(&world, 0, sizeof(world));
    world.now_us = 1000000;
    test_files.now_us = world_now_us;
    test_files.random = world_random;
    test_files.allocate = world_allocate;
    test_files.pwritev = world_pwritev;
    test_files.rename = world_rename;
    test_files.dir_sync = world_dir_sync;
    test_files.fdatasync = world_fdatasync;
    return 0;
}

static void init(struct test_log *log)
{
    test_log_init(log);
    log->options.stepped = true;
    log->options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
}

/* Steps until there is nothing to do; returns how many there were. */
static unsigned run(struct test_log *log)
{
    unsigned steps = 0;
    while (wal_step(log->wal)) {
        steps++;
        assert_true(steps < 1000);
    }
    return steps;
}

static void test_nothing_is_durable_before_its_step(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    assert_int_equal(run(&log), 1); /* The spare segment. */
    assert_int_equal(test_log_write(&log, 0, 1, 2, 1), WAL_OK);
    assert_int_equal(test_log_write(&log, 0, 3, 2, 1), WAL_OK);
    assert_int_equal(log.durable, 0);
    test_log_check_range(&log, 1, 4, 1); /* Readable at once, as ever. */
    unsigned syncs = world.syncs;
    assert_true(wal_step(log.wal));
    assert_int_equal(log.durable, 2); /* One batch of both. */
    assert_int_equal(world.syncs, syncs + 1);
    assert_false(wal_step(log.wal));
    test_log_close(&log);
}

/* So that a sync need not mark blocks as written: one batch does it for many that follow. */
static void test_a_batch_writes_zeros_ahead_for_those_that_follow(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    log.options.segment_bytes = 4 * WAL_AHEAD_BYTES;
    test_log_open_ok(&log);
    (void)run(&log);
    raft_index next = 1;
    size_t ahead = 0;
    for (size_t i = 0; i < 600; i++) { /* Some 2 MiB. */
        assert_int_equal(test_log_write(&log, 0, next, 20, 1), WAL_OK);
        next += 20;
        assert_true(wal_step(log.wal));
        assert_true(world.written < 8 * 1024 || world.written > WAL_AHEAD_BYTES);
        ahead += world.written > WAL_AHEAD_BYTES ? 1 : 0;
    }
    assert_in_range(ahead, 2, 3);
    /* A large one has nothing to gain, and needs nothing ahead of it to be zero. */
    assert_int_equal(test_log_write(&log, 0, next, 3000, 1), WAL_OK);
    next += 3000;
    assert_true(wal_step(log.wal));
    assert_true(world.written > WAL_AHEAD_BYTES / 4);
    assert_true(world.written < WAL_AHEAD_BYTES);
    wal_abandon(log.wal);
    log.wal = NULL;
    test_log_open_ok(&log);
    assert_int_equal(log.state.last_index, next - 1);
    test_log_check_range(&log, 1, next - 1, 1);
    test_log_close(&log);
}

static void test_the_mark_is_due_after_the_silence(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    log.options.idle_ms = 70;
    test_log_open_ok(&log);
    assert_int_equal(test_log_write(&log, 0, 1, 1, 1), WAL_OK);
    (void)run(&log);
    assert_int_equal(wal_step_due_us(log.wal), world.now_us + 70000);
    world.now_us += 69999;
    assert_false(wal_step(log.wal));
    world.now_us += 1;
    assert_true(wal_step(log.wal));
    assert_int_equal(wal_step_due_us(log.wal), UINT64_MAX);
    assert_false(wal_step(log.wal));
    test_log_close(&log);
}

/* The successor's header says where its predecessor ends, behind the mark: a power cut between the
 * two must not take the mark and leave the header, or the log is refused. */
static void test_the_mark_is_synced_before_a_segment_follows_it(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    assert_int_equal(test_log_write(&log, 0, 1, 1, 1), WAL_OK);
    (void)run(&log);
    world.now_us = wal_step_due_us(log.wal);
    assert_true(wal_step(log.wal));
    assert_false(wal_step(log.wal));
    assert_int_equal(test_log_write(&log, 0, 2, 200, 1), WAL_OK); /* More than there is room. */
    (void)run(&log);
    assert_int_equal(log.durable, 2);
    assert_false(world.named_early);
    test_log_close(&log);
}

/* Whoever was killed between a rename and its sync leaves a name that a power cut may take, and
 * with it all that is written there from now on. */
static void test_names_are_synced_before_a_log_goes_on(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    assert_int_equal(test_log_write(&log, 0, 1, 1, 1), WAL_OK);
    (void)run(&log);
    wal_abandon(log.wal);
    log.wal = NULL;
    world.dir_syncs = 0;
    test_log_open_ok(&log);
    assert_int_equal(world.dir_syncs, 1);
    test_log_close(&log);
}

/* Symptom: a log that does not open, with nothing damaged. A process was killed between a seal and
 * its sync; the next one went on behind it, and then a power cut took the seal. */
static void test_a_seal_is_synced_before_a_log_goes_on(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(test_log_write(&log, 0, 1 + 100 * i, 100, 1), WAL_OK);
        (void)run(&log); /* Each in a segment of its own. */
    }
    wal_abandon(log.wal);
    log.wal = NULL;
    world.syncs = 0;
    test_log_open_ok(&log);
    assert_int_equal(world.syncs, 2); /* The last segment, and the one with the last seal. */
    test_log_close(&log);
}

static void test_a_full_disk_is_tried_again_when_due(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    log.options.full_retry_ms = 200;
    test_log_open_ok(&log);
    (void)run(&log);
    world.full = true;
    raft_index next = 1;
    while (test_last_id() == 1) { /* The spare is used up, and the host told. */
        assert_int_equal(test_log_write(&log, 0, next, 5, 1), WAL_OK);
        next += 5;
        (void)run(&log);
    }
    assert_true(log.full);
    for (int i = 0; i < 3; i++) { /* More than what is left. */
        assert_int_equal(test_log_write(&log, 0, next, 20, 1), WAL_OK);
        next += 20;
    }
    (void)run(&log);
    assert_true(log.durable < log.sequence);
    assert_int_equal(wal_step_due_us(log.wal), world.now_us + 200000);
    world.full = false;
    assert_false(wal_step(log.wal)); /* Not before its time. */
    world.now_us += 200000;
    assert_true(run(&log) > 0);
    assert_int_equal(log.durable, log.sequence);
    assert_false(log.full);
    assert_int_equal(log.full_count, 2);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.last_index, next - 1);
    test_log_close(&log);
}

/* What a sync that fails leaves: the host is told from the step, and the log takes nothing more. */
static void test_a_failed_sync_ends_the_steps(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    (void)run(&log);
    assert_int_equal(test_log_write(&log, 0, 1, 1, 1), WAL_OK);
    world.sync_error = EIO;
    assert_false(wal_step(log.wal));
    assert_true(log.failed);
    assert_non_null(strstr(log.failure, "must stop"));
    assert_int_equal(log.durable, 0);
    assert_int_equal(test_log_write(&log, 0, 2, 1, 1), WAL_EIO);
    world.sync_error = 0;
    assert_false(wal_step(log.wal));
    test_log_check(&log, 1, 1); /* Reads go on. */
    wal_abandon(log.wal);
}

/* A killed process: what was durable is there, what was only queued is not. */
static void test_an_abandoned_log_keeps_what_was_durable(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    assert_int_equal(test_log_write(&log, 0, 1, 3, 1), WAL_OK);
    (void)run(&log);
    assert_int_equal(test_log_write(&log, 0, 4, 3, 1), WAL_OK);
    wal_abandon(log.wal);
    log.wal = NULL;
    test_log_open_ok(&log);
    assert_int_equal(log.state.last_index, 3);
    test_log_close(&log);
}

static void on_synced(void *host, uint64_t sync_us, size_t entries, size_t bytes)
{
    (void)host;
    assert_true(bytes > entries * WAL_RECORD_BYTES);
    world.told_us = sync_us;
    world.told_entries = entries;
}

static void test_syncs_and_batches_are_counted(void **state)
{
    (void)state;
    struct test_log log;
    struct wal_stats stats;
    init(&log);
    log.options.on_synced = on_synced;
    test_log_open_ok(&log);
    (void)run(&log);
    world.sync_us = 700;
    assert_int_equal(test_log_write(&log, 0, 1, 5, 1), WAL_OK);
    (void)run(&log);
    world.sync_us = 100000;
    assert_int_equal(test_log_write(&log, 0, 6, 1, 1), WAL_OK);
    assert_int_equal(test_log_write(&log, 0, 7, 1, 1), WAL_OK);
    assert_true(wal_step(log.wal));
    wal_stats(log.wal, &stats);
    assert_int_equal(stats.batches, 2);
    assert_int_equal(stats.entries, 7);
    assert_int_equal(stats.sync_us, 100700);
    assert_int_equal(stats.sync_us_max, 100000);
    assert_int_equal(stats.sync_us_histogram[10], 1); /* 512 .. 1023 */
    assert_int_equal(stats.sync_us_histogram[17], 1); /* 65536 .. 131071 */
    assert_int_equal(stats.batch_entries_histogram[3], 1);
    assert_int_equal(stats.batch_entries_histogram[2], 1);
    assert_int_equal(world.told_us, 100000);
    assert_int_equal(world.told_entries, 2);
    test_log_close(&log);
}

/* How a disk that has stopped answering is noticed. */
static void test_the_oldest_write_ages_until_it_is_durable(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    (void)run(&log);
    world.now_us += 1000;
    assert_int_equal(wal_oldest_us(log.wal), 0);
    assert_int_equal(test_log_write(&log, 0, 1, 1, 1), WAL_OK);
    world.now_us += 300;
    assert_int_equal(test_log_write(&log, 0, 2, 1, 1), WAL_OK);
    world.now_us += 30;
    assert_int_equal(wal_oldest_us(log.wal), 330);
    (void)run(&log);
    assert_int_equal(wal_oldest_us(log.wal), 0);
    test_log_close(&log);
}

static struct test_image life(void)
{
    struct test_log log;
    test_dir_remove(test_dir);
    assert_int_equal(mkdir(test_dir, 0700), 0);
    memset(&world, 0, sizeof(world));
    init(&log);
    test_log_open_ok(&log);
    raft_index next = 1;
    for (int i = 0; i < 30; i++) {
        world.now_us += (uint64_t)i * 10000;
        assert_int_equal(
            test_log_write(&log, i % 7 == 6 ? next - 1 : 0, i % 7 == 6 ? next - 1 : next, 3, 1),
            WAL_OK);
        next = wal_last_index(log.wal) + 1;
        if (i % 3 == 0) {
            (void)run(&log);
        }
    }
    test_log_close(&log);
    return test_image_take();
}

static void test_the_same_calls_write_the_same_bytes(void **state)
{
    (void)state;
    struct test_image one = life();
    struct test_image two = life();
    assert_int_equal(one.first_id, two.first_id);
    assert_int_equal(one.last_id, two.last_id);
    assert_true(one.last_id > 1);
    for (uint64_t i = 0; i <= one.last_id - one.first_id; i++) {
        assert_int_equal(one.files[i].size, two.files[i].size);
        assert_memory_equal(one.files[i].data, two.files[i].data, one.files[i].size);
    }
    test_image_free(&one);
    test_image_free(&two);
}

static void test_a_log_in_memory_can_be_stepped_too(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    log.options.dir = NULL;
    test_log_open_ok(&log);
    assert_false(wal_step(log.wal));
    assert_int_equal(test_log_write(&log, 0, 1, 3, 1), WAL_OK);
    assert_int_equal(log.durable, 0);
    assert_true(wal_step(log.wal));
    assert_int_equal(log.durable, 1);
    test_log_close(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) wal_unit_test(name, setup)
        TEST(test_nothing_is_durable_before_its_step),
        TEST(test_a_batch_writes_zeros_ahead_for_those_that_follow),
        TEST(test_the_mark_is_due_after_the_silence),
        TEST(test_the_mark_is_synced_before_a_segment_follows_it),
        TEST(test_names_are_synced_before_a_log_goes_on),
        TEST(test_a_seal_is_synced_before_a_log_goes_on),
        TEST(test_a_full_disk_is_tried_again_when_due),
        TEST(test_a_failed_sync_ends_the_steps),
        TEST(test_an_abandoned_log_keeps_what_was_durable),
        TEST(test_syncs_and_batches_are_counted),
        TEST(test_the_oldest_write_ages_until_it_is_durable),
        TEST(test_the_same_calls_write_the_same_bytes),
        TEST(test_a_log_in_memory_can_be_stepped_too),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
