/* Names of addresses (NOTES-dns-cli, section 5): the first node that has one, else the first
 * service of which it is the own address. */

#include <string.h>

#include "dns/dns_internal.h"

/* --- from the store --- */

static bool text_is_ip(struct slice text, const struct dns_ip *ip)
{
    struct dns_ip other;

    return dns_ip_parse(text, &other) && other.size == ip->size &&
           memcmp(other.bytes, ip->bytes, ip->size) == 0;
}

static struct dns_name *reverse_read_nodes(struct dns_resolver *r, const struct dns_ip *ip)
{
    struct catalog_scan scan;
    struct catalog_node node;
    struct dns_name *found = NULL;
    int rc = catalog_nodes_begin(&scan, r->txn);

    if (!dns_store_read_ok(r, rc)) {
        return NULL;
    }
    while (found == NULL && (rc = catalog_nodes_next(&scan, &node)) == 0) {
        if (text_is_ip(node.address, ip)) {
            found = dns_name_from_text(r, node.name, &r->zone->node_name);
        }
    }
    (void)dns_store_read_ok(r, rc);
    catalog_scan_end(&scan);
    return found;
}

static struct dns_name *reverse_read_services(struct dns_resolver *r, const struct dns_ip *ip)
{
    struct catalog_scan scan;
    struct catalog_service service;
    struct dns_name *found = NULL;
    int rc = catalog_services_begin(&scan, r->txn, SLICE_EMPTY);

    if (!dns_store_read_ok(r, rc)) {
        return NULL;
    }
    while (found == NULL && (rc = catalog_services_next(&scan, &service)) == 0) {
        if (service.address.size > 0 && text_is_ip(service.address, ip)) {
            found = dns_name_from_text(r, service.name, &r->zone->service_name);
        }
    }
    (void)dns_store_read_ok(r, rc);
    catalog_scan_end(&scan);
    return found;
}

/* --- kept --- */

/* The entry of an address, or the end of the list where it is to be put. */
static struct dns_reverse **reverse_find(struct dns_cache *cache, const struct dns_ip *ip)
{
    struct dns_reverse **at =
        &cache->reverse_slots[dns_hash(ip->bytes, ip->size) & (DNS_REVERSE_SLOTS - 1)];

    while (*at != NULL &&
           ((*at)->ip.size != ip->size || memcmp((*at)->ip.bytes, ip->bytes, ip->size) != 0)) {
        at = &(*at)->next;
    }
    return at;
}

/* Notes what has this address, unless something before has it; false when memory is used up. */
static bool reverse_keep(struct dns_cache *cache, struct slice address, struct slice text,
                         struct dns_name *parent)
{
    struct dns_ip ip;

    if (!dns_ip_parse(address, &ip)) {
        return true;
    }
    struct dns_reverse **at = reverse_find(cache, &ip);
    struct dns_name *name = NULL;

    if (*at != NULL) {
        return true;
    }
    if (!dns_cache_name(cache, text, parent, &name)) {
        return false;
    }
    if (name == NULL) { /* What is no name in DNS does not stand before others. */
        return true;
    }
    struct dns_reverse *entry = dns_cache_take(cache, sizeof(*entry));

    if (entry == NULL) {
        return false;
    }
    *entry = (struct dns_reverse){.ip = ip, .name = name};
    *at = entry;
    return true;
}

static bool reverse_keep_nodes(struct dns_cache *cache, struct dns_resolver *r)
{
    struct catalog_scan scan;
    struct catalog_node node;
    int rc = catalog_nodes_begin(&scan, r->txn);

    if (!dns_store_read_ok(r, rc)) {
        return rc == STORE_ENOTFOUND;
    }
    while ((rc = catalog_nodes_next(&scan, &node)) == 0) {
        if (!reverse_keep(cache, node.address, node.name, &r->zone->node_name)) {
            break;
        }
    }
    (void)dns_store_read_ok(r, rc);
    catalog_scan_end(&scan);
    return rc == STORE_ENOTFOUND;
}

static bool reverse_keep_services(struct dns_cache *cache, struct dns_resolver *r)
{
    struct catalog_scan scan;
    struct catalog_service service;
    int rc = catalog_services_begin(&scan, r->txn, SLICE_EMPTY);

    if (!dns_store_read_ok(r, rc)) {
        return rc == STORE_ENOTFOUND;
    }
    while ((rc = catalog_services_next(&scan, &service)) == 0) {
        if (!reverse_keep(cache, service.address, service.name, &r->zone->service_name)) {
            break;
        }
    }
    (void)dns_store_read_ok(r, rc);
    catalog_scan_end(&scan);
    return rc == STORE_ENOTFOUND;
}

/* The second question about any address, in one state of the catalog, makes all be kept: one that
 * is nobody's costs a look at every node and service otherwise. */
static bool reverse_is_kept(struct dns_cache *cache, struct dns_resolver *r)
{
    const size_t arena_used = cache->arena_used;

    switch (cache->reverse) {
    case DNS_REVERSE_UNASKED:
        cache->reverse = DNS_REVERSE_ASKED;
        return false;
    case DNS_REVERSE_ASKED:
        memset(cache->reverse_slots, 0, sizeof(cache->reverse_slots));
        if (reverse_keep_nodes(cache, r) && reverse_keep_services(cache, r)) {
            cache->reverse = DNS_REVERSE_KEPT;
            return true;
        }
        cache->arena_used = arena_used;
        cache->reverse = DNS_REVERSE_REFUSED;
        return false;
    case DNS_REVERSE_KEPT:
        return true;
    case DNS_REVERSE_REFUSED:
        break;
    }
    return false;
}

/* --- answers --- */

static struct dns_name *reverse_name(struct dns_resolver *r, const struct dns_ip *ip)
{
    if (r->cache != NULL && reverse_is_kept(r->cache, r)) {
        const struct dns_reverse *entry = *reverse_find(r->cache, ip);

        return entry == NULL ? NULL : entry->name;
    }
    struct dns_name *name = reverse_read_nodes(r, ip);

    return name != NULL ? name : reverse_read_services(r, ip);
}

bool dns_lookup_reverse(struct dns_resolver *r)
{
    struct dns_ip ip;
    struct dns_record record = {.owner = &r->question_name, .type = DNS_PTR};

    if (r->zone->config.deny || !dns_ip_from_reverse(&r->query.name, &ip)) {
        return false;
    }
    record.target = reverse_name(r, &ip);
    if (record.target == NULL) {
        return false;
    }
    dns_add_answer(r, &record);
    if (r->query.type == DNS_SOA) {
        const struct dns_record soa = dns_record_soa(r);

        dns_add_authority(r, &soa);
    }
    return true;
}
