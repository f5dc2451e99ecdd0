#ifndef TESTS_UNIT_KV_STORY_H
#define TESTS_UNIT_KV_STORY_H

/* Stories of key-value entries: commands in, the store's own words out, compared as text. Each
 * command that writes is a transaction of its own at the next index (1, 2, ...); what it notes is
 * told after its result, "!key" for an entry, "!sessions" for the table. Include after cmocka.h. */

#include <inttypes.h>
#include <string.h>

#include "kv/kv.h"
#include "tests/unit/kv_fixture.h"

enum { STORY_WORDS_MAX = 8 };

struct story_line {
    const char *command, *expected;
};

struct story {
    struct fixture fixture;
    struct store_txn txn;
    uint64_t index;
    char words[STORY_WORDS_MAX][64]; /* the command; missing ones are empty */
    struct buffer out;
};

/* Runs one command inside story->txn, writing to story->out. False when it knows no such command.
 */
typedef bool (*story_run)(struct story *story);

/* The word as a key or a value; "-" is the empty one. */
static inline struct slice story_slice(const struct story *story, size_t word)
{
    return strcmp(story->words[word], "-") == 0 ? SLICE_EMPTY : text(story->words[word]);
}

static inline uint64_t story_number(const struct story *story, size_t word)
{
    return strtoull(story->words[word], NULL, 10);
}

/* Sessions are called by a letter or digit, of which their id consists. */
static inline struct uuid story_uuid(const struct story *story, size_t word)
{
    struct uuid uuid;

    memset(uuid.bytes, story->words[word][0], sizeof(uuid.bytes));
    return uuid;
}

static inline void story_put_entry(struct story *story, const struct kv_entry *entry)
{
    buffer_printf(&story->out, "%.*s=%.*s lock=%" PRIu64 " create=%" PRIu64 " modify=%" PRIu64,
                  (int)entry->key.size, entry->key.data, (int)entry->value.size, entry->value.data,
                  entry->lock_index, entry->create_index, entry->modify_index);
    if (entry->flags != 0) {
        buffer_printf(&story->out, " flags=%" PRIu64, entry->flags);
    }
    if (!uuid_is_zero(&entry->session)) {
        buffer_printf(&story->out, " session=%c", entry->session.bytes[0]);
    }
}

static inline void story_get(struct story *story)
{
    struct kv_entry entry;
    const int rc = kv_get(&story->txn, story_slice(story, 1), &entry);

    if (rc == STORE_ENOTFOUND) {
        buffer_append_text(&story->out, "none");
        return;
    }
    check_ok(rc);
    story_put_entry(story, &entry);
}

static inline void story_list(struct story *story)
{
    struct kv_scan scan;
    struct kv_entry entry;
    int rc;

    check_ok(kv_scan_begin(&scan, &story->txn, story_slice(story, 1)));
    while ((rc = kv_scan_next(&scan, &entry)) == STORE_OK) {
        buffer_printf(&story->out, "%s%.*s@%" PRIu64, story->out.size == 0 ? "" : " ",
                      (int)entry.key.size, entry.key.data, entry.modify_index);
    }
    check_rc(rc, STORE_ENOTFOUND);
    kv_scan_end(&scan);
}

/* The keys that a session holds. */
static inline void story_held(struct story *story)
{
    const struct uuid id = story_uuid(story, 1);
    struct store_scan scan;
    struct slice key;
    struct slice value;

    check_ok(store_scan_begin(&scan, &story->txn, STORE_SESSION_KEY,
                              slice_from((const char *)id.bytes, UUID_BYTES)));
    while (store_scan_next(&scan, &key, &value) == STORE_OK) {
        buffer_printf(&story->out, "%s%.*s", story->out.size == 0 ? "" : " ",
                      (int)(key.size - UUID_BYTES), key.data + UUID_BYTES);
    }
    store_scan_end(&scan);
}

/* Looked through two at a time, whatever is asked for. */
static inline uint64_t story_tombstone(struct story *story, struct slice prefix)
{
    struct buffer from = {0};
    uint64_t index = 0;
    bool more = true;

    buffer_append_slice(&from, prefix);
    while (more) {
        check_ok(kv_tombstone_index(&story->txn, prefix, &from, 2, &index, &more));
    }
    buffer_deinit(&from);
    return index;
}

