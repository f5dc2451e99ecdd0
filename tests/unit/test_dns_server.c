/* The responder on real sockets: both transports on one port, and clients that misbehave cost
 * themselves only. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "dns/dns_server_internal.h"
#include "tests/unit/dns_fixture.h"

enum { ANSWER_WAIT_MS = 60000, IDLE_MS = 3600 * 1000 /* so that no slow machine reaches it */ };

enum { START_TRIES = 20 };

static struct dns_fixture fixture;
static struct dns_server *server;

static int client_open(int type)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(dns_server_port(server)),
                                        .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct timeval wait = {.tv_sec = ANSWER_WAIT_MS / 1000};
    const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* TCP from 127.0.1.`host`. */
static int client_open_from(unsigned host)
{
    const struct sockaddr_in own = {.sin_family = AF_INET,
                                    .sin_addr = {htonl(INADDR_LOOPBACK + 0x100 + host)}};
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(dns_server_port(server)),
                                        .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct timeval wait = {.tv_sec = ANSWER_WAIT_MS / 1000};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&own, sizeof(own)), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* A framed query; returns its size. */
static size_t tcp_query(const char *question, uint8_t *out, size_t out_bytes)
{
    const size_t size = dns_fixture_query(question, 0, out + 2, out_bytes - 2);

    out[0] = (uint8_t)(size >> 8);
    out[1] = (uint8_t)size;
    return size + 2;
}

static void send_all(int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        const ssize_t rc = send(fd, data, size, MSG_NOSIGNAL);

        assert_true(rc > 0);
        data += rc;
        size -= (size_t)rc;
    }
}

/* False when the connection ends. */
static bool receive_all(int fd, uint8_t *data, size_t size)
{
    while (size > 0) {
        const ssize_t rc = recv(fd, data, size, 0);

        if (rc == 0 || (rc < 0 && errno == ECONNRESET)) {
            return false;
        }
        assert_true(rc > 0);
        data += rc;
        size -= (size_t)rc;
    }
    return true;
}

static bool tcp_receive(int fd, struct buffer *text)
{
    static uint8_t answer[DNS_MESSAGE_BYTES_MAX];
    uint8_t head[2];

    if (!receive_all(fd, head, sizeof(head))) {
        return false;
    }
    const size_t size = (size_t)((head[0] << 8) | head[1]);

    assert_true(receive_all(fd, answer, size));
    buffer_clear(text);
    dns_fixture_print(answer, size, text);
    return true;
}

static void tcp_expect(int fd, const char *expected)
{
    struct buffer text = {0};

    assert_true(tcp_receive(fd, &text));
    assert_string_equal(text.data, expected);
    buffer_deinit(&text);
}

static void udp_expect(const char *question, const char *expected)
{
    uint8_t message[DNS_UDP_BYTES_DEFAULT];
    struct buffer text = {0};
    const int fd = client_open(SOCK_DGRAM);
    const size_t size = dns_fixture_query(question, 0, message, sizeof(message));

    assert_int_equal(send(fd, message, size, 0), size);
    const ssize_t got = recv(fd, message, sizeof(message), 0);

    assert_true(got > 0);
    dns_fixture_print(message, (size_t)got, &text);
    assert_string_equal(text.data, expected);
    buffer_deinit(&text);
    (void)close(fd);
}

#define N1_QUESTION "n1.node.consul A"
#define N1_ANSWER "NOERROR aa rd|an n1.node.consul 0 A 10.0.0.1"

static int start_threads(unsigned threads)
{
    struct errmsg err = {""};
    const struct dns_options options = {.store = fixture.store,
                                        .config = &fixture.config,
                                        .addresses = {"127.0.0.1", "127.0.0.2"},
                                        .address_count = 2,
                                        .threads = threads,
                                        .seed = 1,
                                        .tcp_idle_ms = IDLE_MS};

    for (int tries = 0; tries < START_TRIES; tries++) { /* until a port is free on both */
        if (dns_server_start(&options, &server, &err) == 0) {
            return 0;
        }
    }
    (void)fprintf(stderr, "%s\n", err.text);
    return -1;
}

