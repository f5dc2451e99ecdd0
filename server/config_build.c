/* Building: merged settings to a struct config, with defaults and checks. Messages are Consul's
 * where it has one. Strings of the result live in config->sources or are its own. */

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv/kv.h"
#include "server/config_internal.h"
#include "server/metrics.h"

enum {
    CONFIG_RAFT_MULTIPLIER_MAX = 10,
    CONFIG_REQUEST_BURST_S = 10, /* of limits.request_limits: seconds of a rate, at once */
    CONFIG_KV_VALUE_BYTES_LIMIT = 32 * 1024 * 1024, /* of limits.kv_max_value_size */
    CONFIG_CHECK_OUTPUT_BYTES_LIMIT = 64 * 1024,    /* of check_output_max_size */
    CONFIG_BOOTSTRAP_EXPECT_MAX = 16,               /* as many as Raft takes */
    CONFIG_PORT_MAX = 65535,
};

struct builder {
    const struct config_settings *settings;
    struct config *config;
    struct errmsg *err;
    bool dev;
    bool failed; /* err has the first reason */
};

static void build_fail(struct builder *builder, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void build_fail(struct builder *builder, const char *format, ...)
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

/* A setting; the key must be in the table as honoured. */
static json_t *build_get(const struct builder *builder, const char *path)
{
    const struct config_key *key = config_key_find(config_keys, config_key_count, path);

    assert(key != NULL);
    assert(key->use == CONFIG_HONOURED);
    return json_object_get(builder->settings->values, key->path);
}

static bool build_bool(const struct builder *builder, const char *path, bool otherwise)
{
    const json_t *value = build_get(builder, path);

    return value != NULL ? json_is_true(value) : otherwise;
}

/* Valid as long as the settings; "" counts as set. */
static const char *build_text(const struct builder *builder, const char *path,
                              const char *otherwise)
{
    const json_t *value = build_get(builder, path);

    return value != NULL ? json_string_value(value) : otherwise;
}

static char *build_copy(struct builder *builder, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL) {
        build_fail(builder, "out of memory");
    }
    return copy;
}

/* JSON numbers may have fractions; Consul cuts them off. */
static int64_t build_int(struct builder *builder, const char *path, int64_t otherwise, int64_t min,
                         int64_t max)
{
    const json_t *value = build_get(builder, path);
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
        build_fail(builder, "%s cannot be %" PRId64 ". Must be greater than or equal to zero", path,
                   number);
    } else if (number < min || number > max) {
        build_fail(builder, "%s cannot be %" PRId64 ". Must be between %" PRId64 " and %" PRId64,
                   path, number, min, max);
    }
    return number < min ? min : (number > max ? max : number);
}

/* Nanoseconds, not negative. */
static int64_t build_duration(struct builder *builder, const char *path, int64_t otherwise_ns)
{
    const char *text = build_text(builder, path, "");
    struct errmsg reason;
    int64_t ns = otherwise_ns;

    if (text[0] == '\0') {
        return otherwise_ns;
    }
    if (!duration_parse(slice_from_text(text), &ns, &reason)) {
        build_fail(builder, "%s: invalid duration: \"%.100s\": %.200s", path, text, reason.text);
        return otherwise_ns;
    }
    if (ns < 0) {
        build_fail(builder, "%s cannot be %.100s. Must be greater than or equal to zero", path,
                   text);
        return otherwise_ns;
    }
    return ns;
}

static uint32_t build_ms(struct builder *builder, const char *path, int64_t otherwise_ns)
{
    const int64_t ms = build_duration(builder, path, otherwise_ns) / 1000000;

    return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

static uint32_t build_seconds(struct builder *builder, const char *path, int64_t otherwise_ns)
{
    return build_ms(builder, path, otherwise_ns) / 1000;
}

#define SECOND_NS INT64_C(1000000000)

/* --- names --- */

/* Lower case of [a-z0-9_-]. */
static void build_datacenter(struct builder *builder)
{
    const char *text = build_text(builder, "datacenter", "dc1");
    char *datacenter = build_copy(builder, text);

    builder->config->datacenter = datacenter;
    if (text[0] == '\0') {
        build_fail(builder, "datacenter cannot be empty");
    }
    for (char *c = datacenter; c != NULL && *c != '\0'; c++) {
        *c = slice_lower(*c);
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '_' || *c == '-')) {
            build_fail(builder, "datacenter cannot be \"%.100s\". Please use only [a-z0-9-_]",
                       text);
        }
    }
    if (strlen(text) > CONFIG_NAME_BYTES_MAX) {
        build_fail(builder, "datacenter cannot be longer than %d bytes", CONFIG_NAME_BYTES_MAX);
    }
}

