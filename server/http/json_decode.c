#include "server/http/json_decode.h"

#include <assert.h>
#include <string.h>

#include "server/duration.h"

enum { JSON_DECODE_ERROR = -1 };

const char *json_go_type(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "array";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "bool";
    case JSON_NULL:
        return "null";
    }
    return "value";
}

bool json_name_equal(const char *a, const char *b)
{
    for (;;) {
        while (*a == '_') {
            a++;
        }
        while (*b == '_') {
            b++;
        }
        if (slice_lower(*a) != slice_lower(*b)) {
            return false;
        }
        if (*a == '\0') {
            return true;
        }
        a++;
        b++;
    }
}

static bool json_decode_mismatch(const json_t *value, const char *type_name, const char *name,
                                 const char *wanted, struct errmsg *err)
{
    /* Go names the last part of the type; anonymous structs have none. */
    const char *dot = strrchr(type_name, '.');

    (void)errmsg_set(err, JSON_DECODE_ERROR,
                     "json: cannot unmarshal %s into Go struct field %s.%s of type %s",
                     json_go_type(value), dot == NULL ? type_name : dot + 1, name, wanted);
    return false;
}

static bool json_decode_duration(const json_t *value, int64_t *out, struct errmsg *err)
{
    if (json_is_string(value)) {
        return duration_parse(slice_from(json_string_value(value), json_string_length(value)), out,
                              err);
    }
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
    } else if (json_is_real(value)) {
        const double number = json_real_value(value);
        /* Beyond this the conversion to a 64-bit integer is undefined. */
        *out = number > -9.2e18 && number < 9.2e18 ? (int64_t)number : 0;
    } else {
        *out = 0; /* Consul takes a value of another type as none. */
    }
    return true;
}

/* jansson's iteration wants a pointer to non-const, though it only reads. */
static json_t *json_decode_unconst(const json_t *value)
{
    union {
        const json_t *in;
        json_t *out;
    } pun = {.in = value};

    return pun.out;
}

/* What Go would stumble over, and what it wanted instead; NULL when there is nothing. Within a list
 * that is its first item of another type. A null inside becomes the empty value that Go makes of
 * it. */
static const json_t *json_decode_bad_strings(const json_t *value, const char **wanted)
{
    size_t i;
    json_t *item;

    *wanted = "[]string";
    if (!json_is_array(value)) {
        return value;
    }
    *wanted = "string";
    json_array_foreach(value, i, item)
    {
        if (!json_is_string(item) &&
            (!json_is_null(item) ||
             json_array_set_new(json_decode_unconst(value), i, json_string("")) != 0)) {
            return item;
        }
    }
    return NULL;
}

static const json_t *json_decode_bad_map(const json_t *value, bool of_lists, const char **wanted)
{
    *wanted = of_lists ? "map[string][]string" : "map[string]string";
    if (!json_is_object(value)) {
        return value;
    }
    json_t *object = json_decode_unconst(value);
    for (void *it = json_object_iter(object); it != NULL; it = json_object_iter_next(object, it)) {
        if (json_is_null(json_object_iter_value(it))) {
            (void)json_object_iter_set_new(object, it, of_lists ? json_array() : json_string(""));
        }
        const json_t *item = json_object_iter_value(it);
        const json_t *bad = json_is_string(item) ? NULL : item;

        *wanted = "string";
        if (of_lists) {
            bad = json_decode_bad_strings(item, wanted);
        }
        if (bad != NULL) {
            return bad;
        }
    }
    return NULL;
}

static bool json_decode_field(const json_t *value, const char *type_name,
                              const struct json_field *field, void *target, struct errmsg *err)
{
    const json_t *bad = NULL;
    const char *wanted = "";

    switch (field->type) {
    case JSON_FIELD_STRING:
        if (!json_is_string(value)) {
            return json_decode_mismatch(value, type_name, field->name, "string", err);
        }
        *(struct slice *)target = slice_from(json_string_value(value), json_string_length(value));
        return true;
    case JSON_FIELD_BOOL:
        if (!json_is_boolean(value)) {
            return json_decode_mismatch(value, type_name, field->name, "bool", err);
        }
        *(bool *)target = json_is_true(value);
        return true;
    case JSON_FIELD_INT:
        if (!json_is_integer(value)) {
            return json_decode_mismatch(value, type_name, field->name, "int", err);
        }
        *(int64_t *)target = json_integer_value(value);
        return true;
    case JSON_FIELD_DURATION_ONLY:
        if (!json_is_string(value) && !json_is_number(value)) {
            return json_decode_mismatch(value, type_name, field->name, "duration", err);
        }
        return json_decode_duration(value, target, err);
    case JSON_FIELD_DURATION:
        return json_decode_duration(value, target, err);
    case JSON_FIELD_STRINGS:
        bad = json_decode_bad_strings(value, &wanted);
        break;
    case JSON_FIELD_STRING_MAP:
        bad = json_decode_bad_map(value, false, &wanted);
        break;
    case JSON_FIELD_STRINGS_MAP:
        bad = json_decode_bad_map(value, true, &wanted);
        break;
    case JSON_FIELD_OBJECT:
        if (!json_is_object(value)) {
            return json_decode_mismatch(value, type_name, field->name, "struct", err);
        }
        break;
    case JSON_FIELD_ARRAY:
        if (!json_is_array(value)) {
            return json_decode_mismatch(value, type_name, field->name, "list", err);
        }
        break;
    case JSON_FIELD_ANY:
        return true;
    }
    if (bad != NULL) {
        return json_decode_mismatch(bad, type_name, field->name, wanted, err);
    }
    *(const json_t **)target = value;
    return true;
}

static bool json_decode_by(bool (*equal)(const char *, const char *), const json_t *value,
                           const char *type_name, const struct json_field *fields,
                           size_t field_count, void *out, struct errmsg *err)
{
    assert(field_count > 0);
    if (json_is_null(value)) {
        return true; /* Go leaves everything at its zero value. */
    }
    if (!json_is_object(value)) {
        (void)errmsg_set(err, JSON_DECODE_ERROR,
                         "json: cannot unmarshal %s into Go value of type %s", json_go_type(value),
                         type_name);
        return false;
    }
    json_t *object = json_decode_unconst(value);
    for (void *it = json_object_iter(object); it != NULL; it = json_object_iter_next(object, it)) {
        const char *name = json_object_iter_key(it);
        const json_t *item = json_object_iter_value(it);
        size_t i = 0;

        while (i < field_count && fields[i].name != NULL && !equal(fields[i].name, name)) {
            i++;
        }
        if (i == field_count) {
            (void)errmsg_set(err, JSON_DECODE_ERROR, "json: unknown field \"%s\"", name);
            return false;
        }
        if (json_is_null(item)) {
            continue;
        }
        if (!json_decode_field(item, type_name, &fields[i], (char *)out + fields[i].offset, err)) {
            return false;
        }
    }
    return true;
}

static bool json_name_same(const char *a, const char *b)
{
    return slice_equal_nocase(slice_from_text(a), slice_from_text(b));
}

bool json_decode(const json_t *value, const char *type_name, const struct json_field *fields,
                 size_t field_count, void *out, struct errmsg *err)
{
    return json_decode_by(json_name_same, value, type_name, fields, field_count, out, err);
}

bool json_decode_file(const json_t *value, const char *type_name, const struct json_field *fields,
                      size_t field_count, void *out, struct errmsg *err)
{
    return json_decode_by(json_name_equal, value, type_name, fields, field_count, out, err);
}
