#include "usb_descriptors.h"

#include "usb_hal.h"

#include <stddef.h>

/* The number that pid.codes gives for private tests. A maker who ships boards puts his own here. */
#ifndef USB_VENDOR
#define USB_VENDOR 0x1209u
#define USB_PRODUCT 0x0001u
#endif

#define LOW(x) ((uint8_t)((x) % 256u))
#define HIGH(x) ((uint8_t)((x) / 256u))

#define DEVICE 1u
#define CONFIGURATION 2u
#define STRING 3u
#define INTERFACE 4u
#define ENDPOINT 5u
#define CLASS_INTERFACE 0x24u

#define LANGUAGES 0u
#define MANUFACTURER 1u
#define PRODUCT 2u
#define SERIAL 3u

/* What a host asks for. */
#define WHICH(type, index) ((256u * (type)) + (index))

#define SERIAL_CHARACTERS (8u * USB_SERIAL_WORDS)
#define STRING_CHARACTERS 24u
#define CONFIGURATION_BYTES 67u

/* USB 2.0, table 9-8. The class stands on the device: one function, so no association of interfaces is needed. */
static const uint8_t device_bytes[] = {
    18u, DEVICE, 0x00u, 0x02u,                    /* USB 2.0 */
    0x02u, 0x00u, 0x00u,                          /* communications device */
    USB_PACKET_BYTES,                             /* of endpoint 0 */
    LOW(USB_VENDOR), HIGH(USB_VENDOR), LOW(USB_PRODUCT), HIGH(USB_PRODUCT),
    0x00u, 0x01u,                                 /* release of these descriptors */
    MANUFACTURER, PRODUCT, SERIAL, 1u,
};

/* USB 2.0, tables 9-10, 9-12, 9-13; CDC 1.2, 5.2.3; CDC PSTN 1.2, 5.3. The protocol of the first interface is "none": with
 * the one for AT commands a modem manager would talk to the arm. */
static const uint8_t configuration_bytes[] = {
    9u, CONFIGURATION, LOW(CONFIGURATION_BYTES), HIGH(CONFIGURATION_BYTES), 2u, 1u, 0u,
    0xC0u, 0u,                                                  /* powered by itself, takes nothing from the bus */
    9u, INTERFACE, 0u, 0u, 1u, 0x02u, 0x02u, 0x00u, 0u,         /* communications, abstract control model */
    5u, CLASS_INTERFACE, 0x00u, 0x20u, 0x01u,                   /* CDC 1.20 */
    5u, CLASS_INTERFACE, 0x01u, 0x00u, 1u,                      /* no call management; data on interface 1 */
    4u, CLASS_INTERFACE, 0x02u, 0x02u,                          /* line coding and line state */
    5u, CLASS_INTERFACE, 0x06u, 0u, 1u,                         /* union: 0 is in charge of 1 */
    7u, ENDPOINT, USB_IN | USB_NOTIFY, 3u, USB_NOTIFY_PACKET_BYTES, 0u, 255u, /* interrupt, every 255 ms: never used */
    9u, INTERFACE, 1u, 0u, 2u, 0x0Au, 0x00u, 0x00u, 0u,         /* data */
    7u, ENDPOINT, USB_DATA, 2u, USB_PACKET_BYTES, 0u, 0u,       /* bulk */
    7u, ENDPOINT, USB_IN | USB_DATA, 2u, USB_PACKET_BYTES, 0u, 0u,
};

_Static_assert(sizeof device_bytes == 18u, "USB 2.0 table 9-8");
_Static_assert(sizeof configuration_bytes == CONFIGURATION_BYTES, "wTotalLength");
_Static_assert((CONFIGURATION_BYTES % USB_PACKET_BYTES) != 0u, "an empty packet would have to mark the end");
_Static_assert((2u + (2u * STRING_CHARACTERS)) < USB_PACKET_BYTES, "the same for strings");

static const uint8_t languages[] = {4u, STRING, 0x09u, 0x04u}; /* English (United States) */
static const char maker[] = "edge-wam";
static const char product[] = "motion gateway";
static char serial[SERIAL_CHARACTERS];
static uint8_t string[2u + (2u * STRING_CHARACTERS)];

_Static_assert((SERIAL_CHARACTERS <= STRING_CHARACTERS) && ((sizeof maker - 1u) <= STRING_CHARACTERS) &&
                   ((sizeof product - 1u) <= STRING_CHARACTERS), "each string fits the buffer");

void usb_descriptor_serial(const uint32_t *words)
{
    static const char digits[] = "0123456789ABCDEF";
    for (uint32_t i = 0u; i < SERIAL_CHARACTERS; i++) {
        serial[i] = digits[(words[i / 8u] >> (28u - (4u * (i % 8u)))) & 15u];
    }
}

static const uint8_t *make_string(const char *text, uint32_t length, uint32_t *count)
{
    for (uint32_t i = 0u; i < length; i++) {
        string[2u + (2u * i)] = (uint8_t)text[i]; /* UTF-16 */
        string[3u + (2u * i)] = 0u;
    }
    *count = 2u + (2u * length);
    string[0] = (uint8_t)*count;
    string[1] = STRING;
    return string;
}

const uint8_t *usb_descriptor(uint16_t type_and_index, uint32_t *count)
{
    switch (type_and_index) {
    case WHICH(DEVICE, 0u):
        *count = sizeof device_bytes;
        return device_bytes;
    case WHICH(CONFIGURATION, 0u):
        *count = sizeof configuration_bytes;
        return configuration_bytes;
    case WHICH(STRING, LANGUAGES):
        *count = sizeof languages;
        return languages;
    case WHICH(STRING, MANUFACTURER):
        return make_string(maker, sizeof maker - 1u, count);
    case WHICH(STRING, PRODUCT):
        return make_string(product, sizeof product - 1u, count);
    case WHICH(STRING, SERIAL):
        return make_string(serial, SERIAL_CHARACTERS, count);
    default:
        return NULL;
    }
}
