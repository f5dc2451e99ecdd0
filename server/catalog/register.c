/* Registrations: everything is checked first, then written. */

#include <assert.h>
#include <stdio.h>

#include "server/catalog/catalog_internal.h"

#define CHECK_SERF SLICE_LITERAL("serfHealth")
#define STATUS_DEFAULT SLICE_LITERAL("critical")

/* For "%.*s": printf takes an int, and no NULL. */
static int text_size(struct slice text)
{
    return text.size > ERRMSG_BYTES_MAX ? ERRMSG_BYTES_MAX : (int)text.size;
}

static const char *text_data(struct slice text)
{
    return text.size == 0 ? "" : text.data;
}

/* A registration, completed (ids that default to names), with what was found out about it. */
struct registration_plan {
    struct store_txn *txn;
    const struct catalog_registration *registration;
    struct catalog_service service; /* if registration->has_service */
    bool node_exists;               /* by name */
    bool renamed;                   /* another node has the id: that one goes */
    struct catalog_name old_name;   /* of the other one */
    uint64_t renamed_create_index;  /* what the node inherits from it */
    struct errmsg *err;
};

/* --- checking --- */

/* As Go's uuid package words it. */
static int check_node_id(struct slice id, struct errmsg *err)
{
    if (id.size != UUID_TEXT_BYTES) {
        return errmsg_set(err, CATALOG_EINVAL, "Bad node ID: uuid string is wrong length");
    }
    if (id.data[8] != '-' || id.data[13] != '-' || id.data[18] != '-' || id.data[23] != '-') {
        return errmsg_set(err, CATALOG_EINVAL, "Bad node ID: uuid is improperly formatted");
    }
    for (size_t i = 0; i < id.size; i++) {
        const char c = slice_lower(id.data[i]);
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')) {
            continue;
        }
        const unsigned byte = (unsigned char)id.data[i];
        if (byte < ' ' || byte > '~') {
            return errmsg_set(err, CATALOG_EINVAL,
                              "Bad node ID: encoding/hex: invalid byte: U+%04X", byte);
        }
        return errmsg_set(err, CATALOG_EINVAL,
                          "Bad node ID: encoding/hex: invalid byte: U+%04X '%c'", byte, id.data[i]);
    }
    return 0;
}

/* Our own bound; Consul has none. An empty name is the caller's to refuse. */
static int check_name(const char *what, struct slice name, struct errmsg *err)
{
    if (name.size > 0 && !catalog_name_valid(name)) {
        return errmsg_set(err, CATALOG_EINVAL, "%s is longer than %d bytes or holds a NUL", what,
                          CATALOG_NAME_BYTES_MAX);
    }
    return 0;
}

/* What Consul checks before it looks at its state. */
static int check_request(struct registration_plan *plan)
{
    const struct catalog_node *node = &plan->registration->node;
    int rc;

    if (node->name.size == 0) {
        return errmsg_set(plan->err, CATALOG_EINVAL, "Must provide node");
    }
    if (node->id.size > 0 && (rc = check_node_id(node->id, plan->err)) != 0) {
        return rc;
    }
    if (node->address.size == 0 && !plan->registration->skip_node_update &&
        !plan->registration->address_optional) {
        return errmsg_set(plan->err, CATALOG_EINVAL,
                          "Must provide address if SkipNodeUpdate is not set");
    }
    rc = check_name("Node name", node->name, plan->err);
    if (rc != 0 || !plan->registration->has_service) {
        return rc;
    }

    plan->service = plan->registration->service;
    plan->service.node = node->name;
    if (plan->service.id.size == 0) {
        plan->service.id = plan->service.name;
    } else if (plan->service.name.size == 0) {
        return errmsg_set(plan->err, CATALOG_EINVAL, "Must provide service name with ID");
    }
    rc = check_name("Service ID", plan->service.id, plan->err);
    return rc != 0 ? rc : check_name("Service name", plan->service.name, plan->err);
}

/* Whether the node has a serfHealth check that is not critical: somebody lives there. */
static int node_alive(struct store_txn *txn, struct slice node, bool *alive)
{
    struct catalog_check check;
    const int rc = catalog_check_get(txn, node, CHECK_SERF, &check);

    *alive = rc == 0 && !catalog_check_is_critical(&check);
    return rc == STORE_ENOTFOUND ? 0 : rc;
}

/* The node's name is taken by `holder`, under another id or none. A node without an id may be given
 * one, a dead one may be replaced. */
