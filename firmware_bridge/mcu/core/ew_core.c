/* Boot, the control tick, supervision, and the drive side. */
#include "ew_core.h"

#define NOINIT_MAGIC 0x45574E49u
#define MARK_MAGIC 0x45574D4Bu

/* ---- what survives a reset ---- */

static uint32_t noinit_crc(const ew_noinit_t *n)
{
    uint8_t bytes[24];
    ew_put_u32(&bytes[0], n->magic);
    ew_put_u32(&bytes[4], n->boots);
    ew_put_u32(&bytes[8], n->estop);
    ew_put_u32(&bytes[12], n->fault);
    ew_put_u32(&bytes[16], n->clear_nonce);
    ew_put_u32(&bytes[20], n->session);
    return ew_crc32c(bytes, sizeof bytes, 0u);
}

void ew_save_noinit(ew_t *ew)
{
    ew->noinit->magic = NOINIT_MAGIC;
    ew->noinit->crc = noinit_crc(ew->noinit);
}

void ew_noinit_mark(volatile ew_noinit_t *noinit, uint32_t cause, uint32_t pc, uint32_t tick)
{
    noinit->mark_cause = cause;
    noinit->mark_pc = pc;
    noinit->mark_tick = tick;
    noinit->mark_check = cause ^ pc ^ tick ^ MARK_MAGIC;
    noinit->mark_magic = MARK_MAGIC;
}

/* A new latch gets a new nonce, so that an old wish to clear cannot clear it. */
static void renew_nonce(ew_t *ew)
{
    uint8_t bytes[8];
    ew_put_u32(&bytes[0], ew->noinit->clear_nonce ^ ew->port.entropy);
    ew_put_u32(&bytes[4], ew->stats.ticks + ew->noinit->boots);
    ew->noinit->clear_nonce = ew_crc32c(bytes, sizeof bytes, 0x5EEDu);
}

static void read_noinit(ew_t *ew)
{
    ew_noinit_t *n = ew->noinit;
    const bool record = (n->magic == NOINIT_MAGIC) && (n->crc == noinit_crc(n)) && (n->fault <= EW_FAULT_STACK_OVERFLOW);
    const bool mark = (n->mark_magic == MARK_MAGIC) &&
                      (n->mark_check == (n->mark_cause ^ n->mark_pc ^ n->mark_tick ^ MARK_MAGIC)) &&
                      (n->mark_cause <= EW_RESET_CAUSE_UNKNOWN);
    if (!record) {
        n->boots = 0u;
        n->estop = 0u;
        n->fault = EW_FAULT_NONE;
        n->clear_nonce = 0u;
        n->session = 0u;
    }
    ew->reset_cause = record ? EW_RESET_CAUSE_UNKNOWN : EW_RESET_CAUSE_POWER_ON;
    if (mark) {
        ew->reset_cause = (uint8_t)n->mark_cause;
        ew->reset_pc = n->mark_pc;
        ew->reset_tick = n->mark_tick;
    }
    if (ew->reset_cause == EW_RESET_CAUSE_WATCHDOG) {
        n->fault = EW_FAULT_WATCHDOG;
    }
    if (ew->reset_cause == EW_RESET_CAUSE_HARD_FAULT) {
        n->fault = EW_FAULT_HARD_FAULT;
    }
    n->mark_magic = 0u;
    n->boots++;
}

/* Differs from the last one even when the entropy does not; never 0, which no MCU has. */
static void choose_session(ew_t *ew)
{
    uint8_t bytes[12];
    ew_put_u32(&bytes[0], ew->port.entropy);
    ew_put_u32(&bytes[4], ew->noinit->boots);
    ew_put_u32(&bytes[8], ew->noinit->session);
    uint16_t session = (uint16_t)(ew_crc32c(bytes, sizeof bytes, 0u) & 0xFFFFu);
    while ((session == 0u) || (session == (uint16_t)ew->noinit->session)) {
        session++;
    }
    ew->session = session;
    ew->noinit->session = session;
}

/* ---- state machine ---- */

bool ew_standing_still(const ew_t *ew)
{
    bool still = true;
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        still = still && (ew->axis[axis].velocity == 0);
    }
    return still;
}

