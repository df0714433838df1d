/* What is known of the host: its heartbeats, how old they are, and how well it knows this clock. */
#include "ew_command.h"

/* The moment that a heartbeat speaks for, or EW_NEVER_US: it is no sign of life. Its own stamp counts, not its arrival, or
 * heartbeats that waited in a buffer would keep the arm of a dead host alive. */
static int64_t alive_at(const ew_heartbeat_t *m, int64_t stamp_us)
{
    const int64_t latest_us = stamp_us + EW_HEARTBEAT_AHEAD_MAX_US;
    if ((m->sent_us == 0u) || (m->sent_us > (uint64_t)latest_us)) {
        return EW_NEVER_US;
    }
    const int64_t sent_us = (int64_t)m->sent_us;
    const int64_t alive_us = (sent_us < stamp_us) ? sent_us : stamp_us;
    return ((stamp_us - alive_us) < EW_HOST_SILENT_US) ? alive_us : EW_NEVER_US;
}

void ew_on_heartbeat(ew_t *ew, const ew_command_t *command)
{
    ew_heartbeat_t m;
    if (!ew_unpack_heartbeat(command->payload, command->count, &m) || (m.degrade > EW_DEGRADE_SAFE_OFF)) {
        ew->link_rx.bad++; /* not a sign of life of a host that we understand */
        return;
    }
    const int64_t alive_us = alive_at(&m, command->stamp_us);
    /* Older than one that is known: it was overtaken, and what it says was taken back since. */
    if ((alive_us == EW_NEVER_US) || (alive_us < ew->heartbeat_us)) {
        ew->stats.heartbeats_stale++;
        return;
    }
    const bool first = (ew->heartbeat_us == EW_NEVER_US);
    ew->heartbeat_us = alive_us;
    ew->clock_error_us = m.clock_error_us;
    if (first || (m.policy_counter != ew->policy_counter)) {
        ew->policy_us = alive_us;
        ew->frozen_us = alive_us;
        ew->policy_counter = m.policy_counter;
    }
    if (m.degrade != EW_DEGRADE_NOMINAL) {
        ew->frozen_us = alive_us; /* a host that says that it does not plan is not a hung planner */
    }
    ew->degrade = m.degrade;
    ew->host_armed = (m.flags & EW_HEARTBEAT_FLAG_ARMED) != 0u;
    ew->host_was_armed = ew->host_was_armed || ew->host_armed;
}

int64_t ew_host_age_us(const ew_t *ew, int64_t now_us)
{
    return (ew->heartbeat_us == EW_NEVER_US) ? INT64_MAX : (now_us - ew->heartbeat_us);
}

bool ew_host_fresh(const ew_t *ew, int64_t now_us)
{
    return ew_host_age_us(ew, now_us) < EW_HOST_SILENT_US;
}

/* The bound came with the last heartbeat; one that is not fresh says nothing about now. */
bool ew_clock_known(const ew_t *ew, int64_t now_us)
{
    return ew_host_fresh(ew, now_us) && (ew->clock_error_us <= ew->port.clock_error_max_us);
}
