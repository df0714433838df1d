"""Offline replay: the recorded questions, asked again of the same bundle, must get the recorded answers bit for bit.

A recording holds what the policy was asked (frames, state, committed knots, sequence number) and what it answered. The
policy is deterministic, so any difference means that something else computed it: another bundle, another processor,
another library version, or memory that went bad. Each field that differs is named with the first place and the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_wam.bundle import Bundle
from edge_wam.contracts import Frame, Observation
from edge_wam.errors import ContractError, PolicyError
from edge_wam.planner_wire import PlanAnswer, PlanRequest, unpack_answer
from edge_wam.policy import Policy
from edge_wam.recorder import Recording

_CAMERA = "/camera/"
# A request names frames by number; its frames are recorded before it or just after it, never this many frames later.
_KEEP_FRAMES = 128
_UNANSWERED = "no answer was used"


@dataclass
class FieldDifference:
    """How one field of the answers differs.

    Attributes:
        answers: how many answers differ in it.
        first_sequence, first_index: where it differs first (index within the array, empty for a single number).
        largest: largest absolute difference, in the field's unit (ns for times, axis units for knots).
    """

    answers: int = 0
    first_sequence: int = -1
    first_index: tuple[int, ...] = ()
    largest: float = 0.0


@dataclass
class ReplayReport:
    """What a replay found.

    Attributes:
        compared: answers computed again and compared.
        identical: of these, equal in every bit of every field.
        skipped: questions that could not be asked again, by reason.
        refused: what the policy said now of questions that it answered then; each counts as compared and different.
        differences: by field name; empty when everything compared is identical.
        complete: the recording ends with its footer (False after a crash; what is there is replayed all the same).
    """

    recording: Path
    model_hash: str
    compared: int = 0
    identical: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    differences: dict[str, FieldDifference] = field(default_factory=dict)
    complete: bool = False

    @property
    def exact(self) -> bool:
        """Something was compared, and all of it is identical."""
        return self.compared > 0 and self.identical == self.compared

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


@dataclass
class _Question:
    generation: int
    request: PlanRequest
    answer: PlanAnswer
    frames: dict[str, Frame]
    missing: tuple[str, ...]


def replay(
    recording: Path,
    bundle: Bundle,
    *,
    threads: int = 1,
    other_model: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> ReplayReport:
    """Ask every recorded question again.

    Args:
        recording: MCAP file written by :class:`edge_wam.recorder.Recorder`, whole or cut off.
        bundle: the verified bundle that it was recorded with.
        other_model: compare although the recording was made with another bundle (what would this model have answered?).
        progress: called after each answer with the number so far.

    Raises:
        ContractError: no such recording, made with another bundle, or not one of this robot.
    """
    report = ReplayReport(recording, bundle.model_hash)
    source = Recording(recording)
    again = _Again(Policy(bundle, threads=threads), bundle)
    for question in _questions(source, tuple(camera.name for camera in bundle.embodiment.cameras), report):
        recorded_hash = question.answer.chunk.model_hash
        if recorded_hash != bundle.model_hash and not other_model:
            raise ContractError(
                f"{recording}: was recorded with the bundle {recorded_hash[:16]}, not with {bundle.model_hash[:16]} "
                f"({bundle.manifest.name!r})",
                expected="the same bundle",
                remedy="name the bundle of the recording, or ask to compare another model on purpose",
            )
        again.ask(question, report)
        progress(report.compared + sum(report.skipped.values()))
    report.complete = source.complete
    return report


def _questions(source: Recording, cameras: tuple[str, ...], report: ReplayReport) -> Iterator[_Question]:
    """Requests with their answers and frames, in order, holding only the newest frames in memory."""
    frames: dict[str, dict[int, Frame]] = {name: {} for name in cameras}
    newest = dict.fromkeys(cameras, -1)
    asked: dict[tuple[int, int], PlanRequest] = {}
    waiting: list[tuple[int, PlanRequest, PlanAnswer]] = []

    def ready(*, at_end: bool) -> Iterator[_Question]:
        while waiting:
            generation, request, answer = waiting[0]
            found = {n: frames[n].get(i & 0xFFFFFFFF) for n, i in request.frames.items()}
            missing = tuple(name for name, frame in found.items() if frame is None)
            if missing and not at_end and any(newest[n] < request.frames[n] + _KEEP_FRAMES // 2 for n in missing):
                return
            del waiting[0]
            yield _Question(generation, request, answer, {n: f for n, f in found.items() if f is not None}, missing)

    for message in source:
        if message.topic.startswith(_CAMERA):
            name = message.topic.removeprefix(_CAMERA)
            if name in frames:
                frames[name][message.value.index] = message.value
                newest[name] = message.value.index
                if len(frames[name]) > _KEEP_FRAMES:
                    del frames[name][next(iter(frames[name]))]
        elif message.topic == "/request":
            request = PlanRequest.unpack(message.value, cameras)
            asked[(request.generation, request.sequence)] = request
        elif message.topic == "/answer":
            generation, sequence, what = unpack_answer(message.value)
            answered = asked.pop((generation, sequence), None)
            for stale in [key for key in asked if key < (generation, sequence)]:
                del asked[stale]
                report.skip(_UNANSWERED)
            if isinstance(what, PlanAnswer) and answered is not None:
                waiting.append((generation, answered, what))
        else:
            continue
        yield from ready(at_end=False)
    yield from ready(at_end=True)
    for _ in asked:
        report.skip(_UNANSWERED)


class _Again:
    """One policy that lives through the same resets and restarts as the recorded one."""

    def __init__(self, policy: Policy, bundle: Bundle) -> None:
        self._policy = policy
        self._generation: int | None = None
        model, dt_ns = bundle.manifest.model, bundle.embodiment.chunk_dt_ms * 1_000_000
        self._memory_ns = (model.past_frames + 1) * model.past_stride_knots * dt_ns
        self._unknown_until_ns = -1

    def ask(self, question: _Question, report: ReplayReport) -> None:
        request = question.request
        if request.reset or question.generation != self._generation:
            self._policy.reset()
            self._generation = question.generation
            self._unknown_until_ns = -1
        seen_ns = question.answer.captured_at_ns
        if question.missing:
            # The recorded model remembers a frame that this one never sees; so long its answers are not comparable.
            self._unknown_until_ns = seen_ns + self._memory_ns
            report.skip(f"frame of camera {question.missing[0]} was not recorded")
            return
        try:
            observation = Observation(
                frames=question.frames,
                joint_position=request.position,
                joint_setpoint=request.setpoint,
                state_at_ns=request.state_at_ns,
                instruction=request.instruction,
            )
            chunk, imagination, latents = self._policy.infer(observation, np.array(request.prefix), request.sequence)
        except (PolicyError, ContractError) as error:
            self._unknown_until_ns = seen_ns + self._memory_ns
            report.compared += 1
            report.refused.append(f"sequence {request.sequence}: {error.what}")
            return
        if seen_ns < self._unknown_until_ns:
            report.skip("the model's memory held a frame that was not recorded")
            return
        then = question.answer
        fields: list[tuple[str, Any, Any]] = [
            ("chunk.t0_ns", then.chunk.t0_ns, chunk.t0_ns),
            ("chunk.dt_ns", then.chunk.dt_ns, chunk.dt_ns),
            ("chunk.observed_at_ns", then.chunk.observed_at_ns, chunk.observed_at_ns),
            ("chunk.prefix", then.chunk.prefix, chunk.prefix),
            ("chunk.q", then.chunk.q, chunk.q),
            ("imagination.for_ns", then.imagination.for_ns, imagination.for_ns),
            ("imagination.latents", then.imagination.latents, imagination.latents),
            ("latents", then.latents, latents.values),
            ("latents.captured_at_ns", then.captured_at_ns, latents.captured_at_ns),
        ]
        same = [compare_field(report, name, request.sequence, a, b) for name, a, b in fields]
        report.compared += 1
        report.identical += all(same)


def compare_field(report: ReplayReport, name: str, sequence: int, then: Any, now: Any) -> bool:
    """Note in ``report`` where and how far ``now`` differs from ``then``; True when every bit is the same."""
    a, b = np.atleast_1d(np.asarray(then)), np.atleast_1d(np.asarray(now))
    if a.shape != b.shape:
        _differ(report, name, sequence, (), float("inf"))
        return False
    unequal: NDArray[np.bool_] = _bits(a) != _bits(b)
    if not unequal.any():
        return True
    if a.dtype.kind == "i":  # nanoseconds since boot do not fit a float to the last digit
        largest = float(max(abs(int(x) - int(y)) for x, y in zip(a.flat, b.flat, strict=True)))
    else:
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        largest = float("inf") if np.isnan(gap).any() else float(gap.max())
    index = tuple(int(i) for i in np.argwhere(unequal)[0]) if np.ndim(then) else ()
    _differ(report, name, sequence, index, largest)
    return False


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """The array as unsigned integers, so that -0.0 is not 0.0 and NaN is NaN."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _differ(report: ReplayReport, name: str, sequence: int, index: tuple[int, ...], largest: float) -> None:
    entry = report.differences.setdefault(name, FieldDifference(0, sequence, index, 0.0))
    entry.answers += 1
    entry.largest = max(entry.largest, largest)


