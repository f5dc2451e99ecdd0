/* System calls that fail: a failed sync or write is final and loses nothing acknowledged; a full
 * disk is waited out, and leaves room for votes. */

#include <stdatomic.h>

#include "wal_fixture.h"

enum call {
    CALL_NONE,
    CALL_WRITE,
    CALL_SYNC,
    CALL_ALLOCATE,
    CALL_DIR_SYNC,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_OPEN,
    CALL_OPEN_OLD
};

/* Which call fails: the `countdown`th from now on, or every one while `always`. */
static struct {
    atomic_int call;
    atomic_int error;
    atomic_int countdown;
    atomic_bool always;
    atomic_int hits;
    atomic_int short_writes;
    atomic_int trace_size;
    _Atomic char trace[256]; /* a letter for each call, in order */
} fault;

static int fault_hit(enum call call)
{
    int at = atomic_fetch_add(&fault.trace_size, 1);
    if (at < (int)sizeof(fault.trace)) {
        atomic_store(&fault.trace[at], "-WSADRUOo"[call]);
    }
    if (atomic_load(&fault.call) != (int)call) {
        return 0;
    }
    if (!atomic_load(&fault.always) && atomic_fetch_sub(&fault.countdown, 1) != 1) {
        return 0;
    }
    atomic_fetch_add(&fault.hits, 1);
    return -atomic_load(&fault.error);
}

static void fault_set(enum call call, int error, int countdown)
{
    atomic_store(&fault.call, CALL_NONE);
    atomic_store(&fault.error, error);
    atomic_store(&fault.countdown, countdown);
    atomic_store(&fault.always, countdown == 0);
    atomic_store(&fault.hits, 0);
    atomic_store(&fault.call, (int)call);
}

static ssize_t fault_pwritev(void *host, int fd, const struct iovec *iov, int count,
                             uint64_t offset)
{
    int error = fault_hit(CALL_WRITE);
    if (error != 0) {
        return error;
    }
    if (atomic_load(&fault.short_writes) != 0) {
        /* As much as one signal in the wrong moment lets through. */
        if (atomic_fetch_add(&fault.short_writes, 1) % 3 == 0) {
            return -EINTR;
        }
        struct iovec part = iov[0];
        part.iov_len = part.iov_len > 5 ? part.iov_len / 2 : part.iov_len;
        return wal_files_default.pwritev(host, fd, &part, 1, offset);
    }
    return wal_files_default.pwritev(host, fd, iov, count, offset);
}

static int fault_fdatasync(void *host, int fd)
{
    int error = fault_hit(CALL_SYNC);
    return error != 0 ? error : wal_files_default.fdatasync(host, fd);
}

static int fault_allocate(void *host, int fd, uint64_t bytes)
{
    int error = fault_hit(CALL_ALLOCATE);
    return error != 0 ? error : wal_files_default.allocate(host, fd, bytes);
}

static int fault_dir_sync(void *host, int dir_fd)
{
    int error = fault_hit(CALL_DIR_SYNC);
    return error != 0 ? error : wal_files_default.dir_sync(host, dir_fd);
}

static int fault_rename(void *host, int dir_fd, const char *from, const char *to)
{
    int error = fault_hit(CALL_RENAME);
    return error != 0 ? error : wal_files_default.rename(host, dir_fd, from, to);
}

static int fault_unlink(void *host, int dir_fd, const char *name)
{
    int error = fault_hit(CALL_UNLINK);
    return error != 0 ? error : wal_files_default.unlink(host, dir_fd, name);
}

/* Traced only where they are the subject: what is made is made durable by the calls behind it. */
static int fault_open(void *host, int dir_fd, const char *name, enum wal_file_mode mode)
{
    enum call call = mode == WAL_FILE_CREATE ? CALL_OPEN : CALL_OPEN_OLD;
    int error = (int)call == atomic_load(&fault.call) ? fault_hit(call) : 0;
    return error != 0 ? error : wal_files_default.open(host, dir_fd, name, mode);
}

static int setup(void **state)
{
    (void)test_setup(state);
    test_files.pwritev = fault_pwritev;
    test_files.fdatasync = fault_fdatasync;
    test_files.allocate = fault_allocate;
    test_files.dir_sync = fault_dir_sync;
    test_files.rename = fault_rename;
    test_files.unlink = fault_unlink;
    test_files.open = fault_open;
    fault_set(CALL_NONE, 0, 1);
    atomic_store(&fault.short_writes, 0);
    return 0;
}

static void init(struct test_log *log)
{
    test_log_init(log);
    log->options.full_retry_ms = 1;
    log->options.idle_ms = 3600 * 1000;
    log->options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
}

