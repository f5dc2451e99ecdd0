/* Bodies that are no JSON, or not what the endpoint takes: the status that Consul gives, a text
 * that says why, and a connection that goes on. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/http/json_decode.h"
#include "tests/unit/http_client.h"

struct body_case {
    const char *name;
    const char *body;
    size_t size; /* 0: a text */
    int session; /* status of PUT /v1/session/create */
    int txn;     /* and of PUT /v1/txn */
};

static const struct body_case cases[] = {
    {"empty", "", 0, 200, 400},
    {"null is nothing", "null", 0, 200, 200},
    {"an empty list", "[]", 0, 400, 200},
    {"a list of null", "[null]", 0, 400, 400},
    {"a list of an empty object", "[{}]", 0, 400, 200},
    {"an empty object", "{}", 0, 200, 400},
    {"a string", "\"x\"", 0, 400, 400},
    {"a number", "5", 0, 400, 400},
    {"true", "true", 0, 400, 400},
    {"cut off", "{", 0, 400, 400},
    {"what follows the first value is ignored", "{} x", 0, 200, 400},
    {"a second value is ignored", "{}{}", 0, 200, 400},
    {"the last of two members counts", "{\"Name\":5,\"Name\":\"b\"}", 0, 200, 400},
    {"the last of two members that differ in case counts", "{\"Name\":5,\"name\":\"b\"}", 0, 200,
     400},
    {"a byte order mark is refused", "\xef\xbb\xbf{}", 0, 400, 400},
    {"bytes that are no UTF-8 are taken", "{\"Name\":\"a\xff\"}", 0, 200, 400},
    {"but not outside a string", "{\"Name\":\xff\"a\"}", 0, 400, 400},
    {"an overlong encoding is taken", "{\"Name\":\"\xc0\xaf\"}", 0, 200, 400},
    {"half a surrogate pair is taken", "{\"Name\":\"\\ud800\"}", 0, 200, 400},
    {"half an escape is refused", "{\"Name\":\"\\ud800\\u00\"}", 0, 400, 400},
    {"a string that ends in a backslash is refused", "{\"Name\":\"\\", 0, 400, 400},
    {"an escaped NUL is taken", "{\"Name\":\"a\\u0000b\"}", 0, 200, 400},
    {"a NUL is refused", "{\"Name\":\"a\0b\"}", 14, 400, 400},
    {"a control byte is refused", "{\"Name\":\"a\x01\"}", 0, 400, 400},
    {"a number beyond a double is refused", "{\"Name\":1e400}", 0, 400, 400},
    {"a number beyond 64 bits is refused", "{\"Name\":99999999999999999999}", 0, 400, 400},
    {"a number for a string is refused", "{\"Name\":5}", 0, 400, 400},
    {"an object for a string is refused", "{\"Name\":{}}", 0, 400, 400},
    {"null for a string is none", "{\"Name\":null}", 0, 200, 400},
    {"an unknown member is ignored", "{\"Foo\":1}", 0, 200, 400},
    {"single quotes are refused", "{'Name':'a'}", 0, 400, 400},
    {"a comma too many is refused", "{\"Name\":\"a\",}", 0, 400, 400},
    {"NaN is refused", "{\"Name\":NaN}", 0, 400, 400},
    {"hexadecimal is refused", "{\"Name\":0x10}", 0, 400, 400},
    {"a leading zero is refused", "{\"Name\":01}", 0, 400, 400},
};

static void send_body(struct http_fixture *fixture, struct client *client, const char *path,
                      const char *body, size_t size)
{
    char head[128];

    (void)snprintf(head, sizeof(head), "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                   path, size);
    client_send(fixture, client, head);
    client_send_bytes(fixture, client, body, size);
    client_send(fixture, client, "GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, client, "\"127.0.0.1:8300\"", 1); /* The connection goes on. */
}

static void check_body(struct http_fixture *fixture, const char *path, const char *name,
                       struct slice body, int status)
{
    struct client client;
    char line[32];

    client_open(fixture, &client);
    send_body(fixture, &client, path, body.data, body.size);
    const int size = snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);

    if (strncmp(client.data, line, (size_t)size) != 0) {
        fail_msg("%s, %s: \"%s\"", path, name, client.data);
    }
    if (status == 400) {
        assert_int_equal(count_text(&client, "Content-Type: text/plain; charset=utf-8\r\n"), 1);
        assert_int_equal(count_text(&client, "Content-Length: 0\r\n"), 0); /* It says why. */
    }
    client_close(&client);
}

static void each_kind_of_body_has_consuls_status(void **state)
{
    struct http_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct slice body =
            slice_from(cases[i].body, cases[i].size > 0 ? cases[i].size : strlen(cases[i].body));

        check_body(fixture, "/v1/session/create", cases[i].name, body, cases[i].session);
        check_body(fixture, "/v1/txn", cases[i].name, body, cases[i].txn);
    }
}

