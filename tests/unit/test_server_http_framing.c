/* One request, one reading: each corner of HTTP's framing with its outcome. What is refused stands
 * in test_server_http.c; here stands what is taken, and as what. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/http_client.h"

#define HOST "Host: x\r\n"
#define FOLLOW "GET /v1/status/leader HTTP/1.1\r\n" HOST "\r\n"
#define LEADER "\"127.0.0.1:8300\""

struct framing_case {
    const char *name;     /* with its outcome */
    const char *request;  /* what follows it on the connection is FOLLOW */
    const char *status;   /* of the first answer */
    const char *expected; /* somewhere in the answers; NULL: nothing in particular */
    bool closes;          /* the connection ends with that answer; else FOLLOW is answered too */
};

static const struct framing_case cases[] = {
    /* lengths */
    {"leading zeros of Content-Length are decimal",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 0003\r\n\r\nabc", "200 OK", "true", false},
    {"a GET's body is passed over",
     "GET /v1/kv/none HTTP/1.1\r\n" HOST "Content-Length: 45\r\n\r\n"
     "GET /v1/kv/smuggled?raw HTTP/1.1\r\nHost: x\r\n\r\n",
     "404 Not Found", NULL, false},
    {"a GET's chunked body is passed over",
     "GET /v1/kv/none HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
     "404 Not Found", NULL, false},
    {"a chunk extension is ignored",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
     "3;name=value\r\nabc\r\n0\r\n\r\n",
     "200 OK", "true", false},
    {"a quoted chunk extension is ignored",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
     "3;name=\"a;b\"\r\nabc\r\n0\r\n\r\n",
     "200 OK", "true", false},
    {"trailers are ignored",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
     "3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
     "200 OK", "true", false},
    {"chunked in capitals is chunked",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding:  CHUNKED \r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     "200 OK", "true", false},
    {"a chunked body of a session is passed over, as Consul does",
     "PUT /v1/session/create HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
     "5\r\n{\"TTL\r\n0\r\n\r\n",
     "200 OK", "\"ID\"", false},
    {"a chunk line with a bare LF is refused",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
     "400 Bad Request", NULL, true},
    {"a bare LF in a chunk extension is refused",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n",
     "400 Bad Request", NULL, true},
    {"a blank behind a chunk's size is refused",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
     "400 Bad Request", NULL, true},
    {"a chunk of negative size is refused",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
     "400 Bad Request", NULL, true},
    {"a blank before Content-Length's colon is refused",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length : 3\r\n\r\nabc", "400 Bad Request", NULL,
     true},
    {"a blank before Transfer-Encoding is refused",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "400 Bad Request", NULL, true},
    {"Content-Length of 2^64 + 3 is refused",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551619\r\n\r\nabc",
     "400 Bad Request", NULL, true},
    {"Content-Length of 2^62 is too large, and nothing waits for it",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 4611686018427387904\r\n\r\nabc",
     "413 Request Entity Too Large", NULL, true},

    /* lines */
    {"lines that end in LF alone are lines", "GET /v1/kv/none HTTP/1.1\nHost: x\n\n",
     "404 Not Found", NULL, false},
    {"an empty line before a request is skipped", "\r\nGET /v1/kv/none HTTP/1.1\r\n" HOST "\r\n",
     "404 Not Found", NULL, false},
    {"CR CR LF is refused", "GET / HTTP/1.1\r\r\n" HOST "\r\n", "400 Bad Request", NULL, true},
    {"a control byte in a value is refused", "GET / HTTP/1.1\r\n" HOST "A: a\x01z\r\n\r\n",
     "400 Bad Request", NULL, true},
    {"DEL in a value is refused", "GET / HTTP/1.1\r\n" HOST "A: a\x7f\r\n\r\n", "400 Bad Request",
     NULL, true},
    {"bytes above ASCII in a value are taken", "GET / HTTP/1.1\r\n" HOST "A: \xc3\xa4\xff\r\n\r\n",
     "200 OK", "Consul Agent", false},
    {"a header without a name is refused", "GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n",
     "400 Bad Request", NULL, true},

    /* the connection */
    {"close ends it", "GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", "200 OK",
     "Connection: close\r\n", true},
    {"close with a tab behind it ends it", "GET / HTTP/1.1\r\n" HOST "Connection: close\t\r\n\r\n",
     "200 OK", "Connection: close\r\n", true},
    {"close with a tab before it ends it", "GET / HTTP/1.1\r\n" HOST "Connection:\tclose\r\n\r\n",
     "200 OK", "Connection: close\r\n", true},
    {"close in a list ends it", "GET / HTTP/1.1\r\n" HOST "Connection: keep-alive , Close\r\n\r\n",
     "200 OK", "Connection: close\r\n", true},
    {"close in a second header ends it",
     "GET / HTTP/1.1\r\n" HOST "Connection: keep-alive\r\nConnection: close\r\n\r\n", "200 OK",
     "Connection: close\r\n", true},
    {"HTTP/1.0 ends it", "GET / HTTP/1.0\r\n\r\n", "200 OK", "Connection: close\r\n", true},
    {"HTTP/1.0 with keep-alive goes on", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
     "200 OK", "Connection: keep-alive\r\n", false},
    {"an upgrade to h2c is ignored",
     "GET / HTTP/1.1\r\n" HOST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
     "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
     "200 OK", "Consul Agent", false},
    {"an upgrade to a WebSocket is ignored",
     "GET / HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "200 OK",
     "Consul Agent", false},
    {"100-continue with its body is not told to go on",
     "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
     "200 OK", "true", false},
    {"another expectation fails", "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Expect: 200-ok\r\n\r\n",
     "417 Expectation Failed", NULL, true},

    /* targets */
    {"the path of an absolute target counts, not its host",
     "GET http://elsewhere/v1/kv/none HTTP/1.1\r\n" HOST "\r\n", "404 Not Found", NULL, false},
    {"CONNECT is refused", "CONNECT x:80 HTTP/1.1\r\n" HOST "\r\n", "400 Bad Request", NULL, true},
    {"OPTIONS of the server as a whole is answered", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "200 OK",
     NULL, false},
    {"two slashes are redirected", "GET //v1/kv/a HTTP/1.1\r\n" HOST "\r\n",
     "301 Moved Permanently", "Location: /v1/kv/a\r\n", false},
    {"dots are redirected, not followed", "GET /v1/kv/../status/leader HTTP/1.1\r\n" HOST "\r\n",
     "301 Moved Permanently", "Location: /v1/status/leader\r\n", false},
    {"escaped dots are redirected, too", "GET /v1/kv/%2e%2e/status/leader HTTP/1.1\r\n" HOST "\r\n",
     "301 Moved Permanently", "Location: /v1/status/leader\r\n", false},
    {"an escaped NUL is refused", "GET /v1/kv/a%00b HTTP/1.1\r\n" HOST "\r\n", "400 Bad Request",
     NULL, false},
    {"an escaped line end in a path is refused and no header",
     "GET //v1/kv/a%0d%0aX-Injected:1 HTTP/1.1\r\n" HOST "\r\n", "400 Bad Request", NULL, false},
    {"a redirect shows no markup as such", "GET //v1/kv/a?<script> HTTP/1.1\r\n" HOST "\r\n",
     "301 Moved Permanently", "<a href=\"/v1/kv/a?&lt;script&gt;\">", false},
    {"an unknown method shows its name as text", "SCRIPT /v1/kv/a HTTP/1.1\r\n" HOST "\r\n",
     "405 Method Not Allowed", "Content-Type: text/plain; charset=utf-8\r\n", false},
};

static void assert_answers(const struct framing_case *framing, struct client *client)
{
    char line[64];
    const int size = snprintf(line, sizeof(line), "HTTP/1.1 %s\r\n", framing->status);
    const bool old = strstr(framing->request, "HTTP/1.0") != NULL;

    line[7] = old ? '0' : '1';
    if (client->data == NULL || strncmp(client->data, line, (size_t)size) != 0 ||
        (framing->expected != NULL && strstr(client->data, framing->expected) == NULL) ||
        count_text(client, "HTTP/1.") != (framing->closes ? 1 : 2) ||
        count_text(client, "X-Injected") !=
            (strstr(framing->expected == NULL ? "" : framing->expected, "X-Injected") != NULL)) {
        fail_msg("%s: \"%s\"", framing->name, client->data == NULL ? "" : client->data);
    }
}

static void each_corner_of_framing_has_one_outcome(void **state)
{
    struct http_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client client;

        client_open(fixture, &client);
        client_send(fixture, &client, cases[i].request);
        client_send(fixture, &client, FOLLOW);
        if (cases[i].closes) {
            client_expect_close(fixture, &client);
        } else {
            client_expect(fixture, &client, LEADER, 1);
        }
        assert_answers(&cases[i], &client);
        client_close(&client);
    }
}

