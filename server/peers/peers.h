#ifndef SERVER_PEERS_PEERS_H
#define SERVER_PEERS_PEERS_H

/* The other servers as the replica sees them: a listener on the server port, and one dialled link
 * to each. A server's frames to another one travel in order on its own link, answers included, so
 * that what a leader says of a proposal always arrives before the entries that it made of it.
 * Frames may be lost with a connection. */

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "kv/errmsg.h"
#include "kv/slice.h"
#include "kv/uuid.h"
#include "raft/raft.h"
#include "server/peers/link.h"

enum { PEERS_MAX = 64 };

struct peers;

struct peers_handlers {
    void *host;
    void (*on_frame)(void *host, raft_id from, uint8_t type, struct slice payload);
    /* The dialled link came up; the dialled one, or one from there, went down. */
    void (*on_up)(void *host, raft_id id);
    void (*on_down)(void *host, raft_id id);
};

/* A server's number in Raft: 64 bits hashed (FNV-1a, then mixed) from its node id. Never 0. */
raft_id peers_id(const struct uuid *node_id);

int peers_new(uv_loop_t *loop, const char *bind_ip, uint16_t port, const struct link_identity *self,
              const struct peers_handlers *handlers, struct peers **out, struct errmsg *err);
void peers_free(struct peers *peers);

/* Makes sure that `id` is dialled at `address` ("ip:port"). */
int peers_set(struct peers *peers, raft_id id, const char *address, struct errmsg *err);
/* Forgets a server: its link is dropped, without on_down. Not known: nothing. Not from inside a
 * callback of that link. */
void peers_forget(struct peers *peers, raft_id id);
/* The servers that are dialled; returns how many, `out` has PEERS_MAX. */
size_t peers_list(const struct peers *peers, raft_id *out);
bool peers_is_up(const struct peers *peers, raft_id id);
/* False when it is lost at once (no link, full queue). */
bool peers_send(struct peers *peers, raft_id to, uint8_t type, struct slice payload);
/* This server has learned its cluster's id: those of another one are not spoken to any more. */
void peers_cluster_id(struct peers *peers, const struct uuid *id);
/* Whether the server is connected, and of a version that knows of cluster ids. */
bool peers_knows_cluster_ids(const struct peers *peers, raft_id id);
/* To all that are connected. */
void peers_send_all(struct peers *peers, uint8_t type, struct slice payload);
/* Writes what was queued to anyone. */
void peers_flush(struct peers *peers);

#endif
