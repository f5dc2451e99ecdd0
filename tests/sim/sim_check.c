/* What must hold after every step: the five properties of Raft (dissertation figure 3.2), that
 * answers rest on what is durable, that reads see everything acknowledged before them, and that
 * pre-votes change nothing. Each check is the obvious slow one, made against the whole cluster. */

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "tests/sim/sim_full.h"

const char *sim_modes(const struct sim_options *options, char *out)
{
    (void)snprintf(out, SIM_MODES_BYTES, "%s%s%s", options->full ? "" : " --core",
                   options->duel ? " --duel" : "", options->planted ? " --planted" : "");
    return out;
}

void sim_require(const struct sim *sim, bool holds, const char *format, ...)
{
    if (holds) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "seed %" PRIu64 " at %" PRIu64 " ms: ", sim->options.seed, sim->now_ms);
    vfprintf(stderr, format, arguments);
    char modes[SIM_MODES_BYTES];
    fprintf(stderr, "\nreplay: sim%s --seed %" PRIu64 " -v\n", sim_modes(&sim->options, modes),
            sim->options.seed);
    va_end(arguments);
    sim_shrink_failed(format);
    exit(1);
}

static const struct sim_entry *sim_log_at(const struct sim_log *log, raft_index index)
{
    return index >= 1 && index <= log->count ? &log->entries[index - 1] : NULL;
}

/* --- log matching --- */

static struct sim_seen *sim_seen_slot(struct sim_seen *seen, size_t capacity, raft_index index,
                                      raft_term term)
{
    uint64_t hash = (index * 0x9E3779B97F4A7C15U) ^ (term * 0xC2B2AE3D27D4EB4FU);

    hash ^= hash >> 29;
    size_t slot = (size_t)hash & (capacity - 1);
    while (seen[slot].index != 0 && (seen[slot].index != index || seen[slot].term != term)) {
        slot = (slot + 1) & (capacity - 1);
    }
    return &seen[slot];
}

static void sim_seen_grow(struct sim *sim)
{
    if (sim->seen_count * 2 < sim->seen_capacity) {
        return;
    }
    const size_t capacity = sim->seen_capacity == 0 ? 1024 : sim->seen_capacity * 2;
    struct sim_seen *seen = calloc(capacity, sizeof(*seen));
    sim_require(sim, seen != NULL, "out of memory");
    for (size_t i = 0; i < sim->seen_capacity; i++) {
        if (sim->seen[i].index != 0) {
            *sim_seen_slot(seen, capacity, sim->seen[i].index, sim->seen[i].term) = sim->seen[i];
        }
    }
    free(sim->seen);
    sim->seen = seen;
    sim->seen_capacity = capacity;
}

/* Same index and term: same entry, and the same term before it. By induction that is log matching
 * for all logs that ever existed. */
void sim_check_append(struct sim *sim, size_t node, raft_index index)
{
    const struct sim_log *log = &sim->nodes[node].log;
    const struct sim_entry *entry = sim_log_at(log, index);
    const raft_term prev_term = index == 1 ? 0 : sim_log_at(log, index - 1)->term;

    sim_seen_grow(sim);
    struct sim_seen *seen = sim_seen_slot(sim->seen, sim->seen_capacity, index, entry->term);
    if (seen->index == 0) {
        *seen = (struct sim_seen){index, entry->term, prev_term, entry->value};
        sim->seen_count++;
        return;
    }
    sim_require(sim, seen->value == entry->value && seen->prev_term == prev_term,
                "log matching: server %zu has another entry %" PRIu64 " of term %" PRIu64, node + 1,
                index, entry->term);
}

/* --- elections --- */

static void sim_check_leader(struct sim *sim, size_t node, raft_term term)
{
    const struct sim_node *server = &sim->nodes[node];

    const size_t old_capacity = sim->leaders_capacity;
    sim->leaders =
        sim_grow(sim->leaders, &sim->leaders_capacity, (size_t)term + 1, sizeof(*sim->leaders));
    for (size_t i = old_capacity; i < sim->leaders_capacity; i++) {
        sim->leaders[i] = 0;
    }
    sim_require(sim, sim->leaders[term] == 0 || sim->leaders[term] == server->id,
                "election safety: servers %" PRIu64 " and %" PRIu64 " lead term %" PRIu64,
                sim->leaders[term], server->id, term);
    if (sim->leaders[term] != 0) {
        return;
    }
    sim->leaders[term] = server->id;
    sim->stats.elections++;
    sim_elected(sim, node);
    sim_require(sim, sim_node_may_campaign(sim, node), "a server without a vote leads");
    for (size_t i = 0; i < sim->committed_count; i++) {
        const struct sim_committed *committed = &sim->committed[i];
        if (committed->committed_in >= term) {
            continue;
        }
        const struct sim_entry *entry = sim_log_at(&server->log, i + 1);
        sim_require(sim, entry != NULL && entry->term == committed->entry.term,
                    "leader completeness: leader %" PRIu64 " of term %" PRIu64
                    " lacks committed entry %zu",
                    server->id, term, i + 1);
    }
}

