#ifndef TESTS_UNIT_HTTP_CLIENT_H
#define TESTS_UNIT_HTTP_CLIENT_H

/* A client on the loop of the server under test, and the group's setup and teardown. Included after
 * <cmocka.h>, whose assertions it uses. */

/* cmocka's header wants to come first; the fixture's asserts are the C library's. */
#include "tests/unit/http_fixture.h"

/* Not every program uses all of them. */
#define HELPER __attribute__((unused)) static

enum { CLIENT_WAIT_MS_MAX = 60000 };

/* --- a client on the same loop --- */

struct client {
    int fd;
    char *data;
    size_t size;
    bool closed;
};

/* `from`: an address of the loopback network. */
HELPER void client_open_from(struct http_fixture *fixture, struct client *client, const char *from)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    memset(client, 0, sizeof(*client));
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(client->fd >= 0);
    assert_int_equal(inet_pton(AF_INET, from, &address.sin_addr), 1);
    assert_int_equal(bind(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(fixture->port);
    assert_int_equal(connect(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(client->fd, F_SETFL, O_NONBLOCK), 0);
}

HELPER void client_open(struct http_fixture *fixture, struct client *client)
{
    client_open_from(fixture, client, "127.0.0.1");
}

HELPER void client_close(struct client *client)
{
    (void)close(client->fd);
    free(client->data);
    memset(client, 0, sizeof(*client));
    client->fd = -1;
}

HELPER void client_read(struct client *client)
{
    char block[65536];
    ssize_t count;

    while ((count = recv(client->fd, block, sizeof(block), 0)) > 0) {
        client->data = realloc(client->data, client->size + (size_t)count + 1);
        assert_non_null(client->data);
        memcpy(client->data + client->size, block, (size_t)count);
        client->size += (size_t)count;
        client->data[client->size] = '\0';
    }
    if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
        client->closed = true;
    }
}

HELPER void loop_turn(struct http_fixture *fixture)
{
    (void)uv_run(&fixture->loop, UV_RUN_NOWAIT);
    (void)usleep(500);
}

HELPER void client_send_bytes(struct http_fixture *fixture, struct client *client, const char *data,
                              size_t size)
{
    while (size > 0) {
        const ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL);

        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        } else if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            return;
        }
        loop_turn(fixture);
    }
}

HELPER void client_send(struct http_fixture *fixture, struct client *client, const char *text)
{
    client_send_bytes(fixture, client, text, strlen(text));
}

HELPER unsigned count_text(const struct client *client, const char *text)
{
    unsigned count = 0;

    for (const char *at = client->data; at != NULL && (at = strstr(at, text)) != NULL; at++) {
        count++;
    }
    return count;
}

/* Runs the loop until `text` was seen `count` times, or the server has closed. */
HELPER void client_expect(struct http_fixture *fixture, struct client *client, const char *text,
                          unsigned count)
{
    for (int i = 0; i < CLIENT_WAIT_MS_MAX * 2; i++) {
        client_read(client);
        if (count_text(client, text) >= count) {
            return;
        }
        if (client->closed) {
            break;
        }
        loop_turn(fixture);
    }
    fail_msg("no \"%s\" in \"%s\"%s", text, client->data == NULL ? "" : client->data,
             client->closed ? ", closed" : "");
}

HELPER void client_expect_close(struct http_fixture *fixture, struct client *client)
{
    for (int i = 0; i < CLIENT_WAIT_MS_MAX * 2 && !client->closed; i++) {
        loop_turn(fixture);
        client_read(client);
    }
    assert_true(client->closed);
}

/* Runs the loop until the condition holds, as it does behind it; else the test fails. */
#define turn_until(fixture, condition)                                                             \
    do {                                                                                           \
        for (int turn_ = 0; turn_ < CLIENT_WAIT_MS_MAX * 2 && !(condition); turn_++) {             \
            loop_turn(fixture);                                                                    \
        }                                                                                          \
        assert_true(condition);                                                                    \
    } while (0)

/* Runs the loop for a moment, for what must not happen in it: what must happen has turn_until. */
HELPER void turns(struct http_fixture *fixture, int count)
{
    for (int i = 0; i < count; i++) {
        loop_turn(fixture);
    }
}

HELPER int setup(void **state)
{
    struct http_fixture *fixture = calloc(1, sizeof(*fixture));

    assert_non_null(fixture);
    http_fixture_open(fixture, 0);
    *state = fixture;
    return 0;
}

HELPER int teardown(void **state)
{
    http_fixture_close(*state);
    free(*state);
    return 0;
}

#endif
