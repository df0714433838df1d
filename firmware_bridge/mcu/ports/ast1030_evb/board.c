/* The AST1030 evaluation board: Cortex-M4 at 200 MHz, 16550 UARTs with FIFOs, a watchdog of one stage.
 * Register names as in the AST1030 data sheet: UART, timer (TMC), watchdog (WDT). */
#include "board.h"
#include "cortex.h"
#include "rings.h"

#define CPU_HZ 200000000u

/* 16550: receive/transmit, interrupt enable, FIFO control, line control, modem control, line status; 24 MHz / 16 */
#define UART_DATA(base) REG((base) + 0x00u)
#define UART_IER(base) REG((base) + 0x04u) /* 1 receive, 2 transmitter empty */
#define UART_FCR(base) REG((base) + 0x08u) /* 7 FIFOs on and cleared, 0xC0 interrupt at 14 bytes (or 4 characters of silence) */
#define UART_LCR(base) REG((base) + 0x0Cu) /* 3 eight bits, 0x80 divisor access */
#define UART_MCR(base) REG((base) + 0x10u)
#define UART_LSR(base) REG((base) + 0x14u) /* 1 data, 2 overrun, 0x20 transmitter empty */

/* Timer 1 on the 1 MHz external clock, counting down from its reload value */
#define TIMER_VALUE REG(0x7E782000u)
#define TIMER_RELOAD REG(0x7E782004u)
#define TIMER_CTRL REG(0x7E782030u) /* 1 timer 1 on, 2 its external clock */

#define WDOG_RELOAD REG(0x7E785004u) /* us */
#define WDOG_RESTART REG(0x7E785008u)
#define WDOG_CTRL REG(0x7E78500Cu) /* 1 on, 2 reset the system, 0x10 1 MHz clock */
#define WDOG_KEY 0x4755u

static const uint32_t uart_base[BOARD_STREAMS] = {0x7E784000u, 0x7E783000u}; /* UART 5 and 1: the board's first two */
static uint64_t microseconds;
static uint32_t counter_last;
static uint64_t fed_us;
static uint32_t watchdog_us;

void Uart0_Handler(void);
void Uart1_Handler(void);

uint64_t board_now_us(void)
{
    const uint32_t mask = irq_off();
    const uint32_t now = ~TIMER_VALUE;
    microseconds += (uint32_t)(now - counter_last);
    counter_last = now;
    const uint64_t result = microseconds;
    irq_restore(mask);
    return result;
}

uint32_t board_systicks(void)
{
    return cortex_systicks();
}

static void uart_interrupt(uint32_t stream)
{
    const uint32_t base = uart_base[stream];
    UART_IER(base) = 1u; /* a transmit interrupt has done its work: it ended the sleep */
    uint32_t status = UART_LSR(base);
    while ((status & 1u) != 0u) {
        if ((status & 2u) != 0u) {
            ring_overrun(stream);
        }
        ring_put(stream, (uint8_t)UART_DATA(base));
        status = UART_LSR(base);
    }
}

void Uart0_Handler(void)
{
    uart_interrupt(BOARD_LINK);
}

void Uart1_Handler(void)
{
    uart_interrupt(BOARD_DRIVE);
}

bool board_send(uint32_t stream, uint8_t byte)
{
    const uint32_t base = uart_base[stream];
    const bool room = (UART_LSR(base) & 0x20u) != 0u;
    if (room) {
        UART_DATA(base) = byte;
    } else {
        UART_IER(base) = 3u;
    }
    return room;
}

void board_start(void)
{
    for (uint32_t stream = 0u; stream < BOARD_STREAMS; stream++) {
        const uint32_t base = uart_base[stream];
        UART_LCR(base) = 0x83u;
        UART_DATA(base) = 1u; /* 1.5 Mbaud */
        UART_IER(base) = 0u;
        UART_LCR(base) = 3u;
        UART_FCR(base) = 0xC7u;
        UART_MCR(base) = 0x0Bu;
        UART_IER(base) = 1u;
    }
    NVIC_ENABLE(8u);
    NVIC_ENABLE(47u);
    TIMER_RELOAD = 0xFFFFFFFFu;
    TIMER_CTRL |= 3u;
    counter_last = ~TIMER_VALUE;
    cortex_start_systick(CPU_HZ);
    irq_on();
}

/* One stage: nothing is called before the reset. */
void board_watchdog_start(uint32_t watchdog_ms)
{
    watchdog_us = watchdog_ms * 1000u;
    WDOG_RELOAD = watchdog_us;
    WDOG_RESTART = WDOG_KEY;
    WDOG_CTRL = 0x13u;
    fed_us = board_now_us();
}

/* The counter cannot be read back in the emulator: the margin is worked out from the clock. */
uint32_t board_watchdog_feed(void)
{
    const uint64_t now_us = board_now_us();
    const uint64_t since_us = now_us - fed_us;
    WDOG_RESTART = WDOG_KEY;
    fed_us = now_us;
    return (since_us < watchdog_us) ? (watchdog_us - (uint32_t)since_us) : 0u;
}

/* By elimination: a fault leaves a mark, a power-on leaves no record of a life; the reset pin cannot be told from the watchdog. */
uint8_t board_reset_cause(bool lived)
{
    return lived ? EW_RESET_CAUSE_WATCHDOG : EW_RESET_CAUSE_UNKNOWN;
}
