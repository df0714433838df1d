"""The golden run: a few recorded observations and the answers that every robot must reproduce before it may arm.

It goes through everything that stands between a camera and a knot (kernels, text, encoder, memory, noise, step,
decoding), so a wrong kernel, a saturating integer instruction or a miscompiled graph shows up here and not on the arm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_wam.contracts import F64, ActionChunk, Frame, Imagination, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.errors import BundleError

Arrays = dict[str, NDArray[Any]]
_FRAME = "frame."
_OUTPUTS = ("q", "latent", "video")


@dataclass(frozen=True)
class GoldenStep:
    """One call of the policy: what it sees, the committed knots [d, D], and the sequence number."""

    observation: Observation
    prefix: F64
    sequence: int


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """How far this machine's answers are from the recorded ones.

    Attributes:
        action: largest difference of a knot, as a fraction of its axis' q01..q99 range.
        latent, video: relative L2 norm of the difference of observed and imagined latents.
        exact: every number is the same to the last bit.
    """

    steps: int
    action: float
    latent: float
    video: float
    exact: bool

    @property
    def worst(self) -> float:
        return max(self.action, self.latent, self.video)


Answer = Callable[[GoldenStep], tuple[ActionChunk, Imagination, NDArray[np.float32]]]


def pack(steps: Sequence[GoldenStep], knots: int, answer: Answer) -> Arrays:
    """Run ``answer`` over ``steps`` and pack inputs and outputs as plain arrays.

    Raises:
        BundleError: no steps, or the steps differ in instruction.
    """
    if not steps:
        raise BundleError("the golden run has no steps", expected="at least one observation")
    instructions = {step.observation.instruction for step in steps}
    if len(instructions) != 1:
        raise BundleError(f"the golden run has the instructions {sorted(instructions)}", expected="one")
    dof = len(steps[0].observation.joint_position)
    prefix = np.zeros((len(steps), knots, dof))
    for index, step in enumerate(steps):
        prefix[index, : len(step.prefix)] = step.prefix
    answers = [answer(step) for step in steps]
    arrays: Arrays = {
        "instruction": np.frombuffer(steps[0].observation.instruction.encode(), np.uint8),
        "state_at_ns": np.array([step.observation.state_at_ns for step in steps], np.int64),
        "sequence": np.array([step.sequence for step in steps], np.int64),
        "position": np.stack([step.observation.joint_position for step in steps]),
        "setpoint": np.stack([step.observation.joint_setpoint for step in steps]),
        "prefix": prefix,
        "prefix_length": np.array([len(step.prefix) for step in steps], np.int64),
        "q": np.stack([chunk.q for chunk, _, _ in answers]),
        "video": np.stack([imagination.latents for _, imagination, _ in answers]),
        "latent": np.stack([latent for _, _, latent in answers]),
    }
    for camera in steps[0].observation.frames:
        frames = [step.observation.frames[camera] for step in steps]
        arrays[_FRAME + camera] = np.stack([frame.image for frame in frames])
        arrays[f"captured_at_ns.{camera}"] = np.array([frame.captured_at_ns for frame in frames], np.int64)
    return arrays


def unpack(arrays: Mapping[str, NDArray[Any]]) -> list[GoldenStep]:
    """The steps of a recorded run.

    Raises:
        BundleError: an array is missing or the arrays do not fit each other.
    """
    try:
        instruction = arrays["instruction"].tobytes().decode()
        cameras = [name.removeprefix(_FRAME) for name in arrays if name.startswith(_FRAME)]
        steps = []
        for index, sequence in enumerate(arrays["sequence"]):
            frames = {
                camera: Frame(arrays[_FRAME + camera][index], int(arrays[f"captured_at_ns.{camera}"][index]), index)
                for camera in cameras
            }
            observation = Observation(
                frames=frames,
                joint_position=arrays["position"][index],
                joint_setpoint=arrays["setpoint"][index],
                state_at_ns=int(arrays["state_at_ns"][index]),
                instruction=instruction,
            )
            length = int(arrays["prefix_length"][index])
            steps.append(GoldenStep(observation, arrays["prefix"][index, :length], int(sequence)))
    except (KeyError, IndexError, UnicodeDecodeError) as error:
        raise BundleError(f"golden.npz: incomplete: {error!r}", remedy="export the bundle again") from error
    if not steps:
        raise BundleError("golden.npz: no steps recorded", remedy="export the bundle again")
    return steps


def compare(recorded: Mapping[str, NDArray[Any]], here: Mapping[str, NDArray[Any]], robot: Embodiment) -> GoldenResult:
    """Measure ``here`` against ``recorded``; both from :func:`pack`.

    Raises:
        BundleError: the recorded outputs are missing or of another shape.
    """
    for name in _OUTPUTS:
        if name not in recorded or recorded[name].shape != here[name].shape:
            raise BundleError(f"golden.npz: {name!r} missing or mis-shaped", expected=f"{here[name].shape}")
    span = robot.vector("action_q99") - robot.vector("action_q01")
    action = float((np.abs(here["q"] - recorded["q"]) / span).max())
    off = {name: _relative(here[name], recorded[name]) for name in ("latent", "video")}
    exact = all(np.array_equal(here[name], recorded[name]) for name in _OUTPUTS)
    return GoldenResult(len(recorded["q"]), action, off["latent"], off["video"], exact)


def _relative(here: NDArray[Any], recorded: NDArray[Any]) -> float:
    scale = float(np.linalg.norm(recorded.astype(np.float64)))
    difference = float(np.linalg.norm(here.astype(np.float64) - recorded.astype(np.float64)))
    return difference / scale if scale > 0 else difference
