#ifndef SESSION_SESSION_H
#define SESSION_SESSION_H

/* Sessions: the table and its rules, lock-delay, and the locks that sessions take on keys. Pure, as
 * kv.h. Time is the leader's: `stamp` is the command's {term, now_ms} as the leader stamped it. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/kv.h"
#include "kv/slice.h"
#include "kv/store.h"
#include "kv/uuid.h"

enum session_error {
    /* Store errors pass through unchanged (store_error, -1 to -99). */
    SESSION_ENODE = -101,  /* "Missing node registration" */
    SESSION_ECHECK = -102, /* "Missing check 'x' registration" / "Check 'x' is in critical state" */
    SESSION_EUNKNOWN = -103, /* `invalid session "<id>"` */
    SESSION_EEXIST = -104,   /* the id is taken (the proposer draws another one) */
};

#define SESSION_LOCK_DELAY_NS_DEFAULT (15ULL * 1000000000ULL)
/* A session may ask for more, and shows it; but no key is kept longer (Consul 1.8, measured). */
#define SESSION_LOCK_DELAY_NS_MAX (60ULL * 1000000000ULL)

enum session_behavior { SESSION_RELEASE = 0, SESSION_DELETE = 1 };

/* One session. Slices are borrowed from the transaction or the command that it was read from. */
struct session {
    struct uuid id;
    struct slice name;
    struct slice node; /* as the creator spelled it */
    /* Shown as a signed number of nanoseconds: what is negative there (Consul takes "-5s") gives no
     * delay. */
    uint64_t lock_delay_ns;
    enum session_behavior behavior;
    struct slice ttl;              /* as written, e.g. "15.0s"; empty: none */
    uint64_t ttl_ms;               /* the same in milliseconds; 0: none */
    struct strings node_checks;    /* null or not matters: JSON shows it */
    struct strings service_checks; /* pairs: id, namespace; null: null */
    struct strings checks;         /* legacy list, null: not shown */
    uint64_t create_index;
    uint64_t modify_index;
};

void session_encode(struct buffer *out, const struct session *session);
/* False when the bytes are no session. Checked completely: used for commands too. */
bool session_decode(struct slice bytes, struct session *out);

struct session_stamp {
    uint64_t term;
    uint64_t now_ms; /* leader's monotonic clock; comparable within one term only */
};

/* Looks at the catalog through these, so that session/ needs nothing of server/. */
struct session_catalog {
    /* STORE_ENOTFOUND when the node is not registered. Case-insensitive. */
    int (*node_get)(struct store_txn *txn, struct slice node);
    /* Sets *critical; STORE_ENOTFOUND when there is no such check on the node. */
    int (*check_get)(struct store_txn *txn, struct slice node, struct slice check_id,
                     bool *critical);
};

/* Creates at `index` (create_index and modify_index are set here). Borrows `session`, which may not
 * borrow from this transaction. On SESSION_E*: nothing has changed and `err` has Consul's text. */
int session_create(struct store_txn *txn, const struct session_catalog *catalog, uint64_t index,
                   const struct session *session, struct errmsg *err);
int session_get(struct store_txn *txn, const struct uuid *id, struct session *out);
/* Index of the table as a whole, 0 if it never changed. */
int session_index(struct store_txn *txn, uint64_t *index);

/* All sessions in order of id, or those of one node (any case); STORE_ENOTFOUND at the end. */
struct session_scan {
    struct store_scan scan;
    struct buffer prefix; /* by node: its key's start */
    bool by_node;
};
int session_scan_begin(struct session_scan *scan, struct store_txn *txn);
int session_scan_begin_node(struct session_scan *scan, struct store_txn *txn, struct slice node);
int session_scan_next(struct session_scan *scan, struct session *out);
void session_scan_end(struct session_scan *scan);

/* Ends a session, in one go: removes it, releases or deletes the keys that it holds (all at
 * `index`), starts lock-delay on them. A missing session is no error. */
int session_invalidate(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                       const struct uuid *id);

/* Ends all sessions of the node that depend on checks which turned critical or went, in one look at
 * them, or, for a node that goes, all that it has. Names of nodes and checks are compared without
 * case; they may not borrow from this transaction. `check_ids` are in the order of
 * slice_compare_nocase. Appends to `ended`, for each ended session, its id (16 bytes) and the place
 * (u32) of its check among `check_ids`, 0 for a node's. */
int session_invalidate_checks(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                              struct slice node, const struct slice *check_ids, size_t count,
                              struct buffer *ended);
int session_invalidate_node(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                            struct slice node, struct buffer *ended);

/* Whether a lock-delay runs on `key` at the stamp. One that another term's leader started has not
 * been restarted by this one yet: it runs. */
int session_lock_delay_get(struct store_txn *txn, struct session_stamp stamp, struct slice key,
                           bool *delayed);

/* Lock with all rules. During lock-delay *granted is false, whatever the session; then an unknown
 * session is SESSION_EUNKNOWN with Consul's text in `err`; then kv_lock. */
int session_lock(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                 struct slice key, struct slice value, uint64_t flags, const struct uuid *id,
                 bool *granted, bool *delayed, struct errmsg *err);

/* A new leader's first command: every lock-delay starts in full again at its clock. */
int session_lock_delay_restart(struct store_txn *txn, struct session_stamp stamp);
/* Drops lock-delays that are over. */
int session_lock_delay_reap(struct store_txn *txn, struct session_stamp stamp);

#endif
