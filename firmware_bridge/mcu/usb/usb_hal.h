/* What a full-speed device controller does for the stack above it, and what it tells it. Back end: registers (STM32 USB FS).
 *
 * Everything here runs in the controller's interrupt, except usb_hal_kick. Nothing waits: a packet that cannot be taken now
 * leaves the endpoint shut, and the controller answers NAK until it is opened again. */
#ifndef EW_USB_HAL_H
#define EW_USB_HAL_H
#include <stdbool.h>
#include <stdint.h>

#define USB_PACKET_BYTES 64u       /* endpoint 0 and bulk at full speed (USB 2.0, 5.5.3 and 5.8.3) */
#define USB_NOTIFY_PACKET_BYTES 16u /* SERIAL_STATE has 10 bytes (CDC PSTN 1.2, 6.5.4) */
#define USB_SETUP_BYTES 8u
#define USB_IN 0x80u               /* of an endpoint address: to the host */

enum { USB_CONTROL = 0, USB_DATA = 1, USB_NOTIFY = 2, USB_ENDPOINTS = 3 };

/* Below the stack. */

/* The address to answer to from now on. */
void usb_hal_address(uint8_t address);

/* Endpoints of the configuration on (they begin with DATA0, and answer NAK) or off (they do not answer). */
void usb_hal_configure(bool on);

/* A packet for the host to fetch, USB_PACKET_BYTES at most. usb_on_in follows when the host has acknowledged it. */
void usb_hal_send(uint8_t endpoint, const uint8_t *bytes, uint32_t count);

/* Withdraws a packet that nobody fetched. */
void usb_hal_cancel(uint8_t endpoint);

/* One packet may come. */
void usb_hal_receive(uint8_t endpoint);

/* Endpoint 0 answers STALL until the next SETUP. */
void usb_hal_refuse(void);

/* Halts an endpoint (an address, with USB_IN), or lets it go on with DATA0, answering NAK. */
void usb_hal_halt(uint8_t address, bool on);

/* For the main loop: lets the interrupt come, so that usb_service runs. */
void usb_hal_kick(void);

/* Above the controller: what it reports. */

void usb_on_reset(void);
void usb_on_suspend(bool suspended);
void usb_on_setup(const uint8_t *setup);
void usb_on_out(uint8_t endpoint, const uint8_t *bytes, uint32_t count);
void usb_on_in(uint8_t endpoint);

/* After every other report: opens endpoints that may be opened. */
void usb_service(void);

#endif
