#include "usb_cdc.h"

#include "usb_hal.h"

#define RING_BYTES 256u /* four packets: 0.2 ms of the bus, or the time that the interrupt needs to fetch */

/* The main loop writes head; everything else belongs to the interrupt. */
static struct {
    uint8_t bytes[RING_BYTES];
    volatile uint32_t head;
    volatile uint32_t tail;
    volatile bool configured;
    volatile bool listening;
    volatile bool sending;   /* a packet waits for the host to fetch it */
    volatile bool full;      /* the last one was full: an end must be marked, or the host waits for more */
    volatile bool receiving; /* a packet may come */
    bool halted_in;
    bool halted_out;
} port;

bool usb_cdc_put(uint8_t byte)
{
    const uint32_t head = port.head;
    if (!port.listening) {
        return true;
    }
    if ((head - port.tail) == RING_BYTES) {
        return false;
    }
    port.bytes[head % RING_BYTES] = byte;
    port.head = head + 1u;
    return true;
}

static bool can_send(void)
{
    return port.listening && !port.sending && !port.halted_in && (port.full || (port.head != port.tail));
}

static bool can_receive(void)
{
    return port.configured && !port.receiving && !port.halted_out && (usb_port_room() >= USB_PACKET_BYTES);
}

void usb_cdc_turn(void)
{
    if (can_send() || can_receive()) {
        usb_hal_kick();
    }
}

static void send_packet(void)
{
    uint8_t packet[USB_PACKET_BYTES];
    uint32_t count = 0u;
    uint32_t tail = port.tail;
    while ((count < USB_PACKET_BYTES) && (tail != port.head)) {
        packet[count] = port.bytes[tail % RING_BYTES];
        count++;
        tail++;
    }
    port.tail = tail;
    port.sending = true;
    port.full = count == USB_PACKET_BYTES;
    usb_hal_send(USB_DATA, packet, count);
}

void usb_service(void)
{
    if (can_send()) {
        send_packet();
    }
    if (can_receive()) {
        port.receiving = true;
        usb_hal_receive(USB_DATA);
    }
}

void usb_cdc_state(bool configured, bool listening)
{
    if (!configured) {
        port.receiving = false;
        port.halted_in = false;
        port.halted_out = false;
    }
    if (listening != port.listening) {
        port.tail = port.head; /* of before: nobody listened, or nobody does */
        if (port.sending) {
            usb_hal_cancel(USB_DATA);
        }
        port.sending = false;
        port.full = false;
    }
    port.configured = configured;
    port.listening = listening;
}

void usb_cdc_halt(uint8_t address, bool on)
{
    if (address == USB_DATA) {
        port.halted_out = on;
        port.receiving = false;
    } else if (address == (USB_IN | USB_DATA)) {
        port.halted_in = on;
        port.sending = false;
        port.full = false;
    } else {
        /* notifications: there are none */
    }
}

void usb_cdc_received(const uint8_t *bytes, uint32_t count)
{
    port.receiving = false;
    usb_port_received(bytes, count);
}

void usb_cdc_sent(void)
{
    port.sending = false;
}
