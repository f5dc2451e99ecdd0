#ifndef SERVER_METADATA_H
#define SERVER_METADATA_H

/* Consul's rules for the metadata of nodes and services. */

#include <jansson.h>
#include <stdbool.h>

#include "kv/errmsg.h"

enum {
    METADATA_PAIRS_MAX = 64,
    METADATA_KEY_BYTES_MAX = 128,
    METADATA_VALUE_BYTES_MAX = 512,
};

/* Whether an object of strings (NULL: none) keeps the rules. False with Consul's text in `err`: of
 * the first pair in order of the keys that does not. */
bool metadata_check(const json_t *object, struct errmsg *err);

#endif
