/* Where this server listens, how it is reached, and whom it joins. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "server/config_builder.h"

/* A blank-separated list of addresses. */
static void build_check_addresses(struct config_builder *builder, const char *key, const char *text)
{
    char word[64];
    int used = 0;
    unsigned count = 0;

    while (sscanf(text, " %63s%n", word, &used) == 1) {
        if (strncmp(word, "unix:", 5) == 0) {
            builder_fail(builder, "%s cannot be a unix socket", key);
        } else if (!config_is_ip(word)) {
            builder_fail(builder, "%s: invalid ip address: %s", key, word);
        } else if (++count > DNS_ADDRESSES_MAX) {
            builder_fail(builder, "%s: more than %d addresses", key, DNS_ADDRESSES_MAX);
        }
        text += used;
    }
    if (count == 0) {
        builder_fail(builder, "%s cannot be empty", key);
    }
}

/* An address setting with its templates replaced; NULL when not set. */
static char *build_address(struct config_builder *builder, const char *path, const char *otherwise)
{
    const char *text = builder_text(builder, path, otherwise);
    struct errmsg reason = {""};

    if (text == NULL) {
        return NULL;
    }
    char *address = config_address_expand(path, text, &reason);
    if (address == NULL) {
        builder_fail(builder, "%s", reason.text);
    }
    return address;
}

static void build_bind(struct config_builder *builder)
{
    struct config *config = builder->config;

    config->bind_addr = build_address(builder, "bind_addr", builder->dev ? "127.0.0.1" : "0.0.0.0");
    if (config->bind_addr == NULL) {
        return;
    }
    if (config->bind_addr[0] == '\0') {
        builder_fail(builder, "bind_addr cannot be empty");
    } else if (strchr(config->bind_addr, ' ') != NULL) {
        builder_fail(builder, "bind_addr cannot contain multiple addresses. Use "
                              "'addresses.{dns,http,https}' instead.");
    } else if (!config_is_ip(config->bind_addr)) {
        builder_fail(builder, "bind_addr: invalid ip address: %.100s", config->bind_addr);
    }
}

static void build_advertise(struct config_builder *builder)
{
    static const char *const paths[] = {"advertise_addr", "advertise_addr_ipv4",
                                        "advertise_addr_ipv6"};
    struct config *config = builder->config;
    struct errmsg reason = {""};

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (config->advertise_addr == NULL && builder_text(builder, paths[i], "")[0] != '\0') {
            config->advertise_addr = build_address(builder, paths[i], NULL);
        }
    }
    if (builder->failed) {
        return;
    }
    if (config->advertise_addr == NULL && !config_is_any_ip(config->bind_addr)) {
        config->advertise_addr = builder_copy(builder, config->bind_addr);
    } else if (config->advertise_addr == NULL && strchr(config->bind_addr, ':') != NULL) {
        builder_fail(builder, "bind_addr is \"::\"; name this server's address with 'advertise'");
    } else if (config->advertise_addr == NULL) {
        config->advertise_addr = config_address_private(&reason);
        if (config->advertise_addr == NULL) {
            builder_fail(builder, "%s", reason.text);
        }
    } else if (config_is_any_ip(config->advertise_addr)) {
        builder_fail(builder, "Advertise address cannot be 0.0.0.0, :: or [::]");
    } else if (!config_is_ip(config->advertise_addr)) {
        builder_fail(builder, "advertise_addr: invalid ip address: %.100s", config->advertise_addr);
    }
}

static int build_port(struct config_builder *builder, const char *path, int otherwise)
{
    const int64_t port = builder_int(builder, path, otherwise, INT64_MIN, INT64_MAX);

    if (port > CONFIG_PORT_MAX) {
        builder_fail(builder, "%s: invalid port: %" PRId64, path, port);
        return otherwise;
    }
    return port <= 0 ? -1 : (int)port;
}

