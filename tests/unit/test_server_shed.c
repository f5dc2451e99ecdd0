/* A connection that there is no memory for is closed, and the port goes on.
 *
 * Symptom: after one failed allocation nobody could connect any more. Cause: libuv takes nothing
 * further from a listener while uv_accept has not taken the last connection, and nobody ever did.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/peers/link.h"
#include "tests/unit/http_client.h"

/* The next calls of calloc that fail. Sanitizers have an allocator of their own. */
static unsigned calloc_failures;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern void *__libc_calloc(size_t count, size_t size);

void *calloc(size_t count, size_t size)
{
    if (calloc_failures > 0) {
        calloc_failures--;
        return NULL;
    }
    return __libc_calloc(count, size);
}

static void skip_without_faults(void)
{
}
#else
static void skip_without_faults(void)
{
    skip();
}
#endif

static void http_goes_on_after_a_failed_allocation(void **state)
{
    struct http_fixture *fixture = *state;
    struct client clients[3];

    skip_without_faults();
    for (int i = 0; i < 3; i++) {
        client_open(fixture, &clients[i]);
    }
    calloc_failures = 3;
    for (int i = 0; i < 3; i++) {
        client_expect_close(fixture, &clients[i]);
        assert_int_equal(clients[i].size, 0);
        client_close(&clients[i]);
    }
    assert_int_equal(calloc_failures, 0);
    client_open(fixture, &clients[0]);
    client_send(fixture, &clients[0], "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &clients[0], "HTTP/1.1 404 ", 1);
    client_close(&clients[0]);
}

static void on_up(void *host, struct link *link, const struct link_identity *peer)
{
    (void)link;
    (void)peer;
    ++*(unsigned *)host;
}

static void on_down(void *host, struct link *link, const char *reason)
{
    (void)host;
    (void)link;
    (void)reason;
}

static void on_frame(void *host, struct link *link, uint8_t type, struct slice payload)
{
    (void)host;
    (void)link;
    (void)type;
    (void)payload;
}

static void links_go_on_after_a_failed_allocation(void **state)
{
    struct http_fixture *fixture = *state;
    const uint16_t http_port = fixture->port;
    const struct link_identity self = {
        .id.bytes = {1}, .name = "a", .datacenter = "dc1", .address = "127.0.0.1"};
    const struct link_identity other = {
        .id.bytes = {2}, .name = "b", .datacenter = "dc1", .address = "127.0.0.1"};
    unsigned up_count = 0;
    const struct link_handlers handlers = {
        .host = &up_count, .on_up = on_up, .on_down = on_down, .on_frame = on_frame};
    struct link_listener *listener = NULL;
    struct link *dialled = NULL;
    struct client clients[3];
    struct errmsg err = {""};
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);

    skip_without_faults();
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* Holds a free port without listening: nobody else is given it. */
    const int holder = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;

    assert_int_equal(setsockopt(holder, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(holder, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(holder, (struct sockaddr *)&address, &size), 0);
    fixture->port = ntohs(address.sin_port);
    assert_int_equal(
        link_listen(&fixture->loop, "127.0.0.1", fixture->port, &self, &handlers, &listener, &err),
        0);
    for (int i = 0; i < 3; i++) {
        client_open(fixture, &clients[i]);
    }
    calloc_failures = 3;
    for (int i = 0; i < 3; i++) {
        client_expect_close(fixture, &clients[i]);
        client_close(&clients[i]);
    }
    assert_int_equal(calloc_failures, 0);
    assert_int_equal(
        link_dial(&fixture->loop, "127.0.0.1", fixture->port, &other, &handlers, &dialled, &err),
        0);
    for (int i = 0; i < CLIENT_WAIT_MS_MAX * 2 && up_count < 2; i++) {
        loop_turn(fixture);
    }
    assert_int_equal(up_count, 2); /* Both ends. */
    link_free(dialled);
    link_listener_free(listener);
    (void)close(holder);
    fixture->port = http_port;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(http_goes_on_after_a_failed_allocation),
        TEST(links_go_on_after_a_failed_allocation),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
