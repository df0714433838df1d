/* One frame of the host into a core in any state. What commands call beyond their own judgement is taken by its model below:
 * sums, drives, the encoding of answers, and the judging of chunks: a frame can only put one in hand (chunk.c), and that moves
 * nothing. */
#include "ew_command.h"

#include "proof.h"

void *malloc(size_t size); /* the checker's own */

#define LATEST ((int64_t)1 << 60) /* us: 36,000 years */
#define LONGEST 76u /* bytes: more than any message but CHUNK has, and the length is the first thing that is looked at */

static ew_t core;
static ew_noinit_t record;

/* ---- models ---- */

/* The host knows the sum of a table, or it does not. */
uint32_t sum_contract(const ew_t *ew, uint8_t axes)
{
    (void)ew;
    PROVE(axes <= EW_MAX_AXES, "a sum over axes that exist");
    return nondet_u32();
}

/* What is sealed, sent or told has no say in what a command does. */
void save_contract(ew_t *ew)
{
    (void)ew;
}

void nonce_contract(ew_t *ew)
{
    ew->noinit->clear_nonce = nondet_u32();
}

void emit_contract(ew_t *ew, uint8_t kind, int32_t arg0, int32_t arg1, int64_t now_us)
{
    (void)ew;
    (void)kind;
    (void)arg0;
    (void)arg1;
    (void)now_us;
}

static uint32_t answers;

void send_contract(ew_t *ew, uint8_t type, uint8_t *body, size_t payload)
{
    (void)ew;
    (void)type;
    PROVE(__CPROVER_w_ok(body, EW_HEADER_BYTES + payload + EW_CRC_BYTES), "an answer has room for its header and checksum");
    answers++;
}

void ack_contract(ew_t *ew, uint8_t type, uint16_t seq, const ew_ack_t *said, int64_t now_us)
{
    (void)ew;
    (void)type;
    (void)seq;
    (void)said;
    (void)now_us;
    answers++;
}

void hello_contract(ew_t *ew, uint32_t nonce, int64_t now_us)
{
    (void)nonce;
    ew->hello_us = now_us;
    ew->hello_due = false;
    answers++;
}

void events_contract(ew_t *ew)
{
    (void)ew;
}

int32_t flaw_contract(const ew_drive_set_t *set)
{
    const int32_t flaw = nondet_i32();
    ASSUME((flaw >= -1) && ((flaw >= 0) || (set->axis < EW_MAX_AXES)));
    return flaw;
}

uint8_t axis_contract(const ew_t *ew)
{
    (void)ew;
    return nondet_u8();
}

uint8_t fit_contract(const ew_t *ew, uint8_t axes)
{
    PROVE((axes >= 1u) && (axes <= EW_MAX_AXES), "drives are judged for axes that exist");
    return axis_contract(ew);
}

void bind_contract(ew_t *ew, int64_t now_us)
{
    (void)now_us;
    PROVE((ew->axes >= 1u) && (ew->axes <= EW_MAX_AXES), "drives are bound for axes that exist");
}

bool fresh_contract(const ew_t *ew, int64_t now_us)
{
    (void)ew;
    (void)now_us;
    return nondet_bool();
}

void bounds_contract(const ew_limits_t *limits, ew_axis_limits_t *bounds)
{
    PROVE(__CPROVER_r_ok(limits, sizeof *limits), "limits of an axis that exists");
    ew_axis_limits_t any;
    HAVOC(&any);
    *bounds = any;
}

void window_contract(ew_window_t *window, const ew_limits_t *limits, uint8_t axes)
{
    (void)window;
    (void)limits;
    PROVE(axes <= EW_MAX_AXES, "a window for axes that exist");
}

uint8_t chunk_contract(ew_t *ew, ew_command_t *command)
{
    PROVE(__CPROVER_r_ok(command->payload, command->count), "the payload is in the frame");
    if (!ew_may_move(ew->state) || nondet_bool()) {
        return EW_ACK_CODE_BAD_STATE;
    }
    ew->judging.stage = EW_JUDGE_RANGE;
    return EW_ANSWERED_LATER;
}

