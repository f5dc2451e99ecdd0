#ifndef SERVER_HTTP_HTTP_AGENT_H
#define SERVER_HTTP_HTTP_AGENT_H

/* The handlers below /v1/agent/: local services and checks (http_agent_service.c) and their health
 * (http_agent_health.c), and what the agent says of itself (http_agent.c, with the routes). */

#include "kv/buffer.h"
#include "server/http/http.h"

struct agent_service;

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
/* Appends "runtime" of /v1/agent/self in Go's words; what it calls goroutines are threads here. */
void http_agent_put_runtime(struct buffer *out);
void http_agent_monitor(struct http_request *request);        /* http_monitor.c */
void http_agent_metrics(struct http_request *request);        /* http_metrics.c */
void http_agent_metrics_stream(struct http_request *request); /* http_metrics_stream.c */

/* Appends a service as the agent shows its own: null lists are empty ones, and no indexes. `hash`
 * adds the ContentHash. */
void http_agent_put_service(struct buffer *out, const struct agent_service *service, bool hash);

#endif
