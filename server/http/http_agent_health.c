/* /v1/agent/health/service/...: the worst of a local service's checks, told by the status code. */

#include "server/http/http_agent.h"

#include <stdlib.h>
#include <string.h>

#include "server/agent/agent_internal.h"
#include "server/http/catalog_json.h"
#include "server/http/http_internal.h"
#include "server/server.h"

static const char *const DEFINITION_SPELLED_OUT =
    "{\"Interval\":\"0s\",\"Timeout\":\"0s\",\"DeregisterCriticalServiceAfter\":\"0s\","
    "\"HTTP\":\"\",\"Header\":null,\"Method\":\"\",\"Body\":\"\",\"TLSSkipVerify\":false,"
    "\"TCP\":\"\"}";

enum agent_health { HEALTH_PASSING, HEALTH_WARNING, HEALTH_CRITICAL, HEALTH_MAINTENANCE };

static const struct {
    const char *text;
    int status;
} health_words[] = {
    [HEALTH_PASSING] = {"passing", 200},
    [HEALTH_WARNING] = {"warning", 429},
    [HEALTH_CRITICAL] = {"critical", 503},
    [HEALTH_MAINTENANCE] = {"maintenance", 503},
};

static bool agent_check_concerns(const struct agent_check *check,
                                 const struct agent_service *service)
{
    return !check->deleted && (check->spec.service_id.size == 0 ||
                               slice_equal(check->spec.service_id, slice_from_text(service->id)));
}

/* The worst of the service's checks and the node's. */
static enum agent_health agent_health_of(const struct agent *agent,
                                         const struct agent_service *service)
{
    enum agent_health worst = HEALTH_PASSING;

    for (size_t i = 0; i < agent->check_count; i++) {
        const struct agent_check *check = agent->checks[i];
        if (!agent_check_concerns(check, service)) {
            continue;
        }
        const enum agent_health health = check->type == AGENT_CHECK_MAINTENANCE ? HEALTH_MAINTENANCE
                                         : check->status == PROBE_CRITICAL      ? HEALTH_CRITICAL
                                         : check->status == PROBE_WARNING       ? HEALTH_WARNING
                                                                                : HEALTH_PASSING;
        worst = health > worst ? health : worst;
    }
    return worst;
}

/* These two endpoints show a check in the API client's form: type left out, definition spelled
 * out, tags null, no indexes. */
static void agent_put_health_check(struct buffer *out, const struct agent *agent,
                                   const struct agent_check *check)
{
    struct catalog_check record;

    agent_check_record(agent, check, &record);
    record.type = SLICE_EMPTY;
    record.definition = slice_from_text(DEFINITION_SPELLED_OUT);
    record.create_index = 0;
    record.modify_index = 0;
    if (record.service_tags.count == 0) {
        record.service_tags = STRINGS_NULL;
    }
    catalog_json_check_stored(out, &record);
}

static void agent_put_health(struct buffer *out, const struct agent *agent,
                             const struct agent_service *service)
{
    buffer_printf(out, "{\"AggregatedStatus\":\"%s\",\"Service\":",
                  health_words[agent_health_of(agent, service)].text);
    http_agent_put_service(out, service, false);
    buffer_append_text(out, ",\"Checks\":[");
    for (size_t i = 0; i < agent->check_count; i++) {
        if (agent_check_concerns(agent->checks[i], service)) {
            (void)catalog_json_next(out);
            agent_put_health_check(out, agent, agent->checks[i]);
        }
    }
    buffer_append_text(out, "]}");
}

static void agent_reply_health_json(struct http_request *request, int status, struct slice json)
{
    struct buffer pretty = {0};

    if (request->pretty) {
        json_indent(&pretty, json);
    }
    http_reply(request, status, "application/json",
               request->pretty && !pretty.failed ? buffer_slice(&pretty) : json);
    buffer_deinit(&pretty);
}

/* Bodies that are texts say so without a charset here. */
static void agent_reply_health(struct http_request *request, enum agent_health health,
                               const struct buffer *json)
{
    const char *text = health_words[health].text;
    const int status = health_words[health].status;

    http_add_header(request, "X-Consul-Reason", text);
    if (slice_equal(http_param_value(request, "format"), SLICE_LITERAL("text"))) {
        http_reply(request, status, "text/plain", slice_from_text(text));
    } else {
        agent_reply_health_json(request, status, buffer_slice(json));
    }
}

/* The reason names what the client asked for: one that is no header is left out. */
static void agent_add_reason(struct http_request *request, const struct buffer *text)
{
    struct buffer copy = {0};

    buffer_append_slice(&copy, buffer_slice(text));
    buffer_append_char(&copy, '\0');
    if (!copy.failed && strlen(copy.data) + 1 == copy.size) {
        http_add_header(request, "X-Consul-Reason", copy.data);
    }
    buffer_deinit(&copy);
}

void http_agent_health_by_id(struct http_request *request)
{
    const struct agent *agent = request->server->agent;
    const struct agent_service *service = agent_service_find(agent, request->rest);
    struct buffer body = {0};

    if (request->rest.size == 0) {
        http_reply_error(request, 500, "Bad request: Missing serviceID");
        return;
    }
    if (service != NULL) {
        agent_put_health(&body, agent, service);
        agent_reply_health(request, agent_health_of(agent, service), &body);
        buffer_deinit(&body);
        return;
    }
    struct buffer text = {0};
    buffer_printf(&text, "ServiceId %.*s not found", (int)request->rest.size, request->rest.data);
    agent_add_reason(request, &text);
    if (slice_equal(http_param_value(request, "format"), SLICE_LITERAL("text"))) {
        /* A JSON string, although a text was asked for: Consul's own. */
        json_put_string(&body, buffer_slice(&text));
        agent_reply_health_json(request, 404, buffer_slice(&body));
    } else {
        agent_reply_health_json(request, 404,
                                SLICE_LITERAL("{\"AggregatedStatus\":\"critical\",\"Service\":null,"
                                              "\"Checks\":null}"));
    }
    buffer_deinit(&text);
    buffer_deinit(&body);
}

void http_agent_health_by_name(struct http_request *request)
{
    const struct agent *agent = request->server->agent;
    enum agent_health worst = HEALTH_PASSING;
    struct buffer body = {0};
    bool found = false;

    if (request->rest.size == 0) {
        http_reply_error(request, 500, "Bad request: Missing service Name");
        return;
    }
    buffer_append_char(&body, '[');
    for (size_t i = 0; i < agent->service_count; i++) {
        const struct agent_service *service = agent->services[i];
        if (service->deleted || !slice_equal(service->record.name, request->rest)) {
            continue;
        }
        const enum agent_health health = agent_health_of(agent, service);
        worst = health > worst ? health : worst;
        found = true;
        (void)catalog_json_next(&body);
        agent_put_health(&body, agent, service);
    }
    buffer_append_char(&body, ']');
    if (found) {
        agent_reply_health(request, worst, &body);
        buffer_deinit(&body);
        return;
    }
    struct buffer text = {0};
    buffer_printf(&text, "ServiceName %.*s Not Found", (int)request->rest.size, request->rest.data);
    agent_add_reason(request, &text);
    if (slice_equal(http_param_value(request, "format"), SLICE_LITERAL("text"))) {
        http_reply(request, 404, "text/plain", buffer_slice(&text));
    } else {
        agent_reply_health_json(request, 404, buffer_slice(&body));
    }
    buffer_deinit(&text);
    buffer_deinit(&body);
}
