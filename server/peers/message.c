#include "server/peers/message.h"

#include <string.h>

/* Flags of a Raft message. */
enum { MESSAGE_GRANTED = 1, MESSAGE_TRANSFER = 2 };

void message_put_raft(struct buffer *out, const struct raft_message *message)
{
    buffer_put_u8(out, (uint8_t)message->type);
    buffer_put_u64(out, message->from);
    buffer_put_u64(out, message->to);
    buffer_put_u64(out, message->term);
    buffer_put_u64(out, message->last_index);
    buffer_put_u64(out, message->last_term);
    buffer_put_u64(out, message->prev_index);
    buffer_put_u64(out, message->prev_term);
    buffer_put_u64(out, message->commit_index);
    buffer_put_u64(out, message->round);
    buffer_put_u8(out, (uint8_t)((message->granted ? MESSAGE_GRANTED : 0) |
                                 (message->transfer ? MESSAGE_TRANSFER : 0)));
    buffer_put_u64(out, message->match_index);
    buffer_put_u64(out, message->hint_index);
    buffer_put_u64(out, message->hint_term);
    buffer_put_u32(out, (uint32_t)message->entry_count);
}

void message_put_entry(struct buffer *out, const struct raft_entry *entry)
{
    buffer_put_u64(out, entry->term);
    buffer_put_u8(out, (uint8_t)entry->type);
    buffer_put_string(out, slice_from(entry->data, entry->size));
}

bool message_get_raft(struct slice payload, struct raft_message *message,
                      struct raft_entry *entries)
{
    struct reader reader = reader_from(payload);
    uint8_t type;
    uint8_t flags;

    memset(message, 0, sizeof(*message));
    type = reader_u8(&reader);
    message->from = reader_u64(&reader);
    message->to = reader_u64(&reader);
    message->term = reader_u64(&reader);
    message->last_index = reader_u64(&reader);
    message->last_term = reader_u64(&reader);
    message->prev_index = reader_u64(&reader);
    message->prev_term = reader_u64(&reader);
    message->commit_index = reader_u64(&reader);
    message->round = reader_u64(&reader);
    flags = reader_u8(&reader);
    message->granted = (flags & MESSAGE_GRANTED) != 0;
    message->transfer = (flags & MESSAGE_TRANSFER) != 0;
    message->match_index = reader_u64(&reader);
    message->hint_index = reader_u64(&reader);
    message->hint_term = reader_u64(&reader);
    message->entry_count = reader_u32(&reader);
    if (reader.failed || type < RAFT_PRE_VOTE_REQUEST || type > RAFT_MESSAGE_TYPE_LAST ||
        (flags & ~(MESSAGE_GRANTED | MESSAGE_TRANSFER)) != 0 ||
        message->entry_count > MESSAGE_ENTRIES_MAX ||
        (message->entry_count > 0 && type != RAFT_APPEND_REQUEST) ||
        message->prev_index > UINT64_MAX - MESSAGE_ENTRIES_MAX - 1) {
        return false;
    }
    message->type = (enum raft_message_type)type;
    for (size_t i = 0; i < message->entry_count; i++) {
        struct raft_entry *entry = &entries[i];
        uint8_t entry_type;
        struct slice data;

        entry->index = message->prev_index + 1 + i;
        entry->term = reader_u64(&reader);
        entry_type = reader_u8(&reader);
        data = reader_string(&reader);
        if (reader.failed || entry_type < RAFT_ENTRY_NOOP ||
            entry_type > RAFT_ENTRY_CONFIGURATION) {
            return false;
        }
        entry->type = (enum raft_entry_type)entry_type;
        entry->data = data.data;
        entry->size = data.size;
    }
    return reader_done(&reader);
}

void message_put_propose(struct buffer *out, uint64_t request, uint32_t count)
{
    buffer_put_u64(out, request);
    buffer_put_u32(out, count);
}

bool message_get_propose(struct slice payload, uint64_t *request, uint32_t *count,
                         struct reader *reader)
{
    struct reader check;

    *reader = reader_from(payload);
    *request = reader_u64(reader);
    *count = reader_u32(reader);
    if (reader->failed || *count == 0 || *count > MESSAGE_COMMANDS_MAX) {
        return false;
    }
    check = *reader;
    for (uint32_t i = 0; i < *count; i++) {
        (void)reader_string(&check);
    }
    return reader_done(&check);
}

