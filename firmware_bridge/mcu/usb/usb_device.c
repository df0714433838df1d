#include "usb_device.h"

#include "usb_cdc.h"
#include "usb_descriptors.h"
#include "usb_hal.h"

#include <stddef.h>

#define LINE_CODING_BYTES 7u
#define ADDRESS_MAX 127u
#define SELF_POWERED 1u
#define LINE_STATE_DTR 1u

/* bmRequestType << 8 | bRequest. The direction is part of it: a request the wrong way round is unknown. */
enum {
    GET_STATUS_DEVICE = 0x8000,
    GET_STATUS_INTERFACE = 0x8100,
    GET_STATUS_ENDPOINT = 0x8200,
    CLEAR_FEATURE_ENDPOINT = 0x0201,
    SET_FEATURE_ENDPOINT = 0x0203,
    SET_ADDRESS = 0x0005,
    GET_DESCRIPTOR = 0x8006,
    GET_CONFIGURATION = 0x8008,
    SET_CONFIGURATION = 0x0009,
    GET_INTERFACE = 0x810A,
    SET_INTERFACE = 0x010B,
    SET_LINE_CODING = 0x2120,
    GET_LINE_CODING = 0xA121,
    SET_CONTROL_LINE_STATE = 0x2122
};

typedef enum { IDLE, SENDING, RECEIVING, STATUS_IN } stage_t;

/* What is to be done with a request. */
typedef enum { REFUSED, DONE, ANSWER, WANT_DATA } verdict_t;

typedef struct {
    uint16_t code;
    uint16_t value;
    uint16_t index;
    uint16_t length;
} request_t;

static struct {
    stage_t stage;
    const uint8_t *bytes; /* still to be sent */
    uint32_t left;
    uint8_t address;
    uint8_t address_next; /* takes effect behind the status stage */
    uint8_t configuration;
    uint8_t halted;       /* bit per endpoint, see halt_bit */
    bool dtr;
    bool suspended;
    uint8_t line_coding[LINE_CODING_BYTES];
    uint8_t answer[2];
} device;

static void tell_cdc(void)
{
    const bool configured = device.configuration != 0u;
    usb_cdc_state(configured, configured && device.dtr && !device.suspended);
}

void usb_device_start(const uint32_t *words)
{
    usb_descriptor_serial(words);
    usb_on_reset();
}

void usb_on_reset(void)
{
    /* 115200 baud, 8N1: what a port says before it was told. The rate means nothing here. */
    static const uint8_t coding[LINE_CODING_BYTES] = {0x00u, 0xC2u, 0x01u, 0x00u, 0u, 0u, 8u};
    device.stage = IDLE;
    device.address = 0u;
    device.address_next = 0u;
    device.configuration = 0u;
    device.halted = 0u;
    device.dtr = false;
    device.suspended = false;
    for (uint32_t i = 0u; i < LINE_CODING_BYTES; i++) {
        device.line_coding[i] = coding[i];
    }
    tell_cdc();
}

/* Unplugged looks like suspended: the pull-up holds the idle state. */
void usb_on_suspend(bool suspended)
{
    device.suspended = suspended;
    tell_cdc();
}

static void refuse(void)
{
    device.stage = IDLE;
    usb_hal_refuse();
}

/* No descriptor ends with a full packet (usb_descriptors.c), so no empty one has to mark an end. */
static void send_next(void)
{
    const uint32_t count = (device.left < USB_PACKET_BYTES) ? device.left : USB_PACKET_BYTES;
    usb_hal_send(USB_CONTROL, device.bytes, count);
    device.bytes = &device.bytes[count];
    device.left -= count;
}

static verdict_t answer_with(const uint8_t *bytes, uint32_t count)
{
    device.bytes = bytes;
    device.left = count;
    return (bytes != NULL) ? ANSWER : REFUSED;
}

static verdict_t answer_byte(uint8_t low, uint32_t count)
{
    device.answer[0] = low;
    device.answer[1] = 0u;
    return answer_with(device.answer, count);
}

/* The endpoints of the configuration, one bit each; 0: no such endpoint, or not now. */
static uint8_t halt_bit(uint16_t address)
{
    if (device.configuration == 0u) {
        return 0u;
    }
    switch (address) {
    case USB_DATA:
        return 1u;
    case USB_IN | USB_DATA:
        return 2u;
    case USB_IN | USB_NOTIFY:
        return 4u;
    default:
        return 0u;
    }
}

static verdict_t set_halt(const request_t *request, bool on)
{
    const uint8_t bit = halt_bit(request->index);
    if ((request->value != 0u) || (bit == 0u)) {
        return REFUSED; /* only ENDPOINT_HALT; endpoint 0 has none (USB 2.0, 9.4.5) */
    }
    device.halted = (uint8_t)(on ? (device.halted | bit) : (device.halted & (uint8_t)~bit));
    usb_hal_halt((uint8_t)request->index, on);
    usb_cdc_halt((uint8_t)request->index, on);
    return DONE;
}

static verdict_t set_configuration(uint16_t value)
{
    if ((device.address == 0u) || (value > 1u)) {
        return REFUSED;
    }
    device.configuration = (uint8_t)value;
    device.halted = 0u;
    device.dtr = false;
    usb_cdc_state(false, false);
    usb_hal_configure(value != 0u);
    tell_cdc();
    return DONE;
}

static verdict_t set_address(const request_t *request)
{
    if ((request->value > ADDRESS_MAX) || (request->index != 0u) || (device.configuration != 0u)) {
        return REFUSED;
    }
    device.address_next = (uint8_t)request->value;
    return DONE;
}

