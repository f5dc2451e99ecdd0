#include "server/command.h"

#include <assert.h>

#include "server/catalog/cluster_id.h"
#include "server/catalog/coordinate.h"

enum {
    COMMAND_STAMP_OFFSET = 2, /* after version and type */
    COMMAND_HEADER_BYTES = COMMAND_STAMP_OFFSET + sizeof(uint64_t),
};

/* --- encoding --- */

static void encode_header(struct buffer *out, enum command_type type)
{
    buffer_put_u8(out, COMMAND_VERSION);
    buffer_put_u8(out, (uint8_t)type);
    buffer_put_u64(out, 0); /* command_stamp's place */
}

static void put_uuid(struct buffer *out, const struct uuid *uuid)
{
    buffer_append(out, uuid->bytes, UUID_BYTES);
}

void command_encode_leader_start(struct buffer *out)
{
    encode_header(out, COMMAND_LEADER_START);
}

void command_encode_kv(struct buffer *out, enum command_kv_verb verb, struct slice key,
                       struct slice value, uint64_t flags, uint64_t cas, const struct uuid *session)
{
    static const struct uuid none = {{0}};

    encode_header(out, COMMAND_KV);
    buffer_put_u8(out, (uint8_t)verb);
    buffer_put_u64(out, flags);
    buffer_put_u64(out, cas);
    put_uuid(out, session != NULL ? session : &none);
    buffer_put_string(out, key);
    buffer_put_string(out, value);
}

void command_encode_session_create(struct buffer *out, const struct session *session)
{
    encode_header(out, COMMAND_SESSION_CREATE);
    session_encode(out, session);
}

void command_encode_session_destroy(struct buffer *out, const struct uuid *id, struct slice cause)
{
    if (cause.size > COMMAND_CAUSE_BYTES_MAX) {
        cause.size = COMMAND_CAUSE_BYTES_MAX;
    }
    encode_header(out, COMMAND_SESSION_DESTROY);
    put_uuid(out, id);
    buffer_put_string(out, cause);
}

void command_encode_register(struct buffer *out, const struct catalog_registration *registration)
{
    encode_header(out, COMMAND_REGISTER);
    catalog_registration_encode(out, registration);
}

void command_encode_deregister(struct buffer *out, struct slice node, struct slice service_id,
                               struct slice check_id)
{
    encode_header(out, COMMAND_DEREGISTER);
    buffer_put_string(out, node);
    buffer_put_string(out, service_id);
    buffer_put_string(out, check_id);
}

void command_encode_reap(struct buffer *out, uint64_t tombstone_index)
{
    encode_header(out, COMMAND_REAP);
    buffer_put_u64(out, tombstone_index);
}

void command_encode_txn(struct buffer *out, struct slice ops)
{
    encode_header(out, COMMAND_TXN);
    buffer_append_slice(out, ops);
}

void command_encode_autopilot(struct buffer *out, enum autopilot_set_mode mode, uint64_t cas,
                              const struct autopilot_config *config)
{
    encode_header(out, COMMAND_AUTOPILOT);
    buffer_put_u8(out, (uint8_t)mode);
    buffer_put_u64(out, cas);
    autopilot_config_encode(out, config);
}

void command_encode_cluster_id(struct buffer *out, const struct uuid *id)
{
    encode_header(out, COMMAND_CLUSTER_ID);
    put_uuid(out, id);
}

void command_encode_restore(struct buffer *out, enum command_restore_step step,
                            const struct uuid *id, struct slice records,
                            const struct restore_sum *sum)
{
    static const struct restore_sum none;

    encode_header(out, COMMAND_RESTORE);
    buffer_put_u8(out, (uint8_t)step);
    put_uuid(out, id);
    buffer_put_u64(out, sum == NULL ? none.records : sum->records);
    buffer_put_u64(out, sum == NULL ? none.hash : sum->hash);
    buffer_append_slice(out, records);
}

void command_encode_coordinates(struct buffer *out, struct slice batch)
{
    encode_header(out, COMMAND_COORDINATES);
    buffer_append_slice(out, batch);
}

bool command_replaces_state(struct slice command)
{
    struct reader reader = reader_from(command);
    const uint8_t version = reader_u8(&reader);
    const uint8_t type = reader_u8(&reader);

    (void)reader_u64(&reader);
    return version == COMMAND_VERSION && type == COMMAND_RESTORE &&
           reader_u8(&reader) == COMMAND_RESTORE_FINISH;
}

