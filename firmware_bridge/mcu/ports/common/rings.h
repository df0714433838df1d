/* Received bytes, from the interrupts to the main loop. One writer and one reader a ring. */
#ifndef EW_RINGS_H
#define EW_RINGS_H
#include <stdbool.h>
#include <stdint.h>

/* For interrupts: keeps a byte, or counts it as overrun; a delimiter is kept with the time it came. */
void ring_put(uint32_t stream, uint8_t byte);
/* The same for several, in one go. */
void ring_write(uint32_t stream, const uint8_t *bytes, uint32_t count);
/* For interrupts: the UART itself lost something. */
void ring_overrun(uint32_t stream);
/* Bytes that the ring still takes. */
uint32_t ring_room(uint32_t stream);

/* For the main loop: next byte of a stream, or -1. For a delimiter *stamp_us is its time of arrival. */
int32_t ring_get(uint32_t stream, uint64_t *stamp_us);
bool rings_empty(void);
uint32_t rings_overruns(void);

/* Sleeps until an interrupt, unless a byte is waiting. */
void rings_sleep(void);

#endif
