"""Answers openpi and DreamZero websocket clients from a bundle: for simulators, benchmarks and comparisons.

It serves one client at a time and moves nothing: actions leave as numbers, and no limit but the model's own training
stands behind them. On a robot, ``edge-wam run`` drives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from edge_wam.contracts import F32, F64, Frame, Observation
from edge_wam.embodiment import Camera, Embodiment
from edge_wam.errors import ContractError, EdgeWamError, PolicyError
from edge_wam.policy import Policy
from edge_wam.policy_wire import RESET_DONE, Greeting, pack, unpack

FRAMES_MAX = 4
"""Images of one camera in one request: DreamZero's clients send the newest alone, or four."""
OTHER_BYTES = 65_536
"""Of a request, beside its images."""
GRIPPER = "observation/gripper_position"
JOINTS = "observation/joint_position"


def image_keys(robot: Embodiment) -> dict[str, str]:
    """Request key by camera name: cameras with ``wrist`` in their name, and the others in the robot's order."""
    wrist = [camera.name for camera in robot.cameras if "wrist" in camera.name]
    others = [camera.name for camera in robot.cameras if "wrist" not in camera.name]
    sides = ("left", "right")
    if len(wrist) > len(sides):
        raise PolicyError(f"{len(wrist)} wrist cameras", expected="at most two, left and right")
    keys = {name: f"observation/wrist_image_{side}" for name, side in zip(wrist, sides, strict=False)}
    return keys | {name: f"observation/exterior_image_{index}_left" for index, name in enumerate(others)}


def greeting_of(robot: Embodiment) -> Greeting:
    """What a client is told to send."""
    sizes = {(camera.height, camera.width) for camera in robot.cameras}
    wrist = [camera for camera in robot.cameras if "wrist" in camera.name]
    return Greeting(
        image_resolution=sizes.pop() if len(sizes) == 1 else None,
        needs_wrist_camera=bool(wrist),
        n_external_cameras=len(robot.cameras) - len(wrist),
        needs_stereo_camera=len(wrist) > 1,
        action_space="cartesian_position" if robot.axes[0].unit == "m" else "joint_position",
    )


@dataclass(slots=True)
class Session:
    """One client's conversation with the policy. Not for two threads at once."""

    policy: Policy
    clock: Callable[[], int] = time.monotonic_ns
    _sequence: int = -1
    _frame: int = -1
    _id: Any = None

    def reset(self) -> None:
        """Forget the past."""
        self.policy.reset()
        self._sequence = -1

    def answer(self, request: Mapping[str, Any]) -> str | bytes:
        """One request of either dialect.

        Raises:
            EdgeWamError: the request is refused, or the policy refuses to answer.
        """
        endpoint = request.get("endpoint")
        if endpoint == "reset":
            self.reset()
            return RESET_DONE
        if endpoint not in (None, "infer"):
            raise ContractError(f"endpoint {endpoint!r}", expected="infer or reset")
        actions, took_ms = self._infer(request)
        return pack(actions if endpoint else {"actions": actions, "server_timing": {"infer_ms": took_ms}})

    def _infer(self, request: Mapping[str, Any]) -> tuple[F32, float]:
        robot = self.policy.bundle.embodiment
        if request.get("session_id") != self._id:
            self._id = request.get("session_id")
            self.reset()
        instruction = request.get("prompt")
        if not isinstance(instruction, str):
            raise ContractError(f"prompt is {instruction!r}", expected="the instruction, in words")
        position = state_of(request, robot)
        now_ns = self.clock()
        self._frame += 1
        keys = image_keys(robot)
        frames = {
            camera.name: Frame(newest_image(request, keys[camera.name], camera), now_ns, self._frame)
            for camera in robot.cameras
        }
        # The protocol does not carry the setpoint: the arm is taken to stand where it is.
        observation = Observation(frames, position, position, now_ns, instruction)
        self._sequence += 1
        chunk, _, _ = self.policy.infer(observation, np.empty((0, robot.dof)), self._sequence)
        return chunk.q.astype(np.float32), (time.monotonic_ns() - now_ns) / 1e6


