/* sim --seeds N [--from S]: seeds S (1 by default) and on. sim --seed S [-v]: one, with a trace. */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/sim.h"

/* For the handler below, which has no other way to know it. */
static uint64_t seed_now;

/* An assertion of the core has failed: say how to see it again. */
static void on_abort(int signal_number)
{
    char text[128];

    (void)signal_number;
    const int size =
        snprintf(text, sizeof(text),
                 "seed %" PRIu64 ": assertion failed\nreplay: sim --seed %" PRIu64 " -v\n",
                 seed_now, seed_now);
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

static int usage(void)
{
    fputs("usage: sim --seeds N [--from SEED] | sim --seed SEED [-v]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t first = 1;
    uint64_t count = 0;
    bool verbose = false;
    struct sim_stats stats = {0};

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "-v") == 0) {
            verbose = true;
            continue;
        }
        if (strcmp(argv[i], "--seeds") == 0 && number_parse(value, &count)) {
            i++;
        } else if (strcmp(argv[i], "--from") == 0 && number_parse(value, &first)) {
            i++;
        } else if (strcmp(argv[i], "--seed") == 0 && number_parse(value, &first)) {
            count = 1;
            i++;
        } else {
            return usage();
        }
    }
    if (count == 0) {
        return usage();
    }
    signal(SIGABRT, on_abort);
    for (uint64_t seed = first; seed < first + count; seed++) {
        seed_now = seed;
        sim_run(seed, verbose, &stats);
    }
    printf("ok: seeds=%" PRIu64 " steps=%" PRIu64 " elections=%" PRIu64 " commits=%" PRIu64
           " reads=%" PRIu64 " truncations=%" PRIu64 " faults: drops=%" PRIu64
           " duplicates=%" PRIu64 " delays=%" PRIu64 " partitions=%" PRIu64 " asymmetric=%" PRIu64
           " cut_links=%" PRIu64 " crashes=%" PRIu64 " power_cuts=%" PRIu64 " lost_writes=%" PRIu64
           " pauses=%" PRIu64 " slow_disks=%" PRIu64 " resets=%" PRIu64 " transfers=%" PRIu64
           " changes=%" PRIu64 " removals=%" PRIu64 " retired=%" PRIu64 " compactions=%" PRIu64
           " installed=%" PRIu64 " stale_snapshots=%" PRIu64 " log_resets=%" PRIu64 "\n",
           count, stats.steps, stats.elections, stats.commits, stats.reads, stats.truncations,
           stats.drops, stats.duplicates, stats.delays, stats.partitions_symmetric,
           stats.partitions_asymmetric, stats.cut_links, stats.crashes, stats.power_cuts,
           stats.lost_writes, stats.pauses, stats.slow_disks, stats.resets, stats.transfers,
           stats.changes, stats.removals, stats.retired, stats.compactions, stats.installed,
           stats.stale_snapshots, stats.resets_of_logs);
    return 0;
}
