/* A catalog write in progress: what it removes, whose sessions it ends, which indexes it moves. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/catalog/catalog_internal.h"
#include "server/catalog/coordinate.h"

/* Longest cause of a session's end: texts around one id. */
enum { CAUSE_BYTES_MAX = CATALOG_NAME_BYTES_MAX + 64 };

void catalog_change_init(struct catalog_change *change, struct store_txn *txn, uint64_t index,
                         struct session_stamp stamp, struct buffer *ended)
{
    assert(txn->write);
    assert(index > 0);
    *change = (struct catalog_change){.txn = txn, .index = index, .stamp = stamp, .ended = ended};
}

void catalog_change_deinit(struct catalog_change *change)
{
    buffer_deinit(&change->lost);
    buffer_deinit(&change->record);
}

static void change_note_service(struct catalog_change *change, struct slice service)
{
    struct catalog_key key;
    const bool valid = catalog_key_begin(&key, service);

    assert(valid); /* No other name is ever stored. */
    store_note(change->txn, STORE_TOPIC_SERVICE, catalog_key_slice(&key));
}

int catalog_change_touch_service(struct catalog_change *change, struct slice service)
{
    struct catalog_key key;
    const bool valid = catalog_index_key(&key, service);
    int rc;

    assert(valid);
    change_note_service(change, service);
    rc = catalog_service_exists(change->txn, service);
    if (rc == 0) {
        return store_index_set(change->txn, catalog_key_slice(&key), change->index);
    }
    if (rc != STORE_ENOTFOUND) {
        return rc;
    }
    rc = store_delete(change->txn, STORE_INDEX, catalog_key_slice(&key));
    if (rc == STORE_ENOTFOUND) {
        return 0; /* It had disappeared before: a check still knew it. */
    }
    return rc != 0 ? rc : store_index_set(change->txn, CATALOG_INDEX_EXTINCTION, change->index);
}

/* All service names of the node, each once per instance. Index records are not what is scanned, so
 * that the scan stays valid. */