/* The Nth call fails, for every N until a run passes untouched. Whatever was acknowledged before is
 * there afterwards; after the failure the log takes nothing. */
static void every_nth(enum call call, int error)
{
    bool touched = true;
    for (int nth = 1; touched; nth++) {
        struct test_log log;
        assert_true(nth < 1000);
        test_dir_remove(test_dir);
        init(&log);
        fault_set(call, error, nth);
        int rc = test_log_open(&log);
        if (rc != WAL_OK) {
            assert_int_equal(rc, WAL_EIO);
            assert_non_null(strstr(log.message, test_dir));
            continue;
        }
        raft_index next = 1;
        for (int i = 0; i < 40 && !test_log_failed(&log); i++) {
            rc = test_log_write(&log, 0, next, 2, 1);
            if (rc != WAL_OK) {
                assert_int_equal(rc, WAL_EIO);
                break;
            }
            next += 2;
            test_log_wait(&log);
            if (i % 10 == 9 && test_log_trim(&log, next - 5) != WAL_OK) {
                break;
            }
        }
        bool failed = test_log_failed(&log);
        if (failed) {
            assert_non_null(strstr(log.failure, test_dir));
            assert_int_equal(test_log_write(&log, 0, next, 1, 1), WAL_EIO);
            assert_int_equal(test_log_trim(&log, 1), WAL_EIO);
        }
        test_log_close(&log);
        raft_index acknowledged = 2 * log.durable;
        touched = atomic_load(&fault.hits) > 0;
        assert_true(touched || !failed);
        fault_set(CALL_NONE, 0, 1);

        test_log_open_ok(&log);
        if (log.state.last_index < acknowledged) {
            fail_msg("call %d failing at number %d: %" PRIu64 " of %" PRIu64 " entries", (int)call,
                     nth, log.state.last_index, acknowledged);
        }
        test_log_check_range(&log, log.state.first_index, log.state.last_index, 1);
        test_log_close(&log);
    }
}

static void test_the_nth_sync_fails(void **state)
{
    (void)state;
    every_nth(CALL_SYNC, EIO);
}

static void test_the_nth_write_fails(void **state)
{
    (void)state;
    every_nth(CALL_WRITE, EIO);
}

static void test_the_nth_folder_sync_fails(void **state)
{
    (void)state;
    every_nth(CALL_DIR_SYNC, EIO);
}

static void test_the_nth_rename_fails(void **state)
{
    (void)state;
    every_nth(CALL_RENAME, EIO);
}

static void test_the_nth_allocation_of_a_file_fails(void **state)
{
    (void)state;
    every_nth(CALL_ALLOCATE, EIO);
}

static void test_the_nth_unlink_fails(void **state)
{
    (void)state;
    every_nth(CALL_UNLINK, EACCES);
}

/* ENOSPC from a sync means that data was dropped (delayed allocation, network disks): final too. */
static void test_a_sync_that_finds_the_disk_full_is_final(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 2, 1);
    fault_set(CALL_SYNC, ENOSPC, 1);
    assert_int_equal(test_log_write(&log, 0, 3, 2, 1), WAL_OK);
    test_log_wait_failed(&log);
    assert_int_equal(log.durable, 1);
    assert_non_null(strstr(log.failure, "sync"));
    assert_non_null(strstr(log.failure, "0000000000000001.wal"));
    test_log_close(&log);
}

static void test_short_and_interrupted_writes_are_completed(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    atomic_store(&fault.short_writes, 1);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 40, 1);
    test_log_batch(&log, 41, 40, 1);
    test_log_close(&log);
    atomic_store(&fault.short_writes, 0);
    test_log_open_ok(&log);
    assert_int_equal(log.state.last_index, 80);
    test_log_check_range(&log, 1, 80, 1);
    test_log_close(&log);
}

/* The host hears of it when the spare cannot be made, while the current segment still has room:
 * votes go on being stored, and everything does when space is back. */
static void test_a_full_disk_shows_early_and_is_waited_out(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 2, 1);
    fault_set(CALL_ALLOCATE, ENOSPC, 0);
    raft_index next = 3;
    while (test_last_id() == 1) { /* Until the spare is in use. */
        test_log_batch(&log, next, 2, 1);
        next += 2;
    }
    test_log_wait_full(&log, true);
    assert_int_equal(test_log_vote(&log, 2, 1), WAL_OK);
    test_log_wait(&log);
    assert_false(test_log_failed(&log));
    assert_int_equal(log.durable, log.sequence);
    fault_set(CALL_NONE, 0, 1);
    test_log_wait_full(&log, false);
    assert_int_equal(log.full_count, 2);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.term, 2);
    test_log_check_range(&log, 1, next - 1, 1);
    test_log_close(&log);
}

