/* Names that lead to names: what is behind a host name that somebody registered as an address
 * (NOTES-dns-cli, section 5). */

#include <string.h>

#include "dns/dns_internal.h"

/* What a chain has come to. */
struct chain {
    struct dns_record *records; /* DNS_CHAIN_RECORDS_MAX */
    size_t count;
    bool in_service; /* a service led here: its TTL holds, metadata is left out */
    uint32_t ttl_s;  /* of that service */
    size_t service_begins[DNS_CHAIN_STEPS_MAX];
    size_t service_count;
    struct catalog_node nodes[DNS_CHAIN_STEPS_MAX]; /* whose metadata follow at the end */
    struct dns_name *node_owners[DNS_CHAIN_STEPS_MAX];
    size_t node_count;
};

static void chain_add(struct chain *chain, struct dns_record record)
{
    if (chain->count < DNS_CHAIN_RECORDS_MAX) {
        if (chain->in_service) {
            record.ttl_s = chain->ttl_s;
        }
        chain->records[chain->count++] = record;
    }
}

/* Adds a CNAME for the place; returns the name to go on with, empty when the chain ends here. */
static struct slice chain_add_host(struct dns_resolver *r, struct chain *chain,
                                   struct dns_name *owner, struct slice host)
{
    struct dns_name *target = dns_name_from_text(r, host, NULL);

    if (target == NULL) {
        return SLICE_EMPTY;
    }
    chain_add(chain, (struct dns_record){.owner = owner,
                                         .ttl_s = r->zone->config.node_ttl_s,
                                         .type = DNS_CNAME,
                                         .target = target});
    return host;
}

static struct slice chain_step_node(struct dns_resolver *r, struct chain *chain,
                                    const struct dns_subject *subject, struct dns_name *owner)
{
    struct catalog_node node;

    if (!dns_node_find(r, subject, &node)) {
        return SLICE_EMPTY;
    }
    const struct dns_place place =
        dns_node_place(node.address, node.tagged_addresses, DNS_ACCEPT_ANY);

    if (!chain->in_service) {
        chain->nodes[chain->node_count] = node;
        chain->node_owners[chain->node_count++] = owner;
    }
    switch (place.kind) {
    case DNS_PLACE_IP:
        chain_add(chain, dns_record_address(owner, r->zone->config.node_ttl_s, &place.ip));
        break;
    case DNS_PLACE_HOST:
        return chain_add_host(r, chain, owner, place.host);
    case DNS_PLACE_NONE:
        break;
    }
    return SLICE_EMPTY;
}

/* The addresses of a service's instances in random order, or the host name of one that has nothing
 * else. */
static struct slice chain_step_service(struct dns_resolver *r, struct chain *chain,
                                       const struct dns_subject *subject, struct dns_name *owner,
                                       const struct dns_name_text *name)
{
    const uint32_t list = ++r->list_count;
    const size_t first = r->instance_count;
    /* Else a question about many instances that lead to a name with many takes seconds. */
    const size_t count =
        subject->matchless || subject->datacenter_unknown || r->look_count >= DNS_CHAIN_LOOKS_MAX
            ? 0
            : dns_instances_collect(r, subject->service, subject->tag);
    const size_t begin = chain->count;
    const size_t limit = r->zone->config.a_record_limit;
    struct slice host = SLICE_EMPTY;

    if (!chain->in_service) {
        chain->in_service = true;
        chain->ttl_s = dns_zone_service_ttl_s(r->zone, subject->service);
    }
    chain->service_begins[chain->service_count++] = begin;
    for (size_t i = 0; i < count && chain->count - begin < dns_zone_udp_answers_max(r->zone) &&
                       (limit == 0 || chain->count - begin < limit);
         i++) {
        struct dns_place scratch;
        const struct dns_place *place = dns_instance_place(
            dns_instances_draw(r, first, i, count), DNS_ANY, name->wire, name->size, &scratch);

        if (place->kind == DNS_PLACE_HOST && host.size == 0) {
            host = place->host;
        } else if (place->kind == DNS_PLACE_IP && dns_seen_address_first(r, list, &place->ip)) {
            chain_add(chain, dns_record_address(owner, chain->ttl_s, &place->ip));
        }
    }
    r->instance_count = first;
    if (chain->count > begin || host.size == 0) {
        return SLICE_EMPTY;
    }
    return chain_add_host(r, chain, owner, host);
}

