/* The responder beside its questions: how old its store may be and what waits for that, what it
 * counts, whom it closes, and which addresses it answers from. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

#include "dns/dns_server_internal.h"
#include "tests/unit/dns_fixture.h"

enum { WAIT_MS = 60000, SILENCE_MS = 60, IDLE_MS = 250, START_TRIES = 20 };

#define N1_QUESTION "n1.node.consul A"
#define N1_ANSWER "NOERROR aa rd|an n1.node.consul 0 A 10.0.0.1"
#define FAILURE "SERVFAIL aa rd"

static struct dns_fixture fixture;
static struct dns_server *server;
static atomic_uint confirmations; /* asked for */

static uint64_t now_ms(void)
{
    struct timespec now;

    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void count_confirmation(void *context)
{
    (void)context;
    atomic_fetch_add(&confirmations, 1);
}

static void start(const struct dns_config *config, bool confirms, uint64_t tcp_idle_ms,
                  const char *first, const char *second)
{
    struct errmsg err = {""};
    const struct dns_options options = {.store = fixture.store,
                                        .config = config,
                                        .addresses = {first, second},
                                        .address_count = second == NULL ? 1 : 2,
                                        .seed = 1,
                                        .confirm = confirms ? count_confirmation : NULL,
                                        .tcp_idle_ms = tcp_idle_ms};

    int rc = -1;

    atomic_store(&confirmations, 0);
    for (int tries = 0; rc != 0 && tries < START_TRIES;
         tries++) { /* A port may not be free on both. */
        rc = dns_server_start(&options, &server, &err);
    }
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
}

/* A container may have none. */
static bool machine_has_ipv6(void)
{
    const struct sockaddr_in6 address = {.sin6_family = AF_INET6,
                                         .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const bool has = fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;

    if (fd >= 0) {
        (void)close(fd);
    }
    return has;
}

static int stop(void **state)
{
    (void)state;
    dns_server_stop(server);
    server = NULL;
    return 0;
}

static int client_open_from(const char *own, int type, const char *text)
{
    const struct timeval wait = {.tv_sec = WAIT_MS / 1000};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(dns_server_port(server))};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(dns_server_port(server))};
    const bool is_v4 = inet_pton(AF_INET, text, &v4.sin_addr) == 1;
    const int fd = socket(is_v4 ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_true(is_v4 || inet_pton(AF_INET6, text, &v6.sin6_addr) == 1);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
    if (own != NULL) {
        struct sockaddr_in from = {.sin_family = AF_INET};

        assert_int_equal(inet_pton(AF_INET, own, &from.sin_addr), 1);
        assert_int_equal(bind(fd, (const struct sockaddr *)&from, sizeof(from)), 0);
    }
    if (is_v4) {
        assert_int_equal(connect(fd, (const struct sockaddr *)&v4, sizeof(v4)), 0);
    } else {
        assert_int_equal(connect(fd, (const struct sockaddr *)&v6, sizeof(v6)), 0);
    }
    return fd;
}

static int client_open_to(int type, const char *text)
{
    return client_open_from(NULL, type, text);
}

/* Sends a question, framed over TCP. */
static void ask(int fd, int type, const char *question)
{
    uint8_t query[2 + DNS_UDP_BYTES_DEFAULT];
    const size_t size = dns_fixture_query(question, 0, query + 2, sizeof(query) - 2);
    const size_t head = type == SOCK_STREAM ? 2 : 0;

    query[0] = (uint8_t)(size >> 8);
    query[1] = (uint8_t)size;
    assert_int_equal(send(fd, query + 2 - head, size + head, MSG_NOSIGNAL), size + head);
}

static void expect(int fd, int type, const char *expected)
{
    static uint8_t answer[DNS_MESSAGE_BYTES_MAX];
    struct buffer text = {0};
    ssize_t size;

    if (type == SOCK_STREAM) {
        assert_int_equal(recv(fd, answer, 2, MSG_WAITALL), 2);
        size = recv(fd, answer, (size_t)((answer[0] << 8) | answer[1]), MSG_WAITALL);
    } else {
        size = recv(fd, answer, sizeof(answer), 0);
    }
    assert_true(size > 0);
    dns_fixture_print(answer, (size_t)size, &text);
    assert_string_equal(text.data, expected);
    buffer_deinit(&text);
}

static void exchange(const char *address, int type, const char *question, const char *expected)
{
    const int fd = client_open_to(type, address);

    ask(fd, type, question);
    expect(fd, type, expected);
    (void)close(fd);
}

static bool is_silent(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, SILENCE_MS) == 0;
}

