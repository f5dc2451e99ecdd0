/* The window of recent entries, the chunks that hold their bytes, and the runs of terms. All of it
 * belongs to the loop. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raft/wal_internal.h"

void wal_chunk_list_push(struct wal_chunk_list *list, struct wal_chunk *chunk)
{
    chunk->next = NULL;
    if (list->tail == NULL) {
        list->head = chunk;
    } else {
        list->tail->next = chunk;
    }
    list->tail = chunk;
}

void wal_chunk_list_free(struct wal_chunk_list *list)
{
    while (list->head != NULL) {
        struct wal_chunk *chunk = list->head;
        list->head = chunk->next;
        free(chunk);
    }
    list->tail = NULL;
}

static struct wal_slot *wal_window_slot(const struct wal_window *window, raft_index index)
{
    assert(window->capacity > 0);
    return &window->slots[index & (window->capacity - 1)];
}

static size_t wal_slot_bytes(const struct wal_slot *slot)
{
    return (size_t)wal_record_span(wal_record_head(slot->chunk->bytes + slot->offset).size);
}

int wal_window_reserve(struct wal_window *window, size_t more)
{
    size_t needed = window->count + more;

    if (needed <= window->capacity) {
        return WAL_OK;
    }
    struct wal_window grown = *window;
    grown.capacity = window->capacity == 0 ? 1024 : window->capacity;
    while (grown.capacity < needed) {
        grown.capacity *= 2;
    }
    grown.slots = malloc(grown.capacity * sizeof(*grown.slots));
    if (grown.slots == NULL) {
        return WAL_ENOMEM;
    }
    for (size_t i = 0; i < window->count; i++) {
        *wal_window_slot(&grown, window->first + i) = *wal_window_slot(window, window->first + i);
    }
    free(window->slots);
    *window = grown;
    return WAL_OK;
}

void wal_window_push(struct wal_window *window, raft_index index, struct wal_chunk *chunk,
                     uint32_t offset)
{
    assert(window->count < window->capacity);
    if (window->count == 0) {
        window->first = index;
    }
    assert(index == window->first + window->count);
    struct wal_slot *slot = wal_window_slot(window, index);
    *slot = (struct wal_slot){.chunk = chunk, .offset = offset};
    chunk->slots++;
    window->count++;
    window->bytes += wal_slot_bytes(slot);
}

/* Lets go of an entry's bytes; the chunk is freed with its last entry, if the writer is done. */
static void wal_window_release(struct wal_window *window, struct wal_slot *slot)
{
    struct wal_chunk *chunk = slot->chunk;
    size_t bytes = wal_slot_bytes(slot);

    assert(chunk->slots > 0);
    assert(window->bytes >= bytes);
    window->bytes -= bytes;
    chunk->slots--;
    slot->chunk = NULL;
    if (chunk->slots == 0 && chunk->durable) {
        free(chunk);
    }
}

void wal_window_truncate(struct wal_window *window, raft_index from)
{
    while (window->count > 0 && window->first + window->count - 1 >= from) {
        wal_window_release(window, wal_window_slot(window, window->first + window->count - 1));
        window->count--;
    }
}

void wal_window_pop(struct wal_window *window)
{
    assert(window->count > 0);
    wal_window_release(window, wal_window_slot(window, window->first));
    window->first++;
    window->count--;
}

bool wal_window_find(const struct wal_window *window, raft_index index, struct raft_entry *out)
{
    if (window->count == 0 || index < window->first || index - window->first >= window->count) {
        return false;
    }
    const struct wal_slot *slot = wal_window_slot(window, index);
    const uint8_t *bytes = slot->chunk->bytes + slot->offset;
    struct wal_record record = wal_record_head(bytes);
    assert(record.type == WAL_RECORD_ENTRY);
    assert(record.index == index);
    *out = (struct raft_entry){
        .index = index,
        .term = record.term,
        .type = (enum raft_entry_type)record.entry_type,
        .data = bytes + WAL_RECORD_BYTES,
        .size = record.size,
    };
    return true;
}

void wal_window_deinit(struct wal_window *window)
{
    while (window->count > 0) {
        wal_window_pop(window);
    }
    free(window->slots);
    *window = (struct wal_window){0};
}

int wal_runs_reserve(struct wal *wal, size_t more)
{
    if (wal->run_count + more <= wal->run_capacity) {
        return WAL_OK;
    }
    size_t capacity = wal->run_capacity == 0 ? 16 : wal->run_capacity;
    while (capacity < wal->run_count + more) {
        capacity *= 2;
    }
    struct raft_term_run *runs = realloc(wal->runs, capacity * sizeof(*runs));
    if (runs == NULL) {
        return WAL_ENOMEM;
    }
    wal->runs = runs;
    wal->run_capacity = capacity;
    return WAL_OK;
}

void wal_runs_push(struct wal *wal, raft_index index, raft_term term)
{
    if (wal->run_count > 0 && wal->runs[wal->run_count - 1].term == term) {
        return;
    }
    assert(wal->run_count < wal->run_capacity);
    wal->runs[wal->run_count++] = (struct raft_term_run){.first = index, .term = term};
}

void wal_runs_truncate(struct wal *wal, raft_index from)
{
    while (wal->run_count > 0 && wal->runs[wal->run_count - 1].first >= from) {
        wal->run_count--;
    }
}

raft_term wal_runs_term_at(const struct wal *wal, raft_index index)
{
    size_t low = 0;
    size_t high = wal->run_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (wal->runs[middle].first <= index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? wal->prev_term : wal->runs[low - 1].term;
}
