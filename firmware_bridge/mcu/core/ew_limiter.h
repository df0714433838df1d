/* The last step before the drive: whatever the plan says, position, velocity, acceleration and jerk stay within the limits.
 *
 * An axis always carries a stop (ew_stop.h) from its present state that was verified to end at rest inside the position limits
 * without leaving them or the velocity limit on its way. A next state is taken only if such a stop exists from there too;
 * otherwise one tick of the stop that the axis carries is executed. So the planner of the next state may be anything:
 *
 *   Invariant: executing axis->stop tick by tick keeps |jerk| <= jerk_max, |acceleration| <= acceleration_max,
 *   |velocity| <= velocity_max and position_min <= position <= position_max, and ends at rest after axis->stop.ticks.
 *   It holds at rest (ew_limiter_rest), a tick of the stop keeps it, and a new state is taken only with a stop of its own.
 *
 * Behind that stands a second, independent bound that needs none of it: ew_limiter_holds() is the classic braking envelope
 * (velocity, position and braking way at acceleration_max), and ew_limiter_commit() makes no step that leaves it; from any
 * state inside, the hardest braking stays inside. Position, velocity and acceleration are bounded by that alone.
 *
 * Integers only: positions in 1/4096 micro-unit ("sub"), velocity in sub per tick, and so on. NaN cannot exist, and x86 and ARM
 * give the same bits. No globals, no division loop but those of the compiler's library. */
#ifndef EW_LIMITER_H
#define EW_LIMITER_H
#include "ew_stop.h"

#define EW_SUB 4096 /* sub per micro-unit: a jerk of one sub per tick^3 is 0.24 units/s^3, so soft limits do not round to zero */

typedef struct {
    int64_t position_min;     /* sub, |.| <= 1e8 * EW_SUB */
    int64_t position_max;     /* sub */
    int32_t velocity_max;     /* sub/tick, 1 .. 2^29 */
    int32_t acceleration_max; /* sub/tick^2, 1 .. 2^23; not more than can be brought to zero within the velocity limits */
    int32_t jerk_max;         /* sub/tick^3, 1 .. 2^24 */
} ew_axis_limits_t;

typedef struct {
    int64_t position;     /* sub */
    int32_t velocity;     /* sub/tick, the last step made */
    int32_t acceleration; /* sub/tick^2, the last change of velocity */
    ew_stop_t stop;       /* the verified stop from here */
    int64_t end;          /* sub, where it ends: inside the position limits */
    bool broken;          /* ew_limiter_commit had to step in: a defect of limiter or memory */
} ew_axis_motion_t;

/* Where the plan wants an axis at the tick to come. A target at rest has only a position. */
typedef struct {
    int64_t position;          /* sub */
    int64_t step;              /* sub: what it moved in this tick */
    int64_t next_acceleration; /* sub/tick^2: by how much its next step will differ from this one */
    int64_t jerk;              /* sub/tick^3: by how much its acceleration changes per tick */
    int64_t rest;              /* sub: where the plan ends */
    int32_t ticks_left;        /* until then; INT32_MAX: not of interest */
} ew_target_t;

/* The largest acceleration that the velocity range allows: more could not be brought back to zero within it. */
int32_t ew_limiter_useful_acceleration(int32_t velocity_max, int32_t acceleration_max, int32_t jerk_max);

/* At rest at a position. */
void ew_limiter_rest(ew_axis_motion_t *axis, int64_t position);

/* One tick towards a target. An axis that is on a plan within its limits stays on it exactly (nearer to a position limit than
 * four accelerations it may brake a tick early: the verified stop takes up to a tick longer than the shortest one). One that
 * lags catches up in the shortest time. A target at rest is never overshot by an axis that could still stop before it, and
 * neither is the end of the plan once there is no more time than the axis needs to stop. */
void ew_limiter_follow(ew_axis_motion_t *axis, const ew_target_t *target, const ew_axis_limits_t *limits);

/* One tick of the stop: the fastest one that acceleration and jerk allow. */
void ew_limiter_brake(ew_axis_motion_t *axis, const ew_axis_limits_t *limits);

/* Makes the step to `velocity` (any value), or, if it left the braking envelope or the acceleration limit, brakes as hard as
 * allowed and marks the axis broken. From a state that holds it leads to a state that holds. True if the step was made. */
bool ew_limiter_commit(ew_axis_motion_t *axis, int64_t velocity, const ew_axis_limits_t *limits);

/* The way that braking still takes after a step of `speed`: (speed - a) + (speed - 2a) + .. while positive. */
int64_t ew_brake_way(uint32_t speed, uint32_t acceleration);

/* The braking envelope: inside the position limits, not faster than allowed, and able to brake before the limit ahead. */
bool ew_limiter_holds(int64_t position, int64_t velocity, const ew_axis_limits_t *limits);

#endif
