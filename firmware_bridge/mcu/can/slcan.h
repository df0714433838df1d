/* CAN frames as lines of text: Lawicel's slcan as adapters, python-can and the Linux kernel speak it, with the CAN FD letters
 * of CANable 2 (d, b: standard identifier without and with bit rate switch; capitals: extended identifier). */
#ifndef EW_SLCAN_H
#define EW_SLCAN_H
#include "ew_can.h"

#define SLCAN_END 13u /* ends a line */
/* 'B', 8 digits of identifier, 1 of length, 128 of data; the end of the line is not kept. */
#define SLCAN_LINE_BYTES 138u
#define SLCAN_REPLY_BYTES 8u

typedef struct {
    uint8_t line[SLCAN_LINE_BYTES];
    uint32_t count;
    bool overlong;
    bool open;       /* after O (or L), until C */
    bool listen;     /* after L: nothing may be sent */
    uint32_t errors; /* lines that are no command and no frame */
    uint8_t reply[SLCAN_REPLY_BYTES];
    uint32_t reply_count; /* for the caller to send and to set to 0 */
} slcan_t;

/* Takes one byte. True: it ended a line that is a standard frame, now in *frame. */
bool slcan_push(slcan_t *slcan, uint8_t byte, ew_can_frame_t *frame);

/* Writes the line of a frame, end of line included. out holds SLCAN_LINE_BYTES + 1. Returns the length. */
uint32_t slcan_format(const ew_can_frame_t *frame, uint8_t *out);

#endif