static int change_touch_node(struct catalog_change *change, struct slice node)
{
    struct catalog_scan scan;
    struct catalog_service service;
    struct catalog_name name;
    int rc = catalog_services_begin(&scan, change->txn, node);

    if (rc != 0) {
        return rc;
    }
    while ((rc = catalog_services_next(&scan, &service)) == 0) {
        /* Copied: the first write ends what was borrowed. */
        catalog_name_copy(&name, service.name);
        rc = catalog_change_touch_service(change, catalog_name_slice(&name));
        if (rc != 0) {
            break;
        }
    }
    catalog_scan_end(&scan);
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

/* --- sessions --- */

/* A check that turned critical or went. */
struct change_loss {
    struct slice check_id;
    struct slice reason;
};

/* In the order of ids, then in the order they came. */
static int change_compare_losses(const void *left, const void *right)
{
    const struct change_loss *a = left;
    const struct change_loss *b = right;
    const int order = slice_compare_nocase(a->check_id, b->check_id);

    if (order != 0) {
        return order;
    }
    return (a->check_id.data > b->check_id.data) - (a->check_id.data < b->check_id.data);
}

int catalog_change_lose_check(struct catalog_change *change, struct slice check_id,
                              const char *reason)
{
    buffer_put_string(&change->lost, check_id);
    buffer_put_string(&change->lost, slice_from_text(reason));
    change->lost_count++;
    return change->lost.failed ? STORE_ENOMEM : 0;
}

/* Passes an ended session on, with its cause. */
static void change_put_ended(struct catalog_change *change, struct slice id, const char *kind,
                             struct slice what, struct slice reason)
{
    char cause[CAUSE_BYTES_MAX];
    const int size = snprintf(cause, sizeof(cause), "%s '%.*s' %.*s", kind, (int)what.size,
                              what.size == 0 ? "" : what.data, (int)reason.size, reason.data);

    assert(size > 0 && (size_t)size < sizeof(cause));
    buffer_append_slice(change->ended, id);
    buffer_put_string(change->ended, slice_from(cause, (size_t)size));
}

/* `losses` and `ids` have room for all that was lost. */
static int change_end_by_losses(struct catalog_change *change, struct slice node,
                                struct change_loss *losses, struct slice *ids, struct buffer *ended)
{
    struct reader lost = reader_from(buffer_slice(&change->lost));

    for (size_t i = 0; i < change->lost_count; i++) {
        losses[i].check_id = reader_string(&lost);
        losses[i].reason = reader_string(&lost);
    }
    assert(reader_done(&lost)); /* Our own bytes. */
    qsort(losses, change->lost_count, sizeof(*losses), change_compare_losses);
    for (size_t i = 0; i < change->lost_count; i++) {
        ids[i] = losses[i].check_id;
    }
    const int rc = session_invalidate_checks(change->txn, change->index, change->stamp, node, ids,
                                             change->lost_count, ended);
    struct reader it = reader_from(buffer_slice(ended));

    while (rc == 0 && !reader_done(&it)) {
        const struct slice id = reader_bytes(&it, UUID_BYTES);
        const uint32_t place = reader_u32(&it);

        assert(!it.failed && place < change->lost_count);
        change_put_ended(change, id, "check", losses[place].check_id, losses[place].reason);
    }
    return rc;
}

static int change_end_by_checks(struct catalog_change *change, struct slice node)
{
    if (change->lost_count == 0) {
        return 0;
    }
    struct change_loss *losses = calloc(change->lost_count, sizeof(*losses));
    struct slice *ids = calloc(change->lost_count, sizeof(*ids));
    struct buffer ended = {0};
    const int rc = losses == NULL || ids == NULL
                       ? STORE_ENOMEM
                       : change_end_by_losses(change, node, losses, ids, &ended);

    buffer_deinit(&ended);
    free(ids);
    free(losses);
    return rc;
}

static int change_end_by_node(struct catalog_change *change, struct slice node)
{
    struct buffer ended = {0};
    const int rc = session_invalidate_node(change->txn, change->index, change->stamp, node, &ended);
    struct reader it = reader_from(buffer_slice(&ended));

    while (rc == 0 && !reader_done(&it)) {
        const struct slice id = reader_bytes(&it, UUID_BYTES);

        (void)reader_u32(&it);
        assert(!it.failed);
        change_put_ended(change, id, "node", node, SLICE_LITERAL("removed"));
    }
    buffer_deinit(&ended);
    return rc;
}

/* --- settling --- */

static int change_table(struct catalog_change *change, bool changed, struct slice index_name,
                        enum store_topic topic)
{
    if (!changed) {
        return 0;
    }
    store_note(change->txn, topic, SLICE_EMPTY);
    return store_index_set(change->txn, index_name, change->index);
}

int catalog_change_finish(struct catalog_change *change, struct slice node)
{
    int rc = change_end_by_checks(change, node);

    if (rc == 0 && change->node_wide) {
        rc = change_touch_node(change, node);
    }
    if (rc == 0) {
        rc = change_table(change, change->nodes, CATALOG_INDEX_NODES, STORE_TOPIC_NODE);
    }
    if (rc == 0) {
        rc = change_table(change, change->services, CATALOG_INDEX_SERVICES, STORE_TOPIC_SERVICES);
    }
    if (rc == 0) {
        rc = change_table(change, change->checks, CATALOG_INDEX_CHECKS, STORE_TOPIC_CHECK);
    }
    if (rc == 0 && change->ended->failed) {
        rc = STORE_ENOMEM;
    }
    return rc;
}

/* --- removals --- */

int catalog_change_touch_check(struct catalog_change *change, struct slice node,
                               const struct catalog_check *check)
{
    struct catalog_service service;
    struct catalog_name names[2];
    size_t count = 0;

    if (check->service_id.size == 0) {
        change->node_wide = true;
        return 0;
    }
    /* The name that the check was registered for, and, since the check keeps that when the service
     * takes another, the one which it is shown under now. */
    if (catalog_name_valid(check->service_name)) {
        catalog_name_copy(&names[count++], check->service_name);
    }
    int rc = catalog_service_get(change->txn, node, check->service_id, &service);
    if (rc == 0 && !slice_equal_nocase(service.name, check->service_name)) {
        catalog_name_copy(&names[count++], service.name);
    }
    rc = rc == STORE_ENOTFOUND ? 0 : rc;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = catalog_change_touch_service(change, catalog_name_slice(&names[i]));
    }
    return rc;
}