static void build_node_name(struct builder *builder)
{
    char host[HOST_NAME_MAX + 1] = "";
    const char *text = build_text(builder, "node_name", "");
    bool discoverable = true;

    if (text[0] == '\0') {
        (void)gethostname(host, sizeof(host) - 1); /* an empty name is refused below */
        text = host;
    }
    if (text[0] == '\0') {
        build_fail(builder, "node_name cannot be empty");
    }
    if (strlen(text) > CONFIG_NAME_BYTES_MAX) {
        build_fail(builder, "node_name cannot be longer than %d bytes", CONFIG_NAME_BYTES_MAX);
    }
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            build_fail(builder, "node_name cannot contain control characters");
        }
        discoverable = discoverable && (isalnum((unsigned char)*c) || *c == '-' || *c == '.');
    }
    if (!discoverable && !builder->settings->quiet) {
        log_write(LOG_WARN, "agent",
                  "Node name \"%s\" will not be discoverable via DNS due to invalid characters. "
                  "Valid characters include all alpha-numerics and dashes.",
                  text);
    }
    builder->config->node_name = build_copy(builder, text);
}

static void build_node_id(struct builder *builder)
{
    const char *text = build_text(builder, "node_id", "");
    struct uuid id;

    if (text[0] == '\0') {
        return;
    }
    if (!uuid_parse(slice_from_text(text), &id)) {
        build_fail(builder,
                   "specified NodeID is invalid: \"%.100s\" is not of the form "
                   "01234567-89ab-cdef-0123-456789abcdef",
                   text);
        return;
    }
    char lower[UUID_TEXT_BYTES + 1];
    uuid_format(&id, lower);
    builder->config->node_id = build_copy(builder, lower);
}

/* Consul's rules for a pair; NULL when it is right. */
static const char *build_node_meta_fault(const char *key, const char *value)
{
    if (key[0] == '\0') {
        return "Key cannot be blank";
    }
    for (const char *c = key; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_') {
            return "Key contains invalid characters";
        }
    }
    if (strlen(key) > CONFIG_NODE_META_KEY_BYTES_MAX) {
        return "Key is too long (limit: 128 characters)";
    }
    if (strncmp(key, "consul-", 7) == 0) {
        return "Key prefix 'consul-' is reserved for internal use";
    }
    if (strlen(value) > CONFIG_NODE_META_VALUE_BYTES_MAX) {
        return "Value is too long (limit: 512 characters)";
    }
    return NULL;
}

static void build_node_meta(struct builder *builder)
{
    json_t *meta = build_get(builder, "node_meta");
    const char *key;
    json_t *value;

    if (meta == NULL) {
        return;
    }
    if (json_object_size(meta) > CONFIG_NODE_META_PAIRS_MAX) {
        build_fail(builder,
                   "node_meta invalid: Node metadata cannot contain more than %d "
                   "key/value pairs",
                   CONFIG_NODE_META_PAIRS_MAX);
    }
    json_object_foreach(meta, key, value)
    {
        const char *fault = build_node_meta_fault(key, json_string_value(value));

        if (fault != NULL) {
            build_fail(builder,
                       "node_meta invalid: Couldn't load metadata pair ('%.100s', '%.100s'): %s",
                       key, json_string_value(value), fault);
        }
    }
    builder->config->node_meta = json_incref(meta);
}

/* --- role --- */

