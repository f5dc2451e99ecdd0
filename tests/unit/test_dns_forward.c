/* Recursion: the test plays the recursors and the clients, on real sockets, in one thread. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/dns_recursors.h"

static void an_answer_is_passed_on_whole(void **state)
{
    /* A type that nobody knows, a compressed name in it, and bytes behind the last record. */
    static const char odd[] = "\xc0\x0c\xff\x01\0\1\0\0\0\5\0\3\xc0\x0c\xee"
                              "what is this";
    static uint8_t sent[MESSAGE_BYTES];
    struct upstream_query query;
    uint8_t asked[DNS_UDP_BYTES_DEFAULT];

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    const size_t asked_size = dns_fixture_query("WwW.example.org MX", 1232, asked, sizeof(asked));
    const int fd = ask("WwW.example.org MX", 1232);

    upstream_receive(0, &query);
    assert_int_equal(query.size, asked_size);
    assert_memory_equal(query.bytes + 2, asked + 2, asked_size - 2); /* all but the id */
    const size_t size = upstream_compose(&query, 0x0470, 1, slice_from(odd, sizeof(odd) - 1), sent);

    upstream_send(recursors[0], &query, sent, size);
    wait_readable(fd);
    assert_int_equal(recv(fd, message, sizeof(message), 0), size);
    assert_memory_equal(message, asked, 2);
    assert_memory_equal(message + 2, sent + 2, size - 2);
    (void)close(fd);
}

static void ids_and_source_ports_are_drawn_anew(void **state)
{
    enum { QUESTIONS = 12 };
    struct upstream_query queries[QUESTIONS];
    size_t equal_ids = 0;
    size_t equal_ports = 0;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    for (size_t i = 0; i < QUESTIONS; i++) {
        char question[32];

        (void)snprintf(question, sizeof(question), "n%zu.example.org A", i);
        (void)close(ask(question, 0));
        upstream_receive(0, &queries[i]);
        equal_ids += i > 0 && memcmp(queries[i].bytes, queries[i - 1].bytes, 2) == 0;
        equal_ports += i > 0 && queries[i].from.sin_port == queries[i - 1].from.sin_port;
    }
    assert_in_range(equal_ids, 0, 3); /* by chance: 65536^-4 */
    assert_in_range(equal_ports, 0, 3);
}

/* The first recursor's port is closed. The kernel says so, but not more often than some times a
 * second to all programs together: then the question is asked once more. */
static int ask_past_a_closed_port(void)
{
    struct pollfd next = {.fd = recursors[1], .events = POLLIN};

    for (int round = 0;; round++) {
        const int fd = ask(WWW, 0);

        if (poll(&next, 1, WAIT_MS / 20) == 1) {
            return fd;
        }
        assert_true(round < 20);
        (void)close(fd);
    }
}

static void failing_codes_and_refused_ports_lead_to_the_next(void **state)
{
    (void)state;
    start_with(2, TIMEOUT_LONG_MS);
    for (unsigned rcode = 1; rcode < 12; rcode++) {
        if (rcode == DNS_NXDOMAIN) {
            continue;
        }
        const int fd = ask(WWW, 0);

        upstream_answer(0, rcode, 0, SLICE_EMPTY);
        upstream_answer(1, 0, 1, slice_from(A_RECORD, sizeof(A_RECORD) - 1));
        expect(fd, WWW_ANSWER);
    }
    int fd = ask(WWW, 0);

    upstream_answer(0, DNS_NXDOMAIN, 0, SLICE_EMPTY);
    expect(fd, "NXDOMAIN rd ra");
    (void)close(recursors[0]);
    recursors[0] = -1;
    fd = ask_past_a_closed_port();
    upstream_answer(1, 0, 1, slice_from(A_RECORD, sizeof(A_RECORD) - 1));
    expect(fd, WWW_ANSWER);
    fd = ask_past_a_closed_port();
    upstream_answer(1, DNS_REFUSED, 0, SLICE_EMPTY);
    expect(fd, SERVFAIL_ANSWER);
}

/* recursor_strategy: always the first one, or any; either way the others are asked when one fails.
 */
