/* Clients that end their side after the last request, as `nc -N` does: what they asked for whole is
 * answered in order, whatever it waits for, and the connection ends. Only what sleeps until
 * something happens ends with them, since one that has gone altogether looks the same. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/http_client.h"

#define HEAD_END " HTTP/1.1\r\nHost: x\r\n"
#define GET(path) "GET " path HEAD_END "\r\n"
#define PUT(path, size, value) "PUT " path HEAD_END "Content-Length: " size "\r\n\r\n" value
#define PUT_CHUNKED(path, body) "PUT " path HEAD_END "Transfer-Encoding: chunked\r\n\r\n" body
#define TWICE(text) text text
#define LEADER GET("/v1/status/leader")
#define SLEEPING "?index=1000&wait=600s"

enum {
    LARGE_COUNT = 4,
    LARGE_BYTES = 512 * 1024, /* beyond what a socket takes in one go */
};

struct half_case {
    const char *name; /* with its outcome */
    const char *request;
    const char *answers[6]; /* in this order; beginnings of status lines, or what is in them */
    unsigned count;         /* of answers */
};

static const struct half_case cases[] = {
    {"a read is answered", GET("/v1/kv/small"), {"200 OK", "\"Key\":\"small\""}, 1},
    {"a consistent read is answered", GET("/v1/kv/small?consistent"), {"200 OK"}, 1},
    {"a read of HTTP/1.0 is answered", "GET /v1/kv/small HTTP/1.0\r\n\r\n", {"200 OK"}, 1},
    {"a write is answered", PUT("/v1/kv/a", "1", "1"), {"200 OK", "true"}, 1},
    {"a chunked write is answered",
     PUT_CHUNKED("/v1/kv/a", "1\r\n1\r\n0\r\n\r\n"),
     {"200 OK", "true"},
     1},
    {"a transaction is answered",
     PUT("/v1/txn", "46", "[{\"KV\":{\"Verb\":\"get-or-empty\",\"Key\":\"small\"}}]"),
     {"200 OK", "\"Results\""},
     1},
    {"a session is made and told", PUT("/v1/session/create", "2", "{}"), {"200 OK", "\"ID\""}, 1},
    {"a refusal is told", GET("/v1/kv/"), {"400 Bad Request"}, 1},
    {"an answer larger than the socket's buffer arrives whole",
     GET("/v1/kv/large0?raw"),
     {"200 OK", "last0"},
     1},
    {"a listing that is sent in pieces arrives whole",
     GET("/v1/kv/large?recurse"),
     {"200 OK", "\"large0\"", "\"large3\"", "\r\n0\r\n\r\n"},
     1},
    {"an answer that need not be waited for is given to a blocking query",
     GET("/v1/kv/small?index=1&wait=600s"),
     {"200 OK", "\"Key\":\"small\""},
     1},
    {"requests behind each other are all answered",
     GET("/v1/kv/small") PUT("/v1/kv/a", "1", "2") GET("/v1/kv/a?raw") LEADER,
     {"\"Key\":\"small\"", "true", "\r\n\r\n2", "127.0.0.1:8300"},
     4},
    {"large answers behind each other are all given",
     TWICE(GET("/v1/kv/large0?raw") GET("/v1/kv/large1?raw")) LEADER,
     {"last0", "last1", "last0", "last1", "127.0.0.1:8300"},
     5},
    {"a request behind a body that is not wanted is answered",
     "GET /v1/kv/small" HEAD_END "Content-Length: 3\r\n\r\nabc" LEADER,
     {"200 OK", "127.0.0.1:8300"},
     2},
    {"nothing is answered behind close",
     "GET /v1/kv/small" HEAD_END "Connection: close\r\n\r\n" LEADER,
     {"200 OK", "Connection: close"},
     1},

    /* what is not whole */
    {"half a head is refused", "GET /v1/kv/sm", {"400 Bad Request"}, 1},
    {"half a head behind a request is refused, and the request answered",
     GET("/v1/kv/small") "GET /v1/kv/sm",
     {"200 OK", "400 Bad Request"},
     2},
    {"half a body is refused",
     PUT("/v1/kv/cut", "3", "1") /* two bytes are missing */,
     {"400 Bad Request"},
     1},
    {"a chunked body without its end is refused",
     PUT_CHUNKED("/v1/kv/cut", "1\r\n1\r\n"),
     {"400 Bad Request"},
     1},
    {"half a body that is not wanted costs no answer",
     "GET /v1/kv/small" HEAD_END "Content-Length: 3\r\n\r\na",
     {"200 OK"},
     1},
    {"a body that waits for 100 and does not come is refused",
     "PUT /v1/kv/cut" HEAD_END "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n",
     {"100 Continue", "400 Bad Request"},
     2},
    {"nothing is answered to nothing", "", {NULL}, 0},
    {"an empty line is nothing", "\r\n", {NULL}, 0},

    /* what sleeps */
    {"a blocking query ends", GET("/v1/kv/small" SLEEPING), {NULL}, 0},
    {"a blocking query of a listing ends", GET("/v1/kv/large" SLEEPING "&recurse"), {NULL}, 0},
    {"a blocking query ends, and what was asked before it is answered",
     LEADER GET("/v1/kv/small" SLEEPING) LEADER,
     {"127.0.0.1:8300"},
     1},
};