/* A crowd of clients took all descriptors in the moment in which a segment was full: that used to
 * end the process, though there was room and the crowd would go. */
static void test_a_lack_of_descriptors_is_waited_out(void **state)
{
    (void)state;
    const int errors[] = {EMFILE, ENFILE};
    for (size_t i = 0; i < 2; i++) {
        struct test_log log;
        test_dir_remove(test_dir);
        init(&log);
        test_log_open_ok(&log);
        test_log_batch(&log, 1, 2, 1);
        fault_set(CALL_OPEN, errors[i], 0);
        raft_index next = 3;
        while (test_last_id() == 1) { /* Until the spare is in use. */
            test_log_batch(&log, next, 2, 1);
            next += 2;
        }
        test_log_batch(&log, next, 2, 1); /* There is room: nothing is refused. */
        next += 2;
        assert_int_equal(log.full_count, 0);
        for (int k = 0; k < 3; k++) { /* More than what is left of the last segment. */
            assert_int_equal(test_log_write(&log, 0, next, 20, 1), WAL_OK);
            next += 20;
        }
        test_log_wait_full(&log, true);
        assert_false(test_log_failed(&log));
        fault_set(CALL_NONE, 0, 1);
        test_log_wait(&log);
        assert_int_equal(log.durable, log.sequence);
        test_log_wait_full(&log, false);
        test_log_close(&log);
        test_log_open_ok(&log);
        test_log_check_range(&log, 1, next - 1, 1);
        test_log_close(&log);
    }
}

/* An old entry that a follower needed ended the process when the clients had all descriptors. */
static void test_an_old_entry_is_read_when_there_is_a_descriptor_again(void **state)
{
    (void)state;
    const int errors[] = {EMFILE, ENFILE, ENOMEM};
    struct test_log log;
    struct raft_entry entry;
    raft_index next = 1;
    raft_index second = 0; /* an index of the second segment */

    init(&log);
    log.options.cache_bytes = 1; /* What is durable is read from its file. */
    test_log_open_ok(&log);
    while (test_last_id() < 3) {
        test_log_batch(&log, next, 2, 1);
        if (second == 0 && test_last_id() == 2) {
            second = next + 1;
        }
        next += 2;
    }
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(wal_entry(log.wal, 1, &entry), WAL_OK);
        fault_set(CALL_OPEN_OLD, errors[i], 0);
        assert_int_equal(wal_entry(log.wal, 2, &entry), WAL_OK); /* It is open. */
        assert_int_equal(wal_entry(log.wal, second, &entry), WAL_EAGAIN);
        assert_int_equal(wal_entry(log.wal, 1, &entry), WAL_EAGAIN);
        fault_set(CALL_OPEN_OLD, EIO, 0);
        assert_int_equal(wal_entry(log.wal, 1, &entry), WAL_EIO);
        fault_set(CALL_NONE, 0, 1);
    }
    test_log_check_range(&log, 1, next - 1, 1);
    test_log_close(&log);
}

/* Fills until nothing is acknowledged any more. Returns the next index. */
static raft_index fill(struct test_log *log)
{
    test_log_batch(log, 1, 2, 1); /* By now there is a spare. */
    fault_set(CALL_ALLOCATE, ENOSPC, 0);
    raft_index next = 3;
    while (test_last_id() == 1) {
        test_log_batch(log, next, 2, 1);
        next += 2;
    }
    /* More than what is left of the last segment. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(test_log_write(log, 0, next, 20, 1), WAL_OK);
        next += 20;
    }
    test_log_wait_full(log, true);
    return next;
}

static void test_what_waits_for_space_is_written_when_there_is_some(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    raft_index next = fill(&log);
    assert_true(wal_pending_bytes(log.wal) > 0);
    test_log_check_range(&log, 1, next - 1, 1); /* Reads go on. */
    fault_set(CALL_NONE, 0, 1);
    test_log_wait(&log);
    assert_false(test_log_failed(&log));
    assert_int_equal(wal_pending_bytes(log.wal), 0);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.last_index, next - 1);
    test_log_check_range(&log, 1, next - 1, 1);
    test_log_close(&log);
}

static void test_segments_are_deleted_while_the_disk_is_full(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    (void)fill(&log);
    assert_int_equal(test_segment_count(), 2);
    assert_int_equal(test_log_trim(&log, wal_last_index(log.wal)), WAL_OK);
    while (test_segment_count() > 1) {
        (void)usleep(1000);
    }
    fault_set(CALL_NONE, 0, 1);
    test_log_wait(&log);
    test_log_close(&log);
}

