#ifndef SERVER_CONFIG_BUILDER_H
#define SERVER_CONFIG_BUILDER_H

/* How the parts of the configuration are built: settings are asked for by their path, with what
 * holds when they are not set, and the first thing that is wrong is kept. After that the builder
 * goes on, and every result is within its bounds, so that the parts check nothing. */

#include "server/config_internal.h"

enum { CONFIG_PORT_MAX = 65535 };

#define CONFIG_SECOND_NS INT64_C(1000000000)

struct config_builder {
    const struct config_settings *settings;
    struct config *config;
    struct errmsg *err;
    bool dev;
    bool failed; /* err has the first reason */
};

void builder_fail(struct config_builder *builder, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The path of each of these must be in config_keys, as honoured, with the kind that is asked for.
 */
json_t *builder_get(const struct config_builder *builder, const char *path); /* borrowed; or NULL */
bool builder_bool(const struct config_builder *builder, const char *path, bool otherwise);
/* Valid as long as the settings; "" counts as set. */
const char *builder_text(const struct config_builder *builder, const char *path,
                         const char *otherwise);
/* Between `min` and `max`; JSON numbers may have fractions, which are cut off, as in Consul. */
int64_t builder_int(struct config_builder *builder, const char *path, int64_t otherwise,
                    int64_t min, int64_t max);
/* A duration that is not negative, in nanoseconds, milliseconds (the longest are cut to 49 days),
 * and whole seconds. */
int64_t builder_duration(struct config_builder *builder, const char *path, int64_t otherwise_ns);
uint32_t builder_ms(struct config_builder *builder, const char *path, int64_t otherwise_ns);
uint32_t builder_seconds(struct config_builder *builder, const char *path, int64_t otherwise_ns);
/* Appends the strings of a list, with their address templates replaced, to an owned array of owned
 * strings. */
void builder_strings(struct config_builder *builder, const char *path, char ***strings,
                     size_t *count, size_t max);
/* Returns owned; NULL without memory, which fails the builder. */
char *builder_copy(struct config_builder *builder, const char *text);

/* The parts. Each fills its fields of builder->config. */
void config_build_node(struct config_builder *builder);    /* datacenter, node name, id, metadata */
void config_build_network(struct config_builder *builder); /* addresses, ports, whom to join */
void config_build_dns(struct config_builder *builder);     /* after node and network */

#endif
