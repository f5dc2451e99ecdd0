/* What recovery makes of damage: a torn tail is cut, and everything acknowledged before it is
 * there; damage before the tail is refused, with file and offset, and never silently dropped. */

#include "wal_fixture.h"

/* Damaged files are opened some thousands of times: without waiting for a real disk. */
static int no_sync(void *host, int fd)
{
    (void)host;
    (void)fd;
    return 0;
}

static int setup(void **state)
{
    (void)test_setup(state);
    test_files.fdatasync = no_sync;
    test_files.dir_sync = no_sync;
    return 0;
}

static void init(struct test_log *log)
{
    test_log_init(log);
    /* No mark but where a test asks for one: the state is that of a crash while busy. */
    log->options.idle_ms = 3600 * 1000;
    log->options.segment_bytes = WAL_SEGMENT_BYTES_MIN;
}

/* Where the batches of a segment end, mark included. */
struct layout {
    size_t count;
    uint64_t ends[64];
    raft_index last[64]; /* of the log after the batch */
};

static struct layout layout_of(const struct test_bytes *file)
{
    struct layout layout = {0};
    uint64_t at = WAL_FIRST_OFFSET;
    while (at + WAL_RECORD_BYTES <= file->size && file->data[at + 12] != 0) {
        struct wal_record record = wal_record_head(file->data + at);
        at += wal_record_span(record.size);
        if (record.type == WAL_RECORD_COMMIT) {
            assert_true(layout.count < 64);
            layout.last[layout.count] = record.index;
            layout.ends[layout.count++] = at;
        }
    }
    return layout;
}

static raft_index last_at(const struct layout *layout, uint64_t offset)
{
    raft_index last = 0;
    for (size_t i = 0; i < layout->count && layout->ends[i] <= offset; i++) {
        last = layout->last[i];
    }
    return last;
}

/* Opens, checks that exactly entries 1..last of term 1 are there, that the log takes more, and that
 * the result survives another restart. */
static void check_recovers(const char *what, size_t where, raft_index last)
{
    struct test_log log;
    init(&log);
    int rc = test_log_open(&log);
    if (rc != WAL_OK) {
        fail_msg("%s at %zu: %s: %s", what, where, wal_strerror(rc), log.message);
    }
    if (log.state.last_index != last) {
        fail_msg("%s at %zu: last index %" PRIu64 ", expected %" PRIu64, what, where,
                 log.state.last_index, last);
    }
    test_log_check_range(&log, 1, last, 1);
    test_log_batch(&log, last + 1, 2, 1);
    test_log_close(&log);
    test_log_open_ok(&log);
    assert_int_equal(log.state.last_index, last + 2);
    assert_int_equal(wal_cut_bytes(log.wal), 0);
    test_log_check_range(&log, 1, last + 2, 1);
    test_log_close(&log);
}

static void check_refused(const char *what, size_t where, uint64_t id)
{
    struct test_log log;
    char name[WAL_NAME_BYTES_MAX];
    init(&log);
    int rc = test_log_open(&log);
    if (rc == WAL_OK) {
        fail_msg("%s at %zu was accepted: last index %" PRIu64, what, where, log.state.last_index);
    }
    wal_segment_name(id, name);
    if (rc != WAL_ECORRUPT || strstr(log.message, name) == NULL ||
        strstr(log.message, "offset ") == NULL) {
        fail_msg("%s at %zu: expected damage in %s: %s: %s", what, where, name, wal_strerror(rc),
                 log.message);
    }
}

/* A log of one segment with five batches, as a crash finds it. */
static struct test_image make_small(void)
{
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 2, 1);
    test_log_batch(&log, 3, 1, 1);
    test_log_batch(&log, 4, 3, 1);
    test_log_batch(&log, 7, 2, 1);
    test_log_batch(&log, 9, 3, 1);
    struct test_image image = test_image_take();
    test_log_close(&log);
    assert_int_equal(image.last_id, 1);
    assert_int_equal(layout_of(&image.files[0]).count, 5);
    return image;
}

