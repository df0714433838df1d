/* MIT: motor drives on CAN that take position, velocity, two gains and a torque in one frame of 8 bytes, and answer each
 * frame with one. Damiao (DM series) and CubeMars (AK series).
 *
 * Command, to the drive's own identifier:
 *   position 16 | velocity 12 | kp 12 | kd 12 | torque 12 bits, high bits first, each a code over the model's range;
 *   FF FF FF FF FF FF FF and FC on, FD off, FE zero here (never sent), FB clear errors (Damiao).
 * Answer of a Damiao:    number in the low, state in the high half of a byte | p 16 | v 12 | t 12 | T power stage | T motor
 * Answer of a CubeMars:  number | p 16 | v 12 | t 12 | T | error
 *
 * A frame of 8 bytes takes at most 135 us at 1 Mbit/s, so three commands and their answers fill four fifths of a tick:
 * up to three drives are commanded every tick, six or seven every second or third one.
 *
 * A Damiao has a watchdog of its own (register 9, TIMEOUT, in 50 us): it lets go when no command comes. With 0 it would hold its
 * last torque for ever, and after a reset of this MCU nobody else would switch it off: refused, like more than a second. A
 * CubeMars has none that can be read in MIT mode. */
#include "ew_bytes.h"
#include "ew_can.h"
#include "ew_drive.h"
#include "ew_drive_units.h"

#define PER_TICK 3u
#define CAN_ID_MAX 0x7FEu  /* 7FF is the Damiao's register channel */
#define REGISTER_ID 0x7FFu
#define REGISTER_READ 0x33u
#define REFRESH 0xCCu
#define SWITCH_ON 0xFCu
#define SWITCH_OFF 0xFDu
#define CLEAR 0xFBu
#define POSITION_TOP 0xFFFFu
#define TOP 0xFFFu
#define GAIN_KP_MAX 500000 /* milli */
#define GAIN_KD_MAX 5000   /* milli */
#define TIMEOUT_MAX 20000u /* of 50 us: one second */
#define STATE_OFF 0u
#define STATE_ON 1u
#define NANO_PER_MILLI INT64_C(1000000)

/* Ranges: -most..most. Sources: Damiao's own table (DM_CAN, motor types), CubeMars AK series driver manual v1.0.8, 5.3. */
typedef struct {
    bool damiao;
    uint16_t position_milli_rad;
    uint32_t velocity_milli_rad_s;
    uint32_t torque_milli_nm;
} motor_model_t;

static const motor_model_t models[] = {
    [EW_MIT_MODEL_NONE] = {false, 0u, 0u, 0u},
    [EW_MIT_MODEL_DM4310] = {true, 12500u, 30000u, 10000u},
    [EW_MIT_MODEL_DM4310_48V] = {true, 12500u, 50000u, 10000u},
    [EW_MIT_MODEL_DM4340] = {true, 12500u, 8000u, 28000u},
    [EW_MIT_MODEL_DM4340_48V] = {true, 12500u, 10000u, 28000u},
    [EW_MIT_MODEL_DM6006] = {true, 12500u, 45000u, 20000u},
    [EW_MIT_MODEL_DM8006] = {true, 12500u, 45000u, 40000u},
    [EW_MIT_MODEL_DM8009] = {true, 12500u, 45000u, 54000u},
    [EW_MIT_MODEL_DM10010L] = {true, 12500u, 25000u, 200000u},
    [EW_MIT_MODEL_DM10010] = {true, 12500u, 20000u, 200000u},
    [EW_MIT_MODEL_DMH3510] = {true, 12500u, 280000u, 1000u},
    [EW_MIT_MODEL_DMH6215] = {true, 12500u, 45000u, 10000u},
    [EW_MIT_MODEL_DMG6220] = {true, 12500u, 45000u, 10000u},
    [EW_MIT_MODEL_AK10_9] = {false, 12500u, 50000u, 65000u},
    [EW_MIT_MODEL_AK60_6] = {false, 12500u, 45000u, 15000u},
    [EW_MIT_MODEL_AK70_10] = {false, 12500u, 50000u, 25000u},
    [EW_MIT_MODEL_AK80_6] = {false, 12500u, 76000u, 12000u},
    [EW_MIT_MODEL_AK80_9] = {false, 12500u, 50000u, 18000u},
    [EW_MIT_MODEL_AK80_64] = {false, 12500u, 8000u, 144000u},
};
#define MODELS ((uint8_t)(sizeof(models) / sizeof(models[0])))

