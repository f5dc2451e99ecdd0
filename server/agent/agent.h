#ifndef SERVER_AGENT_AGENT_H
#define SERVER_AGENT_AGENT_H

/* The agent: the services and checks that local clients and the configuration registered with this
 * server, their health checks, and their synchronisation into the catalog (at once
 * on change, with retries, and a full comparison about every minute). What clients registered is
 * kept in data_dir/services and data_dir/checks across restarts. Also registers the server's own
 * node, its "consul" service, and, on the leader, serfHealth of all servers. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "server/config.h"

struct server;
struct agent;

/* Loads what was kept on disk and the configuration's definitions; starts checks and
 * synchronisation. */
int agent_new(struct server *server, struct agent **out, struct errmsg *err);
void agent_free(struct agent *agent);

/* The server's definitions changed (SIGHUP): those from the configuration are replaced, clients'
 * stay, but for those with the id of one from the configuration. On failure what server->config
 * defines, which must be what was applied last, holds again. */
int agent_reload(struct agent *agent, const struct config *config, struct errmsg *err);

/* Errors with a status for HTTP. */
enum agent_error {
    AGENT_OK = 0,
    AGENT_EINVAL = -301,    /* 400 */
    AGENT_EINTERNAL = -302, /* 500 */
    AGENT_ENOTFOUND = -303, /* 404 */
};

/* What the HTTP endpoints call; what they look at is in agent_internal.h. `definition` is the
 * parsed body, borrowed. Each returns AGENT_OK or an agent_error with Consul's text in `err`. */
int agent_service_register(struct agent *agent, const json_t *definition, struct errmsg *err);
int agent_service_deregister(struct agent *agent, struct slice id, struct errmsg *err);
int agent_check_register(struct agent *agent, const json_t *definition, struct errmsg *err);
int agent_check_deregister(struct agent *agent, struct slice id, struct errmsg *err);
/* status: "passing", "warning", "critical" */
int agent_check_update_ttl(struct agent *agent, struct slice check_id, const char *status,
                           struct slice output, struct errmsg *err);
int agent_service_maintenance(struct agent *agent, struct slice service_id, bool enable,
                              struct slice reason, struct errmsg *err);
int agent_node_maintenance(struct agent *agent, bool enable, struct slice reason,
                           struct errmsg *err);

/* A member appeared, failed, came back or left; leadership changed: the leader brings the catalog
 * in line (serfHealth, the servers' nodes and "consul" service). Cheap; does the work later on the
 * loop. */
void agent_members_changed(struct agent *agent);

#endif
