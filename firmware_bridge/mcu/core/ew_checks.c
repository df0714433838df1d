/* May the watchdog be fed? Only when everybody on the list has reported since the last time; the memory check is done here. */
#include "ew_core.h"

#define BIT(check) ((uint8_t)(1u << (uint32_t)(check)))
/* What the core itself reports; a port adds its own in ew_port_info_t.checks. */
#define CORE_CHECKS (BIT(EW_CHECK_TICK) | BIT(EW_CHECK_ENCODER) | BIT(EW_CHECK_MEMORY))
#define SLICE_BYTES 64u /* of code in one tick: a pass over 128 kB takes two seconds */

void ew_check_in(ew_t *ew, uint8_t check)
{
    ew->checked |= BIT(check);
}

bool ew_feed_allowed(ew_t *ew)
{
    const uint8_t missing = (uint8_t)((CORE_CHECKS | ew->port.checks) & (uint8_t)~ew->checked);
    ew->noinit->missing = missing; /* should nobody come here again, this is what it hung on */
    ew->noinit->missing_check = ~ew->noinit->missing;
    if (missing != 0u) {
        return false;
    }
    ew->checked = 0u;
    return true;
}

uint8_t ew_missing_before(const ew_noinit_t *noinit)
{
    return (noinit->missing == ~noinit->missing_check) ? (uint8_t)noinit->missing : 0u;
}

/* One entry of what the table's CRC covers, in its order; true when the pass is over and the sum is wrong. */
static bool table_changed(ew_t *ew)
{
    uint8_t packed[EW_MAX_BODY_BYTES];
    size_t count = 0u;
    if (!ew->locked) {
        ew->table_at = 0u;
        return false;
    }
    if (ew->table_at == 0u) {
        ew->table_crc = 0u;
    }
    if (ew->table_at < ew->axes) {
        count = ew_pack_limits(&ew->limits[ew->table_at], packed);
    } else if (ew->table_at < (2u * ew->axes)) {
        count = ew_pack_drive(&ew->drives[ew->table_at - ew->axes], packed);
    } else {
        count = ew_pack_stops(&ew->stops, packed);
    }
    ew->table_crc = ew_crc32c(packed, count, ew->table_crc);
    ew->table_at++;
    if (ew->table_at <= (2u * ew->axes)) {
        return false;
    }
    ew->table_at = 0u;
    return ew->table_crc != ew->limits_crc;
}

/* The next slice of the code; true when the pass is over and the sum is not that of the first pass. */
static bool code_changed(ew_t *ew)
{
    const uint32_t left = ew->port.code_bytes - ew->code_at;
    if (left == 0u) {
        return false;
    }
    const uint32_t count = (left < SLICE_BYTES) ? left : SLICE_BYTES;
    ew->code_crc = ew_crc32c(&ew->port.code[ew->code_at], count, ew->code_crc);
    ew->code_at += count;
    if (ew->code_at < ew->port.code_bytes) {
        return false;
    }
    const uint32_t crc = ew->code_crc;
    const bool changed = ew->code_known && (crc != ew->code_first);
    if (!ew->code_known) {
        ew->code_first = crc;
        ew->code_known = true;
    }
    ew->code_at = 0u;
    ew->code_crc = 0u;
    return changed;
}

void ew_check_memory(ew_t *ew, int64_t now_us)
{
    const bool guards = (ew->canary_front == EW_CANARY) && (ew->canary_back == EW_CANARY);
    const bool table = table_changed(ew);
    const bool code = code_changed(ew);
    if (!guards || table || code) {
        ew->memory_bad = true;
        ew_fault(ew, EW_FAULT_MEMORY, guards ? (table ? 1 : 2) : 0, now_us);
    }
    if (ew->memory_bad) {
        ew->checked &= (uint8_t)~BIT(EW_CHECK_MEMORY); /* whatever was reported before */
    } else {
        ew_check_in(ew, EW_CHECK_MEMORY);
    }
}
