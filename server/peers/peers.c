#include "server/peers/peers.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/store.h"
#include "server/log.h"

#define LOG_MODULE "agent.server.peers"

enum { PEERS_REPEAT_MS = 60 * 1000 }; /* a complaint */

struct peer {
    raft_id id; /* 0: free slot */
    struct link *link;
    char address[96];
    bool mistaken; /* another server answers there, which was logged */
};

struct peers {
    uv_loop_t *loop;
    struct link_identity self;
    struct peers_handlers handlers;
    struct link_handlers dialled;
    struct link_handlers incoming;
    struct link_listener *listener;
    struct peer peers[PEERS_MAX];
    size_t count;
    uint64_t refused_ms; /* when it told last that somebody was refused; 0: never */
};

raft_id peers_id(const struct uuid *node_id)
{
    uint64_t hash = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < UUID_BYTES; i++) {
        hash = (hash ^ node_id->bytes[i]) * 0x100000001b3ULL;
    }
    hash ^= hash >> 32; /* FNV's low bits mix poorly upwards. */
    return hash == 0 ? 1 : hash;
}

static struct peer *peers_find(const struct peers *peers, raft_id id)
{
    for (size_t i = 0; i < peers->count; i++) {
        if (peers->peers[i].id == id) {
            return (struct peer *)(uintptr_t)&peers->peers[i];
        }
    }
    return NULL;
}

static struct peer *peers_find_link(struct peers *peers, const struct link *link)
{
    for (size_t i = 0; i < peers->count; i++) {
        if (peers->peers[i].link == link) {
            return &peers->peers[i];
        }
    }
    return NULL;
}

static void peers_on_up(void *host, struct link *link, const struct link_identity *identity)
{
    struct peers *peers = host;
    struct peer *peer = peers_find_link(peers, link);

    assert(peer != NULL);
    if (peers_id(&identity->id) != peer->id) {
        if (!peer->mistaken) {
            log_write(LOG_WARN, LOG_MODULE,
                      "another server answers at a peer's address: address=%s answered=%s",
                      peer->address, identity->name);
        }
        peer->mistaken = true;
        link_reject(link, "another server answers there");
        return;
    }
    peer->mistaken = false;
    log_write(LOG_DEBUG, LOG_MODULE, "connected: name=%s address=%s", identity->name,
              peer->address);
    peers->handlers.on_up(peers->handlers.host, peer->id);
}

static void peers_on_down(void *host, struct link *link, const char *reason)
{
    struct peers *peers = host;
    struct peer *peer = peers_find_link(peers, link);

    assert(peer != NULL);
    log_write(LOG_DEBUG, LOG_MODULE, "connection lost: address=%s reason=\"%s\"", peer->address,
              reason);
    peers->handlers.on_down(peers->handlers.host, peer->id);
}

static void peers_on_frame(void *host, struct link *link, uint8_t type, struct slice payload)
{
    struct peers *peers = host;

    peers->handlers.on_frame(peers->handlers.host, peers_id(&link_peer(link)->id), type, payload);
}

/* Whether somebody speaks under the number of a server that is dialled elsewhere, or of this one: a
 * copied data directory, or a server that moved and that membership has yet to find. Two that count
 * as one could vote twice, and the loss of the one would be taken for the loss of the other. */
static bool peers_is_impostor(const struct peers *peers, const struct link_identity *identity)
{
    const raft_id id = peers_id(&identity->id);
    const struct peer *peer = peers_find(peers, id);
    char address[sizeof(peer->address)];

    if (id == peers_id(&peers->self.id)) {
        return true;
    }
    link_endpoint(address, sizeof(address), identity->address, identity->server_port);
    return peer != NULL && strcmp(peer->address, address) != 0;
}

/* An incoming link only carries the other side's frames. Its context says that it was refused. */
static void peers_on_incoming_up(void *host, struct link *link,
                                 const struct link_identity *identity)
{
    struct peers *peers = host;

    if (peers_is_impostor(peers, identity)) {
        link_set_context(link, peers);
        link_reject(link, "its node id is another server's");
    }
}

static void peers_on_incoming_down(void *host, struct link *link, const char *reason)
{
    struct peers *peers = host;

    if (link_context(link) != NULL) {
        return; /* The server whose node id it carries was not lost. */
    }
    log_write(LOG_DEBUG, LOG_MODULE, "incoming connection ended: address=%s reason=\"%s\"",
              link_address(link), reason);
    peers->handlers.on_down(peers->handlers.host, peers_id(&link_peer(link)->id));
}

