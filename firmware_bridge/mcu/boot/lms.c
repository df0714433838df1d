#include "lms.h"

#include "sha256.h"

#define N SHA256_BYTES
#define ID_AT 8u
#define ID_BYTES 16u
#define ROOT_AT 24u

/* Domain separators, RFC 8554 section 7.1 */
#define D_PBLC 0x8080u
#define D_MESG 0x8181u
#define D_LEAF 0x8282u
#define D_INTR 0x8383u

/* LMOTS_SHA256_N32_W1..W8: width of a digit, digits, shift of the checksum (section 4.1) */
typedef struct {
    uint32_t width;
    uint32_t digits;
    uint32_t shift;
} ots_t;

static const ots_t ots_types[4] = {{1u, 265u, 7u}, {2u, 133u, 6u}, {4u, 67u, 4u}, {8u, 34u, 0u}};

static uint32_t u32_at(const uint8_t *b)
{
    return ((uint32_t)b[0] << 24) | ((uint32_t)b[1] << 16) | ((uint32_t)b[2] << 8) | (uint32_t)b[3];
}

static const ots_t *ots_of(const uint8_t *key)
{
    const uint32_t type = u32_at(&key[4]);
    return ((type >= 1u) && (type <= 4u)) ? &ots_types[type - 1u] : NULL;
}

/* LMS_SHA256_M32_H5..H25: 5 levels a step (section 5.1); 0: unknown */
static uint32_t levels_of(const uint8_t *key)
{
    const uint32_t type = u32_at(key);
    return ((type >= 5u) && (type <= 9u)) ? (5u * (type - 4u)) : 0u;
}

size_t lms_signature_bytes(const uint8_t *key)
{
    const ots_t *ots = ots_of(key);
    const uint32_t levels = levels_of(key);
    return ((ots == NULL) || (levels == 0u)) ? 0u : (12u + (N * (1u + ots->digits + levels)));
}

/* Begins a hash with what all of them begin with: identifier, number, and a 16-bit word. */
static void begin(sha256_t *hash, const uint8_t *key, uint32_t number, uint32_t word)
{
    const uint8_t head[6] = {(uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8),
                             (uint8_t)number,         (uint8_t)(word >> 8),    (uint8_t)word};
    sha256_start(hash);
    sha256_add(hash, &key[ID_AT], ID_BYTES);
    sha256_add(hash, head, sizeof head);
}

static uint32_t digit_at(const uint8_t *bytes, uint32_t index, uint32_t width)
{
    const uint32_t per_byte = 8u / width;
    const uint32_t place = per_byte - 1u - (index % per_byte);
    return ((uint32_t)bytes[index / per_byte] >> (place * width)) & ((1u << width) - 1u);
}

/* Section 4.4: the one-time public key that the signature implies. digest holds N bytes and two of checksum. */
static void ots_candidate(const ots_t *ots, const uint8_t *key, uint32_t leaf, const uint8_t *message, size_t count,
                          const uint8_t *signature, uint8_t *candidate)
{
    uint8_t digest[N + 2u];
    const uint32_t most = (1u << ots->width) - 1u;
    sha256_t hash;
    sha256_t all;
    begin(&hash, key, leaf, D_MESG);
    sha256_add(&hash, signature, N); /* C */
    sha256_add(&hash, message, count);
    sha256_end(&hash, digest);
    uint32_t sum = 0u;
    for (uint32_t i = 0u; i < ((N * 8u) / ots->width); i++) {
        sum += most - digit_at(digest, i, ots->width);
    }
    sum <<= ots->shift;
    digest[N] = (uint8_t)(sum >> 8);
    digest[N + 1u] = (uint8_t)sum;
    begin(&all, key, leaf, D_PBLC);
    for (uint32_t i = 0u; i < ots->digits; i++) {
        uint8_t link[N];
        for (uint32_t k = 0u; k < N; k++) {
            link[k] = signature[(N * (1u + i)) + k];
        }
        for (uint32_t j = digit_at(digest, i, ots->width); j < most; j++) {
            const uint8_t step = (uint8_t)j;
            begin(&hash, key, leaf, i);
            sha256_add(&hash, &step, 1u);
            sha256_add(&hash, link, N);
            sha256_end(&hash, link);
        }
        sha256_add(&all, link, N);
    }
    sha256_end(&all, candidate);
}

/* Section 5.4.2. */
bool lms_verify(const uint8_t *key, const uint8_t *message, size_t count, const uint8_t *signature, size_t signature_count)
{
    const ots_t *ots = ots_of(key);
    const uint32_t levels = levels_of(key);
    if ((ots == NULL) || (levels == 0u) || (signature_count != lms_signature_bytes(key))) {
        return false;
    }
    const uint32_t leaf = u32_at(signature);
    const uint8_t *type = &signature[8u + (N * (1u + ots->digits))];
    if ((u32_at(&signature[4]) != u32_at(&key[4])) || (u32_at(type) != u32_at(key)) || ((leaf >> levels) != 0u)) {
        return false;
    }
    uint8_t node[N];
    sha256_t hash;
    ots_candidate(ots, key, leaf, message, count, &signature[8], node);
    uint32_t number = leaf + (1u << levels);
    begin(&hash, key, number, D_LEAF);
    sha256_add(&hash, node, N);
    sha256_end(&hash, node);
    for (uint32_t i = 0u; i < levels; i++) {
        const uint8_t *other = &type[4u + (N * i)];
        const bool right = (number & 1u) != 0u;
        number >>= 1;
        begin(&hash, key, number, D_INTR);
        sha256_add(&hash, right ? other : node, N);
        sha256_add(&hash, right ? node : other, N);
        sha256_end(&hash, node);
    }
    uint8_t difference = 0u;
    for (uint32_t i = 0u; i < N; i++) {
        difference |= (uint8_t)(node[i] ^ key[ROOT_AT + i]);
    }
    return difference == 0u;
}
