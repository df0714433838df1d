/* The STM32G474 drivers on a PC: every register access goes to two functions of the test; rings and clock are the test's too. */
#include "board.h"
#include "can_hal.h"
#include "clock.h"
#include "fdcan.h"
#include "pins.h"
#include "reg.h"
#include "rings.h"
#include "uart.h"
#include "usb_cdc.h"
#include "usbfs.h"
#include "watchdogs.h"

typedef uint32_t (*get_t)(uint32_t address);
typedef void (*put_t)(uint32_t address, uint32_t value);

void fake_bus(get_t get, put_t put);
uint32_t fake_received(uint8_t *bytes);
void fake_room(uint32_t bytes);
uint32_t fake_wrong_width(void);
uint32_t fake_can_frame(uint32_t bus, uint8_t *data, uint32_t *id, uint32_t *flags);
bool fake_can_send(uint32_t bus, uint32_t id, uint32_t flags, const uint8_t *data, uint8_t count);
bool fake_can_start(uint32_t bus, uint32_t rate, uint32_t data_rate, uint16_t match, uint16_t mask);

static get_t get_register;
static put_t put_register;
static uint8_t received[4096];
static uint32_t received_count;
static uint32_t capacity;
static uint32_t wrong_width;
static uint32_t overruns;

void fake_bus(get_t get, put_t put)
{
    get_register = get;
    put_register = put;
    received_count = 0u;
    capacity = sizeof received;
    wrong_width = 0u;
}

/* Of the whole part only the USB wants accesses of 16 bits. */
static void check_width(uint32_t address, bool narrow)
{
    wrong_width += (((address >= 0x40005C00u) && (address < 0x40006400u)) != narrow) ? 1u : 0u;
}

uint32_t fake_wrong_width(void)
{
    return wrong_width;
}

uint32_t reg16_get(uint32_t address)
{
    check_width(address, true);
    return get_register(address) & 0xFFFFu;
}

void reg16_put(uint32_t address, uint32_t value)
{
    check_width(address, true);
    put_register(address, value & 0xFFFFu);
}

uint32_t reg_get(uint32_t address)
{
    check_width(address, false);
    return get_register(address);
}

void reg_put(uint32_t address, uint32_t value)
{
    check_width(address, false);
    put_register(address, value);
}

void ring_put(uint32_t stream, uint8_t byte)
{
    (void)stream;
    if (received_count == capacity) {
        overruns++;
        return;
    }
    received[received_count] = byte;
    received_count++;
}

uint32_t ring_room(uint32_t stream)
{
    (void)stream;
    return capacity - received_count;
}

/* How much the main loop has not read yet may be; what was received so far is read first. */
void fake_room(uint32_t bytes)
{
    capacity = (bytes < sizeof received) ? bytes : (uint32_t)sizeof received;
}

void ring_write(uint32_t stream, const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0u; i < count; i++) {
        ring_put(stream, bytes[i]);
    }
}

void ring_overrun(uint32_t stream)
{
    (void)stream;
    overruns++;
}

uint32_t fake_received(uint8_t *bytes)
{
    for (uint32_t i = 0u; i < received_count; i++) {
        bytes[i] = received[i];
    }
    const uint32_t count = received_count;
    received_count = 0u;
    return count | (overruns << 16);
}

uint64_t board_now_us(void)
{
    return 1234u;
}

bool fake_can_start(uint32_t bus, uint32_t rate, uint32_t data_rate, uint16_t match, uint16_t mask)
{
    const can_hal_config_t config = {rate, data_rate, {match, match}, {mask, mask}};
    return can_hal_start(bus, &config);
}

/* Length, or 0xFFFF when there is none. flags: 1 FD, 2 remote. */
uint32_t fake_can_frame(uint32_t bus, uint8_t *data, uint32_t *id, uint32_t *flags)
{
    ew_can_frame_t frame;
    uint64_t stamp_us = 0u;
    if (!can_hal_receive(bus, &frame, &stamp_us)) {
        return 0xFFFFu;
    }
    for (uint32_t i = 0u; i < frame.count; i++) {
        data[i] = frame.data[i];
    }
    *id = frame.id;
    *flags = (frame.fd ? 1u : 0u) | (frame.remote ? 2u : 0u);
    return frame.count;
}

bool fake_can_send(uint32_t bus, uint32_t id, uint32_t flags, const uint8_t *data, uint8_t count)
{
    ew_can_frame_t frame = {.id = (uint16_t)id, .count = count, .fd = (flags & 1u) != 0u, .remote = (flags & 2u) != 0u};
    for (uint32_t i = 0u; i < count; i++) {
        frame.data[i] = data[i];
    }
    return can_hal_send(bus, &frame);
}