static void build_role(struct builder *builder)
{
    struct config *config = builder->config;

    config->server = build_bool(builder, "server", builder->dev);
    config->bootstrap = build_bool(builder, "bootstrap", builder->dev);
    const json_t *expect_value = build_get(builder, "bootstrap_expect");
    const int64_t expect = expect_value == NULL            ? 0
                           : json_is_integer(expect_value) ? json_integer_value(expect_value)
                                                           : (int64_t)json_real_value(expect_value);

    if (builder->dev) {
        config->bootstrap = true;
        return; /* a server alone, whatever bootstrap_expect says */
    }
    if (expect < 0) {
        build_fail(builder,
                   "bootstrap_expect cannot be %" PRId64 ". Must be greater than or equal to zero",
                   expect);
    } else if (expect > 0 && !config->server) {
        build_fail(builder, "'bootstrap_expect > 0' requires 'server = true'");
    } else if (config->bootstrap && !config->server) {
        build_fail(builder, "'bootstrap = true' requires 'server = true'");
    } else if (expect > 0 && config->bootstrap) {
        build_fail(builder, "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive");
    } else if (expect > CONFIG_BOOTSTRAP_EXPECT_MAX) {
        build_fail(builder, "bootstrap_expect cannot be %" PRId64 ". Must be at most %d", expect,
                   CONFIG_BOOTSTRAP_EXPECT_MAX);
    } else if (!config->server) {
        build_fail(builder, "'server = true' is required: Proconsul runs servers; Consul's client "
                            "agents are programs of their own");
    }
    config->bootstrap_expect =
        expect > 1 && expect <= CONFIG_BOOTSTRAP_EXPECT_MAX ? (uint32_t)expect : 0;
    config->bootstrap = config->bootstrap || expect == 1;
}

/* What Consul warns of, too. */
/* Everybody who reaches the HTTP port may then run programs here. */
static void build_script_warnings(const struct builder *builder)
{
    if (builder->config->script_checks && !builder->settings->quiet) {
        log_write(LOG_WARN, "agent",
                  "using enable-script-checks without ACLs is DANGEROUS: whoever reaches the HTTP "
                  "port can run programs here; use enable-local-script-checks instead");
    }
}

static void build_role_warnings(const struct builder *builder)
{
    const struct config *config = builder->config;

    if (builder->settings->quiet || builder->dev) {
        return;
    }
    if (config->bootstrap) {
        log_write(LOG_WARN, "agent", "bootstrap = true: do not enable unless necessary");
    }
    if (config->bootstrap_expect == 2) {
        log_write(LOG_WARN, "agent",
                  "bootstrap_expect = 2: A cluster with 2 servers will provide no failure "
                  "tolerance.");
    } else if (config->bootstrap_expect != 0 && config->bootstrap_expect % 2 == 0) {
        log_write(LOG_WARN, "agent",
                  "bootstrap_expect is even number: A cluster with an even number of servers does "
                  "not achieve optimum fault tolerance.");
    }
}

/* --- addresses and ports --- */

/* A blank-separated list of addresses. */
static void build_check_addresses(struct builder *builder, const char *key, const char *text)
{
    char word[64];
    int used = 0;
    unsigned count = 0;

    while (sscanf(text, " %63s%n", word, &used) == 1) {
        if (strncmp(word, "unix:", 5) == 0) {
            build_fail(builder, "%s cannot be a unix socket", key);
        } else if (!config_is_ip(word)) {
            build_fail(builder, "%s: invalid ip address: %s", key, word);
        } else if (++count > DNS_ADDRESSES_MAX) {
            build_fail(builder, "%s: more than %d addresses", key, DNS_ADDRESSES_MAX);
        }
        text += used;
    }
    if (count == 0) {
        build_fail(builder, "%s cannot be empty", key);
    }
}

/* An address setting with its templates replaced; NULL when not set. */
static char *build_address(struct builder *builder, const char *path, const char *otherwise)
{
    const char *text = build_text(builder, path, otherwise);
    struct errmsg reason = {""};

    if (text == NULL) {
        return NULL;
    }
    char *address = config_address_expand(path, text, &reason);
    if (address == NULL) {
        build_fail(builder, "%s", reason.text);
    }
    return address;
}

static void build_bind(struct builder *builder)
{
    struct config *config = builder->config;

    config->bind_addr = build_address(builder, "bind_addr", builder->dev ? "127.0.0.1" : "0.0.0.0");
    if (config->bind_addr == NULL) {
        return;
    }
    if (config->bind_addr[0] == '\0') {
        build_fail(builder, "bind_addr cannot be empty");
    } else if (strchr(config->bind_addr, ' ') != NULL) {
        build_fail(builder, "bind_addr cannot contain multiple addresses. Use "
                            "'addresses.{dns,http,https}' instead.");
    } else if (!config_is_ip(config->bind_addr)) {
        build_fail(builder, "bind_addr: invalid ip address: %.100s", config->bind_addr);
    }
}

