/* Reading: JSON text, checked key by key against the tables, merged into one set of values. */

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "server/config_internal.h"

/* Where in a source we are, for messages. */
struct config_place {
    const char *source; /* file name */
    const char *prefix; /* of the path that is shown: "", or "service." and the like */
    const struct config_key *keys;
    size_t key_count;
};

enum { CONFIG_SECTIONS_MAX = 8 }; /* how deep sections nest */

int config_settings_init(struct config_settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    settings->values = json_object();
    settings->services = json_array();
    settings->checks = json_array();
    if (settings->values == NULL || settings->services == NULL || settings->checks == NULL) {
        config_settings_deinit(settings);
        return -1;
    }
    return 0;
}

void config_settings_deinit(struct config_settings *settings)
{
    json_decref(settings->values);
    json_decref(settings->services);
    json_decref(settings->checks);
    memset(settings, 0, sizeof(*settings));
}

/* A list of one thing is that thing, where no list is asked for: so Consul reads what becomes of
 * HCL's blocks in JSON. Borrows from `value`. */
static json_t *config_unwrap(json_t *value)
{
    while (json_array_size(value) == 1) {
        value = json_array_get(value, 0);
    }
    return value;
}

static json_t *config_unwrap_for(enum config_kind kind, json_t *value)
{
    switch (kind) {
    case CONFIG_BOOL:
    case CONFIG_INT:
    case CONFIG_NUMBER:
    case CONFIG_STRING:
    case CONFIG_DURATION:
    case CONFIG_MAP:
        return config_unwrap(value);
    case CONFIG_STRINGS:
    case CONFIG_SERVICE:
    case CONFIG_SERVICES:
    case CONFIG_CHECK:
    case CONFIG_CHECKS:
    case CONFIG_ANY:
        break;
    }
    return value;
}

static const char *config_kind_name(enum config_kind kind)
{
    switch (kind) {
    case CONFIG_BOOL:
        return "bool";
    case CONFIG_INT:
        return "int";
    case CONFIG_NUMBER:
        return "float64";
    case CONFIG_STRING:
    case CONFIG_DURATION:
        return "string";
    case CONFIG_STRINGS:
    case CONFIG_SERVICES:
    case CONFIG_CHECKS:
        return "slice";
    case CONFIG_MAP:
    case CONFIG_SERVICE:
    case CONFIG_CHECK:
        return "map";
    case CONFIG_ANY:
        return "any";
    }
    return "any";
}

/* A value's type in the words of Consul's errors. */
static const char *config_type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "map";
    case JSON_ARRAY:
        return "slice";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "float64";
    case JSON_TRUE:
    case JSON_FALSE:
        return "bool";
    case JSON_NULL:
        return "nil";
    }
    return "nil";
}

static int config_wrong_type(const struct config_place *place, const char *path,
                             const char *expected, const json_t *value, struct errmsg *err)
{
    return errmsg_set(err, -1,
                      "failed to parse %s: '%s%s' expected type '%s', got unconvertible type '%s'",
                      place->source, place->prefix, path, expected, config_type_name(value));
}

static int config_check_list(const struct config_place *place, const char *path,
                             const json_t *value, struct errmsg *err)
{
    if (!json_is_array(value)) {
        return errmsg_set(err, -1,
                          "failed to parse %s: '%s%s': source data must be an array or slice, "
                          "got %s",
                          place->source, place->prefix, path, config_type_name(value));
    }
    return 0;
}

static int config_check_strings(const struct config_place *place, const char *path, json_t *value,
                                struct errmsg *err)
{
    char element[CONFIG_PATH_BYTES_MAX + 32];
    int rc = config_check_list(place, path, value, err);

    for (size_t i = 0; rc == 0 && i < json_array_size(value); i++) {
        json_t *item = config_unwrap(json_array_get(value, i));

        if (json_is_string(item)) {
            (void)json_array_set(value, i, item); /* There is room: it takes the place of one. */
        } else {
            (void)snprintf(element, sizeof(element), "%s[%zu]", path, i);
            rc = config_wrong_type(place, element, "string", item, err);
        }
    }
    return rc;
}

