/* The agent over a replica that is a store alone (http_fixture.h): what goes into the catalog, what
 * is kept on disk, what wins when they differ, and what the leader does about servers. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/agent_fixture.h"

static const char OTHER_ID[] = "11111111-2222-3333-4444-555555555555";

static int setup(void **state)
{
    struct fixture *fixture = fixture_new();

    strcpy(fixture->data_dir, "/tmp/proconsul-agent-XXXXXX");
    assert_non_null(mkdtemp(fixture->data_dir));
    fixture->http.config.data_dir = fixture->data_dir;
    fixture->http.config.check_update_interval_ms = 300000;
    fixture->membership.count = 2;
    fixture->membership.members[1] = (struct member){
        .name = "node2", .address = "10.0.0.2", .server_port = 8300, .status = MEMBER_ALIVE};
    assert_true(uuid_parse(slice_from_text(OTHER_ID), &fixture->membership.members[1].id));
    agent_open(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_free(*state);
    return 0;
}

/* Runs the loop until nothing of the agent's is out or due. */
static void settle(struct fixture *fixture)
{
    for (int quiet = 0; quiet < 20;) {
        (void)uv_run(&fixture->http.loop, UV_RUN_NOWAIT);
        const bool busy = fixture->agent->proposals_in_flight > 0 ||
                          fixture->agent->servers_in_flight > 0 ||
                          uv_timer_get_due_in(&fixture->agent->sync_timer) == 0;
        quiet = busy ? 0 : quiet + 1;
    }
}

static int register_service(struct fixture *fixture, const char *text, struct errmsg *err)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);

    assert_non_null(json);
    const int rc = agent_service_register(fixture->agent, json, err);
    json_decref(json);
    return rc;
}

static int register_check(struct fixture *fixture, const char *text, struct errmsg *err)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);

    assert_non_null(json);
    const int rc = agent_check_register(fixture->agent, json, err);
    json_decref(json);
    return rc;
}

static void must_register_service(struct fixture *fixture, const char *text)
{
    struct errmsg err = {""};
    const int rc = register_service(fixture, text, &err);

    if (rc != AGENT_OK) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(rc, AGENT_OK);
}

/* The service as the catalog has it: "id name tag,tag port", "" if it does not. */
static const char *catalog_says(struct fixture *fixture, const char *node, const char *id)
{
    static char text[512];
    struct buffer out = {0};
    struct store_txn txn;
    struct catalog_service service;
    struct slice tag;
    bool first = true;

    assert_int_equal(store_read_begin(fixture->http.server.store, &txn), 0);
    if (catalog_service_get(&txn, slice_from_text(node), slice_from_text(id), &service) == 0) {
        buffer_printf(&out, "%.*s %.*s ", (int)service.id.size, service.id.data,
                      (int)service.name.size, service.name.data);
        struct reader it = strings_begin(service.tags);
        while (strings_next(&it, &tag)) {
            buffer_printf(&out, "%s%.*s", first ? "" : ",", (int)tag.size, tag.data);
            first = false;
        }
        buffer_printf(&out, " %u", (unsigned)service.port);
    }
    store_read_end(&txn);
    (void)snprintf(text, sizeof(text), "%.*s", (int)out.size, out.size == 0 ? "" : out.data);
    buffer_deinit(&out);
    return text;
}

/* "status: output" of a check in the catalog, "" if it is not there. */
static const char *catalog_check_says(struct fixture *fixture, const char *node, const char *id)
{
    static char text[512];
    struct store_txn txn;
    struct catalog_check check;

    text[0] = '\0';
    assert_int_equal(store_read_begin(fixture->http.server.store, &txn), 0);
    if (catalog_check_get(&txn, slice_from_text(node), slice_from_text(id), &check) == 0) {
        (void)snprintf(text, sizeof(text), "%.*s: %.*s", (int)check.status.size, check.status.data,
                       (int)check.output.size, check.output.size == 0 ? "" : check.output.data);
    }
    store_read_end(&txn);
    return text;
}

static void apply(struct fixture *fixture, struct buffer *command)
{
    struct command_result result;

    assert_false(command->failed);
    fake_apply(&fixture->http.replica, command, &result);
    assert_int_equal(result.status, COMMAND_DONE);
    buffer_deinit(command);
}

