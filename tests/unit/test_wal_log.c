/* The log on disk as its users see it: what was written is read back, now and after a restart. */

#include "wal_fixture.h"

static void test_a_new_log_is_empty(void **state)
{
    (void)state;
    struct test_log log;
    struct raft_entry entry;
    test_log_init(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.first_index, 1);
    assert_int_equal(log.state.last_index, 0);
    assert_int_equal(log.state.term, 0);
    assert_int_equal(log.state.vote, 0);
    assert_int_equal(log.state.run_count, 0);
    assert_int_equal(log.state.prev_term, 0);
    assert_null(log.state.configuration);
    assert_int_equal(wal_entry(log.wal, 0, &entry), WAL_ENOTFOUND);
    assert_int_equal(wal_entry(log.wal, 1, &entry), WAL_ENOTFOUND);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.last_index, 0);
    test_log_close(&log);
}

/* Read at once, when durable, when out of the window, and after a restart. */
static void test_entries_read_back_before_and_after_a_restart(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    test_log_open_ok(&log);
    assert_int_equal(test_log_write(&log, 0, 1, 3, 1), WAL_OK);
    test_log_check_range(&log, 1, 3, 1);
    test_log_wait(&log);
    assert_int_equal(test_log_write(&log, 0, 4, 30, 2), WAL_OK);
    test_log_wait(&log);
    test_log_check_range(&log, 1, 3, 1);
    test_log_check_range(&log, 4, 33, 2);
    assert_int_equal(wal_first_index(log.wal), 1);
    assert_int_equal(wal_last_index(log.wal), 33);
    assert_int_equal(wal_pending_bytes(log.wal), 0);
    test_log_close(&log);

    test_log_open_ok(&log);
    assert_int_equal(log.state.first_index, 1);
    assert_int_equal(log.state.last_index, 33);
    assert_int_equal(log.state.run_count, 2);
    assert_int_equal(log.state.runs[0].first, 1);
    assert_int_equal(log.state.runs[0].term, 1);
    assert_int_equal(log.state.runs[1].first, 4);
    assert_int_equal(log.state.runs[1].term, 2);
    assert_int_equal(wal_cut_bytes(log.wal), 0);
    test_log_check_range(&log, 1, 3, 1);
    test_log_check_range(&log, 4, 33, 2);
    test_log_close(&log);
}

static void test_many_small_writes_over_many_segments_survive_restarts(void **state)
{
    (void)state;
    struct test_log log;
    raft_index next = 1;
    test_log_init(&log);
    for (int round = 0; round < 4; round++) {
        test_log_open_ok(&log);
        assert_int_equal(log.state.last_index, next - 1);
        test_log_check_range(&log, 1, next - 1, 1);
        for (int i = 0; i < 500; i++) {
            assert_int_equal(test_log_write(&log, 0, next, 1, 1), WAL_OK);
            next++;
            if (i % 7 == 0) {
                test_log_wait(&log);
            }
        }
        test_log_check_range(&log, 1, next - 1, 1);
        test_log_close(&log);
    }
    assert_true(test_segment_count() > 10);
}

/* The writer rolls early for what does not fit, and makes a larger segment for what never does. */
static void test_a_write_larger_than_a_segment_gets_its_own(void **state)
{
    (void)state;
    struct test_log log;
    struct raft_entry entry;
    size_t size = 5 * TEST_SEGMENT_BYTES + 3;
    uint8_t *large = malloc(size);
    memset(large, 0x5a, size);
    test_log_init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 5, 1);
    struct raft_entry one = {
        .index = 6, .term = 1, .type = RAFT_ENTRY_COMMAND, .data = large, .size = size};
    struct wal_write write = {.sequence = ++log.sequence, .entries = &one, .entry_count = 1};
    assert_int_equal(wal_write(log.wal, &write), WAL_OK);
    test_log_wait(&log);
    test_log_batch(&log, 7, 200, 2);
    for (int round = 0; round < 2; round++) {
        test_log_check_range(&log, 1, 5, 1);
        test_log_check_range(&log, 7, 206, 2);
        assert_int_equal(wal_entry(log.wal, 6, &entry), WAL_OK);
        assert_int_equal(entry.size, size);
        assert_memory_equal(entry.data, large, size);
        test_log_close(&log);
        test_log_open_ok(&log);
    }
    test_log_close(&log);
    free(large);
}

