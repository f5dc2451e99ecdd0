/* Reading the catalog: single records, scans, indexes. */

#include <assert.h>

#include "server/catalog/catalog_internal.h"

/* --- keys --- */

bool catalog_name_valid(struct slice name)
{
    return name.size > 0 && name.size <= CATALOG_NAME_BYTES_MAX &&
           memchr(name.data, '\0', name.size) == NULL;
}

static void key_append_lower(struct catalog_key *key, struct slice name)
{
    assert(name.size <= CATALOG_NAME_BYTES_MAX);
    assert(key->size + name.size <= sizeof(key->data));
    for (size_t i = 0; i < name.size; i++) {
        key->data[key->size++] = slice_lower(name.data[i]);
    }
}

bool catalog_key_begin(struct catalog_key *key, struct slice name)
{
    key->size = 0;
    if (!catalog_name_valid(name)) {
        return false;
    }
    key_append_lower(key, name);
    return true;
}

bool catalog_key_add(struct catalog_key *key, struct slice name)
{
    if (!catalog_name_valid(name)) {
        return false;
    }
    assert(key->size > 0 && key->size < sizeof(key->data));
    key->data[key->size++] = '\0';
    key_append_lower(key, name);
    return true;
}

struct slice catalog_key_slice(const struct catalog_key *key)
{
    return slice_from(key->data, key->size);
}

bool catalog_index_key(struct catalog_key *key, struct slice service)
{
    static_assert(sizeof("service.") + CATALOG_NAME_BYTES_MAX < CATALOG_KEY_BYTES_MAX,
                  "an index's name fits into a key");
    if (!catalog_name_valid(service) || !catalog_key_begin(key, CATALOG_INDEX_SERVICE_PREFIX)) {
        return false;
    }
    key_append_lower(key, service);
    return true;
}

void catalog_name_copy(struct catalog_name *copy, struct slice name)
{
    assert(name.size <= sizeof(copy->data));
    if (name.size > 0) {
        memcpy(copy->data, name.data, name.size);
    }
    copy->size = name.size;
}

struct slice catalog_name_slice(const struct catalog_name *name)
{
    return slice_from(name->data, name->size);
}

/* --- single records --- */

static int node_read_at(struct store_txn *txn, struct slice key, struct catalog_node *out)
{
    struct slice value;
    const int rc = store_get(txn, STORE_NODE, key, &value);

    if (rc != 0) {
        return rc;
    }
    return catalog_node_decode(value, out) ? 0 : STORE_ECORRUPT;
}

int catalog_node_get(struct store_txn *txn, struct slice node, struct catalog_node *out)
{
    struct catalog_key key;

    if (!catalog_key_begin(&key, node)) {
        return STORE_ENOTFOUND;
    }
    return node_read_at(txn, catalog_key_slice(&key), out);
}

int catalog_node_get_by_id(struct store_txn *txn, struct slice id, struct catalog_node *out)
{
    struct catalog_key key;
    struct slice name;

    if (id.size != UUID_TEXT_BYTES || !catalog_key_begin(&key, id)) {
        return STORE_ENOTFOUND;
    }
    int rc = store_get(txn, STORE_NODE_ID, catalog_key_slice(&key), &name);
    if (rc != 0) {
        return rc;
    }
    rc = node_read_at(txn, name, out);
    /* Every id leads to a node: both are written together. */
    return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
}

/* Spells the start of an id as ids are stored: lower case, dashes after 8, 12, 16 and 20 digits.
 * False when it is not the start of any, as Consul reads it: it cuts an odd last character off,
 * then leaves up to four dashes out wherever they stand, and takes whole bytes. */
static bool node_find_prefix(struct slice text, char out[UUID_TEXT_BYTES], size_t *size)
{
    enum { TEXT_BYTES_MIN = 2, DIGITS_MAX = 2 * UUID_BYTES, DASHES = 4 };
    char digits[DIGITS_MAX];
    size_t count = 0;
    size_t dashes = 0;

    text.size -= text.size % 2;
    if (text.size < TEXT_BYTES_MIN || text.size > UUID_TEXT_BYTES) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        const char c = slice_lower(text.data[i]);
        if (c == '-') {
            dashes++;
            continue;
        }
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')) || count == DIGITS_MAX) {
            return false;
        }
        digits[count++] = c;
    }
    *size = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) {
            out[(*size)++] = '-';
        }
        out[(*size)++] = digits[i];
    }
    assert(*size <= UUID_TEXT_BYTES);
    return count % 2 == 0 && dashes <= DASHES;
}

