/* /v1/agent/service... and check...: what is registered with this agent. */

#include "server/http/http_agent.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/config.h"
#include "server/http/catalog_json.h"
#include "server/http/http_internal.h"
#include "server/http/json_decode.h"
#include "server/server.h"

enum {
    WAIT_NS_PER_MS = 1000 * 1000,
    WAIT_MS_DEFAULT = 5 * 60 * 1000,
    WAIT_MS_MAX = 10 * 60 * 1000,
    WAIT_JITTER_DIVISOR = 16,
};

/* --- common --- */

/* Answers an agent's error with its status; true when there was none. */
static bool agent_ok(struct http_request *request, int rc, const struct errmsg *err)
{
    switch (rc) {
    case AGENT_OK:
        return true;
    case AGENT_EINVAL:
        http_reply_error(request, 400, "%s", err->text);
        return false;
    case AGENT_ENOTFOUND:
        http_reply_error(request, 404, "%s", err->text);
        return false;
    default:
        http_reply_error(request, 500, "%s", err->text);
        return false;
    }
}

static void agent_reply_done(struct http_request *request, int rc, const struct errmsg *err)
{
    if (agent_ok(request, rc, err)) {
        http_reply_empty(request, 200);
    }
}

/* --- services --- */

void http_agent_put_service(struct buffer *out, const struct agent_service *service, bool hash)
{
    const struct catalog_service *record = &service->record;

    buffer_append_char(out, '{');
    if (record->kind.size > 0) {
        buffer_append_text(out, "\"Kind\":");
        json_put_string(out, record->kind);
        buffer_append_char(out, ',');
    }
    buffer_append_text(out, "\"ID\":");
    json_put_string(out, record->id);
    catalog_json_text(out, "Service", record->name);
    catalog_json_key(out, "Tags");
    catalog_json_tags(out, record->tags);
    catalog_json_key(out, "Meta");
    catalog_json_map(out, record->meta);
    catalog_json_key(out, "Port");
    json_put_u64(out, record->port);
    catalog_json_text(out, "Address", record->address);
    if (record->tagged_addresses.count > 0) {
        catalog_json_key(out, "TaggedAddresses");
        catalog_json_tagged_addresses(out, record->tagged_addresses);
    }
    catalog_json_key(out, "Weights");
    buffer_printf(out, "{\"Passing\":%u,\"Warning\":%u}", (unsigned)record->weight_passing,
                  (unsigned)record->weight_warning);
    catalog_json_key(out, "EnableTagOverride");
    json_put_bool(out, record->enable_tag_override);
    if (record->extra.size > 2) { /* An object: its members, without the braces. */
        buffer_append_char(out, ',');
        buffer_append(out, record->extra.data + 1, record->extra.size - 2);
    }
    if (hash) {
        buffer_printf(out, ",\"ContentHash\":\"%016" PRIx64 "\"", agent_service_hash(service));
    }
    buffer_append_char(out, '}');
}

void http_agent_services(struct http_request *request)
{
    const struct agent *agent = request->server->agent;
    struct buffer body = {0};

    if (!catalog_json_filter_begin(request, FILTER_NODE_SERVICE, false)) {
        return;
    }
    buffer_append_char(&body, '{');
    for (size_t i = 0; i < agent->service_count; i++) {
        const struct agent_service *service = agent->services[i];
        if (service->deleted) {
            continue;
        }
        const size_t start = catalog_json_next(&body);
        json_put_string(&body, slice_from_text(service->id));
        buffer_append_char(&body, ':');
        const size_t object = body.size;
        http_agent_put_service(&body, service, false);
        catalog_json_filter_from(request, &body, start, object);
    }
    buffer_append_char(&body, '}');
    http_reply_json(request, buffer_slice(&body));
    buffer_deinit(&body);
}

/* A blocking query on one service: answers when its hash is another than the client's. */
struct agent_service_wait {
    struct agent_waiter waiter;
    struct http_request *request;
    bool blocks;
    uint64_t hash; /* what the client has */
};

static void agent_service_wait_on_free(struct http_request *request)
{
    struct agent_service_wait *wait = request->state;

    agent_wait_cancel(request->server->agent, &wait->waiter);
    free(wait);
}

static void agent_service_wait_on_cancel(struct http_request *request)
{
    struct agent_service_wait *wait = request->state;

    agent_wait_cancel(request->server->agent, &wait->waiter);
}

