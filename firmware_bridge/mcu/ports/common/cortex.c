#include "cortex.h"

#define STACK_PAINT 0xC0FFEE5Au

extern uint32_t _stack_limit;
extern const uint32_t _fast_load, _fast_start, _fast_end;

static volatile uint32_t systicks;

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

void cortex_paint_stack(void)
{
    uint32_t here;
    __asm volatile("mov %0, sp" : "=r"(here));
    for (uint32_t *word = &_stack_limit; (uint32_t)(uintptr_t)word < (here - 64u); word++) {
        *word = STACK_PAINT;
    }
}

bool cortex_stack_intact(uint32_t *free_bytes)
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

/* 64 bytes a call, as the core looks at flash. */
bool cortex_fast_intact(void)
{
    static uint32_t at;
    const uint32_t words = (uint32_t)(((uintptr_t)&_fast_end - (uintptr_t)&_fast_start) / 4u);
    const volatile uint32_t *runs = &_fast_start;
    const volatile uint32_t *kept = &_fast_load;
    bool intact = true;
    for (uint32_t i = 0u; (i < 16u) && (at < words); i++) {
        intact = intact && (runs[at] == kept[at]);
        at++;
    }
    at = (at < words) ? at : 0u;
    return intact;
}

uint32_t cortex_systicks(void)
{
    return systicks;
}

void SysTick_Handler(void)
{
    systicks++;
}

void cortex_start_systick(uint32_t cpu_hz)
{
    SYST_RVR = (cpu_hz / 1000u) - 1u;
    SYST_CVR = 0u;
    SYST_CSR = 7u;
}

void cortex_reset(void)
{
    __asm volatile("dsb" ::: "memory");
    AIRCR = 0x05FA0004u; /* key, SYSRESETREQ */
    for (;;) {
    }
}
