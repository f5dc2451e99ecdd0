/* What the smaller endpoints answer, over real connections: what operators ask of the leader and
 * what comes of its answer, coordinates that are none, and what Consul has and this server has not.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define HTTP_FIXTURE_CATALOG
#define HTTP_FIXTURE_OPERATOR
#include "server/gossip/membership.h"
#include "tests/unit/http_client.h"

struct answer_case {
    const char *method, *target, *body;
    int status;
    const char *text; /* within the answer; NULL: any */
};

static void check_answer(struct http_fixture *fixture, const struct answer_case *asked)
{
    const size_t size = strlen(asked->body);
    struct client client;
    char head[512];
    char line[32];

    client_open(fixture, &client);
    (void)snprintf(head, sizeof(head),
                   "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                   asked->method, asked->target, size);
    client_send(fixture, &client, head);
    client_send(fixture, &client, asked->body);
    client_expect_close(fixture, &client);
    const int length = snprintf(line, sizeof(line), "HTTP/1.1 %d ", asked->status);

    if (client.data == NULL || strncmp(client.data, line, (size_t)length) != 0 ||
        (asked->text != NULL && strstr(client.data, asked->text) == NULL)) {
        fail_msg("%s %s %s: \"%s\"", asked->method, asked->target, asked->body, client.data);
    }
    client_close(&client);
}

static void check_answers(struct http_fixture *fixture, const struct answer_case *asked,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_answer(fixture, &asked[i]);
    }
}

#define CHECK(fixture, cases) check_answers(fixture, cases, sizeof(cases) / sizeof((cases)[0]))

static void what_is_left_out_says_so(void **state)
{
    static const struct answer_case cases[] = {
        {"GET", "/v1/connect/ca/roots", "", 501, "Connect: not supported"},
        {"GET", "/v1/connect/intentions/x", "", 501, "Connect (intentions)"},
        {"PUT", "/v1/config", "{}", 501, "configuration entries"},
        {"GET", "/v1/discovery-chain/x", "", 501, "discovery chains"},
        {"GET", "/v1/catalog/gateway-services/x", "", 501, "gateways"},
        {"GET", "/v1/peerings", "", 501, "Cluster peering"},
        {"GET", "/v1/internal/ui/nodes", "", 501, "user interface"},
        {"GET", "/v1/operator/area", "", 501, "WAN federation"},
        {"GET", "/v1/namespaces", "", 501, "namespaces"},
        {"GET", "/v1/query", "", 200, "\r\n\r\n[]"},
        {"POST", "/v1/query", "{}", 500, "Prepared queries are not supported"},
        {"POST", "/v1/query", "{", 400, "Request decode failed"},
        {"GET", "/v1/query/x/execute", "", 404, "Query not found"},
        {"GET", "/v1/query/x?stale&consistent", "", 400, NULL},
        {"GET", "/v1/acl/list", "", 401, "ACL support disabled"},
    };
    static const struct answer_case with_acls = {"GET", "/v1/acl/list", "", 500,
                                                 "policies and roles are not supported"};
    struct http_fixture *fixture = *state;

    CHECK(fixture, cases);
    fixture->config.acl_enabled = true;
    fixture->config.acl_anonymous = true;
    check_answer(fixture, &with_acls);
    fixture->config.acl_enabled = false;
}

