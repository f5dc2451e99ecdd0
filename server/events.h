#ifndef SERVER_EVENTS_H
#define SERVER_EVENTS_H

/* User events (/v1/event): those that this server remembers, and their way between servers. An
 * event goes to every server that is connected, and once more to one that connects within a minute;
 * each decides by the event's filters whether it is meant. Not in the log: an event may be fired
 * without a leader, and is forgotten with the process, as in Consul. All on the loop. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "kv/uuid.h"

enum {
    EVENTS_KEPT_MAX = 256,          /* events remembered, as in Consul */
    EVENTS_SENT_MAX = 64,           /* own events that are told to servers that connect late, */
    EVENTS_SENT_MS_MAX = 60 * 1000, /* and how old they may be */
    EVENTS_FIELD_BYTES_MAX = 512,   /* of each of an event's texts, as it came from a server */
};

struct event {
    struct uuid id;
    uint64_t ltime; /* Lamport's clock of all servers */
    struct slice name;
    struct slice payload;
    struct slice node_filter, service_filter, tag_filter;
};

struct events;

struct events_handlers {
    void *context;
    /* Whether the event's filters name this server. NULL: always. */
    bool (*is_meant)(void *context, const struct event *event);
    /* The list has grown. */
    void (*on_event)(void *context);
};

/* NULL without memory. */
struct events *events_new(const struct events_handlers *handlers);
void events_free(struct events *events); /* NULL is accepted */

/* Who sends an event (its bytes, for events_receive there) to all other servers. */
void events_set_spread(struct events *events, void (*spread)(void *context, struct slice bytes),
                       void *context);

/* Gives the event its ltime, passes it on, and keeps it if this server is meant. Borrows all.
 * False: no memory. */
bool events_fire(struct events *events, struct event *event, uint64_t now_ms);
/* One that another server fired; bytes are untrusted. NULL is accepted. */
void events_receive(struct events *events, struct slice bytes);
/* A server has connected: hands what it may have missed to `send`. NULL is accepted. */
void events_replay(struct events *events, uint64_t now_ms,
                   void (*send)(void *context, struct slice bytes), void *context);

/* What is remembered, oldest first; valid until the next event. */
uint64_t events_count(const struct events *events);
const struct event *events_at(const struct events *events, uint64_t position);

/* For tests. */
void events_encode(struct buffer *out, const struct event *event);
bool events_decode(struct slice bytes, struct event *out);

#endif
