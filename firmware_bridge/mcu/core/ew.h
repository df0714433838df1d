/* The MCU core: everything between two byte streams, with time passed in. No hardware access, no heap, no recursion.
 *
 * One context calls all of it; interrupts only fill the rings of the port. Positions are int32 micro-units. */
#ifndef EW_H
#define EW_H
#include "ew_can.h"

/* Of the firmware: major, minor, patch. */
#define EW_VERSION (((uint32_t)0u << 16) | ((uint32_t)1u << 8) | (uint32_t)0u)

typedef struct ew ew_t;

/* What the port knows about itself. */
typedef struct {
    uint32_t entropy;            /* anything that differs between boots */
    uint32_t build_id;           /* of the sources */
    uint32_t tick_gap_max_us;    /* EW_TICK_GAP_MAX_US, more in the real-time emulator build */
    uint32_t encoder_timeout_us; /* EW_ENCODER_TIMEOUT_US, more in the real-time emulator build */
    uint32_t clock_error_max_us; /* EW_CLOCK_ERROR_MAX_US, more in the real-time emulator build */
    uint32_t version;            /* major << 16 | minor << 8 | patch */
    uint16_t watchdog_ms;        /* time from last feed to reset, 0: none */
    uint8_t drive_buses;         /* bit per DriveKind that this board has a wire for; SIM always */
    uint32_t servo_slack_us;     /* what this port adds to the answering time of a servo, 0 as shipped */
    uint8_t checks;              /* bit per EW_CHECK_* that the port itself reports before each feed */
    const uint8_t *code;         /* memory that must not change, checked slice by slice; code_bytes 0: none */
    uint32_t code_bytes;
} ew_port_info_t;

/* What the port measures; it writes, STATS reports. */
typedef struct {
    uint32_t rx_overrun;
    uint32_t watchdog_margin_min_us;
    uint32_t stack_free_min;
    uint32_t tick_work_max_us; /* of one control tick since the last STATS, which sets it back to 0 */
} ew_port_stats_t;

#define EW_NOINIT_WORDS (8u + EW_WATCHDOG_STORM_RESETS)

/* Lives in memory that a reset does not touch. The first part is the core's, twice, each guarded by a CRC; the mark is written
 * by the port's last words (watchdog's first stage, hard fault) and consumed at the next boot. */
typedef struct {
    uint32_t magic;
    uint32_t boots;
    uint32_t estop;
    uint32_t fault;
    uint32_t clear_nonce;
    uint32_t session;
    uint32_t life_ms;   /* of all lives since power-on, at this boot */
    uint32_t uptime_ms; /* of this life, noted once a second */
    uint32_t watchdog_at_ms[EW_WATCHDOG_STORM_RESETS]; /* when the last watchdog resets were, newest first */
    uint32_t crc;
    uint32_t copy[EW_NOINIT_WORDS];
    uint32_t copy_crc;
    uint32_t missing;       /* bit per EW_CHECK_* that the last look at the feed missed */
    uint32_t missing_check; /* its complement */
    uint32_t mark_magic;
    uint32_t mark_cause; /* ResetCause */
    uint32_t mark_pc;
    uint32_t mark_tick;
    uint32_t mark_check;
} ew_noinit_t;

/* Writes the mark. Short and without calls into the core: it runs in an NMI. */
void ew_noinit_mark(volatile ew_noinit_t *noinit, uint32_t cause, uint32_t pc, uint32_t tick);

/* True while a mark waits for the next boot: a port must not write over it. */
bool ew_noinit_marked(const ew_noinit_t *noinit);

/* Boot. Reads and consumes the no-init record; a latched emergency stop or fault comes back, a watchdog reset becomes one. */
void ew_init(ew_t *ew, const ew_port_info_t *port, ew_noinit_t *noinit, uint64_t now_us);

/* Bytes of the host link. stamp_us: when the last of them arrived; now_us: when this is called. Give them up to a 00 at most,
 * so that each frame has the stamp of its own delimiter. */
void ew_rx(ew_t *ew, const uint8_t *bytes, size_t count, uint64_t stamp_us, uint64_t now_us);

/* Runs the control ticks that are due (none, one, or several after a stall). Call it at least every millisecond. */
void ew_tick(ew_t *ew, uint64_t now_us);

/* What may wait until the control tick has run: STATE, and judging a chunk, a slice a call. True while there is more to do. Call
 * it in every turn of the main loop that ran no tick, and at the latest in every second one. */
