/* consul operator raft: the servers of the cluster. */

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "server/cli/cli.h"
#include "server/cli/cli_client.h"

enum { RAFT_COLUMNS = 6, RAFT_ROWS_MAX = 64 };

static const char raft_usage[] =
    "Usage: consul operator raft <subcommand> [options]\n\n"
    "The Raft operator command is used to interact with Consul's Raft subsystem. The\n"
    "command can be used to verify Raft peers or in rare cases to recover quorum by\n"
    "removing invalid peers.\n\n"
    "Subcommands:\n"
    "    list-peers         Display the current Raft peer configuration\n"
    "    remove-peer        Remove a Consul server from the Raft configuration\n"
    "    transfer-leader    Transfer leadership to another server\n";

/* --- list-peers --- */

struct raft_row {
    const char *cells[RAFT_COLUMNS]; /* the document's */
};

static const char *raft_text(const json_t *server, const char *name, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(server, name));

    return text != NULL && text[0] != 0 ? text : otherwise;
}

/* Two spaces between columns, each as wide as its widest cell; the last one is not filled up. */
static void raft_print(const struct raft_row *rows, size_t count)
{
    for (size_t row = 0; row < count; row++) {
        for (size_t column = 0; column + 1 < RAFT_COLUMNS; column++) {
            size_t width = 0;

            for (size_t other = 0; other < count; other++) {
                const size_t size = strlen(rows[other].cells[column]);

                width = size > width ? size : width;
            }
            (void)printf("%-*s  ", (int)width, rows[row].cells[column]);
        }
        (void)printf("%s\n", rows[row].cells[RAFT_COLUMNS - 1]);
    }
}

static bool raft_print_servers(const json_t *root)
{
    const json_t *servers = json_object_get(root, "Servers");
    struct raft_row rows[RAFT_ROWS_MAX + 1] = {
        {{"Node", "ID", "Address", "State", "Voter", "RaftProtocol"}}};
    size_t count = 1;

    if (!json_is_array(servers)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(servers) && count <= RAFT_ROWS_MAX; i++) {
        const json_t *server = json_array_get(servers, i);

        rows[count++] = (struct raft_row){
            {raft_text(server, "Node", ""), raft_text(server, "ID", ""),
             raft_text(server, "Address", ""),
             json_is_true(json_object_get(server, "Leader")) ? "leader" : "follower",
             json_is_true(json_object_get(server, "Voter")) ? "true" : "false",
             raft_text(server, "ProtocolVersion", "<=1")}};
    }
    raft_print(rows, count);
    return true;
}

static int raft_list_peers(const struct cli_flag *flags, size_t count)
{
    struct cli_answer answer;
    struct errmsg err = {""};
    json_t *root = NULL;
    int rc =
        cli_ask(flags, count, "GET", "/v1/operator/raft/configuration", SLICE_EMPTY, &answer, &err);

    if (rc == 0) {
        root = json_loadb(answer.body.data, answer.body.size, 0, NULL);
        if (root == NULL || !raft_print_servers(root)) {
            rc = errmsg_set(&err, -1, "the answer is not understood");
        }
        json_decref(root);
    }
    if (rc != 0) {
        (void)fprintf(stderr, "Error getting peers: Failed to retrieve raft configuration: %s\n",
                      err.text);
    }
    buffer_deinit(&answer.body);
    return rc == 0 ? 0 : 1;
}

/* --- remove-peer, transfer-leader --- */

static int raft_remove_peer(const struct cli_flag *flags, size_t count)
{
    const char *address = cli_flag(flags, count, "address");
    const char *id = cli_flag(flags, count, "id");
    const bool by_address = address != NULL && address[0] != 0;
    const bool by_id = id != NULL && id[0] != 0;
    struct cli_answer answer = {0};
    struct buffer path = {0};
    struct errmsg err = {""};
    int rc = -1;

    if (!by_address && !by_id) {
        (void)errmsg_set(&err, -1, "an address or id is required for the peer to remove");
    } else if (by_address && by_id) {
        (void)errmsg_set(&err, -1, "cannot give both an address and id");
    } else {
        buffer_printf(&path, "/v1/operator/raft/peer?%s=", by_id ? "id" : "address");
        cli_put_escaped(&path, by_id ? id : address);
        buffer_append_char(&path, 0);
        rc = cli_ask(flags, count, "DELETE", path.data, SLICE_EMPTY, &answer, &err);
    }
    if (rc != 0) {
        (void)fprintf(stderr, "Error removing peer: %s\n", err.text);
    } else {
        (void)printf("Removed peer with %s \"%s\"\n", by_id ? "id" : "address",
                     by_id ? id : address);
    }
    buffer_deinit(&path);
    buffer_deinit(&answer.body);
    return rc == 0 ? 0 : 1;
}

static int raft_transfer_leader(const struct cli_flag *flags, size_t count)
{
    const char *id = cli_flag(flags, count, "id");
    struct cli_answer answer = {0};
    struct buffer path = {0};
    struct errmsg err = {""};
    int rc;

    buffer_append_text(&path, "/v1/operator/raft/transfer-leader");
    if (id != NULL && id[0] != 0) {
        buffer_append_text(&path, "?id=");
        cli_put_escaped(&path, id);
    }
    buffer_append_char(&path, 0);
    rc = path.failed ? errmsg_set(&err, -1, "out of memory")
                     : cli_ask(flags, count, "POST", path.data, SLICE_EMPTY, &answer, &err);
    if (rc != 0) {
        (void)fprintf(stderr, "Error transfering leadership: Failed to transfer leadership: %s\n",
                      err.text);
    } else {
        (void)printf("Success\n");
    }
    buffer_deinit(&path);
    buffer_deinit(&answer.body);
    return rc == 0 ? 0 : 1;
}

/* --- which one --- */

int cli_raft(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const struct cli_flag *flags, size_t count);
    } commands[] = {
        {"list-peers", raft_list_peers},
        {"remove-peer", raft_remove_peer},
        {"transfer-leader", raft_transfer_leader},
    };
    struct cli_flag flags[] = {{"address", false, NULL}, {"id", false, NULL}, CLI_CLIENT_FLAGS};
    const size_t count = sizeof(flags) / sizeof(flags[0]);
    struct errmsg err = {""};

    for (size_t i = 0; argc > 0 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[0], commands[i].name) != 0) {
            continue;
        }
        if (cli_flags_parse(argc - 1, argv + 1, flags, count, &err) < 0) {
            (void)fprintf(stderr, "%s\n\n%s\n%s", err.text, raft_usage, cli_client_usage);
            return 1;
        }
        return commands[i].run(flags, count);
    }
    (void)fprintf(stderr, "%s", raft_usage);
    return 1;
}
