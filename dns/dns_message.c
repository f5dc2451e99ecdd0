/* Writes an answer's sections, shortened to what the client takes (NOTES-dns-cli, section 6).
 *
 * Only answers about services are shortened by Consul's rules: by count without EDNS, then by size,
 * and whenever that happens the additional section is made anew, with one address per target and
 * without metadata. Everything else is cut where the client's limit is, which Consul exceeds. */

#include <assert.h>
#include <string.h>

#include "dns/dns_internal.h"

enum {
    TRUNCATE_STEP_BYTES = 100, /* so little too much: one answer less at a time */
    TRUNCATE_GOOD_BYTES = 10,  /* so near to the limit: near enough */
    ANSWERS_MANY = 16,         /* from here on it is worth while to guess first */
};

/* How much of the answer is written. */
struct layout {
    size_t answers;
    bool remade; /* the additional section is that of a shortened answer */
    bool compress;
};

struct counts {
    uint16_t answers, authorities, additionals;
    bool cut; /* an answer or authority record did not fit */
};

/* Tells the names of this answer where in the message they stand already: in the question. */
static void place_question_names(struct dns_resolver *r)
{
    const struct dns_name_text *name = &r->query.name;
    struct dns_zone *zone = r->zone;
    const size_t domain_size = zone->domain.size;

    r->question_name.pass = r->pass;
    r->question_name.offset = DNS_HEADER_BYTES;
    if (!r->subject.in_domain || domain_size == 1) { /* Nothing is shorter than the root. */
        return;
    }
    /* Only in the same spelling: an answer's names are ours, not the asker's. */
    const size_t domain_at = name->size - domain_size;

    if (memcmp(name->wire + domain_at, zone->domain.wire, domain_size) != 0) {
        return;
    }
    zone->domain_name.pass = r->pass;
    zone->domain_name.offset = (uint16_t)(DNS_HEADER_BYTES + domain_at);

    const size_t label_size = zone->datacenter_name.size;

    for (size_t i = 0; i < name->label_count; i++) {
        if (name->labels[i] + label_size == domain_at &&
            memcmp(name->wire + name->labels[i], zone->datacenter_label, label_size) == 0) {
            zone->datacenter_name.pass = r->pass;
            zone->datacenter_name.offset = (uint16_t)(DNS_HEADER_BYTES + name->labels[i]);
        }
    }
}

/* Writes one record if it fits. */
static bool put_record(struct dns_writer *writer, const struct dns_record *record, uint16_t *count)
{
    dns_writer_record(writer, record);
    if (writer->failed) {
        return false;
    }
    (*count)++;
    return true;
}

static bool put_meta(struct dns_writer *writer, const struct dns_record *srv, uint16_t *count)
{
    struct reader it = strings_begin(srv->srv.meta);
    struct slice key, value;

    while (strings_next(&it, &key) && strings_next(&it, &value)) {
        const struct dns_record record =
            dns_record_meta(srv->srv.meta_owner, srv->ttl_s, key, value);

        if (!put_record(writer, &record, count)) {
            return false;
        }
    }
    return true;
}

/* A whole answer: what belongs to each SRV record, in its order, also when targets repeat. */
static bool put_glue_whole(const struct dns_resolver *r, struct dns_writer *writer,
                           const struct dns_record *srv, uint16_t *count)
{
    for (size_t i = 0; i < srv->srv.glue_count; i++) {
        if (!put_record(writer, &r->glue[srv->srv.glue_index + i], count)) {
            return false;
        }
    }
    return srv->srv.meta_owner == NULL || put_meta(writer, srv, count);
}

/* A shortened answer: for a target the first record, and what a CNAME leads to. */
static bool put_glue_remade(const struct dns_resolver *r, struct dns_writer *writer,
                            const struct dns_record *srv, uint16_t *count)
{
    for (size_t i = 0; i < srv->srv.glue_count; i++) {
        const struct dns_record *record = &r->glue[srv->srv.glue_index + i];

        if (!put_record(writer, record, count)) {
            return false;
        }
        if (record->type != DNS_CNAME) {
            break;
        }
    }
    return true;
}

/* True for the first SRV record of each target, asked in order; `mark` is a number of its own. */
static bool target_is_first(const struct dns_record *srv, uint64_t mark)
{
    struct dns_name *target = srv->srv.target; /* Equal names are one object. */
    const bool first = target->mark != mark;

    target->mark = mark;
    return first;
}

static void put_additionals(struct dns_resolver *r, struct dns_writer *writer,
                            const struct layout *layout, struct counts *counts)
{
    const uint64_t mark = ++r->pass;
    bool fits = true;

    for (size_t i = 0; i < layout->answers && fits; i++) {
        const struct dns_record *record = &r->answers[i];

        if (record->type != DNS_SRV) {
            continue;
        }
        if (!layout->remade) {
            fits = put_glue_whole(r, writer, record, &counts->additionals);
        } else if (target_is_first(record, mark)) {
            fits = put_glue_remade(r, writer, record, &counts->additionals);
        }
    }
    for (size_t i = 0; i < r->additional_count && fits; i++) {
        fits = put_record(writer, &r->additional[i], &counts->additionals);
    }
}