static int start(void **state)
{
    (void)state;
    return start_threads(1);
}

static int stop(void **state)
{
    (void)state;
    dns_server_stop(server);
    server = NULL;
    return 0;
}

static void both_transports_answer_on_one_port(void **state)
{
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = tcp_query(N1_QUESTION, query, sizeof(query));
    const int fd = client_open(SOCK_STREAM);

    (void)state;
    assert_int_not_equal(dns_server_port(server), 0);
    udp_expect(N1_QUESTION, N1_ANSWER);
    send_all(fd, query, size);
    tcp_expect(fd, N1_ANSWER);
    (void)close(fd);
}

static void queries_may_come_in_one_piece_or_byte_by_byte(void **state)
{
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    uint8_t many[8192];
    const size_t size = tcp_query(N1_QUESTION, query, sizeof(query));
    const int fd = client_open(SOCK_STREAM);
    size_t used = 0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        memcpy(many + used, query, size);
        used += size;
    }
    send_all(fd, many, used);
    for (int i = 0; i < 100; i++) {
        tcp_expect(fd, N1_ANSWER);
    }
    for (size_t i = 0; i < size; i++) {
        send_all(fd, query + i, 1);
    }
    tcp_expect(fd, N1_ANSWER);
    (void)close(fd);
}

static void what_is_no_query_ends_the_connection(void **state)
{
    static const struct {
        const char *name;
        struct slice bytes;
    } cases[] = {
        {"empty message", {"\0\0", 2}},
        {"short header", {"\0\3abc", 5}},
        {"longer than any query", {"\xff\xff", 2}},
        {"longer than any query, some of it there", {"\xff\xff\x12\x34\1\0\0\1", 8}},
        {"a query, then one without a header", {"\0\0\0\1x", 5}},
    };
    uint8_t byte;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const int fd = client_open(SOCK_STREAM);

        send_all(fd, (const uint8_t *)cases[i].bytes.data, cases[i].bytes.size);
        if (receive_all(fd, &byte, 1)) {
            fail_msg("%s: answered", cases[i].name);
        }
        (void)close(fd);
    }
}

/* Also such that come in fragments; what stands behind a question is nobody's business. */
static void datagrams_of_all_sizes_are_answered(void **state)
{
    enum { DATAGRAM_BYTES_MAX = 65507 };
    static const size_t sizes[] = {
        0,    1,    11,   12,   13,   31,   32,   33,    512,   1232,
        1472, 1473, 4095, 4096, 4097, 9000, 9001, 32767, 32768, DATAGRAM_BYTES_MAX};
    static uint8_t message[DATAGRAM_BYTES_MAX];
    const size_t size = dns_fixture_query(N1_QUESTION, 0, message, sizeof(message));
    const int fd = client_open(SOCK_DGRAM);

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_int_equal(send(fd, message, sizes[i], 0), sizes[i]);
        if (sizes[i] >= DNS_HEADER_BYTES) {
            uint8_t answer[DNS_UDP_BYTES_DEFAULT];
            const ssize_t got = recv(fd, answer, sizeof(answer), 0);

            if (got < DNS_HEADER_BYTES || (answer[3] & 0xf) > DNS_REFUSED ||
                (sizes[i] >= size && (answer[3] & 0xf) != DNS_NOERROR)) {
                fail_msg("%zu bytes: %zd", sizes[i], got);
            }
        }
    }
    (void)close(fd);
    udp_expect(N1_QUESTION, N1_ANSWER);
}

/* It sends queries with large answers and takes none: it must wait, the others must not; and when
 * it reads at last, nothing is missing. */
