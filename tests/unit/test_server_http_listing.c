/* Listings of catalog and health, read in pieces: whole, in order, filtered and bounded, however
 * many pieces they take. */

#define HTTP_FIXTURE_CATALOG
#define HTTP_FIXTURE_OPERATOR

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/http_client.h"

#include "server/catalog/coordinate.h"
#include "server/http/listing.h"

enum { NODES = LISTING_PIECE_COUNT_MAX + 100, OUTPUT_BYTES = 700, INSTANCES = 600 };

/* A node with a check, and with the service and its check when it has a name. */
static void add(struct http_fixture *fixture, const char *node, const char *service,
                const char *service_id, const char *status)
{
    static char output[OUTPUT_BYTES];
    struct catalog_registration registration = {.check_count = 1};
    struct catalog_check check = {.name = SLICE_LITERAL("alive"),
                                  .node = slice_from_text(node),
                                  .id = slice_from_text(service_id),
                                  .status = slice_from_text(status),
                                  .output = slice_from(output, sizeof(output)),
                                  .service_id = slice_from_text(service_id),
                                  .service_tags = STRINGS_NULL};
    struct buffer record = {0};
    struct buffer checks = {0};
    struct buffer command = {0};
    struct command_result result;

    memset(output, 'o', sizeof(output));
    registration.node.name = slice_from_text(node);
    registration.node.address = SLICE_LITERAL("127.0.0.1");
    registration.node.tagged_addresses = STRINGS_NULL;
    registration.node.meta = STRINGS_NULL;
    registration.has_service = true;
    registration.service.id = slice_from_text(service_id);
    registration.service.name = slice_from_text(service);
    registration.service.tags = STRINGS_NULL;
    registration.service.meta = STRINGS_NULL;
    registration.service.tagged_addresses = STRINGS_NULL;
    catalog_check_encode(&record, &check);
    buffer_put_string(&checks, buffer_slice(&record));
    registration.checks = buffer_slice(&checks);
    command_encode_register(&command, &registration);
    fake_apply(&fixture->replica, &command, &result);
    assert_int_equal(result.status, COMMAND_DONE);
    buffer_deinit(&record);
    buffer_deinit(&checks);
    buffer_deinit(&command);
}

static void add_nodes(struct http_fixture *fixture, const char *service)
{
    char node[32];

    fake_begin(&fixture->replica);
    for (int i = 0; i < NODES; i++) {
        (void)snprintf(node, sizeof(node), "n%05d", i);
        add(fixture, node, service, service, i % 1000 == 7 ? "critical" : "passing");
    }
    fake_commit(&fixture->replica);
}

/* The body of the only answer, whichever way it was sent; NUL-terminated. */
static void take_body(struct client *client, struct buffer *out)
{
    const char *at = client->data == NULL ? NULL : strstr(client->data, "\r\n\r\n");

    if (at == NULL) {
        fail_msg("no answer");
        return;
    }
    at += 4;
    buffer_clear(out);
    if (strstr(client->data, "Transfer-Encoding: chunked") == NULL) {
        buffer_append_text(out, at);
        buffer_append_char(out, '\0');
        return;
    }
    for (;;) {
        char *after;
        const size_t size = strtoul(at, &after, 16);

        assert_memory_equal(after, "\r\n", 2);
        if (size == 0) {
            break;
        }
        buffer_append(out, after + 2, size);
        at = after + 2 + size + 2;
    }
    buffer_append_char(out, '\0');
}

