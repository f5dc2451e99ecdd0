/* Buffers, readers, lists of strings, uuids and error texts: what everything stored or sent is made
 * of. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/uuid.h"

static void numbers_and_strings_come_back(void **state)
{
    struct buffer buffer = {0};

    (void)state;
    buffer_put_u8(&buffer, 0xfe);
    buffer_put_u16(&buffer, 0x1234);
    buffer_put_u32(&buffer, 0xdeadbeef);
    buffer_put_u64(&buffer, UINT64_MAX - 1);
    buffer_put_string(&buffer, SLICE_LITERAL("a\0b"));
    buffer_put_string(&buffer, SLICE_EMPTY);
    buffer_printf(&buffer, "%d%s", 42, "x");

    struct reader reader = reader_from(buffer_slice(&buffer));
    assert_int_equal(reader_u8(&reader), 0xfe);
    assert_int_equal(reader_u16(&reader), 0x1234);
    assert_int_equal(reader_u32(&reader), 0xdeadbeef);
    assert_true(reader_u64(&reader) == UINT64_MAX - 1);
    assert_true(slice_equal(reader_string(&reader), SLICE_LITERAL("a\0b")));
    assert_int_equal(reader_string(&reader).size, 0);
    assert_false(reader_done(&reader));
    assert_true(slice_equal(reader_bytes(&reader, 3), SLICE_LITERAL("42x")));
    assert_true(reader_done(&reader));
    buffer_deinit(&buffer);
}

/* The order of bytes is part of the log's and the snapshot's format. */
static void numbers_are_little_endian(void **state)
{
    struct buffer buffer = {0};

    (void)state;
    buffer_put_u32(&buffer, 0x01020304);
    assert_memory_equal(buffer.data, "\x04\x03\x02\x01", 4);
    buffer_deinit(&buffer);
}

/* Cut at every byte, a record must fail to decode, and never be read past its end (ASan looks). */
static void a_cut_record_fails_at_every_length(void **state)
{
    struct buffer buffer = {0};
    struct buffer list = {0};

    (void)state;
    strings_pack_add(&list, SLICE_LITERAL("one"));
    strings_pack_add(&list, SLICE_LITERAL(""));
    buffer_put_u64(&buffer, 7);
    buffer_put_string(&buffer, SLICE_LITERAL("text"));
    buffer_put_strings(&buffer, strings_from_packed(buffer_slice(&list), 2));

    for (size_t size = 0; size <= buffer.size; size++) {
        char *copy = malloc(size + 1);
        memcpy(copy, buffer.data, size);
        struct reader reader = reader_from(slice_from(copy, size));
        (void)reader_u64(&reader);
        (void)reader_string(&reader);
        (void)reader_strings(&reader);
        assert_int_equal(reader_done(&reader), size == buffer.size);
        free(copy);
    }
    buffer_deinit(&list);
    buffer_deinit(&buffer);
}

