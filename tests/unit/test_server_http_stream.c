/* Long listings, sent as they are read, and waiters that are woken together: whole and right, one
 * snapshot each, bounded in time, memory and snapshots whatever the clients do. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/http_client.h"

enum {
    LONG_COUNT = 3000, /* entries: more than one piece looks at */
    LONG_VALUE_BYTES = 1024,
    DELETED_COUNT = 20000, /* deletions: more than one piece looks at */
    HUGE_COUNT = 140, /* encoded they are more than is copied for a client that does not read */
    HUGE_VALUE_BYTES = 512 * 1024,
};

static void put(struct http_fixture *fixture, const char *key, const char *value)
{
    http_fixture_put(fixture, key, value, strlen(value));
}

static void delete_key(struct http_fixture *fixture, const char *key)
{
    const struct uuid none = {0};
    struct buffer command = {0};
    struct command_result result;

    command_encode_kv(&command, COMMAND_KV_DELETE, slice_from_text(key), SLICE_EMPTY, 0, 0, &none);
    fake_apply(&fixture->replica, &command, &result);
    buffer_deinit(&command);
}

static void put_many(struct http_fixture *fixture, int count, size_t value_bytes)
{
    char *value = malloc(value_bytes);
    char key[32];

    assert_non_null(value);
    memset(value, 'v', value_bytes);
    fake_begin(&fixture->replica);
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof(key), "long/%05d/x", i);
        http_fixture_put(fixture, key, value, value_bytes);
    }
    fake_commit(&fixture->replica);
    free(value);
}

/* What the kernel takes for a client that does not read is bounded, whatever its settings are:
 * connections inherit it from the listener. */
static int small_setup(void **state)
{
    const int rc = setup(state);
    struct http_fixture *fixture = *state;
    int bytes = 256 * 1024;

    assert_int_equal(
        uv_send_buffer_size((uv_handle_t *)&fixture->server.http->listeners[0], &bytes), 0);
    return rc;
}

/* Takes the chunks of the only answer together; false while its end has not come. */
static bool dechunk(struct client *client, struct buffer *out)
{
    const char *at = client->data == NULL ? NULL : strstr(client->data, "\r\n\r\n");

    buffer_clear(out);
    while (at != NULL) {
        char *after;
        at += out->size == 0 ? 4 : 2;
        const size_t size = strtoul(at, &after, 16);
        const size_t left = client->size - (size_t)(after - client->data);

        if (after == at || size + 4 > left) {
            return false;
        }
        if (size == 0) {
            assert_memory_equal(after, "\r\n\r\n", 4);
            assert_int_equal(left, 4); /* Nothing follows. */
            return true;
        }
        buffer_append(out, after + 2, size);
        at = after + 2 + size;
        assert_memory_equal(at, "\r\n", 2);
    }
    return false;
}

/* What came ends as an answer in chunks does. */
static bool has_end(const struct client *client)
{
    static const char end[] = "0\r\n\r\n";

    return client->size > sizeof(end) &&
           memcmp(client->data + client->size - (sizeof(end) - 1), end, sizeof(end) - 1) == 0;
}

static void expect_chunks(struct http_fixture *fixture, struct client *client, struct buffer *out)
{
    for (int i = 0; i < CLIENT_WAIT_MS_MAX * 2 && !client->closed; i++) {
        client_read(client);
        if (has_end(client) && dechunk(client, out)) {
            buffer_append_char(out, '\0');
            return;
        }
        loop_turn(fixture);
    }
    fail_msg("no whole answer, %zu bytes", client->size);
}

/* What came so far was looked at. */
static void client_forget(struct client *client)
{
    client->size = 0;
    client->data[0] = '\0';
}

static uint64_t index_of(const struct client *client)
{
    const char *at = strstr(client->data, "X-Consul-Index: ");

    assert_non_null(at);
    return strtoull(at + strlen("X-Consul-Index: "), NULL, 10);
}

/* Every key once and in order, valid to its end. */
static void assert_long_listing(const char *text, int count)
{
    json_error_t error;
    json_t *list = json_loads(text, 0, &error);
    char key[32];

    assert_non_null(list);
    assert_int_equal(json_array_size(list), count);
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof(key), "long/%05d/x", i);
        assert_string_equal(
            json_string_value(json_object_get(json_array_get(list, (size_t)i), "Key")), key);
    }
    json_decref(list);
}

