/* /v1/operator: the servers of the cluster, autopilot, leadership, usage, and the keyring, which is
 * always empty here. */

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/catalog/autopilot.h"
#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/http/json_decode.h"
#include "server/http/listing.h"
#include "server/server.h"

enum { OPERATOR_NS_PER_MS = 1000000, OPERATOR_RELAY_FACTOR_MAX = 5 };

/* --- members of a JSON object --- */

static void operator_put_name(struct buffer *out, const char *name)
{
    const char last = out->size == 0 ? '{' : out->data[out->size - 1];

    if (last != '{' && last != '[') {
        buffer_append_char(out, ',');
    }
    json_put_string(out, slice_from_text(name));
    buffer_append_char(out, ':');
}

static void operator_put_text(struct buffer *out, const char *name, const char *text)
{
    operator_put_name(out, name);
    json_put_string(out, slice_from_text(text));
}

static void operator_put_bool(struct buffer *out, const char *name, bool value)
{
    operator_put_name(out, name);
    json_put_bool(out, value);
}

static void operator_put_number(struct buffer *out, const char *name, uint64_t value)
{
    operator_put_name(out, name);
    json_put_u64(out, value);
}

static void operator_put_duration(struct buffer *out, const char *name, int64_t ns)
{
    char text[64];

    duration_format(ns, text, sizeof(text));
    operator_put_text(out, name, text);
}

static void operator_reply(struct http_request *request, int status, struct buffer *json)
{
    struct buffer pretty = {0};

    if (status == 200) {
        http_reply_json(request, buffer_slice(json));
        return;
    }
    if (request->pretty) {
        json_indent(&pretty, buffer_slice(json));
    }
    http_reply_text(request, status, buffer_slice(request->pretty ? &pretty : json));
    buffer_deinit(&pretty);
}

/* --- what the leader is asked --- */

struct operator_asked {
    void (*done)(struct http_request *request, struct slice answer);
};

/* The handlers' own continuation is the request's state: a function in a struct, since C has no
 * pointer that holds both. */
static void operator_on_answer(void *context, const char *failure, struct slice answer)
{
    struct http_request *request = context;
    struct http_conn *conn = request->conn;
    const struct operator_asked *asked = request->state;

    http_conn_enter(conn);
    if (http_request_release(request)) {
        request->state = NULL;
        if (failure != NULL) {
            http_reply_failure(request, 0, failure);
        } else {
            asked->done(request, answer);
        }
    }
    http_conn_leave(conn);
}

static void operator_ask(struct http_request *request, enum replica_operation operation,
                         struct slice argument, struct operator_asked *asked)
{
    request->state = asked;
    http_request_hold(request);
    replica_operate(request->server->replica, operation, argument, operator_on_answer, request);
}

/* --- the Raft configuration --- */

static int raft_run_configuration(struct http_request *request, struct store_txn *txn,
                                  struct http_read_result *result)
{
    struct replica *replica = request->server->replica;
    struct replica_peer peers[REPLICA_HEALTH_MAX];
    const size_t count = replica_peers(replica, peers, REPLICA_HEALTH_MAX);
    struct buffer *out = &result->body;

    (void)txn;
    buffer_append_text(out, "{\"Servers\":[");
    for (size_t i = 0; i < count; i++) {
        buffer_append_text(out, i > 0 ? ",{" : "{");
        operator_put_text(out, "ID", peers[i].id);
        operator_put_text(out, "Node", peers[i].name[0] != 0 ? peers[i].name : "(unknown)");
        operator_put_text(out, "Address", peers[i].address);
        operator_put_bool(out, "Leader", peers[i].leader);
        operator_put_text(out, "ProtocolVersion", "3");
        operator_put_bool(out, "Voter", peers[i].voter);
        buffer_append_char(out, '}');
    }
    buffer_append_char(out, ']');
    operator_put_number(out, "Index", replica_peers_index(replica));
    buffer_append_char(out, '}');
    return 0;
}

static void raft_get_configuration(struct http_request *request)
{
    const struct http_read_spec spec = {.run = raft_run_configuration};

    http_read_start(request, &spec);
}

static void raft_on_removed(struct http_request *request, struct slice answer)
{
    (void)answer;
    http_reply_empty(request, 200);
}