static void build_advertise(struct builder *builder)
{
    static const char *const paths[] = {"advertise_addr", "advertise_addr_ipv4",
                                        "advertise_addr_ipv6"};
    struct config *config = builder->config;
    struct errmsg reason = {""};

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (config->advertise_addr == NULL && build_text(builder, paths[i], "")[0] != '\0') {
            config->advertise_addr = build_address(builder, paths[i], NULL);
        }
    }
    if (builder->failed) {
        return;
    }
    if (config->advertise_addr == NULL && !config_is_any_ip(config->bind_addr)) {
        config->advertise_addr = build_copy(builder, config->bind_addr);
    } else if (config->advertise_addr == NULL && strchr(config->bind_addr, ':') != NULL) {
        build_fail(builder, "bind_addr is \"::\"; name this server's address with 'advertise'");
    } else if (config->advertise_addr == NULL) {
        config->advertise_addr = config_address_private(&reason);
        if (config->advertise_addr == NULL) {
            build_fail(builder, "%s", reason.text);
        }
    } else if (config_is_any_ip(config->advertise_addr)) {
        build_fail(builder, "Advertise address cannot be 0.0.0.0, :: or [::]");
    } else if (!config_is_ip(config->advertise_addr)) {
        build_fail(builder, "advertise_addr: invalid ip address: %.100s", config->advertise_addr);
    }
}

static int build_port(struct builder *builder, const char *path, int otherwise)
{
    const int64_t port = build_int(builder, path, otherwise, INT64_MIN, INT64_MAX);

    if (port > CONFIG_PORT_MAX) {
        build_fail(builder, "%s: invalid port: %" PRId64, path, port);
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

static void build_check_ports(struct builder *builder)
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
        build_fail(builder,
                   "ports.%s cannot be disabled: servers need it to find and hear each "
                   "other",
                   config->server_port < 0 ? "server" : "serf_lan");
    }
    for (size_t a = 0; a < sizeof(uses) / sizeof(uses[0]) && !builder->failed; a++) {
        for (size_t b = 0; b < a; b++) {
            if (uses[a].port > 0 && uses[a].port == uses[b].port &&
                build_addresses_meet(uses[a].address, uses[b].address)) {
                build_fail(builder, "%s address %.100s:%d already configured for %s", uses[a].name,
                           uses[a].address, uses[a].port, uses[b].name);
            }
        }
    }
}

static void build_network(struct builder *builder)
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
}

/* --- lists --- */

/* Appends the strings of a list setting to an owned array. */
static void build_strings(struct builder *builder, const char *path, char ***strings, size_t *count,
                          size_t max)
{
    const json_t *list = build_get(builder, path);
    const size_t added = json_array_size(list);

    if (added == 0 || builder->failed) {
        return;
    }
    if (*count + added > max) {
        build_fail(builder, "%s: more than %zu entries", path, max);
        return;
    }
    char **grown = realloc(*strings, (*count + added) * sizeof(*grown));
    if (grown == NULL) {
        build_fail(builder, "out of memory");
        return;
    }
    *strings = grown;
    for (size_t i = 0; i < added; i++) {
        struct errmsg reason = {""};
        char *text =
            config_address_expand(path, json_string_value(json_array_get(list, i)), &reason);

        if (text == NULL) {
            build_fail(builder, "%s", reason.text);
            return;
        }
        grown[(*count)++] = text;
    }
}

static void build_join(struct builder *builder)
{
    struct config *config = builder->config;

    build_strings(builder, "start_join", &config->retry_join, &config->retry_join_count,
                  CONFIG_ADDRESSES_MAX);
    build_strings(builder, "retry_join", &config->retry_join, &config->retry_join_count,
                  CONFIG_ADDRESSES_MAX);
    for (size_t i = 0; i < config->retry_join_count; i++) {
        if (strstr(config->retry_join[i], "provider=") != NULL) {
            build_fail(builder,
                       "retry_join: \"%.100s\": discovery by a cloud's provider is not "
                       "supported; name the servers' addresses",
                       config->retry_join[i]);
        }
    }
    config->retry_interval_ms = build_ms(builder, "retry_interval", 30 * SECOND_NS);
    if (config->retry_interval_ms == 0) {
        build_fail(builder, "retry_interval cannot be 0s. Must be positive");
    }
}

/* --- DNS --- */

