/* What the host may ask, and what it is answered. Every command is checked whole before anything changes. */
#include "ew_core.h"

typedef struct {
    const uint8_t *payload;
    size_t count;
    int64_t stamp_us;
    int64_t now_us;
    int32_t arg;     /* goes into the ACK */
    int32_t lead_us; /* likewise */
} command_t;

static uint8_t bad_length(command_t *command)
{
    command->arg = (int32_t)command->count;
    return EW_ACK_CODE_BAD_LENGTH;
}

static uint8_t bad_value(command_t *command, int32_t field)
{
    command->arg = field;
    return EW_ACK_CODE_BAD_VALUE;
}

static uint8_t bad_state(const ew_t *ew, command_t *command)
{
    command->arg = (int32_t)ew->state;
    return EW_ACK_CODE_BAD_STATE;
}

static uint32_t limits_crc(const ew_t *ew, uint8_t axes)
{
    uint32_t crc = 0u;
    uint8_t packed[sizeof(ew_limits_t)];
    for (uint8_t axis = 0u; axis < axes; axis++) {
        crc = ew_crc32c(packed, ew_pack_limits(&ew->limits[axis], packed), crc);
    }
    return crc;
}

/* The index of the first field out of range, or -1. */
static int32_t limits_flaw(const ew_limits_set_t *m)
{
    if (m->axis >= EW_MAX_AXES) {
        return 0;
    }
    if ((m->position_min < -EW_POSITION_ABS_MAX) || (m->position_min > EW_POSITION_ABS_MAX)) {
        return 1;
    }
    if ((m->position_max > EW_POSITION_ABS_MAX) || (m->position_max <= m->position_min)) {
        return 2;
    }
    if ((m->velocity_max < (uint32_t)EW_ACCELERATION_MIN) || (m->velocity_max > (uint32_t)EW_VELOCITY_MAX_MAX)) {
        return 3;
    }
    if ((m->acceleration_max < (uint32_t)EW_ACCELERATION_MIN) ||
        (m->acceleration_max > (uint32_t)EW_ACCELERATION_MAX_MAX)) {
        return 4;
    }
    if ((m->following_error_max == 0u) || (m->following_error_max > (2u * (uint32_t)EW_POSITION_ABS_MAX))) {
        return 5;
    }
    if ((m->jump_max == 0u) || (m->jump_max > (2u * (uint32_t)EW_POSITION_ABS_MAX))) {
        return 6;
    }
    return ((m->lsb == 0u) || (m->lsb > (uint32_t)EW_LSB_MAX)) ? 7 : -1;
}

static uint8_t on_limits_set(ew_t *ew, command_t *command)
{
    ew_limits_set_t m;
    if (!ew_unpack_limits_set(command->payload, command->count, &m)) {
        return bad_length(command);
    }
    if (ew->state != EW_STATE_DISARMED) {
        command->arg = (int32_t)ew->state;
        return ew->locked ? EW_ACK_CODE_LOCKED : EW_ACK_CODE_BAD_STATE;
    }
    const int32_t flaw = limits_flaw(&m);
    if (flaw >= 0) {
        return bad_value(command, flaw);
    }
    const ew_limits_t limits = {m.axis, m.position_min, m.position_max, m.velocity_max, m.acceleration_max,
                                m.following_error_max, m.jump_max, m.lsb};
    ew->limits[m.axis] = limits;
    ew->limits_set |= (uint16_t)(1u << m.axis);
    return EW_ACK_CODE_OK;
}

void ew_bounds_of(const ew_limits_t *limits, ew_axis_limits_t *bounds)
{
    const int64_t ticks_per_s = 1000000 / EW_TICK_US;
    bounds->position_min = (int64_t)limits->position_min * EW_SUB;
    bounds->position_max = (int64_t)limits->position_max * EW_SUB;
    bounds->velocity_max = ((int64_t)limits->velocity_max * EW_SUB) / ticks_per_s;
    bounds->acceleration_max = ((int64_t)limits->acceleration_max * EW_SUB) / (ticks_per_s * ticks_per_s);
}

