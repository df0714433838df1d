/* The CAN buses of a board, as every port's main loop serves them: the host link, and the motor drives. */
#ifndef EW_CAN_LOOP_H
#define EW_CAN_LOOP_H
#include "can_hal.h"
#include "ew.h"

/* As shipped. The motor drives speak classic CAN at 1 Mbit/s. */
#define CAN_LOOP_BITRATE 1000000u
#define CAN_LOOP_DATA_BITRATE 5000000u

/* Starts both buses and announces the node (1..7) to the host. False: a controller does not answer; the others go on. */
bool can_loop_start(ew_t *core, uint8_t node, uint64_t now_us);

/* A bounded number of frames in and out on both. True: there is more to do at once. */
bool can_loop_turn(ew_t *core, uint64_t now_us);

/* Last words: torque off to every motor drive that is bound. For a watchdog's first stage; takes nothing from the core. */
void can_loop_off(void);

#endif
