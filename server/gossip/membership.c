#include "server/gossip/membership.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/buffer.h"
#include "kv/store.h"
#include "server/log.h"
#include "server/peers/hello.h"
#include "server/peers/link.h"
#include "server/server.h"

#define LOG_MODULE "agent.server.membership"

enum {
    MEMBERSHIP_PING = LINK_TYPE_FIRST,
    MEMBERSHIP_PONG,
    MEMBERSHIP_LEAVE,
    MEMBERSHIP_GONE,               /* a failed member, named by its id, counts as left */
    MEMBERSHIP_FLAG_BOOTSTRAP = 1, /* of a state's first byte */
    MEMBERSHIP_FLAG_FRESH = 2,
    MEMBERSHIP_FLAG_LED = 4,
    MEMBERSHIP_TARGETS_MAX = 2 * MEMBERS_MAX,
    MEMBERSHIP_JOIN_MS = 5000,
    MEMBERSHIP_REPEAT_MS = 60 * 1000, /* a complaint */
};

/* An address that is dialled: from retry_join, from a join request, or learned from another member.
 */
struct membership_target {
    struct membership *membership;
    struct link *link; /* NULL: the slot is free */
    struct uuid id;    /* whom it led to; zero until it was up once */
    void (*join_done)(void *context, const char *failure); /* a join request that waits */
    void *join_context;
    uint64_t join_deadline_ms;
    bool quiet;   /* its failure was logged */
    bool learned; /* not asked for by the operator: dropped when the member moves */
};

struct membership_entry {
    struct member member;
    bool conflict; /* another server with its node id was seen, and logged */
};

struct membership {
    struct server *server;
    void (*on_change)(void *host, const struct member *member);
    void *host;
    struct link_identity self;
    struct link_handlers handlers;
    struct link_listener *listener;
    struct membership_target targets[MEMBERSHIP_TARGETS_MAX];
    struct membership_entry entries[MEMBERS_MAX];
    size_t count;
    uint64_t timer_ms;       /* when the timer last fired */
    uint64_t judge_from_ms;  /* this server was paused: nobody is judged by his silence before */
    uint64_t choose_from_ms; /* no choice is published before */
    uint64_t refused_ms;     /* when it told last that somebody was refused; 0: never */
    bool leaving;            /* the others were told so: nothing more is said */
    uv_timer_t *timer;       /* frees itself on close, after this struct */
    struct buffer scratch;
};

static uint64_t membership_now_ms(const struct membership *membership)
{
    return uv_now(membership->server->loop);
}

static struct membership_entry *membership_entry(struct membership *membership,
                                                 const struct uuid *id)
{
    for (size_t i = 0; i < membership->count; i++) {
        if (uuid_equal(&membership->entries[i].member.id, id)) {
            return &membership->entries[i];
        }
    }
    return NULL;
}

/* --- targets --- */

static int membership_dial(struct membership *membership, const char *address,
                           struct membership_target **out, struct errmsg *err)
{
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        struct membership_target *target = &membership->targets[i];
        int rc;

        if (target->link != NULL) {
            continue;
        }
        memset(target, 0, sizeof(*target));
        target->membership = membership;
        rc = link_dial(membership->server->loop, address,
                       (uint16_t)membership->server->config->serf_lan_port, &membership->self,
                       &membership->handlers, &target->link, err);
        if (rc == 0) {
            link_set_context(target->link, target);
            *out = target;
        }
        return rc;
    }
    return errmsg_set(err, STORE_ENOMEM, "too many addresses to join (limit %d)",
                      MEMBERSHIP_TARGETS_MAX);
}

static void membership_drop_target(struct membership_target *target)
{
    link_free(target->link);
    target->link = NULL;
}

static void membership_join_answer(struct membership_target *target, const char *failure)
{
    void (*done)(void *context, const char *failure) = target->join_done;

    if (done != NULL) {
        target->join_done = NULL;
        done(target->join_context, failure);
    }
}

