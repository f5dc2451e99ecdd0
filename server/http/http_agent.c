/* /v1/agent/...: what the agent says of itself and its members, and the table of its endpoints. */

#include "server/http/http_agent.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "server/agent/agent_internal.h"
#include "server/config.h"
#include "server/http/catalog_json.h"
#include "server/http/http_internal.h"
#include "server/log.h"
#include "server/server.h"

/* --- members --- */

/* One member as Serf's client sees it. The protocol numbers are those of the Consul whose place we
 * take. */
static void agent_put_member(struct buffer *out, const struct http_request *request,
                             const struct member *member, bool wan)
{
    const struct config *config = request->server->config;
    char id[UUID_TEXT_BYTES + 1];

    uuid_format(&member->id, id);
    buffer_append_text(out, "{\"Name\":");
    if (wan) {
        struct buffer name = {0};
        buffer_printf(&name, "%s.%s", member->name, config->datacenter);
        json_put_string(out, buffer_slice(&name));
        buffer_deinit(&name);
    } else {
        json_put_string(out, slice_from_text(member->name));
    }
    catalog_json_text(out, "Addr", slice_from_text(member->address));
    buffer_printf(out, ",\"Port\":%u,\"Tags\":{\"acls\":\"0\"", (unsigned)member->serf_port);
    if (member->bootstrap || (member->self && config->bootstrap)) {
        buffer_append_text(out, ",\"bootstrap\":\"1\"");
    }
    buffer_append_text(out, ",\"build\":\"" PROCONSUL_CONSUL_VERSION ":\",\"dc\":");
    json_put_string(out, slice_from_text(config->datacenter));
    if (member->bootstrap_expect > 0) {
        buffer_printf(out, ",\"expect\":\"%u\"", (unsigned)member->bootstrap_expect);
    }
    buffer_printf(out,
                  ",\"id\":\"%s\",\"port\":\"%u\",\"raft_vsn\":\"3\",\"role\":\"consul\","
                  "\"segment\":\"\",\"vsn\":\"2\",\"vsn_max\":\"3\",\"vsn_min\":\"2\"}",
                  id, (unsigned)member->server_port);
    buffer_printf(out,
                  ",\"Status\":%d,\"ProtocolMin\":1,\"ProtocolMax\":5,\"ProtocolCur\":2,"
                  "\"DelegateMin\":2,\"DelegateMax\":5,\"DelegateCur\":4}",
                  (int)member->status);
}

static void agent_members(struct http_request *request)
{
    const struct membership *membership = request->server->membership;
    const bool wan = http_param_value(request, "wan").size > 0;
    const struct slice segment = http_param_value(request, "segment");
    struct buffer body = {0};

    /* `consul members` asks for all of them. */
    if (segment.size > 0 && !slice_equal(segment, SLICE_LITERAL("_all"))) {
        if (wan) {
            http_reply_error(request, 400, "Cannot provide a segment with wan=true");
        } else {
            http_reply_error(request, 500,
                             "Network segments are not supported in this version of Consul");
        }
        return;
    }
    buffer_append_char(&body, '[');
    for (size_t i = 0; i < membership_count(membership); i++) {
        if (i > 0) {
            buffer_append_char(&body, ',');
        }
        agent_put_member(&body, request, membership_at(membership, i), wan);
    }
    buffer_append_char(&body, ']');
    http_reply_json(request, buffer_slice(&body));
    buffer_deinit(&body);
}

/* --- self --- */

static void agent_put_text(struct buffer *out, bool first, const char *name, const char *value)
{
    buffer_append_text(out, first ? "\"" : ",\"");
    buffer_append_text(out, name);
    buffer_append_text(out, "\":");
    json_put_string(out, slice_from_text(value));
}

static void agent_put_number_text(struct buffer *out, bool first, const char *name, uint64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    agent_put_text(out, first, name, text);
}

static void agent_put_duration(struct buffer *out, const char *name, int64_t ns)
{
    char text[64];

    duration_format(ns, text, sizeof(text));
    agent_put_text(out, false, name, text);
}

/* SessionTTLMin has its place in DebugConfig, as Consul's. Patroni looks for it here when its
 * session's TTL was refused, and gives up to adjust it without: it asks on the connection on which
 * it was refused, which alone is shown it. */
