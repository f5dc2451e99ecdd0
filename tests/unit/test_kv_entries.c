/* The rules of key-value entries, as stories recorded from Consul 1.8.7 (conformance, section kv),
 * and what holds for many keys at once. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/kv_story.h"

#define STORY(lines) run_story(lines, sizeof(lines) / sizeof((lines)[0]))

static void run_story(const struct story_line *lines, size_t count)
{
    struct story story;

    story_begin(&story);
    for (size_t i = 0; i < count; i++) {
        story_step(&story, &lines[i], story_run_kv_write, story_run_kv_read);
    }
    story_end(&story);
}

static void a_write_keeps_create_and_moves_modify(void **state)
{
    static const struct story_line lines[] = {
        {"get a", "none"},       {"index", "0"},
        {"set a 1 7", "yes !a"}, {"get a", "a=1 lock=0 create=1 modify=1 flags=7"},
        {"set a 2", "yes !a"},   {"get a", "a=2 lock=0 create=1 modify=2"},
        {"set a -", "yes !a"},   {"get a", "a= lock=0 create=1 modify=3"},
        {"index", "3"},
    };

    (void)state;
    STORY(lines);
}

static void an_identical_write_changes_nothing(void **state)
{
    static const struct story_line lines[] = {
        {"set a 1 7", "yes !a"},
        {"set a 1 7", "no"},
        {"get a", "a=1 lock=0 create=1 modify=1 flags=7"},
        {"index", "1"},
        {"set a 1 8", "yes !a"},
        {"cas 3 a 1", "yes !a"}, /* cas resets flags */
        {"cas 4 a 1", "yes"},
        {"get a", "a=1 lock=0 create=1 modify=4"},
        {"lock A a 1", "yes !a"},
        {"lock A a 1", "yes"},
        {"get a", "a=1 lock=1 create=1 modify=6 session=A"},
    };

    (void)state;
    STORY(lines);
}

static void cas_needs_the_very_index(void **state)
{
    static const struct story_line lines[] = {
        {"cas 5 a 1", "no"},
        {"cas 0 a 1", "yes !a"},
        {"get a", "a=1 lock=0 create=2 modify=2"},
        {"cas 0 a 2", "no"},
        {"cas 1 a 2", "no"},
        {"cas 3 a 2", "no"},
        {"cas 2 a 2", "yes !a"},
        {"get a", "a=2 lock=0 create=2 modify=6"},
    };

    (void)state;
    STORY(lines);
}

/* kv-lock-index-counts, kv-release-sets-value */
static void lock_index_counts_grants_from_free(void **state)
{
    static const struct story_line lines[] = {
        {"lock A l 1 5", "yes !l"},
        {"get l", "l=1 lock=1 create=1 modify=1 flags=5 session=A"},
        {"held A", "l"},
        {"unlock A l 2", "yes !l"},
        {"get l", "l=2 lock=1 create=1 modify=2"},
        {"held A", ""},
        {"lock B l 3", "yes !l"},
        {"lock B l 4", "yes !l"}, /* the holder again */
        {"get l", "l=4 lock=2 create=1 modify=4 session=B"},
        {"unlock B l - 8", "yes !l"},
        {"get l", "l= lock=2 create=1 modify=5 flags=8"},
    };

    (void)state;
    STORY(lines);
}

static void a_held_lock_is_not_granted(void **state)
{
    static const struct story_line lines[] = {
        {"lock A l 1", "yes !l"},
        {"lock B l 2", "no"},
        {"get l", "l=1 lock=1 create=1 modify=1 session=A"},
        {"held B", ""},
        {"index", "1"},
    };

    (void)state;
    STORY(lines);
}

/* kv-release-variants */
static void only_the_holder_unlocks(void **state)
{
    static const struct story_line lines[] = {
        {"unlock A l v", "no"},
        {"get l", "none"},
        {"set l v", "yes !l"},
        {"unlock A l w", "no"},
        {"lock A l v", "yes !l"},
        {"unlock B l w", "no"},
        {"get l", "l=v lock=1 create=2 modify=4 session=A"},
    };

    (void)state;
    STORY(lines);
}

