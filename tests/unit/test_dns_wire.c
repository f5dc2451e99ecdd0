/* The wire format: what a stranger sends is read within its bounds or refused, and what we write
 * can be read again. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "dns/dns_wire.h"

enum { TEST_BYTES_MAX = 1024 };

#define BYTES(text) ((struct slice){(text), sizeof(text) - 1})
#define HEADER_ONE "\x12\x34\x01\x00\0\1\0\0\0\0\0\0"
#define X1_NODE_CONSUL "\2x1\4node\6consul\0"
#define TYPE_A_IN "\0\1\0\1"
#define SIXTY_THREE "\77aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SIXTY_ONE "\75aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEADER_WITH(answers, authorities, additionals)                                             \
    "\x12\x34\x01\x00\0\1\0" answers "\0" authorities "\0" additionals

/* A copy of exactly the right size, so that a read past the end is seen by the sanitizer. */
static enum dns_verdict parse(struct slice message, struct dns_query *query)
{
    uint8_t *copy = malloc(message.size + 1);
    uint8_t *exact = copy == NULL ? NULL : realloc(copy, message.size == 0 ? 1 : message.size);

    assert_non_null(exact);
    memcpy(exact, message.data, message.size);
    memset(query, 0, sizeof(*query));
    const enum dns_verdict verdict = dns_query_parse(exact, message.size, query);

    free(exact);
    return verdict;
}

