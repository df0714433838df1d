/* The state machine at work, the control tick, and the host link. */
#include "ew_core.h"

/* ---- state machine ---- */

bool ew_standing_still(const ew_t *ew)
{
    bool still = true;
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        still = still && (ew->axis[axis].velocity == 0) && (ew->axis[axis].acceleration == 0);
    }
    return still;
}

/* Remembers the commanded state once more, inverted: what changes between two ticks was not changed by the core. */
void ew_shadow(ew_t *ew)
{
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew->shadow[axis].position = ~ew->axis[axis].position;
        ew->shadow[axis].velocity = ~ew->axis[axis].velocity;
        ew->shadow[axis].acceleration = ~ew->axis[axis].acceleration;
    }
}

static void switch_on(ew_t *ew)
{
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew_limiter_rest(&ew->axis[axis], (int64_t)ew->encoder[axis] * EW_SUB);
    }
    ew_window_begin(&ew->window, ew->limits, ew->axes);
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew->strained_us[axis] = EW_NEVER_US;
    }
    ew_shadow(ew);
    ew->still_us = ew->tick_us;
    ew->brake_on = false;
    ew->chunk_id = 0u;
    ew->stop_cause = EW_STOP_CAUSE_NONE;
    ew->host_was_armed = false;
    ew->off_pending = false;
    ew->encoder_new = false;
    ew->hold_us = EW_NEVER_US;
    ew->drive_on = true;
}

void ew_switch_off(ew_t *ew)
{
    for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
        ew_limiter_rest(&ew->axis[axis], ew->axis[axis].position);
    }
    /* An arm with holding brakes never loses its torque with the brakes open, whatever took the torque away. */
    ew->brake_on = ew->brake_on || (ew->drive_on && (ew->stops.brake_after_ms != 0u));
    ew->drive_on = false;
    ew->off_pending = false;
}

static void entered(ew_t *ew, uint8_t from, int64_t now_us)
{
    if (ew->state != EW_STATE_RUN) {
        ew_timeline_clear(&ew->timeline, ew->axes);
    }
    if (!ew_may_move(ew->state)) {
        ew_drop_chunk(ew, EW_ACK_CODE_BAD_STATE, now_us);
    }
    switch (ew->state) {
    case EW_STATE_DISARMED:
        ew_switch_off(ew);
        ew_unlock_limits(ew);
        break;
    case EW_STATE_CONFIGURED:
        ew->epoch++;
        break;
    case EW_STATE_ARMED:
        if (from == EW_STATE_CONFIGURED) {
            switch_on(ew);
        }
        break;
    case EW_STATE_RUN:
        if (from != EW_STATE_RUN) {
            ew->frozen_us = now_us;
        }
        break;
    case EW_STATE_STARVED:
        ew->starved_us = now_us;
        break;
    case EW_STATE_ESTOP:
    case EW_STATE_FAULT:
        if ((from != EW_STATE_ESTOP) && (from != EW_STATE_FAULT)) {
            ew->brake_us = now_us;
        }
        break;
    default:
        break;
    }
}

bool ew_dispatch(ew_t *ew, uint8_t event, int64_t now_us)
{
    const uint8_t from = ew->state;
    const uint8_t to = ew_next_state(from, event);
    if (to == EW_STATE_NONE) {
        return false;
    }
    ew->state = to;
    entered(ew, from, now_us);
    if (to != from) {
        ew_emit(ew, EW_EVENT_KIND_STATE, (int32_t)from, (int32_t)to, now_us);
    }
    return true;
}

/* Asked for only where the drive is on and nothing is latched: these states all know a stop. */
void ew_stop(ew_t *ew, uint8_t cause, bool off, int64_t now_us)
{
    (void)ew_dispatch(ew, EW_EV_STOP, now_us);
    ew->stop_cause = cause;
    ew->off_pending = ew->off_pending || off;
    ew_emit(ew, EW_EVENT_KIND_STOP, (int32_t)cause, 0, now_us);
}

void ew_fault(ew_t *ew, uint16_t fault, int32_t detail, int64_t now_us)
{
    if (ew->noinit->fault == EW_FAULT_NONE) { /* the first one is the cause, what follows are its consequences */
        ew->noinit->fault = fault;
        ew_renew_nonce(ew);
        ew_save_noinit(ew);
        ew_emit(ew, EW_EVENT_KIND_FAULT, (int32_t)fault, detail, now_us);
        if (ew_dispatch(ew, EW_EV_FAULT, now_us)) {
            ew->stop_cause = EW_STOP_CAUSE_FAULT;
        }
    }
    /* Where the core's own work cannot be trusted there is no braking profile to trust either. */
    if ((fault == EW_FAULT_LIMITER_CHECK) || (fault == EW_FAULT_STACK_OVERFLOW) || (fault == EW_FAULT_SELFTEST) ||
        (fault == EW_FAULT_MEMORY)) {
        ew_switch_off(ew);
    }
}

