#ifndef SERVER_MONITOR_H
#define SERVER_MONITOR_H

/* Who follows the log while it is written (/v1/agent/monitor): takes events from all threads, and
 * tells them on the loop. While more is logged than the loop can pass on, events are dropped and
 * counted. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "server/log.h"

enum {
    MONITOR_CLIENTS_MAX = 64,
    MONITOR_PENDING_BYTES_MAX = 1024 * 1024, /* logged, and not yet passed on */
};

struct monitor;

/* Embedded in whoever follows. The callbacks come on the loop and may remove the client. */
struct monitor_client {
    enum log_level level; /* the lowest one that it wants */
    void (*on_event)(struct monitor_client *client, const struct log_event *event);
    void (*on_dropped)(struct monitor_client *client, uint64_t count);
    void (*on_close)(struct monitor_client *client); /* the server stops; removed before */
    struct monitor_client *next, *previous;
    bool added;
};

int monitor_new(uv_loop_t *loop, struct monitor **out); /* 0 or a negative code of libuv */
/* Tells the clients and ends. The memory goes when libuv has closed its handle. NULL is accepted.
 */
void monitor_free(struct monitor *monitor);

/* False: MONITOR_CLIENTS_MAX. */
bool monitor_add(struct monitor *monitor, struct monitor_client *client);
void monitor_remove(struct monitor *monitor, struct monitor_client *client);
size_t monitor_count(const struct monitor *monitor);

#endif
