#ifndef SERVER_SNAPSHOT_SHA256_H
#define SERVER_SNAPSHOT_SHA256_H

/* SHA-256 (FIPS 180-4), for the checksums inside of archives. */

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_TEXT_BYTES = 64, SHA256_BLOCK_BYTES = 64 };

struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[SHA256_BLOCK_BYTES];
};

void sha256_begin(struct sha256 *sha256);
void sha256_add(struct sha256 *sha256, const void *data, size_t size);
/* Lower-case hexadecimal, and a NUL. Ends the computation. */
void sha256_end(struct sha256 *sha256, char out[SHA256_TEXT_BYTES + 1]);

#endif
