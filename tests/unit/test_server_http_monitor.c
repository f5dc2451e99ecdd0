/* /v1/agent/monitor and /v1/agent/metrics/stream over real connections: who does not read is cut
 * off, and takes nobody along. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define HTTP_FIXTURE_AGENT
#include "server/http/http_agent.h"
#include "server/log.h"
#include "server/monitor.h"
#include "tests/unit/http_client.h"

#define FOLLOW "GET /v1/agent/monitor?loglevel=debug HTTP/1.1\r\nHost: x\r\n\r\n"

enum {
    LINE_BYTES = 900,
    ROUNDS_MAX = 4000, /* of 50 lines: more than any socket's buffers hold */
    UNSENT_BYTES_MAX = 512 * 1024,
};

static void refuse_format(struct http_request *request)
{
    http_reply_error(request, 415, "not this one");
}

const struct http_route http_routes_agent[] = {
    {"/v1/agent/metrics", HTTP_METHOD_GET, "OPTIONS,GET", refuse_format},
    {"/v1/agent/metrics/stream", HTTP_METHOD_GET, "OPTIONS,GET", http_agent_metrics_stream},
    {"/v1/agent/monitor", HTTP_METHOD_GET, "OPTIONS,GET", http_agent_monitor},
    {NULL, 0, NULL, NULL},
};

static void follow(struct http_fixture *fixture, struct client *client)
{
    client_open(fixture, client);
    client_send(fixture, client, FOLLOW);
}

/* What came so far was looked at. */
static void client_forget(struct client *client)
{
    client->size = 0;
    client->data[0] = '\0';
}

static void wait_for_followers(struct http_fixture *fixture, size_t count)
{
    turn_until(fixture, monitor_count(fixture->server.monitor) == count);
}

/* What waits in the server for its clients. */
static size_t unsent_bytes(const struct http_fixture *fixture)
{
    size_t bytes = 0;

    for (const struct http_conn *conn = fixture->server.http->conns; conn != NULL;
         conn = conn->next) {
        bytes += conn->tcp.write_queue_size;
    }
    return bytes;
}

static void write_lines(void)
{
    char text[LINE_BYTES];

    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 50; i++) {
        log_write(LOG_DEBUG, "test", "%.*s", (int)sizeof(text), text);
    }
}

static void who_does_not_read_is_cut_off_and_others_follow_on(void **state)
{
    struct http_fixture *fixture = *state;
    struct client reader, stalled;
    int round;

    follow(fixture, &reader);
    follow(fixture, &stalled);
    wait_for_followers(fixture, 2);
    for (round = 0; round < ROUNDS_MAX && monitor_count(fixture->server.monitor) == 2; round++) {
        char last[32];

        (void)snprintf(last, sizeof(last), "round %d\n", round);
        write_lines();
        log_write(LOG_DEBUG, "test", "%.*s", (int)strlen(last) - 1, last);
        loop_turn(fixture);
        assert_in_range(unsent_bytes(fixture), 0, UNSENT_BYTES_MAX);
        client_expect(fixture, &reader, last, 1); /* It keeps up, on a slow machine, too. */
        client_forget(&reader);
    }
    assert_in_range(round, 1, ROUNDS_MAX - 1);
    wait_for_followers(fixture, 1);
    log_write(LOG_DEBUG, "test", "to the end");
    client_expect(fixture, &reader, "to the end\n", 1);
    assert_false(reader.closed);
    client_expect_close(fixture, &stalled); /* It sees that the log was cut. */
    assert_null(strstr(stalled.data, "\r\n0\r\n\r\n"));
    client_close(&reader);
    client_close(&stalled);
    wait_for_followers(fixture, 0);
}

