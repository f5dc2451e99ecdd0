#ifndef SERVER_SHED_H
#define SERVER_SHED_H

/* Lets connections go that there is no memory for. libuv takes no further ones from a listener
 * until uv_accept has taken the last: a connection that is only left where it is makes the port
 * deaf for good. So each listener has a handle to spare. All functions: loop thread only. */

#include <uv.h>

struct shed;

/* For `listener`, which is borrowed until shed_free. NULL: no memory. */
struct shed *shed_new(uv_stream_t *listener);
/* From the listener's connection callback: takes the connection that waits and closes it; while
 * the handle still closes for the one before, as soon as that is done. */
void shed_accept(struct shed *shed);
/* When the listener closes, or before. The memory goes at once or, while the handle closes, in a
 * later turn of the loop. NULL is accepted. */
void shed_free(struct shed *shed);

#endif