/* Someone else writes a service into the catalog, under our node. */
static void catalog_write_service(struct fixture *fixture, const char *id, const char *name,
                                  const char *tag, bool override)
{
    struct buffer command = {0};
    struct buffer tags = {0};

    strings_pack_add(&tags, slice_from_text(tag));
    const struct catalog_registration registration = {
        .node = {.id = SLICE_EMPTY,
                 .name = SLICE_LITERAL("node1"),
                 .address = SLICE_LITERAL("10.0.0.1"),
                 .datacenter = SLICE_LITERAL("dc1"),
                 .tagged_addresses = STRINGS_NULL,
                 .meta = STRINGS_NULL},
        .skip_node_update = true,
        .has_service = true,
        .service = {.node = SLICE_LITERAL("node1"),
                    .kind = SLICE_EMPTY,
                    .id = slice_from_text(id),
                    .name = slice_from_text(name),
                    .tags = strings_from_packed(buffer_slice(&tags), 1),
                    .meta = STRINGS_NULL,
                    .address = SLICE_EMPTY,
                    .tagged_addresses = STRINGS_NULL,
                    .weight_passing = 1,
                    .weight_warning = 1,
                    .enable_tag_override = override,
                    .extra = SLICE_EMPTY},
        .checks = SLICE_EMPTY,
    };
    command_encode_register(&command, &registration);
    apply(fixture, &command);
    buffer_deinit(&tags);
}

static void compare_now(struct fixture *fixture)
{
    fixture->agent->full_due_ms = 0;
    agent_sync_kick(fixture->agent);
    settle(fixture);
}

static const char PATRONI[] =
    "{\"name\":\"batman\",\"enabletagoverride\":true,\"id\":\"batman/postgres-0\","
    "\"address\":\"127.0.0.1\",\"port\":5361,\"tags\":[\"replica\"],"
    "\"checks\":[{\"http\":\"http://127.0.0.1:1/replica\",\"interval\":\"5s\","
    "\"DeregisterCriticalServiceAfter\":\"150.0s\"}]}";

static void patronis_service_goes_into_the_catalog_and_out_of_it(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err;

    must_register_service(fixture, PATRONI);
    settle(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "batman/postgres-0"),
                        "batman/postgres-0 batman replica 5361");
    assert_string_equal(catalog_check_says(fixture, "node1", "service:batman/postgres-0"),
                        "critical: ");

    assert_int_equal(
        agent_service_deregister(fixture->agent, SLICE_LITERAL("batman/postgres-0"), &err),
        AGENT_OK);
    settle(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "batman/postgres-0"), "");
    assert_string_equal(catalog_check_says(fixture, "node1", "service:batman/postgres-0"), "");
    assert_int_equal(fixture->agent->service_count, 0);
    assert_int_equal(fixture->agent->check_count, 0);
}

