#include "watch.h"

#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char fuzz_unit[] = "ticks in RUN";
unsigned long fuzz_reached;

/* The last look. */
static uint8_t state;
static bool drive_on;
static int64_t latched_us; /* when ESTOP or FAULT was first seen */
static uint32_t chunk_id;
static bool armed_by_operator;
static bool locked;
static uint8_t axes;
static ew_limits_t table[EW_MAX_AXES];
static uint32_t tick_count;
static int64_t position[EW_MAX_AXES];
static int64_t velocity[EW_MAX_AXES];
static int64_t acceleration[EW_MAX_AXES];
static int32_t micro[EW_MAX_AXES];

static bool is_latch(uint8_t s)
{
    return (s == EW_STATE_ESTOP) || (s == EW_STATE_FAULT);
}

static int64_t magnitude(int64_t value)
{
    return (value < 0) ? -value : value;
}

/* Where the axes are at rest, or after several ticks at once. */
static void remember(const ew_t *core)
{
    (void)ew_drive_setpoint(core, micro, EW_MAX_AXES);
    for (uint8_t a = 0u; a < axes; a++) {
        position[a] = core->axis[a].position;
        velocity[a] = core->axis[a].velocity;
        acceleration[a] = core->axis[a].acceleration;
    }
}

static void watch_states(known_t *k)
{
    const ew_t *core = k->core;
    const uint8_t now = core->state;
    REQUIRE(now < EW_STATE_COUNT, "state %u", now);
    const bool moving = ew_may_move(now);
    if (moving && !ew_may_move(state)) {
        REQUIRE(k->arm_sent && (state == EW_STATE_CONFIGURED), "moving out of state %u without ARM", state);
        armed_by_operator = true;
    }
    armed_by_operator = armed_by_operator && moving;
    REQUIRE(!moving || armed_by_operator, "in state %u nobody armed", now);
    if (is_latch(state) && !is_latch(now)) {
        REQUIRE(k->clear_sent && (now == EW_STATE_DISARMED), "a latch was left for state %u", now);
    }
    if ((now == EW_STATE_CONFIGURED) && (state != EW_STATE_CONFIGURED)) {
        REQUIRE(k->commit_sent && (state == EW_STATE_DISARMED), "configured out of state %u", state);
    }
    REQUIRE(!k->estop_sent || (now == EW_STATE_ESTOP), "an emergency stop was sent, the state is %u", now);
    REQUIRE((core->noinit->estop == 0u) || (now == EW_STATE_ESTOP), "an emergency stop is latched, the state is %u", now);
    REQUIRE((core->noinit->fault == EW_FAULT_NONE) || is_latch(now), "fault %u is latched, the state is %u",
            (unsigned)core->noinit->fault, now);
    REQUIRE(core->noinit->fault != EW_FAULT_LIMITER_CHECK, "the core found its own limiter wrong");
    REQUIRE(core->noinit->fault != EW_FAULT_MEMORY, "the core found its own memory wrong");
    if (is_latch(now) && !is_latch(state)) {
        latched_us = k->now_us;
    }

    const bool on = ew_drive_enabled(core);
    REQUIRE(!on || moving || (now == EW_STATE_STOP) || is_latch(now), "the drive is on in state %u", now);
    REQUIRE(!on || drive_on || moving, "the drive went on in state %u", now);
    if (on && !drive_on) {
        chunk_id = 0u;
        remember(core);
    }
    REQUIRE(!on || (core->chunk_id >= chunk_id), "chunk %u after %u", (unsigned)core->chunk_id, (unsigned)chunk_id);
    chunk_id = core->chunk_id;
    drive_on = on;
    state = now;
    k->arm_sent = false;
    k->clear_sent = false;
    k->commit_sent = false;
    k->estop_sent = false;
}

static void watch_table(const ew_t *core)
{
    if (core->locked && !locked) {
        axes = core->axes;
        REQUIRE((axes > 0u) && (axes <= EW_MAX_AXES), "%u axes", axes);
        memcpy(table, core->limits, sizeof table);
    }
    if (core->locked) {
        REQUIRE(core->axes == axes, "%u axes instead of %u", core->axes, axes);
        REQUIRE(memcmp(table, core->limits, axes * sizeof table[0]) == 0, "a locked table changed");
    }
    REQUIRE(!ew_drive_enabled(core) || core->locked, "the drive is on without a locked table");
    locked = core->locked;
}

