/* The replica's life and its turn: events into the core, updates out of it. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

static void replica_turn(struct replica *replica);

void replica_fatal(const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_write(LOG_ERROR, REPLICA_LOG, "%s; stopping, the other servers carry on", text);
    _exit(1);
}

uint64_t replica_now_ms(const struct replica *replica)
{
    return uv_now(replica->server->loop) + replica->suspended_ms;
}

static int64_t replica_clock_ns(clockid_t clock)
{
    struct timespec now;

    (void)clock_gettime(clock, &now); /* Cannot fail with the clocks that we ask for. */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* libuv's clock, CLOCK_MONOTONIC, stands still while the machine is suspended, and a leader that
 * wakes up would think that its lease still holds. What was slept is added. The two clocks are not
 * read at one moment: here and at the start they are read in that order in which a delay between
 * them makes the sleep seem shorter, never longer, since a voter must not think that a lease that
 * it granted has run out. */
static void replica_note_suspend(struct replica *replica)
{
    const int64_t boottime_ns = replica_clock_ns(CLOCK_BOOTTIME);
    const int64_t ahead_ns = boottime_ns - replica_clock_ns(CLOCK_MONOTONIC);
    const int64_t suspended_ms = (ahead_ns - replica->boottime_ahead_ns) / 1000000;

    if (suspended_ms > 0 && (uint64_t)suspended_ms > replica->suspended_ms) {
        replica->suspended_ms = (uint64_t)suspended_ms;
    }
}

/* libuv reads the clock once per pass of the loop. If the process is stopped amid a pass, requests
 * that were made after the stop are seen with a time from before it, when our lease still held, or
 * a leader's message looks older than it is. A long gap shows the stop: what clients sent meanwhile
 * waits in the sockets, so nobody's session may be judged by the time that has passed. */
uint64_t replica_clock_ms(struct replica *replica)
{
    uint64_t now_ms;

    uv_update_time(replica->server->loop);
    replica_note_suspend(replica);
    now_ms = replica_now_ms(replica);
    if (replica->seen_ms != 0 && now_ms - replica->seen_ms > REPLICA_PAUSE_MS) {
        log_write(LOG_WARN, REPLICA_LOG, "this server was paused, extending sessions: pause=%llums",
                  (unsigned long long)(now_ms - replica->seen_ms));
        session_timers_extend(replica->timers, now_ms - replica->seen_ms);
    }
    replica->seen_ms = now_ms;
    return now_ms;
}

/* --- waking --- */

static void replica_on_idle(uv_idle_t *idle)
{
    (void)idle; /* Its being active makes the loop poll without waiting. */
}

/* Makes sure that a turn comes in this pass of the loop or the next. */
void replica_wake(struct replica *replica)
{
    if (!replica->stopping && !uv_is_active((uv_handle_t *)replica->idle)) {
        (void)uv_idle_start(replica->idle, replica_on_idle);
    }
}

static void replica_on_check(uv_check_t *check)
{
    replica_turn(check->data);
}

static void replica_on_timer(uv_timer_t *timer)
{
    replica_wake(timer->data);
}

static void replica_on_durable_async(uv_async_t *async)
{
    struct replica *replica = async->data;
    const struct raft_event event = {.type = RAFT_EVENT_PERSISTED,
                                     .now_ms = replica_clock_ms(replica),
                                     .sequence = atomic_load(&replica->durable_sequence)};
    int rc;

    if (event.sequence > 0) {
        replica_step(replica, &event, &rc);
    }
}

/* --- the log's callbacks, on the writer's thread --- */

void replica_on_durable(void *host, uint64_t sequence)
{
    struct replica *replica = host;

    atomic_store(&replica->durable_sequence, sequence);
    (void)uv_async_send(replica->durable_async);
}

void replica_on_log_failed(void *host, const char *message)
{
    (void)host;
    replica_fatal("the Raft log cannot be written: %s", message);
}

void replica_on_log_full(void *host, bool full)
{
    struct replica *replica = host;

    atomic_store(&replica->log_full, full);
    log_write(full ? LOG_ERROR : LOG_INFO, REPLICA_LOG,
              full ? "the disk of the Raft log is full, or this process has too many open files: "
                     "writes are refused until that is over"
                   : "the Raft log can be written again");
}

