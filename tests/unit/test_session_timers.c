/* The leader's TTL timers, against a plain list. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "session/timers.h"

static struct uuid number_uuid(uint64_t number)
{
    struct uuid uuid = {{0}};

    memcpy(uuid.bytes, &number, sizeof(number));
    return uuid;
}

static uint64_t random_number(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

static void a_session_is_due_at_twice_its_ttl(void **state)
{
    struct session_timers *timers;
    const struct uuid a = number_uuid(1);
    const struct uuid b = number_uuid(2);
    struct uuid id;

    (void)state;
    assert_int_equal(session_timers_new(&timers), 0);
    assert_true(session_timers_next_ms(timers) == UINT64_MAX);
    assert_false(session_timers_has(timers, &a));
    session_timers_remove(timers, &a);

    assert_int_equal(session_timers_reset(timers, &a, 10000, 500), 0);
    assert_int_equal(session_timers_reset(timers, &b, 5000, 500), 0);
    assert_int_equal(session_timers_next_ms(timers), 10500);
    assert_false(session_timers_expire(timers, 10499, &id));
    assert_int_equal(session_timers_reset(timers, &b, 5000, 10499), 0); /* renewed in time */
    assert_false(session_timers_expire(timers, 20498, &id));
    assert_true(session_timers_expire(timers, 20499, &id));
    assert_true(uuid_equal(&id, &b));
    assert_false(session_timers_expire(timers, 20499, &id));
    assert_true(session_timers_expire(timers, 20500, &id));
    assert_true(uuid_equal(&id, &a));
    assert_int_equal(session_timers_count(timers), 0);
    session_timers_free(timers);
}

static void no_ttl_is_no_timer(void **state)
{
    struct session_timers *timers;
    const struct uuid a = number_uuid(1);

    (void)state;
    assert_int_equal(session_timers_new(&timers), 0);
    assert_int_equal(session_timers_reset(timers, &a, 0, 100), 0);
    assert_int_equal(session_timers_count(timers), 0);
    assert_int_equal(session_timers_reset(timers, &a, UINT64_MAX, 100), 0);
    assert_true(session_timers_next_ms(timers) == UINT64_MAX);
    assert_int_equal(session_timers_reset(timers, &a, 0, 100), 0);
    assert_int_equal(session_timers_count(timers), 0);
    session_timers_free(timers);
    session_timers_free(NULL);
}

static void a_gap_moves_all(void **state)
{
    struct session_timers *timers;
    struct uuid id;

    (void)state;
    assert_int_equal(session_timers_new(&timers), 0);
    for (uint64_t i = 1; i <= 100; i++) {
        id = number_uuid(i);
        assert_int_equal(session_timers_retry(timers, &id, 1000 + i), 0);
    }
    session_timers_extend(timers, 5000);
    for (uint64_t i = 1; i <= 100; i++) {
        const struct uuid expected = number_uuid(i);
        assert_false(session_timers_expire(timers, 6000 + i - 1, &id));
        assert_true(session_timers_expire(timers, 6000 + i, &id));
        assert_true(uuid_equal(&id, &expected));
    }
    session_timers_free(timers);
}

static void clearing_forgets_all(void **state)
{
    struct session_timers *timers;
    struct uuid id;

    (void)state;
    assert_int_equal(session_timers_new(&timers), 0);
    session_timers_clear(timers);
    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 1; i <= 500; i++) {
            id = number_uuid(i);
            assert_int_equal(session_timers_reset(timers, &id, 10, i), 0);
        }
        assert_int_equal(session_timers_count(timers), 500);
        session_timers_clear(timers);
        assert_int_equal(session_timers_count(timers), 0);
        assert_false(session_timers_has(timers, &id));
        assert_false(session_timers_expire(timers, UINT64_MAX, &id));
    }
    session_timers_free(timers);
}

enum { MODEL_SESSIONS = 300, MODEL_STEPS = 30000 };

/* 0: not running. */
static uint64_t model_next_ms(const uint64_t due_ms[MODEL_SESSIONS])
{
    uint64_t next_ms = UINT64_MAX;

    for (size_t i = 0; i < MODEL_SESSIONS; i++) {
        next_ms = due_ms[i] != 0 && due_ms[i] < next_ms ? due_ms[i] : next_ms;
    }
    return next_ms;
}

static void timers_behave_as_a_plain_list(void **state)
{
    struct session_timers *timers;
    uint64_t due_ms[MODEL_SESSIONS] = {0};
    uint64_t seed = 31;
    uint64_t now_ms = 1;
    size_t count = 0;

    (void)state;
    assert_int_equal(session_timers_new(&timers), 0);
    for (int step = 0; step < MODEL_STEPS; step++) {
        const size_t which = random_number(&seed) % MODEL_SESSIONS;
        struct uuid id = number_uuid(which);

        now_ms += random_number(&seed) % 3;
        switch (random_number(&seed) % 4) {
        case 0:
        case 1: {
            const uint64_t ttl_ms = 1 + random_number(&seed) % 200;
            assert_int_equal(session_timers_reset(timers, &id, ttl_ms, now_ms), 0);
            count += due_ms[which] == 0 ? 1 : 0;
            due_ms[which] = now_ms + 2 * ttl_ms;
            break;
        }
        case 2:
            session_timers_remove(timers, &id);
            count -= due_ms[which] != 0 ? 1 : 0;
            due_ms[which] = 0;
            break;
        default:
            while (session_timers_expire(timers, now_ms, &id)) {
                uint64_t expired;
                memcpy(&expired, id.bytes, sizeof(expired));
                assert_true(expired < MODEL_SESSIONS);
                assert_true(due_ms[expired] != 0);
                assert_true(due_ms[expired] == model_next_ms(due_ms));
                assert_true(due_ms[expired] <= now_ms);
                due_ms[expired] = 0;
                count--;
            }
            assert_true(model_next_ms(due_ms) > now_ms);
            break;
        }
        assert_int_equal(session_timers_count(timers), count);
        assert_true(session_timers_next_ms(timers) == model_next_ms(due_ms));
        id = number_uuid(which);
        assert_int_equal(session_timers_has(timers, &id), due_ms[which] != 0);
    }
    session_timers_free(timers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_is_due_at_twice_its_ttl),
        cmocka_unit_test(no_ttl_is_no_timer),
        cmocka_unit_test(a_gap_moves_all),
        cmocka_unit_test(clearing_forgets_all),
        cmocka_unit_test(timers_behave_as_a_plain_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