/* A domain in lower case without its final dot. */
static char *build_domain(struct builder *builder, const char *path, const char *otherwise)
{
    char *domain = build_copy(builder, build_text(builder, path, otherwise));
    size_t size = domain != NULL ? strlen(domain) : 0;

    while (size > 0 && domain[size - 1] == '.') {
        domain[--size] = '\0';
    }
    for (size_t i = 0; i < size; i++) {
        domain[i] = slice_lower(domain[i]);
    }
    if (size > CONFIG_DOMAIN_BYTES_MAX) {
        build_fail(builder, "%s cannot be longer than %d bytes", path, CONFIG_DOMAIN_BYTES_MAX);
    }
    return domain;
}

static void build_service_ttls(struct builder *builder, struct dns_config *dns)
{
    json_t *ttls = build_get(builder, "dns_config.service_ttl");
    const char *name;
    json_t *value;

    if (json_object_size(ttls) > DNS_SERVICE_TTLS_MAX) {
        build_fail(builder, "dns_config.service_ttl: more than %d entries", DNS_SERVICE_TTLS_MAX);
        return;
    }
    json_object_foreach(ttls, name, value)
    {
        const struct slice text = slice_from_text(json_string_value(value));
        struct errmsg reason;
        int64_t ns = 0;

        if (!duration_parse(text, &ns, &reason)) {
            build_fail(builder,
                       "dns_config.service_ttl[%.100s]: invalid duration: \"%.50s\": %.100s", name,
                       text.data, reason.text);
            return;
        }
        if (ns < 0 || ns / SECOND_NS > UINT32_MAX) {
            build_fail(builder, "dns_config.service_ttl[%.100s] cannot be %.50s", name, text.data);
            return;
        }
        dns->service_ttls[dns->service_ttl_count++] = (struct dns_service_ttl){
            .name = name, /* the settings' text, kept in config->sources */
            .ttl_s = (uint32_t)(ns / SECOND_NS),
        };
    }
}

/* "ip", "ip:port", "[ip6]:port". */
static bool build_recursor_is_right(const char *text)
{
    char address[64];
    unsigned port;
    int used = 0;

    if (config_is_ip(text)) {
        return true;
    }
    if (sscanf(text, "[%45[^]]]:%5u%n", address, &port, &used) == 2 ||
        sscanf(text, "%45[0-9.]:%5u%n", address, &port, &used) == 2) {
        return text[used] == '\0' && port >= 1 && port <= CONFIG_PORT_MAX && config_is_ip(address);
    }
    return false;
}

static void build_recursors(struct builder *builder, struct dns_config *dns)
{
    const json_t *list = build_get(builder, "recursors");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));

        if (!build_recursor_is_right(text)) {
            build_fail(builder, "recursors: invalid recursor address: %.100s", text);
        } else if (dns->recursor_count == DNS_RECURSORS_MAX) {
            build_fail(builder, "recursors: more than %d", DNS_RECURSORS_MAX);
        } else {
            dns->recursors[dns->recursor_count++] = text;
        }
    }
}

/* Consul's default, ten years: as good as no bound. */
#define CONFIG_STALE_UNBOUNDED_NS (INT64_C(87600) * 3600 * SECOND_NS)

static void build_recursor_strategy(struct builder *builder, struct dns_config *dns)
{
    const char *text = build_text(builder, "dns_config.recursor_strategy", "sequential");

    dns->recursor_random = strcmp(text, "random") == 0;
    if (!dns->recursor_random && text[0] != '\0' && strcmp(text, "sequential") != 0) {
        build_fail(builder,
                   "dns_config.recursor_strategy: Invalid recursor strategy: %.100s. Valid values: "
                   "sequential, random",
                   text);
    }
}

