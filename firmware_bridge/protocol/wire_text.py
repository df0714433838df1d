"""The prose of ``docs/protocol.md``, with a worked example and the state table made from what the firmware does."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import google_crc32c
from cobs import cobs

from firmware_bridge.protocol.definition import ENUMERATIONS, MESSAGES

_STATES_C = Path(__file__).resolve().parents[1] / "mcu" / "core" / "ew_states.c"
_EXAMPLE_NONCE = 0x00C0FFEE

FRAME = """
## Frame

Host link: `COBS( type u8 | epoch u8 | seq u16 | session u16 | payload | crc32c u32 ) 00`, little endian, at most
640 bytes before COBS. Drive stream: `COBS( type u8 | payload | crc32c u32 ) 00`. A receiver resynchronises at the
next `00`; a frame longer than its buffer is dropped whole and counted. COBS is Cheshire's and Baker's; the CRC is
CRC-32C (Castagnoli, reflected polynomial 0x82F63B78, initial value and final exclusive-or 0xFFFFFFFF), over everything
before it. `seq` counts the frames of one side, modulo 2^16; an ACK names the seq of its command.

`session` is chosen by the MCU at each boot and never 0: after a reset every older frame is refused, so a host that
missed the reset cannot move the arm. `HELLO_REQ`, `TIME_REQ` and `ESTOP` are taken in any session. `epoch` counts the
configurations of this boot: it rises by one, modulo 256, with every accepted `LIMITS_COMMIT`. A host takes it from the
header of the `HELLO` that it asked for after its commit, and puts it into the header of every frame; `ARM` and `CHUNK`
with another one are refused with `EPOCH`. In all other frames of the host it is not looked at.
"""

RULES = """
## Time

MCU time is microseconds of a counter that begins at 0 with each boot and is never set. The host finds its offset from
four stamps: `TIME_REQ{t1}`; the MCU stamps the delimiter on arrival, `t2`, and its answer, `t3`; the host stamps the
arrival of `TIME_RESP`, `t4`. The offset `((t2 - t1) + (t3 - t4)) / 2` is wrong by at most half of
`(t4 - t1) - (t3 - t2)`, however lopsided the line. Keep the exchange with the smallest bound of the last 32, let the
bound grow by the drift that is not known (100 ppm, 20 once the drift is measured), and tell it in every `HEARTBEAT`
as `clock_error_us`. Above `CLOCK_ERROR_MAX_US`, or when it is not fresh, the MCU refuses `ARM` and `CHUNK` with
`CLOCK`.

`HEARTBEAT.sent_us` is the MCU time at which the host made it. Its age counts from there, or from its arrival if that is
earlier. 0, more than `HEARTBEAT_AHEAD_MAX_US` ahead, `HOST_SILENT_US` or more old, and older than one that came before:
no sign of life, counted in `STATS.heartbeats_stale`.

| what | when |
|---|---|
| HEARTBEAT | every 20 ms, from the loop that does the work |
| last heartbeat 100 ms ago | the axes brake and hold: `STOP`, cause `HOST_SILENT` |
| last heartbeat 2 s ago | drive off: `DISARMED`, cause `HOST_GONE` |
| `policy_counter` the same for 250 ms in `RUN` and NOMINAL | `STOP`, cause `POLICY_FROZEN` |
| `degrade` SOFT_STOP; SAFE_OFF; armed bit gone | `STOP`; `STOP`, then drive off; `STOP` |
| a command without its ACK | the host sends the same bytes again after 50 ms, three times in all; a `CHUNK` never |
| `ESTOP` | the host sends it every 10 ms until a STATE shows the latch |
| `EVENT` without its `EVENT_ACK` | the MCU sends it again every 100 ms |
| `HELLO` | at most every 10 ms; a request that comes sooner is answered then |
| commands that are answered | 32 in a tick; more are dropped and counted in `STATS.rx_flooded`, an `ESTOP` never |

## A session, step by step

```
host                                        MCU
HELLO_REQ{nonce}                       ->            any session; again every 20 ms
                                       <-   HELLO{nonce, schema_hash, fault, estop, clear_nonce, ...}
TIME_REQ{t1}  x 16                     ->
                                       <-   TIME_RESP{t1, t2, t3}
LIMITS_SET, DRIVE_SET per axis, STOPS_SET ->          in DISARMED
                                       <-   ACK OK, each
LIMITS_COMMIT{axes, crc}               ->            CRC-32C over the payloads as they were sent
                                       <-   ACK OK                     CONFIGURED, epoch + 1
HELLO_REQ{nonce}                       ->
                                       <-   HELLO{limits_crc, locked}  its header has the new epoch
LIMITS_GET, DRIVE_GET, STOPS_GET       ->            read back and compared
HEARTBEAT{sent_us, clock_error_us, armed} ->          from here on every 20 ms
ARM{limits_crc, schema_hash}           ->            the operator's act
                                       <-   ACK OK                     ARMED: drive on, holds
CHUNK{chunk_id 1, t0_us, knots}        ->
                                       <-   ACK OK, lead_us, free_knots   RUN
CHUNK{chunk_id 2, ...}                 ->            spliced into the running one
DISARM                                 ->
                                       <-   ACK OK                     STOP, at rest DISARMED
```