static inline bool story_run_kv_read(struct story *story)
{
    const char *verb = story->words[0];
    uint64_t index;

    if (strcmp(verb, "get") == 0) {
        story_get(story);
    } else if (strcmp(verb, "list") == 0) {
        story_list(story);
    } else if (strcmp(verb, "held") == 0) {
        story_held(story);
    } else if (strcmp(verb, "index") == 0) {
        check_ok(kv_index(&story->txn, &index));
        buffer_printf(&story->out, "%" PRIu64, index);
    } else if (strcmp(verb, "tombstone") == 0) {
        buffer_printf(&story->out, "%" PRIu64, story_tombstone(story, story_slice(story, 1)));
    } else {
        return false;
    }
    return true;
}

/* set KEY VALUE [FLAGS], cas INDEX KEY VALUE, lock|unlock SESSION KEY VALUE [FLAGS], clear KEY,
 * delete KEY, delete-cas INDEX KEY, delete-prefix PREFIX, reap INDEX. */
static inline bool story_run_kv_write(struct story *story)
{
    const char *verb = story->words[0];
    struct store_txn *txn = &story->txn;
    const struct slice one = story_slice(story, 1);
    const struct slice two = story_slice(story, 2);
    const struct slice three = story_slice(story, 3);
    const struct uuid session = story_uuid(story, 1);
    bool done = true;

    if (strcmp(verb, "set") == 0) {
        check_ok(kv_set(txn, story->index, one, two, story_number(story, 3), &done));
    } else if (strcmp(verb, "cas") == 0) {
        check_ok(kv_cas(txn, story->index, two, three, 0, story_number(story, 1), &done));
    } else if (strcmp(verb, "lock") == 0) {
        check_ok(kv_lock(txn, story->index, two, three, story_number(story, 4), &session, &done));
    } else if (strcmp(verb, "unlock") == 0) {
        check_ok(kv_unlock(txn, story->index, two, three, story_number(story, 4), &session, &done));
    } else if (strcmp(verb, "clear") == 0) {
        const int rc = kv_lock_clear(txn, story->index, one);
        done = rc == STORE_OK;
        check_rc(rc, done ? STORE_OK : STORE_ENOTFOUND);
    } else if (strcmp(verb, "delete") == 0) {
        check_ok(kv_delete(txn, story->index, one));
    } else if (strcmp(verb, "delete-cas") == 0) {
        check_ok(kv_delete_cas(txn, story->index, two, story_number(story, 1), &done));
    } else if (strcmp(verb, "delete-prefix") == 0) {
        check_ok(kv_delete_prefix(txn, story->index, one));
    } else if (strcmp(verb, "reap") == 0) {
        check_ok(kv_tombstones_reap(txn, story_number(story, 1)));
    } else {
        return false;
    }
    buffer_append_text(&story->out, done ? "yes" : "no");
    return true;
}

static inline void story_put_notes(struct story *story)
{
    struct reader it = store_changes_begin(&story->txn);
    enum store_topic topic;
    struct slice key;

    while (store_changes_next(&it, &topic, &key)) {
        if (topic == STORE_TOPIC_SESSION) {
            assert_int_equal(key.size, 0);
            key = SLICE_LITERAL("sessions");
        } else {
            assert_int_equal(topic, STORE_TOPIC_KV);
        }
        buffer_printf(&story->out, " !%.*s", (int)key.size, key.data);
    }
}

static inline void story_split(struct story *story, const char *command)
{
    size_t count = 0;

    memset(story->words, 0, sizeof(story->words));
    while (*command != '\0') {
        const size_t size = strcspn(command, " ");
        assert_true(count < STORY_WORDS_MAX);
        assert_true(size < sizeof(story->words[0]));
        memcpy(story->words[count++], command, size);
        command += size;
        command += strspn(command, " ");
    }
}

static inline void story_step(struct story *story, const struct story_line *line, story_run write,
                              story_run read)
{
    story_split(story, line->command);
    buffer_clear(&story->out);
    check_ok(store_write_begin(story->fixture.store, &story->txn));
    story->index++;
    if (write(story)) {
        check_ok(store_write_commit(&story->txn));
        story_put_notes(story);
        store_changes_free(&story->txn);
    } else {
        story->index--;
        store_write_abort(&story->txn);
        check_ok(store_read_begin(story->fixture.store, &story->txn));
        if (!read(story)) {
            fail_msg("no such command: %s", line->command);
        }
        store_read_end(&story->txn);
    }
    if (!slice_equal(buffer_slice(&story->out), text(line->expected))) {
        fail_msg("%s\n     got: %.*s\nexpected: %s", line->command, (int)story->out.size,
                 story->out.data, line->expected);
    }
}

static inline void story_begin(struct story *story)
{
    memset(story, 0, sizeof(*story));
    fixture_init(&story->fixture);
}

static inline void story_end(struct story *story)
{
    buffer_deinit(&story->out);
    fixture_deinit(&story->fixture);
}

#endif
