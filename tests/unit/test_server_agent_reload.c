/* A reload that fails half-way leaves the agent's services and checks as they were. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/agent/agent_internal.h"
#include "server/gossip/membership.h"
#include "tests/unit/http_fixture.h"

/* --- membership of this server alone --- */

struct membership {
    struct member self;
};

size_t membership_count(const struct membership *membership)
{
    (void)membership;
    return 1;
}

const struct member *membership_at(const struct membership *membership, size_t position)
{
    (void)position;
    return &membership->self;
}

const struct member *membership_find(const struct membership *membership, const struct uuid *id)
{
    return uuid_equal(&membership->self.id, id) ? &membership->self : NULL;
}

void membership_join(struct membership *membership, const char *address,
                     void (*done)(void *context, const char *failure), void *context)
{
    (void)membership;
    (void)address;
    done(context, "refused");
}

struct fixture {
    struct http_fixture http;
    struct membership membership;
    struct agent *agent;
};

static int setup(void **state)
{
    static char address[] = "10.0.0.1";
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct errmsg err = {""};

    assert_non_null(fixture);
    http_fixture_open(&fixture->http, 0);
    fixture->http.config.advertise_addr = address;
    fixture->membership.self = (struct member){.name = "node1",
                                               .address = "10.0.0.1",
                                               .server_port = 8300,
                                               .status = MEMBER_ALIVE,
                                               .self = true};
    fixture->http.server.membership = &fixture->membership;
    fixture->http.config.services = json_pack("[{s:s}, {s:s}]", "name", "old", "name", "in both");
    fixture->http.config.checks = json_pack("[{s:s, s:s}]", "name", "old check", "ttl", "10s");
    assert_int_equal(agent_new(&fixture->http.server, &fixture->agent, &err), AGENT_OK);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    agent_free(fixture->agent);
    for (int i = 0; i < 20 || fixture->http.loop.active_reqs.count > 0; i++) {
        (void)uv_run(&fixture->http.loop, UV_RUN_NOWAIT);
    }
    http_fixture_close(&fixture->http);
    json_decref(fixture->http.config.services);
    json_decref(fixture->http.config.checks);
    free(fixture);
    return 0;
}

/* Symptom: the check without a name ended the reload amid the list, and what came behind it, though
 * defined before and after, was removed; what came before it was there already. */
static void a_failed_reload_leaves_all_as_it_was(void **state)
{
    struct fixture *fixture = *state;
    struct agent *agent = fixture->agent;
    struct config config = fixture->http.config;
    struct errmsg err = {""};

    config.services = json_pack("[{s:s}, {s:s}]", "name", "new", "name", "in both");
    config.checks =
        json_pack("[{s:s}, {s:s, s:s}]", "ttl", "10s", "name", "old check", "ttl", "10s");
    assert_int_equal(agent_reload(agent, &config, &err), AGENT_EINVAL);
    assert_string_equal(err.text, "check definition 1: Missing check name");
    assert_non_null(agent_service_find(agent, SLICE_LITERAL("old")));
    assert_non_null(agent_service_find(agent, SLICE_LITERAL("in both")));
    assert_null(agent_service_find(agent, SLICE_LITERAL("new")));
    assert_non_null(agent_check_find(agent, SLICE_LITERAL("old check")));

    assert_int_equal(
        json_object_set_new(json_array_get(config.checks, 0), "name", json_string("new check")), 0);
    assert_int_equal(agent_reload(agent, &config, &err), AGENT_OK);
    assert_null(agent_service_find(agent, SLICE_LITERAL("old")));
    assert_non_null(agent_service_find(agent, SLICE_LITERAL("in both")));
    assert_non_null(agent_service_find(agent, SLICE_LITERAL("new")));
    assert_non_null(agent_check_find(agent, SLICE_LITERAL("old check")));
    assert_non_null(agent_check_find(agent, SLICE_LITERAL("new check")));
    json_decref(config.services);
    json_decref(config.checks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_failed_reload_leaves_all_as_it_was, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
