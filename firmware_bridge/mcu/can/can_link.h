/* The host link over a CAN back end: what every port's loop does with it. */
#ifndef EW_CAN_LOOP_H
#define EW_CAN_LOOP_H
#include "can_hal.h"
#include "ew.h"

/* Starts the bus and announces the node. False: there is no controller; the serial link goes on without it. */
bool can_link_start(ew_t *core, uint8_t node, uint32_t bitrate, uint32_t data_bitrate, uint64_t now_us);

/* A bounded number of frames in and out. True: there is more to do at once. */
bool can_link_turn(ew_t *core, uint64_t now_us);

#endif
