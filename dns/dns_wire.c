#include "dns/dns_wire.h"

#include <assert.h>
#include <string.h>

enum {
    LABEL_KIND_MASK = 0xc0,
    LABEL_POINTER = 0xc0,
    TYPE_AND_CLASS_BYTES = 4,
    OPTION_SUBNET = 8,
    SUBNET_HEADER_BYTES = 4,
    ANSWERS_IN_QUERY_MAX = 1,
    AUTHORITIES_IN_QUERY_MAX = 1,
    ADDITIONALS_IN_QUERY_MAX = 2,
    TXT_STRING_BYTES_MAX = 255,
    RECORD_HEAD_BYTES = 10, /* type, class, TTL, size */
};

/* --- reading --- */

struct dns_reader dns_reader_from(const void *message, size_t size)
{
    const uint8_t *bytes = message;

    return (struct dns_reader){.start = bytes, .at = bytes, .end = bytes + size};
}

size_t dns_reader_left(const struct dns_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

static void reader_fail(struct dns_reader *reader)
{
    reader->failed = true;
    reader->at = reader->end;
}

const uint8_t *dns_reader_bytes(struct dns_reader *reader, size_t size)
{
    const uint8_t *bytes = reader->at;

    if (reader->failed || dns_reader_left(reader) < size) {
        reader_fail(reader);
        return NULL;
    }
    reader->at += size;
    return bytes;
}

static uint16_t be16(const uint8_t *bytes)
{
    return (uint16_t)((bytes[0] << 8) | bytes[1]);
}

uint16_t dns_reader_u16(struct dns_reader *reader)
{
    const uint8_t *bytes = dns_reader_bytes(reader, 2);

    return bytes == NULL ? 0 : be16(bytes);
}

uint32_t dns_reader_u32(struct dns_reader *reader)
{
    const uint8_t *bytes = dns_reader_bytes(reader, 4);

    return bytes == NULL ? 0 : ((uint32_t)be16(bytes) << 16) | be16(bytes + 2);
}

/* Where a pointer leads, or NULL if that is no place for it to lead to. */
static const uint8_t *reader_pointer(struct dns_reader *reader, uint8_t first,
                                     const uint8_t *segment)
{
    const uint8_t *second = dns_reader_bytes(reader, 1);

    if (second == NULL) {
        return NULL;
    }
    const size_t offset = ((size_t)(first & ~LABEL_KIND_MASK) << 8) | *second;

    /* Strictly backwards: every jump shortens what is left, so it must end. */
    if (offset < DNS_HEADER_BYTES || offset >= (size_t)(segment - reader->start)) {
        return NULL;
    }
    return reader->start + offset;
}

void dns_reader_name(struct dns_reader *reader, struct dns_name_text *out)
{
    struct dns_reader local = *reader;
    const uint8_t *segment = local.at;
    const uint8_t *behind = NULL; /* of the first pointer: where the caller reads on */
    size_t size = 0;
    size_t label_count = 0;

    for (;;) { /* Each turn adds to `size`, which is bounded, or moves `segment` backwards. */
        const uint8_t *length = dns_reader_bytes(&local, 1);

        if (length == NULL) {
            break;
        }
        if ((*length & LABEL_KIND_MASK) == LABEL_POINTER) {
            const uint8_t *place = reader_pointer(&local, *length, segment);

            if (place == NULL) {
                break;
            }
            if (behind == NULL) {
                behind = local.at;
            }
            local.at = segment = place;
            continue;
        }
        if ((*length & LABEL_KIND_MASK) != 0 || size + 1 + *length > DNS_NAME_BYTES_MAX) {
            break;
        }
        if (*length == 0) {
            out->wire[size++] = 0;
            out->size = (uint8_t)size;
            out->label_count = (uint8_t)label_count;
            reader->at = behind != NULL ? behind : local.at;
            return;
        }
        if (dns_reader_bytes(&local, *length) == NULL || label_count == DNS_LABELS_MAX) {
            break;
        }
        out->labels[label_count++] = (uint8_t)size;
        memcpy(out->wire + size, length, (size_t)*length + 1);
        size += (size_t)*length + 1;
    }
    out->wire[0] = 0;
    out->size = 1;
    out->label_count = 0;
    reader_fail(reader);
}

void dns_reader_skip_name(struct dns_reader *reader)
{
    for (;;) { /* Each turn consumes a byte at least. */
        const uint8_t *length = dns_reader_bytes(reader, 1);

        if (length == NULL || *length == 0) {
            return;
        }
        if ((*length & LABEL_KIND_MASK) == LABEL_POINTER) {
            (void)dns_reader_bytes(reader, 1); /* A short read is kept in `failed`. */
            return;
        }
        if ((*length & LABEL_KIND_MASK) != 0) {
            reader_fail(reader);
            return;
        }
        (void)dns_reader_bytes(reader, *length);
    }
}

/* Clears the address bits behind the prefix (RFC 7871, 7.2.1: what is echoed must be cut). */
static void query_mask_subnet(struct dns_query *query)
{
    for (size_t i = 0; i < DNS_SUBNET_BYTES_MAX; i++) {
        const size_t bits_before = i * 8;

        if (query->subnet_bits <= bits_before) {
            query->subnet[i] = 0;
        } else if (query->subnet_bits < bits_before + 8) {
            const unsigned unused = (unsigned)(bits_before + 8 - query->subnet_bits);

            query->subnet[i] = (uint8_t)(query->subnet[i] & (0xffu << unused));
        }
    }
}

static bool query_parse_subnet(struct dns_reader *option, struct dns_query *query)
{
    const uint16_t family = dns_reader_u16(option);
    const uint8_t *bits = dns_reader_bytes(option, 2); /* source, scope */

    if (option->failed || family > 2) {
        return false;
    }
    const uint8_t bits_max = family == 0 ? 0 : (family == 1 ? 32 : 128);
    const size_t size = dns_reader_left(option);
    const size_t address_bytes = bits_max / 8;

    /* dig sends family 0 with 0 bits; then Consul does not look at the scope. */
    if (bits[0] > bits_max || (family != 0 && bits[1] > bits_max)) {
        return false;
    }
    memset(query->subnet, 0, sizeof(query->subnet));
    if (address_bytes > 0) {
        memcpy(query->subnet, option->at, size < address_bytes ? size : address_bytes);
    }
    query->has_subnet = true;
    query->subnet_family = family;
    query->subnet_bits = bits[0];
    query_mask_subnet(query);
    return true;
}

static bool query_parse_opt(struct dns_query *query, uint16_t size, const uint8_t *data,
                            size_t data_size)
{
    struct dns_reader reader = dns_reader_from(data, data_size);

    query->edns = true;
    query->edns_size = size;
    query->has_subnet = false; /* The last OPT record counts, as a whole. */
    while (dns_reader_left(&reader) > 0) {
        const uint16_t code = dns_reader_u16(&reader);
        const uint16_t length = dns_reader_u16(&reader);
        const uint8_t *bytes = dns_reader_bytes(&reader, length);

        if (bytes == NULL) {
            return false;
        }
        if (code == OPTION_SUBNET) {
            struct dns_reader option = dns_reader_from(bytes, length);

            if (!query_parse_subnet(&option, query)) {
                return false;
            }
        }
    }
    return true;
}

static bool query_parse_records(struct dns_reader *reader, struct dns_query *query, size_t count,
                                bool additional)
{
    for (size_t i = 0; i < count && dns_reader_left(reader) > 0; i++) {
        dns_reader_skip_name(reader);
        const uint16_t type = dns_reader_u16(reader);
        const uint16_t class = dns_reader_u16(reader);
        (void)dns_reader_u32(reader); /* TTL; of OPT: extended rcode, version, DO */
        const uint16_t size = dns_reader_u16(reader);
        const uint8_t *data = dns_reader_bytes(reader, size);

        if (data == NULL) {
            return false;
        }
        if (additional && type == DNS_OPT && !query_parse_opt(query, class, data, size)) {
            return false;
        }
    }
    return true;
}

static enum dns_verdict query_parse_question(struct dns_reader *reader, struct dns_query *query)
{
    if (dns_reader_left(reader) == 0) {
        return DNS_QUERY_NO_NAME;
    }
    dns_reader_name(reader, &query->name);
    /* A message may end between the parts of its question, and amid the last; what is missing is
     * zero. */
    query->type = dns_reader_left(reader) == 0 ? 0 : dns_reader_u16(reader);
    query->class = 0;
    if (dns_reader_left(reader) >= sizeof(query->class)) {
        query->class = dns_reader_u16(reader);
    } else {
        reader->at = reader->end;
    }
    if (reader->failed) {
        return DNS_QUERY_BAD;
    }
    query->has_question = true;
    return DNS_QUERY_GOOD;
}

enum dns_verdict dns_query_parse(const void *message, size_t size, struct dns_query *out)
{
    struct dns_reader reader = dns_reader_from(message, size);

    if (size < DNS_HEADER_BYTES) {
        return DNS_QUERY_IGNORE;
    }
    out->has_question = false;
    out->edns = false;
    out->has_subnet = false;
    out->id = dns_reader_u16(&reader);
    out->flags = dns_reader_u16(&reader);
    out->opcode = (uint8_t)((out->flags >> DNS_OPCODE_SHIFT) & 0xf);
    const uint16_t question_count = dns_reader_u16(&reader);
    const uint16_t answer_count = dns_reader_u16(&reader);
    const uint16_t authority_count = dns_reader_u16(&reader);
    const uint16_t additional_count = dns_reader_u16(&reader);

    assert(!reader.failed);
    if ((out->flags & DNS_FLAG_QR) != 0) {
        return DNS_QUERY_IGNORE;
    }
    if (out->opcode != DNS_OPCODE_QUERY && out->opcode != DNS_OPCODE_NOTIFY) {
        return DNS_QUERY_NOTIMP;
    }
    if (question_count != 1 || answer_count > ANSWERS_IN_QUERY_MAX ||
        authority_count > AUTHORITIES_IN_QUERY_MAX || additional_count > ADDITIONALS_IN_QUERY_MAX) {
        return DNS_QUERY_BAD;
    }
    const enum dns_verdict verdict = query_parse_question(&reader, out);

    if (verdict != DNS_QUERY_GOOD) {
        return verdict;
    }
    if (!query_parse_records(&reader, out, (size_t)answer_count + authority_count, false) ||
        !query_parse_records(&reader, out, additional_count, true)) {
        out->edns = false;
        return DNS_QUERY_BAD;
    }
    return DNS_QUERY_GOOD;
}

/* --- names to write --- */

size_t dns_name_size(const struct dns_name *name)
{
    size_t size = 1;

    for (; name != NULL; name = name->parent) {
        size += name->size;
    }
    return size;
}

size_t dns_labels_from_text(struct slice text, uint8_t *out, size_t out_bytes)
{
    size_t size = 0;
    size_t at = 0;

    if (text.size > 0 && text.data[text.size - 1] == '.') {
        text.size--;
    }
    if (text.size == 0 || text.size + 1 > out_bytes || text.size + 2 > DNS_NAME_BYTES_MAX) {
        return 0;
    }
    while (at <= text.size) { /* `at` begins a label, also the empty one behind a final dot */
        const char *dot = at < text.size ? memchr(text.data + at, '.', text.size - at) : NULL;
        const size_t length = (dot == NULL ? text.size : (size_t)(dot - text.data)) - at;

        if (length == 0 || length > DNS_LABEL_BYTES_MAX) {
            return 0;
        }
        out[size++] = (uint8_t)length;
        memcpy(out + size, text.data + at, length);
        size += length;
        at += length + 1;
    }
    assert(size == text.size + 1);
    return size;
}

/* --- writing --- */

/* Where to put `size` bytes; NULL when they do not fit or are only counted. */
static uint8_t *writer_take(struct dns_writer *writer, size_t size)
{
    if (writer->failed || writer->limit - writer->size < size) {
        writer->failed = true;
        return NULL;
    }
    uint8_t *place = writer->data == NULL ? NULL : writer->data + writer->size;

    writer->size += size;
    return place;
}

void dns_writer_u8(struct dns_writer *writer, uint8_t value)
{
    uint8_t *place = writer_take(writer, 1);

    if (place != NULL) {
        *place = value;
    }
}

static void put_u16(uint8_t *place, uint16_t value)
{
    place[0] = (uint8_t)(value >> 8);
    place[1] = (uint8_t)value;
}

void dns_writer_u16(struct dns_writer *writer, uint16_t value)
{
    uint8_t *place = writer_take(writer, 2);

    if (place != NULL) {
        put_u16(place, value);
    }
}

void dns_writer_u32(struct dns_writer *writer, uint32_t value)
{
    uint8_t *place = writer_take(writer, 4);

    if (place != NULL) {
        put_u16(place, (uint16_t)(value >> 16));
        put_u16(place + 2, (uint16_t)value);
    }
}

void dns_writer_bytes(struct dns_writer *writer, const void *data, size_t size)
{
    uint8_t *place = writer_take(writer, size);

    if (place != NULL && size > 0) {
        memcpy(place, data, size);
    }
}

void dns_writer_set_u16(struct dns_writer *writer, size_t offset, uint16_t value)
{
    assert(offset + 2 <= writer->size);
    if (writer->data != NULL) {
        put_u16(writer->data + offset, value);
    }
}

void dns_writer_name(struct dns_writer *writer, struct dns_name *name, bool pointers)
{
    for (; name != NULL; name = name->parent) {
        if (name->pass == writer->pass) {
            if (writer->compress && pointers) {
                dns_writer_u16(writer, (uint16_t)((LABEL_POINTER << 8) | name->offset));
                return;
            }
            if (name->flat != NULL) { /* What is remembered of it and its parents stays. */
                dns_writer_bytes(writer, name->flat, name->flat_size);
                return;
            }
        } else if (writer->size <= DNS_POINTER_OFFSET_MAX && name->size > 0) {
            name->pass = writer->pass;
            name->offset = (uint16_t)writer->size;
        }
        dns_writer_bytes(writer, name->labels, name->size);
    }
    dns_writer_u8(writer, 0);
}

/* --- records --- */

/* Writes text as the character strings of a TXT record, opening a new one each 255 bytes. */
struct txt_out {
    struct dns_writer *writer;
    size_t length_at; /* of the open string's length byte */
    size_t length;
};

static void txt_char(struct txt_out *txt, char c)
{
    if (txt->length == TXT_STRING_BYTES_MAX) {
        txt->length_at = txt->writer->size;
        txt->length = 0;
        dns_writer_u8(txt->writer, 0);
    }
    txt->length++;
    dns_writer_u8(txt->writer, (uint8_t)c);
    if (!txt->writer->failed && txt->writer->data != NULL) {
        txt->writer->data[txt->length_at] = (uint8_t)txt->length;
    }
}

/* RFC 1464: in the key '`' and '=' are quoted by '`', and so are its outer blanks. */
static void txt_key(struct txt_out *txt, struct slice key)
{
    size_t first = 0;
    size_t end = key.size;

    while (first < key.size && key.data[first] == ' ') {
        first++;
    }
    while (end > first && key.data[end - 1] == ' ') {
        end--;
    }
    for (size_t i = 0; i < key.size; i++) {
        const char c = key.data[i];

        if (c == '`' || c == '=' || i < first || i >= end) {
            txt_char(txt, '`');
        }
        txt_char(txt, c);
    }
    txt_char(txt, '=');
}

static void writer_txt(struct dns_writer *writer, const struct dns_record *record)
{
    struct txt_out txt = {.writer = writer, .length_at = writer->size};

    dns_writer_u8(writer, 0);
    if (record->txt.key_shown) {
        txt_key(&txt, record->txt.key);
    }
    for (size_t i = 0; i < record->txt.value.size; i++) {
        const char c = record->txt.value.data[i];

        if (record->txt.key_shown && c == '`') {
            txt_char(&txt, '`');
        }
        txt_char(&txt, c);
    }
}

static void writer_rdata(struct dns_writer *writer, const struct dns_record *record)
{
    uint8_t *place;

    if (record->foreign) {
        dns_writer_bytes(writer, record->data.bytes, record->data.size);
        return;
    }
    switch (record->type) {
    case DNS_A:
        place = writer_take(writer, 4);
        if (place != NULL) {
            memcpy(place, record->address, 4);
        }
        break;
    case DNS_AAAA:
        place = writer_take(writer, 16);
        if (place != NULL) {
            memcpy(place, record->address, 16);
        }
        break;
    case DNS_CNAME:
    case DNS_NS:
    case DNS_PTR:
        dns_writer_name(writer, record->target, true);
        break;
    case DNS_SRV:
        place = writer_take(writer, 6);
        if (place != NULL) {
            put_u16(place, 1); /* Consul gives every instance priority 1. */
            put_u16(place + 2, record->srv.weight);
            put_u16(place + 4, record->srv.port);
        }
        dns_writer_name(writer, record->srv.target, false);
        break;
    case DNS_TXT:
        writer_txt(writer, record);
        break;
    case DNS_SOA:
        dns_writer_name(writer, record->soa.server, true);
        dns_writer_name(writer, record->soa.mailbox, true);
        dns_writer_u32(writer, record->soa.serial);
        dns_writer_u32(writer, record->soa.refresh_s);
        dns_writer_u32(writer, record->soa.retry_s);
        dns_writer_u32(writer, record->soa.expire_s);
        dns_writer_u32(writer, record->soa.minimum_s);
        break;
    default:
        assert(false && "a type that we do not make");
    }
}

void dns_writer_record(struct dns_writer *writer, const struct dns_record *record)
{
    const size_t begin = writer->size;

    dns_writer_name(writer, record->owner, true);
    uint8_t *head = writer_take(writer, RECORD_HEAD_BYTES);
    const size_t data_at = writer->size;

    writer_rdata(writer, record);
    if (writer->failed || writer->size - data_at > UINT16_MAX) {
        writer->failed = true;
        writer->size = begin;
        return;
    }
    if (head != NULL) {
        put_u16(head, record->type);
        put_u16(head + 2, DNS_CLASS_IN);
        put_u16(head + 4, (uint16_t)(record->ttl_s >> 16));
        put_u16(head + 6, (uint16_t)record->ttl_s);
        put_u16(head + 8, (uint16_t)(writer->size - data_at));
    }
}

struct dns_record dns_record_meta(struct dns_name *owner, uint32_t ttl_s, struct slice key,
                                  struct slice value)
{
    const struct slice plain = SLICE_LITERAL("rfc1035-");
    const bool hidden =
        key.size >= plain.size && slice_equal_nocase(slice_from(key.data, plain.size), plain);

    return (struct dns_record){
        .owner = owner,
        .ttl_s = ttl_s,
        .type = DNS_TXT,
        .txt = {.key = key, .value = value, .key_shown = !hidden},
    };
}

static size_t subnet_bytes(const struct dns_query *query)
{
    return ((size_t)query->subnet_bits + 7) / 8;
}

size_t dns_opt_size(const struct dns_query *query)
{
    if (!query->edns) {
        return 0;
    }
    return DNS_OPT_BYTES + (query->has_subnet ? 4 + SUBNET_HEADER_BYTES + subnet_bytes(query) : 0);
}

/* Version 0, the asker's own size, DO cleared; of the options only the client subnet, with scope 0:
 * the answer holds for everyone. */
void dns_writer_opt(struct dns_writer *writer, const struct dns_query *query)
{
    const size_t size = dns_opt_size(query);

    assert(query->edns);
    dns_writer_u8(writer, 0);
    dns_writer_u16(writer, DNS_OPT);
    dns_writer_u16(writer, query->edns_size);
    dns_writer_u32(writer, 0);
    dns_writer_u16(writer, (uint16_t)(size - DNS_OPT_BYTES));
    if (query->has_subnet) {
        dns_writer_u16(writer, OPTION_SUBNET);
        dns_writer_u16(writer, (uint16_t)(SUBNET_HEADER_BYTES + subnet_bytes(query)));
        dns_writer_u16(writer, query->subnet_family);
        dns_writer_u8(writer, query->subnet_bits);
        dns_writer_u8(writer, 0);
        dns_writer_bytes(writer, query->subnet, subnet_bytes(query));
    }
}