static void a_slow_reader_costs_itself_only(void **state)
{
    enum { QUERIES = 3000, ANSWER_BYTES_MAX = 4096 };
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = tcp_query("many.service.consul A", query, sizeof(query));
    const int fd = client_open(SOCK_STREAM);
    size_t sent = 0;

    (void)state;
    /* As much as the kernel takes: the server stops reading when its answers are not taken. */
    while (sent < QUERIES * size) {
        const ssize_t rc =
            send(fd, query + sent % size, size - sent % size, MSG_NOSIGNAL | MSG_DONTWAIT);
        struct pollfd wait = {.fd = fd, .events = POLLOUT};

        if (rc > 0) {
            sent += (size_t)rc;
        } else {
            assert_int_equal(errno, EAGAIN);
            if (poll(&wait, 1, 200) == 0) {
                break;
            }
        }
    }
    udp_expect(N1_QUESTION, N1_ANSWER);
    for (size_t i = 0; i < sent / size; i++) {
        uint8_t head[2], answer[ANSWER_BYTES_MAX];

        assert_true(receive_all(fd, head, sizeof(head)));
        const size_t answer_size = (size_t)((head[0] << 8) | head[1]);

        assert_in_range(answer_size, 200 * 16, sizeof(answer));
        assert_true(receive_all(fd, answer, answer_size));
        assert_int_equal(answer[7], 200); /* records */
    }
    (void)close(fd);
}

static void one_client_has_a_limit_of_connections(void **state)
{
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = tcp_query(N1_QUESTION, query, sizeof(query));
    int fds[DNS_TCP_CONNS_PER_CLIENT];
    uint8_t byte;

    (void)state;
    for (size_t i = 0; i < DNS_TCP_CONNS_PER_CLIENT; i++) {
        fds[i] = client_open(SOCK_STREAM);
        send_all(fds[i], query, size);
        tcp_expect(fds[i], N1_ANSWER);
    }
    const int refused = client_open(SOCK_STREAM);

    assert_false(receive_all(refused, &byte, 1));
    (void)close(refused);
    send_all(fds[0], query, size);
    tcp_expect(fds[0], N1_ANSWER);
    for (size_t i = 0; i < DNS_TCP_CONNS_PER_CLIENT; i++) {
        (void)close(fds[i]);
    }
}

/* All connections are taken, by several clients: a new one costs the one that was idle longest. */
static void the_longest_idle_connection_makes_room(void **state)
{
    enum { CLIENTS = DNS_TCP_CONNS_MAX / DNS_TCP_CONNS_PER_CLIENT };
    static int fds[DNS_TCP_CONNS_MAX];
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = tcp_query(N1_QUESTION, query, sizeof(query));
    struct rlimit limit;
    uint8_t byte;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 3 * DNS_TCP_CONNS_MAX) {
        skip(); /* Both ends are this process's. */
    }
    for (size_t i = 0; i < DNS_TCP_CONNS_MAX; i++) {
        fds[i] = client_open_from((unsigned)(2 + i / DNS_TCP_CONNS_PER_CLIENT));
        send_all(fds[i], query, size);
        tcp_expect(fds[i], N1_ANSWER);
    }
    send_all(fds[0], query, size); /* The first is not idle, the second is by now. */
    tcp_expect(fds[0], N1_ANSWER);
    const int newcomer = client_open_from(2 + CLIENTS);

    send_all(newcomer, query, size);
    tcp_expect(newcomer, N1_ANSWER);
    assert_false(receive_all(fds[1], &byte, 1));
    send_all(fds[0], query, size);
    tcp_expect(fds[0], N1_ANSWER);
    (void)close(newcomer);
    for (size_t i = 0; i < DNS_TCP_CONNS_MAX; i++) {
        (void)close(fds[i]);
    }
}

/* Without a descriptor for it, and none of its own to give up, the server lets go of a client that
 * it cannot take: else the listener would stay ready, and its thread busy, for as long as that. */