static void definitions_are_refused_with_consuls_words(void **state)
{
    static const struct {
        const char *name, *text, *expected;
        bool check;
        int rc;
    } cases[] = {
        {"no name", "{}", "Missing service name", false, AGENT_EINVAL},
        {"not an object", "[]",
         "Request decode failed: json: cannot unmarshal array into Go value of type ", false,
         AGENT_EINVAL},
        {"unknown member", "{\"Name\":\"s\",\"Bogus\":1}",
         "Request decode failed: json: unknown field \"Bogus\"", false, AGENT_EINVAL},
        {"port as text", "{\"Name\":\"s\",\"Port\":\"80\"}",
         "Request decode failed: json: cannot unmarshal string into Go struct field .Port of type "
         "int",
         false, AGENT_EINVAL},
        {"any address", "{\"Name\":\"s\",\"Address\":\"0.0.0.0\"}", "Invalid service address",
         false, AGENT_EINVAL},
        {"weights", "{\"Name\":\"s\",\"Weights\":{\"Passing\":0,\"Warning\":1}}",
         "Invalid Weights: Passing must be greater than 0", false, AGENT_EINVAL},
        {"meta key", "{\"Name\":\"s\",\"Meta\":{\"a b\":\"c\"}}",
         "Invalid Service Meta: Couldn't load metadata pair ('a b', 'c'): Key contains invalid "
         "characters",
         false, AGENT_EINVAL},
        {"check without interval", "{\"Name\":\"s\",\"Check\":{\"HTTP\":\"http://x/\"}}",
         "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks", false,
         AGENT_EINVAL},
        {"check status", "{\"Name\":\"s\",\"Check\":{\"TTL\":\"1s\",\"Status\":\"bogus\"}}",
         "Status for checks must 'passing', 'warning', 'critical'", false, AGENT_EINVAL},
        {"check member ID in a service", "{\"Name\":\"s\",\"Check\":{\"ID\":\"x\",\"TTL\":\"1s\"}}",
         "Request decode failed: json: unknown field \"ID\"", false, AGENT_EINVAL},
        {"script", "{\"Name\":\"s\",\"Check\":{\"Args\":[\"/bin/true\"],\"Interval\":\"1s\"}}",
         "Scripts are disabled on this agent from remote calls; to enable, configure "
         "'enable_script_checks' to true",
         false, AGENT_EINTERNAL},
        {"check without name", "{\"TTL\":\"10s\"}", "Missing check name", true, AGENT_EINVAL},
        {"check member CheckID", "{\"CheckID\":\"c\",\"Name\":\"c\",\"TTL\":\"10s\"}",
         "Request decode failed: json: unknown field \"CheckID\"", true, AGENT_EINVAL},
        {"TTL and interval", "{\"Name\":\"c\",\"TTL\":\"10s\",\"Interval\":\"10s\"}",
         "Invalid check: Interval and TTL cannot both be specified", true, AGENT_EINVAL},
        {"negative TTL", "{\"Name\":\"c\",\"TTL\":\"-1s\"}",
         "Invalid check: TTL must be > 0 for TTL checks", true, AGENT_EINVAL},
        {"no kind", "{\"Name\":\"c\"}", "Invalid check: TTL must be > 0 for TTL checks", true,
         AGENT_EINVAL},
        {"bad status", "{\"Name\":\"c\",\"TTL\":\"10s\",\"Status\":\"x\"}", "Bad check status",
         true, AGENT_EINVAL},
        {"no such service", "{\"Name\":\"c\",\"TTL\":\"10s\",\"ServiceID\":\"none\"}",
         "ServiceID \"none\" does not exist", true, AGENT_EINTERNAL},
    };
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = {""};
        print_message("  %s\n", cases[i].name);
        const int rc = cases[i].check ? register_check(fixture, cases[i].text, &err)
                                      : register_service(fixture, cases[i].text, &err);
        assert_string_equal(err.text, cases[i].expected);
        assert_int_equal(rc, cases[i].rc);
        assert_int_equal(fixture->agent->service_count, 0);
        assert_int_equal(fixture->agent->check_count, 0);
    }
}

static void checks_of_a_service_are_numbered_from_its_id(void **state)
{
    struct fixture *fixture = *state;

    must_register_service(fixture, "{\"ID\":\"a\",\"Name\":\"s\",\"Check\":{\"TTL\":\"1h\"}}");
    must_register_service(
        fixture, "{\"ID\":\"b\",\"Name\":\"s\",\"Checks\":[{\"TTL\":\"1h\"},{\"CheckID\":\"own\","
                 "\"TTL\":\"1h\"},{\"TTL\":\"1h\",\"Status\":\"passing\"}]}");
    assert_non_null(agent_check_find(fixture->agent, SLICE_LITERAL("service:a")));
    assert_non_null(agent_check_find(fixture->agent, SLICE_LITERAL("service:b:1")));
    assert_non_null(agent_check_find(fixture->agent, SLICE_LITERAL("own")));
    assert_non_null(agent_check_find(fixture->agent, SLICE_LITERAL("service:b:3")));
    assert_int_equal(fixture->agent->check_count, 4);
    settle(fixture);
    assert_string_equal(catalog_check_says(fixture, "node1", "service:b:3"), "passing: ");
}

static void a_check_registered_again_keeps_its_status(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err = {""};

    must_register_service(fixture, "{\"Name\":\"s\",\"Tags\":[\"replica\"],"
                                   "\"Check\":{\"TTL\":\"1h\"}}");
    assert_int_equal(agent_check_update_ttl(fixture->agent, SLICE_LITERAL("service:s"), "passing",
                                            SLICE_LITERAL("up"), &err),
                     AGENT_OK);
    must_register_service(fixture, "{\"Name\":\"s\",\"Tags\":[\"primary\"],"
                                   "\"Check\":{\"TTL\":\"1h\",\"Status\":\"critical\"}}");
    settle(fixture);
    assert_string_equal(catalog_check_says(fixture, "node1", "service:s"), "passing: up");
    assert_string_equal(catalog_says(fixture, "node1", "s"), "s s primary 0");
}

