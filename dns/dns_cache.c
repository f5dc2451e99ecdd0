/* What is kept between questions: the instances of services that were asked for more than once, all
 * that can be known of them before a question worked out. What addresses are called is kept with it
 * (dns_reverse.c). */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dns/dns_internal.h"

void *dns_cache_take(struct dns_cache *cache, size_t size)
{
    const size_t rounded = (size + 15) & ~(size_t)15;

    if (sizeof(cache->arena) - cache->arena_used < rounded) {
        return NULL;
    }
    void *place = cache->arena + cache->arena_used;

    cache->arena_used += rounded;
    return place;
}

/* Copies into the cache; false when it is full. */
static bool cache_copy(struct dns_cache *cache, struct slice *slice)
{
    char *copy = dns_cache_take(cache, slice->size);

    if (copy == NULL) {
        return false;
    }
    if (slice->size > 0) {
        memcpy(copy, slice->data, slice->size);
    }
    slice->data = copy;
    return true;
}

void dns_cache_flush(struct dns_cache *cache)
{
    cache->generation++;
    cache->arena_used = 0;
    cache->slot_count = 0;
    cache->reverse = DNS_REVERSE_UNASKED;
}

struct dns_cache *dns_cache_new(void)
{
    struct dns_cache *cache = calloc(1, sizeof(*cache)); /* untouched pages cost nothing */

    if (cache != NULL) {
        cache->generation = 1; /* Zeroed slots are of an older one. */
    }
    return cache;
}

void dns_cache_free(struct dns_cache *cache)
{
    free(cache);
}

void dns_cache_renew(struct dns_cache *cache, struct store_txn *txn)
{
    uint64_t versions[DNS_CACHE_VERSIONS];

    if (catalog_index_nodes(txn, &versions[0]) != 0 ||
        catalog_index_services(txn, &versions[1]) != 0 ||
        catalog_index_checks(txn, &versions[2]) != 0) {
        dns_cache_flush(cache);
        memset(cache->versions, 0xff, sizeof(cache->versions)); /* no index is that high */
        return;
    }
    if (memcmp(versions, cache->versions, sizeof(versions)) != 0) {
        dns_cache_flush(cache);
        memcpy(cache->versions, versions, sizeof(versions));
    }
}

static size_t cache_index(const struct dns_cache *cache, uint32_t hash, struct slice service)
{
    size_t index = hash & (DNS_CACHE_SLOTS - 1);

    for (;;) { /* Half of the slots stay empty, so this ends. */
        const struct dns_cache_slot *slot = &cache->slots[index];

        if (slot->generation != cache->generation ||
            (slot->hash == hash && slice_equal(slot->service, service))) {
            return index;
        }
        index = (index + 1) & (DNS_CACHE_SLOTS - 1);
    }
}

void dns_cache_note(struct dns_cache *cache, struct slice service, size_t count)
{
    const uint32_t hash = dns_hash(service.data, service.size);
    struct dns_cache_slot *slot = &cache->slots[cache_index(cache, hash, service)];
    struct slice name = service;

    if (slot->generation == cache->generation || count == 0 ||
        cache->slot_count == DNS_CACHE_SERVICES_MAX || !cache_copy(cache, &name)) {
        return;
    }
    cache->slot_count++;
    *slot = (struct dns_cache_slot){
        .generation = cache->generation, .hash = hash, .service = name, .instance_count = count};
}

static struct dns_name *cache_labels(struct dns_cache *cache, const uint8_t *labels, size_t size,
                                     struct dns_name *parent)
{
    struct dns_name *name = dns_cache_take(cache, sizeof(*name) + size);

    if (name == NULL) {
        return NULL;
    }
    uint8_t *copy = (uint8_t *)(name + 1);

    memcpy(copy, labels, size);
    *name = (struct dns_name){.labels = copy, .size = (uint16_t)size, .parent = parent};
    return name;
}

bool dns_cache_name(struct dns_cache *cache, struct slice text, struct dns_name *parent,
                    struct dns_name **out)
{
    uint8_t labels[DNS_NAME_BYTES_MAX];
    const size_t size = dns_labels_from_text(text, labels, sizeof(labels));

    if (size == 0 || size + dns_name_size(parent) > DNS_NAME_BYTES_MAX) {
        *out = NULL;
        return true;
    }
    *out = cache_labels(cache, labels, size, parent);
    return *out != NULL;
}

