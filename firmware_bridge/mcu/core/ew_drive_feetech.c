/* FEETECH: servos of the STS, SMS and SCS series on one half-duplex bus of 1 Mbaud.
 *
 * One cycle of the bus: SYNC WRITE of the goals, SYNC READ of positions, and one transaction more, with one servo (its start
 * sequence, its enable, or a look whether its torque is still on). At 10 us a byte and with servos that answer at once, a
 * cycle of six servos takes 1.8 ms of wire, so it runs every second tick: 500 setpoints a second and not 1,000. The setpoint
 * that goes out is the newest one; those between are not sent. A servo's own answering delay (register 7) is read and counted. */
#include "ew_drive.h"
#include "ew_drive_units.h"
#include "ew_feetech.h"

#define BYTE_US 10       /* 1 Mbaud, 10 bits */
#define TURN_US 50       /* a servo takes this long to begin its answer, on top of its own delay register: the plan's guess */
#define GAP_US 20        /* quiet line between two packets of ours */
#define LATE_US 300      /* how much later than that an answer may still come; waited for only when one is missing */
#define HUSH_US 2000     /* between torque off and torque off at boot: servos may still answer an older question */
#define DELAY_STEP_US 2u
#define ERROR_BITS 0x2Fu /* voltage, sensor (angle), temperature, current, overload; bit 4 differs between series */
#define PROTECTIONS 0x24u /* over-temperature and overload must be able to take the torque away */
#define LOAD_MAX 1000
#define LOAD_SIGN 10u
#define SPEED_SIGN 15u
#define IDENTITY_BYTES_MAX 31u

/* What differs between models. Sources: memory tables of the STS3215 (v3.6), SMS/STS and SCSCL series; product pages. */
typedef struct {
    uint16_t number;         /* as the servo reports it */
    uint16_t steps;          /* of its range */
    int64_t range_nrad;      /* of these steps */
    int64_t stall_micro_nm;  /* torque at a load of 1,000 */
    uint8_t identity_bytes;  /* read from EW_FT_AT_MODEL on */
    uint8_t mode_at;         /* address of the operating mode, 0: has none */
    uint8_t lock_at;         /* write lock of the non-volatile part */
    bool high_first;
    bool sync_read;
} servo_model_t;

#define TURN_NRAD INT64_C(6283185307)

static const servo_model_t models[] = {
    [EW_FEETECH_MODEL_NONE] = {0u, 0u, 0, 0, 0u, 0u, 0u, false, false},
    [EW_FEETECH_MODEL_STS3215] = {777u, 4096u, TURN_NRAD, 1910000, 31u, 33u, 55u, false, true},
    [EW_FEETECH_MODEL_STS3215_12V] = {777u, 4096u, TURN_NRAD, 2940000, 31u, 33u, 55u, false, true},
    [EW_FEETECH_MODEL_STS3250] = {2825u, 4096u, TURN_NRAD, 4900000, 31u, 33u, 55u, false, true},
    [EW_FEETECH_MODEL_SM8512BL] = {11272u, 4096u, TURN_NRAD, 8340000, 31u, 33u, 55u, false, true},
    [EW_FEETECH_MODEL_SCS0009] = {1284u, 1024u, INT64_C(5235987756), 225000, 18u, 0u, 48u, true, false},
};
#define MODELS ((uint8_t)(sizeof(models) / sizeof(models[0])))

enum { ASK_NOTHING = 0, ASK_POSITION, ASK_IDENTITY, ASK_LOCK, ASK_OFF, ASK_TORQUE };
enum { STEP_IDENTITY = 0, STEP_LOCK, STEP_OFF, STEP_DONE };
enum { JOB_GOALS = 0, JOB_ENABLE, JOB_SYNC_READ, JOB_READ, JOB_EXTRA = JOB_READ + EW_MAX_AXES, JOB_DONE };

static const servo_model_t *model_of(const ew_axis_drive_t *drive)
{
    return &models[drive->set.model];
}

static bool is_servo(const ew_drives_t *drives, uint8_t axis)
{
    return ew_drive_is(drives, axis, EW_DRIVE_KIND_FEETECH);
}

