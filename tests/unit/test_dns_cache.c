/* What is kept of services between questions: answers are those that a resolver without it gives,
 * whatever the catalog did in between. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dns/dns_internal.h"
#include "tests/unit/dns_fixture.h"

static struct dns_fixture fixture;
static struct dns_resolver *kept, *plain;
static uint64_t choices = 7;

static unsigned below(unsigned bound)
{
    choices = choices * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((choices >> 33) % bound);
}

static size_t answer(struct dns_resolver *resolver, struct dns_zone *zone, const char *question,
                     uint16_t edns_size, bool tcp, uint64_t seed, uint8_t *out)
{
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = dns_fixture_query(question, edns_size, query, sizeof(query));

    return dns_resolver_answer(resolver, zone, &fixture.txn, query, size, tcp, DNS_FIXTURE_NOW_S,
                               &seed, out, DNS_MESSAGE_BYTES_MAX);
}

/* Two zones, since where names stand is remembered in a zone's names: each resolver has its own. */
static void expect_equal_answer(struct dns_zone *zone, struct dns_zone *other, const char *question,
                                uint64_t seed)
{
    static uint8_t with[DNS_MESSAGE_BYTES_MAX], without[DNS_MESSAGE_BYTES_MAX];
    const uint16_t edns_size = (uint16_t)(below(2) * 1232);
    const bool tcp = below(3) == 0;
    const size_t with_size = answer(kept, zone, question, edns_size, tcp, seed, with);
    const size_t without_size = answer(plain, other, question, edns_size, tcp, seed, without);

    if (with_size != without_size || memcmp(with, without, with_size) != 0) {
        struct buffer a = {0}, b = {0};

        dns_fixture_print(with, with_size, &a);
        dns_fixture_print(without, without_size, &b);
        fail_msg("%s\nkept:  %s\nplain: %s", question, a.data, b.data);
    }
}

static void expect_equal_answers(struct dns_zone *zone, struct dns_zone *other)
{
    static const char *const questions[] = {
        "s0.service.consul A",
        "s0.service.consul SRV",
        "S1.service.consul ANY",
        "s1.service.consul SRV",
        "t1.s0.service.consul A",
        "t1.s1.service.consul SRV",
        "s2.service.consul AAAA",
        "s2.service.consul SRV",
        "consul NS",
        "consul.service.consul SRV",
        "s3.service.consul A",
        "n1.node.consul A",
        "_s0._t0.service.dc1.consul SRV",
        "none.service.consul A",
        "s4.service.consul SRV",
        "s2.service.consul CNAME",
        "1.0.0.10.in-addr.arpa PTR",
        "2.0.0.10.in-addr.arpa SOA",
        "1.0.1.10.in-addr.arpa PTR",
        "2.0.1.10.in-addr.arpa A",
        "9.9.9.9.in-addr.arpa PTR",
        "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR",
    };
    const size_t question_count = sizeof(questions) / sizeof(questions[0]);

    assert_int_equal(store_read_begin(fixture.store, &fixture.txn), 0);
    dns_cache_renew(kept->cache, &fixture.txn);
    for (unsigned i = 0; i < 3 * question_count; i++) {
        expect_equal_answer(zone, other, questions[i % question_count], i);
    }
    store_read_end(&fixture.txn);
}

static void register_any(void)
{
    static const char *const addresses[] = {
        NULL,           "10.1.0.1",       "10.1.0.2",          "2001:db8::7",
        "www.host.org", "n1.node.consul", "s1.service.consul", "10.1.0.1",
    };
    static const char *const statuses[] = {NULL, "passing", "passing", "warning", "critical"};
    static const char *const tags[] = {NULL, "t0", "t1", "t1 t0", "T1"};
    static const char *const metas[] = {NULL, "rack r1", "a b c d"};
    static const char *const taggeds[] = {NULL, "lan_ipv4 10.2.0.9 80", "lan_ipv6 2001:db8::9 80"};
    char node[8], service[8], id[8], node_address[24];

    (void)snprintf(node, sizeof(node), below(8) == 0 ? "b_d%u" : "n%u", below(6));
    (void)snprintf(node_address, sizeof(node_address), "10.0.0.%u", below(4));
    (void)snprintf(service, sizeof(service), below(4) == 0 ? "S%u" : "s%u", below(5));
    (void)snprintf(id, sizeof(id), "i%u", below(6));
    dns_fixture_register(&fixture, &(struct dns_fixture_entry){
                                       .node = node,
                                       .address = below(9) == 0 ? "node.host.org" : node_address,
                                       .meta = metas[below(3)],
                                       .service = below(12) == 0 ? "consul" : service,
                                       .id = id,
                                       .tags = tags[below(5)],
                                       .service_address = addresses[below(8)],
                                       .service_tagged = taggeds[below(3)],
                                       .port = below(3),
                                       .weight_passing = 1 + below(3),
                                       .weight_warning = 1 + below(2),
                                       .check = statuses[below(5)],
                                       .node_check = below(5) == 0 ? statuses[below(5)] : NULL});
}

