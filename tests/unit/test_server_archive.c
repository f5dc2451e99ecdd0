/* Archives: what is saved can be restored, and anything else is refused with a reason. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "server/command.h"
#include "server/snapshot/archive.h"
#include "server/snapshot/sha256.h"
#include "tests/unit/state_fixture.h"

static const struct raft_configuration configuration = {
    .index = 1, .count = 1, .servers = {{.id = 3, .voter = true}}};

static void put(struct fixture *fixture, uint64_t index, const char *key, struct slice value)
{
    struct buffer command = {0};
    struct command_result result;

    command_encode_kv(&command, COMMAND_KV_SET, text(key), value, 0, 0, NULL);
    fixture_begin(fixture);
    assert_int_equal(command_apply(&fixture->txn, 1, index, buffer_slice(&command), NULL, &result),
                     0);
    assert_int_equal(store_applied_set(&fixture->txn, 1, index), 0);
    fixture_commit(fixture);
    buffer_deinit(&command);
}

/* As archive_open, of bytes. */
static int open_bytes(struct slice bytes, const char *folder, uint64_t limit,
                      struct archive **archive, struct errmsg *err)
{
    int fd = -1;

    assert_int_equal(archive_file_open(folder, &fd, err), SNAPSHOT_OK);
    assert_int_equal(archive_file_write(folder, fd, bytes, 0, err), SNAPSHOT_OK);
    const int rc = archive_open(fd, folder, limit, archive, err);

    assert_int_equal(close(fd), 0);
    return rc;
}

/* In the fixture's folder, which must be empty in the end: nothing is left of the work. An archive
 * of two keys; the second value is larger than one piece of anything. */
