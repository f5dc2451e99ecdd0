/* A query from anybody, against a small catalog: the first byte chooses transport and settings, the
 * rest is the message. Every answer must fit the client and be readable. Then the same bytes once
 * more, as what a recursor says about a name that an answer leads to. */

#include <stdint.h>

#include "dns/dns_internal.h"
#include "tests/unit/dns_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_SETTINGS = 16 };

static struct dns_fixture fixture;
/* One resolver for all inputs, as in a thread: what one answer leaves must not reach the next. */
static struct dns_resolver *resolver;
static struct dns_zone *zones[FUZZ_SETTINGS];

static void fixture_empty(void)
{
    dns_cache_free(resolver->cache);
    store_read_end(&fixture.txn);
    dns_fixture_close(&fixture);
    dns_resolver_free(resolver);
    for (size_t i = 0; i < FUZZ_SETTINGS; i++) {
        dns_zone_free(zones[i]);
    }
}

static void fixture_fill(void)
{
    static const struct dns_fixture_entry entries[] = {
        {.node = "n1", .address = "10.0.0.1", .meta = "rack r1", .service = "consul", .port = 8300},
        {.node = "six", .address = "2001:db8::6", .service = "web", .tags = "a.b Master"},
        {.node = "pg1", .address = "10.1.0.1", .service = "web", .service_address = "10.1.0.9"},
        {.node = "pg2", .address = "10.1.0.2", .service = "web", .check = "critical"},
        {.node = "alias", .address = "web.service.consul", .meta = "k v", .service = "inside"},
        {.node = "loop", .address = "loop.node.consul", .service = "loop"},
        {.node = "ext", .address = "www.example.org", .service = "outside"},
        {.node = "un_der.dot", .address = "10.0.0.3"},
    };
    char address[32];

    dns_fixture_open(&fixture);
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        dns_fixture_register(&fixture, &entries[i]);
    }
    for (unsigned i = 1; i <= 40; i++) {
        (void)snprintf(address, sizeof(address), "10.5.1.%u", i);
        dns_fixture_register(&fixture, &(struct dns_fixture_entry){.node = address,
                                                                   .address = address,
                                                                   .service = "many",
                                                                   .meta = "some metadata"});
    }
    DNS_REQUIRE(store_read_begin(fixture.store, &fixture.txn) == 0);
    fixture.config.alt_domain = "alt.example";
    fixture.config.service_ttls[0] = (struct dns_service_ttl){"w*", 5};
    fixture.config.service_ttl_count = 1;
    fixture.config.recursors[0] = "127.0.0.1:1";
    for (size_t i = 0; i < FUZZ_SETTINGS; i++) {
        fixture.config.recursor_count = i & 1;
        fixture.config.disable_compression = (i & 1) != 0;
        fixture.config.enable_truncate = (i & 2) != 0;
        fixture.config.a_record_limit = (i & 4) != 0;
        fixture.config.only_passing = (i & 8) != 0;
        zones[i] = dns_zone_new(&fixture.config);
        DNS_REQUIRE(zones[i] != NULL);
    }
    resolver = dns_resolver_new();
    DNS_REQUIRE(resolver != NULL);
    resolver->cache = dns_cache_new();
    DNS_REQUIRE(resolver->cache != NULL);
    dns_cache_renew(resolver->cache, &fixture.txn);
    DNS_REQUIRE(atexit(fixture_empty) == 0);
}

static void check_readable(uint8_t *message, size_t size)
{
    struct buffer text = {0};

    message[0] = 0x12; /* as the printer wants it */
    message[1] = 0x34;
    dns_fixture_print(message, size, &text);
    buffer_deinit(&text);
}

/* A zone whose answers lead to www.example.org; `said` is what a recursor answered. */
static void answer_with_recursor(const uint8_t *said, size_t size, bool tcp)
{
    static const uint8_t name[] = "\3www\7example\3org";
    static const char *const questions[] = {"ext.node.consul A", "outside.service.consul A",
                                            "outside.service.consul SRV"};
    static uint8_t out[DNS_MESSAGE_BYTES_MAX];
    const struct dns_chased chased = {
        .name = name, .name_size = sizeof(name), .answer = said, .answer_size = size};
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    uint64_t random = 1;

    resolver->chased = &chased;
    resolver->chased_count = 1;
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        const size_t query_size = dns_fixture_query(questions[i], 0, query, sizeof(query));
        const size_t answer_size =
            dns_resolver_answer(resolver, zones[1], &fixture.txn, query, query_size, tcp,
                                DNS_FIXTURE_NOW_S, &random, out, sizeof(out));

        DNS_REQUIRE(answer_size > 0);
        DNS_REQUIRE(resolver->wanted_count == 0);
        DNS_REQUIRE(tcp || answer_size <= DNS_UDP_BYTES_DEFAULT);
        check_readable(out, answer_size);
    }
    resolver->chased = NULL;
    resolver->chased_count = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t out[DNS_MESSAGE_BYTES_MAX];
    static struct dns_query parsed;
    uint64_t random = 1;

    if (fixture.store == NULL) {
        fixture_fill();
    }
    if (size == 0) {
        return 0;
    }
    const bool tcp = (data[0] & 1) != 0;
    struct dns_zone *zone = zones[(data[0] >> 1) % FUZZ_SETTINGS];
    /* A copy of its own size: a read past its end is seen. */
    uint8_t *copy = malloc(size);

    DNS_REQUIRE(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    uint8_t *exact = realloc(copy, size - 1 == 0 ? 1 : size - 1);

    DNS_REQUIRE(exact != NULL);
    static const struct dns_zone *zone_before;

    if (zone != zone_before) {
        dns_cache_flush(resolver->cache);
        zone_before = zone;
    }
    const size_t answer_size =
        dns_resolver_answer(resolver, zone, &fixture.txn, exact, size - 1, tcp, DNS_FIXTURE_NOW_S,
                            &random, out, sizeof(out));

    if (zone == zones[1]) {
        answer_with_recursor(exact, size - 1, tcp);
    }
    free(exact);
    if (answer_size == 0) {
        return 0;
    }
    DNS_REQUIRE(answer_size >= DNS_HEADER_BYTES);
    DNS_REQUIRE(memcmp(out, data + 1, 2) == 0);
    size_t limit = tcp ? DNS_MESSAGE_BYTES_MAX : DNS_UDP_BYTES_DEFAULT;

    if (dns_query_parse(data + 1, size - 1, &parsed) == DNS_QUERY_GOOD && parsed.edns && !tcp &&
        parsed.edns_size > limit) {
        limit = parsed.edns_size;
    }
    DNS_REQUIRE(answer_size <= limit);

    check_readable(out, answer_size);
    return 0;
}
