/* Health probes against a server on the same loop that says what each case wants: what is told of
 * good, bad, hostile and silent answers. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>

#include "server/agent/probe.h"

enum { TIMEOUT_MS = 60000 }; /* where there is an answer */

struct peer {
    uv_loop_t loop;
    uv_tcp_t listener;
    uint16_t port;
    const char *answer; /* NULL: says nothing, keeps the connection */
    const char *second; /* answer to the second connection, NULL: the same */
    unsigned connections;
    char request[4096];
    size_t request_bytes;
    char read_buffer[4096];
};

struct peer_conn {
    uv_tcp_t tcp;
    uv_write_t write;
    struct peer *peer;
    bool answered;
};

struct outcome {
    bool done;
    enum probe_status status;
    char output[8192];
    size_t output_bytes;
};

static void peer_on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void peer_close(struct peer_conn *conn)
{
    if (!uv_is_closing((uv_handle_t *)&conn->tcp)) {
        uv_close((uv_handle_t *)&conn->tcp, peer_on_closed);
    }
}

static void peer_on_written(uv_write_t *write, int status)
{
    (void)status;
    peer_close(write->data);
}

static void peer_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct peer_conn *conn = handle->data;

    (void)suggested;
    *out = uv_buf_init(conn->peer->read_buffer, sizeof(conn->peer->read_buffer));
}

static void peer_on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct peer_conn *conn = stream->data;
    struct peer *peer = conn->peer;

    if (count < 0) {
        peer_close(conn);
        return;
    }
    for (ssize_t i = 0; i < count && peer->request_bytes < sizeof(peer->request) - 1; i++) {
        peer->request[peer->request_bytes++] = buffer->base[i];
    }
    peer->request[peer->request_bytes] = '\0';
    const char *answer =
        peer->connections > 1 && peer->second != NULL ? peer->second : peer->answer;
    if (answer == NULL || conn->answered) {
        return;
    }
    conn->answered = true;
    union {
        const char *in;
        char *out;
    } pun = {.in = answer};
    uv_buf_t out = uv_buf_init(pun.out, (unsigned)strlen(answer));
    conn->write.data = conn;
    assert_int_equal(uv_write(&conn->write, stream, &out, 1, peer_on_written), 0);
}

static void peer_on_connection(uv_stream_t *listener, int status)
{
    struct peer *peer = listener->data;
    struct peer_conn *conn = calloc(1, sizeof(*conn));

    assert_int_equal(status, 0);
    assert_non_null(conn);
    conn->peer = peer;
    conn->tcp.data = conn;
    peer->connections++;
    peer->request_bytes = 0;
    assert_int_equal(uv_tcp_init(&peer->loop, &conn->tcp), 0);
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&conn->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&conn->tcp, peer_on_alloc, peer_on_read), 0);
}

static void peer_open(struct peer *peer)
{
    struct sockaddr_in address;
    int size = sizeof(address);

    memset(peer, 0, sizeof(*peer));
    assert_int_equal(uv_loop_init(&peer->loop), 0);
    assert_int_equal(uv_tcp_init(&peer->loop, &peer->listener), 0);
    peer->listener.data = peer;
    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
    assert_int_equal(uv_tcp_bind(&peer->listener, (const struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&peer->listener, 16, peer_on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&peer->listener, (struct sockaddr *)&address, &size), 0);
    peer->port = ntohs(address.sin_port);
}

static void peer_shut(struct peer *peer)
{
    uv_close((uv_handle_t *)&peer->listener, NULL);
    (void)uv_run(&peer->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&peer->loop), 0); /* No handle and no probe was left. */
}

static void on_done(void *context, enum probe_status status, struct slice output)
{
    struct outcome *outcome = context;

    assert_false(outcome->done);
    outcome->done = true;
    outcome->status = status;
    outcome->output_bytes = output.size;
    (void)snprintf(outcome->output, sizeof(outcome->output), "%.*s", (int)output.size,
                   output.size == 0 ? "" : output.data);
}

static void run(struct peer *peer, const struct probe_spec *spec, struct outcome *outcome)
{
    memset(outcome, 0, sizeof(*outcome));
    assert_non_null(probe_start(&peer->loop, spec, on_done, outcome));
    assert_false(outcome->done); /* Never from inside. */
    while (!outcome->done) {
        (void)uv_run(&peer->loop, UV_RUN_ONCE);
    }
}