static void coordinates_that_are_none_are_refused(void **state)
{
    static const struct answer_case cases[] = {
        {"PUT", "/v1/coordinate/update", "{\"Node\":\"n\"}", 400, NULL},
        {"PUT", "/v1/coordinate/update", "{\"Coord\":{\"Vec\":5}}", 400, "cannot unmarshal number"},
        {"PUT", "/v1/coordinate/update", "{\"Coord\":{\"Vec\":[\"x\"]}}", 400, "float64"},
        {"PUT", "/v1/coordinate/update", "{\"Coord\":{\"Vec\":null}}", 500, "incompatible"},
        {"PUT", "/v1/coordinate/update", "{\"Coord\":{\"Vec\":[0,0,0,0,0,0,0,0,0]}}", 500,
         "incompatible coordinate"},
        {"PUT", "/v1/coordinate/update", "{\"Coord\":{\"Error\":true}}", 400, "Coord.Error"},
        {"PUT", "/v1/coordinate/update", "{\"Coord\":{\"Odd\":1}}", 400, "unknown field"},
        {"PUT", "/v1/coordinate/update", "{\"Coord\":5}", 400, NULL},
        {"PUT", "/v1/coordinate/update", "{\"Odd\":5}", 400, "unknown field"},
        {"PUT", "/v1/coordinate/update?dc=nosuch", "{\"Coord\":{\"Vec\":[0,0,0,0,0,0,0,0]}}", 500,
         NULL},
        {"PUT", "/v1/coordinate/update",
         "{\"Node\":\"node1\",\"Coord\":{\"Vec\":[0,0,0,0,0,0,0,0],\"Height\":null}}", 200, NULL},
        {"PUT", "/v1/coordinate/update",
         "{\"Node\":\"NODE1\",\"Coord\":{\"Vec\":[1,0,0,0,0,0,0,0]}}", 200, NULL},
        {"PUT", "/v1/coordinate/update", "{\"Coord\":{\"Vec\":[0,0,0,0,0,0,0,0]}}", 200, NULL},
        {"GET", "/v1/coordinate/node/nosuch", "", 404, NULL},
        {"GET", "/v1/coordinate/nodes?dc=nosuch", "", 500, "No path to datacenter"},
    };

    CHECK(*state, cases);
}

static void what_operators_ask_is_checked(void **state)
{
    static const struct answer_case cases[] = {
        {"DELETE", "/v1/operator/raft/peer", "", 400, NULL},
        {"DELETE", "/v1/operator/raft/peer?id=x&address=y", "", 400, NULL},
        {"DELETE", "/v1/operator/raft/peer?id=x&dc=nosuch", "", 500, "No path to datacenter"},
        {"DELETE", "/v1/operator/raft/peer?id=x", "", 200, NULL},
        {"DELETE", "/v1/operator/raft/peer?address=127.0.0.1:1", "", 200, NULL},
        {"POST", "/v1/operator/raft/transfer-leader", "", 200, "\"Success\":true"},
        {"PUT", "/v1/operator/raft/transfer-leader?id=x", "", 200, "\"Success\":true"},
        {"GET", "/v1/operator/raft/configuration", "", 200, "\"Servers\":["},
        {"GET", "/v1/operator/usage?global", "", 200, "{\"Usage\":{\"dc1\":{\"Nodes\":"},
        {"GET", "/v1/operator/usage?dc=nosuch", "", 500, "No path to datacenter"},
        {"GET", "/v1/operator/usage?stale", "", 200, "\"ConsistencyLevel\":\"stale\""},
        {"GET", "/v1/operator/usage?stale&consistent", "", 400, NULL},
        {"GET", "/v1/operator/autopilot/health?dc=nosuch", "", 500, "No path to datacenter"},
        {"GET", "/v1/operator/autopilot/state?dc=nosuch", "", 500, "No path to datacenter"},
        {"PUT", "/v1/operator/autopilot/configuration", "", 400, "EOF"},
        {"PUT", "/v1/operator/autopilot/configuration", "5", 400, "cannot unmarshal number"},
        {"PUT", "/v1/operator/autopilot/configuration", "{\"MinQuorum\":-1}", 400, "of type uint"},
        {"PUT", "/v1/operator/autopilot/configuration", "{\"MaxTrailingLogs\":-1}", 400, "uint64"},
        {"PUT", "/v1/operator/autopilot/configuration", "{\"RedundancyZoneTag\":\"a\\u0000\"}", 400,
         "a tag has more than"},
        {"PUT", "/v1/operator/autopilot/configuration?cas=x", "{}", 400, "cas"},
        {"PUT", "/v1/operator/autopilot/configuration?dc=nosuch", "{}", 500, NULL},
        {"PUT", "/v1/operator/autopilot/configuration?cas=99", "{}", 200, "false"},
        {"PUT", "/v1/operator/autopilot/configuration", "null", 200, "true"},
        {"GET", "/v1/operator/keyring?relay-factor=9", "", 400, "must be in range"},
        {"GET", "/v1/operator/keyring?relay-factor=x%0a", "", 400, "\"x\\n\""},
        {"GET", "/v1/operator/keyring", "", 500, "Keyring is empty"},
        {"PUT", "/v1/operator/keyring", "{", 400, NULL},
        {"PUT", "/v1/operator/keyring", "{}", 500, "No keyring to modify"},
    };

    CHECK(*state, cases);
}

