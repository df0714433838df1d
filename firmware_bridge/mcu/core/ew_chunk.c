/* Chunks: judged whole, then spliced or refused. */
#include "ew_command.h"

/* The index of the first field of a chunk that is out of range, or -1. */
static int32_t chunk_flaw(const ew_t *ew, const ew_chunk_t *m)
{
    if (m->chunk_id == 0u) {
        return 0;
    }
    if (m->dt_10us < (EW_TICK_US / 10)) {
        return 2;
    }
    if ((m->n == 0u) || (m->n > EW_TIMELINE_KNOTS)) {
        return 3;
    }
    if (m->axes != ew->axes) {
        return 4;
    }
    if ((m->encoding != EW_CHUNK_ENCODING_I32_MICRO) && (m->encoding != EW_CHUNK_ENCODING_I16_LSB)) {
        return 5;
    }
    if (m->mode != EW_CHUNK_MODE_REPLACE_FROM_T0) {
        return 6;
    }
    return (m->interpolation > EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) ? 8 : -1;
}

/* Values per knot and axis: a position, and with HERMITE_VELOCITY a velocity. */
static size_t kinds_of_sample(uint8_t interpolation)
{
    return (interpolation == EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) ? 2u : 1u;
}

static void decode_samples(ew_t *ew, const ew_chunk_t *m)
{
    const size_t positions = (size_t)m->n * m->axes;
    const size_t samples = positions * kinds_of_sample(m->interpolation);
    for (size_t i = 0u; i < samples; i++) {
        if (m->encoding == EW_CHUNK_ENCODING_I32_MICRO) {
            ew->plan.sample[i] = ew_get_i32(&m->samples[4u * i]);
        } else {
            const ew_limits_t *limits = &ew->limits[i % m->axes];
            const uint32_t lsb = (i < positions) ? limits->lsb : limits->velocity_lsb;
            ew->plan.sample[i] = (int32_t)ew_get_i16(&m->samples[2u * i]) * (int32_t)lsb;
        }
    }
}

/* Whether a knot may follow the one before it: inside the position limits, no more than `most` away, not too fast. With
 * velocities given the control points of the curve (a third of the way at the knot's velocity, to either side) must be inside
 * too: the curve between knots lies among them. */
static bool knot_good(const ew_t *ew, size_t k, uint8_t axis, int64_t most)
{
    const ew_plan_t *plan = &ew->plan;
    const ew_limits_t *limits = &ew->limits[axis];
    const size_t i = (k * ew->axes) + axis;
    const int64_t q = plan->sample[i];
    const int64_t low = limits->position_min;
    const int64_t high = limits->position_max;
    bool good = (q >= low) && (q <= high);
    if (k > 0u) {
        good = good && (ew_magnitude(q - plan->sample[i - ew->axes]) <= most);
    }
    if (plan->interpolation == EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) {
        const int64_t v = plan->sample[((size_t)plan->n * ew->axes) + i];
        const int64_t third = (v * plan->dt_us) / 3000000;
        const int64_t slack = 1 + (int64_t)limits->lsb + (((int64_t)limits->velocity_lsb * plan->dt_us) / 3000000);
        const bool next_in = ((k + 1u) == plan->n) || (((q + third) >= (low - slack)) && ((q + third) <= (high + slack)));
        const bool last_in = (k == 0u) || (((q - third) >= (low - slack)) && ((q - third) <= (high + slack)));
        good = good && next_in && last_in &&
               (ew_magnitude(v) <= ((int64_t)limits->velocity_max + (int64_t)limits->velocity_lsb));
    }
    return good;
}

/* Knot * 256 + axis of the first knot that is not good, or -1. */
static int32_t range_flaw(const ew_t *ew)
{
    int64_t most[EW_MAX_AXES]; /* from knot to knot, at the velocity limit */
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        const ew_limits_t *limits = &ew->limits[axis];
        /* Each end may have been rounded by a step of its encoding. */
        most[axis] = (((int64_t)limits->velocity_max * ew->plan.dt_us) / 1000000) + 1 + (int64_t)limits->lsb;
    }
    for (size_t k = 0u; k < ew->plan.n; k++) {
        for (uint8_t axis = 0u; axis < ew->axes; axis++) {
            if (!knot_good(ew, k, axis, most[axis])) {
                return (int32_t)((k * 256u) + axis);
            }
        }
    }
    return -1;
}

