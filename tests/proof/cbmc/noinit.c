/* Boot from any 48 bytes of no-init memory. */
#include "ew_core.h"

#include "proof.h"

static ew_t core;
static ew_noinit_t noinit;

/* The other files of the core are not part of this: boot itself, the state machine and the limiter of the self-test are. */
void ew_send_hello(ew_t *ew, uint32_t nonce, int64_t now_us)
{
    (void)ew;
    (void)nonce;
    (void)now_us;
}

void ew_emit(ew_t *ew, uint8_t kind, int32_t arg0, int32_t arg1, int64_t now_us)
{
    (void)ew;
    (void)kind;
    (void)arg0;
    (void)arg1;
    (void)now_us;
}

void boot(void)
{
    const ew_port_info_t port = {nondet_u32(), nondet_u32(), EW_TICK_GAP_MAX_US, EW_ENCODER_TIMEOUT_US, 20u};
    HAVOC(&core);
    HAVOC(&noinit);
    const ew_noinit_t before = noinit;
    const uint64_t now_us = (uint64_t)nondet_u32() << 10;
    ew_init(&core, &port, &noinit, now_us);
    PROVE((core.state == EW_STATE_DISARMED) || (core.state == EW_STATE_ESTOP) || (core.state == EW_STATE_FAULT), "disarmed or latched");
    PROVE(!core.drive_on && !core.locked && (core.limits_set == 0u), "drive off, no limits");
    PROVE((core.state != EW_STATE_DISARMED) || ((noinit.estop == 0u) && (noinit.fault == EW_FAULT_NONE)), "disarmed only when nothing is latched");
    PROVE(core.session != 0u, "session");
    PROVE(core.heartbeat_us == EW_NEVER_US, "no host");
    END();
}
