/* libFuzzer: any bytes into the receiver, whole and in place, and every frame that it takes, taken apart and made again. */
#include "ew_frame.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ew_receiver_t rx;
    static uint8_t wire[EW_MAX_ENCODED_BYTES + 1];
    static uint8_t body[EW_MAX_BODY_BYTES];
    memset(&rx, 0, sizeof rx);
    for (size_t i = 0u; i < size; i++) {
        const size_t count = ew_receiver_push(&rx, data[i]);
        if (count > (EW_MAX_BODY_BYTES - EW_CRC_BYTES)) {
            abort();
        }
        if (count > 0u) {
            memcpy(body, rx.bytes, count);
            const size_t sealed = ew_frame_seal(body, count, wire);
            if ((sealed > sizeof wire) ||
                (ew_cobs_decode(wire, sealed - 1u, wire, sizeof wire) != (count + EW_CRC_BYTES)) ||
                (memcmp(wire, body, count + EW_CRC_BYTES) != 0)) {
                abort();
            }
        }
    }
    uint8_t *out = malloc(size + 1u);
    uint8_t *exact = malloc((size == 0u) ? 1u : size);
    const size_t decoded = ew_cobs_decode(data, size, exact, size);
    memcpy(out, data, size);
    if ((decoded > size) || (ew_cobs_decode(out, size, out, size) != decoded) || (memcmp(out, exact, decoded) != 0)) {
        abort();
    }
    free(exact);
    free(out);
    return 0;
}