bool replica_log_entry(struct replica *replica, raft_index index, struct raft_entry *out)
{
    const int rc = wal_entry(replica->wal, index, out);
    const uint64_t now_ms = replica_now_ms(replica);

    if (rc == WAL_OK) {
        return true;
    }
    if (rc != WAL_EAGAIN) {
        replica_fatal("entry %llu cannot be read from the Raft log: %s", (unsigned long long)index,
                      wal_strerror(rc));
    }
    if (now_ms >= replica->log_unread_told_ms) {
        replica->log_unread_told_ms = now_ms + REPLICA_STALL_RETRY_MS;
        log_write(LOG_ERROR, REPLICA_LOG,
                  "entry %llu cannot be read from the Raft log, will retry: %s",
                  (unsigned long long)index, wal_strerror(rc));
    }
    return false;
}

/* --- updates of the core --- */

static void replica_send(struct replica *replica, const struct raft_message *message)
{
    struct buffer *out = &replica->scratch;
    struct raft_message sent = *message;

    if (!peers_is_up(replica->peers, sent.to) || !replica_fresh_sends(replica, message)) {
        return; /* Not worth reading the entries for. */
    }
    buffer_clear(out);
    if (sent.entry_count > MESSAGE_ENTRIES_MAX) {
        sent.entry_count = MESSAGE_ENTRIES_MAX; /* The follower acknowledges what it got. */
    }
    message_put_raft(out, &sent);
    for (size_t i = 0; i < sent.entry_count; i++) {
        struct raft_entry entry;
        const raft_index index = sent.prev_index + 1 + i;

        if (!replica_log_entry(replica, index, &entry)) {
            return; /* As if it were lost on the way: the next heartbeat finds what is missing. */
        }
        message_put_entry(out, &entry);
    }
    if (!out->failed) {
        (void)peers_send(replica->peers, sent.to, MESSAGE_RAFT, buffer_slice(out));
    }
}

static const char *replica_server_name(const struct replica *replica, raft_id id, char *out,
                                       size_t out_bytes)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);

    for (size_t i = 0; i < configuration->count; i++) {
        struct replica_server_info info;

        if (configuration->servers[i].id == id &&
            replica_server_info(&configuration->servers[i], &info)) {
            (void)snprintf(out, out_bytes, "%s", info.name);
            return out;
        }
    }
    /* A server that has just joined has no configuration yet. */
    const struct member *member = replica_member(replica, id);

    if (member == NULL) {
        return "unknown";
    }
    (void)snprintf(out, out_bytes, "%s", member->name);
    return out;
}

/* Who waits for another server is told in the turn: this may be amid a proposal of theirs. */
static void replica_note_news(struct replica *replica)
{
    replica->news = true;
    replica_wake(replica);
}

static void replica_tell_news(struct replica *replica)
{
    if (!replica->news) {
        return;
    }
    replica->news = false;
    replica_write_leader_changed(replica);
    replica_read_leader_changed(replica);
    replica_session_leader_changed(replica);
    if (replica->server->agent != NULL) {
        agent_members_changed(replica->server->agent);
    }
}

static void replica_leadership_changed(struct replica *replica, const struct raft_update *update)
{
    const raft_term term = raft_term_now(replica->raft);
    const bool was_leader = replica->role == RAFT_LEADER;
    char name[LINK_NAME_BYTES_MAX];

    if (update->role == RAFT_LEADER && (!was_leader || term != replica->term)) {
        log_write(LOG_INFO, REPLICA_LOG, "election won, entering leader state: term=%llu",
                  (unsigned long long)term);
        replica->start_pending = true;
    } else if (was_leader && update->role != RAFT_LEADER) {
        log_write(LOG_WARN, REPLICA_LOG, "left leader state: term=%llu", (unsigned long long)term);
    }
    if (update->role == RAFT_CANDIDATE && replica->role != RAFT_CANDIDATE) {
        log_write(LOG_INFO, REPLICA_LOG, "entering candidate state: term=%llu",
                  (unsigned long long)term);
    }
    if (update->leader != replica->leader && update->leader != 0) {
        log_write(LOG_INFO, "agent.server", "new leader elected: leader=%s term=%llu",
                  replica_server_name(replica, update->leader, name, sizeof(name)),
                  (unsigned long long)term);
    }
    const bool news =
        update->role != replica->role || update->leader != replica->leader || term != replica->term;

    if (update->role != replica->role) {
        replica_metrics_role(replica, update->role);
    }
    replica->role = update->role;
    replica->leader = update->leader;
    replica->term = term;
    if (news) {
        replica_note_news(replica);
    }
}

