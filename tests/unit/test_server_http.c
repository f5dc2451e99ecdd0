/* The HTTP server over a socket: framing, order of answers, limits, blocking queries and what
 * happens when clients go away or the server stops. What Consul answers on each endpoint is held by
 * the conformance suite; here stands what it does not see. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/resource.h>

#include "tests/unit/http_client.h"

/* --- request smuggling: one head, one reading --- */

/* What a proxy before us might have read differently is refused, and nothing behind it in the same
 * bytes is taken for a request of its own. */
static void test_ambiguous_framing_is_refused(void **state)
{
    static const struct {
        const char *name, *request;
        int status;
    } cases[] = {
        {"CL and TE",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400},
        {"TE and CL",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
         "Content-Length: 4\r\n\r\n0\r\n\r\n",
         400},
        {"two equal CL",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
         "Content-Length: 1\r\n\r\na",
         400},
        {"two different CL",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
         "Content-Length: 2\r\n\r\nab",
         400},
        {"CL list", "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\na", 400},
        {"negative CL", "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
        {"CL with plus", "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
         400},
        {"CL in hex", "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\na", 400},
        {"CL of 2^64",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
         "Content-Length: 18446744073709551616\r\n\r\n",
         400},
        {"empty CL", "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n", 400},
        {"xchunked", "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
         501},
        {"chunked twice",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         501},
        {"identity, chunked",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
         "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
         501},
        {"chunked, identity",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
         "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
         501},
        {"vertical tab before chunked",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
         "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n",
         501},
        {"blank before colon", "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\na",
         400},
        {"blank before a name", "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n Content-Length: 1\r\n\r\na",
         400},
        {"blank before the first name", "PUT /v1/kv/a HTTP/1.1\r\n Host: x\r\n\r\n", 400},
        {"folded line", "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400},
        {"CR without LF", "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 1\r\n\r\na",
         400},
        {"CR CR LF at the end", "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\r\n\r\n", 400},
        {"no colon", "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n", 400},
        {"two hosts", "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
        {"no host", "GET /v1/kv/a HTTP/1.1\r\n\r\n", 400},
        {"chunked in HTTP/1.0",
         "PUT /v1/kv/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
         "0\r\n\r\n",
         400},
        {"HTTP/0.9", "GET /v1/kv/a\r\n\r\n", 400},
        {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
        {"two blanks", "GET  /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"tab for blank", "GET\t/v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"bad escape", "GET /v1/kv/%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"bad chunk size",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
         "zz\r\n",
         400},
        {"chunk longer than said",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
         "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
         400},
        {"chunk size with 0x",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
         400},
        {"chunk size overflow",
         "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
         "\r\n11111111111111111\r\na\r\n0\r\n\r\n",
         400},
    };
    static const char follow[] = "GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n";
    struct http_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client client;
        char line[32];

        client_open(fixture, &client);
        client_send(fixture, &client, cases[i].request);
        client_send(fixture, &client, follow);
        client_expect_close(fixture, &client);
        (void)snprintf(line, sizeof(line), "HTTP/1.1 %d ", cases[i].status);
        if (count_text(&client, line) != 1 || count_text(&client, "HTTP/1.1 ") != 1 ||
            count_text(&client, "Connection: close\r\n") != 1) {
            fail_msg("%s: \"%s\"", cases[i].name, client.data == NULL ? "" : client.data);
        }
        client_close(&client);
    }
    assert_int_equal(fixture->replica.index, 1); /* Nothing but the fixture's node was written. */
}

static void test_nul_in_a_header_is_refused(void **state)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n";
    struct client client;

    client_open(*state, &client);
    client_send_bytes(*state, &client, request, sizeof(request) - 1);
    client_expect_close(*state, &client);
    assert_int_equal(count_text(&client, "HTTP/1.1 400 "), 1);
    client_close(&client);
}

/* --- order and keep-alive --- */

/* Answers go out in order, so what is behind a sleeping query waits for it. */
static void test_pipelined_requests_wait_for_a_parked_one(void **state)
{
    struct http_fixture *fixture = *state;
    struct client waiter;
    struct client writer;

    client_open(fixture, &waiter);
    client_open(fixture, &writer);
    client_send(fixture, &writer, "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1");
    client_expect(fixture, &writer, "true", 1);
    client_send(fixture, &waiter,
                "GET /v1/kv/k?raw&index=2&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n"
                "GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n"
                "PUT /v1/kv/l HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab");
    turn_until(fixture, watch_table_count(fixture->server.watches) == 1);
    client_read(&waiter);
    assert_int_equal(waiter.size, 0);
    client_send(fixture, &writer, "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n2");
    client_expect(fixture, &waiter, "\"127.0.0.1:8300\"", 1);
    client_send(fixture, &waiter, "c");
    client_expect(fixture, &waiter, "true", 1);
    assert_true(strstr(waiter.data, "\r\n\r\n2HTTP") < strstr(waiter.data, "127.0.0.1:8300"));
    client_close(&waiter);
    client_close(&writer);
}

static void test_a_request_may_come_byte_by_byte(void **state)
{
    static const char request[] = "PUT /v1/kv/bytes HTTP/1.1\r\nHost: x\r\n"
                                  "Transfer-Encoding: chunked\r\n\r\n"
                                  "4;x=y\r\nwiki\r\n5\r\npedia\r\n0\r\nT: u\r\n\r\n"
                                  "GET /v1/kv/bytes?raw HTTP/1.1\nHost: x\n\n";
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        client_send_bytes(fixture, &client, request + i, 1);
        loop_turn(fixture);
    }
    client_expect(fixture, &client, "wikipedia", 1);
    client_close(&client);
}

static void test_unwanted_bodies_do_not_spoil_the_connection(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client,
                "POST /v1/status/leader HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                "5\r\nGET /\r\n0\r\n\r\n"
                "GET /v1/status/leader HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"
                "GET /v1/x HTTP/1.1\r\n"
                "GET /v1/status/peers HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &client, "[\"127.0.0.1:8300\"]", 1);
    assert_int_equal(count_text(&client, "HTTP/1.1 "), 3);
    assert_int_equal(count_text(&client, "HTTP/1.1 405 "), 1);
    client_close(&client);
}

/* --- limits --- */

/* Consul 1.8 looked at Content-Length alone (CVE-2025-11374). */
static void test_chunked_bodies_are_limited_by_what_arrives(void **state)
{
    enum { CHUNK_BYTES = 0x8000 };
    struct http_fixture *fixture = *state;
    struct client client;
    char *chunk = malloc(CHUNK_BYTES + 16);

    assert_non_null(chunk);
    const int head = sprintf(chunk, "%x\r\n", CHUNK_BYTES);

    memset(chunk + head, 'x', CHUNK_BYTES);
    memcpy(chunk + head + CHUNK_BYTES, "\r\n", 2);
    client_open(fixture, &client);
    client_send(fixture, &client,
                "PUT /v1/kv/big HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 17; i++) {
        client_send_bytes(fixture, &client, chunk, (size_t)head + CHUNK_BYTES + 2);
    }
    client_expect_close(fixture, &client);
    assert_int_equal(count_text(&client, "HTTP/1.1 413 "), 1);
    assert_int_equal(count_text(&client, "too large, max size: 524288 bytes. See"), 1);
    assert_int_equal(fixture->replica.index, 1);
    free(chunk);
    client_close(&client);
}

/* Archives to restore are large: few are in memory at once, however many clients send one. */
static void test_few_archives_are_taken_in_at_once(void **state)
{
    struct http_fixture *fixture = *state;
    const char *head = "PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    const char *empty = "PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    struct client senders[HTTP_ARCHIVES_MAX], late, body;

    for (size_t i = 0; i < HTTP_ARCHIVES_MAX; i++) {
        client_open(fixture, &senders[i]);
        client_send(fixture, &senders[i], head);
    }
    turn_until(fixture, fixture->server.http->archives == HTTP_ARCHIVES_MAX);
    client_open(fixture, &late);
    client_send(fixture, &late, empty);
    client_expect(fixture, &late, "HTTP/1.1 503 ", 1);
    client_expect(fixture, &late, "\r\nRetry-After: 5\r\n", 1);
    client_send(fixture, &late, "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &late, "HTTP/1.1 404 ", 1);

    /* A place is free when its client goes amid the body, */
    client_close(&senders[0]);
    turn_until(fixture, fixture->server.http->archives < HTTP_ARCHIVES_MAX);
    /* and after an answer; here everything that the fixture is asked for is a 404. */
    for (unsigned i = 1; i <= 2 * HTTP_ARCHIVES_MAX; i++) {
        client_open(fixture, &body);
        client_send(fixture, &body, empty);
        client_expect(fixture, &body, "HTTP/1.1 404 ", 1);
        client_close(&body);
    }
    for (size_t i = 1; i < HTTP_ARCHIVES_MAX; i++) {
        client_close(&senders[i]);
    }
    client_close(&late);
    turn_until(fixture, fixture->server.http->archives == 0);
}

/* What waits for the next batch is bounded in bytes: a name as long as a body is no node's. */
static void test_coordinates_of_impossible_names_are_not_kept(void **state)
{
    struct http_fixture *fixture = *state;
    const size_t name_bytes = 500 * 1000;
    struct buffer body = {0}, request = {0};
    struct client client;

    buffer_append_text(&body, "{\"Node\":\"");
    memset(buffer_reserve(&body, name_bytes), 'n', name_bytes);
    body.size += name_bytes;
    buffer_append_text(&body, "\",\"Coord\":{\"Vec\":[0,0,0,0,0,0,0,0]}}");
    buffer_printf(&request,
                  "PUT /v1/coordinate/update HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                  body.size);
    buffer_append_slice(&request, buffer_slice(&body));
    client_open(fixture, &client);
    client_send_bytes(fixture, &client, request.data, request.size);
    client_expect(fixture, &client, "HTTP/1.1 200 ", 1);
    assert_null(fixture->server.http->coordinates);
    client_close(&client);
    buffer_deinit(&body);
    buffer_deinit(&request);
}

static void test_heads_are_limited(void **state)
{
    static const char line[] = "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n";
    struct http_fixture *fixture = *state;
    char filler[1024];
    struct client client;

    memset(filler, 'y', sizeof(filler));
    /* Without end. */
    client_open(fixture, &client);
    client_send(fixture, &client, line);
    client_send(fixture, &client, "A: ");
    for (int i = 0; i < 140; i++) {
        client_send_bytes(fixture, &client, filler, sizeof(filler));
    }
    client_expect_close(fixture, &client);
    assert_int_equal(count_text(&client, "HTTP/1.1 431 "), 1);
    client_close(&client);
    /* Too many. */
    client_open(fixture, &client);
    client_send(fixture, &client, line);
    for (int i = 0; i <= HTTP_HEADERS_COUNT_MAX; i++) {
        client_send(fixture, &client, "A: b\r\n");
    }
    client_send(fixture, &client, "\r\n");
    client_expect_close(fixture, &client);
    assert_int_equal(count_text(&client, "HTTP/1.1 431 "), 1);
    client_close(&client);
    /* A target beyond its limit. */
    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/");
    for (int i = 0; i < 65; i++) {
        client_send_bytes(fixture, &client, filler, sizeof(filler));
    }
    client_send(fixture, &client, " HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect_close(fixture, &client);
    assert_int_equal(count_text(&client, "HTTP/1.1 414 "), 1);
    client_close(&client);
}

static void test_too_many_connections_of_one_client_are_told(void **state)
{
    struct http_fixture *fixture = *state;
    struct client clients[3];
    struct client extra;

    fixture->config.http_conns_per_client_max = 3;
    for (size_t i = 0; i < 3; i++) {
        client_open(fixture, &clients[i]);
        client_send(fixture, &clients[i], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        client_expect(fixture, &clients[i], "Consul Agent", 1);
    }
    client_open(fixture, &extra);
    client_expect_close(fixture, &extra);
    assert_int_equal(count_text(&extra, "HTTP/1.1 429 "), 1);
    assert_int_equal(count_text(&extra, "Your IP is issuing too many concurrent connections"), 1);
    client_close(&extra);
    client_close(&clients[0]);
    turn_until(fixture, fixture->server.http->conn_count == 2);
    client_open(fixture, &clients[0]);
    client_send(fixture, &clients[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &clients[0], "Consul Agent", 1);
    for (size_t i = 0; i < 3; i++) {
        client_close(&clients[i]);
    }
}

/* Without descriptors connections are shed; with some again they are served. */
static void test_running_out_of_descriptors_is_survived(void **state)
{
    struct http_fixture *fixture = *state;
    struct client clients[8];
    struct client late;
    struct rlimit limit;

    client_open(fixture, &clients[0]); /* Highest descriptor so far, more or less. */
    client_send(fixture, &clients[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &clients[0], "Consul Agent", 1);
    for (size_t i = 1; i < 8; i++) {
        client_open(fixture, &clients[i]);
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const struct rlimit low = {.rlim_cur = (rlim_t)clients[7].fd + 1, .rlim_max = limit.rlim_max};

    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    client_expect_close(fixture, &clients[7]); /* Shed, or this tests nothing. */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    client_send(fixture, &clients[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &clients[0], "Consul Agent", 2);
    client_open(fixture, &late);
    client_send(fixture, &late, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &late, "Consul Agent", 1);
    client_close(&late);
    for (size_t i = 0; i < 8; i++) {
        client_close(&clients[i]);
    }
}

/* As many requests as the kernel takes. */
static void send_ahead(const struct client *client)
{
    static const char more[] = "GET /v1/status/leader HTTP/1.1\r\nHost: x\r\n\r\n";

    while (send(client->fd, more, sizeof(more) - 1, MSG_NOSIGNAL) > 0) {
    }
}

/* What a client sends ahead of its answers is bounded: the rest stays in its own kernel. */
static void test_pipelining_is_bounded(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client,
                "GET /v1/kv/none?index=1000000&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n");
    turn_until(fixture, watch_table_count(fixture->server.watches) == 1);
    const struct http_conn *conn = fixture->server.http->conns;

    assert_non_null(conn);
    turn_until(fixture, (send_ahead(&client), conn->paused));
    send_ahead(&client);
    turns(fixture, 20);
    assert_true(conn->paused);
    assert_true(conn->ahead.size + conn->in.size <= HTTP_PIPELINE_BYTES_MAX + 2 * HTTP_READ_BYTES);
    client_close(&client);
}

/* --- clients that go away --- */

static void test_a_vanished_client_leaves_no_waiter(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/w?index=1000&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n");
    turn_until(fixture, watch_table_count(fixture->server.watches) == 1);
    client_close(&client);
    turn_until(fixture, fixture->server.http->conn_count == 0);
    assert_int_equal(watch_table_count(fixture->server.watches), 0);
}

static void test_a_reset_connection_leaves_no_waiter(void **state)
{
    struct http_fixture *fixture = *state;
    const struct linger reset = {.l_onoff = 1};
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/?recurse&index=1000 HTTP/1.1\r\nHost: x\r\n\r\n");
    turn_until(fixture, watch_table_count(fixture->server.watches) == 1);
    assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    client_close(&client);
    turn_until(fixture, fixture->server.http->conn_count == 0);
    assert_int_equal(watch_table_count(fixture->server.watches), 0);
}

/* Found by fuzzing: its connection was kept for an answer that nobody owed. */
static void test_a_client_may_leave_amid_its_body(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client, "PUT /v1/kv/w HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1");
    turn_until(fixture, fixture->server.http->conns != NULL &&
                            fixture->server.http->conns->state == HTTP_CONN_BODY);
    client_close(&client);
    turn_until(fixture, fixture->server.http->conn_count == 0);
    assert_int_equal(fixture->replica.index, 1);
}

/* The write goes on; only nobody hears of it. Its connection lives until the outcome is known. */
static void test_a_client_may_leave_during_its_write(void **state)
{
    struct http_fixture *fixture = *state;
    const struct linger reset = {.l_onoff = 1};
    struct client client;

    fixture->replica.hold = true;
    client_open(fixture, &client);
    client_send(fixture, &client, "PUT /v1/kv/w HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1");
    turn_until(fixture, fixture->replica.first != NULL);
    assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    client_close(&client);
    turns(fixture, 20);
    assert_int_equal(fixture->server.http->conn_count, 1);
    fake_turn(&fixture->replica.turn);
    turn_until(fixture, fixture->server.http->conn_count == 0);
    assert_int_equal(fixture->replica.index, 2);
}

static void test_a_read_that_nobody_waits_for_is_withdrawn(void **state)
{
    struct http_fixture *fixture = *state;
    const struct linger reset = {.l_onoff = 1};
    struct client client;

    fixture->replica.hold = true;
    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/w HTTP/1.1\r\nHost: x\r\n\r\n");
    turn_until(fixture, fixture->replica.reads != NULL);
    assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    client_close(&client);
    turn_until(fixture, fixture->server.http->conn_count == 0);
    assert_null(fixture->replica.reads);
    assert_int_equal(fixture->replica.withdrawn, 1);
}

/* --- errors of the replica --- */

static void test_without_a_leader_reads_and_writes_fail_and_stale_goes_on(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    fixture->replica.failure = "No cluster leader";
    client_open(fixture, &client);
    client_send(fixture, &client,
                "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n"
                "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
                "GET /v1/kv/a?stale HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &client, "HTTP/1.1 404", 1);
    assert_int_equal(count_text(&client, "\r\n\r\nNo cluster leader"), 2);
    assert_int_equal(count_text(&client, "HTTP/1.1 500 Internal Server Error"), 2);
    assert_int_equal(count_text(&client, "X-Consul-Knownleader: false"), 1);
    client_close(&client);
}

/* The end of a wait proves nothing: who has lost the leader meanwhile must not answer. */
static void test_a_wait_that_ends_without_a_leader_is_an_error(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/a?index=99&wait=50ms HTTP/1.1\r\nHost: x\r\n\r\n");
    /* Its time cannot be over in the turn in which it falls asleep. */
    turn_until(fixture, watch_table_count(fixture->server.watches) == 1);
    fixture->replica.failure = "No cluster leader";
    client_expect(fixture, &client, "No cluster leader", 1);
    client_close(&client);
}

/* --- slow readers, large answers --- */

static void test_a_large_answer_arrives_whole(void **state)
{
    enum { VALUE_BYTES = 500 * 1024, VALUES = 12 };
    struct http_fixture *fixture = *state;
    char *value = malloc(VALUE_BYTES);
    struct client client;
    char head[128];

    assert_non_null(value);
    memset(value, 'v', VALUE_BYTES);
    client_open(fixture, &client);
    for (int i = 0; i < VALUES; i++) {
        (void)snprintf(head, sizeof(head),
                       "PUT /v1/kv/large/%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", i,
                       VALUE_BYTES);
        client_send(fixture, &client, head);
        client_send_bytes(fixture, &client, value, VALUE_BYTES);
        client_expect(fixture, &client, "true", (unsigned)i + 1);
    }
    free(value);
    client_send(fixture, &client,
                "GET /v1/kv/large/?recurse HTTP/1.1\r\nHost: x\r\n\r\n"
                "GET /v1/status/peers HTTP/1.1\r\nHost: x\r\n\r\n");
    turns(fixture, 50); /* The client reads nothing for a while. */
    client_expect(fixture, &client, "[\"127.0.0.1:8300\"]", 1);
    assert_int_equal(count_text(&client, "\"Key\":\"large/"), VALUES);
    client_close(&client);
}

/* --- stopping --- */

static void on_drained(void *context)
{
    *(bool *)context = true;
}

static void test_draining_answers_what_is_there_and_closes(void **state)
{
    struct http_fixture *fixture = *state;
    struct client idle;
    struct client waiter;
    struct client writer;
    bool drained = false;

    client_open(fixture, &idle);
    client_open(fixture, &waiter);
    client_open(fixture, &writer);
    client_send(fixture, &waiter, "GET /v1/kv/w?index=1000&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n");
    turn_until(fixture, watch_table_count(fixture->server.watches) == 1);
    fixture->replica.hold = true;
    client_send(fixture, &writer, "PUT /v1/kv/w HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1");
    turn_until(fixture, fixture->replica.first != NULL);
    http_server_drain(fixture->server.http, 60000, on_drained, &drained);
    client_expect_close(fixture, &idle);
    client_expect_close(fixture, &waiter);
    assert_int_equal(count_text(&waiter, "HTTP/1.1 404 "), 1);
    turns(fixture, 30);
    assert_false(drained); /* The write is still under way. */
    fake_turn(&fixture->replica.turn);
    client_expect(fixture, &writer, "true", 1);
    turn_until(fixture, drained);
    client_close(&idle);
    client_close(&waiter);
    client_close(&writer);
}

/* --- memory of waiters --- */

/* Goal: 1 KiB over the socket's own, for a waiter. */
static void test_a_parked_connection_is_small(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client,
                "GET /v1/kv/service/batman/leader?index=1000&wait=600s HTTP/1.1\r\nHost: x\r\n"
                "User-Agent: Patroni/4.1.4 Python/3.11.2 Linux\r\nContent-Length: 0\r\n\r\n");
    turn_until(fixture, watch_table_count(fixture->server.watches) == 1);
    const struct http_conn *conn = fixture->server.http->conns;

    assert_int_equal(conn->private.phase, HTTP_PHASE_PARKED);
    assert_int_equal(conn->in.capacity + conn->ahead.capacity, 0);
    assert_int_equal(conn->private.headers.capacity, 0);
    assert_in_range(sizeof(*conn) - sizeof(conn->tcp) + conn->private.text_bytes, 1, 1024 + 64);
    client_close(&client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_ambiguous_framing_is_refused),
        TEST(test_nul_in_a_header_is_refused),
        TEST(test_pipelined_requests_wait_for_a_parked_one),
        TEST(test_a_request_may_come_byte_by_byte),
        TEST(test_unwanted_bodies_do_not_spoil_the_connection),
        TEST(test_chunked_bodies_are_limited_by_what_arrives),
        TEST(test_few_archives_are_taken_in_at_once),
        TEST(test_coordinates_of_impossible_names_are_not_kept),
        TEST(test_heads_are_limited),
        TEST(test_too_many_connections_of_one_client_are_told),
        TEST(test_running_out_of_descriptors_is_survived),
        TEST(test_pipelining_is_bounded),
        TEST(test_a_vanished_client_leaves_no_waiter),
        TEST(test_a_reset_connection_leaves_no_waiter),
        TEST(test_a_client_may_leave_amid_its_body),
        TEST(test_a_client_may_leave_during_its_write),
        TEST(test_a_read_that_nobody_waits_for_is_withdrawn),
        TEST(test_without_a_leader_reads_and_writes_fail_and_stale_goes_on),
        TEST(test_a_wait_that_ends_without_a_leader_is_an_error),
        TEST(test_a_large_answer_arrives_whole),
        TEST(test_draining_answers_what_is_there_and_closes),
        TEST(test_a_parked_connection_is_small),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