/* Whether any operation of a transaction can make the state larger. */
static bool txn_grows(struct slice ops)
{
    struct reader it = reader_from(ops);
    struct txn_op op;

    while (txn_op_next(&it, &op)) {
        if (op.verb == TXN_SET || op.verb == TXN_CAS || op.verb == TXN_LOCK ||
            op.verb == TXN_UNLOCK) {
            return true;
        }
    }
    return false;
}

enum command_type command_type_of(struct slice command)
{
    struct reader reader = reader_from(command);

    (void)reader_u8(&reader);
    return (enum command_type)reader_u8(&reader);
}

bool command_grows(struct slice command)
{
    struct reader reader = reader_from(command);
    enum command_type type;

    (void)reader_u8(&reader);
    type = (enum command_type)reader_u8(&reader);
    (void)reader_u64(&reader);
    switch (type) {
    case COMMAND_KV:
        return reader_u8(&reader) <= COMMAND_KV_UNLOCK;
    case COMMAND_SESSION_CREATE:
    case COMMAND_REGISTER:
    case COMMAND_COORDINATES:
        return true;
    case COMMAND_RESTORE:
        return reader_u8(&reader) != COMMAND_RESTORE_ABORT;
    case COMMAND_TXN:
        return txn_grows(slice_from(reader.at, (size_t)(reader.end - reader.at)));
    case COMMAND_LEADER_START:
    case COMMAND_SESSION_DESTROY:
    case COMMAND_DEREGISTER:
    case COMMAND_REAP:
    case COMMAND_AUTOPILOT: /* One small record, and what may help to get out of trouble. */
    case COMMAND_CLUSTER_ID:
        break;
    }
    return false;
}

bool command_stamp(void *command, size_t size, uint64_t now_ms)
{
    if (size < COMMAND_HEADER_BYTES) {
        return false;
    }
    uint8_t *at = (uint8_t *)command + COMMAND_STAMP_OFFSET;
    for (size_t i = 0; i < sizeof(now_ms); i++) {
        at[i] = (uint8_t)(now_ms >> (8 * i));
    }
    return true;
}

/* --- decoding --- */

/* A command taken apart; slices are borrowed from its bytes. */
struct command {
    enum command_type type;
    uint64_t now_ms;
    union {
        struct {
            enum command_kv_verb verb;
            uint64_t flags;
            uint64_t cas;
            struct uuid session;
            struct slice key;
            struct slice value;
        } kv;
        struct session create;
        struct {
            struct uuid id;
            struct slice cause;
        } destroy;
        struct catalog_registration registration;
        struct {
            struct slice node;
            struct slice service_id;
            struct slice check_id;
        } deregister;
        uint64_t tombstone_index;
        struct slice txn_ops;
        struct {
            enum command_restore_step step;
            struct uuid id;
            struct restore_sum sum;
            struct slice records;
        } restore;
        struct slice coordinates;
        struct {
            enum autopilot_set_mode mode;
            uint64_t cas;
            struct autopilot_config config;
        } autopilot;
        struct uuid cluster_id;
    };
};

static struct uuid read_uuid(struct reader *reader)
{
    struct uuid uuid = {{0}};
    const struct slice bytes = reader_bytes(reader, UUID_BYTES);

    if (bytes.size == UUID_BYTES) {
        memcpy(uuid.bytes, bytes.data, UUID_BYTES);
    }
    return uuid;
}

static bool decode_kv(struct reader *reader, struct command *out)
{
    const uint8_t verb = reader_u8(reader);

    out->kv.flags = reader_u64(reader);
    out->kv.cas = reader_u64(reader);
    out->kv.session = read_uuid(reader);
    out->kv.key = reader_string(reader);
    out->kv.value = reader_string(reader);
    if (!reader_done(reader) || verb < COMMAND_KV_SET || verb > COMMAND_KV_DELETE_PREFIX) {
        return false;
    }
    out->kv.verb = (enum command_kv_verb)verb;
    return out->kv.key.size <= COMMAND_KEY_BYTES_MAX &&
           (out->kv.key.size > 0 || out->kv.verb == COMMAND_KV_DELETE_PREFIX);
}

static bool decode_destroy(struct reader *reader, struct command *out)
{
    out->destroy.id = read_uuid(reader);
    out->destroy.cause = reader_string(reader);
    return reader_done(reader) && out->destroy.cause.size <= COMMAND_CAUSE_BYTES_MAX;
}

