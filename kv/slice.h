#ifndef KV_SLICE_H
#define KV_SLICE_H

/* Bytes with a length. A slice never owns; a NUL is never assumed. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *data;
    size_t size;
};

#define SLICE_LITERAL(text) ((struct slice){(text), sizeof(text) - 1})
#define SLICE_EMPTY ((struct slice){"", 0})

static inline struct slice slice_from(const char *data, size_t size)
{
    return (struct slice){data, size};
}

static inline struct slice slice_from_text(const char *text)
{
    return (struct slice){text, strlen(text)};
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Byte order; a proper prefix sorts first. Negative, 0 or positive. */
static inline int slice_compare(struct slice a, struct slice b)
{
    const size_t size = a.size < b.size ? a.size : b.size;
    const int order = size == 0 ? 0 : memcmp(a.data, b.data, size);

    if (order != 0) {
        return order;
    }
    return (a.size > b.size) - (a.size < b.size);
}

static inline bool slice_starts_with(struct slice text, struct slice prefix)
{
    return text.size >= prefix.size &&
           (prefix.size == 0 || memcmp(text.data, prefix.data, prefix.size) == 0);
}

/* ASCII case only: what Consul's DNS and catalog names are compared by. */
static inline char slice_lower(char c)
{
    return (c >= 'A' && c <= 'Z') ? (char)(c + ('a' - 'A')) : c;
}

/* Byte order of both in lower case. */
static inline int slice_compare_nocase(struct slice a, struct slice b)
{
    const size_t size = a.size < b.size ? a.size : b.size;

    for (size_t i = 0; i < size; i++) {
        const unsigned char left = (unsigned char)slice_lower(a.data[i]);
        const unsigned char right = (unsigned char)slice_lower(b.data[i]);

        if (left != right) {
            return left < right ? -1 : 1;
        }
    }
    return (a.size > b.size) - (a.size < b.size);
}

/* Copies the text with a NUL behind it. False, and nothing is copied, when there is no room for it
 * or it has a NUL itself. */
static inline bool slice_copy_text(struct slice text, char *out, size_t out_bytes)
{
    if (text.size >= out_bytes || (text.size > 0 && memchr(text.data, '\0', text.size) != NULL)) {
        return false;
    }
    if (text.size > 0) {
        memcpy(out, text.data, text.size);
    }
    out[text.size] = '\0';
    return true;
}

static inline bool slice_equal_nocase(struct slice a, struct slice b)
{
    if (a.size != b.size) {
        return false;
    }
    for (size_t i = 0; i < a.size; i++) {
        if (slice_lower(a.data[i]) != slice_lower(b.data[i])) {
            return false;
        }
    }
    return true;
}

#endif
