/* The configuration made ready: copied, lower-cased, its names in wire form. */

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dns/dns_internal.h"

/* Strings are copied one behind the other into one block; with `at` NULL their room is counted. */
struct string_copier {
    char *at;
    size_t size;
};

static const char *copy_string(struct string_copier *copier, const char *text)
{
    const char *copy = copier->at;

    if (text == NULL) {
        return NULL;
    }
    const size_t size = strlen(text) + 1;

    copier->size += size;
    if (copier->at != NULL) {
        memcpy(copier->at, text, size);
        copier->at += size;
    }
    return copy;
}

static void copy_strings(struct string_copier *copier, struct dns_config *config)
{
    config->domain = copy_string(copier, config->domain);
    config->alt_domain = copy_string(copier, config->alt_domain);
    config->datacenter = copy_string(copier, config->datacenter);
    for (size_t i = 0; i < config->service_ttl_count; i++) {
        config->service_ttls[i].name = copy_string(copier, config->service_ttls[i].name);
    }
    for (size_t i = 0; i < config->recursor_count; i++) {
        config->recursors[i] = copy_string(copier, config->recursors[i]);
    }
}

static bool text_is_root(const char *text)
{
    return text[0] == '\0' || strcmp(text, ".") == 0;
}

/* Lower-case labels of a domain; false when it is no name. */
static bool suffix_from_text(const char *text, struct dns_suffix *out)
{
    const size_t size =
        dns_labels_from_text(slice_from_text(text), out->wire, sizeof(out->wire) - 1);

    if (size == 0 && !text_is_root(text)) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        out->wire[i] = (uint8_t)slice_lower((char)out->wire[i]);
    }
    out->wire[size] = 0;
    out->size = size + 1;
    return true;
}

static struct dns_name zone_name(const char *labels, struct dns_name *parent)
{
    return (struct dns_name){
        .labels = (const uint8_t *)labels, .size = (uint16_t)strlen(labels), .parent = parent};
}

/* A name of full length has no room for labels below it: such are never written. */
static void zone_flatten(struct dns_name *name, uint8_t flat[DNS_NAME_BYTES_MAX])
{
    struct dns_writer writer = {.data = flat, .limit = DNS_NAME_BYTES_MAX};

    for (const struct dns_name *part = name; part != NULL; part = part->parent) {
        dns_writer_bytes(&writer, part->labels, part->size);
    }
    dns_writer_u8(&writer, 0);
    if (!writer.failed) {
        name->flat = flat;
        name->flat_size = (uint16_t)writer.size;
    }
}

static bool zone_names(struct dns_zone *zone)
{
    const struct slice datacenter = slice_from_text(zone->config.datacenter);
    const char *alt_domain = zone->config.alt_domain;

    if (!suffix_from_text(zone->config.domain, &zone->domain) || datacenter.size == 0 ||
        datacenter.size > DNS_LABEL_BYTES_MAX || memchr(datacenter.data, '.', datacenter.size)) {
        return false;
    }
    if (alt_domain != NULL && !text_is_root(alt_domain) &&
        !suffix_from_text(alt_domain, &zone->alt_domain)) {
        return false;
    }
    for (size_t i = 0; i < datacenter.size; i++) {
        zone->datacenter[i] = slice_lower(datacenter.data[i]);
    }
    zone->datacenter[datacenter.size] = '\0';
    zone->datacenter_label[0] = (uint8_t)datacenter.size;
    memcpy(zone->datacenter_label + 1, zone->datacenter, datacenter.size);

    zone->domain_name =
        (struct dns_name){.labels = zone->domain.wire, .size = (uint16_t)(zone->domain.size - 1)};
    zone->datacenter_name = (struct dns_name){.labels = zone->datacenter_label,
                                              .size = (uint16_t)(datacenter.size + 1),
                                              .parent = &zone->domain_name};
    zone->node_name = zone_name("\4node", &zone->datacenter_name);
    zone->service_name = zone_name("\7service", &zone->datacenter_name);
    zone->addr_name = zone_name("\4addr", &zone->datacenter_name);
    zone_flatten(&zone->node_name, zone->node_flat);
    zone_flatten(&zone->addr_name, zone->addr_flat);
    zone->server_name = zone_name("\2ns", &zone->domain_name);
    zone->mailbox_name = zone_name("\12hostmaster", &zone->domain_name);
    return dns_name_size(&zone->mailbox_name) <= DNS_NAME_BYTES_MAX; /* Each SOA has it. */
}

