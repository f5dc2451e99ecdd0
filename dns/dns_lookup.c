/* Answers from the catalog (NOTES-dns-cli, sections 4 and 5): services, nodes, addresses, name
 * servers. */

#include <assert.h>
#include <string.h>

#include "dns/dns_internal.h"

/* What is asked about a service. */
struct ask {
    uint16_t type;
    uint32_t ttl_s;
    struct dns_name *owner;
    const uint8_t *wire; /* the name asked for, as spelled */
    size_t wire_size;
};

/* --- outcomes --- */

static void answer_unknown(struct dns_resolver *r)
{
    const struct dns_record soa = dns_record_soa(r);

    r->rcode = DNS_NXDOMAIN;
    dns_add_authority(r, &soa);
}

/* Whether a question of this type is answered with an address of this family at all. */
static bool type_takes(uint16_t type, const struct dns_ip *ip)
{
    switch (type) {
    case DNS_A:
        return ip->size == 4;
    case DNS_AAAA:
        return ip->size == 16;
    case DNS_ANY:
    case DNS_TXT:
    case DNS_SRV:
    case DNS_NS:
        return true;
    default:
        return false;
    }
}

/* --- services --- */

/* The chain behind a service's host name. */
static size_t service_chain(struct dns_resolver *r, struct slice host, uint32_t ttl_s,
                            struct dns_record *records)
{
    const size_t count = dns_chain_follow(r, host, true, ttl_s, records);

    return !r->query.edns && count > DNS_CHAIN_SERVICE_RECORDS ? DNS_CHAIN_SERVICE_RECORDS : count;
}

/* More records than this cannot be told to the client, so no more are made; one more than fits by
 * count shows that the answer was shortened. */
static size_t answers_wanted(const struct dns_resolver *r)
{
    enum { RECORD_BYTES_MIN = 16 };

    if (r->tcp) {
        return r->query.type == DNS_SRV ? DNS_TCP_SRV_ANSWERS_MAX : DNS_TCP_ANSWERS_MAX;
    }
    if (!r->query.edns || r->query.edns_size <= DNS_UDP_BYTES_DEFAULT) {
        return dns_zone_udp_answers_max(r->zone) + 1;
    }
    return r->query.edns_size / RECORD_BYTES_MIN + 1;
}

static_assert(UINT16_MAX / 16 + 1 < DNS_ANSWERS_MAX, "every answer that fits must be made");
static_assert(DNS_TCP_ANSWERS_MAX < DNS_ANSWERS_MAX, "every answer that fits must be made");

static void service_answer_addresses(struct dns_resolver *r, const struct ask *ask, size_t count)
{
    const size_t limit = r->zone->config.a_record_limit;
    const size_t wanted = answers_wanted(r);
    const size_t most = limit != 0 && limit < wanted ? limit : wanted;
    const enum dns_accept accept = dns_accept_of(ask->type);
    struct slice host = SLICE_EMPTY;

    assert(r->answer_count == 0);
    assert(most < DNS_ANSWERS_MAX);
    for (size_t i = 0; i < count && r->answer_count < most; i++) {
        const struct dns_instance *instance = dns_instances_draw(r, 0, i, count);
        struct dns_place scratch;
        const struct dns_place *place =
            dns_instance_place(instance, ask->type, ask->wire, ask->wire_size, &scratch);

        if (place->kind == DNS_PLACE_HOST && host.size == 0) {
            host = place->host;
        }
        if (place->kind != DNS_PLACE_IP || !type_takes(ask->type, &place->ip)) {
            continue;
        }
        if ((instance->kept != NULL && instance->kept->alone[accept]) ||
            dns_seen_address_first(r, 0, &place->ip)) {
            dns_record_set_address(&r->answers[r->answer_count++], ask->owner, ask->ttl_s,
                                   &place->ip);
        }
    }
    if (r->answer_count > 0 || host.size == 0) {
        return;
    }
    const struct dns_record cname = {.owner = ask->owner,
                                     .ttl_s = ask->ttl_s,
                                     .type = DNS_CNAME,
                                     .target = dns_name_from_text(r, host, NULL)};

    if (cname.target != NULL) {
        dns_add_answer(r, &cname);
        r->answer_count += service_chain(r, host, ask->ttl_s, r->answers + r->answer_count);
    }
}

/* The address records of an SRV target; false when there is no room for them. */
static bool srv_add_glue(struct dns_resolver *r, const struct ask *ask,
                         const struct dns_place *place, struct dns_record *srv)
{
    if (r->glue_count + DNS_CHAIN_RECORDS_MAX > DNS_GLUE_MAX) {
        return false;
    }
    srv->srv.glue_index = (uint32_t)r->glue_count;
    if (place->kind == DNS_PLACE_IP) {
        dns_record_set_address(&r->glue[r->glue_count++], srv->srv.target, ask->ttl_s, &place->ip);
    } else {
        r->glue_count += service_chain(r, place->host, ask->ttl_s, r->glue + r->glue_count);
    }
    srv->srv.glue_count = (uint32_t)(r->glue_count - srv->srv.glue_index);
    return true;
}

