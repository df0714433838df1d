/* Random hosts against the core, built with the address and undefined-behaviour sanitizers: fuzz_core SEED ROUNDS.
 *
 * Each round takes a random limit table of the whole admissible range, arms, and then mixes valid, extreme, mangled and late
 * chunks with commands, silence, stalls and noise. After every tick the commanded positions must be within the limits that the
 * table states, seen from outside: position, velocity, and acceleration, each with the 1 micro-unit of its own rounding. */
#include "ew_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;
static ew_t core;
static ew_noinit_t noinit;
static uint16_t seq;
static uint64_t now_us;
static uint8_t axes;
static ew_limits_t table[EW_MAX_AXES];
static uint32_t crc;
static int64_t last[EW_MAX_AXES];
static int64_t last_step[EW_MAX_AXES];
static unsigned history;

static uint64_t random64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int64_t between(int64_t low, int64_t high)
{
    return low + (int64_t)(random64() % (uint64_t)(high - low + 1));
}

/* Log-uniform: small limits are as likely as large ones. */
static uint32_t scale(uint32_t low, uint32_t high)
{
    uint64_t value = low;
    while ((value < high) && (between(0, 9) != 0)) {
        value = (value * (uint64_t)between(10, 40)) / 10u;
    }
    return (value > high) ? high : (uint32_t)value;
}

/* As many slices as a turn of the main loop may find time for. */
static void work(void)
{
    for (int64_t left = between(0, 40); (left > 0) && ew_work(&core, now_us); left--) {
    }
}

static void send(uint8_t type, const uint8_t *payload, size_t count)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    uint8_t wire[EW_MAX_ENCODED_BYTES + 1];
    ew_put_u8(&body[0], type);
    ew_put_u8(&body[1], (between(0, 60) == 0) ? (uint8_t)random64() : core.epoch);
    ew_put_u16(&body[2], ++seq);
    ew_put_u16(&body[4], core.session);
    memcpy(&body[6], payload, count);
    const size_t sealed = ew_frame_seal(body, 6u + count, wire);
    if (between(0, 60) == 0) {
        wire[between(0, (int64_t)sealed - 1)] ^= (uint8_t)between(1, 255);
    }
    ew_rx(&core, wire, sealed, now_us, now_us);
    work();
}

static void heartbeat(uint8_t degrade)
{
    uint8_t p[18] = {0};
    ew_put_u64(&p[0], now_us);
    ew_put_u32(&p[8], (uint32_t)random64());
    p[16] = degrade;
    p[17] = 1u;
    send(EW_MSG_HEARTBEAT, p, sizeof p);
}

static void encoder(void)
{
    int32_t position[EW_MAX_AXES];
    int32_t effort[EW_MAX_AXES] = {0};
    for (uint8_t a = 0u; a < axes; a++) {
        position[a] = (int32_t)last[a];
    }
    ew_drive_encoder(&core, position, effort, axes, now_us);
}