int catalog_remove_check(struct catalog_change *change, struct slice node, struct slice check_id,
                         const char *reason)
{
    struct catalog_key key;
    struct catalog_check check;
    struct catalog_name id;
    int rc = catalog_check_get(change->txn, node, check_id, &check);

    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? 0 : rc;
    }
    catalog_name_copy(&id, check.id);
    if (check.service_id.size == 0) {
        change->services = true; /* Consul moves it here, though not when the check comes. */
    }
    rc = catalog_change_touch_check(change, node, &check);
    if (rc != 0) {
        return rc;
    }
    const bool valid = catalog_key_begin(&key, node) && catalog_key_add(&key, check_id);
    assert(valid); /* It was found. */
    rc = store_delete(change->txn, STORE_CHECK, catalog_key_slice(&key));
    if (rc != 0) {
        return rc;
    }
    change->checks = true;
    return catalog_change_lose_check(change, catalog_name_slice(&id), reason);
}

/* Packs the ids of the service's checks. */
static int remove_service_collect(struct catalog_change *change, struct slice node,
                                  struct slice service_id, struct buffer *ids)
{
    struct catalog_scan scan;
    struct catalog_check check;
    int rc = catalog_checks_begin(&scan, change->txn, node);

    if (rc != 0) {
        return rc;
    }
    while ((rc = catalog_checks_next(&scan, &check)) == 0) {
        if (slice_equal_nocase(check.service_id, service_id)) {
            buffer_put_string(ids, check.id);
        }
    }
    catalog_scan_end(&scan);
    if (rc != STORE_ENOTFOUND) {
        return rc;
    }
    return ids->failed ? STORE_ENOMEM : 0;
}

static int remove_service_checks(struct catalog_change *change, struct slice node,
                                 struct slice service_id)
{
    struct buffer ids = {0};
    int rc = remove_service_collect(change, node, service_id, &ids);
    struct reader it = reader_from(buffer_slice(&ids));

    while (rc == 0 && !reader_done(&it)) {
        const struct slice id = reader_string(&it);
        assert(!it.failed); /* Our own bytes. */
        rc = catalog_remove_check(change, node, id, "removed with its service");
    }
    buffer_deinit(&ids);
    return rc;
}

int catalog_remove_service(struct catalog_change *change, struct slice node,
                           struct slice service_id)
{
    struct catalog_key key;
    struct catalog_service service;
    struct catalog_name name;
    bool valid;
    int rc = catalog_service_get(change->txn, node, service_id, &service);

    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? 0 : rc;
    }
    catalog_name_copy(&name, service.name);
    rc = remove_service_checks(change, node, service_id);
    if (rc != 0) {
        return rc;
    }

    valid = catalog_key_begin(&key, node) && catalog_key_add(&key, service_id);
    assert(valid);
    rc = store_delete(change->txn, STORE_SERVICE, catalog_key_slice(&key));
    if (rc != 0) {
        return rc;
    }
    valid = catalog_key_begin(&key, catalog_name_slice(&name)) && catalog_key_add(&key, node) &&
            catalog_key_add(&key, service_id);
    assert(valid);
    rc = store_delete(change->txn, STORE_SERVICE_NAME, catalog_key_slice(&key));
    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
    }
    change->services = true;
    change->checks = true; /* Consul moves it even for a service without checks. */
    return catalog_change_touch_service(change, catalog_name_slice(&name));
}

