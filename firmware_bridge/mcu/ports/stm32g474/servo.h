/* The bus of servos: packets of the core, one wire. */
#ifndef EW_SERVO_H
#define EW_SERVO_H
#include "ew.h"

void servo_start(void);
void servo_turn(ew_t *core, uint64_t now_us);

/* Last words: torque off to every servo. */
void servo_off(void);

#endif
