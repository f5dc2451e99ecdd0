#ifndef SERVER_AGENT_AGENT_STORE_H
#define SERVER_AGENT_AGENT_STORE_H

/* Keeps what clients registered: one JSON file an object in data_dir/services and data_dir/checks,
 * written to a temporary name, synced, renamed; and what they last said of TTL checks, in
 * data_dir/check-states, not synced: such a file is written again and again, and may be lost.
 * Writing is done on libuv's pool, one file after the other in the order of the calls, so that the
 * loop never waits for the disk. */

#include <jansson.h>
#include <uv.h>

#include "kv/errmsg.h"
#include "kv/slice.h"

enum agent_store_folder { AGENT_STORE_SERVICES, AGENT_STORE_CHECKS, AGENT_STORE_STATES };
enum {
    /* A request's body has 1 MiB at most; written anew, a short number (1e99) has 23 digits. */
    AGENT_STORE_FILE_BYTES_MAX = 8 * 1024 * 1024,
    AGENT_STORE_FILES_MAX = 32768,
};

struct agent_store;

/* Creates the folders below data_dir. */
int agent_store_new(uv_loop_t *loop, const char *data_dir, struct agent_store **out,
                    struct errmsg *err);
/* What was asked before is still written; the memory goes when it is (the loop must go on). */
void agent_store_free(struct agent_store *store);

/* Reads every file of a folder, in order of its name; bad files are skipped with a log line.
 * `visit` borrows the document. Called at start, on the loop. AGENT_EINTERNAL when the folder
 * cannot be read: without what was kept the agent would take all of it out of the catalog. */
int agent_store_load(struct agent_store *store, enum agent_store_folder folder,
                     void (*visit)(void *host, const json_t *document), void *host,
                     struct errmsg *err);

/* Borrows both. A write that fails is logged: the object lives on until the next restart. What
 * still waits for the disk gives way to what comes later for the same object; when too much waits,
 * the call is such a failure. */
void agent_store_put(struct agent_store *store, enum agent_store_folder folder, struct slice id,
                     const json_t *document);
void agent_store_remove(struct agent_store *store, enum agent_store_folder folder, struct slice id);

#endif
