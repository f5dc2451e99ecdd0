/* Answers from a small catalog: what each question gets, as recorded from Consul 1.8. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/dns_fixture.h"

#define SOA "|ns consul 0 SOA ns.consul hostmaster.consul 1700000000 3600 600 86400 0"
#define UNKNOWN "NXDOMAIN aa rd" SOA
#define NOTHING_FITS "NOERROR aa rd" SOA

static const struct dns_fixture_entry entries[] = {
    {.node = "n1",
     .address = "10.0.0.1",
     .node_id = "5ca1ab1e-0000-4000-8000-00000000abc1",
     .meta = "rack r1",
     .service = "consul",
     .port = 8300,
     .check = "passing"},
    {.node = "Under_Score", .address = "10.0.0.2", .service = "consul", .port = 8300},
    /* The check that came with it calls the instance by another spelling of its id. */
    {.node = "n20",
     .address = "10.0.0.20",
     .service = "cased",
     .id = "Cased-1",
     .check = "critical"},
    {.node = "n20", .address = "10.0.0.20", .service = "cased", .id = "cased-1"},
    {.node = "dot.ted", .address = "10.0.0.3"},
    {.node = "six", .address = "2001:db8::6"},
    {.node = "mapped", .address = "::ffff:10.0.0.7"},
    {.node = "dual",
     .address = "10.0.0.9",
     .node_tagged = "lan_ipv4 10.0.0.9 lan_ipv6 2001:db8::9",
     .service = "dualed",
     .port = 1},
    {.node = "web.service", .address = "10.0.0.10", .service = "node", .port = 1},
    {.node = "pg1",
     .address = "10.1.0.1",
     .service = "Pg",
     .id = "pg-1",
     .tags = "Master v1.x",
     .port = 5432,
     .service_address = "10.1.9.1",
     .check = "passing",
     .weight_passing = 10,
     .weight_warning = 3},
    {.node = "pg2",
     .address = "10.1.0.2",
     .service = "pg",
     .id = "pg-2",
     .tags = "replica",
     .port = 5432,
     .check = "warning",
     .weight_passing = 10,
     .weight_warning = 3},
    {.node = "pg3",
     .address = "10.1.0.3",
     .service = "pg",
     .id = "pg-3",
     .tags = "replica",
     .port = 5432,
     .check = "critical"},
    {.node = "pg4",
     .address = "10.1.0.4",
     .service = "pg",
     .id = "pg-4",
     .tags = "replica",
     .port = 5432,
     .check = "passing",
     .node_check = "critical"},
    {.node = "pg5",
     .address = "10.1.0.5",
     .service = "pg",
     .id = "pg-5",
     .tags = "odd",
     .port = 1,
     .check = "in between",
     .weight_passing = 9},
    {.node = "pool", .address = "10.2.0.1", .service = "pool", .id = "p1", .port = 6432},
    {.node = "pool", .address = "10.2.0.1", .service = "pool", .id = "p2", .port = 6433},
    {.node = "pool", .address = "10.2.0.1", .service = "pool", .id = "p3", .port = 6433},
    {.node = "w1",
     .address = "10.2.0.2",
     .service = "tagged",
     .service_tagged = "lan_ipv6 2001:db8::50 80 wan 198.51.100.1 81",
     .port = 80},
    {.node = "w1",
     .address = "10.2.0.2",
     .service = "only6",
     .service_address = "2001:db8::51",
     .port = 80},
    {.node = "ext", .address = "www.example.org", .service = "outside", .port = 443},
    {.node = "alias", .address = "pool.service.consul", .service = "inside", .port = 443},
    {.node = "w1",
     .address = "10.2.0.2",
     .service = "twins",
     .id = "twin1",
     .service_address = "pool.service.consul",
     .port = 1},
    {.node = "w1",
     .address = "10.2.0.2",
     .service = "twins",
     .id = "twin2",
     .service_address = "pool.service.consul",
     .port = 2},
    {.node = "alias2", .address = "n1.node.consul", .meta = "own meta"},
    {.node = "loop", .address = "loop.node.consul"},
    {.node = "at@home", .address = "10.0.0.11"},
    {.node = "tick'", .address = "10.0.0.12"},
    {.node = "alias3", .address = "at@home.node.consul"},
    {.node = "w2",
     .address = "10.2.0.3",
     .service = "self",
     .service_address = "self.service.consul",
     .port = 1},
};

