#include "kv/uuid.h"

#include <assert.h>

/* Where the text has its dashes; two hex digits a byte elsewhere. */
static bool uuid_is_dash(size_t position)
{
    return position == 8 || position == 13 || position == 18 || position == 23;
}

bool uuid_is_zero(const struct uuid *uuid)
{
    static const struct uuid zero;

    return uuid_equal(uuid, &zero);
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->bytes, b->bytes, UUID_BYTES) == 0;
}

void uuid_format(const struct uuid *uuid, char out[UUID_TEXT_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;

    for (size_t i = 0; i < UUID_BYTES; i++) {
        if (uuid_is_dash(at)) {
            out[at++] = '-';
        }
        out[at++] = digits[uuid->bytes[i] >> 4];
        out[at++] = digits[uuid->bytes[i] & 15];
    }
    assert(at == UUID_TEXT_BYTES);
    out[at] = '\0';
}

static int uuid_hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = slice_lower(c);
    if (lower >= 'a' && lower <= 'f') {
        return lower - 'a' + 10;
    }
    return -1;
}

bool uuid_parse(struct slice text, struct uuid *out)
{
    struct uuid uuid;
    size_t at = 0;

    if (text.size != UUID_TEXT_BYTES) {
        return false;
    }
    for (size_t i = 0; i < UUID_BYTES; i++) {
        if (uuid_is_dash(at)) {
            if (text.data[at] != '-') {
                return false;
            }
            at++;
        }
        const int high = uuid_hex(text.data[at]);
        const int low = uuid_hex(text.data[at + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        uuid.bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    *out = uuid;
    return true;
}
