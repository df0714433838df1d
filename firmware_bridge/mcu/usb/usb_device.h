/* The control pipe: enumeration (USB 2.0, chapter 9) and the three requests of a virtual serial port (CDC PSTN 1.2, 6.3). */
#ifndef EW_USB_DEVICE_H
#define EW_USB_DEVICE_H
#include <stdint.h>

/* Before the controller is started. words: USB_SERIAL_WORDS of the part's unique number. */
void usb_device_start(const uint32_t *words);

#endif
