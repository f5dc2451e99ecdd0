/* The set of servers: its rules and its bytes.
 *
 * Bytes, all numbers big-endian: version (1), count (1), six zeros; then for each server id (8),
 * voter (1), size of info (1), six zeros, info. Equal configurations have equal bytes. */

#include "raft/raft_internal.h"

#include <assert.h>
#include <string.h>

enum {
    CONFIGURATION_VERSION = 1,
    CONFIGURATION_HEADER_BYTES = 8,
    CONFIGURATION_SERVER_BYTES = 16, /* without its info */
};

static_assert(RAFT_CONFIGURATION_BYTES_MAX ==
                  CONFIGURATION_HEADER_BYTES +
                      RAFT_SERVERS_MAX * (CONFIGURATION_SERVER_BYTES + RAFT_SERVER_INFO_BYTES_MAX),
              "the header promises the size of the largest configuration");
static_assert(RAFT_SERVER_INFO_BYTES_MAX <= UINT8_MAX, "the size of info is one byte");
static_assert(RAFT_SERVERS_MAX <= UINT8_MAX, "the count is one byte");

bool raft_configuration_valid(const struct raft_configuration *configuration)
{
    if (configuration->count == 0 || configuration->count > RAFT_SERVERS_MAX) {
        return false;
    }
    raft_id previous = 0;
    bool has_voter = false;
    for (size_t i = 0; i < configuration->count; i++) {
        const struct raft_server *server = &configuration->servers[i];
        if (server->id <= previous || server->info_size > RAFT_SERVER_INFO_BYTES_MAX) {
            return false;
        }
        previous = server->id;
        has_voter = has_voter || server->voter;
    }
    return has_voter;
}

const struct raft_server *raft_configuration_find(const struct raft_configuration *configuration,
                                                  raft_id id)
{
    for (size_t i = 0; i < configuration->count; i++) {
        if (configuration->servers[i].id == id) {
            return &configuration->servers[i];
        }
    }
    return NULL;
}

bool raft_configuration_is_voter(const struct raft_configuration *configuration, raft_id id)
{
    const struct raft_server *server = raft_configuration_find(configuration, id);

    return server != NULL && server->voter;
}

size_t raft_configuration_encode(const struct raft_configuration *configuration, void *out)
{
    assert(raft_configuration_valid(configuration));

    uint8_t *at = out;
    memset(at, 0, CONFIGURATION_HEADER_BYTES);
    at[0] = CONFIGURATION_VERSION;
    at[1] = (uint8_t)configuration->count;
    at += CONFIGURATION_HEADER_BYTES;
    for (size_t i = 0; i < configuration->count; i++) {
        const struct raft_server *server = &configuration->servers[i];
        memset(at, 0, CONFIGURATION_SERVER_BYTES);
        for (size_t byte = 0; byte < 8; byte++) {
            at[byte] = (uint8_t)(server->id >> (56 - 8 * byte));
        }
        at[8] = server->voter ? 1 : 0;
        at[9] = server->info_size;
        at += CONFIGURATION_SERVER_BYTES;
        memcpy(at, server->info, server->info_size);
        at += server->info_size;
    }
    return (size_t)(at - (uint8_t *)out);
}

static bool bytes_are_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Reads one server from at most `size` bytes; returns how many it took, 0 if it is malformed. */
static size_t configuration_decode_server(const uint8_t *at, size_t size, struct raft_server *out)
{
    if (size < CONFIGURATION_SERVER_BYTES || at[8] > 1 || at[9] > RAFT_SERVER_INFO_BYTES_MAX ||
        !bytes_are_zero(at + 10, CONFIGURATION_SERVER_BYTES - 10)) {
        return 0;
    }
    const size_t taken = (size_t)CONFIGURATION_SERVER_BYTES + at[9];
    if (size < taken) {
        return 0;
    }
    for (size_t byte = 0; byte < 8; byte++) {
        out->id = (out->id << 8) | at[byte];
    }
    out->voter = at[8] == 1;
    out->info_size = at[9];
    memcpy(out->info, at + CONFIGURATION_SERVER_BYTES, out->info_size);
    return taken;
}

int raft_configuration_decode(const void *data, size_t size, struct raft_configuration *out)
{
    const uint8_t *at = data;
    struct raft_configuration configuration;

    memset(&configuration, 0, sizeof(configuration));
    if (data == NULL || size < CONFIGURATION_HEADER_BYTES || at[0] != CONFIGURATION_VERSION ||
        at[1] > RAFT_SERVERS_MAX || !bytes_are_zero(at + 2, CONFIGURATION_HEADER_BYTES - 2)) {
        return RAFT_EINVAL;
    }
    configuration.count = at[1];
    at += CONFIGURATION_HEADER_BYTES;
    size -= CONFIGURATION_HEADER_BYTES;
    for (size_t i = 0; i < configuration.count; i++) {
        const size_t taken = configuration_decode_server(at, size, &configuration.servers[i]);
        if (taken == 0) {
            return RAFT_EINVAL;
        }
        at += taken;
        size -= taken;
    }
    if (size != 0 || !raft_configuration_valid(&configuration)) {
        return RAFT_EINVAL;
    }
    *out = configuration;
    return RAFT_OK;
}

static bool server_equal(const struct raft_server *a, const struct raft_server *b)
{
    return a->voter == b->voter && a->info_size == b->info_size &&
           memcmp(a->info, b->info, a->info_size) == 0;
}

int raft_configuration_check_change(const struct raft_configuration *from,
                                    const struct raft_configuration *to)
{
    size_t changes = 0;
    size_t old = 0;
    size_t new = 0;

    /* Both are sorted by id. */
    while (old < from->count || new < to->count) {
        const raft_id old_id = old < from->count ? from->servers[old].id : UINT64_MAX;
        const raft_id new_id = new < to->count ? to->servers[new].id : UINT64_MAX;
        if (old < from->count && new < to->count && old_id == new_id) {
            changes += server_equal(&from->servers[old], &to->servers[new]) ? 0 : 1;
            old++;
            new ++;
        } else if (new == to->count || (old < from->count && old_id < new_id)) {
            changes++; /* Removed. */
            old++;
        } else {
            /* Added: a voter that has nothing yet would only make quorums larger (4.2.1). */
            if (to->servers[new].voter) {
                return RAFT_EINVAL;
            }
            changes++;
            new ++;
        }
    }
    return changes == 1 ? RAFT_OK : RAFT_EINVAL;
}

const struct raft_configuration *raft_configuration_at(const struct raft *raft, raft_index index)
{
    if (index > raft->commit_index || index + 1 < raft->log.first_index) {
        return NULL;
    }
    if (raft->configuration.count > 0 && raft->configuration.index <= index) {
        return &raft->configuration;
    }
    if (raft->configuration_before.count > 0 && raft->configuration_before.index <= index) {
        return &raft->configuration_before;
    }
    return NULL;
}
