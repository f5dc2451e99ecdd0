/* The instances of a service: where they are, how they are, and what is kept of them between
 * questions (NOTES-dns-cli, sections 4 and 5). */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dns/dns_internal.h"

bool dns_store_read_ok(struct dns_resolver *r, int rc)
{
    if (rc != 0 && rc != STORE_ENOTFOUND) {
        r->failed = true;
    }
    return rc == 0;
}

/* --- addresses --- */

enum dns_accept dns_accept_of(uint16_t type)
{
    switch (type) {
    case DNS_A:
        return DNS_ACCEPT_V4;
    case DNS_AAAA:
        return DNS_ACCEPT_V6;
    default:
        return DNS_ACCEPT_ANY;
    }
}

/* `stride` strings make one tagged address: the name first, then the address. */
static struct slice tagged_find(struct strings tagged, size_t stride, struct slice wanted)
{
    struct reader it = strings_begin(tagged);
    struct slice name, address, rest;

    while (strings_next(&it, &name) && strings_next(&it, &address)) {
        if (slice_equal(name, wanted)) {
            return address;
        }
        for (size_t i = 2; i < stride; i++) {
            (void)strings_next(&it, &rest); /* At the end the loop ends. */
        }
    }
    return SLICE_EMPTY;
}

/* Consul's choice: lan_ipv6 before lan_ipv4 before the plain address, as far as they are taken. */
struct slice dns_address_choose(struct slice plain, struct strings tagged, size_t stride,
                                enum dns_accept accept)
{
    struct dns_ip ip;

    if (tagged.count > 0) {
        const struct slice v6 = tagged_find(tagged, stride, SLICE_LITERAL("lan_ipv6"));
        const struct slice v4 = tagged_find(tagged, stride, SLICE_LITERAL("lan_ipv4"));

        if (accept != DNS_ACCEPT_V4 && v6.size > 0) {
            return v6;
        }
        if (accept != DNS_ACCEPT_V6 && v4.size > 0) {
            return v4;
        }
    }
    if (accept == DNS_ACCEPT_ANY || plain.size == 0 || !dns_ip_parse(plain, &ip)) {
        return plain; /* Host names are taken always. */
    }
    return (accept == DNS_ACCEPT_V4) == (ip.size == 4) ? plain : SLICE_EMPTY;
}

struct dns_place dns_node_place(struct slice address, struct strings tagged, enum dns_accept accept)
{
    const struct slice chosen = dns_address_choose(address, tagged, 2, accept);
    struct dns_place place = {.kind = DNS_PLACE_NONE};

    if (chosen.size == 0) {
        return place;
    }
    if (dns_ip_parse(chosen, &place.ip)) {
        place.kind = DNS_PLACE_IP;
        place.own = !slice_equal(chosen, address);
    } else {
        place.kind = DNS_PLACE_HOST;
        place.host = chosen;
    }
    return place;
}

static bool name_is_asked(struct slice host, const uint8_t *wire, size_t wire_size)
{
    uint8_t labels[DNS_NAME_BYTES_MAX];
    const size_t size = dns_labels_from_text(host, labels, sizeof(labels));

    return size > 0 && size + 1 == wire_size && memcmp(labels, wire, size) == 0;
}

/* Where the instance is, whatever name was asked for. */
static struct dns_place instance_place_plain(const struct dns_instance *instance,
                                             enum dns_accept accept)
{
    const struct slice chosen = dns_address_choose(instance->address, instance->tagged, 3, accept);
    struct dns_place place = {.kind = DNS_PLACE_NONE};

    if (chosen.size == 0) {
        /* An address of its own that does not fit is not replaced by the node's. */
        return instance->address.size > 0
                   ? place
                   : dns_node_place(instance->node_address, instance->node_tagged, accept);
    }
    if (dns_ip_parse(chosen, &place.ip)) {
        place.kind = DNS_PLACE_IP;
        place.own = true;
        return place;
    }
    place.kind = DNS_PLACE_HOST;
    place.own = true;
    place.host = chosen;
    return place;
}

const struct dns_place *dns_instance_place(const struct dns_instance *instance, uint16_t type,
                                           const uint8_t *wire, size_t wire_size,
                                           struct dns_place *scratch)
{
    const enum dns_accept accept = dns_accept_of(type);
    const struct dns_place *place = scratch;

    if (instance->kept != NULL) {
        place = &instance->kept->places[accept];
    } else {
        *scratch = instance_place_plain(instance, accept);
    }
    if (place->kind == DNS_PLACE_HOST && place->own &&
        name_is_asked(place->host, wire, wire_size)) {
        /* A service that is at its own name: where its node is. */
        const struct dns_place node =
            dns_node_place(instance->node_address, instance->node_tagged, accept);

        if (node.kind == DNS_PLACE_IP) {
            *scratch = node;
            return scratch;
        }
    }
    return place;
}