/* Whether two lists of addresses have one in common, or one of them is every address. */
static bool build_addresses_meet(const char *a, const char *b)
{
    char words[DNS_ADDRESSES_MAX * 64];
    char *rest = words;

    (void)snprintf(words, sizeof(words), "%s", a);
    for (char *word = strtok_r(words, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        const char *found = strstr(b, word);
        const size_t size = strlen(word);

        if (config_is_any_ip(word) || strncmp(b, "0.0.0.0", 7) == 0 ||
            (found != NULL && (found == b || found[-1] == ' ') &&
             (found[size] == '\0' || found[size] == ' '))) {
            return true;
        }
    }
    return false;
}

static void build_check_ports(struct config_builder *builder)
{
    const struct config *config = builder->config;
    const struct {
        const char *name, *address;
        int port;
    } uses[] = {
        {"DNS", config->dns_address != NULL ? config->dns_address : config->client_addr,
         config->dns_port},
        {"HTTP", config->http_address != NULL ? config->http_address : config->client_addr,
         config->http_port},
        {"RPC Advertise", config->bind_addr, config->server_port},
        {"Serf Advertise LAN", config->bind_addr, config->serf_lan_port},
    };

    if (config->server_port < 0 || config->serf_lan_port < 0) {
        builder_fail(builder,
                     "ports.%s cannot be disabled: servers need it to find and hear each "
                     "other",
                     config->server_port < 0 ? "server" : "serf_lan");
    }
    for (size_t a = 0; a < sizeof(uses) / sizeof(uses[0]) && !builder->failed; a++) {
        for (size_t b = 0; b < a; b++) {
            if (uses[a].port > 0 && uses[a].port == uses[b].port &&
                build_addresses_meet(uses[a].address, uses[b].address)) {
                builder_fail(builder, "%s address %.100s:%d already configured for %s",
                             uses[a].name, uses[a].address, uses[a].port, uses[b].name);
            }
        }
    }
}

static void build_join(struct config_builder *builder)
{
    struct config *config = builder->config;

    builder_strings(builder, "start_join", &config->retry_join, &config->retry_join_count,
                    CONFIG_ADDRESSES_MAX);
    builder_strings(builder, "retry_join", &config->retry_join, &config->retry_join_count,
                    CONFIG_ADDRESSES_MAX);
    for (size_t i = 0; i < config->retry_join_count; i++) {
        if (strstr(config->retry_join[i], "provider=") != NULL) {
            builder_fail(builder,
                         "retry_join: \"%.100s\": discovery by a cloud's provider is not "
                         "supported; name the servers' addresses",
                         config->retry_join[i]);
        }
    }
    config->retry_interval_ms = builder_ms(builder, "retry_interval", 30 * CONFIG_SECOND_NS);
    if (config->retry_interval_ms == 0) {
        builder_fail(builder, "retry_interval cannot be 0s. Must be positive");
    }
}

void config_build_network(struct config_builder *builder)
{
    struct config *config = builder->config;

    build_bind(builder);
    build_advertise(builder);
    config->client_addr = build_address(builder, "client_addr", "127.0.0.1");
    if (config->client_addr != NULL) {
        build_check_addresses(builder, "client_addr", config->client_addr);
    }
    config->http_address = build_address(builder, "addresses.http", NULL);
    if (config->http_address != NULL) {
        build_check_addresses(builder, "addresses.http", config->http_address);
    }
    config->dns_address = build_address(builder, "addresses.dns", NULL);
    if (config->dns_address != NULL) {
        build_check_addresses(builder, "addresses.dns", config->dns_address);
    }
    config->http_port = build_port(builder, "ports.http", 8500);
    config->dns_port = build_port(builder, "ports.dns", 8600);
    config->server_port = build_port(builder, "ports.server", 8300);
    config->serf_lan_port = build_port(builder, "ports.serf_lan", 8301);
    if (!builder->failed) {
        build_check_ports(builder);
    }
    build_join(builder);
}