/* Dials a member that nothing leads to yet. */
static void membership_reach(struct membership *membership, const struct member *member)
{
    struct membership_target *target;
    struct errmsg err;
    char address[96];

    link_endpoint(address, sizeof(address), member->address, member->serf_port);
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        if (membership->targets[i].link != NULL &&
            ((uuid_equal(&membership->targets[i].id, &member->id) &&
              link_is_up(membership->targets[i].link)) ||
             strcmp(link_address(membership->targets[i].link), address) == 0)) {
            return;
        }
    }
    if (membership_dial(membership, address, &target, &err) != 0) {
        log_write(LOG_WARN, LOG_MODULE, "cannot dial member: name=%s error=\"%s\"", member->name,
                  err.text);
        return;
    }
    target->id = member->id;
    target->quiet = true;
    target->learned = true;
}

/* --- members --- */

/* Nobody is dialled for ever on another member's word. */
static void membership_drop_learned(struct membership *membership, const struct uuid *id)
{
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        struct membership_target *target = &membership->targets[i];

        if (target->link != NULL && target->learned && !link_is_up(target->link) &&
            uuid_equal(&target->id, id)) {
            membership_drop_target(target);
        }
    }
}

/* Not from inside a callback of a link to it. */
static void membership_forget(struct membership *membership, size_t position)
{
    struct membership_entry *entry = &membership->entries[position];

    assert(position > 0 && position < membership->count); /* Never this server itself. */
    log_write(LOG_INFO, LOG_MODULE, "member is forgotten: name=%s address=%s", entry->member.name,
              entry->member.address);
    membership_drop_learned(membership, &entry->member.id);
    membership->count--;
    memmove(entry, entry + 1, (membership->count - position) * sizeof(*entry));
}

/* Whether `old`, which is not alive, has had its name or its address taken over by a fresh server.
 */
static bool membership_is_replaced(const struct membership *membership, const struct member *old)
{
    for (size_t i = 0; i < membership->count; i++) {
        const struct member *other = &membership->entries[i].member;

        if (other != old && other->status == MEMBER_ALIVE &&
            (strcmp(other->name, old->name) == 0 || (strcmp(other->address, old->address) == 0 &&
                                                     other->server_port == old->server_port))) {
            return true;
        }
    }
    return false;
}

static void membership_forget_old(struct membership *membership, uint64_t now_ms)
{
    for (size_t i = membership->count; i > 1; i--) {
        const struct member *member = &membership->entries[i - 1].member;
        const uint64_t since_ms = now_ms - member->changed_ms;

        if (member->status != MEMBER_ALIVE &&
            (membership_is_replaced(membership, member) ||
             since_ms > (member->status == MEMBER_LEFT ? MEMBERSHIP_FORGET_LEFT_MS
                                                       : MEMBERSHIP_FORGET_FAILED_MS))) {
            membership_forget(membership, i - 1);
        }
    }
}

static void membership_set_status(struct membership *membership, struct membership_entry *entry,
                                  enum member_status status)
{
    static const char *const texts[] = {[MEMBER_ALIVE] = "alive",
                                        [MEMBER_LEAVING] = "leaving",
                                        [MEMBER_LEFT] = "left",
                                        [MEMBER_FAILED] = "failed"};

    if (entry->member.status == status) {
        return;
    }
    entry->member.status = status;
    entry->member.changed_ms = membership_now_ms(membership);
    log_write(LOG_INFO, LOG_MODULE, "member is %s: name=%s address=%s", texts[status],
              entry->member.name, entry->member.address);
    membership->on_change(membership->host, &entry->member);
}

/* A member says of itself what it said before, or it was started again with another name or
 * address: then what leads to the old one is dropped. */
