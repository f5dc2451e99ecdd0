/* What c-ares is trusted with, and what it must not do by itself: datagrams of any size, failing
 * codes, truncation, streams that break, time-outs, want of descriptors and memory. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <sys/resource.h>

#include "tests/unit/dns_recursors.h"

static const struct slice a_record = {A_RECORD, sizeof(A_RECORD) - 1};

static void ask_and_answer(const char *question, const char *expected)
{
    const int fd = ask(question, 0);

    upstream_answer(0, 0, 1, a_record);
    expect(fd, expected);
}

/* From the next question on. */
static void set_timeout(uint32_t timeout_ms)
{
    struct dns_config config = fixture.config;

    config.recursor_timeout_ms = timeout_ms;
    assert_int_equal(dns_server_reload(server, &config), 0);
}

static int upstream_accept(size_t index)
{
    wait_readable(listeners[index]);
    const int fd = accept(listeners[index], NULL, NULL);

    assert_true(fd >= 0);
    return fd;
}

static void upstream_receive_tcp(int fd, struct upstream_query *query)
{
    uint8_t head[DNS_FRAME_BYTES];

    assert_int_equal(recv(fd, head, sizeof(head), MSG_WAITALL), sizeof(head));
    query->size = (size_t)((head[0] << 8) | head[1]);
    assert_true(query->size <= sizeof(query->bytes));
    assert_int_equal(recv(fd, query->bytes, query->size, MSG_WAITALL), query->size);
}

static void upstream_answer_tcp(int fd, unsigned flags, unsigned answer_count, struct slice answer)
{
    static uint8_t out[DNS_FRAME_BYTES + MESSAGE_BYTES];
    struct upstream_query query;

    upstream_receive_tcp(fd, &query);
    const size_t size =
        upstream_compose(&query, flags, answer_count, answer, out + DNS_FRAME_BYTES);

    out[0] = (uint8_t)(size >> 8);
    out[1] = (uint8_t)size;
    assert_int_equal(send(fd, out, DNS_FRAME_BYTES + size, 0), DNS_FRAME_BYTES + size);
}

static int ask_tcp(const char *question)
{
    uint8_t framed[DNS_UDP_BYTES_DEFAULT];
    const size_t size = dns_fixture_query(question, 0, framed + 2, sizeof(framed) - 2);
    const int fd = client_open(SOCK_STREAM);

    framed[0] = 0;
    framed[1] = (uint8_t)size;
    assert_int_equal(send(fd, framed, size + 2, 0), size + 2);
    return fd;
}

static void expect_tcp(int fd, const char *expected)
{
    struct buffer text = {0};
    uint8_t head[DNS_FRAME_BYTES];

    wait_readable(fd);
    assert_int_equal(recv(fd, head, sizeof(head), MSG_WAITALL), sizeof(head));
    const size_t size = (size_t)((head[0] << 8) | head[1]);

    assert_int_equal(recv(fd, message, size, MSG_WAITALL), size);
    dns_fixture_print(message, size, &text);
    assert_string_equal(text.data, expected);
    buffer_deinit(&text);
    (void)close(fd);
}

static void datagrams_of_any_size_are_passed_on_whole(void **state)
{
    static const size_t sizes[] = {513, 1232, 4095, 4096, 4097, 4098, 16384, 60000};
    static char tail[MESSAGE_BYTES];
    static uint8_t sent[MESSAGE_BYTES];

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct upstream_query query;
        const int fd = ask(WWW, 65535);

        upstream_receive(0, &query);
        for (size_t at = 0; at < sizeof(tail); at++) { /* bytes that mean nothing to anybody */
            tail[at] = (char)(at * 7 + i);
        }
        const size_t size =
            upstream_compose(&query, 0, 1, slice_from(tail, sizes[i] - query.size), sent);

        upstream_send(recursors[0], &query, sent, size);
        wait_readable(fd);
        assert_int_equal(recv(fd, message, sizeof(message), 0), sizes[i]);
        assert_memory_equal(message + 2, sent + 2, size - 2);
        (void)close(fd);
    }
}

