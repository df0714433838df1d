/* The bootloader on the STM32G474. It runs on HSI16 as after reset: one image takes about a third of a second, and the program
 * finds a clock tree that nobody touched. */
#include "boot_port.h"
#include "cortex.h"
#include "flash.h"
#include "reg.h"
#include "stm32g474.h"

#define BAUD_DIVIDER 16u /* 16 MHz: 1 Mbaud, as the program's link */

#define LED 5u
#define ENABLE 10u
#define PULSE 11u
#define BRAKES 12u

const boot_layout_t boot_layout = {
    .board = 1u,
    .slot = 0x08008000u,
    .slot_bytes = 480u * 1024u,
    .floor = FLASH_FLOOR,
    .page_bytes = FLASH_PAGE_BYTES,
};

void boot_nmi(void);

/* A word of flash that lost power half written has a wrong checksum, and reading it raises the NMI. What was read is no valid
 * record, and that is all that matters here. Anything else that raises it starts the part anew. */
void boot_nmi(void)
{
    if (!flash_forgive()) {
        cortex_reset();
    }
}

/* GPIO and USART2, as pins.c and uart.c set them up for the program; enable, pulse and brakes low before they are outputs. */
void boot_start(void)
{
    reg_set(RCC_AHB2ENR, RCC_AHB2ENR_GPIOA | RCC_AHB2ENR_GPIOC);
    reg_set(RCC_APB1ENR1, RCC_APB1ENR1_USART2);
    (void)reg_get(RCC_APB1ENR1);
    reg_put(GPIOC + GPIO_BSRR, (1u << (ENABLE + 16u)) | (1u << (PULSE + 16u)) | (1u << (BRAKES + 16u)));
    reg_field(GPIOC + GPIO_MODER, 2u * ENABLE, 2u, 1u);
    reg_field(GPIOC + GPIO_MODER, 2u * PULSE, 2u, 1u);
    reg_field(GPIOC + GPIO_MODER, 2u * BRAKES, 2u, 1u);
    reg_field(GPIOA + GPIO_MODER, 2u * LED, 2u, 1u);
    reg_field(GPIOA + GPIO_AFR, 4u * 2u, 4u, 7u);
    reg_field(GPIOA + GPIO_MODER, 2u * 2u, 2u, 2u);
    reg_put(USART2 + USART_BRR, BAUD_DIVIDER);
    reg_put(USART2 + USART_CR1, USART_CR1_TE | USART_CR1_UE);
}

bool boot_floor_erase(uint32_t page)
{
    return flash_erase(((FLASH_FLOOR - FLASH_BASE) / FLASH_PAGE_BYTES) + page);
}

bool boot_floor_write(uint32_t offset, uint32_t value)
{
    return flash_write(FLASH_FLOOR + offset, value, ~value);
}

void boot_print(const char *text)
{
    for (uint32_t i = 0u; text[i] != '\0'; i++) {
        (void)reg_wait(USART2 + USART_ISR, USART_ISR_TXFNF, USART_ISR_TXFNF, 100000u);
        reg_put(USART2 + USART_TDR, (uint32_t)(uint8_t)text[i]);
    }
}

/* Ten short flashes a second apart from every pattern of the program. */
void boot_wait(void)
{
    for (uint32_t flash = 0u; flash < 10u; flash++) {
        reg_put(GPIOA + GPIO_BSRR, ((flash & 1u) != 0u) ? (1u << LED) : (1u << (LED + 16u)));
        for (uint32_t i = 0u; i < 100000u; i++) {
            (void)reg_get(GPIOA + GPIO_IDR); /* 16 clocks a turn or so: 100 ms */
        }
        reg_put(IWDG_KR, IWDG_KR_FEED); /* it runs where an option byte starts it in hardware */
    }
}
