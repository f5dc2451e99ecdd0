/* The log and the snapshots at a start: whether they fit, and how they are made to. */

#include <assert.h>
#include <stdio.h>

#include "raft/wal_internal.h"

/* The term of an entry of the log, or of the one before its first. */
static raft_term wal_fit_term_at(const struct raft_state *state, raft_index index)
{
    raft_term term = state->prev_term;

    assert(index + 1 >= state->first_index);
    assert(index <= state->last_index);
    for (size_t i = 0; i < state->run_count && state->runs[i].first <= index; i++) {
        term = state->runs[i].term;
    }
    return term;
}

enum wal_fit wal_fit(const struct raft_state *state, raft_index index, raft_term term)
{
    assert((index == 0) == (term == 0));
    /* Whoever installs a snapshot has heard of a leader before, and stored its term. */
    if (index > 0 && state->term == 0) {
        return WAL_FIT_NO_LOG;
    }
    if (index + 1 < state->first_index) {
        return WAL_FIT_NO_SNAPSHOT;
    }
    if (index > state->last_index) {
        return WAL_FIT_RESET;
    }
    return wal_fit_term_at(state, index) == term ? WAL_FITS : WAL_FIT_RESET;
}

struct wal_start {
    bool failed;
    char *message;
};

static void wal_start_on_durable(void *host, uint64_t sequence)
{
    (void)host;
    (void)sequence; /* wal_close waits for it. */
}

static void wal_start_on_failed(void *host, const char *message)
{
    struct wal_start *start = host;

    start->failed = true;
    (void)snprintf(start->message, WAL_ERROR_BYTES_MAX, "%s", message);
}

int wal_reset_closed(const struct wal_options *options, raft_index index, raft_term term,
                     char *message)
{
    struct wal_start start = {.message = message};
    const struct wal_options own = {.dir = options->dir,
                                    .segment_bytes = options->segment_bytes,
                                    .host = &start,
                                    .on_durable = wal_start_on_durable,
                                    .on_failed = wal_start_on_failed,
                                    .files = options->files,
                                    .stepped = options->stepped};
    struct raft_state state;
    struct wal *wal;

    assert(options->dir != NULL);
    assert(index != 0);
    assert(term != 0);
    int rc = wal_open(&own, &wal, &state, message);
    if (rc != WAL_OK) {
        return rc;
    }
    const struct wal_write write = {.sequence = 1,
                                    .hard_state_changed = state.term < term,
                                    .term = term,
                                    .vote = 0,
                                    .reset_index = index,
                                    .reset_term = term};
    wal_snapshot_synced(wal, index, term);
    rc = wal_write(wal, &write);
    if (rc != WAL_OK) {
        (void)wal_error(message, rc, "%s: %s", options->dir, wal_strerror(rc));
    }
    wal_close(wal); /* The writer's thread has ended: its words are ours now. */
    return start.failed ? WAL_EIO : rc;
}
