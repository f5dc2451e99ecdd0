#include "server/http/catalog_json.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/http_internal.h"

void catalog_json_key(struct buffer *out, const char *name)
{
    buffer_append_text(out, ",\"");
    buffer_append_text(out, name);
    buffer_append_text(out, "\":");
}

void catalog_json_text(struct buffer *out, const char *name, struct slice text)
{
    catalog_json_key(out, name);
    json_put_string(out, text);
}

void catalog_json_tags(struct buffer *out, struct strings tags)
{
    if (tags.count == 0) {
        buffer_append_text(out, "[]");
    } else {
        json_put_strings(out, tags);
    }
}

void catalog_json_map(struct buffer *out, struct strings pairs)
{
    if (pairs.count == 0) {
        buffer_append_text(out, "{}");
    } else {
        json_put_map(out, pairs);
    }
}

void catalog_json_tagged_addresses(struct buffer *out, struct strings triples)
{
    struct reader it = strings_begin(triples);
    struct slice name, address, port;
    bool first = true;

    buffer_append_char(out, '{');
    while (strings_next(&it, &name) && strings_next(&it, &address) && strings_next(&it, &port)) {
        if (!first) {
            buffer_append_char(out, ',');
        }
        first = false;
        json_put_string(out, name);
        buffer_append_text(out, ":{\"Address\":");
        json_put_string(out, address);
        buffer_append_text(out, ",\"Port\":");
        buffer_append_slice(out, port);
        buffer_append_char(out, '}');
    }
    buffer_append_char(out, '}');
}

static void catalog_json_indexes(struct buffer *out, uint64_t create_index, uint64_t modify_index)
{
    catalog_json_key(out, "CreateIndex");
    json_put_u64(out, create_index);
    catalog_json_key(out, "ModifyIndex");
    json_put_u64(out, modify_index);
}

static void catalog_json_datacenter(struct buffer *out, const struct catalog_node *node,
                                    const char *datacenter)
{
    catalog_json_text(out, "Datacenter",
                      node->datacenter.size > 0 ? node->datacenter : slice_from_text(datacenter));
}

void catalog_json_node(struct buffer *out, const struct catalog_node *node, const char *datacenter)
{
    buffer_append_text(out, "{\"ID\":");
    json_put_string(out, node->id);
    catalog_json_text(out, "Node", node->name);
    catalog_json_text(out, "Address", node->address);
    catalog_json_datacenter(out, node, datacenter);
    catalog_json_key(out, "TaggedAddresses");
    json_put_map(out, node->tagged_addresses);
    catalog_json_key(out, "Meta");
    json_put_map(out, node->meta);
    catalog_json_indexes(out, node->create_index, node->modify_index);
    buffer_append_char(out, '}');
}

static void catalog_json_weights(struct buffer *out, const struct catalog_service *service)
{
    buffer_append_text(out, "{\"Passing\":");
    json_put_u64(out, service->weight_passing);
    catalog_json_key(out, "Warning");
    json_put_u64(out, service->weight_warning);
    buffer_append_char(out, '}');
}

/* What is kept as text. A service without Proxy and Connect shows Consul's empty ones; what later
 * releases have is shown if it was given. */
static void catalog_json_extra(struct buffer *out, struct slice extra, const char *prefix)
{
    static const struct {
        const char *name;
        const char *fallback;
    } members[] = {
        {"Proxy", "{\"MeshGateway\":{},\"Expose\":{}}"},
        {"Connect", "{}"},
        {"SocketPath", NULL},
        {"Ports", NULL},
        {"Locality", NULL},
    };
    json_t *kept =
        extra.size == 0 ? NULL : json_loadb(extra.data, extra.size, JSON_ALLOW_NUL, NULL);

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        const json_t *member = kept == NULL ? NULL : json_object_get(kept, members[i].name);
        char *text = member == NULL ? NULL : json_dumps(member, JSON_COMPACT | JSON_ENCODE_ANY);

        if (text == NULL && members[i].fallback == NULL) {
            continue;
        }
        buffer_printf(out, ",\"%s%s\":", prefix, members[i].name);
        buffer_append_text(out, text == NULL ? members[i].fallback : text);
        free(text);
    }
    json_decref(kept);
}

