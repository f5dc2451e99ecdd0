#ifndef TESTS_FUZZ_SNAPSHOT_REPAIR_H
#define TESTS_FUZZ_SNAPSHOT_REPAIR_H

/* Puts a snapshot's checksums right: nothing but their comparison would ever be reached. */

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "server/snapshot/snapshot_internal.h"

static inline void fuzz_put_u32(uint8_t *at, uint32_t value)
{
    for (size_t i = 0; i < sizeof(value); i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static inline uint32_t fuzz_get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Makes the checksums, and the sizes that the end tells, right as far as sizes make sense. */
static inline void fuzz_repair(const struct crc32c *crc32c, uint8_t *bytes, size_t size)
{
    if (size < SNAPSHOT_HEAD_BYTES + SNAPSHOT_HEAD_END_BYTES + SNAPSHOT_TRAILER_BYTES) {
        return;
    }
    const size_t end = size - SNAPSHOT_TRAILER_BYTES;
    const size_t checked = SNAPSHOT_HEAD_BYTES + (size_t)fuzz_get_u32(bytes + 12);
    if (checked > end - SNAPSHOT_HEAD_END_BYTES) {
        return;
    }
    memcpy(bytes, "PCSNAPSH", 8);
    fuzz_put_u32(bytes + checked, crc32c_update(crc32c, 0, bytes, checked));
    uint64_t records = 0;
    for (size_t at = checked + SNAPSHOT_HEAD_END_BYTES; at + SNAPSHOT_BLOCK_HEAD_BYTES <= end;) {
        const size_t payload = fuzz_get_u32(bytes + at + 4);
        if (payload > end - at - SNAPSHOT_BLOCK_HEAD_BYTES) {
            break;
        }
        fuzz_put_u32(bytes + at, crc32c_update(crc32c, 0, bytes + at + 4,
                                               SNAPSHOT_BLOCK_HEAD_BYTES - 4 + payload));
        records += fuzz_get_u32(bytes + at + 8);
        at += SNAPSHOT_BLOCK_HEAD_BYTES + payload;
    }
    const struct snapshot_meta meta = {.bytes = size,
                                       .checksum = crc32c_update(crc32c, 0, bytes, end)};
    struct buffer trailer = {0};
    snapshot_trailer_encode(crc32c, records, &meta, &trailer);
    assert(!trailer.failed);
    memcpy(bytes + end, trailer.data, trailer.size);
    buffer_deinit(&trailer);
}

#endif
