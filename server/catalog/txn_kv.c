/* Operations on keys, with Consul 1.8's texts for what fails. */

#include "server/catalog/txn_internal.h"

#include <inttypes.h>
#include <stdio.h>

int txn_kv_verify(struct txn_run_state *run, const struct txn_op *op)
{
    bool delayed = false;
    int rc = 0;

    if (op->key.size == 0 && op->verb != TXN_DELETE_TREE) {
        return txn_refuse_text(run, "Must provide key");
    }
    if (op->verb == TXN_LOCK) {
        rc = session_lock_delay_get(run->txn, run->stamp, op->key, &delayed);
    }
    if (rc == 0 && delayed) {
        return TXN_REFUSE(run, {"failed to lock key ", op->key},
                          {" due to lock delay", TXN_NO_NAME});
    }
    return rc;
}

/* The entry as it is after a write, as a result: without its value. */
static int txn_kv_written(struct txn_run_state *run, struct slice key)
{
    struct kv_entry entry;
    const int rc = kv_get(run->txn, key, &entry);

    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
    }
    return txn_result_put_entry(run, &entry, false);
}

static int txn_kv_lock(struct txn_run_state *run, const struct txn_op *op)
{
    struct errmsg err;
    struct uuid session;
    bool granted = false;
    bool delayed = false;

    if (op->session.size == 0) {
        return txn_refuse_text(run, "missing session");
    }
    if (op->session_fault.size > 0) {
        return txn_refuse_slice(run, op->session_fault);
    }
    if (!uuid_parse(op->session, &session)) {
        return TXN_REFUSE(run, {"invalid session ", op->session});
    }
    const int rc = session_lock(run->txn, run->index, run->stamp, op->key, op->value, op->flags,
                                &session, &granted, &delayed, &err);
    if (rc == SESSION_EUNKNOWN) {
        return txn_refuse_text(run, err.text);
    }
    if (rc != 0) {
        return rc;
    }
    if (!granted) {
        return TXN_REFUSE(run, {"failed to lock key ", op->key},
                          {delayed ? " due to lock delay" : ", lock is already held", TXN_NO_NAME});
    }
    return txn_kv_written(run, op->key);
}

static int txn_kv_unlock(struct txn_run_state *run, const struct txn_op *op)
{
    struct uuid session;
    bool released = false;
    int rc = 0;

    if (op->session.size == 0) {
        return txn_refuse_text(run, "missing session");
    }
    if (uuid_parse(op->session, &session)) {
        rc = kv_unlock(run->txn, run->index, op->key, op->value, op->flags, &session, &released);
    }
    if (rc == 0 && !released) {
        return TXN_REFUSE(run, {"failed to unlock key ", op->key},
                          {", lock isn't held, or is held by another session", TXN_NO_NAME});
    }
    return rc != 0 ? rc : txn_kv_written(run, op->key);
}

static int txn_kv_get(struct txn_run_state *run, const struct txn_op *op)
{
    struct kv_entry entry;
    const int rc = kv_get(run->txn, op->key, &entry);

    if (rc == STORE_ENOTFOUND && op->verb == TXN_GET_OR_EMPTY) {
        entry = (struct kv_entry){.key = op->key, .value = SLICE_EMPTY};
        return txn_result_put_entry(run, &entry, false);
    }
    if (rc == STORE_ENOTFOUND) {
        return TXN_REFUSE(run, {"key ", op->key}, {" doesn't exist", TXN_NO_NAME});
    }
    return rc != 0 ? rc : txn_result_put_entry(run, &entry, true);
}

