#include "tests/unit/state_fixture.h"

#include "server/command.h"

static const struct uuid sid1 = {{1, 2, 3, 4}}, sid2 = {{5, 6, 7, 8}};
#define SID2_TEXT "05060708-0000-0000-0000-000000000000"

/* --- what an observer saw, as text --- */

struct seen {
    struct buffer text;
};

static void on_created(void *host, const struct session *session)
{
    struct seen *seen = host;

    buffer_printf(&seen->text, "+%u@%llu ", session->id.bytes[0],
                  (unsigned long long)session->create_index);
}

static void on_ended(void *host, const struct uuid *id, struct slice cause)
{
    struct seen *seen = host;

    buffer_printf(&seen->text, "-%u %.*s; ", id->bytes[0], (int)cause.size, cause.data);
}

/* --- one line per command --- */

static void encode_session(struct buffer *out, const struct uuid *id, const char *node,
                           const char *check)
{
    struct buffer checks = {0};
    struct session session = {.id = *id,
                              .node = text(node),
                              .lock_delay_ns = SESSION_LOCK_DELAY_NS_DEFAULT,
                              .service_checks = STRINGS_NULL,
                              .checks = STRINGS_NULL};

    if (check != NULL) {
        strings_pack_add(&checks, text(check));
        session.node_checks = strings_from_packed(buffer_slice(&checks), 1);
    }
    command_encode_session_create(out, &session);
    buffer_deinit(&checks);
}

static void encode_register(struct buffer *out, const char *node, const char *address,
                            const char *service, const char *check, const char *status)
{
    struct buffer one = {0}, checks = {0};
    struct catalog_registration registration = {
        .node = {.name = text(node), .address = text(address)},
        .has_service = service != NULL,
        .service = {.name = text(service), .weight_passing = 1, .weight_warning = 1},
    };

    if (check != NULL) {
        const struct catalog_check record = {
            .id = text(check), .status = text(status), .service_id = text(service)};
        catalog_check_encode(&one, &record);
        buffer_put_string(&checks, buffer_slice(&one));
        registration.check_count = 1;
        registration.checks = buffer_slice(&checks);
    }
    command_encode_register(out, &registration);
    buffer_deinit(&one);
    buffer_deinit(&checks);
}

struct runner {
    struct fixture fixture;
    struct buffer command;
    struct seen seen;
    uint64_t index;
    uint64_t now_ms;
    struct command_result result;
};

static void runner_open(struct runner *runner)
{
    memset(runner, 0, sizeof(*runner));
    fixture_open(&runner->fixture);
    fixture_begin(&runner->fixture);
    runner->index = 100;
}

static void runner_close(struct runner *runner)
{
    fixture_commit(&runner->fixture);
    fixture_close(&runner->fixture);
    buffer_deinit(&runner->command);
    buffer_deinit(&runner->seen.text);
}

/* Applies what was encoded into runner->command, and demands its outcome. */
static void runner_apply(struct runner *runner, const char *name, bool ok, const char *error,
                         const char *seen)
{
    const struct command_observer observer = {
        .host = &runner->seen, .session_created = on_created, .session_ended = on_ended};

    assert_true(command_valid(buffer_slice(&runner->command)));
    assert_true(command_stamp(runner->command.data, runner->command.size, runner->now_ms));
    assert_true(command_valid(buffer_slice(&runner->command)));
    buffer_clear(&runner->seen.text);
    const uint64_t before = fixture_checksum(&runner->fixture.txn);
    assert_int_equal(command_apply(&runner->fixture.txn, 1, ++runner->index,
                                   buffer_slice(&runner->command), &observer, &runner->result),
                     0);
    const struct command_result *result = &runner->result;
    if ((result->status == COMMAND_REFUSED) != (error != NULL) || result->ok != ok ||
        strcmp(result->error.text, error == NULL ? "" : error) != 0 ||
        !slice_equal(buffer_slice(&runner->seen.text), text(seen))) {
        fail_msg("%s: status %d ok %d '%s' seen '%.*s'", name, result->status, result->ok,
                 result->error.text, (int)runner->seen.text.size, runner->seen.text.data);
    }
    if (error != NULL && fixture_checksum(&runner->fixture.txn) != before) {
        fail_msg("%s: refused, but something changed", name);
    }
    assert_int_equal(result->index, runner->index);
    buffer_clear(&runner->command);
}

