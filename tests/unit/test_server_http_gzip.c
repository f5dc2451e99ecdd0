/* Content-Encoding: gzip: who asks for it, and answers that are the same with it and without, of
 * any size, framing and speed; few compressors whatever the clients do. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <zlib.h>

#include "tests/unit/http_client.h"

enum {
    LONG_COUNT = 3000, /* entries: more than one piece looks at */
    LONG_VALUE_BYTES = 1024,
    INFLATED_BYTES_MAX = 64 * 1024 * 1024,
};

/* --- who asks --- */

/* As Consul 1.8.7 answers, but for the rows that say otherwise. */
static void accept_encoding_is_read_as_consul_does(void **state)
{
    static const struct {
        const char *value;
        bool expected;
    } cases[] = {
        {"gzip", true},
        {"GZip", true},
        {"x-gzip", false},
        {"*", false},
        {"*;q=1", false},
        {"identity", false},
        {"identity;q=0", false},
        {"identity;q=0, *", false},
        {"deflate", false},
        {"deflate, gzip", true},
        {"gzip, deflate, br", true},
        {"br;q=1.0, gzip;q=0.8, *;q=0.1", true},
        {"gzip;q=0", false},
        {"gzip;q=0.0", false},
        {"gzip;q=0.000", false},
        {"gzip;q=0.001", true},
        {"gzip;q=1.0", true},
        {"gzip;q=2", true},
        {"gzip;q=.5", true},
        {"gzip;q=.0", false},
        {"gzip;q=1.", true},
        {"gzip;q=.", false},
        {"gzip;q=1.0.0", false},
        {"gzip;q=-1", false},
        {"gzip; q=0", false},
        {"gzip ;q=0", false},
        {"gzip\t;\tq=0.5", true},
        {"gzip;q =0", true},
        {"gzip;q= 0", false},
        {"gzip;q=", false},
        {"gzip;q=x", false},
        {"gzip;x=1", true},
        {"gzip;q=0.9;level=9", true},
        {"gzip;x=1;q=0", false},
        {"gzip;", true},
        {"gzip;;", true},
        {"gzip,gzip;q=0", false},
        {"gzip;q=0,gzip", true},
        {"gzip;q=0, *;q=1", false},
        {"", false},
        {" ", false},
        {",", false},
        {";q=1", false},
        {",,gzip,,", true},
        {"g zip", false},
        {"gzipx", false},
        {"gzi", false},
        {"\"gzip\"", false},
        {"gzip\xa0", false},
        {"\tgzip\t", true},
        /* Consul says yes; RFC 9110 says no, or that it is no number. */
        {"gzip;Q=0", false},
        {"gzip;q=0;x=1", false},
        {"gzip;q=0;", false},
        {"gzip;q=0;q=1", false},
        {"gzip;q=1e-3", false},
        {"gzip;q=+0.5", false},
        {"gzip;q=inf", false},
        {"gzip, gzip;q=x", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (http_gzip_accepted(slice_from_text(cases[i].value)) != cases[i].expected) {
            fail_msg("\"%s\": expected %d", cases[i].value, cases[i].expected);
        }
    }
}

/* --- compressors --- */

/* Bytes that do not compress, others for each seed. */
static void fill_random(char *out, size_t size, uint64_t seed)
{
    uint64_t random = 88172645463325252ULL + seed;

    for (size_t i = 0; i < size; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        out[i] = (char)random;
    }
}

/* One whole gzip stream and nothing behind it. */
static void inflate_all(struct slice packed, struct buffer *out)
{
    z_stream stream = {0};
    int rc = inflateInit2(&stream, 15 + 16);

    buffer_clear(out);
    assert_int_equal(rc, Z_OK);
    stream.next_in = (unsigned char *)(uintptr_t)packed.data;
    stream.avail_in = (unsigned)packed.size;
    while (rc == Z_OK && out->size < INFLATED_BYTES_MAX) {
        char *at = buffer_reserve(out, 65536);

        assert_non_null(at);
        stream.next_out = (unsigned char *)at;
        stream.avail_out = 65536;
        rc = inflate(&stream, Z_NO_FLUSH);
        out->size += 65536 - stream.avail_out;
    }
    assert_int_equal(rc, Z_STREAM_END);
    assert_int_equal(stream.avail_in, 0);
    assert_int_equal(inflateEnd(&stream), Z_OK);
}

/* 300,000 bytes, the first half of which cannot be compressed. */
static char *half_random(void)
{
    char *bytes = malloc(300000);

    assert_non_null(bytes);
    fill_random(bytes, 150000, 0);
    memset(bytes + 150000, 'x', 150000);
    return bytes;
}

static void whatever_was_compressed_before_a_body_comes_out_as_it_was(void **state)
{
    static const size_t sizes[] = {0,     1,     2,     100,    16383, 16384, 16385,
                                   65535, 65536, 65537, 131072, 1,     300000};
    struct http_gzip_pool pool = {0};
    char *bytes = half_random();

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t from = 0; from + sizes[i] <= 300000; from += 75000) {
            const struct slice in = slice_from(bytes + from, sizes[i]);
            struct buffer packed = {0};
            struct buffer out = {0};

            assert_true(http_gzip_whole(&pool, in, &packed));
            inflate_all(buffer_slice(&packed), &out);
            assert_true(slice_equal(buffer_slice(&out), in));
            buffer_deinit(&packed);
            buffer_deinit(&out);
        }
    }
    http_gzip_pool_deinit(&pool);
    free(bytes);
}

