#include "ew_timeline.h"

void ew_timeline_clear(ew_timeline_t *timeline, uint8_t axes)
{
    timeline->first = 0u;
    timeline->count = 0u;
    timeline->axes = axes;
}

/* The i-th knot in use. */
static const ew_knot_t *knot_at(const ew_timeline_t *timeline, uint32_t i)
{
    return &timeline->knots[(timeline->first + i) % EW_TIMELINE_KNOTS];
}

static const ew_knot_t *last_knot(const ew_timeline_t *timeline)
{
    return knot_at(timeline, timeline->count - 1u);
}

int64_t ew_timeline_end_us(const ew_timeline_t *timeline)
{
    return last_knot(timeline)->at_us;
}

int64_t ew_timeline_last(const ew_timeline_t *timeline, uint8_t axis)
{
    return last_knot(timeline)->position[axis];
}

void ew_timeline_advance(ew_timeline_t *timeline, int64_t now_us)
{
    while ((timeline->count > 1u) && (knot_at(timeline, 1u)->at_us <= now_us)) {
        timeline->first = (uint8_t)((timeline->first + 1u) % EW_TIMELINE_KNOTS);
        timeline->count--;
    }
}

/* The place on a plan that is alive: a later knot exists, and every plan starts with the knot of its splice, so there are two. */
static ew_place_t place_at(const ew_timeline_t *timeline, int64_t now_us)
{
    uint32_t i = 1u;
    while (((i + 1u) < timeline->count) && (knot_at(timeline, i)->at_us <= now_us)) {
        i++;
    }
    return ew_curve_place(knot_at(timeline, i - 1u), knot_at(timeline, i), now_us);
}

bool ew_timeline_sample(const ew_timeline_t *timeline, int64_t now_us, int64_t *position)
{
    const bool live = now_us <= ew_timeline_end_us(timeline);
    if (!live) {
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            position[axis] = ew_timeline_last(timeline, axis);
        }
    } else {
        const ew_place_t place = place_at(timeline, now_us);
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            position[axis] = ew_curve_position(&place, axis);
        }
    }
    return live;
}

bool ew_timeline_targets(const ew_timeline_t *timeline, int64_t now_us, ew_target_t *target)
{
    const int64_t left_us = ew_timeline_end_us(timeline) - now_us;
    if (left_us < 0) {
        return false;
    }
    const ew_place_t now = place_at(timeline, now_us);
    const ew_place_t before = place_at(timeline, now_us - EW_TICK_US);
    for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
        ew_curve_target(&now, axis, &target[axis]);
        target[axis].step = target[axis].position - ew_curve_position(&before, axis);
        target[axis].rest = ew_timeline_last(timeline, axis);
        target[axis].ticks_left = (int32_t)(left_us / EW_TICK_US);
    }
    return true;
}

/* ---- splice ---- */

/* Three-point slope between two secants, limited to three times the flatter one (Fritsch and Carlson): monotone between knots.
 * `part` of the way the slope is `after`, in 2^-16. */
static int64_t monotone_slope(int64_t before, int64_t after, int64_t part)
{
    if ((before == 0) || (after == 0) || ((before < 0) != (after < 0))) {
        return 0;
    }
    const int64_t slope = before + (((after - before) / 65536) * part);
    const int64_t most = 3 * ((ew_magnitude(before) < ew_magnitude(after)) ? ew_magnitude(before) : ew_magnitude(after));
    return (slope > most) ? most : ((slope < -most) ? -most : slope);
}

/* The knot at which the old plan is left: the commanded state now, or the old plan's own position and slope at leave_us. */
static void make_anchor(const ew_timeline_t *timeline, const ew_anchor_t *anchor, int64_t leave_us, ew_knot_t *knot)
{
    knot->at_us = leave_us;
    knot->shape = EW_SHAPE_FREE;
    if (leave_us <= anchor->at_us) {
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            knot->position[axis] = anchor->axis[axis].position;
            knot->slope[axis] = ((int64_t)anchor->axis[axis].velocity * EW_SLOPE_US) / EW_TICK_US;
        }
    } else {
        const ew_place_t place = place_at(timeline, leave_us);
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            knot->position[axis] = ew_curve_position(&place, axis);
            knot->slope[axis] = ew_curve_slope(&place, axis);
        }
    }
}

