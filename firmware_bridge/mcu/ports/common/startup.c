/* The way from reset to main, and the exceptions that every port has. */
#include "cortex.h"

extern uint32_t _data_load, _data_start, _data_end, _bss_start, _bss_end, _fast_load, _fast_start, _fast_end;

int main(void);

static void copy(const uint32_t *from, uint32_t *to, const uint32_t *end)
{
    const uint32_t *next = from;
    for (uint32_t *at = to; at < end; at++) {
        *at = *next;
        next++;
    }
}

void Reset_Handler(void)
{
    __asm volatile("cpsid i");
    copy(&_data_load, &_data_start, &_data_end);
    copy(&_fast_load, &_fast_start, &_fast_end);
    __asm volatile("dsb\n isb" ::: "memory");
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