/* The same, byte by byte, so that every place is one where the input may end for now. */
static void each_corner_has_the_same_outcome_byte_by_byte(void **state)
{
    struct http_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client client;

        if (strstr(cases[i].request, "100-continue") != NULL) {
            continue; /* Its body comes late here: 100 is told. */
        }
        client_open(fixture, &client);
        for (const char *at = cases[i].request; *at != '\0'; at++) {
            client_send_bytes(fixture, &client, at, 1);
            (void)uv_run(&fixture->loop, UV_RUN_NOWAIT);
        }
        client_send(fixture, &client, FOLLOW);
        if (cases[i].closes) {
            client_expect_close(fixture, &client);
        } else {
            client_expect(fixture, &client, LEADER, 1);
        }
        assert_answers(&cases[i], &client);
        client_close(&client);
    }
}

/* --- names of keys --- */

static void escapes_in_a_key_are_decoded_once(void **state)
{
    static const struct {
        const char *target, *listed;
    } keys[] = {
        {"/v1/kv/slash%2Fin", "[\"slash/in\"]"},
        {"/v1/kv/twice%252Fin", "[\"twice%2Fin\"]"},
        {"/v1/kv/mark%3Fx=1", "[\"mark?x=1\"]"},
        {"/v1/kv/hash%23x", "[\"hash#x\"]"},
        {"/v1/kv/blank%20x", "[\"blank x\"]"},
        {"/v1/kv/plus+x", "[\"plus+x\"]"},
        {"/v1/kv/percent%25", "[\"percent%\"]"},
        {"/v1/kv/quote%22x", "[\"quote\\\"x\"]"},
        {"/v1/kv/umlaut%C3%A4", "[\"umlaut\xc3\xa4\"]"},
        {"/v1/kv/lt%3Cx", "[\"lt\\u003cx\"]"},
    };
    struct http_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct client client;
        char request[256];

        client_open(fixture, &client);
        (void)snprintf(request, sizeof(request),
                       "PUT %s HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\n1"
                       "GET %s?keys HTTP/1.1\r\n" HOST "\r\n",
                       keys[i].target, keys[i].target);
        client_send(fixture, &client, request);
        client_expect(fixture, &client, keys[i].listed, 1);
        client_close(&client);
    }
}

