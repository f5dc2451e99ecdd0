#ifndef SERVER_CLI_CLI_H
#define SERVER_CLI_CLI_H

/* The command line: Consul's sub-commands, one file and one line of a table each. */

#include <stdbool.h>
#include <stddef.h>

struct cli_command {
    const char *name;
    const char *synopsis; /* one line for the list of commands */
    const char *usage;    /* for -h; NULL: `run` prints its own */
    const char *options;  /* what -h says behind it; may be NULL */
    /* Arguments behind the command's name. Returns the exit status. */
    int (*run)(int argc, char **argv);
};

enum { CLI_STATUS_HELP = 127 /* Consul's, when no command was named */ };

/* Runs what `argv` (with the program's name) asks for; returns the exit status. */
int cli_run(int argc, char **argv);

/* The sub-commands. */
int cli_agent(int argc, char **argv);
int cli_operator(int argc, char **argv);
extern const char cli_operator_usage[];
int cli_raft(int argc, char **argv);      /* operator raft */
int cli_autopilot(int argc, char **argv); /* operator autopilot */
int cli_snapshot(int argc, char **argv);
extern const char cli_snapshot_usage[];
struct archive;
struct cli_inspect_options {
    bool details;           /* -kvdetails */
    bool json;              /* -format=json */
    size_t depth;           /* -kvdepth */
    const char *key_prefix; /* -kvfilter */
};
/* What is in the archive, as Consul 1.10 and later print it, to stdout. False, and the text on
 * stderr: it cannot be read. */
bool cli_inspect(struct archive *archive, const struct cli_inspect_options *options);
int cli_version(int argc, char **argv);
extern const char cli_version_usage[];

#endif
