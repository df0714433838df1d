/* libedgewam_mcu.so, the CAN side: frames of one MCU, and segmentation and reassembly alone, for comparison. */
#include "lib_can.h"

#include "lib_mcu.h"

#include <stdlib.h>
#include <string.h>

struct ewl_reassembler {
    ew_can_rx_t rx;
};

static bool fill(ew_can_frame_t *frame, uint16_t id, const uint8_t *data, uint8_t count, uint8_t flags)
{
    if (count > EW_CAN_FRAME_BYTES) {
        return false;
    }
    memset(frame, 0, sizeof *frame);
    frame->id = id;
    frame->count = count;
    frame->fd = (flags & EWL_CAN_FD) != 0u;
    frame->remote = (flags & EWL_CAN_REMOTE) != 0u;
    if (count > 0u) {
        memcpy(frame->data, data, count);
    }
    return true;
}

static int32_t give(const ew_can_frame_t *frame, uint16_t *id, uint8_t *data, uint8_t *flags)
{
    *id = frame->id;
    *flags = frame->fd ? EWL_CAN_FD : 0u;
    memcpy(data, frame->data, frame->count);
    return (int32_t)frame->count;
}

static void counters_of(const ew_can_rx_t *rx, uint32_t *counters)
{
    counters[0] = rx->transfers;
    counters[1] = rx->bad;
    counters[2] = rx->missed;
    counters[3] = rx->duplicates;
}

void ewl_can_start(ewl_t *mcu, uint8_t node, uint64_t now_us)
{
    ew_can_start(&mcu->core, node, now_us);
}

void ewl_can_rx(ewl_t *mcu, uint16_t id, const uint8_t *data, uint8_t count, uint8_t flags, uint64_t now_us)
{
    ew_can_frame_t frame;
    if (fill(&frame, id, data, count, flags)) {
        ew_can_rx(&mcu->core, &frame, now_us, now_us);
        ewl_finish_work(mcu, now_us);
    }
}

int32_t ewl_can_tx(ewl_t *mcu, uint16_t *id, uint8_t *data, uint8_t *flags)
{
    ew_can_frame_t frame;
    if (!ew_can_tx(&mcu->core, &frame)) {
        return -1;
    }
    ew_can_tx_done(&mcu->core);
    return give(&frame, id, data, flags);
}

void ewl_can_status(ewl_t *mcu, uint32_t errors, uint32_t bus_offs, uint8_t bus_off)
{
    ew_can_status(&mcu->core, errors, bus_offs, bus_off != 0u);
}

void ewl_can_counters(const ewl_t *mcu, uint32_t *counters)
{
    counters_of(&mcu->core.can.rx, counters);
}

ewl_reassembler_t *ewl_reassembler_create(void)
{
    return calloc(1u, sizeof(ewl_reassembler_t));
}

void ewl_reassembler_destroy(ewl_reassembler_t *reassembler)
{
    free(reassembler);
}

uint32_t ewl_reassembler_feed(ewl_reassembler_t *reassembler, uint16_t id, const uint8_t *data, uint8_t count,
                              uint8_t flags, uint64_t now_us, uint8_t *body)
{
    ew_can_frame_t frame;
    const uint8_t *found = NULL;
    if (!fill(&frame, id, data, count, flags)) {
        return 0u;
    }
    ew_can_rx_expire(&reassembler->rx, (int64_t)now_us);
    const size_t length = ew_can_receive(&reassembler->rx, &frame, (int64_t)now_us, &found);
    if (length > 0u) {
        memcpy(body, found, length);
    }
    return (uint32_t)length;
}

void ewl_reassembler_counters(const ewl_reassembler_t *reassembler, uint32_t *counters)
{
    counters_of(&reassembler->rx, counters);
}

uint32_t ewl_can_segment(const uint8_t *transfer, uint16_t count, uint8_t type, uint8_t node, uint8_t to_host,
                         uint8_t transfer_id, uint8_t fd, uint16_t *id, uint8_t *frames, uint8_t *counts)
{
    ew_can_sender_t sender = {.ring = transfer, .size = UINT32_MAX, .from = 0u, .left = count};
    ew_can_frame_t frame;
    uint32_t made = 0u;
    *id = ew_can_id(type, node, to_host != 0u);
    ew_can_sender_start(&sender, *id, transfer_id, fd != 0u);
    while (ew_can_sender_next(&sender, &frame)) {
        memcpy(&frames[(size_t)made * EW_CAN_FRAME_BYTES], frame.data, frame.count);
        counts[made] = frame.count;
        made++;
    }
    return made;
}