/* Until `count` confirmations have been asked for. */
static void wait_for_confirmations(unsigned count)
{
    for (int i = 0; i < WAIT_MS && atomic_load(&confirmations) < count; i++) {
        (void)poll(NULL, 0, 1);
    }
    assert_int_equal(atomic_load(&confirmations), count);
}

/* --- how old --- */

/* allow_stale false: each question about the store waits until the store was brought up to date
 * after it came, also if an earlier question's confirmation is done before. */
static void questions_wait_for_their_own_confirmation(void **state)
{
    static const int types[] = {SOCK_DGRAM, SOCK_STREAM};
    struct dns_config config = fixture.config;

    (void)state;
    config.confirm_always = true;
    start(&config, true, 0, "127.0.0.1", NULL);
    for (size_t i = 0; i < 2; i++) {
        const unsigned asked = atomic_load(&confirmations);
        const int first = client_open_to(types[i], "127.0.0.1");
        const int second = client_open_to(types[i], "127.0.0.1");

        ask(first, types[i], N1_QUESTION);
        wait_for_confirmations(asked + 1);
        const uint64_t wanted = dns_server_confirm_wanted(server);

        ask(second, types[i], "m001.node.consul A");
        wait_for_confirmations(asked + 2);
        assert_true(is_silent(first));
        dns_server_confirm(server, wanted, true);
        expect(first, types[i], N1_ANSWER);
        assert_true(is_silent(second));
        dns_server_confirm(server, dns_server_confirm_wanted(server), true);
        expect(second, types[i], "NOERROR aa rd|an m001.node.consul 0 A 10.5.1.1");
        (void)close(first);
        (void)close(second);
    }
}

/* On one connection, too, what is ready overtakes what waits (RFC 7766, 6.2.1.1). */
static void answers_overtake_what_waits_on_their_connection(void **state)
{
    struct dns_config config = fixture.config;

    (void)state;
    config.confirm_always = true;
    start(&config, true, 0, "127.0.0.1", NULL);
    const int fd = client_open_to(SOCK_STREAM, "127.0.0.1");

    ask(fd, SOCK_STREAM, N1_QUESTION);
    ask(fd, SOCK_STREAM, "www.example.org A");
    expect(fd, SOCK_STREAM, "REFUSED rd");
    wait_for_confirmations(1);
    dns_server_confirm(server, dns_server_confirm_wanted(server), true);
    expect(fd, SOCK_STREAM, N1_ANSWER);
    (void)close(fd);
}

static void without_a_confirmation_questions_fail(void **state)
{
    struct dns_config config = fixture.config;
    struct dns_stats stats;

    (void)state;
    config.confirm_always = true;
    start(&config, true, 0, "127.0.0.1", NULL);
    const int fd = client_open_to(SOCK_DGRAM, "127.0.0.1");

    ask(fd, SOCK_DGRAM, N1_QUESTION);
    wait_for_confirmations(1);
    dns_server_confirm(server, dns_server_confirm_wanted(server), false);
    expect(fd, SOCK_DGRAM, FAILURE);
    /* What is not in the store needs none. */
    ask(fd, SOCK_DGRAM, "www.example.org A");
    expect(fd, SOCK_DGRAM, "REFUSED rd");
    (void)close(fd);
    dns_server_stats(server, &stats);
    assert_int_equal(stats.confirmed, 1);
    assert_int_equal(stats.unconfirmed, 1);
    assert_int_equal(atomic_load(&confirmations), 1);
    (void)stop(NULL);
    start(&config, false, 0, "127.0.0.1", NULL);
    exchange("127.0.0.1", SOCK_DGRAM, N1_QUESTION, FAILURE);
}

