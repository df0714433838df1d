#include "ew_timeline.h"

/* 1.0 in the fixed point of segment time and of slopes. Division by it is exact in its rounding (towards zero) for negative
 * values too, where a shift is left to the compiler. */
#define ONE ((int64_t)1 << 20)
/* Secants are cut here: far above any velocity limit (1e8 um/s is 2.7e10), far below overflow with 10 s of time. */
#define SECANT_MAX ((int64_t)1 << 37)

void ew_timeline_clear(ew_timeline_t *timeline, uint8_t axes)
{
    timeline->first = 0u;
    timeline->count = 0u;
    timeline->axes = axes;
}

int64_t ew_timeline_end_us(const ew_timeline_t *timeline)
{
    return timeline->knots[timeline->first + timeline->count - 1u].at_us;
}

int64_t ew_timeline_last(const ew_timeline_t *timeline, uint8_t axis)
{
    return timeline->knots[timeline->first + timeline->count - 1u].position[axis];
}

void ew_timeline_advance(ew_timeline_t *timeline, int64_t now_us)
{
    while ((timeline->count > 1u) && (timeline->knots[timeline->first + 1u].at_us <= now_us)) {
        timeline->first++;
        timeline->count--;
    }
}

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

/* The cubic of one axis between two knots, in the segment's own time s = 0..1: p0 + s (m0 + s (c2 + s c3)). */
typedef struct {
    int64_t p0;
    int64_t m0;
    int64_t c2;
    int64_t c3;
} cubic_t;

static cubic_t cubic_of(const ew_knot_t *a, const ew_knot_t *b, uint8_t axis)
{
    const int64_t h = b->at_us - a->at_us;
    const int64_t d = b->position[axis] - a->position[axis];
    const int64_t m0 = (h * a->slope[axis]) / ONE;
    const int64_t m1 = (h * b->slope[axis]) / ONE;
    const cubic_t cubic = {a->position[axis], m0, (3 * d) - (2 * m0) - m1, m0 + m1 - (2 * d)};
    return cubic;
}

static int64_t cubic_position(const cubic_t *c, int64_t s)
{
    return c->p0 + ((s * (c->m0 + ((s * (c->c2 + ((s * c->c3) / ONE))) / ONE))) / ONE);
}

/* Sub per segment. */
static int64_t cubic_slope(const cubic_t *c, int64_t s)
{
    return c->m0 + ((s * ((2 * c->c2) + (3 * ((s * c->c3) / ONE)))) / ONE);
}

/* Position of one axis between two knots. Limited slopes keep the cubic between the knots; the clamp takes away what rounding
 * could add. A pinned first knot is the arm's own velocity, which cannot be wished away: there the limiter is the bound. */
static int64_t between(const ew_knot_t *a, const ew_knot_t *b, int64_t s, uint8_t axis)
{
    const cubic_t cubic = cubic_of(a, b, axis);
    int64_t position = cubic_position(&cubic, s);
    if (!a->pinned) {
        const int64_t low = (a->position[axis] < b->position[axis]) ? a->position[axis] : b->position[axis];
        const int64_t high = (a->position[axis] < b->position[axis]) ? b->position[axis] : a->position[axis];
        if (position < low) {
            position = low;
        }
        if (position > high) {
            position = high;
        }
    }
    return position;
}

static const ew_knot_t *segment_at(const ew_timeline_t *timeline, int64_t now_us)
{
    const ew_knot_t *knot = &timeline->knots[timeline->first];
    const ew_knot_t *last = &timeline->knots[timeline->first + timeline->count - 1u];
    while (((knot + 1) < last) && ((knot + 1)->at_us <= now_us)) {
        knot++;
    }
    return knot;
}

/* 0..ONE within the segment from a to b. */
static int64_t segment_time(const ew_knot_t *a, const ew_knot_t *b, int64_t now_us)
{
    return (now_us <= a->at_us) ? 0 : (((now_us - a->at_us) * ONE) / (b->at_us - a->at_us));
}

bool ew_timeline_sample(const ew_timeline_t *timeline, int64_t now_us, int64_t *position)
{
    const bool live = now_us <= ew_timeline_end_us(timeline);
    if (!live) {
        const ew_knot_t *last = &timeline->knots[timeline->first + timeline->count - 1u];
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            position[axis] = last->position[axis];
        }
    } else {
        /* Alive means that a later knot exists, and every plan starts with the knot of its splice: there are two at least. */
        const ew_knot_t *a = segment_at(timeline, now_us);
        const int64_t s = segment_time(a, a + 1, now_us);
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            position[axis] = between(a, a + 1, s, axis);
        }
    }
    return live;
}

