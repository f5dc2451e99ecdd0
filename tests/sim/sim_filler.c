/* Writes that no client waits for: of all sizes, and of the kinds that clients have no use for.
 * Their one judge is that all servers make the same of them. */

#include <inttypes.h>
#include <string.h>

#include "tests/sim/sim_full.h"

enum { SIM_FILLER_BYTES_MAX = 600, SIM_FILLER_KEYS = 10, SIM_FILLER_OPS_MAX = 4 };

static const struct uuid no_session = {{0}};

static struct slice filler_bytes(struct sim *sim)
{
    static const char text[SIM_FILLER_BYTES_MAX];

    return slice_from(text, sim_between(sim, 0, sizeof(text)));
}

static struct slice filler_key(struct sim *sim, char out[16])
{
    (void)snprintf(out, 16, "filler/%u", (unsigned)sim_between(sim, 0, SIM_FILLER_KEYS - 1));
    return slice_from_text(out);
}

/* Some of them are refused, and then leave nothing behind. */
static void filler_txn(struct sim *sim, struct buffer *out)
{
    static const enum txn_verb verbs[] = {TXN_SET, TXN_CAS, TXN_DELETE, TXN_GET, TXN_DELETE_TREE};
    const uint64_t count = sim_between(sim, 1, SIM_FILLER_OPS_MAX);
    struct buffer ops = {0};

    for (uint64_t i = 0; i < count; i++) {
        char key[16];
        const struct txn_op op = {.kind = TXN_KV,
                                  .verb = verbs[sim_between(sim, 0, 4)],
                                  .verb_text = SLICE_EMPTY,
                                  .index = sim_between(sim, 0, 1) * sim_between(sim, 1, 100),
                                  .key = filler_key(sim, key),
                                  .value = filler_bytes(sim),
                                  .session = SLICE_EMPTY,
                                  .session_fault = SLICE_EMPTY};
        txn_op_encode(&ops, &op);
    }
    command_encode_txn(out, buffer_slice(&ops));
    buffer_deinit(&ops);
}

static void filler_command(struct sim *sim, struct buffer *out)
{
    const uint64_t choice = sim_between(sim, 0, 99);
    char key[16];

    if (choice < 15) {
        filler_txn(sim, out);
    } else if (choice < 20) {
        command_encode_reap(out, sim_between(sim, 0, sim->committed_count));
    } else if (choice < 22) {
        command_encode_kv(out, COMMAND_KV_DELETE_PREFIX, SLICE_LITERAL("filler/"), SLICE_EMPTY, 0,
                          0, &no_session);
    } else if (choice < 24) {
        command_encode_deregister(out, SLICE_LITERAL("db"), SLICE_LITERAL("pg"), SLICE_EMPTY);
    } else if (choice < 25) {
        command_encode_deregister(out, SLICE_LITERAL("db"), SLICE_EMPTY, SLICE_LITERAL("alive"));
    } else {
        command_encode_kv(out, COMMAND_KV_SET, filler_key(sim, key), filler_bytes(sim),
                          sim->next_value, 0, &no_session);
    }
}

void sim_filler_propose(struct sim *sim, size_t node)
{
    struct buffer bytes = {0};

    if (sim->full->quiet || !sim_node_awake(sim, node) || sim->nodes[node].role != RAFT_LEADER ||
        sim->full->servers[node].start_pending || sim->full->servers[node].wal_full) {
        return;
    }
    filler_command(sim, &bytes);
    const uint64_t value = sim_command_add(sim, &bytes, 0);
    buffer_deinit(&bytes);
    (void)sim_server_propose(sim, node, value);
}
