/* An expression becomes a row of comparisons and, in reverse Polish notation, how they are joined:
 * parsing needs two stacks, evaluating one, and neither calls itself. */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/filter_internal.h"
#include "server/http/rune.h"

static const char *const comparison_names[] = {
    "Equal", "Not Equal", "In", "Not In", "Is Empty", "Is Not Empty", "Matches", "Not Matches",
};

void filter_free(struct filter *filter)
{
    if (filter == NULL) {
        return;
    }
    for (size_t i = 0; i < filter->match_count; i++) {
        regex_free(filter->matches[i].regex);
    }
    free(filter->matches);
    free(filter->program);
    free(filter->text);
    free(filter);
}

/* --- comparisons --- */

static bool match_is_allowed(const struct filter_match *match)
{
    switch (match->comparison) {
    case OPERATOR_EQUAL:
    case OPERATOR_NOT_EQUAL:
        return match->type == TYPE_STRING || match->type == TYPE_INT || match->type == TYPE_BOOL;
    case OPERATOR_IN:
    case OPERATOR_NOT_IN:
        return match->type == TYPE_STRING || match->type == TYPE_STRINGS || match->type == TYPE_MAP;
    case OPERATOR_EMPTY:
    case OPERATOR_NOT_EMPTY:
        return match->type == TYPE_STRINGS || match->type == TYPE_MAP || match->type == TYPE_LIST;
    case OPERATOR_MATCHES:
    case OPERATOR_NOT_MATCHES:
        return match->type == TYPE_STRING;
    }
    return false;
}

/* The type of what the selector names; false when it names nothing. */
static bool match_resolve(const struct filter_field *fields, struct filter_match *match)
{
    enum filter_type type = TYPE_STRUCT;

    match->of_map = false;
    match->list_piece = match->selector.count;
    if (match->selector.count > FILTER_PIECES_MAX) {
        return false; /* Nothing lies that deep. */
    }
    for (size_t i = 0; i < match->selector.count; i++) {
        if (type == TYPE_MAP) {
            match->of_map = true;
            type = fields == NULL ? TYPE_STRING : TYPE_STRUCT;
            continue;
        }
        if (type != TYPE_STRUCT && type != TYPE_LIST) {
            return false;
        }
        if (type == TYPE_LIST) {
            match->list_piece = i - 1;
        }
        while (fields->name != NULL &&
               !slice_equal(slice_from_text(fields->name), match->selector.pieces[i])) {
            fields++;
        }
        if (fields->name == NULL) {
            return false;
        }
        type = fields->type;
        fields = fields->fields;
    }
    match->type = type;
    return true;
}

/* Takes a prefix off: 0x, 0o, 0b, or 0, which is octal too. */
static unsigned number_base(struct slice *text)
{
    static const struct {
        char letter;
        unsigned base;
    } prefixes[] = {{'x', 16}, {'o', 8}, {'b', 2}};

    if (text->data[0] != '0') {
        return 10;
    }
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (text->size >= 3 && slice_lower(text->data[1]) == prefixes[i].letter) {
            *text = slice_from(text->data + 2, text->size - 2);
            return prefixes[i].base;
        }
    }
    *text = slice_from(text->data + 1, text->size - 1);
    return 8;
}

/* 255: none in any base. */
static unsigned number_digit(char c)
{
    const char lower = slice_lower(c);

    if (filter_is_digit(c)) {
        return (unsigned)(c - '0');
    }
    return lower >= 'a' && lower <= 'f' ? (unsigned)(lower - 'a') + 10 : 255;
}

