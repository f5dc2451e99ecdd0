/* Snapshots in a running replica: taking them so that the log stays short, sending them to servers
 * that need one, and fetching and installing one. The files are server/snapshot's; workers of
 * libuv's pool do what takes long. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

#define SNAPSHOT_LOG "agent.server.snapshot"

enum snapshot_step { SNAPSHOT_TAKE, SNAPSHOT_FINISH, SNAPSHOT_LOAD };

/* What a worker does, and with what. */
struct replica_snapshot_work {
    uv_work_t request;
    struct replica *replica;
    enum snapshot_step step;
    struct snapshot_dir *dir;
    struct store *store;
    struct snapshot_task task;
    struct snapshot_writer *writer;
    struct snapshot_receive *receive;
    struct snapshot_meta meta;
    uint64_t start_ms;
    int rc;
    struct errmsg err;
};

/* --- workers --- */

static void snapshot_on_work(uv_work_t *request)
{
    struct replica_snapshot_work *work = request->data;

    switch (work->step) {
    case SNAPSHOT_TAKE:
        work->rc = snapshot_writer_run(work->writer, &work->task, &work->meta, &work->err);
        break;
    case SNAPSHOT_FINISH:
        work->rc = snapshot_receive_finish(work->receive, &work->meta, &work->err);
        break;
    case SNAPSHOT_LOAD:
        work->rc = snapshot_load(work->dir, &work->meta, work->store, &work->task, &work->err);
        break;
    }
}

static void snapshot_taken(struct replica *replica, struct replica_snapshot_work *work);
static void snapshot_finished(struct replica *replica, struct replica_snapshot_work *work);
static void snapshot_loaded(struct replica *replica, struct replica_snapshot_work *work);

static void snapshot_on_worked(uv_work_t *request, int status)
{
    struct replica_snapshot_work *work = request->data;
    struct replica *replica = work->replica;

    (void)status;
    replica->snapshot_work = NULL;
    if (!replica->stopping) {
        switch (work->step) {
        case SNAPSHOT_TAKE:
            snapshot_taken(replica, work);
            break;
        case SNAPSHOT_FINISH:
            snapshot_finished(replica, work);
            break;
        case SNAPSHOT_LOAD:
            snapshot_loaded(replica, work);
            break;
        }
        replica_wake(replica);
    }
    snapshot_writer_free(work->writer);
    snapshot_receive_free(work->receive);
    free(work);
}

/* Begins work; takes `writer` and `receive`. */
static void snapshot_start(struct replica *replica, enum snapshot_step step,
                           struct snapshot_writer *writer, struct snapshot_receive *receive,
                           const struct snapshot_meta *meta)
{
    struct replica_snapshot_work *work = calloc(1, sizeof(*work));

    assert(replica->snapshot_work == NULL);
    if (work == NULL) {
        replica_fatal("out of memory");
    }
    work->request.data = work;
    work->replica = replica;
    work->step = step;
    work->start_ms = replica_now_ms(replica);
    work->dir = replica->snapshots;
    work->store = replica->server->store;
    work->writer = writer;
    work->receive = receive;
    if (meta != NULL) {
        work->meta = *meta;
    }
    replica->snapshot_work = work;
    if (uv_queue_work(replica->server->loop, &work->request, snapshot_on_work,
                      snapshot_on_worked) != 0) {
        replica_fatal("cannot start a worker");
    }
}

/* --- workers of others --- */

void replica_store_hold(struct replica *replica)
{
    replica->store_holds++;
}

void replica_store_release(struct replica *replica)
{
    assert(replica->store_holds > 0);
    replica->store_holds--;
}

bool replica_configuration(const struct replica *replica, struct raft_configuration *out)
{
    const struct raft_configuration *configuration =
        raft_configuration_at(replica->raft, replica->applied_index);

    if (configuration == NULL) {
        return false;
    }
    *out = *configuration;
    return true;
}

/* --- taking --- */

/* The log may forget what a durable snapshot holds, but for a tail that lagging servers can still
 * be served from. */
static void snapshot_trim_log(struct replica *replica)
{
    const raft_index trailing = replica->server->config->raft_trailing_logs;
    char message[WAL_ERROR_BYTES_MAX];
    raft_index keep = replica->newest.index;

    wal_snapshot_synced(replica->wal, replica->newest.index, replica->newest.term);
    if (keep <= trailing) {
        return;
    }
    keep -= trailing;
    if (raft_compact(replica->raft, keep) != RAFT_OK) {
        return; /* Not durable here yet: the next snapshot will do. */
    }
    if (wal_trim(replica->wal, keep + 1, message) != WAL_OK) {
        log_write(LOG_WARN, SNAPSHOT_LOG, "cannot trim the log: %s", message);
    }
}

