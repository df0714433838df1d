#include "ew_frame.h"

/* A nibble at a time: 64 bytes of table instead of 1 kB, and a 640-byte frame costs ~10 k instructions (60 us at 168 MHz). */
static const uint32_t crc_nibble[16] = {
    0x00000000u, 0x105EC76Fu, 0x20BD8EDEu, 0x30E349B1u, 0x417B1DBCu, 0x5125DAD3u, 0x61C69362u, 0x7198540Du,
    0x82F63B78u, 0x92A8FC17u, 0xA24BB5A6u, 0xB21572C9u, 0xC38D26C4u, 0xD3D3E1ABu, 0xE330A81Au, 0xF36E6F75u,
};

uint32_t ew_crc32c(const uint8_t *data, size_t count, uint32_t seed)
{
    uint32_t crc = ~seed;
    for (size_t i = 0u; i < count; i++) {
        crc ^= data[i];
        crc = crc_nibble[crc & 15u] ^ (crc >> 4);
        crc = crc_nibble[crc & 15u] ^ (crc >> 4);
    }
    return ~crc;
}

size_t ew_cobs_encode(const uint8_t *in, size_t count, uint8_t *out)
{
    size_t code_at = 0u;
    size_t at = 1u;
    uint8_t code = 1u;
    for (size_t i = 0u; i < count; i++) {
        if (in[i] != 0u) {
            out[at] = in[i];
            at++;
            code++;
        }
        if ((in[i] == 0u) || ((code == 0xFFu) && ((i + 1u) < count))) {
            out[code_at] = code;
            code_at = at;
            at++;
            code = 1u;
        }
    }
    out[code_at] = code;
    return at;
}

size_t ew_cobs_decode(const uint8_t *in, size_t count, uint8_t *out, size_t capacity)
{
    size_t to = 0u;
    uint8_t left = 0u;  /* bytes to come in this block */
    bool zero = false;  /* the block before this one stands for a zero behind it */
    for (size_t from = 0u; from < count; from++) {
        const bool code = (left == 0u);
        if ((in[from] == 0u) || ((to >= capacity) && (!code || zero))) {
            return 0u; /* a zero never occurs inside a frame */
        }
        if (!code) {
            out[to] = in[from];
            to++;
            left--;
        } else {
            left = (uint8_t)(in[from] - 1u); /* read first: out may be in */
            if (zero) {
                out[to] = 0u;
                to++;
            }
            zero = (left != 0xFEu);
        }
    }
    return (left == 0u) ? to : 0u; /* a block that reaches past the end is none */
}

size_t ew_receiver_push(ew_receiver_t *receiver, uint8_t byte)
{
    if (byte != 0u) {
        if (receiver->count < sizeof receiver->bytes) {
            receiver->bytes[receiver->count] = byte;
            receiver->count++;
        } else {
            receiver->overlong = true;
        }
        return 0u;
    }
    const size_t encoded = receiver->count;
    const bool overlong = receiver->overlong;
    receiver->count = 0u;
    receiver->overlong = false;
    if (overlong) {
        receiver->oversize++;
        return 0u;
    }
    if (encoded == 0u) {
        return 0u; /* two delimiters in a row are the usual way to start clean */
    }
    const size_t body = ew_cobs_decode(receiver->bytes, encoded, receiver->bytes, EW_MAX_BODY_BYTES);
    if ((body <= EW_CRC_BYTES) ||
        (ew_get_u32(&receiver->bytes[body - EW_CRC_BYTES]) != ew_crc32c(receiver->bytes, body - EW_CRC_BYTES, 0u))) {
        receiver->bad++;
        return 0u;
    }
    return body - EW_CRC_BYTES;
}

size_t ew_frame_seal(uint8_t *body, size_t count, uint8_t *out)
{
    ew_put_u32(&body[count], ew_crc32c(body, count, 0u));
    const size_t encoded = ew_cobs_encode(body, count + EW_CRC_BYTES, out);
    out[encoded] = 0u;
    return encoded + 1u;
}