static verdict_t get_status_of_endpoint(uint16_t address)
{
    if ((address == USB_CONTROL) || (address == USB_IN)) {
        return answer_byte(0u, 2u);
    }
    const uint8_t bit = halt_bit(address);
    return (bit == 0u) ? REFUSED : answer_byte(((device.halted & bit) != 0u) ? 1u : 0u, 2u);
}

/* Requests to an interface: there are two, once configured. */
static bool is_interface(const request_t *request)
{
    return (device.configuration != 0u) && (request->index < 2u);
}

static bool is_port(const request_t *request)
{
    return (device.configuration != 0u) && (request->index == 0u);
}

static verdict_t judge_read(const request_t *request)
{
    uint32_t count = 0u;
    switch (request->code) {
    case GET_STATUS_DEVICE:
        return answer_byte(SELF_POWERED, 2u);
    case GET_STATUS_INTERFACE:
        return is_interface(request) ? answer_byte(0u, 2u) : REFUSED;
    case GET_STATUS_ENDPOINT:
        return get_status_of_endpoint(request->index);
    case GET_DESCRIPTOR: {
        const uint8_t *bytes = usb_descriptor(request->value, &count);
        return answer_with(bytes, count);
    }
    case GET_CONFIGURATION:
        return answer_byte(device.configuration, 1u);
    case GET_INTERFACE:
        return is_interface(request) ? answer_byte(0u, 1u) : REFUSED;
    case GET_LINE_CODING:
        return is_port(request) ? answer_with(device.line_coding, LINE_CODING_BYTES) : REFUSED;
    default:
        return REFUSED;
    }
}

static verdict_t judge_write(const request_t *request)
{
    if (request->code == SET_LINE_CODING) {
        return (is_port(request) && (request->length == LINE_CODING_BYTES)) ? WANT_DATA : REFUSED;
    }
    if (request->length != 0u) {
        return REFUSED;
    }
    switch (request->code) {
    case CLEAR_FEATURE_ENDPOINT:
        return set_halt(request, false);
    case SET_FEATURE_ENDPOINT:
        return set_halt(request, true);
    case SET_ADDRESS:
        return set_address(request);
    case SET_CONFIGURATION:
        return set_configuration(request->value);
    case SET_INTERFACE:
        return (is_interface(request) && (request->value == 0u)) ? DONE : REFUSED;
    case SET_CONTROL_LINE_STATE:
        if (!is_port(request)) {
            return REFUSED;
        }
        device.dtr = (request->value & LINE_STATE_DTR) != 0u;
        tell_cdc();
        return DONE;
    default:
        return REFUSED;
    }
}

void usb_on_setup(const uint8_t *setup)
{
    const request_t request = {
        .code = (uint16_t)(((uint32_t)setup[0] << 8) | setup[1]),
        .value = (uint16_t)(((uint32_t)setup[3] << 8) | setup[2]),
        .index = (uint16_t)(((uint32_t)setup[5] << 8) | setup[4]),
        .length = (uint16_t)(((uint32_t)setup[7] << 8) | setup[6]),
    };
    device.address_next = device.address; /* a SETUP ends whatever was before it */
    verdict_t verdict = ((setup[0] & USB_IN) != 0u) ? judge_read(&request) : judge_write(&request);
    if ((verdict == ANSWER) && (request.length == 0u)) {
        verdict = DONE; /* without data the status goes to the host, whatever the direction (USB 2.0, table 9-2) */
    }
    switch (verdict) {
    case ANSWER:
        device.left = (device.left < request.length) ? device.left : request.length;
        device.stage = SENDING;
        send_next();
        usb_hal_receive(USB_CONTROL); /* the host may end the data early with its status packet */
        break;
    case WANT_DATA:
        device.stage = RECEIVING;
        usb_hal_receive(USB_CONTROL);
        break;
    case DONE:
        device.stage = STATUS_IN;
        usb_hal_send(USB_CONTROL, device.answer, 0u);
        break;
    case REFUSED:
    default:
        refuse();
        break;
    }
}

static void control_out(const uint8_t *bytes, uint32_t count)
{
    if ((device.stage == RECEIVING) && (count == LINE_CODING_BYTES)) {
        for (uint32_t i = 0u; i < LINE_CODING_BYTES; i++) {
            device.line_coding[i] = bytes[i];
        }
        device.stage = STATUS_IN;
        usb_hal_send(USB_CONTROL, device.answer, 0u);
    } else if ((device.stage == SENDING) && (count == 0u)) {
        device.stage = IDLE; /* status: the host has what it wanted */
        usb_hal_cancel(USB_CONTROL);
    } else {
        refuse();
    }
}

static void control_in(void)
{
    if ((device.stage == SENDING) && (device.left > 0u)) {
        send_next();
    } else if (device.stage == STATUS_IN) {
        device.stage = IDLE;
        if (device.address != device.address_next) {
            device.address = device.address_next;
            usb_hal_address(device.address);
        }
    } else {
        /* the last packet of an answer: the host's status follows */
    }
}

void usb_on_out(uint8_t endpoint, const uint8_t *bytes, uint32_t count)
{
    if (endpoint == USB_CONTROL) {
        control_out(bytes, count);
    } else {
        usb_cdc_received(bytes, count);
    }
}

void usb_on_in(uint8_t endpoint)
{
    if (endpoint == USB_CONTROL) {
        control_in();
    } else if (endpoint == USB_DATA) {
        usb_cdc_sent();
    } else {
        /* nothing is ever sent as a notification */
    }
}
