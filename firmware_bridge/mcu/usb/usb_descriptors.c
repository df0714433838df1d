#include "usb_descriptors.h"

#include "usb_hal.h"

/* The number that pid.codes gives for private tests. A maker who ships boards puts his own here. */
#ifndef USB_VENDOR
#define USB_VENDOR 0x1209u
#define USB_PRODUCT 0x0001u
#endif

#define LOW(x) ((uint8_t)((x) & 0xFFu))
#define HIGH(x) ((uint8_t)(((x) >> 8) & 0xFFu))

enum { DEVICE = 1, CONFIGURATION = 2, STRING = 3, INTERFACE = 4, ENDPOINT = 5, CLASS_INTERFACE = 0x24 };
enum { LANGUAGES = 0, MANUFACTURER = 1, PRODUCT = 2, SERIAL = 3 };

#define SERIAL_CHARACTERS (8u * USB_SERIAL_WORDS)
#define STRING_CHARACTERS 24u
#define CONFIGURATION_BYTES 67u

/* USB 2.0, table 9-8. The class stands on the device: one function, so no association of interfaces is needed. */
static const uint8_t device[] = {
    18u, DEVICE, 0x00u, 0x02u,                    /* USB 2.0 */
    0x02u, 0x00u, 0x00u,                          /* communications device */
    USB_PACKET_BYTES,                             /* of endpoint 0 */
    LOW(USB_VENDOR), HIGH(USB_VENDOR), LOW(USB_PRODUCT), HIGH(USB_PRODUCT),
    0x00u, 0x01u,                                 /* release of these descriptors */
    MANUFACTURER, PRODUCT, SERIAL, 1u,
};

/* USB 2.0, tables 9-10, 9-12, 9-13; CDC 1.2, 5.2.3; CDC PSTN 1.2, 5.3. The protocol of the first interface is "none": with
 * the one for AT commands a modem manager would talk to the arm. */
static const uint8_t configuration[] = {
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

_Static_assert(sizeof device == 18u, "USB 2.0 table 9-8");
_Static_assert(sizeof configuration == CONFIGURATION_BYTES, "wTotalLength");
_Static_assert((CONFIGURATION_BYTES % USB_PACKET_BYTES) != 0u, "an empty packet would have to mark the end");
_Static_assert((2u + (2u * STRING_CHARACTERS)) < USB_PACKET_BYTES, "the same for strings");
_Static_assert(SERIAL_CHARACTERS <= STRING_CHARACTERS, "the serial number fits the buffer");

static const uint8_t languages[] = {4u, STRING, 0x09u, 0x04u}; /* English (United States) */
static char serial[SERIAL_CHARACTERS + 1u];
static uint8_t string[2u + (2u * STRING_CHARACTERS)];

void usb_descriptor_serial(const uint32_t *words)
{
    static const char digits[] = "0123456789ABCDEF";
    for (uint32_t i = 0u; i < SERIAL_CHARACTERS; i++) {
        serial[i] = digits[(words[i / 8u] >> (28u - (4u * (i % 8u)))) & 15u];
    }
}

static const uint8_t *make_string(const char *text, uint32_t *count)
{
    uint32_t length = 0u;
    while ((length < STRING_CHARACTERS) && (text[length] != '\0')) {
        string[2u + (2u * length)] = (uint8_t)text[length]; /* UTF-16 */
        string[3u + (2u * length)] = 0u;
        length++;
    }
    *count = 2u + (2u * length);
    string[0] = (uint8_t)*count;
    string[1] = STRING;
    return string;
}

const uint8_t *usb_descriptor(uint16_t type_and_index, uint32_t *count)
{
    switch (type_and_index) {
    case DEVICE << 8:
        *count = sizeof device;
        return device;
    case CONFIGURATION << 8:
        *count = sizeof configuration;
        return configuration;
    case (STRING << 8) | LANGUAGES:
        *count = sizeof languages;
        return languages;
    case (STRING << 8) | MANUFACTURER:
        return make_string("edge-wam", count);
    case (STRING << 8) | PRODUCT:
        return make_string("motion gateway", count);
    case (STRING << 8) | SERIAL:
        return make_string(serial, count);
    default:
        return 0;
    }
}