static void clients_may_go_while_they_are_told(void **state)
{
    struct http_fixture *fixture = *state;
    struct client clients[8];

    for (size_t i = 0; i < 8; i++) {
        follow(fixture, &clients[i]);
    }
    wait_for_followers(fixture, 8);
    for (size_t i = 0; i < 8; i++) {
        write_lines(); /* Some of it unread: a reset, not an end. */
        if (i % 2 == 0) {
            loop_turn(fixture);
        }
        client_close(&clients[i]);
        write_lines();
    }
    wait_for_followers(fixture, 0);
    turn_until(fixture, unsent_bytes(fixture) == 0);
}

/* The end of the client's side came while it was sent something else. */
static void who_has_ended_its_side_does_not_follow(void **state)
{
    enum { BIG_BYTES = 16 * 1024 * 1024 }; /* more than sockets hold */
    struct http_fixture *fixture = *state;
    struct client client;
    char *big = calloc(1, BIG_BYTES);

    assert_non_null(big);
    fixture->config.kv_value_bytes_max = BIG_BYTES;
    client_open(fixture, &client);
    client_send(fixture, &client,
                "PUT /v1/kv/big HTTP/1.1\r\nHost: x\r\nContent-Length: 16777216\r\n\r\n");
    client_send_bytes(fixture, &client, big, BIG_BYTES);
    client_expect(fixture, &client, "true", 1);
    client_send(fixture, &client, "GET /v1/kv/big?raw HTTP/1.1\r\nHost: x\r\n\r\n");
    client_send(fixture, &client, FOLLOW);
    assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
    turns(fixture, 50);
    assert_int_equal(monitor_count(fixture->server.monitor), 0); /* It has not come so far. */
    client_expect_close(fixture, &client);
    assert_in_range(client.size, (size_t)BIG_BYTES, SIZE_MAX);
    wait_for_followers(fixture, 0);
    client_close(&client);
    free(big);
}

static void each_status_has_its_reason(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/agent/metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &client, "HTTP/1.1 415 Unsupported Media Type\r\n", 1);
    client_close(&client);
}

static void the_log_of_a_server_without_token_is_nobodys(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;
    char secret[] = "secret";

    fixture->config.acl_enabled = true;
    fixture->config.acl_token = secret;
    follow(fixture, &client);
    client_expect(fixture, &client, "HTTP/1.1 403 Forbidden\r\n", 1);
    assert_int_equal(monitor_count(fixture->server.monitor), 0);
    client_close(&client);
    fixture->config.acl_enabled = false;
}

static void what_a_stranger_wrote_stays_within_its_line(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    follow(fixture, &client);
    wait_for_followers(fixture, 1);
    log_write(LOG_WARN, "test", "name=%s", "a\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\x1b[2J");
    client_expect(fixture, &client, "name=a\\x0d\\n\\x0d\\n0", 1);
    client_expect(fixture, &client, "200 OK\\x1b[2J\n\r\n", 1);
    client_close(&client);
    wait_for_followers(fixture, 0);
}

