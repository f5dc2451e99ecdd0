/* Classes of questions that name servers have been known to get wrong, a table or a sweep for each,
 * from the message's bytes to the answer's: names, headers, EDNS, sizes to the byte, spelling,
 * limits of labels, domains that overlap, order. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dns/dns_internal.h"
#include "tests/unit/dns_fixture.h"

#define BYTES(text)                                                                                \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }
#define SIXTY_THREE "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"

enum { SIZED = 40, SHUFFLED = 9, WIDE = 700, LED = 100 }; /* instances of four services */

static struct dns_fixture fixture;
static struct dns_resolver *resolver;
static uint64_t random_state = 1;
static uint8_t out[DNS_MESSAGE_BYTES_MAX];

/* The answer's size. One resolver for all: what one answer leaves must not reach the next. */
static size_t answer_raw(const struct dns_config *config, struct slice query, bool tcp)
{
    struct dns_zone *zone = dns_zone_new(config);
    size_t size;

    DNS_REQUIRE(zone != NULL);
    DNS_REQUIRE(store_read_begin(fixture.store, &fixture.txn) == 0);
    size = dns_resolver_answer(resolver, zone, &fixture.txn, query.data, query.size, tcp,
                               DNS_FIXTURE_NOW_S, &random_state, out, sizeof(out));
    store_read_end(&fixture.txn);
    dns_zone_free(zone);
    return size;
}

static const char *answer_text(size_t size)
{
    static struct buffer text;

    buffer_clear(&text);
    dns_fixture_print(out, size, &text);
    return text.data;
}

static const char *ask(const struct dns_config *config, const char *question)
{
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = dns_fixture_query(question, 0, query, sizeof(query));

    return answer_text(answer_raw(config, slice_from((const char *)query, size), false));
}

/* --- names --- */

/* A name of two labels, reached through `jumps` pointers, each to the one before it. */
static void chains_of_pointers_end(void **state)
{
    static const size_t jumps[] = {0, 1, 2, 126, 127, 128, 1000, 8000};
    static uint8_t message[DNS_HEADER_BYTES + 8 + 2 * 8000];

    (void)state;
    for (size_t i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++) {
        struct dns_name_text name;
        size_t size = DNS_HEADER_BYTES;
        size_t target = size;

        memset(message, 0, sizeof(message));
        memcpy(message + size, "\2ab\2cd", 7);
        size += 7;
        for (size_t jump = 0; jump < jumps[i]; jump++) {
            message[size] = (uint8_t)(0xc0 | (target >> 8));
            message[size + 1] = (uint8_t)target;
            target = size;
            size += 2;
        }
        struct dns_reader reader = dns_reader_from(message, size);

        reader.at += target;
        dns_reader_name(&reader, &name);
        assert_false(reader.failed);
        assert_int_equal(name.size, 7);
        assert_memory_equal(name.wire, "\2ab\2cd", 7);
        assert_int_equal(dns_reader_left(&reader), 0 + (jumps[i] == 0 ? size - target - 7 : 0));
    }
}

/* No byte in a label does harm: the question comes back as it was, and nothing is called so. */
static void any_byte_may_stand_in_a_label(void **state)
{
    static const struct {
        const char *name;
        struct slice before, after;
    } places[] = {
        {"node", BYTES(""), BYTES("\4node\6consul\0")},
        {"service", BYTES(""), BYTES("\7service\6consul\0")},
        {"tag", BYTES(""), BYTES("\7ordered\7service\6consul\0")},
        {"RFC 2782", BYTES("\10_ordered"), BYTES("\7service\6consul\0")},
        {"keyword", BYTES("\2n1"), BYTES("\6consul\0")},
        {"datacenter", BYTES("\2n1\4node"), BYTES("\6consul\0")},
        {"digits", BYTES(""), BYTES("\4addr\6consul\0")},
        {"foreign", BYTES("\3www"), BYTES("\0")},
        {"reverse", BYTES(""), BYTES("\1x\1x\1x\7in-addr\4arpa\0")},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            uint8_t query[DNS_UDP_BYTES_DEFAULT];
            struct dns_writer writer = {.data = query, .limit = sizeof(query)};

            dns_writer_bytes(&writer, "\x12\x34\1\0\0\1\0\0\0\0\0\0", DNS_HEADER_BYTES);
            dns_writer_bytes(&writer, places[i].before.data, places[i].before.size);
            dns_writer_u8(&writer, 3);
            dns_writer_u8(&writer, '_');
            dns_writer_u8(&writer, (uint8_t)byte);
            dns_writer_u8(&writer, 'z');
            dns_writer_bytes(&writer, places[i].after.data, places[i].after.size);
            dns_writer_bytes(&writer, "\0\1\0\1", 4);
            const size_t size = answer_raw(
                &fixture.config, slice_from((const char *)query, writer.size), byte % 2 == 0);

            if (size < writer.size || memcmp(out + DNS_HEADER_BYTES, query + DNS_HEADER_BYTES,
                                             writer.size - DNS_HEADER_BYTES) != 0) {
                fail_msg("%s, byte %u: the question is not echoed", places[i].name, byte);
            }
            const unsigned rcode = out[3] & 0xf;

            /* An address of odd length gets an empty answer from Consul. */
            if (rcode != DNS_NXDOMAIN && rcode != DNS_REFUSED && rcode != DNS_SERVFAIL &&
                !(rcode == DNS_NOERROR && out[7] == 0 && strcmp(places[i].name, "digits") == 0)) {
                fail_msg("%s, byte %u: rcode %u", places[i].name, byte, rcode);
            }
            (void)answer_text(size); /* aborts on what cannot be read */
        }
    }
}

