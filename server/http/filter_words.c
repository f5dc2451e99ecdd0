/* The words of a filter expression: blanks, operators, selectors, quoted and bare values. */

#include <assert.h>
#include <string.h>

#include "server/http/filter_internal.h"
#include "server/http/rune.h"

void filter_parse_fail(struct parser *parser, size_t at, const char *text)
{
    if (parser->failed) {
        return;
    }
    size_t line = 1;
    size_t column = 1;
    for (size_t i = 0; i < at && i < parser->in.size; i++) {
        column += (parser->in.data[i] & 0xc0) != 0x80; /* of characters */
        if (parser->in.data[i] == '\n') {
            line++;
            column = 1;
        }
    }
    parser->failed = true;
    (void)errmsg_set(parser->err, -1, "%zu:%zu (%zu): %s", line, column, at, text);
}

void filter_parse_fail_selector(struct parser *parser, const char *before, struct slice selector,
                                const char *after)
{
    if (!parser->failed) {
        parser->failed = true;
        (void)errmsg_set(parser->err, -1, "%s\"%.*s\"%s", before,
                         selector.size > 128 ? 128 : (int)selector.size, selector.data, after);
    }
}

char filter_parse_peek(const struct parser *parser, size_t ahead)
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

bool filter_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

size_t filter_parse_blanks(struct parser *parser)
{
    const size_t start = parser->at;

    while (parser->at < parser->in.size && is_blank(parser->in.data[parser->at])) {
        parser->at++;
    }
    return parser->at - start;
}

bool filter_parse_text(struct parser *parser, const char *text)
{
    const struct slice rest =
        slice_from(parser->in.data + parser->at, parser->in.size - parser->at);

    if (!slice_starts_with(rest, slice_from_text(text))) {
        return false;
    }
    parser->at += strlen(text);
    return true;
}

bool filter_parse_words(struct parser *parser, const char *const *words, bool closed)
{
    const size_t start = parser->at;

    for (; *words != NULL; words++) {
        if (filter_parse_blanks(parser) == 0 || !filter_parse_text(parser, *words)) {
            parser->at = start;
            return false;
        }
    }
    if (closed && filter_parse_blanks(parser) == 0) {
        parser->at = start;
        return false;
    }
    return true;
}

/* --- parsing values --- */

static void text_put(struct parser *parser, char c)
{
    /* Nothing grows by being unquoted, and an index is longer than the dot that it becomes. */
    assert(parser->filter->text_bytes < parser->in.size + 1);
    parser->filter->text[parser->filter->text_bytes++] = c;
}

static struct slice text_since(const struct parser *parser, size_t start)
{
    return slice_from(parser->filter->text + start, parser->filter->text_bytes - start);
}

static int hex_digit(char c)
{
    if (filter_is_digit(c)) {
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
        if (rune < 0x10000) {
            text_put(parser, (char)(0xe0 | rune >> 12));
        } else {
            text_put(parser, (char)(0xf0 | rune >> 18));
            text_put(parser, (char)(0x80 | (rune >> 12 & 0x3f)));
        }
        text_put(parser, (char)(0x80 | (rune >> 6 & 0x3f)));
        text_put(parser, (char)(0x80 | (rune & 0x3f)));
    }
}

/* \xHH, \uHHHH, \UHHHHHHHH and \OOO: false when the digits are not there. */
static bool unquote_number(struct parser *parser, struct slice quoted, size_t *at)
{
    const char kind = quoted.data[*at];
    const bool octal = kind >= '0' && kind <= '7';
    const size_t digits = octal ? 3 : kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    uint32_t value = 0;

    *at += !octal; /* At the first digit, and in the end at the last one. */
    if (digits == 0 || quoted.size - *at < digits) {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        const int digit = hex_digit(quoted.data[*at + i]);
        if (digit < 0 || (octal && digit > 7)) {
            return false;
        }
        value = value << (octal ? 3 : 4) | (uint32_t)digit;
    }
    *at += digits - 1;
    if (octal || kind == 'x') {
        text_put(parser, (char)value);
        return value <= UINT8_MAX;
    }
    /* A surrogate is no character, but Go 1.14 lets it pass as the bad one. */
    text_put_rune(parser, value >= 0xd800 && value < 0xe000 ? RUNE_BAD : value);
    return value <= RUNE_MAX;
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
        } else if (!unquote_number(parser, quoted, &at)) {
            return false;
        }
    }
    return true;
}

