/* What the MCU tells: HELLO, STATE, EVENT, STATS, and the transmit ring. */
#include "ew_core.h"

/* STATE and STATS leave this much of the ring to answers and events. */
#define RING_RESERVE 512u

static uint32_t ring_free(const ew_t *ew)
{
    return EW_TX_BYTES - (ew->tx_head - ew->tx_tail);
}

size_t ew_tx(ew_t *ew, uint8_t *bytes, size_t capacity)
{
    size_t count = 0u;
    while ((count < capacity) && (ew->tx_tail != ew->tx_head)) {
        bytes[count] = ew->tx[ew->tx_tail % EW_TX_BYTES];
        count++;
        ew->tx_tail++;
    }
    return count;
}

static bool send_serial(ew_t *ew, uint8_t *body, size_t whole)
{
    uint8_t encoded[EW_MAX_ENCODED_BYTES + 1u];
    const size_t count = ew_frame_seal(body, whole, encoded);
    const bool room = count <= ring_free(ew);
    for (size_t i = 0u; room && (i < count); i++) {
        ew->tx[ew->tx_head % EW_TX_BYTES] = encoded[i];
        ew->tx_head++;
    }
    return room;
}

/* body has EW_HEADER_BYTES of room in front of its payload and EW_CRC_BYTES behind. */
void ew_send(ew_t *ew, uint8_t type, uint8_t *body, size_t payload)
{
    bool sent = false;
    ew_put_u8(&body[0], type);
    ew_put_u8(&body[1], ew->epoch);
    ew_put_u16(&body[2], ew->tx_seq);
    ew_put_u16(&body[4], ew->session);
    ew->tx_seq++;
    if ((ew->via & EW_VIA_SERIAL) != 0u) {
        sent = send_serial(ew, body, EW_HEADER_BYTES + payload);
    }
    if ((ew->via & EW_VIA_CAN) != 0u) {
        sent = ew_can_send(ew, body, EW_HEADER_BYTES + payload) || sent;
    }
    if (!sent) {
        ew->stats.tx_dropped++;
    }
}

/* said: code, arg and lead. */
void ew_send_ack(ew_t *ew, uint8_t type, uint16_t seq, const ew_ack_t *said, int64_t now_us)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    ew_ack_t ack = *said;
    ack.of_type = type;
    ack.of_seq = seq;
    ack.now_us = (uint64_t)now_us;
    ack.free_knots = (uint8_t)(EW_TIMELINE_KNOTS - ew->timeline.count);
    ew_send(ew, EW_MSG_ACK, body, ew_pack_ack(&ack, &body[EW_HEADER_BYTES]));
}

void ew_send_hello(ew_t *ew, uint32_t nonce, int64_t now_us)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    const ew_hello_t hello = {
        .schema_hash = EW_SCHEMA_HASH,
        .build_id = ew->port.build_id,
        .version = ew->port.version,
        .nonce = nonce,
        .boots = ew->noinit->boots,
        .reset_cause = ew->reset_cause,
        .reset_pc = ew->reset_pc,
        .reset_tick = ew->reset_tick,
        .reset_missing = ew->reset_missing,
        .watchdog_resets = ew_recent_watchdogs(ew),
        .fault = (uint16_t)ew->noinit->fault,
        .estop = (uint8_t)ew->noinit->estop,
        .clear_nonce = ew->noinit->clear_nonce,
        .limits_crc = ew->locked ? ew->limits_crc : 0u,
        .locked = ew->locked ? 1u : 0u,
        .state = ew->state,
        .max_knots = EW_TIMELINE_KNOTS,
        .max_axes = EW_MAX_AXES,
        .tick_hz = 1000000u / (uint32_t)EW_TICK_US,
        .watchdog_ms = ew->port.watchdog_ms,
        .now_us = (uint64_t)now_us,
    };
    ew->hello_us = now_us;
    ew->hello_due = false;
    ew_send(ew, EW_MSG_HELLO, body, ew_pack_hello(&hello, &body[EW_HEADER_BYTES]));
}