int catalog_node_find(struct store_txn *txn, struct slice name_or_id, struct catalog_node *out)
{
    char prefix[UUID_TEXT_BYTES];
    size_t size;
    struct store_scan scan;
    struct slice key, name, other;
    int rc = catalog_node_get(txn, name_or_id, out);

    if (rc != STORE_ENOTFOUND || !node_find_prefix(name_or_id, prefix, &size)) {
        return rc;
    }
    rc = store_scan_begin(&scan, txn, STORE_NODE_ID, slice_from(prefix, size));
    if (rc != 0) {
        return rc;
    }
    rc = store_scan_next(&scan, &key, &name);
    if (rc == 0) {
        /* Two nodes: the prefix names none. */
        const int next = store_scan_next(&scan, &key, &other);
        rc = next == 0 ? STORE_ENOTFOUND : (next == STORE_ENOTFOUND ? 0 : next);
    }
    if (rc == 0) {
        rc = node_read_at(txn, name, out);
        rc = rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
    }
    store_scan_end(&scan);
    return rc;
}

static int service_read_at(struct store_txn *txn, struct slice key, struct catalog_service *out)
{
    struct slice value;
    const int rc = store_get(txn, STORE_SERVICE, key, &value);

    if (rc != 0) {
        return rc;
    }
    return catalog_service_decode(value, out) ? 0 : STORE_ECORRUPT;
}

int catalog_service_get(struct store_txn *txn, struct slice node, struct slice service_id,
                        struct catalog_service *out)
{
    struct catalog_key key;

    if (!catalog_key_begin(&key, node) || !catalog_key_add(&key, service_id)) {
        return STORE_ENOTFOUND;
    }
    return service_read_at(txn, catalog_key_slice(&key), out);
}

int catalog_check_get(struct store_txn *txn, struct slice node, struct slice check_id,
                      struct catalog_check *out)
{
    struct catalog_key key;
    struct slice value;

    if (!catalog_key_begin(&key, node) || !catalog_key_add(&key, check_id)) {
        return STORE_ENOTFOUND;
    }
    const int rc = store_get(txn, STORE_CHECK, catalog_key_slice(&key), &value);
    if (rc != 0) {
        return rc;
    }
    return catalog_check_decode(value, out) ? 0 : STORE_ECORRUPT;
}

int catalog_nodes_count(struct store_txn *txn, uint64_t *count)
{
    return store_table_count(txn, STORE_NODE, count);
}

/* --- scans --- */

int catalog_scan_begin(struct catalog_scan *scan, struct store_txn *txn, enum store_table table,
                       struct slice name)
{
    scan->prefix_size = 0;
    scan->key = SLICE_EMPTY;
    scan->empty = name.size > 0 && !catalog_name_valid(name);
    if (scan->empty) {
        return 0;
    }
    for (size_t i = 0; i < name.size; i++) {
        scan->prefix[scan->prefix_size++] = slice_lower(name.data[i]);
    }
    if (name.size > 0) {
        scan->prefix[scan->prefix_size++] = '\0';
    }
    assert(scan->prefix_size <= sizeof(scan->prefix));
    return store_scan_begin(&scan->scan, txn, table, slice_from(scan->prefix, scan->prefix_size));
}

int catalog_scan_next(struct catalog_scan *scan, struct slice *key, struct slice *value)
{
    if (scan->empty) {
        return STORE_ENOTFOUND;
    }
    const int rc = store_scan_next(&scan->scan, key, value);

    scan->key = rc == 0 ? *key : SLICE_EMPTY;
    return rc;
}

int catalog_scan_seek(struct catalog_scan *scan, struct slice key)
{
    struct store_txn *txn = scan->scan.txn;
    const enum store_table table = scan->scan.table;

    if (scan->empty) {
        return 0;
    }
    store_scan_end(&scan->scan);
    const int rc =
        store_scan_from(&scan->scan, txn, table, slice_from(scan->prefix, scan->prefix_size), key);
    scan->empty = rc != 0;
    return rc;
}

void catalog_scan_end(struct catalog_scan *scan)
{
    if (!scan->empty) {
        store_scan_end(&scan->scan);
    }
    scan->empty = true; /* Ending twice does no harm. */
}

int catalog_nodes_begin(struct catalog_scan *scan, struct store_txn *txn)
{
    return catalog_scan_begin(scan, txn, STORE_NODE, SLICE_EMPTY);
}

int catalog_nodes_next(struct catalog_scan *scan, struct catalog_node *out)
{
    struct slice key, value;
    const int rc = catalog_scan_next(scan, &key, &value);

    if (rc != 0) {
        return rc;
    }
    return catalog_node_decode(value, out) ? 0 : STORE_ECORRUPT;
}

int catalog_services_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice node)
{
    return catalog_scan_begin(scan, txn, STORE_SERVICE, node);
}

int catalog_services_next(struct catalog_scan *scan, struct catalog_service *out)
{
    struct slice key, value;
    const int rc = catalog_scan_next(scan, &key, &value);

    if (rc != 0) {
        return rc;
    }
    return catalog_service_decode(value, out) ? 0 : STORE_ECORRUPT;
}

int catalog_instances_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice service)
{
    const int rc = catalog_scan_begin(scan, txn, STORE_SERVICE_NAME, service);

    /* An empty name is not all services here: nothing is called so. */
    if (rc == 0 && service.size == 0) {
        catalog_scan_end(scan);
    }
    return rc;
}