static uint16_t axis_bit(uint8_t axis)
{
    const uint32_t bit = (uint32_t)1u << axis;
    return (uint16_t)bit;
}

static bool identified(const ew_axis_drive_t *drive)
{
    return drive->step != STEP_IDENTITY; /* a refused one never came so far */
}

/* ---- binding ---- */

static int32_t flaw(const ew_drive_set_t *set)
{
    if ((set->model == EW_FEETECH_MODEL_NONE) || (set->model >= MODELS)) {
        return 2;
    }
    if (set->address > EW_FT_NUMBER_MAX) {
        return 3;
    }
    return -1;
}

static bool goal_of(const ew_drive_set_t *set, int32_t micro, uint16_t *goal)
{
    const servo_model_t *model = &models[set->model];
    int64_t shaft;
    if (!ew_shaft_position(set, micro, &shaft)) {
        return false;
    }
    const int64_t steps = (int64_t)model->steps;
    const int64_t raw = (steps / 2) + ew_nearest(shaft * steps, model->range_nrad);
    const bool inside = (raw >= 0) && (raw < steps);
    *goal = inside ? (uint16_t)raw : 0u;
    return inside;
}

static bool carries(const ew_drive_set_t *set, const ew_drive_span_t *span)
{
    uint16_t goal;
    return goal_of(set, span->position_min, &goal) && goal_of(set, span->position_max, &goal);
}

static bool distinct(const ew_drive_set_t *one, const ew_drive_set_t *other)
{
    return one->address != other->address;
}

/* The wire time of a cycle, in whole ticks. */
static void plan(ew_drives_t *drives)
{
    int64_t wire_us = 0;
    int64_t slowest_us = 0;
    int64_t servos = 0;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        if (is_servo(drives, axis)) {
            const int64_t turn_us = TURN_US + (int64_t)drives->drive[axis].delay_us + (int64_t)drives->servo_slack_us;
            wire_us += turn_us + (BYTE_US * (3 + (int64_t)(EW_FT_OVERHEAD + EW_FT_PRESENT_BYTES)));
            wire_us += model_of(&drives->drive[axis])->sync_read ? BYTE_US : ((8 * BYTE_US) + GAP_US);
            slowest_us = (turn_us > slowest_us) ? turn_us : slowest_us;
            servos++;
        }
    }
    if (servos > 0) {
        /* heads of SYNC WRITE and SYNC READ, and the one transaction more: READ of one byte and its answer */
        wire_us += (2 * ((8 * BYTE_US) + GAP_US)) + (15 * BYTE_US) + slowest_us + GAP_US;
    }
    const int64_t cycle_us = ((wire_us + EW_TICK_US - 1) / EW_TICK_US) * EW_TICK_US;
    drives->servo.cycle_us = (uint32_t)cycle_us;
}

/* ---- what is sent ---- */

static bool wants_goal(const ew_drives_t *drives, uint8_t axis)
{
    return is_servo(drives, axis) && drives->on && (drives->drive[axis].phase >= EW_DRIVE_READY);
}

static size_t goals(ew_drives_t *drives, uint8_t *bytes)
{
    uint8_t at = 7u;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        ew_axis_drive_t *drive = &drives->drive[axis];
        uint16_t goal;
        if (wants_goal(drives, axis)) {
            if (goal_of(&drive->set, drives->setpoint[axis], &goal)) {
                bytes[at] = (uint8_t)drive->set.address;
                ew_ft_put_word(&bytes[at + 1u], goal, model_of(drive)->high_first);
                at = (uint8_t)(at + 3u);
                drive->due = true; /* only a servo that has a goal may be switched on */
            } else {
                drive->errors |= EW_DRIVE_ERR_SETPOINT; /* the limits were checked against the range: never */
            }
        }
    }
    if (at == 7u) {
        return 0u;
    }
    bytes[5] = EW_FT_AT_GOAL;
    bytes[6] = 2u;
    return ew_ft_seal(bytes, EW_FT_BROADCAST, EW_FT_SYNC_WRITE, (uint8_t)(at - 5u));
}

