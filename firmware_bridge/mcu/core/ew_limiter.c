#include "ew_limiter.h"

#define CHORDS 2u /* steps towards the best jerk; the ends are tried first, and the next tick refines what is left */
#define HALVINGS 5u

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

/* ---- the braking envelope ---- */

int64_t ew_brake_way(uint32_t speed, uint32_t acceleration)
{
    const uint32_t whole = speed / acceleration;
    const int64_t n = (int64_t)whole;
    return (n * (int64_t)speed) - (((int64_t)acceleration * (n * (n + 1))) / 2);
}

bool ew_limiter_holds(int64_t position, int64_t velocity, const ew_axis_limits_t *limits)
{
    if ((position < limits->position_min) || (position > limits->position_max) || (velocity > limits->velocity_max) ||
        (velocity < -(int64_t)limits->velocity_max)) {
        return false;
    }
    const int64_t room = (velocity > 0) ? (limits->position_max - position) : (position - limits->position_min);
    return ew_brake_way((uint32_t)ew_magnitude(velocity), (uint32_t)limits->acceleration_max) <= room;
}

bool ew_limiter_commit(ew_axis_motion_t *axis, int64_t velocity, const ew_axis_limits_t *limits)
{
    const int64_t a = limits->acceleration_max;
    const int64_t before = axis->velocity;
    const bool good = (velocity <= (before + a)) && (velocity >= (before - a)) &&
                      ew_limiter_holds(axis->position + velocity, velocity, limits);
    const int64_t next = good ? velocity : (before - clamp(before, -a, a));
    axis->position += next;
    axis->velocity = (int32_t)next;
    axis->acceleration = (int32_t)(next - before);
    axis->broken = axis->broken || !good;
    return good;
}

/* ---- states with a verified stop ---- */

/* Whether an acceleration can be brought to zero, (a - j) + (a - 2j) + .., on the way from one velocity limit to the other. */
static bool useful(int32_t acceleration, int32_t velocity_max, int32_t jerk_max)
{
    const int64_t a = acceleration;
    const int64_t q = acceleration / jerk_max;
    return ((q * a) - (((int64_t)jerk_max * (q * (q + 1))) / 2)) <= (2 * (int64_t)velocity_max);
}

int32_t ew_limiter_useful_acceleration(int32_t velocity_max, int32_t acceleration_max, int32_t jerk_max)
{
    int32_t low = useful(acceleration_max, velocity_max, jerk_max) ? acceleration_max : 1;
    int32_t high = acceleration_max;
    while (low < high) {
        const int32_t a = low + ((high - low + 1) / 2);
        if (useful(a, velocity_max, jerk_max)) {
            low = a;
        } else {
            high = a - 1;
        }
    }
    return low;
}

void ew_limiter_rest(ew_axis_motion_t *axis, int64_t position)
{
    static const ew_stop_t none = {1, 0, 0, 0, 0, 0, 0};
    axis->position = position;
    axis->velocity = 0;
    axis->acceleration = 0;
    axis->stop = none;
    axis->end = position;
    axis->broken = false;
}

typedef struct {
    int64_t position;
    int64_t velocity;
    int64_t acceleration;
} step_t;

/* A step with its stop, and where that ends. */
typedef struct {
    int64_t velocity;
    ew_stop_t stop;
    int64_t end;
} state_t;

/* The state after one tick with a jerk. */
static step_t after(const ew_axis_motion_t *axis, int64_t jerk)
{
    step_t next;
    next.acceleration = axis->acceleration + jerk;
    next.velocity = axis->velocity + next.acceleration;
    next.position = axis->position + next.velocity;
    return next;
}

/* Whether a step leads to a state that is within the limits and has a stop that stays within them; fills in that state. */
static bool stoppable(const step_t *step, const ew_axis_limits_t *limits, state_t *state)
{
    const int64_t fastest = limits->velocity_max;
    if ((ew_magnitude(step->acceleration) > limits->acceleration_max) || (ew_magnitude(step->velocity) > fastest) ||
        (step->position < limits->position_min) || (step->position > limits->position_max)) {
        return false;
    }
    ew_stop_path_t path;
    ew_stop_plan((int32_t)step->velocity, (int32_t)step->acceleration, limits->acceleration_max, limits->jerk_max,
                 &state->stop, &path);
    state->velocity = step->velocity;
    state->end = step->position + path.end;
    return (ew_magnitude(path.turn) <= fastest) && ((step->position + path.low) >= limits->position_min) &&
           ((step->position + path.high) <= limits->position_max);
}

