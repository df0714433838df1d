"""A robot for fault tests, without Meta-World: a perfect arm on the drive stream, synthetic cameras, a scripted policy.

The arm writes down every drive command that it gets, so that a test can assert what the axis really did.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_wam.cameras import capture_loop
from edge_wam.config import RunConfig, make_config
from edge_wam.contracts import F64, ActionChunk, Imagination, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.planner_wire import Ready
from edge_wam.process import ProcessSpec
from edge_wam.realtime import Pacer
from edge_wam.shm import FrameRing, Mailbox
from edge_wam.supervisor import Session, SourceContext
from firmware_bridge.errors import TransportClosed
from firmware_bridge.host.plant_port import PlantPort
from firmware_bridge.host.transport import open_unix
from tests.runtime.robot import ROBOT_FILE
from tests.support.stalls import Witness

HOME = np.array([0.0, 0.6, 0.2, 0.0])
HASH = "ab" * 32
POLICY = "tests.runtime.rig:scripted_policy"
_AMPLITUDE_M, _CYCLE_HZ, _STEP_M = 0.15, 0.4, 0.02


def config(folder: Path, **change: dict[str, Any]) -> RunConfig:
    """A run configuration for this rig: host port, relaxed clock bound, as a shared machine needs."""
    data: dict[str, Any] = {
        "robot": str(ROBOT_FILE), "bundle": "none.wam", "recording_dir": "runs", "instruction": "sweep",
        "link": {"emulator": "host", "clock_bound_ms": 5.0, "capture": True, **change.pop("link", {})},
        "realtime": {"nice": -10}, "monitor": {"hold_timeout_s": 0.5},
    }
    return make_config({**data, **change}, folder)


# -- the arm ----------------------------------------------------------------------------------------------------------


def arm_main(arguments: dict[str, Any], stop: Callable[[], bool]) -> None:
    """Follows every setpoint at once; 200 Hz encoder; one line per drive command into the log."""
    os.nice(-10)
    port = PlantPort(open_unix(arguments["drive"]))
    position = HOME.copy()
    with Path(arguments["log"]).open("w", buffering=1) as log, suppress(TransportClosed):
        pacer = Pacer(200.0)
        pacer.start(time.monotonic_ns())
        while not stop():
            for command in port.poll():
                if command.enabled:
                    position = np.array(command.setpoint)
                log.write(json.dumps([time.monotonic_ns(), command.tick, command.enabled, *command.setpoint]) + "\n")
            port.send_encoder(position)
            pacer.sleep()


@dataclass(frozen=True, slots=True)
class Drive:
    """What the microcontroller told the drive: host time of arrival [ns], tick (1 ms), enable, setpoint [n, D]."""

    at_ns: np.ndarray
    tick: np.ndarray
    enabled: np.ndarray
    setpoint: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Drive:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("]")]
        setpoint = np.tile(HOME, (len(rows), 1))
        for k, row in enumerate(rows):
            # Without a limit table the drive frame has no axes (and the drive is off): nothing has changed then.
            setpoint[k] = row[3:] or setpoint[max(k - 1, 0)]
        return cls(
            np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([r[2] for r in rows]), setpoint
        )

    def since(self, at_ns: int) -> Drive:
        keep = self.at_ns >= at_ns
        return Drive(self.at_ns[keep], self.tick[keep], self.enabled[keep], self.setpoint[keep])

    @property
    def speed(self) -> np.ndarray:
        """|velocity| along x per command, m/s, by the microcontroller's own ticks."""
        return np.abs(np.diff(self.setpoint[:, 0]) / np.maximum(np.diff(self.tick), 1) / 1e-3)

    def ticks_to_standstill(self, below: float = 1e-4) -> int:
        """Control ticks until the last command that still moved."""
        moving = np.nonzero(self.speed > below)[0]
        return int(self.tick[moving[-1] + 1] - self.tick[0]) if len(moving) else 0


def assert_limits_held(drive: Drive, robot: Embodiment) -> None:
    """Velocity and acceleration of every axis, tick by tick, while the drive was on."""
    on = drive.enabled.astype(bool)
    dt = np.diff(drive.tick)
    whole = (dt == 1) & on[1:] & on[:-1]
    velocity = np.diff(drive.setpoint, axis=0)[whole] / 1e-3
    assert (np.abs(velocity) <= robot.vector("velocity_max") + 2e-3).all()
    runs = whole[1:] & whole[:-1]
    acceleration = np.diff(np.diff(drive.setpoint, axis=0), axis=0)[runs] / 1e-6
    assert (np.abs(acceleration) <= robot.vector("acceleration_max") + 3.0).all()