static void an_operator_hears_why_the_leader_did_not(void **state)
{
    static const struct answer_case cases[] = {
        {"DELETE", "/v1/operator/raft/peer?id=x", "", 500, "no such peer"},
        {"POST", "/v1/operator/raft/transfer-leader", "", 500, "no such peer"},
        {"GET", "/v1/operator/autopilot/health", "", 500, "no such peer"},
        {"GET", "/v1/operator/autopilot/state", "", 500, "no such peer"},
    };
    static const struct answer_case garbled[] = {
        {"GET", "/v1/operator/autopilot/health", "", 500, "not understood"},
        {"GET", "/v1/operator/autopilot/state", "", 500, "not understood"},
    };
    struct http_fixture *fixture = *state;

    fixture->replica.failure = "no such peer";
    CHECK(fixture, cases);
    fixture->replica.failure = NULL;
    fixture->replica.health_is_garbled = true;
    CHECK(fixture, garbled);
    fixture->replica.health_is_garbled = false;
}

static void the_servers_health_is_shown_as_the_leader_sees_it(void **state)
{
    static const struct answer_case unwell[] = {
        {"GET", "/v1/operator/autopilot/health", "", 429, "\"Healthy\":false"},
        {"GET", "/v1/operator/autopilot/health", "", 429, "\"SerfStatus\":\"failed\""},
        {"GET", "/v1/operator/autopilot/health", "", 429, "\"SerfStatus\":\"left\""},
        {"GET", "/v1/operator/autopilot/health", "", 429, "\"SerfStatus\":\"none\""},
        {"GET", "/v1/operator/autopilot/health", "", 429, "\"SerfStatus\":\"leaving\""},
        {"GET", "/v1/operator/autopilot/state", "", 200, "\"Healthy\":false"},
        {"GET", "/v1/operator/autopilot/state", "", 200, "\"Leader\":\"id0\""},
        {"GET", "/v1/operator/autopilot/state", "", 200, "\"OptimisticFailureTolerance\":"},
        {"GET", "/v1/operator/autopilot/state", "", 200, "\"Status\":\"non-voter\""},
    };
    static const struct answer_case well[] = {
        {"GET", "/v1/operator/autopilot/health", "", 200, "\"SerfStatus\":\"alive\""},
        {"GET", "/v1/operator/autopilot/state", "", 200, "\"Healthy\":true"},
    };
    static const uint8_t statuses[] = {MEMBER_ALIVE, MEMBER_FAILED, MEMBER_LEFT, MEMBER_LEAVING, 0};
    struct http_fixture *fixture = *state;
    struct replica_health *health = &fixture->replica.health;

    memset(health, 0, sizeof(*health));
    for (size_t i = 0; i < sizeof(statuses); i++) {
        struct replica_server_health *server = &health->servers[health->count++];

        (void)snprintf(server->id, sizeof(server->id), "id%zu", i);
        (void)snprintf(server->name, sizeof(server->name), "name%zu", i);
        (void)snprintf(server->address, sizeof(server->address), "127.0.0.%zu:8300", i + 1);
        server->status = statuses[i];
        server->leader = i == 0;
        server->voter = i < 4;
        server->healthy = i == 0;
        server->last_contact_ms = i == 4 ? UINT64_MAX : i;
    }
    CHECK(fixture, unwell);
    health->count = 1;
    health->healthy = true;
    CHECK(fixture, well);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_left_out_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(coordinates_that_are_none_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_operators_ask_is_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(an_operator_hears_why_the_leader_did_not, setup, teardown),
        cmocka_unit_test_setup_teardown(the_servers_health_is_shown_as_the_leader_sees_it, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