/* Asks and reads to the end: the connection closes after it. */
static json_t *ask(struct http_fixture *fixture, const char *target, struct buffer *body)
{
    struct client client;
    char request[512];
    json_error_t error;

    (void)snprintf(request, sizeof(request),
                   "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target);
    client_open(fixture, &client);
    client_send(fixture, &client, request);
    client_expect_close(fixture, &client);
    assert_int_equal(count_text(&client, "HTTP/1.1 200 OK"), 1);
    take_body(&client, body);
    client_close(&client);
    assert_int_equal(fixture->server.http->stream_snapshots, 0);

    json_t *json = json_loads(body->data, 0, &error);
    assert_non_null(json);
    return json;
}

static void assert_nodes_in_order(const json_t *list, const char *member)
{
    size_t at = 0;
    char node[32];

    for (int i = 0; i < NODES; i++) {
        (void)snprintf(node, sizeof(node), "n%05d", i);
        const json_t *element = json_array_get(list, at);
        const json_t *name = json_object_get(element, member);

        if (json_is_object(name)) {
            name = json_object_get(name, "Node");
        }
        while (name != NULL && strcmp(json_string_value(name), "node1") == 0) {
            name = json_object_get(json_array_get(list, ++at), member);
        }
        assert_string_equal(json_string_value(name), node);
        at++;
    }
}

static void listings_of_many_pieces_are_whole_and_in_order(void **state)
{
    static const char *const targets[] = {
        "/v1/catalog/nodes",     "/v1/catalog/service/web", "/v1/health/state/any",
        "/v1/health/checks/web", "/v1/health/service/web",
    };
    struct http_fixture *fixture = *state;
    struct buffer body = {0};

    add_nodes(fixture, "web");
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        json_t *list = ask(fixture, targets[i], &body);

        assert_in_range(json_array_size(list), NODES, NODES + 1);
        assert_nodes_in_order(list, "Node");
        json_decref(list);
    }
    buffer_deinit(&body);
}

static void a_piece_in_which_nothing_is_listed_does_not_end_the_answer(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    char node[32];

    /* Enough to be sent in chunks, then whole pieces of what is not asked for, then one more. */
    add_nodes(fixture, "a");
    for (int i = 0; i < 2 * LISTING_PIECE_COUNT_MAX; i++) {
        (void)snprintf(node, sizeof(node), "o%05d", i);
        add(fixture, node, "b", "b", "warning");
    }
    add(fixture, "p", "a", "a", "passing");
    json_t *list = ask(fixture, "/v1/health/checks/a", &body);

    assert_int_equal(json_array_size(list), NODES + 1);
    json_decref(list);
    list = ask(fixture, "/v1/health/state/any?filter=Status!=warning+and+ServiceID==a", &body);
    assert_int_equal(json_array_size(list), NODES + 1);
    json_decref(list);
    buffer_deinit(&body);
}

static void a_filter_that_nothing_passes_leaves_an_empty_list(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};

    add_nodes(fixture, "web");
    json_t *list = ask(fixture, "/v1/health/state/any?filter=Status==absent", &body);
    assert_string_equal(body.data, "[]");
    json_decref(list);
    list = ask(fixture, "/v1/catalog/services?filter=ServiceName==absent", &body);
    assert_string_equal(body.data, "{}");
    json_decref(list);
    buffer_deinit(&body);
}

/* The record of a coordinate behind its size, as a batch holds it. */
static void put_coordinate(struct buffer *batch, const char *node, double distance)
{
    struct coordinate coordinate = {.vec = {distance}, .error = 1.0 / 3, .adjustment = 1.0 / 3};
    struct buffer record = {0};

    coordinate.node = slice_from_text(node);
    coordinate.height = 1.0 / 3; /* Long numbers: all are more than is sent in one go. */
    for (size_t i = 1; i < COORDINATE_DIMENSIONS; i++) {
        coordinate.vec[i] = 1.0 / 3;
    }
    coordinate_encode(&record, &coordinate);
    buffer_put_string(batch, buffer_slice(&record));
    buffer_deinit(&record);
}

static void store_coordinates(struct http_fixture *fixture, const struct buffer *batch)
{
    struct buffer command = {0};
    struct command_result result;

    command_encode_coordinates(&command, buffer_slice(batch));
    fake_apply(&fixture->replica, &command, &result);
    assert_int_equal(result.status, COMMAND_DONE);
    buffer_deinit(&command);
}

