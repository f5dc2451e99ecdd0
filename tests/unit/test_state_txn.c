/* Transactions: all or nothing, each operation seeing those before it, every refusal listed. */

#include "tests/unit/state_fixture.h"

#include "server/command.h"

static const struct uuid sid = {{1, 2, 3, 4}};
#define SID_TEXT "01020304-0000-0000-0000-000000000000"

/* One key operation; the kinds of the catalog have a table of their own below. */
struct step {
    const char *verb, *key, *value;
    uint64_t index;
    const char *session;
};

static void put_step(struct buffer *ops, const struct step *step)
{
    struct txn_op op = {.kind = TXN_KV,
                        .verb = txn_verb_from(TXN_KV, text(step->verb)),
                        .index = step->index,
                        .key = text(step->key),
                        .value = text(step->value),
                        .session = text(step->session),
                        .session_fault = SLICE_EMPTY,
                        .verb_text = SLICE_EMPTY};

    if (op.verb == TXN_UNKNOWN) {
        op.verb_text = text(step->verb);
    }
    txn_op_encode(ops, &op);
}

/* The answer as text: "ok key=value ..." or "no 1:text 2:text". */
static void answer_print(struct buffer *out, struct slice answer)
{
    struct reader it = reader_from(answer);
    struct txn_result result;
    enum txn_part part;
    struct slice words;
    uint32_t op;
    uint8_t parts;

    if (reader_u8(&it) != 0) {
        buffer_append_text(out, "ok");
        while (txn_result_next(&it, &result)) {
            assert_int_equal(result.kind, TXN_KV);
            buffer_printf(out, " %.*s=%.*s@%llu", (int)result.entry.key.size, result.entry.key.data,
                          (int)result.entry.value.size, result.entry.value.data,
                          (unsigned long long)result.entry.modify_index);
        }
    } else {
        buffer_append_text(out, "no");
        while (txn_error_next(&it, &op, &parts)) {
            buffer_printf(out, " %u:", (unsigned)op);
            for (uint8_t i = 0; i < parts; i++) {
                assert_true(txn_error_part(&it, &part, &words));
                buffer_printf(out, part == TXN_PART_QUOTED ? "'%.*s'" : "%.*s", (int)words.size,
                              words.data);
            }
        }
    }
    assert_true(reader_done(&it));
    buffer_append_char(out, '\0');
}

/* Applies at `index` and demands the answer; one that refused must have left no trace. */
static void apply(struct fixture *fixture, uint64_t index, const char *name, struct slice ops,
                  const char *expected)
{
    struct buffer command = {0};
    struct buffer answers = {0};
    struct buffer printed = {0};
    struct command_result result;
    const struct command_observer observer = {.answers = &answers};
    const uint64_t before = fixture_checksum(&fixture->txn);
    const size_t noted = fixture->txn.changes.size;

    command_encode_txn(&command, ops);
    assert_true(command_valid(buffer_slice(&command)));
    assert_int_equal(
        command_apply(&fixture->txn, 1, index, buffer_slice(&command), &observer, &result), 0);
    assert_int_equal(result.status, COMMAND_DONE);
    answer_print(&printed, command_answer(&result));
    if (strcmp(printed.data, expected) != 0) {
        fail_msg("%s: got \"%s\", expected \"%s\"", name, printed.data, expected);
    }
    assert_int_equal(result.ok, printed.data[0] == 'o');
    if (!result.ok) {
        assert_int_equal(fixture_checksum(&fixture->txn), before);
        assert_int_equal(fixture->txn.changes.size, noted);
    }
    buffer_deinit(&command);
    buffer_deinit(&answers);
    buffer_deinit(&printed);
}

static void make_session(struct fixture *fixture)
{
    struct session session = {
        .id = sid, .node = text("n"), .service_checks = STRINGS_NULL, .checks = STRINGS_NULL};
    struct catalog_registration registration = {
        .node = {.name = text("n"), .address = text("10.0.0.1")}};
    struct buffer command = {0};
    struct command_result result;

    command_encode_register(&command, &registration);
    assert_int_equal(command_apply(&fixture->txn, 1, 1, buffer_slice(&command), NULL, &result), 0);
    buffer_clear(&command);
    command_encode_session_create(&command, &session);
    assert_int_equal(command_apply(&fixture->txn, 1, 2, buffer_slice(&command), NULL, &result), 0);
    assert_int_equal(result.status, COMMAND_DONE);
    buffer_deinit(&command);
}

