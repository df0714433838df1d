/* The state machine's table, every state against every event. */
#include "ew_states.h"

#include "proof.h"

/* How many events a path may have: longer than the longest path without a loop, so that nothing is out of reach. */
#define PATH 14

static bool energised(uint8_t state)
{
    return (state == EW_STATE_ARMED) || (state == EW_STATE_RUN) || (state == EW_STATE_STARVED) || (state == EW_STATE_STOP);
}

static bool latched(uint8_t state)
{
    return (state == EW_STATE_ESTOP) || (state == EW_STATE_FAULT);
}

/* One event. */
void table(void)
{
    const uint8_t from = nondet_u8();
    const uint8_t event = nondet_u8();
    const uint8_t to = ew_next_state(from, event);
    PROVE((to < EW_STATE_COUNT) || (to == EW_STATE_NONE), "a state or none");
    PROVE((to == EW_STATE_NONE) || ((from < EW_STATE_COUNT) && (event < EW_EV_COUNT)), "numbers out of range lead nowhere");
    if (to != EW_STATE_NONE) {
        PROVE(!energised(to) || energised(from) || ((from == EW_STATE_CONFIGURED) && (event == EW_EV_ARM)),
              "the drive's states are entered by ARM from CONFIGURED only");
        PROVE((to != EW_STATE_CONFIGURED) || ((from == EW_STATE_DISARMED) && (event == EW_EV_COMMIT)),
              "CONFIGURED is entered by COMMIT from DISARMED only");
        PROVE((to != EW_STATE_RUN) || (ew_may_move(from) && (event == EW_EV_CHUNK)), "RUN is entered by a chunk only");
        PROVE(!latched(from) || latched(to) || ((to == EW_STATE_DISARMED) && (event == EW_EV_CLEARED)),
              "a latch is left by clearing only, and for DISARMED");
        PROVE((event != EW_EV_ESTOP) || (to == EW_STATE_ESTOP), "an emergency stop leads to ESTOP");
        PROVE((event != EW_EV_FAULT) || (to == EW_STATE_FAULT), "a fault leads to FAULT");
#ifdef TIGHT
        PROVE((to != EW_STATE_STOP) || (from == EW_STATE_RUN), "too strong: STOP from RUN only");
#endif
    }
    PROVE((event != EW_EV_ESTOP) || (from == EW_STATE_BOOT) || (from >= EW_STATE_COUNT) || (to == EW_STATE_ESTOP),
          "an emergency stop is possible in every state after boot");
    END();
}

/* Any sequence of events from a latch: RUN is not reached without CLEARED, COMMIT, ARM and CHUNK, in this order. */
void latch_to_run(void)
{
    uint8_t state = nondet_u8();
    ASSUME(latched(state));
    uint8_t stage = 0u; /* how much of the operator's sequence has been seen since the last latch */
    for (unsigned i = 0u; i < PATH; i++) {
        const uint8_t event = nondet_u8();
        const uint8_t to = ew_next_state(state, event);
        if (to == EW_STATE_NONE) {
            continue;
        }
        stage = ((stage == 0u) && (event == EW_EV_CLEARED)) ? 1u : stage;
        stage = ((stage == 1u) && (event == EW_EV_COMMIT)) ? 2u : stage;
        stage = ((stage == 2u) && (event == EW_EV_ARM)) ? 3u : stage;
        stage = (latched(to) || ((stage > 1u) && (to == EW_STATE_DISARMED))) ? (latched(to) ? 0u : 1u) : stage;
        state = to;
        PROVE(!energised(state) || (stage == 3u), "the drive's states need CLEARED, COMMIT and ARM");
#ifdef TIGHT
        PROVE(state != EW_STATE_RUN, "too strong: RUN is never reached again");
#endif
    }
    END();
}