static void queries_get_the_recorded_verdict(void **state)
{
    static const struct {
        const char *name;
        struct slice message;
        enum dns_verdict verdict;
    } cases[] = {
        {"empty", BYTES(""), DNS_QUERY_IGNORE},
        {"eleven bytes", BYTES("\x12\x34\1\0\0\0\0\0\0\0\0"), DNS_QUERY_IGNORE},
        {"no question promised", BYTES("\x12\x34\1\0\0\0\0\0\0\0\0\0"), DNS_QUERY_BAD},
        {"a question promised, none sent", BYTES(HEADER_ONE), DNS_QUERY_NO_NAME},
        {"an answer", BYTES("\x12\x34\x81\0\0\1\0\0\0\0\0\0" X1_NODE_CONSUL TYPE_A_IN),
         DNS_QUERY_IGNORE},
        {"opcode 1", BYTES("\x12\x34\x09\0\0\1\0\0\0\0\0\0" X1_NODE_CONSUL TYPE_A_IN),
         DNS_QUERY_NOTIMP},
        {"opcode update", BYTES("\x12\x34\x29\0\0\1\0\0\0\0\0\0" X1_NODE_CONSUL TYPE_A_IN),
         DNS_QUERY_NOTIMP},
        {"opcode notify", BYTES("\x12\x34\x21\0\0\1\0\0\0\0\0\0" X1_NODE_CONSUL TYPE_A_IN),
         DNS_QUERY_GOOD},
        {"plain", BYTES(HEADER_ONE X1_NODE_CONSUL TYPE_A_IN), DNS_QUERY_GOOD},
        {"the root", BYTES(HEADER_ONE "\0" TYPE_A_IN), DNS_QUERY_GOOD},
        {"two questions", BYTES("\x12\x34\1\0\0\2\0\0\0\0\0\0\1x\0" TYPE_A_IN), DNS_QUERY_BAD},
        {"pointer to itself", BYTES(HEADER_ONE "\xc0\x0c" TYPE_A_IN), DNS_QUERY_BAD},
        {"pointer forward", BYTES(HEADER_ONE "\xc0\x20" TYPE_A_IN), DNS_QUERY_BAD},
        {"two pointers in a ring", BYTES(HEADER_ONE "\xc0\x0e\xc0\x0c" TYPE_A_IN), DNS_QUERY_BAD},
        {"a label, then back to it", BYTES(HEADER_ONE "\1a\xc0\x0c" TYPE_A_IN), DNS_QUERY_BAD},
        {"pointer into the header", BYTES(HEADER_ONE "\xc0\x00" TYPE_A_IN), DNS_QUERY_BAD},
        {"pointer's first byte is the last", BYTES(HEADER_ONE "\xc0"), DNS_QUERY_BAD},
        {"label past the end", BYTES(HEADER_ONE "\77abc"), DNS_QUERY_BAD},
        {"label type 01", BYTES(HEADER_ONE "\x40xxxx\0" TYPE_A_IN), DNS_QUERY_BAD},
        {"label type 10", BYTES(HEADER_ONE "\x80xxxx\0" TYPE_A_IN), DNS_QUERY_BAD},
        {"no end", BYTES(HEADER_ONE "\2x1\4node\6consul"), DNS_QUERY_BAD},
        {"255 bytes",
         BYTES(HEADER_ONE SIXTY_THREE SIXTY_THREE SIXTY_THREE SIXTY_ONE "\0" TYPE_A_IN),
         DNS_QUERY_GOOD},
        {"256 bytes",
         BYTES(HEADER_ONE SIXTY_THREE SIXTY_THREE SIXTY_THREE SIXTY_THREE "\0" TYPE_A_IN),
         DNS_QUERY_BAD},
        {"ends after the name", BYTES(HEADER_ONE X1_NODE_CONSUL), DNS_QUERY_GOOD},
        {"ends within the type", BYTES(HEADER_ONE X1_NODE_CONSUL "\0"), DNS_QUERY_BAD},
        {"ends after the type", BYTES(HEADER_ONE X1_NODE_CONSUL "\0\1"), DNS_QUERY_GOOD},
        {"ends within the class", BYTES(HEADER_ONE X1_NODE_CONSUL "\0\1\0"), DNS_QUERY_GOOD},
        {"bytes behind", BYTES(HEADER_ONE X1_NODE_CONSUL TYPE_A_IN "garbage"), DNS_QUERY_GOOD},
        {"one answer record",
         BYTES(HEADER_WITH("\1", "\0", "\0") "\1x\0" TYPE_A_IN "\1a\0\0\1\0\1\0\0\0\0\0\4\1\2\3\4"),
         DNS_QUERY_GOOD},
        {"two answer records", BYTES(HEADER_WITH("\2", "\0", "\0") "\1x\0" TYPE_A_IN),
         DNS_QUERY_BAD},
        {"promised records do not come", BYTES(HEADER_WITH("\1", "\1", "\2") "\1x\0" TYPE_A_IN),
         DNS_QUERY_GOOD},
        {"three additional records", BYTES(HEADER_WITH("\0", "\0", "\3") "\1x\0" TYPE_A_IN),
         DNS_QUERY_BAD},
        {"record cut in its head",
         BYTES(HEADER_WITH("\0", "\0", "\1") "\1x\0" TYPE_A_IN "\0\0\51\4"), DNS_QUERY_BAD},
        {"record cut in its data",
         BYTES(HEADER_WITH("\1", "\0", "\0") "\1x\0" TYPE_A_IN "\1a\0\0\1\0\1\0\0\0\0\0\4\1\2\3"),
         DNS_QUERY_BAD},
        {"record's name has no end", BYTES(HEADER_WITH("\0", "\0", "\1") "\1x\0" TYPE_A_IN "\5abc"),
         DNS_QUERY_BAD},
    };
    struct dns_query query;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const enum dns_verdict verdict = parse(cases[i].message, &query);

        if (verdict != cases[i].verdict) {
            fail_msg("%s: verdict %d, want %d", cases[i].name, verdict, cases[i].verdict);
        }
    }
}

#define OPT(size, rest) "\0\0\51" size "\0\0\0\0" rest
#define ONE_ADDITIONAL HEADER_WITH("\0", "\0", "\1") "\1x\0" TYPE_A_IN