static void membership_describe(struct membership *membership, struct membership_entry *entry,
                                const struct link_identity *peer)
{
    struct member *member = &entry->member;
    const bool known = member->serf_port != 0 || member->server_port != 0;
    const bool moved = strcmp(member->address, peer->address) != 0 ||
                       member->serf_port != peer->serf_port ||
                       member->server_port != peer->server_port;
    const bool renamed = strcmp(member->name, peer->name) != 0;

    if (!moved && !renamed) {
        return;
    }
    if (known) {
        log_write(LOG_INFO, LOG_MODULE,
                  "member has changed: name=%s address=%s port=%u was=%s at=%s:%u", peer->name,
                  peer->address, peer->server_port, member->name, member->address,
                  member->server_port);
    }
    (void)snprintf(member->name, sizeof(member->name), "%s", peer->name);
    (void)snprintf(member->address, sizeof(member->address), "%s", peer->address);
    member->serf_port = peer->serf_port;
    member->server_port = peer->server_port;
    if (moved) {
        membership_drop_learned(membership, &member->id);
    }
    if (known) {
        membership->on_change(membership->host, member);
    }
}

/* Whether somebody else speaks under the node id of a member that is there: two servers that would
 * count as one. Its old connection stands, so it was not started again elsewhere. */
static bool membership_conflicts(struct membership *membership, const struct link_identity *peer)
{
    struct membership_entry *entry = membership_entry(membership, &peer->id);
    bool reached;

    if (entry == NULL || (strcmp(entry->member.address, peer->address) == 0 &&
                          entry->member.server_port == peer->server_port)) {
        return false;
    }
    reached = entry->member.self;
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        const struct membership_target *target = &membership->targets[i];

        reached |= target->link != NULL && link_is_up(target->link) &&
                   uuid_equal(&target->id, &peer->id) &&
                   link_peer(target->link)->server_port == entry->member.server_port &&
                   strcmp(link_peer(target->link)->address, entry->member.address) == 0;
    }
    if (reached && !entry->conflict) {
        entry->conflict = true;
        log_write(LOG_ERROR, LOG_MODULE,
                  "two servers have the same node id, ignoring the second: name=%s address=%s "
                  "second=%s at=%s. Remove the node-id file in the second one's data_dir",
                  entry->member.name, entry->member.address, peer->name, peer->address);
    }
    return reached;
}

/* Forgets the member that has been left for longest; false if none has left. */
static bool membership_make_room(struct membership *membership)
{
    size_t oldest = 0;

    for (size_t i = 1; i < membership->count; i++) {
        const struct member *member = &membership->entries[i].member;

        if (member->status == MEMBER_LEFT &&
            (oldest == 0 || member->changed_ms < membership->entries[oldest].member.changed_ms)) {
            oldest = i;
        }
    }
    if (oldest == 0) {
        return false;
    }
    membership_forget(membership, oldest);
    return true;
}

/* Learns of a member from its own hello, or from another one's list (then without having heard it).
 */
static struct membership_entry *membership_learn(struct membership *membership,
                                                 const struct link_identity *peer)
{
    struct membership_entry *entry = membership_entry(membership, &peer->id);

    if (entry == NULL) {
        if (membership->count == MEMBERS_MAX && !membership_make_room(membership)) {
            log_write(LOG_WARN, LOG_MODULE, "too many members, ignoring: name=%s", peer->name);
            return NULL;
        }
        entry = &membership->entries[membership->count++];
        memset(entry, 0, sizeof(*entry));
        entry->member.id = peer->id;
        entry->member.status = MEMBER_FAILED; /* until it is heard */
        entry->member.changed_ms = membership_now_ms(membership);
    } else if (entry->member.self) {
        return NULL;
    }
    membership_describe(membership, entry, peer);
    return entry;
}

static void membership_put_member(struct buffer *out, const struct member *member)
{
    buffer_append(out, member->id.bytes, UUID_BYTES);
    buffer_put_string(out, slice_from_text(member->name));
    buffer_put_string(out, slice_from_text(member->address));
    buffer_put_u16(out, member->serf_port);
    buffer_put_u16(out, member->server_port);
}

/* What a ping and its answer say: how this server stands to bootstrapping, and whom it knows to be
 * alive. */