static void unprintable_bytes_of_a_key_are_taken_when_the_settings_say_so(void **state)
{
    static const char requests[] =
        "PUT /v1/kv/odd%01%00%7F%0A HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\n1"
        "GET /v1/kv/odd?keys HTTP/1.1\r\n" HOST "\r\n" FOLLOW;
    struct http_fixture *fixture = *state;
    struct client client;

    for (int allowed = 0; allowed < 2; allowed++) {
        fixture->config.http_unprintable = allowed == 1;
        client_open(fixture, &client);
        client_send(fixture, &client, requests);
        client_expect(fixture, &client, LEADER, 1);
        assert_int_equal(count_text(&client, "400 Bad Request"), allowed == 1 ? 0 : 1);
        assert_int_equal(count_text(&client, "[\"odd\\u0001\\u0000\x7f\\n\"]"), allowed);
        client_close(&client);
    }
}

static void a_body_that_waits_for_100_is_told_to_come(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client,
                "PUT /v1/kv/a HTTP/1.1\r\n" HOST
                "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    client_expect(fixture, &client, "HTTP/1.1 100 Continue\r\n\r\n", 1);
    client_send(fixture, &client, "abc" FOLLOW);
    client_expect(fixture, &client, LEADER, 1);
    assert_int_equal(count_text(&client, "HTTP/1.1 200 OK"), 2);
    client_close(&client);
}

