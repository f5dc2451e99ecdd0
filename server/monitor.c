#include "server/monitor.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kv/buffer.h"

struct monitor {
    uv_async_t async;
    struct monitor_client clients; /* list head */
    size_t count;
    /* Any thread, under the lock. */
    pthread_mutex_t lock;
    struct buffer pending; /* events: level, seconds, nanoseconds, module, text */
    uint64_t dropped;
};

/* Any thread. */
static void monitor_tap(void *context, const struct log_event *event)
{
    struct monitor *monitor = context;
    struct buffer *pending = &monitor->pending;
    const size_t size = strlen(event->text) + strlen(event->module) + 32;

    (void)pthread_mutex_lock(&monitor->lock); /* fails for recursion only */
    if (pending->size + size > MONITOR_PENDING_BYTES_MAX || buffer_reserve(pending, size) == NULL) {
        pending->failed = false;
        monitor->dropped++;
    } else {
        buffer_put_u8(pending, (uint8_t)event->level);
        buffer_put_u64(pending, (uint64_t)event->when.tv_sec);
        buffer_put_u32(pending, (uint32_t)event->when.tv_nsec);
        /* With their NULs, so that they can be used in place. */
        buffer_put_string(pending, slice_from(event->module, strlen(event->module) + 1));
        buffer_put_string(pending, slice_from(event->text, strlen(event->text) + 1));
    }
    (void)pthread_mutex_unlock(&monitor->lock);
    (void)uv_async_send(&monitor->async); /* fails for closing handles only */
}

/* Sets the tap to the lowest level that anybody wants. */
static void monitor_set_tap(struct monitor *monitor)
{
    enum log_level level = LOG_ERROR;

    for (const struct monitor_client *it = monitor->clients.next; it != &monitor->clients;
         it = it->next) {
        level = it->level < level ? it->level : level;
    }
    log_tap_set(monitor->count == 0 ? NULL : monitor_tap, monitor, level);
}

static void monitor_tell(struct monitor *monitor, const struct log_event *event)
{
    struct monitor_client *next;

    for (struct monitor_client *it = monitor->clients.next; it != &monitor->clients; it = next) {
        next = it->next;
        if (event->level >= it->level) {
            it->on_event(it, event);
        }
    }
}

static void monitor_tell_dropped(struct monitor *monitor, uint64_t count)
{
    struct monitor_client *next;

    for (struct monitor_client *it = monitor->clients.next; it != &monitor->clients; it = next) {
        next = it->next;
        it->on_dropped(it, count);
    }
}

static void monitor_on_async(uv_async_t *async)
{
    struct monitor *monitor = async->data;

    (void)pthread_mutex_lock(&monitor->lock);
    struct buffer events = monitor->pending;
    const uint64_t dropped = monitor->dropped;
    monitor->pending = (struct buffer){0};
    monitor->dropped = 0;
    (void)pthread_mutex_unlock(&monitor->lock);

    struct reader reader = reader_from(buffer_slice(&events));
    while (reader.at < reader.end) {
        struct log_event event;

        event.level = (enum log_level)reader_u8(&reader);
        event.when.tv_sec = (time_t)reader_u64(&reader);
        event.when.tv_nsec = (long)reader_u32(&reader);
        event.module = reader_string(&reader).data;
        event.text = reader_string(&reader).data;
        assert(!reader.failed); /* We wrote it. */
        monitor_tell(monitor, &event);
    }
    buffer_deinit(&events);
    if (dropped > 0) {
        monitor_tell_dropped(monitor, dropped);
    }
}

int monitor_new(uv_loop_t *loop, struct monitor **out)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));

    if (monitor == NULL) {
        return UV_ENOMEM;
    }
    monitor->clients.next = monitor->clients.previous = &monitor->clients;
    const int rc = uv_async_init(loop, &monitor->async, monitor_on_async);
    if (rc != 0) {
        free(monitor);
        return rc;
    }
    (void)pthread_mutex_init(&monitor->lock, NULL); /* cannot fail on Linux */
    monitor->async.data = monitor;
    uv_unref((uv_handle_t *)&monitor->async);
    *out = monitor;
    return 0;
}

static void monitor_on_closed(uv_handle_t *handle)
{
    struct monitor *monitor = handle->data;

    (void)pthread_mutex_destroy(&monitor->lock);
    buffer_deinit(&monitor->pending);
    free(monitor);
}

void monitor_free(struct monitor *monitor)
{
    if (monitor == NULL) {
        return;
    }
    monitor_on_async(&monitor->async); /* The last words. */
    while (monitor->clients.next != &monitor->clients) {
        struct monitor_client *client = monitor->clients.next;

        monitor_remove(monitor, client);
        client->on_close(client);
    }
    assert(monitor->count == 0);
    uv_close((uv_handle_t *)&monitor->async, monitor_on_closed);
}

bool monitor_add(struct monitor *monitor, struct monitor_client *client)
{
    if (monitor->count == MONITOR_CLIENTS_MAX) {
        return false;
    }
    assert(!client->added);
    client->added = true;
    client->previous = monitor->clients.previous;
    client->next = &monitor->clients;
    monitor->clients.previous->next = client;
    monitor->clients.previous = client;
    monitor->count++;
    monitor_set_tap(monitor);
    return true;
}

void monitor_remove(struct monitor *monitor, struct monitor_client *client)
{
    if (client->added) {
        client->added = false;
        client->next->previous = client->previous;
        client->previous->next = client->next;
        monitor->count--;
        monitor_set_tap(monitor);
    }
}

size_t monitor_count(const struct monitor *monitor)
{
    return monitor == NULL ? 0 : monitor->count;
}