static int check_name_free(struct registration_plan *plan, const struct catalog_node *holder)
{
    const struct catalog_node *node = &plan->registration->node;
    bool alive;

    if (slice_equal(holder->id, node->id) || (holder->id.size == 0 && !plan->renamed)) {
        return 0;
    }
    const int rc = node_alive(plan->txn, holder->name, &alive);
    if (rc != 0 || !alive) {
        return rc;
    }
    char address[ERRMSG_BYTES_MAX] = "";
    if (plan->renamed) {
        (void)snprintf(address, sizeof(address), " (%.*s)", text_size(node->address),
                       text_data(node->address)); /* Cut at most, as the whole text is. */
    }
    return errmsg_set(plan->err, CATALOG_EINVAL,
                      "failed inserting node: Error while renaming Node ID: \"%.*s\"%s: Node name "
                      "%.*s is reserved by node %.*s with name %.*s (%.*s)",
                      text_size(node->id), text_data(node->id), address, text_size(node->name),
                      text_data(node->name), text_size(holder->id), text_data(holder->id),
                      text_size(holder->name), text_data(holder->name), text_size(holder->address),
                      text_data(holder->address));
}

static int check_node(struct registration_plan *plan)
{
    const struct catalog_node *node = &plan->registration->node;
    struct catalog_node by_name, by_id;
    int rc = catalog_node_get(plan->txn, node->name, &by_name);

    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    plan->node_exists = rc == 0;
    if (node->id.size == 0 || (plan->node_exists && plan->registration->skip_node_update)) {
        return 0;
    }

    rc = catalog_node_get_by_id(plan->txn, node->id, &by_id);
    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    plan->renamed = rc == 0 && !slice_equal_nocase(by_id.name, node->name);
    if (plan->renamed) {
        catalog_name_copy(&plan->old_name, by_id.name);
        plan->renamed_create_index = by_id.create_index;
    }
    const bool same = rc == 0 && !plan->renamed;
    return plan->node_exists && !same ? check_name_free(plan, &by_name) : 0;
}

static bool meta_key_valid(struct slice key)
{
    for (size_t i = 0; i < key.size; i++) {
        const char c = slice_lower(key.data[i]);
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '_' || c == '-')) {
            return false;
        }
    }
    return true;
}

/* NULL when the pair is fine, else what is wrong with it. */
static const char *meta_pair_fault(struct slice key, struct slice value)
{
    static_assert(CATALOG_META_KEY_BYTES_MAX == 128 && CATALOG_META_VALUE_BYTES_MAX == 512,
                  "the texts name the limits");
    if (key.size == 0) {
        return "Key cannot be blank";
    }
    if (!meta_key_valid(key)) {
        return "Key contains invalid characters";
    }
    if (key.size > CATALOG_META_KEY_BYTES_MAX) {
        return "Key is too long (limit: 128 characters)";
    }
    if (slice_starts_with(key, SLICE_LITERAL("consul-"))) {
        return "Key prefix 'consul-' is reserved for internal use";
    }
    if (value.size > CATALOG_META_VALUE_BYTES_MAX) {
        return "Value is too long (limit: 512 characters)";
    }
    return NULL;
}

static int check_service(struct registration_plan *plan)
{
    const struct catalog_service *service = &plan->service;
    const struct slice node = plan->registration->node.name;
    struct reader it = strings_begin(service->meta);
    struct slice key, value;

    static_assert(CATALOG_META_PAIRS_MAX == 64, "the text names the limit");
    if (service->meta.count > 2 * CATALOG_META_PAIRS_MAX) {
        return errmsg_set(plan->err, CATALOG_EINVAL,
                          "failed inserting service: Invalid Service Meta for node %.*s and "
                          "serviceID %.*s: Node metadata cannot contain more than 64 key/value "
                          "pairs",
                          text_size(node), text_data(node), text_size(service->id),
                          text_data(service->id));
    }
    while (strings_next(&it, &key) && strings_next(&it, &value)) {
        const char *fault = meta_pair_fault(key, value);
        if (fault != NULL) {
            return errmsg_set(plan->err, CATALOG_EINVAL,
                              "failed inserting service: Invalid Service Meta for node %.*s and "
                              "serviceID %.*s: Couldn't load metadata pair ('%.*s', '%.*s'): %s",
                              text_size(node), text_data(node), text_size(service->id),
                              text_data(service->id), text_size(key), text_data(key),
                              text_size(value), text_data(value), fault);
        }
    }
    if (service->id.size == 0) {
        return errmsg_set(plan->err, CATALOG_EINVAL,
                          "failed inserting service: failed inserting service: object missing "
                          "primary index");
    }
    return 0;
}

