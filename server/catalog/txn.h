#ifndef SERVER_CATALOG_TXN_H
#define SERVER_CATALOG_TXN_H

/* Transactions: a list of operations on keys, nodes, services and checks that is applied as a whole
 * or not at all (Consul's /v1/txn). Pure; read-only lists run in read transactions too. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/kv.h"
#include "kv/slice.h"
#include "kv/store.h"
#include "server/catalog/catalog.h"
#include "session/session.h"

enum {
    TXN_OPS_MAX = 64,         /* operations in a transaction */
    TXN_TEXT_BYTES_MAX = 512, /* of a session id or an unknown verb, as the client spelled it */
    TXN_ANSWER_BYTES_MAX = 64 * 1024 * 1024, /* what get-tree may gather */
};

enum txn_kind { TXN_KV = 1, TXN_NODE, TXN_SERVICE, TXN_CHECK };

enum txn_verb {
    TXN_SET = 1,
    TXN_CAS,
    TXN_GET,
    TXN_DELETE,
    TXN_DELETE_CAS,
    TXN_UNKNOWN,
    /* Of keys alone: */
    TXN_LOCK,
    TXN_UNLOCK,
    TXN_GET_OR_EMPTY,
    TXN_GET_TREE,
    TXN_CHECK_INDEX,
    TXN_CHECK_SESSION,
    TXN_CHECK_NOT_EXISTS,
    TXN_DELETE_TREE,
};
/* TXN_UNKNOWN for what is no verb of that kind. Case counts. */
enum txn_verb txn_verb_from(enum txn_kind kind, struct slice text);
bool txn_verb_writes(enum txn_kind kind, enum txn_verb verb);

/* One operation; all slices are borrowed. */
struct txn_op {
    enum txn_kind kind;
    enum txn_verb verb;
    struct slice verb_text; /* TXN_UNKNOWN */
    uint64_t index;         /* cas, delete-cas, check-index */
    /* TXN_KV */
    struct slice key;
    struct slice value;
    uint64_t flags;
    struct slice session;       /* text, as given */
    struct slice session_fault; /* lock: why it can be no session's id, "" if it can */
    /* The record of the kind; a service's and a check's node is in the record. */
    struct catalog_node node;
    struct catalog_service service;
    struct catalog_check check;
};

/* Encoding: txn_op_encode for each. Decoding: txn_decode checks everything (false: no list of
 * operations, or too many); then txn_op_next, which borrows from the bytes, cannot fail before the
 * end. It returns false at the end, and, with it->failed, for bytes that are no operation. */
void txn_op_encode(struct buffer *out, const struct txn_op *op);
bool txn_decode(struct slice ops, uint32_t *count);
bool txn_op_next(struct reader *it, struct txn_op *op);

/* What a transaction did: `ok`, then its results or its errors, in order of the operations. */
enum txn_part { TXN_PART_PLAIN, TXN_PART_QUOTED };
struct txn_result {
    enum txn_kind kind;
    struct kv_entry entry;
    struct catalog_node node;
    struct catalog_service service;
    struct catalog_check check;
};
/* An answer is u8 ok, then results, or errors. */
bool txn_result_next(struct reader *it, struct txn_result *out);
/* An error is u32 operation, u8 parts, and parts: u8 txn_part, string. The text is the parts one
 * after the other, those marked in quotes as Go writes them. */
bool txn_error_next(struct reader *it, uint32_t *op, uint8_t *part_count);
bool txn_error_part(struct reader *it, enum txn_part *part, struct slice *text);

/* Runs the operations, each seeing what those before it did, and appends the answer to `answer`.
 * `*ok` is false when one was refused: then `answer` lists all that were, and the caller must undo
 * (store_savepoint_rollback). Ids and causes of ended sessions go to `ended` (catalog_ended_next).
 * `txn` is a write transaction if any operation writes; then index > 0. Store errors: abort.
 * Order as in Consul: first what can be seen without looking at other operations is checked for
 * all (a key is named, no lock-delay runs, ids are well-formed); only if nothing was wrong do they
 * run. */
int txn_run(struct store_txn *txn, uint64_t index, struct session_stamp stamp, struct slice ops,
            struct buffer *ended, struct buffer *answer, bool *ok);

#endif