static void without_descriptors_a_client_is_let_go(void **state)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(dns_server_port(server)),
                                        .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int fd = client_open(SOCK_STREAM);
    const int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct rlimit limit, none;
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    uint8_t byte;
    const size_t size = tcp_query(N1_QUESTION, query, sizeof(query));

    (void)state;
    assert_int_equal(shutdown(fd, SHUT_WR), 0); /* The server has no connection then. */
    assert_false(receive_all(fd, &byte, 1));
    const int lowest = dup(fd); /* of those that are free */

    assert_true(lowest >= 0);
    (void)close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = (rlim_t)lowest;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const int rc = connect(other, (const struct sockaddr *)&address, sizeof(address));
    struct pollfd ready = {.fd = other, .events = POLLIN};
    const int closed = poll(&ready, 1, ANSWER_WAIT_MS);

    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(rc, 0);
    assert_int_equal(closed, 1);
    assert_false(receive_all(other, &byte, 1));
    (void)close(other);
    (void)close(fd);
    const int third = client_open(SOCK_STREAM);

    send_all(third, query, size);
    tcp_expect(third, N1_ANSWER);
    (void)close(third);
}

static void a_reload_holds_for_the_next_query(void **state)
{
    struct dns_config config = fixture.config;

    (void)state;
    udp_expect(N1_QUESTION, N1_ANSWER);
    for (uint32_t ttl_s = 1; ttl_s < 20; ttl_s++) {
        char expected[128];

        config.node_ttl_s = ttl_s;
        (void)snprintf(expected, sizeof(expected), "NOERROR aa rd|an n1.node.consul %u A 10.0.0.1",
                       ttl_s);
        assert_int_equal(dns_server_reload(server, &config), 0);
        udp_expect(N1_QUESTION, expected);
    }
    config.domain = "no..name";
    assert_int_equal(dns_server_reload(server, &config), DNS_ECONFIG);
    udp_expect(N1_QUESTION, "NOERROR aa rd|an n1.node.consul 19 A 10.0.0.1");
}

static void registrations_show_in_the_next_answer(void **state)
{
    char address[32], expected[128];

    (void)state;
    for (unsigned i = 1; i < 20; i++) {
        (void)snprintf(address, sizeof(address), "10.9.0.%u", i);
        (void)snprintf(expected, sizeof(expected), "NOERROR aa rd|an moving.service.consul 0 A %s",
                       address);
        dns_fixture_register(&fixture, &(struct dns_fixture_entry){.node = "n9",
                                                                   .address = "10.9.1.1",
                                                                   .service = "moving",
                                                                   .service_address = address});
        udp_expect("moving.service.consul A", expected);
    }
}

static atomic_bool flood_over;

static void *flood(void *argument)
{
    const int fd = *(int *)argument;
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = dns_fixture_query("many.service.consul A", 0, query, sizeof(query));

    while (!atomic_load(&flood_over)) {
        (void)send(fd, query, size, MSG_DONTWAIT); /* Losses are part of it. */
    }
    return NULL;
}

static void a_flood_stops_neither_tcp_nor_the_end(void **state)
{
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = tcp_query(N1_QUESTION, query, sizeof(query));
    pthread_t thread;

    (void)state;
    assert_int_equal(start_threads(2), 0);
    int fd = client_open(SOCK_DGRAM);

    atomic_store(&flood_over, false);
    assert_int_equal(pthread_create(&thread, NULL, flood, &fd), 0);
    for (int i = 0; i < 5; i++) {
        const int tcp = client_open(SOCK_STREAM);

        send_all(tcp, query, size);
        tcp_expect(tcp, N1_ANSWER);
        (void)close(tcp);
    }
    dns_server_stop(server);
    server = NULL;
    atomic_store(&flood_over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)close(fd);
}

/* "::" is every address of this machine, IPv4's too, as it is for HTTP and with Consul; the answer
 * leaves from the address that was asked. Where IPv4 addresses are named, those are meant. */
static void the_wildcard_of_ipv6_takes_ipv4_too(void **state)
{
    struct errmsg err = {""};
    struct dns_options options = {.store = fixture.store,
                                  .config = &fixture.config,
                                  .addresses = {"::"},
                                  .address_count = 1,
                                  .seed = 1};
    uint8_t query[DNS_UDP_BYTES_DEFAULT];
    const size_t size = tcp_query(N1_QUESTION, query, sizeof(query));

    (void)state;
    for (size_t count = 1; count <= 2; count++) {
        options.addresses[1] = count == 2 ? "127.0.0.1" : NULL;
        options.address_count = count;
        if (dns_server_start(&options, &server, &err) != 0) {
            skip(); /* no IPv6 here */
        }
        const int fd = client_open(SOCK_STREAM);

        send_all(fd, query, size);
        tcp_expect(fd, N1_ANSWER);
        (void)close(fd);
        udp_expect(N1_QUESTION, N1_ANSWER);
        (void)stop(NULL);
    }
}