static void recursors_may_be_begun_with_at_random(void **state)
{
    enum { QUESTIONS = 64 };
    unsigned counts[RECURSORS] = {0};
    struct pollfd wait[RECURSORS];

    (void)state;
    fixture.config.recursor_random = true;
    start_with(RECURSORS, TIMEOUT_LONG_MS);
    fixture.config.recursor_random = false;
    for (size_t i = 0; i < RECURSORS; i++) {
        wait[i] = (struct pollfd){.fd = recursors[i], .events = POLLIN};
    }
    for (unsigned i = 0; i < QUESTIONS; i++) {
        const int fd = ask(WWW, 0);

        assert_int_equal(poll(wait, RECURSORS, WAIT_MS), 1);
        const size_t first = wait[0].revents != 0 ? 0 : 1;

        counts[first]++;
        upstream_answer(first, DNS_SERVFAIL, 0, SLICE_EMPTY);
        upstream_answer(1 - first, 0, 1, slice_from(A_RECORD, sizeof(A_RECORD) - 1));
        expect(fd, WWW_ANSWER);
    }
    assert_in_range(counts[0], 1, QUESTIONS - 1); /* else by chance: 2^-63 */
    struct dns_stats stats;

    dns_server_stats(server, &stats);
    assert_int_equal(stats.forwarded, 2 * QUESTIONS);
    assert_int_equal(stats.forward_failures, QUESTIONS);
    assert_int_equal(stats.rcodes[DNS_NOERROR], QUESTIONS);
}

static void silence_leads_to_the_next_and_then_to_failure(void **state)
{
    struct upstream_query query;

    (void)state;
    start_with(2, TIMEOUT_MIDDLE_MS);
    int fd = ask(WWW, 0);

    upstream_receive(0, &query);
    upstream_answer(1, 0, 1, slice_from(A_RECORD, sizeof(A_RECORD) - 1));
    expect(fd, WWW_ANSWER);
    struct dns_config config = fixture.config;

    config.recursor_timeout_ms = TIMEOUT_SHORT_MS;
    assert_int_equal(dns_server_reload(server, &config), 0);
    fd = ask(WWW, 1232);
    upstream_receive(0, &query);
    upstream_receive(1, &query);
    expect(fd, SERVFAIL_ANSWER "|ar edns 1232");
}

static void what_was_not_asked_is_not_believed(void **state)
{
    static uint8_t out[MESSAGE_BYTES];
    const struct slice answer = slice_from(A_RECORD, sizeof(A_RECORD) - 1);
    struct upstream_query query;
    char text[32];

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    const int fd = ask(WWW, 0);

    upstream_receive(0, &query);
    const size_t size = upstream_compose(&query, 0, 1, answer, out);

    out[0] ^= 1; /* another id */
    upstream_send(recursors[0], &query, out, size);
    out[0] ^= 1;
    out[2] = (uint8_t)(out[2] & 0x7f); /* a question, no answer */
    upstream_send(recursors[0], &query, out, size);
    out[2] |= 0x80;
    out[13] = 'v'; /* another name */
    upstream_send(recursors[0], &query, out, size);
    out[13] = 'w';
    out[query.size - 3] = DNS_AAAA; /* another type */
    upstream_send(recursors[0], &query, out, size);
    out[query.size - 3] = DNS_A;
    out[5] = 2; /* two questions */
    upstream_send(recursors[0], &query, out, size);
    out[5] = 1;
    upstream_send(recursors[0], &query, out, 11); /* no message */
    const int stranger = bound_open(SOCK_DGRAM, 0, text);

    upstream_send(stranger, &query, out, size); /* another address */
    assert_true(is_silent(fd));
    out[13] = 'W'; /* Case makes no other name. */
    upstream_send(recursors[0], &query, out, size);
    expect(fd, "NOERROR rd ra|an Www.example.org 300 A 192.0.2.10");
    (void)close(stranger);
}

static void more_than_the_client_takes_is_cut_to_the_question(void **state)
{
    static char many[16 * 200];

    (void)state;
    for (size_t i = 0; i < sizeof(many); i += 16) {
        memcpy(many + i, A_RECORD, 16);
    }
    start_with(1, TIMEOUT_LONG_MS);
    const int fd = ask(WWW, 0);

    upstream_answer(0, 0, 200, slice_from(many, sizeof(many)));
    expect(fd, "NOERROR tc rd ra");
}

