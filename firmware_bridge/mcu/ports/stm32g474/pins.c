#include "pins.h"

#include "ew_protocol.h"
#include "reg.h"
#include "stm32g474.h"

#define LED 5u
#define ESTOP_A 8u
#define ESTOP_B 9u
#define ENABLE 10u
#define PULSE 11u
#define BRAKES 12u

typedef struct {
    uint32_t port;
    uint8_t pin;
    uint8_t mode;
    uint8_t function;
    uint8_t pull;
    uint8_t speed;
    bool open_drain;
} pin_t;

enum { INPUT = 0, OUTPUT = 1, ALTERNATE = 2 };
enum { NO_PULL = 0, PULL_UP = 1, PULL_DOWN = 2 };

/* Alternate functions: DS12288, tables 12 and following. */
static const pin_t table[] = {
    {GPIOC, ENABLE, OUTPUT, 0u, NO_PULL, 0u, false},
    {GPIOC, PULSE, OUTPUT, 0u, NO_PULL, 0u, false},
    {GPIOC, BRAKES, OUTPUT, 0u, NO_PULL, 0u, false},
    {GPIOA, 2u, ALTERNATE, 7u, NO_PULL, 2u, false},
    {GPIOA, 3u, ALTERNATE, 7u, PULL_UP, 0u, false},
    {GPIOA, LED, OUTPUT, 0u, NO_PULL, 0u, false},
    {GPIOC, 4u, ALTERNATE, 7u, NO_PULL, 2u, false},
    {GPIOB, 10u, ALTERNATE, 7u, PULL_UP, 2u, true},
    {GPIOC, 5u, ALTERNATE, 7u, PULL_UP, 0u, false},
#ifndef PORT_USB /* which takes them by itself when it is switched on */
    {GPIOA, 11u, ALTERNATE, 9u, PULL_UP, 0u, false},
    {GPIOA, 12u, ALTERNATE, 9u, NO_PULL, 3u, false},
#endif
    {GPIOB, 12u, ALTERNATE, 9u, PULL_UP, 0u, false},
    {GPIOB, 13u, ALTERNATE, 9u, NO_PULL, 3u, false},
    {GPIOC, ESTOP_A, INPUT, 0u, PULL_DOWN, 0u, false},
    {GPIOC, ESTOP_B, INPUT, 0u, PULL_UP, 0u, false},
};

#define PINS (sizeof table / sizeof table[0])

static estop_input_t estop = {ESTOP_RELEASE_TICKS}; /* at power-on the first look decides */

bool estop_step(estop_input_t *input, bool channel_a_high, bool channel_b_high)
{
    if (!channel_a_high || channel_b_high) {
        input->closed_ticks = 0u;
    } else if (input->closed_ticks < ESTOP_RELEASE_TICKS) {
        input->closed_ticks++;
    } else {
        /* closed for long enough: released */
    }
    return input->closed_ticks < ESTOP_RELEASE_TICKS;
}

/* Bit k: lit in the k-th eighth of a second. */
bool light_on(uint8_t state, uint32_t tick)
{
    static const uint8_t patterns[EW_STATE_FAULT + 1] = {
        [EW_STATE_DISARMED] = 0x01u,   /* a short flash a second */
        [EW_STATE_CONFIGURED] = 0x05u, /* two */
        [EW_STATE_ARMED] = 0x0Fu,      /* half on, half off: the drive is live */
        [EW_STATE_RUN] = 0xFFu,        /* steady */
        [EW_STATE_STARVED] = 0x7Fu,
        [EW_STATE_STOP] = 0x15u,       /* three */
        [EW_STATE_ESTOP] = 0x55u,      /* 4 Hz */
        [EW_STATE_FAULT] = 0x55u,
    };
    const uint8_t pattern = (state <= EW_STATE_FAULT) ? patterns[state] : 0u;
    return ((pattern >> ((tick / 125u) % 8u)) & 1u) != 0u;
}

/* A pin's level is set before its mode, so that no output glitches on. */
static void set_up(const pin_t *pin)
{
    reg_put(pin->port + GPIO_BSRR, 1u << (pin->pin + 16u));
    reg_field(pin->port + GPIO_OTYPER, pin->pin, 1u, pin->open_drain ? 1u : 0u);
    reg_field(pin->port + GPIO_PUPDR, 2u * pin->pin, 2u, pin->pull);
    reg_field(pin->port + GPIO_OSPEEDR, 2u * pin->pin, 2u, pin->speed);
    reg_field(pin->port + GPIO_AFR + (4u * (pin->pin / 8u)), 4u * (pin->pin % 8u), 4u, pin->function);
    reg_field(pin->port + GPIO_MODER, 2u * pin->pin, 2u, pin->mode);
}

void pins_start(void)
{
    reg_set(RCC_AHB2ENR, RCC_AHB2ENR_GPIOA | RCC_AHB2ENR_GPIOB | RCC_AHB2ENR_GPIOC);
    (void)reg_get(RCC_AHB2ENR);
    for (uint32_t i = 0u; i < PINS; i++) {
        set_up(&table[i]);
    }
}

bool pins_estop(void)
{
    const uint32_t levels = reg_get(GPIOC + GPIO_IDR);
    return estop_step(&estop, ((levels >> ESTOP_A) & 1u) != 0u, ((levels >> ESTOP_B) & 1u) != 0u);
}

static uint32_t level(uint32_t pin, bool high)
{
    return high ? (1u << pin) : (1u << (pin + 16u));
}

/* Without the enable there is no pulse either: the monostable then falls, whatever holds the enable line. Nor is a brake open
 * without it. All of them change in one write. */
void pins_outputs(bool enable, bool brakes_open, uint32_t tick)
{
    const uint32_t pins = level(ENABLE, enable) | level(PULSE, enable && ((tick & 1u) != 0u)) |
                          level(BRAKES, enable && brakes_open);
    reg_put(GPIOC + GPIO_BSRR, pins);
}

void pins_light(bool on)
{
    reg_put(GPIOA + GPIO_BSRR, on ? (1u << LED) : (1u << (LED + 16u)));
}
