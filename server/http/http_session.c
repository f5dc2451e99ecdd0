/* /v1/session: creation with all forms that Consul takes, renewal, destruction, and reading. */

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/server.h"
#include "session/session.h"

#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL
#define SESSION_TTL_NS_MAX (86400LL * NS_PER_S)
/* A lock delay below this many nanoseconds was meant as seconds. */
#define LOCK_DELAY_SECONDS_BELOW 1000

static const struct slice SERF_HEALTH = {"serfHealth", 10};

/* --- identifiers --- */

/* As go-memdb's UUID index reads one. */
bool http_session_id_check(struct slice id, struct errmsg *err)
{
    static const char prefix[] = "failed session lookup: index error: ";
    unsigned dashes = 0;

    if (id.size != UUID_TEXT_BYTES) {
        (void)errmsg_set(err, 0, "%sUUID must be %d characters", prefix, UUID_TEXT_BYTES);
        return false;
    }
    for (size_t i = 0; i < id.size; i++) {
        dashes += id.data[i] == '-';
    }
    if (dashes > 4) {
        (void)errmsg_set(err, 0, "%sUUID should have maximum of 4 \"-\"; got %u", prefix, dashes);
        return false;
    }
    if ((id.size - dashes) % 2 != 0) {
        (void)errmsg_set(err, 0, "%sInput (without hyphens) must be even length", prefix);
        return false;
    }
    for (size_t i = 0; i < id.size; i++) {
        const unsigned char c = (unsigned char)id.data[i];
        const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');

        if (!hex && c != '-') {
            (void)errmsg_set(err, 0, "%sInvalid UUID: encoding/hex: invalid byte: U+%04X '%c'",
                             prefix, c, c >= 0x20 && c < 0x7f ? c : '?');
            return false;
        }
    }
    return true;
}

/* --- showing --- */

static void session_put_service_checks(struct buffer *out, struct strings pairs)
{
    struct reader it = strings_begin(pairs);
    struct slice id;
    struct slice name_space;
    bool first = true;

    if (pairs.null) {
        buffer_append_text(out, "null");
        return;
    }
    buffer_append_char(out, '[');
    while (strings_next(&it, &id) && strings_next(&it, &name_space)) {
        buffer_append_text(out, first ? "{\"ID\":" : ",{\"ID\":");
        first = false;
        json_put_string(out, id);
        buffer_append_text(out, ",\"Namespace\":");
        json_put_string(out, name_space);
        buffer_append_char(out, '}');
    }
    buffer_append_char(out, ']');
}

static void session_put(struct buffer *out, const struct session *session)
{
    char id[UUID_TEXT_BYTES + 1];

    uuid_format(&session->id, id);
    buffer_append_text(out, "{\"ID\":\"");
    buffer_append(out, id, UUID_TEXT_BYTES);
    buffer_append_text(out, "\",\"Name\":");
    json_put_string(out, session->name);
    buffer_append_text(out, ",\"Node\":");
    json_put_string(out, session->node);
    buffer_append_text(out, ",\"LockDelay\":");
    json_put_i64(out, (int64_t)session->lock_delay_ns); /* Negative ones are stored as given. */
    buffer_append_text(out, session->behavior == SESSION_DELETE
                                ? ",\"Behavior\":\"delete\",\"TTL\":"
                                : ",\"Behavior\":\"release\",\"TTL\":");
    json_put_string(out, session->ttl);
    buffer_append_text(out, ",\"NodeChecks\":");
    json_put_strings(out, session->node_checks);
    buffer_append_text(out, ",\"ServiceChecks\":");
    session_put_service_checks(out, session->service_checks);
    if (!session->checks.null && session->checks.count > 0) {
        buffer_append_text(out, ",\"Checks\":");
        json_put_strings(out, session->checks);
    }
    buffer_append_text(out, ",\"CreateIndex\":");
    json_put_u64(out, session->create_index);
    buffer_append_text(out, ",\"ModifyIndex\":");
    json_put_u64(out, session->modify_index);
    buffer_append_char(out, '}');
}

/* --- create --- */