/* The first axis that this chunk alone would move farther than its move_max, or axes. */
static uint8_t axis_moving_far(const ew_t *ew)
{
    uint8_t axis = 0u;
    while (axis < ew->axes) {
        int64_t low = ew->plan.sample[axis];
        int64_t high = low;
        for (size_t k = 1u; k < ew->plan.n; k++) {
            const int64_t q = ew->plan.sample[(k * ew->axes) + axis];
            low = (q < low) ? q : low;
            high = (q > high) ? q : high;
        }
        if ((high - low) > (int64_t)ew->limits[axis].move_max) {
            break;
        }
        axis++;
    }
    return axis;
}

static uint8_t splice(ew_t *ew, const ew_chunk_t *m, ew_command_t *command)
{
    ew_plan_t *plan = &ew->plan;
    /* Nearest time to now with these 32 low bits: +-35 min. */
    const int32_t ahead = (int32_t)(m->t0_us - (uint32_t)((uint64_t)command->now_us & 0xFFFFFFFFu));
    command->lead_us = ahead;
    plan->t0_us = command->now_us + ahead;
    plan->dt_us = (int64_t)m->dt_10us * 10;
    plan->blend_us = (int64_t)m->blend_ms * 1000;
    if (plan->blend_us < EW_GUARD_US) {
        plan->blend_us = EW_GUARD_US;
    }
    plan->n = m->n;
    plan->interpolation = m->interpolation;
    if ((ahead + (plan->dt_us * (plan->n - 1))) > EW_HORIZON_MAX_US) {
        return EW_ACK_CODE_FAR;
    }
    decode_samples(ew, m);
    const int32_t flaw = range_flaw(ew);
    if (flaw >= 0) {
        command->arg = flaw;
        return EW_ACK_CODE_RANGE;
    }
    const uint8_t far = axis_moving_far(ew);
    if (far < ew->axes) {
        command->arg = (int32_t)far;
        return EW_ACK_CODE_MOVE;
    }
    const ew_anchor_t anchor = {ew->tick_us, ew->axis};
    return ew_timeline_splice(&ew->timeline, plan, &anchor, command->now_us, ew->jump_max, &command->arg);
}

static uint8_t judge_chunk(ew_t *ew, ew_command_t *command)
{
    ew_chunk_t m;
    if (!ew_unpack_chunk(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    if (!ew_may_move(ew->state)) {
        return ew_bad_state(ew, command);
    }
    const int32_t flaw = chunk_flaw(ew, &m);
    if (flaw >= 0) {
        return ew_bad_value(command, flaw);
    }
    const size_t width = (m.encoding == EW_CHUNK_ENCODING_I32_MICRO) ? 4u : 2u;
    if (m.samples_count != ((size_t)m.n * m.axes * kinds_of_sample(m.interpolation) * width)) {
        return ew_bad_length(command);
    }
    if (m.chunk_id <= ew->chunk_id) {
        command->arg = (int32_t)ew->chunk_id;
        return (m.chunk_id == ew->chunk_id) ? EW_ACK_CODE_DUPLICATE : EW_ACK_CODE_OLD_CHUNK;
    }
    const uint8_t code = splice(ew, &m, command);
    if (code <= EW_ACK_CODE_OK_TRIMMED) {
        ew->chunk_id = m.chunk_id;
        (void)ew_dispatch(ew, EW_EV_CHUNK, command->now_us);
    }
    return code;
}

uint8_t ew_on_chunk(ew_t *ew, ew_command_t *command)
{
    const uint8_t code = judge_chunk(ew, command);
    ew->stats.chunks += (code <= EW_ACK_CODE_OK_TRIMMED) ? 1u : 0u;
    ew->stats.chunks_trimmed += (code == EW_ACK_CODE_OK_TRIMMED) ? 1u : 0u;
    ew->stats.chunks_late += (code == EW_ACK_CODE_LATE) ? 1u : 0u;
    ew->stats.chunks_refused += ((code > EW_ACK_CODE_DUPLICATE) && (code != EW_ACK_CODE_LATE)) ? 1u : 0u;
    return code;
}
