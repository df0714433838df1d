/* Every state that an axis can reach in a small world, whoever plans: from rest, by every jerk that is allowed and by every tick
 * of a stop. In each of them the stop that the axis carries is executed to its end, and the limiter is asked for targets of all
 * kinds: what it makes must be one of those steps. Prints how much was tried; exit status 1 if anything was wrong. */
#include "ew_limiter.c" /* whole, for what is static in it */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLACES ((uint32_t)1 << 20) /* of the table of states; no world here has half as many */
#define TARGETS 12u                /* asked for in each state */
#ifndef TIGHT
#define TIGHT 0 /* with 1 the jerk must be smaller than allowed, which must be found wrong */
#endif

static const int32_t halves[] = {0, 1, 2, 3, 7, 20, 60}; /* sub: from the middle of a world to its ends */
static const int32_t velocities[] = {1, 2, 3, 5, 8, 13};
static const int32_t accelerations[] = {1, 2, 3, 5};
static const int32_t jerks[] = {1, 2, 3};

typedef struct {
    int8_t of[12]; /* position, velocity, acceleration, the stop, where it ends; one of them marks a place in use */
} key_t;

static key_t table[PLACES];
static uint32_t order[PLACES]; /* places in the order in which they were found */
static uint32_t found;
static uint64_t wrong;
static uint64_t states;
static uint64_t steps;
static ew_axis_limits_t world;

static void mistake(const char *what, const ew_axis_motion_t *axis)
{
    if (wrong < 10u) {
        printf("%s: position %ld, velocity %d, acceleration %d; world +-%ld, %d, %d, %d\n", what, (long)axis->position,
               axis->velocity, axis->acceleration, (long)world.position_max, world.velocity_max, world.acceleration_max,
               world.jerk_max);
    }
    wrong++;
}

static int8_t small(int64_t value)
{
    if ((value < INT8_MIN) || (value > INT8_MAX)) {
        printf("a world that is not small: %ld\n", (long)value);
        exit(2);
    }
    return (int8_t)value;
}

static key_t key_of(const ew_axis_motion_t *axis)
{
    const ew_stop_t *s = &axis->stop;
    const key_t key = {{small(axis->position), small(axis->velocity), small(axis->acceleration), small(s->side), small(s->full),
                        small(s->hold), small(s->down), small(s->peak), small(s->rest), small(s->ticks), small(axis->end), 1}};
    return key;
}

static ew_axis_motion_t axis_of(const key_t *key)
{
    const int8_t *k = key->of;
    const ew_axis_motion_t axis = {k[0], k[1], k[2], {k[3], k[4], k[5], k[6], k[7], k[8], k[9]}, k[10], false};
    return axis;
}

static void insert(const ew_axis_motion_t *axis)
{
    const key_t key = key_of(axis);
    uint32_t at = 2166136261u;
    for (size_t i = 0u; i < sizeof key.of; i++) {
        at = (at ^ (uint8_t)key.of[i]) * 16777619u;
    }
    at = (at ^ (at >> 15)) % PLACES;
    while ((table[at].of[11] != 0) && (memcmp(&table[at], &key, sizeof key) != 0)) {
        at = (at + 1u) % PLACES;
    }
    if (table[at].of[11] == 0) {
        table[at] = key;
        order[found] = at;
        found++;
        if (found > (PLACES / 2u)) {
            printf("a world that is not small\n");
            exit(2);
        }
    }
}

static bool inside(const ew_axis_motion_t *axis)
{
    return (axis->position >= world.position_min) && (axis->position <= world.position_max) &&
           (ew_magnitude(axis->velocity) <= world.velocity_max) && (ew_magnitude(axis->acceleration) <= world.acceleration_max);
}

static void judge(const ew_axis_motion_t *before, const ew_axis_motion_t *after, const char *what)
{
    const int64_t jerk = (int64_t)after->acceleration - before->acceleration;
    if (!inside(after) || after->broken || (ew_magnitude(jerk) > (world.jerk_max - TIGHT)) ||
        (after->velocity != (before->velocity + after->acceleration)) ||
        (after->position != (before->position + after->velocity))) {
        mistake(what, before);
    }
    steps++;
}