static void test_truncated_and_rewritten_entries_read_back_new(void **state)
{
    (void)state;
    struct test_log log;
    struct raft_entry entry;
    test_log_init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 300, 1);
    /* Across segments, without waiting: the window must answer before the disk does. */
    assert_int_equal(test_log_write(&log, 100, 100, 50, 2), WAL_OK);
    assert_int_equal(wal_last_index(log.wal), 149);
    test_log_check_range(&log, 90, 99, 1);
    test_log_check_range(&log, 100, 149, 2);
    assert_int_equal(wal_entry(log.wal, 150, &entry), WAL_ENOTFOUND);
    /* Again, over what was just written, and once without entries. */
    assert_int_equal(test_log_write(&log, 120, 120, 100, 3), WAL_OK);
    assert_int_equal(test_log_write(&log, 210, 0, 0, 0), WAL_OK);
    test_log_wait(&log);
    test_log_batch(&log, 210, 40, 4);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(wal_last_index(log.wal), 249);
        test_log_check_range(&log, 1, 99, 1);
        test_log_check_range(&log, 100, 119, 2);
        test_log_check_range(&log, 120, 209, 3);
        test_log_check_range(&log, 210, 249, 4);
        assert_int_equal(wal_entry(log.wal, 250, &entry), WAL_ENOTFOUND);
        test_log_close(&log);
        test_log_open_ok(&log);
        assert_int_equal(log.state.run_count, 4);
        assert_int_equal(log.state.runs[2].first, 120);
        assert_int_equal(log.state.runs[3].first, 210);
    }
    test_log_close(&log);
}

/* Random truncations and appends against a plain array, with restarts and trims. */
static void test_the_log_equals_a_plain_array(void **state)
{
    (void)state;
    enum { LIMIT = 4000 };
    raft_term model[LIMIT] = {0};
    raft_index last = 0;
    raft_index safe = 0; /* committed: never truncated */
    raft_term term = 1;
    uint64_t seed = 42;
    struct test_log log;
    test_log_init(&log);
    test_log_open_ok(&log);
    for (int round = 0; round < 400; round++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned dice = (unsigned)(seed >> 33);
        size_t count = dice % 9;
        raft_index truncate = 0;
        raft_index first = last + 1;
        if (dice % 5 == 0 && last > safe) {
            truncate = safe + 1 + dice / 5 % (last - safe);
            first = truncate;
            last = truncate - 1;
            term++;
        }
        if (first + count >= LIMIT) {
            break;
        }
        assert_int_equal(test_log_write(&log, truncate, first, count, term), WAL_OK);
        for (size_t i = 0; i < count; i++) {
            model[first + i] = term;
        }
        last = first + count - 1;
        if (dice % 11 == 0) {
            safe = last - (last - safe) / 2;
        }
        if (dice % 37 == 0) {
            assert_int_equal(test_log_trim(&log, safe), WAL_OK);
        }
        if (dice % 29 == 0) {
            test_log_close(&log);
            test_log_open_ok(&log);
            raft_index before = log.state.first_index - 1;
            assert_int_equal(log.state.prev_term, before == 0 ? 0 : model[before]);
            for (size_t i = 0; i < log.state.run_count; i++) {
                assert_int_equal(log.state.runs[i].term, model[log.state.runs[i].first]);
            }
        }
        assert_int_equal(wal_last_index(log.wal), last);
        assert_true(wal_first_index(log.wal) <= safe + 1);
        if (dice % 3 == 0) {
            for (raft_index index = wal_first_index(log.wal); index <= last; index++) {
                test_log_check(&log, index, model[index]);
            }
        }
    }
    assert_true(wal_first_index(log.wal) > 1);
    test_log_close(&log);
}

/* Symptom: a trim in the moment in which the writer sealed a full segment freed it under the
 * writer's hands. Rule: the loop sees a new segment only when the old one is done with. */
static void test_trimming_while_segments_fill_up_is_safe(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    log.options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
    test_log_open_ok(&log);
    for (raft_index index = 1; index <= 3000; index += 3) {
        assert_int_equal(test_log_write(&log, 0, index, 3, 1), WAL_OK);
        assert_int_equal(test_log_trim(&log, index), WAL_OK);
        test_log_check(&log, index, 1);
        if (index % 8 == 0) {
            test_log_wait(&log);
        }
    }
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.last_index, 3000);
    assert_true(log.state.first_index > 1);
    test_log_check_range(&log, log.state.first_index, 3000, 1);
    test_log_close(&log);
}

