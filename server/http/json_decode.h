#ifndef SERVER_HTTP_JSON_DECODE_H
#define SERVER_HTTP_JSON_DECODE_H

/* Reads a JSON object into a struct by a table of members, as Go's encoding/json does with unknown
 * members disallowed: names match without case, null changes nothing, the last of several wins, and
 * errors have Go's words. Where Consul takes another spelling too, that is a line of the table. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/errmsg.h"
#include "kv/slice.h"

enum json_field_type {
    JSON_FIELD_STRING,        /* struct slice, borrowed from the document */
    JSON_FIELD_BOOL,          /* bool */
    JSON_FIELD_INT,           /* int64_t */
    JSON_FIELD_DURATION,      /* int64_t nanoseconds, from a number of them or a duration's text */
    JSON_FIELD_DURATION_ONLY, /* the same; other types are refused, else they count as 0 */
    JSON_FIELD_STRINGS,       /* const json_t *: array of strings */
    JSON_FIELD_STRING_MAP,    /* const json_t *: object of strings */
    JSON_FIELD_STRINGS_MAP,   /* const json_t *: object of arrays of strings */
    JSON_FIELD_OBJECT,        /* const json_t * */
    JSON_FIELD_ARRAY,         /* const json_t * */
    JSON_FIELD_ANY,           /* accepted without effect */
};

struct json_field {
    const char *name; /* as Go spells it: "EnableTagOverride"; NULL: all that have no line before */
    enum json_field_type type;
    size_t offset; /* of the member in the struct; unused for JSON_FIELD_ANY */
};

/* The last line of a table for an object whose unknown members are ignored. */
#define JSON_FIELD_OTHERS                                                                          \
    {                                                                                              \
        NULL, JSON_FIELD_ANY, 0                                                                    \
    }

/* Fills `out`, which the caller has set to its defaults. False with Go's text in `err`: then `out`
 * may be half filled. `type_name` is how Go calls what it reads into ("structs.RegisterRequest").
 */
bool json_decode(const json_t *value, const char *type_name, const struct json_field *fields,
                 size_t field_count, void *out, struct errmsg *err);

/* The same for configuration files, which may write enable_tag_override for EnableTagOverride:
 * underscores do not count. */
bool json_decode_file(const json_t *value, const char *type_name, const struct json_field *fields,
                      size_t field_count, void *out, struct errmsg *err);

/* Whether two names are one in a configuration file: case and underscores do not count. */
bool json_name_equal(const char *a, const char *b);
/* The document's own words for what a value is, as in Go's "cannot unmarshal X". */
const char *json_go_type(const json_t *value);

#endif
