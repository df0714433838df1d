#include "ew_limiter.h"

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    int64_t result = value;
    if (result < low) {
        result = low;
    }
    if (result > high) {
        result = high;
    }
    return result;
}

static int64_t magnitude(int64_t value)
{
    return (value < 0) ? -value : value;
}

/* Integer square root, digit by digit. */
static uint64_t isqrt(uint64_t value)
{
    uint64_t rest = value;
    uint64_t root = 0u;
    uint64_t bit = (uint64_t)1u << 62;
    while (bit > rest) {
        bit >>= 2;
    }
    while (bit != 0u) {
        if (rest >= (root + bit)) {
            rest -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
        bit >>= 2;
    }
    return root;
}

int64_t ew_stop_way(int64_t speed, int64_t acceleration)
{
    /* speed + (speed - a) + (speed - 2a) + ... while positive */
    const int64_t n = speed / acceleration;
    return ((n + 1) * speed) - ((acceleration * (n * (n + 1))) / 2);
}

int64_t ew_speed_for_way(int64_t way, int64_t acceleration)
{
    /* ew_stop_way is piecewise linear in speed with its corners at multiples of a, where it is a n (n + 1) / 2. */
    const int64_t n = ((int64_t)isqrt((8u * (uint64_t)(way / acceleration)) + 1u) - 1) / 2;
    return (way + ((acceleration * (n * (n + 1))) / 2)) / (n + 1);
}

/* `speed` towards something that is `way` ahead, lowered until the axis can stop there. */
static int64_t stoppable(int64_t speed, int64_t way, int64_t acceleration)
{
    return (ew_stop_way(speed, acceleration) > way) ? ew_speed_for_way(way, acceleration) : speed;
}

/* Makes the step `velocity`, which must be within one acceleration of the last, after lowering it at a wall. The lowered value
 * is never more than one acceleration below the last: an axis that could stop before the wall still can. */
static void step(ew_axis_motion_t *axis, int64_t velocity, const ew_axis_limits_t *limits)
{
    const int64_t a = limits->acceleration_max;
    int64_t allowed = velocity;
    if (allowed > 0) {
        allowed = stoppable(allowed, limits->position_max - axis->position, a);
    } else {
        allowed = -stoppable(-allowed, axis->position - limits->position_min, a);
    }
    axis->velocity = allowed;
    axis->position += allowed;
}

/* The velocity that follows best, within what one tick can change. */
static int64_t following(const ew_axis_motion_t *axis, int64_t target, int64_t target_step, const ew_axis_limits_t *limits)
{
    const int64_t a = limits->acceleration_max;
    /* What is left if the axis only moves along with the target; closed as fast as it can be stopped again. */
    const int64_t error = (target - axis->position) - target_step;
    const int64_t way = magnitude(error);
    const int64_t closing = (way <= a) ? way : ew_speed_for_way(way, a);
    int64_t velocity = target_step + ((error < 0) ? -closing : closing);
    velocity = clamp(velocity, axis->velocity - a, axis->velocity + a);
    return clamp(velocity, -limits->velocity_max, limits->velocity_max);
}

void ew_limiter_follow(ew_axis_motion_t *axis, int64_t target, int64_t target_step, const ew_axis_limits_t *limits)
{
    step(axis, following(axis, target, target_step, limits), limits);
}

void ew_limiter_follow_to_rest(ew_axis_motion_t *axis, int64_t target, int64_t target_step, int64_t rest,
                               const ew_axis_limits_t *limits)
{
    const int64_t a = limits->acceleration_max;
    const int64_t way = rest - axis->position;
    int64_t velocity = following(axis, target, target_step, limits);
    if ((velocity > 0) && (way >= 0)) {
        velocity = clamp(stoppable(velocity, way, a), axis->velocity - a, axis->velocity + a);
    } else if ((velocity < 0) && (way <= 0)) {
        velocity = clamp(-stoppable(-velocity, -way, a), axis->velocity - a, axis->velocity + a);
    } else {
        /* it moves away from the end, or is at rest */
    }
    step(axis, velocity, limits);
}

int64_t ew_brake_ticks(const ew_axis_motion_t *axis, const ew_axis_limits_t *limits)
{
    return (magnitude(axis->velocity) + limits->acceleration_max - 1) / limits->acceleration_max;
}

void ew_limiter_brake(ew_axis_motion_t *axis, const ew_axis_limits_t *limits)
{
    const int64_t a = limits->acceleration_max;
    step(axis, axis->velocity - clamp(axis->velocity, -a, a), limits);
}

bool ew_limiter_holds(const ew_axis_motion_t *axis, const ew_axis_limits_t *limits)
{
    const int64_t speed = magnitude(axis->velocity);
    if ((axis->position < limits->position_min) || (axis->position > limits->position_max) ||
        (speed > limits->velocity_max)) {
        return false;
    }
    const int64_t room =
        (axis->velocity > 0) ? (limits->position_max - axis->position) : (axis->position - limits->position_min);
    /* The step that made this velocity is done: what is left to brake starts one acceleration lower. */
    return (speed <= limits->acceleration_max) ||
           (ew_stop_way(speed - limits->acceleration_max, limits->acceleration_max) <= room);
}
