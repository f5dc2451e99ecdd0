/* What the DNS server is told. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/buffer.h"
#include "server/config_builder.h"

/* A domain in lower case without its final dot. */
static char *build_domain(struct config_builder *builder, const char *path, const char *otherwise)
{
    char *domain = builder_copy(builder, builder_text(builder, path, otherwise));
    size_t size = domain != NULL ? strlen(domain) : 0;

    while (size > 0 && domain[size - 1] == '.') {
        domain[--size] = '\0';
    }
    for (size_t i = 0; i < size; i++) {
        domain[i] = slice_lower(domain[i]);
    }
    if (size > CONFIG_DOMAIN_BYTES_MAX) {
        builder_fail(builder, "%s cannot be longer than %d bytes", path, CONFIG_DOMAIN_BYTES_MAX);
    }
    return domain;
}

/* Below such a domain every name would be ambiguous. */
static void build_check_alt_domain(struct config_builder *builder)
{
    static const char *const words[] = {"service", "connect", "node", "query", "addr"};
    const char *text = builder_text(builder, "alt_domain", "");
    const char *datacenter = builder->config->datacenter;
    const char *dot = strchr(text, '.');
    const size_t size = dot == NULL || datacenter == NULL ? 0 : (size_t)(dot - text);
    const struct slice first = slice_from(text, size);
    bool taken = size > 0 && slice_equal(first, slice_from_text(datacenter));

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]) && size > 0; i++) {
        taken = taken || slice_equal(first, slice_from_text(words[i]));
    }
    if (taken) {
        builder_fail(builder, "alt_domain cannot start with {service,connect,node,query,addr,%s}",
                     datacenter);
    }
}

static void build_service_ttls(struct config_builder *builder, struct dns_config *dns)
{
    json_t *ttls = builder_get(builder, "dns_config.service_ttl");
    const char *name;
    json_t *value;

    if (json_object_size(ttls) > DNS_SERVICE_TTLS_MAX) {
        builder_fail(builder, "dns_config.service_ttl: more than %d entries", DNS_SERVICE_TTLS_MAX);
        return;
    }
    json_object_foreach(ttls, name, value)
    {
        const struct slice text = slice_from_text(json_string_value(value));
        struct errmsg reason;
        int64_t ns = 0;

        if (!duration_parse(text, &ns, &reason)) {
            builder_fail(builder,
                         "dns_config.service_ttl[%.100s]: invalid duration: \"%.50s\": %.100s",
                         name, text.data, reason.text);
            return;
        }
        if (ns < 0 || ns / CONFIG_SECOND_NS > UINT32_MAX) {
            builder_fail(builder, "dns_config.service_ttl[%.100s] cannot be %.50s", name,
                         text.data);
            return;
        }
        dns->service_ttls[dns->service_ttl_count++] = (struct dns_service_ttl){
            .name = name, /* the settings' text, kept in config->sources */
            .ttl_s = (uint32_t)(ns / CONFIG_SECOND_NS),
        };
    }
}

bool config_recursor_split(const char *text, char host[CONFIG_HOST_BYTES_MAX + 1], uint16_t *port)
{
    static const char characters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        "-_.";
    const size_t size = strspn(text, characters);
    unsigned number = 53;
    int used = 0;

    if (size == 0 || size > CONFIG_HOST_BYTES_MAX) {
        return false;
    }
    if (text[size] != '\0' &&
        (sscanf(text + size, ":%5u%n", &number, &used) != 1 || text[size + (size_t)used] != '\0' ||
         number < 1 || number > CONFIG_PORT_MAX)) {
        return false;
    }
    memcpy(host, text, size);
    host[size] = '\0';
    *port = (uint16_t)number;
    const char *label = strrchr(host, '.');

    label = label == NULL ? host : label + 1;
    return label[strspn(label, "0123456789")] != '\0'; /* Else it is an address, good or bad. */
}

/* "ip", "ip:port", "[ip6]:port", "name", "name:port". */
static bool build_recursor_is_right(const char *text)
{
    char address[64], host[CONFIG_HOST_BYTES_MAX + 1];
    uint16_t host_port;
    unsigned port;
    int used = 0;

    if (config_is_ip(text) || config_recursor_split(text, host, &host_port)) {
        return true;
    }
    if (sscanf(text, "[%45[^]]]:%5u%n", address, &port, &used) == 2 ||
        sscanf(text, "%45[0-9.]:%5u%n", address, &port, &used) == 2) {
        return text[used] == '\0' && port >= 1 && port <= CONFIG_PORT_MAX && config_is_ip(address);
    }
    return false;
}