int catalog_instances_next(struct catalog_scan *scan, struct catalog_service *service,
                           struct catalog_node *node)
{
    struct slice key, value;
    int rc = catalog_scan_next(scan, &key, &value);

    if (rc != 0) {
        return rc;
    }
    /* What follows the service's name is the key of the service's record, and what that starts with
     * is the key of its node's: nothing need be composed. */
    assert(key.size >= scan->prefix_size);
    const struct slice service_key =
        slice_from(key.data + scan->prefix_size, key.size - scan->prefix_size);
    const char *node_end = memchr(service_key.data, '\0', service_key.size);
    if (node_end == NULL) {
        return STORE_ECORRUPT;
    }
    rc = service_read_at(scan->scan.txn, service_key, service);
    if (rc == 0 && node != NULL) {
        const size_t node_size = (size_t)(node_end - service_key.data);
        rc = node_read_at(scan->scan.txn, slice_from(service_key.data, node_size), node);
    }
    /* The table of names holds nothing whose service and node are not there. */
    return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
}

int catalog_names_begin(struct catalog_scan *scan, struct store_txn *txn)
{
    return catalog_scan_begin(scan, txn, STORE_SERVICE_NAME, SLICE_EMPTY);
}

int catalog_names_next(struct catalog_scan *scan, struct slice *name)
{
    struct slice key, value;
    const int rc = catalog_scan_next(scan, &key, &value);

    if (rc != 0) {
        return rc;
    }
    const char *end = memchr(key.data, '\0', key.size);

    if (end == NULL) {
        return STORE_ECORRUPT;
    }
    *name = slice_from(key.data, (size_t)(end - key.data));
    return 0;
}

int catalog_checks_begin(struct catalog_scan *scan, struct store_txn *txn, struct slice node)
{
    return catalog_scan_begin(scan, txn, STORE_CHECK, node);
}

int catalog_checks_next(struct catalog_scan *scan, struct catalog_check *out)
{
    struct slice key, value;
    const int rc = catalog_scan_next(scan, &key, &value);

    if (rc != 0) {
        return rc;
    }
    return catalog_check_decode(value, out) ? 0 : STORE_ECORRUPT;
}

/* --- indexes --- */

int catalog_index_nodes(struct store_txn *txn, uint64_t *index)
{
    return store_index_get(txn, CATALOG_INDEX_NODES, index);
}

int catalog_index_services(struct store_txn *txn, uint64_t *index)
{
    return store_index_get(txn, CATALOG_INDEX_SERVICES, index);
}

int catalog_index_checks(struct store_txn *txn, uint64_t *index)
{
    return store_index_get(txn, CATALOG_INDEX_CHECKS, index);
}

int catalog_service_exists(struct store_txn *txn, struct slice service)
{
    struct catalog_scan scan;
    struct slice key, value;
    int rc;

    if (service.size == 0) {
        return STORE_ENOTFOUND;
    }
    rc = catalog_scan_begin(&scan, txn, STORE_SERVICE_NAME, service);
    if (rc != 0) {
        return rc;
    }
    rc = catalog_scan_next(&scan, &key, &value);
    catalog_scan_end(&scan);
    return rc;
}

/* What a name answers with that is not there and when no name has ever disappeared. */
static int index_service_never(struct store_txn *txn, uint64_t *index)
{
    const struct slice names[] = {CATALOG_INDEX_NODES, CATALOG_INDEX_SERVICES,
                                  CATALOG_INDEX_CHECKS};
    uint64_t highest = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint64_t one;
        const int rc = store_index_get(txn, names[i], &one);
        if (rc != 0) {
            return rc;
        }
        highest = one > highest ? one : highest;
    }
    *index = highest;
    return 0;
}

int catalog_index_service(struct store_txn *txn, struct slice service, uint64_t *index)
{
    struct catalog_key key;
    uint64_t found = 0;
    int rc = catalog_service_exists(txn, service);

    if (rc == 0) {
        const bool valid = catalog_index_key(&key, service);
        assert(valid); /* It exists. */
        rc = store_index_get(txn, catalog_key_slice(&key), &found);
    } else if (rc == STORE_ENOTFOUND) {
        rc = store_index_get(txn, CATALOG_INDEX_EXTINCTION, &found);
    }
    if (rc != 0) {
        return rc;
    }
    if (found == 0) {
        return index_service_never(txn, index);
    }
    *index = found;
    return 0;
}

/* --- for sessions --- */

static int sessions_node_get(struct store_txn *txn, struct slice node)
{
    struct catalog_node found;

    return catalog_node_get(txn, node, &found);
}

static int sessions_check_get(struct store_txn *txn, struct slice node, struct slice check_id,
                              bool *critical)
{
    struct catalog_check check;
    const int rc = catalog_check_get(txn, node, check_id, &check);

    if (rc != 0) {
        return rc;
    }
    *critical = catalog_check_is_critical(&check);
    return 0;
}

const struct session_catalog catalog_for_sessions = {
    .node_get = sessions_node_get,
    .check_get = sessions_check_get,
};