static void configure(void)
{
    axes = (uint8_t)between(1, EW_MAX_AXES);
    crc = 0u;
    for (uint8_t a = 0u; a < axes; a++) {
        uint8_t p[EW_MAX_BODY_BYTES];
        ew_limits_t *m = &table[a];
        m->axis = a;
        m->position_min = (int32_t)between(-EW_POSITION_ABS_MAX, EW_POSITION_ABS_MAX - 1);
        m->position_max = (int32_t)between(m->position_min + 1, EW_POSITION_ABS_MAX);
        m->velocity_max = scale(EW_ACCELERATION_MIN, EW_VELOCITY_MAX_MAX);
        m->acceleration_max = scale(EW_ACCELERATION_MIN, EW_ACCELERATION_MAX_MAX);
        m->following_error_max = 2u * EW_POSITION_ABS_MAX;
        m->jump_max = 2u * EW_POSITION_ABS_MAX;
        m->lsb = (uint32_t)between(1, EW_LSB_MAX);
        m->jerk_max = scale(EW_JERK_MIN, EW_JERK_MAX_MAX);
        m->effort_max = 0u;
        m->move_max = 2u * EW_POSITION_ABS_MAX;
        m->window_max = 2u * EW_POSITION_ABS_MAX;
        m->velocity_lsb = (uint32_t)between(1, EW_LSB_MAX);
        m->kind = EW_AXIS_KIND_REVOLUTE;
        last[a] = between(m->position_min, m->position_max);
        last_step[a] = 0;
        const size_t count = ew_pack_limits(m, p);
        crc = ew_crc32c(p, count, crc);
        ew_limits_set_t check;
        if (!ew_unpack_limits_set(p, count, &check)) {
            abort();
        }
        send(EW_MSG_LIMITS_SET, p, count);
    }
    for (uint8_t a = 0u; a < axes; a++) {
        uint8_t p[EW_MAX_BODY_BYTES];
        const ew_drive_t drive = {.axis = a, .kind = EW_DRIVE_KIND_SIM, .ratio_num = 1, .ratio_den = 1};
        crc = ew_crc32c(p, ew_pack_drive(&drive, p), crc);
    }
    uint8_t p[8] = {0};
    crc = ew_crc32c(p, 8u, crc); /* no second stage of a stop */
    p[0] = axes;
    ew_put_u32(&p[1], crc);
    send(EW_MSG_LIMITS_COMMIT, p, 5u);
    heartbeat(0u);
    encoder();
    ew_put_u32(&p[0], crc);
    ew_put_u32(&p[4], EW_SCHEMA_HASH);
    send(EW_MSG_ARM, p, 8u);
    history = 0u;
}

static void chunk(uint32_t id)
{
    uint8_t p[EW_MAX_BODY_BYTES];
    const bool small = between(0, 1) == 0;
    const uint8_t kind = (uint8_t)between(0, EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY);
    const bool fast = kind == EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY;
    const int64_t most = (EW_MAX_BODY_BYTES - 26) / (axes * (small ? 2 : 4) * (fast ? 2 : 1));
    const uint8_t n = (uint8_t)between(1, (most < EW_MAX_KNOTS) ? most : EW_MAX_KNOTS);
    const uint16_t dt = (uint16_t)((between(0, 3) == 0) ? between(100, 65535) : between(100, 8000));
    ew_put_u32(&p[0], id);
    ew_put_u32(&p[4], (uint32_t)(now_us + (uint64_t)between(-60000, (between(0, 3) == 0) ? 9000000 : 200000)));
    ew_put_u16(&p[8], dt);
    p[10] = n;
    p[11] = axes;
    p[12] = small ? 1u : 0u;
    p[13] = 0u;
    p[14] = (uint8_t)between(0, 255);
    p[15] = kind;
    size_t at = 16u;
    int64_t q[EW_MAX_AXES];
    for (uint8_t a = 0u; a < axes; a++) {
        q[a] = (between(0, 4) == 0) ? between(table[a].position_min, table[a].position_max) : last[a];
    }
    for (uint8_t k = 0u; k < n; k++) {
        for (uint8_t a = 0u; a < axes; a++) {
            const int64_t reach = ((int64_t)table[a].velocity_max * dt) / 100000;
            int64_t next = q[a] + between(-reach, reach);
            if (next < table[a].position_min) {
                next = table[a].position_min;
            }
            if (next > table[a].position_max) {
                next = table[a].position_max;
            }
            q[a] = next;
            if (small) {
                int64_t lsbs = next / (int64_t)table[a].lsb;
                lsbs = (lsbs > 32767) ? 32767 : ((lsbs < -32768) ? -32768 : lsbs);
                ew_put_u16(&p[at], (uint16_t)(int16_t)lsbs);
                at += 2u;
            } else {
                ew_put_i32(&p[at], (between(0, 300) == 0) ? (int32_t)random64() : (int32_t)next);
                at += 4u;
            }
        }
    }
    for (size_t i = 0u; fast && (i < ((size_t)n * axes)); i++) {
        const ew_limits_t *m = &table[i % axes];
        const int64_t reach = between(0, (int64_t)m->velocity_max);
        const int64_t v = (between(0, 300) == 0) ? (int32_t)random64() : between(-reach, reach);
        if (small) {
            ew_put_u16(&p[at], (uint16_t)(int16_t)(v / (int64_t)m->velocity_lsb));
            at += 2u;
        } else {
            ew_put_i32(&p[at], (int32_t)v);
            at += 4u;
        }
    }
    send(EW_MSG_CHUNK, p, at);
}

