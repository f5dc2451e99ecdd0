#include "tests/unit/state_fixture.h"

#include "server/catalog/catalog.h"

#define ID1 "deadbeef-0000-4000-8000-00000000abc1"
#define ID1_UPPER "DEADBEEF-0000-4000-8000-00000000ABC1"
#define ID2 "deadbeef-0000-4000-8000-00000000abc2"

static const struct session_stamp stamp = {.term = 1, .now_ms = 1000};

/* --- a registration or deregistration in one line --- */

struct step {
    const char *name;
    char op; /* '+' or '-' */
    const char *node, *node_id, *address;
    bool skip_node_update;
    const char *service_id, *service; /* "" is given but empty, NULL is none */
    const char *tag;
    uint32_t port;
    const char *check, *check_service, *status, *output;
    /* Indexes that are the step's own afterwards: N, S, C for the tables, w and a for services
     * called web and api, x for one that never was. */
    const char *moved;
    const char *error; /* NULL: done */
};

static struct strings pack(struct buffer *buffer, size_t count, ...)
{
    va_list strings;

    va_start(strings, count);
    for (size_t i = 0; i < count; i++) {
        strings_pack_add(buffer, text(va_arg(strings, const char *)));
    }
    va_end(strings);
    return strings_from_packed(buffer_slice(buffer), (uint32_t)count);
}

static int step_register(struct store_txn *txn, uint64_t index, const struct step *step,
                         struct buffer *ended, struct errmsg *err)
{
    struct buffer tags = {0}, check_bytes = {0}, checks = {0};
    struct catalog_registration registration = {
        .node = {.name = text(step->node),
                 .id = text(step->node_id),
                 .address = text(step->address),
                 .datacenter = SLICE_LITERAL("dc1"),
                 .tagged_addresses = STRINGS_NULL,
                 .meta = STRINGS_NULL},
        .skip_node_update = step->skip_node_update,
        .has_service = step->service_id != NULL || step->service != NULL,
    };

    if (registration.has_service) {
        registration.service = (struct catalog_service){.id = text(step->service_id),
                                                        .name = text(step->service),
                                                        .port = step->port,
                                                        .weight_passing = 1,
                                                        .weight_warning = 1,
                                                        .meta = STRINGS_NULL,
                                                        .tagged_addresses = STRINGS_NULL};
        if (step->tag != NULL) {
            registration.service.tags = pack(&tags, 1, step->tag);
        }
    }
    if (step->check != NULL) {
        const struct catalog_check check = {.id = text(step->check),
                                            .service_id = text(step->check_service),
                                            .status = text(step->status),
                                            .output = text(step->output)};
        catalog_check_encode(&check_bytes, &check);
        buffer_put_string(&checks, buffer_slice(&check_bytes));
        registration.check_count = 1;
        registration.checks = buffer_slice(&checks);
    }
    const int rc = catalog_register(txn, index, stamp, &registration, ended, err);
    buffer_deinit(&tags);
    buffer_deinit(&check_bytes);
    buffer_deinit(&checks);
    return rc;
}

static int step_do(struct store_txn *txn, uint64_t index, const struct step *step,
                   struct buffer *ended, struct errmsg *err)
{
    if (step->op == '+') {
        return step_register(txn, index, step, ended, err);
    }
    return catalog_deregister(txn, index, stamp, text(step->node), text(step->service_id),
                              text(step->check), ended);
}

/* The letters of the indexes that are `index`. */
static void moved_by(struct store_txn *txn, uint64_t index, char out[8])
{
    static const char letters[] = "NSCwax";
    uint64_t values[6];

    assert_int_equal(catalog_index_nodes(txn, &values[0]), 0);
    assert_int_equal(catalog_index_services(txn, &values[1]), 0);
    assert_int_equal(catalog_index_checks(txn, &values[2]), 0);
    assert_int_equal(catalog_index_service(txn, SLICE_LITERAL("WEB"), &values[3]), 0);
    assert_int_equal(catalog_index_service(txn, SLICE_LITERAL("api"), &values[4]), 0);
    assert_int_equal(catalog_index_service(txn, SLICE_LITERAL("never"), &values[5]), 0);
    for (size_t i = 0; i < 6; i++) {
        if (values[i] == index) {
            *out++ = letters[i];
        }
    }
    *out = '\0';
}

