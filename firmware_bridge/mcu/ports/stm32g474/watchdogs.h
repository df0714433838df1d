/* The two watchdogs. WWDG, on the processor's clock, is the first stage: its early-wakeup interrupt says the last words. IWDG, on
 * its own oscillator, is the second: it resets whatever the clocks do. Neither can be switched off once it runs. */
#ifndef EW_WATCHDOGS_H
#define EW_WATCHDOGS_H
#include <stdbool.h>
#include <stdint.h>

/* First stage at half of the time, reset at the whole. False: IWDG did not take its settings; do not arm. */
bool watchdogs_start(uint32_t watchdog_ms);

/* Feeds both; returns the us that were left to the first stage. */
uint32_t watchdogs_feed(void);

/* In the first stage: gives the last words their time. IWDG still resets. */
void watchdogs_last_words(void);

/* RCC_CSR as EW_RESET_CAUSE_*; clears the flags for the next time. */
uint8_t watchdogs_reset_cause(void);

/* ---- arithmetic, tested on the host ---- */

#define LSI_HZ 32000u /* typical; 29.5 to 34 kHz over temperature and supply (DS12288, LSI) */
#define IWDG_STEP_HZ (LSI_HZ / 4u)

/* Reload value of IWDG for a time, prescaler 4: 125 us a step, up to 512 ms. */
uint32_t watchdogs_iwdg_reload(uint32_t ms);

/* Counter value (0x40 is the interrupt, 0x3F the reset) and prescaler exponent of WWDG for a time. False: out of its range. */
bool watchdogs_wwdg_counter(uint32_t clock_hz, uint32_t us, uint32_t *counter, uint32_t *exponent);

#endif
