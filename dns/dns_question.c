/* Which names exist, and what they ask for (NOTES-dns-cli, section 3): the grammar of names below
 * the domain, and of reverse names. */

#include <arpa/inet.h>
#include <assert.h>
#include <string.h>

#include "dns/dns_internal.h"

enum { IP_TEXT_BYTES_MAX = 64, ARPA_V4_LABELS = 6, ARPA_V6_LABELS = 34 };

static struct slice label_at(const uint8_t *wire, const struct dns_name_text *name, size_t index)
{
    const uint8_t *label = wire + name->labels[index];

    return slice_from((const char *)label + 1, label[0]);
}

/* Index of the first label of `suffix` in the name, or -1 if the name does not end in it. */
static int suffix_begins_at(const uint8_t *lower, const struct dns_name_text *name,
                            const struct dns_suffix *suffix)
{
    if (suffix->size == 0 || suffix->size > name->size) {
        return -1;
    }
    const size_t offset = name->size - suffix->size;

    if (memcmp(lower + offset, suffix->wire, suffix->size) != 0) {
        return -1;
    }
    if (suffix->size == 1) {
        return name->label_count;
    }
    for (int i = name->label_count - 1; i >= 0 && name->labels[i] >= offset; i--) {
        if (name->labels[i] == offset) {
            return i;
        }
    }
    return -1; /* The bytes agree, but not at a label's begin. */
}

/* Bytes that Consul's library shows escaped, and so never finds among registered names; how many
 * more it shows for one. */
static size_t escape_bytes(uint8_t byte)
{
    if (byte < '!' || byte > '~') {
        return sizeof("\\000") - 2;
    }
    return strchr(".'();@\"\\", byte) != NULL ? 1 : 0;
}

/* Joins labels [begin, end) with dots into `out`; returns the text. */
static struct slice join_labels(struct dns_subject *subject, size_t *used, const uint8_t *lower,
                                const struct dns_name_text *name, size_t begin, size_t end)
{
    char *out = subject->text + *used;
    size_t size = 0;

    for (size_t i = begin; i < end; i++) {
        const struct slice label = label_at(lower, name, i);

        assert(*used + size + label.size + 1 <= sizeof(subject->text));
        if (i > begin) {
            out[size++] = '.';
        }
        memcpy(out + size, label.data, label.size);
        size += label.size;
        for (size_t j = 0; j < label.size; j++) {
            const size_t more = escape_bytes((uint8_t)label.data[j]);

            subject->matchless = subject->matchless || more > 0;
            subject->shown_size += more;
        }
        subject->shown_size += label.size;
    }
    *used += size;
    return slice_from(out, size);
}

static enum dns_subject_kind keyword_kind(struct slice label)
{
    static const struct {
        struct slice word;
        enum dns_subject_kind kind;
    } keywords[] = {
        {SLICE_LITERAL("service"), DNS_SUBJECT_SERVICE},
        {SLICE_LITERAL("node"), DNS_SUBJECT_NODE},
        {SLICE_LITERAL("addr"), DNS_SUBJECT_ADDRESS},
        /* Prepared queries and Connect are not there: every name of theirs is unknown. */
        {SLICE_LITERAL("query"), DNS_SUBJECT_INVALID},
        {SLICE_LITERAL("connect"), DNS_SUBJECT_INVALID},
        {SLICE_LITERAL("ingress"), DNS_SUBJECT_INVALID},
    };

    for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
        if (slice_equal(label, keywords[i].word)) {
            return keywords[i].kind;
        }
    }
    return DNS_SUBJECT_FOREIGN; /* no keyword */
}

