/* A process that appends and tells each durable write is killed at random moments: whatever it told
 * is there. */

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "wal_fixture.h"

enum { ROUNDS = 50 };

static int report_fd;

/* Writer thread of the child: one number per line would be read back torn; eight bytes are not. */
static void report_durable(void *host, uint64_t sequence)
{
    test_on_durable(host, sequence);
    if (write(report_fd, &sequence, sizeof(sequence)) != (ssize_t)sizeof(sequence)) {
        _exit(3);
    }
}

/* Appends one entry a write for ever, in bursts; each fifth write truncates and rewrites what the
 * one before it wrote, so that the kill also hits truncations. */
static void child_run(int fd)
{
    struct test_log log;
    test_log_init(&log);
    log.options.on_durable = report_durable;
    log.options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    report_fd = fd;
    if (test_log_open(&log) != WAL_OK) {
        _exit(2);
    }
    raft_index base = log.state.last_index;
    /* The parent learns where this round begins. */
    if (write(fd, &base, sizeof(base)) != (ssize_t)sizeof(base)) {
        _exit(3);
    }
    for (uint64_t i = 1;; i++) {
        raft_index index = base + i;
        bool rewrite = i % 5 == 0;
        if (test_log_write(&log, rewrite ? index - 1 : 0, rewrite ? index - 1 : index,
                           rewrite ? 2 : 1, 1) != WAL_OK) {
            _exit(4);
        }
        if (i % 64 == 0) {
            test_log_wait(&log);
        }
    }
}

static void test_everything_told_durable_survives_being_killed(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    uint64_t total = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)close(pipes[0]);
            child_run(pipes[1]);
        }
        (void)close(pipes[1]);
        uint64_t base = 0;
        uint64_t durable = 0;
        uint64_t value;
        assert_int_equal(read(pipes[0], &base, sizeof(base)), (ssize_t)sizeof(base));
        if (round % 2 == 0) { /* Also on a slow disk some are killed with something on it. */
            assert_int_equal(read(pipes[0], &durable, sizeof(durable)), (ssize_t)sizeof(durable));
        }
        (void)usleep((useconds_t)(rand_r(&seed) % 8000));
        assert_int_equal(kill(child, SIGKILL), 0);
        while (read(pipes[0], &value, sizeof(value)) == (ssize_t)sizeof(value)) {
            durable = value;
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        (void)close(pipes[0]);

        struct test_log log;
        test_log_init(&log);
        log.options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
        test_log_open_ok(&log);
        if (log.state.last_index < base + durable) {
            fail_msg("round %d: %" PRIu64 " entries, %" PRIu64 " acknowledged", round,
                     log.state.last_index, base + durable);
        }
        test_log_check_range(&log, log.state.first_index, log.state.last_index, 1);
        if (round % 4 == 3) { /* Bounds the test's time. */
            assert_int_equal(test_log_trim(&log, log.state.last_index), WAL_OK);
        }
        test_log_close(&log);
        total += durable;
    }
    assert_true(total > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        wal_unit_test(test_everything_told_durable_survives_being_killed, test_setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
