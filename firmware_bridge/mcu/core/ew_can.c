#include "ew_can.h"

#include "ew_frame.h"

#define TAIL_START 0x80u
#define TAIL_END 0x40u
#define TAIL_TOGGLE 0x20u
#define TAIL_TRANSFER 0x1Fu

uint16_t ew_can_id(uint8_t type, uint8_t node, bool to_host)
{
    const uint8_t class = ew_can_class(type);
    if (class == EW_CAN_CLASS_ESTOP) {
        return EW_CAN_ID_ESTOP;
    }
    return (uint16_t)(((uint32_t)class << 8) | (to_host ? EW_CAN_TO_HOST : 0u) |
                      (((uint32_t)node & EW_CAN_NODE_MAX) << 4) | ((uint32_t)type & 0xFu));
}

uint8_t ew_can_fd_length(uint8_t count)
{
    static const uint8_t lengths[] = {EW_CAN_FD_LENGTHS};
    uint8_t code = 0u;
    while ((code < (sizeof(lengths) - 1u)) && (lengths[code] < count)) {
        code++;
    }
    return lengths[code];
}

/* ---- receiving ---- */

void ew_can_rx_reset(ew_can_rx_t *rx)
{
    for (uint8_t class = 0u; class < EW_CAN_CLASSES; class++) {
        if (rx->slot[class].open) {
            rx->slot[class].open = false;
            rx->bad++;
        }
    }
}

void ew_can_rx_expire(ew_can_rx_t *rx, int64_t now_us)
{
    for (uint8_t class = 0u; class < EW_CAN_CLASSES; class++) {
        ew_can_slot_t *slot = &rx->slot[class];
        if (slot->open && ((now_us - slot->frame_us) > EW_CAN_FRAME_TIMEOUT_US)) {
            slot->open = false;
            rx->bad++;
        }
    }
}

/* The transfer's share of a frame: without tail, and at the end of an FD transfer without padding. False: malformed. */
static bool share(const ew_can_frame_t *frame, uint8_t tail, uint8_t *count)
{
    const uint8_t full = frame->fd ? EW_CAN_FRAME_BYTES : EW_CAN_CLASSIC_BYTES;
    uint8_t bytes = (uint8_t)(frame->count - 1u);
    bool good = true;
    if ((tail & TAIL_END) == 0u) {
        good = frame->count == full; /* only the last one may be short */
    } else if (frame->fd) {
        const uint8_t padding = (bytes > 0u) ? frame->data[bytes - 1u] : UINT8_MAX;
        good = (padding <= EW_CAN_PADDING_MAX) && (((uint32_t)padding + 1u) <= bytes);
        if (good) {
            bytes = (uint8_t)(bytes - 1u - padding);
            for (uint8_t i = 0u; i < padding; i++) {
                good = good && (frame->data[bytes + i] == 0u);
            }
        }
    } else {
        /* a classic frame has every length */
    }
    *count = bytes;
    return good;
}

static bool repeats_last(const ew_can_slot_t *slot, const ew_can_frame_t *frame, uint8_t count)
{
    bool same = count == slot->last; /* which is part of what the slot holds */
    for (uint8_t i = 0u; same && (i < count); i++) {
        same = slot->bytes[slot->count - count + i] == frame->data[i];
    }
    return same;
}

/* One more transfer that will not be delivered: counted once, however many frames of it still come. */
static size_t drop(ew_can_rx_t *rx, ew_can_slot_t *slot, uint8_t transfer)
{
    if (slot->open) {
        slot->open = false;
        rx->bad++;
        if (slot->transfer == transfer) {
            return 0u;
        }
    }
    if (!slot->seen_known || (slot->seen != transfer)) {
        rx->bad++;
        slot->seen_known = true;
        slot->seen = transfer;
    }
    return 0u;
}

static void begin(ew_can_rx_t *rx, ew_can_slot_t *slot, const ew_can_frame_t *frame, uint8_t transfer)
{
    if (slot->open) {
        rx->bad++; /* its end never came */
    }
    if (slot->seen_known && (slot->seen != transfer)) {
        rx->missed += (uint32_t)(transfer - slot->seen - 1u) & TAIL_TRANSFER;
    }
    slot->seen_known = true;
    slot->seen = transfer;
    slot->open = true;
    slot->fd = frame->fd;
    slot->frame_id = frame->id;
    slot->transfer = transfer;
    slot->toggle = TAIL_TOGGLE;
    slot->count = 0u;
    slot->last = 0u;
}