static void lock_limits(ew_t *ew, uint8_t axes, uint32_t crc)
{
    for (uint8_t axis = 0u; axis < axes; axis++) {
        ew_bounds_of(&ew->limits[axis], &ew->bounds[axis]);
        ew->jump_max[axis] = ew->limits[axis].jump_max;
    }
    ew->axes = axes;
    ew->limits_crc = crc;
    ew->locked = true;
}

static uint8_t on_limits_commit(ew_t *ew, command_t *command)
{
    ew_limits_commit_t m;
    if (!ew_unpack_limits_commit(command->payload, command->count, &m)) {
        return bad_length(command);
    }
    if (ew->state != EW_STATE_DISARMED) {
        return bad_state(ew, command);
    }
    if ((m.axes == 0u) || (m.axes > EW_MAX_AXES)) {
        return bad_value(command, 0);
    }
    const uint32_t needed = ((uint32_t)1 << m.axes) - 1u;
    if (((ew->limits_set & needed) != needed) || (limits_crc(ew, m.axes) != m.crc)) {
        return EW_ACK_CODE_BAD_LIMITS_CRC;
    }
    lock_limits(ew, m.axes, m.crc);
    (void)ew_dispatch(ew, EW_EV_COMMIT, command->now_us);
    return EW_ACK_CODE_OK;
}

static uint8_t on_limits_get(ew_t *ew, command_t *command)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    ew_limits_get_t m;
    if (!ew_unpack_limits_get(command->payload, command->count, &m)) {
        return bad_length(command);
    }
    if ((m.axis >= EW_MAX_AXES) || ((ew->limits_set & (1u << m.axis)) == 0u)) {
        return bad_value(command, 0);
    }
    ew_send(ew, EW_MSG_LIMITS, body, ew_pack_limits(&ew->limits[m.axis], &body[EW_HEADER_BYTES]));
    return EW_ACK_CODE_OK;
}

static bool host_ready(const ew_t *ew, int64_t now_us)
{
    return (ew->heartbeat_us != EW_NEVER_US) && ((now_us - ew->heartbeat_us) < EW_HOST_SILENT_US) &&
           (ew->degrade == EW_DEGRADE_NOMINAL);
}

/* The first axis that is outside its position limits, or the number of axes. */
static uint8_t axis_outside(const ew_t *ew)
{
    uint8_t axis = 0u;
    while ((axis < ew->axes) && (ew->encoder[axis] >= ew->limits[axis].position_min) &&
           (ew->encoder[axis] <= ew->limits[axis].position_max)) {
        axis++;
    }
    return axis;
}

static uint8_t on_arm(ew_t *ew, command_t *command)
{
    ew_arm_t m;
    if (!ew_unpack_arm(command->payload, command->count, &m)) {
        return bad_length(command);
    }
    if (m.schema_hash != EW_SCHEMA_HASH) {
        return EW_ACK_CODE_BAD_SCHEMA;
    }
    if (ew->state != EW_STATE_CONFIGURED) {
        return bad_state(ew, command);
    }
    if (m.limits_crc != ew->limits_crc) {
        return EW_ACK_CODE_BAD_LIMITS_CRC;
    }
    if (!ew_encoder_fresh(ew, command->now_us)) {
        return EW_ACK_CODE_NO_ENCODER;
    }
    if (!host_ready(ew, command->now_us)) {
        return EW_ACK_CODE_NO_HOST;
    }
    const uint8_t outside = axis_outside(ew);
    if (outside < ew->axes) {
        command->arg = (int32_t)outside;
        return EW_ACK_CODE_POSITION;
    }
    (void)ew_dispatch(ew, EW_EV_ARM, command->now_us);
    return EW_ACK_CODE_OK;
}

static uint8_t on_disarm(ew_t *ew, command_t *command)
{
    if (command->count != 0u) {
        return bad_length(command);
    }
    if (ew->drive_on && (ew_may_move(ew->state) || (ew->state == EW_STATE_STOP))) {
        ew_stop(ew, EW_STOP_CAUSE_DISARM, true, command->now_us);
    } else {
        (void)ew_dispatch(ew, EW_EV_OFF, command->now_us); /* a latch stays latched: its drive is off or braking */
    }
    return EW_ACK_CODE_OK;
}

