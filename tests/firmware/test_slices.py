"""A chunk is judged in slices between the control ticks: with the same result as in one piece, and always answered."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.messages import AckCode, McuState
from tests.firmware.mcu import WIDE, Mcu

AXES = (WIDE, WIDE, WIDE)
SLICES_MAX = 100
"""More than any chunk needs: 64 knots, each looked at twice, and the splice."""
KINDS = st.sampled_from(list(m.ChunkInterpolation))


def sliced(**changes: object) -> Mcu:
    mcu = Mcu(AXES, **changes).ready([0, 0, 0])  # type: ignore[arg-type]
    mcu.slices()
    return mcu


def acks(mcu: Mcu) -> list[m.Ack]:
    """Answers to chunks since the last look."""
    mcu.pump()
    found = [a for a in mcu.inbox if isinstance(a, m.Ack) and a.of_type == m.Chunk.TYPE]
    mcu.inbox.clear()
    return found


def finish(mcu: Mcu) -> m.Ack:
    """The rest of the slices, and the one answer."""
    for _ in range(SLICES_MAX):
        if not mcu.work():
            break
    (ack,) = acks(mcu)
    return ack


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], m.ChunkInterpolation, int, int, int]:
    """Knots, velocities, kind, spacing, blend and lead: mostly good, some beyond position, velocity, jump or time."""
    n = draw(st.integers(1, 24))
    far = draw(st.sampled_from([2_000, 2_000, 2_000, 30_000, 600_000]))
    walk = [[0, 0, 0]]
    for _ in range(n):
        walk.append([q + draw(st.integers(-far, far)) for q in walk[-1]])
    kind = draw(KINDS)
    with_velocity = kind == m.ChunkInterpolation.HERMITE_VELOCITY
    speeds = [[draw(st.integers(-200_000, 200_000)) for _ in AXES] for _ in range(n if with_velocity else 0)]
    dt_us = draw(st.sampled_from([5_000, 7_000, 50_000]))
    return walk[1:], speeds, kind, dt_us, draw(st.integers(0, 60)), draw(st.integers(-40_000, 120_000))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_slices_between_ticks_end_as_if_the_chunk_had_come_with_the_last_of_them(data: st.DataObject) -> None:
    """The one in slices gets each chunk early, the one in one piece when the other has judged it."""
    parts, whole = sliced(), Mcu(AXES).ready([0, 0, 0])
    for _ in range(data.draw(st.integers(1, 3))):
        knots, speeds, kind, dt_us, blend_ms, lead_us = data.draw(plans())
        chunk = parts.chunk(
            knots, velocities=speeds, interpolation=int(kind), dt_us=dt_us, blend_ms=blend_ms, lead_us=lead_us
        )
        early = acks(parts)
        assert not early
        parts.raw(parts.frame(chunk.TYPE, chunk.pack()))
        seq = parts.seq
        more, pauses = True, data.draw(st.lists(st.booleans(), max_size=12))
        while more:
            more = parts.work()
            if more and pauses and pauses.pop():
                assert parts.tick() == whole.tick()  # until the last slice nothing has changed
        (ack,) = acks(parts)
        expected = whole.ask(chunk)
        assert (ack.code, ack.arg, ack.of_seq) == (expected.code, expected.arg, seq)
        assert ack.free_knots == expected.free_knots
        ticks = data.draw(st.integers(0, 60))
        assert parts.tick(ticks) == whole.tick(ticks)
        parts.work()  # the STATE that became due meanwhile
        assert parts.state == whole.state


def _sample_chunk(mcu: Mcu, n: int = 12) -> m.Chunk:
    return mcu.chunk([[2_000 * k] * 3 for k in range(n)])


def _falls_silent(mcu: Mcu) -> None:
    mcu.heartbeat_on = False
    mcu.tick(120)


def _loses_its_encoder(mcu: Mcu) -> None:
    mcu.encoder_on = False
    mcu.tick(120)


DROPS: list[tuple[str, Callable[[Mcu], object], AckCode]] = [
    ("hold", lambda mcu: mcu.raw(mcu.frame(m.Hold.TYPE, b"")), AckCode.OLD_CHUNK),
    ("disarm", lambda mcu: mcu.raw(mcu.frame(m.Disarm.TYPE, b"")), AckCode.BAD_STATE),
    ("emergency stop", lambda mcu: mcu.raw(mcu.frame(m.Estop.TYPE, b"")), AckCode.BAD_STATE),
    ("its input", lambda mcu: mcu.lib.ewl_estop_input(mcu.handle, 1), AckCode.BAD_STATE),
    ("silence of the host", _falls_silent, AckCode.BAD_STATE),
    ("a fault", _loses_its_encoder, AckCode.BAD_STATE),
]


@pytest.mark.parametrize("done", [0, 1, 2])
@pytest.mark.parametrize(("cause", "happens", "code"), DROPS, ids=[drop[0] for drop in DROPS])
def test_what_takes_the_permission_away_throws_the_chunk_in_hand_away_and_says_so(
    cause: str, happens: Callable[[Mcu], object], code: AckCode, done: int
) -> None:
    mcu = sliced()
    stood = mcu.setpoint()
    chunk = _sample_chunk(mcu)
    mcu.raw(mcu.frame(chunk.TYPE, chunk.pack()))
    seq = mcu.seq
    if done:
        assert mcu.work(done)
    happens(mcu)
    (ack,) = acks(mcu)
    assert (ack.code, ack.of_seq) == (code, seq)
    assert ack.arg == (int(mcu.state) if code == AckCode.BAD_STATE else 0)
    mcu.work(SLICES_MAX)
    assert not acks(mcu)
    assert all(position == stood for position in mcu.tick(100)) and mcu.state != McuState.RUN


def test_a_newer_chunk_finds_no_place_until_the_one_in_hand_is_answered() -> None:
    mcu = sliced()
    first, second = _sample_chunk(mcu), _sample_chunk(mcu)
    mcu.raw(mcu.frame(first.TYPE, first.pack()))
    mcu.work()
    for again in (second, first):
        mcu.raw(mcu.frame(again.TYPE, again.pack()))
        (ack,) = acks(mcu)
        assert (ack.code, ack.arg) == (AckCode.FULL, 0)
    assert finish(mcu).code == AckCode.OK
    mcu.raw(mcu.frame(second.TYPE, second.pack()))
    assert finish(mcu).code == AckCode.OK


@pytest.mark.parametrize(
    ("ticks", "code", "arg"), [(0, AckCode.OK, 0), (5, AckCode.OK_TRIMMED, 1), (60, AckCode.LATE, 58_000)]
)
def test_how_late_a_chunk_is_counts_when_it_is_spliced_not_when_it_came(ticks: int, code: AckCode, arg: int) -> None:
    mcu = sliced()
    chunk = mcu.chunk([[0, 0, 0]] * 12, lead_us=4_000, dt_us=10_000, blend_ms=0)
    mcu.raw(mcu.frame(chunk.TYPE, chunk.pack()))
    mcu.work()
    mcu.tick(ticks)
    ack = finish(mcu)
    assert (ack.code, ack.arg, ack.lead_us) == (code, arg, 4_000)


def test_a_slice_looks_at_no_more_than_the_knots_that_fit_into_it() -> None:
    """16 axes x 19 knots: two knots a slice for their range and for their slopes, then the splice."""
    mcu = Mcu([WIDE] * 16).ready([0] * 16)
    mcu.slices()
    chunk = mcu.chunk([[0] * 16] * 19)
    samples = struct.pack(f"<{19 * 16}h", *([0] * (19 * 16)))
    chunk = replace(chunk, encoding=int(m.ChunkEncoding.I16_LSB), samples=samples)
    mcu.raw(mcu.frame(chunk.TYPE, chunk.pack()))
    slices = 1
    while mcu.work():
        slices += 1
    (ack,) = acks(mcu)
    assert ack.code == AckCode.OK and slices == 10 + 10 + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6)), min_size=1, max_size=40))
def test_every_chunk_is_answered_once_whatever_comes_between_its_slices(steps: list[tuple[int, int]]) -> None:
    mcu = sliced()
    asked: list[int] = []
    answered: list[int] = []
    for what, amount in steps:
        if what < 5:
            chunk = replace(_sample_chunk(mcu, amount + 2), chunk_id=max(1, mcu.chunk_id - (1 if what == 4 else 0)))
            mcu.raw(mcu.frame(chunk.TYPE, chunk.pack()))
            asked.append(mcu.seq)
        elif what == 5:
            mcu.raw(mcu.frame(m.Hold.TYPE, b""))
        elif what == 6 and amount == 0:
            mcu.raw(mcu.frame(m.Estop.TYPE, b""))
        elif what == 7:
            mcu.tick(amount)
        else:
            mcu.work(amount + 1)
        answered += [ack.of_seq for ack in acks(mcu)]
    mcu.work(SLICES_MAX)
    answered += [ack.of_seq for ack in acks(mcu)]
    assert sorted(answered) == asked
