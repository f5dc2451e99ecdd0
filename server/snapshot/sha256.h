#ifndef SERVER_SNAPSHOT_SHA256_H
#define SERVER_SNAPSHOT_SHA256_H

/* SHA-256 (FIPS 180-4) in pieces, for the checksums inside of archives: OpenSSL's, with its errors
 * told once, at the end. */

#include <stddef.h>

enum { SHA256_BYTES = 32, SHA256_TEXT_BYTES = 64 };

struct sha256 {
    void *context; /* owned; NULL before the begin, after the end, and when it failed */
};

void sha256_begin(struct sha256 *sha256);
void sha256_add(struct sha256 *sha256, const void *data, size_t size);
/* Lower-case hexadecimal, and a NUL. Ends the computation. -1: out of memory, or OpenSSL knows no
 * SHA-256 here; `out` is empty then. */
int sha256_end(struct sha256 *sha256, char out[SHA256_TEXT_BYTES + 1]);
/* Instead of the end; also after it, and when all is zero. */
void sha256_free(struct sha256 *sha256);

#endif
