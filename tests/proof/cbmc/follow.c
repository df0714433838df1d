/* One tick towards a target, whatever the target: jerk, and the stop that an axis carries. Stops themselves are taken by their
 * contract here; it is tried on every state of small worlds (tests/proof/small_worlds.c). */
#include "ew_limiter.c" /* whole, for what is static in it */
#include "ew_protocol.h"

#include "proof.h"

#define FARTHEST ((int64_t)EW_POSITION_ABS_MAX * EW_SUB)
#define APPROVED (HALVINGS + 2u) /* states that one tick looks at: the exact one, the one asked for, and the halvings */

static ew_axis_limits_t limits;
static ew_axis_motion_t before;
static ew_axis_motion_t axis;
static int32_t next_of_stop; /* the acceleration of the next tick of the stop that the axis carries */
static step_t approved[APPROVED];
static uint32_t looked_at;

/* The braking envelope, an unknown function of the state. */
bool __CPROVER_uninterpreted_holds(int64_t position, int64_t velocity);

bool holds_contract(int64_t position, int64_t velocity, const ew_axis_limits_t *of)
{
    PROVE(of == &limits, "the axis' own limits");
    return __CPROVER_uninterpreted_holds(position, velocity);
}

static bool within(const step_t *step)
{
    return (ew_magnitude(step->acceleration) <= limits.acceleration_max) && (ew_magnitude(step->velocity) <= limits.velocity_max) &&
           (step->position >= limits.position_min) && (step->position <= limits.position_max) &&
           __CPROVER_uninterpreted_holds(step->position, step->velocity);
}

/* A step is approved if it is within the limits and has a stop from there; the stop is known by a number. */
bool stoppable_contract(const step_t *step, const ew_axis_limits_t *of, state_t *state)
{
    PROVE((of == &limits) && (looked_at < APPROVED), "the axis' own limits, and no more states than there are halvings");
    PROVE((step->velocity == (before.velocity + step->acceleration)) && (step->position == (before.position + step->velocity)),
          "a step from where the axis is");
    state_t any;
    HAVOC(&any);
    any.velocity = step->velocity;
    any.stop.ticks = (int32_t)looked_at + 1;
    approved[looked_at] = *step;
    looked_at++;
    *state = any;
    const bool yes = nondet_bool();
    ASSUME(!yes || within(step));
    return yes;
}

/* The next tick of the stop that the axis carries: the same whenever it is asked. */
int32_t stop_contract(ew_stop_t *stop, int32_t acceleration, int32_t jerk_max)
{
    PROVE((acceleration == before.acceleration) && (jerk_max == limits.jerk_max), "the stop goes on from where the axis is");
    PROVE(stop->ticks == 0, "the stop that the axis carries");
    return next_of_stop;
}

int64_t search_contract(const aim_t *aim, int64_t least, int64_t most, int32_t strictly)
{
    (void)strictly;
    PROVE((aim->axis == &axis) && (aim->limits == &limits) && (least <= most), "a search between two bounds");
    const int64_t jerk = nondet_i64();
    ASSUME((jerk >= least) && (jerk <= most));
    return jerk;
}

static void any_state(void)
{
    HAVOC(&limits);
    ASSUME((limits.position_min >= -FARTHEST) && (limits.position_max <= FARTHEST) && (limits.position_min <= limits.position_max));
    ASSUME((limits.velocity_max >= 1) && (limits.velocity_max <= ((int32_t)1 << 29)));
    ASSUME((limits.acceleration_max >= 1) && (limits.acceleration_max <= ((int32_t)1 << 23)));
    ASSUME((limits.jerk_max >= 1) && (limits.jerk_max <= ((int32_t)1 << 24)));
    HAVOC(&axis);
    axis.stop.ticks = 0;
    ASSUME((ew_magnitude(axis.acceleration) <= limits.acceleration_max) && (ew_magnitude(axis.velocity) <= limits.velocity_max));
    ASSUME((axis.position >= limits.position_min) && (axis.position <= limits.position_max) && !axis.broken);
    ASSUME((axis.end >= limits.position_min) && (axis.end <= limits.position_max));
    next_of_stop = nondet_i32();
    const int64_t change = (int64_t)next_of_stop - axis.acceleration;
    const step_t tick = {axis.position + axis.velocity + next_of_stop, (int64_t)axis.velocity + next_of_stop, next_of_stop};
    ASSUME((ew_magnitude(change) <= limits.jerk_max) && within(&tick));
    before = axis;
}