/* ---- states ---- */

static bool moment(int64_t at_us)
{
    return (at_us == EW_NEVER_US) || ((at_us >= 0) && (at_us <= LATEST));
}

/* What every entry of the core leaves behind. */
static bool well_formed(const ew_t *ew)
{
    return (ew->noinit == &record) && (ew->state < EW_STATE_COUNT) && (ew->axes <= EW_MAX_AXES) &&
           (ew->timeline.axes <= EW_MAX_AXES) && (ew->timeline.count <= EW_TIMELINE_KNOTS) && (ew->event_count <= EW_EVENTS) &&
           moment(ew->heartbeat_us) && (ew->hello_us >= 0) && (ew->hello_us <= LATEST) && moment(ew->hold_us) && moment(ew->wild_us) &&
           ((ew->from == EW_VIA_SERIAL) || (ew->from == EW_VIA_CAN)) &&
           (ew_may_move(ew->state) || (ew->judging.stage == EW_JUDGE_NOTHING));
}

static bool energised(uint8_t state)
{
    return (state == EW_STATE_ARMED) || (state == EW_STATE_RUN) || (state == EW_STATE_STARVED) || (state == EW_STATE_STOP);
}

/* Which command may lead from a state to another one. */
static bool edge(uint8_t type, uint8_t from, uint8_t to)
{
    switch (type) {
    case EW_MSG_ESTOP:
        return to == EW_STATE_ESTOP;
    case EW_MSG_LIMITS_COMMIT:
        return (from == EW_STATE_DISARMED) && (to == EW_STATE_CONFIGURED);
    case EW_MSG_ARM:
        return (from == EW_STATE_CONFIGURED) && (to == EW_STATE_ARMED);
    case EW_MSG_HOLD:
        return ew_may_move(from) && (to == EW_STATE_ARMED);
    case EW_MSG_DISARM:
        return (energised(from) && ((to == EW_STATE_STOP) || (to == EW_STATE_DISARMED))) ||
               ((from == EW_STATE_CONFIGURED) && (to == EW_STATE_DISARMED));
    case EW_MSG_ESTOP_CLEAR:
        return (from == EW_STATE_ESTOP) && ((to == EW_STATE_DISARMED) || (to == EW_STATE_FAULT));
    case EW_MSG_FAULT_ACK:
        return (from == EW_STATE_FAULT) && (to == EW_STATE_DISARMED);
    default:
        return false;
    }
}

typedef struct {
    uint8_t state;
    bool drive_on;
    uint32_t estop;
    uint32_t fault;
    uint32_t nonce;
    uint16_t session;
    uint8_t epoch;
} seen_t;

static seen_t seen(const ew_t *ew)
{
    const seen_t now = {ew->state, ew->drive_on, record.estop, record.fault, record.clear_nonce, ew->session, ew->epoch};
    return now;
}

