/* Records of the catalog as bytes: in the store, and in commands. */

#include <stdlib.h>

#include "server/catalog/catalog.h"

enum { PAIR_WIDTH = 2, TRIPLE_WIDTH = 3 };

/* One entry of a map: `width` strings, the first of them the key. */
struct tuple {
    struct slice key;
    struct slice packed;
};

/* Reads the next entry; false at the end. */
static bool tuple_next(struct reader *it, uint32_t width, struct tuple *out)
{
    const char *begin = it->at;
    struct slice part;

    if (!strings_next(it, &out->key)) {
        return false;
    }
    for (uint32_t i = 1; i < width; i++) {
        if (!strings_next(it, &part)) {
            return false;
        }
    }
    out->packed = slice_from(begin, (size_t)(it->at - begin));
    return true;
}

/* By key; equal keys in the order they came, so that the outcome does not depend on qsort. */
static int tuple_compare(const void *left, const void *right)
{
    const struct tuple *a = left;
    const struct tuple *b = right;
    const int order = slice_compare(a->key, b->key);

    if (order != 0) {
        return order;
    }
    return (a->packed.data > b->packed.data) - (a->packed.data < b->packed.data);
}

static bool tuples_sorted(struct strings map, uint32_t width)
{
    struct reader it = strings_begin(map);
    struct tuple previous, next;

    if (!tuple_next(&it, width, &previous)) {
        return true;
    }
    while (tuple_next(&it, width, &next)) {
        if (slice_compare(previous.key, next.key) >= 0) {
            return false;
        }
        previous = next;
    }
    return true;
}

/* Appends a map in order of its keys. What is no whole number of entries is cut. */
static void map_put(struct buffer *out, struct strings map, uint32_t width)
{
    if (map.count % width == 0 && tuples_sorted(map, width)) {
        buffer_put_strings(out, map);
        return;
    }
    struct tuple *tuples = calloc(map.count / width + 1, sizeof(*tuples));
    if (tuples == NULL) {
        out->failed = true;
        return;
    }
    struct reader it = strings_begin(map);
    size_t count = 0;
    while (count < map.count / width && tuple_next(&it, width, &tuples[count])) {
        count++;
    }
    qsort(tuples, count, sizeof(*tuples), tuple_compare);

    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (i + 1 == count || !slice_equal(tuples[i].key, tuples[i + 1].key)) {
            tuples[kept++] = tuples[i];
        }
    }
    buffer_put_u8(out, 0);
    buffer_put_u32(out, (uint32_t)kept * width);
    for (size_t i = 0; i < kept; i++) {
        buffer_append_slice(out, tuples[i].packed);
    }
    free(tuples);
}

static struct strings map_read(struct reader *reader, uint32_t width)
{
    const struct strings map = reader_strings(reader);

    if (map.count % width != 0) {
        reader->failed = true;
    }
    return map;
}

static bool bool_read(struct reader *reader)
{
    const uint8_t value = reader_u8(reader);

    if (value > 1) {
        reader->failed = true;
    }
    return value == 1;
}

void catalog_node_encode(struct buffer *out, const struct catalog_node *node)
{
    buffer_put_u64(out, node->create_index);
    buffer_put_u64(out, node->modify_index);
    buffer_put_string(out, node->id);
    buffer_put_string(out, node->name);
    buffer_put_string(out, node->address);
    buffer_put_string(out, node->datacenter);
    map_put(out, node->tagged_addresses, PAIR_WIDTH);
    map_put(out, node->meta, PAIR_WIDTH);
}

static void node_read(struct reader *reader, struct catalog_node *out)
{
    *out = (struct catalog_node){0};
    out->create_index = reader_u64(reader);
    out->modify_index = reader_u64(reader);
    out->id = reader_string(reader);
    out->name = reader_string(reader);
    out->address = reader_string(reader);
    out->datacenter = reader_string(reader);
    out->tagged_addresses = map_read(reader, PAIR_WIDTH);
    out->meta = map_read(reader, PAIR_WIDTH);
}

bool catalog_node_decode(struct slice bytes, struct catalog_node *out)
{
    struct reader reader = reader_from(bytes);

    node_read(&reader, out);
    return reader_done(&reader);
}

void catalog_service_encode(struct buffer *out, const struct catalog_service *service)
{
    buffer_put_u64(out, service->create_index);
    buffer_put_u64(out, service->modify_index);
    buffer_put_string(out, service->node);
    buffer_put_string(out, service->kind);
    buffer_put_string(out, service->id);
    buffer_put_string(out, service->name);
    buffer_put_strings(out, service->tags);
    map_put(out, service->meta, PAIR_WIDTH);
    buffer_put_string(out, service->address);
    map_put(out, service->tagged_addresses, TRIPLE_WIDTH);
    buffer_put_u32(out, service->port);
    buffer_put_u32(out, service->weight_passing);
    buffer_put_u32(out, service->weight_warning);
    buffer_put_u8(out, service->enable_tag_override ? 1 : 0);
    buffer_put_string(out, service->extra);
}

