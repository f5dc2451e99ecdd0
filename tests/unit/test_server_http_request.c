/* From raw targets to paths and parameters, and JSON as Go writes it: tables of what Go's net/url,
 * net/http, strconv and encoding/json do with the same bytes. No sockets. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/http_fixture.h"

static void assert_text(const char *name, struct buffer *out, const char *expected)
{
    assert_false(out->failed);
    buffer_append_char(out, '\0');
    if (strcmp(out->data, expected) != 0) {
        fail_msg("%s: \"%s\", not \"%s\"", name, out->data, expected);
    }
    buffer_deinit(out);
}

static void test_paths_are_cleaned_as_go_cleans_them(void **state)
{
    static const struct {
        const char *path, *clean;
    } cases[] = {
        {"/", "/"},
        {"//", "/"},
        {"/a", "/a"},
        {"/a/", "/a/"},
        {"/a//b", "/a/b"},
        {"/a/./b", "/a/b"},
        {"/a/../b", "/b"},
        {"/../a", "/a"},
        {"/a/..", "/"},
        {"/a/b/../..", "/"},
        {"/a/b/..", "/a"},
        {"/a/b/../", "/a/"},
        {"/a/.", "/a"},
        {"/a/./", "/a/"},
        {"/.a/..b/c..", "/.a/..b/c.."},
        {"/a/...", "/a/..."},
        {"a", "/a"},
        {"", "/"},
        {"/v1/kv//../../x", "/x"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer out = {0};

        http_path_clean(&out, slice_from_text(cases[i].path));
        assert_text(cases[i].path, &out, cases[i].clean);
    }
}

static void test_paths_are_escaped_as_go_escapes_them(void **state)
{
    static const struct {
        const char *path, *escaped;
    } cases[] = {
        {"/v1/kv/b+c'()*!", "/v1/kv/b+c%27%28%29%2A%21"},
        {"/a b?c#d%", "/a%20b%3Fc%23d%25"},
        {"/$&+,/:;=@", "/$&+,/:;=@"},
        {"/\xc5\xbe", "/%C5%BE"},
        {"/-_.~", "/-_.~"},
        {"/<\">", "/%3C%22%3E"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer out = {0};

        http_path_escape(&out, slice_from_text(cases[i].path));
        assert_text(cases[i].path, &out, cases[i].escaped);
    }
}

static void test_printable_is_what_go_prints(void **state)
{
    static const struct {
        const char *name, *path;
        bool printable;
    } cases[] = {
        {"ASCII", "/azAZ09 ~!", true},
        {"tab", "/a\tb", false},
        {"DEL", "/a\x7f", false},
        {"escape", "/\x1b[0m", false},
        {"C1", "/\xc2\x85", false},
        {"no-break space", "/\xc2\xa0x", false},
        {"soft hyphen", "/\xc2\xad", false},
        {"letter", "/\xc5\xbe", true},
        {"zero width space", "/\xe2\x80\x8bx", false},
        {"line separator", "/\xe2\x80\xa8", false},
        {"right-to-left override", "/\xe2\x80\xae", false},
        {"private use", "/\xee\x80\x80", false},
        {"BOM", "/\xef\xbb\xbf", false},
        {"horse", "/\xf0\x9f\x90\x8e", true},
        {"no UTF-8", "/\xff", true},
        {"cut UTF-8", "/\xe2\x80", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (http_path_printable(slice_from_text(cases[i].path)) != cases[i].printable) {
            fail_msg("%s", cases[i].name);
        }
    }
    assert_false(http_path_printable((struct slice){"/a\0b", 4}));
}

static void test_unsigned_numbers_fail_with_gos_words(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
        const char *error;
    } cases[] = {
        {"0", 0, NULL},
        {"007", 7, NULL},
        {"18446744073709551615", UINT64_MAX, NULL},
        {"18446744073709551616", 0,
         "strconv.ParseUint: parsing \"18446744073709551616\": value out of range"},
        {"99999999999999999999x", 0,
         "strconv.ParseUint: parsing \"99999999999999999999x\": invalid syntax"},
        {"", 0, "strconv.ParseUint: parsing \"\": invalid syntax"},
        {"-1", 0, "strconv.ParseUint: parsing \"-1\": invalid syntax"},
        {"+1", 0, "strconv.ParseUint: parsing \"+1\": invalid syntax"},
        {"1_0", 0, "strconv.ParseUint: parsing \"1_0\": invalid syntax"},
        {"\"<&\n", 0, "strconv.ParseUint: parsing \"\\\"<&\\n\": invalid syntax"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = {""};
        uint64_t value = 0;
        const bool parsed = http_parse_u64(slice_from_text(cases[i].text), &value, &err);

        if (parsed != (cases[i].error == NULL) || value != cases[i].value ||
            (!parsed && strcmp(err.text, cases[i].error) != 0)) {
            fail_msg("\"%s\": %d, \"%s\"", cases[i].text, parsed, err.text);
        }
    }
}

/* A request around a target, as the connection makes it. */
struct parsed {
    struct http_conn conn;
    int status;
};

