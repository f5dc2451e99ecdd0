/* TLS of HTTPS checks against OpenSSL's own server, in memory: who is believed, and what strange
 * bytes do. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "server/agent/probe_tls.h"
#include "tests/unit/tls_fixture.h"

/* What came of a conversation in which the peer answers `answer` to the first bytes that it gets,
 * and closes. `step` bytes go over at a time. */
struct talk {
    enum probe_tls_state state;
    struct buffer plain;
    struct errmsg err;
    char request[256];
};

static void talk_run(struct talk *talk, struct tls_peer *peer, struct probe_tls *tls,
                     const char *answer, size_t step)
{
    struct buffer cipher = {0};
    bool answered = false;

    memset(talk, 0, sizeof(*talk));
    talk->state = probe_tls_step(tls, SLICE_EMPTY, &cipher, &talk->plain, &talk->err);
    for (int turn = 0; turn < 100000 && talk->state == PROBE_TLS_OPEN; turn++) {
        char bytes[4096];

        assert_int_equal(BIO_write(peer->in, cipher.data, (int)cipher.size), (int)cipher.size);
        buffer_clear(&cipher);
        const int count = SSL_read(peer->ssl, bytes, sizeof(bytes));
        if (count > 0 && !answered) {
            answered = true;
            assert_true((size_t)count < sizeof(talk->request));
            memcpy(talk->request, bytes, (size_t)count);
            assert_int_equal(SSL_write(peer->ssl, answer, (int)strlen(answer)),
                             (int)strlen(answer));
            (void)SSL_shutdown(peer->ssl);
        }
        const int got = BIO_read(peer->out, bytes, (int)step);
        if (got <= 0) {
            continue;
        }
        talk->state =
            probe_tls_step(tls, slice_from(bytes, (size_t)got), &cipher, &talk->plain, &talk->err);
    }
    buffer_deinit(&cipher);
}

static void a_certificate_is_believed_when_its_authority_is_known_or_nobody_asks(void **state)
{
    static const struct {
        const char *name, *server_name;
        bool skip_verify;
        const char *problem; /* NULL: it works */
    } cases[] = {
        {"nobody asks", "localhost", true, NULL},
        {"nobody asks for the name either", "elsewhere", true, NULL},
        {"an address", "127.0.0.1", true, NULL},
        {"unknown authority", "localhost", false, "x509: "},
        {"unknown authority of an address", "::1", false, "x509: "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= 4096; step *= 64) {
            struct probe_tls_context *context = probe_tls_context_new();
            struct tls_peer peer;
            struct talk talk;

            print_message("  %s, %zu bytes at a time\n", cases[i].name, step);
            assert_non_null(context);
            tls_peer_open(&peer, "localhost");
            struct probe_tls *tls =
                probe_tls_new(context, cases[i].server_name, cases[i].skip_verify,
                              slice_from_text("GET / HTTP/1.1\r\n\r\n"));
            assert_non_null(tls);
            probe_tls_context_free(context); /* May go before its connection. */
            talk_run(&talk, &peer, tls, "HTTP/1.1 200 OK\r\n\r\n", step);
            if (cases[i].problem == NULL) {
                assert_int_equal(talk.state, PROBE_TLS_ENDED);
                assert_true(slice_equal(buffer_slice(&talk.plain),
                                        slice_from_text("HTTP/1.1 200 OK\r\n\r\n")));
                assert_string_equal(talk.request, "GET / HTTP/1.1\r\n\r\n");
            } else {
                assert_int_equal(talk.state, PROBE_TLS_FAILED);
                assert_memory_equal(talk.err.text, cases[i].problem, strlen(cases[i].problem));
                assert_int_equal(talk.plain.size, 0);
                assert_string_equal(talk.request, ""); /* Nothing was told to it. */
            }
            buffer_deinit(&talk.plain);
            probe_tls_free(tls);
            tls_peer_shut(&peer);
        }
    }
}

static void bytes_that_are_no_tls_end_it_with_a_text(void **state)
{
    static const struct {
        const char *bytes, *problem;
    } cases[] = {
        {"HTTP/1.1 400 Bad Request\r\n\r\n", "http: server gave HTTP response to HTTPS client"},
        {"\x15\x03\x03\x00\x02\x02\x28", "tls: "}, /* an alert */
        {"SSH-2.0-OpenSSH_9.2\r\n", "tls: "},
        {"\x16\x03\x03\xff\xff garbage", "tls: "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct probe_tls_context *context = probe_tls_context_new();
        struct buffer cipher = {0}, plain = {0};
        struct errmsg err = {""};
        struct probe_tls *tls = probe_tls_new(context, "localhost", true, slice_from_text("x"));

        assert_int_equal(probe_tls_step(tls, SLICE_EMPTY, &cipher, &plain, &err), PROBE_TLS_OPEN);
        assert_true(cipher.size > 0);
        const struct slice bytes = cases[i].bytes[0] == '\x15' ? slice_from(cases[i].bytes, 7)
                                                               : slice_from_text(cases[i].bytes);
        assert_int_equal(probe_tls_step(tls, bytes, &cipher, &plain, &err), PROBE_TLS_FAILED);
        assert_memory_equal(err.text, cases[i].problem, strlen(cases[i].problem));
        assert_int_equal(plain.size, 0);
        buffer_deinit(&cipher);
        buffer_deinit(&plain);
        probe_tls_free(tls);
        probe_tls_context_free(context);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_certificate_is_believed_when_its_authority_is_known_or_nobody_asks),
        cmocka_unit_test(bytes_that_are_no_tls_end_it_with_a_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
