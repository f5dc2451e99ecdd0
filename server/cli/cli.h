#ifndef SERVER_CLI_CLI_H
#define SERVER_CLI_CLI_H

/* The command line: Consul's sub-commands, one file and one line of a table each. */

struct cli_command {
    const char *name;
    const char *synopsis; /* one line for the list of commands */
    const char *usage;    /* for -h; NULL: `run` prints its own */
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
int cli_version(int argc, char **argv);

#endif
