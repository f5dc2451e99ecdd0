/* An expression becomes a row of comparisons and, in reverse Polish notation, how they are joined:
 * parsing needs two stacks, evaluating one, and neither calls itself. */

#include "server/http/filter.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/regex.h"

/* --- selectors --- */

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

static const struct filter_field address_fields[] = {
    {"Address", TYPE_STRING, NULL},
    {"Port", TYPE_INT, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field weights_fields[] = {
    {"Passing", TYPE_INT, NULL},
    {"Warning", TYPE_INT, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field connect_fields[] = {
    {"Native", TYPE_BOOL, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field gateway_fields[] = {
    {"Mode", TYPE_STRING, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field path_fields[] = {
    {"ListenerPort", TYPE_INT, NULL}, {"LocalPathPort", TYPE_INT, NULL},
    {"Path", TYPE_STRING, NULL},      {"Protocol", TYPE_STRING, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field expose_fields[] = {
    {"Checks", TYPE_BOOL, NULL},
    {"Paths", TYPE_LIST, path_fields},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field upstream_fields[] = {
    {"Datacenter", TYPE_STRING, NULL},
    {"DestinationName", TYPE_STRING, NULL},
    {"DestinationNamespace", TYPE_STRING, NULL},
    {"DestinationType", TYPE_STRING, NULL},
    {"LocalBindAddress", TYPE_STRING, NULL},
    {"LocalBindPort", TYPE_INT, NULL},
    {"MeshGateway", TYPE_STRUCT, gateway_fields},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field proxy_fields[] = {
    {"DestinationServiceID", TYPE_STRING, NULL}, {"DestinationServiceName", TYPE_STRING, NULL},
    {"Expose", TYPE_STRUCT, expose_fields},      {"LocalServiceAddress", TYPE_STRING, NULL},
    {"LocalServicePort", TYPE_INT, NULL},        {"MeshGateway", TYPE_STRUCT, gateway_fields},
    {"Upstreams", TYPE_LIST, upstream_fields},   {NULL, TYPE_STRING, NULL},
};
static const struct filter_field node_fields[] = {
    {"Address", TYPE_STRING, NULL}, {"Datacenter", TYPE_STRING, NULL},
    {"ID", TYPE_STRING, NULL},      {"Meta", TYPE_MAP, NULL},
    {"Node", TYPE_STRING, NULL},    {"TaggedAddresses", TYPE_MAP, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field node_service_fields[] = {
    {"Address", TYPE_STRING, NULL},
    {"Connect", TYPE_STRUCT, connect_fields},
    {"EnableTagOverride", TYPE_BOOL, NULL},
    {"ID", TYPE_STRING, NULL},
    {"Kind", TYPE_STRING, NULL},
    {"Meta", TYPE_MAP, NULL},
    {"Port", TYPE_INT, NULL},
    {"Proxy", TYPE_STRUCT, proxy_fields},
    {"Service", TYPE_STRING, NULL},
    {"TaggedAddresses", TYPE_MAP, address_fields},
    {"Tags", TYPE_STRINGS, NULL},
    {"Weights", TYPE_STRUCT, weights_fields},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field instance_fields[] = {
    {"Address", TYPE_STRING, NULL},
    {"Datacenter", TYPE_STRING, NULL},
    {"ID", TYPE_STRING, NULL},
    {"Node", TYPE_STRING, NULL},
    {"NodeMeta", TYPE_MAP, NULL},
    {"ServiceAddress", TYPE_STRING, NULL},
    {"ServiceConnect", TYPE_STRUCT, connect_fields},
    {"ServiceEnableTagOverride", TYPE_BOOL, NULL},
    {"ServiceID", TYPE_STRING, NULL},
    {"ServiceKind", TYPE_STRING, NULL},
    {"ServiceMeta", TYPE_MAP, NULL},
    {"ServiceName", TYPE_STRING, NULL},
    {"ServicePort", TYPE_INT, NULL},
    {"ServiceProxy", TYPE_STRUCT, proxy_fields},
    {"ServiceTaggedAddresses", TYPE_MAP, address_fields},
    {"ServiceTags", TYPE_STRINGS, NULL},
    {"ServiceWeights", TYPE_STRUCT, weights_fields},
    {"TaggedAddresses", TYPE_MAP, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field check_fields[] = {
    {"CheckID", TYPE_STRING, NULL},     {"Name", TYPE_STRING, NULL},
    {"Node", TYPE_STRING, NULL},        {"Notes", TYPE_STRING, NULL},
    {"Output", TYPE_STRING, NULL},      {"ServiceID", TYPE_STRING, NULL},
    {"ServiceName", TYPE_STRING, NULL}, {"ServiceTags", TYPE_STRINGS, NULL},
    {"Status", TYPE_STRING, NULL},      {"Type", TYPE_STRING, NULL},
    {NULL, TYPE_STRING, NULL},
};
static const struct filter_field health_fields[] = {
    {"Checks", TYPE_LIST, check_fields},
    {"Node", TYPE_STRUCT, node_fields},
    {"Service", TYPE_STRUCT, node_service_fields},
    {NULL, TYPE_STRING, NULL},
};

static const struct filter_field *filter_fields(enum filter_kind kind)
{
    switch (kind) {
    case FILTER_NODE:
        return node_fields;
    case FILTER_NODE_SERVICE:
        return node_service_fields;
    case FILTER_INSTANCE:
        return instance_fields;
    case FILTER_CHECK:
        return check_fields;
    case FILTER_HEALTH:
        return health_fields;
    }
    assert(false);
    return NULL;
}

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

static const char *const comparison_names[] = {
    "Equal", "Not Equal", "In", "Not In", "Is Empty", "Is Not Empty", "Matches", "Not Matches",
};

/* A comparison. The slices point into the filter's text. */
struct filter_match {
    enum filter_comparison comparison;
    enum filter_type type;
    bool of_map; /* the last piece is a key, which the map may lack */
    size_t piece_count;
    struct slice pieces[FILTER_PIECES_MAX];
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
};

enum { PROGRAM_STEPS_MAX = FILTER_MATCHES_MAX * 2 + FILTER_BYTES_MAX / 4 };

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

/* --- parsing words --- */

struct parser {
    struct filter *filter;
    struct slice in;
    size_t at;
    bool failed;
    struct errmsg *err;
    uint8_t stack[FILTER_DEPTH_MAX];
    size_t depth;
};

static void parse_fail(struct parser *parser, size_t at, const char *text)
{
    if (parser->failed) {
        return;
    }
    size_t line = 1;
    size_t column = 1;
    for (size_t i = 0; i < at && i < parser->in.size; i++) {
        column++;
        if (parser->in.data[i] == '\n') {
            line++;
            column = 1;
        }
    }
    parser->failed = true;
    (void)errmsg_set(parser->err, -1, "%zu:%zu (%zu): %s", line, column, at, text);
}

/* A fault that has no place. */
static void parse_fail_selector(struct parser *parser, const char *before, struct slice selector,
                                const char *after)
{
    if (!parser->failed) {
        parser->failed = true;
        (void)errmsg_set(parser->err, -1, "%s\"%.*s\"%s", before,
                         selector.size > 128 ? 128 : (int)selector.size, selector.data, after);
    }
}

#define NO_MATCH "no match found"

static char parse_peek(const struct parser *parser, size_t ahead)
{
    return parser->at + ahead < parser->in.size ? parser->in.data[parser->at + ahead] : '\0';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_letter(char c)
{
    return slice_lower(c) >= 'a' && slice_lower(c) <= 'z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Returns how many blanks there were. */
static size_t parse_blanks(struct parser *parser)
{
    const size_t start = parser->at;

    while (parser->at < parser->in.size && is_blank(parser->in.data[parser->at])) {
        parser->at++;
    }
    return parser->at - start;
}

static bool parse_text(struct parser *parser, const char *text)
{
    const struct slice rest =
        slice_from(parser->in.data + parser->at, parser->in.size - parser->at);

    if (!slice_starts_with(rest, slice_from_text(text))) {
        return false;
    }
    parser->at += strlen(text);
    return true;
}

/* Blanks, the words with blanks between them, and (`closed`) blanks behind. Else nothing is read.
 */
static bool parse_words(struct parser *parser, const char *const *words, bool closed)
{
    const size_t start = parser->at;

    for (; *words != NULL; words++) {
        if (parse_blanks(parser) == 0 || !parse_text(parser, *words)) {
            parser->at = start;
            return false;
        }
    }
    if (closed && parse_blanks(parser) == 0) {
        parser->at = start;
        return false;
    }
    return true;
}

/* --- parsing values --- */

static void text_put(struct parser *parser, char c)
{
    /* Nothing grows by being unquoted, and each piece is joined twice at most. */
    assert(parser->filter->text_bytes < 3 * parser->in.size + 1);
    parser->filter->text[parser->filter->text_bytes++] = c;
}

static struct slice text_since(const struct parser *parser, size_t start)
{
    return slice_from(parser->filter->text + start, parser->filter->text_bytes - start);
}

static int hex_digit(char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    c = slice_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void text_put_rune(struct parser *parser, uint32_t rune)
{
    if (rune < 0x80) {
        text_put(parser, (char)rune);
    } else if (rune < 0x800) {
        text_put(parser, (char)(0xc0 | rune >> 6));
        text_put(parser, (char)(0x80 | (rune & 0x3f)));
    } else {
        text_put(parser, (char)(0xe0 | rune >> 12));
        text_put(parser, (char)(0x80 | (rune >> 6 & 0x3f)));
        text_put(parser, (char)(0x80 | (rune & 0x3f)));
    }
}

/* \xHH and \uHHHH: false when the digits are not there. */
static bool unquote_hex(struct parser *parser, struct slice quoted, size_t *at, size_t digits)
{
    uint32_t value = 0;

    if (quoted.size - *at <= digits) {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        const int digit = hex_digit(quoted.data[++*at]);
        if (digit < 0) {
            return false;
        }
        value = value << 4 | (uint32_t)digit;
    }
    if (digits == 2) {
        text_put(parser, (char)value);
    } else if (value >= 0xd800 && value < 0xe000) {
        return false;
    } else {
        text_put_rune(parser, value);
    }
    return true;
}

/* Go's strconv.Unquote of what stands between double quotes. */
static bool unquote(struct parser *parser, struct slice quoted)
{
    static const char from[] = "abfnrtv\\";
    static const char to[] = "\a\b\f\n\r\t\v\\";

    for (size_t at = 0; at < quoted.size; at++) {
        const char c = quoted.data[at];

        if (c == '\n') {
            return false;
        }
        if (c != '\\') {
            text_put(parser, c);
            continue;
        }
        if (++at == quoted.size) {
            return false;
        }
        const char *found = quoted.data[at] == '\0' ? NULL : strchr(from, quoted.data[at]);
        if (found != NULL) {
            text_put(parser, to[found - from]);
        } else if (quoted.data[at] == 'x' || quoted.data[at] == 'u') {
            if (!unquote_hex(parser, quoted, &at, quoted.data[at] == 'x' ? 2 : 4)) {
                return false;
            }
        } else {
            return false;
        }
    }
    return true;
}

static bool parse_string(struct parser *parser, struct slice *value)
{
    const size_t start = parser->at;
    const size_t text = parser->filter->text_bytes;
    const char quote = parse_peek(parser, 0);

    if (quote != '"' && quote != '`') {
        return false;
    }
    const char *body = parser->in.data + start + 1;
    const char *end = memchr(body, quote, parser->in.size - start - 1);
    if (end == NULL) {
        parse_fail(parser, parser->in.size, "rule \"string\": Unterminated string literal");
        return false;
    }
    const struct slice quoted = slice_from(body, (size_t)(end - body));
    parser->at = start + quoted.size + 2;
    if (quote == '`') {
        for (size_t i = 0; i < quoted.size; i++) {
            text_put(parser, quoted.data[i]);
        }
    } else if (!unquote(parser, quoted)) {
        parse_fail(parser, start, "rule \"string\": invalid syntax");
        return false;
    }
    *value = text_since(parser, text);
    return true;
}

static bool parse_number(struct parser *parser, struct slice *value)
{
    const size_t start = parser->at;
    const size_t text = parser->filter->text_bytes;

    if (parse_peek(parser, 0) == '-') {
        parser->at++;
    }
    if (!is_digit(parse_peek(parser, 0))) {
        parser->at = start;
        return false;
    }
    const bool zero = parse_peek(parser, 0) == '0';
    do {
        parser->at++;
    } while (!zero && is_digit(parse_peek(parser, 0)));
    if (parse_peek(parser, 0) == '.' && is_digit(parse_peek(parser, 1))) {
        do {
            parser->at++;
        } while (is_digit(parse_peek(parser, 0)));
    }
    const char next = parse_peek(parser, 0);
    if (parser->at < parser->in.size && !is_blank(next) && next != ')') {
        parse_fail(parser, parser->at, "rule \"number\": Invalid number literal");
        return false;
    }
    for (size_t i = start; i < parser->at; i++) {
        text_put(parser, parser->in.data[i]);
    }
    *value = text_since(parser, text);
    return true;
}

static struct slice parse_identifier(struct parser *parser)
{
    const size_t text = parser->filter->text_bytes;

    if (is_letter(parse_peek(parser, 0))) {
        while (is_letter(parse_peek(parser, 0)) || is_digit(parse_peek(parser, 0)) ||
               parse_peek(parser, 0) == '_') {
            text_put(parser, parser->in.data[parser->at++]);
        }
    }
    return text_since(parser, text);
}

static bool parse_index(struct parser *parser, struct slice *piece)
{
    parser->at++;
    (void)parse_blanks(parser);
    if (!parse_string(parser, piece)) {
        parse_fail(parser, parser->at, "rule \"index\": Invalid index");
        return false;
    }
    (void)parse_blanks(parser);
    if (parse_peek(parser, 0) != ']') {
        parse_fail(parser, parser->at, "rule \"index\": Unclosed index expression");
        return false;
    }
    parser->at++;
    return true;
}

/* name, name.name, name["key"].name: false if there is none here. */
static bool parse_selector(struct parser *parser, struct slice *pieces, size_t *count)
{
    struct slice piece = parse_identifier(parser);

    if (piece.size == 0) {
        return false;
    }
    for (*count = 0;;) {
        if (*count == FILTER_PIECES_MAX) {
            parse_fail(parser, parser->at, "selector has too many parts");
            return false;
        }
        pieces[(*count)++] = piece;
        if (parse_peek(parser, 0) == '.' && is_letter(parse_peek(parser, 1))) {
            parser->at++;
            piece = parse_identifier(parser);
        } else if (parse_peek(parser, 0) != '[') {
            return true;
        } else if (!parse_index(parser, &piece)) {
            return false;
        }
    }
}

/* The pieces with dots between them, in new text. */
static struct slice join_pieces(struct parser *parser, const struct slice *pieces, size_t count)
{
    const size_t text = parser->filter->text_bytes;

    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            text_put(parser, '.');
        }
        for (size_t j = 0; j < pieces[i].size; j++) {
            text_put(parser, pieces[i].data[j]);
        }
    }
    return text_since(parser, text);
}

static bool parse_value(struct parser *parser, struct slice *value)
{
    struct slice pieces[FILTER_PIECES_MAX];
    size_t count;

    if (parse_selector(parser, pieces, &count)) {
        *value = join_pieces(parser, pieces, count);
        return true;
    }
    if (!parser->failed && !parse_number(parser, value) && !parser->failed &&
        !parse_string(parser, value)) {
        parse_fail(parser, parser->at, NO_MATCH);
    }
    return !parser->failed;
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
    for (size_t i = 0; i < match->piece_count; i++) {
        if (type == TYPE_MAP) {
            match->of_map = true;
            type = fields == NULL ? TYPE_STRING : TYPE_STRUCT;
            continue;
        }
        if (type != TYPE_STRUCT && type != TYPE_LIST) {
            return false;
        }
        while (fields->name != NULL &&
               !slice_equal(slice_from_text(fields->name), match->pieces[i])) {
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

static bool coerce_int(struct slice text, int64_t *number, const char **fault)
{
    char copy[32];
    char *end;

    *fault = "invalid syntax";
    for (size_t i = 0; i < text.size; i++) {
        if (!is_digit(text.data[i]) && !(i == 0 && text.size > 1 && text.data[i] == '-')) {
            return false;
        }
    }
    if (text.size == 0) {
        return false;
    }
    *fault = "value out of range";
    if (text.size >= sizeof(copy)) {
        return false;
    }
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    errno = 0;
    *number = strtoll(copy, &end, 10);
    return errno == 0 && *end == '\0';
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

static void match_coerce(struct parser *parser, struct filter_match *match, struct slice selector)
{
    const char *fault = "invalid syntax";
    const char *call = NULL;
    struct errmsg err = {""};

    if (match->comparison == OPERATOR_MATCHES || match->comparison == OPERATOR_NOT_MATCHES) {
        match->regex = regex_new(match->value, &err);
        if (match->regex == NULL && !parser->failed) {
            parser->failed = true;
            (void)errmsg_set(parser->err, -1,
                             "Failed to compile regular expression \"%.*s\": %.300s",
                             match->value.size > 128 ? 128 : (int)match->value.size,
                             match->value.data, err.text);
        }
        return;
    }
    if (match->type == TYPE_INT && !coerce_int(match->value, &match->number, &fault)) {
        call = "ParseInt";
    } else if (match->type == TYPE_BOOL && !coerce_bool(match->value, &match->flag)) {
        call = "ParseBool";
    }
    if (call != NULL && !parser->failed) {
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
    const struct slice selector = join_pieces(parser, match->pieces, match->piece_count);
    char before[64];

    if (!match_resolve(parser->filter->fields, match)) {
        parse_fail_selector(parser, "Selector ", selector, " is not valid");
    } else if (!match_is_allowed(match)) {
        (void)snprintf(before, sizeof(before), "Invalid match operator \"%s\" for selector ",
                       comparison_names[match->comparison]);
        parse_fail_selector(parser, before, selector, "");
    } else {
        match_coerce(parser, match, selector);
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

/* An comparison behind a selector; false if there is none. */
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
    (void)parse_blanks(parser);
    if (parse_text(parser, "==") || parse_text(parser, "!=")) {
        *comparison = parser->in.data[parser->at - 2] == '!' ? OPERATOR_NOT_EQUAL : OPERATOR_EQUAL;
        (void)parse_blanks(parser);
        return true;
    }
    parser->at = start;
    for (size_t i = 0; i < sizeof(comparisons) / sizeof(comparisons[0]); i++) {
        if (parse_words(parser, comparisons[i].words, comparisons[i].has_value)) {
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
    if (parse_words(parser, words_in, true)) {
        match->comparison = OPERATOR_IN;
    } else if (parse_words(parser, words_not_in, true)) {
        match->comparison = OPERATOR_NOT_IN;
    } else {
        (void)parse_blanks(parser);
        parse_fail(parser, parser->at, NO_MATCH);
        return;
    }
    if (!parse_selector(parser, match->pieces, &match->piece_count)) {
        parse_fail(parser, parser->at, "rule \"match\": Invalid selector");
    }
}

static void parse_match(struct parser *parser)
{
    struct filter *filter = parser->filter;
    bool has_value;

    if (filter->match_count == FILTER_MATCHES_MAX) {
        parse_fail(parser, parser->at, "expression has too many comparisons");
        return;
    }
    struct filter_match *match = &filter->matches[filter->match_count];
    *match = (struct filter_match){.value = SLICE_EMPTY};
    if (!parse_selector(parser, match->pieces, &match->piece_count)) {
        if (!parser->failed && parse_value(parser, &match->value)) {
            parse_in(parser, match);
        }
    } else if (parse_comparison(parser, &match->comparison, &has_value)) {
        if (has_value) {
            (void)parse_value(parser, &match->value);
        }
    } else {
        match->value = join_pieces(parser, match->pieces, match->piece_count);
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
        parse_fail(parser, parser->at, "expression nests too deeply");
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

    if (!parse_text(parser, "not") || parse_blanks(parser) == 0) {
        parser->at = start;
        return false;
    }
    const size_t after = parser->at;
    for (size_t i = 0; comparisons[i] != NULL; i++) {
        if (parse_text(parser, comparisons[i])) {
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
        (void)parse_blanks(parser);
        if (parser->failed) {
            return;
        }
        if (parse_peek(parser, 0) == '(') {
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

/* Closing parentheses, then an comparison or the end. True: another operand follows. */
static bool parse_joint(struct parser *parser)
{
    static const char *const words_and[] = {"and", NULL};
    static const char *const words_or[] = {"or", NULL};

    for (;;) {
        const size_t start = parser->at;

        (void)parse_blanks(parser);
        if (parse_peek(parser, 0) != ')') {
            parser->at = start;
            break;
        }
        parse_pop(parser, STEP_OR);
        if (parser->depth == 0) {
            parse_fail(parser, parser->at, NO_MATCH);
            return false;
        }
        parser->depth--; /* The parenthesis. */
        parse_pop(parser, STEP_NOT);
        parser->at++;
    }
    if (parse_words(parser, words_and, true)) {
        parse_pop(parser, STEP_AND);
        parse_push(parser, STEP_AND);
        return true;
    }
    if (parse_words(parser, words_or, true)) {
        parse_pop(parser, STEP_OR);
        parse_push(parser, STEP_OR);
        return true;
    }
    (void)parse_blanks(parser);
    if (parser->at < parser->in.size) {
        parse_fail(parser, parser->at, NO_MATCH);
        return false;
    }
    parse_pop(parser, STEP_OR);
    if (parser->depth > 0) {
        parse_fail(parser, parser->at, "rule \"grouping\": Unmatched parentheses");
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

    if (expression.size > FILTER_BYTES_MAX) {
        (void)errmsg_set(err, -1, "expression is longer than %d bytes", FILTER_BYTES_MAX);
        return NULL;
    }
    filter = calloc(1, sizeof(*filter));
    if (filter != NULL) {
        filter->fields = filter_fields(kind);
        filter->matches = calloc(FILTER_MATCHES_MAX, sizeof(*filter->matches));
        filter->program = malloc(PROGRAM_STEPS_MAX);
        /* As written, joined as a value, and joined for errors. */
        filter->text = malloc(3 * expression.size + 1);
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

/* --- evaluating --- */

static struct slice json_slice(const json_t *value)
{
    return json_is_string(value) ? slice_from(json_string_value(value), json_string_length(value))
                                 : SLICE_EMPTY;
}

/* A member by a name that may be no C string. */
static const json_t *json_piece(const json_t *object, struct slice name)
{
    return json_is_object(object) ? json_object_getn(object, name.data, name.size) : NULL;
}

static bool value_contains(const struct filter_match *match, const json_t *value)
{
    size_t i;
    json_t *item;

    if (match->type == TYPE_MAP) {
        return json_piece(value, match->value) != NULL;
    }
    if (match->type == TYPE_STRINGS) {
        json_array_foreach(value, i, item)
        {
            if (slice_equal(json_slice(item), match->value)) {
                return true;
            }
        }
        return false;
    }
    const struct slice text = json_slice(value);
    return match->value.size == 0 ||
           (text.size > 0 &&
            memmem(text.data, text.size, match->value.data, match->value.size) != NULL);
}

static bool value_equals(const struct filter_match *match, const json_t *value)
{
    if (match->type == TYPE_INT) {
        return json_integer_value(value) == match->number;
    }
    if (match->type == TYPE_BOOL) {
        return json_is_true(value) == match->flag;
    }
    return slice_equal(json_slice(value), match->value);
}

/* One comparison with one value; NULL: the answer leaves it out. */
static bool value_matches(const struct filter_match *match, const json_t *value)
{
    switch (match->comparison) {
    case OPERATOR_EQUAL:
        return value_equals(match, value);
    case OPERATOR_NOT_EQUAL:
        return !value_equals(match, value);
    case OPERATOR_IN:
        return value_contains(match, value);
    case OPERATOR_NOT_IN:
        return !value_contains(match, value);
    case OPERATOR_EMPTY:
        return json_object_size(value) == 0 && json_array_size(value) == 0;
    case OPERATOR_NOT_EMPTY:
        return json_object_size(value) > 0 || json_array_size(value) > 0;
    case OPERATOR_MATCHES:
        return regex_matches(match->regex, json_slice(value));
    case OPERATOR_NOT_MATCHES:
        return !regex_matches(match->regex, json_slice(value));
    }
    return false;
}

/* From `object` on through the pieces from `piece` on; no list lies on the way. */
static bool match_below(const struct filter_match *match, const json_t *object, size_t piece)
{
    for (; piece < match->piece_count; piece++) {
        object = json_piece(object, match->pieces[piece]);
    }
    if (object == NULL && match->of_map) {
        return match->comparison != OPERATOR_EQUAL && match->comparison != OPERATOR_IN;
    }
    return value_matches(match, object);
}

/* As far as a list, of which any element will do. */
static bool match_run(const struct filter_match *match, const json_t *object)
{
    size_t i;
    json_t *item;

    for (size_t piece = 0; piece < match->piece_count; piece++) {
        object = json_piece(object, match->pieces[piece]);
        if (json_is_array(object) && piece + 1 < match->piece_count) {
            json_array_foreach(object, i, item)
            {
                if (match_below(match, item, piece + 1)) {
                    return true;
                }
            }
            return false;
        }
    }
    return match_below(match, object, match->piece_count);
}

bool filter_matches(struct filter *filter, const json_t *object)
{
    bool stack[FILTER_DEPTH_MAX + FILTER_MATCHES_MAX];
    size_t depth = 0;
    size_t next = 0;

    for (size_t i = 0; i < filter->program_count; i++) {
        switch ((enum filter_step)filter->program[i]) {
        case STEP_MATCH:
            assert(next < filter->match_count);
            stack[depth++] = match_run(&filter->matches[next++], object);
            break;
        case STEP_NOT:
            assert(depth > 0);
            stack[depth - 1] = !stack[depth - 1];
            break;
        case STEP_AND:
        case STEP_OR:
            assert(depth > 1);
            depth--;
            if (filter->program[i] == STEP_AND) {
                stack[depth - 1] = stack[depth - 1] && stack[depth];
            } else {
                stack[depth - 1] = stack[depth - 1] || stack[depth];
            }
            break;
        case STEP_OPEN:
            assert(false); /* Parentheses are gone by now. */
            break;
        }
    }
    assert(depth == 1);
    return stack[0];
}
