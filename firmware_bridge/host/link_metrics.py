"""How a link is doing as a line: bytes a second both ways, and how long an answer takes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from firmware_bridge.spread import percentile

SLOT_NS = 100_000_000
SLOTS = 10
"""Rates are means over the last second, to a tenth of it."""
TRIPS = 256
"""Round trips remembered: at 2 Hz of clock exchanges and 10 Hz of chunks, the last 20 s."""


@dataclass(frozen=True, slots=True)
class LinkMetrics:
    """A snapshot.

    Attributes:
        out_bytes_s, in_bytes_s: on the wire, framing included, over the last second.
        rtt_p50_ns, rtt_p99_ns: of the last 256 answers: clock exchanges, less the MCU's own part, and commands that
            were answered at the first try. 0 before the first.
        answers: how many these were.
        dropped: frames and messages lost since the link was made, wherever the host can know of it: broken on
            arrival, of no meaning, of another boot, skipped numbers, a full outbox, a caller that did not poll.
    """

    out_bytes_s: float = 0.0
    in_bytes_s: float = 0.0
    rtt_p50_ns: int = 0
    rtt_p99_ns: int = 0
    answers: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class BusEnd:
    """What one end of a CAN bus has seen of it, since it was started.

    Attributes:
        errors: error frames, and at the MCU also frames that it had no room for.
        bus_off: times that its controller took itself off the bus.
        transfers_bad: of which something came, but not the whole.
    """

    errors: int
    bus_off: int
    transfers_bad: int


class Rate:
    """Bytes a second over the last ``SLOTS`` slots."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, int]] = deque(maxlen=SLOTS + 1)

    def add(self, count: int, now_ns: int) -> None:
        slot = now_ns // SLOT_NS
        if self._slots and self._slots[-1][0] == slot:
            self._slots[-1] = slot, self._slots[-1][1] + count
        else:
            self._slots.append((slot, count))

    def per_second(self, now_ns: int) -> float:
        """Of the whole slots of the last second; the one that runs is not over."""
        newest = now_ns // SLOT_NS
        return sum(n for slot, n in self._slots if newest - SLOTS <= slot < newest) * (1e9 / (SLOTS * SLOT_NS))


class WireMeter:
    """What one link has sent, received and waited for."""

    def __init__(self) -> None:
        self.sent, self.received = Rate(), Rate()
        self._trips: deque[int] = deque(maxlen=TRIPS)
        self._made: tuple[int, LinkMetrics] = -1, LinkMetrics()

    def trip(self, ns: int) -> None:
        """An answer came ``ns`` after its question."""
        if ns >= 0:
            self._trips.append(ns)

    def metrics(self, now_ns: int, dropped: int) -> LinkMetrics:
        """Made anew ten times a second: a control loop asks more often than that."""
        slot = now_ns // SLOT_NS
        if self._made[0] != slot:
            ordered = sorted(self._trips)
            p50, p99 = (percentile(ordered, share) if ordered else 0 for share in (0.5, 0.99))
            self._made = slot, LinkMetrics(
                self.sent.per_second(now_ns), self.received.per_second(now_ns), p50, p99, len(ordered), dropped
            )
        return self._made[1]
