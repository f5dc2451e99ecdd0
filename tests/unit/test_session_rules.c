/* Sessions and their locks, as stories recorded from Consul 1.8.7 (conformance, section session),
 * with a clock of our own: lock-delay, invalidation, checks. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "session/session.h"
#include "tests/unit/kv_story.h"

#define STORY(lines) run_story(lines, sizeof(lines) / sizeof((lines)[0]))

/* --- a catalog that is just names: nodes in STORE_NODE, "node check" in STORE_CHECK --- */

static void fake_key(struct buffer *out, struct slice node, struct slice check_id)
{
    buffer_append_slice(out, node);
    buffer_append_char(out, ' ');
    buffer_append_slice(out, check_id);
    for (size_t i = 0; i < out->size; i++) {
        out->data[i] = slice_lower(out->data[i]);
    }
}

static int fake_node_get(struct store_txn *txn, struct slice node)
{
    struct buffer key = {0};
    struct slice value;

    fake_key(&key, node, SLICE_EMPTY);
    const int rc = store_get(txn, STORE_NODE, buffer_slice(&key), &value);
    buffer_deinit(&key);
    return rc;
}

static int fake_check_get(struct store_txn *txn, struct slice node, struct slice check_id,
                          bool *critical)
{
    struct buffer key = {0};
    struct slice value;

    fake_key(&key, node, check_id);
    const int rc = store_get(txn, STORE_CHECK, buffer_slice(&key), &value);
    buffer_deinit(&key);
    if (rc == STORE_OK) {
        *critical = slice_equal(value, text("critical"));
    }
    return rc;
}

static const struct session_catalog fake_catalog = {.node_get = fake_node_get,
                                                    .check_get = fake_check_get};

static void fake_put(struct story *story, enum store_table table, struct slice node,
                     struct slice check_id, struct slice value)
{
    struct buffer key = {0};

    fake_key(&key, node, check_id);
    check_ok(store_put(&story->txn, table, buffer_slice(&key), value));
    buffer_deinit(&key);
}

/* --- the commands --- */

/* "term:milliseconds" */
static struct session_stamp story_stamp(const struct story *story, size_t word)
{
    char *end;
    struct session_stamp stamp;

    stamp.term = strtoull(story->words[word], &end, 10);
    assert_int_equal(*end, ':');
    stamp.now_ms = strtoull(end + 1, NULL, 10);
    return stamp;
}

/* A list "a,b"; "-" is empty, "null" is null. In pairs each gets an empty second. */
static struct strings story_strings(const struct story *story, size_t word, bool pairs,
                                    struct buffer *packed)
{
    const char *at = story->words[word];
    uint32_t count = 0;

    if (strcmp(at, "null") == 0 || at[0] == '\0') {
        return STRINGS_NULL;
    }
    while (*at != '\0' && strcmp(at, "-") != 0) {
        const size_t size = strcspn(at, ",");
        strings_pack_add(packed, slice_from(at, size));
        count++;
        if (pairs) {
            strings_pack_add(packed, SLICE_EMPTY);
            count++;
        }
        at += size + (at[size] == ',' ? 1 : 0);
    }
    return strings_from_packed(buffer_slice(packed), count);
}

/* create SESSION NODE release|delete LOCK-DELAY-NS [NODE-CHECKS SERVICE-CHECKS CHECKS] */
static void story_create(struct story *story)
{
    struct buffer lists[3] = {{0}};
    struct errmsg err = {""};
    const struct session session = {
        .id = story_uuid(story, 1),
        .name = text("name"),
        .node = story_slice(story, 2),
        .behavior = strcmp(story->words[3], "delete") == 0 ? SESSION_DELETE : SESSION_RELEASE,
        .lock_delay_ns = (uint64_t)strtoll(story->words[4], NULL, 10),
        .ttl = text("15.0s"),
        .ttl_ms = 15000,
        .node_checks = story_strings(story, 5, false, &lists[0]),
        .service_checks = story_strings(story, 6, true, &lists[1]),
        .checks = story_strings(story, 7, false, &lists[2]),
    };

    const int rc = session_create(&story->txn, &fake_catalog, story->index, &session, &err);
    if (rc != STORE_OK) {
        assert_true(rc <= SESSION_ENODE);
    }
    buffer_append_text(&story->out, rc == STORE_OK ? "yes" : err.text);
    for (size_t i = 0; i < 3; i++) {
        buffer_deinit(&lists[i]);
    }
}