/* Fills what a check may leave out. */
static void check_complete(const struct registration_plan *plan, struct catalog_check *check)
{
    if (check->node.size == 0) {
        check->node = plan->registration->node.name;
    }
    if (check->id.size == 0) {
        check->id = check->name;
    }
    if (check->status.size == 0) {
        check->status = STATUS_DEFAULT;
    }
}

/* Whether the service will be there when the check is written. */
static int check_service_known(const struct registration_plan *plan, struct slice service_id)
{
    struct catalog_service service;

    if (plan->registration->has_service && slice_equal_nocase(plan->service.id, service_id)) {
        return 0;
    }
    return catalog_service_get(plan->txn, plan->registration->node.name, service_id, &service);
}

static int check_check(struct registration_plan *plan, struct catalog_check *check)
{
    const struct slice node = plan->registration->node.name;
    int rc;

    check_complete(plan, check);
    if (!slice_equal(check->node, node)) {
        return errmsg_set(
            plan->err, CATALOG_EINVAL, "check node \"%.*s\" does not match node \"%.*s\"",
            text_size(check->node), text_data(check->node), text_size(node), text_data(node));
    }
    if (check->service_id.size > 0) {
        rc = check_service_known(plan, check->service_id);
        if (rc == STORE_ENOTFOUND) {
            return errmsg_set(plan->err, CATALOG_EINVAL,
                              "failed inserting check: Missing service registration on node "
                              "\"%.*s\"",
                              text_size(node), text_data(node));
        }
        if (rc != 0) {
            return rc;
        }
    }
    if (check->id.size == 0) {
        return errmsg_set(plan->err, CATALOG_EINVAL,
                          "failed inserting check: failed inserting check: object missing primary "
                          "index on node \"%.*s\"",
                          text_size(node), text_data(node));
    }
    return check_name("Check ID", check->id, plan->err);
}