The MCU was reset in between: its frames have another session. The host asks `HELLO`, reports the cause to the
operator, and begins again at the top; nothing that it had sent is valid. The host was restarted: it begins at the top;
the MCU has stopped by itself. A chunk was cut in two by a cable: its CRC is wrong, it is counted and never answered;
the host does not repeat it and sends its newest plan. A chunk was lost, repeated, or came after a newer one: no answer,
`DUPLICATE`,
`OLD_CHUNK`; the running plan goes on in each case.

Clearing: `ESTOP_CLEAR{clear_nonce}` and `FAULT_ACK{fault}`, at rest, of what HELLO tells is latched now. Neither arms.

## Splice
"""


def _hex(data: bytes) -> str:
    return data.hex(" ")


def example() -> list[str]:
    """One frame, byte by byte."""
    request = next(message for message in MESSAGES if message.name == "HelloReq")
    head = struct.pack("<BBHH", request.type, 0, 1, 0)
    payload = struct.pack("<I", _EXAMPLE_NONCE)
    crc = struct.pack("<I", google_crc32c.value(head + payload))
    wire = cobs.encode(head + payload + crc) + b"\0"
    return [
        "",
        "### A frame, byte by byte",
        "",
        f"`HELLO_REQ` with nonce {_EXAMPLE_NONCE:#010x}, the first frame of a host that knows no session:",
        "",
        "| part | bytes |",
        "|---|---|",
        f"| type {request.type:#04x}, epoch 0, seq 1, session 0 | `{_hex(head)}` |",
        f"| payload: nonce | `{_hex(payload)}` |",
        f"| CRC-32C of these {len(head + payload)} bytes | `{_hex(crc)}` |",
        f"| on the wire: COBS of all, and the delimiter | `{_hex(wire)}` |",
        "",
        f'Check: the CRC of the nine bytes "123456789" is {google_crc32c.value(b"123456789"):#010x}.',
    ]


def transitions() -> list[str]:
    """The state table of the firmware, as the firmware has it."""
    source = _STATES_C.read_text(encoding="utf-8")
    columns = re.search(r"Columns: ([A-Z ]+)\.", source)
    if columns is None:
        raise ValueError(f"{_STATES_C}: the comment that names the columns is gone")
    events = columns.group(1).split()
    states = {value.name for e in ENUMERATIONS if e.name == "McuState" for value in e.values}
    lines = ["", "| in \\ what happens | " + " | ".join(events) + " |", "|---" * (len(events) + 1) + "|"]
    for name, row in re.findall(r"\[S\((\w+)\)\] = \{(.*?)\},?\n", source):
        cells = [cell.strip() for cell in row.split(",")]
        found = ["" if cell == "NO" else cell.removeprefix("S(").removesuffix(")") for cell in cells]
        if len(found) != len(events) or not {name, *found} - {""} <= states:
            raise ValueError(f"{_STATES_C}: row {name} is not understood")
        lines.append(f"| {name} | " + " | ".join(found) + " |")
    return [*lines, ""]


STATES_HEAD = """
## States

```
BOOT -> SELFTEST -> DISARMED -> CONFIGURED -> ARMED -> RUN <-> STARVED
                        ^           |           |       |        |
                        +-- DISARM--+     STOP <+-------+--------+     (permission gone: brake, hold)
                        ^                   |
                        +---- at rest ------+
 any of these -> ESTOP, FAULT (latched, also through resets) -> cleared by the operator -> DISARMED
```

The limit table is written in `DISARMED` and locked by `LIMITS_COMMIT`; every way back to `DISARMED` unlocks it. `ARM`
needs the committed CRC, the same schema and epoch, a fresh encoder inside the limits, and a fresh heartbeat in NOMINAL
of a host that knows the clock. `STOP` is left only by `DISARM`, or by itself after 2 s without a host. `ESTOP` and
`FAULT` are latched through resets; clearing never re-arms. Three watchdog resets within a minute latch
`WATCHDOG_STORM`, which only a power cycle clears. An empty cell: it cannot happen there, or changes nothing.
"""
