#include "cortex.h"

void Uart0_Handler(void);
void Uart1_Handler(void);
void Timer0_Handler(void);
void Watchdog_Handler(void);

/* An ordinary interrupt on this part. Nothing else has its priority, so the frame on the stack is that of what hung. */
__attribute__((naked)) void Watchdog_Handler(void)
{
    __asm volatile("tst lr, #4\n ite eq\n mrseq r0, msp\n mrsne r0, psp\n b last_words_watchdog\n");
}

typedef struct {
    uint32_t *stack;
    vector_t exceptions[15];
    vector_t interrupts[44];
} vectors_t;

#define U Unexpected_Handler
#define H HardFault_Handler
__attribute__((section(".vectors"), used)) const vectors_t vectors = {
    &_stack_top,
    {Reset_Handler, Nmi_Handler, H, H, H, H, U, U, U, U, U, U, U, U, U},
    {U, U, U, U, U, Uart0_Handler, Uart1_Handler, U, U, U, U, U, U, U, U, U,
     U, U, Watchdog_Handler, Timer0_Handler, U, U, U, U, U, U, U, U, U, U, U, U,
     U, U, U, U, U, U, U, U, U, U, U, U},
};
