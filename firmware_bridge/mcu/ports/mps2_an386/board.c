/* The MPS2 AN386 board: Cortex-M4, CMSDK peripherals. Arm DAI 0386 (memory map), DDI 0479 (CMSDK). */
#include "board.h"
#include "cortex.h"
#include "rings.h"

#define CPU_HZ 25000000u
#define CYCLES_PER_US (CPU_HZ / 1000000u)

/* CMSDK UART */
#define UART_DATA(base) REG((base) + 0x00u)
#define UART_STATE(base) REG((base) + 0x04u) /* 1 transmit full, 2 receive full, 8 receive overrun */
#define UART_CTRL(base) REG((base) + 0x08u)  /* 1 transmit on, 2 receive on, 8 receive interrupt on */
#define UART_CLEAR(base) REG((base) + 0x0Cu)
#define UART_DIVIDER(base) REG((base) + 0x10u)

/* Dual timer 1, used as one 32-bit counter at the CPU clock, counting down */
#define TIMER_LOAD REG(0x40002000u)
#define TIMER_VALUE REG(0x40002004u)
#define TIMER_CTRL REG(0x40002008u)

/* CMSDK watchdog */
#define WDOG_LOAD REG(0x40008000u)
#define WDOG_VALUE REG(0x40008004u)
#define WDOG_CTRL REG(0x40008008u) /* 1 interrupt (here: NMI) on, 2 reset on */
#define WDOG_CLEAR REG(0x4000800Cu)
#define WDOG_LOCK REG(0x40008C00u)
#define WDOG_KEY 0x1ACCE551u

static const uint32_t uart_base[BOARD_STREAMS] = {0x40004000u, 0x40005000u, 0x40006000u, 0x40007000u};
static uint64_t cycles;
static uint32_t cycles_last;

void Uart0_Handler(void);
void Uart1_Handler(void);
void Uart2_Handler(void);
void Uart3_Handler(void);

uint64_t board_now_us(void)
{
    const uint32_t mask = irq_off();
    const uint32_t now = ~TIMER_VALUE;
    cycles += (uint32_t)(now - cycles_last); /* read at 1 kHz at least, wraps after 171 s */
    cycles_last = now;
    const uint64_t result = cycles;
    irq_restore(mask);
    return result / CYCLES_PER_US;
}

uint32_t board_systicks(void)
{
    return cortex_systicks();
}

static void receive_interrupt(uint32_t stream)
{
    const uint32_t base = uart_base[stream];
    UART_CLEAR(base) = 0xFu;
    if ((UART_STATE(base) & 8u) != 0u) {
        UART_STATE(base) = 8u;
        ring_overrun(stream);
    }
    while ((UART_STATE(base) & 2u) != 0u) {
        ring_put(stream, (uint8_t)UART_DATA(base));
    }
}

void Uart0_Handler(void)
{
    receive_interrupt(BOARD_LINK);
}

void Uart1_Handler(void)
{
    receive_interrupt(BOARD_DRIVE);
}

void Uart2_Handler(void)
{
    receive_interrupt(BOARD_CAN);
}

void Uart3_Handler(void)
{
    receive_interrupt(BOARD_MOTORS);
}

bool board_send(uint32_t stream, uint8_t byte)
{
    const bool room = (UART_STATE(uart_base[stream]) & 1u) == 0u;
    if (room) {
        UART_DATA(uart_base[stream]) = byte;
    }
    return room;
}

void board_start(void)
{
    for (uint32_t stream = 0u; stream < BOARD_STREAMS; stream++) {
        UART_DIVIDER(uart_base[stream]) = CPU_HZ / 921600u;
        UART_CTRL(uart_base[stream]) = 1u | 2u | 8u;
    }
    for (uint32_t stream = 0u; stream < BOARD_STREAMS; stream++) {
        NVIC_ENABLE(2u * stream); /* its receive interrupt; the odd ones are of transmission */
    }
    TIMER_LOAD = 0xFFFFFFFFu;
    TIMER_CTRL = 0x82u; /* enabled, 32 bits, free running */
    cycles_last = ~TIMER_VALUE;
    /* Right after the timer, so that the interrupt comes just after each whole millisecond. */
    cortex_start_systick(CPU_HZ);
    irq_on();
}

/* First stage (NMI) at half of the time, reset at the whole. Its registers stay locked between feeds. */
void board_watchdog_start(uint32_t watchdog_ms)
{
    WDOG_LOCK = WDOG_KEY;
    WDOG_LOAD = (CPU_HZ / 1000u) * (watchdog_ms / 2u);
    WDOG_CTRL = 3u;
    WDOG_LOCK = 0u;
}

uint32_t board_watchdog_feed(void)
{
    const uint32_t left = WDOG_VALUE;
    WDOG_LOCK = WDOG_KEY;
    WDOG_CLEAR = 1u;
    WDOG_LOCK = 0u;
    return left / CYCLES_PER_US;
}

/* The first stage is an NMI and always leaves a mark: what left none was not the watchdog. */
uint8_t board_reset_cause(bool lived)
{
    (void)lived;
    return EW_RESET_CAUSE_UNKNOWN;
}
