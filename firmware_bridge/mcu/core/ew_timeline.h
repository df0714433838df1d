/* The plan: timed knots for all axes, and a splice that keeps position and velocity. Between knots: ew_curve.h.
 *
 * Times are int64 us of the MCU clock. */
#ifndef EW_TIMELINE_H
#define EW_TIMELINE_H
#include "ew_curve.h"

typedef struct {
    ew_knot_t knots[EW_TIMELINE_KNOTS]; /* a ring, so that a splice moves none of them */
    uint8_t first; /* the current segment starts at knots[first]; in use are count from there */
    uint8_t count;
    uint8_t axes;
} ew_timeline_t;

/* Samples of two bytes that one CHUNK can hold. */
#define EW_PLAN_SAMPLES ((EW_MAX_BODY_BYTES - EW_HEADER_BYTES - EW_CRC_BYTES - EW_CHUNK_HEADER_BYTES) / 2u)

/* A decoded chunk: n knots at t0_us + k * dt_us, positions in micro-units, knot by knot, axis by axis; with
 * HERMITE_VELOCITY as many velocities in micro-units/s follow. What fits one frame fits here. The slopes at the knots are
 * worked out knot by knot before the splice (ew_plan_slopes), but for that of the first one that is used. */
typedef struct {
    int64_t t0_us;
    int64_t dt_us;
    int64_t blend_us;
    uint8_t n;
    uint8_t interpolation; /* ChunkInterpolation */
    int32_t sample[EW_PLAN_SAMPLES];
    int64_t slope[EW_PLAN_SAMPLES];  /* sub per 2^24 us */
    int64_t secant[EW_MAX_AXES];     /* from the knot before to the one that is next, likewise */
} ew_plan_t;

/* Where the axes are commanded to be, at the last tick. */
typedef struct {
    int64_t at_us;
    const ew_axis_motion_t *axis;
} ew_anchor_t;

void ew_timeline_clear(ew_timeline_t *timeline, uint8_t axes);

/* Time of the last knot; only when count > 0. */
int64_t ew_timeline_end_us(const ew_timeline_t *timeline);

/* Where the plan ends, in sub; only when count > 0. */
int64_t ew_timeline_last(const ew_timeline_t *timeline, uint8_t axis);

/* Forgets knots that no time from `now_us` on needs. */
void ew_timeline_advance(ew_timeline_t *timeline, int64_t now_us);

/* The plan at `now_us`: position in sub. False when it has run dry: then the positions are those of the last knot.
 * Never call it on an empty timeline. */
bool ew_timeline_sample(const ew_timeline_t *timeline, int64_t now_us, int64_t *position);

/* The plan at the tick at `now_us` as the limiter wants it, per axis. False when it has run dry; then nothing is written. */
bool ew_timeline_targets(const ew_timeline_t *timeline, int64_t now_us, ew_target_t *target);

/* The slopes of knot k of all axes; for k = 0, 1, .. n - 1 in this order. */
void ew_plan_slopes(ew_plan_t *plan, uint8_t axes, uint8_t k);

/* Splices a plan whose slopes are known, or refuses and changes nothing. Returns an AckCode; *arg as the code says. jump_max in micro-units per axis. */
uint8_t ew_timeline_splice(ew_timeline_t *timeline, const ew_plan_t *plan, const ew_anchor_t *anchor, int64_t now_us,
                           const uint32_t *jump_max, int32_t *arg);

#endif
