/* A reload that fails half-way leaves the agent's services and checks as they were. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/agent_fixture.h"

static int setup(void **state)
{
    struct fixture *fixture = fixture_new();

    fixture->http.config.services = json_pack("[{s:s}, {s:s}]", "name", "old", "name", "in both");
    fixture->http.config.checks = json_pack("[{s:s, s:s}]", "name", "old check", "ttl", "10s");
    agent_open(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_free(*state);
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
