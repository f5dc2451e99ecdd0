#ifndef TESTS_UNIT_DNS_RECURSORS_H
#define TESTS_UNIT_DNS_RECURSORS_H

/* Recursors and clients that the test plays on real sockets, in one thread, around a responder. To
 * be included after cmocka.h. */

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "dns/dns_server_internal.h"
#include "tests/unit/dns_fixture.h"

enum {
    WAIT_MS = 60000,          /* for what must come */
    SILENCE_MS = 60,          /* for what must not */
    TIMEOUT_LONG_MS = 120000, /* of a recursor: never reached here */
    TIMEOUT_MIDDLE_MS = 5000, /* where one is silent, but another one must come in time */
    TIMEOUT_SHORT_MS = 400,   /* where all are silent */
    RECURSORS = 2,
    MESSAGE_BYTES = 65535,
};

static struct dns_fixture fixture;
static struct dns_server *server;
static int recursors[RECURSORS]; /* UDP */
static int listeners[RECURSORS]; /* TCP, on the same ports; they do not listen so far */
static char recursor_texts[RECURSORS][32];
static uint8_t message[MESSAGE_BYTES];

static inline void wait_readable(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    assert_int_equal(poll(&wait, 1, WAIT_MS), 1);
}

static inline bool is_silent(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, SILENCE_MS) == 0;
}

/* A socket on a port of the loopback, 0: a free one; its address as text into `text`. Returns -1
 * when the port is taken. (With SO_REUSEADDR the kernel would give a test that runs beside this one
 * the same port, now and then.) */
static inline int bound_open(int type, uint16_t port, char text[32])
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    if (bind(fd, (const struct sockaddr *)&address, size) != 0) {
        assert_int_equal(errno, EADDRINUSE);
        (void)close(fd);
        return -1;
    }
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(text, 32, "127.0.0.1:%u", ntohs(address.sin_port));
    return fd;
}

static inline int client_open(int type)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(dns_server_port(server)),
                                        .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static inline int ask(const char *question, uint16_t edns_size)
{
    const int fd = client_open(SOCK_DGRAM);
    const size_t size = dns_fixture_query(question, edns_size, message, sizeof(message));

    assert_int_equal(send(fd, message, size, 0), size);
    return fd;
}

static inline void expect(int fd, const char *expected)
{
    struct buffer text = {0};

    wait_readable(fd);
    const ssize_t size = recv(fd, message, sizeof(message), 0);

    assert_true(size > 0);
    dns_fixture_print(message, (size_t)size, &text);
    assert_string_equal(text.data, expected);
    buffer_deinit(&text);
    (void)close(fd);
}

/* A question as a recursor gets it. */
struct upstream_query {
    uint8_t bytes[DNS_UDP_BYTES_DEFAULT];
    size_t size;
    struct sockaddr_in from;
};

static inline void upstream_receive(size_t index, struct upstream_query *query)
{
    socklen_t size = sizeof(query->from);

    wait_readable(recursors[index]);
    const ssize_t rc = recvfrom(recursors[index], query->bytes, sizeof(query->bytes), 0,
                                (struct sockaddr *)&query->from, &size);

    assert_true(rc >= DNS_HEADER_BYTES);
    query->size = (size_t)rc;
}

/* The question with the response bit, more flags, and `answer` behind it as the answer section. */
static inline size_t upstream_compose(const struct upstream_query *query, unsigned flags,
                                      unsigned answer_count, struct slice answer, uint8_t *out)
{
    memcpy(out, query->bytes, query->size);
    out[2] = (uint8_t)(out[2] | 0x80 | (flags >> 8));
    out[3] = (uint8_t)(0x80 | flags);
    out[7] = (uint8_t)answer_count;
    if (answer.size > 0) {
        memcpy(out + query->size, answer.data, answer.size);
    }
    return query->size + answer.size;
}

static inline void upstream_send(int fd, const struct upstream_query *query, const uint8_t *bytes,
                                 size_t size)
{
    assert_int_equal(
        sendto(fd, bytes, size, 0, (const struct sockaddr *)&query->from, sizeof(query->from)),
        size);
}

static inline void upstream_answer(size_t index, unsigned flags, unsigned answer_count,
                                   struct slice answer)
{
    static uint8_t out[MESSAGE_BYTES];
    struct upstream_query query;

    upstream_receive(index, &query);
    upstream_send(recursors[index], &query, out,
                  upstream_compose(&query, flags, answer_count, answer, out));
}

/* Records that own the question's name: A 192.0.2.10. */
#define A_RECORD "\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\xc0\0\2\x0a"
#define WWW "www.example.org A"
#define WWW_ANSWER "NOERROR rd ra|an www.example.org 300 A 192.0.2.10"
#define SERVFAIL_ANSWER "SERVFAIL rd ra"

/* False when the address cannot be had. */
static inline bool start_on(const char *address, size_t recursor_count, uint32_t timeout_ms)
{
    struct errmsg err = {""};
    struct dns_options options = {.store = fixture.store,
                                  .config = &fixture.config,
                                  .addresses = {address},
                                  .address_count = 1,
                                  .seed = 1};

    fixture.config.recursor_count = recursor_count;
    fixture.config.recursor_timeout_ms = timeout_ms;
    for (size_t i = 0; i < recursor_count; i++) {
        fixture.config.recursors[i] = recursor_texts[i];
    }
    return dns_server_start(&options, &server, &err) == 0;
}

static inline void start_with(size_t recursor_count, uint32_t timeout_ms)
{
    assert_true(start_on("127.0.0.1", recursor_count, timeout_ms));
}

static inline int open_recursors(void **state)
{
    (void)state;
    for (size_t i = 0; i < RECURSORS; i++) {
        listeners[i] = -1;
        while (listeners[i] < 0) { /* until a port is free for both */
            uint16_t port;

            recursors[i] = bound_open(SOCK_DGRAM, 0, recursor_texts[i]);
            assert_int_equal(sscanf(recursor_texts[i], "127.0.0.1:%hu", &port), 1);
            listeners[i] = bound_open(SOCK_STREAM, port, recursor_texts[i]);
            if (listeners[i] < 0) {
                (void)close(recursors[i]);
            }
        }
    }
    return 0;
}

static inline int stop(void **state)
{
    (void)state;
    dns_server_stop(server);
    server = NULL;
    for (size_t i = 0; i < RECURSORS; i++) {
        (void)close(listeners[i]);
        if (recursors[i] >= 0) {
            (void)close(recursors[i]);
        }
    }
    return 0;
}

static inline int setup(void **state)
{
    (void)state;
    dns_fixture_open(&fixture);
    dns_fixture_register(&fixture,
                         &(struct dns_fixture_entry){.node = "n1", .address = "10.0.0.1"});
    dns_fixture_register(&fixture, &(struct dns_fixture_entry){.node = "ext",
                                                               .address = "alias.example.org",
                                                               .service = "ext",
                                                               .port = 443});
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    dns_fixture_close(&fixture);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_recursors, stop)

#endif