/* A session as a request describes it; the lists' bytes are here until it is encoded. */
struct session_form {
    struct session session;
    int64_t lock_delay_ns;
    struct slice behavior;
    struct buffer checks;
    struct buffer node_checks;
    struct buffer service_checks;
};

static bool form_fail(struct http_request *request, const char *field, const char *wanted)
{
    http_reply_error(request, 400,
                     "Request decode failed: json: cannot unmarshal value into Go struct field "
                     ".%s of type %s",
                     field, wanted);
    return false;
}

/* Members that are missing or null leave *out as it is. The text belongs to `root`. */
static bool form_string(struct http_request *request, const json_t *root, const char *name,
                        struct slice *out)
{
    const json_t *value = json_member(root, name);

    if (value == NULL || json_is_null(value)) {
        return true;
    }
    if (!json_is_string(value)) {
        return form_fail(request, name, "string");
    }
    *out = (struct slice){json_string_value(value), json_string_length(value)};
    return true;
}

static bool form_strings(struct http_request *request, const json_t *root, const char *name,
                         struct buffer *packed, struct strings *out)
{
    const json_t *value = json_member(root, name);
    uint32_t count = 0;

    if (value == NULL) {
        return true;
    }
    if (json_is_null(value)) {
        *out = STRINGS_NULL;
        return true;
    }
    if (!json_is_array(value)) {
        return form_fail(request, name, "[]string");
    }
    buffer_clear(packed);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);

        if (json_is_null(item)) {
            continue; /* Consul asks nothing of it. */
        }
        if (json_is_string(item)) {
            strings_pack_add(packed,
                             (struct slice){json_string_value(item), json_string_length(item)});
        } else {
            return form_fail(request, name, "string");
        }
        count++;
    }
    *out = strings_from_packed(buffer_slice(packed), count);
    return true;
}

static bool form_service_checks(struct http_request *request, const json_t *root,
                                struct session_form *form)
{
    const json_t *value = json_member(root, "ServiceChecks");
    uint32_t count = 0;

    if (value == NULL || json_is_null(value)) {
        return true; /* null is the default. */
    }
    if (!json_is_array(value)) {
        return form_fail(request, "ServiceChecks", "[]structs.ServiceCheck");
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        struct slice id = SLICE_EMPTY;
        struct slice name_space = SLICE_EMPTY;

        if (!json_is_object(item) && !json_is_null(item)) {
            return form_fail(request, "ServiceChecks", "structs.ServiceCheck");
        }
        if (!form_string(request, item, "ID", &id) ||
            !form_string(request, item, "Namespace", &name_space)) {
            return false;
        }
        strings_pack_add(&form->service_checks, id);
        strings_pack_add(&form->service_checks, name_space);
        count += 2;
    }
    form->session.service_checks = strings_from_packed(buffer_slice(&form->service_checks), count);
    return true;
}

static int64_t real_to_ns(double value)
{
    /* Outside of the range Go's conversion gives the lowest number. */
    if (!(value > -9.2e18 && value < 9.2e18)) {
        return INT64_MIN;
    }
    return (int64_t)value;
}

static bool form_lock_delay(struct http_request *request, const json_t *root,
                            struct session_form *form)
{
    const json_t *value = json_member(root, "LockDelay");
    struct errmsg err;
    int64_t ns = 0;

    if (value == NULL || json_is_null(value)) {
        return true;
    }
    if (json_is_string(value)) {
        const struct slice text = {json_string_value(value), json_string_length(value)};

        if (!duration_parse(text, &ns, &err)) {
            http_reply_error(request, 400, "Request decode failed: %s", err.text);
            return false;
        }
    } else if (json_is_number(value)) {
        ns = real_to_ns(json_number_value(value)); /* Whole ones, too: as Go reads any number. */
    }
    if (ns < LOCK_DELAY_SECONDS_BELOW) {
        ns = (int64_t)((uint64_t)ns * (uint64_t)NS_PER_S); /* Wraps, as in Consul. */
    }
    form->lock_delay_ns = ns;
    return true;
}