void ew_answer_hello(ew_t *ew, uint32_t nonce, int64_t now_us)
{
    ew->hello_due = true;
    ew->hello_nonce = nonce; /* of several that ask within the period the last is answered; a host asks again */
    if ((now_us - ew->hello_us) >= EW_HELLO_PERIOD_US) {
        ew_send_hello(ew, nonce, now_us);
        ew_resend_events(ew);
    }
}

#define AGE_MAX_MS 65534 /* longer ones are this; UINT16_MAX: never */

static uint16_t age_ms(int64_t since_us, int64_t now_us)
{
    if (since_us == EW_NEVER_US) {
        return UINT16_MAX;
    }
    const int64_t age = (now_us - since_us) / 1000;
    uint16_t shown = (uint16_t)AGE_MAX_MS;
    if (age < AGE_MAX_MS) {
        shown = (age < 0) ? 0u : (uint16_t)age;
    }
    return shown;
}

static uint8_t state_flags(const ew_t *ew, int64_t now_us)
{
    uint8_t flags = 0u;
    flags |= ew->drive_on ? EW_STATE_FLAG_DRIVE_ON : 0u;
    flags |= ew_encoder_fresh(ew, now_us) ? EW_STATE_FLAG_ENCODER_FRESH : 0u;
    flags |= ew_drives_well(ew) ? EW_STATE_FLAG_DRIVES_READY : 0u;
    flags |= ew_standing_still(ew) ? 0u : EW_STATE_FLAG_MOVING;
    flags |= ew->locked ? EW_STATE_FLAG_LIMITS_LOCKED : 0u;
    flags |= (ew->noinit->estop != 0u) ? EW_STATE_FLAG_ESTOP_LATCHED : 0u;
    flags |= ew->estop_input ? EW_STATE_FLAG_ESTOP_INPUT : 0u;
    flags |= ew->brake_on ? EW_STATE_FLAG_BRAKE_ON : 0u;
    return flags;
}

static void send_state(ew_t *ew, int64_t now_us)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    ew_state_t state = {
        .now_us = (uint64_t)now_us,
        .tick = ew->stats.ticks,
        .state = ew->state,
        .stop_cause = ew->stop_cause,
        .fault = (uint16_t)ew->noinit->fault,
        .flags = state_flags(ew, now_us),
        .degrade = ew->degrade,
        .chunk_id = ew->chunk_id,
        .heartbeat_age_ms = age_ms(ew->heartbeat_us, now_us),
        .policy_age_ms = age_ms(ew->policy_us, now_us),
        .clipped = ew->clipped,
        .axes = ew_shown_axes(ew),
    };
    if (ew->timeline.count > 0u) {
        const int64_t remaining = ew_timeline_end_us(&ew->timeline) - now_us;
        state.remaining_us = (remaining > 0) ? (int32_t)remaining : 0;
        state.knots = (uint8_t)(ew->timeline.count - 1u);
    }
    for (uint8_t axis = 0u; axis < state.axes; axis++) {
        state.position[axis] = ew->encoder[axis];
        state.setpoint[axis] = ew_setpoint_micro(ew, axis);
        state.effort[axis] = ew->effort[axis];
        state.velocity[axis] = ew_setpoint_velocity(ew, axis);
    }
    ew->clipped = 0u;
    ew_send(ew, EW_MSG_STATE, body, ew_pack_state(&state, &body[EW_HEADER_BYTES]));
}

static void send_stats(ew_t *ew)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    ew->stats.rx_bad = ew->link_rx.bad;
    ew->stats.rx_oversize = ew->link_rx.oversize;
    ew->stats.transfers_bad = ew->can.rx.bad;
    ew->stats.drive_frames += ew->bus.frames;
    ew->stats.drive_bad += ew->bus.bad;
    ew->bus.frames = 0u;
    ew->bus.bad = 0u;
    ew->stats.rx_overrun = ew->port_stats.rx_overrun;
    ew->stats.watchdog_margin_min_us = ew->port_stats.watchdog_margin_min_us;
    ew->stats.stack_free_min = ew->port_stats.stack_free_min;
    ew->stats.tick_work_max_us = ew->port_stats.tick_work_max_us;
    ew->port_stats.tick_work_max_us = 0u;
    ew_send(ew, EW_MSG_STATS, body, ew_pack_stats(&ew->stats, &body[EW_HEADER_BYTES]));
    ew->stats.tick_gap_max_us = 0u;
}

