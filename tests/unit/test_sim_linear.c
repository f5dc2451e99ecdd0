/* The linearizability checker: histories that have an order and histories that have none, and a
 * comparison with the obvious search through all orders. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/sim_linear.h"

enum { STATES_MAX = 100000 };

/* --- histories in a line --- */

/* One step of a written history: 'c' calls operation `name`, 'r' returns it, 'd' drops it. */
struct step {
    char what;
    char name;
    struct sim_linear_call call;
    struct sim_linear_answer answer;
};

#define KEY 7

#define CALL(operation, kind_, ...)                                                                \
    {                                                                                              \
        .what = 'c', .name = (operation), .call = {.kind = (kind_), .key = KEY, __VA_ARGS__},      \
    }
#define READ(operation) CALL(operation, SIM_LINEAR_READ, .value = 0)
#define WRITE(operation, to) CALL(operation, SIM_LINEAR_WRITE, .value = (to))
#define CAS_INDEX(operation, if_, to)                                                              \
    CALL(operation, SIM_LINEAR_CAS_INDEX, .expected = (if_), .value = (to))
#define CAS_VALUE(operation, if_, to)                                                              \
    CALL(operation, SIM_LINEAR_CAS_VALUE, .expected = (if_), .value = (to))
#define DELETE(operation) CALL(operation, SIM_LINEAR_DELETE, .value = 0)
#define DELETE_CAS(operation, if_) CALL(operation, SIM_LINEAR_DELETE_CAS, .expected = (if_))
#define OK(operation)                                                                              \
    {                                                                                              \
        .what = 'r', .name = (operation), .answer = {.done = true }                                \
    }
#define OK_AT(operation, index_)                                                                   \
    {                                                                                              \
        .what = 'r', .name = (operation), .answer = {.done = true, .index = (index_) }             \
    }
#define REFUSED(operation)                                                                         \
    {                                                                                              \
        .what = 'r', .name = (operation)                                                           \
    }
#define SAW(operation, value_, index_)                                                             \
    {                                                                                              \
        .what = 'r', .name = (operation), .answer = {                                              \
            .found = true,                                                                         \
            .value = (value_),                                                                     \
            .index = (index_)                                                                      \
        }                                                                                          \
    }
#define ABSENT(operation)                                                                          \
    {                                                                                              \
        .what = 'r', .name = (operation)                                                           \
    }
#define DROP(operation)                                                                            \
    {                                                                                              \
        .what = 'd', .name = (operation)                                                           \
    }

struct written {
    const char *name;
    enum sim_linear_verdict verdict;
    struct step steps[24];
};

