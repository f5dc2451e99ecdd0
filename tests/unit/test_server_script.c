/* Script checks: the status that an exit means, the output that is kept, and that nothing of a
 * script outlives its time. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/agent/script.h"

struct outcome {
    unsigned reports, ends;
    enum probe_status status;
    char output[SCRIPT_OUTPUT_BYTES_MAX + 256];
    size_t output_bytes;
};

static void on_report(void *context, enum probe_status status, struct slice output)
{
    struct outcome *outcome = context;

    outcome->reports++;
    outcome->status = status;
    outcome->output_bytes = output.size;
    assert_true(output.size < sizeof(outcome->output));
    memcpy(outcome->output, output.data, output.size);
    outcome->output[output.size] = '\0';
}

static void on_ended(void *context)
{
    struct outcome *outcome = context;

    assert_int_equal(outcome->reports, 1); /* The report came first. */
    outcome->ends++;
}

static struct script *start(uv_loop_t *loop, struct outcome *outcome, json_t *args,
                            uint64_t timeout_ms, uint64_t output_bytes_max)
{
    const struct script_spec spec = {
        .args = args, .timeout_ms = timeout_ms, .output_bytes_max = output_bytes_max};
    const struct script_handlers handlers = {
        .context = outcome, .report = on_report, .ended = on_ended};

    memset(outcome, 0, sizeof(*outcome));
    struct script *script = script_start(loop, &spec, &handlers);
    json_decref(args);
    return script;
}

/* Runs one to its end. */
static void run(struct outcome *outcome, json_t *args, uint64_t timeout_ms,
                uint64_t output_bytes_max)
{
    uv_loop_t loop;

    assert_int_equal(uv_loop_init(&loop), 0);
    assert_non_null(start(&loop, outcome, args, timeout_ms, output_bytes_max));
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(outcome->reports, 1);
    assert_int_equal(outcome->ends, 1);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static json_t *shell(const char *text)
{
    return json_pack("[s,s,s]", "sh", "-c", text);
}

static void the_exit_status_is_the_checks(void **state)
{
    static const struct {
        const char *name, *text;
        enum probe_status status;
        const char *output;
    } cases[] = {
        {"zero", "echo out; echo err >&2", PROBE_PASSING, "out\nerr\n"},
        {"one", "echo hm; exit 1", PROBE_WARNING, "hm\n"},
        {"two", "exit 2", PROBE_CRITICAL, ""},
        {"large", "exit 255", PROBE_CRITICAL, ""},
        {"signal", "kill -9 $$", PROBE_CRITICAL, ""},
        {"no input", "cat; echo end", PROBE_PASSING, "end\n"},
        {"a child that stays does not hold it up", "sleep 60 & echo end", PROBE_PASSING, "end\n"},
        {"bytes", "printf 'a\\000b'", PROBE_PASSING, "a"},
    };
    struct outcome outcome;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        print_message("  %s\n", cases[i].name);
        run(&outcome, shell(cases[i].text), 60000, 4096);
        assert_int_equal(outcome.status, cases[i].status);
        assert_string_equal(outcome.output, cases[i].output);
    }
}

/* The server's own limit is raised to what the system grants. */
static void a_script_may_open_as_many_files_as_it_is_given(void **state)
{
    json_t *args = shell("until [ $(ulimit -n) = 123 ]; do sleep 0.01; done; ulimit -n");
    const struct script_spec spec = {
        .args = args, .timeout_ms = 60000, .output_bytes_max = 4096, .open_files = 123};
    struct outcome outcome = {0};
    const struct script_handlers handlers = {
        .context = &outcome, .report = on_report, .ended = on_ended};
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_non_null(script_start(&loop, &spec, &handlers));
    json_decref(args);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_string_equal(outcome.output, "123\n");
    assert_int_equal(outcome.status, PROBE_PASSING);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void what_cannot_be_started_is_critical_in_gos_words(void **state)
{
    static const struct {
        const char *program, *output;
    } cases[] = {
        {"no-such-program-here",
         "exec: \"no-such-program-here\": executable file not found in $PATH"},
        {"/no/such/program", "fork/exec /no/such/program: no such file or directory"},
        {"/etc/passwd", "fork/exec /etc/passwd: permission denied"},
        {"", "fork/exec : no such file or directory"},
    };
    struct outcome outcome;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        run(&outcome, json_pack("[s]", cases[i].program), 60000, 4096);
        assert_int_equal(outcome.status, PROBE_CRITICAL);
        assert_string_equal(outcome.output, cases[i].output);
    }
}

