"""Meta-World in real time: a plant process and a camera process that wait for nobody.

The plant paces its physics by the wall clock and takes whatever setpoints have come; if the microcontroller falls
silent, the world goes on under the last one. The camera process owns a second copy of the same world, is handed the
plant's state through shared memory and draws it: a slow renderer delays pictures, never physics.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_wam.contracts import F64
from edge_wam.process import ProcessSpec
from edge_wam.realtime import Pacer
from edge_wam.shm import FrameRing, Mailbox
from edge_wam.sim.plant import Plant
from edge_wam.sim.world import World, task_named
from edge_wam.supervisor import SourceContext
from firmware_bridge.errors import TransportClosed
from firmware_bridge.host.plant_port import PlantPort
from firmware_bridge.host.transport import open_unix

PLANT_RATE_HZ = 100.0
"""Encoder rate; each turn advances the physics by the wall time that has passed (four steps of 2.5 ms)."""
STALL_NS = 100_000_000
"""A longer stall of the host does not make the world jump: physics goes on from there."""
_STATE = struct.Struct("<QqqB")
_COMMAND_BYTES, _STATE_BYTES, _READY_BYTES = 256, 4096, 16


@dataclass(frozen=True, slots=True)
class PlantState:
    """The plant at one instant: ``episode`` as commanded, when it was taken, and the world's own time and verdict."""

    episode: int
    at_ns: int
    world_ns: int
    succeeded: bool
    dynamic: F64

    def pack(self) -> bytes:
        return _STATE.pack(self.episode, self.at_ns, self.world_ns, self.succeeded) + self.dynamic.tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> PlantState:
        episode, at_ns, world_ns, succeeded = _STATE.unpack_from(data)
        return cls(episode, at_ns, world_ns, bool(succeeded), np.frombuffer(data[_STATE.size :], np.float64))


class _Scenes:
    """Worlds by task, and which episode is on."""

    def __init__(self, commands: Mailbox) -> None:
        self._commands = commands
        self._worlds: dict[str, World] = {}
        self._seen = 0
        self.episode = 0

    def next(self) -> World | None:
        """The world of a newly commanded episode, reset; None when nothing new was commanded."""
        if self._commands.number == self._seen or (got := self._commands.get()) is None:
            return None
        self._seen = got[0]
        command = json.loads(got[1])
        self.episode = command["episode"]
        task, seed = command["task"], command["seed"]
        if task not in self._worlds:
            self._worlds[task] = World(task, seed)
        self._worlds[task].reset(seed)
        return self._worlds[task]


