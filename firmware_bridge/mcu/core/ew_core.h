/* Inside of the core: the one structure and what its files call of each other. */
#ifndef EW_CORE_H
#define EW_CORE_H
#include "ew.h"
#include "ew_can_link.h"
#include "ew_drive.h"
#include "ew_frame.h"
#include "ew_states.h"
#include "ew_timeline.h"
#include "ew_watch.h"

#define EW_TX_BYTES 2048u  /* host-bound ring: longer would only be older */
#define EW_EVENTS 16u      /* events that wait for their EVENT_ACK */
#define EW_CATCH_UP 20u    /* ticks run at once after a stall; the rest is skipped and counted */
#define EW_LATE_BINS 8u
#define EW_DRIVE_FRAME_BYTES (((1u + 5u + (4u * EW_MAX_AXES)) + EW_CRC_BYTES) + 2u) /* SETPOINT, encoded */
#define EW_NEVER_US INT64_MIN

typedef struct {
    ew_event_t event;
    int64_t sent_us; /* EW_NEVER_US: not yet */
} ew_pending_event_t;

typedef struct {
    int64_t position;
    int32_t velocity;
    int32_t acceleration;
} ew_shadow_t;

/* A chunk is judged in slices between the control ticks; it changes nothing before the last of them. */
enum {
    EW_JUDGE_NOTHING = 0,
    EW_JUDGE_RANGE,  /* every knot inside the limits? */
    EW_JUDGE_SLOPES, /* the slopes between knots */
    EW_JUDGE_SPLICE  /* into the running plan, as it is then */
};

/* The chunk in hand, beside its samples. */
typedef struct {
    uint8_t stage; /* EW_JUDGE_* */
    uint8_t knot;  /* the next one to look at */
    uint16_t seq;  /* of its frame */
    uint32_t chunk_id;
    int32_t lead_us;
    int64_t most[EW_MAX_AXES];  /* micro-units from knot to knot, at the velocity limit */
    int64_t slack[EW_MAX_AXES]; /* micro-units that rounding may add to the control points of a curve */
    int32_t low[EW_MAX_AXES];   /* micro-units, of the knots so far */
    int32_t high[EW_MAX_AXES];
} ew_judging_t;

struct ew {
    uint32_t canary_front;
    ew_port_info_t port;
    ew_port_stats_t port_stats;
    ew_noinit_t *noinit;
    uint16_t session;
    uint8_t reset_cause;
    uint32_t reset_pc;
    uint32_t reset_tick;
    uint8_t reset_missing;

    /* state machine */
    uint8_t state;
    uint8_t stop_cause;
    bool drive_on;
    bool off_pending;       /* disarm at standstill */
    int64_t starved_us;     /* when STARVED began */
    int64_t brake_us;       /* when ESTOP or FAULT began */

    /* host */
    int64_t heartbeat_us;   /* EW_NEVER_US: none since boot */
    int64_t policy_us;      /* when the policy counter last changed */
    int64_t frozen_us;      /* since when the counter is held against the host */
    uint32_t policy_counter;
    uint32_t clock_error_us; /* the host's bound, of the last heartbeat */
    uint8_t degrade;
    bool host_armed;        /* armed bit of the last heartbeat */
    bool host_was_armed;    /* it was set since ARM */
    bool seq_known;
    uint16_t rx_seq;
    uint16_t tx_seq;
    uint8_t epoch;          /* counts configurations: a command made for an earlier one moves nothing */
    uint8_t answers_left;   /* in this tick */
    bool hello_due;         /* a HELLO_REQ came too soon after the last HELLO */
    uint32_t hello_nonce;
    int64_t hello_us;       /* when HELLO was last sent; the first one is sent at boot */
    bool estop_input;       /* pressed now */