static void peers_on_refused(void *host, struct link *link, const char *reason)
{
    struct peers *peers = host;
    const uint64_t now_ms = uv_now(peers->loop);

    if (peers->refused_ms == 0 || now_ms - peers->refused_ms >= PEERS_REPEAT_MS) {
        peers->refused_ms = now_ms;
        log_write(LOG_ERROR, LOG_MODULE, "connection refused: address=%s reason=\"%s\"",
                  link_address(link), reason);
    }
}

int peers_new(uv_loop_t *loop, const char *bind_ip, uint16_t port, const struct link_identity *self,
              const struct peers_handlers *handlers, struct peers **out, struct errmsg *err)
{
    struct peers *peers = calloc(1, sizeof(*peers));
    int rc;

    if (peers == NULL) {
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    peers->loop = loop;
    peers->self = *self;
    peers->handlers = *handlers;
    peers->dialled = (struct link_handlers){.host = peers,
                                            .on_up = peers_on_up,
                                            .on_down = peers_on_down,
                                            .on_frame = peers_on_frame,
                                            .on_refused = peers_on_refused};
    peers->incoming = (struct link_handlers){.host = peers,
                                             .on_up = peers_on_incoming_up,
                                             .on_down = peers_on_incoming_down,
                                             .on_frame = peers_on_frame,
                                             .on_refused = peers_on_refused};
    rc = link_listen(loop, bind_ip, port, &peers->self, &peers->incoming, &peers->listener, err);
    if (rc != 0) {
        free(peers);
        return rc;
    }
    *out = peers;
    return 0;
}

void peers_free(struct peers *peers)
{
    if (peers == NULL) {
        return;
    }
    for (size_t i = 0; i < peers->count; i++) {
        link_free(peers->peers[i].link);
    }
    link_listener_free(peers->listener);
    free(peers);
}

int peers_set(struct peers *peers, raft_id id, const char *address, struct errmsg *err)
{
    struct peer *peer = peers_find(peers, id);
    struct link *link;
    int rc;

    assert(id != 0);
    if (peer != NULL && peer->link != NULL && strcmp(peer->address, address) == 0) {
        return 0;
    }
    if (peer == NULL && peers->count == PEERS_MAX) {
        return errmsg_set(err, STORE_ENOMEM, "too many servers (limit %d)", PEERS_MAX);
    }
    rc = link_dial(peers->loop, address, peers->self.server_port, &peers->self, &peers->dialled,
                   &link, err);
    if (rc != 0) {
        return rc;
    }
    if (peer == NULL) {
        peer = &peers->peers[peers->count++];
        peer->id = id;
    } else {
        link_free(peer->link);
    }
    peer->link = link;
    (void)snprintf(peer->address, sizeof(peer->address), "%s", address);
    return 0;
}

void peers_forget(struct peers *peers, raft_id id)
{
    struct peer *peer = peers_find(peers, id);

    if (peer == NULL) {
        return;
    }
    log_write(LOG_INFO, LOG_MODULE, "forgetting a server that is gone: address=%s", peer->address);
    link_free(peer->link);
    *peer = peers->peers[--peers->count];
    memset(&peers->peers[peers->count], 0, sizeof(peers->peers[peers->count]));
}

size_t peers_list(const struct peers *peers, raft_id *out)
{
    for (size_t i = 0; i < peers->count; i++) {
        out[i] = peers->peers[i].id;
    }
    return peers->count;
}

bool peers_is_up(const struct peers *peers, raft_id id)
{
    const struct peer *peer = peers_find(peers, id);

    return peer != NULL && peer->link != NULL && link_is_up(peer->link);
}

void peers_cluster_id(struct peers *peers, const struct uuid *id)
{
    peers->self.cluster_id = *id;
    for (size_t i = 0; i < peers->count; i++) {
        if (peers->peers[i].link != NULL) {
            link_identity_changed(peers->peers[i].link);
        }
    }
    link_listener_identity_changed(peers->listener);
}

bool peers_knows_cluster_ids(const struct peers *peers, raft_id id)
{
    return peers_is_up(peers, id) && link_peer(peers_find(peers, id)->link)->has_cluster_id;
}

bool peers_send(struct peers *peers, raft_id to, uint8_t type, struct slice payload)
{
    const struct peer *peer = peers_find(peers, to);

    return peer != NULL && peer->link != NULL && link_send(peer->link, type, payload);
}

void peers_send_all(struct peers *peers, uint8_t type, struct slice payload)
{
    for (size_t i = 0; i < peers->count; i++) {
        if (peers->peers[i].link != NULL) {
            (void)link_send(peers->peers[i].link, type, payload); /* False: not connected. */
        }
    }
}

void peers_flush(struct peers *peers)
{
    for (size_t i = 0; i < peers->count; i++) {
        if (peers->peers[i].link != NULL) {
            link_flush(peers->peers[i].link);
        }
    }
}