/* c-ares, left alone, asks over TCP what has more than 512 bytes. */
static void questions_of_any_size_stay_on_their_transport(void **state)
{
    uint8_t asked[DNS_UDP_QUERY_BYTES_MAX] = {0};
    static uint8_t got[MESSAGE_BYTES];

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    const size_t start = dns_fixture_query(WWW, 1232, asked, sizeof(asked));

    for (size_t size = 500; size <= sizeof(asked); size += 899) {
        const size_t padding = size - start;
        const int fd = client_open(SOCK_DGRAM);

        asked[start - 2] = (uint8_t)(padding >> 8); /* OPT's data */
        asked[start - 1] = (uint8_t)padding;
        asked[start + 1] = 12; /* an option: padding */
        asked[start + 2] = (uint8_t)((padding - 4) >> 8);
        asked[start + 3] = (uint8_t)(padding - 4);
        assert_int_equal(send(fd, asked, size, 0), size);
        wait_readable(recursors[0]);
        assert_int_equal(recv(recursors[0], got, sizeof(got), 0), size);
        assert_memory_equal(got + 2, asked + 2, size - 2);
        (void)close(fd);
    }
}

/* An old server that knows no EDNS: the next one is asked the same. */
static void a_format_error_is_not_answered_with_another_question(void **state)
{
    (void)state;
    start_with(2, TIMEOUT_LONG_MS);
    for (unsigned edns = 0; edns < 2; edns++) {
        struct upstream_query first, second;
        uint8_t out[DNS_UDP_BYTES_DEFAULT];
        const int fd = ask(WWW, edns == 0 ? 0 : 1232);

        upstream_receive(0, &first);
        size_t size = upstream_compose(&first, DNS_FORMERR, 0, SLICE_EMPTY, out);

        if (edns == 1) {
            size -= 11; /* OPT */
            out[11] = 0;
        }
        upstream_send(recursors[0], &first, out, size);
        upstream_receive(1, &second);
        assert_int_equal(second.size, first.size);
        assert_memory_equal(second.bytes + 2, first.bytes + 2, first.size - 2);
        assert_true(is_silent(recursors[0]));
        (void)close(fd);
    }
}

static void a_failure_without_its_question_leads_to_the_next(void **state)
{
    uint8_t out[DNS_UDP_BYTES_DEFAULT];
    struct upstream_query query;

    (void)state;
    start_with(2, TIMEOUT_LONG_MS);
    const int fd = ask(WWW, 0);

    upstream_receive(0, &query);
    (void)upstream_compose(&query, DNS_SERVFAIL, 0, SLICE_EMPTY, out);
    out[5] = 0; /* questions */
    upstream_send(recursors[0], &query, out, DNS_HEADER_BYTES);
    upstream_answer(1, 0, 1, a_record);
    expect(fd, WWW_ANSWER);
}

/* As its question ends before type and class, which then are zero, so may the answer's. */
static void an_answer_to_half_a_question_is_taken(void **state)
{
    uint8_t out[DNS_UDP_BYTES_DEFAULT];
    struct upstream_query query;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    const size_t size = dns_fixture_query(WWW, 0, out, sizeof(out)) - 4;
    const int fd = client_open(SOCK_DGRAM);

    assert_int_equal(send(fd, out, size, 0), size);
    upstream_receive(0, &query);
    assert_int_equal(query.size, size);
    const size_t answer_size = upstream_compose(&query, 0, 0, slice_from("\0\0\0\0", 4), out);

    upstream_send(recursors[0], &query, out, answer_size);
    wait_readable(fd);
    assert_int_equal(recv(fd, message, sizeof(message), 0), answer_size);
    (void)close(fd);
}

static void truncated_answers_are_the_clients_to_ask_again(void **state)
{
    (void)state;
    assert_int_equal(listen(listeners[0], 4), 0);
    start_with(1, TIMEOUT_LONG_MS);
    const int fd = ask(WWW, 0);

    upstream_answer(0, DNS_FLAG_TC, 1, a_record);
    expect(fd, "NOERROR tc rd ra|an www.example.org 300 A 192.0.2.10");
    assert_true(is_silent(listeners[0]));
}

