/* The LM3S6965 evaluation board: Cortex-M3, PL011 UARTs, and a watchdog that cannot be switched off once it was started.
 * Stellaris LM3S6965 data sheet: system control (5), watchdog (10), general-purpose timers (9), UART (12).
 *
 * Its timers cannot be read in the emulator, so that SysTick is the free-running counter (24 bits, wraps after 1.3 s) and timer 0
 * is the 1 kHz interrupt. */
#include "board.h"
#include "cortex.h"
#include "rings.h"

#define CPU_HZ 12500000u /* as it comes out of reset */
#define CYCLES_PER_2US 25u
#define COUNTER_MASK 0xFFFFFFu

#define RCGC0 REG(0x400FE100u) /* clocks: 8 watchdog */
#define RCGC1 REG(0x400FE104u) /* clocks: 1 UART 0, 2 UART 1, 0x10000 timer 0 */

/* PL011. Arm DDI 0183 */
#define UART_DATA(base) REG((base) + 0x00u)
#define UART_ERRORS(base) REG((base) + 0x04u)
#define UART_FLAGS(base) REG((base) + 0x18u) /* 0x10 receive empty, 0x20 transmit full */
#define UART_IBRD(base) REG((base) + 0x24u)
#define UART_FBRD(base) REG((base) + 0x28u)
#define UART_LINE(base) REG((base) + 0x2Cu)    /* 0x60 eight bits, 0x10 FIFOs */
#define UART_CTRL(base) REG((base) + 0x30u)    /* 1 on, 0x100 transmit, 0x200 receive */
#define UART_LEVEL(base) REG((base) + 0x34u)   /* interrupt at an eighth of the FIFO, both ways */
#define UART_MASK(base) REG((base) + 0x38u)    /* 0x10 receive, 0x20 transmit, 0x40 receive timeout */
#define UART_CLEAR(base) REG((base) + 0x44u)
#define MASK_RECEIVE 0x50u
#define MASK_TRANSMIT 0x20u
/* 12.5 MHz / (16 * (1 + 36/64)) = 500 kbaud exactly */
#define BAUD_WHOLE 1u
#define BAUD_64TH 36u

#define TIMER_CFG REG(0x40030000u)  /* 0: 32 bits */
#define TIMER_MODE REG(0x40030004u) /* 2: periodic */
#define TIMER_CTRL REG(0x4003000Cu)
#define TIMER_MASK REG(0x40030018u)
#define TIMER_CLEAR REG(0x40030024u)
#define TIMER_LOAD REG(0x40030028u)

#define WDOG_LOAD REG(0x40000000u)
#define WDOG_VALUE REG(0x40000004u)
#define WDOG_CTRL REG(0x40000008u) /* 1 interrupt on (latches until reset), 2 reset on */
#define WDOG_CLEAR REG(0x4000000Cu)
#define WDOG_LOCK REG(0x40000C00u)
#define WDOG_KEY 0x1ACCE551u

static const uint32_t uart_base[BOARD_STREAMS] = {0x4000C000u, 0x4000D000u};
static uint64_t cycles;
static uint32_t cycles_last;
static volatile uint32_t milliseconds;

void Uart0_Handler(void);
void Uart1_Handler(void);
void Timer0_Handler(void);

uint64_t board_now_us(void)
{
    const uint32_t mask = irq_off();
    const uint32_t now = ~SYST_CVR & COUNTER_MASK;
    cycles += (now - cycles_last) & COUNTER_MASK; /* read at 1 kHz at least; the watchdog resets long before it wraps */
    cycles_last = now;
    const uint64_t result = cycles;
    irq_restore(mask);
    return (result * 2u) / CYCLES_PER_2US;
}

uint32_t board_systicks(void)
{
    return milliseconds;
}

void Timer0_Handler(void)
{
    TIMER_CLEAR = 1u;
    milliseconds++;
}

static void uart_interrupt(uint32_t stream)
{
    const uint32_t base = uart_base[stream];
    UART_CLEAR(base) = 0x7FFu;
    UART_MASK(base) = MASK_RECEIVE; /* a transmit interrupt has done its work: it ended the sleep */
    if ((UART_ERRORS(base) & 8u) != 0u) {
        UART_ERRORS(base) = 0u;
        ring_overrun(stream);
    }
    while ((UART_FLAGS(base) & 0x10u) == 0u) {
        ring_put(stream, (uint8_t)UART_DATA(base));
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
    const bool room = (UART_FLAGS(base) & 0x20u) == 0u;
    if (room) {
        UART_DATA(base) = byte;
    } else {
        UART_MASK(base) = MASK_RECEIVE | MASK_TRANSMIT;
    }
    return room;
}

void board_start(void)
{
    RCGC0 |= 8u;
    RCGC1 |= 1u | 2u | 0x10000u;
    for (uint32_t stream = 0u; stream < BOARD_STREAMS; stream++) {
        const uint32_t base = uart_base[stream];
        UART_CTRL(base) = 0u;
        UART_IBRD(base) = BAUD_WHOLE;
        UART_FBRD(base) = BAUD_64TH;
        UART_LINE(base) = 0x60u | 0x10u;
        UART_LEVEL(base) = 0u;
        UART_MASK(base) = MASK_RECEIVE;
        UART_CTRL(base) = 1u | 0x100u | 0x200u;
    }
    NVIC_PRIORITY(18u) = 0u; /* the watchdog above everything else */
    NVIC_PRIORITY(5u) = 0x40u;
    NVIC_PRIORITY(6u) = 0x40u;
    NVIC_PRIORITY(19u) = 0x80u;
    NVIC_ENABLE(5u);
    NVIC_ENABLE(6u);
    NVIC_ENABLE(18u);
    NVIC_ENABLE(19u);
    SYST_RVR = COUNTER_MASK;
    SYST_CVR = 0u;
    SYST_CSR = 5u; /* on, processor clock, no interrupt */
    cycles_last = ~SYST_CVR & COUNTER_MASK;
    TIMER_CTRL = 0u;
    TIMER_CFG = 0u;
    TIMER_MODE = 2u;
    TIMER_LOAD = (CPU_HZ / 1000u) - 1u;
    TIMER_MASK = 1u;
    TIMER_CTRL = 1u;
    irq_on();
}

/* First stage at half of the time: an interrupt, which a masked processor does not take; reset at the whole. RESEN goes first,
 * because the interrupt bit latches the register until the next reset: from here on nothing can switch it off. */
void board_watchdog_start(uint32_t watchdog_ms)
{
    WDOG_LOCK = WDOG_KEY;
    WDOG_LOAD = (CPU_HZ / 1000u) * (watchdog_ms / 2u);
    WDOG_CTRL = 2u;
    WDOG_CTRL = 3u;
    WDOG_LOCK = 0u;
}

uint32_t board_watchdog_feed(void)
{
    const uint32_t left = WDOG_VALUE;
    WDOG_LOCK = WDOG_KEY;
    WDOG_CLEAR = 1u;
    WDOG_LOCK = 0u;
    return (left * 2u) / CYCLES_PER_2US;
}

/* The part has the register (RESC); in the emulator it is plain storage. So by elimination: a fault leaves a mark, a power-on
 * leaves no record of a life, and the reset pin cannot be told from a watchdog that found interrupts masked. */
uint8_t board_reset_cause(bool lived)
{
    return lived ? EW_RESET_CAUSE_WATCHDOG : EW_RESET_CAUSE_UNKNOWN;
}
