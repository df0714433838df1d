/* The record that a reset does not take away. The checksum is an unknown function of which only one thing is known: records
 * that differ have different checksums (for those that one run compares; a real one is wrong once in 2^32). */
#include "ew_boot.c" /* whole, for what is static in it */

#include "proof.h"

#define MAGIC 0x45574E49u
#define MARK 0x45574D4Bu
#define RUNS 8u /* checksums of whole records that one run makes at most */

typedef struct {
    uint32_t word[EW_NOINIT_WORDS];
} words_t;

static words_t known[RUNS];
static uint32_t sum[RUNS];
static uint8_t sums;

static bool same(const words_t *a, const words_t *b)
{
    bool equal = true;
    for (uint32_t i = 0u; i < EW_NOINIT_WORDS; i++) {
        equal = equal && (a->word[i] == b->word[i]);
    }
    return equal;
}

/* Equal content, equal checksum; different content, different checksum. */
uint32_t crc_contract(const uint8_t *data, size_t count, uint32_t seed)
{
    PROVE(__CPROVER_r_ok(data, count), "the bytes of the checksum are in the buffer");
    const uint32_t crc = nondet_u32();
    if ((count != (4u * EW_NOINIT_WORDS)) || (seed != 0u)) {
        return crc; /* nonces and sessions: any number will do */
    }
    words_t now;
    for (uint32_t i = 0u; i < EW_NOINIT_WORDS; i++) {
        now.word[i] = ew_get_u32(&data[4u * i]);
    }
    for (uint8_t k = 0u; k < sums; k++) {
        ASSUME(same(&known[k], &now) == (crc == sum[k]));
    }
    PROVE(sums < RUNS, "no more checksums than are remembered");
    known[sums] = now;
    sum[sums] = crc;
    sums++;
    return crc;
}

static words_t content(const ew_noinit_t *n)
{
    words_t w = {{n->magic, n->boots, n->estop, n->fault, n->clear_nonce, n->session, n->life_ms, n->uptime_ms}};
    for (uint32_t i = 0u; i < EW_WATCHDOG_STORM_RESETS; i++) {
        w.word[8u + i] = n->watchdog_at_ms[i];
    }
    return w;
}

static words_t duplicate(const ew_noinit_t *n)
{
    words_t w;
    for (uint32_t i = 0u; i < EW_NOINIT_WORDS; i++) {
        w.word[i] = n->copy[i];
    }
    return w;
}

static uint32_t checksum(const words_t *w)
{
    uint8_t bytes[4u * EW_NOINIT_WORDS];
    for (uint32_t i = 0u; i < EW_NOINIT_WORDS; i++) {
        ew_put_u32(&bytes[4u * i], w->word[i]);
    }
    return crc_contract(bytes, sizeof bytes, 0u);
}

static bool whole(const words_t *w, uint32_t crc)
{
    return (w->word[0] == MAGIC) && (w->word[3] <= EW_FAULT_MEMORY) && (checksum(w) == crc);
}

/* Memory after power-on, or after a reset that hit anything: whatever it holds. */
void garbage(void)
{
    static ew_noinit_t record;
    HAVOC(&record);
    const words_t first = content(&record);
    const words_t second = duplicate(&record);
    const bool first_whole = whole(&first, record.crc);
    const bool second_whole = whole(&second, record.copy_crc);
    const bool kept = ew_load_noinit(&record);
    const words_t after = content(&record);
    PROVE(kept == (first_whole || second_whole), "kept only what is whole: mark, fault number and checksum");
    PROVE(!first_whole || same(&after, &first), "the first is taken as it is");
    PROVE(first_whole || !second_whole || same(&after, &second), "or else the second, as it is");
    PROVE(kept || ((record.estop == 0u) && (record.fault == EW_FAULT_NONE) && (record.boots == 0u) &&
                   (record.life_ms == 0u) && (record.missing == 0u) && (record.missing_check == UINT32_MAX)),
          "or else nothing of it");
    for (uint32_t i = 0u; i < EW_WATCHDOG_STORM_RESETS; i++) {
        PROVE(kept || (record.watchdog_at_ms[i] == UINT32_MAX), "and no watchdog reset");
    }
#ifdef TIGHT
    PROVE(!kept || first_whole, "too strong: the first is always whole");
#endif
    PROVE(!ew_noinit_marked(&record) || ((record.mark_magic == MARK) && (record.mark_cause <= EW_RESET_CAUSE_BROWN_OUT) &&
          (record.mark_check == (record.mark_cause ^ record.mark_pc ^ record.mark_tick ^ MARK))),
          "a mark needs its magic, a cause that exists and its check");
    END();
}

/* ---- the supply may fail between any two writes ---- */

static ew_t core;
static ew_noinit_t record;
static ew_noinit_t torn; /* what the memory held when it did */
static bool cut;

/* Called by the checker before and after every write to the record. */
void power_cut(void)
{
    if (!cut && nondet_bool()) {
        torn = record;
        cut = true;
    }
}

static void sealed(void)
{
    HAVOC(&record);
    ASSUME(record.fault <= EW_FAULT_MEMORY);
    core.noinit = &record;
    core.port.entropy = nondet_u32();
    core.stats.ticks = nondet_u32();
    ew_save_noinit(&core);
    cut = false; /* what came before does not count */
}

void torn_save(void)
{
    sealed();
    const words_t before = content(&record);
    record.estop = nondet_u32();
    record.fault = nondet_u32();
    record.clear_nonce = nondet_u32();
    record.uptime_ms = nondet_u32();
    ASSUME(record.fault <= EW_FAULT_MEMORY);
    const words_t wanted = content(&record);
    ew_save_noinit(&core);
    power_cut();
    PROVE(ew_load_noinit(&record), "what was saved is found");
    const words_t found = content(&record);
    PROVE(same(&found, &wanted), "as it was saved");
    if (cut) {
        PROVE(ew_load_noinit(&torn), "one of the two is always whole");
        const words_t left = content(&torn);
        PROVE(same(&left, &before) || same(&left, &wanted), "the old or the new, never a mixture");
#ifdef TIGHT
        PROVE(same(&left, &before), "too strong: always the old");
#endif
    }
    END();
}

static ew_t next;

static bool named(const ew_noinit_t *n)
{
    return ew_noinit_marked(n) && ((n->mark_cause == EW_RESET_CAUSE_WATCHDOG) || (n->mark_cause == EW_RESET_CAUSE_HARD_FAULT));
}

/* Boot: what is latched comes back, and a reset in the name of the watchdog or of a hard fault becomes a fault. */
void torn_boot(void)
{
    sealed();
    const uint32_t estop = record.estop;
    const uint32_t fault = record.fault;
    const bool faulty = (fault != EW_FAULT_NONE) || named(&record);
    core.stats.ticks = 0u;
    take_over(&core);
    power_cut();
    PROVE((record.estop == estop) && ((record.fault != EW_FAULT_NONE) == faulty), "what is latched comes back");
    PROVE((fault != EW_FAULT_WATCHDOG_STORM) || (record.fault == fault), "a storm stays a storm");
    PROVE(!ew_noinit_marked(&record), "a mark is read once");
    if (cut) {
        next.noinit = &torn;
        next.port.entropy = nondet_u32();
        take_over(&next);
        PROVE((torn.estop == estop) && ((torn.fault != EW_FAULT_NONE) == faulty), "also when the supply failed in the middle");
        PROVE((fault != EW_FAULT_WATCHDOG_STORM) || (torn.fault == fault), "also a storm");
#ifdef TIGHT
        PROVE(torn.session != record.session, "too strong: two boots never choose the same session");
#endif
    }
    END();
}