#define ALIAS "an ext.node.consul 0 CNAME alias.example.org"

static void truncated_host_names_are_asked_for_over_tcp(void **state)
{
    (void)state;
    assert_int_equal(listen(listeners[0], 4), 0);
    start_with(1, TIMEOUT_LONG_MS);
    const int fd = ask("ext.node.consul A", 0);

    upstream_answer(0, DNS_FLAG_TC, 0, SLICE_EMPTY);
    const int upstream = upstream_accept(0);

    upstream_answer_tcp(upstream, 0, 1, a_record);
    expect(fd, "NOERROR aa rd ra|an alias.example.org 300 A 192.0.2.10|" ALIAS);
    (void)close(upstream);
}

/* Refused, or closed, or silent: what came over UDP is good as far as it goes. */
static void truncated_host_names_are_better_than_none(void **state)
{
    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    for (unsigned i = 0; i < 3; i++) {
        if (i == 1) {
            assert_int_equal(listen(listeners[0], 4), 0);
        } else if (i == 2) {
            set_timeout(TIMEOUT_MIDDLE_MS);
        }
        const int fd = ask("ext.node.consul A", 0);

        upstream_answer(0, DNS_FLAG_TC, 1, a_record);
        const int upstream = i == 0 ? -1 : upstream_accept(0);

        if (i == 1) {
            (void)close(upstream);
        }
        expect(fd, "NOERROR aa rd ra|an alias.example.org 300 A 192.0.2.10|" ALIAS);
        if (i == 2) {
            (void)close(upstream);
        }
    }
}

static void streams_that_break_lead_to_the_next(void **state)
{
    (void)state;
    assert_int_equal(listen(listeners[1], 4), 0);
    start_with(2, TIMEOUT_LONG_MS);
    for (unsigned i = 0; i < 5; i++) {
        struct upstream_query query;

        if (i == 1) { /* Before it, the first one refuses. */
            assert_int_equal(listen(listeners[0], 4), 0);
        } else if (i == 4) {
            set_timeout(TIMEOUT_MIDDLE_MS);
        }
        const int fd = ask_tcp(WWW);
        const int first = i == 0 ? -1 : upstream_accept(0);

        switch (i) {
        case 1: /* It closes with the question unread. */
            (void)close(first);
            break;
        case 2: /* In the middle of an answer. */
            upstream_receive_tcp(first, &query);
            assert_int_equal(send(first, "\0\x40xx", 4, 0), 4);
            (void)close(first);
            break;
        case 3: /* A failing code. */
            upstream_answer_tcp(first, DNS_REFUSED, 0, SLICE_EMPTY);
            break;
        default: /* Silence. */
            break;
        }
        const int second = upstream_accept(1);

        upstream_answer_tcp(second, 0, 1, a_record);
        expect_tcp(fd, WWW_ANSWER);
        (void)close(second);
        if (i >= 3) {
            (void)close(first);
        }
    }
}

static uint32_t random_state = 1;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % limit;
}

/* Changes some bytes, most times behind the question, and the size. */
static size_t upstream_spoil(uint8_t *bytes, size_t size, size_t room)
{
    const uint32_t changes = random_below(6);
    const size_t grown = size + random_below(3) * random_below(40);

    for (uint32_t i = 0; i < changes; i++) {
        const size_t from = random_below(4) == 0 ? 2 : size / 2;

        bytes[from + random_below((uint32_t)(size - from))] = (uint8_t)random_below(256);
    }
    if (random_below(4) == 0) {
        return size - random_below((uint32_t)size);
    }
    return grown < room ? grown : room;
}

