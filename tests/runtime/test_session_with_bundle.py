"""A session with a real bundle: signed, verified, run in INT8, recorded, and computed again bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_wam.contracts import Frame, Observation
from edge_wam.planner_wire import PlanAnswer, PlanRequest, unpack_answer
from edge_wam.policy import Policy
from edge_wam.recorder import Recording
from edge_wam.supervisor import Session, SessionError
from tests.runtime.rig import Rig, assert_limits_held, config
from tests.runtime.robot import robot
from tests.support.tiny_bundle import make_tiny_bundle, open_tiny_bundle

INSTRUCTION = "open the drawer"
CAMERAS = tuple(camera.name for camera in robot().cameras)
REAL_TIME = True


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle"))


def test_a_recorded_session_is_computed_again_bit_for_bit(bundle: Path, tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    settings = config(tmp_path, bundle=str(bundle), allow_demo_key=True, instruction=INSTRUCTION)  # type: ignore[arg-type]
    with Session(settings, sources=rig.sources) as session:
        for _ in range(2):
            assert session.run_episode(INSTRUCTION, duration_s=1.5).reason == "timeout"
        final = session.close()
    rig.close()
    assert final.status.chunks >= 15
    assert_limits_held(rig.drive, robot())
    policy = Policy(open_tiny_bundle(bundle))
    frames: dict[tuple[str, int], Frame] = {}
    requests: list[PlanRequest] = []
    compared = 0
    messages = list(Recording(final.recording))
    for message in messages:
        if message.topic.startswith("/camera/"):
            frames[message.topic.removeprefix("/camera/"), message.value.index] = message.value
    for message in messages:
        if message.topic == "/request":
            requests.append(PlanRequest.unpack(message.value, CAMERAS))
        elif message.topic == "/answer":
            request = requests[-1]
            _, _, recorded = unpack_answer(message.value)
            assert isinstance(recorded, PlanAnswer)
            if request.reset:
                policy.reset()
            seen = {name: frames[name, index] for name, index in request.frames.items()}
            observation = Observation(
                seen, request.position, request.setpoint, request.state_at_ns, request.instruction
            )
            chunk, imagination, latents = policy.infer(observation, np.array(request.prefix), request.sequence)
            assert np.array_equal(chunk.q, recorded.chunk.q) and chunk.t0_ns == recorded.chunk.t0_ns
            assert np.array_equal(imagination.latents, recorded.imagination.latents)
            assert np.array_equal(latents.values, recorded.latents)
            compared += 1
    assert compared >= 15


@pytest.mark.parametrize(
    ("damage", "said"), [("byte", "step"), ("key", "demo key"), ("gone", "none.wam")]
)
def test_a_bundle_that_is_not_trusted_never_gets_as_far_as_arming(
    damage: str, said: str, tmp_path: Path
) -> None:
    directory = make_tiny_bundle(tmp_path)
    if damage == "byte":
        graph = next((directory / "graphs").glob("step*"))
        data = bytearray(graph.read_bytes())
        data[len(data) // 2] ^= 1
        graph.write_bytes(bytes(data))
    path = tmp_path / "none.wam" if damage == "gone" else directory
    rig = Rig(tmp_path)
    settings = config(tmp_path, bundle=str(path), allow_demo_key=damage != "key")  # type: ignore[arg-type]
    with pytest.raises(SessionError) as refused:
        Session(settings, sources=rig.sources)
    rig.close()
    assert said in str(refused.value)
