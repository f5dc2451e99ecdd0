/* The instances of a service: where they are, and how they are (NOTES-dns-cli, sections 4 and 5).
 */

#include <assert.h>
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

struct dns_place dns_instance_place_plain(const struct dns_instance *instance,
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
        *scratch = dns_instance_place_plain(instance, accept);
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

        if (check->state > worst && slice_equal_nocase(check->service_id, service_id)) {
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

int dns_reading_begin(struct dns_reading *reading, struct dns_resolver *r, struct slice service)
{
    reading->node_name = SLICE_EMPTY;
    reading->node_count = 0;
    reading->node_state = DNS_CHECK_CRITICAL;
    return catalog_instances_begin(&reading->scan, r->txn, service);
}

int dns_reading_next(struct dns_reading *reading, struct dns_resolver *r, struct dns_instance *out)
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

bool dns_instance_is_healthy(const struct dns_resolver *r, const struct dns_instance *instance)
{
    return instance->state != DNS_CHECK_CRITICAL &&
           (!r->zone->config.only_passing || instance->state == DNS_CHECK_PASSING);
}

/* Where the next instance of those that were `seen` belongs in the list, which begins at `first`:
 * when the list is full each of them has the same chance to be in it. False: nowhere. */
static bool collect_place(struct dns_resolver *r, size_t first, size_t *seen, size_t *index)
{
    (*seen)++;
    if (r->instance_count < DNS_INSTANCES_MAX) {
        *index = r->instance_count++;
        return true;
    }
    *index = first + dns_random_below(r, *seen);
    return *index < DNS_INSTANCES_MAX;
}

/* Reads the store. */
static size_t collect_read(struct dns_resolver *r, struct slice service, struct slice tag)
{
    const size_t first = r->instance_count;
    struct dns_reading reading;
    struct dns_instance instance;
    size_t seen = 0;
    size_t total = 0;
    size_t index;
    int rc = dns_reading_begin(&reading, r, service);

    if (!dns_store_read_ok(r, rc)) {
        return 0;
    }
    while ((rc = dns_reading_next(&reading, r, &instance)) == 0) {
        total++;
        if (dns_instance_is_healthy(r, &instance) &&
            (tag.size == 0 || strings_contain_nocase(instance.tags, tag)) &&
            collect_place(r, first, &seen, &index)) {
            r->instances[index] = instance;
            r->list[index] = &r->instances[index];
        }
    }
    (void)dns_store_read_ok(r, rc);
    catalog_scan_end(&reading.scan);
    r->look_count += total * DNS_CHAIN_READ_LOOKS;
    if (r->cache != NULL && !r->failed) {
        dns_cache_note(r->cache, service, total);
    }
    return r->instance_count - first;
}

/* Takes from what is kept. */
static size_t collect_kept(struct dns_resolver *r, const struct dns_cache_slot *slot,
                           struct slice tag)
{
    const size_t first = r->instance_count;
    size_t seen = 0;
    size_t index;

    r->look_count += slot->healthy_count;
    if (tag.size == 0 && slot->healthy_count <= DNS_INSTANCES_MAX - first) {
        memcpy(r->list + first, slot->healthy, slot->healthy_count * sizeof(r->list[0]));
        r->instance_count += slot->healthy_count;
        return slot->healthy_count;
    }
    for (size_t i = 0; i < slot->healthy_count; i++) {
        if ((tag.size == 0 || strings_contain_nocase(slot->healthy[i]->tags, tag)) &&
            collect_place(r, first, &seen, &index)) {
            r->list[index] = slot->healthy[i];
        }
    }
    return r->instance_count - first;
}

size_t dns_instances_collect(struct dns_resolver *r, struct slice service, struct slice tag)
{
    const struct dns_cache_slot *slot = NULL;

    if (r->zone->config.deny) {
        return 0;
    }
    if (r->cache != NULL) {
        slot = dns_cache_get(r->cache, r, service);
    }
    return slot != NULL ? collect_kept(r, slot, tag) : collect_read(r, service, tag);
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