static void take(ew_axis_motion_t *axis, const state_t *state, const ew_axis_limits_t *limits)
{
    axis->stop = state->stop;
    axis->end = state->end;
    (void)ew_limiter_commit(axis, state->velocity, limits);
}

void ew_limiter_brake(ew_axis_motion_t *axis, const ew_axis_limits_t *limits)
{
    const int32_t acceleration = ew_stop_next(&axis->stop, axis->acceleration, limits->jerk_max);
    (void)ew_limiter_commit(axis, (int64_t)axis->velocity + acceleration, limits);
}

/* ---- the way to the target ---- */

/* What a search for the best jerk looks at. */
typedef struct {
    const ew_axis_motion_t *axis;
    const ew_axis_limits_t *limits;
    int64_t position;     /* of the target */
    int64_t velocity;
    int64_t acceleration; /* with which the target came to its velocity */
    int64_t rest;
    int32_t relative_acceleration_max; /* what the axis has more than the target uses */
    int32_t relative_jerk_max;
    int32_t fence; /* +1, -1: do not stop beyond `rest`, from below, from above; 0: it is of no concern */
} aim_t;

/* Where the axis would come to rest relative to the target, as seen from the moving target, if it now took `jerk`. Grows with
 * the jerk. The root is the fastest way that does not overshoot. */
static int64_t miss(const aim_t *aim, int64_t jerk)
{
    const step_t next = after(aim->axis, jerk);
    ew_stop_t stop;
    ew_stop_path_t path;
    ew_stop_plan((int32_t)(next.velocity - aim->velocity), (int32_t)(next.acceleration - aim->acceleration),
                 aim->relative_acceleration_max, aim->relative_jerk_max, &stop, &path);
    int64_t result = (next.position - aim->position) + path.end;
    if (aim->fence != 0) {
        ew_stop_plan((int32_t)next.velocity, (int32_t)next.acceleration, aim->limits->acceleration_max, aim->limits->jerk_max,
                     &stop, &path);
        const int64_t beyond = (next.position + path.end) - aim->rest;
        if ((aim->fence > 0) ? (beyond > result) : (beyond < result)) {
            result = beyond;
        }
    }
    return result;
}

/* low + (high - low) * part / whole, to 15 bits, strictly inside; 0 < part < whole. */
static int64_t chord(int64_t low, int64_t high, int64_t part, int64_t whole)
{
    uint64_t p = (uint64_t)part;
    uint64_t w = (uint64_t)whole;
    while (w >= ((uint64_t)1 << 16)) {
        w >>= 4;
        p >>= 4;
    }
    const uint32_t ratio = ((uint32_t)p << 15) / ((uint32_t)w + 1u);
    return clamp(low + (((high - low) * (int64_t)ratio) / 32768), low + 1, high - 1);
}

/* The jerk in least..most that misses the target least. `strictly` from below (+1) or from above (-1): not on its other side,
 * if there is such a jerk. */
static int64_t best_jerk(const aim_t *aim, int64_t least, int64_t most, int32_t strictly)
{
    int64_t low = least;
    int64_t high = most;
    int64_t over = miss(aim, high);
    if (over <= 0) {
        return high;
    }
    int64_t under = miss(aim, low);
    if (under >= 0) {
        return low;
    }
    int64_t best = (over < -under) ? high : low;
    int64_t least_missed = (over < -under) ? over : -under;
    for (uint32_t i = 0u; (i < CHORDS) && ((high - low) > 1); i++) {
        const int64_t middle = chord(low, high, -under, over - under);
        const int64_t missed = miss(aim, middle);
        if (ew_magnitude(missed) < least_missed) {
            best = middle;
            least_missed = ew_magnitude(missed);
        }
        /* The end that stays counts half the next time (the Illinois rule): both ends close in. */
        if (missed > 0) {
            high = middle;
            over = missed;
            under = (under + 1) / 2;
        } else {
            low = middle;
            under = missed;
            over /= 2;
        }
        if ((missed == 0) || (under == 0) || (over == 0)) {
            break;
        }
    }
    if (strictly != 0) {
        best = (strictly > 0) ? low : high;
    }
    return best;
}

/* The tick of the stop that the axis carries, as a jerk. */
static int64_t stopping_jerk(const ew_axis_motion_t *axis, const ew_axis_limits_t *limits)
{
    ew_stop_t stop = axis->stop;
    return (int64_t)ew_stop_next(&stop, axis->acceleration, limits->jerk_max) - axis->acceleration;
}