static void test_a_file_cut_at_any_byte_keeps_every_whole_batch(void **state)
{
    (void)state;
    struct test_image image = make_small();
    struct layout layout = layout_of(&image.files[0]);
    for (size_t cut = layout.ends[2]; cut <= layout.ends[4]; cut++) {
        test_image_put(&image);
        test_file_write(1, image.files[0].data, cut);
        check_recovers("cut", cut, last_at(&layout, cut));
    }
    test_image_free(&image);
}

/* As a power cut leaves it: the file has its size, what was not synced is zero. */
static void test_a_tail_zeroed_from_any_byte_keeps_every_whole_batch(void **state)
{
    (void)state;
    struct test_image image = make_small();
    struct layout layout = layout_of(&image.files[0]);
    struct test_image torn = image;
    torn.files[0].data = malloc(image.files[0].size);
    for (size_t cut = layout.ends[2]; cut <= layout.ends[4]; cut++) {
        memcpy(torn.files[0].data, image.files[0].data, image.files[0].size);
        memset(torn.files[0].data + cut, 0, image.files[0].size - cut);
        test_image_put(&torn);
        /* A record may end in zeros of its own, so a few bytes less can still be whole. */
        size_t whole = cut;
        while (whole < layout.ends[4] && image.files[0].data[whole] == 0) {
            whole++;
        }
        check_recovers("zeroed", cut, last_at(&layout, whole));
    }
    free(torn.files[0].data);
    test_image_free(&image);
}

/* Sectors of one batch reach the disk in any order: each alone may be missing, and what follows in
 * the same batch, its mark included, is no proof. Nor does it come back after the next batch. */
static void test_a_batch_with_any_hole_was_never_acknowledged(void **state)
{
    (void)state;
    struct test_image image = make_small();
    struct layout layout = layout_of(&image.files[0]);
    struct test_image torn = image;
    torn.files[0].data = malloc(image.files[0].size);
    for (size_t hole = layout.ends[3]; hole + 16 <= layout.ends[4]; hole += 8) {
        memcpy(torn.files[0].data, image.files[0].data, image.files[0].size);
        memset(torn.files[0].data + hole, 0, 16);
        if (memcmp(torn.files[0].data, image.files[0].data, image.files[0].size) == 0) {
            continue;
        }
        test_image_put(&torn);
        check_recovers("hole", hole, layout.last[3]);
    }
    free(torn.files[0].data);
    test_image_free(&image);
}

static void flip_all(const struct test_image *image, uint64_t id, size_t from, size_t to,
                     raft_index recovered, bool refused)
{
    struct test_bytes *file = (struct test_bytes *)(uintptr_t)&image->files[id - image->first_id];
    for (size_t at = from; at < to; at++) {
        file->data[at] ^= (uint8_t)(1u << (at % 8));
        test_image_put(image);
        if (refused) {
            check_refused("flip", at, id);
        } else {
            check_recovers("flip", at, recovered);
        }
        file->data[at] ^= (uint8_t)(1u << (at % 8));
    }
}

static void test_a_flip_in_the_last_batch_cuts_that_batch_alone(void **state)
{
    (void)state;
    struct test_image image = make_small();
    struct layout layout = layout_of(&image.files[0]);
    flip_all(&image, 1, layout.ends[3], layout.ends[4], layout.last[3], false);
    test_image_free(&image);
}

static void test_a_flip_before_the_last_batch_is_refused(void **state)
{
    (void)state;
    struct test_image image = make_small();
    struct layout layout = layout_of(&image.files[0]);
    flip_all(&image, 1, layout.ends[1], layout.ends[3], 0, true);
    test_image_free(&image);
}

