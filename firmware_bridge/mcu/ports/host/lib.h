/* libedgewam_mcu.so: the MCU core behind a flat interface for ctypes. Time is whatever the caller says it is.
 *
 * One ewl_t is one microcontroller. Not thread safe. Order within a step of 1 ms:
 *   ewl_encoder (when the plant has a new value), ewl_rx (host bytes), ewl_tick (once, now_us + 1000), ewl_setpoint, ewl_tx. */
#ifndef EDGEWAM_LIB_H
#define EDGEWAM_LIB_H
#include <stddef.h>
#include <stdint.h>

typedef struct ewl ewl_t;

/* A cold-started MCU (power-on) at time now_us. The seed makes its session ids reproducible. NULL: out of memory. */
ewl_t *ewl_create(uint32_t seed, uint64_t now_us);
void ewl_destroy(ewl_t *mcu);

/* What a reset does: everything is lost except the no-init record. cause is a ResetCause; pc is what the watchdog saved. */
void ewl_reset(ewl_t *mcu, uint8_t cause, uint32_t pc, uint64_t now_us);

void ewl_rx(ewl_t *mcu, const uint8_t *bytes, size_t count, uint64_t now_us); /* host link, host to MCU */
size_t ewl_tx(ewl_t *mcu, uint8_t *bytes, size_t capacity);                   /* host link, MCU to host */
void ewl_tick(ewl_t *mcu, uint64_t now_us);                                   /* one control tick (1 ms) */

/* What may wait (ew_work) is done within the call that caused it, frame by frame, unless it is the caller's: then a slice a call
 * of ewl_work, which returns 1 while there is more. */
void ewl_slices(ewl_t *mcu, uint8_t callers);
uint8_t ewl_work(ewl_t *mcu, uint64_t now_us);

/* Drive side without a stream: encoder and effort in, setpoint out (micro-units). */
void ewl_encoder(ewl_t *mcu, const int32_t *position, const int32_t *effort, uint8_t axes, uint64_t now_us);
/* Number of axes written; *enable is 1 while the drive is on. */
uint8_t ewl_setpoint(const ewl_t *mcu, int32_t *setpoint, uint8_t capacity, uint8_t *enable);

/* Drive side as a stream, as on UART1. */
void ewl_drive_rx(ewl_t *mcu, const uint8_t *bytes, size_t count, uint64_t now_us);
size_t ewl_drive_tx(ewl_t *mcu, uint8_t *bytes, size_t capacity);

/* Drives of their own: the servo bus (one packet at most; 64 bytes of room) and 8-byte frames of the motor CAN bus (1: made). */
size_t ewl_servo_tx(ewl_t *mcu, uint8_t *bytes, size_t capacity, uint64_t now_us);
void ewl_servo_rx(ewl_t *mcu, const uint8_t *bytes, size_t count, uint64_t now_us);
uint8_t ewl_motor_tx(ewl_t *mcu, uint16_t *id, uint8_t *data, uint64_t now_us);
void ewl_motor_rx(ewl_t *mcu, uint16_t id, const uint8_t *data, uint8_t count, uint64_t now_us);
/* What a watchdog's first stage would send: bytes for the servo bus (64, returned: how many), identifiers (16) of motor drives. */
size_t ewl_last_words(const ewl_t *mcu, uint8_t *servo, uint16_t *ids, uint8_t *motors);
void ewl_wants_checks(ewl_t *mcu, uint8_t checks); /* as a port that has to report these (bit per Check) before a feed */
void ewl_watches_code(ewl_t *mcu, const uint8_t *code, uint32_t count); /* as a port whose code this is */
void ewl_estop_input(ewl_t *mcu, uint8_t pressed);

uint8_t ewl_state(const ewl_t *mcu);        /* McuState */
uint8_t ewl_feed_allowed(ewl_t *mcu);       /* 1: this tick was good, the watchdog may be fed */
uint32_t ewl_schema_hash(void);
#endif