static aim_t aim_at(const ew_axis_motion_t *axis, const ew_target_t *target, const ew_axis_limits_t *limits)
{
    const int64_t a = limits->acceleration_max;
    const int64_t j = limits->jerk_max;
    aim_t aim;
    aim.axis = axis;
    aim.limits = limits;
    aim.position = clamp(target->position, limits->position_min, limits->position_max);
    aim.velocity = clamp(target->step, -(int64_t)limits->velocity_max, limits->velocity_max);
    const int64_t jerk = clamp(target->jerk, -j, j);
    /* More than half of the limits is not credited to the target: the rest is needed to get back to it. */
    aim.acceleration = clamp(clamp(target->next_acceleration, -a, a) - jerk, -(a / 2), a / 2);
    aim.relative_acceleration_max = (int32_t)(a - ew_magnitude(aim.acceleration));
    const int64_t spare = j - ew_magnitude(jerk);
    aim.relative_jerk_max = (int32_t)((spare > ((j + 3) / 4)) ? spare : ((j + 3) / 4));
    aim.rest = target->rest;
    aim.fence = 0;
    if (axis->stop.ticks >= target->ticks_left) {
        aim.fence = (target->rest > axis->position) ? 1 : ((target->rest < axis->position) ? -1 : 0);
    }
    return aim;
}

static bool beyond_fence(const aim_t *aim, int64_t end)
{
    return ((aim->fence > 0) && (end > aim->rest)) || ((aim->fence < 0) && (end < aim->rest));
}

/* The step that lands on the target exactly, if two more can stay on it. */
static bool follow_exactly(ew_axis_motion_t *axis, const ew_target_t *target, const aim_t *aim)
{
    const ew_axis_limits_t *limits = aim->limits;
    const int64_t j = limits->jerk_max;
    const int64_t jerk = ((target->position - axis->position) - axis->velocity) - axis->acceleration;
    if (ew_magnitude(jerk) > j) {
        return false;
    }
    const step_t next = after(axis, jerk);
    state_t state;
    const int64_t ahead = next.velocity - target->step;
    const int64_t then = target->next_acceleration - ahead; /* the acceleration that the second step needs */
    if ((ew_magnitude(then) > limits->acceleration_max) || (ew_magnitude(then - next.acceleration) > j) ||
        (ew_magnitude(ahead + target->jerk) > j) || !stoppable(&next, limits, &state) || beyond_fence(aim, state.end)) {
        return false;
    }
    take(axis, &state, limits);
    return true;
}

/* The admissible step nearest to `jerk`, seen from the tick of the stop, which is admissible. */
static void approach(ew_axis_motion_t *axis, int64_t jerk, const ew_axis_limits_t *limits)
{
    const step_t asked = after(axis, jerk);
    state_t best;
    if (stoppable(&asked, limits, &best)) {
        take(axis, &best, limits);
        return;
    }
    int64_t good = stopping_jerk(axis, limits);
    int64_t bad = jerk;
    bool found = false;
    for (uint32_t i = 0u; (i < HALVINGS) && (ew_magnitude(bad - good) > 1); i++) {
        const int64_t middle = good + ((bad - good) / 2);
        const step_t next = after(axis, middle);
        state_t state;
        if (stoppable(&next, limits, &state)) {
            good = middle;
            best = state;
            found = true;
        } else {
            bad = middle;
        }
    }
    if (found) {
        take(axis, &best, limits);
    } else {
        ew_limiter_brake(axis, limits);
    }
}

void ew_limiter_follow(ew_axis_motion_t *axis, const ew_target_t *target, const ew_axis_limits_t *limits)
{
    const aim_t aim = aim_at(axis, target, limits);
    if (follow_exactly(axis, target, &aim)) {
        return;
    }
    const int64_t j = limits->jerk_max;
    const int64_t a = limits->acceleration_max;
    const int64_t least = clamp(-j, -a - axis->acceleration, a - axis->acceleration);
    const int64_t most = clamp(j, -a - axis->acceleration, a - axis->acceleration);
    /* Before a target at rest, and before the end of the plan, the axis does not change sides if it need not. */
    const bool at_rest = (aim.velocity == 0) && (aim.acceleration == 0) && (target->jerk == 0);
    const int64_t goal = (aim.fence != 0) ? aim.rest : aim.position;
    int32_t strictly = 0;
    if (at_rest || (aim.fence != 0)) {
        strictly = (axis->position < goal) ? 1 : ((axis->position > goal) ? -1 : 0);
    }
    const int64_t jerk = best_jerk(&aim, least, most, strictly);
    /* A stop planned anew may end a few sub farther than the one that is under way. */
    const bool last = ((strictly > 0) && (axis->end <= goal) && (jerk == least)) ||
                      ((strictly < 0) && (axis->end >= goal) && (jerk == most));
    if (last) {
        ew_limiter_brake(axis, limits);
    } else {
        approach(axis, jerk, limits);
    }
}
