"""What a session is made from and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_wam.embodiment import Embodiment
from edge_wam.errors import EdgeWamError
from edge_wam.process import ProcessSpec
from edge_wam.shm import FrameRing
from edge_wam.status import FaultReport, Status


class SessionError(EdgeWamError):
    """The session cannot start or go on."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What the plant and camera processes are made from.

    Attributes:
        rings: one frame ring per camera of the robot; pass ``ring.fd`` in ``ProcessSpec.arguments`` and ``fds``.
        drive_address: socket path of the drive stream of an emulated microcontroller; empty for a real one.
    """

    embodiment: Embodiment
    rings: Mapping[str, FrameRing]
    drive_address: str


Sources = Callable[[SourceContext], Sequence[ProcessSpec]]


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """One armed stretch.

    Attributes:
        reason: ``done`` (the caller's condition), ``timeout``, ``stopped`` (the operator), ``refused`` (never armed),
            or the name of the fault that ended it.
        text: why arming was refused.
        faults: what was raised during the episode, the operator's stop left out.
    """

    episode: int
    instruction: str
    seconds: float
    reason: str
    text: str = ""
    faults: tuple[FaultReport, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionResult:
    """What a session leaves behind. ``status`` is the last one: histograms and counters of the whole session."""

    recording: Path
    log: Path
    mcu: str
    status: Status
    episodes: tuple[EpisodeResult, ...]
    faults: tuple[FaultReport, ...]
    exits: Mapping[str, int] = field(default_factory=dict)