bool ew_encoder_fresh(const ew_t *ew, int64_t now_us)
{
    return (ew->encoder_us != EW_NEVER_US) && ((now_us - ew->encoder_us) < (int64_t)ew->port.encoder_timeout_us) &&
           (!ew->locked || (ew->encoder_axes == ew->axes));
}

uint8_t ew_shown_axes(const ew_t *ew)
{
    return ew->locked ? ew->axes : ew->encoder_axes;
}

int32_t ew_setpoint_micro(const ew_t *ew, uint8_t axis)
{
    if (!ew->drive_on) {
        return ew->encoder[axis];
    }
    /* Nearest micro-unit; limits are whole micro-units, so rounding cannot leave them. */
    const int64_t position = ew->axis[axis].position;
    return (int32_t)((position + ((position < 0) ? -(EW_SUB / 2) : (EW_SUB / 2))) / EW_SUB);
}

/* Remembers the commanded state once more, inverted: what changes between two ticks was not changed by the core. */
static void shadow(ew_t *ew)
{
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew->shadow[axis].position = ~ew->axis[axis].position;
        ew->shadow[axis].velocity = ~ew->axis[axis].velocity;
    }
}

static void switch_on(ew_t *ew)
{
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew->axis[axis].position = (int64_t)ew->encoder[axis] * EW_SUB;
        ew->axis[axis].velocity = 0;
    }
    shadow(ew);
    ew->chunk_id = 0u;
    ew->stop_cause = EW_STOP_CAUSE_NONE;
    ew->host_was_armed = false;
    ew->off_pending = false;
    ew->encoder_new = false;
    ew->drive_on = true;
}

static void switch_off(ew_t *ew)
{
    for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
        ew->axis[axis].velocity = 0;
    }
    ew->drive_on = false;
    ew->off_pending = false;
}

