#ifndef SERVER_CATALOG_CATALOG_INTERNAL_H
#define SERVER_CATALOG_CATALOG_INTERNAL_H

/* What the files of this folder share: composed keys, readers of single records, and a write in
 * progress. */

#include <stdbool.h>
#include <stddef.h>

#include "server/catalog/catalog.h"

/* Service name, node, service id, and a NUL after each of the first two. */
enum { CATALOG_KEY_BYTES_MAX = 3 * CATALOG_NAME_BYTES_MAX + 2 };

/* Lower-case parts with a NUL between them. On the stack: reading must not allocate. */
struct catalog_key {
    size_t size;
    char data[CATALOG_KEY_BYTES_MAX];
};

/* Whether a name can be part of a key: not empty, not too long, and without a NUL, which would let
 * it reach into the next part. */
bool catalog_name_valid(struct slice name);
/* Starts a key. False when `name` is not valid: no record can have that key. */
bool catalog_key_begin(struct catalog_key *key, struct slice name);
/* Adds a NUL and a part. */
bool catalog_key_add(struct catalog_key *key, struct slice name);
struct slice catalog_key_slice(const struct catalog_key *key);

/* A name that must outlive the record it was read from. */
struct catalog_name {
    size_t size;
    char data[CATALOG_NAME_BYTES_MAX];
};
void catalog_name_copy(struct catalog_name *copy, struct slice name);
struct slice catalog_name_slice(const struct catalog_name *name);

/* Scans a table of keys as above: the records whose key begins with `name` and a NUL, or all with
 * an empty name. As catalog.h's scans otherwise. */
int catalog_scan_begin(struct catalog_scan *scan, struct store_txn *txn, enum store_table table,
                       struct slice name);
int catalog_scan_next(struct catalog_scan *scan, struct slice *key, struct slice *value);

/* Names in STORE_INDEX. */
#define CATALOG_INDEX_NODES SLICE_LITERAL("nodes")
#define CATALOG_INDEX_SERVICES SLICE_LITERAL("services")
#define CATALOG_INDEX_CHECKS SLICE_LITERAL("checks")
#define CATALOG_INDEX_EXTINCTION SLICE_LITERAL("service_last_extinction")
/* One per service name that has instances: "service.", lower-case name. */
#define CATALOG_INDEX_SERVICE_PREFIX SLICE_LITERAL("service.")
bool catalog_index_key(struct catalog_key *key, struct slice service);
/* STORE_ENOTFOUND when no service has that name. */
int catalog_service_exists(struct store_txn *txn, struct slice service);

/* One catalog write. The tables' indexes and the node's services are settled once, at its end. */
struct catalog_change {
    struct store_txn *txn;
    uint64_t index;
    struct session_stamp stamp;
    struct buffer *ended; /* borrowed */
    struct buffer lost;   /* ids of checks that turned critical or went, each with the reason */
    size_t lost_count;
    struct buffer record; /* a record being encoded */
    bool nodes;
    bool services;
    bool checks;
    bool node_wide; /* what changed concerns all services of the node */
};

void catalog_change_init(struct catalog_change *change, struct store_txn *txn, uint64_t index,
                         struct session_stamp stamp, struct buffer *ended);
/* Ends the sessions that depend on what was lost, sets the indexes and notes the waiters; `node` is
 * where all that has changed. */
int catalog_change_finish(struct catalog_change *change, struct slice node);
void catalog_change_deinit(struct catalog_change *change);

/* Moves the index of a service name, or, without instances, forgets it as disappeared. */
int catalog_change_touch_service(struct catalog_change *change, struct slice service);
/* Moves the indexes that a check's coming, change or going concerns. The check may be borrowed from
 * the store: it is not looked at after the first write. */
int catalog_change_touch_check(struct catalog_change *change, struct slice node,
                               const struct catalog_check *check);
/* The change will end the sessions that depend on the check, with all others in one look at the
 * node's sessions: one look for each takes squares. `reason`: "critical", ... */
int catalog_change_lose_check(struct catalog_change *change, struct slice check_id,
                              const char *reason);

/* Removals; a missing record is no error. `node` and ids must not be borrowed from the store. */
int catalog_remove_node(struct catalog_change *change, struct slice node);
int catalog_remove_service(struct catalog_change *change, struct slice node,
                           struct slice service_id);
int catalog_remove_check(struct catalog_change *change, struct slice node, struct slice check_id,
                         const char *reason);

#endif
