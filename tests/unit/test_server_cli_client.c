/* What a command says that cannot reach its server. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "kv/slice.h"
#include "server/cli/cli.h"
#include "server/cli/cli_client.h"

/* The place of the address in the flags. */
static void ask(const char *address, struct errmsg *err)
{
    const struct cli_flag flags[] = {{"http-addr", false, address}};
    struct cli_answer answer = {0};

    assert_int_equal(cli_ask(flags, 1, "GET", "/v1/kv/a", SLICE_EMPTY, &answer, err), -1);
    buffer_deinit(&answer.body);
}

static void a_socket_that_cannot_be_reached_is_named_with_the_reason(void **state)
{
    static const struct {
        const char *path;
        size_t more; /* letters behind it */
        const char *reason;
    } cases[] = {
        {"/nowhere/", 10, "connect: No such file or directory"},
        {"/nowhere/", 98, "connect: No such file or directory"}, /* the longest that fits */
        {"/nowhere/", 99, "connect: File name too long"},
        {"/nowhere/", 180, "connect: File name too long"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char address[256];
        struct errmsg err = {""};
        int size = snprintf(address, sizeof(address), "unix://%s", cases[i].path);

        memset(address + size, 'a', cases[i].more);
        address[(size_t)size + cases[i].more] = 0;
        ask(address, &err);
        if (strstr(err.text, cases[i].reason) == NULL ||
            strstr(err.text, "dial unix /nowhere/aaa") == NULL) {
            fail_msg("%zu: %s", i, err.text);
        }
    }
}

/* Symptom: "connect: Success". */
static void a_socket_that_cannot_be_made_is_told_with_the_reason(void **state)
{
    struct rlimit limit;
    struct errmsg err = {""};

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = limit.rlim_max};

    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    ask("127.0.0.1:1", &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_non_null(strstr(err.text, "dial tcp 127.0.0.1:1: connect: Too many open files"));
}

/* Go's ways to write an address. */
static void an_address_is_taken_apart_as_in_go(void **state)
{
    static const struct {
        const char *address, *expected;
    } cases[] = {
        {"[::1%nowhere0]", "lookup ::1%nowhere0: "}, /* no port: 80 */
        {":1", "dial tcp :1: connect: Connection refused"},
        {"http://127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: Connection refused"},
        {"tcp://127.0.0.1:1", "Unknown protocol scheme: tcp"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = {""};

        ask(cases[i].address, &err);
        if (strstr(err.text, cases[i].expected) == NULL) {
            fail_msg("%s: %s", cases[i].address, err.text);
        }
    }
}

/* Symptom: -cleanup-dead-servers=1 was no value, and a number beyond 64 bits the largest of them.
 * What is taken fails here only since there is no server. */
static void autopilot_takes_the_values_that_go_takes(void **state)
{
    static char address[] = "-http-addr=unix:///nowhere";
    static char set[] = "set-config";
    static const struct {
        const char *flag;
        bool taken;
    } cases[] = {
        {"-cleanup-dead-servers=1", true},    {"-cleanup-dead-servers=F", true},
        {"-cleanup-dead-servers=yes", false}, {"-max-trailing-logs=0x10", true},
        {"-max-trailing-logs=250", true},     {"-max-trailing-logs=-1", false},
        {"-max-trailing-logs=0x", false},     {"-max-trailing-logs=99999999999999999999", false},
        {"-last-contact-threshold=5", false}, {"-last-contact-threshold=5s", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char flag[64];
        char *argv[] = {set, flag, address};
        char *text = NULL;
        size_t size;
        FILE *errors = stderr;

        (void)snprintf(flag, sizeof(flag), "%s", cases[i].flag);
        stderr = open_memstream(&text, &size);
        const int status = cli_autopilot(3, argv);
        (void)fclose(stderr);
        stderr = errors;
        assert_int_equal(status, 1);
        if ((strstr(text, "dial unix") != NULL) != cases[i].taken) {
            fail_msg("%s: %s", flag, text);
        }
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_socket_that_cannot_be_made_is_told_with_the_reason),
        cmocka_unit_test(a_socket_that_cannot_be_reached_is_named_with_the_reason),
        cmocka_unit_test(an_address_is_taken_apart_as_in_go),
        cmocka_unit_test(autopilot_takes_the_values_that_go_takes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
