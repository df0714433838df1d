#include "can_link.h"

#define RX_BURST 8u
#define TX_BURST 4u

bool can_link_start(ew_t *core, uint8_t node, uint32_t bitrate, uint32_t data_bitrate, uint64_t now_us)
{
    const can_hal_config_t config = {
        .bitrate = bitrate,
        .data_bitrate = data_bitrate,
        .match = {EW_CAN_ID_ESTOP, (uint16_t)((uint32_t)node << 4)},
        .mask = {0x7FFu, 0x0F0u},
    };
    const bool started = can_hal_start(CAN_HAL_LINK, &config);
    if (started) {
        ew_can_start(core, node, now_us);
    }
    return started;
}

bool can_link_turn(ew_t *core, uint64_t now_us)
{
    ew_can_frame_t frame;
    can_hal_status_t status;
    uint64_t stamp_us = now_us;
    uint32_t received = 0u;
    while ((received < RX_BURST) && can_hal_receive(CAN_HAL_LINK, &frame, &stamp_us)) {
        ew_can_rx(core, &frame, stamp_us, now_us);
        received++;
    }
    can_hal_status(CAN_HAL_LINK, &status);
    if (status.bus_off) {
        can_hal_flush(CAN_HAL_LINK);
    }
    ew_can_status(core, status.errors + status.overruns, status.bus_offs, status.bus_off);
    uint32_t sent = 0u;
    while ((sent < TX_BURST) && ew_can_tx(core, &frame) && can_hal_send(CAN_HAL_LINK, &frame)) {
        ew_can_tx_done(core);
        sent++;
    }
    return can_hal_service(CAN_HAL_LINK) || (sent == TX_BURST) || (received == RX_BURST);
}
