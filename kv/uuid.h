#ifndef KV_UUID_H
#define KV_UUID_H

/* Session and node identifiers in their 16-byte form. All zero is none. */

#include <stdbool.h>
#include <stdint.h>

#include "kv/slice.h"

enum { UUID_BYTES = 16, UUID_TEXT_BYTES = 36 };

struct uuid {
    uint8_t bytes[UUID_BYTES];
};

bool uuid_is_zero(const struct uuid *uuid);
bool uuid_equal(const struct uuid *a, const struct uuid *b);
/* Lower-case 8-4-4-4-12 text and a NUL. */
void uuid_format(const struct uuid *uuid, char out[UUID_TEXT_BYTES + 1]);
/* Reads 36 characters with dashes at 8, 13, 18, 23, any case of hex. False on anything else. */
bool uuid_parse(struct slice text, struct uuid *out);

#endif
