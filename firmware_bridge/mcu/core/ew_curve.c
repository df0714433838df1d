#include "ew_curve.h"

#define FINE 256 /* steps of a sub in the coefficients of a cubic */
/* Secants are cut here: far above any velocity limit (1e8 um/s is 2^42.6), and a cubic of 10 s still fits. */
#define SECANT_MAX INT64_C(0x100000000000) /* 2^44 */

static int64_t clamp(int64_t value, int64_t bound)
{
    int64_t result = value;
    if (result > bound) {
        result = bound;
    }
    if (result < -bound) {
        result = -bound;
    }
    return result;
}

/* value * part / 2^32, towards zero: exact, by two multiplications. */
static int64_t scaled(int64_t value, uint32_t part)
{
    const uint64_t m = (value < 0) ? (0u - (uint64_t)value) : (uint64_t)value;
    const uint64_t r = ((m >> 32) * part) + (((m & 0xFFFFFFFFu) * part) >> 32);
    return (value < 0) ? -(int64_t)r : (int64_t)r;
}

/* Eight more bits of a quotient: rest < divisor < 2^24, so the processor's own 32-bit divider does it. */
static uint32_t digit(uint32_t *rest, uint32_t next, uint32_t divisor)
{
    const uint32_t part = (*rest << 8) | next;
    const uint32_t quotient = part / divisor;
    *rest = part - (quotient * divisor);
    return quotient;
}

/* value * 2^bits / divisor, towards zero, without leaving 64 bits where the quotient does not; bits is 16 or 24. By digits of
 * eight bits: a chunk of 16 axes takes 300 of these, and the compiler's 64-bit division costs three times as much. */
static int64_t ratio(int64_t value, uint32_t bits, int64_t divisor)
{
    const uint64_t m = (value < 0) ? (0u - (uint64_t)value) : (uint64_t)value;
    uint64_t quotient;
    if ((uint64_t)divisor < ((uint64_t)1 << 24)) {
        const uint32_t d = (uint32_t)divisor;
        const uint32_t low = (uint32_t)m;
        const uint32_t high = (uint32_t)(m >> 32);
        uint32_t rest = high % d;
        uint32_t whole = digit(&rest, low >> 24, d) << 24;
        whole |= digit(&rest, (low >> 16) & 255u, d) << 16;
        whole |= digit(&rest, (low >> 8) & 255u, d) << 8;
        whole |= digit(&rest, low & 255u, d);
        const uint32_t top = high / d;
        quotient = ((uint64_t)top << 32) | whole;
        for (uint32_t done = 0u; done < bits; done += 8u) {
            quotient = (quotient << 8) | digit(&rest, 0u, d);
        }
    } else { /* segments of more than 16 s: the horizon and a stall that no tick has seen yet */
        const uint64_t d = (uint64_t)divisor;
        quotient = ((m / d) << bits) + (((m % d) << bits) / d);
    }
    return (value < 0) ? -(int64_t)quotient : (int64_t)quotient;
}

static int64_t rounded(int64_t fine)
{
    return (fine + ((fine < 0) ? -(FINE / 2) : (FINE / 2))) / FINE;
}

int64_t ew_curve_secant(int64_t way, int64_t time_us)
{
    const int64_t near = INT64_C(0x4000000000); /* 2^38, as far as an axis goes between two knots: one division does it */
    if ((way < near) && (way > -near)) {
        return clamp((way * EW_SLOPE_US) / time_us, SECANT_MAX);
    }
    return clamp(ratio(way, 24u, time_us), SECANT_MAX);
}

/* ---- one segment ---- */

ew_place_t ew_curve_place(const ew_knot_t *a, const ew_knot_t *b, int64_t now_us)
{
    const int64_t length_us = b->at_us - a->at_us;
    const uint64_t length = (uint64_t)length_us;
    ew_place_t place = {a, b, 0u, 0u, now_us >= b->at_us};
    if (place.whole) {
        place.at = UINT32_MAX;
    } else if (now_us > a->at_us) {
        const int64_t over_us = now_us - a->at_us;
        place.at = (uint32_t)(((uint64_t)over_us << 32) / length);
    } else {
        /* it has not begun */
    }
    if (length > (uint64_t)EW_TICK_US) {
        place.tick = (uint32_t)(((uint64_t)EW_TICK_US << 32) / length);
    }
    return place;
}

/* In the segment's own time s = 0..1, beyond its first position: s (c1 + s (c2 + s c3)), in fine sub. */
typedef struct {
    int64_t c1;
    int64_t c2;
    int64_t c3;
} cubic_t;

/* A slope over the whole segment, in fine sub. */
static int64_t rise(int64_t slope, int64_t length_us)
{
    return scaled(slope * FINE, (uint32_t)((uint64_t)length_us << 8));
}

static cubic_t cubic_of(const ew_place_t *place, uint8_t axis)
{
    const int64_t d = (place->b->position[axis] - place->a->position[axis]) * FINE;
    cubic_t c = {d, 0, 0};
    if (place->a->shape != (uint8_t)EW_SHAPE_STRAIGHT) {
        const int64_t length = place->b->at_us - place->a->at_us;
        const int64_t m0 = rise(place->a->slope[axis], length);
        const int64_t m1 = rise(place->b->slope[axis], length);
        c.c1 = m0;
        c.c2 = (3 * d) - (2 * m0) - m1;
        c.c3 = m0 + m1 - (2 * d);
    }
    return c;
}

static int64_t position_on(const cubic_t *c, const ew_place_t *place, uint8_t axis)
{
    const int64_t p0 = place->a->position[axis];
    const int64_t p1 = place->b->position[axis];
    if (place->whole) {
        return p1;
    }
    int64_t p = p0 + rounded(scaled(c->c1 + scaled(c->c2 + scaled(c->c3, place->at), place->at), place->at));
    if (place->a->shape != (uint8_t)EW_SHAPE_FREE) {
        /* Limited slopes keep the curve between the knots; this takes away what rounding could add. Where slopes are given,
         * the limiter is the bound. */
        const int64_t low = (p0 < p1) ? p0 : p1;
        const int64_t high = (p0 < p1) ? p1 : p0;
        p = (p < low) ? low : p;
        p = (p > high) ? high : p;
    }
    return p;
}

int64_t ew_curve_position(const ew_place_t *place, uint8_t axis)
{
    const cubic_t c = cubic_of(place, axis);
    return position_on(&c, place, axis);
}

int64_t ew_curve_slope(const ew_place_t *place, uint8_t axis)
{
    const cubic_t c = cubic_of(place, axis);
    const int64_t per_segment = c.c1 + scaled((2 * c.c2) + (3 * scaled(c.c3, place->at)), place->at);
    /* fine sub per segment: 2^24 / 256 is 2^16 */
    return clamp(ratio(per_segment, 16u, place->b->at_us - place->a->at_us), 3 * SECANT_MAX);
}

void ew_curve_target(const ew_place_t *place, uint8_t axis, ew_target_t *target)
{
    const cubic_t c = cubic_of(place, axis);
    target->position = position_on(&c, place, axis);
    /* The second difference of a cubic is its second derivative in the middle, the third difference is constant. */
    const int64_t curved = (2 * c.c2) + (6 * scaled(c.c3, place->at));
    target->next_acceleration = rounded(scaled(scaled(curved, place->tick), place->tick));
    target->jerk = rounded(scaled(scaled(scaled(6 * c.c3, place->tick), place->tick), place->tick));
}
