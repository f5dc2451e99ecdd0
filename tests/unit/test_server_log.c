/* The log: one event is one line in Consul's form, whatever text a stranger put into it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <regex.h>
#include <string.h>
#include <unistd.h>

#include "server/log.h"

/* Standard error as a pipe, around one test. */
struct capture {
    int saved;
    int reader;
};

static void capture_begin(struct capture *capture)
{
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    capture->saved = dup(STDERR_FILENO);
    assert_true(capture->saved >= 0);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    assert_int_equal(close(ends[1]), 0);
    capture->reader = ends[0];
    assert_int_equal(fcntl(capture->reader, F_SETFL, O_NONBLOCK), 0);
}

static size_t capture_end(struct capture *capture, char *out, size_t out_bytes)
{
    assert_int_equal(dup2(capture->saved, STDERR_FILENO), STDERR_FILENO);
    assert_int_equal(close(capture->saved), 0);
    const ssize_t count = read(capture->reader, out, out_bytes - 1);
    assert_int_equal(close(capture->reader), 0);
    const size_t size = count > 0 ? (size_t)count : 0;
    out[size] = '\0';
    return size;
}

static void test_a_line_has_time_level_module_and_text(void **state)
{
    struct capture capture;
    char text[1024];
    regex_t form;

    (void)state;
    log_level_set(LOG_INFO);
    capture_begin(&capture);
    log_write(LOG_INFO, "agent.http", "listening: port=%d", 8500);
    (void)capture_end(&capture, text, sizeof(text));
    assert_int_equal(
        regcomp(&form,
                "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}(Z|[+-][0-9]{4}) "
                "\\[INFO\\]  agent\\.http: listening: port=8500\n$",
                REG_EXTENDED | REG_NOSUB),
        0);
    assert_int_equal(regexec(&form, text, 0, NULL, 0), 0);
    regfree(&form);
}

static void test_control_bytes_are_escaped(void **state)
{
    struct capture capture;
    char text[1024];

    (void)state;
    log_level_set(LOG_INFO);
    capture_begin(&capture);
    /* U+009B, "é" and U+00A0, which are C2 or C3 with something else, and bytes that are no UTF-8.
     */
    log_write(LOG_WARN, "agent", "key=%s",
              "a\nb\tc\x1b[31m\x7f\xc2\x9b\x33"
              "1m\xc3\xa9\xc2\xa0\xc2");
    const size_t size = capture_end(&capture, text, sizeof(text));
    assert_non_null(strstr(
        text, "[WARN]  agent: key=a\\nb\\tc\\x1b[31m\\x7f\\xc2\\x9b31m\xc3\xa9\xc2\xa0\xc2\n"));
    assert_ptr_equal(strchr(text, '\n'), text + size - 1);
}

static void test_a_long_text_is_cut_to_one_line(void **state)
{
    static char big[100000];
    static char text[100000];
    struct capture capture;

    (void)state;
    memset(big, '\x01', sizeof(big) - 1); /* each needs four bytes when escaped */
    log_level_set(LOG_INFO);
    capture_begin(&capture);
    log_write(LOG_ERROR, "agent", "%s", big);
    const size_t size = capture_end(&capture, text, sizeof(text));
    assert_in_range(size, 1000, 10000);
    assert_ptr_equal(strchr(text, '\n'), text + size - 1);
}

static void test_levels_below_the_set_one_are_silent(void **state)
{
    struct capture capture;
    char text[1024];

    (void)state;
    log_level_set(LOG_WARN);
    capture_begin(&capture);
    log_write(LOG_INFO, "agent", "not shown");
    assert_int_equal(capture_end(&capture, text, sizeof(text)), 0);
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_ERROR));
}

static void test_levels_are_named_as_consul_names_them(void **state)
{
    enum log_level level = LOG_TRACE;

    (void)state;
    assert_true(log_level_parse("WARN", &level));
    assert_int_equal(level, LOG_WARN);
    assert_true(log_level_parse("err", &level));
    assert_int_equal(level, LOG_ERROR);
    assert_true(log_level_parse("Debug", &level));
    assert_int_equal(level, LOG_DEBUG);
    assert_false(log_level_parse("", &level));
    assert_false(log_level_parse("debugging", &level));
    assert_int_equal(level, LOG_DEBUG); /* written on success only */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_has_time_level_module_and_text),
        cmocka_unit_test(test_control_bytes_are_escaped),
        cmocka_unit_test(test_a_long_text_is_cut_to_one_line),
        cmocka_unit_test(test_levels_below_the_set_one_are_silent),
        cmocka_unit_test(test_levels_are_named_as_consul_names_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
