#ifndef SERVER_SERVER_DNS_H
#define SERVER_SERVER_DNS_H

/* What the DNS responder needs from the loop: its start with the configuration's addresses, how old
 * the store is, and to have it confirmed. */

#include "dns/dns.h"
#include "kv/errmsg.h"

struct server;

/* Starts DNS as configured, nothing if ports.dns is off. The replica must be there. */
int server_dns_start(struct server *server, struct errmsg *err);
/* As dns_server_reload, with names of recursors. */
int server_dns_reload(struct server *server, const struct dns_config *config);
/* Stops its threads; what is closed needs one more run of the loop. */
void server_dns_stop(struct server *server);

#endif