static const char ask_list[] = "GET /v1/kv/long/?recurse HTTP/1.1\r\nHost: x\r\n\r\n";

static void a_long_listing_is_sent_in_chunks_and_whole(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    struct client client;

    put_many(fixture, LONG_COUNT, LONG_VALUE_BYTES);
    client_open(fixture, &client);
    client_send(fixture, &client, ask_list);
    expect_chunks(fixture, &client, &body);
    assert_long_listing(body.data, LONG_COUNT);
    assert_int_equal(count_text(&client, "Transfer-Encoding: chunked\r\n"), 1);
    assert_int_equal(count_text(&client, "Content-Length"), 0);
    assert_int_equal(count_text(&client, "Content-Type: application/json\r\n"), 1);
    assert_int_equal(index_of(&client), fixture->replica.index);
    assert_int_equal(fixture->server.http->stream_snapshots, 0);
    client_forget(&client);
    client_send(fixture, &client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); /* It can go on. */
    client_expect(fixture, &client, "Consul Agent", 1);
    client_close(&client);
    buffer_deinit(&body);
}

static void a_long_listing_counts_deletions_below_it(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    struct client client;

    put_many(fixture, LONG_COUNT, LONG_VALUE_BYTES);
    put(fixture, "long/gone", "1");
    delete_key(fixture, "long/gone");
    const uint64_t deleted = fixture->replica.index;
    put(fixture, "elsewhere", "1");
    client_open(fixture, &client);
    client_send(fixture, &client, ask_list);
    expect_chunks(fixture, &client, &body);
    assert_int_equal(index_of(&client), deleted);
    client_close(&client);
    buffer_deinit(&body);
}

static void a_client_of_http_1_0_gets_a_long_listing_without_chunks(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    put_many(fixture, LONG_COUNT, LONG_VALUE_BYTES);
    client_open(fixture, &client);
    client_send(fixture, &client,
                "GET /v1/kv/long/?recurse HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client_expect_close(fixture, &client);
    assert_int_equal(count_text(&client, "Transfer-Encoding"), 0);
    assert_int_equal(count_text(&client, "Connection: close\r\n"), 1);
    assert_long_listing(strstr(client.data, "\r\n\r\n") + 4, LONG_COUNT);
    client_close(&client);
}

static void folded_names_are_listed_once_over_all_pieces(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;
    char key[32];

    fake_begin(&fixture->replica);
    for (int i = 0; i < LONG_COUNT * 2; i++) {
        (void)snprintf(key, sizeof(key), "fold/%d/%05d", i / LONG_COUNT, i);
        put(fixture, key, "");
    }
    fake_commit(&fixture->replica);
    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/fold/?keys&separator=/ HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &client, "[\"fold/0/\",\"fold/1/\"]", 1);
    assert_int_equal(index_of(&client), fixture->replica.index);
    client_close(&client);
}

static void pieces_that_fold_into_the_name_before_do_not_end_the_listing(void **state)
{
    enum { NAMES = 2200, NAME_BYTES = 600, FOLDED = 3 * 2048 };
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    struct client client;
    char key[NAME_BYTES + 1];

    memset(key, 'k', sizeof(key));
    fake_begin(&fixture->replica);
    for (int i = 0; i < NAMES; i++) { /* Enough to be sent in chunks. */
        (void)snprintf(key + NAME_BYTES - 8, 9, "%08d", i);
        put(fixture, key, "");
    }
    for (int i = 0; i < FOLDED; i++) {
        (void)snprintf(key, sizeof(key), "l/%08d", i);
        put(fixture, key, "");
    }
    put(fixture, "m", "");
    fake_commit(&fixture->replica);
    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/?keys&separator=/ HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_chunks(fixture, &client, &body);
    assert_non_null(strstr(body.data, ",\"l/\",\"m\"]"));
    client_close(&client);
    buffer_deinit(&body);
}

