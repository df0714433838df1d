/* Chunks: judged whole, then spliced or refused. The longest would take longer than a control tick, so it is done in slices
 * between ticks (ew_work). Until the last slice nothing of the running plan changes, and whatever takes the permission to move
 * away throws the chunk in hand away with it. */
#include "ew_command.h"

#define EW_SLICE_SAMPLES 32u /* positions looked at in one slice, rounded up to whole knots: 4,000 instructions at most */

/* The index of the first field of a chunk that is out of range, or -1. */
static int32_t chunk_flaw(const ew_t *ew, const ew_chunk_t *m)
{
    if (m->chunk_id == 0u) {
        return 0;
    }
    if (m->dt_10us < ((uint32_t)EW_TICK_US / 10u)) {
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
    const uint8_t *from = m->samples;
    int32_t *to = ew->plan.sample;
    if (m->encoding == EW_CHUNK_ENCODING_I32_MICRO) {
        for (size_t i = 0u; i < samples; i++) {
            to[i] = ew_get_i32(&from[4u * i]);
        }
        return;
    }
    size_t i = 0u;
    while (i < samples) {
        for (uint8_t axis = 0u; axis < m->axes; axis++) {
            const ew_limits_t *limits = &ew->limits[axis];
            const uint32_t lsb = (i < positions) ? limits->lsb : limits->velocity_lsb;
            to[i] = (int32_t)ew_get_i16(&from[2u * i]) * (int32_t)lsb;
            i++;
        }
    }
}

/* Whether a knot may follow the one before it: inside the position limits, no more than `most` away, not too fast. With
 * velocities given the control points of the curve (a third of the way at the knot's velocity, to either side) must be inside
 * too: the curve between knots lies among them. */
static bool knot_good(const ew_t *ew, size_t k, uint8_t axis)
{
    const ew_plan_t *plan = &ew->plan;
    const ew_limits_t *limits = &ew->limits[axis];
    const size_t i = (k * ew->axes) + axis;
    const int64_t q = plan->sample[i];
    const int64_t low = limits->position_min;
    const int64_t high = limits->position_max;
    bool good = (q >= low) && (q <= high);
    if (k > 0u) {
        good = good && (ew_magnitude(q - plan->sample[i - ew->axes]) <= ew->judging.most[axis]);
    }
    if (plan->interpolation == EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) {
        const int64_t v = plan->sample[((size_t)plan->n * ew->axes) + i];
        const int64_t third = (v * plan->dt_us) / 3000000;
        const int64_t slack = ew->judging.slack[axis];
        const bool next_in = ((k + 1u) == plan->n) || (((q + third) >= (low - slack)) && ((q + third) <= (high + slack)));
        const bool last_in = (k == 0u) || (((q - third) >= (low - slack)) && ((q - third) <= (high + slack)));
        good = good && next_in && last_in &&
               (ew_magnitude(v) <= ((int64_t)limits->velocity_max + (int64_t)limits->velocity_lsb));
    }
    return good;
}

/* What the knots are judged by; each end may have been rounded by a step of its encoding. */
static void begin_judging(ew_t *ew, const ew_chunk_t *m, const ew_command_t *command)
{
    ew_judging_t *judging = &ew->judging;
    judging->stage = EW_JUDGE_RANGE;
    judging->knot = 0u;
    judging->seq = command->seq;
    judging->chunk_id = m->chunk_id;
    judging->lead_us = command->lead_us;
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        const ew_limits_t *limits = &ew->limits[axis];
        judging->most[axis] = (((int64_t)limits->velocity_max * ew->plan.dt_us) / 1000000) + 1 + (int64_t)limits->lsb;
        judging->slack[axis] = 1 + (int64_t)limits->lsb + (((int64_t)limits->velocity_lsb * ew->plan.dt_us) / 3000000);
        judging->low[axis] = ew->plan.sample[axis];
        judging->high[axis] = ew->plan.sample[axis];
    }
}

/* ---- what comes in ---- */

static uint8_t begin(ew_t *ew, const ew_chunk_t *m, ew_command_t *command)
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
    begin_judging(ew, m, command);
    return EW_ANSWERED_LATER;
}

static uint8_t take_chunk(ew_t *ew, ew_command_t *command)
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
    if (ew->judging.stage != EW_JUDGE_NOTHING) {
        return EW_ACK_CODE_FULL; /* no place for it, as arg says, until the one in hand has been answered */
    }
    return begin(ew, &m, command);
}

static void count_answer(ew_t *ew, uint8_t code)
{
    ew->stats.chunks += (code <= EW_ACK_CODE_OK_TRIMMED) ? 1u : 0u;
    ew->stats.chunks_trimmed += (code == EW_ACK_CODE_OK_TRIMMED) ? 1u : 0u;
    ew->stats.chunks_late += (code == EW_ACK_CODE_LATE) ? 1u : 0u;
    ew->stats.chunks_refused += ((code > EW_ACK_CODE_DUPLICATE) && (code != EW_ACK_CODE_LATE)) ? 1u : 0u;
}