/* kv-write-while-locked; that even the same value resets LockIndex was measured. */
static void a_plain_write_keeps_the_lock_but_resets_lock_index(void **state)
{
    static const struct story_line lines[] = {
        {"lock A l 1", "yes !l"},
        {"set l 2", "yes !l"},
        {"get l", "l=2 lock=0 create=1 modify=2 session=A"},
        {"held A", "l"},
        {"cas 1 l 3", "no"},
        {"cas 2 l 4", "yes !l"},
        {"get l", "l=4 lock=0 create=1 modify=4 session=A"},
        {"lock A l 4", "yes"},
        {"unlock A l 4", "yes !l"},
        {"lock A l 4", "yes !l"},
        {"get l", "l=4 lock=1 create=1 modify=7 session=A"},
        {"set l 4", "yes !l"},
        {"get l", "l=4 lock=0 create=1 modify=8 session=A"},
        {"set l 4", "no"},
    };

    (void)state;
    STORY(lines);
}

/* kv-delete-while-locked, kv-recreate-after-delete */
static void a_deleted_lock_starts_anew(void **state)
{
    static const struct story_line lines[] = {
        {"lock A l 1", "yes !l"}, {"delete l", "yes !l"},
        {"get l", "none"},        {"held A", ""},
        {"lock A l 2", "yes !l"}, {"get l", "l=2 lock=1 create=3 modify=3 session=A"},
        {"held A", "l"},          {"delete-prefix -", "yes !l"},
        {"held A", ""},
    };

    (void)state;
    STORY(lines);
}

static void clearing_a_lock_keeps_the_rest(void **state)
{
    static const struct story_line lines[] = {
        {"clear l", "no"},
        {"lock A l v 4", "yes !l"},
        {"clear l", "yes !l"},
        {"get l", "l=v lock=1 create=2 modify=3 flags=4"},
        {"held A", ""},
        {"clear l", "yes"}, /* not locked: nothing changes */
        {"get l", "l=v lock=1 create=2 modify=3 flags=4"},
    };

    (void)state;
    STORY(lines);
}

/* kv-delete, kv-delete-cas */
static void deletes_of_what_is_missing_change_nothing(void **state)
{
    static const struct story_line lines[] = {
        {"set a 1", "yes !a"},        {"delete b", "yes"},       {"delete-prefix b", "yes"},
        {"delete-cas 7 b", "yes"},    {"delete-cas 0 b", "yes"}, {"index", "1"},
        {"tombstone b", "0"},         {"delete-cas 0 a", "no"},  {"delete-cas 2 a", "no"},
        {"delete-cas 1 a", "yes !a"}, {"get a", "none"},         {"index", "8"},
    };

    (void)state;
    STORY(lines);
}

/* kv-delete-recurse, kv-delete-plain-keeps-children */
static void a_prefix_is_bytes_not_elements(void **state)
{
    static const struct story_line lines[] = {
        {"set a 1", "yes !a"},
        {"set a/b 2", "yes !a/b"},
        {"set a/c/d 3", "yes !a/c/d"},
        {"set ab 4", "yes !ab"},
        {"set b 5", "yes !b"},
        {"list -", "a@1 a/b@2 a/c/d@3 ab@4 b@5"},
        {"list a/", "a/b@2 a/c/d@3"},
        {"delete a", "yes !a"},
        {"list a", "a/b@2 a/c/d@3 ab@4"},
        {"delete-prefix a/c", "yes !a/c/d"},
        {"delete-prefix a", "yes !a/b !ab"},
        {"list -", "b@5"},
    };

    (void)state;
    STORY(lines);
}

/* kv-recurse-index-after-delete */
static void deletions_are_remembered_until_reaped(void **state)
{
    static const struct story_line lines[] = {
        {"set p/a 1", "yes !p/a"}, {"set p/b 2", "yes !p/b"},
        {"tombstone p/", "0"},     {"delete p/b", "yes !p/b"},
        {"tombstone p/", "3"},     {"tombstone p/a", "0"},
        {"set q 1", "yes !q"},     {"tombstone p/", "3"},
        {"tombstone -", "3"},      {"delete-prefix p", "yes !p/a"},
        {"tombstone p", "5"},      {"set p/b 1", "yes !p/b"},
        {"tombstone p/b", "3"}, /* though it is there again */
        {"reap 4", "yes"},         {"tombstone p/b", "0"},
        {"tombstone p", "5"},      {"reap 5", "yes"},
        {"tombstone p", "0"},      {"index", "6"},
    };

    (void)state;
    STORY(lines);
}