static void snapshot_taken(struct replica *replica, struct replica_snapshot_work *work)
{
    if (work->rc != SNAPSHOT_OK) {
        log_write(LOG_ERROR, SNAPSHOT_LOG, "cannot take a snapshot, will be tried again: %s",
                  work->err.text);
        return;
    }
    replica->newest = work->meta;
    metrics_count(replica->server->metrics, METRIC_RAFT_SNAPSHOT_CREATE, 1);
    log_write(LOG_INFO, SNAPSHOT_LOG, "snapshot taken: index=%llu term=%llu bytes=%llu",
              (unsigned long long)work->meta.index, (unsigned long long)work->meta.term,
              (unsigned long long)work->meta.bytes);
    snapshot_trim_log(replica);
}

static void snapshot_consider(struct replica *replica, uint64_t now_ms)
{
    const struct config *config = replica->server->config;
    const struct raft_configuration *configuration;
    struct snapshot_writer *writer;
    struct errmsg err;

    if (now_ms < replica->snapshot_next_ms) {
        return;
    }
    replica->snapshot_next_ms = now_ms + config->raft_snapshot_interval_ms;
    if (replica->applied_index < replica->newest.index + config->raft_snapshot_threshold) {
        return;
    }
    configuration = raft_configuration_at(replica->raft, replica->applied_index);
    if (configuration == NULL) {
        return; /* It changes just now. */
    }
    if (snapshot_writer_begin(replica->snapshots, replica->server->store, configuration, &writer,
                              &err) != SNAPSHOT_OK) {
        log_write(LOG_ERROR, SNAPSHOT_LOG, "cannot take a snapshot, will be tried again: %s",
                  err.text);
        return;
    }
    snapshot_start(replica, SNAPSHOT_TAKE, writer, NULL, NULL);
}

/* --- sending --- */

/* Answers with a piece of the newest snapshot; whoever asks for another one's sees by the head that
 * it has to begin anew. The file was written not long ago or is being read by another one: it comes
 * from the page cache. */
void replica_on_snapshot_get(struct replica *replica, raft_id from, struct slice payload)
{
    const struct snapshot_meta *newest = &replica->newest;
    struct message_snapshot asked;
    struct snapshot_file file;
    struct errmsg err;
    size_t got = 0;
    char *chunk;

    if (!message_get_snapshot(payload, &asked)) {
        log_write(LOG_WARN, SNAPSHOT_LOG, "dropped a malformed question for a snapshot");
        return;
    }
    if (newest->index == 0) {
        return; /* The core asks for what is there; it was not there yet. */
    }
    if (snapshot_file_open(replica->snapshots, newest, &file, &err) != SNAPSHOT_OK) {
        log_write(LOG_ERROR, SNAPSHOT_LOG, "cannot send the snapshot: %s", err.text);
        return;
    }
    struct message_snapshot answer = {.index = newest->index,
                                      .term = newest->term,
                                      .bytes = newest->bytes,
                                      .checksum = newest->checksum};
    const bool same = asked.index == newest->index && asked.term == newest->term &&
                      asked.bytes == newest->bytes && asked.checksum == newest->checksum;

    answer.offset = same ? asked.offset : 0;
    chunk = malloc(REPLICA_SNAPSHOT_CHUNK_BYTES);
    if (chunk != NULL &&
        snapshot_file_read(&file, answer.offset, chunk, REPLICA_SNAPSHOT_CHUNK_BYTES, &got, &err) ==
            SNAPSHOT_OK) {
        answer.data = slice_from(chunk, got);
        buffer_clear(&replica->scratch);
        message_put_snapshot(&replica->scratch, &answer);
        (void)peers_send(replica->peers, from, MESSAGE_SNAPSHOT_CHUNK,
                         buffer_slice(&replica->scratch)); /* Lost: it asks again. */
    }
    free(chunk);
    snapshot_file_close(&file);
}

/* --- fetching --- */

static void snapshot_ask(struct replica *replica, uint64_t now_ms)
{
    struct message_snapshot question = {.index = replica->fetch.meta.index,
                                        .term = replica->fetch.meta.term,
                                        .bytes = replica->fetch.meta.bytes,
                                        .checksum = replica->fetch.meta.checksum,
                                        .data = SLICE_EMPTY};

    if (replica->fetch.receive != NULL) {
        question.offset = snapshot_receive_offset(replica->fetch.receive);
    }
    replica->fetch.asked_ms = now_ms;
    buffer_clear(&replica->scratch);
    message_put_snapshot(&replica->scratch, &question);
    (void)peers_send(replica->peers, replica->fetch.from, MESSAGE_SNAPSHOT_GET,
                     buffer_slice(&replica->scratch));
}

