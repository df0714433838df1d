#include "ew_stop.h"

/* 64 by 32 bit, by the processor's own 32-bit divider wherever the dividend fits it. Nothing here is negative. */
static int64_t quotient(int64_t dividend, int64_t divisor)
{
    if (((uint64_t)dividend >> 32) == 0u) {
        return (int64_t)((uint32_t)dividend / (uint32_t)divisor);
    }
    return (int64_t)((uint64_t)dividend / (uint64_t)divisor);
}

/* 1 + 2 + .. + n */
static int64_t triangle(int64_t n)
{
    return (n * (n + 1)) / 2;
}

/* Way in n ticks from velocity v when the acceleration begins at a and loses j per tick: the sum over k = 1..n of
 * v + k a - j k (k + 1) / 2. */
static int64_t falling_way(int64_t v, int64_t a, int64_t j, int64_t n)
{
    return ((n * v) + (a * triangle(n))) - (j * ((triangle(n) * (n + 2)) / 3));
}

/* Velocity that is lost on the way from magnitude m to zero in steps of j, of which q fit whole: (m - j) + (m - 2j) + .. */
static int64_t ramp_loss(int64_t m, int64_t j, int64_t q)
{
    return (q * m) - (j * triangle(q));
}

/* The largest k in 0..most with j k^2 + 2 f k <= x. */
static int64_t steps_within(int64_t x, int64_t f, int64_t j, int64_t most)
{
    int64_t low = 0;
    int64_t high = most;
    while (low < high) {
        const int64_t k = (low + high + 1) / 2;
        /* j k is a change of acceleration, below 2^25; times k below 2^44. */
        if ((((j * k) + (2 * f)) * k) <= x) {
            low = k;
        } else {
            high = k - 1;
        }
    }
    return low;
}

/* How far an axis with velocity v < 0 goes back before the acceleration a > 0, which falls by j, has turned it round. */
static int64_t dip_of(int64_t v, int64_t a, int64_t j, int64_t most)
{
    int64_t low = 0;
    int64_t high = most;
    while (low < high) {
        const int64_t k = (low + high + 1) / 2;
        if ((v + (k * a) - (j * triangle(k))) < 0) {
            low = k;
        } else {
            high = k - 1;
        }
    }
    return falling_way(v, a, j, low);
}

/* How hard and how long: the peak is as high as velocity and limit allow, `spare` is the velocity that is left when the ramp
 * goes down from magnitude m at once. */
static void plan_peak(ew_stop_t *stop, int64_t m, int64_t spare, int64_t a_max, int64_t j)
{
    stop->peak = (int32_t)m;
    stop->rest = (int32_t)spare;
    stop->hold = 0;
    if ((spare >= m) && (spare > 0)) {
        const int64_t q = quotient(m, j);
        const int64_t to_next = j - (m - (q * j)); /* where one more whole step fits into the ramp */
        const int64_t over = spare - m;
        int64_t more = quotient(over, q + 1);
        if (more >= to_next) {
            more = quotient(over + to_next, q + 2);
        }
        if (more > (a_max - m)) {
            more = (a_max > m) ? (a_max - m) : 0;
        }
        const int64_t used = (q * more) + ((more >= to_next) ? (more - to_next) : 0);
        const int64_t left = over - more - used;
        const int64_t peak = m + more;
        const int64_t longer = quotient(left, peak);
        stop->peak = (int32_t)peak;
        stop->hold = (int32_t)(1 + longer);
        stop->rest = (int32_t)(left - (longer * peak));
    }
}

/* Way of the part after the whole jerks, which begins with velocity v; counts its ticks and places the tick of rest. */
static int64_t plan_end(ew_stop_t *stop, int64_t v, int64_t j)
{
    const int64_t peak = stop->peak;
    const int64_t q = quotient(peak, j);
    int64_t way = ((int64_t)stop->hold * v) - (peak * triangle(stop->hold));
    way += (peak * triangle(q - 1)) - (j * ((2 * (triangle(q - 1) * (q + 1))) / 3));
    stop->down = 0;
    stop->ticks = stop->full + stop->hold + (int32_t)q + (((q * j) < peak) ? 1 : 0);
    if (stop->rest > 0) {
        const int64_t u = quotient(peak - stop->rest, j);
        stop->down = (int32_t)u;
        stop->ticks++;
        way += ((int64_t)stop->rest * u) + ramp_loss(peak - (u * j), j, q - u);
    }
    return way;
}

void ew_stop_plan(int32_t velocity, int32_t acceleration, int32_t acceleration_max, int32_t jerk_max, ew_stop_t *stop,
                  ew_stop_path_t *path)
{
    const int64_t j = jerk_max;
    int64_t v = velocity;
    int64_t a = acceleration;
    const int64_t whole = quotient((a < 0) ? -a : a, j);
    const int64_t loss = ramp_loss((a < 0) ? -a : a, j, whole);
    path->turn = (a > 0) ? (v + loss) : (v - loss);
    const bool mirrored = path->turn < 0;
    const int64_t turn = mirrored ? -path->turn : path->turn;
    v = mirrored ? -v : v;
    a = mirrored ? -a : a;
    stop->side = mirrored ? -1 : 1;

    /* Whole jerks until the acceleration is no longer positive: then it is -f, with 0 <= f. */
    int64_t f = -a;
    int64_t full = 0;
    if (a > 0) {
        full = ((whole * j) < a) ? (whole + 1) : whole;
        f = (full * j) - a;
    }
    if ((a > 0) && ((turn < f) || (f > acceleration_max))) { /* the last of them would already be too much */
        full--;
        plan_peak(stop, 0, turn, acceleration_max, j);
        stop->hold = (turn == 0) ? 1 : stop->hold; /* one tick at zero: the step down to it is smaller than a jerk */
    } else {
        const int64_t x = (a > 0) ? (turn - f) : turn;
        const int64_t most = (acceleration_max > f) ? quotient(acceleration_max - f, j) : 0;
        const int64_t k = steps_within(x, f, j, most);
        full += k;
        plan_peak(stop, f + (k * j), x - (((j * k) + (2 * f)) * k), acceleration_max, j);
    }
    stop->full = (int32_t)full;
    int64_t way = falling_way(v, a, j, full);
    way += plan_end(stop, v + (a * full) - (j * triangle(full)), j);
    const int64_t dip = (v < 0) ? dip_of(v, a, j, whole) : 0;
    const int64_t top = (way > 0) ? way : 0;
    path->end = mirrored ? -way : way;
    path->low = mirrored ? -top : dip;
    path->high = mirrored ? -dip : top;
}

int32_t ew_stop_next(ew_stop_t *stop, int32_t acceleration, int32_t jerk_max)
{
    int32_t next;
    if (stop->full > 0) {
        stop->full--;
        next = acceleration - (stop->side * jerk_max);
    } else if (stop->hold > 0) {
        stop->hold--;
        next = -stop->side * stop->peak;
    } else if (stop->down > 0) {
        stop->down--;
        stop->peak -= jerk_max;
        next = -stop->side * stop->peak;
    } else if (stop->rest > 0) {
        next = -stop->side * stop->rest;
        stop->rest = 0;
    } else {
        stop->peak = (stop->peak > jerk_max) ? (stop->peak - jerk_max) : 0;
        next = -stop->side * stop->peak;
    }
    stop->ticks -= (stop->ticks > 0) ? 1 : 0;
    return next;
}