static void steps_run(const struct step *steps, size_t count)
{
    struct fixture fixture;
    struct buffer ended = {0};
    char moved[8];

    fixture_open(&fixture);
    fixture_begin(&fixture);
    for (size_t i = 0; i < count; i++) {
        const struct step *step = &steps[i];
        const uint64_t index = 10 + i;
        const uint64_t before = fixture_checksum(&fixture.txn);
        struct errmsg err = {""};
        const int rc = step_do(&fixture.txn, index, step, &ended, &err);

        if (rc != (step->error == NULL ? 0 : CATALOG_EINVAL) ||
            strcmp(err.text, step->error == NULL ? "" : step->error) != 0) {
            fail_msg("%zu %s: %d '%s'", i, step->name, rc, err.text);
        }
        moved_by(&fixture.txn, index, moved);
        if (strcmp(moved, step->moved) != 0) {
            fail_msg("%zu %s: moved '%s', not '%s'", i, step->name, moved, step->moved);
        }
        if (moved[0] == '\0' && fixture_checksum(&fixture.txn) != before) {
            fail_msg("%zu %s: no index moved, but the state did", i, step->name);
        }
    }
    assert_int_equal(ended.size, 0); /* There was no session to end. */
    buffer_deinit(&ended);
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

#define N1 .node = "n1", .address = "10.0.0.1"

/* As a running Consul 1.8.7 has it, but for the rows with a comment. */
static void test_indexes_move_as_recorded(void **state)
{
    static const struct step steps[] = {
        {"node", '+', N1, .moved = "Nwax"},
        {"same node", '+', N1, .moved = ""},
        {"service", '+', N1, .service_id = "w1", .service = "web", .moved = "Swax"},
        {"same service", '+', N1, .service_id = "w1", .service = "web", .moved = ""},
        {"other service", '+', N1, .service_id = "w2", .service = "api", .moved = "Sax"},
        {"node check", '+', N1, .check = "c", .status = "passing", .moved = "Cwax"},
        /* 1.8 moves C and x here. */
        {"same check", '+', N1, .check = "c", .status = "passing", .moved = ""},
        {"output", '+', N1, .check = "c", .status = "passing", .output = "o", .moved = "Cwax"},
        {"service check", '+', N1, .check = "sc", .check_service = "w1", .moved = "Cwx"},
        {"same", '+', N1, .check = "sc", .check_service = "w1", .moved = ""},
        {"becomes the node's", '+', N1, .check = "sc", .moved = "Cwax"},
        /* 1.8 leaves w: the node's check concerned it, too. */
        {"becomes api's", '+', N1, .check = "sc", .check_service = "w2", .moved = "Cwax"},
        /* 1.8 leaves a. */
        {"goes back", '+', N1, .check = "sc", .check_service = "w1", .moved = "Cwax"},
        {"tags", '+', N1, .service_id = "w1", .service = "web", .tag = "t", .moved = "Swx"},
        {"check takes the tags", '+', N1, .check = "sc", .check_service = "w1", .moved = "Cwx"},
        /* 1.8 leaves w and forgets its waiters. */
        {"another name", '+', N1, .service_id = "w1", .service = "new", .tag = "t", .moved = "Swx"},
        {"its name again", '+', N1, .service_id = "w1", .service = "web", .tag = "t",
         .moved = "Swx"},
        {"id's case", '+', N1, .service_id = "W1", .service = "web", .tag = "t", .moved = "Sw"},
        {"name's case", '+', N1, .service_id = "W1", .service = "WEB", .tag = "t", .moved = "Sw"},
        {"check id's case", '+', N1, .check = "C", .status = "passing", .output = "o",
         .moved = "Cwa"},
        {"node's case", '+', .node = "N1", .address = "10.0.0.1", .moved = "Nwa"},
        {"address", '+', .node = "N1", .address = "10.0.0.2", .moved = "Nwa"},
        {"no node update", '+', .node = "n1", .skip_node_update = true, .moved = ""},
        {"check gone", '-', .node = "n1", .check = "c", .moved = "SCwa"},
        {"again", '-', .node = "n1", .check = "c", .moved = ""},
        {"service check gone", '-', .node = "n1", .check = "sc", .moved = "Cw"},
        {"service gone", '-', .node = "n1", .service_id = "w2", .moved = "SCax"},
        {"again", '-', .node = "n1", .service_id = "w2", .moved = ""},
        {"check", '+', .node = "N1", .address = "10.0.0.2", .check = "sc", .check_service = "w1",
         .moved = "Cw"},
        {"service gone with check", '-', .node = "n1", .service_id = "w1", .moved = "SCwax"},
        {"node gone", '-', .node = "n1", .moved = "N"},
        {"again", '-', .node = "n1", .moved = ""},
        {"nothing named", '-', .node = "", .moved = ""},
        {"all at once", '+', N1, .service_id = "w1", .service = "web", .check = "x",
         .check_service = "w1", .moved = "NSCw"},
        {"all the same", '+', N1, .service_id = "w1", .service = "web", .check = "x",
         .check_service = "w1", .moved = ""},
        {"port, but not the check", '+', N1, .service_id = "w1", .service = "web", .port = 3,
         .check = "x", .check_service = "w1", .moved = "Sw"},
        {"node gone with all", '-', .node = "N1", .moved = "NSCwax"},
        {"node with check", '+', N1, .check = "x", .moved = "NC"},
        {"no node update, new node", '+', .node = "n9", .skip_node_update = true, .moved = "N"},
        {"gone", '-', .node = "n9", .moved = "N"},
        {"service of its own name", '+', N1, .service = "web", .moved = "Sw"},
        {"second instance", '+', N1, .service_id = "b", .service = "web", .moved = "Sw"},
        {"one of two gone", '-', .node = "n1", .service_id = "web", .moved = "SCw"},
        {"node gone with all", '-', .node = "n1", .moved = "NSCwax"},
    };

    (void)state;
    steps_run(steps, sizeof(steps) / sizeof(steps[0]));
}

/* Texts and outcomes as a running Consul 1.8.7 has them. */
static void test_node_ids_rename_and_conflict(void **state)
{
    static const struct step steps[] = {
        {"a", '+', .node = "a", .node_id = ID1, .address = "1.1.1.1", .service = "web",
         .check = "sc", .check_service = "web", .moved = "NSCwax"},
        {"a's case", '+', .node = "A", .node_id = ID1, .address = "1.1.1.1", .moved = "Nwax"},
        {"id's case", '+', .node = "A", .node_id = ID1_UPPER, .address = "1.1.1.1",
         .moved = "Nwax"},
        {"rename drops the old", '+', .node = "b", .node_id = ID1, .address = "1.1.1.1",
         .moved = "NSCwax"},
        {"id dropped", '+', .node = "b", .address = "1.1.1.1", .moved = "N"},
        {"id given", '+', .node = "b", .node_id = ID1, .address = "1.1.1.1", .moved = "N"},
        {"other id, nobody lives there", '+', .node = "b", .node_id = ID2, .address = "1.1.1.1",
         .moved = "N"},
        {"alive", '+', .node = "b", .node_id = ID2, .address = "1.1.1.1", .check = "serfHealth",
         .status = "passing", .moved = "C"},
        {"other id", '+', .node = "B", .node_id = ID1, .address = "1.1.1.1", .moved = "",
         .error = "failed inserting node: Error while renaming Node ID: \"" ID1
                  "\": Node name B is reserved by node " ID2 " with name b (1.1.1.1)"},
        {"c", '+', .node = "c", .node_id = ID1, .address = "1.1.1.1", .moved = "N"},
        {"c onto b", '+', .node = "b", .node_id = ID1, .address = "1.1.1.2", .moved = "",
         .error = "failed inserting node: Error while renaming Node ID: \"" ID1
                  "\" (1.1.1.2): Node name b is reserved by node " ID2 " with name b (1.1.1.1)"},
        {"same, no node update", '+', .node = "b", .node_id = ID1, .skip_node_update = true,
         .moved = ""},
        {"b dies", '+', .node = "b", .node_id = ID2, .address = "1.1.1.1", .check = "serfHealth",
         .status = "critical", .moved = "C"},
        {"c onto dead b", '+', .node = "b", .node_id = ID1, .address = "1.1.1.1", .moved = "N"},
        {"new node takes the id", '+', .node = "d", .node_id = ID1, .skip_node_update = true,
         .moved = "NSC"},
        {"e without id, alive", '+', .node = "e", .address = "1.1.1.1", .check = "serfHealth",
         .status = "passing", .moved = "NC"},
        {"d onto e", '+', .node = "e", .node_id = ID1, .address = "1.1.1.1", .moved = "",
         .error = "failed inserting node: Error while renaming Node ID: \"" ID1
                  "\" (1.1.1.1): Node name e is reserved by node  with name e (1.1.1.1)"},
        {"e gets a new id", '+', .node = "e", .node_id = ID2, .address = "1.1.1.1", .moved = "N"},
        {"service for d", '+', .node = "d", .node_id = ID1, .skip_node_update = true,
         .service = "web", .moved = "Sw"},
        {"rename loses the service that the check needs", '+', .node = "f", .node_id = ID1,
         .address = "1.1.1.1", .check = "c", .check_service = "web", .moved = "",
         .error = "failed inserting check: Missing service registration on node \"f\""},
    };

    (void)state;
    steps_run(steps, sizeof(steps) / sizeof(steps[0]));
}

static void test_refused_registrations_change_nothing(void **state)
{
    static const struct step steps[] = {
        {"nothing", '+', .moved = "", .error = "Must provide node"},
        {"no address", '+', .node = "n1", .moved = "",
         .error = "Must provide address if SkipNodeUpdate is not set"},
        {"short id", '+', N1, .node_id = "x", .moved = "",
         .error = "Bad node ID: uuid string is wrong length"},
        {"no dashes", '+', N1, .node_id = "deadbeef-0000-4000-8000x00000000abc1", .moved = "",
         .error = "Bad node ID: uuid is improperly formatted"},
        {"no hex", '+', N1, .node_id = "deadbeef-0000-4000-8000-00000000abcg", .moved = "",
         .error = "Bad node ID: encoding/hex: invalid byte: U+0067 'g'"},
        {"id without name", '+', N1, .service_id = "x", .service = "", .moved = "",
         .error = "Must provide service name with ID"},
        {"neither", '+', N1, .service = "", .moved = "",
         .error = "failed inserting service: failed inserting service: object missing primary "
                  "index"},
        {"unknown service", '+', N1, .check = "c", .check_service = "zz", .moved = "",
         .error = "failed inserting check: Missing service registration on node \"n1\""},
        {"check without id", '+', N1, .check = "", .moved = "",
         .error = "failed inserting check: failed inserting check: object missing primary index "
                  "on node \"n1\""},
        {"service, but the check is bad", '+', N1, .service = "web", .check = "c",
         .check_service = "zz", .moved = "",
         .error = "failed inserting check: Missing service registration on node \"n1\""},
        {"check finds its service in the same request", '+', N1, .service_id = "w1",
         .service = "web", .check = "c", .check_service = "W1", .moved = "NSCwax"},
    };

    (void)state;
    steps_run(steps, sizeof(steps) / sizeof(steps[0]));
}

/* --- single properties --- */

static void do_step(struct fixture *fixture, uint64_t index, const struct step *step)
{
    struct buffer ended = {0};
    struct errmsg err = {""};
    const int rc = step_do(&fixture->txn, index, step, &ended, &err);

    if (rc != 0) {
        fail_msg("%d %s", rc, err.text);
    }
    buffer_deinit(&ended);
}

static void assert_slice(struct slice actual, const char *expected)
{
    if (!slice_equal(actual, text(expected))) {
        fail_msg("'%.*s', not '%s'", (int)actual.size, actual.data, expected);
    }
}

static void test_service_metadata_is_checked(void **state)
{
    static char long_key[130], long_value[514];
    static const struct {
        const char *name, *key, *value, *fault;
    } cases[] = {
        {"fine", "a_B-9", "x", NULL},
        {"blank", "", "x", "Key cannot be blank"},
        {"characters", "a b", "x", "Key contains invalid characters"},
        {"long key", long_key, "x", "Key is too long (limit: 128 characters)"},
        {"reserved", "consul-x", "1", "Key prefix 'consul-' is reserved for internal use"},
        {"long value", "a", long_value, NULL},
    };
    struct fixture fixture;
    struct buffer ended = {0};

    (void)state;
    memset(long_key, 'k', 129);
    memset(long_value, 'v', 512);
    fixture_open(&fixture);
    fixture_begin(&fixture);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer meta = {0};
        struct errmsg err = {""};
        char expected[ERRMSG_BYTES_MAX] = "";
        struct catalog_registration registration = {
            .node = {.name = SLICE_LITERAL("n1"), .address = SLICE_LITERAL("1.1.1.1")},
            .has_service = true,
            .service = {.id = SLICE_LITERAL("w1"), .name = SLICE_LITERAL("web")}};

        registration.service.meta = pack(&meta, 2, cases[i].key, cases[i].value);
        const int rc = catalog_register(&fixture.txn, i + 1, stamp, &registration, &ended, &err);
        if (cases[i].fault != NULL) {
            (void)snprintf(expected, sizeof(expected),
                           "failed inserting service: Invalid Service Meta for node n1 and "
                           "serviceID w1: Couldn't load metadata pair ('%s', '%s'): %s",
                           cases[i].key, cases[i].value, cases[i].fault);
        }
        if (rc != (cases[i].fault == NULL ? 0 : CATALOG_EINVAL) ||
            strcmp(err.text, expected) != 0) {
            fail_msg("%s: %d '%s'", cases[i].name, rc, err.text);
        }
        buffer_deinit(&meta);
    }

    struct catalog_registration registration = {
        .node = {.name = SLICE_LITERAL("n1"), .address = SLICE_LITERAL("1.1.1.1")},
        .has_service = true,
        .service = {.id = SLICE_LITERAL("w1"), .name = SLICE_LITERAL("web")}};
    struct buffer meta = {0};
    struct errmsg err = {""};
    for (unsigned i = 0; i < CATALOG_META_PAIRS_MAX + 1; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "k%u", i);
        strings_pack_add(&meta, text(key));
        strings_pack_add(&meta, SLICE_LITERAL("1"));
    }
    registration.service.meta =
        strings_from_packed(buffer_slice(&meta), 2 * (CATALOG_META_PAIRS_MAX + 1));
    assert_int_equal(catalog_register(&fixture.txn, 99, stamp, &registration, &ended, &err),
                     CATALOG_EINVAL);
    assert_string_equal(err.text,
                        "failed inserting service: Invalid Service Meta for node n1 and serviceID "
                        "w1: Node metadata cannot contain more than 64 key/value pairs");
    buffer_deinit(&meta);
    buffer_deinit(&ended);
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

