/* Random drives against the drivers, built with the address and undefined-behaviour sanitizers: fuzz_drives SEED ROUNDS.
 *
 * Each round binds random drives of all kinds, answers what is asked with right, wrong, late, foreign and broken answers, and
 * switches on and off at random. After every call: nothing that powers a drive leaves while the core does not hold the enable;
 * torque off is the first thing on each wire after it let go; nothing but goals, torque and the lock is written to a servo, no
 * motor drive is zeroed; and no position beyond what an axis can hold comes out. */
#include "ew_drive.h"
#include "ew_feetech.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;
static ew_drives_t drives;
static int64_t now_us;
static bool owe_servo; /* torque off has not gone out since the enable was dropped */
static uint16_t owe_motor;
static unsigned long powered;

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

static void must(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s at %lld us\n", what, (long long)now_us);
        abort();
    }
}

static bool is(uint8_t axis, uint8_t kind)
{
    return drives.drive[axis].set.kind == kind;
}

/* ---- bindings ---- */

static ew_drive_set_t random_set(uint8_t axis)
{
    ew_drive_set_t set = {.axis = axis, .kind = (uint8_t)between(0, 2), .ratio_num = 1, .ratio_den = 1};
    if (set.kind == EW_DRIVE_KIND_FEETECH) {
        set.model = (uint8_t)between(1, EW_FEETECH_MODEL_SCS0009);
        set.address = (uint16_t)(axis + 1u);
    } else if (set.kind == EW_DRIVE_KIND_MIT) {
        set.model = (uint8_t)between(1, EW_MIT_MODEL_AK80_64);
        set.address = (uint16_t)(axis + 1u);
        set.reply = (uint16_t)(axis + 0x101u);
        set.kp = (uint32_t)between(1, 500000);
        set.kd = (uint32_t)between(1, 5000);
    } else {
        return set;
    }
    if (between(0, 2) == 0) {
        set.zero = (int32_t)between(-500000, 500000);
        set.ratio_num = (int32_t)(between(0, 1) == 0 ? -between(1, 3000) : between(1, 3000));
        set.ratio_den = (int32_t)between(1, 3000);
    }
    return set;
}

static bool bind(void)
{
    ew_drive_set_t sets[EW_MAX_AXES];
    ew_drive_span_t spans[EW_MAX_AXES];
    const uint8_t axes = (uint8_t)between(1, EW_MAX_AXES);
    for (uint8_t axis = 0u; axis < axes; axis++) {
        sets[axis] = random_set(axis);
        spans[axis].position_min = (int32_t)between(-300000, -1);
        spans[axis].position_max = (int32_t)between(1, 300000);
        spans[axis].velocity_max = (uint32_t)between(4000, 2000000);
        must(ew_drive_flaw(&sets[axis]) == -1, "a binding that should be taken");
    }
    if (ew_drives_unfit(&drives, sets, spans, axes) < axes) {
        return false;
    }
    ew_drives_bind(&drives, sets, spans, axes, now_us);
    for (uint8_t axis = 0u; axis < axes; axis++) {
        drives.setpoint[axis] = (int32_t)between(spans[axis].position_min, spans[axis].position_max);
        drives.velocity[axis] = (int32_t)between(-(int64_t)spans[axis].velocity_max, (int64_t)spans[axis].velocity_max);
    }
    owe_servo = false;
    owe_motor = 0u;
    return true;
}

/* ---- the servo bus ---- */

static uint8_t memory_of(const ew_axis_drive_t *drive, uint8_t address)
{
    const bool scs = drive->set.model == EW_FEETECH_MODEL_SCS0009;
    static const uint16_t models[] = {0u, 777u, 777u, 2825u, 11272u, 1284u};
    uint8_t word[2];
    switch (address) {
    case 3:
    case 4:
        ew_ft_put_word(word, models[drive->set.model], scs);
        return word[address - 3];
    case 5:
        return (uint8_t)drive->set.address;
    case 8:
        return 1u;
    case 11:
    case 12:
        ew_ft_put_word(word, scs ? 1023u : 4095u, scs);
        return word[address - 11];
    case 19:
        return 0x2Cu;
    case 40:
        return (drive->phase >= EW_DRIVE_ENABLING) ? 1u : 0u;
    case 56:
    case 57:
        ew_ft_put_word(word, scs ? 512u : 2048u, scs);
        return word[address - 56];
    default:
        return 0u;
    }
}

static void hear(const uint8_t *bytes, size_t count)
{
    for (size_t at = 0u; at < count;) {
        const size_t piece = (size_t)between(1, (int64_t)(count - at));
        ew_feetech_rx(&drives, &bytes[at], piece, now_us);
        at += piece;
    }
}