static void a_ttl_that_lapses_turns_critical(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err = {""};

    assert_int_equal(
        register_check(fixture, "{\"Name\":\"c\",\"TTL\":\"30ms\",\"Status\":\"passing\"}", &err),
        AGENT_OK);
    assert_int_equal(agent_check_update_ttl(fixture->agent, SLICE_LITERAL("c"), "passing",
                                            SLICE_LITERAL("ok"), &err),
                     AGENT_OK);
    while (strstr(catalog_check_says(fixture, "node1", "c"), "critical") == NULL) {
        (void)uv_run(&fixture->http.loop, UV_RUN_ONCE);
    }
    assert_string_equal(catalog_check_says(fixture, "node1", "c"),
                        "critical: TTL expired (last output before timeout follows): ok");
}

/* A response time in the output must not make a command of every run. */
static void a_changed_output_alone_waits(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err = {""};

    assert_int_equal(
        register_check(fixture, "{\"Name\":\"c\",\"TTL\":\"1h\",\"Status\":\"passing\"}", &err),
        AGENT_OK);
    settle(fixture);
    const uint64_t index = fixture->http.replica.index;
    assert_int_equal(agent_check_update_ttl(fixture->agent, SLICE_LITERAL("c"), "passing",
                                            SLICE_LITERAL("12 ms"), &err),
                     AGENT_OK);
    compare_now(fixture);
    assert_int_equal(fixture->http.replica.index, index);
    assert_string_equal(catalog_check_says(fixture, "node1", "c"), "passing: ");

    agent_check_find(fixture->agent, SLICE_LITERAL("c"))->output_due_ms = 0;
    agent_sync_kick(fixture->agent);
    settle(fixture);
    assert_string_equal(catalog_check_says(fixture, "node1", "c"), "passing: 12 ms");
}

static void what_failed_for_want_of_a_leader_is_sent_again(void **state)
{
    struct fixture *fixture = *state;

    settle(fixture);
    fixture->http.replica.failure = "No cluster leader";
    must_register_service(fixture, PATRONI);
    while (fixture->agent->backoff_ms == 0) {
        (void)uv_run(&fixture->http.loop, UV_RUN_ONCE);
    }
    assert_string_equal(catalog_says(fixture, "node1", "batman/postgres-0"), "");

    fixture->http.replica.failure = NULL;
    fixture->agent->retry_at_ms = 0;
    compare_now(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "batman/postgres-0"),
                        "batman/postgres-0 batman replica 5361");
}

/* Four commands are under way at a time. Those that the catalog refused used to be the next four
 * again, and nothing else ever had its turn. */
static void what_is_refused_holds_nothing_else_up(void **state)
{
    static const char *const services[] = {"s1", "s2", "s3", "s4", "s5"};
    struct fixture *fixture = *state;
    struct errmsg err = {""};
    char text[96];

    for (size_t i = 0; i < 5; i++) {
        (void)snprintf(text, sizeof(text), "{\"Name\":\"%s\",\"Check\":{\"TTL\":\"1h\"}}",
                       services[i]);
        must_register_service(fixture, text);
    }
    settle(fixture);
    /* Behind the agent's back: a check's service is gone. */
    for (size_t i = 0; i < 5; i++) {
        struct buffer command = {0};

        command_encode_deregister(&command, SLICE_LITERAL("node1"), slice_from_text(services[i]),
                                  SLICE_EMPTY);
        apply(fixture, &command);
        (void)snprintf(text, sizeof(text), "service:%s", services[i]);
        (void)agent_check_update_ttl(fixture->agent, slice_from_text(text), "passing", SLICE_EMPTY,
                                     &err);
    }
    assert_int_equal(register_check(fixture, "{\"Name\":\"zzz\",\"TTL\":\"1h\"}", &err), AGENT_OK);
    settle(fixture);
    assert_string_equal(catalog_check_says(fixture, "node1", "service:s1"), "");
    assert_string_equal(catalog_check_says(fixture, "node1", "zzz"), "critical: ");
    compare_now(fixture);
    assert_string_equal(catalog_check_says(fixture, "node1", "service:s5"), "passing: ");
}

