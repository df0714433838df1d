/* An observer of the core who believes nothing that it says: looked at after every frame and every tick. */
#ifndef WATCH_H
#define WATCH_H
#include "ew_core.h"

/* What the harness knows because it did it. */
typedef struct {
    const ew_t *core;
    int64_t now_us;
    int64_t heartbeat_us;   /* last whole heartbeat that was delivered, EW_NEVER_US: none */
    bool arm_sent;          /* an ARM was delivered since the last look */
    bool clear_sent;        /* an ESTOP_CLEAR or FAULT_ACK was delivered since the last look */
    bool commit_sent;       /* a LIMITS_COMMIT was delivered since the last look */
    bool estop_sent;        /* an ESTOP was delivered since the last look */
} known_t;

/* After boot: what was latched before must still be. */
void watch_boot(const known_t *known, uint32_t estop, uint32_t fault);

/* After a frame was delivered (ticked false), or a tick was run (true). Aborts with a line that says what was broken. */
void watch(known_t *known, bool ticked);

#endif