static void deregister_any(void)
{
    struct buffer ended = {0};
    char node[8], id[8];

    (void)snprintf(node, sizeof(node), "n%u", below(6));
    (void)snprintf(id, sizeof(id), "i%u", below(6));
    assert_int_equal(store_write_begin(fixture.store, &fixture.txn), 0);
    assert_int_equal(catalog_deregister(&fixture.txn, ++fixture.index, (struct session_stamp){1, 1},
                                        slice_from_text(node),
                                        below(6) == 0 ? SLICE_EMPTY : slice_from_text(id),
                                        SLICE_EMPTY, &ended),
                     0);
    assert_int_equal(store_write_commit(&fixture.txn), 0);
    store_changes_free(&fixture.txn);
    buffer_deinit(&ended);
}

static void answers_are_the_same_with_and_without(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        if (below(4) == 0) {
            deregister_any();
        } else {
            register_any();
        }
        fixture.config.only_passing = below(3) == 0;
        fixture.config.disable_compression = below(5) == 0;
        fixture.config.udp_answer_limit = 1 + below(5);
        struct dns_zone *zone = dns_zone_new(&fixture.config);

        struct dns_zone *other = dns_zone_new(&fixture.config);

        assert_non_null(zone);
        assert_non_null(other);
        dns_cache_flush(kept->cache); /* as for each new zone */
        expect_equal_answers(zone, other);
        if (below(2) == 0) {
            register_any();
        }
        expect_equal_answers(zone, other); /* the zone as before, the catalog perhaps not */
        dns_zone_free(zone);
        dns_zone_free(other);
    }
}

static void write_key(void)
{
    assert_int_equal(store_write_begin(fixture.store, &fixture.txn), 0);
    assert_int_equal(store_index_set(&fixture.txn, SLICE_LITERAL("kvs"), ++fixture.index), 0);
    assert_int_equal(store_applied_set(&fixture.txn, 1, fixture.index), 0);
    assert_int_equal(store_write_commit(&fixture.txn), 0);
    store_changes_free(&fixture.txn);
}

static void renew(void)
{
    assert_int_equal(store_read_begin(fixture.store, &fixture.txn), 0);
    dns_cache_renew(kept->cache, &fixture.txn);
}

/* Writes to anything but the catalog leave it, and names that nobody has take no room. */
static void only_the_catalog_ends_it(void **state)
{
    static uint8_t out[DNS_MESSAGE_BYTES_MAX];
    struct dns_zone *zone = dns_zone_new(&fixture.config);
    char question[64];

    (void)state;
    dns_fixture_register(&fixture, &(struct dns_fixture_entry){
                                       .node = "n1", .address = "10.0.0.1", .service = "steady"});
    dns_cache_flush(kept->cache);
    renew();
    (void)answer(kept, zone, "steady.service.consul A", 0, false, 1, out);
    assert_int_equal(kept->cache->slot_count, 1);
    const size_t noted_bytes = kept->cache->arena_used;

    (void)answer(kept, zone, "steady.service.consul A", 0, false, 1, out);
    const size_t used_bytes = kept->cache->arena_used;

    assert_true(used_bytes > noted_bytes);
    for (unsigned i = 0; i < 2 * DNS_CACHE_SLOTS; i++) {
        (void)snprintf(question, sizeof(question), "x%u.service.consul A", i);
        (void)answer(kept, zone, question, 0, false, 1, out);
    }
    store_read_end(&fixture.txn);
    write_key();
    renew();
    (void)answer(kept, zone, "steady.service.consul SRV", 0, false, 1, out);
    assert_int_equal(kept->cache->slot_count, 1);
    assert_int_equal(kept->cache->arena_used, used_bytes);
    store_read_end(&fixture.txn);
    dns_fixture_register(&fixture, &(struct dns_fixture_entry){
                                       .node = "n1", .address = "10.0.0.2", .service = "steady"});
    renew();
    assert_int_equal(kept->cache->slot_count, 0);
    store_read_end(&fixture.txn);
    dns_zone_free(zone);
}