static void parse(struct parsed *parsed, const char *target)
{
    memset(parsed, 0, sizeof(*parsed));
    parsed->conn.request.conn = &parsed->conn;
    parsed->conn.request.private = &parsed->conn.private;
    parsed->conn.request.method = HTTP_METHOD_GET;
    parsed->status = http_request_parse_target(&parsed->conn.request, slice_from_text(target));
}

static void test_targets_become_paths_and_parameters(void **state)
{
    static const struct {
        const char *target, *path, *params;
        int status;
        bool bad_query;
    } cases[] = {
        {"/v1/kv/a", "/v1/kv/a", "", 0, false},
        {"/v1/kv/a+b%2Fc%20d", "/v1/kv/a+b/c d", "", 0, false},
        {"/a?b", "/a", "b=", 0, false},
        {"/a?b=1&c=2&b=3", "/a", "b=1&b=3&c=2", 0, false},
        {"/a?z=1;y=2", "/a", "y=2&z=1", 0, false},
        {"/a?x=a+b%20c&y=%2B", "/a", "x=a+b+c&y=%2B", 0, false},
        {"/a?&&b&", "/a", "b=", 0, false},
        {"/a?=v", "/a", "=v", 0, false},
        {"/a?a=b=c", "/a", "a=b%3Dc", 0, false},
        {"/a?b?c", "/a", "b%3Fc=", 0, false},
        {"/a?", "/a", "", 0, false},
        {"/a?x=%zz", "/a", "", 0, true},
        {"/a?%", "/a", "", 0, true},
        {"/a?x=1&y=%4", "/a", "x=1", 0, true},
        {"http://h/a?b=1", "/a", "b=1", 0, false},
        {"HTTPS://h:1/a/b", "/a/b", "", 0, false},
        {"http://h", "/", "", 0, false},
        {"/a%zz", "", "", 400, false},
        {"/a%4", "", "", 400, false},
        {"a", "", "", 400, false},
        {"*", "", "", 400, false},
        {"h:80", "", "", 400, false},
        {"/a\x01", "", "", 400, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer path = {0};
        struct buffer params = {0};
        struct parsed parsed;

        parse(&parsed, cases[i].target);
        if (parsed.status != cases[i].status ||
            parsed.conn.private.bad_query != cases[i].bad_query) {
            fail_msg("%s: %d", cases[i].target, parsed.status);
        }
        if (parsed.status == 0) {
            buffer_append_slice(&path, parsed.conn.request.path);
            http_params_encode(&params, &parsed.conn.request);
            assert_text(cases[i].target, &path, cases[i].path);
            assert_text(cases[i].target, &params, cases[i].params);
        }
        free(parsed.conn.private.text);
    }
}

static void test_parameters_are_limited(void **state)
{
    char target[3 + 2 * (HTTP_PARAMS_MAX + 1) + 1] = "/?a";
    struct parsed parsed;

    (void)state;
    for (int i = 1; i < HTTP_PARAMS_MAX; i++) {
        strcat(target, "&b");
    }
    parse(&parsed, target);
    assert_false(parsed.conn.private.bad_query);
    assert_int_equal(parsed.conn.request.param_count, HTTP_PARAMS_MAX);
    free(parsed.conn.private.text);
    strcat(target, "&c");
    parse(&parsed, target);
    assert_true(parsed.conn.private.bad_query);
    free(parsed.conn.private.text);
}

static void test_strings_are_escaped_as_go_escapes_them(void **state)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"plain", "\"plain\""},
        {"\"\\/", "\"\\\"\\\\/\""},
        {"\n\r\t\b\f\x01\x7f", "\"\\n\\r\\t\\u0008\\u000c\\u0001\x7f\""},
        {"<a&b>", "\"\\u003ca\\u0026b\\u003e\""},
        {"\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa", "\"\\u2028\\u2029\xe2\x80\xaa\""},
        {"\xff"
         "a\xc3",
         "\"\\ufffda\\ufffd\""},
        {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""}, /* a surrogate */
        {"\xc0\xaf", "\"\\ufffd\\ufffd\""},            /* overlong */
        {"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
        {"\xf0\x9f\x90\x8e", "\"\xf0\x9f\x90\x8e\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer out = {0};

        json_put_string(&out, slice_from_text(cases[i].text));
        assert_text(cases[i].text, &out, cases[i].json);
    }
}