static void raft_remove_peer(struct http_request *request)
{
    static struct operator_asked removed = {raft_on_removed};
    const bool id = http_has_param(request, "id");
    const bool address = http_has_param(request, "address");

    if (!id && !address) {
        http_reply_error(request, 400,
                         "Bad request: Must specify either ?id with the server's ID or ?address "
                         "with IP:port of peer to remove");
    } else if (id && address) {
        http_reply_error(request, 400, "Bad request: Must specify only one of ?id or ?address");
    } else if (http_check_datacenter(request, 0)) {
        operator_ask(request, id ? REPLICA_REMOVE_ID : REPLICA_REMOVE_ADDRESS,
                     http_param_value(request, id ? "id" : "address"), &removed);
    }
}

static void raft_on_transferred(struct http_request *request, struct slice answer)
{
    (void)answer;
    http_reply_json(request, SLICE_LITERAL("{\"Success\":true}"));
}

static void raft_transfer_leader(struct http_request *request)
{
    static struct operator_asked transferred = {raft_on_transferred};

    if (http_check_datacenter(request, 0)) {
        operator_ask(request, REPLICA_TRANSFER, http_param_value(request, "id"), &transferred);
    }
}

/* --- autopilot's configuration --- */

static int autopilot_run_configuration(struct http_request *request, struct store_txn *txn,
                                       struct http_read_result *result)
{
    struct autopilot_config config;
    struct buffer *out = &result->body;
    const int rc = autopilot_get(txn, &config);

    if (rc == STORE_ENOTFOUND) {
        config = request->server->config->autopilot; /* What the leader is about to set. */
    } else if (rc != STORE_OK) {
        return rc;
    }
    buffer_append_char(out, '{');
    operator_put_bool(out, "CleanupDeadServers", config.cleanup_dead_servers);
    operator_put_duration(out, "LastContactThreshold", config.last_contact_threshold_ns);
    operator_put_number(out, "MaxTrailingLogs", config.max_trailing_logs);
    operator_put_number(out, "MinQuorum", config.min_quorum);
    operator_put_duration(out, "ServerStabilizationTime", config.server_stabilization_time_ns);
    operator_put_text(out, "RedundancyZoneTag", config.redundancy_zone_tag);
    operator_put_bool(out, "DisableUpgradeMigration", config.disable_upgrade_migration);
    operator_put_text(out, "UpgradeVersionTag", config.upgrade_version_tag);
    operator_put_number(out, "CreateIndex", config.create_index);
    operator_put_number(out, "ModifyIndex", config.modify_index);
    buffer_append_char(out, '}');
    return 0;
}

/* What a body says: Go's zero values where it is silent, as Consul takes it. */
struct autopilot_body {
    bool cleanup_dead_servers;
    bool disable_upgrade_migration;
    int64_t last_contact_threshold_ns;
    int64_t max_trailing_logs;
    int64_t min_quorum;
    int64_t server_stabilization_time_ns;
    int64_t ignored;
    struct slice redundancy_zone_tag;
    struct slice upgrade_version_tag;
};

#define AUTOPILOT_FIELD(name, type, member)                                                        \
    {                                                                                              \
        name, type, offsetof(struct autopilot_body, member)                                        \
    }

static const struct json_field autopilot_fields[] = {
    AUTOPILOT_FIELD("CleanupDeadServers", JSON_FIELD_BOOL, cleanup_dead_servers),
    AUTOPILOT_FIELD("LastContactThreshold", JSON_FIELD_DURATION_ONLY, last_contact_threshold_ns),
    AUTOPILOT_FIELD("MaxTrailingLogs", JSON_FIELD_INT, max_trailing_logs),
    AUTOPILOT_FIELD("MinQuorum", JSON_FIELD_INT, min_quorum),
    AUTOPILOT_FIELD("ServerStabilizationTime", JSON_FIELD_DURATION_ONLY,
                    server_stabilization_time_ns),
    AUTOPILOT_FIELD("RedundancyZoneTag", JSON_FIELD_STRING, redundancy_zone_tag),
    AUTOPILOT_FIELD("DisableUpgradeMigration", JSON_FIELD_BOOL, disable_upgrade_migration),
    AUTOPILOT_FIELD("UpgradeVersionTag", JSON_FIELD_STRING, upgrade_version_tag),
    AUTOPILOT_FIELD("CreateIndex", JSON_FIELD_INT, ignored),
    AUTOPILOT_FIELD("ModifyIndex", JSON_FIELD_INT, ignored),
};

static bool autopilot_from_body(const json_t *root, struct autopilot_config *out,
                                struct errmsg *err)
{
    struct autopilot_body body;

