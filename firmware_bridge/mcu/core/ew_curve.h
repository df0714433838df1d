/* The curve between two knots: a cubic in the segment's own time, in integers fine enough that its third difference from tick to
 * tick is noise of a few sub, far below any jerk limit.
 *
 * Positions are sub; slopes are sub per 2^24 us; cubics have 8 more bits. Times are int64 us of the MCU clock. */
#ifndef EW_CURVE_H
#define EW_CURVE_H
#include "ew_limiter.h"
#include "ew_protocol.h"

/* Places on this build's timeline; HELLO.max_knots tells the host. A board with little RAM has fewer than the protocol allows. */
#ifndef EW_TIMELINE_KNOTS
#define EW_TIMELINE_KNOTS EW_MAX_KNOTS
#endif

#define EW_SLOPE_US INT64_C(0x1000000) /* slopes are per this time, 2^24 us */

/* The kind of curve from a knot to the next one. */
enum {
    EW_SHAPE_MONOTONE = 0, /* slopes that the MCU chose: between the positions of its two knots */
    EW_SHAPE_FREE,         /* slopes that were given: by the host, or by the motion of the arm at a splice */
    EW_SHAPE_STRAIGHT      /* linear: slopes do not count */
};

typedef struct {
    int64_t at_us;
    int64_t position[EW_MAX_AXES]; /* sub */
    int64_t slope[EW_MAX_AXES];    /* sub per 2^24 us, |.| < 2^46 */
    uint8_t shape;                 /* from here to the next knot */
} ew_knot_t;

/* A time within the segment from knot a to knot b. */
typedef struct {
    const ew_knot_t *a;
    const ew_knot_t *b;
    uint32_t at;   /* part of the segment that is over, in 2^-32 */
    uint32_t tick; /* part of the segment that one tick is, in 2^-32; 0: the segment is not longer than a tick */
    bool whole;    /* it is all over */
} ew_place_t;

ew_place_t ew_curve_place(const ew_knot_t *a, const ew_knot_t *b, int64_t now_us);

/* Sub. */
int64_t ew_curve_position(const ew_place_t *place, uint8_t axis);

/* Sub per 2^24 us. */
int64_t ew_curve_slope(const ew_place_t *place, uint8_t axis);

/* Fills in position, and by how much the steps of the next ticks will differ if the segment goes on. */
void ew_curve_target(const ew_place_t *place, uint8_t axis, ew_target_t *target);

/* (way / time_us) as a slope; way in sub, |.| < 2^42. */
int64_t ew_curve_secant(int64_t way, int64_t time_us);

#endif
