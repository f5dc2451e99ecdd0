#include <stdio.h>
#include <string.h>

#include "server/cli/cli.h"
#include "server/cli/cli_client.h"
#include "server/server.h"

const char cli_version_usage[] =
    "Usage: consul version [options]\n\n"
    "  Prints the version of this program, and of the Consul that it answers like.\n\n"
    "Options\n\n"
    "  -format=<pretty|json>  Default: pretty\n";

int cli_version(int argc, char **argv)
{
    struct cli_flag flags[] = {{"format", false, NULL}};
    struct errmsg err = {""};

    if (cli_flags_parse(argc, argv, flags, 1, &err) <
        0) { /* What follows is ignored, as in Consul. */
        (void)fprintf(stderr, "%s\n\n%s", err.text, cli_version_usage);
        return 1;
    }
    const char *format = flags[0].value == NULL ? "pretty" : flags[0].value;

    if (strcmp(format, "json") == 0) {
        (void)printf(
            "{\n   \"Version\": \"%s\",\n   \"Revision\": \"\",\n   \"Prerelease\": \"\",\n"
            "   \"BuildDate\": \"1970-01-01T00:00:01Z\",\n"
            "   \"RPC\": {\n      \"Default\": 2,\n      \"Min\": 2,\n      \"Max\": 3\n   },\n"
            "   \"Proconsul\": \"%s\"\n}\n",
            PROCONSUL_CONSUL_VERSION, PROCONSUL_VERSION);
        return 0;
    }
    if (strcmp(format, "pretty") != 0) {
        (void)fprintf(stderr, "Unknown format: %s\n", format);
        return 1;
    }
    /* First Consul's line, which tools parse. */
    (void)printf("Consul v%s\nProconsul v%s\n", PROCONSUL_CONSUL_VERSION, PROCONSUL_VERSION);
    return 0;
}