/* A name with a NUL would reach into the next part of a key, an overlong one past it. */
static void test_names_that_no_key_can_hold_are_refused_and_not_found(void **state)
{
    static char long_name[CATALOG_NAME_BYTES_MAX + 1];
    const struct slice bad[] = {slice_from("web\0n1", 6), slice_from(long_name, sizeof(long_name)),
                                SLICE_EMPTY};
    struct fixture fixture;
    struct buffer ended = {0};
    struct catalog_node node;
    struct catalog_service service;
    struct catalog_check check;
    struct catalog_scan scan;

    (void)state;
    memset(long_name, 'x', sizeof(long_name));
    fixture_open(&fixture);
    fixture_begin(&fixture);
    do_step(&fixture, 1,
            &(struct step){"all", '+', N1, .service = "web", .check = "c", .check_service = "web"});
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct catalog_registration registration = {
            .node = {.name = bad[i], .address = SLICE_LITERAL("1.1.1.1")}};
        uint64_t index = 0;

        assert_int_equal(catalog_register(&fixture.txn, 2, stamp, &registration, &ended, NULL),
                         CATALOG_EINVAL);
        assert_int_equal(catalog_deregister(&fixture.txn, 2, stamp, bad[i], bad[i], bad[i], &ended),
                         0);
        assert_int_equal(catalog_node_get(&fixture.txn, bad[i], &node), STORE_ENOTFOUND);
        assert_int_equal(catalog_node_find(&fixture.txn, bad[i], &node), STORE_ENOTFOUND);
        assert_int_equal(catalog_node_get_by_id(&fixture.txn, bad[i], &node), STORE_ENOTFOUND);
        assert_int_equal(catalog_service_get(&fixture.txn, text("n1"), bad[i], &service),
                         STORE_ENOTFOUND);
        assert_int_equal(catalog_check_get(&fixture.txn, bad[i], text("c"), &check),
                         STORE_ENOTFOUND);
        assert_int_equal(catalog_instances_begin(&scan, &fixture.txn, bad[i]), 0);
        assert_int_equal(catalog_instances_next(&scan, &service, &node), STORE_ENOTFOUND);
        catalog_scan_end(&scan);
        assert_int_equal(catalog_index_service(&fixture.txn, bad[i], &index), 0);
        assert_int_equal(index, 1);
    }
    long_name[CATALOG_NAME_BYTES_MAX] = '\0'; /* The longest name that is one. */
    do_step(&fixture, 3,
            &(struct step){"longest", '+', .node = long_name, .address = "1.1.1.1",
                           .service_id = long_name, .service = long_name, .check = long_name,
                           .check_service = long_name});
    assert_int_equal(catalog_instances_begin(&scan, &fixture.txn, text(long_name)), 0);
    assert_int_equal(catalog_instances_next(&scan, &service, &node), 0);
    assert_slice(node.address, "1.1.1.1");
    catalog_scan_end(&scan);
    do_step(&fixture, 4, &(struct step){"gone", '-', .node = long_name});
    assert_int_equal(catalog_node_get(&fixture.txn, text(long_name), &node), STORE_ENOTFOUND);
    buffer_deinit(&ended);
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