static struct dns_fixture fixture;

/* The answer as text; valid until the next call. */
static const char *ask_as(const struct dns_config *config, const char *question, bool tcp,
                          uint16_t edns_size, size_t *size)
{
    static struct buffer text;
    static uint8_t out[DNS_MESSAGE_BYTES_MAX];
    static uint64_t random = 1;
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t query_size = dns_fixture_query(question, edns_size, query, sizeof(query));

    DNS_REQUIRE(store_read_begin(fixture.store, &fixture.txn) == 0);
    *size = dns_answer(&fixture.txn, config, query, query_size, tcp, DNS_FIXTURE_NOW_S, &random,
                       out, sizeof(out));
    store_read_end(&fixture.txn);
    assert_true(*size > 0);
    assert_true(tcp || *size <= (edns_size > DNS_UDP_BYTES_DEFAULT ? edns_size : 512));
    buffer_clear(&text);
    dns_fixture_print(out, *size, &text);
    return text.data;
}

static const char *ask(const char *question)
{
    size_t size;

    return ask_as(&fixture.config, question, false, 0, &size);
}

static void questions_are_answered_as_recorded(void **state)
{
    static const struct {
        const char *question, *answer;
    } cases[] = {
        /* Nodes. */
        {"n1.node.consul A", "NOERROR aa rd|an n1.node.consul 0 A 10.0.0.1"
                             "|ar n1.node.consul 0 TXT \"rack=r1\""},
        {"N1.Node.DC1.Consul TXT", "NOERROR aa rd|an N1.Node.DC1.Consul 0 TXT \"rack=r1\""},
        {"n1.node.consul ANY", "NOERROR aa rd|an n1.node.consul 0 A 10.0.0.1"
                               "|an n1.node.consul 0 TXT \"rack=r1\""},
        {"n1.node.consul AAAA", "NOERROR aa rd|ar n1.node.consul 0 TXT \"rack=r1\""},
        /* Its id, or the start of it. */
        {"5CA1.node.consul TXT", "NOERROR aa rd|an 5CA1.node.consul 0 TXT \"rack=r1\""},
        {"5ca1ab1e-0000-4000-8000-00000000abc1.node.consul A",
         "NOERROR aa rd|an 5ca1ab1e-0000-4000-8000-00000000abc1.node.consul 0 A 10.0.0.1"
         "|ar 5ca1ab1e-0000-4000-8000-00000000abc1.node.consul 0 TXT \"rack=r1\""},
        {"5ca1ab1f.node.consul A", UNKNOWN},
        {"nobody.node.consul A", UNKNOWN},
        {"cased.service.consul A", UNKNOWN},
        {"nobody.node.consul MX", "NOERROR aa rd"},
        {"n1.node.dc2.consul A", UNKNOWN},
        {"n1.node.dc1.x.consul A", UNKNOWN},
        {"under_score.node.consul A", "NOERROR aa rd|an under_score.node.consul 0 A 10.0.0.2"},
        {"dot.ted.node.consul A", "NOERROR aa rd|an dot.ted.node.consul 0 A 10.0.0.3"},
        {"six.node.consul AAAA", "NOERROR aa rd|an six.node.consul 0 AAAA 2001:db8::6"},
        {"six.node.consul A", "NOERROR aa rd"},
        {"mapped.node.consul A", "NOERROR aa rd|an mapped.node.consul 0 A 10.0.0.7"},
        {"dual.node.consul A", "NOERROR aa rd|an dual.node.consul 0 A 10.0.0.9"},
        {"dual.node.consul ANY", "NOERROR aa rd|an dual.node.consul 0 AAAA 2001:db8::9"},
        {"web.service.node.consul A", "NOERROR aa rd|an web.service.node.consul 0 A 10.0.0.10"},
        {"node.service.consul A", "NOERROR aa rd|an node.service.consul 0 A 10.0.0.10"},
        {"node.consul A", UNKNOWN},
        {"consul A", UNKNOWN},
        /* Services, tags, health, weights. */
        {"pg.service.consul A",
         "NOERROR aa rd|an pg.service.consul 0 A 10.1.0.2|an pg.service.consul 0 A 10.1.0.5"
         "|an pg.service.consul 0 A 10.1.9.1"},
        {"pg.service.consul SRV",
         "NOERROR aa rd|an pg.service.consul 0 SRV 1 1 1 pg5.node.dc1.consul"
         "|an pg.service.consul 0 SRV 1 10 5432 0a010901.addr.dc1.consul"
         "|an pg.service.consul 0 SRV 1 3 5432 pg2.node.dc1.consul"
         "|ar 0a010901.addr.dc1.consul 0 A 10.1.9.1|ar pg2.node.dc1.consul 0 A 10.1.0.2"
         "|ar pg5.node.dc1.consul 0 A 10.1.0.5"},
        {"MASTER.pg.service.consul A", "NOERROR aa rd|an MASTER.pg.service.consul 0 A 10.1.9.1"},
        {"_pg._master.service.consul A",
         "NOERROR aa rd|an _pg._master.service.consul 0 A 10.1.9.1"},
        {"_pg._v1.x.service.consul A", UNKNOWN},
        {"v1.x.pg.service.consul A", "NOERROR aa rd|an v1.x.pg.service.consul 0 A 10.1.9.1"},
        {"_pool._tcp.consul SRV",
         "NOERROR aa rd|an _pool._tcp.consul 0 SRV 1 1 6432 pool.node.dc1.consul"
         "|an _pool._tcp.consul 0 SRV 1 1 6433 pool.node.dc1.consul"
         "|ar pool.node.dc1.consul 0 A 10.2.0.1|ar pool.node.dc1.consul 0 A 10.2.0.1"},
        {"_pool._tcp.consul A", UNKNOWN},
        {"_._tcp.service.consul SRV", "SERVFAIL aa rd"},
        {"_._tcp.service.dc2.consul SRV", UNKNOWN},
        {"pool.service.consul A", "NOERROR aa rd|an pool.service.consul 0 A 10.2.0.1"},
        {"pool.service.consul AAAA", NOTHING_FITS},
        {"pool.service.consul MX", NOTHING_FITS},
        {"none.service.consul MX", UNKNOWN},
        {"pool.service.dc2.consul A", UNKNOWN},
        {"pool.connect.consul A", UNKNOWN},
        {"consul.service.consul SRV",
         "NOERROR aa rd|an consul.service.consul 0 SRV 1 1 8300 Under_Score.node.dc1.consul"
         "|an consul.service.consul 0 SRV 1 1 8300 n1.node.dc1.consul"
         "|ar Under_Score.node.dc1.consul 0 A 10.0.0.2|ar n1.node.dc1.consul 0 A 10.0.0.1"
         "|ar n1.node.dc1.consul 0 TXT \"rack=r1\""},
        /* Which address. */
        {"tagged.service.consul A", "NOERROR aa rd|an tagged.service.consul 0 A 10.2.0.2"},
        {"tagged.service.consul ANY", "NOERROR aa rd|an tagged.service.consul 0 AAAA 2001:db8::50"},
        {"only6.service.consul A", NOTHING_FITS},
        {"dualed.service.consul SRV",
         "NOERROR aa rd"
         "|an dualed.service.consul 0 SRV 1 1 1 20010db8000000000000000000000009.addr.dc1.consul"
         "|ar 20010db8000000000000000000000009.addr.dc1.consul 0 AAAA 2001:db8::9"},
        /* Host names. */
        {"ext.node.consul AAAA", "NOERROR aa rd|an ext.node.consul 0 CNAME www.example.org"},
        {"outside.service.consul MX",
         "NOERROR aa rd|an outside.service.consul 0 CNAME www.example.org"},
        {"outside.service.consul SRV",
         "NOERROR aa rd|an outside.service.consul 0 SRV 1 1 443 www.example.org"},
        {"inside.service.consul AAAA",
         "NOERROR aa rd|an inside.service.consul 0 CNAME pool.service.consul"
         "|an pool.service.consul 0 A 10.2.0.1"},
        {"inside.service.consul SRV",
         "NOERROR aa rd|an inside.service.consul 0 SRV 1 1 443 pool.service.consul"
         "|ar pool.service.consul 0 A 10.2.0.1"},
        {"twins.service.consul SRV", /* each with what is behind its name */
         "NOERROR aa rd|an twins.service.consul 0 SRV 1 1 1 pool.service.consul"
         "|an twins.service.consul 0 SRV 1 1 2 pool.service.consul"
         "|ar pool.service.consul 0 A 10.2.0.1|ar pool.service.consul 0 A 10.2.0.1"},
        {"alias2.node.consul A",
         "NOERROR aa rd|an alias2.node.consul 0 CNAME n1.node.consul"
         "|an n1.node.consul 0 A 10.0.0.1|an n1.node.consul 0 TXT \"rack=r1\""
         "|ar alias2.node.consul 0 TXT \"own=meta\""},
        /* Names with odd bytes are found from inside only. */
        {"at@home.node.consul A", UNKNOWN},
        {"tick'.node.consul A", UNKNOWN},
        {"alias3.node.consul A", "NOERROR aa rd|an alias3.node.consul 0 CNAME at@home.node.consul"
                                 "|an at@home.node.consul 0 A 10.0.0.11"},
        {"loop.node.consul A", "NOERROR aa rd|an loop.node.consul 0 CNAME loop.node.consul"
                               "|an loop.node.consul 0 CNAME loop.node.consul"
                               "|an loop.node.consul 0 CNAME loop.node.consul"
                               "|an loop.node.consul 0 CNAME loop.node.consul"},
        {"self.service.consul A", "NOERROR aa rd|an self.service.consul 0 A 10.2.0.3"},
        /* Addresses in names. */
        {"0A0000FF.addr.any.thing.consul SRV",
         "NOERROR aa rd|an 0a0000ff.addr.any.thing.consul 0 A 10.0.0.255"},
        {"20010db8000000000000000000000001.addr.consul A",
         "NOERROR aa rd|an 20010db8000000000000000000000001.addr.consul 0 AAAA 2001:db8::1"},
        {"0a00000.addr.consul A", "NOERROR aa rd"},
        {"0a000000f.addr.consul A", UNKNOWN},
        {"0a00000g.addr.consul A", UNKNOWN},
        {"0a0000\xc3\xa9.addr.consul A", "NOERROR aa rd"}, /* 14 digits, shown escaped */
        {"0000\xff.addr.consul A", UNKNOWN},               /* 8 */
        {"x.0a000001.addr.consul A", UNKNOWN},
        /* The zone; a node that is no host name is no name server. */
        {"any.thing.Consul NS", "NOERROR aa rd|an consul 0 NS n1.node.dc1.consul"
                                "|ar n1.node.dc1.consul 0 A 10.0.0.1"},
        {"consul SOA", "NOERROR aa rd"
                       "|an consul 0 SOA ns.consul hostmaster.consul 1700000000 3600 600 86400 0"
                       "|ar n1.node.dc1.consul 0 A 10.0.0.1|ns consul 0 NS n1.node.dc1.consul"},
        {"consul AXFR", "NOTIMP aa rd"},
        /* Reverse names, foreign names. */
        {"1.0.0.10.in-addr.arpa PTR",
         "NOERROR aa rd|an 1.0.0.10.in-addr.arpa 0 PTR n1.node.dc1.consul"},
        {"1.9.1.10.IN-ADDR.arpa A",
         "NOERROR aa rd|an 1.9.1.10.IN-ADDR.arpa 0 PTR Pg.service.dc1.consul"},
        {"6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR",
         "NOERROR aa rd"
         "|an 6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa 0 PTR "
         "six.node.dc1.consul"},
        {"01.0.0.10.in-addr.arpa PTR", "SERVFAIL rd ra"},
        {"256.0.0.10.in-addr.arpa PTR", "SERVFAIL rd ra"},
        {"9.9.9.9.in-addr.arpa PTR", "SERVFAIL rd ra"},
        {"arpa PTR", "SERVFAIL rd ra"},
        {"xconsul A", "REFUSED rd"},
        {"n1.node.consul.org A", "REFUSED rd"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *answer = ask(cases[i].question);

        if (strcmp(answer, cases[i].answer) != 0) {
            fail_msg("%s\n got %s\nwant %s", cases[i].question, answer, cases[i].answer);
        }
    }
}

static void settings_change_answers(void **state)
{
    struct dns_config config = fixture.config;
    size_t size;

    (void)state;
    config.only_passing = true;
    assert_string_equal(ask_as(&config, "pg.service.consul A", false, 0, &size),
                        "NOERROR aa rd|an pg.service.consul 0 A 10.1.9.1");
    config.domain = "Corp.Example.";
    config.alt_domain = "alt";
    config.datacenter = "East";
    config.node_ttl_s = 30;
    config.node_meta_txt = false;
    config.soa.min_ttl_s = 9;
    config.service_ttls[0] = (struct dns_service_ttl){"p*", 3};
    config.service_ttls[1] = (struct dns_service_ttl){"poo*", 5};
    config.service_ttls[2] = (struct dns_service_ttl){"*", 1};
    config.service_ttls[3] = (struct dns_service_ttl){"pg", 7};
    config.service_ttls[4] = (struct dns_service_ttl){"POOL", 8}; /* for none: capitals */
    config.service_ttl_count = 5;
    config.recursors[0] = "192.0.2.1";
    config.recursor_count = 1;
    static const struct {
        const char *question, *answer;
    } cases[] = {
        {"n1.node.corp.example A", "NOERROR aa rd ra|an n1.node.corp.example 30 A 10.0.0.1"},
        {"n1.node.east.ALT A", "NOERROR aa rd ra|an n1.node.east.ALT 30 A 10.0.0.1"},
        {"master.pg.service.alt SRV",
         "NOERROR aa rd ra|an master.pg.service.alt 7 SRV 1 10 5432 0a010901.addr.east.corp.example"
         "|ar 0a010901.addr.east.corp.example 7 A 10.1.9.1"},
        {"pool.service.alt A", "NOERROR aa rd ra|an pool.service.alt 5 A 10.2.0.1"},
        {"self.service.alt A", "NOERROR aa rd ra|an self.service.alt 1 CNAME self.service.consul"},
        {"none.service.alt A", "NXDOMAIN aa rd ra|ns corp.example 9 SOA ns.corp.example "
                               "hostmaster.corp.example 1700000000 3600 600 86400 9"},
        {"n1.node.consul A", "SERVFAIL rd ra"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *answer = ask_as(&config, cases[i].question, false, 0, &size);

        if (strcmp(answer, cases[i].answer) != 0) {
            fail_msg("%s\n got %s\nwant %s", cases[i].question, answer, cases[i].answer);
        }
    }
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;

    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        count++;
    }
    return count;
}

/* 200 instances, in each way that a client may ask for them. */
static void answers_are_shortened_to_what_the_client_takes(void **state)
{
    static const struct {
        const char *question;
        bool tcp, truncate;
        uint16_t edns_size;
        uint32_t udp_limit, a_limit;
        size_t count_min, count_max;
        bool tc;
    } cases[] = {
        {"many.service.consul A", false, false, 0, 3, 0, 3, 3, false},
        {"many.service.consul A", false, true, 0, 3, 0, 3, 3, true},
        {"many.service.consul A", false, false, 512, 3, 0, 3, 3, false},
        {"many.service.consul A", false, false, 100, 5, 0, 5, 5, false},
        {"many.service.consul A", false, false, 0, 50, 0, 8, 8, false},
        {"many.service.consul A", false, true, 1232, 3, 0, 72, 76, true},
        {"many.service.consul A", false, true, 4096, 3, 0, 200, 200, false},
        {"many.service.consul A", false, true, 65535, 3, 0, 200, 200, false},
        {"many.service.consul A", false, false, 1232, 3, 2, 2, 2, false},
        {"many.service.consul A", true, true, 0, 3, 0, 200, 200, false},
        {"many.service.consul ANY", true, true, 0, 3, 2, 2, 2, false},
        {"many.service.consul SRV", false, false, 0, 3, 0, 3, 3, false},
        {"many.service.consul SRV", false, true, 1232, 3, 0, 17, 21, true},
        {"many.service.consul SRV", false, true, 4096, 3, 0, 65, 69, true},
        {"many.service.consul SRV", true, true, 0, 3, 2, 200, 200, false},
    };
    struct dns_config config = fixture.config;
    size_t size;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        config.udp_answer_limit = cases[i].udp_limit;
        config.a_record_limit = cases[i].a_limit;
        config.enable_truncate = cases[i].truncate;
        const char *answer =
            ask_as(&config, cases[i].question, cases[i].tcp, cases[i].edns_size, &size);
        const size_t count = count_of(answer, "|an ");
        const bool srv = strstr(cases[i].question, "SRV") != NULL;

        if (count < cases[i].count_min || count > cases[i].count_max ||
            (strstr(answer, " tc") != NULL) != cases[i].tc ||
            (srv && count_of(answer, " A 10.5.1.") != count)) {
            fail_msg("case %zu, %s: %zu answers, %zu bytes: %.60s", i, cases[i].question, count,
                     size, answer);
        }
    }
}