static void test_term_and_vote_survive_restart_roll_and_trim(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    test_log_open_ok(&log);
    assert_int_equal(test_log_vote(&log, 3, 2), WAL_OK);
    test_log_wait(&log);
    assert_int_equal(test_log_vote(&log, 7, 5), WAL_OK);
    test_log_wait(&log);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.term, 7);
    assert_int_equal(log.state.vote, 5);
    /* Enough for several segments, all but the last deleted. */
    test_log_batch(&log, 1, 100, 7);
    test_log_batch(&log, 101, 100, 7);
    test_log_batch(&log, 201, 100, 7);
    uint64_t disk_bytes = wal_disk_bytes(log.wal);
    assert_int_equal(test_log_trim(&log, 301), WAL_OK);
    assert_true(wal_disk_bytes(log.wal) < disk_bytes);
    raft_index first = wal_first_index(log.wal);
    assert_true(first > 1);
    test_log_close(&log);
    assert_int_equal(test_segment_count(), 1);
    test_log_open_ok(&log);
    assert_int_equal(log.state.term, 7);
    assert_int_equal(log.state.vote, 5);
    assert_int_equal(log.state.first_index, first);
    assert_int_equal(log.state.last_index, 300);
    assert_int_equal(log.state.prev_term, 7);
    assert_int_equal(log.state.runs[0].first, first);
    test_log_check_range(&log, first, 300, 7);
    test_log_close(&log);
}

/* A truncation of all that a trim has left must still know the term of the entry before. */
static void test_the_term_before_the_first_entry_survives_trim_and_truncation(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    test_log_open_ok(&log);
    for (raft_index index = 1; index <= 300; index += 10) {
        test_log_batch(&log, index, 10, 1 + index / 10);
    }
    assert_int_equal(test_log_trim(&log, 301), WAL_OK);
    raft_index first = wal_first_index(log.wal);
    assert_true(first > 1);
    raft_term before = 1 + (first - 2) / 10;
    assert_int_equal(test_log_write(&log, first, first, 2, 99), WAL_OK);
    test_log_wait(&log);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.first_index, first);
    assert_int_equal(log.state.last_index, first + 1);
    assert_int_equal(log.state.prev_term, before);
    assert_int_equal(log.state.run_count, 1);
    test_log_check_range(&log, first, first + 1, 99);
    test_log_close(&log);
}

static void test_trim_keeps_the_segment_of_its_index(void **state)
{
    (void)state;
    struct test_log log;
    struct raft_entry entry;
    test_log_init(&log);
    test_log_open_ok(&log);
    for (raft_index index = 1; index <= 300; index += 10) {
        test_log_batch(&log, index, 10, 1);
    }
    for (raft_index index = 1; index <= 300; index += 7) {
        assert_int_equal(test_log_trim(&log, index), WAL_OK);
        assert_true(wal_first_index(log.wal) <= index);
        test_log_check_range(&log, index, 300, 1);
    }
    assert_int_equal(wal_entry(log.wal, wal_first_index(log.wal) - 1, &entry), WAL_ENOTFOUND);
    test_log_close(&log);
}

static void add_configuration(struct test_log *log, raft_index index, raft_index truncate_from,
                              size_t servers)
{
    uint8_t bytes[RAFT_CONFIGURATION_BYTES_MAX];
    struct raft_configuration configuration = {.count = servers};
    for (size_t i = 0; i < servers; i++) {
        configuration.servers[i] = (struct raft_server){.id = i + 1, .voter = true};
    }
    struct raft_entry entry = {.index = index,
                               .term = 1,
                               .type = RAFT_ENTRY_CONFIGURATION,
                               .data = bytes,
                               .size = raft_configuration_encode(&configuration, bytes)};
    struct wal_write write = {.sequence = ++log->sequence,
                              .truncate_from = truncate_from,
                              .entries = &entry,
                              .entry_count = 1};
    assert_int_equal(wal_write(log->wal, &write), WAL_OK);
    test_log_wait(log);
}

static void test_the_last_two_configurations_are_found(void **state)
{
    (void)state;
    struct test_log log;
    test_log_init(&log);
    test_log_open_ok(&log);
    add_configuration(&log, 1, 0, 1);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_non_null(log.state.configuration);
    assert_null(log.state.configuration_before);
    assert_int_equal(log.state.configuration->count, 1);
    test_log_batch(&log, 2, 100, 1);
    add_configuration(&log, 102, 0, 3);
    test_log_batch(&log, 103, 3, 1);
    add_configuration(&log, 106, 0, 5);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.configuration->index, 106);
    assert_int_equal(log.state.configuration->count, 5);
    assert_int_equal(log.state.configuration_before->index, 102);
    assert_int_equal(log.state.configuration_before->count, 3);
    /* Truncating the last one brings the one before the last two back. */
    add_configuration(&log, 104, 104, 4);
    assert_int_equal(test_log_write(&log, 103, 103, 1, 1), WAL_OK);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.configuration->index, 102);
    assert_int_equal(log.state.configuration_before->index, 1);
    test_log_close(&log);
}

