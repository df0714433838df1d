/* All drives of the arm, whatever their kind. */
#include "ew_drive.h"

/* A drive that was told to switch on has this long to say that it did: 20 cycles of the slowest bus. */
#define ENABLE_MAX_US 200000

/* A servo that was speaking when the first one went out hears the second or third. */
#define HUSH 3u

static const ew_driver_t *const drivers[EW_DRIVE_KINDS] = {
    [EW_DRIVE_KIND_SIM] = &ew_driver_sim,
    [EW_DRIVE_KIND_FEETECH] = &ew_driver_feetech,
    [EW_DRIVE_KIND_MIT] = &ew_driver_mit,
};

void ew_drives_init(ew_drives_t *drives, uint8_t buses, uint32_t servo_slack_us)
{
    drives->axes = 0u;
    drives->buses = (uint8_t)(buses | (1u << (uint32_t)EW_DRIVE_KIND_SIM));
    drives->servo_slack_us = servo_slack_us;
    drives->hush = HUSH;
    for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
        drives->drive[axis].answered_us = EW_DRIVE_NEVER_US;
    }
}

int32_t ew_drive_flaw(const ew_drive_set_t *set)
{
    if (set->axis >= EW_MAX_AXES) {
        return 0;
    }
    if (set->kind >= EW_DRIVE_KINDS) {
        return 1;
    }
    if ((set->zero < -EW_POSITION_ABS_MAX) || (set->zero > EW_POSITION_ABS_MAX)) {
        return 5;
    }
    if ((set->ratio_num == 0) || (set->ratio_num < -EW_DRIVE_RATIO_MAX) || (set->ratio_num > EW_DRIVE_RATIO_MAX)) {
        return 6;
    }
    if ((set->ratio_den < 1) || (set->ratio_den > EW_DRIVE_RATIO_MAX)) {
        return 7;
    }
    return drivers[set->kind]->flaw(set);
}

static bool distinct_from_all(const ew_drive_set_t *sets, uint8_t axis)
{
    bool distinct = true;
    for (uint8_t other = 0u; other < axis; other++) {
        distinct = distinct && ((sets[other].kind != sets[axis].kind) ||
                                drivers[sets[axis].kind]->distinct(&sets[other], &sets[axis]));
    }
    return distinct;
}

uint8_t ew_drives_unfit(const ew_drives_t *drives, const ew_drive_set_t *sets, const ew_drive_span_t *spans, uint8_t axes)
{
    uint8_t axis = 0u;
    while ((axis < axes) && ((drives->buses & (1u << sets[axis].kind)) != 0u) &&
           drivers[sets[axis].kind]->carries(&sets[axis], &spans[axis]) && distinct_from_all(sets, axis)) {
        axis++;
    }
    return axis;
}

void ew_drives_bind(ew_drives_t *drives, const ew_drive_set_t *sets, const ew_drive_span_t *spans, uint8_t axes,
                    int64_t now_us)
{
    static const ew_servo_bus_t idle = {.next_us = 0};
    bool stream = false;
    drives->axes = axes;
    drives->on = false;
    drives->servo = idle;
    drives->servo.next_us = now_us;
    drives->motor.cycle_ticks = 0u;
    for (uint8_t axis = 0u; axis < axes; axis++) {
        ew_axis_drive_t *drive = &drives->drive[axis];
        if ((sets[axis].kind == EW_DRIVE_KIND_SIM) && (drive->set.kind == EW_DRIVE_KIND_SIM)) {
            drive->span = spans[axis]; /* its last frame is as good as before */
            stream = true;
        } else {
            const ew_axis_drive_t unknown = {
                .set = sets[axis], .span = spans[axis], .answered_us = EW_DRIVE_NEVER_US, .since_us = now_us};
            *drive = unknown;
            stream = stream || (sets[axis].kind == EW_DRIVE_KIND_SIM);
        }
    }
    if (!stream) {
        drives->seen = axes;
    }
    for (uint8_t kind = 0u; kind < EW_DRIVE_KINDS; kind++) {
        if (drivers[kind]->plan != NULL) {
            drivers[kind]->plan(drives);
        }
    }
}

static void watch_enable(ew_axis_drive_t *drive, int64_t now_us)
{
    if ((drive->phase == EW_DRIVE_ENABLING) && ((now_us - drive->since_us) >= ENABLE_MAX_US)) {
        drive->errors |= EW_DRIVE_ERR_DROPPED;
    }
}

void ew_drives_tick(ew_drives_t *drives, bool on, uint32_t tick, int64_t now_us)
{
    const bool dropped = drives->on && !on;
    drives->on = on;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        drives->drive[axis].off = drives->drive[axis].off || dropped;
        watch_enable(&drives->drive[axis], now_us);
    }
    for (uint8_t kind = 0u; kind < EW_DRIVE_KINDS; kind++) {
        if (drivers[kind]->tick != NULL) {
            drivers[kind]->tick(drives, tick);
        }
    }
}

uint8_t ew_drives_stale(const ew_drives_t *drives, uint8_t axes, int64_t now_us, int64_t timeout_us)
{
    uint8_t axis = 0u;
    while ((axis < axes) && (drives->drive[axis].answered_us != EW_DRIVE_NEVER_US) &&
           ((now_us - drives->drive[axis].answered_us) < timeout_us)) {
        axis++;
    }
    return axis;
}

uint8_t ew_drives_not_ready(const ew_drives_t *drives)
{
    uint8_t axis = 0u;
    while ((axis < drives->axes) &&
           (ew_drive_is(drives, axis, EW_DRIVE_KIND_SIM) ||
            ((drives->drive[axis].phase == EW_DRIVE_READY) && (drives->drive[axis].errors == 0u)))) {
        axis++;
    }
    return axis;
}

uint8_t ew_drives_in_error(const ew_drives_t *drives)
{
    uint8_t axis = 0u;
    while ((axis < drives->axes) && (drives->drive[axis].errors == 0u)) {
        axis++;
    }
    return axis;
}

bool ew_drives_holding(const ew_drives_t *drives)
{
    uint8_t axis = 0u;
    while ((axis < drives->axes) && (ew_drive_is(drives, axis, EW_DRIVE_KIND_SIM) ||
                                     (drives->drive[axis].phase == EW_DRIVE_ON))) {
        axis++;
    }
    return drives->on && (axis == drives->axes);
}

/* ---- for drivers ---- */

void ew_drive_enter(ew_axis_drive_t *drive, uint8_t phase, int64_t now_us)
{
    drive->phase = phase;
    drive->since_us = now_us;
}

void ew_drive_refuse(ew_axis_drive_t *drive, uint32_t reason, int64_t now_us)
{
    drive->errors |= reason;
    ew_drive_enter(drive, EW_DRIVE_REFUSED, now_us);
}

void ew_drive_report(ew_axis_drive_t *drive, bool valid, int32_t position, int64_t now_us)
{
    if (valid) {
        drive->position = position;
        drive->fresh = true;
        drive->answered_us = now_us;
        drive->errors &= ~(uint32_t)EW_DRIVE_ERR_VALUE;
    } else {
        drive->errors |= EW_DRIVE_ERR_VALUE;
    }
}
