/* CRC-32C with the processor's instruction where it has one, else by table, eight bytes at a time
 * ("slicing by 8": Kounavis and Berry, 2005). */

#include "raft/crc32c.h"

#include <string.h>

enum { CRC32C_POLYNOMIAL = 0x82f63b78 }; /* reflected */

void crc32c_init(struct crc32c *crc32c)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? (uint32_t)CRC32C_POLYNOMIAL : 0);
        }
        crc32c->table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (size_t slice = 1; slice < 8; slice++) {
            uint32_t before = crc32c->table[slice - 1][byte];
            crc32c->table[slice][byte] = (before >> 8) ^ crc32c->table[0][before & 0xff];
        }
    }
#if defined(__x86_64__)
    crc32c->hardware = __builtin_cpu_supports("sse4.2") != 0;
#else
    crc32c->hardware = false;
#endif
}

static uint32_t crc32c_table(const struct crc32c *crc32c, uint32_t crc, const uint8_t *at,
                             size_t size)
{
    const uint32_t(*table)[256] = crc32c->table;

    while (size >= 8) {
        crc ^=
            (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        crc = table[7][crc & 0xff] ^ table[6][(crc >> 8) & 0xff] ^ table[5][(crc >> 16) & 0xff] ^
              table[4][crc >> 24] ^ table[3][at[4]] ^ table[2][at[5]] ^ table[1][at[6]] ^
              table[0][at[7]];
        at += 8;
        size -= 8;
    }
    while (size > 0) {
        crc = (crc >> 8) ^ table[0][(crc ^ *at) & 0xff];
        at++;
        size--;
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *at,
                                                               size_t size)
{
    uint64_t wide = crc;

    while (size >= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        wide = __builtin_ia32_crc32di(wide, word);
        at += 8;
        size -= 8;
    }
    crc = (uint32_t)wide;
    while (size > 0) {
        crc = __builtin_ia32_crc32qi(crc, *at);
        at++;
        size--;
    }
    return crc;
}
#endif

uint32_t crc32c_update(const struct crc32c *crc32c, uint32_t crc, const void *data, size_t size)
{
#if defined(__x86_64__)
    if (crc32c->hardware) {
        return ~crc32c_sse42(~crc, data, size);
    }
#endif
    return ~crc32c_table(crc32c, ~crc, data, size);
}
