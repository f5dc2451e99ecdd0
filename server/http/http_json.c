/* JSON in and out. Out: straight into a buffer, byte for byte as Go's encoding/json writes it. In:
 * jansson, with Go's leniency about what follows the first value and about the case of names. */

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/http_internal.h"
#include "server/http/rune.h"

static const char HEX[] = "0123456789abcdef";
static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void json_put_escape(struct buffer *out, unsigned char c)
{
    switch (c) {
    case '"':
        buffer_append(out, "\\\"", 2);
        break;
    case '\\':
        buffer_append(out, "\\\\", 2);
        break;
    case '\n':
        buffer_append(out, "\\n", 2);
        break;
    case '\r':
        buffer_append(out, "\\r", 2);
        break;
    case '\t':
        buffer_append(out, "\\t", 2);
        break;
    default: {
        const char text[6] = {'\\', 'u', '0', '0', HEX[c >> 4], HEX[c & 15]};

        buffer_append(out, text, sizeof(text));
        break;
    }
    }
}

static bool json_is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
}

void json_put_string(struct buffer *out, struct slice text)
{
    const unsigned char *bytes = (const unsigned char *)text.data;
    size_t at = 0;

    buffer_append_char(out, '"');
    while (at < text.size) {
        size_t plain = at;

        while (plain < text.size && json_is_plain(bytes[plain])) {
            plain++;
        }
        buffer_append(out, text.data + at, plain - at);
        at = plain;
        if (at == text.size) {
            break;
        }
        if (bytes[at] < 0x80) {
            json_put_escape(out, bytes[at]);
            at++;
            continue;
        }
        const size_t size = rune_size(text, at);

        if (size == 0) {
            buffer_append_text(out, "\\ufffd");
            at++;
        } else if (size == 3 && bytes[at] == 0xe2 && bytes[at + 1] == 0x80 &&
                   (bytes[at + 2] & 0xfe) == 0xa8) {
            buffer_append_text(out, bytes[at + 2] == 0xa8 ? "\\u2028" : "\\u2029");
            at += 3;
        } else {
            buffer_append(out, text.data + at, size);
            at += size;
        }
    }
    buffer_append_char(out, '"');
}

void json_put_base64(struct buffer *out, struct slice bytes)
{
    const unsigned char *in = (const unsigned char *)bytes.data;
    const size_t size = (bytes.size + 2) / 3 * 4 + 2;
    size_t at = 0;

    if (bytes.size == 0) {
        buffer_append_text(out, "null");
        return;
    }
    char *to = buffer_reserve(out, size);

    if (to == NULL) {
        return; /* out->failed says so. */
    }
    *to++ = '"';
    for (; at + 3 <= bytes.size; at += 3) {
        const unsigned v = (unsigned)in[at] << 16 | (unsigned)in[at + 1] << 8 | in[at + 2];

        *to++ = BASE64[v >> 18];
        *to++ = BASE64[(v >> 12) & 63];
        *to++ = BASE64[(v >> 6) & 63];
        *to++ = BASE64[v & 63];
    }
    if (bytes.size - at == 1) {
        *to++ = BASE64[in[at] >> 2];
        *to++ = BASE64[(in[at] & 3) << 4];
        *to++ = '=';
        *to++ = '=';
    } else if (bytes.size - at == 2) {
        const unsigned v = (unsigned)in[at] << 8 | in[at + 1];

        *to++ = BASE64[v >> 10];
        *to++ = BASE64[(v >> 4) & 63];
        *to++ = BASE64[(v & 15) << 2];
        *to++ = '=';
    }
    *to++ = '"';
    out->size += size;
    assert(to == out->data + out->size);
}

void json_put_u64(struct buffer *out, uint64_t value)
{
    char text[20];
    size_t at = sizeof(text);

    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    buffer_append(out, text + at, sizeof(text) - at);
}

void json_put_i64(struct buffer *out, int64_t value)
{
    if (value < 0) {
        buffer_append_char(out, '-');
        json_put_u64(out, 0 - (uint64_t)value);
    } else {
        json_put_u64(out, (uint64_t)value);
    }
}