static int config_check_map(const struct config_place *place, const char *path, json_t *value,
                            struct errmsg *err)
{
    char element[CONFIG_PATH_BYTES_MAX + 160];
    const char *name;
    json_t *item;

    if (!json_is_object(value)) {
        return errmsg_set(err, -1, "failed to parse %s: '%s%s' expected a map, got '%s'",
                          place->source, place->prefix, path, config_type_name(value));
    }
    json_object_foreach(value, name, item)
    {
        json_t *text = config_unwrap(item);

        if (!json_is_string(text)) {
            (void)snprintf(element, sizeof(element), "%s[%.128s]", path, name);
            return config_wrong_type(place, element, "string", text, err);
        }
        if (text != item && json_object_set(value, name, text) != 0) {
            return errmsg_set(err, -1, "out of memory");
        }
    }
    return 0;
}

static int config_check_duration(const struct config_place *place, const char *path,
                                 const json_t *value, struct errmsg *err)
{
    struct errmsg reason;
    int64_t ns;

    if (!json_is_string(value)) {
        return config_wrong_type(place, path, "string", value, err);
    }
    const struct slice text = {json_string_value(value), json_string_length(value)};
    if (text.size > 0 && !duration_parse(text, &ns, &reason)) {
        return errmsg_set(err, -1, "%s%s: invalid duration: \"%.100s\": %.200s", place->prefix,
                          path, text.data, reason.text);
    }
    return 0;
}

/* Checks a value against its key's kind. */
static int config_check_kind(const struct config_place *place, const struct config_key *key,
                             json_t *value, struct errmsg *err)
{
    bool right = true;

    switch (key->kind) {
    case CONFIG_BOOL:
        right = json_is_boolean(value);
        break;
    case CONFIG_INT:
    case CONFIG_NUMBER:
        right = json_is_number(value);
        break;
    case CONFIG_STRING:
        right = json_is_string(value);
        break;
    case CONFIG_DURATION:
        return config_check_duration(place, key->path, value, err);
    case CONFIG_STRINGS:
        return config_check_strings(place, key->path, value, err);
    case CONFIG_MAP:
        return config_check_map(place, key->path, value, err);
    case CONFIG_SERVICE:
    case CONFIG_SERVICES:
    case CONFIG_CHECK:
    case CONFIG_CHECKS:
    case CONFIG_ANY:
        break; /* looked at where they are taken apart */
    }
    return right ? 0 : config_wrong_type(place, key->path, config_kind_name(key->kind), value, err);
}

/* Whether a value switches its thing off: false, zero, negative (ports), empty, "0s". */
static bool config_is_off(const struct config_key *key, const json_t *value)
{
    int64_t ns = 1;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return json_object_size(value) == 0;
    case JSON_ARRAY:
        return json_array_size(value) == 0;
    case JSON_STRING:
        return json_string_length(value) == 0 ||
               (key->kind == CONFIG_DURATION &&
                duration_parse(slice_from_text(json_string_value(value)), &ns, NULL) && ns == 0);
    case JSON_INTEGER:
        return json_integer_value(value) <= 0;
    case JSON_REAL:
        return json_real_value(value) <= 0;
    case JSON_TRUE:
        return false;
    case JSON_FALSE:
    case JSON_NULL:
        return true;
    }
    return false;
}

/* Applies the key's use: an error for what is refused, a log line for what has no effect. */
static int config_check_use(const struct config_settings *settings,
                            const struct config_place *place, const struct config_key *key,
                            const json_t *value, struct errmsg *err)
{
    const bool off = config_is_off(key, value);

    switch (key->use) {
    case CONFIG_HONOURED:
        return 0;
    case CONFIG_IGNORED:
        if (off) {
            return 0;
        }
        break;
    case CONFIG_ALWAYS:
        if (!off) {
            return 0;
        }
        break;
    case CONFIG_REFUSED:
        if (off) {
            return 0;
        }
        return errmsg_set(err, -1, "%s: config key %s%s is refused: %s", place->source,
                          place->prefix, key->path, key->note);
    }
    if (!settings->quiet) {
        log_write(LOG_WARN, "agent", "%s: config key %s%s has no effect: %s", place->source,
                  place->prefix, key->path, key->note);
    }
    return 0;
}

