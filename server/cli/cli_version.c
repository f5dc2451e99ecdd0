#include <stdio.h>

#include "server/cli/cli.h"
#include "server/server.h"

int cli_version(int argc, char **argv)
{
    (void)argc; /* Consul ignores arguments here, too. */
    (void)argv;
    /* First Consul's line, which tools parse. */
    (void)printf("Consul v%s\nProconsul v%s\n", PROCONSUL_CONSUL_VERSION, PROCONSUL_VERSION);
    return 0;
}
