#include "fdcan.h"

#include "board.h"
#include "can_hal.h"
#include "clock.h"
#include "handlers.h"
#include "reg.h"
#include "stm32g474.h"

#define INSTANCES 2u
#define RING 16u /* received frames: 5 ms of back-to-back classic ones, three chunks over FD */
#define LOOKS 100000u
#define NOMINAL_SAMPLE 800u /* thousandths of a bit: what CiA 601-3 gives for 1 Mbit/s */
#define DATA_SAMPLE 735u    /* 25 of 34 quanta at 5 Mbit/s */

/* The shipped rates are exact, and their sum fits the registers. */
_Static_assert((CLOCK_HZ % 1000000u) == 0u, "1 Mbit/s");
_Static_assert((CLOCK_HZ % 5000000u) == 0u, "5 Mbit/s");
_Static_assert((CLOCK_HZ / 1000000u) <= (1u + 256u + 128u), "1 Mbit/s with prescaler 1");
_Static_assert((CLOCK_HZ / 5000000u) <= (1u + 32u + 16u), "5 Mbit/s with prescaler 1");

const fdcan_range_t fdcan_nominal_range = {512u, 256u, 128u, 128u};
const fdcan_range_t fdcan_data_range = {32u, 32u, 16u, 16u};

typedef struct {
    ew_can_frame_t frame;
    uint64_t us;
} received_t;

typedef struct {
    received_t ring[RING];
    volatile uint32_t head; /* the interrupt writes */
    volatile uint32_t tail; /* the main loop reads */
    volatile uint32_t overruns;
    volatile uint32_t errors;
    volatile uint32_t bus_offs;
    bool fd;
} bus_t;

static bus_t buses[INSTANCES];
static uint32_t allowed;

void fdcan_allow(uint32_t mask)
{
    allowed = mask;
}

bool fdcan_timing(uint32_t clock_hz, uint32_t rate_hz, uint32_t sample, const fdcan_range_t *range, fdcan_timing_t *timing)
{
    const uint32_t most = 1u + range->segment1_max + range->segment2_max;
    for (uint32_t prescaler = 1u; (rate_hz != 0u) && (prescaler <= range->prescaler_max); prescaler++) {
        const uint64_t step = (uint64_t)prescaler * rate_hz;
        const uint32_t quanta = (uint32_t)(clock_hz / step);
        if (((clock_hz % step) != 0u) || (quanta > most) || (quanta < 5u)) {
            continue;
        }
        const uint32_t before = ((quanta * sample) + 500u) / 1000u; /* sync segment and segment 1 */
        if ((before < 2u) || (before > (1u + range->segment1_max)) || (before >= quanta) ||
            ((quanta - before) > range->segment2_max)) {
            continue; /* the sample point would have to move: a larger prescaler may do better */
        }
        timing->prescaler = prescaler;
        timing->segment1 = before - 1u;
        timing->segment2 = quanta - before;
        timing->jump = (timing->segment2 < range->jump_max) ? timing->segment2 : range->jump_max;
        return true;
    }
    return false;
}

/* RM0440 44.4.7 and 44.4.3. */
uint32_t fdcan_nbtp(const fdcan_timing_t *t)
{
    return ((t->jump - 1u) << 25) | ((t->prescaler - 1u) << 16) | ((t->segment1 - 1u) << 8) | (t->segment2 - 1u);
}

uint32_t fdcan_dbtp(const fdcan_timing_t *t)
{
    const uint32_t compensate = (t->prescaler <= 2u) ? (1u << 23) : 0u;
    return compensate | ((t->prescaler - 1u) << 16) | ((t->segment1 - 1u) << 8) | ((t->segment2 - 1u) << 4) | (t->jump - 1u);
}

static uint8_t length_of(uint32_t code)
{
    static const uint8_t lengths[] = {EW_CAN_FD_LENGTHS};
    return lengths[code & 15u];
}

static uint32_t code_of(uint8_t length)
{
    uint32_t code = 0u;
    while ((code < 15u) && (length_of(code) < length)) {
        code++;
    }
    return code;
}

/* Two filters, classic id and mask, into FIFO 0; everything else, remote and extended frames included, stays outside. A remote
 * frame with the id of the emergency stop is the exception: remote frames are filtered like others. */