static void what_the_catalog_would_refuse_is_refused_at_once(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err = {""};
    char text[AGENT_ID_BYTES_MAX + 64];

    (void)snprintf(text, sizeof(text), "{\"Name\":\"s\",\"ID\":\"%0*d\"}", AGENT_ID_BYTES_MAX, 1);
    must_register_service(fixture, text);
    (void)snprintf(text, sizeof(text), "{\"Name\":\"%0*d\"}", AGENT_ID_BYTES_MAX + 1, 1);
    assert_int_equal(register_service(fixture, text, &err), AGENT_EINVAL);
    assert_string_equal(err.text, "service ID or name longer than 1024 bytes or with a NUL in it");
}

static void what_the_catalog_has_beyond_ours_goes(void **state)
{
    struct fixture *fixture = *state;

    settle(fixture);
    catalog_write_service(fixture, "foreign", "foreign", "t", false);
    assert_string_equal(catalog_says(fixture, "node1", "foreign"), "foreign foreign t 0");
    compare_now(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "foreign"), "");
    assert_string_equal(catalog_says(fixture, "node1", "consul"), "consul consul  8300");
    assert_string_equal(catalog_check_says(fixture, "node1", "serfHealth"),
                        "passing: Agent alive and reachable");
    assert_int_equal(fixture->agent->service_count, 0);
}

static void what_the_catalog_lost_comes_back(void **state)
{
    struct fixture *fixture = *state;
    struct buffer command = {0};

    must_register_service(fixture, PATRONI);
    settle(fixture);
    command_encode_deregister(&command, SLICE_LITERAL("node1"), SLICE_EMPTY, SLICE_EMPTY);
    apply(fixture, &command);
    compare_now(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "batman/postgres-0"),
                        "batman/postgres-0 batman replica 5361");
    assert_string_equal(catalog_check_says(fixture, "node1", "service:batman/postgres-0"),
                        "critical: ");
}

static void tags_changed_in_the_catalog_win_with_tag_override_only(void **state)
{
    struct fixture *fixture = *state;

    must_register_service(fixture, "{\"Name\":\"o\",\"Tags\":[\"ours\"],"
                                   "\"EnableTagOverride\":true}");
    must_register_service(fixture, "{\"Name\":\"n\",\"Tags\":[\"ours\"]}");
    settle(fixture);
    catalog_write_service(fixture, "o", "o", "theirs", true);
    catalog_write_service(fixture, "n", "n", "theirs", false);
    compare_now(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "o"), "o o theirs 0");
    assert_string_equal(catalog_says(fixture, "node1", "n"), "n n ours 0");
}

/* Patroni changes its role while a comparison runs: the catalog's old tags must not come back. */
static void tags_on_their_way_are_not_overridden(void **state)
{
    struct fixture *fixture = *state;

    must_register_service(fixture, PATRONI);
    settle(fixture);
    must_register_service(fixture, "{\"Name\":\"batman\",\"ID\":\"batman/postgres-0\","
                                   "\"Tags\":[\"primary\",\"master\"],\"EnableTagOverride\":true}");
    compare_now(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "batman/postgres-0"),
                        "batman/postgres-0 batman primary,master 0");
}

static void write_file(const struct fixture *fixture, const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", fixture->data_dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void registrations_survive_a_restart(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err = {""};

    must_register_service(fixture, PATRONI);
    must_register_service(fixture, "{\"Name\":\"gone\",\"Check\":{\"TTL\":\"1h\"}}");
    assert_int_equal(
        register_check(fixture, "{\"Name\":\"c\",\"TTL\":\"1h\",\"Status\":\"passing\"}", &err),
        AGENT_OK);
    assert_int_equal(agent_node_maintenance(fixture->agent, true, SLICE_LITERAL("upgrade"), &err),
                     AGENT_OK);
    assert_int_equal(agent_service_deregister(fixture->agent, SLICE_LITERAL("gone"), &err),
                     AGENT_OK);
    settle(fixture);
    agent_shut(fixture);
    write_file(fixture, "services/bad", "{");
    write_file(fixture, "services/empty", "");
    write_file(fixture, "services/other", "{\"Service\":{\"ID\":\"x\",\"Bogus\":1}}");
    write_file(fixture, "services/torn.tmp", "{\"Service\":{\"ID\":\"y\",\"Name\":\"y\"}}");
    write_file(fixture, "checks/bad", "[1]");

    agent_open(fixture);
    assert_int_equal(fixture->agent->service_count, 1);
    assert_int_equal(fixture->agent->check_count, 3);
    settle(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "batman/postgres-0"),
                        "batman/postgres-0 batman replica 5361");
    /* Nothing is known of its health yet. */
    assert_string_equal(catalog_check_says(fixture, "node1", "c"), "critical: ");
    const struct agent_check *maintenance =
        agent_check_find(fixture->agent, SLICE_LITERAL("_node_maintenance"));
    assert_non_null(maintenance);
    assert_int_equal(maintenance->type, AGENT_CHECK_MAINTENANCE);
}

