/* Operations on nodes, services and checks, with Consul 1.8's texts for what fails. */

#include "server/catalog/txn_internal.h"

/* The text without what the catalog's own endpoint says in front of it. */
static const char *txn_register_fault(const char *text)
{
    static const char *const prefixes[] = {
        "failed inserting node: ", "failed inserting service: ", "failed inserting check: "};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        const size_t size = strlen(prefixes[i]);
        if (strncmp(text, prefixes[i], size) == 0) {
            return text + size;
        }
    }
    return text;
}

/* *registered is false when it was refused. */
static int txn_register(struct txn_run_state *run, const struct catalog_registration *registration,
                        bool *registered)
{
    struct errmsg err = {""};
    const int rc =
        catalog_register(run->txn, run->index, run->stamp, registration, run->ended, &err);

    *registered = rc == 0;
    return rc == CATALOG_EINVAL ? txn_refuse_text(run, txn_register_fault(err.text)) : rc;
}

static int txn_deregister(struct txn_run_state *run, struct slice node, struct slice service_id,
                          struct slice check_id)
{
    return node.size == 0 ? 0
                          : catalog_deregister(run->txn, run->index, run->stamp, node, service_id,
                                               check_id, run->ended);
}

/* The record that an operation is about. */
struct txn_subject {
    const char *kind;         /* as texts name it: "service " */
    const char *verb_unknown; /* "unknown Service verb " */
    struct slice id;
    const struct slice *node; /* NULL: it is the node */
    bool found;
    uint64_t modify_index; /* if found */
};

/* What an operation comes to, after its conditions were looked at. */
enum txn_step { TXN_STEP_GET, TXN_STEP_SET, TXN_STEP_DELETE, TXN_STEP_REFUSED };

static enum txn_step txn_refuse_step(struct txn_run_state *run, const struct txn_subject *subject,
                                     const char *before, const char *behind)
{
    struct txn_phrase phrases[4];
    size_t count = 0;

    phrases[count++] = (struct txn_phrase){before, TXN_NO_NAME};
    phrases[count++] = (struct txn_phrase){subject->kind, subject->id};
    if (subject->node != NULL) {
        phrases[count++] = (struct txn_phrase){" on node ", *subject->node};
    }
    phrases[count++] = (struct txn_phrase){behind, TXN_NO_NAME};
    (void)txn_refuse(run, phrases, count);
    return TXN_STEP_REFUSED;
}

static enum txn_step txn_decide(struct txn_run_state *run, const struct txn_op *op,
                                const struct txn_subject *subject)
{
    const bool same_index = subject->found && op->index == subject->modify_index;

    switch (op->verb) {
    case TXN_GET:
        return subject->found ? TXN_STEP_GET : txn_refuse_step(run, subject, "", " doesn't exist");
    case TXN_SET:
        return TXN_STEP_SET;
    case TXN_CAS: /* Index 0: only if it is not there. */
        return (op->index == 0 ? !subject->found : same_index)
                   ? TXN_STEP_SET
                   : txn_refuse_step(run, subject, "failed to set ", ", index is stale");
    case TXN_DELETE:
        return TXN_STEP_DELETE;
    case TXN_DELETE_CAS:
        return same_index ? TXN_STEP_DELETE
                          : txn_refuse_step(run, subject, "failed to delete ", ", index is stale");
    default: /* The verbs of keys do not decode here. */
        (void)TXN_REFUSE(run, {subject->verb_unknown, op->verb_text});
        return TXN_STEP_REFUSED;
    }
}

int txn_node_verify(struct txn_run_state *run, const struct txn_op *op)
{
    struct uuid id;

    if (op->verb == TXN_GET) {
        return 0;
    }
    if (op->node.name.size == 0) {
        return txn_refuse_text(run, "Must provide node");
    }
    if (op->node.id.size > 0 && op->node.id.size != UUID_TEXT_BYTES) {
        return txn_refuse_text(run, "Bad node ID: uuid string is wrong length");
    }
    if (op->node.id.size > 0 && !uuid_parse(op->node.id, &id)) {
        return txn_refuse_text(run, "Bad node ID: uuid is improperly formatted");
    }
    return 0;
}

static int txn_node_find(struct txn_run_state *run, const struct txn_op *op,
                         struct catalog_node *node)
{
    if (op->verb == TXN_GET && op->node.id.size > 0) {
        return catalog_node_get_by_id(run->txn, op->node.id, node);
    }
    return catalog_node_get(run->txn, op->node.name, node);
}

static int txn_node_set(struct txn_run_state *run, const struct txn_op *op)
{
    const struct catalog_registration registration = {.node = op->node, .address_optional = true};
    struct catalog_node node;
    bool registered;
    int rc = txn_register(run, &registration, &registered);

    if (rc != 0 || !registered) {
        return rc;
    }
    rc = catalog_node_get(run->txn, op->node.name, &node);
    return rc == 0 ? txn_result_put_node(run, &node) : rc;
}

int txn_node_run(struct txn_run_state *run, const struct txn_op *op)
{
    struct catalog_node node = {0};
    const int rc = txn_node_find(run, op, &node);
    const struct txn_subject subject = {
        .kind = "node ",
        .verb_unknown = "unknown Node verb ",
        .id = op->node.name,
        .found = rc == 0,
        .modify_index = node.modify_index,
    };

    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    switch (txn_decide(run, op, &subject)) {
    case TXN_STEP_GET:
        return txn_result_put_node(run, &node);
    case TXN_STEP_SET:
        return txn_node_set(run, op);
    case TXN_STEP_DELETE:
        return txn_deregister(run, op->node.name, SLICE_EMPTY, SLICE_EMPTY);
    case TXN_STEP_REFUSED:
        break;
    }
    return 0;
}