static const struct written histories[] = {
    {"nothing at all", SIM_LINEAR_YES, {{0}}},
    {"absent until written, then that",
     SIM_LINEAR_YES,
     {READ('a'), ABSENT('a'), WRITE('b', 1), OK('b'), READ('c'), SAW('c', 1, 10)}},
    {"a read that began before the write ended may see either",
     SIM_LINEAR_YES,
     {WRITE('a', 1), READ('b'), READ('c'), OK('a'), ABSENT('b'), SAW('c', 1, 10)}},
    {"a read after the write has ended sees it",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK('a'), READ('b'), ABSENT('b')}},
    {"what was read once is not unread",
     SIM_LINEAR_NO,
     {WRITE('a', 1), READ('b'), SAW('b', 1, 10), READ('c'), ABSENT('c'), OK('a')}},
    {"nobody reads what nobody wrote", SIM_LINEAR_NO, {READ('a'), SAW('a', 5, 10)}},
    {"nobody reads what is written only later",
     SIM_LINEAR_NO,
     {READ('a'), SAW('a', 5, 10), WRITE('b', 5), OK('b')}},
    {"two readers agree on the order of two writes",
     SIM_LINEAR_NO,
     {WRITE('a', 1), WRITE('b', 2), READ('c'), SAW('c', 1, 0), READ('d'), SAW('d', 2, 0), READ('e'),
      SAW('e', 1, 0), OK('a'), OK('b')}},
    {"two writes at a time may end in either order",
     SIM_LINEAR_YES,
     {WRITE('a', 1), WRITE('b', 2), OK('b'), OK('a'), READ('c'), SAW('c', 2, 0)}},
    {"a write of unknown outcome may never happen",
     SIM_LINEAR_YES,
     {WRITE('a', 1), READ('b'), ABSENT('b'), READ('c'), ABSENT('c')}},
    {"a write of unknown outcome may happen late",
     SIM_LINEAR_YES,
     {WRITE('a', 1), READ('b'), ABSENT('b'), WRITE('c', 2), OK('c'), READ('d'), SAW('d', 1, 12)}},
    {"a write of unknown outcome does not happen twice",
     SIM_LINEAR_NO,
     {WRITE('a', 1), READ('b'), SAW('b', 1, 0), WRITE('c', 2), OK('c'), READ('d'), SAW('d', 2, 0),
      READ('e'), SAW('e', 1, 0)}},
    {"a write of unknown outcome does not happen before its call",
     SIM_LINEAR_NO,
     {READ('a'), SAW('a', 1, 0), WRITE('b', 1)}},
    {"a write that was refused does not happen",
     SIM_LINEAR_NO,
     {WRITE('a', 1), DROP('a'), READ('b'), SAW('b', 1, 0)}},
    {"of two cas on one index one is done",
     SIM_LINEAR_YES,
     {WRITE('a', 1), OK_AT('a', 10), CAS_INDEX('b', 10, 2), CAS_INDEX('c', 10, 3), OK('b'),
      REFUSED('c'), READ('d'), SAW('d', 2, 11)}},
    {"of two cas on one index not both are done",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK_AT('a', 10), CAS_INDEX('b', 10, 2), CAS_INDEX('c', 10, 3), OK('b'),
      OK('c')}},
    {"an index that a read told is as good as the write's own",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK('a'), READ('r'), SAW('r', 1, 10), CAS_INDEX('b', 10, 2),
      CAS_INDEX('c', 10, 3), OK('b'), OK('c')}},
    {"a cas is not refused when its condition holds all the time",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK_AT('a', 10), CAS_INDEX('b', 10, 2), REFUSED('b')}},
    {"a refused cas tells that a write of unknown outcome came between",
     SIM_LINEAR_YES,
     {WRITE('a', 1), OK_AT('a', 10), WRITE('u', 9), CAS_INDEX('b', 10, 2), REFUSED('b')}},
    {"but then it has happened",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK_AT('a', 10), WRITE('u', 9), CAS_INDEX('b', 10, 2), REFUSED('b'), READ('c'),
      SAW('c', 1, 10)}},
    {"of two creations one is done",
     SIM_LINEAR_NO,
     {CAS_INDEX('a', 0, 1), CAS_INDEX('b', 0, 2), OK('a'), OK('b')}},
    {"after a deletion a key can be created again",
     SIM_LINEAR_YES,
     {CAS_INDEX('a', 0, 1), OK('a'), DELETE('b'), OK('b'), CAS_INDEX('c', 0, 2), OK('c'), READ('d'),
      SAW('d', 2, 14)}},
    {"a deletion of unknown outcome explains a second creation",
     SIM_LINEAR_YES,
     {CAS_INDEX('a', 0, 1), OK('a'), DELETE('b'), CAS_INDEX('c', 0, 2), OK('c')}},
    {"one deletion does not explain two",
     SIM_LINEAR_NO,
     {CAS_INDEX('a', 0, 1), OK('a'), DELETE('b'), CAS_INDEX('c', 0, 2), OK('c'),
      CAS_INDEX('d', 0, 3), OK('d')}},
    {"a deletion of an absent key may wait for the write",
     SIM_LINEAR_YES,
     {DELETE('a'), WRITE('b', 1), OK('b'), OK('a'), READ('c'), ABSENT('c')}},
    {"a deleted value is gone",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK('a'), DELETE('b'), OK('b'), READ('c'), SAW('c', 1, 10)}},
    {"a conditional deletion goes by the index",
     SIM_LINEAR_YES,
     {WRITE('a', 1), OK_AT('a', 10), DELETE_CAS('b', 9), REFUSED('b'), DELETE_CAS('c', 10), OK('c'),
      READ('d'), ABSENT('d'), DELETE_CAS('e', 10), OK('e')}},
    {"a conditional deletion of a changed key is refused",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK_AT('a', 10), WRITE('b', 2), OK_AT('b', 11), DELETE_CAS('c', 10), OK('c')}},
    {"a cas on the value that a read saw",
     SIM_LINEAR_YES,
     {WRITE('a', 1), OK('a'), CAS_VALUE('b', 1, 2), CAS_VALUE('c', 1, 3), REFUSED('b'), OK('c')}},
    {"of two cas on one value not both are done",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK('a'), CAS_VALUE('b', 1, 2), CAS_VALUE('c', 1, 3), OK('b'), OK('c')}},
    {"a cas of unknown outcome may be the one",
     SIM_LINEAR_YES,
     {WRITE('a', 1), OK('a'), CAS_VALUE('b', 1, 2), CAS_VALUE('c', 1, 3), REFUSED('c'), READ('d'),
      SAW('d', 2, 0)}},
    {"indexes rise", SIM_LINEAR_NO, {WRITE('a', 1), OK_AT('a', 10), WRITE('b', 2), OK_AT('b', 9)}},
    {"indexes tell the order of writes that run at a time",
     SIM_LINEAR_NO,
     {WRITE('a', 1), WRITE('b', 2), OK_AT('a', 11), OK_AT('b', 10), READ('c'), SAW('c', 2, 10)}},
    {"a value does not come back under another index",
     SIM_LINEAR_NO,
     {WRITE('a', 1), OK('a'), READ('b'), SAW('b', 1, 10), READ('c'), SAW('c', 1, 12)}},
    {"unless it was written twice",
     SIM_LINEAR_YES,
     {WRITE('a', 1), WRITE('x', 1), OK('a'), READ('b'), SAW('b', 1, 10), READ('c'), SAW('c', 1, 12),
      OK('x')}},
};

