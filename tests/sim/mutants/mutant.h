#ifndef TESTS_SIM_MUTANTS_MUTANT_H
#define TESTS_SIM_MUTANTS_MUTANT_H

/* Which deliberate defect this run of the simulator has. Included by woven copies of the sources
 * alone (weave.py); what is shipped knows nothing of it. */

#include <stdbool.h>

/* Whether the environment variable PROCONSUL_MUTANT names this one. Of a run with a defect, the
 * program's end tells on the error output how often it was asked: a defect that was never reached
 * was not tried. */
bool mutant_is(const char *name);

#define MUTANT(name) mutant_is(#name)

#endif
