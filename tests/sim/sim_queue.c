/* Chance, the queue of events, the trace. */

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

/* --- chance --- */

uint64_t sim_random(struct sim *sim)
{
    sim->random += 0x9E3779B97F4A7C15U;
    uint64_t mixed = sim->random;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
    return mixed ^ (mixed >> 31);
}

uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high)
{
    return low + sim_random(sim) % (high - low + 1);
}

bool sim_chance(struct sim *sim, unsigned per_10000)
{
    return sim_random(sim) % 10000 < per_10000;
}

/* Any server, but more often one that leads: it has most to lose. */
size_t sim_victim(struct sim *sim)
{
    const size_t node = sim_between(sim, 0, sim->parameters.node_count - 1);

    if (sim_chance(sim, 5000)) {
        /* The first one after a random server: there may be two, one of them deposed. */
        for (size_t i = 0; i < sim->parameters.node_count; i++) {
            const size_t other = (node + i) % sim->parameters.node_count;
            if (sim->nodes[other].raft != NULL && sim->nodes[other].role == RAFT_LEADER) {
                return other;
            }
        }
    }
    return node;
}

void *sim_grow(void *array, size_t *capacity, size_t needed, size_t item_bytes)
{
    if (needed <= *capacity) {
        return array;
    }
    *capacity = needed * 2 + 16;
    void *grown = realloc(array, *capacity * item_bytes);
    if (grown == NULL) {
        fputs("out of memory\n", stderr);
        exit(3);
    }
    return grown;
}

void sim_trace(const struct sim *sim, size_t node, const char *word, const char *format, ...)
{
    if (!sim->options.verbose) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    printf("%8" PRIu64 "  %zu  %-10s ", sim->now_ms, node + 1, word);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

/* --- queue: a binary heap, equal times in the order in which they were scheduled --- */

static bool sim_event_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void sim_heap_swap(struct sim *sim, size_t a, size_t b)
{
    const struct sim_event event = sim->heap[a];

    sim->heap[a] = sim->heap[b];
    sim->heap[b] = event;
}

void sim_schedule(struct sim *sim, const struct sim_event *event)
{
    sim->heap = sim_grow(sim->heap, &sim->heap_capacity, sim->heap_count + 1, sizeof(*sim->heap));
    size_t at = sim->heap_count++;
    sim->heap[at] = *event;
    sim->heap[at].order = sim->next_order++;
    while (at > 0 && sim_event_before(&sim->heap[at], &sim->heap[(at - 1) / 2])) {
        sim_heap_swap(sim, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

struct sim_event sim_queue_pop(struct sim *sim)
{
    const struct sim_event first = sim->heap[0];

    sim->heap[0] = sim->heap[--sim->heap_count];
    size_t at = 0;
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < sim->heap_count; child++) {
            if (sim_event_before(&sim->heap[child], &sim->heap[least])) {
                least = child;
            }
        }
        if (least == at) {
            return first;
        }
        sim_heap_swap(sim, at, least);
        at = least;
    }
}
