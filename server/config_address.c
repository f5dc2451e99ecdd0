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

/* What else is nobody's address in the Internet (RFC 6890). */
static bool config_is_special(struct in_addr address)
{
    static const struct {
        uint32_t network;
        unsigned bits;
    } specials[] = {
        {0x00000000, 8},  {0x7f000000, 8},  {0xa9fe0000, 16}, {0xc0000000, 24}, {0xc0000200, 24},
        {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24}, {0xf0000000, 4},
    };
    const uint32_t ip = ntohl(address.s_addr);

    for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++) {
        if ((ip ^ specials[i].network) >> (32 - specials[i].bits) == 0) {
            return true;
        }
    }
    return false;
}

/* The interface that packets to anywhere leave by; "" if there is none. */
static void config_default_interface(char out[IF_NAMESIZE])
{
    FILE *routes = fopen("/proc/net/route", "re");
    char line[256];
    char name[IF_NAMESIZE];
    unsigned long network, mask;

    out[0] = '\0';
    while (routes != NULL && out[0] == '\0' && fgets(line, sizeof(line), routes) != NULL) {
        if (sscanf(line, "%15s %lx %*s %*s %*s %*s %*s %lx", name, &network, &mask) == 3 &&
            network == 0 && mask == 0) {
            memcpy(out, name, sizeof(name));
        }
    }
    if (routes != NULL) {
        (void)fclose(routes); /* only read from */
    }
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
        return !loopback && !config_is_private(address.sin_addr) &&
               !config_is_special(address.sin_addr);
    case CONFIG_ADDRESS_OF:
        return strcmp(entry->ifa_name, interface) == 0;
    }
    return false;
}

/* Counts the matching IPv4 addresses of this machine; the first goes to `out`, one of the interface
 * with the default route before all: not that of a bridge for containers. */
static size_t config_address_find(enum config_address_wanted wanted, const char *interface,
                                  char out[INET_ADDRSTRLEN])
{
    struct ifaddrs *entries;
    char route[IF_NAMESIZE];
    bool routed = false;
    size_t count = 0;

    if (getifaddrs(&entries) != 0) {
        return 0;
    }
    config_default_interface(route);
    for (const struct ifaddrs *entry = entries; entry != NULL; entry = entry->ifa_next) {
        struct sockaddr_in address;

        if (!config_address_matches(entry, wanted, interface)) {
            continue;
        }
        const bool better = !routed && strcmp(entry->ifa_name, route) == 0;
        routed = routed || better;
        if (count++ == 0 || better) {
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
