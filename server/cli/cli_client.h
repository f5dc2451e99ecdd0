#ifndef SERVER_CLI_CLI_CLIENT_H
#define SERVER_CLI_CLI_CLIENT_H

/* What commands that ask a server share: flags in Go's manner, where the server is, and one HTTP
 * request. Waits: the command line has nothing else to do. */

#include <stdbool.h>
#include <stddef.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"

enum {
    CLI_ANSWER_BYTES_MAX = 256 * 1024 * 1024,
    CLI_TOKEN_BYTES_MAX = 4096,
    CLI_TIMEOUT_S = 120, /* without a byte from the server */
};

/* One flag: "name" is taken as -name=v, --name=v, and, unless it is `boolean`, -name v. */
struct cli_flag {
    const char *name;
    bool boolean;      /* -name alone is -name=true */
    const char *value; /* as given last; NULL: not given. Borrowed from argv */
};

/* Takes flags off the arguments up to the first that is none (or behind "--"). Returns how many it
 * took, or -1 with Go's text in `err`. */
int cli_flags_parse(int argc, char **argv, struct cli_flag *flags, size_t count,
                    struct errmsg *err);
/* The flag's value, NULL if it was not given. */
const char *cli_flag(const struct cli_flag *flags, size_t count, const char *name);
/* Whether a boolean flag is on. */
bool cli_flag_on(const struct cli_flag *flags, size_t count, const char *name);

/* The flags that say which server and how. */
#define CLI_CLIENT_FLAGS                                                                           \
    {"http-addr", false, NULL}, {"token", false, NULL}, {"token-file", false, NULL},               \
        {"datacenter", false, NULL}, {"stale", true, NULL}, {"ca-file", false, NULL},              \
        {"ca-path", false, NULL}, {"client-cert", false, NULL}, {"client-key", false, NULL},       \
    {                                                                                              \
        "tls-server-name", false, NULL                                                             \
    }
extern const char cli_client_usage[]; /* what -h says of them */

struct cli_answer {
    int status;
    struct buffer body;
};

/* Sends one request to the server that the flags or the environment name, and reads its answer.
 * `path` begins with a slash and may have a query; ?dc and ?stale are added from the flags. `body`
 * may be empty. Returns 0, or -1 with the text as Consul's client says it ("Get \"http://…\": dial
 * tcp …", "Unexpected response code: 500 (…)") in `err`: then any status but 200. The answer's body
 * is the caller's. */
int cli_ask(const struct cli_flag *flags, size_t count, const char *method, const char *path,
            struct slice body, struct cli_answer *out, struct errmsg *err);

/* Appends a query parameter's value, escaped. */
void cli_put_escaped(struct buffer *out, const char *text);

#endif
