#include "lib.h"

#include "lib_mcu.h"

#include <stdlib.h>
#include <string.h>

#ifndef EW_BUILD_ID
#error "build with firmware_bridge/mcu/build.py, which passes EW_BUILD_ID"
#endif

static void boot(ewl_t *mcu, uint64_t now_us)
{
    const ew_port_info_t port = {
        .entropy = mcu->seed,
        .build_id = EW_BUILD_ID,
        .tick_gap_max_us = EW_TICK_GAP_MAX_US,
        .encoder_timeout_us = EW_ENCODER_TIMEOUT_US,
        .clock_error_max_us = EW_CLOCK_ERROR_MAX_US,
        .version = EW_VERSION,
        .watchdog_ms = 0u,
        .drive_buses = (1u << EW_DRIVE_KIND_FEETECH) | (1u << EW_DRIVE_KIND_MIT),
    };
    ew_init(&mcu->core, &port, &mcu->noinit, now_us);
}

ewl_t *ewl_create(uint32_t seed, uint64_t now_us)
{
    ewl_t *mcu = calloc(1u, sizeof *mcu);
    if (mcu != NULL) {
        mcu->seed = seed;
        boot(mcu, now_us);
    }
    return mcu;
}

void ewl_destroy(ewl_t *mcu)
{
    free(mcu);
}

void ewl_reset(ewl_t *mcu, uint8_t cause, uint32_t pc, uint64_t now_us)
{
    ew_noinit_mark(&mcu->noinit, cause, pc, ew_ticks(&mcu->core));
    boot(mcu, now_us);
}

void ewl_rx(ewl_t *mcu, const uint8_t *bytes, size_t count, uint64_t now_us)
{
    size_t from = 0u;
    for (size_t i = 0u; i < count; i++) {
        if ((bytes[i] == 0u) || ((i + 1u) == count)) { /* as a board does: one frame, then what it asked for */
            ew_rx(&mcu->core, &bytes[from], (i + 1u) - from, now_us, now_us);
            ewl_finish_work(mcu, now_us);
            from = i + 1u;
        }
    }
}

size_t ewl_tx(ewl_t *mcu, uint8_t *bytes, size_t capacity)
{
    return ew_tx(&mcu->core, bytes, capacity);
}

void ewl_tick(ewl_t *mcu, uint64_t now_us)
{
    ew_tick(&mcu->core, now_us);
    ewl_finish_work(mcu, now_us);
}

void ewl_slices(ewl_t *mcu, uint8_t callers)
{
    mcu->sliced = callers != 0u;
}

uint8_t ewl_work(ewl_t *mcu, uint64_t now_us)
{
    return ew_work(&mcu->core, now_us) ? 1u : 0u;
}

void ewl_finish_work(ewl_t *mcu, uint64_t now_us)
{
    while (!mcu->sliced && ew_work(&mcu->core, now_us)) {
    }
}

void ewl_encoder(ewl_t *mcu, const int32_t *position, const int32_t *effort, uint8_t axes, uint64_t now_us)
{
    ew_drive_encoder(&mcu->core, position, effort, axes, now_us);
}

uint8_t ewl_setpoint(const ewl_t *mcu, int32_t *setpoint, uint8_t capacity, uint8_t *enable)
{
    *enable = ew_drive_enabled(&mcu->core) ? 1u : 0u;
    return ew_drive_setpoint(&mcu->core, setpoint, capacity);
}

void ewl_drive_rx(ewl_t *mcu, const uint8_t *bytes, size_t count, uint64_t now_us)
{
    ew_drive_rx(&mcu->core, bytes, count, now_us);
}

size_t ewl_drive_tx(ewl_t *mcu, uint8_t *bytes, size_t capacity)
{
    return ew_drive_tx(&mcu->core, bytes, capacity);
}

size_t ewl_servo_tx(ewl_t *mcu, uint8_t *bytes, size_t capacity, uint64_t now_us)
{
    return ew_servo_tx(&mcu->core, bytes, capacity, now_us);
}

void ewl_servo_rx(ewl_t *mcu, const uint8_t *bytes, size_t count, uint64_t now_us)
{
    ew_servo_rx(&mcu->core, bytes, count, now_us);
}

uint8_t ewl_motor_tx(ewl_t *mcu, uint16_t *id, uint8_t *data, uint64_t now_us)
{
    ew_can_frame_t frame;
    const bool made = ew_motor_tx(&mcu->core, &frame, now_us);
    if (made) {
        *id = frame.id;
        memcpy(data, frame.data, 8u);
    }
    return made ? 1u : 0u;
}

void ewl_motor_rx(ewl_t *mcu, uint16_t id, const uint8_t *data, uint8_t count, uint64_t now_us)
{
    ew_can_frame_t frame = {.id = id, .count = count};
    memcpy(frame.data, data, (count < sizeof frame.data) ? count : sizeof frame.data);
    ew_motor_rx(&mcu->core, &frame, now_us);
}

size_t ewl_last_words(const ewl_t *mcu, uint8_t *servo, uint16_t *ids, uint8_t *motors)
{
    *motors = ew_motor_off(&mcu->core, ids, EW_MAX_AXES);
    return ew_servo_off(servo);
}

void ewl_wants_checks(ewl_t *mcu, uint8_t checks)
{
    mcu->core.port.checks = checks;
}

void ewl_watches_code(ewl_t *mcu, const uint8_t *code, uint32_t count)
{
    mcu->core.port.code = code;
    mcu->core.port.code_bytes = count;
}

void ewl_estop_input(ewl_t *mcu, uint8_t pressed)
{
    ew_estop_input(&mcu->core, pressed != 0u);
}

uint8_t ewl_state(const ewl_t *mcu)
{
    return ew_state(&mcu->core);
}

uint8_t ewl_feed_allowed(ewl_t *mcu)
{
    return ew_feed_allowed(&mcu->core) ? 1u : 0u;
}

uint32_t ewl_schema_hash(void)
{
    return EW_SCHEMA_HASH;
}
