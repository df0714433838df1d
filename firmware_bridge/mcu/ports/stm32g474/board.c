/* The NUCLEO-G474RE (STM32G474RE, Cortex-M4F at 170 MHz). What each pin is for stands in pins.h. */
#include "board.h"

#include "clock.h"
#include "cortex.h"
#include "fdcan.h"
#include "handlers.h"
#include "pins.h"
#include "reg.h"
#include "rings.h"
#include "stm32g474.h"
#include "uart.h"
#ifdef PORT_USB
#include "usb_cdc.h"
#include "usbfs.h"
#endif
#include "watchdogs.h"

#ifndef PORT_LINK_BAUD
#define PORT_LINK_BAUD 1000000u /* 170 clocks a bit exactly; the host's default */
#endif
#ifndef PORT_DRIVE_BAUD
#define PORT_DRIVE_BAUD 1000000u
#endif

#ifdef PORT_USB
#define CAN_BUSES 2u /* the motor drives'; the pins of the other are the USB's */
#else
#define CAN_BUSES 3u
#endif

#define SERVO_BAUD 1000000u /* of STS and SCS servos as delivered */

static uint64_t microseconds;
static uint32_t counter_last;
static bool crystal;

uint64_t board_now_us(void)
{
    const uint32_t mask = irq_off();
    const uint32_t now = reg_get(TIM2_CNT);
    microseconds += (uint32_t)(now - counter_last); /* read at 1 kHz at least, wraps after 71 min */
    counter_last = now;
    const uint64_t result = microseconds;
    irq_restore(mask);
    return result;
}

uint32_t board_systicks(void)
{
    return cortex_systicks();
}

void Usart1_Handler(void)
{
    uart_interrupt(BOARD_DRIVE);
}

void Usart2_Handler(void)
{
    uart_interrupt(BOARD_LINK);
}

void Usart3_Handler(void)
{
    uart_interrupt(BOARD_SERVO);
}

#ifdef PORT_USB
void Usb_Handler(void)
{
    usbfs_interrupt();
}
#endif

bool board_send(uint32_t stream, uint8_t byte)
{
#ifdef PORT_USB
    if (stream == BOARD_LINK) {
        return usb_cdc_put(byte);
    }
#endif
    return uart_send(stream, byte);
}

/* The supply falls below 2.9 V (level 6). The drive goes off; if the supply comes back, the part starts anew, and if not, the
 * brown-out reset takes it. Either way the record says: not the watchdog. */
static void start_voltage_detector(void)
{
    reg_field(PWR_CR2, PWR_CR2_PLS_SHIFT, 3u, 6u);
    reg_set(PWR_CR2, PWR_CR2_PVDE);
    reg_set(EXTI_RTSR1, EXTI_PVD);
    reg_set(EXTI_IMR1, EXTI_PVD);
    NVIC_ENABLE(IRQ_PVD);
}

void Pvd_Handler(void)
{
    pins_outputs(false, false, 0u);
    reg_put(EXTI_PR1, EXTI_PVD);
    last_words_supply();
}

/* Regions: RAM holds no code; the 256 bytes below the stack let nobody in (the canary word above them is written first); the
 * code that was copied to CCM can be run and read, and its second address does not exist. */
static void start_memory_protection(void)
{
    extern uint32_t _guard;
    const uint32_t on = 1u;
    const uint32_t never_execute = 1u << 28;
    reg_put(MPU_RNR, 0u);
    reg_put(MPU_RBAR, 0x20000000u);
    reg_put(MPU_RASR, never_execute | (3u << 24) | (6u << 16) | (16u << 1) | on); /* 128 KB, read and write, normal memory */
    reg_put(MPU_RNR, 1u);
    reg_put(MPU_RBAR, (uint32_t)(uintptr_t)&_guard);
    reg_put(MPU_RASR, never_execute | (6u << 16) | (7u << 1) | on); /* 256 bytes, no access */
    reg_put(MPU_RNR, 2u);
    reg_put(MPU_RBAR, 0x10000000u);
    reg_put(MPU_RASR, (6u << 24) | (6u << 16) | (14u << 1) | on); /* 32 KB, read only */
    reg_put(MPU_RNR, 3u);
    reg_put(MPU_RBAR, 0x20018000u);
    reg_put(MPU_RASR, never_execute | (6u << 16) | (14u << 1) | on); /* 32 KB, no access */
    reg_put(MPU_CTRL, 5u); /* on; elsewhere the default map; off in HardFault and NMI, which have the last words */
    __asm volatile("dsb\n isb" ::: "memory");
}

void board_start(void)
{
    pins_start(); /* first: outputs to their safe levels */
    pins_outputs(false, false, 0u);
    crystal = clock_start();
    clock_start_counter();
    start_memory_protection();
#ifdef PORT_USB
    (void)usbfs_start();
#else
    (void)uart_start(BOARD_LINK, PORT_LINK_BAUD, false);
#endif
    (void)uart_start(BOARD_DRIVE, PORT_DRIVE_BAUD, false);
    (void)uart_start(BOARD_SERVO, SERVO_BAUD, true);
    fdcan_allow(crystal ? CAN_BUSES : 0u);
    /* 16 priorities in the upper four bits. The first watchdog stage comes before everything. */
    NVIC_PRIORITY(IRQ_WWDG) = 0x00u;
    NVIC_PRIORITY(IRQ_PVD) = 0x10u;
    NVIC_PRIORITY(IRQ_USART1) = 0x40u;
    NVIC_PRIORITY(IRQ_USART2) = 0x30u; /* at 3 Mbaud four more bytes fill its FIFO in 13 us: it waits for nobody */
    NVIC_PRIORITY(IRQ_USART3) = 0x40u;
    NVIC_PRIORITY(IRQ_USB_LP) = 0x40u;
    NVIC_PRIORITY(IRQ_FDCAN1) = 0x40u;
    NVIC_PRIORITY(IRQ_FDCAN2) = 0x40u;
    SHPR3 = 0x80000000u; /* SysTick */
    NVIC_ENABLE(IRQ_WWDG);
    NVIC_ENABLE(IRQ_USART1);
#ifdef PORT_USB
    NVIC_ENABLE(IRQ_USB_LP);
#else
    NVIC_ENABLE(IRQ_USART2);
#endif
    NVIC_ENABLE(IRQ_USART3);
    NVIC_ENABLE(IRQ_FDCAN1);
    NVIC_ENABLE(IRQ_FDCAN2);
    start_voltage_detector();
    cortex_start_systick(CLOCK_HZ);
    irq_on();
}

void board_watchdog_start(uint32_t watchdog_ms)
{
    if (!watchdogs_start(watchdog_ms)) {
        cortex_reset(); /* a part whose watchdog does not take its settings must not go on */
    }
}

uint32_t board_watchdog_feed(void)
{
    return watchdogs_feed();
}

uint8_t board_reset_cause(bool lived)
{
    (void)lived;
    return watchdogs_reset_cause();
}

uint32_t board_entropy(void)
{
    return clock_random();
}

void board_outputs(bool enable, bool brakes_open, uint32_t tick)
{
    pins_outputs(enable, brakes_open, tick);
}

/* One look a millisecond, however often it is asked. */
bool board_estop(void)
{
    static uint32_t looked;
    static bool pressed;
    const uint32_t systicks = cortex_systicks();
    if (systicks != looked) {
        looked = systicks;
        pressed = pins_estop();
    }
    return pressed;
}

void board_light(uint8_t state, uint32_t tick)
{
    pins_light(light_on(state, tick));
}
