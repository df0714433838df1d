#include "board.h"

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))
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

/* Cortex-M system */
#define SYST_CSR REG(0xE000E010u)
#define SYST_RVR REG(0xE000E014u)
#define SYST_CVR REG(0xE000E018u)
#define NVIC_ISER REG(0xE000E100u)
#define AIRCR REG(0xE000ED0Cu)

#define RING_BYTES 2048u /* two of the longest frames: 22 ms at 921600 baud */
#define STAMPS 32u
#define STACK_PAINT 0xC0FFEE5Au

typedef struct {
    uint32_t at; /* position in the ring */
    uint64_t us;
} stamp_t;

typedef struct {
    uint8_t bytes[RING_BYTES];
    volatile uint32_t head; /* the interrupt writes */
    volatile uint32_t tail; /* the main loop reads */
    stamp_t stamps[STAMPS];
    volatile uint32_t stamp_head;
    volatile uint32_t stamp_tail;
} ring_t;

static const uint32_t uart_base[BOARD_STREAMS] = {0x40004000u, 0x40005000u};
static ring_t rings[BOARD_STREAMS];
static volatile uint32_t systicks;
static volatile uint32_t overruns;
static uint64_t cycles;
static uint32_t cycles_last;

extern uint32_t _stack_limit;
extern uint32_t _stack_top;

void SysTick_Handler(void);
void Uart0_Handler(void);
void Uart1_Handler(void);
void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);

/* The compiler may call these for structures. Its own recognition of such loops is off here: they would call themselves. */
__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memcpy(void *to, const void *from, size_t count)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    for (size_t i = 0u; i < count; i++) {
        t[i] = f[i];
    }
    return to;
}

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memset(void *to, int value, size_t count)
{
    uint8_t *t = to;
    for (size_t i = 0u; i < count; i++) {
        t[i] = (uint8_t)value;
    }
    return to;
}

static uint32_t irq_off(void)
{
    uint32_t mask;
    __asm volatile("mrs %0, primask\n cpsid i" : "=r"(mask)::"memory");
    return mask;
}

static void irq_restore(uint32_t mask)
{
    __asm volatile("msr primask, %0" ::"r"(mask) : "memory");
}

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
    return systicks;
}

void SysTick_Handler(void)
{
    systicks++;
}

static void receive_interrupt(uint32_t stream)
{
    ring_t *ring = &rings[stream];
    const uint32_t base = uart_base[stream];
    UART_CLEAR(base) = 0xFu;
    if ((UART_STATE(base) & 8u) != 0u) {
        UART_STATE(base) = 8u;
        overruns++;
    }
    while ((UART_STATE(base) & 2u) != 0u) {
        const uint8_t byte = (uint8_t)UART_DATA(base);
        if ((ring->head - ring->tail) == RING_BYTES) {
            overruns++;
        } else {
            ring->bytes[ring->head % RING_BYTES] = byte;
            if ((byte == 0u) && ((ring->stamp_head - ring->stamp_tail) < STAMPS)) {
                ring->stamps[ring->stamp_head % STAMPS].at = ring->head;
                ring->stamps[ring->stamp_head % STAMPS].us = board_now_us();
                ring->stamp_head++;
            }
            ring->head++;
        }
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

int32_t board_receive(uint32_t stream, uint64_t *stamp_us)
{
    ring_t *ring = &rings[stream];
    if (ring->tail == ring->head) {
        return -1;
    }
    const uint32_t at = ring->tail;
    const uint8_t byte = ring->bytes[at % RING_BYTES];
    if (byte == 0u) {
        *stamp_us = board_now_us(); /* if its stamp found no room */
        if ((ring->stamp_tail != ring->stamp_head) && (ring->stamps[ring->stamp_tail % STAMPS].at == at)) {
            *stamp_us = ring->stamps[ring->stamp_tail % STAMPS].us;
            ring->stamp_tail++;
        }
    }
    ring->tail = at + 1u;
    return (int32_t)byte;
}

uint32_t board_overruns(void)
{
    return overruns;
}

bool board_send(uint32_t stream, uint8_t byte)
{
    const bool free = (UART_STATE(uart_base[stream]) & 1u) == 0u;
    if (free) {
        UART_DATA(uart_base[stream]) = byte;
    }
    return free;
}

void board_sleep(void)
{
    /* With interrupts masked a byte that arrives after the look still ends the WFI. */
    const uint32_t mask = irq_off();
    if ((rings[BOARD_LINK].tail == rings[BOARD_LINK].head) && (rings[BOARD_DRIVE].tail == rings[BOARD_DRIVE].head)) {
        __asm volatile("dsb\n wfi" ::: "memory");
    }
    irq_restore(mask);
}

static void paint_stack(void)
{
    uint32_t here;
    __asm volatile("mov %0, sp" : "=r"(here));
    for (uint32_t *word = &_stack_limit; (uint32_t)(uintptr_t)word < (here - 64u); word++) {
        *word = STACK_PAINT;
    }
}

bool board_stack_intact(uint32_t *free_bytes)
{
    const volatile uint32_t *word = &_stack_limit;
    if (free_bytes != NULL) {
        while ((word < &_stack_top) && (*word == STACK_PAINT)) {
            word++;
        }
        *free_bytes = (uint32_t)((uintptr_t)word - (uintptr_t)&_stack_limit);
    }
    return *(const volatile uint32_t *)&_stack_limit == STACK_PAINT;
}

void board_start(void)
{
    paint_stack();
    for (uint32_t stream = 0u; stream < BOARD_STREAMS; stream++) {
        UART_DIVIDER(uart_base[stream]) = CPU_HZ / 921600u;
        UART_CTRL(uart_base[stream]) = 1u | 2u | 8u;
    }
    NVIC_ISER = (1u << 0) | (1u << 2); /* receive interrupts of UART 0 and 1 */
    TIMER_LOAD = 0xFFFFFFFFu;
    TIMER_CTRL = 0x82u; /* enabled, 32 bits, free running */
    cycles_last = ~TIMER_VALUE;
    /* Right after the timer, so that the interrupt comes just after each whole millisecond. */
    SYST_RVR = (CPU_HZ / 1000u) - 1u;
    SYST_CVR = 0u;
    SYST_CSR = 7u;
    __asm volatile("cpsie i" ::: "memory");
}

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

void board_reset(void)
{
    AIRCR = 0x05FA0004u;
    for (;;) {
    }
}
