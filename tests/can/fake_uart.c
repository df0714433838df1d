/* The far end of slcan_hal.c's UART for tests: so many bytes are taken until the test lets more through. */
#include "slcan.h"
#include "slcan_hal.h"

#define PLACES 4096u

static uint8_t out[PLACES];
static uint32_t count;
static uint32_t room;

uint32_t fake_uart_take(uint8_t *bytes);
void fake_uart_room(uint32_t bytes);

void fake_uart_room(uint32_t bytes)
{
    room = bytes;
}

uint32_t fake_uart_take(uint8_t *bytes)
{
    const uint32_t taken = count;
    for (uint32_t i = 0u; i < taken; i++) {
        bytes[i] = out[i];
    }
    count = 0u;
    return taken;
}

bool slcan_port_send(uint32_t bus, uint8_t byte)
{
    (void)bus;
    if ((room == 0u) || (count == PLACES)) {
        return false;
    }
    out[count] = byte;
    count++;
    room--;
    return true;
}

int32_t slcan_port_receive(uint32_t bus, uint64_t *stamp_us)
{
    static const uint8_t open[] = {'O', SLCAN_END};
    static uint32_t given;
    (void)bus;
    *stamp_us = 0u;
    if (given == sizeof open) {
        return -1;
    }
    return (int32_t)open[given++];
}
