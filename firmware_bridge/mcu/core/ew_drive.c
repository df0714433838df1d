/* The drive side: encoder values in, setpoints out. */
#include "ew_core.h"

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

void ew_drive_encoder(ew_t *ew, const int32_t *position, const int32_t *effort, uint8_t axes, uint64_t now_us)
{
    if ((axes == 0u) || (axes > EW_MAX_AXES) || (ew->locked && (axes != ew->axes))) {
        ew->stats.drive_bad++;
        return;
    }
    for (uint8_t axis = 0u; axis < axes; axis++) {
        ew->encoder[axis] = position[axis];
        ew->effort[axis] = effort[axis];
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
