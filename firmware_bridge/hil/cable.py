"""What a cable can do to the bytes that go through it. One direction each, seeded, counted.

A fault is called with what passes and returns what arrives; it is called with nothing now and then, so that what it
kept back can come out late.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from math import log1p
from typing import get_args

from firmware_bridge.host.framing import LinkFrame, encode_frame
from firmware_bridge.host.messages import HostMessage

Mangle = Callable[[bytes], bytes]
_UNKNOWN = sorted(set(range(256)) - {kind.TYPE for kind in get_args(HostMessage)})
"""Message types that nobody knows. An EMERGENCY STOP from a stranger is one, and would be obeyed."""


def intact(data: bytes) -> bytes:
    """A good cable."""
    return data


def cut(data: bytes) -> bytes:
    """One whose wire is broken: nothing arrives."""
    return b""


class BitErrors:
    """Every bit flips with probability ``rate``, independently."""

    def __init__(self, rate: float, seed: int) -> None:
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"bit error rate {rate}")
        self._rate = rate
        self._random = random.Random(seed)
        self.flipped = 0
        self.passed = 0

    def __call__(self, data: bytes) -> bytes:
        self.passed += len(data)
        broken = bytearray(data)
        # From one error to the next in one draw: the gap is geometrically distributed.
        at = self._gap()
        while at < 8 * len(broken):
            broken[at // 8] ^= 1 << (at % 8)
            self.flipped += 1
            at += 1 + self._gap()
        return bytes(broken)

    def _gap(self) -> int:
        if self._rate <= 0.0:
            return 1 << 62
        return int(self._random.expovariate(1.0) / -log1p(-self._rate))


class _Frames:
    """Cuts the stream into frames with their delimiter, keeping an unfinished one back."""

    def __init__(self) -> None:
        self._rest = b""

    def whole(self, data: bytes) -> list[bytes]:
        *done, self._rest = (self._rest + data).split(b"\x00")
        return [part + b"\x00" for part in done]


class Tamper:
    """Does one thing to every third frame: ``truncate``, ``duplicate``, ``reorder`` it, or ``flip`` bits of it."""

    WAYS = ("truncate", "duplicate", "reorder", "flip")

    def __init__(self, way: str, seed: int = 0) -> None:
        if way not in self.WAYS:
            raise ValueError(f"{way!r} is not one of {self.WAYS}")
        self.way = way
        self.touched = 0
        self._count = 0
        self._held = b""
        self._frames = _Frames()
        self._random = random.Random(f"{way}{seed}")

    def __call__(self, data: bytes) -> bytes:
        out = b""
        for frame in self._frames.whole(data):
            self._count += 1
            if self._held:
                out += frame + self._held
                self._held = b""
            elif self._count % 3 == 0:
                self.touched += 1
                out += self._touch(frame)
            else:
                out += frame
        return out

    def _touch(self, frame: bytes) -> bytes:
        match self.way:
            case "truncate":
                return frame[: self._random.randrange(1, len(frame))] + b"\x00" if len(frame) > 1 else frame
            case "duplicate":
                return frame + frame
            case "reorder":
                self._held = frame
                return b""
            case _:
                broken = bytearray(frame)
                for _ in range(self._random.randrange(1, 6)):
                    broken[self._random.randrange(max(1, len(frame) - 1))] ^= 1 << self._random.randrange(8)
                return bytes(broken[:-1]) + b"\x00"


class Delay:
    """Everything arrives ``delay_s`` later, in order; ``clock`` in seconds."""

    def __init__(self, delay_s: float, clock: Callable[[], float]) -> None:
        self._delay_s = delay_s
        self._clock = clock
        self._queue: deque[tuple[float, bytes]] = deque()

    def __call__(self, data: bytes) -> bytes:
        now = self._clock()
        if data:
            self._queue.append((now + self._delay_s, data))
        out = b""
        while self._queue and self._queue[0][0] <= now:
            out += self._queue.popleft()[1]
        return out


class Babble:
    """A talkative stranger on the same wire: between the frames of the host, ``bytes_per_s`` of noise and of well
    formed frames that say nothing known."""

    def __init__(self, bytes_per_s: float, clock: Callable[[], float], seed: int) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._last = clock()
        self._due = 0.0
        self._random = random.Random(seed)
        self._frames = _Frames()
        self.sent = 0

    def __call__(self, data: bytes) -> bytes:
        now = self._clock()
        self._due += (now - self._last) * self._rate
        self._last = now
        out = b"".join(self._frames.whole(data))
        while self._due >= 1.0:
            noise = self._speak()
            self._due -= len(noise)
            self.sent += len(noise)
            out += noise
        return out

    def _speak(self) -> bytes:
        if self._random.random() < 0.5:
            return b"\x00" + self._random.randbytes(self._random.randrange(1, 60)) + b"\x00"
        session, seq = self._random.randrange(1 << 16), self._random.randrange(1 << 16)
        payload = self._random.randbytes(self._random.randrange(0, 80))
        return encode_frame(LinkFrame(self._random.choice(_UNKNOWN), seq, session, payload).pack())