static int64_t secant(const ew_knot_t *a, const ew_knot_t *b, uint8_t axis)
{
    return clamp(((b->position[axis] - a->position[axis]) * ONE) / (b->at_us - a->at_us), SECANT_MAX);
}

/* Three-point slope at `knot`, limited to three times the flatter secant (Fritsch and Carlson): monotone between knots. */
static int64_t slope_at(const ew_knot_t *knot, uint8_t axis)
{
    const int64_t before = secant(knot - 1, knot, axis);
    const int64_t after = secant(knot, knot + 1, axis);
    if ((before == 0) || (after == 0) || ((before < 0) != (after < 0))) {
        return 0;
    }
    const int64_t h0 = knot->at_us - (knot - 1)->at_us;
    const int64_t h1 = (knot + 1)->at_us - knot->at_us;
    const int64_t slope = ((h1 * before) + (h0 * after)) / (h0 + h1);
    const int64_t least = ((before < 0) != (before < after)) ? before : after;
    return clamp(slope, 3 * ((least < 0) ? -least : least));
}

/* The knot at which the old plan is left: the commanded state now, or the old plan's own position and slope at leave_us. */
static void make_anchor(const ew_timeline_t *timeline, const ew_anchor_t *anchor, int64_t leave_us, ew_knot_t *knot)
{
    knot->at_us = leave_us;
    knot->pinned = true;
    if (leave_us <= anchor->at_us) {
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            knot->position[axis] = anchor->axis[axis].position;
            knot->slope[axis] = (anchor->axis[axis].velocity * ONE) / EW_TICK_US;
        }
    } else {
        const ew_knot_t *a = segment_at(timeline, leave_us);
        const int64_t s = segment_time(a, a + 1, leave_us);
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            const cubic_t cubic = cubic_of(a, a + 1, axis);
            knot->position[axis] = between(a, a + 1, s, axis);
            knot->slope[axis] = (cubic_slope(&cubic, s) * ONE) / ((a + 1)->at_us - a->at_us);
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
    if ((first > 0u) && (((soonest - plan->t0_us) > EW_LATE_MAX_US) || ((plan->n - first) < 2))) {
        return plan->n;
    }
    while (((plan->n - first) > 2) && (knot_time(plan, first) < (leave_us + plan->blend_us))) {
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
        const int64_t jump = ((int64_t)plan->position[((size_t)first * timeline->axes) + axis] * EW_SUB) - running[axis];
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
        while ((kept < timeline->count) && (timeline->knots[timeline->first + kept].at_us < leave_us)) {
            kept++;
        }
    }
    return kept;
}

static void add_knots(ew_timeline_t *timeline, const ew_plan_t *plan, uint8_t first, uint8_t at)
{
    uint8_t to = at;
    for (uint8_t k = first; k < plan->n; k++) {
        ew_knot_t *knot = &timeline->knots[to];
        knot->at_us = knot_time(plan, k);
        knot->pinned = false;
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            knot->position[axis] = (int64_t)plan->position[((size_t)k * timeline->axes) + axis] * EW_SUB;
            knot->slope[axis] = 0; /* the last knot is reached at rest */
        }
        to++;
    }
    for (uint8_t i = at; (i + 1u) < to; i++) {
        for (uint8_t axis = 0u; axis < timeline->axes; axis++) {
            timeline->knots[i].slope[axis] = slope_at(&timeline->knots[i], axis);
        }
    }
    timeline->first = 0u;
    timeline->count = to;
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
    const int32_t room = (EW_TIMELINE_KNOTS - 1) - (int32_t)kept;
    if ((plan->n - first) > room) {
        *arg = room;
        return EW_ACK_CODE_FULL;
    }
    ew_knot_t leave;
    make_anchor(timeline, anchor, leave_us, &leave);
    for (uint8_t i = 0u; i < kept; i++) {
        timeline->knots[i] = timeline->knots[timeline->first + i];
    }
    timeline->knots[kept] = leave;
    add_knots(timeline, plan, first, (uint8_t)(kept + 1u));
    *arg = (int32_t)first;
    return (first > 0u) ? EW_ACK_CODE_OK_TRIMMED : EW_ACK_CODE_OK;
}