/* What is held is let go, as when the leader is confirmed. */
static void let_go(struct http_fixture *fixture)
{
    struct replica *replica = &fixture->replica;
    struct replica_freshness freshness;

    replica->hold = false;
    replica_freshness(replica, &freshness);
    while (replica->reads != NULL) {
        struct replica_read *read = replica->reads;

        replica->reads = read->next;
        read->done(read->context, NULL, &freshness);
    }
    fake_turn(&replica->turn);
}

static void assert_outcome(const struct half_case *half, const struct client *client)
{
    const char *at = client->data == NULL ? "" : client->data;
    const char *all = at;

    for (size_t i = 0; i < sizeof(half->answers) / sizeof(half->answers[0]); i++) {
        if (half->answers[i] == NULL) {
            break;
        }
        at = strstr(at, half->answers[i]);
        if (at == NULL) {
            fail_msg("%s: no \"%s\" in its place: \"%.2000s\"", half->name, half->answers[i], all);
            return;
        }
        at += strlen(half->answers[i]);
    }
    if (count_text(client, "HTTP/1.") != half->count) {
        fail_msg("%s: %u answers, not %u: \"%.2000s\"", half->name, count_text(client, "HTTP/1."),
                 half->count, all);
    }
}

static void fill(struct http_fixture *fixture)
{
    char *value = malloc(LARGE_BYTES);
    struct client client;

    assert_non_null(value);
    client_open(fixture, &client);
    client_send(fixture, &client, PUT("/v1/kv/small", "1", "1"));
    for (int i = 0; i < LARGE_COUNT; i++) {
        char text[128];

        memset(value, 'x', LARGE_BYTES);
        const int last = snprintf(text, sizeof(text), "last%d", i);

        memcpy(value + LARGE_BYTES - last, text, (size_t)last);
        (void)snprintf(text, sizeof(text),
                       "PUT /v1/kv/large%d" HEAD_END "Content-Length: %d\r\n\r\n", i, LARGE_BYTES);
        client_send(fixture, &client, text);
        client_send_bytes(fixture, &client, value, LARGE_BYTES);
    }
    client_expect(fixture, &client, "true", LARGE_COUNT + 1);
    client_close(&client);
    free(value);
}

/* `held`: nothing is confirmed or committed before the end has come. `late`: all that can be done
 * was done before it comes. */
static void run(struct http_fixture *fixture, const struct half_case *half, bool held, bool late)
{
    struct client client;

    fixture->replica.hold = held;
    client_open(fixture, &client);
    client_send(fixture, &client, half->request);
    if (late) {
        turns(fixture, 5);
    }
    assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
    turns(fixture, 5);
    let_go(fixture);
    client_expect_close(fixture, &client);
    assert_outcome(half, &client);
    client_close(&client);
    turn_until(fixture, fixture->server.http->conn_count == 0);
    assert_int_equal(watch_table_count(fixture->server.watches), 0);
}

static void each_half_closed_connection_has_one_outcome(void **state)
{
    struct http_fixture *fixture = *state;

    fill(fixture);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int how = 0; how < 4; how++) {
            run(fixture, &cases[i], (how & 1) != 0, (how & 2) != 0);
        }
    }
    /* Nothing was stored of what was cut. */
    struct client client;

    client_open(fixture, &client);
    client_send(fixture, &client, GET("/v1/kv/cut"));
    client_expect(fixture, &client, "404 Not Found", 1);
    client_close(&client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_half_closed_connection_has_one_outcome),
    };

    return cmocka_run_group_tests_name("server http half-closed", tests, NULL, NULL);
}
