#include "server/config_builder.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void builder_fail(struct config_builder *builder, const char *format, ...)
{
    va_list arguments;

    if (builder->failed) {
        return; /* the first reason counts */
    }
    builder->failed = true;
    if (builder->err != NULL) {
        va_start(arguments, format);
        (void)vsnprintf(builder->err->text, sizeof(builder->err->text), format, arguments);
        va_end(arguments);
    }
}

json_t *builder_get(const struct config_builder *builder, const char *path)
{
    const struct config_key *key = config_key_find(config_keys, config_key_count, path);

    assert(key != NULL);
    assert(key->use == CONFIG_HONOURED);
    return json_object_get(builder->settings->values, key->path);
}

bool builder_bool(const struct config_builder *builder, const char *path, bool otherwise)
{
    const json_t *value = builder_get(builder, path);

    return value != NULL ? json_is_true(value) : otherwise;
}

const char *builder_text(const struct config_builder *builder, const char *path,
                         const char *otherwise)
{
    const json_t *value = builder_get(builder, path);

    return value != NULL ? json_string_value(value) : otherwise;
}

char *builder_copy(struct config_builder *builder, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL) {
        builder_fail(builder, "out of memory");
    }
    return copy;
}

int64_t builder_int(struct config_builder *builder, const char *path, int64_t otherwise,
                    int64_t min, int64_t max)
{
    const json_t *value = builder_get(builder, path);
    int64_t number;

    if (value == NULL) {
        return otherwise;
    }
    if (json_is_integer(value)) {
        number = json_integer_value(value);
    } else {
        const double real = json_real_value(value);

        /* Beyond 2^62 no limit of ours lies, and the conversion would be undefined. */
        number = real > 4e18 ? INT64_MAX : (real < -4e18 ? INT64_MIN : (int64_t)real);
    }
    if (number < min && min == 0) {
        builder_fail(builder, "%s cannot be %" PRId64 ". Must be greater than or equal to zero",
                     path, number);
    } else if (number < min || number > max) {
        builder_fail(builder, "%s cannot be %" PRId64 ". Must be between %" PRId64 " and %" PRId64,
                     path, number, min, max);
    }
    return number < min ? min : (number > max ? max : number);
}

int64_t builder_duration(struct config_builder *builder, const char *path, int64_t otherwise_ns)
{
    const char *text = builder_text(builder, path, "");
    struct errmsg reason;
    int64_t ns = otherwise_ns;

    if (text[0] == '\0') {
        return otherwise_ns;
    }
    if (!duration_parse(slice_from_text(text), &ns, &reason)) {
        builder_fail(builder, "%s: invalid duration: \"%.100s\": %.200s", path, text, reason.text);
        return otherwise_ns;
    }
    if (ns < 0) {
        builder_fail(builder, "%s cannot be %.100s. Must be greater than or equal to zero", path,
                     text);
        return otherwise_ns;
    }
    return ns;
}

uint32_t builder_ms(struct config_builder *builder, const char *path, int64_t otherwise_ns)
{
    const int64_t ms = builder_duration(builder, path, otherwise_ns) / 1000000;

    return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

uint32_t builder_seconds(struct config_builder *builder, const char *path, int64_t otherwise_ns)
{
    return builder_ms(builder, path, otherwise_ns) / 1000;
}

void builder_strings(struct config_builder *builder, const char *path, char ***strings,
                     size_t *count, size_t max)
{
    const json_t *list = builder_get(builder, path);
    const size_t added = json_array_size(list);

    if (added == 0 || builder->failed) {
        return;
    }
    if (*count + added > max) {
        builder_fail(builder, "%s: more than %zu entries", path, max);
        return;
    }
    char **grown = realloc(*strings, (*count + added) * sizeof(*grown));
    if (grown == NULL) {
        builder_fail(builder, "out of memory");
        return;
    }
    *strings = grown;
    for (size_t i = 0; i < added; i++) {
        struct errmsg reason = {""};
        char *text =
            config_address_expand(path, json_string_value(json_array_get(list, i)), &reason);

        if (text == NULL) {
            builder_fail(builder, "%s", reason.text);
            return;
        }
        grown[(*count)++] = text;
    }
}
