/* FDCAN1 and FDCAN2 as the CAN back end (can_hal.h). Bus 0 is the host link, bus 1 the motor drives. */
#ifndef EW_FDCAN_H
#define EW_FDCAN_H
#include <stdbool.h>
#include <stdint.h>

/* The buses that may start, one bit each: none without the crystal, and none whose pins have another use. */
void fdcan_allow(uint32_t mask);

/* ---- arithmetic, tested on the host ---- */

/* What a bit-timing register can hold, in time quanta. */
typedef struct {
    uint32_t prescaler_max;
    uint32_t segment1_max;
    uint32_t segment2_max;
    uint32_t jump_max;
} fdcan_range_t;

typedef struct {
    uint32_t prescaler;
    uint32_t segment1; /* propagation and phase 1 */
    uint32_t segment2;
    uint32_t jump;
} fdcan_timing_t;

extern const fdcan_range_t fdcan_nominal_range;
extern const fdcan_range_t fdcan_data_range;

/* The timing that makes a rate exactly, with the smallest prescaler and the sample point nearest to `sample` thousandths.
 * False: the clock is not a multiple of the rate that fits. */
bool fdcan_timing(uint32_t clock_hz, uint32_t rate_hz, uint32_t sample, const fdcan_range_t *range, fdcan_timing_t *timing);

uint32_t fdcan_nbtp(const fdcan_timing_t *timing);
uint32_t fdcan_dbtp(const fdcan_timing_t *timing);

#endif
