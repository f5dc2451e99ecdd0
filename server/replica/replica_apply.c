/* Applying committed entries: a batch of them in one write transaction of the store. */

#include <assert.h>
#include <string.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { REPLACE_REST_FACTOR = 4 }; /* after a try that failed, of the time that it took */

bool replica_apply_pending(const struct replica *replica)
{
    return replica->apply_index > replica->applied_index && !replica->apply_stalled &&
           !replica->apply_held;
}

void replica_apply_unknown(raft_index index, const struct command_result *result)
{
    replica_fatal("entry %llu of the Raft log is a write that this version, %s, does not know: %s. "
                  "A newer version took it. Nothing is lost, and nothing of it was applied here: "
                  "upgrade this server to the version of the others and start it again",
                  (unsigned long long)index, PROCONSUL_VERSION, result->error.text);
}

/* Applies entries up to `last` inside the transaction, but none that takes long; `*reached` is the
 * last one that was. What transactions of local clients answer goes to `answers`. Store errors pass
 * through. */
static int replica_apply_batch(struct replica *replica, struct store_txn *txn, raft_index last,
                               struct buffer *answers, raft_index *reached)
{
    struct command_observer observer = replica_observer_template;
    size_t records = 0;
    size_t bytes = 0;

    observer.host = replica;
    for (raft_index index = replica->applied_index + 1; index <= last; index++) {
        struct replica_proposal *proposal = replica_write_at(replica, index);
        struct command_result ignored;
        struct raft_entry entry;
        int rc;

        if (!replica_log_entry(replica, index, &entry)) {
            break;
        }
        assert(entry.index == index);
        if (entry.type == RAFT_ENTRY_COMMAND) {
            const struct slice command = slice_from(entry.data, entry.size);
            struct command_result *result =
                proposal != NULL && proposal->term == entry.term ? &proposal->result : &ignored;

            records += command_records(txn, command, REPLICA_TURN_RECORDS_MAX - records);
            if (records == REPLICA_TURN_RECORDS_MAX) {
                break; /* Enough for a turn; the first one is a worker's. */
            }
            observer.answers = result == &ignored ? NULL : answers;
            rc = command_apply(txn, entry.term, index, command, &observer, result);
            if (rc == COMMAND_EUNKNOWN) {
                replica_apply_unknown(index, result);
            }
            if (rc != STORE_OK) {
                return rc;
            }
        }
        replica->applied_term = entry.term;
        *reached = index;
        bytes += entry.size;
        if (bytes + answers->size > REPLICA_TURN_APPLY_BYTES_MAX) {
            break;
        }
    }
    return *reached == replica->applied_index
               ? STORE_OK
               : store_applied_set(txn, replica->applied_term, *reached);
}

void replica_apply_failed(struct replica *replica, int rc, uint64_t now_ms)
{
    if (rc != STORE_EFULL && rc != STORE_ENOMEM) {
        replica_fatal("the state cannot be written: %s", store_strerror(rc));
    }
    if (!replica->apply_failed) {
        replica->apply_failed_ms = now_ms;
        log_write(LOG_ERROR, REPLICA_LOG,
                  "the state cannot be written until there is space: %s. Free disk space or raise "
                  "limits.state_max_size",
                  store_strerror(rc));
    }
    replica->apply_failed = true;
    replica->apply_stalled = true;
    replica->apply_retry_ms = now_ms + REPLICA_STALL_RETRY_MS;
}

void replica_apply_replace_failed(struct replica *replica, int rc, uint64_t start_ms)
{
    const uint64_t now_ms = replica_now_ms(replica);
    const uint64_t took_ms = now_ms - start_ms;

    replica_apply_failed(replica, rc, now_ms);
    if (took_ms > REPLICA_STALL_RETRY_MS / REPLACE_REST_FACTOR) {
        replica->apply_retry_ms = now_ms + REPLACE_REST_FACTOR * took_ms;
    }
}

void replica_apply_succeeded(struct replica *replica)
{
    if (replica->apply_failed) {
        log_write(LOG_INFO, REPLICA_LOG, "there is space again, the state is written");
        replica->apply_failed = false;
    }
}

/* Proposals at `first`..`last` learn what became of them; a proposal of another term stood there in
 * vain. */
static void replica_apply_answer(struct replica *replica, raft_index first, raft_index last)
{
    for (raft_index index = first; index <= last && replica->logged_count > 0; index++) {
        replica_write_applied(replica, index, raft_term_at(replica->raft, index));
    }
    replica_write_complete(replica);
}

void replica_apply(struct replica *replica)
{
    const uint64_t now_ms = replica_now_ms(replica);
    const raft_index before = replica->applied_index;
    const uint64_t term_before = replica->applied_term;
    raft_index last = replica->apply_index;
    raft_index reached = before;
    struct buffer answers = {0};
    struct store_txn txn;
    int rc;

    if (replica->apply_stalled && now_ms >= replica->apply_retry_ms) {
        replica->apply_stalled = false;
    }
    if (!replica_apply_pending(replica)) {
        replica_session_applied(replica);
        return;
    }
    if (last - before > REPLICA_TURN_APPLY_MAX) {
        last = before + REPLICA_TURN_APPLY_MAX;
    }
    const uint64_t start_ns = uv_hrtime();

    rc = store_write_begin(replica->server->store, &txn);
    if (rc == STORE_OK) {
        rc = replica_apply_batch(replica, &txn, last, &answers, &reached);
        if (rc == STORE_OK && reached > before) {
            rc = store_write_commit(&txn);
        } else {
            store_write_abort(&txn);
        }
    }
    if (rc == STORE_OK && reached == before) {
        replica_long_start(replica);
        replica_session_applied(replica);
        return;
    }
    if (rc != STORE_OK) {
        buffer_deinit(&answers);
        replica->applied_term = term_before;
        replica_apply_failed(replica, rc, now_ms);
        return;
    }
    replica->applied_index = reached;
    replica_apply_succeeded(replica);
    metrics_time_ns(replica->server->metrics, METRIC_RAFT_FSM_APPLY, uv_hrtime() - start_ns);
    metrics_sample(replica->server->metrics, METRIC_RAFT_FSM_BATCH, (double)(reached - before));
    replica_apply_answer(replica, before + 1, reached);
    buffer_deinit(&answers);
    watch_table_wake(replica->server->watches, &txn);
    store_changes_free(&txn);
    replica->reads_dirty = true;
    replica_session_applied(replica);
    replica_read_turn(replica);
    if (replica->server->config->data_dir == NULL && reached > REPLICA_TURN_APPLY_MAX) {
        char message[WAL_ERROR_BYTES_MAX];

        /* In memory, applied entries serve nobody: there are no followers and no restart. */
        (void)wal_trim(replica->wal, reached - REPLICA_TURN_APPLY_MAX, message);
    }
}