static void parse_service(struct dns_subject *subject, const uint8_t *lower,
                          const struct dns_name_text *name, size_t count)
{
    const struct slice first = label_at(lower, name, 0);
    const struct slice last = label_at(lower, name, count - 1);
    size_t used = 0;

    if (count == 2 && first.data[0] == '_' && last.data[0] == '_') { /* _service._tag */
        subject->service = join_labels(subject, &used, lower, name, 0, 1);
        subject->tag = join_labels(subject, &used, lower, name, 1, 2);
        subject->service = slice_from(subject->service.data + 1, subject->service.size - 1);
        subject->tag = slice_from(subject->tag.data + 1, subject->tag.size - 1);
        if (slice_equal(subject->tag, SLICE_LITERAL("tcp"))) {
            subject->tag.size = 0; /* RFC 2782's protocol, no tag */
        }
        return;
    }
    subject->service = join_labels(subject, &used, lower, name, count - 1, count);
    subject->tag = join_labels(subject, &used, lower, name, 0, count - 1);
}

/* `domain_index` is the index of the domain's first label: what is left of it is looked at. */
static void parse_below_domain(const struct dns_zone *zone, struct dns_subject *subject,
                               const uint8_t *lower, const struct dns_name_text *name,
                               size_t domain_index, uint16_t type)
{
    size_t count = 0; /* of labels left of the keyword */
    size_t suffix = 0;
    enum dns_subject_kind kind = DNS_SUBJECT_FOREIGN;

    for (size_t i = domain_index; i > 0 && kind == DNS_SUBJECT_FOREIGN; i--) {
        const struct slice label = label_at(lower, name, i - 1);

        kind = keyword_kind(label);
        if (kind != DNS_SUBJECT_FOREIGN) {
            count = i - 1;
            suffix = i;
        } else if (type == DNS_SRV && label.data[0] == '_') { /* the word may be left out */
            kind = DNS_SUBJECT_SERVICE;
            count = i;
            suffix = i;
        }
    }
    if (kind == DNS_SUBJECT_FOREIGN || kind == DNS_SUBJECT_INVALID || count == 0) {
        return;
    }
    size_t suffix_count = domain_index - suffix; /* of labels right of the keyword */
    size_t used = 0;

    if (kind == DNS_SUBJECT_ADDRESS) { /* What stands right of "addr" does not matter. */
        if (count == 1) {
            subject->address = join_labels(subject, &used, lower, name, 0, 1);
            subject->kind = kind;
        }
        return;
    }
    if (suffix_count == 2 && slice_equal(label_at(lower, name, suffix + 1), SLICE_LITERAL("dc"))) {
        suffix_count = 1; /* "dc1.dc", as Consul writes it since 1.13 */
    }
    if (suffix_count > 1) {
        return;
    }
    subject->datacenter_unknown =
        suffix_count == 1 &&
        !slice_equal(label_at(lower, name, suffix), slice_from_text(zone->datacenter));
    subject->kind = kind;
    if (kind == DNS_SUBJECT_NODE) {
        subject->node = join_labels(subject, &used, lower, name, 0, count);
    } else {
        parse_service(subject, lower, name, count);
    }
}

void dns_subject_parse(const struct dns_zone *zone, const struct dns_name_text *name, uint16_t type,
                       struct dns_subject *out)
{
    static const struct dns_suffix arpa = {.wire = "\4arpa", .size = sizeof("\4arpa")};
    uint8_t lower[DNS_NAME_BYTES_MAX];

    assert(name->size > 0);
    /* Length bytes are below 'A', so they pass unchanged. */
    for (size_t i = 0; i < name->size; i++) {
        lower[i] = (uint8_t)slice_lower((char)name->wire[i]);
    }
    out->kind = DNS_SUBJECT_FOREIGN;
    out->in_domain = false;
    out->datacenter_unknown = false;
    out->matchless = false;
    out->shown_size = 0;
    out->service = out->tag = out->node = out->address = SLICE_EMPTY;

    const int in_domain = suffix_begins_at(lower, name, &zone->domain);
    const int in_alt = suffix_begins_at(lower, name, &zone->alt_domain);
    int begin = in_domain;