static void watch_timeline(const ew_t *core)
{
    const ew_timeline_t *t = &core->timeline;
    REQUIRE((t->first < EW_MAX_KNOTS) && (t->count <= EW_MAX_KNOTS), "knots %u + %u", t->first, t->count);
    REQUIRE((core->state == EW_STATE_RUN) || (t->count == 0u), "%u knots in state %u", t->count, core->state);
    for (unsigned i = 1u; i < t->count; i++) {
        const ew_knot_t *before = &t->knots[(t->first + i - 1u) % EW_MAX_KNOTS];
        REQUIRE(t->knots[(t->first + i) % EW_MAX_KNOTS].at_us > before->at_us, "knots %u and %u are not in order", i - 1u, i);
    }
}

/* Setpoints against the table as the host sent it. In micro-units from outside, and exactly in the core's own units. */
static void watch_motion(const known_t *k)
{
    const ew_t *core = k->core;
    int32_t now[EW_MAX_AXES];
    const uint32_t ran = ew_ticks(core) - tick_count;
    tick_count = ew_ticks(core);
    if (!drive_on) {
        return;
    }
    REQUIRE(ew_drive_setpoint(core, now, EW_MAX_AXES) == axes, "setpoints of another number of axes");
    for (uint8_t a = 0u; a < axes; a++) {
        const ew_limits_t *limits = &table[a];
        ew_axis_limits_t bounds;
        ew_bounds_of(limits, &bounds);
        REQUIRE((now[a] >= limits->position_min) && (now[a] <= limits->position_max), "axis %u at %d", a, now[a]);
        const int64_t p = core->axis[a].position;
        const int64_t v = p - position[a];
        if (ran == 1u) {
            REQUIRE(magnitude((int64_t)now[a] - micro[a]) <= (((int64_t)limits->velocity_max / 1000) + 1), "axis %u: step %d", a,
                    now[a] - micro[a]);
            REQUIRE(magnitude(v) <= bounds.velocity_max, "axis %u: velocity %lld", a, (long long)v);
            REQUIRE(magnitude(v - velocity[a]) <= bounds.acceleration_max, "axis %u: acceleration %lld", a,
                    (long long)(v - velocity[a]));
            REQUIRE(magnitude((v - velocity[a]) - acceleration[a]) <= bounds.jerk_max, "axis %u: jerk %lld", a,
                    (long long)((v - velocity[a]) - acceleration[a]));
        }
        acceleration[a] = v - velocity[a];
        position[a] = p;
        velocity[a] = v;
        micro[a] = now[a];
    }
    if (ran != 1u) {
        remember(core); /* a stall: what it caught up with is too much for one look, and the rest was skipped */
        return;
    }
    REQUIRE(!is_latch(state) || ((k->now_us - latched_us) <= (EW_BRAKE_MAX_US + (2 * EW_TICK_US))),
            "the drive is on %lld us after a latch", (long long)(k->now_us - latched_us));
    if (state == EW_STATE_RUN) {
        fuzz_reached++;
        REQUIRE(k->heartbeat_us != EW_NEVER_US, "in RUN without a host");
        REQUIRE((k->now_us - k->heartbeat_us) < (EW_HOST_SILENT_US + EW_TICK_US), "in RUN %lld us after the last heartbeat",
                (long long)(k->now_us - k->heartbeat_us));
        REQUIRE(core->timeline.count > 0u, "in RUN without a plan");
    }
}

void watch_boot(const known_t *known, uint32_t estop, uint32_t fault)
{
    const ew_t *core = known->core;
    REQUIRE((estop == 0u) || (core->state == EW_STATE_ESTOP), "the emergency stop was forgotten by a reset");
    REQUIRE((fault == EW_FAULT_NONE) || is_latch(core->state), "fault %u was forgotten by a reset", (unsigned)fault);
    REQUIRE((core->state == EW_STATE_DISARMED) || is_latch(core->state), "boots into state %u", core->state);
    REQUIRE(!ew_drive_enabled(core) && !core->locked, "boots with the drive on or a table locked");
    state = core->state;
    latched_us = known->now_us;
    drive_on = false;
    locked = false;
    armed_by_operator = false;
    chunk_id = 0u;
    tick_count = ew_ticks(core);
}

void watch(known_t *known, bool ticked)
{
    watch_table(known->core);
    watch_states(known);
    watch_timeline(known->core);
    if (ticked) {
        watch_motion(known);
    }
}