static void test_base64_of_all_remainders(void **state)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"", "null"},        {"f", "\"Zg==\""},        {"fo", "\"Zm8=\""},
        {"foo", "\"Zm9v\""}, {"foob", "\"Zm9vYg==\""}, {"\xfb\xff", "\"+/8=\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer out = {0};

        json_put_base64(&out, slice_from_text(cases[i].text));
        assert_text(cases[i].text, &out, cases[i].json);
    }
}

static void test_pretty_is_gos_indent(void **state)
{
    static const struct {
        const char *json, *pretty;
    } cases[] = {
        {"true", "true\n"},
        {"[]", "[]\n"},
        {"{}", "{}\n"},
        {"[1,2]", "[\n    1,\n    2\n]\n"},
        {"{\"a\":{\"b\":[]},\"c\":\"[,{:\\\"}\"}",
         "{\n    \"a\": {\n        \"b\": []\n    },\n    \"c\": \"[,{:\\\"}\"\n}\n"},
        {"\"cut", "\"cut\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer out = {0};

        json_indent(&out, slice_from_text(cases[i].json));
        assert_text(cases[i].json, &out, cases[i].pretty);
    }
}

static void test_members_match_without_case_and_the_last_wins(void **state)
{
    json_t *root = json_loads("{\"name\":1,\"NAME\":2,\"other\":3}", 0, NULL);

    (void)state;
    assert_non_null(root);
    assert_int_equal(json_integer_value(json_member(root, "Name")), 2);
    assert_null(json_member(root, "Nam"));
    json_decref(root);
}

static void test_session_ids_are_judged_as_the_index_judges_them(void **state)
{
    static const struct {
        const char *id, *error;
    } cases[] = {
        {"00000000-aaaa-bbbb-cccc-000000000001", NULL},
        {"000000000aaaaabbbb1cccc1000000000001", NULL}, /* passes; no session has it */
        {"short", "UUID must be 36 characters"},
        {"", "UUID must be 36 characters"},
        {"00000000-aaaa-bbbb-cc-c-000000000001", "UUID should have maximum of 4 \"-\"; got 5"},
        {"00000000-aaaa-bbbbacccc-000000000001", "Input (without hyphens) must be even length"},
        {"zzzzzzzz-aaaa-bbbb-cccc-000000000001",
         "Invalid UUID: encoding/hex: invalid byte: U+007A 'z'"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = {""};
        const bool passed = http_session_id_check(slice_from_text(cases[i].id), &err);

        assert_int_equal(passed, cases[i].error == NULL);
        if (!passed) {
            assert_int_equal(strncmp(err.text, "failed session lookup: index error: ", 36), 0);
            assert_string_equal(err.text + 36, cases[i].error);
        }
    }
}

/* As Go's base64.StdEncoding: a transaction's value is either read whole or refused. */
static void base64_is_read_as_by_go(void **state)
{
    static const struct {
        const char *text, *expected; /* NULL: refused */
    } cases[] = {
        {"", ""},          {"YQ==", "a"}, {"YWI=", "ab"}, {"YWJj", "abc"}, {"YWJjZA==", "abcd"},
        {"YW\nJj", "abc"}, {"YQ", NULL},  {"YQ=", NULL},  {"YQ===", NULL}, {"YQ==YQ==", NULL},
        {"!!!", NULL},     {"=", NULL},   {"Y===", NULL}, {"YQ=a", NULL},  {"YW J", NULL},
        {"__==", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer out = {0};
        struct errmsg err = {""};
        const bool ok = json_base64_decode(&out, slice_from_text(cases[i].text), &err);

        if (ok != (cases[i].expected != NULL) ||
            (ok && !slice_equal(buffer_slice(&out), slice_from_text(cases[i].expected)))) {
            fail_msg("\"%s\": got %d \"%.*s\"", cases[i].text, ok, (int)out.size,
                     out.size == 0 ? "" : out.data);
        }
        assert_true(ok || strstr(err.text, "illegal base64 data at input byte") != NULL);
        buffer_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_is_read_as_by_go),
        cmocka_unit_test(test_paths_are_cleaned_as_go_cleans_them),
        cmocka_unit_test(test_paths_are_escaped_as_go_escapes_them),
        cmocka_unit_test(test_printable_is_what_go_prints),
        cmocka_unit_test(test_unsigned_numbers_fail_with_gos_words),
        cmocka_unit_test(test_targets_become_paths_and_parameters),
        cmocka_unit_test(test_parameters_are_limited),
        cmocka_unit_test(test_strings_are_escaped_as_go_escapes_them),
        cmocka_unit_test(test_base64_of_all_remainders),
        cmocka_unit_test(test_pretty_is_gos_indent),
        cmocka_unit_test(test_members_match_without_case_and_the_last_wins),
        cmocka_unit_test(test_session_ids_are_judged_as_the_index_judges_them),
    };

    (void)http_fixture_open;
    (void)http_fixture_close;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
