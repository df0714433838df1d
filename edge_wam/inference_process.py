"""The inference process: opens the bundle, proves that it computes what it should, then answers one request at a time.

It knows nothing of deadlines. The control process counts them: one request is in flight, and after one miss this
process' answers are never used again. It cannot move the arm; it can only be late, wrong or dead, and each is found.
"""

from __future__ import annotations

import os
import select
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edge_wam.contracts import F32, F64, ActionChunk, Imagination, Observation
from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.errors import EdgeWamError
from edge_wam.planner_wire import (
    AnswerKind,
    PlanAnswer,
    PlanRequest,
    Ready,
    pack_answer,
    pack_ready,
    pack_trouble,
)
from edge_wam.process import resolve
from edge_wam.realtime import prefer_process, quiet_garbage_collector
from edge_wam.shm import FrameRing, Mailbox

BUNDLE_POLICY = "edge_wam.inference_process:bundle_policy"
_IDLE_MS = 200


class Answering(Protocol):
    """What the inference process needs of a policy."""

    def reset(self) -> None:
        """Forget the past: a new episode."""

    def infer(
        self, observation: Observation, prefix: F64, sequence: int
    ) -> tuple[ActionChunk, Imagination, tuple[F32, int], tuple[int, int, int]]:
        """Chunk, imagination, (observed latents, their capture time), (encode, step, total) ns."""


class _BundleAnswers:
    """The policy of a bundle behind the small face above."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def reset(self) -> None:
        self._policy.reset()

    def infer(
        self, observation: Observation, prefix: F64, sequence: int
    ) -> tuple[ActionChunk, Imagination, tuple[F32, int], tuple[int, int, int]]:
        chunk, imagination, latents = self._policy.infer(observation, prefix, sequence)
        timing = self._policy.last_timing
        return chunk, imagination, (latents.values, latents.captured_at_ns), (
            timing.encode_ns, timing.step_ns, timing.total_ns
        )


def bundle_policy(arguments: dict[str, Any], robot: Embodiment) -> tuple[Answering, Ready]:
    """Verify and load the bundle, warm it up, repeat its golden run.

    Raises:
        EdgeWamError: the bundle is refused, or this machine does not compute what the bundle was accepted with.
    """
    from edge_wam.bundle import TrustStore, open_bundle  # here: the control process must not load an engine
    from edge_wam.policy import Policy

    began = time.monotonic_ns()
    trust = TrustStore.load(
        [Path(key) for key in arguments["trusted_keys"]], allow_demo_key=arguments["allow_demo_key"]
    )
    bundle = open_bundle(Path(arguments["bundle"]), trust=trust, embodiment=robot)
    policy = Policy(bundle, threads=arguments["threads"])
    golden = policy.verify_golden()
    timing = policy.last_timing
    policy.set_instruction(arguments["instruction"])
    policy.warm_up()
    ready = Ready(
        bundle.model_hash,
        np.array(bundle.manifest.model.latent_scale, np.float32),
        timing.total_ns if timing is not None else 0,
        time.monotonic_ns() - began,
        golden.exact,
    )
    return _BundleAnswers(policy), ready


def main(arguments: dict[str, Any], stop: Callable[[], bool]) -> None:
    """Entry point; see :class:`edge_wam.supervisor.Session` for the arguments."""
    answers = Mailbox(arguments["answer_fd"])
    requests = Mailbox(arguments["request_fd"])
    generation: int = arguments["generation"]
    rings = {name: FrameRing(fd) for name, fd in arguments["rings"].items()}
    prefer_process(nice=arguments["nice"])
    try:
        robot = load_embodiment(Path(arguments["robot"]))
        policy, ready = resolve(arguments["policy"])(arguments, robot)
    except EdgeWamError as error:
        answers.put(pack_trouble(AnswerKind.STARTUP_FAILED, generation, 0, str(error)))
        return
    quiet_garbage_collector()
    seen = requests.number
    answers.put(pack_ready(generation, ready))
    bell = arguments["bell_fd"]
    cameras = tuple(rings)
    while not stop():
        if not select.select([bell], [], [], _IDLE_MS / 1000)[0]:
            continue
        os.eventfd_read(bell)
        got = requests.get()
        if got is None or got[0] == seen:
            continue
        seen = got[0]
        request = PlanRequest.unpack(got[1], cameras)
        if request.generation == generation:
            answers.put(_answer(policy, request, rings))


def _answer(policy: Answering, request: PlanRequest, rings: dict[str, FrameRing]) -> bytes:
    try:
        frames = {}
        for name, index in request.frames.items():
            frame = rings[name].read(index)
            if frame is None:
                return pack_trouble(
                    AnswerKind.ERROR, request.generation, request.sequence,
                    f"camera {name}: frame {index} was overwritten before it could be read",
                )
            frames[name] = frame
        if request.reset:
            policy.reset()
        observation = Observation(
            frames=frames,
            joint_position=request.position,
            joint_setpoint=request.setpoint,
            state_at_ns=request.state_at_ns,
            instruction=request.instruction,
        )
        chunk, imagination, (latents, captured_at_ns), timing = policy.infer(
            observation, np.array(request.prefix), request.sequence
        )
        return pack_answer(request.generation, PlanAnswer(chunk, imagination, latents, captured_at_ns, *timing))
    except Exception as error:  # whatever it is: the control process must hear of it now, not at its deadline
        traceback.print_exc()
        text = str(error) if isinstance(error, EdgeWamError) else repr(error)
        return pack_trouble(AnswerKind.ERROR, request.generation, request.sequence, text)
