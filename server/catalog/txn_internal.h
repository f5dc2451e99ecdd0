#ifndef SERVER_CATALOG_TXN_INTERNAL_H
#define SERVER_CATALOG_TXN_INTERNAL_H

/* What the files of a transaction share: txn.c dispatches, txn_kv.c and txn_catalog.c do the
 * operations, txn_record.c writes what they answer. */

#include "server/catalog/txn.h"

/* A transaction being run. */
struct txn_run_state {
    struct store_txn *txn;
    uint64_t index;
    struct session_stamp stamp;
    struct buffer *ended;
    struct buffer results;
    struct buffer errors;
    uint32_t op; /* position of the current operation */
    bool failed; /* an operation was refused */
};

/* A piece of a refusal: a text, and a name in quotes behind it (TXN_NO_NAME: none). */
struct txn_phrase {
    const char *text;
    struct slice quoted;
};
#define TXN_NO_NAME ((struct slice){NULL, 0})

/* Refuse the current operation; what ran before it is undone by txn_run's caller. All return 0, as
 * an operation does that is over. */
int txn_refuse(struct txn_run_state *run, const struct txn_phrase *phrases, size_t count);
int txn_refuse_slice(struct txn_run_state *run, struct slice text);
int txn_refuse_text(struct txn_run_state *run, const char *text);
#define TXN_REFUSE(run, ...)                                                                       \
    txn_refuse((run), (const struct txn_phrase[]){__VA_ARGS__},                                    \
               sizeof((const struct txn_phrase[]){__VA_ARGS__}) / sizeof(struct txn_phrase))

/* Results of the current operation. Return 0: without memory run->results.failed is set. */
int txn_result_put_entry(struct txn_run_state *run, const struct kv_entry *entry, bool with_value);
int txn_result_put_node(struct txn_run_state *run, const struct catalog_node *node);
int txn_result_put_service(struct txn_run_state *run, const struct catalog_service *service);
int txn_result_put_check(struct txn_run_state *run, const struct catalog_check *check);

/* A check behind its size, as operations, results and catalog_registration hold it. */
void txn_put_check(struct buffer *out, const struct catalog_check *check);

/* What Consul looks at before it lets an operation into its log. All return 0, also when they
 * refuse, or a store error. */
int txn_kv_verify(struct txn_run_state *run, const struct txn_op *op);
int txn_node_verify(struct txn_run_state *run, const struct txn_op *op);
int txn_service_verify(struct txn_run_state *run, const struct txn_op *op);

/* The operations themselves: 0, also when they refuse, or a store error. */
int txn_kv_run(struct txn_run_state *run, const struct txn_op *op);
int txn_node_run(struct txn_run_state *run, const struct txn_op *op);
int txn_service_run(struct txn_run_state *run, const struct txn_op *op);
int txn_check_run(struct txn_run_state *run, const struct txn_op *op);

#endif
