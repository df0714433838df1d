/* The plan: consumed in order, never past its end, replaced whole or not at all. What lies between two knots is taken as any
 * number here; that it lies between them is proved in curve.c. */
#include "ew_timeline.h"

#include "proof.h"

#define LATEST ((int64_t)1 << 60)   /* us */
#define FARTHEST ((int64_t)1 << 39) /* sub: 1e8 micro-units */

static ew_timeline_t line;

/* The i-th knot in use. */
static uint32_t place_of(uint32_t i)
{
    return ((uint32_t)line.first + i) % EW_TIMELINE_KNOTS;
}

static int64_t time_of(uint32_t i)
{
    return line.knots[place_of(i)].at_us;
}

/* Every splice leaves two knots or more, in order, and whatever ends a plan clears it. */
static bool well_formed(uint32_t least)
{
    bool good = (line.axes <= EW_MAX_AXES) && (line.first < EW_TIMELINE_KNOTS) && (line.count <= EW_TIMELINE_KNOTS) &&
                ((line.count == 0u) || (line.count >= least));
    for (uint32_t i = 0u; i < EW_TIMELINE_KNOTS; i++) {
        const int64_t at_us = time_of(i);
        good = good && ((i >= line.count) || ((at_us >= 0) && (at_us <= LATEST)));
        good = good && (((i + 1u) >= line.count) || (at_us < time_of(i + 1u)));
    }
    return good;
}

/* ---- models of the curve ---- */

ew_place_t place_contract(const ew_knot_t *a, const ew_knot_t *b, int64_t now_us)
{
    uint32_t i = 0u;
    while (((i + 2u) < line.count) && (a != &line.knots[place_of(i)])) {
        i++;
    }
    PROVE((line.count >= 2u) && (a == &line.knots[place_of(i)]) && (b == &line.knots[place_of(i + 1u)]),
          "a segment is two knots of the plan, one after the other");
    PROVE((a->at_us <= now_us) || (i == 0u), "the segment has begun, or is the first");
    PROVE((now_us < b->at_us) || ((i + 2u) == line.count), "and is not over, or is the last");
    PROVE(now_us <= time_of(line.count - 1u), "a plan that is over is not asked");
    const ew_place_t place = {a, b, nondet_u32(), nondet_u32(), nondet_bool()};
    return place;
}

int64_t position_contract(const ew_place_t *place, uint8_t axis)
{
    (void)place;
    PROVE(axis < EW_MAX_AXES, "an axis that exists");
    const int64_t position = nondet_i64();
    ASSUME((position >= -4 * FARTHEST) && (position <= 4 * FARTHEST));
    return position;
}

void target_contract(const ew_place_t *place, uint8_t axis, ew_target_t *target)
{
    ew_target_t any;
    HAVOC(&any);
    any.position = position_contract(place, axis);
    *target = any;
}

int64_t slope_contract(const ew_place_t *place, uint8_t axis)
{
    return position_contract(place, axis);
}

int64_t secant_contract(int64_t way, int64_t time_us)
{
    PROVE((way < 8 * FARTHEST) && (way > -8 * FARTHEST) && (time_us >= 1), "a secant of a segment that takes time");
    const int64_t secant = nondet_i64();
    ASSUME((secant <= ((int64_t)1 << 44)) && (secant >= -((int64_t)1 << 44)));
    return secant;
}

/* ---- */

/* One tick of a running plan. */
void consume(void)
{
    HAVOC(&line);
    ASSUME(well_formed(2u) && (line.count >= 2u));
    const int64_t now_us = nondet_i64();
    ASSUME((now_us >= EW_TICK_US) && (now_us <= LATEST));
    const uint8_t first = line.first;
    const uint8_t count = line.count;
    const int64_t end_us = time_of(line.count - 1u);
    ew_target_t target[EW_MAX_AXES];
    const int64_t mark = target[0].position;

    ew_timeline_advance(&line, now_us - EW_TICK_US);
    const uint32_t forgotten = (uint32_t)count - line.count;
    PROVE(well_formed(1u) && (line.count >= 1u) && (line.count <= count), "knots are forgotten one by one, the last one never");
    PROVE(line.first == ((first + forgotten) % EW_TIMELINE_KNOTS), "from the front");
    PROVE(time_of(line.count - 1u) == end_us, "the end stays where it is");
    PROVE((forgotten == 0u) || (time_of(0u) <= (now_us - EW_TICK_US)), "none before its time");
    PROVE((line.count == 1u) || (time_of(1u) > (now_us - EW_TICK_US)), "none too late");

    const bool live = ew_timeline_targets(&line, now_us, target);
    PROVE(live == ((now_us + SLACK) <= end_us), "targets until the last knot, and none after it");
    PROVE(live || (target[0].position == mark), "a plan that is over writes nothing");
    PROVE(!live || (line.count >= 2u), "a live plan has a segment");
    END();
}