static void catalog_json_service_with(struct buffer *out, const struct catalog_service *service,
                                      void (*put_tags)(struct buffer *out, struct strings tags))
{
    buffer_append_char(out, '{');
    if (service->kind.size > 0) {
        buffer_append_text(out, "\"Kind\":");
        json_put_string(out, service->kind);
        buffer_append_char(out, ',');
    }
    buffer_append_text(out, "\"ID\":");
    json_put_string(out, service->id);
    catalog_json_text(out, "Service", service->name);
    catalog_json_key(out, "Tags");
    put_tags(out, service->tags);
    catalog_json_text(out, "Address", service->address);
    if (service->tagged_addresses.count > 0) {
        catalog_json_key(out, "TaggedAddresses");
        catalog_json_tagged_addresses(out, service->tagged_addresses);
    }
    catalog_json_key(out, "Meta");
    json_put_map(out, service->meta);
    catalog_json_key(out, "Port");
    json_put_u64(out, service->port);
    catalog_json_key(out, "Weights");
    catalog_json_weights(out, service);
    catalog_json_key(out, "EnableTagOverride");
    json_put_bool(out, service->enable_tag_override);
    catalog_json_extra(out, service->extra, "");
    catalog_json_indexes(out, service->create_index, service->modify_index);
    buffer_append_char(out, '}');
}

void catalog_json_service(struct buffer *out, const struct catalog_service *service)
{
    catalog_json_service_with(out, service, catalog_json_tags);
}

void catalog_json_service_stored(struct buffer *out, const struct catalog_service *service)
{
    catalog_json_service_with(out, service, json_put_strings);
}

void catalog_json_instance(struct buffer *out, const struct catalog_node *node,
                           const struct catalog_service *service, const char *datacenter)
{
    buffer_append_text(out, "{\"ID\":");
    json_put_string(out, node->id);
    /* As it was spelled when the service was registered. */
    catalog_json_text(out, "Node", service->node);
    catalog_json_text(out, "Address", node->address);
    catalog_json_datacenter(out, node, datacenter);
    catalog_json_key(out, "TaggedAddresses");
    json_put_map(out, node->tagged_addresses);
    catalog_json_key(out, "NodeMeta");
    json_put_map(out, node->meta);
    catalog_json_text(out, "ServiceKind", service->kind);
    catalog_json_text(out, "ServiceID", service->id);
    catalog_json_text(out, "ServiceName", service->name);
    catalog_json_key(out, "ServiceTags");
    catalog_json_tags(out, service->tags);
    catalog_json_text(out, "ServiceAddress", service->address);
    if (service->tagged_addresses.count > 0) {
        catalog_json_key(out, "ServiceTaggedAddresses");
        catalog_json_tagged_addresses(out, service->tagged_addresses);
    }
    catalog_json_key(out, "ServiceWeights");
    catalog_json_weights(out, service);
    catalog_json_key(out, "ServiceMeta");
    catalog_json_map(out, service->meta);
    catalog_json_key(out, "ServicePort");
    json_put_u64(out, service->port);
    catalog_json_key(out, "ServiceEnableTagOverride");
    json_put_bool(out, service->enable_tag_override);
    catalog_json_extra(out, service->extra, "Service");
    catalog_json_indexes(out, service->create_index, service->modify_index);
    buffer_append_char(out, '}');
}

static void catalog_json_check_with(struct buffer *out, const struct catalog_check *check,
                                    void (*put_tags)(struct buffer *out, struct strings tags))
{
    buffer_append_text(out, "{\"Node\":");
    json_put_string(out, check->node);
    catalog_json_text(out, "CheckID", check->id);
    catalog_json_text(out, "Name", check->name);
    catalog_json_text(out, "Status", check->status);
    catalog_json_text(out, "Notes", check->notes);
    catalog_json_text(out, "Output", check->output);
    catalog_json_text(out, "ServiceID", check->service_id);
    catalog_json_text(out, "ServiceName", check->service_name);
    catalog_json_key(out, "ServiceTags");
    put_tags(out, check->service_tags);
    catalog_json_text(out, "Type", check->type);
    catalog_json_key(out, "Definition");
    if (check->definition.size > 0) {
        buffer_append_slice(out, check->definition);
    } else {
        buffer_append_text(out, "{}");
    }
    catalog_json_indexes(out, check->create_index, check->modify_index);
    buffer_append_char(out, '}');
}

void catalog_json_check(struct buffer *out, const struct catalog_check *check)
{
    catalog_json_check_with(out, check, catalog_json_tags);
}

static void catalog_json_no_tags(struct buffer *out, struct strings tags)
{
    (void)tags;
    buffer_append_text(out, "null");
}

void catalog_json_check_stored(struct buffer *out, const struct catalog_check *check)
{
    const bool own = check->service_id.size == 0; /* The node's: it has no service's tags. */

    catalog_json_check_with(out, check, own ? catalog_json_no_tags : json_put_strings);
}

struct strings catalog_json_pack_list(struct buffer *buffer, const json_t *list)
{
    if (list == NULL) {
        return STRINGS_NULL;
    }
    uint32_t count = 0;
    size_t i;
    json_t *item;