/* acquire SESSION KEY VALUE STAMP */
static void story_acquire(struct story *story)
{
    const struct uuid id = story_uuid(story, 1);
    struct errmsg err = {""};
    bool granted = false;
    bool delayed = false;

    const int rc =
        session_lock(&story->txn, story->index, story_stamp(story, 4), story_slice(story, 2),
                     story_slice(story, 3), 0, &id, &granted, &delayed, &err);
    if (rc == SESSION_EUNKNOWN) {
        buffer_append_text(&story->out, err.text);
        return;
    }
    check_ok(rc);
    assert_false(granted && delayed);
    buffer_append_text(&story->out, granted ? "yes" : delayed ? "delayed" : "no");
}

static void story_ended(struct story *story, struct buffer *ended)
{
    struct reader it = reader_from(buffer_slice(ended));

    buffer_append_text(&story->out, "ended");
    while (!reader_done(&it)) {
        buffer_printf(&story->out, " %c", *reader_bytes(&it, UUID_BYTES).data);
        assert_int_equal(reader_u32(&it), 0);
        assert_false(it.failed);
    }
    buffer_deinit(ended);
}

/* node NAME, check NODE ID STATUS, destroy SESSION STAMP, check-ended NODE CHECK STAMP, node-ended
 * NODE STAMP, restart STAMP, reap-delays STAMP; and those of entries. */
static bool story_write(struct story *story)
{
    const char *verb = story->words[0];
    struct store_txn *txn = &story->txn;
    const struct slice one = story_slice(story, 1);
    struct buffer ended = {0};

    if (strcmp(verb, "node") == 0) {
        fake_put(story, STORE_NODE, one, SLICE_EMPTY, SLICE_EMPTY);
    } else if (strcmp(verb, "check") == 0) {
        fake_put(story, STORE_CHECK, one, story_slice(story, 2), story_slice(story, 3));
    } else if (strcmp(verb, "create") == 0) {
        story_create(story);
    } else if (strcmp(verb, "acquire") == 0) {
        story_acquire(story);
    } else if (strcmp(verb, "destroy") == 0) {
        const struct uuid id = story_uuid(story, 1);
        check_ok(session_invalidate(txn, story->index, story_stamp(story, 2), &id));
    } else if (strcmp(verb, "check-ended") == 0) {
        const struct slice check_id = story_slice(story, 2);
        check_ok(session_invalidate_checks(txn, story->index, story_stamp(story, 3), one, &check_id,
                                           1, &ended));
        story_ended(story, &ended);
    } else if (strcmp(verb, "node-ended") == 0) {
        check_ok(session_invalidate_node(txn, story->index, story_stamp(story, 2), one, &ended));
        story_ended(story, &ended);
    } else if (strcmp(verb, "restart") == 0) {
        check_ok(session_lock_delay_restart(txn, story_stamp(story, 1)));
    } else if (strcmp(verb, "reap-delays") == 0) {
        check_ok(session_lock_delay_reap(txn, story_stamp(story, 1)));
    } else {
        return story_run_kv_write(story);
    }
    return true;
}

static void story_sessions(struct story *story)
{
    struct session_scan scan;
    struct session session;
    int rc;

    check_ok(story->words[1][0] == '\0'
                 ? session_scan_begin(&scan, &story->txn)
                 : session_scan_begin_node(&scan, &story->txn, story_slice(story, 1)));
    while ((rc = session_scan_next(&scan, &session)) == STORE_OK) {
        buffer_printf(&story->out, "%s%c", story->out.size == 0 ? "" : " ", session.id.bytes[0]);
    }
    check_rc(rc, STORE_ENOTFOUND);
    session_scan_end(&scan);
}