enum { RECURSOR_PORT_DEFAULT = 53, RECURSOR_TEXT_BYTES_MAX = 64 };

/* "ip", "ip:port", "[ip6]:port". */
static bool recursor_parse(const char *text, struct dns_recursor *out)
{
    char host[RECURSOR_TEXT_BYTES_MAX];
    unsigned port = RECURSOR_PORT_DEFAULT;
    int used = 0;
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

    *out = (struct dns_recursor){.own = false};
    const size_t text_bytes = strlen(text) + 1;

    if (text_bytes > sizeof(host)) {
        return false;
    }
    memcpy(host, text, text_bytes);
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) != 1 &&
        ((sscanf(text, "[%45[^]]]:%5u%n", host, &port, &used) != 2 &&
          sscanf(text, "%45[0-9.]:%5u%n", host, &port, &used) != 2) ||
         text[used] != '\0' || port == 0 || port > UINT16_MAX)) {
        memcpy(host, text, text_bytes);
        port = RECURSOR_PORT_DEFAULT;
    }
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        v4.sin_port = htons((uint16_t)port);
        memcpy(&out->address, &v4, sizeof(v4));
        out->address_size = sizeof(v4);
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        v6.sin6_port = htons((uint16_t)port);
        memcpy(&out->address, &v6, sizeof(v6));
        out->address_size = sizeof(v6);
        return true;
    }
    return false;
}

struct dns_zone *dns_zone_new(const struct dns_config *config)
{
    struct dns_zone *zone = calloc(1, sizeof(*zone));
    struct string_copier copier = {0};

    if (zone == NULL) {
        return NULL;
    }
    zone->config = *config;
    copy_strings(&copier, &zone->config);
    zone->strings = malloc(copier.size + 1);
    if (zone->strings == NULL) {
        goto fail;
    }
    copier.at = zone->strings;
    zone->config = *config;
    copy_strings(&copier, &zone->config);
    assert(zone->config.domain != NULL);
    assert(zone->config.datacenter != NULL);
    if (!zone_names(zone)) {
        goto fail;
    }
    for (size_t i = 0; i < zone->config.recursor_count; i++) {
        if (recursor_parse(zone->config.recursors[i], &zone->recursors[zone->recursor_count])) {
            zone->recursor_count++;
        }
    }
    return zone;

fail:
    dns_zone_free(zone);
    return NULL;
}

void dns_zone_free(struct dns_zone *zone)
{
    if (zone != NULL) {
        free(zone->strings);
        free(zone);
    }
}

uint32_t dns_zone_service_ttl_s(const struct dns_zone *zone, struct slice service)
{
    uint32_t ttl_s = 0;
    size_t longest = 0; /* bytes of the pattern that matched, its star included */

    for (size_t i = 0; i < zone->config.service_ttl_count; i++) {
        const struct dns_service_ttl *entry = &zone->config.service_ttls[i];
        const struct slice pattern = slice_from_text(entry->name);

        if (slice_equal(pattern, service)) {
            return entry->ttl_s;
        }
        if (pattern.size == 0 || pattern.data[pattern.size - 1] != '*' || pattern.size <= longest ||
            pattern.size - 1 > service.size) {
            continue;
        }
        if (slice_equal(slice_from(pattern.data, pattern.size - 1),
                        slice_from(service.data, pattern.size - 1))) {
            longest = pattern.size;
            ttl_s = entry->ttl_s;
        }
    }
    return ttl_s;
}

size_t dns_zone_udp_answers_max(const struct dns_zone *zone)
{
    const size_t limit = zone->config.udp_answer_limit;

    return limit == 0 ? 1 : (limit > DNS_UDP_ANSWERS_MAX ? DNS_UDP_ANSWERS_MAX : limit);
}