/* Case never matters, and the question comes back in its own. */
static void spelling_is_kept_and_does_not_matter(void **state)
{
    static const struct {
        const char *name, *data;
    } cases[] = {
        {"n1.node.dc1.consul", "10.0.0.1"},
        {"first.ordered.service.consul", "10.4.0.1"},
        {"_ordered._first.service.dc1.consul", "10.4.0.1"},
        {"0a00000b.addr.consul", "10.0.0.11"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (unsigned turn = 0; turn < 64; turn++) {
            char name[128], question[160], wanted[320];
            const size_t size = strlen(cases[i].name);

            for (size_t j = 0; j <= size; j++) {
                const bool upper = ((turn * 0x9e3779b1u) >> (j % 29)) & 1;
                const char c = cases[i].name[j];

                name[j] = (char)(upper && c >= 'a' && c <= 'z' ? c - 32 : c);
            }
            (void)snprintf(question, sizeof(question), "%s A", name);
            const char *owner = name;
            char lower[128];

            if (strstr(cases[i].name, "addr") != NULL) { /* Consul's own: these in lower case. */
                (void)snprintf(lower, sizeof(lower), "%s", cases[i].name);
                owner = lower;
            }
            (void)snprintf(wanted, sizeof(wanted), "NOERROR aa rd|an %s 0 A %s", owner,
                           cases[i].data);
            assert_string_equal(ask(&fixture.config, question), wanted);
        }
    }
}

/* 63 bytes are a label; what is longer is registered, but has no name in DNS. */
static void labels_have_63_bytes_at_most(void **state)
{
    const char *answer;

    (void)state;
    assert_string_equal(ask(&fixture.config, SIXTY_THREE ".node.consul A"),
                        "NOERROR aa rd|an " SIXTY_THREE ".node.consul 0 A 10.0.1.63");
    assert_string_equal(ask(&fixture.config, SIXTY_THREE ".service.consul A"),
                        "NOERROR aa rd|an " SIXTY_THREE ".service.consul 0 A 10.0.1.63");
    assert_string_equal(ask(&fixture.config, SIXTY_THREE ".long.service.consul A"),
                        "NOERROR aa rd|an " SIXTY_THREE ".long.service.consul 0 A 10.0.1.63");
    /* Of the service's two nodes one has no name: it is an address, but no target. */
    answer = ask(&fixture.config, "long.service.consul A");
    assert_non_null(strstr(answer, "10.0.1.63"));
    assert_non_null(strstr(answer, "10.0.1.64"));
    answer = ask(&fixture.config, "long.service.consul SRV");
    assert_non_null(strstr(answer, SIXTY_THREE ".node.dc1.consul"));
    assert_null(strstr(answer, "10.0.1.64"));
    assert_null(strstr(answer, "|an long.service.consul 0 SRV 1 1 2 "));
}

/* --- headers --- */

static void headers_of_all_kinds(void **state)
{
    static const uint8_t question[] = "\2n1\4node\6consul\0\0\1\0\1";
    uint8_t query[DNS_UDP_BYTES_DEFAULT];

    (void)state;
    memcpy(query + DNS_HEADER_BYTES, question, sizeof(question) - 1);
    const size_t size = DNS_HEADER_BYTES + sizeof(question) - 1;

    /* Every combination of the flags' 16 bits. */
    for (unsigned flags = 0; flags <= UINT16_MAX; flags += flags < 0x8000 ? 1 : 61) {
        const unsigned opcode = (flags >> DNS_OPCODE_SHIFT) & 0xf;

        memcpy(query, "\x12\x34\0\0\0\1\0\0\0\0\0\0", DNS_HEADER_BYTES);
        query[2] = (uint8_t)(flags >> 8);
        query[3] = (uint8_t)flags;
        if (flags % 13 != 0 && opcode != DNS_OPCODE_QUERY) {
            continue; /* They are alike. */
        }
        const size_t answer =
            answer_raw(&fixture.config, slice_from((const char *)query, size), false);
        const unsigned got = (unsigned)(out[2] << 8) | out[3];

        if ((flags & DNS_FLAG_QR) != 0) {
            assert_int_equal(answer, 0); /* An answer to an answer would go on for ever. */
            continue;
        }
        assert_true(answer >= DNS_HEADER_BYTES);
        assert_true((got & DNS_FLAG_QR) != 0);
        assert_int_equal((got >> DNS_OPCODE_SHIFT) & 0xf, opcode);
        assert_int_equal(got & 0x60, 0); /* Z and AD: never */
        if (opcode == DNS_OPCODE_QUERY) {
            assert_int_equal(got & (DNS_FLAG_RD | DNS_FLAG_CD),
                             flags & (DNS_FLAG_RD | DNS_FLAG_CD));
            assert_int_equal(got & 0xf, DNS_NOERROR);
            assert_true((got & DNS_FLAG_AA) != 0);
        } else if (opcode != DNS_OPCODE_NOTIFY) {
            assert_int_equal(got & 0xf, DNS_NOTIMP);
        }
    }
}

static void counts_classes_and_what_follows(void **state)
{
#define N1 "\2n1\4node\6consul\0"
    static const struct {
        const char *name;
        struct slice query;
        int rcode; /* -1: silence */
    } cases[] = {
        {"no question", BYTES("\x12\x34\1\0\0\0\0\0\0\0\0\0"), DNS_FORMERR},
        {"two questions", BYTES("\x12\x34\1\0\0\2\0\0\0\0\0\0" N1 "\0\1\0\1" N1 "\0\1\0\1"),
         DNS_FORMERR},
        {"65535 questions", BYTES("\x12\x34\1\0\xff\xff\0\0\0\0\0\0" N1 "\0\1\0\1"), DNS_FORMERR},
        {"65535 answers", BYTES("\x12\x34\1\0\0\1\xff\xff\0\0\0\0" N1 "\0\1\0\1"), DNS_FORMERR},
        {"65535 additional", BYTES("\x12\x34\1\0\0\1\0\0\0\0\xff\xff" N1 "\0\1\0\1"), DNS_FORMERR},
        {"class CH", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\0\1\0\3"), DNS_NOERROR},
        {"class ANY", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\0\1\0\xff"), DNS_NOERROR},
        {"class 0", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\0\1\0\0"), DNS_NOERROR},
        {"type 0", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\0\0\0\1"), DNS_NOERROR},
        {"type 65535", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\xff\xff\0\1"), DNS_NOERROR},
        {"zeros behind", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\0\1\0\1\0\0\0\0\0\0\0\0"),
         DNS_NOERROR},
        {"a message behind",
         BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\0\1\0\1\x12\x34\1\0\0\1\0\0\0\0\0\0" N1
               "\0\1\0\1"),
         DNS_NOERROR},
        {"no class", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\0\1"), DNS_NOERROR},
        {"half a class", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\1" N1 "\0\1\0"), DNS_NOERROR},
        {"half a type", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0\0" N1 "\0"), DNS_FORMERR},
        {"11 bytes", BYTES("\x12\x34\1\0\0\1\0\0\0\0\0"), -1},
        {"nothing", BYTES(""), -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int tcp = 0; tcp < 2; tcp++) {
            const size_t size = answer_raw(&fixture.config, cases[i].query, tcp != 0);
            const int rcode = size == 0 ? -1 : out[3] & 0xf;

            if (rcode != cases[i].rcode) {
                fail_msg("%s: rcode %d, want %d", cases[i].name, rcode, cases[i].rcode);
            }
        }
    }
}

/* --- EDNS --- */

/* OPT records as they may come; the recorded server takes any version as 0, and the last OPT. */
static void edns_of_all_kinds(void **state)
{
#define QUERY(answers, authorities, additionals)                                                   \
    "\x12\x34\1\0\0\1\0" answers "\0" authorities "\0" additionals N1 "\0\1\0\1"
#define OPT(size, rest) "\0\0\51" size rest
    static const struct {
        const char *name;
        struct slice query;
        int rcode;
        const char *edns; /* NULL: none in the answer */
    } cases[] = {
        {"none", BYTES(QUERY("\0", "\0", "\0")), DNS_NOERROR, NULL},
        {"version 0", BYTES(QUERY("\0", "\0", "\1") OPT("\4\xd0", "\0\0\0\0\0\0")), DNS_NOERROR,
         "edns 1232"},
        {"version 1", BYTES(QUERY("\0", "\0", "\1") OPT("\4\xd0", "\0\1\0\0\0\0")), DNS_NOERROR,
         "edns 1232"},
        {"version 255", BYTES(QUERY("\0", "\0", "\1") OPT("\4\xd0", "\0\xff\0\0\0\0")), DNS_NOERROR,
         "edns 1232"},
        {"extended rcode", BYTES(QUERY("\0", "\0", "\1") OPT("\4\xd0", "\xff\0\0\0\0\0")),
         DNS_NOERROR, "edns 1232"},
        {"size 0", BYTES(QUERY("\0", "\0", "\1") OPT("\0\0", "\0\0\0\0\0\0")), DNS_NOERROR,
         "edns 0"},
        {"size 511", BYTES(QUERY("\0", "\0", "\1") OPT("\1\xff", "\0\0\0\0\0\0")), DNS_NOERROR,
         "edns 511"},
        {"size 65535", BYTES(QUERY("\0", "\0", "\1") OPT("\xff\xff", "\0\0\0\0\0\0")), DNS_NOERROR,
         "edns 65535"},
        {"two",
         BYTES(QUERY("\0", "\0", "\2") OPT("\4\xd0", "\0\0\0\0\0\0") OPT("\x10\0", "\0\0\0\0\0\0")),
         DNS_NOERROR, "edns 4096"},
        {"three",
         BYTES(QUERY("\0", "\0", "\3") OPT("\4\xd0", "\0\0\0\0\0\0") OPT("\4\xd0", "\0\0\0\0\0\0")
                   OPT("\4\xd0", "\0\0\0\0\0\0")),
         DNS_FORMERR, NULL},
        {"in the answer section", BYTES(QUERY("\1", "\0", "\0") OPT("\4\xd0", "\0\0\0\0\0\0")),
         DNS_NOERROR, NULL},
        {"in the authority section", BYTES(QUERY("\0", "\1", "\0") OPT("\4\xd0", "\0\0\0\0\0\0")),
         DNS_NOERROR, NULL},
        {"unknown option",
         BYTES(QUERY("\0", "\0", "\1") OPT("\4\xd0", "\0\0\0\0\0\6\xfd\xe9\0\2hi")), DNS_NOERROR,
         "edns 1232"},
        {"empty option", BYTES(QUERY("\0", "\0", "\1") OPT("\4\xd0", "\0\0\0\0\0\4\0\3\0\0")),
         DNS_NOERROR, "edns 1232"},
        {"option longer than its record",
         BYTES(QUERY("\0", "\0", "\1") OPT("\4\xd0", "\0\0\0\0\0\4\0\3\0\1")), DNS_FORMERR, NULL},
        {"record longer than the message",
         BYTES(QUERY("\0", "\0", "\1") OPT("\4\xd0", "\0\0\0\0\0\1")), DNS_FORMERR, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t size = answer_raw(&fixture.config, cases[i].query, false);

        assert_true(size >= DNS_HEADER_BYTES);
        const char *answer = answer_text(size);
        const char *edns = strstr(answer, "edns ");
        const size_t edns_bytes = edns == NULL ? 0 : strcspn(edns, "|");

        if ((out[3] & 0xf) != cases[i].rcode || (edns == NULL) != (cases[i].edns == NULL) ||
            (edns != NULL && (edns_bytes != strlen(cases[i].edns) ||
                              strncmp(edns, cases[i].edns, edns_bytes) != 0))) {
            fail_msg("%s: %s", cases[i].name, answer);
        }
    }
}

/* --- sizes --- */

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;

    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        count++;
    }
    return count;
}

static size_t ask_sized(const struct dns_config *config, const char *question, bool tcp,
                        uint16_t edns_size)
{
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = dns_fixture_query(question, edns_size, query, sizeof(query));

    return answer_raw(config, slice_from((const char *)query, size), tcp);
}

/* Each size that a client may take, around the whole answer's: to the byte it is whole or cut,
 * never larger, never empty, and cut answers say so if they are to. */
static void answers_fit_to_the_byte(void **state)
{
    static const struct {
        const char *question;
        bool tells_always; /* TC without enable_truncate */
    } cases[] = {
        {"sized.service.consul A", false},
        {"sized.service.consul SRV", false},
        {"chatty.node.consul TXT", true},
    };
    struct dns_config config = fixture.config;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t whole = ask_sized(&config, cases[i].question, true, 4096);
        const size_t records = count_of(answer_text(whole), "|an ");

        assert_in_range(whole, 600, 4000);
        for (size_t limit = whole + 40; limit > 512; limit--) {
            config.enable_truncate = limit % 2 == 0;
            const size_t size = ask_sized(&config, cases[i].question, false, (uint16_t)limit);
            const size_t got = count_of(answer_text(size), "|an ");
            const bool fits = limit >= whole;
            const bool tells = (out[2] & 2) != 0;

            if (size > limit || got == 0 || (got == records && size == whole) != fits) {
                fail_msg("%s, %zu: %zu bytes, %zu of %zu, whole %zu", cases[i].question, limit,
                         size, got, records, whole);
            }
            if (tells != (got < records && (config.enable_truncate || cases[i].tells_always))) {
                fail_msg("%s, %zu: TC is wrong, %zu of %zu", cases[i].question, limit, got,
                         records);
            }
        }
    }
}

/* An instance at its node, others at that node's name: a shortened answer tells its address once.
 */
static void equal_names_are_one_however_they_came_about(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        const char *answer = ask(&fixture.config, "both.service.consul SRV");

        assert_int_equal(count_of(answer, "|an "), 3);
        assert_int_equal(count_of(answer, "|ar n1.node.dc1.consul 0 A 10.0.0.1"), 1);
    }
}

/* TCP gives all, up to what its length field can say; EDNS plays no role there. */
static void tcp_answers_end_where_their_length_does(void **state)
{
    struct dns_config config = fixture.config;

    (void)state;
    for (uint16_t edns_size = 0; edns_size <= 1024; edns_size = (uint16_t)(edns_size + 512)) {
        for (int tells = 0; tells < 2; tells++) {
            config.enable_truncate = tells != 0;
            size_t size = ask_sized(&config, "wide.service.consul A", true, edns_size);

            assert_int_equal(count_of(answer_text(size), "|an "), WIDE);
            assert_int_equal(out[2] & 2, 0);
            size = ask_sized(&config, "wide.service.consul SRV", true, edns_size);
            const size_t records = count_of(answer_text(size), "|an ");

            assert_in_range(size, DNS_TCP_BYTES_MAX - 200, DNS_MESSAGE_BYTES_MAX);
            assert_in_range(records, WIDE / 2, WIDE - 1);
            assert_int_equal(count_of(answer_text(size), " A 10.6."), records);
            assert_int_equal((out[2] & 2) != 0, tells);
        }
    }
}

/* Each of many instances leads to a name that many are behind: what is read has an end. */
static void names_behind_names_are_read_within_a_bound(void **state)
{
    enum {
        READS_MAX = DNS_CHAIN_LOOKS_MAX / DNS_CHAIN_READ_LOOKS,
        LED_TO_MAX = (READS_MAX + WIDE - 1) / WIDE,
        ADDRESSES = 3
    };
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t query_size = dns_fixture_query("led.service.consul SRV", 0, query, sizeof(query));

    (void)state;
    assert_in_range(LED_TO_MAX, 1, LED - 1);
    for (unsigned turn = 0; turn < 2; turn++) { /* of each question anew */
        const size_t size =
            answer_raw(&fixture.config, slice_from((const char *)query, query_size), true);

        assert_true(size > DNS_HEADER_BYTES);
        assert_int_equal(out[6] << 8 | out[7], LED);
        assert_int_equal(out[10] << 8 | out[11], ADDRESSES * LED_TO_MAX);
    }
}

/* --- domains --- */

static void domains_that_overlap(void **state)
{
    static const struct {
        const char *domain, *alt_domain, *datacenter, *name;
        bool found;
    } cases[] = {
        {"consul", "", "dc1", "n1.node.dc1.dc.consul A", true},
        {"consul", "", "dc1", "n1.node.DC1.Dc.consul A", true},
        {"consul", "", "dc1", "n1.node.dc2.dc.consul A", false},
        {"consul", "", "dc1", "n1.node.dc1.dc.dc.consul A", false},
        {"consul", "", "dc1", "n1.node.dc1.ns.consul A", false},
        {"consul", "", "dc1", "n1.node.dc1.peer.consul A", false},
        {"consul", "", "dc", "n1.node.dc.consul A", true},
        {"consul", "", "dc", "n1.node.dc.dc.consul A", true},
        /* The domain is called like the datacenter. */
        {"dc1", "", "dc1", "n1.node.dc1 A", true},
        {"dc1", "", "dc1", "n1.node.dc1.dc1 A", true},
        {"consul", "dc1", "dc1", "n1.node.dc1.dc1 A", true},
        {"consul", "dc1", "dc1", "n1.node.dc1.consul A", true},
        /* One domain lies below the other; the longer one counts. */
        {"consul", "dc1.consul", "dc1", "n1.node.dc1.consul A", true},
        {"consul", "dc1.consul", "dc1", "n1.node.dc1.dc1.consul A", true},
        {"consul", "dc1.consul", "dc1", "n1.node.consul A", true},
        {"dc1.consul", "consul", "dc1", "n1.node.consul A", true},
        {"dc1.consul", "consul", "dc1", "n1.node.dc1.consul A", true},
        {"consul", "test.consul", "dc1", "n1.node.test.consul A", true},
        {"consul", "test.consul", "dc1", "n1.node.dc1.test.consul A", true},
        /* The end of a label is no label. */
        {"consul", "", "my-consul", "n1.node.my-consul.consul A", true},
        {"consul", "", "dc1", "n1.node.my-consul A", false},
        {"consul", "", "dc1", "n1.node.myconsul A", false},
        /* The root, spelled both ways. */
        {"", "", "dc1", "n1.node A", true},
        {".", "", "dc1", "n1.node.dc1 A", true},
        {".", "", "dc1", "n1.node.dc2 A", false},
        {".", "", "dc1", "n1.node.consul A", false},
        {".", "consul", "dc1", "n1.node.consul A", true},
        {"consul", ".", "dc1", "n1.node A", false},
        /* Words of the grammar as names. */
        {"node", "", "dc1", "n1.node.node A", true},
        {"node", "", "node", "n1.node.node.node A", false}, /* right-most word: node n1.node */
        {"service", "", "dc1", "n1.node.service A", true},
        {"consul", "", "node", "n1.node.node.consul A", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dns_config config = fixture.config;

        config.domain = cases[i].domain;
        config.alt_domain = cases[i].alt_domain;
        config.datacenter = cases[i].datacenter;
        const char *answer = ask(&config, cases[i].name);

        if ((strstr(answer, " A 10.0.0.1") != NULL) != cases[i].found) {
            fail_msg("%s, %s, %s: %s: %s", cases[i].domain, cases[i].alt_domain,
                     cases[i].datacenter, cases[i].name, answer);
        }
    }
}

/* Every name is below the root, but for reverse names. */
static void the_root_may_be_the_domain(void **state)
{
    struct dns_config config = fixture.config;

    (void)state;
    config.domain = ".";
    assert_string_equal(ask(&config, "any.thing.example A"),
                        "NXDOMAIN aa rd|ns  0 SOA ns hostmaster 1700000000 3600 600 86400 0");
    assert_string_equal(ask(&config, "consul.service SRV"),
                        "NOERROR aa rd|an consul.service 0 SRV 1 1 8300 n1.node.dc1"
                        "|ar n1.node.dc1 0 A 10.0.0.1");
    assert_string_equal(ask(&config, "1.0.0.10.in-addr.arpa PTR"),
                        "NOERROR aa rd|an 1.0.0.10.in-addr.arpa 0 PTR n1.node.dc1");
    assert_string_equal(ask(&config, "x.arpa A"), "SERVFAIL rd ra");
}

/* A domain leaves room for the names that every answer about it may need. */
static void a_domain_may_be_long_but_not_too_long(void **state)
{
    struct dns_config config = fixture.config;
    char domain[DNS_NAME_BYTES_MAX];
    char question[DNS_NAME_BYTES_MAX + 8];

    (void)state;
    (void)snprintf(domain, sizeof(domain), "%s.%s.%s.%.50s", SIXTY_THREE, SIXTY_THREE, SIXTY_THREE,
                   SIXTY_THREE); /* 242 bytes; with "hostmaster." 253 */
    config.domain = domain;
    (void)snprintf(question, sizeof(question), "%s SOA", domain);
    assert_non_null(strstr(ask(&config, question), " SOA ns."));
    domain[strlen(domain)] = 'x';
    domain[strlen(SIXTY_THREE) * 3 + 3 + 51] = '\0';
    assert_null(dns_zone_new(&config));
    config.domain = "consul";
    config.alt_domain = domain;
    struct dns_zone *zone = dns_zone_new(&config);

    assert_non_null(zone); /* Nothing is ever called so. */
    dns_zone_free(zone);
}

/* What nobody may read is not there; what needs no reading is. */
static void with_all_denied_nothing_is_there(void **state)
{
#define SOA "|ns consul 0 SOA ns.consul hostmaster.consul 1700000000 3600 600 86400 0"
    static const struct {
        const char *question, *answer;
    } cases[] = {
        {"n1.node.consul A", "NXDOMAIN aa rd" SOA},
        {"n1.node.consul TXT", "NXDOMAIN aa rd" SOA},
        {"ordered.service.consul SRV", "NXDOMAIN aa rd" SOA},
        {"first.ordered.service.consul A", "NXDOMAIN aa rd" SOA},
        {"1.0.0.10.in-addr.arpa PTR", "SERVFAIL rd ra"},
        {"consul NS", "NOERROR aa rd"},
        {"0a000001.addr.consul A", "NOERROR aa rd|an 0a000001.addr.consul 0 A 10.0.0.1"},
    };
    struct dns_config config = fixture.config;

    (void)state;
    config.deny = true;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(ask(&config, cases[i].question), cases[i].answer);
    }
}

/* --- order --- */

/* Pearson's statistic of counts that should be equal. */
static double chi_square(const unsigned *counts, size_t count, unsigned total)
{
    const double wanted = (double)total / (double)count;
    double sum = 0;

    for (size_t i = 0; i < count; i++) {
        const double difference = (double)counts[i] - wanted;

        sum += difference * difference / wanted;
    }
    return sum;
}

/* Each instance is at each place equally often, also where only three of them are told. The
 * generator's seed is fixed, so this passes always or never. */
static void the_order_is_uniform(void **state)
{
    enum { TURNS = 3600 };
    static const struct {
        const char *question;
        bool tcp;
        size_t told;
    } cases[] = {{"ordered.service.consul A", false, 3},
                 {"ordered.service.consul A", true, SHUFFLED},
                 {"ordered.service.consul SRV", false, 3},
                 {"ordered.service.consul SRV", true, SHUFFLED}};
    const double bound = 31.8; /* 8 degrees of freedom, one in ten thousand */

    (void)state;
    struct dns_zone *zone = dns_zone_new(&fixture.config);

    assert_non_null(zone);
    for (int kept = 0; kept < 2; kept++) { /* read from the store each time, and kept */
        DNS_REQUIRE(store_read_begin(fixture.store, &fixture.txn) == 0);
        if (kept != 0) {
            resolver->cache = dns_cache_new();
            dns_cache_renew(resolver->cache, &fixture.txn);
        }
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            unsigned counts[SHUFFLED][SHUFFLED] = {{0}};
            uint8_t query[DNS_UDP_BYTES_DEFAULT];
            const size_t size = dns_fixture_query(cases[i].question, 0, query, sizeof(query));

            for (unsigned turn = 0; turn < TURNS; turn++) {
                (void)dns_resolver_answer(resolver, zone, &fixture.txn, query, size, cases[i].tcp,
                                          DNS_FIXTURE_NOW_S, &random_state, out, sizeof(out));
                assert_int_equal(resolver->answer_count >= cases[i].told, 1);
                for (size_t place = 0; place < cases[i].told; place++) {
                    const struct dns_record *record = &resolver->answers[place];
                    const unsigned number =
                        record->type == DNS_SRV ? record->srv.port : record->address[3];

                    assert_in_range(number, 1, SHUFFLED);
                    counts[place][number - 1]++;
                }
            }
            for (size_t place = 0; place < cases[i].told; place++) {
                const double found = chi_square(counts[place], SHUFFLED, TURNS);

                if (found > bound) {
                    fail_msg("%s, place %zu: %f", cases[i].question, place, found);
                }
            }
        }
        store_read_end(&fixture.txn);
    }
    dns_cache_free(resolver->cache);
    resolver->cache = NULL;
    dns_zone_free(zone);
}

static int setup(void **state)
{
    static const struct dns_fixture_entry entries[] = {
        {.node = "n1", .address = "10.0.0.1", .service = "consul", .port = 8300},
        {.node = "n1", .address = "10.0.0.1", .service = "both", .id = "b1", .port = 1},
        {.node = "n1", .address = "10.0.0.1", .service = "both", .id = "b2", .port = 2},
        {.node = "n1",
         .address = "10.0.0.1",
         .service = "both",
         .id = "b3",
         .service_address = "n1.node.dc1.consul",
         .port = 3},
        {.node = "n1",
         .address = "10.0.0.1",
         .service = "both",
         .id = "b4",
         .service_address = "n1.node.dc1.consul",
         .port = 4},
        {.node = SIXTY_THREE, .address = "10.0.1.63", .service = SIXTY_THREE, .port = 1},
        {.node = SIXTY_THREE,
         .address = "10.0.1.63",
         .service = "long",
         .tags = SIXTY_THREE,
         .port = 1},
        {.node = SIXTY_THREE "h", .address = "10.0.1.64", .service = "long", .port = 2},
    };
    char node[96], address[32], meta[2048] = "";

    (void)state;
    resolver = dns_resolver_new();
    assert_non_null(resolver);
    dns_fixture_open(&fixture);
    dns_fixture_begin(&fixture);
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        dns_fixture_put(&fixture, &entries[i]);
    }
    for (unsigned i = 1; i <= SIZED; i++) {
        (void)snprintf(node, sizeof(node), "s%u", i);
        (void)snprintf(address, sizeof(address), "10.3.0.%u", i);
        dns_fixture_put(&fixture,
                        &(struct dns_fixture_entry){
                            .node = node, .address = address, .service = "sized", .port = i});
    }
    for (unsigned i = 1; i <= SHUFFLED; i++) {
        (void)snprintf(node, sizeof(node), "o%u", i);
        (void)snprintf(address, sizeof(address), "10.4.0.%u", i);
        dns_fixture_put(&fixture, &(struct dns_fixture_entry){.node = node,
                                                              .address = address,
                                                              .service = "ordered",
                                                              .tags = i == 1 ? "first" : NULL,
                                                              .port = i});
    }
    for (unsigned i = 0; i < WIDE; i++) {
        (void)snprintf(node, sizeof(node), "%060u", i);
        (void)snprintf(address, sizeof(address), "10.6.%u.%u", i / 256, i % 256);
        dns_fixture_put(&fixture,
                        &(struct dns_fixture_entry){
                            .node = node, .address = address, .service = "wide", .port = 1});
    }
    for (uint32_t i = 0; i < LED; i++) {
        (void)snprintf(node, sizeof(node), "led%u", i);
        dns_fixture_put(&fixture,
                        &(struct dns_fixture_entry){.node = node,
                                                    .address = "10.0.0.8",
                                                    .service = "led",
                                                    .service_address = "wide.service.consul",
                                                    .port = i + 1});
    }
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(meta + strlen(meta), sizeof(meta) - strlen(meta), "%skey%u %060u",
                       i == 0 ? "" : " ", i, i);
    }
    dns_fixture_put(&fixture, &(struct dns_fixture_entry){
                                  .node = "chatty", .address = "10.0.0.9", .meta = meta});
    dns_fixture_commit(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dns_resolver_free(resolver);
    dns_fixture_close(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_of_pointers_end),
        cmocka_unit_test(any_byte_may_stand_in_a_label),
        cmocka_unit_test(spelling_is_kept_and_does_not_matter),
        cmocka_unit_test(labels_have_63_bytes_at_most),
        cmocka_unit_test(headers_of_all_kinds),
        cmocka_unit_test(counts_classes_and_what_follows),
        cmocka_unit_test(edns_of_all_kinds),
        cmocka_unit_test(answers_fit_to_the_byte),
        cmocka_unit_test(equal_names_are_one_however_they_came_about),
        cmocka_unit_test(tcp_answers_end_where_their_length_does),
        cmocka_unit_test(names_behind_names_are_read_within_a_bound),
        cmocka_unit_test(domains_that_overlap),
        cmocka_unit_test(the_root_may_be_the_domain),
        cmocka_unit_test(a_domain_may_be_long_but_not_too_long),
        cmocka_unit_test(with_all_denied_nothing_is_there),
        cmocka_unit_test(the_order_is_uniform),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