static void tcp_questions_are_asked_over_tcp(void **state)
{
    static uint8_t framed[MESSAGE_BYTES];
    const size_t size = dns_fixture_query(WWW, 0, framed + 2, sizeof(framed) - 2);
    struct upstream_query query = {.size = size};
    const int listener = listeners[0];

    (void)state;
    assert_int_equal(listen(listener, 4), 0);
    start_with(1, TIMEOUT_LONG_MS);
    const int fd = client_open(SOCK_STREAM);

    framed[0] = 0;
    framed[1] = (uint8_t)size;
    assert_int_equal(send(fd, framed, size + 2, 0), size + 2);
    assert_int_equal(shutdown(fd, SHUT_WR), 0); /* It asks no more, but it listens. */
    wait_readable(listener);
    const int upstream = accept(listener, NULL, NULL);

    assert_true(upstream >= 0);
    uint8_t head[2];

    assert_int_equal(recv(upstream, head, 2, MSG_WAITALL), 2);
    assert_int_equal(head[1], size);
    assert_int_equal(recv(upstream, query.bytes, size, MSG_WAITALL), size);
    const size_t answer_size =
        upstream_compose(&query, 0, 1, slice_from(A_RECORD, sizeof(A_RECORD) - 1), framed + 2);

    framed[0] = 0;
    framed[1] = (uint8_t)answer_size;
    for (size_t i = 0; i < answer_size + 2; i++) { /* byte by byte */
        assert_int_equal(send(upstream, framed + i, 1, 0), 1);
    }
    assert_int_equal(recv(fd, head, 2, MSG_WAITALL), 2);
    assert_int_equal(head[1], answer_size);
    assert_int_equal(recv(fd, message, answer_size, MSG_WAITALL), answer_size);
    struct buffer printed = {0};

    dns_fixture_print(message, answer_size, &printed);
    assert_string_equal(printed.data, WWW_ANSWER);
    buffer_deinit(&printed);
    assert_int_equal(recv(fd, message, 1, 0), 0); /* and then it is closed */
    (void)close(fd);
    (void)close(upstream);
}

static void a_client_that_leaves_leaves_nothing_behind(void **state)
{
    uint8_t framed[DNS_UDP_BYTES_DEFAULT];
    const size_t size = dns_fixture_query(WWW, 0, framed + 2, sizeof(framed) - 2);
    const int listener = listeners[0];

    (void)state;
    assert_int_equal(listen(listener, 64), 0);
    start_with(1, TIMEOUT_LONG_MS);
    framed[0] = 0;
    framed[1] = (uint8_t)size;
    for (int i = 0; i < DNS_JOBS_SAME_MAX + 5; i++) { /* more than may wait at once */
        const int fd = client_open(SOCK_STREAM);
        const struct linger reset = {.l_onoff = 1};
        uint8_t head[2];

        assert_int_equal(send(fd, framed, size + 2, 0), size + 2);
        wait_readable(listener);
        const int upstream = accept(listener, NULL, NULL);

        assert_true(upstream >= 0);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
        (void)close(fd);
        /* The server gives up the question, too. */
        ssize_t rc;

        do {
            wait_readable(upstream);
            rc = recv(upstream, head, sizeof(head), 0);
        } while (rc > 0);
        (void)close(upstream);
    }
}

static void equal_questions_have_a_limit(void **state)
{
    int fds[DNS_JOBS_SAME_MAX];
    struct upstream_query query;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    for (size_t i = 0; i < DNS_JOBS_SAME_MAX;) {
        uint8_t out[DNS_UDP_BYTES_DEFAULT];

        fds[i] = ask(WWW, 0);
        upstream_receive(0, &query);
        if (query.bytes[0] != 0x12 || query.bytes[1] != 0x34) {
            i++;
            continue;
        }
        /* Its id is the clients' by chance: theirs would be taken for it, come back. */
        upstream_send(recursors[0], &query, out,
                      upstream_compose(&query, DNS_NXDOMAIN, 0, SLICE_EMPTY, out));
        expect(fds[i], "NXDOMAIN rd ra");
    }
    expect(ask(WWW, 0), SERVFAIL_ANSWER);
    const int other = ask("other.example.org A", 0);

    upstream_receive(0, &query);
    (void)close(other);
    for (size_t i = 0; i < DNS_JOBS_SAME_MAX; i++) {
        (void)close(fds[i]);
    }
}