def state_of(request: Mapping[str, Any], robot: Embodiment) -> F64:
    """Axis positions [D]: joints, then the gripper if the robot's last axis is one (unit 1).

    Raises:
        ContractError: missing, of another length, or no number.
    """
    gripper = robot.axes[-1].unit == "1"
    parts = []
    for key, count in ((JOINTS, robot.dof - gripper), (GRIPPER, int(gripper))):
        value = np.asarray(request.get(key) if count else [])
        if value.shape != (count,) or (count and value.dtype.kind not in "iuf"):
            raise ContractError(f"{key} is {value.dtype} {value.shape}", expected=f"{count} numbers")
        parts.append(value.astype(np.float64))
    return np.concatenate(parts)


def newest_image(request: Mapping[str, Any], key: str, camera: Camera) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The last image [H, W, 3] under a key, of one or of a stack in time.

    Raises:
        ContractError: missing, of another size or type than the robot's camera.
    """
    image = request.get(key)
    shape = (camera.height, camera.width, 3)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[-3:] != shape:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ContractError(f"{key} (camera {camera.name}) is {found}", expected=f"uint8 {shape}, or a stack of them")
    if image.ndim > 4 or (image.ndim == 4 and not 1 <= len(image) <= FRAMES_MAX):
        raise ContractError(f"{key} {image.shape}", expected=f"one image, or up to {FRAMES_MAX}")
    return np.ascontiguousarray(image if image.ndim == 3 else image[-1])


class PolicyServer:
    """A policy on a websocket. One client at a time; a second one is told so and sent away.

    Args:
        policy: verified and warmed up.
        told: receives one line for each thing that happens.
    """

    def __init__(self, policy: Policy, told: Callable[[str], None] = lambda line: None) -> None:
        self._policy, self._told = policy, told
        self._taken = asyncio.Lock()
        robot = policy.bundle.embodiment
        self._greeting = greeting_of(robot).pack()
        pixels = sum(camera.width * camera.height for camera in robot.cameras)
        self._request_bytes = 3 * FRAMES_MAX * pixels + OTHER_BYTES

    async def start(self, host: str, port: int) -> Server:
        """Listen; port 0 chooses a free one (see ``server.sockets``).

        Raises:
            PolicyError: the address cannot be listened on.
        """
        try:
            return await serve(
                self._serve, host, port, compression=None, max_size=self._request_bytes, ping_interval=None
            )
        except OSError as error:
            raise PolicyError(
                f"{host}:{port} cannot be listened on: {error}", remedy="choose another --port"
            ) from error

    async def _serve(self, socket: ServerConnection) -> None:
        peer = ":".join(str(part) for part in (socket.remote_address or ("?",))[:2])
        if self._taken.locked():
            self._told(f"{peer}: sent away, another client is being served")
            await self._refuse(socket, "another client is being served", CloseCode.TRY_AGAIN_LATER)
            return
        async with self._taken:
            self._told(f"{peer}: connected")
            session = Session(self._policy)
            session.reset()
            try:
                await socket.send(self._greeting)
                async for data in socket:
                    await socket.send(await asyncio.to_thread(self._answer, session, data))
                self._told(f"{peer}: gone")
            except ConnectionClosed as error:
                self._told(f"{peer}: gone ({error})")
            except EdgeWamError as error:
                self._told(f"{peer}: refused: {error.what}")
                await self._refuse(socket, str(error), CloseCode.POLICY_VIOLATION)

    def _answer(self, session: Session, data: str | bytes) -> str | bytes:
        if isinstance(data, str):
            raise ContractError("a text frame", expected="a request in msgpack")
        request = unpack(data)
        if not isinstance(request, dict):
            raise ContractError(f"a request that is a {type(request).__name__}", expected="a map")
        return session.answer(request)

    @staticmethod
    async def _refuse(socket: ServerConnection, text: str, code: CloseCode) -> None:
        try:
            await socket.send(text)
            await socket.close(code, "see the text frame before")
        except ConnectionClosed:
            return