static void service_read(struct reader *reader, struct catalog_service *out)
{
    *out = (struct catalog_service){0};
    out->create_index = reader_u64(reader);
    out->modify_index = reader_u64(reader);
    out->node = reader_string(reader);
    out->kind = reader_string(reader);
    out->id = reader_string(reader);
    out->name = reader_string(reader);
    out->tags = reader_strings(reader);
    out->meta = map_read(reader, PAIR_WIDTH);
    out->address = reader_string(reader);
    out->tagged_addresses = map_read(reader, TRIPLE_WIDTH);
    out->port = reader_u32(reader);
    out->weight_passing = reader_u32(reader);
    out->weight_warning = reader_u32(reader);
    out->enable_tag_override = bool_read(reader);
    out->extra = reader_string(reader);
}

bool catalog_service_decode(struct slice bytes, struct catalog_service *out)
{
    struct reader reader = reader_from(bytes);

    service_read(&reader, out);
    return reader_done(&reader);
}

void catalog_check_encode(struct buffer *out, const struct catalog_check *check)
{
    buffer_put_u64(out, check->create_index);
    buffer_put_u64(out, check->modify_index);
    buffer_put_string(out, check->node);
    buffer_put_string(out, check->id);
    buffer_put_string(out, check->name);
    buffer_put_string(out, check->status);
    buffer_put_string(out, check->notes);
    buffer_put_string(out, check->output);
    buffer_put_string(out, check->service_id);
    buffer_put_string(out, check->service_name);
    buffer_put_strings(out, check->service_tags);
    buffer_put_string(out, check->type);
    buffer_put_string(out, check->definition);
}

bool catalog_check_decode(struct slice bytes, struct catalog_check *out)
{
    struct reader reader = reader_from(bytes);

    *out = (struct catalog_check){0};
    out->create_index = reader_u64(&reader);
    out->modify_index = reader_u64(&reader);
    out->node = reader_string(&reader);
    out->id = reader_string(&reader);
    out->name = reader_string(&reader);
    out->status = reader_string(&reader);
    out->notes = reader_string(&reader);
    out->output = reader_string(&reader);
    out->service_id = reader_string(&reader);
    out->service_name = reader_string(&reader);
    out->service_tags = reader_strings(&reader);
    out->type = reader_string(&reader);
    out->definition = reader_string(&reader);
    return reader_done(&reader);
}

void catalog_registration_encode(struct buffer *out,
                                 const struct catalog_registration *registration)
{
    buffer_put_u8(out, registration->skip_node_update ? 1 : 0);
    buffer_put_u8(out, registration->has_service ? 1 : 0);
    catalog_node_encode(out, &registration->node);
    if (registration->has_service) {
        catalog_service_encode(out, &registration->service);
    }
    buffer_put_u32(out, registration->check_count);
    buffer_put_string(out, registration->checks);
}

bool catalog_registration_decode(struct slice bytes, struct catalog_registration *out)
{
    struct reader reader = reader_from(bytes);
    struct catalog_check check;

    *out = (struct catalog_registration){0};
    out->skip_node_update = bool_read(&reader);
    out->has_service = bool_read(&reader);
    node_read(&reader, &out->node);
    if (out->has_service) {
        service_read(&reader, &out->service);
    }
    out->check_count = reader_u32(&reader);
    out->checks = reader_string(&reader);
    if (!reader_done(&reader)) {
        return false;
    }

    struct reader checks = reader_from(out->checks);
    for (uint32_t i = 0; i < out->check_count; i++) {
        const struct slice bytes_one = reader_string(&checks);
        if (checks.failed || !catalog_check_decode(bytes_one, &check)) {
            return false;
        }
    }
    return reader_done(&checks);
}

bool catalog_check_is_passing(const struct catalog_check *check)
{
    return slice_equal(check->status, SLICE_LITERAL("passing"));
}

bool catalog_check_is_warning(const struct catalog_check *check)
{
    return slice_equal(check->status, SLICE_LITERAL("warning"));
}

bool catalog_check_is_critical(const struct catalog_check *check)
{
    return slice_equal(check->status, SLICE_LITERAL("critical"));
}

bool catalog_check_concerns(const struct catalog_check *check,
                            const struct catalog_service *service)
{
    return check->service_id.size == 0 || slice_equal_nocase(check->service_id, service->id);
}

bool catalog_ended_next(struct reader *it, struct uuid *id, struct slice *cause)
{
    if (it->failed || it->at == it->end) {
        return false;
    }
    const struct slice bytes = reader_bytes(it, UUID_BYTES);
    const struct slice text = reader_string(it);
    if (it->failed) {
        return false;
    }
    memcpy(id->bytes, bytes.data, UUID_BYTES);
    *cause = text;
    return true;
}
