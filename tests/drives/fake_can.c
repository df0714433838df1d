/* A CAN controller for tests of can_loop.c: a queue of some frames that leave when the test lets them, and a ring of frames that
 * came. Bus 1, of the motor drives, only; the link's is never there. */
#include "can_hal.h"

#define PLACES 64u

typedef struct {
    ew_can_frame_t frame[PLACES];
    uint32_t head;
    uint32_t tail;
} queue_t;

static queue_t waiting;
static queue_t arrived;
static uint32_t room;

void fake_can_room(uint32_t frames);
uint8_t fake_can_take(uint16_t *id, uint8_t *data);
void fake_can_give(uint16_t id, const uint8_t *data, uint8_t count);

void fake_can_room(uint32_t frames)
{
    room = frames;
}

uint8_t fake_can_take(uint16_t *id, uint8_t *data)
{
    if (waiting.tail == waiting.head) {
        return 0u;
    }
    const ew_can_frame_t *frame = &waiting.frame[waiting.tail % PLACES];
    *id = frame->id;
    for (uint32_t i = 0u; i < EW_CAN_CLASSIC_BYTES; i++) {
        data[i] = frame->data[i];
    }
    waiting.tail++;
    return 1u;
}

void fake_can_give(uint16_t id, const uint8_t *data, uint8_t count)
{
    ew_can_frame_t *frame = &arrived.frame[arrived.head % PLACES];
    const ew_can_frame_t empty = {.id = id, .count = count};
    *frame = empty;
    for (uint32_t i = 0u; i < count; i++) {
        frame->data[i] = data[i];
    }
    arrived.head++;
}

bool can_hal_start(uint32_t bus, const can_hal_config_t *config)
{
    (void)config;
    return bus == CAN_HAL_DRIVE;
}

bool can_hal_receive(uint32_t bus, ew_can_frame_t *frame, uint64_t *stamp_us)
{
    (void)bus;
    (void)stamp_us; /* the caller's time is good enough */
    if (arrived.tail == arrived.head) {
        return false;
    }
    *frame = arrived.frame[arrived.tail % PLACES];
    arrived.tail++;
    return true;
}

bool can_hal_send(uint32_t bus, const ew_can_frame_t *frame)
{
    (void)bus;
    if ((waiting.head - waiting.tail) >= room) {
        return false;
    }
    waiting.frame[waiting.head % PLACES] = *frame;
    waiting.head++;
    return true;
}

void can_hal_flush(uint32_t bus)
{
    (void)bus;
    waiting.tail = waiting.head;
}

bool can_hal_service(uint32_t bus)
{
    (void)bus;
    return false;
}

void can_hal_status(uint32_t bus, can_hal_status_t *status)
{
    const can_hal_status_t well = {.errors = 0u};
    (void)bus;
    *status = well;
}
