/* Between two knots, with the slopes that the firmware chooses: every segment that a timeline can hold. */
#include "ew_curve.c" /* whole, for what is static in it */

#include "proof.h"

#define FARTHEST ((int64_t)1 << 39) /* sub: 1e8 micro-units */
#define LATEST ((int64_t)1 << 60)   /* us */
#define LONGEST 10000000            /* us: no knot may lie farther ahead */

/* value * part / 2^32 is no larger than value, with its sign, and nothing of it is nothing. */
int64_t scaled_contract(int64_t value, uint32_t part)
{
    const int64_t result = nondet_i64();
    ASSUME((value >= 0) ? ((result >= 0) && (result <= value)) : ((result <= 0) && (result >= value)));
    ASSUME((part != 0u) || (result == 0));
    return result;
}

/* That contract, for every value and parts of eight bits. */
void scale(void)
{
    const int64_t value = nondet_i64();
    const uint32_t part = nondet_u32();
    ASSUME((value > INT64_MIN) && ((part & 0x00FFFFFFu) == 0u));
    const int64_t result = scaled(value, part);
    PROVE((value >= 0) ? ((result >= 0) && ((result + SLACK) <= value)) : ((result <= 0) && (result >= value)), "no larger than the whole");
    PROVE((part != 0u) || (result == 0), "nothing of it is nothing");
    END();
}

static ew_knot_t knot(void)
{
    ew_knot_t any;
    HAVOC(&any);
    ASSUME((any.at_us >= 0) && (any.at_us <= LATEST) && (any.shape <= EW_SHAPE_STRAIGHT));
    ASSUME((any.position[0] >= -FARTHEST) && (any.position[0] <= FARTHEST));
    ASSUME((any.slope[0] >= -3 * SECANT_MAX) && (any.slope[0] <= 3 * SECANT_MAX));
    return any;
}

/* No overflow whatever the shape; and where the firmware chose the slopes, no position beyond its two knots. */
void between(void)
{
    const ew_knot_t a = knot();
    const ew_knot_t b = knot();
    ASSUME((a.at_us < b.at_us) && ((b.at_us - a.at_us) <= LONGEST));
    const ew_place_t place = {&a, &b, nondet_u32(), nondet_u32(), nondet_bool()};
    const int64_t p = ew_curve_position(&place, 0u);
    const int64_t low = (a.position[0] < b.position[0]) ? a.position[0] : b.position[0];
    const int64_t high = (a.position[0] < b.position[0]) ? b.position[0] : a.position[0];
    PROVE((a.shape == EW_SHAPE_FREE) || ((p >= (low + SLACK)) && (p <= high)), "between its two knots");
    PROVE(!place.whole || (p == b.position[0]), "at the end it is the last knot");
    END();
}

/* Before its first knot a segment is at its first knot, after its last at its last. */
void ends(void)
{
    const ew_knot_t a = knot();
    const ew_knot_t b = knot();
    const int64_t now_us = nondet_i64();
    ASSUME((a.at_us < b.at_us) && ((b.at_us - a.at_us) <= LONGEST) && (now_us >= 0) && (now_us <= LATEST));
    ASSUME((now_us <= a.at_us) || (now_us >= b.at_us));
    const ew_place_t place = ew_curve_place(&a, &b, now_us);
    const int64_t p = ew_curve_position(&place, 0u);
    PROVE((now_us > a.at_us) || (p == (a.position[0] + SLACK)), "not before its first knot");
    PROVE((now_us < b.at_us) || (p == b.position[0]), "not after its last");
    END();
}
