#include "ew_stop.h"

/* Magnitudes are kept in 32 bits: the processor multiplies them to 64 in one instruction and divides them in a few cycles.
 * Velocities, also those that a ramp takes away, are below 2^32, numbers of jerks below 46000. */

static uint64_t product(uint32_t a, uint32_t b)
{
    return (uint64_t)a * b;
}

/* 1 + 2 + .. + n, n < 46000 */
static uint32_t triangle(uint32_t n)
{
    return (n * (n + 1u)) / 2u;
}

/* triangle(1) + triangle(2) + .. + triangle(n) = n (n + 1) (n + 2) / 6 */
static uint64_t pyramid(uint32_t n)
{
    const uint32_t t = triangle(n);
    return ((n % 3u) == 1u) ? product(t, (n + 2u) / 3u) : product(t / 3u, n + 2u);
}

/* Way in n ticks from velocity v when the acceleration begins at a and loses j per tick: the sum over k = 1..n of
 * v + k a - j k (k + 1) / 2. */
static int64_t falling_way(int32_t v, int32_t a, uint32_t j, uint32_t n)
{
    const uint64_t lost = pyramid(n) * j;
    return (((int64_t)v * (int32_t)n) + ((int64_t)a * (int32_t)triangle(n))) - (int64_t)lost;
}

/* Velocity after these n ticks. */
static int64_t falling_velocity(int32_t v, int32_t a, uint32_t j, uint32_t n)
{
    return ((int64_t)v + ((int64_t)a * (int32_t)n)) - (int64_t)product(j, triangle(n));
}

/* Velocity that is lost on the way from magnitude m to zero in steps of j, of which q fit whole: (m - j) + (m - 2j) + .. */
static uint64_t ramp_loss(uint32_t m, uint32_t j, uint32_t q)
{
    return product(q, m) - product(j, triangle(q));
}

/* The largest k in 0..most with j k^2 + 2 f k <= x; most whole jerks fit into an acceleration. */
static uint32_t steps_within(uint32_t x, uint32_t f, uint32_t j, uint32_t most)
{
    uint32_t low = 0u;
    uint32_t high = most;
    uint32_t k = most; /* where the peak is the limit, the first guess is the answer */
    while (low < high) {
        if (product((j * k) + (2u * f), k) <= x) {
            low = k;
        } else {
            high = k - 1u;
        }
        k = (low + high + 1u) / 2u;
    }
    return low;
}

/* How far an axis with velocity v < 0 goes back before the acceleration a > 0, which falls by j, has turned it round. */
static int64_t dip_of(int32_t v, int32_t a, uint32_t j, uint32_t most)
{
    uint32_t low = 0u;
    uint32_t high = most;
    while (low < high) {
        const uint32_t k = (low + high + 1u) / 2u;
        if (falling_velocity(v, a, j, k) < 0) {
            low = k;
        } else {
            high = k - 1u;
        }
    }
    return falling_way(v, a, j, low);
}

/* How hard and how long: the peak is as high as velocity and limit allow; `spare` is the velocity that is left when the ramp
 * goes down from magnitude m at once. */
static void plan_peak(ew_stop_t *stop, uint32_t m, uint32_t spare, uint32_t a_max, uint32_t j)
{
    uint32_t peak = m;
    uint32_t hold = 0u;
    uint32_t rest = spare;
    if ((spare >= m) && (spare > 0u)) {
        const uint32_t q = m / j;
        const uint32_t to_next = j - (m - (q * j)); /* where one more whole step fits into the ramp */
        const uint32_t over = spare - m;
        uint32_t more = over / (q + 1u);
        if (more >= to_next) {
            more = (over + to_next) / (q + 2u);
        }
        const uint32_t room = (a_max > m) ? (a_max - m) : 0u;
        more = (more > room) ? room : more;
        const uint32_t used = (q * more) + ((more >= to_next) ? (more - to_next) : 0u);
        const uint32_t left = over - more - used;
        peak = m + more;
        hold = left / peak;
        rest = left - (hold * peak);
        hold++;
    }
    stop->peak = (int32_t)peak;
    stop->hold = (int32_t)hold;
    stop->rest = (int32_t)rest;
}

/* Way of the part after the whole jerks, which begins with velocity v; counts its ticks and places the tick of rest. */
static int64_t plan_end(ew_stop_t *stop, uint32_t v, uint32_t j)
{
    const uint32_t peak = (uint32_t)stop->peak;
    const uint32_t hold = (uint32_t)stop->hold;
    const uint32_t rest = (uint32_t)stop->rest;
    const uint32_t q = peak / j;
    const uint32_t inner = (q > 0u) ? (q - 1u) : 0u;
    /* The velocity that the hold takes away is part of v, so their product fits. */
    uint64_t way = product(hold, v) - (product(peak * hold, hold + 1u) / 2u);
    way += product(peak, triangle(inner)) - (2u * (pyramid(inner) * j));
    const uint32_t ticks = hold + q + (((q * j) < peak) ? 1u : 0u);
    stop->down = 0;
    stop->ticks = stop->full + (int32_t)ticks;
    if (rest > 0u) {
        const uint32_t u = (peak - rest) / j;
        stop->down = (int32_t)u;
        stop->ticks++;
        way += product(rest, u) + ramp_loss(peak - (u * j), j, q - u);
    }
    return (int64_t)way;
}

void ew_stop_plan(int32_t velocity, int32_t acceleration, int32_t acceleration_max, int32_t jerk_max, ew_stop_t *stop,
                  ew_stop_path_t *path)
{
    const uint32_t j = (uint32_t)jerk_max;
    const uint32_t a_max = (uint32_t)acceleration_max;
    const uint32_t strength = (uint32_t)((acceleration < 0) ? -acceleration : acceleration);
    const uint32_t whole = strength / j;
    const int64_t loss = (int64_t)ramp_loss(strength, j, whole);
    path->turn = (acceleration > 0) ? (velocity + loss) : (velocity - loss);
    const bool mirrored = path->turn < 0;
    const uint32_t turn = (uint32_t)(mirrored ? -path->turn : path->turn);
    const int32_t v = mirrored ? -velocity : velocity;
    const int32_t a = mirrored ? -acceleration : acceleration;
    stop->side = mirrored ? -1 : 1;

    /* Whole jerks until the acceleration is no longer positive: then it is -f, with 0 <= f. */
    uint32_t f = strength;
    uint32_t full = 0u;
    if (a > 0) {
        full = ((whole * j) < strength) ? (whole + 1u) : whole;
        f = (full * j) - strength;
    }
    if ((a > 0) && ((turn < f) || (f > a_max))) { /* the last of them would already be too much */
        full--;
        plan_peak(stop, 0u, turn, a_max, j);
        stop->hold = (turn == 0u) ? 1 : stop->hold; /* one tick at zero: the step down to it is smaller than a jerk */
    } else {
        const uint32_t x = (a > 0) ? (turn - f) : turn;
        const uint32_t k = steps_within(x, f, j, (a_max > f) ? ((a_max - f) / j) : 0u);
        full += k;
        plan_peak(stop, f + (k * j), x - (((j * k) + (2u * f)) * k), a_max, j);
    }
    stop->full = (int32_t)full;
    const int64_t way = falling_way(v, a, j, full) + plan_end(stop, (uint32_t)falling_velocity(v, a, j, full), j);
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
