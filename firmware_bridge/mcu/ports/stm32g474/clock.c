#include "clock.h"

#include "reg.h"
#include "stm32g474.h"

#define HSE_HZ 24000000u /* X3 of the NUCLEO-G474RE (UM2505, section 6.7) */
#define HSI_HZ 16000000u
#define PLL_N 85u
#define PLL_R 2u
#define HSE_M 6u
#define HSI_M 4u
#define FLASH_WAIT_STATES 4u /* range 1 boost, up to 170 MHz (RM0440 table 29) */
#define LOOKS 200000u        /* more than the 2 ms that the crystal may take, at 16 MHz */

_Static_assert((((HSE_HZ / HSE_M) * PLL_N) / PLL_R) == CLOCK_HZ, "crystal");
_Static_assert((((HSI_HZ / HSI_M) * PLL_N) / PLL_R) == CLOCK_HZ, "internal oscillator");
_Static_assert(((HSE_HZ / HSE_M) >= 2660000u) && ((HSE_HZ / HSE_M) <= 16000000u), "PLL input, DS12288 table 45");
_Static_assert(((HSE_HZ / HSE_M) * PLL_N) <= 344000000u, "PLL oscillator, range 1");

#define PLLCFGR(source, m) \
    ((source) | (((m)-1u) << 4) | (PLL_N << 8) | (1u << 24) | (((PLL_R / 2u) - 1u) << 25))

static void speed_up(void)
{
    /* RM0440 6.1.5: half the AHB clock, boost, wait states, switch, at least 1 us, whole AHB clock. */
    reg_field(RCC_CFGR, RCC_CFGR_HPRE_SHIFT, 4u, RCC_CFGR_HPRE_2);
    reg_field(PWR_CR1, PWR_CR1_VOS_SHIFT, 2u, 1u);
    reg_clear(PWR_CR5, PWR_CR5_R1MODE);
    (void)reg_wait(PWR_SR2, PWR_SR2_VOSF, 0u, LOOKS);
    reg_put(FLASH_ACR, FLASH_WAIT_STATES | FLASH_ACR_PRFTEN | FLASH_ACR_ICEN | FLASH_ACR_DCEN);
    (void)reg_wait(FLASH_ACR, 0xFu, FLASH_WAIT_STATES, LOOKS);
    reg_field(RCC_CFGR, 0u, 2u, RCC_CFGR_SW_PLL);
    (void)reg_wait(RCC_CFGR, 0xCu, RCC_CFGR_SWS_PLL, LOOKS);
    for (uint32_t i = 0u; i < 100u; i++) {
        (void)reg_get(RCC_CFGR); /* 100 reads at 85 MHz: more than 1 us */
    }
    reg_field(RCC_CFGR, RCC_CFGR_HPRE_SHIFT, 4u, RCC_CFGR_HPRE_1);
}

bool clock_start(void)
{
    reg_set(RCC_APB1ENR1, RCC_APB1ENR1_PWR);
    reg_set(RCC_CR, RCC_CR_HSION | RCC_CR_HSEON);
    const bool crystal = reg_wait(RCC_CR, RCC_CR_HSERDY, RCC_CR_HSERDY, LOOKS);
    reg_clear(RCC_CR, RCC_CR_PLLON);
    (void)reg_wait(RCC_CR, RCC_CR_PLLRDY, 0u, LOOKS);
    reg_put(RCC_PLLCFGR, crystal ? PLLCFGR(3u, HSE_M) : PLLCFGR(2u, HSI_M));
    reg_set(RCC_CR, RCC_CR_PLLON);
    if (reg_wait(RCC_CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY, LOOKS)) {
        speed_up();
    }
    if (crystal) {
        reg_set(RCC_CR, RCC_CR_CSSON);
    }
    return crystal;
}

void clock_start_counter(void)
{
    reg_set(RCC_APB1ENR1, RCC_APB1ENR1_TIM2);
    (void)reg_get(RCC_APB1ENR1); /* the peripheral answers two clocks after its enable */
    reg_put(TIM2_PSC, (CLOCK_HZ / 1000000u) - 1u);
    reg_put(TIM2_ARR, 0xFFFFFFFFu);
    reg_put(TIM2_EGR, 1u); /* take the prescaler over now */
    reg_put(TIM2_CR1, 1u);
}

static bool start_48_mhz(void)
{
    reg_set(RCC_CRRCR, RCC_CRRCR_HSI48ON);
    const bool ready = reg_wait(RCC_CRRCR, RCC_CRRCR_HSI48RDY, RCC_CRRCR_HSI48RDY, LOOKS);
    if (ready) {
        reg_field(RCC_CCIPR, RCC_CCIPR_CLK48_SHIFT, 2u, 0u);
    }
    return ready;
}

bool clock_start_usb(void)
{
    if (!start_48_mhz()) {
        return false;
    }
    reg_set(RCC_APB1ENR1, RCC_APB1ENR1_CRS);
    (void)reg_get(RCC_APB1ENR1);
    /* RM0440 8.4: 48 000 clocks a frame; an error below 34 of them is left alone (half a step of 0.14 %). */
    reg_put(CRS_CFGR, (2u << CRS_CFGR_SYNCSRC_SHIFT) | (34u << CRS_CFGR_FELIM_SHIFT) | ((48000u - 1u) << CRS_CFGR_RELOAD_SHIFT));
    reg_set(CRS_CR, CRS_CR_AUTOTRIMEN | CRS_CR_CEN);
    return true;
}

uint32_t clock_random(void)
{
    if (!start_48_mhz()) {
        return 0u;
    }
    reg_set(RCC_AHB2ENR, RCC_AHB2ENR_RNG);
    (void)reg_get(RCC_AHB2ENR);
    reg_put(RNG_CR, RNG_CR_RNGEN);
    const bool ready = reg_wait(RNG_SR, RNG_SR_DRDY | RNG_SR_FAULTS, RNG_SR_DRDY, LOOKS);
    const uint32_t number = ready ? reg_get(RNG_DR) : 0u;
    reg_put(RNG_CR, 0u);
    return number;
}
