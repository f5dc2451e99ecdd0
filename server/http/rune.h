#ifndef SERVER_HTTP_RUNE_H
#define SERVER_HTTP_RUNE_H

/* UTF-8, one character after the other, as strict as Go's decoder: no overlong forms, no
 * surrogates, nothing above U+10FFFF. Pure; in line, since every byte of a request comes by. */

#include "kv/slice.h"

enum {
    RUNE_BAD = 0xfffd, /* stands for a byte that is part of no character */
    RUNE_MAX = 0x10ffff,
};

/* Length of the well-formed character that begins at text[at], which is inside; 0 if none does. */
static inline size_t rune_size(struct slice text, size_t at)
{
    const unsigned char *bytes = (const unsigned char *)text.data + at;
    const unsigned char first = bytes[0];

    if (first < 0x80) {
        return 1;
    }
    if (first < 0xc2 || first > 0xf4) {
        return 0;
    }
    const size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (text.size - at < size) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    /* Overlong forms, surrogates, and what lies above U+10FFFF. */
    if ((first == 0xe0 && bytes[1] < 0xa0) || (first == 0xf0 && bytes[1] < 0x90) ||
        (first == 0xed && bytes[1] > 0x9f) || (first == 0xf4 && bytes[1] > 0x8f)) {
        return 0;
    }
    return size;
}

/* The character at text[*at]; moves behind it. RUNE_BAD, and one byte, where none begins. */
static inline uint32_t rune_next(struct slice text, size_t *at)
{
    static const unsigned char first_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07}; /* by the size */
    const unsigned char *bytes = (const unsigned char *)text.data + *at;
    const size_t size = rune_size(text, *at);

    *at += size == 0 ? 1 : size;
    if (size == 0) {
        return RUNE_BAD;
    }
    uint32_t rune = bytes[0] & first_bits[size];
    for (size_t i = 1; i < size; i++) {
        rune = rune << 6 | (bytes[i] & 0x3f);
    }
    return rune;
}

#endif
