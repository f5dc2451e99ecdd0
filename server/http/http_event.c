/* /v1/event/...: user events. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/agent/agent.h"
#include "server/agent/agent_internal.h"
#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/http/regex.h"
#include "server/server.h"

enum {
    EVENT_BYTES_MAX = 512,          /* of an event as Consul's gossip would carry it */
    EVENT_WAIT_JITTER_DIVISOR = 16, /* up to a sixteenth is added to ?wait */
};

static_assert(EVENT_BYTES_MAX <= (int)EVENTS_FIELD_BYTES_MAX, "what we fire others take");

/* --- who is meant --- */

/* Whether a service of this agent's passes the filters. */
static bool event_service_matches(const struct agent *agent, struct regex *service,
                                  struct regex *tag)
{
    for (size_t i = 0; i < agent->service_count; i++) {
        const struct catalog_service *record = &agent->services[i]->record;
        struct reader it = strings_begin(record->tags);
        struct slice text;

        if (agent->services[i]->deleted || !regex_matches(service, record->name)) {
            continue;
        }
        bool tagged = tag == NULL;
        while (!tagged && strings_next(&it, &text)) {
            tagged = regex_matches(tag, text);
        }
        if (tagged) {
            return true;
        }
    }
    return false;
}

/* A filter of another server's may be none for us: then nobody here is meant. */
static bool event_compile(struct slice pattern, struct regex **out)
{
    struct errmsg ignored;

    *out = pattern.size == 0 ? NULL : regex_new(pattern, &ignored);
    return *out != NULL || pattern.size == 0;
}

static bool event_is_meant(void *context, const struct event *event)
{
    const struct server *server = ((struct http_server *)context)->server;
    const struct slice node_name = slice_from_text(server->config->node_name);
    struct regex *node = NULL;
    struct regex *service = NULL;
    struct regex *tag = NULL;
    const bool compiled = event_compile(event->node_filter, &node) &&
                          event_compile(event->service_filter, &service) &&
                          event_compile(event->tag_filter, &tag);
    const bool meant = compiled && (node == NULL || regex_matches(node, node_name)) &&
                       (service == NULL || (server->agent != NULL &&
                                            event_service_matches(server->agent, service, tag)));

    regex_free(node);
    regex_free(service);
    regex_free(tag);
    return meant;
}

static void event_on_event(void *context)
{
    struct agent *agent = ((struct http_server *)context)->server->agent;

    if (agent != NULL) { /* It starts before and stops after us, but not in every test. */
        agent_wake(agent, UINT64_MAX);
    }
}

struct events *http_events(struct http_server *http)
{
    const struct events_handlers handlers = {
        .context = http, .is_meant = event_is_meant, .on_event = event_on_event};

    if (http->events == NULL) {
        http->events = events_new(&handlers);
    }
    return http->events;
}

/* --- firing --- */

/* Sees that a filter is one. False: answered. */
static bool event_check_filter(struct http_request *request, const char *name)
{
    const struct slice pattern = http_param_value(request, name);
    struct errmsg err = {""};
    struct regex *regex = pattern.size == 0 ? NULL : regex_new(pattern, &err);

    if (regex == NULL && pattern.size > 0) {
        http_reply_error(request, 500, "Invalid %s filter: %s", name, err.text);
        return false;
    }
    regex_free(regex);
    return true;
}

/* Bytes of a text in MessagePack, without and with the format's later, shorter heads. */
static size_t event_raw_bytes(size_t size)
{
    return size + (size > 31 ? 3 : 1);
}

static size_t event_text_bytes(size_t size)
{
    return size + (size > 255 ? 3 : size > 31 ? 2 : 1);
}

/* Consul's limit is one of gossip's messages: an event that it takes must be taken here, and the
 * other way round. Computed for its encoding: an outer message that holds name and payload, where
 * the payload is a message with the name once more, the client's payload, and the filters. Returns
 * the error, NULL if there is none. */
static const char *event_size_problem(const struct event *event)
{
    enum { OUTER_BYTES = 29, FIXED_BYTES = 78, PREFIX_BYTES = 13, KEY_BYTES = 3 };
    const struct slice filters[] = {event->node_filter, event->service_filter, event->tag_filter};
    const size_t outer_name = event_raw_bytes(PREFIX_BYTES + event->name.size);
    size_t encoded = FIXED_BYTES + outer_name + event_text_bytes(event->name.size);

    if (event->payload.size > 0) {
        encoded += event->payload.size + (event->payload.size > 255 ? 3 : 2);
    }
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        if (filters[i].size > 0) {
            encoded += KEY_BYTES + event_text_bytes(filters[i].size);
        }
    }
    const size_t before = encoded - OUTER_BYTES - (outer_name - PREFIX_BYTES - event->name.size);

    return before > EVENT_BYTES_MAX
               ? "user event exceeds configured limit of 512 bytes before encoding"
           : encoded > EVENT_BYTES_MAX
               ? "encoded user event exceeds configured limit of 512 bytes after encoding"
               : NULL;
}

static void event_put(struct buffer *out, const struct event *event, uint64_t ltime)
{
    char text[UUID_TEXT_BYTES + 1];

    uuid_format(&event->id, text);
    buffer_printf(out, "{\"ID\":\"%s\",\"Name\":", text);
    json_put_string(out, event->name);
    buffer_append_text(out, ",\"Payload\":");
    json_put_base64(out, event->payload);
    buffer_append_text(out, ",\"NodeFilter\":");
    json_put_string(out, event->node_filter);
    buffer_append_text(out, ",\"ServiceFilter\":");
    json_put_string(out, event->service_filter);
    buffer_append_text(out, ",\"TagFilter\":");
    json_put_string(out, event->tag_filter);
    buffer_append_text(out, ",\"Version\":1,\"LTime\":");
    json_put_u64(out, ltime);
    buffer_append_char(out, '}');
}

