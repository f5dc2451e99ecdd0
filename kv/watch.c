#include "kv/watch.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

/* A slot is one thing that is waited for: a topic's key, or a topic's prefix of keys. Slots live in
 * one hash table as long as somebody waits there. A changed key is looked up as a key once, and as
 * a prefix once for each length of prefix that is waited for.
 *
 * Waking moves all waiters concerned into one list first, and calls them then. What a callback adds
 * goes to the table, not into that list, so nobody is called twice; what it removes is taken out of
 * either, so it may remove anybody. */

enum { WATCH_BUCKETS_MIN = 64 }; /* a power of two */

/* A ring of waiters, oldest first. */
struct watch_list {
    struct watch *first;
};

struct watch_slot {
    struct watch_list list;  /* must come first: a waiter's `slot` points at it; never empty */
    struct watch_slot *next; /* of the bucket */
    uint64_t hash;
    enum store_topic topic;
    bool prefix;
    size_t key_size;
    char key[];
};

/* A length that prefixes of a topic have, and how many slots are of it. */
struct watch_length {
    size_t size;
    size_t slot_count;
};

/* The lengths of one topic's prefixes, ascending. */
struct watch_lengths {
    struct watch_length *items;
    size_t count;
    size_t capacity;
};

struct watch_table {
    struct watch_slot **buckets;
    size_t bucket_count;
    size_t slot_count;
    size_t watch_count; /* those about to be called included */
    struct watch_lengths lengths[STORE_TOPIC_COUNT];
    struct watch_list waking; /* taken out of their slots, not called yet */
};

/* --- rings --- */

static void watch_list_append(struct watch_list *list, struct watch *watch)
{
    if (list->first == NULL) {
        watch->next = watch;
        watch->previous = watch;
        list->first = watch;
    } else {
        struct watch *last = list->first->previous;
        watch->next = list->first;
        watch->previous = last;
        last->next = watch;
        list->first->previous = watch;
    }
    watch->slot = list;
}

static void watch_list_remove(struct watch_list *list, struct watch *watch)
{
    assert(watch->slot == list);
    if (watch->next == watch) {
        assert(list->first == watch);
        list->first = NULL;
    } else {
        watch->previous->next = watch->next;
        watch->next->previous = watch->previous;
        if (list->first == watch) {
            list->first = watch->next;
        }
    }
    watch->next = NULL;
    watch->previous = NULL;
    watch->slot = NULL;
}

/* --- hashes --- */

/* Starts from the table's address, which differs from run to run: nobody outside can choose keys
 * that all meet in one bucket. (FNV-1a.) */
static uint64_t watch_hash_begin(const struct watch_table *table)
{
    return UINT64_C(0xcbf29ce484222325) ^ (uint64_t)(uintptr_t)table;
}