static void set_filters(uint32_t bus, const can_hal_config_t *config)
{
    for (uint32_t i = 0u; i < 2u; i++) {
        const uint32_t element = (2u << 30) | (1u << 27) | ((uint32_t)config->match[i] << 16) | config->mask[i];
        reg_put(FDCAN_RAM(bus) + FDCAN_RAM_FILTERS + (4u * i), element);
    }
    reg_put(FDCAN(bus) + FDCAN_RXGFC, (2u << 16) | (3u << 4) | (3u << 2) | 1u);
}

static bool make_timing(uint32_t bus, const can_hal_config_t *config)
{
    fdcan_timing_t nominal;
    fdcan_timing_t data;
    if (!fdcan_timing(CLOCK_HZ, config->bitrate, NOMINAL_SAMPLE, &fdcan_nominal_range, &nominal)) {
        return false;
    }
    reg_put(FDCAN(bus) + FDCAN_NBTP, fdcan_nbtp(&nominal));
    buses[bus].fd = config->data_bitrate != 0u;
    if (buses[bus].fd) {
        if (!fdcan_timing(CLOCK_HZ, config->data_bitrate, DATA_SAMPLE, &fdcan_data_range, &data)) {
            return false;
        }
        reg_put(FDCAN(bus) + FDCAN_DBTP, fdcan_dbtp(&data));
        /* The second sample point lies as far behind the measured loop delay as the first behind the edge. */
        reg_put(FDCAN(bus) + FDCAN_TDCR, ((1u + data.segment1) * data.prescaler) << 8);
        reg_set(FDCAN(bus) + FDCAN_CCCR, FDCAN_CCCR_FDOE | FDCAN_CCCR_BRSE);
    }
    return true;
}

bool can_hal_start(uint32_t bus, const can_hal_config_t *config)
{
    if (((allowed >> bus) & 1u) == 0u) {
        return false;
    }
    reg_field(RCC_CCIPR, RCC_CCIPR_FDCAN_SHIFT, 2u, 2u);
    reg_set(RCC_APB1ENR1, RCC_APB1ENR1_FDCAN);
    (void)reg_get(RCC_APB1ENR1);
    const uint32_t base = FDCAN(bus);
    reg_set(base + FDCAN_CCCR, FDCAN_CCCR_INIT);
    if (!reg_wait(base + FDCAN_CCCR, FDCAN_CCCR_INIT, FDCAN_CCCR_INIT, LOOKS)) {
        return false;
    }
    reg_set(base + FDCAN_CCCR, FDCAN_CCCR_CCE);
    reg_set(base + FDCAN_CCCR, FDCAN_CCCR_TXP); /* a pause between own frames: others get the bus */
    if (!make_timing(bus, config)) {
        return false;
    }
    set_filters(bus, config);
    reg_put(base + FDCAN_TXBC, 0u); /* FIFO: frames leave in the order they came */
    reg_put(base + FDCAN_ILS, 0u);
    reg_put(base + FDCAN_IR, 0xFFFFFFFFu);
    reg_put(base + FDCAN_IE, FDCAN_IR_RF0N | FDCAN_IR_RF0L | FDCAN_IR_BO | FDCAN_IR_PEA | FDCAN_IR_PED);
    reg_put(base + FDCAN_ILE, 1u);
    reg_clear(base + FDCAN_CCCR, FDCAN_CCCR_INIT);
    return true;
}

static void read_element(uint32_t address, ew_can_frame_t *frame)
{
    const uint32_t head = reg_get(address);
    const uint32_t info = reg_get(address + 4u);
    frame->id = (uint16_t)((head >> 18) & 0x7FFu);
    frame->fd = (info & (1u << 21)) != 0u;
    frame->remote = (head & (1u << 29)) != 0u;
    const uint8_t length = length_of(info >> 16);
    const uint8_t most = frame->fd ? EW_CAN_FRAME_BYTES : EW_CAN_CLASSIC_BYTES;
    frame->count = (length > most) ? most : length;
    frame->count = frame->remote ? 0u : frame->count;
    for (uint32_t i = 0u; i < frame->count; i += 4u) {
        const uint32_t word = reg_get(address + 8u + i);
        for (uint32_t k = 0u; k < 4u; k++) {
            frame->data[i + k] = (uint8_t)(word >> (8u * k));
        }
    }
}

