#ifndef SERVER_HTTP_REGEX_H
#define SERVER_HTTP_REGEX_H

/* Regular expressions that a stranger may write: matched in time proportional to text times
 * expression, in bounded memory, as Go's are. Not regcomp(3): that one allows back-references and
 * exponential growth.
 *
 * Of Go's syntax: literals, ".", classes, \d \w \s and their opposites, escapes, ^ $, groups (also
 * "(?:"), alternatives, * + ? {n,m}, greedy or not (only whether there is a match counts). Bytes,
 * not characters: a class with characters beyond ASCII is refused. */

#include <stdbool.h>

#include "kv/errmsg.h"
#include "kv/slice.h"

enum {
    REGEX_STEPS_MAX = 512,   /* of a compiled expression, repetitions written out */
    REGEX_CLASSES_MAX = 64,  /* character classes in an expression */
    REGEX_DEPTH_MAX = 32,    /* of groups in groups */
    REGEX_REPEAT_MAX = 1000, /* in {n,m}, as in Go */
};

struct regex;

/* Returns owned, or NULL with Go's words for the fault, as far as it has such, in `err`. */
struct regex *regex_new(struct slice pattern, struct errmsg *err);
void regex_free(struct regex *regex); /* NULL is accepted */
/* Whether a part of the text matches. */
bool regex_matches(struct regex *regex, struct slice text);

#endif
