/* The CAN back end of a board without a controller: each bus is a UART that carries slcan. The board gives these two. */
#ifndef EW_SLCAN_HAL_H
#define EW_SLCAN_HAL_H
#include "can_hal.h"

/* Next received byte, or -1. For the end of a line (13) *stamp_us is its time of arrival. */
int32_t slcan_port_receive(uint32_t bus, uint64_t *stamp_us);

/* Sends one byte if the UART takes it. */
bool slcan_port_send(uint32_t bus, uint8_t byte);

#endif
