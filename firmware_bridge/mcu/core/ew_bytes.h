/* Little-endian access to bytes, without alignment or aliasing assumptions. */
#ifndef EW_BYTES_H
#define EW_BYTES_H
#include <stdint.h>

static inline uint8_t ew_get_u8(const uint8_t *p)
{
    return p[0];
}

static inline uint16_t ew_get_u16(const uint8_t *p)
{
    return (uint16_t)((uint16_t)p[0] | (uint16_t)((uint16_t)p[1] << 8));
}

static inline uint32_t ew_get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | ((uint32_t)p[1] << 8) | ((uint32_t)p[2] << 16) | ((uint32_t)p[3] << 24);
}

static inline uint64_t ew_get_u64(const uint8_t *p)
{
    return (uint64_t)ew_get_u32(p) | ((uint64_t)ew_get_u32(&p[4]) << 32);
}

static inline int32_t ew_get_i32(const uint8_t *p)
{
    return (int32_t)ew_get_u32(p);
}

static inline int16_t ew_get_i16(const uint8_t *p)
{
    return (int16_t)ew_get_u16(p);
}

static inline void ew_put_u8(uint8_t *p, uint8_t value)
{
    p[0] = value;
}

static inline void ew_put_u16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value & 0xFFu);
    p[1] = (uint8_t)(value >> 8);
}

static inline void ew_put_u32(uint8_t *p, uint32_t value)
{
    ew_put_u16(p, (uint16_t)(value & 0xFFFFu));
    ew_put_u16(&p[2], (uint16_t)(value >> 16));
}

static inline void ew_put_u64(uint8_t *p, uint64_t value)
{
    ew_put_u32(p, (uint32_t)(value & 0xFFFFFFFFu));
    ew_put_u32(&p[4], (uint32_t)(value >> 32));
}

static inline void ew_put_i32(uint8_t *p, int32_t value)
{
    ew_put_u32(p, (uint32_t)value);
}

#endif