static void membership_send_state(struct membership *membership, struct link *link, uint8_t type)
{
    struct buffer *out = &membership->scratch;
    const struct member *self = &membership->entries[0].member;
    uint32_t alive = 0;

    if (membership->leaving) {
        return;
    }
    buffer_clear(out);
    buffer_put_u8(out, (uint8_t)((self->bootstrap ? MEMBERSHIP_FLAG_BOOTSTRAP : 0) |
                                 (self->fresh ? MEMBERSHIP_FLAG_FRESH : 0) |
                                 (self->led ? MEMBERSHIP_FLAG_LED : 0)));
    buffer_put_u32(out, self->bootstrap_expect);
    buffer_append(out, self->bootstrap_choice.bytes, UUID_BYTES);
    for (size_t i = 1; i < membership->count; i++) {
        alive += membership->entries[i].member.status == MEMBER_ALIVE;
    }
    buffer_put_u32(out, alive);
    for (size_t i = 1; i < membership->count; i++) {
        if (membership->entries[i].member.status == MEMBER_ALIVE) {
            membership_put_member(out, &membership->entries[i].member);
        }
    }
    if (!out->failed) {
        (void)link_send(link, type, buffer_slice(out)); /* A lost ping is followed by the next. */
        link_flush(link);
    }
}

static bool membership_read_member(struct reader *reader, struct link_identity *out)
{
    const struct slice id = reader_bytes(reader, UUID_BYTES);
    const struct slice name = reader_string(reader);
    const struct slice address = reader_string(reader);

    memset(out, 0, sizeof(*out));
    out->serf_port = reader_u16(reader);
    out->server_port = reader_u16(reader);
    if (reader->failed || !slice_copy_text(name, out->name, sizeof(out->name)) ||
        !slice_copy_text(address, out->address, sizeof(out->address))) {
        return false;
    }
    memcpy(out->id.bytes, id.data, UUID_BYTES);
    /* It is dialled, and comes into the Raft configuration. */
    return !uuid_is_zero(&out->id) && hello_is_ip(out->address);
}

/* Untrusted: a malformed state is not looked at further. */
static void membership_read_state(struct membership *membership, struct membership_entry *entry,
                                  struct slice payload)
{
    struct reader reader = reader_from(payload);
    const uint8_t flags = reader_u8(&reader);
    const bool bootstrap = (flags & MEMBERSHIP_FLAG_BOOTSTRAP) != 0;
    const bool led = (flags & MEMBERSHIP_FLAG_LED) != 0;
    const uint32_t expect = reader_u32(&reader);
    const struct slice choice = reader_bytes(&reader, UUID_BYTES);
    const uint32_t count = reader_u32(&reader);
    const struct uuid id = entry->member.id;
    bool changed;

    if (reader.failed) {
        return;
    }
    changed = entry->member.bootstrap != bootstrap || entry->member.bootstrap_expect != expect ||
              memcmp(entry->member.bootstrap_choice.bytes, choice.data, UUID_BYTES) != 0;
    entry->member.fresh = (flags & MEMBERSHIP_FLAG_FRESH) != 0;
    if (entry->member.led != led) {
        entry->member.led = led;
        entry->member.led_changed_ms = membership_now_ms(membership);
    }
    entry->member.bootstrap = bootstrap;
    entry->member.bootstrap_expect = expect;
    memcpy(entry->member.bootstrap_choice.bytes, choice.data, UUID_BYTES);
    for (uint32_t i = 0; i < count && i < MEMBERS_MAX; i++) {
        struct link_identity peer;

        if (!membership_read_member(&reader, &peer)) {
            break;
        }
        if (membership_entry(membership, &peer.id) == NULL) {
            const struct membership_entry *learned = membership_learn(membership, &peer);

            if (learned != NULL) {
                membership_reach(membership, &learned->member);
            }
        }
    }
    entry = membership_entry(membership, &id); /* Others may have made room for new ones. */
    if (changed && entry != NULL && entry->member.status == MEMBER_ALIVE) {
        membership->on_change(membership->host, &entry->member);
    }
}

/* --- link handlers --- */

