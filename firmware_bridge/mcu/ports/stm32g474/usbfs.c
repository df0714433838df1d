#include "usbfs.h"

#include "board.h"
#include "clock.h"
#include "reg.h"
#include "rings.h"
#include "stm32g474.h"
#include "usb_cdc.h"
#include "usb_descriptors.h"
#include "usb_device.h"
#include "usb_hal.h"

#define STARTUP_LOOKS 100u /* reads of a register: more than the 1 us that the transceiver takes (DS12288, USB startup time) */
#define EVENTS 8u          /* one interrupt; six is all that can be waiting */

/* Packet memory: the table of buffers, then the buffers. Two bytes an address, as the bus sees it. */
#define TABLE_BYTES (8u * USB_ENDPOINTS)
#define RX_CONTROL 0x040u
#define TX_CONTROL 0x080u
#define RX_DATA 0x0C0u
#define TX_DATA 0x100u
#define TX_NOTIFY 0x140u
#define RX_SIZE 0x8400u /* of a buffer for 64 bytes: two blocks of 32 (RM0440 45.6.2, table of NUM_BLOCK) */

_Static_assert(TABLE_BYTES <= RX_CONTROL, "table");
_Static_assert((TX_NOTIFY + USB_NOTIFY_PACKET_BYTES) <= USB_PMA_BYTES, "packet memory");
_Static_assert(USB_PACKET_BYTES == 64u, "RX_SIZE and the places of the buffers");

static const uint32_t tx_buffer[USB_ENDPOINTS] = {TX_CONTROL, TX_DATA, TX_NOTIFY};
static const uint32_t rx_buffer[USB_ENDPOINTS] = {RX_CONTROL, RX_DATA, 0u};

/* Fields of an endpoint register that a written one turns over. */
#define TX_FIELD (USB_EP_DTOG_TX | USB_EP_STAT_TX)
#define RX_FIELD (USB_EP_DTOG_RX | USB_EP_STAT_RX)
#define KEPT (USB_EP_TYPE | USB_EP_KIND | USB_EP_EA)
#define BOTH_DONE (USB_EP_CTR_TX | USB_EP_CTR_RX)

/* Makes the bits of mask (of the fields that turn over) what they shall be, and leaves everything else. */
static void change(uint32_t endpoint, uint32_t mask, uint32_t bits)
{
    const uint32_t old = reg16_get(USB_EP(endpoint));
    reg16_put(USB_EP(endpoint), (old & KEPT) | BOTH_DONE | ((old ^ bits) & mask));
}

/* Takes note of what is done (USB_EP_CTR_*): a written zero clears. */
static void noted(uint32_t endpoint, uint32_t done)
{
    reg16_put(USB_EP(endpoint), (reg16_get(USB_EP(endpoint)) & KEPT) | (BOTH_DONE & ~done));
}

/* Everything of an endpoint at once; what was done before is forgotten. */
static void set_up(uint32_t endpoint, uint32_t type, uint32_t bits)
{
    const uint32_t old = reg16_get(USB_EP(endpoint));
    reg16_put(USB_EP(endpoint), type | endpoint | ((old ^ bits) & (TX_FIELD | RX_FIELD)));
}

static uint32_t table_entry(uint32_t endpoint, uint32_t part)
{
    return USB_PMA + (8u * endpoint) + part;
}

/* After a reset of the bus nothing but endpoint 0 answers, and that to address 0. */
static void begin(void)
{
    for (uint32_t endpoint = 0u; endpoint < USB_ENDPOINTS; endpoint++) {
        reg16_put(table_entry(endpoint, USB_TABLE_TX_ADDRESS), tx_buffer[endpoint]);
        reg16_put(table_entry(endpoint, USB_TABLE_TX_COUNT), 0u);
        reg16_put(table_entry(endpoint, USB_TABLE_RX_ADDRESS), rx_buffer[endpoint]);
        reg16_put(table_entry(endpoint, USB_TABLE_RX_COUNT), RX_SIZE);
    }
    usb_hal_configure(false);
    set_up(USB_CONTROL, USB_EP_TYPE_CONTROL, USB_EP_TX_NAK | USB_EP_RX_NAK);
    reg16_put(USB_DADDR, USB_DADDR_EF);
}

bool usbfs_start(void)
{
    const uint32_t number[USB_SERIAL_WORDS] = {reg_get(UID), reg_get(UID + 4u), reg_get(UID + 8u)};
    if (!clock_start_usb()) {
        return false;
    }
    reg_set(RCC_APB1ENR1, RCC_APB1ENR1_USB);
    (void)reg_get(RCC_APB1ENR1);
    reg16_put(USB_CNTR, USB_CNTR_FRES); /* the transceiver on, everything else held in reset */
    for (uint32_t i = 0u; i < STARTUP_LOOKS; i++) {
        (void)reg16_get(USB_CNTR);
    }
    reg16_put(USB_CNTR, 0u);
    reg16_put(USB_ISTR, 0u);
    reg16_put(USB_BTABLE, 0u);
    begin();
    usb_device_start(number);
    reg16_put(USB_CNTR, USB_CNTR_CTRM | USB_CNTR_PMAOVRM | USB_CNTR_WKUPM | USB_CNTR_SUSPM | USB_CNTR_RESETM);
    reg16_put(USB_BCDR, USB_BCDR_DPPU); /* last: the pull-up tells the host that somebody is there */
    return true;
}

void usb_hal_address(uint8_t address)
{
    reg16_put(USB_DADDR, USB_DADDR_EF | address);
}

