/* How many requests pass: buckets that nothing fills again, so that no clock decides. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/http_client.h"

#define GET_KEY "GET /v1/kv/a"
#define PUT_KEY "PUT /v1/kv/a"
#define GET_EVENTS "GET /v1/event/list"
#define ELSEWHERE "rate limit exceeded, try again later or against a different server"
#define LATER                                                                                      \
    "rate limit exceeded for operation that can only be performed by the leader, try again later"

static const struct config_rate two = {.limited = true, .per_second = 0, .burst = 2};

/* One request on a connection of its own, and how its answer begins. */
static void expect(struct http_fixture *fixture, const char *what, int status, const char *text)
{
    struct client client;
    char request[256];
    char line[32];

    (void)snprintf(request, sizeof(request),
                   "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                   what);
    (void)snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    client_open(fixture, &client);
    client_send(fixture, &client, request);
    client_expect_close(fixture, &client);
    assert_non_null(client.data);
    if (strncmp(client.data, line, strlen(line)) != 0 || strstr(client.data, text) == NULL) {
        fail_msg("%s: \"%s\"", what, client.data);
    }
    client_close(&client);
}

static void nothing_is_limited_by_itself(void **state)
{
    for (int i = 0; i < 20; i++) {
        expect(*state, PUT_KEY, 200, "true");
        expect(*state, GET_KEY, 200, "LockIndex");
    }
}

static void reads_and_writes_are_limited_each_by_its_own_rate(void **state)
{
    struct http_fixture *fixture = *state;

    fixture->config.read_rate = fixture->config.write_rate = two;
    fixture->config.request_limits_enforced = true;
    expect(fixture, PUT_KEY, 200, "true");
    expect(fixture, PUT_KEY, 200, "true");
    expect(fixture, PUT_KEY, 503, LATER); /* Nobody but this leader could do it. */
    expect(fixture, GET_KEY, 200, "LockIndex");
    expect(fixture, GET_KEY, 200, "LockIndex");
    expect(fixture, GET_KEY, 429, ELSEWHERE);
    expect(fixture, "DELETE /v1/kv/a", 503, LATER);
    fixture->replica.failure = "No cluster leader";
    expect(fixture, PUT_KEY, 429, ELSEWHERE); /* Not the leader. */
    fixture->replica.failure = NULL;
    expect(fixture, GET_EVENTS, 200, "[]"); /* The agent's own. */
    expect(fixture, "GET /", 200, "Consul Agent");
}

static void what_is_permissive_lets_all_pass(void **state)
{
    struct http_fixture *fixture = *state;

    fixture->config.read_rate = fixture->config.write_rate = two;
    for (int i = 0; i < 5; i++) {
        expect(fixture, PUT_KEY, 200, "true");
        expect(fixture, GET_KEY, 200, "LockIndex");
    }
}

static void rpc_rate_counts_reads_and_writes_together(void **state)
{
    struct http_fixture *fixture = *state;

    fixture->config.rpc_rate = two;
    expect(fixture, PUT_KEY, 200, "true");
    expect(fixture, GET_KEY, 200, "LockIndex");
    expect(fixture, PUT_KEY, 429, "Content-Length: 0\r\n");
    expect(fixture, GET_KEY, 429, "Content-Length: 0\r\n");
    expect(fixture, GET_EVENTS, 200, "[]");
}

static void a_changed_limit_counts_at_once(void **state)
{
    struct http_fixture *fixture = *state;

    fixture->config.rpc_rate = two;
    fixture->config.rpc_rate.burst = 0;
    expect(fixture, GET_KEY, 429, "");
    fixture->config.rpc_rate.per_second = 1e9;
    fixture->config.rpc_rate.burst = 2; /* Filled again within a few nanoseconds. */
    expect(fixture, GET_KEY, 404, "");
    fixture->config.rpc_rate = (struct config_rate){0};
    for (int i = 0; i < 5; i++) {
        expect(fixture, GET_KEY, 404, "");
    }
    fixture->config.rpc_rate = two;
    expect(fixture, GET_KEY, 404, "");
    expect(fixture, GET_KEY, 404, "");
    expect(fixture, GET_KEY, 429, "");
}

static void who_has_no_token_uses_up_nobodys_share(void **state)
{
    struct http_fixture *fixture = *state;
    char secret[] = "secret";

    fixture->config.acl_enabled = true;
    fixture->config.acl_token = secret;
    fixture->config.rpc_rate = two;
    for (int i = 0; i < 5; i++) {
        expect(fixture, PUT_KEY, 403, "Permission denied");
        expect(fixture, GET_KEY "?token=wrong", 403, "ACL not found");
    }
    expect(fixture, PUT_KEY "?token=secret", 200, "true");
    expect(fixture, GET_KEY "?token=secret", 200, "LockIndex");
    expect(fixture, GET_KEY "?token=secret", 429, "");
    fixture->config.acl_enabled = false;
    fixture->config.acl_token = NULL;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_limited_by_itself),
        TEST(reads_and_writes_are_limited_each_by_its_own_rate),
        TEST(what_is_permissive_lets_all_pass),
        TEST(rpc_rate_counts_reads_and_writes_together),
        TEST(a_changed_limit_counts_at_once),
        TEST(who_has_no_token_uses_up_nobodys_share),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