static void membership_on_up(void *host, struct link *link, const struct link_identity *peer)
{
    struct membership *membership = host;
    struct membership_target *target = link_context(link);
    struct membership_entry *entry;

    if (membership_conflicts(membership, peer)) {
        link_reject(link, "two servers have the same node id");
        return;
    }
    if (uuid_equal(&peer->id, &membership->self.id)) {
        if (target != NULL) {
            membership_join_answer(target, NULL);
            membership_drop_target(target); /* One of the addresses to join is our own. */
        }
        return;
    }
    entry = membership_learn(membership, peer);
    if (entry == NULL) {
        return;
    }
    if (target != NULL) {
        target->id = peer->id;
        target->quiet = false;
        membership_send_state(membership, link, MEMBERSHIP_PING);
        membership_join_answer(target, NULL);
    } else {
        membership_reach(membership, &entry->member);
    }
}

static void membership_on_down(void *host, struct link *link, const char *reason)
{
    (void)host;
    log_write(LOG_DEBUG, LOG_MODULE, "connection lost: address=%s reason=\"%s\"",
              link_address(link), reason);
}

static void membership_on_failed(void *host, struct link *link, const char *reason)
{
    struct membership *membership = host;
    struct membership_target *target = link_context(link);

    if (target->join_done != NULL && membership_now_ms(membership) >= target->join_deadline_ms) {
        membership_join_answer(target, reason);
        membership_drop_target(target);
        return;
    }
    if (!target->quiet) {
        target->quiet = true;
        log_write(LOG_WARN, LOG_MODULE, "cannot join, will retry: address=%s error=\"%s\"",
                  link_address(link), reason);
    }
}

/* Who dials learns from membership_on_failed. */
static void membership_on_refused(void *host, struct link *link, const char *reason)
{
    struct membership *membership = host;
    const uint64_t now_ms = membership_now_ms(membership);

    if (link_context(link) == NULL &&
        (membership->refused_ms == 0 || now_ms - membership->refused_ms >= MEMBERSHIP_REPEAT_MS)) {
        membership->refused_ms = now_ms;
        log_write(LOG_ERROR, LOG_MODULE, "refused a server: address=%s reason=\"%s\"",
                  link_address(link), reason);
    }
}

/* Another server, or an operator through it, has given up a member that has failed. */
static void membership_on_gone(struct membership *membership, struct slice payload)
{
    struct membership_entry *entry;
    struct uuid id;

    if (payload.size != UUID_BYTES) {
        return;
    }
    memcpy(id.bytes, payload.data, UUID_BYTES);
    entry = membership_entry(membership, &id);
    if (entry != NULL && entry->member.status == MEMBER_FAILED) {
        membership_set_status(membership, entry, MEMBER_LEFT);
    }
}

/* The hello of the link that a frame came on is what says whose it is. */
static void membership_on_frame(void *host, struct link *link, uint8_t type, struct slice payload)
{
    struct membership *membership = host;
    struct membership_entry *entry = membership_entry(membership, &link_peer(link)->id);

    if (entry == NULL || entry->member.self) {
        return;
    }
    switch (type) {
    case MEMBERSHIP_PING:
    case MEMBERSHIP_PONG:
        entry->member.heard_ms = membership_now_ms(membership);
        membership_read_state(membership, entry, payload);
        entry = membership_entry(membership, &link_peer(link)->id); /* It may have moved. */
        if (entry != NULL) {
            membership_set_status(membership, entry, MEMBER_ALIVE);
        }
        if (type == MEMBERSHIP_PING) {
            membership_send_state(membership, link, MEMBERSHIP_PONG);
        }
        break;
    case MEMBERSHIP_LEAVE:
        membership_set_status(membership, entry, MEMBER_LEFT);
        break;
    case MEMBERSHIP_GONE:
        membership_on_gone(membership, payload);
        break;
    default:
        break; /* From a newer version. */
    }
}

static void membership_ping_all(struct membership *membership)
{
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        struct link *link = membership->targets[i].link;

        if (link != NULL && link_is_up(link)) {
            membership_send_state(membership, link, MEMBERSHIP_PING);
        }
    }
}

