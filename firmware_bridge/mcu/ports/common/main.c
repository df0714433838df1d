/* The MCU core on a board. Interrupts only fill rings and count; everything else runs in this loop, in order. */
#include "board.h"
#include "cortex.h"
#include "rings.h"

#include "ew_core.h"

#ifdef PORT_CAN
#include "can_loop.h"
#endif
#ifdef PORT_SERVO
#include "servo.h"
#endif
#ifdef PORT_USB
#include "usb_cdc.h"
#endif

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

/* Bit per DriveKind that there is a wire for. */
#ifdef PORT_CAN
#define MIT_BUS (1u << EW_DRIVE_KIND_MIT)
#else
#define MIT_BUS 0u
#endif
#ifdef PORT_SERVO
#define DRIVE_BUSES ((uint8_t)(MIT_BUS | (1u << EW_DRIVE_KIND_FEETECH)))
#else
#define DRIVE_BUSES ((uint8_t)MIT_BUS)
#endif
/* From the linker: instructions and constants. */
extern const uint8_t _code_begin;
extern const uint8_t _text_end;

/* Bytes sent in one turn of the loop: a UART that takes everything at once (an emulated one) must not hold the loop up. */
#define TX_BURST 16u
/* Bytes received in one turn, for the same reason. */
#define RX_BURST 64u

/* Says that a boot follows a life: the watchdog was running, and this was its last good tick. */
#define ALIVE_MAGIC 0x45574C56u

typedef struct {
    uint32_t magic;
    uint32_t tick;
    uint32_t check; /* magic ^ tick */
} alive_t;

__attribute__((section(".noinit"))) static ew_noinit_t noinit;
__attribute__((section(".noinit"))) static alive_t alive;
static ew_t core;
static uint8_t drive_off[EW_DRIVE_OFF_BYTES];
static uint32_t drive_off_count;

typedef struct {
    uint8_t bytes[EW_TX_BYTES];
    uint32_t count;
    uint32_t sent;
} outbox_t;

static outbox_t outbox[2]; /* of BOARD_LINK and BOARD_DRIVE */

/* The pin first: the frame needs the drive's cooperation. */
static void drop_enable(void)
{
    board_outputs(false, false, 0u);
    for (uint32_t i = 0u; i < drive_off_count; i++) {
        for (uint32_t spin = 0u; (spin < 10000u) && !board_send(BOARD_DRIVE, drive_off[i]); spin++) {
        }
    }
#ifdef PORT_CAN
    can_loop_off();
#endif
#ifdef PORT_SERVO
    servo_off();
#endif
}

/* The watchdog's first stage; where it is an NMI nothing masks it. The reset follows. */
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
    cortex_reset();
}

void last_words_supply(void)
{
    ew_noinit_mark(&noinit, EW_RESET_CAUSE_UNKNOWN, 0u, ew_ticks(&core));
    drop_enable();
    cortex_reset();
}