static int config_unknown(const struct config_place *place, const char *path, struct errmsg *err)
{
    const struct config_key *nearest = config_key_nearest(place->keys, place->key_count, path);

    return errmsg_set(err, -1,
                      "failed to parse %s: invalid config key %s%.150s (did you mean %s%s?)",
                      place->source, place->prefix, path, place->prefix, nearest->path);
}

/* --- service and check definitions --- */

/* Consul's definitions may be spelled as in its HTTP API, too: EnableTagOverride is
 * enable_tag_override. Writes the table's spelling of `path` to `out`: lower case with the
 * underscores that the table has. */
static const struct config_key *config_definition_key(const struct config_place *place,
                                                      const char *path)
{
    for (size_t i = 0; i < place->key_count; i++) {
        const char *a = place->keys[i].path;
        const char *b = path;

        for (;;) {
            a += *a == '_';
            b += *b == '_';
            if (*a == '\0' || slice_lower(*a) != slice_lower(*b)) {
                break;
            }
            a++;
            b++;
        }
        if (*a == '\0' && *b == '\0') {
            return &place->keys[i];
        }
    }
    return NULL;
}

static int config_read_definition(struct config_settings *settings,
                                  const struct config_place *place, json_t *definition,
                                  json_t **out, struct errmsg *err);

/* A check, or a list of them, inside a service's definition. */
static int config_read_inner_checks(struct config_settings *settings,
                                    const struct config_place *place, const struct config_key *key,
                                    json_t *value, json_t **out, struct errmsg *err)
{
    char prefix[CONFIG_PATH_BYTES_MAX];
    struct config_place inner = {
        .source = place->source,
        .prefix = prefix,
        .keys = config_check_keys,
        .key_count = config_check_key_count,
    };

    (void)snprintf(prefix, sizeof(prefix), "%s%s.", place->prefix, key->path);
    if (json_is_object(value)) {
        return config_read_definition(settings, &inner, value, out, err);
    }
    int rc = config_check_list(place, key->path, value, err);
    if (rc != 0) {
        return rc;
    }
    json_t *list = json_array();
    for (size_t i = 0; rc == 0 && i < json_array_size(value); i++) {
        json_t *item = NULL;

        rc = config_read_definition(settings, &inner, json_array_get(value, i), &item, err);
        if (rc == 0 && json_array_append_new(list, item) != 0) {
            rc = errmsg_set(err, -1, "out of memory");
        }
    }
    if (rc != 0) {
        json_decref(list);
        return rc;
    }
    *out = list;
    return 0;
}

/* "weights": the only section inside definitions. */
static int config_read_weights(const struct config_place *place, const char *name, json_t *value,
                               json_t **out, struct errmsg *err)
{
    char path[CONFIG_PATH_BYTES_MAX];
    const char *member;
    json_t *number;

    value = config_unwrap(value);
    if (!json_is_object(value)) {
        return errmsg_set(err, -1, "failed to parse %s: '%s%s' expected a map, got '%s'",
                          place->source, place->prefix, name, config_type_name(value));
    }
    json_t *weights = json_object();
    json_object_foreach(value, member, number)
    {
        (void)snprintf(path, sizeof(path), "weights.%.128s", member);
        const struct config_key *key = config_definition_key(place, path);
        number = config_unwrap(number);
        int rc = 0;

        if (key == NULL) {
            rc = config_unknown(place, path, err);
        } else if (!json_is_number(number)) {
            rc = config_wrong_type(place, path, "int", number, err);
        } else if (json_object_set(weights, strchr(key->path, '.') + 1, number) != 0) {
            rc = errmsg_set(err, -1, "out of memory");
        }
        if (rc != 0) {
            json_decref(weights);
            return rc;
        }
    }
    *out = weights;
    return 0;
}

