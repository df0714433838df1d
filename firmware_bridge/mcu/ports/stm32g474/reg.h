/* Register access. On the part a volatile word; in the unit tests a bus model that sees every access in order. */
#ifndef EW_REG_H
#define EW_REG_H
#include <stdbool.h>
#include <stdint.h>

#ifdef EW_FAKE_REGISTERS
uint32_t reg_get(uint32_t address);
void reg_put(uint32_t address, uint32_t value);
uint32_t reg16_get(uint32_t address);
void reg16_put(uint32_t address, uint32_t value);
#else
static inline uint32_t reg_get(uint32_t address)
{
    return *(volatile uint32_t *)(uintptr_t)address;
}

static inline void reg_put(uint32_t address, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)address = value;
}

/* For what takes accesses of 16 bits only. */
static inline uint32_t reg16_get(uint32_t address)
{
    return *(volatile uint16_t *)(uintptr_t)address;
}

static inline void reg16_put(uint32_t address, uint32_t value)
{
    *(volatile uint16_t *)(uintptr_t)address = (uint16_t)value;
}
#endif

static inline void reg_set(uint32_t address, uint32_t bits)
{
    reg_put(address, reg_get(address) | bits);
}

static inline void reg_clear(uint32_t address, uint32_t bits)
{
    reg_put(address, reg_get(address) & ~bits);
}

/* Puts value into the field of width bits at shift. */
static inline void reg_field(uint32_t address, uint32_t shift, uint32_t width, uint32_t value)
{
    const uint32_t mask = ((1u << width) - 1u) << shift;
    reg_put(address, (reg_get(address) & ~mask) | ((value << shift) & mask));
}

/* Waits until (register & mask) == wanted, for a bounded number of looks. False: it did not come. */
static inline bool reg_wait(uint32_t address, uint32_t mask, uint32_t wanted, uint32_t looks)
{
    bool come = false;
    for (uint32_t i = 0u; (i < looks) && !come; i++) {
        come = (reg_get(address) & mask) == wanted;
    }
    return come;
}

#endif