static void test_two_processes_cannot_share_a_folder(void **state)
{
    (void)state;
    struct test_log log;
    struct test_log other;
    test_log_init(&log);
    test_log_init(&other);
    test_log_open_ok(&log);
    /* The lock belongs to the open file, so a second opening here is as good as a process. */
    assert_int_equal(test_log_open(&other), WAL_ELOCKED);
    assert_non_null(strstr(other.message, test_dir));
    test_log_close(&log);
    test_log_open_ok(&other);
    test_log_close(&other);
}

static void test_a_folder_that_cannot_be_made_is_named(void **state)
{
    (void)state;
    struct test_log log;
    char path[TEST_PATH_BYTES_MAX + 32];
    (void)snprintf(path, sizeof(path), "%s/missing/raft", test_dir);
    test_log_init(&log);
    log.options.dir = path;
    assert_int_equal(test_log_open(&log), WAL_EIO);
    assert_non_null(strstr(log.message, path));
    (void)snprintf(path, sizeof(path), "%s/raft", test_dir);
    test_log_open_ok(&log);
    test_log_close(&log);
    test_dir_remove(path);
}

static void test_memory_mode_keeps_entries_until_trimmed(void **state)
{
    (void)state;
    struct test_log log;
    struct raft_entry entry;
    test_log_init(&log);
    log.options.dir = NULL;
    test_log_open_ok(&log);
    assert_int_equal(log.state.first_index, 1);
    assert_int_equal(test_log_vote(&log, 1, 1), WAL_OK);
    test_log_batch(&log, 1, 500, 1);
    assert_int_equal(test_log_write(&log, 400, 400, 10, 2), WAL_OK);
    test_log_wait(&log);
    test_log_check_range(&log, 1, 399, 1);
    test_log_check_range(&log, 400, 409, 2);
    assert_int_equal(test_log_trim(&log, 100), WAL_OK);
    assert_int_equal(wal_first_index(log.wal), 100);
    assert_int_equal(wal_entry(log.wal, 99, &entry), WAL_ENOTFOUND);
    test_log_check_range(&log, 100, 399, 1);
    assert_int_equal(test_log_trim(&log, 1000), WAL_OK);
    assert_int_equal(wal_first_index(log.wal), 410);
    assert_int_equal(wal_last_index(log.wal), 409);
    test_log_batch(&log, 410, 5, 2);
    test_log_check_range(&log, 410, 414, 2);
    assert_int_equal(wal_disk_bytes(log.wal), 0);
    test_log_close(&log);
}

static void test_writes_beyond_the_limits_are_refused_and_change_nothing(void **state)
{
    (void)state;
    static uint8_t large[WAL_WRITE_BYTES_MAX];
    const struct {
        const char *name;
        int type;
        size_t size;
        size_t count;
        int expected;
    } cases[] = {
        {"one entry as large as the limit", RAFT_ENTRY_COMMAND, WAL_WRITE_BYTES_MAX, 1, WAL_EINVAL},
        {"a size that wraps around", RAFT_ENTRY_COMMAND, SIZE_MAX, 1, WAL_EINVAL},
        {"a size of 4 GiB", RAFT_ENTRY_COMMAND, (size_t)UINT32_MAX + 1, 1, WAL_EINVAL},
        {"many that are too much together", RAFT_ENTRY_COMMAND, WAL_WRITE_BYTES_MAX / 2, 2,
         WAL_EINVAL},
        {"type 0", 0, 1, 1, WAL_EINVAL},
        {"type 256", 256, 1, 1, WAL_EINVAL},
        {"an unknown small type is the core's business", 77, 1, 1, WAL_OK},
    };
    struct test_log log;
    test_log_init(&log);
    log.options.dir = NULL;
    test_log_open_ok(&log);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct raft_entry entries[2];
        for (size_t j = 0; j < 2; j++) {
            entries[j] = (struct raft_entry){.index = 1 + j,
                                             .term = 1,
                                             .type = (enum raft_entry_type)cases[i].type,
                                             .data = large,
                                             .size = cases[i].size};
        }
        struct wal_write write = {
            .sequence = i + 1, .entries = entries, .entry_count = cases[i].count};
        int rc = wal_write(log.wal, &write);
        if (rc != cases[i].expected) {
            fail_msg("%s: %d, expected %d", cases[i].name, rc, cases[i].expected);
        }
        assert_int_equal(wal_last_index(log.wal), rc == WAL_OK ? 1 : 0);
    }
    test_log_close(&log);
}

