/* The limit table: written in DISARMED, locked by its CRC. */
#include "ew_command.h"

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

uint8_t ew_on_limits_set(ew_t *ew, ew_command_t *command)
{
    ew_limits_set_t m;
    if (!ew_unpack_limits_set(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    if (ew->state != EW_STATE_DISARMED) {
        command->arg = (int32_t)ew->state;
        return ew->locked ? EW_ACK_CODE_LOCKED : EW_ACK_CODE_BAD_STATE;
    }
    const int32_t flaw = limits_flaw(&m);
    if (flaw >= 0) {
        return ew_bad_value(command, flaw);
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

uint8_t ew_on_limits_commit(ew_t *ew, ew_command_t *command)
{
    ew_limits_commit_t m;
    if (!ew_unpack_limits_commit(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    if (ew->state != EW_STATE_DISARMED) {
        return ew_bad_state(ew, command);
    }
    if ((m.axes == 0u) || (m.axes > EW_MAX_AXES)) {
        return ew_bad_value(command, 0);
    }
    const uint32_t needed = ((uint32_t)1 << m.axes) - 1u;
    if (((ew->limits_set & needed) != needed) || (limits_crc(ew, m.axes) != m.crc)) {
        return EW_ACK_CODE_BAD_LIMITS_CRC;
    }
    lock_limits(ew, m.axes, m.crc);
    (void)ew_dispatch(ew, EW_EV_COMMIT, command->now_us);
    return EW_ACK_CODE_OK;
}

uint8_t ew_on_limits_get(ew_t *ew, ew_command_t *command)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    ew_limits_get_t m;
    if (!ew_unpack_limits_get(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    if ((m.axis >= EW_MAX_AXES) || ((ew->limits_set & (1u << m.axis)) == 0u)) {
        return ew_bad_value(command, 0);
    }
    ew_send(ew, EW_MSG_LIMITS, body, ew_pack_limits(&ew->limits[m.axis], &body[EW_HEADER_BYTES]));
    return EW_ACK_CODE_OK;
}