def plant_main(arguments: dict[str, Any], stop: Callable[[], bool]) -> None:
    """Entry of the plant process. The world stands still until the drive is on for the first time in an episode."""
    os.nice(arguments["nice"])
    scenes, out = _Scenes(Mailbox(arguments["commands"])), Mailbox(arguments["state"])
    port = PlantPort(open_unix(arguments["drive"]))
    plant: Plant | None = None
    pacer = Pacer(PLANT_RATE_HZ)
    last_ns = time.monotonic_ns()
    pacer.start(last_ns)
    with suppress(TransportClosed):
        while not stop():
            if (world := scenes.next()) is not None:
                plant = Plant(world)
                last_ns = time.monotonic_ns()
                pacer.start(last_ns)
            orders = port.poll()
            now_ns = time.monotonic_ns()
            passed_ns, last_ns = min(now_ns - last_ns, STALL_NS), now_ns
            if plant is not None:
                for order in orders:
                    plant.order(order)
                    if order.enabled:
                        plant.paused = False
                    plant.advance(passed_ns // len(orders))
                if not orders:
                    plant.advance(passed_ns)
                port.send_encoder(plant.position())
                w = plant.world
                out.put(PlantState(scenes.episode, now_ns, w.time_ns, w.succeeded, w.dynamic_state()).pack())
            pacer.sleep()
    port.close()


def camera_main(arguments: dict[str, Any], stop: Callable[[], bool]) -> None:
    """Entry of the camera process: draws every camera at its rate; silent while the plant is silent."""
    scenes, states = _Scenes(Mailbox(arguments["commands"])), Mailbox(arguments["state"])
    ready = Mailbox(arguments["ready"])
    rings = {name: FrameRing(fd) for name, fd in arguments["rings"].items()}
    world: World | None = None
    pacer = Pacer(arguments["rate_hz"])
    pacer.start(time.monotonic_ns())
    drawn_ns = 0
    while not stop():
        if (fresh := scenes.next()) is not None:
            world = fresh
        got = states.get()
        state = PlantState.unpack(got[1]) if got is not None else None
        if world is not None and state is not None and state.episode == scenes.episode and state.at_ns > drawn_ns:
            world.set_dynamic_state(state.dynamic)
            for name, ring in rings.items():
                ring.publish(world.render(name), state.at_ns)
            drawn_ns = state.at_ns
            ready.put(struct.pack("<Q", state.episode))
        pacer.sleep()


class MetaWorld:
    """The two processes as sources of a session, and the operator's hand on the scene.

    Use as ``Session(config, sources=meta.sources, ...)``; then for every episode :meth:`set_scene`, and
    ``session.run_episode(meta.instruction, duration_s=..., done=meta.succeeded)``.
    """

    def __init__(self, *, nice: int = 0) -> None:
        self._nice = nice
        self._commands = Mailbox.create("scene", _COMMAND_BYTES)
        self._states = Mailbox.create("plant", _STATE_BYTES)
        self._ready = Mailbox.create("drawn", _READY_BYTES)
        self._episode = 0
        self.instruction = ""

    def sources(self, context: SourceContext) -> Sequence[ProcessSpec]:
        """Rows of the process table."""
        fds = {name: ring.fd for name, ring in context.rings.items()}
        shared = (self._commands.fd, self._states.fd)
        common = {"commands": self._commands.fd, "state": self._states.fd}
        rate_hz = max(camera.rate_hz for camera in context.embodiment.cameras)
        return [
            ProcessSpec("plant", "edge_wam.sim.realtime:plant_main",
                        {**common, "drive": context.drive_address, "nice": self._nice}, shared),
            ProcessSpec("cameras", "edge_wam.sim.realtime:camera_main",
                        {**common, "ready": self._ready.fd, "rings": fds, "rate_hz": rate_hz},
                        (*shared, self._ready.fd, *fds.values())),
        ]  # fmt: skip

    def command_scene(self, task: str, seed: int) -> None:
        """Ask for an episode's scene and return at once (a session waits for the cameras before it is ready)."""
        self.instruction = task_named(task).instruction
        self._episode += 1
        self._commands.put(json.dumps({"episode": self._episode, "task": task, "seed": seed}).encode())

    def drawn(self) -> bool:
        """The cameras show the scene last commanded."""
        got = self._ready.get()
        return got is not None and struct.unpack("<Q", got[1])[0] == self._episode

    def set_scene(self, task: str, seed: int, timeout_s: float = 20.0) -> None:
        """Reset the world (only while disarmed) and wait until the cameras show it.

        Raises:
            TimeoutError: a process is dead or the machine is far too slow.
        """
        self.command_scene(task, seed)
        deadline = time.monotonic() + timeout_s
        while not self.drawn():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cameras do not show {task} seed {seed} after {timeout_s:g} s")
            time.sleep(0.01)

    def state(self) -> PlantState | None:
        """The newest state of the episode that is on; None before there is one."""
        got = self._states.get()
        state = PlantState.unpack(got[1]) if got is not None else None
        return state if state is not None and state.episode == self._episode else None

    def succeeded(self) -> bool:
        """Meta-World's own verdict on the episode that is on."""
        state = self.state()
        return state is not None and state.succeeded

    def close(self) -> None:
        for box in (self._commands, self._states, self._ready):
            box.close()
            os.close(box.fd)
