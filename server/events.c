#include "server/events.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_LTIME_LAST (UINT64_MAX / 2) /* a clock beyond it is nobody's */

struct events_kept {
    struct buffer bytes;
    struct event event; /* borrows from `bytes` */
};

struct events_sent {
    struct buffer bytes;
    uint64_t at_ms;
};

struct events {
    struct events_handlers handlers;
    void (*spread)(void *context, struct slice bytes);
    void *spread_context;
    uint64_t clock; /* Lamport's: the highest ltime seen */
    struct events_kept kept[EVENTS_KEPT_MAX];
    uint64_t kept_total; /* ever; the newest is at (kept_total - 1) % EVENTS_KEPT_MAX */
    struct events_sent sent[EVENTS_SENT_MAX];
    uint64_t sent_total;
};

struct events *events_new(const struct events_handlers *handlers)
{
    struct events *events = calloc(1, sizeof(*events));

    if (events != NULL) {
        events->handlers = *handlers;
        events->clock = 1; /* So that the first event has the time that it has in Consul. */
    }
    return events;
}

void events_free(struct events *events)
{
    if (events == NULL) {
        return;
    }
    for (size_t i = 0; i < EVENTS_KEPT_MAX; i++) {
        buffer_deinit(&events->kept[i].bytes);
    }
    for (size_t i = 0; i < EVENTS_SENT_MAX; i++) {
        buffer_deinit(&events->sent[i].bytes);
    }
    free(events);
}

void events_set_spread(struct events *events, void (*spread)(void *context, struct slice bytes),
                       void *context)
{
    events->spread = spread;
    events->spread_context = context;
}

void events_encode(struct buffer *out, const struct event *event)
{
    buffer_append(out, event->id.bytes, sizeof(event->id.bytes));
    buffer_put_u64(out, event->ltime);
    buffer_put_string(out, event->name);
    buffer_put_string(out, event->payload);
    buffer_put_string(out, event->node_filter);
    buffer_put_string(out, event->service_filter);
    buffer_put_string(out, event->tag_filter);
}

bool events_decode(struct slice bytes, struct event *out)
{
    struct reader reader = reader_from(bytes);
    const struct slice id = reader_bytes(&reader, sizeof(out->id.bytes));
    struct slice *const texts[] = {&out->name, &out->payload, &out->node_filter,
                                   &out->service_filter, &out->tag_filter};

    out->ltime = reader_u64(&reader);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        *texts[i] = reader_string(&reader);
        if (texts[i]->size > EVENTS_FIELD_BYTES_MAX) {
            return false;
        }
    }
    /* A clock near its end would stop everybody's. */
    if (!reader_done(&reader) || out->ltime == 0 || out->ltime > EVENTS_LTIME_LAST ||
        out->name.size == 0) {
        return false;
    }
    memcpy(out->id.bytes, id.data, sizeof(out->id.bytes));
    return true;
}

/* Takes the bytes over. */
static void events_keep(struct events *events, struct buffer *bytes)
{
    struct events_kept *kept = &events->kept[events->kept_total % EVENTS_KEPT_MAX];

    buffer_deinit(&kept->bytes);
    kept->bytes = *bytes;
    *bytes = (struct buffer){0};
    const bool decoded = events_decode(buffer_slice(&kept->bytes), &kept->event);
    assert(decoded); /* It was, or we made it. */
    (void)decoded;
    events->kept_total++;
    events->handlers.on_event(events->handlers.context);
}

static bool events_is_meant(const struct events *events, const struct event *event)
{
    return events->handlers.is_meant == NULL ||
           events->handlers.is_meant(events->handlers.context, event);
}

bool events_fire(struct events *events, struct event *event, uint64_t now_ms)
{
    struct buffer bytes = {0};
    struct events_sent *sent = &events->sent[events->sent_total % EVENTS_SENT_MAX];

    /* At the end, where a stranger may have put it, the clock stands still. */
    if (events->clock < EVENTS_LTIME_LAST) {
        events->clock++;
    }
    event->ltime = events->clock;
    events_encode(&bytes, event);
    buffer_clear(&sent->bytes);
    buffer_append_slice(&sent->bytes, buffer_slice(&bytes));
    if (bytes.failed || sent->bytes.failed) {
        buffer_deinit(&bytes);
        buffer_deinit(&sent->bytes);
        return false;
    }
    sent->at_ms = now_ms;
    events->sent_total++;
    if (events->spread != NULL) {
        events->spread(events->spread_context, buffer_slice(&bytes));
    }
    if (events_is_meant(events, event)) {
        events_keep(events, &bytes);
    }
    buffer_deinit(&bytes);
    return true;
}

static bool events_knows(const struct events *events, const struct uuid *id)
{
    for (uint64_t i = 0; i < events_count(events); i++) {
        if (uuid_equal(&events_at(events, i)->id, id)) {
            return true;
        }
    }
    return false;
}

void events_receive(struct events *events, struct slice bytes)
{
    struct event event;
    struct buffer copy = {0};

    if (events == NULL || !events_decode(bytes, &event) || events_knows(events, &event.id)) {
        return;
    }
    events->clock = event.ltime > events->clock ? event.ltime : events->clock;
    if (!events_is_meant(events, &event)) {
        return;
    }
    buffer_append_slice(&copy, bytes);
    if (!copy.failed) {
        events_keep(events, &copy);
    }
    buffer_deinit(&copy);
}

void events_replay(struct events *events, uint64_t now_ms,
                   void (*send)(void *context, struct slice bytes), void *context)
{
    if (events == NULL) {
        return;
    }
    const uint64_t first =
        events->sent_total > EVENTS_SENT_MAX ? events->sent_total - EVENTS_SENT_MAX : 0;

    for (uint64_t i = first; i < events->sent_total; i++) {
        const struct events_sent *sent = &events->sent[i % EVENTS_SENT_MAX];

        if (now_ms - sent->at_ms <= EVENTS_SENT_MS_MAX) {
            send(context, buffer_slice(&sent->bytes));
        }
    }
}

uint64_t events_count(const struct events *events)
{
    return events->kept_total < EVENTS_KEPT_MAX ? events->kept_total : EVENTS_KEPT_MAX;
}

const struct event *events_at(const struct events *events, uint64_t position)
{
    const uint64_t first = events->kept_total - events_count(events);

    assert(position < events_count(events));
    return &events->kept[(first + position) % EVENTS_KEPT_MAX].event;
}
