"""A recording replays bit for bit, and when it does not, the field, the place and the size are named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_wam.app.replay import ReplayReport, compare_field, replay
from edge_wam.bundle import Bundle, demo_private_key, write_bundle
from edge_wam.contracts import ActionChunk
from edge_wam.errors import ContractError
from edge_wam.planner_wire import PlanAnswer, PlanRequest, pack_answer
from edge_wam.policy import Policy, golden_recorder
from edge_wam.recorder import Recorder
from tests.support.tiny_bundle import (
    MODEL,
    golden_steps,
    make_tiny_bundle,
    observation,
    open_tiny_bundle,
    tiny_parts,
    tiny_robot,
)

ROBOT = tiny_robot()
DT = 50_000_000
START = 10**12
Change = Callable[[PlanAnswer], PlanAnswer]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_tiny_bundle(make_tiny_bundle(tmp_path_factory.mktemp("replay")))


def record(
    path: Path,
    bundle: Bundle,
    *,
    answers: int = 12,
    restart_at: tuple[int, ...] = (),
    reset_at: tuple[int, ...] = (),
    lose_frame: int = -1,
    unanswered: bool = False,
    change: dict[int, Change] | None = None,
) -> None:
    """A session as the control process records it: frames of every knot, a request every second one, its answer."""
    cameras = tuple((c.name, c.height, c.width) for c in ROBOT.cameras)
    recorder = Recorder(path, cameras)
    policy = Policy(bundle)
    generation = 1
    for k in range(answers):
        if k in restart_at:
            generation += 1
            policy = Policy(bundle)
        if k in reset_at:
            policy.reset()
        for tick in (2 * k, 2 * k + 1):
            seen = observation(ROBOT, START + tick * DT, seed=k, instruction="open it" if k < 8 else "close it")
            frames = {n: dataclasses.replace(f, index=tick) for n, f in seen.frames.items()}
            for name, frame in frames.items():
                if k != lose_frame:
                    recorder.frame(name, seen.state_at_ns, frame)
        seen = dataclasses.replace(seen, frames=frames, state_at_ns=seen.state_at_ns + 7)
        prefix = np.tile(seen.joint_setpoint, (k % 4, 1))
        indices = {name: frame.index for name, frame in frames.items()}
        request = PlanRequest(
            k, generation, k in reset_at, seen.instruction, indices, seen.state_at_ns, seen.joint_position,
            seen.joint_setpoint, prefix,
        )
        recorder.put("/request", seen.state_at_ns, request.pack())
        if unanswered and k == answers - 1:
            break
        chunk, imagination, latents = policy.infer(seen, prefix, k)
        answer = PlanAnswer(chunk, imagination, latents.values, latents.captured_at_ns, 1, 2, 3)
        recorder.put("/answer", seen.state_at_ns, pack_answer(generation, (change or {}).get(k, lambda a: a)(answer)))
    recorder.close()
    assert recorder.dropped == 0 and not recorder.error


def test_a_session_replays_bit_for_bit(bundle: Bundle, tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", bundle, restart_at=(4,), reset_at=(6, 9))
    seen: list[int] = []
    report = replay(tmp_path / "a.mcap", bundle, threads=2, progress=seen.append)
    assert report.exact and (report.compared, report.identical) == (12, 12)
    assert report.complete and not report.skipped and not report.differences and not report.refused
    assert seen == list(range(1, 13))


@pytest.mark.parametrize("part", [0.999, 0.7, 0.4])
def test_what_a_crash_left_replays_bit_for_bit(bundle: Bundle, tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.mcap"
    record(path, bundle, answers=100)  # several compressed chunks
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    report = replay(path, bundle)
    assert report.exact and not report.complete
    assert 0 < report.compared <= 100


def _nudged(answer: PlanAnswer) -> PlanAnswer:
    q = np.array(answer.chunk.q)
    q[5, 2] = np.nextafter(q[5, 2], 1.0)
    return dataclasses.replace(answer, chunk=dataclasses.replace(answer.chunk, q=q))


def _later(answer: PlanAnswer) -> PlanAnswer:
    chunk: ActionChunk = dataclasses.replace(answer.chunk, t0_ns=answer.chunk.t0_ns + 3)
    return dataclasses.replace(answer, chunk=chunk)


def _dreamt(answer: PlanAnswer) -> PlanAnswer:
    latents = np.array(answer.imagination.latents)
    latents[1, 7, 3] += 0.5
    return dataclasses.replace(answer, imagination=dataclasses.replace(answer.imagination, latents=latents))


@pytest.mark.parametrize(
    ("change", "name", "index", "largest"),
    [
        (_nudged, "chunk.q", (5, 2), 2.0**-55),
        (_later, "chunk.t0_ns", (), 3.0),
        (_dreamt, "imagination.latents", (1, 7, 3), 0.5),
    ],
)
def test_one_different_number_is_named(
    bundle: Bundle, tmp_path: Path, change: Change, name: str, index: tuple[int, ...], largest: float
) -> None:
    record(tmp_path / "a.mcap", bundle, change={3: change, 7: change})
    report = replay(tmp_path / "a.mcap", bundle)
    assert not report.exact and (report.compared, report.identical) == (12, 10)
    assert list(report.differences) == [name]
    found = report.differences[name]
    assert (found.answers, found.first_sequence, found.first_index) == (2, 3, index)
    assert found.largest == pytest.approx(largest, rel=1e-3)


def test_another_bundle_is_refused_unless_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", bundle)
    parts = dataclasses.replace(tiny_parts(int8=False), name="other")
    write_bundle(
        tmp_path / "b.wam", parts, golden=golden_recorder(golden_steps(ROBOT)), key=demo_private_key()
    )
    other = open_tiny_bundle(tmp_path / "b.wam")
    with pytest.raises(ContractError, match="was recorded with the bundle"):
        replay(tmp_path / "a.mcap", other)
    report = replay(tmp_path / "a.mcap", other, other_model=True)
    assert not report.exact and report.compared == 12
    assert "chunk.q" in report.differences and "latents" not in report.differences  # only the step graph differs


def test_a_lost_frame_is_a_gap_as_long_as_the_model_would_remember_it(bundle: Bundle, tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", bundle, answers=20, lose_frame=5)
    report = replay(tmp_path / "a.mcap", bundle)
    assert report.exact and not report.differences
    reasons = {reason.split(" ")[0]: count for reason, count in report.skipped.items()}
    # a request every 2 knots: the memory reaches 3 slots of 2 knots back, and half a slot more
    assert reasons == {"frame": 1, "the": MODEL.past_frames}
    assert report.compared == 20 - 1 - MODEL.past_frames


def test_a_reset_ends_the_gap(bundle: Bundle, tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", bundle, lose_frame=5, reset_at=(6,))
    report = replay(tmp_path / "a.mcap", bundle)
    assert report.exact and report.compared == 11


def test_a_question_without_answer_is_counted(bundle: Bundle, tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", bundle, unanswered=True)
    report = replay(tmp_path / "a.mcap", bundle)
    assert report.exact and report.compared == 11 and report.skipped == {"no answer was used": 1}


def test_a_recording_without_answers_is_not_exact(bundle: Bundle, tmp_path: Path) -> None:
    record(tmp_path / "a.mcap", bundle, answers=0)
    assert not replay(tmp_path / "a.mcap", bundle).exact


def test_what_is_no_recording_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    for name in ("junk", "nothing"):
        with pytest.raises(ContractError, match=name):
            replay(tmp_path / name, bundle)


@pytest.mark.parametrize(
    ("then", "now"), [(0.0, -0.0), (1.0, np.nan), (2**62, 2**62 + 1), (np.zeros(3), np.zeros(4))]
)
def test_bits_are_compared_and_not_values(then: object, now: object) -> None:
    report = ReplayReport(Path(), "")
    assert compare_field(report, "f", 0, then, then)
    assert not compare_field(report, "f", 1, then, now)
    assert report.differences["f"].answers == 1 and report.differences["f"].first_sequence == 1