static void edns_is_read_and_echoed(void **state)
{
    static const struct {
        const char *name;
        struct slice message;
        enum dns_verdict verdict;
        uint16_t size;
        struct slice echo; /* the answer's OPT record, empty: none */
    } cases[] = {
        {"none", BYTES(HEADER_ONE "\1x\0" TYPE_A_IN), DNS_QUERY_GOOD, 0, BYTES("")},
        {"plain", BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\0")), DNS_QUERY_GOOD, 1232,
         BYTES(OPT("\x04\xd0", "\0\0"))},
        {"version 1 and DO", BYTES(ONE_ADDITIONAL "\0\0\51\x04\xd0\0\1\x80\0\0\0"), DNS_QUERY_GOOD,
         1232, BYTES(OPT("\x04\xd0", "\0\0"))},
        {"another option is dropped",
         BYTES(ONE_ADDITIONAL OPT("\x10\0", "\0\x0c\0\x0a\0\x08\1\2\3\4\5\6\7\x08")),
         DNS_QUERY_GOOD, 4096, BYTES(OPT("\x10\0", "\0\0"))},
        {"subnet, scope cleared",
         BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x0b\0\x08\0\7\0\1\x18\x10\xc6\x12\5")),
         DNS_QUERY_GOOD, 1232, BYTES(OPT("\x04\xd0", "\0\x0b\0\x08\0\7\0\1\x18\0\xc6\x12\5"))},
        {"subnet cut to its prefix",
         BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x0c\0\x08\0\x08\0\1\x13\0\xc6\x12\xff\xff")),
         DNS_QUERY_GOOD, 1232, BYTES(OPT("\x04\xd0", "\0\x0b\0\x08\0\7\0\1\x13\0\xc6\x12\xe0"))},
        {"subnet shorter than its prefix",
         BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x09\0\x08\0\5\0\1\x18\0\xc6")), DNS_QUERY_GOOD,
         1232, BYTES(OPT("\x04\xd0", "\0\x0b\0\x08\0\7\0\1\x18\0\xc6\0\0"))},
        {"subnet of family 0", BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x08\0\x08\0\4\0\0\0\0")),
         DNS_QUERY_GOOD, 1232, BYTES(OPT("\x04\xd0", "\0\x08\0\x08\0\4\0\0\0\0"))},
        {"subnet of family 0 with a scope",
         BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x08\0\x08\0\4\0\0\0\x18")), DNS_QUERY_GOOD, 1232,
         BYTES(OPT("\x04\xd0", "\0\x08\0\x08\0\4\0\0\0\0"))},
        {"subnet of an unknown family",
         BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x08\0\x08\0\4\0\3\0\0")), DNS_QUERY_BAD, 0,
         BYTES("")},
        {"33 bits of IPv4", BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x08\0\x08\0\4\0\1\x21\0")),
         DNS_QUERY_BAD, 0, BYTES("")},
        {"129 bits of IPv6", BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x08\0\x08\0\4\0\2\x81\0")),
         DNS_QUERY_BAD, 0, BYTES("")},
        {"subnet without its head", BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\7\0\x08\0\3\0\1\x18")),
         DNS_QUERY_BAD, 0, BYTES("")},
        {"option cut", BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\x08\0\x08\0\x10\0\0\0\0")),
         DNS_QUERY_BAD, 0, BYTES("")},
        {"option's head cut", BYTES(ONE_ADDITIONAL OPT("\x04\xd0", "\0\3\0\x08\0")), DNS_QUERY_BAD,
         0, BYTES("")},
        {"two, the last one counts",
         BYTES(HEADER_WITH("\0", "\0", "\2") "\1x\0" TYPE_A_IN OPT("\x10\0", "\0\0")
                   OPT("\x04\xd0", "\0\0")),
         DNS_QUERY_GOOD, 1232, BYTES(OPT("\x04\xd0", "\0\0"))},
        {"as an answer it is no EDNS",
         BYTES(HEADER_WITH("\1", "\0", "\0") "\1x\0" TYPE_A_IN OPT("\x04\xd0", "\0\0")),
         DNS_QUERY_GOOD, 0, BYTES("")},
    };
    struct dns_query query;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t out[TEST_BYTES_MAX];
        struct dns_writer writer = {.data = out, .limit = sizeof(out)};
        const enum dns_verdict verdict = parse(cases[i].message, &query);

        if (verdict != cases[i].verdict) {
            fail_msg("%s: verdict %d, want %d", cases[i].name, verdict, cases[i].verdict);
        }
        if (query.edns) {
            dns_writer_opt(&writer, &query);
        }
        if ((query.edns ? query.edns_size : 0) != cases[i].size ||
            writer.size != cases[i].echo.size || writer.size != dns_opt_size(&query) ||
            memcmp(out, cases[i].echo.data, writer.size) != 0) {
            fail_msg("%s: size %u, echo of %zu bytes", cases[i].name, query.edns_size, writer.size);
        }
    }
}