static void the_end_of_a_long_output_is_kept(void **state)
{
    struct outcome outcome;

    (void)state;
    run(&outcome, shell("yes abcdefghi | head -c 1000000; echo END"), 60000, 100);
    assert_int_equal(outcome.status, PROBE_PASSING);
    static const char head[] = "Captured 100 of 1000004 bytes\n...\n";
    assert_memory_equal(outcome.output, head, sizeof(head) - 1);
    assert_int_equal(outcome.output_bytes, sizeof(head) - 1 + 100);
    assert_string_equal(outcome.output + outcome.output_bytes - 4, "END\n");
}

static bool is_alive(long pid)
{
    char path[64], text[256] = "";

    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    const size_t size = fread(text, 1, sizeof(text) - 1, file);
    text[size] = '\0';
    assert_int_equal(fclose(file), 0);
    const char *name_end = strrchr(text, ')');
    return name_end != NULL && name_end[2] != 'Z';
}

/* The number that a script has written to the file, once it has. */
static long read_pid(const char *path)
{
    long pid = 0;
    FILE *file = fopen(path, "re");

    if (file != NULL) {
        if (fscanf(file, "%ld", &pid) != 1) {
            pid = 0;
        }
        assert_int_equal(fclose(file), 0);
    }
    return pid;
}

static void its_time_over_the_whole_group_is_killed(void **state)
{
    char path[] = "/tmp/test-script-XXXXXX";
    char text[128];
    struct outcome outcome;

    (void)state;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    (void)snprintf(text, sizeof(text), "sleep 600 & echo $! > %s; wait", path);
    run(&outcome, shell(text), 300, 4096);
    assert_int_equal(outcome.status, PROBE_CRITICAL);
    assert_string_equal(outcome.output, "Timed out (300ms) running check");
    const long child = read_pid(path); /* 0: it was killed before it had one. */
    for (int i = 0; child != 0 && is_alive(child); i++) {
        assert_true(i < 6000); /* Dies when the kernel comes to it. */
        usleep(10000);
    }
    assert_int_equal(unlink(path), 0);
}

/* It holds the pipe, and writes until that is closed. */
static void a_child_that_outlives_it_is_not_waited_for(void **state)
{
    struct outcome outcome;
    char path[] = "/tmp/proconsul-script-XXXXXX";
    char command[128], text[32] = "";
    const int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    (void)snprintf(command, sizeof(command), "trap '' TERM; yes & echo $! > %s; exit 1", path);
    run(&outcome, shell(command), 60000, 64 * 1024);
    assert_int_equal(outcome.status, PROBE_WARNING);
    assert_in_range(outcome.output_bytes, 0, 64 * 1024 + 128);
    assert_in_range(read(fd, text, sizeof(text) - 1), 2, sizeof(text) - 1);
    assert_int_equal(close(fd), 0);
    assert_int_equal(unlink(path), 0);
    const long pid = strtol(text, NULL, 10);

    assert_true(pid > 0);
    for (int i = 0; is_alive(pid) && i < 60000; i++) {
        (void)usleep(1000);
    }
    assert_false(is_alive(pid));
}

static void one_that_is_cancelled_reports_nothing_whenever_it_is(void **state)
{
    (void)state;
    for (int turns = 0; turns < 8; turns++) {
        struct outcome outcome;
        uv_loop_t loop;

        assert_int_equal(uv_loop_init(&loop), 0);
        struct script *script =
            start(&loop, &outcome, json_pack("[s,s]", "sleep", "600"), 60000, 100);
        assert_non_null(script);
        for (int i = 0; i < turns; i++) {
            (void)uv_run(&loop, UV_RUN_NOWAIT);
        }
        script_cancel(script);
        assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
        assert_int_equal(outcome.reports, 0);
        assert_int_equal(outcome.ends, 0);
        assert_int_equal(uv_loop_close(&loop), 0);
    }
}

static void a_command_beyond_the_bound_is_not_started(void **state)
{
    uv_loop_t loop;
    struct outcome outcome;
    json_t *args = json_array();

    (void)state;
    for (int i = 0; i <= SCRIPT_ARGS_MAX; i++) {
        assert_int_equal(json_array_append_new(args, json_string("true")), 0);
    }
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_null(start(&loop, &outcome, args, 1000, 100));
    assert_null(start(&loop, &outcome, json_array(), 1000, 100));
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_exit_status_is_the_checks),
        cmocka_unit_test(a_script_may_open_as_many_files_as_it_is_given),
        cmocka_unit_test(what_cannot_be_started_is_critical_in_gos_words),
        cmocka_unit_test(the_end_of_a_long_output_is_kept),
        cmocka_unit_test(its_time_over_the_whole_group_is_killed),
        cmocka_unit_test(a_child_that_outlives_it_is_not_waited_for),
        cmocka_unit_test(one_that_is_cancelled_reports_nothing_whenever_it_is),
        cmocka_unit_test(a_command_beyond_the_bound_is_not_started),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