int txn_service_verify(struct txn_run_state *run, const struct txn_op *op)
{
    const struct slice address = op->service.address;

    if (op->verb == TXN_GET) {
        return 0;
    }
    if (op->service.id.size > 0 && op->service.name.size == 0) {
        return txn_refuse_text(run, "Must provide service name with ID");
    }
    if (slice_equal(address, SLICE_LITERAL("0.0.0.0")) ||
        slice_equal(address, SLICE_LITERAL("::"))) {
        return txn_refuse_text(run, "Invalid service address");
    }
    return 0;
}

static int txn_service_set(struct txn_run_state *run, const struct txn_op *op, struct slice id)
{
    struct catalog_registration registration = {.node = {.name = op->service.node},
                                                .skip_node_update = true,
                                                .has_service = true,
                                                .service = op->service};
    struct catalog_service service;
    struct catalog_node node;
    bool registered;
    int rc = op->service.node.size == 0 ? STORE_ENOTFOUND
                                        : catalog_node_get(run->txn, op->service.node, &node);

    if (rc == STORE_ENOTFOUND) {
        return txn_refuse_text(run, "Missing node registration");
    }
    if (rc != 0) {
        return rc;
    }
    registration.service.id = id;
    rc = txn_register(run, &registration, &registered);
    if (rc != 0 || !registered) {
        return rc;
    }
    rc = catalog_service_get(run->txn, op->service.node, id, &service);
    return rc == 0 ? txn_result_put_service(run, &service) : rc;
}

int txn_service_run(struct txn_run_state *run, const struct txn_op *op)
{
    const struct slice name = op->service.node;
    const struct slice id =
        op->verb != TXN_GET && op->service.id.size == 0 ? op->service.name : op->service.id;
    struct catalog_service service = {0};
    const int rc = catalog_service_get(run->txn, name, id, &service);
    const struct txn_subject subject = {
        .kind = "service ",
        .verb_unknown = "unknown Service verb ",
        .id = id,
        .node = &name,
        .found = rc == 0,
        .modify_index = service.modify_index,
    };

    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    switch (txn_decide(run, op, &subject)) {
    case TXN_STEP_GET:
        return txn_result_put_service(run, &service);
    case TXN_STEP_SET:
        return txn_service_set(run, op, id);
    case TXN_STEP_DELETE:
        /* Without an id, a deregistration would mean the node. */
        return id.size == 0 ? 0 : txn_deregister(run, name, id, SLICE_EMPTY);
    case TXN_STEP_REFUSED:
        break;
    }
    return 0;
}

/* Consul's words, which are not those of the catalog's endpoint. 0 also when refused: run->failed
 * and *fine tell. */
static int txn_check_set_allowed(struct txn_run_state *run, const struct txn_op *op,
                                 struct slice id, bool *fine)
{
    struct catalog_node node;
    struct catalog_service service;
    int rc = catalog_node_get(run->txn, op->check.node, &node);

    *fine = false;
    if (rc == STORE_ENOTFOUND) {
        return txn_refuse_text(run, "Missing node registration");
    }
    if (rc == 0 && op->check.service_id.size > 0) {
        rc = catalog_service_get(run->txn, op->check.node, op->check.service_id, &service);
        if (rc == STORE_ENOTFOUND) {
            return txn_refuse_text(run, "Missing service registration");
        }
    }
    if (rc == 0 && id.size == 0) {
        return txn_refuse_text(run, "failed inserting check: object missing primary index");
    }
    *fine = rc == 0;
    return rc;
}

static int txn_check_set(struct txn_run_state *run, const struct txn_op *op, struct slice id)
{
    struct catalog_check check = op->check;
    struct buffer record = {0};
    bool registered = false;
    bool fine;
    int rc = txn_check_set_allowed(run, op, id, &fine);

    if (rc != 0 || !fine) {
        return rc;
    }
    check.id = id;
    txn_put_check(&record, &check);
    if (record.failed) {
        buffer_deinit(&record);
        return STORE_ENOMEM;
    }
    const struct catalog_registration registration = {.node = {.name = op->check.node},
                                                      .skip_node_update = true,
                                                      .check_count = 1,
                                                      .checks = buffer_slice(&record)};
    rc = txn_register(run, &registration, &registered);
    buffer_deinit(&record);
    if (rc != 0 || !registered) {
        return rc;
    }
    rc = catalog_check_get(run->txn, op->check.node, id, &check);
    return rc == 0 ? txn_result_put_check(run, &check) : rc;
}

int txn_check_run(struct txn_run_state *run, const struct txn_op *op)
{
    const struct slice name = op->check.node;
    const struct slice id =
        op->verb != TXN_GET && op->check.id.size == 0 ? op->check.name : op->check.id;
    struct catalog_check check = {0};
    const int rc = catalog_check_get(run->txn, name, id, &check);
    const struct txn_subject subject = {
        .kind = "check ",
        .verb_unknown = "unknown Check verb ",
        .id = id,
        .node = &name,
        .found = rc == 0,
        .modify_index = check.modify_index,
    };

    if (rc != 0 && rc != STORE_ENOTFOUND) {
        return rc;
    }
    switch (txn_decide(run, op, &subject)) {
    case TXN_STEP_GET:
        return txn_result_put_check(run, &check);
    case TXN_STEP_SET:
        return txn_check_set(run, op, id);
    case TXN_STEP_DELETE:
        /* Without an id, a deregistration would mean the node. */
        return id.size == 0 ? 0 : txn_deregister(run, name, SLICE_EMPTY, id);
    case TXN_STEP_REFUSED:
        break;
    }
    return 0;
}
