/* Vectors and the way from reset to main. */
#include <stdint.h>

extern uint32_t _data_load, _data_start, _data_end, _bss_start, _bss_end, _stack_top;

int main(void);
void Reset_Handler(void);
void Nmi_Handler(void);
void HardFault_Handler(void);
void Unexpected_Handler(void);
void SysTick_Handler(void);
void Uart0_Handler(void);
void Uart1_Handler(void);

void Reset_Handler(void)
{
    __asm volatile("cpsid i");
    const uint32_t *from = &_data_load;
    for (uint32_t *to = &_data_start; to < &_data_end; to++) {
        *to = *from;
        from++;
    }
    for (uint32_t *to = &_bss_start; to < &_bss_end; to++) {
        *to = 0u;
    }
    (void)main();
    for (;;) {
    }
}

/* The handlers want the stack that was in use: the saved program counter is its seventh word. */
__attribute__((naked)) void Nmi_Handler(void)
{
    __asm volatile("tst lr, #4\n ite eq\n mrseq r0, msp\n mrsne r0, psp\n b last_words_watchdog\n");
}

__attribute__((naked)) void HardFault_Handler(void)
{
    __asm volatile("tst lr, #4\n ite eq\n mrseq r0, msp\n mrsne r0, psp\n b last_words_fault\n");
}

/* An interrupt that nobody enabled: hang, and let the watchdog report where. */
void Unexpected_Handler(void)
{
    for (;;) {
    }
}

typedef void (*vector_t)(void);

typedef struct {
    uint32_t *stack;
    vector_t exceptions[15];
    vector_t interrupts[32];
} vectors_t;

#define U Unexpected_Handler
#define H HardFault_Handler
__attribute__((section(".vectors"), used)) const vectors_t vectors = {
    &_stack_top,
    {Reset_Handler, Nmi_Handler, H, H, H, H, U, U, U, U, U, U, U, U, SysTick_Handler},
    {Uart0_Handler, U, Uart1_Handler, U, U, U, U, U, U, U, U, U, U, U, U, U,
     U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U},
};