static uint8_t on_hold(ew_t *ew, command_t *command)
{
    if (command->count != 0u) {
        return bad_length(command);
    }
    if (!ew_may_move(ew->state)) {
        return bad_state(ew, command);
    }
    ew->stop_cause = EW_STOP_CAUSE_HOLD;
    (void)ew_dispatch(ew, EW_EV_HOLD, command->now_us);
    return EW_ACK_CODE_OK;
}

static uint8_t on_estop(ew_t *ew, command_t *command)
{
    ew_estop(ew, command->now_us); /* whatever its payload: a mangled wish to stop is a wish to stop */
    return EW_ACK_CODE_OK;
}

static uint8_t after_clear(ew_t *ew, const command_t *command)
{
    ew_save_noinit(ew);
    (void)ew_dispatch(ew, EW_EV_CLEARED, command->now_us);
    if (ew->noinit->fault != EW_FAULT_NONE) {
        (void)ew_dispatch(ew, EW_EV_FAULT, command->now_us); /* the emergency stop hid a fault, which is still latched */
    }
    return EW_ACK_CODE_OK;
}

static uint8_t on_estop_clear(ew_t *ew, command_t *command)
{
    ew_estop_clear_t m;
    if (!ew_unpack_estop_clear(command->payload, command->count, &m)) {
        return bad_length(command);
    }
    if (ew->state != EW_STATE_ESTOP) {
        return bad_state(ew, command);
    }
    if (m.nonce != ew->noinit->clear_nonce) {
        return EW_ACK_CODE_BAD_NONCE;
    }
    if (ew->drive_on) {
        return EW_ACK_CODE_MOVING;
    }
    ew->noinit->estop = 0u;
    return after_clear(ew, command);
}

static uint8_t on_fault_ack(ew_t *ew, command_t *command)
{
    ew_fault_ack_t m;
    if (!ew_unpack_fault_ack(command->payload, command->count, &m)) {
        return bad_length(command);
    }
    if (ew->state != EW_STATE_FAULT) {
        return bad_state(ew, command);
    }
    if (m.fault != ew->noinit->fault) {
        command->arg = (int32_t)ew->noinit->fault;
        return EW_ACK_CODE_BAD_NONCE;
    }
    if (ew->drive_on) {
        return EW_ACK_CODE_MOVING;
    }
    ew->noinit->fault = EW_FAULT_NONE;
    return after_clear(ew, command);
}

/* The index of the first field of a chunk that is out of range, or -1. */
static int32_t chunk_flaw(const ew_t *ew, const ew_chunk_t *m)
{
    if (m->chunk_id == 0u) {
        return 0;
    }
    if (m->dt_10us < (EW_TICK_US / 10)) {
        return 2;
    }
    if ((m->n == 0u) || (m->n > EW_MAX_KNOTS)) {
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
    return (m->reserved != 0u) ? 8 : -1;
}

static void decode_samples(ew_t *ew, const ew_chunk_t *m)
{
    const size_t samples = (size_t)m->n * m->axes;
    for (size_t i = 0u; i < samples; i++) {
        if (m->encoding == EW_CHUNK_ENCODING_I32_MICRO) {
            ew->plan.position[i] = ew_get_i32(&m->samples[4u * i]);
        } else {
            ew->plan.position[i] =
                (int32_t)ew_get_i16(&m->samples[2u * i]) * (int32_t)ew->limits[i % m->axes].lsb;
        }
    }
}

/* Knot * 256 + axis of the first sample outside the position limits or too far from its predecessor, or -1. */
static int32_t range_flaw(const ew_t *ew)
{
    const ew_plan_t *plan = &ew->plan;
    for (size_t k = 0u; k < plan->n; k++) {
        for (uint8_t axis = 0u; axis < ew->axes; axis++) {
            const ew_limits_t *limits = &ew->limits[axis];
            const int64_t q = plan->position[(k * ew->axes) + axis];
            bool good = (q >= limits->position_min) && (q <= limits->position_max);
            if (good && (k > 0u)) {
                const int64_t step = q - plan->position[((k - 1u) * ew->axes) + axis];
                /* Each end may have been rounded by a step of its encoding. */
                const int64_t most = (((int64_t)limits->velocity_max * plan->dt_us) / 1000000) + 1 + (int64_t)limits->lsb;
                good = ((step < 0) ? -step : step) <= most;
            }
            if (!good) {
                return (int32_t)((k * 256u) + axis);
            }
        }
    }
    return -1;
}

static uint8_t splice(ew_t *ew, const ew_chunk_t *m, command_t *command)
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
    if ((ahead + (plan->dt_us * (plan->n - 1))) > EW_HORIZON_MAX_US) {
        return EW_ACK_CODE_FAR;
    }
    decode_samples(ew, m);
    const int32_t flaw = range_flaw(ew);
    if (flaw >= 0) {
        command->arg = flaw;
        return EW_ACK_CODE_RANGE;
    }
    const ew_anchor_t anchor = {ew->tick_us, ew->axis};
    return ew_timeline_splice(&ew->timeline, plan, &anchor, command->now_us, ew->jump_max, &command->arg);
}