static void step_make(struct sim_linear *history, const struct step *step, size_t *numbers)
{
    size_t *number = &numbers[(unsigned char)step->name];

    if (step->what == 'c') {
        *number = sim_linear_call(history, &step->call);
        assert_int_not_equal(*number, SIZE_MAX);
    } else if (step->what == 'r') {
        sim_linear_return(history, *number, &step->answer);
    } else {
        sim_linear_drop(history, *number);
    }
}

static void histories_are_judged_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(histories) / sizeof(histories[0]); i++) {
        size_t numbers[256];
        struct sim_linear *history = sim_linear_new();
        for (const struct step *step = histories[i].steps; step->what != 0; step++) {
            step_make(history, step, numbers);
        }
        const struct sim_linear_result result = sim_linear_check(history, STATES_MAX);
        if (result.verdict != histories[i].verdict) {
            sim_linear_print(history, KEY, stderr);
            fail_msg("%s: verdict %d", histories[i].name, (int)result.verdict);
        }
        if (result.verdict == SIM_LINEAR_NO) {
            assert_int_equal(result.key, KEY);
        }
        sim_linear_free(history);
    }
}

static void keys_are_judged_apart(void **state)
{
    (void)state;
    struct sim_linear *history = sim_linear_new();
    size_t first =
        sim_linear_call(history, &(struct sim_linear_call){SIM_LINEAR_WRITE, 1, 0, 5, 0});
    sim_linear_return(history, first, &(struct sim_linear_answer){.done = true});
    const size_t other =
        sim_linear_call(history, &(struct sim_linear_call){SIM_LINEAR_READ, 2, 0, 0, 0});
    sim_linear_return(history, other, &(struct sim_linear_answer){.found = false});
    assert_int_equal(sim_linear_check(history, STATES_MAX).verdict, SIM_LINEAR_YES);

    first = sim_linear_call(history, &(struct sim_linear_call){SIM_LINEAR_READ, 2, 0, 0, 0});
    sim_linear_return(history, first, &(struct sim_linear_answer){.found = true, .value = 5});
    const struct sim_linear_result result = sim_linear_check(history, STATES_MAX);
    assert_int_equal(result.verdict, SIM_LINEAR_NO);
    assert_int_equal(result.key, 2);
    sim_linear_free(history);
}