static void build_dns(struct builder *builder)
{
    struct config *config = builder->config;
    struct dns_config *dns = &config->dns;

    config->dns_domain = build_domain(builder, "domain", "consul");
    config->dns_alt_domain = build_domain(builder, "alt_domain", "");
    dns->domain = config->dns_domain;
    dns->alt_domain = config->dns_alt_domain;
    dns->datacenter = config->datacenter;
    dns->node_name = config->node_name;
    dns->node_ttl_s = build_seconds(builder, "dns_config.node_ttl", 0);
    build_service_ttls(builder, dns);
    dns->udp_answer_limit =
        (uint32_t)build_int(builder, "dns_config.udp_answer_limit", 3, 0, INT32_MAX);
    dns->a_record_limit =
        (uint32_t)build_int(builder, "dns_config.a_record_limit", 0, 0, INT32_MAX);
    dns->enable_truncate = build_bool(builder, "dns_config.enable_truncate", false);
    dns->only_passing = build_bool(builder, "dns_config.only_passing", false);
    dns->disable_compression = build_bool(builder, "dns_config.disable_compression", false);
    dns->node_meta_txt = build_bool(builder, "dns_config.enable_additional_node_meta_txt", true);
    dns->soa.refresh_s =
        (uint32_t)build_int(builder, "dns_config.soa.refresh", 3600, 0, UINT32_MAX);
    dns->soa.retry_s = (uint32_t)build_int(builder, "dns_config.soa.retry", 600, 0, UINT32_MAX);
    dns->soa.expire_s = (uint32_t)build_int(builder, "dns_config.soa.expire", 86400, 0, UINT32_MAX);
    dns->soa.min_ttl_s = (uint32_t)build_int(builder, "dns_config.soa.min_ttl", 0, 0, UINT32_MAX);
    dns->advertise_ra = build_bool(builder, "dns_config.advertise_ra", false);
    build_recursors(builder, dns);
    dns->recursor_timeout_ms = build_ms(builder, "dns_config.recursor_timeout", 2 * SECOND_NS);
    build_recursor_strategy(builder, dns);
    config->dns_threads = (unsigned)build_int(builder, "dns_config.threads", 1, 1, DNS_THREADS_MAX);
    dns->confirm_always = !build_bool(builder, "dns_config.allow_stale", true);
    const int64_t max_stale_ns =
        build_duration(builder, "dns_config.max_stale", CONFIG_STALE_UNBOUNDED_NS);
    dns->stale_bounded = max_stale_ns < CONFIG_STALE_UNBOUNDED_NS;
    dns->max_stale_ms = (uint64_t)(max_stale_ns / 1000000);
}

/* --- who may ask --- */

/* There are no rules for single tokens, so only what needs none is taken: nothing for anybody, all
 * for the one token. */
static void build_acl(struct builder *builder)
{
    struct config *config = builder->config;
    const char *master = build_text(builder, "acl.tokens.master", "");
    const char *token = build_text(builder, "acl.tokens.initial_management", master);
    const char *anonymous = build_text(builder, "acl.tokens.default", "");
    const char *of_dns = build_text(builder, "acl.tokens.dns", anonymous);

    config->acl_enabled = build_bool(builder, "acl.enabled", false);
    if (!config->acl_enabled) {
        return;
    }
    if (strcmp(build_text(builder, "acl.default_policy", "allow"), "deny") != 0) {
        build_fail(builder, "acl.enabled needs acl.default_policy \"deny\": there are no rules for "
                            "single tokens");
    }
    if (token[0] == '\0') {
        build_fail(builder, "acl.enabled needs acl.tokens.initial_management (or "
                            "acl.tokens.master): without it nobody could do anything");
    }
    config->acl_token = build_copy(builder, token);
    config->acl_anonymous = strcmp(anonymous, token) == 0;
    config->dns.deny = strcmp(of_dns, token) != 0;
}

/* --- the rest --- */

static void build_log_level(struct builder *builder)
{
    const char *text = build_text(builder, "log_level", builder->dev ? "debug" : "info");

    if (!log_level_parse(text, &builder->config->log_level)) {
        build_fail(builder,
                   "Invalid log level: %.100s. Valid log levels are: [TRACE DEBUG INFO WARN ERR "
                   "ERROR]",
                   text);
    }
}

static void build_autopilot(struct builder *builder)
{
    struct autopilot_config *autopilot = &builder->config->autopilot;

    autopilot_config_init(autopilot);
    autopilot->cleanup_dead_servers =
        build_bool(builder, "autopilot.cleanup_dead_servers", autopilot->cleanup_dead_servers);
    autopilot->last_contact_threshold_ns = build_duration(
        builder, "autopilot.last_contact_threshold", autopilot->last_contact_threshold_ns);
    autopilot->max_trailing_logs =
        (uint64_t)build_int(builder, "autopilot.max_trailing_logs",
                            (int64_t)autopilot->max_trailing_logs, 0, INT64_MAX);
    autopilot->min_quorum = (uint64_t)build_int(builder, "autopilot.min_quorum", 0, 0, INT64_MAX);
    autopilot->server_stabilization_time_ns = build_duration(
        builder, "autopilot.server_stabilization_time", autopilot->server_stabilization_time_ns);
}

