/* The limit table: written in DISARMED, locked by its CRC. */
#include "ew_command.h"

static uint32_t limits_crc(const ew_t *ew, uint8_t axes)
{
    uint32_t crc = 0u;
    uint8_t packed[sizeof(ew_limits_t)];
    for (uint8_t axis = 0u; axis < axes; axis++) {
        crc = ew_crc32c(packed, ew_pack_limits(&ew->limits[axis], packed), crc);
    }
    for (uint8_t axis = 0u; axis < axes; axis++) {
        crc = ew_crc32c(packed, ew_pack_drive(&ew->drives[axis], packed), crc);
    }
    return ew_crc32c(packed, ew_pack_stops(&ew->stops, packed), crc);
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
    if ((m->lsb == 0u) || (m->lsb > (uint32_t)EW_LSB_MAX)) {
        return 7;
    }
    if ((m->jerk_max < (uint32_t)EW_JERK_MIN) || (m->jerk_max > (uint32_t)EW_JERK_MAX_MAX)) {
        return 8;
    }
    if (m->effort_max > (uint32_t)EW_EFFORT_MAX_MAX) {
        return 9;
    }
    if ((m->move_max == 0u) || (m->move_max > (2u * (uint32_t)EW_POSITION_ABS_MAX))) {
        return 10;
    }
    if ((m->window_max == 0u) || (m->window_max > (2u * (uint32_t)EW_POSITION_ABS_MAX))) {
        return 11;
    }
    if ((m->velocity_lsb == 0u) || (m->velocity_lsb > (uint32_t)EW_LSB_MAX)) {
        return 12;
    }
    return (m->kind > EW_AXIS_KIND_UNITLESS) ? 13 : -1;
}

/* A table is written while nothing is locked. EW_ACK_CODE_OK: go on. */
static uint8_t may_write(const ew_t *ew, ew_command_t *command)
{
    if (ew->state != EW_STATE_DISARMED) {
        command->arg = (int32_t)ew->state;
        return ew->locked ? EW_ACK_CODE_LOCKED : EW_ACK_CODE_BAD_STATE;
    }
    return EW_ACK_CODE_OK;
}

uint8_t ew_on_limits_set(ew_t *ew, ew_command_t *command)
{
    ew_limits_set_t m;
    if (!ew_unpack_limits_set(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    const uint8_t code = may_write(ew, command);
    if (code != EW_ACK_CODE_OK) {
        return code;
    }
    const int32_t flaw = limits_flaw(&m);
    if (flaw >= 0) {
        return ew_bad_value(command, flaw);
    }
    ew->limits[m.axis] = m;
    ew->limits_set |= (uint16_t)(1u << m.axis);
    return EW_ACK_CODE_OK;
}

void ew_bounds_of(const ew_limits_t *limits, ew_axis_limits_t *bounds)
{
    const int64_t ticks_per_s = 1000000 / EW_TICK_US;
    bounds->position_min = (int64_t)limits->position_min * EW_SUB;
    bounds->position_max = (int64_t)limits->position_max * EW_SUB;
    bounds->velocity_max = (int32_t)(((int64_t)limits->velocity_max * EW_SUB) / ticks_per_s);
    const int64_t acceleration = ((int64_t)limits->acceleration_max * EW_SUB) / (ticks_per_s * ticks_per_s);
    /* The wire speaks of milli-units: 1e3 micro-units. */
    bounds->jerk_max = (int32_t)(((int64_t)limits->jerk_max * 1000 * EW_SUB) / (ticks_per_s * ticks_per_s * ticks_per_s));
    bounds->acceleration_max =
        ew_limiter_useful_acceleration(bounds->velocity_max, (int32_t)acceleration, bounds->jerk_max);
}

ew_axis_limits_t ew_bounds_inverted(const ew_axis_limits_t *bounds)
{
    const ew_axis_limits_t inverted = {
        ~bounds->position_min, ~bounds->position_max, ~bounds->velocity_max, ~bounds->acceleration_max, ~bounds->jerk_max};
    return inverted;
}

static void lock_limits(ew_t *ew, uint8_t axes, uint32_t crc)
{
    for (uint8_t axis = 0u; axis < axes; axis++) {
        ew_bounds_of(&ew->limits[axis], &ew->bounds[axis]);
        ew->watched[axis] = ew_bounds_inverted(&ew->bounds[axis]);
        ew->jump_max[axis] = ew->limits[axis].jump_max;
    }
    ew->axes = axes;
    ew->limits_crc = crc;
    ew->table_at = 0u; /* the memory check begins anew, also when no tick saw the table unlocked */
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
    const uint8_t unfit = ew_drives_fit(ew, m.axes);
    if (unfit < m.axes) {
        command->arg = (int32_t)unfit;
        return EW_ACK_CODE_DRIVE;
    }
    lock_limits(ew, m.axes, m.crc);
    ew_bind_drives(ew, command->now_us);
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
    if ((m.axis >= EW_MAX_AXES) || ((ew->limits_set & ((uint32_t)1u << m.axis)) == 0u)) {
        return ew_bad_value(command, 0);
    }
    ew_send(ew, EW_MSG_LIMITS, body, ew_pack_limits(&ew->limits[m.axis], &body[EW_HEADER_BYTES]));
    return EW_ACK_CODE_OK;
}

uint8_t ew_on_drive_set(ew_t *ew, ew_command_t *command)
{
    ew_drive_set_t m;
    if (!ew_unpack_drive_set(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    const uint8_t code = may_write(ew, command);
    if (code != EW_ACK_CODE_OK) {
        return code;
    }
    const int32_t flaw = ew_drive_flaw(&m);
    if (flaw >= 0) {
        return ew_bad_value(command, flaw);
    }
    ew->drives[m.axis] = m;
    return EW_ACK_CODE_OK;
}

uint8_t ew_on_drive_get(ew_t *ew, ew_command_t *command)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    ew_drive_get_t m;
    if (!ew_unpack_drive_get(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    if (m.axis >= EW_MAX_AXES) {
        return ew_bad_value(command, 0);
    }
    ew_send(ew, EW_MSG_DRIVE, body, ew_pack_drive(&ew->drives[m.axis], &body[EW_HEADER_BYTES]));
    return EW_ACK_CODE_OK;
}

uint8_t ew_on_stops_set(ew_t *ew, ew_command_t *command)
{
    ew_stops_set_t m;
    if (!ew_unpack_stops_set(command->payload, command->count, &m)) {
        return ew_bad_length(command);
    }
    const uint8_t code = may_write(ew, command);
    if (code != EW_ACK_CODE_OK) {
        return code;
    }
    if ((m.brake_after_ms == 0u) && (m.torque_off_after_ms != 0u)) {
        return ew_bad_value(command, 1); /* without brakes that grip there is no time after which torque may go */
    }
    ew->stops = m;
    return EW_ACK_CODE_OK;
}

uint8_t ew_on_stops_get(ew_t *ew, ew_command_t *command)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    if (command->count != 0u) {
        return ew_bad_length(command);
    }
    ew_send(ew, EW_MSG_STOPS, body, ew_pack_stops(&ew->stops, &body[EW_HEADER_BYTES]));
    return EW_ACK_CODE_OK;
}

void ew_unlock_limits(ew_t *ew)
{
    static const ew_stops_t no_second_stage = {0u, 0u};
    ew->locked = false;
    ew->limits_set = 0u;
    ew->stops = no_second_stage;
    for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
        const ew_drive_t sim = {.axis = axis, .kind = EW_DRIVE_KIND_SIM, .ratio_num = 1, .ratio_den = 1};
        ew->drives[axis] = sim;
    }
}
