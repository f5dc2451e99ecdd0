#ifndef SERVER_CATALOG_CATALOG_H
#define SERVER_CATALOG_CATALOG_H

/* The catalog: nodes, the services on them, and checks, with Consul 1.8's rules and indexes
 * (conformance NOTES, section "Catalog, health, agent"). Pure, like kv.h: reads run in any
 * transaction, writes at a Raft index. The DNS threads read it too; reading allocates nothing of
 * its own: keys are composed on the stack or inside the scan, records are decoded in place.
 *
 * Names of nodes and services and ids of services and checks compare without ASCII case, as in
 * Consul, and are shown as stored. The last three parts of a key in store.h are thus lower case.
 *
 * Where we leave Consul 1.8 on purpose, always towards waking fewer waiters for nothing, or those
 * that it forgets:
 * - an identical check leaves the index of the checks (as later releases do);
 * - a service that takes another name moves the index of the name it had, or counts as that name's
 *   disappearance (1.8 leaves its waiters asleep and may let the index go backwards);
 * - a check that moves to another service moves the index of the one it left, too;
 * - a node with an id that changes its name by case alone keeps its services (as later releases
 *   do; 1.8 drops them). */

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

/* Longest name of a node or service, and id of a service or check. */
enum { CATALOG_NAME_BYTES_MAX = 1024 };

/* Service metadata, as Consul bounds it. */
enum {
    CATALOG_META_PAIRS_MAX = 64,
    CATALOG_META_KEY_BYTES_MAX = 128,
    CATALOG_META_VALUE_BYTES_MAX = 512,
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
    struct slice node; /* name as registered; catalog_register fills it */
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
    struct slice node; /* as registered; empty in a registration: the registered node */
    struct slice id;   /* empty in a registration: the name */
    struct slice name;
    struct slice status; /* empty in a registration: critical */
    struct slice notes;
    struct slice output;
    struct slice service_id;     /* "": a node's check */
    struct slice service_name;   /* a service's check: this and the tags are copied from the */
    struct strings service_tags; /* service by catalog_register, whatever the registration has */
    struct slice type;
    struct slice definition; /* JSON text of Definition, "" if none */
    uint64_t create_index;
    uint64_t modify_index;
};

/* Maps (metadata, tagged addresses) are encoded in order of their keys, the last of equal keys
 * wins: equal maps give equal bytes. A failed allocation shows in out->failed. The decoders are
 * complete checks: iterating over what they fill cannot fail. */
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

/* Whether the check counts for the service: it is the service's own, or its node's. Both must be of
 * one node. */
bool catalog_check_concerns(const struct catalog_check *check,
                            const struct catalog_service *service);

/* Reading. STORE_ENOTFOUND when missing (so are names that nothing can have). */
int catalog_node_get(struct store_txn *txn, struct slice node, struct catalog_node *out);
int catalog_node_get_by_id(struct store_txn *txn, struct slice id, struct catalog_node *out);
/* By name, else by the only id that starts with `name_or_id` (hex, at least two characters, an odd
 * last one is not looked at, dashes where they please, but whole bytes): what catalog/node/:node,
 * catalog/node-services/:node and the names of nodes in DNS may be. */
int catalog_node_find(struct store_txn *txn, struct slice name_or_id, struct catalog_node *out);
int catalog_service_get(struct store_txn *txn, struct slice node, struct slice service_id,
                        struct catalog_service *out);
int catalog_check_get(struct store_txn *txn, struct slice node, struct slice check_id,
                      struct catalog_check *out);

int catalog_nodes_count(struct store_txn *txn, uint64_t *count);

/* Scans; each _next gives STORE_ENOTFOUND at the end, and each successful _begin needs
 * catalog_scan_end. Order: node name, then id. A scan may be uninitialised memory before its
 * _begin, must not be moved while it runs (the prefix lives in it), and owns no memory itself: what
 * store_scan_* may keep is all there is to a query. Several may run at once in one transaction. */
struct catalog_scan {
    struct store_scan scan;
    bool empty;       /* the name is one that nothing can have: no store scan runs */
    struct slice key; /* of the record that was read last; borrowed until the next step */
    size_t prefix_size;
    char prefix[CATALOG_NAME_BYTES_MAX + 1];
};
int catalog_nodes_begin(struct catalog_scan *scan, struct store_txn *txn);
int catalog_nodes_next(struct catalog_scan *scan, struct catalog_node *out);
/* Services of one node, or all with an empty name (in order of node). */
int catalog_services_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice node);
int catalog_services_next(struct catalog_scan *scan, struct catalog_service *out);
/* Instances of one service name, by node and id, each with its node (`node` may be NULL). */
int catalog_instances_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice service);
int catalog_instances_next(struct catalog_scan *scan, struct catalog_service *service,
                           struct catalog_node *node);
/* The name of each instance of every service, in lower case; borrowed until the next step. Equal
 * names come one after the other. */
int catalog_names_begin(struct catalog_scan *scan, struct store_txn *txn);
int catalog_names_next(struct catalog_scan *scan, struct slice *name);
/* Checks of one node (its own and its services'), or all with an empty name. */
int catalog_checks_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice node);
int catalog_checks_next(struct catalog_scan *scan, struct catalog_check *out);
/* Goes on at the first record of the scan whose key is `key`, or behind it. `key` begins as the
 * keys of the scan do; a scan's own key with a NUL behind it is the place behind that record. After
 * a failure the scan has ended. */
int catalog_scan_seek(struct catalog_scan *scan, struct slice key);
void catalog_scan_end(struct catalog_scan *scan);

/* X-Consul-Index of whole-table answers (0: never changed), and of one service name: its instances,
 * their nodes and checks; when it is gone: that of the last disappearance of any service name, and
 * as long as none has disappeared, the highest of the three tables. */
int catalog_index_nodes(struct store_txn *txn, uint64_t *index);
int catalog_index_services(struct store_txn *txn, uint64_t *index);
int catalog_index_checks(struct store_txn *txn, uint64_t *index);
int catalog_index_service(struct store_txn *txn, struct slice service, uint64_t *index);

/* A registration: node and, optionally, a service and any number of checks, applied as a whole or
 * not at all. */
struct catalog_registration {
    struct catalog_node node;
    bool skip_node_update;
    bool address_optional; /* a transaction's node needs none; not encoded */
    bool has_service;
    struct catalog_service service;
    uint32_t check_count;
    struct slice checks; /* check_count records, each u32 size + catalog_check_encode bytes */
};
void catalog_registration_encode(struct buffer *out,
                                 const struct catalog_registration *registration);
bool catalog_registration_decode(struct slice bytes, struct catalog_registration *out);

/* Sessions that a catalog write has ended, each with its cause ("check 'x' critical"). `ended`
 * below is a buffer of these records, appended to; read it with `struct reader it =
 * reader_from(buffer_slice(&ended)); while (catalog_ended_next(&it, ...))`. */
bool catalog_ended_next(struct reader *it, struct uuid *id, struct slice *cause);

/* Checks everything first, so that CATALOG_EINVAL leaves the transaction as it was. Ends the
 * sessions that depend on checks turned critical. An id that another node has means that this node
 * was renamed: the old one goes, with its services, checks and sessions, unless the new name is
 * that of a node which is alive (serfHealth exists and is not critical). Store errors: abort. */
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