static void answer(uint8_t number, uint8_t address, uint8_t count)
{
    uint8_t bytes[300];
    uint8_t axis = 0u;
    while ((axis < drives.axes) && (!is(axis, EW_DRIVE_KIND_FEETECH) || (drives.drive[axis].set.address != number))) {
        axis++;
    }
    must(axis < drives.axes, "a packet to a servo that is not bound");
    for (uint8_t i = 0u; i < count; i++) {
        bytes[5u + i] = (between(0, 400) == 0) ? (uint8_t)random64() : memory_of(&drives.drive[axis], (uint8_t)(address + i));
    }
    size_t whole = ew_ft_seal(bytes, number, (between(0, 200) == 0) ? (uint8_t)random64() : 0u, count);
    if (between(0, 60) == 0) {
        bytes[between(0, (int64_t)whole - 1)] ^= (uint8_t)between(1, 255);
    }
    if (between(0, 60) == 0) {
        whole = (size_t)between(0, (int64_t)whole);
    }
    if (between(0, 60) != 0) {
        hear(bytes, whole);
    }
}

static void on_packet(const uint8_t *bytes, size_t count)
{
    must((count >= 6u) && (count <= EW_SERVO_PACKET_BYTES) && (bytes[3] == (count - 4u)), "a packet of the wrong length");
    const uint8_t address = bytes[5];
    switch (bytes[4]) {
    case EW_FT_SYNC_WRITE:
        must((address == EW_FT_AT_TORQUE) || (address == EW_FT_AT_GOAL), "something else is written to all");
        must(drives.on || ((address == EW_FT_AT_TORQUE) && (bytes[8] == 0u)), "a goal or torque without the enable");
        powered += (address == EW_FT_AT_TORQUE) && (bytes[8] == 1u);
        must(!owe_servo || ((address == EW_FT_AT_TORQUE) && (bytes[8] == 0u)), "something went before torque off");
        owe_servo = false;
        break;
    case EW_FT_WRITE:
        must(((address == EW_FT_AT_TORQUE) && (bytes[6] == 0u)) || ((address != EW_FT_AT_TORQUE) && (bytes[6] == 1u)),
             "torque on to one servo alone");
        must((address == EW_FT_AT_TORQUE) || (address == 55u) || (address == 48u), "something else is written to one");
        if (bytes[2] == EW_FT_BROADCAST) {
            must((address == EW_FT_AT_TORQUE) && (bytes[6] == 0u), "something else is written to all");
            break;
        }
        must(!owe_servo, "something went before torque off");
        answer(bytes[2], 0u, 0u);
        break;
    case EW_FT_READ:
        must(!owe_servo, "something went before torque off");
        answer(bytes[2], address, bytes[6]);
        break;
    default:
        must(bytes[4] == EW_FT_SYNC_READ, "an instruction that nobody needs");
        must(!owe_servo, "something went before torque off");
        for (size_t i = 7u; i < (count - 1u); i++) {
            answer(bytes[i], address, bytes[6]);
        }
        break;
    }
}

static void servo_bus(void)
{
    uint8_t bytes[EW_SERVO_PACKET_BYTES];
    const size_t count = ew_feetech_tx(&drives, bytes, sizeof bytes, now_us);
    if (count > 0u) {
        on_packet(bytes, count);
    }
    if (between(0, 300) == 0) {
        uint8_t noise[200];
        const size_t length = (size_t)between(1, sizeof noise);
        for (size_t i = 0u; i < length; i++) {
            noise[i] = (between(0, 3) == 0) ? 0xFFu : (uint8_t)random64();
        }
        hear(noise, length);
    }
}

/* ---- the motor bus ---- */

static uint32_t single_of(double value)
{
    const float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, sizeof bits);
    return bits;
}

static void registers(const ew_axis_drive_t *drive, uint8_t number, uint8_t *data)
{
    static const double velocity[] = {0, 30, 50, 8, 10, 45, 45, 45, 25, 20, 280, 45, 45};
    static const double torque[] = {0, 10, 10, 28, 28, 20, 40, 54, 200, 200, 1, 10, 10};
    const uint8_t model = drive->set.model;
    uint32_t value = 1000u;
    value = (number == 10u) ? 1u : value;
    value = (number == 21u) ? single_of(12.5) : value;
    value = (number == 22u) ? single_of(velocity[model]) : value;
    value = (number == 23u) ? single_of(torque[model]) : value;
    value = (between(0, 300) == 0) ? (uint32_t)random64() : value;
    for (uint8_t i = 0u; i < 4u; i++) {
        data[4u + i] = (uint8_t)(value >> (8u * i));
    }
}

static void feedback(const ew_axis_drive_t *drive, bool on, uint8_t *data)
{
    const bool damiao = drive->set.model < EW_MIT_MODEL_AK10_9;
    const uint8_t plain[8] = {0u, 0x80u, 0u, 0x80u, 0x08u, 0u, 30u, damiao ? 30u : 0u};
    memcpy(data, plain, sizeof plain);
    data[0] = damiao ? (uint8_t)((drive->set.address & 0xFu) | (on ? 0x10u : 0u)) : (uint8_t)drive->set.address;
    if (between(0, 60) == 0) {
        data[between(0, 7)] = (uint8_t)random64();
    }
}

