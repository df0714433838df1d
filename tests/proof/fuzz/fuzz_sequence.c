/* libFuzzer: whole command sequences. Every input is a program: an operation a byte, its arguments in the bytes behind. The
 * frames that it sends have the right checksum, session and sequence number unless the operation says otherwise, so that
 * programs get far; watch.c looks at the core after every frame and every tick. */
#include "watch.h"

#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#define TICKS_MAX 1500u /* of one program: 1.5 s of a robot's time */

static ew_t core;
static ew_noinit_t noinit;
static known_t known;
static const uint8_t *at;
static const uint8_t *end;
static int64_t now_us;
static uint16_t seq;
static uint32_t policy;
static uint32_t next_chunk;
static bool beating;   /* a heartbeat every 20 ms */
static bool following; /* the encoder repeats the setpoint every 5 ms */
static unsigned ticks;
static uint8_t axes;
static uint32_t crc;
static ew_limits_t table[EW_MAX_AXES];
static uint8_t stale_epoch; /* 0: the commands are made for the configuration of now */
static uint8_t kept[EW_MAX_ENCODED_BYTES + 1];
static size_t kept_count;

static uint8_t byte(void)
{
    uint8_t value = 0u;
    if (at < end) {
        value = *at;
        at++;
    }
    return value;
}

static uint32_t word(void)
{
    const uint32_t low = byte();
    return low | ((uint32_t)byte() << 8);
}

/* What the observer has to know of a frame that the core is about to take. */
static void note(const uint8_t *body, size_t count)
{
    const uint8_t type = body[0];
    known.estop_sent = known.estop_sent || (type == EW_MSG_ESTOP);
    if (ew_get_u16(&body[4]) != core.session) {
        return;
    }
    known.arm_sent = known.arm_sent || (type == EW_MSG_ARM);
    known.commit_sent = known.commit_sent || (type == EW_MSG_LIMITS_COMMIT);
    known.clear_sent = known.clear_sent || (type == EW_MSG_ESTOP_CLEAR) || (type == EW_MSG_FAULT_ACK);
    ew_heartbeat_t m;
    if ((type == EW_MSG_HEARTBEAT) && ew_unpack_heartbeat(&body[EW_HEADER_BYTES], count - EW_HEADER_BYTES, &m)) {
        known.heartbeat_us = now_us;
    }
}

static void deliver(const uint8_t *bytes, size_t count)
{
    /* A second receiver says which frames are whole, so that damaged and half frames are judged right too. */
    static ew_receiver_t ear;
    ear = core.link_rx;
    for (size_t i = 0u; i < count; i++) {
        const size_t body = ew_receiver_push(&ear, bytes[i]);
        if (body >= EW_HEADER_BYTES) {
            note(ear.bytes, body);
        }
        ew_rx(&core, &bytes[i], 1u, (uint64_t)now_us, (uint64_t)now_us);
        if (body > 0u) {
            watch(&known, false);
        }
    }
}

static void send_as(uint16_t session, uint8_t type, const uint8_t *payload, size_t count)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    seq++;
    ew_put_u8(&body[0], type);
    ew_put_u8(&body[1], (uint8_t)(core.epoch + stale_epoch));
    ew_put_u16(&body[2], seq);
    ew_put_u16(&body[4], session);
    for (size_t i = 0u; i < count; i++) {
        body[EW_HEADER_BYTES + i] = payload[i];
    }
    kept_count = ew_frame_seal(body, EW_HEADER_BYTES + count, kept);
    deliver(kept, kept_count);
}

static void send(uint8_t type, const uint8_t *payload, size_t count)
{
    send_as(core.session, type, payload, count);
}

static void heartbeat(uint8_t degrade, uint8_t flags, int64_t age_us)
{
    uint8_t p[18] = {0};
    ew_put_u64(&p[0], (uint64_t)(now_us - age_us));
    ew_put_u32(&p[8], policy);
    ew_put_u32(&p[12], 100u);
    p[16] = degrade;
    p[17] = flags;
    send(EW_MSG_HEARTBEAT, p, sizeof p);
}

static void encoder(int32_t off)
{
    int32_t position[EW_MAX_AXES];
    int32_t effort[EW_MAX_AXES] = {0};
    for (uint8_t a = 0u; a < EW_MAX_AXES; a++) {
        position[a] = (int32_t)(table[a].position_min + ((table[a].position_max - table[a].position_min) / 2));
    }
    if (core.drive_on || (core.encoder_axes == axes)) {
        (void)ew_drive_setpoint(&core, position, EW_MAX_AXES);
    }
    position[0] += off;
    ew_drive_encoder(&core, position, effort, axes, (uint64_t)now_us);
}

