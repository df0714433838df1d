/* The MCU core as a Linux process: edgewam-mcu-host --link PATH|pty --drive PATH.
 *
 * PATH is a unix socket to listen on; one connection at a time, and another may follow. "pty" makes a pseudo-terminal and
 * prints its name. A reset (by the watchdog, or SIGHUP for the reset pin) executes the process anew: sockets and the no-init
 * record stay, everything else is lost, as on a board. SIGUSR1 makes the main loop hang. */
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ew_core.h"

/* A PC stalls for tens of ms although nothing is wrong with the firmware, and its plant is a process on the same PC. */
#define TICK_GAP_MAX_US 250000u
#define ENCODER_TIMEOUT_US 250000u
#define CLOCK_ERROR_MAX_US 5000u

#ifndef EW_BUILD_ID
#error "build with firmware_bridge/mcu/build.py, which passes EW_BUILD_ID"
#endif

/* Survives the reset: shared memory whose descriptor is handed on. */
typedef struct {
    ew_noinit_t noinit;
    int listener[2]; /* -1: none */
    int stream[2];   /* -1: nobody there */
} retained_t;

enum { LINK = 0, DRIVE = 1 };

static ew_t core;
static volatile uint32_t tick_now;
static volatile sig_atomic_t hang;
static volatile sig_atomic_t reset_pin;

static void on_signal(int number)
{
    if (number == SIGUSR1) {
        hang = 1;
    } else {
        reset_pin = 1;
    }
}

static void die(const char *what)
{
    fprintf(stderr, "edgewam-mcu-host: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t monotonic_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return ((uint64_t)t.tv_sec * 1000000u) + ((uint64_t)t.tv_nsec / 1000u);
}

static int listen_on(const char *path)
{
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        die(path);
    }
    memcpy(address.sun_path, path, strlen(path));
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)unlink(path);
    if ((fd < 0) || (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0) || (listen(fd, 1) != 0)) {
        die(path);
    }
    return fd;
}

static int open_pty(void)
{
    const int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if ((fd < 0) || (grantpt(fd) != 0) || (unlockpt(fd) != 0)) {
        die("pseudo-terminal");
    }
    printf("%s\n", ptsname(fd));
    (void)fflush(stdout);
    /* Held open, so that a client that goes away is no hang-up. */
    if (open(ptsname(fd), O_RDWR | O_NOCTTY) < 0) {
        die(ptsname(fd));
    }
    return fd;
}

