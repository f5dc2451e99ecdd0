#ifndef SERVER_AGENT_PROBE_REQUEST_H
#define SERVER_AGENT_PROBE_REQUEST_H

/* The request of an HTTP check. Method, headers and body are the registration's, so they are
 * untrusted: whatever could end a line or the request early is left out. */

#include <jansson.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "server/agent/probe_url.h"

struct probe_request {
    struct buffer method;
    struct buffer header; /* lines, each with its CRLF */
    struct buffer secret; /* the same, for the check's own host alone: Authorization, Cookie */
    struct buffer host;   /* the registration's own Host, or empty: the URL's */
    struct buffer body;
    bool without_body; /* a redirect asks for the address alone */
};

/* Copies all. `method` "" or not a token means GET; `header` is an object of lists of strings, or
 * NULL. A failed allocation shows in probe_request_write. */
void probe_request_init(struct probe_request *request, struct slice method, const json_t *header,
                        struct slice body);
void probe_request_deinit(struct probe_request *request);

/* What is left out from here on, as Go's client does: a redirect led to `to`, which the answer
 * `named` with its host, or gave as a path. `first` is what the registration asks: to other hosts
 * than its own go no credentials, and none come back. `with_body`: for this one request. */
void probe_request_redirect(struct probe_request *request, const struct probe_url *first,
                            const struct probe_url *to, bool named, bool with_body);

/* Appends the request for `url`: as Consul's agent sends it, but for Accept-Encoding, since we
 * could not unpack what came. Without memory `out` is marked as failed. */
void probe_request_write(const struct probe_request *request, const struct probe_url *url,
                         struct buffer *out);

#endif
