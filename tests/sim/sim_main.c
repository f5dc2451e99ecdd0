/* sim: see usage() below. The status is 0 when all runs pass, 1 when one fails. */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim.h"

enum { SIM_ONLY_MAX = 65536, SIM_JOBS_MAX = 64 };

struct arguments {
    struct sim_options options;
    uint64_t first;
    uint64_t count;
    uint64_t seconds; /* 0: as many seeds as `count` says */
    uint64_t jobs;
    bool shrink;
};

/* For the handler below, which has no other way to know it. */
static struct sim_options options_now;

/* An assertion of the product has failed: say how to see it again. */
static void on_abort(int signal_number)
{
    char text[128];
    char modes[SIM_MODES_BYTES];

    (void)signal_number;
    sim_shrink_failed("assertion");
    const int size =
        snprintf(text, sizeof(text),
                 "seed %" PRIu64 ": assertion failed\nreplay: sim%s --seed %" PRIu64 " -v\n",
                 options_now.seed, sim_modes(&options_now, modes), options_now.seed);
    if (size > 0 && write(STDERR_FILENO, text, (size_t)size) < 0) {
        _exit(3);
    }
    _exit(1);
}

static bool number_parse(const char *text, uint64_t *out)
{
    char *end = NULL;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

/* A list of numbers with commas, or "none". */
static bool only_parse(const char *text, struct sim_options *options)
{
    static bool left_out[SIM_ONLY_MAX];

    memset(left_out, true, sizeof(left_out));
    options->left_out = left_out;
    options->left_out_count = SIM_ONLY_MAX;
    if (strcmp(text, "none") == 0) {
        return true;
    }
    for (;;) {
        char *end = NULL;
        errno = 0;
        const unsigned long long number = strtoull(text, &end, 10);
        if (errno != 0 || end == text || number >= SIM_ONLY_MAX) {
            return false;
        }
        left_out[number] = false;
        if (*end == '\0') {
            return true;
        }
        if (*end != ',') {
            return false;
        }
        text = end + 1;
    }
}

static int usage(void)
{
    fputs(
        "usage: sim [--core] --seeds N [--first SEED] [--jobs N]   runs N seeds\n"
        "       sim [--core] --time SECONDS [--first SEED] [--jobs N]   runs seeds for so long, "
        "reports\n"
        "       sim [--core] --seed SEED [-v] [--only LIST]   one seed; -v: with a trace; --only:\n"
        "           with these faults alone (numbers as in the trace, commas between; or none)\n"
        "       sim [--core] --seed SEED --shrink   the least faults with which it still fails\n"
        "--core: the Raft core alone, without log, store and clients: fast.\n"
        "--duel: all runs depose leaders, again and again.\n",
        stderr);
    return 2;
}

static bool arguments_parse(int argc, char **argv, struct arguments *out)
{
    *out = (struct arguments){.options = {.full = true}, .first = 1, .jobs = 1};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "-v") == 0) {
            out->options.verbose = true;
        } else if (strcmp(argv[i], "--core") == 0) {
            out->options.full = false;
        } else if (strcmp(argv[i], "--planted") == 0) {
            out->options.planted = true;
        } else if (strcmp(argv[i], "--duel") == 0) {
            out->options.duel = true;
        } else if (strcmp(argv[i], "--shrink") == 0) {
            out->shrink = true;
        } else if ((strcmp(argv[i], "--seeds") == 0 && number_parse(value, &out->count)) ||
                   (strcmp(argv[i], "--first") == 0 && number_parse(value, &out->first)) ||
                   (strcmp(argv[i], "--jobs") == 0 && number_parse(value, &out->jobs)) ||
                   (strcmp(argv[i], "--time") == 0 && number_parse(value, &out->seconds)) ||
                   (strcmp(argv[i], "--only") == 0 && only_parse(value, &out->options))) {
            i++;
        } else if (strcmp(argv[i], "--seed") == 0 && number_parse(value, &out->first)) {
            out->count = 1;
            i++;
        } else {
            return false;
        }
    }
    return (out->count > 0 || out->seconds > 0) && out->jobs > 0 && out->jobs <= SIM_JOBS_MAX;
}

