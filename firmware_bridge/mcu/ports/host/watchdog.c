#include "watchdog.h"

#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

extern const char __executable_start; /* from the linker: makes program counters comparable with the file's symbols */

static struct {
    struct itimerval half;
    volatile ew_noinit_t *noinit;
    const volatile int *drive_stream;
    uint8_t off[EW_DRIVE_OFF_BYTES];
    size_t off_count;
    const volatile uint32_t *tick;
    char **argv;
    volatile sig_atomic_t stage;
} dog;

static uint32_t program_counter(const ucontext_t *context)
{
#if defined(__x86_64__)
    const uintptr_t pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    const uintptr_t pc = (uintptr_t)context->uc_mcontext.pc;
#else
    const uintptr_t pc = (uintptr_t)context * 0u;
#endif
    return (uint32_t)(pc - (uintptr_t)&__executable_start);
}

/* Async-signal-safe: writes memory, re-arms, executes. */
static void on_expiry(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    if (dog.stage == 0) {
        dog.stage = 1;
        if (*dog.drive_stream >= 0) {
            (void)!write(*dog.drive_stream, dog.off, dog.off_count); /* nothing better can be done if it fails */
        }
        ew_noinit_mark(dog.noinit, EW_RESET_CAUSE_WATCHDOG, program_counter(context), *dog.tick);
        (void)setitimer(ITIMER_REAL, &dog.half, NULL);
    } else {
        (void)execv("/proc/self/exe", dog.argv);
        _exit(127);
    }
}

void watchdog_start(uint32_t watchdog_ms, volatile ew_noinit_t *noinit, const volatile int *drive_stream,
                    const volatile uint32_t *tick, char **argv)
{
    const uint32_t half_us = watchdog_ms * 500u;
    struct sigaction action;
    sigset_t none;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_expiry;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    (void)sigemptyset(&action.sa_mask);
    dog.half.it_value.tv_sec = (time_t)(half_us / 1000000u);
    dog.half.it_value.tv_usec = (suseconds_t)(half_us % 1000000u);
    dog.noinit = noinit;
    dog.drive_stream = drive_stream;
    dog.off_count = ew_drive_off(dog.off);
    dog.tick = tick;
    dog.argv = argv;
    (void)sigaction(SIGALRM, &action, NULL);
    /* The handler that executed us left its own signal blocked. */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setitimer(ITIMER_REAL, &dog.half, NULL);
}

uint32_t watchdog_feed(void)
{
    struct itimerval left;
    if (dog.stage != 0) {
        return 0u; /* as in hardware: what follows the first stage is the reset */
    }
    (void)setitimer(ITIMER_REAL, &dog.half, &left);
    return (uint32_t)(left.it_value.tv_sec * 1000000 + left.it_value.tv_usec);
}