static void pieces_of_any_size_make_one_stream(void **state)
{
    static const size_t pieces[] = {1, 1000, 16384, HTTP_GZIP_PIECE_BYTES};
    struct http_gzip_pool pool = {0};
    char *bytes = half_random();

    (void)state;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct http_gzip *gzip = http_gzip_new(&pool);
        struct buffer packed = {0};
        struct buffer out = {0};

        assert_non_null(gzip);
        for (size_t from = 0; from < 300000; from += pieces[i]) {
            const size_t left = 300000 - from;
            const size_t size = left < pieces[i] ? left : pieces[i];

            assert_true(http_gzip_put(gzip, slice_from(bytes + from, size), false, &packed));
        }
        assert_true(http_gzip_put(gzip, SLICE_EMPTY, true, &packed));
        inflate_all(buffer_slice(&packed), &out);
        assert_true(slice_equal(buffer_slice(&out), slice_from(bytes, 300000)));
        http_gzip_free(&pool, gzip);
        buffer_deinit(&packed);
        buffer_deinit(&out);
    }
    http_gzip_pool_deinit(&pool);
    free(bytes);
}

static void there_are_no_more_compressors_than_are_allowed(void **state)
{
    struct http_gzip_pool pool = {0};
    struct http_gzip *used[HTTP_GZIP_MAX];

    (void)state;
    for (size_t i = 0; i < HTTP_GZIP_MAX; i++) {
        used[i] = http_gzip_new(&pool);
        assert_non_null(used[i]);
    }
    assert_null(http_gzip_new(&pool));
    http_gzip_free(&pool, used[0]);
    used[0] = http_gzip_new(&pool);
    assert_non_null(used[0]);
    for (size_t i = 0; i < HTTP_GZIP_MAX; i++) {
        http_gzip_free(&pool, used[i]);
    }
    http_gzip_pool_deinit(&pool);
}

/* --- answers --- */

/* One answer as it was received. */
struct answer {
    char *head; /* in the client's data: with its blank line cut off; to be read before the next */
    struct buffer sent, body; /* as sent, without chunks; and decoded */
    bool gzip, chunked;
};

static void answer_deinit(struct answer *answer)
{
    buffer_deinit(&answer->sent);
    buffer_deinit(&answer->body);
    free(answer->head);
    *answer = (struct answer){0};
}

static bool has_line(const struct answer *answer, const char *line)
{
    const char *at = strstr(answer->head, line);

    return at != NULL && at[-1] == '\n';
}

/* Takes chunks from `at` on. Behind the last one; NULL while it has not come. */
static const char *take_chunks(const char *at, const char *end, struct buffer *out)
{
    for (;;) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        if (line == NULL) {
            return NULL;
        }
        const size_t size = strtoul(at, NULL, 16);
        if ((size_t)(end - line) - 1 < size + 2) {
            return NULL;
        }
        buffer_append(out, line + 1, size);
        at = line + 1 + size + 2;
        assert_memory_equal(at - 2, "\r\n", 2);
        if (size == 0) {
            return at;
        }
    }
}