/* A negative rate is none, as in Consul. */
static struct config_rate build_rate(const struct builder *builder, const char *path)
{
    const json_t *value = build_get(builder, path);
    const double per_second = value == NULL ? -1 : json_number_value(value);

    /* A billion a second is none, either. */
    return (struct config_rate){.limited = per_second >= 0 && per_second < 1e9,
                                .per_second = per_second};
}

/* Seconds of its rate that a bucket of request_limits holds: Consul's. */
static void build_request_burst(struct config_rate *rate, bool used)
{
    const double burst = (double)CONFIG_REQUEST_BURST_S * rate->per_second;

    rate->limited = rate->limited && used;
    rate->burst = !rate->limited || burst < 1 ? 1
                  : burst > UINT32_MAX        ? UINT32_MAX
                                              : (uint32_t)burst;
}

static void build_rates(struct builder *builder)
{
    struct config *config = builder->config;
    const char *mode = build_text(builder, "limits.request_limits.mode", "disabled");
    const bool disabled = strcmp(mode, "disabled") == 0 || mode[0] == '\0';

    config->rpc_rate = build_rate(builder, "limits.rpc_rate");
    const int64_t burst = build_int(builder, "limits.rpc_max_burst", 1000, INT32_MIN, UINT32_MAX);
    config->rpc_rate.burst = burst < 0 ? 0 : (uint32_t)burst;
    config->request_limits_enforced = strcmp(mode, "enforcing") == 0;
    if (!disabled && !config->request_limits_enforced && strcmp(mode, "permissive") != 0) {
        build_fail(builder,
                   "limits.request_limits.mode: \"%s\" is none of disabled, permissive, enforcing",
                   mode);
    }
    config->read_rate = build_rate(builder, "limits.request_limits.read_rate");
    config->write_rate = build_rate(builder, "limits.request_limits.write_rate");
    build_request_burst(&config->read_rate, !disabled);
    build_request_burst(&config->write_rate, !disabled);
}

static void build_limits(struct builder *builder)
{
    struct config *config = builder->config;

    config->raft_multiplier = (uint32_t)build_int(builder, "performance.raft_multiplier", 1, 1,
                                                  CONFIG_RAFT_MULTIPLIER_MAX);
    config->rpc_hold_timeout_ms = build_ms(builder, "performance.rpc_hold_timeout", 7 * SECOND_NS);
    /* The election time-out: so long others wait for a leader of which they hear nothing. */
    config->disk_stall_timeout_ms = build_ms(builder, "performance.disk_stall_timeout",
                                             (int64_t)config->raft_multiplier * SECOND_NS);
    config->raft_snapshot_threshold =
        (uint64_t)build_int(builder, "raft_snapshot_threshold", 16384, 1, INT64_MAX);
    config->raft_snapshot_interval_ms = build_ms(builder, "raft_snapshot_interval", 30 * SECOND_NS);
    config->raft_trailing_logs =
        (uint64_t)build_int(builder, "raft_trailing_logs", 10240, 1, INT64_MAX);
    config->session_ttl_min_ns =
        (uint64_t)build_duration(builder, "session_ttl_min", 10 * SECOND_NS);
    config->kv_value_bytes_max =
        (uint64_t)build_int(builder, "limits.kv_max_value_size", KV_VALUE_BYTES_MAX_DEFAULT, 1,
                            CONFIG_KV_VALUE_BYTES_LIMIT);
    config->txn_request_bytes_max =
        (uint64_t)build_int(builder, "limits.txn_max_req_len", KV_VALUE_BYTES_MAX_DEFAULT, 1,
                            CONFIG_KV_VALUE_BYTES_LIMIT);
    if (config->txn_request_bytes_max < config->kv_value_bytes_max) {
        config->txn_request_bytes_max = config->kv_value_bytes_max; /* As Consul has it. */
    }
    const int64_t connections =
        build_int(builder, "limits.http_max_conns_per_client", 200, INT32_MIN, UINT32_MAX);
    config->http_conns_per_client_max = connections <= 0 ? UINT32_MAX : (uint32_t)connections;
    config->state_bytes_max = (uint64_t)build_int(builder, "limits.state_max_size",
                                                  INT64_C(16) << 30, 1 << 20, INT64_C(1) << 46);
    build_rates(builder);
    config->check_update_interval_ms = build_ms(builder, "check_update_interval", 300 * SECOND_NS);
    config->check_output_bytes_max = (uint32_t)build_int(builder, "check_output_max_size", 4096, 1,
                                                         CONFIG_CHECK_OUTPUT_BYTES_LIMIT);
    config->discard_check_output = build_bool(builder, "discard_check_output", false);
    config->script_checks = build_bool(builder, "enable_script_checks", false);
    config->local_script_checks =
        config->script_checks || build_bool(builder, "enable_local_script_checks", false);
}