static ew_target_t any_target(void)
{
    ew_target_t target;
    HAVOC(&target);
    ASSUME((target.position >= -4 * FARTHEST) && (target.position <= 4 * FARTHEST));
    ASSUME((target.rest >= -4 * FARTHEST) && (target.rest <= 4 * FARTHEST));
    ASSUME((target.step >= -8 * FARTHEST) && (target.step <= 8 * FARTHEST));
    ASSUME((target.next_acceleration >= -16 * FARTHEST) && (target.next_acceleration <= 16 * FARTHEST));
    ASSUME((target.jerk >= -32 * FARTHEST) && (target.jerk <= 32 * FARTHEST));
    return target;
}

static void proved(void)
{
    const int64_t change = (int64_t)axis.acceleration - before.acceleration;
    const step_t made = {axis.position, axis.velocity, axis.acceleration};
    PROVE((change <= (limits.jerk_max - SLACK)) && (change >= -(int64_t)limits.jerk_max), "jerk");
    PROVE(within(&made), "position, velocity, acceleration");
    PROVE(!axis.broken, "the gate behind it never has to step in");
    const int32_t number = axis.stop.ticks;
    if (number == 0) {
        PROVE(made.acceleration == next_of_stop, "either a tick of the stop that the axis carries");
    } else {
        const step_t *step = &approved[number - 1];
        PROVE((made.position == step->position) && (made.velocity == step->velocity) && (made.acceleration == step->acceleration),
              "or a step with the stop that was found for it");
    }
}

void follow(void)
{
    any_state();
    const ew_target_t target = any_target();
    ew_limiter_follow(&axis, &target, &limits);
    proved();
    END();
}

void brake(void)
{
    any_state();
    ew_limiter_brake(&axis, &limits);
    proved();
    END();
}

/* ---- the search ---- */

int64_t miss_contract(const aim_t *aim, int64_t jerk)
{
    (void)aim;
    PROVE(ew_magnitude(jerk) <= ((int64_t)1 << 24), "no more than a jerk");
    const int64_t missed = nondet_i64();
    ASSUME((missed >= -((int64_t)1 << 60)) && (missed <= ((int64_t)1 << 60)));
    return missed;
}

int64_t chord_contract(int64_t low, int64_t high, int64_t part, int64_t whole)
{
    PROVE((part > 0) && (part < whole) && ((high - low) > 1), "between two sides");
    const int64_t middle = nondet_i64();
    ASSUME((middle > low) && (middle < high));
    return middle;
}

/* Whatever is missed by how much: the search stays between its bounds. */
void search(void)
{
    const aim_t aim;
    const int64_t least = nondet_i32();
    const int64_t most = nondet_i32();
    ASSUME((least >= -((int64_t)1 << 24)) && (most <= ((int64_t)1 << 24)) && (least <= most));
    const int64_t jerk = best_jerk(&aim, least, most, nondet_i32());
    PROVE((jerk >= least) && ((jerk + SLACK) <= most), "a jerk between the bounds");
    END();
}

/* The chord's contract; the clamp does it, whatever the ratio. */
void between(void)
{
    const int64_t low = nondet_i32();
    const int64_t high = nondet_i32();
    const int64_t part = nondet_i64();
    const int64_t whole = nondet_i64();
    ASSUME((low >= -((int64_t)1 << 24)) && (high <= ((int64_t)1 << 24)) && ((high - low) > 1));
    ASSUME((part > 0) && (part < whole) && (whole <= ((int64_t)1 << 61)));
    const int64_t middle = chord(low, high, part, whole);
    PROVE((middle > low) && ((middle + SLACK) < high), "strictly between");
    END();
}