static uint8_t judge_chunk(ew_t *ew, command_t *command)
{
    ew_chunk_t m;
    if (!ew_unpack_chunk(command->payload, command->count, &m)) {
        return bad_length(command);
    }
    if (!ew_may_move(ew->state)) {
        return bad_state(ew, command);
    }
    const int32_t flaw = chunk_flaw(ew, &m);
    if (flaw >= 0) {
        return bad_value(command, flaw);
    }
    const size_t width = (m.encoding == EW_CHUNK_ENCODING_I32_MICRO) ? 4u : 2u;
    if (m.samples_count != ((size_t)m.n * m.axes * width)) {
        return bad_length(command);
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

static uint8_t on_chunk(ew_t *ew, command_t *command)
{
    const uint8_t code = judge_chunk(ew, command);
    ew->stats.chunks += (code <= EW_ACK_CODE_OK_TRIMMED) ? 1u : 0u;
    ew->stats.chunks_trimmed += (code == EW_ACK_CODE_OK_TRIMMED) ? 1u : 0u;
    ew->stats.chunks_late += (code == EW_ACK_CODE_LATE) ? 1u : 0u;
    ew->stats.chunks_refused += ((code > EW_ACK_CODE_DUPLICATE) && (code != EW_ACK_CODE_LATE)) ? 1u : 0u;
    return code;
}

static void on_heartbeat(ew_t *ew, const command_t *command)
{
    ew_heartbeat_t m;
    if (!ew_unpack_heartbeat(command->payload, command->count, &m) || (m.degrade > EW_DEGRADE_SAFE_OFF)) {
        ew->link_rx.bad++; /* not a sign of life of a host that we understand */
        return;
    }
    const bool first = (ew->heartbeat_us == EW_NEVER_US);
    ew->heartbeat_us = command->stamp_us;
    if (first || (m.policy_counter != ew->policy_counter)) {
        ew->policy_us = command->stamp_us;
        ew->frozen_us = command->stamp_us;
        ew->policy_counter = m.policy_counter;
    }
    if (m.degrade != EW_DEGRADE_NOMINAL) {
        ew->frozen_us = command->stamp_us; /* a host that says that it does not plan is not a hung planner */
    }
    ew->degrade = m.degrade;
    ew->host_armed = (m.flags & EW_HEARTBEAT_FLAG_ARMED) != 0u;
    ew->host_was_armed = ew->host_was_armed || ew->host_armed;
}

static void on_time_req(ew_t *ew, const command_t *command)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    ew_time_req_t m;
    if (ew_unpack_time_req(command->payload, command->count, &m)) {
        const ew_time_resp_t resp = {m.t1_ns, (uint64_t)command->stamp_us, (uint64_t)command->now_us};
        ew_send(ew, EW_MSG_TIME_RESP, body, ew_pack_time_resp(&resp, &body[EW_HEADER_BYTES]));
    }
}

static void on_hello_req(ew_t *ew, const command_t *command)
{
    ew_hello_req_t m;
    if (ew_unpack_hello_req(command->payload, command->count, &m)) {
        ew_send_hello(ew, m.nonce, command->now_us);
        ew_resend_events(ew);
    }
}

static void on_event_ack(ew_t *ew, const command_t *command)
{
    ew_event_ack_t m;
    if (ew_unpack_event_ack(command->payload, command->count, &m)) {
        ew_forget_event(ew, m.event_id);
    }
}

static void send_ack(ew_t *ew, uint8_t type, uint16_t seq, uint8_t code, const command_t *command)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    const ew_ack_t ack = {
        .of_type = type,
        .code = code,
        .of_seq = seq,
        .arg = command->arg,
        .now_us = (uint64_t)command->now_us,
        .lead_us = command->lead_us,
        .free_knots = (uint8_t)(EW_MAX_KNOTS - ew->timeline.count),
    };
    ew_send(ew, EW_MSG_ACK, body, ew_pack_ack(&ack, &body[EW_HEADER_BYTES]));
}

