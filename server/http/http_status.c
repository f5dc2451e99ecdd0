/* /v1/status: who leads, and who the servers are. */

#include "server/http/http_internal.h"
#include "server/server.h"

enum { STATUS_PEERS_MAX = 64 };

static void status_leader(struct http_request *request)
{
    struct buffer json = {0};
    char address[64] = "";

    if (!http_check_common(request, 0)) {
        return;
    }
    replica_leader_address(request->server->replica, address, sizeof(address));
    json_put_string(&json, slice_from_text(address));
    http_reply_json(request, buffer_slice(&json));
    buffer_deinit(&json);
}

static void status_peers(struct http_request *request)
{
    struct replica_peer peers[STATUS_PEERS_MAX];
    struct buffer json = {0};

    if (!http_check_common(request, 0)) {
        return;
    }
    size_t count = replica_peers(request->server->replica, peers, STATUS_PEERS_MAX);

    count = count < STATUS_PEERS_MAX ? count : STATUS_PEERS_MAX;
    buffer_append_char(&json, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            buffer_append_char(&json, ',');
        }
        json_put_string(&json, slice_from_text(peers[i].address));
    }
    buffer_append_char(&json, ']');
    http_reply_json(request, buffer_slice(&json));
    buffer_deinit(&json);
}

const struct http_route http_routes_status[] = {
    {"/v1/status/leader", HTTP_METHOD_GET, "OPTIONS,GET", status_leader},
    {"/v1/status/peers", HTTP_METHOD_GET, "OPTIONS,GET", status_peers},
    {NULL, 0, NULL, NULL},
};
