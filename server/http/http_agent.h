#ifndef SERVER_HTTP_HTTP_AGENT_H
#define SERVER_HTTP_HTTP_AGENT_H

/* The handlers below /v1/agent/: local services, checks and health (http_agent_service.c), and
 * what the agent says of itself (http_agent.c, with the routes). */

#include "server/http/http.h"

void http_agent_services(struct http_request *request);
void http_agent_service(struct http_request *request);
void http_agent_service_register(struct http_request *request);
void http_agent_service_deregister(struct http_request *request);
void http_agent_service_maintenance(struct http_request *request);
void http_agent_node_maintenance(struct http_request *request);
void http_agent_checks(struct http_request *request);
void http_agent_check_register(struct http_request *request);
void http_agent_check_deregister(struct http_request *request);
void http_agent_check_pass(struct http_request *request);
void http_agent_check_warn(struct http_request *request);
void http_agent_check_fail(struct http_request *request);
void http_agent_check_update(struct http_request *request);
void http_agent_health_by_id(struct http_request *request);
void http_agent_health_by_name(struct http_request *request);
void http_agent_host(struct http_request *request); /* http_agent_host.c */
void http_agent_version(struct http_request *request);
void http_agent_monitor(struct http_request *request); /* http_monitor.c */
void http_agent_metrics(struct http_request *request); /* http_metrics.c */

#endif