static void whatever_recursors_send_clients_have_an_answer(void **state)
{
    enum { TURNS = 1500, GUESSES = 4 };
    static const struct slice chain = {"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\6\3www\xc0\x12" A_RECORD, 34};

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        const int fd = ask(turn % 2 == 0 ? "ext.service.consul A" : WWW, turn % 3 == 0 ? 1232 : 0);
        struct upstream_query query;
        uint8_t out[DNS_UDP_BYTES_DEFAULT];

        upstream_receive(0, &query);
        for (unsigned i = 0; i < GUESSES; i++) {
            memset(out, 0, sizeof(out));
            const size_t size = upstream_compose(&query, 0, 2, chain, out);

            out[2] = (uint8_t)(out[2] & ~(DNS_FLAG_TC >> 8));
            upstream_send(recursors[0], &query, out, upstream_spoil(out, size, sizeof(out)));
        }
        upstream_send(recursors[0], &query, out, upstream_compose(&query, 0, 2, chain, out));
        wait_readable(fd);
        assert_true(recv(fd, message, sizeof(message), 0) >= DNS_HEADER_BYTES);
        (void)close(fd);
    }
}

static void whatever_streams_bring_clients_have_an_answer(void **state)
{
    enum { TURNS = 300 };

    (void)state;
    assert_int_equal(listen(listeners[0], 4), 0);
    start_with(1, TIMEOUT_LONG_MS);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        const int fd = ask_tcp(WWW);
        const int upstream = upstream_accept(0);
        struct upstream_query query;
        uint8_t out[DNS_FRAME_BYTES + DNS_UDP_BYTES_DEFAULT] = {0};
        uint8_t head[DNS_FRAME_BYTES];

        upstream_receive_tcp(upstream, &query);
        const size_t size = upstream_compose(&query, 0, 1, a_record, out + DNS_FRAME_BYTES);

        out[0] = (uint8_t)(random_below(8) == 0 ? random_below(256) : 0);
        out[1] = (uint8_t)(random_below(4) == 0 ? random_below(256) : size);
        const size_t spoilt =
            upstream_spoil(out + DNS_FRAME_BYTES, size, DNS_UDP_BYTES_DEFAULT) + DNS_FRAME_BYTES;

        assert_int_equal(send(upstream, out, spoilt, MSG_NOSIGNAL), spoilt);
        (void)shutdown(upstream, SHUT_WR); /* We may have closed it already. */
        wait_readable(fd);
        assert_int_equal(recv(fd, head, sizeof(head), MSG_WAITALL), sizeof(head));
        (void)close(fd);
        (void)close(upstream);
    }
}

static void channels_used_again_have_new_ports(void **state)
{
    enum { QUESTIONS = 12 };
    struct upstream_query queries[QUESTIONS];
    uint8_t out[DNS_UDP_BYTES_DEFAULT];
    size_t equal = 0;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    for (size_t i = 0; i < QUESTIONS; i++) {
        const int fd = ask(WWW, 0);

        upstream_receive(0, &queries[i]);
        upstream_send(recursors[0], &queries[i], out,
                      upstream_compose(&queries[i], 0, 1, a_record, out));
        expect(fd, WWW_ANSWER);
        equal += i > 0 && (queries[i].from.sin_port == queries[i - 1].from.sin_port ||
                           memcmp(queries[i].bytes, queries[i - 1].bytes, 2) == 0);
    }
    assert_in_range(equal, 0, 3); /* by chance: 28000^-4 */
}

/* Of all kinds, more at once than channels are kept. */
static void many_questions_of_all_kinds_are_answered(void **state)
{
    enum { MANY = DNS_CHANNELS_IDLE_MAX + 36 };
    int fds[MANY];

    (void)state;
    assert_int_equal(listen(listeners[0], 4), 0);
    start_with(1, TIMEOUT_LONG_MS);
    for (unsigned turn = 0; turn < 3; turn++) {
        for (unsigned i = 0; i < MANY; i++) {
            char question[32];

            (void)snprintf(question, sizeof(question), "n%u.example.org A", i);
            fds[i] = ask(question, 0);
        }
        const int fd = ask_tcp(WWW);
        const int upstream = upstream_accept(0);

        upstream_answer_tcp(upstream, 0, 1, a_record);
        expect_tcp(fd, WWW_ANSWER);
        (void)close(upstream);
        for (unsigned i = 0; i < MANY; i++) {
            upstream_answer(0, 0, 1, a_record);
        }
        ask_and_answer("ext.node.consul A",
                       "NOERROR aa rd ra|an alias.example.org 300 A 192.0.2.10|" ALIAS);
        for (unsigned i = 0; i < MANY; i++) {
            char expected[64];

            (void)snprintf(expected, sizeof(expected),
                           "NOERROR rd ra|an n%u.example.org 300 A 192.0.2.10", i);
            expect(fds[i], expected);
        }
    }
}