/* One member of a definition, with the table's spelling, into `copy`. */
static int config_read_member(struct config_settings *settings, const struct config_place *place,
                              const char *name, json_t *value, json_t *copy, struct errmsg *err)
{
    const struct config_key *key = config_definition_key(place, name);
    json_t *taken = NULL;
    int rc;

    value = key != NULL ? config_unwrap_for(key->kind, value) : value;
    if (json_is_null(value)) {
        return 0; /* as if it were not there, in Go */
    }
    if (key == NULL && strcasecmp(name, "weights") == 0 && place->keys == config_service_keys) {
        rc = config_read_weights(place, "weights", value, &taken, err);
        name = "weights";
    } else if (key == NULL) {
        return config_unknown(place, name, err);
    } else if (key->kind == CONFIG_CHECK || key->kind == CONFIG_CHECKS) {
        rc = config_read_inner_checks(settings, place, key, value, &taken, err);
        name = json_is_array(value) ? "checks" : "check";
    } else {
        rc = config_check_kind(place, key, value, err);
        if (rc == 0) {
            rc = config_check_use(settings, place, key, value, err);
        }
        name = key->path;
        taken = json_incref(value);
    }
    if (rc == 0 && json_object_set(copy, name, taken) != 0) {
        rc = errmsg_set(err, -1, "out of memory");
    }
    json_decref(taken);
    return rc;
}

/* Copies a definition with the table's spelling of its keys. Returns it owned in *out. */
static int config_read_definition(struct config_settings *settings,
                                  const struct config_place *place, json_t *definition,
                                  json_t **out, struct errmsg *err)
{
    const char *name;
    json_t *value;

    definition = config_unwrap(definition);
    if (!json_is_object(definition)) {
        return errmsg_set(err, -1, "failed to parse %s: '%.*s' expected a map, got '%s'",
                          place->source, (int)strlen(place->prefix) - 1, place->prefix,
                          config_type_name(definition));
    }
    json_t *copy = json_object();
    if (copy == NULL) {
        return errmsg_set(err, -1, "out of memory");
    }
    json_object_foreach(definition, name, value)
    {
        if (config_read_member(settings, place, name, value, copy, err) != 0) {
            json_decref(copy);
            return -1;
        }
    }
    *out = copy;
    return 0;
}

/* service, services, check, checks at the top: appended to their list. */
static int config_read_definitions(struct config_settings *settings,
                                   const struct config_place *place, const struct config_key *key,
                                   json_t *value, struct errmsg *err)
{
    const bool service = key->kind == CONFIG_SERVICE || key->kind == CONFIG_SERVICES;
    const bool single = key->kind == CONFIG_SERVICE || key->kind == CONFIG_CHECK;
    json_t *list = service ? settings->services : settings->checks;
    char prefix[32];
    struct config_place inner = {
        .source = place->source,
        .prefix = prefix,
        .keys = service ? config_service_keys : config_check_keys,
        .key_count = service ? config_service_key_count : config_check_key_count,
    };
    int rc = 0;

    (void)snprintf(prefix, sizeof(prefix), "%s.", key->path);
    const bool one = single && !json_is_array(value);
    if (!one) {
        rc = config_check_list(place, key->path, value, err);
    }
    const size_t count = one ? 1 : json_array_size(value);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        json_t *definition = NULL;

        if (json_array_size(list) >= CONFIG_DEFINITIONS_MAX) {
            return errmsg_set(err, -1, "%s: more than %d definitions of %s", place->source,
                              CONFIG_DEFINITIONS_MAX, key->path);
        }
        rc = config_read_definition(settings, &inner, one ? value : json_array_get(value, i),
                                    &definition, err);
        if (rc == 0 && json_array_append_new(list, definition) != 0) {
            rc = errmsg_set(err, -1, "out of memory");
        }
    }
    return rc;
}