/* --- random histories of a real register, and the same with one answer changed --- */

static uint64_t random_next(uint64_t *random)
{
    *random = *random * 6364136223846793005U + 1442695040888963407U;
    return *random >> 33;
}

/* A register as the servers would keep it. */
struct shadow {
    bool present;
    uint64_t value;
    uint64_t index;
    uint64_t last_index;
};

static struct sim_linear_answer shadow_do(struct shadow *shadow, const struct sim_linear_call *call)
{
    struct sim_linear_answer answer = {.done = true};
    const bool same_index = shadow->present ? shadow->index == call->expected : call->expected == 0;

    switch (call->kind) {
    case SIM_LINEAR_READ:
        return (struct sim_linear_answer){
            .found = shadow->present, .value = shadow->value, .index = shadow->index};
    case SIM_LINEAR_CAS_INDEX:
        answer.done = same_index;
        break;
    case SIM_LINEAR_CAS_VALUE:
        answer.done = shadow->present && shadow->value == call->expected;
        break;
    case SIM_LINEAR_DELETE_CAS:
        answer.done = !shadow->present || same_index;
        break;
    case SIM_LINEAR_WRITE:
    case SIM_LINEAR_DELETE:
        break;
    }
    if (!answer.done) {
        return answer;
    }
    if (call->kind == SIM_LINEAR_DELETE || call->kind == SIM_LINEAR_DELETE_CAS) {
        shadow->present = false;
    } else {
        shadow->index = ++shadow->last_index;
        shadow->value = call->value;
        shadow->present = true;
        answer.index = shadow->last_index % 3 == 0 ? shadow->last_index : 0;
    }
    return answer;
}

enum { CLIENTS = 4, RANDOM_OPERATIONS_MAX = 400 };

struct client {
    size_t number;
    bool busy;
    bool done; /* the server has carried it out */
    struct sim_linear_call call;
    struct sim_linear_answer answer;
};

static void client_call(struct sim_linear *history, struct client *client, uint64_t *random,
                        const struct shadow *shadow, uint64_t value)
{
    static const enum sim_linear_kind kinds[] = {
        SIM_LINEAR_READ,      SIM_LINEAR_READ,      SIM_LINEAR_READ,   SIM_LINEAR_WRITE,
        SIM_LINEAR_CAS_INDEX, SIM_LINEAR_CAS_VALUE, SIM_LINEAR_DELETE, SIM_LINEAR_DELETE_CAS};

    *client = (struct client){.busy = true};
    client->call = (struct sim_linear_call){.kind = kinds[random_next(random) % 8],
                                            .key = KEY,
                                            .value = value,
                                            .expected = shadow->index};
    if (client->call.kind == SIM_LINEAR_CAS_VALUE) {
        client->call.expected = shadow->value;
    } else if (client->call.kind == SIM_LINEAR_CAS_INDEX && random_next(random) % 3 == 0) {
        client->call.expected = 0;
    }
    client->number = sim_linear_call(history, &client->call);
}

/* A history that a correct server gives; with `lie`, the answer to one read is an older value. */
static struct sim_linear *history_random(uint64_t seed, size_t operations, unsigned lost_percent,
                                         bool lie, bool *lied)
{
    struct sim_linear *history = sim_linear_new();
    struct client clients[CLIENTS] = {{0}};
    struct shadow shadow = {.last_index = 10};
    uint64_t random = seed * 77 + 1;
    uint64_t first_seen = 0;
    uint64_t value = 100;
    size_t called = 0;

    *lied = false;
    while (called < operations) {
        struct client *client = &clients[random_next(&random) % CLIENTS];
        if (!client->busy) {
            client_call(history, client, &random, &shadow, ++value);
            called++;
        } else if (random_next(&random) % 100 < lost_percent) {
            /* Never answered; it may have been done or not. */
            client->busy = false;
        } else if (!client->done) {
            client->answer = shadow_do(&shadow, &client->call);
            client->done = true;
        } else {
            if (client->call.kind == SIM_LINEAR_READ && client->answer.found) {
                /* Two overwrites ago, read by nobody since: no order can have it. */
                if (lie && !*lied && first_seen != 0 && called > operations / 2 &&
                    client->answer.value > first_seen + 20) {
                    client->answer.value = first_seen;
                    client->answer.index = 0;
                    *lied = true;
                }
                first_seen = first_seen == 0 ? client->answer.value : first_seen;
            }
            sim_linear_return(history, client->number, &client->answer);
            client->busy = false;
        }
    }
    return history;
}

