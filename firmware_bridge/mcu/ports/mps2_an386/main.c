/* The MCU core on the MPS2 AN386. Interrupts only fill rings and count; everything else runs in this loop, in order. */
#include "board.h"

#include "ew_core.h"

#ifndef EW_BUILD_ID
#error "build with firmware_bridge/mcu/build.py, which passes EW_BUILD_ID"
#endif

#ifdef PORT_REALTIME
/* Under an emulator on a shared PC: it stalls for tens of ms although nothing is wrong, and so does the simulated drive. */
#define TICK_GAP_MAX_US 250000u
#define ENCODER_TIMEOUT_US 250000u
#define CLOCK_ERROR_MAX_US 5000u
#else
#define TICK_GAP_MAX_US EW_TICK_GAP_MAX_US
#define ENCODER_TIMEOUT_US EW_ENCODER_TIMEOUT_US
#define CLOCK_ERROR_MAX_US EW_CLOCK_ERROR_MAX_US
#endif

/* Bytes sent in one turn of the loop: a UART that takes everything at once (an emulated one) must not hold the loop up. */
#define TX_BURST 16u
/* Bytes received in one turn, for the same reason. */
#define RX_BURST 64u

__attribute__((section(".noinit"))) static ew_noinit_t noinit;
static ew_t core;
static uint8_t drive_off[EW_DRIVE_OFF_BYTES];
static uint32_t drive_off_count;

typedef struct {
    uint8_t bytes[EW_TX_BYTES];
    uint32_t count;
    uint32_t sent;
} outbox_t;

static outbox_t outbox[BOARD_STREAMS];

void last_words_watchdog(const uint32_t *stack);
void last_words_fault(const uint32_t *stack);

static void drop_enable(void)
{
    for (uint32_t i = 0u; i < drive_off_count; i++) {
        for (uint32_t spin = 0u; (spin < 10000u) && !board_send(BOARD_DRIVE, drive_off[i]); spin++) {
        }
    }
}

/* The watchdog's first stage, as NMI: nothing masks it. Its second stage follows. */
__attribute__((used)) void last_words_watchdog(const uint32_t *stack)
{
    ew_noinit_mark(&noinit, EW_RESET_CAUSE_WATCHDOG, stack[6], ew_ticks(&core));
    drop_enable();
    for (;;) {
    }
}

__attribute__((used)) void last_words_fault(const uint32_t *stack)
{
    ew_noinit_mark(&noinit, EW_RESET_CAUSE_HARD_FAULT, stack[6], ew_ticks(&core));
    drop_enable();
    board_reset();
}

/* Up to a delimiter at most, so that each frame goes in with its own stamp. */
static void take_bytes(uint32_t stream)
{
    uint8_t bytes[RX_BURST];
    uint32_t count = 0u;
    uint64_t stamp_us = 0u;
    int32_t byte = -1;
    while ((count < RX_BURST) && (byte != 0)) {
        byte = board_receive(stream, &stamp_us);
        if (byte < 0) {
            break;
        }
        bytes[count] = (uint8_t)byte;
        count++;
    }
    if (count > 0u) {
        const uint64_t now_us = board_now_us();
        if (byte != 0) {
            stamp_us = now_us; /* no frame ends here, so nothing uses it */
        }
        if (stream == BOARD_LINK) {
            ew_rx(&core, bytes, count, stamp_us, now_us);
        } else {
            ew_drive_rx(&core, bytes, count, stamp_us);
        }
    }
}

/* Returns true while there is more to send and the UART still takes it. */
static bool give_bytes(uint32_t stream)
{
    outbox_t *box = &outbox[stream];
    if (box->sent == box->count) {
        box->sent = 0u;
        box->count = (uint32_t)((stream == BOARD_LINK) ? ew_tx(&core, box->bytes, sizeof box->bytes)
                                                       : ew_drive_tx(&core, box->bytes, sizeof box->bytes));
    }
    uint32_t burst = 0u;
    while ((burst < TX_BURST) && (box->sent < box->count) && board_send(stream, box->bytes[box->sent])) {
        box->sent++;
        burst++;
    }
    return (box->sent < box->count) && (burst == TX_BURST);
}

/* The one place that feeds: the tick was good, its interrupt came, and the stack is intact. */
static void feed_if_good(uint32_t *systicks_seen)
{
    ew_port_stats_t *stats = ew_port_stats(&core);
    const uint32_t systicks = board_systicks();
    const bool once_a_second = (ew_ticks(&core) % 1000u) == 0u;
    const bool intact = board_stack_intact(once_a_second ? &stats->stack_free_min : NULL);
    if (!intact) {
        ew_port_fault(&core, EW_FAULT_STACK_OVERFLOW);
    }
    if (intact && (systicks != *systicks_seen)) {
        *systicks_seen = systicks;
        const uint32_t margin_us = board_watchdog_feed();
        if (margin_us < stats->watchdog_margin_min_us) {
            stats->watchdog_margin_min_us = margin_us;
        }
        stats->rx_overrun = board_overruns();
    }
}

int main(void)
{
    const ew_port_info_t port = {
        .entropy = 0u, /* no source of it on this board: sessions differ by boot count and by their predecessor */
        .build_id = EW_BUILD_ID,
        .tick_gap_max_us = TICK_GAP_MAX_US,
        .encoder_timeout_us = ENCODER_TIMEOUT_US,
        .clock_error_max_us = CLOCK_ERROR_MAX_US,
        .version = EW_VERSION,
        .watchdog_ms = PORT_WATCHDOG_MS,
    };
    uint32_t systicks_seen = 0u;
    board_start();
    drive_off_count = (uint32_t)ew_drive_off(drive_off);
    ew_init(&core, &port, &noinit, board_now_us());
    board_watchdog_start(PORT_WATCHDOG_MS);
    for (;;) {
        take_bytes(BOARD_LINK);
        take_bytes(BOARD_DRIVE);
        ew_tick(&core, board_now_us());
        if (ew_feed_allowed(&core)) {
            feed_if_good(&systicks_seen);
        }
        const bool more_link = give_bytes(BOARD_LINK);
        const bool more_drive = give_bytes(BOARD_DRIVE);
#ifdef PORT_NO_WFI
        (void)more_link;
        (void)more_drive;
#else
        if (!more_link && !more_drive) {
            board_sleep();
        }
#endif
    }
}