/* Takes the first answer off what the client has. False: it is not whole. */
static bool take_answer(struct client *client, bool head_only, struct answer *out)
{
    const char *blank = client->data == NULL ? NULL : strstr(client->data, "\r\n\r\n");

    if (blank == NULL) {
        return false;
    }
    answer_deinit(out);
    out->head = strndup(client->data, (size_t)(blank - client->data) + 2);
    assert_non_null(out->head);
    const char *at = blank + 4;
    const char *end = client->data + client->size;
    const char *length = strstr(out->head, "Content-Length: ");

    out->gzip = has_line(out, "Content-Encoding: gzip\r\n");
    out->chunked = has_line(out, "Transfer-Encoding: chunked\r\n");
    assert_false(out->chunked && length != NULL);
    if (head_only) {
        end = at;
    } else if (out->chunked) {
        end = take_chunks(at, end, &out->sent);
    } else if (length != NULL) {
        const size_t size = strtoul(length + strlen("Content-Length: "), NULL, 10);

        end = (size_t)(end - at) < size ? NULL : at + size;
        buffer_append(&out->sent, at, end == NULL ? 0 : size);
    } else if (client->closed) {
        buffer_append(&out->sent, at, (size_t)(end - at));
    } else {
        end = NULL;
    }
    if (end == NULL) {
        return false;
    }
    if (out->gzip && !head_only) {
        inflate_all(buffer_slice(&out->sent), &out->body);
    } else {
        buffer_append_slice(&out->body, buffer_slice(&out->sent));
    }
    client->size -= (size_t)(end - client->data);
    memmove(client->data, end, client->size);
    client->data[client->size] = '\0';
    return true;
}

static void expect_answer(struct http_fixture *fixture, struct client *client, bool head_only,
                          struct answer *out)
{
    for (int i = 0; i < CLIENT_WAIT_MS_MAX * 2; i++) {
        const bool closed = client->closed;

        client_read(client);
        /* A long one is looked through again and again: not each time that some of it came. */
        if (i % 16 == 0 || client->closed || client->size < 65536) {
            if (take_answer(client, head_only, out)) {
                return;
            }
        }
        if (closed) {
            break;
        }
        loop_turn(fixture);
    }
    fail_msg("no whole answer, %zu bytes%s", client->size, client->closed ? ", closed" : "");
}

static void ask(struct http_fixture *fixture, struct client *client, const char *request,
                const char *headers)
{
    char text[512];

    (void)snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", request, headers);
    client_send(fixture, client, text);
}

static const char takes_gzip[] = "Accept-Encoding: gzip\r\n";

/* Asks without and with gzip: `plain` and `packed` are the same content. */
static void ask_both(struct http_fixture *fixture, const char *request, struct answer *plain,
                     struct answer *packed)
{
    const bool head_only = strncmp(request, "HEAD", 4) == 0;
    struct client client;

    client_open(fixture, &client);
    ask(fixture, &client, request, "");
    expect_answer(fixture, &client, head_only, plain);
    ask(fixture, &client, request, takes_gzip);
    expect_answer(fixture, &client, head_only, packed);
    assert_int_equal(client.size, 0);
    assert_false(plain->gzip);
    assert_int_equal(strncmp(plain->head, packed->head, strlen("HTTP/1.1 200")), 0);
    assert_true(slice_equal(buffer_slice(&plain->body), buffer_slice(&packed->body)));
    client_close(&client);
}

static void put_random(struct http_fixture *fixture, const char *key, size_t size)
{
    char *value = malloc(size);

    assert_non_null(value);
    fill_random(value, size, 0);
    http_fixture_put(fixture, key, value, size);
    free(value);
}

static void put_many(struct http_fixture *fixture, int count)
{
    char value[LONG_VALUE_BYTES];
    char key[32];

    fake_begin(&fixture->replica);
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof(key), "long/%05d/x", i);
        fill_random(value, sizeof(value), (uint64_t)i); /* Who does not read is to be seen. */
        http_fixture_put(fixture, key, value, sizeof(value));
    }
    fake_commit(&fixture->replica);
}

