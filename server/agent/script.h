#ifndef SERVER_AGENT_SCRIPT_H
#define SERVER_AGENT_SCRIPT_H

/* One run of a script check: a program in a process group of its own, its two outputs together,
 * bounded, and its exit status as the check's. The program is started by a worker of libuv's pool;
 * the loop waits for nothing. */

#include <jansson.h>
#include <stdint.h>
#include <uv.h>

#include "kv/slice.h"
#include "server/agent/probe.h"

enum {
    SCRIPT_OUTPUT_BYTES_MAX = 64 * 1024, /* the last bytes of a longer output are kept */
    SCRIPT_ARGS_MAX = 256,               /* words of one command */
};

struct script_spec {
    const json_t *args; /* the program and its arguments: strings; copied */
    uint64_t timeout_ms;
    uint64_t output_bytes_max; /* at most SCRIPT_OUTPUT_BYTES_MAX */
    uint64_t open_files;       /* how many it may have; 0, or more than this process: as many */
};

/* `report` is called once, on the loop, with the check's new status: exit status 0 is passing, 1
 * warning, all else, signals too, critical; when the time is over it is critical and the process
 * group is killed. `ended` is called once after it, when the process is gone and the next run may
 * begin; the script is freed after it. */
struct script_handlers {
    void *context;
    void (*report)(void *context, enum probe_status status, struct slice output);
    void (*ended)(void *context);
};

struct script;

/* NULL without memory. Nothing is called from inside. */
struct script *script_start(uv_loop_t *loop, const struct script_spec *spec,
                            const struct script_handlers *handlers);
/* Kills the process group and calls nobody any more. The memory goes when the process is gone; the
 * loop must go on. */
void script_cancel(struct script *script);

#endif