    memset(&body, 0, sizeof(body));
    memset(out, 0, sizeof(*out));
    body.redundancy_zone_tag = SLICE_EMPTY;
    body.upgrade_version_tag = SLICE_EMPTY;
    if (!json_is_null(root) &&
        !json_decode(root, "api.AutopilotConfiguration", autopilot_fields,
                     sizeof(autopilot_fields) / sizeof(autopilot_fields[0]), &body, err)) {
        return false;
    }
    if (body.max_trailing_logs < 0 || body.min_quorum < 0) {
        const bool trailing = body.max_trailing_logs < 0;

        (void)errmsg_set(err, -1,
                         "json: cannot unmarshal number %" PRId64
                         " into Go struct field AutopilotConfiguration.%s of type %s",
                         trailing ? body.max_trailing_logs : body.min_quorum,
                         trailing ? "MaxTrailingLogs" : "MinQuorum", trailing ? "uint64" : "uint");
        return false;
    }
    if (!slice_copy_text(body.redundancy_zone_tag, out->redundancy_zone_tag,
                         sizeof(out->redundancy_zone_tag)) ||
        !slice_copy_text(body.upgrade_version_tag, out->upgrade_version_tag,
                         sizeof(out->upgrade_version_tag))) {
        (void)errmsg_set(err, -1, "a tag has more than %d bytes", AUTOPILOT_TAG_BYTES_MAX);
        return false;
    }
    out->cleanup_dead_servers = body.cleanup_dead_servers;
    out->last_contact_threshold_ns = body.last_contact_threshold_ns;
    out->max_trailing_logs = (uint64_t)body.max_trailing_logs;
    out->min_quorum = (uint64_t)body.min_quorum;
    out->server_stabilization_time_ns = body.server_stabilization_time_ns;
    out->disable_upgrade_migration = body.disable_upgrade_migration;
    return true;
}

/* Without cas Consul says true whatever came of it. */
static void autopilot_on_set(struct http_request *request, const struct command_result *result)
{
    http_reply_json(request, result->ok ? SLICE_LITERAL("true") : SLICE_LITERAL("false"));
}

static void autopilot_put_configuration(struct http_request *request)
{
    struct autopilot_config config;
    struct buffer command = {0};
    struct errmsg err;
    uint64_t cas = 0;
    json_t *root = http_body_json(request, "Bad request: Error parsing autopilot config");

    if (root == NULL) {
        return;
    }
    const bool taken = autopilot_from_body(root, &config, &err);
    const bool with_cas = http_has_param(request, "cas");

    json_decref(root);
    if (!taken) {
        http_reply_error(request, 400, "Bad request: Error parsing autopilot config: %s", err.text);
        return;
    }
    if (with_cas && !http_parse_u64(http_param_value(request, "cas"), &cas, &err)) {
        http_reply_error(request, 400, "Bad request: Error parsing cas value: %s", err.text);
        return;
    }
    if (!http_check_datacenter(request, 0)) {
        return;
    }
    command_encode_autopilot(&command, with_cas ? AUTOPILOT_SET_CAS : AUTOPILOT_SET, cas, &config);
    if (command.failed) {
        http_reply_failure(request, 0, "out of memory");
    } else {
        http_write_start(request, buffer_slice(&command), autopilot_on_set);
    }
    buffer_deinit(&command);
}

static void autopilot_configuration(struct http_request *request)
{
    const struct http_read_spec spec = {.run = autopilot_run_configuration};

    if (request->method == HTTP_METHOD_PUT) {
        autopilot_put_configuration(request);
    } else {
        http_read_start(request, &spec);
    }
}

/* --- health --- */

static const char *health_status(uint8_t status)
{
    switch (status) {
    case MEMBER_ALIVE:
        return "alive";
    case MEMBER_LEAVING:
        return "leaving";
    case MEMBER_LEFT:
        return "left";
    case MEMBER_FAILED:
        return "failed";
    default:
        return "none";
    }
}

static void health_put_contact(struct buffer *out, uint64_t last_contact_ms)
{
    operator_put_duration(out, "LastContact",
                          last_contact_ms > INT64_MAX / OPERATOR_NS_PER_MS
                              ? -1 /* never; as Consul shows it */
                              : (int64_t)last_contact_ms * OPERATOR_NS_PER_MS);
}

