"""The flight recorder: everything a replay needs, in one MCAP file that survives ``kill -9`` to the last half second.

The control loop hands messages over and never waits: a bounded queue, and a thread that writes, flushes and fsyncs.
A full queue or a failing disk is counted and becomes a fault; it is never silent and never stops the arm.

Topics: ``/session`` ``/event`` ``/status`` ``/mcu`` ``/splice`` are JSON; ``/request`` and ``/answer`` are the exact
bytes between control and inference (:mod:`edge_wam.planner_wire`); ``/camera/NAME`` is raw rgb8, the frame index as
message sequence and the capture time as publish time. All times are CLOCK_MONOTONIC in ns; the metadata record
``clock`` has the wall clock.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from mcap.exceptions import McapError
from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer
from zstandard import ZstdError

from edge_wam.contracts import Frame
from edge_wam.errors import ContractError

JSON_TOPICS = ("/session", "/event", "/status", "/mcu", "/splice")
RAW_TOPICS = ("/request", "/answer")
_CAMERA = "/camera/"
_FLUSH_S = 0.4
_DRAIN_S = 0.05
_QUEUE_BYTES = 64 << 20
_SCHEMA = json.dumps({"type": "object"}).encode()


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be recorded")


class _Unbuffered:
    """A file whose every write is the kernel's at once: a killed process loses nothing that was written."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._at = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


class Recorder:
    """Writes one recording. ``put`` and ``frame`` are called by the control loop; everything else happens in a thread.

    Args:
        path: the file; its directory is created.
        cameras: (name, height, width) of each camera.
        queue_bytes: above this the queue is full and messages are dropped and counted.

    Raises:
        ContractError: the file cannot be created.
    """

    def __init__(
        self, path: Path, cameras: tuple[tuple[str, int, int], ...], queue_bytes: int = _QUEUE_BYTES
    ) -> None:
        self.path = path
        self.dropped = 0
        self.error = ""
        self._queue: deque[tuple[str, int, int, int, object, int]] = deque()
        self._queued = 0
        self._limit = queue_bytes
        self._wake = threading.Event()
        self._closing = False
        self._channels: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _Unbuffered(path)
            self._writer = Writer(cast(IO[Any], self._file), chunk_size=1 << 20, compression=CompressionType.ZSTD)
            self._begin(cameras)
        except OSError as error:
            raise ContractError(f"{path}: {error.strerror}", remedy="set recording_dir to a writable folder") from error
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, topic: str, at_ns: int, value: object, size: int = 512) -> None:
        """Queue a JSON value (dict) or raw bytes. ``size``: about how many bytes it is, for JSON."""
        self._push((topic, at_ns, at_ns, 0, value, len(value) if isinstance(value, bytes) else size))

    def frame(self, name: str, at_ns: int, frame: Frame) -> None:
        """Queue one camera frame."""
        data = frame.image.tobytes()
        self._push((_CAMERA + name, at_ns, frame.captured_at_ns, frame.index, data, len(data)))

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued, the index and the footer; returns when it is on the disk."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _push(self, item: tuple[str, int, int, int, object, int]) -> None:
        if self._queued + item[5] > self._limit or self.error:
            self.dropped += 1
            return
        self._queued += item[5]
        self._queue.append(item)

    def _begin(self, cameras: tuple[tuple[str, int, int], ...]) -> None:
        self._writer.start(profile="", library="edge-wam")
        schema = self._writer.register_schema("edge_wam.Json", "jsonschema", _SCHEMA)
        for topic in JSON_TOPICS:
            self._channels[topic] = self._writer.register_channel(topic, "json", schema)
        for topic in RAW_TOPICS:
            self._channels[topic] = self._writer.register_channel(topic, "edge_wam.planner_wire", 0)
        for name, height, width in cameras:
            self._channels[_CAMERA + name] = self._writer.register_channel(
                _CAMERA + name, "rgb8", 0, {"height": str(height), "width": str(width)}
            )
        self._writer.add_metadata("clock", {"wall_minus_monotonic_ns": str(time.time_ns() - time.monotonic_ns())})

    def _run(self) -> None:
        try:
            next_flush = time.monotonic() + _FLUSH_S
            while True:
                self._wake.wait(_DRAIN_S)
                closing = self._closing
                self._drain()
                if closing:
                    break
                if time.monotonic() >= next_flush:
                    self._writer.flush()  # type: ignore[no-untyped-call]
                    os.fsync(self._file.fileno())
                    next_flush = time.monotonic() + _FLUSH_S
            self._writer.finish()  # type: ignore[no-untyped-call]
            os.fsync(self._file.fileno())
        except (OSError, ValueError, TypeError) as error:
            self.error = str(error)
        finally:
            self._file.close()

    def _drain(self) -> None:
        while self._queue:
            topic, at_ns, published_ns, sequence, value, size = self._queue.popleft()
            self._queued -= size
            data = value if isinstance(value, bytes) else json.dumps(value, default=_plain).encode()
            self._writer.add_message(self._channels[topic], at_ns, data, published_ns, sequence & 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message of a recording. ``value``: a dict (JSON topics), a Frame (cameras) or bytes."""

    topic: str
    at_ns: int
    value: Any


class Recording:
    """A recording, whole or cut off by a crash.

    Attributes:
        complete: False when the file ends without its footer (the writer was killed); known after reading to the end.
        wall_minus_monotonic_ns: add to any time in it to get the time of day.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complete = False
        self.wall_minus_monotonic_ns = 0

    def __iter__(self) -> Iterator[Recorded]:
        """Messages in the order in which they were written.

        Raises:
            ContractError: no such file, or no MCAP file.
        """
        try:
            stream = self.path.open("rb")
        except OSError as error:
            raise ContractError(f"{self.path}: {error.strerror}", remedy="name an existing recording") from error
        channels: dict[int, Channel] = {}
        started = False
        with stream:
            try:
                for record in StreamReader(stream, validate_crcs=True).records:
                    started = True
                    if isinstance(record, Channel):
                        channels[record.id] = record
                    elif isinstance(record, Metadata) and record.name == "clock":
                        self.wall_minus_monotonic_ns = int(record.metadata["wall_minus_monotonic_ns"])
                    elif isinstance(record, Message):
                        yield _recorded(channels[record.channel_id], record)
                self.complete = True
            except (McapError, ZstdError, struct.error, ValueError, OSError) as error:
                if not started:
                    raise ContractError(f"{self.path}: not an MCAP recording: {error}") from error

    def of(self, *topics: str) -> list[Recorded]:
        """All messages of these topics."""
        return [message for message in self if message.topic in topics]


def _recorded(channel: Channel, message: Message) -> Recorded:
    if channel.message_encoding == "json":
        return Recorded(channel.topic, message.log_time, json.loads(message.data))
    if channel.message_encoding == "rgb8":
        shape = (int(channel.metadata["height"]), int(channel.metadata["width"]), 3)
        image = np.frombuffer(message.data, np.uint8).reshape(shape)
        return Recorded(channel.topic, message.log_time, Frame(image, message.publish_time, message.sequence))
    return Recorded(channel.topic, message.log_time, message.data)