static void keys_change_together_or_not_at_all(void **state)
{
    static const struct {
        const char *name;
        struct step steps[4];
        const char *expected;
    } cases[] = {
        {"an empty list", {{0}}, "ok"},
        {"writes hide values, reads show them",
         {{"set", "a", "1", 0, NULL}, {"get", "a", NULL, 0, NULL}},
         "ok a=@11 a=1@11"},
        {"one refusal undoes what came before it",
         {{"set", "a", "2", 0, NULL}, {"check-not-exists", "a", NULL, 0, NULL}},
         "no 1:key 'a' exists"},
        {"every refusal is listed",
         {{"get", "x", NULL, 0, NULL}, {"get", "a", NULL, 0, NULL}, {"get", "y", NULL, 0, NULL}},
         "no 0:key 'x' doesn't exist 2:key 'y' doesn't exist"},
        {"what needs no look at others is refused first",
         {{"get", "x", NULL, 0, NULL}, {"set", NULL, "1", 0, NULL}},
         "no 1:Must provide key"},
        {"get-or-empty invents nothing but an answer",
         {{"get-or-empty", "x", NULL, 0, NULL}},
         "ok x=@0"},
        {"cas of the wrong index",
         {{"cas", "a", "2", 5, NULL}},
         "no 0:failed to set key 'a', index is stale"},
        {"cas of the right index",
         {{"cas", "a", "3", 11, NULL}, {"get", "a", NULL, 0, NULL}},
         "ok a=@17 a=3@17"},
        {"check-index",
         {{"check-index", "a", NULL, 4, NULL}},
         "no 0:failed index check for key 'a', current modify index 17 != 4"},
        {"a lock and its holder",
         {{"lock", "l", "v", 0, SID_TEXT}, {"check-session", "l", NULL, 0, SID_TEXT}},
         "ok l=@19 l=@19"},
        {"a lock by nobody", {{"lock", "l", "v", 0, NULL}}, "no 0:missing session"},
        {"a lock by a stranger",
         {{"lock", "m", "v", 0, "11111111-2222-3333-4444-555555555555"}},
         "no 0:invalid session \"11111111-2222-3333-4444-555555555555\""},
        {"an unlock by a stranger",
         {{"unlock", "l", "v", 0, "11111111-2222-3333-4444-555555555555"}},
         "no 0:failed to unlock key 'l', lock isn't held, or is held by another session"},
        {"an unlock",
         {{"unlock", "l", "w", 0, SID_TEXT}, {"get", "l", NULL, 0, NULL}},
         "ok l=@23 l=w@23"},
        {"trees",
         {{"set", "t/1", "a", 0, NULL},
          {"set", "t/2", "b", 0, NULL},
          {"get-tree", "t/", NULL, 0, NULL},
          {"delete-tree", "t/", NULL, 0, NULL}},
         "ok t/1=@24 t/2=@24 t/1=a@24 t/2=b@24"},
        {"delete-cas",
         {{"delete-cas", "a", NULL, 1, NULL}},
         "no 0:failed to delete key 'a', index is stale"},
        {"a verb that is none", {{"SET", "a", NULL, 0, NULL}}, "no 0:unknown KV verb 'SET'"},
        {"deletes are silent",
         {{"delete", "a", NULL, 0, NULL}, {"delete", "zz", NULL, 0, NULL}},
         "ok"},
    };
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_begin(&fixture);
    make_session(&fixture);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer ops = {0};

        for (size_t j = 0; j < 4 && cases[i].steps[j].verb != NULL; j++) {
            put_step(&ops, &cases[i].steps[j]);
        }
        apply(&fixture, 10 + i, cases[i].name, buffer_slice(&ops), cases[i].expected);
        buffer_deinit(&ops);
    }
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

static void ended(void *host, const struct uuid *id, struct slice cause)
{
    (void)id;
    (void)cause;
    ++*(unsigned *)host;
}

/* A session that ends in a transaction that is undone is alive: nobody may be told otherwise. */
static void an_undone_node_delete_ends_no_session(void **state)
{
    struct txn_op node = {.kind = TXN_NODE, .verb = TXN_DELETE, .node = {.name = text("n")}};
    const struct step missing = {"get", "missing", NULL, 0, NULL};
    struct buffer ops = {0};
    struct buffer command = {0};
    struct command_result result;
    struct session session;
    struct fixture fixture;
    unsigned told = 0;
    const struct command_observer observer = {.host = &told, .session_ended = ended};

    (void)state;
    fixture_open(&fixture);
    fixture_begin(&fixture);
    make_session(&fixture);
    txn_op_encode(&ops, &node);
    const size_t alone = ops.size;
    put_step(&ops, &missing);
    command_encode_txn(&command, buffer_slice(&ops));
    assert_int_equal(command_apply(&fixture.txn, 1, 10, buffer_slice(&command), &observer, &result),
                     0);
    assert_false(result.ok);
    assert_int_equal(told, 0);
    assert_int_equal(session_get(&fixture.txn, &sid, &session), 0);

    buffer_clear(&command);
    command_encode_txn(&command, slice_from(ops.data, alone));
    assert_int_equal(command_apply(&fixture.txn, 1, 11, buffer_slice(&command), &observer, &result),
                     0);
    assert_true(result.ok);
    assert_int_equal(told, 1);
    assert_int_equal(session_get(&fixture.txn, &sid, &session), STORE_ENOTFOUND);
    buffer_deinit(&ops);
    buffer_deinit(&command);
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

/* Bytes cut anywhere, or with more operations than allowed, are no command. */
static void what_is_no_list_of_operations_is_refused(void **state)
{
    const struct step step = {"set", "key", "value", 7, SID_TEXT};
    struct buffer ops = {0};
    uint32_t count;

    (void)state;
    put_step(&ops, &step);
    for (size_t size = 1; size < ops.size; size++) {
        assert_false(txn_decode(slice_from(ops.data, size), &count));
    }
    for (uint32_t i = 1; i < TXN_OPS_MAX; i++) {
        put_step(&ops, &step);
    }
    assert_true(txn_decode(buffer_slice(&ops), &count));
    assert_int_equal(count, TXN_OPS_MAX);
    put_step(&ops, &step);
    assert_false(txn_decode(buffer_slice(&ops), &count));
    buffer_deinit(&ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_change_together_or_not_at_all),
        cmocka_unit_test(an_undone_node_delete_ends_no_session),
        cmocka_unit_test(what_is_no_list_of_operations_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