void ew_estop(ew_t *ew, int64_t now_us)
{
    if (ew->noinit->estop == 0u) {
        ew->noinit->estop = 1u;
        ew_renew_nonce(ew);
        ew_save_noinit(ew);
        ew_emit(ew, EW_EVENT_KIND_STOP, EW_STOP_CAUSE_ESTOP, 0, now_us);
    }
    ew->stop_cause = EW_STOP_CAUSE_ESTOP;
    (void)ew_dispatch(ew, EW_EV_ESTOP, now_us);
}

void ew_estop_input(ew_t *ew, bool pressed)
{
    ew->estop_input = pressed;
    if (pressed) {
        ew_estop(ew, ew->tick_us);
    }
}

void ew_port_fault(ew_t *ew, uint16_t fault)
{
    ew_fault(ew, fault, -1, ew->tick_us);
}

/* ---- the tick ---- */

static void run_tick(ew_t *ew, int64_t now_us)
{
    ew->tick_us = now_us;
    ew->stats.ticks++;
    ew->answers_left = EW_ANSWERS_PER_TICK;
    if ((ew->stats.ticks % 1000u) == 0u) {
        ew_note_uptime(ew);
    }
    ew_check_memory(ew, now_us);
    ew_supervise(ew, now_us);
    if (ew->drive_on) {
        ew_move(ew, now_us);
    }
    if (ew->drive_on) {
        ew_finish_stops(ew, now_us);
    }
    ew_check_in(ew, EW_CHECK_ENCODER);
    ew_command_drives(ew, now_us);
    ew_telemetry(ew, now_us);
}

/* True when this tick is not too late after the last one. */
static bool measure(ew_t *ew, int64_t now_us)
{
    bool in_time = true;
    static const uint16_t edges_us[EW_LATE_BINS - 1u] = {50u, 100u, 200u, 500u, 1000u, 2000u, 4000u};
    const int64_t late = now_us - (ew->tick_us + EW_TICK_US);
    uint8_t bin = 0u;
    while ((bin < (EW_LATE_BINS - 1u)) && (late >= (int64_t)edges_us[bin])) {
        bin++;
    }
    ew->stats.late_histogram[bin]++;
    if (ew->called) {
        const int64_t gap = now_us - ew->called_us;
        if (gap > (int64_t)ew->stats.tick_gap_max_us) {
            ew->stats.tick_gap_max_us = (uint32_t)gap;
        }
        in_time = gap <= (int64_t)ew->port.tick_gap_max_us;
        if (ew->drive_on && !in_time) {
            ew_fault(ew, EW_FAULT_TICK_OVERRUN, (int32_t)gap, now_us);
        }
    }
    ew->called = true;
    ew->called_us = now_us;
    return in_time;
}

void ew_tick(ew_t *ew, uint64_t now_us)
{
    const int64_t now = (int64_t)now_us;
    if ((now - ew->tick_us) < EW_TICK_US) {
        return;
    }
    if (measure(ew, now)) {
        ew_check_in(ew, EW_CHECK_TICK); /* its work follows before anybody can ask */
    }
    uint32_t run = 0u;
    while ((now - ew->tick_us) >= EW_TICK_US) {
        if (run == EW_CATCH_UP) {
            /* Too far behind to make up for it: the plan is a function of time and the limiter bounds the way back to it. */
            const int64_t skipped = (now - ew->tick_us) / EW_TICK_US;
            ew->stats.late_ticks += (uint32_t)skipped;
            ew->tick_us += skipped * EW_TICK_US;
            break;
        }
        run_tick(ew, ew->tick_us + EW_TICK_US);
        run++;
    }
    ew->stats.late_ticks += run - 1u;
}

bool ew_work(ew_t *ew, uint64_t now_us)
{
    if (ew->state_due) {
        ew_tell_state(ew);
        return ew->judging.stage != EW_JUDGE_NOTHING;
    }
    return ew_judge(ew, (int64_t)now_us);
}

/* ---- host link and small views ---- */

void ew_rx(ew_t *ew, const uint8_t *bytes, size_t count, uint64_t stamp_us, uint64_t now_us)
{
    for (size_t i = 0u; i < count; i++) {
        const size_t body = ew_receiver_push(&ew->link_rx, bytes[i]);
        if (body > 0u) {
            ew->from = EW_VIA_SERIAL;
            ew_handle(ew, ew->link_rx.bytes, body, (int64_t)stamp_us, (int64_t)now_us);
        }
    }
}

ew_port_stats_t *ew_port_stats(ew_t *ew)
{
    return &ew->port_stats;
}

uint8_t ew_state(const ew_t *ew)
{
    return ew->state;
}

uint32_t ew_ticks(const ew_t *ew)
{
    return ew->stats.ticks;
}