/* --- commitment --- */

/* Whether more than half of the leader's voters have the entry on disk, in the log or a snapshot.
 */
static bool sim_on_quorum(const struct sim *sim, size_t node, raft_index index, raft_term term)
{
    const struct raft_configuration *configuration = raft_configuration(sim->nodes[node].raft);
    size_t voters = 0;
    size_t count = 0;

    for (size_t i = 0; i < configuration->count; i++) {
        if (!configuration->servers[i].voter) {
            continue;
        }
        const struct sim_disk *disk = &sim->nodes[configuration->servers[i].id - 1].disk;
        const struct sim_entry *entry = sim_log_at(&disk->log, index);
        voters++;
        count += disk->snapshot_index >= index || (entry != NULL && entry->term == term) ? 1 : 0;
    }
    return count > voters / 2;
}

static void sim_check_commit(struct sim *sim, size_t node, const struct raft_update *update)
{
    struct sim_node *server = &sim->nodes[node];

    sim_require(sim, update->commit_index >= server->commit_index,
                "server %" PRIu64 ": commit index goes back", server->id);
    sim_require(sim, update->commit_index <= server->log.count,
                "server %" PRIu64 ": commit index beyond the log", server->id);
    if (update->role == RAFT_LEADER && update->commit_index > server->commit_index) {
        const raft_term term = sim_log_at(&server->log, update->commit_index)->term;
        sim_require(sim, term == update->term,
                    "leader commits an earlier term's entry by counting");
        sim_require(sim, sim_on_quorum(sim, node, update->commit_index, term),
                    "leader commits entry %" PRIu64 " that is not on a quorum of disks",
                    update->commit_index);
    }
    for (raft_index index = server->commit_index + 1; index <= update->commit_index; index++) {
        const struct sim_entry *entry = sim_log_at(&server->log, index);
        if (index <= sim->committed_count) {
            const struct sim_entry *committed = &sim->committed[index - 1].entry;
            sim_require(sim, committed->term == entry->term && committed->value == entry->value,
                        "state machine safety: server %" PRIu64 " commits another entry %" PRIu64,
                        server->id, index);
            continue;
        }
        sim->committed = sim_grow(sim->committed, &sim->committed_capacity,
                                  sim->committed_count + 1, sizeof(*sim->committed));
        sim->committed[sim->committed_count++] = (struct sim_committed){*entry, update->term};
        sim->stats.commits++;
    }
    server->commit_index = update->commit_index;
}

static void sim_check_apply(struct sim *sim, size_t node, const struct raft_update *update)
{
    struct sim_node *server = &sim->nodes[node];
    const raft_index end_index = update->apply_index;

    sim_require(sim, end_index <= update->commit_index, "applied beyond the commit index");
    sim_require(sim, end_index >= server->applied_index, "server %" PRIu64 ": apply goes back",
                server->id);
    for (raft_index index = server->applied_index + 1; index <= end_index; index++) {
        const struct sim_entry *entry = sim_log_at(&server->disk.log, index);
        sim_require(sim,
                    index <= server->disk.snapshot_index ||
                        (entry != NULL && entry->term == sim->committed[index - 1].entry.term),
                    "server %" PRIu64 " applies entry %" PRIu64 " that is not durable there",
                    server->id, index);
    }
    server->applied_index = end_index;
}

/* --- steps --- */

