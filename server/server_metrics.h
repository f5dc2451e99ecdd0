#ifndef SERVER_SERVER_METRICS_H
#define SERVER_SERVER_METRICS_H

/* The figures that are read off the server's parts, when somebody asks for metrics and before an
 * interval ends. */

#include <stdint.h>

#include "server/server.h"

/* The parts must have started. */
void server_metrics_read(struct server *server);
/* Called several times a second, `elapsed_ms` after the last time. */
void server_metrics_tick(struct server *server, uint64_t now_ms, uint64_t elapsed_ms);

#endif