static void test_closing_while_the_disk_is_full_gives_up_what_waits(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    (void)fill(&log);
    test_log_close(&log);
    assert_true(log.failed);
    assert_true(log.durable < log.sequence);
    fault_set(CALL_NONE, 0, 1);
    uint64_t durable = log.durable;
    log.failed = false;
    test_log_open_ok(&log);
    assert_true(log.state.last_index >= 2 * (durable < 10 ? durable : 10));
    test_log_check_range(&log, 1, log.state.last_index, 1);
    test_log_close(&log);
}

/* Copy-on-write file systems can be full in spite of the preallocation. */
static void test_a_write_that_finds_the_disk_full_is_repeated(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 2, 1);
    fault_set(CALL_WRITE, ENOSPC, 0);
    assert_int_equal(test_log_write(&log, 0, 3, 2, 1), WAL_OK);
    test_log_wait_full(&log, true);
    fault_set(CALL_NONE, 0, 1);
    test_log_wait(&log);
    test_log_wait_full(&log, false);
    assert_false(test_log_failed(&log));
    test_log_close(&log);
    test_log_open_ok(&log);
    test_log_check_range(&log, 1, 4, 1);
    test_log_close(&log);
}

/* The calls since the last time, as text. */
static const char *traced(char *out)
{
    int size = atomic_exchange(&fault.trace_size, 0);
    int used = 0;
    for (; used < size && used < (int)sizeof(fault.trace); used++) {
        out[used] = atomic_load(&fault.trace[used]);
    }
    out[used] = '\0';
    return out;
}

/* Durability in one glance: write, sync, sync the folder after rename and deletion, only then go
 * on. W write, S sync, A preallocate, R rename, U unlink, D sync of the folder. */
static void test_calls_are_made_in_the_order_that_survives_a_power_cut(void **state)
{
    (void)state;
    struct test_log log;
    char trace[sizeof(fault.trace) + 1];
    init(&log);
    (void)traced(trace);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 1, 1);
    /* The first segment; the spare; the batch. (The spare's old name is unlinked first.) */
    assert_string_equal(traced(trace), "UAS"
                                       "WSRD"
                                       "UAS"
                                       "WS");
    assert_int_equal(test_log_write(&log, 0, 2, 20, 1), WAL_OK);
    test_log_wait(&log);
    test_log_batch(&log, 22, 5, 1);
    test_log_close(&log);
    /* A batch; then the new segment's header, name and folder, the seal of the old one, and only
     * now the batch; a new spare; the closing mark. */
    assert_string_equal(traced(trace), "WS"
                                       "WSRD"
                                       "WS"
                                       "WS"
                                       "UAS"
                                       "WS");
    test_log_open_ok(&log);
    test_log_batch(&log, 27, 60, 1);
    test_log_batch(&log, 87, 1, 1);
    (void)traced(trace);
    assert_true(test_segment_count() >= 3);
    size_t deleted = test_segment_count() - 1;
    assert_int_equal(test_log_trim(&log, 88), WAL_OK);
    test_log_close(&log);
    (void)traced(trace);
    assert_int_equal(test_segment_count(), 1);
    const char *at = strstr(trace, "UD");
    for (size_t i = 0; i < deleted; i++) {
        assert_non_null(at);
        assert_memory_equal(at + 2 * i, "UD", 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) wal_unit_test(name, setup)
        TEST(test_the_nth_sync_fails),
        TEST(test_the_nth_write_fails),
        TEST(test_the_nth_folder_sync_fails),
        TEST(test_the_nth_rename_fails),
        TEST(test_the_nth_allocation_of_a_file_fails),
        TEST(test_the_nth_unlink_fails),
        TEST(test_a_sync_that_finds_the_disk_full_is_final),
        TEST(test_short_and_interrupted_writes_are_completed),
        TEST(test_a_full_disk_shows_early_and_is_waited_out),
        TEST(test_a_lack_of_descriptors_is_waited_out),
        TEST(test_an_old_entry_is_read_when_there_is_a_descriptor_again),
        TEST(test_what_waits_for_space_is_written_when_there_is_some),
        TEST(test_segments_are_deleted_while_the_disk_is_full),
        TEST(test_closing_while_the_disk_is_full_gives_up_what_waits),
        TEST(test_a_write_that_finds_the_disk_full_is_repeated),
        TEST(test_calls_are_made_in_the_order_that_survives_a_power_cut),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
