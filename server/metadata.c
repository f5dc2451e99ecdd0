#include "server/metadata.h"

#include <string.h>

enum { METADATA_ERROR = -1 };

/* NULL when it is right. */
static const char *metadata_pair_problem(const char *key, size_t value_size)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

    if (key[0] == '\0') {
        return "Key cannot be blank";
    }
    if (key[strspn(key, allowed)] != '\0') {
        return "Key contains invalid characters";
    }
    if (strlen(key) > METADATA_KEY_BYTES_MAX) {
        return "Key is too long (limit: 128 characters)";
    }
    if (strncmp(key, "consul-", strlen("consul-")) == 0) {
        return "Key prefix 'consul-' is reserved for internal use";
    }
    if (value_size > METADATA_VALUE_BYTES_MAX) {
        return "Value is too long (limit: 512 characters)";
    }
    return NULL;
}

bool metadata_check(const json_t *object, struct errmsg *err)
{
    union {
        const json_t *in;
        json_t *out; /* jansson's iteration takes a pointer to non-const, though it only reads */
    } pun = {.in = object};
    const char *first = NULL;
    const char *key;
    json_t *value;

    if (json_object_size(object) > METADATA_PAIRS_MAX) {
        /* Consul says this of services, too. */
        (void)errmsg_set(err, METADATA_ERROR,
                         "Node metadata cannot contain more than %d key/value pairs",
                         METADATA_PAIRS_MAX);
        return false;
    }
    json_object_foreach(pun.out, key, value)
    {
        const char *problem = metadata_pair_problem(key, json_string_length(value));

        if (problem != NULL && (first == NULL || strcmp(key, first) < 0)) {
            first = key;
            /* Cut, so that there is room for the reason. */
            (void)errmsg_set(err, METADATA_ERROR,
                             "Couldn't load metadata pair ('%.128s', '%.256s'): %s", key,
                             json_string_value(value), problem);
        }
    }
    return first == NULL;
}