    /* limits */
    ew_limits_t limits[EW_MAX_AXES];
    ew_drive_t drives[EW_MAX_AXES];
    ew_stops_t stops;
    uint16_t limits_set;    /* bit per axis */
    uint32_t limits_crc;
    bool locked;
    uint8_t axes;           /* committed */
    ew_axis_limits_t bounds[EW_MAX_AXES];
    ew_axis_limits_t watched[EW_MAX_AXES]; /* the complement of bounds: what the commanded state is judged by */
    uint32_t jump_max[EW_MAX_AXES];

    /* motion */
    ew_timeline_t timeline;
    ew_plan_t plan;         /* the chunk being judged, its samples */
    ew_judging_t judging;   /* and how far that has come */
    ew_axis_motion_t axis[EW_MAX_AXES];
    ew_shadow_t shadow[EW_MAX_AXES]; /* the complement of axis, as the last tick left it */
    uint32_t chunk_id;      /* the last one taken */
    uint16_t clipped;
    ew_window_t window;
    int64_t still_us;       /* when an axis last moved */
    bool brake_on;          /* the holding brakes are ordered to grip */
    int64_t brake_on_us;    /* since when */

    /* encoder */
    ew_drives_t bus;        /* the drives at work; their bindings as uploaded are in drives */
    uint32_t drive_told[EW_MAX_AXES]; /* errors that an EVENT has told */
    int32_t encoder[EW_MAX_AXES];
    int32_t effort[EW_MAX_AXES];
    int64_t encoder_at_us[EW_MAX_AXES]; /* of each axis' last position, EW_NEVER_US: none since boot */
    int64_t strained_us[EW_MAX_AXES];   /* since when it reports more than effort_max, EW_NEVER_US: it does not */
    int64_t wild_us;        /* when an encoder last jumped farther than its axis can move, EW_NEVER_US: never */
    uint8_t encoder_axes;
    int64_t encoder_us;     /* EW_NEVER_US: none since boot */
    bool encoder_new;

    /* time */
    int64_t tick_us;        /* time of the last tick */
    int64_t called_us;      /* when ew_tick last ran a tick */
    bool called;

    /* may the watchdog be fed? */
    uint8_t checked;        /* bit per EW_CHECK_* since the last feed */
    bool memory_bad;
    uint8_t table_at;       /* next entry of the limit table to add up */
    uint32_t table_crc;
    uint32_t code_at;
    uint32_t code_crc;
    uint32_t code_first;    /* of the first pass */
    bool code_known;

    bool setpoint_new;
    bool state_due;         /* a STATE of the last tick has to go out */

    /* streams */
    ew_receiver_t link_rx;
    ew_receiver_t drive_rx;
    ew_can_link_t can;
    uint8_t via;            /* EW_VIA_*: where the host is */
    uint8_t from;           /* EW_VIA_*: where the frame in hand came from */
    uint16_t hold_seq;      /* a CHUNK older than this HOLD, which overtook it, is not taken */
    int64_t hold_us;        /* EW_NEVER_US: none */
    uint8_t tx[EW_TX_BYTES];
    uint32_t tx_head;
    uint32_t tx_tail;
    ew_pending_event_t events[EW_EVENTS];
    uint8_t event_count;
    uint32_t event_id;
    uint32_t events_lost;

    ew_stats_t stats;
    uint32_t canary_back;
};

#define EW_CANARY 0x45574741u

/* ew_core.c */
bool ew_dispatch(ew_t *ew, uint8_t event, int64_t now_us);
void ew_stop(ew_t *ew, uint8_t cause, bool off, int64_t now_us);
void ew_fault(ew_t *ew, uint16_t fault, int32_t detail, int64_t now_us);
void ew_estop(ew_t *ew, int64_t now_us);
bool ew_standing_still(const ew_t *ew);
void ew_switch_off(ew_t *ew);
void ew_shadow(ew_t *ew);

