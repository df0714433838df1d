/* The bootloader on the emulated reference board: the slot and the version floor lie in RAM that the emulator fills. */
#include "boot_port.h"
#include "cortex.h"

#define FLOOR 0x00200000u
#define PAGE_BYTES 2048u

#define UART_DATA REG(0x40004000u)
#define UART_STATE REG(0x40004004u)
#define UART_CTRL REG(0x40004008u)
#define UART_DIVIDER REG(0x40004010u)

const boot_layout_t boot_layout = {
    .board = 2u,
    .slot = 0x00100000u,
    .slot_bytes = 480u * 1024u,
    .floor = FLOOR,
    .page_bytes = PAGE_BYTES,
};

void boot_nmi(void);

void boot_nmi(void)
{
    cortex_reset();
}

void boot_start(void)
{
    UART_DIVIDER = 25000000u / 921600u;
    UART_CTRL = 1u;
}

bool boot_floor_erase(uint32_t page)
{
    for (uint32_t at = 0u; at < PAGE_BYTES; at += 4u) {
        REG(FLOOR + (page * PAGE_BYTES) + at) = 0xFFFFFFFFu;
    }
    return true;
}

/* As flash does: bits only go from 1 to 0. */
bool boot_floor_write(uint32_t offset, uint32_t value)
{
    REG(FLOOR + offset) &= value;
    REG(FLOOR + offset + 4u) &= ~value;
    return true;
}

void boot_print(const char *text)
{
    for (uint32_t i = 0u; text[i] != '\0'; i++) {
        for (uint32_t spin = 0u; (spin < 1000000u) && ((UART_STATE & 1u) != 0u); spin++) {
        }
        UART_DATA = (uint32_t)(uint8_t)text[i];
    }
}

void boot_wait(void)
{
    for (volatile uint32_t i = 0u; i < 10000000u; i++) {
    }
}
