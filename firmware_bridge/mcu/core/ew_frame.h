/* Framing: COBS with 00 as delimiter, CRC-32C, and a receiver that resynchronises. No time, no state machine, no hardware. */
#ifndef EW_FRAME_H
#define EW_FRAME_H
#include "ew_protocol.h"

/* COBS adds one byte per 254 and one at the front. */
#define EW_MAX_ENCODED_BYTES (EW_MAX_BODY_BYTES + (EW_MAX_BODY_BYTES / 254u) + 1u)

/* CRC-32C (Castagnoli, reflected). Start with seed 0; pass the last result as seed to continue. */
uint32_t ew_crc32c(const uint8_t *data, size_t count, uint32_t seed);

/* Encodes count bytes, no delimiter. out must hold count + count / 254 + 1 bytes. Returns the encoded length. */
size_t ew_cobs_encode(const uint8_t *in, size_t count, uint8_t *out);

/* Decodes; out may be in. Returns the decoded length, 0 when the input is not COBS or does not fit in capacity. */
size_t ew_cobs_decode(const uint8_t *in, size_t count, uint8_t *out, size_t capacity);

/* Between two bytes of a frame. */
typedef struct {
    uint8_t left; /* bytes to come in this block */
    bool zero;    /* the block before this one stands for a zero behind it */
} ew_cobs_t;

typedef struct {
    uint8_t bytes[EW_MAX_ENCODED_BYTES]; /* decoded */
    size_t count;
    size_t encoded; /* bytes since the last delimiter, of which count were made */
    ew_cobs_t cobs;
    uint32_t crc;   /* over all that was decoded */
    bool overlong;
    uint32_t oversize; /* frames dropped because they were too long */
    uint32_t bad;      /* frames with broken COBS or CRC */
} ew_receiver_t;

/* Takes one byte. Returns the length of the body without its CRC when the byte completed a valid frame, else 0.
 * The body is then in receiver->bytes until the next call. */
size_t ew_receiver_push(ew_receiver_t *receiver, uint8_t byte);

/* Appends the CRC to body (which must have room for 4 bytes more) and encodes it with the delimiter. Returns the length. */
size_t ew_frame_seal(uint8_t *body, size_t count, uint8_t *out);

#endif
