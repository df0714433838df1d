/* The MPS2 AN386 board (Cortex-M4, CMSDK peripherals): everything that touches a register. */
#ifndef EW_BOARD_H
#define EW_BOARD_H
#include "ew.h"

enum { BOARD_LINK = 0, BOARD_DRIVE = 1, BOARD_STREAMS = 2 };

/* Clocks, UARTs and the 1 kHz interrupt. Interrupts are off before and on after. */
void board_start(void);

/* Free-running time. A tick counter would not do: an emulator (or a debugger) that stalls loses ticks. */
uint64_t board_now_us(void);

/* 1 kHz interrupts so far. */
uint32_t board_systicks(void);

/* Next received byte of a stream, or -1. For a delimiter *stamp_us is its time of arrival. */
int32_t board_receive(uint32_t stream, uint64_t *stamp_us);
uint32_t board_overruns(void);

/* Sends one byte if the UART takes it. */
bool board_send(uint32_t stream, uint8_t byte);

/* Sleeps until an interrupt, unless a byte is waiting. */
void board_sleep(void);

/* Starts the watchdog: first stage (NMI) at half of the time, reset at the whole. Its registers stay locked between feeds. */
void board_watchdog_start(uint32_t watchdog_ms);

/* Feeds it; returns the us that were left to the first stage. */
uint32_t board_watchdog_feed(void);

void board_reset(void);

/* True while the lowest word of the stack is untouched; *free_bytes (if not NULL) gets what was never used. */
bool board_stack_intact(uint32_t *free_bytes);

#endif
