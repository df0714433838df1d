#include "ew_drive_units.h"

#define NANO_PER_MICRO 1000

int64_t ew_nearest(int64_t a, int64_t b)
{
    const int64_t top = (2 * a) + b - 1;
    const int64_t bottom = 2 * b;
    const int64_t quotient = top / bottom;
    return ((top % bottom) < 0) ? (quotient - 1) : quotient; /* C rounds towards zero, this rounds down */
}

static bool fits(int64_t value, int64_t most)
{
    return (value >= -most) && (value <= most);
}

/* shaft * num / den. DRIVE_SET bounds num and den to 10^6: 10^12 * 10^6 stays below 2^61. */
static int64_t forward(const ew_drive_set_t *set, int64_t shaft)
{
    return ew_nearest(shaft * set->ratio_num, (int64_t)set->ratio_den * NANO_PER_MICRO);
}

/* micro * den / num, in nano-units. |micro| is at most 6 * 10^8: the product stays below 2^61. */
static int64_t backward(const ew_drive_set_t *set, int64_t micro)
{
    const int64_t num = set->ratio_num;
    const int64_t scaled = micro * set->ratio_den * NANO_PER_MICRO;
    return (num > 0) ? ew_nearest(scaled, num) : ew_nearest(-scaled, -num);
}

bool ew_axis_position(const ew_drive_set_t *set, int64_t shaft, int32_t *micro)
{
    if (!fits(shaft, EW_SHAFT_ABS_MAX)) {
        return false;
    }
    const int64_t axis = (int64_t)set->zero + forward(set, shaft);
    const bool good = fits(axis, 2 * (int64_t)EW_POSITION_ABS_MAX);
    *micro = good ? (int32_t)axis : 0;
    return good;
}

bool ew_shaft_position(const ew_drive_set_t *set, int32_t micro, int64_t *shaft)
{
    if (!fits(micro, 2 * (int64_t)EW_POSITION_ABS_MAX)) {
        return false;
    }
    *shaft = backward(set, (int64_t)micro - set->zero);
    return fits(*shaft, EW_SHAFT_ABS_MAX);
}

bool ew_axis_velocity(const ew_drive_set_t *set, int64_t shaft, int32_t *micro)
{
    if (!fits(shaft, EW_SHAFT_ABS_MAX)) {
        return false;
    }
    const int64_t axis = forward(set, shaft);
    const bool good = fits(axis, INT32_MAX);
    *micro = good ? (int32_t)axis : 0;
    return good;
}

bool ew_shaft_velocity(const ew_drive_set_t *set, int32_t micro, int64_t *shaft)
{
    if (!fits(micro, EW_VELOCITY_MAX_MAX)) {
        return false;
    }
    *shaft = backward(set, micro);
    return fits(*shaft, EW_SHAFT_ABS_MAX);
}

bool ew_axis_effort(const ew_drive_set_t *set, int64_t torque, int32_t *effort)
{
    if (!fits(torque, EW_EFFORT_MAX_MAX)) {
        return false;
    }
    const int64_t num = set->ratio_num;
    const int64_t scaled = torque * set->ratio_den;
    const int64_t axis = (num > 0) ? ew_nearest(scaled, num) : ew_nearest(-scaled, -num);
    const bool good = fits(axis, EW_EFFORT_MAX_MAX);
    *effort = good ? (int32_t)axis : 0;
    return good;
}

bool ew_code_of(int64_t value, int64_t most, uint32_t top, uint32_t *code)
{
    if (!fits(value, most)) {
        return false;
    }
    *code = (uint32_t)ew_nearest((value + most) * (int64_t)top, 2 * most);
    return true;
}

int64_t ew_value_of(uint32_t code, int64_t most, uint32_t top)
{
    return ew_nearest((int64_t)code * 2 * most, (int64_t)top) - most;
}
