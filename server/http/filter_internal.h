#ifndef SERVER_HTTP_FILTER_INTERNAL_H
#define SERVER_HTTP_FILTER_INTERNAL_H

/* What the filter's files share: filter_selectors.c knows what can be named, filter_words.c takes
 * an expression's text apart, filter_parser.c makes a program of it, filter_evaluate.c runs that.
 */

#include <stddef.h>
#include <stdint.h>

#include "server/http/filter.h"
#include "server/http/regex.h"

enum filter_type {
    TYPE_STRING,
    TYPE_INT,
    TYPE_BOOL,
    TYPE_STRINGS,
    TYPE_MAP,    /* of strings, or of structs that have `fields` */
    TYPE_STRUCT, /* `fields` */
    TYPE_LIST,   /* of structs that have `fields` */
};

struct filter_field {
    const char *name; /* NULL ends a table */
    enum filter_type type;
    const struct filter_field *fields;
};

/* The members that a kind of object has. */
const struct filter_field *filter_fields(enum filter_kind kind);

/* --- programs --- */

enum filter_comparison {
    OPERATOR_EQUAL,
    OPERATOR_NOT_EQUAL,
    OPERATOR_IN,
    OPERATOR_NOT_IN,
    OPERATOR_EMPTY,
    OPERATOR_NOT_EMPTY,
    OPERATOR_MATCHES,
    OPERATOR_NOT_MATCHES,
};

/* What names a member. The slices point into the filter's text. */
struct filter_selector {
    size_t count; /* of pieces; those beyond FILTER_PIECES_MAX are in `text` only */
    struct slice pieces[FILTER_PIECES_MAX];
    struct slice text; /* the pieces with dots between them */
};

/* A comparison. */
struct filter_match {
    enum filter_comparison comparison;
    enum filter_type type;
    bool of_map;       /* the last piece is a key, which the map may lack */
    size_t list_piece; /* names a list that there are more pieces behind; the count of pieces: none
                          does */
    struct filter_selector selector;
    struct slice value;
    int64_t number;
    bool flag;
    struct regex *regex;
};

enum filter_step { STEP_MATCH, STEP_NOT, STEP_AND, STEP_OR, STEP_OPEN };

struct filter {
    const struct filter_field *fields;
    struct filter_match *matches;
    size_t match_count;
    uint8_t *program; /* STEP_MATCH stands for the next comparison */
    size_t program_count;
    char *text; /* the selectors and values, unquoted */
    size_t text_bytes;
    size_t regex_steps; /* of all matches */
};

enum { PROGRAM_STEPS_MAX = FILTER_MATCHES_MAX * 2 + FILTER_BYTES_MAX / 4 };

/* --- filter_words.c: from the text to its words --- */

/* `in` is borrowed; what is read goes into the filter's text. */
struct parser {
    struct filter *filter;
    struct slice in;
    size_t at;
    bool failed;
    struct errmsg *err;
    uint8_t stack[FILTER_DEPTH_MAX];
    size_t depth;
};

#define FILTER_NO_MATCH "no match found"

/* Notes the first fault, with its place. */
void filter_parse_fail(struct parser *parser, size_t at, const char *text);
/* A fault that has no place. */
void filter_parse_fail_selector(struct parser *parser, const char *before, struct slice selector,
                                const char *after);
/* NUL at the end. */
char filter_parse_peek(const struct parser *parser, size_t ahead);
bool filter_is_digit(char c);
/* Returns how many blanks there were. */
size_t filter_parse_blanks(struct parser *parser);
/* Reads the text if it comes here. */
bool filter_parse_text(struct parser *parser, const char *text);
/* Blanks, the words with blanks between them, and (`closed`) blanks behind. Else nothing is read.
 */
bool filter_parse_words(struct parser *parser, const char *const *words, bool closed);
/* name, name.name, name["key"].name: false if there is none here. */
bool filter_parse_selector(struct parser *parser, struct filter_selector *selector);
/* A quoted or bare value. False: failed. */
bool filter_parse_value(struct parser *parser, struct slice *value);

#endif
