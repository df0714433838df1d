/* The bootloader: an image is started when every check has passed, twice; else it is not, and the reason is told until somebody
 * brings another one. */
#include "boot_port.h"

#ifndef EW_BOOT_KEYS
/* Built without a key: this bootloader trusts nobody, and starts nothing. */
#define EW_BOOT_KEYS {{0u}}
#define EW_BOOT_KEY_COUNT 0u
#endif

int main(void);

static const uint8_t keys[][LMS_KEY_BYTES] = EW_BOOT_KEYS;

static void print_number(uint32_t value)
{
    char text[9];
    for (uint32_t i = 0u; i < 8u; i++) {
        const uint32_t digit = (value >> (28u - (4u * i))) & 15u;
        text[i] = (char)((digit < 10u) ? ('0' + (char)digit) : ('a' + (char)(digit - 10u)));
    }
    text[8] = '\0';
    boot_print(text);
}

/* The floor goes up before the program runs: a program that was accepted once binds all that follow. */
static bool raise_floor(uint32_t floor, uint32_t wanted)
{
    if (wanted <= floor) {
        return true;
    }
    uint32_t erase;
    const uint32_t at = floor_place(boot_floor_pages(), boot_floor_page_bytes(), &erase);
    const bool ready = (erase == 2u) || boot_floor_erase(erase);
    return ready && boot_floor_write(at, wanted) && (floor_read(boot_floor_pages(), boot_floor_page_bytes()) == wanted);
}

static void refuse(const char *reason, uint32_t floor)
{
    for (;;) {
        boot_print("\r\nedge-wam boot: no program started: ");
        boot_print(reason);
        boot_print(", version floor ");
        print_number(floor);
        boot_print("\r\n");
        boot_wait();
    }
}

int main(void)
{
    policy_t policy;
    image_t image = {0u, 0u};
    image_t again = {0u, 1u};
    boot_start();
    boot_policy(&policy);
    policy.floor = floor_read(boot_floor_pages(), boot_floor_page_bytes());
    policy.keys = keys;
    policy.key_count = EW_BOOT_KEY_COUNT;
    const verdict_t verdict = image_judge(boot_slot(), &policy, &image);
    if (verdict != VERDICT_GOOD) {
        refuse(verdict_name(verdict), policy.floor);
    }
    /* A second time, and the same: one disturbed instruction is not enough to get past. */
    if ((image_judge(boot_slot(), &policy, &again) != VERDICT_GOOD) || (again.version != image.version) ||
        (again.floor != image.floor)) {
        refuse("UNSTEADY", policy.floor);
    }
    if (!raise_floor(policy.floor, image.floor)) {
        refuse("FLASH", policy.floor);
    }
    boot_jump(policy.address + IMAGE_HEADER_BYTES);
}