static void agent_put_self_config(struct buffer *out, const struct server *server,
                                  bool with_session_ttl)
{
    const struct config *config = server->config;

    buffer_append_text(out, "\"Config\":{");
    agent_put_text(out, true, "Datacenter", config->datacenter);
    agent_put_text(out, false, "NodeName", config->node_name);
    agent_put_text(out, false, "NodeID", server->node_id_text);
    agent_put_text(out, false, "Revision", "");
    buffer_append_text(out, ",\"Server\":true");
    agent_put_text(out, false, "Version", PROCONSUL_CONSUL_VERSION);
    if (with_session_ttl) {
        catalog_json_key(out, "SessionTTLMin");
        json_put_u64(out, config->session_ttl_min_ns);
    }
    buffer_append_char(out, '}');
}

static void agent_put_self_debug(struct buffer *out, const struct server *server)
{
    const int64_t second_ns = 1000 * 1000 * 1000;
    const struct config *config = server->config;

    buffer_append_text(out, ",\"DebugConfig\":{");
    agent_put_text(out, true, "Datacenter", config->datacenter);
    agent_put_text(out, false, "NodeName", config->node_name);
    agent_put_text(out, false, "NodeID", server->node_id_text);
    agent_put_text(out, false, "AdvertiseAddrLAN", config->advertise_addr);
    agent_put_text(out, false, "AdvertiseAddrWAN", config->advertise_addr);
    agent_put_text(out, false, "BindAddr", config->bind_addr);
    agent_put_text(out, false, "DataDir", config->data_dir == NULL ? "" : config->data_dir);
    agent_put_duration(out, "CheckUpdateInterval",
                       (int64_t)config->check_update_interval_ms * 1000 * 1000);
    agent_put_duration(out, "DefaultQueryTime", 300 * second_ns);
    agent_put_duration(out, "MaxQueryTime", 600 * second_ns);
    agent_put_duration(out, "RPCHoldTimeout", (int64_t)config->rpc_hold_timeout_ms * 1000 * 1000);
    agent_put_duration(out, "SessionTTLMin", (int64_t)config->session_ttl_min_ns);
    agent_put_text(out, false, "Version", PROCONSUL_CONSUL_VERSION);
    buffer_printf(out,
                  ",\"Bootstrap\":%s,\"BootstrapExpect\":%u,\"CheckOutputMaxSize\":%d,"
                  "\"DNSPort\":%d,\"DevMode\":%s,\"HTTPMaxConnsPerClient\":%u,\"HTTPPort\":%d,"
                  "\"KVMaxValueSize\":%" PRIu64 ",\"LeaveOnTerm\":%s,\"SerfPortLAN\":%d,"
                  "\"ServerMode\":true,\"ServerPort\":%d,\"TxnMaxReqLen\":%" PRIu64 "}",
                  config->bootstrap ? "true" : "false", (unsigned)config->bootstrap_expect,
                  (int)config->check_output_bytes_max, config->dns_port,
                  config->dev ? "true" : "false", (unsigned)config->http_conns_per_client_max,
                  config->http_port, config->kv_value_bytes_max,
                  config->leave_on_terminate ? "true" : "false", config->serf_lan_port,
                  config->server_port, config->kv_value_bytes_max);
}

static void agent_put_self_counts(struct buffer *out, const struct agent *agent)
{
    uint64_t services = 0, checks = 0, ttls = 0;

    for (size_t i = 0; i < agent->service_count; i++) {
        services += agent->services[i]->deleted ? 0 : 1;
    }
    for (size_t i = 0; i < agent->check_count; i++) {
        checks += agent->checks[i]->deleted ? 0 : 1;
        ttls += !agent->checks[i]->deleted && agent->checks[i]->type == AGENT_CHECK_TTL ? 1 : 0;
    }
    buffer_append_text(out, "\"agent\":{");
    agent_put_number_text(out, true, "check_monitors", checks - ttls);
    agent_put_number_text(out, false, "check_ttls", ttls);
    agent_put_number_text(out, false, "checks", checks);
    agent_put_number_text(out, false, "services", services);
    buffer_append_char(out, '}');
}

