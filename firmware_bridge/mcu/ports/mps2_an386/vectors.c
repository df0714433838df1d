#include "cortex.h"

void Uart0_Handler(void);
void Uart1_Handler(void);
void Uart2_Handler(void);
void Uart3_Handler(void);

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
    {Uart0_Handler, U, Uart1_Handler, U, Uart2_Handler, U, Uart3_Handler, U, U, U, U, U, U, U, U, U,
     U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U},
};
