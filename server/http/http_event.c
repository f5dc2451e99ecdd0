/* /v1/event/...: user events. Consul spreads them by gossip; here an event is known to the server
 * that it was fired at, until it stops. */

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
    EVENT_RING_MAX = 256,           /* events remembered */
    EVENT_BYTES_MAX = 512,          /* name and payload of one, as in Consul */
    EVENT_WAIT_JITTER_DIVISOR = 16, /* up to a sixteenth is added to ?wait */
};

struct event {
    struct uuid id;
    struct buffer json; /* without its LTime and closing brace */
    struct buffer name;
    uint64_t ltime;
};

struct http_events {
    struct event ring[EVENT_RING_MAX];
    size_t count; /* ever kept; the newest is at (count - 1) % EVENT_RING_MAX */
    uint64_t ltime;
};

void http_events_free(struct http_events *events)
{
    for (size_t i = 0; events != NULL && i < EVENT_RING_MAX; i++) {
        buffer_deinit(&events->ring[i].json);
        buffer_deinit(&events->ring[i].name);
    }
    free(events);
}

/* --- firing --- */

/* Compiles one of the filters, to see that it is one. False: answered. */
static bool event_filter(struct http_request *request, const char *name, struct regex **out)
{
    const struct slice pattern = http_param_value(request, name);
    struct errmsg err = {""};

    *out = NULL;
    if (pattern.size == 0) {
        return true;
    }
    *out = regex_new(pattern, &err);
    if (*out == NULL) {
        http_reply_error(request, 500, "Invalid %s filter: %s", name, err.text);
        return false;
    }
    return true;
}

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

static void event_put(struct buffer *out, struct http_request *request, const struct uuid *id)
{
    char text[UUID_TEXT_BYTES + 1];

    uuid_format(id, text);
    buffer_printf(out, "{\"ID\":\"%s\",\"Name\":", text);
    json_put_string(out, request->rest);
    buffer_append_text(out, ",\"Payload\":");
    json_put_base64(out, request->body);
    buffer_append_text(out, ",\"NodeFilter\":");
    json_put_string(out, http_param_value(request, "node"));
    buffer_append_text(out, ",\"ServiceFilter\":");
    json_put_string(out, http_param_value(request, "service"));
    buffer_append_text(out, ",\"TagFilter\":");
    json_put_string(out, http_param_value(request, "tag"));
    buffer_append_text(out, ",\"Version\":1,\"LTime\":");
}

/* Remembers the event; false without memory. */
static bool event_keep(struct http_request *request, const struct uuid *id, struct slice json)
{
    struct http_server *http = request->conn->http;

    if (http->events == NULL) {
        http->events = calloc(1, sizeof(*http->events));
    }
    if (http->events == NULL) {
        return false;
    }
    struct event *event = &http->events->ring[http->events->count % EVENT_RING_MAX];
    buffer_clear(&event->json);
    buffer_clear(&event->name);
    buffer_append_slice(&event->json, json);
    buffer_append_slice(&event->name, request->rest);
    event->id = *id;
    event->ltime = ++http->events->ltime;
    http->events->count++;
    return !event->json.failed && !event->name.failed;
}

/* Answers, and delivers to this server if it is meant. */
static void event_fire_to(struct http_request *request, struct regex *node, struct regex *service,
                          struct regex *tag)
{
    struct agent *agent = request->server->agent;
    const struct slice name = slice_from_text(request->server->config->node_name);
    const struct uuid id = server_random_uuid();
    struct buffer json = {0};
    bool kept = true;

    event_put(&json, request, &id);
    const bool meant =
        (node == NULL || regex_matches(node, name)) &&
        (service == NULL || (agent != NULL && event_service_matches(agent, service, tag)));
    if (meant && !json.failed) {
        kept = event_keep(request, &id, buffer_slice(&json));
    }
    if (json.failed || !kept) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
    } else {
        buffer_append_text(&json, "0}");
        http_reply_json(request, buffer_slice(&json));
        if (meant &&
            agent != NULL) { /* It starts before and stops after us, but not in every test. */
            agent_wake(agent, UINT64_MAX);
        }
    }
    buffer_deinit(&json);
}

static void event_fire(struct http_request *request)
{
    struct regex *node = NULL;
    struct regex *service = NULL;
    struct regex *tag = NULL;

    if (request->rest.size == 0) {
        http_reply_error(request, 400, "Missing name");
        return;
    }
    if (!event_filter(request, "node", &node)) {
        return;
    }
    if (http_param_value(request, "tag").size > 0 &&
        http_param_value(request, "service").size == 0) {
        http_reply_error(request, 500, "Cannot provide tag filter without service filter");
    } else if (event_filter(request, "service", &service) && event_filter(request, "tag", &tag) &&
               http_check_datacenter(request, 0)) {
        if (request->rest.size + request->body.size > EVENT_BYTES_MAX) {
            http_reply_error(request, 500,
                             "1 error occurred:\n\t* error broadcasting event to segment \"\": "
                             "user event exceeds configured limit of %d bytes before encoding\n\n",
                             EVENT_BYTES_MAX);
        } else {
            event_fire_to(request, node, service, tag);
        }
    }
    regex_free(node);
    regex_free(service);
    regex_free(tag);
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
    const struct http_events *events = request->conn->http->events;
    const struct slice name = http_param_value(request, "name");
    const size_t count = events == NULL ? 0 : events->count;
    uint64_t index = 1;

    buffer_append_char(out, '[');
    for (size_t i = count > EVENT_RING_MAX ? count - EVENT_RING_MAX : 0; i < count; i++) {
        const struct event *event = &events->ring[i % EVENT_RING_MAX];

        if (name.size > 0 && !slice_equal(name, buffer_slice(&event->name))) {
            continue;
        }
        if (out->data[out->size - 1] != '[') {
            buffer_append_char(out, ',');
        }
        buffer_append_slice(out, buffer_slice(&event->json));
        json_put_u64(out, event->ltime);
        buffer_append_char(out, '}');
        index = event_index(event);
        if (out->failed) {
            return index;
        }
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

    if (!http_parse_common(request)) { /* Events are the agent's: no datacenter is looked at. */
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
    event_list_answer(wait);
}

const struct http_route http_routes_event[] = {
    {"/v1/event/fire/", HTTP_METHOD_PUT, "OPTIONS,PUT", event_fire},
    {"/v1/event/list", HTTP_METHOD_GET, "OPTIONS,GET", event_list},
    {NULL, 0, NULL, NULL},
};
