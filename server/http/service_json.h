#ifndef SERVER_HTTP_SERVICE_JSON_H
#define SERVER_HTTP_SERVICE_JSON_H

/* A service as clients write it in JSON: what registrations with the catalog, in transactions and
 * with the agent have in common. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "server/http/json_decode.h"

enum {
    SERVICE_WEIGHT_MAX = 65535, /* what DNS can say */
    SERVICE_PORT_MAX = 65535,
};

/* Borrowed from the document; what was not given is empty, NULL or 0. */
struct service_json {
    struct slice kind;
    struct slice id;
    struct slice name;
    struct slice address;
    struct slice socket_path; /* this, ports and locality: of later releases than 1.8 */
    const json_t *tags;
    const json_t *meta;
    const json_t *tagged_addresses;
    const json_t *weights;
    const json_t *proxy;
    const json_t *connect;
    const json_t *ports;
    const json_t *locality;
    int64_t port;
    bool enable_tag_override;
};

#define SERVICE_JSON_EMPTY                                                                         \
    {                                                                                              \
        .kind = SLICE_EMPTY, .id = SLICE_EMPTY, .name = SLICE_EMPTY, .address = SLICE_EMPTY,       \
        .socket_path = SLICE_EMPTY                                                                 \
    }

/* Entries of a table for json_decode into a `type` that has a struct service_json `member`; the
 * service's name stands under `name`. */
#define SERVICE_JSON_FIELDS(type, member, name_text)                                               \
    {"Kind", JSON_FIELD_STRING, offsetof(type, member.kind)},                                      \
        {"ID", JSON_FIELD_STRING, offsetof(type, member.id)},                                      \
        {(name_text), JSON_FIELD_STRING, offsetof(type, member.name)},                             \
        {"Address", JSON_FIELD_STRING, offsetof(type, member.address)},                            \
        {"SocketPath", JSON_FIELD_STRING, offsetof(type, member.socket_path)},                     \
        {"Tags", JSON_FIELD_STRINGS, offsetof(type, member.tags)},                                 \
        {"Meta", JSON_FIELD_STRING_MAP, offsetof(type, member.meta)},                              \
        {"TaggedAddresses", JSON_FIELD_OBJECT, offsetof(type, member.tagged_addresses)},           \
        {"Weights", JSON_FIELD_OBJECT, offsetof(type, member.weights)},                            \
        {"Proxy", JSON_FIELD_OBJECT, offsetof(type, member.proxy)},                                \
        {"Connect", JSON_FIELD_OBJECT, offsetof(type, member.connect)},                            \
        {"Ports", JSON_FIELD_ARRAY, offsetof(type, member.ports)},                                 \
        {"Locality", JSON_FIELD_OBJECT, offsetof(type, member.locality)},                          \
        {"Port", JSON_FIELD_INT, offsetof(type, member.port)},                                     \
    {                                                                                              \
        "EnableTagOverride", JSON_FIELD_BOOL, offsetof(type, member.enable_tag_override)           \
    }

/* Whether what stands inside (weights, addresses, ports, locality) has the right types: to be asked
 * once, right after json_decode. The functions below rely on it. False with Go's text in `err`. */
bool service_json_check(const struct service_json *service, struct errmsg *err);

struct service_json_weights {
    int64_t passing;
    int64_t warning;
};
/* As given: they may be out of range. 1 and 1 when none are given, 0 for a single one that is not.
 */
struct service_json_weights service_json_weights(const struct service_json *service);

/* The port; with several ports the default one counts wherever one is asked for. */
int64_t service_json_port(const struct service_json *service);
/* Whether all of them are from 0 to SERVICE_PORT_MAX. */
bool service_json_ports_in_range(const struct service_json *service);

/* The tagged addresses as the catalog keeps them (name, address, port, ...), sorted by name. With
 * `own`, an IP address of the service is also listed as lan_ipv4 and wan_ipv4 (or _ipv6) unless
 * these are given, as Consul's agent does. Borrows `buffer`'s bytes, which it replaces; without
 * memory the buffer is marked failed. */
struct strings service_json_pack_addresses(struct buffer *buffer,
                                           const struct service_json *service, bool own);

/* What is kept as text, for nothing here understands it (Proxy, Connect, SocketPath, Ports,
 * Locality): an object's text. Returns owned, NULL if there is nothing. */
char *service_json_extra(const struct service_json *service);

#endif