static void take_frames(uint32_t bus)
{
    bus_t *b = &buses[bus];
    uint32_t status = reg_get(FDCAN(bus) + FDCAN_RXF0S);
    /* Three elements at most; an interrupt comes again for what arrives meanwhile. */
    for (uint32_t i = 0u; (i < 3u) && ((status & 15u) != 0u); i++) {
        const uint32_t index = (status >> 8) & 3u;
        const uint32_t address = FDCAN_RAM(bus) + FDCAN_RAM_RX0 + (FDCAN_ELEMENT * index);
        if ((reg_get(address) & (1u << 30)) != 0u) {
            b->errors++; /* an extended frame past the filter: not ours */
        } else if ((b->head - b->tail) == RING) {
            b->overruns++;
        } else {
            received_t *place = &b->ring[b->head % RING];
            read_element(address, &place->frame);
            place->us = board_now_us();
            b->head++;
        }
        reg_put(FDCAN(bus) + FDCAN_RXF0A, index);
        status = reg_get(FDCAN(bus) + FDCAN_RXF0S);
    }
}

static void interrupt(uint32_t bus)
{
    bus_t *b = &buses[bus];
    const uint32_t flags = reg_get(FDCAN(bus) + FDCAN_IR);
    reg_put(FDCAN(bus) + FDCAN_IR, flags);
    b->overruns += ((flags & FDCAN_IR_RF0L) != 0u) ? 1u : 0u;
    b->errors += ((flags & (FDCAN_IR_PEA | FDCAN_IR_PED)) != 0u) ? 1u : 0u;
    if (((flags & FDCAN_IR_BO) != 0u) && ((reg_get(FDCAN(bus) + FDCAN_PSR) & FDCAN_PSR_BO) != 0u)) {
        b->bus_offs++;
        /* The controller set INIT; clearing it starts the 128 idle sequences after which it takes part again. */
        reg_clear(FDCAN(bus) + FDCAN_CCCR, FDCAN_CCCR_INIT);
    }
    take_frames(bus);
}

void Fdcan1_Handler(void)
{
    interrupt(0u);
}

void Fdcan2_Handler(void)
{
    interrupt(1u);
}

bool can_hal_receive(uint32_t bus, ew_can_frame_t *frame, uint64_t *stamp_us)
{
    bus_t *b = &buses[bus];
    if (b->tail == b->head) {
        return false;
    }
    *frame = b->ring[b->tail % RING].frame;
    *stamp_us = b->ring[b->tail % RING].us;
    b->tail++;
    return true;
}

bool can_hal_send(uint32_t bus, const ew_can_frame_t *frame)
{
    const uint32_t status = reg_get(FDCAN(bus) + FDCAN_TXFQS);
    const bool off = (reg_get(FDCAN(bus) + FDCAN_PSR) & FDCAN_PSR_BO) != 0u;
    if (off || ((status & FDCAN_TXFQS_FULL) != 0u) || (frame->fd && !buses[bus].fd)) {
        return false;
    }
    const uint32_t index = (status >> 16) & 3u;
    const uint32_t address = FDCAN_RAM(bus) + FDCAN_RAM_TX + (FDCAN_ELEMENT * index);
    const uint32_t format = frame->fd ? ((1u << 21) | (1u << 20)) : 0u; /* FD with bit rate switch */
    reg_put(address, ((uint32_t)frame->id << 18) | (frame->remote ? (1u << 29) : 0u));
    reg_put(address + 4u, format | (code_of(frame->count) << 16));
    for (uint32_t i = 0u; i < frame->count; i += 4u) {
        uint32_t word = 0u;
        for (uint32_t k = 0u; (k < 4u) && ((i + k) < frame->count); k++) {
            word |= (uint32_t)frame->data[i + k] << (8u * k);
        }
        reg_put(address + 8u + i, word);
    }
    reg_put(FDCAN(bus) + FDCAN_TXBAR, 1u << index);
    return true;
}

void can_hal_flush(uint32_t bus)
{
    reg_put(FDCAN(bus) + FDCAN_TXBCR, 7u);
}

bool can_hal_service(uint32_t bus)
{
    (void)bus; /* the controller moves by itself */
    return false;
}

void can_hal_status(uint32_t bus, can_hal_status_t *status)
{
    buses[bus].errors += (reg_get(FDCAN(bus) + FDCAN_ECR) >> 16) & 0xFFu; /* errors logged since the last look, cleared by it */
    status->errors = buses[bus].errors;
    status->overruns = buses[bus].overruns;
    status->bus_offs = buses[bus].bus_offs;
    status->bus_off = (reg_get(FDCAN(bus) + FDCAN_PSR) & FDCAN_PSR_BO) != 0u;
}
