/* libFuzzer: the receiver of the serial link. Any bytes, whole and in place; every frame that it takes, taken apart and made
 * again; and the bytes as the body of a frame that is whole, or damaged in one place, behind a run that is not. */
#include "fuzz.h"

#include "ew_frame.h"

#include <stdlib.h>
#include <string.h>

const char fuzz_unit[] = "frames taken";
unsigned long fuzz_reached;

static ew_receiver_t rx;
static uint8_t wire[EW_MAX_ENCODED_BYTES + 1];

/* Every frame that is taken must be what sealing its body gives. */
static void receive(const uint8_t *data, size_t size)
{
    static uint8_t body[EW_MAX_BODY_BYTES];
    for (size_t i = 0u; i < size; i++) {
        const size_t count = ew_receiver_push(&rx, data[i]);
        require(count <= (EW_MAX_BODY_BYTES - EW_CRC_BYTES));
        if (count > 0u) {
            fuzz_reached++;
            memcpy(body, rx.bytes, count);
            const size_t sealed = ew_frame_seal(body, count, wire);
            require((sealed <= sizeof wire) && (wire[sealed - 1u] == 0u) && (memchr(wire, 0, sealed - 1u) == NULL));
            require(ew_cobs_decode(wire, sealed - 1u, wire, sizeof wire) == (count + EW_CRC_BYTES));
            require(memcmp(wire, body, count + EW_CRC_BYTES) == 0);
        }
    }
}

/* Into a buffer of exactly this size, into one that may be too small, and in place: the same result or none, and nothing
 * outside (the sanitizer looks). */
static void decode(const uint8_t *data, size_t size)
{
    const size_t room = (size == 0u) ? 0u : (size - 1u - (data[0] % size));
    uint8_t *small = malloc((room == 0u) ? 1u : room);
    uint8_t *in_place = malloc(size + 1u);
    uint8_t *exact = malloc((size == 0u) ? 1u : size);
    require((in_place != NULL) && (exact != NULL) && (small != NULL));
    const size_t decoded = ew_cobs_decode(data, size, exact, size);
    memcpy(in_place, data, size);
    require(decoded <= size);
    require(ew_cobs_decode(in_place, size, in_place, size) == decoded);
    require(memcmp(in_place, exact, decoded) == 0);
    require(ew_cobs_decode(data, size, small, room) == ((decoded <= room) ? decoded : 0u));
    free(small);
    free(exact);
    free(in_place);
}

/* A frame is taken as it was sent, after anything; and not at all when a bit of it was turned. */
static void whole_or_damaged(uint8_t where, uint8_t bits, const uint8_t *body, size_t size)
{
    static uint8_t copy[EW_MAX_BODY_BYTES];
    static uint8_t sent[EW_MAX_ENCODED_BYTES + 1];
    const size_t count = (size < (EW_MAX_BODY_BYTES - EW_CRC_BYTES)) ? size : (EW_MAX_BODY_BYTES - EW_CRC_BYTES);
    memcpy(copy, body, count);
    const size_t sealed = ew_frame_seal(copy, count, sent);
    require(ew_receiver_push(&rx, 0u) <= (EW_MAX_BODY_BYTES - EW_CRC_BYTES)); /* whatever came before ends here */
    sent[where % sealed] ^= bits;
    const uint32_t refused = rx.bad + rx.oversize;
    size_t taken = 0u;
    for (size_t i = 0u; i < sealed; i++) {
        const size_t got = ew_receiver_push(&rx, sent[i]);
        taken = (got > 0u) ? got : taken;
    }
    if (bits == 0u) {
        require((taken == count) && (memcmp(rx.bytes, body, count) == 0) && (refused == (rx.bad + rx.oversize)));
        fuzz_reached++;
    } else {
        require(taken == 0u);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&rx, 0, sizeof rx);
    decode(data, size);
    if ((size < 4u) || (data[0] >= 0xC0u)) {
        receive(data, size);
    } else {
        const size_t rest = size - 3u;
        receive(&data[3], ((data[0] & 2u) != 0u) ? (rest / 2u) : 0u);
        for (size_t i = (EW_MAX_ENCODED_BYTES - 3u) + (data[1] % 8u); ((data[0] & 4u) != 0u) && (i > 0u); i--) {
            require(ew_receiver_push(&rx, 0x55u) == 0u); /* a run about as long as the longest frame */
        }
        whole_or_damaged(data[1], ((data[0] & 1u) != 0u) ? data[2] : 0u, &data[3], rest);
    }
    return 0;
}
