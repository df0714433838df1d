/* What an emulated board does not have: pins, lights and a source of entropy. */
#include "board.h"

uint32_t board_entropy(void)
{
    return 0u; /* sessions differ by boot count and by their predecessor */
}

/* The drive hears the enable in its setpoint frames. */
void board_outputs(bool enable, uint32_t tick)
{
    (void)enable;
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
