#include "server/http/service_json.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/catalog_json.h"
#include "server/http/http.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct service_json_address {
    const char *name; /* "lan", "wan_ipv4", ... */
    struct slice address;
    int64_t port;
};

struct service_json_named_port {
    struct slice name;
    int64_t port;
    bool is_default;
};

struct service_json_locality {
    struct slice region;
    struct slice zone;
};

/* --- what stands inside --- */

static bool service_json_read_weights(const json_t *json, struct service_json_weights *out,
                                      struct errmsg *err)
{
    static const struct json_field fields[] = {
        {"Passing", JSON_FIELD_INT, offsetof(struct service_json_weights, passing)},
        {"Warning", JSON_FIELD_INT, offsetof(struct service_json_weights, warning)},
    };

    *out = (struct service_json_weights){0, 0};
    return json_decode(json, "structs.Weights", fields, COUNT(fields), out, err);
}

static bool service_json_read_address(const json_t *json, struct service_json_address *out,
                                      struct errmsg *err)
{
    static const struct json_field fields[] = {
        {"Address", JSON_FIELD_STRING, offsetof(struct service_json_address, address)},
        {"Port", JSON_FIELD_INT, offsetof(struct service_json_address, port)},
    };

    *out = (struct service_json_address){.address = SLICE_EMPTY};
    return json_decode(json, "structs.ServiceAddress", fields, COUNT(fields), out, err);
}

static bool service_json_read_port(const json_t *json, struct service_json_named_port *out,
                                   struct errmsg *err)
{
    static const struct json_field fields[] = {
        {"Name", JSON_FIELD_STRING, offsetof(struct service_json_named_port, name)},
        {"Port", JSON_FIELD_INT, offsetof(struct service_json_named_port, port)},
        {"Default", JSON_FIELD_BOOL, offsetof(struct service_json_named_port, is_default)},
    };

    *out = (struct service_json_named_port){.name = SLICE_EMPTY};
    return json_decode(json, "structs.ServicePort", fields, COUNT(fields), out, err);
}

static bool service_json_read_locality(const json_t *json, struct service_json_locality *out,
                                       struct errmsg *err)
{
    static const struct json_field fields[] = {
        {"Region", JSON_FIELD_STRING, offsetof(struct service_json_locality, region)},
        {"Zone", JSON_FIELD_STRING, offsetof(struct service_json_locality, zone)},
    };

    *out = (struct service_json_locality){SLICE_EMPTY, SLICE_EMPTY};
    return json == NULL || json_decode(json, "structs.Locality", fields, COUNT(fields), out, err);
}

bool service_json_check(const struct service_json *service, struct errmsg *err)
{
    struct service_json_weights weights;
    struct service_json_address address;
    struct service_json_named_port port;
    struct service_json_locality locality;
    const json_t *item;
    size_t count = 0;
    size_t i;
    bool ok =
        service->weights == NULL || service_json_read_weights(service->weights, &weights, err);

    const char **keys = catalog_json_sorted_keys(service->tagged_addresses, &count);
    for (i = 0; ok && i < count; i++) {
        ok = service_json_read_address(json_object_get(service->tagged_addresses, keys[i]),
                                       &address, err);
    }
    free(keys);
    json_array_foreach(service->ports, i, item)
    {
        ok = ok && service_json_read_port(item, &port, err);
    }
    return ok && service_json_read_locality(service->locality, &locality, err);
}

struct service_json_weights service_json_weights(const struct service_json *service)
{
    struct service_json_weights weights = {1, 1};
    struct errmsg ignored; /* It was checked. */

    if (service->weights != NULL) {
        (void)service_json_read_weights(service->weights, &weights, &ignored);
    }
    return weights;
}

/* --- ports --- */

int64_t service_json_port(const struct service_json *service)
{
    struct service_json_named_port port;
    struct errmsg ignored; /* It was checked. */
    const json_t *item;
    size_t i;

    if (service->port != 0) {
        return service->port;
    }
    json_array_foreach(service->ports, i, item)
    {
        if (service_json_read_port(item, &port, &ignored) && port.is_default) {
            return port.port;
        }
    }
    return 0;
}

static bool service_json_port_in_range(int64_t port)
{
    return port >= 0 && port <= SERVICE_PORT_MAX;
}

bool service_json_ports_in_range(const struct service_json *service)
{
    struct service_json_named_port port;
    struct errmsg ignored; /* It was checked. */
    const json_t *item;
    size_t i;
    bool ok = service_json_port_in_range(service->port);

    json_array_foreach(service->ports, i, item)
    {
        ok = ok && service_json_read_port(item, &port, &ignored) &&
             service_json_port_in_range(port.port);
    }
    return ok;
}

/* --- addresses --- */