/* Started without what was kept, it would have taken all of it out of the catalog. */
static void a_folder_that_cannot_be_read_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err = {""};
    char path[128];

    agent_shut(fixture);
    (void)snprintf(path, sizeof(path), "%s/checks", fixture->data_dir);
    assert_true(rmdir(path) == 0 && mknod(path, S_IFREG | 0600, 0) == 0);
    assert_int_equal(agent_new(&fixture->http.server, &fixture->agent, &err), AGENT_EINTERNAL);
    assert_non_null(strstr(err.text, "/checks: Not a directory"));
    agent_shut(fixture); /* What the failed start has left on the loop. */
}

/* Tags that were changed in the catalog while we were down (EnableTagOverride). */
static void the_catalogs_tags_win_over_kept_ones(void **state)
{
    struct fixture *fixture = *state;

    must_register_service(fixture, "{\"Name\":\"o\",\"Tags\":[\"old\"],"
                                   "\"EnableTagOverride\":true}");
    settle(fixture);
    agent_shut(fixture);
    catalog_write_service(fixture, "o", "o", "new", true);
    agent_open(fixture);
    settle(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "o"), "o o new 0");
}

static void the_configuration_wins_and_can_change(void **state)
{
    struct fixture *fixture = *state;
    struct config changed = fixture->http.config;
    struct errmsg err = {""};

    must_register_service(fixture, "{\"Name\":\"s\",\"Tags\":[\"client\"]}");
    settle(fixture);
    agent_shut(fixture);
    fixture->http.config.services =
        json_pack("[{s:s,s:[s],s:[{s:s,s:s}]},{s:s,s:i}]", "name", "s", "tags", "file", "checks",
                  "tcp", "127.0.0.1:1", "interval", "1h", "name", "t", "port", 1);
    agent_open(fixture);
    settle(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "s"), "s s file 0");
    assert_string_equal(catalog_says(fixture, "node1", "t"), "t t  1");

    changed.services = json_pack("[{s:s,s:i}]", "name", "t", "port", 2);
    assert_int_equal(agent_reload(fixture->agent, &changed, &err), AGENT_OK);
    json_decref(changed.services);
    settle(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "s"), "");
    assert_string_equal(catalog_check_says(fixture, "node1", "service:s"), "");
    assert_string_equal(catalog_says(fixture, "node1", "t"), "t t  2");

    changed.services = json_pack("[{s:s,s:i},{s:s}]", "name", "t", "port", 3, "address", "x");
    assert_int_equal(agent_reload(fixture->agent, &changed, &err), AGENT_EINVAL);
    assert_string_equal(err.text, "Missing service name");
    json_decref(changed.services);
    settle(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "t"), "t t  2"); /* Nothing of it counts. */
}

static void a_service_that_stays_critical_is_taken_out(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err = {""};

    must_register_service(fixture, "{\"Name\":\"s\",\"Check\":{\"TTL\":\"1h\","
                                   "\"DeregisterCriticalServiceAfter\":\"1s\"}}");
    settle(fixture);
    assert_int_equal(agent_check_update_ttl(fixture->agent, SLICE_LITERAL("service:s"), "critical",
                                            SLICE_EMPTY, &err),
                     AGENT_OK);
    struct agent_check *check = agent_check_find(fixture->agent, SLICE_LITERAL("service:s"));
    const uint64_t now_ms = server_now_ms(&fixture->http.server);
    /* 1 s counts as a minute. (The clock of a machine that has just started may be younger.) */
    assert_true(check->critical_since_ms > 0);
    agent_reap(fixture->agent);
    assert_non_null(agent_service_find(fixture->agent, SLICE_LITERAL("s")));
    check->critical_since_ms = now_ms - AGENT_DEREGISTER_MS_MIN - 1;
    agent_reap(fixture->agent);
    assert_null(agent_service_find(fixture->agent, SLICE_LITERAL("s")));
    settle(fixture);
    assert_string_equal(catalog_says(fixture, "node1", "s"), "");
}