static void probe_tells_what_the_server_answered(void **state)
{
    static const struct {
        const char *name, *answer;
        enum probe_status status;
        const char *output; /* behind "HTTP GET <url>: " or `Get "<url>": ` */
    } cases[] = {
        {"passing", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", PROBE_PASSING,
         "200 OK Output: hi"},
        {"Patroni's HTTP/1.0 without a length", "HTTP/1.0 200 OK\r\nServer: x\r\n\r\n{}",
         PROBE_PASSING, "200 OK Output: {}"},
        {"not in that role", "HTTP/1.0 503 Service Unavailable\r\n\r\nno", PROBE_CRITICAL,
         "503 Service Unavailable Output: no"},
        {"too many requests", "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
         PROBE_WARNING, "429 Too Many Requests Output: "},
        {"no body", "HTTP/1.1 204 No Content\r\n\r\n", PROBE_PASSING, "204 No Content Output: "},
        {"chunked body",
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
         PROBE_PASSING, "200 OK Output: abc"},
        {"interim answer first",
         "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
         PROBE_PASSING, "200 OK Output: x"},
        {"redirect whose address the interim answer had",
         "HTTP/1.1 103 Early Hints\r\nLocation: /x\r\n\r\n"
         "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
         PROBE_CRITICAL, "302 Found Output: "},
        {"redirect without an address", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
         PROBE_CRITICAL, "302 Found Output: "},
        {"closed at once", "", PROBE_CRITICAL, NULL},
        {"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", PROBE_CRITICAL, NULL},
        {"body cut short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi", PROBE_PASSING,
         "200 OK Output: hi"},
        {"head cut short", "HTTP/1.1 200 OK\r\nContent-Le", PROBE_CRITICAL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peer peer;
        struct outcome outcome;
        char url[64], expected[256];

        print_message("  %s\n", cases[i].name);
        peer_open(&peer);
        peer.answer = cases[i].answer;
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/replica", (unsigned)peer.port);
        const struct probe_spec spec = {.http = slice_from_text(url), .timeout_ms = TIMEOUT_MS};
        run(&peer, &spec, &outcome);
        assert_int_equal(outcome.status, cases[i].status);
        if (cases[i].output != NULL) {
            (void)snprintf(expected, sizeof(expected), "HTTP GET %s: %s", url, cases[i].output);
            assert_string_equal(outcome.output, expected);
        } else {
            (void)snprintf(expected, sizeof(expected), "Get \"%s\": ", url);
            assert_memory_equal(outcome.output, expected, strlen(expected));
        }
        peer_shut(&peer);
    }
}

static void probe_sends_consuls_request(void **state)
{
    struct peer peer;
    struct outcome outcome;
    char url[64], expected[512];

    (void)state;
    peer_open(&peer);
    peer.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u?lag=1", (unsigned)peer.port);
    json_t *header = json_pack("{s:[s,s], s:[s], s:[s]}", "X-A", "1", "2", "X-Evil",
                               "a\r\nInjected: yes", "Connection", "keep-alive");
    const struct probe_spec spec = {
        .http = slice_from_text(url),
        .method = SLICE_LITERAL("POST"),
        .body = SLICE_LITERAL("abc"),
        .header = header,
        .timeout_ms = TIMEOUT_MS,
    };
    run(&peer, &spec, &outcome);
    (void)snprintf(expected, sizeof(expected),
                   "POST /?lag=1 HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nX-A: 1\r\nX-A: 2\r\n"
                   "User-Agent: Consul Health Check\r\nAccept: text/plain, text/*, */*\r\n"
                   "Content-Length: 3\r\nConnection: close\r\n\r\nabc",
                   (unsigned)peer.port);
    assert_string_equal(peer.request, expected);
    json_decref(header);
    peer_shut(&peer);
}

static void probe_follows_a_redirect(void **state)
{
    struct peer peer;
    struct outcome outcome;
    char url[64], expected[256];

    (void)state;
    peer_open(&peer);
    peer.answer = "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n";
    peer.second = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/a", (unsigned)peer.port);
    const struct probe_spec spec = {.http = slice_from_text(url), .timeout_ms = TIMEOUT_MS};
    run(&peer, &spec, &outcome);
    assert_int_equal(outcome.status, PROBE_PASSING);
    (void)snprintf(expected, sizeof(expected), "HTTP GET %s: 200 OK Output: x", url);
    assert_string_equal(outcome.output, expected);
    assert_memory_equal(peer.request, "GET /other ", strlen("GET /other "));
    peer_shut(&peer);
}

/* Who asks for a redirect may be told the check's address, but not what the check's own host is
 * told. Go's client does so, too. */
static void probe_keeps_its_credentials_from_other_hosts(void **state)
{
    static const struct {
        const char *name, *status, *location; /* "%u": the port */
        bool secret, host, body;
    } cases[] = {
        {"path", "302 Found", "/b", true, true, false},
        {"path, same request", "307 Temporary Redirect", "/b", true, true, true},
        {"the same host", "301 Moved", "http://127.0.0.1:%u/b", true, false, false},
        {"another host", "302 Found", "http://localhost:%u/b", false, false, false},
        {"another host, same request", "308 Permanent", "http://localhost:%u/b", false, false,
         true},
        {"another host without a scheme", "303 See Other", "//localhost:%u/b", false, false, false},
    };
    json_t *header = json_pack("{s:[s], s:[s], s:[s], s:[s]}", "authorization", "Bearer s3cret",
                               "Cookie", "s3cret", "Host", "inner.example", "X-A", "1");

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peer peer;
        struct outcome outcome;
        char url[64], location[128], answer[256];

        print_message("  %s\n", cases[i].name);
        peer_open(&peer);
        (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/a", (unsigned)peer.port);
        const char *port = strstr(cases[i].location, "%u");
        const int before =
            (int)(port == NULL ? strlen(cases[i].location) : (size_t)(port - cases[i].location));
        char digits[8] = "";
        if (port != NULL) {
            (void)snprintf(digits, sizeof(digits), "%u", (unsigned)peer.port);
        }
        (void)snprintf(location, sizeof(location), "%.*s%s%s", before, cases[i].location, digits,
                       port == NULL ? "" : port + 2);
        (void)snprintf(answer, sizeof(answer),
                       "HTTP/1.1 %s\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", cases[i].status,
                       location);
        peer.answer = answer;
        peer.second = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        const struct probe_spec spec = {.http = slice_from_text(url),
                                        .header = header,
                                        .body = SLICE_LITERAL("abc"),
                                        .timeout_ms = TIMEOUT_MS};
        run(&peer, &spec, &outcome);
        assert_int_equal(outcome.status, PROBE_PASSING);
        assert_int_equal(peer.connections, 2);
        assert_memory_equal(peer.request, "GET /b ", strlen("GET /b "));
        assert_non_null(strstr(peer.request, "X-A: 1\r\n"));
        assert_int_equal(strstr(peer.request, "Bearer s3cret") != NULL, cases[i].secret);
        assert_int_equal(strstr(peer.request, "Cookie: s3cret") != NULL, cases[i].secret);
        assert_int_equal(strstr(peer.request, "Host: inner.example") != NULL, cases[i].host);
        assert_int_equal(strstr(peer.request, "\r\n\r\nabc") != NULL, cases[i].body);
        peer_shut(&peer);
    }
    json_decref(header);
}

static void probe_ends_a_loop_of_redirects(void **state)
{
    struct peer peer;
    struct outcome outcome;
    char url[64];

    (void)state;
    peer_open(&peer);
    peer.answer = "HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n";
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/a", (unsigned)peer.port);
    const struct probe_spec spec = {.http = slice_from_text(url), .timeout_ms = TIMEOUT_MS};
    run(&peer, &spec, &outcome);
    assert_int_equal(outcome.status, PROBE_CRITICAL);
    assert_int_equal(peer.connections, PROBE_REDIRECTS_MAX + 1);
    peer_shut(&peer);
}

static void probe_keeps_the_end_of_a_long_answer(void **state)
{
    enum { BODY_BYTES = 3 * PROBE_OUTPUT_BYTES_DEFAULT };
    struct peer peer;
    struct outcome outcome;
    char url[64];
    struct buffer answer = {0};

    (void)state;
    peer_open(&peer);
    buffer_printf(&answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BODY_BYTES + 3);
    for (int i = 0; i < BODY_BYTES; i++) {
        buffer_append_char(&answer, 'x');
    }
    buffer_append(&answer, "END", 4);
    peer.answer = answer.data;
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", (unsigned)peer.port);
    const struct probe_spec spec = {.http = slice_from_text(url), .timeout_ms = TIMEOUT_MS};
    run(&peer, &spec, &outcome);
    assert_int_equal(outcome.output_bytes, strlen("HTTP GET : 200 OK Output: ") + strlen(url) +
                                               PROBE_OUTPUT_BYTES_DEFAULT);
    assert_string_equal(outcome.output + outcome.output_bytes - 4, "xEND");
    buffer_deinit(&answer);
    peer_shut(&peer);
}

static void probe_gives_up_on_silence(void **state)
{
    struct peer peer;
    struct outcome outcome;
    char url[64];

    (void)state;
    peer_open(&peer);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", (unsigned)peer.port);
    const struct probe_spec spec = {.http = slice_from_text(url), .timeout_ms = 20};
    run(&peer, &spec, &outcome);
    assert_int_equal(outcome.status, PROBE_CRITICAL);
    assert_non_null(strstr(outcome.output, "context deadline exceeded"));
    peer_shut(&peer);
}

static void probe_connects_over_tcp(void **state)
{
    struct peer peer;
    struct outcome outcome;
    char target[64], expected[128];

    (void)state;
    peer_open(&peer);
    (void)snprintf(target, sizeof(target), "127.0.0.1:%u", (unsigned)peer.port);
    const struct probe_spec spec = {.tcp = slice_from_text(target), .timeout_ms = TIMEOUT_MS};
    run(&peer, &spec, &outcome);
    assert_int_equal(outcome.status, PROBE_PASSING);
    (void)snprintf(expected, sizeof(expected), "TCP connect %s: Success", target);
    assert_string_equal(outcome.output, expected);

    /* A port that is held without listening refuses: nobody else can be given it. */
    struct sockaddr_in address;
    uv_tcp_t held;
    int size = sizeof(address);

    assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
    assert_int_equal(uv_tcp_init(&peer.loop, &held), 0);
    assert_int_equal(uv_tcp_bind(&held, (const struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_tcp_getsockname(&held, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(target, sizeof(target), "127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    const struct probe_spec refused = {.tcp = slice_from_text(target), .timeout_ms = TIMEOUT_MS};
    run(&peer, &refused, &outcome);
    assert_int_equal(outcome.status, PROBE_CRITICAL);
    (void)snprintf(expected, sizeof(expected), "dial tcp %s: connect: connection refused", target);
    assert_string_equal(outcome.output, expected);
    uv_close((uv_handle_t *)&held, NULL);
    peer_shut(&peer);
}

static void probe_tells_what_cannot_be_asked(void **state)
{
    static const struct {
        const char *name, *http, *tcp, *output;
    } cases[] = {
        {"no scheme", "foo", "", "Get \"foo\": unsupported protocol scheme \"\""},
        {"other scheme", "ftp://x/", "", "Get \"ftp://x/\": unsupported protocol scheme \"ftp\""},
        {"TLS", "https://127.0.0.1/", "", "Get \"https://127.0.0.1/\": TLS is not available"},
        {"line break", "http://127.0.0.1/\r\nX: y", "",
         "Get \"http://127.0.0.1/\r\nX: y\": net/url: invalid control character in URL"},
        {"no host", "http:///x", "", "Get \"http:///x\": http: no usable host in request URL"},
        {"bad port", "http://a:99999/", "",
         "Get \"http://a:99999/\": http: no usable host in request URL"},
        {"credentials", "http://u:p@a/", "",
         "Get \"http://u:p@a/\": http: no usable host in request URL"},
        {"no port", "", "127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address"},
        {"TCP port is no number", "", "127.0.0.1:x",
         "dial tcp: address 127.0.0.1:x: invalid address"},
        {"two colons", "", "::1:80", "dial tcp: address ::1:80: invalid address"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peer peer;
        struct outcome outcome;

        print_message("  %s\n", cases[i].name);
        peer_open(&peer);
        const struct probe_spec spec = {.http = slice_from_text(cases[i].http),
                                        .tcp = slice_from_text(cases[i].tcp),
                                        .timeout_ms = TIMEOUT_MS};
        run(&peer, &spec, &outcome);
        assert_int_equal(outcome.status, PROBE_CRITICAL);
        assert_string_equal(outcome.output, cases[i].output);
        peer_shut(&peer);
    }
}

/* A check is deregistered at any moment of its run. */
static void probe_can_be_cancelled_at_any_turn(void **state)
{
    (void)state;
    for (unsigned turns = 0; turns < 12; turns++) {
        struct peer peer;
        struct outcome outcome = {0};
        char url[64];

        peer_open(&peer);
        (void)snprintf(url, sizeof(url), "http://localhost:%u/", (unsigned)peer.port);
        const struct probe_spec spec = {.http = slice_from_text(url), .timeout_ms = TIMEOUT_MS};
        struct probe *probe = probe_start(&peer.loop, &spec, on_done, &outcome);
        assert_non_null(probe);
        for (unsigned i = 0; i < turns; i++) {
            (void)uv_run(&peer.loop, UV_RUN_NOWAIT);
        }
        assert_false(outcome.done);
        probe_cancel(probe);
        peer_shut(&peer);
        assert_false(outcome.done);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probe_tells_what_the_server_answered),
        cmocka_unit_test(probe_sends_consuls_request),
        cmocka_unit_test(probe_follows_a_redirect),
        cmocka_unit_test(probe_keeps_its_credentials_from_other_hosts),
        cmocka_unit_test(probe_ends_a_loop_of_redirects),
        cmocka_unit_test(probe_keeps_the_end_of_a_long_answer),
        cmocka_unit_test(probe_gives_up_on_silence),
        cmocka_unit_test(probe_connects_over_tcp),
        cmocka_unit_test(probe_tells_what_cannot_be_asked),
        cmocka_unit_test(probe_can_be_cancelled_at_any_turn),
    };

    (void)signal(SIGPIPE, SIG_IGN); /* As the server does. */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
