#include "sha256.h"

static uint32_t turn(uint32_t x, uint32_t n)
{
    return (x >> n) | (x << (32u - n));
}

static void mix(sha256_t *hash, const uint8_t *block)
{
    static const uint32_t k[64] = {
        0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
        0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
        0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
        0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
        0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
        0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
        0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
        0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
    };
    uint32_t w[64];
    uint32_t s[8];
    for (uint32_t i = 0u; i < 16u; i++) {
        const uint8_t *b = &block[4u * i];
        w[i] = ((uint32_t)b[0] << 24) | ((uint32_t)b[1] << 16) | ((uint32_t)b[2] << 8) | (uint32_t)b[3];
    }
    for (uint32_t i = 16u; i < 64u; i++) {
        const uint32_t low = turn(w[i - 15u], 7u) ^ turn(w[i - 15u], 18u) ^ (w[i - 15u] >> 3);
        const uint32_t high = turn(w[i - 2u], 17u) ^ turn(w[i - 2u], 19u) ^ (w[i - 2u] >> 10);
        w[i] = w[i - 16u] + low + w[i - 7u] + high;
    }
    for (uint32_t i = 0u; i < 8u; i++) {
        s[i] = hash->state[i];
    }
    for (uint32_t i = 0u; i < 64u; i++) {
        const uint32_t sum1 = turn(s[4], 6u) ^ turn(s[4], 11u) ^ turn(s[4], 25u);
        const uint32_t choose = (s[4] & s[5]) ^ (~s[4] & s[6]);
        const uint32_t first = s[7] + sum1 + choose + k[i] + w[i];
        const uint32_t sum0 = turn(s[0], 2u) ^ turn(s[0], 13u) ^ turn(s[0], 22u);
        const uint32_t major = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        s[7] = s[6];
        s[6] = s[5];
        s[5] = s[4];
        s[4] = s[3] + first;
        s[3] = s[2];
        s[2] = s[1];
        s[1] = s[0];
        s[0] = first + sum0 + major;
    }
    for (uint32_t i = 0u; i < 8u; i++) {
        hash->state[i] += s[i];
    }
}

void sha256_start(sha256_t *hash)
{
    static const uint32_t start[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                      0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
    for (uint32_t i = 0u; i < 8u; i++) {
        hash->state[i] = start[i];
    }
    hash->count = 0u;
}

void sha256_add(sha256_t *hash, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0u; i < count; i++) {
        hash->block[hash->count % 64u] = bytes[i];
        hash->count++;
        if ((hash->count % 64u) == 0u) {
            mix(hash, hash->block);
        }
    }
}

void sha256_end(sha256_t *hash, uint8_t *digest)
{
    static const uint8_t one = 0x80u;
    static const uint8_t zero = 0u;
    const uint64_t bits = hash->count * 8u;
    sha256_add(hash, &one, 1u);
    for (uint32_t i = 0u; (i < 64u) && ((hash->count % 64u) != 56u); i++) {
        sha256_add(hash, &zero, 1u);
    }
    for (uint32_t i = 0u; i < 8u; i++) {
        const uint32_t shift = 56u - (8u * i);
        const uint8_t byte = (uint8_t)(bits >> shift);
        sha256_add(hash, &byte, 1u);
    }
    for (uint32_t i = 0u; i < SHA256_BYTES; i++) {
        digest[i] = (uint8_t)(hash->state[i / 4u] >> (24u - (8u * (i % 4u))));
    }
}