    buffer_clear(buffer);
    json_array_foreach(list, i, item)
    {
        strings_pack_add(buffer, slice_from(json_string_value(item), json_string_length(item)));
        count++;
    }
    return strings_from_packed(buffer_slice(buffer), count);
}

static int catalog_json_compare_keys(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;

    return strcmp(*left, *right);
}

const char **catalog_json_sorted_keys(const json_t *object, size_t *count)
{
    const size_t size = json_object_size(object);
    const char **keys = size == 0 ? NULL : malloc(size * sizeof(*keys));
    const char *key;
    size_t position = 0;
    json_t *value;
    /* jansson's iteration takes a pointer to non-const, though it only reads. */
    union {
        const json_t *in;
        json_t *out;
    } pun = {.in = object};

    *count = 0;
    if (keys == NULL) {
        return NULL;
    }
    json_object_foreach(pun.out, key, value)
    {
        (void)value;
        assert(position < size);
        keys[position++] = key;
    }
    qsort(keys, position, sizeof(*keys), catalog_json_compare_keys);
    *count = position;
    return keys;
}

struct strings catalog_json_pack_map(struct buffer *buffer, const json_t *object)
{
    if (object == NULL) {
        return STRINGS_NULL;
    }
    size_t count;
    const char **keys = catalog_json_sorted_keys(object, &count);

    buffer_clear(buffer);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(object, keys[i]);
        strings_pack_add(buffer, slice_from_text(keys[i]));
        strings_pack_add(buffer, slice_from(json_string_value(value), json_string_length(value)));
    }
    free(keys);
    return strings_from_packed(buffer_slice(buffer), (uint32_t)(2 * count));
}

static bool catalog_json_pair_in(struct strings pairs, struct slice key, struct slice value)
{
    struct reader it = strings_begin(pairs);
    struct slice name, text;

    while (strings_next(&it, &name) && strings_next(&it, &text)) {
        if (slice_equal(name, key)) {
            return slice_equal(text, value);
        }
    }
    return false;
}

bool catalog_json_meta_matches(const struct http_request *request, struct strings meta)
{
    for (size_t i = 0; i < request->param_count; i++) {
        const struct http_param *param = &request->params[i];
        if (!slice_equal(param->name, SLICE_LITERAL("node-meta"))) {
            continue;
        }
        const char *colon =
            param->value.size == 0 ? NULL : memchr(param->value.data, ':', param->value.size);
        struct slice key = param->value;
        struct slice value = SLICE_EMPTY;
        if (colon != NULL) {
            key.size = (size_t)(colon - param->value.data);
            value = slice_from(colon + 1, param->value.size - key.size - 1);
        }
        if (!catalog_json_pair_in(meta, key, value)) {
            return false;
        }
    }
    return true;
}

bool catalog_json_tags_match(const struct http_request *request, struct strings tags)
{
    for (size_t i = 0; i < request->param_count; i++) {
        const struct http_param *param = &request->params[i];
        if (slice_equal(param->name, SLICE_LITERAL("tag")) &&
            !strings_contain_nocase(tags, param->value)) {
            return false;
        }
    }
    return true;
}

bool catalog_json_filter_begin(struct http_request *request, enum filter_kind kind,
                               bool index_headers)
{
    const struct slice expression = http_param_value(request, "filter");
    struct errmsg err = {""};

    if (expression.size == 0) {
        return true;
    }
    assert(request->private->filter == NULL);
    request->private->filter = filter_new(kind, expression, &err);
    if (request->private->filter != NULL) {
        return true;
    }
    if (index_headers) {
        http_add_header(request, "X-Consul-Index", "1");
        http_add_header(request, "X-Consul-Knownleader", "false");
        http_add_header(request, "X-Consul-Lastcontact", "0");
    }
    http_reply_error(request, 500, "Failed to create boolean expression evaluator: %s", err.text);
    return false;
}

size_t catalog_json_next(struct buffer *out)
{
    const size_t start = out->size;
    const char last = start == 0 ? '[' : out->data[start - 1];

    if (last != '[' && last != '{') {
        buffer_append_char(out, ',');
    }
    return start;
}

void catalog_json_filter_from(const struct http_request *request, struct buffer *out, size_t start,
                              size_t object)
{
    struct filter *filter = request->private->filter;

    assert(start <= object && object <= out->size);
    if (filter == NULL || out->failed) {
        return;
    }
    json_t *json = json_loadb(out->data + object, out->size - object, JSON_ALLOW_NUL, NULL);
    const bool keep = json != NULL && filter_matches(filter, json);

    json_decref(json);
    if (!keep) {
        out->size = start;
    }
}