static void answers_have_gzip_where_consuls_have_it(void **state)
{
    static const struct {
        const char *request;
        const char *status;
        bool gzip;
    } cases[] = {
        {"GET /v1/kv/key", "200", true},
        {"GET /v1/kv/key?raw", "200", true},
        {"GET /v1/kv/key?pretty", "200", true},
        {"GET /v1/kv/key?index=x", "400", true},
        {"GET /v1/kv/key?dc=zz", "500", true},
        {"GET /v1/kv/?recurse", "200", true},
        {"GET /v1/kv/?keys", "200", true},
        {"GET /v1/kv/none", "404", false}, /* no body */
        {"GET /v1/kv/", "400", true},
        {"HEAD /v1/kv/key", "405", true},
        {"POST /v1/kv/key", "405", true},
        {"OPTIONS /v1/kv/key", "200", false},
        {"DELETE /v1/kv/none", "200", true},
        {"PUT /v1/kv/put", "200", true},
        {"GET /v1/session/list", "200", true},
        {"GET /v1/status/leader", "200", true},
        {"GET /v1/nothing", "404", false},
        {"GET /", "200", false}, /* no endpoint: it does not Vary */
        {"GET /v1//kv/key", "301", false},
        {"GET /v1/kv/empty?raw", "200", false}, /* Consul: gzip of no bytes, which is not gzip */
    };
    struct http_fixture *fixture = *state;

    http_fixture_put(fixture, "key", "value", 5);
    http_fixture_put(fixture, "empty", "", 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer plain = {0};
        struct answer packed = {0};

        ask_both(fixture, cases[i].request, &plain, &packed);
        if (packed.gzip != cases[i].gzip || packed.chunked ||
            strncmp(packed.head + strlen("HTTP/1.1 "), cases[i].status, 3) != 0) {
            fail_msg("%s: %s", cases[i].request, packed.head);
        }
        if (packed.gzip) {
            assert_true(has_line(&packed, "Vary: Accept-Encoding\r\n"));
        }
        answer_deinit(&plain);
        answer_deinit(&packed);
    }
}

static void answers_of_all_sizes_are_the_same_with_gzip(void **state)
{
    static const size_t sizes[] = {1,     1000,  12287, 12288,  16383,  16384,  16385,     65536,
                                   65537, 98000, 99000, 131072, 131073, 200000, 512 * 1024};
    struct http_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        static const char *const requests[] = {"GET /v1/kv/key", "GET /v1/kv/key?raw",
                                               "GET /v1/kv/key?pretty"};

        put_random(fixture, "key", sizes[i]);
        for (size_t r = 0; r < 3; r++) {
            struct answer plain = {0};
            struct answer packed = {0};

            ask_both(fixture, requests[r], &plain, &packed);
            assert_true(packed.gzip);
            assert_int_equal(fixture->server.http->gzip.count, 0);
            if (plain.body.size > HTTP_GZIP_WHOLE_BYTES_MAX) {
                assert_true(packed.chunked);
            }
            answer_deinit(&plain);
            answer_deinit(&packed);
        }
    }
}

static void a_long_listing_is_the_same_with_gzip(void **state)
{
    static const char *const requests[] = {"GET /v1/kv/long/?recurse", "GET /v1/kv/long/?keys",
                                           "GET /v1/kv/long/?recurse&pretty"};
    struct http_fixture *fixture = *state;

    put_many(fixture, LONG_COUNT);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct answer plain = {0};
        struct answer packed = {0};

        ask_both(fixture, requests[i], &plain, &packed);
        assert_true(packed.gzip);
        assert_true(packed.sent.size < plain.sent.size);
        assert_int_equal(fixture->server.http->gzip.count, 0);
        answer_deinit(&plain);
        answer_deinit(&packed);
    }
}

