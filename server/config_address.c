/* Addresses: checks, the templates of go-sockaddr that are common in Consul's configurations, and
 * this machine's private address. */

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/buffer.h"
#include "server/config_internal.h"

enum { CONFIG_TEMPLATES_MAX = 16 /* in one value */ };

bool config_is_ip(const char *text)
{
    struct in6_addr address;

    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

bool config_is_any_ip(const char *text)
{
    struct in6_addr address;

    return strcmp(text, "0.0.0.0") == 0 || strcmp(text, "[::]") == 0 ||
           (inet_pton(AF_INET6, text, &address) == 1 && IN6_IS_ADDR_UNSPECIFIED(&address));
}

/* RFC 1918 and RFC 6598, as Consul counts them. */
static bool config_is_private(struct in_addr address)
{
    const uint32_t ip = ntohl(address.s_addr);

    return (ip >> 24) == 10 || (ip >> 20) == (172 << 4 | 1) || (ip >> 16) == (192 << 8 | 168) ||
           (ip >> 22) == (100 << 2 | 1);
}

enum config_address_wanted { CONFIG_ADDRESS_PRIVATE, CONFIG_ADDRESS_PUBLIC, CONFIG_ADDRESS_OF };

static bool config_address_matches(const struct ifaddrs *entry, enum config_address_wanted wanted,
                                   const char *interface)
{
    struct sockaddr_in address;

    if (entry->ifa_addr == NULL || entry->ifa_addr->sa_family != AF_INET ||
        (entry->ifa_flags & IFF_UP) == 0) {
        return false;
    }
    memcpy(&address, entry->ifa_addr, sizeof(address));
    const bool loopback = (entry->ifa_flags & IFF_LOOPBACK) != 0;
    switch (wanted) {
    case CONFIG_ADDRESS_PRIVATE:
        return !loopback && config_is_private(address.sin_addr);
    case CONFIG_ADDRESS_PUBLIC:
        return !loopback && !config_is_private(address.sin_addr);
    case CONFIG_ADDRESS_OF:
        return strcmp(entry->ifa_name, interface) == 0;
    }
    return false;
}

/* Counts the matching IPv4 addresses of this machine; the first goes to `out`. */
static size_t config_address_find(enum config_address_wanted wanted, const char *interface,
                                  char out[INET_ADDRSTRLEN])
{
    struct ifaddrs *entries;
    size_t count = 0;

    if (getifaddrs(&entries) != 0) {
        return 0;
    }
    for (const struct ifaddrs *entry = entries; entry != NULL; entry = entry->ifa_next) {
        struct sockaddr_in address;

        if (!config_address_matches(entry, wanted, interface)) {
            continue;
        }
        if (count++ == 0) {
            memcpy(&address, entry->ifa_addr, sizeof(address));
            (void)inet_ntop(AF_INET, &address.sin_addr, out, INET_ADDRSTRLEN);
        }
    }
    freeifaddrs(entries);
    return count;
}

char *config_address_private(struct errmsg *err)
{
    char text[INET_ADDRSTRLEN] = "";
    const size_t count = config_address_find(CONFIG_ADDRESS_PRIVATE, NULL, text);

    if (count == 0) {
        (void)errmsg_set(err, -1,
                         "No private IPv4 address found. Please configure one with 'bind' and/or "
                         "'advertise'.");
        return NULL;
    }
    if (count > 1) {
        (void)errmsg_set(err, -1,
                         "Multiple private IPv4 addresses found. Please configure one with 'bind' "
                         "and/or 'advertise'.");
        return NULL;
    }
    return strdup(text);
}

/* The text between {{ and }}: looks up what it asks for. */
static int config_template_evaluate(const char *key, struct slice body, char out[INET_ADDRSTRLEN],
                                    struct errmsg *err)
{
    char text[128];
    char interface[64] = "";
    size_t count;

    while (body.size > 0 && (body.data[0] == ' ' || body.data[0] == '-')) {
        body.data++;
        body.size--;
    }
    while (body.size > 0 && (body.data[body.size - 1] == ' ' || body.data[body.size - 1] == '-')) {
        body.size--;
    }
    (void)snprintf(text, sizeof(text), "%.*s", body.size < 100 ? (int)body.size : 100, body.data);
    if (strcmp(text, "GetPrivateIP") == 0) {
        count = config_address_find(CONFIG_ADDRESS_PRIVATE, NULL, out);
    } else if (strcmp(text, "GetPublicIP") == 0) {
        count = config_address_find(CONFIG_ADDRESS_PUBLIC, NULL, out);
    } else if (sscanf(text, "GetInterfaceIP %*[\"`]%63[^\"`]", interface) == 1) {
        count = config_address_find(CONFIG_ADDRESS_OF, interface, out);
    } else {
        return errmsg_set(err, -1,
                          "%s: template {{ %s }} is not understood; there are GetPrivateIP, "
                          "GetPublicIP and GetInterfaceIP \"name\", else write the address",
                          key, text);
    }
    if (count == 0) {
        return errmsg_set(err, -1, "%s: {{ %s }} finds no IPv4 address", key, text);
    }
    return 0;
}

char *config_address_expand(const char *key, const char *text, struct errmsg *err)
{
    struct buffer out = {0};
    int rc = 0;

    for (unsigned i = 0; rc == 0; i++) {
        char address[INET_ADDRSTRLEN] = "";
        const char *open = strstr(text, "{{");
        const char *close = open != NULL ? strstr(open, "}}") : NULL;

        if (open == NULL) {
            buffer_append_text(&out, text);
            break;
        }
        if (close == NULL || i >= CONFIG_TEMPLATES_MAX) {
            rc = errmsg_set(err, -1, "%s: {{ without }}, or more than %d templates", key,
                            CONFIG_TEMPLATES_MAX);
            break;
        }
        buffer_append(&out, text, (size_t)(open - text));
        rc = config_template_evaluate(key, slice_from(open + 2, (size_t)(close - open - 2)),
                                      address, err);
        buffer_append_text(&out, address);
        text = close + 2;
    }
    buffer_append_char(&out, '\0');
    if (rc == 0 && out.failed) {
        rc = errmsg_set(err, -1, "out of memory");
    }
    char *result = rc == 0 ? strdup(out.data) : NULL;
    buffer_deinit(&out);
    return result;
}
