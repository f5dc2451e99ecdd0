#include "server/snapshot/sha256.h"

#include <openssl/evp.h>

void sha256_begin(struct sha256 *sha256)
{
    sha256->context = EVP_MD_CTX_new();
    if (sha256->context != NULL && EVP_DigestInit_ex(sha256->context, EVP_sha256(), NULL) != 1) {
        sha256_free(sha256);
    }
}

void sha256_add(struct sha256 *sha256, const void *data, size_t size)
{
    if (sha256->context != NULL && EVP_DigestUpdate(sha256->context, data, size) != 1) {
        sha256_free(sha256);
    }
}

int sha256_end(struct sha256 *sha256, char out[SHA256_TEXT_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char sum[SHA256_BYTES];
    const int good = sha256->context != NULL && EVP_DigestFinal_ex(sha256->context, sum, NULL) == 1;

    sha256_free(sha256);
    out[0] = '\0';
    if (!good) {
        return -1;
    }
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        out[2 * i] = digits[sum[i] >> 4];
        out[2 * i + 1] = digits[sum[i] & 0xf];
    }
    out[SHA256_TEXT_BYTES] = '\0';
    return 0;
}

void sha256_free(struct sha256 *sha256)
{
    EVP_MD_CTX_free(sha256->context);
    sha256->context = NULL;
}