static void a_client_of_http_1_0_gets_gzip_without_chunks(void **state)
{
    static const struct {
        const char *target;
        bool closes;
    } cases[] = {{"/v1/kv/key", false}, {"/v1/kv/big", true}, {"/v1/kv/long/?recurse", true}};
    struct http_fixture *fixture = *state;

    http_fixture_put(fixture, "key", "value", 5);
    put_random(fixture, "big", 200000);
    put_many(fixture, LONG_COUNT);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer answer = {0};
        struct client client;
        char text[160];

        (void)snprintf(text, sizeof(text), "GET %s HTTP/1.0\r\nConnection: keep-alive\r\n%s\r\n",
                       cases[i].target, takes_gzip);
        client_open(fixture, &client);
        client_send(fixture, &client, text);
        expect_answer(fixture, &client, false, &answer);
        assert_true(answer.gzip);
        assert_false(answer.chunked);
        assert_int_equal(client.closed, cases[i].closes);
        assert_true(has_line(&answer, cases[i].closes ? "Connection: close\r\n"
                                                      : "Connection: keep-alive\r\n"));
        assert_memory_equal(answer.body.data, "[{\"LockIndex\":0,", 16);
        answer_deinit(&answer);
        client_close(&client);
    }
}

/* Answers of all kinds, one after the other, to a client that has sent all and closed its side. */
static void pipelined_requests_are_answered_in_order_each_as_it_asked(void **state)
{
    static const struct {
        const char *request, *headers;
        bool gzip;
    } asked[] = {
        {"GET /v1/kv/key?raw", "Accept-Encoding: gzip\r\n", true},
        {"GET /v1/kv/key?raw", "", false},
        {"GET /v1/kv/big?raw", "Accept-Encoding: gzip\r\n", true},
        {"GET /v1/kv/big?raw", "Accept-Encoding: gzip;q=0\r\n", false},
        {"GET /v1/kv/long/?recurse", "Accept-Encoding: deflate, gzip\r\n", true},
        {"GET /v1/kv/key?raw", "Accept-Encoding: deflate\r\nAccept-Encoding: gzip\r\n", false},
        {"GET /v1/kv/key?raw", "ACCEPT-ENCODING:gzip\r\nAccept-Encoding: br\r\n", true},
        {"GET /v1/kv/key?raw", "", false},
    };
    enum { COUNT = sizeof(asked) / sizeof(asked[0]) };
    struct http_fixture *fixture = *state;
    struct client client;

    put_random(fixture, "key", 100);
    put_random(fixture, "big", 200000);
    put_many(fixture, LONG_COUNT);
    client_open(fixture, &client);
    for (size_t i = 0; i < COUNT; i++) {
        ask(fixture, &client, asked[i].request, asked[i].headers);
    }
    assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
    for (size_t i = 0; i < COUNT; i++) {
        struct answer answer = {0};

        expect_answer(fixture, &client, false, &answer);
        assert_int_equal(answer.gzip, asked[i].gzip);
        assert_true(answer.body.size >= 100);
        answer_deinit(&answer);
    }
    client_expect_close(fixture, &client);
    assert_int_equal(client.size, 0);
    client_close(&client);
}

/* More than one turn of the loop may compress: what is left is done in later turns, or not at all.
 */
static void many_answers_at_once_are_all_right(void **state)
{
    enum { CLIENTS = 60, EACH = 4 };
    struct http_fixture *fixture = *state;
    struct client clients[CLIENTS];
    struct answer plain = {0};
    struct answer packed = {0};

    put_random(fixture, "key", 90000);
    ask_both(fixture, "GET /v1/kv/key", &plain, &packed);
    for (size_t i = 0; i < CLIENTS; i++) {
        client_open(fixture, &clients[i]);
    }
    turn_until(fixture, fixture->server.http->conn_count == CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++) {
        static const char text[] = "GET /v1/kv/key HTTP/1.1\r\nHost: x\r\nAccept-Encoding: "
                                   "gzip\r\n\r\n";

        for (size_t j = 0; j < EACH; j++) {
            assert_int_equal(write(clients[i].fd, text, sizeof(text) - 1), sizeof(text) - 1);
        }
    }
    turn_until(fixture, !TAILQ_EMPTY(&fixture->server.http->streams)); /* Some are put off. */
    for (size_t i = 0; i < CLIENTS; i++) {
        for (size_t j = 0; j < EACH; j++) {
            expect_answer(fixture, &clients[i], false, &packed);
            assert_true(slice_equal(buffer_slice(&plain.body), buffer_slice(&packed.body)));
        }
        client_close(&clients[i]);
    }
    assert_int_equal(fixture->server.http->gzip.count, 0);
    answer_deinit(&plain);
    answer_deinit(&packed);
}