static void save(struct fixture *fixture, struct buffer *out)
{
    struct buffer large = {0};
    struct snapshot_meta meta;
    struct errmsg err = {""};
    uint64_t bytes = 0;
    uint64_t random = 1;
    int fd = -1;

    for (size_t i = 0; i < 40000; i++) {
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        buffer_put_u64(&large, random);
    }
    put(fixture, 5, "a", text("hello"));
    put(fixture, 6, "b", buffer_slice(&large));
    if (archive_save(fixture->store, &configuration, text("[]"), fixture->dir, &meta, &fd, &bytes,
                     &err) != SNAPSHOT_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(meta.index, 6);
    char *at = buffer_reserve(out, bytes);
    assert_int_equal(pread(fd, at, bytes, 0), bytes);
    out->size = bytes;
    (void)close(fd);
    buffer_deinit(&large);
}

static void saved_archives_can_be_read_back(void **state)
{
    struct fixture fixture;
    struct buffer bytes = {0}, records = {0};
    struct archive *archive = NULL;
    struct restore_sum sum = {0};
    struct errmsg err = {""};
    int rc;

    (void)state;
    fixture_open(&fixture);
    save(&fixture, &bytes);
    if (open_bytes(buffer_slice(&bytes), fixture.dir, 1 << 20, &archive, &err) != SNAPSHOT_OK) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(archive_sum(archive)->records, 2);
    while ((rc = archive_next(archive, &records, 1, &err)) == SNAPSHOT_OK) {
        struct reader reader = reader_from(buffer_slice(&records));

        assert_true(restore_records_valid(buffer_slice(&records)));
        while (!reader_done(&reader)) {
            const struct slice key = reader_string(&reader);
            const struct slice value = reader_string(&reader);
            restore_sum_add(&sum, (enum store_table)key.data[0],
                            slice_from(key.data + 1, key.size - 1), value);
        }
        buffer_clear(&records);
    }
    assert_int_equal(rc, SNAPSHOT_ENOTFOUND);
    assert_int_equal(sum.records, archive_sum(archive)->records);
    assert_true(sum.hash == archive_sum(archive)->hash);
    archive_free(archive);
    buffer_deinit(&records);
    buffer_deinit(&bytes);
    fixture_close(&fixture);
}

static void refused(const char *folder, struct slice bytes, uint64_t limit, const char *reason)
{
    struct archive *archive = NULL;
    struct errmsg err = {""};

    assert_int_equal(open_bytes(bytes, folder, limit, &archive, &err), SNAPSHOT_ECORRUPT);
    if (strstr(err.text, reason) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", err.text, reason);
    }
}

static void what_is_no_whole_archive_is_refused_with_a_reason(void **state)
{
    struct fixture fixture;
    struct buffer bytes = {0};

    (void)state;
    fixture_open(&fixture);
    save(&fixture, &bytes);
    refused(fixture.dir, SLICE_EMPTY, 1 << 20, "failed to decompress snapshot: EOF");
    refused(fixture.dir, text("garbage"), 1 << 20,
            "failed to decompress snapshot: gzip: invalid header");
    refused(fixture.dir, buffer_slice(&bytes), 1000, "is too large");
    for (size_t cut = 1; cut < bytes.size; cut += bytes.size / 50) {
        refused(fixture.dir, slice_from(bytes.data, cut), 1 << 20, "fail");
    }
    /* The large value, which does not compress: elsewhere a flipped bit may mean the same bytes. */
    for (size_t at = 4096; at + 8192 < bytes.size; at += bytes.size / 200) {
        bytes.data[at] ^= 0x10;
        refused(fixture.dir, buffer_slice(&bytes), 1 << 20, "fail");
        bytes.data[at] ^= 0x10;
    }
    buffer_deinit(&bytes);
    fixture_close(&fixture);
}

/* Packs again what the archive has unpacked, and zeros behind it. */
static void pack_with_tail(struct slice bytes, size_t tail, struct buffer *out)
{
    enum { SPACE = 8 << 20 };
    unsigned char *space = calloc(1, SPACE);
    z_stream in = {0}, to = {0};

    assert_non_null(space);
    assert_int_equal(inflateInit2(&in, 15 + 16), Z_OK);
    in.next_in = (unsigned char *)(uintptr_t)bytes.data;
    in.avail_in = (unsigned)bytes.size;
    in.next_out = space;
    in.avail_out = SPACE;
    assert_int_equal(inflate(&in, Z_FINISH), Z_STREAM_END);
    assert_true(in.total_out + tail <= SPACE);
    assert_int_equal(deflateInit2(&to, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    to.next_in = space;
    to.avail_in = (unsigned)(in.total_out + tail);
    buffer_clear(out);
    to.next_out = (unsigned char *)buffer_reserve(out, SPACE);
    to.avail_out = SPACE;
    assert_int_equal(deflate(&to, Z_FINISH), Z_STREAM_END);
    out->size = to.total_out;
    assert_int_equal(inflateEnd(&in), Z_OK);
    assert_int_equal(deflateEnd(&to), Z_OK);
    free(space);
}

static void little_may_follow_the_end(void **state)
{
    struct fixture fixture;
    struct buffer bytes = {0}, packed = {0};
    struct archive *archive = NULL;
    struct errmsg err = {""};

    (void)state;
    fixture_open(&fixture);
    save(&fixture, &bytes);
    pack_with_tail(buffer_slice(&bytes), 10240, &packed); /* As tar(1) pads. */
    assert_int_equal(open_bytes(buffer_slice(&packed), fixture.dir, 1 << 20, &archive, &err), 0);
    archive_free(archive);
    pack_with_tail(buffer_slice(&bytes), 4 << 20, &packed);
    refused(fixture.dir, buffer_slice(&packed), 1 << 20, "too much follows the archive's end");
    buffer_deinit(&packed);
    buffer_deinit(&bytes);
    fixture_close(&fixture);
}

static void what_a_crash_left_is_removed_and_nothing_else(void **state)
{
    char folder[] = "/tmp/proconsul-archive-XXXXXX";
    char path[128];
    static const char *const names[] = {"archive-abc123", "archive-long-name", "other"};
    static const char *const files[] = {"archive-abc123/state.bin", "archive-def456"};

    (void)state;
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        (void)fclose(file);
    }
    archive_clean(folder);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        assert_int_equal(rmdir(path), i == 0 ? -1 : 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void sha256_is_that_of_the_standard(void **state)
{
    static const struct {
        const char *text;
        size_t times;
        const char *sum;
    } cases[] = {
        {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char sum[SHA256_TEXT_BYTES + 1];
        struct sha256 sha256;

        sha256_begin(&sha256);
        for (size_t n = 0; n < cases[i].times; n++) {
            sha256_add(&sha256, cases[i].text, strlen(cases[i].text));
        }
        assert_int_equal(sha256_end(&sha256, sum), 0);
        assert_string_equal(sum, cases[i].sum);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saved_archives_can_be_read_back),
        cmocka_unit_test(what_is_no_whole_archive_is_refused_with_a_reason),
        cmocka_unit_test(little_may_follow_the_end),
        cmocka_unit_test(what_a_crash_left_is_removed_and_nothing_else),
        cmocka_unit_test(sha256_is_that_of_the_standard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