static int64_t knot_time(const ew_plan_t *plan, uint8_t k)
{
    return plan->t0_us + ((int64_t)k * plan->dt_us);
}

/* The first knot that is used, or plan->n when the chunk is late. */
static uint8_t first_used(const ew_plan_t *plan, int64_t now_us, int64_t leave_us)
{
    const int64_t soonest = now_us + EW_GUARD_US;
    uint8_t first = 0u;
    while ((first < plan->n) && (knot_time(plan, first) < soonest)) {
        first++;
    }
    if ((first > 0u) && (((soonest - plan->t0_us) > EW_LATE_MAX_US) || ((first + 2u) > plan->n))) {
        return plan->n;
    }
    while (((first + 2u) < plan->n) && (knot_time(plan, first) < (leave_us + plan->blend_us))) {
        first++;
    }
    return first;
}

/* The axis whose jump is too large, or the number of axes. */
static uint8_t jumping_axis(const ew_timeline_t *timeline, const ew_plan_t *plan, const ew_anchor_t *anchor, uint8_t first,
                            const uint32_t *jump_max)
{
    int64_t running[EW_MAX_AXES];
    if (timeline->count > 0u) {
        (void)ew_timeline_sample(timeline, knot_time(plan, first), running);
    } else {
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            running[axis] = anchor->axis[axis].position;
        }
    }
    uint8_t axis = 0u;
    while (axis < timeline->axes) {
        const int64_t jump = ((int64_t)plan->sample[((size_t)first * timeline->axes) + axis] * EW_SUB) - running[axis];
        if (((jump < 0) ? -jump : jump) > ((int64_t)jump_max[axis] * EW_SUB)) {
            break;
        }
        axis++;
    }
    return axis;
}

/* When the old plan is left: blend before the chunk, if the old plan reaches there and that is still to come. */
static int64_t leave_time(const ew_timeline_t *timeline, const ew_plan_t *plan, const ew_anchor_t *anchor)
{
    const int64_t leave = plan->t0_us - plan->blend_us;
    const bool covered = (timeline->count > 1u) && (leave < ew_timeline_end_us(timeline));
    return (covered && (leave > anchor->at_us)) ? leave : anchor->at_us;
}

/* Old knots that are still needed before leave_us, the current segment's first included. */
static uint8_t kept_knots(const ew_timeline_t *timeline, const ew_anchor_t *anchor, int64_t leave_us)
{
    uint8_t kept = 0u;
    if (leave_us > anchor->at_us) {
        while ((kept < timeline->count) && (knot_at(timeline, kept)->at_us < leave_us)) {
            kept++;
        }
    }
    return kept;
}

/* Micro-units per second as a slope: 1e8 * EW_SUB * 2^24 is below 2^63. */
static int64_t slope_of(int32_t velocity)
{
    return ((int64_t)velocity * EW_SUB * EW_SLOPE_US) / 1000000;
}

/* From knot k of a plan to the next one, along one axis. */
static int64_t plan_secant(const ew_plan_t *plan, uint8_t axes, uint8_t k, uint8_t axis)
{
    const size_t i = ((size_t)k * axes) + axis;
    return ew_curve_secant(((int64_t)plan->sample[i + axes] - plan->sample[i]) * EW_SUB, plan->dt_us);
}

/* The slope at a knot that is followed by another one; `part` as in monotone_slope. */
static int64_t chosen_slope(const ew_plan_t *plan, int64_t before, int64_t after, int64_t part)
{
    return (plan->interpolation == EW_CHUNK_INTERPOLATION_LINEAR) ? after : monotone_slope(before, after, part);
}

void ew_plan_slopes(ew_plan_t *plan, uint8_t axes, uint8_t k)
{
    const size_t row = (size_t)k * axes;
    const bool last = (k + 1u) == plan->n;
    for (uint8_t axis = 0u; axis < axes; axis++) {
        if (plan->interpolation == EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) {
            plan->slope[row + axis] = slope_of(plan->sample[((size_t)plan->n * axes) + row + axis]);
        } else if (last) {
            plan->slope[row + axis] = 0; /* reached at rest */
        } else {
            const int64_t after = plan_secant(plan, axes, k, axis);
            plan->slope[row + axis] = (k == 0u) ? 0 : chosen_slope(plan, plan->secant[axis], after, 32768);
            plan->secant[axis] = after;
        }
    }
}