static void run_kv(struct runner *runner, enum command_kv_verb verb, const char *key, uint64_t cas,
                   const struct uuid *session, bool ok, const char *error)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "kv verb %d at %llu", verb,
                   (unsigned long long)runner->index + 1);
    command_encode_kv(&runner->command, verb, text(key), SLICE_LITERAL("v"), runner->index, cas,
                      session);
    runner_apply(runner, name, ok, error, "");
}

static void test_each_command_does_its_work(void **state)
{
    struct runner r;
    struct kv_entry entry;

    (void)state;
    runner_open(&r);
    command_encode_leader_start(&r.command);
    runner_apply(&r, "leader", true, NULL, "");
    run_kv(&r, COMMAND_KV_SET, "a", 0, NULL, true, NULL);
    run_kv(&r, COMMAND_KV_CAS, "a", 0, NULL, false, NULL);
    run_kv(&r, COMMAND_KV_CAS, "a", 102, NULL, true, NULL);
    run_kv(&r, COMMAND_KV_LOCK, "l", 0, &sid2, false, "invalid session \"" SID2_TEXT "\"");
    run_kv(&r, COMMAND_KV_UNLOCK, "l", 0, &sid2, false, NULL);
    run_kv(&r, COMMAND_KV_DELETE_CAS, "a", 1, NULL, false, NULL);
    run_kv(&r, COMMAND_KV_DELETE_CAS, "missing", 1, NULL, true, NULL);
    run_kv(&r, COMMAND_KV_DELETE, "missing", 0, NULL, true, NULL);
    run_kv(&r, COMMAND_KV_DELETE, "a", 0, NULL, true, NULL);
    run_kv(&r, COMMAND_KV_SET, "p/1", 0, NULL, true, NULL);
    run_kv(&r, COMMAND_KV_DELETE_PREFIX, "p/", 0, NULL, true, NULL);
    run_kv(&r, COMMAND_KV_DELETE_PREFIX, "", 0, NULL, true, NULL);
    assert_int_equal(kv_get(&r.fixture.txn, text("p/1"), &entry), STORE_ENOTFOUND);

    encode_session(&r.command, &sid1, "n1", NULL);
    runner_apply(&r, "no node", false, "Missing node registration", "");
    encode_register(&r.command, "n1", "", NULL, NULL, NULL);
    runner_apply(&r, "no address", false, "Must provide address if SkipNodeUpdate is not set", "");
    encode_register(&r.command, "n1", "10.0.0.1", "web", "c", "passing");
    runner_apply(&r, "register", true, NULL, "");
    encode_session(&r.command, &sid1, "n1", "nope");
    runner_apply(&r, "no check", false, "Missing check 'nope' registration", "");
    encode_session(&r.command, &sid1, "n1", "c");
    runner_apply(&r, "session", true, NULL, "+1@118 ");
    encode_session(&r.command, &sid1, "n1", NULL);
    runner_apply(&r, "taken", false, "session id already exists", "");

    run_kv(&r, COMMAND_KV_LOCK, "l", 0, &sid1, true, NULL);
    run_kv(&r, COMMAND_KV_LOCK, "l", 0, &sid2, false, "invalid session \"" SID2_TEXT "\"");
    encode_session(&r.command, &sid2, "N1", NULL);
    runner_apply(&r, "second session", true, NULL, "+5@122 ");
    run_kv(&r, COMMAND_KV_LOCK, "l", 0, &sid2, false, NULL);

    encode_register(&r.command, "n1", "10.0.0.1", "web", "c", "critical");
    runner_apply(&r, "critical", true, NULL, "-1 check 'c' critical; ");
    assert_int_equal(kv_get(&r.fixture.txn, text("l"), &entry), 0);
    assert_true(uuid_is_zero(&entry.session));
    run_kv(&r, COMMAND_KV_LOCK, "l", 0, &sid2, false, NULL); /* Lock-delay. */
    r.now_ms += 16000;
    command_encode_reap(&r.command, 0);
    runner_apply(&r, "reap", true, NULL, "");
    run_kv(&r, COMMAND_KV_LOCK, "l", 0, &sid2, true, NULL);

    command_encode_session_destroy(&r.command, &sid1, SLICE_LITERAL("late"));
    runner_apply(&r, "destroyed before", true, NULL, "");
    command_encode_session_destroy(&r.command, &sid2, SLICE_LITERAL("ttl expired"));
    runner_apply(&r, "destroy", true, NULL, "-5 ttl expired; ");

    encode_session(&r.command, &sid1, "n1", NULL);
    runner_apply(&r, "session again", true, NULL, "+1@130 ");
    command_encode_deregister(&r.command, text("n1"), text("web"), SLICE_EMPTY);
    runner_apply(&r, "service", true, NULL, "");
    command_encode_deregister(&r.command, text("N1"), SLICE_EMPTY, SLICE_EMPTY);
    runner_apply(&r, "node", true, NULL, "-1 node 'N1' removed; ");
    command_encode_deregister(&r.command, text("N1"), SLICE_EMPTY, SLICE_EMPTY);
    runner_apply(&r, "node again", true, NULL, "");
    runner_close(&r);
}