/* The start: off, errors cleared, then its registers against what was bound, then off once more, acknowledged. */
enum { STEP_QUIET = 0, STEP_CLEAR, STEP_MODE, STEP_POSITION, STEP_VELOCITY, STEP_TORQUE, STEP_TIMEOUT, STEP_OFF, STEP_DONE };

static uint8_t register_of(uint8_t step)
{
    static const uint8_t registers[] = {
        [STEP_MODE] = 10u, [STEP_POSITION] = 21u, [STEP_VELOCITY] = 22u, [STEP_TORQUE] = 23u, [STEP_TIMEOUT] = 9u};
    return registers[step];
}

static const motor_model_t *model_of(const ew_axis_drive_t *drive)
{
    return &models[drive->set.model];
}

static bool is_motor(const ew_drives_t *drives, uint8_t axis)
{
    return ew_drive_is(drives, axis, EW_DRIVE_KIND_MIT);
}

static int64_t position_most(const motor_model_t *model)
{
    return (int64_t)model->position_milli_rad * NANO_PER_MILLI;
}

static int64_t velocity_most(const motor_model_t *model)
{
    return (int64_t)model->velocity_milli_rad_s * NANO_PER_MILLI;
}

/* ---- binding ---- */

static int32_t flaw(const ew_drive_set_t *set)
{
    if ((set->model == EW_MIT_MODEL_NONE) || (set->model >= MODELS)) {
        return 2;
    }
    if ((set->address == 0u) || (set->address > CAN_ID_MAX)) {
        return 3;
    }
    if (set->reply > CAN_ID_MAX) {
        return 4;
    }
    if ((set->kp == 0u) || (set->kp > (uint32_t)GAIN_KP_MAX)) {
        return 8;
    }
    /* Damiao's manual: a position gain without damping oscillates out of control. */
    return ((set->kd == 0u) || (set->kd > (uint32_t)GAIN_KD_MAX)) ? 9 : -1;
}

static bool position_code(const ew_drive_set_t *set, int32_t micro, uint32_t *code)
{
    const int64_t most = position_most(&models[set->model]);
    int64_t shaft;
    return ew_shaft_position(set, micro, &shaft) && ew_code_of(shaft, most, POSITION_TOP, code);
}

static bool velocity_code(const ew_drive_set_t *set, int32_t micro, uint32_t *code)
{
    const int64_t most = velocity_most(&models[set->model]);
    int64_t shaft;
    return ew_shaft_velocity(set, micro, &shaft) && ew_code_of(shaft, most, TOP, code);
}

/* The outermost codes are what a drive beyond its range says, so they are not for us to use. */
static bool within(uint32_t code)
{
    return (code > 0u) && (code < POSITION_TOP);
}

static bool carries(const ew_drive_set_t *set, const ew_drive_span_t *span)
{
    uint32_t low;
    uint32_t high;
    uint32_t fastest;
    return position_code(set, span->position_min, &low) && position_code(set, span->position_max, &high) &&
           within(low) && within(high) && velocity_code(set, (int32_t)span->velocity_max, &fastest);
}

static uint8_t number_in_answer(const ew_drive_set_t *set)
{
    return (uint8_t)(set->address & (models[set->model].damiao ? 0xFu : 0xFFu));
}

static bool distinct(const ew_drive_set_t *one, const ew_drive_set_t *other)
{
    /* An answer must belong to one drive only, whichever of the two layouts it is read by. */
    return (one->address != other->address) && (one->address != other->reply) && (one->reply != other->address) &&
           ((one->reply != other->reply) || ((one->address & 0xFu) != (other->address & 0xFu)));
}

static void plan(ew_drives_t *drives)
{
    uint8_t motors = 0u;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        motors = (uint8_t)(motors + (is_motor(drives, axis) ? 1u : 0u));
    }
    drives->motor.cycle_ticks = (uint8_t)((motors + PER_TICK - 1u) / PER_TICK);
}

