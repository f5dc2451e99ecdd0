/* Bodies of any bytes for each endpoint that decodes JSON, down to the store: the first byte says
 * which. The agent has no services and no checks: what would be registered is read as it reads
 * definitions, and encoded, and left at that. */

#define HTTP_FIXTURE_AGENT
#define HTTP_FIXTURE_CATALOG
#define HTTP_FIXTURE_OPERATOR
#include "server/agent/agent_definition.h"
#include "server/agent/agent_internal.h"
#include "server/http/http_agent.h"
#include "tests/unit/http_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_BYTES_MAX = 16 * 1024, FUZZ_TURNS = 4 };

/* Inputs that are kept count on the order. */
static const char *const paths[] = {
    "/v1/session/create",
    "/v1/txn",
    "/v1/catalog/register",
    "/v1/catalog/deregister",
    "/v1/agent/service/register",
    "/v1/agent/check/register",
    "/v1/agent/check/update/x",
    "/v1/coordinate/update",
    "/v1/operator/autopilot/configuration",
    "/v1/operator/autopilot/configuration?cas=1",
};

enum { PATH_COUNT = sizeof(paths) / sizeof(paths[0]) };

static struct http_fixture fixture;
static struct agent agent;

static int fuzz_visit_check(void *host, const json_t *json)
{
    struct agent_check_definition check;
    enum agent_check_type type;
    struct errmsg err = {""};

    (void)host;
    if (agent_definition_read_check(json, AGENT_ORIGIN_API_SERVICE_CHECK, &check, &err) != 0 ||
        agent_definition_check_type(&check, &type, &err) != 0) {
        assert(err.text[0] != '\0');
    }
    return 0;
}

static void fuzz_definition(struct http_request *request, void (*read)(const json_t *json))
{
    json_t *json = http_body_json(request, "Request decode failed");

    if (json != NULL) {
        read(json);
        json_decref(json);
        http_reply_empty(request, 200);
    }
}

static void fuzz_read_service(const json_t *json)
{
    struct agent_service_definition service;
    struct buffer record = {0};
    struct errmsg err = {""};

    if (agent_definition_read_service(json, AGENT_ORIGIN_API_SERVICE, &service, &err) != 0 ||
        agent_definition_check_service(&service, &err) != 0) {
        assert(err.text[0] != '\0');
        return;
    }
    (void)agent_definition_visit_checks(&service, fuzz_visit_check, NULL);
    agent_definition_encode_service(&record, &service);
    buffer_deinit(&record);
}

static void fuzz_read_check(const json_t *json)
{
    const struct agent_scripts scripts = {.remote = false};
    struct agent_check_definition check;
    enum agent_check_type type;
    struct errmsg err = {""};

    if (agent_definition_read_check(json, AGENT_ORIGIN_API_CHECK, &check, &err) != 0 ||
        agent_definition_refuse_kinds(&check, &scripts, false, &err) != 0 ||
        agent_definition_check_type(&check, &type, &err) != 0) {
        assert(err.text[0] != '\0');
    }
}

static void fuzz_service(struct http_request *request)
{
    fuzz_definition(request, fuzz_read_service);
}

static void fuzz_check(struct http_request *request)
{
    fuzz_definition(request, fuzz_read_check);
}

const struct http_route http_routes_agent[] = {
    {"/v1/agent/service/register", HTTP_METHOD_PUT, "OPTIONS,PUT", fuzz_service},
    {"/v1/agent/check/register", HTTP_METHOD_PUT, "OPTIONS,PUT", fuzz_check},
    {"/v1/agent/check/update/", HTTP_METHOD_PUT, "OPTIONS,PUT", http_agent_check_update},
    {NULL, 0, NULL, NULL},
};

static void fuzz_turns(void)
{
    for (int i = 0; i < FUZZ_TURNS; i++) {
        (void)uv_run(&fixture.loop, UV_RUN_NOWAIT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char head[128];

    if (size < 1 || size > FUZZ_BYTES_MAX) {
        return 0;
    }
    if (fixture.server.http == NULL) {
        http_fixture_open(&fixture, -1); /* No listener. */
        agent.server = &fixture.server;
        fixture.server.agent = &agent;
    }
    const struct slice body = {(const char *)data + 1, size - 1};
    const int head_size =
        snprintf(head, sizeof(head), "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 paths[data[0] % PATH_COUNT], body.size);
    struct http_conn *conn = http_conn_new(fixture.server.http);

    assert(conn != NULL);
    http_conn_feed(conn, slice_from(head, (size_t)head_size));
    if (body.size > 0 && conn->state != HTTP_CONN_CLOSED) {
        http_conn_feed(conn, body);
    }
    fuzz_turns();
    http_conn_discard(conn);
    fuzz_turns();
    assert(fixture.server.http->conn_count == 0);
    (void)http_fixture_close; /* The process ends with it open: it serves all inputs. */
    return 0;
}
