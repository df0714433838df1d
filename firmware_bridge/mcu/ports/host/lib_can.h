/* libedgewam_mcu.so, the CAN side; see lib.h. A frame is its identifier, up to 64 bytes, and flags. */
#ifndef EDGEWAM_LIB_CAN_H
#define EDGEWAM_LIB_CAN_H
#include "lib.h"

#define EWL_CAN_FD 1u
#define EWL_CAN_REMOTE 2u

void ewl_can_start(ewl_t *mcu, uint8_t node, uint64_t now_us); /* after ewl_create and after each ewl_reset */
void ewl_can_rx(ewl_t *mcu, uint16_t id, const uint8_t *data, uint8_t count, uint8_t flags, uint64_t now_us);
/* The next frame that the MCU sends; data holds 64. Returns its length, -1: none. */
int32_t ewl_can_tx(ewl_t *mcu, uint16_t *id, uint8_t *data, uint8_t *flags);
void ewl_can_status(ewl_t *mcu, uint32_t errors, uint32_t bus_offs, uint8_t bus_off);
/* transfers, bad, missed, duplicates */
void ewl_can_counters(const ewl_t *mcu, uint32_t *counters);

/* Reassembly alone. feed returns the length of the body that the frame completed, 0: none; body holds 640. */
typedef struct ewl_reassembler ewl_reassembler_t;
ewl_reassembler_t *ewl_reassembler_create(void);
void ewl_reassembler_destroy(ewl_reassembler_t *reassembler);
uint32_t ewl_reassembler_feed(ewl_reassembler_t *reassembler, uint16_t id, const uint8_t *data, uint8_t count,
                              uint8_t flags, uint64_t now_us, uint8_t *body);
void ewl_reassembler_counters(const ewl_reassembler_t *reassembler, uint32_t *counters);

/* Segmentation alone: frames of 64 bytes each in a row, their lengths in counts (room for 100). Returns their number. */
uint32_t ewl_can_segment(const uint8_t *transfer, uint16_t count, uint8_t type, uint8_t node, uint8_t to_host,
                         uint8_t transfer_id, uint8_t fd, uint16_t *id, uint8_t *frames, uint8_t *counts);
#endif
