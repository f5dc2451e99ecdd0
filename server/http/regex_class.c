#include <string.h>

#include "server/http/regex_internal.h"

static void class_put(struct regex_class *class, uint32_t low, uint32_t high)
{
    if (class->count == REGEX_RANGES_MAX) {
        class->full = true;
        return;
    }
    class->ranges[class->count++] = (struct regex_range){low, high};
}

/* The part of low..high that lies within from..to, moved so that `from` becomes `other`. */
static void class_put_moved(struct regex_class *class, uint32_t low, uint32_t high, uint32_t from,
                            uint32_t to, uint32_t other)
{
    const uint32_t first = low > from ? low : from;
    const uint32_t last = high < to ? high : to;

    if (first <= last) {
        class_put(class, first - from + other, last - from + other);
    }
}

void regex_class_add(struct regex_class *class, uint32_t low, uint32_t high)
{
    class_put(class, low, high);
    if (class->folded) {
        class_put_moved(class, low, high, 'a', 'z', 'A');
        class_put_moved(class, low, high, 'A', 'Z', 'a');
        class_put_moved(class, low, high, 'k', 'k', 0x212a);
        class_put_moved(class, low, high, 'K', 'K', 0x212a);
        class_put_moved(class, low, high, 's', 's', 0x17f);
        class_put_moved(class, low, high, 'S', 'S', 0x17f);
    }
}

bool regex_class_add_named(struct regex_class *class, struct slice name, bool negated)
{
    static const struct {
        const char *name;
        const char *ranges; /* low and high, low and high, ... */
        size_t count;
    } sets[] = {
        {"d", "09", 1},           {"w", "09AZaz__", 4},
        {"s", "\t\n\f\r  ", 3},   {"alnum", "09AZaz", 3},
        {"alpha", "AZaz", 2},     {"ascii", "\0\x7f", 1},
        {"blank", "\t\t  ", 2},   {"cntrl", "\0\x1f\x7f\x7f", 2},
        {"digit", "09", 1},       {"graph", "!~", 1},
        {"lower", "az", 1},       {"print", " ~", 1},
        {"punct", "!/:@[`{~", 4}, {"space", "\t\r  ", 2},
        {"upper", "AZ", 1},       {"word", "09AZaz__", 4},
        {"xdigit", "09AFaf", 3},
    };
    const size_t from = class->count;

    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        if (!slice_equal(name, slice_from_text(sets[i].name))) {
            continue;
        }
        for (size_t j = 0; j < sets[i].count; j++) {
            regex_class_add(class, (unsigned char)sets[i].ranges[2 * j],
                            (unsigned char)sets[i].ranges[2 * j + 1]);
        }
        if (negated) {
            regex_class_settle(class, from, true);
        }
        return true;
    }
    return false;
}

/* There are few, as a rule in order already. */
static void class_sort(struct regex_range *ranges, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const struct regex_range range = ranges[i];
        size_t at = i;

        for (; at > 0 && ranges[at - 1].low > range.low; at--) {
            ranges[at] = ranges[at - 1];
        }
        ranges[at] = range;
    }
}

void regex_class_settle(struct regex_class *class, size_t from, bool negated)
{
    struct regex_range *ranges = class->ranges + from;
    const size_t count = class->count - from;
    size_t kept = 0;
    uint32_t next = 0; /* the first character that no range so far has */

    class_sort(ranges, count);
    if (!negated) {
        for (size_t i = 0; i < count; i++) {
            if (kept > 0 && ranges[i].low <= ranges[kept - 1].high + 1) {
                if (ranges[i].high > ranges[kept - 1].high) {
                    ranges[kept - 1].high = ranges[i].high;
                }
            } else {
                ranges[kept++] = ranges[i];
            }
        }
        class->count = from + kept;
        return;
    }
    for (size_t i = 0; i < count; i++) { /* Never more gaps than ranges so far. */
        const struct regex_range range = ranges[i];

        if (range.low > next) {
            ranges[kept++] = (struct regex_range){next, range.low - 1};
        }
        next = range.high + 1 > next ? range.high + 1 : next;
    }
    class->count = from + kept;
    if (next <= RUNE_MAX) {
        class_put(class, next, RUNE_MAX);
    }
}