static bool decode_deregister(struct reader *reader, struct command *out)
{
    out->deregister.node = reader_string(reader);
    out->deregister.service_id = reader_string(reader);
    out->deregister.check_id = reader_string(reader);
    return reader_done(reader);
}

static bool decode_autopilot(struct reader *reader, struct command *out)
{
    const uint8_t mode = reader_u8(reader);

    out->autopilot.cas = reader_u64(reader);
    if (!autopilot_config_read(reader, &out->autopilot.config) || !reader_done(reader) ||
        mode < AUTOPILOT_SET || mode > AUTOPILOT_SET_INITIAL) {
        return false;
    }
    out->autopilot.mode = (enum autopilot_set_mode)mode;
    return true;
}

static bool decode_txn(struct slice ops, struct command *out)
{
    uint32_t count;

    out->txn_ops = ops;
    return txn_decode(ops, &count);
}

static bool decode_restore(struct reader *reader, struct command *out)
{
    const uint8_t step = reader_u8(reader);

    out->restore.id = read_uuid(reader);
    out->restore.sum.records = reader_u64(reader);
    out->restore.sum.hash = reader_u64(reader);
    if (reader->failed || step < COMMAND_RESTORE_BEGIN || step > COMMAND_RESTORE_ABORT ||
        uuid_is_zero(&out->restore.id)) {
        return false;
    }
    out->restore.step = (enum command_restore_step)step;
    out->restore.records = slice_from(reader->at, (size_t)(reader->end - reader->at));
    return step == COMMAND_RESTORE_ADD ? restore_records_valid(out->restore.records)
                                       : out->restore.records.size == 0;
}

static bool command_decode(struct slice bytes, struct command *out)
{
    struct reader reader = reader_from(bytes);
    const uint8_t version = reader_u8(&reader);
    const uint8_t type = reader_u8(&reader);

    out->now_ms = reader_u64(&reader);
    if (reader.failed || version != COMMAND_VERSION) {
        return false;
    }
    out->type = (enum command_type)type;
    const struct slice rest = slice_from(reader.at, (size_t)(reader.end - reader.at));
    switch (type) { /* By the byte, not by the enum: what is unknown must fall out below. */
    case COMMAND_LEADER_START:
        return reader_done(&reader);
    case COMMAND_KV:
        return decode_kv(&reader, out);
    case COMMAND_SESSION_CREATE:
        return session_decode(rest, &out->create) && !uuid_is_zero(&out->create.id);
    case COMMAND_SESSION_DESTROY:
        return decode_destroy(&reader, out);
    case COMMAND_REGISTER:
        return catalog_registration_decode(rest, &out->registration);
    case COMMAND_DEREGISTER:
        return decode_deregister(&reader, out);
    case COMMAND_REAP:
        out->tombstone_index = reader_u64(&reader);
        return reader_done(&reader);
    case COMMAND_TXN:
        return decode_txn(rest, out);
    case COMMAND_RESTORE:
        return decode_restore(&reader, out);
    case COMMAND_COORDINATES:
        out->coordinates = rest;
        return coordinates_valid(rest);
    case COMMAND_AUTOPILOT:
        return decode_autopilot(&reader, out);
    case COMMAND_CLUSTER_ID:
        out->cluster_id = read_uuid(&reader);
        return reader_done(&reader) && !uuid_is_zero(&out->cluster_id);
    }
    return false;
}

bool command_valid(struct slice command)
{
    struct command decoded;

    return command_decode(command, &decoded);
}

/* --- applying --- */

/* What every command is applied with. */
struct apply {
    struct store_txn *txn;
    uint64_t index;
    struct session_stamp stamp;
    const struct command_observer *observer; /* may be NULL */
    struct command_result *result;
};

/* For module codes that are answers: the text in result->error goes to the client. */
static int apply_refused(struct apply *apply)
{
    apply->result->status = COMMAND_REFUSED;
    apply->result->ok = false;
    return 0;
}

static void observe_ended(const struct apply *apply, const struct uuid *id, struct slice cause)
{
    if (apply->observer != NULL && apply->observer->session_ended != NULL) {
        apply->observer->session_ended(apply->observer->host, id, cause);
    }
}

static int apply_lock(struct apply *apply, const struct command *command)
{
    bool granted = false;
    bool delayed = false;
    const int rc = session_lock(apply->txn, apply->index, apply->stamp, command->kv.key,
                                command->kv.value, command->kv.flags, &command->kv.session,
                                &granted, &delayed, &apply->result->error);

    if (rc == SESSION_EUNKNOWN) {
        return apply_refused(apply);
    }
    assert(rc != 0 || !granted || !delayed);
    apply->result->ok = granted;
    return rc;
}