/* sessions [NODE], session-index, delays (how many are kept); and those of entries. */
static bool story_read(struct story *story)
{
    const char *verb = story->words[0];
    uint64_t number;

    if (strcmp(verb, "sessions") == 0) {
        story_sessions(story);
    } else if (strcmp(verb, "session-index") == 0) {
        check_ok(session_index(&story->txn, &number));
        buffer_printf(&story->out, "%" PRIu64, number);
    } else if (strcmp(verb, "delays") == 0) {
        check_ok(store_table_count(&story->txn, STORE_LOCK_DELAY, &number));
        buffer_printf(&story->out, "%" PRIu64, number);
    } else {
        return story_run_kv_read(story);
    }
    return true;
}

static void run_story(const struct story_line *lines, size_t count)
{
    struct story story;

    story_begin(&story);
    for (size_t i = 0; i < count; i++) {
        story_step(&story, &lines[i], story_write, story_read);
    }
    story_end(&story);
}

/* --- creating --- */

/* session-checks-missing, -critical, -legacy, session-service-checks; that case does not matter and
 * the order of complaints were measured. */
static void a_session_needs_its_node_and_checks(void **state)
{
    static const struct story_line lines[] = {
        {"create A n1 release 0", "Missing node registration"},
        {"node n1", ""},
        {"create A n1 release 0 serfHealth", "Missing check 'serfHealth' registration"},
        {"check n1 serfHealth passing", ""},
        {"check n1 c1 critical", ""},
        {"check n1 c2 warning", ""},
        {"create A n1 release 0 serfHealth,c1", "Check 'c1' is in critical state"},
        {"create A n1 release 0 x y z", "Missing check 'z' registration"},
        {"create A n1 release 0 x y null", "Missing check 'x' registration"},
        {"create A n1 release 0 - y null", "Missing check 'y' registration"},
        {"create A n1 release 0 - c1 null", "Check 'c1' is in critical state"},
        {"sessions", ""},
        {"session-index", "0"},
        {"create A N1 release 0 SERFHEALTH,c2 c2 c2", "yes !sessions"},
        {"create B n1 release 0 - null null", "yes !sessions"},
        {"create A n1 release 0", "Session id is taken"},
        {"sessions", "A B"},
        {"session-index", "13"},
    };

    (void)state;
    STORY(lines);
}

static void sessions_are_listed_by_node(void **state)
{
    static const struct story_line lines[] = {
        {"node n1", ""},
        {"node n11", ""},
        {"node N2", ""},
        {"create C n1 release 0", "yes !sessions"},
        {"create A N1 release 0", "yes !sessions"},
        {"create B n11 release 0", "yes !sessions"},
        {"create D n2 release 0", "yes !sessions"},
        {"sessions", "A B C D"},
        {"sessions n1", "A C"},
        {"sessions N11", "B"},
        {"sessions n2", "D"},
        {"sessions n", ""},
        {"destroy A 1:0", " !sessions"},
        {"sessions n1", "C"},
    };

    (void)state;
    STORY(lines);
}

static void a_session_comes_back_as_it_was_made(void **state)
{
    static const struct story_line lines[] = {
        {"node Node", ""},
        {"check node c1 passing", ""},
        {"create A NODE delete -5 c1 c1 null", "yes !sessions"},
    };
    struct story story;
    struct session session;

    (void)state;
    story_begin(&story);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        story_step(&story, &lines[i], story_write, story_read);
    }
    const struct uuid id = story_uuid(&story, 1);
    check_ok(store_read_begin(story.fixture.store, &story.txn));
    check_ok(session_get(&story.txn, &id, &session));
    assert_true(uuid_equal(&session.id, &id));
    assert_true(slice_equal(session.node, text("NODE")));
    assert_true(slice_equal(session.name, text("name")));
    assert_true(slice_equal(session.ttl, text("15.0s")));
    assert_int_equal(session.ttl_ms, 15000);
    assert_int_equal(session.behavior, SESSION_DELETE);
    assert_true((int64_t)session.lock_delay_ns == -5);
    assert_int_equal(session.node_checks.count, 1);
    assert_int_equal(session.service_checks.count, 2);
    assert_true(session.checks.null);
    assert_int_equal(session.create_index, 3);
    assert_int_equal(session.modify_index, 3);
    store_read_end(&story.txn);
    story_end(&story);
}

