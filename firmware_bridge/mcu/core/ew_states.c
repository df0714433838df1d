#include "ew_states.h"

#define S(name) EW_STATE_##name
#define NO EW_STATE_NONE

/* Rows: state. Columns: BOOTED READY COMMIT ARM CHUNK DRY HOLD STOP OFF ESTOP FAULT CLEARED.
 * ARM occurs in one row only, and no row of an emergency stop or a fault leads anywhere but to DISARMED or to the other latch. */
static const uint8_t table[EW_STATE_COUNT][EW_EV_COUNT] = {
    [S(BOOT)] = {S(SELFTEST), NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO},
    [S(SELFTEST)] = {NO, S(DISARMED), NO, NO, NO, NO, NO, NO, NO, S(ESTOP), S(FAULT), NO},
    [S(DISARMED)] = {NO, NO, S(CONFIGURED), NO, NO, NO, NO, NO, S(DISARMED), S(ESTOP), S(FAULT), NO},
    [S(CONFIGURED)] = {NO, NO, NO, S(ARMED), NO, NO, NO, NO, S(DISARMED), S(ESTOP), S(FAULT), NO},
    [S(ARMED)] = {NO, NO, NO, NO, S(RUN), NO, S(ARMED), S(STOP), S(DISARMED), S(ESTOP), S(FAULT), NO},
    [S(RUN)] = {NO, NO, NO, NO, S(RUN), S(STARVED), S(ARMED), S(STOP), S(DISARMED), S(ESTOP), S(FAULT), NO},
    [S(STARVED)] = {NO, NO, NO, NO, S(RUN), NO, S(ARMED), S(STOP), S(DISARMED), S(ESTOP), S(FAULT), NO},
    [S(STOP)] = {NO, NO, NO, NO, NO, NO, NO, S(STOP), S(DISARMED), S(ESTOP), S(FAULT), NO},
    [S(ESTOP)] = {NO, NO, NO, NO, NO, NO, NO, NO, NO, S(ESTOP), NO, S(DISARMED)},
    [S(FAULT)] = {NO, NO, NO, NO, NO, NO, NO, NO, NO, S(ESTOP), S(FAULT), S(DISARMED)},
};

uint8_t ew_next_state(uint8_t state, uint8_t event)
{
    return ((state < EW_STATE_COUNT) && (event < EW_EV_COUNT)) ? table[state][event] : EW_STATE_NONE;
}

bool ew_may_move(uint8_t state)
{
    return (state == EW_STATE_ARMED) || (state == EW_STATE_RUN) || (state == EW_STATE_STARVED);
}
