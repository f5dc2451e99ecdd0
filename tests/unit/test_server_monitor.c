/* Who follows the log: gets what its level asks for, from all threads, in order, and a word about
 * what was too much. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/monitor.h"

struct follower {
    struct monitor_client client; /* first */
    struct monitor *monitor;
    unsigned events;
    uint64_t dropped;
    unsigned closes;
    unsigned next[8]; /* by thread: what comes next */
    char last[64];
    bool remove_itself;
};

static struct follower *follower_of(struct monitor_client *client)
{
    return (struct follower *)(void *)client;
}

static void on_event(struct monitor_client *client, const struct log_event *event)
{
    struct follower *follower = follower_of(client);
    unsigned thread, number;

    follower->events++;
    (void)snprintf(follower->last, sizeof(follower->last), "%.63s", event->text);
    assert_string_equal(event->module, "test");
    if (sscanf(event->text, "thread=%u number=%u", &thread, &number) == 2) {
        assert_int_equal(number, follower->next[thread]); /* in the thread's order */
        follower->next[thread]++;
    }
    if (follower->remove_itself) {
        monitor_remove(follower->monitor, client);
    }
}

static void on_dropped(struct monitor_client *client, uint64_t count)
{
    follower_of(client)->dropped += count;
}

static void on_close(struct monitor_client *client)
{
    follower_of(client)->closes++;
}

static void follow(struct follower *follower, struct monitor *monitor, enum log_level level)
{
    memset(follower, 0, sizeof(*follower));
    follower->monitor = monitor;
    follower->client.level = level;
    follower->client.on_event = on_event;
    follower->client.on_dropped = on_dropped;
    follower->client.on_close = on_close;
}

static void on_timer(uv_timer_t *timer)
{
    (void)timer;
}

/* One turn of the loop, in which something else goes on: the monitor alone keeps no loop going. */
static void turn(uv_loop_t *loop)
{
    uv_timer_t timer;

    assert_int_equal(uv_timer_init(loop, &timer), 0);
    assert_int_equal(uv_timer_start(&timer, on_timer, 60000, 0), 0);
    (void)uv_run(loop, UV_RUN_NOWAIT);
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(loop, UV_RUN_NOWAIT);
}

static void each_gets_what_its_level_asks_for_whatever_the_servers_is(void **state)
{
    struct monitor *monitor = NULL;
    struct follower debug, warn;
    uv_loop_t loop;

    (void)state;
    log_level_set(LOG_ERROR);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(monitor_new(&loop, &monitor), 0);
    follow(&debug, monitor, LOG_DEBUG);
    follow(&warn, monitor, LOG_WARN);
    assert_false(log_enabled(LOG_WARN));
    assert_true(monitor_add(monitor, &debug.client));
    assert_true(monitor_add(monitor, &warn.client));
    assert_true(log_enabled(LOG_DEBUG));
    log_write(LOG_TRACE, "test", "trace");
    log_write(LOG_DEBUG, "test", "debug");
    log_write(LOG_WARN, "test", "warn");
    turn(&loop);
    assert_int_equal(debug.events, 2);
    assert_int_equal(warn.events, 1);
    assert_string_equal(warn.last, "warn");
    monitor_remove(monitor, &debug.client);
    assert_false(log_enabled(LOG_DEBUG)); /* Nobody asks any more. */
    assert_true(log_enabled(LOG_WARN));
    log_write(LOG_WARN, "test", "last");
    monitor_free(monitor); /* What was logged is told before. */
    assert_string_equal(warn.last, "last");
    assert_int_equal(warn.closes, 1);
    assert_int_equal(debug.closes, 0);
    assert_false(log_enabled(LOG_WARN));
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void a_client_may_go_while_it_is_told(void **state)
{
    struct monitor *monitor = NULL;
    struct follower first, second;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(monitor_new(&loop, &monitor), 0);
    follow(&first, monitor, LOG_INFO);
    follow(&second, monitor, LOG_INFO);
    first.remove_itself = true;
    assert_true(monitor_add(monitor, &first.client));
    assert_true(monitor_add(monitor, &second.client));
    log_write(LOG_INFO, "test", "one");
    log_write(LOG_INFO, "test", "two");
    turn(&loop);
    assert_int_equal(first.events, 1);
    assert_int_equal(second.events, 2);
    assert_int_equal(monitor_count(monitor), 1);
    monitor_free(monitor);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void no_more_follow_than_the_bound(void **state)
{
    static struct follower followers[MONITOR_CLIENTS_MAX + 1];
    struct monitor *monitor = NULL;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(monitor_new(&loop, &monitor), 0);
    for (size_t i = 0; i <= MONITOR_CLIENTS_MAX; i++) {
        follow(&followers[i], monitor, LOG_INFO);
        assert_true(monitor_add(monitor, &followers[i].client) == (i < MONITOR_CLIENTS_MAX));
    }
    monitor_free(monitor);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(monitor_count(NULL), 0);
    monitor_free(NULL);
}

enum { THREADS = 4, LINES = 500 };

static void *log_away(void *context)
{
    const unsigned thread = *(const unsigned *)context;

    for (unsigned i = 0; i < LINES; i++) {
        log_write(LOG_INFO, "test", "thread=%u number=%u", thread, i);
    }
    return NULL;
}

static void lines_of_several_threads_come_in_each_ones_order(void **state)
{
    struct monitor *monitor = NULL;
    struct follower follower;
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    uv_loop_t loop;

    (void)state;
    log_level_set(LOG_ERROR);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(monitor_new(&loop, &monitor), 0);
    follow(&follower, monitor, LOG_INFO);
    assert_true(monitor_add(monitor, &follower.client));
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, log_away, &numbers[i]), 0);
    }
    turn(&loop);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    turn(&loop);
    assert_int_equal(follower.dropped, 0);
    assert_int_equal(follower.events, THREADS * LINES);
    monitor_free(monitor);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void what_the_loop_cannot_pass_on_in_time_is_counted(void **state)
{
    static char text[LOG_TEXT_BYTES_MAX - 1];
    enum { TOLD = MONITOR_PENDING_BYTES_MAX / sizeof(text) + 50 };
    struct monitor *monitor = NULL;
    struct follower follower;
    uv_loop_t loop;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(monitor_new(&loop, &monitor), 0);
    follow(&follower, monitor, LOG_INFO);
    assert_true(monitor_add(monitor, &follower.client));
    for (size_t i = 0; i < TOLD; i++) {
        log_write(LOG_INFO, "test", "%s", text);
    }
    turn(&loop);
    assert_true(follower.dropped > 0);
    assert_int_equal(follower.events + follower.dropped, TOLD);
    log_write(LOG_INFO, "test", "again");
    turn(&loop);
    assert_string_equal(follower.last, "again");
    monitor_free(monitor);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_gets_what_its_level_asks_for_whatever_the_servers_is),
        cmocka_unit_test(a_client_may_go_while_it_is_told),
        cmocka_unit_test(no_more_follow_than_the_bound),
        cmocka_unit_test(lines_of_several_threads_come_in_each_ones_order),
        cmocka_unit_test(what_the_loop_cannot_pass_on_in_time_is_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
