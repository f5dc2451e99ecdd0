#ifndef SERVER_COMMAND_H
#define SERVER_COMMAND_H

/* The replicated state machine: the commands in the Raft log, and what applying one does to the
 * store. Applying depends on (state, term, index, bytes) alone. The leader stamps its clock into
 * the bytes when it appends them (command_stamp). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "kv/store.h"
#include "kv/uuid.h"
#include "server/catalog/autopilot.h"
#include "server/catalog/catalog.h"
#include "server/catalog/restore.h"
#include "server/catalog/txn.h"
#include "session/session.h"

/* Layout: u8 version, u8 type, u64 the leader's clock in milliseconds (little-endian, as all
 * numbers), then what the type has. Bytes of another version, of an unknown type, or with anything
 * after their end are no command. A change of what a command means, or of what its type may have,
 * is a new type or version, never the same bytes: servers that do not know it stop at it.
 *
 * Bounds: a key has at most COMMAND_KEY_BYTES_MAX bytes, and is empty for delete-prefix alone; a
 * cause at most COMMAND_CAUSE_BYTES_MAX. Values and registrations are bounded by whoever takes them
 * in (kv_max_value_size, the HTTP body), a command as a whole by the log. */
enum {
    COMMAND_VERSION = 1,
    COMMAND_KEY_BYTES_MAX = 64 * 1024,
    COMMAND_CAUSE_BYTES_MAX = 256,
};

enum command_type {
    COMMAND_LEADER_START = 1, /* first command of each term: restarts lock-delays */
    COMMAND_KV = 2,
    COMMAND_SESSION_CREATE = 3,
    COMMAND_SESSION_DESTROY = 4,
    COMMAND_REGISTER = 5,
    COMMAND_DEREGISTER = 6,
    COMMAND_REAP = 7,         /* tombstones up to an index, and lock-delays that are over */
    COMMAND_TXN = 8,          /* operations that are applied as a whole or not at all */
    COMMAND_AUTOPILOT = 12,   /* the configuration of autopilot */
    COMMAND_RESTORE = 10,     /* a step of replacing the whole state (catalog/restore.h) */
    COMMAND_COORDINATES = 11, /* a batch of network coordinates (catalog/coordinate.h) */
    COMMAND_CLUSTER_ID = 13,  /* the cluster's id, if it has none (catalog/cluster_id.h) */
};

enum command_kv_verb {
    COMMAND_KV_SET = 1,
    COMMAND_KV_CAS,
    COMMAND_KV_LOCK,
    COMMAND_KV_UNLOCK,
    COMMAND_KV_DELETE,
    COMMAND_KV_DELETE_CAS,
    COMMAND_KV_DELETE_PREFIX,
};

enum command_restore_step {
    COMMAND_RESTORE_BEGIN = 1,
    COMMAND_RESTORE_ADD,
    COMMAND_RESTORE_FINISH,
    COMMAND_RESTORE_ABORT,
};

/* Encoding: each appends one whole command, its stamp still zero. A failed allocation shows in
 * out->failed; arguments beyond a bound give bytes that command_valid refuses. */
void command_encode_leader_start(struct buffer *out);
void command_encode_kv(struct buffer *out, enum command_kv_verb verb, struct slice key,
                       struct slice value, uint64_t flags, uint64_t cas,
                       const struct uuid *session);
void command_encode_session_create(struct buffer *out, const struct session *session);
/* `cause` is logged by every server: "ttl expired", "destroyed by client", ...; cut at its bound.
 */
void command_encode_session_destroy(struct buffer *out, const struct uuid *id, struct slice cause);
void command_encode_register(struct buffer *out, const struct catalog_registration *registration);
void command_encode_deregister(struct buffer *out, struct slice node, struct slice service_id,
                               struct slice check_id);
void command_encode_reap(struct buffer *out, uint64_t tombstone_index);
/* `cas` counts with AUTOPILOT_SET_CAS. */
void command_encode_autopilot(struct buffer *out, enum autopilot_set_mode mode, uint64_t cas,
                              const struct autopilot_config *config);
/* `id`: not zero. The result tells whether the cluster had none. */
void command_encode_cluster_id(struct buffer *out, const struct uuid *id);
/* `ops`: txn_op_encode's bytes. */
void command_encode_txn(struct buffer *out, struct slice ops);

/* `records`: restore_record_put's bytes, for ADD; `sum`: for FINISH. */
void command_encode_restore(struct buffer *out, enum command_restore_step step,
                            const struct uuid *id, struct slice records,
                            const struct restore_sum *sum);
/* `batch`: as coordinates_valid takes it. */
void command_encode_coordinates(struct buffer *out, struct slice batch);

/* Writes the leader's clock into an encoded command. False if the bytes are too short to be one. */
bool command_stamp(void *command, size_t size, uint64_t now_ms);
/* Whether the bytes decode completely: the leader refuses others before they reach the log. */
bool command_valid(struct slice command);
/* What a valid command does. */
enum command_type command_type_of(struct slice command);
/* Whether a valid command can make the state larger. A store that runs full refuses these, and
 * still takes what frees space. */
bool command_grows(struct slice command);

/* Whether applying the command takes as long as the state is large: not on the loop, then, and in a
 * transaction of its own. Afterwards everybody who waits for anything must be woken. */
bool command_replaces_state(struct slice command);
/* How many records, up to `max`, applying the command goes through beyond those that it names: the
 * keys below a prefix, the locks of sessions that it ends, what it reaps; `max` for one that
 * replaces the state. It tells how long applying would take now, and is no part of the state
 * machine: `txn`, of either kind, is only read. What does not decode, or cannot be read, counts for
 * nothing: applying says what is wrong with it. */
size_t command_records(struct store_txn *txn, struct slice bytes, size_t max);

/* Beside the store's errors. */
enum { COMMAND_EUNKNOWN = -401 };

enum command_status {
    COMMAND_DONE = 0,    /* `ok` is the answer */
    COMMAND_REFUSED = 1, /* `error` is Consul's text, for a 500 */
};

struct command_result {
    enum command_status status;
    bool ok; /* cas matched, lock granted, ... ; true where there is nothing to tell */
    struct errmsg error;
    uint64_t index; /* that it was applied at */
    /* What a transaction answers (catalog/txn.h), in observer->answers. */
    const struct buffer *answers;
    size_t answer_offset;
    size_t answer_bytes;
};
/* Valid as long as observer->answers is: inside the callback that gets the result. Empty without
 * one. */
struct slice command_answer(const struct command_result *result);

/* What the process, not the state, must do after an apply: TTL timers and log lines. */
struct command_observer {
    void *host;
    void (*session_created)(void *host, const struct session *session);
    void (*session_ended)(void *host, const struct uuid *id, struct slice cause);
    /* Answers of transactions are appended here; NULL: nobody waits for them. */
    struct buffer *answers;
};

/* Applies one command. A refused one leaves the transaction as it was, so that many can share one.
 * Returns 0 (with *result filled, a refusal included), or a store error: then
 * the whole transaction must be aborted and tried again later, nothing of it counts.
 * COMMAND_EUNKNOWN, with what is unknown in result->error: the bytes are not command_valid, so a
 * leader of a newer version took them, and whoever knows them did something with them. Neither a
 * refusal nor going on without them would leave the same state: this server must stop. `observer`
 * may be NULL. Observers are called for what this transaction did, so the caller must commit it, or
 * restart them, whatever it does then. */
int command_apply(struct store_txn *txn, uint64_t term, uint64_t index, struct slice bytes,
                  const struct command_observer *observer, struct command_result *result);

#endif
