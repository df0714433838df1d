/* Boot: what survived the reset, the self-test, and the state to begin in. */
#include "ew_core.h"

/* A watchdog reset becomes a fault, unless what is latched says why nobody fed it. */
static void note_watchdog(ew_t *ew)
{
    ew_noinit_t *n = ew->noinit;
    ew_note_watchdog(n);
    ew->reset_missing = ew_missing_before(n);
    if (ew_recent_watchdogs(ew) >= EW_WATCHDOG_STORM_RESETS) {
        n->fault = EW_FAULT_WATCHDOG_STORM;
    } else if ((n->fault != EW_FAULT_MEMORY) && (n->fault != EW_FAULT_STACK_OVERFLOW) &&
               (n->fault != EW_FAULT_WATCHDOG_STORM)) {
        n->fault = EW_FAULT_WATCHDOG;
    } else {
        /* the latch is the cause, and stays */
    }
}

static void read_noinit(ew_t *ew)
{
    ew_noinit_t *n = ew->noinit;
    const bool record = ew_load_noinit(n);
    const bool mark = ew_noinit_marked(n);
    ew->reset_cause = record ? EW_RESET_CAUSE_UNKNOWN : EW_RESET_CAUSE_POWER_ON;
    if (mark) {
        ew->reset_cause = (uint8_t)n->mark_cause;
        ew->reset_pc = n->mark_pc;
        ew->reset_tick = n->mark_tick;
    }
    ew_note_life(n, mark);
    if (ew->reset_cause == EW_RESET_CAUSE_WATCHDOG) {
        note_watchdog(ew);
    }
    if ((ew->reset_cause == EW_RESET_CAUSE_HARD_FAULT) && (n->fault != EW_FAULT_WATCHDOG_STORM)) {
        n->fault = EW_FAULT_HARD_FAULT;
    }
    n->boots++;
}

/* Differs from the last one even when the entropy does not; never 0, which no MCU has. */
static void choose_session(ew_t *ew)
{
    uint8_t bytes[12];
    ew_put_u32(&bytes[0], ew->port.entropy);
    ew_put_u32(&bytes[4], ew->noinit->boots);
    ew_put_u32(&bytes[8], ew->noinit->session);
    uint16_t session = (uint16_t)(ew_crc32c(bytes, sizeof bytes, 0u) & 0xFFFFu);
    while ((session == 0u) || (session == (uint16_t)ew->noinit->session)) {
        session++;
    }
    ew->session = session;
    ew->noinit->session = session;
}

/* The mark goes last: should the supply fail before the record is sealed, the next boot finds the reset in its name again. A
 * watchdog reset that is counted twice is a fault too many, one that is forgotten would be one too few. */
static void take_over(ew_t *ew)
{
    volatile ew_noinit_t *n = ew->noinit;
    read_noinit(ew);
    ew_renew_nonce(ew);
    choose_session(ew);
    ew_save_noinit(ew);
    n->mark_magic = 0u;
}

/* Every result is collected before one of them is judged. */
static bool selftest(void)
{
    static const uint8_t check[9] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
    static const uint8_t zeros[3] = {0u, 7u, 0u};
    uint8_t encoded[5];
    uint8_t decoded[3];
    uint32_t wrong = ew_crc32c(check, sizeof check, 0u) ^ 0xE3069283u;
    wrong |= (uint32_t)ew_cobs_encode(zeros, sizeof zeros, encoded) ^ 4u;
    wrong |= (uint32_t)ew_cobs_decode(encoded, 4u, decoded, sizeof decoded) ^ 3u;
    wrong |= (uint32_t)decoded[1] ^ 7u;
    const ew_axis_limits_t limits = {-1000, 1000, 100, 10, 3};
    const ew_target_t target = {INT32_MAX, 0, 0, 0, INT32_MAX, INT32_MAX};
    ew_axis_motion_t axis;
    ew_limiter_rest(&axis, 0);
    for (uint8_t i = 0u; i < 100u; i++) {
        ew_limiter_follow(&axis, &target, &limits);
        wrong |= (uint32_t)axis.broken | ((uint32_t)ew_limiter_holds(axis.position, axis.velocity, &limits) ^ 1u);
    }
    wrong |= (uint32_t)axis.position ^ 1000u;
    return wrong == 0u;
}

static void boot_state(ew_t *ew, int64_t now_us)
{
    (void)ew_dispatch(ew, EW_EV_BOOTED, now_us);
    ew_emit(ew, EW_EVENT_KIND_BOOT, (int32_t)ew->reset_cause, (int32_t)ew->noinit->boots, now_us);
    if (!selftest()) {
        ew_fault(ew, EW_FAULT_SELFTEST, -1, now_us);
    }
    if (ew->noinit->estop != 0u) {
        ew->stop_cause = EW_STOP_CAUSE_ESTOP;
        (void)ew_dispatch(ew, EW_EV_ESTOP, now_us);
    } else if (ew->noinit->fault != EW_FAULT_NONE) {
        ew->stop_cause = EW_STOP_CAUSE_FAULT;
        (void)ew_dispatch(ew, EW_EV_FAULT, now_us);
        ew_emit(ew, EW_EVENT_KIND_FAULT, (int32_t)ew->noinit->fault, -1, now_us);
    } else {
        (void)ew_dispatch(ew, EW_EV_READY, now_us);
    }
}

void ew_init(ew_t *ew, const ew_port_info_t *port, ew_noinit_t *noinit, uint64_t now_us)
{
    uint8_t *bytes = (uint8_t *)ew;
    for (size_t i = 0u; i < sizeof *ew; i++) {
        bytes[i] = 0u;
    }
    ew->canary_front = EW_CANARY;
    ew->canary_back = EW_CANARY;
    ew->port = *port;
    ew->port_stats.watchdog_margin_min_us = UINT32_MAX;
    ew->noinit = noinit;
    ew->heartbeat_us = EW_NEVER_US;
    ew->policy_us = EW_NEVER_US;
    ew->encoder_us = EW_NEVER_US;
    ew->answers_left = EW_ANSWERS_PER_TICK;
    ew->wild_us = EW_NEVER_US;
    for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
        ew->encoder_at_us[axis] = EW_NEVER_US;
    }
    ew->hold_us = EW_NEVER_US;
    ew->via = EW_VIA_SERIAL;
    ew_drives_init(&ew->bus, port->drive_buses, port->servo_slack_us);
    ew->tick_us = ((int64_t)now_us / EW_TICK_US) * EW_TICK_US;
    ew->state = EW_STATE_BOOT;
    take_over(ew);
    boot_state(ew, (int64_t)now_us);
    /* The reset may have cut a frame in two: end it, or the host would lose the HELLO with it. */
    ew->tx[0] = 0u;
    ew->tx_head = 1u;
    ew_send_hello(ew, 0u, (int64_t)now_us);
}