/* Does what the core asks for; entries are made readable before the messages that carry them. */
void replica_take(struct replica *replica, const struct raft_update *update)
{
    if (update->sequence != 0) {
        const struct wal_write write = {.sequence = update->sequence,
                                        .hard_state_changed = update->hard_state_changed,
                                        .term = update->term,
                                        .vote = update->vote,
                                        .reset_index = update->reset_index,
                                        .reset_term = update->reset_term,
                                        .truncate_from = update->truncate_from,
                                        .entries = update->entries,
                                        .entry_count = update->entry_count};
        const int rc = wal_write(replica->wal, &write);

        if (rc != WAL_OK) {
            replica_fatal("the Raft log takes no more: %s", wal_strerror(rc));
        }
    }
    for (size_t i = 0; i < update->message_count; i++) {
        replica_send(replica, &update->messages[i]);
    }
    assert(update->apply_index >= replica->applied_index);
    replica->apply_index = update->apply_index;
    replica->raft_deadline_ms = update->deadline_ms;
    if (update->leadership_changed) {
        replica_leadership_changed(replica, update);
    }
    for (size_t i = 0; i < update->read_count; i++) {
        replica_read_answered(replica, &update->reads[i]);
    }
    if (update->configuration_changed) {
        replica_bootstrap_dial(replica);
    }
    if (update->snapshot_from != 0) {
        replica_snapshot_want(replica, update->snapshot_from, update->snapshot_index);
    }
    if (!replica->in_turn) {
        replica_wake(replica);
    }
}

/* One event through the core. `*rc` is the core's answer; on an error nothing has changed. */
void replica_step(struct replica *replica, const struct raft_event *event, int *rc)
{
    struct raft_update update;

    memset(&update, 0, sizeof(update));
    *rc = raft_step(replica->raft, event, &update);
    if (*rc == RAFT_OK) {
        replica_take(replica, &update);
    } else if (*rc == RAFT_ENOMEM) {
        replica_fatal("out of memory");
    }
}

/* --- the turn --- */

static void replica_tick(struct replica *replica, uint64_t now_ms)
{
    const struct raft_event event = {.type = RAFT_EVENT_TICK, .now_ms = now_ms};
    int rc;

    if (now_ms >= replica->raft_deadline_ms) {
        replica_step(replica, &event, &rc);
    }
}

static void replica_schedule(struct replica *replica)
{
    const uint64_t now_ms = replica_now_ms(replica);
    uint64_t due_ms = replica->raft_deadline_ms;

    if (replica_session_next_ms(replica) < due_ms) {
        due_ms = replica_session_next_ms(replica);
    }
    if ((replica_write_pending(replica) || replica_read_pending(replica) ||
         replica_session_pending(replica) || replica->apply_stalled ||
         replica->hand_over_done != NULL || replica->requests.first != NULL ||
         replica->role == RAFT_LEADER) &&
        now_ms + REPLICA_SWEEP_MS < due_ms) {
        due_ms = now_ms + REPLICA_SWEEP_MS;
    }
    if (due_ms < now_ms) {
        due_ms = now_ms;
    }
    if (due_ms > now_ms + REPLICA_WAKE_MS) {
        due_ms = now_ms + REPLICA_WAKE_MS;
    }
    (void)uv_timer_start(replica->timer, replica_on_timer, due_ms - now_ms, 0);
}

/* The gathering point: once per pass of the loop, after its I/O. */
static void replica_turn(struct replica *replica)
{
    uint64_t now_ms;

    if (!uv_is_active((uv_handle_t *)replica->idle) || replica->stopping) {
        return; /* Nothing has happened. */
    }
    (void)uv_idle_stop(replica->idle); /* Calls from outside during the turn start it again. */
    replica->in_turn = true;
    now_ms = replica_clock_ms(replica);
    replica_tick(replica, now_ms);
    replica_tell_news(replica);
    replica_write_turn(replica);
    replica_read_turn(replica);
    replica_session_turn(replica);
    peers_flush(replica->peers); /* Before the applying: the others need not wait for it. */
    replica_apply(replica);
    if (now_ms - replica->last_sweep_ms >= REPLICA_SWEEP_MS) {
        replica->last_sweep_ms = now_ms;
        replica_disk_turn(replica, now_ms);
        replica_space_turn(replica, now_ms);
        replica_write_sweep(replica, now_ms);
        replica_read_sweep(replica, now_ms);
        replica_session_sweep(replica, now_ms);
        replica_bootstrap_consider(replica);
        replica_cluster_turn(replica);
        replica_autopilot_turn(replica, now_ms);
        replica_membership_turn(replica, now_ms);
    }
    replica_operator_turn(replica, now_ms);
    replica_session_expire(replica, now_ms);
    replica_session_reap(replica);
    replica_snapshot_turn(replica, now_ms);
    peers_flush(replica->peers);
    replica_hand_over_check(replica, now_ms);
    replica_schedule(replica);
    replica->in_turn = false;
    if (replica_apply_pending(replica)) {
        replica_wake(replica);
    }
}