/* Also what a command may carry: nothing that is cut or odd is a session. */
static void bytes_that_are_no_session_are_refused(void **state)
{
    struct buffer list = {0};
    struct buffer bytes = {0};
    struct session session = {.behavior = SESSION_DELETE, .node = text("n")};

    (void)state;
    memset(session.id.bytes, 'A', UUID_BYTES);
    strings_pack_add(&list, text("c1"));
    strings_pack_add(&list, text(""));
    session.service_checks = strings_from_packed(buffer_slice(&list), 2);
    session_encode(&bytes, &session);
    assert_true(session_decode(buffer_slice(&bytes), &session));
    for (size_t size = 0; size < bytes.size; size++) {
        char *copy = malloc(size + 1);
        memcpy(copy, bytes.data, size);
        assert_false(session_decode(slice_from(copy, size), &session));
        free(copy);
    }
    buffer_append_char(&bytes, 'x');
    assert_false(session_decode(buffer_slice(&bytes), &session));

    const struct session odd[] = {
        {.node = text("n")}, /* no id */
        {.id = session.id, .behavior = (enum session_behavior)2},
        {.id = session.id,
         .service_checks = strings_from_packed(slice_from(list.data, 6), 1)}, /* half a pair */
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        buffer_clear(&bytes);
        session_encode(&bytes, &odd[i]);
        if (session_decode(buffer_slice(&bytes), &session)) {
            fail_msg("case %zu was taken", i);
        }
    }
    buffer_deinit(&bytes);
    buffer_deinit(&list);
}

/* --- ending --- */

/* session-destroy-releases, session-destroy-deletes, kv-two-locks-one-session */
static void the_end_releases_or_deletes_all_at_one_index(void **state)
{
    static const struct story_line lines[] = {
        {"node n", ""},
        {"create A n release 0", "yes !sessions"},
        {"create B n delete 0", "yes !sessions"},
        {"acquire A l1 1 1:0", "yes !l1"},
        {"acquire A l2 2 1:0", "yes !l2"},
        {"acquire B l3 3 1:0", "yes !l3"},
        {"acquire B l4 4 1:0", "yes !l4"},
        {"set other x", "yes !other"},
        {"unlock B l4 4", "yes !l4"}, /* given up before: not its any more */
        {"destroy A 1:0", " !l1 !l2 !sessions"},
        {"get l1", "l1=1 lock=1 create=4 modify=10"},
        {"get l2", "l2=2 lock=1 create=5 modify=10"},
        {"destroy B 1:0", " !l3 !sessions"},
        {"get l3", "none"},
        {"tombstone l3", "11"},
        {"get l4", "l4=4 lock=1 create=7 modify=9"},
        {"get other", "other=x lock=0 create=8 modify=8"},
        {"sessions", ""},
        {"session-index", "11"},
        {"destroy A 1:0", ""}, /* gone already */
        {"session-index", "11"},
    };

    (void)state;
    STORY(lines);
}

