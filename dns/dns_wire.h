#ifndef DNS_DNS_WIRE_H
#define DNS_DNS_WIRE_H

/* DNS messages as bytes: a reader that cannot pass its end, names that are compressed by offsets
 * remembered in the names themselves, and a writer that never writes past its limit. Pure; nothing
 * here allocates. Sources: RFC 1035 (4.1), RFC 6891 (OPT), RFC 7871 (client subnet). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/slice.h"

enum {
    DNS_HEADER_BYTES = 12,
    DNS_NAME_BYTES_MAX = 255, /* with all length bytes and the root's */
    DNS_LABEL_BYTES_MAX = 63,
    DNS_LABELS_MAX = 127,
    DNS_MESSAGE_BYTES_MAX = 65535,
    DNS_UDP_BYTES_DEFAULT = 512,    /* what every client takes */
    DNS_UDP_BYTES_MAX = 65535 - 68, /* Consul's largest datagram, whatever the client offers */
    DNS_POINTER_OFFSET_MAX = 0x3fff,
    DNS_OPT_BYTES = 11,
    DNS_SUBNET_BYTES_MAX = 16,
};

enum dns_type {
    DNS_A = 1,
    DNS_NS = 2,
    DNS_CNAME = 5,
    DNS_SOA = 6,
    DNS_PTR = 12,
    DNS_TXT = 16,
    DNS_AAAA = 28,
    DNS_SRV = 33,
    DNS_OPT = 41,
    DNS_AXFR = 252,
    DNS_ANY = 255,
};

enum { DNS_CLASS_IN = 1 };

enum dns_rcode {
    DNS_NOERROR = 0,
    DNS_FORMERR = 1,
    DNS_SERVFAIL = 2,
    DNS_NXDOMAIN = 3,
    DNS_NOTIMP = 4,
    DNS_REFUSED = 5,
};

enum { DNS_OPCODE_QUERY = 0, DNS_OPCODE_NOTIFY = 4 };

/* Bits of the header's second 16 bits. */
enum {
    DNS_FLAG_QR = 0x8000,
    DNS_FLAG_AA = 0x0400,
    DNS_FLAG_TC = 0x0200,
    DNS_FLAG_RD = 0x0100,
    DNS_FLAG_RA = 0x0080,
    DNS_FLAG_CD = 0x0010,
    DNS_OPCODE_SHIFT = 11,
};

/* --- reading --- */

/* Reads untrusted bytes. Short or bad input sets `failed` and gives zeros, so that a parser may
 * read on and check once; no read ever passes `end`. */
