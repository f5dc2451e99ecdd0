#include "session/timers.h"

#include <assert.h>
#include <stdlib.h>

#include "kv/store.h"

/* A binary heap ordered by due time holds the timers; an open-addressing table finds a timer's
 * place in the heap by session. Both grow by doubling and never shrink. */

enum {
    TIMERS_CAPACITY_MIN = 64, /* timers; a power of two */
    TIMERS_SLOTS_PER_TIMER = 2,
};

struct session_timer {
    struct uuid id;
    uint64_t due_ms;
    size_t slot; /* where the table points back from */
};

struct session_timers {
    struct session_timer *heap;
    size_t count;
    size_t capacity;
    size_t *slots; /* place in the heap + 1; 0: free */
    size_t slot_count;
};

int session_timers_new(struct session_timers **out)
{
    struct session_timers *timers = calloc(1, sizeof(*timers));

    if (timers == NULL) {
        return STORE_ENOMEM;
    }
    *out = timers;
    return STORE_OK;
}

void session_timers_free(struct session_timers *timers)
{
    if (timers != NULL) {
        free(timers->heap);
        free(timers->slots);
        free(timers);
    }
}

void session_timers_clear(struct session_timers *timers)
{
    timers->count = 0;
    if (timers->slots != NULL) {
        memset(timers->slots, 0, timers->slot_count * sizeof(*timers->slots));
    }
}

/* --- the table --- */

/* Session ids are drawn by servers, but a command may carry any: all bytes are mixed. */
static size_t timers_slot_home(const struct session_timers *timers, const struct uuid *id)
{
    uint64_t low;
    uint64_t high;

    memcpy(&low, id->bytes, sizeof(low));
    memcpy(&high, id->bytes + sizeof(low), sizeof(high));
    uint64_t hash = (low ^ (high << 32 | high >> 32)) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 32;
    return (size_t)hash & (timers->slot_count - 1);
}

/* The slot of a session, or the free one where it would go. */
static size_t timers_slot_find(const struct session_timers *timers, const struct uuid *id)
{
    size_t slot = timers_slot_home(timers, id);

    assert(timers->count < timers->slot_count); /* Or the search would not end. */
    while (timers->slots[slot] != 0 && !uuid_equal(&timers->heap[timers->slots[slot] - 1].id, id)) {
        slot = (slot + 1) & (timers->slot_count - 1);
    }
    return slot;
}

/* Frees a slot, and moves those that had to go past it back, so that no search ends too early. */
static void timers_slot_free(struct session_timers *timers, size_t slot)
{
    const size_t mask = timers->slot_count - 1;
    size_t hole = slot;
    size_t next = slot;

    timers->slots[hole] = 0;
    for (;;) {
        next = (next + 1) & mask;
        if (timers->slots[next] == 0) {
            return;
        }
        struct session_timer *timer = &timers->heap[timers->slots[next] - 1];
        const size_t home = timers_slot_home(timers, &timer->id);
        if (((next - home) & mask) >= ((next - hole) & mask)) {
            timers->slots[hole] = timers->slots[next];
            timers->slots[next] = 0;
            timer->slot = hole;
            hole = next;
        }
    }
}

static int timers_grow(struct session_timers *timers)
{
    const size_t capacity = timers->capacity == 0 ? TIMERS_CAPACITY_MIN : timers->capacity * 2;
    const size_t slot_count = capacity * TIMERS_SLOTS_PER_TIMER;

    struct session_timer *heap = realloc(timers->heap, capacity * sizeof(*heap));
    if (heap == NULL) {
        return STORE_ENOMEM;
    }
    timers->heap = heap;
    size_t *slots = calloc(slot_count, sizeof(*slots));
    if (slots == NULL) {
        return STORE_ENOMEM;
    }
    free(timers->slots);
    timers->slots = slots;
    timers->slot_count = slot_count;
    timers->capacity = capacity;
    for (size_t i = 0; i < timers->count; i++) {
        const size_t slot = timers_slot_find(timers, &heap[i].id);
        slots[slot] = i + 1;
        heap[i].slot = slot;
    }
    return STORE_OK;
}