void message_put_answer(struct buffer *out, const struct message_answer *answer)
{
    buffer_put_u64(out, answer->request);
    buffer_put_u8(out, (uint8_t)answer->status);
    buffer_put_string(out, answer->error);
    buffer_put_u64(out, answer->term);
    buffer_put_u64(out, answer->index);
    buffer_put_u8(out, answer->found ? 1 : 0);
}

bool message_get_answer(struct slice payload, struct message_answer *answer)
{
    struct reader reader = reader_from(payload);
    uint8_t status;

    memset(answer, 0, sizeof(*answer));
    answer->request = reader_u64(&reader);
    status = reader_u8(&reader);
    answer->error = reader_string(&reader);
    answer->term = reader_u64(&reader);
    answer->index = reader_u64(&reader);
    answer->found = reader_u8(&reader) != 0;
    if (status > MESSAGE_FAILED) {
        return false;
    }
    answer->status = (enum message_status)status;
    return reader_done(&reader);
}

void message_put_snapshot(struct buffer *out, const struct message_snapshot *snapshot)
{
    buffer_put_u64(out, snapshot->index);
    buffer_put_u64(out, snapshot->term);
    buffer_put_u64(out, snapshot->bytes);
    buffer_put_u32(out, snapshot->checksum);
    buffer_put_u64(out, snapshot->offset);
    buffer_put_string(out, snapshot->data);
}

bool message_get_snapshot(struct slice payload, struct message_snapshot *snapshot)
{
    struct reader reader = reader_from(payload);

    snapshot->index = reader_u64(&reader);
    snapshot->term = reader_u64(&reader);
    snapshot->bytes = reader_u64(&reader);
    snapshot->checksum = reader_u32(&reader);
    snapshot->offset = reader_u64(&reader);
    snapshot->data = reader_string(&reader);
    return reader_done(&reader);
}

void message_put_operate(struct buffer *out, uint64_t request, uint8_t operation,
                         struct slice argument)
{
    buffer_put_u64(out, request);
    buffer_put_u8(out, operation);
    buffer_put_string(out, argument);
}

bool message_get_operate(struct slice payload, uint64_t *request, uint8_t *operation,
                         struct slice *argument)
{
    struct reader reader = reader_from(payload);

    *request = reader_u64(&reader);
    *operation = reader_u8(&reader);
    *argument = reader_string(&reader);
    return reader_done(&reader);
}

void message_put_operated(struct buffer *out, uint64_t request, enum message_status status,
                          struct slice text)
{
    buffer_put_u64(out, request);
    buffer_put_u8(out, (uint8_t)status);
    buffer_put_string(out, text);
}

bool message_get_operated(struct slice payload, uint64_t *request, enum message_status *status,
                          struct slice *text)
{
    struct reader reader = reader_from(payload);
    uint8_t byte;

    *request = reader_u64(&reader);
    byte = reader_u8(&reader);
    *text = reader_string(&reader);
    if (!reader_done(&reader) || byte > MESSAGE_FAILED) {
        return false;
    }
    *status = (enum message_status)byte;
    return true;
}

void message_put_read(struct buffer *out, uint64_t request, bool quorum)
{
    buffer_put_u64(out, request);
    buffer_put_u8(out, quorum ? 1 : 0);
}

bool message_get_read(struct slice payload, uint64_t *request, bool *quorum)
{
    struct reader reader = reader_from(payload);

    *request = reader_u64(&reader);
    *quorum = reader_u8(&reader) != 0;
    return reader_done(&reader);
}

void message_put_renew(struct buffer *out, uint64_t request, const struct uuid *session)
{
    buffer_put_u64(out, request);
    buffer_append(out, session->bytes, UUID_BYTES);
}

bool message_get_renew(struct slice payload, uint64_t *request, struct uuid *session)
{
    struct reader reader = reader_from(payload);
    struct slice id;

    *request = reader_u64(&reader);
    id = reader_bytes(&reader, UUID_BYTES);
    if (!reader_done(&reader)) {
        return false;
    }
    memcpy(session->bytes, id.data, UUID_BYTES);
    return true;
}
