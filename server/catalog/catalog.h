#ifndef SERVER_CATALOG_CATALOG_H
#define SERVER_CATALOG_CATALOG_H

/* The catalog: nodes, the services on them, and checks, with Consul 1.8's rules and indexes
 * (conformance NOTES, section "Catalog, health, agent"). Pure, like kv.h: reads run in any
 * transaction, writes at a Raft index. The DNS threads read it too; reading allocates nothing. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "kv/store.h"
#include "session/session.h"

enum catalog_error {
    /* Store errors pass through unchanged. */
    CATALOG_EINVAL = -201, /* Consul's text is in the errmsg; nothing has changed */
};

/* Borrowed slices throughout: from the transaction or from the command. */
struct catalog_node {
    struct slice id; /* uuid text, "" if none */
    struct slice name;
    struct slice address;
    struct slice datacenter;
    struct strings tagged_addresses; /* key, value, ... */
    struct strings meta;             /* key, value, ... */
    uint64_t create_index;
    uint64_t modify_index;
};

struct catalog_service {
    struct slice node; /* name as registered; not stored, filled when read from its key's node */
    struct slice kind;
    struct slice id;
    struct slice name;
    struct strings tags;
    struct strings meta;
    struct slice address;
    struct strings tagged_addresses; /* triples: name, address, port in decimal */
    uint32_t port;
    uint32_t weight_passing;
    uint32_t weight_warning;
    bool enable_tag_override;
    struct slice
        extra; /* JSON text of what we keep but do not understand (Proxy, Connect), "" if none */
    uint64_t create_index;
    uint64_t modify_index;
};

struct catalog_check {
    struct slice node; /* as registered */
    struct slice id;
    struct slice name;
    struct slice status;
    struct slice notes;
    struct slice output;
    struct slice service_id; /* "": a node's check */
    struct slice service_name;
    struct strings service_tags;
    struct slice type;
    struct slice definition; /* JSON text of Definition, "" if none */
    uint64_t create_index;
    uint64_t modify_index;
};

void catalog_node_encode(struct buffer *out, const struct catalog_node *node);
bool catalog_node_decode(struct slice bytes, struct catalog_node *out);
void catalog_service_encode(struct buffer *out, const struct catalog_service *service);
bool catalog_service_decode(struct slice bytes, struct catalog_service *out);
void catalog_check_encode(struct buffer *out, const struct catalog_check *check);
bool catalog_check_decode(struct slice bytes, struct catalog_check *out);

/* "passing", "warning", "critical", anything else (free text in the catalog; counts as critical
 * nowhere). */
bool catalog_check_is_passing(const struct catalog_check *check);
bool catalog_check_is_warning(const struct catalog_check *check);
bool catalog_check_is_critical(const struct catalog_check *check);

/* Reading. Names of nodes and services are compared without case. STORE_ENOTFOUND when missing. */
int catalog_node_get(struct store_txn *txn, struct slice node, struct catalog_node *out);
int catalog_node_get_by_id(struct store_txn *txn, struct slice id, struct catalog_node *out);
int catalog_service_get(struct store_txn *txn, struct slice node, struct slice service_id,
                        struct catalog_service *out);
int catalog_check_get(struct store_txn *txn, struct slice node, struct slice check_id,
                      struct catalog_check *out);

/* Scans; each _next gives STORE_ENOTFOUND at the end, and each needs catalog_scan_end. Order: node
 * name, then id. */
struct catalog_scan {
    struct store_scan scan;
    struct buffer key;
};
int catalog_nodes_begin(struct catalog_scan *scan, struct store_txn *txn);
int catalog_nodes_next(struct catalog_scan *scan, struct catalog_node *out);
/* Services of one node, or all with an empty name (in order of node). */
int catalog_services_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice node);
int catalog_services_next(struct catalog_scan *scan, struct catalog_service *out);
/* Instances of one service name, by node and id. */
int catalog_instances_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice service);
int catalog_instances_next(struct catalog_scan *scan, struct catalog_service *service,
                           struct catalog_node *node);
/* Checks of one node (its own and its services'), or all with an empty name. */
int catalog_checks_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice node);
int catalog_checks_next(struct catalog_scan *scan, struct catalog_check *out);
void catalog_scan_end(struct catalog_scan *scan);

/* X-Consul-Index of whole-table answers (0: never changed), and of one service name: its instances,
 * their nodes and checks; when it is gone: that of the last disappearance of any service name. */
int catalog_index_nodes(struct store_txn *txn, uint64_t *index);
int catalog_index_services(struct store_txn *txn, uint64_t *index);
int catalog_index_checks(struct store_txn *txn, uint64_t *index);
int catalog_index_service(struct store_txn *txn, struct slice service, uint64_t *index);

/* A registration: node and, optionally, a service and any number of checks, applied as a whole or
 * not at all (the caller aborts or nests on error). */
struct catalog_registration {
    struct catalog_node node;
    bool skip_node_update;
    bool has_service;
    struct catalog_service service;
    uint32_t check_count;
    struct slice checks; /* check_count records, each u32 size + catalog_check_encode bytes */
};
void catalog_registration_encode(struct buffer *out,
                                 const struct catalog_registration *registration);
bool catalog_registration_decode(struct slice bytes, struct catalog_registration *out);

/* Checks everything first, so that CATALOG_EINVAL leaves the transaction as it was. Ends the
 * sessions that depend on checks turned critical; their ids are appended to `ended`. */
int catalog_register(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                     const struct catalog_registration *registration, struct buffer *ended,
                     struct errmsg *err);
/* Removes a service (service_id given), a check (check_id given), or the node with all it has. What
 * does not exist is no error. */
int catalog_deregister(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                       struct slice node, struct slice service_id, struct slice check_id,
                       struct buffer *ended);

/* For session_create. */
extern const struct session_catalog catalog_for_sessions;

#endif