/* Cut anywhere, the message is refused or read, but never read past its end. */
static void no_cut_reads_past_the_end(void **state)
{
    static const struct slice whole =
        BYTES(HEADER_WITH("\1", "\1", "\2") X1_NODE_CONSUL TYPE_A_IN
              "\xc0\x0c\0\1\0\1\0\0\0\0\0\4\1\2\3\4"
              "\1a\xc0\x0f\0\1\0\1\0\0\0\0\0\4\1\2\3\4"
              "\0\0\51\x04\xd0\0\0\0\0\0\x0b\0\x08\0\7\0\1\x18\x10\xc6\x12\5");
    struct dns_query query;

    (void)state;
    assert_int_equal(parse(whole, &query), DNS_QUERY_GOOD);
    assert_true(query.edns);
    for (size_t size = 0; size < whole.size; size++) {
        (void)parse(slice_from(whole.data, size), &query);
    }
}

static void compressed_names_are_followed_backwards(void **state)
{
    static const struct slice message = BYTES(HEADER_ONE "\4node\6consul\0\2x1\xc0\x0c");
    struct dns_reader reader = dns_reader_from(message.data, message.size);
    struct dns_name_text name;

    (void)state;
    reader.at += message.size - 5;
    dns_reader_name(&reader, &name);
    assert_false(reader.failed);
    assert_int_equal(dns_reader_left(&reader), 0);
    assert_int_equal(name.size, sizeof(X1_NODE_CONSUL) - 1);
    assert_memory_equal(name.wire, X1_NODE_CONSUL, sizeof(X1_NODE_CONSUL) - 1);
    assert_int_equal(name.label_count, 3);
    assert_int_equal(name.labels[1], 3);
}

static void texts_become_labels(void **state)
{
    static const struct {
        const char *text;
        struct slice labels; /* empty: no name */
    } cases[] = {
        {"a.b", BYTES("\1a\1b")},
        {"a.b.", BYTES("\1a\1b")},
        {"with space", BYTES("\12with space")},
        {"", BYTES("")},
        {".", BYTES("")},
        {"a..b", BYTES("")},
        {".a", BYTES("")},
        {"a.b..", BYTES("")},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", BYTES(SIXTY_THREE)},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", BYTES("")},
    };
    uint8_t out[DNS_NAME_BYTES_MAX];
    char longest[300];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t size = dns_labels_from_text(slice_from_text(cases[i].text), out, sizeof(out));

        if (size != cases[i].labels.size || memcmp(out, cases[i].labels.data, size) != 0) {
            fail_msg("\"%s\": %zu bytes, want %zu", cases[i].text, size, cases[i].labels.size);
        }
    }
    for (size_t i = 0; i < sizeof(longest); i++) {
        longest[i] = i % 2 == 0 ? 'a' : '.';
    }
    assert_int_equal(dns_labels_from_text(slice_from(longest, 253), out, sizeof(out)), 254);
    assert_int_equal(dns_labels_from_text(slice_from(longest, 255), out, sizeof(out)), 0);
    assert_int_equal(dns_labels_from_text(slice_from(longest, 9), out, 8), 0);
}