/* Metadata are left out first, then whole answers, and no answer is longer than the client takes
 * (ask_as checks that). */
static void metadata_yield_to_answers(void **state)
{
    size_t size;
    const char *answer;

    (void)state;
    answer = ask_as(&fixture.config, "meta.service.consul SRV", true, 0, &size);
    assert_int_equal(count_of(answer, " TXT "), 12);
    answer = ask_as(&fixture.config, "meta.service.consul SRV", false, 0, &size);
    assert_int_equal(count_of(answer, " SRV "), 3);
    assert_int_equal(count_of(answer, "|ar "), 3);
    assert_int_equal(count_of(answer, " TXT "), 0);
    /* One answer that is too long with all its metadata. */
    answer = ask_as(&fixture.config, "big.service.consul SRV", false, 0, &size);
    assert_int_equal(count_of(answer, " SRV "), 1);
    assert_true(count_of(answer, "|ar ") >= 1);
    answer = ask_as(&fixture.config, "big.node.consul A", false, 0, &size);
    assert_int_equal(count_of(answer, "|an "), 1);
    assert_null(strstr(answer, " tc"));
    /* Metadata that were asked for: the client shall come back over TCP. */
    answer = ask_as(&fixture.config, "big.node.consul TXT", false, 0, &size);
    assert_non_null(strstr(answer, " tc"));
    answer = ask_as(&fixture.config, "big.node.consul TXT", true, 0, &size);
    assert_int_equal(count_of(answer, " TXT "), 10);
    assert_null(strstr(answer, " tc"));
}

