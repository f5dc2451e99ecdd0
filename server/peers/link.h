#ifndef SERVER_PEERS_LINK_H
#define SERVER_PEERS_LINK_H

/* Framed TCP connections between servers: what Raft messages, RPC and membership travel on. Each
 * side opens a connection of its own to the other; a connection starts with one protocol byte (as
 * in Consul, so that other protocols can join on the port) and a hello that names datacenter, node,
 * version and cluster, which the other side answers with its own. A server refuses a hello from
 * another datacenter, or from another cluster than its own: a zero id is none's. A server that
 * learns of its cluster says its hello again on all links that are up.
 *
 * Frame: u32 payload size, u8 version, u8 type, u16 zero, u32 CRC-32C of the payload, u32 CRC-32C
 * of the twelve bytes before; then the payload. Little-endian. Frames of an unknown type are handed
 * up like any other, so that versions can mix; one that is damaged or too large ends the
 * connection.
 *
 * Everything runs on the loop. Sends are queued, and written by link_flush, so that one turn of the
 * loop makes one write per peer. */

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "kv/uuid.h"

enum {
    LINK_PROTOCOL_BYTE = 0x50, /* 'P'; Consul's own are 0 to 8 */
    LINK_VERSION = 1,
    LINK_FRAME_BYTES_MAX = 64 * 1024 * 1024,
    LINK_QUEUE_BYTES_MAX =
        16 * 1024 * 1024, /* unsent, per connection: beyond it no further frame is taken */
    LINK_NAME_BYTES_MAX = 128,
    LINK_INCOMING_MAX = 256,    /* connections per listener */
    LINK_HANDSHAKE_MS = 5000,   /* for connect and hello */
    LINK_RECONNECT_MS_MIN = 50, /* doubles up to the maximum while dialling fails */
    LINK_RECONNECT_MS_MAX = 1000,
    LINK_UNACKNOWLEDGED_MS =
        10000,            /* TCP_USER_TIMEOUT: sent and not acknowledged for so long: dead */
    LINK_KEEPALIVE_S = 5, /* silence after which TCP asks whether the other side is there, and how
                             often: an incoming link sends nothing that could go unacknowledged */
};

/* Frame types below this one are the link's own (hello, refusal). */
enum { LINK_TYPE_FIRST = 16 };

/* Who speaks. */
struct link_identity {
    struct uuid id;
    char name[LINK_NAME_BYTES_MAX];
    char datacenter[64];
    char address[64]; /* advertised IP */
    uint16_t serf_port;
    uint16_t server_port;
    struct uuid cluster_id; /* zero: it has none yet, or does not know it */
    bool has_cluster_id;    /* of a peer: its version knows of them */
};

struct link;
struct link_listener;

struct link_handlers {
    void *host;
    /* Both hellos were exchanged; `peer` is valid until on_down. */
    void (*on_up)(void *host, struct link *link, const struct link_identity *peer);
    /* Was up, and is not any more. A dialled link goes on trying by itself; an incoming one is
     * freed after this. */
    void (*on_down)(void *host, struct link *link, const char *reason);
    /* The payload is borrowed for the call. */
    void (*on_frame)(void *host, struct link *link, uint8_t type, struct slice payload);
    /* A dialled link could not be made (and will be tried again). May be NULL. */
    void (*on_failed)(void *host, struct link *link, const char *reason);
    /* One side has refused the other, as of another datacenter or cluster, or for what it is told
     * by the caller; the link ends, as the other handlers tell. May be NULL. */
    void (*on_refused)(void *host, struct link *link, const char *reason);
};

/* Dials `address` ("host", "host:port", "[v6]:port") now and, whenever it is down, again with
 * back-off, until link_free. Handlers and identity are borrowed for the link's life. STORE_ENOMEM
 * or a bad address: negative, with `err`. */
int link_dial(uv_loop_t *loop, const char *address, uint16_t default_port,
              const struct link_identity *self, const struct link_handlers *handlers,
              struct link **out, struct errmsg *err);
/* Ends the link without on_down; its memory goes in a later turn of the loop. NULL is accepted. */
void link_free(struct link *link);

/* Ends the present connection (on_down is called) of a link to somebody else than it should be. The
 * dialling side, which an incoming link's refusal tells why, tries again after the longest
 * back-off.
 */
void link_reject(struct link *link, const char *reason);

/* To be called when cluster_id of the identity that the link was made with has changed: says its
 * hello again, and ends if the other side is of another cluster. */
void link_identity_changed(struct link *link);

/* Writes "ip:port", or "[ip]:port" for IPv6: what link_dial takes. */
void link_endpoint(char *out, size_t out_bytes, const char *ip, uint16_t port);

bool link_is_up(const struct link *link);
/* Who the other side is; only while the link is up, or in on_down. */
const struct link_identity *link_peer(const struct link *link);
const char *link_address(const struct link *link); /* as dialled, or the remote IP */
/* The caller's, for finding its own things from a link. */
void link_set_context(struct link *link, void *context);
void *link_context(const struct link *link);

/* Queues a frame. False when the link is down or its queue is full: the frame is lost. */
bool link_send(struct link *link, uint8_t type, struct slice payload);
/* Writes what was queued. */
void link_flush(struct link *link);

/* Listens on ip:port. Errors name both. */
int link_listen(uv_loop_t *loop, const char *ip, uint16_t port, const struct link_identity *self,
                const struct link_handlers *handlers, struct link_listener **out,
                struct errmsg *err);
/* link_identity_changed for all connections that came through it. */
void link_listener_identity_changed(struct link_listener *listener);
/* Closes it and all connections that came through it, without on_down. NULL is accepted. */
void link_listener_free(struct link_listener *listener);

#endif
