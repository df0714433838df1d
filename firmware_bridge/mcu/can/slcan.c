#include "slcan.h"

#define BEL 7u
#define NEWLINE 10u

static const uint8_t lengths[] = {EW_CAN_FD_LENGTHS};

/* A digit's value, 16 when it is none. */
static uint32_t digit(uint8_t c)
{
    uint32_t value = 16u;
    if ((c >= (uint8_t)'0') && (c <= (uint8_t)'9')) {
        value = (uint32_t)c - (uint32_t)'0';
    } else if ((c >= (uint8_t)'A') && (c <= (uint8_t)'F')) {
        value = ((uint32_t)c - (uint32_t)'A') + 10u;
    } else if ((c >= (uint8_t)'a') && (c <= (uint8_t)'f')) {
        value = ((uint32_t)c - (uint32_t)'a') + 10u;
    } else {
        /* none */
    }
    return value;
}

static void reply(slcan_t *slcan, uint8_t byte)
{
    if (slcan->reply_count < SLCAN_REPLY_BYTES) {
        slcan->reply[slcan->reply_count] = byte;
        slcan->reply_count++;
    }
}

typedef enum { NO_FRAME, STANDARD, EXTENDED } kind_t;

/* t111 2 AABB: letter, identifier, length code, data. */
static kind_t parse_frame(const uint8_t *line, uint32_t count, ew_can_frame_t *frame)
{
    const uint8_t lower = (uint8_t)(line[0] | 0x20u);
    const bool extended = line[0] != lower;
    const uint32_t digits = extended ? 8u : 3u;
    if (((lower != (uint8_t)'t') && (lower != (uint8_t)'r') && (lower != (uint8_t)'d') && (lower != (uint8_t)'b')) ||
        (count < (digits + 2u))) {
        return NO_FRAME;
    }
    for (uint32_t i = 1u; i < count; i++) {
        if (digit(line[i]) > 15u) {
            return NO_FRAME;
        }
    }
    uint32_t id = 0u;
    for (uint32_t i = 1u; i <= digits; i++) {
        id = (id << 4) | digit(line[i]);
    }
    const uint32_t code = digit(line[digits + 1u]);
    frame->fd = (lower == (uint8_t)'d') || (lower == (uint8_t)'b');
    frame->remote = lower == (uint8_t)'r';
    frame->id = (uint16_t)(id & 0x7FFu);
    frame->count = lengths[code];
    const uint32_t data = frame->remote ? 0u : frame->count;
    if ((!extended && (id > 0x7FFu)) || (!frame->fd && (code > 8u)) || (count != (digits + 2u + (2u * data)))) {
        return NO_FRAME;
    }
    for (uint32_t i = 0u; i < data; i++) {
        frame->data[i] = (uint8_t)((digit(line[digits + 2u + (2u * i)]) << 4) | digit(line[digits + 3u + (2u * i)]));
    }
    return extended ? EXTENDED : STANDARD;
}

/* What an adapter is told. The bit rates have no meaning where there is no bus, and are accepted. */
static bool command(slcan_t *slcan, uint8_t letter, uint32_t count)
{
    bool known = true;
    switch (letter) {
    case 'O':
    case 'L':
        slcan->open = true;
        slcan->listen = letter == (uint8_t)'L';
        break;
    case 'C':
        slcan->open = false;
        break;
    case 'S':
    case 's':
    case 'Y':
        known = count > 1u;
        break;
    case 'V':
        reply(slcan, (uint8_t)'V');
        for (uint32_t i = 0u; i < 4u; i++) {
            reply(slcan, (i == 1u) ? (uint8_t)'2' : (uint8_t)'0');
        }
        break;
    case 'F':
        reply(slcan, (uint8_t)'F');
        reply(slcan, (uint8_t)'0');
        reply(slcan, (uint8_t)'0');
        break;
    default:
        known = false;
        break;
    }
    return known;
}

static bool end_of_line(slcan_t *slcan, ew_can_frame_t *frame)
{
    const uint32_t count = slcan->count;
    const bool overlong = slcan->overlong;
    slcan->count = 0u;
    slcan->overlong = false;
    if ((count == 0u) && !overlong) {
        return false; /* an empty line clears what was typed before it */
    }
    const kind_t kind = overlong ? NO_FRAME : parse_frame(slcan->line, count, frame);
    if (kind == NO_FRAME) {
        const bool known = !overlong && command(slcan, slcan->line[0], count);
        slcan->errors += known ? 0u : 1u;
        reply(slcan, known ? SLCAN_END : BEL);
    }
    return (kind == STANDARD) && slcan->open && !slcan->listen;
}

bool slcan_push(slcan_t *slcan, uint8_t byte, ew_can_frame_t *frame)
{
    bool complete = false;
    if (byte == SLCAN_END) {
        complete = end_of_line(slcan, frame);
    } else if (slcan->count < SLCAN_LINE_BYTES) {
        if (byte != NEWLINE) {
            slcan->line[slcan->count] = byte;
            slcan->count++;
        }
    } else {
        slcan->overlong = true;
    }
    return complete;
}

uint32_t slcan_format(const ew_can_frame_t *frame, uint8_t *out)
{
    static const uint8_t hex[] = "0123456789ABCDEF";
    uint8_t code = 0u;
    while (lengths[code] < frame->count) {
        code++;
    }
    out[0] = frame->fd ? (uint8_t)'b' : (frame->remote ? (uint8_t)'r' : (uint8_t)'t');
    out[1] = hex[(frame->id >> 8) & 7u];
    out[2] = hex[(frame->id >> 4) & 15u];
    out[3] = hex[frame->id & 15u];
    out[4] = hex[code];
    uint32_t at = 5u;
    const uint32_t data = frame->remote ? 0u : frame->count;
    for (uint32_t i = 0u; i < data; i++) {
        out[at] = hex[frame->data[i] >> 4];
        out[at + 1u] = hex[frame->data[i] & 15u];
        at += 2u;
    }
    out[at] = SLCAN_END;
    return at + 1u;
}
