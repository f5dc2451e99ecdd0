/* From one query to one answer. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dns/dns_internal.h"

struct dns_resolver *dns_resolver_new(void)
{
    /* Zeroed, so that no table entry belongs to a message; untouched pages cost nothing. */
    return calloc(1, sizeof(struct dns_resolver));
}

void dns_resolver_free(struct dns_resolver *resolver)
{
    free(resolver);
}

/* A header without sections, or with the question if that was read. */
static size_t answer_error(const struct dns_query *query, enum dns_rcode rcode, uint8_t opcode,
                           void *out, size_t out_bytes)
{
    struct dns_writer writer = {.data = out, .limit = out_bytes};
    const unsigned flags = DNS_FLAG_QR | (unsigned)(opcode << DNS_OPCODE_SHIFT) |
                           (query->flags & DNS_FLAG_RD) | (unsigned)rcode;

    dns_writer_u16(&writer, query->id);
    dns_writer_u16(&writer, (uint16_t)flags);
    dns_writer_u16(&writer, query->has_question ? 1 : 0);
    for (size_t i = 0; i < 3; i++) {
        dns_writer_u16(&writer, 0);
    }
    if (query->has_question) {
        dns_writer_bytes(&writer, query->name.wire, query->name.size);
        dns_writer_u16(&writer, query->type);
        dns_writer_u16(&writer, query->class);
    }
    return writer.failed ? 0 : writer.size;
}

static void resolver_begin(struct dns_resolver *r)
{
    r->message++;
    r->answer_count = 0;
    r->glue_count = 0;
    r->authority_count = 0;
    r->additional_count = 0;
    r->instance_count = 0;
    r->list_count = 0;
    r->look_count = 0;
    r->arena_used = 0;
    r->service_answer = false;
    r->clipped = false;
    r->failed = false;
    r->from_store = r->subject.kind != DNS_SUBJECT_FOREIGN;
    r->rcode = DNS_NOERROR;
    r->edns_echo = true;
    r->flags = DNS_FLAG_AA;
    if (r->zone->config.recursor_count > 0 || r->zone->config.advertise_ra) {
        r->flags |= DNS_FLAG_RA;
    }
    r->question_name =
        (struct dns_name){.labels = r->query.name.wire, .size = (uint16_t)(r->query.name.size - 1)};
}

/* The domain itself and its name servers, whatever name below it was asked about. */
static void answer_zone(struct dns_resolver *r)
{
    struct dns_record servers[DNS_NAME_SERVERS_MAX];
    const struct dns_record soa = dns_record_soa(r);
    const size_t count = dns_lookup_name_servers(r, servers);

    if (r->query.type == DNS_SOA) {
        dns_add_answer(r, &soa);
    }
    for (size_t i = 0; i < count; i++) {
        if (r->query.type == DNS_SOA) {
            dns_add_authority(r, &servers[i]);
        } else {
            dns_add_answer(r, &servers[i]);
        }
    }
}

static void answer_in_domain(struct dns_resolver *r)
{
    const struct dns_subject *subject = &r->subject;
    const struct dns_record soa = dns_record_soa(r);

    switch (subject->kind) {
    case DNS_SUBJECT_SERVICE:
        dns_lookup_service(r, subject);
        break;
    case DNS_SUBJECT_NODE:
        dns_lookup_node(r, subject);
        break;
    case DNS_SUBJECT_ADDRESS:
        dns_lookup_address(r, subject);
        break;
    case DNS_SUBJECT_INVALID:
        r->rcode = DNS_NXDOMAIN;
        dns_add_authority(r, &soa);
        break;
    case DNS_SUBJECT_FOREIGN:
    case DNS_SUBJECT_REVERSE:
        assert(false && "not in the domain");
        break;
    }
}

/* The answer for when no recursor has one: reverse names, and all names where recursors are set,
 * fail; others are refused. */
static void answer_not_ours(struct dns_resolver *r)
{
    const bool reverse = r->subject.kind == DNS_SUBJECT_REVERSE;

    r->forward = r->zone->config.recursor_count > 0;
    if (reverse || r->zone->config.recursor_count > 0) {
        r->rcode = DNS_SERVFAIL;
        r->flags = DNS_FLAG_RA;
    } else {
        r->rcode = DNS_REFUSED;
        r->flags = 0;
        r->edns_echo = false;
    }
}

static void answer_question(struct dns_resolver *r)
{
    const uint16_t type = r->query.type;

    switch (r->subject.kind) {
    case DNS_SUBJECT_FOREIGN:
        answer_not_ours(r);
        break;
    case DNS_SUBJECT_REVERSE:
        if (r->txn == NULL || !dns_lookup_reverse(r)) {
            answer_not_ours(r);
        }
        break;
    case DNS_SUBJECT_INVALID:
    case DNS_SUBJECT_SERVICE:
    case DNS_SUBJECT_NODE:
    case DNS_SUBJECT_ADDRESS:
        if (type == DNS_AXFR) {
            r->rcode = DNS_NOTIMP;
        } else if (r->txn == NULL) {
            r->failed = true;
        } else if (type == DNS_SOA || type == DNS_NS) {
            answer_zone(r);
        } else {
            answer_in_domain(r);
        }
        break;
    }
    if (r->failed) { /* Half an answer would be a wrong one. */
        r->rcode = DNS_SERVFAIL;
        r->answer_count = 0;
        r->authority_count = 0;
        r->additional_count = 0;
    }
}

size_t dns_resolver_answer(struct dns_resolver *r, struct dns_zone *zone, struct store_txn *txn,
                           const void *query, size_t query_size, bool tcp, uint64_t now_s,
                           uint64_t *random, void *out, size_t out_bytes)
{
    const enum dns_verdict verdict = dns_query_parse(query, query_size, &r->query);

    r->forward = false;
    r->wanted_count = 0;
    r->from_store = false;
    switch (verdict) {
    case DNS_QUERY_IGNORE:
        return 0;
    case DNS_QUERY_BAD:
        return answer_error(&r->query, DNS_FORMERR, DNS_OPCODE_QUERY, out, out_bytes);
    case DNS_QUERY_NOTIMP:
        return answer_error(&r->query, DNS_NOTIMP, r->query.opcode, out, out_bytes);
    case DNS_QUERY_NO_NAME:
        return answer_error(&r->query, DNS_REFUSED, r->query.opcode, out, out_bytes);
    case DNS_QUERY_GOOD:
        break;
    }
    r->zone = zone;
    r->txn = txn;
    r->tcp = tcp;
    r->now_s = now_s;
    r->random = random;
    dns_subject_parse(zone, &r->query.name, r->query.type, &r->subject);
    resolver_begin(r);
    answer_question(r);
    return dns_message_write(r, out, out_bytes);
}

size_t dns_answer(struct store_txn *txn, const struct dns_config *config, const void *query,
                  size_t query_size, bool tcp, uint64_t now_s, uint64_t *random, void *out,
                  size_t out_bytes)
{
    struct dns_zone *zone = dns_zone_new(config);
    struct dns_resolver *resolver = dns_resolver_new();
    size_t size = 0;

    if (zone != NULL && resolver != NULL) {
        size = dns_resolver_answer(resolver, zone, txn, query, query_size, tcp, now_s, random, out,
                                   out_bytes);
    }
    dns_resolver_free(resolver);
    dns_zone_free(zone);
    return size;
}