static retained_t *map_retained(int fd)
{
    void *memory = mmap(NULL, sizeof(retained_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        die("no-init memory");
    }
    return memory;
}

static retained_t *cold_start(const char *link, const char *drive, int *fd)
{
    *fd = memfd_create("edgewam-noinit", 0u);
    if ((*fd < 0) || (ftruncate(*fd, (off_t)sizeof(retained_t)) != 0)) {
        die("no-init memory");
    }
    retained_t *kept = map_retained(*fd);
    const bool pty = strcmp(link, "pty") == 0;
    kept->listener[LINK] = pty ? -1 : listen_on(link);
    kept->stream[LINK] = pty ? open_pty() : -1;
    kept->listener[DRIVE] = listen_on(drive);
    kept->stream[DRIVE] = -1;
    return kept;
}

static void drop(retained_t *kept, int which)
{
    if (kept->listener[which] >= 0) {
        (void)close(kept->stream[which]);
        kept->stream[which] = -1;
    }
}

static void accept_newest(retained_t *kept, int which)
{
    const int fd = accept4(kept->listener[which], NULL, NULL, SOCK_NONBLOCK);
    if (fd >= 0) {
        if (kept->stream[which] >= 0) {
            (void)close(fd); /* a cable has one end */
        } else {
            kept->stream[which] = fd;
        }
    }
}

static void finish_work(uint64_t now_us)
{
    while (ew_work(&core, now_us)) {
    }
}

/* Frame by frame, as a board takes them. */
static void take_link(const uint8_t *bytes, size_t count, uint64_t now_us)
{
    size_t from = 0u;
    for (size_t i = 0u; i < count; i++) {
        if ((bytes[i] == 0u) || ((i + 1u) == count)) {
            ew_rx(&core, &bytes[from], (i + 1u) - from, now_us, now_us);
            finish_work(now_us);
            from = i + 1u;
        }
    }
}

static void receive(retained_t *kept, int which, uint64_t boot_us)
{
    uint8_t bytes[4096];
    const ssize_t count = read(kept->stream[which], bytes, sizeof bytes);
    const uint64_t now_us = monotonic_us() - boot_us;
    if (count > 0) {
        if (which == LINK) {
            take_link(bytes, (size_t)count, now_us);
        } else {
            ew_drive_rx(&core, bytes, (size_t)count, now_us);
        }
    } else if ((count == 0) || ((errno != EAGAIN) && (errno != EINTR))) {
        drop(kept, which);
    } else {
        /* nothing there after all */
    }
}

/* What the kernel does not take is lost, as on a line that nobody listens to; a frame cut in two fails its CRC. */
static void transmit(retained_t *kept, int which, const uint8_t *bytes, size_t count)
{
    if ((count > 0u) && (kept->stream[which] >= 0) && (write(kept->stream[which], bytes, count) < 0) &&
        ((errno == EPIPE) || (errno == ECONNRESET))) {
        drop(kept, which);
    }
}

static void transmit_all(retained_t *kept)
{
    uint8_t bytes[EW_TX_BYTES];
    transmit(kept, LINK, bytes, ew_tx(&core, bytes, sizeof bytes));
    size_t count = ew_drive_tx(&core, bytes, sizeof bytes);
    transmit(kept, DRIVE, bytes, count);
}

static void wait_for_work(retained_t *kept, uint64_t until_us, uint64_t boot_us)
{
    struct pollfd polled[4] = {
        {kept->listener[LINK], POLLIN, 0},
        {kept->listener[DRIVE], POLLIN, 0},
        {kept->stream[LINK], POLLIN, 0},
        {kept->stream[DRIVE], POLLIN, 0},
    };
    const uint64_t now_us = monotonic_us();
    const uint64_t left_us = (until_us > now_us) ? (until_us - now_us) : 0u;
    const struct timespec timeout = {0, (long)(left_us * 1000u)};
    if (ppoll(polled, 4u, &timeout, NULL) <= 0) {
        return;
    }
    for (int which = LINK; which <= DRIVE; which++) {
        /* The old end first: a host that was killed and its successor may arrive in one poll. */
        if ((kept->stream[which] >= 0) && (polled[2 + which].revents != 0)) {
            receive(kept, which, boot_us);
        }
        if (polled[which].revents != 0) {
            accept_newest(kept, which);
        }
    }
}

static void run(retained_t *kept, char **argv)
{
    const uint64_t boot_us = monotonic_us();
    const ew_port_info_t port = {
        .entropy = (uint32_t)boot_us ^ (uint32_t)getpid(),
        .build_id = EW_BUILD_ID,
        .tick_gap_max_us = TICK_GAP_MAX_US,
        .encoder_timeout_us = ENCODER_TIMEOUT_US,
        .clock_error_max_us = CLOCK_ERROR_MAX_US,
        .version = EW_VERSION,
        .watchdog_ms = PORT_WATCHDOG_MS,
        .checks = 1u << EW_CHECK_COMMS,
    };
    ew_init(&core, &port, &kept->noinit, 0u);
    watchdog_start(PORT_WATCHDOG_MS, &kept->noinit, &kept->stream[DRIVE], &tick_now, argv);
    uint64_t next_us = boot_us + EW_TICK_US;
    while (reset_pin == 0) {
        wait_for_work(kept, next_us, boot_us);
        ew_check_in(&core, EW_CHECK_COMMS);
        while (hang != 0) {
        }
        const uint64_t now_us = monotonic_us();
        ew_tick(&core, now_us - boot_us);
        finish_work(now_us - boot_us);
        next_us = now_us - ((now_us - boot_us) % EW_TICK_US) + EW_TICK_US;
        tick_now = ew_ticks(&core);
        if (ew_feed_allowed(&core)) {
            const uint32_t margin_us = watchdog_feed();
            if (margin_us < ew_port_stats(&core)->watchdog_margin_min_us) {
                ew_port_stats(&core)->watchdog_margin_min_us = margin_us;
            }
        }
        transmit_all(kept);
    }
    (void)execv("/proc/self/exe", argv);
    die("reset");
}

static const char *option(int argc, char **argv, const char *name)
{
    for (int i = 1; (i + 1) < argc; i += 2) {
        if (strcmp(argv[i], name) == 0) {
            return argv[i + 1];
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static char number[16];
    static char kept_option[] = "--kept";
    const char *link = option(argc, argv, "--link");
    const char *drive = option(argc, argv, "--drive");
    const char *kept_fd = option(argc, argv, "--kept"); /* internal: after a reset */
    if ((kept_fd == NULL) && ((link == NULL) || (drive == NULL))) {
        fprintf(stderr, "usage: edgewam-mcu-host --link PATH|pty --drive PATH\n");
        return 2;
    }
    int fd = -1;
    retained_t *kept = NULL;
    if (kept_fd != NULL) {
        fd = atoi(kept_fd);
        kept = map_retained(fd);
    } else {
        kept = cold_start(link, drive, &fd);
    }
    (void)snprintf(number, sizeof number, "%d", fd);
    char *again[] = {argv[0], kept_option, number, NULL};
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGUSR1, on_signal);
    (void)signal(SIGHUP, on_signal);
    run(kept, again);
    return 2;
}
