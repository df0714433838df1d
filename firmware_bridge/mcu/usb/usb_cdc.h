/* The bytes of the virtual serial port. To the host they go in packets of what has gathered; from the host a packet is let in
 * only when all of it has room, so that nothing is lost and the host waits instead. */
#ifndef EW_USB_CDC_H
#define EW_USB_CDC_H
#include <stdbool.h>
#include <stdint.h>

/* For the main loop. */

/* A byte for the host. False: no room now. While no program on the host has the port open, it is thrown away, as on a wire
 * that nobody listens to: what a program finds when it opens the port is never old. */
bool usb_cdc_put(uint8_t byte);

/* Once a turn: starts what can be started. */
void usb_cdc_turn(void);

/* For the control pipe. listening: configured, awake, and a program on the host holds DTR. */
void usb_cdc_state(bool configured, bool listening);
void usb_cdc_halt(uint8_t address, bool on);
void usb_cdc_received(const uint8_t *bytes, uint32_t count);
void usb_cdc_sent(void);

/* Above: where received bytes go. Room is asked for before a packet is let in. */
uint32_t usb_port_room(void);
void usb_port_received(const uint8_t *bytes, uint32_t count);

#endif