static void remove_event(ew_t *ew, uint8_t at)
{
    for (uint8_t i = at; (i + 1u) < ew->event_count; i++) {
        ew->events[i] = ew->events[i + 1u];
    }
    ew->event_count--;
}

void ew_emit(ew_t *ew, uint8_t kind, int32_t arg0, int32_t arg1, int64_t now_us)
{
    if (ew->event_count == EW_EVENTS) {
        remove_event(ew, 0u); /* nobody listens: the newest say more */
        ew->events_lost++;
    }
    ew->event_id++;
    ew_pending_event_t *pending = &ew->events[ew->event_count];
    pending->event.event_id = ew->event_id;
    pending->event.at_us = (uint64_t)now_us;
    pending->event.kind = kind;
    pending->event.arg0 = arg0;
    pending->event.arg1 = arg1;
    pending->sent_us = EW_NEVER_US;
    ew->event_count++;
}

void ew_forget_event(ew_t *ew, uint32_t event_id)
{
    uint8_t at = 0u;
    while ((at < ew->event_count) && (ew->events[at].event.event_id != event_id)) {
        at++;
    }
    if (at < ew->event_count) {
        remove_event(ew, at);
    }
}

void ew_resend_events(ew_t *ew)
{
    for (uint8_t i = 0u; i < ew->event_count; i++) {
        ew->events[i].sent_us = EW_NEVER_US;
    }
}

/* One event per tick at most, so that a burst cannot fill the ring. */
static void send_an_event(ew_t *ew, int64_t now_us)
{
    uint8_t body[EW_MAX_BODY_BYTES];
    for (uint8_t i = 0u; i < ew->event_count; i++) {
        ew_pending_event_t *pending = &ew->events[i];
        if ((pending->sent_us == EW_NEVER_US) || ((now_us - pending->sent_us) >= EW_EVENT_RESEND_US)) {
            pending->sent_us = now_us;
            ew_send(ew, EW_MSG_EVENT, body, ew_pack_event(&pending->event, &body[EW_HEADER_BYTES]));
            break;
        }
    }
}

/* On one of the host's transports; the slower one then does without. */
static bool room_for(const ew_t *ew, uint8_t type)
{
    const bool serial = ((ew->via & EW_VIA_SERIAL) != 0u) && (ring_free(ew) >= (RING_RESERVE + EW_MAX_ENCODED_BYTES));
    const bool can = ((ew->via & EW_VIA_CAN) != 0u) && ew_can_room(ew, type, EW_MAX_BODY_BYTES / 2u);
    return serial || can;
}

void ew_tell_state(ew_t *ew)
{
    ew->state_due = false;
    if (room_for(ew, EW_MSG_STATE)) {
        send_state(ew, ew->tick_us);
    } else {
        ew->stats.tx_dropped++;
    }
}

void ew_telemetry(ew_t *ew, int64_t now_us)
{
    if ((ew->events_lost > 0u) && (ew->event_count < EW_EVENTS)) {
        const int32_t lost = (int32_t)ew->events_lost;
        ew->events_lost = 0u;
        ew_emit(ew, EW_EVENT_KIND_EVENTS_LOST, lost, 0, now_us);
    }
    if (ew->hello_due) {
        ew_answer_hello(ew, ew->hello_nonce, now_us);
    }
    send_an_event(ew, now_us);
    ew_can_rx_expire(&ew->can.rx, now_us);
    ew->state_due = ew->state_due || ((ew->stats.ticks % EW_STATE_PERIOD_TICKS) == 0u);
    if (((ew->stats.ticks % EW_STATS_PERIOD_TICKS) == (EW_STATE_PERIOD_TICKS / 2u)) && room_for(ew, EW_MSG_STATS)) {
        send_stats(ew);
    }
}
