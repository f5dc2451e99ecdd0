#ifndef SERVER_CATALOG_RESTORE_H
#define SERVER_CATALOG_RESTORE_H

/* Replacing the whole state by one from an archive, on all servers at the same entry of the log.
 * The records come in pieces, as commands, and are put aside (STORE_STAGED); one last command
 * checks that all have come and belong together, and only then puts them in the place of what is
 * there: in one transaction, so that every reader sees the old state or the new one.
 *
 * Indexes never go backwards: what differs from what was there counts as changed, and what is gone
 * as deleted, at the index of that last command; an index beyond it (of another cluster's log) is
 * brought down to it. What is derived (who holds which key, which names services have) is made
 * anew, never taken from an archive. Pure, as catalog.h. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "kv/store.h"
#include "kv/uuid.h"
#include "session/session.h"

enum restore_error {
    /* Store errors pass through unchanged. */
    RESTORE_EINVAL = -211, /* the text is in the errmsg; the state has not changed */
};

/* A restore that nothing came for any more is forgotten after so long. */
enum { RESTORE_IDLE_MS = 10 * 60 * 1000 };

/* Whether records of this table travel; the others are derived, or not part of a state. */
bool restore_takes(enum store_table table);
/* Whether the record is one, and lies where it belongs. Of a table that travels. */
bool restore_record_valid(enum store_table table, struct slice key, struct slice value);

/* A piece: for each record a string (the table's number as one byte, then the key) and a string
 * (the value). */
void restore_record_put(struct buffer *out, enum store_table table, struct slice key,
                        struct slice value);
/* Whether the bytes are a piece. */
bool restore_records_valid(struct slice records);

/* What all records together amount to, in the order of tables and keys. Zeroed to begin with. */
struct restore_sum {
    uint64_t records;
    uint64_t hash;
};
void restore_sum_add(struct restore_sum *sum, enum store_table table, struct slice key,
                     struct slice value);

/* Begins, and forgets what another restore has brought. Again with the same id: no effect. */
int restore_begin(struct store_txn *txn, struct session_stamp stamp, const struct uuid *id);
/* RESTORE_EINVAL: another restore has begun since. The same piece twice is as good as once. */
int restore_add(struct store_txn *txn, struct session_stamp stamp, const struct uuid *id,
                struct slice records, struct errmsg *err);
/* Takes as long as the states are large. RESTORE_EINVAL: something is missing, or the records do
 * not fit each other. Again after success: no effect, success. Notes no topics: whoever commits
 * wakes everybody. */
int restore_finish(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                   const struct uuid *id, const struct restore_sum *sum, struct errmsg *err);
/* Forgets what was brought, if it is this restore's. */
int restore_abort(struct store_txn *txn, const struct uuid *id);
/* Forgets a restore that nobody goes on with. */
int restore_reap(struct store_txn *txn, struct session_stamp stamp);

#endif
