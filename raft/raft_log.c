/* Terms and indexes of the log's entries, as runs of equal terms: a few dozen bytes for a log of
 * any length, because terms change with elections only. */

#include "raft/raft_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { RAFT_RUNS_INITIAL = 16 };

static bool raft_log_state_valid(const struct raft_state *state)
{
    if (state->last_index > RAFT_INDEX_MAX || state->term > RAFT_TERM_MAX) {
        return false;
    }
    if (state->first_index == 0) {
        /* A new server's state is all zero. */
        return state->last_index == 0 && state->run_count == 0 && state->prev_term == 0;
    }
    if (state->first_index > state->last_index + 1 ||
        (state->first_index == 1) != (state->prev_term == 0)) {
        return false;
    }
    if ((state->run_count == 0) != (state->first_index > state->last_index)) {
        return false;
    }
    raft_term term = state->prev_term;
    for (size_t i = 0; i < state->run_count; i++) {
        const struct raft_term_run *run = &state->runs[i];
        const bool first_fits =
            i == 0 ? run->first == state->first_index : run->first > state->runs[i - 1].first;
        /* The entry before the log may have the first run's term; runs among them rise. */
        if (!first_fits || run->first > state->last_index || run->term == 0 || run->term < term ||
            (i > 0 && run->term == term)) {
            return false;
        }
        term = run->term;
    }
    return term <= state->term;
}

int raft_log_init(struct raft_log *log, const struct raft_state *state)
{
    memset(log, 0, sizeof(*log));
    if (!raft_log_state_valid(state)) {
        return RAFT_EINVAL;
    }
    log->first_index = state->first_index == 0 ? 1 : state->first_index;
    log->last_index = state->last_index;
    log->prev_term = state->prev_term;
    const int rc = raft_log_reserve(log, state->run_count + RAFT_RUNS_INITIAL);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < state->run_count; i++) {
        log->runs[i] = state->runs[i];
    }
    log->run_count = state->run_count;
    return RAFT_OK;
}

void raft_log_deinit(struct raft_log *log)
{
    free(log->runs);
    memset(log, 0, sizeof(*log));
}

int raft_log_reserve(struct raft_log *log, size_t count)
{
    if (log->run_capacity - log->run_count >= count) {
        return RAFT_OK;
    }
    const size_t capacity = (log->run_count + count) * 2;
    struct raft_term_run *runs = realloc(log->runs, capacity * sizeof(*runs));
    if (runs == NULL) {
        return RAFT_ENOMEM;
    }
    log->runs = runs;
    log->run_capacity = capacity;
    return RAFT_OK;
}

void raft_log_append(struct raft_log *log, raft_term term)
{
    assert(term > 0);
    assert(term >= raft_log_last_term(log));
    assert(log->last_index < RAFT_INDEX_MAX);

    if (log->run_count == 0 || log->runs[log->run_count - 1].term != term) {
        assert(log->run_count < log->run_capacity);
        log->runs[log->run_count] = (struct raft_term_run){log->last_index + 1, term};
        log->run_count++;
    }
    log->last_index++;
}

void raft_log_compact(struct raft_log *log, raft_index index)
{
    assert(index >= log->first_index);
    assert(index <= log->last_index);

    const raft_term term = raft_log_term_at(log, index);
    size_t dropped = 0;
    while (dropped < log->run_count &&
           (dropped + 1 < log->run_count ? log->runs[dropped + 1].first - 1 : log->last_index) <=
               index) {
        dropped++;
    }
    log->run_count -= dropped;
    memmove(log->runs, log->runs + dropped, log->run_count * sizeof(*log->runs));
    log->first_index = index + 1;
    log->prev_term = term;
    if (log->run_count > 0) {
        log->runs[0].first = log->first_index;
    }
    assert((log->run_count == 0) == (log->first_index > log->last_index));
}

void raft_log_reset(struct raft_log *log, raft_index index, raft_term term)
{
    assert(index > 0);
    assert(term > 0);

    log->run_count = 0;
    log->first_index = index + 1;
    log->last_index = index;
    log->prev_term = term;
}

void raft_log_truncate(struct raft_log *log, raft_index from)
{
    assert(from >= log->first_index);
    assert(from <= log->last_index);

    while (log->run_count > 0 && log->runs[log->run_count - 1].first >= from) {
        log->run_count--;
    }
    log->last_index = from - 1;
    assert((log->run_count == 0) == (log->first_index > log->last_index));
}

/* The run that holds `index`, which must be in the log. */
static size_t raft_log_run_at(const struct raft_log *log, raft_index index)
{
    assert(index >= log->first_index);
    assert(index <= log->last_index);

    size_t low = 0;
    size_t high = log->run_count;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (log->runs[middle].first <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    assert(log->runs[low].first <= index);
    return low;
}

raft_term raft_log_term_at(const struct raft_log *log, raft_index index)
{
    if (index + 1 == log->first_index) {
        return log->prev_term;
    }
    if (index < log->first_index || index > log->last_index) {
        return 0;
    }
    return log->runs[raft_log_run_at(log, index)].term;
}

raft_term raft_log_last_term(const struct raft_log *log)
{
    return log->run_count == 0 ? log->prev_term : log->runs[log->run_count - 1].term;
}

raft_index raft_log_skip_back(const struct raft_log *log, raft_index index, raft_term term)
{
    if (index > log->last_index) {
        index = log->last_index;
    }
    if (index < log->first_index) {
        return log->first_index - 1;
    }
    size_t run = raft_log_run_at(log, index);
    while (log->runs[run].term > term) {
        index = log->runs[run].first - 1;
        if (run == 0) {
            break;
        }
        run--;
    }
    return index;
}
