#ifndef TESTS_UNIT_RAFT_FIXTURE_H
#define TESTS_UNIT_RAFT_FIXTURE_H

/* One core, server 1, in virtual time; the test plays the disk and the other servers. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "raft/raft.h"

enum {
    CORE_ELECTION_MS = 100,
    CORE_HEARTBEAT_MS = 20,
    CORE_LEASE_MS = 80,
    CORE_START_MS = 1000,
    CORE_INFLIGHT_MAX = 3,
    CORE_BATCH_MAX = 4, /* entries of one append request */
    CORE_UNCOMMITTED_MAX = 40,
    CORE_LOG_MAX = 64,
};

struct core {
    struct raft *raft;
    uint64_t now_ms;
    struct raft_update update; /* of the last step */
};

/* The state that a core starts with. */
struct core_start {
    size_t servers;     /* ids 1..servers; 0: no configuration */
    bool self_no_voter; /* server 1 has no vote */
    raft_term term;
    raft_id vote;
    raft_term log[CORE_LOG_MAX]; /* terms of the entries; 0 ends it */
    raft_index commit_index;
    uint64_t seed;
};

static inline struct raft_configuration core_configuration(size_t servers)
{
    struct raft_configuration configuration;

    memset(&configuration, 0, sizeof(configuration));
    configuration.count = servers;
    for (size_t i = 0; i < servers; i++) {
        configuration.servers[i].id = i + 1;
        configuration.servers[i].voter = true;
    }
    return configuration;
}

static inline raft_index core_batch_end(void *host, raft_index first, raft_index last,
                                        size_t bytes_max)
{
    (void)host;
    (void)bytes_max;
    return last - first < CORE_BATCH_MAX ? last : first + CORE_BATCH_MAX - 1;
}

static inline struct raft_options core_options(uint64_t seed)
{
    return (struct raft_options){.id = 1,
                                 .seed = seed,
                                 .election_ms = CORE_ELECTION_MS,
                                 .heartbeat_ms = CORE_HEARTBEAT_MS,
                                 .lease_ms = CORE_LEASE_MS,
                                 .append_bytes_max = 1024,
                                 .inflight_max = CORE_INFLIGHT_MAX,
                                 .uncommitted_max = CORE_UNCOMMITTED_MAX,
                                 .batch_end = core_batch_end};
}

static inline void core_init(struct core *core, const struct core_start *start)
{
    const struct raft_options options = core_options(start->seed);
    struct raft_configuration configuration = core_configuration(start->servers);
    struct raft_term_run runs[CORE_LOG_MAX];
    struct raft_state state = {.term = start->term,
                               .vote = start->vote,
                               .first_index = 1,
                               .runs = runs,
                               .commit_index = start->commit_index};

    memset(core, 0, sizeof(*core));
    core->now_ms = CORE_START_MS;
    if (start->servers > 0) {
        configuration.servers[0].voter = !start->self_no_voter;
        state.configuration = &configuration;
    }
    while (start->log[state.last_index] != 0) {
        const raft_term term = start->log[state.last_index++];
        if (state.run_count == 0 || runs[state.run_count - 1].term != term) {
            runs[state.run_count++] = (struct raft_term_run){state.last_index, term};
        }
    }
    assert_int_equal(raft_new(&options, &state, core->now_ms, &core->raft), RAFT_OK);
}

static inline void core_deinit(struct core *core)
{
    raft_free(core->raft);
}

static inline int core_try(struct core *core, struct raft_event *event)
{
    event->now_ms = core->now_ms;
    return raft_step(core->raft, event, &core->update);
}

static inline void core_step(struct core *core, struct raft_event *event)
{
    assert_int_equal(core_try(core, event), RAFT_OK);
}

/* Lets `ms` pass, then ticks. */
static inline void core_tick(struct core *core, uint64_t ms)
{
    core->now_ms += ms;
    core_step(core, &(struct raft_event){.type = RAFT_EVENT_TICK});
}

/* Ticks at the deadline. */
static inline void core_deadline(struct core *core)
{
    core_tick(core, 0);
    core_tick(core, core->update.deadline_ms - core->now_ms);
}

static inline void core_persist(struct core *core, uint64_t sequence)
{
    core_step(core, &(struct raft_event){.type = RAFT_EVENT_PERSISTED, .sequence = sequence});
}

static inline int core_try_receive(struct core *core, struct raft_message message,
                                   const struct raft_entry *entries)
{
    message.to = 1;
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE,
                               .message = &message,
                               .entries = entries,
                               .entry_count = message.entry_count};
    return core_try(core, &event);
}