static void entered(ew_t *ew, uint8_t from, int64_t now_us)
{
    if (ew->state != EW_STATE_RUN) {
        ew_timeline_clear(&ew->timeline, ew->axes);
    }
    switch (ew->state) {
    case EW_STATE_DISARMED:
        switch_off(ew);
        ew->locked = false;
        ew->limits_set = 0u;
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

void ew_stop(ew_t *ew, uint8_t cause, bool off, int64_t now_us)
{
    if (ew_dispatch(ew, EW_EV_STOP, now_us)) {
        ew->stop_cause = cause;
        ew->off_pending = ew->off_pending || off;
        ew_emit(ew, EW_EVENT_KIND_STOP, (int32_t)cause, 0, now_us);
    }
}

void ew_fault(ew_t *ew, uint16_t fault, int32_t detail, int64_t now_us)
{
    if (ew->noinit->fault == EW_FAULT_NONE) { /* the first one is the cause, what follows are its consequences */
        ew->noinit->fault = fault;
        renew_nonce(ew);
        ew_save_noinit(ew);
        ew_emit(ew, EW_EVENT_KIND_FAULT, (int32_t)fault, detail, now_us);
        if (ew_dispatch(ew, EW_EV_FAULT, now_us)) {
            ew->stop_cause = EW_STOP_CAUSE_FAULT;
        }
    }
    /* Where the core's own work cannot be trusted there is no braking profile to trust either. */
    if ((fault == EW_FAULT_LIMITER_CHECK) || (fault == EW_FAULT_STACK_OVERFLOW) || (fault == EW_FAULT_SELFTEST)) {
        switch_off(ew);
    }
}

void ew_estop(ew_t *ew, int64_t now_us)
{
    if (ew->noinit->estop == 0u) {
        ew->noinit->estop = 1u;
        renew_nonce(ew);
        ew_save_noinit(ew);
        ew_emit(ew, EW_EVENT_KIND_STOP, EW_STOP_CAUSE_ESTOP, 0, now_us);
    }
    ew->stop_cause = EW_STOP_CAUSE_ESTOP;
    (void)ew_dispatch(ew, EW_EV_ESTOP, now_us);
}

void ew_port_fault(ew_t *ew, uint16_t fault)
{
    ew_fault(ew, fault, -1, ew->tick_us);
}

/* ---- boot ---- */

static bool selftest(void)
{
    static const uint8_t check[9] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
    static const uint8_t zeros[3] = {0u, 7u, 0u};
    uint8_t encoded[5];
    uint8_t decoded[3];
    const bool cobs = (ew_cobs_encode(zeros, sizeof zeros, encoded) == 4u) &&
                      (ew_cobs_decode(encoded, 4u, decoded, sizeof decoded) == 3u) && (decoded[1] == 7u);
    const ew_axis_limits_t limits = {-1000, 1000, 100, 10};
    ew_axis_motion_t axis = {0, 0};
    bool limited = true;
    for (uint8_t i = 0u; i < 100u; i++) {
        ew_limiter_follow(&axis, INT32_MAX, 0, &limits);
        limited = limited && ew_limiter_holds(&axis, &limits);
    }
    return (ew_crc32c(check, sizeof check, 0u) == 0xE3069283u) && cobs && limited && (axis.position == 1000);
}

static void boot_state(ew_t *ew, int64_t now_us)
{
    (void)ew_dispatch(ew, EW_EV_BOOTED, now_us);
    ew_emit(ew, EW_EVENT_KIND_BOOT, (int32_t)ew->reset_cause, (int32_t)ew->noinit->boots, now_us);
    if (!selftest()) {
        ew_fault(ew, EW_FAULT_SELFTEST, -1, now_us);
    }
    if (ew->noinit->estop != 0u) {
        ew->stop_cause = EW_STOP_CAUSE_ESTOP;
        (void)ew_dispatch(ew, EW_EV_ESTOP, now_us);
    } else if (ew->noinit->fault != EW_FAULT_NONE) {
        ew->stop_cause = EW_STOP_CAUSE_FAULT;
        (void)ew_dispatch(ew, EW_EV_FAULT, now_us);
        ew_emit(ew, EW_EVENT_KIND_FAULT, (int32_t)ew->noinit->fault, -1, now_us);
    } else {
        (void)ew_dispatch(ew, EW_EV_READY, now_us);
    }
}

void ew_init(ew_t *ew, const ew_port_info_t *port, ew_noinit_t *noinit, uint64_t now_us)
{
    uint8_t *bytes = (uint8_t *)ew;
    for (size_t i = 0u; i < sizeof *ew; i++) {
        bytes[i] = 0u;
    }
    ew->canary_front = EW_CANARY;
    ew->canary_back = EW_CANARY;
    ew->port = *port;
    ew->port_stats.watchdog_margin_min_us = UINT32_MAX;
    ew->noinit = noinit;
    ew->heartbeat_us = EW_NEVER_US;
    ew->policy_us = EW_NEVER_US;
    ew->encoder_us = EW_NEVER_US;
    ew->tick_us = ((int64_t)now_us / EW_TICK_US) * EW_TICK_US;
    ew->state = EW_STATE_BOOT;
    read_noinit(ew);
    renew_nonce(ew);
    choose_session(ew);
    ew_save_noinit(ew);
    boot_state(ew, (int64_t)now_us);
    /* The reset may have cut a frame in two: end it, or the host would lose the HELLO with it. */
    ew->tx[0] = 0u;
    ew->tx_head = 1u;
    ew_send_hello(ew, 0u, (int64_t)now_us);
}

/* ---- supervision: what takes permission away ---- */

static bool host_older(const ew_t *ew, int64_t now_us, int64_t age_us)
{
    return (ew->heartbeat_us == EW_NEVER_US) || ((now_us - ew->heartbeat_us) >= age_us);
}

static void supervise_moving(ew_t *ew, int64_t now_us)
{
    if (host_older(ew, now_us, EW_HOST_SILENT_US)) {
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
    if (!ew->off_pending && host_older(ew, now_us, EW_HOST_GONE_US)) {
        ew_stop(ew, EW_STOP_CAUSE_HOST_GONE, true, now_us);
    } else if (!ew->off_pending && (ew->degrade == EW_DEGRADE_SAFE_OFF)) {
        ew_stop(ew, EW_STOP_CAUSE_HOST_SAFE_OFF, true, now_us);
    } else {
        /* holds until the operator disarms */
    }
}

static void supervise(ew_t *ew, int64_t now_us)
{
    if (ew->drive_on && !ew_encoder_fresh(ew, now_us)) {
        ew_fault(ew, EW_FAULT_ENCODER_LOST, -1, now_us);
    }
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
    int64_t target[EW_MAX_AXES];
    int64_t before[EW_MAX_AXES];
    ew_timeline_advance(&ew->timeline, now_us - EW_TICK_US);
    if (!ew_timeline_sample(&ew->timeline, now_us, target)) {
        return false;
    }
    (void)ew_timeline_sample(&ew->timeline, now_us - EW_TICK_US, before);
    const int64_t left_us = ew_timeline_end_us(&ew->timeline) - now_us;
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew_axis_motion_t *moved = &ew->axis[axis];
        const int64_t step = target[axis] - before[axis];
        if ((ew_brake_ticks(moved, &ew->bounds[axis]) * EW_TICK_US) >= left_us) {
            ew_limiter_follow_to_rest(moved, target[axis], step, ew_timeline_last(&ew->timeline, axis), &ew->bounds[axis]);
        } else {
            ew_limiter_follow(moved, target[axis], step, &ew->bounds[axis]);
        }
        const int64_t off = moved->position - target[axis];
        if ((off > EW_SUB) || (off < -EW_SUB)) {
            ew->clipped |= (uint16_t)(1u << axis);
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

/* Looks at what was just commanded as if somebody else had computed it: against the shadow of the last tick and the limits as
 * the host sent them, not against the limiter's own numbers. The first axis that is wrong, or axes. */
static uint8_t axis_beyond(const ew_t *ew)
{
    uint8_t axis = 0u;
    while (axis < ew->axes) {
        const ew_axis_motion_t *now = &ew->axis[axis];
        ew_axis_limits_t limits;
        ew_bounds_of(&ew->limits[axis], &limits);
        const int64_t change = now->velocity - ~ew->shadow[axis].velocity;
        const bool good = ew_limiter_holds(now, &limits) &&
                          (((change < 0) ? -change : change) <= limits.acceleration_max) &&
                          ((now->position - ~ew->shadow[axis].position) == now->velocity);
        if (!good) {
            break;
        }
        axis++;
    }
    return axis;
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

static void move(ew_t *ew, int64_t now_us)
{
    if ((ew->state != EW_STATE_RUN) || !follow_plan(ew, now_us)) {
        brake(ew);
        (void)ew_dispatch(ew, EW_EV_DRY, now_us); /* only RUN knows this event */
    }
    const uint8_t beyond = axis_beyond(ew);
    if (beyond < ew->axes) {
        ew_fault(ew, EW_FAULT_LIMITER_CHECK, (int32_t)beyond, now_us);
    }
    shadow(ew);
    const bool latched = (ew->state == EW_STATE_ESTOP) || (ew->state == EW_STATE_FAULT);
    if (ew->encoder_new && !latched) {
        const uint8_t astray = axis_astray(ew);
        if (astray < ew->axes) {
            ew_fault(ew, EW_FAULT_FOLLOWING_ERROR, (int32_t)astray, now_us);
        }
    }
    ew->encoder_new = false;
}

/* Category 1: the drive goes off at standstill, or after BRAKE_MAX_US whatever the axes do. */
static void finish_stops(ew_t *ew, int64_t now_us)
{
    const bool still = ew_standing_still(ew);
    if ((ew->state == EW_STATE_STOP) && ew->off_pending && still) {
        (void)ew_dispatch(ew, EW_EV_OFF, now_us);
    }
    const bool latched = (ew->state == EW_STATE_ESTOP) || (ew->state == EW_STATE_FAULT);
    if (latched && ew->drive_on && (still || ((now_us - ew->brake_us) >= EW_BRAKE_MAX_US))) {
        switch_off(ew);
    }
}

/* ---- the tick ---- */

static void run_tick(ew_t *ew, int64_t now_us)
{
    ew->tick_us = now_us;
    ew->stats.ticks++;
    supervise(ew, now_us);
    if (ew->drive_on) {
        move(ew, now_us);
    }
    if (ew->drive_on || ew->off_pending) {
        finish_stops(ew, now_us);
    }
    ew->setpoint_new = true;
    ew_telemetry(ew, now_us);
}

static void measure(ew_t *ew, int64_t now_us)
{
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
        if (ew->drive_on && (gap > (int64_t)ew->port.tick_gap_max_us)) {
            ew_fault(ew, EW_FAULT_TICK_OVERRUN, (int32_t)gap, now_us);
        }
    }
    ew->called = true;
    ew->called_us = now_us;
}

void ew_tick(ew_t *ew, uint64_t now_us)
{
    const int64_t now = (int64_t)now_us;
    if ((now - ew->tick_us) < EW_TICK_US) {
        return;
    }
    measure(ew, now);
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
    ew->feed = (ew->canary_front == EW_CANARY) && (ew->canary_back == EW_CANARY);
}

bool ew_feed_allowed(ew_t *ew)
{
    const bool feed = ew->feed;
    ew->feed = false;
    return feed;
}

/* ---- streams ---- */

void ew_rx(ew_t *ew, const uint8_t *bytes, size_t count, uint64_t stamp_us, uint64_t now_us)
{
    for (size_t i = 0u; i < count; i++) {
        const size_t body = ew_receiver_push(&ew->link_rx, bytes[i]);
        if (body > 0u) {
            ew_handle(ew, ew->link_rx.bytes, body, (int64_t)stamp_us, (int64_t)now_us);
        }
    }
}

void ew_drive_encoder(ew_t *ew, const int32_t *position, uint8_t axes, uint64_t now_us)
{
    if ((axes == 0u) || (axes > EW_MAX_AXES) || (ew->locked && (axes != ew->axes))) {
        ew->stats.drive_bad++;
        return;
    }
    for (uint8_t axis = 0u; axis < axes; axis++) {
        ew->encoder[axis] = position[axis];
    }
    ew->encoder_axes = axes;
    ew->encoder_us = (int64_t)now_us;
    ew->encoder_new = true;
}

void ew_drive_rx(ew_t *ew, const uint8_t *bytes, size_t count, uint64_t now_us)
{
    for (size_t i = 0u; i < count; i++) {
        const uint32_t bad = ew->drive_rx.bad + ew->drive_rx.oversize;
        const size_t body = ew_receiver_push(&ew->drive_rx, bytes[i]);
        ew_encoder_t encoder;
        if (body > 0u) {
            if ((ew->drive_rx.bytes[0] == EW_MSG_ENCODER) &&
                ew_unpack_encoder(&ew->drive_rx.bytes[1], body - 1u, &encoder)) {
                ew_drive_encoder(ew, encoder.position, encoder.position_count, now_us);
            } else {
                ew->stats.drive_bad++;
            }
        }
        ew->stats.drive_bad += (ew->drive_rx.bad + ew->drive_rx.oversize) - bad;
    }
}

uint8_t ew_drive_setpoint(const ew_t *ew, int32_t *setpoint, uint8_t capacity)
{
    const uint8_t shown = ew_shown_axes(ew);
    const uint8_t axes = (shown < capacity) ? shown : capacity;
    for (uint8_t axis = 0u; axis < axes; axis++) {
        setpoint[axis] = ew_setpoint_micro(ew, axis);
    }
    return axes;
}

size_t ew_drive_tx(ew_t *ew, uint8_t *bytes, size_t capacity)
{
    uint8_t body[EW_DRIVE_FRAME_BYTES];
    if (!ew->setpoint_new || (capacity < EW_DRIVE_FRAME_BYTES)) {
        return 0u;
    }
    ew_setpoint_t setpoint;
    setpoint.tick = ew->stats.ticks;
    setpoint.enable = ew->drive_on ? 1u : 0u;
    setpoint.setpoint_count = ew_drive_setpoint(ew, setpoint.setpoint, EW_MAX_AXES);
    body[0] = EW_MSG_SETPOINT;
    ew->setpoint_new = false;
    return ew_frame_seal(body, 1u + ew_pack_setpoint(&setpoint, &body[1]), bytes);
}

size_t ew_drive_off(uint8_t *out)
{
    uint8_t body[6u + EW_CRC_BYTES] = {EW_MSG_SETPOINT};
    out[0] = 0u;
    return 1u + ew_frame_seal(body, 6u, &out[1]);
}

/* ---- small views ---- */

bool ew_drive_enabled(const ew_t *ew)
{
    return ew->drive_on;
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
