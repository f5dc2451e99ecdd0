/* User events between servers: whom they reach, once, in what order, and what strange bytes do. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "server/events.h"

/* One server: what it passes on goes to the others of the test. */
struct node {
    struct events *events;
    const char *name;
    unsigned told;
    struct node *others[2];
    bool cut; /* its links are down */
};

static bool node_is_meant(void *context, const struct event *event)
{
    const struct node *node = context;

    return event->node_filter.size == 0 ||
           slice_equal(event->node_filter, slice_from_text(node->name));
}

static void node_on_event(void *context)
{
    struct node *node = context;

    node->told++;
}

static void node_spread(void *context, struct slice bytes)
{
    struct node *node = context;

    for (size_t i = 0; i < 2; i++) {
        if (node->others[i] != NULL && !node->cut && !node->others[i]->cut) {
            events_receive(node->others[i]->events, bytes);
        }
    }
}

static void node_open(struct node *node, const char *name)
{
    const struct events_handlers handlers = {
        .context = node, .is_meant = node_is_meant, .on_event = node_on_event};

    memset(node, 0, sizeof(*node));
    node->name = name;
    node->events = events_new(&handlers);
    assert_non_null(node->events);
    events_set_spread(node->events, node_spread, node);
}

static void fire(struct node *node, uint8_t id, const char *name, const char *filter,
                 uint64_t now_ms)
{
    struct event event = {
        .name = slice_from_text(name),
        .payload = slice_from_text("payload"),
        .node_filter = slice_from_text(filter),
        .service_filter = SLICE_EMPTY,
        .tag_filter = SLICE_EMPTY,
    };

    event.id.bytes[0] = id;
    assert_true(events_fire(node->events, &event, now_ms));
}

static void replay_to(void *context, struct slice bytes)
{
    struct node *node = context;

    events_receive(node->events, bytes);
}

static void an_event_is_kept_once_by_every_server_that_is_meant(void **state)
{
    struct node a, b, c;

    (void)state;
    node_open(&a, "a");
    node_open(&b, "b");
    node_open(&c, "c");
    a.others[0] = &b;
    a.others[1] = &c;
    b.others[0] = &a;
    b.others[1] = &c;
    fire(&a, 1, "all", "", 0);
    fire(&b, 2, "only-c", "c", 0);
    assert_int_equal(events_count(a.events), 1);
    assert_int_equal(events_count(b.events), 1);
    assert_int_equal(events_count(c.events), 2);
    assert_int_equal(c.told, 2);
    /* The clock goes on where another server's event left it. */
    assert_true(events_at(c.events, 1)->ltime > events_at(c.events, 0)->ltime);
    events_replay(a.events, 0, replay_to, &c); /* Known: not again. */
    assert_int_equal(events_count(c.events), 2);
    assert_true(slice_equal(events_at(c.events, 0)->payload, slice_from_text("payload")));
    events_free(a.events);
    events_free(b.events);
    events_free(c.events);
}

static void a_server_that_comes_back_hears_what_is_recent(void **state)
{
    struct node a, b;

    (void)state;
    node_open(&a, "a");
    node_open(&b, "b");
    a.others[0] = &b;
    b.cut = true;
    fire(&a, 1, "old", "", 1000);
    fire(&a, 2, "recent", "", 1001 + EVENTS_SENT_MS_MAX / 2);
    assert_int_equal(events_count(b.events), 0);
    events_replay(a.events, 1001 + EVENTS_SENT_MS_MAX, replay_to, &b);
    assert_int_equal(events_count(b.events), 1);
    assert_true(slice_equal(events_at(b.events, 0)->name, slice_from_text("recent")));
    events_receive(NULL, SLICE_EMPTY);
    events_replay(NULL, 0, replay_to, &b);
    events_free(a.events);
    events_free(b.events);
}

