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
    static const char digits[] = "0123456789abcdef";
    char text[9];
    for (uint32_t i = 0u; i < 8u; i++) {
        text[i] = digits[(value >> (28u - (4u * i))) & 15u];
    }
    text[8] = '\0';
    boot_print(text);
}

static const uint8_t *at_address(uint32_t address)
{
    return (const uint8_t *)(uintptr_t)address;
}

/* The floor goes up before the program runs: a program that was accepted once binds all that follow. */
static bool raise_floor(uint32_t floor, uint32_t wanted)
{
    if (wanted <= floor) {
        return true;
    }
    uint32_t erase;
    const uint8_t *pages = at_address(boot_layout.floor);
    const uint32_t at = floor_place(pages, boot_layout.page_bytes, &erase);
    const bool ready = (erase == 2u) || boot_floor_erase(erase);
    return ready && boot_floor_write(at, wanted) && (floor_read(pages, boot_layout.page_bytes) == wanted);
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
    image_t image = {0u, 0u};
    image_t again = {0u, 1u};
    boot_start();
    const policy_t policy = {
        .board = boot_layout.board,
        .address = boot_layout.slot,
        .slot_bytes = boot_layout.slot_bytes,
        .floor = floor_read(at_address(boot_layout.floor), boot_layout.page_bytes),
        .keys = keys,
        .key_count = EW_BOOT_KEY_COUNT,
    };
    const uint8_t *slot = at_address(boot_layout.slot);
    const verdict_t verdict = image_judge(slot, &policy, &image);
    if (verdict != VERDICT_GOOD) {
        refuse(verdict_name(verdict), policy.floor);
    }
    /* A second time, and the same: one disturbed instruction is not enough to get past. */
    if ((image_judge(slot, &policy, &again) != VERDICT_GOOD) || (again.version != image.version) ||
        (again.floor != image.floor)) {
        refuse("UNSTEADY", policy.floor);
    }
    if (!raise_floor(policy.floor, image.floor)) {
        refuse("FLASH", policy.floor);
    }
    boot_jump(boot_layout.slot + IMAGE_HEADER_BYTES);
}