static int free_descriptor(void)
{
    const int fd = dup(recursors[0]);

    assert_true(fd >= 0);
    (void)close(fd);
    return fd;
}

/* More questions than channels are kept; the last one's place then asks over TCP, with the very
 * descriptor that it had for UDP. */
static void streams_are_no_datagrams_with_the_descriptor_of_one(void **state)
{
    enum { QUESTIONS = DNS_CHANNELS_IDLE_MAX + 1, FILLERS_MAX = 4 * QUESTIONS };
    static struct upstream_query queries[QUESTIONS];
    int fds[QUESTIONS], fillers[FILLERS_MAX];
    size_t filler_count = 0;
    int descriptor = -1;
    uint8_t out[DNS_UDP_BYTES_DEFAULT];

    (void)state;
    assert_int_equal(listen(listeners[0], 4), 0);
    start_with(1, TIMEOUT_LONG_MS);
    for (unsigned i = 0; i < QUESTIONS; i++) {
        char question[32];

        (void)snprintf(question, sizeof(question), "n%u.example.org A", i);
        fds[i] = client_open(SOCK_DGRAM);
        const size_t size = dns_fixture_query(question, 0, message, sizeof(message));

        descriptor = free_descriptor();
        assert_int_equal(send(fds[i], message, size, 0), size);
        upstream_receive(0, &queries[i]);
    }
    for (unsigned i = 0; i < QUESTIONS; i++) {
        upstream_send(recursors[0], &queries[i], out,
                      upstream_compose(&queries[i], 0, 1, a_record, out));
        wait_readable(fds[i]);
    }
    const int client = ask_tcp("n1.node.consul A");

    wait_readable(client); /* It has been accepted. */
    assert_true(recv(client, message, sizeof(message), 0) > 0);
    while (free_descriptor() < descriptor) {
        assert_true(filler_count < FILLERS_MAX);
        fillers[filler_count++] = dup(recursors[0]);
    }
    const size_t size = dns_fixture_query(WWW, 0, out + DNS_FRAME_BYTES, sizeof(out) - 2);

    out[0] = 0;
    out[1] = (uint8_t)size;
    assert_int_equal(send(client, out, DNS_FRAME_BYTES + size, 0), DNS_FRAME_BYTES + size);
    wait_readable(listeners[0]);
    assert_int_not_equal(free_descriptor(), descriptor);
    const int upstream = upstream_accept(0);

    upstream_answer_tcp(upstream, 0, 1, a_record);
    expect_tcp(client, WWW_ANSWER);
    (void)close(upstream);
    while (filler_count > 0) {
        (void)close(fillers[--filler_count]);
    }
    for (unsigned i = 0; i < QUESTIONS; i++) {
        (void)close(fds[i]);
    }
}

static void a_new_time_limit_holds_for_channels_used_again(void **state)
{
    struct upstream_query query;

    (void)state;
    start_with(1, TIMEOUT_LONG_MS);
    ask_and_answer(WWW, WWW_ANSWER);
    set_timeout(TIMEOUT_SHORT_MS);
    const int fd = ask(WWW, 0);

    upstream_receive(0, &query);
    expect(fd, SERVFAIL_ANSWER);
}

