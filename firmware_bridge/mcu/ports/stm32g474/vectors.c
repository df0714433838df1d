#include "cortex.h"
#include "handlers.h"
#include "stm32g474.h"
#include "watchdogs.h"

void wwdg_last_words(const uint32_t *stack);

/* WWDG's early wakeup. Nothing has its priority, so the frame on the stack is that of what hung. */
__attribute__((used)) void wwdg_last_words(const uint32_t *stack)
{
    watchdogs_last_words();
    last_words_watchdog(stack);
}

__attribute__((naked)) void Wwdg_Handler(void)
{
    __asm volatile("tst lr, #4\n ite eq\n mrseq r0, msp\n mrsne r0, psp\n b wwdg_last_words\n");
}

/* The only NMI of this part is the clock security system: the crystal failed and HSI16 took over, at the wrong speed. */
__attribute__((naked)) void Clock_Handler(void)
{
    __asm volatile("tst lr, #4\n ite eq\n mrseq r0, msp\n mrsne r0, psp\n b last_words_fault\n");
}

typedef struct {
    uint32_t *stack;
    vector_t exceptions[15];
    vector_t interrupts[IRQ_COUNT];
} vectors_t;

#define U Unexpected_Handler
#define H HardFault_Handler
/* Interrupts that are not named here are never enabled; a null entry would fault and be reported. */
__attribute__((section(".vectors"), used)) const vectors_t vectors = {
    &_stack_top,
    {Reset_Handler, Clock_Handler, H, H, H, H, U, U, U, U, U, U, U, U, SysTick_Handler},
    {
        [IRQ_WWDG] = Wwdg_Handler,
        [IRQ_PVD] = Pvd_Handler,
#ifdef PORT_USB
        [IRQ_USB_LP] = Usb_Handler,
#endif
        [IRQ_FDCAN1] = Fdcan1_Handler,
        [IRQ_USART1] = Usart1_Handler,
        [IRQ_USART2] = Usart2_Handler,
        [IRQ_USART3] = Usart3_Handler,
        [IRQ_FDCAN2] = Fdcan2_Handler,
    },
};