/* Header (still without flags and counts), question, and as much of the sections as fits. */
static struct counts put_message(struct dns_resolver *r, struct dns_writer *writer,
                                 const struct layout *layout)
{
    struct counts counts = {0};

    writer->pass = ++r->pass;
    writer->compress = layout->compress;
    dns_writer_u16(writer, r->query.id);
    for (size_t i = 2; i < DNS_HEADER_BYTES; i += 2) {
        dns_writer_u16(writer, 0);
    }
    dns_writer_bytes(writer, r->query.name.wire, r->query.name.size);
    dns_writer_u16(writer, r->query.type);
    dns_writer_u16(writer, r->query.class);
    place_question_names(r);

    for (size_t i = 0; i < layout->answers && !counts.cut; i++) {
        counts.cut = !put_record(writer, &r->answers[i], &counts.answers);
    }
    for (size_t i = 0; i < r->authority_count && !counts.cut; i++) {
        counts.cut = !put_record(writer, &r->authority[i], &counts.authorities);
    }
    if (!counts.cut) {
        put_additionals(r, writer, layout, &counts);
    }
    return counts;
}

static size_t measure(struct dns_resolver *r, const struct layout *layout)
{
    struct dns_writer writer = {.limit = SIZE_MAX / 2};

    (void)put_message(r, &writer, layout);
    assert(!writer.failed);
    return writer.size;
}

/* The sizes of all shortened answers at once, sums[n] for one of n answers: possible where each
 * record's size is its own, as it is for addresses and for SRV records that lead to addresses.
 * Sizes are exact as long as pointers reach, so up to DNS_POINTER_OFFSET_MAX, and never too large.
 */
static bool sums_make(struct dns_resolver *r, bool compress)
{
    enum { HEAD_BYTES = 10, SRV_BYTES = 6, POINTER_BYTES = 2, QUESTION_BYTES = 4 };
    const size_t question = r->query.name.size;
    const uint64_t mark = ++r->pass;
    size_t size = DNS_HEADER_BYTES + question + QUESTION_BYTES;

    if (r->authority_count > 0 || r->additional_count > 0) {
        return false;
    }
    r->sums[0] = (uint32_t)size;
    for (size_t i = 0; i < r->answer_count; i++) {
        const struct dns_record *record = &r->answers[i];
        const struct dns_record *address = record;

        if (record->owner != &r->question_name) {
            return false;
        }
        size += HEAD_BYTES + (compress ? (size_t)POINTER_BYTES : question);
        if (record->type == DNS_SRV) {
            const size_t target = dns_name_size(record->srv.target);

            address = &r->glue[record->srv.glue_index];
            if (record->srv.glue_count != 1 || address->owner != record->srv.target) {
                return false;
            }
            size += SRV_BYTES + target;
            if (!target_is_first(record, mark)) {
                address = NULL;
            } else {
                size += HEAD_BYTES + (compress ? (size_t)POINTER_BYTES : target);
            }
        }
        if (address != NULL && address->type != DNS_A && address->type != DNS_AAAA) {
            return false;
        }
        size += address == NULL ? 0 : address->type == DNS_A ? 4 : 16;
        r->sums[i + 1] = (uint32_t)size;
    }
    return true;
}

/* Whether sizes near to `bytes_max` would be exact. */
static bool sums_are_of_use(const struct layout *layout, size_t bytes_max)
{
    return !layout->compress || bytes_max + TRUNCATE_STEP_BYTES <= DNS_POINTER_OFFSET_MAX;
}

/* Whether so many answers are so much too long that it need not be tried. */
static bool is_far_too_long(struct dns_resolver *r, const struct layout *layout, size_t bytes_max)
{
    return r->service_answer && layout->answers >= ANSWERS_MANY &&
           sums_are_of_use(layout, bytes_max) && sums_make(r, layout->compress) &&
           r->sums[layout->answers] > bytes_max + TRUNCATE_STEP_BYTES;
}

/* Of a shortened answer. */
static size_t shortened_size(struct dns_resolver *r, const struct layout *layout, bool summed)
{
    assert(layout->remade);
    return summed ? r->sums[layout->answers] : measure(r, layout);
}

/* The most answers (one at least) with which the message is not larger than `bytes_max`. */
static size_t layout_search(struct dns_resolver *r, const struct layout *layout, size_t bytes_max,
                            bool summed)
{
    struct layout tried = {.remade = true, .compress = layout->compress};
    size_t low = 1;
    size_t high = layout->answers + 1;

    while (high - low > 1) {
        tried.answers = low + (high - low) / 2;
        const size_t size = shortened_size(r, &tried, summed);

        if (size > bytes_max) {
            high = tried.answers;
        } else if (bytes_max - size < TRUNCATE_GOOD_BYTES) {
            return tried.answers;
        } else {
            low = tried.answers;
        }
    }
    return low;
}

