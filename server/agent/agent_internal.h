#ifndef SERVER_AGENT_AGENT_INTERNAL_H
#define SERVER_AGENT_AGENT_INTERNAL_H

/* What the agent's files share, and what its HTTP endpoints look at. All on the loop. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "server/agent/agent.h"
#include "server/agent/agent_definition.h"
#include "server/agent/agent_store.h"
#include "server/agent/probe.h"
#include "server/agent/script.h"
#include "server/catalog/catalog.h"
#include "server/replica.h"

enum {
    AGENT_SERVICES_MAX = 4096,
    AGENT_CHECKS_MAX = 16384,
    AGENT_ID_BYTES_MAX = 1024,       /* CATALOG_NAME_BYTES_MAX: the catalog refuses longer ones */
    AGENT_PROPOSALS_MAX = 4,         /* in flight at a time */
    AGENT_PROPOSAL_OBJECTS_MAX = 64, /* a service and so many of its checks in one command */
    AGENT_CHECK_INTERVAL_MS_MIN = 1000,
    AGENT_CHECK_TIMEOUT_MS_DEFAULT = 10 * 1000,
    AGENT_SCRIPT_TIMEOUT_MS_DEFAULT = 30 * 1000,
    AGENT_TLS_MS = 50,     /* between two looks whether the authorities have been read */
    AGENT_ALIAS_MS = 1000, /* between two looks into the catalog for another node's checks */
    AGENT_DEREGISTER_MS_MIN = 60 * 1000,
    AGENT_REAP_MS = 30 * 1000,
    AGENT_FULL_SYNC_MS = 60 * 1000, /* plus or minus a quarter */
    AGENT_RETRY_MS_MIN = 500,
    AGENT_RETRY_MS_MAX = 15 * 1000,
    AGENT_SERVERS_MS = 10 * 1000,        /* how often the leader looks at all members */
    AGENT_SERVERS_UNSEEN_MS = 30 * 1000, /* a server that a new leader never saw has failed */
};

#define AGENT_MAGIC 0x4147454Eu
#define AGENT_CHECK_MAGIC 0x4348454Bu

#define AGENT_NODE_MAINTENANCE_ID "_node_maintenance"
#define AGENT_SERVICE_MAINTENANCE_PREFIX "_service_maintenance:"
#define AGENT_SERF_CHECK_ID "serfHealth"
#define AGENT_CONSUL_SERVICE_ID "consul"

enum agent_sync {
    AGENT_SYNC_UNKNOWN, /* nothing is known of the catalog's side: the full comparison decides */
    AGENT_SYNC_DIRTY,   /* changed here: goes to the catalog */
    AGENT_SYNC_DONE,
};

struct agent_service {
    char *id;
    json_t *definition;            /* normalised: "ID", no checks; what is kept on disk */
    struct buffer encoded;         /* as the catalog has it, indexes 0 */
    struct catalog_service record; /* borrows from `encoded` */
    bool from_config;
    bool stale;   /* during a reload: the new configuration has not named it yet */
    bool deleted; /* only waits to be taken out of the catalog */
    bool in_flight;
    bool seen; /* in the catalog, during a comparison */
    enum agent_sync sync;
    uint64_t generation; /* changes with every change */
};

struct agent_check {
    uint32_t magic;
    struct agent *agent;
    char *id;
    json_t *definition;                 /* normalised: "CheckID", "Name", "ServiceID" */
    struct agent_check_definition spec; /* borrows from `definition` */
    enum agent_check_type type;
    enum probe_status status;
    struct buffer output;
    bool from_config;
    bool stale; /* during a reload: the new configuration has not named it yet */
    bool deleted;
    bool in_flight;
    bool seen;
    bool output_deferred; /* an output-only change waits until output_due_ms */
    bool told;            /* a client gave the output, since it was registered */
    enum agent_sync sync;
    uint64_t generation;
    uint64_t output_due_ms;
    uint64_t critical_since_ms; /* 0: not critical, or never reported */
    uint64_t successes;         /* in a row */
    uint64_t failures;
    uv_timer_t timer; /* TTL, or the next run */
    struct probe *probe;
    struct script *script;
    bool alias_runs; /* counted in agent->alias_count */
};

/* One command on its way. It outlives the agent: then agent is NULL. */
struct agent_proposal;
struct agent_servers_proposal;