/* The text of all recursors, blank-separated: an entry may name several, and hold templates. */
static char *build_recursor_words(struct config_builder *builder)
{
    const json_t *list = builder_get(builder, "recursors");
    struct buffer words = {0};
    char *copy = NULL;

    for (size_t i = 0; i < json_array_size(list); i++) {
        struct errmsg reason = {""};
        char *text =
            config_address_expand("recursors", json_string_value(json_array_get(list, i)), &reason);

        if (text == NULL) {
            builder_fail(builder, "%s", reason.text);
        } else {
            buffer_append_text(&words, text);
            buffer_append_char(&words, ' ');
            free(text);
        }
    }
    buffer_append_char(&words, '\0');
    if (words.failed) {
        builder_fail(builder, "out of memory");
    } else {
        copy = builder_copy(builder, words.data);
    }
    buffer_deinit(&words);
    return copy;
}

static void build_recursors(struct config_builder *builder, struct dns_config *dns)
{
    char *rest = NULL;

    builder->config->dns_recursors = build_recursor_words(builder);
    if (builder->config->dns_recursors == NULL) {
        return;
    }
    for (char *word = strtok_r(builder->config->dns_recursors, " \t\n", &rest); word != NULL;
         word = strtok_r(NULL, " \t\n", &rest)) {
        if (!build_recursor_is_right(word)) {
            builder_fail(builder, "recursors: invalid recursor address: %.100s", word);
        } else if (dns->recursor_count == DNS_RECURSORS_MAX) {
            builder_fail(builder, "recursors: more than %d", DNS_RECURSORS_MAX);
        } else {
            dns->recursors[dns->recursor_count++] = word;
        }
    }
}

/* Consul's default, ten years: as good as no bound. */
#define CONFIG_STALE_UNBOUNDED_NS (INT64_C(87600) * 3600 * CONFIG_SECOND_NS)

static void build_recursor_strategy(struct config_builder *builder, struct dns_config *dns)
{
    const char *text = builder_text(builder, "dns_config.recursor_strategy", "sequential");

    dns->recursor_random = strcmp(text, "random") == 0;
    if (!dns->recursor_random && text[0] != '\0' && strcmp(text, "sequential") != 0) {
        builder_fail(
            builder,
            "dns_config.recursor_strategy: Invalid recursor strategy: %.100s. Valid values: "
            "sequential, random",
            text);
    }
}

void config_build_dns(struct config_builder *builder)
{
    struct config *config = builder->config;
    struct dns_config *dns = &config->dns;

    config->dns_domain = build_domain(builder, "domain", "consul");
    config->dns_alt_domain = build_domain(builder, "alt_domain", "");
    build_check_alt_domain(builder);
    dns->domain = config->dns_domain;
    dns->alt_domain = config->dns_alt_domain;
    dns->datacenter = config->datacenter;
    dns->node_ttl_s = builder_seconds(builder, "dns_config.node_ttl", 0);
    build_service_ttls(builder, dns);
    dns->udp_answer_limit =
        (uint32_t)builder_int(builder, "dns_config.udp_answer_limit", 3, 0, INT32_MAX);
    dns->a_record_limit =
        (uint32_t)builder_int(builder, "dns_config.a_record_limit", 0, 0, INT32_MAX);
    dns->enable_truncate = builder_bool(builder, "dns_config.enable_truncate", false);
    dns->only_passing = builder_bool(builder, "dns_config.only_passing", false);
    dns->disable_compression = builder_bool(builder, "dns_config.disable_compression", false);
    dns->node_meta_txt = builder_bool(builder, "dns_config.enable_additional_node_meta_txt", true);
    dns->soa.refresh_s =
        (uint32_t)builder_int(builder, "dns_config.soa.refresh", 3600, 0, UINT32_MAX);
    dns->soa.retry_s = (uint32_t)builder_int(builder, "dns_config.soa.retry", 600, 0, UINT32_MAX);
    dns->soa.expire_s =
        (uint32_t)builder_int(builder, "dns_config.soa.expire", 86400, 0, UINT32_MAX);
    dns->soa.min_ttl_s = (uint32_t)builder_int(builder, "dns_config.soa.min_ttl", 0, 0, UINT32_MAX);
    dns->advertise_ra = builder_bool(builder, "dns_config.advertise_ra", false);
    build_recursors(builder, dns);
    dns->recursor_timeout_ms =
        builder_ms(builder, "dns_config.recursor_timeout", 2 * CONFIG_SECOND_NS);
    if (dns->recursor_timeout_ms == 0) { /* No time means the default, as with Consul. */
        dns->recursor_timeout_ms = (uint32_t)(2 * CONFIG_SECOND_NS / 1000000);
    }
    build_recursor_strategy(builder, dns);
    config->dns_threads =
        (unsigned)builder_int(builder, "dns_config.threads", 1, 1, DNS_THREADS_MAX);
    dns->confirm_always = !builder_bool(builder, "dns_config.allow_stale", true);
    const int64_t max_stale_ns =
        builder_duration(builder, "dns_config.max_stale", CONFIG_STALE_UNBOUNDED_NS);
    dns->stale_bounded = max_stale_ns < CONFIG_STALE_UNBOUNDED_NS;
    dns->max_stale_ms = (uint64_t)(max_stale_ns / 1000000);
}