static bool srv_is_first(struct dns_resolver *r, const struct dns_instance *instance)
{
    uint8_t key[DNS_SRV_KEY_BYTES_MAX];

    return (instance->kept != NULL && instance->kept->alone_srv) ||
           dns_seen_first(r, key, dns_instance_srv_key(instance, key));
}

/* The name that an SRV record leads to; NULL when the instance is nowhere, or at what is no name in
 * DNS. */
static struct dns_name *srv_target(struct dns_resolver *r, const struct dns_instance *instance,
                                   const struct dns_place *place, struct dns_name *node)
{
    switch (place->kind) {
    case DNS_PLACE_IP:
        return place->own ? dns_instance_ip_name(r, instance, &place->ip) : node;
    case DNS_PLACE_HOST:
        return dns_name_from_text(r, place->host, NULL);
    case DNS_PLACE_NONE:
        break;
    }
    return NULL;
}

static void service_answer_srv(struct dns_resolver *r, const struct ask *ask, size_t count)
{
    const size_t wanted = answers_wanted(r);

    assert(wanted < DNS_ANSWERS_MAX);
    for (size_t i = 0; i < count && r->answer_count < wanted; i++) {
        const struct dns_instance *instance = dns_instances_draw(r, 0, i, count);

        if (!srv_is_first(r, instance)) {
            continue;
        }
        struct dns_place scratch;
        const struct dns_place *place =
            dns_instance_place(instance, ask->type, ask->wire, ask->wire_size, &scratch);
        struct dns_name *node = dns_instance_node_name(r, instance);
        struct dns_name *target = srv_target(r, instance, place, node);

        if (target == NULL) {
            continue;
        }
        struct dns_record *srv = &r->answers[r->answer_count];
        const bool meta = r->zone->config.node_meta_txt && instance->node_meta.count > 0;

        srv->owner = ask->owner;
        srv->ttl_s = ask->ttl_s;
        srv->type = DNS_SRV;
        srv->foreign = false;
        srv->srv.target = target;
        srv->srv.weight = (uint16_t)(instance->weight > UINT16_MAX ? UINT16_MAX : instance->weight);
        srv->srv.port = (uint16_t)instance->port;
        srv->srv.meta_owner = meta ? node : NULL;
        srv->srv.meta = instance->node_meta;
        if (!srv_add_glue(r, ask, place, srv)) {
            r->clipped = true;
            return;
        }
        r->answer_count++;
    }
}

void dns_lookup_service(struct dns_resolver *r, const struct dns_subject *subject)
{
    if (subject->service.size == 0 && !subject->datacenter_unknown) {
        r->rcode = DNS_SERVFAIL; /* Consul's own failure, for "_._tcp.service". */
        return;
    }
    const size_t count = subject->matchless || subject->datacenter_unknown
                             ? 0
                             : dns_instances_collect(r, subject->service, subject->tag);

    if (count == 0) {
        answer_unknown(r);
        return;
    }
    r->look_count = 0; /* From here on, for names. */
    const struct ask ask = {
        .type = r->query.type,
        .ttl_s = dns_zone_service_ttl_s(r->zone, subject->service),
        .owner = &r->question_name,
        .wire = r->query.name.wire,
        .wire_size = r->query.name.size,
    };

    r->service_answer = true;
    if (ask.type == DNS_SRV) {
        service_answer_srv(r, &ask, count);
    } else {
        service_answer_addresses(r, &ask, count);
    }
    if (r->answer_count == 0) {
        const struct dns_record soa = dns_record_soa(r);

        dns_add_authority(r, &soa);
    }
}

/* --- nodes, addresses --- */

bool dns_node_find(struct dns_resolver *r, const struct dns_subject *subject,
                   struct catalog_node *out)
{
    return !subject->matchless && !subject->datacenter_unknown && !r->zone->config.deny &&
           dns_store_read_ok(r, catalog_node_find(r->txn, subject->node, out));
}

static void node_add_meta(struct dns_resolver *r, const struct catalog_node *node)
{
    const bool in_answer = r->query.type == DNS_ANY || r->query.type == DNS_TXT;
    struct reader it = strings_begin(node->meta);
    struct slice key, value;

    if (!in_answer && !r->zone->config.node_meta_txt) {
        return;
    }
    while (strings_next(&it, &key) && strings_next(&it, &value)) {
        const struct dns_record record =
            dns_record_meta(&r->question_name, r->zone->config.node_ttl_s, key, value);

        if (in_answer) {
            dns_add_answer(r, &record);
        } else {
            dns_add_additional(r, &record);
        }
    }
}