/* --- peers --- */

static void replica_on_raft(struct replica *replica, raft_id from, struct slice payload)
{
    struct raft_message message;
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .now_ms = replica_clock_ms(replica)};
    int rc;

    if (!message_get_raft(payload, &message, replica->entries) || message.from != from ||
        message.to != replica->id) {
        log_write(LOG_WARN, REPLICA_LOG, "dropped a malformed Raft message");
        return;
    }
    if (!replica_fresh_takes(replica, &message)) {
        return;
    }
    event.message = &message;
    event.entries = replica->entries;
    event.entry_count = message.entry_count;
    replica_step(replica, &event, &rc);
    if (rc == RAFT_EINVAL) {
        log_write(LOG_WARN, REPLICA_LOG, "refused an impossible Raft message: type=%d term=%llu",
                  (int)message.type, (unsigned long long)message.term);
    } else if (rc == RAFT_OK) {
        replica_fresh_heard(replica, &message);
    }
    if (replica->server->membership != NULL && raft_last_index(replica->raft) > 0) {
        membership_bootstrapped(replica->server->membership);
    }
}

static void replica_on_frame(void *host, raft_id from, uint8_t type, struct slice payload)
{
    struct replica *replica = host;

    if (replica->stopping) {
        return;
    }
    switch (type) {
    case MESSAGE_RAFT:
        replica_on_raft(replica, from, payload);
        break;
    case MESSAGE_PROPOSE:
        replica_on_propose(replica, from, payload);
        break;
    case MESSAGE_PROPOSED:
        replica_on_proposed(replica, payload);
        break;
    case MESSAGE_READ:
        replica_on_read(replica, from, payload);
        break;
    case MESSAGE_READ_AT:
        replica_on_read_at(replica, payload);
        break;
    case MESSAGE_RENEW:
        replica_on_renew(replica, from, payload);
        break;
    case MESSAGE_RENEWED:
        replica_on_renewed(replica, payload);
        break;
    case MESSAGE_OPERATE:
        replica_on_operate(replica, from, payload);
        break;
    case MESSAGE_OPERATED:
        replica_on_operated(replica, from, payload);
        break;
    case MESSAGE_SPACE:
        replica_on_space(replica, from, payload);
        break;
    case MESSAGE_EVENT:
        events_receive(replica->server->events, payload);
        break;
    case MESSAGE_SNAPSHOT_GET:
        replica_on_snapshot_get(replica, from, payload);
        break;
    case MESSAGE_SNAPSHOT_CHUNK:
        replica_on_snapshot_chunk(replica, from, payload);
        break;
    default:
        break; /* From a newer version. */
    }
    replica_wake(replica);
}

void replica_spread_event(void *context, struct slice bytes)
{
    struct replica *replica = context;

    if (!replica->stopping) {
        peers_send_all(replica->peers, MESSAGE_EVENT, bytes);
        replica_wake(replica); /* The turn's end writes it. */
    }
}

struct replica_replay {
    struct replica *replica;
    raft_id to;
};

static void replica_replay_event(void *context, struct slice bytes)
{
    const struct replica_replay *replay = context;

    (void)peers_send(replay->replica->peers, replay->to, MESSAGE_EVENT, bytes);
}

static void replica_on_peer_up(void *host, raft_id id)
{
    struct replica *replica = host;
    struct replica_replay replay = {.replica = replica, .to = id};

    events_replay(replica->server->events, uv_now(replica->server->loop), replica_replay_event,
                  &replay);
    replica_space_peer_up(replica, id);

    if (id == replica->leader) {
        replica->reads_dirty = true;
    }
    replica_wake(replica);
}