/* A new leader's clock is another one: what was left of a delay counts for nothing. */
static void test_leader_start_runs_lock_delays_anew(void **state)
{
    struct runner r;
    struct command_result result;

    (void)state;
    runner_open(&r);
    r.now_ms = 1000000;
    encode_register(&r.command, "n1", "10.0.0.1", NULL, NULL, NULL);
    runner_apply(&r, "node", true, NULL, "");
    encode_session(&r.command, &sid1, "n1", NULL);
    runner_apply(&r, "one", true, NULL, "+1@102 ");
    encode_session(&r.command, &sid2, "n1", NULL);
    runner_apply(&r, "two", true, NULL, "+5@103 ");
    run_kv(&r, COMMAND_KV_LOCK, "l", 0, &sid1, true, NULL);
    command_encode_session_destroy(&r.command, &sid1, SLICE_LITERAL("x"));
    runner_apply(&r, "destroy", true, NULL, "-1 x; ");

    command_encode_leader_start(&r.command);
    assert_true(command_stamp(r.command.data, r.command.size, 5));
    assert_int_equal(
        command_apply(&r.fixture.txn, 2, ++r.index, buffer_slice(&r.command), NULL, &result), 0);
    static const struct {
        uint64_t now_ms;
        bool ok;
    } cases[] = {{14999, false}, {15006, true}};
    for (size_t i = 0; i < 2; i++) {
        buffer_clear(&r.command);
        command_encode_kv(&r.command, COMMAND_KV_LOCK, text("l"), SLICE_EMPTY, 0, 0, &sid2);
        assert_true(command_stamp(r.command.data, r.command.size, cases[i].now_ms));
        assert_int_equal(
            command_apply(&r.fixture.txn, 2, ++r.index, buffer_slice(&r.command), NULL, &result),
            0);
        assert_int_equal(result.ok, cases[i].ok);
    }
    runner_close(&r);
}

/* --- bytes that are no command --- */

/* One of each kind, in the given buffers. */
enum { KIND_COUNT = 8 };
static void encode_kinds(struct buffer commands[KIND_COUNT])
{
    command_encode_leader_start(&commands[0]);
    command_encode_kv(&commands[1], COMMAND_KV_LOCK, text("service/main/leader"), text("node1"), 7,
                      8, &sid1);
    encode_session(&commands[2], &sid1, "n1", "serfHealth");
    command_encode_session_destroy(&commands[3], &sid1, SLICE_LITERAL("ttl expired"));
    encode_register(&commands[4], "n1", "10.0.0.1", "master", "c", "critical");
    command_encode_deregister(&commands[5], text("n1"), text("a"), text("b"));
    command_encode_reap(&commands[6], 77);
    command_encode_kv(&commands[7], COMMAND_KV_DELETE_PREFIX, SLICE_EMPTY, SLICE_EMPTY, 0, 0, NULL);
}

