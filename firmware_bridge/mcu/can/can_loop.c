#include "can_loop.h"

#include "ew_drive.h"

#define RX_BURST 8u /* frames a turn */
#define TX_BURST 4u

static bool link_on;
static bool motors_on;
static bool motor_waits;
static bool motor_off; /* torque off is on its way; what is before it belongs to it */
static ew_can_frame_t motor_frame;
static uint16_t motor_ids[EW_MAX_AXES];
static volatile uint8_t motor_count;

bool can_loop_start(ew_t *core, uint8_t node, uint64_t now_us)
{
    const can_hal_config_t link = {
        .bitrate = CAN_LOOP_BITRATE,
        .data_bitrate = CAN_LOOP_DATA_BITRATE,
        .match = {EW_CAN_ID_ESTOP, (uint16_t)((uint32_t)node << 4)},
        .mask = {0x7FFu, 0x0F0u},
    };
    const can_hal_config_t motors = {.bitrate = CAN_LOOP_BITRATE, .data_bitrate = 0u, .match = {0u, 0u}, .mask = {0u, 0u}};
    link_on = can_hal_start(CAN_HAL_LINK, &link);
    motors_on = can_hal_start(CAN_HAL_DRIVE, &motors);
    if (link_on) {
        ew_can_start(core, node, now_us);
    }
    return link_on && motors_on;
}

static bool link_turn(ew_t *core, uint64_t now_us)
{
    ew_can_frame_t frame;
    can_hal_status_t status;
    uint64_t stamp_us = now_us;
    uint32_t received = 0u;
    uint32_t sent = 0u;
    while ((received < RX_BURST) && can_hal_receive(CAN_HAL_LINK, &frame, &stamp_us)) {
        ew_can_rx(core, &frame, stamp_us, now_us);
        received++;
    }
    can_hal_status(CAN_HAL_LINK, &status);
    if (status.bus_off) {
        can_hal_flush(CAN_HAL_LINK);
    }
    ew_can_status(core, status.errors + status.overruns, status.bus_offs, status.bus_off);
    while ((sent < TX_BURST) && ew_can_tx(core, &frame) && can_hal_send(CAN_HAL_LINK, &frame)) {
        ew_can_tx_done(core);
        sent++;
    }
    return can_hal_service(CAN_HAL_LINK) || (sent == TX_BURST) || (received == RX_BURST);
}

/* Torque off waits for nothing. When it falls due, what was made before it is thrown away: the frame that is kept here and
 * those that the controller holds. They are commands of a drive that is to be off, or are made again. */
static void make_way(const ew_t *core)
{
    const bool due = ew_motor_off_due(core);
    if (due && !motor_off) {
        motor_waits = false;
        can_hal_flush(CAN_HAL_DRIVE);
    }
    motor_off = due;
}

/* A frame that was fetched is kept until the controller takes it: the drives ask and answer in step. */
static bool motor_turn(ew_t *core, uint64_t now_us)
{
    ew_can_frame_t frame;
    uint64_t stamp_us = now_us;
    uint32_t received = 0u;
    uint32_t sent = 0u;
    while ((received < RX_BURST) && can_hal_receive(CAN_HAL_DRIVE, &frame, &stamp_us)) {
        ew_motor_rx(core, &frame, stamp_us);
        received++;
    }
    make_way(core);
    while (sent < TX_BURST) {
        if (!motor_waits) {
            motor_waits = ew_motor_tx(core, &motor_frame, now_us);
        }
        if (!motor_waits || !can_hal_send(CAN_HAL_DRIVE, &motor_frame)) {
            break;
        }
        motor_waits = false;
        sent++;
    }
    motor_count = ew_motor_off(core, motor_ids, EW_MAX_AXES);
    return can_hal_service(CAN_HAL_DRIVE) || (sent == TX_BURST) || (received == RX_BURST);
}

bool can_loop_turn(ew_t *core, uint64_t now_us)
{
    bool more = false;
    if (link_on) {
        more = link_turn(core, now_us);
    }
    if (motors_on) {
        more = motor_turn(core, now_us) || more;
    }
    return more;
}

void can_loop_off(void)
{
    ew_can_frame_t frame = {.count = EW_CAN_CLASSIC_BYTES};
    for (uint32_t i = 0u; i < EW_CAN_CLASSIC_BYTES; i++) {
        frame.data[i] = ew_mit_off[i];
    }
    if (!motors_on) {
        return;
    }
    can_hal_flush(CAN_HAL_DRIVE);
    /* Twice: nobody repeats these, and a frame may be lost. */
    for (uint32_t i = 0u; i < (2u * motor_count); i++) {
        bool taken = false;
        frame.id = motor_ids[i % motor_count];
        for (uint32_t spin = 0u; (spin < 10000u) && !taken; spin++) {
            taken = can_hal_send(CAN_HAL_DRIVE, &frame);
            (void)can_hal_service(CAN_HAL_DRIVE);
        }
    }
    for (uint32_t spin = 0u; (spin < 1000u) && can_hal_service(CAN_HAL_DRIVE); spin++) {
    }
}
