#include "ew_watch.h"

#define STEPS 30000u /* twice as many, and a tick's clamped way, still fit 16 bits */

void ew_window_begin(ew_window_t *window, const ew_limits_t *limits, uint8_t axes)
{
    for (uint8_t axis = 0u; axis < axes; axis++) {
        const uint32_t unit = (limits[axis].window_max / STEPS) + 1u;
        window->unit[axis] = unit * (uint32_t)EW_SUB;
        window->most[axis] = (limits[axis].window_max / unit) + 1u; /* a window begins and ends within a step */
        window->carry[axis] = 0u;
        window->odometer[axis] = 0u;
        for (uint16_t tick = 0u; tick < EW_WINDOW_TICKS; tick++) {
            window->before[tick][axis] = 0u;
        }
    }
    window->at = 0u;
}

uint8_t ew_window_tick(ew_window_t *window, const ew_axis_motion_t *axis, uint8_t axes)
{
    uint8_t first = axes;
    for (uint8_t i = 0u; i < axes; i++) {
        const int32_t velocity = axis[i].velocity;
        const uint32_t way = window->carry[i] + (uint32_t)((velocity < 0) ? -velocity : velocity);
        uint32_t steps = way / window->unit[i];
        window->carry[i] = way - (steps * window->unit[i]);
        if (steps > window->most[i]) {
            steps = window->most[i] + 1u;
        }
        window->odometer[i] = (uint16_t)(window->odometer[i] + steps);
        const uint16_t within = (uint16_t)(window->odometer[i] - window->before[window->at][i]);
        window->before[window->at][i] = window->odometer[i];
        if ((within > window->most[i]) && (first == axes)) {
            first = i;
        }
    }
    window->at = (uint16_t)((window->at + 1u) % EW_WINDOW_TICKS);
    return first;
}

bool ew_encoder_plausible(int64_t way, int64_t elapsed_us, const ew_limits_t *limits)
{
    const int64_t time_us = elapsed_us + EW_ENCODER_SLACK_US;
    const int64_t most = ((2 * (int64_t)limits->velocity_max * time_us) / 1000000) + 1;
    return (way <= most) && (way >= -most);
}