static void tick(ew_drives_t *drives, uint32_t number)
{
    uint8_t motors = 0u;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        if (is_motor(drives, axis)) {
            const uint32_t turn = number % drives->motor.cycle_ticks;
            drives->drive[axis].due = drives->drive[axis].due || ((motors / PER_TICK) == turn);
            motors++;
        }
    }
}

/* ---- what is sent ---- */

const uint8_t ew_mit_off[8] = {0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu, SWITCH_OFF};

static void special(ew_can_frame_t *frame, uint16_t id, uint8_t word)
{
    const ew_can_frame_t made = {
        .id = id, .count = 8u, .data = {0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu, 0xFFu, word}};
    *frame = made;
}

static void on_register(ew_can_frame_t *frame, uint16_t id, uint8_t what, uint8_t number)
{
    const ew_can_frame_t made = {
        .id = REGISTER_ID, .count = 8u, .data = {(uint8_t)(id & 0xFFu), (uint8_t)(id >> 8), what, number}};
    *frame = made;
}

static uint32_t gain_code(uint32_t milli, int64_t most)
{
    return (uint32_t)ew_nearest((int64_t)milli * (int64_t)TOP, most);
}

static bool command(ew_drives_t *drives, uint8_t axis, ew_can_frame_t *frame)
{
    ew_axis_drive_t *drive = &drives->drive[axis];
    const uint32_t kp = gain_code(drive->set.kp, GAIN_KP_MAX);
    const uint32_t kd = gain_code(drive->set.kd, GAIN_KD_MAX);
    const uint32_t torque = TOP / 2u; /* nothing on top of what the gains give */
    uint32_t p;
    uint32_t v;
    if (!position_code(&drive->set, drives->setpoint[axis], &p) || !velocity_code(&drive->set, drives->velocity[axis], &v)) {
        drive->errors |= EW_DRIVE_ERR_SETPOINT; /* the limits were checked against the range: never */
        return false;
    }
    const ew_can_frame_t made = {
        .id = drive->set.address,
        .count = 8u,
        .data = {(uint8_t)(p >> 8), (uint8_t)(p & 0xFFu), (uint8_t)(v >> 4), (uint8_t)(((v & 0xFu) << 4) | (kp >> 8)),
                 (uint8_t)(kp & 0xFFu), (uint8_t)(kd >> 4), (uint8_t)(((kd & 0xFu) << 4) | (torque >> 8)),
                 (uint8_t)(torque & 0xFFu)}};
    *frame = made;
    return true;
}

static void start(ew_axis_drive_t *drive, ew_can_frame_t *frame)
{
    const uint16_t id = drive->set.address;
    switch (drive->step) {
    case STEP_QUIET:
        special(frame, id, SWITCH_OFF);
        drive->step = model_of(drive)->damiao ? STEP_CLEAR : STEP_OFF;
        break;
    case STEP_CLEAR:
        special(frame, id, CLEAR);
        drive->step = STEP_MODE;
        break;
    case STEP_OFF:
        special(frame, id, SWITCH_OFF);
        break;
    default:
        on_register(frame, id, REGISTER_READ, register_of(drive->step));
        break;
    }
}

/* The frame whose turn it is for a drive; false: none. */
static bool frame_for(ew_drives_t *drives, uint8_t axis, ew_can_frame_t *frame, int64_t now_us)
{
    ew_axis_drive_t *drive = &drives->drive[axis];
    if (drive->phase == EW_DRIVE_REFUSED) {
        return false;
    }
    if (drive->step != STEP_DONE) {
        start(drive, frame);
        return true;
    }
    if (drives->on && (drive->phase == EW_DRIVE_ON)) {
        return command(drives, axis, frame);
    }
    if (drives->on) {
        special(frame, drive->set.address, SWITCH_ON);
        if (drive->phase == EW_DRIVE_READY) {
            ew_drive_enter(drive, EW_DRIVE_ENABLING, now_us);
        }
        return true;
    }
    if (model_of(drive)->damiao) {
        on_register(frame, drive->set.address, REFRESH, 0u);
    } else {
        special(frame, drive->set.address, SWITCH_OFF); /* the one frame that is answered and moves nothing */
    }
    return true;
}