static void snapshot_fetch_end(struct replica *replica)
{
    snapshot_receive_free(replica->fetch.receive);
    memset(&replica->fetch, 0, sizeof(replica->fetch));
}

/* As a rule there is no room for it. The core asks for it again all the time. */
static void snapshot_fetch_failed(struct replica *replica, const struct errmsg *err)
{
    const uint64_t now_ms = replica_now_ms(replica);

    replica->fetch_retry_ms = now_ms + REPLICA_SNAPSHOT_RETRY_MS;
    if (now_ms >= replica->fetch_tell_ms) {
        replica->fetch_tell_ms = now_ms + REPLICA_SNAPSHOT_TELL_MS;
        log_write(LOG_ERROR, SNAPSHOT_LOG, "cannot receive a snapshot, will be tried again: %s",
                  err->text);
    }
    snapshot_fetch_end(replica);
}

/* The core needs `from`'s snapshot, of `index` or later; told again and again while that is so. */
void replica_snapshot_want(struct replica *replica, raft_id from, raft_index index)
{
    const uint64_t now_ms = replica_now_ms(replica);

    if (replica->snapshots == NULL || replica->fetch.from != 0 || replica->snapshot_work != NULL ||
        replica->load_waits.index > 0 || replica->stopping || now_ms < replica->fetch_retry_ms) {
        return;
    }
    if (now_ms >= replica->fetch_tell_ms) {
        log_write(LOG_INFO, SNAPSHOT_LOG, "fetching a snapshot from the leader: index>=%llu",
                  (unsigned long long)index);
    }
    replica->fetch.from = from;
    replica->fetch.index = index;
    snapshot_ask(replica, now_ms);
}

/* The first piece of another snapshot than the one that is being received: begin with that one. */
static bool snapshot_fetch_begin(struct replica *replica, const struct message_snapshot *chunk)
{
    struct snapshot_meta offer = {.index = chunk->index,
                                  .term = chunk->term,
                                  .bytes = chunk->bytes,
                                  .checksum = chunk->checksum};
    struct errmsg err;

    if (replica->fetch.receive != NULL && replica->fetch.meta.index == offer.index &&
        replica->fetch.meta.term == offer.term && replica->fetch.meta.bytes == offer.bytes &&
        replica->fetch.meta.checksum == offer.checksum) {
        return true;
    }
    snapshot_receive_free(replica->fetch.receive);
    replica->fetch.receive = NULL;
    replica->fetch.meta = offer;
    if (snapshot_receive_begin(replica->snapshots, &offer, &replica->fetch.receive, &err) !=
        SNAPSHOT_OK) {
        snapshot_fetch_failed(replica, &err);
        return false;
    }
    return true;
}

void replica_on_snapshot_chunk(struct replica *replica, raft_id from, struct slice payload)
{
    struct message_snapshot chunk;
    struct snapshot_receive *receive;
    struct errmsg err;
    int rc;

    if (!message_get_snapshot(payload, &chunk)) {
        log_write(LOG_WARN, SNAPSHOT_LOG, "dropped a malformed piece of a snapshot");
        return;
    }
    if (from != replica->fetch.from || chunk.index < replica->fetch.index ||
        !snapshot_fetch_begin(replica, &chunk)) {
        return;
    }
    rc = snapshot_receive_chunk(replica->fetch.receive, chunk.offset, chunk.data, &err);
    if (rc != SNAPSHOT_OK && rc != SNAPSHOT_EINVAL) {
        snapshot_fetch_failed(replica, &err);
        return;
    }
    if (!snapshot_receive_complete(replica->fetch.receive)) {
        snapshot_ask(replica, replica_now_ms(replica));
        return;
    }
    if (replica->snapshot_work != NULL) {
        return; /* One of our own is being written: the question is asked again, and answered so
                   again. */
    }
    receive = replica->fetch.receive;
    replica->fetch.receive = NULL;
    snapshot_fetch_end(replica);
    snapshot_start(replica, SNAPSHOT_FINISH, NULL, receive, NULL);
}

/* --- installing --- */

/* The file is checked and durable. The core forgets the log before it, and only then the state is
 * replaced: a crash in between is made up for by the next start, which finds the snapshot. Nothing
 * is applied meanwhile. */