/* --- waiters --- */

static void waiters_for_the_same_get_it_with_gzip_and_without(void **state)
{
    static const size_t sizes[] = {10, 20000, 60000, 400000};
    enum { WAITERS = 12 };
    struct http_fixture *fixture = *state;

    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct client clients[WAITERS];
        struct buffer first = {0};
        char request[64];

        http_fixture_put(fixture, "key", "before", 6);
        (void)snprintf(request, sizeof(request), "GET /v1/kv/key?index=%llu&wait=600s",
                       (unsigned long long)fixture->replica.index);
        for (size_t i = 0; i < WAITERS; i++) {
            client_open(fixture, &clients[i]);
            ask(fixture, &clients[i], request, i % 2 == 0 ? takes_gzip : "");
        }
        turn_until(fixture, watch_table_count(fixture->server.watches) == WAITERS);
        put_random(fixture, "key", sizes[s]);
        for (size_t i = 0; i < WAITERS; i++) {
            struct answer answer = {0};

            expect_answer(fixture, &clients[i], false, &answer);
            assert_int_equal(answer.gzip, i % 2 == 0);
            assert_true(has_line(&answer, "X-Consul-Index: "));
            if (i == 0) {
                first = answer.body;
                answer.body = (struct buffer){0};
            } else {
                assert_true(slice_equal(buffer_slice(&answer.body), buffer_slice(&first)));
            }
            answer_deinit(&answer);
            client_close(&clients[i]);
        }
        buffer_deinit(&first);
    }
}

/* --- clients that do not read --- */