static void reboot(void)
{
    const ew_port_info_t port = {.entropy = 7u, .build_id = 1u, .tick_gap_max_us = EW_TICK_GAP_MAX_US,
                                 .encoder_timeout_us = EW_ENCODER_TIMEOUT_US, .clock_error_max_us = EW_CLOCK_ERROR_MAX_US,
                                 .version = EW_VERSION, .watchdog_ms = 20u, .drive_buses = 0xFFu};
    const uint32_t estop = noinit.estop;
    const uint32_t fault = noinit.fault;
    ew_init(&core, &port, &noinit, (uint64_t)now_us);
    known.core = &core;
    known.now_us = now_us;
    known.heartbeat_us = EW_NEVER_US;
    known.arm_sent = false;
    known.commit_sent = false;
    known.clear_sent = false;
    known.estop_sent = false;
    watch_boot(&known, estop, fault);
}

static void tick(void)
{
    uint8_t out[EW_TX_BYTES];
    if (ticks == TICKS_MAX) {
        return;
    }
    if (following && ((ticks % 5u) == 0u)) {
        encoder(0);
    }
    if (beating && ((ticks % 20u) == 0u)) {
        policy++;
        heartbeat(EW_DEGRADE_NOMINAL, EW_HEARTBEAT_FLAG_ARMED, 0);
    }
    ticks++;
    now_us += EW_TICK_US;
    known.now_us = now_us;
    ew_tick(&core, (uint64_t)now_us);
    watch(&known, true);
    /* A main loop that has much to do finds time for a slice or two, an idle one finishes a chunk within the tick. */
    for (uint32_t left = ((ticks % 3u) == 0u) ? 2u : 12u; (left > 0u) && ew_work(&core, (uint64_t)now_us); left--) {
    }
    if ((ticks % 4u) != 0u) {
        (void)ew_tx(&core, out, sizeof out);
    }
    (void)ew_drive_tx(&core, out, sizeof out);
    watch(&known, false);
}

/* Four kinds of arms: an arm axis in metres, six joints, the widest and fastest, the slowest; bytes bend them. */
static void choose_table(uint8_t kind)
{
    static const ew_limits_t kinds[4] = {
        {.position_min = -500000, .position_max = 500000, .velocity_max = 800000, .acceleration_max = 10000000,
         .jerk_max = 1000000},
        {.position_min = -2900000, .position_max = 2900000, .velocity_max = 2000000, .acceleration_max = 15000000,
         .jerk_max = 300000},
        {.position_min = -EW_POSITION_ABS_MAX, .position_max = EW_POSITION_ABS_MAX, .velocity_max = EW_VELOCITY_MAX_MAX,
         .acceleration_max = EW_ACCELERATION_MAX_MAX, .jerk_max = EW_JERK_MAX_MAX},
        {.position_min = 0, .position_max = 3, .velocity_max = EW_ACCELERATION_MIN, .acceleration_max = EW_ACCELERATION_MIN,
         .jerk_max = EW_JERK_MIN},
    };
    static const uint8_t counts[4] = {1u, 6u, 2u, 1u};
    axes = ((kind & 0x40u) != 0u) ? EW_MAX_AXES : counts[kind % 4u];
    for (uint8_t a = 0u; a < EW_MAX_AXES; a++) {
        ew_limits_t *m = &table[a];
        *m = kinds[kind % 4u];
        m->axis = a;
        m->lsb = 4000u;
        m->velocity_lsb = 4000u;
        m->following_error_max = 2u * (uint32_t)EW_POSITION_ABS_MAX;
        m->jump_max = 2u * (uint32_t)EW_POSITION_ABS_MAX;
        m->move_max = 2u * (uint32_t)EW_POSITION_ABS_MAX;
        m->window_max = 2u * (uint32_t)EW_POSITION_ABS_MAX;
        m->name[0] = (uint8_t)('a' + a);
    }
    if ((kind & 0x80u) != 0u) {
        table[0].jump_max = word() + 1u;
        table[0].move_max = (word() * 64u) + 1u;
        table[0].window_max = (word() * 64u) + 1u;
        table[0].acceleration_max = (word() * 4096u) + (uint32_t)EW_ACCELERATION_MIN;
        table[0].jerk_max = (word() * 1024u) + (uint32_t)EW_JERK_MIN;
        table[0].following_error_max = (word() * 16u) + 1u;
    }
}

