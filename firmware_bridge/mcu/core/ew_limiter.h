/* The last check before the drive: whatever the plan says, position, velocity and acceleration stay within the limits.
 *
 * Integers only: positions in 1/256 micro-unit ("sub"), velocity in sub per tick, acceleration in sub per tick^2. NaN cannot
 * exist, and x86 and ARM give the same bits. What holds after every step is proved by induction from ew_limiter_holds(). */
#ifndef EW_LIMITER_H
#define EW_LIMITER_H
#include <stdbool.h>
#include <stdint.h>

#define EW_SUB 256 /* sub per micro-unit: one sub per tick is 3.9 um/s, so slow limits do not round to zero */

typedef struct {
    int64_t position_min; /* sub */
    int64_t position_max; /* sub */
    int64_t velocity_max; /* sub/tick, at least 1 */
    int64_t acceleration_max; /* sub/tick^2, at least 1 */
} ew_axis_limits_t;

typedef struct {
    int64_t position; /* sub */
    int64_t velocity; /* sub/tick, the last step made */
} ew_axis_motion_t;

/* The way needed by an axis that moves `speed` in this tick and then brakes by `acceleration` per tick. Both >= 0, > 0. */
int64_t ew_stop_way(int64_t speed, int64_t acceleration);

/* The largest speed whose ew_stop_way is at most `way` (>= 0). */
int64_t ew_speed_for_way(int64_t way, int64_t acceleration);

/* One tick towards `target`, which itself moved by `target_step` in this tick. An axis that follows exactly stays exact; one
 * that lags closes the gap without overshooting a target at rest. */
void ew_limiter_follow(ew_axis_motion_t *axis, int64_t target, int64_t target_step, const ew_axis_limits_t *limits);

/* The same near the end of a plan: it does not go faster towards `rest`, where the plan ends, than it can stop there. */
void ew_limiter_follow_to_rest(ew_axis_motion_t *axis, int64_t target, int64_t target_step, int64_t rest,
                               const ew_axis_limits_t *limits);

/* Ticks that the axis needs to brake from its present speed. */
int64_t ew_brake_ticks(const ew_axis_motion_t *axis, const ew_axis_limits_t *limits);

/* One tick of braking as hard as allowed. */
void ew_limiter_brake(ew_axis_motion_t *axis, const ew_axis_limits_t *limits);

/* The invariant: inside the position limits, not faster than allowed, and able to stop before the limit ahead. */
bool ew_limiter_holds(const ew_axis_motion_t *axis, const ew_axis_limits_t *limits);

#endif
