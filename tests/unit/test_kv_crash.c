/* What a store is worth after its process or its machine went down: a child process writes, is
 * killed, and the parent opens what it left. */

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/kv_fixture.h"

#define OTHER_BOOT "99999999-2222-3333-4444-555555555555"

enum { CRASH_KEYS = 16, CRASH_ROUNDS = 12 };

/* Each transaction writes its number to all keys, long and short, and as the applied index. */
static int write_round(struct store *store, uint64_t number)
{
    struct store_txn txn;
    char key[600];
    char value[2000];

    memset(key, 'k', sizeof(key));
    memset(value, 'v', sizeof(value));
    memcpy(value, &number, sizeof(number));
    if (store_write_begin(store, &txn) != STORE_OK) {
        return -1;
    }
    int rc = store_applied_set(&txn, 7, number);
    for (char i = 0; rc == STORE_OK && i < CRASH_KEYS; i++) {
        key[0] = i;
        rc = store_put(&txn, STORE_KV, slice_from(key, i % 2 == 0 ? 30 : sizeof(key)),
                       slice_from(value, sizeof(value)));
    }
    if (rc != STORE_OK) {
        store_write_abort(&txn);
        return rc;
    }
    rc = store_write_commit(&txn);
    store_changes_free(&txn);
    return rc;
}

/* Writes until it is killed, telling the number of each commit once it is done. */
static void child_write(const char *dir, int out, uint64_t number)
{
    const struct store_options options = {
        .dir = dir, .bytes_max = (size_t)64 << 20, .boot_id = FIXTURE_BOOT};
    struct store *store;
    bool wiped;

    if (store_open(&options, &store, &wiped, NULL) != STORE_OK) {
        _exit(1);
    }
    for (;;) {
        number++;
        if (write_round(store, number) != STORE_OK ||
            write(out, &number, sizeof(number)) != (ssize_t)sizeof(number)) {
            _exit(2);
        }
    }
}

