/* The network: every message takes its own time, so that they overtake each other; some are lost,
 * some come twice, some very late. */

#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/sim_full.h"

void sim_message_free(struct sim_message *message)
{
    if (message != NULL) {
        free(message->entries);
        free(message);
    }
}

static void sim_send_copy(struct sim *sim, size_t node, const struct raft_message *message,
                          uint64_t at_ms)
{
    struct sim_message *copy = calloc(1, sizeof(*copy));
    sim_require(sim, copy != NULL, "out of memory");
    copy->message = *message;
    if (message->entry_count > 0) {
        copy->entries = calloc(message->entry_count, sizeof(*copy->entries));
        sim_require(sim, copy->entries != NULL, "out of memory");
        for (size_t i = 0; i < message->entry_count; i++) {
            sim_require(sim, message->prev_index + 1 >= sim->nodes[node].disk.first_index,
                        "an entry is sent that was trimmed");
            copy->entries[i] = sim->nodes[node].log.entries[message->prev_index + i];
            if (sim->full != NULL) {
                sim_wal_verify(sim, node, message->prev_index + 1 + i);
            }
        }
    }
    sim_schedule(sim, &(struct sim_event){.at_ms = at_ms,
                                          .type = SIM_MESSAGE,
                                          .node = (size_t)message->to - 1,
                                          .message = copy});
}

void sim_send(struct sim *sim, size_t node, const struct raft_message *message)
{
    const struct sim_parameters *parameters = &sim->parameters;
    uint64_t at_ms = sim->now_ms + sim_between(sim, 1, parameters->latency_ms);

    sim_require(sim, message->to >= 1 && message->to <= parameters->node_count,
                "message to nobody");
    if (!sim->healed) {
        if (sim->blocked[node][message->to - 1] ||
            (sim_chance(sim, parameters->drop) && !sim_fault_class_left_out(sim, SIM_CLASS_DROP))) {
            sim->stats.drops++;
            return;
        }
        if (sim_chance(sim, parameters->delay) && !sim_fault_class_left_out(sim, SIM_CLASS_DELAY)) {
            sim->stats.delays++;
            at_ms += sim_between(sim, 1, parameters->delay_ms);
        }
        if (sim_chance(sim, parameters->duplicate) &&
            !sim_fault_class_left_out(sim, SIM_CLASS_DUPLICATE)) {
            sim->stats.duplicates++;
            sim_send_copy(sim, node, message, at_ms + sim_between(sim, 0, parameters->delay_ms));
        }
    }
    sim_send_copy(sim, node, message, at_ms);
}

static void sim_trace_message(const struct sim *sim, size_t node,
                              const struct raft_message *message)
{
    static const char *const words[] = {"",        "pre-vote?", "pre-vote",  "vote?", "vote",
                                        "append?", "append",    "take-over", "fetch!"};

    sim_trace(sim, node, words[message->type],
              "from %" PRIu64 " term %" PRIu64 " last %" PRIu64 "/%" PRIu64 " prev %" PRIu64
              "/%" PRIu64 " entries %zu commit %" PRIu64 " round %" PRIu64 " %s match %" PRIu64
              " hint %" PRIu64 "/%" PRIu64,
              message->from, message->term, message->last_index, message->last_term,
              message->prev_index, message->prev_term, message->entry_count, message->commit_index,
              message->round, message->granted ? "yes" : "no", message->match_index,
              message->hint_index, message->hint_term);
}

/* Hands the message to its server's core, unless the server is down or the link is cut meanwhile.
 */
void sim_deliver(struct sim *sim, struct sim_event *event)
{
    struct sim_message *carried = event->message;
    struct raft_message *message = &carried->message;

    if (sim->nodes[event->node].raft == NULL || sim->blocked[message->from - 1][event->node]) {
        sim->stats.drops++;
        sim_message_free(carried);
        return;
    }
    sim_trace_message(sim, event->node, message);
    struct raft_entry *entries = calloc(message->entry_count + 1, sizeof(*entries));
    sim_require(sim, entries != NULL, "out of memory");
    for (size_t i = 0; i < message->entry_count; i++) {
        const struct sim_entry *entry = &carried->entries[i];
        entries[i] = (struct raft_entry){.index = message->prev_index + 1 + i,
                                         .term = entry->term,
                                         .type = entry->type,
                                         .data = &entry->value,
                                         .size = sizeof(entry->value)};
        if (entry->type == RAFT_ENTRY_NOOP) {
            entries[i].size = 0;
        }
        if (entry->type == RAFT_ENTRY_COMMAND && sim->full != NULL) {
            entries[i].data = sim->full->commands[entry->value].bytes;
            entries[i].size = sim->full->commands[entry->value].size;
        }
        if (entry->type == RAFT_ENTRY_CONFIGURATION) {
            entries[i].data = sim->configurations[entry->value].bytes;
            entries[i].size = sim->configurations[entry->value].size;
        }
    }
    struct raft_event step = {.type = RAFT_EVENT_MESSAGE,
                              .message = message,
                              .entries = entries,
                              .entry_count = message->entry_count};
    sim_node_step(sim, event->node, &step);
    free(entries);
    sim_message_free(carried);
}
