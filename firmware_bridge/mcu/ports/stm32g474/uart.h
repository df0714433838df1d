/* USART1 (drive stream), USART2 (host link) and USART3 (servo bus), with their 8-byte FIFOs. */
#ifndef EW_UART_H
#define EW_UART_H
#include <stdbool.h>
#include <stdint.h>

/* BRR for a rate at 16 or 8 times oversampling. False: farther than 1 % from the rate, or out of range. */
bool uart_divider(uint32_t clock_hz, uint32_t baud, uint32_t *brr, bool *over8);

#define UART_PACKET_BYTES 64u

/* Starts one (BOARD_*). half_duplex: one wire, as servo buses have it. False: the rate cannot be made. */
bool uart_start(uint32_t stream, uint32_t baud, bool half_duplex);

/* One byte, if there is room; otherwise an interrupt comes when half of the FIFO is free, so that a sleep ends. */
bool uart_send(uint32_t stream, uint8_t byte);

/* Half duplex: the bytes of one packet, back to back with the receiver off; after the last bit the receiver is on again. False: a
 * packet is still on its way, or it is too long. */
bool uart_packet(uint32_t stream, const uint8_t *bytes, uint32_t count);
bool uart_packet_done(void);

/* Empties the receive FIFO into the ring, and moves a packet on. */
void uart_interrupt(uint32_t stream);

#endif
