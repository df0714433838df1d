/* Chunks: taken from the frame, judged slice by slice, spliced whole or not at all. */
#include "ew_chunk.c" /* whole, for what is static in it */

#include "proof.h"

void *malloc(size_t size); /* the checker's own */

#define LATEST ((int64_t)1 << 60) /* us */

static ew_t core;

/* What a table that was not refused says of the wire. */
static bool admitted(const ew_limits_t *limits)
{
    return (limits->position_min >= -EW_POSITION_ABS_MAX) && (limits->position_max <= EW_POSITION_ABS_MAX) &&
           (limits->position_min < limits->position_max) && (limits->velocity_max >= 1u) &&
           (limits->velocity_max <= (uint32_t)EW_VELOCITY_MAX_MAX) && (limits->lsb >= 1u) &&
           (limits->lsb <= (uint32_t)EW_LSB_MAX) && (limits->velocity_lsb >= 1u) &&
           (limits->velocity_lsb <= (uint32_t)EW_LSB_MAX) && (limits->move_max >= 1u) &&
           (limits->move_max <= (2u * (uint32_t)EW_POSITION_ABS_MAX));
}

/* An arm that may move has axes, each with its limits; without one there is no chunk in hand. */
static bool configured(void)
{
    bool good = (core.state < EW_STATE_COUNT) && (core.axes <= EW_MAX_AXES) && (!ew_may_move(core.state) || (core.axes >= 1u));
    for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
        good = good && admitted(&core.limits[axis]);
    }
    return good;
}

/* The samples of a plan are all there. */
static bool whole_plan(void)
{
    const ew_plan_t *plan = &core.plan;
    return (plan->n >= 1u) && (plan->n <= EW_TIMELINE_KNOTS) && (plan->interpolation <= EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) &&
           (((size_t)plan->n * core.axes * kinds_of_sample(plan->interpolation)) <= EW_PLAN_SAMPLES) &&
           (plan->dt_us >= EW_TICK_US) && (plan->dt_us <= 655350);
}

typedef struct {
    uint8_t state;
    uint8_t first;
    uint8_t count;
    int64_t at_us;
    int64_t position;
    uint32_t chunk_id;
} seen_t;

/* The running plan, looked at in one place that is as good as any. */
static seen_t seen(uint8_t knot, uint8_t axis)
{
    const seen_t now = {core.state, core.timeline.first, core.timeline.count, core.timeline.knots[knot].at_us,
                        core.timeline.knots[knot].position[axis], core.chunk_id};
    return now;
}

static bool same(const seen_t *a, const seen_t *b)
{
    return (a->state == b->state) && (a->first == b->first) && (a->count == b->count) && (a->at_us == b->at_us) &&
           (a->position == b->position) && (a->chunk_id == b->chunk_id);
}

/* ---- out of the frame ---- */

/* A CHUNK with any payload, while another one may be in hand. */
void taken(void)
{
    HAVOC(&core);
    ASSUME(configured() && (core.judging.stage <= EW_JUDGE_SPLICE));
    const size_t count = nondet_size();
    ASSUME(count <= (EW_MAX_BODY_BYTES - EW_HEADER_BYTES - EW_CRC_BYTES));
    const uint8_t *payload = malloc(count); /* the payload ends where the memory ends */
    ASSUME(payload != NULL);
    const uint8_t knot = nondet_u8();
    const uint8_t axis = nondet_u8();
    ASSUME((knot < EW_TIMELINE_KNOTS) && (axis < EW_MAX_AXES));
    const int64_t now_us = nondet_i64();
    ASSUME((now_us >= 0) && (now_us <= LATEST));
    ew_command_t command = {payload, count, now_us, now_us, nondet_u16(), 0, 0};
    const seen_t before = seen(knot, axis);
    const ew_judging_t hand = core.judging;
    const ew_plan_t plan = core.plan;
    const size_t sample = nondet_size();
    ASSUME(sample < EW_PLAN_SAMPLES);

    const uint8_t code = ew_on_chunk(&core, &command);

    const seen_t after = seen(knot, axis);
    PROVE(same(&before, &after), "taking a chunk in hand changes nothing of the running plan");
    if (code != EW_ANSWERED_LATER) {
        PROVE((code > EW_ACK_CODE_OK_TRIMMED), "nothing is accepted before it was judged");
        PROVE((core.judging.stage == hand.stage) && (core.judging.knot == hand.knot) && (core.judging.seq == hand.seq) &&
                  (core.judging.chunk_id == hand.chunk_id),
              "refused: the one in hand is not touched");
        PROVE((hand.stage == EW_JUDGE_NOTHING) || ((core.plan.n == plan.n) && (core.plan.t0_us == plan.t0_us) &&
              (core.plan.dt_us == plan.dt_us) && (core.plan.sample[sample] == plan.sample[sample])),
              "nor its samples");
    } else {
        PROVE(hand.stage == EW_JUDGE_NOTHING, "one at a time");
        PROVE(ew_may_move(core.state) && (core.judging.stage == EW_JUDGE_RANGE) && (core.judging.knot == 0u),
              "taken: only in a state that may move, and judged from its first knot");
        PROVE(whole_plan() && (core.plan.blend_us >= EW_GUARD_US) && (core.plan.blend_us <= 255000), "with all its samples");
        PROVE((core.judging.chunk_id > before.chunk_id), "newer than the last one");
        PROVE((core.plan.t0_us >= (now_us + INT32_MIN)) && ((core.plan.t0_us + ((core.plan.n - 1) * core.plan.dt_us)) <=
              ((now_us + EW_HORIZON_MAX_US) - SLACK)),
              "no knot beyond the horizon");
        for (uint8_t a = 0u; a < core.axes; a++) {
            PROVE((core.judging.low[a] == core.plan.sample[a]) && (core.judging.high[a] == core.plan.sample[a]),
                  "the way of an axis begins at its first knot");
        }
    }
    END();
}