static void on_frame(const ew_can_frame_t *frame)
{
    static const uint8_t ones[7] = {0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu};
    ew_can_frame_t back = {.count = (between(0, 200) == 0) ? (uint8_t)between(0, 64) : 8u, .remote = between(0, 300) == 0};
    const bool special = memcmp(frame->data, ones, sizeof ones) == 0;
    const bool channel = frame->id == 0x7FFu;
    uint8_t axis = 0u;
    const uint16_t to = channel ? (uint16_t)(frame->data[0] | (frame->data[1] << 8)) : frame->id;
    while ((axis < drives.axes) && (!is(axis, EW_DRIVE_KIND_MIT) || (drives.drive[axis].set.address != to))) {
        axis++;
    }
    must((axis < drives.axes) && (frame->count == 8u) && !frame->fd && !frame->remote, "a frame to nobody");
    const ew_axis_drive_t *drive = &drives.drive[axis];
    const uint8_t word = special ? frame->data[7] : 0u;
    must(word != 0xFEu, "a drive is zeroed");
    const bool off = special && (word == 0xFDu);
    must((owe_motor == 0u) || off, "something went before torque off");
    if (off) {
        owe_motor &= (uint16_t)~(1u << axis);
    }
    const bool powers = !channel && (!special || (word == 0xFCu));
    must(drives.on || !powers, "a command without the enable");
    powered += powers;
    if (!channel && !special) {
        const uint32_t p = ((uint32_t)frame->data[0] << 8) | frame->data[1];
        must((p > 0u) && (p < 0xFFFFu) && (drive->phase == EW_DRIVE_ON), "a command beyond the range or too early");
    }
    back.id = (between(0, 300) == 0) ? (uint16_t)between(0, 0x7FF) : drive->set.reply;
    if (channel && (frame->data[2] == 0x33u)) {
        memcpy(back.data, frame->data, 4u);
        registers(drive, frame->data[3], back.data);
    } else {
        feedback(drive, powers || (!off && (drive->phase == EW_DRIVE_ON)), back.data);
    }
    if (between(0, 40) != 0) {
        ew_mit_rx(&drives, &back, now_us);
    }
}

static void motor_bus(void)
{
    ew_can_frame_t frame;
    int fetched = 0;
    while ((fetched < 20) && ew_mit_tx(&drives, &frame, now_us)) {
        on_frame(&frame);
        fetched++;
    }
    must(fetched < 20 + (int)EW_MAX_AXES, "frames without end");
}

/* ---- a round ---- */

static void check(void)
{
    for (uint8_t axis = 0u; axis < drives.axes; axis++) {
        const int64_t position = drives.drive[axis].position;
        must((position >= -2 * (int64_t)EW_POSITION_ABS_MAX) && (position <= 2 * (int64_t)EW_POSITION_ABS_MAX),
             "a position that no axis can hold");
        must((drives.drive[axis].phase <= EW_DRIVE_ON) && (drives.drive[axis].step <= 8u), "a phase that there is not");
    }
}

static void tick(uint32_t number, bool on)
{
    if (drives.on && !on) {
        for (uint8_t axis = 0u; axis < drives.axes; axis++) {
            owe_servo = owe_servo || is(axis, EW_DRIVE_KIND_FEETECH);
            owe_motor |= is(axis, EW_DRIVE_KIND_MIT) ? (uint16_t)(1u << axis) : 0u;
        }
    }
    ew_drives_tick(&drives, on, number, now_us);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    state = (strtoull(argv[1], NULL, 10) * 2u) + 1u;
    const long rounds = strtol(argv[2], NULL, 10);
    for (long round = 0; round < rounds; round++) {
        memset(&drives, 0, sizeof drives);
        now_us = between(0, (int64_t)1 << 40);
        ew_drives_init(&drives, 6u, 0u);
        if (!bind()) {
            continue;
        }
        bool on = false;
        for (uint32_t number = 1u; number < 400u; number++) {
            now_us += EW_TICK_US;
            const bool ready = ew_drives_not_ready(&drives) == drives.axes;
            on = on ? (between(0, 80) != 0) : ((ready && (between(0, 5) == 0)) || (between(0, 200) == 0));
            tick(number, on);
            for (int64_t looks = between(1, 6); looks > 0; looks--) {
                servo_bus();
                now_us += between(0, 300);
            }
            if (between(0, 20) != 0) {
                motor_bus();
            }
            check();
        }
    }
    printf("%lu times powered\n", powered);
    return (powered == 0u) ? 1 : 0;
}