# -- the cameras ------------------------------------------------------------------------------------------------------


def camera_main(arguments: dict[str, Any], stop: Callable[[], bool]) -> None:
    """Both cameras: noise that changes with every frame. Mode by mailbox: run, freeze (same pixels), gone (silence)."""
    mode, rings = Mailbox(arguments["mode_fd"]), [FrameRing(fd) for fd in arguments["rings"].values()]
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (rings[0].height, rings[0].width, 3), np.uint8)

    def grab() -> tuple[np.ndarray, int] | None:
        nonlocal image
        got = mode.get()
        now = got[1] if got is not None else b"run"
        if now == b"gone":
            return None
        if now == b"run":
            image = np.roll(image, 1, axis=0)
        at = time.monotonic_ns()
        for ring in rings[1:]:
            ring.publish(image, at)
        return image, at

    capture_loop(grab, rings[0], 20.0, stop)


# -- the policy -------------------------------------------------------------------------------------------------------


class Scripted:
    """Sweeps along x. The instruction says what goes wrong and at which call: ``nan 10``, ``outside 10``, ..."""

    def __init__(self, robot: Embodiment) -> None:
        self._dt = robot.chunk_dt_ms * 1_000_000
        self._calls = 0

    def reset(self) -> None:
        self._calls = 0

    def infer(self, observation: Observation, prefix: F64, sequence: int) -> Any:
        self._calls += 1
        what, _, when = observation.instruction.partition(" ")
        due = bool(when) and self._calls >= int(when)
        began = time.monotonic_ns()
        time.sleep(0.4 if what == "slow" and due else 0.01)
        t0 = observation.state_at_ns + self._dt
        q = np.tile(prefix[-1] if len(prefix) else observation.joint_setpoint, (16, 1))
        q[: len(prefix)] = prefix
        for k in range(len(prefix), 16):
            q[k] = q[k - 1] if k else q[k]
            target = _AMPLITUDE_M * math.sin(2 * math.pi * _CYCLE_HZ * (t0 + k * self._dt) / 1e9)
            q[k, 0] += np.clip(target - q[k, 0], -_STEP_M, _STEP_M)
        if what == "outside" and due:
            q[8:, 2] = 0.9
        chunk = ActionChunk(t0, self._dt, q, observation.observed_at_ns, sequence, HASH, len(prefix))
        if what == "nan" and due:
            bad = q.copy()
            bad[9, 1] = np.nan
            object.__setattr__(chunk, "q", bad)
        if what == "raise" and due:
            raise MemoryError("the scripted policy breaks")
        latents = np.full((2, 3), float(self._calls), np.float32)
        dream = Imagination(latents[None] + 1, (observation.observed_at_ns + 2 * self._dt,), t0, sequence)
        spent = time.monotonic_ns() - began
        return chunk, dream, (latents, observation.observed_at_ns), (0, spent, spent)


def scripted_policy(arguments: dict[str, Any], robot: Embodiment) -> tuple[Scripted, Ready]:
    return Scripted(robot), Ready(HASH, np.ones(3, np.float32), 1, 1, True)


# -- all of it --------------------------------------------------------------------------------------------------------


class Rig:
    """Sources for a session, and the handles that a test injects faults through."""

    def __init__(self, folder: Path) -> None:
        self.drive_log = folder / "drive.jsonl"
        self.mode = Mailbox.create("mode", 64)

    def sources(self, context: SourceContext) -> list[ProcessSpec]:
        fds = {name: ring.fd for name, ring in context.rings.items()}
        return [
            ProcessSpec("arm", "tests.runtime.rig:arm_main",
                        {"drive": context.drive_address, "log": str(self.drive_log)}),
            ProcessSpec("camera", "tests.runtime.rig:camera_main", {"mode_fd": self.mode.fd, "rings": fds},
                        (self.mode.fd, *fds.values())),
        ]

    @property
    def drive(self) -> Drive:
        return Drive.read(self.drive_log)

    def close(self) -> None:
        self.mode.close()
        os.close(self.mode.fd)


class Running:
    """A session with the rig: ``rig, session = running``. :meth:`renew` begins another one in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._open()

    def _open(self) -> None:
        folder = self._folder / f"session-{self._count}"
        folder.mkdir()
        self.witness = Witness()
        self.witness.__enter__()
        self.rig = Rig(folder)
        self.session = Session(config(folder), sources=self.rig.sources, policy=POLICY)

    def renew(self) -> None:
        self.close()
        self._count += 1
        self._open()

    def close(self) -> None:
        self.session.close()
        self.rig.close()
        self.witness.__exit__()

    def __iter__(self) -> Iterator[Any]:
        yield self.rig
        yield self.session
