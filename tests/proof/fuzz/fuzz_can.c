/* libFuzzer: what comes from a CAN bus. Lines of slcan with anything in them; frames with anything in them; and transfers
 * that were sent whole, whose frames are then lost, repeated, swapped, damaged and late. What is delivered must have been sent,
 * and is delivered once. */
#include "fuzz.h"

#include "ew_can.h"
#include "ew_frame.h"
#include "slcan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char fuzz_unit[] = "transfers delivered";
unsigned long fuzz_reached;

#define SENT_MAX 24u
#define FRAMES_MAX 100u /* a classic transfer of the longest body has 92 */

typedef struct {
    uint8_t bytes[EW_MAX_BODY_BYTES];
    size_t count;
    bool delivered;
} sent_t;

static ew_can_rx_t rx;
static sent_t sent[SENT_MAX];
static size_t sent_count;
static int64_t now_us;
static bool forged; /* the bus has carried frames that nobody sent: their content is anybody's */
static const uint8_t *at;
static const uint8_t *end;

static uint8_t byte(void)
{
    return (at < end) ? *at++ : 0u;
}

static void take(const ew_can_frame_t *frame)
{
    const uint8_t *body = NULL;
    const size_t count = ew_can_receive(&rx, frame, now_us, &body);
    if (count == 0u) {
        return;
    }
    require((count <= (EW_MAX_BODY_BYTES - EW_CRC_BYTES)) && (body != NULL));
    require(ew_crc32c(body, count, 0u) == ew_get_u32(&body[count]));
    fuzz_reached++;
    bool known = forged;
    for (size_t i = 0u; i < sent_count; i++) {
        if ((sent[i].count == count) && (memcmp(sent[i].bytes, body, count) == 0)) {
            require(!sent[i].delivered);
            sent[i].delivered = true;
            known = true;
        }
    }
    require(known);
}

/* One transfer, its frames treated as the bytes of the program say. */
static void transfer(bool fd)
{
    static ew_can_frame_t frames[FRAMES_MAX];
    static uint8_t ids[EW_CAN_CLASSES];
    static const uint8_t types[] = {EW_MSG_HOLD, EW_MSG_HEARTBEAT, EW_MSG_HELLO_REQ, EW_MSG_CHUNK, EW_MSG_LIMITS_SET};
    if (sent_count == 0u) {
        memset(ids, 0, sizeof ids);
    }
    if (sent_count == SENT_MAX) {
        return;
    }
    sent_t *t = &sent[sent_count];
    t->count = 4u + (((size_t)byte() * 256u + byte()) % (EW_MAX_BODY_BYTES - EW_CRC_BYTES - 3u));
    t->delivered = false;
    memset(t->bytes, byte(), sizeof t->bytes);
    t->bytes[0] = types[byte() % sizeof types];
    ew_put_u16(&t->bytes[2], (uint16_t)sent_count); /* the sequence number: no two are alike */
    sent_count++;
    ew_put_u32(&t->bytes[t->count], ew_crc32c(t->bytes, t->count, 0u));
    ew_can_sender_t sender = {.ring = t->bytes, .size = 1u << 16, .left = (uint16_t)(t->count + EW_CRC_BYTES)};
    const uint8_t class = ew_can_class(t->bytes[0]);
    ew_can_sender_start(&sender, ew_can_id(t->bytes[0], 1u, false), ids[class] & 31u, fd);
    ids[class]++;
    size_t count = 0u;
    while ((count < FRAMES_MAX) && ew_can_sender_next(&sender, &frames[count])) {
        require(frames[count].count <= (fd ? EW_CAN_FRAME_BYTES : EW_CAN_CLASSIC_BYTES));
        count++;
    }
    require(!ew_can_sender_next(&sender, &frames[0]));
    const bool harm = (byte() & 1u) != 0u;
    for (size_t i = 0u; i < count; i++) {
        const uint8_t what = harm ? byte() : 255u;
        switch (what % 16u) {
        case 0u: break;                                               /* lost */
        case 1u: take(&frames[i]); take(&frames[i]); break;           /* twice */
        case 2u: if ((i + 1u) < count) { take(&frames[i + 1u]); } take(&frames[i]); break;
        case 3u: frames[i].data[what % frames[i].count] ^= 1u; take(&frames[i]); break;
        case 4u: now_us += 150000; ew_can_rx_expire(&rx, now_us); take(&frames[i]); break;
        case 5u: ew_can_rx_reset(&rx); take(&frames[i]); break;
        case 6u: i = what % count; take(&frames[i]); break;           /* back, or on */
        default: take(&frames[i]); break;
        }
        now_us += 100;
    }
    require(harm || t->delivered);
}

static void any_frame(void)
{
    ew_can_frame_t frame = {0};
    const uint8_t how = byte();
    frame.id = (uint16_t)(((uint16_t)byte() * 256u + byte()) & 0x7FFu);
    frame.fd = (how & 1u) != 0u;
    frame.remote = (how & 2u) != 0u;
    frame.count = byte() % (frame.fd ? 65u : 9u);
    for (uint8_t i = 0u; i < frame.count; i++) {
        frame.data[i] = byte();
    }
    forged = true;
    take(&frame);
}

static void line(void)
{
    static slcan_t slcan;
    uint8_t text[SLCAN_LINE_BYTES + 1u];
    ew_can_frame_t frame;
    memset(&slcan, 0, sizeof slcan);
    slcan.open = true;
    size_t typed = 0u; /* characters since the last end of a line */
    for (size_t left = byte(); left > 0u; left--) {
        const uint8_t character = byte();
        typed += ((character != '\r') && (character != '\n')) ? 1u : 0u;
        if (slcan_push(&slcan, character, &frame)) {
            const size_t length = slcan_format(&frame, text);
            require((length == (typed + 1u)) && (length <= sizeof text));
            require((frame.count <= EW_CAN_FRAME_BYTES) && (frame.id <= 0x7FFu));
            slcan_t again = {.open = true};
            ew_can_frame_t same = {0};
            bool whole = false;
            for (size_t i = 0u; i < length; i++) {
                require(!whole);
                whole = slcan_push(&again, text[i], &same);
            }
            require(whole && (same.id == frame.id) && (same.count == frame.count) && (same.remote == frame.remote));
            require((same.fd == frame.fd) && (frame.remote || (memcmp(same.data, frame.data, frame.count) == 0)));
            forged = true;
            take(&frame);
        }
        typed = (character == '\r') ? 0u : typed;
        require((slcan.count <= SLCAN_LINE_BYTES) && (slcan.reply_count <= SLCAN_REPLY_BYTES));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    at = data;
    end = data + size;
    memset(&rx, 0, sizeof rx);
    sent_count = 0u;
    now_us = 1000000;
    forged = false;
    while (at < end) {
        switch (byte() % 8u) {
        case 0u: case 1u: case 2u: transfer(false); break;
        case 3u: case 4u: case 5u: transfer(true); break;
        case 6u: line(); break;
        default: any_frame(); break;
        }
    }
    return 0;
}
