#include "server/duration.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DURATION_QUOTE_BYTES_MAX = 200 };

static const struct duration_unit {
    struct slice name;
    int64_t ns;
} duration_units[] = {
    {{"ns", 2}, 1},
    {{"us", 2}, 1000},
    {{"\xc2\xb5s", 3}, 1000}, /* U+00B5, the micro sign */
    {{"\xce\xbcs", 3}, 1000}, /* U+03BC, the Greek letter */
    {{"ms", 2}, 1000000},
    {{"s", 1}, 1000000000},
    {{"m", 1}, 60 * INT64_C(1000000000)},
    {{"h", 1}, 3600 * INT64_C(1000000000)},
};

/* The text in quotes, as Go's time package quotes it: bytes outside printable ASCII as \xNN. Cut
 * where it does not fit; errors stay one line. */
static const char *duration_quote(struct slice text, char out[DURATION_QUOTE_BYTES_MAX])
{
    static const char hex[] = "0123456789abcdef";
    size_t at = 0;

    out[at++] = '"';
    for (size_t i = 0; i < text.size && at + 6 < DURATION_QUOTE_BYTES_MAX; i++) {
        const unsigned char c = (unsigned char)text.data[i];

        if (c < ' ' || c >= 0x80) {
            out[at++] = '\\';
            out[at++] = 'x';
            out[at++] = hex[c >> 4];
            out[at++] = hex[c & 15];
            continue;
        }
        if (c == '"' || c == '\\') {
            out[at++] = '\\';
        }
        out[at++] = (char)c;
    }
    out[at++] = '"';
    out[at] = '\0';
    assert(at < DURATION_QUOTE_BYTES_MAX);
    return out;
}

static bool duration_invalid(struct slice text, struct errmsg *err)
{
    char quoted[DURATION_QUOTE_BYTES_MAX];

    (void)errmsg_set(err, 0, "time: invalid duration %s", duration_quote(text, quoted));
    return false;
}

