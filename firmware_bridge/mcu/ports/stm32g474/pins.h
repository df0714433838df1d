/* Pins of the NUCLEO-G474RE (UM2505): what each is for, and the logic of those that matter.
 *
 *   PA2  USART2 TX   host link, through ST-LINK's virtual COM port (solder bridges as delivered)
 *   PA3  USART2 RX
 *   PA5  output      LED LD2
 *   PB10 USART3 TX   servo bus, one open-drain wire for both ways
 *   PC4  USART1 TX   drive stream to a plant (Arduino D1)
 *   PC5  USART1 RX   (Arduino D0)
 *   PA11 FDCAN1 RX   host link over CAN, to an external transceiver; with PORT_USB: USB D-
 *   PA12 FDCAN1 TX                                                   with PORT_USB: USB D+
 *   PB12 FDCAN2 RX   CAN motor drives, to an external transceiver
 *   PB13 FDCAN2 TX
 *   PC8  input       emergency stop, channel A: normally closed to 3V3, pull-down. Low: stop
 *   PC9  input       emergency stop, channel B: normally closed to GND, pull-up. High: stop
 *   PC10 output      drive enable, active high; an external pull-down holds it off through reset
 *   PC11 output      changes level at every good tick (500 Hz square): input of the external retriggerable monostable
 *   PC12 output      opens holding brakes, active high: driver of brakes that grip without current; external pull-down */
#ifndef EW_PINS_H
#define EW_PINS_H
#include <stdbool.h>
#include <stdint.h>

/* The emergency-stop button must be seen closed on both channels for this long before it counts as released. */
#define ESTOP_RELEASE_TICKS 50u

typedef struct {
    uint32_t closed_ticks; /* both channels closed since so many ticks, up to ESTOP_RELEASE_TICKS */
} estop_input_t;

/* One look a tick. True: stop. A broken wire, a short between the channels, or one channel alone stop at the first look. */
bool estop_step(estop_input_t *input, bool channel_a_high, bool channel_b_high);

/* The LED: off/on at a tick, from a pattern of eight 125 ms parts. */
bool light_on(uint8_t state, uint32_t tick);

void pins_start(void);
bool pins_estop(void);
void pins_outputs(bool enable, bool brakes_open, uint32_t tick);
void pins_light(bool on);

#endif