    if (begin < 0 || (in_alt >= 0 && in_alt < begin)) { /* The longer of the two counts. */
        begin = in_alt;
    }
    if (begin < 0 || begin == name->label_count) { /* Below the root it may be both. */
        if (suffix_begins_at(lower, name, &arpa) >= 0) {
            out->kind = DNS_SUBJECT_REVERSE;
            return;
        }
    }
    if (begin < 0) {
        return;
    }
    out->in_domain = in_domain >= 0;
    out->kind = DNS_SUBJECT_INVALID;
    parse_below_domain(zone, out, lower, name, (size_t)begin, type);
}

static bool ip_parse_v4(struct slice text, uint8_t out[4])
{
    size_t at = 0;

    for (size_t i = 0; i < 4; i++) {
        unsigned value = 0;
        const size_t begin = at;

        if (i > 0 && (at == text.size || text.data[at++] != '.')) {
            return false;
        }
        const size_t digits = i > 0 ? begin + 1 : begin;

        while (at < text.size && text.data[at] >= '0' && text.data[at] <= '9') {
            value = value * 10 + (unsigned)(text.data[at++] - '0');
            if (value > 255) {
                return false;
            }
        }
        if (at == digits) {
            return false;
        }
        out[i] = (uint8_t)value;
    }
    return at == text.size;
}

bool dns_ip_parse(struct slice text, struct dns_ip *out)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char copy[IP_TEXT_BYTES_MAX];

    if (text.size == 0 || text.size >= sizeof(copy)) {
        return false;
    }
    if (ip_parse_v4(text, out->bytes)) {
        out->size = 4;
        return true;
    }
    if (memchr(text.data, ':', text.size) == NULL || memchr(text.data, '\0', text.size) != NULL) {
        return false;
    }
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    if (inet_pton(AF_INET6, copy, out->bytes) != 1) {
        return false;
    }
    out->size = 16;
    if (memcmp(out->bytes, mapped, sizeof(mapped)) == 0) {
        memmove(out->bytes, out->bytes + sizeof(mapped), 4);
        out->size = 4;
    }
    return true;
}

static int hex_digit(char c)
{
    const char lower = slice_lower(c);

    if (lower >= '0' && lower <= '9') {
        return lower - '0';
    }
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static bool reverse_is(const struct dns_name_text *name, size_t labels, struct slice zone)
{
    return name->label_count == labels &&
           slice_equal_nocase(label_at(name->wire, name, labels - 2), zone) &&
           slice_equal_nocase(label_at(name->wire, name, labels - 1), SLICE_LITERAL("arpa"));
}

bool dns_ip_from_reverse(const struct dns_name_text *name, struct dns_ip *out)
{
    if (reverse_is(name, ARPA_V4_LABELS, SLICE_LITERAL("in-addr"))) {
        out->size = 4;
        for (size_t i = 0; i < 4; i++) {
            const struct slice label = label_at(name->wire, name, 3 - i);
            unsigned value = 0;

            for (size_t j = 0; j < label.size; j++) {
                if (label.size > 3 || label.data[j] < '0' || label.data[j] > '9') {
                    return false;
                }
                value = value * 10 + (unsigned)(label.data[j] - '0');
            }
            if (value > 255 || (label.size > 1 && label.data[0] == '0')) {
                return false;
            }
            out->bytes[i] = (uint8_t)value;
        }
        return true;
    }
    if (!reverse_is(name, ARPA_V6_LABELS, SLICE_LITERAL("ip6"))) {
        return false;
    }
    out->size = 16;
    for (size_t i = 0; i < 32; i++) {
        const struct slice label = label_at(name->wire, name, 31 - i);
        const int digit = label.size == 1 ? hex_digit(label.data[0]) : -1;

        if (digit < 0) {
            return false;
        }
        out->bytes[i / 2] = (uint8_t)(i % 2 == 0 ? digit << 4 : out->bytes[i / 2] | digit);
    }
    return true;
}
