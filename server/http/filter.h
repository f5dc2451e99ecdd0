#ifndef SERVER_HTTP_FILTER_H
#define SERVER_HTTP_FILTER_H

/* Consul's filter expressions (?filter=): a parser, and an evaluator over JSON objects. Pure.
 *
 *   Meta.role == db and not (Port != 5432 or "v1" in Tags) or Checks.Output matches "lag [0-9]+"
 *
 * Operators bind in this order: not, and, or. Selectors name members of the answer as Consul's
 * documentation lists them; one through a list (Checks.Status) asks for any element. What a map
 * lacks is unequal to everything, is in nothing, and matches every expression (Consul 1.8, as
 * measured). A member that an answer leaves out counts as empty, 0 or false. */

#include <jansson.h>
#include <stdbool.h>

#include "kv/errmsg.h"
#include "kv/slice.h"

enum {
    FILTER_BYTES_MAX = 16 * 1024, /* of an expression */
    FILTER_MATCHES_MAX = 128,     /* comparisons in an expression */
    FILTER_DEPTH_MAX = 64,        /* open parentheses, nots and operators that wait for operands */
    FILTER_PIECES_MAX = 8,        /* of a selector */
    FILTER_STEPS_MAX = 1024,      /* of all its regular expressions, see regex.h */
};

/* What is filtered: whose selectors count. */
enum filter_kind {
    FILTER_NODE,         /* catalog/nodes */
    FILTER_NODE_SERVICE, /* catalog/node, catalog/node-services, agent/services */
    FILTER_INSTANCE,     /* catalog/service */
    FILTER_CHECK,        /* health/node, checks, state, agent/checks */
    FILTER_HEALTH,       /* health/service */
};

struct filter;

/* Parses. Returns owned, or NULL with Consul's words in `err` (positions as "line:column (offset)",
 * the list of what it expected is left out). */
struct filter *filter_new(enum filter_kind kind, struct slice expression, struct errmsg *err);
void filter_free(struct filter *filter); /* NULL is accepted */
/* Whether the object passes. */
bool filter_matches(struct filter *filter, const json_t *object);

#endif
