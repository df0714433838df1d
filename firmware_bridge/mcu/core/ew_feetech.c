#include "ew_feetech.h"

static uint8_t check_of(const uint8_t *bytes, size_t end)
{
    uint8_t sum = 0u;
    for (size_t i = 2u; i < end; i++) {
        sum = (uint8_t)(sum + bytes[i]);
    }
    return (uint8_t)~sum;
}

size_t ew_ft_seal(uint8_t *bytes, uint8_t number, uint8_t instruction, uint8_t parameters)
{
    const size_t end = 5u + (size_t)parameters;
    bytes[0] = 0xFFu;
    bytes[1] = 0xFFu;
    bytes[2] = number;
    bytes[3] = (uint8_t)(parameters + 2u);
    bytes[4] = instruction;
    bytes[end] = check_of(bytes, end);
    return end + 1u;
}

uint16_t ew_ft_word(const uint8_t *p, bool high_first)
{
    const uint8_t high = high_first ? p[0] : p[1];
    const uint8_t low = high_first ? p[1] : p[0];
    return (uint16_t)(((uint32_t)high << 8) | low);
}

void ew_ft_put_word(uint8_t *p, uint16_t word, bool high_first)
{
    p[high_first ? 0 : 1] = (uint8_t)(word >> 8);
    p[high_first ? 1 : 0] = (uint8_t)(word & 0xFFu);
}

int32_t ew_ft_signed(uint16_t word, uint8_t sign)
{
    const uint32_t bit = (uint32_t)1u << sign;
    const uint32_t magnitude = word & (bit - 1u);
    return ((word & bit) != 0u) ? -(int32_t)magnitude : (int32_t)magnitude;
}

size_t ew_ft_receive(uint8_t *bytes, uint8_t *count, size_t capacity, uint8_t byte, uint32_t *broken)
{
    const uint8_t at = *count;
    bytes[at] = byte;
    *count = (uint8_t)(at + 1u);
    if (at < 2u) {
        if (byte != 0xFFu) {
            *count = 0u;
        }
        return 0u;
    }
    if (at == 2u) {
        if (byte == 0xFFu) {
            *count = 2u; /* FF FF FF: the header is the last two of them */
        }
        return 0u;
    }
    if (at == 3u) {
        if ((byte < 2u) || (((size_t)byte + 4u) > capacity)) {
            *count = 0u;
            (*broken)++;
        }
        return 0u;
    }
    const size_t whole = (size_t)bytes[3] + 4u;
    if (*count < whole) {
        return 0u;
    }
    *count = 0u;
    if (check_of(bytes, whole - 1u) != byte) {
        (*broken)++;
        return 0u;
    }
    return whole;
}
