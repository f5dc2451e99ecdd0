#ifndef KV_WATCH_H
#define KV_WATCH_H

/* Who waits for what: blocking queries park here and are woken by the commits that touch what they
 * asked for, exactly those. A waiter is an intrusive struct of the caller; no allocation per wait
 * beyond a hash slot. Not thread-safe: the loop's alone. */

#include <stdbool.h>
#include <stddef.h>

#include "kv/slice.h"
#include "kv/store.h"

struct watch_table;

/* Zeroed but for on_wake to begin with; in place while it waits. */
struct watch {
    /* Called once per wake-up, from watch_table_wake, after the waiter was removed from the table.
     * It may add itself again (it is not called again in the same wake) and may remove any other
     * waiter. */
    void (*on_wake)(struct watch *watch);
    /* The table's. */
    struct watch *next, *previous;
    void *slot; /* NULL: not waiting */
};

int watch_table_new(struct watch_table **out);    /* STORE_ENOMEM */
void watch_table_free(struct watch_table *table); /* no waiter may be left */

/* Waits for a change of exactly `key` of `topic` (empty key: for topics that are a whole table).
 * Key is copied. */
int watch_add_key(struct watch_table *table, struct watch *watch, enum store_topic topic,
                  struct slice key);
/* Waits for any change of a key that starts with `prefix`. */
int watch_add_prefix(struct watch_table *table, struct watch *watch, enum store_topic topic,
                     struct slice prefix);
/* No effect when not waiting. */
void watch_remove(struct watch_table *table, struct watch *watch);

/* Wakes the waiters that the committed transaction's notes touch, each once. */
void watch_table_wake(struct watch_table *table, const struct store_txn *committed);
/* Wakes everybody (the state was replaced as a whole). */
void watch_table_wake_all(struct watch_table *table);
size_t watch_table_count(const struct watch_table *table);

#endif