/* RFC 2782: the target is not compressed, but later names may point to it. */
static void names_are_compressed_by_what_was_written(void **state)
{
    struct dns_name domain = {.labels = (const uint8_t *)"\6consul", .size = 7};
    struct dns_name node = {.labels = (const uint8_t *)"\2x1", .size = 3, .parent = &domain};
    struct dns_record srv = {
        .owner = &domain, .type = DNS_SRV, .srv = {.target = &node, .port = 7}};
    struct dns_record address = {.owner = &node, .type = DNS_A, .address = {1, 2, 3, 4}};
    static const struct slice packed =
        BYTES("\6consul\0\0\41\0\1\0\0\0\0\0\x11\0\1\0\0\0\7\2x1\6consul\0"
              "\xc0\x18\0\1\0\1\0\0\0\0\0\4\1\2\3\4");
    uint8_t out[TEST_BYTES_MAX];
    struct dns_writer writer = {.data = out, .limit = sizeof(out), .pass = 1, .compress = true};

    (void)state;
    dns_writer_record(&writer, &srv);
    dns_writer_record(&writer, &address);
    assert_false(writer.failed);
    assert_int_equal(writer.size, packed.size);
    assert_memory_equal(out, packed.data, packed.size);

    /* Without compression, and counted only: the same sizes, written out. */
    struct dns_writer plain = {.limit = SIZE_MAX / 2, .pass = 2};

    dns_writer_record(&plain, &srv);
    dns_writer_record(&plain, &address);
    assert_int_equal(plain.size, packed.size - 2 + dns_name_size(&node));
}

static void a_record_that_does_not_fit_leaves_no_trace(void **state)
{
    struct dns_name owner = {.labels = (const uint8_t *)"\1a", .size = 2};
    const struct dns_record record = {.owner = &owner, .type = DNS_A};
    uint8_t out[64];

    (void)state;
    for (size_t limit = 0; limit < 3 + 10 + 4; limit++) {
        struct dns_writer writer = {.data = out, .limit = limit, .pass = limit + 1};

        dns_writer_record(&writer, &record);
        assert_true(writer.failed);
        assert_int_equal(writer.size, 0);
    }
}

static void metadata_become_txt_strings(void **state)
{
    static const struct {
        const char *key, *value;
        struct slice strings;
    } cases[] = {
        {"k", "v", BYTES("\3k=v")},
        {"k", "", BYTES("\2k=")},
        {"RFC1035-x", "plain", BYTES("\5plain")},
        {"rfc1035-", "", BYTES("\0")},
        {"rfc1035", "v", BYTES("\11rfc1035=v")},
        {"a=b", "c=d", BYTES("\10a`=b=c=d")},
        {"a`b", "c`d", BYTES("\11a``b=c``d")},
        {" k ", "v", BYTES("\7` k` =v")},
    };
    struct dns_name owner = {.labels = (const uint8_t *)"\1a", .size = 2};
    char value[300];
    uint8_t out[TEST_BYTES_MAX];
    const size_t head = 3 + 10;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dns_writer writer = {.data = out, .limit = sizeof(out), .pass = i + 1};
        const struct dns_record record = dns_record_meta(&owner, 0, slice_from_text(cases[i].key),
                                                         slice_from_text(cases[i].value));

        dns_writer_record(&writer, &record);
        if (writer.failed || writer.size - head != cases[i].strings.size ||
            memcmp(out + head, cases[i].strings.data, cases[i].strings.size) != 0) {
            fail_msg("%s, %s: %zu bytes", cases[i].key, cases[i].value, writer.size - head);
        }
    }
    /* 302 characters take two strings. */
    memset(value, 'v', sizeof(value));
    struct dns_writer writer = {.data = out, .limit = sizeof(out), .pass = 100};
    const struct dns_record record =
        dns_record_meta(&owner, 0, BYTES("k"), slice_from(value, sizeof(value)));

    dns_writer_record(&writer, &record);
    assert_int_equal(writer.size - head, 2 + 302);
    assert_int_equal(out[head], 255);
    assert_int_equal(out[head + 256], 47);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries_get_the_recorded_verdict),
        cmocka_unit_test(edns_is_read_and_echoed),
        cmocka_unit_test(no_cut_reads_past_the_end),
        cmocka_unit_test(compressed_names_are_followed_backwards),
        cmocka_unit_test(texts_become_labels),
        cmocka_unit_test(names_are_compressed_by_what_was_written),
        cmocka_unit_test(a_record_that_does_not_fit_leaves_no_trace),
        cmocka_unit_test(metadata_become_txt_strings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