static void count_gap(ew_t *ew, uint16_t seq)
{
    if (ew->seq_known) {
        const uint16_t skipped = (uint16_t)(seq - ew->rx_seq - 1u);
        /* More than half the circle is an older frame, not a gap. */
        ew->stats.rx_gaps += (skipped < 0x8000u) ? skipped : 0u;
    }
    ew->seq_known = true;
    ew->rx_seq = seq;
}

/* Commands that are answered by an ACK. */
static uint8_t command_code(ew_t *ew, uint8_t type, command_t *command)
{
    switch (type) {
    case EW_MSG_LIMITS_SET:
        return on_limits_set(ew, command);
    case EW_MSG_LIMITS_COMMIT:
        return on_limits_commit(ew, command);
    case EW_MSG_LIMITS_GET:
        return on_limits_get(ew, command);
    case EW_MSG_ARM:
        return on_arm(ew, command);
    case EW_MSG_DISARM:
        return on_disarm(ew, command);
    case EW_MSG_CHUNK:
        return on_chunk(ew, command);
    case EW_MSG_HOLD:
        return on_hold(ew, command);
    case EW_MSG_ESTOP:
        return on_estop(ew, command);
    case EW_MSG_ESTOP_CLEAR:
        return on_estop_clear(ew, command);
    case EW_MSG_FAULT_ACK:
        return on_fault_ack(ew, command);
    default:
        command->arg = (int32_t)type;
        return EW_ACK_CODE_UNKNOWN;
    }
}

void ew_handle(ew_t *ew, const uint8_t *body, size_t count, int64_t stamp_us, int64_t now_us)
{
    if (count < EW_HEADER_BYTES) {
        ew->link_rx.bad++;
        return;
    }
    const uint8_t type = body[0];
    const uint16_t seq = ew_get_u16(&body[2]);
    command_t command = {&body[EW_HEADER_BYTES], count - EW_HEADER_BYTES, stamp_us, now_us, 0, 0};
    ew->stats.rx_frames++;
    count_gap(ew, seq);
    const bool any_session = (type == EW_MSG_HELLO_REQ) || (type == EW_MSG_TIME_REQ) || (type == EW_MSG_ESTOP);
    if (!any_session && (ew_get_u16(&body[4]) != ew->session)) {
        ew->stats.rx_session++;
        if ((type != EW_MSG_HEARTBEAT) && (type != EW_MSG_EVENT_ACK)) {
            send_ack(ew, type, seq, EW_ACK_CODE_BAD_SESSION, &command);
        }
    } else if (type == EW_MSG_HELLO_REQ) {
        on_hello_req(ew, &command);
    } else if (type == EW_MSG_TIME_REQ) {
        on_time_req(ew, &command);
    } else if (type == EW_MSG_HEARTBEAT) {
        on_heartbeat(ew, &command);
    } else if (type == EW_MSG_EVENT_ACK) {
        on_event_ack(ew, &command);
    } else {
        const uint8_t code = command_code(ew, type, &command);
        send_ack(ew, type, seq, code, &command);
    }
}
