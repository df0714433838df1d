/* The contract of ew_brake_way, which the proofs of the limiter rest on, at every speed of one limit table.
 * Arguments: velocity_max (micro-units/s), acceleration_max (micro-units/s^2), jerk_max (milli-units/s^3). */
#include "ew_core.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 4) {
        return 2;
    }
    ew_limits_t limits = {0};
    limits.position_max = 1;
    limits.velocity_max = (uint32_t)strtoul(argv[1], NULL, 10);
    limits.acceleration_max = (uint32_t)strtoul(argv[2], NULL, 10);
    limits.jerk_max = (uint32_t)strtoul(argv[3], NULL, 10);
    ew_axis_limits_t bounds;
    ew_bounds_of(&limits, &bounds);
    const uint32_t a = (uint32_t)bounds.acceleration_max;
    uint32_t wrong = 0u;
    for (uint32_t speed = 0u; speed <= (uint32_t)bounds.velocity_max; speed++) {
        const int64_t way = ew_brake_way(speed, a);
        const int64_t expected = (speed < a) ? 0 : ((int64_t)(speed - a) + ew_brake_way(speed - a, a));
        wrong += ((way != expected) || (way < 0)) ? 1u : 0u;
    }
    printf("%lu speeds, acceleration %lu, %lu wrong\n", (unsigned long)bounds.velocity_max + 1ul, (unsigned long)a,
           (unsigned long)wrong);
    return (wrong == 0u) ? 0 : 1;
}
