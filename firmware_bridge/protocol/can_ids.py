"""Which priority and identifier each message has on CAN, from the definition, for what is generated."""

from __future__ import annotations

from firmware_bridge.protocol.definition import CAN_FD_LENGTHS, CONSTANTS, ENUMERATIONS, MESSAGES, Message, Value

ON_CAN = tuple(message for message in MESSAGES if message.direction in ("host", "mcu"))
_NUMBER = {constant.name: constant.value for constant in CONSTANTS}
ESTOP_ID = _NUMBER["CAN_ID_ESTOP"]


def can_classes() -> tuple[Value, ...]:
    """The priorities, highest first; the last one is that of everything else."""
    return next(enumeration.values for enumeration in ENUMERATIONS if enumeration.name == "CanClass")


def can_class(message: Message) -> int:
    """Priority of a message."""
    return next(value.number for value in can_classes() if value.name == message.can_class)


def can_id(message: Message, node: int) -> int:
    """Identifier of its frames."""
    if message.can_class == "ESTOP":
        return ESTOP_ID
    to_host = _NUMBER["CAN_TO_HOST"] if message.direction == "mcu" else 0
    return can_class(message) << 8 | to_host | node << 4 | message.type & 0xF


def fd_length(count: int) -> int:
    """The smallest length of an FD frame that holds ``count`` bytes."""
    return next(length for length in CAN_FD_LENGTHS if length >= count)