static void maintenance_keeps_its_first_reason(void **state)
{
    struct fixture *fixture = *state;
    struct errmsg err = {""};

    assert_int_equal(
        agent_service_maintenance(fixture->agent, SLICE_LITERAL("s"), true, SLICE_EMPTY, &err),
        AGENT_ENOTFOUND);
    assert_string_equal(err.text, "No service registered with ID \"s\"");
    must_register_service(fixture, "{\"Name\":\"s\"}");
    assert_int_equal(agent_service_maintenance(fixture->agent, SLICE_LITERAL("s"), true,
                                               SLICE_LITERAL("disk"), &err),
                     AGENT_OK);
    assert_int_equal(agent_service_maintenance(fixture->agent, SLICE_LITERAL("s"), true,
                                               SLICE_LITERAL("other"), &err),
                     AGENT_OK);
    const struct agent_check *check =
        agent_check_find(fixture->agent, SLICE_LITERAL("_service_maintenance:s"));
    assert_non_null(check);
    assert_true(slice_equal(check->spec.notes, SLICE_LITERAL("disk")));
    settle(fixture);
    assert_string_equal(catalog_check_says(fixture, "node1", "_service_maintenance:s"),
                        "critical: ");
    assert_int_equal(
        agent_service_maintenance(fixture->agent, SLICE_LITERAL("s"), false, SLICE_EMPTY, &err),
        AGENT_OK);
    settle(fixture);
    assert_string_equal(catalog_check_says(fixture, "node1", "_service_maintenance:s"), "");
}

struct waiting {
    struct agent_waiter waiter;
    unsigned wakes;
};

static void on_wake(struct agent_waiter *waiter)
{
    struct waiting *waiting = (struct waiting *)(void *)waiter;

    waiting->wakes++;
}

static void a_changed_service_wakes_who_waits(void **state)
{
    struct fixture *fixture = *state;
    struct waiting a = {.waiter = {.on_wake = on_wake, .deadline_ms = UINT64_MAX}};
    struct waiting b = {.waiter = {.on_wake = on_wake, .deadline_ms = UINT64_MAX}};
    struct waiting due = {.waiter = {.on_wake = on_wake, .deadline_ms = 1}};

    must_register_service(fixture, "{\"Name\":\"s\",\"Port\":1}");
    const uint64_t hash =
        agent_service_hash(agent_service_find(fixture->agent, SLICE_LITERAL("s")));
    agent_wait(fixture->agent, &a.waiter);
    agent_wait(fixture->agent, &b.waiter);
    agent_wait(fixture->agent, &due.waiter);
    agent_wait_cancel(fixture->agent, &b.waiter);
    while (due.wakes == 0) {
        (void)uv_run(&fixture->http.loop, UV_RUN_ONCE);
    }
    assert_int_equal(a.wakes, 0);
    must_register_service(fixture, "{\"Name\":\"s\",\"Port\":2}");
    assert_int_equal(a.wakes, 1);
    assert_int_equal(b.wakes, 0);
    assert_true(hash != agent_service_hash(agent_service_find(fixture->agent, SLICE_LITERAL("s"))));
}

/* --- servers --- */

static void look_at_servers(struct fixture *fixture)
{
    agent_members_changed(fixture->agent);
    for (int i = 0; i < 20; i++) {
        settle(fixture);
    }
}

static void the_leader_keeps_the_servers_health(void **state)
{
    struct fixture *fixture = *state;

    look_at_servers(fixture);
    assert_string_equal(catalog_says(fixture, "node2", "consul"), "consul consul  8300");
    assert_string_equal(catalog_check_says(fixture, "node2", "serfHealth"),
                        "passing: Agent alive and reachable");

    fixture->membership.members[1].status = MEMBER_FAILED;
    look_at_servers(fixture);
    assert_string_equal(catalog_check_says(fixture, "node2", "serfHealth"),
                        "critical: Agent not live or unreachable");
    const uint64_t index = fixture->http.replica.index;
    look_at_servers(fixture);
    assert_int_equal(fixture->http.replica.index, index); /* Once is enough. */

    fixture->membership.members[1].status = MEMBER_ALIVE;
    look_at_servers(fixture);
    assert_string_equal(catalog_check_says(fixture, "node2", "serfHealth"),
                        "passing: Agent alive and reachable");
}