static size_t torque_packet(uint8_t *bytes, uint8_t at)
{
    if (at == 7u) {
        return 0u;
    }
    bytes[5] = EW_FT_AT_TORQUE;
    bytes[6] = 1u;
    return ew_ft_seal(bytes, EW_FT_BROADCAST, EW_FT_SYNC_WRITE, (uint8_t)(at - 5u));
}

/* Right after boot, whatever will be bound: a servo knows no watchdog, and holds on through a reset of this MCU. */
static size_t torque_off_all(ew_drives_t *drives, uint8_t *bytes)
{
    if (drives->hush == 0u) {
        return 0u;
    }
    drives->hush--;
    bytes[5] = EW_FT_AT_TORQUE;
    bytes[6] = 0u;
    return ew_ft_seal(bytes, EW_FT_BROADCAST, EW_FT_WRITE, 2u);
}

static size_t torque_off(ew_drives_t *drives, uint8_t *bytes, int64_t now_us)
{
    uint8_t at = 7u;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        ew_axis_drive_t *drive = &drives->drive[axis];
        if (is_servo(drives, axis) && drive->off) {
            bytes[at] = (uint8_t)drive->set.address;
            bytes[at + 1u] = 0u;
            at = (uint8_t)(at + 2u);
            drive->off = false;
            drive->due = false;
            if (drive->step == STEP_DONE) {
                drive->step = STEP_OFF; /* once more, acknowledged, before it counts as off */
                ew_drive_enter(drive, EW_DRIVE_CHECKING, now_us);
            }
        }
    }
    return torque_packet(bytes, at);
}

/* All at once and right after their goals, which are where they stand: a servo that came on later would jump to a goal that has
 * moved on meanwhile. That is also why a servo that missed it is not asked again, but is an error. */
static size_t torque_on(ew_drives_t *drives, uint8_t *bytes, int64_t now_us)
{
    uint8_t at = 7u;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        ew_axis_drive_t *drive = &drives->drive[axis];
        if (is_servo(drives, axis) && drives->on && drive->due && (drive->phase == EW_DRIVE_READY)) {
            bytes[at] = (uint8_t)drive->set.address;
            bytes[at + 1u] = 1u;
            at = (uint8_t)(at + 2u);
            ew_drive_enter(drive, EW_DRIVE_ENABLING, now_us);
        }
    }
    return torque_packet(bytes, at);
}

static size_t sync_read(ew_drives_t *drives, uint8_t *bytes)
{
    uint8_t at = 7u;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        const ew_axis_drive_t *drive = &drives->drive[axis];
        if (is_servo(drives, axis) && identified(drive) && model_of(drive)->sync_read) {
            bytes[at] = (uint8_t)drive->set.address;
            drives->servo.awaited |= axis_bit(axis);
            at++;
        }
    }
    if (at == 7u) {
        return 0u;
    }
    drives->servo.asked = ASK_POSITION;
    bytes[5] = EW_FT_AT_PRESENT;
    bytes[6] = EW_FT_PRESENT_BYTES;
    return ew_ft_seal(bytes, EW_FT_BROADCAST, EW_FT_SYNC_READ, (uint8_t)(at - 5u));
}

static size_t ask(ew_drives_t *drives, uint8_t axis, uint8_t what, uint8_t *bytes, uint8_t instruction, uint8_t address,
                  uint8_t value)
{
    drives->servo.asked = what;
    drives->servo.awaited = axis_bit(axis);
    bytes[5] = address;
    bytes[6] = value;
    return ew_ft_seal(bytes, (uint8_t)drives->drive[axis].set.address, instruction, 2u);
}

/* Positions of a servo that knows no SYNC READ. */
static size_t read_one(ew_drives_t *drives, uint8_t axis, uint8_t *bytes)
{
    if ((axis >= drives->axes) || !is_servo(drives, axis) || !identified(&drives->drive[axis]) ||
        model_of(&drives->drive[axis])->sync_read) {
        return 0u;
    }
    return ask(drives, axis, ASK_POSITION, bytes, EW_FT_READ, EW_FT_AT_PRESENT, EW_FT_PRESENT_BYTES);
}

