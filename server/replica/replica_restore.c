/* The one command that takes as long as the state is large: a restore's last. A worker applies it,
 * in a transaction of its own; until that is done nothing else is applied, and everybody goes on
 * reading the old state. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kv/watch.h"
#include "server/log.h"
#include "server/replica/replica_internal.h"

#define RESTORE_LOG "agent.server.restore"

struct replica_restore_work {
    uv_work_t request;
    struct replica *replica;
    raft_index index;
    raft_term term;
    struct buffer command;
    struct command_result result;
    uint64_t start_ms;
    int rc;
};

bool replica_restore_is(const struct raft_entry *entry)
{
    return entry->type == RAFT_ENTRY_COMMAND &&
           command_replaces_state(slice_from(entry->data, entry->size));
}

static void restore_on_work(uv_work_t *request)
{
    struct replica_restore_work *work = request->data;
    struct store_txn txn;

    work->rc = store_write_begin(work->replica->server->store, &txn);
    if (work->rc != STORE_OK) {
        return;
    }
    work->rc = command_apply(&txn, work->term, work->index, buffer_slice(&work->command), NULL,
                             &work->result);
    if (work->rc == STORE_OK) {
        work->rc = store_applied_set(&txn, work->term, work->index);
    }
    if (work->rc == STORE_OK) {
        work->rc = store_write_commit(&txn);
    } else {
        store_write_abort(&txn);
    }
    if (work->rc == STORE_OK) {
        store_changes_free(&txn);
    }
}

/* There is no room for both states. The command stays the next one, nothing behind it is applied,
 * and the transaction left no trace: it is tried again until it succeeds. */
static void restore_failed(struct replica *replica, const struct replica_restore_work *work)
{
    const bool told = replica->apply_failed;

    replica_apply_replace_failed(replica, work->rc, work->start_ms);
    if (!told) {
        log_write(
            LOG_ERROR, RESTORE_LOG,
            "a restored state has no room beside the present one: this server goes on showing "
            "the old state until there is, and follows the others then: index=%llu",
            (unsigned long long)work->index);
    }
}

/* The sessions are others now: their timers begin anew, in full. */
static void restore_applied(struct replica *replica, struct replica_restore_work *work)
{
    struct replica_proposal *proposal = replica_write_at(replica, work->index);

    if (work->result.status == COMMAND_DONE) {
        log_write(LOG_INFO, RESTORE_LOG, "the state was replaced by a restored one: index=%llu",
                  (unsigned long long)work->index);
    } else {
        log_write(LOG_WARN, RESTORE_LOG, "a restore was refused, nothing has changed: %s",
                  work->result.error.text);
    }
    replica_apply_succeeded(replica);
    replica->applied_index = work->index;
    replica->applied_term = work->term;
    if (replica->role == RAFT_LEADER && replica->timers_term == replica->term) {
        replica_session_start_timers(replica);
    }
    watch_table_wake_all(replica->server->watches);
    if (proposal != NULL && proposal->term == work->term) {
        proposal->result = work->result;
    }
    replica_write_applied(replica, work->index, work->term);
    replica_write_complete(replica);
    replica->reads_dirty = true;
}

static void restore_on_worked(uv_work_t *request, int status)
{
    struct replica_restore_work *work = request->data;
    struct replica *replica = work->replica;

    (void)status;
    replica->restore_work = NULL;
    replica->apply_held = false;
    if (work->rc == COMMAND_EUNKNOWN) {
        replica_apply_unknown(work->index, &work->result);
    }
    if (!replica->stopping) {
        if (work->rc == STORE_OK) {
            restore_applied(replica, work);
        } else {
            restore_failed(replica, work);
        }
        replica_wake(replica);
    }
    buffer_deinit(&work->command);
    free(work);
}

bool replica_restore_start(struct replica *replica)
{
    struct replica_restore_work *work;
    struct raft_entry entry;

    assert(!replica->apply_held);
    if (!replica_log_entry(replica, replica->applied_index + 1, &entry)) {
        replica->apply_stalled = true;
        replica->apply_retry_ms = replica_now_ms(replica) + REPLICA_STALL_RETRY_MS;
        return true;
    }
    if (!replica_restore_is(&entry)) {
        return false;
    }
    work = calloc(1, sizeof(*work));
    if (work == NULL) {
        replica_fatal("out of memory");
    }
    work->request.data = work;
    work->replica = replica;
    work->index = entry.index;
    work->start_ms = replica_now_ms(replica);
    work->term = entry.term;
    buffer_append(&work->command, entry.data, entry.size);
    replica->restore_work = work;
    replica->apply_held = true;
    if (work->command.failed || uv_queue_work(replica->server->loop, &work->request,
                                              restore_on_work, restore_on_worked) != 0) {
        replica_fatal("cannot start a worker");
    }
    return true;
}
