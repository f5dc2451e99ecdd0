#ifndef SERVER_AGENT_PROBE_TLS_H
#define SERVER_AGENT_PROBE_TLS_H

/* TLS for HTTPS checks, between bytes and bytes: whoever calls does the sockets. A client that
 * checks the server's certificate against the system's authorities and its name. */

#include <stdbool.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"

struct probe_tls_context; /* the authorities; costs some milliseconds, so it is made once */
struct probe_tls;         /* one connection */

/* NULL without memory. */
struct probe_tls_context *probe_tls_context_new(void);
void probe_tls_context_free(struct probe_tls_context *context); /* NULL is accepted */

/* `server_name` is a host name or an IP address: what the certificate must be for, unless
 * `skip_verify`, and what is asked for (SNI). `request` is sent when the connection is secure; all
 * are copied. NULL without memory. The context may be freed before the connection. */
struct probe_tls *probe_tls_new(struct probe_tls_context *context, const char *server_name,
                                bool skip_verify, struct slice request);
void probe_tls_free(struct probe_tls *tls); /* NULL is accepted */

enum probe_tls_state {
    PROBE_TLS_OPEN,
    PROBE_TLS_ENDED,  /* the other side has said that it sends no more */
    PROBE_TLS_FAILED, /* with a text */
};

/* Takes what the socket gave (nothing, to begin with). Appends to `cipher` what must be sent and to
 * `plain` what was received. */
enum probe_tls_state probe_tls_step(struct probe_tls *tls, struct slice input,
                                    struct buffer *cipher, struct buffer *plain,
                                    struct errmsg *err);

#endif
