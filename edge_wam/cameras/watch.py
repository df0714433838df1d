"""The control process' look at the camera rings: tells the monitor, feeds the recorder, picks frames for a request."""

from __future__ import annotations

from edge_wam.monitor import Monitor
from edge_wam.recorder import Recorder
from edge_wam.shm import FrameInfo, FrameRing


class CameraWatch:
    """The rings of every camera, in the embodiment's order. Looks at headers every tick, at pixels only to record."""

    def __init__(self, rings: dict[str, FrameRing], monitor: Monitor, recorder: Recorder) -> None:
        self._rings = rings
        self._monitor = monitor
        self._recorder = recorder
        self._newest: dict[str, FrameInfo] = {}
        self._used: dict[str, int] = dict.fromkeys(rings, -1)
        self._recorded: dict[str, int] = dict.fromkeys(rings, -1)

    def tick(self, now_ns: int, record: bool) -> None:
        """Take note of new frames."""
        for name, ring in self._rings.items():
            info = ring.info(ring.newest_index())
            if info is None or not self._monitor.frame(now_ns, name, info):
                continue
            self._newest[name] = info
            if record:
                self._record(now_ns, name)

    def fresh(self) -> bool:
        """Every camera has a frame that no request has used."""
        return len(self._newest) == len(self._rings) and all(
            info.index > self._used[name] for name, info in self._newest.items()
        )

    def pick(self, now_ns: int) -> tuple[dict[str, int], int]:
        """(index by camera, oldest capture time in ns) of the newest frames.

        They count as used from here on, and they are in the recording: a replay needs every frame of every request.
        """
        for name, info in self._newest.items():
            if self._recorded[name] != info.index:
                self._record(now_ns, name)
        self._used = {name: self._newest[name].index for name in self._rings}
        return dict(self._used), min(info.captured_at_ns for info in self._newest.values())

    def discard(self) -> None:
        """What is in the rings now is too old for the next request (arming took a while)."""
        for name, info in self._newest.items():
            self._used[name] = info.index

    def _record(self, now_ns: int, name: str) -> None:
        index = self._newest[name].index
        frame = self._rings[name].read(index)
        if frame is not None:
            self._recorded[name] = index
            self._recorder.frame(name, now_ns, frame)
