"""Which priority each message has on CAN, for what is generated. The C core and the host hold the same table; tests
compare all three."""

from __future__ import annotations

from firmware_bridge.protocol.definition import Message

ESTOP_ID = 0x001
TO_HOST = 0x080
CLASSES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ESTOP", "single frame, identifier 0x001, any length", ("Estop",)),
    ("STOP", "wishes to stand still", ("Hold", "Disarm")),
    ("BEAT", "what must not wait", ("Heartbeat", "TimeReq", "TimeResp")),
    ("ANSWER", "answers and events", ("Ack", "Event", "EventAck", "HelloReq")),
    ("MOTION", "plans and reports", ("Chunk", "State")),
    ("SETUP", "everything else", ()),
)
"""Name, meaning, messages; the priority is the index."""
FD_LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)


def can_class(message: Message) -> int:
    """Priority of a message."""
    return next((i for i, (_, _, names) in enumerate(CLASSES) if message.name in names), len(CLASSES) - 1)


def can_id(message: Message, node: int) -> int:
    """Identifier of its frames."""
    if message.name == "Estop":
        return ESTOP_ID
    return can_class(message) << 8 | (TO_HOST if message.direction == "mcu" else 0) | node << 4 | message.type & 0xF


def fd_length(count: int) -> int:
    """The smallest length of an FD frame that holds ``count`` bytes."""
    return next(length for length in FD_LENGTHS if length >= count)
