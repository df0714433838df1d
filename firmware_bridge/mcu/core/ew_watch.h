/* What is watched beside the limiter: way per time window, effort, and whether an encoder can have moved as far as it says. */
#ifndef EW_WATCH_H
#define EW_WATCH_H
#include "ew_limiter.h"
#include "ew_protocol.h"

#define EW_WINDOW_TICKS ((uint32_t)EW_WINDOW_US / (uint32_t)EW_TICK_US)

typedef struct {
    uint32_t unit[EW_MAX_AXES];     /* sub per step of the odometer: fine enough that a window has 30000 */
    uint32_t most[EW_MAX_AXES];     /* steps allowed in a window */
    uint32_t carry[EW_MAX_AXES];    /* sub, less than a step */
    uint16_t odometer[EW_MAX_AXES]; /* steps of way, modulo 2^16 */
    uint16_t before[EW_WINDOW_TICKS][EW_MAX_AXES]; /* the odometer at each tick of the window */
    uint16_t at;
} ew_window_t;

/* A fresh window, in which nothing has moved. */
void ew_window_begin(ew_window_t *window, const ew_limits_t *limits, uint8_t axes);

/* One tick later: every axis went by its velocity. The first axis with more way in the window than window_max, or axes. Way is
 * counted whatever its direction and whichever chunk asked for it. */
uint8_t ew_window_tick(ew_window_t *window, const ew_axis_motion_t *axis, uint8_t axes);

/* Whether an axis can have moved by `way` micro-units between two reports `elapsed_us` apart: at twice its velocity limit. */
bool ew_encoder_plausible(int64_t way, int64_t elapsed_us, const ew_limits_t *limits);

#endif