static size_t extra_for(ew_drives_t *drives, uint8_t axis, uint8_t *bytes)
{
    const ew_axis_drive_t *drive = &drives->drive[axis];
    const servo_model_t *model = model_of(drive);
    if (drive->phase == EW_DRIVE_REFUSED) {
        return 0u;
    }
    switch (drive->step) {
    case STEP_IDENTITY:
        return ask(drives, axis, ASK_IDENTITY, bytes, EW_FT_READ, EW_FT_AT_MODEL, model->identity_bytes);
    case STEP_LOCK:
        return ask(drives, axis, ASK_LOCK, bytes, EW_FT_WRITE, model->lock_at, 1u);
    case STEP_OFF:
        return ask(drives, axis, ASK_OFF, bytes, EW_FT_WRITE, EW_FT_AT_TORQUE, 0u);
    default: /* torque is on, or off: is it? */
        return ask(drives, axis, ASK_TORQUE, bytes, EW_FT_READ, EW_FT_AT_TORQUE, 1u);
    }
}

/* The one transaction more, with the next servo that has need of one. */
static size_t extra(ew_drives_t *drives, uint8_t *bytes)
{
    size_t count = 0u;
    for (uint8_t tried = 0u; (tried < drives->axes) && (count == 0u); tried++) {
        const uint8_t axis = drives->servo.aux_axis;
        drives->servo.aux_axis = (uint8_t)((axis + 1u) % drives->axes);
        count = is_servo(drives, axis) ? extra_for(drives, axis, bytes) : 0u;
    }
    return count;
}

static size_t packet_of(ew_drives_t *drives, uint8_t job, uint8_t *bytes, int64_t now_us)
{
    switch (job) {
    case JOB_GOALS:
        return goals(drives, bytes);
    case JOB_ENABLE:
        return torque_on(drives, bytes, now_us);
    case JOB_SYNC_READ:
        return sync_read(drives, bytes);
    case JOB_EXTRA:
        return extra(drives, bytes);
    default:
        return read_one(drives, (uint8_t)(job - JOB_READ), bytes);
    }
}

static size_t next_packet(ew_drives_t *drives, uint8_t *bytes, int64_t now_us)
{
    ew_servo_bus_t *bus = &drives->servo;
    if (bus->job >= JOB_DONE) {
        if ((bus->cycle_us == 0u) || (now_us < bus->next_us)) {
            return 0u;
        }
        if ((now_us - bus->next_us) >= EW_TICK_US) {
            bus->next_us = now_us; /* held up by slow or missing answers: it goes on from here and does not make up for it */
        }
        bus->next_us += (int64_t)bus->cycle_us;
        bus->job = JOB_GOALS;
    }
    size_t count = 0u;
    while ((bus->job < JOB_DONE) && (count == 0u)) {
        count = packet_of(drives, bus->job, bytes, now_us);
        bus->job++;
    }
    return count;
}

/* How long the answers that are awaited may take, from the end of the question. */
static int64_t answer_us(const ew_drives_t *drives)
{
    int64_t sum_us = (int64_t)drives->servo_slack_us;
    const int64_t parameters = (drives->servo.asked == ASK_IDENTITY) ? (int64_t)IDENTITY_BYTES_MAX : EW_FT_PRESENT_BYTES;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        if ((drives->servo.awaited & (1u << axis)) != 0u) {
            /* The delay is known once the identity was read: before, its largest value. */
            const int64_t delay_us =
                identified(&drives->drive[axis]) ? (int64_t)drives->drive[axis].delay_us : (255 * (int64_t)DELAY_STEP_US);
            sum_us += TURN_US + LATE_US + delay_us + (BYTE_US * ((int64_t)EW_FT_OVERHEAD + parameters));
        }
    }
    return sum_us;
}

