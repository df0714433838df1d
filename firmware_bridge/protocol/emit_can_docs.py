"""Definition -> the CAN section of ``docs/protocol.md``."""

from __future__ import annotations

from firmware_bridge.protocol.can_ids import ON_CAN, can_classes, can_id

_RULES = """
## CAN

The same bodies (header, payload, CRC-32C; no COBS) go over CAN, classic or FD with bit rate switch, on 11-bit
identifiers. Tools that read DBC files find the identifiers and fields in [edge-wam.dbc](edge-wam.dbc).

    identifier = priority(3) | direction(1) | node(3) | type(4)        lower wins the bus

`direction` is 0 from host to MCU and 1 from MCU to host; `node` is the MCU's number, 1 to 7; `type` is the low four
bits of the message's type. **Identifier 0x001 is the emergency stop**: one frame, whatever it carries (even
nothing, or a remote frame), in any state and session, for every node. The host puts the six bytes of the header and
a tail byte into it, so that the answer can name its sequence number. 0x000 is not used: nothing on the bus has a
higher priority. Motor drives have a bus of their own, because their protocols use low identifiers too.

**Transfer.** `body | crc32c` is cut into frames that are full but for the last one. The last byte of every frame is
its tail: bit 7 start, bit 6 end, bit 5 toggle (1 in the first frame, then alternating), bits 4..0 transfer id,
counted up modulo 32 for each priority. Classic frames carry 7 bytes of the transfer, FD frames 63. An FD frame
exists in some lengths only, so the last frame of an FD transfer ends in `zeros | number of zeros (u8) | tail`, with
as few zeros (0 to 15) as the lengths allow. All frames of a transfer have one identifier and one format.

**Receiver.** One buffer of 640 bytes per priority and sender: transfers of different priorities interleave, those
of one do not. A transfer is delivered when its last frame has come and its CRC is right and its identifier fits its
type. It is dropped whole and counted (`STATS.transfers_bad`) when a frame is missing, out of turn, of the wrong
length or format, or comes more than 100 ms after the one before. A frame that repeats the one before, or a whole
transfer that repeats one of the last 32 (same transfer id, same CRC; the sequence number is under the CRC), is
ignored. Transfers of which nothing came show in the ids and count as `STATS.rx_gaps`.

**Sender.** No flow-control frames. Frames of the highest waiting priority go first. Queues are bounded; a body that
finds no room is dropped whole and counted (`STATS.tx_dropped`), and a STATE is not made while the one before still
waits, so a slow bus gets fewer STATEs and never old ones. The MCU answers in the format (classic or FD) of the last
transfer that it accepted, and begins with classic. When the controller leaves the bus (`STATS.can_bus_off`) what
waits is dropped.

**Order.** Priorities overtake. A CHUNK whose sequence number is older than that of a HOLD taken within the last
second is refused (`OLD_CHUNK`): the wish to stand still is the newer one.

**Two transports at once.** A board may have a serial line and CAN. The host is on the one on which HELLO_REQ was
asked last while the drive was off; frames of the other are counted (`STATS.rx_session`) and ignored, except the
emergency stop.
"""


def emit_can() -> str:
    """The section, without the newline at its end."""
    lines = [_RULES.rstrip(), "", "| priority | name | identifiers of node 1 | meaning |", "|---|---|---|---|"]
    for value in can_classes():
        ids = ", ".join(f"{m.name} `{can_id(m, 1):#05x}`" for m in ON_CAN if m.can_class == value.name)
        lines.append(f"| {value.number} | {value.name} | {ids} | {value.cause} |")
    return "\n".join([*lines, ""])
