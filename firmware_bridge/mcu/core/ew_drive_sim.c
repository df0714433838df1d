/* SIM: the axis' own units in frames on a stream (ew_drive.c). Nothing to check, nothing to convert. */
#include "ew_drive.h"

static int32_t flaw(const ew_drive_set_t *set)
{
    if (set->model != 0u) {
        return 2;
    }
    if (set->zero != 0) {
        return 5;
    }
    return ((set->ratio_num != 1) || (set->ratio_den != 1)) ? 6 : -1;
}

static bool carries(const ew_drive_set_t *set, const ew_drive_span_t *span)
{
    (void)set;
    (void)span;
    return true;
}

/* All of them share one stream; the place in the frame is the axis. */
static bool distinct(const ew_drive_set_t *one, const ew_drive_set_t *other)
{
    (void)one;
    (void)other;
    return true;
}

void ew_sim_take(ew_drives_t *drives, const int32_t *position, const int32_t *effort, uint8_t axes, int64_t now_us)
{
    for (uint8_t axis = 0u; axis < axes; axis++) {
        ew_axis_drive_t *drive = &drives->drive[axis];
        if (drive->set.kind == EW_DRIVE_KIND_SIM) {
            drive->effort = effort[axis];
            ew_drive_report(drive, true, position[axis], now_us);
        }
    }
    drives->seen = axes;
}

const ew_driver_t ew_driver_sim = {flaw, carries, distinct, NULL, NULL};
