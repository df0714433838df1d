/* A jerk-limited stop, planned whole before it is needed: its phases as counters, and where it leads, in closed form.
 *
 * One tick adds the acceleration to the velocity, then the velocity to the position; from tick to tick the acceleration changes
 * by at most one jerk. A stop is: `full` ticks of one whole jerk each, then `hold` ticks at the peak, then down to zero by one
 * jerk per tick, with one tick of `rest` put in where it fits: it takes up what whole ticks leave over. The sums are exact
 * integers: executed tick by tick, the stop ends where the plan said, at velocity and acceleration zero.
 * Units: sub (1/4096 micro-unit), sub per tick, sub per tick^2, sub per tick^3. */
#ifndef EW_STOP_H
#define EW_STOP_H
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int32_t side;  /* +1: ends with a negative acceleration, -1: mirrored */
    int32_t full;  /* ticks of one whole jerk */
    int32_t hold;  /* ticks at -side * peak */
    int32_t down;  /* whole jerks down from the peak before the tick of rest */
    int32_t peak;  /* magnitude that the ramp to zero goes on from, >= 0 */
    int32_t rest;  /* magnitude of the one tick put into that ramp, 0: none */
    int32_t ticks; /* until velocity and acceleration are zero */
} ew_stop_t;

/* Where a stop leads, relative to the position at which it begins. */
typedef struct {
    int64_t end;  /* sub */
    int64_t low;  /* lowest position on the way, <= 0 */
    int64_t high; /* highest position on the way, >= 0 */
    int64_t turn; /* sub/tick, the velocity at which the acceleration passes zero: its extreme where it still grows */
} ew_stop_path_t;

static inline int64_t ew_magnitude(int64_t value)
{
    return (value < 0) ? -value : value;
}

/* Plans the stop from a velocity and an acceleration. |velocity| < 2^30, |acceleration| < 2^24, both limits in 1 .. 2^25, and
 * |turn| < 2^32 (so for every state within limits from ew_bounds_of). */
void ew_stop_plan(int32_t velocity, int32_t acceleration, int32_t acceleration_max, int32_t jerk_max, ew_stop_t *stop,
                  ew_stop_path_t *path);

/* The acceleration of the next tick of a planned stop that is now at `acceleration`. Zero for ever after its end. */
int32_t ew_stop_next(ew_stop_t *stop, int32_t acceleration, int32_t jerk_max);

#endif
