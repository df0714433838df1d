/* The axes in one tick: supervision takes permission away, then the plan is followed or the axes brake. */
#include "ew_core.h"

/* ---- supervision ---- */

static void supervise_moving(ew_t *ew, int64_t now_us)
{
    if (ew_host_age_us(ew, now_us) >= EW_HOST_SILENT_US) {
        ew_stop(ew, EW_STOP_CAUSE_HOST_SILENT, false, now_us);
    } else if (ew->degrade == EW_DEGRADE_SAFE_OFF) {
        ew_stop(ew, EW_STOP_CAUSE_HOST_SAFE_OFF, true, now_us);
    } else if (ew->degrade == EW_DEGRADE_SOFT_STOP) {
        ew_stop(ew, EW_STOP_CAUSE_HOST_SOFT_STOP, false, now_us);
    } else if (ew->host_was_armed && !ew->host_armed) {
        ew_stop(ew, EW_STOP_CAUSE_HOST_NOT_ARMED, false, now_us);
    } else if ((ew->state == EW_STATE_RUN) && (ew->degrade == EW_DEGRADE_NOMINAL) &&
               ((now_us - ew->frozen_us) >= EW_POLICY_FROZEN_US)) {
        ew_stop(ew, EW_STOP_CAUSE_POLICY_FROZEN, false, now_us);
    } else if ((ew->state == EW_STATE_STARVED) && ((now_us - ew->starved_us) >= EW_STARVED_MAX_US)) {
        ew_stop(ew, EW_STOP_CAUSE_STARVED, true, now_us);
    } else {
        /* the host is well: nothing to take away */
    }
}

static void supervise_stopped(ew_t *ew, int64_t now_us)
{
    if (!ew->off_pending && (ew_host_age_us(ew, now_us) >= EW_HOST_GONE_US)) {
        ew_stop(ew, EW_STOP_CAUSE_HOST_GONE, true, now_us);
    } else if (!ew->off_pending && (ew->degrade == EW_DEGRADE_SAFE_OFF)) {
        ew_stop(ew, EW_STOP_CAUSE_HOST_SAFE_OFF, true, now_us);
    } else {
        /* holds until the operator disarms */
    }
}

void ew_supervise(ew_t *ew, int64_t now_us)
{
    ew_supervise_drives(ew, now_us);
    if (ew_may_move(ew->state)) {
        supervise_moving(ew, now_us);
    }
    if (ew->state == EW_STATE_STOP) {
        supervise_stopped(ew, now_us);
    }
}

/* ---- motion ---- */

/* Follows the plan; false when it has run dry, and then nothing was moved. */
static bool follow_plan(ew_t *ew, int64_t now_us)
{
    ew_target_t target[EW_MAX_AXES];
    ew_timeline_advance(&ew->timeline, now_us - EW_TICK_US);
    if (!ew_timeline_targets(&ew->timeline, now_us, target)) {
        return false;
    }
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew_limiter_follow(&ew->axis[axis], &target[axis], &ew->bounds[axis]);
        const int64_t off = ew->axis[axis].position - target[axis].position;
        if ((off > EW_SUB) || (off < -EW_SUB)) {
            const uint32_t bit = (uint32_t)1u << axis;
            ew->clipped |= (uint16_t)bit;
            ew->stats.clips++;
        }
    }
    return true;
}

static void brake(ew_t *ew)
{
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew_limiter_brake(&ew->axis[axis], &ew->bounds[axis]);
    }
}

/* Looks at what was just commanded as if somebody else had computed it: against the shadow of the last tick, and against limits
 * that were worked out when the table was locked and kept apart from the limiter's own numbers, inverted. */
static bool axis_good(const ew_t *ew, uint8_t axis)
{
    const ew_axis_motion_t *now = &ew->axis[axis];
    const ew_shadow_t *before = &ew->shadow[axis];
    const ew_axis_limits_t limits = ew_bounds_inverted(&ew->watched[axis]);
    const int64_t change = (int64_t)now->velocity - ~before->velocity;
    const int64_t jerk = change - ~before->acceleration;
    return !now->broken && ew_limiter_holds(now->position, now->velocity, &limits) &&
           ((now->position - ~before->position) == now->velocity) && (change == now->acceleration) &&
           (change <= limits.acceleration_max) && (change >= -limits.acceleration_max) && (jerk <= limits.jerk_max) &&
           (jerk >= -limits.jerk_max);
}

/* The first axis that is wrong, or axes. */
static uint8_t axis_beyond(const ew_t *ew)
{
    uint8_t axis = 0u;
    while ((axis < ew->axes) && axis_good(ew, axis)) {
        axis++;
    }
    return axis;
}