/* "ipv4", "ipv6", or NULL for what is no IP address. */
static const char *service_json_family(struct slice address)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    char text[INET6_ADDRSTRLEN + 1];

    if (address.size >= sizeof(text)) {
        return NULL;
    }
    (void)snprintf(text, sizeof(text), "%.*s", (int)address.size, address.data);
    return inet_pton(AF_INET, text, bytes) == 1    ? "ipv4"
           : inet_pton(AF_INET6, text, bytes) == 1 ? "ipv6"
                                                   : NULL;
}

/* Appends the service's own address under the names that its family has; returns how many. */
static size_t service_json_add_own(const struct service_json *service,
                                   struct service_json_address *out)
{
    static const char *const names[] = {"lan_ipv4", "lan_ipv6", "wan_ipv4", "wan_ipv6"};
    const char *family = service_json_family(service->address);
    size_t added = 0;

    for (size_t i = 0; family != NULL && i < COUNT(names); i++) {
        if (strcmp(names[i] + strlen("lan_"), family) == 0 &&
            json_object_get(service->tagged_addresses, names[i]) == NULL) {
            out[added++] = (struct service_json_address){names[i], service->address,
                                                         service_json_port(service)};
        }
    }
    return added;
}

static int service_json_compare_addresses(const void *a, const void *b)
{
    const struct service_json_address *left = a;
    const struct service_json_address *right = b;

    return strcmp(left->name, right->name);
}

struct strings service_json_pack_addresses(struct buffer *buffer,
                                           const struct service_json *service, bool own)
{
    enum { OWN_COUNT_MAX = 2 };
    size_t count = 0;
    size_t used = 0;
    const char **keys = catalog_json_sorted_keys(service->tagged_addresses, &count);
    struct service_json_address *list = calloc(count + OWN_COUNT_MAX, sizeof(*list));

    buffer_clear(buffer);
    buffer->failed = list == NULL;
    for (size_t i = 0; list != NULL && i < count; i++) {
        struct errmsg ignored; /* It was checked. */

        (void)service_json_read_address(json_object_get(service->tagged_addresses, keys[i]),
                                        &list[used], &ignored);
        list[used++].name = keys[i];
    }
    if (list != NULL && own) {
        used += service_json_add_own(service, list + used);
        qsort(list, used, sizeof(*list), service_json_compare_addresses);
    }
    for (size_t i = 0; i < used; i++) {
        char port[24];

        (void)snprintf(port, sizeof(port), "%lld", (long long)list[i].port);
        strings_pack_add(buffer, slice_from_text(list[i].name));
        strings_pack_add(buffer, list[i].address);
        strings_pack_add(buffer, slice_from_text(port));
    }
    free(list);
    free(keys);
    return used == 0 ? STRINGS_NULL
                     : strings_from_packed(buffer_slice(buffer), (uint32_t)(3 * used));
}

/* --- what is only kept --- */

static void service_json_set_text(json_t *object, const char *name, struct slice text)
{
    if (text.size > 0) {
        (void)json_object_set_new(object, name, json_stringn(text.data, text.size));
    }
}

static void service_json_set_object(json_t *object, const char *name, const json_t *value)
{
    if (json_object_size(value) > 0) {
        (void)json_object_set_new(object, name, json_deep_copy(value));
    }
}

/* In Consul's spelling, however the members were written. */
static json_t *service_json_copy_ports(const json_t *ports)
{
    json_t *copy = json_array();
    struct service_json_named_port port;
    struct errmsg ignored; /* It was checked. */
    const json_t *item;
    size_t i;

    json_array_foreach(ports, i, item)
    {
        json_t *object = json_object();

        (void)service_json_read_port(item, &port, &ignored);
        service_json_set_text(object, "Name", port.name);
        (void)json_object_set_new(object, "Port", json_integer(port.port));
        if (port.is_default) {
            (void)json_object_set_new(object, "Default", json_true());
        }
        (void)json_array_append_new(copy, object);
    }
    return copy;
}

static json_t *service_json_copy_locality(const json_t *json)
{
    json_t *copy = json_object();
    struct service_json_locality locality;
    struct errmsg ignored; /* It was checked. */

    (void)service_json_read_locality(json, &locality, &ignored);
    service_json_set_text(copy, "Region", locality.region);
    service_json_set_text(copy, "Zone", locality.zone);
    return copy;
}

char *service_json_extra(const struct service_json *service)
{
    json_t *extra = json_object();

    service_json_set_text(extra, "SocketPath", service->socket_path);
    if (json_array_size(service->ports) > 0) {
        (void)json_object_set_new(extra, "Ports", service_json_copy_ports(service->ports));
    }
    if (json_object_size(service->locality) > 0) {
        (void)json_object_set_new(extra, "Locality", service_json_copy_locality(service->locality));
    }
    service_json_set_object(extra, "Proxy", service->proxy);
    service_json_set_object(extra, "Connect", service->connect);
    char *text = json_object_size(extra) == 0 ? NULL : json_dumps(extra, JSON_COMPACT);
    json_decref(extra);
    return text;
}