static bool switch_off(ew_drives_t *drives, ew_can_frame_t *frame, int64_t now_us)
{
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        ew_axis_drive_t *drive = &drives->drive[axis];
        if (is_motor(drives, axis) && drive->off) {
            special(frame, drive->set.address, SWITCH_OFF);
            drive->off = false;
            if (drive->step == STEP_DONE) {
                drive->step = STEP_OFF; /* again until it is acknowledged */
                ew_drive_enter(drive, EW_DRIVE_CHECKING, now_us);
            }
            return true;
        }
    }
    return false;
}

bool ew_mit_off_due(const ew_drives_t *drives)
{
    bool due = false;
    for (uint8_t axis = 0u; axis < drives->axes; axis++) {
        due = due || (is_motor(drives, axis) && drives->drive[axis].off);
    }
    return due;
}

bool ew_mit_tx(ew_drives_t *drives, ew_can_frame_t *frame, int64_t now_us)
{
    bool made = switch_off(drives, frame, now_us);
    for (uint8_t axis = 0u; (axis < drives->axes) && !made; axis++) {
        if (is_motor(drives, axis) && drives->drive[axis].due) {
            drives->drive[axis].due = false;
            made = frame_for(drives, axis, frame, now_us);
        }
    }
    return made;
}

uint8_t ew_mit_last_words(const ew_drives_t *drives, uint16_t *ids, uint8_t capacity)
{
    uint8_t count = 0u;
    for (uint8_t axis = 0u; (axis < drives->axes) && (count < capacity); axis++) {
        if (is_motor(drives, axis)) {
            ids[count] = drives->drive[axis].set.address;
            count++;
        }
    }
    return count;
}

/* ---- what comes back ---- */

/* The value of an IEEE 754 single in thousandths, -1 if it is not a positive one below 2^21. Read by hand: no float here. */
static int64_t milli_of_single(uint32_t bits)
{
    const uint32_t biased = (bits >> 23) & 0xFFu; /* exponent + 127 */
    const uint32_t mantissa = (bits & 0x7FFFFFu) | 0x800000u;
    if (((bits >> 31) != 0u) || (biased < 117u) || (biased > 147u)) {
        return -1;
    }
    const uint64_t unit = UINT64_C(1) << (150u - biased);
    return ew_nearest((int64_t)mantissa * 1000, (int64_t)unit);
}

/* Compares a register with what was bound; the reason to refuse it, or 0. */
static uint32_t judge(const ew_axis_drive_t *drive, uint32_t value)
{
    const motor_model_t *model = model_of(drive);
    switch (drive->step) {
    case STEP_MODE:
        return (value == 1u) ? 0u : EW_DRIVE_ERR_SETUP; /* 1: MIT */
    case STEP_POSITION:
        return (milli_of_single(value) == (int64_t)model->position_milli_rad) ? 0u : EW_DRIVE_ERR_MODEL;
    case STEP_VELOCITY:
        return (milli_of_single(value) == (int64_t)model->velocity_milli_rad_s) ? 0u : EW_DRIVE_ERR_MODEL;
    case STEP_TORQUE:
        return (milli_of_single(value) == (int64_t)model->torque_milli_nm) ? 0u : EW_DRIVE_ERR_MODEL;
    default:
        return ((value != 0u) && (value <= TIMEOUT_MAX)) ? 0u : EW_DRIVE_ERR_TIMEOUT;
    }
}

static bool reads_registers(const ew_axis_drive_t *drive)
{
    return (drive->step >= STEP_MODE) && (drive->step <= STEP_TIMEOUT);
}

static void on_register_value(ew_axis_drive_t *drive, uint32_t value, int64_t now_us)
{
    const uint32_t reason = judge(drive, value);
    if (reason != 0u) {
        ew_drive_refuse(drive, reason, now_us);
    } else {
        drive->step++;
        ew_drive_enter(drive, EW_DRIVE_CHECKING, now_us);
    }
}

