/* USB full-speed device of the STM32G474: PA11 (D-) and PA12 (D+), 48 MHz from HSI48, which the frames of the host trim. */
#ifndef EW_USBFS_H
#define EW_USBFS_H
#include <stdbool.h>

/* Attaches to the bus. False: no 48 MHz. */
bool usbfs_start(void);

void usbfs_interrupt(void);

#endif