/* Deleting what is not there is done. */
static int apply_delete_result(int rc)
{
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

static int apply_kv(struct apply *apply, const struct command *command)
{
    struct store_txn *txn = apply->txn;
    const uint64_t index = apply->index;
    const struct slice key = command->kv.key;
    const struct slice value = command->kv.value;
    const uint64_t flags = command->kv.flags;
    bool *ok = &apply->result->ok;
    bool changed;

    switch (command->kv.verb) {
    case COMMAND_KV_SET:
        *ok = true;
        return kv_set(txn, index, key, value, flags, &changed);
    case COMMAND_KV_CAS:
        return kv_cas(txn, index, key, value, flags, command->kv.cas, ok);
    case COMMAND_KV_LOCK:
        return apply_lock(apply, command);
    case COMMAND_KV_UNLOCK:
        return kv_unlock(txn, index, key, value, flags, &command->kv.session, ok);
    case COMMAND_KV_DELETE:
        *ok = true;
        return apply_delete_result(kv_delete(txn, index, key));
    case COMMAND_KV_DELETE_CAS:
        return kv_delete_cas(txn, index, key, command->kv.cas, ok);
    case COMMAND_KV_DELETE_PREFIX:
        *ok = true;
        return apply_delete_result(kv_delete_prefix(txn, index, key));
    }
    assert(false); /* Decoding lets no other verb through. */
    return STORE_ECORRUPT;
}

static int apply_session_create(struct apply *apply, const struct command *command)
{
    struct session created;
    int rc = session_create(apply->txn, &catalog_for_sessions, apply->index, &command->create,
                            &apply->result->error);

    if (rc == SESSION_EEXIST) {
        (void)errmsg_set(&apply->result->error, rc, "session id already exists");
        return apply_refused(apply);
    }
    if (rc == SESSION_ENODE || rc == SESSION_ECHECK) {
        return apply_refused(apply);
    }
    if (rc != 0) {
        return rc;
    }
    apply->result->ok = true;
    if (apply->observer == NULL || apply->observer->session_created == NULL) {
        return 0;
    }
    /* As stored, with its indexes. */
    rc = session_get(apply->txn, &command->create.id, &created);
    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
    }
    apply->observer->session_created(apply->observer->host, &created);
    return 0;
}

static int apply_session_destroy(struct apply *apply, const struct command *command)
{
    struct session found;
    int rc = session_get(apply->txn, &command->destroy.id, &found);

    if (rc == 0) {
        rc = session_invalidate(apply->txn, apply->index, apply->stamp, &command->destroy.id);
        if (rc == 0) {
            observe_ended(apply, &command->destroy.id, command->destroy.cause);
        }
    }
    apply->result->ok = true;
    return rc == STORE_ENOTFOUND ? 0 : rc; /* One that is gone already was destroyed. */
}

static void observe_ended_all(const struct apply *apply, const struct buffer *ended)
{
    struct reader it = reader_from(buffer_slice(ended));
    struct uuid id;
    struct slice cause;

    while (catalog_ended_next(&it, &id, &cause)) {
        observe_ended(apply, &id, cause);
    }
}

static int apply_catalog(struct apply *apply, const struct command *command)
{
    struct buffer ended = {0};
    int rc;

    if (command->type == COMMAND_REGISTER) {
        rc = catalog_register(apply->txn, apply->index, apply->stamp, &command->registration,
                              &ended, &apply->result->error);
    } else {
        rc = catalog_deregister(apply->txn, apply->index, apply->stamp, command->deregister.node,
                                command->deregister.service_id, command->deregister.check_id,
                                &ended);
    }
    if (rc == CATALOG_EINVAL) {
        assert(ended.size == 0);
        rc = apply_refused(apply);
    } else if (rc == 0) {
        observe_ended_all(apply, &ended);
        apply->result->ok = true;
    }
    buffer_deinit(&ended);
    return rc;
}

static int apply_reap(struct apply *apply, const struct command *command)
{
    int rc = kv_tombstones_reap(apply->txn, command->tombstone_index);

    apply->result->ok = true;
    if (rc == 0) {
        rc = restore_reap(apply->txn, apply->stamp);
    }
    return rc != 0 ? rc : session_lock_delay_reap(apply->txn, apply->stamp);
}