/* Shortens by size as Consul does; `bytes_max` is the client's limit, `bytes_soft` what is used of
 * it. */
static void layout_fit(struct dns_resolver *r, struct layout *layout, size_t bytes_max,
                       size_t bytes_soft)
{
    const bool summed = sums_are_of_use(layout, bytes_max) && sums_make(r, layout->compress);
    size_t size = bytes_max + TRUNCATE_STEP_BYTES + 1;

    /* The whole answer is not smaller than one whose additional section is made anew. */
    if (!summed || r->sums[layout->answers] < size) {
        size = layout->remade ? shortened_size(r, layout, summed) : measure(r, layout);
    }

    while (layout->answers > 1 && size > bytes_soft) { /* Each turn but the first takes one off. */
        size_t fewer = layout->answers - 1;

        if (size > bytes_max + TRUNCATE_STEP_BYTES) {
            const size_t found = layout_search(r, layout, bytes_max, summed);

            /* To make the additional section anew may be all that is needed. */
            fewer = layout->remade && found == layout->answers ? fewer : found;
        }
        layout->answers = fewer;
        layout->remade = true;
        size = shortened_size(r, layout, summed);
    }
}

static size_t client_limit(const struct dns_resolver *r)
{
    if (r->tcp) {
        return DNS_MESSAGE_BYTES_MAX;
    }
    if (!r->query.edns || r->query.edns_size <= DNS_UDP_BYTES_DEFAULT) {
        return DNS_UDP_BYTES_DEFAULT;
    }
    return r->query.edns_size < DNS_UDP_BYTES_MAX ? r->query.edns_size : DNS_UDP_BYTES_MAX;
}

static void put_header(struct dns_resolver *r, struct dns_writer *writer,
                       const struct counts *counts, bool truncated)
{
    unsigned flags = DNS_FLAG_QR | ((unsigned)r->query.opcode << DNS_OPCODE_SHIFT) | r->flags |
                     (unsigned)r->rcode;

    if (r->query.opcode == DNS_OPCODE_QUERY) {
        flags |= r->query.flags & (DNS_FLAG_RD | DNS_FLAG_CD);
    }
    if (truncated) {
        flags |= DNS_FLAG_TC;
    }
    dns_writer_set_u16(writer, 2, (uint16_t)flags);
    dns_writer_set_u16(writer, 4, 1);
    dns_writer_set_u16(writer, 6, counts->answers);
    dns_writer_set_u16(writer, 8, counts->authorities);
    dns_writer_set_u16(writer, 10, counts->additionals);
}

size_t dns_message_write(struct dns_resolver *r, void *out, size_t out_bytes)
{
    const size_t opt_size = r->edns_echo ? dns_opt_size(&r->query) : 0;
    const size_t client = client_limit(r);
    const size_t limit = client < out_bytes ? client : out_bytes;
    const bool compress = !r->zone->config.disable_compression;
    struct layout layout = {.answers = r->answer_count, .compress = compress};
    struct dns_writer writer = {.data = out};
    struct counts counts = {0};
    bool shortened = r->clipped && !r->tcp;

    if (limit < DNS_HEADER_BYTES + DNS_NAME_BYTES_MAX + 4 + opt_size) {
        return 0; /* Nobody offers less; the question alone must fit. */
    }
    const size_t hard = limit - opt_size;
    const size_t bytes_max = r->tcp ? DNS_TCP_BYTES_MAX : client;
    size_t soft = r->tcp ? DNS_TCP_BYTES_MAX : client - DNS_SLACK_BYTES;

    soft = soft < hard ? soft : hard;
    if (r->service_answer && client == DNS_UDP_BYTES_DEFAULT && !r->tcp &&
        layout.answers > dns_zone_udp_answers_max(r->zone)) {
        /* Consul counts such answers without compression, though it sends them compressed. */
        layout = (struct layout){.answers = dns_zone_udp_answers_max(r->zone), .remade = true};
        layout_fit(r, &layout, bytes_max, soft);
        layout.compress = compress;
    }
    writer.limit = r->service_answer && layout.answers > 1 ? soft : hard;
    const bool far_too_long = is_far_too_long(r, &layout, bytes_max);

    if (!far_too_long) {
        counts = put_message(r, &writer, &layout);
    }
    if (far_too_long || (writer.failed && r->service_answer)) { /* Find out by how much. */
        layout_fit(r, &layout, bytes_max, soft);
        writer = (struct dns_writer){.data = out, .limit = hard};
        counts = put_message(r, &writer, &layout);
    }
    shortened = shortened || counts.answers < r->answer_count;
    writer.failed = false; /* What did not fit was taken back. */
    writer.limit = limit;
    if (r->edns_echo && r->query.edns) {
        dns_writer_opt(&writer, &r->query);
        counts.additionals++;
    }
    assert(!writer.failed);
    put_header(r, &writer, &counts,
               counts.cut || (r->service_answer && shortened && r->zone->config.enable_truncate));
    return writer.size;
}