/* Pairs behind the message are members, in the order of their names. */
static void in_json_pairs_are_members_and_all_else_is_the_message(void **state)
{
    static const struct {
        const char *text, *message, *members;
    } cases[] = {
        {"leader elected: term=7 name=pg1", "leader elected", ",\"name\":\"pg1\",\"term\":7}\n"},
        {"cannot dial: error=\"no route: to \"it\"\" id=1", "cannot dial",
         ",\"error\":\"no route: to \\\"it\\\"\",\"id\":1}\n"},
        {"one: two: a=b", "one: two", ",\"a\":\"b\"}\n"},
        {"numbers: a=\"1\" b=01 c=1s d=-1 e=0 f=", "numbers",
         ",\"a\":\"1\",\"b\":\"01\",\"c\":\"1s\",\"d\":\"-1\",\"e\":0,\"f\":\"\"}\n"},
        {"plain", "plain", "}\n"},
        {"a=b", "a=b", "}\n"},
        {"no pair: a", "no pair: a", "}\n"},
        {"more follows: a=b. Then do", "more follows: a=b. Then do", "}\n"},
        {"open: a=\"b", "open: a=\\\"b", "}\n"},
        {"twice: a=b a=c", "twice: a=b a=c", "}\n"},
        {"no name: =b", "no name: =b", "}\n"},
        {"not ours: @level=x", "not ours: @level=x", "}\n"},
        {"markup: a=<", "markup", ",\"a\":\"\\u003c\"}\n"},
        {"many: a=1 b=1 c=1 d=1 e=1 f=1 g=1 h=1 i=1 j=1 k=1 l=1 m=1 n=1 o=1 p=1 q=1",
         "many: a=1 b=1 c=1 d=1 e=1 f=1 g=1 h=1 i=1 j=1 k=1 l=1 m=1 n=1 o=1 p=1 q=1", "}\n"},
    };
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/agent/monitor?logjson HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for_followers(fixture, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char message[256];

        (void)snprintf(message, sizeof(message),
                       "{\"@level\":\"warn\",\"@message\":\"%s\",\"@module\":\"test\",",
                       cases[i].message);
        log_write(LOG_WARN, "test", "%s", cases[i].text);
        client_expect(fixture, &client, message, 1);
        client_expect(fixture, &client, "}\n", (unsigned)i + 1);
        const char *line = strstr(client.data, message);
        const char *time = line == NULL ? NULL : strstr(line, "\"@timestamp\":\"");
        const char *members = time == NULL ? NULL : strchr(time + strlen("\"@timestamp\":\""), '"');

        if (members == NULL ||
            strncmp(members + 1, cases[i].members, strlen(cases[i].members)) != 0) {
            fail_msg("%s: %s", cases[i].text, client.data);
        }
    }
    client_close(&client);
    wait_for_followers(fixture, 0);
}

/* --- the metrics --- */

#define STREAM "GET /v1/agent/metrics/stream HTTP/1.1\r\nHost: x\r\n\r\n"

static size_t stream_count(const struct http_fixture *fixture)
{
    const struct http_follow *follow;
    size_t count = 0;

    TAILQ_FOREACH(follow, &fixture->server.http->follows, entry)
    {
        count += follow->metrics ? 1 : 0;
    }
    return count;
}

static void wait_for_streams(struct http_fixture *fixture, size_t count)
{
    turn_until(fixture, stream_count(fixture) == count);
}

static void stream(struct http_fixture *fixture, struct client *client, const char *request)
{
    client_open(fixture, client);
    client_send(fixture, client, request);
}

/* As many metrics as there can be: a line of them is longer than what may be left unread. */
static void with_many_metrics(struct http_fixture *fixture)
{
    const struct metrics_options options = {.prefix = "consul", .filter_default = true};
    char name[METRICS_NAME_BYTES_MAX];

    assert_int_equal(metrics_new(&options, 0, &fixture->server.metrics), 0);
    for (int i = METRICS_FIXED; i < METRICS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "%0120d", i);
        metrics_sample(fixture->server.metrics,
                       metrics_add(fixture->server.metrics, METRIC_SAMPLE, name, "One of many"),
                       i / 7.0);
    }
}

static void without_metrics(struct http_fixture *fixture)
{
    metrics_free(fixture->server.metrics);
    fixture->server.metrics = NULL;
}

static void each_interval_is_a_line_of_json(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client, old, log;

    stream(fixture, &client, STREAM);
    stream(fixture, &old, "GET /v1/agent/metrics/stream HTTP/1.0\r\n\r\n");
    follow(fixture, &log);
    wait_for_streams(fixture, 2);
    wait_for_followers(fixture, 1);
    client_expect(fixture, &client, "Content-Type: application/json\r\n", 1);
    client_expect(fixture, &client, "Transfer-Encoding: chunked\r\n\r\n", 1);
    client_expect(fixture, &old, "Connection: close\r\n\r\n", 1);
    for (unsigned i = 1; i <= 3; i++) {
        http_metrics_turned(fixture->server.http);
        client_expect(fixture, &client, "\r\n{\"Timestamp\":\"\",", i);
        client_expect(fixture, &client, "\"Samples\":[]}\n\r\n", i);
        client_expect(fixture, &old, "\"Samples\":[]}\n", i);
    }
    assert_null(strstr(old.data, "]}\n\r\n"));
    client_read(&log);
    assert_null(strstr(log.data, "Timestamp"));
    client_close(&client);
    client_close(&old);
    client_close(&log);
    wait_for_streams(fixture, 0);
}

