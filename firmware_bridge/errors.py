"""The refusals of the firmware bridge: they name the thing, what was expected, and what to do."""

from __future__ import annotations


class FirmwareError(Exception):
    """A refusal.

    Args:
        what: the thing that is wrong, by name, with the value found.
        expected: what would have been accepted.
        remedy: what the user does next.
    """

    def __init__(self, what: str, *, expected: str = "", remedy: str = "") -> None:
        self.what = what
        self.expected = expected
        self.remedy = remedy
        parts = [what]
        if expected:
            parts.append(f"expected: {expected}")
        if remedy:
            parts.append(f"remedy: {remedy}")
        super().__init__("\n  ".join(parts))


class LinkError(FirmwareError):
    """The microcontroller refused, did not answer in time, or speaks another protocol."""


class TransportClosed(LinkError):
    """The cable is out: the other end of the byte stream is gone."""


class LinkBusy(LinkError):
    """The microcontroller does not keep up; nothing was sent, because a queue of plans would only all be late."""


class ClockError(LinkError):
    """The offset between host and microcontroller clock is not known well enough to send timed motion."""


class ChunkRefused(LinkError):
    """A chunk was refused before it reached the wire: a number that is none, or one outside the limits."""
