#include "server/catalog/txn_internal.h"

#include <assert.h>

static int txn_op_verify(struct txn_run_state *run, const struct txn_op *op)
{
    switch (op->kind) {
    case TXN_KV:
        return txn_kv_verify(run, op);
    case TXN_NODE:
        return txn_node_verify(run, op);
    case TXN_SERVICE:
        return txn_service_verify(run, op);
    case TXN_CHECK:
        break;
    }
    return 0;
}

static int txn_op_run(struct txn_run_state *run, const struct txn_op *op)
{
    switch (op->kind) {
    case TXN_KV:
        return txn_kv_run(run, op);
    case TXN_NODE:
        return txn_node_run(run, op);
    case TXN_SERVICE:
        return txn_service_run(run, op);
    case TXN_CHECK:
        return txn_check_run(run, op);
    }
    assert(false); /* Decoding lets no other kind through. */
    return STORE_ECORRUPT;
}

static int txn_run_pass(struct txn_run_state *run, struct slice ops,
                        int (*each)(struct txn_run_state *run, const struct txn_op *op))
{
    struct reader it = reader_from(ops);
    struct txn_op op;

    for (run->op = 0; txn_op_next(&it, &op); run->op++) {
        assert(run->txn->write || !txn_verb_writes(op.kind, op.verb));
        const int rc = each(run, &op);
        if (rc != 0) {
            return rc;
        }
    }
    assert(reader_done(&it)); /* They were checked. */
    return 0;
}

int txn_run(struct store_txn *txn, uint64_t index, struct session_stamp stamp, struct slice ops,
            struct buffer *ended, struct buffer *answer, bool *ok)
{
    struct txn_run_state run = {.txn = txn, .index = index, .stamp = stamp, .ended = ended};
    int rc = txn_run_pass(&run, ops, txn_op_verify);

    if (rc == 0 && !run.failed) {
        rc = txn_run_pass(&run, ops, txn_op_run);
    }
    if (rc == 0 && (run.results.failed || run.errors.failed)) {
        rc = STORE_ENOMEM;
    }
    if (rc == 0) {
        *ok = !run.failed;
        buffer_put_u8(answer, run.failed ? 0 : 1);
        buffer_append_slice(answer, buffer_slice(run.failed ? &run.errors : &run.results));
    }
    buffer_deinit(&run.results);
    buffer_deinit(&run.errors);
    return rc;
}