static void agent_put_self_stats(struct buffer *out, const struct server *server)
{
    struct replica_stats stats;
    struct replica_peer peers[REPLICA_HEALTH_MAX];
    char leader[64];
    const size_t peer_count = replica_peers(server->replica, peers, REPLICA_HEALTH_MAX);

    replica_stats(server->replica, &stats);
    replica_leader_address(server->replica, leader, sizeof(leader));
    buffer_append_text(out, ",\"Stats\":{");
    agent_put_self_counts(out, server->agent);
    buffer_append_text(out, ",\"build\":{\"prerelease\":\"\",\"revision\":\"\",\"version\":\""
                            "" PROCONSUL_CONSUL_VERSION "\"},\"consul\":{");
    agent_put_text(out, true, "acl", server->config->acl_enabled ? "enabled" : "disabled");
    agent_put_text(out, false, "bootstrap", server->config->bootstrap ? "true" : "false");
    agent_put_text(out, false, "known_datacenters", "1");
    agent_put_text(out, false, "leader", replica_is_leader(server->replica) ? "true" : "false");
    agent_put_text(out, false, "leader_addr", leader);
    agent_put_text(out, false, "server", "true");
    buffer_append_text(out, "},\"raft\":{");
    agent_put_number_text(out, true, "applied_index", stats.applied_index);
    agent_put_number_text(out, false, "commit_index", stats.commit_index);
    agent_put_number_text(out, false, "last_log_index", stats.last_index);
    agent_put_number_text(out, false, "num_peers", peer_count == 0 ? 0 : peer_count - 1);
    agent_put_text(out, false, "protocol_version", "3");
    agent_put_text(out, false, "state", stats.state);
    agent_put_number_text(out, false, "term", stats.term);
    buffer_append_text(out, "},");
    http_agent_put_runtime(out);
    buffer_append_text(out, ",\"serf_lan\":{");
    agent_put_number_text(out, true, "members", membership_count(server->membership));
    buffer_append_text(out, "}}");
}

static void agent_put_self_meta(struct buffer *out, const struct agent *agent)
{
    struct buffer tagged = {0};
    struct buffer meta = {0};
    struct catalog_node node;

    agent_sync_node(agent, &node, &tagged, &meta);
    catalog_json_key(out, "Meta");
    json_put_map(out, node.meta);
    buffer_deinit(&tagged);
    buffer_deinit(&meta);
}

static void agent_self(struct http_request *request)
{
    const struct server *server = request->server;
    struct buffer body = {0};

    buffer_append_char(&body, '{');
    agent_put_self_config(&body, server, request->conn->session_ttl_refused);
    agent_put_self_debug(&body, server);
    buffer_append_text(&body, ",\"Coord\":{\"Vec\":[0,0,0,0,0,0,0,0],\"Error\":1.5,"
                              "\"Adjustment\":0,\"Height\":0.00001},\"Member\":");
    agent_put_member(&body, request, membership_at(server->membership, 0), false);
    agent_put_self_stats(&body, server);
    agent_put_self_meta(&body, server->agent);
    buffer_append_char(&body, '}');
    http_reply_json(request, buffer_slice(&body));
    buffer_deinit(&body);
}

/* --- joining and leaving --- */

/* A dial that outlives its request when the client goes away: then request is NULL. */
struct agent_join {
    struct http_request *request;
};

static void agent_join_forget(struct http_request *request)
{
    struct agent_join *join = request->state;

    if (join != NULL) {
        join->request = NULL;
        request->state = NULL;
    }
}

/* In Consul's words, where it has them: clients show them to people. */
static void agent_join_refuse(struct http_request *request, const char *failure)
{
    const struct slice address = request->rest;
    const char *colon = address.size == 0 ? NULL : memchr(address.data, ':', address.size);
    const int host_size = (int)(colon == NULL ? address.size : (size_t)(colon - address.data));

    if (strcmp(failure, uv_strerror(UV_EAI_NONAME)) == 0) {
        http_reply_error(request, 500,
                         "1 error occurred:\n\t* Failed to resolve %.*s: lookup %.*s: no such "
                         "host\n\n",
                         (int)address.size, address.data, host_size, address.data);
    } else if (strcmp(failure, uv_strerror(UV_ECONNREFUSED)) == 0) {
        http_reply_error(request, 500,
                         "1 error occurred:\n\t* Failed to join %.*s: dial tcp %.*s: connect: "
                         "connection refused\n\n",
                         host_size, address.data, (int)address.size, address.data);
    } else {
        http_reply_error(request, 500, "1 error occurred:\n\t* Failed to join %.*s: %s\n\n",
                         host_size, address.data, failure);
    }
}

static void agent_join_on_done(void *context, const char *failure)
{
    struct agent_join *join = context;
    struct http_request *request = join->request;

    free(join);
    if (request == NULL) {
        return;
    }
    request->state = NULL;
    if (failure == NULL) {
        http_reply_empty(request, 200);
    } else {
        agent_join_refuse(request, failure);
    }
}