static void check(void)
{
    int32_t q[EW_MAX_AXES];
    if (!ew_drive_enabled(&core) || (core.axes != axes)) {
        history = 0u;
        return;
    }
    (void)ew_drive_setpoint(&core, q, EW_MAX_AXES);
    for (uint8_t a = 0u; a < axes; a++) {
        const int64_t step = q[a] - last[a];
        const int64_t change = step - last_step[a];
        const bool inside = (q[a] >= table[a].position_min) && (q[a] <= table[a].position_max);
        const bool slow = llabs(step) <= ((int64_t)table[a].velocity_max / 1000) + 1;
        const bool soft = llabs(change) <= ((int64_t)table[a].acceleration_max / 1000000) + 2;
        if (!inside || ((history > 0u) && !slow) || ((history > 1u) && !soft)) {
            fprintf(stderr, "axis %u: q %d step %lld change %lld beyond its limits\n", a, q[a], (long long)step, (long long)change);
            abort();
        }
        last_step[a] = step;
        last[a] = q[a];
    }
    history++;
}

static void tick(void)
{
    uint8_t out[4096];
    now_us += 1000u;
    if ((now_us / 1000u) % 5u == 0u) {
        encoder();
    }
    ew_tick(&core, now_us);
    work();
    (void)ew_tx(&core, out, sizeof out);
    (void)ew_drive_tx(&core, out, sizeof out);
    check();
}

static void noise(void)
{
    uint8_t bytes[900];
    const size_t count = (size_t)between(1, sizeof bytes);
    for (size_t i = 0u; i < count; i++) {
        bytes[i] = (uint8_t)random64();
    }
    if (between(0, 1) == 0) {
        ew_rx(&core, bytes, count, now_us, now_us);
    } else {
        ew_drive_rx(&core, bytes, count, now_us);
    }
}

static void random_command(void)
{
    uint8_t p[64];
    for (size_t i = 0u; i < sizeof p; i++) {
        p[i] = (uint8_t)random64();
    }
    send((uint8_t)between(1, 16), p, (size_t)between(0, sizeof p));
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    state = (strtoull(argv[1], NULL, 10) * 2u) + 1u;
    const long rounds = strtol(argv[2], NULL, 10);
    const ew_port_info_t port = {.entropy = 1u,
                                 .build_id = 1u,
                                 .tick_gap_max_us = EW_TICK_GAP_MAX_US,
                                 .encoder_timeout_us = EW_ENCODER_TIMEOUT_US,
                                 .clock_error_max_us = EW_CLOCK_ERROR_MAX_US,
                                 .version = EW_VERSION,
                                 .drive_buses = 6u};
    unsigned long moved = 0u;
    for (long round = 0; round < rounds; round++) {
        now_us = random64() % ((uint64_t)1 << 34);
        memset(&noinit, 0, sizeof noinit);
        ew_init(&core, &port, &noinit, now_us);
        configure();
        for (uint32_t turn = 1u; turn < 40u; turn++) {
            const int64_t what = between(0, 99);
            if (what < 60) {
                chunk(turn);
            } else if (what < 63) {
                noise();
            } else if (what < 64) {
                random_command();
            } else if (what < 65) {
                heartbeat((uint8_t)between(0, 5));
            } else {
                /* nothing new this time */
            }
            for (int64_t ticks = between(0, 60); ticks > 0; ticks--) {
                if ((between(0, 20) == 0) && (turn < 35u)) {
                    heartbeat(0u);
                }
                tick();
                moved += (core.state == EW_STATE_RUN) ? 1u : 0u;
            }
        }
        if (core.noinit->fault == EW_FAULT_LIMITER_CHECK) {
            fprintf(stderr, "the core found its own limiter wrong\n");
            abort();
        }
    }
    printf("%lu ticks in RUN\n", moved);
    return 0;
}
