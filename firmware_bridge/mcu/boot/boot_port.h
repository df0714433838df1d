/* What a board gives to the bootloader. */
#ifndef EW_BOOT_PORT_H
#define EW_BOOT_PORT_H
#include <stdbool.h>
#include <stdint.h>

#include "verify.h"

/* Pins to their safe levels, the link's UART, nothing else: what the program finds is a part as after reset. */
void boot_start(void);

/* Which board, where the slot and the two pages of the version floor are. Keys are not filled in. */
void boot_policy(policy_t *policy);
const uint8_t *boot_slot(void);
const uint8_t *boot_floor_pages(void);
uint32_t boot_floor_page_bytes(void);

/* Erases a page of the floor (0 or 1); writes one record at an offset. False: it did not take. */
bool boot_floor_erase(uint32_t page);
bool boot_floor_write(uint32_t offset, uint32_t value);

void boot_print(const char *text);

/* About a second, with a light that says: no program. */
void boot_wait(void);

/* Hands the processor to a program whose vector table is at `vectors`. */
void boot_jump(uint32_t vectors) __attribute__((noreturn));

#endif