static void one_client_has_a_limit(void **state)
{
    int fds[DNS_JOBS_PER_CLIENT_MAX];
    struct upstream_query query;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    for (size_t i = 0; i < DNS_JOBS_PER_CLIENT_MAX; i++) {
        char question[64];

        (void)snprintf(question, sizeof(question), "n%zu.example.org A", i);
        fds[i] = ask(question, 0);
        upstream_receive(0, &query);
    }
    expect(ask(WWW, 0), SERVFAIL_ANSWER);
    for (size_t i = 0; i < DNS_JOBS_PER_CLIENT_MAX; i++) {
        (void)close(fds[i]);
    }
}

static void our_own_question_come_back_is_not_asked_again(void **state)
{
    struct upstream_query query;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    const int fd = ask(WWW, 0);

    upstream_receive(0, &query);
    const int loop = client_open(SOCK_DGRAM); /* The recursor asks us. */

    assert_int_equal(send(loop, query.bytes, query.size, 0), query.size);
    wait_readable(loop);
    assert_true(recv(loop, message, sizeof(message), 0) >= DNS_HEADER_BYTES);
    assert_int_equal(message[3] & 0xf, DNS_SERVFAIL);
    assert_true(is_silent(recursors[0]));
    (void)close(loop);
    (void)close(fd);
}

static void a_recursor_that_is_ourselves_is_left_out(void **state)
{
    struct dns_config config = fixture.config;
    char own[32];

    (void)state;
    start_with(0, TIMEOUT_LONG_MS);
    config.recursor_timeout_ms = TIMEOUT_LONG_MS;
    (void)snprintf(own, sizeof(own), "127.0.0.1:%u", dns_server_port(server));
    config.recursors[0] = own;
    config.recursor_count = 1;
    assert_int_equal(dns_server_reload(server, &config), 0);
    expect(ask(WWW, 0), SERVFAIL_ANSWER); /* at once: the time-out is never reached here */
    config.recursors[1] = recursor_texts[0];
    config.recursor_count = 2;
    assert_int_equal(dns_server_reload(server, &config), 0);
    const int fd = ask(WWW, 0);

    upstream_answer(0, 0, 1, slice_from(A_RECORD, sizeof(A_RECORD) - 1));
    expect(fd, WWW_ANSWER);
}

/* "::" takes IPv4, too: our own IPv4 address is as much ourselves. */
static void a_recursor_behind_the_wildcard_of_ipv6_is_left_out(void **state)
{
    struct dns_config config = fixture.config;
    struct dns_stats stats;
    char own[32];

    (void)state;
    if (!start_on("::", 0, TIMEOUT_LONG_MS)) {
        skip(); /* no IPv6 here */
    }
    config.recursor_timeout_ms = TIMEOUT_LONG_MS;
    (void)snprintf(own, sizeof(own), "127.0.0.1:%u", dns_server_port(server));
    config.recursors[0] = own;
    config.recursor_count = 1;
    assert_int_equal(dns_server_reload(server, &config), 0);
    expect(ask(WWW, 0), SERVFAIL_ANSWER);
    dns_server_stats(server, &stats);
    assert_int_equal(stats.forwarded, 0);
}

static void a_reload_brings_recursors_and_takes_them(void **state)
{
    (void)state;
    start_with(0, TIMEOUT_LONG_MS);
    struct dns_config config = fixture.config;

    for (int i = 0; i < 3; i++) {
        config.recursor_count = 0;
        assert_int_equal(dns_server_reload(server, &config), 0);
        expect(ask(WWW, 0), "REFUSED rd");
        expect(ask("n1.node.consul A", 0), "NOERROR aa rd|an n1.node.consul 0 A 10.0.0.1");
        config.recursors[0] = recursor_texts[0];
        config.recursor_count = 1;
        assert_int_equal(dns_server_reload(server, &config), 0);
        const int fd = ask(WWW, 0);

        upstream_answer(0, 0, 1, slice_from(A_RECORD, sizeof(A_RECORD) - 1));
        expect(fd, WWW_ANSWER);
        expect(ask("n1.node.consul A", 0), "NOERROR aa rd ra|an n1.node.consul 0 A 10.0.0.1");
    }
}