static void who_does_not_read_the_metrics_is_cut_off_and_others_get_all_of_them(void **state)
{
    enum { LINES_MAX = 1024 }; /* more than any socket's buffers hold */
    struct http_fixture *fixture = *state;
    struct client reader, stalled;

    with_many_metrics(fixture);
    stream(fixture, &reader, STREAM);
    stream(fixture, &stalled, STREAM);
    wait_for_streams(fixture, 2);
    for (int i = 0; i < LINES_MAX && stream_count(fixture) == 2; i++) {
        reader.size = 0;
        http_metrics_turned(fixture->server.http);
        client_expect(fixture, &reader, "]}\n\r\n", 1);
        assert_in_range(reader.size, 256 * 1024, SIZE_MAX);
        assert_in_range(unsent_bytes(fixture), 0, 1024 * 1024);
    }
    wait_for_streams(fixture, 1);
    client_expect_close(fixture, &stalled);
    assert_null(strstr(stalled.data, "\r\n0\r\n\r\n"));
    client_close(&reader);
    client_close(&stalled);
    wait_for_streams(fixture, 0);
    without_metrics(fixture);
}

static void only_so_many_may_follow_the_metrics(void **state)
{
    enum { CLIENTS = 64 };
    struct http_fixture *fixture = *state;
    struct client clients[CLIENTS], last;

    for (size_t i = 0; i < CLIENTS; i++) {
        stream(fixture, &clients[i], STREAM);
    }
    wait_for_streams(fixture, CLIENTS);
    stream(fixture, &last, STREAM);
    client_expect(fixture, &last, "HTTP/1.1 503 Service Unavailable\r\n", 1);
    client_expect(fixture, &last, "too many clients follow the metrics (limit: 64)", 1);
    client_close(&last);
    for (size_t i = 0; i < CLIENTS; i++) {
        client_close(&clients[i]);
    }
    wait_for_streams(fixture, 0);
}

static void on_drained(void *context)
{
    *(bool *)context = true;
}

static void metrics_end_in_order_when_the_server_stops(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;
    bool drained = false;

    stream(fixture, &client, STREAM);
    wait_for_streams(fixture, 1);
    http_server_drain(fixture->server.http, 60000, on_drained, &drained);
    client_expect(fixture, &client, "\r\n0\r\n\r\n", 1);
    client_expect_close(fixture, &client);
    turn_until(fixture, drained);
    assert_int_equal(stream_count(fixture), 0);
    client_close(&client);
}

static int monitor_setup(void **state)
{
    log_level_set(LOG_ERROR);
    return setup(state);
}

static int monitor_teardown(void **state)
{
    struct http_fixture *fixture = *state;

    monitor_free(fixture->server.monitor);
    fixture->server.monitor = NULL;
    return teardown(state);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, monitor_setup, monitor_teardown)
    const struct CMUnitTest tests[] = {
        TEST(who_does_not_read_is_cut_off_and_others_follow_on),
        TEST(clients_may_go_while_they_are_told),
        TEST(who_has_ended_its_side_does_not_follow),
        TEST(each_status_has_its_reason),
        TEST(the_log_of_a_server_without_token_is_nobodys),
        TEST(what_a_stranger_wrote_stays_within_its_line),
        TEST(in_json_pairs_are_members_and_all_else_is_the_message),
        TEST(each_interval_is_a_line_of_json),
        TEST(who_does_not_read_the_metrics_is_cut_off_and_others_get_all_of_them),
        TEST(only_so_many_may_follow_the_metrics),
        TEST(metrics_end_in_order_when_the_server_stops),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
