#include "server/catalog/cluster_id.h"

#include <assert.h>
#include <string.h>

static const struct slice cluster_id_key = {"cluster-id", sizeof("cluster-id") - 1};

int cluster_id_get(struct store_txn *txn, struct uuid *out)
{
    struct slice value;
    const int rc = store_get(txn, STORE_SETTING, cluster_id_key, &value);

    if (rc != STORE_OK) {
        return rc;
    }
    if (value.size != UUID_BYTES) {
        return STORE_ECORRUPT;
    }
    memcpy(out->bytes, value.data, UUID_BYTES);
    return STORE_OK;
}

int cluster_id_set(struct store_txn *txn, const struct uuid *id, bool *done)
{
    struct uuid before;
    const int rc = cluster_id_get(txn, &before);

    assert(!uuid_is_zero(id));
    *done = rc == STORE_ENOTFOUND;
    return rc != STORE_ENOTFOUND ? rc
                                 : store_put(txn, STORE_SETTING, cluster_id_key,
                                             slice_from((const char *)id->bytes, UUID_BYTES));
}
