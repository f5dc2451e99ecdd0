#include "server/http/service_json.h"

#include "server/http/http.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool service_json_weights(const json_t *json, struct service_json_weights *out, struct errmsg *err)
{
    static const struct json_field fields[] = {
        {"Passing", JSON_FIELD_INT, offsetof(struct service_json_weights, passing)},
        {"Warning", JSON_FIELD_INT, offsetof(struct service_json_weights, warning)},
    };

    *out = (struct service_json_weights){0, 0};
    return json_decode(json, "structs.Weights", fields, COUNT(fields), out, err);
}

bool service_json_address(const json_t *json, struct service_json_address *out, struct errmsg *err)
{
    static const struct json_field fields[] = {
        {"Address", JSON_FIELD_STRING, offsetof(struct service_json_address, address)},
        {"Port", JSON_FIELD_INT, offsetof(struct service_json_address, port)},
    };

    *out = (struct service_json_address){SLICE_EMPTY, 0};
    return json_decode(json, "structs.ServiceAddress", fields, COUNT(fields), out, err);
}

int64_t service_json_port(const struct service_json *service)
{
    const json_t *item;
    size_t i;

    if (service->port != 0) {
        return service->port;
    }
    json_array_foreach(service->ports, i, item)
    {
        if (json_is_true(json_member(item, "Default"))) {
            return json_integer_value(json_member(item, "Port"));
        }
    }
    return 0;
}

char *service_json_extra(const struct service_json *service)
{
    const struct {
        const char *name;
        const json_t *value;
    } members[] = {
        {"Ports", json_array_size(service->ports) > 0 ? service->ports : NULL},
        {"Locality", json_object_size(service->locality) > 0 ? service->locality : NULL},
        {"Proxy", json_object_size(service->proxy) > 0 ? service->proxy : NULL},
        {"Connect", json_object_size(service->connect) > 0 ? service->connect : NULL},
    };
    json_t *extra = json_object();

    if (service->socket_path.size > 0) {
        (void)json_object_set_new(
            extra, "SocketPath",
            json_stringn(service->socket_path.data, service->socket_path.size));
    }
    for (size_t i = 0; i < COUNT(members); i++) {
        if (members[i].value != NULL) {
            (void)json_object_set_new(extra, members[i].name, json_deep_copy(members[i].value));
        }
    }
    char *text = json_object_size(extra) == 0 ? NULL : json_dumps(extra, JSON_COMPACT);
    json_decref(extra);
    return text;
}