size_t dns_instance_srv_key(const struct dns_instance *instance, uint8_t key[DNS_SRV_KEY_BYTES_MAX])
{
    const struct slice address =
        dns_address_choose(instance->address, instance->tagged, 3, DNS_ACCEPT_ANY);
    const size_t head = sizeof(instance->node_index) + sizeof(instance->port);
    const size_t size =
        address.size < DNS_SRV_KEY_BYTES_MAX - head ? address.size : DNS_SRV_KEY_BYTES_MAX - head;

    memcpy(key, &instance->node_index, sizeof(instance->node_index));
    memcpy(key + sizeof(instance->node_index), &instance->port, sizeof(instance->port));
    if (size > 0) {
        memcpy(key + head, address.data, size);
    }
    return head + size;
}

struct dns_name *dns_instance_node_name(struct dns_resolver *r, const struct dns_instance *instance)
{
    return instance->kept != NULL ? instance->kept->node_name
                                  : dns_name_from_text(r, instance->node, &r->zone->node_name);
}

struct dns_name *dns_instance_ip_name(struct dns_resolver *r, const struct dns_instance *instance,
                                      const struct dns_ip *ip)
{
    return instance->kept != NULL && instance->kept->ip_name != NULL ? instance->kept->ip_name
                                                                     : dns_name_from_ip(r, ip);
}

/* --- instances and their health --- */

static enum dns_check_state check_state(const struct catalog_check *check)
{
    if (catalog_check_is_passing(check)) {
        return DNS_CHECK_PASSING;
    }
    if (catalog_check_is_warning(check)) {
        return DNS_CHECK_WARNING;
    }
    return catalog_check_is_critical(check) ? DNS_CHECK_CRITICAL : DNS_CHECK_ODD;
}

/* Reads a node's checks once: those that do not pass are remembered, the worst of the node's own
 * returned. A node with more bad checks than can be remembered counts as bad as a whole. */
static enum dns_check_state node_read_checks(struct dns_resolver *r, struct slice node)
{
    struct catalog_scan scan;
    struct catalog_check check;
    enum dns_check_state worst = DNS_CHECK_PASSING;
    int rc = catalog_checks_begin(&scan, r->txn, node);

    r->bad_check_count = 0;
    if (!dns_store_read_ok(r, rc)) {
        return DNS_CHECK_CRITICAL;
    }
    while ((rc = catalog_checks_next(&scan, &check)) == 0) {
        const enum dns_check_state state = check_state(&check);

        if (state == DNS_CHECK_PASSING) {
            continue;
        }
        if (check.service_id.size == 0 || r->bad_check_count == DNS_NODE_CHECKS_MAX) {
            worst = state > worst ? state : worst;
            continue;
        }
        r->bad_checks[r->bad_check_count++] =
            (struct dns_bad_check){.service_id = check.service_id, .state = state};
    }
    (void)dns_store_read_ok(r, rc);
    catalog_scan_end(&scan);
    return worst;
}

static enum dns_check_state instance_state(const struct dns_resolver *r, struct slice service_id,
                                           enum dns_check_state node_state)
{
    enum dns_check_state worst = node_state;

    for (size_t i = 0; i < r->bad_check_count; i++) {
        const struct dns_bad_check *check = &r->bad_checks[i];

        if (check->state > worst && slice_equal(check->service_id, service_id)) {
            worst = check->state;
        }
    }
    return worst;
}

static uint32_t instance_weight(const struct catalog_service *service, enum dns_check_state state)
{
    switch (state) {
    case DNS_CHECK_PASSING:
        return service->weight_passing;
    case DNS_CHECK_WARNING:
        return service->weight_warning;
    case DNS_CHECK_ODD:
    case DNS_CHECK_CRITICAL:
        break;
    }
    return 1;
}

/* Reads the next instance, its health with it, into `out`; `reading` is what the one before left.
 */
struct reading {
    struct catalog_scan scan;
    struct slice node_name; /* of the instance before */
    uint32_t node_count;
    enum dns_check_state node_state;
};

static int reading_begin(struct reading *reading, struct dns_resolver *r, struct slice service)
{
    reading->node_name = SLICE_EMPTY;
    reading->node_count = 0;
    reading->node_state = DNS_CHECK_CRITICAL;
    return catalog_instances_begin(&reading->scan, r->txn, service);
}

