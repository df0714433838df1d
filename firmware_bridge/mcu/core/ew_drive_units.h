/* Numbers of a drive to numbers of its axis and back, in integers, with the rounding named and every overflow refused.
 *
 * A drive speaks in codes over a range; in between stand nano-units of its own shaft (1e-9 rad, rad/s), so that the finest
 * drive known (65,535 codes over 25 rad: 381 urad a code) loses nothing. The axis then is zero + shaft * ratio. */
#ifndef EW_DRIVE_UNITS_H
#define EW_DRIVE_UNITS_H
#include <stdbool.h>
#include <stdint.h>

#include "ew_protocol.h"

/* Largest |shaft position| and |shaft velocity| that the arithmetic takes: 1,000 rad, 1,000 rad/s. */
#define EW_SHAFT_ABS_MAX INT64_C(1000000000000)

/* a / b to the nearest whole number, halves downwards. b > 0, |a| < 2^61. */
int64_t ew_nearest(int64_t a, int64_t b);

/* Shaft position in nano-units to micro-units of the axis; false: outside of what an axis can hold. */
bool ew_axis_position(const ew_drive_set_t *set, int64_t shaft, int32_t *micro);

/* The way back; false: more than EW_SHAFT_ABS_MAX. What a model can carry is less, and for its codes to say. */
bool ew_shaft_position(const ew_drive_set_t *set, int32_t micro, int64_t *shaft);

/* The same for velocities, which know no zero. */
bool ew_axis_velocity(const ew_drive_set_t *set, int64_t shaft, int32_t *micro);
bool ew_shaft_velocity(const ew_drive_set_t *set, int32_t micro, int64_t *shaft);

/* Torque at the shaft to effort at the axis, both micro-N m (N for a linear axis): what the ratio takes in way it gives in
 * force. False: more than EFFORT_MAX_MAX. */
bool ew_axis_effort(const ew_drive_set_t *set, int64_t torque, int32_t *effort);

/* A value of -most..most as a code of 0..top, nearest, halves downwards; false: outside, nothing is clamped. */
bool ew_code_of(int64_t value, int64_t most, uint32_t top, uint32_t *code);

/* The value of a code, nearest. */
int64_t ew_value_of(uint32_t code, int64_t most, uint32_t top);

#endif