/* The name of the instance's node. Equal ones are one object, as the writer wants it. False when
 * memory is used up. */
static bool keep_node_name(struct dns_cache *cache, const struct dns_resolver *r,
                           const struct dns_instance *before, struct dns_instance *instance)
{
    if (before != NULL && before->node_index == instance->node_index) {
        instance->kept->node_name = before->kept->node_name;
        return true;
    }
    return dns_cache_name(cache, instance->node, &r->zone->node_name, &instance->kept->node_name);
}

static bool keep_instance(struct dns_cache *cache, const struct dns_resolver *r,
                          const struct dns_instance *before, struct dns_instance *instance)
{
    if (!cache_copy(cache, &instance->tags.packed) || !cache_copy(cache, &instance->node) ||
        !cache_copy(cache, &instance->node_address) ||
        !cache_copy(cache, &instance->node_tagged.packed) ||
        !cache_copy(cache, &instance->node_meta.packed) || !cache_copy(cache, &instance->address) ||
        !cache_copy(cache, &instance->tagged.packed)) {
        return false;
    }
    struct dns_kept *kept = dns_cache_take(cache, sizeof(*kept));

    if (kept == NULL) {
        return false;
    }
    *kept = (struct dns_kept){.node_name = NULL};
    for (int accept = 0; accept < DNS_ACCEPT_COUNT; accept++) {
        kept->places[accept] = dns_instance_place_plain(instance, (enum dns_accept)accept);
    }
    instance->kept = kept;
    return keep_node_name(cache, r, before, instance);
}

/* --- equal keys --- */

static_assert(DNS_CACHE_KEYS / 2 >=
                  DNS_CACHE_BYTES / (sizeof(struct dns_instance) + sizeof(struct dns_kept)),
              "half of the keys stay empty");

/* Empties as many as `count` instances need; returns how many. */
static size_t keys_begin(struct dns_cache *cache, size_t count)
{
    size_t key_count = 1;

    while (key_count < 2 * count) {
        key_count *= 2;
    }
    assert(key_count <= DNS_CACHE_KEYS);
    memset(cache->keys, 0, key_count * sizeof(cache->keys[0]));
    return key_count;
}

/* Which key of an instance: that of SRV records, or its address. Returns its size. */
static size_t keep_key(const struct dns_instance *instance, int accept,
                       uint8_t key[DNS_SRV_KEY_BYTES_MAX])
{
    const struct dns_place *place;

    if (accept == DNS_ACCEPT_COUNT) {
        return dns_instance_srv_key(instance, key);
    }
    place = &instance->kept->places[accept];
    if (place->kind != DNS_PLACE_IP) {
        return 0;
    }
    memcpy(key, place->ip.bytes, place->ip.size);
    return place->ip.size;
}

/* Where the first instance with the key of `list[index]` stands, or is to be put. */
static uint32_t *keys_find(struct dns_cache *cache, size_t key_count,
                           const struct dns_instance *list, size_t index, int accept)
{
    uint8_t key[DNS_SRV_KEY_BYTES_MAX], other[DNS_SRV_KEY_BYTES_MAX];
    const size_t size = keep_key(&list[index], accept, key);
    size_t at = dns_hash(key, size) & (key_count - 1);

    while (cache->keys[at] != 0) { /* Half of them stay empty, so this ends. */
        const struct dns_instance *first = &list[cache->keys[at] - 1];

        if (keep_key(first, accept, other) == size && memcmp(key, other, size) == 0) {
            break;
        }
        at = (at + 1) & (key_count - 1);
    }
    return &cache->keys[at];
}

/* The names of addresses in SRV records: equal ones are one object. False when memory is used up.
 */
static bool keep_ip_names(struct dns_cache *cache, const struct dns_resolver *r,
                          const struct dns_instance *list, size_t count)
{
    const size_t key_count = keys_begin(cache, count);
    uint8_t label[DNS_IP_LABEL_BYTES_MAX];

    for (size_t i = 0; i < count; i++) {
        struct dns_kept *kept = list[i].kept;
        const struct dns_place *place = &kept->places[DNS_ACCEPT_ANY];

        if (place->kind != DNS_PLACE_IP || !place->own) {
            continue;
        }
        uint32_t *key = keys_find(cache, key_count, list, i, DNS_ACCEPT_ANY);

        if (*key != 0) {
            kept->ip_name = list[*key - 1].kept->ip_name;
            continue;
        }
        const size_t size = dns_ip_label(&place->ip, label);

        if (size + dns_name_size(&r->zone->addr_name) > DNS_NAME_BYTES_MAX) {
            continue; /* It is too long below this domain, and refused when it is asked for. */
        }
        kept->ip_name = cache_labels(cache, label, size, &r->zone->addr_name);
        if (kept->ip_name == NULL) {
            return false;
        }
        *key = (uint32_t)(i + 1);
    }
    return true;
}