/* session-invalidate-*, session-other-check-critical */
static void a_check_ends_the_sessions_that_name_it(void **state)
{
    static const struct story_line lines[] = {
        {"node n", ""},
        {"node m", ""},
        {"check n c1 passing", ""},
        {"check n c2 passing", ""},
        {"check m c1 passing", ""},
        {"create A n release 0 c1 null null", "yes !sessions"},
        {"create B n release 0 - c1 null", "yes !sessions"},
        {"create C n release 0 c2 null c1", "yes !sessions"},
        {"create D n release 0 c2 null null", "yes !sessions"},
        {"create E n release 0 - null null", "yes !sessions"}, /* Patroni's: on its TTL alone */
        {"create F m release 0 c1 null null", "yes !sessions"},
        {"acquire C l v 1:0", "yes !l"},
        {"check-ended n nothing 1:0", "ended"},
        {"check-ended N C1 1:0", "ended A B C !sessions !l"},
        {"get l", "l=v lock=1 create=12 modify=14"},
        {"sessions", "D E F"},
        {"node-ended N 1:0", "ended D E !sessions"},
        {"sessions", "F"},
        {"node-ended unknown 1:0", "ended"},
    };

    (void)state;
    STORY(lines);
}

/* --- lock-delay --- */

/* session-lock-delay, -delete, session-no-lock-delay-on-release, session-ttl-lock-delay */
static void a_lock_stays_free_for_its_delay(void **state)
{
    static const struct story_line lines[] = {
        {"node n", ""},
        {"create A n release 2000000000", "yes !sessions"},
        {"create B n delete 2000000000", "yes !sessions"},
        {"create C n release 0", "yes !sessions"},
        {"acquire A l 1 1:1000", "yes !l"},
        {"acquire A given-up 1 1:1000", "yes !given-up"},
        {"unlock A given-up 1", "yes !given-up"},
        {"acquire B d 1 1:1000", "yes !d"},
        {"destroy A 1:5000", " !l !sessions"},
        {"destroy B 1:5000", " !d !sessions"},
        {"acquire C l 2 1:5000", "delayed"},
        {"acquire C l 2 1:6999", "delayed"},
        {"acquire Z l 2 1:6999", "delayed"}, /* before the session is looked at */
        {"acquire C given-up 2 1:5000", "yes !given-up"},
        {"set l plain", "yes !l"}, /* advisory */
        {"acquire C d 2 1:6999", "delayed"},
        {"get d", "none"},
        {"acquire Z l 2 1:7000", "invalid session \"5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a\""},
        {"acquire C l 2 1:7000", "yes !l"},
        {"acquire C d 2 1:7000", "yes !d"},
        {"get d", "d=2 lock=1 create=19 modify=19 session=C"},
        {"destroy C 1:8000", " !d !given-up !l !sessions"}, /* without a delay of its own */
    };

    (void)state;
    STORY(lines);
}

