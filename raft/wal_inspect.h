#ifndef RAFT_WAL_INSPECT_H
#define RAFT_WAL_INSPECT_H

/* Looking into a log without opening it for use: for operators, and for tests. Reads it the way
 * recovery does, so that the verdict is the one that a start of the server would come to, but
 * changes nothing: no tail is cut, no file made, no lock held. */

#include <stdio.h>

#include "raft/wal.h"

struct wal_inspect_options {
    const char *dir;
    bool records; /* print every record, not only the segments */
};

/* Prints to `out`, line by line as it reads; one line a segment, then a summary. Errors as wal_open
 * (WAL_ECORRUPT: a server would refuse to start), with the reason in `message`
 * (WAL_ERROR_BYTES_MAX bytes); WAL_ENOTFOUND: there is no log. A torn tail is no error: a server
 * cuts it off. On the log of a running server the tail may be seen half written; a line says so. */
int wal_inspect(const struct wal_inspect_options *options, FILE *out, char *message);

#endif
