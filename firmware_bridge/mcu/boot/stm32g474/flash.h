/* The part's own flash: one page, one double word. RM0440, section 5. */
#ifndef EW_FLASH_H
#define EW_FLASH_H
#include <stdbool.h>
#include <stdint.h>

#define FLASH_BASE 0x08000000u
#define FLASH_PAGE_BYTES 2048u /* with two banks (option byte DBANK = 1, as delivered) */
#define FLASH_FLOOR 0x08007000u /* the last two pages below the slot */

/* Page of bank 1. */
bool flash_erase(uint32_t page);
/* A double word at an address that is a multiple of 8 and erased. */
bool flash_write(uint32_t address, uint32_t low, uint32_t high);

/* Clears a double checksum error. False: there was none. */
bool flash_forgive(void);

#endif