static void agent_join(struct http_request *request)
{
    char address[256];
    struct agent_join *join;

    if (http_param_value(request, "wan").size > 0) {
        http_reply_error(request, 500, "WAN federation is not part of Proconsul");
        return;
    }
    if (request->rest.size == 0 || request->rest.size >= sizeof(address)) {
        agent_join_refuse(request, uv_strerror(UV_EAI_NONAME));
        return;
    }
    memcpy(address, request->rest.data, request->rest.size);
    address[request->rest.size] = '\0';
    join = calloc(1, sizeof(*join));
    if (join == NULL) {
        http_reply_error(request, 500, "out of memory");
        return;
    }
    join->request = request;
    request->state = join;
    request->on_free = agent_join_forget;
    request->on_cancel = agent_join_forget;
    membership_join(request->server->membership, address, agent_join_on_done, join);
}

/* The process's own signal handlers do the rest, after this answer is out. Once: a second signal
 * ends the process at once. */
static void agent_leave(struct http_request *request)
{
    struct server *server = request->server;
    const bool under_way = server->leaving || server->stopping;

    server->leaving = server->leaving || !server->stopping;
    http_reply_empty(request, 200);
    if (!under_way) {
        (void)kill(getpid(), SIGTERM);
    }
}

static void agent_reload_config(struct http_request *request)
{
    struct errmsg err = {""};

    if (server_reload(request->server, &err) == 0) {
        http_reply_empty(request, 200);
    } else {
        http_reply_error(request, 500, "%s", err.text);
    }
}

static void agent_force_leave(struct http_request *request)
{
    struct membership *membership = request->server->membership;

    for (size_t i = 0; i < membership_count(membership); i++) {
        const struct member *member = membership_at(membership, i);
        if (slice_equal(slice_from_text(member->name), request->rest)) {
            membership_force_leave(membership, &member->id); /* Unless there is nothing to force. */
            http_reply_empty(request, 200);
            return;
        }
    }
    http_reply_error(request, 500, "agent: No node found with name '%.*s'", (int)request->rest.size,
                     request->rest.data);
}

/* --- the rest --- */

static void agent_token(struct http_request *request)
{
    http_reply_error(request, 401, "ACL support disabled");
}

static void agent_no_connect(struct http_request *request)
{
    http_reply_error(request, 500, "Connect must be enabled in order to use this endpoint");
}

#define GET HTTP_METHOD_GET, "OPTIONS,GET"
#define PUT HTTP_METHOD_PUT, "OPTIONS,PUT"

const struct http_route http_routes_agent[] = {
    {"/v1/agent/self", GET, agent_self},
    {"/v1/agent/members", GET, agent_members},
    {"/v1/agent/host", GET, http_agent_host},
    {"/v1/agent/version", GET, http_agent_version},
    {"/v1/agent/metrics", GET, http_agent_metrics},
    {"/v1/agent/metrics/stream", GET, http_agent_metrics_stream},
    {"/v1/agent/monitor", GET, http_agent_monitor},
    {"/v1/agent/join/", PUT, agent_join},
    {"/v1/agent/leave", PUT, agent_leave},
    {"/v1/agent/force-leave/", PUT, agent_force_leave},
    {"/v1/agent/reload", PUT, agent_reload_config},
    {"/v1/agent/maintenance", PUT, http_agent_node_maintenance},
    {"/v1/agent/token/", PUT, agent_token},
    {"/v1/agent/connect/authorize", HTTP_METHOD_POST, "OPTIONS,POST", agent_no_connect},
    {"/v1/agent/connect/ca/roots", GET, agent_no_connect},
    {"/v1/agent/connect/ca/leaf/", GET, agent_no_connect},
    {"/v1/agent/services", GET, http_agent_services},
    {"/v1/agent/service/", GET, http_agent_service},
    {"/v1/agent/service/register", PUT, http_agent_service_register},
    {"/v1/agent/service/deregister/", PUT, http_agent_service_deregister},
    {"/v1/agent/service/maintenance/", PUT, http_agent_service_maintenance},
    {"/v1/agent/checks", GET, http_agent_checks},
    {"/v1/agent/check/register", PUT, http_agent_check_register},
    {"/v1/agent/check/deregister/", PUT, http_agent_check_deregister},
    {"/v1/agent/check/pass/", PUT, http_agent_check_pass},
    {"/v1/agent/check/warn/", PUT, http_agent_check_warn},
    {"/v1/agent/check/fail/", PUT, http_agent_check_fail},
    {"/v1/agent/check/update/", PUT, http_agent_check_update},
    {"/v1/agent/health/service/id/", GET, http_agent_health_by_id},
    {"/v1/agent/health/service/name/", GET, http_agent_health_by_name},
    {NULL, 0, NULL, NULL},
};