static void a_body_that_will_be_refused_is_not_told_to_come(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client,
                "PUT /v1/kv/a HTTP/1.1\r\n" HOST
                "Expect: 100-continue\r\nContent-Length: 3000000\r\n\r\n");
    client_expect(fixture, &client, "HTTP/1.1 413 ", 1);
    assert_int_equal(count_text(&client, "100 Continue"), 0);
    client_close(&client);
}

/* --- hygiene --- */

static void a_raw_value_is_never_a_page(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client,
                "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 15\r\n\r\n<script></html>"
                "GET /v1/kv/a?raw HTTP/1.1\r\n" HOST "\r\n");
    client_expect(fixture, &client, "<script></html>", 1);
    assert_int_equal(count_text(&client, "Content-Type: text/plain\r\n"), 1);
    assert_int_equal(count_text(&client, "X-Content-Type-Options: nosniff\r\n"), 1);
    assert_int_equal(count_text(&client, "text/html"), 0);
    client_close(&client);
}

static void what_a_client_sent_comes_back_as_text_alone(void **state)
{
    static const char *const targets[] = {
        "/v1/kv/a?cas=%3Cscript%3E",
        "/v1/kv/a?flags=%3Cscript%3E",
        "/v1/kv/a?acquire=%3Cscript%3E",
        "/v1/session/destroy/%3Cscript%3E",
        "/v1/kv/a?acquire=x%0d%0aX-Injected:1",
    };
    struct http_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct client client;
        char request[256];

        client_open(fixture, &client);
        (void)snprintf(request, sizeof(request),
                       "PUT %s HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n" FOLLOW, targets[i]);
        client_send(fixture, &client, request);
        client_expect(fixture, &client, LEADER, 1);
        assert_int_equal(count_text(&client, "text/html"), 0);
        assert_int_equal(count_text(&client, "\nX-Injected"), 0);
        client_close(&client);
    }
}

/* --- trickles --- */

static struct http_conn *only_conn(struct http_fixture *fixture)
{
    assert_non_null(fixture->server.http->conns);
    return fixture->server.http->conns;
}

static void a_body_in_drops_does_not_renew_its_time(void **state)
{
    struct http_fixture *fixture = *state;
    char block[HTTP_RATE_BYTES];
    struct client client;

    memset(block, 'b', sizeof(block));
    client_open(fixture, &client);
    client_send(fixture, &client,
                "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n");
    turn_until(fixture,
               fixture->server.http->conns != NULL && only_conn(fixture)->state == HTTP_CONN_BODY);
    const uint64_t deadline_ms = only_conn(fixture)->deadline_ms;

    for (int i = 0; i < 20; i++) {
        client_send(fixture, &client, "d");
        turns(fixture, 2);
    }
    assert_int_equal(only_conn(fixture)->deadline_ms, deadline_ms);
    client_send_bytes(fixture, &client, block, sizeof(block));
    turn_until(fixture, only_conn(fixture)->deadline_ms > deadline_ms);
    client_close(&client);
}

static void a_head_in_drops_does_not_renew_its_time(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client, "GET ");
    turn_until(fixture, fixture->server.http->conns != NULL &&
                            only_conn(fixture)->in.size == strlen("GET "));
    const uint64_t deadline_ms = only_conn(fixture)->deadline_ms;

    assert_in_range(deadline_ms, 1, uv_now(&fixture->loop) + HTTP_HEADER_TIMEOUT_MS);
    for (int i = 0; i < 20; i++) {
        client_send(fixture, &client, "/");
        turns(fixture, 2);
    }
    assert_int_equal(only_conn(fixture)->deadline_ms, deadline_ms);
    client_close(&client);
}

/* Who does not go on is closed when the time of what it does is over; only what waits for us, or
 * for something to happen, is not. */