/* ew_noinit.c */
bool ew_load_noinit(ew_noinit_t *noinit); /* false: nothing was kept, the record is new */
void ew_save_noinit(ew_t *ew);
void ew_renew_nonce(ew_t *ew);
void ew_note_uptime(ew_t *ew);
void ew_note_life(ew_noinit_t *noinit, bool marked);
void ew_note_watchdog(ew_noinit_t *noinit);
uint8_t ew_recent_watchdogs(const ew_t *ew);

/* ew_checks.c */
void ew_check_memory(ew_t *ew, int64_t now_us);
uint8_t ew_missing_before(const ew_noinit_t *noinit);

/* ew_host.c */
int64_t ew_host_age_us(const ew_t *ew, int64_t now_us); /* since its last sign of life; INT64_MAX: none since boot */
bool ew_host_fresh(const ew_t *ew, int64_t now_us);
bool ew_clock_known(const ew_t *ew, int64_t now_us);

/* ew_motion.c */
void ew_supervise(ew_t *ew, int64_t now_us);
void ew_move(ew_t *ew, int64_t now_us);
void ew_finish_stops(ew_t *ew, int64_t now_us);

/* ew_drive.c */
bool ew_encoder_fresh(const ew_t *ew, int64_t now_us);
uint8_t ew_drives_fit(const ew_t *ew, uint8_t axes);   /* the first axis whose binding cannot work, or axes */
void ew_bind_drives(ew_t *ew, int64_t now_us);         /* after the tables were locked */
uint8_t ew_drive_not_ready(const ew_t *ew);            /* the first axis that may not be armed, or axes */
bool ew_drives_well(const ew_t *ew);                   /* may be armed, or are on without an error */
void ew_supervise_drives(ew_t *ew, int64_t now_us);    /* faults and events of drives */
void ew_command_drives(ew_t *ew, int64_t now_us);      /* the tick's setpoints */
uint8_t ew_shown_axes(const ew_t *ew);
int32_t ew_setpoint_micro(const ew_t *ew, uint8_t axis);
int32_t ew_setpoint_velocity(const ew_t *ew, uint8_t axis); /* micro-units/s */

/* ew_limits.c */
void ew_bounds_of(const ew_limits_t *limits, ew_axis_limits_t *bounds); /* per second to per tick */
ew_axis_limits_t ew_bounds_inverted(const ew_axis_limits_t *bounds);    /* every bit the other way */
void ew_unlock_limits(ew_t *ew); /* forgets the table: drives are SIM, stops have no second stage */

/* ew_commands.c */
void ew_handle(ew_t *ew, const uint8_t *body, size_t count, int64_t stamp_us, int64_t now_us);

void ew_send_ack(ew_t *ew, uint8_t type, uint16_t seq, const ew_ack_t *said, int64_t now_us);

/* ew_chunk.c */
bool ew_judge(ew_t *ew, int64_t now_us);                      /* a slice; true while there is more */
void ew_drop_chunk(ew_t *ew, uint8_t code, int64_t now_us);   /* answers the chunk in hand, if there is one, and forgets it */

/* ew_can_link.c */
bool ew_can_send(ew_t *ew, uint8_t *body, size_t count);
bool ew_can_room(const ew_t *ew, uint8_t type, size_t body);
bool ew_accepts(ew_t *ew, uint8_t type);

/* ew_telemetry.c */
void ew_send(ew_t *ew, uint8_t type, uint8_t *body, size_t payload);
void ew_send_hello(ew_t *ew, uint32_t nonce, int64_t now_us);
void ew_answer_hello(ew_t *ew, uint32_t nonce, int64_t now_us); /* now, or as soon as the last one is long enough ago */
void ew_emit(ew_t *ew, uint8_t kind, int32_t arg0, int32_t arg1, int64_t now_us);
void ew_forget_event(ew_t *ew, uint32_t event_id);
void ew_resend_events(ew_t *ew);
void ew_telemetry(ew_t *ew, int64_t now_us);
void ew_tell_state(ew_t *ew); /* the STATE that the last tick made due */

#endif
