#include "watchdogs.h"

#include "clock.h"
#include "ew_protocol.h"
#include "reg.h"
#include "stm32g474.h"

#define WWDG_INTERRUPT 0x40u
#define WWDG_LONGEST 0x7Fu
#define WWDG_EXPONENTS 8u
#define LOOKS 200000u /* the update takes five LSI periods, 170 us (RM0440 42.4.6); this is 5 ms and more */

static uint32_t counter_reload;
static uint32_t counter_exponent;

uint32_t watchdogs_iwdg_reload(uint32_t ms)
{
    const uint32_t steps = (ms * IWDG_STEP_HZ) / 1000u;
    return (steps > 4096u) ? 4095u : ((steps == 0u) ? 0u : (steps - 1u));
}

bool watchdogs_wwdg_counter(uint32_t clock_hz, uint32_t us, uint32_t *counter, uint32_t *exponent)
{
    for (uint32_t e = 0u; e < WWDG_EXPONENTS; e++) {
        const uint64_t steps = ((uint64_t)us * clock_hz) / (1000000u * ((uint64_t)4096u << e));
        if (steps <= (WWDG_LONGEST - WWDG_INTERRUPT)) {
            *counter = WWDG_INTERRUPT + (uint32_t)steps;
            *exponent = e;
            return steps > 0u;
        }
    }
    return false;
}

bool watchdogs_start(uint32_t watchdog_ms)
{
    reg_put(IWDG_KR, IWDG_KR_START); /* first: from here on a failure below ends in a reset after 512 ms */
    reg_put(IWDG_KR, IWDG_KR_ACCESS);
    reg_put(IWDG_PR, 0u); /* divide by 4 */
    reg_put(IWDG_RLR, watchdogs_iwdg_reload(watchdog_ms));
    const bool taken = reg_wait(IWDG_SR, 7u, 0u, LOOKS);
    reg_put(IWDG_KR, IWDG_KR_FEED);
    const bool first =
        watchdogs_wwdg_counter(CLOCK_HZ, (watchdog_ms * 1000u) / 2u, &counter_reload, &counter_exponent);
    if (first) {
        reg_set(RCC_APB1ENR1, RCC_APB1ENR1_WWDG);
        (void)reg_get(RCC_APB1ENR1);
        /* No lower edge of the window: two ticks that catch up after a stall may feed in quick succession. */
        reg_put(WWDG_SR, 0u);
        reg_put(WWDG_CFR, (counter_exponent << WWDG_CFR_WDGTB_SHIFT) | WWDG_CFR_EWI | WWDG_LONGEST);
        reg_put(WWDG_CR, WWDG_CR_WDGA | counter_reload);
    }
    return taken && first;
}

uint32_t watchdogs_feed(void)
{
    const uint32_t left = (reg_get(WWDG_CR) & WWDG_LONGEST) - WWDG_INTERRUPT;
    reg_put(WWDG_CR, WWDG_CR_WDGA | counter_reload);
    reg_put(IWDG_KR, IWDG_KR_FEED);
    return (uint32_t)(((uint64_t)left * ((uint64_t)4096u << counter_exponent) * 1000000u) / CLOCK_HZ);
}

void watchdogs_last_words(void)
{
    reg_put(WWDG_CR, WWDG_CR_WDGA | WWDG_LONGEST);
    reg_put(WWDG_SR, 0u);
}

uint8_t watchdogs_reset_cause(void)
{
    const uint32_t flags = reg_get(RCC_CSR);
    reg_set(RCC_CSR, RCC_CSR_RMVF);
    if ((flags & (RCC_CSR_IWDGRSTF | RCC_CSR_WWDGRSTF)) != 0u) {
        return EW_RESET_CAUSE_WATCHDOG;
    }
    if ((flags & RCC_CSR_BORRSTF) != 0u) {
        return EW_RESET_CAUSE_POWER_ON; /* set at every power-on; a brown-out deep enough to reset is one */
    }
    return ((flags & RCC_CSR_SFTRSTF) != 0u) ? EW_RESET_CAUSE_SOFTWARE : EW_RESET_CAUSE_UNKNOWN;
}
