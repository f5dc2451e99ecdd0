/* Finds a small set of faults with which a run still fails. Each attempt is a process of its own,
 * since a run that fails ends it; what failed comes back through a page that both see. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/sim.h"

enum {
    SIM_SHRINK_TEXT_MAX = 256,
    SIM_SHRINK_RUNS_MAX = 1000,
    SIM_SHRINK_SECONDS_MAX = 60,
    SIM_SHRINK_LATER_MAX = 65536
};

struct shared {
    size_t fault_count;
    char failed[SIM_SHRINK_TEXT_MAX];
};

static struct shared *shared; /* NULL: nobody waits for it */

void sim_shrink_failed(const char *what)
{
    if (shared != NULL) {
        (void)snprintf(shared->failed, sizeof(shared->failed), "%s", what);
    }
}

void sim_shrink_note(size_t fault_count)
{
    if (shared != NULL) {
        shared->fault_count = fault_count;
    }
}

/* Runs in a process of its own. What failed is in the page then; empty: nothing. */
static void shrink_try(const struct sim_options *options)
{
    struct sim_stats stats = {0};
    int status;

    memset(shared, 0, sizeof(*shared));
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL ||
            freopen("/dev/null", "w", stdout) == NULL) {
            _exit(3);
        }
        (void)alarm(SIM_SHRINK_SECONDS_MAX);
        (void)sim_run(options, &stats);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        fputs("no process for an attempt\n", stderr);
        exit(3);
    }
    if (shared->failed[0] == '\0' && !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        (void)snprintf(shared->failed, sizeof(shared->failed), "the process ended");
    }
}

/* Leaves out more of the first `count` faults, `chunk` at a time, as long as what fails is
 * `failed`. Returns how many were. */
static size_t shrink_pass(struct sim_options *options, bool *left_out, size_t count, size_t chunk,
                          const char *failed, size_t *runs)
{
    size_t dropped = 0;

    for (size_t at = 0; at < count && *runs < SIM_SHRINK_RUNS_MAX; at += chunk) {
        const size_t end = at + chunk < count ? at + chunk : count;
        bool *before = malloc(end - at);
        size_t more = 0;
        if (before == NULL) {
            exit(3);
        }
        memcpy(before, left_out + at, end - at);
        for (size_t i = at; i < end; i++) {
            more += left_out[i] ? 0 : 1;
            left_out[i] = true;
        }
        if (more > 0) {
            shrink_try(options);
            (*runs)++;
            if (strcmp(shared->failed, failed) == 0) {
                dropped += more;
            } else {
                memcpy(left_out + at, before, end - at);
            }
        }
        free(before);
    }
    return dropped;
}

static void shrink_report(const struct sim_options *options, const bool *left_out, size_t count,
                          const char *failed, size_t runs)
{
    size_t left = 0;
    char modes[SIM_MODES_BYTES];

    for (size_t i = 0; i < count; i++) {
        left += left_out[i] ? 0 : 1;
    }
    printf("seed %" PRIu64
           " fails with %zu of %zu faults, after %zu runs: %s\nreplay: sim%s --seed %" PRIu64
           " --only ",
           options->seed, left, count, runs, failed, sim_modes(options, modes), options->seed);
    const char *comma = "";
    for (size_t i = 0; i < count; i++) {
        if (!left_out[i]) {
            printf("%s%zu", comma, i);
            comma = ",";
        }
    }
    printf("%s -v\n", left == 0 ? "none" : "");
}

int sim_shrink(const struct sim_options *options)
{
    char failed[SIM_SHRINK_TEXT_MAX];
    size_t runs = 1;

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        fputs("no memory to share\n", stderr);
        return 3;
    }
    shrink_try(options);
    if (shared->failed[0] == '\0') {
        printf("seed %" PRIu64 " does not fail\n", options->seed);
        return 0;
    }
    memcpy(failed, shared->failed, sizeof(failed));
    /* Without these, more may come up than did so far: they are left out from the beginning. */
    const size_t faults = shared->fault_count;
    struct sim_options attempt = *options;
    bool *left_out = malloc(faults + SIM_SHRINK_LATER_MAX);
    if (left_out == NULL) {
        return 3;
    }
    memset(left_out, false, faults);
    memset(left_out + faults, true, SIM_SHRINK_LATER_MAX);
    attempt.left_out = left_out;
    attempt.left_out_count = faults + SIM_SHRINK_LATER_MAX;
    size_t chunk = (faults + 1) / 2;
    while (chunk > 0 && runs < SIM_SHRINK_RUNS_MAX) {
        const size_t dropped = shrink_pass(&attempt, left_out, faults, chunk, failed, &runs);
        if (dropped == 0 || chunk > 1) {
            chunk /= 2;
        }
    }
    shrink_report(options, left_out, faults, failed, runs);
    free(left_out);
    return 1;
}
