/* 170 MHz from the 24 MHz crystal of the board, or from the internal 16 MHz oscillator where the crystal does not start. */
#ifndef EW_CLOCK_H
#define EW_CLOCK_H
#include <stdbool.h>
#include <stdint.h>

#define CLOCK_HZ 170000000u

/* True: crystal (20 ppm class), and its loss raises the NMI. False: HSI16 (1 %), good for a UART, not for CAN. */
bool clock_start(void);

/* TIM2 counts microseconds, 32 bits. */
void clock_start_counter(void);

/* 48 MHz for USB: HSI48, which the host's frames, one a ms, trim to 0.25 %. False: it does not start. */
bool clock_start_usb(void);

/* Random 32 bits from the hardware generator; 0 if it does not deliver or its own tests failed. */
uint32_t clock_random(void);

#endif