/* Symptom: the list of all coordinates was made in one go, and held the loop for as long as that
 * took. Rule: what is as long as the catalog is read in pieces, and so comes in chunks. */
static void coordinates_come_in_pieces_and_in_order(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer batch = {0};
    struct buffer body = {0};
    struct client client;
    json_error_t error;
    char node[32];

    add_nodes(fixture, "web");
    fake_begin(&fixture->replica);
    for (int i = 0; i < 2 * NODES; i++) {
        (void)snprintf(node, sizeof(node), "%c%05d", i < NODES ? 'n' : 'o', i % NODES);
        if (i >= NODES) {
            add(fixture, node, "web", "web", "passing");
        }
        put_coordinate(&batch, node, i * 1e-3);
        if ((i + 1) % COORDINATE_BATCH_MAX == 0 || i + 1 == 2 * NODES) {
            store_coordinates(fixture, &batch);
            buffer_clear(&batch);
        }
    }
    fake_commit(&fixture->replica);
    client_open(fixture, &client);
    client_send(fixture, &client,
                "GET /v1/coordinate/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client_expect_close(fixture, &client);
    assert_int_equal(count_text(&client, "Transfer-Encoding: chunked\r\n"), 1);
    take_body(&client, &body);
    json_t *list = json_loads(body.data, 0, &error);
    assert_int_equal(json_array_size(list), 2 * NODES);
    assert_nodes_in_order(list, "Node");
    json_decref(list);
    client_close(&client);
    list = ask(fixture, "/v1/coordinate/nodes?segment=other", &body);
    assert_string_equal(body.data, "[]");
    json_decref(list);
    buffer_deinit(&batch);
    buffer_deinit(&body);
}

static void nearest_nodes_come_first_over_all_pieces(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer batch = {0};
    struct buffer body = {0};
    char node[32];

    add_nodes(fixture, "web");
    for (int i = 0; i < 100; i++) { /* The later the nearer; all others have no coordinate. */
        (void)snprintf(node, sizeof(node), "n%05d", i * 20);
        put_coordinate(&batch, node, (100 - i) * 1e-3);
    }
    store_coordinates(fixture, &batch);
    json_t *list = ask(fixture, "/v1/health/service/web?near=n01980", &body);

    assert_int_equal(json_array_size(list), NODES);
    for (size_t i = 0; i < 100; i++) {
        (void)snprintf(node, sizeof(node), "n%05d", (99 - (int)i) * 20);
        assert_string_equal(json_string_value(json_object_get(
                                json_object_get(json_array_get(list, i), "Node"), "Node")),
                            node);
    }
    const char *before = "";
    for (size_t i = 100; i < NODES; i++) {
        const char *name = json_string_value(
            json_object_get(json_object_get(json_array_get(list, i), "Node"), "Node"));

        assert_true(strcmp(before, name) < 0);
        before = name;
    }
    json_decref(list);
    buffer_deinit(&batch);
    buffer_deinit(&body);
}

static void names_of_services_come_sorted_by_their_bytes(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    char name[32];

    for (int i = 0; i < NODES; i++) {
        (void)snprintf(name, sizeof(name), "%c-%05d", i % 2 == 0 ? 'a' : 'B', (i * 7919) % 50000);
        add(fixture, "n", name, name, "passing");
    }
    json_t *names = ask(fixture, "/v1/catalog/services", &body);
    const char *key;
    const char *before = "";
    json_t *tags;

    assert_int_equal(json_object_size(names), NODES);
    json_object_foreach(names, key, tags) /* In the order of the text. */
    {
        assert_true(strcmp(before, key) < 0);
        assert_int_equal(json_array_size(tags), 0);
        before = key;
    }
    json_decref(names);
    buffer_deinit(&body);
}

static void assert_usage(struct http_fixture *fixture, const char *member, json_int_t count)
{
    struct buffer body = {0};
    json_t *answer = ask(fixture, "/v1/operator/usage", &body);
    const json_t *usage =
        json_object_get(json_object_get(json_object_get(answer, "Usage"), "dc1"), member);

    assert_true(json_is_integer(usage));
    assert_int_equal(json_integer_value(usage), count);
    json_decref(answer);
    buffer_deinit(&body);
}

/* The names come in the order of the pieces: one that ends a piece and begins the next counts once.
 */
static void usage_counts_each_name_once_over_all_pieces(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    json_t *nodes;

    assert_usage(fixture, "Services", 0);
    add_nodes(fixture, "web");
    add(fixture, "n00001", "consul", "consul", "passing");
    add(fixture, "n00002", "Consul", "consul", "passing");
    add(fixture, "n00003", "WEB", "web2", "passing");
    add(fixture, "n00004", "web2", "web2", "passing");
    nodes = ask(fixture, "/v1/catalog/nodes", &body);
    assert_usage(fixture, "Nodes", (json_int_t)json_array_size(nodes));
    assert_usage(fixture, "Services", 3);
    assert_usage(fixture, "ServiceInstances", NODES + 4);
    assert_usage(fixture, "BillableServiceInstances", NODES + 2);
    json_decref(nodes);
    buffer_deinit(&body);
}

static void each_instance_of_a_node_has_its_own_checks(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    char id[32];

    for (int i = 0; i < INSTANCES; i++) {
        (void)snprintf(id, sizeof(id), "%s-%03d", i % 2 == 0 ? "Web" : "web", i);
        add(fixture, "n", "web", id, i % 3 == 0 ? "critical" : "passing");
    }
    json_t *list = ask(fixture, "/v1/health/service/web", &body);
    size_t at;
    json_t *element;

    assert_int_equal(json_array_size(list), INSTANCES);
    json_array_foreach(list, at, element)
    {
        const json_t *checks = json_object_get(element, "Checks");

        assert_int_equal(json_array_size(checks), 1);
        assert_string_equal(
            json_string_value(json_object_get(json_array_get(checks, 0), "CheckID")),
            json_string_value(json_object_get(json_object_get(element, "Service"), "ID")));
    }
    json_decref(list);
    list = ask(fixture, "/v1/health/service/web?passing", &body);
    assert_int_equal(json_array_size(list), INSTANCES - INSTANCES / 3);
    json_decref(list);
    list = ask(fixture, "/v1/catalog/node-services/n", &body);
    assert_int_equal(json_array_size(json_object_get(list, "Services")), INSTANCES);
    assert_non_null(json_object_get(list, "Node"));
    json_decref(list);
    list = ask(fixture, "/v1/catalog/node/n", &body);
    assert_int_equal(json_object_size(json_object_get(list, "Services")), INSTANCES);
    json_decref(list);
    buffer_deinit(&body);
}

static struct http_conn *run_until(struct http_fixture *fixture, bool parked)
{
    for (int i = 0; i < CLIENT_WAIT_MS_MAX * 2; i++) {
        struct http_conn *conn = fixture->server.http->conns;

        loop_turn(fixture);
        if (conn != NULL &&
            (parked ? conn->private.phase == HTTP_PHASE_PARKED : conn->state == HTTP_CONN_WRITE)) {
            return conn;
        }
    }
    fail_msg("it did not come to that");
    return NULL;
}

static void a_long_listing_that_is_waited_for_comes_whole_when_it_changes(void **state)
{
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    struct client client;
    char request[256];
    json_error_t error;

    add_nodes(fixture, "web");
    (void)snprintf(request, sizeof(request),
                   "GET /v1/health/state/any?index=%llu&wait=600s HTTP/1.1\r\nHost: x\r\n"
                   "Connection: close\r\n\r\n",
                   (unsigned long long)fixture->replica.index);
    client_open(fixture, &client);
    client_send(fixture, &client, request);
    assert_int_equal(run_until(fixture, true)->private.phase, HTTP_PHASE_PARKED);
    assert_int_equal(fixture->server.http->stream_snapshots, 0);
    add(fixture, "n00000", "web", "web", "warning");
    client_expect_close(fixture, &client);
    assert_int_equal(count_text(&client, "\"Status\":\"warning\""), 1);
    take_body(&client, &body);
    json_t *list = json_loads(body.data, 0, &error);
    assert_int_equal(json_array_size(list), NODES + 1);
    json_decref(list);
    client_close(&client);
    buffer_deinit(&body);
}

/* One that is encoded once for all, and one that is sent to each in pieces. */
static void all_who_wait_for_a_listing_get_it_whole_and_new(void **state)
{
    enum { WAITERS = 20 };
    static const char *const targets[] = {"/v1/catalog/nodes", "/v1/health/state/any"};
    struct http_fixture *fixture = *state;
    struct buffer body = {0};
    struct client clients[WAITERS];
    char request[256];
    json_error_t error;

    add_nodes(fixture, "web");
    for (int i = 0; i < WAITERS; i++) {
        (void)snprintf(request, sizeof(request),
                       "GET %s?index=%llu&wait=600s HTTP/1.1\r\nHost: x\r\n"
                       "Connection: close\r\n\r\n",
                       targets[i % 2], (unsigned long long)fixture->replica.index);
        client_open(fixture, &clients[i]);
        client_send(fixture, &clients[i], request);
        assert_int_equal(run_until(fixture, true)->private.phase, HTTP_PHASE_PARKED);
    }
    add(fixture, "x", "web", "web", "passing"); /* A node, and a check. */
    for (int i = 0; i < WAITERS; i++) {
        client_expect_close(fixture, &clients[i]);
        take_body(&clients[i], &body);
        json_t *list = json_loads(body.data, 0, &error);

        assert_int_equal(json_array_size(list), NODES + 2);
        json_decref(list);
        client_close(&clients[i]);
    }
    assert_false(fixture->server.http->shared.kept);
    buffer_deinit(&body);
}

static void run_until_all_are_parked(struct http_fixture *fixture, size_t count)
{
    for (int i = 0; i < CLIENT_WAIT_MS_MAX * 2; i++) {
        size_t parked = 0;

        loop_turn(fixture);
        for (const struct http_conn *conn = fixture->server.http->conns; conn != NULL;
             conn = conn->next) {
            parked += conn->private.phase == HTTP_PHASE_PARKED;
        }
        if (parked == count) {
            return;
        }
    }
    fail_msg("it did not come to that");
}

/* Symptom: who was woken with another got its X-Cache. Rule: the body is shared, the head is not;
 * what a run adds to it is there once, however often it was run. */
static void waiters_for_the_same_have_heads_of_their_own(void **state)
{
    enum { WAITERS = 3 };
    static const char *const expected[WAITERS] = {"X-Cache: MISS\r\n", "X-Cache: HIT\r\n",
                                                  "X-Cache: HIT\r\n"};
    struct http_fixture *fixture = *state;
    struct client clients[WAITERS], raw[WAITERS];
    char request[256];

    add(fixture, "x", "web", "web", "passing");
    for (int i = 0; i < WAITERS; i++) {
        (void)snprintf(request, sizeof(request),
                       "GET /v1/health/service/web?cached&index=%llu&wait=600s HTTP/1.1\r\n"
                       "Host: x\r\nConnection: close\r\n\r\n",
                       (unsigned long long)fixture->replica.index);
        client_open(fixture, &clients[i]);
        client_send(fixture, &clients[i], request);
        client_open(fixture, &raw[i]);
        client_send(fixture, &raw[i],
                    "GET /v1/kv/key?raw&index=1&wait=600s HTTP/1.1\r\nHost: x\r\n"
                    "Connection: close\r\n\r\n");
        run_until_all_are_parked(fixture, 2 * (size_t)i + 2);
    }
    add(fixture, "x", "web", "web", "critical");
    for (int i = 0; i < WAITERS; i++) {
        client_expect_close(fixture, &clients[i]);
        assert_int_equal(count_text(&clients[i], "\"Status\":\"critical\""), 1);
        assert_int_equal(count_text(&clients[i], expected[i]), 1);
        assert_int_equal(count_text(&clients[i], "X-Cache: "), 1);
        assert_int_equal(count_text(&clients[i], "Age: 0\r\n"), i > 0);
        client_close(&clients[i]);
    }
    client_open(fixture, &clients[0]);
    client_send(fixture, &clients[0],
                "PUT /v1/kv/key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                "Content-Length: 5\r\n\r\nvalue");
    client_expect_close(fixture, &clients[0]);
    client_close(&clients[0]);
    for (int i = 0; i < WAITERS; i++) {
        client_expect_close(fixture, &raw[i]);
        assert_int_equal(count_text(&raw[i], "X-Content-Type-Options: nosniff\r\n"), 1);
        assert_int_equal(count_text(&raw[i], "\r\n\r\nvalue"), 1);
        client_close(&raw[i]);
    }
}

static void a_client_that_does_not_read_costs_a_piece_and_no_snapshot(void **state)
{
    const int window = 64 * 1024;
    struct http_fixture *fixture = *state;
    struct client client;

    for (int i = 0; i < 8; i++) { /* More than the kernel takes for the client. */
        char service[8];

        (void)snprintf(service, sizeof(service), "web%d", i);
        add_nodes(fixture, service);
    }
    client_open(fixture, &client);
    assert_int_equal(setsockopt(client.fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof(window)), 0);
    const char text[] = "GET /v1/health/state/any HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_int_equal(write(client.fd, text, sizeof(text) - 1), sizeof(text) - 1);
    struct http_conn *conn = run_until(fixture, false);

    for (int ms = 0; ms <= HTTP_STREAM_STALL_MS; ms += HTTP_STREAM_TICK_MS) {
        http_stream_tick(conn->private.stream);
    }
    turn_until(fixture, fixture->server.http->stream_snapshots == 0);
    assert_in_range(fixture->server.http->stream_copied_bytes, 1, HTTP_STREAM_COPY_BYTES_MAX);

    /* Byte after byte does not keep it: its time is not renewed, and all comes back. */
    const uint64_t deadline_ms = conn->deadline_ms;
    char byte;

    for (int i = 0; i < 50; i++) {
        assert_int_equal(read(client.fd, &byte, 1), 1);
        loop_turn(fixture);
    }
    assert_int_equal(conn->deadline_ms, deadline_ms);
    assert_true(deadline_ms <= uv_now(&fixture->loop) + HTTP_WRITE_TIMEOUT_MS);
    http_conn_set_deadline(conn, 1);
    turn_until(fixture, fixture->server.http->conns == NULL);
    assert_int_equal(fixture->server.http->stream_copied_bytes, 0);
    client_close(&client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(listings_of_many_pieces_are_whole_and_in_order),
        TEST(a_piece_in_which_nothing_is_listed_does_not_end_the_answer),
        TEST(a_filter_that_nothing_passes_leaves_an_empty_list),
        TEST(coordinates_come_in_pieces_and_in_order),
        TEST(nearest_nodes_come_first_over_all_pieces),
        TEST(names_of_services_come_sorted_by_their_bytes),
        TEST(usage_counts_each_name_once_over_all_pieces),
        TEST(each_instance_of_a_node_has_its_own_checks),
        TEST(a_long_listing_that_is_waited_for_comes_whole_when_it_changes),
        TEST(all_who_wait_for_a_listing_get_it_whole_and_new),
        TEST(waiters_for_the_same_have_heads_of_their_own),
        TEST(a_client_that_does_not_read_costs_a_piece_and_no_snapshot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