/* A service of more instances than an answer looks at is kept, too, else every question about it
 * reads all of them from the store; which ones are looked at is as random as there. */
static void large_services_are_kept(void **state)
{
    enum { COUNT = DNS_INSTANCES_MAX + 100, QUESTIONS = 24 };
    static const char *const questions[] = {"huge.service.consul A", "huge.service.consul SRV",
                                            "one.huge.service.consul SRV",
                                            "two.huge.service.consul A"};
    struct dns_zone *zone = dns_zone_new(&fixture.config);
    struct dns_zone *other = dns_zone_new(&fixture.config);
    char node[32], address[32], own[32];

    (void)state;
    dns_fixture_begin(&fixture);
    for (unsigned i = 0; i < COUNT; i++) {
        (void)snprintf(node, sizeof(node), "huge-%u", i);
        (void)snprintf(address, sizeof(address), "10.9.%u.%u", i / 3 / 250, i / 3 % 250);
        (void)snprintf(own, sizeof(own), "10.8.%u.%u", i / 2 / 250, i / 2 % 250);
        dns_fixture_put(&fixture,
                        &(struct dns_fixture_entry){.node = node,
                                                    .address = address,
                                                    .service = "huge",
                                                    .service_address = i % 4 == 0 ? own : NULL,
                                                    .tags = i % 5 == 0 ? "one two" : "two",
                                                    .port = i % 2,
                                                    .node_check = i % 7 == 0 ? "critical" : NULL});
    }
    dns_fixture_commit(&fixture);
    dns_cache_flush(kept->cache);
    renew();
    for (unsigned i = 0; i < QUESTIONS; i++) {
        expect_equal_answer(zone, other, questions[i % 4], i);
        assert_true(kept->instance_count > DNS_INSTANCES_MAX / 6);
        assert_int_equal(kept->list[0]->kept != NULL, i > 0); /* the store is read once */
    }
    assert_int_equal(kept->instance_count, plain->instance_count);
    store_read_end(&fixture.txn);
    dns_zone_free(zone);
    dns_zone_free(other);
}

/* What addresses are called is kept, too, nobody's included: until the cache is told that the
 * catalog is another one, nothing is read. */
static void reverse_names_are_kept(void **state)
{
    static uint8_t out[DNS_MESSAGE_BYTES_MAX];
    struct dns_zone *zone = dns_zone_new(&fixture.config);

    (void)state;
    dns_fixture_register(&fixture,
                         &(struct dns_fixture_entry){.node = "no\\name..", .address = "10.0.4.1"});
    dns_fixture_register(&fixture,
                         &(struct dns_fixture_entry){.node = "rev", .address = "10.0.4.1"});
    dns_cache_flush(kept->cache);
    renew();
    for (unsigned i = 0; i < 2; i++) {
        (void)answer(kept, zone, "2.4.0.10.in-addr.arpa PTR", 0, false, 1, out);
        assert_int_equal(out[3] & 0xf, DNS_SERVFAIL);
    }
    store_read_end(&fixture.txn);
    dns_fixture_register(&fixture,
                         &(struct dns_fixture_entry){.node = "new", .address = "10.0.4.2"});
    for (unsigned told = 0; told < 2; told++) {
        assert_int_equal(store_read_begin(fixture.store, &fixture.txn), 0);
        if (told == 1) {
            dns_cache_renew(kept->cache, &fixture.txn);
        }
        for (unsigned i = 0; i < 3; i++) {
            (void)answer(kept, zone, "2.4.0.10.in-addr.arpa PTR", 0, false, 1, out);
            assert_int_equal(out[3] & 0xf, told == 1 ? DNS_NOERROR : DNS_SERVFAIL);
            (void)answer(kept, zone, "1.4.0.10.in-addr.arpa PTR", 0, false, 1, out);
            assert_int_equal(out[7], 1);
        }
        store_read_end(&fixture.txn);
    }
    dns_zone_free(zone);
}

/* Each of many instances leads to a name with many behind it, all kept: what is looked at has an
 * end. Begins with the service of the test before. */