static void every_instance_has_its_chance(void **state)
{
    bool seen[201] = {false};
    size_t seen_count = 0;

    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        const char *at = ask("many.service.consul A");

        while ((at = strstr(at, "10.5.1.")) != NULL) {
            const long number = strtol(at + 7, NULL, 10);

            assert_in_range(number, 1, 200);
            seen_count += !seen[number];
            seen[number] = true;
            at++;
        }
    }
    assert_int_equal(seen_count, 200);
}

static void without_compression_names_are_written_out(void **state)
{
    struct dns_config config = fixture.config;
    size_t compressed, plain;

    (void)state;
    (void)ask_as(&config, "pg.service.consul SRV", false, 0, &compressed);
    config.disable_compression = true;
    const char *answer = ask_as(&config, "pg.service.consul SRV", false, 0, &plain);

    assert_int_equal(count_of(answer, "|an "), 3);
    assert_int_equal(count_of(answer, "|ar "), 3);
    assert_true(plain > compressed);
}

/* Label bytes that text cannot hold match nothing, and do no harm. */
static void odd_bytes_match_nothing(void **state)
{
    static const char *const labels[] = {"x.1", "dot.ted", "a b", "\1", "\377\376", "a\\b", "*"};
    uint8_t out[DNS_UDP_BYTES_DEFAULT];
    uint64_t random = 1;

    (void)state;
    DNS_REQUIRE(store_read_begin(fixture.store, &fixture.txn) == 0);
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        uint8_t query[DNS_UDP_BYTES_DEFAULT];
        struct dns_writer writer = {.data = query, .limit = sizeof(query)};

        dns_writer_bytes(&writer, "\x12\x34\1\0\0\1\0\0\0\0\0\0", DNS_HEADER_BYTES);
        dns_writer_u8(&writer, (uint8_t)strlen(labels[i]));
        dns_writer_bytes(&writer, labels[i], strlen(labels[i]));
        dns_writer_bytes(&writer, "\4node\6consul\0\0\1\0\1", 17);
        const size_t size = dns_answer(&fixture.txn, &fixture.config, query, writer.size, false,
                                       DNS_FIXTURE_NOW_S, &random, out, sizeof(out));

        assert_true(size > DNS_HEADER_BYTES);
        if ((out[3] & 0xf) != DNS_NXDOMAIN) {
            fail_msg("label %zu: rcode %d", i, out[3] & 0xf);
        }
    }
    store_read_end(&fixture.txn);
}