static bool duration_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Consumes [0-9]*. False when the number does not fit. */
static bool duration_integer(struct slice *rest, int64_t *out)
{
    int64_t value = 0;

    while (rest->size > 0 && duration_is_digit(rest->data[0])) {
        const int64_t digit = rest->data[0] - '0';

        if (value > (INT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
        rest->data++;
        rest->size--;
    }
    *out = value;
    return true;
}

/* Consumes the digits behind a decimal point: value / scale. Digits too fine to matter are skipped.
 */
static void duration_fraction(struct slice *rest, int64_t *value, double *scale)
{
    bool full = false;

    *value = 0;
    *scale = 1;
    while (rest->size > 0 && duration_is_digit(rest->data[0])) {
        const int64_t digit = rest->data[0] - '0';

        full = full || *value > (INT64_MAX - digit) / 10;
        if (!full) {
            *value = *value * 10 + digit;
            *scale *= 10;
        }
        rest->data++;
        rest->size--;
    }
}

/* Consumes a unit: everything up to the next digit or point. */
static bool duration_unit(struct slice text, struct slice *rest, int64_t *ns, struct errmsg *err)
{
    struct slice name = {rest->data, 0};
    char quoted[DURATION_QUOTE_BYTES_MAX];
    char quoted_unit[DURATION_QUOTE_BYTES_MAX];

    while (name.size < rest->size && rest->data[name.size] != '.' &&
           !duration_is_digit(rest->data[name.size])) {
        name.size++;
    }
    if (name.size == 0) {
        (void)errmsg_set(err, 0, "time: missing unit in duration %s", duration_quote(text, quoted));
        return false;
    }
    rest->data += name.size;
    rest->size -= name.size;
    for (size_t i = 0; i < sizeof(duration_units) / sizeof(duration_units[0]); i++) {
        if (slice_equal(name, duration_units[i].name)) {
            *ns = duration_units[i].ns;
            return true;
        }
    }
    (void)errmsg_set(err, 0, "time: unknown unit %s in duration %s",
                     duration_quote(name, quoted_unit), duration_quote(text, quoted));
    return false;
}

/* Consumes one number with its unit. */
static bool duration_part(struct slice text, struct slice *rest, int64_t *ns, struct errmsg *err)
{
    int64_t whole, fraction = 0, unit_ns;
    double scale = 1;

    if (rest->data[0] != '.' && !duration_is_digit(rest->data[0])) {
        return duration_invalid(text, err);
    }
    size_t size_before = rest->size;
    if (!duration_integer(rest, &whole)) {
        return duration_invalid(text, err);
    }
    bool has_digits = rest->size != size_before;
    if (rest->size > 0 && rest->data[0] == '.') {
        rest->data++;
        rest->size--;
        size_before = rest->size;
        duration_fraction(rest, &fraction, &scale);
        has_digits = has_digits || rest->size != size_before;
    }
    if (!has_digits) {
        return duration_invalid(text, err);
    }
    if (!duration_unit(text, rest, &unit_ns, err)) {
        return false;
    }
    if (whole > INT64_MAX / unit_ns) {
        return duration_invalid(text, err);
    }
    *ns = whole * unit_ns;
    /* In floating point as Go does it, so that "0.3333333333333333333h" gives Go's nanoseconds. */
    const int64_t fraction_ns = (int64_t)((double)fraction * ((double)unit_ns / scale));
    if (*ns > INT64_MAX - fraction_ns) {
        return duration_invalid(text, err);
    }
    *ns += fraction_ns;
    return true;
}

bool duration_parse(struct slice text, int64_t *ns, struct errmsg *err)
{
    struct slice rest = text;
    int64_t total_ns = 0;
    bool negative = false;

    if (rest.size > 0 && (rest.data[0] == '-' || rest.data[0] == '+')) {
        negative = rest.data[0] == '-';
        rest.data++;
        rest.size--;
    }
    if (rest.size == 0) {
        return duration_invalid(text, err);
    }
    if (rest.size == 1 && rest.data[0] == '0') { /* The only number that needs no unit. */
        *ns = 0;
        return true;
    }
    while (rest.size > 0) {
        int64_t part_ns;

        if (!duration_part(text, &rest, &part_ns, err)) {
            return false;
        }
        assert(part_ns >= 0);
        if (total_ns > INT64_MAX - part_ns) {
            return duration_invalid(text, err);
        }
        total_ns += part_ns;
    }
    *ns = negative ? -total_ns : total_ns;
    return true;
}

/* `value` units and a fraction of `digits` decimal places, without trailing zeros. */
static void duration_format_fraction(char *out, size_t out_bytes, uint64_t value, unsigned digits,
                                     const char *unit)
{
    char fraction[24];
    uint64_t scale = 1;

    for (unsigned i = 0; i < digits; i++) {
        scale *= 10;
    }
    int size = snprintf(fraction, sizeof(fraction), ".%0*" PRIu64, (int)(digits > 0 ? digits : 1),
                        value % scale);
    while (size > 0 && (fraction[size - 1] == '0' || fraction[size - 1] == '.')) {
        const bool at_point = fraction[size - 1] == '.';

        size--;
        if (at_point) {
            break;
        }
    }
    (void)snprintf(out, out_bytes, "%" PRIu64 "%.*s%s", value / scale, size, fraction, unit);
}

void duration_format(int64_t ns, char *out, size_t out_bytes)
{
    const uint64_t total_ns = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    const uint64_t second_ns = 1000000000;
    char text[64];

    if (total_ns == 0) {
        (void)snprintf(text, sizeof(text), "0s");
    } else if (total_ns < 1000) {
        (void)snprintf(text, sizeof(text), "%" PRIu64 "ns", total_ns);
    } else if (total_ns < 1000000) {
        duration_format_fraction(text, sizeof(text), total_ns, 3, "\xc2\xb5s");
    } else if (total_ns < second_ns) {
        duration_format_fraction(text, sizeof(text), total_ns, 6, "ms");
    } else {
        char seconds[32];
        const uint64_t minutes = total_ns / second_ns / 60;

        duration_format_fraction(seconds, sizeof(seconds), total_ns % (60 * second_ns), 9, "s");
        if (minutes == 0) {
            (void)snprintf(text, sizeof(text), "%s", seconds);
        } else if (minutes < 60) {
            (void)snprintf(text, sizeof(text), "%" PRIu64 "m%s", minutes, seconds);
        } else {
            (void)snprintf(text, sizeof(text), "%" PRIu64 "h%" PRIu64 "m%s", minutes / 60,
                           minutes % 60, seconds);
        }
    }
    (void)snprintf(out, out_bytes, "%s%s", ns < 0 ? "-" : "", text);
}
