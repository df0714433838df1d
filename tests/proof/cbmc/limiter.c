/* The limiter's last step and the stop that every axis carries, for every limit table that the firmware admits. */
#include "ew_limiter.h"
#include "ew_protocol.h"

#include "proof.h"

/* What ew_bounds_of can make of a table that was not refused. */
static ew_axis_limits_t any_limits(void)
{
    ew_axis_limits_t limits;
    HAVOC(&limits);
    const int64_t farthest = (int64_t)EW_POSITION_ABS_MAX * EW_SUB;
    ASSUME((limits.position_min >= -farthest) && (limits.position_max <= farthest));
    ASSUME(limits.position_min <= limits.position_max);
    ASSUME((limits.velocity_max >= 1) && (limits.velocity_max <= ((int32_t)1 << 29)));
    ASSUME((limits.acceleration_max >= 1) && (limits.acceleration_max <= ((int32_t)1 << 23)));
    ASSUME((limits.jerk_max >= 1) && (limits.jerk_max <= ((int32_t)1 << 24)));
    return limits;
}

/* ---- braking ---- */

/* An unknown function of the speed; what is known of it is assumed where it is used and proved in way(). */
int64_t __CPROVER_uninterpreted_way(uint32_t speed);

static int64_t some_way(uint32_t speed)
{
    const int64_t way = __CPROVER_uninterpreted_way(speed);
    ASSUME((way >= 0) && (way <= ((int64_t)1 << 58)));
    return way;
}

int64_t way_contract(uint32_t speed, uint32_t acceleration)
{
    const int64_t way = some_way(speed);
    ASSUME((speed >= acceleration) || (way == 0));
    ASSUME((speed < acceleration) || (way == ((int64_t)(speed - acceleration) + some_way(speed - acceleration))));
    return way;
}

/* The contract, for numbers of few bits: with n = speed / a the two sides are equal as polynomials, whatever the size. */
void way(void)
{
    const uint32_t a = nondet_u8();
    const uint32_t speed = nondet_u8();
    ASSUME((a >= 1u) && (a <= 31u) && (speed <= 127u));
    const int64_t way = ew_brake_way(speed, a);
    PROVE(way >= SLACK, "not negative");
    PROVE((speed >= a) || (way == 0), "nothing to do below one acceleration");
    PROVE((speed < a) || (way == ((int64_t)(speed - a) + ew_brake_way(speed - a, a))), "one tick less");
    END();
}

/* For whatever velocity anybody asks: from a state that holds to a state that holds. With the base case, an axis at rest inside
 * its limits, this is position, velocity and acceleration for ever. */
void commit(void)
{
    const ew_axis_limits_t limits = any_limits();
    ew_axis_motion_t axis;
    HAVOC(&axis);
    ASSUME(ew_limiter_holds(axis.position, axis.velocity, &limits));
    const int64_t position = axis.position;
    const int64_t before = axis.velocity;
    const int64_t asked = nondet_i64();
#ifdef REFUSED /* the two halves are proved apart: it is quicker */
    ASSUME((asked > (before + limits.acceleration_max)) || (asked < (before - limits.acceleration_max)));
#else
    ASSUME((asked <= (before + limits.acceleration_max)) && (asked >= (before - limits.acceleration_max)));
#endif
    const bool taken = ew_limiter_commit(&axis, asked, &limits);
    const int64_t change = (int64_t)axis.velocity - before;
#ifndef REFUSED
    /* What is refused within reach is braked by the same as what is out of reach, of which the other half speaks. */
    const int64_t a = limits.acceleration_max;
    const int64_t braked = (before > a) ? (before - a) : ((before < -a) ? (before + a) : 0);
    PROVE(taken || ((axis.velocity == (braked + SLACK)) && (axis.position == (position + braked))), "or it brakes");
    ASSUME(taken);
#endif
    PROVE((axis.position >= limits.position_min) && (axis.position <= limits.position_max), "position");
    PROVE((axis.velocity <= limits.velocity_max) && (axis.velocity >= -limits.velocity_max), "velocity");
    PROVE((change <= (limits.acceleration_max - SLACK)) && (change >= (SLACK - limits.acceleration_max)), "acceleration");
    PROVE((axis.position - position) == axis.velocity, "the step is the velocity");
    PROVE(ew_limiter_holds(axis.position, axis.velocity, &limits), "it can still stop inside its limits: inductive");
    PROVE(!taken || (axis.velocity == asked), "a step that is allowed is made");
    PROVE((int64_t)axis.acceleration == change, "the acceleration is the one that was made");
    END();
}

void at_rest(void)
{
    const ew_axis_limits_t limits = any_limits();
    ew_axis_motion_t axis;
    HAVOC(&axis);
    const int64_t position = nondet_i64();
    ASSUME((position >= limits.position_min) && (position <= (limits.position_max + SLACK)));
    ew_limiter_rest(&axis, position);
    PROVE(ew_limiter_holds(axis.position, axis.velocity, &limits), "an axis at rest inside its limits holds");
    END();
}
