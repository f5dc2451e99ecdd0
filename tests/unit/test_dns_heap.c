/* A query that is answered from the store allocates nothing: every allocation of the process is
 * counted, with the server's own sockets and threads at work. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "tests/unit/dns_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
/* Of sanitizer/allocator_interface.h, which does not come with every compiler that has the rest. */
extern int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *data,
                                                                         size_t size),
                                                     void (*free_hook)(const volatile void *data));
#endif

enum { TURNS = 200, ANSWER_WAIT_S = 60 };

static atomic_ulong allocations;

/* --- counting: the sanitizers tell, else every call comes here --- */

#ifdef SANITIZED

static void on_malloc(const volatile void *data, size_t size)
{
    (void)data;
    (void)size;
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
}

static void on_free(const volatile void *data)
{
    (void)data;
}

static void begin_counting(void)
{
    assert_true(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0);
}

#else

/* The C library's own, by the names that it keeps for those who replace the public ones. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *data, size_t size);

void *malloc(size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_calloc(count, size);
}

void *realloc(void *data, size_t size)
{
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_realloc(data, size);
}

static void begin_counting(void)
{
}

#endif

/* --- asking --- */

static struct dns_fixture fixture;
static struct dns_server *server;

static int client_open(int type)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(dns_server_port(server)),
                                        .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct timeval wait = {.tv_sec = ANSWER_WAIT_S};
    const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void ask_udp(int fd, const uint8_t *query, size_t size)
{
    static uint8_t answer[DNS_MESSAGE_BYTES_MAX];

    assert_int_equal(send(fd, query, size, 0), size);
    assert_true(recv(fd, answer, sizeof(answer), 0) >= DNS_HEADER_BYTES);
}

static void ask_tcp(int fd, const uint8_t *query, size_t size)
{
    static uint8_t framed[2 + DNS_UDP_BYTES_DEFAULT], answer[2 + DNS_MESSAGE_BYTES_MAX];
    size_t got = 0;

    framed[0] = (uint8_t)(size >> 8);
    framed[1] = (uint8_t)size;
    memcpy(framed + 2, query, size);
    assert_int_equal(send(fd, framed, 2 + size, MSG_NOSIGNAL), 2 + size);
    while (got < 2 || got < 2 + ((size_t)answer[0] << 8 | answer[1])) {
        const ssize_t rc = recv(fd, answer + got, sizeof(answer) - got, 0);

        assert_true(rc > 0);
        got += (size_t)rc;
    }
}

static void no_answer_from_the_store_takes_memory(void **state)
{
    static const struct {
        const char *question;
        uint16_t edns_size;
    } questions[] = {
        {"n1.node.consul A", 0},
        {"n1.node.consul ANY", 1232},
        {"alias.node.consul A", 1232},
        {"none.node.consul A", 1232},
        {"many.service.consul A", 0},
        {"many.service.consul A", 4096},
        {"many.service.consul SRV", 0},
        {"many.service.consul SRV", 1232},
        {"many.service.consul SRV", 65535},
        {"huge.service.consul A", 1232},
        {"t.many.service.consul SRV", 1232},
        {"none.service.consul A", 0},
        {"consul SOA", 0},
        {"consul NS", 1232},
        {"0a000001.addr.consul A", 0},
        {"1.0.0.10.in-addr.arpa PTR", 0},
        {"9.9.9.9.in-addr.arpa PTR", 0},
        {"www.example.org A", 0},
    };
    enum { QUESTIONS = sizeof(questions) / sizeof(questions[0]) };
    static uint8_t queries[QUESTIONS][DNS_UDP_BYTES_DEFAULT];
    size_t sizes[QUESTIONS];
    struct errmsg err = {""};
    const struct dns_options options = {.store = fixture.store,
                                        .config = &fixture.config,
                                        .addresses = {"127.0.0.1"},
                                        .address_count = 1,
                                        .threads = 2,
                                        .seed = 1};

    (void)state;
    assert_int_equal(dns_server_start(&options, &server, &err), 0);
    const int udp = client_open(SOCK_DGRAM);
    const int tcp = client_open(SOCK_STREAM);

    for (size_t i = 0; i < QUESTIONS; i++) {
        sizes[i] = dns_fixture_query(questions[i].question, questions[i].edns_size, queries[i],
                                     sizeof(queries[i]));
    }
    for (int turn = 0; turn < 2; turn++) { /* what is opened with the first question, stays */
        for (size_t i = 0; i < QUESTIONS; i++) {
            ask_udp(udp, queries[i], sizes[i]);
            ask_tcp(tcp, queries[i], sizes[i]);
        }
    }
    for (size_t i = 0; i < QUESTIONS; i++) {
        const unsigned long before = atomic_load(&allocations);

        for (int turn = 0; turn < TURNS; turn++) {
            ask_udp(udp, queries[i], sizes[i]);
            ask_tcp(tcp, queries[i], sizes[i]);
        }
        if (atomic_load(&allocations) != before) {
            fail_msg("%s: %lu allocations in %d questions", questions[i].question,
                     atomic_load(&allocations) - before, 2 * TURNS);
        }
    }
    (void)close(udp);
    (void)close(tcp);
    dns_server_stop(server);
}

/* Else the test above would see nothing. */
static void allocations_are_counted(void **state)
{
    const unsigned long before = atomic_load(&allocations);
    void *volatile data = malloc(1);

    (void)state;
    assert_int_equal(atomic_load(&allocations), before + 1);
    free(data);
}

static int setup(void **state)
{
    char node[32], address[32];

    (void)state;
    begin_counting();
    dns_fixture_open(&fixture);
    dns_fixture_register(&fixture, &(struct dns_fixture_entry){.node = "n1",
                                                               .address = "10.0.0.1",
                                                               .meta = "rack r1",
                                                               .service = "consul",
                                                               .port = 8300});
    dns_fixture_register(
        &fixture, &(struct dns_fixture_entry){.node = "alias", .address = "many.service.consul"});
    for (unsigned i = 1; i <= 300; i++) {
        const bool many = i <= 100;

        (void)snprintf(node, sizeof(node), "m%u", i);
        (void)snprintf(address, sizeof(address), "10.5.%u.%u", i / 250, i % 250);
        dns_fixture_register(&fixture,
                             &(struct dns_fixture_entry){.node = node,
                                                         .address = address,
                                                         .service = many ? "many" : "huge",
                                                         .tags = i % 2 == 0 ? "t" : NULL,
                                                         .check = i % 3 == 0 ? "warning" : NULL,
                                                         .port = i});
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
        cmocka_unit_test(allocations_are_counted),
        cmocka_unit_test(no_answer_from_the_store_takes_memory),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
