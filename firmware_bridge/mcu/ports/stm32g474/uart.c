#include "uart.h"

#include "board.h"
#include "clock.h"
#include "reg.h"
#include "rings.h"
#include "stm32g474.h"

#define DELIMITER 0u /* of COBS frames */
#define BURST 16u    /* bytes taken in one interrupt: the FIFO twice */

typedef struct {
    uint32_t base;
    uint32_t enable; /* register of the clock enable */
    uint32_t bit;
} usart_t;

static const usart_t usarts[BOARD_STREAMS] = {
    [BOARD_LINK] = {USART2, RCC_APB1ENR1, RCC_APB1ENR1_USART2},
    [BOARD_DRIVE] = {USART1, RCC_APB2ENR, RCC_APB2ENR_USART1},
    [BOARD_SERVO] = {USART3, RCC_APB1ENR1, RCC_APB1ENR1_USART3},
};

static struct {
    uint8_t bytes[UART_PACKET_BYTES];
    volatile uint32_t count; /* 0: no packet */
    volatile uint32_t sent;
} packet;

/* RM0440 37.5.8. With 8 samples a bit the lowest bit of the fraction is dropped and the rest moved down. */
bool uart_divider(uint32_t clock_hz, uint32_t baud, uint32_t *brr, bool *over8)
{
    if ((baud == 0u) || (baud > (clock_hz / 8u))) {
        return false;
    }
    *over8 = baud > (clock_hz / 16u);
    const uint32_t scaled = *over8 ? (clock_hz * 2u) : clock_hz;
    const uint32_t divider = (scaled + (baud / 2u)) / baud;
    if ((divider < 16u) || (divider > 0xFFFFu)) {
        return false;
    }
    const uint32_t used = *over8 ? (divider & ~1u) : divider;
    *brr = *over8 ? ((divider & 0xFFF0u) | ((divider & 0xFu) >> 1)) : divider;
    const uint32_t real = scaled / used;
    const uint32_t off = (real > baud) ? (real - baud) : (baud - real);
    return off <= (baud / 100u);
}

bool uart_start(uint32_t stream, uint32_t baud, bool half_duplex)
{
    const uint32_t base = usarts[stream].base;
    uint32_t brr = 0u;
    bool over8 = false;
    if (!uart_divider(CLOCK_HZ, baud, &brr, &over8)) {
        return false;
    }
    reg_set(usarts[stream].enable, usarts[stream].bit);
    (void)reg_get(usarts[stream].enable); /* the peripheral answers two clocks after its enable */
    reg_put(base + USART_CR1, 0u);
    reg_put(base + USART_BRR, brr);
    /* Of a stream of frames nothing is of use before its delimiter: an interrupt for that, and for every fourth byte. A bus of
     * servos has no delimiter: one for every byte. */
    const uint32_t wake = half_duplex ? USART_CR3_HDSEL : (USART_CR3_RXFTIE | (2u << USART_CR3_RXFTCFG_SHIFT));
    reg_put(base + USART_CR2, DELIMITER << USART_CR2_ADD_SHIFT);
    reg_put(base + USART_CR3, (2u << USART_CR3_TXFTCFG_SHIFT) | USART_CR3_EIE | wake);
    const uint32_t mode = USART_CR1_FIFOEN | USART_CR1_RE | USART_CR1_TE | (over8 ? USART_CR1_OVER8 : 0u) |
                          (half_duplex ? USART_CR1_RXFNEIE : USART_CR1_CMIE);
    reg_put(base + USART_CR1, mode);
    reg_put(base + USART_CR1, mode | USART_CR1_UE);
    return true;
}

bool uart_send(uint32_t stream, uint8_t byte)
{
    const uint32_t base = usarts[stream].base;
    const bool room = (reg_get(base + USART_ISR) & USART_ISR_TXFNF) != 0u;
    if (room) {
        reg_put(base + USART_TDR, byte);
    } else {
        reg_set(base + USART_CR3, USART_CR3_TXFTIE);
    }
    return room;
}

bool uart_packet_done(void)
{
    return packet.count == 0u;
}

bool uart_packet(uint32_t stream, const uint8_t *bytes, uint32_t count)
{
    const uint32_t base = usarts[stream].base;
    if ((packet.count != 0u) || (count == 0u) || (count > UART_PACKET_BYTES)) {
        return false;
    }
    for (uint32_t i = 0u; i < count; i++) {
        packet.bytes[i] = bytes[i];
    }
    packet.sent = 0u;
    packet.count = count;
    reg_clear(base + USART_CR1, USART_CR1_RE);
    reg_set(base + USART_CR3, USART_CR3_TXFTIE); /* the FIFO is empty: the interrupt comes at once */
    return true;
}

/* In the interrupt: refills the FIFO; behind the last byte waits for its last bit, then listens. */
static void move_packet(uint32_t base, uint32_t status)
{
    if (packet.count == 0u) {
        return;
    }
    while ((packet.sent < packet.count) && ((reg_get(base + USART_ISR) & USART_ISR_TXFNF) != 0u)) {
        reg_put(base + USART_TDR, packet.bytes[packet.sent]);
        packet.sent++;
        if (packet.sent == packet.count) {
            reg_put(base + USART_ICR, USART_ICR_TCCF);
            reg_set(base + USART_CR1, USART_CR1_TCIE);
            return;
        }
    }
    if (packet.sent < packet.count) {
        reg_set(base + USART_CR3, USART_CR3_TXFTIE);
    } else if ((status & USART_ISR_TC) != 0u) {
        reg_clear(base + USART_CR1, USART_CR1_TCIE);
        reg_set(base + USART_CR1, USART_CR1_RE);
        packet.count = 0u;
    } else {
        /* the last bytes are on their way */
    }
}

void uart_interrupt(uint32_t stream)
{
    const uint32_t base = usarts[stream].base;
    uint8_t bytes[BURST];
    uint32_t count = 0u;
    reg_put(base + USART_ICR, USART_ICR_CMCF); /* before the FIFO is read: a delimiter that comes now raises it again */
    uint32_t status = reg_get(base + USART_ISR);
    reg_clear(base + USART_CR3, USART_CR3_TXFTIE); /* it has done its work: it ended the sleep */
    if ((status & USART_ISR_ERRORS) != 0u) {
        reg_put(base + USART_ICR, USART_ISR_ERRORS);
        if ((status & USART_ISR_ORE) != 0u) {
            ring_overrun(stream);
        }
    }
    while ((count < BURST) && ((status & USART_ISR_RXFNE) != 0u)) {
        bytes[count] = (uint8_t)reg_get(base + USART_RDR);
        count++;
        status = reg_get(base + USART_ISR);
    }
    ring_write(stream, bytes, count);
    if (stream == BOARD_SERVO) {
        move_packet(base, status);
    }
}