static bool *keep_alone(const struct dns_instance *instance, int accept)
{
    return accept == DNS_ACCEPT_COUNT ? &instance->kept->alone_srv : &instance->kept->alone[accept];
}

/* Finds out who shares a key with nobody: of those no two need ever be compared. */
static void keep_find_alone(struct dns_cache *cache, const struct dns_instance *list, size_t count,
                            int accept)
{
    const size_t key_count = keys_begin(cache, count);

    for (size_t i = 0; i < count; i++) {
        uint32_t *key = keys_find(cache, key_count, list, i, accept);

        *keep_alone(&list[i], accept) = *key == 0;
        if (*key != 0) {
            *keep_alone(&list[*key - 1], accept) = false;
        } else {
            *key = (uint32_t)(i + 1);
        }
    }
}

/* Host names may turn out to be addresses of others: where there is one, all are compared. */
static void keep_compare(struct dns_cache *cache, const struct dns_instance *list, size_t count)
{
    bool hosts = false;

    for (size_t i = 0; i < count && !hosts; i++) {
        for (int accept = 0; accept < DNS_ACCEPT_COUNT; accept++) {
            hosts = hosts || list[i].kept->places[accept].kind == DNS_PLACE_HOST;
        }
    }
    for (int accept = 0; accept < DNS_ACCEPT_COUNT && !hosts; accept++) {
        keep_find_alone(cache, list, count, accept);
    }
    keep_find_alone(cache, list, count, DNS_ACCEPT_COUNT);
}

/* Reads all instances of the service into `list`; false when there is no room. */
static bool cache_read(struct dns_cache *cache, struct dns_resolver *r,
                       const struct dns_cache_slot *slot, struct dns_instance *list)
{
    struct dns_reading reading;
    struct dns_instance instance;
    size_t count = 0;
    int rc = dns_reading_begin(&reading, r, slot->service);

    if (rc != 0) {
        return false;
    }
    while ((rc = dns_reading_next(&reading, r, &instance)) == 0) {
        assert(count < slot->instance_count); /* The catalog is as it was when they were counted. */
        if (!keep_instance(cache, r, count == 0 ? NULL : &list[count - 1], &instance)) {
            break;
        }
        list[count++] = instance;
    }
    catalog_scan_end(&reading.scan);
    if (rc != STORE_ENOTFOUND || r->failed) {
        return false;
    }
    assert(count == slot->instance_count);
    return true;
}

/* Keeps all instances of the service; when there is no room, none. */
static void cache_fill(struct dns_cache *cache, struct dns_resolver *r, struct dns_cache_slot *slot)
{
    const size_t arena_used = cache->arena_used;
    const size_t count = slot->instance_count;
    struct dns_instance *list = dns_cache_take(cache, count * sizeof(*list));
    struct dns_instance **healthy = dns_cache_take(cache, count * sizeof(struct dns_instance *));

    if (list == NULL || healthy == NULL || !cache_read(cache, r, slot, list) ||
        !keep_ip_names(cache, r, list, count)) {
        slot->refused = true;
        cache->arena_used = arena_used;
        return;
    }
    keep_compare(cache, list, count);
    for (size_t i = 0; i < count; i++) {
        if (dns_instance_is_healthy(r, &list[i])) {
            healthy[slot->healthy_count++] = &list[i];
        }
    }
    slot->instances = list;
    slot->healthy = healthy;
}

/* The second question for a service, in one state of the catalog, makes its instances be kept:
 * where all changes all the time, nothing is copied for nothing. */
const struct dns_cache_slot *dns_cache_get(struct dns_cache *cache, struct dns_resolver *r,
                                           struct slice service)
{
    const uint32_t hash = dns_hash(service.data, service.size);
    struct dns_cache_slot *slot = &cache->slots[cache_index(cache, hash, service)];

    if (slot->generation != cache->generation) {
        return NULL;
    }
    if (slot->instances == NULL && !slot->refused) {
        cache_fill(cache, r, slot);
    }
    return slot->instances == NULL ? NULL : slot;
}