static void membership_on_timer(uv_timer_t *timer)
{
    struct membership *membership = timer->data;
    const uint64_t now_ms = membership_now_ms(membership);

    /* This server was stopped for a while: what the others said waits in the sockets. */
    if (now_ms - membership->timer_ms > 2 * MEMBERSHIP_PING_MS) {
        membership->judge_from_ms = now_ms + 2 * MEMBERSHIP_PING_MS;
    }
    membership->timer_ms = now_ms;
    membership_ping_all(membership);
    for (size_t i = 1; i < membership->count; i++) {
        struct membership_entry *entry = &membership->entries[i];

        if (entry->member.status == MEMBER_ALIVE && now_ms >= membership->judge_from_ms &&
            now_ms - entry->member.heard_ms > MEMBERSHIP_FAILED_MS) {
            membership_set_status(membership, entry, MEMBER_FAILED);
        }
    }
    membership_forget_old(membership, now_ms);
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        struct membership_target *target = &membership->targets[i];

        if (target->link != NULL && target->join_done != NULL &&
            now_ms >= target->join_deadline_ms) {
            membership_join_answer(target, "i/o timeout");
            membership_drop_target(target);
        }
    }
}

/* --- life --- */

static void membership_init_self(struct membership *membership)
{
    const struct config *config = membership->server->config;
    struct membership_entry *entry = &membership->entries[0];
    struct link_identity *self = &membership->self;

    self->id = membership->server->node_id;
    (void)snprintf(self->name, sizeof(self->name), "%s", config->node_name);
    (void)snprintf(self->datacenter, sizeof(self->datacenter), "%s", config->datacenter);
    (void)snprintf(self->address, sizeof(self->address), "%s", config->advertise_addr);
    self->serf_port = (uint16_t)config->serf_lan_port;
    self->server_port = (uint16_t)config->server_port;
    self->cluster_id = membership->server->cluster_id;

    membership->count = 1;
    entry->member.id = self->id;
    memcpy(entry->member.name, self->name, sizeof(self->name));
    memcpy(entry->member.address, self->address, sizeof(self->address));
    entry->member.serf_port = self->serf_port;
    entry->member.server_port = self->server_port;
    entry->member.status = MEMBER_ALIVE;
    entry->member.self = true;
    entry->member.bootstrap = config->bootstrap;
    entry->member.bootstrap_expect = config->bootstrap_expect;
}

int membership_new(struct server *server,
                   void (*on_change)(void *host, const struct member *member), void *host,
                   struct membership **out, struct errmsg *err)
{
    struct membership *membership = calloc(1, sizeof(*membership));
    uv_timer_t *timer = calloc(1, sizeof(*timer));
    const struct config *config = server->config;
    int rc;

    if (membership == NULL || timer == NULL) {
        free(membership);
        free(timer);
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    membership->server = server;
    membership->on_change = on_change;
    membership->host = host;
    membership->handlers = (struct link_handlers){.host = membership,
                                                  .on_up = membership_on_up,
                                                  .on_down = membership_on_down,
                                                  .on_frame = membership_on_frame,
                                                  .on_failed = membership_on_failed,
                                                  .on_refused = membership_on_refused};
    membership_init_self(membership);
    (void)uv_timer_init(server->loop, timer);
    timer->data = membership;
    membership->timer = timer;
    if (config->serf_lan_port >= 0) {
        rc = link_listen(server->loop, config->bind_addr, (uint16_t)config->serf_lan_port,
                         &membership->self, &membership->handlers, &membership->listener, err);
        if (rc != 0) {
            membership_free(membership);
            return rc;
        }
    }
    for (size_t i = 0; i < config->retry_join_count; i++) {
        struct membership_target *target;

        rc = membership_dial(membership, config->retry_join[i], &target, err);
        if (rc != 0) {
            membership_free(membership);
            return rc;
        }
    }
    membership->timer_ms = membership_now_ms(membership);
    (void)uv_timer_start(timer, membership_on_timer, MEMBERSHIP_PING_MS, MEMBERSHIP_PING_MS);
    *out = membership;
    return 0;
}

static void membership_on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

/* Says something to all that are there. */
static void membership_tell_all(struct membership *membership, uint8_t type, struct slice payload)
{
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        struct link *link = membership->targets[i].link;

        if (link != NULL && link_is_up(link)) {
            (void)link_send(link, type, payload); /* Lost: it counts as failed for longer. */
            link_flush(link);
        }
    }
}

