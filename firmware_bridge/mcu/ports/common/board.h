/* What a board gives to the common main loop. Everything that touches a register is behind this face. */
#ifndef EW_BOARD_H
#define EW_BOARD_H
#include "ew.h"

/* The UARTs: host link, stream to and from a plant; two more may stand for CAN controllers (one of the host link, one of the
 * motor drives), or one may be the half-duplex bus of servos. */
#ifdef PORT_SLCAN
enum { BOARD_LINK = 0, BOARD_DRIVE = 1, BOARD_CAN = 2, BOARD_MOTORS = 3, BOARD_STREAMS = 4 };
#elif defined(PORT_SERVO)
enum { BOARD_LINK = 0, BOARD_DRIVE = 1, BOARD_SERVO = 2, BOARD_STREAMS = 3 };
#else
enum { BOARD_LINK = 0, BOARD_DRIVE = 1, BOARD_STREAMS = 2 };
#endif

/* Clocks, UARTs, the free-running counter and the 1 kHz interrupt. Interrupts are off before and on after. */
void board_start(void);

/* Free-running time. A tick counter would not do: an emulator (or a debugger) that stalls loses ticks. */
uint64_t board_now_us(void);

/* 1 kHz interrupts so far. */
uint32_t board_systicks(void);

/* Sends one byte if the UART takes it. A board whose UART fills up wakes the processor when there is room again. */
bool board_send(uint32_t stream, uint8_t byte);

/* Starts the watchdog. Its first stage, where the part has one, calls last_words_watchdog; its last resets. */
void board_watchdog_start(uint32_t watchdog_ms);

/* Feeds it; returns the us that were left to its first stage (to the reset where it has only one). */
uint32_t board_watchdog_feed(void);

/* Why the part was reset, when no last words say it: from its flags; where it has none, by elimination. lived: the record of a
 * running watchdog survived. */
uint8_t board_reset_cause(bool lived);

/* A number that differs between boots; 0 where the part has no source of it. */
uint32_t board_entropy(void);

/* The drive-enable output, the toggle that keeps an external retriggerable monostable up, and the output that opens holding
 * brakes: one call a tick. */
void board_outputs(bool enable, bool brakes_open, uint32_t tick);

/* True while the emergency-stop input asks for a stop; a board without the input never asks. Called once a tick. */
bool board_estop(void);

/* Shows a state (EW_STATE_*) on what light there is. Called once a tick. */
void board_light(uint8_t state, uint32_t tick);

#endif
