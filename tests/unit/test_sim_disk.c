/* The simulator's disk: what a crash may take and what it may not, over many seeds. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/sim_full.h"

enum { SEEDS = 300, BYTES = 64 };

/* --- what the disk needs of the simulator --- */

void sim_require(const struct sim *sim, bool holds, const char *format, ...)
{
    (void)sim;
    (void)format;
    assert_true(holds);
}

void sim_trace(const struct sim *sim, size_t node, const char *word, const char *format, ...)
{
    (void)sim;
    (void)node;
    (void)word;
    (void)format;
}

uint64_t sim_random(struct sim *sim)
{
    sim->random = sim->random * 6364136223846793005U + 1442695040888963407U;
    return sim->random >> 33;
}

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
    return low + sim_random(sim) % (high - low + 1);
}

bool sim_chance(struct sim *sim, unsigned per_10000)
{
    return sim_random(sim) % 10000 < per_10000;
}

void *sim_grow(void *array, size_t *capacity, size_t needed, size_t item_bytes)
{
    if (needed > *capacity) {
        *capacity = 2 * needed;
        array = realloc(array, *capacity * item_bytes);
        assert_non_null(array);
    }
    return array;
}

/* --- a disk --- */

static struct sim *sim;
static const struct wal_files *disk;

static void begin(uint64_t seed)
{
    sim = calloc(1, sizeof(*sim));
    assert_non_null(sim);
    sim->full = calloc(1, sizeof(*sim->full));
    assert_non_null(sim->full);
    sim->random = seed * 0x9E3779B97F4A7C15U;
    sim_disk_init(sim, &sim->full->files[0], sim_random(sim));
    disk = &sim->full->files[0].table;
}

static void end(void)
{
    sim_disk_deinit(&sim->full->files[0]);
    free(sim->full);
    free(sim);
}

static int make(const char *name)
{
    const int file = disk->open(disk->host, 0, name, WAL_FILE_CREATE);

    assert_true(file >= 0);
    return file;
}

static void put(int file, uint64_t offset, char letter)
{
    char bytes[BYTES];
    const struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};

    memset(bytes, letter, sizeof(bytes));
    assert_int_equal(disk->pwritev(disk->host, file, &iov, 1, offset), sizeof(bytes));
}

static int sync_file(int file)
{
    return disk->fdatasync(disk->host, file);
}

static void sync_names(void)
{
    assert_int_equal(disk->dir_sync(disk->host, 0), 0);
}

static void crash(int file, bool machine)
{
    disk->close(disk->host, file);
    sim_disk_crash(sim, 0, &sim->full->files[0], machine);
}

/* How many bytes at `offset` are the letter; SIZE_MAX: there is no such file. */
static size_t count(const char *name, uint64_t offset, char letter)
{
    const int file = disk->open(disk->host, 0, name, WAL_FILE_READ);
    char bytes[BYTES];
    size_t found = 0;

    if (file == -ENOENT) {
        return SIZE_MAX;
    }
    assert_true(file >= 0);
    const ssize_t size = disk->pread(disk->host, file, bytes, sizeof(bytes), offset);
    assert_true(size >= 0);
    for (ssize_t i = 0; i < size; i++) {
        found += bytes[i] == letter ? 1 : 0;
    }
    disk->close(disk->host, file);
    return found;
}

/* A file whose first block of x, and whose name, survive a crash. */
static int make_durable(const char *name)
{
    const int file = make(name);

    put(file, 0, 'x');
    assert_int_equal(sync_file(file), 0);
    sync_names();
    return file;
}

/* --- tests --- */

static void test_what_is_synced_survives_and_the_rest_may_not(void **state)
{
    size_t whole = 0;
    size_t torn = 0;
    size_t gone = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed);
        const int file = make_durable("a");
        put(file, BYTES, 'y');
        crash(file, true);
        assert_int_equal(count("a", 0, 'x'), BYTES);
        const size_t left = count("a", BYTES, 'y');
        whole += left == BYTES ? 1 : 0;
        gone += left == 0 ? 1 : 0;
        torn += left > 0 && left < BYTES ? 1 : 0;
        end();
    }
    assert_in_range(whole, SEEDS / 10, SEEDS);
    assert_in_range(torn, SEEDS / 10, SEEDS);
    assert_in_range(gone, SEEDS / 10, SEEDS);
}

static void test_a_process_that_is_killed_loses_nothing_it_wrote(void **state)
{
    (void)state;
    begin(1);
    const int file = make("a");
    put(file, 0, 'x');
    crash(file, false);
    assert_int_equal(count("a", 0, 'x'), BYTES);
    end();
}

