#ifndef SERVER_CATALOG_AUTOPILOT_H
#define SERVER_CATALOG_AUTOPILOT_H

/* Autopilot's configuration as part of the replicated state: when a server that joined gets its
 * vote, and when a dead one is taken out. One record, set by the first leader from its own
 * configuration, and by operators from then on. The deciding is server/replica's. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "kv/store.h"

enum { AUTOPILOT_TAG_BYTES_MAX = 128 };

/* Consul's fields. The last three are kept and shown; only Consul Enterprise has a use for them. */
struct autopilot_config {
    bool cleanup_dead_servers;
    int64_t last_contact_threshold_ns;
    uint64_t max_trailing_logs;
    uint64_t min_quorum;
    int64_t server_stabilization_time_ns;
    char redundancy_zone_tag[AUTOPILOT_TAG_BYTES_MAX + 1];
    bool disable_upgrade_migration;
    char upgrade_version_tag[AUTOPILOT_TAG_BYTES_MAX + 1];
    uint64_t create_index; /* the record's; not encoded in commands */
    uint64_t modify_index;
};

/* Consul's defaults; indexes 0. */
void autopilot_config_init(struct autopilot_config *config);

/* The configuration without its indexes. */
void autopilot_config_encode(struct buffer *out, const struct autopilot_config *config);
/* Untrusted. False when malformed. */
bool autopilot_config_read(struct reader *reader, struct autopilot_config *out);

/* STORE_ENOTFOUND: no leader has set one yet. */
int autopilot_get(struct store_txn *txn, struct autopilot_config *out);

enum autopilot_set_mode {
    AUTOPILOT_SET = 1,
    AUTOPILOT_SET_CAS,     /* if it is there, and its modify index is `cas` */
    AUTOPILOT_SET_INITIAL, /* if it is not there */
};
/* `*done` tells whether the condition held. Store errors pass through. */
int autopilot_set(struct store_txn *txn, uint64_t index, enum autopilot_set_mode mode, uint64_t cas,
                  const struct autopilot_config *config, bool *done);

#endif
