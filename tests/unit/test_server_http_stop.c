/* The end of an orderly stop: whoever has not sent his request by then has lost his time. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/http_client.h"

static void on_drained(void *context)
{
    *(bool *)context = true;
}

/* Symptom: a request whose rest came while the parts of the server were stopped one by one was
 * handed to parts that were gone, and the process crashed. */
static void test_what_is_incomplete_at_the_end_is_closed(void **state)
{
    static const char *const pieces[][2] = {
        {"GET /v1/agent/members HTTP/1.1\r\nHost: x\r\n", "\r\n"},
        {"PUT /v1/agent/check/pass/c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12", "345"},
        {"PUT /v1/session/none HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12",
         "345GET /v1/agent/members HTTP/1.1\r\nHost: x\r\n\r\n"},
    };
    enum { CLIENTS = sizeof(pieces) / sizeof(pieces[0]) };
    struct http_fixture *fixture = *state;
    struct client clients[CLIENTS];
    bool drained = false;

    for (size_t i = 0; i < CLIENTS; i++) {
        client_open(fixture, &clients[i]);
        client_send(fixture, &clients[i], pieces[i][0]);
    }
    turns(fixture, 30);
    http_server_drain(fixture->server.http, 100, on_drained, &drained);
    for (int i = 0; i < 2 * CLIENT_WAIT_MS_MAX && !drained; i++) {
        loop_turn(fixture);
    }
    assert_true(drained);
    for (size_t i = 0; i < CLIENTS; i++) {
        const unsigned before = (client_read(&clients[i]), count_text(&clients[i], "HTTP/1.1"));

        client_send(fixture, &clients[i], pieces[i][1]);
        client_expect_close(fixture, &clients[i]);
        assert_int_equal(count_text(&clients[i], "HTTP/1.1"), before);
        client_close(&clients[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_incomplete_at_the_end_is_closed, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