static void replica_on_peer_down(void *host, raft_id id)
{
    struct replica *replica = host;
    const struct raft_event event = {
        .type = RAFT_EVENT_PEER_LOST, .now_ms = replica_clock_ms(replica), .peer = id};
    int rc;

    if (replica->stopping) {
        return;
    }
    replica_write_peer_lost(replica, id);
    replica_operator_peer_lost(replica, id);
    if (id == replica->leader) {
        replica_note_news(replica); /* What it was asked, or its answer, may be lost. */
    }
    if (!peers_is_up(replica->peers, id)) {
        replica_space_forget(replica, id);
        /* A process that died takes our own connection to it along: theirs alone proves nothing. */
        replica_step(replica, &event, &rc);
    }
}

/* --- opening --- */

static int replica_open_peers(struct replica *replica, struct errmsg *err)
{
    const struct config *config = replica->server->config;
    struct link_identity self = {.id = replica->server->node_id,
                                 .cluster_id = replica->server->cluster_id,
                                 .serf_port = (uint16_t)config->serf_lan_port,
                                 .server_port = (uint16_t)config->server_port};
    const struct peers_handlers handlers = {.host = replica,
                                            .on_frame = replica_on_frame,
                                            .on_up = replica_on_peer_up,
                                            .on_down = replica_on_peer_down};

    (void)snprintf(self.name, sizeof(self.name), "%s", config->node_name);
    (void)snprintf(self.datacenter, sizeof(self.datacenter), "%s", config->datacenter);
    (void)snprintf(self.address, sizeof(self.address), "%s", config->advertise_addr);
    return peers_new(replica->server->loop, config->bind_addr, self.server_port, &self, &handlers,
                     &replica->peers, err);
}

static int replica_open_handles(struct replica *replica, struct errmsg *err)
{
    uv_loop_t *loop = replica->server->loop;

    replica->durable_async = calloc(1, sizeof(*replica->durable_async));
    replica->check = calloc(1, sizeof(*replica->check));
    replica->idle = calloc(1, sizeof(*replica->idle));
    replica->timer = calloc(1, sizeof(*replica->timer));
    if (replica->durable_async == NULL || replica->check == NULL || replica->idle == NULL ||
        replica->timer == NULL ||
        uv_async_init(loop, replica->durable_async, replica_on_durable_async) != 0) {
        free(replica->durable_async);
        free(replica->check);
        free(replica->idle);
        free(replica->timer);
        replica->durable_async = NULL;
        return errmsg_set(err, STORE_ENOMEM, "cannot set up the loop");
    }
    (void)uv_check_init(loop, replica->check);
    (void)uv_idle_init(loop, replica->idle);
    (void)uv_timer_init(loop, replica->timer);
    replica->durable_async->data = replica;
    replica->check->data = replica;
    replica->idle->data = replica;
    replica->timer->data = replica;
    (void)uv_check_start(replica->check, replica_on_check);
    return 0;
}

int replica_new(struct server *server, struct replica **out, struct errmsg *err)
{
    struct replica *replica = calloc(1, sizeof(*replica));
    int rc;

    if (replica == NULL) {
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    replica->server = server;
    replica->id = peers_id(&server->node_id);
    replica->boottime_ahead_ns = -replica_clock_ns(CLOCK_MONOTONIC);
    replica->boottime_ahead_ns += replica_clock_ns(CLOCK_BOOTTIME);
    /* An answer that was meant for this server before it was restarted fits no request of now. */
    server_random(&replica->last_request, sizeof(replica->last_request));
    replica->entries = calloc(MESSAGE_ENTRIES_MAX, sizeof(*replica->entries));
    replica->batch = calloc(REPLICA_BATCH_MAX, sizeof(*replica->batch));
    rc = session_timers_new(&replica->timers);
    if (rc != STORE_OK || replica->entries == NULL || replica->batch == NULL) {
        rc = errmsg_set(err, STORE_ENOMEM, "out of memory");
        goto fail;
    }
    rc = replica_open_handles(replica, err);
    if (rc == 0) {
        rc = replica_open(replica, err);
    }
    if (rc == 0) {
        rc = replica_open_peers(replica, err);
    }
    if (rc != 0) {
        goto fail;
    }
    replica->started = true;
    server->replica = replica;
    replica_bootstrap_dial(replica);
    replica_bootstrap_consider(replica);
    replica_wake(replica);
    *out = replica;
    return 0;

fail:
    replica_free(replica);
    return rc;
}

/* --- closing --- */

static void replica_on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void replica_close_handles(struct replica *replica)
{
    if (replica->durable_async == NULL) {
        return;
    }
    uv_close((uv_handle_t *)replica->durable_async, replica_on_closed);
    uv_close((uv_handle_t *)replica->check, replica_on_closed);
    uv_close((uv_handle_t *)replica->idle, replica_on_closed);
    uv_close((uv_handle_t *)replica->timer, replica_on_closed);
    replica->durable_async = NULL;
}

static void replica_remove_memory_dir(struct replica *replica)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "boot", "clean", "mark", NULL};

    for (size_t i = 0; names[i] != NULL; i++) {
        char path[128];

        (void)snprintf(path, sizeof(path), "%s/%s", replica->memory_dir, names[i]);
        (void)unlink(path); /* Some are not there. */
    }
    if (rmdir(replica->memory_dir) != 0) {
        log_write(LOG_WARN, REPLICA_LOG, "cannot remove %s: %s", replica->memory_dir,
                  strerror(errno));
    }
}