void usb_hal_configure(bool on)
{
    set_up(USB_DATA, USB_EP_TYPE_BULK, on ? (USB_EP_TX_NAK | USB_EP_RX_NAK) : 0u);
    set_up(USB_NOTIFY, USB_EP_TYPE_INTERRUPT, on ? USB_EP_TX_NAK : 0u);
}

void usb_hal_send(uint8_t endpoint, const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0u; i < count; i += 2u) {
        const uint32_t high = ((i + 1u) < count) ? bytes[i + 1u] : 0u;
        reg16_put(USB_PMA + tx_buffer[endpoint] + i, bytes[i] | (high << 8));
    }
    reg16_put(table_entry(endpoint, USB_TABLE_TX_COUNT), count);
    change(endpoint, USB_EP_STAT_TX, USB_EP_TX_VALID);
}

void usb_hal_cancel(uint8_t endpoint)
{
    change(endpoint, USB_EP_STAT_TX, USB_EP_TX_NAK);
}

void usb_hal_receive(uint8_t endpoint)
{
    change(endpoint, USB_EP_STAT_RX, USB_EP_RX_VALID);
}

void usb_hal_refuse(void)
{
    change(USB_CONTROL, USB_EP_STAT_TX | USB_EP_STAT_RX, USB_EP_TX_STALL | USB_EP_RX_STALL);
}

void usb_hal_halt(uint8_t address, bool on)
{
    const uint32_t endpoint = (uint32_t)address & 0xFu;
    if ((address & USB_IN) != 0u) {
        change(endpoint, on ? USB_EP_STAT_TX : TX_FIELD, on ? USB_EP_TX_STALL : USB_EP_TX_NAK);
    } else {
        change(endpoint, on ? USB_EP_STAT_RX : RX_FIELD, on ? USB_EP_RX_STALL : USB_EP_RX_NAK);
    }
}

void usb_hal_kick(void)
{
    reg_put(NVIC_ISPR(IRQ_USB_LP), 1u << (IRQ_USB_LP % 32u));
}

uint32_t usb_port_room(void)
{
    return ring_room(BOARD_LINK);
}

void usb_port_received(const uint8_t *bytes, uint32_t count)
{
    ring_write(BOARD_LINK, bytes, count);
}

/* A packet of the host. It is copied before it is noted: until then the controller keeps the buffer as it is. */
static void take_packet(uint32_t endpoint, bool setup)
{
    uint8_t bytes[USB_PACKET_BYTES];
    uint32_t count = reg16_get(table_entry(endpoint, USB_TABLE_RX_COUNT)) & USB_TABLE_COUNT;
    count = (count > USB_PACKET_BYTES) ? USB_PACKET_BYTES : count;
    for (uint32_t i = 0u; i < count; i += 2u) {
        const uint32_t both = reg16_get(USB_PMA + rx_buffer[endpoint] + i);
        bytes[i] = (uint8_t)(both & 0xFFu);
        bytes[i + 1u] = (uint8_t)(both >> 8); /* count is at most even: the last place is there */
    }
    noted(endpoint, USB_EP_CTR_RX);
    if (!setup) {
        usb_on_out((uint8_t)endpoint, bytes, count);
    } else if (count == USB_SETUP_BYTES) {
        usb_on_setup(bytes);
    } else {
        usb_hal_refuse();
    }
}

/* One endpoint has finished something. What the host fetched came before what it sent, except that a SETUP makes the rest
 * of the transfer before it pointless. */
static void finish(uint32_t endpoint)
{
    const uint32_t state = reg16_get(USB_EP(endpoint));
    const bool received = (state & USB_EP_CTR_RX) != 0u;
    const bool setup = received && ((state & USB_EP_SETUP) != 0u);
    if ((state & USB_EP_CTR_TX) != 0u) {
        noted(endpoint, USB_EP_CTR_TX);
        if (!setup) {
            usb_on_in((uint8_t)endpoint);
        }
    }
    if (received) {
        take_packet(endpoint, setup);
    }
}

/* The flags in the order in which their causes can have come. */
static void bus_events(uint32_t flags)
{
    if ((flags & USB_ISTR_PMAOVR) != 0u) {
        reg16_put(USB_ISTR, ~USB_ISTR_PMAOVR & 0xFFFFu);
        ring_overrun(BOARD_LINK); /* the memory was too slow for a packet; the host sends it again */
    }
    if ((flags & USB_ISTR_SUSP) != 0u) {
        reg16_put(USB_CNTR, reg16_get(USB_CNTR) | USB_CNTR_FSUSP); /* first: or the flag comes again at once */
        reg16_put(USB_ISTR, ~USB_ISTR_SUSP & 0xFFFFu);
        usb_on_suspend(true);
    }
    if ((flags & (USB_ISTR_WKUP | USB_ISTR_RESET)) != 0u) {
        reg16_put(USB_CNTR, reg16_get(USB_CNTR) & ~USB_CNTR_FSUSP);
        reg16_put(USB_ISTR, ~USB_ISTR_WKUP & 0xFFFFu);
        usb_on_suspend(false);
    }
    if ((flags & USB_ISTR_RESET) != 0u) {
        reg16_put(USB_ISTR, ~USB_ISTR_RESET & 0xFFFFu);
        begin();
        usb_on_reset();
    }
}

void usbfs_interrupt(void)
{
    bus_events(reg16_get(USB_ISTR));
    for (uint32_t i = 0u; i < EVENTS; i++) {
        const uint32_t flags = reg16_get(USB_ISTR);
        if ((flags & USB_ISTR_CTR) == 0u) {
            break;
        }
        finish(flags & USB_ISTR_EP_ID);
    }
    usb_service();
}
