#ifndef SERVER_HTTP_REGEX_H
#define SERVER_HTTP_REGEX_H

/* Regular expressions that a stranger may write: matched in time proportional to text times
 * expression, in bounded memory, as Go's are. Not regcomp(3): that one allows back-references and
 * exponential growth.
 *
 * Go's syntax, over characters in UTF-8, without Unicode's classes (\p{Greek}), and with (?i) for
 * ASCII alone: the rest of it is refused, never read otherwise. Only whether there is a match
 * counts, so groups capture nothing, and greedy or not is the same. */

#include <stdbool.h>
#include <stddef.h>

#include "kv/errmsg.h"
#include "kv/slice.h"

enum {
    REGEX_STEPS_MAX = 1024,  /* of a compiled expression, repetitions written out */
    REGEX_RANGES_MAX = 1024, /* of characters, in all classes of an expression */
    REGEX_DEPTH_MAX = 128,   /* of groups in groups */
    REGEX_REPEAT_MAX = 1000, /* in {n,m}, as in Go */
};

struct regex;

/* Returns owned, or NULL with Go's words for the fault, as far as it has such, in `err`. */
struct regex *regex_new(struct slice pattern, struct errmsg *err);
void regex_free(struct regex *regex); /* NULL is accepted */
/* What matching costs at most for each byte of text, in steps. */
size_t regex_steps(const struct regex *regex);
/* Whether a part of the text matches. */
bool regex_matches(struct regex *regex, struct slice text);

#endif