uint8_t ew_on_chunk(ew_t *ew, ew_command_t *command)
{
    const uint8_t code = take_chunk(ew, command);
    if (code != EW_ANSWERED_LATER) {
        count_answer(ew, code);
    }
    return code;
}

/* ---- slice by slice ---- */

static void finish(ew_t *ew, uint8_t code, int32_t arg, int64_t now_us)
{
    const ew_ack_t said = {.code = code, .arg = arg, .lead_us = ew->judging.lead_us};
    ew->judging.stage = EW_JUDGE_NOTHING;
    count_answer(ew, code);
    ew_send_ack(ew, EW_MSG_CHUNK, ew->judging.seq, &said, now_us);
}

void ew_drop_chunk(ew_t *ew, uint8_t code, int64_t now_us)
{
    if (ew->judging.stage != EW_JUDGE_NOTHING) {
        finish(ew, code, (code == EW_ACK_CODE_BAD_STATE) ? (int32_t)ew->state : 0, now_us);
    }
}

/* The first axis of a knot that is not good, or axes. */
static uint8_t axis_out_of_range(ew_t *ew, uint8_t k)
{
    ew_judging_t *judging = &ew->judging;
    uint8_t axis = 0u;
    while ((axis < ew->axes) && knot_good(ew, k, axis)) {
        const int32_t q = ew->plan.sample[((size_t)k * ew->axes) + axis];
        judging->low[axis] = (q < judging->low[axis]) ? q : judging->low[axis];
        judging->high[axis] = (q > judging->high[axis]) ? q : judging->high[axis];
        axis++;
    }
    return axis;
}

/* The first axis that this chunk alone would move farther than its move_max, or axes. */
static uint8_t axis_moving_far(const ew_t *ew)
{
    uint8_t axis = 0u;
    while ((axis < ew->axes) && (((int64_t)ew->judging.high[axis] - ew->judging.low[axis]) <= (int64_t)ew->limits[axis].move_max)) {
        axis++;
    }
    return axis;
}

static void judge_range(ew_t *ew, int64_t now_us)
{
    ew_judging_t *judging = &ew->judging;
    uint32_t samples = 0u;
    while ((samples < EW_SLICE_SAMPLES) && (judging->knot < ew->plan.n)) {
        const uint8_t axis = axis_out_of_range(ew, judging->knot);
        if (axis < ew->axes) {
            finish(ew, EW_ACK_CODE_RANGE, (int32_t)((judging->knot * 256u) + axis), now_us);
            return;
        }
        judging->knot++;
        samples += ew->axes;
    }
    if (judging->knot == ew->plan.n) {
        const uint8_t far = axis_moving_far(ew);
        if (far < ew->axes) {
            finish(ew, EW_ACK_CODE_MOVE, (int32_t)far, now_us);
            return;
        }
        judging->stage = EW_JUDGE_SLOPES;
        judging->knot = 0u;
    }
}

static void judge_slopes(ew_t *ew)
{
    ew_judging_t *judging = &ew->judging;
    uint32_t samples = 0u;
    while ((samples < EW_SLICE_SAMPLES) && (judging->knot < ew->plan.n)) {
        ew_plan_slopes(&ew->plan, ew->axes, judging->knot);
        judging->knot++;
        samples += ew->axes;
    }
    if (judging->knot == ew->plan.n) {
        judging->stage = EW_JUDGE_SPLICE;
    }
}

/* In one piece: how late it is and where the plan is left are judged against the plan as it is now. */
static void judge_splice(ew_t *ew, int64_t now_us)
{
    const ew_anchor_t anchor = {ew->tick_us, ew->axis};
    int32_t arg = 0;
    const uint8_t code = ew_timeline_splice(&ew->timeline, &ew->plan, &anchor, now_us, ew->jump_max, &arg);
    if (code <= EW_ACK_CODE_OK_TRIMMED) {
        ew->chunk_id = ew->judging.chunk_id;
        (void)ew_dispatch(ew, EW_EV_CHUNK, now_us);
    }
    finish(ew, code, arg, now_us);
}

bool ew_judge(ew_t *ew, int64_t now_us)
{
    switch (ew->judging.stage) {
    case EW_JUDGE_RANGE:
        judge_range(ew, now_us);
        break;
    case EW_JUDGE_SLOPES:
        judge_slopes(ew);
        break;
    case EW_JUDGE_SPLICE:
        judge_splice(ew, now_us);
        break;
    default:
        break;
    }
    return ew->judging.stage != EW_JUDGE_NOTHING;
}