/* Lets a child write for a while and kills it; returns the last commit that it told of. */
static uint64_t run_and_kill(const char *dir, uint64_t number, long life_us)
{
    int fds[2];
    uint64_t last = number;
    uint64_t told;

    assert_int_equal(pipe(fds), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        child_write(dir, fds[1], number);
    }
    close(fds[1]);
    /* The first commit is waited for, so that there is something whatever the machine's speed. */
    assert_int_equal(read(fds[0], &told, sizeof(told)), sizeof(told));
    last = told;
    (void)usleep((useconds_t)life_us);
    assert_int_equal(kill(pid, SIGKILL), 0);
    while (read(fds[0], &told, sizeof(told)) == (ssize_t)sizeof(told)) {
        last = told;
    }
    close(fds[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return last;
}

/* Whatever index the store says was applied, all data must be of that very index. */
static uint64_t check_consistent(struct store *store)
{
    struct store_txn txn;
    struct store_scan scan;
    struct slice key;
    struct slice value;
    uint64_t term;
    uint64_t index;
    uint64_t count = 0;

    check_ok(store_read_begin(store, &txn));
    check_ok(store_applied_get(&txn, &term, &index));
    check_ok(store_scan_begin(&scan, &txn, STORE_KV, SLICE_EMPTY));
    while (store_scan_next(&scan, &key, &value) == STORE_OK) {
        assert_int_equal(value.size, 2000);
        assert_memory_equal(value.data, &index, sizeof(index));
        count++;
    }
    store_scan_end(&scan);
    store_read_end(&txn);
    assert_int_equal(count, index == 0 ? 0 : CRASH_KEYS);
    return index;
}

/* The page cache outlives the process: nothing that was committed is lost. */
static void a_killed_process_loses_no_commit(void **state)
{
    struct fixture fixture;
    uint64_t number = 0;
    uint64_t seed = 5;

    (void)state;
    fixture_make_dir(&fixture);
    for (int round = 0; round < CRASH_ROUNDS; round++) {
        const uint64_t told =
            run_and_kill(fixture.dir, number, (long)(fixture_random(&seed) % 15000));
        fixture_open(&fixture, FIXTURE_BOOT, (size_t)64 << 20);
        assert_false(fixture.wiped);
        number = check_consistent(fixture.store);
        /* The last commit may not have been told of, but no more than that one. */
        assert_true(number == told || number == told + 1);
        store_close(fixture.store);
    }
    fixture_remove_dir(&fixture);
}

/* After another boot the page cache is gone, and with it whatever was not synced, in any order. */
static void a_store_of_another_boot_is_wiped_unless_closed(void **state)
{
    static const struct {
        const char *name, *boot_before, *boot_after;
        bool closed, wiped;
    } cases[] = {
        {"killed, same boot", FIXTURE_BOOT, FIXTURE_BOOT, false, false},
        {"killed, other boot", FIXTURE_BOOT, OTHER_BOOT, false, true},
        {"killed, boot unknown afterwards", FIXTURE_BOOT, NULL, false, true},
        {"closed, same boot", FIXTURE_BOOT, FIXTURE_BOOT, true, false},
        {"closed, other boot", FIXTURE_BOOT, OTHER_BOOT, true, false},
        {"closed, boot unknown", NULL, NULL, true, false},
        {"killed, boot never known", NULL, NULL, false, true},
        {"killed, a boot called as none is", NULL, "-", false, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture fixture;
        fixture_make_dir(&fixture);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            const struct store_options options = {
                .dir = fixture.dir, .bytes_max = (size_t)8 << 20, .boot_id = cases[i].boot_before};
            struct store *store;
            bool wiped;
            int rc = store_open(&options, &store, &wiped, NULL);
            if (rc == STORE_OK && !wiped) {
                rc = write_round(store, 3);
            }
            if (rc == STORE_OK && cases[i].closed) {
                store_close(store);
            }
            _exit(rc == STORE_OK ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        fixture_open(&fixture, cases[i].boot_after, (size_t)8 << 20);
        if (fixture.wiped != cases[i].wiped ||
            check_consistent(fixture.store) != (cases[i].wiped ? 0U : 3U)) {
            fail_msg("%s: wiped %d", cases[i].name, fixture.wiped);
        }
        fixture_deinit(&fixture);
    }
}

/* Clean means the state of that close: use it once more, and it is not clean any more. */
static void opening_ends_being_clean(void **state)
{
    struct fixture fixture;

    (void)state;
    fixture_init(&fixture);
    store_close(fixture.store);
    const uint64_t told = run_and_kill(fixture.dir, 0, 0);
    assert_true(told > 0);
    fixture_open(&fixture, OTHER_BOOT, (size_t)64 << 20);
    assert_true(fixture.wiped);
    fixture_deinit(&fixture);
}

/* Writes until the file may not grow any more, as on a full disk, and dies. */
static void child_fill(const char *dir)
{
    const struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    const struct store_options options = {
        .dir = dir, .bytes_max = (size_t)64 << 20, .boot_id = FIXTURE_BOOT};
    struct store *store;
    struct store_txn txn;
    bool wiped;
    int rc = STORE_OK;

    if (store_open(&options, &store, &wiped, NULL) != STORE_OK) {
        _exit(1);
    }
    (void)signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        _exit(2);
    }
    for (uint64_t number = 1; rc == STORE_OK && number < 10000; number++) {
        char value[4096] = {0};
        if (store_write_begin(store, &txn) != STORE_OK) {
            _exit(3);
        }
        rc = store_put(&txn, STORE_KV, slice_from((const char *)&number, sizeof(number)),
                       slice_from(value, sizeof(value)));
        if (rc == STORE_OK) {
            rc = store_applied_set(&txn, 7, number);
        }
        if (rc != STORE_OK) {
            _exit(4);
        }
        rc = store_write_commit(&txn);
        store_changes_free(&txn);
    }
    struct slice value;
    const uint64_t first = 1;
    if (rc != STORE_EFULL || store_read_begin(store, &txn) != STORE_OK ||
        store_get(&txn, STORE_KV, slice_from((const char *)&first, sizeof(first)), &value) !=
            STORE_OK) {
        _exit(5);
    }
    _exit(0);
}

/* A commit that finds no space is refused as such, changes nothing, and leaves a store that reads
 * and that is worth keeping. */
static void a_full_disk_loses_no_commit(void **state)
{
    struct fixture fixture;
    struct store_txn txn;
    uint64_t term;
    uint64_t index;
    uint64_t count;
    int status;

    (void)state;
    fixture_make_dir(&fixture);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        child_fill(fixture.dir);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    fixture_open(&fixture, FIXTURE_BOOT, (size_t)64 << 20);
    assert_false(fixture.wiped);
    check_ok(store_read_begin(fixture.store, &txn));
    check_ok(store_applied_get(&txn, &term, &index));
    check_ok(store_table_count(&txn, STORE_KV, &count));
    store_read_end(&txn);
    assert_true(count > 50);
    assert_int_equal(count, index);
    fixture_deinit(&fixture);
}

/* A copy of a live store may be torn, though its mark names this very boot. */
static void a_copied_file_is_not_trusted(void **state)
{
    struct fixture fixture;
    char command[512];

    (void)state;
    fixture_make_dir(&fixture);
    (void)run_and_kill(fixture.dir, 0, 0);
    (void)snprintf(command, sizeof(command), "cp %s/data.mdb %s/copy && mv %s/copy %s/data.mdb",
                   fixture.dir, fixture.dir, fixture.dir, fixture.dir);
    assert_int_equal(system(command), 0);
    fixture_open(&fixture, FIXTURE_BOOT, (size_t)64 << 20);
    assert_true(fixture.wiped);
    fixture_deinit(&fixture);
}

/* A mark that is cut, empty or foreign is no word for the store; without data there is nothing to
 * wipe. */
static void a_bad_mark_is_not_trusted(void **state)
{
    static const char *const marks[] = {"", "proconsul-store 1 clea", "proconsul-store 2 clean\n",
                                        "proconsul-store 1 open " FIXTURE_BOOT "\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        struct fixture fixture;
        char path[128];
        fixture_init(&fixture);
        assert_false(fixture.wiped);
        check_ok(write_round(fixture.store, 1));
        store_close(fixture.store);
        (void)snprintf(path, sizeof(path), "%s/mark", fixture.dir);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        assert_true(fputs(marks[i], file) >= 0);
        assert_int_equal(fclose(file), 0);
        fixture_open(&fixture, FIXTURE_BOOT, (size_t)64 << 20);
        if (!fixture.wiped) {
            fail_msg("mark \"%s\" was trusted", marks[i]);
        }
        fixture_deinit(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_process_loses_no_commit),
        cmocka_unit_test(a_store_of_another_boot_is_wiped_unless_closed),
        cmocka_unit_test(opening_ends_being_clean),
        cmocka_unit_test(a_full_disk_loses_no_commit),
        cmocka_unit_test(a_copied_file_is_not_trusted),
        cmocka_unit_test(a_bad_mark_is_not_trusted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
