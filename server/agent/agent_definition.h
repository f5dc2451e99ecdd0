#ifndef SERVER_AGENT_AGENT_DEFINITION_H
#define SERVER_AGENT_AGENT_DEFINITION_H

/* Definitions of services and checks as clients, configuration files and our own files on disk
 * write them: read, checked with Consul's words, and normalised. Pure. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "server/catalog/catalog.h"
#include "server/http/service_json.h"

/* Who wrote it: decides which member is the id, and how errors begin. */
enum agent_origin {
    AGENT_ORIGIN_API_CHECK,         /* /v1/agent/check/register: "ID" */
    AGENT_ORIGIN_API_SERVICE_CHECK, /* Check and Checks in a service: "CheckID" */
    AGENT_ORIGIN_API_SERVICE,
    AGENT_ORIGIN_FILE, /* configuration, and what we kept on disk: both */
};

enum agent_check_type {
    AGENT_CHECK_NONE,
    AGENT_CHECK_TTL,
    AGENT_CHECK_HTTP,
    AGENT_CHECK_TCP,
    AGENT_CHECK_SCRIPT,
    AGENT_CHECK_ALIAS,
    AGENT_CHECK_MAINTENANCE,
};

/* Which script checks are allowed: enable_script_checks, enable_local_script_checks. */
struct agent_scripts {
    bool remote; /* from clients */
    bool local;  /* from configuration files */
};

/* Everything is borrowed from the document. */
struct agent_check_definition {
    struct slice id;
    struct slice name;
    struct slice notes;
    struct slice service_id;
    struct slice status;
    struct slice http;
    struct slice method;
    struct slice body;
    struct slice tcp;
    const json_t *header; /* object of lists, or NULL */
    int64_t interval_ns;
    int64_t timeout_ns;
    int64_t ttl_ns;
    int64_t deregister_ns;
    int64_t success_before_passing;
    int64_t failures_before_critical;
    int64_t failures_before_warning; /* 0: as failures_before_critical */
    int64_t output_bytes_max;
    bool tls_skip_verify;
    struct slice tls_server_name; /* empty: the URL's host */
    bool disable_redirects;
    const json_t *args; /* array of strings, or NULL: ScriptArgs, or Args when that is empty */
    const json_t *script_args;
    struct slice alias_node; /* empty: this one */
    struct slice alias_service;
    /* Kinds that we know and refuse. */
    struct slice docker;
    struct slice grpc;
    struct slice udp;
    struct slice h2ping;
    struct slice os_service;
};

struct agent_service_definition {
    struct service_json common;
    const json_t *check;
    const json_t *checks;
};

/* AGENT_EINVAL with "Request decode failed: ..." (or without, for AGENT_ORIGIN_FILE). */
int agent_definition_read_check(const json_t *json, enum agent_origin origin,
                                struct agent_check_definition *out, struct errmsg *err);
int agent_definition_read_service(const json_t *json, enum agent_origin origin,
                                  struct agent_service_definition *out, struct errmsg *err);

/* Consul's "Invalid check: ..." rules. AGENT_EINVAL. */
int agent_definition_check_type(const struct agent_check_definition *check,
                                enum agent_check_type *out, struct errmsg *err);
/* AGENT_EINTERNAL with a clear text for kinds that this server does not run (docker, gRPC, UDP,
 * HTTP/2 ping, operating system services), and for scripts that are not allowed: `local` says that
 * the definition comes from a configuration file. */
int agent_definition_refuse_kinds(const struct agent_check_definition *check,
                                  const struct agent_scripts *scripts, bool local,
                                  struct errmsg *err);
const char *agent_check_type_text(enum agent_check_type type);
bool agent_status_valid(struct slice status);

/* Name, address, weights and metadata of a service, in Consul's order. */
int agent_definition_check_service(const struct agent_service_definition *service,
                                   struct errmsg *err);

/* The checks of a service's definition in order: Check, then Checks. Empty ones are left out as
 * Consul does. `visit` returns 0 to go on. */
int agent_definition_visit_checks(const struct agent_service_definition *service,
                                  int (*visit)(void *host, const json_t *check), void *host);

/* A copy without the named members (NULL ends the list; compared as json_decode does). Returns
 * owned, NULL without memory. */
json_t *agent_definition_copy_without(const json_t *json, const char *const *names);

/* The catalog's form of a service (encoded, indexes 0): defaults filled in, addresses tagged. On
 * failure `out` is marked failed. */
void agent_definition_encode_service(struct buffer *out,
                                     const struct agent_service_definition *service);

#endif