/* The sizes are the same whether an entry is in memory or on disk. */
static void test_batch_end_depends_on_the_log_only(void **state)
{
    (void)state;
    struct test_log log;
    struct test_log memory;
    uint8_t payload[TEST_PAYLOAD_BYTES_MAX];
    test_log_init(&log);
    test_log_init(&memory);
    memory.options.dir = NULL;
    test_log_open_ok(&log);
    test_log_open_ok(&memory);
    test_log_batch(&log, 1, 150, 1);
    test_log_batch(&memory, 1, 150, 1);
    assert_int_equal(test_log_write(&log, 80, 80, 60, 2), WAL_OK);
    assert_int_equal(test_log_write(&memory, 80, 80, 60, 2), WAL_OK);
    for (raft_index first = 1; first <= 139; first += 3) {
        for (size_t bytes_max = 0; bytes_max < 20000; bytes_max += 977) {
            raft_index expected = first;
            size_t sum = 0;
            for (raft_index index = first; index <= 139; index++) {
                sum += test_payload(index, index < 80 ? 1 : 2, payload);
                if (sum > bytes_max) {
                    break;
                }
                expected = index;
            }
            assert_int_equal(wal_batch_end(log.wal, first, 139, bytes_max), expected);
            assert_int_equal(wal_batch_end(memory.wal, first, 139, bytes_max), expected);
        }
    }
    test_log_close(&log);
    test_log_close(&memory);
}

static void test_every_error_has_a_text(void **state)
{
    (void)state;
    for (int code = WAL_OK; code >= WAL_EAGAIN; code--) {
        assert_null(strstr(wal_strerror(code), "unknown"));
    }
    assert_non_null(strstr(wal_strerror(1), "unknown"));
    assert_non_null(strstr(wal_strerror(WAL_EAGAIN - 1), "unknown"));
}

/* RFC 3720 appendix B.4, and the instruction against the table at every length and alignment. */
static void test_crc32c_is_castagnolis_by_both_ways(void **state)
{
    (void)state;
    static struct crc32c fast;
    static struct crc32c slow;
    uint8_t bytes[600];
    crc32c_init(&fast);
    crc32c_init(&slow);
    slow.hardware = false;
    memset(bytes, 0, 32);
    assert_int_equal(crc32c_update(&fast, 0, bytes, 32), 0x8a9136aa);
    assert_int_equal(crc32c_update(&slow, 0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc32c_update(&slow, 0, bytes, 32), 0x62a8ab43);
    assert_int_equal(crc32c_update(&slow, 0, "123456789", 9), 0xe3069283);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 131 + 7);
    }
    for (size_t from = 0; from < 16; from++) {
        for (size_t size = 0; size + from < sizeof(bytes); size++) {
            assert_int_equal(crc32c_update(&fast, 99, bytes + from, size),
                             crc32c_update(&slow, 99, bytes + from, size));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        wal_unit_test(test_a_new_log_is_empty, test_setup),
        wal_unit_test(test_entries_read_back_before_and_after_a_restart, test_setup),
        wal_unit_test(test_many_small_writes_over_many_segments_survive_restarts, test_setup),
        wal_unit_test(test_a_write_larger_than_a_segment_gets_its_own, test_setup),
        wal_unit_test(test_truncated_and_rewritten_entries_read_back_new, test_setup),
        wal_unit_test(test_the_log_equals_a_plain_array, test_setup),
        wal_unit_test(test_trimming_while_segments_fill_up_is_safe, test_setup),
        wal_unit_test(test_term_and_vote_survive_restart_roll_and_trim, test_setup),
        wal_unit_test(test_the_term_before_the_first_entry_survives_trim_and_truncation,
                      test_setup),
        wal_unit_test(test_trim_keeps_the_segment_of_its_index, test_setup),
        wal_unit_test(test_the_last_two_configurations_are_found, test_setup),
        wal_unit_test(test_two_processes_cannot_share_a_folder, test_setup),
        wal_unit_test(test_a_folder_that_cannot_be_made_is_named, test_setup),
        cmocka_unit_test(test_memory_mode_keeps_entries_until_trimmed),
        cmocka_unit_test(test_writes_beyond_the_limits_are_refused_and_change_nothing),
        wal_unit_test(test_batch_end_depends_on_the_log_only, test_setup),
        cmocka_unit_test(test_every_error_has_a_text),
        cmocka_unit_test(test_crc32c_is_castagnolis_by_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
