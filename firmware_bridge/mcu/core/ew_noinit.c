/* What a reset does not take away: two copies of a record, each with its CRC, and the mark of the last words.
 *
 * A reset may come between any two writes. The record is sealed first and copied after, so that one of the two is always
 * whole; an emergency stop cannot be lost to the moment in which it was noted. */
#include "ew_core.h"

#define NOINIT_MAGIC 0x45574E49u
#define MARK_MAGIC 0x45574D4Bu
#define NEVER_MS UINT32_MAX

static void gather(const ew_noinit_t *n, uint32_t *words)
{
    words[0] = n->magic;
    words[1] = n->boots;
    words[2] = n->estop;
    words[3] = n->fault;
    words[4] = n->clear_nonce;
    words[5] = n->session;
    words[6] = n->life_ms;
    words[7] = n->uptime_ms;
    for (uint32_t i = 0u; i < EW_WATCHDOG_STORM_RESETS; i++) {
        words[8u + i] = n->watchdog_at_ms[i];
    }
}

static void scatter(const uint32_t *words, ew_noinit_t *n)
{
    n->magic = words[0];
    n->boots = words[1];
    n->estop = words[2];
    n->fault = words[3];
    n->clear_nonce = words[4];
    n->session = words[5];
    n->life_ms = words[6];
    n->uptime_ms = words[7];
    for (uint32_t i = 0u; i < EW_WATCHDOG_STORM_RESETS; i++) {
        n->watchdog_at_ms[i] = words[8u + i];
    }
}

static uint32_t crc_of(const uint32_t *words)
{
    uint8_t bytes[4u * EW_NOINIT_WORDS];
    for (uint32_t i = 0u; i < EW_NOINIT_WORDS; i++) {
        ew_put_u32(&bytes[4u * i], words[i]);
    }
    return ew_crc32c(bytes, sizeof bytes, 0u);
}

static bool whole(const uint32_t *words, uint32_t crc)
{
    return (words[0] == NOINIT_MAGIC) && (crc == crc_of(words)) && (words[3] <= EW_FAULT_MEMORY);
}

void ew_save_noinit(ew_t *ew)
{
    volatile ew_noinit_t *n = ew->noinit;
    uint32_t words[EW_NOINIT_WORDS];
    n->magic = NOINIT_MAGIC;
    gather(ew->noinit, words);
    const uint32_t crc = crc_of(words);
    n->crc = crc;
    for (uint32_t i = 0u; i < EW_NOINIT_WORDS; i++) {
        n->copy[i] = words[i];
    }
    n->copy_crc = crc;
}

bool ew_load_noinit(ew_noinit_t *n)
{
    uint32_t words[EW_NOINIT_WORDS];
    gather(n, words);
    if (whole(words, n->crc)) {
        return true;
    }
    if (whole(n->copy, n->copy_crc)) {
        scatter(n->copy, n);
        return true;
    }
    for (uint32_t i = 0u; i < EW_NOINIT_WORDS; i++) {
        words[i] = 0u;
    }
    scatter(words, n);
    for (uint32_t i = 0u; i < EW_WATCHDOG_STORM_RESETS; i++) {
        n->watchdog_at_ms[i] = NEVER_MS;
    }
    n->missing = 0u;
    n->missing_check = ~n->missing;
    return false;
}

void ew_noinit_mark(volatile ew_noinit_t *noinit, uint32_t cause, uint32_t pc, uint32_t tick)
{
    noinit->mark_cause = cause;
    noinit->mark_pc = pc;
    noinit->mark_tick = tick;
    noinit->mark_check = cause ^ pc ^ tick ^ MARK_MAGIC;
    noinit->mark_magic = MARK_MAGIC;
}

bool ew_noinit_marked(const ew_noinit_t *n)
{
    return (n->mark_magic == MARK_MAGIC) && (n->mark_check == (n->mark_cause ^ n->mark_pc ^ n->mark_tick ^ MARK_MAGIC)) &&
           (n->mark_cause <= EW_RESET_CAUSE_BROWN_OUT);
}

/* A new latch gets a new nonce, so that an old wish to clear cannot clear it. */
void ew_renew_nonce(ew_t *ew)
{
    uint8_t bytes[8];
    ew_put_u32(&bytes[0], ew->noinit->clear_nonce ^ ew->port.entropy);
    ew_put_u32(&bytes[4], ew->stats.ticks + ew->noinit->boots);
    ew->noinit->clear_nonce = ew_crc32c(bytes, sizeof bytes, 0x5EEDu);
}

void ew_note_uptime(ew_t *ew)
{
    ew->noinit->uptime_ms = ew->stats.ticks;
    ew_save_noinit(ew);
}

/* The clock of all lives, ms since power-on. A life that left no mark counts to its last whole second: that makes two resets
 * look closer than they were, never farther. */
void ew_note_life(ew_noinit_t *n, bool marked)
{
    const uint32_t lived_ms = (marked && (n->mark_tick >= n->uptime_ms)) ? n->mark_tick : n->uptime_ms;
    n->life_ms += lived_ms;
    n->uptime_ms = 0u;
}

void ew_note_watchdog(ew_noinit_t *n)
{
    for (uint32_t i = EW_WATCHDOG_STORM_RESETS - 1u; i > 0u; i--) {
        n->watchdog_at_ms[i] = n->watchdog_at_ms[i - 1u];
    }
    n->watchdog_at_ms[0] = n->life_ms;
}

uint8_t ew_recent_watchdogs(const ew_t *ew)
{
    const uint32_t now_ms = ew->noinit->life_ms + ew->stats.ticks;
    uint8_t recent = 0u;
    for (uint32_t i = 0u; i < EW_WATCHDOG_STORM_RESETS; i++) {
        const uint32_t at_ms = ew->noinit->watchdog_at_ms[i];
        if ((at_ms != NEVER_MS) && ((now_ms - at_ms) <= ((uint32_t)EW_WATCHDOG_STORM_US / 1000u))) {
            recent++;
        }
    }
    return recent;
}
