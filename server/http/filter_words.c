/* The words of a filter expression: blanks, operators, selectors, quoted and bare values. */

#include <assert.h>
#include <string.h>

#include "server/http/filter_internal.h"

void filter_parse_fail(struct parser *parser, size_t at, const char *text)
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
            text_put(parser, quoted.data[i]);
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

bool filter_parse_selector(struct parser *parser, struct slice *pieces, size_t *count)
{
    struct slice piece = parse_identifier(parser);

    if (piece.size == 0) {
        return false;
    }
    for (*count = 0;;) {
        if (*count == FILTER_PIECES_MAX) {
            filter_parse_fail(parser, parser->at, "selector has too many parts");
            return false;
        }
        pieces[(*count)++] = piece;
        if (filter_parse_peek(parser, 0) == '.' && is_letter(filter_parse_peek(parser, 1))) {
            parser->at++;
            piece = parse_identifier(parser);
        } else if (filter_parse_peek(parser, 0) != '[') {
            return true;
        } else if (!parse_index(parser, &piece)) {
            return false;
        }
    }
}

struct slice filter_join_pieces(struct parser *parser, const struct slice *pieces, size_t count)
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

bool filter_parse_value(struct parser *parser, struct slice *value)
{
    struct slice pieces[FILTER_PIECES_MAX];
    size_t count;

    if (filter_parse_selector(parser, pieces, &count)) {
        *value = filter_join_pieces(parser, pieces, count);
        return true;
    }
    if (!parser->failed && !parse_number(parser, value) && !parser->failed &&
        !parse_string(parser, value)) {
        filter_parse_fail(parser, parser->at, FILTER_NO_MATCH);
    }
    return !parser->failed;
}