static void a_taken_port_is_an_error_that_names_the_address(void **state)
{
    struct errmsg err = {""};
    struct dns_server *second = NULL;
    struct dns_options options = {.store = fixture.store,
                                  .config = &fixture.config,
                                  .addresses = {"127.0.0.1"},
                                  .address_count = 1,
                                  .port = dns_server_port(server)};

    (void)state;
    assert_int_equal(dns_server_start(&options, &second, &err), DNS_EIO);
    assert_null(second);
    assert_non_null(strstr(err.text, "127.0.0.1"));
    options.port = 0;
    options.addresses[0] = "localhost";
    assert_int_equal(dns_server_start(&options, &second, &err), DNS_EIO);
    assert_non_null(strstr(err.text, "localhost"));
    dns_server_stop(NULL);
}

/* Symptom: of two servers that were started on any port each answered half of what the other was
 * asked. Cause: with SO_REUSEPORT the kernel may choose a port that another program of the same
 * user has. */
static void any_port_is_one_that_nobody_has(void **state)
{
    enum { OTHERS = 200, STARTS = 300 }; /* By chance they met in nearly all runs. */
    struct errmsg err = {""};
    const struct dns_options options = {.store = fixture.store,
                                        .config = &fixture.config,
                                        .addresses = {"127.0.0.1"},
                                        .address_count = 1};
    struct sockaddr_in address;
    uint16_t ports[OTHERS];
    int fds[OTHERS];
    const int on = 1;

    (void)state;
    for (size_t i = 0; i < OTHERS; i++) {
        socklen_t size = sizeof(address);

        address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_true(fds[i] >= 0);
        assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
        assert_int_equal(bind(fds[i], (const struct sockaddr *)&address, size), 0);
        assert_int_equal(getsockname(fds[i], (struct sockaddr *)&address, &size), 0);
        ports[i] = ntohs(address.sin_port);
    }
    for (size_t start_count = 0; start_count < STARTS; start_count++) {
        assert_int_equal(dns_server_start(&options, &server, &err), 0);
        for (size_t i = 0; i < OTHERS; i++) {
            assert_int_not_equal(dns_server_port(server), ports[i]);
        }
        (void)stop(NULL);
    }
    for (size_t i = 0; i < OTHERS; i++) {
        (void)close(fds[i]);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_transports_answer_on_one_port, start, stop),
        cmocka_unit_test_setup_teardown(queries_may_come_in_one_piece_or_byte_by_byte, start, stop),
        cmocka_unit_test_setup_teardown(what_is_no_query_ends_the_connection, start, stop),
        cmocka_unit_test_setup_teardown(datagrams_of_all_sizes_are_answered, start, stop),
        cmocka_unit_test_setup_teardown(a_slow_reader_costs_itself_only, start, stop),
        cmocka_unit_test_setup_teardown(one_client_has_a_limit_of_connections, start, stop),
        cmocka_unit_test_setup_teardown(the_longest_idle_connection_makes_room, start, stop),
        cmocka_unit_test_setup_teardown(without_descriptors_a_client_is_let_go, start, stop),
        cmocka_unit_test_setup_teardown(a_reload_holds_for_the_next_query, start, stop),
        cmocka_unit_test_setup_teardown(registrations_show_in_the_next_answer, start, stop),
        cmocka_unit_test(a_flood_stops_neither_tcp_nor_the_end),
        cmocka_unit_test(the_wildcard_of_ipv6_takes_ipv4_too),
        cmocka_unit_test(any_port_is_one_that_nobody_has),
        cmocka_unit_test_setup_teardown(a_taken_port_is_an_error_that_names_the_address, start,
                                        stop),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