/* --- merging --- */

static int config_merge(json_t *values, const struct config_key *key, json_t *value)
{
    json_t *present = json_object_get(values, key->path);

    if (present != NULL && key->kind == CONFIG_STRINGS) {
        return json_array_extend(present, value);
    }
    if (present != NULL && key->kind == CONFIG_MAP) {
        return json_object_update(present, value);
    }
    /* A copy, since later sources may be merged into it. */
    return json_object_set_new(values, key->path, json_deep_copy(value));
}

int config_settings_set(struct config_settings *settings, const char *name,
                        const struct config_key *key, json_t *value, struct errmsg *err)
{
    const struct config_place place = {
        .source = name,
        .prefix = "",
        .keys = config_keys,
        .key_count = config_key_count,
    };
    int rc;

    json_t *given = config_unwrap_for(key->kind, value);
    if (given == NULL) {
        return errmsg_set(err, -1, "out of memory");
    }
    if (json_is_null(given)) {
        rc = 0;
    } else if (key->kind == CONFIG_SERVICE || key->kind == CONFIG_SERVICES ||
               key->kind == CONFIG_CHECK || key->kind == CONFIG_CHECKS) {
        rc = config_read_definitions(settings, &place, key, given, err);
    } else {
        rc = config_check_kind(&place, key, given, err);
        if (rc == 0) {
            rc = config_check_use(settings, &place, key, given, err);
        }
        if (rc == 0 && config_merge(settings->values, key, given) != 0) {
            rc = errmsg_set(err, -1, "out of memory");
        }
    }
    json_decref(value);
    return rc;
}

/* One section of a file, the keys below it included. Recursion ends at CONFIG_SECTIONS_MAX. */
static int config_read_section(struct config_settings *settings, const struct config_place *place,
                               const char *parent, json_t *section, unsigned depth,
                               struct errmsg *err)
{
    char path[CONFIG_PATH_BYTES_MAX];
    const char *name;
    json_t *value;

    json_object_foreach(section, name, value)
    {
        json_t *below = config_unwrap(value);
        int rc;

        (void)snprintf(path, sizeof(path), "%s%s%.128s", parent, parent[0] != '\0' ? "." : "",
                       name);
        const struct config_key *key = config_key_find(config_keys, config_key_count, path);

        if (key != NULL) {
            rc = config_settings_set(settings, place->source, key, json_incref(value), err);
        } else if (!config_key_is_section(config_keys, config_key_count, path) ||
                   depth >= CONFIG_SECTIONS_MAX) {
            rc = config_unknown(place, path, err);
        } else if (json_is_null(below)) {
            rc = 0;
        } else if (!json_is_object(below)) {
            rc = errmsg_set(err, -1, "failed to parse %s: '%s' expected a map, got '%s'",
                            place->source, path, config_type_name(below));
        } else {
            rc = config_read_section(settings, place, path, below, depth + 1, err);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int config_settings_read(struct config_settings *settings, const char *name, struct slice text,
                         struct errmsg *err)
{
    const struct config_place place = {
        .source = name,
        .prefix = "",
        .keys = config_keys,
        .key_count = config_key_count,
    };
    json_error_t reason;

    if (text.size == 0) {
        return 0; /* As Consul does. */
    }
    json_t *root = json_loadb(text.data, text.size, 0, &reason);
    if (root == NULL) {
        return errmsg_set(err, -1, "failed to parse %s: line %d, column %d: %s", name, reason.line,
                          reason.column, reason.text);
    }
    int rc;
    if (json_is_object(root)) {
        rc = config_read_section(settings, &place, "", root, 0, err);
    } else {
        rc = errmsg_set(err, -1, "failed to parse %s: expected an object, got '%s'", name,
                        config_type_name(root));
    }
    json_decref(root);
    return rc;
}
