#include "servo.h"

#include "board.h"
#include "rings.h"
#include "uart.h"

static uint8_t off[EW_SERVO_TX_BYTES];
static uint32_t off_count;

void servo_start(void)
{
    off_count = (uint32_t)ew_servo_off(off);
}

void servo_turn(ew_t *core, uint64_t now_us)
{
    uint8_t bytes[EW_SERVO_TX_BYTES];
    uint32_t count = 0u;
    uint64_t stamp_us = now_us;
    while (count < sizeof bytes) {
        const int32_t byte = ring_get(BOARD_SERVO, &stamp_us);
        if (byte < 0) {
            break;
        }
        bytes[count] = (uint8_t)byte;
        count++;
    }
    if (count > 0u) {
        ew_servo_rx(core, bytes, count, now_us);
    }
    if (uart_packet_done()) {
        count = (uint32_t)ew_servo_tx(core, bytes, sizeof bytes, now_us);
        (void)uart_packet(BOARD_SERVO, bytes, count);
    }
}

void servo_off(void)
{
    for (uint32_t i = 0u; i < off_count; i++) {
        for (uint32_t spin = 0u; (spin < 10000u) && !board_send(BOARD_SERVO, off[i]); spin++) {
        }
    }
}