static void test_instances_join_service_and_node_in_order(void **state)
{
    struct fixture fixture;
    struct store_txn read = {0};
    struct catalog_scan scan;
    struct catalog_service service;
    struct catalog_node node;
    struct buffer seen = {0};

    (void)state;
    fixture_open(&fixture);
    fixture_begin(&fixture);
    do_step(&fixture, 1,
            &(struct step){"", '+', .node = "Beta", .address = "10.0.0.2", .service_id = "w2",
                           .service = "Web"});
    do_step(&fixture, 2,
            &(struct step){"", '+', .node = "Beta", .address = "10.0.0.2", .service_id = "W1",
                           .service = "web"});
    do_step(&fixture, 3,
            &(struct step){"", '+', .node = "alpha", .address = "10.0.0.1", .service_id = "w9",
                           .service = "wEB"});
    do_step(&fixture, 4,
            &(struct step){"", '+', .node = "alpha", .address = "10.0.0.1", .service_id = "other",
                           .service = "webby"});
    fixture_commit(&fixture);

    assert_int_equal(store_read_begin(fixture.store, &read), 0);
    for (int round = 0; round < 2; round++) { /* A scan may be used again and again. */
        buffer_clear(&seen);
        assert_int_equal(catalog_instances_begin(&scan, &read, SLICE_LITERAL("WEB")), 0);
        while (catalog_instances_next(&scan, &service, &node) == 0) {
            buffer_printf(&seen, "%.*s/%.*s/%.*s/%.*s ", (int)service.name.size, service.name.data,
                          (int)node.name.size, node.name.data, (int)service.id.size,
                          service.id.data, (int)node.address.size, node.address.data);
        }
        catalog_scan_end(&scan);
        assert_slice(buffer_slice(&seen), "wEB/alpha/w9/10.0.0.1 web/Beta/W1/10.0.0.2 "
                                          "Web/Beta/w2/10.0.0.2 ");
        store_read_reset(&read);
        assert_int_equal(store_read_renew(&read), 0);
    }

    size_t count = 0;
    assert_int_equal(catalog_services_begin(&scan, &read, SLICE_EMPTY), 0);
    while (catalog_services_next(&scan, &service) == 0) {
        count++;
    }
    catalog_scan_end(&scan);
    assert_int_equal(count, 4);
    assert_int_equal(catalog_services_begin(&scan, &read, SLICE_LITERAL("BETA")), 0);
    assert_int_equal(catalog_services_next(&scan, &service), 0);
    assert_slice(service.node, "Beta");
    assert_slice(service.id, "W1");
    catalog_scan_end(&scan);
    store_read_end(&read);
    buffer_deinit(&seen);
    fixture_close(&fixture);
}

