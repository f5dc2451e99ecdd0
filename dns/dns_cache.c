/* What is kept between questions: the instances of services that were asked for more than once, all
 * that can be known of them before a question worked out. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dns/dns_internal.h"

static void *cache_take(struct dns_cache *cache, size_t size)
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
    char *copy = cache_take(cache, slice->size);

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
    cache->full = false;
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

    if (slot->generation == cache->generation || count == 0 || count > DNS_CACHE_INSTANCES_MAX) {
        return;
    }
    if (cache->slot_count == DNS_CACHE_SERVICES_MAX || !cache_copy(cache, &name)) {
        cache->full = true;
        return;
    }
    cache->slot_count++;
    *slot = (struct dns_cache_slot){
        .generation = cache->generation, .hash = hash, .service = name, .instance_count = count};
}

static struct dns_name *cache_name(struct dns_cache *cache, const uint8_t *labels, size_t size,
                                   struct dns_name *parent)
{
    struct dns_name *name = cache_take(cache, sizeof(*name) + size);

    if (name == NULL) {
        return NULL;
    }
    uint8_t *copy = (uint8_t *)(name + 1);

    memcpy(copy, labels, size);
    *name = (struct dns_name){.labels = copy, .size = (uint16_t)size, .parent = parent};
    return name;
}

/* The names that SRV records have for the instance: equal ones are one object, as the writer wants
 * it, so those before it are looked at. False when memory is used up. */
static bool keep_names(struct dns_cache *cache, struct dns_resolver *r,
                       const struct dns_instance *before, size_t count,
                       struct dns_instance *instance)
{
    struct dns_kept *kept = instance->kept;
    const struct dns_place *place = &kept->places[DNS_ACCEPT_ANY];
    uint8_t labels[DNS_NAME_BYTES_MAX];

    if (count > 0 && before[count - 1].node_index == instance->node_index) {
        kept->node_name = before[count - 1].kept->node_name;
    } else {
        const size_t size = dns_labels_from_text(instance->node, labels, sizeof(labels));

        /* A node whose name is none in DNS has none here, either. */
        if (size > 0 && size + dns_name_size(&r->zone->node_name) <= DNS_NAME_BYTES_MAX) {
            kept->node_name = cache_name(cache, labels, size, &r->zone->node_name);
            if (kept->node_name == NULL) {
                return false;
            }
        }
    }
    if (place->kind != DNS_PLACE_IP || !place->own) {
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        const struct dns_kept *other = before[i].kept;
        const struct dns_place *other_place = &other->places[DNS_ACCEPT_ANY];

        if (other->ip_name != NULL && other_place->ip.size == place->ip.size &&
            memcmp(other_place->ip.bytes, place->ip.bytes, place->ip.size) == 0) {
            kept->ip_name = other->ip_name;
            return true;
        }
    }
    const struct dns_name *name = dns_name_from_ip(r, &place->ip);

    kept->ip_name =
        name == NULL ? NULL : cache_name(cache, name->labels, name->size, &r->zone->addr_name);
    return kept->ip_name != NULL;
}

static bool keep_instance(struct dns_cache *cache, struct dns_resolver *r,
                          const struct dns_instance *list, size_t count,
                          struct dns_instance *instance)
{
    if (!cache_copy(cache, &instance->tags.packed) || !cache_copy(cache, &instance->node) ||
        !cache_copy(cache, &instance->node_address) ||
        !cache_copy(cache, &instance->node_tagged.packed) ||
        !cache_copy(cache, &instance->node_meta.packed) || !cache_copy(cache, &instance->address) ||
        !cache_copy(cache, &instance->tagged.packed)) {
        return false;
    }
    struct dns_kept *kept = cache_take(cache, sizeof(*kept));

    if (kept == NULL) {
        return false;
    }
    *kept = (struct dns_kept){.node_name = NULL};
    for (int accept = 0; accept < DNS_ACCEPT_COUNT; accept++) {
        kept->places[accept] = dns_instance_place_plain(instance, (enum dns_accept)accept);
    }
    instance->kept = kept;
    return keep_names(cache, r, list, count, instance);
}

/* A table of instances by a key; the first of each key is in it. */
struct key_table {
    uint16_t slots[2 * DNS_CACHE_INSTANCES_MAX]; /* index + 1; half of them stay empty */
};

static_assert(DNS_CACHE_INSTANCES_MAX < UINT16_MAX, "an index and one more fit a slot");

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

static bool *keep_alone(const struct dns_instance *instance, int accept)
{
    return accept == DNS_ACCEPT_COUNT ? &instance->kept->alone_srv : &instance->kept->alone[accept];
}

/* Finds out who shares a key with nobody: of those no two need ever be compared. */
static void keep_find_alone(const struct dns_instance *list, size_t count, int accept)
{
    struct key_table table = {{0}};
    const size_t slot_count = sizeof(table.slots) / sizeof(table.slots[0]);

    for (size_t i = 0; i < count; i++) {
        uint8_t key[DNS_SRV_KEY_BYTES_MAX], other[DNS_SRV_KEY_BYTES_MAX];
        const size_t size = keep_key(&list[i], accept, key);
        size_t slot = dns_hash(key, size) % slot_count;

        *keep_alone(&list[i], accept) = true;
        while (table.slots[slot] != 0) {
            const struct dns_instance *before = &list[table.slots[slot] - 1];

            if (keep_key(before, accept, other) == size && memcmp(key, other, size) == 0) {
                *keep_alone(&list[i], accept) = *keep_alone(before, accept) = false;
                break;
            }
            slot = (slot + 1) % slot_count;
        }
        if (table.slots[slot] == 0) {
            table.slots[slot] = (uint16_t)(i + 1);
        }
    }
}

/* Host names may turn out to be addresses of others: where there is one, all are compared. */
static void keep_compare(const struct dns_instance *list, size_t count)
{
    bool hosts = false;

    for (size_t i = 0; i < count && !hosts; i++) {
        for (int accept = 0; accept < DNS_ACCEPT_COUNT; accept++) {
            hosts = hosts || list[i].kept->places[accept].kind == DNS_PLACE_HOST;
        }
    }
    for (int accept = 0; accept < DNS_ACCEPT_COUNT && !hosts; accept++) {
        keep_find_alone(list, count, accept);
    }
    keep_find_alone(list, count, DNS_ACCEPT_COUNT);
}

/* Keeps all instances of the service; when there is no room, none. */
static void cache_fill(struct dns_cache *cache, struct dns_resolver *r, struct dns_cache_slot *slot)
{
    const size_t arena_used = cache->arena_used;
    struct dns_instance *list = cache_take(cache, slot->instance_count * sizeof(*list));
    struct dns_reading reading;
    struct dns_instance instance;
    size_t count = 0;
    int rc;

    if (list == NULL || dns_reading_begin(&reading, r, slot->service) != 0) {
        cache->full = true;
        cache->arena_used = arena_used;
        return;
    }
    while ((rc = dns_reading_next(&reading, r, &instance)) == 0) {
        assert(count < slot->instance_count); /* The catalog is as it was when they were counted. */
        if (!keep_instance(cache, r, list, count, &instance)) {
            break;
        }
        list[count++] = instance;
    }
    catalog_scan_end(&reading.scan);
    if (rc != STORE_ENOTFOUND || r->failed) {
        cache->full = true;
        cache->arena_used = arena_used;
        return;
    }
    assert(count == slot->instance_count);
    keep_compare(list, count);
    slot->instances = list;
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
    if (slot->instances == NULL && !cache->full) {
        cache_fill(cache, r, slot);
    }
    return slot->instances == NULL ? NULL : slot;
}
