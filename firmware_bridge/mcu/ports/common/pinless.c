/* What an emulated board does not have: pins, lights and a source of entropy. */
#include "board.h"

uint32_t board_entropy(void)
{
    return 0u; /* sessions differ by boot count and by their predecessor */
}

/* The drive hears enable and brakes in its setpoint frames. */
void board_outputs(bool enable, bool brakes_open, uint32_t tick)
{
    (void)enable;
    (void)brakes_open;
    (void)tick;
}

bool board_estop(void)
{
    return false;
}

void board_light(uint8_t state, uint32_t tick)
{
    (void)state;
    (void)tick;
}