/* Go's strconv.FormatFloat(value, 'f' or 'e', -1, 64), as encoding/json chooses. */
void json_put_double(struct buffer *out, double value)
{
    char text[32];
    char digits[24] = {0};
    size_t count = 0;
    int precision = 0;

    assert(isfinite(value));
    do { /* 17 digits always read back. */
        (void)snprintf(text, sizeof(text), "%.*e", precision, value);
    } while (strtod(text, NULL) != value && ++precision < 17);
    const char *e = strchr(text, 'e');

    assert(e != NULL); /* %e writes one. */
    const int exponent = (int)strtol(e + 1, NULL, 10);

    for (const char *at = text; at < e; at++) {
        if (*at >= '0' && *at <= '9') {
            digits[count++] = *at;
        }
    }
    if (text[0] == '-') {
        buffer_append_char(out, '-');
    }
    if (value != 0 && (exponent < -6 || exponent >= 21)) {
        buffer_append_char(out, digits[0]);
        if (count > 1) {
            buffer_append_char(out, '.');
            buffer_append(out, digits + 1, count - 1);
        }
        buffer_printf(out, "e%c%d", exponent < 0 ? '-' : '+', abs(exponent)); /* 1e-7, 1e+21 */
        return;
    }
    if (exponent < 0) {
        buffer_append_text(out, "0.");
        for (int i = -1; i > exponent; i--) {
            buffer_append_char(out, '0');
        }
        buffer_append(out, digits, count);
        return;
    }
    for (size_t i = 0; i < count || i <= (size_t)exponent; i++) {
        if (i == (size_t)exponent + 1) {
            buffer_append_char(out, '.');
        }
        buffer_append_char(out, i < count ? digits[i] : '0');
    }
}

void json_put_bool(struct buffer *out, bool value)
{
    buffer_append_text(out, value ? "true" : "false");
}

void json_put_strings(struct buffer *out, struct strings list)
{
    struct reader it = strings_begin(list);
    struct slice text;
    bool first = true;

    if (list.null) {
        buffer_append_text(out, "null");
        return;
    }
    buffer_append_char(out, '[');
    while (strings_next(&it, &text)) {
        if (!first) {
            buffer_append_char(out, ',');
        }
        first = false;
        json_put_string(out, text);
    }
    buffer_append_char(out, ']');
}

void json_put_map(struct buffer *out, struct strings pairs)
{
    struct reader it = strings_begin(pairs);
    struct slice name;
    struct slice value;
    bool first = true;

    if (pairs.null) {
        buffer_append_text(out, "null");
        return;
    }
    buffer_append_char(out, '{');
    while (strings_next(&it, &name) && strings_next(&it, &value)) {
        if (!first) {
            buffer_append_char(out, ',');
        }
        first = false;
        json_put_string(out, name);
        buffer_append_char(out, ':');
        json_put_string(out, value);
    }
    buffer_append_char(out, '}');
}

