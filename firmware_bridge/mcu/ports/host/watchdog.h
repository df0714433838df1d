/* A two-stage watchdog for a process: a real-time timer that interrupts whatever hangs, as an NMI would. */
#ifndef EDGEWAM_HOST_WATCHDOG_H
#define EDGEWAM_HOST_WATCHDOG_H
#include "ew.h"

/* Starts it. The first stage comes after half of watchdog_ms without a feed: the program counter is marked in noinit and
 * the drive is told to switch off. The second, after the whole: the process executes itself anew with argv, which is its reset.
 * *drive_stream is the descriptor of the drive stream, or negative. argv must stay valid. */
void watchdog_start(uint32_t watchdog_ms, volatile ew_noinit_t *noinit, const volatile int *drive_stream,
                    const volatile uint32_t *tick, char **argv);

/* Feeds it; returns the time in us that was left to the first stage. */
uint32_t watchdog_feed(void);

#endif