size_t ew_feetech_tx(ew_drives_t *drives, uint8_t *bytes, size_t capacity, int64_t now_us)
{
    ew_servo_bus_t *bus = &drives->servo;
    if (capacity < EW_SERVO_PACKET_BYTES) {
        return 0u;
    }
    if (bus->awaited != 0u) {
        if (now_us < bus->deadline_us) {
            return 0u;
        }
        bus->awaited = 0u; /* they are silent; how long an axis may be is the core's to judge */
        bus->rx_count = 0u;
    }
    if (now_us < bus->free_us) {
        return 0u;
    }
    size_t count = torque_off_all(drives, bytes);
    if (count == 0u) {
        count = torque_off(drives, bytes, now_us);
    }
    if (count == 0u) {
        count = next_packet(drives, bytes, now_us);
    }
    if (count > 0u) {
        const int64_t end_us = now_us + (BYTE_US * (int64_t)count);
        bus->free_us = end_us + ((drives->hush > 0u) ? HUSH_US : GAP_US);
        bus->deadline_us = end_us + answer_us(drives);
    }
    return count;
}

size_t ew_feetech_last_words(uint8_t *bytes)
{
    size_t count = 0u;
    while ((count + 8u) <= EW_SERVO_OFF_BYTES) {
        bytes[count + 5u] = EW_FT_AT_TORQUE;
        bytes[count + 6u] = 0u;
        count += ew_ft_seal(&bytes[count], EW_FT_BROADCAST, EW_FT_WRITE, 2u);
    }
    return count;
}

/* ---- what comes back ---- */

/* Where an address of the servo's memory is in an answer that begins with its model. */
static const uint8_t *field_of(const uint8_t *answer, uint8_t address)
{
    return &answer[address - (uint8_t)EW_FT_AT_MODEL];
}

static void on_identity(ew_drives_t *drives, ew_axis_drive_t *drive, const uint8_t *answer, int64_t now_us)
{
    const servo_model_t *model = model_of(drive);
    const bool high_first = model->high_first;
    uint32_t reasons = 0u;
    uint16_t low = 0u;
    uint16_t high = 0u;
    if ((ew_ft_word(field_of(answer, EW_FT_AT_MODEL), high_first) != model->number) ||
        (*field_of(answer, EW_FT_AT_NUMBER) != drive->set.address)) {
        reasons |= EW_DRIVE_ERR_MODEL;
    }
    if ((*field_of(answer, EW_FT_AT_ANSWERS) != 1u) ||
        ((*field_of(answer, EW_FT_AT_PROTECTION) & PROTECTIONS) != PROTECTIONS) ||
        ((model->mode_at != 0u) && (*field_of(answer, model->mode_at) != 0u))) {
        reasons |= EW_DRIVE_ERR_SETUP;
    }
    (void)goal_of(&drive->set, drive->span.position_min, &low);
    (void)goal_of(&drive->set, drive->span.position_max, &high);
    const uint16_t first = (low < high) ? low : high; /* a negative ratio turns them round */
    const uint16_t last = (low < high) ? high : low;
    if ((ew_ft_word(field_of(answer, EW_FT_AT_ANGLE_MIN), high_first) > first) ||
        (ew_ft_word(field_of(answer, EW_FT_AT_ANGLE_MAX), high_first) < last)) {
        reasons |= EW_DRIVE_ERR_RANGE;
    }
    drive->delay_us = (uint16_t)(DELAY_STEP_US * *field_of(answer, EW_FT_AT_DELAY));
    if (reasons != 0u) {
        ew_drive_refuse(drive, reasons, now_us);
    } else {
        drive->step = STEP_LOCK;
        ew_drive_enter(drive, EW_DRIVE_CHECKING, now_us);
        plan(drives);
    }
}

