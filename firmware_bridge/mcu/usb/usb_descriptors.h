/* What the device says of itself: one virtual serial port (CDC ACM). */
#ifndef EW_USB_DESCRIPTORS_H
#define EW_USB_DESCRIPTORS_H
#include <stdint.h>

#define USB_SERIAL_WORDS 3u /* unique number of the part, 96 bits */

/* The bytes of a descriptor, and how many in *count. NULL: there is none of this type and index. A string lies in a buffer that
 * the next string overwrites. */
const uint8_t *usb_descriptor(uint16_t type_and_index, uint32_t *count);

/* The serial number, from which a host makes the name of the port. */
void usb_descriptor_serial(const uint32_t *words);

#endif
