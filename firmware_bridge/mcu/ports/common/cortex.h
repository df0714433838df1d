/* The Cortex-M core of every port: interrupts, SysTick, reset, the painted stack. ARMv7-M Architecture Reference Manual,
 * section B3 (system address map). */
#ifndef EW_CORTEX_H
#define EW_CORTEX_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define SYST_CSR REG(0xE000E010u) /* 1 on, 2 interrupt on, 4 processor clock */
#define SYST_RVR REG(0xE000E014u) /* reload, 24 bits */
#define SYST_CVR REG(0xE000E018u) /* counts down */
#define NVIC_ISER(number) REG(0xE000E100u + (4u * ((number) / 32u)))
#define NVIC_ENABLE(number) (NVIC_ISER(number) = 1u << ((number) % 32u))
#define NVIC_PRIORITY(number) (*(volatile uint8_t *)(uintptr_t)(0xE000E400u + (number)))
#define AIRCR REG(0xE000ED0Cu)
#define SHPR3 REG(0xE000ED20u) /* byte 3: priority of SysTick */

static inline uint32_t irq_off(void)
{
    uint32_t mask;
    __asm volatile("mrs %0, primask\n cpsid i" : "=r"(mask)::"memory");
    return mask;
}

static inline void irq_restore(uint32_t mask)
{
    __asm volatile("msr primask, %0" ::"r"(mask) : "memory");
}

static inline void irq_on(void)
{
    __asm volatile("cpsie i" ::: "memory");
}

/* Until an interrupt is pending, masked or not. */
static inline void irq_wait(void)
{
    __asm volatile("dsb\n wfi" ::: "memory");
}

/* Paints what is below the caller's stack frame. */
void cortex_paint_stack(void);

/* Looks at the next slice of the code that was copied out of flash; false: it is not what was copied. */
bool cortex_fast_intact(void);

/* True while the lowest word of the stack is untouched; *free_bytes (if not NULL) gets what was never used. */
bool cortex_stack_intact(uint32_t *free_bytes);

/* 1 kHz interrupts so far, and the handler that counts them. */
uint32_t cortex_systicks(void);
void SysTick_Handler(void);

/* SysTick at 1 kHz from a processor clock. */
void cortex_start_systick(uint32_t cpu_hz);

void cortex_reset(void) __attribute__((noreturn));

/* Exception entries that every vector table uses. */
void Reset_Handler(void);
void Nmi_Handler(void);
void HardFault_Handler(void);
void Unexpected_Handler(void);

/* The last words (main.c): the watchdog's first stage, and a fault. stack is the exception frame; its word 6 is the PC. */
void last_words_watchdog(const uint32_t *stack);
void last_words_fault(const uint32_t *stack);
/* The supply fails: neither a watchdog nor a fault, and said so. */
void last_words_supply(void);

typedef void (*vector_t)(void);

extern uint32_t _stack_top;

#endif
