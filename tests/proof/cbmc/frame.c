/* Framing. Every buffer ends where its array ends, so that one byte too many is found. */
#include "ew_frame.h"

#include "proof.h"

#ifndef N
#define N 16
#endif

static void fill(uint8_t bytes[N])
{
    for (size_t i = 0u; i < N; i++) {
        bytes[i] = nondet_u8();
    }
}

/* Any bytes, any length, any capacity: nothing outside the buffers is touched, the result is never past the capacity. */
void decode(void)
{
    const size_t count = nondet_size();
    const size_t capacity = nondet_size();
    ASSUME((count <= N) && (capacity <= N));
    uint8_t bytes[N];
    uint8_t room[N];
    fill(bytes);
    const uint8_t *in = &bytes[N - count];
    uint8_t *out = &room[N - capacity];
    const size_t made = ew_cobs_decode(in, count, out, capacity);
    PROVE((made + SLACK) <= capacity, "never past the capacity");
    PROVE((count == 0u) || (made < count), "always shorter than its encoding");
    END();
}

/* In place: out is in. */
void decode_in_place(void)
{
    const size_t count = nondet_size();
    ASSUME(count <= N);
    uint8_t bytes[N];
    fill(bytes);
    uint8_t *in = &bytes[N - count];
    const size_t made = ew_cobs_decode(in, count, in, count);
    PROVE((made + (2u * SLACK)) <= count, "never past the buffer");
    END();
}

/* Encode, then decode: the same bytes, no zero on the wire, no more room than the header promises. */
void round_trip(void)
{
    const size_t count = nondet_size();
    ASSUME(count <= N);
    uint8_t in[N];
    uint8_t wire[N + 1];
    uint8_t back[N];
    fill(in);
    const size_t length = ew_cobs_encode(in, count, wire);
    PROVE((length + SLACK) <= (count + (count / 254u) + 1u), "no more room than the header promises");
    PROVE(ew_cobs_decode(wire, length, &back[N - count], count) == count, "the same length");
    const size_t at = nondet_size();
    ASSUME(at < count);
    PROVE(back[(N - count) + at] == in[at], "the same bytes");
    const size_t on = nondet_size();
    ASSUME(on < length);
    PROVE(wire[on] != 0u, "no zero inside a frame");
    END();
}

/* One byte into a receiver in any state that its own bytes can have brought about. */
void receiver(void)
{
    static ew_receiver_t any;
    ew_receiver_t *rx = &any;
    HAVOC(rx);
    ASSUME((rx->count <= rx->encoded) && (rx->encoded <= sizeof rx->bytes));
    const size_t before = rx->encoded;
    const bool overlong = rx->overlong;
    const uint32_t dropped = rx->oversize;
    const uint8_t byte = nondet_u8();
    const size_t body = ew_receiver_push(rx, byte);
    PROVE((rx->encoded + SLACK) <= sizeof rx->bytes, "the buffer is never overrun");
    PROVE((byte == 0u) || (rx->count <= rx->encoded), "no more bytes come out than went in");
    PROVE((body + EW_CRC_BYTES) <= EW_MAX_BODY_BYTES, "a body is never longer than a body may be");
    PROVE((byte == 0u) || (body == 0u), "only a delimiter ends a frame");
    PROVE(!overlong || (body == 0u), "a frame that was too long is dropped whole");
    PROVE((byte != 0u) || ((rx->encoded == 0u) && !rx->overlong), "after a delimiter the receiver is clean");
    PROVE((byte != 0u) || !overlong || (rx->oversize == (dropped + 1u)), "and the loss is counted");
    PROVE((byte == 0u) || (before < sizeof rx->bytes) || rx->overlong, "a byte without room is remembered");
    END();
}
