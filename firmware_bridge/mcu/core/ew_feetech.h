/* Packets of the Feetech serial bus (STS, SMS and SCS series), as the maker's protocol manual has them.
 *
 *   FF FF | number | length | instruction or status | parameters | check        length = parameters + 2
 *
 * check = ~(sum of all bytes after FF FF). Words are low byte first in the STS and SMS series, high byte first in the SCS. */
#ifndef EW_FEETECH_H
#define EW_FEETECH_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EW_FT_BROADCAST 0xFEu
#define EW_FT_NUMBER_MAX 253u
#define EW_FT_OVERHEAD 6u /* bytes of a packet without parameters */

enum {
    EW_FT_READ = 0x02,
    EW_FT_WRITE = 0x03,
    EW_FT_SYNC_READ = 0x82,
    EW_FT_SYNC_WRITE = 0x83,
};

/* Addresses of the memory table that both series share. */
enum {
    EW_FT_AT_MODEL = 3, /* word; the identity block begins here */
    EW_FT_AT_NUMBER = 5,
    EW_FT_AT_DELAY = 7,     /* answering delay in 2 us */
    EW_FT_AT_ANSWERS = 8,   /* 1: every instruction is answered */
    EW_FT_AT_ANGLE_MIN = 9, /* word */
    EW_FT_AT_ANGLE_MAX = 11, /* word */
    EW_FT_AT_PROTECTION = 19, /* bit per protection that takes the torque away */
    EW_FT_AT_TORQUE = 40,
    EW_FT_AT_GOAL = 42,    /* word */
    EW_FT_AT_PRESENT = 56, /* position, speed, load (words), voltage, temperature */
    EW_FT_PRESENT_BYTES = 8,
};

/* Writes `bytes` (5 + count already filled from the instruction's parameters at &bytes[5]) head and check; returns the length. */
size_t ew_ft_seal(uint8_t *bytes, uint8_t number, uint8_t instruction, uint8_t parameters);

/* A word at p in the order of the series. */
uint16_t ew_ft_word(const uint8_t *p, bool high_first);
void ew_ft_put_word(uint8_t *p, uint16_t word, bool high_first);

/* Sign and magnitude: bit `sign` is the sign, the bits below it the magnitude. */
int32_t ew_ft_signed(uint16_t word, uint8_t sign);

/* One more byte into a buffer that holds the beginning of a packet. Returns the length of a whole, valid packet, else 0;
 * `*broken` is counted up for a packet whose check or length is wrong. What cannot be a packet is dropped. */
size_t ew_ft_receive(uint8_t *bytes, uint8_t *count, size_t capacity, uint8_t byte, uint32_t *broken);

#endif