static void a_reload_in_between_ends_in_an_answer(void **state)
{
    struct upstream_query query;

    (void)state;
    start_with(2, TIMEOUT_LONG_MS);
    struct dns_config config = fixture.config;
    const int fd = ask(WWW, 0);

    upstream_receive(0, &query);
    config.recursor_count = 0;
    assert_int_equal(dns_server_reload(server, &config), 0);
    expect(ask(WWW, 0), "REFUSED rd");
    uint8_t out[DNS_UDP_BYTES_DEFAULT];

    upstream_send(recursors[0], &query, out,
                  upstream_compose(&query, DNS_SERVFAIL, 0, SLICE_EMPTY, out));
    expect(fd, "REFUSED rd"); /* There is no second recursor any more. */
}

/* What one question wanted must not reach the next. */
static void what_is_no_question_is_never_forwarded(void **state)
{
    struct upstream_query query;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    const int waiting = ask(WWW, 0);
    const int fd = client_open(SOCK_DGRAM);

    upstream_receive(0, &query);
    query.bytes[5] = 2; /* questions */
    assert_int_equal(send(fd, query.bytes, query.size, 0), query.size);
    wait_readable(fd);
    assert_int_equal(recv(fd, message, sizeof(message), 0), DNS_HEADER_BYTES);
    assert_int_equal(message[3] & 0xf, DNS_FORMERR);
    assert_true(is_silent(recursors[0]));
    (void)close(fd);
    (void)close(waiting);
}

static void recursion_may_be_advertised_without_recursors(void **state)
{
    (void)state;
    start_with(0, TIMEOUT_LONG_MS);
    struct dns_config config = fixture.config;

    config.advertise_ra = true;
    assert_int_equal(dns_server_reload(server, &config), 0);
    expect(ask("n1.node.consul A", 0), "NOERROR aa rd ra|an n1.node.consul 0 A 10.0.0.1");
    expect(ask(WWW, 0), "REFUSED rd");
}

/* CNAME alias -> www (compressed), its address, and what services leave out: an unknown type. */
#define CHAIN                                                                                      \
    "\xc0\x0c\0\5\0\1\0\0\0\x3c\0\6\3www\xc0\x12"                                                  \
    "\xc0\x2f\0\1\0\1\0\0\1\x2c\0\4\xc0\0\2\x0a"                                                   \
    "\xc0\x2f\xff\x01\0\1\0\0\0\1\0\2\1x"

static void host_names_are_followed_through_recursors(void **state)
{
    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    const struct slice chain = slice_from(CHAIN, sizeof(CHAIN) - 1);
    int fd = ask("ext.service.consul A", 0);

    upstream_answer(0, 0, 3, chain);
    expect(fd, "NOERROR aa rd ra|an alias.example.org 0 CNAME www.example.org"
               "|an ext.service.consul 0 CNAME alias.example.org"
               "|an www.example.org 0 A 192.0.2.10");
    fd = ask("ext.service.consul SRV", 0);
    upstream_answer(0, 0, 3, chain);
    expect(fd, "NOERROR aa rd ra|an ext.service.consul 0 SRV 1 1 443 alias.example.org"
               "|ar alias.example.org 0 CNAME www.example.org|ar www.example.org 0 A 192.0.2.10");
    fd = ask("ext.node.consul AAAA", 0);
    upstream_answer(0, 0, 2, chain);
    expect(fd, "NOERROR aa rd ra|an alias.example.org 60 CNAME www.example.org"
               "|an ext.node.consul 0 CNAME alias.example.org"
               "|an www.example.org 300 A 192.0.2.10");
}

