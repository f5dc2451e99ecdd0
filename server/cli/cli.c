#include "server/cli/cli.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "server/cli/cli_client.h"

/* In the order of the alphabet, as the list prints them. */
static const struct cli_command cli_commands[] = {
    {"agent", "Runs a Proconsul server", NULL, NULL, cli_agent},
    {"operator", "Servers, autopilot, a server's log and snapshots", cli_operator_usage,
     cli_client_usage, cli_operator},
    {"snapshot", "Saves, restores and inspects snapshots of the state", cli_snapshot_usage,
     cli_client_usage, cli_snapshot},
    {"version", "Prints the version", cli_version_usage, NULL, cli_version},
};
static const size_t cli_command_count = sizeof(cli_commands) / sizeof(cli_commands[0]);

static void cli_print_commands(FILE *out)
{
    (void)fprintf(out, "Usage: consul [--version] [--help] <command> [<args>]\n\n"
                       "Available commands are:\n");
    for (size_t i = 0; i < cli_command_count; i++) {
        (void)fprintf(out, "    %-14s %s\n", cli_commands[i].name, cli_commands[i].synopsis);
    }
}

static bool cli_is_one_of(const char *text, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (strcmp(text, *words) == 0) {
            return true;
        }
    }
    return false;
}

static bool cli_asks_for_help(int argc, char **argv)
{
    static const char *const help[] = {"-h", "-help", "--help", "--h", NULL};

    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (cli_is_one_of(argv[i], help)) {
            return true;
        }
    }
    return false;
}

int cli_run(int argc, char **argv)
{
    static const char *const version[] = {"-v", "-version", "--version", NULL};
    static const char *const help[] = {"-h", "-help", "--help", NULL};

    if (argc < 2) {
        cli_print_commands(stderr);
        return CLI_STATUS_HELP;
    }
    if (cli_is_one_of(argv[1], version)) {
        return cli_version(0, NULL);
    }
    if (cli_is_one_of(argv[1], help)) {
        cli_print_commands(stdout);
        return 0;
    }
    for (size_t i = 0; i < cli_command_count; i++) {
        const struct cli_command *command = &cli_commands[i];

        if (strcmp(argv[1], command->name) != 0) {
            continue;
        }
        if (command->usage != NULL && cli_asks_for_help(argc - 2, argv + 2)) {
            (void)printf("%s%s", command->usage, command->options == NULL ? "" : command->options);
            return 0;
        }
        return command->run(argc - 2, argv + 2);
    }
    /* "help" and what we don't know: the list, as in Consul. */
    cli_print_commands(stderr);
    return CLI_STATUS_HELP;
}