static void names_of_a_long_listing_are_whole(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    put_many(fixture, LONG_COUNT, 1);
    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/?keys HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &client, "\"long/02999/x\"]", 1);
    assert_int_equal(count_text(&client, "\"long/"), LONG_COUNT);
    client_close(&client);
}

static void keys_longer_than_the_stores_own_survive_the_end_of_a_piece(void **state)
{
    enum { KEY_BYTES = 700 };
    struct http_fixture *fixture = *state;
    struct client client;
    char key[KEY_BYTES + 16];

    memset(key, 'k', KEY_BYTES);
    fake_begin(&fixture->replica);
    for (int i = 0; i < 2048 + 2; i++) {
        (void)snprintf(key + KEY_BYTES, 16, "%05d", i);
        put(fixture, key, "");
    }
    fake_commit(&fixture->replica);
    client_open(fixture, &client);
    client_send(fixture, &client, "GET /v1/kv/kkk?keys&pretty HTTP/1.1\r\nHost: x\r\n\r\n");
    client_expect(fixture, &client, "kkk02049\"\n]", 1);
    assert_int_equal(count_text(&client, "    \"kkk"), 2048 + 2);
    client_close(&client);
}

static void a_blocking_listing_sleeps_and_sees_what_changes_while_it_is_read(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    struct client client;
    char request[160];

    put_many(fixture, LONG_COUNT, LONG_VALUE_BYTES);
    (void)snprintf(request, sizeof(request),
                   "GET /v1/kv/long/?recurse&index=%llu&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n",
                   (unsigned long long)fixture->replica.index);
    client_open(fixture, &client);
    client_send(fixture, &client, request);
    turn_until(fixture, fixture->server.http->conns != NULL &&
                            fixture->server.http->conns->private.phase == HTTP_PHASE_PARKED);
    const struct http_conn *conn = fixture->server.http->conns;

    assert_int_equal(fixture->server.http->stream_snapshots, 0);
    put(fixture, "elsewhere", "1");
    assert_int_equal(conn->private.phase, HTTP_PHASE_PARKED);
    put(fixture, "long/00000/x", "changed");
    expect_chunks(fixture, &client, &body);
    assert_int_equal(index_of(&client), fixture->replica.index);

    /* Again, and the change comes when the snapshot is taken already. */
    client_forget(&client);
    (void)snprintf(request, sizeof(request),
                   "GET /v1/kv/long/?recurse&index=%llu&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n",
                   (unsigned long long)fixture->replica.index);
    client_send(fixture, &client, request);
    turn_until(fixture, !TAILQ_EMPTY(&fixture->server.http->streams_queued));
    http_stream_step(TAILQ_FIRST(&fixture->server.http->streams_queued));
    assert_int_equal(fixture->server.http->stream_snapshots, 1);
    put(fixture, "long/00001/x", "changed");
    expect_chunks(fixture, &client, &body);
    assert_int_equal(index_of(&client), fixture->replica.index);
    assert_long_listing(body.data, LONG_COUNT);
    client_close(&client);
    buffer_deinit(&body);
}

/* Symptom: however many deletions below its prefix were remembered, a listing looked through all of
 * them in one turn of the loop. */
