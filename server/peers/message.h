#ifndef SERVER_PEERS_MESSAGE_H
#define SERVER_PEERS_MESSAGE_H

/* What servers say to each other on the server port, as bytes: Raft messages with their entries,
 * and the RPCs that forward writes, reads and renewals to the leader. Requests and answers are
 * messages of their own, matched by the request's number. Decoding trusts nothing: a message with
 * a flag that is not known, or with anything after its last field, is malformed. So what is new
 * needs a frame type of its own, which servers of an older version skip. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "kv/uuid.h"
#include "raft/raft.h"
#include "server/peers/link.h"

enum message_type {
    MESSAGE_RAFT = LINK_TYPE_FIRST,
    MESSAGE_PROPOSE,  /* commands for the leader's log */
    MESSAGE_PROPOSED, /* the (term, index) that they were given, or why not */
    MESSAGE_READ,     /* asks for the leader's commit index */
    MESSAGE_READ_AT,
    MESSAGE_RENEW, /* restart a session's TTL timer */
    MESSAGE_RENEWED,
    MESSAGE_SNAPSHOT_GET,   /* asks for a piece of a snapshot */
    MESSAGE_SNAPSHOT_CHUNK, /* a piece, and what it is a piece of */
    MESSAGE_OPERATE,        /* what an operator asks of the leader */
    MESSAGE_OPERATED,
    MESSAGE_EVENT, /* a user event; no answer */
    MESSAGE_SPACE, /* one byte: whether the sender's disk is full, or almost; no answer */
};

enum {
    MESSAGE_ENTRIES_MAX = 4096,  /* in one append request */
    MESSAGE_COMMANDS_MAX = 4096, /* in one proposal */
};

/* Begins an append request or any other Raft message: follow with message_put_entry for each of
 * message->entry_count entries. */
void message_put_raft(struct buffer *out, const struct raft_message *message);
void message_put_entry(struct buffer *out, const struct raft_entry *entry);
/* `entries` has room for MESSAGE_ENTRIES_MAX; their data is borrowed from the payload. False when
 * malformed. */
bool message_get_raft(struct slice payload, struct raft_message *message,
                      struct raft_entry *entries);

/* A proposal: message_put_propose, then `count` times buffer_put_string(out, command). */
void message_put_propose(struct buffer *out, uint64_t request, uint32_t count);
/* Gives the head; the commands follow as strings in `*reader`, checked to be whole. */
bool message_get_propose(struct slice payload, uint64_t *request, uint32_t *count,
                         struct reader *reader);

enum message_status {
    MESSAGE_OK = 0,
    MESSAGE_NOT_LEADER = 1, /* nothing has happened: ask the new leader */
    MESSAGE_FAILED = 2,     /* with an error text */
};

struct message_answer {
    uint64_t request;
    enum message_status status;
    struct slice error;
    uint64_t term;  /* MESSAGE_PROPOSED */
    uint64_t index; /* MESSAGE_PROPOSED: of the first command; MESSAGE_READ_AT, MESSAGE_RENEWED:
                       read index */
    bool found;     /* MESSAGE_RENEWED */
};

void message_put_answer(struct buffer *out, const struct message_answer *answer);
bool message_get_answer(struct slice payload, struct message_answer *answer);

/* Which snapshot (all 0: the newest one), and from where on. In an answer the bytes follow the
 * head. */
struct message_snapshot {
    uint64_t index;
    uint64_t term;
    uint64_t bytes;
    uint32_t checksum;
    uint64_t offset;
    struct slice data; /* answers only; borrowed */
};
void message_put_snapshot(struct buffer *out, const struct message_snapshot *snapshot);
bool message_get_snapshot(struct slice payload, struct message_snapshot *snapshot);

/* `operation`: enum replica_operation, not checked here. */
void message_put_operate(struct buffer *out, uint64_t request, uint8_t operation,
                         struct slice argument);
bool message_get_operate(struct slice payload, uint64_t *request, uint8_t *operation,
                         struct slice *argument);
/* `text`: with MESSAGE_OK what was asked for, with MESSAGE_FAILED why not. */
void message_put_operated(struct buffer *out, uint64_t request, enum message_status status,
                          struct slice text);
bool message_get_operated(struct slice payload, uint64_t *request, enum message_status *status,
                          struct slice *text);

void message_put_read(struct buffer *out, uint64_t request, bool quorum);
bool message_get_read(struct slice payload, uint64_t *request, bool *quorum);

void message_put_renew(struct buffer *out, uint64_t request, const struct uuid *session);
bool message_get_renew(struct slice payload, uint64_t *request, struct uuid *session);

#endif