static void test_checks_take_name_and_tags_when_they_are_registered(void **state)
{
    struct fixture fixture;
    struct catalog_check check;
    struct catalog_service service;

    (void)state;
    fixture_open(&fixture);
    fixture_begin(&fixture);
    const struct step check_step = {"", '+', N1, .check = "c", .check_service = "w1"};
    do_step(&fixture, 1,
            &(struct step){"", '+', N1, .service_id = "w1", .service = "web", .tag = "a"});
    do_step(&fixture, 2, &check_step);
    assert_int_equal(catalog_check_get(&fixture.txn, text("N1"), text("C"), &check), 0);
    assert_slice(check.node, "n1");
    assert_slice(check.service_name, "web");
    assert_true(strings_contain(check.service_tags, text("a")));
    assert_true(catalog_check_is_critical(&check)); /* No status was given. */
    assert_int_equal(check.create_index, 2);

    do_step(&fixture, 3,
            &(struct step){"", '+', N1, .service_id = "w1", .service = "new", .tag = "b"});
    assert_int_equal(catalog_check_get(&fixture.txn, text("n1"), text("c"), &check), 0);
    assert_slice(check.service_name, "web"); /* Consul leaves it behind. */
    assert_int_equal(check.modify_index, 2);
    do_step(&fixture, 4, &check_step);
    assert_int_equal(catalog_check_get(&fixture.txn, text("n1"), text("c"), &check), 0);
    assert_slice(check.service_name, "new");
    assert_true(strings_contain(check.service_tags, text("b")));
    assert_int_equal(check.create_index, 2);
    assert_int_equal(check.modify_index, 4);
    assert_int_equal(catalog_service_get(&fixture.txn, text("n1"), text("W1"), &service), 0);
    assert_true(catalog_check_concerns(&check, &service));
    service.id = SLICE_LITERAL("w2");
    assert_false(catalog_check_concerns(&check, &service));
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

static void test_a_renamed_node_keeps_its_age_and_loses_its_services(void **state)
{
    struct fixture fixture;
    struct catalog_node node;
    struct catalog_service service;
    static const struct {
        const char *text, *found;
    } cases[] = {
        {"a", NULL},
        {"b", "b"},
        {"deadbeef", NULL},
        {"d", "d"},
        {"dea", NULL},
        {ID2, "d"},
        {ID1_UPPER, "b"},
        {"deadbeef00004000800000000000abc1", "b"},
        {"x1", NULL},
        {"", NULL},
        {ID1 "0", "b"},
        {"cafe-", "e"},
        {"c", NULL},
        {"ca", "e"},
        {"cafe-bab", NULL},
        {"ca-fe-ba-be-0", "e"},
        {"c-a-f-e-b-a-b-e", NULL},
    };

    (void)state;
    fixture_open(&fixture);
    fixture_begin(&fixture);
    do_step(&fixture, 1,
            &(struct step){"", '+', .node = "a", .node_id = ID1, .address = "1.1.1.1",
                           .service = "web"});
    do_step(&fixture, 2,
            &(struct step){"", '+', .node = "b", .node_id = ID1, .address = "1.1.1.1"});
    do_step(&fixture, 3,
            &(struct step){"", '+', .node = "d", .node_id = ID2, .address = "1.1.1.1"});
    do_step(&fixture, 4,
            &(struct step){"", '+', .node = "e", .node_id = "cafebabe-0000-4000-8000-00000000abc1",
                           .address = "1.1.1.1"});
    assert_int_equal(catalog_node_get(&fixture.txn, text("b"), &node), 0);
    assert_int_equal(node.create_index, 1);
    assert_int_equal(node.modify_index, 2);
    assert_int_equal(catalog_service_get(&fixture.txn, text("b"), text("web"), &service),
                     STORE_ENOTFOUND);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const int rc = catalog_node_find(&fixture.txn, text(cases[i].text), &node);
        if (rc != (cases[i].found == NULL ? STORE_ENOTFOUND : 0) ||
            (rc == 0 && !slice_equal(node.name, text(cases[i].found)))) {
            fail_msg("'%s': %d", cases[i].text, rc);
        }
    }
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

/* --- who is woken --- */

static bool noted(const struct store_txn *txn, enum store_topic topic, const char *key)
{
    struct reader it = store_changes_begin(txn);
    enum store_topic found;
    struct slice found_key;

    while (store_changes_next(&it, &found, &found_key)) {
        if (found == topic && slice_equal(found_key, text(key))) {
            return true;
        }
    }
    return false;
}

static void test_waiters_are_noted(void **state)
{
    static const struct {
        struct step step;
        const char *expected; /* N S C tables, w a n services web, api, new */
    } cases[] = {
        {{"service", '+', N1, .service_id = "w1", .service = "Web"}, "NSw"},
        {{"same", '+', N1, .service_id = "w1", .service = "Web"}, ""},
        {{"other", '+', N1, .service_id = "w2", .service = "api"}, "Sa"},
        {{"node check", '+', N1, .check = "c", .status = "passing"}, "Cwa"},
        {{"same check", '+', N1, .check = "c", .status = "passing"}, ""},
        {{"service check", '+', N1, .check = "s", .check_service = "w1"}, "Cw"},
        {{"address", '+', .node = "n1", .address = "10.0.0.9"}, "Nwa"},
        {{"other name", '+', .node = "n1", .skip_node_update = true, .service_id = "w1",
          .service = "new"},
         "Swn"},
        {{"check of the renamed", '-', .node = "n1", .check = "s"}, "Cwn"},
        {{"service gone", '-', .node = "n1", .service_id = "w1"}, "SCn"},
        {{"node gone", '-', .node = "n1"}, "NSCa"},
    };
    static const struct {
        char letter;
        enum store_topic topic;
        const char *key;
    } notes[] = {
        {'N', STORE_TOPIC_NODE, ""},       {'S', STORE_TOPIC_SERVICES, ""},
        {'C', STORE_TOPIC_CHECK, ""},      {'w', STORE_TOPIC_SERVICE, "web"},
        {'a', STORE_TOPIC_SERVICE, "api"}, {'n', STORE_TOPIC_SERVICE, "new"},
    };
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char seen[8] = "";
        size_t size = 0;

        fixture_begin(&fixture);
        do_step(&fixture, i + 1, &cases[i].step);
        for (size_t n = 0; n < sizeof(notes) / sizeof(notes[0]); n++) {
            if (noted(&fixture.txn, notes[n].topic, notes[n].key)) {
                seen[size++] = notes[n].letter;
            }
        }
        if (strcmp(seen, cases[i].expected) != 0) {
            fail_msg("%s: noted '%s', not '%s'", cases[i].step.name, seen, cases[i].expected);
        }
        fixture_commit(&fixture);
    }
    fixture_close(&fixture);
}

