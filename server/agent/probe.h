#ifndef SERVER_AGENT_PROBE_H
#define SERVER_AGENT_PROBE_H

/* One run of an HTTP or TCP health check, on libuv: asks (probe_url, probe_request, probe_stream),
 * reads (probe_answer), and tells the status with Consul's output text. What the other side sends
 * is untrusted and bounded. */

#include <jansson.h>
#include <stdint.h>
#include <uv.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "server/agent/probe_tls.h"

enum {
    PROBE_OUTPUT_BYTES_MAX = 64 * 1024, /* the last bytes of a longer body are kept, as in Consul */
    PROBE_OUTPUT_BYTES_DEFAULT = 4096,
    PROBE_REDIRECTS_MAX = 10,
};

enum probe_status { PROBE_PASSING, PROBE_WARNING, PROBE_CRITICAL };
const char *probe_status_text(enum probe_status status);

/* Borrowed for probe_start only. */
struct probe_spec {
    struct slice http; /* URL, or empty */
    struct slice tcp;  /* "host:port", or empty */
    struct slice method;
    struct slice body;
    const json_t *header; /* object of lists of strings, or NULL */
    uint64_t timeout_ms;
    uint64_t output_bytes_max; /* 0: PROBE_OUTPUT_BYTES_DEFAULT */
    bool disable_redirects;
    struct probe_tls_context *tls; /* for https://; NULL: that is critical */
    bool tls_skip_verify;
    struct slice tls_server_name; /* empty: the URL's host */
};

struct probe;

/* `done` is called once, on the loop, never from inside probe_start; `output` is borrowed. The
 * probe is gone after it. NULL without memory. */
typedef void (*probe_done)(void *context, enum probe_status status, struct slice output);
struct probe *probe_start(uv_loop_t *loop, const struct probe_spec *spec, probe_done done,
                          void *context);
/* Ends it without calling `done`. Its memory lives until libuv has closed its handles, so the loop
 * must go on. */
void probe_cancel(struct probe *probe);

#endif