void sim_check_update(struct sim *sim, size_t node, const struct raft_event *event,
                      const struct raft_update *update)
{
    const struct sim_node *server = &sim->nodes[node];

    sim_require(sim, update->term >= server->term, "server %" PRIu64 ": term goes back",
                server->id);
    if (update->term == server->term) {
        sim_require(sim, server->vote == 0 || update->vote == server->vote,
                    "server %" PRIu64 " votes twice in term %" PRIu64, server->id, update->term);
    }
    sim_require(sim,
                update->hard_state_changed ||
                    (update->term == server->term && update->vote == server->vote),
                "term or vote changed and is not written");
    if (event->type == RAFT_EVENT_MESSAGE && event->message->type == RAFT_PRE_VOTE_REQUEST) {
        /* Unless its time was over, too, and it is the only voter. */
        sim_require(sim, !update->hard_state_changed || update->vote == server->id,
                    "a pre-vote changes term or vote");
    }
    if (update->truncate_from != 0) {
        sim_require(sim, update->truncate_from > server->commit_index,
                    "server %" PRIu64 " truncates committed entries", server->id);
        sim_require(sim, server->role != RAFT_LEADER || update->role != RAFT_LEADER,
                    "leader append-only: server %" PRIu64 " truncates", server->id);
    }
    for (size_t i = 0; i < update->entry_count && update->role == RAFT_LEADER; i++) {
        sim_require(sim, update->entries[i].term == update->term, "leader adds another's term");
    }
}

/* A leader that has not heard of a quorum for long has stepped down (6.2). */
static void sim_check_quorum(const struct sim *sim, size_t node)
{
    const struct sim_node *server = &sim->nodes[node];
    const struct raft_configuration *configuration = raft_configuration(server->raft);
    const uint64_t now_ms = sim_clock_shows(&server->clock, sim->now_ms);
    const uint64_t long_ms = 2 * (uint64_t)sim->parameters.election_ms;
    size_t voters = 0;
    size_t heard = 0;

    if (server->role != RAFT_LEADER || now_ms - server->quorum_since_ms < long_ms) {
        return;
    }
    for (size_t i = 0; i < configuration->count; i++) {
        struct raft_progress progress;
        if (configuration->servers[i].voter &&
            raft_progress(server->raft, configuration->servers[i].id, now_ms, &progress)) {
            voters++;
            heard += progress.last_contact_ms <= long_ms ? 1 : 0;
        }
    }
    sim_require(sim, heard > voters / 2,
                "server %" PRIu64 " leads, and has not heard of a quorum for %" PRIu64 " ms",
                server->id, long_ms);
}

/* The configuration in force is the last one in the log, committed or not (4.1). */
static void sim_check_configuration(const struct sim *sim, size_t node,
                                    const struct raft_update *update)
{
    const struct sim_node *server = &sim->nodes[node];
    const raft_index index = raft_configuration(server->raft)->index;
    raft_index last = server->log.count;

    if (!update->configuration_changed && update->truncate_from == 0 && update->reset_index == 0) {
        return;
    }
    while (last > 0 && server->log.entries[last - 1].type != RAFT_ENTRY_CONFIGURATION) {
        last--;
    }
    sim_require(sim, index == last,
                "server %" PRIu64 " goes by the configuration of entry %" PRIu64
                ", and its log's last one is that of %" PRIu64,
                server->id, index, last);
}

void sim_check_step(struct sim *sim, size_t node, const struct raft_update *update)
{
    struct sim_node *server = &sim->nodes[node];
    const struct sim_entry *last = sim_log_at(&server->log, server->log.count);

    sim_require(sim, raft_last_index(server->raft) == server->log.count, "core and log differ");
    sim_require(sim, raft_last_term(server->raft) == (last == NULL ? 0 : last->term),
                "core's and log's last terms differ");
    sim_require(sim,
                raft_durable_index(server->raft) <= server->disk.log.count ||
                    raft_durable_index(server->raft) <= server->disk.snapshot_index,
                "server %" PRIu64 " believes more durable than is", server->id);
    const bool changed = update->role != server->role || update->term != server->term;
    if (changed || update->truncate_from != 0) {
        sim_trace(sim, node, "role",
                  "%s term %" PRIu64 " vote %" PRIu64 " leader %" PRIu64
                  " last %zu durable %" PRIu64 " commit %" PRIu64 " truncate %" PRIu64,
                  update->role == RAFT_LEADER          ? "leader"
                  : update->role == RAFT_CANDIDATE     ? "candidate"
                  : update->role == RAFT_PRE_CANDIDATE ? "pre-candidate"
                                                       : "follower",
                  update->term, update->vote, update->leader, server->log.count,
                  raft_durable_index(server->raft), update->commit_index, update->truncate_from);
    }
    if (update->role == RAFT_CANDIDATE || update->role == RAFT_PRE_CANDIDATE) {
        sim_require(sim, sim_node_may_campaign(sim, node),
                    "server %" PRIu64 " campaigns without a vote or a configuration", server->id);
    }
    if (changed || update->configuration_changed) {
        server->quorum_since_ms = sim_clock_shows(&server->clock, sim->now_ms);
    }
    server->role = update->role;
    server->term = update->term;
    server->vote = update->vote;
    sim_check_quorum(sim, node);
    sim_check_configuration(sim, node, update);
    if (update->role == RAFT_LEADER) {
        sim_check_leader(sim, node, update->term);
    }
    sim_check_commit(sim, node, update);
    sim_check_apply(sim, node, update);
}