/* What a disk does that writes or reads in the wrong place: each block is sound in itself. */
static void swap_blocks(uint8_t *a, uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const uint8_t byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

static void test_two_swapped_blocks_are_refused(void **state)
{
    (void)state;
    struct test_image image = make_small();
    struct layout layout = layout_of(&image.files[0]);
    uint8_t *data = image.files[0].data;
    const size_t size = WAL_ALIGN_BYTES;
    size_t tried = 0;
    for (size_t apart = size; apart <= 9 * size; apart += 4 * size) {
        for (size_t at = layout.ends[0]; at + apart + size <= layout.ends[3]; at += size) {
            if (memcmp(data + at, data + at + apart, size) == 0) {
                continue;
            }
            swap_blocks(data + at, data + at + apart, size);
            test_image_put(&image);
            check_refused("swapped blocks", at, 1);
            swap_blocks(data + at, data + at + apart, size);
            tried++;
        }
    }
    assert_true(tried > 10);
    test_image_free(&image);
}

static void test_a_flip_in_a_header_is_refused(void **state)
{
    (void)state;
    struct test_image image = make_small();
    struct test_log log;
    for (size_t at = 0; at < WAL_HEADER_BYTES; at++) {
        image.files[0].data[at] ^= 0x10;
        test_image_put(&image);
        init(&log);
        int rc = test_log_open(&log);
        /* The version's bytes look like a newer one's. */
        assert_true(rc == WAL_ECORRUPT || (rc == WAL_EFORMAT && at >= 8 && at < 12));
        assert_non_null(strstr(log.message, "0000000000000001.wal"));
        image.files[0].data[at] ^= 0x10;
    }
    test_image_free(&image);
}

/* After a silence or an orderly stop the last batch is known to be synced: damage there is damage.
 */
static void test_a_marked_last_batch_is_not_taken_for_torn(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 2, 1);
    test_log_batch(&log, 3, 2, 1);
    test_log_close(&log);
    struct test_image image = test_image_take();
    struct layout layout = layout_of(&image.files[0]);
    assert_int_equal(layout.count, 3);
    assert_int_equal(layout.ends[2] - layout.ends[1], WAL_RECORD_BYTES);
    flip_all(&image, 1, layout.ends[0], layout.ends[1], 0, true);
    /* The mark itself holds nothing. */
    flip_all(&image, 1, layout.ends[1], layout.ends[2], 4, false);
    test_image_free(&image);
}

static void test_the_mark_is_written_after_a_silence(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    log.options.idle_ms = 1;
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 2, 1);
    size_t count = 1;
    for (int i = 0; i < 60000 && count < 2; i++) {
        struct test_image image = test_image_take();
        count = layout_of(&image.files[0]).count;
        test_image_free(&image);
        (void)usleep(1000);
    }
    assert_int_equal(count, 2);
    test_log_batch(&log, 3, 2, 1);
    test_log_close(&log);
    test_log_open_ok(&log);
    test_log_check_range(&log, 1, 4, 1);
    test_log_close(&log);
}

/* The mark is not synced by itself: it may be lost while a part of the next batch is there. */
static void test_a_lost_mark_before_a_torn_batch_is_no_damage(void **state)
{
    (void)state;
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    test_log_batch(&log, 1, 2, 1);
    test_log_close(&log); /* Writes the mark. */
    test_log_open_ok(&log);
    test_log_batch(&log, 3, 4, 1);
    struct test_image image = test_image_take();
    test_log_close(&log);
    struct layout layout = layout_of(&image.files[0]);
    assert_int_equal(layout.count, 3);
    memset(image.files[0].data + layout.ends[0], 0, WAL_RECORD_BYTES);
    test_image_put(&image);
    check_recovers("lost mark", layout.ends[0], 2);
    test_image_free(&image);
}

/* --- several segments --- */

static struct test_image make_large(void)
{
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    for (raft_index index = 1; index <= 120; index += 4) {
        test_log_batch(&log, index, 4, 1);
    }
    struct test_image image = test_image_take();
    test_log_close(&log);
    assert_true(image.last_id >= 4);
    test_image_put(&image);
    return image;
}