static int apply_restore(struct apply *apply, const struct command *command)
{
    struct store_txn *txn = apply->txn;
    const struct uuid *id = &command->restore.id;
    struct errmsg *err = &apply->result->error;
    int rc = 0;

    apply->result->ok = true;
    switch (command->restore.step) {
    case COMMAND_RESTORE_BEGIN:
        return restore_begin(txn, apply->stamp, id);
    case COMMAND_RESTORE_ADD:
        rc = restore_add(txn, apply->stamp, id, command->restore.records, err);
        break;
    case COMMAND_RESTORE_FINISH:
        rc = restore_finish(txn, apply->index, apply->stamp, id, &command->restore.sum, err);
        break;
    case COMMAND_RESTORE_ABORT:
        return restore_abort(txn, id);
    }
    return rc == RESTORE_EINVAL ? apply_refused(apply) : rc;
}

static void txn_answered(struct apply *apply, const struct buffer *answer)
{
    struct buffer *answers = apply->observer == NULL ? NULL : apply->observer->answers;

    if (answers != NULL) {
        apply->result->answers = answers;
        apply->result->answer_offset = answers->size;
        apply->result->answer_bytes = answer->size;
        buffer_append_slice(answers, buffer_slice(answer));
    }
}

/* Refused operations are an answer, not a refusal of the command: result->ok is false then. */
static int apply_txn(struct apply *apply, const struct command *command)
{
    struct store_savepoint savepoint;
    struct buffer ended = {0};
    struct buffer answer = {0};
    bool ok = false;
    int rc = store_savepoint_begin(apply->txn, &savepoint);

    if (rc != 0) {
        return rc;
    }
    rc = txn_run(apply->txn, apply->index, apply->stamp, command->txn_ops, &ended, &answer, &ok);
    if (rc == 0 && answer.failed) {
        rc = STORE_ENOMEM;
    }
    if (rc == 0 && ok) {
        rc = store_savepoint_commit(apply->txn, &savepoint);
    } else {
        store_savepoint_rollback(apply->txn, &savepoint);
    }
    if (rc == 0) {
        apply->result->ok = ok;
        txn_answered(apply, &answer);
        if (ok) {
            observe_ended_all(apply, &ended);
        }
    }
    buffer_deinit(&ended);
    buffer_deinit(&answer);
    return rc;
}

static int apply_command(struct apply *apply, const struct command *command)
{
    switch (command->type) {
    case COMMAND_LEADER_START:
        apply->result->ok = true;
        return session_lock_delay_restart(apply->txn, apply->stamp);
    case COMMAND_KV:
        return apply_kv(apply, command);
    case COMMAND_SESSION_CREATE:
        return apply_session_create(apply, command);
    case COMMAND_SESSION_DESTROY:
        return apply_session_destroy(apply, command);
    case COMMAND_REGISTER:
    case COMMAND_DEREGISTER:
        return apply_catalog(apply, command);
    case COMMAND_REAP:
        return apply_reap(apply, command);
    case COMMAND_TXN:
        return apply_txn(apply, command);
    case COMMAND_RESTORE:
        return apply_restore(apply, command);
    case COMMAND_COORDINATES:
        apply->result->ok = true;
        return coordinates_apply(apply->txn, apply->index, command->coordinates);
    case COMMAND_AUTOPILOT:
        return autopilot_set(apply->txn, apply->index, command->autopilot.mode,
                             command->autopilot.cas, &command->autopilot.config,
                             &apply->result->ok);
    case COMMAND_CLUSTER_ID:
        return cluster_id_set(apply->txn, &command->cluster_id, &apply->result->ok);
    }
    assert(false); /* Decoding lets no other type through. */
    return STORE_ECORRUPT;
}

struct slice command_answer(const struct command_result *result)
{
    if (result->answers == NULL || result->answers->failed) {
        return SLICE_EMPTY;
    }
    const struct slice all = buffer_slice(result->answers);

    assert(result->answer_offset <= all.size);
    assert(result->answer_bytes <= all.size - result->answer_offset);
    return slice_from(all.data + result->answer_offset, result->answer_bytes);
}

static int apply_unknown(struct slice bytes, struct errmsg *err)
{
    struct reader reader = reader_from(bytes);
    const unsigned version = reader_u8(&reader);
    const unsigned type = reader_u8(&reader);

    return errmsg_set(err, COMMAND_EUNKNOWN, "format=%u type=%u bytes=%zu", version, type,
                      bytes.size);
}