static int txn_kv_get_tree(struct txn_run_state *run, const struct txn_op *op)
{
    struct kv_scan scan;
    struct kv_entry entry;
    int rc = kv_scan_begin(&scan, run->txn, op->key);

    if (rc != 0) {
        return rc;
    }
    while ((rc = kv_scan_next(&scan, &entry)) == 0) {
        (void)txn_result_put_entry(run, &entry, true);
        if (run->results.size > TXN_ANSWER_BYTES_MAX) {
            break;
        }
    }
    kv_scan_end(&scan);
    if (rc == 0) {
        return txn_refuse_text(run, "Result too large, ask for a longer prefix");
    }
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

static int txn_kv_check_index(struct txn_run_state *run, const struct txn_op *op)
{
    char numbers[64];
    struct kv_entry entry;
    const int rc = kv_get(run->txn, op->key, &entry);

    if (rc == STORE_ENOTFOUND) {
        return TXN_REFUSE(run, {"failed to check index, key ", op->key},
                          {" doesn't exist", TXN_NO_NAME});
    }
    if (rc != 0) {
        return rc;
    }
    if (entry.modify_index != op->index) {
        (void)snprintf(numbers, sizeof(numbers), ", current modify index %" PRIu64 " != %" PRIu64,
                       entry.modify_index, op->index);
        return TXN_REFUSE(run, {"failed index check for key ", op->key}, {numbers, TXN_NO_NAME});
    }
    return txn_result_put_entry(run, &entry, false);
}

static int txn_kv_check_session(struct txn_run_state *run, const struct txn_op *op)
{
    char holder[UUID_TEXT_BYTES + 1] = "";
    struct kv_entry entry;
    const int rc = kv_get(run->txn, op->key, &entry);

    if (rc == STORE_ENOTFOUND) {
        return TXN_REFUSE(run, {"failed to check session, key ", op->key},
                          {" doesn't exist", TXN_NO_NAME});
    }
    if (rc != 0) {
        return rc;
    }
    if (!uuid_is_zero(&entry.session)) {
        uuid_format(&entry.session, holder);
    }
    if (!slice_equal(slice_from_text(holder), op->session)) {
        return TXN_REFUSE(run, {"failed session check for key ", op->key},
                          {", current session ", slice_from_text(holder)}, {" != ", op->session});
    }
    return txn_result_put_entry(run, &entry, false);
}

static int txn_kv_check_not_exists(struct txn_run_state *run, const struct txn_op *op)
{
    struct kv_entry entry;
    const int rc = kv_get(run->txn, op->key, &entry);

    if (rc == 0) {
        return TXN_REFUSE(run, {"key ", op->key}, {" exists", TXN_NO_NAME});
    }
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

static int txn_kv_set(struct txn_run_state *run, const struct txn_op *op)
{
    bool done = true;
    bool changed;
    const int rc =
        op->verb == TXN_CAS
            ? kv_cas(run->txn, run->index, op->key, op->value, op->flags, op->index, &done)
            : kv_set(run->txn, run->index, op->key, op->value, op->flags, &changed);

    if (rc == 0 && !done) {
        return TXN_REFUSE(run, {"failed to set key ", op->key}, {", index is stale", TXN_NO_NAME});
    }
    return rc != 0 ? rc : txn_kv_written(run, op->key);
}

static int txn_kv_delete(struct txn_run_state *run, const struct txn_op *op)
{
    bool done = true;
    int rc;

    if (op->verb == TXN_DELETE_CAS) {
        rc = kv_delete_cas(run->txn, run->index, op->key, op->index, &done);
    } else if (op->verb == TXN_DELETE_TREE) {
        rc = kv_delete_prefix(run->txn, run->index, op->key);
    } else {
        rc = kv_delete(run->txn, run->index, op->key);
    }
    if (rc == 0 && !done) {
        return TXN_REFUSE(run, {"failed to delete key ", op->key},
                          {", index is stale", TXN_NO_NAME});
    }
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

int txn_kv_run(struct txn_run_state *run, const struct txn_op *op)
{
    switch (op->verb) {
    case TXN_SET:
    case TXN_CAS:
        return txn_kv_set(run, op);
    case TXN_GET:
    case TXN_GET_OR_EMPTY:
        return txn_kv_get(run, op);
    case TXN_GET_TREE:
        return txn_kv_get_tree(run, op);
    case TXN_LOCK:
        return txn_kv_lock(run, op);
    case TXN_UNLOCK:
        return txn_kv_unlock(run, op);
    case TXN_CHECK_INDEX:
        return txn_kv_check_index(run, op);
    case TXN_CHECK_SESSION:
        return txn_kv_check_session(run, op);
    case TXN_CHECK_NOT_EXISTS:
        return txn_kv_check_not_exists(run, op);
    case TXN_DELETE:
    case TXN_DELETE_CAS:
    case TXN_DELETE_TREE:
        return txn_kv_delete(run, op);
    case TXN_UNKNOWN:
        break;
    }
    return TXN_REFUSE(run, {"unknown KV verb ", op->verb_text});
}