/* As Go's ParseInt with base 0. */
static bool coerce_int(struct slice text, int64_t *number, const char **fault)
{
    const bool negative = text.size > 0 && text.data[0] == '-';
    const uint64_t limit = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    uint64_t value = 0;
    bool fits = true;

    *fault = "invalid syntax";
    if (text.size > 0 && (negative || text.data[0] == '+')) {
        text = slice_from(text.data + 1, text.size - 1);
    }
    if (text.size == 0) {
        return false;
    }
    const unsigned base = number_base(&text);
    bool after_digit = base != 10; /* A prefix counts as one: "0_7", "0x_f". */

    for (size_t i = 0; i < text.size; i++) {
        const unsigned digit = number_digit(text.data[i]);

        if (text.data[i] == '_' && after_digit && i + 1 < text.size) {
            after_digit = false;
            continue;
        }
        if (digit >= base) {
            return false;
        }
        after_digit = true;
        fits = fits && value <= (limit - digit) / base;
        value = fits ? value * base + digit : value;
    }
    *fault = "value out of range";
    *number = negative ? (int64_t)(0 - value) : (int64_t)value;
    return fits;
}

static bool coerce_bool(struct slice text, bool *flag)
{
    static const char *const words[] = {"1", "t", "T", "true",  "TRUE",  "True",
                                        "0", "f", "F", "false", "FALSE", "False"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (slice_equal(text, slice_from_text(words[i]))) {
            *flag = i < 6;
            return true;
        }
    }
    return false;
}

/* What all of them cost for each byte is bounded, not only what each does. */
static void match_compile(struct parser *parser, struct filter_match *match)
{
    struct errmsg err = {""};

    match->regex = regex_new(match->value, &err);
    if (match->regex != NULL) {
        parser->filter->regex_steps += regex_steps(match->regex);
        if (parser->filter->regex_steps <= FILTER_STEPS_MAX) {
            return;
        }
        (void)errmsg_set(&err, -1, "expressions too large together");
    }
    parser->failed = true;
    (void)errmsg_set(parser->err, -1, "Failed to compile regular expression \"%.*s\": %.300s",
                     match->value.size > 128 ? 128 : (int)match->value.size, match->value.data,
                     err.text);
}

static void match_coerce(struct parser *parser, struct filter_match *match)
{
    const struct slice selector = match->selector.text;
    const char *fault = "invalid syntax";
    const char *call = NULL;

    if (match->comparison == OPERATOR_MATCHES || match->comparison == OPERATOR_NOT_MATCHES) {
        match_compile(parser, match);
        return;
    }
    if (match->type == TYPE_INT && !coerce_int(match->value, &match->number, &fault)) {
        call = "ParseInt";
    } else if (match->type == TYPE_BOOL && !coerce_bool(match->value, &match->flag)) {
        call = "ParseBool";
    }
    if (call != NULL) {
        parser->failed = true;
        const int size = match->value.size > 128 ? 128 : (int)match->value.size;
        (void)errmsg_set(parser->err, -1,
                         "Failed to coerce value \"%.*s\" for selector \"%.*s\": strconv.%s: "
                         "parsing \"%.*s\": %s",
                         size, match->value.data, selector.size > 128 ? 128 : (int)selector.size,
                         selector.data, call, size, match->value.data, fault);
    }
}

/* Checks the comparison, now that its syntax is right. As Consul, which first reads the whole
 * expression, and then looks at what it means. */
static void match_check(struct parser *parser, struct filter_match *match)
{
    const struct slice selector = match->selector.text;
    char before[64];

    if (!match_resolve(parser->filter->fields, match)) {
        filter_parse_fail_selector(parser, "Selector ", selector, " is not valid");
    } else if (!match_is_allowed(match)) {
        (void)snprintf(before, sizeof(before), "Invalid match operator \"%s\" for selector ",
                       comparison_names[match->comparison]);
        filter_parse_fail_selector(parser, before, selector, "");
    } else {
        match_coerce(parser, match);
    }
}

static const char *const words_empty[] = {"is", "empty", NULL};
static const char *const words_not_empty[] = {"is", "not", "empty", NULL};
static const char *const words_contains[] = {"contains", NULL};
static const char *const words_not_contains[] = {"not", "contains", NULL};
static const char *const words_matches[] = {"matches", NULL};
static const char *const words_not_matches[] = {"not", "matches", NULL};
static const char *const words_in[] = {"in", NULL};
static const char *const words_not_in[] = {"not", "in", NULL};