static void what_recursors_cannot_tell_leaves_the_bare_alias(void **state)
{
    static const struct {
        const char *name;
        unsigned flags, answer_count;
        struct slice answer;
    } cases[] = {
        {"fails", DNS_SERVFAIL, 0, {"", 0}},
        {"not there", DNS_NXDOMAIN, 0, {"", 0}},
        {"empty", 0, 0, {"", 0}},
        {"promises records", 0, 9, {"", 0}},
        {"name that loops", 0, 1, {"\xc0\x23\0\5\0\1\0\0\0\1\0\2\xc0\x0c", 14}},
        {"data cut", 0, 1, {"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\1\2", 14}},
        {"address of three bytes", 0, 1, {"\xc0\x0c\0\1\0\1\0\0\0\1\0\3\1\2\3", 15}},
        {"alias longer than its data", 0, 1, {"\xc0\x0c\0\5\0\1\0\0\0\1\0\1\xc0\x0c", 14}},
        {"another class", 0, 1, {"\xc0\x0c\0\1\0\3\0\0\0\1\0\4\1\2\3\4", 16}},
    };

    (void)state;
    start_with(2, TIMEOUT_LONG_MS);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const int fd = ask("ext.node.consul A", 0);

        print_message("%s\n", cases[i].name);
        upstream_answer(0, cases[i].flags, cases[i].answer_count, cases[i].answer);
        expect(fd, "NOERROR aa rd ra|an ext.node.consul 0 CNAME alias.example.org");
    }
}

/* Each name is asked for once; those beyond the bound stay bare. */
static void many_host_names_are_asked_for_within_bounds(void **state)
{
    enum { HOSTS = DNS_CHASED_MAX + 4 };

    (void)state;
    for (unsigned i = 0; i < HOSTS; i++) {
        char node[32], host[32];

        (void)snprintf(node, sizeof(node), "h%u", i);
        (void)snprintf(host, sizeof(host), "h%u.example.org", i);
        dns_fixture_register(
            &fixture,
            &(struct dns_fixture_entry){
                .node = node, .address = host, .service = "hosts", .id = node, .port = 1});
    }
    start_with(1, TIMEOUT_LONG_MS);
    const int fd = ask("hosts.service.consul SRV", 4096);

    for (size_t i = 0; i < DNS_CHASED_MAX; i++) {
        upstream_answer(0, 0, 1, slice_from(A_RECORD, sizeof(A_RECORD) - 1));
    }
    wait_readable(fd);
    assert_true(recv(fd, message, sizeof(message), 0) > DNS_HEADER_BYTES);
    assert_int_equal(message[7], HOSTS);
    assert_int_equal(message[11], DNS_CHASED_MAX + 1); /* with OPT */
    assert_true(is_silent(recursors[0]));
    (void)close(fd);
}

static void the_server_stops_while_questions_wait(void **state)
{
    struct upstream_query query;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    const int first = ask(WWW, 0);
    const int second = ask("ext.node.consul A", 0);

    upstream_receive(0, &query);
    upstream_receive(0, &query);
    dns_server_stop(server);
    server = NULL;
    (void)close(first);
    (void)close(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_answer_is_passed_on_whole),
        TEST(ids_and_source_ports_are_drawn_anew),
        TEST(failing_codes_and_refused_ports_lead_to_the_next),
        TEST(recursors_may_be_begun_with_at_random),
        TEST(silence_leads_to_the_next_and_then_to_failure),
        TEST(what_was_not_asked_is_not_believed),
        TEST(more_than_the_client_takes_is_cut_to_the_question),
        TEST(tcp_questions_are_asked_over_tcp),
        TEST(a_client_that_leaves_leaves_nothing_behind),
        TEST(equal_questions_have_a_limit),
        TEST(one_client_has_a_limit),
        TEST(our_own_question_come_back_is_not_asked_again),
        TEST(a_recursor_that_is_ourselves_is_left_out),
        TEST(a_recursor_behind_the_wildcard_of_ipv6_is_left_out),
        TEST(a_reload_brings_recursors_and_takes_them),
        TEST(a_reload_in_between_ends_in_an_answer),
        TEST(what_is_no_question_is_never_forwarded),
        TEST(recursion_may_be_advertised_without_recursors),
        TEST(host_names_are_followed_through_recursors),
        TEST(what_recursors_cannot_tell_leaves_the_bare_alias),
        TEST(many_host_names_are_asked_for_within_bounds),
        TEST(the_server_stops_while_questions_wait),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
