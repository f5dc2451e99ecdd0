/* What a run in the full mode has beyond the core's. */

#include <stdlib.h>

#include "tests/sim/sim_full.h"

void sim_full_new(struct sim *sim)
{
    sim->full = calloc(1, sizeof(*sim->full));
    sim_require(sim, sim->full != NULL, "out of memory");
    sim->full->history = sim_linear_new();
    sim_require(sim, sim->full->history != NULL, "out of memory");
}

void sim_full_free(struct sim *sim)
{
    struct sim_full *full = sim->full;

    for (size_t i = 0; i < full->command_count; i++) {
        free(full->commands[i].bytes);
    }
    for (size_t i = 0; i < full->snapshot_count; i++) {
        buffer_deinit(&full->snapshots[i].image);
    }
    for (size_t i = 0; i < SIM_NODES_MAX; i++) {
        session_timers_free(full->servers[i].timers);
    }
    sim_linear_free(full->history);
    free(full->commands);
    free(full->snapshots);
    free(full->checksums);
    free(full->results);
    free(full->ops);
    free(full->sessions);
    free(full);
    sim->full = NULL;
}
