#include "verify.h"

#include "sha256.h"

#define SMALLEST 512u /* a vector table and a little code */

static uint32_t word_at(const uint8_t *b, uint32_t at)
{
    return (uint32_t)b[at] | ((uint32_t)b[at + 1u] << 8) | ((uint32_t)b[at + 2u] << 16) | ((uint32_t)b[at + 3u] << 24);
}

static bool header_understood(const uint8_t *slot)
{
    uint8_t rest = 0u;
    for (uint32_t i = 72u; i < IMAGE_HEADER_BYTES; i++) {
        rest |= slot[i];
    }
    return (word_at(slot, 4u) == (1u | (IMAGE_HEADER_BYTES << 16))) && (rest == 0u);
}

static bool payload_matches(const uint8_t *slot, uint32_t bytes)
{
    uint8_t digest[SHA256_BYTES];
    uint8_t difference = 0u;
    sha256_t hash;
    sha256_start(&hash);
    sha256_add(&hash, &slot[IMAGE_HEADER_BYTES], bytes);
    sha256_end(&hash, digest);
    for (uint32_t i = 0u; i < SHA256_BYTES; i++) {
        difference |= (uint8_t)(digest[i] ^ slot[40u + i]);
    }
    return difference == 0u;
}

verdict_t image_judge(const uint8_t *slot, const policy_t *policy, image_t *image)
{
    if (word_at(slot, 0u) != IMAGE_MAGIC) {
        return VERDICT_EMPTY;
    }
    if (!header_understood(slot)) {
        return VERDICT_HEADER;
    }
    const uint32_t payload = word_at(slot, 20u);
    const uint32_t signature = word_at(slot, 24u);
    const uint32_t room = policy->slot_bytes - IMAGE_HEADER_BYTES;
    if ((payload < SMALLEST) || (payload > room) || (signature > (room - payload)) || ((payload % 8u) != 0u)) {
        return VERDICT_LENGTH;
    }
    if ((word_at(slot, 8u) != policy->board) || (word_at(slot, 28u) != policy->address)) {
        return VERDICT_BOARD;
    }
    if (!payload_matches(slot, payload)) {
        return VERDICT_HASH;
    }
    const uint32_t version = word_at(slot, 12u);
    const uint32_t floor = word_at(slot, 16u);
    if ((version < policy->floor) || (floor > version)) {
        return VERDICT_FLOOR;
    }
    if (policy->key_count == 0u) {
        return VERDICT_NO_KEY;
    }
    bool known = false;
    for (uint32_t i = 0u; (i < policy->key_count) && !known; i++) {
        known = lms_verify(policy->keys[i], slot, IMAGE_SIGNED_BYTES, &slot[IMAGE_HEADER_BYTES + payload], signature);
    }
    if (!known) {
        return VERDICT_SIGNATURE;
    }
    image->version = version;
    image->floor = floor;
    return VERDICT_GOOD;
}

const char *verdict_name(verdict_t verdict)
{
    static const char *const names[] = {"GOOD", "EMPTY", "HEADER", "LENGTH", "BOARD", "HASH", "FLOOR", "SIGNATURE", "NO_KEY"};
    return (verdict <= VERDICT_NO_KEY) ? names[verdict] : "?";
}

/* True for a whole record; one that lost power half written is none. */
static bool record_at(const uint8_t *pages, uint32_t at, uint32_t *value)
{
    *value = word_at(pages, at);
    return word_at(pages, at + 4u) == (uint32_t)~*value;
}

static uint32_t highest_in(const uint8_t *page, uint32_t page_bytes)
{
    uint32_t highest = 0u;
    for (uint32_t at = 0u; at < page_bytes; at += FLOOR_RECORD_BYTES) {
        uint32_t value;
        if (record_at(page, at, &value) && (value > highest)) {
            highest = value;
        }
    }
    return highest;
}

uint32_t floor_read(const uint8_t *pages, uint32_t page_bytes)
{
    const uint32_t first = highest_in(pages, page_bytes);
    const uint32_t second = highest_in(&pages[page_bytes], page_bytes);
    return (first > second) ? first : second;
}

/* First place behind which the page is still erased, page_bytes when it is full. */
static uint32_t free_in(const uint8_t *page, uint32_t page_bytes)
{
    uint32_t at = page_bytes;
    bool blank = true;
    while (blank && (at > 0u)) {
        blank = (word_at(page, at - 8u) == 0xFFFFFFFFu) && (word_at(page, at - 4u) == 0xFFFFFFFFu);
        at -= blank ? FLOOR_RECORD_BYTES : 0u;
    }
    return at;
}

uint32_t floor_place(const uint8_t *pages, uint32_t page_bytes, uint32_t *erase)
{
    const uint32_t first = highest_in(pages, page_bytes);
    const uint32_t second = highest_in(&pages[page_bytes], page_bytes);
    const uint32_t active = (second > first) ? 1u : 0u;
    const uint32_t at = free_in(&pages[active * page_bytes], page_bytes);
    *erase = 2u;
    if (at < page_bytes) {
        return (active * page_bytes) + at;
    }
    *erase = 1u - active;
    return (1u - active) * page_bytes;
}
