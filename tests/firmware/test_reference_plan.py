"""The ring of knots agrees with a list of knots in exact integers, to the last bit, over any splices."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_int32, c_int64, c_uint8, c_uint32

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from tests.firmware import reference_plan as ref
from tests.firmware.motion import Motion, Target
from tests.firmware.test_timeline import LIB, SUB, Timeline

SAMPLES = (m.MAX_BODY_BYTES - m.HEADER_BYTES - m.CRC_BYTES - m.CHUNK_HEADER_BYTES) // 2
MARK = -77_777
"""Where nothing is written it stays."""


class Plan(ctypes.Structure):
    _fields_ = (
        ("t0_us", c_int64), ("dt_us", c_int64), ("blend_us", c_int64), ("n", c_uint8), ("interpolation", c_uint8),
        ("sample", c_int32 * SAMPLES), ("slope", c_int64 * SAMPLES), ("secant", c_int64 * m.MAX_AXES),
    )  # fmt: skip


class Anchor(ctypes.Structure):
    _fields_ = (("at_us", c_int64), ("axis", ctypes.POINTER(Motion)))


LIB.ew_timeline_clear.argtypes = [ctypes.POINTER(Timeline), c_uint8]
LIB.ew_timeline_advance.argtypes = [ctypes.POINTER(Timeline), c_int64]
LIB.ew_timeline_targets.argtypes = [ctypes.POINTER(Timeline), c_int64, ctypes.POINTER(Target)]
LIB.ew_timeline_targets.restype = c_bool
LIB.ew_plan_slopes.argtypes = [ctypes.POINTER(Plan), c_uint8, c_uint8]
LIB.ew_timeline_splice.argtypes = [
    ctypes.POINTER(Timeline), ctypes.POINTER(Plan), ctypes.POINTER(Anchor), c_int64, ctypes.POINTER(c_uint32),
    ctypes.POINTER(c_int32),
]  # fmt: skip
LIB.ew_timeline_splice.restype = c_uint8


class Both:
    """A timeline of the firmware, and the list that it must be."""

    def __init__(self, axes: int, first: int) -> None:
        self.axes = axes
        self.list: list[ref.At] = []
        self.ring = Timeline(first=5, count=9, axes=1)
        LIB.ew_timeline_clear(self.ring, axes)
        assert (self.ring.first, self.ring.count, self.ring.axes) == (0, 0, axes)
        self.ring.first = first  # a ring has no beginning
        for knot in self.ring.knots:
            for axis in range(m.MAX_AXES):
                knot.position[axis] = knot.slope[axis] = MARK

    def compare(self, written: int) -> None:
        """written: how many of the last knots a splice has just made, beyond the one that it begins with."""
        assert (self.ring.count, self.ring.axes) == (len(self.list), self.axes)
        for i, at in enumerate(self.list):
            knot = self.ring.knots[(self.ring.first + i) % m.MAX_KNOTS]
            n = self.axes
            assert (knot.at_us, knot.shape) == (at.at_us, at.shape)
            assert (tuple(knot.position[:n]), tuple(knot.slope[:n])) == (at.position, at.slope)
            if i >= len(self.list) - written and n < m.MAX_AXES:
                assert knot.position[n] == knot.slope[n] == MARK, "no axis more than there are"
        # The knot that a splice begins with is copied whole; the next time another may lie in its place.
        for knot in self.ring.knots:
            for axis in range(self.axes, m.MAX_AXES):
                knot.position[axis] = knot.slope[axis] = MARK

    def splice(
        self, asked: ref.Asked, at_us: int, axes: list[tuple[int, int]], now_us: int, jump_max: list[int]
    ) -> int:
        """The answer; both have spliced, or refused, alike."""
        plan = Plan(asked.t0_us, asked.dt_us, asked.blend_us, len(asked.position), asked.interpolation)
        rows = [*asked.position]
        if asked.interpolation == m.ChunkInterpolation.HERMITE_VELOCITY:
            rows += asked.velocity
        flat = [value for row in rows for value in row]
        plan.sample[:] = [*flat, *[MARK] * (SAMPLES - len(flat))]
        plan.slope[:] = [MARK] * SAMPLES
        knots = len(asked.position) * self.axes
        for k in range(len(asked.position)):
            LIB.ew_plan_slopes(plan, self.axes, k)
        assert plan.slope[knots] == MARK
        motions = (Motion * m.MAX_AXES)(*(Motion(position=q, velocity=v) for q, v in axes))
        jumps, arg = (c_uint32 * m.MAX_AXES)(*jump_max), c_int32(MARK)
        code = LIB.ew_timeline_splice(self.ring, plan, Anchor(at_us, motions), now_us, jumps, arg)
        expected, argument, after = ref.splice(self.list, asked, at_us, axes, now_us, jump_max)
        assert (code, arg.value) == (expected, argument)
        accepted = code <= m.AckCode.OK_TRIMMED
        self.list = after
        self.compare(len(asked.position) - argument if accepted else 0)
        return code

    def run_to(self, now_us: int) -> None:
        """A tick, as the firmware makes it."""
        LIB.ew_timeline_advance(self.ring, now_us - 1000)
        self.list = ref.advanced(self.list, now_us - 1000)
        self.compare(0)
        out = (Target * m.MAX_AXES)(*(Target(MARK, MARK) for _ in range(m.MAX_AXES)))
        live = LIB.ew_timeline_targets(self.ring, now_us, out)
        expected = ref.targets(self.list, now_us)
        assert live == (expected is not None)
        for target, wanted in zip(out, expected or [], strict=False):
            assert tuple(getattr(target, name) for name, _ in Target._fields_) == wanted
        untouched = out[self.axes if live else 0 :]
        assert {(target.position, target.step) for target in untouched} <= {(MARK, MARK)}


@st.composite
def chunks(draw: st.DrawFn, axes: int, now_us: int, around: list[int]) -> ref.Asked:
    """A chunk that begins somewhere near now and near ``around`` (micro-units)."""
    dt_us = draw(st.sampled_from([1_000, 2_000, 3_330, 7_000, 50_000]))
    interpolation = draw(st.sampled_from(list(m.ChunkInterpolation)))
    kinds = 2 if interpolation == m.ChunkInterpolation.HERMITE_VELOCITY else 1
    n = draw(st.one_of(st.integers(1, 5), st.integers(1, min(m.MAX_KNOTS, SAMPLES // (axes * kinds)))))
    scale = draw(st.sampled_from([3, 1000, 60_000]))
    wish = st.integers(-scale, scale)
    position = [tuple(q + draw(wish) for q in around) for _ in range(min(n, 6))]
    position = [position[k % len(position)] for k in range(n)]
    velocity = [tuple(draw(wish) for _ in around)] * n if kinds == 2 else []
    lead = draw(st.one_of(st.integers(-60_000, 60_000), st.sampled_from([2_000, 1_999, 1_000, -48_000, -48_001]),
                          st.integers(0, 200).map(lambda k: k * 1000)))  # fmt: skip
    blend = draw(st.sampled_from([2_000, 20_000, 60_000, 255_000]))
    return ref.Asked(now_us + lead, dt_us, blend, interpolation, tuple(position), tuple(velocity))


@settings(max_examples=250)
@given(st.data())
def test_any_splices_and_ticks_leave_what_a_list_of_knots_would_hold(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from([1, 1, 2, 3, 16]))
    both = Both(axes, data.draw(st.integers(0, m.MAX_KNOTS - 1)))
    tick_us = 1_000_000
    for _ in range(data.draw(st.integers(1, 5))):
        now_us = tick_us + data.draw(st.sampled_from([0, 1, 500, 999, 5_000]))
        running = [0] * axes
        if both.list:
            live = len(both.list) > 1 and tick_us <= both.list[-1].at_us
            running = [ref.on(both.list, axis, tick_us)[0] if live else both.list[-1].position[axis]
                       for axis in range(axes)]  # fmt: skip
        commanded = [(q + data.draw(st.integers(-5000, 5000)), data.draw(st.integers(-3_000_000, 3_000_000)))
                     for q in running]  # fmt: skip
        asked = data.draw(chunks(axes, now_us, [q // SUB for q in running]))
        jump_max = [data.draw(st.sampled_from([1, 900, 70_000, 1_000_000]))] * axes
        both.splice(asked, tick_us, commanded, now_us, jump_max)
        for ticks in data.draw(st.lists(st.sampled_from([1, 1, 7, 40]), max_size=3)):
            tick_us = max(tick_us, (now_us // 1000) * 1000) + ticks * 1000
            if len(both.list) < 2:
                break
            both.run_to(tick_us)


def test_a_jump_is_judged_to_the_last_sub_on_either_side() -> None:
    for side in (-1, 1):
        for off, code in ((0, m.AckCode.OK), (side, m.AckCode.JUMP), (-side, m.AckCode.OK)):
            both = Both(2, 63)
            asked = ref.Asked(1_050_000, 50_000, 20_000, 0, ((0, side * 10),) * 3, ())
            # Commanded to a place that is 9 micro-units and a sub more or less away.
            assert both.splice(asked, 1_000_000, [(0, 0), (side * SUB - off, 0)], 1_000_000, [9, 9]) == code
