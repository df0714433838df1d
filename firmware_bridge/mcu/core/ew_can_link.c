/* The host link over CAN: whole transfers in, bodies out frame by frame, highest class first. */
#include "ew_core.h"

#define ENTRY_BYTES 3u

static uint32_t queue_free(const ew_can_queue_t *queue)
{
    return EW_CAN_QUEUE_BYTES - (queue->head - queue->tail);
}

static void put(ew_can_queue_t *queue, uint8_t byte)
{
    queue->bytes[queue->head % EW_CAN_QUEUE_BYTES] = byte;
    queue->head++;
}

bool ew_can_room(const ew_t *ew, uint8_t type, size_t body)
{
    const ew_can_queue_t *queue = &ew->can.queue[ew_can_class(type)];
    /* A STATE that waits would be older than the one that is made now: one at a time, at the rate that the bus carries. */
    return (type == EW_MSG_STATE) ? (queue->head == queue->tail) : (queue_free(queue) >= (ENTRY_BYTES + body + EW_CRC_BYTES));
}

/* body has room for its CRC behind it. */
bool ew_can_send(ew_t *ew, uint8_t *body, size_t count)
{
    const uint8_t type = body[0];
    ew_can_queue_t *queue = &ew->can.queue[ew_can_class(type)];
    const size_t whole = count + EW_CRC_BYTES;
    if (ew->can.bus_off || (queue_free(queue) < (ENTRY_BYTES + whole))) {
        return false;
    }
    ew_put_u32(&body[count], ew_crc32c(body, count, 0u));
    put(queue, (uint8_t)(whole & 0xFFu));
    put(queue, (uint8_t)(whole >> 8));
    put(queue, type);
    for (size_t i = 0u; i < whole; i++) {
        put(queue, body[i]);
    }
    return true;
}

static uint8_t peek(const ew_can_queue_t *queue, uint32_t at)
{
    return queue->bytes[(queue->tail + at) % EW_CAN_QUEUE_BYTES];
}

/* Makes the next frame of a class; false: nothing waits there. */
static bool next_of(ew_t *ew, ew_can_queue_t *queue)
{
    if (!queue->sending) {
        if (queue->head == queue->tail) {
            return false;
        }
        ew_can_sender_t *sender = &queue->sender;
        sender->ring = queue->bytes;
        sender->size = EW_CAN_QUEUE_BYTES;
        sender->from = queue->tail + ENTRY_BYTES;
        sender->left = (uint16_t)(peek(queue, 0u) | ((uint32_t)peek(queue, 1u) << 8));
        ew_can_sender_start(sender, ew_can_id(peek(queue, 2u), ew->can.node, true), queue->transfer, ew->can.fd);
        queue->transfer = (uint8_t)((queue->transfer + 1u) & 0x1Fu);
        queue->sending = true;
    }
    (void)ew_can_sender_next(&queue->sender, &ew->can.frame);
    if (queue->sender.over) {
        queue->tail = queue->sender.from;
        queue->sending = false;
    }
    return true;
}

bool ew_can_tx(ew_t *ew, ew_can_frame_t *frame)
{
    for (uint8_t class = 0u; (class < EW_CAN_CLASSES) && !ew->can.waiting; class++) {
        ew->can.waiting = next_of(ew, &ew->can.queue[class]);
    }
    if (ew->can.waiting) {
        *frame = ew->can.frame;
    }
    return ew->can.waiting;
}

void ew_can_tx_done(ew_t *ew)
{
    ew->can.waiting = false;
}

/* The emergency stop has no checksum to pass: the bus has checked the frame, and whatever it carries, it means stop. What is
 * of the right shape gives the number that the answer repeats. */
static void on_estop_frame(ew_t *ew, const ew_can_frame_t *frame, int64_t stamp_us, int64_t now_us)
{
    uint8_t body[EW_HEADER_BYTES] = {EW_MSG_ESTOP, 0u, 0u, 0u, 0u, 0u};
    if ((frame->count >= EW_HEADER_BYTES) && (frame->data[0] == EW_MSG_ESTOP)) {
        body[2] = frame->data[2];
        body[3] = frame->data[3];
    }
    ew->from = EW_VIA_CAN;
    ew_handle(ew, body, sizeof body, stamp_us, now_us);
}

void ew_can_rx(ew_t *ew, const ew_can_frame_t *frame, uint64_t stamp_us, uint64_t now_us)
{
    if (ew->can.node == 0u) {
        return;
    }
    if (frame->id == EW_CAN_ID_ESTOP) {
        on_estop_frame(ew, frame, (int64_t)stamp_us, (int64_t)now_us);
    } else if ((frame->id & 0x0F0u) == ((uint32_t)ew->can.node << 4)) {
        const uint8_t *body = NULL;
        const uint32_t missed = ew->can.rx.missed;
        const size_t count = ew_can_receive(&ew->can.rx, frame, (int64_t)stamp_us, &body);
        ew->stats.rx_gaps += ew->can.rx.missed - missed;
        if (count > 0u) {
            ew->can.fd = frame->fd;
            ew->from = EW_VIA_CAN;
            ew_handle(ew, body, count, (int64_t)stamp_us, (int64_t)now_us);
        }
    } else {
        /* another node's */
    }
}

void ew_can_status(ew_t *ew, uint32_t errors, uint32_t bus_offs, bool bus_off)
{
    ew->stats.can_errors = errors;
    ew->stats.can_bus_off = bus_offs;
    if (bus_off && !ew->can.bus_off) {
        ew_can_rx_reset(&ew->can.rx);
        for (uint8_t class = 0u; class < EW_CAN_CLASSES; class++) {
            ew_can_queue_t *queue = &ew->can.queue[class];
            if (queue->head != queue->tail) {
                ew->stats.tx_dropped++; /* old by the time that the bus is back */
            }
            queue->tail = queue->head;
            queue->sending = false;
        }
        ew->can.waiting = false;
    }
    ew->can.bus_off = bus_off;
}

void ew_can_start(ew_t *ew, uint8_t node, uint64_t now_us)
{
    ew->can.node = node & EW_CAN_NODE_MAX;
    if (ew->can.node != 0u) {
        const uint8_t before = ew->via;
        ew->via = EW_VIA_CAN;
        ew_send_hello(ew, 0u, (int64_t)now_us);
        ew->via = before | EW_VIA_CAN;
    }
}

/* One host at a time, on one transport: the one that asked HELLO last while the drive was off. Until somebody asks, every
 * transport is told, and none is preferred. */
bool ew_accepts(ew_t *ew, uint8_t type)
{
    if ((type == EW_MSG_HELLO_REQ) && !ew->drive_on) {
        ew->via = ew->from;
    }
    return (type == EW_MSG_ESTOP) || ((ew->via & ew->from) != 0u);
}