static uint64_t watch_hash_bytes(uint64_t hash, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (uint8_t)bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint64_t watch_hash_end(uint64_t hash, enum store_topic topic, bool prefix)
{
    hash = (hash ^ (uint64_t)topic << 1 ^ (prefix ? 1 : 0)) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

/* --- the lengths of prefixes --- */

static size_t watch_lengths_position(const struct watch_lengths *lengths, size_t size)
{
    size_t low = 0;
    size_t high = lengths->count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (lengths->items[middle].size < size) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int watch_lengths_add(struct watch_lengths *lengths, size_t size)
{
    const size_t at = watch_lengths_position(lengths, size);

    if (at < lengths->count && lengths->items[at].size == size) {
        lengths->items[at].slot_count++;
        return STORE_OK;
    }
    if (lengths->count == lengths->capacity) {
        const size_t capacity = lengths->capacity == 0 ? 8 : lengths->capacity * 2;
        struct watch_length *items = realloc(lengths->items, capacity * sizeof(*items));
        if (items == NULL) {
            return STORE_ENOMEM;
        }
        lengths->items = items;
        lengths->capacity = capacity;
    }
    memmove(&lengths->items[at + 1], &lengths->items[at],
            (lengths->count - at) * sizeof(*lengths->items));
    lengths->items[at] = (struct watch_length){.size = size, .slot_count = 1};
    lengths->count++;
    return STORE_OK;
}

static void watch_lengths_remove(struct watch_lengths *lengths, size_t size)
{
    const size_t at = watch_lengths_position(lengths, size);

    assert(at < lengths->count);
    assert(lengths->items[at].size == size);
    lengths->items[at].slot_count--;
    if (lengths->items[at].slot_count == 0) {
        lengths->count--;
        memmove(&lengths->items[at], &lengths->items[at + 1],
                (lengths->count - at) * sizeof(*lengths->items));
    }
}

/* --- slots --- */

/* The link that points at the slot, or at NULL where it would go. */
static struct watch_slot **watch_slot_find(struct watch_table *table, uint64_t hash,
                                           enum store_topic topic, bool prefix, struct slice key)
{
    struct watch_slot **link = &table->buckets[hash & (table->bucket_count - 1)];

    while (*link != NULL) {
        const struct watch_slot *slot = *link;
        if (slot->hash == hash && slot->topic == topic && slot->prefix == prefix &&
            slice_equal(slice_from(slot->key, slot->key_size), key)) {
            break;
        }
        link = &(*link)->next;
    }
    return link;
}

/* Twice as many buckets. Without memory the chains get longer, no more. */
static void watch_table_grow(struct watch_table *table)
{
    const size_t bucket_count = table->bucket_count * 2;
    struct watch_slot **buckets = calloc(bucket_count, sizeof(struct watch_slot *));

    if (buckets == NULL) {
        return;
    }
    for (size_t i = 0; i < table->bucket_count; i++) {
        struct watch_slot *slot = table->buckets[i];
        while (slot != NULL) {
            struct watch_slot *next = slot->next;
            struct watch_slot **bucket = &buckets[slot->hash & (bucket_count - 1)];
            slot->next = *bucket;
            *bucket = slot;
            slot = next;
        }
    }
    free(table->buckets);
    table->buckets = buckets;
    table->bucket_count = bucket_count;
}

static struct watch_slot *watch_slot_new(struct watch_table *table, uint64_t hash,
                                         enum store_topic topic, bool prefix, struct slice key)
{
    struct watch_slot *slot = malloc(sizeof(*slot) + key.size);

    if (slot == NULL) {
        return NULL;
    }
    if (prefix && watch_lengths_add(&table->lengths[topic], key.size) != STORE_OK) {
        free(slot);
        return NULL;
    }
    *slot =
        (struct watch_slot){.hash = hash, .topic = topic, .prefix = prefix, .key_size = key.size};
    if (key.size > 0) {
        memcpy(slot->key, key.data, key.size);
    }
    if (table->slot_count >= table->bucket_count) {
        watch_table_grow(table);
    }
    struct watch_slot **bucket = &table->buckets[hash & (table->bucket_count - 1)];
    slot->next = *bucket;
    *bucket = slot;
    table->slot_count++;
    return slot;
}

static void watch_slot_free(struct watch_table *table, struct watch_slot *slot)
{
    struct watch_slot **link = &table->buckets[slot->hash & (table->bucket_count - 1)];

    assert(slot->list.first == NULL);
    while (*link != slot) {
        assert(*link != NULL);
        link = &(*link)->next;
    }
    *link = slot->next;
    if (slot->prefix) {
        watch_lengths_remove(&table->lengths[slot->topic], slot->key_size);
    }
    table->slot_count--;
    free(slot);
}

/* --- life --- */

int watch_table_new(struct watch_table **out)
{
    struct watch_table *table = calloc(1, sizeof(*table));

    if (table == NULL) {
        return STORE_ENOMEM;
    }
    table->bucket_count = WATCH_BUCKETS_MIN;
    table->buckets = calloc(table->bucket_count, sizeof(struct watch_slot *));
    if (table->buckets == NULL) {
        free(table);
        return STORE_ENOMEM;
    }
    *out = table;
    return STORE_OK;
}

void watch_table_free(struct watch_table *table)
{
    if (table == NULL) {
        return;
    }
    assert(table->watch_count == 0);
    assert(table->slot_count == 0);
    for (size_t i = 0; i < STORE_TOPIC_COUNT; i++) {
        free(table->lengths[i].items);
    }
    free(table->buckets);
    free(table);
}

size_t watch_table_count(const struct watch_table *table)
{
    return table->watch_count;
}

/* --- waiting --- */

static int watch_add(struct watch_table *table, struct watch *watch, enum store_topic topic,
                     bool prefix, struct slice key)
{
    uint64_t hash = watch_hash_begin(table);

    assert(watch->slot == NULL);
    assert(topic < STORE_TOPIC_COUNT);
    hash = watch_hash_end(watch_hash_bytes(hash, key.data, key.size), topic, prefix);
    struct watch_slot *slot = *watch_slot_find(table, hash, topic, prefix, key);
    if (slot == NULL) {
        slot = watch_slot_new(table, hash, topic, prefix, key);
        if (slot == NULL) {
            return STORE_ENOMEM;
        }
    }
    watch_list_append(&slot->list, watch);
    table->watch_count++;
    return STORE_OK;
}

int watch_add_key(struct watch_table *table, struct watch *watch, enum store_topic topic,
                  struct slice key)
{
    return watch_add(table, watch, topic, false, key);
}

int watch_add_prefix(struct watch_table *table, struct watch *watch, enum store_topic topic,
                     struct slice prefix)
{
    return watch_add(table, watch, topic, true, prefix);
}

void watch_remove(struct watch_table *table, struct watch *watch)
{
    struct watch_list *list = watch->slot;

    if (list == NULL) {
        return;
    }
    assert(table->watch_count > 0);
    watch_list_remove(list, watch);
    table->watch_count--;
    if (list != &table->waking && list->first == NULL) {
        watch_slot_free(table, (struct watch_slot *)list);
    }
}

/* --- waking --- */

/* Moves a slot's waiters to those to be called; the slot goes. */
static void watch_slot_wake(struct watch_table *table, struct watch_slot *slot)
{
    while (slot->list.first != NULL) {
        struct watch *watch = slot->list.first;
        watch_list_remove(&slot->list, watch);
        watch_list_append(&table->waking, watch);
    }
    watch_slot_free(table, slot);
}

static void watch_table_wake_slot(struct watch_table *table, uint64_t hash, enum store_topic topic,
                                  bool prefix, struct slice key)
{
    hash = watch_hash_end(hash, topic, prefix);
    struct watch_slot *slot = *watch_slot_find(table, hash, topic, prefix, key);
    if (slot != NULL) {
        watch_slot_wake(table, slot);
    }
}

static void watch_table_wake_key(struct watch_table *table, enum store_topic topic,
                                 struct slice key)
{
    const struct watch_lengths *lengths = &table->lengths[topic];
    uint64_t hash = watch_hash_begin(table);
    size_t hashed = 0;
    size_t i = 0;

    /* Ascending, so that each byte of the key is hashed once for all of them. */
    while (i < lengths->count && lengths->items[i].size <= key.size) {
        const size_t size = lengths->items[i].size;
        hash = watch_hash_bytes(hash, key.data + hashed, size - hashed);
        hashed = size;
        watch_table_wake_slot(table, hash, topic, true, slice_from(key.data, size));
        /* If that was the last slot of this length, the next one has moved here. */
        if (i < lengths->count && lengths->items[i].size == size) {
            i++;
        }
    }
    hash = watch_hash_bytes(hash, key.data + hashed, key.size - hashed);
    watch_table_wake_slot(table, hash, topic, false, key);
}

static void watch_table_call(struct watch_table *table)
{
    while (table->waking.first != NULL) {
        struct watch *watch = table->waking.first;
        watch_list_remove(&table->waking, watch);
        table->watch_count--;
        watch->on_wake(watch);
    }
}

void watch_table_wake(struct watch_table *table, const struct store_txn *committed)
{
    struct reader it = store_changes_begin(committed);
    enum store_topic topic;
    struct slice key;

    while (table->slot_count > 0 && store_changes_next(&it, &topic, &key)) {
        watch_table_wake_key(table, topic, key);
    }
    watch_table_call(table);
}

void watch_table_wake_all(struct watch_table *table)
{
    for (size_t i = 0; i < table->bucket_count; i++) {
        struct watch_slot *slot = table->buckets[i];
        while (slot != NULL) {
            struct watch_slot *next = slot->next;
            watch_slot_wake(table, slot);
            slot = next;
        }
    }
    assert(table->slot_count == 0);
    watch_table_call(table);
}