static void chain_step_foreign(struct dns_resolver *r, struct chain *chain,
                               const struct dns_name_text *name)
{
    struct dns_record records[DNS_CHAIN_RECORDS_MAX];
    const size_t count = dns_chase(r, name, chain->in_service, records, DNS_CHAIN_RECORDS_MAX);

    for (size_t i = 0; i < count; i++) {
        chain_add(chain, records[i]);
    }
}

/* One name further; returns the next, empty at the end. */
static struct slice chain_step(struct dns_resolver *r, struct chain *chain, struct slice text)
{
    struct dns_subject subject;
    struct dns_name_text name;
    struct dns_record record;
    struct dns_name *owner = dns_name_from_text(r, text, NULL);
    const size_t size = dns_labels_from_text(text, name.wire, sizeof(name.wire) - 1);

    if (owner == NULL || size == 0) {
        return SLICE_EMPTY;
    }
    name.wire[size] = 0;
    name.size = (uint8_t)(size + 1);
    name.label_count = 0;
    for (size_t at = 0; at < size; at += (size_t)name.wire[at] + 1) {
        name.labels[name.label_count++] = (uint8_t)at;
    }
    dns_subject_parse(r->zone, &name, DNS_ANY, &subject);
    subject.matchless = false; /* Registered like what it is compared with: nothing is escaped. */
    switch (subject.kind) {
    case DNS_SUBJECT_NODE:
        return chain_step_node(r, chain, &subject, owner);
    case DNS_SUBJECT_SERVICE:
        return chain_step_service(r, chain, &subject, owner, &name);
    case DNS_SUBJECT_ADDRESS:
        if (dns_record_from_digits(r, subject.address, owner, &record)) {
            chain_add(chain, record);
        }
        break;
    case DNS_SUBJECT_FOREIGN:
    case DNS_SUBJECT_REVERSE:
        chain_step_foreign(r, chain, &name);
        break;
    case DNS_SUBJECT_INVALID:
        break;
    }
    return SLICE_EMPTY;
}

size_t dns_chain_follow(struct dns_resolver *r, struct slice text, bool in_service, uint32_t ttl_s,
                        struct dns_record *records)
{
    struct chain chain = {.records = records, .in_service = in_service, .ttl_s = ttl_s};

    for (size_t step = 0; step < DNS_CHAIN_STEPS_MAX && text.size > 0; step++) {
        text = chain_step(r, &chain, text);
    }
    /* Each service on the way is asked as over UDP without EDNS, innermost first. */
    for (size_t i = chain.service_count; i > 0; i--) {
        const size_t begin = chain.service_begins[i - 1];

        if (chain.count > begin && records[begin].type == DNS_CNAME &&
            chain.count - begin - 1 > DNS_CHAIN_SERVICE_RECORDS) {
            chain.count = begin + 1 + DNS_CHAIN_SERVICE_RECORDS;
        }
        if (chain.count - begin > dns_zone_udp_answers_max(r->zone)) {
            chain.count = begin + dns_zone_udp_answers_max(r->zone);
        }
    }
    chain.in_service = false;
    for (size_t i = chain.node_count; i > 0; i--) {
        struct reader it = strings_begin(chain.nodes[i - 1].meta);
        struct slice key, value;

        while (strings_next(&it, &key) && strings_next(&it, &value)) {
            chain_add(&chain, dns_record_meta(chain.node_owners[i - 1], r->zone->config.node_ttl_s,
                                              key, value));
        }
    }
    return chain.count;
}
