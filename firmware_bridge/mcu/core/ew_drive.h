/* The axis drivers: between an axis of the core and whatever moves it. Three kinds, which one arm may mix:
 *   SIM      setpoint and encoder frames on a stream (ew_drive_sim.c): a simulator, or a servo amplifier that speaks them
 *   FEETECH  servos on a half-duplex serial bus (ew_drive_feetech.c)
 *   MIT      motor drives on CAN in MIT mode (ew_drive_mit.c)
 *
 * A driver never waits. Once a tick the core hands over what the drives shall do; the port fetches packets and frames when
 * its wire is free and brings what came back. All work per call is bounded by the number of axes.
 *
 * What every driver gives: a start sequence that reads who the drive is and how it is set up, the enable, a setpoint per bus
 * cycle, position (velocity, effort, temperature where the drive reports them), the drive's own errors, and torque off,
 * which goes before everything else on its wire. A number outside of what the model can say is an error, never clamped. */
#ifndef EW_DRIVE_H
#define EW_DRIVE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ew_can.h"
#include "ew_protocol.h"

#define EW_DRIVE_NEVER_US INT64_MIN
#define EW_DRIVE_KINDS 3u

/* An axis' limits in what a driver has to be able to carry. */
typedef struct {
    int32_t position_min; /* micro-units */
    int32_t position_max;
    uint32_t velocity_max; /* micro-units/s */
} ew_drive_span_t;

/* How far a drive has come. Only READY ones may be armed. */
enum {
    EW_DRIVE_SILENT = 0, /* has not answered since it was bound */
    EW_DRIVE_CHECKING,   /* answers; who it is and how it is set up is being read, its torque switched off */
    EW_DRIVE_REFUSED,    /* is not what was bound, or is set up in a way that is not safe: errors says which */
    EW_DRIVE_READY,      /* is what was bound, torque off */
    EW_DRIVE_ENABLING,   /* was told to switch on, has not confirmed */
    EW_DRIVE_ON,         /* torque on, follows setpoints */
};

/* One axis' drive. */
typedef struct {
    ew_drive_set_t set;
    ew_drive_span_t span;
    uint8_t phase;
    uint8_t step;         /* of the start sequence */
    bool due;             /* a frame or packet for it is waiting */
    bool off;             /* torque off has to go out, before anything else */
    bool fresh;           /* new position since the core last looked */
    uint32_t errors;      /* the drive's own bits, and EW_DRIVE_ERR_* */
    int32_t position;     /* micro-units of the axis */
    int32_t velocity;     /* micro-units/s, 0 where the drive does not say */
    int32_t effort;       /* micro-N m (N), 0 where the drive does not say */
    int16_t temperature_c;
    uint16_t delay_us;    /* the drive's own answering delay */
    int64_t answered_us;  /* last valid position, EW_DRIVE_NEVER_US: none */
    int64_t since_us;     /* when its phase began */
} ew_axis_drive_t;

#define EW_SERVO_PACKET_BYTES 64u /* the longest packet: SYNC WRITE of two bytes to 16 servos has 56 */

/* The half-duplex bus as its master sees it. */
typedef struct {
    uint8_t asked;        /* what the outstanding answers answer */
    uint16_t awaited;     /* bit per axis: has not answered yet */
    uint8_t aux_axis;     /* whose turn it is for the one transaction per cycle that is not a setpoint or a position */
    uint8_t job;          /* within the cycle */
    uint32_t cycle_us;
    int64_t next_us;      /* when the next cycle begins */
    int64_t free_us;      /* nobody may speak before */
    int64_t deadline_us;  /* answers later than this are lost */
    uint8_t rx[EW_SERVO_PACKET_BYTES];
    uint8_t rx_count;
} ew_servo_bus_t;

/* The CAN side: frames are made when the port fetches them, so nothing can queue up and grow old. */
typedef struct {
    uint8_t cycle_ticks; /* ticks from one command to a drive to its next */
} ew_motor_bus_t;

/* All drives of the arm, and what the core wants of them. */
typedef struct {
    uint8_t axes;                      /* bound, 0: nothing is */
    uint8_t seen;                      /* axes that there are: bound, or those of the last encoder frame */
    uint8_t buses;                     /* bit per DriveKind that this board has a wire for; SIM always */
    bool on;                           /* the core holds the enable */
    uint8_t hush;                      /* so many times more every servo is told to let go, whatever is bound */
    uint32_t servo_slack_us;           /* what the port adds to the answering time of a servo */
    int32_t setpoint[EW_MAX_AXES];     /* micro-units */
    int32_t velocity[EW_MAX_AXES];     /* micro-units/s */
    ew_axis_drive_t drive[EW_MAX_AXES];
    ew_servo_bus_t servo;
    ew_motor_bus_t motor;
    uint32_t frames;                   /* valid ones from drives */
    uint32_t bad;                      /* broken, foreign, or of a drive that was not asked */
} ew_drives_t;