void frame(void)
{
    HAVOC(&core);
    HAVOC(&record);
    core.noinit = &record;
    ASSUME(well_formed(&core) && (core.state != EW_STATE_BOOT) && (core.state != EW_STATE_SELFTEST));
    ASSUME(!core.drive_on || energised(core.state) || (core.state == EW_STATE_ESTOP) || (core.state == EW_STATE_FAULT));
    const int64_t now_us = nondet_i64();
    const int64_t stamp_us = nondet_i64();
    ASSUME((stamp_us >= 0) && (stamp_us <= now_us) && (now_us <= (LATEST - EW_HEARTBEAT_AHEAD_MAX_US)));
    const size_t count = nondet_size();
    ASSUME(count <= LONGEST);
    const uint8_t *body = malloc(count); /* the frame ends where the memory ends */
    ASSUME(body != NULL);
    const uint8_t axis = nondet_u8();
    ASSUME(axis < EW_MAX_AXES);
    const seen_t before = seen(&core);
    const ew_limits_t limits = core.limits[axis];
    const ew_axis_limits_t bounds = core.bounds[axis];
    const uint8_t stage = core.judging.stage;
    const uint8_t type = (count > 0u) ? body[0] : 0u;
    const bool is = count >= EW_HEADER_BYTES;

    ew_handle(&core, body, count, stamp_us, now_us);

    const seen_t after = seen(&core);
    const bool own_session = is && (ew_get_u16(&body[4]) == before.session);
    PROVE(well_formed(&core), "every entry leaves a core as it must be");
    PROVE((after.state == before.state) || (is && edge(type, before.state, after.state)),
          "every change of state belongs to its command: none leads from a latch to a state with the drive on");
    PROVE(before.drive_on || !after.drive_on || (is && (type == EW_MSG_ARM) && (before.state == EW_STATE_CONFIGURED)),
          "only ARM switches the drive on, and only from CONFIGURED");
    PROVE(!after.drive_on || energised(after.state) || (after.state == EW_STATE_ESTOP) || (after.state == EW_STATE_FAULT),
          "the drive is on only where it may be");
    PROVE((after.state == before.state) || (type == EW_MSG_ESTOP) || own_session,
          "a frame for another boot changes nothing but an emergency stop");
    PROVE(!is || ((type != EW_MSG_ARM) && (type != EW_MSG_CHUNK)) || (body[1] == before.epoch) ||
          ((after.state == before.state) && (core.judging.stage == stage)),
          "a command for another configuration moves nothing");
    PROVE((core.judging.stage == stage) || (core.judging.stage == EW_JUDGE_NOTHING) || (own_session && (type == EW_MSG_CHUNK)),
          "a chunk is taken in hand by CHUNK only");
    PROVE(!is || (type != EW_MSG_ESTOP) || ((after.state == EW_STATE_ESTOP) && (after.estop != 0u)),
          "an emergency stop is taken, whatever its payload, its session and the flood around it");
    PROVE((before.estop == 0u) || (after.estop != 0u) ||
          (own_session && (type == EW_MSG_ESTOP_CLEAR) && (before.state == EW_STATE_ESTOP) && !before.drive_on &&
           !core.estop_input && (count == (EW_HEADER_BYTES + 4u)) && (ew_get_u32(&body[EW_HEADER_BYTES]) == before.nonce)),
          "the emergency stop is cleared by its own nonce, at rest, with the input released");
    PROVE((before.fault == EW_FAULT_NONE) || (after.fault == before.fault) ||
          ((after.fault == EW_FAULT_NONE) && own_session && (type == EW_MSG_FAULT_ACK) && (before.state == EW_STATE_FAULT) &&
           !before.drive_on && (before.fault != EW_FAULT_WATCHDOG_STORM) && (count == (EW_HEADER_BYTES + 2u)) &&
           (ew_get_u16(&body[EW_HEADER_BYTES]) == before.fault)),
          "a fault is cleared by its own number, at rest, and a storm never");
    PROVE((before.state == EW_STATE_DISARMED) ||
          ((core.limits[axis].position_min == limits.position_min) && (core.limits[axis].position_max == limits.position_max) &&
           (core.limits[axis].velocity_max == limits.velocity_max) && (core.bounds[axis].position_max == bounds.position_max) &&
           (core.bounds[axis].velocity_max == bounds.velocity_max) && (core.bounds[axis].jerk_max == bounds.jerk_max)),
          "limits change while DISARMED only");
    PROVE(answers <= 2u, "a frame has an answer and an acknowledgement at most");
#ifdef TIGHT
    PROVE((after.state != EW_STATE_DISARMED) || (before.state == EW_STATE_DISARMED) || (before.state == EW_STATE_CONFIGURED),
          "too strong: a latch is never left");
#endif
    END();
}