/* Up to a delimiter at most, so that each frame goes in with its own stamp. */
static void take_bytes(uint32_t stream)
{
    uint8_t bytes[RX_BURST];
    uint32_t count = 0u;
    uint64_t stamp_us = 0u;
    int32_t byte = -1;
    while ((count < RX_BURST) && (byte != 0)) {
        byte = ring_get(stream, &stamp_us);
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

/* Runs what is due, and measures how long one tick took. True if a tick ran. */
static bool run_ticks(void)
{
    ew_port_stats_t *stats = ew_port_stats(&core);
    const uint32_t before = ew_ticks(&core);
    const uint64_t began_us = board_now_us();
    ew_tick(&core, began_us);
    const uint32_t work_us = (uint32_t)(board_now_us() - began_us);
    /* After a stall several run at once: no single one is known. */
    if (((ew_ticks(&core) - before) == 1u) && (work_us > stats->tick_work_max_us)) {
        stats->tick_work_max_us = work_us;
    }
    return ew_ticks(&core) != before;
}

/* What may wait is done in turns without a tick, so that no turn is as long as both; where every turn has one, in every second. */
static bool work(bool ticked)
{
    static bool put_off;
    put_off = ticked && !put_off;
    return put_off || ew_work(&core, board_now_us());
}

/* What this port reports of itself. */
static void check_in(uint32_t *systicks_seen)
{
    static uint32_t scan_tick; /* next look at all of the stack */
    ew_port_stats_t *stats = ew_port_stats(&core);
    const uint32_t systicks = board_systicks();
    const uint32_t tick = ew_ticks(&core);
    const bool scan = (int32_t)(tick - scan_tick) >= 0;
    scan_tick = scan ? (tick + 1000u) : scan_tick;
    if (cortex_stack_intact(scan ? &stats->stack_free_min : NULL)) {
        ew_check_in(&core, EW_CHECK_STACK);
    } else {
        ew_port_fault(&core, EW_FAULT_STACK_OVERFLOW);
        board_outputs(false, false, tick);
    }
    if (!cortex_fast_intact()) {
        ew_port_fault(&core, EW_FAULT_MEMORY);
    }
    if (systicks != *systicks_seen) {
        *systicks_seen = systicks;
        ew_check_in(&core, EW_CHECK_INTERRUPT);
    }
}

/* The one place that feeds: everybody has reported. What is fed here also keeps the drive enabled: the output and the pulse of
 * the external monostable. */
static void feed(void)
{
    ew_port_stats_t *stats = ew_port_stats(&core);
    const uint32_t tick = ew_ticks(&core);
    const uint32_t margin_us = board_watchdog_feed();
    if (margin_us < stats->watchdog_margin_min_us) {
        stats->watchdog_margin_min_us = margin_us;
    }
    alive.tick = tick;
    alive.check = ALIVE_MAGIC ^ tick;
    board_outputs(ew_drive_enabled(&core), ew_brakes_open(&core), tick);
    board_light(ew_state(&core), tick);
    stats->rx_overrun = rings_overruns();
}

/* A reset that left no last words still gets a name, and the last good tick. */
static void name_the_reset(void)
{
    const bool lived = (alive.magic == ALIVE_MAGIC) && (alive.check == (ALIVE_MAGIC ^ alive.tick));
    const uint8_t cause = board_reset_cause(lived);
    if ((cause != EW_RESET_CAUSE_UNKNOWN) && !ew_noinit_marked(&noinit)) {
        ew_noinit_mark(&noinit, cause, 0u, lived ? alive.tick : 0u);
    }
    alive.magic = 0u;
}

/* What hangs on the board beside the two streams. True: there is more to do at once. */
static bool turn_buses(void)
{
#ifdef PORT_USB
    usb_cdc_turn();
#endif
#ifdef PORT_SERVO
    servo_turn(&core, board_now_us());
#endif
#ifdef PORT_CAN
    return can_loop_turn(&core, board_now_us());
#else
    return false;
#endif
}

int main(void)
{
    cortex_paint_stack();
    board_start();
    const ew_port_info_t port = {
        .entropy = board_entropy(),
        .build_id = EW_BUILD_ID,
        .tick_gap_max_us = TICK_GAP_MAX_US,
        .encoder_timeout_us = ENCODER_TIMEOUT_US,
        .clock_error_max_us = CLOCK_ERROR_MAX_US,
        .version = EW_VERSION,
        .drive_buses = DRIVE_BUSES,
        .watchdog_ms = PORT_WATCHDOG_MS,
        .checks = (1u << EW_CHECK_STACK) | (1u << EW_CHECK_COMMS) | (1u << EW_CHECK_INTERRUPT),
        .code = &_code_begin,
        .code_bytes = (uint32_t)((uintptr_t)&_text_end - (uintptr_t)&_code_begin),
    };
    uint32_t systicks_seen = 0u;
    drive_off_count = (uint32_t)ew_drive_off(drive_off);
#ifdef PORT_SERVO
    servo_start();
#endif
    name_the_reset();
    ew_init(&core, &port, &noinit, board_now_us());
    board_watchdog_start(PORT_WATCHDOG_MS);
#ifdef PORT_CAN
    (void)can_loop_start(&core, PORT_CAN, board_now_us());
#endif
    alive.tick = 0u;
    alive.check = ALIVE_MAGIC;
    alive.magic = ALIVE_MAGIC;
    for (;;) {
        take_bytes(BOARD_LINK);
        take_bytes(BOARD_DRIVE);
        ew_check_in(&core, EW_CHECK_COMMS);
        const bool ticked = run_ticks();
        ew_estop_input(&core, board_estop());
        check_in(&systicks_seen);
        if (ew_feed_allowed(&core)) {
            feed();
        }
        const bool more_work = work(ticked);
        const bool more_link = give_bytes(BOARD_LINK);
        const bool more_drive = give_bytes(BOARD_DRIVE);
        const bool more_buses = turn_buses();
#ifdef PORT_NO_WFI
        (void)more_work;
        (void)more_link;
        (void)more_drive;
        (void)more_buses;
#else
        if (!more_work && !more_link && !more_drive && !more_buses) {
            rings_sleep();
        }
#endif
    }
}