/* The delay's length: rounded up to a millisecond, cut at a minute, none if negative. */
static void the_delay_is_rounded_up_and_cut(void **state)
{
    static const struct {
        const char *name, *lock_delay_ns;
        uint64_t expected_ms;
    } cases[] = {
        {"none", "0", 0},
        {"a nanosecond", "1", 1},
        {"Patroni's", "1000000", 1},
        {"just above", "1000001", 2},
        {"the default", "15000000000", 15000},
        {"a minute", "60000000000", 60000},
        {"more", "100000000000", 60000},
        {"the longest", "9223372036854775807", 60000},
        {"negative", "-1", 0},
        {"most negative", "-9223372036854775808", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct story story;
        char create[64];
        struct session_stamp stamp = {.term = 1, .now_ms = 1000};
        bool delayed;

        (void)snprintf(create, sizeof(create), "create A n release %s", cases[i].lock_delay_ns);
        const struct story_line lines[] = {{"node n", ""},
                                           {create, "yes !sessions"},
                                           {"acquire A l 1 1:0", "yes !l"},
                                           {"destroy A 1:1000", " !l !sessions"},
                                           {"delays", cases[i].expected_ms > 0 ? "1" : "0"}};
        story_begin(&story);
        for (size_t j = 0; j < sizeof(lines) / sizeof(lines[0]); j++) {
            story_step(&story, &lines[j], story_write, story_read);
        }
        check_ok(store_read_begin(story.fixture.store, &story.txn));
        stamp.now_ms = 1000 + cases[i].expected_ms;
        check_ok(session_lock_delay_get(&story.txn, stamp, text("l"), &delayed));
        if (delayed) {
            fail_msg("%s: runs longer than %d ms", cases[i].name, (int)cases[i].expected_ms);
        }
        stamp.now_ms -= 1;
        check_ok(session_lock_delay_get(&story.txn, stamp, text("l"), &delayed));
        if (delayed != (cases[i].expected_ms > 0)) {
            fail_msg("%s: does not run for %d ms", cases[i].name, (int)cases[i].expected_ms);
        }
        store_read_end(&story.txn);
        story_end(&story);
    }
}

/* A new leader's clock says nothing about the old one's: it starts all delays in full. */
static void a_new_leader_starts_delays_in_full(void **state)
{
    static const struct story_line lines[] = {
        {"node n", ""},
        {"create A n release 2000000000", "yes !sessions"},
        {"create C n release 0", "yes !sessions"},
        {"acquire A l 1 1:0", "yes !l"},
        {"destroy A 1:1000000", " !l !sessions"},
        {"acquire C l 2 2:9000000", "delayed"}, /* not restarted yet: runs, whatever the clock */
        {"restart 2:500", ""},
        {"acquire C l 2 2:2499", "delayed"},
        {"acquire C l 2 2:2500", "yes !l"},
        {"delays", "1"},
        {"reap-delays 2:2499", ""},
        {"delays", "1"},
        {"reap-delays 2:2500", ""},
        {"delays", "0"},
    };

    (void)state;
    STORY(lines);
}

/* More locks than one step of any loop takes. */
static void many_locks_end_at_once(void **state)
{
    enum { COUNT = 600 };
    static const struct story_line lines[] = {{"node n", ""},
                                              {"create A n delete 1000000", "yes !sessions"}};
    struct story story;
    uint64_t count;

    (void)state;
    story_begin(&story);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        story_step(&story, &lines[i], story_write, story_read);
    }
    const struct uuid id = story_uuid(&story, 1);
    const struct session_stamp stamp = {.term = 1, .now_ms = 10};
    const struct session_stamp next = {.term = 2, .now_ms = 20};
    check_ok(store_write_begin(story.fixture.store, &story.txn));
    for (int i = 0; i < COUNT; i++) {
        char key[600];
        bool granted;
        bool delayed;
        memset(key, 'k', sizeof(key));
        memcpy(key, &i, sizeof(i));
        check_ok(session_lock(&story.txn, 3, stamp, slice_from(key, i % 2 == 0 ? 600 : 30),
                              text("v"), 0, &id, &granted, &delayed, NULL));
        assert_true(granted);
    }
    check_ok(session_invalidate(&story.txn, 4, stamp, &id));
    check_ok(store_table_count(&story.txn, STORE_KV, &count));
    assert_int_equal(count, 0);
    check_ok(store_table_count(&story.txn, STORE_SESSION_KEY, &count));
    assert_int_equal(count, 0);
    check_ok(session_lock_delay_restart(&story.txn, next));
    check_ok(store_table_count(&story.txn, STORE_LOCK_DELAY, &count));
    assert_int_equal(count, COUNT);
    check_ok(session_lock_delay_reap(&story.txn, (struct session_stamp){2, 20}));
    check_ok(store_table_count(&story.txn, STORE_LOCK_DELAY, &count));
    assert_int_equal(count, COUNT); /* all of them were restarted */
    check_ok(session_lock_delay_reap(&story.txn, (struct session_stamp){2, 21}));
    check_ok(store_table_count(&story.txn, STORE_LOCK_DELAY, &count));
    assert_int_equal(count, 0);
    check_ok(store_write_commit(&story.txn));
    store_changes_free(&story.txn);
    story_end(&story);
}

/* --- exclusion, by chance --- */

/* Random commands of four sessions on three keys: the record of who holds what never disagrees with
 * the entries, no lock has two holders, and none is granted during its delay. */