bool ew_work(ew_t *ew, uint64_t now_us);

/* Takes up to capacity bytes for the host link. */
size_t ew_tx(ew_t *ew, uint8_t *bytes, size_t capacity);

/* The host link over CAN, beside the bytes above. Start it once after ew_init; node 1..7. The host is on the transport on which
 * HELLO was asked last while the drive was off; an emergency stop is heard on every one. */
void ew_can_start(ew_t *ew, uint8_t node, uint64_t now_us);
void ew_can_rx(ew_t *ew, const ew_can_frame_t *frame, uint64_t stamp_us, uint64_t now_us);
/* The frame that is to go out next, the same one until ew_can_tx_done says that the controller took it. False: none. */
bool ew_can_tx(ew_t *ew, ew_can_frame_t *frame);
void ew_can_tx_done(ew_t *ew);
/* What the controller says: errors and times off the bus since start, and whether it is off the bus now. */
void ew_can_status(ew_t *ew, uint32_t errors, uint32_t bus_offs, bool bus_off);

/* Drive side. As a stream: encoder frames in, the newest setpoint frame out (0 when there is no new one or no room for it). */
void ew_drive_rx(ew_t *ew, const uint8_t *bytes, size_t count, uint64_t now_us);
size_t ew_drive_tx(ew_t *ew, uint8_t *bytes, size_t capacity);
/* Drive side, directly. */
void ew_drive_encoder(ew_t *ew, const int32_t *position, const int32_t *effort, uint8_t axes, uint64_t now_us);
uint8_t ew_drive_setpoint(const ew_t *ew, int32_t *setpoint, uint8_t capacity);
bool ew_drive_enabled(const ew_t *ew);
/* Holding brakes on an output of the board: true while they may be open. False (they grip) while the drive is off, until every
 * drive has confirmed its torque, and when a stop has ordered them on. */
bool ew_brakes_open(const ew_t *ew);

/* Servos on a half-duplex serial bus of 1 Mbaud. The next packet, 0: none now; its bytes go out back to back with the receiver
 * off, then the line is turned round. Ask whenever the line is idle, at least once a millisecond. */
#define EW_SERVO_TX_BYTES 64u
size_t ew_servo_tx(ew_t *ew, uint8_t *bytes, size_t capacity, uint64_t now_us);
void ew_servo_rx(ew_t *ew, const uint8_t *bytes, size_t count, uint64_t now_us);

/* Motor drives on CAN of 1 Mbit/s, on a controller of their own. Ask for frames until there is none, once a millisecond. */
bool ew_motor_tx(ew_t *ew, ew_can_frame_t *frame, uint64_t now_us);
/* True while the next frame is a torque off: what was fetched before it and has not left yet is to be thrown away. */
bool ew_motor_off_due(const ew_t *ew);
void ew_motor_rx(ew_t *ew, const ew_can_frame_t *frame, uint64_t now_us);

/* Last words to these, without the core: bytes that every servo understands (64, or 0.64 ms); the identifiers to which a frame
 * of ew_mit_off has to go, which change with a commit only. */
size_t ew_servo_off(uint8_t *out);
uint8_t ew_motor_off(const ew_t *ew, uint16_t *ids, uint8_t capacity);

/* The last words of a port to the drive: a delimiter, which ends whatever was under way, and a frame that drops the enable.
 * Made at boot, so that an NMI only has to write bytes. out holds EW_DRIVE_OFF_BYTES. Returns the length. */
#define EW_DRIVE_OFF_BYTES 16u
size_t ew_drive_off(uint8_t *out);

/* Somebody on the list of EW_CHECK_* reports that all is well with it. */
void ew_check_in(ew_t *ew, uint8_t check);

/* True when everybody has reported since it was last true: only then may the port feed the watchdog. Who is missing is kept for
 * the report after the reset. */
bool ew_feed_allowed(ew_t *ew);

/* The emergency stop input, as often as the port looks at it. Pressed, or its wire broken: stops at once and latches. */
void ew_estop_input(ew_t *ew, bool pressed);

/* A fault that the port found (stack canary). */
void ew_port_fault(ew_t *ew, uint16_t fault);

ew_port_stats_t *ew_port_stats(ew_t *ew);
uint8_t ew_state(const ew_t *ew);
uint32_t ew_ticks(const ew_t *ew);

#endif
