#ifndef SERVER_CATALOG_CLUSTER_ID_H
#define SERVER_CATALOG_CLUSTER_ID_H

/* The cluster's id as part of the replicated state: 128 random bits that a cluster gets once and
 * never changes, by which its servers know those of others. Pure, as catalog.h. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/store.h"
#include "kv/uuid.h"

/* STORE_ENOTFOUND: it has none yet. Store errors pass through. */
int cluster_id_get(struct store_txn *txn, struct uuid *out);
/* Sets it if there is none; `*done` tells whether that was so. `id` is not zero. Store errors pass
 * through. */
int cluster_id_set(struct store_txn *txn, const struct uuid *id, bool *done);

#endif