static void agent_service_reply(struct agent_service_wait *wait)
{
    struct http_request *request = wait->request;
    struct agent *agent = request->server->agent;
    const struct agent_service *service = agent_service_find(agent, request->rest);
    struct buffer body = {0};
    char hash[17];

    if (service == NULL) {
        http_reply_error(request, 404, "unknown service ID: %.*s", (int)request->rest.size,
                         request->rest.data);
        return;
    }
    if (wait->blocks && !agent->closing && agent_service_hash(service) == wait->hash &&
        server_now_ms(request->server) < wait->waiter.deadline_ms) {
        agent_wait(agent, &wait->waiter);
        return;
    }
    (void)snprintf(hash, sizeof(hash), "%016" PRIx64, agent_service_hash(service));
    http_add_header(request, "X-Consul-Contenthash", hash);
    http_agent_put_service(&body, service, true);
    http_reply_json(request, buffer_slice(&body));
    buffer_deinit(&body);
}

static void agent_service_on_wake(struct agent_waiter *waiter)
{
    struct agent_service_wait *wait =
        (struct agent_service_wait *)(void *)((char *)waiter -
                                              offsetof(struct agent_service_wait, waiter));

    agent_service_reply(wait);
}

/* Sixteen hexadecimal digits; anything else is no hash of ours, and never equal to one. */
static bool agent_parse_hash(struct slice text, uint64_t *hash)
{
    *hash = 0;
    for (size_t i = 0; i < text.size; i++) {
        const char c = slice_lower(text.data[i]);
        const bool digit = c >= '0' && c <= '9';
        if (!digit && (c < 'a' || c > 'f')) {
            return false;
        }
        *hash = *hash << 4 | (uint64_t)(digit ? c - '0' : c - 'a' + 10);
    }
    return text.size == 16;
}

void http_agent_service(struct http_request *request)
{
    const struct slice wait_text = http_param_value(request, "wait");
    const struct slice index = http_param_value(request, "index");
    uint64_t ignored_index = 0;
    struct agent_service_wait *wait;
    struct errmsg ignored;
    int64_t wait_ns = 0;
    uint64_t wait_ms = WAIT_MS_DEFAULT;

    if (wait_text.size > 0 && !duration_parse(wait_text, &wait_ns, &ignored)) {
        http_reply_error(request, 400, "Invalid wait time");
        return;
    }
    if (index.size > 0 && !http_parse_u64(index, &ignored_index, &ignored)) {
        http_reply_error(request, 400, "Invalid index"); /* The hash is waited for instead. */
        return;
    }
    wait = calloc(1, sizeof(*wait));
    if (wait == NULL) {
        http_reply_error(request, 500, "out of memory");
        return;
    }
    if (wait_ns > 0) {
        wait_ms = (uint64_t)wait_ns / WAIT_NS_PER_MS;
        wait_ms = wait_ms > WAIT_MS_MAX ? WAIT_MS_MAX : wait_ms;
    }
    wait_ms += agent_random(wait_ms / WAIT_JITTER_DIVISOR + 1);
    wait->request = request;
    wait->waiter.on_wake = agent_service_on_wake;
    wait->waiter.deadline_ms = server_now_ms(request->server) + wait_ms;
    wait->blocks = agent_parse_hash(http_param_value(request, "hash"), &wait->hash);
    request->state = wait;
    request->on_free = agent_service_wait_on_free;
    request->on_cancel = agent_service_wait_on_cancel;
    request->sleeps = true;
    agent_service_reply(wait);
}

void http_agent_service_register(struct http_request *request)
{
    struct agent *agent = request->server->agent;
    struct errmsg err;
    json_t *json = http_body_json(request, "Request decode failed");

    if (json == NULL) {
        return;
    }
    const int rc = http_has_param(request, "replace-existing-checks")
                       ? agent_service_register_replacing(agent, json, &err)
                       : agent_service_register(agent, json, &err);
    json_decref(json);
    agent_reply_done(request, rc, &err);
}

void http_agent_service_deregister(struct http_request *request)
{
    struct errmsg err;

    agent_reply_done(request, agent_service_deregister(request->server->agent, request->rest, &err),
                     &err);
}

/* ?enable=<Go's bool>; answers when it is missing or wrong. */
static bool agent_parse_enable(struct http_request *request, bool *enable)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};
    const struct http_param *param = http_param(request, "enable");

    if (param == NULL) {
        http_reply_error(request, 400, "Missing value for enable");
        return false;
    }
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (slice_equal(param->value, slice_from_text(yes[i]))) {
            *enable = true;
            return true;
        }
        if (slice_equal(param->value, slice_from_text(no[i]))) {
            *enable = false;
            return true;
        }
    }
    http_reply_error(request, 400, "Invalid value for enable: \"%.*s\"", (int)param->value.size,
                     param->value.data);
    return false;
}