static void snapshot_finished(struct replica *replica, struct replica_snapshot_work *work)
{
    struct raft_event event = {.type = RAFT_EVENT_SNAPSHOT_INSTALLED,
                               .now_ms = replica_clock_ms(replica),
                               .snapshot = {.index = work->meta.index,
                                            .term = work->meta.term,
                                            .configuration = &work->meta.configuration}};
    int rc;

    if (work->rc != SNAPSHOT_OK) {
        log_write(LOG_ERROR, SNAPSHOT_LOG, "the received snapshot is not sound: %s",
                  work->err.text);
        return;
    }
    if (work->meta.index > replica->newest.index) { /* Else one was taken here meanwhile. */
        replica->newest = work->meta;
        wal_snapshot_synced(replica->wal, work->meta.index, work->meta.term);
    }
    if (!raft_snapshot_wanted(replica->raft, work->meta.index, work->meta.term) ||
        work->meta.index <= replica->applied_index) {
        return; /* The log has caught up meanwhile. */
    }
    if (replica->long_work != NULL) {
        return; /* Somebody writes to the state just now: the core will ask again. */
    }
    replica->apply_held = true;
    replica_step(replica, &event, &rc);
    if (rc != RAFT_OK) {
        replica->apply_held = false;
        log_write(LOG_WARN, SNAPSHOT_LOG, "the snapshot is not needed any more: %s",
                  raft_strerror(rc));
        return;
    }
    snapshot_start(replica, SNAPSHOT_LOAD, NULL, NULL, &work->meta);
}

/* There is no room for both states: as with a restored one, the old one stays until there is. */
void replica_snapshot_wait(struct replica *replica, const struct snapshot_meta *meta, int rc,
                           const char *why, uint64_t start_ms)
{
    assert(rc == SNAPSHOT_EFULL || rc == SNAPSHOT_ENOMEM);
    if (!replica->apply_failed) {
        log_write(LOG_ERROR, SNAPSHOT_LOG,
                  "the snapshot has no room beside the present state: this server %s until there "
                  "is, and follows the others then: index=%llu applied_index=%llu: %s",
                  replica->applied_index > 0 ? "goes on showing the old state"
                                             : "has none and answers nothing from it",
                  (unsigned long long)meta->index, (unsigned long long)replica->applied_index, why);
    }
    replica->apply_held = true;
    replica->load_waits = *meta;
    replica_apply_replace_failed(replica, rc == SNAPSHOT_EFULL ? STORE_EFULL : STORE_ENOMEM,
                                 start_ms);
}

static void snapshot_loaded(struct replica *replica, struct replica_snapshot_work *work)
{
    if (work->rc == SNAPSHOT_EFULL || work->rc == SNAPSHOT_ENOMEM) {
        replica_snapshot_wait(replica, &work->meta, work->rc, work->err.text, work->start_ms);
        return;
    }
    if (work->rc != SNAPSHOT_OK) {
        replica_fatal("cannot load the snapshot: %s", work->err.text);
    }
    metrics_count(replica->server->metrics, METRIC_RAFT_SNAPSHOT_INSTALL, 1);
    log_write(LOG_INFO, SNAPSHOT_LOG, "snapshot installed: index=%llu term=%llu",
              (unsigned long long)work->meta.index, (unsigned long long)work->meta.term);
    replica->applied_index = work->meta.index;
    replica->applied_term = work->meta.term;
    replica->apply_held = false;
    memset(&replica->load_waits, 0, sizeof(replica->load_waits));
    replica_apply_succeeded(replica);
    replica_write_skipped(replica, work->meta.index);
    watch_table_wake_all(replica->server->watches);
    replica->reads_dirty = true;
    replica_bootstrap_dial(replica);
}

/* --- the turn --- */

void replica_snapshot_turn(struct replica *replica, uint64_t now_ms)
{
    if (replica->snapshots == NULL) {
        return;
    }
    if (replica->fetch.from != 0 && now_ms - replica->fetch.asked_ms >= REPLICA_SNAPSHOT_ASK_MS) {
        if (replica->role == RAFT_LEADER || replica->fetch.from != replica->leader) {
            snapshot_fetch_end(replica); /* What was received is kept on disk. */
        } else {
            snapshot_ask(replica, now_ms);
        }
    }
    if (replica->load_waits.index > 0 && !replica->apply_stalled &&
        replica->snapshot_work == NULL) {
        snapshot_start(replica, SNAPSHOT_LOAD, NULL, NULL, &replica->load_waits);
    }
    if (replica->snapshot_work == NULL && !replica->apply_held) {
        snapshot_consider(replica, now_ms);
    }
}

/* Ends workers: they use what is closed next. */
void replica_snapshot_stop(struct replica *replica)
{
    if (replica->snapshot_work != NULL) {
        atomic_store(&replica->snapshot_work->task.cancel, true);
    }
    while (replica->snapshot_work != NULL || replica->long_work != NULL ||
           replica->store_holds > 0) {
        (void)uv_run(replica->server->loop, UV_RUN_ONCE);
    }
    if (replica->snapshots != NULL) {
        snapshot_fetch_end(replica);
    }
}