/* --- sessions --- */

static void test_sessions_end_with_what_they_depend_on(void **state)
{
    static const struct {
        struct step step;
        const char *cause; /* NULL: the session lives */
    } cases[] = {
        {{"other check", '+', N1, .check = "other", .status = "critical"}, NULL},
        {{"warning", '+', N1, .check = "C", .status = "warning"}, NULL},
        {{"critical", '+', N1, .check = "C", .status = "critical"}, "check 'C' critical"},
        {{"check removed", '-', .node = "N1", .check = "C"}, "check 'c' removed"},
        {{"service removed", '-', .node = "n1", .service_id = "W1"},
         "check 's' removed with its service"},
        {{"node removed", '-', .node = "n1"}, "node 'n1' removed"},
        {{"node moved", '+', N1}, NULL},
        {{"other node removed", '-', .node = "n2"}, NULL},
        {{"node renamed", '+', .node = "n7", .node_id = ID1, .address = "1.1.1.1"},
         "node 'n1' removed"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture fixture;
        struct buffer checks = {0}, ended = {0};
        struct errmsg err = {""};
        struct session session = {.id = {{7}},
                                  .node = SLICE_LITERAL("N1"),
                                  .service_checks = STRINGS_NULL,
                                  .checks = STRINGS_NULL};
        struct uuid id;
        struct slice cause = SLICE_EMPTY;

        fixture_open(&fixture);
        fixture_begin(&fixture);
        do_step(&fixture, 1,
                &(struct step){"", '+', N1, .node_id = ID1, .service = "w1", .check = "c",
                               .status = "passing"});
        do_step(&fixture, 2,
                &(struct step){"", '+', N1, .node_id = ID1, .check = "s", .check_service = "w1",
                               .status = "passing"});
        do_step(&fixture, 3, &(struct step){"", '+', .node = "n2", .address = "1.1.1.1"});
        session.node_checks = pack(&checks, 2, "c", "s");
        assert_int_equal(session_create(&fixture.txn, &catalog_for_sessions, 4, &session, &err), 0);
        assert_int_equal(step_do(&fixture.txn, 5, &cases[i].step, &ended, &err), 0);

        struct reader it = reader_from(buffer_slice(&ended));
        const bool over = catalog_ended_next(&it, &id, &cause);
        if (over != (cases[i].cause != NULL) ||
            (over && !slice_equal(cause, text(cases[i].cause)))) {
            fail_msg("%s: '%.*s'", cases[i].step.name, (int)cause.size, cause.data);
        }
        assert_true(reader_done(&it)); /* One session, one end. */
        assert_int_equal(session_get(&fixture.txn, &session.id, &session),
                         over ? STORE_ENOTFOUND : 0);
        buffer_deinit(&checks);
        buffer_deinit(&ended);
        fixture_commit(&fixture);
        fixture_close(&fixture);
    }
}

static void make_session(struct fixture *fixture, uint8_t id, const char *node, const char *check)
{
    struct buffer checks = {0};
    struct errmsg err = {""};
    const struct session session = {.id = {{id}},
                                    .node = text(node),
                                    .node_checks = pack(&checks, 1, check),
                                    .service_checks = STRINGS_NULL,
                                    .checks = STRINGS_NULL};

    assert_int_equal(session_create(&fixture->txn, &catalog_for_sessions, 3, &session, &err), 0);
    buffer_deinit(&checks);
}

static void expect_ended(struct reader *it, uint8_t expected_id, const char *expected_cause)
{
    struct uuid id;
    struct slice cause;

    assert_true(catalog_ended_next(it, &id, &cause));
    assert_int_equal(id.bytes[0], expected_id);
    assert_slice(cause, expected_cause);
}

/* Symptom: a command with many checks looked at all of the node's sessions for each: ten seconds
 * for 255 checks and 10,000 sessions. Rule: one look for all, so they end in their own order, each
 * for the check that it depends on, and none for another node's. */
static void test_sessions_are_looked_at_once_for_all_checks(void **state)
{
    struct fixture fixture;
    struct buffer ended = {0};

    (void)state;
    fixture_open(&fixture);
    fixture_begin(&fixture);
    do_step(&fixture, 1,
            &(struct step){"", '+', N1, .node_id = ID1, .service = "w1", .check = "a",
                           .check_service = "w1", .status = "passing"});
    do_step(&fixture, 1,
            &(struct step){"", '+', N1, .node_id = ID1, .check = "b", .check_service = "w1",
                           .status = "passing"});
    do_step(&fixture, 2, &(struct step){"", '+', N1, .node_id = ID1, .check = "c", .status = "x"});
    do_step(&fixture, 2,
            &(struct step){"", '+', .node = "n2", .address = "a", .check = "c", .status = "x"});
    make_session(&fixture, 1, "n1", "B");
    make_session(&fixture, 2, "n1", "a");
    make_session(&fixture, 3, "n1", "c");
    make_session(&fixture, 4, "n2", "c");
    const struct step leaves = {"", '-', .node = "n1", .service_id = "w1"};
    assert_int_equal(step_do(&fixture.txn, 4, &leaves, &ended, NULL), 0);
    const struct step renamed = {"", '+', .node = "n2", .node_id = ID1, .address = "1.1.1.1"};
    assert_int_equal(step_do(&fixture.txn, 5, &renamed, &ended, NULL), 0);
    struct reader it = reader_from(buffer_slice(&ended));
    expect_ended(&it, 1, "check 'b' removed with its service");
    expect_ended(&it, 2, "check 'a' removed with its service");
    expect_ended(&it, 3, "node 'n1' removed");
    assert_true(reader_done(&it));
    buffer_deinit(&ended);
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

static void test_sessions_are_not_made_on_what_is_missing_or_critical(void **state)
{
    static const struct {
        const char *node, *check;
        int rc;
    } cases[] = {
        {"nn", "c", SESSION_ENODE},
        {"N1", "nope", SESSION_ECHECK},
        {"N1", "bad", SESSION_ECHECK},
        {"N1", "C", 0},
    };
    struct fixture fixture;

    (void)state;
    fixture_open(&fixture);
    fixture_begin(&fixture);
    do_step(&fixture, 1, &(struct step){"", '+', N1, .check = "c", .status = "passing"});
    do_step(&fixture, 2, &(struct step){"", '+', N1, .check = "bad", .status = "critical"});
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer checks = {0};
        struct errmsg err = {""};
        struct session session = {.id = {{9}},
                                  .node = text(cases[i].node),
                                  .service_checks = STRINGS_NULL,
                                  .checks = STRINGS_NULL};

        session.node_checks = pack(&checks, 1, cases[i].check);
        assert_int_equal(session_create(&fixture.txn, &catalog_for_sessions, 3, &session, &err),
                         cases[i].rc);
        buffer_deinit(&checks);
    }
    fixture_commit(&fixture);
    fixture_close(&fixture);
}

/* --- encoding --- */

static void test_equal_maps_have_equal_bytes(void **state)
{
    struct buffer packed[2] = {{0}, {0}}, bytes[2] = {{0}, {0}};
    struct catalog_node nodes[2] = {{.name = SLICE_LITERAL("n")}, {.name = SLICE_LITERAL("n")}};
    struct catalog_node decoded;
    struct slice string;

    (void)state;
    nodes[0].meta = pack(&packed[0], 6, "b", "old", "a", "1", "b", "2");
    nodes[1].meta = pack(&packed[1], 4, "a", "1", "b", "2");
    catalog_node_encode(&bytes[0], &nodes[0]);
    catalog_node_encode(&bytes[1], &nodes[1]);
    assert_true(slice_equal(buffer_slice(&bytes[0]), buffer_slice(&bytes[1])));
    assert_true(catalog_node_decode(buffer_slice(&bytes[0]), &decoded));
    assert_int_equal(decoded.meta.count, 4);
    struct reader it = strings_begin(decoded.meta);
    assert_true(strings_next(&it, &string));
    assert_slice(string, "a");
    for (size_t i = 0; i < 2; i++) {
        buffer_deinit(&packed[i]);
        buffer_deinit(&bytes[i]);
    }
}

static void test_cut_records_do_not_decode(void **state)
{
    struct buffer bytes = {0}, tags = {0}, triples = {0};
    struct catalog_service service = {.id = SLICE_LITERAL("i"),
                                      .name = SLICE_LITERAL("n"),
                                      .port = 5432,
                                      .enable_tag_override = true,
                                      .meta = STRINGS_NULL,
                                      .extra = SLICE_LITERAL("{}")};
    struct catalog_service decoded;

    (void)state;
    service.tags = pack(&tags, 2, "x", "y");
    service.tagged_addresses = pack(&triples, 3, "lan", "10.0.0.1", "80");
    catalog_service_encode(&bytes, &service);
    for (size_t size = 0; size < bytes.size; size++) {
        assert_false(catalog_service_decode(slice_from(bytes.data, size), &decoded));
    }
    assert_true(catalog_service_decode(buffer_slice(&bytes), &decoded));
    assert_int_equal(decoded.port, 5432);
    assert_true(decoded.enable_tag_override);
    assert_true(decoded.meta.null);
    assert_int_equal(decoded.tags.count, 2);
    buffer_put_u8(&bytes, 0);
    assert_false(catalog_service_decode(buffer_slice(&bytes), &decoded));
    buffer_deinit(&bytes);
    buffer_deinit(&tags);
    buffer_deinit(&triples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_indexes_move_as_recorded),
        cmocka_unit_test(test_node_ids_rename_and_conflict),
        cmocka_unit_test(test_refused_registrations_change_nothing),
        cmocka_unit_test(test_service_metadata_is_checked),
        cmocka_unit_test(test_names_that_no_key_can_hold_are_refused_and_not_found),
        cmocka_unit_test(test_instances_join_service_and_node_in_order),
        cmocka_unit_test(test_checks_take_name_and_tags_when_they_are_registered),
        cmocka_unit_test(test_a_renamed_node_keeps_its_age_and_loses_its_services),
        cmocka_unit_test(test_waiters_are_noted),
        cmocka_unit_test(test_sessions_end_with_what_they_depend_on),
        cmocka_unit_test(test_sessions_are_looked_at_once_for_all_checks),
        cmocka_unit_test(test_sessions_are_not_made_on_what_is_missing_or_critical),
        cmocka_unit_test(test_equal_maps_have_equal_bytes),
        cmocka_unit_test(test_cut_records_do_not_decode),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
