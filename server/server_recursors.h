#ifndef SERVER_SERVER_RECURSORS_H
#define SERVER_SERVER_RECURSORS_H

/* Recursors that are host names: looked up at the start and at each reload, one after the other and
 * off the loop, and again until there is an address. */

#include <uv.h>

#include "dns/dns.h"

struct server_recursors;

/* Returns owned; NULL when out of memory. */
struct server_recursors *server_recursors_new(uv_loop_t *loop);
/* Puts addresses that are known so far in the place of names, for a start or a reload with
 * `config`; they stay until the next call. All names are to be looked up (again). */
void server_recursors_take(struct server_recursors *recursors, struct dns_config *config);
/* Looks up what is due and tells `dns`, which must have been started or reloaded with what
 * server_recursors_take left, and outlive this. Called several times a second. */
void server_recursors_tick(struct server_recursors *recursors, struct dns_server *dns);
/* Tells nobody any more; memory goes when a look-up under way has ended. Accepts NULL. */
void server_recursors_free(struct server_recursors *recursors);

#endif
