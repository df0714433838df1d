#include "slcan_hal.h"

#include "slcan.h"

#define TX_BURST 16u  /* bytes a call: an emulated UART takes everything at once, and the loop must not be held up */
#define RX_BURST 512u /* bytes a call: 3 FD frames */
#define OUT_BYTES (SLCAN_LINE_BYTES + 1u + SLCAN_REPLY_BYTES)

typedef struct {
    slcan_t slcan;
    bool started;
    uint8_t out[OUT_BYTES];
    uint32_t count;
    uint32_t sent;
} bus_t;

static bus_t buses[CAN_HAL_BUSES];

/* The adapter that this stands for is a device of its own: its channel stays open when the MCU is reset. */
__attribute__((section(".noinit"))) static uint32_t was_open[CAN_HAL_BUSES];
#define WAS_OPEN 0x534C4341u

bool can_hal_start(uint32_t bus, const can_hal_config_t *config)
{
    (void)config; /* there is no bus whose bits could have a rate, and filtering is the core's in any case */
    buses[bus].started = true;
    buses[bus].slcan.open = was_open[bus] == WAS_OPEN;
    return true;
}

bool can_hal_receive(uint32_t bus, ew_can_frame_t *frame, uint64_t *stamp_us)
{
    bool complete = false;
    for (uint32_t i = 0u; (i < RX_BURST) && !complete && buses[bus].started; i++) {
        const int32_t byte = slcan_port_receive(bus, stamp_us);
        if (byte < 0) {
            break;
        }
        complete = slcan_push(&buses[bus].slcan, (uint8_t)byte, frame);
    }
    was_open[bus] = buses[bus].slcan.open ? WAS_OPEN : 0u;
    return complete;
}

bool can_hal_send(uint32_t bus, const ew_can_frame_t *frame)
{
    bus_t *b = &buses[bus];
    if (!b->slcan.open) {
        return true; /* nobody has opened the channel: the frame is lost, as on a bus without listeners */
    }
    if (b->sent != b->count) {
        return false;
    }
    b->count = slcan_format(frame, b->out);
    b->sent = 0u;
    return true;
}

bool can_hal_service(uint32_t bus)
{
    bus_t *b = &buses[bus];
    if ((b->sent == b->count) && (b->slcan.reply_count > 0u)) {
        for (uint32_t i = 0u; i < b->slcan.reply_count; i++) {
            b->out[i] = b->slcan.reply[i];
        }
        b->count = b->slcan.reply_count;
        b->sent = 0u;
        b->slcan.reply_count = 0u;
    }
    for (uint32_t i = 0u; (i < TX_BURST) && (b->sent < b->count) && slcan_port_send(bus, b->out[b->sent]); i++) {
        b->sent++;
    }
    return b->sent < b->count;
}

void can_hal_flush(uint32_t bus)
{
    bus_t *b = &buses[bus];
    /* A line that has begun is ended where it is: the other end refuses it and takes the next one. */
    b->count = ((b->sent > 0u) && (b->sent < b->count)) ? 1u : 0u;
    b->out[0] = SLCAN_END;
    b->sent = 0u;
}

void can_hal_status(uint32_t bus, can_hal_status_t *status)
{
    status->errors = buses[bus].slcan.errors;
    status->overruns = 0u; /* the UART's ring counts its own */
    status->bus_offs = 0u;
    status->bus_off = false;
}
