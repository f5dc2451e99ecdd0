/* Who this server is. */

#include <ctype.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "kv/uuid.h"
#include "server/config_builder.h"
#include "server/metadata.h"

/* Lower case of [a-z0-9_-]. */
static void build_datacenter(struct config_builder *builder)
{
    const char *text = builder_text(builder, "datacenter", "dc1");
    char *datacenter = builder_copy(builder, text);

    builder->config->datacenter = datacenter;
    if (text[0] == '\0') {
        builder_fail(builder, "datacenter cannot be empty");
    }
    for (char *c = datacenter; c != NULL && *c != '\0'; c++) {
        *c = slice_lower(*c);
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '_' || *c == '-')) {
            builder_fail(builder, "datacenter cannot be \"%.100s\". Please use only [a-z0-9-_]",
                         text);
        }
    }
    if (strlen(text) > CONFIG_NAME_BYTES_MAX) {
        builder_fail(builder, "datacenter cannot be longer than %d bytes", CONFIG_NAME_BYTES_MAX);
    }
}

static void build_node_name(struct config_builder *builder)
{
    char host[HOST_NAME_MAX + 1] = "";
    const char *text = builder_text(builder, "node_name", "");
    bool discoverable = true;

    if (text[0] == '\0') {
        (void)gethostname(host, sizeof(host) - 1); /* an empty name is refused below */
        text = host;
    }
    if (text[0] == '\0') {
        builder_fail(builder, "node_name cannot be empty");
    }
    if (strlen(text) > CONFIG_NAME_BYTES_MAX) {
        builder_fail(builder, "node_name cannot be longer than %d bytes", CONFIG_NAME_BYTES_MAX);
    }
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            builder_fail(builder, "node_name cannot contain control characters");
        }
        discoverable = discoverable && (isalnum((unsigned char)*c) || *c == '-' || *c == '.');
    }
    if (!discoverable && !builder->settings->quiet) {
        log_write(LOG_WARN, "agent",
                  "Node name \"%s\" will not be discoverable via DNS due to invalid characters. "
                  "Valid characters include all alpha-numerics and dashes.",
                  text);
    }
    builder->config->node_name = builder_copy(builder, text);
}

static void build_node_id(struct config_builder *builder)
{
    const char *text = builder_text(builder, "node_id", "");
    struct uuid id;

    if (text[0] == '\0') {
        return;
    }
    if (!uuid_parse(slice_from_text(text), &id)) {
        builder_fail(builder,
                     "specified NodeID is invalid: \"%.100s\" is not of the form "
                     "01234567-89ab-cdef-0123-456789abcdef",
                     text);
        return;
    }
    char lower[UUID_TEXT_BYTES + 1];
    uuid_format(&id, lower);
    builder->config->node_id = builder_copy(builder, lower);
}

static void build_node_meta(struct config_builder *builder)
{
    json_t *meta = builder_get(builder, "node_meta");
    struct errmsg reason;

    if (!metadata_check(meta, &reason)) {
        builder_fail(builder, "node_meta invalid: %s", reason.text);
    }
    builder->config->node_meta = json_incref(meta);
}

void config_build_node(struct config_builder *builder)
{
    build_datacenter(builder);
    build_node_name(builder);
    build_node_id(builder);
    build_node_meta(builder);
}