static void many_deletions_are_looked_through_in_pieces(void **state)
{
    static const struct {
        const char *target, *start, *end;
    } cases[] = {
        {"/v1/kv/long/?recurse", "HTTP/1.1 404 ", "\r\n\r\n"},
        {"/v1/kv/long/?keys", "HTTP/1.1 404 ", "\r\n\r\n"},
        {"/v1/kv/lon?keys&separator=/", "HTTP/1.1 200 ", "\r\n\r\n[\"lonely\"]"},
        {"/v1/kv/lon?recurse", "HTTP/1.1 200 ", "}]"},
    };
    struct http_fixture *fixture = *state;
    struct http_server *http = fixture->server.http;
    struct buffer command = {0};
    struct command_result result;
    struct client client;
    char request[128];

    put(fixture, "lonely", "1");
    put_many(fixture, DELETED_COUNT, 1);
    command_encode_kv(&command, COMMAND_KV_DELETE_PREFIX, SLICE_LITERAL("long/"), SLICE_EMPTY, 0, 0,
                      NULL);
    fake_apply(&fixture->replica, &command, &result);
    buffer_deinit(&command);
    const uint64_t deleted = fixture->replica.index;

    put(fixture, "elsewhere", "1");
    client_open(fixture, &client);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n",
                       cases[i].target);
        client_send(fixture, &client, request);
        turn_until(fixture, !TAILQ_EMPTY(&http->streams_queued));
        client_expect(fixture, &client, cases[i].start, 1);
        client_expect(fixture, &client, cases[i].end, 1);
        assert_int_equal(index_of(&client), deleted);
        client_forget(&client);
    }

    /* One that waits has not looked in vain. */
    (void)snprintf(request, sizeof(request),
                   "GET /v1/kv/long/?recurse&index=%llu&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n",
                   (unsigned long long)deleted);
    client_send(fixture, &client, request);
    turn_until(fixture, http->conns->private.phase == HTTP_PHASE_PARKED);
    put(fixture, "long/new", "1");
    client_expect(fixture, &client, "HTTP/1.1 200 ", 1);
    client_expect(fixture, &client, "}]", 1);
    assert_int_equal(index_of(&client), fixture->replica.index);
    client_close(&client);
}

/* --- clients that do not read --- */

