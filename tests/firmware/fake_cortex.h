/* Stands in for ports/common/cortex.h on a PC: no interrupts, and sleeping is counted. */
#ifndef EW_CORTEX_H
#define EW_CORTEX_H
#include <stdint.h>

extern uint64_t fake_now_us;
extern uint32_t fake_sleeps;

static inline uint32_t irq_off(void)
{
    return 0u;
}

static inline void irq_restore(uint32_t mask)
{
    (void)mask;
}

static inline void irq_wait(void)
{
    fake_sleeps++;
}

#endif