static void bad_lists_are_refused(void **state)
{
    static const struct {
        const char *name;
        struct slice bytes;
    } cases[] = {
        {"empty", {"", 0}},
        {"null flag is neither 0 nor 1", {"\x02\0\0\0\0", 5}},
        {"null with strings", {"\x01\x01\0\0\0\0\0\0\0", 9}},
        {"more strings than bytes", {"\0\xff\xff\xff\xff", 5}},
        {"string longer than the input", {"\0\x01\0\0\0\x05\0\0\0ab", 11}},
        {"string of 4 GiB", {"\0\x01\0\0\0\xff\xff\xff\xff", 9}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reader reader = reader_from(cases[i].bytes);
        const struct strings strings = reader_strings(&reader);
        if (!reader.failed || strings.count != 0) {
            fail_msg("%s: was taken", cases[i].name);
        }
    }
}

static void lists_keep_null_and_empty_apart(void **state)
{
    struct buffer buffer = {0};

    (void)state;
    buffer_put_strings(&buffer, STRINGS_NULL);
    buffer_put_strings(&buffer, (struct strings){0});
    struct reader reader = reader_from(buffer_slice(&buffer));
    assert_true(reader_strings(&reader).null);
    assert_false(reader_strings(&reader).null);
    assert_true(reader_done(&reader));
    buffer_deinit(&buffer);
}

static void lists_are_iterated_and_searched(void **state)
{
    struct buffer buffer = {0};
    struct slice each;
    size_t count = 0;

    (void)state;
    strings_pack_add(&buffer, SLICE_LITERAL("serfHealth"));
    strings_pack_add(&buffer, SLICE_LITERAL("c1"));
    const struct strings strings = strings_from_packed(buffer_slice(&buffer), 2);
    struct reader it = strings_begin(strings);
    while (strings_next(&it, &each)) {
        count++;
    }
    assert_int_equal(count, 2);
    assert_true(strings_contain(strings, SLICE_LITERAL("c1")));
    assert_false(strings_contain(strings, SLICE_LITERAL("C1")));
    assert_true(strings_contain_nocase(strings, SLICE_LITERAL("SERFHEALTH")));
    assert_false(strings_contain_nocase(strings, SLICE_LITERAL("serf")));
    assert_false(strings_contain(STRINGS_NULL, SLICE_LITERAL("c1")));
    buffer_deinit(&buffer);
}

/* An encoder writes on after a failure and looks once. */
static void a_failure_sticks_until_cleared(void **state)
{
    struct buffer buffer = {0};

    (void)state;
    buffer_append_text(&buffer, "ok");
    assert_null(buffer_reserve(&buffer, SIZE_MAX / 2));
    assert_true(buffer.failed);
    buffer_append_text(&buffer, "more");
    assert_int_equal(buffer.size, 2);
    buffer_clear(&buffer);
    buffer_append_text(&buffer, "again");
    assert_false(buffer.failed);
    assert_int_equal(buffer.size, 5);
    buffer_deinit(&buffer);
}

static void uuids_are_read_and_written(void **state)
{
    static const struct {
        const char *name, *text, *expected; /* expected NULL: refused */
    } cases[] = {
        {"lower", "33830355-ad1d-fc51-02e3-23908b0b2784", "33830355-ad1d-fc51-02e3-23908b0b2784"},
        {"upper", "ABCDEF01-2345-6789-ABCD-EF0123456789", "abcdef01-2345-6789-abcd-ef0123456789"},
        {"zero", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"},
        {"empty", "", NULL},
        {"short", "33830355-ad1d-fc51-02e3-23908b0b278", NULL},
        {"long", "33830355-ad1d-fc51-02e3-23908b0b27844", NULL},
        {"no dashes", "33830355aad1dafc51a02e3a23908b0b2784", NULL},
        {"dash moved", "3383035-5ad1d-fc51-02e3-23908b0b2784", NULL},
        {"not hex", "33830355-ad1d-fc51-02e3-23908b0b278g", NULL},
        {"dash for a digit", "33830355-ad1d-fc51-02e3-23908b0b27-4", NULL},
        {"high bytes", "33830355-ad1d-fc51-02e3-23908b0b27\xc3\xa4", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct uuid uuid;
        char out[UUID_TEXT_BYTES + 1];
        if (uuid_parse(slice_from_text(cases[i].text), &uuid) != (cases[i].expected != NULL)) {
            fail_msg("%s: %s", cases[i].name, cases[i].expected ? "was refused" : "was taken");
        }
        if (cases[i].expected != NULL) {
            uuid_format(&uuid, out);
            assert_string_equal(out, cases[i].expected);
            assert_int_equal(uuid_is_zero(&uuid), strcmp(cases[i].name, "zero") == 0);
        }
    }
}

static void error_texts_are_cut_and_carry_errno(void **state)
{
    struct errmsg err;
    char name[2 * ERRMSG_BYTES_MAX];

    (void)state;
    errno = ENOENT;
    assert_int_equal(errmsg_set_errno(&err, -7, "open %s", "f"), -7);
    assert_string_equal(err.text, "open f: No such file or directory");
    assert_int_equal(errmsg_set(NULL, -3, "nobody listens"), -3);

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    (void)errmsg_set_errno(&err, -1, "%s", name);
    assert_int_equal(strlen(err.text), ERRMSG_BYTES_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_and_strings_come_back),
        cmocka_unit_test(numbers_are_little_endian),
        cmocka_unit_test(a_cut_record_fails_at_every_length),
        cmocka_unit_test(bad_lists_are_refused),
        cmocka_unit_test(lists_keep_null_and_empty_apart),
        cmocka_unit_test(lists_are_iterated_and_searched),
        cmocka_unit_test(a_failure_sticks_until_cleared),
        cmocka_unit_test(uuids_are_read_and_written),
        cmocka_unit_test(error_texts_are_cut_and_carry_errno),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