/* --- many keys: more than one step of any loop, long ones among them --- */

enum { MANY_KEYS = 700 };

static struct slice many_key(int number, char out[700])
{
    memset(out, 'k', 700);
    (void)snprintf(out, 32, "many/%04d", number);
    out[strlen(out)] = 'k';
    return slice_from(out, number % 3 == 0 ? 600 : 40);
}

static void many_write(struct story *story)
{
    char key[700];
    bool done;

    check_ok(store_write_begin(story->fixture.store, &story->txn));
    story->index++;
    memset(story->words, 'S', sizeof(story->words));
    const struct uuid session = story_uuid(story, 0);
    for (int i = 0; i < MANY_KEYS; i++) {
        check_ok(
            kv_lock(&story->txn, story->index, many_key(i, key), text("v"), 0, &session, &done));
    }
    check_ok(kv_set(&story->txn, story->index, text("other"), text("v"), 0, &done));
    check_ok(store_write_commit(&story->txn));
    store_changes_free(&story->txn);
}

static uint64_t many_count(struct story *story, enum store_table table)
{
    struct store_txn txn;
    uint64_t count;

    check_ok(store_read_begin(story->fixture.store, &txn));
    check_ok(store_table_count(&txn, table, &count));
    store_read_end(&txn);
    return count;
}

static void deleting_many_keys_notes_each(void **state)
{
    struct story story;
    enum store_topic topic;
    struct slice key;
    int noted = 0;

    (void)state;
    story_begin(&story);
    many_write(&story);
    assert_int_equal(many_count(&story, STORE_SESSION_KEY), MANY_KEYS);
    check_ok(store_write_begin(story.fixture.store, &story.txn));
    check_ok(kv_delete_prefix(&story.txn, ++story.index, text("many/")));
    check_ok(store_write_commit(&story.txn));
    struct reader it = store_changes_begin(&story.txn);
    while (store_changes_next(&it, &topic, &key)) {
        char expected[700];
        assert_true(slice_equal(key, many_key(noted, expected)));
        noted++;
    }
    store_changes_free(&story.txn);
    assert_int_equal(noted, MANY_KEYS);
    assert_int_equal(many_count(&story, STORE_KV), 1);
    assert_int_equal(many_count(&story, STORE_SESSION_KEY), 0);
    assert_int_equal(many_count(&story, STORE_TOMBSTONE), MANY_KEYS);
    story_end(&story);
}

static void reaping_many_tombstones_leaves_later_ones(void **state)
{
    struct story story;
    char key[700];

    (void)state;
    story_begin(&story);
    many_write(&story);
    for (int pass = 0; pass < 2; pass++) {
        check_ok(store_write_begin(story.fixture.store, &story.txn));
        story.index++;
        for (int i = pass; i < MANY_KEYS; i += 2) {
            check_ok(kv_delete(&story.txn, story.index, many_key(i, key)));
        }
        check_ok(store_write_commit(&story.txn));
        store_changes_free(&story.txn);
    }
    check_ok(store_write_begin(story.fixture.store, &story.txn));
    check_ok(kv_tombstones_reap(&story.txn, story.index - 1));
    check_ok(store_write_commit(&story.txn));
    assert_int_equal(many_count(&story, STORE_TOMBSTONE), MANY_KEYS / 2);
    check_ok(store_write_begin(story.fixture.store, &story.txn));
    check_ok(kv_tombstones_reap(&story.txn, story.index));
    check_ok(store_write_commit(&story.txn));
    assert_int_equal(many_count(&story, STORE_TOMBSTONE), 0);
    story_end(&story);
}

