/* Replacing the whole state: everything is dropped and what comes is appended, in one transaction.
 */

#include "kv/store_internal.h"

int store_load_begin(struct store *store, struct store_load *load)
{
    *load = (struct store_load){.table = STORE_META};
    int rc = store_write_begin(store, &load->txn);
    if (rc != 0) {
        return rc;
    }
    /* The pages are free for the next transaction, not for this one: readers still see them. */
    for (size_t i = 0; rc == 0 && i < STORE_DBI_COUNT; i++) {
        rc = store_txn_error(&load->txn, mdb_drop(load->txn.mdb_txn, store->dbis[i], 0));
    }
    if (rc == 0) {
        rc = store_txn_error(&load->txn, store_format_put(store, load->txn.mdb_txn));
    }
    if (rc != 0) {
        store_load_abort(load);
    }
    return rc;
}

int store_load_put(struct store_load *load, enum store_table table, struct slice key,
                   struct slice value)
{
    struct store_txn *txn = &load->txn;

    if (txn->failure != 0) {
        return txn->failure;
    }
    if (table <= STORE_META || table >= STORE_TABLE_COUNT || table < load->table ||
        (table == load->table && load->any && slice_compare(key, buffer_slice(&load->key)) <= 0)) {
        txn->failure = STORE_ECORRUPT;
        return STORE_ECORRUPT;
    }
    buffer_clear(&load->key);
    buffer_append_slice(&load->key, key);
    if (load->key.failed) {
        txn->failure = STORE_ENOMEM;
        return STORE_ENOMEM;
    }
    load->table = table;
    load->any = true;
    return store_append(txn, table, key, value);
}

int store_load_commit(struct store_load *load, uint64_t term, uint64_t index)
{
    int rc = load->txn.failure;

    if (rc == 0) {
        rc = store_applied_set(&load->txn, term, index);
    }
    buffer_deinit(&load->key);
    if (rc != 0) {
        store_write_abort(&load->txn);
        return rc;
    }
    rc = store_write_commit(&load->txn);
    store_changes_free(&load->txn);
    return rc;
}

void store_load_abort(struct store_load *load)
{
    buffer_deinit(&load->key);
    store_write_abort(&load->txn);
}