/* A comparison behind a selector; false if there is none. */
static bool parse_comparison(struct parser *parser, enum filter_comparison *comparison,
                             bool *has_value)
{
    static const struct {
        const char *const *words;
        enum filter_comparison comparison;
        bool has_value;
    } comparisons[] = {
        {words_empty, OPERATOR_EMPTY, false},    {words_not_empty, OPERATOR_NOT_EMPTY, false},
        {words_contains, OPERATOR_IN, true},     {words_not_contains, OPERATOR_NOT_IN, true},
        {words_matches, OPERATOR_MATCHES, true}, {words_not_matches, OPERATOR_NOT_MATCHES, true},
    };
    const size_t start = parser->at;

    *has_value = true;
    (void)filter_parse_blanks(parser);
    if (filter_parse_text(parser, "==") || filter_parse_text(parser, "!=")) {
        *comparison = parser->in.data[parser->at - 2] == '!' ? OPERATOR_NOT_EQUAL : OPERATOR_EQUAL;
        (void)filter_parse_blanks(parser);
        return true;
    }
    parser->at = start;
    for (size_t i = 0; i < sizeof(comparisons) / sizeof(comparisons[0]); i++) {
        if (filter_parse_words(parser, comparisons[i].words, comparisons[i].has_value)) {
            *comparison = comparisons[i].comparison;
            *has_value = comparisons[i].has_value;
            return true;
        }
    }
    return false;
}

/* `value in selector`, the value being read. */
static void parse_in(struct parser *parser, struct filter_match *match)
{
    if (filter_parse_words(parser, words_in, true)) {
        match->comparison = OPERATOR_IN;
    } else if (filter_parse_words(parser, words_not_in, true)) {
        match->comparison = OPERATOR_NOT_IN;
    } else {
        (void)filter_parse_blanks(parser);
        filter_parse_fail(parser, parser->at, FILTER_NO_MATCH);
        return;
    }
    if (!filter_parse_selector(parser, &match->selector)) {
        filter_parse_fail(parser, parser->at, "rule \"match\": Invalid selector");
    }
}

static void parse_match(struct parser *parser)
{
    struct filter *filter = parser->filter;
    bool has_value;

    if (filter->match_count == FILTER_MATCHES_MAX) {
        filter_parse_fail(parser, parser->at, "expression has too many comparisons");
        return;
    }
    struct filter_match *match = &filter->matches[filter->match_count];
    *match = (struct filter_match){.value = SLICE_EMPTY};
    if (!filter_parse_selector(parser, &match->selector)) {
        if (!parser->failed && filter_parse_value(parser, &match->value)) {
            parse_in(parser, match);
        }
    } else if (parse_comparison(parser, &match->comparison, &has_value)) {
        if (has_value) {
            (void)filter_parse_value(parser, &match->value);
        }
    } else {
        match->value = match->selector.text;
        parse_in(parser, match);
    }
    if (!parser->failed) {
        filter->match_count++;
        filter->program[filter->program_count++] = STEP_MATCH;
    }
}

/* --- expressions --- */

static void parse_push(struct parser *parser, enum filter_step step)
{
    if (parser->depth == FILTER_DEPTH_MAX) {
        filter_parse_fail(parser, parser->at, "expression nests too deeply");
        return;
    }
    parser->stack[parser->depth++] = (uint8_t)step;
}

/* Writes out what binds tighter than `step`. */
static void parse_pop(struct parser *parser, enum filter_step step)
{
    struct filter *filter = parser->filter;

    while (parser->depth > 0 && parser->stack[parser->depth - 1] != STEP_OPEN &&
           parser->stack[parser->depth - 1] <= step) {
        assert(filter->program_count < PROGRAM_STEPS_MAX);
        filter->program[filter->program_count++] = parser->stack[--parser->depth];
    }
}

