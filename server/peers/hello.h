#ifndef SERVER_PEERS_HELLO_H
#define SERVER_PEERS_HELLO_H

/* The hello with which both sides of a link begin, as bytes, and who belongs to whom. */

#include <stdbool.h>
#include <stddef.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "server/peers/link.h"

/* u16 version, node id, name, datacenter, address (strings), u16 serf port, u16 server port,
 * cluster id. Newer versions may append fields, which older ones do not look at: so came the
 * cluster id. */
void hello_put(struct buffer *out, const struct link_identity *self);
/* Untrusted. False when malformed. */
bool hello_get(struct slice payload, struct link_identity *out);

/* Whether `text` is an IPv4 or IPv6 address, as those in identities are: a hello with another one
 * is malformed. */
bool hello_is_ip(const char *text);

/* Whether two servers are of one datacenter and may be of one cluster: who has no id may be of any.
 * If not, `reason` says so to both sides. */
bool hello_fits(const struct link_identity *self, const struct link_identity *peer, char *reason,
                size_t reason_bytes);

#endif
