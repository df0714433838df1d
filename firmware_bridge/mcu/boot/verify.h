/* May the image in the slot be started? Pure: memory in, verdict out.
 *
 * A slot is: header (512 bytes, of which the first 128 carry information and the rest is zero), payload (the program, whose vector
 * table comes first), signature. The signature is over the first 128 bytes, which hold the payload's SHA-256.
 *
 *   0 magic "EWFW" | 4 format u16 = 1 | 6 header bytes u16 = 512 | 8 board u32 | 12 version u32 | 16 floor u32
 *  20 payload bytes u32 | 24 signature bytes u32 | 28 address of the slot u32 | 32 build id u32 | 36 schema hash u32
 *  40 SHA-256 of the payload | 72 zero to 127
 *
 * Little endian. Versions are major << 16 | minor << 8 | patch. floor: once this image was accepted, none with a version below
 * its floor is. */
#ifndef EW_VERIFY_H
#define EW_VERIFY_H
#include "lms.h"

#define IMAGE_MAGIC 0x57465745u
#define IMAGE_HEADER_BYTES 512u
#define IMAGE_SIGNED_BYTES 128u

/* Numbers are stable: they are what a bootloader tells. */
typedef enum {
    VERDICT_GOOD = 0,
    VERDICT_EMPTY = 1,     /* no header */
    VERDICT_HEADER = 2,    /* a header that this bootloader does not understand, or with something where zero must be */
    VERDICT_LENGTH = 3,    /* longer than the slot, or of no length that a program can have */
    VERDICT_BOARD = 4,     /* for another board, or another place */
    VERDICT_HASH = 5,      /* the payload is not the one that the header describes */
    VERDICT_FLOOR = 6,     /* older than what was accepted before */
    VERDICT_SIGNATURE = 7, /* not signed by a key that this bootloader trusts */
    VERDICT_NO_KEY = 8     /* this bootloader trusts nobody */
} verdict_t;

typedef struct {
    uint32_t board;
    uint32_t address;     /* of the slot */
    uint32_t slot_bytes;
    uint32_t floor;       /* the highest that any accepted image demanded */
    const uint8_t (*keys)[LMS_KEY_BYTES];
    uint32_t key_count;
} policy_t;

typedef struct {
    uint32_t version;
    uint32_t floor;
} image_t;

/* The slot is read through `slot`, which need not be at policy->address (tests). *image is written when the verdict is GOOD. */
verdict_t image_judge(const uint8_t *slot, const policy_t *policy, image_t *image);

/* One word for people. */
const char *verdict_name(verdict_t verdict);

/* ---- the version floor, in flash: records of 8 bytes (value, complement), never overwritten ---- */

#define FLOOR_RECORD_BYTES 8u

/* The highest valid record in two pages that lie one behind the other; 0: none. */
uint32_t floor_read(const uint8_t *pages, uint32_t page_bytes);

/* Where the next record goes: its offset in the two pages. *erase: the page that must be erased before, or 2 for none. The page
 * with the highest record is never erased. */
uint32_t floor_place(const uint8_t *pages, uint32_t page_bytes, uint32_t *erase);

#endif