/* A blocking query on the agent's own state. Intrusive. */
struct agent_waiter {
    /* Called once, after the waiter was taken out. */
    void (*on_wake)(struct agent_waiter *waiter);
    uint64_t deadline_ms;
    struct agent_waiter *next, *previous;
    bool waiting;
};

struct agent {
    uint32_t magic;
    struct server *server;
    struct agent_service **services; /* in order of id */
    size_t service_count, service_capacity;
    struct agent_check **checks; /* in order of id */
    size_t check_count, check_capacity;
    uint64_t next_generation;
    struct agent_store *store; /* NULL: nothing is kept */
    uint64_t check_update_interval_ms;
    uint64_t output_bytes_max; /* of a check, where it has no lower limit itself */
    bool discard_output;
    struct agent_scripts scripts;
    struct probe_tls_context *tls;   /* made by a worker for the first HTTPS check; NULL before */
    struct agent_tls_work *tls_work; /* while it is made */
    bool tls_ready;                  /* it was made, or could not be (tls is NULL then) */
    size_t alias_count;              /* alias checks that run */

    uv_timer_t sync_timer;
    uv_timer_t reap_timer;
    uv_timer_t servers_timer;
    uv_timer_t wait_timer;
    unsigned handles_open;
    bool closing;

    /* agent_sync.c */
    struct agent_proposal *proposals;
    unsigned proposals_in_flight;
    enum agent_sync node_sync;
    bool node_in_flight;
    bool compared; /* with the catalog, at least once */
    bool reading;
    struct replica_read read;
    uint64_t full_due_ms;
    uint64_t retry_at_ms;
    uint64_t backoff_ms;

    /* agent_servers.c */
    struct agent_servers_proposal *servers_proposals;
    unsigned servers_in_flight;
    bool servers_again;
    uint64_t leader_since_ms; /* 0: not the leader */

    struct agent_waiter waiters; /* list head */
};

/* --- agent.c --- */

/* What the configuration says of checks. */
void agent_set_config(struct agent *agent, const struct config *config);
/* A number below `bound` (0 for 0). */
uint64_t agent_random(uint64_t bound);

/* --- agent_lists.c --- */

/* NULL when there is none, or it is deleted. */
struct agent_service *agent_service_find(const struct agent *agent, struct slice id);
struct agent_check *agent_check_find(const struct agent *agent, struct slice id);
/* Deleted ones too. */
struct agent_service *agent_service_find_any(const struct agent *agent, struct slice id);
struct agent_check *agent_check_find_any(const struct agent *agent, struct slice id);
/* Finds it, or inserts an empty one; NULL when out of memory. */
struct agent_service *agent_service_obtain(struct agent *agent, struct slice id);
struct agent_check *agent_check_obtain(struct agent *agent, struct slice id);
/* Out of the list at once, and out of memory as soon as libuv lets go of it. */
void agent_service_drop(struct agent *agent, struct agent_service *service);
void agent_check_drop(struct agent *agent, struct agent_check *check);

/* --- agent_change.c --- */

/* Takes over an encoded record (the buffer is emptied) and wakes who waits. */
void agent_service_set_record(struct agent *agent, struct agent_service *service,
                              struct buffer *encoded);
/* An opaque digest of what clients see of the service. */
uint64_t agent_service_hash(const struct agent_service *service);
/* The check as the catalog has it; borrows from the check and its service. */
void agent_check_record(const struct agent *agent, const struct agent_check *check,
                        struct catalog_check *out);
/* It is to go to the catalog; agent_sync_kick sees to it. */
void agent_check_touch(struct agent *agent, struct agent_check *check);
/* Marks a service or a check for removal everywhere. */
void agent_service_remove(struct agent *agent, struct agent_service *service);
void agent_check_remove(struct agent *agent, struct agent_check *check);
/* The catalog has something under our node that is not ours: it is to be taken out. */
void agent_service_note_foreign(struct agent *agent, struct slice id);
void agent_check_note_foreign(struct agent *agent, struct slice id);

/* --- agent_wait.c --- */

/* Waits for the next change of any service, at most until waiter->deadline_ms (loop's clock). */
void agent_wait(struct agent *agent, struct agent_waiter *waiter);
/* Wakes those that are due at `now_ms`; UINT64_MAX wakes all. Who waits anew comes to a list of its
 * own, and is not woken twice. */
void agent_wake(struct agent *agent, uint64_t now_ms);
void agent_on_wait_timer(uv_timer_t *timer);
void agent_wait_cancel(struct agent *agent, struct agent_waiter *waiter);

