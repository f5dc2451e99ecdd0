#include "server/catalog/autopilot.h"

#include <assert.h>
#include <string.h>

static const int64_t AUTOPILOT_LAST_CONTACT_NS = INT64_C(200000000);
static const int64_t AUTOPILOT_STABILIZATION_NS = INT64_C(10000000000);
static const uint64_t AUTOPILOT_TRAILING_LOGS = 250;

static const struct slice autopilot_key = {"autopilot", sizeof("autopilot") - 1};

void autopilot_config_init(struct autopilot_config *config)
{
    memset(config, 0, sizeof(*config));
    config->cleanup_dead_servers = true;
    config->last_contact_threshold_ns = AUTOPILOT_LAST_CONTACT_NS;
    config->max_trailing_logs = AUTOPILOT_TRAILING_LOGS;
    config->server_stabilization_time_ns = AUTOPILOT_STABILIZATION_NS;
}

void autopilot_config_encode(struct buffer *out, const struct autopilot_config *config)
{
    buffer_put_u8(out, config->cleanup_dead_servers ? 1 : 0);
    buffer_put_u64(out, (uint64_t)config->last_contact_threshold_ns);
    buffer_put_u64(out, config->max_trailing_logs);
    buffer_put_u64(out, config->min_quorum);
    buffer_put_u64(out, (uint64_t)config->server_stabilization_time_ns);
    buffer_put_string(out, slice_from_text(config->redundancy_zone_tag));
    buffer_put_u8(out, config->disable_upgrade_migration ? 1 : 0);
    buffer_put_string(out, slice_from_text(config->upgrade_version_tag));
}

bool autopilot_config_read(struct reader *reader, struct autopilot_config *out)
{
    memset(out, 0, sizeof(*out));
    out->cleanup_dead_servers = reader_u8(reader) != 0;
    out->last_contact_threshold_ns = (int64_t)reader_u64(reader);
    out->max_trailing_logs = reader_u64(reader);
    out->min_quorum = reader_u64(reader);
    out->server_stabilization_time_ns = (int64_t)reader_u64(reader);
    const struct slice zone_tag = reader_string(reader);
    out->disable_upgrade_migration = reader_u8(reader) != 0;
    const struct slice version_tag = reader_string(reader);
    return !reader->failed &&
           slice_copy_text(zone_tag, out->redundancy_zone_tag, sizeof(out->redundancy_zone_tag)) &&
           slice_copy_text(version_tag, out->upgrade_version_tag, sizeof(out->upgrade_version_tag));
}

/* The record: create index, modify index, then the configuration. */
int autopilot_get(struct store_txn *txn, struct autopilot_config *out)
{
    struct slice value;
    struct reader reader;
    uint64_t create_index;
    uint64_t modify_index;
    const int rc = store_get(txn, STORE_SETTING, autopilot_key, &value);

    if (rc != STORE_OK) {
        return rc;
    }
    reader = reader_from(value);
    create_index = reader_u64(&reader);
    modify_index = reader_u64(&reader);
    if (!autopilot_config_read(&reader, out) || !reader_done(&reader)) {
        return STORE_ECORRUPT;
    }
    out->create_index = create_index;
    out->modify_index = modify_index;
    return STORE_OK;
}

int autopilot_set(struct store_txn *txn, uint64_t index, enum autopilot_set_mode mode, uint64_t cas,
                  const struct autopilot_config *config, bool *done)
{
    struct autopilot_config before;
    struct buffer record = {0};
    int rc = autopilot_get(txn, &before);
    const bool found = rc == STORE_OK;

    assert(index > 0);
    if (rc != STORE_OK && rc != STORE_ENOTFOUND) {
        return rc;
    }
    *done = mode == AUTOPILOT_SET || (mode == AUTOPILOT_SET_INITIAL && !found) ||
            (mode == AUTOPILOT_SET_CAS && found && before.modify_index == cas);
    if (!*done) {
        return STORE_OK;
    }
    buffer_put_u64(&record, found ? before.create_index : index);
    buffer_put_u64(&record, index);
    autopilot_config_encode(&record, config);
    rc = record.failed ? STORE_ENOMEM
                       : store_put(txn, STORE_SETTING, autopilot_key, buffer_slice(&record));
    buffer_deinit(&record);
    return rc;
}
