#include "boot_port.h"
#include "cortex.h"

#define SCB_VTOR REG(0xE000ED08u)

/* The program's own stack pointer and reset vector, its own vector table; interrupts off, as after a reset. */
void boot_jump(uint32_t vectors)
{
    const uint32_t stack = REG(vectors);
    const uint32_t entry = REG(vectors + 4u);
    SCB_VTOR = vectors;
    __asm volatile("dsb\n isb\n msr msp, %0\n bx %1\n" ::"r"(stack), "r"(entry) : "memory");
    for (;;) {
    }
}