/* The legacy list and its successor: what is left of each (Consul's fixupEmptySessionChecks). */
static void form_settle_checks(struct session_form *form)
{
    struct session *session = &form->session;
    struct reader it = strings_begin(session->checks);
    struct slice first = SLICE_EMPTY;

    if (session->checks.null || session->checks.count == 0) {
        buffer_clear(&form->node_checks);
        session->node_checks = strings_from_packed(buffer_slice(&form->node_checks), 0);
        session->checks = STRINGS_NULL;
        return;
    }
    if (session->node_checks.null || session->node_checks.count == 0) {
        session->checks = STRINGS_NULL;
        return;
    }
    (void)strings_next(&it, &first);
    if (session->checks.count == 1 && slice_equal(first, SERF_HEALTH)) {
        session->checks = STRINGS_NULL;
    }
}

static void form_defaults(struct http_request *request, struct session_form *form)
{
    memset(form, 0, sizeof(*form));
    form->session.node = slice_from_text(request->server->config->node_name);
    form->session.name = SLICE_EMPTY;
    form->session.ttl = SLICE_EMPTY;
    form->behavior = SLICE_EMPTY;
    form->lock_delay_ns = (int64_t)SESSION_LOCK_DELAY_NS_DEFAULT;
    form->session.service_checks = STRINGS_NULL;
    strings_pack_add(&form->checks, SERF_HEALTH);
    form->session.checks = strings_from_packed(buffer_slice(&form->checks), 1);
    strings_pack_add(&form->node_checks, SERF_HEALTH);
    form->session.node_checks = strings_from_packed(buffer_slice(&form->node_checks), 1);
}

static bool form_decode(struct http_request *request, const json_t *root, struct session_form *form)
{
    if (json_is_null(root)) {
        return true;
    }
    if (!json_is_object(root)) {
        http_reply_error(request, 400,
                         "Request decode failed: json: cannot unmarshal value into Go value of "
                         "type structs.Session");
        return false;
    }
    return form_string(request, root, "Name", &form->session.name) &&
           form_string(request, root, "Node", &form->session.node) &&
           form_string(request, root, "Behavior", &form->behavior) &&
           form_string(request, root, "TTL", &form->session.ttl) &&
           form_lock_delay(request, root, form) &&
           form_strings(request, root, "Checks", &form->checks, &form->session.checks) &&
           form_strings(request, root, "NodeChecks", &form->node_checks,
                        &form->session.node_checks) &&
           form_service_checks(request, root, form);
}

static bool form_check_ttl(struct http_request *request, struct session *session)
{
    const int64_t ttl_ns_min = (int64_t)request->server->config->session_ttl_min_ns;
    struct errmsg err;
    int64_t ns = 0;
    char low[32];
    char high[32];

    if (session->ttl.size == 0) {
        return true;
    }
    if (!duration_parse(session->ttl, &ns, &err)) {
        http_reply_error(request, 500, "Session TTL '%.*s' invalid: %s", (int)session->ttl.size,
                         session->ttl.data, err.text);
        return false;
    }
    if (ns != 0 && (ns < ttl_ns_min || ns > SESSION_TTL_NS_MAX)) {
        request->conn->session_ttl_refused = true;
        duration_format(ttl_ns_min, low, sizeof(low));
        duration_format(SESSION_TTL_NS_MAX, high, sizeof(high));
        http_reply_error(request, 500, "Invalid Session TTL '%" PRId64 "', must be between [%s=%s]",
                         ns, low, high);
        return false;
    }
    /* Rounded up: never shorter than asked for. */
    session->ttl_ms = (uint64_t)((ns + NS_PER_MS - 1) / NS_PER_MS);
    return true;
}

/* What Consul's leader checks before it asks the log. */
static bool form_check(struct http_request *request, struct session_form *form)
{
    struct session *session = &form->session;

    if (!http_check_datacenter(request, 0)) {
        return false;
    }
    if (session->node.size == 0) {
        http_reply_failure(request, 0, "Must provide Node");
        return false;
    }
    if (form->behavior.size == 0 || slice_equal(form->behavior, SLICE_LITERAL("release"))) {
        session->behavior = SESSION_RELEASE;
    } else if (slice_equal(form->behavior, SLICE_LITERAL("delete"))) {
        session->behavior = SESSION_DELETE;
    } else {
        http_reply_error(request, 500, "Invalid Behavior setting '%.*s'", (int)form->behavior.size,
                         form->behavior.data);
        return false;
    }
    return form_check_ttl(request, session);
}

