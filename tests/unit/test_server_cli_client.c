/* What a command says that cannot reach its server. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "kv/slice.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_socket_that_cannot_be_reached_is_named_with_the_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
