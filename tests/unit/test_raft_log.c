/* Term runs against a plain array of terms. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/raft_internal.h"

enum { ENTRIES_MAX = 200 };

struct plain_log {
    raft_index first_index;
    raft_index last_index;
    raft_term terms[ENTRIES_MAX + 1]; /* by index; also of first_index - 1 */
};

static uint64_t test_random(uint64_t *random)
{
    *random = *random * 6364136223846793005U + 1442695040888963407U;
    return *random >> 33;
}

static raft_index plain_skip_back(const struct plain_log *log, raft_index index, raft_term term)
{
    if (index > log->last_index) {
        index = log->last_index;
    }
    while (index >= log->first_index && log->terms[index] > term) {
        index--;
    }
    return index < log->first_index ? log->first_index - 1 : index;
}

static void compare(const struct raft_log *log, const struct plain_log *plain)
{
    assert_int_equal(log->last_index, plain->last_index);
    assert_int_equal(raft_log_last_term(log), plain->terms[plain->last_index]);
    for (raft_index index = 0; index <= ENTRIES_MAX; index++) {
        const bool known = index + 1 >= plain->first_index && index <= plain->last_index;
        assert_int_equal(raft_log_term_at(log, index), known ? plain->terms[index] : 0);
        for (raft_term term = 0; term < 6; term++) {
            assert_int_equal(raft_log_skip_back(log, index, term),
                             plain_skip_back(plain, index, term));
        }
    }
}

static void test_runs_say_the_same_as_an_array(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (int life = 0; life < 40; life++) {
        struct raft_log log;
        raft_index first_index = 1 + test_random(&random) % 5;
        const raft_term prev_term = first_index > 1 ? 1 : 0;
        const struct raft_state found = {.term = 1,
                                         .first_index = first_index,
                                         .last_index = first_index - 1,
                                         .prev_term = prev_term};
        struct plain_log plain = {.first_index = first_index, .last_index = first_index - 1};
        plain.terms[first_index - 1] = prev_term;
        raft_term term = 1;
        assert_int_equal(raft_log_init(&log, &found), RAFT_OK);
        for (int i = 0; i < 60; i++) {
            if (test_random(&random) % 8 == 0 && plain.last_index >= first_index) {
                const raft_index from =
                    first_index + test_random(&random) % (plain.last_index + 1 - first_index);
                raft_log_truncate(&log, from);
                plain.last_index = from - 1;
            }
            if (test_random(&random) % 10 == 0 && plain.last_index >= first_index) {
                const raft_index index =
                    first_index + test_random(&random) % (plain.last_index + 1 - first_index);
                raft_log_compact(&log, index);
                first_index = index + 1;
                plain.first_index = first_index;
            }
            term += test_random(&random) % 6 == 0 ? 1 : 0;
            assert_int_equal(raft_log_reserve(&log, 1), RAFT_OK);
            raft_log_append(&log, term);
            plain.terms[++plain.last_index] = term;
            if (i % 10 == 0) {
                compare(&log, &plain);
            }
        }
        compare(&log, &plain);
        raft_log_deinit(&log);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_say_the_same_as_an_array),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