static void session_created(struct http_request *request, const struct command_result *result)
{
    char id[UUID_TEXT_BYTES + 1];
    char json[UUID_TEXT_BYTES + 16];

    (void)result;
    uuid_format(&request->private->session_id, id);
    const int size = snprintf(json, sizeof(json), "{\"ID\":\"%s\"}", id);

    http_reply_json(request, (struct slice){json, (size_t)size});
}

static void session_create_form(struct http_request *request, struct session_form *form)
{
    struct buffer *command = &request->conn->http->command;

    form_settle_checks(form);
    if (!form_check(request, form)) {
        return;
    }
    form->session.id = server_random_uuid();
    form->session.lock_delay_ns = (uint64_t)form->lock_delay_ns;
    request->private->session_id = form->session.id;
    buffer_clear(command);
    command_encode_session_create(command, &form->session);
    if (command->failed || form->checks.failed || form->node_checks.failed ||
        form->service_checks.failed) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
        return;
    }
    http_write_start(request, buffer_slice(command), session_created);
}

static void session_create_handler(struct http_request *request)
{
    struct session_form form;
    json_t *root = NULL;
    bool decoded = true;

    form_defaults(request, &form);
    /* A body without Content-Length is not looked at, as in Consul 1.8. */
    if (request->has_content_length && request->content_length > 0) {
        root = http_body_json(request, "Request decode failed");
        decoded = root != NULL && form_decode(request, root, &form);
    }
    if (decoded) {
        session_create_form(request, &form);
    }
    json_decref(root);
    buffer_deinit(&form.checks);
    buffer_deinit(&form.node_checks);
    buffer_deinit(&form.service_checks);
}

/* --- destroy and renew --- */

/* The id in the path. False: answered with Consul's error. *exists is false for an id that no
 * session can have. */
static bool session_path_id(struct http_request *request, unsigned flags, struct uuid *id,
                            bool *exists)
{
    struct errmsg err;

    if (request->rest.size == 0) {
        http_reply_error(request, 400, "Missing session");
        return false;
    }
    if (!http_check_datacenter(request, flags)) {
        return false;
    }
    if (!http_session_id_check(request->rest, &err)) {
        http_reply_failure(request, flags, err.text);
        return false;
    }
    *exists = uuid_parse(request->rest, id);
    return true;
}

static void session_destroy(struct http_request *request)
{
    struct buffer *command = &request->conn->http->command;
    struct uuid id;
    bool exists;

    if (!session_path_id(request, 0, &id, &exists)) {
        return;
    }
    if (!exists) {
        http_reply_json(request, SLICE_LITERAL("true"));
        return;
    }
    buffer_clear(command);
    command_encode_session_destroy(command, &id, SLICE_LITERAL("destroyed by client"));
    if (command->failed) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
        return;
    }
    http_write_start(request, buffer_slice(command), NULL);
}

static void session_not_found(struct http_request *request)
{
    http_reply_error(request, 404, "Session id '%.*s' not found", (int)request->rest.size,
                     request->rest.data);
}

static void session_show(struct http_request *request)
{
    struct http_server *http = request->conn->http;
    struct session session;
    struct buffer json = {0};
    int rc = http_read_txn(http);

    if (rc == 0) {
        rc = session_get(&http->txn, &request->private->session_id, &session);
        if (rc == 0) {
            buffer_append_char(&json, '[');
            session_put(&json, &session);
            buffer_append_char(&json, ']');
        }
        store_read_reset(&http->txn);
    }
    if (rc == STORE_ENOTFOUND) {
        session_not_found(request);
    } else if (rc != 0) {
        http_reply_failure(request, 0, store_strerror(rc));
    } else {
        http_reply_json(request, buffer_slice(&json));
    }
    buffer_deinit(&json);
}

static void session_on_renewed(void *context, const char *failure, bool found)
{
    struct http_request *request = context;
    struct http_conn *conn = request->conn;

    http_conn_enter(conn);
    if (http_request_release(request)) {
        if (failure != NULL) {
            http_reply_failure(request, 0, failure);
        } else if (!found) {
            session_not_found(request);
        } else {
            session_show(request);
        }
    }
    http_conn_leave(conn);
}