static void kept_names_behind_names_are_looked_at_within_a_bound(void **state)
{
    enum { LED = 40 };
    static uint8_t out[DNS_MESSAGE_BYTES_MAX];
    struct dns_zone *zone = dns_zone_new(&fixture.config);
    char node[32];

    (void)state;
    dns_fixture_begin(&fixture);
    for (unsigned i = 0; i < LED; i++) {
        (void)snprintf(node, sizeof(node), "led-%u", i);
        dns_fixture_put(&fixture,
                        &(struct dns_fixture_entry){.node = node,
                                                    .address = "10.0.0.1",
                                                    .service = "led",
                                                    .service_address = "huge.service.consul"});
    }
    dns_fixture_commit(&fixture);
    dns_cache_flush(kept->cache);
    renew();
    for (unsigned i = 0; i < 2; i++) {
        (void)answer(kept, zone, "huge.service.consul A", 0, false, 1, out);
    }
    const size_t healthy = kept->instance_count;
    const size_t followed = (DNS_CHAIN_LOOKS_MAX + healthy - 1) / healthy;

    assert_in_range(followed, 1, LED - 1);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(answer(kept, zone, "led.service.consul SRV", 0, true, 1, out) > 0);
        assert_int_equal(out[7], LED);
        assert_int_equal(out[10] << 8 | out[11], dns_zone_udp_answers_max(zone) * followed);
    }
    store_read_end(&fixture.txn);
    dns_zone_free(zone);
}

/* More services than are kept, and one that is too large: answers go on, and those that have room
 * are kept beside it. */
static void what_has_no_room_is_read_from_the_store(void **state)
{
    enum { META_BYTES = 32 << 10, BIG = DNS_CACHE_BYTES / META_BYTES };
    static uint8_t out[DNS_MESSAGE_BYTES_MAX];
    static char meta[META_BYTES] = "key ";
    struct dns_zone *zone = dns_zone_new(&fixture.config);
    char node[32], service[32], question[64];

    (void)state;
    memset(meta + strlen(meta), 'x', sizeof(meta) - strlen(meta) - 1);
    dns_fixture_begin(&fixture);
    for (unsigned i = 0; i < DNS_CACHE_SERVICES_MAX + 20; i++) {
        (void)snprintf(service, sizeof(service), "many-%u", i);
        dns_fixture_put(&fixture, &(struct dns_fixture_entry){
                                      .node = "n1", .address = "10.0.0.1", .service = service});
    }
    for (unsigned i = 0; i < BIG; i++) {
        (void)snprintf(node, sizeof(node), "big-%u", i);
        dns_fixture_put(&fixture,
                        &(struct dns_fixture_entry){
                            .node = node, .address = "10.0.0.1", .meta = meta, .service = "big"});
    }
    dns_fixture_commit(&fixture);
    dns_cache_flush(kept->cache);
    renew();
    for (unsigned i = 0; i < 3; i++) {
        (void)answer(kept, zone, "big.service.consul A", 0, false, 1, out);
        assert_int_equal(out[7], 1);
        assert_null(kept->list[0]->kept);
        assert_in_range(kept->cache->arena_used, 1, 64); /* its name */
    }
    for (unsigned i = 0; i < 2 * (DNS_CACHE_SERVICES_MAX + 20); i++) {
        (void)snprintf(question, sizeof(question), "many-%u.service.consul A", i / 2);
        assert_true(answer(kept, zone, question, 0, false, 1, out) > 0);
        assert_int_equal(out[7], 1);
        assert_int_equal(kept->list[0]->kept != NULL,
                         i % 2 == 1 && i / 2 < DNS_CACHE_SERVICES_MAX - 1);
    }
    assert_int_equal(kept->cache->slot_count, DNS_CACHE_SERVICES_MAX);
    store_read_end(&fixture.txn);
    dns_zone_free(zone);
}

static int setup(void **state)
{
    (void)state;
    dns_fixture_open(&fixture);
    kept = dns_resolver_new();
    plain = dns_resolver_new();
    kept->cache = dns_cache_new();
    return kept->cache == NULL || plain == NULL;
}

static int teardown(void **state)
{
    (void)state;
    dns_cache_free(kept->cache);
    dns_resolver_free(kept);
    dns_resolver_free(plain);
    dns_fixture_close(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_same_with_and_without),
        cmocka_unit_test(only_the_catalog_ends_it),
        cmocka_unit_test(reverse_names_are_kept),
        cmocka_unit_test(large_services_are_kept),
        cmocka_unit_test(kept_names_behind_names_are_looked_at_within_a_bound),
        cmocka_unit_test(what_has_no_room_is_read_from_the_store),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
