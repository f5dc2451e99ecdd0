#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "server/cli/cli.h"
#include "server/config_internal.h"
#include "server/server.h"

static void cli_agent_usage(FILE *out)
{
    (void)fprintf(out, "Usage: consul agent [options]\n\n"
                       "  Runs a Proconsul server until it is interrupted. All of Consul's flags "
                       "are taken;\n  docs/configuration.md says what becomes of each.\n\n");
    for (size_t i = 0; i < config_flag_count; i++) {
        (void)fprintf(out, "  -%-28s %s\n", config_flag_table[i].name, config_flag_table[i].help);
    }
}

/* The program that asked for "-h" as a value ("-node -h") does not exist; Consul's parser would
 * take it so, we show help. */
static bool cli_agent_asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "-help") == 0 ||
            strcmp(argv[i], "--help") == 0) {
            return true;
        }
    }
    return false;
}

int cli_agent(int argc, char **argv)
{
    struct config *config;
    struct errmsg err = {""};

    if (cli_agent_asks_for_help(argc, argv)) {
        cli_agent_usage(stdout);
        return 0;
    }
    if (config_load(argc, argv, &config, &err) != 0) {
        (void)fprintf(stderr, "==> %s\n", err.text);
        return 1;
    }
    return server_run(config);
}