static int check_checks(struct registration_plan *plan)
{
    struct reader it = reader_from(plan->registration->checks);
    struct catalog_check check;

    for (uint32_t i = 0; i < plan->registration->check_count; i++) {
        const struct slice bytes = reader_string(&it);
        if (it.failed || !catalog_check_decode(bytes, &check)) {
            return errmsg_set(plan->err, CATALOG_EINVAL, "malformed check in a registration");
        }
        const int rc = check_check(plan, &check);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* In Consul's order, so that of several faults the same one is named. */
static int registration_check(struct registration_plan *plan)
{
    int rc = check_request(plan);

    if (rc == 0) {
        rc = check_node(plan);
    }
    if (rc == 0 && plan->registration->has_service) {
        rc = check_service(plan);
    }
    return rc == 0 ? check_checks(plan) : rc;
}

/* --- writing --- */

/* Keeps STORE_NODE_ID in step when the node called `name` changes from one id to another. */
static int write_node_id(struct catalog_change *change, struct slice old_id, struct slice new_id,
                         struct slice name)
{
    struct catalog_key key, value;
    bool valid;
    int rc;

    if (old_id.size > 0 && !slice_equal_nocase(old_id, new_id)) {
        valid = catalog_key_begin(&key, old_id);
        assert(valid); /* It was stored. */
        rc = store_delete(change->txn, STORE_NODE_ID, catalog_key_slice(&key));
        if (rc != 0) {
            return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
        }
    }
    if (new_id.size == 0) {
        return 0;
    }
    valid = catalog_key_begin(&key, new_id) && catalog_key_begin(&value, name);
    assert(valid); /* Both were checked. */
    return store_put(change->txn, STORE_NODE_ID, catalog_key_slice(&key),
                     catalog_key_slice(&value));
}

static int write_node(struct catalog_change *change, const struct registration_plan *plan)
{
    struct catalog_node node = plan->registration->node;
    struct catalog_node old = {0};
    struct catalog_name old_id = {0};
    struct catalog_key key;
    struct slice old_bytes = SLICE_EMPTY;
    const bool valid = catalog_key_begin(&key, node.name);

    assert(valid); /* It was checked. */
    int rc = store_get(change->txn, STORE_NODE, catalog_key_slice(&key), &old_bytes);
    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    if (rc == 0 && !catalog_node_decode(old_bytes, &old)) {
        return STORE_ECORRUPT;
    }
    const bool exists = rc == 0;

    node.create_index = exists ? old.create_index : change->index;
    if (plan->renamed) {
        node.create_index = plan->renamed_create_index;
    }
    node.modify_index = exists ? old.modify_index : change->index;
    buffer_clear(&change->record);
    catalog_node_encode(&change->record, &node);
    if (!change->record.failed && exists && slice_equal(buffer_slice(&change->record), old_bytes)) {
        return 0;
    }
    catalog_name_copy(&old_id, old.id);
    node.modify_index = change->index;
    buffer_clear(&change->record);
    catalog_node_encode(&change->record, &node);
    if (change->record.failed) {
        return STORE_ENOMEM;
    }
    rc = store_put(change->txn, STORE_NODE, catalog_key_slice(&key), buffer_slice(&change->record));
    if (rc != 0) {
        return rc;
    }
    change->nodes = true;
    change->node_wide = true;
    return write_node_id(change, catalog_name_slice(&old_id), node.id, node.name);
}

/* The service's entry in the table of names goes from `old_name` (empty: none) to its own. */
static int write_service_name(struct catalog_change *change, const struct catalog_service *service,
                              struct slice old_name)
{
    struct catalog_key key;
    bool valid;
    int rc;

    if (old_name.size > 0 && slice_equal_nocase(old_name, service->name)) {
        return catalog_change_touch_service(change, service->name);
    }
    valid = catalog_key_begin(&key, service->name) && catalog_key_add(&key, service->node) &&
            catalog_key_add(&key, service->id);
    assert(valid); /* They were checked. */
    rc = store_put(change->txn, STORE_SERVICE_NAME, catalog_key_slice(&key), SLICE_EMPTY);
    if (rc == 0) {
        rc = catalog_change_touch_service(change, service->name);
    }
    if (rc != 0 || old_name.size == 0) {
        return rc;
    }
    valid = catalog_key_begin(&key, old_name) && catalog_key_add(&key, service->node) &&
            catalog_key_add(&key, service->id);
    assert(valid); /* It was stored. */
    rc = store_delete(change->txn, STORE_SERVICE_NAME, catalog_key_slice(&key));
    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
    }
    return catalog_change_touch_service(change, old_name);
}

static int write_service(struct catalog_change *change, const struct registration_plan *plan)
{
    struct catalog_service service = plan->service;
    struct catalog_service old = {0};
    struct catalog_name old_name;
    struct catalog_key key;
    struct slice old_bytes = SLICE_EMPTY;
    const bool valid = catalog_key_begin(&key, service.node) && catalog_key_add(&key, service.id);

    assert(valid); /* It was checked. */
    int rc = store_get(change->txn, STORE_SERVICE, catalog_key_slice(&key), &old_bytes);
    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    if (rc == 0 && !catalog_service_decode(old_bytes, &old)) {
        return STORE_ECORRUPT;
    }
    const bool exists = rc == 0;

    service.create_index = exists ? old.create_index : change->index;
    if (exists) {
        /* The spelling of the node's name alone is no change of the service. */
        service.node = old.node;
        service.modify_index = old.modify_index;
        buffer_clear(&change->record);
        catalog_service_encode(&change->record, &service);
        if (!change->record.failed && slice_equal(buffer_slice(&change->record), old_bytes)) {
            return 0;
        }
    }
    catalog_name_copy(&old_name, old.name);
    service.node = plan->registration->node.name;
    service.modify_index = change->index;
    buffer_clear(&change->record);
    catalog_service_encode(&change->record, &service);
    if (change->record.failed) {
        return STORE_ENOMEM;
    }
    rc = store_put(change->txn, STORE_SERVICE, catalog_key_slice(&key),
                   buffer_slice(&change->record));
    if (rc != 0) {
        return rc;
    }
    change->services = true;
    return write_service_name(change, &service, catalog_name_slice(&old_name));
}

/* Copies the service's name and tags into the check, as Consul does at this moment only: a service
 * that is registered anew leaves its checks as they are. */
static int write_check_inherit(struct catalog_change *change, struct slice node,
                               struct catalog_check *check)
{
    struct catalog_service service;

    if (check->service_id.size == 0) {
        return 0;
    }
    const int rc = catalog_service_get(change->txn, node, check->service_id, &service);
    if (rc != 0) {
        return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc; /* It was checked to be there. */
    }
    check->service_name = service.name;
    check->service_tags = service.tags;
    return 0;
}

/* Encodes the check for its key into change->record; *same tells that nothing would change. All
 * that is borrowed from the store is used up here, but for old's slices. */
static int write_check_encode(struct catalog_change *change, struct slice key,
                              struct catalog_check *check, struct catalog_check *old, bool *exists,
                              bool *same)
{
    struct slice old_bytes = SLICE_EMPTY;
    int rc = store_get(change->txn, STORE_CHECK, key, &old_bytes);

    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    if (rc == 0 && !catalog_check_decode(old_bytes, old)) {
        return STORE_ECORRUPT;
    }
    *exists = rc == 0;
    *same = false;
    check->create_index = *exists ? old->create_index : change->index;
    if (*exists) {
        const struct slice node = check->node;
        check->node = old->node;
        check->modify_index = old->modify_index;
        buffer_clear(&change->record);
        catalog_check_encode(&change->record, check);
        *same = !change->record.failed && slice_equal(buffer_slice(&change->record), old_bytes);
        check->node = node;
    }
    check->modify_index = change->index;
    buffer_clear(&change->record);
    catalog_check_encode(&change->record, check);
    return change->record.failed ? STORE_ENOMEM : 0;
}

static int write_check(struct catalog_change *change, struct catalog_check *check)
{
    struct catalog_check old = {0};
    struct catalog_key key;
    bool exists, same;
    const bool critical = catalog_check_is_critical(check);
    const bool valid = catalog_key_begin(&key, check->node) && catalog_key_add(&key, check->id);

    assert(valid); /* It was checked. */
    int rc = write_check_inherit(change, check->node, check);
    if (rc == 0) {
        rc = write_check_encode(change, catalog_key_slice(&key), check, &old, &exists, &same);
    }
    if (rc != 0) {
        return rc;
    }
    if (!same) {
        struct catalog_check written;

        /* What it was may have concerned another service, or the node as a whole. */
        rc = exists ? catalog_change_touch_check(change, check->node, &old) : 0;
        if (rc == 0) {
            rc = store_put(change->txn, STORE_CHECK, catalog_key_slice(&key),
                           buffer_slice(&change->record));
        }
        const bool decoded = catalog_check_decode(buffer_slice(&change->record), &written);
        assert(decoded); /* Our own bytes; the ones in `check` may be gone from the map. */
        if (rc == 0) {
            rc = catalog_change_touch_check(change, check->node, &written);
        }
        if (rc != 0) {
            return rc;
        }
        change->checks = true;
    }
    return critical ? catalog_change_lose_check(change, check->id, "critical") : 0;
}

static int write_checks(struct catalog_change *change, const struct registration_plan *plan)
{
    struct reader it = reader_from(plan->registration->checks);
    struct catalog_check check;

    for (uint32_t i = 0; i < plan->registration->check_count; i++) {
        const bool decoded = catalog_check_decode(reader_string(&it), &check);
        assert(decoded); /* They were all checked. */
        check_complete(plan, &check);
        const int rc = write_check(change, &check);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int registration_write(struct catalog_change *change, const struct registration_plan *plan)
{
    int rc = 0;

    if (plan->renamed) {
        rc = catalog_remove_node(change, catalog_name_slice(&plan->old_name));
    }
    if (rc == 0 && !(plan->node_exists && plan->registration->skip_node_update)) {
        rc = write_node(change, plan);
    }
    if (rc == 0 && plan->registration->has_service) {
        rc = write_service(change, plan);
    }
    if (rc == 0) {
        rc = write_checks(change, plan);
    }
    return rc == 0 ? catalog_change_finish(change, plan->registration->node.name) : rc;
}

int catalog_register(struct store_txn *txn, uint64_t index, struct session_stamp stamp,
                     const struct catalog_registration *registration, struct buffer *ended,
                     struct errmsg *err)
{
    struct registration_plan plan = {.txn = txn, .registration = registration, .err = err};
    struct catalog_change change;
    int rc = registration_check(&plan);

    if (rc != 0) {
        return rc;
    }
    catalog_change_init(&change, txn, index, stamp, ended);
    rc = registration_write(&change, &plan);
    catalog_change_deinit(&change);
    assert(rc != CATALOG_EINVAL); /* Nothing is found wrong once writing has begun. */
    return rc;
}
