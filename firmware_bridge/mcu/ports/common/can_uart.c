/* slcan on the UARTs that stand for CAN controllers. */
#include "board.h"
#include "rings.h"
#include "slcan_hal.h"

int32_t slcan_port_receive(uint32_t bus, uint64_t *stamp_us)
{
    return ring_get(BOARD_CAN + bus, stamp_us);
}

bool slcan_port_send(uint32_t bus, uint8_t byte)
{
    return board_send(BOARD_CAN + bus, byte);
}
