/* What a CAN controller must do for the core, and nothing more. Two kinds of back end exist: registers (STM32 FDCAN) and
 * slcan, which carries frames as text over a UART where there is no controller (an emulated board).
 *
 * Standard 11-bit frames only; extended ones are dropped by the back end. The main loop calls all of it; interrupts may fill
 * rings behind it. Nothing blocks. */
#ifndef EW_CAN_HAL_H
#define EW_CAN_HAL_H
#include "ew_can.h"

enum { CAN_HAL_LINK = 0, CAN_HAL_DRIVE = 1, CAN_HAL_BUSES = 2 };

typedef struct {
    uint32_t bitrate;      /* of arbitration, bit/s; 1 000 000 as shipped */
    uint32_t data_bitrate; /* after the bit rate switch, bit/s; 0: classic only */
    /* Frames with (id & mask) == match for one of the two are wanted; a back end without hardware filters may pass more. */
    uint16_t match[2];
    uint16_t mask[2];
} can_hal_config_t;

typedef struct {
    uint32_t errors;   /* since start: error frames, lost frames, lines that are no frame */
    uint32_t overruns; /* since start: frames that came while the receive ring was full */
    uint32_t bus_offs; /* since start: times that the controller took itself off the bus */
    bool bus_off;      /* now. The back end returns to the bus by itself, after the 128 idle sequences of the standard */
} can_hal_status_t;

/* Starts a bus. False: the controller does not answer, or cannot make the bit rates. */
bool can_hal_start(uint32_t bus, const can_hal_config_t *config);

/* The oldest frame received; *stamp_us is the time of its end. False: none. */
bool can_hal_receive(uint32_t bus, ew_can_frame_t *frame, uint64_t *stamp_us);

/* Hands a frame to the controller; frames leave in the order of the calls. False: no room now, or bus-off. */
bool can_hal_send(uint32_t bus, const ew_can_frame_t *frame);

/* Throws away what waits to be sent: after bus-off it would only be old. */
void can_hal_flush(uint32_t bus);

/* Moves what a slow back end (text over a UART) still has to move, a bounded piece at a time. True: there is more. */
bool can_hal_service(uint32_t bus);

void can_hal_status(uint32_t bus, can_hal_status_t *status);

#endif
