/* Raft messages and RPCs between servers: any bytes decode or are refused; what decodes is encoded
 * again to the same bytes, so that no field is lost on the way. */

#include <assert.h>
#include <stdlib.h>

#include "server/peers/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_raft(struct slice payload, struct raft_entry *entries)
{
    struct raft_message message;
    struct buffer out = {0};

    if (!message_get_raft(payload, &message, entries)) {
        return;
    }
    message_put_raft(&out, &message);
    for (size_t i = 0; i < message.entry_count; i++) {
        assert(entries[i].index == message.prev_index + 1 + i);
        message_put_entry(&out, &entries[i]);
    }
    assert(out.size == payload.size);
    buffer_deinit(&out);
}

static void check_rpc(struct slice payload)
{
    struct message_answer answer;
    struct reader reader;
    struct uuid session;
    uint64_t request;
    uint32_t count;
    uint8_t operation;
    enum message_status status;
    struct slice text;
    bool quorum;

    if (message_get_propose(payload, &request, &count, &reader)) {
        for (uint32_t i = 0; i < count; i++) {
            (void)reader_string(&reader);
        }
        assert(reader_done(&reader)); /* Checked to be whole before. */
    }
    if (message_get_answer(payload, &answer)) {
        assert(answer.error.size <= payload.size);
    }
    if (message_get_operate(payload, &request, &operation, &text)) {
        assert(text.size <= payload.size);
    }
    if (message_get_operated(payload, &request, &status, &text)) {
        assert(status <= MESSAGE_FAILED);
    }
    (void)message_get_read(payload, &request, &quorum);
    (void)message_get_renew(payload, &request, &session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct raft_entry entries[MESSAGE_ENTRIES_MAX];
    const struct slice payload = slice_from((const char *)data, size);

    check_raft(payload, entries);
    check_rpc(payload);
    return 0;
}