static void session_renew(struct http_request *request)
{
    bool exists;

    /* As a read does, and as destroying does not. */
    if (!http_parse_common(request) ||
        !session_path_id(request, 0, &request->private->session_id, &exists)) {
        return;
    }
    if (!exists) {
        session_not_found(request);
        return;
    }
    http_request_hold(request);
    replica_session_renew(request->server->replica, &request->private->session_id,
                          session_on_renewed, request);
}

/* --- reading --- */

enum { SESSION_READ_FLAGS = HTTP_READ_INDEX_HEADERS | HTTP_READ_ERROR_HEADERS };

static void session_read(struct http_request *request,
                         int (*run)(struct http_request *, struct store_txn *,
                                    struct http_read_result *))
{
    struct http_read_spec spec = {.flags = SESSION_READ_FLAGS, .watch_count = 1, .run = run};

    spec.watches[0].topic = STORE_TOPIC_SESSION;
    spec.watches[0].key = SLICE_EMPTY;
    http_read_start(request, &spec);
}

static int session_run_info(struct http_request *request, struct store_txn *txn,
                            struct http_read_result *result)
{
    struct session session;
    struct uuid id;
    int rc = STORE_ENOTFOUND;

    buffer_append_char(&result->body, '[');
    if (uuid_parse(request->rest, &id)) {
        rc = session_get(txn, &id, &session);
    }
    if (rc == 0) {
        session_put(&result->body, &session);
    } else if (rc != STORE_ENOTFOUND) {
        return rc;
    }
    buffer_append_char(&result->body, ']');
    return session_index(txn, &result->index);
}

static int session_put_scan(struct session_scan *scan, struct http_read_result *result)
{
    struct session session;
    bool first = true;
    int rc;

    buffer_append_char(&result->body, '[');
    while ((rc = session_scan_next(scan, &session)) == 0 &&
           result->body.size <= HTTP_ANSWER_BYTES_MAX) {
        if (!first) {
            buffer_append_char(&result->body, ',');
        }
        first = false;
        session_put(&result->body, &session);
    }
    buffer_append_char(&result->body, ']');
    if (rc == 0) {
        buffer_clear(&result->body);
        buffer_append_text(&result->body, "Result too large");
        result->status = 500;
        result->error = true;
        return 0;
    }
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

static int session_run_scan(struct http_request *request, struct store_txn *txn,
                            struct http_read_result *result)
{
    struct session_scan scan;
    int rc = request->rest.size == 0 ? session_scan_begin(&scan, txn)
                                     : session_scan_begin_node(&scan, txn, request->rest);

    if (rc == 0) {
        rc = session_put_scan(&scan, result);
        session_scan_end(&scan);
    }
    return rc == 0 ? session_index(txn, &result->index) : rc;
}

static void session_info(struct http_request *request)
{
    struct uuid id;
    bool exists;

    if (http_parse_common(request) && session_path_id(request, SESSION_READ_FLAGS, &id, &exists)) {
        session_read(request, session_run_info);
    }
}

static void session_list(struct http_request *request)
{
    session_read(request, session_run_scan);
}

static void session_node(struct http_request *request)
{
    if (!http_parse_common(request)) {
        return;
    }
    if (request->rest.size == 0) {
        http_reply_error(request, 400, "Missing node name");
        return;
    }
    session_read(request, session_run_scan);
}

const struct http_route http_routes_session[] = {
    {"/v1/session/create", HTTP_METHOD_PUT, "OPTIONS,PUT", session_create_handler},
    {"/v1/session/destroy/", HTTP_METHOD_PUT, "OPTIONS,PUT", session_destroy},
    {"/v1/session/renew/", HTTP_METHOD_PUT, "OPTIONS,PUT", session_renew},
    {"/v1/session/info/", HTTP_METHOD_GET, "OPTIONS,GET", session_info},
    {"/v1/session/list", HTTP_METHOD_GET, "OPTIONS,GET", session_list},
    {"/v1/session/node/", HTTP_METHOD_GET, "OPTIONS,GET", session_node},
    {NULL, 0, NULL, NULL},
};