static void configure(void)
{
    uint8_t p[EW_MAX_BODY_BYTES];
    crc = 0u;
    for (uint8_t a = 0u; a < axes; a++) {
        const size_t count = ew_pack_limits(&table[a], p);
        crc = ew_crc32c(p, count, crc);
        send(EW_MSG_LIMITS_SET, p, count);
    }
    for (uint8_t a = 0u; a < axes; a++) {
        crc = ew_crc32c(p, ew_pack_drive(&core.drives[a], p), crc);
    }
    crc = ew_crc32c(p, ew_pack_stops(&core.stops, p), crc);
    p[0] = axes;
    ew_put_u32(&p[1], crc);
    send(EW_MSG_LIMITS_COMMIT, p, 5u);
}

static void arm(void)
{
    uint8_t p[8];
    ew_put_u32(&p[0], crc);
    ew_put_u32(&p[4], EW_SCHEMA_HASH);
    send(EW_MSG_ARM, p, sizeof p);
}

static void chunk(void)
{
    uint8_t p[EW_MAX_BODY_BYTES];
    const uint8_t how = byte(); /* bit 0: i16, bit 1: velocities too, bit 2: linear, bits 3..4: the id, 5: far, 6: dt */
    const uint8_t shape = byte();
    const bool small = (how & 1u) != 0u;
    const bool velocities = (how & 2u) != 0u;
    const size_t width = (small ? 2u : 4u) * (velocities ? 2u : 1u);
    const size_t most = (EW_MAX_BODY_BYTES - EW_HEADER_BYTES - EW_CRC_BYTES - EW_CHUNK_HEADER_BYTES) / (axes * width);
    const size_t n = 1u + ((shape & 31u) % ((most < EW_MAX_KNOTS) ? most : EW_MAX_KNOTS));
    const uint16_t dt = ((how & 64u) != 0u) ? (uint16_t)(word() | 1u) : (uint16_t)(100u * (1u + (shape >> 5)));
    const uint8_t id = (how >> 3) & 3u; /* the next, the same, an older, one far ahead */
    next_chunk += (id == 0u) ? 1u : ((id == 3u) ? 1000u : 0u);
    ew_put_u32(&p[0], (id == 2u) ? (next_chunk - 1u) : next_chunk);
    const int64_t lead_us = ((how & 32u) != 0u) ? ((int64_t)(int16_t)word() * 200) : ((int64_t)(int8_t)byte() * 500);
    ew_put_u32(&p[4], (uint32_t)((uint64_t)(now_us + lead_us) & 0xFFFFFFFFu));
    ew_put_u16(&p[8], dt);
    p[10] = (uint8_t)n;
    p[11] = axes;
    p[12] = small ? EW_CHUNK_ENCODING_I16_LSB : EW_CHUNK_ENCODING_I32_MICRO;
    p[13] = EW_CHUNK_MODE_REPLACE_FROM_T0;
    p[14] = byte();
    p[15] = velocities ? EW_CHUNK_INTERPOLATION_HERMITE_VELOCITY
                       : (((how & 4u) != 0u) ? EW_CHUNK_INTERPOLATION_LINEAR : EW_CHUNK_INTERPOLATION_HERMITE);
    size_t to = EW_CHUNK_HEADER_BYTES;
    const size_t samples = n * axes * (velocities ? 2u : 1u);
    int64_t q[EW_MAX_AXES];
    for (uint8_t a = 0u; a < axes; a++) {
        q[a] = core.axis[a].position / EW_SUB;
    }
    for (size_t i = 0u; i < samples; i++) {
        const uint8_t a = (uint8_t)(i % axes);
        const ew_limits_t *m = &table[a];
        const int64_t reach = ((int64_t)m->velocity_max * dt) / 100000;
        const int8_t go = (at < end) ? (int8_t)byte() : (int8_t)(17 * (int)i);
        int64_t value = ((int64_t)m->velocity_max * go) / 128; /* a velocity */
        if (i < (n * axes)) {
            q[a] += (reach * go) / 127;
            q[a] = (q[a] < m->position_min) ? m->position_min : ((q[a] > m->position_max) ? m->position_max : q[a]);
            value = (go == -128) ? INT32_MAX : q[a];
        }
        if (small) {
            ew_put_u16(&p[to], (uint16_t)(int16_t)(value / 4000));
            to += 2u;
        } else {
            ew_put_i32(&p[to], (int32_t)value);
            to += 4u;
        }
    }
    send(EW_MSG_CHUNK, p, to);
}