static double seconds_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void print_stats(const struct sim_stats *stats, bool full)
{
    printf("steps=%" PRIu64 " elections=%" PRIu64 " commits=%" PRIu64 " reads=%" PRIu64
           " truncations=%" PRIu64 " changes=%" PRIu64 " removals=%" PRIu64 " splits=%" PRIu64
           " transfers=%" PRIu64 " compactions=%" PRIu64 " installed=%" PRIu64
           " stale_snapshots=%" PRIu64 " log_resets=%" PRIu64 "\n",
           stats->steps, stats->elections, stats->commits, stats->reads, stats->truncations,
           stats->changes, stats->removals, stats->splits, stats->transfers, stats->compactions,
           stats->installed, stats->stale_snapshots, stats->resets_of_logs);
    printf("faults: drops=%" PRIu64 " duplicates=%" PRIu64 " delays=%" PRIu64 " partitions=%" PRIu64
           " asymmetric=%" PRIu64 " cut_links=%" PRIu64 " crashes=%" PRIu64 " power_cuts=%" PRIu64
           " lost_writes=%" PRIu64 " pauses=%" PRIu64 " slow_disks=%" PRIu64 " resets=%" PRIu64
           " retired=%" PRIu64 " clock_jumps=%" PRIu64 " clock_rates=%" PRIu64,
           stats->drops, stats->duplicates, stats->delays, stats->partitions_symmetric,
           stats->partitions_asymmetric, stats->cut_links, stats->crashes, stats->power_cuts,
           stats->lost_writes, stats->pauses, stats->slow_disks, stats->resets, stats->retired,
           stats->clock_jumps, stats->clock_rates);
    if (!full) {
        putchar('\n');
        return;
    }
    printf(" machine_crashes=%" PRIu64 " torn_tails=%" PRIu64 " sync_failures=%" PRIu64
           " flips=%" PRIu64 " flips_refused=%" PRIu64 " flips_read=%" PRIu64 " full_disks=%" PRIu64
           " full_leaders=%" PRIu64 " handed_over=%" PRIu64 "\n",
           stats->machine_crashes, stats->torn_tails, stats->sync_failures, stats->flips,
           stats->flips_refused, stats->flips_read, stats->full_disks, stats->full_leaders,
           stats->handed_over);
    printf("snapshots: cut=%" PRIu64 " refused=%" PRIu64 "\n", stats->snapshots_cut,
           stats->snapshots_refused);
    printf("state: applied=%" PRIu64 " rebuilt=%" PRIu64 " operations=%" PRIu64 " unknown=%" PRIu64
           " sessions=%" PRIu64 " expired=%" PRIu64 " locks=%" PRIu64 " lock_delays=%" PRIu64
           " linear_states=%" PRIu64 " undecided=%" PRIu64 "\n",
           stats->applied, stats->rebuilt, stats->operations, stats->unknown_outcomes,
           stats->sessions, stats->expired, stats->locks, stats->lock_delays, stats->linear_states,
           stats->undecided);
}

/* What one of the processes found. */
struct share {
    struct sim_stats stats;
    uint64_t count;
};

/* Every `jobs`-th seed, from the `job`-th on. */
static void run_share(const struct arguments *arguments, uint64_t job, double begin,
                      struct share *share)
{
    struct sim_options options = arguments->options;

    for (uint64_t i = job;
         arguments->seconds > 0 ? seconds_now() - begin < (double)arguments->seconds
                                : i < arguments->count;
         i += arguments->jobs) {
        options.seed = arguments->first + i;
        options_now = options;
        (void)sim_run(&options, &share->stats);
        share->count++;
    }
}

/* False: one has failed, and said why. */
static bool run_processes(const struct arguments *arguments, double begin, struct share *shares)
{
    pid_t children[SIM_JOBS_MAX];
    bool passed = true;

    for (uint64_t job = 0; job < arguments->jobs; job++) {
        children[job] = fork();
        if (children[job] == 0) {
            run_share(arguments, job, begin, &shares[job]);
            exit(0);
        }
    }
    for (uint64_t job = 0; job < arguments->jobs; job++) {
        int status = 1;
        passed = children[job] > 0 && waitpid(children[job], &status, 0) == children[job] &&
                 status == 0 && passed;
    }
    return passed;
}

static int run_seeds(const struct arguments *arguments)
{
    const double begin = seconds_now();
    struct share total = {0};
    struct share *shares = mmap(NULL, SIM_JOBS_MAX * sizeof(*shares), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shares == MAP_FAILED) {
        fputs("no memory to share\n", stderr);
        return 3;
    }
    if (arguments->jobs == 1) {
        run_share(arguments, 0, begin, &shares[0]);
    } else if (!run_processes(arguments, begin, shares)) {
        return 1;
    }
    for (uint64_t job = 0; job < arguments->jobs; job++) {
        sim_stats_add(&total.stats, &shares[job].stats);
        total.count += shares[job].count;
    }
    const double hours = (double)total.stats.sim_ms / 3.6e6;
    printf("ok: seeds=%" PRIu64 " simulated_hours=%.2f\n", total.count, hours);
    print_stats(&total.stats, arguments->options.full);
    if (arguments->seconds > 0) {
        const double minutes = (seconds_now() - begin) / 60;
        printf("per minute: seeds=%.0f steps=%.0f simulated_hours=%.2f\n",
               (double)total.count / minutes, (double)total.stats.steps / minutes, hours / minutes);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct arguments arguments;

    if (!arguments_parse(argc, argv, &arguments)) {
        return usage();
    }
    signal(SIGABRT, on_abort);
    if (arguments.shrink) {
        arguments.options.seed = arguments.first;
        arguments.options.verbose = false;
        return sim_shrink(&arguments.options);
    }
    return run_seeds(&arguments);
}