static void locks_and_holdings_always_agree(void **state)
{
    enum { STEPS = 3000, SESSIONS = 4, KEYS = 3, DELAY_MS = 50 };
    static const char *const keys[KEYS] = {"a", "b", "c"};
    struct story story;
    uint64_t seed = 23;
    uint64_t free_at_ms[KEYS] = {0};
    struct session_stamp stamp = {.term = 1, .now_ms = 1000};

    (void)state;
    story_begin(&story);
    check_ok(store_write_begin(story.fixture.store, &story.txn));
    fake_put(&story, STORE_NODE, text("n"), SLICE_EMPTY, SLICE_EMPTY);
    for (uint64_t index = 1; index <= STEPS; index++) {
        const uint64_t which = fixture_random(&seed) % KEYS;
        const struct slice key = text(keys[which]);
        struct session session = {.node = text("n"), .lock_delay_ns = DELAY_MS * 1000000};
        struct kv_entry entry = {0};
        bool done;
        bool delayed;
        int rc;

        memset(session.id.bytes, (int)('A' + fixture_random(&seed) % SESSIONS), UUID_BYTES);
        session.behavior = session.id.bytes[0] % 2 == 0 ? SESSION_DELETE : SESSION_RELEASE;
        stamp.now_ms += fixture_random(&seed) % 10;
        switch (fixture_random(&seed) % 6) {
        case 0:
            rc = session_create(&story.txn, &fake_catalog, index, &session, NULL);
            assert_true(rc == STORE_OK || rc == SESSION_EEXIST);
            break;
        case 1:
            for (int i = 0; i < KEYS; i++) {
                rc = kv_get(&story.txn, text(keys[i]), &entry);
                if (rc == STORE_OK && uuid_equal(&entry.session, &session.id)) {
                    free_at_ms[i] = stamp.now_ms + DELAY_MS;
                }
            }
            check_ok(session_invalidate(&story.txn, index, stamp, &session.id));
            break;
        case 2:
            check_ok(kv_unlock(&story.txn, index, key, text("u"), 0, &session.id, &done));
            break;
        case 3:
            check_ok(kv_delete(&story.txn, index, key));
            break;
        default: {
            const bool existed = kv_get(&story.txn, key, &entry) == STORE_OK;
            const struct uuid holder = entry.session;
            rc = session_lock(&story.txn, index, stamp, key, text("v"), 0, &session.id, &done,
                              &delayed, NULL);
            if (rc == STORE_OK && done) {
                assert_true(stamp.now_ms >= free_at_ms[which]);
                assert_true(!existed || uuid_is_zero(&holder) || uuid_equal(&holder, &session.id));
                check_ok(session_get(&story.txn, &session.id, &session));
            } else {
                assert_true(rc == STORE_OK || rc == SESSION_EUNKNOWN);
            }
            break;
        }
        }
        uint64_t held = 0;
        uint64_t holdings;
        for (int i = 0; i < KEYS; i++) {
            if (kv_get(&story.txn, text(keys[i]), &entry) == STORE_OK &&
                !uuid_is_zero(&entry.session)) {
                held++;
                check_ok(session_get(&story.txn, &entry.session, &session)); /* alive */
            }
        }
        check_ok(store_table_count(&story.txn, STORE_SESSION_KEY, &holdings));
        assert_int_equal(holdings, held);
    }
    check_ok(store_write_commit(&story.txn));
    store_changes_free(&story.txn);
    story_end(&story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_needs_its_node_and_checks),
        cmocka_unit_test(sessions_are_listed_by_node),
        cmocka_unit_test(a_session_comes_back_as_it_was_made),
        cmocka_unit_test(bytes_that_are_no_session_are_refused),
        cmocka_unit_test(the_end_releases_or_deletes_all_at_one_index),
        cmocka_unit_test(a_check_ends_the_sessions_that_name_it),
        cmocka_unit_test(a_lock_stays_free_for_its_delay),
        cmocka_unit_test(the_delay_is_rounded_up_and_cut),
        cmocka_unit_test(a_new_leader_starts_delays_in_full),
        cmocka_unit_test(many_locks_end_at_once),
        cmocka_unit_test(locks_and_holdings_always_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