static void each_state_of_a_connection_has_its_time(void **state)
{
    static const struct {
        const char *name, *sent;
        enum http_conn_state state;
        bool begun; /* something of a head is there */
        uint64_t ms_max;
        unsigned answers; /* before its time is over */
        bool answered;    /* when it is; else closed */
    } states[] = {
        {"connected and silent", "", HTTP_CONN_HEAD, false, HTTP_IDLE_TIMEOUT_MS, 0, false},
        {"idle behind an answer", FOLLOW, HTTP_CONN_HEAD, false, HTTP_IDLE_TIMEOUT_MS, 1, false},
        {"amid a head", "GET /v1/", HTTP_CONN_HEAD, true, HTTP_HEADER_TIMEOUT_MS, 0, false},
        {"amid a head behind an answer", FOLLOW "GET /v1/", HTTP_CONN_HEAD, true,
         HTTP_HEADER_TIMEOUT_MS, 1, false},
        {"amid a body", "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\na",
         HTTP_CONN_BODY, false, HTTP_BODY_TIMEOUT_MS, 0, false},
        {"amid a chunk",
         "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\na",
         HTTP_CONN_BODY, false, HTTP_BODY_TIMEOUT_MS, 0, false},
        {"amid a body that nobody wants",
         "GET /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\na", HTTP_CONN_DRAIN, false,
         HTTP_BODY_TIMEOUT_MS, 1, false},
        {"blocked", "GET /v1/kv/a?index=1000&wait=200s HTTP/1.1\r\n" HOST "\r\n", HTTP_CONN_BUSY,
         false, 213 * 1000, 0, true},
    };
    struct http_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        struct client client;

        client_open(fixture, &client);
        client_send(fixture, &client, states[i].sent);
        client_expect(fixture, &client, "HTTP/1.1 ", states[i].answers);
        turn_until(fixture, fixture->server.http->conns != NULL &&
                                only_conn(fixture)->state == states[i].state &&
                                (only_conn(fixture)->state != HTTP_CONN_HEAD ||
                                 (only_conn(fixture)->in.size > 0) == states[i].begun));
        struct http_conn *conn = only_conn(fixture);

        if (conn->deadline_ms > uv_now(&fixture->loop) + states[i].ms_max) {
            fail_msg("%s: closed too late", states[i].name);
        }
        http_conn_set_deadline(conn, 0);
        if (states[i].answered) {
            client_expect(fixture, &client, "HTTP/1.1 404", 1);
        } else {
            client_expect_close(fixture, &client);
            if (count_text(&client, "HTTP/1.1 ") != states[i].answers) {
                fail_msg("%s: \"%s\"", states[i].name, client.data);
            }
        }
        client_close(&client);
        turn_until(fixture, fixture->server.http->conns == NULL);
    }
}

/* The answer is larger than what sockets take; the rest waits in memory, for a while. */
static void who_does_not_read_its_answer_is_closed(void **state)
{
    enum { COUNT = 16, BYTES = 512 * 1024 };
    struct http_fixture *fixture = *state;
    char *value = malloc(BYTES);
    struct client client;

    assert_non_null(value);
    memset(value, 'x', BYTES);
    client_open(fixture, &client);
    client_send(fixture, &client,
                "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 524288\r\n\r\n");
    client_send_bytes(fixture, &client, value, BYTES);
    client_expect(fixture, &client, "true", 1);
    for (int i = 0; i < COUNT; i++) {
        client_send(fixture, &client, "GET /v1/kv/a HTTP/1.1\r\n" HOST "\r\n");
    }
    struct http_conn *conn = only_conn(fixture);

    turn_until(fixture, conn->state == HTTP_CONN_WRITE);
    assert_in_range(conn->deadline_ms, 1, uv_now(&fixture->loop) + HTTP_WRITE_TIMEOUT_MS);
    assert_in_range(uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp), 1, 2 * BYTES);
    http_conn_set_deadline(conn, 0);
    turn_until(fixture, fixture->server.http->conns == NULL);
    free(value);
    client_close(&client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_corner_of_framing_has_one_outcome),
        TEST(each_corner_has_the_same_outcome_byte_by_byte),
        TEST(escapes_in_a_key_are_decoded_once),
        TEST(unprintable_bytes_of_a_key_are_taken_when_the_settings_say_so),
        TEST(a_body_that_waits_for_100_is_told_to_come),
        TEST(a_body_that_will_be_refused_is_not_told_to_come),
        TEST(a_raw_value_is_never_a_page),
        TEST(what_a_client_sent_comes_back_as_text_alone),
        TEST(a_body_in_drops_does_not_renew_its_time),
        TEST(a_head_in_drops_does_not_renew_its_time),
        TEST(each_state_of_a_connection_has_its_time),
        TEST(who_does_not_read_its_answer_is_closed),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
