/* For operators. Here what needs no server: is what lies in a data directory sound, and what is in
 * it. */

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "raft/wal_inspect.h"
#include "server/cli/cli.h"
#include "server/cli/cli_client.h"
#include "server/snapshot/inspect.h"

enum { OPERATOR_PATH_BYTES_MAX = 4096 };

const char cli_operator_usage[] =
    "Usage: consul operator <subcommand> [options]\n\n"
    "Subcommands that ask a server:\n\n"
    "    raft list-peers|remove-peer|transfer-leader\n"
    "    autopilot get-config|set-config\n\n"
    "Subcommands that look into the files of one, -data-dir DIR. Nothing is changed. The\n"
    "exit status is 0 when all is sound, 1 when something is damaged or missing, 2 for\n"
    "wrong arguments:\n\n"
    "    log verify             Checks the Raft log as a start of the server would\n"
    "    log dump               The same, and prints every record\n"
    "    snapshot verify [FILE] Checks every snapshot, or the one named\n"
    "    snapshot dump [FILE]   Prints every record of the newest snapshot, or the one named\n\n"
    "Subcommands that ask a server take:\n\n";

struct operator_arguments {
    const char *words[3]; /* log|snapshot, verify|dump, FILE */
    size_t count;
    const char *data_dir;
};

/* The value of `-name=value` or `-name value`, with one dash or two; NULL: it is another argument.
 * Moves `*i` over a value that stands by itself. */
static const char *operator_flag(int argc, char **argv, int *i, const char *name)
{
    const char *text = argv[*i];
    const size_t size = strlen(name);

    if (*text++ != '-') {
        return NULL;
    }
    text += *text == '-' ? 1 : 0;
    if (strncmp(text, name, size) != 0) {
        return NULL;
    }
    if (text[size] == '=') {
        return text + size + 1;
    }
    if (text[size] != '\0' || *i + 1 >= argc) {
        return NULL;
    }
    (*i)++;
    return argv[*i];
}

static bool operator_parse(int argc, char **argv, struct operator_arguments *out)
{
    const size_t words_max = sizeof(out->words) / sizeof(out->words[0]);

    *out = (struct operator_arguments){0};
    for (int i = 0; i < argc; i++) {
        const char *value = operator_flag(argc, argv, &i, "data-dir");

        assert(argv[i] != NULL); /* argc counts them. */
        if (value != NULL) {
            out->data_dir = value;
        } else if (argv[i][0] == '-' || out->count == words_max) {
            return false;
        } else {
            out->words[out->count++] = argv[i];
        }
    }
    return out->data_dir != NULL && out->data_dir[0] != '\0' && out->count >= 2 &&
           (strcmp(out->words[1], "verify") == 0 || strcmp(out->words[1], "dump") == 0);
}

static int operator_log(const char *data_dir, bool dump)
{
    char path[OPERATOR_PATH_BYTES_MAX];
    char message[WAL_ERROR_BYTES_MAX];
    const struct wal_inspect_options options = {.dir = path, .records = dump};

    (void)snprintf(path, sizeof(path), "%s/raft", data_dir);
    const int rc = wal_inspect(&options, stdout, message);
    if (rc != WAL_OK) {
        (void)fflush(stdout);
        (void)fprintf(stderr, "%s: %s\n", wal_strerror(rc), message);
    }
    return rc == WAL_OK ? 0 : 1;
}

static int operator_snapshot(const char *data_dir, bool dump, const char *name)
{
    char path[OPERATOR_PATH_BYTES_MAX];
    struct errmsg err = {""};
    const struct snapshot_inspect_options options = {.dir = path, .name = name, .records = dump};

    (void)snprintf(path, sizeof(path), "%s/snapshots", data_dir);
    const int rc = snapshot_inspect(&options, stdout, &err);
    if (rc != 0) {
        (void)fflush(stdout);
        (void)fprintf(stderr, "%s\n", err.text);
    }
    return rc == 0 ? 0 : 1;
}

int cli_operator(int argc, char **argv)
{
    struct operator_arguments arguments;

    if (argc > 0 && strcmp(argv[0], "raft") == 0) {
        return cli_raft(argc - 1, argv + 1);
    }
    if (argc > 0 && strcmp(argv[0], "autopilot") == 0) {
        return cli_autopilot(argc - 1, argv + 1);
    }
    if (operator_parse(argc, argv, &arguments)) {
        const bool dump = strcmp(arguments.words[1], "dump") == 0;
        if (strlen(arguments.data_dir) > OPERATOR_PATH_BYTES_MAX - sizeof("/snapshots")) {
            (void)fprintf(stderr, "the data directory's name is too long\n");
            return 2;
        }
        if (strcmp(arguments.words[0], "log") == 0 && arguments.count == 2) {
            return operator_log(arguments.data_dir, dump);
        }
        if (strcmp(arguments.words[0], "snapshot") == 0) {
            return operator_snapshot(arguments.data_dir, dump, arguments.words[2]);
        }
    }
    (void)fprintf(stderr, "%s%s", cli_operator_usage, cli_client_usage);
    return 2;
}
