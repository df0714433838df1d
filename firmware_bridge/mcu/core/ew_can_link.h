/* The CAN side of the host link: what the core keeps for it. Its calls are in ew.h. */
#ifndef EW_CAN_LINK_H
#define EW_CAN_LINK_H
#include "ew_can.h"

/* A class' bodies that wait; two of the longest STATEs, or 20 answers. A power of two. */
#define EW_CAN_QUEUE_BYTES 1024u

/* Which transports the host may be on, as bits. */
#define EW_VIA_SERIAL 1u
#define EW_VIA_CAN 2u

typedef struct {
    uint8_t bytes[EW_CAN_QUEUE_BYTES]; /* length u16, type u8, body, CRC; again */
    uint32_t head;
    uint32_t tail;
    ew_can_sender_t sender;
    bool sending; /* the entry at tail is on its way */
    uint8_t transfer;
} ew_can_queue_t;

typedef struct {
    uint8_t node; /* 0: CAN is not used */
    bool fd;      /* the host's last transfer was FD: answer likewise. Classic frames do not disturb an FD bus, so they begin */
    bool bus_off;
    ew_can_rx_t rx;
    ew_can_queue_t queue[EW_CAN_CLASSES];
    ew_can_frame_t frame; /* the one that the controller is to take next */
    bool waiting;
} ew_can_link_t;

#endif