static void the_oldest_of_more_than_the_bound_is_forgotten(void **state)
{
    struct node a;
    char name[16];

    (void)state;
    node_open(&a, "a");
    for (unsigned i = 0; i < EVENTS_KEPT_MAX + 3; i++) {
        struct event event = {.payload = SLICE_EMPTY,
                              .node_filter = SLICE_EMPTY,
                              .service_filter = SLICE_EMPTY,
                              .tag_filter = SLICE_EMPTY};

        (void)snprintf(name, sizeof(name), "%u", i);
        event.name = slice_from_text(name);
        event.id.bytes[0] = (uint8_t)i;
        event.id.bytes[1] = (uint8_t)(i >> 8);
        assert_true(events_fire(a.events, &event, 0));
    }
    assert_int_equal(events_count(a.events), EVENTS_KEPT_MAX);
    assert_true(slice_equal(events_at(a.events, 0)->name, slice_from_text("3")));
    assert_true(slice_equal(events_at(a.events, EVENTS_KEPT_MAX - 1)->name, slice_from_text(name)));
    events_free(a.events);
}

static void bytes_that_are_no_event_are_dropped(void **state)
{
    struct node a;
    struct buffer bytes = {0};
    static char big[EVENTS_FIELD_BYTES_MAX + 1];
    struct event event = {.name = slice_from_text("name"),
                          .payload = slice_from_text("payload"),
                          .node_filter = SLICE_EMPTY,
                          .service_filter = SLICE_EMPTY,
                          .tag_filter = SLICE_EMPTY,
                          .ltime = 5};

    (void)state;
    node_open(&a, "a");
    events_encode(&bytes, &event);
    for (size_t size = 0; size < bytes.size; size++) {
        events_receive(a.events, slice_from(bytes.data, size)); /* cut off anywhere */
    }
    buffer_append_char(&bytes, 'x'); /* one too many */
    events_receive(a.events, buffer_slice(&bytes));
    const struct event bad[] = {
        {.name = event.name, .payload = event.payload, .ltime = 0},
        {.name = event.name, .payload = event.payload, .ltime = UINT64_MAX},
        {.name = SLICE_EMPTY, .payload = event.payload, .ltime = 5},
        {.name = event.name, .payload = slice_from(big, sizeof(big)), .ltime = 5},
        {.name = slice_from(big, sizeof(big)), .payload = event.payload, .ltime = 5},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        event = bad[i];
        event.node_filter = event.service_filter = event.tag_filter = SLICE_EMPTY;
        buffer_clear(&bytes);
        events_encode(&bytes, &event);
        events_receive(a.events, buffer_slice(&bytes));
    }
    assert_int_equal(events_count(a.events), 0);
    buffer_deinit(&bytes);
    events_free(a.events);
}

/* The clock of a stranger's event may stand at the bound: own events go on from there. */
static void a_clock_at_its_end_stops_nobody(void **state)
{
    struct node a;
    struct buffer bytes = {0};
    struct event event = {.name = slice_from_text("far"),
                          .payload = SLICE_EMPTY,
                          .node_filter = SLICE_EMPTY,
                          .service_filter = SLICE_EMPTY,
                          .tag_filter = SLICE_EMPTY,
                          .ltime = UINT64_MAX / 2};

    (void)state;
    node_open(&a, "a");
    event.id.bytes[0] = 1;
    events_encode(&bytes, &event);
    events_receive(a.events, buffer_slice(&bytes));
    assert_int_equal(events_count(a.events), 1);
    fire(&a, 2, "own", "", 0);
    fire(&a, 3, "another", "", 0);
    assert_int_equal(events_count(a.events), 3);
    assert_true(events_at(a.events, 2)->ltime <= UINT64_MAX / 2);
    buffer_deinit(&bytes);
    events_free(a.events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_kept_once_by_every_server_that_is_meant),
        cmocka_unit_test(a_server_that_comes_back_hears_what_is_recent),
        cmocka_unit_test(the_oldest_of_more_than_the_bound_is_forgotten),
        cmocka_unit_test(bytes_that_are_no_event_are_dropped),
        cmocka_unit_test(a_clock_at_its_end_stops_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