void http_agent_service_maintenance(struct http_request *request)
{
    bool enable;
    struct errmsg err;

    if (request->rest.size == 0) {
        http_reply_error(request, 400, "Missing service ID");
    } else if (agent_parse_enable(request, &enable)) {
        agent_reply_done(request,
                         agent_service_maintenance(request->server->agent, request->rest, enable,
                                                   http_param_value(request, "reason"), &err),
                         &err);
    }
}

void http_agent_node_maintenance(struct http_request *request)
{
    bool enable;
    struct errmsg err;

    if (agent_parse_enable(request, &enable)) {
        agent_reply_done(request,
                         agent_node_maintenance(request->server->agent, enable,
                                                http_param_value(request, "reason"), &err),
                         &err);
    }
}

/* --- checks --- */

/* Consul looks at the selectors of this filter only when there is a check to look at. False:
 * answered. */
static bool agent_checks_filter(struct http_request *request)
{
    const struct agent *agent = request->server->agent;
    const struct slice expression = http_param_value(request, "filter");
    struct errmsg err = {""};
    size_t checks = 0;

    if (expression.size == 0) {
        return true;
    }
    request->private->filter = filter_new(FILTER_CHECK, expression, &err);
    if (request->private->filter != NULL) {
        return true;
    }
    for (size_t i = 0; i < agent->check_count; i++) {
        checks += agent->checks[i]->deleted ? 0 : 1;
    }
    if (strncmp(err.text, "Selector ", strlen("Selector ")) != 0) {
        http_reply_error(request, 500, "Failed to create boolean expression evaluator: %s",
                         err.text);
    } else if (checks > 0) {
        http_reply_error(request, 500, "%s", err.text);
    } else {
        http_reply_json(request, SLICE_LITERAL("{}"));
    }
    return false;
}

void http_agent_checks(struct http_request *request)
{
    const struct agent *agent = request->server->agent;
    struct buffer body = {0};

    if (!agent_checks_filter(request)) {
        return;
    }
    buffer_append_char(&body, '{');
    for (size_t i = 0; i < agent->check_count; i++) {
        struct catalog_check record;
        if (agent->checks[i]->deleted) {
            continue;
        }
        agent_check_record(agent, agent->checks[i], &record);
        const size_t start = catalog_json_next(&body);
        json_put_string(&body, record.id);
        buffer_append_char(&body, ':');
        const size_t object = body.size;
        catalog_json_check(&body, &record);
        catalog_json_filter_from(request, &body, start, object);
    }
    buffer_append_char(&body, '}');
    http_reply_json(request, buffer_slice(&body));
    buffer_deinit(&body);
}

void http_agent_check_register(struct http_request *request)
{
    struct errmsg err;
    json_t *json = http_body_json(request, "Request decode failed");

    if (json == NULL) {
        return;
    }
    const int rc = agent_check_register(request->server->agent, json, &err);
    json_decref(json);
    agent_reply_done(request, rc, &err);
}

void http_agent_check_deregister(struct http_request *request)
{
    struct errmsg err;

    agent_reply_done(request, agent_check_deregister(request->server->agent, request->rest, &err),
                     &err);
}

static void agent_check_set(struct http_request *request, const char *status)
{
    struct errmsg err;

    agent_reply_done(request,
                     agent_check_update_ttl(request->server->agent, request->rest, status,
                                            http_param_value(request, "note"), &err),
                     &err);
}

void http_agent_check_pass(struct http_request *request)
{
    agent_check_set(request, "passing");
}

void http_agent_check_warn(struct http_request *request)
{
    agent_check_set(request, "warning");
}

void http_agent_check_fail(struct http_request *request)
{
    agent_check_set(request, "critical");
}

struct agent_check_change {
    struct slice status;
    struct slice output;
};

void http_agent_check_update(struct http_request *request)
{
    static const struct json_field fields[] = {
        {"Status", JSON_FIELD_STRING, offsetof(struct agent_check_change, status)},
        {"Output", JSON_FIELD_STRING, offsetof(struct agent_check_change, output)},
    };
    struct agent_check_change change = {SLICE_EMPTY, SLICE_EMPTY};
    struct errmsg err;
    json_t *json = http_body_json(request, "Request decode failed");

    if (json == NULL) {
        return;
    }
    if (!json_decode(json, "checkUpdate", fields, sizeof(fields) / sizeof(fields[0]), &change,
                     &err)) {
        http_reply_error(request, 400, "Request decode failed: %s", err.text);
    } else if (!agent_status_valid(change.status)) {
        http_reply_error(request, 400, "Invalid check status: '%.*s'", (int)change.status.size,
                         change.status.data);
    } else {
        /* One of three words: there is a NUL behind it. */
        const int rc = agent_check_update_ttl(request->server->agent, request->rest,
                                              change.status.data, change.output, &err);
        agent_reply_done(request, rc, &err);
    }
    json_decref(json);
}
