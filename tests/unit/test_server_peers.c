/* What other servers say of themselves and of others is not trusted: an address is an IP address,
 * because it is dialled, and goes into the Raft configuration of all. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/gossip/membership.h"
#include "server/peers/link.h"
#include "server/server.h"

enum { TURNS_MAX = 60000, PING = LINK_TYPE_FIRST };

/* A server of which there is only its membership, and one that speaks to it. */
struct fixture {
    uv_loop_t loop;
    uv_timer_t tick;
    struct config config;
    struct server server;
    struct membership *membership;
    struct link_identity speaker;
    struct link *link;
    unsigned ups, frames, failures;
};

static void on_up(void *host, struct link *link, const struct link_identity *peer)
{
    (void)link;
    (void)peer;
    ((struct fixture *)host)->ups++;
}

static void on_down(void *host, struct link *link, const char *reason)
{
    (void)link;
    (void)reason;
    ((struct fixture *)host)->failures++;
}

static void on_frame(void *host, struct link *link, uint8_t type, struct slice payload)
{
    (void)link;
    (void)type;
    (void)payload;
    ((struct fixture *)host)->frames++;
}

static void on_change(void *host, const struct member *member)
{
    (void)host;
    (void)member;
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static struct link_handlers handlers = {
    .on_up = on_up, .on_down = on_down, .on_frame = on_frame, .on_failed = on_down};

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

static int setup(void **state)
{
    static char address[] = "127.0.0.1";
    static char name[] = "node1";
    static char datacenter[] = "dc1";
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct errmsg err = {""};
    int rc = -1;

    assert_non_null(fixture);
    assert_int_equal(uv_loop_init(&fixture->loop), 0);
    assert_int_equal(uv_timer_init(&fixture->loop, &fixture->tick), 0);
    assert_int_equal(uv_timer_start(&fixture->tick, on_tick, 1, 1), 0);
    fixture->config = (struct config){.node_name = name,
                                      .datacenter = datacenter,
                                      .advertise_addr = address,
                                      .bind_addr = address,
                                      .server_port = 1};
    fixture->server.loop = &fixture->loop;
    fixture->server.config = &fixture->config;
    fixture->server.node_id = (struct uuid){.bytes = {1}};
    for (int i = 0; i < 20 && rc != 0; i++) { /* Somebody may be faster. */
        fixture->config.serf_lan_port = free_port();
        rc = membership_new(&fixture->server, on_change, fixture, &fixture->membership, &err);
    }
    assert_int_equal(rc, 0);
    fixture->speaker = (struct link_identity){.id.bytes = {2},
                                              .name = "node2",
                                              .datacenter = "dc1",
                                              .address = "127.0.0.1",
                                              .serf_port = 1,
                                              .server_port = 1};
    handlers.host = fixture;
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    link_free(fixture->link);
    membership_free(fixture->membership);
    uv_close((uv_handle_t *)&fixture->tick, NULL);
    (void)uv_run(&fixture->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&fixture->loop), 0);
    free(fixture);
    return 0;
}

static void dial(struct fixture *fixture)
{
    struct errmsg err = {""};

    assert_int_equal(link_dial(&fixture->loop, "127.0.0.1", (uint16_t)fixture->config.serf_lan_port,
                               &fixture->speaker, &handlers, &fixture->link, &err),
                     0);
}

/* Until one of the speaker's counts is not 0. */
static void wait_for(struct fixture *fixture, const unsigned *count)
{
    for (int i = 0; i < TURNS_MAX && *count == 0; i++) {
        (void)uv_run(&fixture->loop, UV_RUN_ONCE);
    }
    assert_true(*count > 0);
}

static void put_member(struct buffer *out, uint8_t id, const char *address)
{
    const struct uuid uuid = {.bytes = {id}};

    buffer_append(out, uuid.bytes, UUID_BYTES);
    buffer_put_string(out, SLICE_LITERAL("another"));
    buffer_put_string(out, slice_from_text(address));
    buffer_put_u16(out, 1);
    buffer_put_u16(out, 1);
}

static const struct member *find(const struct fixture *fixture, uint8_t id)
{
    return membership_find(fixture->membership, &(struct uuid){.bytes = {id}});
}

static void who_has_no_ip_address_is_not_let_in(void **state)
{
    struct fixture *fixture = *state;

    (void)strcpy(fixture->speaker.address, "localhost");
    dial(fixture);
    wait_for(fixture, &fixture->failures);
    assert_int_equal(fixture->ups, 0);
    assert_null(find(fixture, 2));
}

static void a_member_without_an_ip_address_is_not_learned(void **state)
{
    struct fixture *fixture = *state;
    struct buffer ping = {0};

    dial(fixture);
    wait_for(fixture, &fixture->ups);
    buffer_put_u8(&ping, 0);
    buffer_put_u32(&ping, 0);
    buffer_append(&ping, (struct uuid){.bytes = {0}}.bytes, UUID_BYTES);
    buffer_put_u32(&ping, 3);
    put_member(&ping, 3, "127.0.0.1");
    put_member(&ping, 4, "::1");
    put_member(&ping, 5, "127.0.0.1:8300 "); /* Would be another one with a port after it. */
    assert_true(link_send(fixture->link, PING, buffer_slice(&ping)));
    link_flush(fixture->link);
    buffer_deinit(&ping);
    wait_for(fixture, &fixture->frames); /* The answer. */
    assert_non_null(find(fixture, 2));
    assert_non_null(find(fixture, 3));
    assert_non_null(find(fixture, 4));
    assert_null(find(fixture, 5));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(who_has_no_ip_address_is_not_let_in),
        TEST(a_member_without_an_ip_address_is_not_learned),
    };
#undef TEST
    (void)signal(SIGPIPE, SIG_IGN); /* As the server does. */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
