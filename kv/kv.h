#ifndef KV_KV_H
#define KV_KV_H

/* Key-value entries and their rules, as Consul 1.8 has them (conformance NOTES, section KV). Pure:
 * each write takes the Raft index that it happens at and runs inside the caller's write
 * transaction. Locks need a live session: the session module checks that and calls down here
 * (session/session.h). */

#include <stdbool.h>
#include <stdint.h>

#include "kv/slice.h"
#include "kv/store.h"
#include "kv/uuid.h"

enum { KV_VALUE_BYTES_MAX_DEFAULT = 512 * 1024 };

/* One entry. Slices are borrowed from the transaction that read it. */
struct kv_entry {
    struct slice key;
    struct slice value;
    uint64_t flags;
    uint64_t lock_index;
    uint64_t create_index;
    uint64_t modify_index;
    struct uuid session; /* zero: not locked */
};

/* An entry's record in STORE_KV, appended; the key is not part of it. */
void kv_entry_encode(struct buffer *out, const struct kv_entry *entry);
/* `out` borrows from both. STORE_ECORRUPT: the bytes are no entry. */
int kv_entry_decode(struct slice key, struct slice record, struct kv_entry *out);

/* STORE_ENOTFOUND when missing. */
int kv_get(struct store_txn *txn, struct slice key, struct kv_entry *out);
/* X-Consul-Index of a missing key: highest index of the whole table, deletions included; 0 if none.
 */
int kv_index(struct store_txn *txn, uint64_t *index);

/* Entries below `prefix` in byte order; kv_scan_next gives STORE_ENOTFOUND at the end. */
struct kv_scan {
    struct store_scan scan;
};
int kv_scan_begin(struct kv_scan *scan, struct store_txn *txn, struct slice prefix);
/* The same from the first key >= `from` on, which starts with `prefix`; borrowed for the call. */
int kv_scan_from(struct kv_scan *scan, struct store_txn *txn, struct slice prefix,
                 struct slice from);
int kv_scan_next(struct kv_scan *scan, struct kv_entry *out);
void kv_scan_end(struct kv_scan *scan);
/* What a listing's X-Consul-Index takes from deletions: raises `*index` to the highest one that is
 * still remembered below `prefix`. With the highest listed ModifyIndex that is the listing's; with
 * neither, or for the empty prefix, kv_index is. Looks at `max` of them at most, from the key in
 * `from` on (the prefix, to begin with), and leaves there where to go on; `*more` false: that was
 * the last. */
int kv_tombstone_index(struct store_txn *txn, struct slice prefix, struct buffer *from, size_t max,
                       uint64_t *index, bool *more);

/* Writes. Keys and values are borrowed for the call, and not from this transaction; `index` > 0.
 * `*changed` is false when the same value, flags, session and LockIndex were there already: then
 * nothing has changed, ModifyIndex included, and no waiter wakes. A plain or cas write keeps
 * Session but resets LockIndex to 0 (which is a change after a lock, even of the same value). */
int kv_set(struct store_txn *txn, uint64_t index, struct slice key, struct slice value,
           uint64_t flags, bool *changed);
/* `*done` is false when ModifyIndex is not `cas` (0: must be missing); a missing key never matches
 * cas > 0. */
int kv_cas(struct store_txn *txn, uint64_t index, struct slice key, struct slice value,
           uint64_t flags, uint64_t cas, bool *done);
int kv_delete(struct store_txn *txn, uint64_t index, struct slice key);
/* Missing: done. */
int kv_delete_cas(struct store_txn *txn, uint64_t index, struct slice key, uint64_t cas,
                  bool *done);
int kv_delete_prefix(struct store_txn *txn, uint64_t index, struct slice prefix);

/* Grants `key` to `session` if it is free or already theirs; stores value and flags when granted.
 * First grant sets LockIndex to 1, each later grant from free adds 1, a renewed grant by the holder
 * leaves it. The caller has checked that the session exists and that no lock-delay runs. */
int kv_lock(struct store_txn *txn, uint64_t index, struct slice key, struct slice value,
            uint64_t flags, const struct uuid *session, bool *granted);
/* Stores value and flags and clears Session if `session` holds the key; else *released is false. */
int kv_unlock(struct store_txn *txn, uint64_t index, struct slice key, struct slice value,
              uint64_t flags, const struct uuid *session, bool *released);

/* Takes the lock away from whoever holds it (session invalidation, behavior release): LockIndex,
 * value, flags stay. STORE_ENOTFOUND when missing. */
int kv_lock_clear(struct store_txn *txn, uint64_t index, struct slice key);

/* Keys held by `session`: a scan of STORE_SESSION_KEY, maintained by the functions above. */

/* Forgets deletions at or below `index`. */
int kv_tombstones_reap(struct store_txn *txn, uint64_t index);

#endif