static void json_indent_line(struct buffer *out, size_t depth)
{
    buffer_append_char(out, '\n');
    for (size_t i = 0; i < depth; i++) {
        buffer_append(out, "    ", 4);
    }
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool json_base64_decode(struct buffer *out, struct slice text, struct errmsg *err)
{
    unsigned digits = 0; /* of the current group */
    unsigned padding = 0;
    uint32_t group = 0;
    bool over = false; /* a padded group is the last one */

    for (size_t at = 0; at < text.size; at++) {
        const char c = text.data[at];
        const int digit = base64_digit(c);
        const bool pads = c == '=' && digits >= 2;

        if (c == '\r' || c == '\n') {
            continue;
        }
        if (over || (digit < 0 && !pads) || (padding > 0 && !pads)) {
            (void)errmsg_set(err, -1, "illegal base64 data at input byte %zu", at);
            return false;
        }
        group = group << 6 | (pads ? 0 : (uint32_t)digit);
        padding += pads;
        if (++digits == 4) {
            for (unsigned i = 0; i < 3 - padding; i++) {
                buffer_put_u8(out, (uint8_t)(group >> (16 - 8 * i)));
            }
            over = padding > 0;
            digits = 0;
            group = 0;
        }
    }
    if (digits != 0) {
        (void)errmsg_set(err, -1, "illegal base64 data at input byte %zu", text.size);
        return false;
    }
    return true;
}

/* Index after the string that starts at `at`. */
static size_t json_string_end(struct slice json, size_t at)
{
    for (at++; at < json.size && json.data[at] != '"'; at++) {
        if (json.data[at] == '\\') {
            at++;
        }
    }
    return at < json.size ? at + 1 : json.size;
}

/* As Go's json.MarshalIndent with four blanks, and a final newline. `json` is compact and ours. */
void json_indent(struct buffer *out, struct slice json)
{
    size_t depth = 0;
    size_t at = 0;

    while (at < json.size) {
        const char c = json.data[at];

        if (c == '"') {
            const size_t end = json_string_end(json, at);

            buffer_append(out, json.data + at, end - at);
            at = end;
            continue;
        }
        if ((c == '[' || c == '{') && at + 1 < json.size &&
            (json.data[at + 1] == ']' || json.data[at + 1] == '}')) {
            buffer_append(out, json.data + at, 2);
            at += 2;
            continue;
        }
        if (c == ']' || c == '}') {
            depth = depth > 0 ? depth - 1 : 0;
            json_indent_line(out, depth);
        }
        buffer_append_char(out, c);
        if (c == '[' || c == '{') {
            depth++;
            json_indent_line(out, depth);
        } else if (c == ',') {
            json_indent_line(out, depth);
        } else if (c == ':') {
            buffer_append_char(out, ' ');
        }
        at++;
    }
    buffer_append_char(out, '\n');
}

/* The four digits of a \u escape that begins at `at`; false when it is none. */
static bool json_escape_unit(struct slice json, size_t at, unsigned *unit)
{
    *unit = 0;
    if (json.size < at + 6 || json.data[at] != '\\' || json.data[at + 1] != 'u') {
        return false;
    }
    for (size_t i = at + 2; i < at + 6; i++) {
        const char *digit = memchr(HEX, slice_lower(json.data[i]), sizeof(HEX) - 1);

        if (digit == NULL) {
            return false;
        }
        *unit = *unit << 4 | (unsigned)(digit - HEX);
    }
    return true;
}

/* Bytes of the escape at `at`; `bad` when it is half a surrogate pair. */
static size_t json_escape_size(struct slice json, size_t at, bool *bad)
{
    unsigned unit, second;

    if (!json_escape_unit(json, at, &unit)) {
        return json.size - at < 2 ? 1 : 2; /* Another one, or none: the parser tells. */
    }
    if (unit < 0xd800 || unit > 0xdfff) {
        return 6;
    }
    if (unit < 0xdc00 && json_escape_unit(json, at + 6, &second) && second >= 0xdc00 &&
        second <= 0xdfff) {
        return 12;
    }
    *bad = true;
    return 6;
}

bool json_repair(struct buffer *out, struct slice json)
{
    bool in_string = false;
    size_t copied = 0, step;

    for (size_t at = 0; at < json.size; at += step) {
        const char c = json.data[at];
        bool bad = false;

        step = 1;
        if (c == '"') {
            in_string = !in_string;
        } else if (in_string && c == '\\') {
            step = json_escape_size(json, at, &bad);
        } else if (in_string) {
            step = rune_size(json, at);
            bad = step == 0;
            step = bad ? 1 : step;
        }
        if (bad) {
            buffer_append(out, json.data + copied, at - copied);
            buffer_append_text(out, "\xef\xbf\xbd");
            copied = at + step;
        }
    }
    if (copied > 0) { /* A string, and so what is bad in it, does not begin at 0. */
        buffer_append(out, json.data + copied, json.size - copied);
    }
    return copied > 0;
}

json_t *http_body_json(struct http_request *request, const char *error_prefix)
{
    struct buffer repaired = {0};
    struct slice body = request->body;
    json_error_t error;
    json_t *root;

    if (body.size == 0) {
        http_reply_error(request, 400, "%s: EOF", error_prefix);
        return NULL;
    }
    if (json_repair(&repaired, body)) {
        if (repaired.failed) {
            buffer_deinit(&repaired);
            http_reply_error(request, 500, "out of memory");
            return NULL;
        }
        body = buffer_slice(&repaired);
    }
    root = json_loadb(body.data, body.size,
                      JSON_DISABLE_EOF_CHECK | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    buffer_deinit(&repaired);
    if (root == NULL) {
        http_reply_error(request, 400, "%s: invalid JSON: %s", error_prefix, error.text);
    }
    return root;
}

json_t *json_member(const json_t *object, const char *name)
{
    const struct slice wanted = slice_from_text(name);
    json_t *found = NULL;
    const char *key;
    json_t *value;

    /* jansson's iterators take a plain pointer, though they change nothing. */
    union {
        const json_t *in;
        json_t *out;
    } unconst = {.in = object};

    if (!json_is_object(object)) {
        return NULL;
    }
    json_object_foreach(unconst.out, key, value)
    {
        if (slice_equal_nocase(slice_from_text(key), wanted)) {
            found = value;
        }
    }
    return found;
}