/* The stop, tick by tick, on its own: to rest where it said, when it said, inside the limits all the way. */
static void execute_stop(const ew_axis_motion_t *axis)
{
    ew_axis_motion_t now = *axis;
    for (int32_t left = axis->stop.ticks; left > 0; left--) {
        const ew_axis_motion_t before = now;
        now.acceleration = ew_stop_next(&now.stop, now.acceleration, world.jerk_max);
        now.velocity += now.acceleration;
        now.position += now.velocity;
        judge(&before, &now, "a tick of a stop");
        if (now.stop.ticks != (left - 1)) {
            mistake("ticks that are left", axis);
        }
    }
    if ((now.velocity != 0) || (now.acceleration != 0) || (now.position != axis->end) ||
        (ew_stop_next(&now.stop, 0, world.jerk_max) != 0)) {
        mistake("the end of a stop", axis);
    }
}

/* The steps that lead from a state: at most one for each jerk, and the tick of the stop. */
static uint32_t successors(const ew_axis_motion_t *axis, ew_axis_motion_t *next)
{
    uint32_t count = 1u;
    next[0] = *axis;
    ew_limiter_brake(&next[0], &world);
    judge(axis, &next[0], "a braking tick");
    for (int32_t jerk = -world.jerk_max; jerk <= world.jerk_max; jerk++) {
        const step_t step = after(axis, jerk);
        state_t state;
        if (stoppable(&step, &world, &state)) {
            next[count] = *axis;
            take(&next[count], &state, &world);
            judge(axis, &next[count], "a step that can be stopped");
            count++;
        }
    }
    return count;
}

static uint32_t seed = 1u;

static int32_t some(int32_t most)
{
    seed = (seed * 1664525u) + 1013904223u;
    return (int32_t)((seed >> 8) % ((2u * (uint32_t)most) + 1u)) - most;
}

/* What the limiter makes of a target is one of the steps that lead from here. */
static void ask(const ew_axis_motion_t *axis, const ew_axis_motion_t *next, uint32_t count)
{
    for (uint32_t i = 0u; i < TARGETS; i++) {
        const ew_target_t target = {
            some((int32_t)world.position_max + 3), some(world.velocity_max + 1), some(world.acceleration_max + 1),
            some(world.jerk_max + 1), some((int32_t)world.position_max + 1), ((i % 2u) == 0u) ? INT32_MAX : (some(10) + 10)};
        ew_axis_motion_t made = *axis;
        ew_limiter_follow(&made, &target, &world);
        judge(axis, &made, "a step towards a target");
        const key_t key = key_of(&made);
        bool known = false;
        for (uint32_t k = 0u; k < count; k++) {
            const key_t other = key_of(&next[k]);
            known = known || (memcmp(&key, &other, sizeof key) == 0);
        }
        if (!known) {
            mistake("a step that is none of them", axis);
        }
    }
}

static void explore(void)
{
    memset(table, 0, sizeof table);
    found = 0u;
    for (int64_t position = world.position_min; position <= world.position_max; position++) {
        ew_axis_motion_t axis;
        ew_limiter_rest(&axis, position);
        insert(&axis);
    }
    for (uint32_t i = 0u; (i < found) && (wrong == 0u); i++) {
        const ew_axis_motion_t axis = axis_of(&table[order[i]]);
        ew_axis_motion_t next[16];
        execute_stop(&axis);
        const uint32_t count = successors(&axis, next);
        ask(&axis, next, count);
        for (uint32_t k = 0u; (k < count) && (wrong == 0u); k++) {
            insert(&next[k]);
        }
    }
    states += found;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

int main(void)
{
    uint32_t worlds = 0u;
    for (size_t h = 0u; h < COUNT(halves); h++) {
        for (size_t v = 0u; v < COUNT(velocities); v++) {
            for (size_t a = 0u; a < COUNT(accelerations); a++) {
                for (size_t j = 0u; j < COUNT(jerks); j++) {
                    world.position_min = -halves[h];
                    world.position_max = halves[h];
                    world.velocity_max = velocities[v];
                    world.jerk_max = jerks[j];
                    world.acceleration_max = ew_limiter_useful_acceleration(velocities[v], accelerations[a], jerks[j]);
                    if ((world.acceleration_max == accelerations[a]) || (a == (COUNT(accelerations) - 1u))) {
                        explore(); /* a limit that is not useful is another world */
                        worlds++;
                    }
                }
            }
        }
    }
    printf("%lu states, %lu steps, %u worlds, %lu wrong\n", (unsigned long)states, (unsigned long)steps, worlds,
           (unsigned long)wrong);
    return (wrong == 0u) ? 0 : 1;
}
