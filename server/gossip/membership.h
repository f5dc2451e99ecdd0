#ifndef SERVER_GOSSIP_MEMBERSHIP_H
#define SERVER_GOSSIP_MEMBERSHIP_H

/* Who is there: the servers of this datacenter, and whether they are alive. The interface that
 * Serf's gossip will implement; for now it is judged from TCP connections between the servers' LAN
 * ports (8301). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/errmsg.h"
#include "kv/uuid.h"

struct server;
struct membership;

enum {
    MEMBERS_MAX = 64,
    MEMBERSHIP_PING_MS = 1000,
    MEMBERSHIP_FAILED_MS = 5000,  /* silence after which a member counts as failed */
    MEMBERSHIP_CHOICE_MS = 10000, /* between giving up a choice and the next one */
    MEMBERSHIP_FORGET_LEFT_MS = 24 * 3600 * 1000,   /* after it has left; Consul's times */
    MEMBERSHIP_FORGET_FAILED_MS = 72 * 3600 * 1000, /* after it has failed */
};

enum member_status {
    MEMBER_ALIVE = 1,
    MEMBER_LEAVING = 2,
    MEMBER_LEFT = 3,
    MEMBER_FAILED = 4
}; /* Serf's numbers */

struct member {
    struct uuid id;
    char name[128];
    char address[64]; /* IP, without port */
    uint16_t serf_port;
    uint16_t server_port;
    enum member_status status;
    bool self;
    uint64_t heard_ms;         /* when it last spoke here, by the loop's clock; 0: never */
    uint64_t changed_ms;       /* when its status last changed */
    bool fresh;                /* its log does not hold yet what a vote of it would speak for */
    bool led;                  /* it leads, or has a leader */
    uint64_t led_changed_ms;   /* when that changed last; 0: never */
    bool bootstrap;            /* started with -bootstrap */
    uint32_t bootstrap_expect; /* 0 once it has Raft state */
    struct uuid
        bootstrap_choice; /* whom it would have make the first configuration; zero: nobody */
};

/* Starts to listen on bind_addr:serf_lan_port and to join retry_join. `on_change` (loop) tells of
 * each member that joined or changed status. */
int membership_new(struct server *server,
                   void (*on_change)(void *host, const struct member *member), void *host,
                   struct membership **out, struct errmsg *err);
/* Tells the others that this server leaves in order (else it counts as failed after a while), and
 * is silent from then on. */
void membership_leave(struct membership *membership);
/* NULL is accepted. */
void membership_free(struct membership *membership);

size_t membership_count(const struct membership *membership);
const struct member *membership_at(const struct membership *membership,
                                   size_t position); /* self is at 0 */
const struct member *membership_find(const struct membership *membership, const struct uuid *id);
/* Dials an address ("host", "host:port"); done(context, NULL) or with an error text. For
 * /v1/agent/join. */
void membership_join(struct membership *membership, const char *address,
                     void (*done)(void *context, const char *failure), void *context);

/* Publishes whom this server would have make the first configuration (member.bootstrap_choice).
 * Another one than before is published only after a while without any: by then nobody counts on the
 * former choice any more, and no two configurations can be made that this server is in. */
void membership_choose(struct membership *membership, const struct uuid *id);
/* A failed member will not come back: it counts as left here, and the others are told. If it does
 * come back, it is alive again. */
void membership_force_leave(struct membership *membership, const struct uuid *id);
/* Publishes member.fresh of this server. */
void membership_fresh(struct membership *membership, bool fresh);
/* Publishes member.led of this server. */
void membership_led(struct membership *membership, bool led);
/* This server has learned its cluster's id: members of another one are not heard any more. */
void membership_cluster_id(struct membership *membership, const struct uuid *id);
/* This server has Raft state now: stop offering to bootstrap. */
void membership_bootstrapped(struct membership *membership);

#endif