static size_t finish(ew_can_rx_t *rx, ew_can_slot_t *slot)
{
    slot->open = false;
    const size_t body = (slot->count > EW_CRC_BYTES) ? ((size_t)slot->count - EW_CRC_BYTES) : 0u;
    const uint32_t crc = (body > 0u) ? ew_get_u32(&slot->bytes[body]) : 0u;
    if ((body == 0u) || (crc != ew_crc32c(slot->bytes, body, 0u)) ||
        ((ew_can_id(slot->bytes[0], 0u, false) & 0x70Fu) != (slot->frame_id & 0x70Fu))) {
        rx->bad++;
        return 0u;
    }
    const uint32_t bit = 1uL << slot->transfer;
    if (((slot->done_mask & bit) != 0u) && (slot->done_crc[slot->transfer] == crc)) {
        rx->duplicates++; /* the sequence number is under the CRC: no two messages are alike */
        return 0u;
    }
    slot->done_mask |= bit;
    slot->done = slot->transfer;
    slot->done_crc[slot->transfer] = crc;
    rx->transfers++;
    return body;
}

size_t ew_can_receive(ew_can_rx_t *rx, const ew_can_frame_t *frame, int64_t stamp_us, const uint8_t **body)
{
    const uint8_t class = (uint8_t)((frame->id >> 8) & 7u);
    if ((class == EW_CAN_CLASS_ESTOP) || (class >= EW_CAN_CLASSES) || frame->remote || (frame->count == 0u) ||
        (frame->count > (frame->fd ? EW_CAN_FRAME_BYTES : EW_CAN_CLASSIC_BYTES))) {
        rx->bad++;
        return 0u;
    }
    ew_can_slot_t *slot = &rx->slot[class];
    const uint8_t tail = frame->data[frame->count - 1u];
    const uint8_t transfer = tail & TAIL_TRANSFER;
    const bool start = (tail & TAIL_START) != 0u;
    uint8_t count = 0u;
    *body = slot->bytes;
    if (!share(frame, tail, &count)) {
        return drop(rx, slot, transfer);
    }
    const bool of_open = slot->open && (slot->transfer == transfer) && (slot->frame_id == frame->id) &&
                         (slot->fd == frame->fd);
    const bool toggles = (tail & TAIL_TOGGLE) == slot->toggle;
    const bool one_so_far = slot->count == slot->last;
    if (of_open && !toggles && repeats_last(slot, frame, count) && (start == one_so_far)) {
        rx->duplicates++;
        return 0u;
    }
    if (start) {
        if ((tail & TAIL_TOGGLE) == 0u) {
            return drop(rx, slot, transfer);
        }
        begin(rx, slot, frame, transfer);
    } else if (!slot->open && (slot->done_mask != 0u) && (slot->done == transfer) && (slot->seen == transfer)) {
        rx->duplicates++; /* the end of what has just been delivered */
        return 0u;
    } else if (!of_open || !toggles) {
        return drop(rx, slot, transfer);
    } else {
        /* the next one */
    }
    if (((uint32_t)slot->count + count) > EW_MAX_BODY_BYTES) {
        return drop(rx, slot, transfer);
    }
    for (uint8_t i = 0u; i < count; i++) {
        slot->bytes[slot->count + i] = frame->data[i];
    }
    slot->count = (uint16_t)(slot->count + count);
    slot->last = count;
    slot->toggle ^= TAIL_TOGGLE;
    slot->frame_us = stamp_us;
    return ((tail & TAIL_END) != 0u) ? finish(rx, slot) : 0u;
}

/* ---- sending ---- */

void ew_can_sender_start(ew_can_sender_t *sender, uint16_t frame_id, uint8_t transfer, bool fd)
{
    sender->frame_id = frame_id;
    sender->transfer = transfer;
    sender->fd = fd;
    sender->toggle = TAIL_TOGGLE;
    sender->started = false;
    sender->over = false;
}

bool ew_can_sender_next(ew_can_sender_t *sender, ew_can_frame_t *frame)
{
    if (sender->over) {
        return false;
    }
    const uint8_t room = sender->fd ? (EW_CAN_FRAME_BYTES - 1u) : (EW_CAN_CLASSIC_BYTES - 1u);
    const uint8_t trailer = sender->fd ? 1u : 0u; /* the number of zeros, in the last frame only */
    const bool end = ((uint32_t)sender->left + trailer) <= room;
    const uint8_t count = (sender->left < room) ? (uint8_t)sender->left : room;
    for (uint8_t i = 0u; i < count; i++) {
        frame->data[i] = sender->ring[(sender->from + i) % sender->size];
    }
    uint8_t at = count;
    if (end && sender->fd) {
        const uint8_t length = ew_can_fd_length((uint8_t)(count + 2u));
        const uint8_t padding = (uint8_t)(length - count - 2u);
        for (; at < (uint8_t)(count + padding); at++) {
            frame->data[at] = 0u;
        }
        frame->data[at] = padding;
        at++;
    }
    frame->data[at] = (uint8_t)((sender->started ? 0u : TAIL_START) | (end ? TAIL_END : 0u) | sender->toggle |
                                (sender->transfer & TAIL_TRANSFER));
    frame->id = sender->frame_id;
    frame->count = (uint8_t)(at + 1u);
    frame->fd = sender->fd;
    frame->remote = false;
    sender->started = true;
    sender->toggle ^= TAIL_TOGGLE;
    sender->from += count;
    sender->left = (uint16_t)(sender->left - count);
    sender->over = end;
    return true;
}