void membership_leave(struct membership *membership)
{
    if (!membership->leaving) {
        membership_tell_all(membership, MEMBERSHIP_LEAVE, SLICE_EMPTY);
        membership->leaving = true;
    }
}

void membership_force_leave(struct membership *membership, const struct uuid *id)
{
    struct membership_entry *entry = membership_entry(membership, id);

    if (entry == NULL || entry->member.status != MEMBER_FAILED) {
        return;
    }
    membership_tell_all(membership, MEMBERSHIP_GONE,
                        slice_from((const char *)id->bytes, UUID_BYTES));
    membership_drop_learned(membership, id);
    membership_set_status(membership, entry, MEMBER_LEFT);
}

void membership_fresh(struct membership *membership, bool fresh)
{
    membership->entries[0].member.fresh = fresh;
}

void membership_led(struct membership *membership, bool led)
{
    struct member *self = &membership->entries[0].member;

    if (self->led != led) {
        self->led = led;
        membership_ping_all(membership);
    }
}

void membership_cluster_id(struct membership *membership, const struct uuid *id)
{
    membership->self.cluster_id = *id;
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        if (membership->targets[i].link != NULL) {
            link_identity_changed(membership->targets[i].link);
        }
    }
    if (membership->listener != NULL) {
        link_listener_identity_changed(membership->listener);
    }
}

void membership_free(struct membership *membership)
{
    if (membership == NULL) {
        return;
    }
    if (membership->server->leaving) {
        membership_leave(membership);
    }
    for (size_t i = 0; i < MEMBERSHIP_TARGETS_MAX; i++) {
        if (membership->targets[i].link != NULL) {
            membership_drop_target(&membership->targets[i]);
        }
    }
    link_listener_free(membership->listener);
    uv_close((uv_handle_t *)membership->timer, membership_on_timer_closed);
    buffer_deinit(&membership->scratch);
    free(membership);
}

size_t membership_count(const struct membership *membership)
{
    return membership->count;
}

const struct member *membership_at(const struct membership *membership, size_t position)
{
    assert(position < membership->count);
    return &membership->entries[position].member;
}

const struct member *membership_find(const struct membership *membership, const struct uuid *id)
{
    for (size_t i = 0; i < membership->count; i++) {
        if (uuid_equal(&membership->entries[i].member.id, id)) {
            return &membership->entries[i].member;
        }
    }
    return NULL;
}

void membership_join(struct membership *membership, const char *address,
                     void (*done)(void *context, const char *failure), void *context)
{
    struct membership_target *target;
    struct errmsg err;

    if (membership_dial(membership, address, &target, &err) != 0) {
        done(context, err.text);
        return;
    }
    target->join_done = done;
    target->join_context = context;
    target->join_deadline_ms = membership_now_ms(membership) + MEMBERSHIP_JOIN_MS;
}

void membership_choose(struct membership *membership, const struct uuid *id)
{
    struct member *self = &membership->entries[0].member;

    if (uuid_equal(&self->bootstrap_choice, id) ||
        membership_now_ms(membership) < membership->choose_from_ms) {
        return;
    }
    if (uuid_is_zero(&self->bootstrap_choice)) {
        self->bootstrap_choice = *id;
    } else {
        memset(&self->bootstrap_choice, 0, sizeof(self->bootstrap_choice));
        membership->choose_from_ms = membership_now_ms(membership) + MEMBERSHIP_CHOICE_MS;
    }
    membership_ping_all(membership);
}

void membership_bootstrapped(struct membership *membership)
{
    struct member *self = &membership->entries[0].member;

    if (self->bootstrap_expect == 0 && !self->bootstrap) {
        return;
    }
    self->bootstrap_expect = 0;
    self->bootstrap = false;
    membership_ping_all(membership);
}
