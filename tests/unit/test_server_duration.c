/* Durations are read and printed as Go's time package does, error texts included: Patroni and other
 * clients send them, and Consul's users know its messages. Expected values come from Go 1.15. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kv/slice.h"
#include "server/duration.h"

#define SECOND_NS INT64_C(1000000000)

static const struct {
    const char *name, *text;
    int64_t expected_ns;
    const char *expected_error;
} parse_cases[] = {
    {"seconds", "15s", 15 * SECOND_NS, NULL},
    {"zero needs no unit", "0", 0, NULL},
    {"signed zero", "-0", 0, NULL},
    {"plus", "+5s", 5 * SECOND_NS, NULL},
    {"minus", "-5.5s", -5500000000, NULL},
    {"fraction", "0.001s", 1000000, NULL},
    {"fraction without whole part", ".5s", 500000000, NULL},
    {"fraction without digits", "5.s", 5 * SECOND_NS, NULL},
    {"several parts", "1h2m3.5s", 3723500000000, NULL},
    {"order does not matter", "3s1h", 3603 * SECOND_NS, NULL},
    {"micro sign", "12\xc2\xb5s", 12000, NULL},
    {"Greek mu", "12\xce\xbcs", 12000, NULL},
    {"us", "12us", 12000, NULL},
    {"ns", "52763797000ns", 52763797000, NULL},
    {"fine fraction", "0.3333333333333333333h", 1200 * SECOND_NS, NULL},
    {"digits beyond precision", "0.100000000000000000000h", 360 * SECOND_NS, NULL},
    {"rounding up to a digit", "0.830103483285477580700h", 2988372539827, NULL},
    {"largest", "9223372036854775807ns", INT64_MAX, NULL},
    {"largest in parts", "9223372036s854ms775us807ns", INT64_MAX, NULL},
    {"empty", "", 0, "time: invalid duration \"\""},
    {"number needs unit", "15", 0, "time: missing unit in duration \"15\""},
    {"point needs digits", ".", 0, "time: invalid duration \".\""},
    {"unit alone", "s", 0, "time: invalid duration \"s\""},
    {"sign alone", "-", 0, "time: invalid duration \"-\""},
    {"sign and point", "+.s", 0, "time: invalid duration \"+.s\""},
    {"unknown unit", "3000x", 0, "time: unknown unit \"x\" in duration \"3000x\""},
    {"blank joins the unit", "1s 2s", 0, "time: unknown unit \"s \" in duration \"1s 2s\""},
    {"quotes are escaped", "1\"", 0, "time: unknown unit \"\\\"\" in duration \"1\\\"\""},
    {"bytes are escaped", "1\x80\n", 0,
     "time: unknown unit \"\\x80\\x0a\" in duration \"1\\x80\\x0a\""},
    {"overflow of digits", "9223372036854775808ns", 0,
     "time: invalid duration \"9223372036854775808ns\""},
    {"overflow of unit", "3000000h", 0, "time: invalid duration \"3000000h\""},
    {"overflow of sum", "9223372036854775807ns1ns", 0,
     "time: invalid duration \"9223372036854775807ns1ns\""},
    {"overflow of fraction", "9223372036.9s", 0, "time: invalid duration \"9223372036.9s\""},
};

static void test_duration_parse_gives_go_values_and_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(parse_cases) / sizeof(parse_cases[0]); i++) {
        struct errmsg err = {""};
        int64_t ns = -1;
        const bool ok = duration_parse(slice_from_text(parse_cases[i].text), &ns, &err);

        if (ok != (parse_cases[i].expected_error == NULL)) {
            fail_msg("%s: ok %d, error %s", parse_cases[i].name, ok, err.text);
        }
        if (ok && ns != parse_cases[i].expected_ns) {
            fail_msg("%s: %lld", parse_cases[i].name, (long long)ns);
        }
        if (!ok) {
            assert_string_equal(err.text, parse_cases[i].expected_error);
            assert_int_equal(ns, -1); /* written on success only */
        }
    }
}

static void test_duration_parse_accepts_a_nul_and_long_text_as_input(void **state)
{
    char text[5000];
    struct errmsg err;
    int64_t ns;

    (void)state;
    memset(text, '\xff', sizeof(text));
    assert_false(duration_parse(slice_from(text, sizeof(text)), &ns, &err));
    assert_false(duration_parse(slice_from("1s\0", 3), &ns, &err));
    assert_string_equal(err.text, "time: unknown unit \"s\\x00\" in duration \"1s\\x00\"");
}

static const struct {
    int64_t ns;
    const char *expected;
} format_cases[] = {
    {0, "0s"},
    {1, "1ns"},
    {1100, "1.1\xc2\xb5s"},
    {2200000, "2.2ms"},
    {3300000000, "3.3s"},
    {100 * 1000 * 1000, "100ms"},
    {10 * SECOND_NS, "10s"},
    {60 * SECOND_NS, "1m0s"},
    {5 * 60 * SECOND_NS + 5001000000, "5m5.001s"},
    {3600 * SECOND_NS, "1h0m0s"},
    {8 * 3600 * SECOND_NS + 6 * 60 * SECOND_NS + 7 * SECOND_NS + 1, "8h6m7.000000001s"},
    {-1500 * (SECOND_NS / 1000), "-1.5s"},
    {INT64_MAX, "2562047h47m16.854775807s"},
    {INT64_MIN, "-2562047h47m16.854775808s"},
};

static void test_duration_format_prints_as_go(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(format_cases) / sizeof(format_cases[0]); i++) {
        char text[64];

        duration_format(format_cases[i].ns, text, sizeof(text));
        assert_string_equal(text, format_cases[i].expected);
    }
}

static void test_duration_format_and_parse_are_inverse(void **state)
{
    (void)state;
    for (int64_t ns = 1; ns < INT64_MAX / 7; ns = ns * 7 + 3) {
        char text[64];
        struct errmsg err = {""};
        int64_t again = 0;

        duration_format(ns, text, sizeof(text));
        if (!duration_parse(slice_from_text(text), &again, &err) || again != ns) {
            /* Fractions go through floating point: hours of nanoseconds still fit exactly. */
            fail_msg("%lld printed as %s read as %lld", (long long)ns, text, (long long)again);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_duration_parse_gives_go_values_and_errors),
        cmocka_unit_test(test_duration_parse_accepts_a_nul_and_long_text_as_input),
        cmocka_unit_test(test_duration_format_prints_as_go),
        cmocka_unit_test(test_duration_format_and_parse_are_inverse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