static void test_an_untouched_image_recovers(void **state)
{
    (void)state;
    struct test_image image = make_large();
    check_recovers("nothing", 0, 120);
    test_image_free(&image);
}

static void test_a_flip_in_a_middle_segment_is_refused(void **state)
{
    (void)state;
    struct test_image image = make_large();
    uint64_t ids[] = {1, 2, image.last_id - 1};
    for (size_t i = 0; i < 3; i++) {
        struct layout layout = layout_of(&image.files[ids[i] - 1]);
        /* The first batch, and the last one with the seal. */
        flip_all(&image, ids[i], WAL_FIRST_OFFSET, layout.ends[0], 0, true);
        flip_all(&image, ids[i], layout.ends[layout.count - 2],
                 layout.ends[layout.count - 1] + WAL_RECORD_BYTES, 0, true);
    }
    test_image_free(&image);
}

static void test_a_missing_segment_is_refused(void **state)
{
    (void)state;
    struct test_image image = make_large();
    char path[TEST_PATH_BYTES_MAX];
    /* All but the first, which may have been trimmed: its entries are the snapshot's business. */
    for (uint64_t id = 2; id <= image.last_id; id++) {
        test_image_put(&image);
        test_file_path(id, path);
        assert_int_equal(unlink(path), 0);
        check_refused("missing segment", (size_t)id, id);
    }
    test_image_put(&image);
    test_file_path(1, path);
    assert_int_equal(unlink(path), 0);
    struct test_log log;
    init(&log);
    test_log_open_ok(&log);
    assert_true(log.state.first_index > 1);
    test_log_close(&log);
    test_image_free(&image);
}

static void test_a_truncated_middle_segment_is_refused(void **state)
{
    (void)state;
    struct test_image image = make_large();
    for (uint64_t id = 1; id < image.last_id; id++) {
        const struct test_bytes *file = &image.files[id - 1];
        struct layout layout = layout_of(file);
        size_t end = layout.ends[layout.count - 1];
        const size_t sizes[] = {0, 50, WAL_FIRST_OFFSET, layout.ends[0], end - 1, end, end + 31};
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            test_image_put(&image);
            test_file_write(id, file->data, sizes[i]);
            check_refused("truncated segment", sizes[i], id);
        }
    }
    test_image_free(&image);
}

static void test_a_duplicated_segment_is_refused(void **state)
{
    (void)state;
    struct test_image image = make_large();
    for (uint64_t id = 1; id <= image.last_id; id++) {
        const struct test_bytes *file = &image.files[id - 1];
        test_image_put(&image);
        test_file_write(id + 1, file->data, file->size);
        check_refused("copy over the next segment", (size_t)id, id + 1);
    }
    test_image_free(&image);
}

/* A whole segment of another log, with the right id, does not continue this one. */
static void test_a_segment_of_another_log_is_refused(void **state)
{
    (void)state;
    struct test_image image = make_large();
    struct test_log log;
    test_dir_remove(test_dir);
    init(&log);
    test_log_open_ok(&log);
    for (raft_index index = 1; index <= 110; index += 2) {
        test_log_batch(&log, index, 2, 1);
    }
    test_log_close(&log);
    struct test_bytes foreign = test_file_read(2);
    test_image_put(&image);
    test_file_write(2, foreign.data, foreign.size);
    check_refused("foreign segment", 2, 1);
    free(foreign.data);
    test_image_free(&image);
}

