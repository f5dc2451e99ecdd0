#ifndef SERVER_DURATION_H
#define SERVER_DURATION_H

/* Durations as Go writes them: time.ParseDuration and Duration.String, the syntax of every time in
 * Consul's configuration and HTTP API. Rules and error texts are those of Go 1.15, which built the
 * Consul that we answer like. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/errmsg.h"
#include "kv/slice.h"

/* Go's duration text ("1.5s", "300ms", "1h2m", "-5s"): nanoseconds. False, with Go's error text
 * ("time: missing unit in duration \"15\"") in `err`, on anything else. */
bool duration_parse(struct slice text, int64_t *ns, struct errmsg *err);
/* As Go prints a duration: "1m0s", "15s", "1.5s", "0s". */
void duration_format(int64_t ns, char *out, size_t out_bytes);

#endif