static void test_a_process_may_be_killed_in_the_middle_of_a_write_or_behind_it(void **state)
{
    size_t torn = 0;
    size_t whole = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed);
        const int file = make("a");
        sim->full->files[0].frozen = true;
        sim->full->files[0].steps_left = 1;
        put(file, 0, 'x');
        assert_int_equal(sync_file(file), -EIO);
        crash(file, false);
        const size_t left = count("a", 0, 'x');
        assert_in_range(left, 0, BYTES);
        torn += left > 0 && left < BYTES ? 1 : 0;
        whole += left == BYTES ? 1 : 0;
        end();
    }
    assert_in_range(torn, SEEDS / 4, SEEDS);
    assert_in_range(whole, SEEDS / 4, SEEDS);
}

static void test_names_that_are_not_synced_may_go_in_order(void **state)
{
    size_t lost = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed);
        disk->close(disk->host, make("first"));
        disk->close(disk->host, make("second"));
        sim_disk_crash(sim, 0, &sim->full->files[0], true);
        const bool first = count("first", 0, 'x') != SIZE_MAX;
        const bool second = count("second", 0, 'x') != SIZE_MAX;
        assert_true(first || !second);
        lost += first ? 0 : 1;
        end();
    }
    assert_in_range(lost, SEEDS / 10, SEEDS);
}

static void test_a_rename_is_done_or_not(void **state)
{
    size_t done = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed);
        const int file = make_durable("new");
        assert_int_equal(disk->rename(disk->host, 0, "new", "a"), 0);
        crash(file, true);
        assert_true((count("new", 0, 'x') == BYTES) != (count("a", 0, 'x') == BYTES));
        done += count("a", 0, 'x') == BYTES ? 1 : 0;
        end();
    }
    assert_in_range(done, SEEDS / 10, SEEDS - SEEDS / 10);
}

/* The kernel calls pages clean that it could not write: the next sync says nothing of them. */
static void test_a_failed_sync_is_not_made_good_by_the_next(void **state)
{
    size_t lost = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed);
        const int file = make("a");
        put(file, 0, 'x');
        sync_names();
        sim->full->files[0].sync_fails = true;
        assert_int_equal(sync_file(file), -EIO);
        assert_int_equal(sync_file(file), 0);
        assert_int_equal(count("a", 0, 'x'), BYTES); /* The cache has it. */
        disk->forget(disk->host, file);
        const size_t left = count("a", 0, 'x');
        crash(file, true);
        assert_int_equal(count("a", 0, 'x'), left);
        lost += left < BYTES ? 1 : 0;
        end();
    }
    assert_in_range(lost, SEEDS / 10, SEEDS);
}

static void test_bits_flip_in_what_is_older_than_the_last_sync(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed);
        const int file = make_durable("a");
        assert_false(sim_disk_flip(sim, 0)); /* All of it is the last. */
        put(file, BYTES, 'y');
        assert_int_equal(sync_file(file), 0);
        assert_true(sim_disk_flip(sim, 0));
        assert_int_equal(count("a", 0, 'x'), BYTES - 1);
        assert_int_equal(count("a", BYTES, 'y'), BYTES);
        sim_disk_unflip(sim, 0, true);
        assert_int_equal(count("a", 0, 'x'), BYTES);
        disk->close(disk->host, file);
        end();
    }
}

static void test_a_full_disk_takes_nothing_that_needs_room(void **state)
{
    (void)state;
    begin(1);
    const int file = make("a");
    put(file, 0, 'x');
    sim->full->files[0].full_until_ms = 10;
    put(file, 0, 'y'); /* Where there is room already. */
    assert_int_equal(disk->allocate(disk->host, file, 4 * BYTES), -ENOSPC);
    assert_int_equal(disk->open(disk->host, 0, "b", WAL_FILE_CREATE), -ENOSPC);
    sim->now_ms = 10;
    assert_int_equal(disk->allocate(disk->host, file, 4 * BYTES), 0);
    disk->close(disk->host, file);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_synced_survives_and_the_rest_may_not),
        cmocka_unit_test(test_a_process_that_is_killed_loses_nothing_it_wrote),
        cmocka_unit_test(test_a_process_may_be_killed_in_the_middle_of_a_write_or_behind_it),
        cmocka_unit_test(test_names_that_are_not_synced_may_go_in_order),
        cmocka_unit_test(test_a_rename_is_done_or_not),
        cmocka_unit_test(test_a_failed_sync_is_not_made_good_by_the_next),
        cmocka_unit_test(test_bits_flip_in_what_is_older_than_the_last_sync),
        cmocka_unit_test(test_a_full_disk_takes_nothing_that_needs_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