/* --- the heap --- */

static void timers_place(struct session_timers *timers, size_t position, struct session_timer timer)
{
    assert(position < timers->count);
    timers->heap[position] = timer;
    timers->slots[timer.slot] = position + 1;
}

/* Puts `timer` where it belongs, starting from a free position. */
static void timers_sift(struct session_timers *timers, size_t position, struct session_timer timer)
{
    while (position > 0 && timer.due_ms < timers->heap[(position - 1) / 2].due_ms) {
        timers_place(timers, position, timers->heap[(position - 1) / 2]);
        position = (position - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * position + 1;
        if (child >= timers->count) {
            break;
        }
        if (child + 1 < timers->count &&
            timers->heap[child + 1].due_ms < timers->heap[child].due_ms) {
            child++;
        }
        if (timer.due_ms <= timers->heap[child].due_ms) {
            break;
        }
        timers_place(timers, position, timers->heap[child]);
        position = child;
    }
    timers_place(timers, position, timer);
}

static void timers_remove_at(struct session_timers *timers, size_t position)
{
    assert(position < timers->count);
    timers_slot_free(timers, timers->heap[position].slot);
    timers->count--;
    if (position < timers->count) {
        timers_sift(timers, position, timers->heap[timers->count]);
    }
}

/* --- use --- */

int session_timers_retry(struct session_timers *timers, const struct uuid *id, uint64_t due_ms)
{
    if (timers->count == timers->capacity) {
        const int rc = timers_grow(timers);
        if (rc != 0) {
            return rc;
        }
    }
    const size_t slot = timers_slot_find(timers, id);
    const struct session_timer timer = {.id = *id, .due_ms = due_ms, .slot = slot};
    size_t position;

    if (timers->slots[slot] != 0) {
        position = timers->slots[slot] - 1;
    } else {
        position = timers->count++;
    }
    timers_sift(timers, position, timer);
    return STORE_OK;
}

int session_timers_reset(struct session_timers *timers, const struct uuid *id, uint64_t ttl_ms,
                         uint64_t now_ms)
{
    if (ttl_ms == 0) {
        session_timers_remove(timers, id);
        return STORE_OK;
    }
    /* A TTL that is too long for the clock never ends. */
    const uint64_t wait_ms = ttl_ms > UINT64_MAX / 2 ? UINT64_MAX : 2 * ttl_ms;
    const uint64_t due_ms = wait_ms > UINT64_MAX - now_ms ? UINT64_MAX : now_ms + wait_ms;

    return session_timers_retry(timers, id, due_ms);
}

void session_timers_remove(struct session_timers *timers, const struct uuid *id)
{
    if (timers->count == 0) {
        return;
    }
    const size_t slot = timers_slot_find(timers, id);
    if (timers->slots[slot] != 0) {
        timers_remove_at(timers, timers->slots[slot] - 1);
    }
}

bool session_timers_has(const struct session_timers *timers, const struct uuid *id)
{
    return timers->count > 0 && timers->slots[timers_slot_find(timers, id)] != 0;
}

uint64_t session_timers_next_ms(const struct session_timers *timers)
{
    return timers->count == 0 ? UINT64_MAX : timers->heap[0].due_ms;
}

bool session_timers_expire(struct session_timers *timers, uint64_t now_ms, struct uuid *id)
{
    if (timers->count == 0 || timers->heap[0].due_ms > now_ms) {
        return false;
    }
    *id = timers->heap[0].id;
    timers_remove_at(timers, 0);
    return true;
}

void session_timers_extend(struct session_timers *timers, uint64_t gap_ms)
{
    /* The order stays: all move alike, and what would overflow meets at the end. */
    for (size_t i = 0; i < timers->count; i++) {
        uint64_t *due_ms = &timers->heap[i].due_ms;
        *due_ms = *due_ms > UINT64_MAX - gap_ms ? UINT64_MAX : *due_ms + gap_ms;
    }
}

size_t session_timers_count(const struct session_timers *timers)
{
    return timers->count;
}
