/* Bodies of any bytes for each endpoint that decodes JSON, down to the store: the first byte says
 * which. The agent's definitions are read as it reads them, without an agent. */

#define HTTP_FIXTURE_CATALOG
#include "server/agent/agent_definition.h"
#include "tests/unit/http_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_BYTES_MAX = 16 * 1024, FUZZ_TURNS = 4 };

static const char *const paths[] = {
    "/v1/session/create",
    "/v1/txn",
    "/v1/catalog/register",
    "/v1/catalog/deregister",
};

enum { PATH_COUNT = sizeof(paths) / sizeof(paths[0]), KIND_COUNT = PATH_COUNT + 2 };

static struct http_fixture fixture;

static void fuzz_turns(void)
{
    for (int i = 0; i < FUZZ_TURNS; i++) {
        (void)uv_run(&fixture.loop, UV_RUN_NOWAIT);
    }
}

static void fuzz_request(const char *path, struct slice body)
{
    char head[128];
    const int size =
        snprintf(head, sizeof(head), "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 path, body.size);

    if (fixture.server.http == NULL) {
        http_fixture_open(&fixture, -1); /* No listener. */
    }
    struct http_conn *conn = http_conn_new(fixture.server.http);

    assert(conn != NULL);
    http_conn_feed(conn, slice_from(head, (size_t)size));
    if (body.size > 0 && conn->state != HTTP_CONN_CLOSED) {
        http_conn_feed(conn, body);
    }
    fuzz_turns();
    http_conn_discard(conn);
    fuzz_turns();
    assert(fixture.server.http->conn_count == 0);
    (void)http_fixture_close; /* The process ends with it open: it serves all inputs. */
}

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

static void fuzz_service(const json_t *json)
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

static void fuzz_check(const json_t *json)
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > FUZZ_BYTES_MAX) {
        return 0;
    }
    const unsigned kind = data[0] % KIND_COUNT;
    const struct slice body = {(const char *)data + 1, size - 1};

    if (kind < PATH_COUNT) {
        fuzz_request(paths[kind], body);
        return 0;
    }
    json_t *json = json_loadb(body.data, body.size,
                              JSON_DISABLE_EOF_CHECK | JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

    if (json != NULL && kind == PATH_COUNT) {
        fuzz_service(json);
    } else if (json != NULL) {
        fuzz_check(json);
    }
    json_decref(json);
    return 0;
}