/* As Consul stores them. */
static void what_is_no_unicode_is_replaced_as_in_go(void **state)
{
    static const struct {
        const char *name, *in, *out; /* out NULL: as it is */
    } texts[] = {
        {"ASCII", "\"abc\"", NULL},
        {"UTF-8 of two, three and four bytes", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"", NULL},
        {"a pair", "\"\\uD83d\\ude00\"", NULL},
        {"an escaped backslash", "\"\\\\ud800\"", NULL},
        {"outside strings", "\"a\"\xff", NULL},
        {"not after an escaped quote, either", "\"\\\"\" \xff", NULL},
        {"two bytes",
         "\"a\xff\xfe"
         "b\"",
         "\"a\xef\xbf\xbd\xef\xbf\xbd"
         "b\""},
        {"a cut sequence",
         "\"\xe2\x80"
         "b\"",
         "\"\xef\xbf\xbd\xef\xbf\xbd"
         "b\""},
        {"a surrogate", "\"\xed\xa0\x80\"", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"an overlong NUL", "\"\xc0\x80\"", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"after an escaped quote", "\"\\\"\xff\"", "\"\\\"\xef\xbf\xbd\""},
        {"a first half", "\"x\\ud800y\"", "\"x\xef\xbf\xbdy\""},
        {"a second half", "\"\\udc00z\"", "\"\xef\xbf\xbdz\""},
        {"a half before a pair", "\"\\ud800\\ud800\\udc00\"", "\"\xef\xbf\xbd\\ud800\\udc00\""},
        {"a half before a letter", "\"\\ud83d\\u0041\"", "\"\xef\xbf\xbd\\u0041\""},
        {"a half before a line end", "\"\\ud800\\n\"", "\"\xef\xbf\xbd\\n\""},
        {"in a name", "{\"a\xff\":1}", "{\"a\xef\xbf\xbd\":1}"},
        {"cut in an escape", "\"\xff\\ud80", "\"\xef\xbf\xbd\\ud80"},
        {"cut after a backslash", "\"\xff\\", "\"\xef\xbf\xbd\\"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct buffer out = {0};
        const bool repaired = json_repair(&out, slice_from_text(texts[i].in));

        if (repaired != (texts[i].out != NULL) ||
            (repaired && !slice_equal(buffer_slice(&out), slice_from_text(texts[i].out)))) {
            fail_msg("%s: \"%.*s\"", texts[i].name, (int)out.size, out.data);
        }
        buffer_deinit(&out);
    }
}

static void depth_is_bounded(void **state)
{
    enum { DEPTH = 20000 };
    struct http_fixture *fixture = *state;
    char *text = malloc((size_t)2 * DEPTH);

    assert_non_null(text);
    memset(text, '[', DEPTH);
    memset(text + DEPTH, ']', DEPTH);
    check_body(fixture, "/v1/session/create", "deep", slice_from(text, (size_t)2 * DEPTH), 400);
    check_body(fixture, "/v1/txn", "deep", slice_from(text, (size_t)2 * DEPTH), 400);
    free(text);
}

static void size_is_bounded_as_it_arrives(void **state)
{
    enum { SIZE = HTTP_BODY_BYTES_MAX + 1 };
    struct http_fixture *fixture = *state;
    struct client client;
    char *text = calloc(1, SIZE);
    char head[128];

    assert_non_null(text);
    memset(text, ' ', SIZE);
    client_open(fixture, &client);
    (void)snprintf(head, sizeof(head),
                   "PUT /v1/session/create HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
                   SIZE);
    client_send(fixture, &client, head);
    client_expect(fixture, &client, "HTTP/1.1 413 ", 1);
    client_close(&client);
    client_open(fixture, &client);
    (void)snprintf(head, sizeof(head),
                   "PUT /v1/session/create HTTP/1.1\r\nHost: x\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n%x\r\n",
                   SIZE);
    client_send(fixture, &client, head);
    client_send_bytes(fixture, &client, text, SIZE);
    client_expect(fixture, &client, "HTTP/1.1 413 ", 1);
    client_close(&client);
    free(text);
}

static void null_decodes_to_zero_values(void **state)
{
    static const struct json_field fields[] = {{"Name", JSON_FIELD_STRING, 0}};
    struct slice name = SLICE_LITERAL("before");
    struct errmsg err = {""};
    json_t *null = json_null();

    (void)state;
    assert_true(json_decode(null, "structs.Thing", fields, 1, &name, &err));
    assert_true(slice_equal(name, SLICE_LITERAL("before")));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_kind_of_body_has_consuls_status),
        TEST(depth_is_bounded),
        TEST(size_is_bounded_as_it_arrives),
        cmocka_unit_test(what_is_no_unicode_is_replaced_as_in_go),
        cmocka_unit_test(what_is_no_unicode_is_replaced_as_in_go),
        cmocka_unit_test(null_decodes_to_zero_values),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
