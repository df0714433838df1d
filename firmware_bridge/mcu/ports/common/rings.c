#include "rings.h"

#include "board.h"
#include "cortex.h"

#define RING_BYTES 2048u /* two of the longest frames: 22 ms at 921600 baud */
#define STAMPS 32u

typedef struct {
    uint32_t at; /* position in the ring */
    uint64_t us;
} stamp_t;

typedef struct {
    uint8_t bytes[RING_BYTES];
    volatile uint32_t head; /* the interrupt writes */
    volatile uint32_t tail; /* the main loop reads */
    stamp_t stamps[STAMPS];
    volatile uint32_t stamp_head;
    volatile uint32_t stamp_tail;
    volatile uint32_t overruns; /* a ring's own: interrupts of several priorities count */
} ring_t;

static ring_t rings[BOARD_STREAMS];

void ring_overrun(uint32_t stream)
{
    rings[stream].overruns++;
}

/* What ends a frame: a zero, on slcan the end of a line. */
static uint8_t delimiter_of(uint32_t stream)
{
    return (stream > BOARD_DRIVE) ? 13u : 0u;
}

/* A frame ends at this position, now. */
static void stamp(ring_t *ring, uint32_t at)
{
    if ((ring->stamp_head - ring->stamp_tail) < STAMPS) {
        ring->stamps[ring->stamp_head % STAMPS].at = at;
        ring->stamps[ring->stamp_head % STAMPS].us = board_now_us();
        ring->stamp_head++;
    }
}

void ring_put(uint32_t stream, uint8_t byte)
{
    ring_t *ring = &rings[stream];
    if ((ring->head - ring->tail) == RING_BYTES) {
        ring->overruns++;
        return;
    }
    ring->bytes[ring->head % RING_BYTES] = byte;
    if (byte == delimiter_of(stream)) {
        stamp(ring, ring->head);
    }
    ring->head++;
}

void ring_write(uint32_t stream, const uint8_t *bytes, uint32_t count)
{
    ring_t *ring = &rings[stream];
    const uint8_t delimiter = delimiter_of(stream);
    const uint32_t first = ring->head;
    const uint32_t room = RING_BYTES - (first - ring->tail);
    const uint32_t taken = (count < room) ? count : room;
    for (uint32_t i = 0u; i < taken; i++) {
        ring->bytes[(first + i) % RING_BYTES] = bytes[i];
        if (bytes[i] == delimiter) {
            stamp(ring, first + i);
        }
    }
    ring->head = first + taken;
    ring->overruns += count - taken;
}

uint32_t ring_room(uint32_t stream)
{
    const ring_t *ring = &rings[stream];
    return RING_BYTES - (ring->head - ring->tail);
}

int32_t ring_get(uint32_t stream, uint64_t *stamp_us)
{
    ring_t *ring = &rings[stream];
    if (ring->tail == ring->head) {
        return -1;
    }
    const uint32_t at = ring->tail;
    const uint8_t byte = ring->bytes[at % RING_BYTES];
    if (byte == delimiter_of(stream)) {
        *stamp_us = board_now_us(); /* if its stamp found no room */
        if ((ring->stamp_tail != ring->stamp_head) && (ring->stamps[ring->stamp_tail % STAMPS].at == at)) {
            *stamp_us = ring->stamps[ring->stamp_tail % STAMPS].us;
            ring->stamp_tail++;
        }
    }
    ring->tail = at + 1u;
    return (int32_t)byte;
}

bool rings_empty(void)
{
    bool empty = true;
    for (uint32_t stream = 0u; stream < BOARD_STREAMS; stream++) {
        empty = empty && (rings[stream].tail == rings[stream].head);
    }
    return empty;
}

uint32_t rings_overruns(void)
{
    uint32_t sum = 0u;
    for (uint32_t stream = 0u; stream < BOARD_STREAMS; stream++) {
        sum += rings[stream].overruns;
    }
    return sum;
}

void rings_sleep(void)
{
    /* With interrupts masked a byte that arrives after the look still ends the WFI. */
    const uint32_t mask = irq_off();
    if (rings_empty()) {
        irq_wait();
    }
    irq_restore(mask);
}
