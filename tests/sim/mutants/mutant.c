#include "tests/sim/mutants/mutant.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *mutant_name;
static bool mutant_known;
static uint64_t mutant_reached;

static void mutant_report(void)
{
    fprintf(stderr, "mutant %s: reached %" PRIu64 " times\n", mutant_name, mutant_reached);
}

bool mutant_is(const char *name)
{
    if (!mutant_known) {
        mutant_known = true;
        mutant_name = getenv("PROCONSUL_MUTANT");
        if (mutant_name != NULL) {
            atexit(mutant_report);
        }
    }
    if (mutant_name == NULL || strcmp(mutant_name, name) != 0) {
        return false;
    }
    mutant_reached++;
    return true;
}