/* No memory for a reader, or none yet: what needs the store fails, what does not is answered. */
static void without_a_store_questions_fail(void **state)
{
    uint8_t query[DNS_UDP_BYTES_DEFAULT], out[DNS_UDP_BYTES_DEFAULT];
    struct buffer text = {0};
    uint64_t random = 1;
    static const char *const questions[] = {"n1.node.consul A", "1.0.0.10.in-addr.arpa PTR",
                                            "x.org A"};

    (void)state;
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        const size_t query_size = dns_fixture_query(questions[i], 0, query, sizeof(query));
        const size_t size = dns_answer(NULL, &fixture.config, query, query_size, false, 1, &random,
                                       out, sizeof(out));

        buffer_clear(&text);
        dns_fixture_print(out, size, &text);
        assert_string_equal(text.data, i == 0   ? "SERVFAIL aa rd"
                                       : i == 1 ? "SERVFAIL rd ra"
                                                : "REFUSED rd");
    }
    buffer_deinit(&text);
}

static int setup(void **state)
{
    char node[32], address[32], meta[1024] = "";

    (void)state;
    dns_fixture_open(&fixture);
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        dns_fixture_register(&fixture, &entries[i]);
    }
    for (unsigned i = 1; i <= 200; i++) {
        (void)snprintf(node, sizeof(node), "m%03u", i);
        (void)snprintf(address, sizeof(address), "10.5.1.%u", i);
        dns_fixture_register(&fixture, &(struct dns_fixture_entry){.node = node,
                                                                   .address = "10.5.0.1",
                                                                   .service = "many",
                                                                   .port = 9000,
                                                                   .service_address = address});
    }
    for (unsigned i = 0; i < 10; i++) {
        (void)snprintf(meta + strlen(meta), sizeof(meta) - strlen(meta), "%skey%u %060u",
                       i == 0 ? "" : " ", i, i);
    }
    dns_fixture_register(
        &fixture,
        &(struct dns_fixture_entry){
            .node = "big", .address = "10.6.0.9", .meta = meta, .service = "big", .port = 1});
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(node, sizeof(node), "meta%u", i);
        (void)snprintf(address, sizeof(address), "10.6.0.%u", i);
        (void)snprintf(meta, sizeof(meta), "a %060u b %060u c %060u d %060u", i, i, i, i);
        dns_fixture_register(
            &fixture,
            &(struct dns_fixture_entry){
                .node = node, .address = address, .meta = meta, .service = "meta", .port = 1});
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dns_fixture_close(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_are_answered_as_recorded),
        cmocka_unit_test(settings_change_answers),
        cmocka_unit_test(answers_are_shortened_to_what_the_client_takes),
        cmocka_unit_test(metadata_yield_to_answers),
        cmocka_unit_test(every_instance_has_its_chance),
        cmocka_unit_test(without_compression_names_are_written_out),
        cmocka_unit_test(odd_bytes_match_nothing),
        cmocka_unit_test(without_a_store_questions_fail),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