static void histories_of_a_register_are_accepted(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        bool lied = false;
        struct sim_linear *history =
            history_random(seed, RANDOM_OPERATIONS_MAX, seed % 5 == 0 ? 8 : 1, false, &lied);
        const struct sim_linear_result result = sim_linear_check(history, STATES_MAX);
        if (result.verdict != SIM_LINEAR_YES) {
            sim_linear_print(history, KEY, stderr);
            fail_msg("seed %d: verdict %d after %d states", (int)seed, (int)result.verdict,
                     (int)result.states);
        }
        sim_linear_free(history);
    }
}

static void a_stale_read_among_hundreds_of_operations_is_rejected(void **state)
{
    (void)state;
    size_t lies = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        bool lied = false;
        struct sim_linear *history = history_random(seed, RANDOM_OPERATIONS_MAX, 0, true, &lied);
        const struct sim_linear_result result = sim_linear_check(history, STATES_MAX);
        assert_int_equal(result.verdict, lied ? SIM_LINEAR_NO : SIM_LINEAR_YES);
        lies += lied ? 1 : 0;
        sim_linear_free(history);
    }
    assert_true(lies > 100);
}

static void a_search_that_is_too_long_is_given_up(void **state)
{
    (void)state;
    struct sim_linear *history = sim_linear_new();
    for (uint64_t value = 1; value <= 24; value++) {
        (void)sim_linear_call(history,
                              &(struct sim_linear_call){SIM_LINEAR_WRITE, KEY, value, value, 0});
    }
    for (uint64_t value = 1; value <= 24; value++) {
        const size_t read =
            sim_linear_call(history, &(struct sim_linear_call){SIM_LINEAR_READ, KEY, 30, 0, 0});
        sim_linear_return(history, read,
                          &(struct sim_linear_answer){.found = true, .value = value});
    }
    assert_int_equal(sim_linear_check(history, STATES_MAX).verdict, SIM_LINEAR_YES);
    const size_t read =
        sim_linear_call(history, &(struct sim_linear_call){SIM_LINEAR_READ, KEY, 30, 0, 0});
    sim_linear_return(history, read, &(struct sim_linear_answer){.found = true, .value = 1});
    assert_int_equal(sim_linear_check(history, STATES_MAX).verdict, SIM_LINEAR_NO);
    const struct sim_linear_result result = sim_linear_check(history, 10);
    assert_int_equal(result.verdict, SIM_LINEAR_UNDECIDED);
    assert_int_equal(result.key, KEY);
    assert_int_equal(result.states, 10);
    sim_linear_free(history);
}

/* --- every order of a few operations, tried --- */

enum { FEW = 5 };

struct few {
    struct sim_linear_call call[FEW];
    struct sim_linear_answer answer[FEW];
    size_t start[FEW];
    size_t end[FEW]; /* SIZE_MAX: open */
    size_t count;
};

static bool few_fits(const struct few *few, const size_t *order, size_t count)
{
    struct shadow shadow = {.last_index = 0};

    for (size_t i = 0; i < count; i++) {
        for (size_t j = i + 1; j < count; j++) {
            if (few->end[order[j]] < few->start[order[i]]) {
                return false;
            }
        }
        const size_t at = order[i];
        const struct sim_linear_answer answer = shadow_do(&shadow, &few->call[at]);
        if (few->end[at] == SIZE_MAX) {
            continue;
        }
        const struct sim_linear_answer *seen = &few->answer[at];
        if (few->call[at].kind == SIM_LINEAR_READ) {
            if (seen->found != answer.found || (seen->found && seen->value != answer.value)) {
                return false;
            }
        } else if (seen->done != answer.done) {
            return false;
        }
    }
    return true;
}