/* The node's first check or service; STORE_ENOTFOUND when none is left. */
static int remove_node_first_check(struct catalog_change *change, struct slice node,
                                   struct catalog_name *id)
{
    struct catalog_scan scan;
    struct catalog_check check;
    int rc = catalog_checks_begin(&scan, change->txn, node);

    if (rc != 0) {
        return rc;
    }
    rc = catalog_checks_next(&scan, &check);
    if (rc == 0) {
        catalog_name_copy(id, check.id);
    }
    catalog_scan_end(&scan);
    return rc;
}

static int remove_node_first_service(struct catalog_change *change, struct slice node,
                                     struct catalog_name *id)
{
    struct catalog_scan scan;
    struct catalog_service service;
    int rc = catalog_services_begin(&scan, change->txn, node);

    if (rc != 0) {
        return rc;
    }
    rc = catalog_services_next(&scan, &service);
    if (rc == 0) {
        catalog_name_copy(id, service.id);
    }
    catalog_scan_end(&scan);
    return rc;
}

static int remove_node_contents(struct catalog_change *change, struct slice node)
{
    struct catalog_name id;
    int rc;

    /* Checks first: a service without checks need not look for them among all of the node's. */
    while ((rc = remove_node_first_check(change, node, &id)) == 0) {
        rc = catalog_remove_check(change, node, catalog_name_slice(&id), "removed with its node");
        if (rc != 0) {
            return rc;
        }
    }
    if (rc != STORE_ENOTFOUND) {
        return rc;
    }
    while ((rc = remove_node_first_service(change, node, &id)) == 0) {
        rc = catalog_remove_service(change, node, catalog_name_slice(&id));
        if (rc != 0) {
            return rc;
        }
    }
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

int catalog_remove_node(struct catalog_change *change, struct slice node)
{
    struct catalog_key key, id_key;
    struct catalog_node found;
    int rc = catalog_node_get(change->txn, node, &found);

    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? 0 : rc;
    }
    const bool has_id = catalog_key_begin(&id_key, found.id);
    assert(change->lost_count == 0);       /* A node goes before anything else changes. */
    rc = change_end_by_node(change, node); /* First, so that this is the cause that shows. */
    if (rc == 0) {
        rc = remove_node_contents(change, node);
        buffer_clear(
            &change->lost); /* Its sessions went first; another node's checks are others. */
        change->lost_count = 0;
    }
    if (rc == 0) {
        rc = coordinate_remove(change->txn, change->index, node);
    }
    if (rc == 0 && has_id) {
        rc = store_delete(change->txn, STORE_NODE_ID, catalog_key_slice(&id_key));
    }
    if (rc == 0) {
        const bool valid = catalog_key_begin(&key, node);
        assert(valid); /* It was found. */
        rc = store_delete(change->txn, STORE_NODE, catalog_key_slice(&key));
    }
    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
    }
    change->nodes = true; /* Each service that went has moved its own index. */
    return 0;
}

int catalog_deregister(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                       struct slice node, struct slice service_id, struct slice check_id,
                       struct buffer *ended)
{
    struct catalog_change change;
    int rc;

    catalog_change_init(&change, txn, index, stamp, ended);
    if (service_id.size > 0) {
        rc = catalog_remove_service(&change, node, service_id);
    } else if (check_id.size > 0) {
        rc = catalog_remove_check(&change, node, check_id, "removed");
    } else {
        rc = catalog_remove_node(&change, node);
    }
    if (rc == 0) {
        rc = catalog_change_finish(&change, node);
    }
    catalog_change_deinit(&change);
    return rc;
}
