/* The pieces that answers are made of: memory for one answer, shared names, records. */

#include <assert.h>
#include <string.h>

#include "dns/dns_internal.h"

enum { ARENA_ALIGN = 16 };

void *dns_arena_take(struct dns_resolver *r, size_t size)
{
    const size_t rounded = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);

    if (rounded < size || sizeof(r->arena) - r->arena_used < rounded) {
        return NULL;
    }
    void *place = r->arena + r->arena_used;

    r->arena_used += rounded;
    return place;
}

static uint32_t hash_bytes(const uint8_t *bytes, size_t size, uint64_t hash)
{
    for (size_t i = 0; i < size; i++) { /* FNV-1a: short keys, nothing stored, nothing sent */
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
    hash ^= hash >> 32;
    return (uint32_t)(hash * 0x9e3779b1u);
}

uint32_t dns_hash(const void *bytes, size_t size)
{
    return hash_bytes(bytes, size, 0xcbf29ce484222325u);
}

struct dns_name *dns_name_make(struct dns_resolver *r, const uint8_t *labels, size_t size,
                               struct dns_name *parent)
{
    const uint32_t hash = hash_bytes(labels, size, (uint64_t)(uintptr_t)parent);
    size_t index = hash & (DNS_NAME_SLOTS - 1);

    if (size + dns_name_size(parent) > DNS_NAME_BYTES_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < DNS_NAME_SLOTS; i++) {
        struct dns_slot *slot = &r->names[index];

        if (slot->message != r->message) {
            struct dns_name *name = dns_arena_take(r, sizeof(*name) + size);

            if (name == NULL) {
                return NULL;
            }
            uint8_t *copy = (uint8_t *)(name + 1);

            memcpy(copy, labels, size);
            *name = (struct dns_name){.labels = copy, .size = (uint16_t)size, .parent = parent};
            *slot = (struct dns_slot){.message = r->message, .hash = hash, .name = name};
            return name;
        }
        if (slot->hash == hash && slot->name->size == size && slot->name->parent == parent &&
            memcmp(slot->name->labels, labels, size) == 0) {
            return slot->name;
        }
        index = (index + 1) & (DNS_NAME_SLOTS - 1);
    }
    return NULL;
}

/* Takes the parent's own labels off the end, if they are there and something is left before them.
 * `text` is what the labels were made from, a dot where each label but the first begins. */
static bool labels_take_end(const uint8_t *labels, size_t *size, struct slice text,
                            const struct dns_name *parent)
{
    if (parent->size == 0) { /* the domain is the root */
        return true;
    }
    if (*size <= parent->size ||
        memcmp(labels + *size - parent->size, parent->labels, parent->size) != 0 ||
        text.data[*size - parent->size - 1] != '.') {
        return false;
    }
    *size -= parent->size;
    return true;
}

/* The longest of the zone's names that these labels end in: so equal names are one object, however
 * they came about. NULL: they are not in the domain. */
static struct dns_name *zone_parent(struct dns_zone *zone, const uint8_t *labels, size_t *size,
                                    struct slice text)
{
    struct dns_name *const kinds[] = {&zone->node_name, &zone->addr_name, &zone->service_name};

    if (!labels_take_end(labels, size, text, &zone->domain_name)) {
        return NULL;
    }
    if (!labels_take_end(labels, size, text, &zone->datacenter_name)) {
        return &zone->domain_name;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (labels_take_end(labels, size, text, kinds[i])) {
            return kinds[i];
        }
    }
    return &zone->datacenter_name;
}

struct dns_name *dns_name_from_text(struct dns_resolver *r, struct slice text,
                                    struct dns_name *parent)
{
    uint8_t labels[DNS_NAME_BYTES_MAX];
    size_t size = dns_labels_from_text(text, labels, sizeof(labels));

    if (size == 0) {
        return NULL;
    }
    if (parent == NULL) {
        parent = zone_parent(r->zone, labels, &size, text);
    }
    return dns_name_make(r, labels, size, parent);
}

size_t dns_ip_label(const struct dns_ip *ip, uint8_t label[DNS_IP_LABEL_BYTES_MAX])
{
    static const char digits[] = "0123456789abcdef";

    assert(ip->size == 4 || ip->size == 16);
    label[0] = (uint8_t)(ip->size * 2);
    for (size_t i = 0; i < ip->size; i++) {
        label[1 + 2 * i] = (uint8_t)digits[ip->bytes[i] >> 4];
        label[2 + 2 * i] = (uint8_t)digits[ip->bytes[i] & 0xf];
    }
    return 1 + (size_t)ip->size * 2;
}

struct dns_name *dns_name_from_ip(struct dns_resolver *r, const struct dns_ip *ip)
{
    uint8_t label[DNS_IP_LABEL_BYTES_MAX];

    return dns_name_make(r, label, dns_ip_label(ip, label), &r->zone->addr_name);
}

bool dns_seen_first(struct dns_resolver *r, const void *key, size_t size)
{
    const uint32_t hash = hash_bytes(key, size, 0xcbf29ce484222325u);
    size_t index = hash & (DNS_NAME_SLOTS - 1);

    for (size_t i = 0; i < DNS_NAME_SLOTS; i++) {
        struct dns_slot *slot = &r->seen[index];

        if (slot->message != r->message) {
            uint8_t *copy = dns_arena_take(r, size);

            if (copy == NULL) {
                return false;
            }
            memcpy(copy, key, size);
            *slot = (struct dns_slot){
                .message = r->message, .hash = hash, .key = copy, .key_size = size};
            return true;
        }
        if (slot->hash == hash && slot->key_size == size && memcmp(slot->key, key, size) == 0) {
            return false;
        }
        index = (index + 1) & (DNS_NAME_SLOTS - 1);
    }
    return false;
}

bool dns_seen_address_first(struct dns_resolver *r, uint32_t list, const struct dns_ip *ip)
{
    uint8_t key[sizeof(list) + sizeof(ip->bytes)];

    memcpy(key, &list, sizeof(list));
    memcpy(key + sizeof(list), ip->bytes, ip->size);
    return dns_seen_first(r, key, sizeof(list) + ip->size);
}

/* Field by field: most of a record means nothing here, and there are many of these. */
void dns_record_set_address(struct dns_record *out, struct dns_name *owner, uint32_t ttl_s,
                            const struct dns_ip *ip)
{
    assert(ip->size == 4 || ip->size == 16);
    out->owner = owner;
    out->ttl_s = ttl_s;
    out->type = ip->size == 4 ? DNS_A : DNS_AAAA;
    out->foreign = false;
    memcpy(out->address, ip->bytes, sizeof(out->address));
}

struct dns_record dns_record_address(struct dns_name *owner, uint32_t ttl_s,
                                     const struct dns_ip *ip)
{
    struct dns_record record = {0};

    dns_record_set_address(&record, owner, ttl_s, ip);
    return record;
}

bool dns_record_from_digits(struct dns_resolver *r, struct slice digits, struct dns_name *owner,
                            struct dns_record *out)
{
    struct dns_ip ip = {.size = (uint8_t)(digits.size / 2)};

    if (digits.size != 2 * 4 && digits.size != 2 * 16) {
        return false;
    }
    for (size_t i = 0; i < digits.size; i++) {
        const char c = digits.data[i]; /* lower case already */
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

        if (digit < 0) {
            return false;
        }
        ip.bytes[i / 2] = (uint8_t)(i % 2 == 0 ? digit << 4 : ip.bytes[i / 2] | digit);
    }
    *out = dns_record_address(owner, r->zone->config.node_ttl_s, &ip);
    return true;
}

struct dns_record dns_record_soa(struct dns_resolver *r)
{
    const struct dns_config *config = &r->zone->config;

    return (struct dns_record){
        .owner = &r->zone->domain_name,
        .ttl_s = config->soa.min_ttl_s,
        .type = DNS_SOA,
        .soa = {.server = &r->zone->server_name,
                .mailbox = &r->zone->mailbox_name,
                .serial = (uint32_t)r->now_s,
                .refresh_s = config->soa.refresh_s,
                .retry_s = config->soa.retry_s,
                .expire_s = config->soa.expire_s,
                .minimum_s = config->soa.min_ttl_s},
    };
}

void dns_add_answer(struct dns_resolver *r, const struct dns_record *record)
{
    if (r->answer_count == DNS_ANSWERS_MAX) {
        r->clipped = true;
        return;
    }
    r->answers[r->answer_count++] = *record;
}

void dns_add_authority(struct dns_resolver *r, const struct dns_record *record)
{
    assert(r->authority_count < DNS_AUTHORITY_MAX);
    r->authority[r->authority_count++] = *record;
}

void dns_add_additional(struct dns_resolver *r, const struct dns_record *record)
{
    if (r->additional_count < DNS_ADDITIONAL_MAX) { /* Additional records may always be left out. */
        r->additional[r->additional_count++] = *record;
    }
}

size_t dns_random_below(struct dns_resolver *r, size_t bound)
{
    /* splitmix64 (Vigna): one step, any seed is good. */
    uint64_t z = (*r->random += 0x9e3779b97f4a7c15u);

    assert(bound > 0);
    assert(bound <= UINT32_MAX);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (size_t)(((z >> 32) * (uint64_t)bound) >> 32);
}