struct dns_reader {
    const uint8_t *start; /* of the message, which pointers count from */
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

struct dns_reader dns_reader_from(const void *message, size_t size);
size_t dns_reader_left(const struct dns_reader *reader);
uint16_t dns_reader_u16(struct dns_reader *reader);
uint32_t dns_reader_u32(struct dns_reader *reader);
const uint8_t *dns_reader_bytes(struct dns_reader *reader, size_t size); /* NULL when short */

/* A name of its own, uncompressed, root's zero included; `labels` are offsets of length bytes. */
struct dns_name_text {
    uint8_t wire[DNS_NAME_BYTES_MAX];
    uint8_t size;
    uint8_t label_count; /* the root not counted */
    uint8_t labels[DNS_LABELS_MAX];
};

/* Reads a name, following pointers: each must lead to before the place where the bytes read last
 * began, and behind the header; so no name can loop. */
void dns_reader_name(struct dns_reader *reader, struct dns_name_text *out);
/* Steps over a name without following it. */
void dns_reader_skip_name(struct dns_reader *reader);

/* What a query says. */
struct dns_query {
    uint16_t id;
    uint16_t flags; /* as received */
    uint8_t opcode;
    bool has_question; /* false: none followed the header */
    struct dns_name_text name;
    uint16_t type;
    uint16_t class;
    bool edns;
    uint16_t edns_size; /* UDP payload that the client takes, as it said */
    bool has_subnet;
    uint16_t subnet_family; /* 1: IPv4, 2: IPv6, 0: none given */
    uint8_t subnet_bits;
    uint8_t subnet[DNS_SUBNET_BYTES_MAX]; /* zero behind the bits */
};

enum dns_verdict {
    DNS_QUERY_GOOD,
    DNS_QUERY_IGNORE,  /* no answer: too short, or itself an answer */
    DNS_QUERY_BAD,     /* FORMERR */
    DNS_QUERY_NOTIMP,  /* another opcode */
    DNS_QUERY_NO_NAME, /* promises a question that does not come: REFUSED */
};

/* Parses one message as Consul's library does: counts are limited (one question, at most one answer
 * and one authority record, two additional), records that are promised but do not come and bytes
 * behind the last record are ignored, a record that is cut is not. The last OPT record counts.
 * `out` is filled as far as the verdict allows (id and flags always, but for IGNORE). */
enum dns_verdict dns_query_parse(const void *message, size_t size, struct dns_query *out);

/* --- names to write --- */

/* A name as a chain: its own labels, then its parent's (NULL: the root). Where it was written in
 * which message is remembered here, so that the next use costs two bytes and no search. */
struct dns_name {
    const uint8_t *labels; /* length-prefixed, no root; borrowed */
    uint16_t size;
    struct dns_name *parent;
    const uint8_t *flat; /* the whole name in one piece, root included; NULL: not at hand */
    uint16_t flat_size;
    uint64_t pass; /* the writer's pass that `offset` is true for */
    uint16_t offset;
    uint64_t mark; /* see dns_message.c */
};

/* Bytes of the name when written out. */
size_t dns_name_size(const struct dns_name *name);

/* Converts text ("a.b.c", a final dot allowed) to labels in `out`. Returns the bytes written, 0 if
 * it is no name (empty, an empty or too long label, too long). */
size_t dns_labels_from_text(struct slice text, uint8_t *out, size_t out_bytes);

/* --- writing --- */

/* With `data` NULL it only counts. A write past `limit` sets `failed` and changes nothing more. */
struct dns_writer {
    uint8_t *data;
    size_t size;
    size_t limit;
    uint64_t pass; /* number of this writing; 0 is never one, and none is used twice */
    bool compress;
    bool failed;
};

void dns_writer_u8(struct dns_writer *writer, uint8_t value);
void dns_writer_u16(struct dns_writer *writer, uint16_t value);
void dns_writer_u32(struct dns_writer *writer, uint32_t value);
void dns_writer_bytes(struct dns_writer *writer, const void *data, size_t size);
void dns_writer_set_u16(struct dns_writer *writer, size_t offset, uint16_t value);
/* `pointers` false: written out in full (SRV targets, RFC 2782), but still remembered. */
void dns_writer_name(struct dns_writer *writer, struct dns_name *name, bool pointers);

/* --- records --- */

struct dns_record {
    struct dns_name *owner;
    uint32_t ttl_s;
    uint16_t type;
    bool foreign; /* of another server's making: `data` is written as it is */
    union {
        struct {
            const uint8_t *bytes; /* borrowed; holds no compressed name */
            uint16_t size;
        } data;
        uint8_t address[16];     /* A: the first four */
        struct dns_name *target; /* CNAME, NS, PTR */
        struct {
            struct dns_name *target;
            uint16_t weight;
            uint16_t port;
            uint32_t glue_index; /* address records of the target, see dns_resolver */
            uint32_t glue_count;
            struct dns_name *meta_owner; /* NULL: no metadata follow */
            struct strings meta;         /* the node's, as TXT records */
        } srv;
        struct {
            struct slice key; /* with `key_shown` false only the value is told */
            struct slice value;
            bool key_shown;
        } txt;
        struct {
            struct dns_name *server, *mailbox;
            uint32_t serial, refresh_s, retry_s, expire_s, minimum_s;
        } soa;
    };
};

/* Writes one record, class IN. On `failed` the writer's size is back where the record began. */
void dns_writer_record(struct dns_writer *writer, const struct dns_record *record);

/* One TXT record for a metadata pair: "key=value" with RFC 1464 quoting, or the value alone for
 * keys that start with rfc1035- in any case. */
struct dns_record dns_record_meta(struct dns_name *owner, uint32_t ttl_s, struct slice key,
                                  struct slice value);

/* The bytes that the answer's OPT record takes, 0 without EDNS. */
size_t dns_opt_size(const struct dns_query *query);
void dns_writer_opt(struct dns_writer *writer, const struct dns_query *query);

#endif