/* A chunk that was judged, into whatever runs. */
void splice(void)
{
    static ew_plan_t plan;
    static ew_timeline_t before;
    static ew_axis_motion_t axes[EW_MAX_AXES];
    static uint32_t jump_max[EW_MAX_AXES];
    HAVOC(&line);
    HAVOC(&plan);
    HAVOC(axes);
    HAVOC(jump_max);
    ASSUME(well_formed(2u) && (line.axes >= 1u));
    const uint32_t kinds = (plan.interpolation == EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) ? 2u : 1u;
    ASSUME((plan.interpolation <= EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY) && (plan.n >= 1u) && (plan.n <= EW_TIMELINE_KNOTS));
    ASSUME(((uint32_t)plan.n * line.axes * kinds) <= EW_PLAN_SAMPLES);
    ASSUME((plan.dt_us >= EW_TICK_US) && (plan.dt_us <= 655350) && (plan.blend_us >= EW_GUARD_US) && (plan.blend_us <= 255000));
    const int64_t now_us = nondet_i64();
    const ew_anchor_t anchor = {nondet_i64(), axes};
    ASSUME((anchor.at_us >= 0) && (anchor.at_us <= now_us) && (now_us <= (LATEST >> 1)));
    /* A chunk says the lower 32 bits of its time; +-35 min. */
    ASSUME((plan.t0_us >= (now_us - INT32_MAX)) && (plan.t0_us <= (now_us + INT32_MAX)));
    for (uint32_t i = 0u; i < EW_MAX_AXES; i++) {
        ASSUME((axes[i].position >= -FARTHEST) && (axes[i].position <= FARTHEST));
    }
    before = line;
    int32_t arg = 0;
    const uint8_t code = ew_timeline_splice(&line, &plan, &anchor, now_us, jump_max, &arg);
    const uint32_t i = nondet_u8();
    ASSUME(i < EW_TIMELINE_KNOTS);
    const uint32_t was = ((uint32_t)before.first + i) % EW_TIMELINE_KNOTS;
    const bool kept = (line.knots[was].at_us == before.knots[was].at_us) &&
                      (line.knots[was].position[0] == before.knots[was].position[0]) &&
                      (line.knots[was].slope[0] == before.knots[was].slope[0]) &&
                      (line.knots[was].shape == before.knots[was].shape);
    PROVE((line.axes == before.axes) && (line.first == before.first), "axes and the beginning stay");
    if (code > EW_ACK_CODE_OK_TRIMMED) {
        PROVE((line.count == before.count) && kept, "refused: nothing changed");
        PROVE((code == EW_ACK_CODE_LATE) || (code == EW_ACK_CODE_JUMP) || (code == EW_ACK_CODE_FULL), "for one of three reasons");
    } else {
        const uint32_t used = (uint32_t)plan.n - (uint32_t)arg;
        PROVE(well_formed(2u) && (line.count >= 2u), "accepted: two knots or more, in order");
        PROVE((arg >= 0) && (arg < plan.n) && (line.count >= (used + 1u)), "all knots that were not trimmed are in it");
        PROVE(time_of(line.count - 1u) == (plan.t0_us + ((int64_t)(plan.n - 1u) * plan.dt_us)), "and the last is its last");
        PROVE(time_of(line.count - used) >= (now_us + EW_GUARD_US), "the first comes no sooner than the guard time");
        PROVE(((i + used + 1u) >= line.count) || kept, "what is still needed of the running plan is as it was");
        PROVE((line.count + SLACK) <= EW_TIMELINE_KNOTS, "there is room for it");
    }
    END();
}
