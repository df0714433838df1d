/* The core's side of the drives: what they report becomes the encoder, what the limiter made becomes their setpoint. */
#include "ew_core.h"

/* The first axis without a fresh position, or the number of axes. */
static uint8_t stale_axis(const ew_t *ew, int64_t now_us)
{
    return ew_drives_stale(&ew->bus, ew->bus.seen, now_us, (int64_t)ew->port.encoder_timeout_us);
}

bool ew_encoder_fresh(const ew_t *ew, int64_t now_us)
{
    return (ew->bus.seen > 0u) && (!ew->locked || (ew->bus.seen == ew->axes)) && (stale_axis(ew, now_us) == ew->bus.seen) &&
           ((ew->wild_us == EW_NEVER_US) || ((now_us - ew->wild_us) >= (int64_t)ew->port.encoder_timeout_us));
}

/* Compares a position with the one before it, before it is taken over. The limits are known while they are locked. */
static void watch_jump(ew_t *ew, uint8_t axis, const ew_axis_drive_t *drive)
{
    const int64_t before_us = ew->encoder_at_us[axis];
    /* A port that may be stalled for longer than as shipped (a PC) gets its reports bunched by as much. */
    const int64_t bunched_us = (int64_t)ew->port.encoder_timeout_us - EW_ENCODER_TIMEOUT_US;
    const int64_t elapsed_us = (drive->answered_us - before_us) + ((bunched_us > 0) ? bunched_us : 0);
    if (!ew->locked || (before_us == EW_NEVER_US) ||
        ew_encoder_plausible((int64_t)drive->position - ew->encoder[axis], elapsed_us, &ew->limits[axis])) {
        return;
    }
    ew->wild_us = drive->answered_us;
    if (ew->drive_on) {
        ew_fault(ew, EW_FAULT_ENCODER_IMPLAUSIBLE, (int32_t)axis, ew->tick_us);
    }
}

/* Takes over what came in since the last look. */
static void collect(ew_t *ew)
{
    for (uint8_t axis = 0u; axis < ew->bus.seen; axis++) {
        ew_axis_drive_t *drive = &ew->bus.drive[axis];
        if (drive->fresh) {
            drive->fresh = false;
            watch_jump(ew, axis, drive);
            ew->encoder[axis] = drive->position;
            ew->encoder_at_us[axis] = drive->answered_us;
            ew->effort[axis] = drive->effort;
            ew->encoder_us = drive->answered_us;
            ew->encoder_new = true;
        }
    }
    ew->encoder_axes = ew->bus.seen;
}

static void spans_of(const ew_t *ew, uint8_t axes, ew_drive_span_t *spans)
{
    for (uint8_t axis = 0u; axis < axes; axis++) {
        const ew_limits_t *limits = &ew->limits[axis];
        const ew_drive_span_t span = {limits->position_min, limits->position_max, limits->velocity_max};
        spans[axis] = span;
    }
}

uint8_t ew_drives_fit(const ew_t *ew, uint8_t axes)
{
    ew_drive_span_t spans[EW_MAX_AXES];
    spans_of(ew, axes, spans);
    return ew_drives_unfit(&ew->bus, ew->drives, spans, axes);
}

void ew_bind_drives(ew_t *ew, int64_t now_us)
{
    ew_drive_span_t spans[EW_MAX_AXES];
    spans_of(ew, ew->axes, spans);
    for (uint8_t axis = 0u; axis < ew->axes; axis++) {
        ew->drive_told[axis] = 0u;
    }
    ew_drives_bind(&ew->bus, ew->drives, spans, ew->axes, now_us);
}

uint8_t ew_drive_not_ready(const ew_t *ew)
{
    return ew_drives_not_ready(&ew->bus);
}

bool ew_drives_well(const ew_t *ew)
{
    return ew->drive_on ? (ew_drives_in_error(&ew->bus) == ew->bus.axes) : (ew_drives_not_ready(&ew->bus) == ew->bus.axes);
}