static uint32_t random_next(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

/* Refused by the leader, and what a server stops at, without effect, that finds it in its log. */
static void test_truncated_commands_are_unknown(void **state)
{
    struct buffer commands[KIND_COUNT] = {{0}};
    struct fixture fixture;
    struct command_result result;

    (void)state;
    encode_kinds(commands);
    fixture_open(&fixture);
    fixture_begin(&fixture);
    const uint64_t before = fixture_checksum(&fixture.txn);
    for (size_t kind = 0; kind < KIND_COUNT; kind++) {
        assert_true(command_valid(buffer_slice(&commands[kind])));
        for (size_t size = 0; size < commands[kind].size; size++) {
            /* A copy of its own size, so that a sanitizer sees a read past its end. */
            char *copy = malloc(size == 0 ? 1 : size);
            assert_non_null(copy);
            memcpy(copy, commands[kind].data, size);
            if (command_valid(slice_from(copy, size))) {
                fail_msg("kind %zu cut to %zu bytes is valid", kind, size);
            }
            assert_int_equal(command_stamp(copy, size, 1), size >= 10);
            assert_int_equal(
                command_apply(&fixture.txn, 1, 1, slice_from(copy, size), NULL, &result),
                COMMAND_EUNKNOWN);
            assert_string_not_equal(result.error.text, "");
            free(copy);
        }
        buffer_put_u8(&commands[kind], 0);
        assert_false(command_valid(buffer_slice(&commands[kind])));
        buffer_deinit(&commands[kind]);
    }
    assert_int_equal(fixture_checksum(&fixture.txn), before);
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

static void test_commands_beyond_their_bounds_are_refused(void **state)
{
    static char long_key[COMMAND_KEY_BYTES_MAX + 1];
    struct buffer bytes = {0};
    const struct {
        const char *name;
        enum command_kv_verb verb;
        size_t key_size;
        bool valid;
    } cases[] = {
        {"longest key", COMMAND_KV_SET, COMMAND_KEY_BYTES_MAX, true},
        {"too long", COMMAND_KV_SET, COMMAND_KEY_BYTES_MAX + 1, false},
        {"empty", COMMAND_KV_SET, 0, false},
        {"empty prefix", COMMAND_KV_DELETE_PREFIX, 0, true},
        {"no verb", (enum command_kv_verb)0, 1, false},
        {"unknown verb", (enum command_kv_verb)(COMMAND_KV_DELETE_PREFIX + 1), 1, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        buffer_clear(&bytes);
        command_encode_kv(&bytes, cases[i].verb, slice_from(long_key, cases[i].key_size),
                          SLICE_EMPTY, 0, 0, NULL);
        if (command_valid(buffer_slice(&bytes)) != cases[i].valid) {
            fail_msg("%s", cases[i].name);
        }
    }
    /* A cause that is too long is cut, not refused: the session must end. */
    buffer_clear(&bytes);
    command_encode_session_destroy(&bytes, &sid1, slice_from(long_key, sizeof(long_key)));
    assert_true(command_valid(buffer_slice(&bytes)));
    /* Another version, another type. */
    for (size_t at = 0; at < 2; at++) {
        buffer_clear(&bytes);
        command_encode_leader_start(&bytes);
        bytes.data[at] = 99;
        assert_false(command_valid(buffer_slice(&bytes)));
    }
    buffer_deinit(&bytes);
}

/* --- the same log, the same state --- */

static const char *pick(uint64_t *seed, const char *const *list, size_t count)
{
    return list[random_next(seed) % count];
}

static void encode_random(struct buffer *out, uint64_t *seed)
{
    static const char *const keys[] = {"a", "a/b", "a/c", "service/main/leader", "z"};
    static const char *const nodes[] = {"n1", "N1", "n2", "n3"};
    static const char *const services[] = {"web", "Web", "api"};
    static const char *const checks[] = {"c1", "C1", "c2"};
    static const char *const states[] = {"passing", "critical", "warning"};
    static const char *const addresses[] = {"10.0.0.1", "10.0.0.2", ""};
    const struct uuid id = {{(uint8_t)(1 + random_next(seed) % 4)}};
    const uint32_t kind = random_next(seed) % 16;

    if (kind < 7) {
        const enum command_kv_verb verb =
            (enum command_kv_verb)(COMMAND_KV_SET + random_next(seed) % COMMAND_KV_DELETE_PREFIX);
        command_encode_kv(out, verb, text(pick(seed, keys, 5)),
                          text(random_next(seed) % 2 == 0 ? "one" : "two"), random_next(seed) % 2,
                          random_next(seed) % 200, &id);
    } else if (kind < 9) {
        encode_session(out, &id, pick(seed, nodes, 4),
                       random_next(seed) % 2 == 0 ? pick(seed, checks, 3) : NULL);
    } else if (kind < 10) {
        command_encode_session_destroy(out, &id, SLICE_LITERAL("random"));
    } else if (kind < 13) {
        encode_register(out, pick(seed, nodes, 4), pick(seed, addresses, 3),
                        random_next(seed) % 2 == 0 ? pick(seed, services, 3) : NULL,
                        random_next(seed) % 2 == 0 ? pick(seed, checks, 3) : NULL,
                        pick(seed, states, 3));
    } else if (kind < 15) {
        const uint32_t what = random_next(seed) % 4;
        command_encode_deregister(out, text(pick(seed, nodes, 4)),
                                  what == 1 ? text(pick(seed, services, 3)) : SLICE_EMPTY,
                                  what == 2 ? text(pick(seed, checks, 3)) : SLICE_EMPTY);
    } else if (random_next(seed) % 2 == 0) {
        command_encode_reap(out, random_next(seed) % 300);
    } else {
        command_encode_leader_start(out);
    }
    assert_false(out->failed);
    (void)command_stamp(out->data, out->size, random_next(seed) % 100000);
    if (random_next(seed) % 8 == 0 && out->size > 10) { /* Garbage now and then. */
        out->data[random_next(seed) % out->size] ^= (char)(1 << random_next(seed) % 8);
    }
}

/* Commits in batches of another size on each server: what a batch is may not matter. */
static void test_equal_logs_give_equal_states_and_results(void **state)
{
    enum { COMMANDS = 3000, SERVERS = 2 };
    static const uint64_t batch[SERVERS] = {1, 17};
    struct fixture fixtures[SERVERS];
    struct seen seen[SERVERS] = {{{0}}, {{0}}};
    struct buffer command = {0};
    uint64_t seed = 20201118, refused = 0, done = 0;

    (void)state;
    for (size_t s = 0; s < SERVERS; s++) {
        fixture_open(&fixtures[s]);
        fixture_begin(&fixtures[s]);
    }
    for (uint64_t index = 1; index <= COMMANDS; index++) {
        struct command_result results[SERVERS];

        buffer_clear(&command);
        encode_random(&command, &seed);
        for (size_t s = 0; s < SERVERS; s++) {
            const struct command_observer observer = {
                .host = &seen[s], .session_created = on_created, .session_ended = on_ended};
            const uint64_t before = fixture_checksum(&fixtures[s].txn);

            const int rc = command_apply(&fixtures[s].txn, 1 + index / 500, index,
                                         buffer_slice(&command), &observer, &results[s]);

            assert_int_equal(rc, command_valid(buffer_slice(&command)) ? 0 : COMMAND_EUNKNOWN);
            if ((rc == COMMAND_EUNKNOWN || results[s].status == COMMAND_REFUSED) &&
                fixture_checksum(&fixtures[s].txn) != before) {
                fail_msg("%llu: refused, but something changed", (unsigned long long)index);
            }
            if (index % batch[s] == 0) {
                fixture_commit(&fixtures[s]);
                fixture_begin(&fixtures[s]);
            }
        }
        assert_int_equal(results[0].status, results[1].status);
        assert_int_equal(results[0].ok, results[1].ok);
        assert_string_equal(results[0].error.text, results[1].error.text);
        if (fixture_checksum(&fixtures[0].txn) != fixture_checksum(&fixtures[1].txn)) {
            fail_msg("states differ after %llu", (unsigned long long)index);
        }
        refused += results[0].status == COMMAND_REFUSED;
        done += results[0].status == COMMAND_DONE;
    }
    assert_true(slice_equal(buffer_slice(&seen[0].text), buffer_slice(&seen[1].text)));
    assert_true(seen[0].text.size > 0);
    assert_true(refused > COMMANDS / 100); /* Both ways were walked. */
    assert_true(done > COMMANDS / 2);
    for (size_t s = 0; s < SERVERS; s++) {
        fixture_commit(&fixtures[s]);
        fixture_close(&fixtures[s]);
        buffer_deinit(&seen[s].text);
    }
    buffer_deinit(&command);
}

/* Whatever a flipped bit makes of a command, valid and apply agree, and nothing crashes. */
static void test_flipped_commands_are_applied_or_unknown_as_announced(void **state)
{
    struct buffer commands[KIND_COUNT] = {{0}};
    struct fixture fixture;
    struct command_result result;
    uint64_t seed = 7, index = 0;

    (void)state;
    encode_kinds(commands);
    fixture_open(&fixture);
    fixture_begin(&fixture);
    for (int round = 0; round < 4000; round++) {
        const struct buffer *command = &commands[random_next(&seed) % KIND_COUNT];
        const size_t at = random_next(&seed) % command->size;
        const char kept = command->data[at];

        command->data[at] = (char)random_next(&seed);
        const bool valid = command_valid(buffer_slice(command));
        assert_int_equal(
            command_apply(&fixture.txn, 1, ++index, buffer_slice(command), NULL, &result),
            valid ? 0 : COMMAND_EUNKNOWN);
        command->data[at] = kept;
    }
    for (size_t kind = 0; kind < KIND_COUNT; kind++) {
        buffer_deinit(&commands[kind]);
    }
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_command_does_its_work),
        cmocka_unit_test(test_leader_start_runs_lock_delays_anew),
        cmocka_unit_test(test_truncated_commands_are_unknown),
        cmocka_unit_test(test_commands_beyond_their_bounds_are_refused),
        cmocka_unit_test(test_equal_logs_give_equal_states_and_results),
        cmocka_unit_test(test_flipped_commands_are_applied_or_unknown_as_announced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