static void small_window(struct client *client)
{
    const int bytes = 64 * 1024;

    assert_int_equal(setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
}

static void on_no_tick(uv_timer_t *timer)
{
    (void)timer;
}

/* Before the first listing: who stalls for long gives its snapshot up when the test says so, not
 * when a slow machine has taken so long. */
static void stop_ticks(struct http_fixture *fixture)
{
    (void)uv_timer_start(&fixture->server.http->stream_timer, on_no_tick, 3600 * 1000, 0);
}

static struct http_conn *run_until_stalled(struct http_fixture *fixture)
{
    for (int i = 0; i < CLIENT_WAIT_MS_MAX * 2; i++) {
        struct http_conn *conn = fixture->server.http->conns;

        loop_turn(fixture);
        if (conn != NULL && conn->state == HTTP_CONN_WRITE) {
            http_conn_set_deadline(conn, 3600 * 1000); /* No slow machine comes to its end. */
            return conn;
        }
    }
    fail_msg("the client took everything");
    return NULL;
}

static void stall(struct http_fixture *fixture)
{
    for (int ms = 0; ms <= HTTP_STREAM_STALL_MS; ms += HTTP_STREAM_TICK_MS) {
        http_stream_tick(TAILQ_FIRST(&fixture->server.http->streams));
    }
    turn_until(fixture, fixture->server.http->stream_snapshots == 0);
}

static void a_slow_reader_keeps_no_snapshot_and_gets_all_of_it_in_the_end(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    struct client client;

    put_many(fixture, LONG_COUNT * 4, LONG_VALUE_BYTES);
    client_open(fixture, &client);
    small_window(&client);
    client_send(fixture, &client, ask_list);
    (void)run_until_stalled(fixture);
    assert_int_equal(fixture->server.http->stream_snapshots, 1);
    stall(fixture);
    assert_in_range(fixture->server.http->stream_copied_bytes, 1, HTTP_STREAM_COPY_BYTES_MAX);
    put(fixture, "long/00000/x", "is not seen");
    expect_chunks(fixture, &client, &body);
    assert_long_listing(body.data, LONG_COUNT * 4);
    assert_int_equal(index_of(&client), fixture->replica.index - 1);
    turn_until(fixture, fixture->server.http->stream_copied_bytes == 0);
    client_close(&client);
    buffer_deinit(&body);
}

static void a_reader_that_stops_before_too_much_is_closed(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    put_many(fixture, HUGE_COUNT, HUGE_VALUE_BYTES);
    client_open(fixture, &client);
    small_window(&client);
    client_send(fixture, &client, ask_list);
    (void)run_until_stalled(fixture);
    stall(fixture);
    assert_int_equal(fixture->server.http->stream_copied_bytes, 0);
    client_expect_close(fixture, &client);
    client_close(&client);
}

static void a_client_that_goes_amid_a_listing_leaves_nothing(void **state)
{
    struct http_fixture *fixture = *state;
    struct client client;

    put_many(fixture, LONG_COUNT * 4, LONG_VALUE_BYTES);
    client_open(fixture, &client);
    small_window(&client);
    client_send(fixture, &client, ask_list);
    (void)run_until_stalled(fixture);
    client_close(&client);
    turn_until(fixture, fixture->server.http->conns == NULL);
    assert_int_equal(fixture->server.http->stream_snapshots, 0);
}

static void read_from(struct client *clients, size_t first, size_t count)
{
    for (size_t i = first; i < count; i++) {
        client_read(&clients[i]);
    }
}

static void listings_queue_for_snapshots_and_all_are_answered(void **state)
{
    enum { CLIENTS = HTTP_STREAMS_MAX + 8 };
    struct http_fixture *fixture = *state;
    struct client clients[CLIENTS];
    struct buffer body = {0};

    put_many(fixture, LONG_COUNT, LONG_VALUE_BYTES);
    stop_ticks(fixture);
    for (size_t i = 0; i < CLIENTS; i++) {
        client_open(fixture, &clients[i]);
        small_window(&clients[i]);
        client_send(fixture, &clients[i], ask_list);
    }
    turn_until(fixture, fixture->server.http->stream_snapshots == HTTP_STREAMS_MAX);
    /* No slow machine comes to its end. */
    for (struct http_conn *conn = fixture->server.http->conns; conn != NULL; conn = conn->next) {
        http_conn_set_deadline(conn, 3600 * 1000);
    }
    turns(fixture, 50);
    assert_int_equal(fixture->server.http->stream_snapshots, HTTP_STREAMS_MAX);
    for (size_t i = 0; i < CLIENTS; i++) {
        /* Nobody is left waiting until its time-out, however slow the machine is. */
        turn_until(fixture, (read_from(clients, i, CLIENTS), has_end(&clients[i])));
        expect_chunks(fixture, &clients[i], &body);
        assert_long_listing(body.data, LONG_COUNT);
        client_close(&clients[i]);
    }
    buffer_deinit(&body);
}

static void who_does_not_read_gives_its_snapshot_to_who_wants_one(void **state)
{
    struct http_fixture *fixture = *state;
    struct http_server *http = fixture->server.http;
    struct client client, other;
    struct buffer body = {0};

    put_many(fixture, LONG_COUNT * 4, LONG_VALUE_BYTES);
    stop_ticks(fixture);
    client_open(fixture, &client);
    small_window(&client);
    client_send(fixture, &client, ask_list);
    struct http_stream *stream = run_until_stalled(fixture)->private.stream;
    assert_non_null(stream);
    http->stream_snapshots += HTTP_STREAMS_MAX - 1; /* Those of others. */
    client_open(fixture, &other);
    client_send(fixture, &other, ask_list);
    turn_until(fixture, !TAILQ_EMPTY(&http->streams_queued));
    stream->sent_bytes = 0;
    http_stream_tick(stream);
    assert_true(stream->copies);
    http->stream_snapshots -= HTTP_STREAMS_MAX - 1;
    expect_chunks(fixture, &other, &body);
    assert_long_listing(body.data, LONG_COUNT * 4);
    client_close(&other);
    client_close(&client);
    buffer_deinit(&body);
}

static size_t queued(const struct http_fixture *fixture)
{
    const struct http_stream *stream;
    size_t count = 0;

    TAILQ_FOREACH(stream, &fixture->server.http->streams_queued, entry)
    {
        count++;
    }
    return count;
}

static void run_until_queued(struct http_fixture *fixture, size_t count)
{
    turn_until(fixture, queued(fixture) == count);
}

/* Asks, and takes no more than the kernel does for it. */
static void ask_and_stop(struct http_fixture *fixture, struct client *client, const char *from)
{
    client_open_from(fixture, client, from);
    small_window(client);
    client_send(fixture, client, ask_list);
}

/* Symptom: a thousand slow readers of one client kept all others waiting for a minute. Rule: the
 * next snapshot goes to the address that has fewest. */
static void a_client_with_many_listings_keeps_no_other_waiting(void **state)
{
    enum { SLOW = 6, HOLDERS = 2, OTHERS = HTTP_STREAMS_MAX - HOLDERS };
    struct http_fixture *fixture = *state;
    struct http_server *http = fixture->server.http;
    struct client slow[SLOW], other;
    struct buffer body = {0};

    put_many(fixture, LONG_COUNT * 4, LONG_VALUE_BYTES);
    stop_ticks(fixture);
    for (size_t i = 0; i < HOLDERS; i++) {
        ask_and_stop(fixture, &slow[i], "127.0.0.2");
        (void)run_until_stalled(fixture);
    }
    assert_int_equal(http->stream_snapshots, HOLDERS);
    http->stream_snapshots += OTHERS;
    for (size_t i = HOLDERS; i < SLOW; i++) {
        ask_and_stop(fixture, &slow[i], "127.0.0.2");
        run_until_queued(fixture, i - HOLDERS + 1);
    }
    ask_and_stop(fixture, &other, "127.0.0.3");
    run_until_queued(fixture, SLOW - HOLDERS + 1);
    const struct http_conn *conn = http->conns; /* The last one. */
    assert_int_equal(conn->client->stream_snapshots, 0);
    client_close(&slow[0]);
    run_until_queued(fixture, SLOW - HOLDERS);
    assert_int_equal(conn->client->stream_snapshots, 1);
    http->stream_snapshots -= OTHERS;
    expect_chunks(fixture, &other, &body);
    assert_long_listing(body.data, LONG_COUNT * 4);
    for (size_t i = 1; i < SLOW; i++) {
        client_close(&slow[i]);
    }
    client_close(&other);
    buffer_deinit(&body);
}

/* Symptom: when all that may be copied was, whoever was copied for next was closed, and who had
 * most of it was not. */
static void who_has_most_copied_pays_when_it_is_too_much(void **state)
{
    struct http_fixture *fixture = *state;
    struct http_server *http = fixture->server.http;
    struct client hoarder, client;
    struct buffer body = {0};

    put_many(fixture, LONG_COUNT * 4, LONG_VALUE_BYTES);
    ask_and_stop(fixture, &hoarder, "127.0.0.2");
    (void)run_until_stalled(fixture);
    stall(fixture);
    const uint64_t others =
        HTTP_STREAM_COPIES_BYTES_MAX - http->stream_copied_bytes - HTTP_PIECE_BYTES;
    ask_and_stop(fixture, &client, "127.0.0.3");
    struct http_stream *stream = run_until_stalled(fixture)->private.stream;
    http->stream_copied_bytes += others;
    stream->copies = true;
    http_turn_start(http);
    turn_until(fixture, http->conn_count == 1); /* It is not read from, or it might have it all. */
    client_expect_close(fixture, &hoarder);
    expect_chunks(fixture, &client, &body);
    assert_long_listing(body.data, LONG_COUNT * 4);
    http->stream_copied_bytes -= others;
    client_close(&hoarder);
    client_close(&client);
    buffer_deinit(&body);
}

/* What they cost is bounded in one turn; who has closed its sending side is answered all the same.
 */
static void listings_asked_for_at_once_are_begun_over_several_turns(void **state)
{
    enum { CLIENTS = 96 };
    struct http_fixture *fixture = *state;
    struct client clients[CLIENTS];

    put_many(fixture, LONG_COUNT / 4, LONG_VALUE_BYTES);
    for (size_t i = 0; i < CLIENTS; i++) {
        client_open(fixture, &clients[i]);
    }
    turn_until(fixture, fixture->server.http->conn_count == CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(write(clients[i].fd, ask_list, strlen(ask_list)), strlen(ask_list));
        assert_int_equal(shutdown(clients[i].fd, SHUT_WR), 0);
    }
    turn_until(fixture, !TAILQ_EMPTY(&fixture->server.http->woken)); /* Some are put off. */
    for (size_t i = 0; i < CLIENTS; i++) {
        client_expect(fixture, &clients[i], "HTTP/1.1 200 OK", 1);
        client_close(&clients[i]);
    }
}

static void a_server_may_stop_amid_listings(void **state)
{
    struct http_fixture *fixture = *state;
    struct client clients[2];

    put_many(fixture, LONG_COUNT * 4, LONG_VALUE_BYTES);
    for (size_t i = 0; i < 2; i++) {
        client_open(fixture, &clients[i]);
        small_window(&clients[i]);
        client_send(fixture, &clients[i], ask_list);
        (void)run_until_stalled(fixture);
    }
    http_server_drain(fixture->server.http, 0, NULL, NULL);
    turns(fixture, 10);
    for (size_t i = 0; i < 2; i++) {
        client_close(&clients[i]);
    }
    /* teardown asserts that nothing is left. */
}

/* --- waking --- */

enum { HERD = 150 };

static void a_change_wakes_those_concerned_and_each_gets_the_answer_it_asked_for(void **state)
{
    static const struct {
        const char *request, *answer;
    } kinds[] = {
        {"GET /v1/kv/herd?index=%llu HTTP/1.1\r\nHost: x\r\n\r\n", "\"Value\":\"Y2hhbmdlZA==\""},
        {"GET /v1/kv/herd?raw&index=%llu HTTP/1.1\r\nHost: x\r\n\r\n", "sandbox\r\n"},
        {"GET /v1/kv/herd?pretty&index=%llu HTTP/1.1\r\nHost: x\r\n\r\n",
         "\"Value\": \"Y2hhbmdlZA==\""},
        {"GET /v1/kv/her?keys&index=%llu HTTP/1.1\r\nHost: x\r\n\r\n", "[\"herd\"]"},
        {"GET /v1/kv/other?index=%llu HTTP/1.1\r\nHost: x\r\n\r\n", NULL},
    };
    struct http_fixture *fixture = *state;
    struct client clients[HERD];
    char request[128];

    put(fixture, "herd", "1");
    for (size_t i = 0; i < HERD; i++) {
        const size_t kind = i % (sizeof(kinds) / sizeof(kinds[0]));

        client_open(fixture, &clients[i]);
        /* Different indexes and the same answer. */
        (void)snprintf(request, sizeof(request), kinds[kind].request,
                       (unsigned long long)fixture->replica.index + (i > HERD / 2 ? 1 : 0));
        client_send(fixture, &clients[i], request);
    }
    turn_until(fixture, watch_table_count(fixture->server.watches) == HERD);
    put(fixture, "unconcerned", "1");
    put(fixture, "herd", "1"); /* The same value: no change, nobody wakes. */
    put(fixture, "herd", "changed");
    for (size_t i = 0; i < HERD; i++) {
        const size_t kind = i % (sizeof(kinds) / sizeof(kinds[0]));

        if (kinds[kind].answer != NULL) {
            client_expect(fixture, &clients[i], kinds[kind].answer, 1);
            assert_int_equal(index_of(&clients[i]), fixture->replica.index);
        }
    }
    turns(fixture, 20);
    for (size_t i = 0; i < HERD; i++) {
        client_read(&clients[i]);
        const size_t kind = i % (sizeof(kinds) / sizeof(kinds[0]));

        assert_int_equal(count_text(&clients[i], "HTTP/1.1 "), kinds[kind].answer != NULL);
        client_close(&clients[i]);
    }
}

static void a_waiter_may_go_between_its_change_and_its_turn(void **state)
{
    struct http_fixture *fixture = *state;
    struct client clients[2];

    put(fixture, "key", "1");
    for (size_t i = 0; i < 2; i++) {
        client_open(fixture, &clients[i]);
        client_send(fixture, &clients[i],
                    "GET /v1/kv/key?index=2&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    turn_until(fixture, watch_table_count(fixture->server.watches) == 2);
    put(fixture, "key", "2");
    assert_int_equal(fixture->server.http->conns->private.phase, HTTP_PHASE_WOKEN);
    http_conn_close(fixture->server.http->conns); /* The second one. */
    client_expect(fixture, &clients[0], "\"Value\":\"Mg==\"", 1);
    client_expect_close(fixture, &clients[1]);
    assert_int_equal(clients[1].size, 0);
    client_close(&clients[0]);
    client_close(&clients[1]);
}

static void a_large_value_is_encoded_once_for_all_its_waiters(void **state)
{
    enum { WAITERS = 20, BYTES = 400 * 1024 };
    struct http_fixture *fixture = *state;
    struct client clients[WAITERS];
    char *value = malloc(BYTES);

    assert_non_null(value);
    memset(value, 'v', BYTES);
    put(fixture, "key", "1");
    for (size_t i = 0; i < WAITERS; i++) {
        client_open(fixture, &clients[i]);
        small_window(&clients[i]);
        client_send(fixture, &clients[i],
                    "GET /v1/kv/key?index=2&wait=600s HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    turn_until(fixture, watch_table_count(fixture->server.watches) == WAITERS);
    http_fixture_put(fixture, "key", value, BYTES);
    for (size_t i = 0; i < WAITERS; i++) {
        client_expect(fixture, &clients[i], "\"ModifyIndex\":3}]", 1);
        assert_in_range(clients[i].size, BYTES * 4 / 3, BYTES * 4 / 3 + 1024);
        client_close(&clients[i]);
    }
    free(value);
}

/* --- places --- */

static void open_restore(struct http_fixture *fixture, struct client *client, unsigned archives)
{
    client_open(fixture, client);
    client_send(fixture, client,
                "PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfew");
    turn_until(fixture, fixture->server.http->archives == archives);
}

static void who_sends_a_snapshot_too_slowly_makes_room_when_others_want_it(void **state)
{
    struct http_fixture *fixture = *state;
    struct client slow, fresh, other, late;

    assert_int_equal(HTTP_ARCHIVES_MAX, 2);
    open_restore(fixture, &slow, 1);
    struct http_conn *conn = fixture->server.http->conns;
    open_restore(fixture, &fresh, 2);
    client_open(fixture, &other);
    client_send(fixture, &other,
                "PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfew");
    client_expect(fixture, &other, "2 snapshots are being restored, try again later", 1);
    assert_int_equal(count_text(&other, "HTTP/1.1 503 "), 1);
    assert_int_equal(count_text(&other, "Retry-After: "), 1);

    conn->place_ms -= HTTP_PLACE_GRACE_MS; /* It has had it for so long, and sent three bytes. */
    client_open(fixture, &late);
    client_send(fixture, &late,
                "PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nall");
    client_expect(fixture, &late, "HTTP/1.1 404 ", 1); /* What the fixture's handler says. */
    client_expect_close(fixture, &slow);
    assert_int_equal(slow.size, 0);
    assert_int_equal(fixture->server.http->archives, 1);
    assert_false(fresh.closed);
    client_close(&slow);
    client_close(&fresh);
    client_close(&other);
    client_close(&late);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, small_setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_long_listing_is_sent_in_chunks_and_whole),
        TEST(a_long_listing_counts_deletions_below_it),
        TEST(a_client_of_http_1_0_gets_a_long_listing_without_chunks),
        TEST(folded_names_are_listed_once_over_all_pieces),
        TEST(pieces_that_fold_into_the_name_before_do_not_end_the_listing),
        TEST(names_of_a_long_listing_are_whole),
        TEST(keys_longer_than_the_stores_own_survive_the_end_of_a_piece),
        TEST(a_blocking_listing_sleeps_and_sees_what_changes_while_it_is_read),
        TEST(many_deletions_are_looked_through_in_pieces),
        TEST(a_slow_reader_keeps_no_snapshot_and_gets_all_of_it_in_the_end),
        TEST(a_reader_that_stops_before_too_much_is_closed),
        TEST(a_client_that_goes_amid_a_listing_leaves_nothing),
        TEST(listings_queue_for_snapshots_and_all_are_answered),
        TEST(who_does_not_read_gives_its_snapshot_to_who_wants_one),
        TEST(a_client_with_many_listings_keeps_no_other_waiting),
        TEST(who_has_most_copied_pays_when_it_is_too_much),
        TEST(listings_asked_for_at_once_are_begun_over_several_turns),
        TEST(a_server_may_stop_amid_listings),
        TEST(a_change_wakes_those_concerned_and_each_gets_the_answer_it_asked_for),
        TEST(a_waiter_may_go_between_its_change_and_its_turn),
        TEST(a_large_value_is_encoded_once_for_all_its_waiters),
        TEST(who_sends_a_snapshot_too_slowly_makes_room_when_others_want_it),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