static void clear(bool wrong)
{
    uint8_t p[4];
    if (core.state == EW_STATE_ESTOP) {
        ew_put_u32(p, noinit.clear_nonce ^ (wrong ? 1u : 0u));
        send(EW_MSG_ESTOP_CLEAR, p, 4u);
    } else {
        ew_put_u16(p, (uint16_t)(noinit.fault ^ (wrong ? 1u : 0u)));
        send(EW_MSG_FAULT_ACK, p, 2u);
    }
}

/* Any message with any payload, the checksum and the session right. */
static void any_message(void)
{
    uint8_t p[80];
    const uint8_t type = byte();
    const size_t count = byte() % sizeof p;
    for (size_t i = 0u; i < count; i++) {
        p[i] = byte();
    }
    send(type, p, count);
}

static void noise(void)
{
    uint8_t p[64];
    const size_t count = byte() % sizeof p;
    for (size_t i = 0u; i < count; i++) {
        p[i] = byte();
    }
    deliver(p, count);
}

static void drive_noise(void)
{
    uint8_t body[120];
    uint8_t wire[200];
    const size_t count = byte() % 100u;
    for (size_t i = 0u; i < count; i++) {
        body[i] = byte();
    }
    if ((count > 0u) && ((body[0] & 1u) != 0u)) {
        body[0] = EW_MSG_ENCODER;
        ew_drive_rx(&core, wire, ew_frame_seal(body, count, wire), (uint64_t)now_us);
    } else {
        ew_drive_rx(&core, body, count, (uint64_t)now_us);
    }
}

static void damaged(void)
{
    const uint8_t where = byte();
    if (kept_count > 0u) {
        kept[where % kept_count] ^= (uint8_t)(byte() | 1u);
        deliver(kept, kept_count);
    }
}

static void ready(void)
{
    beating = true;
    following = true;
    encoder(0);
    policy++;
    heartbeat(EW_DEGRADE_NOMINAL, EW_HEARTBEAT_FLAG_ARMED, 0);
    configure();
    arm();
}

static void operation(uint8_t op)
{
    switch (op % 32u) {
    case 0u: case 1u: case 2u: case 3u:
        for (unsigned count = byte() % 64u; count > 0u; count--) {
            tick();
        }
        break;
    case 4u: case 5u: case 6u: case 7u:
        chunk();
        tick();
        break;
    case 8u: case 9u:
        ready();
        break;
    case 10u: configure(); break;
    case 11u: arm(); break;
    case 12u: send(EW_MSG_HOLD, NULL, 0u); break;
    case 13u: send(EW_MSG_DISARM, NULL, 0u); break;
    case 14u: send_as((uint16_t)word(), EW_MSG_ESTOP, NULL, 0u); break;
    case 15u: case 16u: clear((op & 32u) != 0u); break;
    case 17u: {
        const uint8_t how = byte();
        policy += (how >> 3) & 1u;
        heartbeat(how & 7u, (how >> 4) & 3u, ((how & 64u) != 0u) ? ((int64_t)(int16_t)word() * 10) : 0);
        break;
    }
    case 18u: beating = !beating; break;
    case 19u: following = !following; break;
    case 20u: encoder((int32_t)(int8_t)byte() * 4000); break;
    case 21u: any_message(); break;
    case 22u: noise(); break;
    case 23u: drive_noise(); break;
    case 24u: damaged(); break;
    case 25u: deliver(kept, kept_count); break;                                   /* twice */
    case 26u: deliver(kept, (kept_count * byte()) / 256u); break;                 /* half */
    case 27u:                                                                     /* another boot's, or configuration's */
        if ((op & 32u) != 0u) {
            stale_epoch = 255u;
            ((op & 64u) != 0u) ? arm() : chunk();
            stale_epoch = 0u;
        } else {
            send_as((uint16_t)(core.session + 1u + byte()), byte(), NULL, 0u);
        }
        break;
    case 28u: now_us += (int64_t)word() * 10; tick(); break;                      /* a stall */
    case 29u:
        ew_noinit_mark(&noinit, byte() % 8u, 0x1234u, core.stats.ticks);
        now_us += 5000;
        reboot();
        break;
    case 30u:
        for (unsigned count = 0u; count < 500u; count++) {
            tick();
        }
        break;
    default: choose_table(byte()); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    at = data;
    end = data + size;
    memset(&noinit, 0, sizeof noinit);
    now_us = (int64_t)byte() * 16843009; /* the 32-bit clock of the wire wraps in some programs */
    seq = 0u;
    policy = 0u;
    next_chunk = 0u;
    ticks = 0u;
    kept_count = 0u;
    beating = false;
    following = false;
    choose_table(byte());
    reboot();
    while (at < end) {
        operation(byte());
    }
    return 0;
}