/* Bytes on disk are checked, not believed. */
static void a_damaged_record_is_an_error(void **state)
{
    static const struct slice records[] = {
        {"", 0},
        {"short", 5},
        {"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
         "\0\0\0\0",
         48}, /* CreateIndex 0 */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        struct story story;
        struct kv_entry entry;
        struct kv_scan scan;
        bool done;

        story_begin(&story);
        check_ok(store_write_begin(story.fixture.store, &story.txn));
        check_ok(store_put(&story.txn, STORE_KV, text("a"), records[i]));
        check_rc(kv_get(&story.txn, text("a"), &entry), STORE_ECORRUPT);
        check_rc(kv_set(&story.txn, 1, text("a"), text("v"), 0, &done), STORE_ECORRUPT);
        check_rc(kv_delete(&story.txn, 1, text("a")), STORE_ECORRUPT);
        check_ok(kv_scan_begin(&scan, &story.txn, SLICE_EMPTY));
        check_rc(kv_scan_next(&scan, &entry), STORE_ECORRUPT);
        kv_scan_end(&scan);
        store_write_abort(&story.txn);
        story_end(&story);
    }
}

/* A full store refuses what grows, and releases and deletes all the same. */
static void a_full_store_releases_and_deletes(void **state)
{
    static char value[3000];
    struct story story = {0};
    struct uuid session;
    bool done;
    int rc = STORE_OK;
    int count = 0;

    (void)state;
    fixture_make_dir(&story.fixture);
    fixture_open(&story.fixture, FIXTURE_BOOT, (size_t)1 << 20);
    memset(session.bytes, 'S', sizeof(session.bytes));
    /* Ever smaller ones, until not even a few bytes more would do. */
    for (size_t size = sizeof(value); size > 0; size /= 4) {
        do {
            char key[32];
            (void)snprintf(key, sizeof(key), "key/%05d", count);
            check_ok(store_write_begin(story.fixture.store, &story.txn));
            rc = kv_lock(&story.txn, (uint64_t)count + 1, text(key), slice_from(value, size), 0,
                         &session, &done);
            if (rc == STORE_OK) {
                check_ok(store_write_commit(&story.txn));
                store_changes_free(&story.txn);
                count++;
            } else {
                store_write_abort(&story.txn);
            }
        } while (rc == STORE_OK);
    }
    check_rc(rc, STORE_EFULL);
    story.index = (uint64_t)count;
    check_ok(store_write_begin(story.fixture.store, &story.txn));
    check_rc(kv_set(&story.txn, story.index + 1, text("one"), text("more"), 0, &done), STORE_EFULL);
    store_write_abort(&story.txn);
    const struct story_line lines[] = {{"clear key/00000", "yes !key/00000"},
                                       {"delete key/00001", "yes !key/00001"}};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        story_step(&story, &lines[i], story_run_kv_write, story_run_kv_read);
    }
    check_ok(store_write_begin(story.fixture.store, &story.txn));
    check_ok(kv_delete_prefix(&story.txn, ++story.index, text("key/000")));
    check_ok(store_write_commit(&story.txn));
    store_changes_free(&story.txn);
    story_step(&story, &(struct story_line){"set key/00001 small", "yes !key/00001"},
               story_run_kv_write, story_run_kv_read);
    story_end(&story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_keeps_create_and_moves_modify),
        cmocka_unit_test(an_identical_write_changes_nothing),
        cmocka_unit_test(cas_needs_the_very_index),
        cmocka_unit_test(lock_index_counts_grants_from_free),
        cmocka_unit_test(a_held_lock_is_not_granted),
        cmocka_unit_test(only_the_holder_unlocks),
        cmocka_unit_test(a_plain_write_keeps_the_lock_but_resets_lock_index),
        cmocka_unit_test(a_deleted_lock_starts_anew),
        cmocka_unit_test(clearing_a_lock_keeps_the_rest),
        cmocka_unit_test(deletes_of_what_is_missing_change_nothing),
        cmocka_unit_test(a_prefix_is_bytes_not_elements),
        cmocka_unit_test(deletions_are_remembered_until_reaped),
        cmocka_unit_test(deleting_many_keys_notes_each),
        cmocka_unit_test(reaping_many_tombstones_leaves_later_ones),
        cmocka_unit_test(a_damaged_record_is_an_error),
        cmocka_unit_test(a_full_store_releases_and_deletes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
