#ifndef SERVER_AGENT_PROBE_STREAM_H
#define SERVER_AGENT_PROBE_STREAM_H

/* One connection of a check, on libuv: looks the name up, connects to the first address that
 * answers, sends the request and hands over what comes back, in TLS where the check asks for it.
 * The owner limits the time. */

#include <stdbool.h>
#include <uv.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "server/agent/probe_tls.h"
#include "server/agent/probe_url.h"

enum {
    PROBE_ADDRESSES_MAX = 8, /* of one name, tried in order */
};

struct probe_stream_target {
    char host[PROBE_HOST_BYTES_MAX + 1]; /* name or address, without brackets */
    char port[PROBE_PORT_BYTES_MAX + 1];
    struct probe_tls_context *tls;                  /* NULL: no TLS; borrowed until the close */
    char tls_server_name[PROBE_HOST_BYTES_MAX + 1]; /* "": the host */
    bool tls_skip_verify;
};

/* Called on the loop, never from inside probe_stream_open. Each of them may close the stream. */
struct probe_stream_events {
    /* Connected, when there is no request: nothing else will come. */
    void (*on_connect)(void *context);
    /* Bytes from the other side; borrowed. */
    void (*on_receive)(void *context, struct slice bytes);
    /* No more will come; the owner closes the stream in this call. `problem` (borrowed) is what Go
     * says of it, "EOF" for an orderly end. */
    void (*on_end)(void *context, const char *problem);
};

struct probe_stream;

/* Copies the target, borrows `events` and `context` until the close, takes the bytes of `request`
 * (empty: only connects). Returns 0 or libuv's code, and then `*out` is untouched. */
int probe_stream_open(uv_loop_t *loop, const struct probe_stream_target *target,
                      struct buffer *request, const struct probe_stream_events *events,
                      void *context, struct probe_stream **out);

/* Nothing is called any more; NULL is accepted. The memory lives until libuv has closed what it
 * holds, so the loop must go on. */
void probe_stream_close(struct probe_stream *stream);

#endif