/* Stopping a server in order must not end the sessions of the databases behind it. */
static void a_server_that_left_keeps_its_node_while_its_sessions_live(void **state)
{
    struct fixture *fixture = *state;
    struct buffer command = {0};
    const struct session session = {
        .id = {.bytes = {1}},
        .name = SLICE_LITERAL("pg"),
        .node = SLICE_LITERAL("node2"),
        .ttl = SLICE_LITERAL("1h"),
        .ttl_ms = 3600000,
        .node_checks = strings_from_packed(SLICE_EMPTY, 0),
        .service_checks = STRINGS_NULL,
        .checks = STRINGS_NULL,
    };

    look_at_servers(fixture);
    command_encode_session_create(&command, &session);
    apply(fixture, &command);
    fixture->membership.members[1].status = MEMBER_LEFT;
    look_at_servers(fixture);
    assert_string_equal(catalog_says(fixture, "node2", "consul"), "consul consul  8300");

    command_encode_session_destroy(&command, &session.id, SLICE_LITERAL("done"));
    apply(fixture, &command);
    look_at_servers(fixture);
    assert_string_equal(catalog_says(fixture, "node2", "consul"), "");
    assert_string_equal(catalog_check_says(fixture, "node2", "serfHealth"), "");
}

/* Given up while the leader of now was down: neither membership nor Raft tell it. */
static void a_server_that_nobody_knows_any_more_leaves_the_catalog(void **state)
{
    struct fixture *fixture = *state;

    look_at_servers(fixture);
    assert_string_equal(catalog_says(fixture, "node2", "consul"), "consul consul  8300");
    fixture->membership.count = 1;
    look_at_servers(fixture);
    /* A leader that was just elected may have yet to hear of it. */
    assert_string_equal(catalog_says(fixture, "node2", "consul"), "consul consul  8300");
    fixture->agent->leader_since_ms = 1;
    look_at_servers(fixture);
    assert_string_equal(catalog_says(fixture, "node2", "consul"), "");
    assert_string_equal(catalog_says(fixture, "node1", "consul"), "consul consul  8300");
}

/* Answers may come after the agent is gone. */
static void the_agent_can_go_with_commands_on_their_way(void **state)
{
    struct fixture *fixture = *state;

    settle(fixture);
    fixture->http.replica.hold = true;
    must_register_service(fixture, PATRONI);
    must_register_service(fixture, "{\"Name\":\"s\"}");
    fixture->agent->full_due_ms = 0; /* And a read is waiting. */
    for (int i = 0;
         i < 60000 && (fixture->agent->proposals_in_flight < 2 || !fixture->agent->reading); i++) {
        (void)uv_run(&fixture->http.loop, UV_RUN_NOWAIT);
        (void)usleep(1000);
    }
    assert_int_equal(fixture->agent->proposals_in_flight, 2);
    assert_true(fixture->agent->reading);
    agent_shut(fixture);
    fixture->http.replica.hold = false;
    assert_int_equal(fixture->http.replica.withdrawn, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(patronis_service_goes_into_the_catalog_and_out_of_it),
        TEST(definitions_are_refused_with_consuls_words),
        TEST(checks_of_a_service_are_numbered_from_its_id),
        TEST(a_check_registered_again_keeps_its_status),
        TEST(a_ttl_that_lapses_turns_critical),
        TEST(a_changed_output_alone_waits),
        TEST(what_failed_for_want_of_a_leader_is_sent_again),
        TEST(what_is_refused_holds_nothing_else_up),
        TEST(what_the_catalog_would_refuse_is_refused_at_once),
        TEST(what_the_catalog_has_beyond_ours_goes),
        TEST(what_the_catalog_lost_comes_back),
        TEST(tags_changed_in_the_catalog_win_with_tag_override_only),
        TEST(tags_on_their_way_are_not_overridden),
        TEST(registrations_survive_a_restart),
        TEST(a_folder_that_cannot_be_read_is_an_error),
        TEST(the_catalogs_tags_win_over_kept_ones),
        TEST(the_configuration_wins_and_can_change),
        TEST(a_service_that_stays_critical_is_taken_out),
        TEST(maintenance_keeps_its_first_reason),
        TEST(a_changed_service_wakes_who_waits),
        TEST(the_leader_keeps_the_servers_health),
        TEST(a_server_that_left_keeps_its_node_while_its_sessions_live),
        TEST(a_server_that_nobody_knows_any_more_leaves_the_catalog),
        TEST(the_agent_can_go_with_commands_on_their_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