void replica_stop(struct replica *replica)
{
    if (replica->stopping) {
        return;
    }
    replica->stopping = true;
    do { /* Those who are answered may ask for more. */
        replica_write_stop(replica);
        replica_read_stop(replica);
        replica_session_stop(replica);
        replica_operator_stop(replica);
    } while (replica_write_pending(replica) || replica_read_pending(replica) ||
             replica_session_pending(replica) || replica->requests.first != NULL);
    replica_snapshot_stop(replica);
    peers_free(replica->peers);
    replica->peers = NULL;
    wal_close(replica->wal); /* Its thread uses the async handle until here. */
    replica->wal = NULL;
    replica_close_handles(replica);
}

void replica_free(struct replica *replica)
{
    if (replica == NULL) {
        return;
    }
    replica_stop(replica);
    raft_free(replica->raft);
    snapshot_dir_close(replica->snapshots);
    store_close(replica->server->store);
    replica->server->store = NULL;
    if (replica->memory_dir[0] != 0) {
        replica_remove_memory_dir(replica);
    }
    session_timers_free(replica->timers);
    buffer_deinit(&replica->remote_bytes);
    buffer_deinit(&replica->scratch);
    buffer_deinit(&replica->command);
    free(replica->remote);
    free(replica->entries);
    free(replica->batch);
    if (replica->server->replica == replica) {
        replica->server->replica = NULL;
    }
    free(replica);
}

/* --- looking in --- */

bool replica_is_leader(const struct replica *replica)
{
    return replica->role == RAFT_LEADER;
}

void replica_leader_address(const struct replica *replica, char *out, size_t out_bytes)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);

    assert(out_bytes > 0);
    out[0] = 0;
    for (size_t i = 0; i < configuration->count; i++) {
        struct replica_server_info info;

        if (configuration->servers[i].id == replica->leader &&
            replica_server_info(&configuration->servers[i], &info)) {
            (void)snprintf(out, out_bytes, "%s", info.address);
        }
    }
}

size_t replica_peers(const struct replica *replica, struct replica_peer *out, size_t out_max)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);
    size_t count = 0;

    for (size_t i = 0; i < configuration->count && count < out_max; i++) {
        struct replica_peer *peer = &out[count];
        struct replica_server_info info;

        if (!replica_server_info(&configuration->servers[i], &info)) {
            continue;
        }
        uuid_format(&info.node_id, peer->id);
        (void)snprintf(peer->name, sizeof(peer->name), "%s", info.name);
        (void)snprintf(peer->address, sizeof(peer->address), "%s", info.address);
        peer->voter = configuration->servers[i].voter;
        peer->leader = configuration->servers[i].id == replica->leader;
        count++;
    }
    return count;
}

void replica_stats(const struct replica *replica, struct replica_stats *out)
{
    struct wal_stats log;

    out->term = raft_term_now(replica->raft);
    out->commit_index = raft_commit_index(replica->raft);
    out->applied_index = replica->applied_index;
    out->last_index = raft_last_index(replica->raft);
    out->log_bytes = wal_disk_bytes(replica->wal);
    out->log_pending_bytes = wal_pending_bytes(replica->wal);
    out->log_full = atomic_load(&replica->log_full);
    wal_stats(replica->wal, &log);
    out->log_sync_us_max = log.sync_us_max;
    out->state = replica->role == RAFT_LEADER     ? "Leader"
                 : replica->role == RAFT_FOLLOWER ? "Follower"
                                                  : "Candidate";
}

uint64_t replica_peers_index(const struct replica *replica)
{
    return raft_configuration(replica->raft)->index;
}