/* One question more than may wait, or than may wait of one client whatever it asks over, fails at
 * once; those that wait are answered. */
static void what_waits_has_a_bound(void **state)
{
    static const char *const addresses[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3"};
    enum { CLIENTS = DNS_PARKED_MAX / DNS_PARKED_PER_CLIENT_MAX };
    struct dns_config config = fixture.config;
    int fds[CLIENTS];

    (void)state;
    assert_true(CLIENTS < sizeof(addresses) / sizeof(addresses[0]));
    config.confirm_always = true;
    start(&config, true, 0, "127.0.0.1", NULL);
    for (unsigned client = 0; client < CLIENTS; client++) {
        fds[client] = client_open_from(addresses[client], SOCK_STREAM, "127.0.0.1");
        for (unsigned i = 0; i < DNS_PARKED_PER_CLIENT_MAX; i++) {
            ask(fds[client], SOCK_STREAM, N1_QUESTION);
        }
        wait_for_confirmations((client + 1) * DNS_PARKED_PER_CLIENT_MAX);
        ask(fds[client], SOCK_STREAM, N1_QUESTION);
        expect(fds[client], SOCK_STREAM, FAILURE);
        exchange("127.0.0.1", SOCK_DGRAM, N1_QUESTION, FAILURE);
    }
    const int late = client_open_from(addresses[CLIENTS], SOCK_STREAM, "127.0.0.1");

    ask(late, SOCK_STREAM, N1_QUESTION);
    expect(late, SOCK_STREAM, FAILURE);
    dns_server_confirm(server, dns_server_confirm_wanted(server), true);
    for (unsigned client = 0; client < CLIENTS; client++) {
        for (unsigned i = 0; i < DNS_PARKED_PER_CLIENT_MAX; i++) {
            expect(fds[client], SOCK_STREAM, N1_ANSWER);
        }
        (void)close(fds[client]);
    }
    (void)close(late);
}

/* A client that leaves takes its waiting questions with it; the server ends with some waiting. */
static void who_leaves_waits_no_more(void **state)
{
    struct dns_config config = fixture.config;
    struct dns_stats stats = {.tcp_open = 1};

    (void)state;
    config.confirm_always = true;
    start(&config, true, 0, "127.0.0.1", NULL);
    const int leaving = client_open_to(SOCK_STREAM, "127.0.0.1");
    const int staying = client_open_to(SOCK_STREAM, "127.0.0.1");
    const struct linger reset = {.l_onoff = 1};

    ask(leaving, SOCK_STREAM, N1_QUESTION);
    wait_for_confirmations(1);
    ask(staying, SOCK_STREAM, N1_QUESTION);
    wait_for_confirmations(2);
    assert_int_equal(setsockopt(leaving, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    (void)close(leaving);
    for (int i = 0; i < WAIT_MS && stats.tcp_open != 1; i++) {
        (void)poll(NULL, 0, 1);
        dns_server_stats(server, &stats);
    }
    dns_server_confirm(server, dns_server_confirm_wanted(server), true);
    expect(staying, SOCK_STREAM, N1_ANSWER);
    ask(staying, SOCK_STREAM, N1_QUESTION);
    wait_for_confirmations(3);
    (void)stop(NULL);
    (void)close(staying);
}

/* max_stale: young enough, or answered after a confirmation, or not at all. */
static void only_a_store_that_is_too_old_is_confirmed(void **state)
{
    struct dns_config config = fixture.config;
    struct dns_stats stats;

    (void)state;
    config.stale_bounded = true;
    config.max_stale_ms = 3600 * 1000;
    start(&config, true, 0, "127.0.0.1", NULL);
    dns_server_stats(server, &stats);
    assert_false(stats.age_known);

    /* Never heard of the cluster: nobody knows how old. */
    const int fd = client_open_to(SOCK_DGRAM, "127.0.0.1");

    ask(fd, SOCK_DGRAM, N1_QUESTION);
    wait_for_confirmations(1);
    dns_server_set_fresh(server, now_ms());
    dns_server_confirm(server, dns_server_confirm_wanted(server), true);
    expect(fd, SOCK_DGRAM, N1_ANSWER);
    (void)close(fd);
    exchange("127.0.0.1", SOCK_DGRAM, N1_QUESTION, N1_ANSWER);
    assert_int_equal(atomic_load(&confirmations), 1);
    (void)stop(NULL);

    /* Older than that. */
    const uint64_t old_ms = now_ms();

    config.max_stale_ms = 1;
    start(&config, false, 0, "127.0.0.1", NULL);
    dns_server_set_fresh(server, old_ms);
    dns_server_set_fresh(server, old_ms - 1); /* no way back */
    while (now_ms() <= old_ms + config.max_stale_ms) {
        (void)poll(NULL, 0, 1);
    }
    exchange("127.0.0.1", SOCK_DGRAM, N1_QUESTION, FAILURE);
    dns_server_stats(server, &stats);
    assert_true(stats.age_known);
    assert_in_range(stats.age_ms, 2, WAIT_MS);
    config.stale_bounded = false;
    assert_int_equal(dns_server_reload(server, &config), 0);
    exchange("127.0.0.1", SOCK_DGRAM, N1_QUESTION, N1_ANSWER);
}

/* --- counters --- */

static void all_is_counted(void **state)
{
    struct dns_stats stats;
    uint8_t byte = 0;

    (void)state;
    start(&fixture.config, false, 0, "127.0.0.1", NULL);
    dns_server_set_fresh(server, 1); /* as old as the machine's clock */
    exchange("127.0.0.1", SOCK_DGRAM, N1_QUESTION, N1_ANSWER);
    exchange("127.0.0.1", SOCK_STREAM, N1_QUESTION, N1_ANSWER);
    exchange("127.0.0.1", SOCK_DGRAM, "www.example.org A", "REFUSED rd");
    exchange("127.0.0.1", SOCK_DGRAM, "9.9.9.9.in-addr.arpa PTR", "SERVFAIL rd ra");
    const int fd = client_open_to(SOCK_DGRAM, "127.0.0.1");

    assert_int_equal(send(fd, &byte, 1, 0), 1);
    ask(fd, SOCK_DGRAM, "consul AXFR");
    expect(fd, SOCK_DGRAM, "NOTIMP aa rd");
    (void)close(fd);
    dns_server_stats(server, &stats);
    assert_int_equal(stats.udp_queries, 5);
    assert_int_equal(stats.tcp_queries, 1);
    assert_int_equal(stats.domain_queries, 3);
    assert_int_equal(stats.reverse_queries, 1);
    assert_int_equal(stats.silent, 1);
    assert_int_equal(stats.rcodes[DNS_NOERROR], 2);
    assert_int_equal(stats.rcodes[DNS_REFUSED], 1);
    assert_int_equal(stats.rcodes[DNS_SERVFAIL], 1);
    assert_int_equal(stats.rcodes[DNS_NOTIMP], 1);
    assert_int_equal(stats.tcp_connections, 1);
    assert_int_equal(stats.truncated, 0);
    assert_int_equal(stats.unconfirmed, 0);
    assert_int_equal(stats.stale, now_ms() > DNS_STALE_COUNTED_MS ? 4 : 0);
}

/* --- connections --- */

/* Who asks nothing whole is closed after a while, whatever it sends. */
static void idle_connections_are_closed(void **state)
{
    static const char *const pieces[] = {"", "\0", "\0\40half a question"};
    static const size_t sizes[] = {0, 1, 17};
    struct dns_stats stats;
    uint8_t byte;

    (void)state;
    start(&fixture.config, false, IDLE_MS, "127.0.0.1", NULL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint64_t began_ms = now_ms();
        const int fd = client_open_to(SOCK_STREAM, "127.0.0.1");

        assert_int_equal(send(fd, pieces[i], sizes[i], MSG_NOSIGNAL), sizes[i]);
        const ssize_t rc = recv(fd, &byte, 1, 0);

        assert_true(rc == 0 || (rc < 0 && errno == ECONNRESET));
        assert_in_range(now_ms() - began_ms, IDLE_MS / 2, WAIT_MS);
        (void)close(fd);
    }
    dns_server_stats(server, &stats);
    assert_int_equal(stats.tcp_dropped, sizeof(sizes) / sizeof(sizes[0]));
    assert_int_equal(stats.tcp_open, 0);
    assert_int_equal(DNS_TCP_IDLE_MS, 10000); /* as documented */
}

/* Closed in the middle of an answer, again and again: nothing is left of it. */
static void a_client_may_leave_amid_its_answer(void **state)
{
    const struct linger reset = {.l_onoff = 1};
    struct dns_stats stats = {.tcp_open = 1};

    (void)state;
    start(&fixture.config, false, 0, "127.0.0.1", NULL);
    for (int turn = 0; turn < 20; turn++) {
        const int fd = client_open_to(SOCK_STREAM, "127.0.0.1");
        uint8_t some[100];

        for (int i = 0; i < 200; i++) {
            ask(fd, SOCK_STREAM, "many.service.consul A");
        }
        assert_true(recv(fd, some, sizeof(some), 0) > 0);
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
        (void)close(fd);
    }
    exchange("127.0.0.1", SOCK_STREAM, N1_QUESTION, N1_ANSWER);
    for (int i = 0; i < WAIT_MS && stats.tcp_open > 0; i++) {
        (void)poll(NULL, 0, 1);
        dns_server_stats(server, &stats);
    }
    assert_int_equal(stats.tcp_open, 0);
}

/* --- addresses --- */

static void both_families_answer_on_one_port(void **state)
{
    (void)state;
    if (!machine_has_ipv6()) {
        skip();
    }
    start(&fixture.config, false, 0, "127.0.0.1", "::1");
    exchange("127.0.0.1", SOCK_DGRAM, N1_QUESTION, N1_ANSWER);
    exchange("127.0.0.1", SOCK_STREAM, N1_QUESTION, N1_ANSWER);
    exchange("::1", SOCK_DGRAM, N1_QUESTION, N1_ANSWER);
    exchange("::1", SOCK_STREAM, N1_QUESTION, N1_ANSWER);
}

/* A connected client takes answers only from where it has sent its question to. */
static void answers_leave_from_the_address_that_was_asked(void **state)
{
    const bool ipv6 = machine_has_ipv6();

    (void)state;
    start(&fixture.config, false, 0, "0.0.0.0", ipv6 ? "::" : NULL);
    for (unsigned i = 1; i < 20; i++) {
        char address[32];

        (void)snprintf(address, sizeof(address), "127.0.2.%u", i);
        exchange(address, SOCK_DGRAM, N1_QUESTION, N1_ANSWER);
        exchange(address, SOCK_STREAM, N1_QUESTION, N1_ANSWER);
    }
    if (ipv6) {
        exchange("::1", SOCK_DGRAM, N1_QUESTION, N1_ANSWER);
    }
}

static int setup(void **state)
{
    (void)state;
    dns_fixture_open(&fixture);
    dns_fixture_register_some(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dns_fixture_close(&fixture);
    return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(questions_wait_for_their_own_confirmation),
        TEST(answers_overtake_what_waits_on_their_connection),
        TEST(without_a_confirmation_questions_fail),
        TEST(what_waits_has_a_bound),
        TEST(who_leaves_waits_no_more),
        TEST(only_a_store_that_is_too_old_is_confirmed),
        TEST(all_is_counted),
        TEST(idle_connections_are_closed),
        TEST(a_client_may_leave_amid_its_answer),
        TEST(both_families_answer_on_one_port),
        TEST(answers_leave_from_the_address_that_was_asked),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