/* All orders of all sets that hold every closed operation. */
static bool few_has_order(const struct few *few, size_t *order, size_t count, unsigned taken)
{
    bool complete = true;

    for (size_t i = 0; i < few->count; i++) {
        complete = complete && ((taken >> i & 1) != 0 || few->end[i] == SIZE_MAX);
    }
    if (complete && few_fits(few, order, count)) {
        return true;
    }
    for (size_t i = 0; i < few->count; i++) {
        if ((taken >> i & 1) == 0) {
            order[count] = i;
            if (few_has_order(few, order, count + 1, taken | 1U << i)) {
                return true;
            }
        }
    }
    return false;
}

/* Calls and returns at random, with answers that may be true or not. */
static struct sim_linear *few_draw(struct few *few, uint64_t *random)
{
    static const enum sim_linear_kind kinds[] = {SIM_LINEAR_READ, SIM_LINEAR_WRITE,
                                                 SIM_LINEAR_CAS_VALUE, SIM_LINEAR_DELETE,
                                                 SIM_LINEAR_CAS_INDEX};
    struct sim_linear *history = sim_linear_new();
    size_t moment = 0;
    size_t open[FEW];
    size_t open_count = 0;

    *few = (struct few){.count = 0};
    while (few->count < FEW || (open_count > 0 && random_next(random) % 6 != 0)) {
        if (few->count < FEW && (open_count == 0 || random_next(random) % 2 == 0)) {
            const size_t at = few->count++;
            few->call[at] = (struct sim_linear_call){.kind = kinds[random_next(random) % 5],
                                                     .key = KEY,
                                                     .value = at + 1,
                                                     .expected = 1 + random_next(random) % FEW};
            if (few->call[at].kind == SIM_LINEAR_CAS_INDEX) {
                few->call[at].expected = 0;
            }
            few->start[at] = moment++;
            few->end[at] = SIZE_MAX;
            assert_int_equal(sim_linear_call(history, &few->call[at]), at);
            open[open_count++] = at;
            continue;
        }
        const size_t which = random_next(random) % open_count;
        const size_t at = open[which];
        open[which] = open[--open_count];
        few->answer[at] = (struct sim_linear_answer){.found = random_next(random) % 3 != 0,
                                                     .value = 1 + random_next(random) % FEW,
                                                     .done = random_next(random) % 2 == 0};
        if (few->call[at].kind == SIM_LINEAR_WRITE || few->call[at].kind == SIM_LINEAR_DELETE) {
            few->answer[at].done = true;
        }
        few->end[at] = moment++;
        sim_linear_return(history, at, &few->answer[at]);
    }
    return history;
}

static void verdicts_are_those_of_trying_every_order(void **state)
{
    (void)state;
    uint64_t random = 42;
    size_t accepted = 0;
    size_t rejected = 0;

    for (size_t round = 0; round < 20000; round++) {
        struct few few;
        size_t order[FEW];
        struct sim_linear *history = few_draw(&few, &random);
        const bool expected = few_has_order(&few, order, 0, 0);
        const struct sim_linear_result result = sim_linear_check(history, STATES_MAX);
        if (result.verdict != (expected ? SIM_LINEAR_YES : SIM_LINEAR_NO)) {
            sim_linear_print(history, KEY, stderr);
            fail_msg("round %zu: verdict %d", round, (int)result.verdict);
        }
        accepted += expected ? 1 : 0;
        rejected += expected ? 0 : 1;
        sim_linear_free(history);
    }
    assert_true(accepted > 1000);
    assert_true(rejected > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histories_are_judged_right),
        cmocka_unit_test(keys_are_judged_apart),
        cmocka_unit_test(histories_of_a_register_are_accepted),
        cmocka_unit_test(a_stale_read_among_hundreds_of_operations_is_rejected),
        cmocka_unit_test(a_search_that_is_too_long_is_given_up),
        cmocka_unit_test(verdicts_are_those_of_trying_every_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