/* --- agent_load.c --- */

/* The configuration's definitions; the first bad one is an error. */
int agent_load_config(struct agent *agent, const struct config *config, struct errmsg *err);
/* One document that was kept on disk; a bad one is skipped with a log line. `host` is the agent. */
void agent_load_service(void *host, const json_t *document);
void agent_load_check(void *host, const json_t *document);
/* What a client had last said of a TTL check, unless its time is over. */
void agent_load_state(void *host, const json_t *document);
/* Keeps what a client says of a TTL check, and until when that holds. */
void agent_check_keep_state(const struct agent_check *check, struct slice output);

/* --- agent_register.c --- */

/* A check that is to be registered, and who says so. */
struct agent_check_input {
    const json_t *json;
    struct slice id;
    struct slice name;
    struct slice service_id;
    enum agent_check_type type;
    bool from_config;
    bool keep; /* write it to disk */
};
/* Adds or replaces a check whose input was validated. A check that was there keeps its last status
 * and output (conformance NOTES). */
int agent_check_add(struct agent *agent, const struct agent_check_input *input, struct errmsg *err);
/* Takes over a check's definition from a client, a file or our disk. */
int agent_check_add_json(struct agent *agent, const json_t *json, enum agent_origin origin,
                         bool from_config, bool keep, struct errmsg *err);

/* A service that is to be registered, and who says so. */
struct agent_service_input {
    struct agent *agent;
    struct agent_scripts scripts; /* which ones are allowed */
    struct agent_service_definition spec;
    struct slice id;
    bool from_config;
    bool keep;
    bool replace_checks;
    struct errmsg *err;
    /* While its checks are visited. */
    size_t check_total;
    size_t check_position;
    json_t *check_ids; /* array of strings */
};
/* Adds or replaces a service with its checks; `origin` says how `json` is spelled, input->spec is
 * filled here. Definitions are judged before anything changes; what may end it between the service
 * and its checks are the agent's own limits. */
int agent_service_add(struct agent_service_input *input, const json_t *json,
                      enum agent_origin origin);
/* With ?replace-existing-checks: checks that the definition does not name go. */
int agent_service_register_replacing(struct agent *agent, const json_t *definition,
                                     struct errmsg *err);
/* For agent_definition_visit_checks; `input` is a struct agent_service_input. */
int agent_service_validate_check(void *input, const json_t *json);
int agent_no_memory(struct errmsg *err);
/* A status as clients write it; what is none of them is critical. */
enum probe_status agent_status_from(struct slice text);
/* Returns `code`; the text is `before`, the name in quotes as Go writes them, and `after`. */
int agent_refuse(struct errmsg *err, int code, const char *before, struct slice name,
                 const char *after);

/* --- agent_checks.c --- */

/* Begins running the check; its spec, type and status are set. */
void agent_check_start(struct agent_check *check);
/* Stops running it; it may be started again. */
void agent_check_stop(struct agent_check *check);
/* A result: through thresholds for probes, at once for TTLs. */
void agent_check_update(struct agent_check *check, enum probe_status status, struct slice output);
/* Largest output of this check. */
uint64_t agent_check_output_bytes_max(const struct agent_check *check);
/* Something changed that alias checks may look at. */
void agent_check_kick_aliases(struct agent *agent);
/* Takes out services whose checks were critical for too long. */
void agent_reap(struct agent *agent);

/* --- agent_tls.c --- */

/* Whether agent->tls has been made, or tried to; sees to it when not. */
bool agent_tls_prepare(struct agent *agent);
void agent_tls_free(struct agent *agent);

/* --- agent_alias.c --- */

/* Looks at what the alias stands for, and updates the check. */
void agent_alias_evaluate(struct agent_check *check);
/* Whether that is registered with this agent; else it is in the catalog. */
bool agent_alias_is_local(const struct agent_check *check);

/* --- agent_sync.c --- */

/* Something changed: the next turn of the loop sends it. */
void agent_sync_kick(struct agent *agent);
void agent_sync_on_timer(uv_timer_t *timer);
void agent_sync_free(struct agent *agent);
/* Our own node, as it should be in the catalog. The buffers hold what the record borrows. */
void agent_sync_node(const struct agent *agent, struct catalog_node *node, struct buffer *tagged,
                     struct buffer *meta);

/* --- agent_servers.c --- */

void agent_servers_on_timer(uv_timer_t *timer);
void agent_servers_free(struct agent *agent);

#endif