int command_apply(struct store_txn *txn, uint64_t term, uint64_t index, struct slice bytes,
                  const struct command_observer *observer, struct command_result *result)
{
    struct command command;

    assert(txn->write);
    assert(index > 0);
    *result = (struct command_result){.status = COMMAND_DONE, .index = index};
    struct apply apply = {.txn = txn, .index = index, .observer = observer, .result = result};
    if (!command_decode(bytes, &command)) {
        return apply_unknown(bytes, &result->error);
    }
    apply.stamp = (struct session_stamp){.term = term, .now_ms = command.now_ms};

    const int rc = apply_command(&apply, &command);
    /* Every module's code that is an answer has become a refusal above. */
    assert(rc == 0 || (rc < 0 && rc > -100));
    return rc;
}

/* --- how much there is to do --- */

struct count {
    struct store_txn *txn;
    size_t records;
    size_t max;
};

static void count_below(struct count *count, enum store_table table, struct slice prefix)
{
    struct store_scan scan;
    struct slice key;
    struct slice value;

    if (count->records == count->max ||
        store_scan_begin(&scan, count->txn, table, prefix) != STORE_OK) {
        return;
    }
    while (count->records < count->max && store_scan_next(&scan, &key, &value) == STORE_OK) {
        count->records++;
    }
    store_scan_end(&scan);
}

static void count_table(struct count *count, enum store_table table)
{
    const size_t left = count->max - count->records;
    uint64_t records;

    if (store_table_count(count->txn, table, &records) == STORE_OK) {
        count->records += records < left ? (size_t)records : left;
    }
}

static void count_locks(struct count *count, const struct uuid *session)
{
    count_below(count, STORE_SESSION_KEY, slice_from((const char *)session->bytes, UUID_BYTES));
}

/* The sessions of a node, and what they hold: all of it may end. */
static void count_node(struct count *count, struct slice node)
{
    struct session_scan scan;
    struct session session;

    if (session_scan_begin_node(&scan, count->txn, node) != STORE_OK) {
        return;
    }
    while (count->records < count->max && session_scan_next(&scan, &session) == STORE_OK) {
        count->records++;
        count_locks(count, &session.id);
    }
    session_scan_end(&scan);
}

static void count_registration(struct count *count, const struct catalog_registration *registration)
{
    struct reader it = reader_from(registration->checks);
    struct catalog_check check;

    for (uint32_t i = 0; i < registration->check_count; i++) {
        if (catalog_check_decode(reader_string(&it), &check) &&
            (check.status.size == 0 || catalog_check_is_critical(&check))) {
            count_node(count, registration->node.name);
            return;
        }
    }
}

static void count_txn(struct count *count, struct slice ops)
{
    struct reader it = reader_from(ops);
    struct txn_op op;

    while (txn_op_next(&it, &op)) {
        switch (op.kind) {
        case TXN_KV:
            if (op.verb == TXN_DELETE_TREE || op.verb == TXN_GET_TREE) {
                count_below(count, STORE_KV, op.key);
            }
            break;
        case TXN_NODE:
            count_node(count, op.node.name);
            break;
        case TXN_SERVICE:
            count_node(count, op.service.node);
            break;
        case TXN_CHECK:
            count_node(count, op.check.node);
            break;
        }
    }
}

size_t command_records(struct store_txn *txn, struct slice bytes, size_t max)
{
    struct count count = {.txn = txn, .max = max};
    struct command command;

    if (!command_decode(bytes, &command)) {
        return 0;
    }
    switch ((uint8_t)command.type) { /* Not by the enum: the others touch what they name alone. */
    case COMMAND_KV:
        if (command.kv.verb == COMMAND_KV_DELETE_PREFIX) {
            count_below(&count, STORE_KV, command.kv.key);
        }
        break;
    case COMMAND_SESSION_DESTROY:
        count_locks(&count, &command.destroy.id);
        break;
    case COMMAND_REGISTER:
        count_registration(&count, &command.registration);
        break;
    case COMMAND_DEREGISTER:
        count_node(&count, command.deregister.node);
        break;
    case COMMAND_REAP:
        if (command.tombstone_index > 0) {
            count_table(&count, STORE_TOMBSTONE);
        }
        count_table(&count, STORE_LOCK_DELAY);
        break;
    case COMMAND_LEADER_START:
        count_table(&count, STORE_LOCK_DELAY);
        break;
    case COMMAND_TXN:
        count_txn(&count, command.txn_ops);
        break;
    case COMMAND_RESTORE:
        count.records = command.restore.step == COMMAND_RESTORE_FINISH ? max : 0;
        break;
    }
    return count.records;
}