/* What resolver libraries look at. */
static void the_environment_changes_nothing(void **state)
{
    struct upstream_query query;

    (void)state;
    assert_int_equal(setenv("RES_OPTIONS", "retry:9 retrans:1 rotate ndots:9", 1), 0);
    assert_int_equal(setenv("LOCALDOMAIN", "example.net", 1), 0);
    start_with(2, TIMEOUT_SHORT_MS);
    const int fd = ask(WWW, 0);

    upstream_receive(0, &query);
    upstream_receive(1, &query);
    expect(fd, SERVFAIL_ANSWER);
    assert_true(is_silent(recursors[0]));
    assert_true(is_silent(recursors[1]));
    assert_int_equal(unsetenv("RES_OPTIONS"), 0);
    assert_int_equal(unsetenv("LOCALDOMAIN"), 0);
}

static void want_of_descriptors_is_a_failure_for_now(void **state)
{
    struct rlimit before;

    (void)state;
    start_with(2, TIMEOUT_LONG_MS);
    const int fd = ask(WWW, 0);

    upstream_answer(0, 0, 1, a_record);
    expect(fd, WWW_ANSWER);
    const int waiting = client_open(SOCK_DGRAM);
    const size_t size = dns_fixture_query(WWW, 0, message, sizeof(message));

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};

    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(send(waiting, message, size, 0), size);
    wait_readable(waiting);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    expect(waiting, SERVFAIL_ANSWER);
    ask_and_answer(WWW, WWW_ANSWER);
}

/* --- memory --- */

static atomic_long allocations_left;

static void *scarce_malloc(size_t size)
{
    return size > 0 && atomic_fetch_sub(&allocations_left, 1) > 0 ? malloc(size) : NULL;
}

static void *scarce_realloc(void *data, size_t size)
{
    return atomic_fetch_sub(&allocations_left, 1) > 0 ? realloc(data, size) : NULL;
}

/* Each of what c-ares allocates fails once, and from then on; the client always gets an answer. */
static void want_of_memory_is_a_failure_for_now(void **state)
{
    long count = 0;
    bool enough = false;

    (void)state;
    assert_int_equal(ares_library_init_mem(ARES_LIB_INIT_ALL, scarce_malloc, free, scarce_realloc),
                     0);
    start_with(1, TIMEOUT_LONG_MS);
    for (; !enough; count++) {
        atomic_store(&allocations_left, count);
        const int fd = ask(WWW, 0);
        struct pollfd wait[2] = {{.fd = recursors[0], .events = POLLIN},
                                 {.fd = fd, .events = POLLIN}};

        assert_true(poll(wait, 2, WAIT_MS) > 0);
        if (wait[0].revents == 0) {
            expect(fd, SERVFAIL_ANSWER);
        } else {
            upstream_answer(0, 0, 1, a_record);
            expect(fd, WWW_ANSWER);
            enough = atomic_load(&allocations_left) >= 0;
        }
        dns_server_stop(server); /* so that the next one makes a channel, too */
        start_with(1, TIMEOUT_LONG_MS);
    }
    assert_in_range(count, 5, 100);
    dns_server_stop(server);
    server = NULL;
    ares_library_cleanup();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(datagrams_of_any_size_are_passed_on_whole),
        TEST(questions_of_any_size_stay_on_their_transport),
        TEST(a_format_error_is_not_answered_with_another_question),
        TEST(a_failure_without_its_question_leads_to_the_next),
        TEST(an_answer_to_half_a_question_is_taken),
        TEST(truncated_answers_are_the_clients_to_ask_again),
        TEST(truncated_host_names_are_asked_for_over_tcp),
        TEST(truncated_host_names_are_better_than_none),
        TEST(streams_that_break_lead_to_the_next),
        TEST(whatever_recursors_send_clients_have_an_answer),
        TEST(whatever_streams_bring_clients_have_an_answer),
        TEST(channels_used_again_have_new_ports),
        TEST(many_questions_of_all_kinds_are_answered),
        TEST(streams_are_no_datagrams_with_the_descriptor_of_one),
        TEST(a_new_time_limit_holds_for_channels_used_again),
        TEST(the_environment_changes_nothing),
        TEST(want_of_descriptors_is_a_failure_for_now),
        TEST(want_of_memory_is_a_failure_for_now),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