static bool parse_string(struct parser *parser, struct slice *value)
{
    const size_t start = parser->at;
    const size_t text = parser->filter->text_bytes;
    const char quote = filter_parse_peek(parser, 0);

    if (quote != '"' && quote != '`') {
        return false;
    }
    const char *body = parser->in.data + start + 1;
    const char *end = memchr(body, quote, parser->in.size - start - 1);
    if (end == NULL) {
        filter_parse_fail(parser, parser->in.size, "rule \"string\": Unterminated string literal");
        return false;
    }
    const struct slice quoted = slice_from(body, (size_t)(end - body));
    parser->at = start + quoted.size + 2;
    if (quote == '`') {
        for (size_t i = 0; i < quoted.size; i++) {
            if (quoted.data[i] != '\r') { /* So does Go. */
                text_put(parser, quoted.data[i]);
            }
        }
    } else if (!unquote(parser, quoted)) {
        filter_parse_fail(parser, start, "rule \"string\": invalid syntax");
        return false;
    }
    *value = text_since(parser, text);
    return true;
}

static bool parse_number(struct parser *parser, struct slice *value)
{
    const size_t start = parser->at;
    const size_t text = parser->filter->text_bytes;

    if (filter_parse_peek(parser, 0) == '-') {
        parser->at++;
    }
    if (!filter_is_digit(filter_parse_peek(parser, 0))) {
        parser->at = start;
        return false;
    }
    const bool zero = filter_parse_peek(parser, 0) == '0';
    do {
        parser->at++;
    } while (!zero && filter_is_digit(filter_parse_peek(parser, 0)));
    if (filter_parse_peek(parser, 0) == '.' && filter_is_digit(filter_parse_peek(parser, 1))) {
        do {
            parser->at++;
        } while (filter_is_digit(filter_parse_peek(parser, 0)));
    }
    const char next = filter_parse_peek(parser, 0);
    if (parser->at < parser->in.size && !is_blank(next) && next != ')') {
        filter_parse_fail(parser, parser->at, "rule \"number\": Invalid number literal");
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

    if (is_letter(filter_parse_peek(parser, 0))) {
        while (is_letter(filter_parse_peek(parser, 0)) ||
               filter_is_digit(filter_parse_peek(parser, 0)) ||
               filter_parse_peek(parser, 0) == '_') {
            text_put(parser, parser->in.data[parser->at++]);
        }
    }
    return text_since(parser, text);
}

static bool parse_index(struct parser *parser, struct slice *piece)
{
    parser->at++;
    (void)filter_parse_blanks(parser);
    if (!parse_string(parser, piece)) {
        filter_parse_fail(parser, parser->at, "rule \"index\": Invalid index");
        return false;
    }
    (void)filter_parse_blanks(parser);
    if (filter_parse_peek(parser, 0) != ']') {
        filter_parse_fail(parser, parser->at, "rule \"index\": Unclosed index expression");
        return false;
    }
    parser->at++;
    return true;
}

bool filter_parse_selector(struct parser *parser, struct filter_selector *selector)
{
    const size_t start = parser->filter->text_bytes;
    struct slice piece = parse_identifier(parser);

    if (piece.size == 0) {
        return false;
    }
    for (selector->count = 0;;) {
        if (selector->count < FILTER_PIECES_MAX) {
            selector->pieces[selector->count] = piece;
        }
        selector->count++;
        const char next = filter_parse_peek(parser, 0);
        if (next != '[' && (next != '.' || !is_letter(filter_parse_peek(parser, 1)))) {
            selector->text = text_since(parser, start);
            return true;
        }
        text_put(parser, '.');
        if (next == '.') {
            parser->at++;
            piece = parse_identifier(parser);
        } else if (!parse_index(parser, &piece)) {
            return false;
        }
    }
}

bool filter_parse_value(struct parser *parser, struct slice *value)
{
    struct filter_selector selector;

    if (filter_parse_selector(parser, &selector)) {
        *value = selector.text;
        return true;
    }
    if (!parser->failed && !parse_number(parser, value) && !parser->failed &&
        !parse_string(parser, value)) {
        filter_parse_fail(parser, parser->at, FILTER_NO_MATCH);
    }
    return !parser->failed;
}
