/* Names outside the domain that answers lead to: what the recursors said about them, as records. */

#include <assert.h>
#include <string.h>

#include "dns/dns_internal.h"

enum { TYPE_MX = 15, TYPE_SIG = 24, TYPE_NXT = 30, TYPE_NAPTR = 35, TYPE_KX = 36 };

static bool names_equal(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    /* Length bytes are below 'A', so they compare as themselves. */
    return slice_equal_nocase(slice_from((const char *)a, a_size),
                              slice_from((const char *)b, b_size));
}

static void want(struct dns_resolver *r, const struct dns_name_text *name)
{
    for (size_t i = 0; i < r->wanted_count; i++) {
        if (names_equal(r->wanted[i].wire, r->wanted[i].size, name->wire, name->size)) {
            return;
        }
    }
    if (r->wanted_count < DNS_CHASED_MAX) {
        r->wanted[r->wanted_count].size = name->size;
        memcpy(r->wanted[r->wanted_count].wire, name->wire, name->size);
        r->wanted_count++;
    }
}

/* Types whose data may hold compressed names (RFC 3597, 4): their bytes mean nothing in another
 * message. */
static bool type_may_compress(uint16_t type)
{
    return (type >= DNS_NS && type <= 9) || type == DNS_PTR || (type >= 14 && type <= 18) ||
           type == 21 || type == TYPE_SIG || type == 26 || type == TYPE_NXT || type == DNS_SRV ||
           type == TYPE_NAPTR || type == TYPE_KX || type == 39 || type == DNS_OPT;
}

static struct dns_name *name_from_wire(struct dns_resolver *r, const struct dns_name_text *name)
{
    return dns_name_make(r, name->wire, (size_t)name->size - 1, NULL);
}

/* Fills `record` from its data; false when it is not taken. */
static bool chase_data(struct dns_resolver *r, const struct dns_reader *message,
                       const uint8_t *data, uint16_t size, bool addresses_only,
                       struct dns_record *record)
{
    struct dns_reader reader = *message;
    struct dns_name_text target;

    switch (record->type) {
    case DNS_A:
    case DNS_AAAA:
        if (size != (record->type == DNS_A ? 4 : 16)) {
            return false;
        }
        memcpy(record->address, data, size);
        return true;
    case DNS_CNAME:
        reader.at = data;
        dns_reader_name(&reader, &target);
        if (reader.failed || reader.at != data + size) {
            return false;
        }
        record->target = name_from_wire(r, &target);
        return record->target != NULL;
    default:
        if (addresses_only || type_may_compress(record->type)) {
            return false;
        }
        record->foreign = true;
        record->data.bytes = data;
        record->data.size = size;
        return true;
    }
}

static size_t chase_records(struct dns_resolver *r, const struct dns_chased *chased,
                            bool addresses_only, struct dns_record *records, size_t records_max)
{
    struct dns_reader reader = dns_reader_from(chased->answer, chased->answer_size);
    struct dns_name_text owner;
    size_t count = 0;

    (void)dns_reader_bytes(&reader, 4); /* id, flags: any answer ends the search */
    const uint16_t question_count = dns_reader_u16(&reader);
    const uint16_t answer_count = dns_reader_u16(&reader);

    (void)dns_reader_bytes(&reader, 4);
    for (size_t i = 0; i < question_count && !reader.failed; i++) {
        dns_reader_skip_name(&reader);
        (void)dns_reader_u32(&reader);
    }
    for (size_t i = 0; i < answer_count && count < records_max; i++) {
        struct dns_record record = {0};

        dns_reader_name(&reader, &owner);
        record.type = dns_reader_u16(&reader);
        const uint16_t class = dns_reader_u16(&reader);

        record.ttl_s = dns_reader_u32(&reader);
        const uint16_t size = dns_reader_u16(&reader);
        const uint8_t *data = dns_reader_bytes(&reader, size);

        if (data == NULL) { /* Cut: what came before it is good. */
            break;
        }
        if (class != DNS_CLASS_IN || !chase_data(r, &reader, data, size, addresses_only, &record)) {
            continue;
        }
        record.owner = name_from_wire(r, &owner);
        if (record.owner != NULL) {
            records[count++] = record;
        }
    }
    return count;
}

size_t dns_chase(struct dns_resolver *r, const struct dns_name_text *name, bool addresses_only,
                 struct dns_record *records, size_t records_max)
{
    if (r->zone->config.recursor_count == 0) {
        return 0;
    }
    for (size_t i = 0; i < r->chased_count; i++) {
        const struct dns_chased *chased = &r->chased[i];

        if (names_equal(chased->name, chased->name_size, name->wire, name->size)) {
            return chased->answer == NULL
                       ? 0
                       : chase_records(r, chased, addresses_only, records, records_max);
        }
    }
    want(r, name);
    return 0;
}