/* The interface. One row per DriveKind. */
typedef struct {
    /* The index of the first field of DRIVE_SET out of range, or -1. */
    int32_t (*flaw)(const ew_drive_set_t *set);
    /* True if the axis' limits can be carried by the drive's own numbers. */
    bool (*carries)(const ew_drive_set_t *set, const ew_drive_span_t *span);
    /* True if two bindings of this kind can be told apart on their wire. */
    bool (*distinct)(const ew_drive_set_t *one, const ew_drive_set_t *other);
    /* After all axes were bound: plans the bus. NULL: nothing to plan. */
    void (*plan)(ew_drives_t *drives);
    /* Once a tick, after the setpoints were written. NULL: its bus has a time of its own. */
    void (*tick)(ew_drives_t *drives, uint32_t tick);
} ew_driver_t;

extern const ew_driver_t ew_driver_sim;
extern const ew_driver_t ew_driver_feetech;
extern const ew_driver_t ew_driver_mit;

/* ---- ew_drive.c: what the core calls ---- */

void ew_drives_init(ew_drives_t *drives, uint8_t buses, uint32_t servo_slack_us);

/* The index of the first field of DRIVE_SET out of range, or -1. */
int32_t ew_drive_flaw(const ew_drive_set_t *set);

/* The first axis whose drive cannot be what it is bound to (no bus, numbers that do not fit, two on one number), or axes. */
uint8_t ew_drives_unfit(const ew_drives_t *drives, const ew_drive_set_t *sets, const ew_drive_span_t *spans, uint8_t axes);

/* Binds them; everything is checked anew, torque off first. */
void ew_drives_bind(ew_drives_t *drives, const ew_drive_set_t *sets, const ew_drive_span_t *spans, uint8_t axes,
                    int64_t now_us);

/* Once a tick: switches on or off, and lets every driver work. Setpoints are in drives->setpoint and velocity. */
void ew_drives_tick(ew_drives_t *drives, bool on, uint32_t tick, int64_t now_us);

/* The first of `axes` axes whose last position is older than timeout_us, or axes. */
uint8_t ew_drives_stale(const ew_drives_t *drives, uint8_t axes, int64_t now_us, int64_t timeout_us);

/* The first axis whose drive may not be armed, or axes. */
uint8_t ew_drives_not_ready(const ew_drives_t *drives);

/* The first axis whose drive reports an error or fell out of the enable while the core holds it, or axes. */
uint8_t ew_drives_in_error(const ew_drives_t *drives);

/* True while the core holds the enable and every drive has confirmed its torque. One that lets go later is a fault, and keeps
 * its phase until the enable is gone: the others still brake. */
bool ew_drives_holding(const ew_drives_t *drives);

/* ---- the wires, as ports see them ---- */

/* The next packet for the servo bus (0: none now). Its bytes go out back to back at 1 Mbaud; while they do, the receiver is
 * off, as with the half-duplex mode of a UART, and then the line is turned round. Call it whenever the line is idle. */
size_t ew_feetech_tx(ew_drives_t *drives, uint8_t *bytes, size_t capacity, int64_t now_us);
void ew_feetech_rx(ew_drives_t *drives, const uint8_t *bytes, size_t count, int64_t now_us);

/* Torque off for every servo, whatever is bound: the broadcast, repeated so often that one of them is not swallowed by a
 * packet that was cut off in the middle. Needs nothing but the wire: for a watchdog's first stage. */
#define EW_SERVO_OFF_BYTES 64u
size_t ew_feetech_last_words(uint8_t *bytes);

/* True while torque off has not been fetched for a motor drive that it has to go to. */
bool ew_mit_off_due(const ew_drives_t *drives);

/* The next CAN frame (false: none now); torque off first. */
bool ew_mit_tx(ew_drives_t *drives, ew_can_frame_t *frame, int64_t now_us);
void ew_mit_rx(ew_drives_t *drives, const ew_can_frame_t *frame, int64_t now_us);

/* Torque off for every bound motor drive: the identifiers to which a frame of ew_mit_off has to go. Returns how many. Kept
 * up to date by the port after each commit, so that a watchdog's first stage only has to write registers. */
extern const uint8_t ew_mit_off[8];
uint8_t ew_mit_last_words(const ew_drives_t *drives, uint16_t *ids, uint8_t capacity);

/* SIM: one frame's worth of positions and efforts, micro-units. Axes with drives of their own are not touched. */
void ew_sim_take(ew_drives_t *drives, const int32_t *position, const int32_t *effort, uint8_t axes, int64_t now_us);

/* ---- for drivers ---- */

void ew_drive_enter(ew_axis_drive_t *drive, uint8_t phase, int64_t now_us);

/* Marks it as refused, for a reason of ours (EW_DRIVE_ERR_*). */
void ew_drive_refuse(ew_axis_drive_t *drive, uint32_t reason, int64_t now_us);

/* A position from the drive, or EW_DRIVE_ERR_VALUE. */
void ew_drive_report(ew_axis_drive_t *drive, bool valid, int32_t position, int64_t now_us);

static inline bool ew_drive_is(const ew_drives_t *drives, uint8_t axis, uint8_t kind)
{
    return drives->drive[axis].set.kind == kind;
}

#endif
