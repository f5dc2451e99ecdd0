/* What a run is like: parameters from the seed, and the configurations of the cluster. */

#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

static void sim_parameters_draw_full(struct sim *sim)
{
    struct sim_parameters *parameters = &sim->parameters;
    const uint64_t election_ms = parameters->election_ms;

    parameters->fault_phase_ms = sim_between(sim, 10, 40) * election_ms;
    parameters->propose_interval_ms = sim_between(sim, 20, 4 * SIM_BUSY_INTERVAL_MS);
    parameters->read_interval_ms = sim_between(sim, 20, 4 * SIM_BUSY_INTERVAL_MS);
    parameters->client_count = sim_between(sim, 2, 5);
    parameters->think_ms = sim_between(sim, 5, election_ms / 2);
    parameters->timeout_ms = sim_between(sim, election_ms / 2, 3 * election_ms);
    parameters->ttl_ms = sim_between(sim, election_ms, 4 * election_ms);
    parameters->apply_ms = sim_chance(sim, 5000) ? 0 : sim_between(sim, 0, election_ms / 8);
    parameters->fault_weights[SIM_FAULT_SPACE] =
        (unsigned)(sim_chance(sim, 3000) ? sim_between(sim, 1, 10) : 0);
    parameters->cache_bytes = (size_t)1 << sim_between(sim, 0, 12);
    parameters->segment_bytes = (size_t)1 << sim_between(sim, 13, 15);
}

void sim_parameters_draw(struct sim *sim)
{
    struct sim_parameters *parameters = &sim->parameters;

    static const size_t voter_counts[] = {3, 3, 3, 5, 5, 4};
    parameters->voter_count = voter_counts[sim_between(sim, 0, 5)];
    if (sim_chance(sim, 2000)) {
        parameters->split = (unsigned)sim_between(sim, 1000, 9000);
        /* Halves of an even number are what changes go wrong with. */
        parameters->voter_count = sim_chance(sim, 7000) ? 4 : parameters->voter_count;
    }
    parameters->node_count = parameters->voter_count + (sim_chance(sim, 2500) ? 1 : 0);
    parameters->first_count = parameters->node_count;
    parameters->bootstrap_all = sim_chance(sim, 5000);
    parameters->election_ms = (uint32_t)sim_between(sim, 100, 400);
    parameters->heartbeat_ms = parameters->election_ms / (uint32_t)sim_between(sim, 4, 10);
    parameters->lease_ms = parameters->election_ms * (uint32_t)sim_between(sim, 50, 90) / 100;
    if (sim_chance(sim, 5000)) {
        parameters->lease_ms = (uint32_t)sim_between(sim, 10, parameters->lease_ms);
    }
    parameters->lease_guard_ms =
        parameters->lease_ms + 4 + (uint32_t)sim_between(sim, 0, parameters->lease_ms / 4);
    parameters->lost_spread_ms = (uint32_t)sim_between(sim, 1, parameters->election_ms / 10);
    parameters->inflight_max = sim_between(sim, 1, 8);
    parameters->batch_max = sim_between(sim, 1, 16);
    parameters->uncommitted_max = sim_between(sim, 8, 64);
    parameters->latency_ms = sim_between(sim, 1, parameters->election_ms / 20);
    parameters->drop = (unsigned)(sim_chance(sim, 5000) ? sim_between(sim, 0, 2000) : 0);
    parameters->duplicate = (unsigned)(sim_chance(sim, 5000) ? sim_between(sim, 0, 1000) : 0);
    parameters->delay = (unsigned)(sim_chance(sim, 6000) ? sim_between(sim, 0, 1000) : 0);
    parameters->delay_ms = sim_between(sim, 10, 10 * (uint64_t)parameters->election_ms);
    parameters->disk_ms = sim_between(sim, 0, parameters->election_ms / 6);
    parameters->disk_slow_ms = sim_between(sim, 20, 4 * (uint64_t)parameters->election_ms);
    parameters->fault_interval_ms = sim_between(sim, 50, 5 * (uint64_t)parameters->election_ms);
    for (size_t i = 0; i < SIM_FAULT_SPACE; i++) {
        /* Not all faults in every run, so that each is also seen alone. */
        parameters->fault_weights[i] =
            (unsigned)(sim_chance(sim, 6500) ? sim_between(sim, 1, 10) : 0);
        if (i >= SIM_FAULT_MACHINE && !sim->options.full) {
            parameters->fault_weights[i] = 0;
        }
    }
    parameters->fault_weights[SIM_FAULT_POWER] /= 5;
    parameters->fault_weights[SIM_FAULT_HEAL] += 3;
    /* With few writes, a server that does not hear its leader keeps up with it, and may win. */
    parameters->propose_interval_ms =
        sim_chance(sim, 7000) ? sim_between(sim, 5, SIM_BUSY_INTERVAL_MS)
                              : sim_between(sim, 5, 4 * (uint64_t)parameters->election_ms);
    parameters->read_interval_ms = sim_between(sim, 5, SIM_BUSY_INTERVAL_MS);
    if (sim_chance(sim, parameters->split > 0 ? 10000 : 5000)) {
        parameters->change_interval_ms = sim_between(
            sim, 5, (sim_chance(sim, 5000) ? 4 : 1) * (uint64_t)parameters->election_ms);
    }
    if (sim_chance(sim, 6000)) {
        parameters->compact_interval_ms =
            sim_between(sim, 10, 4 * (uint64_t)parameters->election_ms);
    }
    parameters->fetch_ms = sim_between(sim, 1, parameters->election_ms);
    parameters->fault_phase_ms = sim_between(sim, 20, 80) * parameters->election_ms;
    if ((sim_chance(sim, 1500) && parameters->split == 0) || sim->options.duel) {
        sim_parameters_duel(sim);
    }
    if (sim->options.full) {
        sim_parameters_draw_full(sim);
    }
}

uint64_t sim_configuration_find(const struct sim *sim, const void *bytes, size_t size)
{
    uint64_t which = 0;

    while (which < sim->configuration_count &&
           (sim->configurations[which].size != size ||
            memcmp(sim->configurations[which].bytes, bytes, size) != 0)) {
        which++;
    }
    sim_require(sim, which < sim->configuration_count, "a configuration that nobody proposed");
    return which;
}

uint64_t sim_configuration_add(struct sim *sim, const struct raft_configuration *configuration)
{
    if (sim->configurations == NULL) {
        sim->configurations = calloc(SIM_CONFIGURATIONS_MAX, sizeof(*sim->configurations));
        sim_require(sim, sim->configurations != NULL, "out of memory");
    }
    sim_require(sim, sim->configuration_count < SIM_CONFIGURATIONS_MAX, "too many configurations");
    struct sim_configuration *added = &sim->configurations[sim->configuration_count];
    added->configuration = *configuration;
    added->size = raft_configuration_encode(configuration, added->bytes);
    sim->configuration_count++;
    return sim_configuration_find(sim, added->bytes, added->size);
}

void sim_configuration_make(struct sim *sim)
{
    struct raft_configuration configuration;

    memset(&configuration, 0, sizeof(configuration));
    configuration.count = sim->parameters.node_count;
    for (size_t i = 0; i < sim->parameters.node_count; i++) {
        struct raft_server *server = &configuration.servers[i];
        server->id = i + 1;
        server->voter = i < sim->parameters.voter_count;
        server->info_size = 1;
        server->info[0] = (char)('a' + (int)i);
    }
    (void)sim_configuration_add(sim, &configuration);
}