/* Tells the servers that are meant, and answers. */
static void event_send(struct http_request *request, struct event *event)
{
    struct events *events = http_events(request->conn->http);
    struct buffer json = {0};

    event_put(&json, event, 0); /* Consul's answer does not know it yet. */
    if (events == NULL || json.failed ||
        !events_fire(events, event, server_now_ms(request->server))) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
    } else {
        metrics_count(request->server->metrics, METRIC_EVENT_FIRE, 1);
        http_reply_json(request, buffer_slice(&json));
    }
    buffer_deinit(&json);
}

static void event_fire(struct http_request *request)
{
    struct event event = {
        .name = request->rest,
        .payload = request->body,
        .node_filter = http_param_value(request, "node"),
        .service_filter = http_param_value(request, "service"),
        .tag_filter = http_param_value(request, "tag"),
    };

    if (request->rest.size == 0) {
        http_reply_error(request, 400, "Missing name");
        return;
    }
    if (!event_check_filter(request, "node")) {
        return;
    }
    if (event.tag_filter.size > 0 && event.service_filter.size == 0) {
        http_reply_error(request, 500, "Cannot provide tag filter without service filter");
        return;
    }
    if (!event_check_filter(request, "service") || !event_check_filter(request, "tag") ||
        !http_check_datacenter(request, 0)) {
        return;
    }
    const char *problem = event_size_problem(&event);
    if (problem != NULL) {
        http_reply_error(request, 500,
                         "1 error occurred:\n\t* error broadcasting event to segment \"\": %s\n\n",
                         problem);
        return;
    }
    event.id = server_random_uuid();
    event_send(request, &event);
}

/* --- listing --- */

struct event_wait {
    struct agent_waiter waiter;
    struct http_request *request;
    uint64_t index; /* what the client has; 0: does not wait */
};

/* Consul's: both halves of the id, so no order. */
static uint64_t event_index(const struct event *event)
{
    uint64_t halves[2] = {0, 0};

    for (size_t i = 0; i < UUID_BYTES; i++) {
        halves[i / 8] = halves[i / 8] << 8 | event->id.bytes[i];
    }
    const uint64_t index = halves[0] ^ halves[1];
    return index > 0 ? index : 1;
}

/* Appends the list, oldest first; returns the newest one's index, 1 for none. */
static uint64_t event_put_list(struct http_request *request, struct buffer *out)
{
    const struct events *events = request->conn->http->events;
    const struct slice name = http_param_value(request, "name");
    const uint64_t count = events == NULL ? 0 : events_count(events);
    uint64_t index = 1;

    buffer_append_char(out, '[');
    for (uint64_t i = 0; i < count && !out->failed; i++) {
        const struct event *event = events_at(events, i);

        if (name.size > 0 && !slice_equal(name, event->name)) {
            continue;
        }
        if (out->data[out->size - 1] != '[') {
            buffer_append_char(out, ',');
        }
        event_put(out, event, event->ltime);
        index = event_index(event);
    }
    buffer_append_char(out, ']');
    return index;
}

static void event_list_answer(struct event_wait *wait)
{
    struct http_request *request = wait->request;
    struct agent *agent = request->server->agent;
    struct buffer body = {0};
    char index_text[24];
    const uint64_t index = event_put_list(request, &body);

    if (agent != NULL && wait->index == index && !agent->closing &&
        !request->conn->http->draining &&
        server_now_ms(request->server) < wait->waiter.deadline_ms) {
        buffer_deinit(&body);
        agent_wait(agent, &wait->waiter);
        return;
    }
    (void)snprintf(index_text, sizeof(index_text), "%llu", (unsigned long long)index);
    http_add_header(request, "X-Consul-Index", index_text);
    if (body.failed) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
    } else {
        http_reply_json(request, buffer_slice(&body));
    }
    buffer_deinit(&body);
}

static void event_on_wake(struct agent_waiter *waiter)
{
    static_assert(offsetof(struct event_wait, waiter) == 0, "the cast below");
    event_list_answer((struct event_wait *)(void *)waiter);
}

static void event_on_cancel(struct http_request *request)
{
    struct event_wait *wait = request->state;

    agent_wait_cancel(request->server->agent, &wait->waiter);
}

static void event_on_free(struct http_request *request)
{
    event_on_cancel(request);
    free(request->state);
}

static void event_list(struct http_request *request)
{
    const struct http_request_private *private = request->private;

    if (!http_parse_wait(request)) { /* Events are the agent's: there is nothing else to ask for. */
        return;
    }
    struct event_wait *wait = calloc(1, sizeof(*wait));
    if (wait == NULL) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
        return;
    }
    const uint64_t jitter = private->wait_ms / EVENT_WAIT_JITTER_DIVISOR;
    wait->request = request;
    wait->index = private->min_index;
    wait->waiter.on_wake = event_on_wake;
    wait->waiter.deadline_ms = server_now_ms(request->server) + private->wait_ms +
                               http_random(request->conn->http) % (jitter + 1);
    request->state = wait;
    request->on_free = event_on_free;
    request->on_cancel = event_on_cancel;
    request->sleeps = true;
    event_list_answer(wait);
}

const struct http_route http_routes_event[] = {
    {"/v1/event/fire/", HTTP_METHOD_PUT, "OPTIONS,PUT", event_fire},
    {"/v1/event/list", HTTP_METHOD_GET, "OPTIONS,GET", event_list},
    {NULL, 0, NULL, NULL},
};