/* What the state in the answer (or, of a CubeMars, the answer itself) says about the torque. */
static void on_state(ew_drives_t *drives, ew_axis_drive_t *drive, bool says_on, bool says_off, int64_t now_us)
{
    if ((drive->step == STEP_OFF) && says_off) {
        drive->step = STEP_DONE;
        ew_drive_enter(drive, EW_DRIVE_READY, now_us);
    } else if ((drive->phase == EW_DRIVE_ENABLING) && says_on && drives->on) {
        ew_drive_enter(drive, EW_DRIVE_ON, now_us);
    } else if ((drive->phase == EW_DRIVE_ON) && drives->on && !says_on) {
        drive->errors |= EW_DRIVE_ERR_DROPPED;
    } else if ((drive->phase == EW_DRIVE_READY) && !says_off) {
        drive->off = true; /* somebody else switched it on */
    } else {
        /* as it should be, or about to be */
    }
}

static void on_feedback(ew_drives_t *drives, ew_axis_drive_t *drive, const uint8_t *data, int64_t now_us)
{
    const motor_model_t *model = model_of(drive);
    const uint32_t p = ((uint32_t)data[1] << 8) | data[2];
    const uint32_t v = ((uint32_t)data[3] << 4) | ((uint32_t)data[4] >> 4);
    const uint32_t t = (((uint32_t)data[4] & 0xFu) << 8) | data[5];
    const int64_t torque_most = (int64_t)model->torque_milli_nm * 1000;
    int32_t position = 0;
    int32_t velocity = 0;
    int32_t effort = 0;
    const bool valid = within(p) &&
                       ew_axis_position(&drive->set, ew_value_of(p, position_most(model), POSITION_TOP), &position) &&
                       ew_axis_velocity(&drive->set, ew_value_of(v, velocity_most(model), TOP), &velocity) &&
                       ew_axis_effort(&drive->set, ew_value_of(t, torque_most, TOP), &effort);
    uint32_t error = data[7];
    if (model->damiao) {
        const uint32_t state = (uint32_t)data[0] >> 4;
        const bool wrong = (state != STATE_OFF) && (state != STATE_ON);
        error = wrong ? state : 0u;
        on_state(drives, drive, state == STATE_ON, state == STATE_OFF, now_us);
        drive->temperature_c = (int16_t)((data[6] > data[7]) ? data[6] : data[7]);
    } else {
        /* It does not say whether it is on. That it answers what switches it on or off has to do. */
        const bool told_on = (drive->phase == EW_DRIVE_ENABLING) || (drive->phase == EW_DRIVE_ON);
        on_state(drives, drive, told_on, !told_on, now_us);
        drive->temperature_c = (int16_t)(int8_t)data[6];
    }
    drive->errors = (drive->errors & ~(uint32_t)0xFFFFu) | error;
    drive->velocity = velocity;
    drive->effort = effort;
    ew_drive_report(drive, valid, position, now_us);
}

static bool is_from(const ew_axis_drive_t *drive, const ew_can_frame_t *frame)
{
    if (drive->set.reply != frame->id) {
        return false;
    }
    if (reads_registers(drive)) {
        return (frame->data[0] == (uint8_t)(drive->set.address & 0xFFu)) &&
               (frame->data[1] == (uint8_t)(drive->set.address >> 8)) && (frame->data[2] == REGISTER_READ) &&
               (frame->data[3] == register_of(drive->step));
    }
    const uint8_t number = (uint8_t)(frame->data[0] & (model_of(drive)->damiao ? 0xFu : 0xFFu));
    return number == number_in_answer(&drive->set);
}

void ew_mit_rx(ew_drives_t *drives, const ew_can_frame_t *frame, int64_t now_us)
{
    uint8_t axis = 0u;
    while ((axis < drives->axes) && (!is_motor(drives, axis) || !is_from(&drives->drive[axis], frame))) {
        axis++;
    }
    if ((frame->count != 8u) || frame->remote || (axis == drives->axes)) {
        drives->bad++;
        return;
    }
    ew_axis_drive_t *drive = &drives->drive[axis];
    drives->frames++;
    if (drive->phase == EW_DRIVE_REFUSED) {
        return; /* nothing that it says now makes it what was bound */
    }
    if (reads_registers(drive)) {
        on_register_value(drive, ew_get_u32(&frame->data[4]), now_us);
    } else {
        on_feedback(drives, drive, frame->data, now_us);
    }
}

const ew_driver_t ew_driver_mit = {flaw, carries, distinct, plan, tick};
