/* What a filter can ask for: the members of each kind of object, as Consul documents its selectors.
 */

#include <assert.h>

#include "server/http/filter_internal.h"

static const struct filter_field address_fields[] = {
    {"Address", TYPE_STRING, NULL},
    {"Port", TYPE_INT, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field weights_fields[] = {
    {"Passing", TYPE_INT, NULL},
    {"Warning", TYPE_INT, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field connect_fields[] = {
    {"Native", TYPE_BOOL, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field gateway_fields[] = {
    {"Mode", TYPE_STRING, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field path_fields[] = {
    {"ListenerPort", TYPE_INT, NULL}, {"LocalPathPort", TYPE_INT, NULL},
    {"Path", TYPE_STRING, NULL},      {"Protocol", TYPE_STRING, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field expose_fields[] = {
    {"Checks", TYPE_BOOL, NULL},
    {"Paths", TYPE_LIST, path_fields},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field upstream_fields[] = {
    {"Datacenter", TYPE_STRING, NULL},
    {"DestinationName", TYPE_STRING, NULL},
    {"DestinationNamespace", TYPE_STRING, NULL},
    {"DestinationType", TYPE_STRING, NULL},
    {"LocalBindAddress", TYPE_STRING, NULL},
    {"LocalBindPort", TYPE_INT, NULL},
    {"MeshGateway", TYPE_STRUCT, gateway_fields},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field proxy_fields[] = {
    {"DestinationServiceID", TYPE_STRING, NULL}, {"DestinationServiceName", TYPE_STRING, NULL},
    {"Expose", TYPE_STRUCT, expose_fields},      {"LocalServiceAddress", TYPE_STRING, NULL},
    {"LocalServicePort", TYPE_INT, NULL},        {"MeshGateway", TYPE_STRUCT, gateway_fields},
    {"Upstreams", TYPE_LIST, upstream_fields},   {NULL, TYPE_STRING, NULL},
};
static const struct filter_field node_fields[] = {
    {"Address", TYPE_STRING, NULL}, {"Datacenter", TYPE_STRING, NULL},
    {"ID", TYPE_STRING, NULL},      {"Meta", TYPE_MAP, NULL},
    {"Node", TYPE_STRING, NULL},    {"TaggedAddresses", TYPE_MAP, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field node_service_fields[] = {
    {"Address", TYPE_STRING, NULL},
    {"Connect", TYPE_STRUCT, connect_fields},
    {"EnableTagOverride", TYPE_BOOL, NULL},
    {"ID", TYPE_STRING, NULL},
    {"Kind", TYPE_STRING, NULL},
    {"Meta", TYPE_MAP, NULL},
    {"Port", TYPE_INT, NULL},
    {"Proxy", TYPE_STRUCT, proxy_fields},
    {"Service", TYPE_STRING, NULL},
    {"TaggedAddresses", TYPE_MAP, address_fields},
    {"Tags", TYPE_STRINGS, NULL},
    {"Weights", TYPE_STRUCT, weights_fields},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field instance_fields[] = {
    {"Address", TYPE_STRING, NULL},
    {"Datacenter", TYPE_STRING, NULL},
    {"ID", TYPE_STRING, NULL},
    {"Node", TYPE_STRING, NULL},
    {"NodeMeta", TYPE_MAP, NULL},
    {"ServiceAddress", TYPE_STRING, NULL},
    {"ServiceConnect", TYPE_STRUCT, connect_fields},
    {"ServiceEnableTagOverride", TYPE_BOOL, NULL},
    {"ServiceID", TYPE_STRING, NULL},
    {"ServiceKind", TYPE_STRING, NULL},
    {"ServiceMeta", TYPE_MAP, NULL},
    {"ServiceName", TYPE_STRING, NULL},
    {"ServicePort", TYPE_INT, NULL},
    {"ServiceProxy", TYPE_STRUCT, proxy_fields},
    {"ServiceTaggedAddresses", TYPE_MAP, address_fields},
    {"ServiceTags", TYPE_STRINGS, NULL},
    {"ServiceWeights", TYPE_STRUCT, weights_fields},
    {"TaggedAddresses", TYPE_MAP, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field check_fields[] = {
    {"CheckID", TYPE_STRING, NULL},     {"Name", TYPE_STRING, NULL},
    {"Node", TYPE_STRING, NULL},        {"Notes", TYPE_STRING, NULL},
    {"Output", TYPE_STRING, NULL},      {"ServiceID", TYPE_STRING, NULL},
    {"ServiceName", TYPE_STRING, NULL}, {"ServiceTags", TYPE_STRINGS, NULL},
    {"Status", TYPE_STRING, NULL},      {"Type", TYPE_STRING, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field health_fields[] = {
    {"Checks", TYPE_LIST, check_fields},
    {"Node", TYPE_STRUCT, node_fields},
    {"Service", TYPE_STRUCT, node_service_fields},
    {NULL, TYPE_STRING, NULL},
};

const struct filter_field *filter_fields(enum filter_kind kind)
{
    switch (kind) {
    case FILTER_NODE:
        return node_fields;
    case FILTER_NODE_SERVICE:
        return node_service_fields;
    case FILTER_INSTANCE:
        return instance_fields;
    case FILTER_CHECK:
        return check_fields;
    case FILTER_HEALTH:
        return health_fields;
    }
    assert(false);
    return NULL;
}
