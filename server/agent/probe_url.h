#ifndef SERVER_AGENT_PROBE_URL_H
#define SERVER_AGENT_PROBE_URL_H

/* What a check asks, taken apart: URLs of HTTP checks, "host:port" of TCP checks. Texts come from
 * registrations and from redirects, so all of it is untrusted. */

#include <stdbool.h>

#include "kv/buffer.h"
#include "kv/slice.h"

enum {
    PROBE_HOST_BYTES_MAX = 255, /* of what is asked: longer names do not resolve */
    PROBE_PORT_BYTES_MAX = 5,
};

/* "http://host:port/path?query" in parts, which borrow from the text. */
struct probe_url {
    struct slice scheme;
    struct slice authority; /* as written: what Host says */
    struct slice host;      /* without brackets */
    struct slice port;      /* "": the scheme's */
    struct slice path;      /* from the first '/', '?' or the end; the fragment is cut off */
};

/* False when it is no URL that could be asked; then `problem` gets Go's text for it. */
bool probe_url_parse(struct slice text, struct probe_url *out, struct buffer *problem);
bool probe_url_is_secure(const struct probe_url *url); /* https:// */
/* As written, or the scheme's. */
struct slice probe_url_port(const struct probe_url *url);

/* Whether `url` leads to the host of `base`, or to one whose name ends in that, at the same port
 * and with no less protection: who may be told what `base`'s may. */
bool probe_url_is_below(const struct probe_url *url, const struct probe_url *base);

/* Whether a redirect's location begins with a scheme or names a host: nothing of the base's host is
 * needed. */
bool probe_location_names_host(struct slice location);

/* Appends to `out` where a redirect from `base` to `location` leads (RFC 3986, 5.2). Dot segments
 * stay for the server to resolve. What comes out may be no URL: parse it. */
void probe_url_resolve(const struct probe_url *base, struct slice location, struct buffer *out);

/* Splits "host:port" and "[host]:port" into slices of `text`; a missing port is empty. The port is
 * not looked into. False when the colons or brackets cannot be told apart. */
bool probe_authority_split(struct slice text, struct slice *host, struct slice *port);
bool probe_port_is_valid(struct slice port);

#endif