static void health_put_since(struct buffer *out, int64_t stable_s)
{
    const time_t seconds = (time_t)stable_s;
    struct tm parts;
    char text[32] = "0001-01-01T00:00:00Z";

    if (stable_s > 0 && gmtime_r(&seconds, &parts) != NULL) {
        (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    operator_put_text(out, "StableSince", text);
}

static void health_put_server(struct buffer *out, const struct replica_server_health *server)
{
    operator_put_text(out, "ID", server->id);
    operator_put_text(out, "Name", server->name);
    operator_put_text(out, "Address", server->address);
    operator_put_text(out, "SerfStatus", health_status(server->status));
    operator_put_text(out, "Version", PROCONSUL_CONSUL_VERSION);
    operator_put_bool(out, "Leader", server->leader);
    health_put_contact(out, server->last_contact_ms);
    operator_put_number(out, "LastTerm", server->last_term);
    operator_put_number(out, "LastIndex", server->last_index);
    operator_put_bool(out, "Healthy", server->healthy);
    operator_put_bool(out, "Voter", server->voter);
    health_put_since(out, server->stable_s);
}

static void health_on_answer(struct http_request *request, struct slice answer)
{
    struct replica_health health;
    struct buffer out = {0};

    if (!replica_health_decode(answer, &health)) {
        http_reply_failure(request, 0, "the leader's answer is not understood");
        return;
    }
    buffer_append_char(&out, '{');
    operator_put_bool(&out, "Healthy", health.healthy);
    operator_put_number(&out, "FailureTolerance", health.failure_tolerance);
    operator_put_name(&out, "Servers");
    buffer_append_char(&out, '[');
    for (size_t i = 0; i < health.count; i++) {
        buffer_append_text(&out, i > 0 ? ",{" : "{");
        health_put_server(&out, &health.servers[i]);
        buffer_append_char(&out, '}');
    }
    buffer_append_text(&out, "]}");
    operator_reply(request, health.healthy ? 200 : 429, &out);
    buffer_deinit(&out);
}

static void autopilot_health(struct http_request *request)
{
    static struct operator_asked answered = {health_on_answer};

    if (http_check_datacenter(request, 0)) {
        operator_ask(request, REPLICA_HEALTH, SLICE_EMPTY, &answered);
    }
}

/* --- state: the same, as Consul 1.9 and later tell it --- */

static void state_put_server(struct buffer *out, const struct replica_server_health *server)
{
    operator_put_text(out, "ID", server->id);
    operator_put_text(out, "Name", server->name);
    operator_put_text(out, "Address", server->address);
    operator_put_text(out, "NodeStatus", health_status(server->status));
    operator_put_text(out, "Version", PROCONSUL_CONSUL_VERSION);
    health_put_contact(out, server->last_contact_ms);
    operator_put_number(out, "LastTerm", server->last_term);
    operator_put_number(out, "LastIndex", server->last_index);
    operator_put_bool(out, "Healthy", server->healthy);
    health_put_since(out, server->stable_s);
    operator_put_bool(out, "ReadReplica", false);
    operator_put_text(out, "Status",
                      server->leader  ? "leader"
                      : server->voter ? "voter"
                                      : "non-voter");
    operator_put_name(out, "Meta");
    buffer_append_text(out, "{}");
    operator_put_text(out, "NodeType", "voter");
}

/* How many servers could be lost one after the other, had autopilot the time to follow. */
static uint32_t state_optimistic(const struct replica_health *health)
{
    size_t healthy = 0;

    for (size_t i = 0; i < health->count; i++) {
        healthy += health->servers[i].healthy ? 1 : 0;
    }
    const size_t quorum = health->count / 2 + 1;

    return healthy > quorum ? (uint32_t)(healthy - quorum) : 0;
}

static void state_on_answer(struct http_request *request, struct slice answer)
{
    struct replica_health health;
    struct buffer out = {0};
    const char *leader = "";

    if (!replica_health_decode(answer, &health)) {
        http_reply_failure(request, 0, "the leader's answer is not understood");
        return;
    }
    buffer_append_char(&out, '{');
    operator_put_bool(&out, "Healthy", health.healthy);
    operator_put_number(&out, "FailureTolerance", health.failure_tolerance);
    operator_put_number(&out, "OptimisticFailureTolerance", state_optimistic(&health));
    operator_put_name(&out, "Servers");
    buffer_append_char(&out, '{');
    for (size_t i = 0; i < health.count; i++) {
        operator_put_name(&out, health.servers[i].id);
        buffer_append_char(&out, '{');
        state_put_server(&out, &health.servers[i]);
        buffer_append_char(&out, '}');
        leader = health.servers[i].leader ? health.servers[i].id : leader;
    }
    buffer_append_char(&out, '}');
    operator_put_text(&out, "Leader", leader);
    operator_put_name(&out, "Voters");
    buffer_append_char(&out, '[');
    for (size_t i = 0; i < health.count; i++) {
        if (health.servers[i].voter) {
            if (out.data != NULL && out.data[out.size - 1] != '[') {
                buffer_append_char(&out, ',');
            }
            json_put_string(&out, slice_from_text(health.servers[i].id));
        }
    }
    buffer_append_text(&out, "]}");
    http_reply_json(request, buffer_slice(&out));
    buffer_deinit(&out);
}

static void autopilot_state(struct http_request *request)
{
    static struct operator_asked answered = {state_on_answer};

    if (http_check_datacenter(request, 0)) {
        operator_ask(request, REPLICA_HEALTH, SLICE_EMPTY, &answered);
    }
}

/* --- usage: how much there is, as Consul 1.14 and later tell it --- */

enum { USAGE_FLAGS = HTTP_READ_INDEX_HEADERS | HTTP_READ_EFFECTIVE | HTTP_READ_ERROR_HEADERS };

struct usage_counts {
    uint64_t services; /* names */
    uint64_t instances;
    uint64_t servers; /* instances of "consul" */
};

static int usage_index(struct http_request *request, struct store_txn *txn, uint64_t *index)
{
    uint64_t nodes_index = 0;
    int rc = catalog_index_services(txn, index);

    (void)request;
    if (rc == STORE_OK) {
        rc = catalog_index_nodes(txn, &nodes_index);
    }
    *index = nodes_index > *index ? nodes_index : *index;
    return rc;
}

/* STORE_ENOTFOUND: all were counted. */
static int usage_count(struct listing *listing, struct usage_counts *counts)
{
    struct buffer *last = &listing->piece->name;
    struct slice name;
    int rc = listing_resume(listing->piece, &listing->scan);

    while (rc == STORE_OK && (rc = catalog_names_next(&listing->scan, &name)) == STORE_OK) {
        if (!slice_equal(name, buffer_slice(last))) {
            counts->services++;
            buffer_clear(last);
            buffer_append_slice(last, name);
        }
        counts->instances++;
        counts->servers += slice_equal(name, SLICE_LITERAL("consul")) ? 1 : 0;
        if (last->failed) {
            rc = STORE_ENOMEM;
        } else if (listing_full(listing)) {
            return listing_pause(listing->piece, listing->scan.key);
        }
    }
    return rc;
}

/* Nobody is in a mesh here: all of Connect's kinds have no instances. */
static void usage_put(struct http_request *request, const struct usage_counts *counts,
                      uint64_t nodes, struct http_piece *piece)
{
    static const char *const kinds[] = {"connect-native", "connect-proxy", "ingress-gateway",
                                        "mesh-gateway", "terminating-gateway"};
    const struct http_read_result result = {.status = 200, .index = piece->index};
    struct replica_freshness freshness;
    struct buffer *out = piece->out;

    replica_freshness(request->server->replica, &freshness);
    const struct http_meta meta = http_read_meta(request, &result, &freshness);

    buffer_append_text(out, "{\"Usage\":{");
    json_put_string(out, slice_from_text(request->server->config->datacenter));
    buffer_append_text(out, ":{");
    operator_put_number(out, "Nodes", nodes);
    operator_put_number(out, "Services", counts->services);
    operator_put_number(out, "ServiceInstances", counts->instances);
    operator_put_name(out, "ConnectServiceInstances");
    buffer_append_char(out, '{');
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        operator_put_number(out, kinds[i], 0);
    }
    buffer_append_char(out, '}');
    operator_put_number(out, "BillableServiceInstances", counts->instances - counts->servers);
    buffer_append_text(out, "}}");
    operator_put_number(out, "Index", piece->index > 0 ? piece->index : 1);
    operator_put_number(out, "LastContact", meta.last_contact_ms * OPERATOR_NS_PER_MS);
    operator_put_bool(out, "KnownLeader", meta.known_leader);
    operator_put_text(out, "ConsistencyLevel", meta.effective);
    operator_put_bool(out, "NotModified", false);
    operator_put_number(out, "Backend", 0);
    operator_put_bool(out, "ResultsFilteredByACLs", false);
    buffer_append_char(out, '}');
    piece->done = true;
}

static int usage_piece(struct http_request *request, struct store_txn *txn,
                       struct http_piece *piece)
{
    struct listing listing = {.request = request, .txn = txn, .piece = piece, .out = piece->out};
    uint64_t nodes;
    int rc;

    if (listing_is_waited_for(request, txn, piece, usage_index, &rc)) {
        return rc;
    }
    if (piece->state == NULL) {
        piece->state = calloc(1, sizeof(struct usage_counts));
        piece->on_free = free;
    }
    rc = piece->state == NULL ? STORE_ENOMEM : catalog_names_begin(&listing.scan, txn);
    if (rc == STORE_OK) {
        rc = usage_count(&listing, piece->state);
        catalog_scan_end(&listing.scan);
    }
    if (rc == STORE_ENOTFOUND) {
        rc = catalog_nodes_count(txn, &nodes);
        if (rc == STORE_OK) {
            usage_put(request, piece->state, nodes, piece);
        }
    }
    return rc;
}

static void operator_usage(struct http_request *request)
{
    struct http_read_spec spec = {.flags = USAGE_FLAGS, .piece = usage_piece};

    listing_watch(&spec, STORE_TOPIC_SERVICES);
    listing_watch(&spec, STORE_TOPIC_NODE);
    http_read_start(request, &spec);
}

/* --- the keyring --- */

static bool keyring_check_relay(struct http_request *request)
{
    const struct slice text = http_param_value(request, "relay-factor");
    struct buffer quoted = {0};
    unsigned number = 0;
    bool digits = text.size < 4;

    if (text.size == 0) {
        return true;
    }
    for (size_t i = 0; digits && i < text.size; i++) {
        digits = text.data[i] >= '0' && text.data[i] <= '9';
        number = 10 * number + (unsigned)(text.data[i] - '0');
    }
    if (digits && number <= OPERATOR_RELAY_FACTOR_MAX) {
        return true;
    }
    if (digits) {
        http_reply_error(
            request, 400,
            "Bad request: Invalid relay-factor: Relay factor must be in range: [0, %d]",
            OPERATOR_RELAY_FACTOR_MAX);
        return false;
    }
    http_put_quoted(&quoted, text);
    http_reply_error(request, 400,
                     "Bad request: Error parsing relay factor: strconv.Atoi: parsing %.*s: invalid "
                     "syntax",
                     (int)quoted.size, quoted.data == NULL ? "" : quoted.data);
    buffer_deinit(&quoted);
    return false;
}

static void operator_keyring(struct http_request *request)
{
    const struct config *config = request->server->config;
    const bool list = request->method == HTTP_METHOD_GET;

    if (!keyring_check_relay(request)) {
        return;
    }
    if (!list) {
        json_t *root = http_body_json(request, "Bad request: Request decode failed");

        if (root == NULL) {
            return;
        }
        json_decref(root);
    }
    http_reply_error(request, 500,
                     "2 errors occurred:\n\t* %s (LAN) error: 1/1 nodes reported failure\n\t* %s: "
                     "%s (encryption not enabled)\n\n",
                     config->datacenter, config->node_name,
                     list ? "Keyring is empty" : "No keyring to modify");
}

enum {
    GET = HTTP_METHOD_GET,
    PUT = HTTP_METHOD_PUT,
    POST = HTTP_METHOD_POST,
    DELETE = HTTP_METHOD_DELETE,
};

const struct http_route http_routes_operator[] = {
    {"/v1/operator/raft/configuration", GET, "OPTIONS,GET", raft_get_configuration},
    {"/v1/operator/raft/peer", DELETE, "OPTIONS,DELETE", raft_remove_peer},
    {"/v1/operator/raft/transfer-leader", POST | PUT, "OPTIONS,POST,PUT", raft_transfer_leader},
    {"/v1/operator/autopilot/configuration", GET | PUT, "OPTIONS,GET,PUT", autopilot_configuration},
    {"/v1/operator/autopilot/health", GET, "OPTIONS,GET", autopilot_health},
    {"/v1/operator/autopilot/state", GET, "OPTIONS,GET", autopilot_state},
    {"/v1/operator/usage", GET, "OPTIONS,GET", operator_usage},
    {"/v1/operator/keyring", GET | PUT | POST | DELETE, "OPTIONS,GET,POST,PUT,DELETE",
     operator_keyring},
    {NULL, 0, NULL, NULL},
};
