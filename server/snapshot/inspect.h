#ifndef SERVER_SNAPSHOT_INSPECT_H
#define SERVER_SNAPSHOT_INSPECT_H

/* Looking into snapshots: for operators. Changes nothing; works beside a running server. */

#include <stdbool.h>
#include <stdio.h>

#include "kv/errmsg.h"

struct snapshot_inspect_options {
    const char *dir;  /* of the snapshots */
    const char *name; /* a file of it; NULL: all that are whole (verify), the newest (records) */
    bool records;     /* print every record, not only the tables */
};

/* Reads the snapshot, or each one of the folder, and checks every byte; prints to `out` what it is
 * of, its servers, and a line for each table. With several the first error is returned, after all
 * were looked at; each damaged one has its line. Errors as snapshot_verify; SNAPSHOT_ENOTFOUND:
 * there is none. */
int snapshot_inspect(const struct snapshot_inspect_options *options, FILE *out, struct errmsg *err);

#endif