/* The stop between making a segment and sealing the one before it. */
static void test_a_stop_amid_a_roll_is_finished_by_recovery(void **state)
{
    (void)state;
    struct test_image image = make_large();
    struct test_bytes *before = &image.files[image.last_id - 2];
    struct test_bytes *last = &image.files[image.last_id - 1];
    struct layout layout = layout_of(before);
    size_t seal = layout.ends[layout.count - 1];
    raft_index expected = layout.last[layout.count - 1];
    memset(last->data + WAL_FIRST_OFFSET, 0, last->size - WAL_FIRST_OFFSET);
    for (size_t cut = seal; cut <= seal + WAL_RECORD_BYTES; cut++) {
        struct test_bytes copy = {malloc(before->size), before->size};
        memcpy(copy.data, before->data, before->size);
        memset(copy.data + cut, 0, seal + WAL_RECORD_BYTES - cut);
        test_image_put(&image);
        test_file_write(image.last_id - 1, copy.data, copy.size);
        check_recovers("torn seal", cut, expected);
        free(copy.data);
    }
    /* But an acknowledged batch before that seal must not be missing with it. */
    struct test_bytes copy = {malloc(before->size), before->size};
    memcpy(copy.data, before->data, before->size);
    size_t from = layout.ends[layout.count - 2];
    memset(copy.data + from, 0, before->size - from);
    test_image_put(&image);
    test_file_write(image.last_id - 1, copy.data, copy.size);
    check_refused("lost batch before a torn seal", from, image.last_id - 1);
    free(copy.data);
    test_image_free(&image);
}

static void test_a_newer_format_is_refused(void **state)
{
    (void)state;
    struct test_image image = make_small();
    struct test_log log;
    struct crc32c crc32c;
    struct wal_header header;
    crc32c_init(&crc32c);
    assert_int_equal(wal_header_decode(&crc32c, image.files[0].data, image.files[0].size, &header),
                     WAL_OK);
    header.version = WAL_FORMAT_VERSION + 1;
    wal_header_encode(&crc32c, &header, image.files[0].data);
    test_image_put(&image);
    init(&log);
    assert_int_equal(test_log_open(&log), WAL_EFORMAT);
    assert_non_null(strstr(log.message, "newer"));
    test_image_free(&image);
}

/* Damage that appears while the log is open is found when the entry is read. */
static void test_an_entry_damaged_behind_our_back_is_not_returned(void **state)
{
    (void)state;
    struct test_image image = make_large();
    struct test_log log;
    struct raft_entry entry;
    struct layout layout = layout_of(&image.files[1]);
    init(&log);
    test_log_open_ok(&log);
    char path[TEST_PATH_BYTES_MAX];
    test_file_path(2, path);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "\xaa", 1, (off_t)layout.ends[0] + 17), 1);
    (void)close(fd);
    assert_int_equal(wal_entry(log.wal, layout.last[0] + 1, &entry), WAL_ECORRUPT);
    test_log_check(&log, layout.last[0], 1);
    test_log_close(&log);
    test_image_free(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) wal_unit_test(name, setup)
        TEST(test_a_file_cut_at_any_byte_keeps_every_whole_batch),
        TEST(test_a_tail_zeroed_from_any_byte_keeps_every_whole_batch),
        TEST(test_a_batch_with_any_hole_was_never_acknowledged),
        TEST(test_a_flip_in_the_last_batch_cuts_that_batch_alone),
        TEST(test_a_flip_before_the_last_batch_is_refused),
        TEST(test_two_swapped_blocks_are_refused),
        TEST(test_a_flip_in_a_header_is_refused),
        TEST(test_a_marked_last_batch_is_not_taken_for_torn),
        TEST(test_the_mark_is_written_after_a_silence),
        TEST(test_a_lost_mark_before_a_torn_batch_is_no_damage),
        TEST(test_an_untouched_image_recovers),
        TEST(test_a_flip_in_a_middle_segment_is_refused),
        TEST(test_a_missing_segment_is_refused),
        TEST(test_a_truncated_middle_segment_is_refused),
        TEST(test_a_duplicated_segment_is_refused),
        TEST(test_a_segment_of_another_log_is_refused),
        TEST(test_a_stop_amid_a_roll_is_finished_by_recovery),
        TEST(test_a_newer_format_is_refused),
        TEST(test_an_entry_damaged_behind_our_back_is_not_returned),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
