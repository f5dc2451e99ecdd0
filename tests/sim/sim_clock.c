/* Each server's clock: it begins anywhere, and runs a little fast or slow. */

#include <inttypes.h>

#include "tests/sim/sim.h"

uint64_t sim_clock_shows(const struct sim_clock *clock, uint64_t at_ms)
{
    return clock->shown_ms +
           (at_ms - clock->base_ms) * (uint64_t)(1000 + clock->drift_permille) / 1000;
}

uint64_t sim_clock_moment(const struct sim_clock *clock, uint64_t shown_ms)
{
    if (shown_ms == UINT64_MAX) {
        return UINT64_MAX;
    }
    if (shown_ms <= clock->shown_ms) {
        return clock->base_ms;
    }
    uint64_t at_ms = clock->base_ms +
                     (shown_ms - clock->shown_ms) * 1000 / (uint64_t)(1000 + clock->drift_permille);
    while (sim_clock_shows(clock, at_ms) < shown_ms) {
        at_ms++;
    }
    while (at_ms > clock->base_ms && sim_clock_shows(clock, at_ms - 1) >= shown_ms) {
        at_ms--;
    }
    return at_ms;
}

/* A third of what lies between the lease and how long voters honour it goes to the rate, so that
 * two may differ by nearly all of it but a third, which is for a jump. */
void sim_clock_init(struct sim *sim, size_t node)
{
    const struct sim_parameters *parameters = &sim->parameters;
    struct sim_clock *clock = &sim->nodes[node].clock;
    uint32_t honoured_ms = parameters->lease_guard_ms - 3; /* Whole milliseconds cost that much. */

    if (honoured_ms > parameters->election_ms) {
        honoured_ms = parameters->election_ms;
    }
    const uint32_t margin_ms = honoured_ms - parameters->lease_ms;
    clock->drift_max_permille = (int)(margin_ms * 1000 / honoured_ms / 3);
    clock->jump_max_ms = margin_ms / 4;
    const uint64_t range = 2 * (uint64_t)clock->drift_max_permille;
    clock->drift_permille = (int)sim_between(sim, 0, range) - clock->drift_max_permille;
    clock->base_ms = sim->now_ms;
    clock->shown_ms = sim_between(sim, 0, 100000);
    if (sim_fault_class_left_out(sim, SIM_CLASS_DRIFT)) {
        clock->drift_permille = 0;
        clock->drift_max_permille = 0;
    }
}

/* Both within what the lease allows for: a jump no more than once while any lease is honoured. */
void sim_clock_disturb(struct sim *sim, size_t node)
{
    struct sim_clock *clock = &sim->nodes[node].clock;
    uint64_t shown_ms = sim_clock_shows(clock, sim->now_ms);
    const uint64_t range = 2 * (uint64_t)clock->drift_max_permille;

    if (sim_chance(sim, 5000) && clock->jump_max_ms > 0 &&
        sim->now_ms - clock->jumped_ms >= 3 * (uint64_t)sim->parameters.election_ms) {
        const uint64_t jump_ms = sim_between(sim, 1, clock->jump_max_ms);
        sim_trace(sim, node, "clock", "jumps by %" PRIu64 " ms", jump_ms);
        shown_ms += jump_ms;
        clock->jumped_ms = sim->now_ms;
        sim->stats.clock_jumps++;
    } else if (range > 0) {
        clock->drift_permille = (int)sim_between(sim, 0, range) - clock->drift_max_permille;
        sim_trace(sim, node, "clock", "runs at %d per mille more", clock->drift_permille);
        sim->stats.clock_rates++;
    }
    clock->base_ms = sim->now_ms;
    clock->shown_ms = shown_ms;
    /* Its deadline comes at another time now. */
    sim->nodes[node].wake_ms = sim->nodes[node].raft == NULL
                                   ? UINT64_MAX
                                   : sim_clock_moment(clock, sim->nodes[node].deadline_ms);
    if (sim->nodes[node].wake_ms < sim->now_ms) {
        sim->nodes[node].wake_ms = sim->now_ms;
    }
}