static void on_present(ew_axis_drive_t *drive, const uint8_t *p, int64_t now_us)
{
    const servo_model_t *model = model_of(drive);
    const int64_t steps = (int64_t)model->steps;
    const uint16_t raw = ew_ft_word(&p[0], model->high_first);
    const int64_t speed = ew_ft_signed(ew_ft_word(&p[2], model->high_first), SPEED_SIGN);
    const int64_t load = ew_ft_signed(ew_ft_word(&p[4], model->high_first), LOAD_SIGN);
    int32_t position = 0;
    int32_t velocity = 0;
    int32_t effort = 0;
    /* Bit 15 of the word is the sign of a position beyond one turn: out of the range of a joint, like any too large step. */
    const int64_t shaft = ew_nearest(((int64_t)raw - (steps / 2)) * model->range_nrad, steps);
    const bool valid = (raw < model->steps) && (load >= -LOAD_MAX) && (load <= LOAD_MAX) &&
                       ew_axis_position(&drive->set, shaft, &position) &&
                       ew_axis_velocity(&drive->set, ew_nearest(speed * model->range_nrad, steps), &velocity) &&
                       ew_axis_effort(&drive->set, (load * model->stall_micro_nm) / LOAD_MAX, &effort);
    drive->velocity = velocity;
    drive->effort = effort;
    drive->temperature_c = (int16_t)p[7];
    ew_drive_report(drive, valid, position, now_us);
}

static void on_torque(ew_axis_drive_t *drive, bool on, int64_t now_us)
{
    if (drive->phase == EW_DRIVE_READY) {
        drive->off = on; /* somebody else switched it on */
    } else if (!on) {
        drive->errors |= EW_DRIVE_ERR_DROPPED;
    } else if (drive->phase == EW_DRIVE_ENABLING) {
        ew_drive_enter(drive, EW_DRIVE_ON, now_us);
    } else {
        /* on, as it should be */
    }
}

static void on_answer(ew_drives_t *drives, uint8_t axis, const uint8_t *parameters, int64_t now_us)
{
    ew_axis_drive_t *drive = &drives->drive[axis];
    switch (drives->servo.asked) {
    case ASK_IDENTITY:
        on_identity(drives, drive, parameters, now_us);
        break;
    case ASK_LOCK:
        drive->step = STEP_OFF;
        break;
    case ASK_OFF:
        drive->step = STEP_DONE;
        ew_drive_enter(drive, EW_DRIVE_READY, now_us);
        break;
    case ASK_TORQUE:
        on_torque(drive, parameters[0] == 1u, now_us);
        break;
    default:
        on_present(drive, parameters, now_us);
        break;
    }
}

static uint8_t parameters_awaited(const ew_drives_t *drives, uint8_t axis)
{
    switch (drives->servo.asked) {
    case ASK_POSITION:
        return EW_FT_PRESENT_BYTES;
    case ASK_IDENTITY:
        return model_of(&drives->drive[axis])->identity_bytes;
    case ASK_TORQUE:
        return 1u;
    default:
        return 0u;
    }
}

static void on_packet(ew_drives_t *drives, const uint8_t *packet, int64_t now_us)
{
    ew_servo_bus_t *bus = &drives->servo;
    uint8_t axis = 0u;
    while ((axis < drives->axes) && (!is_servo(drives, axis) || (drives->drive[axis].set.address != packet[2]))) {
        axis++;
    }
    const bool awaited = (axis < drives->axes) && ((bus->awaited & axis_bit(axis)) != 0u) &&
                         (packet[3] == (parameters_awaited(drives, axis) + 2u));
    if (!awaited) {
        drives->bad++; /* a servo that nobody asked, or an echo of our own words */
        return;
    }
    bus->awaited ^= axis_bit(axis); /* it is set */
    bus->free_us = now_us + GAP_US;
    drives->frames++;
    drives->drive[axis].errors = (drives->drive[axis].errors & ~(uint32_t)0xFFFFu) | (packet[4] & ERROR_BITS);
    on_answer(drives, axis, &packet[5], now_us);
}

void ew_feetech_rx(ew_drives_t *drives, const uint8_t *bytes, size_t count, int64_t now_us)
{
    ew_servo_bus_t *bus = &drives->servo;
    for (size_t i = 0u; i < count; i++) {
        if (ew_ft_receive(bus->rx, &bus->rx_count, sizeof bus->rx, bytes[i], &drives->bad) > 0u) {
            on_packet(drives, bus->rx, now_us);
        }
    }
}

const ew_driver_t ew_driver_feetech = {flaw, carries, distinct, plan, NULL};