static int reading_next(struct reading *reading, struct dns_resolver *r, struct dns_instance *out)
{
    struct catalog_service service;
    struct catalog_node node;
    const int rc = catalog_instances_next(&reading->scan, &service, &node);

    if (rc != 0) {
        return rc;
    }
    if (!slice_equal(node.name, reading->node_name)) {
        reading->node_name = node.name;
        reading->node_state = node_read_checks(r, node.name);
        reading->node_count++;
    }
    const enum dns_check_state state = instance_state(r, service.id, reading->node_state);

    *out = (struct dns_instance){
        .node_index = reading->node_count,
        .port = service.port,
        .weight = instance_weight(&service, state),
        .state = state,
        .tags = service.tags,
        .node = node.name,
        .node_address = node.address,
        .node_tagged = node.tagged_addresses,
        .node_meta = node.meta,
        .address = service.address,
        .tagged = service.tagged_addresses,
    };
    return 0;
}

static bool instance_is_wanted(const struct dns_resolver *r, const struct dns_instance *instance,
                               struct slice tag)
{
    if (instance->state == DNS_CHECK_CRITICAL ||
        (r->zone->config.only_passing && instance->state != DNS_CHECK_PASSING)) {
        return false;
    }
    return tag.size == 0 || strings_contain_nocase(instance->tags, tag);
}

/* --- what is kept between questions --- */

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

/* Notes that the service was asked for and has `count` instances. Names that nothing is called by
 * are not noted: anybody may ask for those. */
static void cache_note(struct dns_cache *cache, struct slice service, size_t count)
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
        kept->places[accept] = instance_place_plain(instance, (enum dns_accept)accept);
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
    struct reading reading;
    struct dns_instance instance;
    size_t count = 0;
    int rc;

    if (list == NULL || reading_begin(&reading, r, slot->service) != 0) {
        cache->full = true;
        cache->arena_used = arena_used;
        return;
    }
    while ((rc = reading_next(&reading, r, &instance)) == 0) {
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

/* Reads the store. When the list is full each instance that was seen so far has the same chance to
 * be in it. */
static size_t collect_read(struct dns_resolver *r, struct slice service, struct slice tag)
{
    const size_t first = r->instance_count;
    struct reading reading;
    struct dns_instance instance;
    size_t seen = 0;
    size_t total = 0;
    int rc = reading_begin(&reading, r, service);

    if (!dns_store_read_ok(r, rc)) {
        return 0;
    }
    while ((rc = reading_next(&reading, r, &instance)) == 0) {
        total++;
        if (!instance_is_wanted(r, &instance, tag)) {
            continue;
        }
        seen++;
        if (r->instance_count < DNS_INSTANCES_MAX) {
            r->instances[r->instance_count] = instance;
            r->list[r->instance_count] = &r->instances[r->instance_count];
            r->instance_count++;
            continue;
        }
        const size_t index = dns_random_below(r, seen);

        if (index < DNS_INSTANCES_MAX - first) {
            r->instances[first + index] = instance;
        }
    }
    (void)dns_store_read_ok(r, rc);
    catalog_scan_end(&reading.scan);
    if (r->cache != NULL && !r->failed) {
        cache_note(r->cache, service, total);
    }
    return r->instance_count - first;
}

/* Takes from what is kept. */
static size_t collect_kept(struct dns_resolver *r, const struct dns_cache_slot *slot,
                           struct slice tag)
{
    const size_t first = r->instance_count;

    for (size_t i = 0; i < slot->instance_count && r->instance_count < DNS_INSTANCES_MAX; i++) {
        if (instance_is_wanted(r, &slot->instances[i], tag)) {
            r->list[r->instance_count++] = &slot->instances[i];
        }
    }
    return r->instance_count - first;
}

/* The second question for a service, in one state of the catalog, makes its instances be kept:
 * where all changes all the time, nothing is copied for nothing. */
size_t dns_instances_collect(struct dns_resolver *r, struct slice service, struct slice tag)
{
    struct dns_cache *cache = r->cache;

    if (r->zone->config.deny) {
        return 0;
    }
    if (cache != NULL) {
        const uint32_t hash = dns_hash(service.data, service.size);
        struct dns_cache_slot *slot = &cache->slots[cache_index(cache, hash, service)];

        if (slot->generation == cache->generation && slot->instances == NULL && !cache->full) {
            cache_fill(cache, r, slot);
        }
        if (slot->generation == cache->generation && slot->instances != NULL) {
            return collect_kept(r, slot, tag);
        }
    }
    return collect_read(r, service, tag);
}

const struct dns_instance *dns_instances_draw(struct dns_resolver *r, size_t first, size_t index,
                                              size_t count)
{
    struct dns_instance **list = r->list + first;
    const size_t other = index + dns_random_below(r, count - index);
    struct dns_instance *drawn = list[other];

    assert(first + count <= r->instance_count);
    list[other] = list[index];
    list[index] = drawn;
    return drawn;
}
