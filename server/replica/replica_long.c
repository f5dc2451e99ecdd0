/* Commands that take long to apply: a restore's last, and those that go through many records, such
 * as the deletion of a large tree or the end of a session with many locks. A worker applies each of
 * them, in a transaction of its own; until that is done nothing else is applied, everybody goes on
 * reading the state as it was, and heartbeats go on. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kv/watch.h"
#include "server/log.h"
#include "server/replica/replica_internal.h"

#define RESTORE_LOG "agent.server.restore"

struct replica_long_work {
    uv_work_t request;
    struct replica *replica;
    raft_index index;
    raft_term term;
    bool replaces; /* the whole state */
    struct buffer command;
    struct command_result result;
    struct buffer answers; /* what result refers to */
    struct buffer ended;   /* sessions: catalog_ended_next */
    struct store_txn txn;  /* done: its changes */
    uint64_t start_ms;
    uint64_t start_ns;
    int rc;
};

/* Timers and log lines are the loop's. */
static void long_on_ended(void *host, const struct uuid *id, struct slice cause)
{
    struct replica_long_work *work = host;

    buffer_append(&work->ended, id->bytes, UUID_BYTES);
    buffer_put_string(&work->ended, cause);
}

static void long_on_work(uv_work_t *request)
{
    struct replica_long_work *work = request->data;
    const struct command_observer observer = {
        .host = work, .session_ended = long_on_ended, .answers = &work->answers};

    work->rc = store_write_begin(work->replica->server->store, &work->txn);
    if (work->rc != STORE_OK) {
        return;
    }
    work->rc = command_apply(&work->txn, work->term, work->index, buffer_slice(&work->command),
                             &observer, &work->result);
    if (work->rc == STORE_OK && work->ended.failed) {
        work->rc = STORE_ENOMEM;
    }
    if (work->rc == STORE_OK) {
        work->rc = store_applied_set(&work->txn, work->term, work->index);
    }
    if (work->rc == STORE_OK) {
        work->rc = store_write_commit(&work->txn);
    } else {
        store_write_abort(&work->txn);
    }
}

/* There is no room for what it writes. The command stays the next one, nothing behind it is
 * applied, and the transaction left no trace: it is tried again until it succeeds. */
static void long_failed(struct replica *replica, const struct replica_long_work *work)
{
    const bool told = replica->apply_failed;

    replica_apply_replace_failed(replica, work->rc, work->start_ms);
    if (work->replaces && !told) {
        log_write(
            LOG_ERROR, RESTORE_LOG,
            "a restored state has no room beside the present one: this server goes on showing "
            "the old state until there is, and follows the others then: index=%llu",
            (unsigned long long)work->index);
    }
}

/* The sessions are others now: their timers begin anew, in full. */
static void long_replaced(struct replica *replica, const struct replica_long_work *work)
{
    if (work->result.status == COMMAND_DONE) {
        log_write(LOG_INFO, RESTORE_LOG, "the state was replaced by a restored one: index=%llu",
                  (unsigned long long)work->index);
    } else {
        log_write(LOG_WARN, RESTORE_LOG, "a restore was refused, nothing has changed: %s",
                  work->result.error.text);
    }
    if (replica->role == RAFT_LEADER && replica->timers_term == replica->term) {
        replica_session_start_timers(replica);
    }
}

static void long_applied(struct replica *replica, struct replica_long_work *work)
{
    struct replica_proposal *proposal = replica_write_at(replica, work->index);
    struct reader ended = reader_from(buffer_slice(&work->ended));
    struct uuid id;
    struct slice cause;

    replica_apply_succeeded(replica);
    metrics_time_ns(replica->server->metrics, METRIC_RAFT_FSM_APPLY, uv_hrtime() - work->start_ns);
    replica->applied_index = work->index;
    replica->applied_term = work->term;
    if (work->replaces) {
        long_replaced(replica, work);
    }
    while (catalog_ended_next(&ended, &id, &cause)) {
        replica_observer_template.session_ended(replica, &id, cause);
    }
    if (proposal != NULL && proposal->term == work->term) {
        proposal->result = work->result;
    }
    replica_write_applied(replica, work->index, work->term);
    replica_write_complete(replica);
    if (work->replaces) {
        watch_table_wake_all(replica->server->watches);
    } else {
        watch_table_wake(replica->server->watches, &work->txn);
    }
    replica->reads_dirty = true;
}

static void long_free(struct replica_long_work *work)
{
    store_changes_free(&work->txn);
    buffer_deinit(&work->command);
    buffer_deinit(&work->answers);
    buffer_deinit(&work->ended);
    free(work);
}

static void long_on_worked(uv_work_t *request, int status)
{
    struct replica_long_work *work = request->data;
    struct replica *replica = work->replica;

    (void)status;
    replica->long_work = NULL;
    replica->apply_held = false;
    if (work->rc == COMMAND_EUNKNOWN) {
        replica_apply_unknown(work->index, &work->result);
    }
    if (!replica->stopping) {
        if (work->rc == STORE_OK) {
            long_applied(replica, work);
        } else {
            long_failed(replica, work);
        }
        replica_wake(replica);
    }
    long_free(work);
}

void replica_long_start(struct replica *replica)
{
    struct replica_long_work *work;
    struct raft_entry entry;

    assert(!replica->apply_held);
    /* One that is no command was unreadable for the loop, and is read now: the loop's again. */
    if (!replica_log_entry(replica, replica->applied_index + 1, &entry) ||
        entry.type != RAFT_ENTRY_COMMAND) {
        replica->apply_stalled = true;
        replica->apply_retry_ms = replica_now_ms(replica) + REPLICA_STALL_RETRY_MS;
        return;
    }
    work = calloc(1, sizeof(*work));
    if (work == NULL) {
        replica_fatal("out of memory");
    }
    work->request.data = work;
    work->replica = replica;
    work->index = entry.index;
    work->start_ms = replica_now_ms(replica);
    work->start_ns = uv_hrtime();
    work->term = entry.term;
    work->replaces = command_replaces_state(slice_from(entry.data, entry.size));
    buffer_append(&work->command, entry.data, entry.size);
    replica->long_work = work;
    replica->apply_held = true;
    if (work->command.failed ||
        uv_queue_work(replica->server->loop, &work->request, long_on_work, long_on_worked) != 0) {
        replica_fatal("cannot start a worker");
    }
}