/* One EVENT for each error that is new, so that it is known before somebody wants to arm. */
static void tell_errors(ew_t *ew, int64_t now_us)
{
    for (uint8_t axis = 0u; axis < ew->bus.axes; axis++) {
        const uint32_t errors = ew->bus.drive[axis].errors;
        if ((errors & ~ew->drive_told[axis]) != 0u) {
            ew_emit(ew, EW_EVENT_KIND_DRIVE, (int32_t)axis, (int32_t)errors, now_us);
        }
        ew->drive_told[axis] |= errors;
    }
}

void ew_supervise_drives(ew_t *ew, int64_t now_us)
{
    collect(ew);
    tell_errors(ew, now_us);
    if (!ew->drive_on) {
        return;
    }
    const uint8_t wrong = ew_drives_in_error(&ew->bus);
    if (wrong < ew->bus.axes) {
        ew_fault(ew, EW_FAULT_DRIVE_ERROR, (int32_t)wrong, now_us);
    }
    const uint8_t lost = stale_axis(ew, now_us);
    if (lost < ew->bus.seen) {
        const bool stream = ew_drive_is(&ew->bus, lost, EW_DRIVE_KIND_SIM);
        ew_fault(ew, EW_FAULT_ENCODER_LOST, stream ? -1 : (int32_t)lost, now_us);
    }
}

void ew_command_drives(ew_t *ew, int64_t now_us)
{
    for (uint8_t axis = 0u; axis < ew->bus.seen; axis++) {
        ew->bus.setpoint[axis] = ew_setpoint_micro(ew, axis);
        ew->bus.velocity[axis] = ew_setpoint_velocity(ew, axis);
    }
    ew_drives_tick(&ew->bus, ew->drive_on, ew->stats.ticks, now_us);
    ew->setpoint_new = true;
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

int32_t ew_setpoint_velocity(const ew_t *ew, uint8_t axis)
{
    return ew->drive_on ? (int32_t)(((int64_t)ew->axis[axis].velocity * (1000000 / EW_TICK_US)) / EW_SUB) : 0;
}

void ew_drive_encoder(ew_t *ew, const int32_t *position, const int32_t *effort, uint8_t axes, uint64_t now_us)
{
    if ((axes == 0u) || (axes > EW_MAX_AXES) || (ew->locked && (axes != ew->axes))) {
        ew->stats.drive_bad++;
        return;
    }
    ew_sim_take(&ew->bus, position, effort, axes, (int64_t)now_us);
    collect(ew);
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
                ew_drive_encoder(ew, encoder.position, encoder.effort, encoder.axes, now_us);
                ew->stats.drive_frames++;
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
    setpoint.flags = ew->drive_on ? EW_SETPOINT_FLAG_ENABLE : 0u;
    setpoint.flags |= ew->brake_on ? EW_SETPOINT_FLAG_BRAKE : 0u;
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

bool ew_drive_enabled(const ew_t *ew)
{
    return ew->drive_on;
}

bool ew_brakes_open(const ew_t *ew)
{
    return ew->drive_on && !ew->brake_on && ew_drives_holding(&ew->bus);
}

/* ---- the wires of real drives ---- */

size_t ew_servo_tx(ew_t *ew, uint8_t *bytes, size_t capacity, uint64_t now_us)
{
    return ew_feetech_tx(&ew->bus, bytes, capacity, (int64_t)now_us);
}

void ew_servo_rx(ew_t *ew, const uint8_t *bytes, size_t count, uint64_t now_us)
{
    ew_feetech_rx(&ew->bus, bytes, count, (int64_t)now_us);
    collect(ew);
}

size_t ew_servo_off(uint8_t *out)
{
    return ew_feetech_last_words(out);
}

bool ew_motor_tx(ew_t *ew, ew_can_frame_t *frame, uint64_t now_us)
{
    return ew_mit_tx(&ew->bus, frame, (int64_t)now_us);
}

bool ew_motor_off_due(const ew_t *ew)
{
    return ew_mit_off_due(&ew->bus);
}

void ew_motor_rx(ew_t *ew, const ew_can_frame_t *frame, uint64_t now_us)
{
    ew_mit_rx(&ew->bus, frame, (int64_t)now_us);
    collect(ew);
}

uint8_t ew_motor_off(const ew_t *ew, uint16_t *ids, uint8_t capacity)
{
    return ew_mit_last_words(&ew->bus, ids, capacity);
}
