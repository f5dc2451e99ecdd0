#include "server/shed.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

struct shed {
    uv_tcp_t handle;
    uv_stream_t *listener;
    bool closing; /* the handle is */
    bool again;   /* another connection waits for it */
    bool freed;
};

struct shed *shed_new(uv_stream_t *listener)
{
    struct shed *shed = calloc(1, sizeof(*shed));

    if (shed != NULL) {
        shed->listener = listener;
    }
    return shed;
}

static void shed_on_closed(uv_handle_t *handle)
{
    struct shed *shed = handle->data;

    shed->closing = false;
    if (shed->freed) {
        free(shed);
    } else if (shed->again) {
        shed_accept(shed);
    }
}

void shed_accept(struct shed *shed)
{
    assert(!shed->freed);
    shed->again = shed->closing;
    if (shed->closing) {
        return;
    }
    const int rc = uv_tcp_init(shed->listener->loop, &shed->handle);

    assert(rc == 0); /* Without an address family it opens nothing. */
    (void)rc;
    shed->handle.data = shed;
    shed->closing = true;
    (void)uv_accept(shed->listener, (uv_stream_t *)&shed->handle); /* Closed in any case. */
    uv_close((uv_handle_t *)&shed->handle, shed_on_closed);
}

void shed_free(struct shed *shed)
{
    if (shed == NULL) {
        return;
    }
    shed->freed = true;
    if (!shed->closing) {
        free(shed);
    }
}