/* --- answers --- */

static void sim_check_acknowledgement(struct sim *sim, size_t node,
                                      const struct raft_message *message)
{
    const struct sim_node *server = &sim->nodes[node];
    const struct sim_disk *disk = &server->disk;
    const struct sim_entry *entry = sim_log_at(&disk->log, message->match_index);

    if (message->match_index <= disk->snapshot_index) {
        return; /* Nothing, or what is committed. */
    }
    sim_require(sim, entry != NULL,
                "server %" PRIu64 " acknowledges entry %" PRIu64 " that is not durable", server->id,
                message->match_index);
    sim_require(sim, entry->term == raft_term_at(server->raft, message->match_index),
                "server %" PRIu64 " acknowledges entry %" PRIu64 " with another one on disk",
                server->id, message->match_index);
    for (size_t i = 0; i < disk->write_count; i++) {
        const raft_index from = disk->writes[disk->write_first + i].truncate_from;
        sim_require(sim, from == 0 || from > message->match_index,
                    "server %" PRIu64 " acknowledges entry %" PRIu64
                    " that a write under way truncates",
                    server->id, message->match_index);
    }
    const struct sim_node *leader = &sim->nodes[message->to - 1];
    if (leader->raft != NULL && leader->role == RAFT_LEADER && leader->term == message->term) {
        const struct sim_entry *there = sim_log_at(&leader->log, message->match_index);
        sim_require(sim, there != NULL && there->term == entry->term,
                    "server %" PRIu64 " acknowledges entry %" PRIu64 " that its leader lacks",
                    server->id, message->match_index);
    }
}

/* Durable before answering (dissertation 3.8). */
void sim_check_message(struct sim *sim, size_t node, const struct raft_message *message)
{
    const struct sim_disk *disk = &sim->nodes[node].disk;

    switch (message->type) {
    case RAFT_VOTE_RESPONSE:
        sim_require(sim,
                    !message->granted || (disk->term == message->term && disk->vote == message->to),
                    "server %zu answers a vote that is not durable", node + 1);
        break;
    case RAFT_VOTE_REQUEST:
        sim_require(sim, disk->term == message->term && disk->vote == message->from,
                    "server %zu asks for votes and its own is not durable", node + 1);
        break;
    case RAFT_APPEND_RESPONSE:
        if (message->granted) {
            sim_check_acknowledgement(sim, node, message);
        }
        break;
    case RAFT_PRE_VOTE_REQUEST:
    case RAFT_PRE_VOTE_RESPONSE:
    case RAFT_APPEND_REQUEST:
    case RAFT_TIMEOUT_NOW:
    case RAFT_SNAPSHOT_REQUEST:
        break;
    }
}

void sim_check_read(struct sim *sim, size_t node, const struct raft_read *read)
{
    sim_require(sim, read->token < SIM_READS_MAX && sim->reads[read->token].open,
                "a read is answered that nobody waits for, or twice");
    struct sim_read *open = &sim->reads[read->token];
    open->open = false;
    sim_trace(sim, node, "read", "token %" PRIu64 " %s index %" PRIu64, read->token,
              raft_strerror(read->status), read->index);
    if (read->status != RAFT_OK) {
        if (open->op != 0) {
            sim_server_read(sim, node, open, read);
        }
        return;
    }
    sim->stats.reads++;
    sim_require(sim, read->index >= open->committed,
                "stale read on server %zu: index %" PRIu64 ", %" PRIu64
                " was committed before it came in",
                node + 1, read->index, open->committed);
    if (sim->healed) {
        sim->read_after_heal = true;
    }
    if (open->op != 0) {
        sim_server_read(sim, node, open, read);
    }
}
