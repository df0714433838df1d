#include "cortex.h"

/* The bootloader enables no interrupt. A fault in it starts it anew; an NMI (on the STM32G474: a flash word that lost power half
 * written) is cleared by its port. */
void boot_nmi(void);
void boot_fault(void);

void boot_fault(void)
{
    cortex_reset();
}

typedef struct {
    uint32_t *stack;
    vector_t exceptions[15];
} vectors_t;

#define F boot_fault
__attribute__((section(".vectors"), used)) const vectors_t vectors = {
    &_stack_top,
    {Reset_Handler, boot_nmi, F, F, F, F, F, F, F, F, F, F, F, F, F},
};

void last_words_watchdog(const uint32_t *stack)
{
    (void)stack;
    cortex_reset();
}

void last_words_fault(const uint32_t *stack)
{
    (void)stack;
    cortex_reset();
}
