/* What a board gives to the bootloader. */
#ifndef EW_BOOT_PORT_H
#define EW_BOOT_PORT_H
#include <stdbool.h>
#include <stdint.h>

#include "verify.h"

/* Pins to their safe levels, the link's UART, nothing else: what the program finds is a part as after reset. */
void boot_start(void);

/* Where things are on this board. */
typedef struct {
    uint32_t board;
    uint32_t slot; /* address */
    uint32_t slot_bytes;
    uint32_t floor; /* address of the two pages of the version floor, one behind the other */
    uint32_t page_bytes;
} boot_layout_t;

extern const boot_layout_t boot_layout;

/* Erases a page of the floor (0 or 1); writes one record at an offset. False: it did not take. */
bool boot_floor_erase(uint32_t page);
bool boot_floor_write(uint32_t offset, uint32_t value);

void boot_print(const char *text);

/* About a second, with a light that says: no program. */
void boot_wait(void);

/* Hands the processor to a program whose vector table is at `vectors`. */
void boot_jump(uint32_t vectors) __attribute__((noreturn));

#endif