/* "not" and a blank, unless it is a name that is compared ("not in Tags"). */
static bool parse_not(struct parser *parser)
{
    static const char *const comparisons[] = {"in ", "== ", "!= ", "not in ", NULL};
    const size_t start = parser->at;

    if (!filter_parse_text(parser, "not") || filter_parse_blanks(parser) == 0) {
        parser->at = start;
        return false;
    }
    const size_t after = parser->at;
    for (size_t i = 0; comparisons[i] != NULL; i++) {
        if (filter_parse_text(parser, comparisons[i])) {
            parser->at = start;
            return false;
        }
    }
    parser->at = after;
    return true;
}

/* Everything up to and including one comparison. */
static void parse_operand(struct parser *parser)
{
    for (;;) {
        (void)filter_parse_blanks(parser);
        if (parser->failed) {
            return;
        }
        if (filter_parse_peek(parser, 0) == '(') {
            parser->at++;
            parse_push(parser, STEP_OPEN);
        } else if (parse_not(parser)) {
            parse_push(parser, STEP_NOT);
        } else {
            parse_match(parser);
            return;
        }
    }
}

/* Closing parentheses, then an operator or the end. True: another operand follows. */
static bool parse_joint(struct parser *parser)
{
    static const char *const words_and[] = {"and", NULL};
    static const char *const words_or[] = {"or", NULL};

    for (;;) {
        const size_t start = parser->at;

        (void)filter_parse_blanks(parser);
        if (filter_parse_peek(parser, 0) != ')') {
            parser->at = start;
            break;
        }
        parse_pop(parser, STEP_OR);
        if (parser->depth == 0) {
            filter_parse_fail(parser, parser->at, FILTER_NO_MATCH);
            return false;
        }
        parser->depth--; /* The parenthesis. */
        parse_pop(parser, STEP_NOT);
        parser->at++;
    }
    if (filter_parse_words(parser, words_and, true)) {
        parse_pop(parser, STEP_AND);
        parse_push(parser, STEP_AND);
        return true;
    }
    if (filter_parse_words(parser, words_or, true)) {
        parse_pop(parser, STEP_OR);
        parse_push(parser, STEP_OR);
        return true;
    }
    (void)filter_parse_blanks(parser);
    if (parser->at < parser->in.size) {
        filter_parse_fail(parser, parser->at, FILTER_NO_MATCH);
        return false;
    }
    parse_pop(parser, STEP_OR);
    if (parser->depth > 0) {
        filter_parse_fail(parser, parser->at, "rule \"grouping\": Unmatched parentheses");
    }
    return false;
}

static void parse_all(struct parser *parser)
{
    do {
        parse_operand(parser);
        if (parser->failed) {
            return;
        }
        parse_pop(parser, STEP_NOT);
    } while (parse_joint(parser) && !parser->failed);
    for (size_t i = 0; i < parser->filter->match_count && !parser->failed; i++) {
        match_check(parser, &parser->filter->matches[i]);
    }
}

struct filter *filter_new(enum filter_kind kind, struct slice expression, struct errmsg *err)
{
    struct filter *filter;
    struct parser parser = {.in = expression, .err = err};
    size_t size;

    if (expression.size > FILTER_BYTES_MAX) {
        (void)errmsg_set(err, -1, "expression is longer than %d bytes", FILTER_BYTES_MAX);
        return NULL;
    }
    for (size_t at = 0; at < expression.size; at += size) {
        size = rune_size(expression, at);
        if (size == 0) {
            filter_parse_fail(&parser, at, "invalid encoding");
            return NULL;
        }
    }
    filter = calloc(1, sizeof(*filter));
    if (filter != NULL) {
        filter->fields = filter_fields(kind);
        filter->matches = calloc(FILTER_MATCHES_MAX, sizeof(*filter->matches));
        filter->program = malloc(PROGRAM_STEPS_MAX);
        filter->text = malloc(expression.size + 1);
    }
    if (filter == NULL || filter->matches == NULL || filter->program == NULL ||
        filter->text == NULL) {
        filter_free(filter);
        (void)errmsg_set(err, -1, "out of memory");
        return NULL;
    }
    parser.filter = filter;
    parse_all(&parser);
    if (parser.failed) {
        filter_free(filter);
        return NULL;
    }
    return filter;
}
