#ifndef RAFT_CRC32C_H
#define RAFT_CRC32C_H

/* CRC-32C (Castagnoli), as in RFC 3720 appendix B.4: what the log's records and the frames between
 * servers are checked by. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct crc32c {
    bool hardware;
    uint32_t table[8][256]; /* slicing by 8, for processors without the instruction */
};

void crc32c_init(struct crc32c *crc32c);

/* Continues from `crc`; 0 begins. Borrows `data`. */
uint32_t crc32c_update(const struct crc32c *crc32c, uint32_t crc, const void *data, size_t size);

#endif