/* The first axis that needed more effort than it may for too long, or axes. */
static uint8_t axis_strained(ew_t *ew, int64_t now_us)
{
    uint8_t first = ew->axes;
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        const int64_t effort = ew->effort[axis];
        const int64_t most = (int64_t)ew->limits[axis].effort_max;
        if ((most == 0) || ((effort <= most) && (effort >= -most))) {
            ew->strained_us[axis] = EW_NEVER_US;
        } else if (ew->strained_us[axis] == EW_NEVER_US) {
            ew->strained_us[axis] = now_us;
        } else if (((now_us - ew->strained_us[axis]) >= EW_EFFORT_TIME_US) && (first == ew->axes)) {
            first = axis;
        } else {
            /* too much, but not for long */
        }
    }
    return first;
}

/* The first axis too far from its setpoint, or axes. */
static uint8_t axis_astray(const ew_t *ew)
{
    uint8_t axis = 0u;
    while (axis < ew->axes) {
        const int64_t error = (int64_t)ew_setpoint_micro(ew, axis) - (int64_t)ew->encoder[axis];
        if (((error < 0) ? -error : error) > (int64_t)ew->limits[axis].following_error_max) {
            break;
        }
        axis++;
    }
    return axis;
}

void ew_move(ew_t *ew, int64_t now_us)
{
    if ((ew->state != EW_STATE_RUN) || !follow_plan(ew, now_us)) {
        brake(ew);
        (void)ew_dispatch(ew, EW_EV_DRY, now_us); /* only RUN knows this event */
    }
    const uint8_t beyond = axis_beyond(ew);
    if (beyond < ew->axes) {
        ew_fault(ew, EW_FAULT_LIMITER_CHECK, (int32_t)beyond, now_us);
    }
    ew_shadow(ew);
    const uint8_t far = ew_window_tick(&ew->window, ew->axis, ew->axes);
    if ((far < ew->axes) && ew_may_move(ew->state)) {
        ew_stop(ew, EW_STOP_CAUSE_WINDOW, false, now_us);
    }
    const bool latched = (ew->state == EW_STATE_ESTOP) || (ew->state == EW_STATE_FAULT);
    if (ew->encoder_new && !latched) {
        const uint8_t astray = axis_astray(ew);
        if (astray < ew->axes) {
            ew_fault(ew, EW_FAULT_FOLLOWING_ERROR, (int32_t)astray, now_us);
        }
        const uint8_t strained = axis_strained(ew, now_us);
        if (strained < ew->axes) {
            ew_fault(ew, EW_FAULT_EFFORT, (int32_t)strained, now_us);
        }
    }
    ew->encoder_new = false;
}

/* Closes the holding brakes where there are some; true once they had the time to grip, or when there are none. */
static bool brakes_hold(ew_t *ew, int64_t now_us)
{
    if (ew->stops.brake_after_ms == 0u) {
        return true;
    }
    if (!ew->brake_on) {
        ew->brake_on = true;
        ew->brake_on_us = now_us;
    }
    return (now_us - ew->brake_on_us) >= ((int64_t)ew->stops.torque_off_after_ms * 1000);
}

/* Standing still in STOP: holds, then closes the brakes, then lets go, each when its time has come. */
static void finish_stop(ew_t *ew, int64_t now_us)
{
    const int64_t brake_after_us = (int64_t)ew->stops.brake_after_ms * 1000;
    const bool due = (brake_after_us != 0) && ((now_us - ew->still_us) >= brake_after_us);
    if (ew->off_pending || due) {
        const bool hold = brakes_hold(ew, now_us);
        const bool late = ew->off_pending && ((now_us - ew->still_us) >= EW_BRAKE_MAX_US);
        if ((hold && (ew->off_pending || (ew->stops.torque_off_after_ms != 0u))) || late) {
            (void)ew_dispatch(ew, EW_EV_OFF, now_us);
        }
    }
}

/* Category 1: the drive goes off at standstill when the brakes hold, or after BRAKE_MAX_US whatever the axes do. */
void ew_finish_stops(ew_t *ew, int64_t now_us)
{
    const bool still = ew_standing_still(ew);
    if (!still) {
        ew->still_us = now_us;
    }
    if ((ew->state == EW_STATE_STOP) && still) {
        finish_stop(ew, now_us);
    }
    const bool latched = (ew->state == EW_STATE_ESTOP) || (ew->state == EW_STATE_FAULT);
    if (latched) {
        const bool hold = still && brakes_hold(ew, now_us);
        if (hold || ((now_us - ew->brake_us) >= EW_BRAKE_MAX_US)) {
            ew_switch_off(ew);
        }
    }
}