/* ---- slices ---- */

static uint32_t answers;
static bool spliced;

bool __CPROVER_uninterpreted_good(uint32_t knot, uint8_t axis);

static bool good(uint32_t knot, uint8_t axis)
{
    return __CPROVER_uninterpreted_good(knot, axis);
}

/* Whether a knot is good is another proof (knot); here it is any answer, the same whenever it is asked. */
bool knot_contract(const ew_t *ew, size_t k, uint8_t axis)
{
    PROVE((ew == &core) && (k < core.plan.n) && (axis < core.axes), "a knot of the chunk in hand");
    return good((uint32_t)k, axis);
}

void slopes_contract(ew_plan_t *plan, uint8_t axes, uint8_t k)
{
    PROVE((plan == &core.plan) && (axes == core.axes) && (k < plan->n) && (k == core.judging.knot), "slopes knot by knot");
    PROVE(core.judging.stage == EW_JUDGE_SLOPES, "after every knot was found good");
}

/* Every knot that was judged is good, and lies between low and high. */
static bool judged(uint32_t knot)
{
    bool all = true;
    for (uint32_t k = 0u; k < EW_TIMELINE_KNOTS; k++) {
        for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
            if ((k < knot) && (axis < core.axes)) {
                const int32_t q = core.plan.sample[(k * core.axes) + axis];
                all = all && good(k, axis) && (q >= core.judging.low[axis]) && (q <= core.judging.high[axis]);
            }
        }
    }
    return all;
}

static bool within_moves(void)
{
    bool all = true;
    for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
        const int64_t way = (int64_t)core.judging.high[axis] - core.judging.low[axis];
        all = all && ((axis >= core.axes) || ((way + SLACK) <= (int64_t)core.limits[axis].move_max));
    }
    return all;
}

/* What the slices so far have left. */
static bool in_order(void)
{
    const ew_judging_t *hand = &core.judging;
    bool all = hand->stage <= EW_JUDGE_SPLICE;
    if (hand->stage != EW_JUDGE_NOTHING) {
        all = all && ew_may_move(core.state) && whole_plan() && (hand->knot <= core.plan.n);
        if (hand->stage == EW_JUDGE_RANGE) {
            for (uint8_t axis = 0u; axis < EW_MAX_AXES; axis++) {
                all = all && (hand->low[axis] <= hand->high[axis]);
            }
            all = all && (hand->knot < core.plan.n) && judged(hand->knot);
        } else {
            all = all && judged(core.plan.n) && within_moves();
            all = all && ((hand->stage == EW_JUDGE_SPLICE) || (hand->knot < core.plan.n));
        }
    }
    return all;
}

