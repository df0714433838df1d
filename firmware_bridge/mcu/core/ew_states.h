/* The state machine as one table. */
#ifndef EW_STATES_H
#define EW_STATES_H
#include "ew_protocol.h"

/* What can happen to the state machine. */
enum {
    EW_EV_BOOTED = 0, /* memory is initialised, the self-test may run */
    EW_EV_READY,      /* self-test passed and nothing is latched */
    EW_EV_COMMIT,     /* limit table locked */
    EW_EV_ARM,        /* the operator armed, everything was checked */
    EW_EV_CHUNK,      /* a chunk was spliced */
    EW_EV_DRY,        /* the timeline has no knot ahead */
    EW_EV_HOLD,       /* the host asks to hold */
    EW_EV_STOP,       /* permission to move is gone */
    EW_EV_OFF,        /* permission to be energised is gone, and the axes stand still */
    EW_EV_ESTOP,      /* emergency stop */
    EW_EV_FAULT,      /* a fault was latched */
    EW_EV_CLEARED,    /* the last latch was cleared by the operator */
    EW_EV_COUNT
};

#define EW_STATE_COUNT (EW_STATE_FAULT + 1)
#define EW_STATE_NONE 255u /* the event is not possible in this state */

/* The state after `event`, or EW_STATE_NONE. */
uint8_t ew_next_state(uint8_t state, uint8_t event);

/* ARMED, RUN, STARVED: the states in which a chunk may move the arm. */
bool ew_may_move(uint8_t state);

#endif