static void small_window(struct client *client)
{
    const int bytes = 64 * 1024;

    assert_int_equal(setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
}

static void ask_and_stall(struct http_fixture *fixture, struct client *client, const char *request)
{
    client_open(fixture, client);
    small_window(client);
    ask(fixture, client, request, takes_gzip);
    turn_until(fixture, fixture->server.http->conns != NULL &&
                            fixture->server.http->conns->state == HTTP_CONN_WRITE);
    /* No slow machine comes to its end. */
    http_conn_set_deadline(fixture->server.http->conns, 3600 * 1000);
}

/* The rest waits as it is, its compressor for the client: a piece of what it makes, and no
 * snapshot. */
static void a_slow_reader_of_gzip_keeps_no_snapshot_and_gets_all_of_it_in_the_end(void **state)
{
    struct http_fixture *fixture = *state;
    struct http_server *http = fixture->server.http;
    struct answer plain = {0};
    struct answer packed = {0};
    struct client client;

    put_many(fixture, LONG_COUNT * 6);
    ask_both(fixture, "GET /v1/kv/long/?recurse", &plain, &packed);
    turn_until(fixture, http->conns == NULL);
    ask_and_stall(fixture, &client, "GET /v1/kv/long/?recurse");
    const struct http_stream *stream = http->conns->private.stream;

    assert_int_equal(http->gzip.count, 1);
    assert_int_equal(http->stream_snapshots, 1);
    for (int ms = 0; ms <= HTTP_STREAM_STALL_MS; ms += HTTP_STREAM_TICK_MS) {
        http_stream_tick(TAILQ_FIRST(&http->streams));
    }
    turn_until(fixture, http->stream_snapshots == 0);
    assert_in_range(http->stream_copied_bytes, 1, HTTP_STREAM_COPY_BYTES_MAX);
    assert_true(stream->packed.size <= HTTP_COPY_BYTES_MAX + 2 * HTTP_GZIP_PIECE_BYTES);
    http_fixture_put(fixture, "long/00000/x", "is not seen", 11);
    expect_answer(fixture, &client, false, &packed);
    assert_true(packed.gzip);
    assert_true(slice_equal(buffer_slice(&plain.body), buffer_slice(&packed.body)));
    turn_until(fixture, http->stream_copied_bytes == 0);
    assert_int_equal(http->gzip.count, 0);
    client_close(&client);
    answer_deinit(&plain);
    answer_deinit(&packed);
}

static void when_all_compressors_are_in_use_answers_go_as_they_are(void **state)
{
    static const char request[] = "GET /v1/kv/long/?recurse";
    struct http_fixture *fixture = *state;
    struct http_server *http = fixture->server.http;
    struct answer answer = {0};
    struct client client, other;

    put_many(fixture, LONG_COUNT * 6);
    put_random(fixture, "big", 200000);
    ask_and_stall(fixture, &client, request);
    assert_int_equal(http->gzip.count, 1);
    http->gzip.count += HTTP_GZIP_MAX - 1; /* Those of others. */
    client_open(fixture, &other);
    ask(fixture, &other, request, takes_gzip);
    expect_answer(fixture, &other, false, &answer);
    assert_false(answer.gzip);
    ask(fixture, &other, "GET /v1/kv/big?raw", takes_gzip);
    expect_answer(fixture, &other, false, &answer);
    assert_false(answer.gzip);
    assert_int_equal(answer.body.size, 200000);
    ask(fixture, &other, "GET /v1/kv/long/00000/x", takes_gzip); /* In one go: as ever. */
    expect_answer(fixture, &other, false, &answer);
    assert_true(answer.gzip);
    client_close(&client); /* It gives up. */
    turn_until(fixture, http->gzip.count == HTTP_GZIP_MAX - 1);
    ask(fixture, &other, "GET /v1/kv/big?raw", takes_gzip);
    expect_answer(fixture, &other, false, &answer);
    assert_true(answer.gzip);
    http->gzip.count -= HTTP_GZIP_MAX - 1;
    answer_deinit(&answer);
    client_close(&other);
}

static void a_client_that_goes_amid_gzip_leaves_nothing(void **state)
{
    static const char *const requests[] = {"GET /v1/kv/long/?recurse",
                                           "GET /v1/kv/long/?recurse&pretty"};
    struct http_fixture *fixture = *state;

    put_many(fixture, LONG_COUNT * 3);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct client client;

        ask_and_stall(fixture, &client, requests[i]);
        assert_int_equal(fixture->server.http->gzip.count, 1);
        client_close(&client);
        turn_until(fixture, fixture->server.http->conns == NULL);
        assert_int_equal(fixture->server.http->gzip.count, 0);
        assert_int_equal(fixture->server.http->stream_snapshots, 0);
    }
}

static void a_server_may_stop_amid_gzip(void **state)
{
    struct http_fixture *fixture = *state;
    struct client clients[2];

    put_many(fixture, LONG_COUNT * 3);
    ask_and_stall(fixture, &clients[0], "GET /v1/kv/long/?recurse");
    ask_and_stall(fixture, &clients[1], "GET /v1/kv/long/?recurse&pretty");
    http_server_drain(fixture->server.http, 0, NULL, NULL);
    turns(fixture, 10);
    for (size_t i = 0; i < 2; i++) {
        client_close(&clients[i]);
    }
    /* teardown asserts that nothing is left. */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accept_encoding_is_read_as_consul_does),
        cmocka_unit_test(whatever_was_compressed_before_a_body_comes_out_as_it_was),
        cmocka_unit_test(pieces_of_any_size_make_one_stream),
        cmocka_unit_test(there_are_no_more_compressors_than_are_allowed),
        TEST(answers_have_gzip_where_consuls_have_it),
        TEST(answers_of_all_sizes_are_the_same_with_gzip),
        TEST(a_long_listing_is_the_same_with_gzip),
        TEST(a_client_of_http_1_0_gets_gzip_without_chunks),
        TEST(pipelined_requests_are_answered_in_order_each_as_it_asked),
        TEST(many_answers_at_once_are_all_right),
        TEST(waiters_for_the_same_get_it_with_gzip_and_without),
        TEST(a_slow_reader_of_gzip_keeps_no_snapshot_and_gets_all_of_it_in_the_end),
        TEST(when_all_compressors_are_in_use_answers_go_as_they_are),
        TEST(a_client_that_goes_amid_gzip_leaves_nothing),
        TEST(a_server_may_stop_amid_gzip),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
