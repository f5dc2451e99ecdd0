/* HTTPS checks over real connections to a TLS server on the same loop: what a check says when the
 * connection breaks behind the answer's head, and before it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>

#include "server/agent/probe.h"
#include "tests/unit/tls_fixture.h"

/* One connection, answered once, and then broken. */
struct server {
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_tcp_t tcp;
    struct tls_peer peer;
    const char *answer; /* NULL: none, the garbage alone */
    uint16_t port;
    bool answered;
    char buffer[64 * 1024];
};

static struct server *server_of(void *data)
{
    return data;
}

static void server_flush(struct server *server)
{
    char bytes[16 * 1024];
    int count;

    while ((count = BIO_read(server->peer.out, bytes, sizeof(bytes))) > 0) {
        const uv_buf_t out = uv_buf_init(bytes, (unsigned)count);

        assert_int_equal(uv_try_write((uv_stream_t *)&server->tcp, &out, 1), count);
    }
}

/* A record that no key has encrypted. */
static void server_break(struct server *server)
{
    char record[5 + 32] = "\x17\x03\x03\x00\x20";
    const uv_buf_t out = uv_buf_init(record, sizeof(record));

    assert_int_equal(uv_try_write((uv_stream_t *)&server->tcp, &out, 1), sizeof(record));
}

static void server_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct server *server = server_of(handle->data);

    (void)suggested;
    *out = uv_buf_init(server->buffer, sizeof(server->buffer));
}

static void server_on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct server *server = server_of(stream->data);
    char request[4096];

    if (count <= 0) {
        return;
    }
    assert_int_equal(BIO_write(server->peer.in, buffer->base, (int)count), (int)count);
    if (SSL_read(server->peer.ssl, request, sizeof(request)) > 0 && !server->answered) {
        server->answered = true;
        if (server->answer != NULL) {
            const int size = (int)strlen(server->answer);

            assert_int_equal(SSL_write(server->peer.ssl, server->answer, size), size);
        }
    }
    server_flush(server);
    if (server->answered) {
        server_break(server);
    }
}

static void server_on_connection(uv_stream_t *listener, int status)
{
    struct server *server = server_of(listener->data);

    assert_int_equal(status, 0);
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&server->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&server->tcp, server_on_alloc, server_on_read),
                     0);
}

static void server_open(struct server *server, const char *answer)
{
    struct sockaddr_in address;
    int size = sizeof(address);

    memset(server, 0, sizeof(*server));
    server->answer = answer;
    tls_peer_open(&server->peer, "localhost");
    assert_int_equal(uv_loop_init(&server->loop), 0);
    assert_int_equal(uv_tcp_init(&server->loop, &server->listener), 0);
    assert_int_equal(uv_tcp_init(&server->loop, &server->tcp), 0);
    server->listener.data = server;
    server->tcp.data = server;
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
    assert_int_equal(uv_tcp_bind(&server->listener, (const struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&server->listener, 1, server_on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &size), 0);
    server->port = ntohs(address.sin_port);
}

static void server_shut(struct server *server)
{
    uv_close((uv_handle_t *)&server->listener, NULL);
    uv_close((uv_handle_t *)&server->tcp, NULL);
    (void)uv_run(&server->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&server->loop), 0); /* No handle of a stream was left. */
    tls_peer_shut(&server->peer);
}

struct outcome {
    bool done;
    enum probe_status status;
    char output[1024];
};

static void on_done(void *context, enum probe_status status, struct slice output)
{
    struct outcome *outcome = context;

    outcome->done = true;
    outcome->status = status;
    assert_true(slice_copy_text(output, outcome->output, sizeof(outcome->output)));
}

/* A status that was told was lost when the connection broke behind it. */
static void a_broken_connection_counts_until_the_head_is_there(void **state)
{
    static const struct {
        const char *name, *answer;
        enum probe_status status;
        const char *output_end;
    } cases[] = {
        {"nothing", NULL, PROBE_CRITICAL, "\": tls: "},
        {"half a head", "HTTP/1.1 200 OK\r\nContent-Le", PROBE_CRITICAL, "\": tls: "},
        {"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", PROBE_PASSING,
         ": 200 OK Output: half"},
        {"a body without length", "HTTP/1.1 429 Busy\r\n\r\nlater", PROBE_WARNING,
         ": 429 Busy Output: later"},
        {"all", "HTTP/1.1 204 Done\r\n\r\n", PROBE_PASSING, ": 204 Done Output: "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct probe_tls_context *tls = probe_tls_context_new();
        struct outcome outcome = {0};
        struct server server;
        char url[64];

        print_message("  %s\n", cases[i].name);
        server_open(&server, cases[i].answer);
        (void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/", (unsigned)server.port);
        const struct probe_spec spec = {
            .http = slice_from_text(url), .timeout_ms = 60000, .tls = tls, .tls_skip_verify = true};
        assert_non_null(probe_start(&server.loop, &spec, on_done, &outcome));
        while (!outcome.done) {
            (void)uv_run(&server.loop, UV_RUN_ONCE);
        }
        assert_non_null(strstr(outcome.output, cases[i].output_end));
        assert_int_equal(outcome.status, cases[i].status);
        server_shut(&server);
        probe_tls_context_free(tls);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_connection_counts_until_the_head_is_there),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* As the server does. */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
