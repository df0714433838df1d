/* SHA-256 (FIPS 180-4), in pieces. */
#ifndef EW_SHA256_H
#define EW_SHA256_H
#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32u

typedef struct {
    uint32_t state[8];
    uint8_t block[64];
    uint64_t count; /* bytes so far */
} sha256_t;

void sha256_start(sha256_t *hash);
void sha256_add(sha256_t *hash, const uint8_t *bytes, size_t count);
void sha256_end(sha256_t *hash, uint8_t *digest);

#endif