uint8_t splice_contract(ew_timeline_t *timeline, const ew_plan_t *plan, const ew_anchor_t *anchor, int64_t now_us,
                        const uint32_t *jump_max, int32_t *arg)
{
    PROVE((timeline == &core.timeline) && (plan == &core.plan) && (anchor->axis == core.axis) && (jump_max == core.jump_max),
          "into the running plan");
    PROVE((anchor->at_us == core.tick_us) && (now_us >= core.tick_us), "from where the axes are now");
    PROVE(core.judging.stage == EW_JUDGE_SPLICE, "last of all");
    PROVE(judged(plan->n), "every knot of a plan that is spliced was found good");
    PROVE(within_moves(), "and no axis moves farther than it may");
    const uint8_t code = nondet_u8();
    ASSUME((code <= EW_ACK_CODE_OK_TRIMMED) || (code == EW_ACK_CODE_LATE) || (code == EW_ACK_CODE_JUMP) || (code == EW_ACK_CODE_FULL));
    *arg = nondet_i32();
    spliced = code <= EW_ACK_CODE_OK_TRIMMED;
    if (spliced) {
        ew_timeline_t any;
        HAVOC(&any);
        *timeline = any;
    }
    return code;
}

bool dispatch_contract(ew_t *ew, uint8_t event, int64_t now_us)
{
    (void)now_us;
    PROVE((ew == &core) && spliced && (event == EW_EV_CHUNK), "the arm begins to run after a splice only");
    core.state = EW_STATE_RUN;
    return true;
}

void ack_contract(ew_t *ew, uint8_t type, uint16_t seq, const ew_ack_t *said, int64_t now_us)
{
    (void)ew;
    (void)now_us;
    PROVE((type == EW_MSG_CHUNK) && (seq == core.judging.seq), "the answer is for the chunk that was in hand");
    PROVE((said->code <= EW_ACK_CODE_OK_TRIMMED) == spliced, "accepted is what was spliced");
    answers++;
}

/* One slice, whatever is in hand. */
void slice(void)
{
    HAVOC(&core);
    ASSUME(configured() && in_order());
    const int64_t now_us = nondet_i64();
    ASSUME((now_us >= 0) && (now_us <= LATEST) && (core.tick_us <= now_us));
    const uint8_t knot = nondet_u8();
    const uint8_t axis = nondet_u8();
    ASSUME((knot < EW_TIMELINE_KNOTS) && (axis < EW_MAX_AXES));
    const seen_t before = seen(knot, axis);
    const uint8_t stage = core.judging.stage;
    const uint8_t at = core.judging.knot;

    const bool more = ew_judge(&core, now_us);

    const seen_t after = seen(knot, axis);
    PROVE(in_order(), "the next slice finds what it needs");
    PROVE(spliced || same(&before, &after), "nothing of the running plan changes before the splice");
    PROVE(more == (core.judging.stage != EW_JUDGE_NOTHING), "says whether there is more");
    PROVE(answers == (((stage != EW_JUDGE_NOTHING) && !more) ? 1u : 0u), "answered once, when it is over");
    PROVE(!more || (core.judging.stage > stage) || ((core.judging.stage == stage) && (core.judging.knot > at)), "it gets on");
    PROVE(!spliced || (core.chunk_id == core.judging.chunk_id), "the last one taken is remembered");
    END();
}

/* ---- one knot ---- */

void knot(void)
{
    HAVOC(&core);
    ASSUME(configured() && (core.axes >= 1u) && whole_plan());
    const uint8_t axis = nondet_u8();
    const uint8_t k = nondet_u8();
    ASSUME((axis < core.axes) && (k < core.plan.n));
    const ew_limits_t *limits = &core.limits[axis];
    /* No more than begin_judging makes of the largest limits. */
    ASSUME((core.judging.most[axis] >= 0) && (core.judging.most[axis] <= ((int64_t)1 << 31)));
    ASSUME((core.judging.slack[axis] >= 0) && (core.judging.slack[axis] <= ((int64_t)1 << 31)));
    const size_t i = ((size_t)k * core.axes) + axis;
    const int64_t q = core.plan.sample[i];

    const bool taken_in = knot_good(&core, k, axis);

    PROVE(!taken_in || ((q >= (limits->position_min + SLACK)) && (q <= limits->position_max)), "inside the position limits");
    if (k > 0u) {
        const int64_t step = q - core.plan.sample[i - core.axes];
        PROVE(!taken_in || ((step <= core.judging.most[axis]) && (step >= -core.judging.most[axis])),
              "no farther from the last one than the velocity limit allows");
    }
    if (core.plan.interpolation == EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) {
        const int64_t v = core.plan.sample[((size_t)core.plan.n * core.axes) + i];
        const int64_t most = (int64_t)limits->velocity_max + limits->velocity_lsb;
        PROVE(!taken_in || ((v <= most) && (v >= -most)), "no faster than the velocity limit");
    }
    END();
}