/* Rules that are none are named and left out, as in Consul. */
static void build_metrics_filters(struct builder *builder)
{
    struct config *config = builder->config;
    size_t kept = 0;

    build_strings(builder, "telemetry.prefix_filter", &config->metrics_filters,
                  &config->metrics_filter_count, METRICS_FILTERS_MAX);
    for (size_t i = 0; i < config->metrics_filter_count; i++) {
        char *rule = config->metrics_filters[i];

        if (rule[0] == '+' || rule[0] == '-') {
            config->metrics_filters[kept++] = rule;
            continue;
        }
        if (!builder->settings->quiet && rule[0] == '\0') {
            log_write(LOG_WARN, "agent", "Cannot have empty filter rule in prefix_filter");
        } else if (!builder->settings->quiet) {
            log_write(LOG_WARN, "agent", "Filter rule must begin with either '+' or '-': \"%s\"",
                      rule);
        }
        free(rule);
    }
    config->metrics_filter_count = kept;
}

static void build_telemetry(struct builder *builder)
{
    struct config *config = builder->config;
    const char *prefix = build_text(builder, "telemetry.metrics_prefix", "consul");

    config->metrics_prefix = build_copy(builder, prefix);
    if (strlen(prefix) > METRICS_NAME_BYTES_MAX) {
        build_fail(builder, "telemetry.metrics_prefix cannot be longer than %d bytes",
                   METRICS_NAME_BYTES_MAX);
    }
    config->metrics_filter_default = build_bool(builder, "telemetry.filter_default", true);
    config->metrics_disable_hostname =
        build_bool(builder, "telemetry.disable_hostname", builder->dev);
    config->prometheus_retention_ns =
        build_duration(builder, "telemetry.prometheus_retention_time", 0);
    build_metrics_filters(builder);
}

static void build_process(struct builder *builder)
{
    struct config *config = builder->config;
    const char *data_dir = build_text(builder, "data_dir", "");
    const char *pid_file = build_text(builder, "pid_file", "");

    if (builder->dev && data_dir[0] != '\0' && !builder->settings->quiet) {
        log_write(LOG_WARN, "agent", "data_dir has no effect with -dev: nothing is kept");
    } else if (data_dir[0] != '\0') {
        config->data_dir = build_copy(builder, data_dir);
    }
    if (pid_file[0] != '\0') {
        config->pid_file = build_copy(builder, pid_file);
    }
    config->leave_on_terminate = build_bool(builder, "leave_on_terminate", false);
    config->skip_leave_on_interrupt = build_bool(builder, "skip_leave_on_interrupt", true);
    build_strings(builder, "http_config.block_endpoints", &config->http_blocked_prefixes,
                  &config->http_blocked_count, CONFIG_ADDRESSES_MAX);
    config->http_response_headers = json_incref(build_get(builder, "http_config.response_headers"));
}

int config_build(struct config_settings *settings, bool dev, struct config *config,
                 struct errmsg *err)
{
    struct builder builder = {.settings = settings, .config = config, .err = err, .dev = dev};

    config->dev = dev;
    /* First, as in Consul: who forgets everything is told of this. */
    if (!dev && build_text(&builder, "data_dir", "")[0] == '\0') {
        build_fail(&builder, "data_dir cannot be empty");
    }
    build_role(&builder);
    build_datacenter(&builder);
    build_node_name(&builder);
    build_node_id(&builder);
    build_node_meta(&builder);
    build_process(&builder);
    build_log_level(&builder);
    build_limits(&builder);
    build_autopilot(&builder);
    build_telemetry(&builder);
    build_network(&builder);
    build_join(&builder);
    build_dns(&builder);
    build_acl(&builder);
    if (builder.failed) {
        return -1;
    }
    build_role_warnings(&builder);
    build_script_warnings(&builder);
    config->services = json_incref(settings->services);
    config->checks = json_incref(settings->checks);
    return 0;
}