/* Appends a node's address, or its host name and what that leads to; returns how many records. */
static size_t node_records(struct dns_resolver *r, const struct catalog_node *node, uint16_t type,
                           struct dns_name *owner, struct dns_record *records)
{
    const uint32_t ttl_s = r->zone->config.node_ttl_s;
    const struct dns_place place =
        dns_node_place(node->address, node->tagged_addresses, dns_accept_of(type));

    switch (place.kind) {
    case DNS_PLACE_IP:
        if (type_takes(type, &place.ip)) {
            records[0] = dns_record_address(owner, ttl_s, &place.ip);
            return 1;
        }
        break;
    case DNS_PLACE_HOST:
        records[0] = (struct dns_record){.owner = owner,
                                         .ttl_s = ttl_s,
                                         .type = DNS_CNAME,
                                         .target = dns_name_from_text(r, place.host, NULL)};
        if (records[0].target != NULL) {
            return 1 + dns_chain_follow(r, place.host, false, 0, records + 1);
        }
        break;
    case DNS_PLACE_NONE:
        break;
    }
    return 0;
}

void dns_lookup_node(struct dns_resolver *r, const struct dns_subject *subject)
{
    const uint16_t type = r->query.type;
    struct catalog_node node;

    if (type != DNS_A && type != DNS_AAAA && type != DNS_ANY && type != DNS_TXT) {
        return; /* Nothing, whether the node is there or not. */
    }
    if (!dns_node_find(r, subject, &node)) {
        answer_unknown(r);
        return;
    }
    if (type != DNS_TXT) {
        r->answer_count += node_records(r, &node, type, &r->question_name, r->answers);
    }
    node_add_meta(r, &node);
}

/* The owner of such records comes back in lower case. */
static struct dns_name *lower_question_name(struct dns_resolver *r)
{
    uint8_t lower[DNS_NAME_BYTES_MAX];
    const size_t size = r->question_name.size;

    for (size_t i = 0; i < size; i++) {
        lower[i] = (uint8_t)slice_lower((char)r->question_name.labels[i]);
    }
    return memcmp(lower, r->question_name.labels, size) == 0 ? &r->question_name
                                                             : dns_name_make(r, lower, size, NULL);
}

/* Consul looks at the size first, and at what it takes for digits only if that fits. */
static bool address_has_size(const struct dns_subject *subject)
{
    return subject->shown_size / 2 == 4 || subject->shown_size / 2 == 16;
}

void dns_lookup_address(struct dns_resolver *r, const struct dns_subject *subject)
{
    struct dns_record record;
    struct dns_name *owner = lower_question_name(r);

    if (!address_has_size(subject) || owner == NULL) {
        return;
    }
    if (!dns_record_from_digits(r, subject->address, owner, &record)) {
        answer_unknown(r);
        return;
    }
    dns_add_answer(r, &record);
}

/* --- name servers --- */

static bool is_host_label(struct slice name)
{
    for (size_t i = 0; i < name.size; i++) {
        const char c = slice_lower(name.data[i]);

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) {
            return false;
        }
    }
    return name.size > 0 && name.size <= DNS_LABEL_BYTES_MAX;
}

size_t dns_lookup_name_servers(struct dns_resolver *r, struct dns_record *records)
{
    const size_t count = dns_instances_collect(r, SLICE_LITERAL("consul"), SLICE_EMPTY);
    size_t record_count = 0;

    for (size_t i = 0; i < count && record_count < DNS_NAME_SERVERS_MAX; i++) {
        const struct dns_instance *instance = dns_instances_draw(r, 0, i, count);
        const struct catalog_node node = {.name = instance->node,
                                          .address = instance->node_address,
                                          .tagged_addresses = instance->node_tagged};
        char lower[DNS_LABEL_BYTES_MAX];

        if (!is_host_label(node.name)) {
            continue;
        }
        for (size_t j = 0; j < node.name.size; j++) {
            lower[j] = slice_lower(node.name.data[j]);
        }
        struct dns_name *target =
            dns_name_from_text(r, slice_from(lower, node.name.size), &r->zone->node_name);

        if (target == NULL) {
            continue;
        }
        records[record_count++] = (struct dns_record){.owner = &r->zone->domain_name,
                                                      .ttl_s = r->zone->config.node_ttl_s,
                                                      .type = DNS_NS,
                                                      .target = target};
        if (r->additional_count + DNS_CHAIN_RECORDS_MAX + 1 <= DNS_ADDITIONAL_MAX) {
            r->additional_count +=
                node_records(r, &node, DNS_ANY, target, r->additional + r->additional_count);
        }
    }
    return record_count;
}