/* The slope at the first knot that is used, which follows the knot of the splice. */
static int64_t first_slope(const ew_plan_t *plan, uint8_t axes, uint8_t first, uint8_t axis, const ew_knot_t *leave)
{
    const int64_t at_us = knot_time(plan, first);
    const int64_t position = (int64_t)plan->sample[((size_t)first * axes) + axis] * EW_SUB;
    const int64_t h0 = at_us - leave->at_us;
    const int64_t before = ew_curve_secant(position - leave->position[axis], h0);
    const int64_t part = (h0 == plan->dt_us) ? 32768 : ((h0 * 65536) / (h0 + plan->dt_us));
    return chosen_slope(plan, before, plan_secant(plan, axes, first, axis), part);
}

/* The knots of a plan from `first` on, behind the knot of the splice, which is the at-th in use. */
static void add_knots(ew_timeline_t *timeline, const ew_plan_t *plan, uint8_t first, uint8_t at)
{
    static const uint8_t shapes[] = {
        [EW_CHUNK_INTERPOLATION_HERMITE] = EW_SHAPE_MONOTONE,
        [EW_CHUNK_INTERPOLATION_LINEAR] = EW_SHAPE_STRAIGHT,
        [EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY] = EW_SHAPE_FREE,
    };
    const uint8_t axes = timeline->axes;
    const ew_knot_t *leave = knot_at(timeline, at);
    const bool chosen = (plan->interpolation != EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) && ((first + 1u) < plan->n);
    uint8_t to = at;
    for (uint8_t k = first; k < plan->n; k++) {
        to++;
        ew_knot_t *knot = &timeline->knots[(timeline->first + to) % EW_TIMELINE_KNOTS];
        knot->at_us = knot_time(plan, k);
        knot->shape = shapes[plan->interpolation];
        for (uint8_t axis = 0u; axis < axes; axis++) {
            const size_t i = ((size_t)k * axes) + axis;
            knot->position[axis] = (int64_t)plan->sample[i] * EW_SUB;
            knot->slope[axis] = ((k == first) && chosen) ? first_slope(plan, axes, first, axis, leave) : plan->slope[i];
        }
    }
    timeline->count = (uint8_t)(to + 1u);
}

uint8_t ew_timeline_splice(ew_timeline_t *timeline, const ew_plan_t *plan, const ew_anchor_t *anchor, int64_t now_us,
                           const uint32_t *jump_max, int32_t *arg)
{
    const int64_t leave_us = leave_time(timeline, plan, anchor);
    const uint8_t first = first_used(plan, now_us, leave_us);
    if (first == plan->n) {
        *arg = (int32_t)(now_us + EW_GUARD_US - plan->t0_us);
        return EW_ACK_CODE_LATE;
    }
    const uint8_t jumping = jumping_axis(timeline, plan, anchor, first, jump_max);
    if (jumping < timeline->axes) {
        *arg = (int32_t)jumping;
        return EW_ACK_CODE_JUMP;
    }
    const uint8_t kept = kept_knots(timeline, anchor, leave_us);
    const int32_t room = ((int32_t)EW_TIMELINE_KNOTS - 1) - (int32_t)kept;
    if (((int32_t)plan->n - (int32_t)first) > room) {
        *arg = room;
        return EW_ACK_CODE_FULL;
    }
    /* Behind the knots that are kept, where nothing lies that the place at leave_us needs. */
    ew_knot_t leave;
    make_anchor(timeline, anchor, leave_us, &leave);
    timeline->knots[(timeline->first + kept) % EW_TIMELINE_KNOTS] = leave;
    add_knots(timeline, plan, first, kept);
    *arg = (int32_t)first;
    return (first > 0u) ? EW_ACK_CODE_OK_TRIMMED : EW_ACK_CODE_OK;
}