static inline void core_receive(struct core *core, struct raft_message message)
{
    assert_int_equal(core_try_receive(core, message, NULL), RAFT_OK);
}

/* An append request with entries after `prev_index`, their terms ended by 0. */
static inline int core_try_append(struct core *core, struct raft_message message,
                                  const raft_term *terms)
{
    struct raft_entry entries[CORE_LOG_MAX];

    memset(entries, 0, sizeof(entries));
    message.type = RAFT_APPEND_REQUEST;
    while (terms != NULL && terms[message.entry_count] != 0) {
        entries[message.entry_count] =
            (struct raft_entry){.index = message.prev_index + 1 + message.entry_count,
                                .term = terms[message.entry_count],
                                .type = RAFT_ENTRY_COMMAND};
        message.entry_count++;
    }
    return core_try_receive(core, message, entries);
}

static inline void core_append(struct core *core, struct raft_message message,
                               const raft_term *terms)
{
    assert_int_equal(core_try_append(core, message, terms), RAFT_OK);
}

static inline int core_try_propose(struct core *core, size_t count)
{
    struct raft_entry entries[CORE_LOG_MAX];

    memset(entries, 0, sizeof(entries));
    for (size_t i = 0; i < count; i++) {
        entries[i].type = RAFT_ENTRY_COMMAND;
    }
    struct raft_event event = {
        .type = RAFT_EVENT_PROPOSE, .entries = entries, .entry_count = count};
    return core_try(core, &event);
}

static inline void core_propose(struct core *core, size_t count)
{
    assert_int_equal(core_try_propose(core, count), RAFT_OK);
}

static inline void core_read(struct core *core, uint64_t token, bool quorum)
{
    core_step(core, &(struct raft_event){
                        .type = RAFT_EVENT_READ, .read_token = token, .read_quorum = quorum});
}

/* The last step's n-th message of that type to `to`, from 0; NULL if there are not so many. */
static inline const struct raft_message *
core_sent_nth(const struct core *core, enum raft_message_type type, raft_id to, size_t n)
{
    for (size_t i = 0; i < core->update.message_count; i++) {
        const struct raft_message *message = &core->update.messages[i];
        if (message->type == type && message->to == to && n-- == 0) {
            return message;
        }
    }
    return NULL;
}

static inline const struct raft_message *core_sent(const struct core *core,
                                                   enum raft_message_type type, raft_id to)
{
    return core_sent_nth(core, type, to, 0);
}

/* Through an election to leadership of the next term: votes of 2 and, of five, 3. The no-op is not
 * durable yet. */
static inline void core_elect(struct core *core)
{
    const size_t servers = raft_configuration(core->raft)->count;

    core_deadline(core);
    assert_int_equal(core->update.role, RAFT_PRE_CANDIDATE);
    for (raft_id id = 2; id <= servers / 2 + 1; id++) {
        core_receive(core, (struct raft_message){.type = RAFT_PRE_VOTE_RESPONSE,
                                                 .from = id,
                                                 .term = raft_term_now(core->raft) + 1,
                                                 .granted = true});
    }
    assert_int_equal(core->update.role, RAFT_CANDIDATE);
    core_persist(core, core->update.sequence);
    for (raft_id id = 2; id <= servers / 2 + 1; id++) {
        core_receive(core, (struct raft_message){.type = RAFT_VOTE_RESPONSE,
                                                 .from = id,
                                                 .term = raft_term_now(core->raft),
                                                 .granted = true});
    }
    assert_int_equal(core->update.role, RAFT_LEADER);
}

/* A follower's answer: all up to `match_index` is durable there. */
static inline void core_acknowledge(struct core *core, raft_id from, raft_index match_index,
                                    uint64_t round)
{
    core_receive(core, (struct raft_message){.type = RAFT_APPEND_RESPONSE,
                                             .from = from,
                                             .term = raft_term_now(core->raft),
                                             .granted = true,
                                             .match_index = match_index,
                                             .round = round});
}

/* A leader of three whose no-op is durable and committed. */
static inline void core_lead(struct core *core)
{
    core_elect(core);
    const uint64_t round = core_sent(core, RAFT_APPEND_REQUEST, 2)->round;
    core_persist(core, core->update.sequence);
    core_acknowledge(core, 2, raft_last_index(core->raft), round);
    core_acknowledge(core, 3, raft_last_index(core->raft), round);
    assert_int_equal(core->update.commit_index, raft_last_index(core->raft));
}

static inline void core_init_leader(struct core *core, const struct core_start *start)
{
    core_init(core, start);
    core_lead(core);
}

#endif
