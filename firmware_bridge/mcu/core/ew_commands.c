/* What the host may ask, and what it is answered. Every command is checked whole before anything changes. */
#include "ew_command.h"

/* No frame waits longer than this in a queue of the host, and sequence numbers have not gone half around by then. */
#define OVERTAKEN_US 1000000

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

static uint8_t clock_refused(const ew_t *ew, ew_command_t *command)
{
    command->arg = (ew->clock_error_us < (uint32_t)INT32_MAX) ? (int32_t)ew->clock_error_us : INT32_MAX;
    return EW_ACK_CODE_CLOCK;
}

static uint8_t on_arm(ew_t *ew, ew_command_t *command)
{
    ew_arm_t m;
    if (!ew_unpack_arm(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    if (m.schema_hash != EW_SCHEMA_HASH) {
        return EW_ACK_CODE_BAD_SCHEMA;
    }
    if (ew->state != EW_STATE_CONFIGURED) {
        return ew_bad_state(ew, command);
    }
    if (m.limits_crc != ew->limits_crc) {
        return EW_ACK_CODE_BAD_LIMITS_CRC;
    }
    const uint8_t waiting = ew_drive_not_ready(ew);
    if (waiting < ew->axes) {
        command->arg = (int32_t)waiting;
        return EW_ACK_CODE_DRIVE;
    }
    if (!ew_encoder_fresh(ew, command->now_us)) {
        return EW_ACK_CODE_NO_ENCODER;
    }
    if (!ew_host_fresh(ew, command->now_us) || (ew->degrade != EW_DEGRADE_NOMINAL)) {
        return EW_ACK_CODE_NO_HOST;
    }
    if (!ew_clock_known(ew, command->now_us)) {
        return clock_refused(ew, command);
    }
    const uint8_t outside = axis_outside(ew);
    if (outside < ew->axes) {
        command->arg = (int32_t)outside;
        return EW_ACK_CODE_POSITION;
    }
    (void)ew_dispatch(ew, EW_EV_ARM, command->now_us);
    return EW_ACK_CODE_OK;
}

static uint8_t on_disarm(ew_t *ew, ew_command_t *command)
{
    if (command->count != 0u) {
        return ew_bad_length(command);
    }
    if (ew->drive_on && (ew_may_move(ew->state) || (ew->state == EW_STATE_STOP))) {
        ew_stop(ew, EW_STOP_CAUSE_DISARM, true, command->now_us);
    } else {
        (void)ew_dispatch(ew, EW_EV_OFF, command->now_us); /* a latch stays latched: its drive is off or braking */
    }
    return EW_ACK_CODE_OK;
}

static uint8_t on_hold(ew_t *ew, ew_command_t *command)
{
    if (command->count != 0u) {
        return ew_bad_length(command);
    }
    if (!ew_may_move(ew->state)) {
        return ew_bad_state(ew, command);
    }
    ew_drop_chunk(ew, EW_ACK_CODE_OLD_CHUNK, command->now_us);
    ew->stop_cause = EW_STOP_CAUSE_HOLD;
    (void)ew_dispatch(ew, EW_EV_HOLD, command->now_us);
    return EW_ACK_CODE_OK;
}

static uint8_t on_estop(ew_t *ew, ew_command_t *command)
{
    ew_estop(ew, command->now_us); /* whatever its payload: a mangled wish to stop is a wish to stop */
    return EW_ACK_CODE_OK;
}

static uint8_t after_clear(ew_t *ew, const ew_command_t *command)
{
    ew_save_noinit(ew);
    (void)ew_dispatch(ew, EW_EV_CLEARED, command->now_us);
    if (ew->noinit->fault != EW_FAULT_NONE) {
        (void)ew_dispatch(ew, EW_EV_FAULT, command->now_us); /* the emergency stop hid a fault, which is still latched */
    }
    return EW_ACK_CODE_OK;
}

static uint8_t on_estop_clear(ew_t *ew, ew_command_t *command)
{
    ew_estop_clear_t m;
    if (!ew_unpack_estop_clear(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    if (ew->state != EW_STATE_ESTOP) {
        return ew_bad_state(ew, command);
    }
    if (m.nonce != ew->noinit->clear_nonce) {
        return EW_ACK_CODE_BAD_NONCE;
    }
    if (ew->estop_input) {
        return EW_ACK_CODE_ESTOP_INPUT;
    }
    if (ew->drive_on) {
        return EW_ACK_CODE_MOVING;
    }
    ew->noinit->estop = 0u;
    return after_clear(ew, command);
}

static uint8_t on_fault_ack(ew_t *ew, ew_command_t *command)
{
    ew_fault_ack_t m;
    if (!ew_unpack_fault_ack(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    if (ew->state != EW_STATE_FAULT) {
        return ew_bad_state(ew, command);
    }
    if (m.fault != ew->noinit->fault) {
        command->arg = (int32_t)ew->noinit->fault;
        return EW_ACK_CODE_BAD_NONCE;
    }
    if (ew->noinit->fault == EW_FAULT_WATCHDOG_STORM) {
        command->arg = (int32_t)ew->noinit->fault;
        return EW_ACK_CODE_POWER_CYCLE;
    }
    if (ew->drive_on) {
        return EW_ACK_CODE_MOVING;
    }
    ew->noinit->fault = EW_FAULT_NONE;
    return after_clear(ew, command);
}

static void on_time_req(ew_t *ew, const ew_command_t *command)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    ew_time_req_t m;
    if (ew_unpack_time_req(command->payload, command->count, &m)) {
        const ew_time_resp_t resp = {m.t1_ns, (uint64_t)command->stamp_us, (uint64_t)command->now_us};
        ew_send(ew, EW_MSG_TIME_RESP, body, ew_pack_time_resp(&resp, &body[EW_HEADER_BYTES]));
    } else {
        ew->link_rx.bad++;
    }
}

static void on_hello_req(ew_t *ew, const ew_command_t *command)
{
    ew_hello_req_t m;
    if (ew_unpack_hello_req(command->payload, command->count, &m)) {
        ew_answer_hello(ew, m.nonce, command->now_us);
    } else {
        ew->link_rx.bad++;
    }
}

static void on_event_ack(ew_t *ew, const ew_command_t *command)
{
    ew_event_ack_t m;
    if (ew_unpack_event_ack(command->payload, command->count, &m)) {
        ew_forget_event(ew, m.event_id);
    } else {
        ew->link_rx.bad++;
    }
}

static void send_ack(ew_t *ew, uint8_t type, uint8_t code, const ew_command_t *command)
{
    const ew_ack_t said = {.code = code, .arg = command->arg, .lead_us = command->lead_us};
    ew_send_ack(ew, type, command->seq, &said, command->now_us);
}

static void count_gap(ew_t *ew, uint16_t seq)
{
    if (ew->from != EW_VIA_SERIAL) {
        return; /* on CAN an urgent frame overtakes others: there the transfer ids tell what was missed */
    }
    if (ew->seq_known) {
        const uint16_t skipped = (uint16_t)(seq - ew->rx_seq - 1u);
        /* More than half the circle is an older frame, not a gap. */
        ew->stats.rx_gaps += (skipped < 0x8000u) ? skipped : 0u;
    }
    ew->seq_known = true;
    ew->rx_seq = seq;
}

/* Knots in a clock that the host does not know well enough are knots at another time. */
static uint8_t on_chunk(ew_t *ew, ew_command_t *command)
{
    if (ew_may_move(ew->state) && !ew_clock_known(ew, command->now_us)) {
        ew->stats.chunks_refused++;
        return clock_refused(ew, command);
    }
    return ew_on_chunk(ew, command);
}

/* Commands that are answered by an ACK. */
static uint8_t command_code(ew_t *ew, uint8_t type, ew_command_t *command)
{
    switch (type) {
    case EW_MSG_LIMITS_SET:
        return ew_on_limits_set(ew, command);
    case EW_MSG_LIMITS_COMMIT:
        return ew_on_limits_commit(ew, command);
    case EW_MSG_LIMITS_GET:
        return ew_on_limits_get(ew, command);
    case EW_MSG_DRIVE_SET:
        return ew_on_drive_set(ew, command);
    case EW_MSG_DRIVE_GET:
        return ew_on_drive_get(ew, command);
    case EW_MSG_STOPS_SET:
        return ew_on_stops_set(ew, command);
    case EW_MSG_STOPS_GET:
        return ew_on_stops_get(ew, command);
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

/* A CHUNK that was sent before a HOLD and comes after it: the operator's wish to stand still is the newer one. */
static bool overtaken(ew_t *ew, uint8_t type, uint16_t seq, int64_t now_us)
{
    if (type == EW_MSG_HOLD) {
        ew->hold_seq = seq;
        ew->hold_us = now_us;
    }
    return (type == EW_MSG_CHUNK) && (ew->hold_us != EW_NEVER_US) && ((now_us - ew->hold_us) < OVERTAKEN_US) &&
           ((uint16_t)(ew->hold_seq - seq) < 0x8000u);
}

/* A command that was made for another boot, or that would move for another configuration. EW_ACK_CODE_OK: neither. */
static uint8_t outdated(const ew_t *ew, const uint8_t *body, uint8_t type)
{
    const bool any_session = (type == EW_MSG_HELLO_REQ) || (type == EW_MSG_TIME_REQ) || (type == EW_MSG_ESTOP);
    if (!any_session && (ew_get_u16(&body[4]) != ew->session)) {
        return EW_ACK_CODE_BAD_SESSION;
    }
    const bool moves = (type == EW_MSG_ARM) || (type == EW_MSG_CHUNK);
    return (moves && (body[1] != ew->epoch)) ? EW_ACK_CODE_EPOCH : EW_ACK_CODE_OK;
}

/* Work that a peer can cause is bounded in each tick. What is not done is counted; an emergency stop is always done. */
static bool flooded(ew_t *ew, uint8_t type)
{
    if (ew->answers_left > 0u) {
        ew->answers_left--;
        return false;
    }
    ew->stats.rx_flooded += (type != EW_MSG_ESTOP) ? 1u : 0u;
    return type != EW_MSG_ESTOP;
}

static void answer(ew_t *ew, uint8_t type, uint8_t refusal, ew_command_t *command)
{
    if (flooded(ew, type)) {
        return;
    }
    if (type == EW_MSG_HELLO_REQ) {
        on_hello_req(ew, command);
    } else if (type == EW_MSG_TIME_REQ) {
        on_time_req(ew, command);
    } else {
        uint8_t code = refusal;
        if (code == EW_ACK_CODE_OK) {
            code = overtaken(ew, type, command->seq, command->now_us) ? EW_ACK_CODE_OLD_CHUNK : command_code(ew, type, command);
        }
        if (code != EW_ANSWERED_LATER) {
            send_ack(ew, type, code, command);
        }
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
    ew_command_t command = {&body[EW_HEADER_BYTES], count - EW_HEADER_BYTES, stamp_us, now_us, seq, 0, 0};
    ew->stats.rx_frames++;
    count_gap(ew, seq);
    if (!ew_accepts(ew, type)) {
        ew->stats.rx_session++; /* of a host that is not the one who is in charge */
        return;
    }
    const uint8_t refusal = outdated(ew, body, type);
    ew->stats.rx_session += (refusal == EW_ACK_CODE_BAD_SESSION) ? 1u : 0u;
    if ((type != EW_MSG_HEARTBEAT) && (type != EW_MSG_EVENT_ACK)) {
        answer(ew, type, refusal, &command);
    } else if (refusal != EW_ACK_CODE_OK) {
        /* counted, and never answered */
    } else if (type == EW_MSG_HEARTBEAT) {
        ew_on_heartbeat(ew, &command);
    } else {
        on_event_ack(ew, &command);
    }
}
