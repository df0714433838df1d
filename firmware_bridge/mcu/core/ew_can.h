/* CAN as a transport of the same bodies: identifiers, segmentation and reassembly. No time source, no hardware, no core.
 *
 * 11-bit identifier: priority(3) direction(1) node(3) type(4). Lower wins the bus. A transfer is `body | crc32c`, cut into
 * frames whose last byte is a tail byte (start, end, toggle, 5 bits of transfer id), as in UAVCAN/Cyphal: 7 bytes a frame in
 * classic CAN, 63 in CAN FD. An FD frame has only some lengths, so the last one of a transfer is `rest | zeros | number of
 * zeros | tail`. There are no flow-control frames: a receiver that loses a frame drops the transfer and counts it.
 *
 * EW_CAN_ID_ESTOP is the one identifier that stops: no session, no state, no checksum but the bus's own, and any length (even
 * a remote frame). Every node hears it, hence node 0. Nothing on the bus has a higher priority, as 0x000 is not used. Of the
 * other classes one transfer is under way at a time, so one buffer a class is all that a receiver needs. */
#ifndef EW_CAN_H
#define EW_CAN_H
#include "ew_protocol.h"

typedef struct {
    uint16_t id;     /* 11 bits */
    uint8_t count;   /* 0..8, or an FD length up to 64 */
    bool fd;         /* FD format, with bit rate switch */
    bool remote;     /* classic remote frame: no data */
    uint8_t data[EW_CAN_FRAME_BYTES];
} ew_can_frame_t;

/* Identifier of a message of this type; node 1..7. */
uint16_t ew_can_id(uint8_t type, uint8_t node, bool to_host);

/* The smallest length that an FD frame with this many bytes can have. */
uint8_t ew_can_fd_length(uint8_t count);

/* ---- receiving ---- */

#define EW_CAN_TRANSFER_IDS 32u

typedef struct {
    uint8_t bytes[EW_MAX_BODY_BYTES];
    uint16_t count;
    uint16_t frame_id;
    uint8_t last;      /* bytes that the last frame brought: a repeated frame repeats them */
    uint8_t toggle;    /* of the next frame */
    uint8_t transfer;  /* its id */
    bool open;         /* the start of a transfer has come, its end has not */
    bool fd;
    bool seen_known;
    uint8_t seen;      /* newest transfer id of which anything has come */
    uint8_t done;      /* the last whole transfer */
    uint32_t done_mask;                      /* transfer ids of which done_crc is known */
    uint32_t done_crc[EW_CAN_TRANSFER_IDS];  /* what came whole: what comes twice must not be a command twice */
    int64_t frame_us;
} ew_can_slot_t;

typedef struct {
    ew_can_slot_t slot[EW_CAN_CLASSES];
    uint32_t transfers;  /* delivered whole */
    uint32_t bad;        /* of which something came but not the whole: lost, reordered, damaged, too long, too late */
    uint32_t missed;     /* of which nothing came, by their ids (modulo 32) */
    uint32_t duplicates; /* frames or transfers that came twice; nothing is lost with them */
} ew_can_rx_t;

void ew_can_rx_reset(ew_can_rx_t *rx); /* forgets what is under way (bus-off); the counters stay */

/* Takes one frame of one sender. Returns the length of the body without its CRC when the frame completed a transfer, else 0;
 * *body then points to it until the next call for the same class. */
size_t ew_can_receive(ew_can_rx_t *rx, const ew_can_frame_t *frame, int64_t stamp_us, const uint8_t **body);

/* Closes what was begun and did not go on. Call it now and then. */
void ew_can_rx_expire(ew_can_rx_t *rx, int64_t now_us);

/* ---- sending ---- */

/* A transfer on its way out: body and CRC, at `from` in a ring of `size` bytes. */
typedef struct {
    const uint8_t *ring;
    uint32_t size;
    uint32_t from;
    uint16_t left;
    uint16_t frame_id;
    uint8_t transfer;
    uint8_t toggle;
    bool started;
    bool over;
    bool fd;
} ew_can_sender_t;

/* The caller has set where the bytes are (ring, size, from, left); the modulo of the ring must divide 2^32. */
void ew_can_sender_start(ew_can_sender_t *sender, uint16_t frame_id, uint8_t transfer, bool fd);

/* The next frame; false when the transfer is over. */
bool ew_can_sender_next(ew_can_sender_t *sender, ew_can_frame_t *frame);

#endif
